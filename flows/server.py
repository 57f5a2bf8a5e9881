"""The Prefect server of a run by hand: the one that the user has named, or else one for this run.

That is a process of its own, which ends with ours. Prefect would start one itself, but only once it is asked for the
first time, and it imports the whole server into the process that asks: seconds and 100 MB for nothing. Started here,
at the beginning of a command, the server gets ready while the command imports what it needs. Run as a script, this
file is that process.
"""

from __future__ import annotations

import gc
import http.client
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from forex_core.errors import ConfigError, ForexError

if TYPE_CHECKING:
    import uvicorn

START_LIMIT_S = 120
"""A cold start on a busy small machine takes longer than the 20 s that Prefect allows itself."""

STOP_LIMIT_S = 30
"""A server that is told to end while it makes its database finishes that first."""


class TemporaryServer:
    """A Prefect server on a free loopback port, without user interface and scheduling, starting.

    It reads its settings from the environment. It ends on `stop`, and when this process ends in any way: it waits
    for the end of a pipe that this process holds.
    """

    def __init__(self) -> None:
        self._errors = TemporaryFile()  # noqa: SIM115, closed in `stop`
        self._port = 0
        self._start()

    def _start(self) -> None:
        with socket.create_server(("127.0.0.1", self._port)) as listening:
            # Open from now on: whoever connects waits in line until the server is ready.
            self._port = int(listening.getsockname()[1])
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__)), str(listening.fileno())],
                pass_fds=[listening.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                # An interrupt from the terminal is for the command, which still has a state to report.
                start_new_session=True,
            )

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/api"

    def wait(self) -> None:
        """Return as soon as the server answers.

        Raises:
            ForexError: when it ended instead, or has not answered for `START_LIMIT_S`.
        """
        try:
            try:
                status = self._health()
            except (ConnectionError, http.client.HTTPException):
                # It has fallen. Of two that make the same database at once one may; by now the other has made it.
                self._end()
                self._start()
                status = self._health()
        except (OSError, http.client.HTTPException) as error:
            self._end()
            raise ForexError(
                f"Prefect's temporary server did not start ({error}): {self._last_error}; mend that, or name a "
                "running server in PREFECT_API_URL"
            ) from error
        if status != http.client.OK:
            raise ForexError(f"Prefect's temporary server answers with {status}, expected {http.client.OK}")

    def _health(self) -> int:
        asking = http.client.HTTPConnection("127.0.0.1", self._port, timeout=START_LIMIT_S)
        try:
            asking.request("GET", "/api/health")
            return asking.getresponse().status
        finally:
            asking.close()

    def stop(self) -> None:
        """End the server and wait for it; nothing happens the second time."""
        self._end()
        self._errors.close()

    def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def _last_error(self) -> str:
        self._errors.seek(0)
        said = [line.strip() for line in self._errors.read().decode(errors="replace").split("\n")]
        named = [line for line in said if re.match(r"[\w.]+(Error|Exception)\b", line)]
        return next((line for line in reversed(named or said) if line), "it said nothing")


class NamedServer:
    """The Prefect server that the user has named, in the environment, in `.env` or in a profile."""

    def wait(self) -> None:
        """Make sure that it answers and lets us in; a profile that names none has Prefect start one of its own.

        Raises:
            ForexError: when it does not answer.
            ConfigError: when it wants a password that is not ours.
        """
        from prefect.client.orchestration import get_client
        from prefect.exceptions import PrefectHTTPStatusError
        from prefect.settings import PREFECT_API_URL

        url = PREFECT_API_URL.value()
        if url is None:
            return
        with get_client(sync_client=True) as client:
            if (away := client.api_healthcheck()) is not None:
                raise ForexError(
                    f"no Prefect server answers at {url} ({away}); start it (systemctl start forex-server), or name "
                    "another in PREFECT_API_URL; without that name a run by hand starts its own"
                ) from away
            try:
                client.read_work_pools(limit=1)
            except PrefectHTTPStatusError as error:
                if error.response.status_code != http.client.UNAUTHORIZED:
                    raise
                raise ConfigError(
                    f"the Prefect server at {url} lets nobody in without its password; set PREFECT_API_AUTH_STRING to "
                    "what its PREFECT_SERVER_API_AUTH_STRING is"
                ) from error


def _serve(descriptor: int) -> None:
    served: list[uvicorn.Server] = []

    def end_with_parent() -> None:
        while os.read(0, 4096):  # not through sys.stdin: Python cannot end while a thread waits in it
            pass
        if not served:  # still importing, nothing to be undone
            os._exit(0)
        served[0].should_exit = True

    threading.Thread(target=end_with_parent, daemon=True).start()
    gc.disable()  # what is imported lives to the end
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=True, final=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    served.append(server)
    gc.freeze()
    gc.enable()
    server.run(sockets=[socket.socket(fileno=descriptor)])
    # Everything is written; taking thousands of modules down one by one would keep the command waiting.
    os._exit(0)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
