"""The command, installed and run as a user runs it, and its entry point."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from forex_core.cli import main
from tests.forks import Forks, of_the_command

Forex = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(folder: Path, own: Mapping[str, str]) -> dict[str, str]:
    """That of a user whose data are below a folder, with no setting of the developer's."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("FOREX_", "PREFECT_", "MLFLOW_"))}
    return kept | {"FOREX_DATA_DIR": str(folder / "data"), **own}


@pytest.fixture
def forex(tmp_path: Path) -> Forex:
    """`forex(*arguments, **settings)` in the test's own folder."""

    def run(*arguments: str | Path, **own: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).parent / "forex"), *map(str, arguments)],
            cwd=tmp_path,
            env=environment(tmp_path, own),
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Starts `forex` in processes that have imported most of what they need."""
    command = of_the_command()
    yield command
    command.close()


@pytest.fixture
def forked(forks: Forks, tmp_path: Path) -> Forex:
    """As `forex`, for a test that has it do much."""

    def run(*arguments: str | Path, **own: str) -> subprocess.CompletedProcess[str]:
        return forks.start(*arguments, cwd=tmp_path, env=environment(tmp_path, own)).ended()

    return run


@pytest.fixture
def served(prefect_server: None) -> dict[str, str]:
    """Settings with which `forex` finds a Prefect server that runs, in place of one that it starts for each run."""
    return {name: os.environ[name] for name in ("PREFECT_API_URL", "PREFECT_HOME")}


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
