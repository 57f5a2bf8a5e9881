"""The store in an archive: what a copy of its database says of files, and how a copy becomes a store again."""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from forex_core import databases
from forex_core.databases import table_counts
from forex_core.errors import TrackingError
from forex_core.tracking.copies import LOCATIONS, below, mover
from forex_core.tracking.health import REPORT_FILES
from forex_core.tracking.packaging import MODEL_FILES
from forex_core.tracking.registry import Registry
from forex_core.tracking.store import (
    DEFAULT_EXPERIMENT,
    latest_schema,
    local_path,
    open_store,
    quiet,
    refuse_newer,
    release,
    translated,
)

_COUNTED = {
    "runs": "runs",
    "experiments": "experiments",
    "registered_models": "models",
    "model_versions": "versions",
}
_READY = 2
"""LoggedModelStatus.READY, as the table has it."""


class ArchivedStore:
    """What is MLflow's in an archive; `backup.TrackedStore` says what each call is for.

    A `database` is the copy of one, an SQLite file, as `databases.copy_database` makes it of either back end.
    """

    def tables(self) -> Collection[str]:
        quiet()
        from mlflow.store.db.base_sql_model import Base

        importlib.import_module("mlflow.store.db.utils")  # registers the tables of every part
        return {*Base.metadata.tables, "alembic_version"}

    def schema(self, database: Path) -> str:
        with _reading(database) as copy:
            return str((copy.execute("SELECT version_num FROM alembic_version").fetchone() or ("",))[0])

    def counts(self, database: Path) -> dict[str, int]:
        with _reading(database) as copy:
            found = table_counts(copy)
        return {name: found.get(table, 0) for table, name in _COUNTED.items()}

    def locations(self, database: Path) -> list[str]:
        with _reading(database) as copy:
            found = copy.execute(
                "SELECT DISTINCT artifact_location FROM experiments WHERE experiment_id != ? "
                "OR EXISTS (SELECT 1 FROM runs WHERE experiment_id = ?) ORDER BY 1",
                (DEFAULT_EXPERIMENT,) * 2,
            ).fetchall()
        return [str(location) for (location,) in found if location]

    def files(self, database: Path) -> Iterator[tuple[str, str]]:
        """What is there from the moment that it is named: before a model is READY, before a run is FINISHED."""
        with _reading(database) as copy:
            tables = table_counts(copy)
            if "logged_models" in tables:
                for model, place in copy.execute(
                    "SELECT model_id, artifact_location FROM logged_models "
                    f"WHERE status = {_READY} AND lifecycle_stage = 'active' ORDER BY model_id"
                ):
                    yield f"model {model}", f"{place}/MLmodel"
            if "model_versions" in tables:
                ours = set(copy.execute("SELECT name, version FROM model_version_tags WHERE key = 'recipe'"))
                for name, number, source, place in copy.execute(
                    "SELECT name, version, source, storage_location FROM model_versions "
                    "WHERE current_stage != 'Deleted_Internal' ORDER BY name, version"
                ):
                    at = place or source
                    if at and not str(at).startswith(("models:", "runs:")):
                        what = f"version {number} of {name}"
                        yield what, f"{at}/MLmodel"
                        if (name, number) in ours:
                            yield from ((what, f"{at}/{file}") for file in MODEL_FILES)
            if "runs" in tables:
                for run, place in copy.execute(
                    "SELECT run_uuid, artifact_uri FROM runs JOIN tags USING (run_uuid) WHERE status = 'FINISHED' "
                    "AND lifecycle_stage = 'active' AND key = 'status' AND value = 'published' ORDER BY run_uuid"
                ):
                    yield from ((f"run {run}", f"{place}/{file}") for file in REPORT_FILES)

    def below(self, location: str, root: str) -> str | None:
        return below(location, root)

    def folder(self, location: str) -> Path | None:
        return local_path(location)

    def refuse(self, schema: str) -> None:
        quiet()
        refuse_newer(schema, "the tracking store of the archive")

    def complete(self, database: Path) -> None:
        quiet()
        uri, found = f"sqlite:///{database}", self.schema(database)
        with closing(sqlite3.connect(database)) as copy:
            keys = copy.execute(
                "SELECT count(*) FROM pragma_table_info('experiments') WHERE pk > 0"
            ).fetchone()
        with translated(uri):
            if keys == (0,):  # rows of PostgreSQL, without its keys and indexes
                if found != latest_schema():
                    raise TrackingError(
                        f"the tracking store of the archive was in PostgreSQL and of an older MLflow (its schema is "
                        f"{found}, that of now {latest_schema()}); restore it with that MLflow and upgrade it there"
                    )
                rows = database.with_name(f"{database.name}.rows")
                database.rename(rows)
                self.prepare(uri, "")
                databases.load_tables(rows, uri)
                rows.unlink()
            elif found != latest_schema():
                _upgrade(uri)
            with closing(sqlite3.connect(database)) as copy:
                copy.execute("PRAGMA journal_mode = WAL")

    def prepare(self, uri: str, artifact_root: str) -> None:
        open_store(uri, artifact_root)
        release(uri)

    def move(self, database: Path, moves: Iterable[tuple[str, str]]) -> int:
        count = 0
        with closing(sqlite3.connect(database)) as copy, copy:
            copy.execute("BEGIN IMMEDIATE")
            for old, new in moves:
                moved = mover(old, new)
                for table, column, condition in LOCATIONS:
                    where = f" AND {condition}" if condition else ""
                    found = copy.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} > ''{where}")
                    for (was,) in found.fetchall():
                        to = moved(str(was))
                        if to is not None:
                            count += copy.execute(
                                f"UPDATE {table} SET {column} = ? WHERE {column} = ?{where}", (to, was)
                            ).rowcount
        return count

    def check(self, uri: str, below: Path | None) -> Mapping[str, str | None]:
        registry = Registry(uri, below=below)
        found: dict[str, str | None] = {}
        try:
            with translated(uri):
                token: str | None = None
                while True:
                    page: Any = registry.client.search_registered_models(page_token=token)
                    for model in page:
                        found[str(model.name)] = _fault(registry, str(model.name))
                    token = page.token
                    if not token:
                        return found
        finally:
            release(uri)


@contextmanager
def _reading(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing and runs nothing that a file from elsewhere may bring."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as copy:
        copy.execute("PRAGMA trusted_schema = OFF")
        yield copy


def _upgrade(uri: str) -> None:
    """Bring the tables to the revision of now. What is upgraded is a copy; the archive stays."""
    from mlflow.store.db import utils
    from sqlalchemy import create_engine

    of_mlflow: Any = utils  # without annotations of its own
    engine = create_engine(uri)
    try:
        of_mlflow._upgrade_db(engine)
    finally:
        engine.dispose()


def _fault(registry: Registry, model: str) -> str | None:
    """Why the champion of a model cannot be used, None where it can or there is none."""
    try:
        champion = registry.standing(model).champion
        if champion is not None:
            registry.model(champion)
    except TrackingError as error:
        return str(error)
    return None
