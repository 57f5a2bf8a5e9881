"""A market rate at publication beside the close that a forecast starts from, and the forecast from there.

The close is a day old when a forecast is read; what a reader can deal at is the quote. From it the rate goes on through
the rest of its day, and then as the forecast says of the way from that day's close on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from forex_core.briefing.absent import Absent
from forex_core.briefing.sample_paths import SamplePaths
from forex_core.calendars import desk_zone
from forex_core.data.observations import Quote
from forex_core.errors import InputError
from forex_core.types import Array, MarketBundle

MAX_MOVE = 0.20
"""A quote further from the close than this share is not believed: it is of another unit, or of another pair."""

GIVEN = "given"
"""Source of a quote that somebody has given by hand."""


@dataclass(frozen=True)
class QuotedForecast:
    """`quantiles` [H', Q] and paths `prices` [N, H'] on `target_dates`, those after the date that the quote stands for.

    `day` is that of the quote at the pair's desk.
    """

    quote: Quote
    close: float
    day: date
    stands_for: date
    target_dates: tuple[date, ...]
    levels: tuple[float, ...]
    quantiles: Array
    prices: Array


def quoted(quote: Quote, paths: SamplePaths, bundle: MarketBundle) -> QuotedForecast | Absent:
    """The forecast from a quote: quantiles of quote · path_h / path_j · e^(r √(ρ/g)) over the joint paths, for h > j.

    j is the first target date on or after the day of the quote at the pair's desk; r the log move of the path over the
    g weekdays up to j, less its median; ρ the share of the day that is left between the quote and that close, by the
    clock. It is absent where the quote cannot be of this rate, is of the day of the close or before, or none of the
    dates lies after j.
    """
    close, forecast = float(bundle.spot[-1]), paths.forecast
    if not is_plausible(quote.value, close):
        return Absent("implausible", {"value": quote.value, "close": close})
    day = quote.at.tz_convert(desk_zone(bundle.pair)).date()
    if day <= forecast.origin:
        return Absent("not_newer", {"at": quote.at.isoformat()})
    j = sum(target < day for target in forecast.target_dates)
    if j >= len(forecast.target_dates) - 1:
        last = forecast.target_dates[-1]
        return Absent("too_late", {"day": day.isoformat(), "last": last.isoformat()})
    rest = np.exp(_rest_of_the_day(quote, j, paths, bundle))
    from_there = quote.value * paths.prices[:, j + 1 :] / paths.prices[:, [j]] * rest[:, None]
    return QuotedForecast(
        quote=quote,
        close=close,
        day=day,
        stands_for=forecast.target_dates[j],
        target_dates=forecast.target_dates[j + 1 :],
        levels=forecast.levels,
        quantiles=np.quantile(from_there, forecast.levels, axis=0, method="hazen").T,
        prices=from_there,
    )


def _rest_of_the_day(quote: Quote, j: int, paths: SamplePaths, bundle: MarketBundle) -> Array:
    """[N] log move of each path from the quote to the close that it stands for; a whole day's where none says when."""
    dates, steps = paths.forecast.target_dates, (0, *paths.forecast.steps)
    left = 1.0
    if bundle.outcome_at is not None:
        close_at = bundle.outcome_at + (dates[j] - dates[0])
        left = float(np.clip((close_at - quote.at) / pd.Timedelta(days=1), 0.0, 1.0))
    before = paths.prices[:, j - 1] if j else bundle.spot[-1]
    moves = np.log(paths.prices[:, j] / before)
    return np.asarray((moves - np.median(moves)) * math.sqrt(left / (steps[j + 1] - steps[j])))


def is_plausible(value: float, close: float) -> bool:
    return math.isfinite(value) and value > 0 and abs(value / close - 1) <= MAX_MOVE


def given(value: float, bundle: MarketBundle) -> Quote:
    """A quote that somebody has given, as of the bundle's instant.

    Raises:
        InputError: it cannot be of this rate.
    """
    close, pair = float(bundle.spot[-1]), bundle.pair
    if not is_plausible(value, close):
        inverted = value > 0 and is_plausible(1 / value, close)
        hint = f"; it looks like {pair.base} per {pair.quote}" if inverted else ""
        raise InputError(
            f"the quote {value:g} is not within {MAX_MOVE:.0%} of the close of {bundle.origin}, {close:g}{hint}. "
            f"Expected {pair.unit}"
        )
    return Quote(value, bundle.as_of, GIVEN)
