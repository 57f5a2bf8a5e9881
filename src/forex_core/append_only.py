"""Databases whose tables only grow, SQLite or PostgreSQL: opened, made by the first who comes, shared by many.

Several parts may live in one database, each with tables and a version of its own. Whoever writes is alone; whoever
reads sees one state. A row is never changed: triggers refuse it.
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from filelock import FileLock, Timeout

from forex_core.databases import CONNECT_TIMEOUT_S
from forex_core.errors import ConfigError, ForexError
from forex_core.secrecy import passwords_in, redacted, without_password

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

SQLITE, POSTGRES = "sqlite", "postgresql"
BUSY_S = 60
"""How long a writer waits for others; an import of a million rows takes some ten seconds."""
FIRST_START_LIMIT_S = 180
_LOCK_KEY = int.from_bytes(hashlib.sha256(b"forex-forecast observations").digest()[:8], "big", signed=True)
_REFUSAL = "rows of {} are never changed or removed: record what was revised as a new row"


class Instant(sa.types.TypeDecorator[pd.Timestamp]):
    """An instant in UTC to the microsecond; on SQLite as text of one length, whose order is that of time."""

    impl = sa.TIMESTAMP(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.Text() if dialect.name == SQLITE else sa.TIMESTAMP(timezone=True))

    def process_bind_param(self, value: pd.Timestamp | None, dialect: sa.Dialect) -> object:
        if value is None:
            return None
        return text_of(value) if dialect.name == SQLITE else value.to_pydatetime(warn=False)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> pd.Timestamp | None:
        return None if value is None else pd.Timestamp(value).tz_convert("UTC")


DAY = sa.Date().with_variant(sa.Text, SQLITE)
"""A date; on SQLite as text."""
NUMBER = sa.BigInteger().with_variant(sa.Integer, SQLITE)
_versions = sa.Table(
    "schema_versions",
    sa.MetaData(),
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)


@dataclass(frozen=True)
class Part:
    """Tables that belong together.

    Attributes:
        version: of the tables.
        kept: the tables whose rows are never changed.
        noun: what messages call it, such as 'store'.
        renewal: how one comes to tables of this version, for a message.
        unavailable: the error for what may be other a moment later.
        refused: the error for what will not.
    """

    name: str
    version: int
    metadata: sa.MetaData
    kept: tuple[sa.Table, ...]
    noun: str
    renewal: str
    unavailable: type[ForexError]
    refused: type[ForexError]


class AppendOnlyDatabase:
    """A part in the database at an address, which is opened when it is first needed.

    Every use is one transaction on a connection of its own, so that it may be shared by threads and processes.
    """

    def __init__(self, url: str, part: Part, below: Path | None = None) -> None:
        """
        Args:
            url: sqlite:////path/forex.db or postgresql://user@host/database.
            below: the data folder; an SQLite file elsewhere is refused, for no backup looks there.

        Raises:
            ConfigError: for another address, or where PostgreSQL's driver is not installed.
        """
        self._part = part
        self._url = _address(url, part.noun)
        # Without its password.
        self.address = without_password(self._url.render_as_string()).replace("+psycopg", "", 1)
        self._name = f"the {part.noun} {self.address}"
        self._path: Path | None = None
        if self._url.get_backend_name() == SQLITE:
            self._path = Path(str(self._url.database)).absolute()
            if below is not None and not self._path.resolve().is_relative_to(below.resolve()):
                raise ConfigError(f"{self._name} lies outside {below}, where no backup looks; move it below")
        self._engine_made: Engine | None = None

    @property
    def is_made(self) -> bool:
        """Whether the part has its tables. Nothing is made to find out. Raises as `reading` does."""
        if self._path is not None and not self._path.exists():
            return False
        with self._translated(), self._connecting().begin() as connection:
            return self._version(connection) is not None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One state of the whole database, whatever is written meanwhile.

        Raises:
            Errors of the part: `unavailable` when it is locked, unreachable or out of space; `refused` when it is none
                of ours, is damaged or cannot be written, or was made by another version.
        """
        with self._translated():
            engine = self._engine()
            if self._path is None:
                engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with engine.begin() as connection:
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """The one writer's transaction. Raises as `reading` does."""
        with self._translated():
            engine = self._engine().execution_options(writes=True)
            with engine.begin() as connection:
                if self._path is None:
                    _lock(connection)
                yield connection

    def _engine(self) -> Engine:
        if self._engine_made is None:
            part = self._part
            engine = self._connecting()
            with engine.begin() as connection:
                found = self._version(connection)
            if found is None:
                found = self._first_start(engine)
            if found > part.version:
                raise part.refused(
                    f"{self._name} was made by a newer version of this program (its tables are of version "
                    f"{found}, this one knows {part.version}); install the newer one, or name another {part.noun}"
                )
            if found < part.version:
                raise part.refused(
                    f"{self._name} was made by an earlier version of this program (its tables are of "
                    f"version {found}, this one knows {part.version}) and is not converted; {part.renewal}"
                )
            self._engine_made = engine
        return self._engine_made

    def _connecting(self) -> Engine:
        """Connections that are opened for each transaction: none is inherited by a fork or outlives a restored file."""
        if self._path is None:
            arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S}
            return sa.create_engine(
                self._url,
                poolclass=sa.NullPool,
                connect_args={} if "connect_timeout" in self._url.query else arguments,
            )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(self._url, poolclass=sa.NullPool, connect_args={"timeout": BUSY_S})

        @sa.event.listens_for(engine, "connect")
        def _on_connect(connection: Any, _record: object) -> None:
            connection.isolation_level = None  # transactions begin where we say
            connection.execute("PRAGMA mmap_size = 1073741824")

        @sa.event.listens_for(engine, "begin")
        def _on_begin(connection: Connection) -> None:
            # A reader that turns writer in its midst may not be let in at all; a writer is one from the start.
            writes = connection.get_execution_options().get("writes")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        return engine

    def _first_start(self, engine: Engine) -> int:
        """Make the tables in one transaction, unless another process did so while this one waited."""
        writing = engine.execution_options(writes=True)
        if self._path is None:
            with writing.begin() as connection:
                _lock(connection)
                return self._version(connection) or self._make(connection)
        with FileLock(f"{self._path}.first-start.lock", timeout=FIRST_START_LIMIT_S):
            with engine.connect() as connection:
                # Outside any transaction; it lasts in the file.
                raw: Any = connection.connection.driver_connection
                raw.execute("PRAGMA journal_mode = WAL")
            with writing.begin() as connection:
                return self._version(connection) or self._make(connection)

    def _version(self, connection: Connection) -> int | None:
        """Version of the tables; None before they are made."""
        if not sa.inspect(connection).has_table(_versions.name):
            return None
        return connection.scalar(sa.select(_versions.c.version).where(_versions.c.part == self._part.name))

    def _make(self, connection: Connection) -> int:
        part = self._part
        _versions.create(connection, checkfirst=True)
        part.metadata.create_all(connection)
        for guard in guards(part, connection.dialect.name):
            connection.exec_driver_sql(
                guard.replace("%", "%%") if connection.dialect.name == POSTGRES else guard
            )
        connection.execute(_versions.insert().values(part=part.name, version=part.version))
        return part.version

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ForexError:
            raise
        except _database_errors() as error:
            raise self._told_of(error) from error
        except ImportError as error:
            raise ConfigError(
                f"{self.address} needs a driver that is not installed; install it with "
                "'pip install \"forex-forecast[postgres]\"'"
            ) from error

    def _told_of(self, error: BaseException) -> ForexError:
        cause = getattr(error, "orig", None) or error
        reason = " ".join(str(cause).split())[:300]
        reason = redacted(reason, passwords_in(self._url.render_as_string(hide_password=False)))
        kind = str(getattr(cause, "sqlite_errorname", ""))
        state = str(getattr(cause, "sqlstate", None) or "")
        unavailable, refused = self._part.unavailable, self._part.refused
        if (
            kind.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
            or isinstance(cause, Timeout)
            or state == "55P03"
        ):
            return unavailable(
                f"{self._name} is being written by another process ({reason}); try again later"
            )
        if kind.startswith(("SQLITE_FULL", "SQLITE_IOERR")) or state.startswith("53"):
            return unavailable(
                f"{self._name} could not be written ({reason}); nothing of this was kept: make room and try again"
            )
        if kind.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return refused(
                f"{self._name} is no sound SQLite database ({reason}); restore it from a backup, or name another "
                f"{self._part.noun}"
            )
        if kind.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")) or isinstance(
            cause, OSError
        ):
            return refused(
                f"{self._name} cannot be opened for writing ({reason}); its folder and its file must belong to this "
                "user"
            )
        if self._path is None and type(cause).__name__ in {
            "OperationalError",
            "AdminShutdown",
            "InterfaceError",
        }:
            return unavailable(f"{self._name} could not be reached ({reason}); check that its server runs")
        return refused(f"{self._name} refused this: {type(cause).__name__}: {reason}")


