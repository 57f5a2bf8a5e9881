"""Business days, desk time and target dates of a currency pair."""

from __future__ import annotations

import warnings
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import holidays
import numpy as np
import numpy.typing as npt
import pandas as pd

from forex_core.types import Horizon, Pair

DESK_OPENS = time(8, 0)
"""Local time at which the desk of a pair opens: the instant of a forecast origin."""

_UTC = ZoneInfo("UTC")
_EPOCH = date(1990, 1, 1)

# Currency: (holiday calendar of the package `holidays`, desk time zone).
_MARKETS: dict[str, tuple[str, str]] = {
    "ARS": ("AR", "America/Argentina/Buenos_Aires"),
    "AUD": ("AU", "Australia/Sydney"),
    "BRL": ("BR", "America/Sao_Paulo"),
    "CAD": ("CA", "America/Toronto"),
    "CHF": ("CH", "Europe/Zurich"),
    "CLP": ("CL", "America/Santiago"),
    "CNY": ("CN", "Asia/Shanghai"),
    "COP": ("CO", "America/Bogota"),
    "CZK": ("CZ", "Europe/Prague"),
    "DKK": ("DK", "Europe/Copenhagen"),
    "EUR": ("ECB", "Europe/Berlin"),
    "GBP": ("GB", "Europe/London"),
    "HKD": ("HK", "Asia/Hong_Kong"),
    "HUF": ("HU", "Europe/Budapest"),
    "IDR": ("ID", "Asia/Jakarta"),
    "ILS": ("IL", "Asia/Jerusalem"),
    "INR": ("IN", "Asia/Kolkata"),
    "ISK": ("IS", "Atlantic/Reykjavik"),
    "JPY": ("JP", "Asia/Tokyo"),
    "KRW": ("KR", "Asia/Seoul"),
    "MXN": ("MX", "America/Mexico_City"),
    "MYR": ("MY", "Asia/Kuala_Lumpur"),
    "NOK": ("NO", "Europe/Oslo"),
    "NZD": ("NZ", "Pacific/Auckland"),
    "PEN": ("PE", "America/Lima"),
    "PHP": ("PH", "Asia/Manila"),
    "PLN": ("PL", "Europe/Warsaw"),
    "RON": ("RO", "Europe/Bucharest"),
    "SEK": ("SE", "Europe/Stockholm"),
    "SGD": ("SG", "Asia/Singapore"),
    "THB": ("TH", "Asia/Bangkok"),
    "TRY": ("TR", "Europe/Istanbul"),
    "USD": ("US", "America/New_York"),
    "ZAR": ("ZA", "Africa/Johannesburg"),
}


def is_currency(code: str) -> bool:
    """Whether a code is of a currency whose market is known here."""
    return code in _MARKETS


def desk_zone(pair: Pair) -> ZoneInfo:
    """Time zone of the pair's desk: where its quote currency is traded, UTC where that is not known."""
    return ZoneInfo(_MARKETS[pair.quote][1]) if pair.quote in _MARKETS else _UTC


def origin_instant(pair: Pair, day: date) -> pd.Timestamp:
    """The instant at which the origin of row `day` speaks: 08:00 at the desk on the next weekday (UTC).

    >>> origin_instant(Pair("USD", "CLP"), date(2024, 6, 28)).isoformat()
    '2024-07-01T12:00:00+00:00'
    """
    following = next_weekday(day)
    return pd.Timestamp(datetime.combine(following, DESK_OPENS, desk_zone(pair)).astimezone(_UTC))


