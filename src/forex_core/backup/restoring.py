"""The way back: an archive verified while it is written beside the target, checked as a store, then put in place.

The target is the folder of before or the one of after, whenever the process is killed: one rename of the system makes
the difference. What was there is kept beside it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import os
import re
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from loguru import logger

from forex_core.backup import manifest
from forex_core.backup.creating import (
    Advance,
    TrackedStore,
    in_order,
    silent,
    tracking_access,
)
from forex_core.backup.manifest import MLFLOW, PENDING, REPORTS, SETTINGS, SPOOL, STORE, Entry, Header
from forex_core.backup.places import S3, Place
from forex_core.backup.sources import KEPT, BucketSource, FolderSource, Item
from forex_core.backup.stored import COUNTED, store_parts
from forex_core.config import Settings
from forex_core.databases import is_database, is_postgres, load_tables, refuse_without_schemas, sqlite_path
from forex_core.errors import ArchiveRefused, InputError, TrackingError
from forex_core.secrecy import without_password
from forex_core.services import idle_users, processes_using

MARK = ".unfinished"
"""In a folder that is being restored; a lock on it tells that its process lives.

Before the switch it is told the name that the folder beside it has on the way, and the one that it is to have after.
"""
BACKUPS = "backups"
"""Where archives are in a data folder, unless they are elsewhere."""
_ROOM = 1.05
_TOLD_USERS = 12
"""How many processes that use a folder are named; MLflow's pages alone are several."""
_EXCHANGE, _HERE = 2, -100
"""RENAME_EXCHANGE and AT_FDCWD of Linux."""


@dataclass(frozen=True)
class Restored:
    """A deployment that was restored.

    Attributes:
        folder: the data folder that is restored.
        before: where what was there is kept: a folder, objects of a bucket, and schemas of PostgreSQL.
        champions: registered model, and what is wrong with its champion, None where it was loaded.
        missing: what the archive itself lacks.
    """

    archive: str
    created: datetime
    folder: Path
    before: tuple[str, ...]
    files: int
    bytes: int
    counts: Mapping[str, int]
    champions: Mapping[str, str | None]
    missing: tuple[str, ...]
    secrets: tuple[str, ...]
    seconds: float

    @property
    def document(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"folder": str(self.folder)}


@dataclass(frozen=True)
class _Layout:
    """Where the parts of an archive go in a data folder, relative to it; and where they end when not there.

    `tracking_uri` and `store_url` are PostgreSQL, `artifact_root` s3://, that the part is put into afterwards.
    """

    mlflow: Path = Path("mlflow/mlflow.db")
    store: Path = Path("store/forex.db")
    artifacts: Path = Path("mlflow/mlruns")
    tracking_uri: str | None = None
    store_url: str | None = None
    artifact_root: str | None = None

    def path_of(self, archived: str) -> Path:
        part, _, rest = archived.partition("/")
        if archived == MLFLOW:
            return self.mlflow
        if archived == STORE:
            return self.store
        if part == "artifacts":
            number, _, below = rest.partition("/")
            return self.root_of(int(number)) / below
        return Path(archived)

    @property
    def is_remote(self) -> bool:
        """Whether anything goes elsewhere than into the folder."""
        return any((self.tracking_uri, self.store_url, self.artifact_root))

    def names(self, roots: int) -> frozenset[str]:
        """What belongs to an archive of so many roots of artifacts, in the folder itself."""
        databases = (self.mlflow.parts[0], self.store.parts[0])
        logs = (f"{name}{suffix}" for name in databases for suffix in ("-wal", "-shm", "-journal"))
        artifacts = (self.root_of(number).parts[0] for number in range(roots or 1))
        return frozenset((MARK, SPOOL, PENDING, SETTINGS, REPORTS, *databases, *logs, *artifacts))

    def root_of(self, number: int) -> Path:
        """The folder of a root of artifacts; further ones beside the first."""
        return self.artifacts if not number else self.artifacts.with_name(f"{self.artifacts.name}-{number}")


