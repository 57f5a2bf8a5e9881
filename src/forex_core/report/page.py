"""A run as one HTML file that needs nothing but itself, and what else of it goes into a run's artifacts.

Everything shown is turned into text here; the template only places it, and escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from forex_core.calendars import desk_zone
from forex_core.data.catalogue import LICENCES
from forex_core.report.charts import Drawings, draw_charts, recent_drivers
from forex_core.report.document import (
    data_notices,
    day_words,
    events_document,
    news_document,
    price_decimals,
    publication_notices,
    readable,
)
from forex_core.report.inline import json_in_script, source_hash
from forex_core.report.look import FONT, PALETTE, label_of
from forex_core.strangers import plain
from forex_core.types import ENSEMBLE, RANDOM_WALK, RATE_NAMES, ForecastRun, MarketBundle, Publication, Scores

OLD_AFTER_WEEKDAYS = 3
"""An origin older than this, in weekdays before the as-of date, carries a warning."""

DASH = "–"
"""Stands where a figure does not apply."""

NBSP = "\u00a0"

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

IMPORTED = "imported files"
"""What a bundle from a store calls the source of what was put in by hand."""

VERDICT_LABELS = {
    "usable": "Usable skill",
    "close_only": "Skill against the close only",
    "none": "No directional edge",
}


@dataclass(frozen=True)
class Column:
    """A column's heading; `words` where its cells are text and not figures, `hint` spells a short heading out."""

    label: str
    words: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """Cells that are ready to show. `strong` rows stand out; `best` cells (row, column) are set in bold."""

    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()
    best: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class News:
    """Headlines ready to show, each as (title, link or None, source, time); `counted` says how many there are."""

    counted: str
    items: Sequence[tuple[str, str | None, str, str]]


@dataclass(frozen=True)
class Figure:
    """A chart in the page: its words and the static picture; the script finds the rest by `name`."""

    name: str
    title: str
    caption: str
    description: str
    svg: Markup


def render_report(
    run: ForecastRun,
    bundle: MarketBundle,
    *,
    run_id: str,
    generated_at: pd.Timestamp,
    publication: Publication | None = None,
    drawings: Drawings | None = None,
) -> str:
    """The report as one self-contained HTML file: equal arguments give equal text.

    Charts are interactive where scripts run and static pictures elsewhere (print, mail, scripts off).

    Args:
        publication: which registered model this is, where there is a registry.
        drawings: the charts, where they have been drawn already.

    Raises:
        ForexError: the charts could not be drawn.
    """
    drawings = drawings or draw_charts(run, bundle)
    library, boot = drawings.script, _asset("report.js")
    for script in (library, boot):
        if "</script" in script.lower() or "<!--" in script:
            raise ValueError("a script of the report would end its own element")
    page = {
        "run": run,
        "heading": f"{run.forecast.pair.slashed}, {run.horizon.days} days ahead",
        "title": f"{run.forecast.pair.slashed} {run.horizon}, {day_words(run.forecast.origin)}",
        "facts_list": _facts(run, bundle),
        "notices": [
            note
            for note in (_age_warning(run), *data_notices(bundle), *publication_notices(publication))
            if note
        ],
        "verdict": _verdict(run),
        "figures": {
            name: Figure(name, p.title, p.caption, p.description, Markup(drawings.still.svg[name]))
            for name, p in drawings.charts.items()
        },
        "targets": _targets(run),
        "models": _models(run),
        "sample": _sample(run),
        "calibration": _calibration(run),
        "drivers": _drivers(bundle),
        "events": _events(run, bundle),
        "news": _news(bundle),
        "is_told_of": bool(bundle.events or bundle.news) or _is_stored(bundle),
        "last_target": day_words(run.forecast.target_dates[-1]),
        "left_out": _left_out(run),
        "sources": _sources(bundle),
        "repairs": _repairs(bundle),
        "identity": _identity(run, bundle, run_id, generated_at, publication),
        "settings": _settings(run),
        "timings": _timings(run),
        "generated": _instant(generated_at),
        "run_id": run_id,
        "dash": DASH,
        "font": Markup(FONT),
        "palette": PALETTE,
        "css": Markup(_asset("report.css")),
        "specs": json_in_script({name: picture.spec() for name, picture in drawings.charts.items()}),
        "scripts": [Markup(library), Markup(boot)],
        # Hashes, and not 'unsafe-inline': a script that slipped in through a name would not be run.
        "script_hashes": Markup(" ".join(map(source_hash, (library, boot)))),
    }
    return _environment().get_template("report.html.j2").render(page)


