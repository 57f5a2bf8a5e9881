"""One suite over every member of the ensemble, the neural one with the package's weights and with a tiny hub model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from forex_core.config import MEMBERS, ChronosConfig, EngineConfig
from forex_core.engine import build_members, import_libraries
from forex_core.errors import MemberError
from forex_core.models.base import (
    Answers,
    Cadence,
    Forecaster,
    Levels,
    Refitted,
    Rows,
    lognormal,
    rows_of,
)
from forex_core.models.chronos import ChronosForecaster
from forex_core.models.chronos_weights import EMBEDDED_FOLDER, STATEMENT
from forex_core.models.features import log_returns
from forex_core.models.random_walk import RandomWalk
from forex_core.testing import bundle_of, synthetic_table
from forex_core.types import LEVELS, PATH_STEPS, Array, MarketBundle

CONTEXT = 128
ROWS = 620
MIDDLE = LEVELS.index(0.5)
BEFORE_ANCHOR, ANCHOR = date(2016, 12, 30), date(2017, 1, 2)
"""The last weekday of a year and the first of the next, on which every member with a cadence re-estimates."""

DAYS = (date(2016, 7, 14), date(2016, 12, 29), BEFORE_ANCHOR, ANCHOR, date(2017, 1, 3), date(2017, 4, 21))
BUILT = build_members(EngineConfig(), ChronosConfig(model=None))
EMBEDDED = "embedded"
"""The neural member with the weights of the package; the other one is of the hub's kind, which sees the spot alone."""
NEURAL = ("chronos", EMBEDDED)
BOUNDED = [*(m.name for m in BUILT if m.lookback_rows is not None), EMBEDDED]
ON_DRIVERS = [*(m.name for m in BUILT if "drivers" in m.columns), EMBEDDED]
NEEDS_DRIVERS = ("var", "drivers", "momentum")
"""Those that have nothing to say without one; the trees then read the spot alone."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As the engine runs them."""
    import_libraries(BUILT)
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return synthetic_table(ROWS, seed=3)


@pytest.fixture(scope="module")
def bundle(table: pd.DataFrame) -> MarketBundle:
    return bundle_of(table)


def build(name: str, request: pytest.FixtureRequest) -> Forecaster:
    """A new member; the Chronos weights are made only where it is asked for."""
    if name == EMBEDDED:
        found = ChronosForecaster(str(request.getfixturevalue("early_weights")))
        found.name = EMBEDDED
        return found
    model = str(request.getfixturevalue("tiny_chronos")("2")) if name == "chronos" else None
    config = EngineConfig(members=("random_walk", name) if name != "random_walk" else ("random_walk",))
    return build_members(config, ChronosConfig(model=model, context=CONTEXT))[-1]


@pytest.fixture(scope="module")
def early_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of the package, as if they had seen nothing of the years here."""
    folder = tmp_path_factory.mktemp("weights") / "early"
    shutil.copytree(EMBEDDED_FOLDER, folder)
    told = json.loads((folder / STATEMENT).read_text())
    (folder / STATEMENT).write_text(json.dumps(told | {"trained_until": "2010-12-31"}))
    return folder


@pytest.fixture(params=[*MEMBERS, EMBEDDED])
def member(request: pytest.FixtureRequest) -> Forecaster:
    return build(request.param, request)


def ask(member: Forecaster, bundle: MarketBundle, days: tuple[date, ...] = DAYS) -> Array:
    """[N, H, Q] answers at the origins of `days`, every one of them given."""
    answers = member.forecast(bundle, instants_of(bundle, days), PATH_STEPS, LEVELS)
    assert answers.reasons == {}
    assert np.isfinite(answers.quantiles).all()
    return answers.quantiles


@pytest.fixture(scope="module")
def usual(bundle: MarketBundle) -> dict[str, Array]:
    """Answers over the bundle as it is at `DAYS`, by member: asked for once by `usually`, to be read."""
    return {}


def usually(member: Forecaster, bundle: MarketBundle, usual: dict[str, Array]) -> Array:
    if member.name not in usual:
        usual[member.name] = ask(member, bundle)
        usual[member.name].flags.writeable = False
    return usual[member.name]


def instants_of(bundle: MarketBundle, days: tuple[date, ...]) -> pd.DatetimeIndex:
    rows = bundle.dates.get_indexer(pd.DatetimeIndex(days))
    assert (rows >= 0).all()
    return bundle.instants[rows]


def leaks(member: Forecaster, table: pd.DataFrame, day: date) -> list[str]:
    """The canary: which changes to what came after an origin change that origin's answer by a single bit."""
    whole = bundle_of(table)
    origin = instants_of(whole, (day,))
    later = (pd.to_datetime(table["Date"]) > pd.Timestamp(day)).to_numpy()
    assert later.any()
    loud = table.copy()
    loud.loc[later, table.columns[1:]] *= 10
    altered = {
        "later rows times 10": bundle_of(loud),
        "later rows deleted": bundle_of(table[~later]),
        "the bundle as it stood": whole.until(origin[0]),
    }
    answer = member.forecast(whole, origin, PATH_STEPS, LEVELS)[0]
    return [
        change
        for change, changed in altered.items()
        if not np.array_equal(member.forecast(changed, origin, PATH_STEPS, LEVELS)[0], answer, equal_nan=True)
    ]


