"""Alarms over what was published: coverage, skill and the data themselves, with false alarms as rare as they are said.

Forecasts of neighbouring days overlap, so that their errors come in runs: thresholds are drawn from simulations in
which nothing is wrong and origins overlap as these do. Each alarm is allowed a share of years in which it errs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from forex_core.calibration import Outcomes, online_factors
from forex_core.config import MonitorConfig
from forex_core.evaluation import cosine_statistic
from forex_core.ledger import Track, Trajectory
from forex_core.models.features import changes as driver_changes
from forex_core.models.features import log_returns
from forex_core.models.random_walk import daily_volatility
from forex_core.types import PATH_STEPS, PERCENT_PER_YEAR, Array, MarketBundle, Mask

BandKind = Literal["narrow bands", "wide bands"]
DriftKind = Literal["volatility", "returns", "frozen"]
YEAR = 261
"""Weekdays of a year."""
YEARS = 2000
"""Simulated, of each threshold: the 95th percentile is then known to half a percentile (binomial, one s.e.)."""
LOOKED_BACK = 2 * YEAR
"""Weekdays behind an alarm of the bands, from the first forecast to the last outcome."""
DRIFT_DAYS = 20
_INPUT_FAULTS = {"stale": "stale", "refuted": "repaired", "held": "repaired", "confirmed": "repaired"}
"""What repairs of a bundle are called as alarms."""
_SEED = 20_260_301
_NOMINAL_MISS = 0.2
_SHIFT: Mapping[BandKind, float] = {"narrow bands": 0.1, "wide bands": 0.05}
"""Of the miss rate: a change of twice this is what the sum is built to notice first."""


@dataclass(frozen=True)
class Record:
    """What stands of the forecasts of one horizon at one lead, oldest first: n origins.

    Attributes:
        steps: the lead in weekdays, by which neighbours overlap.
        origins: [n] datetime64[D].
        misses: [n] whether the outcome lay outside the 80 % band.
        differences: [n] CRPS less that of the random walk, over the origin's close; positive is worse.
    """

    steps: int
    origins: Array
    misses: Mask
    differences: Array

    @classmethod
    def of(cls, track: Track, steps: int) -> Record:
        """Of a track at one lead."""
        return cls(steps, track.origins, ~track.inside_80, (track.crps - track.walk_crps) / track.closes)

    def after(self, day: date | None) -> Record:
        """Without the origins up to and including `day`."""
        return self if day is None else self._at(np.asarray(self.origins > np.datetime64(day, "D")))

    def last(self, weekdays: int) -> Record:
        """The origins of so many weekdays up to the newest origin, however many were published on them."""
        if not len(self.origins):
            return self
        return self._at(np.asarray(np.busday_count(self.origins, self.origins[-1]) < weekdays))

    @property
    def gap(self) -> float:
        """Weekdays between two origins of the last year, to the half: their mean."""
        origins = self.last(YEAR).origins
        if len(origins) < 2:
            return 1.0
        days = np.busday_count(origins[0], origins[-1]) / (len(origins) - 1)
        return max(1.0, round(2 * float(days)) / 2)

    def _at(self, chosen: Mask) -> Record:
        return Record(self.steps, self.origins[chosen], self.misses[chosen], self.differences[chosen])


@dataclass(frozen=True)
class Reading:
    """One alarm as it stands: it is raised where the statistic is above the threshold.

    `step` is the lead of the forecasts, 0 where it is of the data; `count` is how many forecasts, or days, it rests on,
    `since` the first of them and `until` the last.
    """

    kind: str
    step: int
    statistic: float
    threshold: float
    count: int
    since: date | None
    until: date | None
    found: str

    @property
    def raised(self) -> bool:
        return self.statistic > self.threshold


def judge(track: Track, raised: Mapping[str, date], config: MonitorConfig) -> tuple[Reading, ...]:
    """`readings` of the forecasts of one horizon."""
    first = Record.of(track.at(track.steps == 1), 1)
    return readings(first, Record.of(track.last_lead, track.horizon.evaluation_steps), raised, config)


def readings(
    first: Record, last: Record, raised: Mapping[str, date], config: MonitorConfig
) -> tuple[Reading, ...]:
    """The alarms of one horizon: bands at the first and at the last lead, skill at the last.

    What is wrong a day ahead is seen soonest, for these forecasts do not overlap; what the horizon promises is its end.

    Args:
        raised: of each alarm, by `key`, the last origin that it was raised for; it starts anew after it.
    """
    share = config.false_alarms_a_year
    bands = [
        _coverage(kind, record.after(raised.get(key(kind, record.steps))), share / 4)
        for record in (first, last)
        for kind in _SHIFT
    ]
    return *bands, _skill(last.after(raised.get(key("no skill", last.steps))), share, config.min_forecasts)


def key(kind: str, step: int) -> str:
    """What tells an alarm from the others of its horizon."""
    return f"{kind} at step {step}" if step else kind


def _coverage(kind: BandKind, record: Record, share: float) -> Reading:
    """Page's cumulative sum (1954) of the misses of the 80 % band: S = max(0, S + (miss − .2) − k), or of the hits.

    Of forecasts that were made within `LOOKED_BACK` of the outcome that is the newest.
    """
    record = record.last(LOOKED_BACK - record.steps)
    signs = 1 if kind == "narrow bands" else -1
    sums = _cumulative(signs * (record.misses.astype(float) - _NOMINAL_MISS)[None], _SHIFT[kind])[0]
    threshold = _coverage_threshold(kind, record.steps, record.gap, share)
    statistic = float(sums[-1]) if len(sums) else 0.0
    zero = np.flatnonzero(sums == 0)  # where it last stood at nothing is where the change is thought to begin
    first = int(zero[-1]) + 1 if len(zero) and zero[-1] + 1 < len(sums) else 0
    count = len(sums) - first
    inside = 1 - float(record.misses[first:].mean()) if count else float("nan")
    found = (
        f"{100 * inside:.0f} % of the last {count} outcomes lay in the 80 % band"
        if count
        else "no outcomes yet"
    )
    last = _day(record.origins, len(record.origins) - 1)
    return Reading(kind, record.steps, statistic, threshold, count, _day(record.origins, first), last, found)


def _skill(record: Record, share: float, at_least: int) -> Reading:
    """The test of `evaluation.equal_weighted_cosine` that the forecasts are worse than the random walk, of a year."""
    year = record.last(YEAR)
    d, origins, steps, gap = year.differences, year.origins, record.steps, record.gap
    threshold = _skill_threshold(steps, gap, share, at_least, len(year.origins) < len(record.origins))
    if len(d) < at_least:
        found = f"{len(d)} outcomes, and {at_least} are the least that is judged"
        return Reading(
            "no skill", steps, 0.0, threshold, len(d), _day(origins, 0), _day(origins, len(d) - 1), found
        )
    statistic = float(cosine_statistic(d, steps, gap)[0])
    worse = float(d.mean())
    found = (
        f"the CRPS of the last {len(d)} forecasts is {1e4 * abs(worse):.2f} basis points of the rate "
        f"{'above' if worse > 0 else 'below'} that of the random walk"
    )
    return Reading(
        "no skill", steps, statistic, threshold, len(d), _day(origins, 0), _day(origins, len(d) - 1), found
    )


def silence(published: date, days: int, limit: int, raised: Mapping[str, date]) -> Reading:
    """Whether a horizon has said nothing for longer than its schedule leaves; raised once for each silence.

    Args:
        published: when it spoke last; `days` ago.
    """
    kind = "silence"
    told = raised.get(kind) == published
    found = (
        f"nothing was published for {days} days, and {limit} is the most that its schedule leaves; look for runs that "
        "failed"
    )
    return Reading(kind, 0, 0.0 if told else float(days), float(limit), 1, None, published, found)


def faults(bundle: MarketBundle, raised: Mapping[str, date], *, ages: bool = True) -> tuple[Reading, ...]:
    """Series that are too old to be used, and late prints that were not believed at once; each raised once.

    Args:
        ages: whether the data are to be of today; those of a file are as old as it is.
    """
    since = bundle.dates[-DRIFT_DAYS:][0].date()
    found: dict[str, Reading] = {}
    for repair in bundle.repairs:
        if repair.day is None or repair.kind not in _INPUT_FAULTS or (repair.kind == "stale" and not ages):
            continue
        if repair.kind != "stale" and repair.day < since:
            continue
        kind = f"{_INPUT_FAULTS[repair.kind]} {repair.series}"
        new = kind not in raised or raised[kind] < repair.day
        told = f"{repair.kind}, {repair.day}: {repair.note}"
        one = Reading(kind, 0, float(new), 0.5, repair.count, repair.day, repair.day, told)
        if kind not in found or (found[kind].until or date.min) < repair.day:
            found[kind] = one
    return tuple(found.values())


def drift(bundle: MarketBundle, raised: Mapping[str, date], config: MonitorConfig) -> tuple[Reading, ...]:
    """Whether the rate or a driver has begun to move otherwise than it did, never at what level it is.

    u_t = r_t / σ_{t−1}, with σ as of the random walk's bands. Of the last twenty rows: the mean of |u| over that of the
    five years before (volatility; squares would hang on the one largest move), the mean of u times √20 over their root
    mean square (returns), and the share of rows without a move (frozen: a feed that stands still). The rate is given
    the false alarms of the settings, and the drivers together as many; policy rates, whose moves are months apart, and
    what else moves on fewer than half of its rows are left out.
    """
    found = [*changes("rate", *surprises(bundle), raised, config.false_alarms_a_year)]
    moving = [name for name in bundle.driver_names if _moves(bundle, name)]
    for name in moving:
        share = config.false_alarms_a_year / len(moving)
        found += changes(name, *surprises(bundle, name), raised, share)
    return tuple(found)


def surprises(bundle: MarketBundle, driver: str | None = None) -> tuple[Array, Array]:
    """The days [n] datetime64[D] of the moves of the rate or a driver, and u [n], each over the σ of the day before."""
    returns, days = log_returns(bundle), bundle.dates.to_numpy().astype("M8[D]")
    if driver is not None:
        returns = driver_changes(bundle)[:, bundle.driver_names.index(driver)]
        began = max(int(np.argmax(np.isfinite(returns))) - 1, 0)
        returns, days = np.nan_to_num(returns[began:], nan=0.0), days[began:]
    sigma = daily_volatility(returns)[:-1]
    usable = sigma > 0
    return days[1:][usable], returns[1:][usable] / sigma[usable]


def _moves(bundle: MarketBundle, driver: str) -> bool:
    """Whether a driver's days are of the kind that is watched."""
    if bundle.driver_units[bundle.driver_names.index(driver)] == PERCENT_PER_YEAR:
        return False
    before = surprises(bundle, driver)[1][:-DRIFT_DAYS]
    return bool(np.count_nonzero(before) > len(before) / 2)


