"""`forex evaluate`."""

from __future__ import annotations

import time
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forex_core.cli.app import (
    AsOfOption,
    JsonOption,
    PairOption,
    PathOption,
    SourceOption,
    VerboseOption,
    configure_logging,
    day_of,
    print_document,
    progress_bar,
    settings_from,
)
from forex_core.config import Settings
from forex_core.errors import ConfigError, ForecastError, InputError
from forex_core.types import HORIZONS, Horizon, Pair

if TYPE_CHECKING:
    from forex_core.panel import Panel

EXAMPLES = """
**Examples**

The origins behind today's forecast:

    forex evaluate 7d

A window of your own, every seventh weekday, so that origins fall on all days of the week:

    forex evaluate 30d --pair EURUSD --from 2018-01-01 --to 2024-06-28 --every 7

7d and 30d on all 26 pairs of the ECB panel, and 15d on two pairs of your own choice:

    forex evaluate --pairs all
    forex evaluate 15d --pairs EURUSD,USDJPY --from 2020-01-01
"""
_PANEL_HORIZONS = (HORIZONS[0], HORIZONS[2])
_PANEL_EVERY = 10


def evaluate(
    horizon: Annotated[
        str | None,
        typer.Argument(
            metavar="HORIZON",
            help="7d, 15d, 30d or 90d (calendar days). [default with --pairs: 7d and 30d]",
            show_default=False,
        ),
    ] = None,
    pair: PairOption = None,
    source: SourceOption = None,
    path: PathOption = None,
    as_of: AsOfOption = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            "--pairs",
            metavar="all|PAIR,PAIR",
            help="Many pairs of source ecb in one table, scored side by side: all of the panel (docs/data-sources.md), "
            "or those named.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DATE",
            help="First origin. [default: of those behind today's forecast; with --pairs 2015-01-01]",
        ),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="DATE", help="Last origin. [default: the last]")
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            "--every",
            metavar="N",
            min=1,
            help="Weekdays between origins, counted from --from; without it, and with --pairs, business days of a "
            "fixed grid. A multiple of 5 from --from scores one day of the week alone. [default: 5; with --pairs 10]",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            metavar="N",
            min=1,
            help="Processes that score --pairs, each of one thread and about 1 GB. "
            "[default: the number of cores, 4 at most]",
        ),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Score every member and the ensemble on rolling origins, beside the random walk.

    Weights and bands learn, at each origin, from outcomes that were known by then and from nothing later.
    """
    configure_logging(verbose)
    ahead = None if horizon is None else Horizon.parse(horizon)
    first, last = day_of("--from", start), day_of("--to", end)
    if pairs is not None:
        if pair is not None:
            raise InputError(f"--pair {pair} and --pairs {pairs} exclude each other; give one of them")
        panel = _panel(ahead, source, path, first, last, every, day_of("--as-of", as_of))
        _evaluate_panel(panel, _panel_pairs(pairs), jobs, as_json, verbose)
        return
    if ahead is None:
        raise InputError(f"one pair is evaluated at one horizon; give one of {', '.join(map(str, HORIZONS))}")
    if jobs is not None:
        raise InputError(f"--jobs {jobs} goes with --pairs; one pair is evaluated in one process")
    _refuse_reversed(first, last)
    _evaluate_pair(
        ahead, settings_from(pair, source, path), first, last, every, day_of("--as-of", as_of), as_json
    )


def _evaluate_pair(
    ahead: Horizon,
    settings: Settings,
    first: date | None,
    last: date | None,
    every: int | None,
    as_of: date | None,
    as_json: bool,
) -> None:
    from forex_core.data.loading import bundle_of
    from forex_core.engine import build_engine
    from forex_core.report.document import evaluation_document
    from forex_core.report.text import leaderboard
    from forex_core.tracking.neural import with_registered_weights

    started = time.perf_counter()
    bundle = bundle_of(settings, as_of)
    with progress_bar(f"{settings.pair} {ahead}") as progress:
        engine = build_engine(with_registered_weights(settings), progress)
        evaluation = engine.evaluate(bundle, ahead, first, last, every)
    document = evaluation_document(evaluation, bundle, time.perf_counter() - started)
    print_document(document, as_json, leaderboard)


def _panel(
    ahead: Horizon | None,
    source: str | None,
    path: list[Path] | None,
    first: date | None,
    last: date | None,
    every: int | None,
    as_of: date | None,
) -> Panel:
    from forex_core.data.providers.ecb import PANEL_FROM
    from forex_core.panel import Panel
    from forex_core.tracking.neural import with_registered_weights

    first = first or PANEL_FROM
    _refuse_reversed(first, last)
    settings = settings_from(None, source, path)
    if settings.source != "ecb" or settings.paths:
        raise ConfigError(
            f"--pairs reads source ecb and no files, found source {settings.source} and "
            f"{len(settings.paths)} file(s); leave out --path, or evaluate your own files one pair at a time"
        )
    settings = with_registered_weights(settings)
    return Panel(settings, (ahead,) if ahead else _PANEL_HORIZONS, first, last, every or _PANEL_EVERY, as_of)


def _panel_pairs(text: str) -> tuple[Pair, ...]:
    """The pairs that --pairs names, each once.

    Raises:
        InputError: one is no pair, or not among the reference rates.
    """
    from forex_core.data.providers.ecb import PANEL, EcbProvider

    if text.strip().lower() == "all":
        return PANEL
    pairs = tuple(dict.fromkeys(Pair.parse(name) for name in text.split(",")))
    for pair in pairs:  # before any is scored, which takes a while
        EcbProvider().load(pair)
    return pairs


def _evaluate_panel(
    panel: Panel, pairs: tuple[Pair, ...], jobs: int | None, as_json: bool, verbose: bool
) -> None:
    from forex_core.report.document import panel_document
    from forex_core.report.text import panel_tables

    started = time.perf_counter()
    with progress_bar("pairs") as progress:
        scores = panel.score_all(pairs, jobs, progress, partial(configure_logging, verbose))
    print_document(panel_document(panel, scores, time.perf_counter() - started), as_json, panel_tables)
    if scores.failed:
        names = ", ".join(map(str, scores.failed))
        raise ForecastError(
            f"{len(scores.failed)} of {len(pairs)} pairs could not be scored: {names}; the output says why"
        )


def _refuse_reversed(first: date | None, last: date | None) -> None:
    if first and last and first > last:
        raise InputError(f"--from {first} lies after --to {last}; give them the other way round")
