"""The frozen values: what they refuse, the moments of a forecast, and a bundle's past and fingerprint."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forex_core.errors import InputError
from forex_core.testing import USDCLP, bundle_of, synthetic_table
from forex_core.types import (
    HORIZONS,
    LEVELS,
    PATH_STEPS,
    Event,
    Forecast,
    Headline,
    Horizon,
    MarketBundle,
    Pair,
    level_indices,
)

REPEATABLE = settings(deadline=None, derandomize=True, database=None, max_examples=100)


def forecast_of(quantiles: Any, levels: tuple[float, ...] = LEVELS) -> Forecast:
    values = np.atleast_2d(np.asarray(quantiles, dtype=float))
    days = tuple(d.date() for d in pd.bdate_range("2024-07-01", periods=len(values)))
    return Forecast(USDCLP, date(2024, 6, 28), days, tuple(range(1, len(values) + 1)), levels, values)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Two years of closes with holes, a print that comes back and a jump that stays."""
    made = synthetic_table(500, seed=3)
    made.loc[[60, 61, 200, 310], "USDCLP"] = np.nan
    made.loc[[0, 59, 199], "Copper"] = np.nan
    made.loc[150, "USDCLP"] /= 100
    made.loc[250:, "USDCLP"] *= 1.4
    return made


@pytest.fixture(scope="module")
def bundle(table: pd.DataFrame) -> MarketBundle:
    return bundle_of(table)


class TestPair:
    @pytest.mark.parametrize(
        "text", ["USDCLP", "usdclp", "USD/CLP", "usd-clp", "Usd_Clp", "usd clp", "  USDCLP "]
    )
    def test_is_read_in_every_usual_spelling(self, text: str) -> None:
        assert Pair.parse(text) == Pair("USD", "CLP")

    @pytest.mark.parametrize(
        "text",
        ["", "USD", "USDUSD", "usd/USD", "USDCLPX", "US1CLP", "USD//CLP", "USD.CLP", "ÜSDCLP", "USD\nCLP"],
    )
    def test_what_is_no_pair_is_refused_with_what_was_found(self, text: str) -> None:
        with pytest.raises(InputError, match="not a currency pair") as caught:
            Pair.parse(text)
        assert text in str(caught.value)
        assert "USDCLP" in str(caught.value)

    def test_says_its_unit_and_its_slug(self) -> None:
        pair = Pair.parse("EURUSD")
        assert (str(pair), pair.slug, pair.unit) == ("EURUSD", "eurusd", "USD per EUR")

    def test_is_frozen(self) -> None:
        with pytest.raises(FrozenInstanceError):
            USDCLP.base = "EUR"  # type: ignore[misc]


class TestHorizon:
    def test_the_four_horizons_and_their_paths(self) -> None:
        assert [str(h) for h in HORIZONS] == ["7d", "15d", "30d", "90d"]
        assert [h.evaluation_steps for h in HORIZONS] == [5, 11, 21, 64]
        assert PATH_STEPS == 64

    @pytest.mark.parametrize("horizon", HORIZONS)
    def test_parse_reads_what_str_says(self, horizon: Horizon) -> None:
        assert Horizon.parse(str(horizon)) == horizon
        assert Horizon.parse(f" {str(horizon).upper()} ") == horizon

    @pytest.mark.parametrize("text", ["8d", "7", "d", "", "7 d", "07d", "-7d", "7days", "1w"])
    def test_any_other_is_refused_with_those_there_are(self, text: str) -> None:
        with pytest.raises(InputError, match="7d, 15d, 30d, 90d") as caught:
            Horizon.parse(text)
        assert f"'{text}'" in str(caught.value)


class TestLevels:
    def test_ascend_mirror_each_other_and_hold_the_median(self) -> None:
        assert len(LEVELS) == 23
        assert LEVELS[:4] == (0.01, 0.025, 0.05, 0.1)
        assert 0.5 in LEVELS
        assert list(LEVELS) == sorted(set(LEVELS))
        np.testing.assert_allclose(np.array(LEVELS) + np.array(LEVELS)[::-1], 1.0)

    @pytest.mark.parametrize(
        ("coverage", "bounds"), [(0.8, (0.1, 0.9)), (0.95, (0.025, 0.975)), (0.98, (0.01, 0.99))]
    )
    def test_indices_of_a_central_band(self, coverage: float, bounds: tuple[float, float]) -> None:
        low, high = level_indices(LEVELS, coverage)
        assert (LEVELS[low], LEVELS[high]) == bounds

    def test_a_band_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"0\.77"):
            level_indices(LEVELS, 0.77)


