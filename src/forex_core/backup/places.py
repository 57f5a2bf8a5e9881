"""Where archives are kept: a folder or an S3-compatible bucket.

    PLACE/forex-20261128T123000.000000Z.jsonl.zst     a manifest for each archive
    PLACE/objects/ab/abcdef…                          the content of files, each once, by its sha256, as sealed zstd

An object is written before the manifest that names it, and removed after it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlparse

import pyarrow as pa

from forex_core.backup.manifest import CHUNK, Decompressed, to_be_sealed
from forex_core.errors import ArchiveRefused, BackupError, ConfigError
from forex_core.secrecy import passwords_in, without_password

if TYPE_CHECKING:
    from pydantic import SecretStr

SUFFIX = ".jsonl.zst"
PREFIX = "forex-"
S3 = "s3://"
LOCK_LIMIT_S = 600.0
"""How long one that writes or prunes waits for others."""
GRACE = timedelta(days=1)
"""How long an object that no manifest names is kept in a bucket, which cannot be locked."""
_FRAME = 1 << 20
"""How much of a file is compressed at once."""
_DISCARDED = 100
"""How many objects of a bucket are looked at before they are removed together."""
_LOCK = ".lock"
_SCRATCH = ".scratch-"
_OBJECT = r"[0-9a-f]{64}"


@dataclass(frozen=True)
class S3Access:
    """Endpoint and keys of an S3-compatible store; what is None is left to boto3's own ways.

    Attributes:
        patient: whether a store that does not answer is waited for, and asked again.
    """

    endpoint_url: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    patient: bool = True

    def client(self) -> Any:
        """A client that may be shared by threads.

        Raises:
            ConfigError: boto3 is not installed.
        """
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise ConfigError(
                "an s3:// address needs boto3, which is not installed; install it with "
                "'pip install \"forex-forecast[s3]\"'"
            ) from error
        secret = self.secret_access_key
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url or os.environ.get("MLFLOW_S3_ENDPOINT_URL"),
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=Config(
                connect_timeout=5,
                read_timeout=60 if self.patient else 5,
                retries={"max_attempts": 4 if self.patient else 0},
                max_pool_connections=32,
            ),
        )


@dataclass(frozen=True)
class Stored:
    """What was kept of a file: its digest and size, the bytes written for it, and whether there was no such object."""

    sha256: str
    size: int
    written: int
    is_new: bool


class Place(ABC):
    """A place of archives; `workers` is how many threads serve it best."""

    workers: int
    address: str
    _scratch: Path | None = None
    """The folder of `scratch`, while it is there."""

    # --- Content

    def write(self, file: Path) -> Stored:
        """Keep the content of a file as it is now, in the place of an object of the same name."""
        digest, size = hashlib.sha256(), 0
        codec = pa.Codec("zstd")
        with _temporary(self._scratch) as unfinished, file.open("rb") as content:
            with to_be_sealed(unfinished) as out:
                while (chunk := content.read(_FRAME)) or not size:
                    digest.update(chunk)
                    size += len(chunk)
                    out.write(codec.compress(chunk, asbytes=True))
                    if not chunk:
                        break
            written = unfinished.stat().st_size
            is_new = self._put(unfinished, digest.hexdigest())
        return Stored(digest.hexdigest(), size, written, is_new)

    def content(self, digest: str, size: int) -> Iterator[bytes]:
        """The content of an object in pieces; believe none of it before the last.

        Raises:
            ArchiveRefused: it is not there, or not what its name and the manifest say.
        """
        found, left = hashlib.sha256(), size
        with closing(
            Decompressed(f"object {digest} of {self.address}", lambda: self._open(digest))
        ) as stream:
            while chunk := stream.read(min(CHUNK, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise ArchiveRefused(
                        f"object {digest} of {self.address} is longer than the {size} bytes that its archive announces"
                    )
                found.update(chunk)
                yield chunk
        if left or found.hexdigest() != digest:
            raise ArchiveRefused(f"object {digest} of {self.address} is damaged: its content is another")

    # --- What a kind of place has to do

    @abstractmethod
    def locked(self, *, shared: bool, timeout_s: float = LOCK_LIMIT_S) -> AbstractContextManager[None]:
        """Keep those that write and prune away from each other and from readers; a context.

        Raises:
            BackupError: another holds the place for longer than `timeout_s`.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """Names of the archives, the oldest first."""

    @abstractmethod
    def open_manifest(self, name: str) -> IO[bytes]:
        """The compressed manifest from its beginning."""

    @abstractmethod
    def publish(self, manifest: Path, name: str) -> None:
        """Make an archive of a manifest whose objects are all there: the one step that makes it be."""

    @abstractmethod
    def retract(self, name: str) -> None:
        """Remove a manifest."""

    @abstractmethod
    def objects(self) -> Iterator[tuple[str, int, bool]]:
        """Name and stored size of each object, and whether it may go when no manifest names it."""

    @abstractmethod
    def discard(self, digests: list[str]) -> list[str]:
        """Remove objects: those that are gone now. One that was stored again since it was listed stays in a bucket."""

    def lies_in(self, folder: Path) -> bool:
        """Whether what is put here is put into a folder."""
        return False

    @abstractmethod
    def scratch(self) -> AbstractContextManager[Path]:
        """A folder for what is made on the way; a context."""

    @abstractmethod
    def sweep(self) -> None:
        """Remove what killed processes left unfinished; the lock is held."""

    @abstractmethod
    def settle(self) -> None:
        """Return when all that was stored would outlive a loss of power."""

    @abstractmethod
    def address_of(self, name: str) -> str:
        """The address of an archive."""

    @abstractmethod
    def _open(self, digest: str) -> IO[bytes]: ...

    @abstractmethod
    def _put(self, unfinished: Path, digest: str) -> bool: ...


