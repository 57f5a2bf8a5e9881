"""The tracking store as a place: opened once, checked, locked, copied and moved. SQLite, PostgreSQL or a server."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from filelock import FileLock, Timeout
from loguru import logger

from forex_core.errors import TrackingError, TrackingUnavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from psycopg import Connection
    from sqlalchemy.engine import Engine

SQLITE = "sqlite:///"
POSTGRES = ("postgresql:", "postgresql+", "postgres:")
FIRST_START_LIMIT_S = 180
CONNECT_TIMEOUT_S = 5
BUSY_S = 20
"""How long a locked SQLite database is waited for, by MLflow as well."""
DEFAULT_EXPERIMENT = "0"
S3_NAMES = {
    "s3_endpoint_url": "MLFLOW_S3_ENDPOINT_URL",
    "s3_access_key_id": "AWS_ACCESS_KEY_ID",
    "s3_secret_access_key": "AWS_SECRET_ACCESS_KEY",
}
"""Setting: the variable from which MLflow's S3 client reads it."""
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A dead server is noticed in seconds, not in minutes; what was to be logged is spooled then.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "AWS_MAX_ATTEMPTS": "2",
}
"""What MLflow and its S3 client read, where the user has not chosen: nothing is reported home or drawn."""

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
class ExperimentRow:
    """An experiment as the database holds it."""

    id: str
    name: str
    location: str
    active: bool


@dataclass(frozen=True)
class DatabaseCopy:
    """A verified copy: an SQLite file, and the rows that each table has in it."""

    path: Path
    tables: Mapping[str, int]


def open_store(uri: str, artifact_root: str | None = None, below: Path | str | None = None) -> MlflowClient:
    """A client of the store at `uri`, which is made and brought to MLflow's schema by one process at a time.

    Args:
        uri: sqlite:////path/mlflow.db, postgresql://user@host/database, or a server's http address.
        artifact_root: URI below which experiments keep their files; used for the Default experiment of a new store.
        below: the data folder. With it or a local `artifact_root`, experiments whose files lie outside both are
            refused.

    Raises:
        TrackingUnavailable: when the store cannot be reached or written.
        TrackingError: when it is refused: artifact locations elsewhere, a schema of another version, no driver.
    """
    return open_with_experiments(uri, artifact_root, below)[0]


def open_with_experiments(
    uri: str, artifact_root: str | None = None, below: Path | str | None = None
) -> tuple[MlflowClient, dict[str, ExperimentRow] | None]:
    """As `open_store`, with the experiments by name; None in their place for a server, which is to be asked."""
    quiet()
    with translated(uri):
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise mlflow_missing() from error
        address = normalised(uri)
        if not is_database(uri):
            return MlflowClient(address, registry_uri=address), None
        if address not in _tuned:
            _refuse_other_schema(uri)
        rows = _experiments(uri)
        if rows is None:
            rows = _first_start(uri, artifact_root)
        _refuse_elsewhere(uri, rows, artifact_root, below)
        _tuned_engine(address)
        return MlflowClient(address, registry_uri=address), {row.name: row for row in rows}


