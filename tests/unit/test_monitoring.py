"""Alarms: how seldom they err where nothing is wrong, and how soon they are raised where something is."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from forex_core.config import MonitorConfig
from forex_core.monitoring import YEAR, Reading, Record, drift, key, readings
from forex_core.testing import bundle_of, synthetic_table
from forex_core.types import HORIZONS, Array, Horizon

CONFIG = MonitorConfig()
Z80 = 1.2815515655446004
GAPS = dict(zip(HORIZONS, (1, 2.5, 5, 5), strict=True))
"""Weekdays between origins as the schedules have them."""
START = np.datetime64("2020-01-01")


def walk(seed: int, years: float, scale: float = 1.0, since: int = 0) -> Array:
    """Daily moves in units of what the bands expect; `scale` times that from row `since` on."""
    moves = np.random.default_rng(seed).standard_normal(int(years * YEAR) + 80)
    moves[since:] *= scale
    return moves


def record(moves: Array, steps: int, gap: float, *, skill: float = 0.0) -> Record:
    """Forecasts of a walk whose median leans by a third of a band, rightly or wrongly as `skill` says."""
    at = np.floor(np.arange(0, len(moves) - 80, gap)).astype(int)
    summed = np.concatenate([[0.0], moves.cumsum()])
    z = (summed[at + steps] - summed[at]) / np.sqrt(steps)
    origins = np.busday_offset(START, at, roll="forward")
    leans = np.sin(np.arange(len(at)))  # of no relation to the walk
    differences = leans * (-z + skill * leans) * 1e-3
    return Record(steps, origins, np.abs(z) > Z80, differences)


def first_alarm(moves: Array, horizon: Horizon, kind: str, after: int) -> int | None:
    """Weekdays from row `after` until the alarm, looking at every new outcome."""
    gap = GAPS[horizon]
    one, end = (record(moves, steps, gap) for steps in (1, horizon.evaluation_steps))
    rows = np.busday_count(START, end.origins)
    for k in range(30, len(end.origins)):
        if rows[k] < after:
            continue
        day = end.origins[k]
        seen = [
            Record(r.steps, r.origins[: k + 1], r.misses[: k + 1], r.differences[: k + 1]) for r in (one, end)
        ]
        if any(found.raised and found.kind == kind for found in readings(*seen, {}, CONFIG)):
            return int(np.busday_count(START, day)) - after
    return None


def raised(moves: Array, horizon: Horizon, *, skill: float = 0.0) -> set[str]:
    """The alarms at any time of the last year."""
    gap = GAPS[horizon]
    one, end = (record(moves, steps, gap, skill=skill) for steps in (1, horizon.evaluation_steps))
    found: set[str] = set()
    for k in range(len(end.origins) - int(YEAR / gap), len(end.origins)):
        seen = [
            Record(r.steps, r.origins[: k + 1], r.misses[: k + 1], r.differences[: k + 1]) for r in (one, end)
        ]
        found |= {reading.kind for reading in readings(*seen, {}, CONFIG) if reading.raised}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("horizon", HORIZONS, ids=str)
def test_where_nothing_is_wrong_few_years_have_an_alarm(horizon: Horizon) -> None:
    """One in ten may have, bands and skill together; more than 12 of 60 would be one in two hundred (binomial)."""
    years = 60
    wrong = sum(bool(raised(walk(seed, 2), horizon)) for seed in range(years))
    assert wrong <= 12, f"{wrong} of {years} years"


@pytest.mark.parametrize(("scale", "kind"), [(1.8, "narrow bands"), (0.4, "wide bands")])
def test_bands_that_turn_wrong_are_noticed_within_months(scale: float, kind: str) -> None:
    horizon, break_at = HORIZONS[0], YEAR
    delays = [first_alarm(walk(seed, 2.2, scale, break_at), horizon, kind, break_at) for seed in range(8)]
    assert None not in delays
    assert sorted(d for d in delays if d is not None)[4] < 150, delays


def test_a_lean_against_what_comes_is_noticed_and_one_with_it_is_not() -> None:
    horizon = HORIZONS[0]
    assert "no skill" in raised(walk(1, 2), horizon, skill=1.0)
    assert "no skill" not in raised(walk(1, 2), horizon, skill=-1.0)


def test_a_sum_starts_anew_after_its_alarm() -> None:
    moves = walk(3, 1, 3.0)
    one, end = (record(moves, steps, 1) for steps in (1, 5))
    before = {r.kind: r for r in readings(one, end, {}, CONFIG) if r.step == 1}
    assert before["narrow bands"].raised
    last: date = end.origins[-1].item()
    after = {r.kind: r for r in readings(one, end, {key("narrow bands", 1): last}, CONFIG) if r.step == 1}
    assert (after["narrow bands"].statistic, after["narrow bands"].count) == (0.0, 0)


def test_few_forecasts_are_not_judged() -> None:
    moves = walk(1, 1)
    short = Record(5, *(v[:20] for v in (record(moves, 5, 1).origins, np.ones(YEAR, bool), np.ones(YEAR))))
    found = {r.kind: r for r in readings(short, short, {}, CONFIG)}
    assert not found["no skill"].raised
    assert "30 are the least" in found["no skill"].found


def test_nothing_at_all_is_no_alarm() -> None:
    empty = Record(5, np.array([], "M8[D]"), np.array([], bool), np.array([]))
    assert not any(reading.raised for reading in readings(empty, empty, {}, CONFIG))


# --- The data


def moved(change: float = 1.0, drift_by: float = 0.0, rows: int = 1600, seed: int = 4) -> dict[str, Reading]:
    """Readings of a rate whose last twenty moves are other than those before."""
    table = synthetic_table(rows, seed=seed)
    name = next(c for c in table.columns if c.upper() == "USDCLP")
    moves = np.diff(np.log(table[name].to_numpy()))
    sd = moves.std()
    moves[-20:] = moves[-20:] * change + drift_by * sd
    table[name] = table[name].iloc[0] * np.exp(np.concatenate([[0.0], moves.cumsum()]))
    return {reading.kind: reading for reading in drift(bundle_of(table), {}, CONFIG)}


def test_a_rate_that_moves_as_before_is_no_alarm() -> None:
    assert not any(reading.raised for reading in moved().values())


@pytest.mark.parametrize(
    ("change", "drift_by", "kind"),
    [(5.0, 0.0, "volatility"), (1.0, 1.5, "returns"), (0.0, 0.0, "stale rate")],
)
def test_one_that_moves_otherwise_is(change: float, drift_by: float, kind: str) -> None:
    found = moved(change, drift_by)
    assert found[kind].raised, found


def test_the_level_is_no_alarm() -> None:
    """Twice the price, the same moves."""
    table = synthetic_table(1600, seed=4)
    name = next(c for c in table.columns if c.upper() == "USDCLP")
    before = {r.kind: r.statistic for r in drift(bundle_of(table), {}, CONFIG)}
    table[name] *= 2
    after = {r.kind: r.statistic for r in drift(bundle_of(table), {}, CONFIG)}
    assert after == pytest.approx(before)


def test_an_alarm_of_the_data_rests_for_as_long_as_it_looks_back() -> None:
    table = synthetic_table(1600, seed=4)
    name = next(c for c in table.columns if c.upper() == "USDCLP")
    table.loc[table.index[-20] :, name] = table[name].iloc[-20]
    bundle = bundle_of(table)
    kinds = {r.kind for r in drift(bundle, {}, CONFIG) if r.raised}
    assert "stale rate" in kinds
    yesterday = (pd.Timestamp(bundle.origin) - pd.offsets.BDay(1)).date()
    again = {r.kind: r for r in drift(bundle, {"stale rate": yesterday}, CONFIG)}
    assert not again["stale rate"].raised
    assert "raised for" in again["stale rate"].found


def test_of_a_short_history_nothing_is_usual() -> None:
    assert drift(bundle_of(synthetic_table(250, seed=4)), {}, CONFIG) == ()
