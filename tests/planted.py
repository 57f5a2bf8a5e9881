"""Secrets that tests plant, and the search for them in whatever a system writes."""

from __future__ import annotations

import base64
import gzip
import io
import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pyarrow
import pyarrow.parquet

USERS = ("", "forex:", "me:")
"""Before the password, where both are encoded together."""


class Secrets:
    """Made once each, by name; `found_in` says which of them a text holds, in any of the ways to write it."""

    def __init__(self) -> None:
        self._made: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        return self._made.setdefault(name, f"pl@nted/{name}-{os.urandom(6).hex()}")

    def add(self, name: str, secret: str) -> str:
        """One that somebody else has made."""
        return self._made.setdefault(name, secret)

    def url(self, name: str) -> str:
        return quote(self(name), safe="")

    def found_in(self, content: bytes) -> set[str]:
        ways = {
            name: {
                secret,
                quote(secret),
                quote(secret, safe=""),
                secret.partition("/")[2],
                *(base64.b64encode(f"{user}{secret}".encode()).decode().rstrip("=") for user in USERS),
            }
            - {""}
            for name, secret in self._made.items()
        }
        return {name for name, forms in ways.items() if any(form.encode() in content for form in forms)}


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder, and what is packed in it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            yield str(path), content
            if path.suffix == ".parquet":
                table = pyarrow.parquet.read_table(path)
                yield (
                    f"{path} (unpacked)",
                    str(table.schema.metadata).encode() + table.to_pandas().to_csv().encode(),
                )
            for unpack in (gzip.decompress, zlib.decompress, zstd):
                try:
                    yield f"{path} (unpacked)", unpack(content)
                except (OSError, EOFError, zlib.error):
                    continue
            if content.startswith(b"SQLite format 3"):
                with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
                    yield f"{path} (rows)", "\n".join(connection.iterdump()).encode()


def zstd(content: bytes) -> bytes:
    """
    Raises:
        OSError: it is not compressed so.
    """
    unpacked: bytes = pyarrow.input_stream(io.BytesIO(content), compression="zstd").read()
    return unpacked


def told_in(secret: Secrets, places: Iterator[tuple[str, bytes]]) -> dict[str, set[str]]:
    return {place: found for place, content in places if (found := secret.found_in(content))}
