"""The command, installed and run as a user runs it, and its entry point."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forex_core.cli import main

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


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Forex:
    """`forex` by its entry point in this process, without the second that starting another takes."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["forex", *map(str, arguments)])
        for name in ("freeze", "set_threshold"):  # what suits a process that ends is nothing for this one
            monkeypatch.setattr(gc, name, lambda *_: None)
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), said.out, said.err)

    return run