def origin_instants(pair: Pair, days: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """`origin_instant` of many days at once, in UTC."""
    step = np.where(days.day_of_week >= 4, 7 - days.day_of_week, 1)
    opened = days + pd.to_timedelta(step, unit="D") + pd.Timedelta(hours=DESK_OPENS.hour)
    return opened.tz_localize(desk_zone(pair), ambiguous=True, nonexistent="shift_forward").tz_convert("UTC")


def latest_origin(pair: Pair, instant: datetime) -> date:
    """The newest business day whose origin has spoken at `instant`, which has a time zone.

    >>> latest_origin(Pair("USD", "CLP"), datetime(2024, 7, 1, 12, tzinfo=_UTC)).isoformat()
    '2024-06-28'
    """
    day = instant.astimezone(desk_zone(pair)).date()
    while not is_business_day(pair, day) or origin_instant(pair, day) > instant:
        day -= timedelta(days=1)
    return day


def next_weekday(day: date) -> date:
    """The first Monday to Friday after `day`."""
    return day + timedelta(days=7 - day.weekday() if day.weekday() >= 4 else 1)


def is_business_day(pair: Pair, day: date) -> bool:
    """Whether both currencies' markets are open on `day`.

    >>> is_business_day(Pair("USD", "CLP"), date(2024, 9, 18))   # Chile's national day
    False
    """
    return day.weekday() < 5 and not any(day in _holidays(c, day.year) for c in (pair.base, pair.quote))


def next_business_days(currency: str, days: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """The first business day after each of `days` in the market of a currency.

    >>> next_business_days("USD", pd.DatetimeIndex(["2026-10-09"]))[0].date()   # before Columbus Day
    datetime.date(2026, 10, 13)
    """
    if len(days) == 0:
        return days
    calendar = _business_calendar((currency,), days.min().year, days.max().year + 1)
    following = np.busday_offset(
        days.to_numpy().astype("datetime64[D]"), 1, roll="preceding", busdaycal=calendar
    )
    return pd.DatetimeIndex(following)


def target_dates(pair: Pair, origin: date, horizon: Horizon) -> tuple[tuple[int, date], ...]:
    """The (step, date) of each business day in (origin, origin + horizon].

    A step counts weekdays after the origin, as the rows of a bundle do, so a holiday leaves a step out
    and does not shift those behind it.

    >>> [step for step, _ in target_dates(Pair("USD", "CLP"), date(2024, 6, 28), Horizon(7))]
    [1, 2, 3, 5]
    """
    steps = int(np.busday_count(origin + timedelta(days=1), origin + timedelta(days=horizon.days + 1)))
    weekdays = [origin]
    while len(weekdays) <= steps:
        weekdays.append(next_weekday(weekdays[-1]))
    return tuple((h, d) for h, d in enumerate(weekdays) if h > 0 and is_business_day(pair, d))


def business_day_numbers(pair: Pair, days: pd.DatetimeIndex) -> npt.NDArray[np.int64]:
    """[T] number of each business day of the pair since the start of 1990, -1 on other days.

    Grids of origins are anchored to these numbers. Holidays move them across the days of the week, which a
    count of weekdays would not: an every-fifth-weekday grid scores Thursdays for ever.
    """
    calendar = _business_calendar((pair.base, pair.quote), _EPOCH.year, days[-1].year)
    asked = days.to_numpy().astype("datetime64[D]")
    numbers = np.busday_count(np.datetime64(_EPOCH), asked, busdaycal=calendar)
    return np.where(np.is_busday(asked, busdaycal=calendar), numbers, -1).astype(np.int64)


def _business_calendar(currencies: tuple[str, ...], first_year: int, last_year: int) -> np.busdaycalendar:
    """Weekdays of some years, both included, but for the holidays of each of the currencies."""
    years = range(first_year, last_year + 1)
    closed = {day for year in years for currency in currencies for day in _holidays(currency, year)}
    return np.busdaycalendar(holidays=np.array(sorted(closed), dtype="datetime64[D]"))


@lru_cache(maxsize=1024)
def _holidays(currency: str, year: int) -> frozenset[date]:
    if currency not in _MARKETS:
        return frozenset()
    code = _MARKETS[currency][0]
    with warnings.catch_warnings():
        # Of years in which a calendar knows none.
        warnings.filterwarnings("ignore", "Requested Holidays are available only from", UserWarning)
        if code == "ECB":
            return frozenset(holidays.financial_holidays("ECB", years=year))
        return frozenset(holidays.country_holidays(code, years=year))
