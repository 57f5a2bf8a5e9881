"""Weights against a slow transcription of their rule and at its limits; the combination point in time."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forex_core.calibration import Outcomes
from forex_core.ensemble import (
    LOSS_STEPS,
    MIN_KNOWN_ORIGINS,
    REESTIMATE_EVERY,
    Combination,
    combine,
    exponential_weights,
)
from forex_core.types import Array

FIRST, LAST = LOSS_STEPS
ORIGINS = 120
ORDINALS = np.arange(ORIGINS) + 1003
RATE = 6.0
"""Gentle enough that the members below, far apart, all keep some weight."""

WINDOW = 1000
"""Longer than the series: everything that is known counts."""

some_losses = st.lists(st.floats(0.1, 10.0), min_size=1, max_size=9).map(np.array)
some_rate = st.floats(0.0, 1000.0)


# ---- the rule ----------------------------------------------------------------------------------------------


def test_weights_by_hand() -> None:
    np.testing.assert_allclose(exponential_weights(np.array([0.9, 1.0]), math.log(3) / 0.1), [0.75, 0.25])
    third = exponential_weights(np.array([1.0, 0.9, 0.95]), 20 * math.log(2))
    np.testing.assert_allclose(third, np.array([1, 4, 2]) / 7)


@given(some_losses, some_rate)
def test_weights_are_a_point_of_the_simplex_in_the_order_of_the_losses(losses: Array, rate: float) -> None:
    weights = exponential_weights(losses, rate)
    assert weights.shape == losses.shape
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert (np.diff(weights[np.argsort(losses)]) <= 0).all()
    assert weights[np.argmin(losses)] >= 1 / len(losses) - 1e-12


@given(some_losses, some_rate, st.floats(-5.0, 5.0), st.integers(0, 10_000))
def test_only_differences_of_losses_count_and_no_member_for_its_place(
    losses: Array, rate: float, offset: float, seed: int
) -> None:
    weights = exponential_weights(losses, rate)
    np.testing.assert_allclose(exponential_weights(losses + offset, rate), weights, atol=1e-9)
    order = np.random.default_rng(seed).permutation(len(losses))
    np.testing.assert_allclose(exponential_weights(losses[order], rate), weights[order], atol=1e-12)


@given(st.floats(0.1, 10.0), st.integers(1, 9), some_rate)
def test_equal_losses_get_equal_weights(loss: float, members: int, rate: float) -> None:
    np.testing.assert_array_equal(exponential_weights(np.full(members, loss), rate), 1 / members)


def test_twins_share_and_a_twin_takes_from_the_others() -> None:
    alone = exponential_weights(np.array([0.9, 0.95]), 20.0)
    twins = exponential_weights(np.array([0.9, 0.95, 0.9]), 20.0)
    assert twins[0] == twins[2]
    assert twins[1] < alone[1]


@given(some_losses)
def test_the_rate_runs_from_equal_weights_to_the_best_member_alone(losses: Array) -> None:
    best = losses == losses.min()
    np.testing.assert_array_equal(exponential_weights(losses, 0.0), 1 / len(losses))
    clear = losses[~best] - losses.min()
    if clear.min(initial=np.inf) > 1e-6:
        np.testing.assert_array_equal(exponential_weights(losses, 1e12), best / best.sum())
    shares = [exponential_weights(losses, rate)[best].sum() for rate in (0.0, 1.0, 10.0, 100.0)]
    assert (np.diff(shares) >= -1e-12).all()


def test_losses_far_apart_do_not_overflow() -> None:
    np.testing.assert_array_equal(exponential_weights(np.array([1.0, 1e6, 1e12]), 120.0), [1, 0, 0])
    np.testing.assert_array_equal(exponential_weights(np.array([1e12, 1e12]), 120.0), [0.5, 0.5])


# ---- the combination ---------------------------------------------------------------------------------------


def setting(
    origins: int = ORIGINS, members: int = 3, steps: int = 12, seed: int = 0
) -> tuple[Array, Array, Outcomes, Array]:
    """Medians, deviations, outcomes and volatility on a grid of every fifth row; one sees ahead a little."""
    rng = np.random.default_rng(seed)
    rows = 100 + 5 * np.arange(origins)
    log_price = np.cumsum(rng.normal(0, 0.006, int(rows[-1]) + steps + 1))
    targets = rows[:, None] + np.arange(1, steps + 1)
    values = log_price[targets] - log_price[rows][:, None]
    values[rng.random(values.shape) < 0.03] = np.nan
    skill = np.array([0.3, 0.1, 0.0, -0.3])[:members, None, None]
    medians = skill * np.nan_to_num(values) + rng.normal(0, 0.003, (members, origins, steps))
    deviations = np.sort(rng.normal(0, 0.01, (members, origins, steps, 5)), axis=-1)
    outcomes = Outcomes(values, targets, rows, np.ones(origins, dtype=bool))
    return medians, deviations, outcomes, np.full(origins, 0.006) * rng.uniform(0.8, 1.2, origins)


def combined(
    medians: Array,
    deviations: Array,
    outcomes: Outcomes,
    sigma: Array,
    rate: float = RATE,
    window: int = WINDOW,
) -> Combination:
    return combine(medians, deviations, outcomes, sigma, ORDINALS, rate, window)


def slow_weights(
    medians: Array, outcomes: Outcomes, sigma: Array, rate: float, window: int
) -> list[list[float]]:
    """The rule, one pair of origin and step at a time."""
    members = len(medians)
    current = [1 / members] * members
    weights: list[list[float]] = []
    for i, row in enumerate(outcomes.rows):
        if outcomes.learning[i] and ORDINALS[i] % 4 == 0:
            grid_before = [j for j in range(i) if outcomes.learning[j]]
            losses, walk, taught = [0.0] * members, 0.0, set()
            for j in grid_before[-window:]:
                for h in range(6, 12):
                    value = float(outcomes.values[j, h - 1])
                    if math.isnan(value) or outcomes.known[j, h - 1] > row:
                        continue
                    size = sigma[j] * math.sqrt(h)
                    walk += (value / size) ** 2
                    for m in range(members):
                        losses[m] += ((value - medians[m, j, h - 1]) / size) ** 2
                    taught.add(j)
            if len(taught) >= 26:
                raw = [math.exp(-rate * loss / walk) for loss in losses]
                current = [w / sum(raw) for w in raw]
        weights.append(current)
    return weights


@pytest.mark.parametrize("window", [WINDOW, 40])
@pytest.mark.parametrize("members", [1, 3, 4])
@pytest.mark.parametrize("sparse", [False, True], ids=["grid", "mixed"])
def test_weights_in_a_slow_loop(members: int, window: int, sparse: bool) -> None:
    medians, deviations, outcomes, sigma = setting(members=members, seed=members)
    delay = np.random.default_rng(9).integers(0, 9, outcomes.known.shape)
    learning = np.arange(ORIGINS) % 3 != 1 if sparse else outcomes.learning
    outcomes = replace(outcomes, known=outcomes.known + delay, learning=learning)
    found = combined(medians, deviations, outcomes, sigma, RATE, window).weights
    np.testing.assert_allclose(found, slow_weights(medians, outcomes, sigma, RATE, window), rtol=1e-10)
    if members > 1:
        assert len(np.unique(found, axis=0)) > 10
        assert found[-1, 0] > 1.3 / members  # the member that sees ahead


def test_weights_are_a_point_of_the_simplex_and_change_every_fourth_origin() -> None:
    weights = combined(*setting()).weights
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    changed = (np.diff(weights, axis=0) != 0).any(axis=1)
    assert (ORDINALS[1:][changed] % REESTIMATE_EVERY == 0).all()
    assert changed[-40:].sum() == 10  # every time that it may


def test_weights_are_equal_before_enough_outcomes_are_known() -> None:
    medians, deviations, outcomes, sigma = setting()
    weights = combined(medians, deviations, outcomes, sigma).weights
    known = [outcomes.known_by(row)[:, FIRST - 1 : LAST].any(axis=1).sum() for row in outcomes.rows]
    early = np.array(known) < MIN_KNOWN_ORIGINS
    assert 20 < early.sum() < 40
    np.testing.assert_array_equal(weights[early], 1 / 3)
    assert (weights[~early][REESTIMATE_EVERY:] != 1 / 3).any(axis=1).all()


@pytest.mark.parametrize("enough", [False, True])
def test_it_takes_twenty_six_origins_to_learn(enough: bool) -> None:
    """The outcomes of so many origins are known, and of no others."""
    medians, deviations, outcomes, sigma = setting()
    taught = MIN_KNOWN_ORIGINS - (not enough)
    values = np.full_like(outcomes.values, np.nan)
    values[:taught, 7] = 0.01
    weights = combined(medians, deviations, replace(outcomes, values=values), sigma).weights
    assert (weights[-1] != 1 / 3).any() == enough


@pytest.mark.parametrize("position", [30, 60, 119])
def test_what_becomes_known_later_changes_no_weights_before(position: int) -> None:
    medians, deviations, outcomes, sigma = setting()
    whole = combined(medians, deviations, outcomes, sigma)
    later = outcomes.known > outcomes.rows[position]
    for values in (10 * outcomes.values + 1, np.full_like(outcomes.values, np.nan)):
        changed = replace(outcomes, values=np.where(later, values, outcomes.values))
        again = combined(medians, deviations, changed, sigma)
        for name in ("weights", "medians", "deviations"):
            np.testing.assert_array_equal(
                getattr(again, name)[: position + 1], getattr(whole, name)[: position + 1]
            )
    if position < 100:
        loud = replace(outcomes, values=np.where(later, 10 * outcomes.values + 1, outcomes.values))
        assert (combined(medians, deviations, loud, sigma).weights[-1] != whole.weights[-1]).any()


def test_what_is_asked_later_changes_no_weights_before() -> None:
    """Nor does an origin alone, the last of its pass, get other weights than among those after it."""
    medians, deviations, outcomes, sigma = setting()
    whole = combined(medians, deviations, outcomes, sigma).weights
    for end in (37, 61, 100):
        cut = Outcomes(
            outcomes.values[:end], outcomes.known[:end], outcomes.rows[:end], outcomes.learning[:end]
        )
        alone = combine(
            medians[:, :end], deviations[:, :end], cut, sigma[:end], ORDINALS[:end], RATE, WINDOW
        ).weights
        np.testing.assert_array_equal(alone, whole[:end])


def test_an_outcome_that_is_known_late_is_used_late() -> None:
    medians, deviations, outcomes, sigma = setting()
    on_time = combined(medians, deviations, outcomes, sigma).weights
    never = replace(outcomes, known=np.full_like(outcomes.known, 10_000))
    np.testing.assert_array_equal(combined(medians, deviations, never, sigma).weights, 1 / 3)
    late = replace(outcomes, known=outcomes.known + 100)
    delayed = combined(medians, deviations, late, sigma).weights
    np.testing.assert_array_equal(delayed[20:], on_time[:-20])


def test_origins_off_the_grid_get_weights_and_teach_nothing() -> None:
    medians, deviations, outcomes, sigma = setting()
    learning = np.arange(ORIGINS) % 3 != 1
    mixed = replace(outcomes, learning=learning)
    weights = combined(medians, deviations, mixed, sigma, RATE, 30).weights
    on_grid = Outcomes(
        outcomes.values[learning], outcomes.known[learning], outcomes.rows[learning], learning[learning]
    )
    alone = combine(
        medians[:, learning], deviations[:, learning], on_grid, sigma[learning], ORDINALS[learning], RATE, 30
    ).weights
    np.testing.assert_array_equal(weights[learning], alone)
    np.testing.assert_array_equal(weights[~learning], weights[np.flatnonzero(~learning) - 1])
    loud = replace(mixed, values=np.where(learning[:, None], outcomes.values, 1.0))
    np.testing.assert_array_equal(combined(medians, deviations, loud, sigma, RATE, 30).weights, weights)


def test_steps_outside_those_of_the_loss_teach_nothing() -> None:
    medians, deviations, outcomes, sigma = setting()
    weights = combined(medians, deviations, outcomes, sigma).weights
    for step, same in ((FIRST - 1, True), (FIRST, False), (LAST, False), (LAST + 1, True)):
        values = outcomes.values.copy()
        values[:, step - 1] *= -3
        again = combined(medians, deviations, replace(outcomes, values=values), sigma).weights
        assert np.array_equal(again, weights) == same, step


def test_medians_are_weighted_and_spreads_are_averaged() -> None:
    medians, deviations, outcomes, sigma = setting()
    found = combined(medians, deviations, outcomes, sigma)
    for n, h in product(range(0, ORIGINS, 17), range(12)):
        expected = sum(found.weights[n, m] * medians[m, n, h] for m in range(3))
        assert found.medians[n, h] == pytest.approx(expected, rel=1e-12, abs=1e-15)
        np.testing.assert_allclose(
            found.deviations[n, h], sum(deviations[:, n, h]) / 3, rtol=1e-12, atol=1e-15
        )


def test_one_weight_vector_serves_the_whole_path() -> None:
    medians, deviations, outcomes, sigma = setting()
    whole = combined(medians, deviations, outcomes, sigma)
    cut = Outcomes(outcomes.values[:, :11], outcomes.known[:, :11], outcomes.rows, outcomes.learning)
    short = combined(medians[:, :, :11], deviations[:, :, :11], cut, sigma)
    np.testing.assert_array_equal(short.weights, whole.weights)
    np.testing.assert_allclose(short.medians, whole.medians[:, :11], rtol=1e-14, atol=1e-18)


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_neither_the_size_of_the_moves_nor_that_of_the_volatility_changes_a_weight(
    moves: float, volatility: float
) -> None:
    """Losses are in units of the random walk's: a wilder pair, or a reference twice as wide, weighs alike."""
    medians, deviations, outcomes, sigma = setting()
    weights = combined(medians, deviations, outcomes, sigma).weights
    other = replace(outcomes, values=moves * outcomes.values)
    again = combined(moves * medians, deviations, other, volatility * sigma).weights
    np.testing.assert_allclose(again, weights, rtol=1e-9)


