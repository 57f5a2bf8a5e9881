"""Databases of the system as such, SQLite or PostgreSQL: addresses, connections, verified copies, and the way back.

A copy is an SQLite file whatever it was made of. It goes back into either kind, into tables that the program which
they belong to has made.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forex_core.errors import DatabaseError
from forex_core.secrecy import without_password

if TYPE_CHECKING:
    from psycopg import Connection

SQLITE = "sqlite:///"
POSTGRES = ("postgresql:", "postgresql+", "postgres:")
CONNECT_TIMEOUT_S = 5
COPY_BUSY_S = 60.0
"""How long a copy waits for a locked SQLite database."""
LOAD_BUSY_S = 60.0
"""How long rows that are put back wait for whoever has their tables of PostgreSQL in a transaction."""
_ROWS = 5000


@dataclass(frozen=True)
class DatabaseCopy:
    """A verified copy: an SQLite file, and the rows that each table has in it."""

    path: Path
    tables: Mapping[str, int]


# --- Addresses


def is_database(uri: str) -> bool:
    """Whether an address is of a database that this process opens by itself, not of a server before one."""
    return uri.startswith((SQLITE, *POSTGRES))


def is_postgres(uri: str) -> bool:
    return uri.startswith(POSTGRES)


def sqlite_path(uri: str) -> Path | None:
    """The database file of an SQLite address; None for another store or an address with options."""
    place = uri.removeprefix(SQLITE)
    return None if place == uri or place.startswith((":", "file:")) or not place else Path(place).absolute()


def postgres_url(uri: str) -> Any:
    """SQLAlchemy's URL of a PostgreSQL address, by psycopg 3."""
    from sqlalchemy.engine import make_url

    return make_url(uri.replace("postgres:", "postgresql:", 1) if uri.startswith("postgres:") else uri).set(
        drivername="postgresql+psycopg"
    )


@contextmanager
def postgres(uri: str, *, autocommit: bool = True) -> Iterator[Connection[tuple[Any, ...]]]:
    """A connection of one's own.

    Raises:
        DatabaseError: when the driver is not installed.
    """
    try:
        import psycopg
    except ImportError as error:
        raise DatabaseError(
            f"{without_password(uri)} needs a driver that is not installed; install it with "
            "'pip install \"forex-forecast[postgres]\"'"
        ) from error
    url = postgres_url(uri)
    named = {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
    arguments = {
        name: value for name, value in (named | {"dbname": url.database}).items() if value is not None
    }
    options: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S, **url.query, **arguments}
    connection = psycopg.connect(**options, autocommit=autocommit)
    try:
        yield connection
    finally:
        connection.close()


# --- Copies


def copy_database(uri: str, target: Path, wanted: Callable[[str], bool] = lambda table: True) -> DatabaseCopy:
    """Copy a database into the SQLite file `target`, at one instant, while others write.

    SQLite through its backup interface; PostgreSQL by reading its tables in one REPEATABLE READ transaction (values
    of types that SQLite lacks as text, instants in UTC). The copy appears only when it has been verified: integrity,
    and the same number of rows in each table as the source had at that instant.

    Args:
        wanted: which tables of PostgreSQL, where several programs may share a database; a file is copied whole.

    Raises:
        DatabaseError: when it is no database, `target` exists, or the copy does not verify.
        sqlite3.Error, psycopg.Error, OSError: as they come; the caller knows what the database is.
    """
    if target.exists():
        raise DatabaseError(f"{target} exists already; name a file that does not")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        expected = (
            _copy_postgres(uri, unfinished, wanted) if is_postgres(uri) else _copy_sqlite(uri, unfinished)
        )
        tables = _verified(unfinished, expected)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return DatabaseCopy(target, tables)


def _copy_sqlite(uri: str, target: Path) -> dict[str, int]:
    source = sqlite_path(uri)
    if source is None or not source.is_file():
        raise DatabaseError(
            f"there is no database at {without_password(uri.removeprefix(SQLITE))}; check its address"
        )
    how = "mode=ro&immutable=1" if _is_at_rest(source) else "mode=ro"
    with (
        closing(sqlite3.connect(f"{source.as_uri()}?{how}", uri=True, timeout=COPY_BUSY_S)) as reader,
        closing(sqlite3.connect(target)) as writer,
    ):
        reader.isolation_level = None
        reader.execute("BEGIN")  # the copy and the counts see the same instant
        counts = table_counts(reader)
        reader.backup(writer)
        reader.execute("COMMIT")
        writer.execute("PRAGMA journal_mode=DELETE")  # one file, to be kept and moved
    return counts


