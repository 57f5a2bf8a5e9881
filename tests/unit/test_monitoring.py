"""Alarms: how seldom they err where nothing is wrong, and how soon they are raised where something is."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from arch.univariate import GARCH, StudentsT, ZeroMean
from scipy.stats import binom

from forex_core.calendars import origin_instant
from forex_core.config import MonitorConfig
from forex_core.data.bundle import load_bundle
from forex_core.data.providers.csv_files import CsvProvider
from forex_core.ledger import Ledger, Trajectory
from forex_core.monitoring import (
    DRIFT_DAYS,
    YEAR,
    Reading,
    Record,
    band_factors,
    changes,
    drift,
    faults,
    key,
    readings,
    silence,
)
from forex_core.testing import bundle_of, synthetic_table
from forex_core.types import HORIZONS, PERCENT_PER_YEAR, Array, Horizon, Repair
from tests.bench.alarms import (
    CHANGES,
    GAPS,
    MOVES,
    START,
    TAIL,
    Lead,
    alarms,
    delays,
    leads,
    normal,
)
from tests.ledgers import USDCLP, entry

CONFIG = MonitorConfig()
Z80 = 1.2815515655446004


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


SHARES = {"narrow bands": 0.025, "wide bands": 0.025, "no skill": 0.05}
"""Of years with an alarm that errs, as `readings` gives them out: bands at two leads, skill at one."""
GARCHES = {"mild": (0.04, 0.94, 8.0), "harsh": (0.075, 0.905, 5.0)}
"""α, β and degrees of freedom, other than those of any threshold."""


def most(years: int, share: float) -> int:
    """Of years with an alarm, where the share is right, that fewer than one run in two hundred goes above."""
    return int(binom.ppf(0.995, years, share))


@lru_cache
def spells(name: str, years: int, rows: int) -> tuple[Array, Array]:
    """Moves [years, rows] by the package `arch`, and the σ [years, rows] before each: EWMA of .985 of the moves."""
    alpha, beta, freedom = GARCHES[name]
    drawn = np.random.default_rng([17, len(name), years])
    model = ZeroMean(volatility=GARCH(), distribution=StudentsT(seed=drawn))
    warm, parameters = 250, [1 - alpha - beta, alpha, beta, freedom]
    moves = np.stack(
        [model.simulate(parameters, nobs=rows + warm, burn=200)["data"].to_numpy() for _ in range(years)]
    )
    return moves[:, warm:], expected(moves)[:, warm:]


def expected(moves: Array) -> Array:
    """σ [years, rows] before each of the moves, as the random walk has it."""
    variance, sigma = np.ones(len(moves)), np.empty_like(moves)
    for t in range(moves.shape[1]):
        sigma[:, t] = np.sqrt(variance)
        variance = 0.985 * variance + 0.015 * moves[:, t] ** 2
    return sigma


@pytest.mark.slow
@pytest.mark.parametrize("horizon", HORIZONS, ids=str)
def test_alarms_err_as_often_as_is_said(horizon: Horizon) -> None:
    """Of the walks behind the thresholds, others of them: neither more nor less.

    Up to what a thousand years tell, and what the two thousand behind a threshold leave open. Differences of forecasts
    that lean by chance have shorter tails than those of one lean, and at the end of 90 days bands are never too wide.
    """
    years = 1000
    walks = MOVES["all"](np.random.default_rng(31), years, 3 * YEAR + TAIL)
    came = alarms(*leads(walks, horizon), 2 * YEAR, 3 * YEAR)
    counts = {kind: int(np.isfinite(days).sum()) for kind, days in came.items()}
    bounds = {"narrow bands": (0.0125, 0.03), "wide bands": (0.01, 0.035), "no skill": (0.02, 0.06)}
    for kind, (low, high) in bounds.items():
        assert binom.ppf(0.005, years, low) <= counts[kind] <= binom.ppf(0.995, years, high), counts


@pytest.mark.slow
@pytest.mark.parametrize("year", [0, 2])
@pytest.mark.parametrize("horizon", HORIZONS, ids=str)
def test_of_the_harshest_walks_bands_err_twice_as_often_at_most(horizon: Horizon, year: int) -> None:
    """By the package `arch`, in a first year and in a third."""
    years = 200
    walks = spells("harsh", years, 3 * YEAR + TAIL)
    came = alarms(*leads(walks, horizon), year * YEAR, (year + 1) * YEAR)
    counts = {kind: int(np.isfinite(days).sum()) for kind, days in came.items()}
    allowed = {kind: share * (1 + (kind != "no skill")) for kind, share in SHARES.items()}
    assert all(counts[kind] <= most(years, share) for kind, share in allowed.items()), counts


@pytest.mark.parametrize(
    ("what", "horizon"),
    [pytest.param("2 times", HORIZONS[0], marks=pytest.mark.slow), ("leans all wrong", HORIZONS[1])],
)
def test_alarms_of_many_years_at_once_are_those_of_the_monitor(what: str, horizon: Horizon) -> None:
    """Looked at day by day, with what is known of each lead by then."""
    scale, wrong, kind = CHANGES[what]
    walks = normal(np.random.default_rng(2), 3, 2 * YEAR + TAIL)
    first, last = leads(walks, horizon, scale=scale, wrong=wrong, since=YEAR)
    came = alarms(first, last, YEAR, 2 * YEAR)[kind]
    for which in range(3):
        looks = (
            [
                one.record(which, int(np.searchsorted(one.at, day - one.steps, side="right")))
                for one in (first, last)
            ]
            for day in range(YEAR, 2 * YEAR)
        )
        raised_on = (
            day
            for day, seen in enumerate(looks)
            if any(found.raised and found.kind == kind for found in readings(*seen, {}, CONFIG))
        )
        assert came[which] == next(raised_on, np.inf)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "medians"),
    [
        ("1.5 times", (101, 147, 220, 240)),
        ("2 times", (49, 77, 125, 128)),
        ("half", (142, 175, 215, 220)),
        ("leans all wrong", (118, 197, 265, 343)),
    ],
)
def test_what_turns_wrong_is_noticed_as_soon_as_is_said(what: str, medians: tuple[int, ...]) -> None:
    """The medians of docs/methods.md, of other walks."""
    found = [float(np.median(delays(what, horizon, 100, 37))) for horizon in HORIZONS]
    assert found == pytest.approx(medians, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("rolls", [False, True])
@pytest.mark.parametrize("horizon", HORIZONS, ids=str)
def test_skill_of_a_first_or_a_rolling_year_errs_as_often_as_it_is_said(
    horizon: Horizon, rolls: bool
) -> None:
    """Neither more nor less, of medians that lean one way: in one year of twenty, up to what 600 years tell and the
    simulation behind the threshold, one s.e. of half a percentile, leaves open."""
    steps, years = horizon.evaluation_steps, 600
    at = np.floor(np.arange(0, 2 * YEAR, GAPS[horizon])).astype(int)
    moves = np.random.default_rng(23).standard_t(12, (years, 2 * YEAR + steps))
    summed = np.concatenate([np.zeros((years, 1)), moves.cumsum(axis=1)], axis=1)
    d = summed[:, at + steps] - summed[:, at]
    lead = Lead(horizon, steps, at, d > 0, d)
    since = rolls * YEAR + steps
    raised = np.isfinite(alarms(lead, lead, since, since + YEAR)["no skill"])
    low, high = (binom.ppf(p, years, 0.05 + e) for p, e in ((0.005, -0.01), (0.995, 0.01)))
    assert low <= raised.sum() <= high, raised.mean()


@pytest.mark.parametrize("days", [1, 5])
def test_a_year_is_one_of_weekdays_and_not_of_forecasts(days: int) -> None:
    """Worse than the random walk three years ago and as good since: of no year that is looked at."""
    at = np.arange(0, 4 * YEAR, days)
    noise = np.random.default_rng(2).standard_normal(len(at))
    differences = noise + np.where(at < 2 * YEAR, 5.0, 0.0)
    whole = Record(5, np.busday_offset(START, at, roll="forward"), np.zeros(len(at), bool), differences)
    found = next(r for r in readings(whole, whole, {}, CONFIG) if r.kind == "no skill")
    assert not found.raised
    assert found.count == len(range(0, YEAR, days))
    assert found.since is not None
    assert np.busday_count(found.since, whole.origins[-1]) < YEAR
    assert whole.gap == days


def test_published_once_a_week_less_holidays_skill_is_judged_within_a_year() -> None:
    at = np.arange(0, YEAR, 5)
    at = np.delete(at, np.arange(3, len(at), 6))  # more Mondays than any calendar keeps
    z = np.random.default_rng(3).standard_normal(len(at))
    year = Record(21, np.busday_offset(START, at, roll="forward"), z > 9, z + 5)
    most_allowed = MonitorConfig(min_forecasts=40)
    found = next(r for r in readings(year, year, {}, most_allowed) if r.kind == "no skill")
    assert found.raised, found
    with pytest.raises(ValueError, match="min_forecasts"):
        MonitorConfig(min_forecasts=60)


@pytest.mark.slow
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


# --- Bands of a champion that stays


def published(folder: Path, rows: int, every: int) -> tuple[Trajectory, ...]:
    """Forecasts of a walk whose bands are too narrow by half, the newest always among them."""
    ledger = Ledger(f"sqlite:///{folder / 'forex.db'}", folder)
    days = pd.bdate_range("2025-01-01", periods=rows + 8)
    rates = dict(
        zip(days.date, 900 * np.exp(0.006 * walk(5, rows / YEAR)[: len(days)].cumsum()), strict=True)
    )
    for day in days[:rows][::-1][::every]:
        made = entry(day.date(), close=rates[day.date()], width=0.5)
        if made.steps:
            ledger.append(made)
    known = [origin_instant(USDCLP, day) for day in rates]
    ledger.record(USDCLP, "close", list(rates), np.array(list(rates.values())), known, now=known[-1])
    return ledger.paths(USDCLP, "close", HORIZONS[0])


def test_bands_learn_from_origins_a_week_apart_however_many_there_are(tmp_path: Path) -> None:
    daily, weekly = (published(tmp_path / name, 40, every) for name, every in (("d", 1), ("w", 5)))
    assert len(daily) > 4 * len(weekly)
    day = daily[-1].target_dates[-1]
    spaced = [p for p in daily if p.of.origin in {q.of.origin for q in weekly}]
    assert len(spaced) == len(weekly)
    found = band_factors(daily, day, 5)
    np.testing.assert_array_equal(found, band_factors(weekly, day, 1))
    fast = band_factors(daily, day, 1)
    assert (found[0] < fast[0]).all()
    assert (found[0] > 1).all()


# --- The data


def moved(
    name: str, change: float = 1.0, drift_by: float = 0.0, rows: int = 1600, seed: int = 4
) -> dict[str, Reading]:
    """Readings of a market of which one series' last twenty moves are other than those before."""
    table = synthetic_table(rows, seed=seed)
    column = "USDCLP" if name == "rate" else name
    moves = np.diff(np.log(table[column].to_numpy()))
    sd = moves.std()
    moves[-20:] = moves[-20:] * change + drift_by * sd
    table[column] = table[column].iloc[0] * np.exp(np.concatenate([[0.0], moves.cumsum()]))
    return {reading.kind: reading for reading in drift(bundle_of(table), {}, CONFIG)}