class Folder(Place):
    """A place in a file system."""

    workers = 2

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address = str(path)
        self._objects = path / "objects"

    @contextmanager
    def locked(self, *, shared: bool, timeout_s: float = LOCK_LIMIT_S) -> Iterator[None]:
        if not shared:
            self.path.mkdir(parents=True, exist_ok=True)
        try:
            lock = _lock_file(self.path / _LOCK)
        except OSError:
            if not shared:
                raise
            yield  # a place that cannot be written is not pruned either
            return
        try:
            until = time.monotonic() + timeout_s
            while True:
                try:
                    fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise BackupError(
                            f"another backup, restore or prune is using {self.address} (waited {timeout_s:g} s); wait "
                            "for it to end and try again"
                        ) from None
                    time.sleep(0.05)
            yield
        finally:
            os.close(lock)

    def names(self) -> list[str]:
        if not self.path.exists():
            return []
        found = (path.name for path in self.path.iterdir())
        return sorted(
            name.removesuffix(SUFFIX) for name in found if name.startswith(PREFIX) and name.endswith(SUFFIX)
        )

    def open_manifest(self, name: str) -> IO[bytes]:
        return _regular(self.path / f"{name}{SUFFIX}")

    def publish(self, manifest: Path, name: str) -> None:
        _flush(manifest)
        manifest.rename(self.path / f"{name}{SUFFIX}")
        _flush(self.path)

    def retract(self, name: str) -> None:
        (self.path / f"{name}{SUFFIX}").unlink()
        _flush(self.path)

    def objects(self) -> Iterator[tuple[str, int, bool]]:
        if not self._objects.is_dir():
            return
        for folder in sorted(path for path in self._objects.iterdir() if path.is_dir()):
            with os.scandir(folder) as found:
                for one in found:
                    if re.fullmatch(_OBJECT, one.name):
                        yield one.name, one.stat(follow_symlinks=False).st_size, True

    def discard(self, digests: list[str]) -> list[str]:
        for digest in digests:
            path = self._at(digest)
            path.unlink(missing_ok=True)
            with suppress(OSError):  # it holds others
                path.parent.rmdir()
        return digests

    def lies_in(self, folder: Path) -> bool:
        return Path(os.path.realpath(self.path)).is_relative_to(os.path.realpath(folder))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        self.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self.path) as folder:
            self._scratch = Path(folder)
            try:
                yield self._scratch
            finally:
                self._scratch = None

    def sweep(self) -> None:
        for left in self.path.glob(f"{_SCRATCH}*"):
            shutil.rmtree(left, ignore_errors=True)

    def settle(self) -> None:
        # One call for the thousands of objects of a first archive, each of which would take milliseconds.
        os.sync()

    def address_of(self, name: str) -> str:
        return str(self.path / f"{name}{SUFFIX}")

    def _at(self, digest: str) -> Path:
        return self._objects / digest[:2] / digest

    def _open(self, digest: str) -> IO[bytes]:
        return _regular(self._at(digest))

    def _put(self, unfinished: Path, digest: str) -> bool:
        target = self._at(digest)
        is_new = not target.exists()
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished.rename(target)
        return is_new


