"""The quality gate: what it takes out, what it holds back, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forex_core.data.quality import GROSS_CONFIRMATIONS, Accepted, gate
from forex_core.data.series import MARKET_CLOSE, Series, definition_of
from forex_core.errors import DataQualityError

REPEATABLE = settings(deadline=None, derandomize=True, database=None, max_examples=200)
NAN = float("nan")


def series_of(values: Sequence[float], name: str = "USDCLP", start: str = "2020-01-06") -> Series:
    days = pd.bdate_range(start, periods=len(values))
    return Series(name, days, np.asarray(values, dtype=float), definition_of(name))


def spot(*values: float) -> Accepted:
    return gate(series_of(values), is_spot=True)


def driver(*values: float, name: str = "Copper") -> Accepted:
    return gate(series_of(values, name), is_spot=False)


def kinds(accepted: Accepted) -> list[str]:
    return [r.kind for r in accepted.repairs]


def released(position: int) -> pd.Timestamp:
    """When the close of that row of a series from 6 January 2020 is known."""
    return MARKET_CLOSE.instants(pd.bdate_range("2020-01-06", periods=position + 1))[-1]


class TestOfASpot:
    def test_ordinary_prints_are_believed_when_they_are_released(self) -> None:
        accepted = spot(700, 705, 698)
        assert list(accepted.values) == [700, 705, 698]
        assert list(accepted.known_at) == [released(0), released(1), released(2)]
        assert accepted.repairs == ()

    @pytest.mark.parametrize("factor", [0.01, 0.1, 0.5, 2.0, 10.0, 100.0])
    def test_a_print_that_comes_back_is_refuted_and_listed(self, factor: float) -> None:
        accepted = spot(700, 702, 702 * factor, 704, 703)
        assert list(accepted.values) == [700, 702, 704, 703]
        assert kinds(accepted) == ["refuted"]
        repair = accepted.repairs[0]
        assert (repair.series, repair.day) == ("USDCLP", pd.Timestamp("2020-01-08").date())
        assert repair.found == pytest.approx(702 * factor)
        assert "back at 704 on 2020-01-09" in repair.note

    def test_a_suspicious_last_print_is_held_back(self) -> None:
        accepted = spot(700, 702, 7.02)
        assert list(accepted.values) == [700, 702]
        assert kinds(accepted) == ["held"]
        assert "1/100 of the last accepted print 702" in accepted.repairs[0].note

    def test_a_jump_that_the_next_print_confirms_is_known_from_that_one_on(self) -> None:
        accepted = spot(700, 702, 1000, 1010, 1005)
        assert list(accepted.values) == [700, 702, 1000, 1010, 1005]
        assert accepted.known_at[2] == accepted.known_at[3] == released(3)
        assert accepted.known_at[4] == released(4)
        assert kinds(accepted) == ["confirmed"]
        assert "held until 2020-01-09" in accepted.repairs[0].note

    @pytest.mark.parametrize("move", [0.9, 1.1, 0.82, 1.24])
    def test_moves_of_a_market_are_kept_and_known_at_once(self, move: float) -> None:
        accepted = spot(700, 702, 702 * move, 702 * move * 1.01)
        assert len(accepted.values) == 4
        assert accepted.repairs == ()

    def test_a_jump_there_and_back_of_ten_percent_is_kept(self) -> None:
        assert list(spot(700, 770, 700).values) == [700, 770, 700]

    @pytest.mark.parametrize("lasting", [1, 2, 3, 4, 5])
    def test_a_decimal_slip_of_some_days_is_refuted_when_it_comes_back(self, lasting: int) -> None:
        slip = [7.0 + 0.01 * k for k in range(lasting)]
        accepted = spot(700, 702, *slip, 703, 704)
        assert list(accepted.values) == [700, 702, 703, 704]
        assert kinds(accepted) == ["refuted"] * lasting

    def test_five_confirmations_accept_a_redenomination(self) -> None:
        new = [7.0 + 0.01 * k for k in range(GROSS_CONFIRMATIONS + 3)]
        held = GROSS_CONFIRMATIONS
        assert list(spot(700, 702, *new[:held]).values) == [700, 702]
        accepted = spot(700, 702, *new)
        assert list(accepted.values) == [700, 702, *new]
        confirming = 2 + held
        assert list(accepted.known_at[2 : confirming + 1]) == [released(confirming)] * (held + 1)
        assert accepted.known_at[-1] == released(confirming + 2)
        assert kinds(accepted) == ["confirmed"] * held

    def test_a_second_fault_is_judged_by_the_last_good_print(self) -> None:
        accepted = spot(700, 7.0, 70000, 701)
        assert list(accepted.values) == [700, 701]
        assert kinds(accepted) == ["refuted", "refuted"]

    @pytest.mark.parametrize("value", [0.0, -700.0, -0.0])
    @pytest.mark.parametrize("position", [0, 1, 3])
    def test_zero_and_negative_prints_are_taken_out(self, value: float, position: int) -> None:
        values = [700.0, 702.0, 704.0]
        values.insert(position, value)
        accepted = spot(*values)
        assert list(accepted.values) == [700, 702, 704]
        assert kinds(accepted) == ["not_positive"]
        assert accepted.repairs[0].found == value

    def test_repeated_closes_are_kept_and_counted(self) -> None:
        accepted = spot(700, 700, 701, 701, 701)
        assert len(accepted.values) == 5
        assert [(r.kind, r.count) for r in accepted.repairs] == [("repeated", 3)]


class TestOfADriver:
    def test_a_negative_oil_print_is_kept(self) -> None:
        accepted = driver(18.3, -37.63, 10.01, 13.78, name="Oil")
        assert list(accepted.values) == [18.3, -37.63, 10.01, 13.78]
        assert accepted.repairs == ()

    def test_a_volatility_index_that_doubles_is_kept(self) -> None:
        assert driver(15, 37, 29, name="VIX").repairs == ()

    def test_a_factor_of_a_hundred_is_refuted(self) -> None:
        accepted = driver(2.6, 2.61, 261, 2.62)
        assert list(accepted.values) == [2.6, 2.61, 2.62]
        assert kinds(accepted) == ["refuted"]

    def test_a_rate_is_not_judged_by_its_ratio(self) -> None:
        """A policy rate does go from .05 to 5."""
        assert list(driver(0.05, 5.0, 0.25, 0.0, name="fed_rate").values) == [0.05, 5.0, 0.25, 0.0]


class TestOrder:
    def test_rows_are_sorted_and_the_last_of_a_day_is_used(self) -> None:
        days = pd.DatetimeIndex(["2020-01-08", "2020-01-06", "2020-01-07", "2020-01-07"])
        series = Series("USDCLP", days, np.array([703.0, 700.0, 650.0, 701.0]), definition_of("USDCLP"))
        accepted = gate(series, is_spot=True)
        assert list(accepted.values) == [700, 701, 703]
        assert accepted.dates.is_monotonic_increasing
        assert kinds(accepted) == ["unordered", "duplicate"]
        assert accepted.repairs[1].found == 650
        assert "701" in accepted.repairs[1].note

    def test_a_hole_does_not_hide_an_earlier_row_of_its_day(self) -> None:
        days = pd.DatetimeIndex(["2020-01-06", "2020-01-07", "2020-01-07"])
        series = Series("USDCLP", days, np.array([700.0, 701.0, NAN]), definition_of("USDCLP"))
        assert list(gate(series, is_spot=True).values) == [700, 701]

    def test_holes_are_no_prints(self) -> None:
        accepted = spot(NAN, 700, NAN, 702)
        assert list(accepted.values) == [700, 702]
        assert list(accepted.known_at) == [released(1), released(3)]

    @pytest.mark.parametrize("values", [(), (NAN, NAN), (0.0, -1.0)])
    def test_a_series_without_a_usable_value_is_refused(self, values: tuple[float, ...]) -> None:
        with pytest.raises(DataQualityError, match="'USDCLP' has no usable value"):
            spot(*values)


prints = st.one_of(
    st.floats(500, 900),
    st.floats(1, 100_000),
    st.sampled_from([NAN, 0.0, -5.0, 7.0, 70_000.0, 1000.0]),
)


class TestCanary:
    @REPEATABLE
    @given(st.lists(prints, min_size=1, max_size=25), st.lists(prints, max_size=12), st.booleans())
    def test_what_comes_later_changes_nothing_that_was_known(
        self, before: list[float], after: list[float], is_spot: bool
    ) -> None:
        """Believed prints, their values and when they were known: all the same up to the last row of `before`."""
        head = [700.0, *before]
        name = "USDCLP" if is_spot else "Copper"
        short = gate(series_of(head, name), is_spot=is_spot)
        long = gate(series_of([*head, *after], name), is_spot=is_spot)
        now = released(len(head) - 1)
        for accepted in (short, long):
            assert accepted.dates.is_monotonic_increasing
            assert (accepted.known_at >= MARKET_CLOSE.instants(accepted.dates)).all()
        then, later = short.known_at <= now, long.known_at <= now
        assert then.all()
        assert list(short.dates) == list(long.dates[later])
        assert list(short.values) == list(long.values[later])
        assert list(short.known_at) == list(long.known_at[later])

    @REPEATABLE
    @given(
        st.lists(st.floats(1, 10_000), min_size=1, max_size=25), st.sampled_from([0.001, 0.37, 8.0, 1024.0])
    )
    def test_the_unit_of_a_price_does_not_matter(self, values: list[float], factor: float) -> None:
        plain, scaled = spot(*values), spot(*[v * factor for v in values])
        assert list(plain.dates) == list(scaled.dates)
        assert list(plain.known_at) == list(scaled.known_at)
