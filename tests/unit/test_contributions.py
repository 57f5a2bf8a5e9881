"""Contributions of drivers to the move of the median: exact for linear members, adding up for all."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from forex_core.briefing.absent import Absent
from forex_core.briefing.contributions import ROWS, Contributions, contributions
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import Engine, build_members
from forex_core.models.driver_regression import MOMENTUM_ROWS, REACH, DriverMomentum, DriverRegression
from forex_core.models.features import driver_inputs, lagged
from forex_core.testing import bundle_of, synthetic_table
from forex_core.types import LEVELS, Array, ForecastRun, Horizon, MarketBundle

NAMES = ("Copper", "DXY", "VIX")
LINEAR = ("random_walk", "theta", "drivers", "momentum", "var")
WITH_TREES = (*LINEAR, "gradient_boosting")


@cache
def market() -> MarketBundle:
    """A rate that follows the day before of its drivers, and the month before of copper."""
    table = synthetic_table(800, seed=5, pass_through=1.0)
    trend = np.log(table["Copper"]).diff(20).shift(1).fillna(0.0)
    return bundle_of(table.assign(fed_rate=5.33, USDCLP=table["USDCLP"] * np.exp(0.05 * trend.cumsum())))


@cache
def made(members: tuple[str, ...], days: int = 7) -> tuple[Engine, ForecastRun]:
    config = EngineConfig(members=members, grid_origins=60, warmup_origins=8)
    engine = Engine(config, build_members(config, ChronosConfig()))
    return engine, engine.forecast(market(), Horizon(days))


def found(members: tuple[str, ...] = LINEAR, days: int = 7) -> Contributions:
    answer = contributions(*made(members, days), market())
    assert isinstance(answer, Contributions)
    return answer


@pytest.mark.parametrize("members", [LINEAR, WITH_TREES])
@pytest.mark.parametrize("days", [7, 30])
def test_they_add_up_from_the_close_to_the_published_median(members: tuple[str, ...], days: int) -> None:
    told = found(members, days)
    run = made(members, days)[1]
    assert told.close == market().spot[-1]
    assert told.median == run.forecast.median[-1]
    assert told.target_date == run.forecast.target_dates[-1]
    total = told.close + told.own_past + sum(told.drivers.values()) + told.remainder
    assert total == pytest.approx(told.median, rel=1e-12)
    assert list(map(abs, told.drivers.values())) == sorted(map(abs, told.drivers.values()), reverse=True)


def test_linear_members_leave_no_remainder() -> None:
    assert abs(found().remainder) < 1e-9 * found().close


@pytest.mark.slow
def test_what_trees_do_of_several_drivers_together_is_told_apart() -> None:
    """Half of the forecast by trees, half by a regression: each driver's part is the mean of both taken alone."""
    table = synthetic_table(1500, seed=5, pass_through=1.0)
    copper, vix = (np.log(table[name]).diff().shift(1).fillna(0.0) for name in ("Copper", "VIX"))
    bundle = bundle_of(table.assign(USDCLP=table["USDCLP"] * np.exp((3 * copper * (vix > 0)).cumsum())))
    bundle = bundle.until(bundle.instants[-20])  # a day on which the trees' splits on two drivers meet
    config = EngineConfig(
        members=("random_walk", "drivers", "gradient_boosting"), grid_origins=60, warmup_origins=8
    )
    engine = Engine(config, build_members(config, ChronosConfig()))
    run = engine.forecast(bundle, Horizon(7))
    close, middle = bundle.spot[-1], LEVELS.index(0.5)

    def weighted(weights: dict[str, float]) -> tuple[Contributions, float]:
        members = tuple(replace(m, weight=weights.get(m.name, 0.0)) for m in run.members)
        log = sum(m.weight * np.log(m.raw[-1, middle] / close) for m in members)
        quantiles = run.forecast.quantiles * close * np.exp(log) / run.forecast.median[-1]
        of = replace(run, members=members, forecast=replace(run.forecast, quantiles=quantiles))
        told = contributions(engine, of, bundle)
        assert isinstance(told, Contributions)
        return told, float((told.median - close) / log)

    both, price = weighted({"gradient_boosting": 0.5, "drivers": 0.5})
    trees, of_trees = weighted({"gradient_boosting": 1.0})
    lines, of_lines = weighted({"drivers": 1.0})
    assert abs(lines.remainder) < 1e-9 * close
    assert abs(trees.remainder) > 1e-5 * close, "trees read drivers together"
    assert both.remainder / price == pytest.approx(0.5 * trees.remainder / of_trees, rel=1e-6)
    for name in NAMES:
        parts = trees.drivers.get(name, 0.0) / of_trees, lines.drivers[name] / of_lines
        assert both.drivers[name] / price == pytest.approx(0.5 * sum(parts), rel=1e-6)


