"""Processes that are forks of one that has imported what they need, which takes longer than what most of them do."""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[1]
LIMIT_S = 280


class Fork:
    """One of them, like a `subprocess.Popen` as far as tests need it; `ended` is to be asked for in the end."""

    def __init__(self, arguments: Sequence[str], status: int, stdout: TextIO, stderr: TextIO) -> None:
        self._arguments, self._status, self.stdout, self._stderr = (
            arguments,
            os.fdopen(status),
            stdout,
            stderr,
        )
        said = self._status.readline()
        assert said, "the process of which it would be a fork has ended"
        self.pid = int(said)

    def runs(self) -> bool:
        return not select.select([self._status], [], [], 0)[0]

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def ended(self) -> subprocess.CompletedProcess[str]:
        """How it ends, by itself or as it was killed, with what is left of what it printed."""
        late = threading.Timer(LIMIT_S, self.kill)
        late.start()
        try:
            with self._status, self.stdout, self._stderr:
                printed, code = self.stdout.read(), int(self._status.readline())
                self._stderr.seek(0)
                return subprocess.CompletedProcess(self._arguments, code, printed, self._stderr.read())
        finally:
            late.cancel()


class Forks:
    """Runs a function in forks of one process, each with a command line, an environment and a folder of its own.

    Args:
        target: "module:function"; it finds the command line in `sys.argv`.
        imports: modules that are imported as well, once for all.
    """

    def __init__(self, target: str, imports: Sequence[str] = ()) -> None:
        self._target = target
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
            kept = {
                n: v for n, v in os.environ.items() if not n.startswith(("FOREX_", "PREFECT_", "MLFLOW_"))
            }
            self._parent = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno()), target, *imports],
                env=kept | {"PYTHONPATH": path},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def start(
        self, *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> Fork:
        asked: dict[str, Any] = {
            "argv": [self._target, *map(str, arguments)],
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
        }
        status, telling = os.pipe()
        reading, printing = os.pipe()
        errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by `ended`
        socket.send_fds(self._ours, [json.dumps(asked).encode()], [telling, printing, errors.fileno()])
        os.close(telling)
        os.close(printing)
        return Fork(asked["argv"][1:], status, os.fdopen(reading), errors)

    def close(self) -> None:
        """Nothing is left of them, or of the process of which they are forks."""
        self._ours.close()
        self._parent.wait(LIMIT_S)


PARTS = (
    *("backup", "dashboard.server", "data.importing", "data.refresh", "data.status", "doctor", "engine"),
    *("briefing.document", "ledger", "monitoring", "notify", "panel", "report.charts", "report.page"),
    *("tracking.build", "tracking.candidacy", "tracking.rollback"),
)
"""What commands import of ours."""
LIBRARIES = ("apprise", "alembic.migration", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store")
"""And of others; not Prefect, which reads its settings as it is imported."""


def of_the_command() -> Forks:
    """Runs `forex`."""
    return Forks("forex_core.cli:main", [*(f"forex_core.{part}" for part in PARTS), *LIBRARIES])


# --- The process of which all are forks


def _serve(asking: socket.socket, target: str) -> None:
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    gc.collect()
    gc.freeze()
    assert threading.active_count() == 1, "a fork has no other"
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking)
    telling: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(asking, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == woken:
                    os.read(woken, 4096)
                    _tell_ends(telling)
                    continue
                message, descriptors, *_ = socket.recv_fds(asking, 1 << 20, 3)
                if not message:
                    for number in telling:
                        os.kill(number, signal.SIGKILL)
                    return
                status, *printing = descriptors
                number = os.fork()
                if number == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _become(json.loads(message), printing)
                    function()
                    return
                for descriptor in printing:
                    os.close(descriptor)
                telling[number] = status
                with suppress(BrokenPipeError):
                    os.write(status, f"{number}\n".encode())


def _tell_ends(telling: dict[int, int]) -> None:
    """Tell whoever waits for a fork that has ended how it has."""
    for number, status in [*telling.items()]:
        ended, code = os.waitpid(number, os.WNOHANG)
        if ended:
            with suppress(BrokenPipeError):
                os.write(status, f"{os.waitstatus_to_exitcode(code)}\n".encode())
            os.close(telling.pop(number))


def _become(asked: Mapping[str, Any], printing: Sequence[int]) -> None:
    """Take the place in the world that was asked for."""
    for to, descriptor in enumerate(printing, start=1):
        os.dup2(descriptor, to)
        os.close(descriptor)
    os.environ.clear()
    os.environ |= asked["env"]
    time.tzset()
    tempfile.tempdir = None
    os.chdir(asked["cwd"])
    sys.argv = asked["argv"]


if __name__ == "__main__":
    for wanted in sys.argv[3:]:
        importlib.import_module(wanted)
    with socket.socket(fileno=int(sys.argv[1])) as theirs:
        _serve(theirs, sys.argv[2])
