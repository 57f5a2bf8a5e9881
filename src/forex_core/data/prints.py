"""Prints of a series that come in, beside those that are there: which are new, which revise, which change nothing.

Columns and arithmetic over them; no database.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from forex_core.data.observations import Observations
from forex_core.errors import SourceError
from forex_core.types import Array, Mask

RELATIVE_TOLERANCE = 1e-9
"""Values closer than this, relative to the larger, are one value."""
ENOUGH_DAYS = 10
"""Days that two sources must share before it means something that they differ."""
CONFIRMS, EARLIER, FIRST = -2, -1, 0
"""Codes of rows: no print, but the word of a better source for the value that stands, which writers alone read; a print
that was known before all that the store had of its day; the one with which it learned of a day. The code of any other
print, a revision, is 1 and the whole days from its day until it was known, `LAST_CODE` for all that came later still.
"""
LAST_CODE = 128
FOREVER = np.datetime64("9999-12-31", "us")
_MICROSECOND = np.timedelta64(1, "us")
_NEVER = np.datetime64("NaT", "us")

Days = npt.NDArray[np.datetime64]
Instants = npt.NDArray[np.datetime64]
Integers = npt.NDArray[np.int64]
Span = tuple[np.datetime64, np.datetime64]


@dataclass(frozen=True)
class Counts:
    """What became of the observations of one series.

    Attributes:
        new: of days that the store did not know.
        revisions: of other values than it had; new rows.
        unchanged: it had the value already.
        confirmed: it had the value of a worse source, which counts as this source's from then on; rows of no value.
        outranked: other values of a source that comes after the one whose value it has; not written.
        conflicts: earlier prints of a day, given beside its last, that it remembers otherwise; not written.
        filled: how many of the new ones lie between days that it had, and count from now on.
    """

    new: int = 0
    revisions: int = 0
    unchanged: int = 0
    outranked: int = 0
    conflicts: int = 0
    confirmed: int = 0
    filled: int = 0

    @property
    def rows(self) -> int:
        """Rows that were written."""
        return self.new + self.revisions + self.confirmed

    @property
    def contradicts(self) -> bool:
        """Whether more than half of at least `ENOUGH_DAYS` values that it had already were given otherwise."""
        others = self.revisions + self.outranked + self.conflicts
        overlap = others + self.unchanged + self.confirmed
        return overlap >= ENOUGH_DAYS and 2 * others > overlap

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __str__(self) -> str:
        told = [f"{getattr(self, f.name)} {f.name}" for f in fields(self) if getattr(self, f.name)]
        return ", ".join(told) or "nothing"


# --- Rows


@dataclass(frozen=True)
class Rows:
    """Columns of observations of one series: days [n] to the day, instants [n] to the microsecond in UTC, codes [n]."""

    days: Days
    instants: Instants
    values: Array
    sources: Integers

    @classmethod
    def empty(cls) -> Rows:
        none = np.zeros(0, dtype=np.int64)
        return cls(none.astype("M8[D]"), none.astype("M8[us]"), none.astype(np.float64), none)

    @classmethod
    def joined(cls, *parts: Rows) -> Rows:
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    @classmethod
    def of(cls, seen: Observations) -> Rows:
        """Sorted by (day, instant); all of the source with code 0."""
        days = seen.dates.to_numpy().astype("M8[D]")
        instants = seen.available_at.tz_localize(None).to_numpy().astype("M8[us]")
        values = np.asarray(seen.values, dtype=np.float64)
        return cls(days, instants, values, np.zeros(len(days), dtype=np.int64)).sorted()

    def sorted(self) -> Rows:
        same, later = self.days[1:] == self.days[:-1], self.days[1:] > self.days[:-1]
        if (later | (same & (self.instants[1:] >= self.instants[:-1]))).all():
            return self
        return self.taken(np.lexsort((self.instants, self.days)))

    def distinct(self) -> Rows:
        """Rows that are there once, of sorted ones."""
        if len(self.days) < 2:
            return self
        repeated = (self.days[1:] == self.days[:-1]) & (self.instants[1:] == self.instants[:-1])
        return self.taken(np.append(True, ~repeated)) if repeated.any() else self

    def taken(self, at: Integers | Mask) -> Rows:
        return Rows(self.days[at], self.instants[at], self.values[at], self.sources[at])


@dataclass(frozen=True)
class Mode:
    """`explicit` and `restates` of `ObservationStore.record`."""

    explicit: bool
    restates: bool


def decide(
    seen: Observations,
    rows: Rows,
    held: Rows,
    ranks: Integers,
    mode: Mode,
    span: Span | None,
    now: np.datetime64,
) -> tuple[Rows, Integers, Counts]:
    """Rows to write with their codes, and what became of all that was given.

    Args:
        rows: what is given, and `held`: what the store has of those days, both sorted by (day, instant).
        ranks: [codes] of sources; that of `rows` has code 0.
        span: the first and the last day that the store had of the series; None where it had none.

    Raises:
        SourceError: two values of one day that no stated instant tells apart.
    """
    if len(rows.days) == 0:
        return rows, rows.sources, Counts()
    same_day = rows.days[1:] == rows.days[:-1]
    is_again = same_day & (rows.instants[1:] == rows.instants[:-1]) if mode.explicit else same_day
    twice = np.flatnonzero(is_again & ~_close(rows.values[1:], rows.values[:-1]))
    if len(twice):
        raise _contradiction(seen, rows, twice + 1, rows.values[twice], "gives")
    kept = rows.taken(np.append(True, ~is_again))
    if mode.explicit:
        became, instants = _stated(seen, kept, held, ranks, mode.restates, now)
    else:
        became, instants = _declared(kept, held, ranks, span, now)
    count = np.bincount(became, minlength=len(_Became)).tolist()
    counted = Counts(
        new=count[_Became.NEW] + count[_Became.FILLED],
        revisions=count[_Became.REVISED] + count[_Became.EARLIER],
        unchanged=count[_Became.UNCHANGED] + len(rows.days) - len(kept.days),
        outranked=count[_Became.OUTRANKED],
        conflicts=count[_Became.CONFLICT],
        confirmed=count[_Became.CONFIRMED],
        filled=count[_Became.FILLED],
    )
    days_later = (instants.astype("M8[D]") - kept.days).astype(np.int64)
    codes = np.select(
        (became == _Became.CONFIRMED, became == _Became.EARLIER, became != _Became.REVISED),
        (CONFIRMS, EARLIER, FIRST),
        1 + np.clip(days_later, 0, LAST_CODE - 1),
    )
    written = ~np.isin(became, (_Became.UNCHANGED, _Became.OUTRANKED, _Became.CONFLICT))
    made = Rows(kept.days, instants, kept.values, kept.sources)
    return made.taken(written), codes[written], counted


class _Became(IntEnum):
    """What became of one row given; see `Counts`. EARLIER is a revision that was known before all of its day."""

    UNCHANGED = 0
    NEW = 1
    REVISED = 2
    EARLIER = 3
    CONFIRMED = 4
    OUTRANKED = 5
    CONFLICT = 6
    FILLED = 7


def _declared(
    rows: Rows, held: Rows, ranks: Integers, span: Span | None, now: np.datetime64
) -> tuple[npt.NDArray[np.int8], Instants]:
    """One value a day, which is what the source says of it today: where that is another one, since now; where the day
    lies between others that were there, as if it had not been known before.

    Of each row [n] what became of it, and the instant from which it counts.
    """
    last = np.searchsorted(held.days, rows.days, "right") - 1
    known = _taken(held.days, last, np.datetime64("NaT", "D")) == rows.days
    latest = _Latest.of(held, np.where(known, last, -1), ranks)
    equal = _close(rows.values, latest.value)
    # A value that a worse source gave before counts as this one's from here on.
    confirmed = known & equal & (ranks[0] < latest.rank)
    revised = known & ~equal & (ranks[0] <= latest.rank)
    filled = np.zeros(len(known), dtype=bool)
    if span is not None:
        filled = ~known & (rows.days > span[0]) & (rows.days < span[1])
    became = np.select(
        (filled, ~known, revised, confirmed, equal),
        (_Became.FILLED, _Became.NEW, _Became.REVISED, _Became.CONFIRMED, _Became.UNCHANGED),
        _Became.OUTRANKED,
    )
    since = np.select((filled, revised), (np.maximum(now, rows.instants), now), rows.instants)
    is_after = revised | confirmed
    since[is_after] = np.maximum(since, latest.instant + _MICROSECOND)[is_after]
    return became.astype(np.int8), since


def _stated(
    seen: Observations, rows: Rows, held: Rows, ranks: Integers, restates: bool, now: np.datetime64
) -> tuple[npt.NDArray[np.int8], Instants]:
    """Days with several prints, gone through print by print, all days at once: each sees what the one before left.

    Of each row [n] what became of it, and the instant from which it counts.
    """
    became, since = np.zeros(len(rows.days), dtype=np.int8), rows.instants.copy()
    days, start, of, prints = np.unique(rows.days, return_index=True, return_inverse=True, return_counts=True)
    turn = np.arange(len(rows.days)) - start[of]
    low, high = np.searchsorted(held.days, days, "left"), np.searchsorted(held.days, days, "right")
    is_known = high > low
    latest = _Latest.of(held, np.where(is_known, high - 1, -1), ranks)
    given = _Latest.of(held, np.full(len(days), -1), ranks)
    past = _current(rows, held, low[of])
    by_turn = np.argsort(turn, kind="stable")
    for row in np.split(by_turn, np.cumsum(np.bincount(turn))[:-1]):
        day, then = of[row], past[row]
        value, instant = rows.values[row], rows.instants[row]
        known, latest_at = is_known[day], latest.instant[day]
        # What was current at the print's instant: one written a turn before, or one in the store.
        then_at = _taken(held.instants, then, _NEVER)
        is_given = ~np.isnat(given.instant[day]) & ((then < 0) | (given.instant[day] >= then_at))
        is_earliest = known & ~is_given & (then < 0)
        in_store = np.where(is_earliest, low[day], then)
        # The last print given of a day, dated no later than what the store has last, is compared with that.
        is_today = restates & (turn[row] == prints[day] - 1) & known & ~(instant > latest_at)
        which = (is_today, is_given)
        current = np.select(which, (latest.value[day], given.value[day]), _taken(held.values, then, np.nan))
        rank = np.select(which, (latest.rank[day], given.rank[day]), _taken(ranks[held.sources], in_store, 0))
        stands_at = np.select(which, (latest_at, given.instant[day]), then_at)
        equal = known & _close(value, current)
        worse = known & ~equal & (ranks[0] > rank)
        other = known & ~equal & ~worse
        contrary = other & ~is_today & ~is_given & (then_at == instant)
        if contrary.any() and not restates:
            at = np.flatnonzero(contrary)
            raise _contradiction(seen, rows, row[at], current[at], "is in the store with")
        restated = other & is_today
        confirmed = equal & (ranks[0] < rank) & ((instant > stands_at) | (stands_at == latest_at))
        became[row] = np.select(
            (~known, worse, contrary, other & is_earliest & ~restated, other, confirmed),
            (
                _Became.NEW,
                _Became.OUTRANKED,
                _Became.CONFLICT,
                _Became.EARLIER,
                _Became.REVISED,
                _Became.CONFIRMED,
            ),
            _Became.UNCHANGED,
        )
        when = np.select(
            (restated, confirmed),
            (np.maximum(now, latest_at + _MICROSECOND), np.maximum(instant, stands_at + _MICROSECOND)),
            instant,
        )
        since[row] = when
        put = ~known | (other & ~contrary) | confirmed
        is_known[day[put]] = True
        given.put(day[put], when[put], value[put], int(ranks[0]))
        put &= np.isnat(latest_at) | (when >= latest_at)  # a stated instant may lie before others
        latest.put(day[put], when[put], value[put], int(ranks[0]))
    return became, since


@dataclass(frozen=True)
class _Latest:
    """A print of each day, or none: its instant (NaT), value and its source's rank."""

    instant: Instants
    value: Array
    rank: Integers

    @classmethod
    def of(cls, held: Rows, at: Integers, ranks: Integers) -> _Latest:
        return cls(
            _taken(held.instants, at, _NEVER),
            _taken(held.values, at, np.nan),
            _taken(ranks[held.sources], at, 0),
        )

    def put(self, day: Integers, instant: Instants, value: Array, rank: int) -> None:
        self.instant[day], self.value[day], self.rank[day] = instant, value, rank


