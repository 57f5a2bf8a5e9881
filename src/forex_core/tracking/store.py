"""The tracking store as a place: opened once, checked and locked. SQLite, PostgreSQL or a server."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from filelock import FileLock, Timeout
from loguru import logger

from forex_core.databases import (
    CONNECT_TIMEOUT_S,
    SQLITE,
    is_database,
    is_postgres,
    postgres,
    postgres_url,
    sqlite_path,
)
from forex_core.errors import DatabaseError, TrackingError, TrackingUnavailable
from forex_core.secrecy import told, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from sqlalchemy.engine import Engine

FIRST_START_LIMIT_S = 180
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
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A dead server is noticed in seconds, not in minutes; what was to be logged is spooled then.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "AWS_MAX_ATTEMPTS": "2",
}
"""What MLflow and its S3 client read, where the user has not chosen: nothing is reported home or drawn."""


_DAMAGED = ("database disk image is malformed", "file is not a database", "malformed database schema")
_FULL = ("database or disk is full", "No space left on device")


@dataclass(frozen=True)
class ExperimentRow:
    """An experiment as the database holds it; `refusal` says why no run of it may be begun here."""

    id: str
    name: str
    location: str
    active: bool
    refusal: str | None = None


def open_store(uri: str, artifact_root: str | None = None, below: Path | str | None = None) -> MlflowClient:
    """A client of the store at `uri`, which is made and brought to MLflow's schema by one process at a time.

    Args:
        uri: sqlite:////path/mlflow.db, postgresql://user@host/database, or a server's http address.
        artifact_root: URI below which experiments keep their files; used for the Default experiment of a new store.
        below: the data folder. With it or a local `artifact_root`, experiments whose files lie outside both are
            refused; the Default experiment, which every store has, when it is to be used.

    Raises:
        TrackingUnavailable: when the store cannot be reached or written.
        TrackingError: when it is refused: artifact locations elsewhere, a schema of another version, no driver.
    """
    return open_with_experiments(uri, artifact_root, below)[0]


def open_with_experiments(
    uri: str, artifact_root: str | None = None, below: Path | str | None = None
) -> tuple[MlflowClient, dict[str, ExperimentRow] | None]:
    """As `open_store`, with the experiments by name; None in their place for a server, which is to be asked."""
    made = _client_class()
    with translated(uri):
        refuse_unknown_address(uri)
        address = normalised(uri)
        if not is_database(uri):
            return made(address, registry_uri=address), None
        if address not in _tuned:
            _schema_of_ours(uri)
        rows = _experiments(uri)
        if rows is None:
            rows = _first_start(uri, artifact_root)
        rows = _refuse_elsewhere(uri, rows, artifact_root, below)
        _tuned_engine(address)
        return made(address, registry_uri=address), {row.name: row for row in rows}


def open_existing(uri: str) -> MlflowClient | None:
    """A client of the store at `uri` as it is, for one who only reads: nothing is made, migrated or set to WAL.

    None for a database that is not there or has no tables of MLflow, and for one whose first start is under way.

    Raises:
        TrackingError: as from `open_store`.
    """
    made = _client_class()
    with translated(uri):
        refuse_unknown_address(uri)
        address = normalised(uri)
        if sqlite_path(uri) is not None or is_postgres(uri):
            if _schema_of_ours(uri) is None:
                return None
            _tuned_engine(address)
        return made(address, registry_uri=address)


def _client_class() -> type[MlflowClient]:
    quiet()
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise mlflow_missing() from error
    return MlflowClient


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
        experiments: those known at the opening of the store, completed here; None for a server.

    Raises:
        TrackingError: when the experiment was deleted, or keeps its files elsewhere.
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
            found = find_experiment(client, experiments, name)  # another process was first
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
    if found.refusal:
        raise TrackingError(found.refusal)
    return found.id


def find_experiment(
    client: MlflowClient, experiments: Mapping[str, ExperimentRow] | None, name: str
) -> ExperimentRow | None:
    """The experiment of this name, deleted ones included, or None; the store is asked for one that is not known yet."""
    if experiments and name in experiments:
        return experiments[name]
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


def refuse_unknown_address(uri: str) -> None:
    """Refuse what cannot be the address of a store, before anything is tried with it.

    Raises:
        TrackingError: so it is.
    """
    options = "?" in uri and uri.startswith(SQLITE) and not uri.startswith(f"{SQLITE}file:")
    if options or not (is_database(uri) or uri.startswith(("http://", "https://"))):
        raise TrackingError(
            f"tracking_uri is {without_password(uri)!r}"
            + (", and an SQLite database takes no options here" if options else "")
            + "; expected sqlite:////path/mlflow.db, postgresql://user@host/database or http://host:port of an MLflow "
            "server"
        )


def normalised(uri: str) -> str:
    """The address as MLflow is given it: PostgreSQL by psycopg 3, and not waiting long for a dead server."""
    if not is_postgres(uri):
        return uri
    url = postgres_url(uri)
    if "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": str(CONNECT_TIMEOUT_S)})
    return str(url.render_as_string(hide_password=False))


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Third-party errors of the store as `TrackingUnavailable` or `TrackingError`, with its address.

    Raises:
        TrackingUnavailable: for connections, locks, missing or damaged or read-only files, full disks, and libraries
            that are not installed.
        TrackingError: for what the store would refuse at any time.
    """
    try:
        yield
    except DatabaseError as error:
        raise TrackingError(str(error)) from error
    except store_errors() as error:
        reason = told(error, uri)
        if is_unreachable(error):
            raise TrackingUnavailable(
                f"the tracking store {without_password(uri)} could not be used ({reason}); {_cure(reason)}"
            ) from error
        raise TrackingError(f"the tracking store {without_password(uri)} refused this: {reason}") from error


