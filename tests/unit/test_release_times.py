"""When values become known, and what a run at eight in Santiago therefore uses."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import holidays
import numpy as np
import pandas as pd
import pytest

from forex_core.calendars import next_weekday, origin_instant, origin_instants
from forex_core.data import series as rules
from forex_core.data.bundle import load_bundle
from forex_core.data.catalogue import ENTRIES, YAHOO, entry, spot_name
from forex_core.data.observations import Observations
from forex_core.data.providers.stored import StoredProvider
from forex_core.data.store import ObservationStore
from forex_core.testing import TableProvider, synthetic_table
from forex_core.types import Pair

USDCLP = Pair("USD", "CLP")
# Chile puts its clocks back on 2024-04-07 and forward on 2024-09-08, the US forward on 03-10 and back on 11-03, the
# European Union forward on 03-31 and back on 10-27.
ODD_DAYS = [
    *pd.bdate_range("2024-02-27", "2024-03-15"),  # a 29 February, clocks in New York
    *pd.bdate_range("2024-03-28", "2024-04-10"),  # in Frankfurt, then in Santiago
    *pd.bdate_range("2024-09-05", "2024-09-11"),
    *pd.bdate_range("2024-10-24", "2024-11-06"),
    *pd.bdate_range("2023-12-27", "2024-01-04"),  # a year's end
    *pd.bdate_range("2024-12-27", "2025-01-03"),
]


@pytest.mark.parametrize(
    ("rule", "day", "instant"),
    [
        (rules.MARKET_CLOSE, "2024-03-08", "2024-03-08 22:00"),
        (rules.MARKET_CLOSE, "2024-03-11", "2024-03-11 21:00"),
        (rules.MARKET_CLOSE, "2024-11-01", "2024-11-01 21:00"),
        (rules.MARKET_CLOSE, "2024-11-04", "2024-11-04 22:00"),
        (rules.SPOT_CLOSE, "2024-03-28", "2024-03-29 00:00"),
        (rules.SPOT_CLOSE, "2024-04-01", "2024-04-01 23:00"),
        (rules.ECB_FIXING, "2024-03-28", "2024-03-28 15:15"),
        (rules.ECB_FIXING, "2024-04-02", "2024-04-02 14:15"),
        (rules.OBSERVED_RATE, "2024-04-05", "2024-04-05 21:00"),
        (rules.OBSERVED_RATE, "2024-04-08", "2024-04-08 22:00"),
        (rules.DECIDED_RATE, "2024-09-06", "2024-09-06 22:00"),
        (rules.DECIDED_RATE, "2024-09-09", "2024-09-09 21:00"),
        (rules.NEXT_BUSINESS_DAY, "2024-03-08", "2024-03-11 20:15"),
        (rules.NEXT_BUSINESS_DAY, "2024-12-31", "2025-01-02 21:15"),
        (rules.NEXT_BUSINESS_DAY, "2026-10-09", "2026-10-13 20:15"),  # over Columbus Day
        (rules.NEXT_BUSINESS_DAY, "2026-10-11", "2026-10-13 20:15"),
        (rules.MONTHLY_AVERAGE, "2024-02-29", "2024-03-11 12:00"),  # the 10th is a Sunday
        (rules.MONTHLY_AVERAGE, "2023-12-01", "2024-01-10 12:00"),
        (rules.INFLATION, "2024-02-29", "2024-03-11 12:00"),  # the 9th is a Saturday
        (rules.INFLATION, "2024-06-30", "2024-07-09 13:00"),
        (rules.COPPER_CASH, "2024-02-28", "2024-02-29 15:00"),
        (rules.COPPER_CASH, "2024-03-01", "2024-03-04 15:00"),
        (rules.COPPER_CASH, "2024-09-17", "2024-09-23 15:00"),  # over Chile's national days
        (rules.WEEKLY_H10, "2018-12-21", "2018-12-26 21:15"),  # the Tuesday is Christmas
        (rules.WEEKLY_H10, "2024-02-26", "2024-03-05 21:15"),
        (rules.WEEKLY_H10, "2024-03-08", "2024-03-12 20:15"),
    ],
)
def test_rules_follow_the_clocks_of_their_own_place(rule: rules.Release, day: str, instant: str) -> None:
    (known,) = rule.instants(pd.DatetimeIndex([day]))
    assert known == pd.Timestamp(instant, tz="UTC")


@pytest.mark.parametrize(
    ("rule", "zone", "calendar"),
    [
        (rules.NEXT_BUSINESS_DAY, "America/New_York", "US"),
        (rules.WEEKLY_H10, "America/New_York", "US"),
        (rules.COPPER_CASH, "America/Santiago", "CL"),
        (rules.INFLATION, "America/Santiago", "CL"),
        (rules.MONTHLY_AVERAGE, "America/Santiago", "CL"),
    ],
)
def test_nobody_publishes_on_a_holiday_of_his_place(rule: rules.Release, zone: str, calendar: str) -> None:
    days = pd.date_range("2010-01-01", "2026-12-31")
    published = pd.DatetimeIndex(rule.instants(days).tz_convert(zone).date)
    closed = holidays.country_holidays(calendar, years=range(2010, 2029))
    assert (published.day_of_week < 5).all()
    assert not [day for day in published if day.date() in closed]
    assert published.is_monotonic_increasing
    assert (published > days).all()


def test_the_rate_of_the_friday_before_columbus_day_is_unknown_on_the_tuesday_after() -> None:
    eight = origin_instant(USDCLP, date(2026, 10, 12))
    assert eight.tz_convert("America/Santiago").strftime("%a %H:%M") == "Tue 08:00"
    thursdays, fridays = entry("fed_rate").definition.release.instants(
        pd.DatetimeIndex(["2026-10-08", "2026-10-09"])
    )
    assert thursdays < eight < fridays


@pytest.mark.parametrize("name", ["usdclp_close", "usdclp_observed", "copper", "vix"])
@pytest.mark.parametrize("day", ODD_DAYS, ids=lambda day: f"{day:%Y-%m-%d}")
def test_at_eight_in_santiago_yesterdays_value_is_known_and_todays_is_not(
    name: str, day: pd.Timestamp
) -> None:
    today = next_weekday(day.date())
    eight = origin_instant(USDCLP, day.date())
    assert eight.tz_convert("America/Santiago").strftime("%Y-%m-%d %H:%M") == f"{today} 08:00"
    yesterdays, todays = entry(name).definition.release.instants(pd.DatetimeIndex([day, pd.Timestamp(today)]))
    assert yesterdays < eight < todays


@pytest.mark.parametrize(
    "day", ["2024-02-29", "2024-03-01", "2024-03-11", "2024-04-08", "2024-09-09", "2024-11-04", "2025-01-02"]
)
def test_a_run_at_eight_in_santiago_ends_with_the_close_before(day: str) -> None:
    table = synthetic_table(700, start="2022-09-01")
    eight = pd.Timestamp(f"{day} 08:00", tz="America/Santiago")
    bundle = load_bundle(TableProvider(table), USDCLP, eight)
    before = pd.Timestamp(day) - pd.offsets.BDay(1)
    assert bundle.dates[-1] == before
    assert bundle.spot[-1] == table.loc[table["Date"] == f"{before:%Y-%m-%d}", "USDCLP"].item()
    assert bundle.instants[-1] == eight.tz_convert("UTC")


@pytest.mark.parametrize(
    "pair", [USDCLP, Pair("USD", "JPY"), Pair("USD", "KRW"), Pair("NZD", "AUD")], ids=str
)
def test_a_row_knows_its_own_close_and_no_price_of_a_day_that_goes_on(pair: Pair, tmp_path: Path) -> None:
    """Eight in Tokyo is 23:00 UTC, an hour before London's day is over in winter."""
    name, days = spot_name(pair, "close"), pd.bdate_range("2022-12-26", "2024-12-31")
    closes = np.exp(np.random.default_rng(0).normal(0, 0.005, len(days)).cumsum())
    store = ObservationStore(f"sqlite:///{tmp_path}/forex.db")
    store.record(Observations(name, YAHOO, days, closes, entry(name).definition.release.instants(days)))
    bundle = load_bundle(StoredProvider(store, "close", ()), pair, days[-1].date())
    np.testing.assert_array_equal(bundle.spot, closes)
    over = (days + pd.Timedelta(days=1)).tz_localize("Europe/London")
    assert (bundle.instants >= over).all()


@pytest.mark.parametrize("name", [*ENTRIES, "usdclp_close", "usdclp_observed", "eurusd_reference"])
def test_what_is_of_a_later_day_is_never_known_earlier(name: str) -> None:
    days = pd.bdate_range("2019-12-30", "2026-12-31")
    known = entry(name).definition.release.instants(days)
    assert known.is_monotonic_increasing
    assert (known >= days.tz_localize("UTC")).all(), "nothing is known before its day begins"


def test_rows_speak_in_order_through_every_change_of_the_clocks() -> None:
    days = pd.bdate_range("2015-01-01", "2026-12-31")
    for pair in (USDCLP, Pair("EUR", "USD"), Pair("USD", "JPY")):
        instants = origin_instants(pair, days)
        assert instants.is_monotonic_increasing
        assert instants.is_unique
