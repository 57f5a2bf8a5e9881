"""The dashboard served: the same pages, and a read-only interface with its description at /openapi.json.

Nothing can be written: every method but GET and HEAD is refused, and POST is for the token alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from datetime import date
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from threading import Lock
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd
from fastapi import FastAPI, HTTPException, Request
from fastapi import Path as PathParam
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response

from forex_core import __version__
from forex_core.config import Settings
from forex_core.dashboard import api, pages
from forex_core.dashboard.reading import Reader
from forex_core.dashboard.sources import Series, TrackedRuns
from forex_core.databases import sqlite_path
from forex_core.errors import ForexError, InputError, LedgerUnavailable
from forex_core.serving import address_of, listening
from forex_core.types import Horizon, Pair

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "forex_dashboard"
COOKIE_DAYS = 30
FRESH_S = 30
"""A store that does not tell when it was changed is read again after so long."""
TURN_S = 600
"""Ages of what is shown are counted anew after so long."""
_WRONG_TOKEN_S = 0.5
_LOGIN = "/login"
_FORM_BYTES = 4096
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

PairPath = Annotated[str, PathParam(description="Currency pair, such as USDCLP.")]
HorizonPath = Annotated[str, PathParam(description="7d, 15d, 30d or 90d.")]


def serve(
    settings: Settings,
    tracked: TrackedRuns | None,
    host: str,
    port: int,
    token: str | None,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until the process is told to end; `on_ready` is given the address.

    Raises:
        ConfigError: the port is taken.
    """
    with listening(host, port) as socket:
        import uvicorn

        served = application(settings, tracked, token)
        # No line for each request: nothing of who reads what is kept.
        config = uvicorn.Config(served, log_level="warning", lifespan="off", server_header=False)
        server = uvicorn.Server(config)
        on_ready(address_of(socket))
        server.run(sockets=[socket])


def application(
    settings: Settings,
    tracked: TrackedRuns | None,
    token: str | None,
    now: Callable[[], pd.Timestamp] = lambda: pd.Timestamp.now("UTC"),
) -> Application:
    """The application that answers.

    Args:
        tracked: the tracking store, None where nothing is tracked.
        token: what whoever reads is asked for; None lets everybody who can connect.
    """

    def reader() -> Reader:
        return Reader(settings, tracked, now)

    app = FastAPI(
        title="Forex forecasts",
        version=__version__,
        description="What was published, what came of it, and how all stands. It only reads.",
        docs_url=None,  # the pages that FastAPI has for it fetch scripts from elsewhere
        redoc_url=None,
    )
    _add_interface(app, reader)
    _add_pages(app, settings, reader)
    _add_errors(app)
    login = _Login(token, reader) if token else None
    return _Guard(app, login, settings.dashboard.hosts)


def _add_interface(app: FastAPI, reader: Callable[[], Reader]) -> None:
    @app.get("/api/forecasts", summary="Newest forecasts")
    def forecasts(pair: str | None = None, horizon: str | None = None) -> list[api.PathForecast]:
        """The newest forecast of every pair and horizon, or of those that are asked for."""
        ahead = str(Horizon.parse(horizon)) if horizon else None
        return api.latest(reader(), Pair.parse(pair) if pair else None, ahead)

    @app.get("/api/dates/{pair}/{day}", summary="History of a target date")
    def date_history(pair: PairPath, day: date) -> api.DateHistory:
        """Everything that was said of one date, and what came."""
        return api.date_history(reader(), Pair.parse(pair), day)

    @app.get("/api/scores/{pair}/{horizon}", summary="Live scores by lead")
    def scores(pair: PairPath, horizon: HorizonPath, rate: str = "close") -> api.SeriesScores:
        """Live scores of the last year, at the horizon's end and at every lead."""
        found = reader()
        return api.scores(found, _series(found, pair, horizon, rate))

    @app.get("/api/champions/{pair}/{horizon}", summary="Champion history")
    def champions(pair: PairPath, horizon: HorizonPath, rate: str = "close") -> api.ChampionHistory:
        """Who was published when, and what was done to the champion."""
        found = reader()
        return api.champions(found, _series(found, pair, horizon, rate))

    @app.get("/api/health", summary="Health")
    def health() -> api.HealthAnswer:
        """How data and forecasts stand: silence, freshness, repairs, alarms."""
        return api.health(reader())


def _series(reader: Reader, pair: str, horizon: str, rate: str) -> Series:
    asked = Series(Pair.parse(pair), rate, Horizon.parse(horizon))
    if asked not in reader.series():
        known = ", ".join(f"{one.pair} {one.horizon} {one.rate}" for one in reader.series()) or "none yet"
        raise HTTPException(
            404, f"there is no forecast of {asked.pair} {asked.horizon} {rate}; there is {known}"
        )
    return asked


