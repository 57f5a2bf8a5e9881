"""`forex rollback` and `forex promote`: what they print, their exit codes, and one round by the installed command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from forex_core.cli import app
from forex_core.config import ChronosConfig, EngineConfig, load_settings
from forex_core.engine import Engine, build_members
from forex_core.errors import ForexError
from forex_core.specification import Specification, frame_of
from forex_core.testing import bundle_of, synthetic_table
from forex_core.tracking import Registry, Version, registry_from_settings
from forex_core.tracking.packaging import save_model
from forex_core.types import Horizon

WEEK = Horizon(7)
NAME = "usdclp-7d"
CONFIG = EngineConfig(members=("random_walk",), min_members=1, grid_origins=60, warmup_origins=8)
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def market(tmp_path: Path) -> Path:
    path = tmp_path / "market.csv"
    synthetic_table(900).to_csv(path, index=False)
    return path


@pytest.fixture
def registry(sqlite_store: str, tmp_path: Path) -> Registry:
    """Versions 1 to 3 of one recipe, all published, the last of them champion, and 4 on trial."""
    bundle = bundle_of(synthetic_table(900))
    run = Engine(CONFIG, build_members(CONFIG, ChronosConfig())).forecast(bundle, WEEK)
    specification = Specification.of(run, bundle, CONFIG, ChronosConfig())
    registry = registry_from_settings(load_settings())

    def version(width: float) -> Version:
        state = replace(run.state, factors=np.full_like(run.state.factors, width))
        folder = tmp_path / "data" / "models" / str(width)
        folder.parent.mkdir(parents=True, exist_ok=True)
        save_model(replace(specification, state=state), frame_of(bundle), folder)
        tags = {"recipe": run.recipe, "trained_until": state.trained_until}
        return registry.register_model(NAME, folder.as_uri(), tags=tags)

    for width in (1.0, 1.1, 1.2):
        made = version(width)
        registry.mark_published(made)
        with registry.lock(NAME):
            registry.succeed(registry.standing(NAME), made)
    registry.challenge(version(1.3))
    return registry


@pytest.fixture
def command(prefect_server: None, market: Path) -> Command:
    """`forex` with these arguments in this process: its exit code, and what it printed or why it failed."""

    def invoke(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [*arguments, "--pair", "USDCLP", "--path", str(market)])
        if isinstance(done.exception, ForexError):
            return done.exception.exit_code, f"error: {done.exception}"
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout

    return invoke


def champion(registry: Registry) -> tuple[int | None, bool]:
    standing = registry.standing(NAME)
    return (standing.champion.number if standing.champion else None, standing.pin is not None)


@pytest.mark.slow
def test_a_rollback_is_told_dry_and_done_and_undone(registry: Registry, command: Command) -> None:
    code, said = command("rollback", "7d", "--dry-run")
    assert code == 0
    assert "Roll back usdclp-7d: from version 3 to version 2, learned up to" in said
    assert "80 % band" in said
    assert said.rstrip().endswith("Dry run: nothing was changed.")
    assert champion(registry) == (3, False)

    code, said = command("rollback", "7d", "--reason", "too narrow")
    assert code == 0
    assert "Champion is version 2, pinned (too narrow). By " in said
    assert "'forex rollback 7d --pair USDCLP --undo' reverses this" in said
    assert "'forex promote 7d --pair USDCLP' puts the challenger in its place" in said
    assert "'forex promote 7d --pair USDCLP --unpin' keeps it and takes the pin away" in said
    assert champion(registry) == (2, True)

    code, said = command("rollback", "7d", "--undo")
    assert code == 0
    assert "Undo the rollback usdclp-7d: from version 2 to version 3" in said
    assert "Champion is version 3, not pinned." in said
    assert champion(registry) == (3, False)

    code, said = command("rollback", "7d", "--to", "4")
    assert code == 0
    assert "puts the challenger in its place" not in said, "there is no other"
    assert "'forex promote 7d --pair USDCLP --unpin' keeps it and takes the pin away" in said


@pytest.mark.slow
def test_json_is_one_document(registry: Registry, command: Command) -> None:
    code, said = command("rollback", "7d", "--to", "1", "--json", "--reason", "mañana")
    document: dict[str, Any] = json.loads(said)
    assert code == 0
    assert (document["action"], document["from_version"], document["to_version"]) == ("rollback", 3, 1)
    assert (document["reason"], document["how"], document["dry_run"]) == ("mañana", "it was named", False)
    assert document["before"]["champion"] == 3
    assert document["after"]["champion"] == 1
    assert Path(document["backup"]).is_file()
    code, said = command("promote", "7d", "--unpin", "--json", "--dry-run")
    assert (code, json.loads(said)["action"], json.loads(said)["to_version"]) == (0, "unpin", 1)
    code, said = command("promote", "7d", "--json", "--dry-run")
    assert (code, json.loads(said)["to_version"], json.loads(said)["dry_run"]) == (0, 4, True)
    assert champion(registry) == (1, True)
    code, said = command("promote", "7d")
    assert "Promote usdclp-7d: from version 1 to version 4" in said
    assert champion(registry) == (4, False)


REFUSED = [
    (("rollback", "7d", "--to", "9"), "usdclp-7d has no version 9; it has 4, 3, 2, 1"),
    (("rollback", "7d", "--undo"), "nothing to undo"),
    (("rollback", "7d", "--undo", "--to", "2"), "--to and --undo exclude each other"),
    (("rollback", "7d", "--metric", "7d_rmse", "--mode", "least"), "--mode 'least' is unknown"),
    (("rollback", "7d", "--metric", "7d_rmse"), "has a finished run with the metric 7d_rmse"),
    (("rollback", "7d", "--mode", "max"), "--mode goes with --metric"),
    (("rollback", "7d", "--to", ""), "'' is no version or run"),
    (("rollback", "8d"), "8d"),
    (("rollback", "15d"), "usdclp-15d has no champion yet; publish a forecast first"),
    (("rollback", "7d", "--reason", "x" * 1001), "the reason has 1001 characters"),
    (("promote", "7d", "--to", "3"), "nothing to promote"),
    (("promote", "7d", "--unpin"), "version 3 of usdclp-7d is not pinned"),
    (("promote", "7d", "--to", "2", "--unpin"), "--to and --unpin exclude each other"),
]


@pytest.mark.slow
def test_a_refusal_says_why(registry: Registry, command: Command) -> None:
    for arguments, reason in REFUSED:
        found, said = command(*arguments)
        assert (found, reason in said) == (2, True), (arguments, said)
        assert champion(registry) == (3, False)


@pytest.mark.slow
def test_a_forecast_is_the_champions_where_the_recipe_needs_more_history(
    registry: Registry, command: Command, kept_pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy = CONFIG.model_copy(update={"min_history_rows": 9000})
    monkeypatch.setenv("FOREX_ENGINE", greedy.model_dump_json())
    code, said = command("forecast", "7d", "--source", "csv", "--json")
    published = json.loads(said)["published"]
    assert (code, published["outcome"], published["version"]) == (0, "failed", 3)
    assert "a 7d forecast needs" in published["reason"]
    code, said = command("forecast", "15d", "--source", "csv")
    assert (code, "a 15d forecast needs" in said) == (2, True), "which has no champion"


def test_a_damaged_model_is_exit_code_one(registry: Registry, command: Command) -> None:
    path = registry.folder(registry.version(NAME, 2)) / "artifacts" / "specification.json"
    path.write_text(path.read_text()[:100])
    found, said = command("rollback", "7d", "--to", "2")
    assert found == 1
    assert "cannot be used" in said
    assert champion(registry) == (3, False)


@pytest.mark.slow
def test_a_round_by_the_installed_command(
    market: Path, sqlite_store: str, forex: Callable[..., CompletedProcess[str]], served: dict[str, str]
) -> None:
    """Two forecasts, a rollback to the first, the pinned one published, and the challenger promoted."""

    def run(*arguments: str) -> dict[str, Any]:
        done = forex(
            *(*arguments, "--pair", "USDCLP", "--json"),
            FOREX_SOURCE="csv",
            FOREX_PATHS=str(market),
            FOREX_ENGINE=CONFIG.model_dump_json(),
            **served,
        )
        assert (done.returncode, done.stderr) == (0, "")
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    first = run("forecast", "7d", "--as-of", "2018-05-04")
    second = run("forecast", "7d", "--as-of", "2018-06-08")
    assert (first["published"]["version"], second["published"]["version"]) == (1, 2)
    done = run("rollback", "7d", "--reason", "a drill")
    assert (done["to_version"], done["after"]["pin"]["reason"]) == (1, "a drill")
    third = run("forecast", "7d", "--as-of", "2018-06-08")
    assert (third["published"]["version"], third["published"]["outcome"]) == (1, "pinned")
    assert "a drill" in third["notices"][0]
    assert run("promote", "7d")["to_version"] == 3
    refused = forex("rollback", "7d", "--pair", "USDCLP", "--undo")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: version 3 of usdclp-7d is not champion by a rollback")
