"""The one HTTP client of all fetchers: bounded in time and size, polite to servers, silent about keys.

    HttpClient.get ── retries (tenacity) ── redirects ── one request ── wire (requests, urllib3)
                                                              │
                                                 answers kept on disk (CacheControl's files)

Every request is sent: a server that lets its answer be reused for an hour would hide a correction. What is kept on
disk is asked for again with `If-None-Match` and `If-Modified-Since`, and a 304 costs no body. Of CacheControl the
files alone are used: its adapter forgets an answer that has a date and no tag, keeps one before anybody has looked at
it, and leaves a temporary file open wherever a body is cut.

What goes into the socket, keys among it, is the affair of `forex_core.data.wire`.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn, cast
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import pandas as pd
import requests
import tenacity
import urllib3
from cachecontrol.caches import FileCache
from loguru import logger
from pydantic import SecretStr
from requests.exceptions import ChunkedEncodingError, InvalidHeader, InvalidSchema, InvalidURL, MissingSchema

from forex_core import __version__
from forex_core.data.wire import Adapter, Exchange, Inward, Secrets, exchanging, shown
from forex_core.errors import SourceError, SourceUnavailable
from forex_core.strangers import printable

Expect = Literal["json", "csv", "xml", "zip", "text"]

_ACCEPT: Mapping[Expect, str] = {
    "json": "application/json",
    "csv": "text/csv, text/plain;q=0.9, */*;q=0.5",
    "xml": "application/rss+xml, application/atom+xml, application/xml;q=0.9, text/xml;q=0.9",
    "zip": "application/zip, application/octet-stream;q=0.9, */*;q=0.5",
    "text": "text/plain, */*;q=0.5",
}
_HTML = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)[\s>]", re.I | re.S)
_UNUSABLE = (InvalidSchema, InvalidURL, InvalidHeader, MissingSchema, UnicodeError)
_BUSY = frozenset({304, 429, *range(500, 600)})  # a 304 where what it speaks of was thrown away meanwhile
_MOVED = frozenset({301, 302, 303, 307, 308})
_LONGEST_CHAIN = 5
_YEAR_S = 366 * 86400.0
_CHUNK_BYTES = 65_536
_KEPT_DAYS = 30
"""Entries of the cache that nothing has touched for longer are thrown away."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds: until connected, between two arrivals of bytes, and from the first byte asked to the last received."""

    connect: float = 10.0
    read: float = 20.0
    whole: float = 60.0


@dataclass(frozen=True)
class Retries:
    """How often a request is sent, and how long is waited between: `first_wait_s` doubled each time, with jitter.

    A server that asks for more patience than `longest_retry_after_s` is given up at once.
    """

    attempts: int = 4
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    longest_retry_after_s: float = 60.0


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Attributes:
        content: body, decompressed.
        url: from where it came at last, without secrets.
        status: 200, or another that the caller accepts.
        from_cache: the body is the one kept on disk; the server was asked and said that nothing has changed.
        moved: another server gave it than the one that was asked; nothing of it is shown.
    """

    content: bytes
    url: str
    status: int
    from_cache: bool = False
    moved: bool = False
    charset: str | None = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The body as text, by the server's charset or as UTF-8; what is not valid becomes a replacement mark."""
        try:
            return self.content.decode(self.charset or "utf-8-sig", errors="replace")
        except LookupError:  # a charset that nobody knows
            return self.content.decode("utf-8-sig", errors="replace")

    def json(self) -> Any:
        """The body as JSON. It has been checked to be JSON if that was expected."""
        return self._document

    @cached_property
    def _document(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True)
class _Moved:
    """Where a request is redirected to, and whether by a server of the internet."""

    to: str
    is_public: bool


def user_agent(contact: str = "") -> str:
    """What every request calls itself, with an address at which a server's keeper can complain.

    >>> user_agent("desk@example.org")
    'forex-core/0.1.0 (+desk@example.org)'
    """
    return f"forex-core/{__version__}" + (f" (+{contact})" if contact else "")


