"""A report as a mail: what a reader has to know at once, in HTML and as plain text, with the page attached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from forex_core.report.briefing import briefing_lines
from forex_core.report.document import Document
from forex_core.report.folder import CHARTS
from forex_core.report.language import Language
from forex_core.report.look import PALETTE
from forex_core.report.page import Summary, environment_of, summary_of, targets_of
from forex_core.report.tables import spaced
from forex_core.types import ForecastRun, MarketBundle, Publication

FAN = "fan.png"

T = TypeVar("T")


@dataclass(frozen=True)
class Mail:
    """A mail to be sent.

    Attributes:
        title: one line.
        text: all that is in `html`, for whoever reads plain text.
        html: shows each of `pictures` as `cid:` and its file name.
        files: what is attached.
    """

    title: str
    text: str
    html: str
    pictures: tuple[Path, ...]
    files: tuple[Path, ...]


def report_mail(
    run: ForecastRun,
    bundle: MarketBundle,
    document: Document,
    publication: Publication | None,
    language: Language,
) -> Mail:
    """The mail that brings a report, in the report's language; the PDF is attached where there is one, else the page.

    Args:
        document: as `write_report` returns it, whose files are there.
    """
    summary = summary_of(run, bundle, publication, language)
    lines = briefing_lines(document, language)
    table = targets_of(run, language)
    # What fits on a phone: the page has the rest.
    few = [table.rows[h] for h in spaced(len(table.rows))]
    table = replace(table, columns=_chosen(table.columns), rows=[_chosen(row) for row in few])
    (_, median), (_, band) = summary.facts[-2:]
    title = f"{summary.heading}: {median} ({band})"
    page = {
        "summary": summary,
        "lines": lines,
        "table": table,
        "picture": FAN,
        "picture_says": title,
        "run_id": document["run_id"],
        "palette": {role: light for role, (light, _) in PALETTE.items()},
    }
    report = Path(document["pdf"] or document["report"])
    return Mail(
        title=title,
        text=_text(summary, lines, table.rows, document["run_id"], language),
        html=environment_of(language).get_template("mail.html.j2").render(page),
        pictures=(Path(document["report"]).parent / CHARTS / FAN,),
        files=(report,),
    )


def _chosen(row: Sequence[T]) -> tuple[T, ...]:
    """Date, median and 80 % band of a row of `targets_of`."""
    return row[0], *row[2:5]


def _text(
    summary: Summary, lines: list[str], rows: Sequence[Sequence[str]], run_id: str, language: Language
) -> str:
    """The same as plain text."""
    say = language.say
    facts = "\n".join(f"{name}: {value}" for name, value in summary.facts)
    dates = "\n".join(f"{day}: {median} ({low} – {high})" for day, median, low, high in rows)
    parts = [
        summary.heading,
        summary.verdict,
        *summary.notices,
        facts,
        *lines,
        f"{say('Median and 80 % band by target date:')}\n{dates}",
        say("The whole report is attached. Run {run}. A forecast is not advice.", run=run_id),
    ]
    return "\n\n".join(parts) + "\n"
