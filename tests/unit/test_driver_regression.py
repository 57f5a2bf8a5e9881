"""The shrunk regression against a peer and slow sums, and members on series whose answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from forex_core.errors import MemberError
from forex_core.models.driver_regression import (
    LAGS,
    MOMENTUM_REACH,
    MOMENTUM_ROWS,
    REACH,
    DayRegression,
    DriverMomentum,
    DriverRegression,
    kept_share,
    shrunk_regression,
)
from forex_core.models.features import driver_inputs, usable
from forex_core.testing import bundle_of, synthetic_bundle, synthetic_table
from forex_core.types import LEVELS, Array, MarketBundle

MIDDLE = LEVELS.index(0.5)


# ---- the share that is kept --------------------------------------------------------------------------------


def test_the_kept_share_by_hand() -> None:
    assert kept_share(2.0, 1.0) == 0.75
    assert kept_share(1.0, 0.0) == 1
    assert kept_share(0.5, 1.0) == 0
    assert kept_share(0.0, 1.0) == kept_share(0.0, 0.0) == 0


@given(st.floats(1e-12, 1e6), st.floats(0.0, 1e6), st.floats(1e-6, 1e6))
def test_the_kept_share_is_one_of_the_ratio(explained: float, noise: float, unit: float) -> None:
    share = kept_share(explained, noise)
    assert 0 <= share <= 1
    assert (share == 0) == (noise >= explained) or math.isclose(noise, explained)
    assert kept_share(unit * explained, unit * noise) == pytest.approx(share, abs=1e-12)
    assert kept_share(2 * explained, noise) >= share


# ---- the regression ----------------------------------------------------------------------------------------


def sample(
    count: int = 400, columns: int = 5, signal: float = 0.0, seed: int = 0
) -> tuple[Array, Array, Array, Array]:
    """Columns of very different size, a target of noise and `signal` times a sum of them, weights, coefficients."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** rng.uniform(-3, 3, columns)
    x = rng.normal(0, 1, (count, columns)) * size
    beta = rng.choice([-1.0, 1.0], columns) / size
    y = signal * (x @ beta) + rng.normal(0, 1, count)
    return x, y, rng.uniform(0.2, 3, count), signal * beta


def slow_regression(x: Array, y: Array, weights: Array, ridge: float, overlap: int) -> Array:
    """Scikit-learn's ridge on columns of unit size, and the share kept by sums over rows and their hat matrix."""
    n, columns = x.shape
    share = [float(w) / math.fsum(weights) for w in weights]
    size = [math.sqrt(sum(share[i] * x[i, k] ** 2 for i in range(n))) for k in range(columns)]
    unit = np.array([[x[i, k] / size[k] for k in range(columns)] for i in range(n)])
    peer = Ridge(alpha=ridge, fit_intercept=False, solver="svd").fit(unit, y, sample_weight=share)
    fit = peer.predict(unit)
    root = np.diag(np.sqrt(share)) @ unit
    hat = root @ np.linalg.inv(root.T @ root + ridge * np.eye(columns)) @ root.T
    freedom = float(np.trace(hat @ hat))
    residual = sum(share[i] * (y[i] - fit[i]) ** 2 for i in range(n))
    explained = sum(share[i] * fit[i] ** 2 for i in range(n))
    noise = residual * sum(s**2 for s in share) * overlap * freedom
    kept = max(0.0, 1 - (noise / explained) ** 2)
    return np.array([kept * peer.coef_[k] / size[k] for k in range(columns)])


@pytest.mark.parametrize("overlap", [1, 10])
@pytest.mark.parametrize("ridge", [1e-6, 0.05, 1.0])
@pytest.mark.parametrize("signal", [0.1, 0.3, 3.0])
def test_the_regression_is_that_of_a_peer_shrunk(signal: float, ridge: float, overlap: int) -> None:
    for seed in range(3):
        x, y, weights, _ = sample(300, signal=signal, seed=seed)
        found = shrunk_regression(x, y, weights, ridge, overlap)
        np.testing.assert_allclose(
            found, slow_regression(x, y, weights, ridge, overlap), rtol=1e-8, atol=1e-12
        )


