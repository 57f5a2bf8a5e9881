"""A forecast that is killed in its middle does not stay RUNNING: the next one ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.usefixtures("prefect_server", "kept_pictures", "light"),
    pytest.mark.timeout(280),
]

# Killed where the run is begun and nothing is logged of it yet.
KILLED = """
import os, signal, sys
from forex_core.tracking.candidacy import Candidacy
Candidacy.register = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from pathlib import Path
from flows.forecast import forecast_7d
forecast_7d(pair="USDCLP", source="csv", paths=[Path(sys.argv[1])])
"""


@pytest.mark.slow
def test_the_next_forecast_ends_the_run_of_a_killed_one(market: Path, sqlite_store: str) -> None:
    from flows.forecast import forecast_7d
    from forex_core.tracking import open_store

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(market)], env=os.environ, timeout=200, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    client = open_store(sqlite_store)
    experiment = client.get_experiment_by_name("forecaster_7d")
    assert experiment is not None
    (left,) = client.search_runs([experiment.experiment_id])
    assert left.info.status == "RUNNING"

    document = forecast_7d(pair="USDCLP", source="csv", paths=[market])
    states = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    assert states[document["run_id"]].info.status == "FINISHED"
    assert states[left.info.run_id].info.status == "KILLED"
    assert "is gone" in states[left.info.run_id].data.tags["orphaned"]
    assert document["warnings"] == []


@pytest.mark.slow
def test_a_store_that_cannot_be_swept_publishes_all_the_same(
    market: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    from flows import forecast
    from forex_core.errors import TrackingUnavailable

    def unreachable(
        _: object,
    ) -> None:  # the store is reached before and after: no fault of it hits the sweep alone
        raise TrackingUnavailable("the tracking store could not be used")

    monkeypatch.setattr(forecast, "sweep", unreachable)
    assert forecast.forecast_7d(pair="USDCLP", source="csv", paths=[market])["run_id"]
    assert any("were not looked for: the tracking store could not be used" in text for text in told)