class TestForecast:
    @pytest.mark.parametrize(
        "levels",
        [
            (),
            (0.1, 0.9),
            (0.5, 0.1, 0.9),
            (0.1, 0.5, 0.5, 0.9),
            (0.0, 0.5, 0.9),
            (0.1, 0.5, 1.0),
            (-0.1, 0.5, 0.9),
        ],
    )
    def test_levels_must_ascend_in_the_open_unit_interval_around_one_half(
        self, levels: tuple[float, ...]
    ) -> None:
        with pytest.raises(ValueError, match="levels must ascend"):
            forecast_of(np.linspace(1, 2, len(levels)), levels)

    def test_crossing_quantiles_are_refused(self) -> None:
        values = np.linspace(900, 1000, len(LEVELS))
        values[[4, 5]] = values[[5, 4]]
        with pytest.raises(ValueError, match="must not cross"):
            forecast_of(values)

    def test_equal_neighbours_do_not_cross(self) -> None:
        assert forecast_of(np.full(len(LEVELS), 900.0)).median[0] == 900.0

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("position", [0, 11, 22])
    def test_what_is_not_finite_is_refused(self, value: float, position: int) -> None:
        values = np.linspace(900, 1000, len(LEVELS))
        values[position] = value
        with pytest.raises(ValueError, match="finite"):
            forecast_of(values)

    def test_shape_must_be_steps_by_levels(self) -> None:
        good = forecast_of(np.tile(np.linspace(900, 1000, len(LEVELS)), (3, 1)))
        for wrong in (good.quantiles[:2], good.quantiles[:, :-1], good.quantiles[0]):
            with pytest.raises(ValueError, match="shape"):
                replace(good, quantiles=wrong)

    def test_interval_and_median_are_columns_of_the_quantiles(self) -> None:
        path = forecast_of(np.linspace(900, 1000, len(LEVELS)) + np.arange(4)[:, None])
        low, high = path.interval(0.8)
        np.testing.assert_array_equal(low, path.quantiles[:, LEVELS.index(0.1)])
        np.testing.assert_array_equal(high, path.quantiles[:, LEVELS.index(0.9)])
        np.testing.assert_array_equal(path.interval(0.95)[1], path.quantiles[:, LEVELS.index(0.975)])
        np.testing.assert_array_equal(path.median, path.quantiles[:, 11])

    def test_a_band_without_levels_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no central band"):
            forecast_of(np.linspace(900, 1000, len(LEVELS))).interval(0.85)

    @REPEATABLE
    @given(st.lists(st.floats(0.01, 5000), min_size=len(LEVELS), max_size=len(LEVELS)).map(sorted))
    def test_mean_and_std_are_those_of_the_piecewise_linear_quantile_function(
        self, values: list[float]
    ) -> None:
        cells = 100_000
        probabilities = (np.arange(cells) + 0.5) / cells
        drawn = np.interp(probabilities, LEVELS, values)  # flat beyond the outermost, as the docstring says
        path = forecast_of(values)
        spread = values[-1] - values[0]
        np.testing.assert_allclose(path.mean, drawn.mean(), rtol=1e-9, atol=1e-6 * spread)
        np.testing.assert_allclose(path.std, drawn.std(), rtol=1e-9, atol=1e-4 * spread + 1e-9)

    def test_moments_are_of_each_step_by_itself(self) -> None:
        rows = [np.linspace(900, 1000, len(LEVELS)), np.linspace(500, 900, len(LEVELS)) ** 1.1]
        together = forecast_of(rows)
        for h, row in enumerate(rows):
            alone = forecast_of(row)
            np.testing.assert_allclose(together.mean[h], alone.mean[0], rtol=1e-13)
            np.testing.assert_allclose(together.std[h], alone.std[0], rtol=1e-13)

    def test_a_narrow_forecast_at_a_high_price_keeps_its_std(self) -> None:
        """The difference of two large squares would drown it in rounding."""
        shape = np.linspace(-1.0, 1.0, len(LEVELS))
        expected = forecast_of(shape).std[0] * 1e-4
        assert forecast_of(24_000 + 1e-4 * shape).std[0] == pytest.approx(expected, rel=1e-5)
        assert forecast_of(np.full(len(LEVELS), 945.37)).std[0] == 0.0


class TestBundle:
    @pytest.mark.parametrize("name", ["instants", "spot", "truth", "truth_known", "drivers"])
    def test_arrays_of_different_length_are_refused(self, bundle: MarketBundle, name: str) -> None:
        with pytest.raises(ValueError, match=name):
            replace(bundle, **{name: getattr(bundle, name)[:-1]})

    def test_drivers_need_as_many_names_as_columns(self, bundle: MarketBundle) -> None:
        with pytest.raises(ValueError, match="drivers"):
            replace(bundle, driver_names=bundle.driver_names[:-1])

    def test_row_at_finds_the_last_origin_at_or_before_an_instant(self, bundle: MarketBundle) -> None:
        second = pd.Timedelta(seconds=1)
        for t in (0, 1, 250, len(bundle) - 1):
            assert bundle.row_at(bundle.instants[t]) == t
            assert bundle.row_at(bundle.instants[t] - second) == t - 1
        assert bundle.row_at(pd.Timestamp("2100-01-01", tz="UTC")) == len(bundle) - 1


