"""`forex notify`: messages to people."""

from __future__ import annotations

import socket
from dataclasses import asdict
from typing import Annotated

import typer

from forex_core.cli.app import JsonOption, VerboseOption, configure_logging, print_document, settings_from
from forex_core.errors import ConfigError, NotifyError

notify = typer.Typer(help="Messages by mail, chat or webhook.", no_args_is_help=True)


@notify.command(
    "test",
    epilog="""
**Examples**

    forex notify test
    forex notify test --report --json
""",
)
def send_test(
    report: Annotated[
        bool,
        typer.Option(
            "--report", help="To those who are sent reports, and not to those who are told of events."
        ),
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Send a test message to every target of the settings, and show who got it.

    Targets are addresses of Apprise in FOREX_NOTIFY__URLS, and those of the Prefect Secret block that
    FOREX_NOTIFY__PREFECT_BLOCK names; with --report those in FOREX_REPORT__URLS and FOREX_REPORT__PREFECT_BLOCK.
    Exit code 1 when a target refused it, 2 when there is none.
    """
    from forex_core.notify import Message, Notifier
    from forex_core.report.upkeep import sent_table

    configure_logging(verbose)
    settings = settings_from(None, None, None)
    group = settings.report if report else settings.notify
    if group.prefect_block:
        from flows import prepare_manual_run

        prepare_manual_run(settings.root, verbose=verbose).wait()

        from flows.notice import notifier_of, readers_of

        notifier = (readers_of if report else notifier_of)(settings)
    else:
        notifier = Notifier(settings.notify.model_copy(update={"urls": group.urls}))
    if not notifier.targets:
        raise ConfigError(
            f"there is nobody to tell; name targets in FOREX_{'REPORT' if report else 'NOTIFY'}__URLS, one or a JSON "
            "list, such as mailto://user:password@example.com?to=desk@example.com"
        )
    where = f"{settings.environment} on {socket.gethostname()}"
    message = Message("Test of forex-forecast", f"This is a test. Messages of {where} arrive here.")
    sent = notifier.send(message)
    document = {"title": message.title, "deliveries": [asdict(one) for one in sent.deliveries]}
    print_document(document, as_json, sent_table)
    if sent.refused:
        raise NotifyError(
            f"{len(sent.refused)} of {len(sent.deliveries)} targets refused the message; the output says why"
        )