def plain_ridge(x: Array, y: Array, weights: Array, ridge: float) -> Array:
    """[F] ridge regression on columns of unit size, not shrunk as a whole."""
    size = np.sqrt(weights / weights.sum() @ x**2)
    peer = Ridge(alpha=ridge, fit_intercept=False).fit(x / size, y, sample_weight=weights / weights.sum())
    return np.asarray(peer.coef_ / size)


@pytest.mark.parametrize("columns", [12, 24])
def test_of_a_fit_to_noise_little_is_kept_and_of_a_clear_signal_nearly_all(columns: int) -> None:
    kept: dict[float, list[float]] = {0.0: [], 0.5: []}
    before, after = 0.0, 0.0
    for signal, shares in kept.items():
        for seed in range(200):
            x, y, weights, _ = sample(500, columns, signal, seed)
            plain, found = plain_ridge(x, y, weights, 0.05), shrunk_regression(x, y, weights, 0.05, 1)
            np.testing.assert_allclose(found / plain, (found / plain)[0], rtol=1e-6)  # shrunk as a whole
            shares.append(float((found / plain)[0]))
            if signal == 0:
                before, after = (
                    before + float(np.mean((x @ plain) ** 2)),
                    after + float(np.mean((x @ found) ** 2)),
                )
    noise, clear = kept[0.0], kept[0.5]
    # What noise explains varies by half around its mean, so a fit to it is dropped every other time.
    assert np.mean(np.array(noise) == 0) > 0.4
    assert np.mean(noise) < 0.25
    assert after < 0.25 * before
    assert max(noise) < 0.95
    assert min(clear) > 0.999


def test_rows_that_share_days_are_fewer() -> None:
    """Sums over ten days of noise look like signal to a rule that counts each row."""
    kept = {1: 0, 10: 0}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        steps, trend = rng.normal(0, 1, 1009), np.convolve(rng.normal(0, 1, 1059), np.ones(60), "valid")
        y = np.convolve(steps, np.ones(10), "valid")
        x = trend[: len(y), None]
        for overlap in kept:
            kept[overlap] += bool((shrunk_regression(x, y, np.ones(len(y)), 1.0, overlap) != 0).any())
    assert kept[1] > 60
    assert kept[10] < 45


@pytest.mark.parametrize("count", [2_000, 50_000])
def test_known_coefficients_are_recovered(count: int) -> None:
    x, y, weights, beta = sample(count, 5, signal=1.0, seed=1)
    found = shrunk_regression(x, y, weights, 1e-9, 1)
    np.testing.assert_allclose(found / beta, 1, atol=6 / math.sqrt(count))
    halved = shrunk_regression(x, y, weights, 1.0, 1)  # columns of unit size that share nothing
    np.testing.assert_allclose(halved / beta, 0.5, atol=6 / math.sqrt(count))


def test_a_heavier_row_counts_as_if_it_stood_there_more_often() -> None:
    x, y, _, _ = sample(200, 3, signal=1.0, seed=4)
    times = np.random.default_rng(0).integers(1, 4, 200)
    repeated = np.repeat(np.arange(200), times)
    weighted = plain_ridge(x, y, times.astype(float), 0.05)
    np.testing.assert_allclose(plain_ridge(x[repeated], y[repeated], np.ones(len(repeated)), 0.05), weighted)
    # What it is shrunk by counts the rows that there are, and weights of another size are the same weights.
    found = shrunk_regression(x, y, times.astype(float), 0.05, 1)
    np.testing.assert_allclose(found / weighted, (found / weighted)[0])
    np.testing.assert_allclose(shrunk_regression(x, y, 1e6 * times, 0.05, 1), found, rtol=1e-12)


def test_a_column_of_zeros_gets_nothing_and_costs_nothing() -> None:
    x, y, weights, _ = sample(300, 3, signal=1.0)
    wide = np.insert(x, 1, 0.0, axis=1)
    found = shrunk_regression(wide, y, weights, 0.05, 1)
    assert found[1] == 0
    np.testing.assert_allclose(found[[0, 2, 3]], shrunk_regression(x, y, weights, 0.05, 1), rtol=1e-10)
    np.testing.assert_array_equal(shrunk_regression(np.zeros_like(x), y, weights, 0.05, 1), 0)
    np.testing.assert_array_equal(shrunk_regression(x, np.zeros_like(y), weights, 0.05, 1), 0)