def experiment_id(
    client: MlflowClient,
    experiments: dict[str, ExperimentRow] | None,
    uri: str,
    name: str,
    *,
    artifact_root: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Id of the experiment, which is made if need be with its files in a folder of its own below `artifact_root`.

    Args:
        experiments: those known at the opening of the store, completed here; None to ask a server.

    Raises:
        TrackingError: when the experiment was deleted.
    """
    from mlflow.exceptions import MlflowException

    found = find_experiment(client, experiments, name)
    if found is None:
        # A server knows where its files go.
        root = default_artifact_root(uri, artifact_root) if artifact_root or is_database(uri) else None
        location = f"{root.rstrip('/')}/{_folder_name(name)}" if root else None
        try:
            made = str(client.create_experiment(name, location, dict(tags or {})))
        except MlflowException as error:
            found = find_experiment(client, None, name)  # another process was first
            if found is None:
                raise error
        else:
            found = ExperimentRow(made, name, location or "", True)
        if experiments is not None:
            experiments[name] = found
    if not found.active:
        raise TrackingError(
            f"experiment {name} was deleted in {without_password(uri)}; restore it with "
            f"'mlflow experiments restore -x {found.id}'"
        )
    return found.id


def find_experiment(
    client: MlflowClient, experiments: Mapping[str, ExperimentRow] | None, name: str
) -> ExperimentRow | None:
    """The experiment of this name, deleted ones included, or None."""
    if experiments is not None:
        return experiments.get(name)
    found = client.get_experiment_by_name(name)
    if found is None:
        return None
    return ExperimentRow(
        str(found.experiment_id), name, str(found.artifact_location), found.lifecycle_stage == "active"
    )


def _folder_name(experiment: str) -> str:
    plain = re.sub(r"[^\w.\-]", "_", experiment)
    if plain == experiment and set(plain) != {"."}:
        return plain
    return f"{plain.strip('.')}-{hashlib.sha256(experiment.encode()).hexdigest()[:8]}"


def quiet() -> None:
    """Set what MLflow reads from the environment, where the user has not set it."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # MLflow prints the trace of an error that it raises as well; it is translated and told here.
    database = logging.getLogger("mlflow.store.db.utils")
    if database.level != logging.CRITICAL:
        database.setLevel(logging.CRITICAL)


def mlflow_missing() -> TrackingError:
    return TrackingError(
        "MLflow is not installed, which backend 'mlflow' needs; install it with 'pip install \"mlflow>=3\"', or "
        "choose backend 'noop'"
    )


def is_database(uri: str) -> bool:
    """Whether the store is a database that this process opens by itself, not a server."""
    return uri.startswith((SQLITE, *POSTGRES))


def sqlite_path(uri: str) -> Path | None:
    """The database file of an SQLite address; None for another store or an address with options."""
    place = uri.removeprefix(SQLITE)
    return None if place == uri or place.startswith((":", "file:")) or not place else Path(place).absolute()


def normalised(uri: str) -> str:
    """The address as MLflow is given it: PostgreSQL by psycopg 3, and not waiting long for a dead server."""
    if not uri.startswith(POSTGRES):
        return uri
    url = _postgres_url(uri)
    if "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": str(CONNECT_TIMEOUT_S)})
    return str(url.render_as_string(hide_password=False))


