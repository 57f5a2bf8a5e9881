"""Files that go into an archive: those of a folder or of a bucket, listed in one order, each with its state."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from urllib.parse import urlparse

from forex_core.backup.manifest import CHUNK

RACY_NS = 2_000_000_000
"""A file that was changed so short a time before it was looked at may change again without its state telling."""
KEPT = "before_restore_"
"""How the name begins that what a restore replaces is kept by, in a database and in a bucket."""
_FETCHES = 5
"""Times that an object is fetched whose body breaks off."""
_PART_BYTES = 8 << 20
"""Up to which size a file is put as one, and of how many bytes the parts of others are; as boto3 does."""


@dataclass(frozen=True)
class Item:
    """A file of a source; the path of an empty folder ends with a slash.

    `state` is another whenever the content is another, if `settled`: else it may change again without telling.
    """

    path: str
    size: int
    mode: int
    mtime_ns: int
    state: str = ""
    settled: bool = False

    @property
    def is_folder(self) -> bool:
        return self.path.endswith("/")


class Source(Protocol):
    """Files in the order of the bytes of their paths."""

    def items(self) -> Iterator[Item]:
        """Every file, relative to the root."""
        ...

    def local(self, item: Item) -> AbstractContextManager[Local]:
        """The file itself or a copy of it.

        Raises, on entering:
            FileNotFoundError: it is gone.
        """
        ...


@dataclass(frozen=True)
class Local:
    """A file to be read; `read` tells, once it was, what the content is of: None when the file is gone."""

    path: Path
    read: Callable[[], Item | None]


LeftOut = Callable[[str, str], None]
"""Told of what cannot be archived: its path and why."""


class FolderSource:
    """The files below a folder. Links and other special files are left out, and told.

    Args:
        trusts: whether a file's state may be taken for its content.
        skips: names in the folder itself that are passed by.
    """

    def __init__(
        self,
        root: Path,
        left_out: LeftOut,
        *,
        trusts: bool = True,
        skips: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._root = root
        self._left_out = left_out
        self._trusts = trusts
        self._skips = skips

    def items(self) -> Iterator[Item]:
        if self._root.is_dir():
            yield from self._below(self._root, "")

    def _below(self, folder: Path, prefix: str) -> Iterator[Item]:
        try:
            with os.scandir(folder) as found:
                listed = list(found)
        except (FileNotFoundError, NotADirectoryError):
            return
        inner: list[tuple[bytes, os.DirEntry[str]]] = []
        for one in listed:
            if not prefix and self._skips(one.name):
                continue
            if not _is_text(one.name):
                self._left_out(repr(f"{prefix}{one.name}"), "its name is not UTF-8")
                continue
            folded = one.is_dir(follow_symlinks=False)
            inner.append((os.fsencode(f"{one.name}/" if folded else one.name), one))
        if not inner and prefix:
            with suppress(FileNotFoundError):
                found_at = folder.stat()
                yield Item(prefix, 0, stat.S_IMODE(found_at.st_mode) & 0o777, found_at.st_mtime_ns)
        for key, one in sorted(inner, key=lambda pair: pair[0]):
            path = f"{prefix}{one.name}"
            if key.endswith(b"/"):
                yield from self._below(folder / one.name, f"{path}/")
                continue
            try:
                status = one.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                yield self._item(path, status)
            else:
                self._left_out(path, "it is a link or no file")

    def _item(self, path: str, status: os.stat_result) -> Item:
        # Whatever changes a file sets its ctime, to a time that nobody can choose; the others tell a file that was
        # put in its place, and one on another disk.
        state = f"{status.st_ino}.{status.st_ctime_ns}.{status.st_mtime_ns}.{status.st_size}"
        settled = self._trusts and status.st_ctime_ns < time.time_ns() - RACY_NS
        mode = stat.S_IMODE(status.st_mode) & 0o777
        return Item(path, status.st_size, mode, status.st_mtime_ns, state, settled)

    @contextmanager
    def local(self, item: Item) -> Iterator[Local]:
        # It may be written while it is read: what it was read as shows afterwards.
        yield Local(self._root / item.path, lambda: self._current(item))

    def _current(self, item: Item) -> Item | None:
        try:
            status = (self._root / item.path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return self._item(item.path, status)


class BucketSource:
    """The objects below an s3:// address, fetched through a client of their store.

    One whose name is the folder of others, which no file system can hold, is the one that is kept; they are left out.

    What a restore kept is passed by, where the address is a whole bucket and that lies in it.

    Args:
        scratch: folder for copies, of which each thread has one at a time.
    """

    def __init__(self, address: str, client: Any, left_out: LeftOut, scratch: Path | None = None) -> None:
        parsed = urlparse(address)
        self._bucket = parsed.netloc
        self._prefix = f"{parsed.path.strip('/')}/" if parsed.path.strip("/") else ""
        self._client = client
        self._left_out = left_out
        self._scratch = scratch

    def items(self) -> Iterator[Item]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix
        )
        beginnings = list[
            str
        ]()  # of the present path, that are paths themselves: sorted by bytes, they came before it
        for page in pages:
            for found in page.get("Contents", ()):
                path = str(found["Key"]).removeprefix(self._prefix)
                if not path or path.endswith("/"):  # a mark that stands for a folder
                    continue
                if not self._prefix and path.startswith(KEPT):
                    continue
                while beginnings and not path.startswith(beginnings[-1]):
                    beginnings.pop()
                if any(path[len(one)] == "/" for one in beginnings):
                    self._left_out(path, "a part of its path is an object too")
                else:
                    beginnings.append(path)
                    yield self._item(path, found["Size"], found["ETag"], found["LastModified"])

    @staticmethod
    def _item(path: str, size: int, etag: str, modified: Any) -> Item:
        state = f"{etag}.{modified.isoformat()}.{size}"
        return Item(path, int(size), 0o644, int(modified.timestamp()) * 10**9, state, True)

    @contextmanager
    def local(self, item: Item) -> Iterator[Local]:
        with TemporaryDirectory(dir=self._scratch) as scratch:
            copy = Path(scratch) / "object"
            came = self._fetch(item, copy)
            yield Local(copy, lambda: came)

    def _fetch(self, item: Item, copy: Path) -> Item:
        """Copy an object by one request, which gives it whole and tells its state; what it was copied as."""
        from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

        for last in (False,) * (_FETCHES - 1) + (True,):
            try:
                found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + item.path)
                # As a context of its own a body gives what is below it, which does not check its length.
                with closing(found["Body"]) as body, copy.open("wb") as file:
                    shutil.copyfileobj(body, file, CHUNK)
                return self._item(item.path, found["ContentLength"], found["ETag"], found["LastModified"])
            except ClientError as error:
                if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                    raise FileNotFoundError(item.path) from error
                raise
            except (
                IncompleteReadError,
                HTTPClientError,
            ):  # the client tries requests again, no body that breaks off
                if last:
                    raise
        raise AssertionError("the last try returns or raises")

    def kept_in(self, name: str) -> str:
        """The address of a folder of this name beside this one, or in it where it is a whole bucket."""
        return f"s3://{self._bucket}/{self._aside(name)}"

    def put(self, path: str, file: Path, name: str) -> bool:
        """Put a file into the bucket, in the place of what is there under its name.

        If that is another, it is kept in the folder `name` beside, and True returned.
        """
        from boto3.s3.transfer import TransferConfig
        from botocore.exceptions import ClientError

        key = self._prefix + path
        config = TransferConfig(
            multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, use_threads=False
        )
        try:
            there = self._client.head_object(Bucket=self._bucket, Key=key)
            is_another = str(there["ETag"]).strip('"') != _etag(file)
            if is_another:
                source = {"Bucket": self._bucket, "Key": key}
                self._client.copy(source, self._bucket, self._aside(name) + path, Config=config)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchKey", "404"):
                raise
            is_another = False
        self._client.upload_file(str(file), self._bucket, key, Config=config)
        return is_another

    def _aside(self, name: str) -> str:
        above, _, own = self._prefix.rstrip("/").rpartition("/")
        return "/".join(part for part in (above, name, own) if part) + "/"


def _etag(file: Path) -> str:
    """What a bucket calls the content of a file that was put as `BucketSource` does; one that encrypts, otherwise."""
    size, parts = file.stat().st_size, []
    with file.open("rb") as content:
        for start in range(0, size or 1, _PART_BYTES):
            part = hashlib.md5(usedforsecurity=False)
            while (left := start + _PART_BYTES - content.tell()) and (
                piece := content.read(min(left, CHUNK))
            ):
                part.update(piece)
            parts.append(part)
    if size < _PART_BYTES:
        return parts[0].hexdigest()
    whole = b"".join(part.digest() for part in parts)
    return f"{hashlib.md5(whole, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