def held_back(table: pd.DataFrame, day: date) -> pd.DataFrame:
    """The table with a real jump of 40 % at `day`: a print that the gate holds back until the next confirms it."""
    jumped = table.copy()
    jumped.loc[pd.to_datetime(table["Date"]) >= pd.Timestamp(day), "USDCLP"] *= 1.4
    return jumped


def yet_to_start(table: pd.DataFrame, day: date) -> pd.DataFrame:
    """The table with its first driver unknown until six weeks after `day`."""
    late = table.copy()
    late.loc[pd.to_datetime(table["Date"]) <= pd.Timestamp(day) + pd.Timedelta(weeks=6), "Copper"] = np.nan
    return late


def test_shape_order_and_place(member: Forecaster, bundle: MarketBundle, usual: dict[str, Array]) -> None:
    quantiles = usually(member, bundle, usual)
    assert quantiles.shape == (len(DAYS), PATH_STEPS, len(LEVELS))
    assert (quantiles > 0).all()
    assert (np.diff(quantiles, axis=2) >= 0).all()
    assert (quantiles[:, :, -1] > quantiles[:, :, 0]).all()
    spot = bundle.spot[rows_of(bundle, instants_of(bundle, DAYS))]
    five_days = np.abs(np.log(quantiles[:, :5, MIDDLE] / spot[:, None]))
    # Five days of 0.6 % each are 1.3 %; the tiny Chronos is untrained and leans to the mean of its context.
    assert five_days.max() < (0.15 if member.name == "chronos" else 0.03)
    assert np.abs(np.log(quantiles[:, :, MIDDLE] / spot[:, None])).max() < 0.15


def test_other_levels_and_steps_are_answered_as_asked(
    member: Forecaster, bundle: MarketBundle, usual: dict[str, Array]
) -> None:
    whole = usually(member, bundle, usual)
    few = member.forecast(bundle, instants_of(bundle, DAYS), 7, (0.1, 0.5, 0.9)).quantiles
    assert few.shape == (len(DAYS), 7, 3)
    at = [LEVELS.index(level) for level in (0.1, 0.5, 0.9)]
    np.testing.assert_allclose(few, whole[:, :7][:, :, at], rtol=1e-12)


def test_the_same_question_gets_the_same_bits(
    member: Forecaster, bundle: MarketBundle, usual: dict[str, Array], request: pytest.FixtureRequest
) -> None:
    of_another = usually(build(member.name, request), bundle, usual)
    np.testing.assert_array_equal(ask(member, bundle), of_another)
    np.testing.assert_array_equal(ask(member, bundle), of_another)


def test_an_origin_alone_gets_the_bits_it_gets_among_others(
    member: Forecaster, bundle: MarketBundle, usual: dict[str, Array]
) -> None:
    among = usually(member, bundle, usual)
    for position, day in enumerate(DAYS):
        np.testing.assert_array_equal(ask(member, bundle, (day,))[0], among[position], err_msg=str(day))
    np.testing.assert_array_equal(ask(member, bundle, DAYS[:4])[-1], among[3])