class TestUntil:
    @pytest.mark.parametrize("row", [0, 5, 60, 61, 62, 150, 151, 200, 249, 250, 251, 310, 498, 499])
    def test_equals_a_bundle_loaded_with_the_earlier_as_of(
        self, table: pd.DataFrame, bundle: MarketBundle, row: int
    ) -> None:
        early = bundle_of(table, as_of=bundle.dates[row].date())
        past = bundle.until(early.as_of)
        assert past.fingerprint == early.fingerprint
        assert past.as_of == early.as_of
        assert past.origin == early.origin == bundle.dates[row].date()
        for name in ("dates", "instants", "spot", "truth", "truth_known", "drivers"):
            np.testing.assert_array_equal(getattr(past, name), getattr(early, name), err_msg=name)

    def test_of_until_is_until(self, bundle: MarketBundle) -> None:
        early = bundle.instants[100]
        assert bundle.until(bundle.instants[300]).until(early).fingerprint == bundle.until(early).fingerprint

    def test_shows_nothing_that_was_known_later(self, bundle: MarketBundle) -> None:
        """The print of row 250 is a jump: held that day, believed from the row after."""
        assert bundle.truth_known[250] == 251
        before, after = bundle.until(bundle.instants[250]), bundle.until(bundle.instants[251])
        assert np.isnan(before.truth[250])
        assert before.spot[250] == bundle.spot[249]
        assert (before.truth_known <= len(before)).all()
        assert before.repairs == ()
        assert after.truth[250] == bundle.truth[250] == pytest.approx(1.4 * bundle.spot[249], rel=0.05)

    def test_leaves_out_news_that_came_later_and_keeps_the_schedule(self, bundle: MarketBundle) -> None:
        instant = bundle.instants[100]
        minute = pd.Timedelta(minutes=1)
        news = tuple(Headline(instant + k * minute, f"item {k}", "wire", "") for k in (-1, 0, 1))
        event = Event(instant + 100 * minute, "rate decision", "CLP")
        past = replace(bundle, news=news, events=(event,)).until(instant)
        assert [n.title for n in past.news] == ["item -1", "item 0"]
        assert past.events == (event,)

    def test_before_the_first_row_is_refused_with_where_the_data_begin(self, bundle: MarketBundle) -> None:
        with pytest.raises(InputError, match=bundle.dates[0].date().isoformat()):
            bundle.until(bundle.instants[0] - pd.Timedelta(seconds=1))


def _nudged(values: np.ndarray, at: Any) -> np.ndarray:
    changed = values.copy()
    changed[at] = np.nextafter(changed[at], np.inf)
    return changed


CHANGES: dict[str, Callable[[MarketBundle], MarketBundle]] = {
    "a spot by the last bit": lambda b: replace(b, spot=_nudged(b.spot, 17)),
    "a truth by the last bit": lambda b: replace(b, truth=_nudged(b.truth, 17)),
    "a driver by the last bit": lambda b: replace(b, drivers=_nudged(b.drivers, (17, 1))),
    "a truth made a hole": lambda b: replace(b, truth=np.where(np.arange(len(b)) == 9, np.nan, b.truth)),
    "two drivers exchanged": lambda b: replace(b, drivers=b.drivers[:, [1, 0, 2]]),
    "the pair": lambda b: replace(b, pair=Pair("USD", "MXN")),
    "a driver's name": lambda b: replace(b, driver_names=("Oil", *b.driver_names[1:])),
    "a driver's unit": lambda b: replace(b, driver_units=("percent per year", *b.driver_units[1:])),
    "the dates": lambda b: replace(b, dates=b.dates + pd.Timedelta(days=7)),
    "the last row": lambda b: b.until(b.instants[-2]),
}


class TestFingerprint:
    def test_does_not_depend_on_when_now_is(self, table: pd.DataFrame, bundle: MarketBundle) -> None:
        later = bundle_of(table, as_of=pd.Timestamp("2024-01-02 03:04:05", tz="UTC"))
        assert later.as_of != bundle.as_of
        assert later.fingerprint == bundle.fingerprint == bundle_of(table).fingerprint

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
    def test_changes_with(self, bundle: MarketBundle, change: Callable[[MarketBundle], MarketBundle]) -> None:
        assert change(bundle).fingerprint != bundle.fingerprint

    def test_does_not_depend_on_the_sign_of_zero(self, bundle: MarketBundle) -> None:
        plus, minus = bundle.drivers.copy(), bundle.drivers.copy()
        plus[40, 0], minus[40, 0] = 0.0, -0.0
        assert replace(bundle, drivers=plus).fingerprint == replace(bundle, drivers=minus).fingerprint

    def test_does_not_depend_on_the_payload_of_a_nan(self, bundle: MarketBundle) -> None:
        odd = struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_DEAD_BEEF))[0]
        plain, strange = bundle.truth.copy(), bundle.truth.copy()
        plain[40], strange[40] = np.nan, odd
        assert plain.tobytes() != strange.tobytes()
        assert replace(bundle, truth=plain).fingerprint == replace(bundle, truth=strange).fingerprint

    def test_does_not_depend_on_memory_order_or_the_unit_of_dates(self, bundle: MarketBundle) -> None:
        other = replace(bundle, drivers=np.asfortranarray(bundle.drivers), dates=bundle.dates.as_unit("ns"))
        assert other.fingerprint == bundle.fingerprint