def changes(
    name: str, days: Array, u: Array, raised: Mapping[str, date], share: float
) -> tuple[Reading, ...]:
    """The alarms of `drift` of one series, by its `surprises` up to today; together they err in that share of years."""
    past = u[:-DRIFT_DAYS][-5 * YEAR :]
    if len(past) < YEAR:
        return ()
    recent = u[-DRIFT_DAYS:]
    found: list[Reading] = []
    thresholds = _drift_thresholds(past, share / len(_DRIFT))
    shown: dict[DriftKind, Callable[[float], str]] = {
        "volatility": lambda x: f"it moved {x:.1f} times as much as usual over {DRIFT_DAYS} days",
        "returns": lambda x: f"it drifted by {x:.1f} standard errors over {DRIFT_DAYS} days",
        "frozen": lambda x: f"{100 * x:.0f} % of the last {DRIFT_DAYS} rows have the value of the row before",
    }
    for measured, measure in _DRIFT.items():
        kind = f"{measured} {name}"
        since = raised.get(kind)
        rests = since is not None and np.count_nonzero(days > np.datetime64(since, "D")) < DRIFT_DAYS
        value = 0.0 if rests else float(measure(recent, past))
        told = (
            f"raised for {since}, and looked at again {DRIFT_DAYS} days later"
            if rests
            else shown[measured](value)
        )
        first, last = _day(days, len(days) - DRIFT_DAYS), _day(days, len(days) - 1)
        found.append(Reading(kind, 0, value, thresholds[measured], len(recent), first, last, told))
    return tuple(found)