@pytest.mark.parametrize("day", [BEFORE_ANCHOR, ANCHOR], ids=["before_anchor", "anchor"])
def test_nothing_after_an_origin_reaches_it(member: Forecaster, table: pd.DataFrame, day: date) -> None:
    assert leaks(member, table, day) == []


def test_a_print_held_back_at_the_origin_does_not_reach_it(member: Forecaster, table: pd.DataFrame) -> None:
    jumped = held_back(table, ANCHOR)
    known = bundle_of(jumped)
    row = known.dates.get_loc(pd.Timestamp(ANCHOR))
    assert known.spot[row] == known.spot[row - 1]
    assert known.truth[row] > 1.3 * known.spot[row]
    assert leaks(member, jumped, ANCHOR) == []


def test_a_driver_yet_to_start_does_not_reach_an_origin(member: Forecaster, table: pd.DataFrame) -> None:
    late = yet_to_start(table, ANCHOR)
    copper = bundle_of(late).drivers[:, 0]
    row = bundle_of(late).dates.get_loc(pd.Timestamp(ANCHOR))
    assert np.isnan(copper[: row + 1]).all()
    assert np.isfinite(copper[-1])
    assert leaks(member, late, ANCHOR) == []


class Cheat:
    """A random walk around a price that it should not know."""

    name = "cheat"
    identity = "cheat"
    columns: tuple[str, ...] = ("spot",)
    lookback_rows: int | None = None
    trained_until: date | None = None
    may_have_seen = False
    libraries: tuple[str, ...] = ()

    def centre(self, bundle: MarketBundle, rows: npt.NDArray[np.int64]) -> Array:
        return bundle.spot[np.minimum(rows + 1, len(bundle) - 1)]

    def sigma(self, bundle: MarketBundle) -> float:
        return 0.006

    def forecast(
        self, bundle: MarketBundle, origins: pd.DatetimeIndex, steps: int, levels: Levels
    ) -> Answers:
        rows = rows_of(bundle, origins)
        spread = np.tile(self.sigma(bundle) * np.sqrt(np.arange(1, steps + 1)), (len(rows), 1))
        return Answers(lognormal(self.centre(bundle, rows), np.zeros_like(spread), spread, levels))


class Honest(Cheat):
    def centre(self, bundle: MarketBundle, rows: npt.NDArray[np.int64]) -> Array:
        return bundle.spot[rows]


class KnowsTheWholeSample(Honest):
    """Its volatility is that of all rows: the classical leak of a scaler fitted once."""

    def sigma(self, bundle: MarketBundle) -> float:
        return float(np.std(log_returns(bundle)))


class FillsBackwards(Honest):
    """It leans on a driver whose start it has filled with the first value to come."""

    def centre(self, bundle: MarketBundle, rows: npt.NDArray[np.int64]) -> Array:
        first = pd.Series(bundle.drivers[:, 0]).bfill().fillna(1.0).to_numpy()
        return bundle.spot[rows] * (1 + 1e-3 * np.tanh(first[rows] / 100))


class TrainsOnTheAnswer(Refitted[float]):
    """The drift that it learns on the first row of a month counts the two days after that row."""

    name = "trains_on_the_answer"
    cadence: Cadence = "month"

    def prepare(self, bundle: MarketBundle) -> Mapping[str, Array]:
        return {"log_price": np.log(bundle.spot)}

    def fit(self, inputs: Mapping[str, Array], anchor: int) -> float:
        return float(np.diff(inputs["log_price"][: anchor + 3]).mean())

    def answer(
        self, fitted: float, inputs: Mapping[str, Array], anchor: int, rows: Rows, steps: int
    ) -> tuple[Array, Array]:
        h = np.tile(np.arange(1, steps + 1), (len(rows), 1))
        return fitted * h, 0.006 * np.sqrt(h)


class ReadsTheTruth(Cheat):
    """It reads the close of its own day, which a print that was held back did not have yet."""

    def centre(self, bundle: MarketBundle, rows: npt.NDArray[np.int64]) -> Array:
        truth = bundle.truth[rows]
        return np.where(np.isnan(truth), bundle.spot[rows], truth)


@pytest.mark.parametrize("day", [BEFORE_ANCHOR, ANCHOR])
def test_the_canary_catches_a_member_that_reads_ahead(table: pd.DataFrame, day: date) -> None:
    assert leaks(Honest(), table, day) == []
    assert len(leaks(Cheat(), table, day)) == 3
    assert len(leaks(KnowsTheWholeSample(), table, day)) == 3


