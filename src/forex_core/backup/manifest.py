"""The manifest of an archive: what it holds, file by file, as lines of JSON compressed with zstd.

    {header}           project, format, when, of which folder, versions, counts, sizes
    {entry} …          a file each, in the order of `order_of`
    {"sha256": …}      of every byte before this line

Compressed it begins, as every object does, with a seal: a frame that readers of zstd pass by, of the digest of every
byte after it. So a flipped bit is noticed also where it leaves the content as it was.

A manifest comes from outside: nothing of it is believed before `checked` has read it to its end.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from errno import EBADMSG, EIO, EISDIR, ELOOP, ENOTDIR, ENXIO, EUCLEAN
from pathlib import Path
from typing import IO, Annotated, Any, Literal, TypeVar

import pyarrow as pa
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from forex_core.errors import ArchiveRefused

PROJECT = "forex-forecast"
FORMAT = 1
SPOOL, PENDING, SETTINGS, REPORTS = "spool", "pending", "settings.json", "reports"
PARTS = (SPOOL, PENDING, SETTINGS, "databases", "artifacts", REPORTS)
"""The beginnings of all paths, in the order in which their files are taken.

Spooled records and pending forecasts before the databases that take them, so that what is written meanwhile is in both;
the database before the files that it refers to.
"""
MLFLOW, STORE = "databases/mlflow.db", "databases/store.db"
AHEAD = timedelta(minutes=10)
"""By how much the clocks of machines that share a place may differ."""
_LINE_LIMIT = 1 << 20
CHUNK = 1 << 17
"""What is read at once. A thread goes on holding what it once needed, so of many threads each is to need little."""
_SEAL, _UNSEALED = b"\x50\x2a\x4d\x18" + (32).to_bytes(4, "little"), b"\x28\xb5\x2f\xfd"
"""How a seal begins, and what was written before there were any: frames of zstd, the first to be skipped."""
_SEAL_BYTES = len(_SEAL) + 32
_NAME = r"(?!\.{1,2}(?:/|\Z))[^/\0]{1,255}"
_INSIDE = re.compile(rf"{_NAME}(?:/{_NAME})*/?\Z")
_NUMBERED = re.compile(r"artifacts/[0-9]{2}/")
_FAULTS_OF_A_FILE = (EIO, EBADMSG, EUCLEAN, ELOOP, ENXIO, EISDIR, ENOTDIR)
"""What the system says of a damaged place on a disk and of what is no file; not of rights, nor of one that is slow."""
T = TypeVar("T", bound=BaseModel)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Opener = Callable[[], IO[bytes]]
"""Opens the compressed manifest from its beginning."""


class Entry(BaseModel):
    """A file of an archive, or an empty folder, whose path ends with a slash and which has no content.

    `state` tells whether the file that it was made of has changed since: opaque, None where that cannot be told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    path: str = Field(max_length=4096)
    sha256: Sha256 | None
    size: int = Field(ge=0, lt=1 << 62)
    mode: int = Field(ge=0, le=0o777)
    mtime_ns: int = Field(gt=-(1 << 63), lt=1 << 63)
    state: str | None = Field(None, max_length=1000)

    @model_validator(mode="after")
    def _is_a_place_inside(self) -> Entry:
        folder = self.path.endswith("/")
        if not _INSIDE.match(self.path) or self.path.partition("/")[0] not in PARTS:
            raise ValueError("the path leads out of the archive")
        if self.path.startswith("artifacts") and not _NUMBERED.match(self.path):
            raise ValueError("artifacts are below a number")
        if folder != (self.sha256 is None) or (folder and self.size):
            raise ValueError("a file has content, and an empty folder none")
        return self


