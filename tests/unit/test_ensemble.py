"""Weights on the simplex against brute force, a peer and their optimality conditions; the combination point in time."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from forex_core.calibration import Outcomes
from forex_core.ensemble import LOSS_STEPS, MIN_KNOWN_ORIGINS, REESTIMATE_EVERY, combine, simplex_weights
from forex_core.types import Array

FIRST, LAST = LOSS_STEPS


def some_errors(members: int, count: int = 200, seed: int = 0) -> Array:
    """Errors that share a part, as those of forecasts of one price do, with sizes and offsets of their own."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 1, count)
    own = rng.normal(0, 1, (members, count)) * rng.uniform(0.1, 1, (members, 1))
    return common + own + rng.normal(0, 0.2, (members, 1))


def objective(weights: Array, errors: Array, shrinkage: float) -> float:
    miss = float(((weights @ errors) ** 2).mean())
    return miss + shrinkage * float(((weights - 1 / len(weights)) ** 2).sum())


def slope(weights: Array, errors: Array, shrinkage: float) -> Array:
    return 2 * (errors @ (weights @ errors)) / errors.shape[1] + 2 * shrinkage * (weights - 1 / len(weights))


@pytest.mark.parametrize("shrinkage", [0.0, 0.002, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_no_point_of_a_fine_grid_is_better(seed: int, shrinkage: float) -> None:
    errors = some_errors(3, seed=seed)
    found = simplex_weights(errors, shrinkage)
    n = 60
    grid = [np.array([a, b, n - a - b]) / n for a, b in product(range(n + 1), repeat=2) if a + b <= n]
    values = [objective(w, errors, shrinkage) for w in grid]
    assert objective(found, errors, shrinkage) <= min(values) + 1e-10
    np.testing.assert_allclose(found, grid[int(np.argmin(values))], atol=0.06)


@pytest.mark.parametrize("members", [2, 5, 8])
def test_the_weights_are_those_of_non_negative_least_squares(members: int) -> None:
    errors, shrinkage, heavy = some_errors(members, seed=members), 0.002, 1e4
    n = errors.shape[1]
    a = np.vstack([errors.T / np.sqrt(n), np.sqrt(shrinkage) * np.eye(members), np.full(members, heavy)])
    b = np.concatenate([np.zeros(n), np.full(members, np.sqrt(shrinkage) / members), [heavy]])
    np.testing.assert_allclose(simplex_weights(errors, shrinkage), nnls(a, b)[0], atol=2e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(0, 10_000),
    st.sampled_from([0.0005, 0.002, 0.1, 10.0]),
    st.sampled_from([0.1, 1.0, 10.0]),
)
def test_the_conditions_of_an_optimum_hold(members: int, seed: int, shrinkage: float, size: float) -> None:
    errors = size * some_errors(members, 60, seed)
    weights = simplex_weights(errors, shrinkage)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    at = slope(weights, errors, shrinkage)
    scale = np.abs(at).max() + shrinkage
    used = weights > 1e-4
    multiplier = at[used].mean()
    np.testing.assert_allclose(at[used], multiplier, atol=2e-3 * scale)
    assert (at[~used] >= multiplier - 2e-3 * scale).all()


def test_the_better_member_gets_the_weight_and_twins_share_it() -> None:
    rng = np.random.default_rng(1)
    good, bad = rng.normal(0, 0.1, 300), rng.normal(0, 3, 300)
    assert simplex_weights(np.stack([good, bad]), 0.0)[0] > 0.99
    np.testing.assert_allclose(simplex_weights(np.stack([good, bad, good]), 0.002)[[0, 2]], 0.5, atol=0.01)


def test_much_shrinkage_means_equal_weights() -> None:
    np.testing.assert_allclose(simplex_weights(some_errors(6), 1e5), 1 / 6, atol=1e-4)


def setting(
    origins: int = 120, members: int = 3, steps: int = 12, seed: int = 0
) -> tuple[Array, Array, Outcomes, Array]:
    """Medians, deviations, outcomes and volatility on a grid of every fifth row; one sees ahead a little."""
    rng = np.random.default_rng(seed)
    rows = 100 + 5 * np.arange(origins)
    log_price = np.cumsum(rng.normal(0, 0.006, int(rows[-1]) + steps + 1))
    targets = rows[:, None] + np.arange(1, steps + 1)
    values = log_price[targets] - log_price[rows][:, None]
    values[rng.random(values.shape) < 0.03] = np.nan
    skill = np.array([0.5, 0.1, 0.0, -0.3])[:members, None, None]
    medians = skill * np.nan_to_num(values) + rng.normal(0, 0.003, (members, origins, steps))
    deviations = np.sort(rng.normal(0, 0.01, (members, origins, steps, 5)), axis=-1)
    outcomes = Outcomes(values, targets, rows, np.ones(origins, dtype=bool))
    return medians, deviations, outcomes, np.full(origins, 0.006) * rng.uniform(0.8, 1.2, origins)


ORDINALS = np.arange(120) + 1003
WINDOW = 1000
"""Longer than the series: everything that is known counts."""


def test_weights_in_a_slow_loop() -> None:
    medians, deviations, outcomes, sigma = setting()
    found = combine(medians, deviations, outcomes, sigma, ORDINALS, 0.002, WINDOW)
    current = np.full(3, 1 / 3)
    changes = 0
    for i, row in enumerate(outcomes.rows):
        if ORDINALS[i] % 4 == 0:
            errors: list[Array] = []
            taught = set()
            for j in range(120):
                for h in range(6, 12):
                    value = outcomes.values[j, h - 1]
                    if outcomes.rows[j] + h <= row and not np.isnan(value):
                        errors.append((value - medians[:, j, h - 1]) / (sigma[j] * np.sqrt(h)))
                        taught.add(j)
            if len(taught) >= 26:
                current = simplex_weights(np.array(errors).T, 0.002)
                changes += 1
        np.testing.assert_allclose(found.weights[i], current, atol=2e-6)
    assert changes > 10
    assert found.weights[-1, 0] > 0.6  # the member that sees ahead


def test_weights_are_a_point_of_the_simplex_and_change_every_fourth_origin() -> None:
    medians, deviations, outcomes, sigma = setting()
    weights = combine(medians, deviations, outcomes, sigma, ORDINALS, 0.002, WINDOW).weights
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    changed = (np.diff(weights, axis=0) != 0).any(axis=1)
    assert changed.any()
    assert (ORDINALS[1:][changed] % REESTIMATE_EVERY == 0).all()


def test_weights_are_equal_before_enough_outcomes_are_known() -> None:
    medians, deviations, outcomes, sigma = setting()
    weights = combine(medians, deviations, outcomes, sigma, ORDINALS, 0.002, WINDOW).weights
    scored_by = np.array(
        [outcomes.known_by(row)[:, FIRST - 1 : LAST].any(axis=1).sum() for row in outcomes.rows]
    )
    early = scored_by < MIN_KNOWN_ORIGINS
    assert 20 < early.sum() < 40
    np.testing.assert_array_equal(weights[early], 1 / 3)
    assert (weights[~early][REESTIMATE_EVERY:] != 1 / 3).any(axis=1).all()


@pytest.mark.parametrize("position", [30, 60, 119])
def test_what_becomes_known_later_changes_no_weights_before(position: int) -> None:
    medians, deviations, outcomes, sigma = setting()
    args = (sigma, ORDINALS, 0.002, WINDOW)
    whole = combine(medians, deviations, outcomes, *args)
    later = outcomes.known > outcomes.rows[position]
    for values in (10 * outcomes.values + 1, np.full_like(outcomes.values, np.nan)):
        changed = replace(outcomes, values=np.where(later, values, outcomes.values))
        again = combine(medians, deviations, changed, *args)
        for name in ("weights", "medians", "deviations"):
            np.testing.assert_array_equal(
                getattr(again, name)[: position + 1], getattr(whole, name)[: position + 1]
            )


def test_an_outcome_that_is_known_late_is_used_late() -> None:
    medians, deviations, outcomes, sigma = setting()
    on_time = combine(medians, deviations, outcomes, sigma, ORDINALS, 0.002, WINDOW).weights
    never = replace(outcomes, known=np.full_like(outcomes.known, 10_000))
    np.testing.assert_array_equal(
        combine(medians, deviations, never, sigma, ORDINALS, 0.002, WINDOW).weights, 1 / 3
    )
    late = replace(outcomes, known=outcomes.known + 100)
    delayed = combine(medians, deviations, late, sigma, ORDINALS, 0.002, WINDOW).weights
    np.testing.assert_array_equal(delayed[20:], on_time[:-20])


def test_origins_off_the_grid_get_weights_and_teach_nothing() -> None:
    medians, deviations, outcomes, sigma = setting()
    learning = np.arange(120) % 3 != 1
    mixed = replace(outcomes, learning=learning)
    weights = combine(medians, deviations, mixed, sigma, ORDINALS, 0.002, WINDOW).weights
    on_grid = Outcomes(
        outcomes.values[learning], outcomes.known[learning], outcomes.rows[learning], learning[learning]
    )
    alone = combine(
        medians[:, learning],
        deviations[:, learning],
        on_grid,
        sigma[learning],
        ORDINALS[learning],
        0.002,
        WINDOW,
    ).weights
    np.testing.assert_array_equal(weights[learning], alone)
    np.testing.assert_array_equal(weights[~learning], weights[np.flatnonzero(~learning) - 1])


def test_medians_are_weighted_and_spreads_are_averaged() -> None:
    medians, deviations, outcomes, sigma = setting()
    found = combine(medians, deviations, outcomes, sigma, ORDINALS, 0.002, WINDOW)
    for n, h in product(range(0, 120, 17), range(12)):
        expected = sum(found.weights[n, m] * medians[m, n, h] for m in range(3))
        assert found.medians[n, h] == pytest.approx(expected, rel=1e-12, abs=1e-15)
        np.testing.assert_allclose(
            found.deviations[n, h], sum(deviations[:, n, h]) / 3, rtol=1e-12, atol=1e-15
        )


def test_one_weight_vector_serves_the_whole_path() -> None:
    medians, deviations, outcomes, sigma = setting()
    whole = combine(medians, deviations, outcomes, sigma, ORDINALS, 0.002, WINDOW)
    cut = Outcomes(outcomes.values[:, :11], outcomes.known[:, :11], outcomes.rows, outcomes.learning)
    short = combine(medians[:, :, :11], deviations[:, :, :11], cut, sigma, ORDINALS, 0.002, WINDOW)
    np.testing.assert_array_equal(short.weights, whole.weights)
    np.testing.assert_allclose(short.medians, whole.medians[:, :11], rtol=1e-14, atol=1e-18)


def test_shrinkage_pulls_towards_equal_weights() -> None:
    medians, deviations, outcomes, sigma = setting()
    distance = [
        np.abs(combine(medians, deviations, outcomes, sigma, ORDINALS, lam, WINDOW).weights - 1 / 3).max()
        for lam in (0.0, 0.5, 1e5)
    ]
    assert distance[0] > distance[1] > distance[2]
    assert distance[2] < 1e-4


def test_weights_forget_what_lies_before_their_window() -> None:
    """Outcomes of origins before the last `window` change nothing; those inside it do."""
    medians, deviations, outcomes, sigma = setting()
    weights = combine(medians, deviations, outcomes, sigma, ORDINALS, 0.002, 50).weights
    for before, same in ((67, True), (75, False)):
        values = outcomes.values.copy()
        values[:before] *= -3
        changed = replace(outcomes, values=values)
        again = combine(medians, deviations, changed, sigma, ORDINALS, 0.002, 50).weights
        assert np.array_equal(again[-1], weights[-1]) == same, before