def test_twins_share_what_one_of_them_would_get() -> None:
    x, y, weights, _ = sample(500, 3, signal=1.0)
    twice = np.concatenate([x, x[:, :1]], axis=1)
    found = shrunk_regression(twice, y, weights, 0.05, 1)
    assert found[0] == pytest.approx(found[3], rel=1e-9)
    assert found[0] + found[3] == pytest.approx(shrunk_regression(x, y, weights, 0.05, 1)[0], rel=0.05)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 5000),
    st.floats(1e-6, 1e6),
    st.floats(1e-6, 1e6),
    st.integers(0, 2),
    st.sampled_from([1, 10]),
)
def test_the_units_of_columns_and_target_do_not_matter(
    seed: int, of_column: float, of_target: float, column: int, overlap: int
) -> None:
    x, y, weights, _ = sample(60, 3, 0.4, seed)
    found = shrunk_regression(x, y, weights, 0.05, overlap)
    other = x.copy()
    other[:, column] *= of_column
    expected = of_target * found
    expected[column] /= of_column
    again = shrunk_regression(other, of_target * y, weights, 0.05, overlap)
    np.testing.assert_allclose(again, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max(initial=0))
    order = np.random.default_rng(seed).permutation(3)
    np.testing.assert_allclose(
        shrunk_regression(x[:, order], y, weights, 0.05, overlap), found[order], rtol=1e-7
    )


# ---- the days ----------------------------------------------------------------------------------------------


def with_responses(
    rows: int, response: tuple[float, ...], seed: int = 0, noise: float = 0.002
) -> MarketBundle:
    """The spot follows copper: on the h-th day after a move of copper by `response[h - 1]` times that move."""
    table = synthetic_table(rows, seed=seed, pass_through=0.0)
    copper = np.diff(np.log(table["Copper"].to_numpy()), prepend=np.log(table["Copper"].iloc[0]))
    returns = np.random.default_rng(seed + 1).normal(0, noise, rows)
    returns += np.convolve(copper, [0.0, *response])[:rows]
    return bundle_of(table.assign(USDCLP=700 * np.exp(np.cumsum(returns))))


def test_the_response_to_a_driver_is_found_with_its_lags() -> None:
    bundle = with_responses(3000, (0.3, 0.2))
    inputs = driver_inputs(bundle)
    found = DayRegression.estimated(inputs, 2999, usable(inputs, 2999, 250), 250)
    assert found.used == (0, 1, 2, 3)
    assert found.coefficients.shape == (REACH, 4 * LAGS)
    copper = found.coefficients.reshape(REACH, LAGS, 4)[:, :, 1]
    # Over 1, 2, 3 steps: of today's move .3, .5, .5 are to come, of yesterday's .2, and nothing of the day before.
    expected = np.array([[0.3, 0.2, 0], [0.5, 0.2, 0], [0.5, 0.2, 0]])
    np.testing.assert_allclose(copper, expected, atol=0.06)
    others = np.delete(found.coefficients.reshape(REACH, LAGS, 4), [0, 1], axis=2)
    assert np.abs(others).max() < 0.04
    rows = np.array([2000, 2999])
    by_hand = [
        [
            sum(
                found.coefficients[step, lag * 4 + k] * inputs["carried"][row - lag, k]
                for lag in range(LAGS)
                for k in range(4)
            )
            for step in range(REACH)
        ]
        for row in rows
    ]
    np.testing.assert_allclose(found.centre(inputs, rows), by_hand, rtol=1e-10, atol=1e-15)


def test_an_estimate_reads_nothing_after_its_anchor() -> None:
    inputs = driver_inputs(synthetic_bundle(600, seed=2, pass_through=1.0))
    cut = {name: values[:501] for name, values in inputs.items()}
    whole, alone = (DayRegression.estimated(i, 500, (0, 1, 2, 3), 250) for i in (inputs, cut))
    np.testing.assert_array_equal(whole.coefficients, alone.coefficients)
    np.testing.assert_array_equal(whole.growth, alone.growth)


def answers(
    member: DriverRegression | DriverMomentum, bundle: MarketBundle, rows: Array, steps: int = 20
) -> Array:
    """[N, H, Q] log quantiles relative to the origin's close."""
    found = member.forecast(bundle, bundle.instants[rows], steps, LEVELS)
    assert found.reasons == {}
    return np.log(found.quantiles / bundle.spot[rows][:, None, None])


