"""Online band factors against a slow transcription of their rule, and what they are for: coverage."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from forex_core import calibration
from forex_core.calibration import Outcomes, online_factors, widen
from forex_core.types import LEVELS, PATH_STEPS, Array

LOW_80, HIGH_80 = LEVELS.index(0.1), LEVELS.index(0.9)
LOW_95, HIGH_95 = LEVELS.index(0.025), LEVELS.index(0.975)
MIDDLE = LEVELS.index(0.5)


def slow_factors(medians: Array, deviations: Array, outcomes: Outcomes) -> Array:
    """The rule, one pair of origin and step at a time."""
    blocks = [range(1, 6), range(6, 12), range(12, 22), range(22, 65)]
    gamma = [0.1, 0.06, 0.03, 0.01]
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
                            excess = speed * (sum(misses) / len(misses) - nominal)
                            theta[band][b] += gamma[b] * (excess - 0.1 * theta[band][b])
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
    inner, outer = math.exp(0.1 * 0.8), math.exp(2.5 * 0.1 * 0.95)
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
    assert factors[4] == pytest.approx(math.exp(0.08))  # wider than 1.02
    assert factors[7] == pytest.approx(
        math.exp(0.99 * 0.08 - 0.02)
    )  # so the second is a hit: γ (0 − .20 − .1 θ)


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


def settled_coverage(too_narrow: float) -> tuple[float, float, float]:
    """Of the 80 % and the 95 % band after long learning, and the mean factor of the first."""
    medians, deviations, outcomes = simulate(3000, 11, too_narrow=too_narrow, seed=1)
    error = outcomes.values - medians
    widened = widen(deviations, online_factors(medians, deviations, outcomes, LEVELS))

    def coverage(low: int, high: int) -> float:
        inside = (error >= widened[..., low]) & (error <= widened[..., high])
        return float(inside[1000:].mean())

    wider = widened[1000:, :, HIGH_80] / deviations[1000:, :, HIGH_80]
    return coverage(LOW_80, HIGH_80), coverage(LOW_95, HIGH_95), float(wider.mean())


@pytest.mark.parametrize("too_narrow", [0.9, 1.0, 1.1])
def test_coverage_settles_near_what_it_should_be(too_narrow: float) -> None:
    inner, outer, _ = settled_coverage(too_narrow)
    assert inner == pytest.approx(0.80, abs=0.02)
    assert outer == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize(("too_narrow", "raw"), [(0.7, 0.63), (1.15, 0.86)])
def test_most_of_a_lasting_error_is_made_good(too_narrow: float, raw: float) -> None:
    """What is given up at each update leaves a part of it, below a third: the price of not following chance runs."""
    inner, _, wider = settled_coverage(too_narrow)
    assert abs(inner - 0.80) < 0.3 * abs(raw - 0.80)
    assert (wider - 1) / (1 / too_narrow - 1) > 0.7


def test_without_giving_up_coverage_settles_where_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "LEAK", 0.0)
    inner, outer, wider = settled_coverage(0.7)
    assert inner == pytest.approx(0.80, abs=0.01)
    assert outer == pytest.approx(0.95, abs=0.01)
    assert wider == pytest.approx(1 / 0.7, rel=0.04)


def many_models(count: int, late: bool = True) -> tuple[Array, Array, Outcomes]:
    """[count, N, H] medians and [count, N, H, Q] deviations of models of their own width and error."""
    medians, deviations, outcomes = simulate(70, PATH_STEPS, seed=8, extra=15, late=late)
    rng = np.random.default_rng(8)
    shifted = medians + rng.normal(0, 0.002, (count, *medians.shape))
    widths = rng.uniform(0.5, 1.5, (count, len(outcomes.rows), 1, 1))
    return shifted, widths * deviations, outcomes


def test_many_models_at_once_get_the_bits_that_each_gets_alone() -> None:
    medians, deviations, outcomes = many_models(6)
    together = online_factors(medians, deviations, outcomes, LEVELS)
    assert together.shape == deviations.shape
    assert len({factors.tobytes() for factors in together}) == 6
    for model in range(6):
        alone = online_factors(medians[model], deviations[model], outcomes, LEVELS)
        np.testing.assert_array_equal(together[model], alone)
        one = slice(model, model + 1)
        kept = online_factors(medians[one], deviations[one], outcomes, LEVELS)
        np.testing.assert_array_equal(kept[0], alone)
    np.testing.assert_allclose(together[2], slow_factors(medians[2], deviations[2], outcomes), rtol=1e-12)


def test_models_may_lie_along_several_axes() -> None:
    medians, deviations, outcomes = many_models(6)
    flat = online_factors(medians, deviations, outcomes, LEVELS)
    shape = outcomes.values.shape
    square = online_factors(
        medians.reshape(2, 3, *shape), deviations.reshape(2, 3, *shape, len(LEVELS)), outcomes, LEVELS
    )
    np.testing.assert_array_equal(square.reshape(flat.shape), flat)
    np.testing.assert_array_equal(widen(deviations, flat)[4], widen(deviations[4], flat[4]))


def test_what_is_known_by_a_row_in_a_slow_loop() -> None:
    _, _, outcomes = simulate(30, 11, seed=3, extra=12, late=True)
    for row in (0, 40, 87, 200):
        for first in (0, 1, 17, len(outcomes.rows)):
            found = outcomes.known_by(row, first)
            assert found.shape == (len(outcomes.rows) - first, 11)
            for i in range(first, len(outcomes.rows)):
                for h in range(11):
                    known = bool(
                        outcomes.learning[i]
                        and outcomes.known[i, h] <= row
                        and not math.isnan(outcomes.values[i, h])
                    )
                    assert found[i - first, h] == known
    np.testing.assert_array_equal(outcomes.known_by(87), outcomes.known_by(87, 0))


def test_arrivals_in_a_slow_loop() -> None:
    """An observed outcome of a grid origin arrives once: at the first grid origin that knows it, or after the last."""
    _, _, outcomes = simulate(30, 11, seed=3, extra=12, late=True)
    origins, steps, bounds = outcomes.arrivals
    assert len(bounds) == len(outcomes.rows) + 1
    arrived: set[tuple[int, int]] = set()
    for i, row in enumerate(outcomes.rows):
        fresh = slice(bounds[i], bounds[i + 1])
        found = set(zip(origins[fresh].tolist(), steps[fresh].tolist(), strict=True))
        expected = {
            (j, h)
            for j, h in zip(*np.nonzero(outcomes.known_by(int(row))), strict=True)
            if outcomes.learning[i] and (j, h) not in arrived
        }
        assert found == expected
        assert len(found) == bounds[i + 1] - bounds[i]
        arrived |= found
    observed = ~np.isnan(outcomes.values) & outcomes.learning[:, None]
    assert len(origins) == len(steps) == observed.sum() > len(arrived)
    assert (np.diff(outcomes.known[origins, steps]) >= 0).all()


def test_widened_levels_do_not_cross() -> None:
    deviations = 0.01 * norm.ppf(LEVELS)
    factors = np.where(np.abs(norm.ppf(LEVELS)) > 1.5, 0.8, 1.6)
    assert (np.diff(deviations * factors) < 0).any()
    assert (np.diff(widen(deviations, factors)) >= 0).all()
