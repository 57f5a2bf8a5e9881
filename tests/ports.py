"""Ports of loopback that are a test's alone, on Linux: elsewhere a server may not take one that is bound."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port at which nobody listens until the test has somebody listen there.

    It stays bound for the life of this process, so the system gives it to nobody else: neither to whoever asks for any
    port nor to a client. A server takes it all the same, since servers reuse addresses and this one does not listen.
    """
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        bound.detach()
    return port