def _is_at_rest(database: Path) -> bool:
    """Whether a database is on a disk that is mounted read-only, where SQLite cannot make the files that it reads by.

    Raises:
        DatabaseError: rows of it are in a log, which cannot be read without them.
    """
    if not os.statvfs(database.parent).f_flag & os.ST_RDONLY:
        return False
    log, index = (database.with_name(f"{database.name}{suffix}") for suffix in ("-wal", "-shm"))
    if not log.is_file() or not log.stat().st_size:
        return True
    if not index.is_file():
        raise DatabaseError(
            f"{database} is on a disk that is mounted read-only, and has rows in {log.name} that cannot be read there; "
            "mount it for writing, or copy both files to another disk"
        )
    return False


def _copy_postgres(uri: str, target: Path, wanted: Callable[[str], bool]) -> dict[str, int]:
    from psycopg import IsolationLevel, sql

    counts = {}
    with postgres(uri, autocommit=False) as database, closing(sqlite3.connect(target)) as writer:
        database.isolation_level = IsolationLevel.REPEATABLE_READ
        database.read_only = True
        for table in filter(wanted, _postgres_tables(database)):
            columns = _postgres_columns(database, table)
            typed = ", ".join(f"{_identifier(name)} {_sqlite_type(kind)}" for name, kind in columns.items())
            writer.execute(f"CREATE TABLE {_identifier(table)} ({typed})")
            places = ", ".join("?" * len(columns))
            with database.cursor(name="copy") as cursor:
                cursor.itersize = _ROWS
                cursor.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))
                writer.executemany(
                    f"INSERT INTO {_identifier(table)} VALUES ({places})",
                    (tuple(map(_sqlite_value, row)) for row in cursor),
                )
            counted = database.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)))
            counts[table] = int((counted.fetchone() or (0,))[0])
        writer.commit()
    return counts


def _postgres_tables(database: Connection[tuple[Any, ...]]) -> list[str]:
    found = database.execute(
        "SELECT table_name FROM information_schema.tables "
        "WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY table_name"
    )
    return [str(table) for (table,) in found.fetchall()]


def _postgres_columns(database: Connection[tuple[Any, ...]], table: str) -> dict[str, str]:
    """Name and type of each column, in their order."""
    found = database.execute(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND table_name = %s ORDER BY ordinal_position",
        (table,),
    )
    return {str(name): str(kind) for name, kind in found.fetchall()}


def _postgres_written(database: Connection[tuple[Any, ...]], table: str) -> dict[str, bool]:
    """Columns of a table, and whether they are written, not computed from others."""
    found = database.execute(
        "SELECT column_name, is_generated = 'NEVER' FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND table_name = %s",
        (table,),
    )
    return {str(name): bool(written) for name, written in found.fetchall()}


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
    if isinstance(value, datetime) and value.tzinfo is not None:
        return f"{value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
    if value is None or isinstance(value, (int, float, str, bytes)):
        return value
    return str(value) if isinstance(value, Decimal) else getattr(value, "isoformat", value.__str__)()


def _verified(path: Path, expected: Mapping[str, int]) -> dict[str, int]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as copy:
        state = copy.execute("PRAGMA integrity_check").fetchone()[0]
        counts = table_counts(copy)
    differing = [
        f"{table}: {expected.get(table)} rows in the store, {counts.get(table)} in the copy"
        for table in sorted(expected.keys() | counts.keys())
        if expected.get(table) != counts.get(table)
    ]
    if state != "ok" or differing:
        raise DatabaseError(
            f"the copy of the database does not verify ({'; '.join(differing) or state}); it was removed, try again"
        )
    return counts


