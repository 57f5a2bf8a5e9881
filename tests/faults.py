"""Faults that tests cause to a database that is a file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

HOLDER = """
import sqlite3, sys, time
holder = sqlite3.connect(sys.argv[1], timeout=60)
if sys.argv[3] == "all":
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
holder.execute("BEGIN EXCLUSIVE")
holder.execute("CREATE TABLE held (by_whom)")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def held(database: Path, seconds: float, whom: str = "all") -> subprocess.Popen[bytes]:
    """A process that keeps everybody away from a database, or with `whom` "writers" who would write alone."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(database), str(seconds), whom], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    return holder


def damage(database: Path) -> None:
    """Write into the middle of a database."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = database.stat().st_size
    first, last = size // 4, size // 2
    with database.open("r+b") as file:
        file.seek(first)
        file.write(bytes(at % 251 for at in range(first, last)))
