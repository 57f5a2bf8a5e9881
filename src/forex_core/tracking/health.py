"""How the tracking store stands: whether its database is sound, and whether the files that it names are there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from forex_core.config import Settings
from forex_core.databases import sqlite_path
from forex_core.errors import TrackingError
from forex_core.tracking.queries import existing_store, pages
from forex_core.tracking.registry import CHAMPION, registry_from_settings
from forex_core.tracking.store import BUSY_S, local_path, translated
from forex_core.types import short_id

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

REPORT_FILES = (
    "reports/report.html",
    "reports/forecast.json",
    "reports/members.json",
    "reports/snapshot.parquet",
)
"""What is attached to a published run."""
_SKEW = timedelta(minutes=1)
"""By how much the clocks of machines that share a store may differ."""


@dataclass(frozen=True)
class StoreState:
    """An opened store. `journal`, `damage` and `megabytes` are of an SQLite file, None elsewhere or without damage."""

    journal: str | None
    damage: str | None
    megabytes: float | None
    experiments: int


@dataclass(frozen=True)
class Files:
    """Files on this machine that the store names: how many runs and champions were looked at, and what they lack."""

    runs: int
    champions: int
    lacking: tuple[str, ...]


def store_state(settings: Settings) -> StoreState | None:
    """How the store stands, None before the first start. Nothing is made.

    Raises:
        TrackingError: it cannot be reached, is of another schema, or keeps files where it should not.
    """
    uri = settings.mlflow_uri
    with existing_store(uri) as client:
        if client is None:
            return None
        opened = registry_from_settings(settings).client  # refuses files that lie elsewhere
        experiments = sum(1 for _ in pages(opened.search_experiments))
    path = sqlite_path(uri)
    if path is None:
        return StoreState(None, None, None, experiments)
    with (
        translated(uri),
        closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as connection,
    ):
        journal = str(connection.execute("PRAGMA journal_mode").fetchone()[0])
    return StoreState(journal, damage_of(path), path.stat().st_size / 1e6, experiments)


def damage_of(path: Path) -> str | None:
    """What is wrong within an SQLite file, None when it is sound."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as connection:
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as error:
        found = str(error)
    return None if found == "ok" else " ".join(found.split())


def begun_ahead(settings: Settings) -> str | None:
    """That the newest run of the store began after now, and what to do; None where it did not.

    The clock was wrong then, or is now.

    Raises:
        TrackingError: the store cannot be read.
    """
    with existing_store(settings.mlflow_uri) as client:
        experiments = [str(one.experiment_id) for one in pages(client.search_experiments)] if client else []
        if client is None or not experiments:
            return None
        newest = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=1)
    if not newest:
        return None
    run, now = newest[0].info, datetime.now(UTC)
    began = datetime.fromtimestamp(run.start_time / 1000, UTC)
    if began <= now + _SKEW:
        return None
    return (
        f"The clock has gone back, or was ahead: run {run.run_id} began at {began:%Y-%m-%d %H:%M} UTC, and it is "
        f"{now:%Y-%m-%d %H:%M} UTC by now. Set the clock (timedatectl set-ntp true) and make again what was forecast "
        f"meanwhile; where it is right, 'mlflow runs delete --run-id {run.run_id}' takes that run out of the way."
    )


def missing_files(settings: Settings, newest: int = 500) -> Files:
    """What the newest published runs and the champions lack of their files; what is kept elsewhere is not looked at.

    Raises:
        TrackingError: the store cannot be read.
    """
    registry = registry_from_settings(settings)
    champions = 0
    with translated(settings.mlflow_uri):
        runs = list(_published(registry.client, newest))
        lacking = [text for run in runs for text in _lacks(run)]
        for model in pages(registry.client.search_registered_models):
            if CHAMPION not in model.aliases:
                continue
            version = registry.version(model.name, int(model.aliases[CHAMPION]))
            if local_path(version.source) is None:
                continue
            champions += 1
            try:
                registry.model(version)
            except TrackingError as error:
                lacking.append(str(error))
    return Files(len(runs), champions, tuple(lacking))


def _published(client: MlflowClient, newest: int) -> Iterator[Run]:
    experiments = [str(one.experiment_id) for one in pages(client.search_experiments)]
    if experiments:
        yield from client.search_runs(
            experiments,
            "attributes.status = 'FINISHED' and tags.status = 'published'",
            order_by=["attributes.start_time DESC"],
            max_results=newest,
        )


def _lacks(run: Run) -> list[str]:
    folder = local_path(run.info.artifact_uri)
    if folder is None:
        return []
    missing = [name for name in REPORT_FILES if not (folder / name).is_file()]
    return [f"run {short_id(run.info.run_id)} has no {', '.join(missing)} in {folder}"] if missing else []
