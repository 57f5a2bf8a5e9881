"""Offline means offline: no socket of a run leads anywhere but this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forex_core.config import EngineConfig

Forex = Callable[..., "subprocess.CompletedProcess[str]"]

GUARD = """
import socket
_connect, _connect_ex, _resolve = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

def _check(address):
    host = address[0] if isinstance(address, tuple) else "localhost"
    if host not in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", ""):
        with open({log!r}, "a") as log:
            log.write(f"{{host}}\\n")
        raise OSError(f"blocked: {{host}}")

def connect(self, address):
    _check(address)
    return _connect(self, address)

def connect_ex(self, address):
    _check(address)
    return _connect_ex(self, address)

def getaddrinfo(host, *args, **kwargs):
    _check(((host.decode() if isinstance(host, bytes) else host) or "", 0))
    return _resolve(host, *args, **kwargs)

socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = connect, connect_ex, getaddrinfo
"""


@pytest.mark.slow
def test_a_forecast_needs_no_network(forex: Forex, tmp_path: Path) -> None:
    """Every Python process of the run, Prefect's server among them, starts with sockets blocked."""
    attempts = tmp_path / "attempts.txt"
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD.format(log=str(attempts)))
    fewer_origins = EngineConfig(grid_origins=60, warmup_origins=8)  # of all members
    done = forex(
        "forecast", "7d", PYTHONPATH=str(tmp_path / "guard"), FOREX_ENGINE=fewer_origins.model_dump_json()
    )
    assert done.returncode == 0, done.stderr
    assert "Report: " in done.stdout
    tried = attempts.read_text().splitlines() if attempts.exists() else []
    assert tried == []


def test_the_guard_guards(tmp_path: Path) -> None:
    """The block of the test above really blocks."""
    (tmp_path / "sitecustomize.py").write_text(GUARD.format(log=str(tmp_path / "attempts.txt")))
    done = subprocess.run(
        [sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), timeout=2)"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode != 0
    assert "blocked: 192.0.2.1" in done.stderr
    assert (tmp_path / "attempts.txt").read_text() == "192.0.2.1\n"