def test_an_origin_counts_by_the_inverse_of_its_variance() -> None:
    """Where the price was wild, the same error says less."""
    medians, deviations, outcomes, _ = setting()
    medians = np.zeros_like(medians)
    values = np.full_like(outcomes.values, 0.01)
    medians[0, :60], medians[1, 60:90] = (
        0.01,
        0.01,
    )  # the first is right at twice as many origins as the second
    outcomes = replace(outcomes, values=values)
    calm = combined(medians, deviations, outcomes, np.full(ORIGINS, 0.006)).weights[-1]
    wild = combined(medians, deviations, outcomes, np.where(np.arange(ORIGINS) < 60, 0.06, 0.006)).weights[-1]
    assert calm[0] > calm[1] > calm[2]
    assert wild[1] > wild[0] > wild[2]


def test_the_rate_bends_the_combination_from_equal_weights_to_the_best_member() -> None:
    inputs = setting()
    np.testing.assert_array_equal(combined(*inputs, rate=0.0).weights, 1 / 3)
    np.testing.assert_array_equal(combined(*inputs, rate=1e12).weights[-1], [1, 0, 0])
    best = [combined(*inputs, rate=rate).weights[-1, 0] for rate in (0.0, 1.0, 5.0, 25.0)]
    assert best == sorted(best)


def test_members_that_say_the_same_weigh_the_same() -> None:
    medians, deviations, outcomes, sigma = setting()
    medians[2] = medians[0]
    weights = combined(medians, deviations, outcomes, sigma).weights
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    assert weights[-1, 0] > weights[-1, 1]


def test_weights_forget_what_lies_before_their_window() -> None:
    """Outcomes of origins before the last `window` change nothing; those inside it do."""
    medians, deviations, outcomes, sigma = setting()
    weights = combined(medians, deviations, outcomes, sigma, RATE, 50).weights
    estimated = int(np.flatnonzero(ORDINALS % REESTIMATE_EVERY == 0)[-1])
    for before, same in ((estimated - 50, True), (estimated - 49, False)):
        values = outcomes.values.copy()
        values[:before] *= -3
        again = combined(medians, deviations, replace(outcomes, values=values), sigma, RATE, 50).weights
        assert np.array_equal(again[-1], weights[-1]) == same, before