WATCHED = ("rate", "Copper", "DXY", "VIX")


def test_a_market_that_moves_as_before_is_no_alarm() -> None:
    found = moved("rate")
    assert {*found} == {f"{kind} {name}" for kind in ("volatility", "returns", "frozen") for name in WATCHED}
    assert not any(reading.raised for reading in found.values())


@pytest.mark.parametrize("name", WATCHED)
@pytest.mark.parametrize(
    ("change", "drift_by", "kind"), [(5.0, 0.0, "volatility"), (1.0, 2.0, "returns"), (0.0, 0.0, "frozen")]
)
def test_one_series_that_moves_otherwise_is(name: str, change: float, drift_by: float, kind: str) -> None:
    """In most of nine markets, after twenty days; and none of the others is taken for it.

    A driver, which has but a share of the false alarms, is to be twice as restless for it.
    """
    change *= 1 if name == "rate" else 2
    found = [moved(name, change, drift_by, seed=seed) for seed in range(9)]
    assert sum(readings[f"{kind} {name}"].raised for readings in found) >= 5, found
    others = (r for one in found for r in one.values() if not r.kind.endswith(name))
    assert not any(reading.raised for reading in others)


def test_a_driver_that_seldom_moves_is_not_watched() -> None:
    """Policy rates, and what is reported once a week; nor is one that has only begun."""
    table = synthetic_table(1600, seed=4)
    table["Copper"] = table["Copper"].where(np.arange(1600) % 5 == 0).ffill()
    table.loc[: 1600 - 200, "VIX"] = np.nan
    rates = bundle_of(table)
    at = rates.driver_names.index("DXY")
    units = tuple(PERCENT_PER_YEAR if k == at else unit for k, unit in enumerate(rates.driver_units))
    found = drift(replace(rates, driver_units=units), {}, CONFIG)
    assert {reading.kind for reading in found} == {"volatility rate", "returns rate", "frozen rate"}


