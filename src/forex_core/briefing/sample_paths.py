"""Joint sample paths: the published quantiles on each target date, in the rank order of past paths of the rate.

A published forecast says how the close of each date is distributed, and not how one date goes with another. The
Schaake shuffle (Clark, Gangopadhyay, Hay, Rajagopalan and Wilby 2004) takes that from the past: the sample of each date
is put into the order in which as many past paths stood after as many weekdays. Each path is then a path that the rate
has taken, bent to what is forecast now.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri

from forex_core.errors import ForecastError
from forex_core.types import Array, Forecast, MarketBundle

MAX_PATHS = 4000
"""Past windows that are followed, the newest: fifteen years of weekdays. They overlap, and more of them tell more."""

MIN_PATHS = 100

JOINT_DEVIATION, JOINT_BIAS = 0.32, 0.5
"""Of the probability that walks touch a rate, over pasts of n windows that lie apart: twice its deviation, times √n,
and twice what it is too high by, times n, for few windows keep their order from date to date."""

_FAR = 10.0
"""|z| up to which tails are drawn; no sample comes near it."""

_GOLDEN = (np.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class SamplePaths:
    """Equally likely joint paths.

    Attributes:
        forecast: whose quantiles they have.
        prices: [N, H] in price units.
        first, last: dates from which the past paths start that they follow.
    """

    forecast: Forecast
    prices: Array
    first: date
    last: date

    def __len__(self) -> int:
        return len(self.prices)

    @property
    def apart(self) -> int:
        """How many of the past paths do not overlap with each other."""
        return 1 + (len(self) - 1) // self.forecast.steps[-1]

    @property
    def error(self) -> float:
        """Two standard errors, about, of a probability that is of several dates together: those of each are exact."""
        return math.hypot(JOINT_DEVIATION / math.sqrt(self.apart), JOINT_BIAS / self.apart)


def sample_paths(forecast: Forecast, bundle: MarketBundle, count: int = MAX_PATHS) -> SamplePaths:
    """Up to `count` joint paths, as many as there are past windows of the forecast's length up to its origin.

    Path i has on date h the price Q_h((r + ½) / N), r the rank of past window i among all after that many weekdays.
    The marginals are thus those of `quantile_function` to 1 / 2N, whatever the past was like; of the past counts the
    order alone. Windows without a move in a hole or on a holiday tie with each other, and keep one place for all dates
    that has nothing to do with when they were. Nothing is drawn: equal arguments give equal paths.

    Rows after the origin are not looked at.

    Raises:
        ForecastError: fewer than `MIN_PATHS` windows.
    """
    origin = int(bundle.dates.searchsorted(pd.Timestamp(forecast.origin), side="right")) - 1
    steps = np.array(forecast.steps)
    starts = np.arange(origin - steps[-1], -1, -1)[:count]
    if len(starts) < MIN_PATHS:
        raise ForecastError(
            f"{len(starts)} past paths of {steps[-1]} weekdays up to {forecast.origin}, expected {MIN_PATHS} or more; "
            "give a longer history"
        )
    logs = np.log(bundle.spot)
    ranks = _ranks(logs[starts[:, None] + steps] - logs[starts][:, None])
    sample = quantile_function(forecast, (np.arange(len(starts)) + 0.5) / len(starts))
    return SamplePaths(
        forecast=forecast,
        prices=np.take_along_axis(sample, ranks, axis=0),
        first=bundle.dates[starts[-1]].date(),
        last=bundle.dates[starts[0]].date(),
    )


def quantile_function(forecast: Forecast, probabilities: Array) -> Array:
    """[P, H] quantiles in price at any probabilities in (0, 1), from those published.

    Between two levels the log price is linear in the normal score z = Φ⁻¹(α); beyond the outermost ones it goes on as
    between the outer two. A lognormal forecast is thus met everywhere, tails included: what is not published is taken
    as the normal tail through .01 and .025, and through .975 and .99, which is how the members' own bands and the
    calibration's log factors are made. Never decreasing, for published quantiles are not.
    """
    z = ndtri(np.asarray(forecast.levels))
    asked = ndtri(probabilities)
    logs = np.log(forecast.quantiles)
    low = logs[:, 0] + (logs[:, 1] - logs[:, 0]) / (z[1] - z[0]) * (-_FAR - z[0])
    high = logs[:, -1] + (logs[:, -1] - logs[:, -2]) / (z[-1] - z[-2]) * (_FAR - z[-1])
    scores = np.array([-_FAR, *z, _FAR])
    edges = np.column_stack([low, logs, high])
    return np.asarray(np.exp(np.column_stack([np.interp(asked, scores, row) for row in edges])))


def _ranks(values: Array) -> npt.NDArray[np.int64]:
    """[N, H] rank of each value within its column; ties by one order for all columns, spread evenly over the rows."""
    order_of_ties = np.arange(len(values)) * _GOLDEN % 1
    ranks = np.empty(values.shape, dtype=np.int64)
    for h, column in enumerate(values.T):
        ranks[np.lexsort((order_of_ties, column)), h] = np.arange(len(values))
    return ranks
