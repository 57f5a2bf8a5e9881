"""`forex rollback` and `forex promote`: another champion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forex_core.cli.app import (
    HorizonArgument,
    JsonOption,
    PairOption,
    PathOption,
    VerboseOption,
    configure_logging,
    print_document,
    progress_bar,
    settings_from,
)
from forex_core.config import SourceName
from forex_core.types import Horizon, Pair

if TYPE_CHECKING:
    from rich.console import RenderableType

    from forex_core.report.document import Document

ROLLBACK_EXAMPLES = """
**Examples**

What would be published instead, without changing anything:

    forex rollback 7d --pair USDCLP --dry-run

Back to the best previous model, and held there until another is promoted or the pin is taken away:

    forex rollback 7d --pair USDCLP --reason "bands too narrow since Monday"

Back to version 12, or to the version that a run made, or to the lowest logged RMSE:

    forex rollback 30d --to 12
    forex rollback 30d --to 3f9a2c1e
    forex rollback 30d --metric 30d_rmse

It was a mistake:

    forex rollback 7d --pair USDCLP --undo
"""
PROMOTE_EXAMPLES = """
**Examples**

The challenger, or version 14, in the champion's place, pinned or not:

    forex promote 7d --pair USDCLP --reason "data were repaired"
    forex promote 7d --to 14

The champion stays, and the pin that a rollback gave it goes, so that the next run may replace it:

    forex promote 7d --pair USDCLP --unpin
"""

DataSourceOption = Annotated[
    str | None,
    typer.Option(
        "--source",
        metavar="ecb|csv",
        help="Data to try the version on. [default: those of the pair's latest recorded run]",
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is recorded.")]
ToOption = Annotated[
    str | None,
    typer.Option("--to", metavar="RUN_ID|VERSION", help="Version to go to, or the run that made it."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Find the version, try it on the data, and change nothing.")
]


def rollback(
    horizon: HorizonArgument,
    pair: PairOption = None,
    to: ToOption = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="METRIC",
            help="Rank the versions by this metric of their runs, such as 7d_rmse; scores of different weeks do not "
            "compare. [default: scored now on the same origins]",
        ),
    ] = None,
    mode: Annotated[
        str, typer.Option("--mode", metavar="min|max", help="Whether the least or the greatest is the best.")
    ] = "min",
    dry_run: DryRunOption = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Put the champion back that the last rollback replaced.")
    ] = False,
    reason: ReasonOption = "",
    source: DataSourceOption = None,
    path: PathOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Put an earlier model back in the champion's place and hold it there.

    The version is tried on current data first, the database is copied, and who did it, when and why is logged. The
    next forecast is published by it. With --to, --metric or --undo the version is yours to choose; else it is the best
    previous one.
    """
    from forex_core.tracking.rollback import to_roll_back

    to_roll_back(to, metric, mode, undo)  # what excludes each other is refused before a server is started

    def run(options: dict[str, Any]) -> Any:
        from flows.rollback import rollback as flow

        return flow(**options, to=to, metric=metric, mode=mode, undo=undo)

    _run(horizon, pair, source, path, dry_run, reason, as_json, verbose, run)


def promote(
    horizon: HorizonArgument,
    pair: PairOption = None,
    to: ToOption = None,
    unpin: Annotated[
        bool, typer.Option("--unpin", help="Keep the champion and take its pin away; nobody is promoted.")
    ] = False,
    dry_run: DryRunOption = False,
    reason: ReasonOption = "",
    source: DataSourceOption = None,
    path: PathOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Put the challenger in the champion's place, which a pin does not prevent.

    The version is tried on current data first, as by `forex rollback`, and logged like it. With --unpin, or where there
    is no challenger, the champion stays, unpinned: the next sound state of its recipe replaces it.
    """
    from forex_core.tracking.rollback import to_promote

    to_promote(to, unpin)

    def run(options: dict[str, Any]) -> Any:
        from flows.rollback import promote as flow

        return flow(**options, to=to, unpin=unpin)

    _run(horizon, pair, source, path, dry_run, reason, as_json, verbose, run)


def _run(
    horizon: str,
    pair: str | None,
    source: str | None,
    path: list[Path] | None,
    dry_run: bool,
    reason: str,
    as_json: bool,
    verbose: bool,
    flow: Callable[[dict[str, Any]], Any],
) -> None:
    from flows import prepare_manual_run
    from forex_core.report.folder import prepare_folder
    from forex_core.report.text import succession_tables
    from forex_core.tracking import model_name, registry_from_settings

    configure_logging(verbose)
    ahead = Horizon.parse(horizon)
    settings = settings_from(pair, source, path)
    given: SourceName | None = settings.source if source or path else None
    prepare_folder(settings.root)
    server = prepare_manual_run(settings.root, verbose=verbose)
    champion = None
    if settings.tracking.is_on:  # before the server is waited for: of two commands at once both see the same
        registry, model = registry_from_settings(settings), model_name(Pair.parse(settings.pair), ahead)
        champion = registry.standing(model).champion_number
    with progress_bar(f"{settings.pair} {ahead}"):
        server.wait()
        document = flow(
            {
                "horizon": str(ahead),
                "pair": settings.pair,
                "dry_run": dry_run,
                "reason": reason,
                "source": given,
                "paths": list(settings.paths) if given else None,
                "champion": champion,
            }
        )
    print_document(document, as_json, lambda told: [*succession_tables(told), *way_back(told)])


def way_back(document: Document) -> list[RenderableType]:
    """The command that puts the champion back that a promotion replaced, held in place if it was."""
    from rich.text import Text

    if document["action"] != "promote" or document["dry_run"]:
        return []
    of = f"{document['horizon']} --pair {document['pair']} --to {document['from_version']}"
    if document["before"]["pin"]:
        return [Text(f"'forex rollback {of}' puts the former champion back and holds it there.")]
    return [Text(f"'forex promote {of}' puts the former champion back.")]
