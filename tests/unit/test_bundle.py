"""The bundle: each row shows what was known at its origin, and nothing that comes later changes it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forex_core.calendars import origin_instants
from forex_core.data.bundle import STALE_AFTER_WEEKDAYS, load_bundle
from forex_core.data.providers.csv_files import CsvProvider
from forex_core.data.providers.ecb import EcbProvider
from forex_core.errors import DataQualityError, InputError
from forex_core.testing import USDCLP, bundle_of, synthetic_table
from forex_core.types import MarketBundle, Pair, Repair

REPEATABLE = settings(deadline=None, derandomize=True, database=None, max_examples=60)


def closes(values: Sequence[float], start: str = "2020-01-06", **drivers: Sequence[float]) -> pd.DataFrame:
    """A table of consecutive weekdays."""
    days = pd.bdate_range(start, periods=len(values))
    return pd.DataFrame({"Date": days, "USDCLP": np.asarray(values, dtype=float), **drivers})


def utc(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")


def at(bundle: MarketBundle, day: str) -> int:
    """Row of a day."""
    return int(bundle.dates.get_loc(pd.Timestamp(day)))


def repairs(bundle: MarketBundle, kind: str) -> list[Repair]:
    return [r for r in bundle.repairs if r.kind == kind]


class TestRows:
    def test_are_the_weekdays_from_the_first_close_to_the_last(self) -> None:
        table = closes(np.linspace(700, 720, 30)).drop(index=[3, 4, 17])
        bundle = bundle_of(table)
        assert list(bundle.dates) == list(pd.bdate_range("2020-01-06", periods=30))
        np.testing.assert_array_equal(np.isnan(bundle.truth).nonzero()[0], [3, 4, 17])

    def test_speak_at_eight_at_the_desk_on_the_next_weekday(self) -> None:
        bundle = bundle_of(closes(np.linspace(700, 720, 300)))
        expected = origin_instants(USDCLP, bundle.dates)
        assert list(bundle.instants) == list(expected)
        assert bundle.instants.is_monotonic_increasing

    def test_wait_for_the_close_where_the_desk_opens_before_it(self) -> None:
        """Eight in Auckland is the evening before in New York, an hour or three ahead of the close there."""
        table = closes(np.linspace(1.05, 1.1, 300)).rename(columns={"USDCLP": "AUDNZD"})
        bundle = bundle_of(table, Pair("AUD", "NZD"))
        closed = (bundle.dates + pd.Timedelta(hours=17)).tz_localize("America/New_York")
        assert (origin_instants(bundle.pair, bundle.dates)[:4] < closed[:4]).all()
        assert (bundle.instants >= closed).all()
        np.testing.assert_array_equal(bundle.spot, table["AUDNZD"])
        np.testing.assert_array_equal(bundle.truth_known, np.arange(300))

    def test_a_hole_carries_the_close_before_it_and_is_never_scored(self) -> None:
        bundle = bundle_of(closes([700, 701, np.nan, np.nan, 704, np.nan]))
        np.testing.assert_array_equal(bundle.spot, [700, 701, 701, 701, 704, 704])
        np.testing.assert_array_equal(bundle.truth, [700, 701, np.nan, np.nan, 704, np.nan])
        assert [r.count for r in repairs(bundle, "hole")] == [3]
        assert list(bundle.truth_known) == [0, 1, 6, 6, 4, 6]

    def test_leading_holes_make_no_rows(self) -> None:
        bundle = bundle_of(closes([np.nan, np.nan, 700, 701]))
        assert bundle.dates[0] == pd.Timestamp("2020-01-08")

    def test_weekend_prints_are_taken_out(self) -> None:
        table = pd.DataFrame(
            {
                "Date": pd.to_datetime(
                    ["2024-06-27", "2024-06-28", "2024-06-29", "2024-06-30", "2024-07-02"]
                ),
                "USDCLP": [940.0, 941.0, 942.0, 943.0, 944.0],
            }
        )
        bundle = bundle_of(table)
        assert list(bundle.dates.day_of_week) == [3, 4, 0, 1]
        np.testing.assert_array_equal(bundle.spot, [940, 941, 941, 944])
        np.testing.assert_array_equal(bundle.truth, [940, 941, np.nan, 944])
        (said,) = repairs(bundle, "weekend")
        assert (said.found, said.count) == (942, 2)

    def test_a_feed_gone_silent_offers_no_origins(self) -> None:
        """Empty cells after the last print are rows for three weekdays; then there is no close to start from."""
        table = closes([*np.linspace(700, 720, 30), *[np.nan] * 20])
        bundle = bundle_of(table)
        assert len(bundle) == 33
        assert bundle.spot[-1] == 720

    def test_weekends_alone_are_refused(self) -> None:
        table = pd.DataFrame(
            {"Date": pd.to_datetime(["2024-06-29", "2024-06-30"]), "USDCLP": [1.0, 2.0], "Oil": [1.0, 2.0]}
        )
        with pytest.raises(DataQualityError, match="no usable value on a weekday"):
            bundle_of(table)

    @pytest.mark.parametrize("rows", [2, 100, 400])
    def test_a_constant_series_is_refused(self, rows: int) -> None:
        with pytest.raises(DataQualityError, match=r"has not moved .*always 700"):
            bundle_of(closes([700.0] * rows))

    def test_one_that_stopped_moving_a_year_ago_is_refused(self) -> None:
        with pytest.raises(DataQualityError, match="has not moved in its last 250 rows"):
            bundle_of(closes([*np.linspace(600, 700, 100), *[700.0] * 260]))

    def test_a_driver_without_values_stays_and_is_nan(self) -> None:
        bundle = bundle_of(closes([700, 701, 702], Copper=[np.nan] * 3, Oil=[np.nan, 50.0, 51.0]))
        assert bundle.driver_names == ("Copper", "Oil")
        np.testing.assert_array_equal(bundle.drivers[:, 0], [np.nan] * 3)
        np.testing.assert_array_equal(bundle.drivers[:, 1], [np.nan, 50, 51])

    def test_a_pair_may_come_without_drivers(self) -> None:
        assert bundle_of(closes([700, 701, 702])).drivers.shape == (3, 0)


class TestBadPrints:
    def test_one_that_comes_back_is_never_shown(self) -> None:
        bundle = bundle_of(closes([700, 702, 7.03, 704, 705]))
        np.testing.assert_array_equal(bundle.spot, [700, 702, 702, 704, 705])
        np.testing.assert_array_equal(bundle.truth, [700, 702, np.nan, 704, 705])
        assert [(r.day, r.found) for r in repairs(bundle, "refuted")] == [(date(2020, 1, 8), 7.03)]

    def test_as_of_its_own_day_it_is_held_back(self) -> None:
        bundle = bundle_of(closes([700, 702, 7.03, 704, 705]), as_of=date(2020, 1, 8))
        np.testing.assert_array_equal(bundle.spot, [700, 702, 702])
        assert np.isnan(bundle.truth[2])
        assert bundle.origin == date(2020, 1, 8)
        assert [r.kind for r in bundle.repairs] == ["held", "hole"]

    def test_a_real_jump_is_used_from_the_next_row_on(self) -> None:
        table = closes([700, 702, 1000, 1010, 1005])
        bundle = bundle_of(table)
        np.testing.assert_array_equal(bundle.spot, [700, 702, 702, 1010, 1005])
        np.testing.assert_array_equal(bundle.truth, [700, 702, 1000, 1010, 1005])
        assert list(bundle.truth_known) == [0, 1, 3, 3, 4]
        held = bundle_of(table, as_of=date(2020, 1, 8))
        np.testing.assert_array_equal(held.spot, [700, 702, 702])
        assert held.truth_known[2] == len(held)

    def test_a_slip_of_three_days_is_refuted_when_it_comes_back(self) -> None:
        bundle = bundle_of(closes([700, 702, 7.03, 7.01, 7.05, 706, 707]))
        np.testing.assert_array_equal(bundle.spot, [700, 702, 702, 702, 702, 706, 707])
        assert len(repairs(bundle, "refuted")) == 3

    def test_a_redenomination_is_accepted_after_five_confirmations(self) -> None:
        new = [7.02, 7.03, 7.01, 7.05, 7.06, 7.07, 7.08]
        bundle = bundle_of(closes([700, 702, *new]))
        np.testing.assert_array_equal(bundle.spot, [700, 702, 702, 702, 702, 702, 702, 7.07, 7.08])
        assert list(bundle.truth_known) == [0, 1, 7, 7, 7, 7, 7, 7, 8]

    def test_zero_and_negative_closes_are_taken_out(self) -> None:
        bundle = bundle_of(closes([700, 0, 702, -1, 704]))
        np.testing.assert_array_equal(bundle.spot, [700, 700, 702, 702, 704])
        assert [(r.found, r.count) for r in repairs(bundle, "not_positive")] == [(0, 2)]

    def test_a_negative_driver_is_kept(self) -> None:
        bundle = bundle_of(closes([850, 851, 852], Oil=[18.3, -37.63, 10.0]))
        np.testing.assert_array_equal(bundle.drivers[:, 0], [18.3, -37.63, 10.0])


class TestAsOf:
    def test_a_date_stands_for_its_origin(self) -> None:
        table = closes(np.linspace(700, 720, 30), start="2024-06-03")
        bundle = bundle_of(table, as_of=date(2024, 6, 14))
        assert bundle.as_of == utc("2024-06-17T12:00")  # Monday at 8 in Santiago
        assert bundle.origin == date(2024, 6, 14)
        assert bundle.instants[-1] == bundle.as_of

    def test_a_row_is_not_used_before_its_release(self) -> None:
        """A row dated today is a live quote until 17:00 in New York, 21:00 UTC in summer."""
        table = closes(np.linspace(700, 720, 20), start="2024-06-03", Copper=np.linspace(4, 5, 20))
        before = bundle_of(table, as_of=utc("2024-06-28T20:59:59"))
        after = bundle_of(table, as_of=utc("2024-06-28T21:00:00"))
        assert before.origin == date(2024, 6, 27)
        assert after.origin == date(2024, 6, 28)
        assert before.drivers[-1, 0] == table["Copper"].iloc[-2]
        assert after.drivers[-1, 0] == table["Copper"].iloc[-1]
        assert after.instants[-1] == after.as_of  # it speaks now, not on Monday
        assert after.truth_known[-1] == len(after) - 1

    def test_the_hour_of_release_moves_with_the_clocks_of_new_york(self) -> None:
        table = closes(np.linspace(700, 720, 20), start="2024-01-01")
        assert bundle_of(table, as_of=utc("2024-01-10T21:59:59")).origin == date(2024, 1, 9)
        assert bundle_of(table, as_of=utc("2024-01-10T22:00:00")).origin == date(2024, 1, 10)

    def test_now_uses_no_row_of_the_future(self) -> None:
        today = pd.Timestamp.now(tz="UTC").tz_localize(None).normalize()
        days = pd.bdate_range(end=today + pd.Timedelta(days=30), periods=80)
        table = pd.DataFrame({"Date": days, "USDCLP": np.linspace(700, 900, 80)})
        bundle = bundle_of(table)
        assert today - pd.Timedelta(days=5) <= pd.Timestamp(bundle.origin) <= today
        assert bundle.spot[-1] == bundle.truth[-1]
        assert bundle.instants[-1] <= bundle.as_of

    def test_in_the_future_or_before_the_data_is_refused(self) -> None:
        table = closes(np.linspace(700, 720, 20), start="2024-01-01")
        with pytest.raises(InputError, match="lies in the future"):
            bundle_of(table, as_of=date(2200, 1, 1))
        with pytest.raises(InputError, match="lies in the future"):
            bundle_of(table, as_of=utc("2200-01-01"))
        with pytest.raises(InputError, match="first row of USDCLP is of 2024-01-01"):
            bundle_of(table, as_of=date(2023, 12, 29))

    def test_a_plain_datetime_is_an_instant_too(self) -> None:
        table = closes(np.linspace(700, 720, 20), start="2024-01-01")
        bundle = bundle_of(table, as_of=datetime(2024, 1, 10, 21, 59, tzinfo=UTC))
        assert bundle.as_of == utc("2024-01-10T21:59")
        assert bundle.origin == date(2024, 1, 9)

    def test_without_a_zone_an_instant_is_utc(self) -> None:
        table = closes(np.linspace(700, 720, 20), start="2024-01-01")
        naive, aware = (
            pd.Timestamp("2024-01-10 22:00"),
            pd.Timestamp("2024-01-10 17:00", tz="America/New_York"),
        )
        assert bundle_of(table, as_of=naive).as_of == bundle_of(table, as_of=aware).as_of


class TestStale:
    def test_is_counted_from_the_as_of_date(self) -> None:
        table = closes(np.linspace(700, 720, 20), start="2024-06-03")  # to Friday 28 June
        noon = pd.Timedelta(hours=12)
        for day in pd.date_range("2024-06-29", "2024-07-12"):
            bundle = bundle_of(table, as_of=(day + noon).tz_localize("UTC"))
            weekdays = len(pd.bdate_range("2024-06-28", day)) - (1 if day.day_of_week < 5 else 0)
            assert bool(repairs(bundle, "stale")) == (weekdays > STALE_AFTER_WEEKDAYS), day
        assert "2024-06-28, 14 days before" in repairs(bundle, "stale")[0].note

    def test_an_old_driver_is_not_used_and_listed(self) -> None:
        copper = [4.0] * 9 + [np.nan] * 31  # the 15th day after is a Friday
        bundle = bundle_of(closes(np.linspace(700, 720, 40), start="2024-04-01", Copper=copper))
        last = at(bundle, "2024-04-11")
        used = ~np.isnan(bundle.drivers[:, 0])
        age = (bundle.dates - bundle.dates[last]).days
        np.testing.assert_array_equal(used, age <= 15)
        assert [(r.series, r.day) for r in repairs(bundle, "stale") if r.series == "Copper"] == [
            ("Copper", date(2024, 4, 11))
        ]


@pytest.fixture
def rates(tmp_path: Path) -> MarketBundle:
    """Policy rates by calendar day beside a spot: the Chilean one is 10 times its month, the other its day."""
    calendar = pd.date_range("2021-08-01", "2021-12-31")
    chile = 10.0 * calendar.month
    fed = calendar.day_of_year / 1000
    pd.DataFrame(
        {
            "date": calendar.strftime("%Y-%m-%d"),
            "fed_rate": fed,
            "chile_rate": chile,
            "rate_differential": 999.0,
        }
    ).to_csv(tmp_path / "rates.csv", index=False)
    days = pd.bdate_range("2021-08-02", "2021-12-30")
    pd.DataFrame({"Date": days.strftime("%Y-%m-%d"), "USDCLP": 800 + np.arange(len(days)) % 9}).to_csv(
        tmp_path / "market.csv", index=False
    )
    return load_bundle(CsvProvider((tmp_path / "market.csv", tmp_path / "rates.csv")), USDCLP)


class TestReleaseRules:
    def value(self, bundle: MarketBundle, name: str, day: str) -> float:
        return float(bundle.drivers[at(bundle, day), bundle.driver_names.index(name)])

    @pytest.mark.parametrize(
        ("last_without", "first_with", "month"),
        [
            ("2021-11-09", "2021-11-10", 10),  # the 10th is a Wednesday
            ("2021-10-11", "2021-10-12", 9),  # a Sunday, and the Monday after it a holiday in Chile
            ("2021-12-09", "2021-12-10", 11),
        ],
    )
    def test_a_monthly_average_is_known_from_the_tenth_of_the_following_month(
        self, rates: MarketBundle, last_without: str, first_with: str, month: int
    ) -> None:
        """At 9 in Santiago on a business day: after the origin that speaks on it at 8, before the next one."""
        assert self.value(rates, "chile_rate", last_without) == 10 * (month - 1)
        assert self.value(rates, "chile_rate", first_with) == 10 * month
        row = at(rates, last_without)
        nine = pd.Timestamp(f"{first_with} 09:00", tz="America/Santiago")
        assert rates.instants[row] < nine <= rates.instants[row + 1]

    def test_no_row_ever_shows_an_average_that_was_not_out(self, rates: MarketBundle) -> None:
        column = rates.drivers[:, rates.driver_names.index("chile_rate")]
        local = rates.instants.tz_convert("America/Santiago")
        day_out = np.where(local.month == 10, 12, 10)
        last_out = np.where(
            (local.day > day_out) | ((local.day == day_out) & (local.hour >= 9)),
            local.month - 1,
            local.month - 2,
        )
        shown = ~np.isnan(column)
        np.testing.assert_array_equal(column[shown], 10.0 * last_out[shown])
        np.testing.assert_array_equal(shown, last_out >= 8)

    def test_a_daily_rate_is_known_one_business_day_later(self, rates: MarketBundle) -> None:
        def of(day: str) -> float:
            return pd.Timestamp(day).day_of_year / 1000

        assert self.value(rates, "fed_rate", "2021-11-03") == of("2021-11-02")
        assert self.value(rates, "fed_rate", "2021-11-05") == of("2021-11-04")
        assert self.value(rates, "fed_rate", "2021-11-08") == of("2021-11-07")  # Friday's and the weekend's

    def test_the_differential_is_recomputed_and_never_read(self, rates: MarketBundle) -> None:
        names = rates.driver_names
        differential = rates.drivers[:, names.index("rate_differential")]
        expected = rates.drivers[:, names.index("chile_rate")] - rates.drivers[:, names.index("fed_rate")]
        np.testing.assert_array_equal(differential, expected)
        assert np.isfinite(differential).any()
        assert rates.driver_units[names.index("rate_differential")] == "percent per year"
        assert names.count("rate_differential") == 1

    def test_the_differential_is_of_the_rate_in_force_where_there_is_no_average(self, tmp_path: Path) -> None:
        table = closes(700 + np.arange(40) % 9).assign(fed_rate=5.25, chile_tpm=np.arange(40) / 10)
        table.to_csv(tmp_path / "market.csv", index=False)
        table.assign(chile_rate=3.0).to_csv(tmp_path / "both.csv", index=False)
        bundle = load_bundle(CsvProvider((tmp_path / "market.csv",)), USDCLP)
        found = dict(zip(bundle.driver_names, bundle.drivers.T, strict=True))
        assert set(found) == {"fed_rate", "chile_tpm", "rate_differential"}
        np.testing.assert_array_equal(found["rate_differential"], found["chile_tpm"] - found["fed_rate"])
        assert found["chile_tpm"][-1] == 3.9, "decided the evening before: known on its day"
        both = load_bundle(CsvProvider((tmp_path / "both.csv",)), USDCLP)
        found = dict(zip(both.driver_names, both.drivers.T, strict=True))
        np.testing.assert_array_equal(found["rate_differential"], found["chile_rate"] - found["fed_rate"])

    def test_a_differential_by_itself_is_not_read_either(self, tmp_path: Path) -> None:
        table = closes([700, 701, 702]).assign(rate_differential=3.0)
        table.to_csv(tmp_path / "market.csv", index=False)
        assert load_bundle(CsvProvider((tmp_path / "market.csv",)), USDCLP).driver_names == ()


BAD = ("hundredth", "jump", "hole", "zero", "negative driver", "driver hole")


def spoiled(table: pd.DataFrame, faults: Sequence[tuple[int, str]]) -> pd.DataFrame:
    made = table.copy()
    for row, fault in faults:
        if fault == "hundredth":
            made.loc[row, "USDCLP"] /= 100
        elif fault == "jump":
            made.loc[row:, "USDCLP"] *= 1.5
        elif fault == "hole":
            made.loc[row, "USDCLP"] = np.nan
        elif fault == "zero":
            made.loc[row, "USDCLP"] = 0.0
        elif fault == "negative driver":
            made.loc[row, "Copper"] = -1.0
        else:
            made.loc[row, "VIX"] = np.nan
    return made


ROWS = 60
PLAIN = synthetic_table(ROWS, seed=11)
faults = st.lists(st.tuples(st.integers(1, ROWS - 1), st.sampled_from(BAD)), max_size=6)
treatments = st.sampled_from(["times ten", "deleted", "holes", "negative", "reversed", "spot only"])


class TestCanary:
    @REPEATABLE
    @given(faults, st.integers(9, ROWS - 2), treatments)
    def test_later_rows_change_nothing_that_earlier_rows_show(
        self, spoils: list[tuple[int, str]], row: int, treatment: str
    ) -> None:
        table = spoiled(PLAIN, spoils)
        other, later = table.copy(), table.index > row
        prices = list(table.columns[1:])
        if treatment == "times ten":
            other.loc[later, prices] *= 10
        elif treatment == "spot only":
            other.loc[later, "USDCLP"] *= 10
        elif treatment == "deleted":
            other = other[~later]
        elif treatment == "holes":
            other.loc[later, prices] = np.nan
        elif treatment == "negative":
            other.loc[later, prices] *= -1
        else:
            other.loc[later, prices] = other.loc[later, prices].to_numpy()[::-1]
        one, two = bundle_of(table), bundle_of(other)
        shown = slice(0, row + 1)
        assert list(one.dates[shown]) == list(two.dates[shown])
        assert list(one.instants[shown]) == list(two.instants[shown])
        assert one.spot[shown].tobytes() == two.spot[shown].tobytes()
        assert one.drivers[shown].tobytes() == two.drivers[shown].tobytes()
        np.testing.assert_array_equal(one.truth_known[shown] <= row, two.truth_known[shown] <= row)
        known = one.truth_known[shown] <= row
        assert one.truth[shown][known].tobytes() == two.truth[shown][known].tobytes()
        np.testing.assert_array_equal(one.truth_known[shown][known], two.truth_known[shown][known])

    @REPEATABLE
    @given(faults, st.integers(9, ROWS - 1))
    def test_until_is_the_bundle_of_that_day(self, spoils: list[tuple[int, str]], row: int) -> None:
        table = spoiled(PLAIN, spoils)
        early = bundle_of(table, as_of=PLAIN["Date"].pipe(pd.to_datetime)[row].date())
        assert bundle_of(table).until(early.as_of).fingerprint == early.fingerprint

    @pytest.mark.parametrize("text", ["USDMXN", "EURUSD"])
    def test_of_the_embedded_panel(self, text: str) -> None:
        pair = Pair.parse(text)
        whole = load_bundle(EcbProvider(), pair)
        for day in (date(2009, 3, 5), date(2016, 11, 9), date(2020, 3, 18), date(2024, 6, 28)):
            early = load_bundle(EcbProvider(), pair, day)
            assert early.origin == day
            assert whole.until(early.as_of).fingerprint == early.fingerprint


@pytest.fixture(scope="module")
def raw(shared_data: Path) -> CsvProvider:
    return CsvProvider((shared_data / "usdclp_market_daily.csv", shared_data / "policy_rates_daily.csv"))


@pytest.fixture(scope="module")
def real(raw: CsvProvider) -> MarketBundle:
    return load_bundle(raw, USDCLP, date(2024, 6, 28))


@pytest.mark.shared_data
class TestRealData:
    def test_is_alive_from_end_to_end(self, real: MarketBundle) -> None:
        assert (real.dates[0], real.origin) == (pd.Timestamp("2010-11-26"), date(2024, 6, 28))
        assert 440 < real.spot.min() < real.spot.max() < 1100
        moves = np.abs(np.diff(np.log(real.spot)))
        assert moves.max() < np.log(1.15)
        assert real.driver_names == (
            "copper",
            "oil",
            "dxy",
            "sp500",
            "vix",
            "fed_rate",
            "chile_rate",
            "rate_differential",
        )
        assert np.isfinite(real.drivers[-1]).all()
        assert repairs(real, "stale") == []

    def test_both_bad_prints_are_refuted(self, real: MarketBundle) -> None:
        found = [(r.series, r.day, round(r.found or 0, 2)) for r in repairs(real, "refuted")]
        assert found == [("USDCLP", date(2014, 4, 10), 5.46), ("USDCLP", date(2016, 12, 22), 5.0)]
        for day in ("2014-04-10", "2016-12-22"):
            row = at(real, day)
            assert np.isnan(real.truth[row])
            assert real.spot[row] == real.spot[row - 1]
        assert repairs(real, "confirmed") == []

    @pytest.mark.parametrize("day", [date(2014, 4, 10), date(2016, 12, 22)])
    def test_as_of_those_very_days_the_spot_is_sane(
        self, raw: CsvProvider, real: MarketBundle, day: date
    ) -> None:
        then = load_bundle(raw, USDCLP, day)
        assert then.origin == day
        assert then.spot[-1] == then.spot[-2] > 500
        assert [r.day for r in repairs(then, "held")] == [day]
        assert real.until(then.as_of).fingerprint == then.fingerprint

    def test_negative_oil_is_alive(self, real: MarketBundle) -> None:
        oil = real.drivers[:, real.driver_names.index("oil")]
        assert oil[at(real, "2020-04-20")] == pytest.approx(-37.63, abs=0.01)
        assert (oil < 0).sum() == 1
        assert [r for r in real.repairs if r.series == "oil"] == []

    @pytest.mark.parametrize(("month", "least"), [("2019-11", 0.03), ("2020-03", 0.02), ("2022-07", 0.12)])
    def test_real_jumps_are_kept(
        self, real: MarketBundle, shared_data: Path, month: str, least: float
    ) -> None:
        table = pd.read_csv(shared_data / "usdclp_market_daily.csv", parse_dates=["Date"], index_col="Date")
        given = table["USDCLP"].loc[month].dropna()
        kept = pd.Series(real.truth, index=real.dates).loc[month].dropna()
        np.testing.assert_array_equal(kept.to_numpy(), given.to_numpy())
        assert np.abs(np.diff(np.log(kept))).max() > least

    def test_the_policy_rate_of_october_2021_is_seen_in_november(self, real: MarketBundle) -> None:
        """2.29 is stamped on 1 October and averages the rise of the 13th."""
        chile = real.drivers[:, real.driver_names.index("chile_rate")]
        before, after = at(real, "2021-11-09"), at(real, "2021-11-10")
        assert (chile[at(real, "2021-10-08") : before + 1] < 2.29).all()
        assert chile[after] == 2.29

    def test_the_past_does_not_change_with_what_came_after(
        self, raw: CsvProvider, real: MarketBundle
    ) -> None:
        for day in pd.DatetimeIndex(["2012-02-29", "2019-11-12", "2020-04-20", "2021-11-10", "2022-07-14"]):
            then = load_bundle(raw, USDCLP, day.date())
            assert real.until(then.as_of).fingerprint == then.fingerprint