def restore(
    settings: Settings,
    tracking: TrackedStore,
    place: Place,
    name: str,
    to: Path | None = None,
    *,
    replaced: list[str],
    advance: Advance = silent,
) -> Restored:
    """Restore an archive into a new or empty folder, or over the data folder of the settings and its back ends.

    Args:
        to: the folder, in the layout of a data folder: SQLite and files. None: over what the settings name, in their
            back ends.
        replaced: gets what was replaced in those back ends, which an error after it does not undo.

    Raises:
        ArchiveRefused: the archive is damaged, incomplete, dangerous or of a newer version.
        InputError: the target is neither new nor empty, is in use, has not the room, or mounts in it.
        DatabaseError: PostgreSQL lets nothing be kept aside.
    """
    started = time.perf_counter()
    with place.locked(shared=True):
        header = manifest.checked(name, partial(place.open_manifest, name))
        refuse_unknown(header, tracking)
        target = _target(settings, to)
        layout = _Layout() if to else _layout(settings, tracking)
        for uri in filter(None, (layout.tracking_uri, layout.store_url)):
            refuse_without_schemas(uri)
        if to is None:
            _refuse_use(target, replaced)
        _refuse_without_room(header, target)
        _sweep(target)
        if to is None:
            _finish(target, layout.names(len(header.roots)))
        with _staging(target) as staged:
            # Through a link, if the settings name one: so are the locations that MLflow is given from now on.
            known_as = target if to else settings.root
            restoring = _Restoring(
                settings, tracking, place, name, header, layout, staged, target, known_as, replaced, advance
            )
            restoring.write()
            champions = restoring.check()
            before = restoring.put_in_place(over=to is None)
    return Restored(
        archive=place.address_of(name),
        created=header.created,
        folder=target,
        before=before,
        files=header.files,
        bytes=header.bytes,
        counts=header.counts,
        champions=champions,
        missing=header.missing,
        secrets=header.secrets,
        seconds=time.perf_counter() - started,
    )


def refuse_unknown(header: Header, tracking: TrackedStore) -> None:
    """
    Raises:
        ArchiveRefused: the archive has tables of a version that this program does not know, or no longer.
    """
    known = {part.name: part.version for part in store_parts()}
    for part, found in header.schemas.items():
        if part == MLFLOW or found == str(known.get(part)):
            continue
        which = "an earlier" if found.isdigit() and int(found) < known.get(part, 0) else "a newer"
        raise ArchiveRefused(
            f"the archive's {part} were kept by {which} version of this program (their tables are of version {found}, "
            f"this one knows {known.get(part, 'none')} alone); install that version to restore it"
        )
    if MLFLOW in header.schemas:
        try:
            tracking.refuse(header.schemas[MLFLOW])
        except TrackingError as error:
            raise ArchiveRefused(f"{error}") from error


