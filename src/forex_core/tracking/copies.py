"""Copies of the store's database, and its move: locations of files rewritten after the files went elsewhere."""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from loguru import logger

from forex_core.errors import TrackingError
from forex_core.tracking.store import (
    BUSY_S,
    POSTGRES,
    SQLITE,
    is_database,
    is_within,
    lexical,
    local_path,
    postgres,
    sqlite_path,
    store_lock,
    translated,
    without_password,
)

# Every place where MLflow keeps an absolute location: table, column, condition.
LOCATIONS: tuple[tuple[str, str, str | None], ...] = (
    ("experiments", "artifact_location", None),
    ("runs", "artifact_uri", None),
    ("logged_models", "artifact_location", None),
    ("model_versions", "source", None),
    ("model_versions", "storage_location", None),
    ("trace_tags", "value", "key = 'mlflow.artifactLocation'"),
)


@dataclass(frozen=True)
class DatabaseCopy:
    """A verified copy: an SQLite file, and the rows that each table has in it."""

    path: Path
    tables: Mapping[str, int]


def copy_database(uri: str, target: Path) -> DatabaseCopy:
    """Copy the store's database into the SQLite file `target`, at one instant, while others write.

    SQLite through its backup interface; PostgreSQL by reading every table in one REPEATABLE READ transaction
    (values of types that SQLite lacks as text). The copy appears only when it has been verified: integrity, and the
    same number of rows in each table as the source had at that instant.

    Raises:
        TrackingError: when the store is no database, `target` exists, or the copy does not verify.
    """
    if not is_database(uri):
        raise TrackingError(
            f"{without_password(uri)} is a server, whose database cannot be copied from here; name its database "
            "(sqlite:/// or postgresql://) and run this where that can be reached"
        )
    if target.exists():
        raise TrackingError(f"{target} exists already; name a file that does not")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        with translated(uri):
            read = _copy_postgres if uri.startswith(POSTGRES) else _copy_sqlite
            expected = read(uri, unfinished)
            tables = _verified(unfinished, expected)
            _flush(unfinished)
            unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return DatabaseCopy(target, tables)


def _copy_sqlite(uri: str, target: Path) -> dict[str, int]:
    source = sqlite_path(uri)
    if source is None or not source.is_file():
        raise TrackingError(f"there is no database at {uri.removeprefix(SQLITE)}; check tracking_uri")
    with (
        closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as reader,
        closing(sqlite3.connect(target)) as writer,
    ):
        reader.isolation_level = None
        reader.execute("BEGIN")  # the copy and the counts see the same instant
        counts = _counts(reader)
        reader.backup(writer)
        reader.execute("COMMIT")
        writer.execute("PRAGMA journal_mode=DELETE")  # one file, to be kept and moved
    return counts


def _copy_postgres(uri: str, target: Path) -> dict[str, int]:
    from psycopg import IsolationLevel, sql

    counts = {}
    with postgres(uri, autocommit=False) as database, closing(sqlite3.connect(target)) as writer:
        database.isolation_level = IsolationLevel.REPEATABLE_READ
        database.read_only = True
        found = database.execute(
            "SELECT table_name FROM information_schema.tables "
            "WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY table_name"
        ).fetchall()
        for (table,) in found:
            columns = database.execute(
                "SELECT column_name, data_type FROM information_schema.columns "
                "WHERE table_schema = current_schema() AND table_name = %s ORDER BY ordinal_position",
                (table,),
            ).fetchall()
            typed = ", ".join(f"{_identifier(name)} {_sqlite_type(kind)}" for name, kind in columns)
            writer.execute(f"CREATE TABLE {_identifier(table)} ({typed})")
            places = ", ".join("?" * len(columns))
            with database.cursor(name="copy") as cursor:
                cursor.itersize = 5000
                cursor.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))
                writer.executemany(
                    f"INSERT INTO {_identifier(table)} VALUES ({places})",
                    (tuple(map(_sqlite_value, row)) for row in cursor),
                )
            counted = database.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)))
            counts[str(table)] = int((counted.fetchone() or (0,))[0])
        writer.commit()
    return counts


def _sqlite_type(kind: str) -> str:
    if kind in ("integer", "bigint", "smallint", "boolean"):
        return "INTEGER"
    return "REAL" if kind in ("double precision", "real") else "BLOB" if kind == "bytea" else "TEXT"


def _sqlite_value(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (memoryview, bytearray)):
        return bytes(value)
    if value is None or isinstance(value, (int, float, str, bytes)):
        return value
    return str(value) if isinstance(value, Decimal) else getattr(value, "isoformat", value.__str__)()


def _verified(path: Path, expected: Mapping[str, int]) -> dict[str, int]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as copy:
        state = copy.execute("PRAGMA integrity_check").fetchone()[0]
        counts = _counts(copy)
    differing = [
        f"{table}: {expected.get(table)} rows in the store, {counts.get(table)} in the copy"
        for table in sorted(expected.keys() | counts.keys())
        if expected.get(table) != counts.get(table)
    ]
    if state != "ok" or differing:
        raise TrackingError(
            f"the copy of the database does not verify ({'; '.join(differing) or state}); it was removed, try again"
        )
    return counts


def _counts(connection: sqlite3.Connection) -> dict[str, int]:
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    ).fetchall()
    return {
        str(t): int(connection.execute(f"SELECT count(*) FROM {_identifier(t)}").fetchone()[0])
        for (t,) in tables
    }


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


# --- Moves


