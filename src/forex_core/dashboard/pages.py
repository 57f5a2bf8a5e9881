"""The pages of the dashboard: each a file that needs nothing but itself, whether it lies in a folder or is served.

Everything shown is turned into text here; the templates only place it, and escape it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from forex_core.dashboard import charts
from forex_core.dashboard.drawing import WIDE, Chart, Rows, number_of
from forex_core.dashboard.reading import (
    HISTORY_DAYS,
    LEAST,
    YEAR_DAYS,
    History,
    Outlook,
    Rates,
    Reader,
    Silence,
    noticed,
)
from forex_core.dashboard.sources import Run, Series
from forex_core.dashboard.words import DASH, NBSP, VERDICTS, counted, day, minute, number, price, share
from forex_core.ledger import Published, Raised, Trajectory
from forex_core.ledger.live import LeadScores
from forex_core.report.document import price_decimals
from forex_core.report.inline import json_in_script, source_hash
from forex_core.report.language import label_of
from forex_core.report.look import FONT, GAP_WEEKDAYS, PALETTE
from forex_core.strangers import plain, web_link
from forex_core.types import short_id

OVERVIEW, HEALTH, RUNS, LOGIN = "index.html", "health.html", "runs.html", "login.html"
COMPARED = 12
"""Newest runs of each horizon that are listed and can be compared."""
_PARAM, _REASON = 300, 2000
"""Characters of a param, and of why a run failed, at most."""


@dataclass(frozen=True)
class Column:
    """A column's heading; `words` where its cells are text and not figures, `hint` spells a short heading out."""

    label: str
    words: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """Cells that are ready to show, as text or, where they are a link, as markup.

    `notes` has for each row the words that stand beneath it, '' for none.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[Sequence[str]]
    kind: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """A chart in a page: its words, its pictures and what the pointer is told."""

    name: str
    title: str
    caption: str
    svg: Markup
    wide: Markup | None
    tips: Markup


def names(reader: Reader) -> tuple[str, ...]:
    """File names of all pages."""
    found = [OVERVIEW, HEALTH, RUNS]
    for series in reader.series():
        found += [f"{series.name}.html", *(f"{series.name}-{year}.html" for year in reader.years(series))]
    return tuple(found)


def page(name: str, reader: Reader, *, served: bool = False) -> str | None:
    """A page by its file name, None where there is none of that name.

    Args:
        served: whether the interface is beside it.

    Raises:
        LedgerError: the ledger cannot be read; what else cannot be read is told on the page.
    """
    if name == OVERVIEW:
        return _overview(reader, served)
    if name == HEALTH:
        return _health(reader, served)
    if name == RUNS:
        return _runs(reader, served)
    for series in reader.series():
        if name == f"{series.name}.html":
            return _series(reader, series, served)
        beginning, _, year = name.removesuffix(".html").rpartition("-")
        if beginning == series.name and year.isascii() and year.isdigit() and len(year) == 4:
            return _year(reader, series, int(year), served)
    return None


def login_page(reader: Reader, *, refused: bool) -> str:
    """Where the token is asked for."""
    return _rendered("login", "Who reads this?", LOGIN, reader, True, (), refused=refused)


def policy(*, forms: bool = False) -> str:
    """The content security policy of every page: its own style and script, and nothing from anywhere."""
    parts = {
        "default-src": "'none'",
        "script-src": source_hash(_asset("dashboard.js")),
        "style-src": source_hash(_style()),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'self'" if forms else "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in parts.items())


# --- The pages


def _overview(reader: Reader, served: bool) -> str:
    health = reader.health()
    outlooks = health.outlooks
    groups: dict[tuple[Any, str], list[Outlook]] = {}
    for one in outlooks:
        groups.setdefault((one.series.pair, one.series.rate), []).append(one)
    pairs = [
        {
            "name": f"{pair.slug}-{rate}",
            "heading": several[0].series.market,
            "close": _close(max(several, key=lambda one: one.path.of.origin)),
            "cards": [_card(one) for one in sorted(several, key=lambda one: one.series.horizon)],
        }
        for (pair, rate), several in groups.items()
    ]
    entries = [
        {
            "what": one.what,
            "link": f"{one.series.name}.html" if one.series else HEALTH,
            "words": one.words,
        }
        for one in health.attention
    ]
    if entries:
        heading = f"{counted(len(entries), 'thing')} to look at"
    else:
        heading = "Nothing needs attention" if health.is_well else "Not everything could be read"
    return _rendered(
        "overview",
        "Forecasts",
        OVERVIEW,
        reader,
        served,
        health.untold,
        pairs=pairs,
        attention={"heading": heading, "entries": entries},
    )


def _series(reader: Reader, series: Series, served: bool) -> str:
    history = reader.history(series)
    (newest,) = (one for one in reader.latest if Series.of(one) == series)
    path = reader.ledger.path(newest.number)
    last, first = newest.origin, newest.origin - timedelta(days=YEAR_DAYS)
    rates = reader.rates(series, first - timedelta(days=2 * HISTORY_DAYS[series.horizon.days]))
    paths = reader.paths(series, first, last)
    said = charts.said_and_came(paths, rates, series.horizon.days)
    drawn: dict[str, Chart | Rows | None] = {
        "coverage": charts.coverage(history),
        "skill": charts.skill(history),
        "weights": charts.weights(history),
        "champions": charts.champions(history),
    }
    lacking = []
    if drawn["coverage"] is None:
        lacking.append(
            f"Coverage and skill are drawn from {LEAST} live forecasts on that have come to their end."
        )
    if history.hindsight:
        made = counted(history.hindsight, "forecast")
        lacking.append(
            f"In none of the scores and charts over time: {made} of this horizon made in hindsight."
        )
    untold = [history.untold] if history.untold else []
    return _rendered(
        "series",
        series.title,
        f"{series.name}.html",
        reader,
        served,
        untold,
        **_heading(reader, series),
        **_past(paths, rates, series, reader),
        notes=[*untold, *_notes(newest, reader.silence(series))],
        newest=_newest(newest, path, rates),
        record=_record(history.record, newest),
        said=_figure("said", said) if said else None,
        leads=_leads(history, newest.close) if history.leads else None,
        over=[_figure(name, chart) for name, chart in drawn.items() if chart is not None],
        lacking=lacking,
        changes=_changes(history),
        alarms=_alarms(history.alarms[::-1]) if history.alarms else None,
        here_year="",
    )


def _year(reader: Reader, series: Series, year: int, served: bool) -> str | None:
    first, last = date(year, 1, 1), date(year, 12, 31)
    paths = reader.paths(series, first, last)
    if not paths:
        return None
    before = first - timedelta(days=2 * HISTORY_DAYS[series.horizon.days])
    rates = reader.rates(series, before, max(path.target_dates[-1] for path in paths))
    own = f"{series.name}-{year}.html"
    return _rendered(
        "series",
        f"{series.title}, {year}",
        own,
        reader,
        served,
        (),
        **_heading(reader, series),
        **_past(paths, rates, series, reader),
        notes=[],
        newest=None,
        year=year,
        here_year=own,
    )


def _heading(reader: Reader, series: Series) -> dict[str, Any]:
    siblings = [s for s in reader.series() if (s.pair, s.rate) == (series.pair, series.rate)]
    return {
        "pair": series.pair.slashed,
        "rate": "" if series.rate == "close" else series.rate_words,
        "heading": f"{series.horizon.days} days ahead",
        "horizons": [(f"{s.name}.html", f"{s.horizon.days} days") for s in siblings],
        "current": f"{series.name}.html",
    }


def _past(paths: Sequence[Trajectory], rates: Rates, series: Series, reader: Reader) -> dict[str, Any]:
    """What the chooser of past forecasts has, and the one that is shown before anybody has chosen."""
    years = {year: f"{series.name}-{year}.html" for year in reader.years(series)}
    context = {"years": [(target, str(year)) for year, target in years.items()], "paths": None}
    finished = [k for k, one in enumerate(paths) if np.isfinite(one.outcomes[-1])]
    begun = [k for k, one in enumerate(paths) if np.isfinite(one.outcomes).any()]
    if not begun:
        return context
    chosen = (finished or begun)[-1]
    shown = paths[chosen]
    before = shown.of.origin - timedelta(days=HISTORY_DAYS[series.horizon.days])
    chart = charts.fan(shown, rates.between(before, shown.target_dates[-1]), series.pair.unit, height=250)
    return context | {
        "first": paths[0].of.origin.isoformat() if len(years) < 2 else f"{min(years)}-01-01",
        "last": paths[-1].of.origin.isoformat(),
        "told": chart.description,
        "past": _figure("past", chart),
        "paths": json_in_script(_paths(paths, rates, series, years, chosen)),
    }


def _paths(
    paths: Sequence[Trajectory], rates: Rates, series: Series, years: Mapping[int, str], chosen: int
) -> dict[str, Any]:
    """Paths for the pages' script: whole numbers of the last decimal that is shown, those of a path less its close."""
    decimals = price_decimals(paths[-1].of.close)
    scale = 10**decimals

    def whole(values: Any) -> list[int]:
        return [round(float(value) * scale) for value in values]

    def one(path: Trajectory) -> dict[str, Any]:
        (close,), origin = whole([path.of.close]), _position(path.of.origin)
        bands = charts.Bands.of(path)
        edges = {
            "m": bands.median,
            "l8": bands.low_80,
            "h8": bands.high_80,
            "l9": bands.low_95,
            "h9": bands.high_95,
        }
        return {
            "o": origin,
            "c": close,
            "live": int(path.of.live),
            "t": [_position(target) - origin for target in path.target_dates],
            **{name: [v - close for v in whole(values)] for name, values in edges.items()},
        }

    last = np.datetime64(max(path.target_dates[-1] for path in paths), "D")
    known = rates.at(np.asarray(rates.days <= last))
    days = number_of(known.days).astype(int)
    return {
        "unit": series.pair.unit,
        "decimals": decimals,
        "scale": scale,
        "history": HISTORY_DAYS[series.horizon.days],
        "gap": GAP_WEEKDAYS,
        "years": {str(year): target for year, target in years.items()},
        "chosen": chosen,
        "rates": list(zip(days.tolist(), whole(known.values), strict=True)),
        "unrecorded": days[~known.recorded].tolist(),
        "origins": [one(path) for path in paths],
    }


