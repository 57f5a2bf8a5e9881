"""Which process a run is of, and whether that one lives."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

PROCESS_TAG = "process"


@dataclass(frozen=True)
class Process:
    """A process, told apart from every other one before and after it.

    Attributes:
        host: the machine's name.
        machine: digest of the machine's own id, "" where it has none.
        boot: which start of the machine, "" where the kernel does not say.
        namespace: in which the number counts, as of a container.
        pid: its number.
        started: clock ticks from the machine's start to its own.
    """

    host: str
    machine: str
    boot: str
    namespace: str
    pid: int
    started: int

    @property
    def is_alive(self) -> bool | None:
        """Whether it lives, None where that cannot be told from here."""
        here = this_process()
        if self.boot and (self.boot, self.namespace) == (here.boot, here.namespace):
            return _lives(self.pid, self.started)
        if self.machine and (self.host, self.machine) == (here.host, here.machine) and self.boot != here.boot:
            return False  # the machine has been started again since
        return None


def process_tag() -> dict[str, str]:
    """The tag by which a run tells that it is of this process."""
    return {PROCESS_TAG: json.dumps(asdict(this_process()))}


def this_process() -> Process:
    return _this(os.getpid())


@lru_cache(maxsize=1)
def _this(pid: int) -> Process:
    machine = _read("/etc/machine-id")  # not to be told as it is: machine-id(5)
    return Process(
        host=socket.gethostname(),
        machine=hashlib.sha256(f"forex-forecast {machine}".encode()).hexdigest()[:16] if machine else "",
        boot=_read("/proc/sys/kernel/random/boot_id"),
        namespace=_namespace(),
        pid=pid,
        started=int(fields[19]) if (fields := _stat(pid)) else 0,
    )


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _lives(pid: int, started: int) -> bool | None:
    """Whether a process of this machine and container lives, None where the kernel hides what has its number now.

    A process in a sandbox may be shown none but its own in /proc; whether there is one of a number it can ask all the
    same.
    """
    fields = _stat(pid)
    if fields:
        # Z, X: ended, and its parent has not asked how
        return fields[0] not in "ZX" and int(fields[19]) == started
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return None
    return None


def _stat(pid: int) -> list[str]:
    """What the kernel tells of a process behind its name, which may hold anything; nothing where it tells nothing."""
    return _read(f"/proc/{pid}/stat").rpartition(") ")[2].split()


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except OSError:
        return ""


def told_process(text: str | None) -> Process | None:
    """The process that a run's tag tells of, None without one of ours."""
    try:
        process = Process(**json.loads(text or ""))
    except (ValueError, TypeError):
        return None
    return process if type(process.pid) is int and process.pid > 0 else None
