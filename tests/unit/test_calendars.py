"""Business days, desk time and target dates."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forex_core.calendars import (
    business_day_numbers,
    desk_zone,
    is_business_day,
    latest_origin,
    next_weekday,
    origin_instant,
    origin_instants,
    target_dates,
)
from forex_core.types import HORIZONS, Horizon, Pair

USDCLP, USDMXN, EURUSD = Pair("USD", "CLP"), Pair("USD", "MXN"), Pair("EUR", "USD")
PAIRS = (USDCLP, USDMXN, EURUSD, Pair("USD", "JPY"), Pair("AUD", "NZD"), Pair("USD", "XAU"))
REPEATABLE = settings(deadline=None, derandomize=True, database=None, max_examples=150)

days = st.dates(date(1995, 1, 1), date(2030, 12, 31))


class TestTargetDates:
    def test_leave_out_the_chilean_national_days_and_do_not_shift_what_follows(self) -> None:
        found = target_dates(USDCLP, date(2025, 9, 12), Horizon(7))
        assert found == (
            (1, date(2025, 9, 15)),
            (2, date(2025, 9, 16)),
            (3, date(2025, 9, 17)),
        )
        assert target_dates(USDCLP, date(2023, 9, 15), Horizon(7)) == (
            (3, date(2023, 9, 20)),
            (4, date(2023, 9, 21)),
            (5, date(2023, 9, 22)),
        )

    def test_chilean_days_do_not_matter_to_another_pair(self) -> None:
        steps = [step for step, _ in target_dates(EURUSD, date(2023, 9, 15), Horizon(7))]
        assert steps == [1, 2, 3, 4, 5]

    def test_leave_out_united_states_holidays(self) -> None:
        thanksgiving = target_dates(USDCLP, date(2024, 11, 22), Horizon(7))
        assert [d.day for _, d in thanksgiving] == [25, 26, 27, 29]
        fourth_of_july = target_dates(USDMXN, date(2024, 7, 1), Horizon(7))
        assert [(step, d.day) for step, d in fourth_of_july] == [(1, 2), (2, 3), (4, 5), (5, 8)]

    def test_cross_the_end_of_a_year(self) -> None:
        found = target_dates(USDCLP, date(2024, 12, 20), Horizon(15))
        assert [d.isoformat() for _, d in found] == [
            "2024-12-23",
            "2024-12-24",
            "2024-12-26",
            "2024-12-27",
            "2024-12-30",
            "2024-12-31",
            "2025-01-02",
            "2025-01-03",
        ]
        assert [step for step, _ in found] == [1, 2, 4, 5, 6, 7, 9, 10]

    def test_of_a_leap_year_hold_29_february(self) -> None:
        assert (1, date(2024, 2, 29)) in target_dates(USDCLP, date(2024, 2, 28), Horizon(7))
        assert target_dates(USDCLP, date(2024, 2, 29), Horizon(7))[0] == (1, date(2024, 3, 1))
        assert target_dates(USDCLP, date(2023, 2, 28), Horizon(7))[0] == (1, date(2023, 3, 1))

    def test_the_last_day_of_the_horizon_is_in_and_the_origin_is_not(self) -> None:
        found = [d for _, d in target_dates(EURUSD, date(2024, 6, 5), Horizon(7))]
        assert found[0] == date(2024, 6, 6)
        assert found[-1] == date(2024, 6, 12)

    @pytest.mark.parametrize(
        ("horizon", "weekdays"), [(7, {5}), (15, {10, 11}), (30, {20, 21, 22}), (90, {64})]
    )
    def test_last_weekday_is_close_to_the_steps_that_are_scored(
        self, horizon: int, weekdays: set[int]
    ) -> None:
        """Of a pair without holidays, from every weekday of a fortnight."""
        nowhere = Pair("XAU", "XAG")
        counts = {
            len(target_dates(nowhere, origin.date(), Horizon(horizon)))
            for origin in pd.bdate_range("2024-05-06", periods=10)
        }
        assert counts == weekdays
        assert Horizon(horizon).evaluation_steps in weekdays

    @REPEATABLE
    @given(days, st.sampled_from(HORIZONS), st.sampled_from(PAIRS))
    def test_are_the_business_days_of_the_span_numbered_by_weekdays(
        self, origin: date, horizon: Horizon, pair: Pair
    ) -> None:
        span = [origin + timedelta(days=k) for k in range(1, horizon.days + 1)]
        weekdays = [d for d in span if d.weekday() < 5]
        expected = [(h, d) for h, d in enumerate(weekdays, start=1) if is_business_day(pair, d)]
        assert list(target_dates(pair, origin, horizon)) == expected


class TestOriginInstant:
    @pytest.mark.parametrize(
        ("pair", "row", "instant"),
        [
            # Chile leaves summer time on the first Saturday of April and takes it up on that of September.
            (USDCLP, date(2024, 4, 4), "2024-04-05T11:00"),
            (USDCLP, date(2024, 4, 5), "2024-04-08T12:00"),
            (USDCLP, date(2024, 9, 5), "2024-09-06T12:00"),
            (USDCLP, date(2024, 9, 6), "2024-09-09T11:00"),
            # The United States change on 10 March and 3 November 2024.
            (EURUSD, date(2024, 3, 7), "2024-03-08T13:00"),
            (EURUSD, date(2024, 3, 8), "2024-03-11T12:00"),
            (EURUSD, date(2024, 10, 31), "2024-11-01T12:00"),
            (EURUSD, date(2024, 11, 1), "2024-11-04T13:00"),
            # Mexico changed in 2022 for the last time.
            (USDMXN, date(2022, 3, 31), "2022-04-01T14:00"),
            (USDMXN, date(2022, 4, 1), "2022-04-04T13:00"),
            (USDMXN, date(2022, 10, 27), "2022-10-28T13:00"),
            (USDMXN, date(2022, 10, 28), "2022-10-31T14:00"),
            (USDMXN, date(2023, 7, 3), "2023-07-04T14:00"),
            # Across 29 February, and from a weekend.
            (USDCLP, date(2024, 2, 28), "2024-02-29T11:00"),
            (USDCLP, date(2024, 2, 29), "2024-03-01T11:00"),
            (USDCLP, date(2024, 6, 29), "2024-07-01T12:00"),
            (USDCLP, date(2024, 6, 30), "2024-07-01T12:00"),
        ],
    )
    def test_is_eight_at_the_desk_on_the_next_weekday(self, pair: Pair, row: date, instant: str) -> None:
        found = origin_instant(pair, row)
        assert found == pd.Timestamp(instant, tz="UTC")
        assert found.tz_convert(desk_zone(pair)).strftime("%H:%M") == "08:00"

    def test_speaks_in_utc_where_the_desk_is_not_known(self) -> None:
        assert str(desk_zone(Pair("USD", "XAU"))) == "UTC"
        assert origin_instant(Pair("USD", "XAU"), date(2024, 6, 28)) == pd.Timestamp("2024-07-01T08:00Z")

    @REPEATABLE
    @given(st.lists(days, min_size=1, max_size=20), st.sampled_from(PAIRS))
    def test_of_many_days_is_that_of_each(self, asked: list[date], pair: Pair) -> None:
        together = origin_instants(pair, pd.DatetimeIndex([pd.Timestamp(d) for d in asked]))
        assert list(together) == [origin_instant(pair, d) for d in asked]

    @REPEATABLE
    @given(days)
    def test_next_weekday_is_the_first_one_after(self, day: date) -> None:
        following = next_weekday(day)
        assert following.weekday() < 5
        between = [day + timedelta(days=k) for k in range(1, (following - day).days)]
        assert following > day
        assert all(d.weekday() >= 5 for d in between)


class TestLatestOrigin:
    @pytest.mark.parametrize(
        ("instant", "newest"),
        [
            ("2024-07-01T11:59:59", date(2024, 6, 27)),  # a second before the desk opens on Monday
            ("2024-07-01T12:00:00", date(2024, 6, 28)),
            ("2024-06-29T20:00:00", date(2024, 6, 27)),  # a weekend: Friday speaks on Monday
            ("2024-07-05T12:00:00", date(2024, 7, 3)),  # the fourth of July had no close
            ("2024-07-08T12:00:00", date(2024, 7, 5)),
            ("2024-09-23T11:00:00", date(2024, 9, 17)),  # Chile's national days, three that year
            ("2024-09-24T11:00:00", date(2024, 9, 23)),
        ],
    )
    def test_is_the_last_business_day_that_is_known(self, instant: str, newest: date) -> None:
        assert latest_origin(USDCLP, pd.Timestamp(instant, tz="UTC")) == newest

    def test_is_the_same_in_every_time_zone(self) -> None:
        at = pd.Timestamp("2024-07-01T12:00", tz="UTC")
        for zone in ("America/Santiago", "Pacific/Auckland", "Pacific/Honolulu"):
            assert latest_origin(USDCLP, at.tz_convert(zone)) == date(2024, 6, 28)
            assert latest_origin(USDCLP, (at - pd.Timedelta("1s")).tz_convert(zone)) == date(2024, 6, 27)

    @REPEATABLE
    @given(st.datetimes(datetime(1995, 1, 2), datetime(2030, 12, 31)), st.sampled_from(PAIRS))
    def test_has_spoken_and_the_next_business_day_has_not(self, moment: datetime, pair: Pair) -> None:
        instant = moment.replace(tzinfo=UTC)
        newest = latest_origin(pair, instant)
        assert is_business_day(pair, newest)
        assert origin_instant(pair, newest) <= instant
        later = next(d for k in range(1, 20) if is_business_day(pair, d := newest + timedelta(days=k)))
        assert origin_instant(pair, later) > instant


class TestBusinessDays:
    @pytest.mark.parametrize(
        ("day", "chile", "mexico"),
        [
            (date(2024, 9, 18), False, True),  # Chile's national day
            (date(2024, 9, 19), False, True),
            (date(2024, 9, 16), True, False),  # Mexico's
            (date(2024, 7, 4), False, False),  # the United States', in both pairs
            (date(2023, 1, 2), False, False),  # New Year's Day of the United States, observed
            (date(2024, 1, 1), False, False),
            (date(2024, 12, 25), False, False),
            (date(2024, 6, 29), False, False),  # a Saturday
            (date(2024, 2, 29), True, True),
            (date(2024, 12, 31), True, True),
        ],
    )
    def test_need_both_markets_open(self, day: date, chile: bool, mexico: bool) -> None:
        assert is_business_day(USDCLP, day) is chile
        assert is_business_day(USDMXN, day) is mexico

    def test_of_the_euro_are_those_of_its_payment_system(self) -> None:
        assert not is_business_day(Pair("EUR", "SEK"), date(2024, 4, 1))  # Easter Monday
        assert is_business_day(EURUSD, date(2024, 10, 3))  # a German holiday, not the euro's

    @pytest.mark.parametrize("pair", PAIRS)
    def test_numbers_go_up_by_one_and_are_minus_one_on_other_days(self, pair: Pair) -> None:
        index = pd.date_range("2009-12-20", "2026-01-10")
        numbers = business_day_numbers(pair, index)
        open_days = np.array([is_business_day(pair, d.date()) for d in index])
        np.testing.assert_array_equal(numbers >= 0, open_days)
        assert (numbers[~open_days] == -1).all()
        assert (np.diff(numbers[open_days]) == 1).all()

    def test_numbers_do_not_depend_on_which_days_are_asked(self) -> None:
        index = pd.bdate_range("2010-01-01", "2024-12-31")
        whole = business_day_numbers(USDCLP, index)
        np.testing.assert_array_equal(business_day_numbers(USDCLP, index[:1000]), whole[:1000])
        np.testing.assert_array_equal(
            business_day_numbers(USDCLP, index[[5, 900, 3000]]), whole[[5, 900, 3000]]
        )

    def test_numbers_start_with_the_first_business_day_of_1990(self) -> None:
        numbers = business_day_numbers(EURUSD, pd.DatetimeIndex(["1990-01-01", "1990-01-02", "1990-01-03"]))
        assert list(numbers) == [-1, 0, 1]

    def test_every_fifth_business_day_visits_all_weekdays(self) -> None:
        index = pd.bdate_range("2018-01-01", "2024-06-28")
        numbers = business_day_numbers(USDCLP, index)
        assert set(index[(numbers >= 0) & (numbers % 5 == 0)].day_of_week) == {0, 1, 2, 3, 4}