def without_password(uri: str) -> str:
    """
    >>> without_password("postgresql://me:secret@db/runs")
    'postgresql://me:***@db/runs'
    """
    password = urlparse(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Third-party errors of the store as `TrackingUnavailable` or `TrackingError`, with its address.

    Raises:
        TrackingUnavailable: for connections, locks, missing or damaged or read-only files, full disks.
        TrackingError: for what the store would refuse at any time.
    """
    try:
        yield
    except store_errors() as error:
        reason = told(error, uri)
        if is_unreachable(error):
            raise TrackingUnavailable(
                f"the tracking store {without_password(uri)} could not be used ({reason}); "
                "check that it exists, is writable and is not locked"
            ) from error
        raise TrackingError(f"the tracking store {without_password(uri)} refused this: {reason}") from error


def told(error: BaseException, uri: str = "") -> str:
    """An error on one line, without the address's password."""
    text = " ".join(str(error).split())[:500]
    password = urlparse(uri).password if uri else None
    for secret in {password, unquote(password or "")} - {None, ""}:
        text = text.replace(str(secret), "***")
    return f"{type(error).__name__}: {text}"


def store_errors() -> tuple[type[BaseException], ...]:
    """What a store and its artifact repositories raise, as far as their libraries are loaded."""
    found: list[type[BaseException]] = [sqlite3.Error, OSError, Timeout]
    for module, name in (
        ("mlflow.exceptions", "MlflowException"),
        ("sqlalchemy.exc", "SQLAlchemyError"),
        ("psycopg", "Error"),
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("boto3.exceptions", "Boto3Error"),
    ):
        if module in sys.modules and hasattr(sys.modules[module], name):
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def is_unreachable(error: BaseException) -> bool:
    """Whether the store may take the same entries at another time."""
    if isinstance(error, TrackingUnavailable):
        return True
    if isinstance(error, (sqlite3.ProgrammingError, sqlite3.IntegrityError)):
        return False
    cause: BaseException | None = error
    while cause is not None:
        kind = {base.__name__ for base in type(cause).__mro__ if base.__module__ == "sqlalchemy.exc"}
        if kind:
            return not kind & {"IntegrityError", "DataError", "ArgumentError", "ProgrammingError"} or (
                "does not exist" in str(cause)  # a table of PostgreSQL
            )
        cause = cause.__cause__
    code = getattr(error, "error_code", None)
    if code is None:
        return isinstance(error, store_errors())
    # A run that is gone means another database than the one that it was started in.
    return code in {
        "TEMPORARILY_UNAVAILABLE",
        "INTERNAL_ERROR",
        "RESOURCE_DOES_NOT_EXIST",
        "REQUEST_LIMIT_EXCEEDED",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "DEADLINE_EXCEEDED",
    }


def file_identity(uri: str) -> tuple[int, int] | None:
    """Device and inode of an SQLite store's file; None for another store or when it is gone."""
    path = sqlite_path(uri)
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def release(uri: str) -> None:
    """Close the pooled connections of this process to a database whose file was replaced or removed."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    engine = SqlAlchemyStore._engine_map.get(normalised(uri))
    if engine is not None:
        engine.dispose()
    _identities.pop(normalised(uri), None)


_identities: dict[str, tuple[int, int] | None] = {}
_tuned: dict[str, Engine] = {}


def open_engine(uri: str) -> Engine | None:
    """The pool of connections of a database that this process has opened; None for a server."""
    return _tuned.get(normalised(uri))


def _tuned_engine(address: str) -> None:
    """MLflow's pool of connections, without a wait for the disk at every commit of SQLite.

    In WAL mode `synchronous = NORMAL` keeps the database whole whatever happens; a loss of power may take the last
    commits with it, a crash of the process may not (https://www.sqlite.org/pragma.html#pragma_synchronous).
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import event

    engine = SqlAlchemyStore._get_or_create_engine(address)
    if _tuned.get(address) is not engine:
        if address.startswith(SQLITE):

            @event.listens_for(engine, "connect")
            def _on_connect(connection: Any, _record: object) -> None:
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(f"PRAGMA busy_timeout = {1000 * BUSY_S}")

            engine.dispose()
        _tuned[address] = engine
    identity = file_identity(address)
    if _identities.setdefault(address, identity) != identity:
        engine.dispose()  # its connections hold a file that is no longer there
        _identities[address] = identity


def _experiments(uri: str) -> list[ExperimentRow] | None:
    """The experiments in one query; None for a store whose first start is not finished."""
    query = "SELECT experiment_id, name, artifact_location, lifecycle_stage FROM experiments"
    path = sqlite_path(uri)
    address = normalised(uri)
    if address in _tuned and address in _identities and _identities[address] == file_identity(uri):
        # Opened by this process before: a pooled connection knows the schema already.
        with _tuned[address].connect() as pooled:
            found = pooled.exec_driver_sql(query).fetchall()
        return [ExperimentRow(str(i), str(n), str(at or ""), stage == "active") for i, n, at, stage in found]
    if path is None and uri.startswith(SQLITE):
        return []  # an address with options of its own, such as read-only: a reader's
    if path is not None:
        if not path.exists():
            return None
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as connection:
            # WAL, which lasts in the file, is the last step of a first start.
            if str(connection.execute("PRAGMA journal_mode").fetchone()[0]) != "wal":
                return None
            try:
                rows = connection.execute(query).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return None
                raise
    else:
        with postgres(uri) as database:
            if database.execute("SELECT to_regclass('experiments')").fetchone() == (None,):
                return None
            rows = database.execute(query).fetchall()
            if not any(str(row[0]) == DEFAULT_EXPERIMENT for row in rows):
                return None  # the Default experiment is the last step there
    return [ExperimentRow(str(i), str(name), str(at or ""), stage == "active") for i, name, at, stage in rows]


def _first_start(uri: str, artifact_root: str | None) -> list[ExperimentRow]:
    """Make the store and its schema, unless another process did so while this one waited."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path = sqlite_path(uri)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    # Two first starts at once would run the migrations against each other.
    with store_lock(uri, "first-start", FIRST_START_LIMIT_S):
        rows = _experiments(uri)
        if rows is None:
            release(uri)
            store: Any = SqlAlchemyStore  # without annotations of its own
            store = store(normalised(uri), default_artifact_root(uri, artifact_root))
            if path is not None:
                store.engine.dispose()
                with closing(sqlite3.connect(path, timeout=BUSY_S)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
            rows = _experiments(uri)
    if rows is None:
        raise TrackingUnavailable(
            f"the tracking store {without_password(uri)} has no tables of MLflow after its first start; "
            "check that the database is writable and look into it with 'mlflow db upgrade'"
        )
    return rows


def default_artifact_root(uri: str, artifact_root: str | None) -> str:
    """Where experiments keep files when nothing is said: beside an SQLite database, never by the current folder."""
    path = sqlite_path(uri)
    if artifact_root:
        return artifact_root.rstrip("/")
    if path is not None:
        return (path.parent / "mlruns").as_uri()
    here = (Path.cwd() / "mlruns").as_uri()
    logger.warning("no artifact location is given for {}; files go to {}", without_password(uri), here)
    return here


def _refuse_elsewhere(
    uri: str, rows: Iterable[ExperimentRow], artifact_root: str | None, below: Path | str | None
) -> None:
    root = local_path(artifact_root) if artifact_root else None
    allowed = [Path(place) for place in (below, root) if place]
    if not allowed:
        return
    for row in rows:
        place = local_path(row.location)
        if row.id == DEFAULT_EXPERIMENT or not row.active or place is None:
            continue
        if not any(_is_within(place, folder) for folder in allowed):
            wanted = " and ".join(str(folder) for folder in allowed)
            old, new = quote(str(place.parent)), quote(str(allowed[-1]))
            raise TrackingError(
                f"experiment {row.name} of {without_password(uri)} keeps its files at {row.location}, outside "
                f"{wanted}: runs would be written where no backup looks, or to a folder of another machine; move the "
                f"files and run 'forex tracking relocate --from {old} --to {new}', or name their "
                "folder as artifact_uri under [tracking.mlflow]"
            )


def _refuse_other_schema(uri: str) -> None:
    """MLflow would migrate a store of an older version as soon as it opens it, without a copy."""
    from mlflow.store.db import utils
    from mlflow.version import VERSION

    of_mlflow: Any = utils  # without annotations of its own
    found = _schema(uri)
    if found is None or found == (ours := str(of_mlflow._get_latest_schema_revision())):
        return
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    store = f"the tracking store {without_password(uri)}"
    try:
        ScriptDirectory.from_config(of_mlflow._get_alembic_config("")).get_revision(found)
    except CommandError:
        raise TrackingError(
            f"{store} was made by a newer MLflow (its schema {found} is unknown to MLflow {VERSION}, which has "
            f"{ours}) and 'mlflow db upgrade' cannot take that back; install the newer MLflow, or put the copy from "
            "before in its place"
        ) from None
    # MLflow's own command needs the driver in the address.
    address = _postgres_url(uri).render_as_string() if uri.startswith(POSTGRES) else uri
    raise TrackingError(
        f"{store} was made by an older MLflow (its schema is {found}, MLflow {VERSION} has {ours}); copy the "
        f"database, then run 'mlflow db upgrade {quote(address)}'"
    )


def _schema(uri: str) -> str | None:
    """Revision of a database's tables; None without any, or before the end of its first start."""
    query = "SELECT version_num FROM alembic_version WHERE EXISTS (SELECT 1 FROM experiments)"
    path = sqlite_path(uri)
    found: tuple[Any, ...] | None = None
    if path is not None and path.exists():
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if {"experiments", "alembic_version"} <= tables:
                found = connection.execute(query).fetchone()
    elif uri.startswith(POSTGRES):
        with postgres(uri) as database:
            tables = {"experiments", "alembic_version"}
            if all(database.execute("SELECT to_regclass(%s)", (t,)).fetchone() != (None,) for t in tables):
                found = database.execute(query).fetchone()
    return str(found[0]) if found else None


def local_path(location: str) -> Path | None:
    """The folder that a local location names; None for a remote one.

    >>> local_path("file:///srv/a%20b"), local_path("/srv/x"), local_path("s3://bucket/x")
    (PosixPath('/srv/a b'), PosixPath('/srv/x'), None)
    """
    if location.startswith("file:"):
        return Path(unquote(urlparse(location).path))
    scheme = urlparse(location).scheme
    return None if scheme or not location else Path(location)


def _is_within(place: Path, folder: Path) -> bool:
    """By name or, where links are in the way, by the file itself."""
    by_name = _lexical(place).is_relative_to(_lexical(folder))
    return by_name or place.resolve().is_relative_to(folder.resolve())


def _lexical(path: Path) -> Path:
    """Absolute and without dots, links left alone."""
    return Path(os.path.normpath(path.absolute()))


# --- PostgreSQL


def _postgres_url(uri: str) -> Any:
    from sqlalchemy.engine import make_url

    return make_url(uri.replace("postgres:", "postgresql:", 1) if uri.startswith("postgres:") else uri).set(
        drivername="postgresql+psycopg"
    )


@contextmanager
def postgres(uri: str, *, autocommit: bool = True) -> Iterator[Connection[tuple[Any, ...]]]:
    """A connection of one's own.

    Raises:
        TrackingError: when the driver is not installed.
    """
    try:
        import psycopg
    except ImportError as error:
        raise TrackingError(
            f"{without_password(uri)} needs a driver that is not installed; install it with "
            "'pip install \"forex-forecast[postgres]\"'"
        ) from error
    url = _postgres_url(uri)
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


# --- Locks


@contextmanager
def store_lock(uri: str, name: str, timeout_s: float = 0.0, folder: Path | None = None) -> Iterator[None]:
    """Hold a lock that one process at a time has on this store; it ends with its holder, however that ends.

    A file beside an SQLite database, an advisory lock on PostgreSQL, a file in `folder` (by default the machine's
    temporary one) for a server.

    Raises:
        TrackingError: when another process holds it for longer than `timeout_s`.
    """
    busy = TrackingError(
        f"another '{name}' is running on {without_password(uri)}; wait for it to end and try again"
        + (f" (waited {timeout_s:g} s)" if timeout_s else "")
    )
    if uri.startswith(POSTGRES):
        key = int.from_bytes(
            hashlib.sha256(f"forex-forecast {name}".encode()).digest()[:8], "big", signed=True
        )
        with ExitStack() as opened:
            with translated(uri):
                database = opened.enter_context(postgres(uri))
                until = time.monotonic() + timeout_s
                while database.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone() != (True,):
                    if time.monotonic() >= until:
                        raise busy
                    time.sleep(0.05)
            try:
                yield
            finally:
                # The server notices a closed connection a moment later; it gives the lock back then as well.
                with suppress(*store_errors()):
                    database.execute("SELECT pg_advisory_unlock(%s)", (key,))
        return
    path = sqlite_path(uri)
    if path is None:
        digest = hashlib.sha256(uri.encode()).hexdigest()[:16]
        path = (folder or Path(tempfile.gettempdir())) / f"forex-store-{digest}"
    lock = FileLock(f"{path}.{name}.lock")
    with translated(uri):
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout:
            raise busy from None
    try:
        yield
    finally:
        lock.release()


# --- Copies


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
            typed = ", ".join(f"{_quoted(name)} {_sqlite_type(kind)}" for name, kind in columns)
            writer.execute(f"CREATE TABLE {_quoted(table)} ({typed})")
            places = ", ".join("?" * len(columns))
            with database.cursor(name="copy") as cursor:
                cursor.itersize = 5000
                cursor.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))
                writer.executemany(
                    f"INSERT INTO {_quoted(table)} VALUES ({places})",
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
        str(t): int(connection.execute(f"SELECT count(*) FROM {_quoted(t)}").fetchone()[0]) for (t,) in tables
    }


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