_DRIFT: Mapping[DriftKind, Callable[[Array, Array], Array]] = {
    "volatility": lambda u, past: np.abs(u).mean(axis=-1) / np.abs(past).mean(axis=-1),
    "returns": lambda u, past: (
        np.abs(u.mean(axis=-1)) * np.sqrt(DRIFT_DAYS) / np.sqrt((past**2).mean(axis=-1))
    ),
    "frozen": lambda u, past: (u == 0).mean(axis=-1),
}
"""Of the last rows [..., DRIFT_DAYS] and those before [..., n]."""


def band_factors(paths: Sequence[Trajectory], day: date, every: int) -> Array:
    """[PATH_STEPS, Q] what bands that stay as they are have to be multiplied by, from what came of them until `day`.

    The rules of `calibration.online_factors` (adaptive conformal inference), each forecast judged with the bands that
    it would have been given by then; ones without an outcome.

    Args:
        paths: forecasts of one model, at least one, one of each origin and the oldest first; outcomes that came
            later are left out.
        every: weekdays between two origins that are learned from, as on the engine's grid that `calibration.RATES` are
            for; the newest is one, and those between are left out.
    """
    paths = _apart(paths, every)
    levels, count = paths[0].levels, len(paths) + 1
    values = np.full((count, PATH_STEPS), np.nan)
    medians = np.zeros((count, PATH_STEPS))
    deviations = np.zeros((count, PATH_STEPS, len(levels)))
    start = paths[0].of.origin
    rows = np.array(
        [np.busday_count(start, path.of.origin) for path in paths] + [np.busday_count(start, day) + 1]
    )
    for n, path in enumerate(paths):
        at = np.array(path.steps) - 1
        logs = np.log(path.quantiles / path.of.close)
        middle = logs[:, levels.index(0.5)]
        medians[n, at] = middle
        deviations[n, at] = logs - middle[:, None]
        came = np.where([target <= day for target in path.target_dates], path.outcomes, np.nan)
        values[n, at] = np.log(came / path.of.close)
    known = rows[:, None] + np.arange(1, PATH_STEPS + 1)
    outcomes = Outcomes(values, known, rows, np.ones(count, dtype=bool))
    return np.asarray(online_factors(medians, deviations, outcomes, levels)[-1])


