"""The store's address, its refusals, and what it says when its database fails it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from forex_core.data import tables
from forex_core.data.observations import Observations
from forex_core.data.store import ObservationStore
from forex_core.errors import ConfigError, SourceError, SourceUnavailable

VERSION = tables.PART.version
NOW = pd.Timestamp("2026-03-02 12:00", tz="UTC")


def seen(count: int = 3) -> Observations:
    days = pd.date_range("2000-01-03", periods=count).as_unit("us")
    known = (days + pd.Timedelta(hours=22)).tz_localize("UTC")
    return Observations("copper", "yahoo", days, np.arange(1.0, count + 1), known)


@pytest.mark.parametrize(
    "url",
    ["mysql://host/forex", "sqlite://", "sqlite:///:memory:", "/srv/forex.db", "sqlite:///a.db?mode=ro"],
)
def test_an_address_of_no_store_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"sqlite:////path/forex.db or postgresql://user@host/database"):
        ObservationStore(url)


@pytest.mark.parametrize(
    "url", ["mysql://me:s3cret@host/forex?key=t0ken", "postgresql//me:s3cret@host/forex"]
)
def test_a_password_in_an_address_that_is_refused_is_not_said(url: str) -> None:
    with pytest.raises(ConfigError, match="the store's address is") as refused:
        ObservationStore(url)
    for secret in ("s3cret", "t0ken"):
        assert secret not in str(refused.value)


def test_a_database_outside_the_data_folder_is_refused(tmp_path: Path) -> None:
    ObservationStore(f"sqlite:///{tmp_path}/data/forex.db", tmp_path / "data")
    with pytest.raises(ConfigError, match="lies outside"):
        ObservationStore(f"sqlite:///{tmp_path}/forex.db", tmp_path / "data")


def test_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    store = ObservationStore(f"sqlite:///{tmp_path}/deep/down/forex.db")
    assert not (tmp_path / "deep").exists()
    store.record(seen(), now=NOW)
    with closing(sqlite3.connect(tmp_path / "deep" / "down" / "forex.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        row = connection.execute("SELECT * FROM observations ORDER BY date").fetchone()
    assert row == ("copper", 0, "2000-01-03", "2000-01-03T22:00:00.000000Z", 1.0, "yahoo", 1)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (
            VERSION + 1,
            f"newer version .*version {VERSION + 1}, this one knows {VERSION}.*install the newer",
        ),
        (
            1,
            f"earlier version .*version 1, this one knows {VERSION}.*move it away or name another store",
        ),
    ],
)
def test_a_store_of_another_version_is_refused(tmp_path: Path, version: int, words: str) -> None:
    url = f"sqlite:///{tmp_path}/forex.db"
    ObservationStore(url).names()
    with closing(sqlite3.connect(tmp_path / "forex.db")) as connection, connection:
        connection.execute("UPDATE schema_versions SET version = ?", (version,))
    with pytest.raises(SourceError, match=words):
        ObservationStore(url).names()


def steps(path: Path, as_of: str) -> int:
    """How much SQLite does to read what was known of copper, in hundreds of its instructions."""
    count = [0]

    def one_more() -> None:
        count[0] += 1

    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        raw.set_progress_handler(one_more, 100)
        asked = tables.Asked("copper", range(-1, 21), np.datetime64(as_of, "us"))
        assert len(tables.fetch(connection, tables.KNOWN, asked, ["yahoo"]).days) > 300
    return count[0]


@pytest.mark.parametrize("as_of", ["2030-01-01", "2000-12-01"])
def test_reading_is_no_more_work_for_fifty_revisions_than_for_one(tmp_path: Path, as_of: str) -> None:
    taken = {}
    for revisions in (1, 50):
        days = np.repeat(np.arange("2000-01-01", "2001-01-01", dtype="M8[D]"), revisions + 1)
        number = np.tile(np.arange(revisions + 1), len(days) // (revisions + 1))
        known = pd.DatetimeIndex(days.astype("M8[us]") + number * np.timedelta64(20, "D"))
        one = Observations("copper", "yahoo", pd.DatetimeIndex(days), 1.0 + number, known.tz_localize("UTC"))
        path = tmp_path / f"{revisions}.db"
        ObservationStore(f"sqlite:///{path}").record(one, now=NOW, explicit=True)
        taken[revisions] = steps(path, as_of)
    assert taken[50] <= 1.1 * taken[1]


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "forex.db").write_bytes(b"date,copper\n" * 1000)
    with pytest.raises(SourceError, match="is no sound SQLite database"):
        ObservationStore(f"sqlite:///{tmp_path}/forex.db").names()
    assert (tmp_path / "forex.db").read_bytes().startswith(b"date,copper")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="cannot be opened for writing"):
        ObservationStore(f"sqlite:///{tmp_path}/file/forex.db").names()


READ_ONLY = """
import os, sys
from forex_core.data.store import ObservationStore
from forex_core.errors import SourceError
ObservationStore(sys.argv[2]).names()  # whatever is imported late, while it may be read
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    ObservationStore(sys.argv[1]).record([])
except SourceError as error:
    print(error)
