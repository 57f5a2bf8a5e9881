"""An archive of what a deployment holds, made while it goes on working."""

from __future__ import annotations

import hashlib
import json
import platform
import socket
import sqlite3
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from pathlib import Path
from threading import Condition
from typing import Any, Protocol, TypeVar

from loguru import logger
from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from forex_core import __version__
from forex_core.backup import manifest
from forex_core.backup.manifest import (
    FORMAT,
    MLFLOW,
    PROJECT,
    SETTINGS,
    STORE,
    Entry,
    Header,
    ManifestWriter,
    order_of,
)
from forex_core.backup.places import S3, Place, S3Access, Stored, archive_name
from forex_core.backup.sources import BucketSource, FolderSource, Item, Source
from forex_core.backup.stored import COUNTED, VERSIONS, store_parts
from forex_core.config import Settings, is_secret
from forex_core.databases import DatabaseCopy, copy_database, is_database, is_postgres, sqlite_path
from forex_core.errors import ArchiveRefused, BackupError, DatabaseError, InputError
from forex_core.secrecy import told, without_password

Advance = Callable[[str, int, int], None]
"""Called with what is done next, how much of it is done, of how much."""
A = TypeVar("A", bound="_Sized")
B = TypeVar("B")

LIBRARIES = (
    "mlflow",
    "prefect",
    "sqlalchemy",
    "numpy",
    "pandas",
    "pyarrow",
    "statsmodels",
    "arch",
    "scikit-learn",
)
_HEAVY_BYTES, _HEAVY_WORKERS = 1 << 19, 2
"""A file that is longer is for few threads."""
TRIES = 3
"""How often a file is read that changes while it is read."""
_TOLD_BYTES = 1 << 19
"""How much of its header an archive names missing files with; the others are counted."""
_LOGGED = 20
"""How many of them are logged."""


def silent(stage: str, done: int, total: int) -> None:
    """For a caller that shows no progress."""


class TrackedStore(Protocol):
    """What is MLflow's in an archive: the one who knows its database tells of a copy, and makes a store of it."""

    def tables(self) -> Collection[str]:
        """Names of its tables."""
        ...

    def schema(self, database: Path) -> str:
        """The version of its tables."""
        ...

    def counts(self, database: Path) -> Mapping[str, int]:
        """Runs, experiments, models and versions in it."""
        ...

    def locations(self, database: Path) -> list[str]:
        """Where its experiments keep their files, but for a Default one that has no runs."""
        ...

    def files(self, database: Path) -> Iterator[tuple[str, str]]:
        """Of each model that is complete, what it is and where a file lies without which it cannot be used."""
        ...

    def below(self, location: str, root: str) -> str | None:
        """The path of a location relative to a root, None for one elsewhere."""
        ...

    def folder(self, location: str) -> Path | None:
        """The folder that a local location names, None for a remote one."""
        ...

    def refuse(self, schema: str) -> None:
        """
        Raises:
            TrackingError: tables of this version are unknown here.
        """
        ...

    def complete(self, database: Path) -> None:
        """Make a store of a copy: MLflow's own tables, of the version of now, as a server opens them."""
        ...

    def prepare(self, uri: str, artifact_root: str) -> None:
        """Make MLflow's tables in a database that may lack them."""
        ...

    def move(self, database: Path, moves: Iterable[tuple[str, str]]) -> int:
        """Rewrite stored locations from one root to another; how many."""
        ...

    def check(self, uri: str, below: Path | None) -> Mapping[str, str | None]:
        """Open a store and load each champion: registered model, and what is wrong with its champion.

        Raises:
            TrackingError: experiments keep their files elsewhere than `below`.
        """
        ...