def forecast_table(run: ForecastRun) -> pd.DataFrame:
    """The forecast as a table [H, 2 + Q]: `target_date`, `step`, and a price column per level, `q0.01` to `q0.99`."""
    forecast = run.forecast
    columns: dict[str, Any] = {
        "target_date": pd.to_datetime(list(forecast.target_dates)),
        "step": np.asarray(forecast.steps, dtype=np.int64),
    }
    for position, level in enumerate(forecast.levels):
        columns[f"q{level:g}"] = forecast.quantiles[:, position]
    return pd.DataFrame(columns)


# What the page says, part by part.


def _facts(run: ForecastRun, bundle: MarketBundle) -> list[tuple[str, str]]:
    forecast = run.forecast
    price = _prices(run)
    age = (run.as_of.date() - forecast.origin).days
    low80, high80 = forecast.interval(0.8)
    last = day_words(forecast.target_dates[-1])
    return [
        ("Origin", day_words(forecast.origin)),
        ("As of", _instant(run.as_of)),
        ("Age of the origin", f"{age} day{'' if age == 1 else 's'}"),
        ("Close at the origin", f"{price(float(bundle.spot[-1]))} {forecast.pair.unit}"),
        (f"Median for {last}", price(float(forecast.median[-1]))),
        (f"80{NBSP}% band for {last}", f"{price(float(low80[-1]))} to {price(float(high80[-1]))}"),
    ]


def _age_warning(run: ForecastRun) -> str:
    weekdays = int(np.busday_count(run.forecast.origin, run.as_of.date()))
    if weekdays <= OLD_AFTER_WEEKDAYS:
        return ""
    return (
        f"Old data: the last close is {weekdays} weekdays older than the as-of date. "
        "The forecast starts from that close."
        + (" Every target date has passed." if run.forecast.target_dates[-1] < run.as_of.date() else "")
    )


def _verdict(run: ForecastRun) -> dict[str, Any]:
    verdict, ours = run.verdict, run.evaluation.scores[ENSEMBLE]
    evidence = [
        ("RMSE against the random walk from the origin's close", ours.rmse_ratio_rw, verdict.p_close),
        (
            "RMSE against the random walk from the next close",
            ours.rmse_ratio_next_close,
            verdict.p_next_close,
        ),
    ]
    return {
        "kind": verdict.kind if verdict.kind in VERDICT_LABELS else "none",
        "label": VERDICT_LABELS.get(verdict.kind, verdict.kind),
        "sentence": verdict.sentence,
        "evidence": [(what, _number(ratio, 3), _pvalue(p)) for what, ratio, p in evidence],
        "decided": (
            f"The p-values were decided on {day_words(verdict.decided_on)} from {_count(verdict.origins)} origins, "
            "after Holm's correction over the four horizons; the ratios are those of today's table below"
        ),
    }


def _targets(run: ForecastRun) -> Table:
    forecast, price = run.forecast, _prices(run)
    bands = [forecast.interval(cover) for cover in (0.8, 0.95)]
    rows = [
        [
            day_words(day),
            str(forecast.steps[h]),
            price(float(forecast.median[h])),
            *(price(float(side[h])) for band in bands for side in band),
        ]
        for h, day in enumerate(forecast.target_dates)
    ]
    columns = (
        Column("Target date", words=True),
        Column("Step", hint="weekdays after the origin"),
        Column("Median"),
        Column(f"80{NBSP}% low"),
        Column(f"80{NBSP}% high"),
        Column(f"95{NBSP}% low"),
        Column(f"95{NBSP}% high"),
    )
    return Table(f"Forecast by target date, {forecast.pair.unit}", columns, rows)