class Header(BaseModel):
    """What an archive says of itself before its files.

    Attributes:
        data_dir: the folder that it was made of.
        schemas: version of the tables of each database that is in it.
        databases: what each of them was: sqlite or postgresql.
        roots: where artifacts were; those of the first are below artifacts/0, and so on.
        counts: runs, experiments, models …, as the databases had them.
        files, bytes: number of entries, and their size before compression.
        missing: what the database refers to and was not there any more when the archive was made, sorted.
        missing_more: how many more there were, after those in their order.
        secrets: settings that were set and are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: str
    format: int
    created: AwareDatetime
    data_dir: str
    host: str
    program: str
    python: str
    libraries: dict[str, str]
    schemas: dict[str, str]
    databases: dict[str, Literal["sqlite", "postgresql"]]
    roots: tuple[str, ...]
    counts: dict[str, int]
    files: int = Field(ge=0)
    bytes: int = Field(ge=0)
    missing: tuple[str, ...]
    missing_more: int = Field(0, ge=0)
    secrets: tuple[str, ...]

    def is_to_come(self, now: datetime) -> bool:
        """Whether the clock that it was made by was ahead of this one, or this one has gone back since."""
        return self.created > now + AHEAD

    @property
    def told(self) -> dict[str, Any]:
        """As plain values, for a listing."""
        return self.model_dump(mode="json", exclude={"project"})


def order_of(path: str) -> tuple[int, bytes]:
    """The place of a path in a manifest: parts in their order, then bytes, as S3 lists its keys."""
    return PARTS.index(path.partition("/")[0]), os.fsencode(path)


class ManifestWriter:
    """Entries, collected in a file beside `path` until the header is known.

    Use as a context; `finish` makes the manifest.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._body = path.with_name(f"{path.name}.body")
        self._file = self._body.open("wb")
        self.files = 0
        self.bytes = 0

    def __enter__(self) -> ManifestWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._body.unlink(missing_ok=True)

    def add(self, entry: Entry) -> None:
        self._file.write(entry.model_dump_json().encode() + b"\n")
        self.files += 1
        self.bytes += entry.size

    def finish(self, header: Header) -> Path:
        """Write header, entries and the digest of both."""
        self._file.close()
        digest = hashlib.sha256()
        with (
            to_be_sealed(self._path) as raw,
            pa.CompressedOutputStream(raw, "zstd") as out,
            self._body.open("rb") as body,
        ):
            text = header.model_dump_json().encode() + b"\n"
            while text:
                digest.update(text)
                out.write(text)
                text = body.read(CHUNK)
            out.write(json.dumps({"sha256": digest.hexdigest()}).encode() + b"\n")
        return self._path


def checked(name: str, opener: Opener, seen: Callable[[Entry], None] = lambda entry: None) -> Header:
    """Read a manifest to its end and return its header.

    Args:
        seen: told of each entry on the way; to be believed once this returns.

    Raises:
        ArchiveRefused: it is damaged, incomplete, dangerous, of another program or of a newer format.
    """
    with closing(_lines(name, opener)) as lines:
        line = next(lines, b"")
        header = _header(name, line)
        digest = hashlib.sha256(line + b"\n")
        files = total = 0
        last: tuple[int, bytes] | None = None
        for line in lines:
            if line.startswith(b'{"sha256":'):
                break
            digest.update(line + b"\n")
            entry = _parsed(name, Entry, line)
            place = order_of(entry.path)
            if last is not None and place <= last:
                raise ArchiveRefused(f"archive {name} names {entry.path!r} out of order, or twice")
            last, files, total = place, files + 1, total + entry.size
            seen(entry)
            if files > header.files or total > header.bytes:
                raise ArchiveRefused(
                    f"archive {name} names more than the {header.files} files of {header.bytes} bytes that it announces"
                )
        else:
            raise ArchiveRefused(f"archive {name} has no end: it is cut off")
        if line != json.dumps({"sha256": digest.hexdigest()}).encode() or next(lines, None) is not None:
            raise ArchiveRefused(f"archive {name} is damaged: its manifest is not what was written")
        if (files, total) != (header.files, header.bytes):
            raise ArchiveRefused(f"archive {name} lacks files that it announces")
    return header


def header_of(name: str, opener: Opener) -> Header:
    """The header alone, for a listing.

    Raises:
        ArchiveRefused: as `checked`, as far as it can be seen there.
    """
    with closing(_lines(name, opener)) as lines:
        return _header(name, next(lines, b""))


def entries(name: str, opener: Opener) -> Iterator[Entry]:
    """The entries of a manifest that has been `checked`."""
    with closing(_lines(name, opener)) as lines:
        next(lines)
        for line in lines:
            if line.startswith(b'{"sha256":'):
                return
            yield _parsed(name, Entry, line)


