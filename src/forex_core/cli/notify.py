"""`forex notify`: messages to people."""

from __future__ import annotations

import socket
from dataclasses import asdict

import typer

from forex_core.cli.app import JsonOption, VerboseOption, configure_logging, print_document, settings_from
from forex_core.errors import ConfigError, NotifyError

notify = typer.Typer(help="Messages by mail, chat or webhook.", no_args_is_help=True)


@notify.command(
    "test",
    epilog="""
**Examples**

    forex notify test
    forex notify test --json
""",
)
def send_test(as_json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """Send a test message to every target of the settings, and show who got it.

    Targets are addresses of Apprise in FOREX_NOTIFY__URLS, and those of the Prefect Secret block that
    FOREX_NOTIFY__PREFECT_BLOCK names. Exit code 1 when a target refused it, 2 when there is none.
    """
    from forex_core.notify import Message, Notifier
    from forex_core.report.upkeep import sent_table

    configure_logging(verbose)
    settings = settings_from(None, None, None)
    if settings.notify.prefect_block:
        from flows import prepare_manual_run

        prepare_manual_run(settings.root, verbose=verbose).wait()

        from flows.notice import notifier_of

        notifier = notifier_of(settings)
    else:
        notifier = Notifier(settings.notify)
    if not notifier.targets:
        raise ConfigError(
            "there is nobody to tell; name targets in FOREX_NOTIFY__URLS, one or a JSON list, such as "
            "mailto://user:password@example.com?to=desk@example.com"
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