class _Restoring:
    """One restore, from the first file to the switch."""

    def __init__(
        self,
        settings: Settings,
        tracking: TrackedStore,
        place: Place,
        name: str,
        header: Header,
        layout: _Layout,
        staged: Path,
        target: Path,
        known_as: Path,
        replaced: list[str],
        advance: Advance,
    ) -> None:
        self._settings = settings
        self._tracking = tracking
        self._place = place
        self._name = name
        self._header = header
        self._layout = layout
        self._staged = staged
        self._target = target
        self._known_as = known_as
        self._replaced = replaced
        self._names = layout.names(len(header.roots))
        self._advance = advance

    def write(self) -> None:
        """Every file of the archive, each compared with its digest."""
        entries = manifest.entries(self._name, partial(self._place.open_manifest, self._name))
        total = self._header.files
        made = in_order(entries, lambda entry: None, self._write, self._place.workers)
        for done, _ in enumerate(made):
            if done % 500 == 0:
                self._advance("files", done, total)

    def _write(self, entry: Entry) -> None:
        path = self._staged / self._layout.path_of(entry.path)
        try:
            if entry.sha256 is None:
                path.mkdir(parents=True, exist_ok=True)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            # Never through a link and never over a file: two entries of one name are two names for one place.
            descriptor = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise ArchiveRefused(
                f"archive {self._name}: {entry.path!r} is in the way of another file"
            ) from error
        with os.fdopen(descriptor, "wb") as out:
            for chunk in self._place.content(entry.sha256, entry.size):
                out.write(chunk)
            os.fchmod(out.fileno(), entry.mode)
            out.flush()
            os.utime(out.fileno(), ns=(entry.mtime_ns, entry.mtime_ns))

    def check(self) -> Mapping[str, str | None]:
        """Make stores of the databases, and read what matters through them, where they lie now."""
        self._advance("check", 0, 0)
        champions: Mapping[str, str | None] = {}
        if MLFLOW in self._header.databases:
            database = self._staged / self._layout.mlflow
            self._tracking.complete(database)
            self._tracking.move(database, self._moves(self._staged))
            # An experiment of another place, which the archive lacks, is no reason to keep the others back.
            below = None if self._header.missing else self._staged
            champions = self._tracking.check(f"sqlite:///{database}", below)
            self._refuse_loss("runs", self._tracking.counts(database)["runs"])
        if STORE in self._header.databases:
            for what, found in self._stored(self._staged / self._layout.store).items():
                self._refuse_loss(what, found)
        faults = {model: fault for model, fault in champions.items() if fault}
        if faults and not self._header.missing:
            model, fault = next(iter(faults.items()))
            raise ArchiveRefused(f"the champion of {model} in archive {self._name} cannot be used: {fault}")
        for model, fault in faults.items():
            logger.warning("the champion of {} cannot be used: {}", model, fault)
        return champions

    def _stored(self, database: Path) -> dict[str, int]:
        uri = f"sqlite:///{database}"
        if self._header.databases[STORE] == "postgresql":  # rows without their keys and triggers
            rows = database.with_name(f"{database.name}.rows")
            database.rename(rows)
            self._open_store(uri)
            load_tables(rows, uri)
            rows.unlink()
        self._open_store(uri)
        with closing(sqlite3.connect(database)) as store:
            store.execute("PRAGMA journal_mode = WAL")
            return {
                what: int(store.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
                for part, what, table in COUNTED
                if part in self._header.schemas
            }

    def _open_store(self, uri: str) -> None:
        """Open the parts that the archive has as a reader does; tables are made where there are none."""
        from forex_core.append_only import AppendOnlyDatabase  # SQLAlchemy: for a restore alone

        for part in store_parts():
            if part.name in self._header.schemas:
                with AppendOnlyDatabase(uri, part).reading():
                    pass

    def _refuse_loss(self, what: str, found: int) -> None:
        if found != self._header.counts.get(what):
            raise ArchiveRefused(
                f"archive {self._name} has {found} {what} and announces {self._header.counts.get(what)}"
            )

    def put_in_place(self, *, over: bool) -> tuple[str, ...]:
        """The files to where they belong: other back ends first, the data folder last, in one step."""
        before = list[str]()
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        database = self._staged / self._layout.mlflow
        if MLFLOW in self._header.databases:
            self._tracking.move(database, self._moves(self._known_as, back_from=self._staged))
        if over and self._target.exists() and self._layout.is_remote:
            self._carry_over()  # what cannot be done for the folder is to fail before a row is replaced
        kept_in = f"{KEPT}{stamp.lower()}"
        if self._layout.artifact_root:
            self._advance("upload", 0, 0)
            before += self._upload(self._layout.artifact_root, kept_in)
        if self._layout.tracking_uri and database.is_file():
            self._tracking.prepare(self._layout.tracking_uri, self._settings.mlflow_artifacts)
            before.append(self._load(database, self._layout.tracking_uri, f"{kept_in}_mlflow"))
        store = self._staged / self._layout.store
        if self._layout.store_url and store.is_file():
            self._open_store(self._layout.store_url)
            before.append(self._load(store, self._layout.store_url, f"{kept_in}_store"))
        self._advance("switch", 0, 0)
        _close(database)
        _close(store)
        if over and self._target.exists():
            return (self._exchange(stamp), *before)
        self._target.parent.mkdir(parents=True, exist_ok=True)
        if self._target.exists():
            _as_the_owner(self._target, self._staged)
        os.sync()
        self._staged.rename(self._target)
        (self._target / MARK).unlink()
        return tuple(before)

    def _exchange(self, stamp: str) -> str:
        """Put the new folder in the place of the one that is there; where that one is then."""
        aside = self._target.with_name(f"{self._target.name}.before-restore-{stamp}")
        self._carry_over()
        (self._staged / MARK).write_text(f"{self._staged.name}\n{aside.name}\n", encoding="utf-8")
        (self._target / MARK).unlink(missing_ok=True)
        os.sync()
        _exchange(self._staged, self._target)
        users = processes_using(self._staged)
        if users:
            _exchange(self._staged, self._target)
            raise _in_use(self._target, users, self._replaced)
        _put_aside(self._target, self._staged, aside, self._names)
        return str(aside)

    def _carry_over(self) -> None:
        """Give the new folder what of the one that is there goes on, from the moment of the switch."""
        _refuse_use(self._target, self._replaced)
        for other in _others(self._staged, self._names):
            _remove(other)
        _link_archives(self._target, self._staged)
        _link_spooled(self._target, self._staged)
        _as_the_owner(self._target, self._staged)
        for other in _others(self._target, self._names):
            _link_anew(other, self._staged / other.name)

    def _moves(self, folder: Path, back_from: Path | None = None) -> list[tuple[str, str]]:
        """From where the artifacts' locations point, to where they will be in `folder` or its store of artifacts."""
        moves = []
        for number, root in enumerate(self._header.roots):
            relative = self._layout.root_of(number)
            new = str(folder / relative)
            if back_from is not None:
                root = str(back_from / relative)
                if self._layout.artifact_root:
                    suffix = f"-{number}" if number else ""
                    new = f"{self._layout.artifact_root.rstrip('/')}{suffix}"
            moves.append((root, new))
        return moves

    def _upload(self, root: str, kept_in: str) -> list[str]:
        """Files into their bucket; where those that they replace are kept, if there are any."""
        client, before = tracking_access(self._settings).client(), list[str]()
        for number in range(len(self._header.roots)):
            folder = self._staged / self._layout.root_of(number)
            address = f"{root.rstrip('/')}{f'-{number}' if number else ''}"
            bucket = BucketSource(address, client, lambda path, reason: None)
            files = FolderSource(folder, lambda path, reason: None).items()
            kept = f"objects below {bucket.kept_in(kept_in)}"
            self._replaced.append(f"files were put into {address}, and those that they changed are {kept}")
            logger.info("files are put into {}; those that they change are kept as {}", address, kept)

            def put(item: Item, folder: Path = folder, bucket: BucketSource = bucket) -> bool:
                return not item.is_folder and bucket.put(item.path, folder / item.path, kept_in)

            if any([*in_order(files, lambda item: None, put, 16)]):
                before.append(kept)
            shutil.rmtree(folder, ignore_errors=True)
        return before

    def _load(self, database: Path, uri: str, schema: str) -> str:
        """Rows into PostgreSQL, whose present ones go into a schema of their own in the same transaction."""
        self._advance("load", 0, 0)
        load_tables(database, uri, aside=schema)
        kept = f"schema {schema} of {without_password(uri)}"
        self._replaced.append(f"rows, whose ones of before are in {kept}")
        logger.info("rows were replaced; those of before are in {}", kept)
        database.unlink()
        _close(database)
        return kept


def _close(database: Path) -> None:
    """Bring all of a database into its one file; what is beside it would belong to another in its place."""
    if database.is_file():
        with closing(sqlite3.connect(database)) as last:
            last.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", "-shm"):
        database.with_name(f"{database.name}{suffix}").unlink(missing_ok=True)


def _in_use(target: Path, users: list[tuple[int, str]], replaced: list[str]) -> InputError:
    told = "; ".join(f"{number} ({command[:200]})" for number, command in users[:_TOLD_USERS])
    count, them = ("a process", "it") if len(users) == 1 else (f"{len(users)} processes", "them")
    stop = "Stop" if replaced else "Nothing was changed; stop"
    return InputError(
        f"{target} is in use by {count}: {told}. {stop} {them} and try again, or restore --to another folder"
    )


def _refuse_use(target: Path, replaced: list[str]) -> None:
    users = dict([*processes_using(target), *idle_users(target)])
    if users:
        raise _in_use(target, [*users.items()], replaced)


def _target(settings: Settings, to: Path | None) -> Path:
    """The folder itself, whatever link leads to it."""
    target = Path(os.path.realpath(to.expanduser() if to else settings.root))
    if os.path.ismount(target):
        raise InputError(
            f"{target} is a mount point, which cannot be replaced; restore --to a folder below it, or from where it is "
            "none"
        )
    if to is None:
        inside = _mounts_in(target)
        if inside:
            raise InputError(
                f"{inside[0]} is a mount point in {target}, and would not change places with it; unmount it (an "
                "archive that lies there is read from where else it is mounted), or restore --to another folder"
            )
        return target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is there and not empty; name a folder that is new or empty")
    return target


def _mounts_in(folder: Path) -> list[Path]:
    """Mount points below a folder."""
    with Path("/proc/self/mountinfo").open("rb") as mounts:
        named = (line.split(b" ")[4] for line in mounts)
        points = [re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), name) for name in named]
    found = (Path(os.fsdecode(point)) for point in points)
    return sorted(point for point in found if point != folder and point.is_relative_to(folder))


