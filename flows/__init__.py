"""Prefect shells over `forex_core`: wiring, no arithmetic. The only place that imports Prefect."""

from __future__ import annotations

import atexit
import os
from pathlib import Path

from dotenv import dotenv_values

from flows.server import NamedServer, TemporaryServer


def names_a_server() -> bool:
    """Whether the user has chosen a server, or settings of Prefect that may name one."""
    return bool({"PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME"} & _chosen())


def _chosen() -> set[str]:
    """Names that the user has set where Prefect reads them."""
    return {*os.environ, *dotenv_values(".env")}


def prepare_manual_run(data_root: Path, *, verbose: bool) -> TemporaryServer | NamedServer:
    """Set up Prefect for a run by hand, before it is imported. What the user has set stays as it is.

    Without a choice of the user's, a server is started for the run, whose files go below `data_root` and which ends
    when this process ends; it is returned while it is still getting ready.
    """
    defaults = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # For a profile of the user's that names no server: Prefect then starts one of its own, and may be slow.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        # Block types are for servers that last; writing them takes seconds of a first run.
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO" if verbose else "CRITICAL",
    }
    chosen = _chosen()
    os.environ |= {name: value for name, value in defaults.items() if name not in chosen}
    if names_a_server():
        return NamedServer()
    home = data_root / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    os.environ["PREFECT_HOME"] = str(home)
    server = TemporaryServer()
    # Registered before Prefect is imported, so run after Prefect has sent what it still holds.
    atexit.register(server.stop)
    os.environ["PREFECT_API_URL"] = server.api_url
    return server
