"""A forecast killed at random moments of each of its stages: afterwards nothing is half, and the next one is made."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
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

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.usefixtures("prefect_server", "kept_pictures"),
]

MODEL, EXPERIMENT = "usdclp-7d", "forecaster_7d"
LIGHT = EngineConfig(
    members=("random_walk", "theta"), min_members=1, grid_origins=60, warmup_origins=8
).model_dump_json()
STAGES = {
    "bundle loaded": "computing",
    "forecast computed": "beginning the run",
    "run begun": "registering the model",
    "model registered": "settling",
    f"{MODEL}: ": "writing the report",
    "report written": "logging",
    "run logged": "ending",
}
"""What the log says as a stage begins. Before the first nothing is written; the last goes on to the exit."""

IN_EACH, ANYWHERE = 10, 30
"""Moments of each stage, and of the whole time from the first write to the exit: a hundred."""

WORK = """
import os, signal, sys, threading, time
from datetime import date
from loguru import logger
from flows.forecast import forecast_7d
from forex_core.config import load_settings
from forex_core.data.loading import bundle_of
from forex_core.engine import build_engine
from forex_core.tracking.packaging import import_mlflow
stages = sys.argv[1:]

def tell(message):
    said = message.record["message"]
    for stage in stages:
        if said.startswith(stage):
            print(stage, time.monotonic(), sep="=", flush=True)

logger.add(tell)
import_mlflow()
build_engine(load_settings()).prepare(bundle_of(load_settings(pair="USDCLP", source="csv", paths=["market.csv"])))
assert threading.active_count() == 1, "a fork has no other"
for line in sys.stdin:
    forecaster = os.fork()
    if forecaster == 0:
        os.setsid()
        print("of", os.getpid(), sep="=", flush=True)
        forecast_7d(pair="USDCLP", source="store", as_of=date.fromisoformat(line.strip()))
        sys.exit()
    _, status = os.waitpid(forecaster, 0)
    print("exit", time.monotonic(), os.waitstatus_to_exitcode(status), sep="=", flush=True)
"""


class Forecasters:
    """Processes that make one forecast each and have all that they start in their group.

    They are forks of one that has imported everything, which takes longer than a forecast.
    """

    def __init__(self) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, "-c", WORK, *STAGES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.lengths = dict.fromkeys(STAGES, 0.0)
        """Seconds that each stage took when it was last gone through."""

    def close(self) -> None:
        with self._parent:
            self._parent.kill()

    def whole(self, day: date) -> None:
        assert self._forecast(day, "", 0.0) == "exit"

    def killed(self, day: date, stage: str, delay: float) -> str:
        """Kill one so long after the beginning of a stage; the stage in which that found it, or its exit."""
        return self._forecast(day, stage, delay)

    def _forecast(self, day: date, until: str, delay: float) -> str:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        print(day, file=self._parent.stdin, flush=True)
        number, found, began = 0, "", 0.0
        for line in self._parent.stdout:
            said, at, *code = line.strip().split("=")
            if said == "of":
                number = int(at)
                continue
            if code == [str(-signal.SIGKILL)]:
                break
            if found:
                self.lengths[found] = float(at) - began
            found, began = said, float(at)
            if code:
                assert code == ["0"]
                break
            if said == until:
                time.sleep(delay)
                with suppress(ProcessLookupError):
                    os.killpg(number, signal.SIGKILL)
        return found


@dataclass
class Deployment:
    """A data folder with observations, in which forecasts are made for one day after the other."""

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
        "FOREX_ENGINE": LIGHT,
        "FOREX_DATA__DRIVERS": "[]",
        "FOREX_DATA__MAX_AGE_BUSINESS_DAYS": "1",
        "MLFLOW_TRACKING_URI": sqlite_store,
    }.items():
        monkeypatch.setenv(name, value)
    rows = 900
    table = synthetic_table(rows + 200, seed=5)[["Date", "USDCLP"]]
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


def test_a_forecast(deployment: Deployment) -> None:
    """Without a champion at first, then with one, each killed one followed by another for its day."""
    draw, kept = drawn(), deployment.data.with_name("kept")
    shutil.copytree(deployment.data, kept)
    forecasters, hit = Forecasters(), Counter[str]()

    def kill(stage: str, delay: float) -> None:
        day = next(deployment.days)
        hit[forecasters.killed(day, stage, delay)] += 1
        deployment.check_databases()
        before = {run.info.run_id: run.info.status for run in deployment.runs()}
        document = deployment.next_forecast(day)
        if document.get("already_published"):
            assert before[document["run_id"]] == "FINISHED", "what is published was published"
        deployment.check(document)

    try:
        for _ in range(2):  # of the second, nothing is made for the first time
            forecasters.whole(next(deployment.days))
        print({STAGES[stage]: f"{length:.2f} s" for stage, length in forecasters.lengths.items()})
        release(load_settings().mlflow_uri)
        shutil.rmtree(deployment.data)
        shutil.copytree(kept, deployment.data)
        for stage in STAGES:
            for _ in range(3 * share_of(IN_EACH)):
                if hit[stage] < share_of(IN_EACH):
                    kill(stage, draw.random() * forecasters.lengths[stage])
        for _ in range(share_of(ANYWHERE)):
            at = draw.random() * sum(forecasters.lengths.values())
            for stage, length in forecasters.lengths.items():
                if at < length:
                    kill(stage, at)
                    break
                at -= length
    finally:
        forecasters.close()
    print(
        f"killed {sum(hit.values()) - hit['exit']} at work:", {n: hit[stage] for stage, n in STAGES.items()}
    )
    for stage in STAGES:
        assert hit[stage] >= share_of(IN_EACH), f"{STAGES[stage]} was over before its moments"
