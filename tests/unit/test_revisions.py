"""Days with several prints: what a row knew of them, and since when."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forex_core.data.bundle import Limits, load_bundle
from forex_core.data.quality import gate
from forex_core.data.series import Definition, MarketData, Series, definition_of
from forex_core.errors import DataQualityError
from forex_core.types import MarketBundle, Pair, RateKind

USDCLP = Pair("USD", "CLP")
DAYS = pd.bdate_range("2023-01-02", periods=40)
CLOSE = definition_of("USDCLP")


@dataclass(frozen=True)
class Given:
    """A provider of series that are given."""

    spot: Series
    drivers: tuple[Series, ...] = ()
    name: str = "given"
    rate: RateKind = "close"

    def spot_definition(self, pair: Pair) -> Definition:
        return self.spot.definition

    def load(self, pair: Pair, instant: pd.Timestamp | None = None) -> MarketData:
        return MarketData(self.spot, self.drivers, ())


def series_of(
    values: np.ndarray,
    *revisions: tuple[str, float, str],
    name: str = "usdclp_close",
    known: str | None = None,
) -> Series:
    """A print a day, known by the release rule or all at `known`, and (day, value, instant) of revisions."""
    days = DAYS[: len(values)]
    first = CLOSE.release.instants(days) if known is None else pd.DatetimeIndex([known] * len(days), tz="UTC")
    dates = [*days, *(pd.Timestamp(day) for day, _, _ in revisions)]
    known_at = [*first, *(pd.Timestamp(at, tz="UTC") for _, _, at in revisions)]
    return Series(
        name,
        pd.DatetimeIndex(dates),
        np.array([*values, *(value for _, value, _ in revisions)]),
        CLOSE,
        pd.DatetimeIndex(known_at),
    )


def walk(rows: int = 40, seed: int = 0) -> np.ndarray:
    return 900 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.005, rows)))


def load(spot: Series, as_of: str, *drivers: Series, limits: Limits | None = None) -> MarketBundle:
    return load_bundle(Given(spot, drivers), USDCLP, date.fromisoformat(as_of), limits)


def test_without_revisions_known_instants_change_nothing() -> None:
    values = walk()
    told = load(series_of(values), "2023-02-24")
    ruled = load(Series("usdclp_close", DAYS, values, CLOSE), "2023-02-24")
    assert told.fingerprint == ruled.fingerprint
    assert told.repairs == ruled.repairs


def test_a_revision_is_not_seen_before_it_is_known_and_changes_no_row_of_the_past() -> None:
    values = walk()
    plain, revised = series_of(values), series_of(values, ("2023-01-20", 1000.0, "2023-02-06 15:00"))
    assert load(revised, "2023-02-03").fingerprint == load(plain, "2023-02-03").fingerprint
    before, after = load(plain, "2023-02-24"), load(revised, "2023-02-24")
    np.testing.assert_array_equal(after.spot, before.spot)
    row = after.dates.get_loc("2023-01-20")
    assert after.truth[row] == 1000.0
    assert after.dates[after.truth_known[row]] == pd.Timestamp("2023-02-06"), (
        "the origin of that day speaks next morning"
    )
    others = np.arange(len(after)) != row
    np.testing.assert_array_equal(after.truth[others], before.truth[others])
    assert after.fingerprint != before.fingerprint
    (told,) = [repair for repair in after.repairs if repair.kind == "revised"]
    assert (told.day, told.found, told.count) == (date(2023, 1, 20), 1000.0, 1)


def test_until_knows_the_outcome_from_its_revision_on() -> None:
    bundle = load(series_of(walk(), ("2023-01-20", 1000.0, "2023-02-06 15:00")), "2023-02-24")
    row = bundle.dates.get_loc("2023-01-20")
    early = bundle.until(bundle.instants[bundle.dates.get_loc("2023-02-03")])
    late = bundle.until(bundle.instants[bundle.dates.get_loc("2023-02-06")])
    assert np.isnan(early.truth[row])
    assert late.truth[row] == 1000.0


def test_a_revision_of_the_last_close_is_what_the_next_rows_carry() -> None:
    values = walk(30)  # the last close is of 2023-02-10, a Friday
    revised = series_of(values, ("2023-02-10", values[-1] * 1.01, "2023-02-13 20:00"))
    hole = replace(revised, dates=revised.dates.append(pd.DatetimeIndex(["2023-02-14"])))
    hole = replace(
        hole,
        values=np.append(revised.values, np.nan),
        known_at=pd.DatetimeIndex([*revised.known_at, pd.Timestamp("2023-02-14 22:00", tz="UTC")]),
    )
    bundle = load(hole, "2023-02-14")
    assert bundle.spot[bundle.dates.get_loc("2023-02-10")] == values[-1]
    assert bundle.spot[bundle.dates.get_loc("2023-02-13")] == values[-1] * 1.01


def test_a_driver_cell_is_what_was_known_of_it_at_its_row() -> None:
    driver = series_of(walk(seed=1), ("2023-01-20", 1.5, "2023-01-20 23:30"), name="copper")
    driver = replace(driver, values=np.where(driver.values == 1.5, driver.values[14] * 1.1, driver.values))
    bundle = load(series_of(walk()), "2023-02-24", driver)
    row = bundle.dates.get_loc("2023-01-20")
    assert bundle.drivers[row, 0] == driver.values[14] * 1.1, (
        "revised the same evening, before the row speaks"
    )


def test_a_gross_revision_is_not_believed_and_said() -> None:
    values = walk()
    bundle = load(series_of(values, ("2023-01-20", values[14] / 100, "2023-02-06 15:00")), "2023-02-24")
    assert bundle.truth[bundle.dates.get_loc("2023-01-20")] == values[14]
    assert [r.kind for r in bundle.repairs if r.series == "usdclp_close"] == ["refuted"]


def test_a_bad_first_print_that_was_revised_is_used_from_its_revision_on() -> None:
    values = walk()
    right = values[14]
    values[14] = right / 100
    bundle = load(series_of(values, ("2023-01-20", right, "2023-02-06 15:00")), "2023-02-24")
    row = bundle.dates.get_loc("2023-01-20")
    assert bundle.truth[row] == right
    assert bundle.dates[bundle.truth_known[row]] == pd.Timestamp("2023-02-06")
    assert bundle.spot[row] == values[13], "its row knew the close before"


def test_a_revision_is_known_no_earlier_than_the_jump_that_it_confirms() -> None:
    values = walk()
    values[14:] *= 1.4  # a real jump on Friday 2023-01-20, confirmed by Monday's close
    spot = series_of(values, ("2023-01-20", values[14] * 1.005, "2023-01-20 23:30"))
    early, late = load(spot, "2023-01-20"), load(spot, "2023-02-24")
    assert early.spot[-1] == late.spot[len(early) - 1] == values[13]


@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_old_days_that_are_imported_late_hold_no_close_of_today_back(factor: float) -> None:
    spot = series_of(walk())
    old = pd.bdate_range("2022-06-01", periods=20)
    then = pd.DatetimeIndex(["2023-02-13 12:00"] * len(old), tz="UTC")
    both = replace(
        spot,
        dates=pd.DatetimeIndex([*spot.dates, *old]),
        values=np.concatenate([spot.values, 900 * factor * np.ones(len(old))]),
        known_at=pd.DatetimeIndex([*spot.known_at, *then]),
    )
    alone, beside = load(spot, "2023-02-24"), load(both, "2023-02-24")
    np.testing.assert_array_equal(beside.spot[-len(alone) :], alone.spot)
    np.testing.assert_array_equal(beside.truth[-len(alone) :], alone.truth)


def test_prints_that_come_late_are_judged_when_they_come() -> None:
    values = walk()
    series = series_of(values)
    late = series.known_at.to_series(index=range(len(values)))
    late.iloc[10] = pd.Timestamp("2023-02-03 12:30", tz="UTC")
    accepted = gate(replace(series, known_at=pd.DatetimeIndex(late)), is_spot=True)
    assert accepted.dates.is_monotonic_increasing
    assert accepted.known_at[10] == pd.Timestamp("2023-02-03 12:30", tz="UTC")


def test_rows_before_anything_was_known_are_left_out_and_said() -> None:
    values = walk()
    series = series_of(values)
    then = pd.Timestamp("2023-01-31 12:00", tz="UTC")
    known = pd.DatetimeIndex([max(instant, then) for instant in series.known_at])
    late = replace(series, known_at=known)
    bundle = load(late, "2023-02-24")
    assert bundle.dates[0] == pd.Timestamp("2023-01-31")
    (told,) = [repair for repair in bundle.repairs if repair.kind == "late"]
    assert told.count == int((pd.Timestamp("2023-01-31") > DAYS).sum())


def test_closes_that_were_never_known_in_time_are_refused_with_the_cure() -> None:
    series = series_of(walk(), known="2023-06-30 20:00")
    with pytest.raises(DataQualityError, match="without --available-at"):
        load(series, "2023-06-30")


@pytest.mark.parametrize(
    ("as_of", "limits", "words"),
    [
        (
            "2023-03-10",
            Limits(max_age_business_days=3, cure="Mend it."),
            r"'usdclp_close' is stale.*2023-02-24.*10 business days.*Mend",
        ),
        ("2023-02-24", Limits(required=("copper",)), "'copper' is missing; found fresh: none"),
    ],
)
def test_a_bundle_that_is_not_complete_is_refused_by_name(as_of: str, limits: Limits, words: str) -> None:
    with pytest.raises(DataQualityError, match=words):
        load(series_of(walk()), as_of, limits=limits)


def test_a_required_driver_that_is_stale_is_refused_by_name() -> None:
    driver = series_of(walk(10), name="copper")
    with pytest.raises(DataQualityError, match="'copper' is stale"):
        load(series_of(walk()), "2023-02-24", driver, limits=Limits(required=("copper",)))
    load(
        series_of(walk()), "2023-02-24", series_of(walk(), name="copper"), limits=Limits(required=("copper",))
    )


MOVES = st.lists(
    st.tuples(
        st.integers(0, 39),
        st.one_of(st.floats(-0.05, 0.05), st.sampled_from([0.35, -0.35, 1.2, -4.6])),
        st.integers(0, 30),
    ),
    min_size=0,
    max_size=8,
)


@given(MOVES, st.integers(20, 39))
def test_what_became_known_after_the_as_of_is_as_if_it_had_not_been(
    moves: list[tuple[int, float, int]], row: int
) -> None:
    values = walk()
    revisions = [
        (str(DAYS[k].date()), values[k] * np.exp(move), str(DAYS[k] + pd.Timedelta(days=lag, hours=23)))
        for k, move, lag in moves
    ]
    whole = series_of(values, *revisions)
    as_of = str(DAYS[row].date())
    instant = load(whole, as_of).as_of
    known = np.asarray(whole.known_at <= instant)
    part = replace(
        whole, dates=whole.dates[known], values=whole.values[known], known_at=whole.known_at[known]
    )
    assert load(whole, as_of).fingerprint == load(part, as_of).fingerprint


@given(MOVES, st.integers(20, 38))
def test_cells_of_a_row_never_change_afterwards(moves: list[tuple[int, float, int]], row: int) -> None:
    values = walk()
    revisions = [
        (str(DAYS[k].date()), values[k] * np.exp(move), str(DAYS[k] + pd.Timedelta(days=lag, hours=23)))
        for k, move, lag in moves
    ]
    whole = series_of(values, *revisions)
    early, late = load(whole, str(DAYS[row].date())), load(whole, str(DAYS[-1].date()))
    np.testing.assert_array_equal(early.spot, late.spot[: len(early)])
