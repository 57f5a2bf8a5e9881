"""`forex experiments`, `forex runs`, `forex models` and `forex tracking` on a real store."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from forex_core.cli import app
from forex_core.errors import InputError, TrackingError
from forex_core.testing import synthetic_table
from forex_core.tracking import open_store

ALL_FAILED = 'said "no, never",\nthen [red]stopped[/red] at \x1b[31m50 %'
LISTINGS = (
    ("experiments", "list"),
    ("runs", "list", "7d"),
    ("runs", "best", "7d", "--pair", "USDCLP"),
    ("runs", "compare", "7d", "--pair", "USDCLP"),
    ("models", "list"),
)


@dataclass(frozen=True)
class Store:
    data: Path
    first: str
    second: str
    failed: str
    other: str


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Store:
    """Two finished runs and a failed one of USD/CLP, one of EUR/USD; a champion that is pinned."""
    data = tmp_path_factory.mktemp("listings") / "data"
    (data / "mlflow").mkdir(parents=True)
    shutil.copyfile(migrated_sqlite, data / "mlflow" / "mlflow.db")
    client = open_store(f"sqlite:///{data / 'mlflow' / 'mlflow.db'}")
    from mlflow.entities import Metric, Param

    experiment = client.create_experiment(
        "forecaster_7d", (data / "mlflow" / "mlruns" / "forecaster_7d").as_uri(), {"team": "a, [b]x[/b]"}
    )

    def run(number: int, pair: str, rmse: float | None, status: str = "FINISHED", **tags: str) -> str:
        tags = {"pair": pair, "horizon": "7d", "environment": "production"} | tags
        made = client.create_run(
            experiment, 1_795_000_000_000 + number * 86_400_000, tags, f"forecast_{number}"
        )
        scores = {
            "7d_mape": 1.25,
            "7d_rmse_ratio_rw": 0.97,
            "7d_origins": 208,
            "ets_rmse": 12.5,
            "ets_weight": 0.5,
        }
        values = {} if rmse is None else scores | {"7d_rmse": rmse}
        params = {
            "origin": f"2026-11-{number:02}",
            "settings": json.dumps({"engine": {"weight_rate": number}}),
        }
        client.log_batch(
            made.info.run_id,
            metrics=[Metric(name, value, 0, 0) for name, value in values.items()],
            params=[Param(name, value) for name, value in params.items()],
        )
        client.set_terminated(made.info.run_id, status)
        return str(made.info.run_id)

    first = run(10, "USDCLP", 11.25, published_model="usdclp-7d", published_version="1")
    second = run(
        11, "USDCLP", 12.75, published_model="usdclp-7d", published_version="1", pinned="bad", challenger="2"
    )
    failed = run(12, "USDCLP", None, "FAILED", error_type="SourceError", error_message=ALL_FAILED)
    other = run(13, "EURUSD", 0.012)
    (data / "reports").mkdir()
    (data / "reports" / "forecast.json").write_text("{}")
    client.log_artifacts(first, str(data / "reports"), "reports")
    client.create_registered_model("usdclp-7d")
    pin = json.dumps({"by": "ana", "at": "2026-11-20T16:14:00+00:00", "reason": "bad [i]data[/i]"})
    tags = {"recipe": "abcdef0123456789", "trained_until": "2026-11-10", "published": "true", "pin": pin}
    client.create_model_version("usdclp-7d", data.as_uri(), first, tags)
    client.create_model_version("usdclp-7d", data.as_uri(), second, {"recipe": "fedcba"})
    client.set_registered_model_alias("usdclp-7d", "champion", "1")
    client.set_registered_model_alias("usdclp-7d", "challenger", "2")
    return Store(data, first, second, failed, other)


def ask(store: Store | None, *arguments: str, columns: int = 100) -> Result:
    from forex_core.cli.app import stdout

    environment = {"FOREX_DATA_DIR": str(store.data)} if store else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stdout, "_width", columns)  # a console takes COLUMNS once, when it is made
        return CliRunner().invoke(app, arguments, env=environment)


def answer(store: Store | None, *arguments: str) -> str:
    done = ask(store, *arguments)
    assert done.exit_code == 0, done.exception
    assert done.stderr == ""
    return done.stdout


def document(store: Store | None, *arguments: str) -> Any:
    return json.loads(answer(store, *arguments, "--json"))


def table(store: Store | None, *arguments: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer(store, *arguments, "--csv"), newline=""), strict=True))


def refused(store: Store | None, *arguments: str) -> str:
    done = ask(store, *arguments)
    assert isinstance(done.exception, InputError), (done.exception, done.stdout)
    assert done.stdout == ""
    return str(done.exception)


def test_experiments(store: Store) -> None:
    (one,) = document(store, "experiments", "list")["experiments"]
    assert (one["name"], one["finished"], one["failed"], one["other"]) == ("forecaster_7d", 3, 1, 0)
    (row,) = table(store, "experiments", "list")
    assert (row["name"], row["finished"], row["tag.team"]) == ("forecaster_7d", "3", "a, [b]x[/b]")
    assert "forecaster_7d" in answer(store, "experiments", "list")


def test_runs_of_a_horizon(store: Store) -> None:
    listed = document(store, "runs", "list", "7d")
    assert [row["id"] for row in listed["runs"]] == [store.other, store.failed, store.second, store.first]
    newest = listed["runs"][0]
    assert newest["scores"]["rmse"] == 0.012
    assert newest["started"] == "2026-12-01T11:06:40.000+00:00"
    assert newest["tags"]["environment"] == "production"
    rows = table(store, "runs", "list", "7d", "--pair", "usd/clp")
    assert [row["id"] for row in rows] == [store.failed, store.second, store.first]
    assert rows[0]["error"] == f"SourceError: {ALL_FAILED}"
    assert rows[0]["rmse"] == ""
    assert (rows[1]["rmse"], rows[1]["published_version"], rows[1]["version"]) == ("12.75", "1", "2")
    assert (rows[1]["aliases"], rows[1]["marks"]) == ("champion", "challenger pinned")
    assert [row["id"] for row in table(store, "runs", "list", "7d", "--last", "1")] == [store.other]
    assert [r["id"] for r in table(store, "runs", "list", "7d", "--status", "failed")] == [store.failed]
    text = answer(store, "runs", "list", "7d")
    for shown in (
        "v1*",
        "* champion",
        f"{store.second[:8]} challenger v2",
        f"{store.second[:8]} pinned: bad",
        store.second[:8],
        "12.75",
        "1.25",
        "0.970",
        "production",
        "FINISHED",
    ):
        assert shown in text
    assert "2026-11-11" in answer(store, "runs", "list", "7d", "--pair", "USDCLP")
    assert "[red]stopped[/red]" in text
    assert "\x1b" not in text


def test_one_run(store: Store) -> None:
    shown = document(store, "runs", "show", store.first[:8])
    assert shown["id"] == store.first
    assert shown["metrics"]["ets_rmse"] == 12.5
    assert shown["params"]["origin"] == "2026-11-10"
    assert shown["artifacts"] == [{"path": "reports/forecast.json", "bytes": 2}]
    rows = table(store, "runs", "show", store.failed)
    values = {(row["kind"], row["name"]): row["value"] for row in rows}
    assert values["run", "status"] == "FAILED"
    assert values["tag", "error_message"] == ALL_FAILED
    assert values["param", "settings"] == '{"engine": {"weight_rate": 12}}'
    text = answer(store, "runs", "show", store.first)
    for part in ("7d_rmse_ratio_rw", "0.97", "reports/forecast.json", "2 bytes", store.first):
        assert part in text
    text = answer(store, "runs", "show", store.failed)
    assert "[red]stopped[/red]" in text
    assert "\x1b" not in text
    assert "no run begins with 00000000" in refused(store, "runs", "show", "00000000")
    assert "is not the id of a run" in refused(store, "runs", "show", "8d")


def test_the_best_run(store: Store) -> None:
    found = document(store, "runs", "best", "7d", "--pair", "USDCLP")
    assert (found["run"]["id"], found["metric"], found["value"]) == (store.first, "7d_rmse", 11.25)
    highest = document(store, "runs", "best", "7d", "--pair", "USDCLP", "--mode", "max")
    assert highest["run"]["id"] == store.second
    assert document(store, "runs", "best", "7d", "--pair", "USDCLP", "--loadable")["run"] is None
    assert document(store, "runs", "best", "7d", "--pair", "USDJPY")["run"] is None
    (row,) = table(store, "runs", "best", "7d", "--pair", "USDCLP", "--metric", "ets_weight")
    assert (row["metric"], row["value"], row["id"]) == ("ets_weight", "0.5", store.second)
    assert table(store, "runs", "best", "7d") == []
    assert store.first in answer(store, "runs", "best", "7d", "--pair", "USDCLP")
    assert "No finished run of USDMXN 7d" in answer(store, "runs", "best", "7d")
    assert "cannot be the name of a metric" in refused(store, "runs", "best", "7d", "--metric", "a%b")
    assert "expected min or max" in refused(store, "runs", "best", "7d", "--mode", "least")


@pytest.mark.parametrize("by_horizon", [True, False])
def test_a_comparison(by_horizon: bool, store: Store) -> None:
    targets = ["7d", "--pair", "USDCLP"] if by_horizon else [store.second[:8], store.first]
    compared = document(store, "runs", "compare", *targets)
    assert [row["id"] for row in compared["runs"]] == [store.second, store.first]
    assert compared["models"]["ets"][0] == {"rmse": 12.5, "mape": None, "weight": 0.5}
    assert compared["params"]["settings.engine.weight_rate"] == ["11", "10"]
    assert "different windows" in compared["remarks"][0]
    rows = table(store, "runs", "compare", *targets)
    values = {(row["kind"], row["name"], row["score"]): (row[store.second], row[store.first]) for row in rows}
    assert values["model", "ensemble", "rmse"] == ("12.75", "11.25")
    assert values["param", "origin", ""] == ("2026-11-11", "2026-11-10")
    text = answer(store, "runs", "compare", *targets)
    assert "scores of different weeks do not compare" in text
    assert "settings.engine.weight_rate" in text


def test_a_comparison_needs_two_runs(store: Store) -> None:
    assert "two different ones" in refused(store, "runs", "compare", store.first)
    assert "go with a horizon" in refused(store, "runs", "compare", store.first, store.second, "--last", "3")
    few = document(store, "runs", "compare", "7d", "--pair", "EURUSD")
    assert few["models"] == {}
    assert few["remarks"] == ["finished runs of EURUSD 7d: 1; two are needed to compare"]
    answer(store, "runs", "compare", "7d", "--pair", "EURUSD")


def test_registered_models(store: Store) -> None:
    newest, champion = document(store, "models", "list")["models"]
    assert (newest["version"], newest["aliases"]) == (2, ["challenger"])
    assert (champion["version"], champion["aliases"], champion["run_id"]) == (1, ["champion"], store.first)
    rows = table(store, "models", "list", "--pair", "USDCLP")
    assert json.loads(rows[1]["pin"])["by"] == "ana"
    assert rows[1]["trained_until"] == "2026-11-10"
    assert table(store, "models", "list", "--pair", "EURUSD") == []
    text = answer(store, "models", "list")
    assert "usdclp-7d v1 pinned: bad [i]data[/i] (ana, 2026-11-20 16:14)" in text


@pytest.mark.parametrize("columns", [100, 80])
@pytest.mark.parametrize("arguments", [*LISTINGS, ("runs", "show", "{first}")])
def test_tables_fit_and_nothing_is_cut(arguments: tuple[str, ...], columns: int, store: Store) -> None:
    asked = [argument.format(first=store.first) for argument in arguments]
    done = ask(store, *asked, columns=columns)
    tables = [
        line for line in done.stdout.splitlines() if "different windows" not in line
    ]  # wraps in a terminal
    assert max(map(cell_len, tables)) <= columns
    assert "…" not in done.stdout
    whole = answer(store, *asked)
    # Of a line that was cut off nothing says so.
    for last in ("Model", "v1*", "Published", "RMSE/RW", "champion"):
        assert whole.count(last) == done.stdout.count(last)
    if columns == 100 and arguments[0] == "runs":
        assert "production" in done.stdout


@pytest.mark.parametrize("arguments", LISTINGS)
def test_a_store_that_is_not_there_has_no_runs_and_is_not_made(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    assert answer(None, *arguments).strip()
    document(None, *arguments)
    assert [row for row in table(None, *arguments) if row.get("kind") not in ("remark", "run")] == []
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_a_store_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    assert "there are no runs yet" in refused(None, "runs", "show", "abcd1234")
    assert "there are no runs yet" in refused(None, "runs", "compare", "abcd1234", "abcd1235")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [*LISTINGS, ("runs", "show", "{first}")])
def test_json_and_csv_exclude_each_other(arguments: tuple[str, ...], store: Store) -> None:
    asked = [argument.format(first=store.first) for argument in arguments]
    assert "exclude each other" in refused(store, *asked, "--json", "--csv")


@pytest.mark.parametrize("arguments", [*LISTINGS, ("runs", "show", "{first}")])
def test_csv_is_rfc_4180(arguments: tuple[str, ...], store: Store) -> None:
    asked = [argument.format(first=store.first) for argument in arguments]
    done = ask(store, *asked, "--csv")
    lines = list(csv.reader(io.StringIO(done.stdout_bytes.decode(), newline=""), strict=True))
    assert len(lines) > 1
    assert len({len(line) for line in lines}) == 1
    assert len(set(lines[0])) == len(lines[0])
    assert done.stdout_bytes.endswith(b"\r\n")


def test_help_has_examples_and_every_option(store: Store) -> None:
    for arguments in (*LISTINGS, ("runs", "show")):
        text = answer(None, *arguments[:2], "--help")
        assert f"forex {arguments[0]} {arguments[1]}" in text
        assert "--json" in text
        assert "--csv" in text


def test_a_damaged_store_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "data" / "mlflow" / "mlflow.db"
    path.parent.mkdir(parents=True)
    path.write_text("notes, not a database" * 200)
    done = ask(None, "runs", "list", "7d")
    assert isinstance(done.exception, TrackingError)
    assert str(path) in str(done.exception)
    assert done.stdout == ""


@pytest.mark.slow
def test_the_installed_command_lists(
    store: Store, forex: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = forex("runs", "list", "7d", "--json", FOREX_DATA_DIR=str(store.data))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["runs"][0]["id"] == store.other
    done = forex("runs", "show", "00000000", FOREX_DATA_DIR=str(store.data))
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_what_a_forecast_logs_is_what_the_listings_read(
    tmp_path: Path, forex: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The names of tags, params, metrics and files, on both sides of the store."""
    market = tmp_path / "market.csv"
    synthetic_table(700).to_csv(market, index=False)
    engine = {"members": ["random_walk", "theta", "ets"], "grid_origins": 60, "warmup_origins": 10}
    arguments = ("forecast", "7d", "--path", market, "--pair", "USDCLP", "--json")
    done = forex(*arguments, FOREX_ENGINE=json.dumps(engine), FOREX_ENVIRONMENT="staging")
    assert done.returncode == 0, done.stderr
    forecast = json.loads(done.stdout)
    (row,) = document(None, "runs", "list", "7d")["runs"]
    assert row["id"] == forecast["run_id"]
    assert (row["pair"], row["environment"], row["origin"]) == ("USDCLP", "staging", forecast["origin"])
    scores = forecast["models"]["ensemble"]
    assert row["scores"]["rmse"] == pytest.approx(scores["rmse"])
    assert None not in row["scores"].values()
    assert (row["published_version"], row["version"], row["aliases"]) == (1, 1, ["champion"])
    evaluation = forecast["evaluation"]
    assert f"from {evaluation['first_origin']} to {evaluation['last_origin']}" in row["window"]
    best = document(None, "runs", "best", "7d", "--pair", "USDCLP", "--loadable")
    assert best["run"] is not None
    assert best["run"]["id"] == row["id"]
    (version,) = document(None, "models", "list", "--pair", "USDCLP")["models"]
    assert version["run_id"] == row["id"]
    assert all(version[name] for name in ("recipe", "trained_until", "published"))
    files = {file["path"] for file in document(None, "runs", "show", row["id"][:8])["artifacts"]}
    assert "reports/forecast.json" in files


