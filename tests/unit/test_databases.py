"""The way back of a copied database: all of its rows or none, into tables of either kind."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forex_core.databases import copy_database, load_tables, postgres
from forex_core.errors import DatabaseError

TABLES = (
    "CREATE TABLE parents (id INTEGER PRIMARY KEY, name TEXT)",
    "CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents (id), above INTEGER)",
)
IN_POSTGRES = (
    "CREATE TABLE parents (id INTEGER PRIMARY KEY GENERATED ALWAYS AS IDENTITY, name TEXT)",
    "CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents (id), "
    "above INTEGER REFERENCES children (id), twice INTEGER GENERATED ALWAYS AS (id * 2) STORED)",
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Two parents and two children, the first of which is below the second."""
    path = tmp_path / "copy.db"
    with closing(sqlite3.connect(path)) as database, database:
        for statement in TABLES:
            database.execute(statement)
        database.executemany("INSERT INTO parents VALUES (?, ?)", [(1, "tab\there"), (7, None)])
        database.executemany("INSERT INTO children VALUES (?, ?, ?)", [(1, 7, 2), (2, 1, None)])
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the tables, and a row that is not in the copy."""
    if request.param == "sqlite":
        path = tmp_path / "target.db"
        with closing(sqlite3.connect(path)) as database, database:
            for statement in (*TABLES, "INSERT INTO parents VALUES (3, 'old')"):
                database.execute(statement)
        return f"sqlite:///{path}"
    uri = str(request.getfixturevalue("new_postgres")())
    with postgres(uri) as database:
        for statement in (*IN_POSTGRES, "INSERT INTO parents (name) VALUES ('old')"):
            database.execute(statement.encode())
    return uri


def rows(uri: str, tmp_path: Path) -> dict[str, list[tuple[object, ...]]]:
    path = copy_database(uri, tmp_path / f"read{len(list(tmp_path.glob('read*')))}.db").path
    with closing(sqlite3.connect(path)) as database:
        return {
            "parents": sorted(database.execute("SELECT id, name FROM parents")),
            "children": sorted(database.execute("SELECT id, parent, above FROM children")),
        }


def test_rows_take_the_place_of_those_that_are_there(copy: Path, target: str, tmp_path: Path) -> None:
    assert load_tables(copy, target) == {"parents": 2, "children": 2}
    assert rows(target, tmp_path) == {
        "parents": [(1, "tab\there"), (7, None)],
        "children": [(1, 7, 2), (2, 1, None)],
    }
    assert load_tables(copy, target) == {"parents": 2, "children": 2}, "and again"


def test_new_rows_get_new_numbers(copy: Path, new_postgres: Callable[[], str]) -> None:
    uri = new_postgres()
    with postgres(uri) as database:
        for statement in IN_POSTGRES:
            database.execute(statement.encode())
    load_tables(copy, uri)
    with postgres(uri) as database:
        made = database.execute("INSERT INTO parents (name) VALUES ('new') RETURNING id").fetchone()
        assert made == (8,)
        assert database.execute("SELECT twice FROM children WHERE id = 2").fetchone() == (4,)
        with pytest.raises(Exception, match="foreign key"):
            database.execute("INSERT INTO children (id, parent) VALUES (9, 99)")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("CREATE TABLE others (id INTEGER)", "lacks table others, which the copy has"),
        ("ALTER TABLE parents ADD COLUMN other TEXT", "lacks columns other of table parents"),
        ("UPDATE children SET parent = 99", "refer to rows of parents|foreign key"),
    ],
)
def test_a_copy_that_does_not_fit_changes_nothing(
    copy: Path, target: str, tmp_path: Path, change: str, said: str
) -> None:
    before = rows(target, tmp_path)
    with closing(sqlite3.connect(copy)) as database, database:
        database.execute(change)
    with pytest.raises(Exception, match=said) as caught:
        load_tables(copy, target)
    assert isinstance(caught.value, DatabaseError) or "foreign key" in said
    assert rows(target, tmp_path) == before


@pytest.mark.parametrize(
    ("counter", "first", "next_"),
    [("MINVALUE 1000 START 1000", 1000, 1001), ("INCREMENT -1", -1, -2), ("INCREMENT 10", 1, 11)],
)
def test_counters_go_on_as_their_columns_say(
    counter: str, first: int, next_: int, tmp_path: Path, new_postgres: Callable[[], str]
) -> None:
    """From their beginning in a table without rows."""
    uri, path = new_postgres(), tmp_path / "counted.db"
    with postgres(uri) as database:
        made = f"CREATE TABLE counted (id INTEGER GENERATED BY DEFAULT AS IDENTITY ({counter}), name TEXT)"
        database.execute(made.encode())
    with closing(sqlite3.connect(path)) as source, source:
        source.execute("CREATE TABLE counted (id INTEGER, name TEXT)")
    for expected in (first, next_):
        load_tables(path, uri)
        with postgres(uri) as database:
            (found,) = (
                database.execute("INSERT INTO counted (name) VALUES ('new') RETURNING id").fetchone() or ()
            )
        assert found == expected
        with closing(sqlite3.connect(path)) as source, source:
            source.execute("INSERT INTO counted VALUES (?, 'old')", (found,))


def test_rows_that_are_taken_back_leave_the_numbers_of_new_ones(
    copy: Path, new_postgres: Callable[[], str]
) -> None:
    """The copy's are lower than those that are there, and its last reference is found to be wrong."""
    uri = new_postgres()
    with postgres(uri) as database:
        for statement in (*IN_POSTGRES, *("INSERT INTO parents (name) VALUES ('old')",) * 12):
            database.execute(statement.encode())
    with closing(sqlite3.connect(copy)) as database, database:
        database.execute("UPDATE children SET parent = 99")
    with pytest.raises(Exception, match="foreign key"):
        load_tables(copy, uri)
    with postgres(uri) as database:
        assert database.execute("INSERT INTO parents (name) VALUES ('new') RETURNING id").fetchone() == (13,)


