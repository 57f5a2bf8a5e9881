"""`forex data`: the store of observations, what was known when."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forex_core.cli.app import (
    CsvOption,
    JsonOption,
    PairOption,
    VerboseOption,
    configure_logging,
    day_of,
    plain,
    print_document,
    print_listing,
    progress_bar,
    refuse_both,
    settings_from,
)
from forex_core.errors import InputError, SourceUnavailable
from forex_core.types import Pair, RateKind

if TYPE_CHECKING:
    import pandas as pd

    from forex_core.config import Settings
    from forex_core.data.prints import Counts

data = typer.Typer(help="The store of market data: what was known when.", no_args_is_help=True)

AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="DATE",
        help="What was known when the desk opened after this day. [default: now]",
    ),
]
_LAST = 10


@data.command(
    "import",
    epilog="""
**Examples**

    forex data import market.csv rates.csv --pair USDCLP
    forex data import corrected.csv --pair USDCLP --available-at 2024-07-02
""",
)
def import_files(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="CSV: first column a date, the others series; the column named like the pair is its rate.",
        ),
    ],
    pair: PairOption = None,
    rate: Annotated[
        RateKind | None,
        typer.Option("--rate", help="Which rate of the pair its column is. [default: close]"),
    ] = None,
    available_at: Annotated[
        str | None,
        typer.Option(
            "--available-at",
            metavar="DATE",
            help="The values became known on this day, a price of a later day on its own. "
            "[default: each by the release rule of its series]",
        ),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Put the values of files into the store, all of them or none.

    A value that the store has already adds nothing; another value for the same day is a revision, known from
    --available-at, or from now on, and so is a day between days that it has. Nothing is overwritten.
    """
    from forex_core.data.importing import end_of_day, observations_of
    from forex_core.data.loading import store_of
    from forex_core.report.stored import imported_table

    configure_logging(verbose)
    settings = settings_from(pair, None, None)
    one_pair, day = Pair.parse(settings.pair), day_of("--available-at", available_at)
    known = end_of_day(one_pair, day) if day else None
    found = observations_of(
        files,
        one_pair,
        rate=rate or settings.data.rate,
        columns=settings.columns,
        needs_pair=pair is not None,
        available_at=known,
    )
    origin = ", ".join(str(path.absolute()) for path in files)
    store = store_of(settings)
    recorded = store.record(found, origin=origin, explicit=known is not None)
    rows = [
        {
            "series": one.series,
            **_counted(recorded.series[one.series]),
            "first_date": one.dates[0].date().isoformat() if len(one) else None,
            "last_date": one.dates[-1].date().isoformat() if len(one) else None,
            "dropped": dict(one.dropped),
        }
        for one in found
    ]
    document = {"store": store.address, "files": [str(path) for path in files], "series": rows}
    print_document(document, as_json, imported_table)


@data.command(
    epilog="""
**Examples**

    forex data fetch --pair USDCLP
    forex data fetch copper vix --force
    forex data fetch vix --from 2024-01-01
"""
)
def fetch(
    series: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SERIES...", help="Series of the register. [default: all of the pair, and news]"
        ),
    ] = None,
    pair: PairOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Ask also for series that have all that is released.")
    ] = False,
    first: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DATE",
            help="Ask for every day from this one on. [default: ten days before the last one fetched]",
        ),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Bring the store up to date from the network: each series from the first of its sources that has a later day.

    A source that fails is said and the next one is asked. What was revised of days more than ten days before the last
    one fetched is noticed by --from alone. Exit code 1 when nobody gave the pair's own rate, or any series that was
    named.
    """
    from forex_core.data.catalogue import entry, spot_name
    from forex_core.data.loading import refresh
    from forex_core.report.stored import fetched_table

    configure_logging(verbose)
    settings, since = settings_from(pair, None, None), day_of("--from", first)
    if since and since > date.today():
        raise InputError(f"--from {since} lies in the future; expected today or an earlier day")
    unknown = [name for name in series or () if not entry(name).feeds]
    if unknown:
        raise InputError(f"no source gives '{unknown[0]}'; 'forex data sources' lists what can be fetched")
    with progress_bar(settings.pair) as progress:
        done = refresh(settings, series, force=force, since=since, progress=progress)
    rows = [
        {
            "name": one.name,
            "source": one.source,
            "is_due": one.is_due,
            "feeds": [feed.source for feed in entry(one.name).feeds],
            **(_counted(one.recorded.total) if one.recorded else {}),
            "is_later": one.is_later,
            "dropped": dict(one.dropped),
            "failures": dict(one.failures),
        }
        for one in done
    ]
    print_document({"series": rows}, as_json, fetched_table)
    needed = set(series or [spot_name(Pair.parse(settings.pair), settings.data.rate)])
    lost = [one for one in done if one.failed and one.name in needed]
    if lost:
        raise SourceUnavailable(f"{', '.join(one.name for one in lost)} could not be fetched: {lost[0].why}")


@data.command(
    epilog="""
**Examples**

    forex data sources
    forex data sources --pair EURUSD --json
