"""The random walk: the reference that everything else is measured against."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd

from forex_core.models.base import Answers, Levels, ewma, lognormal, rows_of
from forex_core.models.features import WARM_ROWS, log_returns
from forex_core.types import Array, MarketBundle

DECAY = 0.985


def reference_sigma(bundle: MarketBundle) -> Array:
    """[T] `daily_volatility` of the rate's log returns."""
    return daily_volatility(log_returns(bundle))


def daily_volatility(returns: Array) -> Array:
    """[T] σ²_t = .985 σ²_{t-1} + .015 r²_t from the variance of the first 60 `returns` [T]; row 0 is of no return.

    NaN before the 60th return.
    """
    squares = returns**2
    if len(returns) > WARM_ROWS:
        # The recursion starts from a variance, so from squares about the mean of those first returns.
        start = returns[1 : WARM_ROWS + 1]
        squares[1 : WARM_ROWS + 1] = (start - start.mean()) ** 2
    return np.asarray(np.sqrt(ewma(squares, DECAY, WARM_ROWS)))


class RandomWalk:
    """Median S_t; quantile α at step h is S_t exp(z_α σ_t √h), with σ_t of `reference_sigma`. Not calibrated."""

    name = "random_walk"
    columns: tuple[str, ...] = ("spot",)
    lookback_rows: int | None = None
    trained_until: date | None = None
    may_have_seen = False
    libraries: tuple[str, ...] = ()
    identity: str = name

    def forecast(
        self, bundle: MarketBundle, origins: pd.DatetimeIndex, steps: int, levels: Levels
    ) -> Answers:
        rows = rows_of(bundle, origins)
        sigma = reference_sigma(bundle)[rows]
        spread = sigma[:, None] * np.sqrt(np.arange(1, steps + 1))
        quantiles = lognormal(bundle.spot[rows], np.zeros_like(spread), spread, levels)
        short = np.flatnonzero(np.isnan(sigma))
        return Answers(quantiles, {int(p): f"needs {WARM_ROWS} returns of history" for p in short})