def _header(name: str, line: bytes) -> Header:
    """Whose it is and of which format comes first: what else a newer one says is not for us to judge."""
    try:
        document: Any = json.loads(line)
    except ValueError as error:
        raise ArchiveRefused(f"{name} is no archive, or its beginning is damaged: {error}") from error
    project = document.get("project") if isinstance(document, dict) else None
    if project != PROJECT:
        raise ArchiveRefused(f"{name} is an archive of {str(project)[:100]!r}, expected one of {PROJECT!r}")
    found = document.get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise ArchiveRefused(
            f"archive {name} was made by a newer version of this program (its format is {found!r}, this one knows "
            f"{FORMAT}); install the newer one"
        )
    return _parsed(name, Header, line)


def _parsed(name: str, kind: type[T], line: bytes) -> T:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "a line"
        raise ArchiveRefused(
            f"archive {name} has a manifest that is not to be trusted: {where}: {first['msg']} "
            f"(found {str(first['input'])[:200]!r})"
        ) from error


def _lines(name: str, opener: Opener) -> Generator[bytes]:
    """Lines without their ends, each of limited length, whatever they are compressed to."""
    rest = b""
    with closing(Decompressed(f"archive {name}", opener)) as stream:
        while chunk := stream.read(CHUNK):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
            if len(rest) > _LINE_LIMIT:
                raise ArchiveRefused(f"archive {name} has a line past {_LINE_LIMIT} bytes")
    if rest:
        raise ArchiveRefused(f"archive {name} is cut off in the middle of a line")


@contextmanager
def to_be_sealed(path: Path) -> Iterator[IO[bytes]]:
    """A new file for what is compressed; it gets its seal in the end."""
    with path.open("wb") as file:
        file.write(bytes(_SEAL_BYTES))
        yield file
    with path.open("r+b") as file:
        file.seek(_SEAL_BYTES)
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0)
        file.write(_SEAL + digest)


class _Sealed:
    """The bytes after a seal, to be compared with it at their end; what has none is given as it is."""

    def __init__(self, what: str, raw: IO[bytes]) -> None:
        self._what = what
        self._raw = raw
        self._left = raw.read(_SEAL_BYTES)
        self._found: hashlib._Hash | None = None
        if not self._left.startswith(_UNSEALED):
            if not self._left.startswith(_SEAL):
                raw.close()
                raise ArchiveRefused(f"{what} is damaged: its beginning cannot be read")
            self._seal, self._left, self._found = self._left[len(_SEAL) :], b"", hashlib.sha256()

    @property
    def closed(self) -> bool:
        return self._raw.closed

    def read(self, size: int) -> bytes:
        given, self._left = self._left[:size] or self._raw.read(size), self._left[size:]
        if self._found is not None:
            self._found.update(given)
        return given

    def check(self) -> None:
        """
        Raises:
            ArchiveRefused: the bytes are not those that were sealed.
        """
        while self._found is not None and self.read(CHUNK):
            pass
        if self._found is not None and self._found.digest() != self._seal:
            raise ArchiveRefused(f"{self._what} is damaged: its bytes are not those that were written")

    def close(self) -> None:
        self._raw.close()


class Decompressed:
    """What is compressed in a file of an archive, as a stream; `what` names it in errors.

    Raises:
        ArchiveRefused: it is not there, is cut off or is damaged so that it cannot be read.
        OSError and others: as they come, where its place is at fault, such as a bucket that does not answer.
    """

    def __init__(self, what: str, opener: Opener) -> None:
        self._what = what
        with self._translated():
            self._raw = _Sealed(what, opener())
            self._stream = pa.CompressedInputStream(self._raw, "zstd")

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end."""
        with self._translated():
            found = bytes(self._stream.read(size))
            if not found:
                self._raw.check()
        return found

    def close(self) -> None:
        self._stream.close()
        self._raw.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise ArchiveRefused(f"{self._what} is not there") from None
        except pa.ArrowException as error:
            raise self._refusal(error) from error
        except OSError as error:
            # Arrow's has no number. A bucket's, of which some are of the system's kind, are subclasses without one.
            if error.errno not in _FAULTS_OF_A_FILE and (
                error.errno is not None or type(error) is not OSError
            ):
                raise
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> ArchiveRefused:
        return ArchiveRefused(f"{self._what} cannot be read: {' '.join(str(error).split())}")
