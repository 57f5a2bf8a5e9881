"""Scores and tests against slow loops, closed forms, peers and figures worked out by hand."""

from __future__ import annotations

import math
from dataclasses import fields
from datetime import date
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, norm, ttest_1samp
from scipy.stats import t as student_t
from sklearn import metrics
from statsmodels.stats.multitest import multipletests
from statsmodels.tsa.stattools import diebold_mariano_test

from forex_core.evaluation import (
    Judged,
    crps,
    crps_weights,
    diebold_mariano,
    equal_weighted_cosine,
    holm,
    judge_skill,
    score,
)
from forex_core.models.random_walk import RandomWalk, reference_sigma
from forex_core.testing import bundle_of
from forex_core.types import HORIZONS, LEVELS, Array, Horizon

MIDDLE = LEVELS.index(0.5)


def pinball(alpha: float, truth: float, quantile: float) -> float:
    return alpha * (truth - quantile) if truth >= quantile else (1 - alpha) * (quantile - truth)


def judged(seed: int = 0, origins: int = 40, steps: int = 6, holes: float = 0.1) -> tuple[Judged, Judged]:
    """A model and a random walk with quantiles of their own, on truths with holes."""
    rng = np.random.default_rng(seed)
    spot = 700 * np.exp(rng.normal(0, 0.1, origins))
    spread = 0.006 * np.sqrt(np.arange(1, steps + 1))
    moves = np.cumsum(rng.normal(0, 0.006, (origins, steps)), axis=1)
    truth = spot[:, None] * np.exp(moves)
    truth[rng.random(truth.shape) < holes] = np.nan
    z = norm.ppf(LEVELS)
    walk = spot[:, None, None] * np.exp(np.tile(spread[:, None] * z, (origins, 1, 1)))
    centre = 0.3 * moves + rng.normal(0, 0.002, moves.shape)
    model = spot[:, None, None] * np.exp(centre[:, :, None] + 0.8 * spread[:, None] * z)
    return Judged(model, truth, spot, LEVELS), Judged(walk, truth, spot, LEVELS)


def test_crps_against_a_double_loop() -> None:
    model, _ = judged(holes=0)
    fast = crps(model.quantiles, model.truth, LEVELS)
    edges = [0.0, *LEVELS, 1.0]
    for n in range(model.truth.shape[0]):
        for h in range(model.truth.shape[1]):
            slow = 0.0
            for q, alpha in enumerate(LEVELS):
                weight = (edges[q + 2] - edges[q]) / 2
                slow += 2 * weight * pinball(alpha, model.truth[n, h], model.quantiles[n, h, q])
            assert fast[n, h] == pytest.approx(slow, rel=1e-12)


def test_the_parts_of_the_crps_are_those_of_scikit_learn() -> None:
    model, _ = judged(holes=0)
    truth = model.truth.ravel()
    by_level = [
        metrics.mean_pinball_loss(truth, model.quantiles[..., q].ravel(), alpha=alpha)
        for q, alpha in enumerate(LEVELS)
    ]
    expected = 2 * float(np.dot(crps_weights(LEVELS), by_level))
    assert crps(model.quantiles, model.truth, LEVELS).mean() == pytest.approx(expected, rel=1e-12)


def test_weights_of_the_levels() -> None:
    weights = crps_weights(LEVELS)
    assert weights[0] == pytest.approx(0.0125)  # (.025 - 0) / 2
    assert weights[2] == pytest.approx(0.0375)  # (.10 - .025) / 2
    assert weights[MIDDLE] == pytest.approx(0.05)
    np.testing.assert_allclose(weights, weights[::-1])


@pytest.mark.parametrize("truth", [-2.5, -0.3, 0.0, 1.1, 3.0])
def test_crps_of_a_normal_in_closed_form(truth: float) -> None:
    mean, sigma, count = 0.4, 1.7, 4000
    levels = (np.arange(count) + 0.5) / count
    z = (truth - mean) / sigma
    closed = sigma * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / math.sqrt(math.pi))
    ours = crps(norm.ppf(levels, mean, sigma), np.array(truth), levels.tolist())
    assert float(ours) == pytest.approx(closed, abs=1e-3 * sigma)