def _layout(settings: Settings, tracking: TrackedStore) -> _Layout:
    """Where the settings want the parts; what is a file has to be below the data folder."""
    if not is_database(settings.mlflow_uri):
        raise InputError(
            f"{without_password(settings.mlflow_uri)} is a server; restore where its database can be reached, with "
            "FOREX_TRACKING_URI=sqlite:/// or postgresql://"
        )
    root = settings.root
    artifacts = settings.mlflow_artifacts
    remote = artifacts.startswith(S3)
    local = tracking.folder(artifacts)
    if local is None and not remote:
        raise InputError(
            f"files cannot be restored to {without_password(artifacts)} from here; restore --to a folder"
        )
    places = {
        "mlflow": sqlite_path(settings.mlflow_uri),
        "store": sqlite_path(settings.store_url),
        "artifacts": local,
    }
    for place in places.values():
        if place is not None and not place.is_relative_to(root):
            raise InputError(
                f"{place} lies outside the data folder {root}, so it cannot be replaced with it in one step; restore "
                "--to a new folder and move it from there"
            )
    return _Layout(
        **{name: place.relative_to(root) for name, place in places.items() if place is not None},
        tracking_uri=settings.mlflow_uri if is_postgres(settings.mlflow_uri) else None,
        store_url=settings.store_url if is_postgres(settings.store_url) else None,
        artifact_root=artifacts if remote else None,
    )