def _apart(paths: Sequence[Trajectory], every: int) -> list[Trajectory]:
    """The newest, and back from it those that are at least so many weekdays apart."""
    kept = [paths[-1]]
    for path in reversed(paths[:-1]):
        if np.busday_count(path.of.origin, kept[-1].of.origin) >= every:
            kept.append(path)
    return kept[::-1]


# --- Thresholds


def _cumulative(x: Array, allowance: float) -> Array:
    """[..., n] the sums S_i = max(0, S_{i−1} + x_i − allowance), as C_i − min(0, C_1, …, C_i) with C of plain sums.

    To nine digits: sums of hundredths that are equal are equal here, and compare so with a threshold.
    """
    plain = (x - allowance).cumsum(axis=-1)
    return np.asarray(np.round(plain - np.minimum.accumulate(np.minimum(plain, 0.0), axis=-1), 9))


@lru_cache(maxsize=32)
def _coverage_threshold(kind: BandKind, steps: int, gap: float, share: float) -> float:
    """What the sum goes above in that share of years, of bands that are right, where it looks back as far as it does.

    A first year, in which it began at nothing, errs less.
    """
    walked, sigma = _clustered_walks()
    summed = LOOKED_BACK - steps
    at = np.floor(np.arange(0, summed + YEAR, gap)).astype(np.intp)
    z = np.abs(walked[:, at + steps] - walked[:, at]) / sigma[:, at]
    misses = z > np.quantile(z, 1 - _NOMINAL_MISS)
    signs = 1 if kind == "narrow bands" else -1
    x = signs * (misses.astype(np.float64) - _NOMINAL_MISS) - _SHIFT[kind]
    plain = np.concatenate([np.zeros((YEARS, 1)), x.cumsum(axis=1)], axis=1)
    # The last sum of each look, as `_cumulative` has it.
    looks = [
        plain[:, end] - plain[:, start : end + 1].min(axis=1) for start, end in _looks(at, summed, summed)
    ]
    return round(float(np.quantile(np.max(looks, axis=0), 1 - share, method="higher")), 9)


def _looks(at: npt.NDArray[np.intp], since: int, weekdays: int) -> list[tuple[int, int]]:
    """At each origin from row `since` on, where those of so many weekdays begin and end."""
    ends = np.flatnonzero(at >= since)
    starts = np.searchsorted(at, at[ends] - weekdays, side="right")
    return [(int(start), int(end) + 1) for start, end in zip(starts, ends, strict=True)]