def _health(reader: Reader, served: bool) -> str:
    health = reader.health()
    repairs = [
        [one.series, kind.replace("_", " "), f"{count:,}"]
        for one in health.series
        for kind, count in one.repairs.items()
    ]
    series = [
        [
            one.series,
            day(one.last_date),
            f"{one.age_days:,}",
            _state("stale") if not one.is_fresh else "due" if one.is_due else "fresh",
            f"{one.days:,}",
            f"{one.gaps:,}",
            f"{one.revisions:,}",
            f"{sum(one.repairs.values()):,}",
            ", ".join(f"{plain(source, 40)} {rows:,}" for source, rows in one.sources.items()),
            minute(one.recorded_at),
        ]
        for one in health.series
    ]
    columns = (
        Column("Series", words=True),
        Column("Last day"),
        Column("Age", hint="calendar days"),
        Column(
            "State", words=True, hint="stale: too old to forecast from; due: a later value has been released"
        ),
        Column("Days", hint="with a value"),
        Column("Gaps", hint="weekdays without a price, holidays among them"),
        Column("Revised"),
        Column("Repairs"),
        Column("Sources, rows", words=True),
        Column("Taken in (UTC)", words=True),
    )
    kinds = (Column("Series", words=True), Column("Kind", words=True), Column("Count"))
    told = (Column("Series", words=True), Column("Meaning", words=True), Column("Unit", words=True))
    return _rendered(
        "health",
        "Data and health",
        HEALTH,
        reader,
        served,
        health.untold,
        forecasts=_silence(health.outlooks) if health.outlooks else None,
        waiting=health.waits,
        alarms=_alarms(health.alarms[::-1]) if health.alarms else None,
        series=Table("What the store of observations holds", columns, series) if series else None,
        repairs=Table("What the quality gate does to the series", kinds, repairs) if repairs else None,
        meanings=Table(
            "What the series are", told, [[one.series, one.meaning, one.unit] for one in health.series]
        ),
        news=[
            (
                plain(one.title) or "(without a title)",
                web_link(one.link),
                plain(one.source, 80),
                f"{minute(one.published)} UTC",
            )
            for one in health.headlines
        ],
    )