# --- upkeep


def test_a_spool_is_replayed_once_and_what_cannot_be_logged_is_said(tmp_path: Path) -> None:
    from forex_core.tracking.spool import SpooledRun, SpoolEntry, new_spool_id

    assert "Nothing is spooled" in answer(None, "tracking", "replay")
    assert list(tmp_path.iterdir()) == []
    spool = tmp_path / "data" / "spool"
    tags = {"pair": "USDCLP", "horizon": "7d"}
    run = SpooledRun(
        spool_id=new_spool_id(),
        store="mlflow/mlflow.db",
        run_id=None,
        experiment="forecaster_7d",
        experiment_tags={},
        artifact_root=None,
        run_name="late",
        tags=tags,
        start_time=1_795_000_000_000,
        reason="disk full",
    )
    entry = SpoolEntry(spool, run)
    entry.end("FINISHED", 1_795_000_060_000)
    (one,) = document(None, "tracking", "replay")["entries"]
    assert one["outcome"] == "logged"
    (row,) = document(None, "runs", "list", "7d")["runs"]
    assert (row["id"], row["name"], row["marks"]) == (one["run_id"], "late", ["spooled"])
    assert document(None, "tracking", "replay") == {"entries": []}
    assert len(document(None, "runs", "list", "7d")["runs"]) == 1
    broken = spool / "spooled-broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    done = ask(None, "tracking", "replay")
    assert isinstance(done.exception, TrackingError)
    assert "1 of 1 spooled runs could not be logged" in str(done.exception)
    assert "kept" in done.stdout


