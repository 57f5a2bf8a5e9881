"""Prefect shells over `forex_core`: wiring, no arithmetic. The only place that imports Prefect."""

from __future__ import annotations

import os
from pathlib import Path


def prepare_manual_run(data_root: Path, *, verbose: bool) -> None:
    """Set up Prefect for a run by hand, before it is imported. What the user has set stays as it is.

    Without a server of the user's, Prefect starts one of its own for the run; its files go below `data_root`.
    """
    chosen = {"PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME"} & set(os.environ)
    if not chosen:
        home = data_root / "prefect"
        home.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(home)
    defaults = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # A cold start on a busy small machine takes longer than the 20 s that Prefect allows.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        # Block types are for servers that last; writing them takes seconds of a first run.
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO" if verbose else "CRITICAL",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