def _runs(reader: Reader, served: bool) -> str:
    found, untold = reader.runs(COMPARED)
    runs = sorted(
        (run for several in found.values() for run in several), key=lambda run: run.started, reverse=True
    )
    columns = (
        Column("Run", words=True),
        Column("Horizon"),
        Column("RMSE"),
        Column(f"MAPE{NBSP}%"),
        Column("RMSE/RW"),
        Column("Model"),
        Column("Started (UTC)", words=True),
        Column("Pair", words=True),
        Column("Environment", words=True),
        Column("Status", words=True),
    )
    rows = [
        [
            short_id(run.id),
            plain(run.horizon or DASH, 8),
            _size(run.scores.get("rmse")),
            number(run.scores.get("mape"), 2),
            number(run.scores.get("rmse_ratio_rw"), 3),
            version(run),
            minute(run.started),
            plain(run.pair or DASH, 12),
            plain(run.environment or DASH, 40),
            run.status.lower(),
        ]
        for run in runs
    ]
    title, reasons = f"The newest {COMPARED} of each horizon", [_reason(run) for run in runs]
    return _rendered(
        "runs",
        "Runs",
        RUNS,
        reader,
        served,
        [untold] if untold else (),
        runs=Table(title, columns, rows, "runs-table", reasons) if rows else None,
        data=json_in_script([_compared(run) for run in runs]),
    )