def table_counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Rows of each table, by name."""
    return {
        table: int(connection.execute(f"SELECT count(*) FROM {_identifier(table)}").fetchone()[0])
        for table in _sqlite_tables(connection)
    }


def _sqlite_tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    )
    return [str(name) for (name,) in found.fetchall()]


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# --- The way back


def load_tables(copy: Path, uri: str, *, aside: str | None = None) -> dict[str, int]:
    """Put the rows of a copy in the place of those in a database, whose tables have been made by their program.

    One transaction: a reader, or who looks after a kill, finds all of the old rows or all of the new ones, and
    programs that have the database open go on with the new ones. Tables that the copy lacks are left alone. PostgreSQL:
    from the first row that is kept aside to the end nobody else reads or writes the tables.

    Args:
        aside: PostgreSQL: schema, which is made, that keeps the rows of before.

    Returns:
        Rows by table.

    Raises:
        DatabaseError: the copy has tables or columns that the database lacks, the rows contradict each other, or
            somebody holds a table of PostgreSQL for longer than `LOAD_BUSY_S`.
        sqlite3.Error, psycopg.Error, OSError: as they come.
    """
    with closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro", uri=True)) as source:
        source.execute("PRAGMA trusted_schema = OFF")
        if is_postgres(uri):
            return _load_postgres(source, uri, aside)
        path = sqlite_path(uri)
        if path is None or not path.is_file():
            raise DatabaseError(
                f"there is no database at {without_password(uri.removeprefix(SQLITE))}; check its address"
            )
        return _load_sqlite(source, path)


def _load_sqlite(source: sqlite3.Connection, path: Path) -> dict[str, int]:
    counts = {}
    with closing(sqlite3.connect(path, timeout=COPY_BUSY_S)) as target, target:
        target.execute("BEGIN IMMEDIATE")
        for table in _sqlite_tables(source):
            held = target.execute(f"PRAGMA table_xinfo({_identifier(table)})").fetchall()
            # hidden: 2 and 3 for what is computed from other columns
            columns = _columns_in(source, table, {str(row[1]): row[6] == 0 for row in held})
            named = ", ".join(map(_identifier, columns))
            if target.execute(f"SELECT EXISTS (SELECT 1 FROM {_identifier(table)})").fetchone() == (1,):
                target.execute(f"DELETE FROM {_identifier(table)}")
            target.executemany(
                f"INSERT INTO {_identifier(table)} ({named}) VALUES ({', '.join('?' * len(columns))})",
                source.execute(f"SELECT {named} FROM {_identifier(table)}"),
            )
            counts[table] = int(target.execute(f"SELECT count(*) FROM {_identifier(table)}").fetchone()[0])
        wrong = target.execute("PRAGMA foreign_key_check").fetchone()
        if wrong:
            raise DatabaseError(f"rows of {wrong[0]} refer to rows of {wrong[2]} that the copy lacks")
    return counts


def _load_postgres(source: sqlite3.Connection, uri: str, aside: str | None) -> dict[str, int]:
    from psycopg import sql

    counts = {}
    with postgres(uri, autocommit=False) as database, database.transaction():
        columns = {
            table: _columns_in(source, table, _postgres_written(database, table))
            for table in _sqlite_tables(source)
        }
        tables = [sql.Identifier(name) for name in columns]
        references = _references(database, list(columns))
        _lock(database, uri, sorted({*columns, *(owner for owner, _, _ in references)}))
        if aside is not None:
            database.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(aside)))
            for table in tables:
                kept = sql.SQL("{}.{}").format(sql.Identifier(aside), table)
                database.execute(sql.SQL("CREATE TABLE {} AS TABLE {}").format(kept, table))
        for owner, name, _ in references:
            database.execute(
                sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                    sql.Identifier(owner), sql.Identifier(name)
                )
            )
        for table in tables:  # which may refuse any change but this one
            database.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(table))
        database.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(tables)))
        for name, held in columns.items():
            counts[name] = _load_table(source, database, name, held)
        for table in tables:
            database.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(table))
        for owner, name, definition in references:
            database.execute(
                sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} ").format(
                    sql.Identifier(owner), sql.Identifier(name)
                )
                + sql.SQL(definition)
            )
    return counts


def _lock(database: Connection[tuple[Any, ...]], uri: str, tables: Sequence[str]) -> None:
    """Have tables for oneself until the transaction ends.

    Whoever comes meanwhile waits behind this, so it is not waited for long.
    """
    from psycopg import errors, sql

    database.execute("SELECT set_config('lock_timeout', %s, true)", (f"{LOAD_BUSY_S * 1000:.0f}",))
    named = sql.SQL(", ").join(map(sql.Identifier, tables))
    try:
        database.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(named))
    except errors.LockNotAvailable as error:
        with postgres(uri) as other:
            holders = other.execute(
                "SELECT DISTINCT a.pid, a.usename, a.application_name, a.state FROM pg_locks AS l "
                "JOIN pg_class AS c ON c.oid = l.relation JOIN pg_namespace AS n ON n.oid = c.relnamespace "
                "JOIN pg_stat_activity AS a USING (pid) "
                "WHERE l.granted AND n.nspname = current_schema() AND c.relname = ANY(%s) AND a.pid <> %s "
                "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY a.pid",
                (list(tables), database.info.backend_pid),
            ).fetchall()
        told = "; ".join(
            f"{pid} ({user}, {name or 'no name'}, {state})" for pid, user, name, state in holders
        )
        raise DatabaseError(
            f"tables of {without_password(uri)} are held for more than {LOAD_BUSY_S:g} s by server processes {told}; "
            "let them end, or end them (SELECT pg_terminate_backend(…)), and try again"
        ) from error


def refuse_without_schemas(uri: str) -> None:
    """
    Raises:
        DatabaseError: the user of a PostgreSQL address may not make a schema, in which rows could be kept.
    """
    with postgres(uri) as database:
        found = database.execute(
            "SELECT has_database_privilege(current_database(), 'CREATE'), current_database(), current_user"
        ).fetchone()
    may, name, user = found or (False, "", "")
    if not may:
        raise DatabaseError(
            f"{user} may not make a schema in the database {name}, where the rows that are there are to be kept; as "
            f'its owner: GRANT CREATE ON DATABASE "{name}" TO "{user}"'
        )


def _load_table(
    source: sqlite3.Connection, database: Connection[tuple[Any, ...]], table: str, columns: Sequence[str]
) -> int:
    """Copy rows as text, which PostgreSQL reads into the types of its columns, and set the counters of its columns."""
    from psycopg import sql

    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    rows = 0
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
    with database.cursor() as cursor, cursor.copy(statement) as copy:
        for row in source.execute(f"SELECT {', '.join(map(_identifier, columns))} FROM {_identifier(table)}"):
            copy.write_row(row)
            rows += 1
    for column in columns:
        counter = database.execute(
            "SELECT n.nspname, c.relname, s.seqincrement, s.seqmin, s.seqmax FROM pg_sequence AS s "
            "JOIN pg_class AS c ON c.oid = s.seqrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE s.seqrelid = pg_get_serial_sequence(%s, %s)::regclass",
            (_identifier(table), column),
        ).fetchone()
        if counter:
            schema, name, stride, least, greatest = counter
            last = sql.SQL("SELECT {}({}) FROM {}").format(
                sql.SQL("max" if stride > 0 else "min"), sql.Identifier(column), sql.Identifier(table)
            )
            (held,) = database.execute(last).fetchone() or (None,)
            # Not setval(), which a transaction that is taken back leaves behind.
            restart = sql.SQL("ALTER SEQUENCE {} RESTART").format(sql.Identifier(schema, name))
            if held is not None:
                restart += sql.SQL(" WITH {}").format(sql.Literal(min(max(held + stride, least), greatest)))
            database.execute(restart)
    return rows


def _references(database: Connection[tuple[Any, ...]], tables: Collection[str]) -> list[tuple[str, str, str]]:
    """Table, name and definition of the foreign keys that leave or reach some tables."""
    found = database.execute(
        "SELECT t.relname, c.conname, pg_get_constraintdef(c.oid) FROM pg_constraint AS c "
        "JOIN pg_class AS t ON t.oid = c.conrelid JOIN pg_class AS f ON f.oid = c.confrelid "
        "JOIN pg_namespace AS n ON n.oid = t.relnamespace "
        "WHERE c.contype = 'f' AND n.nspname = current_schema() AND (t.relname = ANY(%s) OR f.relname = ANY(%s)) "
        "ORDER BY t.relname, c.conname",
        (list(tables), list(tables)),
    )
    return [(str(table), str(name), str(definition)) for table, name, definition in found.fetchall()]


def _columns_in(source: sqlite3.Connection, table: str, there: Mapping[str, bool]) -> list[str]:
    """The columns of a copied table that are written where it goes; all of them have to be `there`."""
    held = [str(row[1]) for row in source.execute(f"PRAGMA table_info({_identifier(table)})")]
    unknown = sorted(set(held) - set(there))
    if unknown:
        lacking = f"columns {', '.join(unknown)} of table {table}" if there else f"table {table}"
        raise DatabaseError(
            f"the database lacks {lacking}, which the copy has; bring both to one version of their program"
        )
    return [name for name in held if there[name]]
