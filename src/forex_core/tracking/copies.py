"""Copies of the store's database, and its move: locations of files rewritten after the files went elsewhere."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loguru import logger

from forex_core import databases
from forex_core.databases import SQLITE, DatabaseCopy, is_database, is_postgres, postgres, sqlite_path
from forex_core.errors import TrackingError
from forex_core.secrecy import without_password
from forex_core.tracking.store import BUSY_S, is_within, lexical, local_path, store_lock, translated

# Every place where MLflow keeps an absolute location: table, column, condition.
LOCATIONS: tuple[tuple[str, str, str | None], ...] = (
    ("experiments", "artifact_location", None),
    ("runs", "artifact_uri", None),
    ("logged_models", "artifact_location", None),
    ("model_versions", "source", None),
    ("model_versions", "storage_location", None),
    ("trace_tags", "value", "key = 'mlflow.artifactLocation'"),
)


def copy_database(uri: str, target: Path) -> DatabaseCopy:
    """Copy the store's database into the SQLite file `target`; see `databases.copy_database`.

    Raises:
        TrackingError: when the store is no database, `target` exists, or the copy does not verify.
        OSError: the folder of `target` cannot be made.
    """
    if not is_database(uri):
        raise TrackingError(
            f"{without_password(uri)} is a server, whose database cannot be copied from here; name its database "
            "(sqlite:/// or postgresql://) and run this where that can be reached"
        )
    target.parent.mkdir(parents=True, exist_ok=True)  # a fault of that place is none of the store's
    with translated(uri):
        return databases.copy_database(uri, target)


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
    if (local_path(old) is None) != (local_path(new) is None):
        raise TrackingError(
            f"found {old} and {new}; expected two folders of this machine, or two remote addresses"
        )
    moved = mover(old, new)
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
    if is_postgres(uri):
        with postgres(uri, autocommit=False) as database, database.transaction():
            yield (lambda statement, values: database.execute(statement.encode(), values)), "%s"
        return
    path = sqlite_path(uri)
    if path is None or not path.is_file():
        raise TrackingError(f"there is no database at {uri.removeprefix(SQLITE)}; check tracking_uri")
    with closing(sqlite3.connect(path, timeout=BUSY_S)) as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection.execute, "?"


def below(location: str, root: str) -> str | None:
    """The path of a location relative to a root, "" for the root itself, None for one elsewhere; any spelling.

    >>> below("file:///srv/a%20b/c", "/srv/a b"), below("s3://bucket/x", "s3://bucket/x/"), below("/srv/c", "/srv/cd")
    ('c', '', None)
    """
    place, folder = local_path(location), local_path(root)
    if (place is None) != (folder is None):
        return None
    if place is None or folder is None:
        start = root.rstrip("/")
        return location[len(start) + 1 :] if location == start or location.startswith(f"{start}/") else None
    place, folder = lexical(place), lexical(folder)
    return "/".join(place.relative_to(folder).parts) if place.is_relative_to(folder) else None


def mover(old: str, new: str) -> Callable[[str], str | None]:
    """A function from a location to its new one, or None for one that stays; a local one keeps its spelling."""
    after = local_path(new)

    def moved(location: str) -> str | None:
        rest = below(location, old)
        if rest is None:
            return None
        if after is None:
            return f"{new.rstrip('/')}/{rest}".rstrip("/")
        there = lexical(after) / rest
        return there.as_uri() if location.startswith("file:") or local_path(location) is None else str(there)

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
