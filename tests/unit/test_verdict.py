"""The verdict on series whose answer is known, from the closes to the claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import Engine, build_members
from forex_core.evaluation import CLAIM_LEVEL
from forex_core.testing import bundle_of, synthetic_table
from forex_core.types import ENSEMBLE, HORIZONS, Array, ForecastRun

pytestmark = pytest.mark.slow

WEEK = HORIZONS[0]
DRIVERS = ("Copper", "DXY", "VIX")


def weekly(table: pd.DataFrame, grid_origins: int, warmup_origins: int) -> ForecastRun:
    config = EngineConfig(
        members=("random_walk", "theta", "drivers"),
        grid_origins=grid_origins,
        warmup_origins=warmup_origins,
        min_history_rows=300,
    )
    return Engine(config, build_members(config, ChronosConfig())).forecast(bundle_of(table), WEEK)


def returns(prices: Array) -> Array:
    """[T] log returns, 0 in the first row."""
    return np.diff(np.log(prices), prepend=np.log(prices[0]))


def stale_close(seed: int) -> pd.DataFrame:
    """The close follows the drivers' move of the day before: known at each close, gone at the next."""
    return synthetic_table(1300, seed=seed, pass_through=3.0)


def slow_response(seed: int) -> pd.DataFrame:
    """The price takes five days to follow the drivers, so most of the way is still to come at the next close."""
    table = synthetic_table(1300, seed=seed, pass_through=0.0)
    common = np.mean([returns(table[name].to_numpy()) for name in DRIVERS], axis=0)
    response = 3 * np.convolve(common, [0, 1, 1, 1, 1, 1])[: len(common)]
    return table.assign(USDCLP=table["USDCLP"] * np.exp(np.cumsum(response)))


def autoregression(seed: int) -> pd.DataFrame:
    """An AR(1) with coefficient .7 in the returns, around shocks of persistent volatility."""
    table = synthetic_table(1300, seed=seed, pass_through=0.0)
    shocks = returns(table["USDCLP"].to_numpy())
    moves = np.zeros(len(shocks))
    for t in range(1, len(shocks)):
        moves[t] = 0.7 * moves[t - 1] + shocks[t]
    return table.assign(USDCLP=700 * np.exp(np.cumsum(moves)))


def verdicts(make: Callable[[int], pd.DataFrame], series: int = 10) -> Counter[str]:
    return Counter(weekly(make(seed), 260, 20).verdict.kind for seed in range(series))


@pytest.mark.timeout(600)
def test_on_two_hundred_random_walks_skill_is_claimed_sixteen_times_at_most() -> None:
    """A test of 5 % that is right claims it more often than that in one of forty such experiments.

    Counted for the verdict, which corrects for four horizons, and for the p-value of the leaderboard, which does not.
    """
    runs = [weekly(synthetic_table(800, seed=seed, pass_through=0.0), 100, 10) for seed in range(1000, 1200)]
    assert all(not run.failures and run.verdict.origins >= 70 for run in runs)
    kinds = Counter(run.verdict.kind for run in runs)
    assert kinds["close_only"] + kinds["usable"] <= 16, kinds
    scores = [run.evaluation.scores[ENSEMBLE] for run in runs]
    uncorrected = {
        "close": sum(s.dm_pvalue is not None and s.dm_pvalue < CLAIM_LEVEL for s in scores),
        "next close": sum(s.p_next_close is not None and s.p_next_close < CLAIM_LEVEL for s in scores),
    }
    assert max(uncorrected.values()) <= 16, uncorrected
    assert np.median([s.rmse_ratio_rw for s in scores]) > 1  # there is nothing to gain, and something to lose


def test_an_autoregression_that_is_strong_enough_is_claimed() -> None:
    """A third of the variance over the next week is known, and half of that still at the next close."""
    found = verdicts(autoregression)
    assert found["none"] == 0, found
    assert found["usable"] >= 8, found


def test_skill_that_ends_with_the_next_close_is_named_so() -> None:
    found = verdicts(stale_close)
    assert found["close_only"] >= 9, found
    assert found["usable"] == 0, found


def test_skill_that_outlasts_the_next_close_is_usable() -> None:
    found = verdicts(slow_response)
    assert found["usable"] >= 9, found
