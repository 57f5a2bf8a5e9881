"""Features against slow loops, and the promise they share: a row holds nothing of what came after it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forex_core.errors import MemberError
from forex_core.models.base import ewma
from forex_core.models.features import (
    FAST_DECAY,
    FAST_SHARE,
    LIMIT_SIGMAS,
    REVERSION,
    SLOW_DECAY,
    WARM_ROWS,
    alive,
    bounded,
    carried,
    changes,
    copper_features,
    driver_inputs,
    first_moved,
    lagged,
    learning_rows,
    log_returns,
    mean_size,
    momentum,
    relative_strength,
    rolling_correlation,
    rowwise_products,
    spread_ahead,
    targets,
    usable,
    volatility,
    volatility_ahead,
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
    "mean_size": lambda b: mean_size(log_returns(b), FAST_DECAY),
    "bounded": lambda b: bounded(log_returns(b)),
    "carried": lambda b: carried(np.nan_to_num(changes(b)), np.arange(len(b)) % 3 == 0),
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


@pytest.mark.parametrize("decay", [FAST_DECAY, SLOW_DECAY])
def test_mean_size_in_a_slow_loop(bundle: MarketBundle, decay: float) -> None:
    returns = log_returns(bundle)
    found = mean_size(returns, decay)
    level = sum(abs(r) for r in returns[1 : WARM_ROWS + 1]) / WARM_ROWS
    assert np.isnan(found[:WARM_ROWS]).all()
    for t in range(WARM_ROWS, ROWS):
        if t > WARM_ROWS:
            level = decay * level + (1 - decay) * abs(returns[t])
        assert found[t] == pytest.approx(math.sqrt(math.pi / 2) * level, rel=1e-12)


def test_mean_size_is_the_deviation_of_a_normal_and_minds_one_wild_day_less() -> None:
    returns = np.random.default_rng(2).normal(0, 0.006, 20_000)
    assert mean_size(returns, SLOW_DECAY)[1000:].mean() == pytest.approx(0.006, rel=0.02)
    wild = returns.copy()
    wild[-1] = 20 * 0.006
    sizes, squares = (f(wild)[-1] / f(returns)[-1] for f in (lambda r: mean_size(r, 0.97), volatility))
    assert 1 < sizes < 2 < squares


def test_volatility_ahead_in_a_slow_loop() -> None:
    fast, slow = np.array([0.01, 0.004, 0.006]), np.array([0.006, 0.006, 0.006])
    found = volatility_ahead(fast, slow, 64)
    assert found.shape == (3, 64)
    assert 0 < FAST_SHARE < 1
    assert 0 < REVERSION < 1
    for n in range(3):
        total = 0.0
        for h in range(64):
            share = FAST_SHARE * REVERSION**h
            total += share * fast[n] ** 2 + (1 - share) * slow[n] ** 2
            assert found[n, h] == pytest.approx(math.sqrt(total), rel=1e-12)
    np.testing.assert_allclose(found[2], 0.006 * np.sqrt(np.arange(1, 65)))  # steady: the root of time


@given(st.floats(0.0, 0.1), st.floats(1e-6, 0.1))
def test_volatility_ahead_grows_and_falls_back_on_the_slow_estimate(fast: float, slow: float) -> None:
    found = volatility_ahead(np.array([fast]), np.array([slow]), 2000)[0]
    variance = np.diff(found**2, prepend=0.0)
    assert (variance > 0).all()
    low, high = sorted((fast**2, slow**2))
    rounding = 1e-9 * (1000 * high)
    assert (variance >= low - rounding).all()
    assert (variance <= high + rounding).all()
    assert variance[-1] == pytest.approx(slow**2, abs=rounding)


def test_the_spread_ahead_is_that_of_the_row_times_its_growth(bundle: MarketBundle) -> None:
    inputs, rows = driver_inputs(bundle), np.array([80, 150, ROWS - 1])
    steady = np.sqrt(np.arange(1, 21))
    ahead = volatility_ahead(inputs["fast"][rows], inputs["slow"][rows], 20)
    np.testing.assert_allclose(spread_ahead(inputs, rows, steady), ahead)
    np.testing.assert_allclose(spread_ahead(inputs, rows, 0.7 * steady), 0.7 * ahead)
    np.testing.assert_allclose(spread_ahead(inputs, rows, steady)[:, 0], inputs["sigma"][rows])
    for n, row in enumerate(rows):
        np.testing.assert_array_equal(
            spread_ahead(inputs, np.array([row]), steady)[0], spread_ahead(inputs, rows, steady)[n]
        )


def test_bounded_in_a_slow_loop(bundle: MarketBundle) -> None:
    series = changes(bundle)[:, 0].copy()
    series[[0, 90, 91, 150]] = np.nan
    series[[100, 130]] = 1.0, -0.5
    found = bounded(series)
    known = [0.0 if math.isnan(value) else float(value) for value in series[1:]]
    level = sum(value**2 for value in known[1 : WARM_ROWS + 1]) / WARM_ROWS
    # The series begins at row 1, and its bound is known a row late.
    assert (found[: WARM_ROWS + 2] == 0).all()
    for t in range(WARM_ROWS + 1, len(known)):
        limit = LIMIT_SIGMAS * math.sqrt(level)
        assert found[t + 1] == pytest.approx(min(max(known[t], -limit), limit), rel=1e-12)
        level = 0.98 * level + 0.02 * known[t] ** 2
    assert 0 < found[100] < 0.1
    assert -0.5 < found[130] < -0.3  # so soon after the other its bound is wide


def test_bounded_lets_an_ordinary_day_pass_and_cuts_a_wild_one(bundle: MarketBundle) -> None:
    returns = log_returns(bundle)
    found = bounded(returns)
    after = slice(WARM_ROWS + 1, None)
    assert np.mean(found[after] == returns[after]) > 0.98
    loud = returns.copy()
    loud[150] = 100 * np.std(returns)
    assert bounded(loud)[150] < 6 * np.std(
        returns
    )  # the bound is that of the row before: it does not excuse itself
    np.testing.assert_array_equal(bounded(loud)[:150], found[:150])


@settings(max_examples=50)
@given(st.floats(1e-6, 1e6), st.integers(0, 120))
def test_bounded_has_the_unit_of_its_series_and_begins_where_it_does(scale: float, start: int) -> None:
    series = np.random.default_rng(5).standard_t(3, ROWS) * 0.01
    np.testing.assert_allclose(bounded(scale * series), scale * bounded(series), rtol=1e-9)
    late = series.copy()
    late[:start] = np.nan
    found = bounded(late)
    assert (found[: start + WARM_ROWS + 1] == 0).all()
    assert (found[start + WARM_ROWS + 1 :] != 0).any() == (start + WARM_ROWS + 1 < ROWS)
    np.testing.assert_array_equal(found[start:], bounded(late[start:]))
    np.testing.assert_array_equal(np.sign(found) * np.sign(late) < 0, False)


def test_what_is_never_known_or_never_moves_is_bounded_to_nothing() -> None:
    for series in (np.full(ROWS, np.nan), np.zeros(ROWS), np.empty(0), np.ones(1), np.ones(WARM_ROWS)):
        np.testing.assert_array_equal(bounded(series), np.zeros(len(series)))


still_rows = st.lists(st.tuples(st.booleans(), st.integers(1, 14)), min_size=1, max_size=8).map(
    lambda runs: np.concatenate([np.full(length, still) for still, length in runs])
)


@given(still_rows)
def test_carried_in_a_slow_loop(still: npt.NDArray[np.bool_]) -> None:
    """Each row holds its own move and, back to the last close that moved, those of the still rows and of that close.

    From the eleventh still row on it holds its own alone.
    """
    moves = np.random.default_rng(len(still)).normal(0, 1, (len(still), 2))
    before = moves.copy()
    found = carried(moves, still)
    np.testing.assert_array_equal(moves, before)
    for t in range(len(still)):
        since = t
        while since > 0 and still[since]:
            since -= 1
        start = since if t - since <= 10 else t
        np.testing.assert_allclose(found[t], moves[start : t + 1].sum(axis=0), rtol=1e-12, atol=1e-12)


def test_carried_moves_wait_for_the_next_close() -> None:
    moves = np.array([[0.0], [1.0], [2.0], [4.0], [8.0], [16.0]])
    still = np.array([True, False, True, True, False, False])
    assert carried(moves, still)[:, 0].tolist() == [0, 1, 3, 7, 8, 16]
    np.testing.assert_array_equal(carried(moves, np.zeros(6, dtype=bool)), moves)


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


# ---- what members learn from -------------------------------------------------------------------------------


def test_what_members_read_of_a_bundle(bundle: MarketBundle) -> None:
    spot = bundle.spot.copy()
    spot[[120, 121]] = spot[119]
    inputs = driver_inputs(replace(bundle, spot=spot))
    returns, raw = np.diff(np.log(spot), prepend=np.log(spot[0])), changes(bundle)
    np.testing.assert_allclose(inputs["returns"], returns, atol=1e-15)
    np.testing.assert_allclose(inputs["moves"][:, 0], bounded(returns), atol=6e-10)
    for k in range(3):
        np.testing.assert_allclose(inputs["moves"][:, 1 + k], bounded(raw[:, k]), atol=6e-10)
    np.testing.assert_array_equal(inputs["moves"], np.round(inputs["moves"], 9))
    np.testing.assert_allclose(inputs["carried"][121], inputs["moves"][119:122].sum(axis=0))
    np.testing.assert_array_equal(inputs["carried"][122:], inputs["moves"][122:])
    np.testing.assert_array_equal(inputs["counts"][-1], (inputs["moves"] != 0).sum(axis=0))
    np.testing.assert_array_equal(inputs["fast"], mean_size(inputs["returns"], FAST_DECAY))
    np.testing.assert_array_equal(inputs["slow"], mean_size(inputs["returns"], SLOW_DECAY))
    ahead = volatility_ahead(inputs["fast"], inputs["slow"], 1)[:, 0]
    np.testing.assert_array_equal(inputs["sigma"], ahead)


def test_policy_rates_are_left_out(bundle: MarketBundle) -> None:
    units = (bundle.driver_units[0], PERCENT_PER_YEAR, bundle.driver_units[2])
    inputs = driver_inputs(replace(bundle, driver_units=units))
    for name in ("moves", "carried", "counts"):
        np.testing.assert_array_equal(inputs[name], driver_inputs(bundle)[name][:, [0, 1, 3]])


def test_usable_drivers_are_those_that_moved_long_and_lately(bundle: MarketBundle) -> None:
    drivers = bundle.drivers.copy()
    drivers[:60, 0] = np.nan  # starts late
    drivers[165:, 1] = np.nan  # stopped
    inputs = driver_inputs(replace(bundle, drivers=drivers))
    moved = [int((inputs["moves"][:, k] != 0).sum()) for k in range(4)]
    assert moved[1] < moved[3]
    assert usable(inputs, ROWS - 1, 2 * moved[3]) == (0, 3)
    assert usable(inputs, ROWS - 1, 2 * moved[1]) == (0, 1, 3)
    assert 2 in usable(inputs, 164, 60)
    assert usable(inputs, ROWS - 1, 2 * moved[3] + 2) == (0,)  # the spot is not asked


def test_a_driver_that_moves_on_half_of_its_days_is_used_and_one_on_fewer_is_not(
    bundle: MarketBundle,
) -> None:
    """Of the last 60 rows it must have moved on more than 30."""
    for pace, used in ((1, True), (2, False), (3, False)):
        drivers = bundle.drivers.copy()
        drivers[:, 0] = drivers[pace * (np.arange(ROWS) // pace), 0]
        inputs = driver_inputs(replace(bundle, drivers=drivers))
        assert (1 in usable(inputs, ROWS - 1, 20)) == used, pace


def test_rows_to_learn_from_begin_with_the_moves_and_end_before_the_anchor(bundle: MarketBundle) -> None:
    inputs = driver_inputs(bundle)
    assert first_moved(inputs, len(inputs["moves"]) - 1) == WARM_ROWS + 1
    np.testing.assert_array_equal(learning_rows(inputs, 190, 100, 3), np.arange(WARM_ROWS + 4, 190))
    np.testing.assert_array_equal(learning_rows(inputs, 190, 100, 60), np.arange(WARM_ROWS + 61, 190))
    enough = 190 - (WARM_ROWS + 4)
    assert len(learning_rows(inputs, 190, 2 * enough, 3)) == enough
    with pytest.raises(MemberError, match=f"only {enough} rows since the price began to move"):
        learning_rows(inputs, 190, 2 * enough + 2, 3)


def test_a_price_that_began_to_move_late_or_never_is_learned_from_then_on(bundle: MarketBundle) -> None:
    spot = bundle.spot.copy()
    spot[:100] = spot[100]
    inputs = driver_inputs(replace(bundle, spot=spot))
    assert first_moved(inputs, len(inputs["moves"]) - 1) == 102  # the first move has no bound yet
    np.testing.assert_array_equal(learning_rows(inputs, 190, 100, 3), np.arange(105, 190))
    inputs = driver_inputs(replace(bundle, spot=np.full(ROWS, 700.0)))
    with pytest.raises(MemberError, match="only 0 rows"):
        learning_rows(inputs, 190, 100, 3)
    with pytest.raises(MemberError, match="only 0 rows"):
        learning_rows(driver_inputs(bundle), 62, 100, 3)


def test_rows_of_a_stretch_without_quotes_are_not_learned_from() -> None:
    """Closes repeated for a year and a half: the volatility runs dry, and returns over it have no scale."""
    table = synthetic_table(1000, seed=5)
    spot = bundle_of(table).spot.copy()
    spot[300:700] = spot[299]
    inputs = driver_inputs(replace(bundle_of(table), spot=spot))
    rows = learning_rows(inputs, 999, 250, 3)
    within = (rows >= 300) & (rows < 700)
    assert 100 < within.sum() < 350  # until the slow half of the volatility is down to a tenth
    assert inputs["sigma"][rows].min() > 0.1 * np.median(inputs["sigma"][rows])
    np.testing.assert_array_equal(np.setdiff1d(np.arange(64, 300), rows), [])
    np.testing.assert_array_equal(np.setdiff1d(np.arange(701, 999), rows), [])


def test_alive_is_what_has_a_tenth_of_an_ordinary_volatility() -> None:
    assert alive(np.array([np.nan, 0.0, 0.09, 0.11, 1.0, 1.0, 1.0, 1.0])).tolist() == [False] * 3 + [True] * 5
    assert not alive(np.zeros(5)).any()


@pytest.mark.parametrize("step", [1, 3, 10])
def test_targets_in_a_slow_loop(bundle: MarketBundle, step: int) -> None:
    spot = bundle.spot.copy()
    spot[150:] *= 2
    inputs = driver_inputs(replace(bundle, spot=spot))
    rows = np.arange(70, ROWS - step)
    found = targets(inputs, rows, step)
    for value, t in zip(found, rows, strict=True):
        limit = 4 * math.sqrt(step) * inputs["sigma"][t]
        expected = math.log(spot[t + step] / spot[t])
        assert value == pytest.approx(min(max(expected, -limit), limit), abs=1e-9)
    assert found.max() < 0.5 < math.log(2)


@given(st.integers(1, 5), st.integers(1, 4), st.data())
def test_lagged_in_a_slow_loop(columns: int, lags: int, data: st.DataObject) -> None:
    values = np.arange(20.0 * columns).reshape(20, columns)
    rows = np.array(data.draw(st.lists(st.integers(lags - 1, 19), max_size=6)), dtype=np.int64)
    found = lagged(values, rows, lags)
    assert found.shape == (len(rows), lags * columns)
    for n, row in enumerate(rows):
        for lag in range(lags):
            for k in range(columns):
                assert found[n, lag * columns + k] == values[row - lag, k]


@given(st.integers(1, 40), st.integers(1, 30), st.integers(1, 64), st.integers(0, 10_000))
def test_a_row_alone_gets_the_products_that_it_gets_among_others(
    rows: int, features: int, columns: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, coefficients = rng.normal(0, 1, (rows, features)), rng.normal(0, 1, (columns, features))
    found = rowwise_products(x, coefficients)
    np.testing.assert_allclose(found, x @ coefficients.T, atol=1e-12)
    for n in range(rows):
        np.testing.assert_array_equal(rowwise_products(x[[n]], coefficients)[0], found[n])
    order = rng.permutation(rows)
    np.testing.assert_array_equal(rowwise_products(x[order], coefficients), found[order])
    # Nor does it matter how the rows lie in memory, or how many of the coefficients are asked for.
    np.testing.assert_array_equal(rowwise_products(np.asfortranarray(x), coefficients), found)
    np.testing.assert_array_equal(
        rowwise_products(x, coefficients[: columns // 2 + 1]), found[:, : columns // 2 + 1]
    )