@dataclass(frozen=True)
class Created:
    """An archive that was made; sizes in bytes.

    Attributes:
        archive: its address, which `verify` and `restore` take.
        bytes: of all files.
        bytes_new, bytes_reused: of those whose content was and was not written this time.
        bytes_written: what was written for them, compressed.
        missing: what should be in it and could not be had; `newly_missing` was not missing at the last archive.
    """

    archive: str
    created: datetime
    files: int
    bytes: int
    bytes_new: int
    bytes_reused: int
    bytes_written: int
    counts: Mapping[str, int]
    missing: tuple[str, ...]
    newly_missing: tuple[str, ...]
    seconds: float

    @property
    def document(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"missing": [*self.missing], "newly_missing": [*self.newly_missing]}


def create(
    settings: Settings, tracking: TrackedStore, place: Place, *, full: bool = False, advance: Advance = silent
) -> Created:
    """Make an archive of a deployment in `place`.

    Args:
        full: read every file and write every object again, whatever the last archive says.

    Raises:
        BackupError: nothing is there to be kept, or the tracking store is a server.
        InputError: the place lies in what is archived.
    """
    started = time.perf_counter()
    if not is_database(settings.mlflow_uri):
        raise BackupError(
            f"{without_password(settings.mlflow_uri)} is a server, whose database cannot be read from here; name its "
            "database (sqlite:/// or postgresql://) and run this where that can be reached"
        )
    for folder in (settings.spool_dir, settings.pending_dir, settings.reports_dir):
        _refuse_inside(place, folder)
    with place.locked(shared=False):
        place.sweep()
        with place.scratch() as scratch, ManifestWriter(scratch / "manifest") as written:
            making = _Making(settings, tracking, place, scratch, written, advance)
            return making.run(full, started)


def _refuse_inside(place: Place, folder: Path) -> None:
    if place.lies_in(folder):
        raise InputError(
            f"{place.address} lies in {folder}, which is archived itself, so each archive would hold those before; "
            "name a folder elsewhere"
        )


