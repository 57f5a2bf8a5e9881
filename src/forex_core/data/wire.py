"""What goes into the socket and nowhere else: keys, the clock of one request, and the connections that know of both.

    with exchanging(secrets, host, whole_s) as exchange:
        adapter.send(request, ...)

A secret is added to the request line and the headers where they go into the socket, below everything that logs, caches
or raises. The address that all the rest sees has none.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, cast
from urllib.parse import parse_qsl, quote, quote_plus, urlencode, urlsplit, urlunsplit

import requests
import urllib3
from pydantic import SecretStr
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_SHORTEST_KEY = 4


def shown(url: str, *, query: bool = True) -> str:
    """An address without the user and the password that may stand in it, and without its query where that is not ours.

    >>> shown("https://ana:s3cret@example.org/feed?token=t0ken", query=False)
    'https://example.org/feed'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that is none"
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")
    return urlunsplit(bare if query else bare._replace(query=""))


@dataclass(frozen=True)
class Secrets:
    """Keys of one request. They are read where they go into the socket, and where a text is cleared of them.

    Attributes:
        address: where the request was to go, as the settings say it. A user and a password before its host are a key:
            requests makes a header of them. What stands behind its question mark is none of ours to add, and is shown
            no more than one.
    """

    params: Mapping[str, SecretStr]
    headers: Mapping[str, SecretStr]
    address: str

    def __bool__(self) -> bool:
        return bool(self.params or self.headers or any(self._login()))

    def hide(self, text: str) -> str:
        """The text with every form of every secret, and of the query of the settings' address, made asterisks."""
        for form in sorted({*self._forms(), *self._query_forms()}, key=len, reverse=True):
            text = re.sub(re.escape(form), "***", text, flags=re.IGNORECASE)
        return text

    def within(self, content: bytes, *, query: bool = False) -> bool:
        """Whether any form of a secret occurs there, or with `query` what stands behind the address' question mark."""
        lowered = content.lower()
        forms = [*self._forms(), *(self._query_forms() if query else ())]
        return any(form.encode().lower() in lowered for form in forms)

    def target(self, path: str) -> str:
        """What stands in the request line: the path, with the secret parameters after the others."""
        if not self.params:
            return path
        added = urlencode({name: value.get_secret_value() for name, value in self.params.items()})
        return f"{path}{'&' if '?' in path else '?'}{added}"

    def _query_forms(self) -> set[str]:
        """The query as a whole, and those of its values that are long enough for a key."""
        try:
            query = urlsplit(self.address).query
        except ValueError:
            return set()
        values = {value for _, value in parse_qsl(query) if len(value) >= _SHORTEST_KEY}
        forms = {query, requests.utils.requote_uri(query), *values, *(quote(v, safe="") for v in values)}
        return forms - {""}

    def _login(self) -> tuple[str, str]:
        """User and password of the address; two empty texts where it has none."""
        try:
            return requests.utils.get_auth_from_url(self.address)
        except ValueError:
            return "", ""

    def _forms(self) -> list[str]:
        plain = {one.get_secret_value() for one in (*self.params.values(), *self.headers.values())}
        user, password = self._login()
        if user or password:
            plain.add(b64encode(f"{user}:{password}".encode("latin-1", "replace")).decode())
        if len(password) >= _SHORTEST_KEY:  # a shorter one would make asterisks of ordinary words
            plain.add(password)
        plain |= {value.split()[-1] for value in plain if value.strip()}  # "Bearer KEY"
        forms = {
            form
            for one in plain
            for form in (one, quote(one, safe=""), quote_plus(one), json.dumps(one)[1:-1])
        }
        return sorted(forms - {""}, key=len, reverse=True)


class Inward(Exception):  # noqa: N818  a reason; never leaves this package
    """A request that a server of the internet sent on would have gone to an address of this network."""


@dataclass
class Exchange:
    """One request under way, for those parts of it that the libraries call.

    Attributes:
        host: of the address that is asked.
        outward: it was sent on by a server of the internet, and must go to another such. A page of strangers must not
            read what this network's own servers tell whoever is inside, such as a cloud's keys.
        is_public: whether it went to the internet: by a proxy, or to an address that is of no private network.
    """

    secrets: Secrets
    host: str
    outward: bool
    is_public: bool = True
    sock: socket.socket | None = None
    expired: bool = False

    def reach(self, connection: HTTPConnection) -> None:
        """Look at whom a connection reached, whatever name it was asked for, before anything is sent.

        Raises:
            Inward: it must not be asked.
        """
        peer = self.host if connection.proxy else cast(socket.socket, connection.sock).getpeername()[0]
        self.is_public = _is_public(peer)
        if self.outward and not self.is_public:
            raise Inward(peer)

    def cut(self) -> None:
        """Time is up: end the connection, whatever it waits for. A server that drips never runs into a read timeout."""
        self.expired = True
        if self.sock is not None:
            with suppress(OSError):  # it is closed already
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


_EXCHANGE: ContextVar[Exchange] = ContextVar("exchange")


@contextmanager
def exchanging(secrets: Secrets, host: str, whole_s: float, *, outward: bool = False) -> Iterator[Exchange]:
    """One request of this thread; it is cut off after `whole_s` seconds. See `Exchange`."""
    exchange = Exchange(secrets, host, outward)
    outer = _EXCHANGE.set(exchange)
    watch = threading.Timer(whole_s, exchange.cut)
    watch.daemon = True
    watch.start()
    try:
        yield exchange
    finally:
        watch.cancel()
        exchange.sock = None
        _EXCHANGE.reset(outer)


class _Wire:
    """What a connection adds: the secrets, at the last moment, and its socket to the exchange that uses it."""

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        exchange, connection = _EXCHANGE.get(), cast(HTTPConnection, self)
        if connection.sock is None:
            connection.connect()
        exchange.reach(connection)
        secrets, parent = exchange.secrets, cast(HTTPConnection, super())
        parent.putrequest(method, secrets.target(url), *args, **kwargs)
        for name, value in secrets.headers.items():
            parent.putheader(name, value.get_secret_value())

    def getresponse(self) -> Any:
        exchange = _EXCHANGE.get()
        exchange.sock = cast(
            HTTPConnection, self
        ).sock  # the connection may part with it, and the body come later
        if exchange.expired:
            exchange.cut()
        return cast(HTTPConnection, super()).getresponse()


def _is_public(host: str) -> bool:
    """Whether an address is of the internet; a name that only a proxy knows is taken for one."""
    try:
        address = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host != "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_global


class _Plain(_Wire, HTTPConnection):
    pass


class _Encrypted(_Wire, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _EncryptedPool(HTTPSConnectionPool):
    ConnectionCls = _Encrypted


_POOLS = {"http": _PlainPool, "https": _EncryptedPool}


class Adapter(HTTPAdapter):
    """Requests' adapter over connections of ours."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        # Its connections are not ours and would know no key.
        if not isinstance(manager, urllib3.ProxyManager):
            raise InvalidSchema("a SOCKS proxy; expected a proxy of http or https")
        manager.pool_classes_by_scheme = _POOLS
        return manager
