"""A forecast killed at random moments of each of its stages: afterwards nothing is half, and the next one is made."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run

from forex_core.config import EngineConfig, load_settings
from forex_core.data.importing import observations_of
from forex_core.data.loading import store_of
from forex_core.report.folder import DOCUMENT, REPORT
from forex_core.testing import synthetic_table
from forex_core.tracking import open_store, registry_from_settings
from forex_core.tracking.health import REPORT_FILES
from forex_core.tracking.orphans import ORPHANED_TAG
from forex_core.tracking.spool import waiting
from forex_core.tracking.store import release
from forex_core.types import Pair
from tests.drills.moments import drawn, share_of
from tests.forecasting import EXIT, STAGES, Forecasters

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.usefixtures("prefect_server", "kept_pictures"),
]

MODEL, EXPERIMENT = "usdclp-7d", "forecaster_7d"
LIGHT = EngineConfig(members=("random_walk", "theta"), min_members=1, grid_origins=60, warmup_origins=8)
IN_EACH, AT_WORK = 10, 100
"""Moments of each stage, and of the whole time from the first write to the exit."""


@dataclass
class Killer:
    """Forecasts for one day after the other, killed or not; where it found them, and how long stages last took."""

    forecasters: Forecasters
    days: Iterator[date]
    lengths: dict[str, float] = field(default_factory=dict)
    hit: Counter[str] = field(default_factory=Counter)

    @property
    def at_work(self) -> int:
        """How many were killed between the first write and the exit."""
        return sum(self.hit[stage] for stage in STAGES)

    def let_live(self) -> None:
        assert self._watched(next(self.days)) == EXIT

    def kill(self, stage: str, delay: float) -> date:
        """Kill one so long after the beginning of a stage; the day that it was to forecast."""
        day = next(self.days)
        self.hit[self._watched(day, stage, delay)] += 1
        return day

    def _watched(self, day: date, until: str = "", delay: float = 0.0) -> str:
        """The stage in which it came to its end."""
        forecast, found, began = self.forecasters.start(source="store", as_of=day), "", 0.0
        for stage, at in forecast.stages():
            if forecast.exit_code == -signal.SIGKILL:
                return found
            if found:
                self.lengths[found] = at - began
            found, began = stage, at
            if stage == until:
                time.sleep(delay)
                forecast.kill()
        assert forecast.exit_code == 0
        return EXIT


@dataclass
class Deployment:
    """A data folder with observations."""

    data: Path
    days: Iterator[date]

    def next_forecast(self, day: date) -> dict[str, Any]:
        from flows.forecast import forecast_7d

        document: dict[str, Any] = forecast_7d(pair="USDCLP", source="store", as_of=day)
        return document

    def check_databases(self) -> None:
        for path in (self.data / "mlflow" / "mlflow.db", self.data / "store" / "forex.db"):
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert store_of(load_settings()).names()

    def runs(self) -> list[Run]:
        client = open_store(load_settings().mlflow_uri, below=self.data)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        return list(client.search_runs([experiment.experiment_id])) if experiment else []

    def check(self, document: dict[str, Any]) -> None:
        """After a kill and the forecast that `document` is of."""
        published = self.runs()
        for run in published:
            if run.info.status == "KILLED":
                assert "is gone" in run.data.tags[ORPHANED_TAG]
                assert run.data.tags["status"] == "failed"
            else:
                assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "published")
                self._check_published(run)
        (own,) = [run for run in published if run.info.run_id == document["run_id"]]
        assert own.info.status == "FINISHED"
        assert document["warnings"] == []
        registry = registry_from_settings(load_settings())
        champion = registry.standing(MODEL).champion
        assert champion is not None
        assert (champion.number, champion.published) == (document["published"]["version"], True)
        assert champion.change is None
        mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
        for folder in self.data.glob("reports/usdclp/7d/[!.]*"):
            names = {path.name for path in folder.iterdir()}
            assert names >= {Path(name).name for name in REPORT_FILES}, (
                "no half report goes by the name of one"
            )
        assert waiting(load_settings().spool_dir) == {}

    def _check_published(self, run: Run) -> None:
        """What the record of a published run names is there, and whole."""
        artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
        for name in REPORT_FILES:
            assert (artifacts / name).stat().st_size > 0
        text = (artifacts / "reports" / DOCUMENT).read_text()
        document = pd.io.json.ujson_loads(text)
        assert document["run_id"] == run.info.run_id
        own = Path(document["report"]).parent
        assert (own / DOCUMENT).read_text() == text
        assert (own / REPORT).read_bytes() == (artifacts / "reports" / REPORT).read_bytes()
        snapshot = pd.read_parquet(artifacts / "reports" / "snapshot.parquet")
        assert str(snapshot["date"].iloc[-1].date()) == document["origin"]


@pytest.fixture
def deployment(sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    for name, value in {
        "FOREX_ENGINE": LIGHT.model_dump_json(),
        "FOREX_DATA__DRIVERS": "[]",
        "FOREX_DATA__MAX_AGE_BUSINESS_DAYS": "1",
        "MLFLOW_TRACKING_URI": sqlite_store,
    }.items():
        monkeypatch.setenv(name, value)
    rows = 900
    table = synthetic_table(rows + 300, seed=5)[["Date", "USDCLP"]]
    table.to_csv(tmp_path / "market.csv", index=False)
    market = observations_of(
        [tmp_path / "market.csv"],
        Pair("USD", "CLP"),
        rate="close",
        columns={},
        needs_pair=True,
        available_at=None,
    )
    store_of(load_settings()).record(market, origin="the drill")
    yield Deployment(tmp_path / "data", (date.fromisoformat(day) for day in table["Date"][rows:]))
    release(sqlite_store)


@pytest.fixture
def drawing(prefect_server: None) -> Iterator[Forecasters]:
    """Forecasters that have processes which draw."""
    starting = Forecasters(draws=True)
    yield starting
    starting.close()


def test_a_forecast(deployment: Deployment, drawing: Forecasters) -> None:
    """Without a champion at first, then with one, each killed one followed by another for its day."""
    draw, kept = drawn(), deployment.data.with_name("kept")
    killer = Killer(drawing, deployment.days)

    def kill(stage: str, delay: float) -> None:
        day = killer.kill(stage, delay)
        deployment.check_databases()
        before = {run.info.run_id: run.info.status for run in deployment.runs()}
        document = deployment.next_forecast(day)
        if document.get("already_published"):
            assert before[document["run_id"]] == "FINISHED", "what is published was published"
        deployment.check(document)

    shutil.copytree(deployment.data, kept)
    for _ in range(2):  # of the second, nothing is made for the first time
        killer.let_live()
    lengths = killer.lengths
    print({STAGES[stage]: f"{length:.2f} s" for stage, length in lengths.items()})
    shutil.rmtree(deployment.data)
    shutil.copytree(kept, deployment.data)
    for stage in STAGES:
        for tried in range(6 * share_of(IN_EACH)):
            # One that was over before is killed nearer to its beginning.
            if killer.hit[stage] < share_of(IN_EACH):
                kill(stage, draw.random() * lengths[stage] / (1 + tried // share_of(IN_EACH)) ** 2)
    for _ in range(4 * share_of(AT_WORK)):
        if killer.at_work >= share_of(AT_WORK):
            break
        at = draw.random() * sum(lengths.values())
        for stage, length in lengths.items():
            if at < length:
                kill(stage, at)
                break
            at -= length
    print(f"killed {killer.at_work} at work:", {name: killer.hit[stage] for stage, name in STAGES.items()})
    for stage in STAGES:
        assert killer.hit[stage] >= share_of(IN_EACH), f"{STAGES[stage]} was over before its moments"
    assert killer.at_work >= share_of(AT_WORK), "too many were over before their moments"
