"""Which driver moved the median: what each driver's latest moves add to it, one left out at a time.

A driver is left out by having it stand still over the last `ROWS` weekdays, which is what the members look back on.
What they have learned stays: parameters of today, weights of today, the same bands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from forex_core.briefing.absent import Absent
from forex_core.engine import Engine, import_libraries
from forex_core.models.base import Refitted, Rows
from forex_core.models.driver_regression import MOMENTUM_ROWS
from forex_core.types import LEVELS, PERCENT_PER_YEAR, Array, ForecastRun, MarketBundle

ROWS = max(MOMENTUM_ROWS)
"""Weekdays over which a driver that is left out stands still: the longest that a member looks back on moves."""

MIN_WEIGHT = 1e-6
"""Members with less are not asked: they cannot move the median by as much as its last digit."""

TOLERANCE = 1e-7
"""Relative difference up to which the published median counts as made again."""


@dataclass(frozen=True)
class Contributions:
    """Prices that add up: `close` + `own_past` + all `drivers` + `remainder` = `median` on the last target date.

    Attributes:
        drivers: by name, the largest first.
        own_past: the move that is left where no driver has moved: the rate's own past, and the catching up with drivers
            of longer ago.
        remainder: what drivers do together beyond what each does alone; nothing for linear members.
        unread: drivers whose moves change nothing today.
    """

    target_date: date
    close: float
    median: float
    own_past: float
    drivers: Mapping[str, float]
    remainder: float
    unread: tuple[str, ...]

    @property
    def move(self) -> float:
        return self.median - self.close


def contributions(engine: Engine, run: ForecastRun, bundle: MarketBundle) -> Contributions | Absent:
    """What moved the median of the last target date, of a run that `engine` has made of `bundle`.

    With c(·) the weighted log median of the members over the close: driver k adds c(all) − c(all but k), own past is
    c(none), the remainder what is missing to c(all). Logs are turned into prices by (median − close)/c(all), the
    logarithmic mean of the two, so that they still add up (the index of Montgomery and Vartia; Ang 2004).

    It is absent where no member of weight has read a driver, or the engine does not make the published median again.
    """
    readers = [
        member
        for member in engine.members
        if isinstance(member, Refitted)
        and "drivers" in member.columns
        and run.weights.get(member.name, 0.0) > MIN_WEIGHT
    ]
    prices = [k for k, unit in enumerate(bundle.driver_units) if unit != PERCENT_PER_YEAR]
    if not readers or not prices:
        return Absent("no_drivers")
    last = run.forecast.steps[-1]
    import_libraries(readers)
    with threadpool_limits(1):
        scenarios = [bundle, *(_held(bundle, [k]) for k in prices), _held(bundle, prices)]
        by_readers = sum(run.weights[m.name] * _log_medians(m, scenarios, last) for m in readers)
    close, median = float(bundle.spot[-1]), float(run.forecast.median[-1])
    asked = {member.name for member in readers}
    middle = LEVELS.index(0.5)
    others = sum(
        member.weight * math.log(member.raw[-1, middle] / close)
        for member in run.members
        if member.name not in asked
    )
    total, *alone, none = (np.asarray(by_readers) + others).tolist()
    if not abs(total - math.log(median / close)) < TOLERANCE:  # nor where a member has no answer
        return Absent("other_model")
    to_price = close if total == 0 else (median - close) / total
    names = [bundle.driver_names[k] for k in prices]
    added = {name: (total - without) * to_price for name, without in zip(names, alone, strict=True)}
    told = {name: added[name] for name in sorted(added, key=lambda n: -abs(added[n])) if added[name] != 0}
    own_past = none * to_price
    return Contributions(
        target_date=run.forecast.target_dates[-1],
        close=close,
        median=median,
        own_past=own_past,
        drivers=told,
        remainder=median - close - own_past - sum(told.values()),
        unread=tuple(name for name in bundle.driver_names if name not in told),
    )


def _held(bundle: MarketBundle, columns: Sequence[int]) -> MarketBundle:
    """The bundle with some drivers as they stood `ROWS` rows before the last."""
    drivers = bundle.drivers.copy()
    drivers[-ROWS:, columns] = drivers[-ROWS - 1, columns]
    return replace(bundle, drivers=drivers)


def _log_medians(member: Refitted[Any], scenarios: Sequence[MarketBundle], step: int) -> Array:
    """[S] log median over the close after `step` weekdays, in each scenario, as learned from the first one."""
    learned = _Learned(member, scenarios[0])
    return np.array([learned.log_median(scenario, step) for scenario in scenarios])


class _Learned(Refitted[Any]):
    """A member that answers other moves with what it has learned from those that were."""

    def __init__(self, member: Refitted[Any], bundle: MarketBundle) -> None:
        self.name, self.cadence, self.min_rows = member.name, member.cadence, member.min_rows
        self._member = member
        self._was = member.prepare(bundle)
        self._fits: dict[int, Any] = {}

    def log_median(self, bundle: MarketBundle, step: int) -> float:
        answers = self.forecast(bundle, bundle.instants[-1:], step, LEVELS)
        return math.log(float(answers[0][-1, LEVELS.index(0.5)]) / float(bundle.spot[-1]))

    def prepare(self, bundle: MarketBundle) -> Mapping[str, Array]:
        return self._member.prepare(bundle)

    def fit(self, inputs: Mapping[str, Array], anchor: int) -> Any:
        if anchor not in self._fits:
            self._fits[anchor] = self._member.fit(self._was, anchor)
        return self._fits[anchor]

    def answer(
        self, fitted: Any, inputs: Mapping[str, Array], anchor: int, rows: Rows, steps: int
    ) -> tuple[Array, Array]:
        return self._member.answer(fitted, inputs, anchor, rows, steps)
