"""A real HTTP server on loopback that behaves as it is told, one behaviour a request, the last one for ever.

    server.play(status(500), good(b"{}"))
    client.get(server.url + "/path")
    assert len(server.asked) == 2

A behaviour writes an answer to the request's handler, or does not.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd

from forex_core.data.http import HttpClient, Retries, Timeouts, user_agent
from tests.ports import free_port

LONG_S = 200.0
"""More than any machine is busy, and less than a test may take."""
LAST_MODIFIED = "Fri, 28 Jun 2024 18:00:00 GMT"
NOW = pd.Timestamp("2024-07-01T23:00:00Z")
"""A Monday evening, after every close of that day."""


@dataclass(frozen=True)
class Asked:
    """A request that reached the server. `params` holds the first value of each."""

    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]


Behaviour = Callable[["Handler"], None]


@dataclass
class Server:
    """What a test sees of the server.

    Attributes:
        url: its address, such as `http://127.0.0.1:40000`.
        asked: every request so far.
        sent: bytes of bodies that are given to the socket, counted before a client can have them.
    """

    url: str = ""
    asked: list[Asked] = field(default_factory=list, repr=False)
    sent: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    _script: list[Behaviour] = field(default_factory=list)
    _lock: threading.Condition = field(default_factory=threading.Condition)

    def play(self, *behaviours: Behaviour) -> Server:
        """What the requests to come are answered with, in this order; the last one also all later ones."""
        with self._lock:
            self._script = list(behaviours)
        return self

    def next(self, asked: Asked) -> Behaviour:
        with self._lock:
            self.asked.append(asked)
            self._lock.notify_all()
            return self._script.pop(0) if len(self._script) > 1 else self._script[0]

    def wait_for(self, count: int, below: str = "") -> None:
        """Until so many requests have come: one whose client has given up may still be on its way."""
        with self._lock:
            come = self._lock.wait_for(lambda: sum(below in one.path for one in self.asked) >= count, LONG_S)
        assert come, f"{count} requests below '{below}' did not come within {LONG_S} s: {self.asked}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = LONG_S
    state: Server

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        params = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self.asked = Asked(parts.path, params, dict(self.headers.items()))
        behaviour = self.state.next(self.asked)
        with suppress(OSError):  # the client has had enough
            behaviour(self)

    def answer(self, code: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.body(body)

    def body(self, content: bytes) -> None:
        self.state.sent += len(content)
        self.wfile.write(content)

    def hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is what tests are about."""


@contextmanager
def serving(certificate: Path | None = None) -> Iterator[Server]:
    """A server for the length of the block; with a certificate and its key in one file over TLS."""
    state = Server()
    listener = _Listener(("127.0.0.1", 0), type("Bound", (Handler,), {"state": state}))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        listener.socket = context.wrap_socket(
            listener.socket, server_side=True, do_handshake_on_connect=False
        )
    state.url = f"http{'s' if certificate else ''}://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.over.set()
        listener.shutdown()
        listener.server_close()
        thread.join()


def good(body: bytes | str | dict[str, Any] | list[Any], **headers: str) -> Behaviour:
    """200 with that body; a dictionary or a list as JSON. `Content_Type="text/csv"` is a header."""
    content = json.dumps(body) if isinstance(body, dict | list) else body
    return status(200, content, **headers)


def status(code: int, body: bytes | str = b"", **headers: str) -> Behaviour:
    """Any status, such as `status(429, Retry_After="7")`."""
    content = body.encode() if isinstance(body, str) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.answer(code, content, named)


def unchanged_after_first(body: bytes | str, **validators: str) -> Behaviour:
    """200 with `ETag` or `Last-Modified` (both if none is given), and 304 for whoever shows one of them again."""
    content = body.encode() if isinstance(body, str) else body
    named = {name.replace("_", "-"): value for name, value in validators.items()}
    named = named or {"ETag": '"v1"', "Last-Modified": LAST_MODIFIED}

    def behave(handler: Handler) -> None:
        shown = {handler.headers.get("If-None-Match"), handler.headers.get("If-Modified-Since")} - {None}
        if shown & set(named.values()):
            handler.send_response(304)
            handler.send_header("ETag", named.get("ETag", ""))
            handler.end_headers()
        else:
            handler.answer(200, content, named)

    return behave


