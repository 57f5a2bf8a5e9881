"""Runs whose process is gone: a run that was killed never said that it ended, and would be RUNNING for ever.

Every run tells by a tag which process it is of. Whether that one lives is asked of the kernel, which can be done on the
same machine and in the same container alone; a run of another one is given up after a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from loguru import logger

from forex_core.config import Settings
from forex_core.tracking.build import connect
from forex_core.tracking.process import PROCESS_TAG, told_process
from forex_core.tracking.queries import existing_store, pages
from forex_core.tracking.spool import waiting
from forex_core.tracking.store import store_lock, translated

if TYPE_CHECKING:
    from mlflow import MlflowClient

ORPHANED_TAG = "orphaned"

SWEEP_WAIT_S = 60.0
"""How long a sweep waits for another one."""

State = Literal["alive", "orphaned", "elsewhere", "spooled", "untold"]


@dataclass(frozen=True)
class RunningRun:
    """A run that has not ended.

    `state`: its process lives (`alive`) or is gone (`orphaned`); it is of another machine and too young to be given up
    (`elsewhere`); its end waits in the spool (`spooled`); or it does not tell its process, as one that others than the
    trackers here began (`untold`).
    """

    run_id: str
    name: str
    experiment: str
    started: datetime
    state: State
    why: str


def running_runs(client: MlflowClient, spool: Path, limit: timedelta) -> list[RunningRun]:
    """Every run of the store that has not ended, oldest first.

    Args:
        spool: where the end of a run may wait.
        limit: how old a run of another machine becomes before it is given up.
    """
    spooled = {header.run_id for header in waiting(spool).values() if header}
    found = [_running(*run, spooled, limit) for run in _unended(client)]
    return sorted(found, key=lambda one: one.started)


def sweep(settings: Settings) -> list[RunningRun]:
    """End the orphaned runs as KILLED, each with the tag `orphaned`, and return every run that had not ended.

    A run of a living process is left alone, and so is one of another machine that is younger than
    `tracking.orphaned_after_h`, one whose end waits in the spool, and one that does not tell its process. Killed at any
    moment the sweep may be run again.

    Raises:
        TrackingError: the store cannot be read or written, or another sweep lasts for more than `SWEEP_WAIT_S`.
    """
    connect(settings)
    limit = timedelta(hours=settings.tracking.orphaned_after_h)
    with existing_store(settings.mlflow_uri) as client:
        if client is None:
            return []
        found = running_runs(client, settings.spool_dir, limit)
        orphaned = [one for one in found if one.state == "orphaned"]
        if orphaned:
            # MLflow refuses one of two who tag a run at once. Of a server's, those that share a data folder wait.
            with store_lock(settings.mlflow_uri, "sweep", SWEEP_WAIT_S, settings.root):
                for one in orphaned:
                    # Its process was gone before the run was read: what the store says of it now is the last word.
                    if client.get_run(one.run_id).info.status == "RUNNING":
                        with translated(settings.mlflow_uri):
                            _end(client, one)
        return found


def _end(client: MlflowClient, run: RunningRun) -> None:
    for name, value in {
        ORPHANED_TAG: run.why,
        "error_type": "Killed",
        "error_message": run.why,
        "status": "failed",
    }.items():
        client.set_tag(run.run_id, name, value)
    client.set_terminated(run.run_id, "KILLED", int(time.time() * 1000))
    logger.warning("run {} of {} ends as KILLED: {}", run.run_id, run.experiment, run.why)


def _unended(client: MlflowClient) -> Iterator[tuple[str, str, str, datetime, str | None]]:
    """Id, name, experiment, start and process of each."""
    names = {str(one.experiment_id): str(one.name) for one in pages(client.search_experiments)}
    if not names:
        return
    running = pages(
        client.search_runs, experiment_ids=list(names), filter_string="attributes.status = 'RUNNING'"
    )
    for run in running:
        info = run.info
        started = datetime.fromtimestamp(info.start_time / 1000, UTC)
        yield (
            info.run_id,
            info.run_name,
            names[info.experiment_id],
            started,
            run.data.tags.get(PROCESS_TAG),
        )


def _running(
    run_id: str,
    name: str,
    experiment: str,
    started: datetime,
    told: str | None,
    spooled: set[str | None],
    limit: timedelta,
) -> RunningRun:
    state, why = _state(told, datetime.now(UTC) - started, limit)
    if run_id in spooled:
        state, why = "spooled", "its end waits in the spool"
    return RunningRun(run_id, name, experiment, started, state, why)


def _state(told: str | None, age: timedelta, limit: timedelta) -> tuple[State, str]:
    process = told_process(told)
    if process is None:
        return "untold", "it does not tell its process"
    who = f"process {process.pid} on {process.host}"
    if process.is_alive is None:
        if age < limit:
            return "elsewhere", f"it is of {who}, which cannot be asked from here"
        return "orphaned", f"it is of {who} and has not ended for {age / timedelta(hours=1):.0f} hours"
    return ("alive", f"{who} lives") if process.is_alive else ("orphaned", f"{who} is gone")
