"""The Prefect server of a run by hand: there when it is asked, gone with whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows import prepare_manual_run
from flows.server import NamedServer, TemporaryServer
from forex_core.errors import ForexError

pytestmark = pytest.mark.timeout(280)


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("PREFECT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    monkeypatch.setenv("PREFECT_API_BLOCKS_REGISTER_ON_START", "false")


@pytest.mark.parametrize("place", ["nowhere", "environment", ".env"])
def test_a_server_that_prefect_starts_itself_has_longer_than_its_20_s(
    place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That of a profile that names none. Unless the user has said how long."""
    from prefect.settings import Settings

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())  # what is prepared is prepared for all of a process
    assert Settings().server.ephemeral.startup_timeout_seconds == 20
    name = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
    if place == "environment":
        os.environ[name] = "45"
    elif place == ".env":
        (tmp_path / ".env").write_text(f"{name}=45\n")
    os.environ["PREFECT_PROFILE"] = "of-the-user"
    assert isinstance(prepare_manual_run(tmp_path / "data", verbose=False), NamedServer)
    del os.environ["PREFECT_PROFILE"]
    wanted = 120 if place == "nowhere" else 45
    assert Settings().server.ephemeral.startup_timeout_seconds == wanted


@pytest.fixture
def server() -> Iterator[TemporaryServer]:
    started = TemporaryServer()
    yield started
    started.stop()


@pytest.mark.slow
@pytest.mark.parametrize("falls", [False, True])
def test_it_answers_after_the_wait_and_is_gone_after_the_stop(
    server: TemporaryServer, falls: bool, tmp_path: Path
) -> None:
    """One that falls while it starts is started again."""
    address, first = server.api_url, server._process
    if falls:
        first.kill()
    server.wait()
    assert (server._process is not first) == falls
    assert server.api_url == address
    with urllib.request.urlopen(f"{address}/health", timeout=60) as answer:
        assert answer.read() == b"true"
    assert (tmp_path / "prefect" / "prefect.db").is_file()
    process = psutil.Process(server._process.pid)
    listening = [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]
    server.stop()
    server.stop()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{address}/health", timeout=60)


def test_a_stop_before_it_is_ready_leaves_nothing(server: TemporaryServer) -> None:
    process = psutil.Process(server._process.pid)
    server.stop()
    assert not process.is_running()


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        # Not a number, which is found before anything is set up.
        ("PREFECT_API_DATABASE_TIMEOUT", "{}", "ServerDatabaseSettings"),
        pytest.param(
            "PREFECT_API_DATABASE_CONNECTION_URL",
            "sqlite+aiosqlite:///{}/p.db",
            "unable to open database file",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["setting", "database"],
)
def test_a_server_that_cannot_start_says_why(
    name: str, value: str, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(name, value.format(tmp_path / "file"))
    started = TemporaryServer()
    try:
        with pytest.raises(ForexError, match=rf"did not start .*{why}.*PREFECT_API_URL"):
            started.wait()
    finally:
        started.stop()


@pytest.mark.parametrize("ready", [pytest.param(True, marks=pytest.mark.slow), False])
def test_it_ends_with_a_process_that_is_killed(ready: bool) -> None:
    code = """
import sys, time
from flows.server import TemporaryServer
server = TemporaryServer()
if sys.argv[1] == "True":
    server.wait()
print(server._process.pid, flush=True)
time.sleep(100)
"""
    command = [sys.executable, "-c", code, str(ready)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        orphan = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    _, alive = psutil.wait_procs([orphan], timeout=60)
    assert alive == []