def test_only_the_day_of_an_estimate_shows_a_member_that_trains_on_the_answer(table: pd.DataFrame) -> None:
    assert leaks(TrainsOnTheAnswer(), table, BEFORE_ANCHOR) == []
    assert len(leaks(TrainsOnTheAnswer(), table, ANCHOR)) == 3


def test_only_a_driver_that_is_yet_to_start_shows_a_member_that_fills_backwards(table: pd.DataFrame) -> None:
    assert leaks(FillsBackwards(), table, ANCHOR) == []
    assert len(leaks(FillsBackwards(), yet_to_start(table, ANCHOR), ANCHOR)) == 3


def test_only_a_held_print_shows_a_member_that_reads_the_truth(table: pd.DataFrame) -> None:
    assert leaks(ReadsTheTruth(), table, ANCHOR) == []
    assert leaks(ReadsTheTruth(), held_back(table, ANCHOR), ANCHOR) == [
        "later rows deleted",
        "the bundle as it stood",
    ]


def test_quantiles_scale_with_the_price(
    member: Forecaster, table: pd.DataFrame, bundle: MarketBundle, usual: dict[str, Array]
) -> None:
    dear = table.copy()
    dear["USDCLP"] *= 100
    tolerance = 1e-3 if member.name in NEURAL else 1e-6
    ratio = ask(member, bundle_of(dear)) / usually(member, bundle, usual)
    np.testing.assert_allclose(ratio, 100, rtol=tolerance)


def test_the_unit_of_a_driver_changes_nothing(
    member: Forecaster, table: pd.DataFrame, bundle: MarketBundle, usual: dict[str, Array]
) -> None:
    other = table.copy()
    other[["Copper", "DXY", "VIX"]] *= 1000
    np.testing.assert_allclose(ask(member, bundle_of(other)), usually(member, bundle, usual), rtol=1e-6)


def test_the_columns_it_declares_are_those_it_reads(
    member: Forecaster, bundle: MarketBundle, usual: dict[str, Array]
) -> None:
    other = replace(bundle, drivers=bundle.drivers[::-1].copy())
    same = np.array_equal(ask(member, other), usually(member, bundle, usual))
    assert same == ("drivers" not in member.columns)
    assert "spot" in member.columns


def with_drivers(bundle: MarketBundle, where: slice, columns: slice, value: float) -> MarketBundle:
    drivers = bundle.drivers.copy()
    drivers[where, columns] = value
    return replace(bundle, drivers=drivers)


EVERY, ONE = slice(None), slice(0, 1)
DRIVERS = {
    "unknown_copper": (EVERY, ONE, np.nan),
    "unknown": (EVERY, EVERY, np.nan),
    "one_starts_late": (slice(0, 330), ONE, np.nan),
    "all_start_late": (slice(0, 330), EVERY, np.nan),
    "one_stops": (slice(450, None), ONE, np.nan),
    "all_stop": (slice(450, None), EVERY, np.nan),
    "gaps": (slice(0, None, 7), ONE, np.nan),
    "constant": (EVERY, ONE, 5.0),
    "zero": (EVERY, ONE, 0.0),
    "below_zero": (slice(300, 310), ONE, -3.0),
}


def answer_or_reason(member: Forecaster, bundle: MarketBundle) -> Array:
    """Each origin is answered in full, or not at all and with a reason; a refusal is as good as no answer."""
    try:
        answers = member.forecast(bundle, bundle.instants[_ROWS_ASKED], PATH_STEPS, LEVELS)
    except MemberError:
        return np.full((len(_ROWS_ASKED), PATH_STEPS, len(LEVELS)), np.nan)
    given = np.isfinite(answers.quantiles).all(axis=(1, 2))
    assert np.isnan(answers.quantiles[~given]).all()
    assert set(answers.reasons) == set(np.flatnonzero(~given).tolist())
    assert all(answers.reasons.values())
    assert (np.diff(answers.quantiles[given], axis=2) >= 0).all()
    return answers.quantiles


_ROWS_ASKED = [40, 260, 330, 400, 470, 530, ROWS - 1]


