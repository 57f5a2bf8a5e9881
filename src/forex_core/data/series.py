"""A raw series with the time each value became known, and the definitions of the series we recognise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from forex_core.types import PERCENT_PER_YEAR, Array, Source

PRICE = "price"
RATE = "rate"


@dataclass(frozen=True)
class Release:
    """When the value dated a given day becomes known.

    `instants` maps naive days to UTC instants; `rule` says the same in words, for the report.
    """

    rule: str
    instants: Callable[[pd.DatetimeIndex], pd.DatetimeIndex]


def _at(hour: int, minute: int, zone: str) -> Callable[[pd.DatetimeIndex], pd.DatetimeIndex]:
    def instants(days: pd.DatetimeIndex) -> pd.DatetimeIndex:
        local = days + pd.Timedelta(hours=hour, minutes=minute)
        return local.tz_localize(zone, ambiguous=True, nonexistent="shift_forward").tz_convert("UTC")

    return instants


def _next_business_day(days: pd.DatetimeIndex) -> pd.DatetimeIndex:
    following = np.busday_offset(days.to_numpy().astype("datetime64[D]"), 1, roll="preceding")
    return _at(16, 15, "America/New_York")(pd.DatetimeIndex(following))


def _tenth_of_next_month(days: pd.DatetimeIndex) -> pd.DatetimeIndex:
    month = days.to_numpy().astype("datetime64[M]") + np.timedelta64(1, "M")
    tenth = month.astype("datetime64[D]") + np.timedelta64(9, "D")
    return _at(9, 0, "America/Santiago")(pd.DatetimeIndex(tenth))


MARKET_CLOSE = Release(
    "the same day at 17:00 in New York, after the last of the closes", _at(17, 0, "America/New_York")
)
ECB_FIXING = Release("the same day at 16:15 in Frankfurt", _at(16, 15, "Europe/Berlin"))
NEXT_BUSINESS_DAY = Release("the next business day at 16:15 in New York", _next_business_day)
MONTHLY_AVERAGE = Release("the 10th of the following month (a monthly average)", _tenth_of_next_month)


@dataclass(frozen=True)
class Definition:
    """What a series of a known name is: its unit, how it moves, when it is known and how long it stays fresh."""

    unit: str
    kind: str
    release: Release
    max_age_days: int
    meaning: str


DEFINITIONS: dict[str, Definition] = {
    "copper": Definition("USD per lb", PRICE, MARKET_CLOSE, 15, "copper future, close"),
    "oil": Definition("USD per barrel", PRICE, MARKET_CLOSE, 15, "crude oil future, close"),
    "dxy": Definition("index points", PRICE, MARKET_CLOSE, 15, "dollar index, close"),
    "sp500": Definition("index points", PRICE, MARKET_CLOSE, 15, "S&P 500, close"),
    "vix": Definition(
        "percent (annualised volatility)", PRICE, MARKET_CLOSE, 15, "implied volatility of the S&P 500"
    ),
    "fed_rate": Definition(PERCENT_PER_YEAR, RATE, NEXT_BUSINESS_DAY, 15, "effective federal funds rate"),
    "chile_rate": Definition(
        PERCENT_PER_YEAR, RATE, MONTHLY_AVERAGE, 75, "Chilean policy rate, monthly average"
    ),
}
"""Series that are recognised by name, in lower case. Any other numeric column is a market price at the close."""

DERIVED: dict[str, tuple[str, str]] = {"rate_differential": ("chile_rate", "fed_rate")}
"""Series that are never read but recomputed, as the first less the second, from what was known of each."""


def definition_of(name: str) -> Definition:
    """The definition of a series by name; unknown names are market prices known after the close."""
    return DEFINITIONS.get(
        name.lower(), Definition("not stated", PRICE, MARKET_CLOSE, 15, "as the file names it")
    )


@dataclass(frozen=True)
class Series:
    """Raw values of one series, in the order the source gave them; NaN where it gave none.

    `dates` naive days, `values` in `definition.unit`.
    """

    name: str
    dates: pd.DatetimeIndex
    values: Array
    definition: Definition


@dataclass(frozen=True)
class MarketData:
    """What a provider returns for a pair: its spot, the drivers it has, and where they came from."""

    spot: Series
    drivers: tuple[Series, ...]
    sources: tuple[Source, ...]
    ignored: tuple[str, ...] = ()
    """Columns of text, which are not used."""