def relocate(
    uri: str,
    old: str,
    new: str,
    *,
    copies: Path | None = None,
    on_copy: Callable[[Path], None] | None = None,
) -> dict[str, int]:
    """Rewrite every stored location at or below `old` to the same place below `new`, in one transaction.

    The files are moved or copied by the user beforehand: `new` must hold what the store refers to. The database is
    copied first (`copy_database`), beside an SQLite store or into `copies`; `on_copy` is told where, before anything
    is changed. What others add while it is copied is rewritten as well.

    Returns:
        Rows changed by 'table.column', for every column that holds locations.

    Raises:
        TrackingError: when `new` lacks the files, or another move or first start is under way.
    """
    if not is_database(uri):
        raise TrackingError(
            f"{without_password(uri)} is a server; relocate its database where the server runs"
        )
    moved = _mover(old, new)
    with translated(uri), store_lock(uri, "relocate"):
        with _writing(uri) as (execute, _):
            places = _places(execute)
        changes = _changes(places, moved)
        if not changes:
            raise TrackingError(
                f"no location in {without_password(uri)} lies at or below {old}; experiments are at "
                f"{', '.join(sorted({was for table, _, was in places if table == 'experiments'})) or 'none'}"
            )
        _refuse_missing_files(old, new, changes)
        path = sqlite_path(uri)
        folder = copies or (path.parent if path else Path(tempfile.gettempdir()))
        copy = copy_database(uri, folder / f"before-relocate-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.db")
        logger.info("the database as it was is kept in {}", copy.path)
        if on_copy is not None:
            on_copy(copy.path)
        counts = {f"{table}.{column}": 0 for table, column, _ in LOCATIONS}
        with _writing(uri) as (execute, mark):
            for table, column, was, to in _changes(_places(execute), moved):
                condition = next(c for t, c2, c in LOCATIONS if (t, c2) == (table, column))
                statement = f"UPDATE {table} SET {column} = {mark} WHERE {column} = {mark}"
                done = execute(statement + (f" AND {condition}" if condition else ""), (to, was))
                counts[f"{table}.{column}"] += done.rowcount
    return counts


def _places(execute: Callable[[str, tuple[Any, ...]], Any]) -> list[tuple[str, str, str]]:
    """Table, column and value of each location that the database holds."""
    return [
        (table, column, str(value))
        for table, column, condition in LOCATIONS
        for (value,) in execute(f"SELECT DISTINCT {column} FROM {table} WHERE {condition or '1 = 1'}", ())
        if value
    ]


def _changes(
    places: Iterable[tuple[str, str, str]], moved: Callable[[str], str | None]
) -> list[tuple[str, str, str, str]]:
    """The locations that move, with what they become."""
    return [(table, column, was, to) for table, column, was in places if (to := moved(was)) is not None]


@contextmanager
def _writing(uri: str) -> Iterator[tuple[Callable[[str, tuple[Any, ...]], Any], str]]:
    """One transaction on the database: a function that executes, and the mark of a parameter."""
    if uri.startswith(POSTGRES):
        with postgres(uri, autocommit=False) as database, database.transaction():
            yield (lambda statement, values: database.execute(statement.encode(), values)), "%s"
        return
    path = sqlite_path(uri)
    if path is None or not path.is_file():
        raise TrackingError(f"there is no database at {uri.removeprefix(SQLITE)}; check tracking_uri")
    with closing(sqlite3.connect(path, timeout=BUSY_S)) as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection.execute, "?"


def _mover(old: str, new: str) -> Callable[[str], str | None]:
    """A function from a location to its new one, or None for one that stays; local ones in any spelling."""
    before, after = local_path(old), local_path(new)
    if (before is None) != (after is None):
        raise TrackingError(
            f"found {old} and {new}; expected two folders of this machine, or two remote addresses"
        )
    if before is None or after is None:
        start, end = old.rstrip("/"), new.rstrip("/")
        return lambda at: end + at[len(start) :] if at == start or at.startswith(f"{start}/") else None
    source, target = lexical(before), lexical(after)

    def moved(location: str) -> str | None:
        place = local_path(location)
        if place is None:
            return None
        place = lexical(place)
        if not place.is_relative_to(source):
            return None
        there = target / place.relative_to(source)
        return there.as_uri() if location.startswith("file:") else str(there)

    return moved


def _refuse_missing_files(old: str, new: str, changes: Iterable[tuple[str, str, str, str]]) -> None:
    before, after = local_path(old), local_path(new)
    if before is None or after is None:
        return  # remote: nothing to look into from here
    if not after.is_dir():
        raise TrackingError(f"{after} is no folder; move or copy the files of {before} there first")
    if before.is_dir() and not before.samefile(after):
        for file in sorted(f for f in before.rglob("*") if f.is_file() and not is_within(f, after)):
            there = after / file.relative_to(before)
            # The databases change while they are looked at; they are opened by their own address.
            if (
                file.suffix not in {".db", ".lock"}
                and not file.name.endswith(("-wal", "-shm"))
                and (not there.is_file() or there.stat().st_size != file.stat().st_size)
            ):
                raise TrackingError(
                    f"{there} is missing or differs in size from {file}; copy the files of {before} to {after} first"
                )
    places = {local_path(to) for table, _, _, to in changes if table != "experiments"} - {None}
    found = [place for place in places if place is not None and place.exists()]
    models = {local_path(to) for table, _, _, to in changes if table == "logged_models"} - {None}
    lacking = sorted(str(m) for m in models if m is not None and not (m / "MLmodel").is_file())
    if lacking:
        raise TrackingError(f"{after} lacks {len(lacking)} of {len(models)} models, such as {lacking[0]}")
    if places and not found:
        raise TrackingError(
            f"{after} has none of the {len(places)} folders that runs refer to, such as {sorted(map(str, places))[0]}; "
            "move or copy the files there first"
        )