class _Making:
    """One archive while it is made."""

    def __init__(
        self,
        settings: Settings,
        tracking: TrackedStore,
        place: Place,
        scratch: Path,
        written: ManifestWriter,
        advance: Advance,
    ) -> None:
        self._settings = settings
        self._tracking = tracking
        self._place = place
        self._scratch = scratch
        self._written = written
        self._advance = advance
        self._previous = _Previous(iter(()))
        self._known = set[bytes]()
        self._storing = set[bytes]()
        self._changed = Condition()
        self._fresh: list[str] = []
        self._required: dict[str, tuple[str, str]] = {}
        self._missing: list[str] = []
        self._new = self._reused = self._stored = 0

    def run(self, full: bool, started: float) -> Created:
        created = datetime.now(UTC)
        last = self._last_archive(created)
        if last and not full:
            self._know(last[0], last[2])
        try:
            header = self._collect(created)
            self._advance("flush", 0, 0)
            self._place.settle()
            self._advance("manifest", 0, 0)
            finished = self._written.finish(header)
        except BaseException:
            # A disk that was filled has its room back.
            self._place.discard(self._fresh)
            raise
        name = archive_name(created)
        self._place.publish(finished, name)
        for lost in header.missing[:_LOGGED]:
            logger.warning("the archive lacks {}", lost)
        if len(header.missing) > _LOGGED:
            more = len(header.missing) - _LOGGED + header.missing_more
            logger.warning("the archive lacks {} more files", more)
        return Created(
            archive=self._place.address_of(name),
            created=created,
            files=header.files,
            bytes=header.bytes,
            bytes_new=self._new,
            bytes_reused=self._reused,
            bytes_written=self._stored,
            counts=header.counts,
            missing=header.missing,
            newly_missing=_newly_missing(self._all_missing, last[1] if last else None),
            seconds=time.perf_counter() - started,
        )

    # --- The last archive of the same folder

    def _last_archive(self, now: datetime) -> tuple[str, Header, set[bytes]] | None:
        """Its name, its header, and the objects that it names; None where there is none that can be used."""
        for name in reversed(self._place.names()):
            opener, named = partial(self._place.open_manifest, name), set[bytes]()

            def note(entry: Entry, named: set[bytes] = named) -> None:
                if entry.sha256 is not None:
                    named.add(bytes.fromhex(entry.sha256))

            try:
                header = manifest.header_of(name, opener)
                if header.data_dir != str(self._settings.root):
                    continue
                if header.is_to_come(now):
                    logger.warning(
                        "archive {} is of {:%Y-%m-%d %H:%M} UTC, which is to come: it counts for nothing until then; "
                        "set the clock, or remove the archive",
                        name,
                        header.created,
                    )
                    continue
                return name, manifest.checked(name, opener, note), named
            except (ArchiveRefused, PermissionError) as error:
                logger.warning("{}; every file is read again", error)
        return None

    def _know(self, name: str, named: set[bytes]) -> None:
        """Take over what the last archive says of files, and those of its objects that are there."""
        self._known = {
            found for digest, _, _ in self._place.objects() if (found := bytes.fromhex(digest)) in named
        }
        self._previous = _Previous(manifest.entries(name, partial(self._place.open_manifest, name)))

    # --- What goes in

    def _collect(self, created: datetime) -> Header:
        settings, made = self._settings, self._scratch / "made"
        (made / "databases").mkdir(parents=True)
        secrets = list[str]()
        document = _without_secrets(settings, "", secrets)
        (made / SETTINGS).write_text(json.dumps(document, indent=1), encoding="utf-8")

        self._take("spool/", FolderSource(settings.spool_dir, self._left_out, skips=_is_of_no_entry))
        self._take("pending/", FolderSource(settings.pending_dir, self._left_out, skips=_is_unfinished))
        self._take("", FolderSource(made, self._left_out, trusts=False, skips=lambda name: name != SETTINGS))
        self._advance("databases", 0, 0)
        copies = self._copy_databases(made)
        roots, counts, schemas = self._look_into(copies)
        self._take("databases/", FolderSource(made / "databases", self._left_out, trusts=False))
        counts["artifacts"] = sum(
            self._take(artifacts_prefix(number), self._artifacts(root)) for number, root in enumerate(roots)
        )
        self._take("reports/", FolderSource(settings.reports_dir, self._left_out))
        if not copies and self._written.files == 1:
            raise BackupError(
                f"there is nothing to keep in {settings.root}; check FOREX_DATA_DIR and the folder that this is run "
                "from"
            )
        missing = self._all_missing
        named = _that_fit(missing)
        return Header(
            project=PROJECT,
            format=FORMAT,
            created=created,
            data_dir=str(settings.root),
            host=socket.gethostname(),
            program=__version__,
            python=platform.python_version(),
            libraries=_library_versions(),
            schemas=schemas,
            databases={
                name: "postgresql" if is_postgres(uri) else "sqlite"
                for name, uri in ((MLFLOW, settings.mlflow_uri), (STORE, settings.store_url))
                if name in copies
            },
            roots=tuple(without_password(root) for root in roots),
            counts=counts,
            files=self._written.files,
            bytes=self._written.bytes,
            missing=named,
            missing_more=len(missing) - len(named),
            secrets=tuple(secrets),
        )

    @property
    def _all_missing(self) -> list[str]:
        return sorted([*self._missing, *_lost(self._required.values())])

    def _copy_databases(self, made: Path) -> dict[str, DatabaseCopy]:
        """Copies of the databases that there are, by their place in an archive."""
        copies = {}
        for name, uri, table in (
            (MLFLOW, self._settings.mlflow_uri, "experiments"),
            (STORE, self._settings.store_url, VERSIONS),
        ):
            path = sqlite_path(uri)
            if path is not None and not path.exists():
                continue
            with _copying(uri):
                copy = copy_database(uri, made / name, self._wanted(name) if is_postgres(uri) else _any)
            if table in copy.tables:
                copies[name] = copy
                # Its own mode, not the one that the user who happens to make the archive gives to new files.
                copy.path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o777 if path else 0o600)
            else:  # its program has not made its tables yet
                copy.path.unlink()
        return copies

    def _wanted(self, name: str) -> Callable[[str], bool]:
        """Which tables of PostgreSQL belong to a database: both of ours may share one, and with others."""
        if name == MLFLOW:
            return self._tracking.tables().__contains__
        names = {name for part in store_parts() for name in part.metadata.tables}
        return {VERSIONS, *names}.__contains__

    def _look_into(
        self, copies: Mapping[str, DatabaseCopy]
    ) -> tuple[list[str], dict[str, int], dict[str, str]]:
        """Roots of artifacts, counts of rows and versions of tables; and what the files have to include."""
        roots, counts, schemas = list[str](), dict[str, int](), dict[str, str]()
        if STORE in copies:
            counts |= {what: copies[STORE].tables.get(table, 0) for _, what, table in COUNTED}
            with closing(sqlite3.connect(copies[STORE].path)) as store:
                versions = store.execute(f"SELECT part, version FROM {VERSIONS}").fetchall()
            schemas |= {str(part): str(number) for part, number in versions}
        if MLFLOW not in copies:
            return roots, counts, schemas
        database = copies[MLFLOW].path
        counts |= self._tracking.counts(database)
        schemas[MLFLOW] = self._tracking.schema(database)
        roots += self._roots(database)
        elsewhere = dict[str, str]()
        for what, place in self._tracking.files(database):
            found = (self._tracking.below(place, root) for root in roots)
            path = next((f"{artifacts_prefix(n)}{p}" for n, p in enumerate(found) if p is not None), None)
            if path is None:
                elsewhere.setdefault(what, without_password(place))
            else:
                self._required[path] = what, without_password(place)
        self._missing += [
            f"{what}: {place} lies in no folder of an experiment" for what, place in elsewhere.items()
        ]
        return roots, counts, schemas

    def _roots(self, database: Path) -> Iterator[str]:
        """Where artifacts are: the settings' place, and whatever else experiments keep files at in the data folder."""
        settings, below = self._settings, self._tracking.below
        found = [settings.mlflow_artifacts]
        for location in self._tracking.locations(database):
            if any(below(location, root) is not None for root in found):
                continue
            if below(location, str(settings.root)) and all(below(root, location) is None for root in found):
                found.append(location)
            else:
                self._left_out(
                    without_password(location),
                    "files of an experiment outside the data folder and the place of artifacts",
                )
        yield from found

    def _artifacts(self, root: str) -> Source:
        if root.startswith(S3):
            return BucketSource(root, tracking_access(self._settings).client(), self._left_out, self._scratch)
        folder = self._tracking.folder(root)
        if folder is None:
            self._left_out(without_password(root), "files of a store of this kind cannot be read from here")
            folder = self._scratch / "nothing"
        _refuse_inside(self._place, folder)
        return FolderSource(folder, self._left_out)

    def _left_out(self, path: str, reason: str) -> None:
        self._missing.append(f"{path}: {reason}")

    # --- File by file

    def _take(self, prefix: str, source: Source) -> int:
        """Put the files of a source into the archive, below `prefix`; how many they are, without empty folders."""
        stage = prefix.partition("/")[0] or SETTINGS
        self._advance(stage, 0, 0)

        def unchanged(item: Item) -> _Taken | None:
            before = self._previous.at(f"{prefix}{item.path}")
            if item.is_folder:
                return _Taken(_entry(prefix, item, None))
            if before is None or before.sha256 is None or not item.settled or before.state != item.state:
                return None
            return _Taken(before) if bytes.fromhex(before.sha256) in self._known else None

        files = 0
        taken = in_order(source.items(), unchanged, partial(self._read, prefix, source), self._place.workers)
        for done, one in enumerate(taken):
            if done % 500 == 0:
                self._advance(stage, done, 0)
            if one is None:
                continue
            self._required.pop(one.entry.path, None)
            self._written.add(one.entry)
            files += one.entry.sha256 is not None
            if one.stored is None:
                self._reused += one.entry.size
            else:
                self._new += one.stored.size
                self._stored += one.stored.written
        return files

    def _read(self, prefix: str, source: Source, item: Item) -> _Taken | None:
        """Keep the content of a file; None for one that cannot be read, or is gone."""
        for _ in range(TRIES):
            try:
                with source.local(item) as local:
                    digest, size, stored = self._kept(local.path)
                    now = local.read()
            except FileNotFoundError:
                return None
            except _Unreadable as error:
                self._left_out(f"{prefix}{item.path}", str(error))
                return None
            if now is None or now.state == item.state:
                break
            item = now
        else:
            item = replace(item, settled=False)
        try:
            return _Taken(_entry(prefix, replace(item, size=size), digest), stored)
        except ValidationError:
            self._left_out(f"{prefix}{item.path}", "no file of an archive can have this name")
            return None

    def _kept(self, path: Path) -> tuple[str, int, Stored | None]:
        """Digest and size of a file that the place has now, and what was stored of it."""
        try:
            with path.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256")
                size = content.tell()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _Unreadable(error.strerror or str(error)) from error
        with self._turn(digest.digest()):
            if digest.digest() in self._known:
                return digest.hexdigest(), size, None
            stored = self._place.write(path)
            self._known.add(bytes.fromhex(stored.sha256))
        if stored.is_new:
            self._fresh.append(stored.sha256)
        return stored.sha256, stored.size, stored

    @contextmanager
    def _turn(self, digest: bytes) -> Iterator[None]:
        """Nobody else stores this content meanwhile: the models of one recipe share most of their files."""
        with self._changed:
            self._changed.wait_for(lambda: digest not in self._storing)
            self._storing.add(digest)
        try:
            yield
        finally:
            with self._changed:
                self._storing.remove(digest)
                self._changed.notify_all()


