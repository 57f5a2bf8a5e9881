"""Joint sample paths: the published marginals, the rank order of the past, nothing of what came later."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata, spearmanr

from forex_core.briefing.sample_paths import MAX_PATHS, MIN_PATHS, quantile_function, sample_paths
from forex_core.errors import ForecastError
from forex_core.types import LEVELS, Forecast, Horizon
from tests.unit.random_walks import USDCLP, Z, bundle_of, lognormal, walk


@pytest.mark.parametrize("days", [7, 15, 30, 90])
@pytest.mark.parametrize("skew", [0.0, 0.7])
def test_marginals_are_the_published_quantiles(days: int, skew: float) -> None:
    bundle = walk(1200)
    forecast = lognormal(bundle, Horizon(days), skew=skew)
    paths = sample_paths(forecast, bundle)
    found = np.quantile(paths.prices, LEVELS, axis=0, method="hazen").T
    assert found == pytest.approx(forecast.quantiles, rel=5e-5)
    for h, at in ((0, 5), (-1, 12), (-1, 20)):
        below = (paths.prices[:, h] <= forecast.quantiles[h, at]).mean()
        assert below == pytest.approx(LEVELS[at], abs=1 / len(paths))


def test_there_is_a_path_for_each_past_window_up_to_the_limit() -> None:
    bundle = walk(1200)
    forecast = lognormal(bundle, Horizon(30))
    longest = forecast.steps[-1]
    paths = sample_paths(forecast, bundle)
    assert len(paths) == 1200 - longest
    assert paths.prices.shape == (len(paths), len(forecast.target_dates))
    assert paths.first == bundle.dates[0].date()
    assert paths.last == bundle.dates[-1 - longest].date()
    newest = sample_paths(forecast, bundle, count=250)
    assert len(newest) == 250
    assert newest.last == paths.last
    assert newest.first == bundle.dates[-longest - 250].date()
    assert len(sample_paths(lognormal(long := walk(MAX_PATHS + 300), Horizon(7)), long)) == MAX_PATHS


def test_too_short_a_past_is_refused() -> None:
    bundle = walk(MIN_PATHS + 40)
    assert len(sample_paths(lognormal(bundle, Horizon(30)), bundle)) >= MIN_PATHS
    with pytest.raises(ForecastError, match=f"past paths of 64 weekdays.*expected {MIN_PATHS} or more"):
        sample_paths(lognormal(bundle, Horizon(90)), bundle)


def test_ranks_of_the_paths_are_those_of_the_past_windows() -> None:
    bundle = walk(900)
    forecast = lognormal(bundle, Horizon(30), skew=0.4)
    paths = sample_paths(forecast, bundle)
    logs = np.log(bundle.spot)
    longest = forecast.steps[-1]
    for h in (0, 3, len(forecast.steps) - 1):
        past = [logs[start + forecast.steps[h]] - logs[start] for start in range(900 - 1 - longest, -1, -1)]
        assert (rankdata(paths.prices[:, h]) == rankdata(past)).all()


@pytest.mark.parametrize("persistence", [-0.4, 0.0, 0.5])
def test_steps_hang_together_as_those_of_the_past_did(persistence: float) -> None:
    """A past whose moves go on, or come back: its paths do so too, though the marginals are the same."""
    rng = np.random.default_rng(8)
    moves = np.zeros(3000)
    for t in range(1, 3000):
        moves[t] = persistence * moves[t - 1] + rng.normal(0, 0.006)
    bundle = bundle_of(900 * np.exp(np.cumsum(moves)))
    forecast = lognormal(bundle, Horizon(7))
    paths = sample_paths(forecast, bundle)
    # Of moves x and 2-step sums of an AR(1): corr(x1, x1 + x2) = √((1 + φ)/2).
    found = spearmanr(paths.prices[:, 0], paths.prices[:, 1]).statistic
    assert found == pytest.approx(6 / np.pi * np.arcsin(np.sqrt((1 + persistence) / 2) / 2), abs=0.02)


def test_rows_after_the_origin_change_nothing() -> None:
    whole = walk(900)
    then = replace(
        whole,
        **{
            name: getattr(whole, name)[:800]
            for name in ("dates", "instants", "spot", "truth", "truth_known", "drivers")
        },
    )
    forecast = lognormal(then, Horizon(30))
    assert (sample_paths(forecast, whole).prices == sample_paths(forecast, then).prices).all()
    wild = replace(whole, spot=np.where(np.arange(900) < 800, whole.spot, 3 * whole.spot))
    assert (sample_paths(forecast, wild).prices == sample_paths(forecast, then).prices).all()


@settings(max_examples=20)
@given(st.floats(1e-4, 1e4))
def test_another_unit_gives_the_same_paths_in_it(scale: float) -> None:
    bundle = walk(500)
    forecast = lognormal(bundle, Horizon(15), skew=0.3)
    paths = sample_paths(forecast, bundle)
    scaled = sample_paths(
        replace(forecast, quantiles=forecast.quantiles * scale),
        replace(bundle, spot=bundle.spot * scale),
    )
    assert scaled.prices == pytest.approx(paths.prices * scale, rel=1e-9)


def test_equal_arguments_give_equal_paths() -> None:
    bundle = walk(500)
    forecast = lognormal(bundle, Horizon(15))
    assert (sample_paths(forecast, bundle).prices == sample_paths(forecast, bundle).prices).all()


def test_windows_that_stood_still_keep_one_place_that_hangs_on_nothing_else() -> None:
    """Weeks without a quote: their windows tie on all dates, and must not be sorted by when they were."""
    moves = np.random.default_rng(4).normal(0, 0.006, 1500)
    moves[500:900] = 0.0
    bundle = bundle_of(900 * np.exp(np.cumsum(moves)))
    forecast = lognormal(bundle, Horizon(15))
    paths = sample_paths(forecast, bundle)
    longest = forecast.steps[-1]
    starts = np.arange(1500 - 1 - longest, -1, -1)
    still = (starts >= 499) & (starts + longest < 900)
    held = paths.prices[still]
    assert len(np.unique(held[:, -1])) == still.sum(), "no two have the same price"
    assert (np.argsort(held[:, 0]) == np.argsort(held[:, -1])).all()
    assert abs(spearmanr(starts[still], held[:, -1]).statistic) < 0.1
    low, high = forecast.quantiles[-1, LEVELS.index(0.25)], forecast.quantiles[-1, LEVELS.index(0.75)]
    assert ((held[:, -1] > low) & (held[:, -1] < high)).all(), "those that moved lie on both sides of them"


@pytest.mark.parametrize(("days", "rows"), [(7, 400), (90, 310), (90, 1200)])
def test_what_one_past_lets_a_probability_of_touch_err_by_is_said(days: int, rows: int) -> None:
    """The spread over pasts of walks, most of which lie within the error that is told."""
    found, told = [], set()
    for seed in range(60):
        bundle = walk(rows, seed=seed)
        forecast = lognormal(bundle, Horizon(days))
        paths = sample_paths(forecast, bundle)
        barrier = bundle.spot[-1] * np.exp(0.8 * 0.006 * np.sqrt(forecast.steps[-1]))
        found.append(float((paths.prices.max(axis=1) > barrier).mean()))
        told.add(paths.error)
    (error,) = told
    assert 0.5 * error < 2 * np.std(found) < 1.1 * error


@pytest.mark.parametrize(
    ("days", "rows", "apart"), [(7, 130, 25), (30, 140, 6), (90, 170, 2), (90, 310, 4), (90, 700, 10)]
)
def test_the_error_of_few_windows_covers_the_true_probability_of_touch(
    days: int, rows: int, apart: int
) -> None:
    """By the reflection principle, corrected for daily closes: P(max > B) = 2 Φ(−(b + .5826 σ√Δ) / σ√H)."""
    bundle, seeds = walk(rows), 200
    forecast = lognormal(bundle, Horizon(days))
    steps, close = forecast.steps[-1], bundle.spot[-1]
    far = np.array([0.3, 0.5, 0.8, 1.2])
    barriers = close * np.exp(0.006 * np.sqrt(steps) * far)
    true = 2 * ndtr(-far - 0.5826 / np.sqrt(len(forecast.steps)))
    logs = np.cumsum(np.random.default_rng(11).normal(0, 0.006, (seeds, rows)), axis=1)
    pasts = close * np.exp(logs - logs[:, -1:])
    found = [sample_paths(forecast, replace(bundle, spot=past)) for past in pasts]
    assert {paths.apart for paths in found} == {apart}
    touched = np.array([paths.prices.max(axis=1) for paths in found])[:, None] > barriers[:, None]
    covered = (abs(touched.mean(axis=2) - true) <= found[0].error).mean(axis=0)
    assert (covered > 0.92).all(), "about 95 %, and no less where the error is largest"
    assert covered.min() < 0.99, "and it says no more than it has to"


class TestBetweenAndBeyondTheLevels:
    def test_a_lognormal_is_met_everywhere(self) -> None:
        bundle = walk(200)
        forecast = lognormal(bundle, Horizon(7))
        asked = np.array([1e-5, 0.003, 0.01, 0.033, 0.42, 0.5, 0.874, 0.985, 0.9999])
        found = quantile_function(forecast, asked)
        for h, step in enumerate(forecast.steps):
            exact = bundle.spot[-1] * np.exp(0.006 * np.sqrt(step) * ndtri(asked))
            assert found[:, h] == pytest.approx(exact, rel=1e-12)

    @given(st.lists(st.floats(0.0, 0.2), min_size=len(LEVELS), max_size=len(LEVELS)))
    def test_it_never_decreases_and_meets_the_published_levels(self, gaps: list[float]) -> None:
        quantiles = 900 * np.exp(np.cumsum(gaps) - np.sum(gaps) / 2)[None, :]
        day = date(2024, 7, 1)
        forecast = Forecast(USDCLP, date(2024, 6, 28), (day,), (1,), LEVELS, quantiles)
        grid = ndtr(np.linspace(-4, 4, 401))
        found = quantile_function(forecast, grid)[:, 0]
        assert (np.diff(found) >= 0).all()
        assert quantile_function(forecast, np.asarray(LEVELS))[:, 0] == pytest.approx(quantiles[0])

    def test_tails_go_on_through_the_outer_two_levels(self) -> None:
        bundle = walk(200)
        forecast = lognormal(bundle, Horizon(7), skew=1.0)
        for outer, inner, level in ((0, 1, 0.001), (-1, -2, 0.999)):
            logs = np.log(forecast.quantiles[2])
            slope = (logs[outer] - logs[inner]) / (Z[outer] - Z[inner])
            expected = np.exp(logs[outer] + slope * (ndtri(level) - Z[outer]))
            assert quantile_function(forecast, np.array([level]))[0, 2] == pytest.approx(expected)
