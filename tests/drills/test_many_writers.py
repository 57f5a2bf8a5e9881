"""Forecasts of all horizons at once, again and again, and an archive every so often: nothing is lost, and all is whole.

Ten minutes with an archive a minute in `make drills` (FOREX_DRILLS=1), a tenth of it by default.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from forex_core.backup import Backups
from forex_core.config import EngineConfig, load_settings
from forex_core.testing import synthetic_table
from forex_core.tracking import ArchivedStore, Registry, open_store
from forex_core.tracking.replay import last_published, replay
from forex_core.tracking.store import release

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.usefixtures("prefect_server")]

SHARE = float(os.environ.get("FOREX_DRILLS", "0.1"))
SECONDS = {"sqlite": 600.0, "postgresql": 200.0}
ARCHIVE_EVERY_S = 60.0
HORIZONS = ("7d", "15d", "30d", "90d")
ROWS, FIRST = 1100, 760
LIGHT = EngineConfig(members=("random_walk", "theta", "drivers"), grid_origins=60, warmup_origins=8)

WRITER = """
import json, sys
from datetime import date
from pathlib import Path
from flows.forecast import FLOWS
from forex_core.types import Horizon

horizon, market, first, go = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
days = [line.partition(",")[0] for line in market.read_text().splitlines()[1 + first:]]
while True:
    day = date.fromisoformat(days.pop(0) if len(days) > 1 else days[0])
    done = FLOWS[Horizon.parse(horizon)](pair="USDCLP", source="csv", paths=[market], as_of=day, force=True)
    print(json.dumps({name: done[name] for name in ("run_id", "warnings", "report")}), flush=True)
    if not go.exists():
        break
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """SQLite with files beside it, or PostgreSQL with files in a bucket."""
    if request.param == "sqlite":
        request.getfixturevalue("sqlite_store")
    else:
        bucket = request.getfixturevalue("s3_bucket")
        monkeypatch.setenv("FOREX_TRACKING_URI", request.getfixturevalue("postgres_store"))
        monkeypatch.setenv("FOREX_ARTIFACT_URI", f"s3://{bucket.name}/runs")
        for name, value in bucket.settings.items():
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("FOREX_ENGINE", LIGHT.model_dump_json())
    return str(request.param)


@contextmanager
def writers(folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """A process for each horizon, each with a day of its own to begin with; they end after the run that they are at."""
    market, go = folder / "market.csv", folder / "go"
    synthetic_table(ROWS).to_csv(market, index=False)
    go.touch()
    started = []
    for number, horizon in enumerate(HORIZONS):
        with (folder / f"{horizon}.out").open("w") as out, (folder / f"{horizon}.err").open("w") as err:
            line = [sys.executable, "-c", WRITER, horizon, str(market), str(FIRST + 7 * number), str(go)]
            started.append(subprocess.Popen(line, cwd=folder, stdout=out, stderr=err, text=True))
    try:
        yield started
    finally:
        go.unlink()
        for process in started:
            process.wait(280)


def archived(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_four_forecasts_at_once_and_an_archive_every_minute(backend: str, tmp_path: Path) -> None:
    seconds, every = SECONDS[backend] * SHARE, ARCHIVE_EVERY_S * SHARE
    create = [str(Path(sys.executable).parent / "forex"), "backup", "create", "--json"]
    create += ["--to", str(tmp_path / "archives")]
    made, published, began = list[dict[str, Any]](), list[dict[str, Any]](), time.monotonic()
    with writers(tmp_path) as working:
        while time.monotonic() - began < seconds:
            due = time.monotonic() + every
            assert [process.poll() for process in working] == [None] * len(working), errors(tmp_path)
            made.append(archived(create))
            time.sleep(max(0.0, due - time.monotonic()))
    took = time.monotonic() - began
    assert [process.returncode for process in working] == [0] * len(working), errors(tmp_path)
    made.append(archived(create))
    for horizon in HORIZONS:
        lines = (tmp_path / f"{horizon}.out").read_text().splitlines()
        published += [json.loads(line) for line in lines if line.startswith("{")]
    assert [one for one in published if one["warnings"] or not Path(one["report"]).is_file()] == []

    settings = load_settings()
    runs = statuses(settings.mlflow_uri)
    assert set(runs.values()) == {"FINISHED"}
    assert set(runs) == {one["run_id"] for one in published}
    assert list(settings.spool_dir.glob("*/run.json")) == []

    backups = Backups(settings, ArchivedStore())
    for one in made:
        assert one["missing"] == []
        backups.verify(one["archive"])
    counts = [one["counts"]["runs"] for one in made]
    assert counts == sorted(counts)
    assert counts[-1] == len(published)
    assert made[-1]["counts"]["models"] == len(HORIZONS)
    for name, one in (("middle", made[(len(made) - 1) // 2]), ("last", made[-1])):
        replayed = restored_and_replayed(backups, one, tmp_path / name)
    assert len(replayed) == len(HORIZONS)
    release(settings.mlflow_uri)
    of_each = Counter(Path(one["report"]).parts[-3] for one in published)
    longest = max(one["seconds"] for one in made)
    print(f"{backend}: {len(published)} runs in {took:.0f} s, all FINISHED {dict(of_each)}")
    print(f"{len(made)} archives, made in {longest:.1f} s at the longest, all of them verified")


def errors(folder: Path) -> str:
    return "\n".join((folder / f"{horizon}.err").read_text()[-3000:] for horizon in HORIZONS)


def statuses(uri: str) -> dict[str, str]:
    """Of every run of the forecasters, in whatever state."""
    client = open_store(uri)
    experiments = client.search_experiments(filter_string="name LIKE 'forecaster%'")
    runs = client.search_runs([one.experiment_id for one in experiments], max_results=5000)
    return {run.info.run_id: run.info.status for run in runs}


def restored_and_replayed(backups: Backups, made: dict[str, Any], folder: Path) -> set[str]:
    """What is restored is what was archived: counts, champions that load, and what they published made again.

    An archive of the middle may have a champion whose run had not ended by then: it has published nothing.
    """
    done = backups.restore(made["archive"], folder)
    database = folder / "mlflow" / "mlflow.db"
    found = dict(ArchivedStore().counts(database))
    found["artifacts"] = sum(path.is_file() for path in (folder / "mlflow" / "mlruns").rglob("*"))
    assert found == {name: made["counts"][name] for name in found}
    assert len(done.champions) == found["models"]
    assert [fault for fault in done.champions.values() if fault] == []
    registry = Registry(f"sqlite:///{database}", (folder / "mlflow" / "mlruns").as_uri(), folder)
    last = {model: run for model, run in last_published(registry).items() if run is not None}
    assert all(replay(registry, run).holds for run in last.values())
    release(registry.uri)
    return set(last)