class Again(Exception):  # noqa: N818  a reason to try once more; the last one becomes a SourceUnavailable
    """A request failed in a way that may pass. Never leaves this package: `retrying` and its caller see to that."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


def retrying(retries: Retries, sleep: Callable[[float], None] = time.sleep) -> tenacity.Retrying:
    """Calls what it is given until it raises no `Again`; the last `Again` is raised.

    Waits as long as `Again` says, at the least a delay that doubles each time, with jitter.
    """
    backoff = tenacity.wait_exponential(
        multiplier=retries.first_wait_s, max=retries.longest_wait_s
    ) + tenacity.wait_random(0, retries.first_wait_s)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(backoff(state), error.retry_after_s if isinstance(error, Again) else 0.0)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Again),
        stop=tenacity.stop_after_attempt(retries.attempts),
        wait=wait,
        sleep=sleep,
        reraise=True,
    )


class Pace:
    """Keeps the requests of this process to one host apart by `min_interval_s`. Threads may share it."""

    def __init__(
        self,
        min_interval_s: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval_s, self._sleep, self._clock = min_interval_s, sleep, clock
        self._free_from: dict[str, float] = {}
        self._lock = threading.Lock()

    def wait(self, host: str) -> None:
        """Return when the host may be asked."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._free_from.get(host, now))
            self._free_from[host] = turn + self._interval_s
        if turn > now:
            self._sleep(turn - now)