@pytest.mark.parametrize(
    "beside", [(), ("-wal", "-shm"), ("-wal",)], ids=["at rest", "in use", "a log alone"]
)
def test_on_a_disk_that_went_read_only(
    beside: tuple[str, ...], tmp_path: Path, small_disk: Callable[..., Path]
) -> None:
    """Where SQLite cannot make the files by which it reads a database with a log."""
    folder, live = small_disk("10m"), tmp_path / "live.db"
    with closing(sqlite3.connect(live)) as source:
        source.execute("PRAGMA journal_mode=WAL")
        with source:
            source.execute("CREATE TABLE runs (name)")
            source.execute("INSERT INTO runs VALUES ('one')")
        if not beside:
            source.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for suffix in ("", *beside):
            shutil.copyfile(f"{live}{suffix}", folder / f"runs.db{suffix}")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    address = f"sqlite:///{folder / 'runs.db'}"
    if beside == ("-wal",):
        with pytest.raises(DatabaseError, match=r"mounted read-only, and has rows in runs\.db-wal"):
            copy_database(address, tmp_path / "copy.db")
    else:
        assert copy_database(address, tmp_path / "copy.db").tables == {"runs": 1}


def test_what_is_no_database(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="there is no database at"):
        load_tables(copy, f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()


words = st.none() | st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=20
)
numbers = st.none() | st.floats(allow_nan=False)
COLUMNS = "a TEXT, b DOUBLE PRECISION, c BIGINT"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(words, numbers, st.none() | st.integers(-(1 << 63), (1 << 63) - 1)), max_size=20))
def test_any_rows_go_there_and_back(target: str, tmp_path: Path, made: list[tuple[object, ...]]) -> None:
    copy = tmp_path / "any.db"
    copy.unlink(missing_ok=True)
    with closing(sqlite3.connect(copy)) as database, database:
        database.execute(f"CREATE TABLE anything ({COLUMNS})")
        database.executemany("INSERT INTO anything VALUES (?, ?, ?)", made)
        expected = database.execute("SELECT a, b, c FROM anything").fetchall()
    if target.startswith("postgresql"):
        with postgres(target) as server:
            server.execute(f"CREATE TABLE IF NOT EXISTS anything ({COLUMNS})".encode())
    else:
        with closing(sqlite3.connect(target.removeprefix("sqlite:///"))) as file, file:
            file.execute(f"CREATE TABLE IF NOT EXISTS anything ({COLUMNS})")
    load_tables(copy, target)
    back = tmp_path / "back.db"
    back.unlink(missing_ok=True)
    copy_database(target, back)
    with closing(sqlite3.connect(back)) as database:
        assert database.execute("SELECT a, b, c FROM anything").fetchall() == expected
