"""The quality gate: what may be believed of a raw series, and since when.

The gate walks forward and judges each print by what came before it. A print that is off by a large factor is
held back; the next print confirms it (a real jump, known from then on) or refutes it (it came back: taken
out). Nothing a later row says changes what an earlier row was allowed to know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from forex_core.data.series import PRICE, Series
from forex_core.errors import DataQualityError
from forex_core.types import Array, Mask, Repair

SPOT_JUMP = round(math.log(1.25), 9)
"""A spot print this far (in logs) from the last accepted one waits for the next print."""

DRIVER_JUMP = round(math.log(4.0), 9)
"""The same for a driver: volatility indices do double in a day."""

GROSS_JUMP = round(math.log(3.0), 9)
"""Beyond this factor, one agreeing print is not enough: a decimal slip often lasts for days."""

GROSS_CONFIRMATIONS = 5


@dataclass(frozen=True)
class Accepted:
    """Prints that may be believed, by date and then by when they became known: `values` were, at `known_at` (UTC).

    A day that was revised has several, the latest last.
    """

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
    prints = _ordered(series, repairs)
    if series.definition.kind == PRICE:
        prints = _on_weekdays(series.name, prints, repairs)
    if is_spot:
        prints = _positive(series.name, prints, repairs)
    if len(prints) == 0:
        raise DataQualityError(
            f"series '{series.name}' has no usable value on a weekday; expected one number per trading day"
        )
    is_first = np.append(True, prints.dates[1:] != prints.dates[:-1])
    firsts, revisions = prints[is_first], prints[~is_first]
    if series.definition.kind == PRICE:
        limit = SPOT_JUMP if is_spot else DRIVER_JUMP
        on_time, late = _by_arrival(firsts)
        on_time = _judged(series.name, on_time, limit, repairs)
        late = _plausible(series.name, late, on_time, limit, repairs)
        firsts = _joined(on_time, late)
        revisions = _plausible(series.name, revisions, firsts, limit, repairs)
    repeated = int((np.diff(firsts.values) == 0).sum())
    if is_spot and repeated:
        repairs.append(
            Repair(series.name, "repeated", None, None, "closes equal to the one before, kept", repeated)
        )
    accepted = _merged(series.name, firsts, revisions, repairs)
    return Accepted(accepted.dates, accepted.values, accepted.known_at, tuple(repairs))


@dataclass(frozen=True)
class _Prints:
    """Prints by date and then by when they became known."""

    dates: pd.DatetimeIndex
    values: Array
    known_at: pd.DatetimeIndex

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, chosen: Mask | npt.NDArray[np.int64]) -> _Prints:
        return _Prints(self.dates[chosen], self.values[chosen], self.known_at[chosen])


def _ordered(series: Series, repairs: list[Repair]) -> _Prints:
    """Sorted, holes dropped; of several rows of one day that became known together the last is kept."""
    days, values, known = series.dates.to_numpy(), series.values, series.released
    if series.known_at is None and (np.diff(days) < np.timedelta64(0)).any():
        backwards = int((np.diff(days) < np.timedelta64(0)).sum())
        repairs.append(
            Repair(series.name, "unordered", None, None, "rows out of date order, sorted", backwards)
        )
    present = np.flatnonzero(~np.isnan(values))
    order = present[np.lexsort((known.asi8[present], days[present]))]
    days, values, instants = days[order], values[order], known.asi8[order]
    last = np.append((days[1:] != days[:-1]) | (instants[1:] != instants[:-1]), True)[: len(days)]
    repeated = np.flatnonzero(~last)
    if len(repeated):
        first = int(repeated[0])
        note = (
            f"several rows of one day, the last is used: first {values[first]:g}, then {values[first + 1]:g}"
        )
        day = pd.Timestamp(days[first]).date()
        repairs.append(Repair(series.name, "duplicate", day, float(values[first]), note, len(repeated)))
    return _Prints(pd.DatetimeIndex(days[last]), values[last], known[order][last])


def _on_weekdays(name: str, prints: _Prints, repairs: list[Repair]) -> _Prints:
    """Prints of Monday to Friday: no market closes on the other days, whatever a quote service says."""
    trading = np.asarray(prints.dates.day_of_week < 5)
    note = "prints dated Saturday or Sunday, taken out"
    return _without(name, "weekend", note, prints, trading, repairs)


def _positive(name: str, prints: _Prints, repairs: list[Repair]) -> _Prints:
    note = "a price cannot be zero or negative, taken out"
    return _without(name, "not_positive", note, prints, prints.values > 0, repairs)


def _without(name: str, kind: str, note: str, prints: _Prints, good: Mask, repairs: list[Repair]) -> _Prints:
    bad = np.flatnonzero(~good)
    if len(bad):
        first = int(bad[0])
        day = pd.Timestamp(prints.dates[first]).date()
        repairs.append(Repair(name, kind, day, float(prints.values[first]), note, len(bad)))
    return prints[good]


def _by_arrival(firsts: _Prints) -> tuple[_Prints, _Prints]:
    """Prints in the order they came in, but for those of days before one that was known already: these apart."""
    came = firsts[np.argsort(firsts.known_at.asi8, kind="stable")]
    days = came.dates.to_numpy()
    is_late = days < np.maximum.accumulate(days)
    return came[~is_late], came[is_late]


def _judged(name: str, came: _Prints, limit: float, repairs: list[Repair]) -> _Prints:
    """The prints that are believed, each known from when it was; judged in the order they came in."""
    known_by, told = _judge(name, came.dates, came.values, limit)
    repairs += told
    by = np.array(known_by)
    return _known_from(came, came.known_at.asi8[by])[by >= 0]


def _plausible(name: str, prints: _Prints, believed: _Prints, limit: float, repairs: list[Repair]) -> _Prints:
    """Revisions, or days that came late: believed if near what was believed of that day or the one before it.

    Each is known no earlier than what it is near to. Where nothing is before it, it is believed as a first print is.
    """
    if len(prints) == 0:
        return prints
    values, known, ever = believed.values, believed.known_at.asi8, np.iinfo(np.int64).max
    since = []
    for at, value in zip(
        believed.dates.searchsorted(prints.dates, side="right") - 1, map(float, prints.values), strict=True
    ):
        near = [known[i] for i in (at, at - 1) if i >= 0 and _distance(value, float(values[i])) <= limit]
        since.append(min(near) if near else (0 if at < 0 else ever))
    good = np.array(since) < ever
    note = "far from what was known of that day and the one before, and not confirmed: not used"
    kept = _without(name, "refuted", note, prints, good, repairs)
    return _known_from(kept, np.array(since, dtype=np.int64)[good])


def _known_from(prints: _Prints, instants: npt.NDArray[np.int64]) -> _Prints:
    """The prints, none known before its instant."""
    unit = prints.known_at.unit
    known = np.maximum(prints.known_at.asi8, instants).astype(f"datetime64[{unit}]")
    return _Prints(prints.dates, prints.values, pd.DatetimeIndex(known, tz="UTC"))


def _joined(one: _Prints, other: _Prints) -> _Prints:
    """Both, by date and then by when they became known."""
    unit = one.known_at.unit
    known = np.concatenate([one.known_at.asi8, other.known_at.as_unit(unit).asi8])
    dates = pd.DatetimeIndex(one.dates.append(other.dates))
    both = _Prints(
        dates,
        np.append(one.values, other.values),
        pd.DatetimeIndex(known.astype(f"datetime64[{unit}]"), tz="UTC"),
    )
    return both[np.lexsort((known, dates.to_numpy()))]


def _merged(name: str, firsts: _Prints, revisions: _Prints, repairs: list[Repair]) -> _Prints:
    if len(revisions) == 0:
        return firsts
    last = revisions[np.array([int(np.argmax(revisions.known_at.asi8))])]
    day, value = pd.Timestamp(last.dates[0]).date(), float(last.values[0])
    note = f"revised, the last time on {last.known_at[0].date()} to {value:g}; used from when it was known"
    repairs.append(Repair(name, "revised", day, value, note, len(revisions)))
    return _joined(firsts, revisions)


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