class HttpClient:
    """Gets what lies at an address. One for a process; threads may share it.

    Args:
        cache_dir: folder of the answers kept, shared with other processes. Nothing in it is needed.
        user_agent: see `user_agent`.
        min_interval_s: time between two requests of this process to one host.
        max_bytes: size of a body, decompressed, beyond which it is cut off.
        sleep, clock, now: of the process; a test gives its own.
    """

    def __init__(
        self,
        cache_dir: Path,
        *,
        user_agent: str,
        timeouts: Timeouts | None = None,
        retries: Retries | None = None,
        min_interval_s: float = 0.5,
        max_bytes: int = 16 * 2**20,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], pd.Timestamp] = lambda: pd.Timestamp.now(tz="UTC"),
    ) -> None:
        self._user_agent = user_agent
        self._timeouts = timeouts or Timeouts()
        self._retries = retries or Retries()
        self._max_bytes = max_bytes
        self._sleep = sleep
        self.now = now
        self._pace = Pace(min_interval_s, sleep, clock)
        self._entries = _Entries(cache_dir)
        self._entries.prune()
        self._adapter = Adapter()
        self._environment = requests.Session()

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._adapter.close()
        self._environment.close()

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        secret_params: Mapping[str, SecretStr] | None = None,
        secret_headers: Mapping[str, SecretStr] | None = None,
        expect: Expect = "json",
        accept: tuple[int, ...] = (200,),
    ) -> Answer:
        """The answer to a GET request, whole and of the kind expected.

        Args:
            secret_params, secret_headers: sent as `params` and `headers` are, and shown nowhere.
            accept: statuses whose body is wanted; only one of 200 is kept on disk.

        Raises:
            SourceUnavailable: no connection, no whole answer in time, busy or broken, after all attempts.
            SourceError: refused, not found, too large, a page where data were expected, redirected astray.
        """
        secrets = Secrets(dict(secret_params or {}), dict(secret_headers or {}), url)
        named = {
            "User-Agent": self._user_agent,
            "Accept": _ACCEPT[expect],
            "Accept-Encoding": "gzip, deflate",
            **(headers or {}),
        }
        try:
            request = requests.Request("GET", url, headers=named, params=dict(params or {})).prepare()
        except (requests.RequestException, UnicodeError) as error:
            raise SourceError(
                secrets.hide(
                    f"'{shown(url)}' cannot be asked for ({error}); correct the address of this source"
                )
            ) from None
        try:
            return retrying(self._retries, self._sleep)(self._follow, request, secrets, expect, accept)
        except Again as again:
            raise SourceUnavailable(
                secrets.hide(
                    f"{shown(cast(str, request.url))}: {again}; tried {self._retries.attempts} times for {expect}. "
                    "Check the network and whether the service is up, and try again later"
                )
            ) from again.__cause__

    def _follow(
        self, request: requests.PreparedRequest, secrets: Secrets, expect: Expect, accept: tuple[int, ...]
    ) -> Answer:
        """One attempt, redirects included."""
        at, outward = request, False
        for _ in range(_LONGEST_CHAIN + 1):
            found = self._send(at, secrets, expect, accept, outward)
            if isinstance(found, Answer):
                return found
            at, outward = request.copy(), outward or found.is_public
            at.url = found.to
        raise SourceError(
            secrets.hide(
                f"{shown(cast(str, request.url))}: more than {_LONGEST_CHAIN} redirects, the last to "
                f"{shown(cast(str, at.url))}; expected {expect}. The service has moved: correct its address"
            )
        )

    def _send(
        self,
        request: requests.PreparedRequest,
        secrets: Secrets,
        expect: Expect,
        accept: tuple[int, ...],
        outward: bool,
    ) -> Answer | _Moved:
        """One request: its answer, or where it is redirected to; `outward` where the internet sent it on."""
        url = cast(str, request.url)
        asked = urlsplit(url)
        self._pace.wait(asked.netloc)
        with exchanging(secrets, asked.hostname or "", self._timeouts.whole, outward=outward) as exchange:
            try:
                return self._exchanged(request, exchange, expect, accept)
            except Inward as peer:
                raise SourceError(
                    secrets.hide(
                        f"{shown(url)}: a server of the internet sends requests there, to the address {peer} of this "
                        "network, which is not asked. Correct the address of this source"
                    )
                ) from None
            except _UNUSABLE as error:
                raise SourceError(
                    secrets.hide(
                        f"{shown(url)} cannot be asked for ({error}); correct the address or the proxy"
                    )
                ) from None
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                if exchange.expired:
                    raise Again(f"no whole answer within {self._timeouts.whole:g} s") from error
                cause = _root(error)
                if isinstance(cause, ssl.SSLCertVerificationError):
                    raise SourceError(
                        secrets.hide(
                            f"{shown(url)}: its certificate is not trusted ({cause.verify_message}). Check the clock "
                            "of this machine, and name the file of your own authority in REQUESTS_CA_BUNDLE"
                        )
                    ) from error
                told = _told(error, cause, self._timeouts)
                # No network as a rule: a second attempt finds no other name.
                if isinstance(cause, socket.gaierror):
                    raise SourceUnavailable(
                        secrets.hide(f"{shown(url)}: {told}; check the network and the address of the source")
                    ) from error
                raise Again(told) from error
            except OSError as error:  # no file of certificates at REQUESTS_CA_BUNDLE
                raise SourceError(secrets.hide(f"{shown(url)} cannot be asked for: {error}")) from error

    def _exchanged(
        self, request: requests.PreparedRequest, exchange: Exchange, expect: Expect, accept: tuple[int, ...]
    ) -> Answer | _Moved:
        url, secrets = cast(str, request.url), exchange.secrets
        kept = self._entries.load(request)
        at = request.copy()
        at.headers.update(kept.validators if kept else {})
        settings = self._environment.merge_environment_settings(url, {}, True, None, None)
        with self._adapter.send(
            at,
            stream=True,
            timeout=(self._timeouts.connect, self._timeouts.read),
            verify=settings["verify"],
            cert=settings["cert"],
            proxies=settings["proxies"],
        ) as response:
            if response.status_code in _MOVED and "Location" in response.headers:
                return _Moved(_redirected(url, response, secrets), exchange.is_public)
            unchanged = kept is not None and response.status_code == 304
            if response.status_code not in accept and not unchanged:
                self._refuse(response, url, secrets, expect)
            entry = kept if kept and unchanged else self._entry(response, url, secrets, expect)
        if exchange.expired:  # a body that ends where its connection does looks whole
            raise Again(f"no whole answer within {self._timeouts.whole:g} s")
        answer = Answer(
            content=entry.body,
            url=secrets.hide(shown(url)),
            status=200 if unchanged else response.status_code,
            from_cache=unchanged,
            moved=_is_elsewhere(url, secrets.address),
            charset=entry.charset,
        )
        self._check(answer, secrets, request, expect)
        if not unchanged and response.status_code == 200 and entry.may_be_kept(response, secrets):
            self._entries.store(request, entry)
        return answer

    def _entry(self, response: requests.Response, url: str, secrets: Secrets, expect: Expect) -> _Entry:
        stated = response.headers.get("Content-Length", "")
        body = bytearray()
        if not (stated.isdecimal() and float(stated) > self._max_bytes):
            for chunk in response.iter_content(_CHUNK_BYTES):
                body += chunk
                if len(body) > self._max_bytes:
                    break
            else:
                stated_by = {"If-None-Match": "ETag", "If-Modified-Since": "Last-Modified"}
                return _Entry(
                    validators={
                        asked: response.headers[name]
                        for asked, name in stated_by.items()
                        if name in response.headers
                    },
                    charset=_charset(response.headers.get("Content-Type", "")),
                    body=bytes(body),
                )
        limit = f"{self._max_bytes / 2**20:g} MB"
        raise SourceError(
            secrets.hide(
                f"{shown(url)}: a body of more than {limit}, cut off; expected {expect} within {limit}. "
                "Ask for a shorter period, or leave this source out"
            )
        )

    def _refuse(self, response: requests.Response, url: str, secrets: Secrets, expect: Expect) -> NoReturn:
        """Say what is wrong with a status that is not accepted."""
        status = response.status_code
        told = f"HTTP {status} {response.reason or ''}".rstrip()
        if status in _BUSY:
            now = self.now()
            patience = _retry_after(response.headers.get("Retry-After"), now)
            if patience > self._retries.longest_retry_after_s:
                until = (now + pd.Timedelta(seconds=patience)).strftime("%Y-%m-%d %H:%M:%S UTC")
                raise SourceUnavailable(
                    secrets.hide(f"{shown(url)}: {told}, and asks to be left alone; try again after {until}")
                )
            raise Again(told, patience)
        start = bytearray()
        for chunk in response.iter_content(1024):
            start += chunk
            if len(start) >= 1024:
                break
        told_nothing = not start or _HTML.match(start) or _is_elsewhere(url, secrets.address)
        said = "" if told_nothing else f", '{_snippet(bytes(start))}'"
        advice = {
            401: "check the key of this source",
            403: "check the key of this source, and whether it may be used from here",
            404: "check the code of the series and the address of this source",
        }.get(status, "check what was asked for")
        raise SourceError(secrets.hide(f"{shown(url)}: {told}{said}; expected {expect}; {advice}"))

    def _check(
        self, answer: Answer, secrets: Secrets, request: requests.PreparedRequest, expect: Expect
    ) -> None:
        """Hold a body against what was expected."""
        fault, may_pass = _fault(answer, expect)
        if fault is None:
            return
        if answer.from_cache:
            self._entries.drop(request)
            raise Again(f"{fault}, among the answers kept on disk")
        if may_pass:
            raise Again(fault)
        raise SourceError(
            secrets.hide(
                f"{answer.url}: found {fault}, expected {expect}. The service has changed or turns this network "
                "away: look at the address in a browser, and leave this source out meanwhile"
            )
        )


