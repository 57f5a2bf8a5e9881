"""Features against slow loops, and the promise they share: a row holds nothing of what came after it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forex_core.errors import MemberError
from forex_core.models.base import ewma
from forex_core.models.features import (
    WARM_ROWS,
    changes,
    copper_features,
    driver_inputs,
    log_returns,
    momentum,
    relative_strength,
    rolling_correlation,
    standardised,
    usable_drivers,
    volatility,
)
from forex_core.models.random_walk import reference_sigma
from forex_core.testing import bundle_of, synthetic_bundle, synthetic_table
from forex_core.types import PERCENT_PER_YEAR, Array, MarketBundle

ROWS = 200


@pytest.fixture(scope="module")
def bundle() -> MarketBundle:
    return synthetic_bundle(ROWS, seed=1)


FEATURES: dict[str, Callable[[MarketBundle], Array]] = {
    "log_returns": log_returns,
    "changes": changes,
    "volatility": lambda b: volatility(log_returns(b)),
    "reference_sigma": reference_sigma,
    "standardised": lambda b: standardised(log_returns(b)),
    "momentum": lambda b: momentum(log_returns(b), 20),
    "relative_strength": lambda b: relative_strength(log_returns(b)),
    "rolling_correlation": lambda b: rolling_correlation(log_returns(b), np.nan_to_num(changes(b)[:, 0])),
    "copper_features": lambda b: np.column_stack(list(copper_features(b).values())),
    "driver_inputs": lambda b: np.column_stack([v.reshape(len(b), -1) for v in driver_inputs(b).values()]),
}


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("row", [30, 61, 150])
def test_later_rows_change_nothing_before(bundle: MarketBundle, feature: str, row: int) -> None:
    compute = FEATURES[feature]
    whole = compute(bundle)
    spot, drivers = bundle.spot.copy(), bundle.drivers.copy()
    spot[row + 1 :] *= 10
    drivers[row + 1 :] = np.nan
    changed = compute(replace(bundle, spot=spot, drivers=drivers))
    np.testing.assert_array_equal(changed[: row + 1], whole[: row + 1])
    np.testing.assert_array_equal(compute(bundle.until(bundle.instants[row])), whole[: row + 1])
    assert not np.array_equal(changed, whole, equal_nan=True)


def test_log_returns(bundle: MarketBundle) -> None:
    returns = log_returns(bundle)
    assert returns[0] == 0
    for t in range(1, ROWS):
        assert returns[t] == pytest.approx(math.log(bundle.spot[t] / bundle.spot[t - 1]), abs=1e-14)


def one_driver(values: list[float], unit: str = "USD per lb") -> MarketBundle:
    base = bundle_of(synthetic_table(len(values), drivers=("Copper",)))
    return replace(base, drivers=np.array(values)[:, None], driver_units=(unit,))


def test_changes_of_a_price() -> None:
    found = changes(one_driver([math.nan, math.nan, 50.0, 51.0, math.nan, 51.0, 51.0]))[:, 0]
    assert np.isnan(found[[0, 1, 2, 4, 5]]).all()  # not known on one of the two rows
    assert found[3] == pytest.approx(math.log(51 / 50), rel=1e-4)
    assert found[6] == 0


def test_changes_of_a_price_at_and_below_zero() -> None:
    found = changes(one_driver([10.0, -37.0, 5.0, 0.0, 0.0, 3.0]))[:, 0]
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:], [-2, 2, -2, 0, 2])


def test_changes_of_a_rate_are_differences() -> None:
    found = changes(one_driver([5.0, 5.25, 0.0, -0.5, math.nan], PERCENT_PER_YEAR))[:, 0]
    np.testing.assert_allclose(found[1:4], [0.25, -5.25, -0.5])
    assert np.isnan(found[[0, 4]]).all()


@settings(max_examples=50, deadline=None)
@given(st.floats(-0.1, 0.1), st.floats(0.01, 1e5))
def test_a_small_change_is_the_log_return_to_third_order(move: float, price: float) -> None:
    found = changes(one_driver([price, price * math.exp(move)]))[1, 0]
    assert found == pytest.approx(move, abs=abs(move) ** 3 / 10 + 1e-12)


def test_ewma_in_a_slow_loop() -> None:
    values = np.random.default_rng(0).normal(1, 1, 90)
    found = ewma(values, 0.9, 20)
    assert np.isnan(found[:20]).all()
    level = sum(values[1:21]) / 20
    assert found[20] == pytest.approx(level)
    for t in range(21, 90):
        level = 0.9 * level + 0.1 * values[t]
        assert found[t] == pytest.approx(level, rel=1e-12)
    assert np.isnan(ewma(values[:20], 0.9, 20)).all()


def test_volatility_is_the_root_of_the_mean_square(bundle: MarketBundle) -> None:
    returns = log_returns(bundle)
    found = volatility(returns, 0.97)
    level = sum(r * r for r in returns[1 : WARM_ROWS + 1]) / WARM_ROWS
    for t in range(WARM_ROWS + 1, ROWS):
        level = 0.97 * level + 0.03 * returns[t] ** 2
        assert found[t] == pytest.approx(math.sqrt(level), rel=1e-12)
    assert np.isnan(found[:WARM_ROWS]).all()
    assert np.isfinite(found[WARM_ROWS:]).all()


def test_standardised_moves_have_no_unit_and_a_bound(bundle: MarketBundle) -> None:
    returns = log_returns(bundle)
    found = standardised(returns)
    np.testing.assert_allclose(standardised(1000 * returns), found, rtol=1e-10)
    assert (found[: WARM_ROWS + 1] == 0).all()
    assert 0.7 < np.std(found[WARM_ROWS + 1 :]) < 1.3
    loud = returns.copy()
    loud[150] = 100 * np.std(returns)
    assert standardised(loud)[150] == 6  # over the volatility of the row before, so it does not hide itself


def test_standardised_begins_where_the_series_does(bundle: MarketBundle) -> None:
    late = changes(bundle)[:, 0].copy()
    late[:80] = np.nan
    found = standardised(late)
    assert (found[: 80 + WARM_ROWS + 1] == 0).all()
    assert (found[80 + WARM_ROWS + 1 :] != 0).any()
    np.testing.assert_array_equal(found[80:], standardised(late[80:]))
    assert (standardised(np.full(ROWS, np.nan)) == 0).all()


def test_momentum_in_a_slow_loop(bundle: MarketBundle) -> None:
    returns = log_returns(bundle)
    found, size = momentum(returns, 20), volatility(returns)
    assert (found[:WARM_ROWS] == 0).all()
    for t in range(WARM_ROWS, ROWS):
        expected = sum(returns[t - 19 : t + 1]) / (size[t] * math.sqrt(20))
        assert found[t] == pytest.approx(expected, abs=1e-10)


def test_relative_strength_in_a_slow_loop(bundle: MarketBundle) -> None:
    returns = log_returns(bundle)
    found = relative_strength(returns)
    up = sum(max(r, 0) for r in returns[1:15]) / 14
    down = sum(max(-r, 0) for r in returns[1:15]) / 14
    assert (found[:14] == 50).all()
    for t in range(15, ROWS):
        up, down = (13 * up + max(returns[t], 0)) / 14, (13 * down + max(-returns[t], 0)) / 14
        assert found[t] == pytest.approx(100 - 100 / (1 + up / down), rel=1e-9)
    assert relative_strength(np.full(40, 0.01))[-1] == 100
    assert relative_strength(np.full(40, -0.01))[-1] == 0
    assert relative_strength(np.zeros(40))[-1] == 50


def test_rolling_correlation() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(0, 1, (2, 4000))
    mixed = 0.6 * a + 0.8 * b
    assert rolling_correlation(a, mixed, 0.999)[-1] == pytest.approx(0.6, abs=0.08)
    assert rolling_correlation(a, a)[WARM_ROWS:] == pytest.approx(1)
    assert rolling_correlation(a, -3 * a)[WARM_ROWS:] == pytest.approx(-1)
    assert np.abs(rolling_correlation(a, b)).max() < 1
    assert (rolling_correlation(a, np.zeros(4000)) == 0).all()
    assert (rolling_correlation(a, b)[:WARM_ROWS] == 0).all()


def test_copper_is_found_by_name_in_any_case(bundle: MarketBundle) -> None:
    features = copper_features(bundle)
    assert set(features) == {
        "copper_return",
        "copper_volatility",
        "copper_trend",
        "copper_rsi",
        "copper_correlation",
    }
    assert all(values.shape == (ROWS,) and np.isfinite(values).all() for values in features.values())
    shouted = replace(bundle, driver_names=("COPPER", *bundle.driver_names[1:]))
    np.testing.assert_array_equal(copper_features(shouted)["copper_rsi"], features["copper_rsi"])
    assert copper_features(replace(bundle, driver_names=("Oil", *bundle.driver_names[1:]))) == {}


def test_copper_that_is_unknown_says_nothing(bundle: MarketBundle) -> None:
    drivers = bundle.drivers.copy()
    drivers[:, 0] = np.nan
    features = copper_features(replace(bundle, drivers=drivers))
    assert (features["copper_rsi"] == 50).all()
    for name in ("copper_return", "copper_volatility", "copper_trend", "copper_correlation"):
        assert (features[name] == 0).all()


def test_usable_drivers_are_those_that_moved_long_and_lately(bundle: MarketBundle) -> None:
    drivers = bundle.drivers.copy()
    drivers[:60, 0] = np.nan  # starts late
    drivers[165:, 1] = np.nan  # stopped
    inputs = driver_inputs(replace(bundle, drivers=drivers))
    moved = [int((inputs["drivers"][:, k] != 0).sum()) for k in range(3)]
    assert moved[0] < moved[2]
    assert usable_drivers(inputs, ROWS - 1, 2 * moved[2]) == (2,)
    assert usable_drivers(inputs, ROWS - 1, 2 * moved[0]) == (0, 2)
    assert 1 in usable_drivers(inputs, 164, 60)
    with pytest.raises(MemberError, match="no driver"):
        usable_drivers(inputs, ROWS - 1, 2 * moved[2] + 2)


def test_policy_rates_are_left_to_the_slow_members(bundle: MarketBundle) -> None:
    units = (bundle.driver_units[0], PERCENT_PER_YEAR, bundle.driver_units[2])
    inputs = driver_inputs(replace(bundle, driver_units=units))
    assert inputs["drivers"].shape == (ROWS, 2)
    np.testing.assert_array_equal(inputs["drivers"], driver_inputs(bundle)["drivers"][:, [0, 2]])