def test_crps_of_a_point_is_its_absolute_error() -> None:
    levels = [0.25, 0.5, 0.75]
    # Not exactly: the weights of three levels sum to .75, and twice .75 times a half of the error is .75 of it.
    assert crps(np.full(3, 10.0), np.array(14.0), levels) == pytest.approx(0.75 * 4)
    many = ((np.arange(5000) + 0.5) / 5000).tolist()
    assert crps(np.full(5000, 10.0), np.array(14.0), many) == pytest.approx(4, rel=1e-3)


def test_the_reference_random_walk_worked_out_in_plain_python() -> None:
    prices = [700 + 9 * math.sin(0.7 * t) + 5 * math.cos(1.9 * t) + 0.31 * t for t in range(70)]
    returns = [math.log(prices[t] / prices[t - 1]) for t in range(1, 70)]  # returns[t - 1] is r_t
    first = returns[:60]
    mean = sum(first) / 60
    variance = sum((r - mean) ** 2 for r in first) / 60
    for t in range(61, 65):
        variance = 0.985 * variance + 0.015 * returns[t - 1] ** 2
    edges = [0.0, *LEVELS, 1.0]
    total = 0.0
    for h in range(1, 6):
        for q, alpha in enumerate(LEVELS):
            quantile = prices[64] * math.exp(NormalDist().inv_cdf(alpha) * math.sqrt(variance) * math.sqrt(h))
            total += 2 * (edges[q + 2] - edges[q]) / 2 * pinball(alpha, prices[64 + h], quantile)
    by_hand = total / 5

    days = pd.bdate_range("2024-01-01", periods=70).strftime("%Y-%m-%d")
    bundle = bundle_of(pd.DataFrame({"Date": days, "USDCLP": prices}))
    answers = RandomWalk().forecast(bundle, bundle.instants[[64]], 5, LEVELS)
    walk = Judged(answers.quantiles, bundle.truth[65:70][None], bundle.spot[[64]], LEVELS)
    scores = score(walk, walk, 5, is_walk=True)
    assert reference_sigma(bundle)[64] == pytest.approx(math.sqrt(variance), rel=1e-12)
    assert scores.crps == pytest.approx(by_hand, rel=1e-12)
    assert scores.crps == pytest.approx(4.421670950024988, rel=1e-12)


def test_the_reference_volatility_needs_sixty_returns() -> None:
    days = pd.bdate_range("2024-01-01", periods=70).strftime("%Y-%m-%d")
    prices = [700 + math.sin(t) for t in range(70)]
    sigma = reference_sigma(bundle_of(pd.DataFrame({"Date": days, "USDCLP": prices})))
    assert np.isnan(sigma[:60]).all()
    assert np.isfinite(sigma[60:]).all()
    first = np.diff(np.log(prices[:61]))
    assert sigma[60] == pytest.approx(np.std(first), rel=1e-12)