@pytest.mark.slow
@pytest.mark.shared_data
def test_markets_of_eight_years_were_an_alarm_when_they_broke(shared_data: Path) -> None:
    """Of five drivers, whose alarms may err once in twenty years: a collapse, and a price below nothing."""
    market = load_bundle(CsvProvider((shared_data / "usdclp_market_daily.csv",)), USDCLP, date(2024, 6, 28))
    found = set()
    for k in range(6 * YEAR, len(market), 5):
        then = market.until(market.instants[k])
        found |= {(then.dates[-1].strftime("%Y-%m"), r.kind) for r in drift(then, {}, CONFIG) if r.raised}
    drivers = {(month, kind) for month, kind in found if not kind.endswith("rate")}
    assert {month for month, _ in drivers} == {"2020-03", "2020-04", "2020-05"}
    assert {kind for _, kind in drivers} == {
        f"{measured} {name}" for measured in ("volatility", "returns") for name in ("oil", "sp500")
    }


def test_the_level_is_no_alarm() -> None:
    """Twice the price, the same moves."""
    table = synthetic_table(1600, seed=4)
    before = {r.kind: r.statistic for r in drift(bundle_of(table), {}, CONFIG)}
    table[["USDCLP", "Copper"]] *= 2
    after = {r.kind: r.statistic for r in drift(bundle_of(table), {}, CONFIG)}
    assert after == pytest.approx(before)