def _refuse_without_room(header: Header, target: Path) -> None:
    parent = next(folder for folder in target.parents if folder.exists())
    free, needed = shutil.disk_usage(parent).free, int(header.bytes * _ROOM)
    if needed > free:
        raise InputError(
            f"the archive holds {header.bytes / 1e6:.0f} MB and {parent} has {free / 1e6:.0f} MB free; make room, or "
            "restore --to another disk"
        )


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside the target, which goes unless it was put in its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}.restoring-{os.getpid()}-{time.time_ns()}")
    staged.mkdir(mode=0o700)
    lock = os.open(staged / MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield staged
    finally:
        # After an exchange this is the folder of before, which has no mark.
        if (staged / MARK).exists():
            shutil.rmtree(staged, ignore_errors=True)
        os.close(lock)


def _sweep(target: Path) -> None:
    """Remove what killed restores left beside the target: folders with the mark, whose process does not live."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.restoring-*"):
        with suppress(OSError):
            lock = os.open(left / MARK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def _finish(target: Path, names: frozenset[str]) -> None:
    """Do what a restore that was killed after its switch left undone."""
    try:
        mark = os.open(target / MARK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        told = [Path(name).name for name in (target / MARK).read_text(encoding="utf-8").splitlines()]
        starts = (f".{target.name}.restoring-", f"{target.name}.before-restore-")
        if len(told) == 2 and all(map(str.startswith, told, starts)):
            left, aside = map(target.with_name, told)
            if left.is_dir() or aside.is_dir():
                logger.warning("a restore was killed after its switch; what was there is kept: {}", aside)
                _put_aside(target, left, aside, names)
                return
        (target / MARK).unlink()
    except BlockingIOError:
        pass  # it lives
    finally:
        os.close(mark)


def _put_aside(target: Path, left: Path, aside: Path, names: frozenset[str]) -> None:
    """Give the folder of before its name; what goes on in the new one is not kept twice, but for archives."""
    if left.is_dir():
        left.rename(aside)
    for other in (*_others(aside, names), aside / BACKUPS):
        try:
            if not os.path.lexists(target / other.name):
                with suppress(FileNotFoundError):
                    other.rename(target / other.name)
            elif other.name != BACKUPS:
                _unlink_twins(other, target / other.name)
        except OSError as error:
            logger.warning("{} stays where it is: {}", other, error)
    (target / MARK).unlink()


def _others(folder: Path, names: frozenset[str]) -> list[Path]:
    """What no archive has, such as caches and Prefect's state; but for archives themselves."""
    return [path for path in folder.iterdir() if path.name not in names and path.name != BACKUPS]


def _link_anew(old: Path, new: Path) -> None:
    """Let a file, a link or all that is in a folder have a second name, in the place of what is there.

    Where the file system or the owner does not let it there is none: it is moved after the switch.
    """
    _remove(new)
    try:
        _link(old, new)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EMLINK, errno.EXDEV, errno.ENOTSUP):
            raise
        _remove(new)