@dataclass(frozen=True)
class _Taken:
    """A file that goes into the archive, and what was stored of it, None where all of it was there."""

    entry: Entry
    stored: Stored | None = None


class _Unreadable(Exception):  # noqa: N818  told as the reason why a file is left out, and goes no further
    """A file of the deployment cannot be read."""


class _Previous:
    """Entries of the last archive, asked for in their order."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries
        self._next = next(entries, None)

    def at(self, path: str) -> Entry | None:
        place = order_of(path)
        while self._next is not None and order_of(self._next.path) < place:
            self._next = next(self._entries, None)
        return self._next if self._next is not None and self._next.path == path else None


def artifacts_prefix(number: int) -> str:
    """Where the files of a root of artifacts are in an archive."""
    return f"artifacts/{number:02d}/"


def tracking_access(settings: Settings) -> S3Access:
    """Endpoint and keys of the store of artifacts."""
    mlflow = settings.tracking.mlflow
    return S3Access(mlflow.s3_endpoint_url, mlflow.s3_access_key_id, mlflow.s3_secret_access_key)


class _Sized(Protocol):
    @property
    def size(self) -> int: ...


def in_order(
    items: Iterable[A], ready: Callable[[A], B | None], work: Callable[[A], B | None], workers: int
) -> Iterator[B | None]:
    """What `ready` says of each item, or where that is None what `work` does in one of some threads; in their order.

    A thread holds megabytes of a long file, and keeps their memory after it: however many there are, few take those.
    """
    with ExitStack() as stack:
        pool = heavy = stack.enter_context(ThreadPoolExecutor(workers))
        if workers > _HEAVY_WORKERS:
            heavy = stack.enter_context(ThreadPoolExecutor(_HEAVY_WORKERS))
        pending: deque[B | Future[B | None]] = deque()
        try:
            for item in items:
                threads = heavy if item.size > _HEAVY_BYTES else pool
                pending.append(found if (found := ready(item)) is not None else threads.submit(work, item))
                while len(pending) > 8 * workers:
                    yield _result(pending.popleft())
            while pending:
                yield _result(pending.popleft())
        finally:
            for left in pending:
                if isinstance(left, Future):
                    left.cancel()


def _result(found: B | Future[B | None]) -> B | None:
    return found.result() if isinstance(found, Future) else found


def _entry(prefix: str, item: Item, digest: str | None) -> Entry:
    return Entry(
        path=f"{prefix}{item.path}",
        sha256=digest,
        size=item.size,
        mode=item.mode,
        mtime_ns=item.mtime_ns,
        state=item.state if item.settled else None,
    )


@contextmanager
def _copying(uri: str) -> Iterator[None]:
    """A database that cannot be copied, told with what to do about it."""
    try:
        yield
    except DatabaseError as error:
        raise BackupError(f"{without_password(uri)} could not be copied: {error}") from error
    except database_errors() as error:
        advice = (
            "wait where it is locked or its server is down; where it is damaged, restore an archive that verifies: "
            "'forex backup list' shows them"
        )
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            advice = "make room where the archives are and try again"
        raise BackupError(
            f"{without_password(uri)} could not be copied ({told(error, uri)}); {advice}"
        ) from error


def database_errors() -> tuple[type[Exception], ...]:
    """What the drivers of databases raise, as far as they are loaded."""
    psycopg = sys.modules.get("psycopg")
    return (sqlite3.Error, *((psycopg.Error,) if psycopg else ()))


def _lost(required: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A line for each model and run, of its files that are not there."""
    places: dict[str, list[str]] = {}
    for what, place in required:
        places.setdefault(what, []).append(place)
    for what, (first, *more) in places.items():
        yield f"{what}: {first} is not there" + (f", nor are {len(more)} more of its files" if more else "")


