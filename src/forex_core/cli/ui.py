"""`forex ui`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from forex_core.cli.app import VerboseOption, configure_logging, print_lines, settings_from, stderr, stdout
from forex_core.serving import LOOPBACK

EXAMPLES = """
**Examples**

    forex ui
    forex ui --port 5001
"""


def ui(
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Where to listen; others than this machine's see it too."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="PORT", min=1, max=65535)] = 5000,
    verbose: VerboseOption = False,
) -> None:
    """Show the tracking store in MLflow's pages, which can only read it, until interrupted.

    Whoever opens them is asked for the user:password of FOREX_TRACKING__UI_AUTH, where that is set. Where runs are
    found there: docs/tracking.md.
    """
    from forex_core.tracking.ui import serve_ui

    configure_logging(verbose)
    settings = settings_from(None, None, None)
    if settings.tracking.ui_auth is None and host not in LOOPBACK:
        warning = f"Everybody who can reach {host} can read these pages; FOREX_TRACKING__UI_AUTH asks for a password."
        print_lines(stderr, Text(warning, "yellow"))
    hint = "#/experiments?workflowType=machine_learning"
    serve_ui(
        settings,
        host,
        port,
        lambda address: print_lines(stdout, Text(f"{address}/{hint}\nInterrupt (Ctrl-C) to end.")),
    )