@pytest.mark.parametrize("drivers", DRIVERS)
@pytest.mark.parametrize("name", ON_DRIVERS)
def test_missing_and_odd_drivers(
    name: str, drivers: str, bundle: MarketBundle, request: pytest.FixtureRequest
) -> None:
    answers = answer_or_reason(build(name, request), with_drivers(bundle, *DRIVERS[drivers]))
    if drivers not in ("unknown", "all_start_late", "all_stop"):
        assert np.isfinite(answers[-1]).all()  # the other drivers carry it


def test_a_bundle_without_drivers(member: Forecaster, bundle: MarketBundle) -> None:
    bare = replace(bundle, drivers=np.empty((ROWS, 0)), driver_names=(), driver_units=())
    answers = answer_or_reason(member, bare)
    assert np.isfinite(answers[-1]).all() == (member.name not in NEEDS_DRIVERS)
    if member.name not in ON_DRIVERS:
        np.testing.assert_array_equal(answers, answer_or_reason(member, bundle))


@pytest.mark.parametrize("name", NEEDS_DRIVERS)
def test_a_driver_that_is_not_known_is_not_used(
    name: str, bundle: MarketBundle, request: pytest.FixtureRequest
) -> None:
    member = build(name, request)
    unknown = answer_or_reason(member, with_drivers(bundle, EVERY, ONE, np.nan))
    without = replace(
        bundle,
        drivers=bundle.drivers[:, 1:],
        driver_names=bundle.driver_names[1:],
        driver_units=bundle.driver_units[1:],
    )
    np.testing.assert_array_equal(unknown, answer_or_reason(member, without))
    stopped = answer_or_reason(member, with_drivers(bundle, slice(450, None), EVERY, np.nan))
    assert np.isnan(stopped[_ROWS_ASKED.index(530)]).all()


def test_a_short_history_is_no_answer_with_its_reason(member: Forecaster, bundle: MarketBundle) -> None:
    short = bundle.until(bundle.instants[39])
    answers = member.forecast(short, short.instants[[10, 39]], PATH_STEPS, LEVELS)
    assert np.isnan(answers.quantiles).all()
    assert set(answers.reasons) == {0, 1}
    assert all("history" in reason for reason in answers.reasons.values())


def test_a_history_that_starts_later_is_answered(member: Forecaster, table: pd.DataFrame) -> None:
    ask(member, bundle_of(table[101:].reset_index(drop=True)), DAYS[1:])


@pytest.mark.parametrize("name", BOUNDED)
def test_rows_before_the_lookback_do_not_matter(
    name: str, bundle: MarketBundle, request: pytest.FixtureRequest
) -> None:
    member = build(name, request)
    assert member.lookback_rows is not None
    row = bundle.dates.get_loc(pd.Timestamp(ANCHOR))
    spot, drivers = bundle.spot.copy(), bundle.drivers.copy()
    spot[: row + 1 - member.lookback_rows] *= 3
    drivers[: row + 1 - member.lookback_rows] *= 3
    other = replace(bundle, spot=spot, drivers=drivers)
    np.testing.assert_array_equal(ask(member, other, (ANCHOR,)), ask(member, bundle, (ANCHOR,)))


@pytest.mark.parametrize(
    "still", [slice(None), slice(0, 400), slice(400, None)], ids=["all", "first", "last"]
)
def test_a_price_that_does_not_move(member: Forecaster, bundle: MarketBundle, still: slice) -> None:
    spot = bundle.spot.copy()
    spot[still] = spot[400]
    answers = answer_or_reason(member, replace(bundle, spot=spot))
    asked = spot[_ROWS_ASKED]
    given = np.isfinite(answers[:, 0, 0])
    assert np.abs(np.log(answers[given][:, 0, MIDDLE] / asked[given])).max(initial=0.0) < 0.05


def test_an_origin_before_the_data_is_refused(member: Forecaster, bundle: MarketBundle) -> None:
    too_early = bundle.instants[:1] - pd.Timedelta(days=30)
    with pytest.raises(MemberError, match="before the first row"):
        member.forecast(bundle, too_early, PATH_STEPS, LEVELS)