def _models(run: ForecastRun) -> Table:
    scores = run.evaluation.scores
    others = sorted(
        (n for n in scores if n not in (ENSEMBLE, RANDOM_WALK)), key=lambda n: (scores[n].rmse, n)
    )
    names = [n for n in (ENSEMBLE, RANDOM_WALK) if n in scores] + others
    quote, price = run.forecast.pair.quote, _prices(run)
    columns = (
        Column("Model", words=True),
        Column("RMSE", hint=f"root mean squared error, {quote}"),
        Column("MAE", hint=f"mean absolute error, {quote}"),
        Column(f"MAPE{NBSP}%", hint="mean absolute error, percent"),
        Column("CRPS", hint=f"continuous ranked probability score, {quote}"),
        Column("RMSE ratio", hint="to the random walk; below 1 is better"),
        Column("CRPS ratio", hint="to the random walk; below 1 is better"),
        Column(f"In 80{NBSP}%", hint="outcomes inside the 80 % band, percent"),
        Column(f"In 95{NBSP}%", hint="outcomes inside the 95 % band, percent"),
        Column(f"Direction{NBSP}%", hint="last step on the right side of the close, percent"),
        Column("p-value", hint="one-sided, against the random walk from the close"),
        Column(f"Weight{NBSP}%", hint="in this forecast"),
    )

    def row(name: str, s: Scores) -> list[str]:
        return [
            label_of(name),
            price(s.rmse),
            price(s.mae),
            _number(s.mape_pct, 2),
            price(s.crps),
            _number(s.rmse_ratio_rw, 3),
            _number(s.crps_ratio_rw, 3),
            _percent(s.coverage_80),
            _percent(s.coverage_95),
            _percent(s.directional_accuracy),
            _pvalue(s.dm_pvalue),
            _percent(run.weights.get(name)),
        ]

    measured = [[s.rmse, s.mae, s.mape_pct, s.crps] for s in (scores[n] for n in names)]
    best = frozenset(
        (int(np.nanargmin(column)), k + 1)
        for k, column in enumerate(np.asarray(measured).T)
        if np.isfinite(column).any()
    )
    caption = f"Out-of-sample scores over the whole path of {run.evaluation.steps} steps; RMSE, MAE and CRPS in {quote}"
    return Table(caption, columns, [row(n, scores[n]) for n in names], frozenset({0, 1}), best)


def _sample(run: ForecastRun) -> list[tuple[str, str]]:
    evaluation = run.evaluation
    origins = evaluation.origins
    return [
        ("Origins", _count(len(origins))),
        ("First origin", day_words(origins[0]) if origins else DASH),
        ("Last origin", day_words(origins[-1]) if origins else DASH),
        ("One origin every", f"{evaluation.every} business days"),
        ("Effective number", _number(evaluation.n_effective, 1)),
    ]


def _calibration(run: ForecastRun) -> Table:
    evaluation = run.evaluation
    s = evaluation.scores[ENSEMBLE]
    rows = [
        [f"{name}{NBSP}% band", f"{name}.0", _percent(path), _percent(last)]
        for name, path, last in (
            ("80", s.coverage_80, s.coverage_80_last),
            ("95", s.coverage_95, s.coverage_95_last),
        )
    ]
    columns = (
        Column("Band", words=True),
        Column(f"Promised{NBSP}%"),
        Column(f"Whole path{NBSP}%", hint="outcomes inside, all steps"),
        Column(f"Last step{NBSP}%", hint=f"outcomes inside, step {evaluation.steps}"),
    )
    n, effective = _count(len(evaluation.origins)), _number(evaluation.n_effective, 1)
    return Table(
        f"Outcomes inside the ensemble's bands: n = {n} origins, effective n = {effective}", columns, rows
    )