def hang(handler: Handler) -> None:
    """Take the request and say nothing."""
    handler.state.over.wait(LONG_S)
    handler.hang_up()


def hang_in_the_body(handler: Handler) -> None:
    handler.answer(200, b'{"serie": [', {"Content-Length": "1000"})
    hang(handler)


def drip(handler: Handler) -> None:
    """A body that comes byte by byte and never ends: no pause is long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not handler.state.over.wait(0.02):
        handler.body(b" ")


def drip_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.state.over.wait(0.02):
        handler.wfile.write(b"X")


def drip_unframed(handler: Handler) -> None:
    """A drip that would end, were it cut, like a whole body: there is no length to miss."""
    handler.send_response(200)
    handler.send_header("ETag", '"drip"')
    handler.end_headers()
    handler.body(b'{"serie": []}')
    while not handler.state.over.wait(0.02):
        handler.body(b" ")


def half(body: bytes | str, **headers: str) -> Behaviour:
    """The first half of a body whose whole length was announced."""
    content = body.encode() if isinstance(body, str) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def behave(handler: Handler) -> None:
        handler.answer(200, content[: len(content) // 2], {**named, "Content-Length": str(len(content))})
        handler.hang_up()

    return behave


def half_chunked(body: bytes | str) -> Behaviour:
    content = body.encode() if isinstance(body, str) else body

    def behave(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("ETag", '"half"')
        handler.end_headers()
        handler.body(b"%x\r\n%b\r\n" % (len(content) // 2, content[: len(content) // 2]))
        handler.hang_up()

    return behave


def junk(megabytes: int = 30, *, announced: bool = False) -> Behaviour:
    """Megabytes of nothing, with their length stated or in chunks."""
    block = b"[0," * 21_845 + b"0"

    def behave(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("ETag", '"junk"')
        if announced:
            handler.send_header("Content-Length", str(megabytes * 16 * len(block)))
        else:
            handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(megabytes * 16):
            handler.body(block if announced else b"%x\r\n%b\r\n" % (len(block), block))
        if not announced:
            handler.body(b"0\r\n\r\n")

    return behave


def html(handler: Handler) -> None:
    """The page of a gatekeeper, with status 200 and the content type of data."""
    page = b"<!DOCTYPE html><html><head><title>One moment</title></head><body>Are you a robot?</body></html>"
    handler.answer(200, page, {"Content-Type": "application/json", "ETag": '"page"'})


def redirect(to: str, code: int = 302) -> Behaviour:
    return status(code, Location=to)


def drop(handler: Handler) -> None:
    """Close the connection without a word."""
    handler.hang_up()


BUSY_FOR_EVER = status(500)


PATIENT = Timeouts(connect=LONG_S, read=LONG_S, whole=LONG_S)
SILENCE = Timeouts(connect=LONG_S, read=0.25, whole=LONG_S)
DRIPS = Timeouts(connect=LONG_S, read=LONG_S, whole=0.4)


def patience(behaviour: Behaviour) -> Timeouts:
    """Short where a behaviour is to be waited out, and then of one kind alone; else no busy machine outlasts it."""
    if behaviour in (hang, hang_in_the_body):
        return SILENCE
    return DRIPS if behaviour in (drip, drip_headers, drip_unframed) else PATIENT


def quick_client(
    folder: Path,
    *,
    waited: list[float] | None = None,
    now: pd.Timestamp = NOW,
    attempts: int = 3,
    timeouts: Timeouts = PATIENT,
    recovers: Server | None = None,
) -> HttpClient:
    """A client that writes its waits down instead of waiting; it believes that it is `now`.

    After the first fault of a server that recovers, all the time in the world is given to it.
    """
    kept = waited if waited is not None else []

    def sleep(seconds: float) -> None:
        kept.append(seconds)
        if recovers is not None:
            recovers.wait_for(len(kept))  # what it does is done in turn
            client._timeouts = PATIENT

    client = HttpClient(
        folder,
        user_agent=user_agent("desk@example.org"),
        timeouts=timeouts,
        retries=Retries(attempts=attempts),
        min_interval_s=0.0,
        sleep=sleep,
        now=lambda: now,
    )
    return client


def unused_address() -> str:
    """An address of loopback at which nobody listens."""
    return f"http://127.0.0.1:{free_port()}"
