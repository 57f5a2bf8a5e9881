"""`forex doctor`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from forex_core.cli.app import JsonOption, VerboseOption, configure_logging, print_document, settings_from
from forex_core.errors import ConfigError

if TYPE_CHECKING:
    from forex_core.doctor import Checked

EXAMPLES = """
**Examples**

    forex doctor
    forex doctor --online
    forex doctor --json
"""


def doctor(
    online: Annotated[
        bool, typer.Option("--online", help="Ask the sources of the data as well, over the network.")
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Look at everything that a forecast needs, and say what to do about what is wrong.

    Takes less than 15 seconds, changes nothing and leaves nothing behind. Exit code 0 when nothing failed (warnings are
    no failure), else 1. What each check means: docs/operations.md.
    """
    from forex_core.doctor import summary
    from forex_core.report.upkeep import doctor_lines

    configure_logging(verbose)
    began = time.monotonic()
    found = _examined(online, began)
    counts = summary(found)
    document = {
        "checks": [one.document for one in found],
        "summary": counts,
        "seconds": round(time.monotonic() - began, 2),
    }
    print_document(document, as_json, doctor_lines)
    if counts["failed"]:
        raise typer.Exit(1)


def _examined(online: bool, began: float) -> tuple[Checked, ...]:
    from flows import health
    from forex_core.doctor import CHECKS, LEAST_S, LIMIT_S, Checked, Finding, examine
    from forex_core.tracking.packaging import import_mlflow

    checks = (*CHECKS, *health.CHECKS)
    try:
        settings = settings_from(None, None, None)
    except ConfigError as error:
        first, *others = checks
        skipped = Finding("skipped", f"'{first.name}' did not come out well")
        return (
            Checked(first.name, Finding("failed", str(error)), 0.0),
            *(Checked(check.name, skipped, 0.0) for check in others),
        )
    import_mlflow()  # once, before the checks ask for parts of it at once
    left_s = LIMIT_S - (time.monotonic() - began)
    return examine(checks, settings, online=online, limit_s=max(left_s, LEAST_S))