@pytest.mark.parametrize("holes", [0.0, 0.15])
def test_scores_against_a_slow_loop(holes: float) -> None:
    model, walk = judged(seed=4, holes=holes)
    scores = score(model, walk, 5, weight_mean=0.25, failed_origins=3)
    errors, walk_errors, shares, insides = [], [], [], {0.8: [], 0.95: []}
    origins, steps = model.truth.shape
    lower = {0.8: LEVELS.index(0.1), 0.95: LEVELS.index(0.025)}
    upper = {0.8: LEVELS.index(0.9), 0.95: LEVELS.index(0.975)}
    last_inside: dict[float, list[bool]] = {0.8: [], 0.95: []}
    right = []
    by_step: dict[int, list[float]] = {h: [] for h in range(steps)}
    inside_by_step: dict[tuple[float, int], list[bool]] = {(c, h): [] for c in lower for h in range(steps)}
    for n in range(origins):
        for h in range(steps):
            y = model.truth[n, h]
            if math.isnan(y):
                continue
            error = y - model.quantiles[n, h, MIDDLE]
            errors.append(error)
            by_step[h].append(error)
            walk_errors.append(y - walk.quantiles[n, h, MIDDLE])
            shares.append(abs(error) / y)
            for c in lower:
                inside = model.quantiles[n, h, lower[c]] <= y <= model.quantiles[n, h, upper[c]]
                insides[c].append(inside)
                inside_by_step[c, h].append(inside)
                if h == steps - 1:
                    last_inside[c].append(inside)
        if not math.isnan(model.truth[n, -1]):
            said_up = model.quantiles[n, -1, MIDDLE] > model.spot[n]
            right.append(said_up == (model.truth[n, -1] > model.spot[n]))

    def mean(values: list[float] | list[bool]) -> float:
        return sum(values) / len(values)

    rmse = math.sqrt(mean([e * e for e in errors]))
    assert scores.rmse == pytest.approx(rmse)
    assert scores.mae == pytest.approx(mean([abs(e) for e in errors]))
    assert scores.mape_pct == pytest.approx(100 * mean(shares))
    assert scores.rmse_ratio_rw == pytest.approx(rmse / math.sqrt(mean([e * e for e in walk_errors])))
    assert scores.coverage_80 == pytest.approx(mean(insides[0.8]))
    assert scores.coverage_95 == pytest.approx(mean(insides[0.95]))
    assert scores.coverage_80_last == pytest.approx(mean(last_inside[0.8]))
    assert scores.coverage_95_last == pytest.approx(mean(last_inside[0.95]))
    assert scores.directional_accuracy == pytest.approx(mean(right))
    assert 0 < scores.coverage_80 < scores.coverage_95 < 1
    np.testing.assert_allclose(
        scores.rmse_by_step, [math.sqrt(mean([e * e for e in by_step[h]])) for h in range(steps)]
    )
    for c, found in ((0.8, scores.coverage_80_by_step), (0.95, scores.coverage_95_by_step)):
        np.testing.assert_allclose(found, [mean(inside_by_step[c, h]) for h in range(steps)])
    assert (scores.weight_mean, scores.failed_origins) == (0.25, 3)

    seen = ~np.isnan(model.truth)
    truth, median = model.truth[seen], model.median[seen]
    assert scores.rmse == pytest.approx(metrics.root_mean_squared_error(truth, median))
    assert scores.mae == pytest.approx(metrics.mean_absolute_error(truth, median))
    assert scores.mape_pct == pytest.approx(100 * metrics.mean_absolute_percentage_error(truth, median))
    ratio = crps(model.quantiles, model.truth, LEVELS)[seen].mean()
    assert scores.crps == pytest.approx(ratio)
    assert scores.crps_ratio_rw == pytest.approx(
        ratio / crps(walk.quantiles, walk.truth, LEVELS)[seen].mean()
    )


def test_a_last_move_of_nothing_counts_for_no_direction() -> None:
    medians = np.array([101.0, 101.0, 100.0, 99.0])  # up; up; it says nothing; down
    truth = np.array([[102.0], [100.0], [105.0], [103.0]])  # up; no move; up; up
    quantiles = (medians[:, None] + np.array([-3.0, -2.0, 0.0, 2.0, 3.0]))[:, None, :]
    model = Judged(quantiles, truth, np.full(4, 100.0), (0.025, 0.1, 0.5, 0.9, 0.975))
    assert score(model, model, 5).directional_accuracy == 0.5


def test_the_loss_difference_of_a_path_is_scaled_by_the_origin() -> None:
    model, walk = judged(seed=7, origins=60, holes=0.1)
    d = []
    for n in range(60):
        parts = [
            ((model.truth[n, h] - walk.median[n, h]) / model.spot[n]) ** 2
            - ((model.truth[n, h] - model.median[n, h]) / model.spot[n]) ** 2
            for h in range(6)
            if not math.isnan(model.truth[n, h])
        ]
        d.append(sum(parts) / len(parts))
    scores = score(model, walk, 5)
    expected = equal_weighted_cosine(np.array(d), 6, 5)
    classical = diebold_mariano(np.array(d), 2)  # six steps ahead, five apart: neighbours overlap
    assert classical is not None
    assert scores.dm_stat == pytest.approx(expected.stat)
    assert scores.dm_pvalue == pytest.approx(expected.pvalue)
    assert scores.hln_stat == pytest.approx(classical.stat)
    assert scores.hln_pvalue == pytest.approx(classical.pvalue)
    assert expected.stat > 2  # the model knows a third of the move


