"""A raw series with the time each value became known, and the definitions of the series we recognise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from forex_core.calendars import next_business_days
from forex_core.types import PERCENT_PER_YEAR, Array, Source

PRICE = "price"
RATE = "rate"


_Days = Callable[[pd.DatetimeIndex], pd.DatetimeIndex]
"""For each of some days another one, or an instant."""


@dataclass(frozen=True)
class Release:
    """When the value dated a given day becomes known.

    `instants` maps naive days to UTC instants; `rule` says the same in words, for the report; `period` is what one
    value speaks of, and is over before it can be known.
    """

    rule: str
    instants: _Days
    period: Literal["day", "month"] = "day"


def _at(hour: int, minute: int, zone: str) -> _Days:
    def instants(days: pd.DatetimeIndex) -> pd.DatetimeIndex:
        local = days + pd.Timedelta(hours=hour, minutes=minute)
        return local.tz_localize(zone, ambiguous=True, nonexistent="shift_forward").tz_convert("UTC")

    return instants


def _next_business_day(currency: str, clock: _Days, after: _Days = lambda days: days) -> _Days:
    """On the first business day of a currency's market after another day: offices that are closed publish nothing."""
    return lambda days: clock(next_business_days(currency, after(days)))


def _before_day_of_next_month(day: int) -> _Days:
    def before(days: pd.DatetimeIndex) -> pd.DatetimeIndex:
        month = days.to_numpy().astype("datetime64[M]") + np.timedelta64(1, "M")
        return pd.DatetimeIndex(month.astype("datetime64[D]") + np.timedelta64(day - 2, "D"))

    return before


def _monday_of_next_week(days: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return days + pd.to_timedelta(7 - days.day_of_week, unit="D")


MARKET_CLOSE = Release(
    "the same day at 17:00 in New York, after the last of the closes", _at(17, 0, "America/New_York")
)
SPOT_CLOSE = Release("the same day at its end in London, at midnight", _at(24, 0, "Europe/London"))
ECB_FIXING = Release("the same day at 16:15 in Frankfurt", _at(16, 15, "Europe/Berlin"))
NEXT_BUSINESS_DAY = Release(
    "the next business day at 16:15 in New York",
    _next_business_day("USD", _at(16, 15, "America/New_York")),
)
MONTHLY_AVERAGE = Release(
    "the 10th of the following month, or Chile's next business day (a monthly average)",
    _next_business_day("CLP", _at(9, 0, "America/Santiago"), _before_day_of_next_month(10)),
    "month",
)
INFLATION = Release(
    "the 9th of the following month, or Chile's next business day",
    _next_business_day("CLP", _at(9, 0, "America/Santiago"), _before_day_of_next_month(9)),
    "month",
)
OBSERVED_RATE = Release(
    "the same day at 18:00 in Santiago; published the evening before, and held back so that no row shows a later day's",
    _at(18, 0, "America/Santiago"),
)
DECIDED_RATE = Release(
    "the same day at 18:00 in Santiago; decided the evening before", _at(18, 0, "America/Santiago")
)
COPPER_CASH = Release(
    "the next business day at 12:00 in Santiago",
    _next_business_day("CLP", _at(12, 0, "America/Santiago")),
)
WEEKLY_H10 = Release(
    "the Tuesday of the following week at 16:15 in New York, or the next business day",
    _next_business_day("USD", _at(16, 15, "America/New_York"), _monday_of_next_week),
)


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
    "chile_tpm": Definition(
        PERCENT_PER_YEAR, RATE, DECIDED_RATE, 15, "Chilean policy rate in force that day"
    ),
}
"""Series that are recognised by name, in lower case. Any other numeric column is a market price at the close."""

DERIVED: dict[str, tuple[tuple[str, str], ...]] = {
    "rate_differential": (("chile_rate", "fed_rate"), ("chile_tpm", "fed_rate")),
}
"""Series that are never read but recomputed, as one less another, from what was known of each.

Of several ways the first counts of which both are there, for all rows.
"""


def definition_of(name: str) -> Definition:
    """The definition of a series by name; unknown names are market prices known after the close."""
    return DEFINITIONS.get(
        name.lower(), Definition("not stated", PRICE, MARKET_CLOSE, 15, "as the file names it")
    )


@dataclass(frozen=True)
class Series:
    """Raw values of one series, in the order the source gave them; NaN where it gave none.

    Attributes:
        dates: naive days. With `known_at` a day may have several prints: the first, and what it was revised to.
        values: in `definition.unit`.
        known_at: UTC instants at which the values became known; None where the definition's release rule tells.
    """

    name: str
    dates: pd.DatetimeIndex
    values: Array
    definition: Definition
    known_at: pd.DatetimeIndex | None = None

    @property
    def released(self) -> pd.DatetimeIndex:
        """The instant at which each value became known, in UTC."""
        return self.definition.release.instants(self.dates) if self.known_at is None else self.known_at


@dataclass(frozen=True)
class MarketData:
    """What a provider returns for a pair: its spot, the drivers it has, and where they came from."""

    spot: Series
    drivers: tuple[Series, ...]
    sources: tuple[Source, ...]
    ignored: tuple[str, ...] = ()
    """Columns of text, which are not used."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Drivers that it was asked for and does not have, with the reason."""