def guards(part: Part, dialect: str) -> Iterator[str]:
    """Triggers that keep the tables of a part append-only."""
    if dialect == POSTGRES:
        yield (
            "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"RAISE EXCEPTION '{_REFUSAL.format('%')}', TG_TABLE_NAME; END $$"
        )
    for table in part.kept:
        name = table.name
        if dialect == POSTGRES:
            yield (
                f"CREATE OR REPLACE TRIGGER {name}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {name} "
                "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
            )
        else:
            refusal = f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL.format(name)}'); END"
            for change in ("UPDATE", "DELETE"):
                yield f"CREATE TRIGGER IF NOT EXISTS {name}_no_{change.lower()} BEFORE {change} ON {name} {refusal}"
            # INSERT OR REPLACE removes rows, and asks no trigger for that.
            for n, key in enumerate(_keys(table)):
                same = " AND ".join(f'"{column}" = NEW."{column}"' for column in key)
                yield (
                    f"CREATE TRIGGER IF NOT EXISTS {name}_no_replace_{n} BEFORE INSERT ON {name} "
                    f"WHEN EXISTS (SELECT 1 FROM {name} WHERE {same}) {refusal}"
                )


def _keys(table: sa.Table) -> Iterator[list[str]]:
    """The columns of each key that no two rows of a table share."""
    for constraint in table.constraints:
        if isinstance(constraint, sa.PrimaryKeyConstraint | sa.UniqueConstraint):
            yield sorted(column.name for column in constraint.columns)
    for index in table.indexes:
        if index.unique:
            yield sorted(column.name for column in index.columns)