@dataclass(frozen=True)
class _Entry:
    """An answer as it is kept on disk: decompressed, with what to show the server when it is asked again."""

    validators: Mapping[str, str]
    charset: str | None
    body: bytes

    def may_be_kept(self, response: requests.Response, secrets: Secrets) -> bool:
        """Whether it can be asked for conditionally, the server allows it, and no key is repeated in it."""
        headers = response.headers
        allowed = "no-store" not in headers.get("Cache-Control", "").lower() and headers.get("Vary") != "*"
        repeated = any(
            secrets.within(said, query=True)
            for said in (self.body, "".join(self.validators.values()).encode())
        )
        return bool(self.validators) and allowed and not repeated


class _Entries:
    """Answers on disk, each under a hash of its address and headers and with a checksum. Processes may share them:
    a file is replaced as a whole. What cannot be written is not kept, what cannot be read is not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = FileCache(folder)

    def load(self, request: requests.PreparedRequest) -> _Entry | None:
        try:
            found = self._files.get(_key(request)) or b""
        except OSError:
            return None
        if hashlib.sha256(found[32:]).digest() != found[:32]:
            return None
        head, _, body = found[32:].partition(b"\n")
        stated = json.loads(head)
        return _Entry(stated["validators"], stated["charset"], body)

    def store(self, request: requests.PreparedRequest, entry: _Entry) -> None:
        head = json.dumps({"validators": dict(entry.validators), "charset": entry.charset}).encode()
        content = head + b"\n" + entry.body
        try:
            self._files.set(_key(request), hashlib.sha256(content).digest() + content)
        except OSError as error:
            logger.warning("an answer is not kept in {}: {}", self._folder, error.strerror or error)

    def drop(self, request: requests.PreparedRequest) -> None:
        with suppress(OSError):
            self._files.delete(_key(request))

    def prune(self) -> None:
        """Throw away what was not written for `_KEPT_DAYS`, remains of killed processes among it."""
        oldest = time.time() - _KEPT_DAYS * 86400
        for path in self._folder.rglob("*"):
            with suppress(OSError):  # gone, or another user's
                if path.is_file() and path.stat().st_mtime < oldest:
                    path.unlink()


def _key(request: requests.PreparedRequest) -> str:
    return json.dumps([request.url, sorted(request.headers.items())])


def _redirected(url: str, response: requests.Response, secrets: Secrets) -> str:
    start = urlsplit(url)
    try:
        target = urlsplit(requests.utils.requote_uri(urljoin(url, response.headers["Location"])))
        is_elsewhere = _is_elsewhere(url, target.geturl())
    except (ValueError, InvalidURL):
        raise SourceError(
            secrets.hide(
                f"{shown(url)}: redirected to no address; expected http or https. Correct the address of this source"
            )
        ) from None
    kept = [(k, v) for k, v in parse_qsl(target.query, keep_blank_values=True) if k not in secrets.params]
    clean = urlunsplit(target._replace(query=urlencode(kept), fragment=""))
    told = secrets.hide(f"{shown(url)}: redirected to {shown(clean)}")
    fault = None
    if target.scheme not in ("http", "https") or (start.scheme, target.scheme) == ("https", "http"):
        fault = "expected http or https, and no way back from https"
    elif secrets and is_elsewhere:
        fault = "another server, to which the key is not sent"
    elif secrets.within(clean.encode()):
        fault = "where the key stands in the path"
    if fault:
        raise SourceError(f"{told}; {fault}. Correct the address of this source")
    return clean


def _is_elsewhere(url: str, other: str) -> bool:
    """Whether two addresses differ in scheme, host or port, stated or implied, whoever is to log in there."""
    one, two = (
        (parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme))
        for parts in map(urlsplit, (url, other))
    )
    return one != two


def _fault(answer: Answer, expect: Expect) -> tuple[str | None, bool]:
    """What is wrong with a body, None if nothing, and whether it may be the transfer's doing."""
    start = answer.content[:1024]
    begins = "of another server" if answer.moved else f"that starts '{_snippet(start)}'"
    if not start.strip():
        return "an empty body", True
    if _HTML.match(start):
        return "an HTML page", False
    if expect == "json":
        try:
            answer.json()
        except (ValueError, RecursionError):
            if start.lstrip()[:1] in (b"{", b"["):
                return "JSON that breaks off or is not well formed", True
            return f"text {begins}", False
    if expect == "xml" and not start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return f"text {begins}", False
    if expect == "zip":
        if not start.startswith(b"PK"):
            return f"a body {begins}", False
        if b"PK\x05\x06" not in answer.content[-65_557:]:
            return "an archive that breaks off", True
    return None, False


