"""Forecasts to be written into a ledger, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import pandas as pd
from scipy.special import ndtri

from forex_core.calendars import origin_instant, target_dates
from forex_core.data.series import MARKET_CLOSE
from forex_core.ledger import Entry
from forex_core.types import HORIZONS, LEVELS, Horizon, Pair

USDCLP = Pair("USD", "CLP")
SOON = pd.Timedelta(minutes=5)
Z = ndtri(np.array(LEVELS))


def entry(
    origin: date,
    horizon: Horizon = HORIZONS[0],
    *,
    run_id: str | None = None,
    pair: Pair = USDCLP,
    close: float = 950.0,
    lean: float = 0.0,
    sigma: float = 0.006,
    width: float = 1.0,
    after: pd.Timedelta = SOON,
    version: int | None = 1,
    members: Sequence[str] = ("random_walk", "theta"),
) -> Entry:
    """A forecast that leans by `lean` in log price at every step, with bands `width` times those of the random walk.

    It is published `after` its origin has spoken. Its rate is that of a market's close.
    """
    ahead = target_dates(pair, origin, horizon)
    root = np.sqrt([step for step, _ in ahead])[:, None]
    walk = close * np.exp(sigma * root * Z)
    at = origin_instant(pair, origin)
    middle = np.full(len(ahead), close * np.exp(lean))
    return Entry(
        run_id=run_id or f"run-{pair}-{horizon}-{origin}-{version}-{lean}",
        pair=pair,
        rate="close",
        horizon=horizon,
        origin=origin,
        as_of=at,
        published_at=at + after,
        outcome_at=MARKET_CLOSE.instants(pd.DatetimeIndex([ahead[0][1]]))[0],
        close=close,
        model=f"{pair.slug}-{horizon}",
        version=version,
        recipe="recipe",
        fingerprint="fingerprint",
        verdict="none",
        levels=LEVELS,
        members=tuple(members),
        weights=tuple(1 / len(members) for _ in members),
        steps=tuple(step for step, _ in ahead),
        target_dates=tuple(day for _, day in ahead),
        quantiles=close * np.exp(lean + width * sigma * root * Z),
        walk=walk,
        medians=np.stack(
            [middle if name != "random_walk" else np.full(len(ahead), close) for name in members], axis=1
        ),
    )
