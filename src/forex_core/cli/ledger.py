"""`forex ledger` and `forex monitor`: what was published, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from forex_core.cli.app import (
    JsonOption,
    PairOption,
    PathOption,
    SourceOption,
    VerboseOption,
    configure_logging,
    day_of,
    print_document,
    settings_from,
)
from forex_core.errors import InputError
from forex_core.types import SHORT_ID, Horizon, Pair

if TYPE_CHECKING:
    from forex_core.config import Settings
    from forex_core.ledger import Ledger

MONITOR_EXAMPLES = """
**Examples**

    forex monitor --pair USDCLP
    forex monitor --source csv --path market.csv --pair USDCLP --json
"""

ledger = typer.Typer(
    no_args_is_help=True, help="Every published forecast, as it was published, with what came of it."
)


def monitor(
    pair: PairOption = None,
    source: SourceOption = None,
    path: PathOption = None,
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            metavar="DATE",
            help="Look back at what was said and known when the desk opened after this day; no alarm is kept and "
            "nothing is done. [default: now]",
        ),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Score published forecasts as their outcomes come, and say what is wrong.

    Every forecast is scored at its exact lead, beside the random walk. Alarms are of bands that do not hold, of a skill
    worse than the random walk's, of a rate that moves otherwise than it did, and of forecasts that were not made. Each
    is raised once and told to those of FOREX_NOTIFY__URLS, whoever asks; what reaches nobody is told by the next run.
    Exit code 1 when one is raised.
    """
    from flows import prepare_manual_run
    from forex_core.report.track import monitor_tables

    configure_logging(verbose)
    day = day_of("--as-of", as_of)
    settings = settings_from(pair, source, path)
    server = prepare_manual_run(settings.root, verbose=verbose)
    from flows.monitor import monitor as flow

    server.wait()
    document = flow(pair=settings.pair, source=settings.source, paths=list(settings.paths), as_of=day)
    assert isinstance(document, dict)  # Prefect hands on what a state holds
    print_document(document, as_json, monitor_tables)
    if document["raised"]:
        raise typer.Exit(1)