def _snippet(content: bytes) -> str:
    return printable(content.decode("utf-8", errors="replace"))


def _retry_after(stated: str | None, now: pd.Timestamp) -> float:
    """Seconds that a server asks to wait, stated as such or as a date (RFC 9110, 10.2.3); 0 where it asks nothing."""
    if stated is None:
        return 0.0
    if stated.strip().isdecimal():
        return min(float(stated), _YEAR_S)
    until = _instant(stated)
    return 0.0 if until is None else min(max(0.0, (until - now).total_seconds()), _YEAR_S)


def _instant(stated: str | None) -> pd.Timestamp | None:
    """An HTTP date, in UTC."""
    try:
        found = pd.Timestamp(parsedate_to_datetime(stated or ""))
    except (ValueError, OverflowError):
        return None
    return found.tz_localize("UTC") if found.tz is None else found.tz_convert("UTC")


def _charset(content_type: str) -> str | None:
    found = re.search(r"charset=\"?([\w.:-]+)", content_type, re.IGNORECASE)
    return found[1] if found and found[1].lower() not in ("utf-8", "utf8") else None


def _root(error: BaseException) -> BaseException:
    """The error at the bottom of what requests and urllib3 wrap around it."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((one for one in error.args if isinstance(one, BaseException)), None)
        if inner is None:
            inner = (
                error.__cause__ or error.__context__
                if isinstance(error, urllib3.exceptions.HTTPError)
                else None
            )
        if inner is None:
            return error
        error = inner


def _told(error: BaseException, cause: BaseException, timeouts: Timeouts) -> str:
    """What befell a request, in a few words without addresses."""
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {timeouts.connect:g} s"
    if isinstance(error, requests.ReadTimeout) or isinstance(
        cause, urllib3.exceptions.ReadTimeoutError | TimeoutError
    ):
        return f"silent for {timeouts.read:g} s"
    if isinstance(error, requests.exceptions.ProxyError):
        return f"the proxy does not answer ({cause})"
    if isinstance(error, ChunkedEncodingError | requests.exceptions.ContentDecodingError):
        return "an answer that breaks off"
    if isinstance(cause, socket.gaierror):
        return f"its name is not found ({cause.strerror})"
    if isinstance(cause, OSError):
        return f"no connection ({cause.strerror or cause})"
    return f"no answer ({cause})"
