"""`forex dashboard`."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from forex_core.cli.app import (
    JsonOption,
    VerboseOption,
    configure_logging,
    print_document,
    print_lines,
    settings_from,
    stderr,
    stdout,
)
from forex_core.config import Settings
from forex_core.errors import InputError
from forex_core.secrecy import without_password
from forex_core.serving import LOOPBACK
from forex_core.types import Pair

if TYPE_CHECKING:
    from forex_core.dashboard import TrackedRuns

EXAMPLES = """
**Examples**

    forex dashboard
    forex dashboard --last 3 --pair USDCLP
    forex dashboard --html site
    forex dashboard --serve
    forex dashboard --serve --token --port 8051
"""


def dashboard(
    last: Annotated[int, typer.Option("--last", metavar="N", min=1, help="Runs of each horizon.")] = 5,
    pair: Annotated[
        str | None,
        typer.Option("--pair", metavar="PAIR", help="Runs of this currency pair alone. [default: all pairs]"),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="DIR", help="Write the pages into this folder, which they make theirs."
        ),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the pages and a read-only interface until interrupted.")
    ] = False,
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Where to listen; others than this machine's see it too."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="PORT", min=1, max=65535)] = 8050,
    token: Annotated[
        bool,
        typer.Option(
            "--token",
            help="Ask readers for a token: that of FOREX_DASHBOARD__TOKEN, or a new one that is printed. With the "
            "setting it is always asked for.",
        ),
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show how the forecasts stand: the newest runs here, and pages with charts by --html or --serve.

    The pages need nothing but themselves: the newest forecasts with their bands and verdicts, the live record of each
    horizon with every forecast of the past beside what came, champions, health of data and runs. RMSE is in units of
    the quote currency; RMSE/RW below 1 beats the random walk.
    """
    from forex_core.dashboard import Reader, runs_document, runs_tables, write_site
    from forex_core.tracking.build import runs_from_settings

    configure_logging(verbose)
    if serve and (html or as_json):
        raise InputError("--serve goes with neither --html nor --json; give one of them")
    settings = settings_from(pair, None, None)
    tracked = runs_from_settings(settings)
    if serve:
        _serve(settings, tracked, host, port, token)
        return
    reader = Reader(settings, tracked)
    if html is not None:
        written = write_site(html, reader)
        document = {"index": str(written.index), "pages": written.pages, "bytes": written.bytes}
        told = f"{written.pages} pages, {written.bytes / 1e6:.1f} MB: {written.index}"
        print_document(document, as_json, lambda _: [Text(told)])
        return
    one_pair = Pair.parse(pair) if pair else None
    found, untold = reader.runs(last, one_pair)
    store = without_password(settings.mlflow_uri)
    print_document(
        runs_document(found, untold, store, str(one_pair) if one_pair else None), as_json, runs_tables
    )


def _serve(settings: Settings, tracked: TrackedRuns | None, host: str, port: int, asked: bool) -> None:
    from forex_core.dashboard.server import serve

    given = settings.dashboard.token
    token = given.get_secret_value() if given else secrets.token_urlsafe(24) if asked else None
    if token is None and host not in LOOPBACK:
        warning = f"Everybody who can reach {host} can read these pages; --token asks them for a token."
        print_lines(stderr, Text(warning, style="yellow"))

    def ready(address: str) -> None:
        told = [address, *([f"Token: {token}"] if token and not given else []), "Interrupt (Ctrl-C) to end."]
        print_lines(stdout, Text("\n".join(told)))

    serve(settings, tracked, host, port, token, ready)
