"""The charts of the pages, each of what the ledger says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from forex_core.dashboard.drawing import Band, Chart, Label, Line, Mark, Rows, Tip, number_of
from forex_core.dashboard.reading import History, Rates
from forex_core.dashboard.words import NBSP, day, number, share
from forex_core.ledger import Trajectory
from forex_core.report.document import price_decimals
from forex_core.report.language import label_of
from forex_core.report.look import gaps
from forex_core.types import RANDOM_WALK, Array, level_indices

_POINTS = 400
"""Of a line over years, at most: more than a picture has room for."""


@dataclass(frozen=True)
class Bands:
    """The median and the central bands of a path: [H] each."""

    median: Array
    low_80: Array
    high_80: Array
    low_95: Array
    high_95: Array

    @classmethod
    def of(cls, path: Trajectory) -> Bands:
        q, middle = path.quantiles, path.levels.index(0.5)
        edges = [q[:, k] for coverage in (0.8, 0.95) for k in level_indices(path.levels, coverage)]
        return cls(q[:, middle], *edges)


def fan(path: Trajectory, rates: Rates, unit: str, *, height: int = 210) -> Chart:
    """The rate up to the origin, the bands ahead, and what came where that is known."""
    close, origin = path.of.close, path.of.origin
    said = partial(number, decimals=price_decimals(close))
    bands, ahead = Bands.of(path), number_of(np.array(path.target_dates, dtype="M8[D]"))
    start = float(number_of(np.array([origin], dtype="M8[D]"))[0])
    days = np.concatenate([[start], ahead])

    def from_close(values: Array) -> Array:
        return np.concatenate([[close], values])

    before = number_of(rates.days) <= start
    past, values = number_of(rates.days)[before], rates.values[before]
    if not len(past) or past[-1] != start:
        past, values = np.append(past, start), np.append(values, close)
    known = np.isfinite(path.outcomes)
    lines = [
        Line(np.array([start, ahead[-1]]), np.array([close, close]), "walk dashed"),
        _rate(past, values, "ink"),
        Line(days, from_close(bands.median), "forecast strong"),
    ]
    if known.any():
        lines.append(
            _rate(np.append(start, ahead[known]), np.append(close, path.outcomes[known]), "ink strong")
        )
    last = path.target_dates[-1]
    said_of_days = [
        *(Tip(float(d), f"{day(_date(d))}\n{said(float(v))}") for d, v in zip(past, values, strict=True)),
        *_unknown(past),
        *(Tip(float(ahead[h]), words) for h, words in enumerate(_said(path, bands))),
    ]
    hindsight = "" if path.of.live else "Made in hindsight: published after its first outcome was known."
    came = f" On {day(last)} it came at {said(float(path.outcomes[-1]))}." if known[-1] else ""
    return Chart(
        title="Forecast",
        caption=hindsight,
        description=(
            f"{hindsight} From {said(close)} on {day(origin)} to a median of {said(float(bands.median[-1]))} {unit} on "
            f"{day(last)}, 80 % band {said(float(bands.low_80[-1]))} to {said(float(bands.high_80[-1]))}, "
            f"95 % band {said(float(bands.low_95[-1]))} to {said(float(bands.high_95[-1]))}.{came}"
        ).lstrip(),
        ticks=number,
        bands=[
            Band(days, from_close(bands.low_95), from_close(bands.high_95), "band95"),
            Band(days, from_close(bands.low_80), from_close(bands.high_80), "band80"),
        ],
        lines=lines,
        labels=[
            Label(float(bands.high_95[-1]), said(float(bands.high_95[-1])), "muted"),
            Label(float(bands.high_80[-1]), said(float(bands.high_80[-1])), "muted"),
            Label(float(bands.median[-1]), said(float(bands.median[-1])), "forecast"),
            Label(float(bands.low_80[-1]), said(float(bands.low_80[-1])), "muted"),
            Label(float(bands.low_95[-1]), said(float(bands.low_95[-1])), "muted"),
        ],
        tips=sorted(said_of_days, key=lambda tip: tip.day),
        height=height,
    )


def _rate(days: Array, values: Array, look: str) -> Line:
    """A rate by day, broken where it has a gap."""
    after = gaps(days.astype(np.int64)) + 1
    return Line(np.insert(days, after, days[after - 1]), np.insert(values, after, np.nan), look)


def _unknown(days: Array) -> list[Tip]:
    """That no close is known, in the middle of each gap between days [n]."""
    return [
        Tip(
            float(days[k] + days[k + 1]) / 2,
            f"No close on record between\n{day(_date(days[k]))} and {day(_date(days[k + 1]))}",
        )
        for k in gaps(days.astype(np.int64))
    ]


def _said(path: Trajectory, bands: Bands) -> list[str]:
    """What was said of each target date, and what came."""
    said = partial(number, decimals=price_decimals(path.of.close))
    return [
        "\n".join(
            [
                day(target),
                f"Median {said(float(bands.median[h]))}",
                f"80{NBSP}% {said(float(bands.low_80[h]))} to {said(float(bands.high_80[h]))}",
                f"95{NBSP}% {said(float(bands.low_95[h]))} to {said(float(bands.high_95[h]))}",
                *([f"Came at {said(float(path.outcomes[h]))}"] if np.isfinite(path.outcomes[h]) else []),
            ]
        )
        for h, target in enumerate(path.target_dates)
    ]


def said_and_came(paths: Sequence[Trajectory], rates: Rates, days_ahead: int) -> Chart | None:
    """For each target date what was said of it at the horizon's end, and the rate that came, of the live forecasts.

    None before there are two.
    """
    scored = [path for path in paths if path.of.live and np.isfinite(path.outcomes[-1])]
    if len(scored) < 2:
        return None
    ends = number_of(np.array([path.target_dates[-1] for path in scored], dtype="M8[D]"))
    order = np.argsort(ends, kind="stable")
    ends = ends[order]
    edges = [Bands.of(path) for path in scored]
    median, low, high = (
        np.array([getattr(one, name)[-1] for one in edges])[order] for name in ("median", "low_80", "high_80")
    )
    came = np.array([path.outcomes[-1] for path in scored])[order]
    inside = int(((came >= low) & (came <= high)).sum())
    origins = [scored[k].of.origin for k in order]
    said = partial(number, decimals=price_decimals(float(came[-1])))
    shown = rates.at(rates.came).between(_date(ends[0]), _date(ends[-1]))
    return Chart(
        title=f"What was said {days_ahead} days before, and what came",
        caption=(
            "For each target date the 80 % band and the median (blue) as they were published at the horizon's end, and "
            f"the rate that came. Inside the band: {inside} of {len(scored)}."
        ),
        description=(
            f"From {day(_date(ends[0]))} to {day(_date(ends[-1]))} the rate came inside the 80 % band on {inside} of "
            f"{len(scored)} target dates."
        ),
        ticks=number,
        bands=[Band(ends, low, high, "band80")],
        lines=[Line(ends, median, "forecast"), _rate(number_of(shown.days), shown.values, "ink")],
        labels=[Label(float(median[-1]), "said", "forecast"), Label(float(came[-1]), "came", "ink")],
        tips=[
            Tip(
                float(ends[k]),
                f"{day(_date(ends[k]))}\nCame at {said(float(came[k]))}\n"
                f"Said {day(origins[k])}: {said(float(median[k]))}\n"
                f"80{NBSP}% {said(float(low[k]))} to {said(float(high[k]))}",
            )
            for k in range(len(ends))
        ],
        height=230,
    )


def coverage(history: History) -> Chart | None:
    """Shares of outcomes inside the bands over the last forecasts; None before there are enough."""
    trailing = history.trailing.at(_thinned(len(history.trailing.days)))
    if not len(trailing.days):
        return None
    days = number_of(trailing.days)
    now_80, now_95 = float(trailing.coverage_80[-1]), float(trailing.coverage_95[-1])
    lowest = min(float(trailing.coverage_80.min()), 0.6)
    return Chart(
        title="Whether the bands hold",
        caption=(
            "Share of outcomes inside the 80 % and the 95 % band at the horizon's end, over the last "
            f"{_window(history)} forecasts; dashed: what was promised. Neighbouring forecasts share most of their "
            "outcomes."
        ),
        description=(
            f"Of the last {int(trailing.counts[-1])} outcomes {share(now_80)} lay in the 80 % band and {share(now_95)} "
            f"in the 95 % band, on {day(_date(days[-1]))}."
        ),
        ticks=lambda value, decimals: share(value, max(0, decimals - 2)),
        limits=(max(0.0, np.floor(10 * lowest) / 10), 1.0),
        levels=[(0.8, "muted dashed"), (0.95, "muted dashed")],
        lines=[
            Line(days, trailing.coverage_80, "forecast strong"),
            Line(days, trailing.coverage_95, "forecast faint"),
        ],
        labels=[
            Label(now_80, f"80{NBSP}%: {share(now_80)}", "forecast"),
            Label(now_95, f"95{NBSP}%: {share(now_95)}", "forecast"),
        ],
        tips=[
            Tip(
                float(days[k]),
                f"{day(_date(days[k]))}\n80{NBSP}% band: {share(float(trailing.coverage_80[k]), 1)}\n"
                f"95{NBSP}% band: {share(float(trailing.coverage_95[k]), 1)}\n{int(trailing.counts[k])} forecasts",
            )
            for k in range(len(days))
        ],
    )


def skill(history: History) -> Chart | None:
    """Errors over those of the random walk over the last forecasts; None before there are enough."""
    trailing = history.trailing.at(_thinned(len(history.trailing.days)))
    if not len(trailing.days) or not np.isfinite(trailing.rmse_ratio_rw[-1]):
        return None
    days = number_of(trailing.days)
    rmse, crps = float(trailing.rmse_ratio_rw[-1]), float(trailing.crps_ratio_rw[-1])
    return Chart(
        title="Skill against the random walk",
        caption=(
            f"RMSE (strong) and CRPS (faint) at the horizon's end over those of the random walk, over the last "
            f"{_window(history)} forecasts; below 1 the forecasts were better."
        ),
        description=(
            f"Over the last {int(trailing.counts[-1])} forecasts the RMSE was {number(rmse, 3)} and the CRPS "
            f"{number(crps, 3)} times that of the random walk."
        ),
        ticks=number,
        levels=[(1.0, "walk dashed")],
        lines=[
            Line(days, trailing.rmse_ratio_rw, "forecast strong"),
            Line(days, trailing.crps_ratio_rw, "forecast faint"),
        ],
        labels=[
            Label(rmse, f"RMSE {number(rmse, 2)}", "forecast"),
            Label(crps, f"CRPS {number(crps, 2)}", "forecast"),
            Label(1.0, "walk", "walk"),
        ],
        tips=[
            Tip(
                float(days[k]),
                f"{day(_date(days[k]))}\nRMSE ratio {number(float(trailing.rmse_ratio_rw[k]), 3)}\n"
                f"CRPS ratio {number(float(trailing.crps_ratio_rw[k]), 3)}\n{int(trailing.counts[k])} forecasts",
            )
            for k in range(len(days))
        ],
    )


def weights(history: History) -> Rows | None:
    """How much each member counted in what was published live; None before there is a live forecast."""
    if not history.publications:
        return None
    shown = [history.publications[k] for k in _thinned(len(history.publications))]
    names = sorted({name for one in shown for name in one.weights})
    days = np.array([one.origin for one in shown], dtype="M8[D]")
    shares = {name: np.array([one.weights.get(name, np.nan) for one in shown]) for name in names}
    now = sorted(shown[-1].weights.items(), key=lambda one: (-one[1], one[0]))
    first = ", ".join(f"{label_of(name)} {share(weight, 1)}" for name, weight in now)
    return Rows(
        title="Weights of the members",
        caption="How much each member's median counted in the published forecast; the random walk in orange.",
        description=f"Weights on {day(shown[-1].origin)}: {first}.",
        days=number_of(days),
        shares=shares,
        emphasised=RANDOM_WALK,
        labels={name: label_of(name) for name in names},
        tips=[
            Tip(
                float(number_of(days[k : k + 1])[0]),
                "\n".join(
                    [
                        day(one.origin),
                        *(
                            f"{label_of(name)} {share(weight, 1)}"
                            for name, weight in sorted(one.weights.items(), key=lambda pair: -pair[1])
                        ),
                    ]
                ),
            )
            for k, one in enumerate(shown)
        ],
    )


def champions(history: History) -> Chart | None:
    """Which version was published live, with what was done to the champion; None before there is a second forecast."""
    published = [one for one in history.publications if one.version is not None]
    if len(published) < 2:
        return None
    days = number_of(np.array([one.origin for one in published], dtype="M8[D]"))
    versions = np.array([float(one.version or 0) for one in published])
    span = (float(days[0]), max(float(days[-1]), float(days[0]) + 1))
    marks = []
    for change in history.changes:
        at = float(number_of(np.array([change.at.date()], dtype="M8[D]"))[0])
        if change.status == "FINISHED" and change.action != "unpin" and span[0] <= at:
            span = (span[0], max(span[1], at))
            marks.append(Mark(at, f"{change.action} to version {change.to_version}, {day(change.at.date())}"))
    recipes = [one.recipe for one in published]
    changed = sum(a != b for a, b in pairwise(recipes))
    last = published[-1]
    return Chart(
        title="Champion",
        caption=(
            "Version of the registered model that each forecast was made by; a new day of the same recipe is a new "
            "version. Triangles: rollbacks, promotions and other bands, by hand or by the monitor."
        ),
        description=(
            f"Version {last.version} was published on {day(last.origin)}; the recipe changed {changed} times and the "
            f"champion {len(marks)} times by hand or by the monitor since {day(published[0].origin)}."
        ),
        ticks=lambda value, decimals: "" if decimals else f"v{value:,.0f}",
        lines=[Line(days, versions, "forecast strong", stepped=True)],
        marks=marks,
        labels=[Label(float(versions[-1]), f"v{last.version}", "forecast")],
        tips=[
            Tip(
                float(days[k]),
                f"{day(published[k].origin)}\nVersion {published[k].version}\nRecipe {published[k].recipe[:8]}",
            )
            for k in _thinned(len(days))
        ],
        span=span,
    )


def _thinned(n: int) -> npt.NDArray[np.intp]:
    """Positions of so many of n that a line has no more points than it can show, the last among them."""
    return np.arange(n, dtype=np.intp)[::-1][:: -(-n // _POINTS) or 1][::-1]


def _window(history: History) -> int:
    return int(history.trailing.counts.max())


def _date(number: float) -> date:
    found: date = np.datetime64(int(number), "D").item()
    return found
