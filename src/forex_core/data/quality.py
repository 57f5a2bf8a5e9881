"""The quality gate: what may be believed of a raw series, and since when.

The gate walks forward and judges each print by what came before it. A print that is off by a large factor is
held back; the next print confirms it (a real jump, known from then on) or refutes it (it came back: taken
out). Nothing a later row says changes what an earlier row was allowed to know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from forex_core.data.series import PRICE, Series
from forex_core.errors import DataQualityError
from forex_core.types import Array, Repair

SPOT_JUMP = round(math.log(1.25), 9)
"""A spot print this far (in logs) from the last accepted one waits for the next print."""

DRIVER_JUMP = round(math.log(4.0), 9)
"""The same for a driver: volatility indices do double in a day."""

GROSS_JUMP = round(math.log(3.0), 9)
"""Beyond this factor, one agreeing print is not enough: a decimal slip often lasts for days."""

GROSS_CONFIRMATIONS = 5


@dataclass(frozen=True)
class Accepted:
    """Prints that may be believed, by date: `values` became known at `known_at` (UTC)."""

    dates: pd.DatetimeIndex
    values: Array
    known_at: pd.DatetimeIndex
    repairs: tuple[Repair, ...]


def gate(series: Series, *, is_spot: bool) -> Accepted:
    """Order, thin out and judge a raw series.

    Raises:
        DataQualityError: when no usable print is left.
    """
    repairs: list[Repair] = []
    dates, values = _ordered(series, repairs)
    if series.definition.kind == PRICE:
        dates, values = _on_weekdays(series.name, dates, values, repairs)
    if is_spot:
        dates, values = _positive(series.name, dates, values, repairs)
    if len(values) == 0:
        raise DataQualityError(
            f"series '{series.name}' has no usable value on a weekday; expected one number per trading day"
        )
    known_at = series.definition.release.instants(dates)
    if series.definition.kind == PRICE:
        known_by, judged = _judge(series.name, dates, values, SPOT_JUMP if is_spot else DRIVER_JUMP)
        repairs += judged
        believed = np.array(known_by) >= 0
        known_at = known_at[np.array(known_by)[believed]]
        dates, values = dates[believed], values[believed]
    repeated = int((np.diff(values) == 0).sum())
    if is_spot and repeated:
        repairs.append(
            Repair(series.name, "repeated", None, None, "closes equal to the one before, kept", repeated)
        )
    return Accepted(dates, values, known_at, tuple(repairs))


def _ordered(series: Series, repairs: list[Repair]) -> tuple[pd.DatetimeIndex, Array]:
    """Sorted by date, holes dropped, the last of several rows of one day kept."""
    days, values = series.dates.to_numpy(), series.values
    if (np.diff(days) < np.timedelta64(0)).any():
        backwards = int((np.diff(days) < np.timedelta64(0)).sum())
        repairs.append(
            Repair(series.name, "unordered", None, None, "rows out of date order, sorted", backwards)
        )
    present = ~np.isnan(values)
    order = np.argsort(days[present], kind="stable")
    days, values = days[present][order], values[present][order]
    last_of_day = np.append(days[1:] != days[:-1], True) if len(days) else np.array([], dtype=bool)
    repeated = np.flatnonzero(~last_of_day)
    if len(repeated):
        first = int(repeated[0])
        note = (
            f"several rows of one day, the last is used: first {values[first]:g}, then {values[first + 1]:g}"
        )
        day = pd.Timestamp(days[first]).date()
        repairs.append(Repair(series.name, "duplicate", day, float(values[first]), note, len(repeated)))
    return pd.DatetimeIndex(days[last_of_day]), values[last_of_day]


def _on_weekdays(
    name: str, dates: pd.DatetimeIndex, values: Array, repairs: list[Repair]
) -> tuple[pd.DatetimeIndex, Array]:
    """Prints of Monday to Friday: no market closes on the other days, whatever a quote service says."""
    trading = np.asarray(dates.day_of_week < 5)
    weekend = np.flatnonzero(~trading)
    if len(weekend):
        first = int(weekend[0])
        day = pd.Timestamp(dates[first]).date()
        note = "prints dated Saturday or Sunday, taken out"
        repairs.append(Repair(name, "weekend", day, float(values[first]), note, len(weekend)))
    return dates[trading], values[trading]


def _positive(
    name: str, dates: pd.DatetimeIndex, values: Array, repairs: list[Repair]
) -> tuple[pd.DatetimeIndex, Array]:
    good = values > 0
    bad = np.flatnonzero(~good)
    if len(bad):
        first = int(bad[0])
        note = "a price cannot be zero or negative, taken out"
        day = pd.Timestamp(dates[first]).date()
        repairs.append(Repair(name, "not_positive", day, float(values[first]), note, len(bad)))
    return dates[good], values[good]


def _judge(name: str, dates: pd.DatetimeIndex, values: Array, limit: float) -> tuple[list[int], list[Repair]]:
    """For each print the position of the print that made it known (itself as a rule), -1 when it is not believed."""
    known_by = list(range(len(values)))
    repairs: list[Repair] = []
    last = float(values[0])
    waiting: list[int] = []

    def settle(kind: str, known: int, note: str) -> None:
        for position in waiting:
            known_by[position] = known
            repairs.append(
                Repair(name, kind, pd.Timestamp(dates[int(position)]).date(), float(values[position]), note)
            )
        waiting.clear()

    for i in range(1, len(values)):
        value = float(values[i])
        if waiting:
            held = float(values[waiting[-1]])
            if _distance(value, held) < _distance(value, last):
                needed = GROSS_CONFIRMATIONS if _distance(held, last) > GROSS_JUMP else 1
                if len(waiting) < needed:
                    waiting.append(i)
                else:
                    settle(
                        "confirmed", i, f"a real jump from {last:g}: held until {dates[i].date()}, then used"
                    )
                    last = value
                continue
            settle("refuted", -1, f"{_ratio(held, last)}; back at {value:g} on {dates[i].date()}; taken out")
        if _distance(value, last) > limit:
            waiting.append(i)
        else:
            last = value
    if waiting:
        ratio = _ratio(float(values[waiting[-1]]), last)
        settle("held", -1, f"{ratio}; held back until the next prints confirm or refute it")
    return known_by, repairs


def _distance(value: float, other: float) -> float:
    """Absolute log ratio. It says nothing of a price at or below zero (oil, April 2020): 0, so it is believed."""
    # Rounded, so that a print exactly at a limit is judged the same in every unit of the price.
    return round(abs(math.log(value / other)), 9) if value > 0 and other > 0 else 0.0


def _ratio(value: float, last: float) -> str:
    factor = value / last
    words = f"{factor:.3g} times" if factor >= 1 else f"1/{1 / factor:.3g} of"
    return f"{words} the last accepted print {last:g}"