def _reason(run: Run) -> str:
    """Why a run failed, in full but for a dump that nobody reads."""
    return plain(run.error or "", _REASON)


def _compared(run: Run) -> dict[str, Any]:
    """A run for the pages' script."""
    market = f"{run.pair or 'no pair'} {run.horizon or 'no horizon'}"
    names_of = {name: label_of(plain(name, 60)) for name in run.models}
    return {
        "id": run.id,
        "short": short_id(run.id),
        "label": f"{short_id(run.id)} {plain(market, 30)}, {minute(run.started)}",
        "name": plain(run.name, 120),
        "market": plain(market, 30),
        "started": minute(run.started),
        "origin": plain(run.origin or "", 20),
        "status": run.status.lower(),
        "environment": plain(run.environment or "", 60),
        "model": version(run),
        "error": _reason(run),
        "window": plain(run.window, 120) if run.window else None,
        "names": names_of,
        "models": {name: [one.rmse, one.mape, one.weight] for name, one in run.models.items()},
        "params": {plain(name, 120): plain(value, _PARAM) for name, value in run.single_params.items()},
    }


# --- Their parts


def _card(one: Outlook) -> dict[str, Any]:
    path, series = one.path, one.series
    bands, close, last = charts.Bands.of(path), path.of.close, path.target_dates[-1]
    label, _ = VERDICTS.get(path.of.verdict, VERDICTS["none"])
    version = f", v{path.of.version}" if path.of.version is not None else ""
    return {
        "name": series.name,
        "heading": f"{series.horizon.days} days",
        "band": f"{price(float(bands.low_80[-1]), close)} to {price(float(bands.high_80[-1]), close)}",
        "on": f"8 of 10, on {day(last)}",
        "median": price(float(bands.median[-1]), close),
        "kind": path.of.verdict if path.of.verdict in VERDICTS else "none",
        "verdict": label,
        "record": _in_short(one.record),
        "published": f"{day(path.of.published_at.date())}{version}",
        "alarm": _latest(one.alarms),
        "figure": _figure(f"fan-{series.name}", charts.fan(path, one.rates, series.pair.unit), wide=False),
    }