def _taken(values: npt.NDArray[Any], at: Integers, otherwise: object) -> npt.NDArray[Any]:
    """`values[at]`, and `otherwise` where `at` is negative or there is nothing to take."""
    if len(values) == 0:
        return np.full(len(at), otherwise, dtype=values.dtype)
    return np.where(
        at >= 0, values[np.minimum(at, len(values) - 1)], np.asarray(otherwise, dtype=values.dtype)
    )


def _current(rows: Rows, held: Rows, low: Integers) -> Integers:
    """Index in `held` of the print of the same day that was current at each row's instant; -1 for none."""
    instants, order = np.unique(np.concatenate([held.instants, rows.instants]), return_inverse=True)
    days = np.concatenate([held.days, rows.days]).astype(np.int64)
    key = days * len(instants) + order
    found = np.searchsorted(key[: len(held.days)], key[len(held.days) :], "right") - 1
    return np.where(found >= low, found, -1)


def _contradiction(seen: Observations, rows: Rows, at: Integers, others: Array, verb: str) -> SourceError:
    row, more = at[0], f" (and {len(at) - 1} more)" if len(at) > 1 else ""
    return SourceError(
        f"{seen.series} of {rows.days[row]}, available at {rows.instants[row]} UTC, {verb} two values, "
        f"{others[0]:.10g} and {rows.values[row]:.10g} of {seen.source}{more}; nothing was recorded: "
        "state a later instant for the revised value"
    )


