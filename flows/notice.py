"""Whom flows tell, also by a Prefect Secret block, and the flow `alert` that tells them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import httpx
from loguru import logger
from prefect import flow
from prefect.blocks.system import Secret
from prefect.exceptions import PrefectException

from flows.logs import connect_logging
from forex_core.config import Settings, load_settings
from forex_core.errors import ConfigError, NotifyError
from forex_core.notify import Kind, Message, Notifier

Document = dict[str, Any]

LIMIT_S = 5 * 60
"""Of an alert, which has a minute for each target, all at once: what else waits in line is to be told as well."""


def notifier_of(settings: Settings) -> Notifier:
    """Whoever is to be told of events by the settings and by the Secret block that they name.

    Raises:
        ConfigError: when there is no such block, it cannot be read, or it holds no addresses.
    """
    name = settings.notify.prefect_block
    return Notifier(settings.notify, _addresses(name, "notify") if name else ())


def readers_of(settings: Settings) -> Notifier:
    """Whoever is sent reports, which are others.

    Raises:
        ConfigError: as `notifier_of`.
    """
    name = settings.report.prefect_block
    config = settings.notify.model_copy(update={"urls": settings.report.urls})
    return Notifier(config, _addresses(name, "report") if name else ())


def _addresses(name: str, group: str) -> list[str]:
    """The addresses in a Secret block that a group of settings names: one, one a line, or a list."""
    load: Callable[..., Any] = Secret.load  # takes `_sync`, which its type does not tell
    try:
        block: Secret[Any] = load(name, _sync=True)
    except ValueError as error:
        raise ConfigError(
            f"there is no Prefect Secret block '{name}' ({group}.prefect_block); make it on this server, with the "
            "addresses as its value"
        ) from error
    except (PrefectException, httpx.HTTPError, RuntimeError) as error:
        raise ConfigError(
            f"the Prefect Secret block '{name}' ({group}.prefect_block) could not be read ({type(error).__name__}); "
            "check the server that PREFECT_API_URL names"
        ) from error
    value = block.get()
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip().startswith("[") else value.split()
        except json.JSONDecodeError:
            value = None  # told below, without what was found
    if not isinstance(value, list) or not all(isinstance(address, str) for address in value):
        raise ConfigError(
            f"what the Prefect Secret block '{name}' holds is no address and no list of addresses; expected one, one a "
            "line, or a JSON list"
        )
    return value


@flow(
    name="alert",
    description="Tell people that something happened.",
    validate_parameters=True,
    timeout_seconds=LIMIT_S,
    persist_result=False,
    result_serializer="json",  # Prefect keeps the error of a flow that fails, by default as a pickle
)
def alert(title: str, text: str, kind: Kind = "failure") -> Document:
    """Send a message to every target.

    Args:
        title: one line.
        text: what happened, and what to do.
        kind: info, success, warning or failure.

    Raises:
        NotifyError: when it reached nobody. With no targets at all it does nothing, and says so in the log.
    """
    connect_logging()
    sent = notifier_of(load_settings()).send(Message(title, text, kind=kind))
    if not sent.deliveries:
        logger.warning("there is nobody to tell of '{}'; name targets in FOREX_NOTIFY__URLS", title)
    if sent.refused and not sent.delivered:
        reasons = "; ".join(f"{one.target}: {one.reason}" for one in sent.refused)
        raise NotifyError(f"'{title}' reached nobody: {reasons}")
    return {"title": title, "deliveries": [asdict(one) for one in sent.deliveries]}