# --- Moves


def relocate(uri: str, old: str, new: str, *, copies: Path | None = None) -> dict[str, int]:
    """Rewrite every stored location at or below `old` to the same place below `new`, in one transaction.

    The files are moved or copied by the user beforehand: `new` must hold what the store refers to. The database is
    copied first (`copy_database`), beside an SQLite store or into `copies`.

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
            rows = [
                (table, column, str(value), moved(str(value)))
                for table, column, condition in LOCATIONS
                for (value,) in execute(
                    f"SELECT DISTINCT {column} FROM {table} WHERE {condition or '1 = 1'}", ()
                )
                if value
            ]
        changes = [(table, column, was, to) for table, column, was, to in rows if to is not None]
        if not changes:
            raise TrackingError(
                f"no location in {without_password(uri)} lies at or below {old}; experiments are at "
                f"{', '.join(sorted({was for table, _, was, _ in rows if table == 'experiments'})) or 'none'}"
            )
        _refuse_missing_files(old, new, changes)
        path = sqlite_path(uri)
        folder = copies or (path.parent if path else Path(tempfile.gettempdir()))
        copy = copy_database(uri, folder / f"before-relocate-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.db")
        logger.info("the database as it was is kept in {}", copy.path)
        counts = {f"{table}.{column}": 0 for table, column, _ in LOCATIONS}
        with _writing(uri) as (execute, mark):
            for table, column, was, to in changes:
                condition = next(c for t, c2, c in LOCATIONS if (t, c2) == (table, column))
                statement = f"UPDATE {table} SET {column} = {mark} WHERE {column} = {mark}"
                done = execute(statement + (f" AND {condition}" if condition else ""), (to, was))
                counts[f"{table}.{column}"] += done.rowcount
    return counts


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
    source, target = _lexical(before), _lexical(after)

    def moved(location: str) -> str | None:
        place = local_path(location)
        if place is None:
            return None
        place = _lexical(place)
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
        for file in sorted(f for f in before.rglob("*") if f.is_file() and not _is_within(f, after)):
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


def use_s3(values: Mapping[str, str | None]) -> None:
    """Hand endpoint and keys (names of `S3_NAMES`) to MLflow's S3 client, which reads its environment."""
    for setting, variable in S3_NAMES.items():
        value = values.get(setting)
        if value:
            os.environ[variable] = value