def _any(table: str) -> bool:
    return True


def _that_fit(missing: list[str]) -> tuple[str, ...]:
    """The first of what is missing, as many as a header can name."""
    sizes = accumulate(len(json.dumps(lost)) + 1 for lost in missing)
    return tuple(lost for lost, size in zip(missing, sizes, strict=True) if size <= _TOLD_BYTES)


def _newly_missing(missing: list[str], last: Header | None) -> tuple[str, ...]:
    """What was not missing at the last archive; of what that did not name, how many more there are now."""
    if last is None:
        return tuple(missing)
    known, end = set(last.missing), last.missing[-1] if last.missing_more and last.missing else None
    more = sum(end is not None and lost > end for lost in missing) - last.missing_more
    fresh = [lost for lost in missing if lost not in known and (end is None or lost <= end)]
    return (*fresh, *([f"{more} more"] if more > 0 else ()))


def _is_of_no_entry(name: str) -> bool:
    """Locks of the spool, and what is being removed from it."""
    return name.startswith(".") or name.endswith(".lock")


def _is_unfinished(name: str) -> bool:
    return name.endswith(".unfinished")


def _without_secrets(model: BaseModel, prefix: str, secrets: list[str]) -> dict[str, Any]:
    """Settings as plain values; names of the secrets that are set are added to a list."""
    shown: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        value, dotted = getattr(model, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            shown[name] = _without_secrets(value, f"{dotted}.", secrets)
        elif not is_secret(field.annotation):
            shown[name] = _without_passwords(to_jsonable_python(value))
        elif value:
            secrets.append(dotted)
    return shown


def _without_passwords(value: Any) -> Any:
    if isinstance(value, str):
        return without_password(value)
    if isinstance(value, list):
        return [_without_passwords(inner) for inner in value]
    return {n: _without_passwords(v) for n, v in value.items()} if isinstance(value, dict) else value


def _library_versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