class Bucket(Place):
    """A place below a prefix of an S3-compatible bucket.

    A bucket knows no lock between machines: an object that no manifest names stays for `GRACE`. On one machine a lock
    in `home` keeps writers and pruners apart.
    """

    workers = 16

    def __init__(self, address: str, access: S3Access, home: Path) -> None:
        self.address = address.rstrip("/")
        parsed = urlparse(self.address)
        self._bucket = parsed.netloc
        self._prefix = f"{parsed.path.strip('/')}/" if parsed.path.strip("/") else ""
        self._client = access.client()
        mark = hashlib.sha256(self.address.encode()).hexdigest()[:16]
        self._local = Folder(home / f".s3-{mark}")

    @contextmanager
    def locked(self, *, shared: bool, timeout_s: float = LOCK_LIMIT_S) -> Iterator[None]:
        with self._local.locked(shared=shared, timeout_s=timeout_s):
            yield

    def names(self) -> list[str]:
        start = f"{self._prefix}{PREFIX}"
        keys = (str(found["Key"]) for found in self._listed(start))
        found = (key.removeprefix(self._prefix) for key in keys)
        return sorted(
            name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX) and "/" not in name
        )

    def open_manifest(self, name: str) -> IO[bytes]:
        return self._get(f"{self._prefix}{name}{SUFFIX}")

    def publish(self, manifest: Path, name: str) -> None:
        self._client.upload_file(str(manifest), self._bucket, f"{self._prefix}{name}{SUFFIX}")

    def retract(self, name: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=f"{self._prefix}{name}{SUFFIX}")

    def objects(self) -> Iterator[tuple[str, int, bool]]:
        for found in self._listed(f"{self._prefix}objects/"):
            name = str(found["Key"]).rpartition("/")[2]
            if re.fullmatch(_OBJECT, name):
                yield name, int(found["Size"]), self._may_go(found)

    def discard(self, digests: list[str]) -> list[str]:
        gone = list[str]()
        with ThreadPoolExecutor(self.workers) as pool:
            for start in range(0, len(digests), _DISCARDED):
                listed = digests[start : start + _DISCARDED]
                # Whoever made an archive meanwhile, on another machine, may have stored what is in it once more.
                old = list(pool.map(lambda digest: self._may_go(self._head(digest)), listed))
                going = [digest for digest, may_go in zip(listed, old, strict=True) if may_go]
                if going:
                    keys = [{"Key": self._key(digest)} for digest in going]
                    self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True})
                gone += going
        return gone

    @staticmethod
    def _may_go(found: Any) -> bool:
        return found is not None and bool(found["LastModified"] < datetime.now(UTC) - GRACE)

    def _head(self, digest: str) -> Any:
        from botocore.exceptions import ClientError

        try:
            return self._client.head_object(Bucket=self._bucket, Key=self._key(digest))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with self._local.scratch() as folder:
            self._scratch = folder
            yield folder

    def sweep(self) -> None:
        self._local.sweep()

    def settle(self) -> None:
        pass

    def address_of(self, name: str) -> str:
        return f"{self.address}/{name}{SUFFIX}"

    def _listed(self, prefix: str) -> Iterator[Any]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        for page in pages:
            yield from page.get("Contents", ())

    def _key(self, digest: str) -> str:
        return f"{self._prefix}objects/{digest[:2]}/{digest}"

    def _get(self, key: str) -> IO[bytes]:
        from botocore.exceptions import ClientError

        try:
            body: IO[bytes] = self._client.get_object(Bucket=self._bucket, Key=key)["Body"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                raise FileNotFoundError(key) from error
            raise
        return body

    def _open(self, digest: str) -> IO[bytes]:
        return self._get(self._key(digest))

    def _put(self, unfinished: Path, digest: str) -> bool:
        from boto3.s3.transfer import TransferConfig

        one_thread = TransferConfig(use_threads=False)  # there are enough of them
        self._client.upload_file(str(unfinished), self._bucket, self._key(digest), Config=one_thread)
        return False  # another machine may have named it by now


def place_at(address: str, access: S3Access, home: Path) -> Place:
    """The place of an address; `home` is where a lock is kept for one that has none.

    Raises:
        ConfigError: the address is of neither kind, or holds a password, which lists and logs would show.
    """
    if passwords_in(address):
        raise ConfigError(
            f"'{without_password(address)}' holds a password, and a place's address is shown; give the keys as "
            "FOREX_BACKUP__S3_ACCESS_KEY_ID and FOREX_BACKUP__S3_SECRET_ACCESS_KEY"
        )
    if address.startswith(S3):
        if not urlparse(address).netloc:
            raise ConfigError(f"'{address}' names no bucket; expected one such as s3://bucket/backups")
        return Bucket(address, access, home)
    if "://" in address:
        raise ConfigError(
            f"'{without_password(address)}' is no place for archives; expected a folder or s3://bucket/backups"
        )
    return Folder(Path(address).expanduser().absolute())


def split_address(address: str) -> tuple[str, str]:
    """Place and name of an archive's address.

    Raises:
        ConfigError: it is not the address of an archive.
    """
    place, _, file = address.rpartition("/")
    if not file.endswith(SUFFIX) or not file.startswith(PREFIX):
        raise ConfigError(
            f"'{without_password(address)}' is not the address of an archive; expected one as 'forex "
            f"backup list' shows it, such as …/{PREFIX}20261128T123000.000000Z{SUFFIX}"
        )
    return place or ("/" if address.startswith("/") else "."), file.removesuffix(SUFFIX)


def archive_name(created: datetime) -> str:
    """
    >>> archive_name(datetime(2026, 11, 28, 12, 30, tzinfo=UTC))
    'forex-20261128T123000.000000Z'
    """
    return f"{PREFIX}{created:%Y%m%dT%H%M%S.%f}Z"


def _lock_file(path: Path) -> int:
    """Open for writing where that may be: a client of NFS locks no other file exclusively (flock(2))."""
    how = os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | how, 0o666)
    except OSError:  # somebody else's, or on a disk that is mounted read-only
        return os.open(path, os.O_RDONLY | how, 0o666)


@contextmanager
def _temporary(folder: Path | None) -> Iterator[Path]:
    assert folder is not None, "objects are stored inside `scratch`"
    descriptor, name = tempfile.mkstemp(dir=folder)
    os.close(descriptor)
    path = Path(name)
    try:
        yield path
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


def _regular(path: Path) -> IO[bytes]:
    """Open a file of a place, which may be somebody else's: no link, and nothing that would keep us waiting."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a file")
    return os.fdopen(descriptor, "rb")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