def _drivers(bundle: MarketBundle) -> Table | None:
    recent = {d.name: d for d in recent_drivers(bundle)}
    rows = []
    for name, unit in zip(bundle.driver_names, bundle.driver_units, strict=True):
        d = recent.get(name)
        if d is None:
            rows.append([label_of(name), unit, DASH, DASH, DASH])
            continue
        first, last = float(d.values[0]), float(d.values[-1])
        change = f"{last - first:+,.2f}" if d.level else f"{100 * (last / first - 1):+,.1f}{NBSP}%"
        rows.append(
            [
                label_of(name),
                unit,
                day_words(d.dates[-1]),
                _number(last, 2 if abs(last) >= 10 or d.level else 4),
                _minus(change),
            ]
        )
    columns = (
        Column("Driver", words=True),
        Column("Unit", words=True),
        Column("Known on"),
        Column("Value"),
        Column("Change", hint="over the rows shown; rates in percentage points"),
    )
    return Table("The drivers as they were known at the origin", columns, rows) if rows else None


def _events(run: ForecastRun, bundle: MarketBundle) -> Table | None:
    document, zone = events_document(run, bundle), desk_zone(bundle.pair)
    rows = []
    for event in document["items"]:
        desk, utc = pd.Timestamp(event["at_desk"]), pd.Timestamp(event["when"])
        moved = "" if desk.date() == utc.date() else f" ({DAYS[utc.day_of_week]})"
        rows.append(
            [
                f"{DAYS[desk.day_of_week]} {day_words(desk.date())[:-5]}",
                f"{desk:%H:%M}",
                f"{utc:%H:%M}{moved}",
                event["title"],
                event["currency"] or DASH,
                event["impact"] or DASH,
            ]
        )
    columns = (
        Column("Day", words=True, hint="at the desk"),
        Column("Desk", hint=zone.key),
        Column("UTC"),
        Column("Event", words=True),
        Column("Currency", words=True),
        Column("Impact", words=True, hint="as the calendar has it"),
    )
    count = document["count"]
    listed = "" if count == len(rows) else f", the next {len(rows)} of them"
    caption = f"Scheduled events up to {day_words(run.forecast.target_dates[-1])}: {_count(count)}{listed}"
    return Table(f"{caption}; the desk's time is that of {zone.key}", columns, rows) if rows else None


def _news(bundle: MarketBundle) -> News | None:
    document = news_document(bundle)
    items = [
        (h["title"] or "(without a title)", h["link"], h["source"], _instant(pd.Timestamp(h["published"])))
        for h in document["items"]
    ]
    count = document["count"]
    counted = f"{_count(count)} headline{'' if count == 1 else 's'}"
    return (
        News(counted + ("" if count == len(items) else f", the newest {len(items)} of them"), items)
        if items
        else None
    )


def _is_stored(bundle: MarketBundle) -> bool:
    """Whether the data come from a store, which may hold headlines and events too."""
    return any(source.name in (*LICENCES, IMPORTED) for source in bundle.sources)


def _left_out(run: ForecastRun) -> Table | None:
    reasons = {**run.evaluation.failures, **run.failures}
    rows = [[label_of(name), reason] for name, reason in sorted(reasons.items())]
    for name, s in run.evaluation.scores.items():
        if s.failed_origins:
            rows.append(
                [label_of(name), f"gave no answer at {_count(s.failed_origins)} origins of the evaluation"]
            )
    columns = (Column("Member", words=True), Column("Reason", words=True))
    return Table("Members that were left out or did not answer everywhere", columns, rows) if rows else None


def _sources(bundle: MarketBundle) -> Table | None:
    rows = [
        [
            plain(s.name),
            ", ".join(map(plain, s.series)),
            f"{day_words(s.first_date)} to {day_words(s.last_date)}",
            _count(s.rows),
            _instant(s.fetched_at),
            s.release,
            s.licence,
        ]
        for s in bundle.sources
    ]
    columns = (
        Column("Source", words=True),
        Column("Series", words=True),
        Column("Dates", words=True),
        Column("Rows"),
        Column("Fetched", words=True),
        Column("Known from", words=True, hint="release rule"),
        Column("Licence", words=True),
    )
    return Table("Where the data came from", columns, rows) if rows else None


