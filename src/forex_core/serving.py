"""Addresses that pages are served at."""

from __future__ import annotations

import errno
import socket

from forex_core.errors import ConfigError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Where nobody but this machine connects."""


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; who connects waits in line until somebody answers.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        todo = (
            "name an address of this machine with --host"
            if error.errno == errno.EADDRNOTAVAIL
            else "end the program that does, or name another with --port"
        )
        raise ConfigError(f"{host} port {port} cannot be listened on ({error.strerror}); {todo}") from error


def address_of(listening: socket.socket) -> str:
    """The address that a browser on this machine takes."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"
