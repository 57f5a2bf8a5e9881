"""The charts of a run: each is defined once, for the interactive page and for the static picture.

Colours are the light ones of `PALETTE`, written as plain hex. A page that knows of dark mode overrides them by
attribute selectors (`[fill="#1b5e9e"]`), so that the same picture stands on paper, in a mail and on a screen.
Data go in as plain values and names from outside only ever as values, never as field names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

from forex_core.calendars import desk_zone
from forex_core.report.document import events_ahead, price_decimals
from forex_core.report.drawing import Drawn, browser_script, draw
from forex_core.report.language import ENGLISH, Language, label_of
from forex_core.report.look import FONT, PALETTE, gaps, spread
from forex_core.strangers import plain
from forex_core.types import ENSEMBLE, RANDOM_WALK, Array, Evaluation, Event, ForecastRun, MarketBundle

Row = dict[str, Any]
Layers = alt.LayerChart | alt.FacetChart
Chart = Layers | alt.ConcatChart

PAPER, INK, MUTED, GRID, FORECAST, WALK = (light for light, _ in PALETTE.values())

WIDTH = 860
"""Width of a static picture in CSS pixels; the page replaces it by the width of its column."""

HOVER = "hover_"
"""Prefix of the names of layers that only answer the pointer: left out of the static picture."""

LABEL_PX = 15
"""Distance that direct labels keep from each other."""

HISTORY_ROWS = (60, 120)
"""Rows of history in the fan chart: six times the path within these bounds, so that a short fan stays visible."""

DRIVER_ROWS = 120

MARKED_DAYS = 8
"""With more days of events than these, the fan chart leaves out what is known to be of low impact."""

CROWDED_DAYS = 210
"""Where the axis is longer than this, marks of days would run together, and there is one for a week."""

EVENTS_IN_HOVER = 6

CONFIG: Row = {
    "font": FONT,
    "padding": 4,
    "aria": False,  # the element around a chart speaks for it; hundreds of unnamed marks would only be noise
    "view": {"stroke": None},
    "axis": {
        "domainColor": GRID,
        "gridColor": GRID,
        "tickColor": GRID,
        "labelColor": MUTED,
        "titleColor": MUTED,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "labelPadding": 5,
    },
    "title": {
        "color": INK,
        "fontSize": 12,
        "fontWeight": 600,
        "anchor": "start",
        "frame": "group",
        "offset": 8,
    },
    "text": {"fontSize": 12},
}
"""The look that all charts share (Vega-Lite's `config`)."""


@dataclass(frozen=True)
class Picture:
    """A chart with its heading, a caption, and the words that stand for it where it cannot be seen.

    The rows lie beside the definition, by the name that it calls them: Altair copies a chart at every step of
    its making, and would copy them as often.
    """

    title: str
    caption: str
    description: str
    chart: Chart
    data: Mapping[str, Sequence[Row]]
    language: Language
    height: int | None = None

    def spec(self, *, still: bool = False) -> Row:
        """Vega-Lite, complete with its data; `still` leaves out what only answers the pointer."""
        # Not held against Vega-Lite's schema, which takes longer than all else: it is when the tests are run.
        spec = self.chart.to_dict(validate=False)
        if still:
            spec = _without_hover(spec)
        if self.height is not None:
            spec |= {"width": WIDTH, "height": self.height}
        config = CONFIG | {"locale": self.language.in_charts}
        look = {"description": self.description, "background": PAPER, "config": config}
        return spec | look | {"datasets": {name: list(rows) for name, rows in self.data.items()}}


def charts(run: ForecastRun, bundle: MarketBundle, language: Language = ENGLISH) -> dict[str, Picture]:
    """Every chart of a run by name, in reading order; `drivers` is absent when no driver has recent values."""
    drawn = {
        "fan": fan(run, bundle, language),
        "weights": weights(run, language),
        "error_by_step": error_by_step(run.evaluation, language),
        "coverage_by_step": coverage_by_step(run.evaluation, language),
    }
    if recent_drivers(bundle):
        drawn["drivers"] = drivers(bundle, language)
    return drawn


@dataclass(frozen=True)
class Drawings:
    """What a report shows beside its words: the charts, their static pictures, the script that makes them answer."""

    charts: Mapping[str, Picture]
    still: Drawn
    script: str

    @property
    def images(self) -> dict[str, bytes]:
        """Each chart as a PNG at twice its size on white, by file name (`fan.png` …)."""
        return {f"{name}.png": png for name, png in self.still.png.items()}


def draw_charts(
    run: ForecastRun, bundle: MarketBundle, cache: Path | None = None, language: Language = ENGLISH
) -> Drawings:
    """The charts of a run, drawn. Most of the time this waits for the process that draws.

    Args:
        cache: folder in which the script, which is the same for every report, is kept.

    Raises:
        ForexError: the charts could not be drawn.
    """
    made = charts(run, bundle, language)
    still = draw({name: picture.spec(still=True) for name, picture in made.items()})
    return Drawings(made, still, browser_script(cache))


def fan(run: ForecastRun, bundle: MarketBundle, language: Language = ENGLISH) -> Picture:
    """Recent closes, then the median with its 80 % and 95 % bands, and the random walk as a dashed line."""
    forecast, height, say = run.forecast, 360, language.say
    rows = int(np.clip(6 * run.horizon.evaluation_steps, *HISTORY_ROWS))
    days, closes = bundle.dates[-rows:], bundle.spot[-rows:]
    close = float(closes[-1])
    decimals = price_decimals(close)
    price = f",.{decimals}f"
    bands = {
        f"{side}{cover}": q
        for cover in (80, 95)
        for side, q in zip(("low", "high"), forecast.interval(cover / 100), strict=True)
    }

    def dated(day: date, **values: Any) -> Row:
        return _dated(day, language, **values)

    def shown(value: float) -> str:
        return language.number(float(value), decimals)

    history = [
        dated(d.date(), close=_rounded(c, decimals), stretch=int(stretch))
        for d, c, stretch in zip(days, closes, _stretches(bundle)[-rows:], strict=True)
        if stretch >= 0
    ]
    start = dated(
        forecast.origin,
        median=_rounded(close, decimals),
        walk=_rounded(close, decimals),
        **dict.fromkeys(bands, _rounded(close, decimals)),
    )
    ahead = [
        dated(
            day,
            median=_rounded(forecast.median[h], decimals),
            walk=_rounded(close, decimals),
            **{name: _rounded(values[h], decimals) for name, values in bands.items()},
        )
        for h, day in enumerate(forecast.target_dates)
    ]
    low = min(float(closes.min()), float(bands["low95"].min()))
    high = max(float(closes.max()), float(bands["high95"].max()))
    domain = _padded(low, high, 0.04)
    ends = [
        ("95 %", float(bands["high95"][-1]), MUTED),
        ("80 %", float(bands["high80"][-1]), MUTED),
        (say("median"), float(forecast.median[-1]), FORECAST),
        (say("last close"), close, WALK),
        ("80 %", float(bands["low80"][-1]), MUTED),
        ("95 %", float(bands["low95"][-1]), MUTED),
    ]
    labels = _end_labels(
        [(f"{words}: {shown(value)}", value, colour) for words, value, colour in ends],
        domain,
        height,
        dated(forecast.target_dates[-1]),
    )
    x = alt.X("date:T", title=None, axis=_date_axis())

    def y(field: str) -> alt.Y:
        scale = alt.Scale(domain=domain, zero=False, nice=False)
        return alt.Y(
            f"{field}:Q", scale=scale, title=language.told(forecast.pair.unit), axis=alt.Axis(tickCount=6)
        )

    def tip(field: str, title: str) -> alt.Tooltip:
        return alt.Tooltip(f"{field}:Q", title=title, format=price)

    when = alt.Tooltip("day:N", title=say("Date"))
    marks, lighter = _event_marks(run, bundle, language)
    if marks and (forecast.target_dates[-1] - days[0].date()).days > CROWDED_DAYS:
        marks = {"events": marks["events_by_week"]}
    layers = [
        _on("fan").mark_area(color=FORECAST, opacity=opacity).encode(x=x, y=y(f"low{c}"), y2=f"high{c}:Q")
        for c, opacity in ((95, 0.16), (80, 0.26))
    ]
    lines = [
        _on("fan").mark_line(color=WALK, strokeWidth=1.25, strokeDash=[4, 3]).encode(x=x, y=y("walk")),
        _on("history")
        .mark_line(color=INK, strokeWidth=1.5, strokeCap="round")
        .encode(x=x, y=y("close"), detail="stretch:N"),
        _on("fan").mark_line(color=FORECAST, strokeWidth=2.25).encode(x=x, y=y("median")),
        *_labels(labels, x, y("at")),
        _hover("history", [when, tip("close", say("Close"))]).encode(x=x),
        _hover(
            "ahead",
            [
                when,
                tip("high95", say("95 % band, high")),
                tip("high80", say("80 % band, high")),
                tip("median", say("Median")),
                tip("low80", say("80 % band, low")),
                tip("low95", say("95 % band, low")),
                tip("walk", say("Random walk")),
            ],
        ).encode(x=x),
    ]
    data: dict[str, Sequence[Row]] = {
        "history": history,
        "fan": [start, *ahead],
        "ahead": ahead,
        **_by_colour(labels),
    }
    caption = say(
        "The last {rows} closes, then the median (line) with the 80 % band (darker) and the 95 % band (lighter). "
        "The dashed line is the random walk: the last close, carried forward.",
        rows=len(history),
    )
    description = say(
        "From {close} on {origin} to a median of {median} on {last}, 80 % band {low80} to {high80}, "
        "95 % band {low95} to {high95}.",
        close=shown(close),
        origin=language.day(forecast.origin),
        median=shown(forecast.median[-1]),
        last=language.day(forecast.target_dates[-1]),
        **{name: shown(values[-1]) for name, values in bands.items()},
    )
    if marks:
        # Above the plot, where no line runs; the rule lies beneath the bands.
        rule = _on("events").mark_rule(color=MUTED, strokeWidth=1, opacity=0.4)
        sign = _on("events").mark_point(shape="triangle-down", filled=True, color=MUTED, opacity=1, size=26)
        target = _hover("events", alt.Tooltip("events:N"), width=5)
        layers.insert(0, rule.encode(x=x, y=alt.value(-4), y2=alt.value(height)))
        lines += [
            sign.encode(x=x, y=alt.value(-7)),
            target.encode(x=x, y=alt.value(-14), y2=alt.value(height // 8)),
        ]
        data |= marks
        caption += " " + (
            say(
                "A triangle marks a day with scheduled events of high or medium impact, or a week where days lie close."
            )
            if lighter
            else say("A triangle marks a day with scheduled events, or a week where days lie close.")
        )
        description += " " + say("Scheduled events are marked.")
    return Picture(
        title=say("{pair}: close and forecast", pair=forecast.pair.slashed),
        caption=caption,
        description=description,
        chart=alt.layer(*layers, *lines),
        data=data,
        language=language,
        height=height,
    )


def _stretches(bundle: MarketBundle) -> npt.NDArray[np.int64]:
    """Which unbroken stretch of closes each row is of [T], -1 within a gap, where the bundle carries the last one."""
    closes = np.flatnonzero(np.isfinite(bundle.truth))
    closes = np.union1d(closes, len(bundle) - 1)  # what the forecast starts from
    found = np.zeros(len(bundle), dtype=np.int64)
    for k in gaps(bundle.dates[closes].to_numpy()):
        found[closes[k + 1] :] += 1
        found[closes[k] + 1 : closes[k + 1]] = -1
    return found


def _event_marks(
    run: ForecastRun, bundle: MarketBundle, language: Language
) -> tuple[dict[str, list[Row]], bool]:
    """A row for each day to mark, and for each week where days lie too close; whether low impact was left out."""
    zone = desk_zone(bundle.pair)
    dated = [(e.when.tz_convert(zone), e) for e in events_ahead(run, bundle)]
    lighter = len({at.date() for at, _ in dated}) > MARKED_DAYS
    if lighter:
        dated = [(at, e) for at, e in dated if e.impact in ("high", "medium", "")]  # unknown is not low
    days, weeks = dict[date, list[tuple[str, Event]]](), dict[date, list[tuple[str, Event]]]()
    for at, event in dated:
        day = at.date()
        days.setdefault(day, []).append((f"{at:%H:%M}", event))
        monday = day - timedelta(days=day.weekday())
        weeks.setdefault(monday, []).append((f"{language.day(day, year=False)}, {at:%H:%M}", event))
    first = {day - timedelta(days=day.weekday()): day for day in reversed(days)}
    if not days:
        return {}, lighter
    return {
        "events": [
            _dated(day, language, events=_told(language.day(day), found, language))
            for day, found in days.items()
        ],
        "events_by_week": [
            _dated(
                first[monday],
                language,
                events=_told(language.say("Week of {day}", day=language.day(monday)), found, language),
            )
            for monday, found in weeks.items()
        ],
    }, lighter


def _told(heading: str, found: Sequence[tuple[str, Event]], language: Language) -> str:
    """What the hover over a mark says: the events of most weight, in their order."""
    weight = {"high": 0, "medium": 1, "": 2}
    chosen = sorted(found, key=lambda one: weight.get(one[1].impact, 3))[:EVENTS_IN_HOVER]
    lines = [
        f"{at} {plain(f'{e.currency} {e.title}', 80)}"
        + (f" ({language.told(plain(e.impact, 16))})" if e.impact else "")
        for at, e in found
        if (at, e) in chosen
    ]
    left = len(found) - len(lines)
    more = [language.say_n("and {n} more", "and {n} more", left)] if left else []
    return "\n".join([heading, *lines, *more])


def weights(run: ForecastRun, language: Language = ENGLISH) -> Picture:
    """One bar per member, the largest first."""
    say = language.say
    ordered = sorted(run.members, key=lambda m: (-m.weight, m.name))
    data = [
        {
            "model": label_of(m.name, language),
            "weight": round(m.weight, 4),
            "label": f"{language.number(100 * m.weight, 1)} %",
            "walk": m.name == RANDOM_WALK,
        }
        for m in ordered
    ]
    top = max((m.weight for m in ordered), default=1.0)
    x = alt.X(
        "weight:Q", title=None, axis=None, scale=alt.Scale(domain=[0, max(top, 0.01) * 1.3], nice=False)
    )
    y = alt.Y(
        "model:N",
        sort=None,
        title=None,
        axis=alt.Axis(domain=False, ticks=False, labelPadding=8, labelLimit=220),
    )
    tips = [alt.Tooltip("model:N", title=say("Model")), alt.Tooltip("label:N", title=say("Weight"))]
    colour = alt.condition("datum.walk", alt.value(WALK), alt.value(FORECAST))
    bars = _on("members").mark_bar(size=11).encode(x=x, y=y, color=colour, tooltip=tips)
    values = _on("members").mark_text(align="left", dx=6, color=INK).encode(x=x, y=y, text="label:N")
    described = ", ".join(f"{d['model']} {d['label']}" for d in data)
    return Picture(
        title=say("Weights of the members"),
        caption=say(
            "How much each member's median counts in the ensemble; the random walk in orange. Estimated only from "
            "forecasts whose outcome was known."
        ),
        description=say("Weights of the members: {weights}.", weights=described),
        chart=alt.layer(bars, values),
        data={"members": data},
        language=language,
        height=26 * max(len(data), 1),
    )


def error_by_step(evaluation: Evaluation, language: Language = ENGLISH) -> Picture:
    """RMSE of the ensemble over that of the random walk, step by step."""
    height, say = 240, language.say
    ours = np.asarray(evaluation.scores[ENSEMBLE].rmse_by_step)
    walk = np.asarray(evaluation.scores[RANDOM_WALK].rmse_by_step)
    ratio = np.divide(ours, walk, out=np.full(len(walk), np.nan), where=walk > 0)
    rows: list[Row] = [
        {
            "step": h + 1,
            "ratio": _rounded(ratio[h], 4),
            "ours": language.figures(ours[h], 4),
            "walk": language.figures(walk[h], 4),
        }
        for h in range(len(ratio))
        if np.isfinite(ratio[h])
    ]
    shown = np.array([1.0, *(r["ratio"] for r in rows)])
    domain = _padded(min(float(shown.min()), 0.98), max(float(shown.max()), 1.02), 0.06)
    ends = [(say("random walk"), 1.0, WALK)]
    if rows:
        last = float(rows[-1]["ratio"])
        ends.append((say("ensemble: {ratio}", ratio=language.number(last, 3)), last, FORECAST))
    labels = _end_labels(ends, domain, height, {"step": len(ratio)})
    x = _step_axis(len(ratio), language)
    y = alt.Y(
        "ratio:Q",
        title=say("RMSE, random walk = 1"),
        scale=alt.Scale(domain=domain, zero=False, nice=False),
        axis=alt.Axis(tickCount=5, format=".2f"),
    )
    level = [{"step": 1, "at": 1.0}, {"step": len(ratio), "at": 1.0}]
    at = alt.Y("at:Q", scale=alt.Scale(domain=domain, zero=False, nice=False))
    tips = [
        alt.Tooltip("step:Q", title=say("Step")),
        alt.Tooltip("ratio:Q", title=say("Ratio"), format=".3f"),
        alt.Tooltip("ours:N", title=say("RMSE ensemble, {quote}", quote=evaluation.pair.quote)),
        alt.Tooltip("walk:N", title=say("RMSE random walk, {quote}", quote=evaluation.pair.quote)),
    ]
    chart = alt.layer(
        _on("level").mark_line(color=WALK, strokeWidth=1.25, strokeDash=[4, 3]).encode(x=x, y=at),
        _on("steps").mark_line(color=FORECAST, strokeWidth=2, point=_point(len(ratio))).encode(x=x, y=y),
        *_labels(labels, x, at),
        _hover("steps", tips).encode(x=x),
    )
    return Picture(
        title=say("Error by step"),
        caption=say(
            "RMSE of the ensemble's median as a share of the random walk's, by weekdays ahead; below 1 the ensemble "
            "was closer."
        ),
        description=say(
            "RMSE ratio of the ensemble to the random walk from {first} at step 1 to {last} at step {steps}.",
            first=_or_none(ratio[0], language),
            last=_or_none(ratio[-1], language),
            steps=len(ratio),
        ),
        chart=chart,
        data={"steps": rows, "level": level, **_by_colour(labels)},
        language=language,
        height=height,
    )


def coverage_by_step(evaluation: Evaluation, language: Language = ENGLISH) -> Picture:
    """Share of outcomes inside the ensemble's 80 % and 95 % bands, step by step, against what was promised."""
    height, say = 260, language.say
    scores = evaluation.scores[ENSEMBLE]
    names = say("80 % band"), say("95 % band")
    by_band = dict(zip(names, (scores.coverage_80_by_step, scores.coverage_95_by_step), strict=True))
    nominal = dict(zip(names, (0.80, 0.95), strict=True))
    rows: list[Row] = [
        {
            "step": h + 1,
            "band": band,
            "coverage": _rounded(value, 4),
            "promised": f"{100 * nominal[band]:.0f} %",
        }
        for band, values in by_band.items()
        for h, value in enumerate(values)
        if math.isfinite(value)
    ]
    steps = max(len(scores.coverage_80_by_step), 1)
    lowest = min([0.7, *(r["coverage"] - 0.03 for r in rows)])
    domain = [max(0.0, math.floor(lowest * 20) / 20), 1.0]
    ends = [
        (f"{band}: {language.number(100 * values[-1], 1)} %", float(values[-1]), FORECAST)
        for band, values in by_band.items()
        if values and math.isfinite(values[-1])
    ]
    labels = _end_labels(ends, domain, height, {"step": steps})
    x = _step_axis(steps, language)
    scale = alt.Scale(domain=domain, zero=False, nice=False)
    y = alt.Y(
        "coverage:Q", title=say("Outcomes inside"), scale=scale, axis=alt.Axis(tickCount=6, format=".0%")
    )
    at = alt.Y("at:Q", scale=scale)
    promised = [{"step": s, "at": v, "band": b} for b, v in nominal.items() for s in (1, steps)]
    tips = [
        alt.Tooltip("band:N", title=say("Band")),
        alt.Tooltip("step:Q", title=say("Step")),
        alt.Tooltip("coverage:Q", title=say("Outcomes inside"), format=".1%"),
        alt.Tooltip("promised:N", title=say("Promised")),
    ]
    lines = _on("steps").mark_line(color=FORECAST, strokeWidth=2, point=_point(steps))
    targets = (
        _on("steps", HOVER + "steps")
        .mark_point(opacity=0, size=160, filled=True)
        .encode(x=x, y=y, tooltip=tips)
    )
    chart = alt.layer(
        _on("promised")
        .mark_line(color=MUTED, strokeWidth=1.25, strokeDash=[4, 3])
        .encode(x=x, y=at, detail="band:N"),
        lines.encode(x=x, y=y, detail="band:N"),
        *_labels(labels, x, at),
        targets,
    )
    return Picture(
        title=say("Coverage by step"),
        caption=say(
            "Share of outcomes that fell inside the band over {origins} origins, by weekdays ahead; dashed: the share "
            "promised.",
            origins=language.count(len(evaluation.origins)),
        ),
        description=say(
            "At the last step {share80} of outcomes fell inside the 80 % band and {share95} inside the 95 % band.",
            share80=_share(scores.coverage_80_last, language),
            share95=_share(scores.coverage_95_last, language),
        ),
        chart=chart,
        data={"steps": rows, "promised": promised, **_by_colour(labels)},
        language=language,
        height=height,
    )


@dataclass(frozen=True)
class RecentDriver:
    """The last rows of one driver; `level` where it is shown in percent, and not indexed to 100."""

    name: str
    unit: str
    level: bool
    dates: tuple[date, ...]
    values: Array


def recent_drivers(bundle: MarketBundle) -> tuple[RecentDriver, ...]:
    """Drivers with at least two values among the last rows."""
    found = []
    for k, (name, unit) in enumerate(zip(bundle.driver_names, bundle.driver_units, strict=True)):
        column = bundle.drivers[-DRIVER_ROWS:, k]
        there = np.flatnonzero(np.isfinite(column))
        if len(there) > 1:
            days = tuple(d.date() for d in bundle.dates[-DRIVER_ROWS:][there])
            # A price at or below zero (oil, April 2020) has no index.
            level = unit.startswith("percent") or column[there[0]] <= 0
            found.append(RecentDriver(name, unit, level, days, column[there]))
    return tuple(found)


def drivers(bundle: MarketBundle, language: Language = ENGLISH) -> Picture:
    """Small multiples of the drivers: percentages as they are, everything else indexed to 100 at the left."""
    recent, say = recent_drivers(bundle), language.say
    panels = [_driver_panel(driver, f"driver_{k}", language) for k, driver in enumerate(recent)]
    return Picture(
        title=say("Drivers"),
        caption=say(
            "The last {rows} weekdays as they were known at the origin: percentages as they are, everything else "
            "indexed to 100 at the left edge.",
            rows=DRIVER_ROWS,
        ),
        description=say(
            "Small multiples of the drivers: {names}.",
            names=", ".join(label_of(d.name, language) for d in recent),
        ),
        chart=alt.concat(
            *(panel for panel, _ in panels),
            columns=3,
            bounds="flush",
            spacing=alt.RowColnumber(row=58, column=46),
        ),
        data={f"driver_{k}": rows for k, (_, rows) in enumerate(panels)},
        language=language,
    )


def _driver_panel(driver: RecentDriver, rows_name: str, language: Language) -> tuple[Layers, list[Row]]:
    """One driver over its rows, which the panel calls `rows_name`."""
    shown = driver.values if driver.level else 100 * driver.values / driver.values[0]
    rows = [
        _dated(day, language, shown=_rounded(y, 4), value=language.figures(original, 6))
        for day, y, original in zip(driver.dates, shown, driver.values, strict=True)
    ]
    say = language.say
    measure = "%" if driver.unit.startswith("percent") else say("level") if driver.level else say("index")
    flat = np.ptp(shown) == 0
    domain = (
        [float(shown[0]) - 0.5, float(shown[0]) + 0.5] if flat else _padded(shown.min(), shown.max(), 0.05)
    )
    axis = alt.Axis(tickCount=3)
    y = alt.Y("shown:Q", title=None, scale=alt.Scale(domain=domain, zero=False, nice=False), axis=axis)
    months = alt.Axis(
        grid=False,
        tickCount=alt.TimeIntervalStep(interval="month", step=2),
        format="%b %Y",
        labelOverlap=True,
    )
    x = alt.X("date:T", title=None, axis=months)
    tips = [
        alt.Tooltip("day:N", title=say("Date")),
        alt.Tooltip("shown:Q", title=measure.capitalize(), format=",.2f"),
        alt.Tooltip("value:N", title=say("Value")),
    ]
    line = _on(rows_name).mark_line(color=INK, strokeWidth=1.25).encode(x=x, y=y)
    targets = (
        _on(rows_name, HOVER + rows_name)
        .mark_point(opacity=0, size=60, filled=True)
        .encode(x=x, y=y, tooltip=tips)
    )
    title = alt.TitleParams(f"{label_of(driver.name, language)}, {measure}", limit=220)
    return alt.layer(line, targets).properties(width=226, height=96, title=title), rows


def _without_hover(spec: Row) -> Row:
    kept = {key: value for key, value in spec.items() if key != "params"}
    if "concat" in kept:
        kept["concat"] = [_without_hover(panel) for panel in kept["concat"]]
    if "layer" in kept:
        kept["layer"] = [layer for layer in kept["layer"] if not layer.get("name", "").startswith(HOVER)]
    return kept


def _on(rows: str, name: str | None = None) -> alt.Chart:
    """A layer over the rows of that name."""
    return alt.Chart(alt.NamedData(rows), name=name or alt.Undefined)


def _dated(day: date, language: Language, **values: Any) -> Row:
    # Without a zone, JavaScript reads local time and shows local time: the same day everywhere. A bare date
    # would be read as UTC and shown as the day before in the Americas.
    return {"date": f"{day.isoformat()}T00:00:00", "day": language.day(day), **values}


def _date_axis() -> alt.Axis:
    return alt.Axis(grid=False, tickCount=7, labelFlush=True, labelOverlap=True, format="%-d %b %Y")


def _step_axis(steps: int, language: Language) -> alt.X:
    axis = alt.Axis(
        grid=False, tickMinStep=1, tickCount=min(steps, 8), format="d", labelOverlap=True, labelSeparation=6
    )
    scale = alt.Scale(domain=[1, max(steps, 2)], nice=False)
    return alt.X("step:Q", title=language.say("Weekdays ahead"), axis=axis, scale=scale)


def _point(steps: int) -> bool | alt.OverlayMarkDef:
    return alt.OverlayMarkDef(color=FORECAST, size=36, filled=True) if steps <= 12 else False


def _hover(rows: str, tooltip: alt.Tooltip | Sequence[alt.Tooltip], width: int = 7) -> alt.Chart:
    """A column per row that answers the pointer with its numbers and lights up under it."""
    hover = alt.selection_point(name=f"over_{rows}", on="pointerover", clear="pointerout", empty=False)
    columns: alt.Chart = (
        _on(rows, HOVER + rows)
        .mark_rule(color=MUTED, strokeWidth=width)
        .encode(opacity=alt.condition(hover, alt.value(0.28), alt.value(0)), tooltip=tooltip)
        .add_params(hover)
    )
    return columns


def _labels(labels: Sequence[Row], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Direct labels to the right of the lines' ends, in the colours of their lines."""
    return [
        _on(name).mark_text(align="left", dx=8, color=rows[0]["colour"]).encode(x=x, y=y, text="label:N")
        for name, rows in _by_colour(labels).items()
    ]


def _by_colour(labels: Sequence[Row]) -> dict[str, list[Row]]:
    """Labels by the name of the rows that hold those of one colour."""
    sets: dict[str, list[Row]] = {}
    for row in labels:
        sets.setdefault(f"labels_{row['colour'].lstrip('#')}", []).append(row)
    return sets


def _end_labels(
    ends: Sequence[tuple[str, float, str]], domain: Sequence[float], height: int, place: Row
) -> list[Row]:
    """Labels (words, value, colour) at their values, moved apart where they would overlap, and kept inside."""
    ordered = sorted(ends, key=lambda end: end[1])
    gap = LABEL_PX * (domain[1] - domain[0]) / height
    at = spread([value for _, value, _ in ordered], gap, domain[0], domain[1])
    return [
        {**place, "label": words, "colour": colour, "at": round(y, 8)}
        for (words, _, colour), y in zip(ordered, at, strict=True)
    ]


def _padded(low: float, high: float, share: float) -> list[float]:
    span = (high - low) or abs(high) * 0.02 or 1.0
    return [low - share * span, high + share * span]


def _rounded(value: float, decimals: int) -> float:
    return round(float(value), decimals)


def _share(value: float, language: Language) -> str:
    return f"{language.number(100 * value, 1)} %" if math.isfinite(value) else language.say("no known share")


def _or_none(value: float, language: Language) -> str:
    return language.number(value, 3) if math.isfinite(value) else language.say("no value")
