"""The installed command, run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Forex = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def forex(tmp_path: Path) -> Forex:
    """`forex(*arguments, **environment)` in the test's own folder, with no setting of the developer's."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("FOREX_", "PREFECT_", "MLFLOW_"))}
        return subprocess.run(
            [str(Path(sys.executable).parent / "forex"), *map(str, arguments)],
            cwd=tmp_path,
            env=kept | {"FOREX_DATA_DIR": str(tmp_path / "data"), **environment},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    return run
