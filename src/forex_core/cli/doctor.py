"""`forex doctor`."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Annotated

import typer

from forex_core.cli.app import JsonOption, VerboseOption, configure_logging, print_document, settings_from
from forex_core.errors import ConfigError, NotifyError

if TYPE_CHECKING:
    from forex_core.doctor import Checked

EXAMPLES = """
**Examples**

    forex doctor
    forex doctor --online
    forex doctor --json
    forex doctor --tell
"""


def doctor(
    online: Annotated[
        bool, typer.Option("--online", help="Ask the sources of the data as well, over the network.")
    ] = False,
    tell: Annotated[
        bool,
        typer.Option(
            "--tell",
            help="Send what failed or has a warning to those of FOREX_NOTIFY__URLS, without Prefect and its pool.",
        ),
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Look at everything that a forecast needs, and say what to do about what is wrong.

    Takes less than 15 seconds, changes nothing and leaves nothing behind. Exit code 0 when nothing failed (warnings are
    no failure), else 1; with --tell 1 as well when nobody could be reached, 2 when nobody is named. What each check
    means: docs/operations.md.
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
    wrong = [one for one in found if one.finding.state in ("failed", "warning")]
    if tell and wrong:
        _tell(wrong)
    if counts["failed"]:
        raise typer.Exit(1)


def _tell(wrong: list[Checked]) -> None:
    """Send findings from this process: what Prefect would need to do it may be what is wrong."""
    from forex_core.notify import Message, Notifier

    settings = settings_from(None, None, None)
    notifier = Notifier(settings.notify)
    if not notifier.targets:
        raise ConfigError("there is nobody to tell without Prefect; name targets in FOREX_NOTIFY__URLS")
    lines = [
        f"{one.finding.state} {one.name}: {one.finding.found}"
        + (f" → {one.finding.todo}" if one.finding.todo else "")
        for one in sorted(wrong, key=lambda one: one.finding.state)
    ]
    failed = any(one.finding.state == "failed" for one in wrong)
    title = f"forex doctor: not all is well with {settings.environment} on {socket.gethostname()}"
    sent = notifier.send(Message(title, "\n".join(lines), kind="failure" if failed else "warning"))
    if not sent.delivered:
        reasons = "; ".join(f"{one.target}: {one.reason}" for one in sent.refused)
        raise NotifyError(f"what is wrong reached nobody: {reasons}")


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