def test_a_store_that_was_moved_is_told_where_its_files_are(tmp_path: Path, migrated_sqlite: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "data"
    (old / "mlflow").mkdir(parents=True)
    shutil.copyfile(migrated_sqlite, old / "mlflow" / "mlflow.db")
    client = open_store(f"sqlite:///{old / 'mlflow' / 'mlflow.db'}")
    experiment = client.create_experiment(
        "forecaster_7d", (old / "mlflow" / "mlruns" / "forecaster_7d").as_uri()
    )
    made = client.create_run(experiment, tags={"pair": "USDCLP", "horizon": "7d"})
    (tmp_path / "note.txt").write_text("here")
    client.log_artifact(made.info.run_id, str(tmp_path / "note.txt"))
    shutil.copytree(old, new)
    shutil.rmtree(old)
    assert document(None, "runs", "show", made.info.run_id)["artifacts"] == []
    arguments = ("tracking", "relocate", "--from", str(old / "mlflow"), "--to", str(new / "mlflow"))
    changed = document(None, *arguments)["changed"]
    assert changed["runs.artifact_uri"] == 1
    assert document(None, "runs", "show", made.info.run_id)["artifacts"] == [{"path": "note.txt", "bytes": 4}]
    assert isinstance(ask(None, *arguments).exception, TrackingError)