def utc(instant: pd.Timestamp) -> np.datetime64:
    return instant.tz_convert("UTC").tz_localize(None).as_unit("us").to_datetime64()


def text_of(instant: pd.Timestamp) -> str:
    """
    >>> text_of(pd.Timestamp("2026-01-02 17:00", tz="America/New_York"))
    '2026-01-02T22:00:00.000000Z'
    """
    return f"{np.datetime_as_string(utc(instant), unit='us')}Z"


def _address(url: str, noun: str) -> sa.URL:
    expected = (
        f"the {noun}'s address is sqlite:////path/forex.db or postgresql://user@host/database, found "
        + (
            f"{url.partition(':')[0]}://…"
            if "://" in url
            else "none: a path alone"  # what follows may hold a password
        )
    )
    try:
        made = sa.make_url(url.replace("postgres:", "postgresql:", 1) if url.startswith("postgres:") else url)
    except sa.exc.ArgumentError as error:
        raise ConfigError(expected) from error
    if made.get_backend_name() == POSTGRES:
        return made.set(drivername="postgresql+psycopg")
    if (
        made.drivername != SQLITE
        or not made.database
        or made.database.startswith((":", "file:"))
        or made.query
    ):
        raise ConfigError(expected)
    return made


def _database_errors() -> tuple[type[Exception], ...]:
    found: list[type[Exception]] = [sa.exc.SQLAlchemyError, sqlite3.Error, OSError, Timeout]
    if sys.modules.get("psycopg"):
        found.append(sys.modules["psycopg"].Error)
    return tuple(found)


def _lock(connection: Connection) -> None:
    """Become the one writer of PostgreSQL until the end of the transaction."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_S}s'")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")