def _add_pages(app: FastAPI, settings: Settings, reader: Callable[[], Reader]) -> None:
    kept = _Kept(settings)

    @app.get("/", include_in_schema=False)
    @app.get("/{name}", include_in_schema=False)
    def page(name: str = pages.OVERVIEW) -> Response:
        found = kept.get(name, lambda: pages.page(name, reader(), served=True))
        if found is None:
            raise HTTPException(404, "there is no such page")
        return HTMLResponse(found)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ForexError)
    def told(request: Request, error: Exception) -> Response:
        status = (
            400 if isinstance(error, InputError) else 503 if isinstance(error, LedgerUnavailable) else 500
        )
        if request.url.path.startswith("/api/"):
            return JSONResponse({"detail": str(error)}, status)
        return PlainTextResponse(f"{error}\n", status)


class _Kept:
    """Pages as they were made last, until what they are made of changes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pages: dict[str, tuple[object, str]] = {}
        self._lock = Lock()

    def get(self, name: str, make: Callable[[], str | None]) -> str | None:
        with self._lock:  # a page that many ask for is made once
            stamp = self._stamp()
            before = self._pages.get(name)
            if before is not None and before[0] == stamp:
                return before[1]
            made = make()
            if made is not None:  # names that somebody makes up are not kept
                self._pages[name] = (stamp, made)
            return made

    def _stamp(self) -> object:
        """Another one whenever the stores may have changed."""
        stores = (self._settings.store_url, self._settings.mlflow_uri)
        return (int(time.monotonic() / TURN_S), *map(_changed, stores))


def _changed(url: str) -> object:
    path = sqlite_path(url)
    if path is None:
        return int(time.monotonic() / FRESH_S)
    return [_state(file) for file in (path, Path(f"{path}-wal"))]


def _state(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if found.st_size else None


class _Login:
    """Who knows the token is let in: by the header `Authorization: Bearer`, or by a cookie that the form gives.

    The cookie is made of the token and does not tell it.
    """

    def __init__(self, token: str, reader: Callable[[], Reader]) -> None:
        self._token = token.encode()
        self._cookie = hmac.digest(self._token, b"forex dashboard", hashlib.sha256).hex()
        self._reader = reader

    def knows(self, headers: MutableMapping[str, str]) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._cookie.encode())

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token)

    async def answer(self, scope: Scope, receive: Receive) -> Response:
        """The form, and what becomes of it."""
        if scope["method"] != "POST":
            return HTMLResponse(pages.login_page(self._reader(), refused=False))
        form = parse_qs((await _body(receive)).decode("utf-8", "replace"))
        if not self._is_token(form.get("token", [""])[0]):
            await asyncio.sleep(_WRONG_TOKEN_S)
            return HTMLResponse(pages.login_page(self._reader(), refused=True), 401)
        entered = RedirectResponse("./", 303)
        entered.set_cookie(
            COOKIE,
            self._cookie,
            max_age=COOKIE_DAYS * 24 * 3600,
            httponly=True,
            samesite="lax",
            secure=scope["scheme"] == "https",
        )
        return entered

    @staticmethod
    def refuse(path: str) -> Response:
        if path.startswith("/api/") or path == "/openapi.json":
            detail = "the token is wanted, as 'Authorization: Bearer TOKEN'"
            return JSONResponse({"detail": detail}, 401, {"www-authenticate": "Bearer"})
        if "/" in path[1:]:  # no page lies deeper, and from there `login` would be another address
            return PlainTextResponse("there is no such page\n", 404)
        return RedirectResponse("login", 303)


class _Guard:
    """Before everything else: by which name it is asked, by which method, by whom; and what every answer says."""

    def __init__(self, app: Application, login: _Login | None, hosts: Sequence[str]) -> None:
        self._app = app
        self._login = login
        self._hosts = {"localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        path, is_login = scope["path"], self._login is not None and scope["path"] == _LOGIN
        forms = "POST" if is_login else ""

        async def telling(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                told = _HEADERS | {
                    "content-security-policy": f"{pages.policy(forms=is_login)}; frame-ancestors 'none'",
                    "cache-control": "no-cache" if self._login is None else "no-store",
                }
                added = [(name.encode(), value.encode()) for name, value in told.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        if not self._is_ours(headers.get("host", "")):
            detail = "this name is not known here; FOREX_DASHBOARD__HOSTS has the names behind a proxy"
            response: Application = PlainTextResponse(f"{detail}\n", 400)
        elif scope["method"] not in ("GET", "HEAD", forms):
            allowed = "GET, HEAD, POST" if is_login else "GET, HEAD"
            response = JSONResponse({"detail": "the dashboard only reads"}, 405, {"allow": allowed})
        elif is_login and self._login:
            response = await self._login.answer(scope, receive)
        elif self._login and not self._login.knows(headers):
            response = self._login.refuse(path)
        else:
            response = self._app
        # What is answered to HEAD is what GET would be; the server leaves its body out.
        as_get = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        await response(as_get, receive, telling)

    def _is_ours(self, host: str) -> bool:
        """Whether it was asked by a name of its own: a page elsewhere can point one of its own at this machine."""
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        if name is None:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._hosts
        return True


async def _body(receive: Receive) -> bytes:
    """The beginning of what was sent, which is more than a form with a token takes."""
    read = b""
    while len(read) < _FORM_BYTES:
        message = await receive()
        read += message.get("body", b"")
        if not message.get("more_body"):
            break
    return read[:_FORM_BYTES]
