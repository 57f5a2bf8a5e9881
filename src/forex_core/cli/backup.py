"""`forex backup`: archives of everything that cannot be computed again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forex_core.cli.app import (
    JsonOption,
    VerboseOption,
    configure_logging,
    plain,
    print_document,
    progress_bar,
    settings_from,
)
from forex_core.errors import BackupError

if TYPE_CHECKING:
    from forex_core.backup import Backups

backup = typer.Typer(
    help="Archives of runs, models, observations and reports: made while all goes on, verified, restored.",
    no_args_is_help=True,
)

PlaceOption = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="DIR|s3://…",
        help="Place of the archives. [default: FOREX_BACKUP__TO, or backups in the data folder]",
    ),
]
ArchiveArgument = Annotated[
    str,
    typer.Argument(
        metavar="ARCHIVE",
        help="Address of an archive, as create and list give it, or 'latest' for the newest of this data folder.",
    ),
]


@backup.command(
    epilog="""
**Examples**

    forex backup create
    forex backup create --to /mnt/disk/forex
    forex backup create --to s3://bucket/forex --json
"""
)
def create(
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="DIR|s3://…",
            help="Place of the archives. [default: FOREX_BACKUP__TO, or backups in the data folder]",
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Read every file and write every object, also what has not changed."),
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make an archive while runs and servers go on.

    What has not changed since the last archive is not read again, and every content is kept once. Exit code 1 also
    when files are missing that were there at the last archive; the archive is made all the same, and says which.
    """
    from forex_core.report.archives import created_lines

    configure_logging(verbose)
    with progress_bar("backup") as advance:
        made = _backups().create(to, full=full, advance=advance)
    print_document(plain(made.document), as_json, created_lines)
    if made.newly_missing:
        raise BackupError(
            f"the archive was made, but {len(made.newly_missing)} files are missing that were there at the last one, "
            f"such as {made.newly_missing[0]}; bring them back from an archive of before"
        )


@backup.command(
    name="list",
    epilog="""
**Examples**

    forex backup list
    forex backup list --at s3://bucket/forex --json
""",
)
def list_archives(
    at: PlaceOption = None, as_json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """List the archives of a place, the newest first."""
    from forex_core.report.archives import archives_table

    configure_logging(verbose)
    backups = _backups()
    document = {
        "place": backups.place(at),
        "archives": [plain(one.document) for one in reversed(backups.archives(at))],
    }
    print_document(document, as_json, archives_table)


@backup.command(
    epilog="""
**Examples**

    forex backup verify latest
    forex backup verify /mnt/disk/forex/forex-20261128T123000.000000Z.jsonl.zst
"""
)
def verify(archive: ArchiveArgument, as_json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """Read all of an archive and compare it with what was put into it. Exit code 1 when it cannot be restored."""
    from forex_core.report.archives import verified_lines

    configure_logging(verbose)
    with progress_bar("verify") as advance:
        found = _backups().verify(archive, advance)
    print_document(plain(found.document), as_json, verified_lines)


@backup.command(
    epilog="""
**Examples**

    forex backup restore latest
    forex backup restore latest --to /srv/forex/restored
    forex backup restore s3://bucket/forex/forex-20261128T123000.000000Z.jsonl.zst
"""
)
def restore(
    archive: ArchiveArgument,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="DIR",
            help="A new or empty folder, which becomes a data folder with SQLite and files. [default: over the data "
            "folder and the back ends of the settings]",
        ),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Restore an archive: verified, checked as a store with its champions, then put in place in one step.

    What was there is kept, and where is said. Over a data folder nothing may use it: stop the server, the worker,
    MLflow's pages and the dashboard first.
    """
    from forex_core.report.archives import restored_lines

    configure_logging(verbose)
    with progress_bar("restore") as advance:
        done = _backups().restore(archive, to, advance)
    print_document(plain(done.document), as_json, restored_lines)


@backup.command(
    epilog="""
**Examples**

    forex backup prune --dry-run
    FOREX_BACKUP__KEEP_DAILY=14 forex backup prune
"""
)
def prune(
    at: PlaceOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Verify, say what would go, and remove nothing.")
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Remove archives that are older than the settings keep, after those that stay have been verified.

    Kept are the newest of each of the last 7 days, 4 weeks and 12 months that have one (FOREX_BACKUP__KEEP_DAILY …).
    Exit code 1 when an archive is damaged; it stays, and counts for nothing.
    """
    from forex_core.report.archives import pruned_lines

    configure_logging(verbose)
    with progress_bar("prune") as advance:
        done = _backups().prune(at, dry_run=dry_run, advance=advance)
    print_document(plain(done.document | {"dry_run": dry_run}), as_json, pruned_lines)
    if done.damaged:
        raise BackupError(
            f"{len(done.damaged)} archives are damaged; 'forex backup create --full' writes anew what the data folder "
            "still has, and what cannot be mended is removed by hand"
        )


def _backups() -> Backups:
    from forex_core.backup import Backups
    from forex_core.tracking.archived import ArchivedStore

    return Backups(settings_from(None, None, None), ArchivedStore())