def _close(a: Array, b: Array) -> Mask:
    return np.asarray(np.abs(a - b) <= RELATIVE_TOLERANCE * np.maximum(np.abs(a), np.abs(b)))


# --- Periods


@dataclass(frozen=True)
class Periods:
    """For how long revisions were the latest print of their day: rows [n], and [n] until when, or `FOREVER`."""

    rows: Rows
    until: Instants

    @property
    def lengths(self) -> Integers:
        """[n] bits of the length in microseconds; 0 of what has no end."""
        bits = np.frexp((self.until - self.rows.instants).astype(np.float64))[1]
        return np.where(self.until == FOREVER, 0, bits)


def periods(firsts: Rows, revisions: Rows, made: Rows, codes: Integers) -> tuple[Periods, Periods]:
    """Periods that are there no more and those that are new, once rows are written beside the prints of their days."""
    is_revision, is_print = codes > FIRST, codes > CONFIRMS
    if not is_revision.any():
        none = Periods(Rows.empty(), Rows.empty().instants)
        return none, none
    n, made, is_revision = len(revisions.days), made.taken(is_print), is_revision[is_print]
    before = _until(Rows.joined(revisions, firsts))[:n]
    after = _until(Rows.joined(revisions, made, firsts))
    ends = before != after[:n]
    is_new = np.append(ends, is_revision)
    return (
        Periods(revisions.taken(ends), before[ends]),
        Periods(Rows.joined(revisions, made).taken(is_new), after[: len(is_new)][is_new]),
    )


def _until(rows: Rows) -> Instants:
    """[n] when the next print of the same day came; the rows are in any order."""
    order = np.lexsort((rows.instants, rows.days))
    following = np.append(rows.instants[order][1:], FOREVER)[: len(order)]
    until = np.empty_like(rows.instants)
    until[order] = np.where(borders(rows.days[order])[1:], FOREVER, following)
    return until


def borders(days: npt.NDArray[Any]) -> Mask:
    """[n + 1] whether a day ends before each row; true at both ends."""
    if len(days) == 0:
        return np.zeros(1, dtype=bool)
    return np.concatenate([[True], days[1:] != days[:-1], [True]])


def wanted(rows: Rows, window_days: int) -> Mask:
    """Which rows are the first or the latest of their day or within the window after it."""
    border = borders(rows.days)
    is_early = rows.instants < (rows.days + np.timedelta64(window_days + 1, "D")).astype("M8[us]")
    return np.asarray(border[:-1] | border[1:] | is_early)