def _repairs(bundle: MarketBundle) -> Table | None:
    rows = [
        [
            plain(r.series),
            r.kind.replace("_", " "),
            day_words(r.day) if r.day else DASH,
            DASH if r.found is None or not math.isfinite(r.found) else _minus(f"{r.found:,.6g}"),
            _count(r.count),
            plain(r.note, 1000),
        ]
        for r in bundle.repairs
    ]
    columns = (
        Column("Series", words=True),
        Column("Kind", words=True),
        Column("Day"),
        Column("Found"),
        Column("Count"),
        Column("Note", words=True),
    )
    return Table("What the quality gate changed or noticed", columns, rows) if rows else None


def _identity(
    run: ForecastRun,
    bundle: MarketBundle,
    run_id: str,
    generated_at: pd.Timestamp,
    publication: Publication | None,
) -> list[tuple[str, str]]:
    model = []
    if publication and publication.version is not None:
        model.append(("Model", f"{publication.model}, version {publication.version}"))
        model.append(("Learned up to", day_words(run.state.trained_until)))
    if publication:
        model.append(("Decision", readable(publication.reason)))
    return [
        ("Run", run_id),
        ("Rate", f"{RATE_NAMES[bundle.rate]}, {bundle.pair.unit}"),
        *model,
        ("Recipe", run.recipe),
        ("Data fingerprint", run.fingerprint),
        ("Report made", _instant(generated_at)),
    ]


def _settings(run: ForecastRun) -> Table | None:
    stated = {**run.settings, "library": run.libraries}
    rows = [[key, value] for key, value in _flattened("", stated)]
    columns = (Column("Setting", words=True), Column("Value", words=True))
    return Table("Settings and library versions", columns, rows) if rows else None


def _timings(run: ForecastRun) -> Table | None:
    rows = [[name.replace("_", " "), _number(seconds, 2)] for name, seconds in run.timings.items()]
    columns = (Column("Step of the work", words=True), Column("Seconds"))
    return Table("Time taken", columns, rows) if rows else None


def _flattened(prefix: str, values: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(f"{prefix}{key}.", value)
        elif isinstance(value, (list, tuple, set, frozenset)):
            yield (
                f"{prefix}{key}",
                ", ".join(map(str, sorted(value) if isinstance(value, (set, frozenset)) else value)),
            )
        else:
            yield f"{prefix}{key}", DASH if value is None else str(value)


# Figures and dates as text.


def _prices(run: ForecastRun) -> Callable[[float | None], str]:
    """Formats a price, or an error in price units, with the decimals this pair is quoted with."""
    decimals = price_decimals(float(run.forecast.median[0]))
    return lambda value: _number(value, decimals)


def _number(value: float | None, decimals: int) -> str:
    """With thousands separators and a true minus; a dash for None and NaN.

    >>> [_number(v, 2) for v in (1234.5, -0.004, None)]
    ['1,234.50', '0.00', '–']
    """
    if value is None or not math.isfinite(value):
        return DASH
    return _minus(f"{round(value, decimals) + 0.0:,.{decimals}f}")


def _minus(text: str) -> str:
    return text.replace("-", "\u2212")


def _percent(share: float | None) -> str:
    return DASH if share is None else _number(100 * share, 1)


def _pvalue(p: float | None) -> str:
    if p is None or not math.isfinite(p):
        return DASH
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _count(n: int) -> str:
    return f"{n:,}"


def _instant(moment: pd.Timestamp) -> str:
    utc = moment.tz_convert("UTC") if moment.tz else moment.tz_localize("UTC")
    return f"{day_words(utc.date())}, {utc:%H:%M} UTC"


def _asset(name: str) -> str:
    return files("forex_core.report").joinpath("templates", name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("forex_core.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