@pytest.mark.parametrize("name", ["drivers", "momentum"])
def test_of_a_regression_each_is_its_coefficients_times_its_moves(name: str) -> None:
    """One regression and members without drivers, so that what these add can be computed by hand."""
    engine, run = made(("random_walk", name, "theta"), 30)
    told = contributions(engine, run, market())
    assert isinstance(told, Contributions)
    bundle = market()
    member = next(m for m in engine.members if isinstance(m, (DriverRegression, DriverMomentum)))
    inputs = member.prepare(bundle)
    months = bundle.dates.year * 12 + bundle.dates.month
    anchor = int(np.flatnonzero(np.diff(months))[-1]) + 1  # the first row of the month
    fitted = member.fit(inputs, anchor)
    days, slope = fitted if isinstance(fitted, tuple) else (fitted, None)
    now = lagged(inputs["carried"][:, days.used], np.array([len(bundle) - 1]), 3)[0]
    products = (days.coefficients[REACH - 1] * now).reshape(3, -1).sum(axis=0)
    if slope is not None:
        assert abs(slope).max() > 1e-3
        trends = np.concatenate([inputs[f"trend_{rows}"][-1, list(days.used)] for rows in MOMENTUM_ROWS])
        products += (slope * trends).reshape(len(MOMENTUM_ROWS), -1).sum(axis=0)
    to_price = (told.median - told.close) / np.log(told.median / told.close) * run.weights[name]
    for column, product in zip(days.used, products, strict=True):
        if column > 0:
            assert told.drivers[NAMES[column - 1]] == pytest.approx(product * to_price, rel=1e-8)
    assert set(told.drivers) == set(NAMES)


@pytest.mark.parametrize("name", ["drivers", "var"])
@pytest.mark.parametrize("days", [7, 30])
def test_it_is_what_a_member_forecasts_less_of_a_driver_that_stood_still(name: str, days: int) -> None:
    """By what a member answers to anybody: it looks back on fewer rows than have come since it learned."""
    bundle = market()
    assert bundle.dates[-7].month == bundle.dates[-1].month
    engine, run = made(("random_walk", name, "theta"), days)
    told = contributions(engine, run, bundle)
    assert isinstance(told, Contributions)
    (member,) = (m for m in engine.members if m.name == name)

    def median(drivers: Array) -> float:
        asked = replace(bundle, drivers=drivers)
        answers = member.forecast(asked, asked.instants[-1:], run.forecast.steps[-1], LEVELS)
        return float(answers.quantiles[0, -1, LEVELS.index(0.5)])

    per_log = run.weights[name] * (told.median - told.close) / np.log(told.median / told.close)
    for k, driver in enumerate(NAMES):
        still = bundle.drivers.copy()
        still[-5:, k] = still[-6, k]
        without = np.log(median(bundle.drivers) / median(still)) * per_log
        assert told.drivers[driver] == pytest.approx(without, rel=1e-6)
        assert abs(without) > 1e-3


def test_a_driver_that_has_not_moved_adds_nothing_and_is_named() -> None:
    bundle = market()
    still = bundle.drivers.copy()
    still[-ROWS - 1 :, 1] = still[-ROWS - 1, 1]
    held = replace(bundle, drivers=still)
    engine, _ = made(LINEAR)
    told = contributions(engine, engine.forecast(held, Horizon(7)), held)
    assert isinstance(told, Contributions)
    assert "DXY" in told.unread
    assert "DXY" not in told.drivers


def test_policy_rates_are_not_read() -> None:
    assert "fed_rate" in found().unread


def test_what_moved_copper_alone_is_told_of_copper_alone() -> None:
    bundle = market()
    jumped = bundle.drivers.copy()
    jumped[-1, 0] *= 1.02
    after = replace(bundle, drivers=jumped)
    engine, _ = made(LINEAR)
    told = contributions(engine, engine.forecast(after, Horizon(7)), after)
    assert isinstance(told, Contributions)
    before = found()
    assert told.drivers["Copper"] - before.drivers["Copper"] > 0.1
    for name in ("DXY", "VIX"):
        assert told.drivers[name] == pytest.approx(before.drivers[name], rel=0.02)
    assert told.own_past == pytest.approx(before.own_past, rel=0.02, abs=0.01)


def test_what_was_learned_is_kept() -> None:
    """A driver's weeks are taken out of what is answered, never out of what is learned."""
    learned: list[MarketBundle] = []

    class Watched(DriverRegression):
        def fit(self, inputs, anchor):  # type: ignore[no-untyped-def]
            learned.append(inputs["carried"])
            return super().fit(inputs, anchor)

    engine, _ = made(("random_walk", "drivers", "theta"))
    watched = Watched()
    mine = Engine(engine.config, [watched if m.name == "drivers" else m for m in engine.members])
    run = mine.forecast(market(), Horizon(7))
    learned.clear()
    contributions(mine, run, market())
    assert len(learned) == 1
    assert (learned[0] == driver_inputs(market())["carried"]).all()


@pytest.mark.slow
def test_without_drivers_there_is_nothing_to_tell() -> None:
    config = EngineConfig(members=("random_walk", "theta", "ets"), grid_origins=60, warmup_origins=8)
    engine = Engine(config, build_members(config, ChronosConfig()))
    assert contributions(engine, engine.forecast(market(), Horizon(7)), market()) == Absent("no_drivers")
    bare = bundle_of(synthetic_table(800, seed=5, drivers=()))
    engine, _ = made(("random_walk", "theta", "drivers", "gradient_boosting"))
    assert contributions(engine, engine.forecast(bare, Horizon(7)), bare) == Absent("no_drivers")


def test_of_a_median_that_is_not_made_again_nothing_is_told() -> None:
    """As of a champion that was learned with other drivers."""
    engine, run = made(LINEAR)
    forecast = replace(run.forecast, quantiles=run.forecast.quantiles * 1.00001)
    assert contributions(engine, replace(run, forecast=forecast), market()) == Absent("other_model")


def test_in_another_unit_they_are_the_same_in_it() -> None:
    bundle = replace(market(), spot=market().spot / 1000, truth=market().truth / 1000)
    engine, _ = made(LINEAR)
    told = contributions(engine, engine.forecast(bundle, Horizon(7)), bundle)
    assert isinstance(told, Contributions)
    for name, value in found().drivers.items():
        assert told.drivers[name] == pytest.approx(value / 1000, rel=1e-4)
