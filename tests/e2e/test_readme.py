"""Documents cannot drift: the README's commands are run, and the command reference is what the commands say."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forex_core.config import EngineConfig
from forex_core.testing import synthetic_table

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SOURCES = ("yahoo", "fred", "mindicador", "ecb", "calendar")
Forex = Callable[..., "subprocess.CompletedProcess[str]"]


def readme_commands() -> list[list[str]]:
    """Every `forex …` line in the README's code blocks but `forex ui`, which does not end: see test_ui.py."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    ours = [line[1:] for line in lines if line and line[0].endswith("forex") and line[0] != "git"]
    return [command for command in ours if command != ["ui"]]


def test_readme_names_commands() -> None:
    assert len(readme_commands()) >= 4


def light_commands() -> list[list[str]]:
    """The first forecast, and all that is no forecast."""
    forecasts = [c for c in readme_commands() if c[0] == "forecast"]
    return [c for c in readme_commands() if c not in forecasts[1:]]


LIGHT = EngineConfig(members=("random_walk", "theta", "drivers"), grid_origins=60, warmup_origins=8)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's data folder."""
    return tmp_path_factory.mktemp("reader") / "data"


@pytest.mark.parametrize("command", light_commands(), ids=" ".join)
def test_readme_commands_run(
    command: list[str], forked: Forex, tmp_path: Path, reader: Path, served: dict[str, str]
) -> None:
    """In one data folder, with a light engine and a Prefect server that runs already; the test below has none of it."""
    own = served | {"FOREX_DATA_DIR": str(reader), "FOREX_ENGINE": LIGHT.model_dump_json()}
    run_readme_command(command, forked, tmp_path, **own)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_readme_commands_run_as_they_stand(forex: Forex, tmp_path: Path) -> None:
    """Those that compute, one after the other in one fresh folder."""
    for command in readme_commands():
        if command[0] in ("forecast", "evaluate"):
            run_readme_command(command, forex, tmp_path)


def run_readme_command(command: list[str], forex: Forex, tmp_path: Path, **own: str) -> None:
    table = synthetic_table(900, start="2021-01-18")
    assert table["Date"].iloc[-1] >= "2024-06-28", "the day that the README asks for"
    table[["Date", "USDCLP", "Copper"]].to_csv(tmp_path / "market.csv", index=False)
    table[["Date", "VIX"]].to_csv(tmp_path / "rates.csv", index=False)
    if "store" in command:
        assert forex("data", "import", "market.csv", "--pair", "USDCLP", **own).returncode == 0
    if command[0] == "backup":  # of whatever there is by now
        assert forex("data", "import", "market.csv", "--pair", "USDCLP", **own).returncode == 0
        assert forex("backup", "create", **own).returncode == 0
    if "live" in command:  # no test asks the network; without one the command says what goes
        gone = {"FOREX_DATA__ADDRESSES": json.dumps(dict.fromkeys(SOURCES, "http://nowhere.invalid"))}
        done = forex(*command, **gone, **own, FOREX_DATA__NEWS_DAYS="0")
        assert done.returncode == 1
        assert "Without a network: 'forex data import FILE --pair USDCLP' and --source store" in done.stderr
        return
    done = forex(*command, **own)
    assert done.returncode == 0, (command, done.stderr)
    if command[0] in ("forecast", "evaluate"):
        assert "rolling origins" in done.stdout
    if command[0] == "forecast":
        report = re.search(r"Report: (\S+)", done.stdout)
        assert report is not None
        assert Path(report[1]).is_file()


def test_readme_make_targets_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "CONTRIBUTING.md").read_text(
        encoding="utf-8"
    )
    targets = set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets >= {"forecast", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_command_reference_is_current(tmp_path: Path) -> None:
    made = tmp_path / "cli.md"
    subprocess.run(
        [
            str(BIN / "typer"),
            "forex_core.cli",
            "utils",
            "docs",
            "--name",
            "forex",
            "--title",
            "Command line",
            "--output",
            str(made),
        ],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=200,
    )
    current = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert made.read_text(encoding="utf-8") == current, "run make docs"


def test_links_between_documents_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("data/*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