def test_an_alarm_of_the_data_rests_for_as_long_as_it_looks_back() -> None:
    table = synthetic_table(1600, seed=4)
    table.loc[table.index[-20] :, "USDCLP"] = table["USDCLP"].iloc[-20]
    bundle = bundle_of(table)
    kinds = {r.kind for r in drift(bundle, {}, CONFIG) if r.raised}
    assert "frozen rate" in kinds
    yesterday = (pd.Timestamp(bundle.origin) - pd.offsets.BDay(1)).date()
    again = {r.kind: r for r in drift(bundle, {"frozen rate": yesterday}, CONFIG)}
    assert not again["frozen rate"].raised
    assert "raised for" in again["frozen rate"].found


def test_of_a_short_history_nothing_is_usual() -> None:
    assert drift(bundle_of(synthetic_table(250, seed=4)), {}, CONFIG) == ()


@pytest.mark.parametrize(("name", "still"), [("mild", 0.0005), ("harsh", 0.02)])
def test_data_of_which_nothing_is_wrong_are_an_alarm_in_few_years(name: str, still: float) -> None:
    """Each of the three in one year of sixty, a third of one in twenty; now and then a rate stays for a day."""
    years = 60
    moves, sigma = spells(name, years, 6 * YEAR + DRIFT_DAYS)
    days = np.busday_offset(START, np.arange(moves.shape[1]), roll="forward")
    draws = np.random.default_rng(8).random(moves.shape)
    counts = dict.fromkeys(("volatility", "returns", "frozen"), 0)
    for u in np.where(draws < still, 0.0, moves / sigma):
        looks = range(5 * YEAR + DRIFT_DAYS, len(u))
        for kind in {kind for k in looks for kind in changed(days[: k + 1], u[: k + 1])}:
            counts[kind] += 1
    assert all(count <= most(years, 1 / 60) for count in counts.values()), counts