def test_against_the_next_close_in_a_slow_loop() -> None:
    model, walk = judged(seed=9, origins=60, holes=0.1)
    ours, still, d = [], [], []
    for n in range(60):
        parts = []
        for h in range(1, 6):
            move = model.truth[n, h] - model.truth[n, 0]
            if math.isnan(move):
                continue
            left = move - (model.median[n, h] - model.median[n, 0])
            ours.append(left**2)
            still.append(move**2)
            parts.append((move**2 - left**2) / model.spot[n] ** 2)
        if parts:
            d.append(sum(parts) / len(parts))
    scores = score(model, walk, 5)
    assert scores.rmse_ratio_next_close == pytest.approx(math.sqrt(sum(ours) / sum(still)))
    assert scores.p_next_close == pytest.approx(equal_weighted_cosine(np.array(d), 6, 5).pvalue)


def test_knowing_only_the_next_close_is_no_skill_from_it() -> None:
    _, walk = judged(seed=2, origins=80, holes=0)
    catches_up = walk.quantiles * (walk.truth[:, :1] / walk.spot[:, None])[:, :, None]
    scores = score(Judged(catches_up, walk.truth, walk.spot, LEVELS), walk, 5)
    assert scores.dm_pvalue is not None
    assert scores.dm_pvalue < 0.01
    assert scores.rmse_ratio_rw < 0.95
    assert scores.rmse_ratio_next_close == pytest.approx(1.0, abs=1e-9)
    assert scores.p_next_close is not None
    assert scores.p_next_close > 0.05


def test_one_step_has_nothing_after_the_next_close() -> None:
    model, walk = judged(steps=1, holes=0)
    scores = score(model, walk, 5)
    assert (scores.rmse_ratio_next_close, scores.p_next_close) == (None, None)


def test_the_random_walk_against_itself() -> None:
    _, walk = judged(seed=11)
    scores = score(walk, walk, 5, is_walk=True)
    assert (scores.rmse_ratio_rw, scores.crps_ratio_rw) == (1.0, 1.0)
    absent = {f.name for f in fields(scores) if getattr(scores, f.name) is None}
    assert absent == {
        "directional_accuracy",
        "dm_stat",
        "dm_pvalue",
        "hln_stat",
        "hln_pvalue",
        "rmse_ratio_next_close",
        "p_next_close",
        "weight_mean",
    }


def slow_cosine(d: Array, steps: int, every: int) -> tuple[float, float]:
    n = len(d)
    nu = max(4, math.floor(min(0.4 * n ** (2 / 3), n * every / (2 * steps))))
    omega = 0.0
    for j in range(1, nu + 1):
        total = 0.0
        for t in range(1, n + 1):
            total += d[t - 1] * math.cos(math.pi * j * (t - 0.5) / n)
        omega += (math.sqrt(2 / n) * total) ** 2 / nu
    stat = (sum(d) / n) / math.sqrt(omega / n)
    return stat, float(student_t.sf(stat, nu))


@pytest.mark.parametrize(
    ("n", "steps", "every"), [(260, 5, 5), (260, 64, 5), (208, 21, 5), (30, 64, 5), (90, 11, 3)]
)
def test_the_cosine_test_as_it_is_written(n: int, steps: int, every: int) -> None:
    d = np.random.default_rng(n).normal(0.1, 1, n)
    stat, pvalue = slow_cosine(d, steps, every)
    found = equal_weighted_cosine(d, steps, every)
    assert found.stat == pytest.approx(stat, rel=1e-10)
    assert found.pvalue == pytest.approx(pvalue, rel=1e-9)


def test_the_cosine_test_without_evidence() -> None:
    assert equal_weighted_cosine(np.ones(9), 5).pvalue == 1.0
    assert equal_weighted_cosine(np.zeros(50), 5).pvalue == 1.0


@pytest.mark.parametrize("steps", [5, 21, 64])
def test_the_size_of_the_cosine_test(steps: int) -> None:
    noise = np.random.default_rng(2026).normal(0, 1, (400, 260))
    rejected = sum(equal_weighted_cosine(d, steps).pvalue < 0.05 for d in noise)
    low, high = binom.ppf([0.001, 0.999], 400, 0.05)
    assert low <= rejected <= high