def _cure(reason: str) -> str:
    if any(words in reason for words in _DAMAGED):
        return "it is damaged: restore it from a backup ('forex backup restore latest')"
    if any(words in reason for words in _FULL):
        return "make room on its disk"
    return "check that it exists, is writable and is not locked, and that what it needs is installed"


def store_errors() -> tuple[type[Exception], ...]:
    """What a store and its artifact repositories raise, as far as their libraries are loaded."""
    found: list[type[Exception]] = [sqlite3.Error, OSError, Timeout, ImportError]
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
    return code in {
        "TEMPORARILY_UNAVAILABLE",
        "INTERNAL_ERROR",
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
    for part in ("tracking", "model_registry"):  # MLflow keeps a pool for each
        module = sys.modules.get(f"mlflow.store.{part}.sqlalchemy_store")
        engine = module.SqlAlchemyStore._engine_map.get(normalised(uri)) if module else None
        if engine is not None:
            engine.dispose()
    _identities.pop(normalised(uri), None)


_identities: dict[str, tuple[int, int] | None] = {}
_tuned: dict[str, Engine] = {}


def open_engine(uri: str) -> Engine | None:
    """The pool of connections of a database that this process has opened; None for a server."""
    return _tuned.get(normalised(uri))


def _tuned_engine(address: str) -> None:
    """MLflow's pool of connections, of SQLite without a wait for the disk at every commit and with its references held.

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
                connection.execute("PRAGMA foreign_keys = ON")  # MLflow does so in its own sessions alone

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
    path = sqlite_path(uri)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    # Two first starts at once would run the migrations against each other.
    with store_lock(uri, "first-start", FIRST_START_LIMIT_S):
        rows = _experiments(uri)
        if rows is None:
            release(uri)
            root = default_artifact_root(uri, artifact_root)
            if path is None:
                _migrate(normalised(uri), root)
            else:
                _make_sqlite(path, root)
            rows = _experiments(uri)
    if rows is None:
        raise TrackingUnavailable(
            f"the tracking store {without_password(uri)} has no tables of MLflow after its first start; "
            "check that the database is writable and look into it with 'mlflow db upgrade'"
        )
    return rows


def _make_sqlite(path: Path, artifact_root: str) -> None:
    """A database in WAL mode with MLflow's tables. A new one gets its name when it is whole.

    SQLite undoes no half of MLflow's migrations: a first start that was killed in them could never be taken up again.
    """
    if path.exists():
        _migrate_sqlite(path, artifact_root)
        return
    making = path.with_name(f".{path.name}.making")
    # What a killed first start left, and a log that would be read into a database that it is not of.
    for left in (making, *_beside(making), *_beside(path)):
        left.unlink(missing_ok=True)
    try:
        _migrate_sqlite(making, artifact_root)
        making.rename(path)
    finally:
        making.unlink(missing_ok=True)


def _migrate_sqlite(path: Path, artifact_root: str) -> None:
    address = f"{SQLITE}{path}"
    try:
        _migrate(address, artifact_root)
    finally:
        release(address)
    with closing(sqlite3.connect(path, timeout=BUSY_S)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _beside(path: Path) -> list[Path]:
    """What SQLite writes beside a database."""
    return [Path(f"{path}{end}") for end in ("-journal", "-wal", "-shm")]


def _migrate(address: str, artifact_root: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store: Any = SqlAlchemyStore  # without annotations of its own
    store(address, artifact_root)


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
    uri: str, rows: Sequence[ExperimentRow], artifact_root: str | None, below: Path | str | None
) -> list[ExperimentRow]:
    """The rows, those with files elsewhere marked as refused.

    Raises:
        TrackingError: when one of them is another than the Default experiment, and not deleted.
    """
    root = local_path(artifact_root) if artifact_root else None
    allowed = [Path(place) for place in (below, root) if place]
    judged = []
    for row in rows:
        place = local_path(row.location)
        if allowed and place is not None and not any(is_within(place, folder) for folder in allowed):
            wanted = " and ".join(str(folder) for folder in allowed)
            old, new = quote(str(place.parent)), quote(str(allowed[-1]))
            row = replace(
                row,
                refusal=f"experiment {row.name} of {without_password(uri)} keeps its files at {row.location}, outside "
                f"{wanted}: runs would be written where no backup looks, or to a folder of another machine; move the "
                f"files and run 'forex tracking relocate --from {old} --to {new}', or name their "
                "folder as artifact_uri under [tracking.mlflow]",
            )
        if row.refusal and row.active and row.id != DEFAULT_EXPERIMENT:
            raise TrackingError(row.refusal)
        judged.append(row)
    return judged


@cache
def latest_schema() -> str:
    """Revision of the tables that the MLflow installed makes."""
    from mlflow.store.db import utils

    of_mlflow: Any = utils  # without annotations of its own
    return str(of_mlflow._get_latest_schema_revision())


def refuse_newer(found: str, store: str) -> None:
    """
    Raises:
        TrackingError: tables of this revision are unknown to the MLflow installed.
    """
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db import utils
    from mlflow.version import VERSION

    of_mlflow: Any = utils  # without annotations of its own
    try:
        ScriptDirectory.from_config(of_mlflow._get_alembic_config("")).get_revision(found)
    except CommandError:
        raise TrackingError(
            f"{store} was made by a newer MLflow (its schema {found} is unknown to MLflow {VERSION}, which has "
            f"{latest_schema()}) and 'mlflow db upgrade' cannot take that back; install the newer MLflow, or put the "
            "copy from before in its place"
        ) from None


def _schema_of_ours(uri: str) -> str | None:
    """As `_schema`. MLflow would migrate a store of an older version as soon as it opens it, without a copy.

    Raises:
        TrackingError: when it is that of another version of MLflow.
    """
    from mlflow.version import VERSION

    found = _schema(uri)
    if found is None or found == (ours := latest_schema()):
        return found
    store = f"the tracking store {without_password(uri)}"
    refuse_newer(found, store)
    # MLflow's own command needs the driver in the address.
    address = postgres_url(uri).render_as_string() if is_postgres(uri) else uri
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
    elif is_postgres(uri):
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


def is_within(place: Path, folder: Path) -> bool:
    """By name or, where links are in the way, by the file itself."""
    by_name = lexical(place).is_relative_to(lexical(folder))
    return by_name or place.resolve().is_relative_to(folder.resolve())


def lexical(path: Path) -> Path:
    """Absolute and without dots, links left alone."""
    return Path(os.path.normpath(path.absolute()))


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
    if is_postgres(uri):
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


def use_s3(values: Mapping[str, str | None]) -> None:
    """Hand endpoint and keys (names of `S3_NAMES`) to MLflow's S3 client, which reads its environment."""
    for setting, variable in S3_NAMES.items():
        value = values.get(setting)
        if value:
            os.environ[variable] = value