def changed(days: Array, u: Array) -> set[str]:
    """The alarms of a series by itself."""
    found = changes("rate", days, u, {}, CONFIG.false_alarms_a_year)
    return {reading.kind.removesuffix(" rate") for reading in found if reading.raised}


@pytest.mark.parametrize(
    ("kind", "scale", "lean", "within"),
    [("volatility", 5.0, 0.0, 20), ("returns", 1.0, 2.0, 20), ("frozen", 0.0, 0.0, 5)],
)
def test_data_that_turn_otherwise_are_an_alarm_within_days(
    kind: str, scale: float, lean: float, within: int
) -> None:
    """The median of thirty rates: moves of five times the size, a drift of two σ a day, a feed that stands still."""
    moves, _ = spells("mild", 30, 6 * YEAR)
    days = np.busday_offset(START, np.arange(moves.shape[1]), roll="forward")
    at, moved, delays = 5 * YEAR + DRIFT_DAYS, moves.copy(), []
    moved[:, at:] = moved[:, at:] * scale + lean
    for u in moved / expected(moved):
        looks = (k for k in range(at, at + 60) if kind in changed(days[: k + 1], u[: k + 1]))
        delays.append(next(looks, at + 99) - at + 1)
    assert np.median(delays) <= within, delays


def test_a_silence_is_told_once_and_the_next_one_again() -> None:
    day, later = date(2026, 3, 2), date(2026, 3, 20)
    assert not silence(day, 5, 5, {}).raised
    first = silence(day, 6, 5, {})
    assert first.raised
    assert "nothing was published for 6 days" in first.found
    assert first.until == day
    assert not silence(day, 7, 5, {"silence": day}).raised
    assert silence(later, 6, 5, {"silence": day}).raised


def test_a_series_that_is_old_and_a_print_that_was_not_believed_are_told_once() -> None:
    bundle = bundle_of(synthetic_table(900))
    last, lately, long_ago = (bundle.dates[k].date() for k in (-1, -5, -60))
    repairs = (
        Repair("copper", "stale", long_ago, None, "the last value is too old"),
        Repair("USDCLP", "refuted", long_ago, 95.0, "long ago"),
        Repair("USDCLP", "refuted", lately, 95.0, "it came back"),
        Repair("USDCLP", "held", last, 95.0, "it waits"),
        Repair("dxy", "repeated", None, None, "as often", 40),
        Repair("dxy", "weekend", lately, None, "taken out"),
    )
    found = faults(replace(bundle, repairs=repairs), {})
    assert {(one.kind, one.until) for one in found if one.raised} == {
        ("stale copper", long_ago),
        ("repaired USDCLP", last),
    }
    of_a_file = faults(replace(bundle, repairs=repairs), {}, ages=False)
    assert [one.kind for one in of_a_file] == ["repaired USDCLP"]
    known = {one.kind: one.until for one in found if one.until}
    assert not any(one.raised for one in faults(replace(bundle, repairs=repairs), known))
    known["repaired USDCLP"] = lately
    assert [one.kind for one in faults(replace(bundle, repairs=repairs), known) if one.raised] == [
        "repaired USDCLP"
    ]