def _link(old: Path, new: Path) -> None:
    status = old.lstat()
    if not stat.S_ISDIR(status.st_mode):
        os.link(old, new, follow_symlinks=False)
        return
    new.mkdir()
    for inner in old.iterdir():
        _link(inner, new / inner.name)
    if os.geteuid() == 0:
        os.chown(new, status.st_uid, status.st_gid)
    shutil.copystat(old, new)


def _unlink_twins(old: Path, new: Path) -> None:
    """Remove what is the very same file in `new`."""
    if old.is_dir() and not old.is_symlink():
        for inner in old.iterdir():
            _unlink_twins(inner, new / inner.name)
        if not any(old.iterdir()):
            old.rmdir()
        return
    with suppress(FileNotFoundError, NotADirectoryError):
        if os.path.samestat(old.lstat(), new.lstat()):
            old.unlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _link_archives(target: Path, staged: Path) -> None:
    """Archives that are kept inside the data folder stay there: as further names of the same files.

    None of them is ever written again, so both folders may have them.
    """
    backups = target / BACKUPS
    if os.path.lexists(backups):
        _link_anew(backups, staged / BACKUPS)


def _link_spooled(target: Path, staged: Path) -> None:
    """Runs in the spool and pending forecasts go on waiting, for the databases of before have not taken them either.

    Of one that the archive has as well the fuller is kept: it may have been in the middle then, or half replayed since.
    Their files are never written again, so both folders may have them.
    """
    for entry in (target / SPOOL).glob("[!.]*/"):
        here = staged / SPOOL / entry.name
        if _names(here) <= _names(entry):
            shutil.rmtree(here, ignore_errors=True)
            shutil.copytree(entry, here, copy_function=_link_or_copy, symlinks=True)
    for waiting in (target / PENDING).glob("*.json"):
        (staged / PENDING).mkdir(exist_ok=True)
        if not (staged / PENDING / waiting.name).exists():
            _link_or_copy(waiting, staged / PENDING / waiting.name)


def _link_or_copy(old: str | Path, new: str | Path) -> None:
    try:
        os.link(old, new)
    except OSError:  # of another user or disk
        shutil.copy2(old, new)


def _names(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def _as_the_owner(target: Path, staged: Path) -> None:
    """Mode and, when restored by root, owner of the folder that is replaced: a service has to write there."""
    status = target.stat()
    staged.chmod(stat.S_IMODE(status.st_mode))
    if os.geteuid() == 0 and (status.st_uid, status.st_gid) != (0, 0):
        for path in (staged, *staged.rglob("*")):
            os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)


def _exchange(one: Path, other: Path) -> None:
    """Let two folders change places in one step."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        done = libc.renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)
        if done == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(number, os.strerror(number), str(one), None, str(other))
    # A file system that cannot: two steps, and between them there is none of the two.
    between = other.with_name(f"{one.name}-other")
    other.rename(between)
    one.rename(other)
    between.rename(one)
