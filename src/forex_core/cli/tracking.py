"""`forex tracking`: upkeep of the tracking store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from forex_core.cli.app import (
    JsonOption,
    VerboseOption,
    configure_logging,
    plain,
    print_document,
    settings_from,
)
from forex_core.errors import TrackingError

tracking = typer.Typer(help="Upkeep of the tracking store.", no_args_is_help=True)


@tracking.command(
    epilog="""
**Examples**

    forex tracking replay
    forex tracking replay --json
    forex tracking replay --from sqlite:////srv/old/mlflow.db
"""
)
def replay(
    moved_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="OLD",
            help="Address that the store had before; what was meant for it is logged too.",
        ),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Log what the store could not take when it was out of reach, once each.

    May be run at any time and as often as one likes; what was logged already is not logged again. What belongs to
    another store stays, and is told.
    """
    from forex_core.report.listing import replay_table
    from forex_core.tracking.build import connect
    from forex_core.tracking.spool import replay_spool

    configure_logging(verbose)
    settings = settings_from(None, None, None)
    connect(settings)
    done = replay_spool(
        settings.spool_dir,
        settings.mlflow_uri,
        settings.mlflow_artifacts,
        settings.root,
        moved_from=moved_from,
    )
    print_document({"entries": [asdict(one) for one in done]}, as_json, replay_table)
    kept = [one.spool_id for one in done if one.outcome == "kept"]
    if kept:
        raise TrackingError(
            f"{len(kept)} of {len(done)} spooled runs could not be logged; the output says why"
        )


@tracking.command(
    epilog="""
**Examples**

    forex tracking relocate --from /srv/old/data/mlflow --to /srv/forex/data/mlflow
"""
)
def relocate(
    old: Annotated[
        str,
        typer.Option("--from", metavar="OLD", help="Folder or address that the store's files were below."),
    ],
    new: Annotated[
        str, typer.Option("--to", metavar="NEW", help="Folder or address that they are below now.")
    ],
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Rewrite where the store says its files are, after they were moved or copied.

    Move or copy the files first. The database is copied before it is changed; where to is printed.
    """
    from forex_core.report.listing import relocation_table
    from forex_core.tracking.copies import relocate

    configure_logging(verbose)
    settings = settings_from(None, None, None)
    copies: list[Path] = []
    changed = relocate(settings.mlflow_uri, old, new, on_copy=copies.append)
    document = {"from": old, "to": new, "changed": changed, "backup": str(copies[0])}
    print_document(document, as_json, relocation_table)


@tracking.command(
    epilog="""
**Examples**

    forex tracking sweep
    forex tracking sweep --json
"""
)
def sweep(as_json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """End runs as KILLED whose process is gone, and list those that have not ended.

    A run whose process lives is left alone, and so is one of another machine for 24 hours
    (FOREX_TRACKING__ORPHANED_AFTER_H), one whose end waits in the spool, and one that other programs began. Every
    forecast begins with it.
    """
    from forex_core.report.upkeep import swept_table
    from forex_core.tracking.orphans import sweep as swept

    configure_logging(verbose)
    settings = settings_from(None, None, None)
    found = [plain(asdict(one)) for one in swept(settings)]
    print_document({"runs": found}, as_json, swept_table)
