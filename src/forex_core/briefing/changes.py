"""What is other than in the forecast before: how far the median moved, and by what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from forex_core.briefing.absent import Absent
from forex_core.types import LEVELS, ForecastRun, MarketBundle, Publication

TOLD_WEIGHTS = 5
MIN_WEIGHT_CHANGE = 0.001
"""Changes of a member's weight that are told: at most so many, and none smaller."""


@dataclass(frozen=True)
class Move:
    """A figure in the forecast before, and in this one."""

    before: float
    now: float


@dataclass(frozen=True)
class Parts:
    """What the move of the median is made of, in price: they add up to it."""

    close: float
    signal: float
    weights: float


@dataclass(frozen=True)
class Revised:
    """Rows of a series that were something else in the forecast before; the first of them."""

    series: str
    rows: int
    first: date


@dataclass(frozen=True)
class DataChanges:
    """`revised` is None where the rows of before are not at hand; `left` and `joined` are names of drivers."""

    new_rows: int
    revised: tuple[Revised, ...] | None = None
    left: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightChange:
    """None where the member was, or is, not part of the forecast."""

    model: str
    before: float | None
    now: float | None


@dataclass(frozen=True)
class Changes:
    """Since the forecast `run_id`. What speaks of a target date is None where the two forecasts share none."""

    run_id: str
    origin: date
    as_of: str
    close: Move
    target_date: date | None
    median: Move | None
    width_80: Move | None
    parts: Parts | None
    data: DataChanges
    version_before: int | None
    version_now: int | None
    recipe_changed: bool
    weights: tuple[WeightChange, ...]


def changes(
    previous: Mapping[str, Any] | Absent | None,
    run: ForecastRun,
    bundle: MarketBundle,
    publication: Publication | None = None,
    before: MarketBundle | None = None,
) -> Changes | Absent:
    """How a run differs from the forecast before of the same pair and horizon, given that one's document.

    Medians are compared on the last target date that both speak of. Where the recipes are the same, with S the closes,
    w the weights and c_m today's log median of member m over today's close, the log move of the median is
    ln(S′/S) (`close`) + Σ (w′_m − w_m) c_m (`weights`) + the rest: what the members make of the new rows and of a
    target date that has come nearer (`signal`). It is turned into prices as in `contributions`.

    Args:
        previous: the document, None where there is no forecast before, or why there is no document of one.
        before: the rows that it was made of, where they are at hand.
    """
    if previous is None:
        return Absent("first")
    if isinstance(previous, Absent):
        return previous
    try:
        if (origin := date.fromisoformat(previous["origin"])) > run.forecast.origin:
            return Absent("later", {"run_id": previous["run_id"], "origin": origin.isoformat()})
        return _compared(previous, run, bundle, publication, before)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        # Of another format, or altered.
        return Absent("unreadable", {"run_id": str(previous.get("run_id"))})


def data_changes(before: MarketBundle, now: MarketBundle) -> DataChanges:
    """New rows, and rows of `before` in which some cell is another now.

    A cell counts where both know it under the same instant: that a close became known later than its row is no
    revision.
    """
    shared, at_before, at_now = np.intersect1d(before.dates, now.dates, return_indices=True)
    fixed = before.instants[at_before] == now.instants[at_now]
    shared, at_before, at_now = shared[fixed], at_before[fixed], at_now[fixed]
    spot_differs = before.spot[at_before] != now.spot[at_now]
    truth_was = before.truth[at_before]
    truth_differs = np.isfinite(truth_was) & (truth_was != now.truth[at_now])
    differs = {str(now.pair): spot_differs | truth_differs}
    for name in before.driver_names:
        if name in now.driver_names:
            was, is_now = (
                bundle.drivers[rows, bundle.driver_names.index(name)]
                for bundle, rows in ((before, at_before), (now, at_now))
            )
            differs[name] = ~((was == is_now) | (np.isnan(was) & np.isnan(is_now)))
    return DataChanges(
        new_rows=_rows_after(now, before.origin),
        revised=tuple(
            Revised(name, int(rows.sum()), shared[rows].min().astype("datetime64[D]").item())
            for name, rows in differs.items()
            if rows.any()
        ),
        left=tuple(name for name in before.driver_names if name not in now.driver_names),
        joined=tuple(name for name in now.driver_names if name not in before.driver_names),
    )


def _compared(
    previous: Mapping[str, Any],
    run: ForecastRun,
    bundle: MarketBundle,
    publication: Publication | None,
    before: MarketBundle | None,
) -> Changes:
    forecast = run.forecast
    origin = date.fromisoformat(previous["origin"])
    close = Move(float(previous["origin_close"]), float(bundle.spot[-1]))
    weights = {n: float(m["weight"]) for n, m in previous["models"].items() if m.get("weight") is not None}
    recipe_changed = previous["recipe"] != run.recipe
    was = [date.fromisoformat(day) for day in previous["target_dates"]]
    shared = sorted(set(was) & set(forecast.target_dates))
    target = shared[-1] if shared else None
    median = width = parts = None
    if target is not None:
        at, i = forecast.target_dates.index(target), was.index(target)
        low, high = forecast.interval(0.8)
        old = {level: float(previous["quantiles"][level][i]) for level in ("0.1", "0.5", "0.9")}
        median = Move(old["0.5"], float(forecast.median[at]))
        width = Move(old["0.9"] - old["0.1"], float(high[at] - low[at]))
        parts = None if recipe_changed else _parts(median, close, weights, run, at)
    published = previous.get("published") or {}
    return Changes(
        run_id=str(previous["run_id"]),
        origin=origin,
        as_of=str(previous["as_of"]),
        close=close,
        target_date=target,
        median=median,
        width_80=width,
        parts=parts,
        data=DataChanges(_rows_after(bundle, origin)) if before is None else data_changes(before, bundle),
        version_before=published.get("version"),
        version_now=publication.version if publication else None,
        recipe_changed=recipe_changed,
        weights=_weight_changes(weights, run.weights),
    )


def _parts(median: Move, close: Move, weights: Mapping[str, float], run: ForecastRun, at: int) -> Parts:
    middle = LEVELS.index(0.5)
    total = math.log(median.now / median.before)
    moved = math.log(close.now / close.before)
    reweighted = sum(
        (member.weight - weights.get(member.name, 0.0)) * math.log(member.raw[at, middle] / close.now)
        for member in run.members
    )
    to_price = median.before if total == 0 else (median.now - median.before) / total
    return Parts(moved * to_price, (total - moved - reweighted) * to_price, reweighted * to_price)


def _weight_changes(before: Mapping[str, float], now: Mapping[str, float]) -> tuple[WeightChange, ...]:
    def size(name: str) -> float:
        return abs(now.get(name, 0.0) - before.get(name, 0.0))

    names = sorted(dict.fromkeys([*now, *before]), key=lambda name: (-size(name), name))
    told = [name for name in names if size(name) >= MIN_WEIGHT_CHANGE][:TOLD_WEIGHTS]
    return tuple(WeightChange(name, before.get(name), now.get(name)) for name in told)


def _rows_after(bundle: MarketBundle, day: date) -> int:
    return int((bundle.dates > pd.Timestamp(day)).sum())