def test_every_member_of_the_configuration_is_held_to_this_suite() -> None:
    assert [m.name for m in BUILT] == list(MEMBERS)
    assert isinstance(BUILT[0], RandomWalk)
    assert set(ON_DRIVERS) == {*NEEDS_DRIVERS, "gradient_boosting", EMBEDDED}
    assert tuple(BOUNDED) == NEURAL


@pytest.mark.parametrize("name", ON_DRIVERS)
def test_a_stretch_without_quotes_does_not_unfit_a_member(name: str, request: pytest.FixtureRequest) -> None:
    """Closes repeated for a year and a half, as in a currency that was not quoted: the volatility runs dry there."""
    table = synthetic_table(1300, seed=5)
    table.loc[400:800, "USDCLP"] = np.nan
    member, bundle = build(name, request), bundle_of(table)
    answers = member.forecast(bundle, bundle.instants[[1100, 1299]], PATH_STEPS, LEVELS)
    assert answers.reasons == {}
    spread = np.log(answers.quantiles[:, 4, -2] / answers.quantiles[:, 4, 1])
    assert (spread < 0.3).all()


def changed(bundle: MarketBundle, spot: Array | None = None, drivers: Array | None = None) -> MarketBundle:
    """The bundle with another spot, or other drivers, each in the unit of the first."""
    if drivers is not None:
        names = tuple(f"driver {k}" for k in range(drivers.shape[1]))
        units = (bundle.driver_units[0],) * len(names)
        bundle = replace(bundle, drivers=drivers, driver_names=names, driver_units=units)
    return bundle if spot is None else replace(bundle, spot=spot)


@pytest.mark.parametrize("rows", [30, 120, 240])
@pytest.mark.parametrize("name", ON_DRIVERS)
def test_the_drivers_moves_of_weeks_without_quotes_are_not_still_to_come(
    name: str, rows: int, request: pytest.FixtureRequest
) -> None:
    bundle = bundle_of(synthetic_table(900, seed=1, pass_through=1.0))
    spot = bundle.spot.copy()
    spot[500 : 500 + rows] = spot[499]
    member, holed = build(name, request), changed(bundle, spot)
    asked = [499 + rows, 500 + rows, 501 + rows, 760, 899]
    answers = member.forecast(holed, holed.instants[asked], PATH_STEPS, LEVELS)
    assert answers.reasons == {}
    assert np.abs(np.log(answers.quantiles[:, :, MIDDLE] / spot[asked][:, None])).max() < 0.03


@pytest.mark.parametrize("name", ON_DRIVERS)
@pytest.mark.parametrize("row", [252, 280, 300])
def test_the_end_of_a_still_stretch_is_not_known_within_it(
    name: str, row: int, request: pytest.FixtureRequest
) -> None:
    """A price that moved only while the bounds of moves were warming up, and moves again after the origin."""
    table = synthetic_table(700, seed=5)
    table.loc[61:305, "USDCLP"] = table.loc[60, "USDCLP"]
    assert leaks(build(name, request), table, pd.Timestamp(table["Date"][row]).date()) == []


@pytest.mark.parametrize("name", ON_DRIVERS)
def test_a_peg_that_breaks_is_refused_until_there_is_enough_to_learn_from(
    name: str, request: pytest.FixtureRequest
) -> None:
    """Twice: from a price that never moved, and from one that moved by a thousandth of a percent."""
    bundle, asked = bundle_of(synthetic_table(1100, seed=1)), np.array([300, 599, 600, 605, 640, 700, 1099])
    for tremor in (0.0, 1e-5):
        spot = 100 * (1 + tremor * np.sin(np.arange(1100)))
        spot[600:] = 140 * bundle.spot[600:] / bundle.spot[600]
        member, broken = build(name, request), changed(bundle, spot)
        answers = member.forecast(broken, broken.instants[asked], PATH_STEPS, LEVELS)
        given = np.isfinite(answers.quantiles).all(axis=(1, 2))
        assert given[-1]
        assert set(answers.reasons) == set(np.flatnonzero(~given).tolist())
        median = np.log(answers.quantiles[given][:, :, MIDDLE] / spot[asked[given]][:, None])
        assert np.abs(median).max() < 0.05
        wide = np.log(answers.quantiles[-1, :, -1] / answers.quantiles[-1, :, 0])
        assert (np.diff(wide) >= -1e-12).all()
        assert 0.01 < wide[0] < wide[-1] < 0.5