@lru_cache(maxsize=1)
def _clustered_walks() -> tuple[Array, Array]:
    """[YEARS, T + 1] walks whose volatility comes in spells, and [YEARS, T + 1] what the random walk's σ makes of it.

    GARCH(1, 1) with Student's t of five degrees of freedom, α from .03 to .08 and α + β = .98, as daily exchange rates
    have it (Bollerslev 1987). Thresholds without spells, in which misses keep company, would err in one year of four.
    """
    draw, rows = np.random.default_rng(_SEED), LOOKED_BACK + YEAR
    alpha = draw.uniform(0.03, 0.08, YEARS)
    variance, ewma = np.ones(YEARS), np.ones(YEARS)
    walked, sigma = np.zeros((YEARS, rows + 1)), np.ones((YEARS, rows + 1))
    for t in range(-YEAR, rows):
        moves = np.sqrt(variance * 3 / 5) * draw.standard_t(5, YEARS)
        variance = 0.02 + alpha * moves**2 + (0.98 - alpha) * variance
        ewma = 0.985 * ewma + 0.015 * moves**2
        if t >= 0:
            walked[:, t + 1] = walked[:, t] + moves
        if t >= -1:
            sigma[:, t + 1] = np.sqrt(ewma)
    return walked, sigma


@lru_cache(maxsize=32)
def _skill_threshold(steps: int, gap: float, share: float, at_least: int, rolls: bool) -> float:
    """What the statistic goes above in that share of years, of forecasts that are as good as the random walk.

    Their medians lean one way throughout, by which differences depend on each other the most, and moves are normal: a
    mean over its own error has shorter tails where those of the moves are longer. A first year is looked at from
    `at_least` forecasts on and grows; where it `rolls`, each look has a year behind it. The first looks of a year that
    grows have few degrees of freedom, so each has a threshold of its own.
    """
    draws = np.random.default_rng(_SEED).standard_normal((YEARS, 2 * YEAR + steps))
    walked = np.concatenate([np.zeros((YEARS, 1)), draws.cumsum(axis=1)], axis=1)
    at = np.floor(np.arange(0, (1 + rolls) * YEAR, gap)).astype(np.intp)
    d = walked[:, at + steps] - walked[:, at]
    spans = _looks(at, YEAR if rolls else 0, YEAR)
    least = min(at_least, max(end - start for start, end in spans))
    spans = [(start, end) for start, end in spans if end - start >= least]
    largest = [
        np.max([cosine_statistic(some[:, start:end], steps, gap)[0] for start, end in spans], axis=0)
        for some in np.array_split(d, YEARS // 50)  # which the processor holds near it
    ]
    return float(np.quantile(np.concatenate(largest), 1 - share))


def _drift_thresholds(past: Array, share: float) -> Mapping[DriftKind, float]:
    """What the largest window of a year is in that share of years where nothing is wrong.

    Of moves by the walks of the bands: five years of history have no tail of one year in sixty. How often a series
    stands still is its own, (k + 1) / (n + 2) of n rows before (Laplace): one that never did may do so once.
    """
    still = round((np.count_nonzero(past == 0) + 1) / (len(past) + 2), 4)
    return {kind: _largest_window(kind, share) for kind in _DRIFT if kind != "frozen"} | {
        "frozen": _stillest_window(still, share)
    }


@lru_cache(maxsize=256)
def _stillest_window(still: float, share: float) -> float:
    """Of rows that stand still with that chance, each by itself."""
    draws = np.random.default_rng(_SEED).random((YEARS, YEAR + DRIFT_DAYS - 1))
    return _largest("frozen", (draws > still).astype(np.float64), draws, share)


@lru_cache(maxsize=8)
def _largest_window(kind: DriftKind, share: float) -> float:
    walked, sigma = _clustered_walks()
    u = np.diff(walked, axis=1) / sigma[:, :-1]
    year = YEAR + DRIFT_DAYS - 1
    return _largest(kind, u[:, -year:], u[:, :-year], share)


def _largest(kind: DriftKind, u: Array, past: Array, share: float) -> float:
    """What the largest window of a year [YEARS, YEAR + DRIFT_DAYS - 1] is above in that share of years."""
    windows = np.lib.stride_tricks.sliding_window_view(u, DRIFT_DAYS, axis=1)
    return float(np.quantile(_DRIFT[kind](windows, past[:, None]).max(axis=1), 1 - share))


def _day(days: Array, k: int) -> date | None:
    if not 0 <= k < len(days):
        return None
    found: date = days[k].astype("M8[D]").item()
    return found
