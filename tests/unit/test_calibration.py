"""Online band factors against a slow transcription of their rule, and what they are for: coverage."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from forex_core.calibration import Outcomes, online_factors, widen
from forex_core.types import LEVELS, PATH_STEPS, Array

LOW_80, HIGH_80 = LEVELS.index(0.1), LEVELS.index(0.9)
LOW_95, HIGH_95 = LEVELS.index(0.025), LEVELS.index(0.975)
MIDDLE = LEVELS.index(0.5)


def slow_factors(medians: Array, deviations: Array, outcomes: Outcomes) -> Array:
    """Rule 4 of the design, one pair of origin and step at a time."""
    blocks = [range(1, 6), range(6, 12), range(12, 22), range(22, 65)]
    gamma = [0.05, 0.03, 0.015, 0.005]
    theta = {80: [0.0] * 4, 95: [0.0] * 4}
    issued: list[dict[int, list[float]]] = []
    taught: set[tuple[int, int]] = set()
    steps = medians.shape[1]
    factors = np.empty(deviations.shape)
    size = [abs(float(norm.ppf(level))) for level in LEVELS]
    inner, outer = size[HIGH_80], size[HIGH_95]
    for i, row in enumerate(outcomes.rows):
        if outcomes.learning[i]:
            fresh = [
                (j, h)
                for j in range(i)
                for h in range(1, steps + 1)
                if outcomes.learning[j]
                and not math.isnan(outcomes.values[j, h - 1])
                and outcomes.known[j, h - 1] <= row
                and (j, h) not in taught
            ]
            taught.update(fresh)
            if fresh:
                for band, low, high, nominal, speed in (
                    (80, LOW_80, HIGH_80, 0.20, 1.0),
                    (95, LOW_95, HIGH_95, 0.05, 2.5),
                ):
                    for b, block in enumerate(blocks):
                        misses = []
                        for j, h in fresh:
                            if h in block:
                                error = outcomes.values[j, h - 1] - medians[j, h - 1]
                                width = math.exp(issued[j][band][b])
                                below = error < deviations[j, h - 1, low] * width
                                above = error > deviations[j, h - 1, high] * width
                                misses.append(below or above)
                        if misses:
                            theta[band][b] += speed * gamma[b] * (sum(misses) / len(misses) - nominal)
                    for b in (1, 2, 3):
                        theta[band][b] += 0.05 * (theta[band][b - 1] - theta[band][b])
                    theta[band] = [min(max(t, math.log(0.8)), math.log(1.6)) for t in theta[band]]
        issued.append({band: list(values) for band, values in theta.items()})
        for h in range(1, steps + 1):
            b = next(k for k, block in enumerate(blocks) if h in block)
            for q, z in enumerate(size):
                share = min(max((z - inner) / (outer - inner), 0.0), 1.0)
                factors[i, h - 1, q] = math.exp((1 - share) * theta[80][b] + share * theta[95][b])
    return factors


def simulate(
    origins: int,
    steps: int,
    *,
    too_narrow: float = 1.0,
    seed: int = 0,
    every: int = 5,
    extra: int = 0,
    late: bool = False,
) -> tuple[Array, Array, Outcomes]:
    """Medians, deviations and outcomes of overlapping paths of one random walk.

    Bands are `too_narrow` times as wide as they should be. `extra` origins between the grid's teach nothing;
    `late` leaves holes in the truth and has a few closes known some rows after their day.
    """
    rng = np.random.default_rng(seed)
    sigma, total = 0.006, origins * every + steps + 1
    log_price = np.cumsum(rng.normal(0, sigma, total))
    grid = np.arange(origins) * every
    rows = np.union1d(grid, rng.choice(origins * every, extra, replace=False)) if extra else grid
    targets = rows[:, None] + np.arange(1, steps + 1)
    values, known = log_price[targets] - log_price[rows][:, None], targets.copy()
    if late:
        hole = rng.random(total) < 0.05
        delay = np.where(rng.random(total) < 0.05, rng.integers(1, 9, total), 0)
        values[hole[targets]] = np.nan
        known += delay[targets]
    spread = too_narrow * sigma * np.sqrt(np.arange(1, steps + 1))
    deviations = np.tile(spread[:, None] * norm.ppf(LEVELS), (len(rows), 1, 1))
    medians = rng.normal(0, 0.001, values.shape)
    return medians, deviations, Outcomes(values, known, rows, np.isin(rows, grid))


@pytest.mark.parametrize(
    ("steps", "extra", "late"), [(5, 0, False), (11, 30, True), (PATH_STEPS, 12, True)], ids=str
)
def test_the_rule_in_a_slow_loop(steps: int, extra: int, late: bool) -> None:
    medians, deviations, outcomes = simulate(60, steps, too_narrow=0.7, seed=2, extra=extra, late=late)
    fast = online_factors(medians, deviations, outcomes, LEVELS)
    np.testing.assert_allclose(fast, slow_factors(medians, deviations, outcomes), rtol=1e-12)
    assert fast.max() > 1.1


def test_the_rule_keeps_to_its_range() -> None:
    for width, bound in ((0.2, 1.6), (6.0, 0.8)):
        medians, deviations, outcomes = simulate(150, 5, too_narrow=width, seed=3)
        factors = online_factors(medians, deviations, outcomes, LEVELS)
        np.testing.assert_allclose(factors[-1], bound, rtol=1e-12)
        np.testing.assert_allclose(factors, slow_factors(medians, deviations, outcomes), rtol=1e-12)


def test_nothing_is_changed_before_anything_is_known() -> None:
    medians, deviations, outcomes = simulate(3, 11, too_narrow=0.2)
    factors = online_factors(medians, deviations, outcomes, LEVELS)
    assert (factors[0] == 1).all()
    assert (factors[1] > 1).any()  # five steps are known by then, and they missed


def test_levels_between_the_two_bands_are_interpolated_in_z() -> None:
    medians, deviations, outcomes = simulate(300, 5, too_narrow=0.7, seed=5)
    last = online_factors(medians, deviations, outcomes, LEVELS)[-1, 0]
    inner, outer = last[HIGH_80], last[HIGH_95]
    assert inner != pytest.approx(outer, rel=1e-3)
    assert last[LEVELS.index(0.75)] == last[MIDDLE] == pytest.approx(inner)
    assert last[LEVELS.index(0.99)] == pytest.approx(outer)
    share = (norm.ppf(0.95) - norm.ppf(0.9)) / (norm.ppf(0.975) - norm.ppf(0.9))
    assert last[LEVELS.index(0.95)] == pytest.approx(inner ** (1 - share) * outer**share)
    np.testing.assert_allclose(last, last[::-1], rtol=1e-12)


def test_an_outcome_counts_once_and_when_it_becomes_known() -> None:
    """One origin whose only outcome misses both bands, known at the third of five origins."""
    count = 5
    values = np.full((count, 1), np.nan)
    values[0, 0] = 1.0
    known = np.full((count, 1), 99)
    known[0, 0] = 12
    outcomes = Outcomes(values, known, np.arange(count) * 5, np.ones(count, dtype=bool))
    deviations = np.tile(0.01 * norm.ppf(LEVELS), (count, 1, 1))
    factors = online_factors(np.zeros((count, 1)), deviations, outcomes, LEVELS)[:, 0]
    inner, outer = math.exp(0.05 * 0.8), math.exp(2.5 * 0.05 * 0.95)
    assert (factors[:3] == 1).all()
    np.testing.assert_allclose(factors[3:, HIGH_80], inner)
    np.testing.assert_allclose(factors[3:, HIGH_95], outer)


def test_a_band_is_judged_as_it_was_issued() -> None:
    """Two origins, both missed at 1.02 times the raw band: the second was issued a wider one, and is held to that."""
    count = 8
    deviations = np.tile(0.01 * norm.ppf(LEVELS), (count, 1, 1))
    edge = 1.02 * deviations[0, 0, HIGH_80]
    values = np.full((count, 1), np.nan)
    values[[0, 4], 0] = edge
    known = np.full((count, 1), 99)
    known[0, 0], known[4, 0] = 12, 33
    outcomes = Outcomes(values, known, np.arange(count) * 5, np.ones(count, dtype=bool))
    factors = online_factors(np.zeros((count, 1)), deviations, outcomes, LEVELS)[:, 0, HIGH_80]
    assert factors[4] == pytest.approx(math.exp(0.04))  # wider than 1.02
    assert factors[7] == pytest.approx(math.exp(0.04 - 0.01))  # so the second is a hit: γ (0 − .20)


def test_origins_off_the_grid_get_factors_and_teach_nothing() -> None:
    medians, deviations, outcomes = simulate(80, 11, too_narrow=0.7, seed=4, extra=60)
    on_grid = outcomes.learning
    assert not on_grid.all()
    factors = online_factors(medians, deviations, outcomes, LEVELS)
    alone = online_factors(
        medians[on_grid],
        deviations[on_grid],
        Outcomes(outcomes.values[on_grid], outcomes.known[on_grid], outcomes.rows[on_grid], on_grid[on_grid]),
        LEVELS,
    )
    np.testing.assert_array_equal(factors[on_grid], alone)
    before = np.maximum.accumulate(np.where(on_grid, np.arange(len(on_grid)), 0))
    np.testing.assert_array_equal(factors, factors[before])  # each takes those of the grid origin before it


@pytest.mark.parametrize("position", [10, 40, 79])
def test_what_becomes_known_later_changes_nothing_before(position: int) -> None:
    medians, deviations, outcomes = simulate(80, 21, too_narrow=0.7, seed=6, late=True)
    factors = online_factors(medians, deviations, outcomes, LEVELS)
    later = outcomes.known > outcomes.rows[position]
    loud = replace(outcomes, values=np.where(later, 10 * outcomes.values + 1, outcomes.values))
    gone = replace(outcomes, values=np.where(later, np.nan, outcomes.values))
    for changed in (loud, gone):
        again = online_factors(medians, deviations, changed, LEVELS)
        np.testing.assert_array_equal(again[: position + 1], factors[: position + 1])
    if position < 79:
        assert (online_factors(medians, deviations, loud, LEVELS)[-1] != factors[-1]).any()


@pytest.mark.parametrize("too_narrow", [0.7, 1.0, 1.2])
def test_coverage_settles_at_what_it_should_be(too_narrow: float) -> None:
    medians, deviations, outcomes = simulate(3000, 11, too_narrow=too_narrow, seed=1)
    error = outcomes.values - medians
    widened = widen(deviations, online_factors(medians, deviations, outcomes, LEVELS))

    def coverage(bands: Array, low: int, high: int) -> float:
        inside = (error >= bands[..., low]) & (error <= bands[..., high])
        return float(inside[1000:].mean())

    assert coverage(widened, LOW_80, HIGH_80) == pytest.approx(0.80, abs=0.015)
    assert coverage(widened, LOW_95, HIGH_95) == pytest.approx(0.95, abs=0.01)
    if too_narrow != 1:
        assert abs(coverage(deviations, LOW_80, HIGH_80) - 0.80) > 0.05
        wider = widened[1000:, :, HIGH_80] / deviations[1000:, :, HIGH_80]
        assert (wider.mean() > 1) == (too_narrow < 1)


def test_widened_levels_do_not_cross() -> None:
    deviations = 0.01 * norm.ppf(LEVELS)
    factors = np.where(np.abs(norm.ppf(LEVELS)) > 1.5, 0.8, 1.6)
    assert (np.diff(deviations * factors) < 0).any()
    assert (np.diff(widen(deviations, factors)) >= 0).all()