"""


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_that_cannot_be_written(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    url = f"sqlite:///{folder}/forex.db"
    if exists:
        ObservationStore(url).record(seen(), now=NOW)
    for path in (folder / "forex.db", folder / "forex.db.first-start.lock", folder):
        if path.exists():
            path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in list(folder.parents)[:-2]:
        parent.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, url, f"sqlite:///{tmp_path}/other/forex.db"],
        capture_output=True,
        text=True,
        check=False,
    )
    folder.chmod(0o755)
    assert "cannot be opened for writing" in done.stdout, done.stderr


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_observation_store import ObservationStore, SourceUnavailable, seen, NOW
store = ObservationStore(sys.argv[1])
store.record(seen(), now=NOW)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    store.record(seen(50_000), now=NOW)
except SourceUnavailable as error:
    print(error)
"""


def test_a_full_disk_keeps_nothing_of_a_batch(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/forex.db"
    done = subprocess.run(
        [sys.executable, "-c", FULL, url, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "could not be written" in done.stdout, done.stderr
    assert "make room" in done.stdout
    store = ObservationStore(url)
    assert store.summary(NOW)["copper"].days == 3
    assert store.record(seen(50_000), now=NOW).total.new == 49_997


def test_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forex_core.append_only.BUSY_S", 0.2)
    store = ObservationStore(f"sqlite:///{tmp_path}/forex.db")
    store.record(seen(), now=NOW)
    with closing(sqlite3.connect(tmp_path / "forex.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SourceUnavailable, match="is being written by another process"):
            store.record(seen(), now=NOW)
        assert store.summary(NOW)["copper"].days == 3
    store.record(seen(), now=NOW)


def test_postgresql_that_does_not_run() -> None:
    store = ObservationStore("postgresql://me:secret@127.0.0.1:1/forex")
    with pytest.raises(
        SourceUnavailable, match=r"postgresql://me:\*\*\*@127.0.0.1:1/forex could not be reached"
    ):
        store.names()


def test_postgresql_without_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"forex-forecast\[postgres\]"):
        ObservationStore("postgresql://me@127.0.0.1:1/forex").names()


def test_postgresql_that_goes_away(new_postgres: Callable[..., str], postgres_server: Any) -> None:
    url = new_postgres()
    store = ObservationStore(url)
    store.record(seen(), now=NOW)
    postgres_server.execute(f"ALTER DATABASE {url.rsplit('/', 1)[1]} ALLOW_CONNECTIONS false")
    with pytest.raises(SourceUnavailable, match="could not be reached"):
        store.names()


def test_a_name_of_any_letters(new_postgres: Callable[..., str], tmp_path: Path) -> None:
    name = "peso ñ; DROP TABLE observations --\t\\N%s"
    one = Observations(name, "ömer's", seen().dates, seen().values, seen().available_at)
    for url in (f"sqlite:///{tmp_path}/forex.db", new_postgres()):
        store = ObservationStore(url)
        assert store.record(one, now=NOW).total.new == 3
        assert store.record(one, now=NOW).total.unchanged == 3
        assert list(store.read((name,), NOW, {name: 1})[name].sources) == ["ömer's"] * 3