@ledger.command(
    "list",
    epilog="""
**Examples**

    forex ledger list
    forex ledger list --pair USDCLP --horizon 7d --last 5 --json
""",
)
def list_forecasts(
    pair: PairOption = None,
    horizon: Annotated[
        str | None, typer.Option("--horizon", metavar="HORIZON", help="7d, 15d, 30d or 90d. [default: all]")
    ] = None,
    last: Annotated[int, typer.Option("--last", metavar="N", help="How many of the newest.")] = 20,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List published forecasts, the newest last."""
    from forex_core.report.track import ledger_table, published_document

    configure_logging(verbose)
    if last < 1:
        raise InputError(f"found {last} forecasts to list; expected 1 or more")
    of, ahead = Pair.parse(pair) if pair else None, Horizon.parse(horizon) if horizon else None
    kept = _ledger(settings_from(None, None, None))
    found = kept.publications(of, ahead, last=last) if kept else ()
    document = {
        "pair": str(of) if of else None,
        "horizon": str(ahead) if ahead else None,
        "forecasts": [published_document(one) for one in found],
    }
    print_document(document, as_json, ledger_table)


@ledger.command(
    epilog="""
**Examples**

    forex ledger show 12
    forex ledger show 3f2a9c1e
    forex ledger show latest --pair USDCLP --horizon 7d
"""
)
def show(
    which: Annotated[
        str,
        typer.Argument(
            metavar="FORECAST",
            help="Number of the forecast, or the 8 characters of its run, as list gives them; or 'latest' with "
            "--horizon.",
        ),
    ],
    pair: PairOption = None,
    horizon: Annotated[
        str | None,
        typer.Option("--horizon", metavar="HORIZON", help="Of latest: 7d, 15d, 30d or 90d."),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show the path of a forecast, and what came."""
    from forex_core.report.track import trajectory_document, trajectory_table

    configure_logging(verbose)
    is_latest = which == "latest"
    if not is_latest and (pair or horizon):
        raise InputError(
            f"--pair and --horizon go with latest alone; found {which}: leave them out, or ask for latest"
        )
    if is_latest and not horizon:
        raise InputError(
            "found latest without a horizon; expected one beside it: add --horizon 7d, 15d, 30d or 90d"
        )
    settings = settings_from(pair, None, None)
    kept = _ledger(settings)
    if kept is None:
        raise InputError("no forecast has been published yet; forex forecast 7d publishes one")
    number = (
        _latest(kept, Pair.parse(settings.pair), Horizon.parse(horizon)) if horizon else _number(kept, which)
    )
    print_document(trajectory_document(kept.path(number)), as_json, trajectory_table)


def _latest(kept: Ledger, pair: Pair, horizon: Horizon) -> int:
    """Number of the forecast of the newest origin."""
    found = [one for one in kept.latest() if (one.pair, one.horizon) == (pair, horizon)]
    if not found:
        raise InputError(
            f"found no {horizon} forecast of {pair} in the ledger; forex ledger list shows those that there are"
        )
    if len(found) > 1:
        each = ", ".join(f"{one.number} of the {one.rate} rate" for one in found)
        raise InputError(
            f"found a latest {horizon} forecast of {pair} for each of {len(found)} rates; give the number of the one "
            f"you mean: {each}"
        )
    return found[0].number


def _number(kept: Ledger, which: str) -> int:
    """Number of the forecast that is meant by its number, or by what is shown of its run's id, or more of that."""
    text = which.strip().lower()
    is_number = text.isascii() and text.isdigit()
    if is_number and len(text) < SHORT_ID:
        return int(text)
    if len(text) < SHORT_ID:
        raise InputError(
            f"found '{which}', expected the number of a forecast, the {SHORT_ID} characters of its run, or latest; "
            "forex ledger list shows numbers and runs"
        )
    found = kept.of_run(text)
    if len(found) > 1:
        some = ", ".join(f"{one.number} (run {one.run_id})" for one in found[:5])
        more = " and more" if len(found) > 5 else ""
        raise InputError(
            f"found several forecasts whose run begins with {text}: {some}{more}; give the number of the one you mean, "
            "or more of its run"
        )
    if not found:
        raise InputError(
            f"found no forecast whose run begins with {text}; forex ledger list shows those that there are"
        )
    return found[0].number


@ledger.command("date", epilog="**Example**\n\n    forex ledger date 2026-11-30 --pair USDCLP\n")
def of_date(
    day: Annotated[str, typer.Argument(metavar="DATE", help="A target date.")],
    pair: PairOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show what was said of one date, from the first forecast of it to the last."""
    from forex_core.report.track import date_table

    configure_logging(verbose)
    wanted = day_of("DATE", day)
    assert wanted is not None
    settings = settings_from(pair, None, None)
    kept, currencies = _ledger(settings), Pair.parse(settings.pair)
    said = kept.for_date(currencies, wanted) if kept else ()
    document = {
        "pair": str(currencies),
        "target_date": wanted.isoformat(),
        "outcomes": kept.outcomes_of(currencies, wanted) if kept else {},
        "forecasts": [
            {
                "number": one.number,
                "run_id": one.run_id,
                "horizon": str(one.horizon),
                "rate": one.rate,
                "origin": one.origin.isoformat(),
                "published_at": one.published_at.isoformat(),
                "live": one.live,
                "step": step,
                "median": quantiles[0.5],
                "low_80": quantiles[0.1],
                "high_80": quantiles[0.9],
                "low_95": quantiles[0.025],
                "high_95": quantiles[0.975],
            }
            for one, step, quantiles in said
        ],
    }
    print_document(document, as_json, date_table)


@ledger.command(epilog="**Examples**\n\n    forex ledger verify\n    forex ledger verify --json\n")
def verify(as_json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """Read all of the ledger and say what was changed since it was written. Exit code 1 when something was.

    Digests that runs recorded are compared as well, so that a ledger that was cut off or made anew does not pass, nor
    one to which a forecast was added that nobody published.
    """
    from forex_core.ledger import Audit, Pending, unaccounted
    from forex_core.report.track import audit_document, audit_lines

    configure_logging(verbose)
    settings = settings_from(None, None, None)
    kept, (anchors, vouched) = _ledger(settings), _recorded(settings)
    nothing = Audit(0, 0, 0, 0, 0, "0" * 64, tuple(unaccounted(anchors)))
    audit = kept.verify(anchors, vouched) if kept else nothing
    document = audit_document(audit, len(Pending(settings.pending_dir)))
    print_document(document, as_json, audit_lines)
    if audit.faults:
        raise typer.Exit(1)


def _ledger(settings: Settings) -> Ledger | None:
    """The ledger; None where nothing has been written yet, which a question does not change."""
    from forex_core.ledger import Ledger

    found = Ledger(settings.store_url, settings.root)
    return found if found.is_made else None


def _recorded(settings: Settings) -> tuple[list[tuple[str, str]], set[str] | None]:
    """Runs with the digests of the ledger that they recorded, and those of forecasts; None where none records any."""
    from forex_core.tracking import ALARM_TAG, ENTRY_TAG, LEDGER_TAG, OUTCOME_TAG, queries

    if not settings.tracking.is_on:
        return [], None
    with queries.existing_store(settings.mlflow_uri) as client:
        if client is None:
            return [], set()
        found = (queries.ledger_digests(client, tag) for tag in (LEDGER_TAG, OUTCOME_TAG, ALARM_TAG))
        anchors = [recorded for one in found for recorded in one.items()]
        return anchors, {*queries.ledger_digests(client, ENTRY_TAG).values()}
