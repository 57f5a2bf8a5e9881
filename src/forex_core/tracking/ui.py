"""MLflow's pages over a store that they can only read: one process, no jobs, nothing written whatever a page asks."""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
import warnings
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import quote

from forex_core.config import Settings
from forex_core.databases import is_database, is_postgres, sqlite_path
from forex_core.errors import ConfigError, TrackingError
from forex_core.secrecy import without_password
from forex_core.serving import address_of, listening
from forex_core.tracking.build import connect
from forex_core.tracking.queries import existing_store
from forex_core.tracking.store import normalised, release

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
# What the pages ask by POST and is a question all the same.
_QUESTION = re.compile(r"/(search|search-datasets|graphql|batchGet|query)$")
_CHALLENGE = (b"www-authenticate", b'Basic realm="MLflow"')
_REFUSAL = "these pages only read; nothing was changed"


def serve_ui(settings: Settings, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve the pages until the process is told to end; `on_ready` is given their address.

    Raises:
        ConfigError: the store is a server, which has pages of its own, or the port is taken.
        TrackingError: there is no store yet, or it cannot be read.
    """
    uri = settings.mlflow_uri
    if not is_database(uri):
        raise ConfigError(f"the tracking store is a server; its pages are at {without_password(uri)}")
    connect(settings)
    with existing_store(uri) as client:
        if client is None:
            raise TrackingError(
                f"there is no tracking store at {without_password(uri)} yet; the first forecast makes it"
            )
    release(uri)  # what looked at it could have written
    if path := sqlite_path(uri):
        # MLflow takes the address below for a path, and makes the folder that it would lie in: this one is there.
        os.chdir(path.parent)
    with listening(host, port) as socket:
        import uvicorn

        application = _application(_read_only(uri), settings.mlflow_artifacts)
        if settings.tracking.ui_auth is not None:
            application = _asking(application, settings.tracking.ui_auth.get_secret_value())
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning", lifespan="off"))
        on_ready(address_of(socket))  # who connects waits in line until it answers
        server.run(sockets=[socket])


def _read_only(uri: str) -> str:
    """The address of the same database, opened so that it cannot be written; one in a file from the file's folder."""
    path = sqlite_path(uri)
    if path is not None:
        return f"sqlite:///file:{quote(path.name)}?mode=ro&uri=true"
    if is_postgres(uri):
        from sqlalchemy.engine import make_url

        url = make_url(normalised(uri))
        options = f"{url.query.get('options', '')} -c default_transaction_read_only=on".strip()
        return str(url.update_query_dict({"options": options}).render_as_string(hide_password=False))
    return uri  # an address with options of its own


def _application(uri: str, artifacts: str) -> Application:
    """MLflow's application on this store, which refuses what is no question."""
    # What MLflow's own command hands to its workers; they are this process.
    os.environ |= {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "_MLFLOW_SERVER_FILE_STORE": uri,
        "_MLFLOW_SERVER_REGISTRY_STORE": uri,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": artifacts,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what MLflow uses of Starlette
        from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(uri, uri, artifacts)

    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in _READING and not _is_question(scope):
            await _refuse(send)
            return
        await app(scope, receive, send)

    return reading


def _asking(application: Application, auth: str) -> Application:
    """The same for who knows `user:password`, by the header that browsers and proxies send; `/health` tells nothing."""
    expected = b"Basic " + base64.b64encode(auth.encode())

    async def asking(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, expected):
                await _answer(send, 401, b"a user and a password are wanted", b"text/plain", (_CHALLENGE,))
                return
        await application(scope, receive, send)

    return asking


def _is_question(scope: Scope) -> bool:
    return scope["method"] == "POST" and _QUESTION.search(scope["path"]) is not None


async def _refuse(send: Send) -> None:
    body = json.dumps({"error_code": "PERMISSION_DENIED", "message": _REFUSAL}).encode()
    await _answer(send, 403, body, b"application/json")


async def _answer(
    send: Send, status: int, body: bytes, kind: bytes, more: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