def test_the_cosine_test_holds_where_paths_overlap() -> None:
    """Differences of 64-step paths five days apart share up to 12 neighbours; the plain t-test then fails."""
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 1, (400, 260 + 12))
    d = np.stack([np.convolve(row, np.ones(13) / 13, "valid") for row in noise])
    ours = np.mean([equal_weighted_cosine(row, 64).pvalue < 0.05 for row in d])
    plain = np.mean(ttest_1samp(d, 0, axis=1, alternative="greater").pvalue < 0.05)
    assert ours < 0.10
    assert plain > 0.25


def slow_diebold_mariano(d: Array, h: int) -> tuple[float, float]:
    """Harvey, Leybourne and Newbold (1997), equations 3, 5 and 9, with h - 1 autocovariances."""
    n = len(d)
    mean = sum(d) / n
    gamma = [sum((d[t] - mean) * (d[t - k] - mean) for t in range(k, n)) / n for k in range(h)]
    variance = (gamma[0] + 2 * sum(gamma[1:])) / n
    stat = math.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n) * mean / math.sqrt(variance)
    return stat, float(student_t.sf(stat, n - 1))


@pytest.mark.parametrize("lags", [1, 2, 5, 13])
def test_diebold_mariano_as_it_is_written(lags: int) -> None:
    noise = np.random.default_rng(3).normal(0.1, 1, 212)
    d = np.convolve(noise, np.ones(lags), "valid")
    found = diebold_mariano(d, lags)
    assert found is not None
    assert (found.stat, found.pvalue) == pytest.approx(slow_diebold_mariano(d, lags), rel=1e-9)


def test_diebold_mariano_one_step_ahead_is_the_t_test_and_that_of_statsmodels() -> None:
    rng = np.random.default_rng(8)
    truth, good, bad = rng.normal(0, 1, (3, 75))
    d = (truth - bad) ** 2 - (truth - 0.5 * good) ** 2
    found = diebold_mariano(d, 1)
    assert found is not None
    peer = ttest_1samp(d, 0, alternative="greater")
    assert (found.stat, found.pvalue) == pytest.approx((peer.statistic, peer.pvalue))
    theirs = diebold_mariano_test(truth, bad, 0.5 * good, lags=0, harvey_adj=True, horizon=1)
    assert found.stat == pytest.approx(float(theirs.statistic))
    assert 2 * min(found.pvalue, 1 - found.pvalue) == pytest.approx(float(theirs.pvalue))


def test_diebold_mariano_without_a_positive_variance() -> None:
    assert diebold_mariano(np.array([1.0, -1.0] * 20), 2) is None  # γ0 + 2 γ1 < 0
    assert diebold_mariano(np.array([1.0, 2.0, 3.0]), 2) is None  # too short


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and none below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]


def test_holm_is_that_of_statsmodels() -> None:
    for pvalues in np.random.default_rng(1).beta(0.5, 2, (5, 4)):  # each call of theirs looks for garbage
        np.testing.assert_allclose(holm(pvalues.tolist()), multipletests(pvalues, method="holm")[1])


def verdict_on(close: float, following: float, others: float = 0.9) -> tuple[str, str, float, float]:
    pvalues = dict.fromkeys(HORIZONS, (others, others)) | {Horizon(30): (close, following)}
    found = judge_skill(pvalues, Horizon(30), date(2024, 5, 31), 200)
    assert (found.decided_on, found.origins) == (date(2024, 5, 31), 200)
    return found.kind, found.sentence, found.p_close, found.p_next_close


def test_three_kinds_of_verdict() -> None:
    kind, sentence, close, following = verdict_on(0.001, 0.002)
    assert kind == "usable"
    assert "Usable skill at 30d" in sentence
    assert (close, following) == pytest.approx((0.004, 0.008))

    kind, sentence, _, following = verdict_on(0.001, 0.02)
    assert kind == "close_only"  # .02 alone would do; as the best of four looks it is .08
    assert following == pytest.approx(0.08)
    assert "expect no directional edge; use the band" in sentence
    assert "usable" not in sentence.lower()

    kind, sentence, close, _ = verdict_on(0.02, 0.9)
    assert kind == "none"
    assert close == pytest.approx(0.08)
    assert "expect no directional edge; use the band" in sentence
    assert "usable" not in sentence.lower()


def test_the_correction_is_over_all_horizons() -> None:
    assert verdict_on(0.02, 0.02, others=0.001)[0] == "usable"  # the largest of four stands as it is
    assert verdict_on(0.02, 0.02, others=0.9)[0] == "none"