def _close(one: Outlook) -> str:
    of = one.path.of
    return f"{price(of.close, of.close)} {one.series.pair.unit} on {day(of.origin)}"


def _in_short(record: LeadScores | None) -> str:
    if record is None:
        return "none yet"
    ratio = (
        f"RMSE ratio {number(record.rmse_ratio_rw, 2)}" if record.rmse_ratio_rw is not None else "no ratio"
    )
    return (
        f"{ratio}, {share(record.coverage_80)} in the 80{NBSP}% band, over {counted(record.origins, 'forecast')} "
        f"of which {record.origins_effective:,} do not overlap"
    )


def _latest(alarms: Sequence[Raised]) -> str:
    return noticed(alarms[-1]) if alarms else ""


def _newest(newest: Published, path: Trajectory, rates: Rates) -> dict[str, Any]:
    close, bands, last = newest.close, charts.Bands.of(path), day(path.target_dates[-1])
    label, meaning = VERDICTS.get(newest.verdict, VERDICTS["none"])
    before = newest.origin - timedelta(days=HISTORY_DAYS[newest.horizon.days])
    facts = [
        ("Close at the origin", f"{price(close, close)} {newest.pair.unit}"),
        (f"Median for {last}", price(float(bands.median[-1]), close)),
        (
            f"80{NBSP}% band for {last}",
            f"{price(float(bands.low_80[-1]), close)} to {price(float(bands.high_80[-1]), close)}",
        ),
        (
            f"95{NBSP}% band for {last}",
            f"{price(float(bands.low_95[-1]), close)} to {price(float(bands.high_95[-1]), close)}",
        ),
        ("Published", f"{minute(newest.published_at)} UTC, in run {short_id(newest.run_id)}"),
        (
            "Model",
            f"{newest.model}, {f'version {newest.version}' if newest.version is not None else 'no version'}",
        ),
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
    edges = (bands.median, bands.low_80, bands.high_80, bands.low_95, bands.high_95)
    rows = [
        [day(target), str(path.steps[h]), *(price(float(edge[h]), close) for edge in edges)]
        for h, target in enumerate(path.target_dates)
    ]
    return {
        "kind": newest.verdict if newest.verdict in VERDICTS else "none",
        "verdict": label,
        "meaning": meaning,
        "origin": f"{day(newest.origin)}{'' if newest.live else ', in hindsight'}",
        "facts": facts,
        "figure": _figure(
            "ahead",
            charts.fan(path, rates.between(before, path.target_dates[-1]), newest.pair.unit, height=250),
        ),
        "targets": Table(f"Forecast by target date, {newest.pair.unit}", columns, rows),
    }


def _notes(newest: Published, silence: Silence) -> list[str]:
    if silence.days is None:
        return [
            "All forecasts of this horizon were made in hindsight, published after their first outcome was known: "
            "there is no live record."
        ]
    notes = []
    if not newest.live:
        notes.append(
            "Made in hindsight: published after its first outcome was known, it is no part of the live record."
        )
    if silence.is_silent:
        of = "forecast" if newest.live else "live forecast"
        notes.append(f"The last {of} is {counted(silence.days, 'day')} old.")
    return notes


def _record(record: LeadScores | None, newest: Published) -> list[tuple[str, str]] | None:
    if record is None:
        return None
    like, quote = newest.close, newest.pair.quote
    return [
        (
            "Forecasts scored at their end",
            f"{record.origins:,}, of which {record.origins_effective:,} do not overlap",
        ),
        (f"RMSE, {quote}", price(record.rmse, like)),
        (f"MAE, {quote}", price(record.mae, like)),
        ("MAPE", f"{number(record.mape_pct, 2)}{NBSP}%"),
        ("RMSE over the random walk's", number(record.rmse_ratio_rw, 3)),
        ("CRPS over the random walk's", number(record.crps_ratio_rw, 3)),
        (f"Inside the 80{NBSP}% band", share(record.coverage_80, 1)),
        (f"Inside the 95{NBSP}% band", share(record.coverage_95, 1)),
        (f"Mean of outcome less median, {quote}", price(record.bias, like)),
    ]


def _leads(history: History, like: float) -> Table:
    columns = (
        Column("Lead", hint="weekdays ahead"),
        Column("n", hint="live forecasts with an outcome at that lead"),
        Column("n apart", hint="of these, as many as do not overlap"),
        Column("RMSE"),
        Column("MAE"),
        Column(f"MAPE{NBSP}%"),
        Column("RMSE/RW", hint="over that of the random walk; below 1 is better"),
        Column("CRPS/RW", hint="over that of the random walk; below 1 is better"),
        Column(f"In 80{NBSP}%"),
        Column(f"In 95{NBSP}%"),
        Column(
            "Closest member",
            words=True,
            hint=(
                "the lowest RMSE over the n forecasts that have the median of every member of the newest one; "
                f"none is named below {history.least}"
            ),
        ),
    )
    rows = []
    for one in history.leads:
        best = one.closest(history.least)
        rows.append(
            [
                str(one.step),
                f"{one.origins:,}",
                f"{one.origins_effective:,}",
                price(one.rmse, like),
                price(one.mae, like),
                number(one.mape_pct, 2),
                number(one.rmse_ratio_rw, 3),
                number(one.crps_ratio_rw, 3),
                number(100 * one.coverage_80, 1),
                number(100 * one.coverage_95, 1),
                f"{label_of(best)} {price(one.rmse_in_common[best], like)}, n = {one.origins_in_common:,}"
                if best
                else DASH,
            ]
        )
    return Table(f"Live scores at each lead, errors in {history.series.pair.quote}", columns, rows)


def _changes(history: History) -> Table | None:
    columns = (
        Column("When (UTC)", words=True),
        Column("What", words=True),
        Column("From"),
        Column("To"),
        Column("By", words=True),
        Column("Why", words=True),
        Column("Came of it", words=True),
    )
    rows = [
        [
            minute(one.at),
            plain(one.action or DASH, 20),
            *(f"v{v}" if v is not None else DASH for v in (one.from_version, one.to_version)),
            plain(one.by or DASH, 80),
            plain(one.reason or DASH, 300),
            "done" if one.status == "FINISHED" else f"{one.status.lower()}, nothing changed",
        ]
        for one in history.changes
    ]
    title = "What was done to the champion, by hand or by the monitor, the newest first"
    return Table(title, columns, rows) if rows else None


def _alarms(alarms: Sequence[Raised]) -> Table:
    columns = (
        Column("Raised (UTC)", words=True),
        Column("Of", words=True),
        Column("Alarm", words=True),
        Column("Lead", hint="weekdays ahead"),
        Column("What was found", words=True),
        Column("Statistic"),
        Column("Threshold"),
    )
    rows = [
        [
            minute(one.raised_at),
            f"{one.pair.slashed}{f' {one.horizon}' if one.horizon else ''}",
            one.alarm.kind,
            str(one.alarm.step) if one.alarm.step else DASH,
            plain(one.alarm.found),
            number(one.alarm.statistic, 2),
            number(one.alarm.threshold, 2),
        ]
        for one in alarms
    ]
    return Table("What was noticed, as it stood when it was raised, the newest first", columns, rows)


def _silence(outlooks: Sequence[Outlook]) -> Table:
    columns = (
        Column("Forecasts", words=True),
        Column("Newest origin", hint="of the live forecast that was published last"),
        Column("Published (UTC)", words=True),
        Column("Days ago"),
        Column("State", words=True),
    )
    rows = [
        [
            Markup('<a href="{}.html">{}</a>').format(one.series.name, one.series.title),
            *_spoke(one.silence),
        ]
        for one in outlooks
    ]
    return Table("When each horizon last spoke", columns, rows)


def _spoke(silence: Silence) -> list[str]:
    last = silence.last
    if last is None:
        return [DASH, DASH, DASH, _state("only in hindsight")]
    state = _state("silent") if silence.is_silent else "in time"
    return [day(last.origin), minute(last.published_at), f"{silence.days:,}", state]


def _state(words: str) -> Markup:
    """A state that stands out."""
    return Markup('<strong class="bad">{}</strong>').format(words)


def version(run: Run) -> str:
    """The version that a run published, with a star for the champion of now."""
    found = run.published_version or run.version
    return f"v{found}{'*' if 'champion' in run.aliases else ''}" if found else DASH


def _size(value: float | None) -> str:
    """An error in price units with about four significant digits."""
    return DASH if value is None else f"{value:#.4g}"


def _position(value: date) -> int:
    return (value - date(1970, 1, 1)).days


def _figure(name: str, chart: Chart | Rows, *, wide: bool | None = None) -> Figure:
    """A chart for a page; the wide picture where it has a column of its own."""
    has_wide = isinstance(chart, Chart) and chart.height >= 230 if wide is None else wide
    return Figure(
        name=name,
        title=chart.title if name not in ("ahead", "past") and not name.startswith("fan-") else "",
        caption=chart.caption,
        svg=chart.svg(),
        wide=chart.svg(WIDE) if has_wide else None,
        tips=json_in_script(chart.hints),
    )


# --- Rendering


def _rendered(
    template: str,
    title: str,
    here: str,
    reader: Reader,
    served: bool,
    untold: Sequence[str],
    **context: Any,
) -> str:
    return (
        _environment()
        .get_template(f"{template}.html.j2")
        .render(
            context
            | {
                "title": f"{title} · Forex",
                "here": here,
                "links": [(OVERVIEW, "Forecasts"), (HEALTH, "Health"), (RUNS, "Runs")]
                if here != LOGIN
                else [],
                "served": served and here != LOGIN,
                "untold": list(untold),
                "read_at": minute(reader.now),
                "css": Markup(_style()),
                "script": Markup(_asset("dashboard.js")),
                "policy": policy(forms=here == LOGIN),
            }
        )
    )


@lru_cache(maxsize=1)
def _style() -> str:
    """The look of the report, the colours of both schemes, and what the dashboard has beside."""
    schemes = []
    for k, scheme in enumerate(("light", "dark")):
        colours = "".join(f"--{role}:{both[k]};" for role, both in {**PALETTE, **_EXTRA}.items())
        schemes.append(f"color-scheme:{scheme};{colours}")
    light, dark = schemes
    return "\n".join(
        [
            f":root{{--font:{FONT};{light}}}",
            f'@media screen and (prefers-color-scheme:dark){{:root:not([data-theme="light"]){{{dark}}}}}',
            f'@media screen{{:root[data-theme="dark"]{{{dark}}}}}',
            _asset("report.css", "forex_core.report"),
            _asset("dashboard.css"),
        ]
    )


_EXTRA = {
    "tint": ("#f4f6f8", "#1d232a"),
    "edge": ("#8a95a1", "#5c6873"),
    "warn-paper": ("#fdf1e3", "#33230f"),
    "warn-line": ("#e0a766", "#8a5a1f"),
    "warn-ink": ("#7a3a05", "#f5c288"),
}
"""Colours of grounds and edges: (light, dark)."""


@lru_cache(maxsize=8)
def _asset(name: str, room: str = "forex_core.dashboard") -> str:
    return files(room).joinpath("templates", name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("forex_core.dashboard", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
