"""Lognormal random walks as bundles, and what there is to say of their next weeks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.special import ndtri

from forex_core.calendars import origin_instants, target_dates
from forex_core.types import LEVELS, PERCENT_PER_YEAR, Array, Forecast, Horizon, MarketBundle, Pair

USDCLP = Pair("USD", "CLP")
Z = ndtri(np.asarray(LEVELS))


def walk(rows: int, *, seed: int = 3, sigma: float = 0.006, end: str = "2024-06-28") -> MarketBundle:
    """A bundle of a lognormal random walk."""
    moves = np.random.default_rng(seed).normal(0, sigma, rows)
    return bundle_of(900 * np.exp(np.cumsum(moves)), end)


def bundle_of(
    spot: Array, end: str = "2024-06-28", rates: Mapping[str, float] | None = None, pair: Pair = USDCLP
) -> MarketBundle:
    """A bundle of these closes; its drivers are policy rates that have never been changed."""
    rates = rates or {}
    days = pd.bdate_range(end=end, periods=len(spot)).as_unit("s")
    instants = origin_instants(pair, days)
    return MarketBundle(
        pair=pair,
        dates=days,
        instants=instants,
        spot=spot,
        truth=spot.copy(),
        truth_known=np.arange(len(spot)),
        drivers=np.tile(list(rates.values()), (len(spot), 1)),
        driver_names=tuple(rates),
        driver_units=(PERCENT_PER_YEAR,) * len(rates),
        as_of=instants[-1],
    )


def lognormal(bundle: MarketBundle, horizon: Horizon, sigma: float = 0.006, skew: float = 0.0) -> Forecast:
    """The forecast of a random walk from the last row; `skew` bends its quantiles, so that they are no lognormal."""
    steps, days = zip(*target_dates(bundle.pair, bundle.origin, horizon), strict=True)
    scale = sigma * np.sqrt(np.array(steps))[:, None]
    logs = scale * (Z + skew * np.where(Z < 0, Z, 0.0))
    return Forecast(bundle.pair, bundle.origin, days, steps, LEVELS, bundle.spot[-1] * np.exp(logs))