"""
)
def sources(pair: PairOption = None, as_json: JsonOption = False, as_csv: CsvOption = False) -> None:
    """List the series that the register knows for a pair: what each is, when it is known, who gives it."""
    from forex_core.data.catalogue import registered
    from forex_core.report.stored import sources_rows, sources_table

    refuse_both(as_json, as_csv)
    settings = settings_from(pair, None, None)
    rows = [
        {
            "series": one.name,
            "meaning": one.definition.meaning,
            "unit": one.definition.unit,
            "release": one.definition.release.rule,
            "max_age_days": one.definition.max_age_days,
            "driver": one.driver,
            "sources": [feed.source for feed in one.feeds],
        }
        for one in registered(Pair.parse(settings.pair))
    ]
    print_listing({"pair": settings.pair, "series": rows}, as_json, as_csv, sources_table, sources_rows)


@data.command(
    epilog="""
**Examples**

    forex data status
    forex data status --as-of 2024-06-28 --pair USDCLP --json
"""
)
def status(
    as_of: AsOfOption = None,
    pair: PairOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Show what the store holds: freshness, gaps, revisions, and what the quality gate repairs."""
    import pandas as pd

    from forex_core.data.loading import store_of
    from forex_core.data.status import status_of
    from forex_core.report.stored import status_rows, status_table

    refuse_both(as_json, as_csv)
    settings = settings_from(pair, None, None)
    at = _instant(settings, as_of)
    store = store_of(settings)
    found = status_of(store, at, settings.data.max_age_business_days)
    since = at - pd.Timedelta(days=settings.data.news_days)
    document = {
        "store": store.address,
        "as_of": at.isoformat(),
        "series": [
            plain(
                asdict(one)
                | {"first_date": one.first_date.isoformat(), "last_date": one.last_date.isoformat()}
            )
            for one in found
        ],
        "news": len(store.news(at, since)),
        "events": len(store.events(at, at, at + pd.Timedelta(days=91))),
    }
    print_listing(document, as_json, as_csv, status_table, status_rows)


@data.command(
    epilog="""
**Examples**

    forex data show usdclp_close
    forex data show copper --as-of 2024-06-28 --from 2024-06-01
    forex data show usdclp_close --revisions 2024-06-28
"""
)
def show(
    series: Annotated[
        str, typer.Argument(metavar="SERIES", help="Name of a series, as 'forex data status' lists it.")
    ],
    as_of: AsOfOption = None,
    first: Annotated[
        str | None,
        typer.Option("--from", metavar="DATE", help=f"First day. [default: the last {_LAST} days]"),
    ] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DATE", help="Last day.")] = None,
    revisions: Annotated[
        str | None,
        typer.Option("--revisions", metavar="DATE", help="All values that this day has had."),
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option(
            "--pair",
            metavar="PAIR",
            help="At whose desk --as-of is meant, for a series of no pair. [default: that of the settings]",
        ),
    ] = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Show the values of a series as they were known, with their sources and since when each was known."""
    from forex_core.data.catalogue import entry
    from forex_core.data.loading import store_of
    from forex_core.report.stored import shown_rows, shown_table

    refuse_both(as_json, as_csv)
    settings = settings_from(pair, None, None)
    name, at = series.lower(), _instant(settings, as_of, series.lower())
    start, end, day = day_of("--from", first), day_of("--to", last), day_of("--revisions", revisions)
    store = store_of(settings)
    if store.first_known(name) is None:
        held = ", ".join(store.names()) or "nothing yet"
        raise InputError(f"the store holds no series '{name}'; it holds {held}")
    if day:
        rows = [
            {
                "date": day.isoformat(),
                "value": p.value,
                "known_at": p.available_at.isoformat(),
                "source": p.source,
            }
            for p in store.history(name, day)
            if p.available_at <= at
        ]
        days = len(rows)
    else:
        prints = store.values(name, at, start, end)
        days = len(prints)
        shown = slice(None) if start else slice(-_LAST, None)
        rows = [
            {
                "date": dated.date().isoformat(),
                "value": float(value),
                "known_at": known.isoformat(),
                "source": str(source),
            }
            for dated, value, known, source in zip(
                prints.dates[shown],
                prints.values[shown],
                prints.known_at[shown],
                prints.sources[shown],
                strict=True,
            )
        ]
    definition = entry(name).definition
    document = {
        "series": name,
        "meaning": definition.meaning,
        "unit": definition.unit,
        "release": definition.release.rule,
        "as_of": at.isoformat(),
        "days": days,
        "values": rows,
    }
    print_listing(document, as_json, as_csv, shown_table, shown_rows)


def _counted(counts: Counts) -> dict[str, object]:
    return {**asdict(counts), "contradicts": counts.contradicts}


def _instant(settings: Settings, as_of: str | None, series: str | None = None) -> pd.Timestamp:
    """What `--as-of` stands for, as in a forecast: for a rate at the desk of its pair, else of the settings' one."""
    from forex_core.data.bundle import as_of_instant
    from forex_core.data.catalogue import entry, spot_name, spot_pair

    pair = (spot_pair(series) if series else None) or Pair.parse(settings.pair)
    release = entry(spot_name(pair, settings.data.rate)).definition.release
    return as_of_instant(pair, release, day_of("--as-of", as_of))