@pytest.mark.parametrize("name", ON_DRIVERS)
def test_drivers_that_say_the_same_twice_change_little(
    name: str, bundle: MarketBundle, request: pytest.FixtureRequest
) -> None:
    member, once = build(name, request), changed(bundle, drivers=bundle.drivers)
    twice = changed(bundle, drivers=np.column_stack([bundle.drivers, bundle.drivers]))
    of_the_price = changed(bundle, drivers=np.column_stack([bundle.drivers, bundle.spot, 1 / bundle.spot]))
    expected = ask(member, once)
    for other in (twice, of_the_price):
        np.testing.assert_allclose(ask(member, other), expected, rtol=0.05)


@pytest.mark.parametrize("size", [1e-6, 1e6])
@pytest.mark.parametrize("name", ON_DRIVERS)
def test_prices_of_any_size_are_answered_alike(
    name: str, size: float, bundle: MarketBundle, usual: dict[str, Array], request: pytest.FixtureRequest
) -> None:
    member = build(name, request)
    other = replace(bundle, spot=size * bundle.spot, drivers=bundle.drivers / size)
    np.testing.assert_allclose(ask(member, other) / usually(member, bundle, usual), size, rtol=1e-6)


@pytest.mark.parametrize("name", ON_DRIVERS)
def test_a_jump_by_a_factor_of_ten_is_survived(
    name: str, bundle: MarketBundle, request: pytest.FixtureRequest
) -> None:
    spot = bundle.spot.copy()
    spot[400:] *= 10
    spot[450:] /= 20
    answers = ask(build(name, request), changed(bundle, spot))
    asked = rows_of(bundle, instants_of(bundle, DAYS))
    assert np.abs(np.log(answers[:, :, MIDDLE] / spot[asked][:, None])).max() < 0.1


@pytest.mark.parametrize("rows", [250, 251, 260])
def test_the_shortest_history_is_answered(member: Forecaster, table: pd.DataFrame, rows: int) -> None:
    short = bundle_of(table[:rows])
    assert len(short) == rows
    answers = member.forecast(short, short.instants[[-1]], PATH_STEPS, LEVELS)
    assert answers.reasons == {}
    assert np.abs(np.log(answers[0][:5, MIDDLE] / short.spot[-1])).max() < 0.15


@pytest.mark.parametrize("name", ON_DRIVERS)
@pytest.mark.parametrize("start", [520, 600])
def test_a_driver_that_starts_late_costs_the_others_nothing(
    name: str, start: int, table: pd.DataFrame, request: pytest.FixtureRequest
) -> None:
    """Until it has moved long enough to be used, a new driver changes no answer, however it begins."""
    late = table.assign(New=np.where(np.arange(ROWS) < start, 100.0, 100 + np.arange(ROWS) % 7))
    member, bundle, without = build(name, request), bundle_of(late), bundle_of(table)
    answers = member.forecast(bundle, bundle.instants[-3:], PATH_STEPS, LEVELS)
    assert answers.reasons == {}
    if name != "gradient_boosting":  # trees see every column, and ignore one that says nothing
        alone = member.forecast(without, without.instants[-3:], PATH_STEPS, LEVELS)
        np.testing.assert_array_equal(answers.quantiles, alone.quantiles)


@pytest.mark.parametrize("name", [name for name in MEMBERS if name not in ("random_walk", "chronos")])
def test_bands_before_calibration_have_the_size_of_the_errors(
    name: str, request: pytest.FixtureRequest
) -> None:
    """On a random walk with steady volatility the next close's standardised error has deviation 1."""
    rng = np.random.default_rng(4)
    table = synthetic_table(1500, seed=4).assign(USDCLP=700 * np.exp(np.cumsum(rng.normal(0, 0.006, 1500))))
    member, bundle = build(name, request), bundle_of(table)
    rows = np.arange(700, 1499)
    q = np.log(member.forecast(bundle, bundle.instants[rows], 5, LEVELS).quantiles[:, 0])
    spread = (q[:, LEVELS.index(0.9)] - q[:, LEVELS.index(0.1)]) / (2 * norm.ppf(0.9))
    error = (np.log(bundle.spot[rows + 1]) - q[:, MIDDLE]) / spread
    assert 0.93 < error.std() < 1.09