def test_the_path_is_flat_beyond_its_reach_and_its_band_grows() -> None:
    bundle = synthetic_bundle(700, seed=1, pass_through=1.0)
    rows = np.array([400, 550, 699])
    days, momentum = (answers(member, bundle, rows) for member in (DriverRegression(), DriverMomentum()))
    assert (days[:, 0, MIDDLE] != 0).all()
    assert np.ptp(days[:, REACH - 1 :, MIDDLE], axis=1).max() < 1e-12
    drift = momentum[:, :, MIDDLE] - days[:, :, MIDDLE]
    paid = np.minimum(np.arange(1, 21), MOMENTUM_REACH) / MOMENTUM_REACH
    np.testing.assert_allclose(drift, drift[:, [-1]] * paid, atol=1e-12)
    for q in (days, momentum):
        width = q[:, :, -1] - q[:, :, 0]
        assert (np.diff(width[:, REACH - 1 :]) > 0).all()
    # One band for both: what a trend adds to the median it does not take from the error.
    np.testing.assert_allclose(np.diff(days, axis=2), np.diff(momentum, axis=2), atol=1e-12)


def test_without_a_driver_there_is_no_answer() -> None:
    bundle = synthetic_bundle(600, seed=1)
    for member in (DriverRegression(), DriverMomentum()):
        still = member.forecast(
            replace(bundle, drivers=np.ones_like(bundle.drivers)), bundle.instants[[-1]], 5, LEVELS
        )
        assert "no driver has enough history" in still.reasons[0]
        with pytest.raises(MemberError, match="no driver"):
            member.fit(member.prepare(replace(bundle, drivers=np.full_like(bundle.drivers, np.nan))), 599)


# ---- momentum ----------------------------------------------------------------------------------------------


def test_trends_in_a_slow_loop() -> None:
    bundle = synthetic_bundle(300, seed=3)
    inputs = DriverMomentum().prepare(bundle)
    moves = driver_inputs(bundle)["moves"]
    for rows in MOMENTUM_ROWS:
        for t in (0, 1, rows - 1, rows, 150, 299):
            expected = [math.fsum(moves[max(0, t - rows + 1) : t + 1, k]) / math.sqrt(rows) for k in range(4)]
            np.testing.assert_allclose(inputs[f"trend_{rows}"][t], expected, rtol=1e-9, atol=1e-14)


def trending(rows: int, seed: int, drift: float) -> pd.DataFrame:
    """A spot whose daily drift wanders with a half-life of 60 rows and a deviation of `drift`, around noise of .6 %."""
    rng = np.random.default_rng(seed)
    table = synthetic_table(rows, seed=seed, pass_through=0.0)
    persistence = 0.5 ** (1 / 60)
    shocks = drift * math.sqrt(1 - persistence**2) * rng.normal(0, 1, rows)
    trend = np.zeros(rows)
    for t in range(1, rows):
        trend[t] = persistence * trend[t - 1] + shocks[t]
    return table.assign(USDCLP=700 * np.exp(np.cumsum(trend + rng.normal(0, 0.006, rows))))


def errors_at_ten_steps(bundle: MarketBundle) -> tuple[float, float, float]:
    """Root mean square error of the random walk, of `drivers` and of `momentum`, ten steps ahead."""
    rows = np.arange(600, len(bundle) - 11, 5)
    actual = np.log(bundle.spot[rows + 10] / bundle.spot[rows])
    medians = [answers(m, bundle, rows, 10)[:, 9, MIDDLE] for m in (DriverRegression(), DriverMomentum())]
    walk, days, momentum = (float(np.sqrt(np.mean((actual - m) ** 2))) for m in (0.0, *medians))
    return walk, days, momentum


def test_where_trends_last_momentum_gains() -> None:
    found = np.array([errors_at_ten_steps(bundle_of(trending(2000, seed, 0.002))) for seed in range(4)])
    walk, days, momentum = found.T
    assert (momentum < 0.95 * days).all()
    assert (days < walk).all()  # its three days see a little of a trend as well


def test_on_a_random_walk_momentum_says_almost_nothing() -> None:
    found = np.array([errors_at_ten_steps(bundle_of(trending(2000, seed, 0.0))) for seed in range(4)])
    walk, days, momentum = found.T
    assert (momentum / days).max() < 1.01
    assert (momentum / walk).max() < 1.01
    assert (days / walk).max() < 1.01
