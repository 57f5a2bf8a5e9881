"""A model as a JSON document: bit for bit there and back, and computing what the engine computes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import Engine, build_members
from forex_core.errors import ForecastError, InputError
from forex_core.paths import Paths
from forex_core.specification import Specification, frame_of, paths_of, replay_of
from forex_core.testing import bundle_of
from forex_core.types import (
    ENSEMBLE,
    HORIZONS,
    LEVELS,
    PATH_STEPS,
    ForecastRun,
    Horizon,
    MarketBundle,
    Pair,
    RateKind,
    State,
)

WEEK, MONTH = Horizon(7), Horizon(30)
CONFIG = EngineConfig(members=("random_walk", "drivers", "momentum"), grid_origins=60, warmup_origins=8)
CHRONOS = ChronosConfig()
ROWS = 760


def engine(**changes: Any) -> Engine:
    config = CONFIG.model_copy(update=changes)
    return Engine(config, build_members(config, CHRONOS))


@pytest.fixture(scope="module")
def run(bundle: MarketBundle) -> ForecastRun:
    return engine().forecast(bundle, MONTH)


@pytest.fixture(scope="module")
def specification(run: ForecastRun, bundle: MarketBundle) -> Specification:
    return Specification.of(run, bundle, CONFIG, CHRONOS)


# ---- the document ------------------------------------------------------------------------------------------


def same(one: Specification, other: Specification) -> None:
    np.testing.assert_array_equal(one.state.factors, other.state.factors)
    assert one.state.factors.dtype == other.state.factors.dtype
    assert list(one.state.weights.items()) == list(other.state.weights.items())
    assert one.state.trained_until == other.state.trained_until
    for name in set(vars(one)) - {"state"}:
        assert getattr(one, name) == getattr(other, name), name


positive = st.floats(1e-300, 1e300, allow_subnormal=False)


@st.composite
def states(draw: st.DrawFn) -> State:
    names = draw(st.lists(st.text(min_size=1), min_size=1, max_size=6, unique=True))
    shares = np.array(draw(st.lists(st.floats(0, 1), min_size=len(names), max_size=len(names))))
    if shares.sum() < 1e-6:
        shares[0] = 1.0
    weights = dict(zip(names, (shares / shares.sum()).tolist(), strict=True))
    factors = draw(hnp.arrays(np.float64, (PATH_STEPS, len(LEVELS)), elements=positive))
    return State(draw(st.dates()), weights, factors)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    state=states(),
    pair=st.sampled_from([Pair("USD", "CLP"), Pair("EUR", "JPY")]),
    rate=st.sampled_from(get_args(RateKind)),
    horizon=st.sampled_from(HORIZONS),
    drivers=st.dictionaries(st.text(), st.text(), max_size=4),
)
def test_a_document_holds_every_bit(
    state: State, pair: Pair, rate: RateKind, horizon: Horizon, drivers: dict[str, str]
) -> None:
    config = json.loads(CONFIG.model_dump_json())
    written = Specification(pair, rate, horizon, "ab" * 32, config, {"context": 512}, state, drivers)
    text = written.to_json()
    read = Specification.from_json(text)
    same(read, written)
    assert read.to_json() == text


def test_a_document_of_a_run_says_what_the_model_is(
    specification: Specification, run: ForecastRun, bundle: MarketBundle
) -> None:
    read = Specification.from_json(specification.to_json())
    same(replace(read, engine_settings=specification.engine_settings), specification)
    found = read.engine()
    assert found is not None
    assert found.config == CONFIG
    assert found.recipe == run.recipe
    assert read.drivers == dict(zip(bundle.driver_names, bundle.driver_units, strict=True))
    assert read.columns == ("date", "spot", "driver.Copper", "driver.DXY", "driver.VIX")


def without(*keys: str) -> Callable[[dict[str, Any]], object]:
    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        del document[keys[-1]]

    return change


def with_value(value: object, *keys: str) -> Callable[[dict[str, Any]], object]:
    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_value(2, "format"), "format 2 cannot be read; expected format 1"),
        (with_value([0.1, 0.5, 0.9], "state", "levels"), "with the levels"),
        (without("format"), "KeyError: 'format'"),
        (without("state"), "KeyError: 'state'"),
        (without("state", "weights"), "KeyError: 'weights'"),
        (with_value([[1.0]], "state", "factors"), "band factors of shape"),
        (with_value([[1.0], [1.0, 2.0]], "state", "factors"), "ValueError"),
        (with_value([[None] * len(LEVELS)] * PATH_STEPS, "state", "factors"), "positive numbers"),
        (with_value([[-1.0] * len(LEVELS)] * PATH_STEPS, "state", "factors"), "positive numbers"),
        (with_value([[float("nan")] * len(LEVELS)] * PATH_STEPS, "state", "factors"), "positive numbers"),
        (with_value("all", "state", "factors"), "ValueError"),
        (with_value({}, "state", "weights"), "no specification"),
        (with_value({"random_walk": float("nan")}, "state", "weights"), "shares that sum to one"),
        (with_value({"random_walk": 0.5}, "state", "weights"), "shares that sum to one"),
        (with_value({"random_walk": 1.5, "drivers": -0.5}, "state", "weights"), "shares that sum to one"),
        (with_value({"random_walk": "much"}, "state", "weights"), "ValueError"),
        (with_value({"random_walk": 10**400}, "state", "weights"), "OverflowError"),
        (with_value([1.0], "state", "weights"), "AttributeError"),
        (with_value("yesterday", "state", "trained_until"), "ValueError"),
        (with_value(None, "state", "trained_until"), "TypeError"),
        (with_value("DOLLARS", "pair"), "DOLLARS"),
        (with_value("8d", "horizon"), "'8d' is not a horizon"),
        (with_value(7, "horizon"), "AttributeError"),
        (with_value("fast", "engine"), "ValueError"),
        (with_value([1, 2], "drivers"), "TypeError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_document_is_one_clear_error(
    specification: Specification, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    document = json.loads(specification.to_json())
    change(document)
    with pytest.raises(InputError) as caught:
        Specification.from_json(json.dumps(document))
    assert said in str(caught.value)
    assert "expected" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "1",
        "[]",
        '"format"',
        "\x00",
        '{"format": 1}',
        "[" * 100_000,
        "<MLmodel/>",
        "9" * 5000,
    ],
    ids=lambda text: text[:12] or "empty",
)
def test_what_is_no_document_is_one_clear_error(text: str) -> None:
    with pytest.raises(InputError, match=r"no specification of a model .* expected the specification.json"):
        Specification.from_json(text)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_document_cut_or_altered_anywhere_is_read_or_refused(
    specification: Specification, data: st.DataObject
) -> None:
    text = specification.to_json()
    at = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(at, min(len(text), at + 40)))
    altered = text[:at] + data.draw(st.text(max_size=5)) + text[end:]
    with contextlib.suppress(InputError):
        Specification.from_json(altered)


# ---- what computes from it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", HORIZONS, ids=str)
def test_on_the_rows_that_it_learned_from_it_is_the_published_forecast(
    bundle: MarketBundle, horizon: Horizon
) -> None:
    published = engine().forecast(bundle, horizon)
    read = Specification.from_json(Specification.of(published, bundle, CONFIG, CHRONOS).to_json())
    found = read.forecast(frame_of(bundle))
    np.testing.assert_array_equal(found.quantiles, published.forecast.quantiles)
    for name in ("pair", "origin", "target_dates", "steps", "levels"):
        assert getattr(found, name) == getattr(published.forecast, name), name


def test_on_one_more_day_it_is_a_new_forecast_under_the_old_state(
    specification: Specification, run: ForecastRun, following: MarketBundle
) -> None:
    """With weights and factors that no day would teach, so that neither can be left out unseen."""
    factors = np.random.default_rng(1).uniform(0.8, 1.6, (PATH_STEPS, len(LEVELS)))
    weights = {"random_walk": 0.2, "drivers": 0.5, "momentum": 0.3}
    state = State(run.state.trained_until, weights, factors)
    found = Specification.from_json(replace(specification, state=state).to_json()).forecast(
        frame_of(following)
    )
    applied = engine().apply(following, MONTH, state)
    np.testing.assert_array_equal(found.quantiles, applied.quantiles)
    assert found.target_dates == applied.target_dates
    assert found.origin == following.origin > run.forecast.origin

    # By hand, from what the members answer themselves.
    middle = LEVELS.index(0.5)
    answers = {
        member.name: member.forecast(following, following.instants[[-1]], PATH_STEPS, LEVELS).quantiles[0]
        for member in engine().members
    }
    for h, step in enumerate(found.steps):
        logs = {name: np.log(answer[step - 1]) for name, answer in answers.items()}
        centre = sum(weights[name] * row[middle] for name, row in logs.items())
        spread = sum(row - row[middle] for row in logs.values()) / len(logs)
        by_hand = np.exp(centre + np.sort(spread * factors[step - 1]))
        np.testing.assert_allclose(found.quantiles[h], by_hand, rtol=1e-12)


def test_what_a_model_says_of_another_day_is_not_what_it_said(
    specification: Specification, run: ForecastRun, following: MarketBundle
) -> None:
    found = specification.forecast(frame_of(following))
    before = dict(zip(run.forecast.target_dates, run.forecast.quantiles, strict=True))
    shared = [day for day in found.target_dates if day in before]
    assert len(shared) > 15
    for day, quantiles in zip(found.target_dates, found.quantiles, strict=True):
        assert day not in before or np.abs(quantiles / before[day] - 1).max() > 1e-4


def test_nothing_is_read_but_the_rows(specification: Specification, bundle: MarketBundle) -> None:
    """Other columns, their order, the index and the unit of the dates make no difference."""
    frame = frame_of(bundle)
    reference = specification.forecast(frame).quantiles
    others = frame.assign(**{"truth": np.nan, "instant": 0, "driver.Tin": 1.0})
    others = others[others.columns[::-1]]
    others = others.set_index(np.arange(len(frame)) * 7)
    np.testing.assert_array_equal(specification.forecast(others).quantiles, reference)
    for dates in (frame["date"].astype(str), frame["date"].astype("datetime64[us]")):
        np.testing.assert_array_equal(specification.forecast(frame.assign(date=dates)).quantiles, reference)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scale=st.floats(1e-4, 1e4))
def test_prices_times_c_give_quantiles_times_c(
    specification: Specification, bundle: MarketBundle, scale: float
) -> None:
    frame = frame_of(bundle)
    reference = specification.forecast(frame)
    found = specification.forecast(frame.assign(spot=frame["spot"] * scale))
    np.testing.assert_allclose(found.quantiles, scale * reference.quantiles, rtol=1e-9)


def test_the_last_value_of_every_column_that_is_read_matters(
    specification: Specification, bundle: MarketBundle
) -> None:
    reference = specification.forecast(frame_of(bundle)).quantiles
    for column in specification.columns[1:]:
        frame = frame_of(bundle)
        frame.loc[frame.index[-1], column] *= 1.01
        assert (specification.forecast(frame).quantiles != reference).any(), column


FRAMES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "no spot": (
        lambda f: f.drop(columns="spot"),
        "lacks spot; expected the columns date, spot, driver.Copper",
    ),
    "no driver": (lambda f: f.drop(columns="driver.DXY"), "lacks driver.DXY"),
    "no dates": (lambda f: f.drop(columns="date"), "lacks date"),
    "a gap": (lambda f: f.drop(index=100), "not every weekday from the first to the last"),
    "twice a day": (lambda f: pd.concat([f, f.tail(1)]), "not every weekday"),
    "unordered": (lambda f: f.iloc[::-1], "not every weekday"),
    "two swapped": (lambda f: f.iloc[[*range(50), 51, 50, *range(52, len(f))]], "not every weekday"),
    "a weekend": (
        lambda f: f.assign(date=pd.date_range(f["date"].iloc[0], periods=len(f))),
        "not every weekday",
    ),
    "a time of day": (lambda f: f.assign(date=f["date"] + pd.Timedelta("1h")), "without a time of day"),
    "a zone": (lambda f: f.assign(date=f["date"].dt.tz_localize("UTC")), "a zone"),
    "no day": (lambda f: f.assign(date=f["date"].where(f.index != 5)), "not every weekday"),
    "no days": (lambda f: f.assign(date=pd.NaT), "not every weekday"),
    "words for days": (lambda f: f.assign(date="soon"), "what is no date or no number"),
    "words for rates": (lambda f: f.assign(spot="high"), "what is no date or no number"),
    "words for drivers": (lambda f: f.assign(**{"driver.DXY": "high"}), "what is no date or no number"),
    "NaN": (lambda f: f.assign(spot=f["spot"].where(f.index != 5)), "spot rate that is no positive number"),
    "zero": (lambda f: f.assign(spot=f["spot"].where(f.index != 5, 0.0)), "no positive number"),
    "negative": (lambda f: f.assign(spot=-f["spot"]), "no positive number"),
    "infinite": (lambda f: f.assign(spot=np.inf), "no positive number"),
    "empty": (lambda f: f.head(0), "the 0 rows of the frame"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_that_cannot_be_used_is_one_clear_error(
    specification: Specification, bundle: MarketBundle, name: str
) -> None:
    change, said = FRAMES[name]
    with pytest.raises(InputError) as caught:
        specification.forecast(change(frame_of(bundle)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rows", [1, 59, 200])
def test_too_short_a_frame_is_one_clear_error(
    specification: Specification, bundle: MarketBundle, rows: int
) -> None:
    with pytest.raises(ForecastError, match=r"could not answer at .*: needs \d+ .* of history"):
        specification.forecast(frame_of(bundle).tail(rows))


def test_drivers_before_their_first_value_are_as_in_the_data(table: pd.DataFrame) -> None:
    late = table.copy()
    late.loc[:150, "VIX"] = np.nan
    bundle = bundle_of(late)
    run = engine().forecast(bundle, WEEK)
    found = Specification.of(run, bundle, CONFIG, CHRONOS).forecast(frame_of(bundle))
    np.testing.assert_array_equal(found.quantiles, run.forecast.quantiles)


# ---- another code ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"recipe": "0" * 64},
        {"engine_settings": {**json.loads(CONFIG.model_dump_json()), "weight_rate": 60.0}},
        {"engine_settings": {**json.loads(CONFIG.model_dump_json()), "a_setting_of_tomorrow": 1}},
        {"engine_settings": {**json.loads(CONFIG.model_dump_json()), "members": ["random_walk", "oracle"]}},
        {"engine_settings": {}},
        {"chronos_settings": {"of": "tomorrow"}},
    ],
    ids=["code", "settings", "new setting", "new member", "none", "chronos"],
)
def test_another_code_or_other_settings_in_the_process_are_refused(
    specification: Specification, bundle: MarketBundle, changed: dict[str, Any]
) -> None:
    stranger = replace(specification, **changed)
    assert stranger.engine() is None
    with pytest.raises(ForecastError, match=r"do not make the model's recipe .* fresh process"):
        stranger.forecast(frame_of(bundle))


def test_other_weights_of_chronos_in_the_process_are_refused(
    specification: Specification, bundle: MarketBundle
) -> None:
    members = [*CONFIG.members, "chronos"]
    with_chronos = CONFIG.model_copy(update={"members": tuple(members)})
    recipe = Engine(with_chronos, build_members(with_chronos, ChronosConfig(model=None, context=256))).recipe
    settings_of = json.loads(with_chronos.model_dump_json())
    stranger = replace(
        specification,
        recipe=recipe,
        engine_settings=settings_of,
        chronos_settings=json.loads(ChronosConfig(model=None, context=512).model_dump_json()),
    )
    with pytest.raises(ForecastError, match="do not make the model's recipe"):
        stranger.forecast(frame_of(bundle))
    own = replace(
        stranger, chronos_settings=json.loads(ChronosConfig(model=None, context=256).model_dump_json())
    )
    assert own.engine() is not None


def test_a_state_of_members_that_the_engine_lacks_is_refused(
    specification: Specification, bundle: MarketBundle
) -> None:
    state = State(date(2017, 1, 2), {"random_walk": 0.5, "oracle": 0.5}, specification.state.factors)
    with pytest.raises(ForecastError, match="lacks: oracle"):
        replace(specification, state=state).forecast(frame_of(bundle))


def test_carried_code_that_hangs_is_ended(
    specification: Specification, bundle: MarketBundle, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "forex_core").mkdir()
    (tmp_path / "forex_core" / "__init__.py").touch()
    (tmp_path / "forex_core" / "specification.py").write_text("import time; time.sleep(1000)")
    monkeypatch.setattr("forex_core.specification.ANSWER_LIMIT_S", 0.5)
    stranger = replace(specification, recipe="0" * 64)
    with pytest.raises(ForecastError, match=r"recipe 000000000000 carries has not answered in 0\.5 s"):
        paths_of(stranger, tmp_path, bundle, None)


# ---- a pass as plain arrays --------------------------------------------------------------------------------


def test_a_pass_and_a_replay_of_the_running_code_are_the_engines(
    specification: Specification, bundle: MarketBundle, tmp_path: Any
) -> None:
    speaker = engine()
    direct = speaker.paths(bundle, speaker.rows_behind(bundle))
    found = paths_of(specification, tmp_path / "nowhere", bundle, None)
    for name, values in direct.arrays().items():
        if name != "meta":
            np.testing.assert_array_equal(found.arrays()[name], values, err_msg=name)
    np.testing.assert_array_equal(found.run(MONTH).forecast.quantiles, direct.run(MONTH).forecast.quantiles)
    assert found.run(MONTH).evaluation == direct.run(MONTH).evaluation
    rows = np.array([500, 520, len(bundle) - 1])
    replayed = replay_of(specification, tmp_path / "nowhere", bundle, rows, None)
    for row, path in zip(rows, replayed, strict=True):
        then = bundle.until(bundle.instants[row])
        for horizon in HORIZONS:
            applied = speaker.apply(then, horizon, specification.state)
            np.testing.assert_array_equal(path[np.array(applied.steps) - 1], applied.quantiles)


@pytest.mark.parametrize(
    "damage",
    [
        lambda a: a.pop("meta"),
        lambda a: a.pop("weights"),
        lambda a: a.pop(f"quantiles.{ENSEMBLE}"),
        lambda a: a.pop("last.drivers"),
        lambda a: a.update(meta=np.array("{")),
        lambda a: a.update(meta=np.array("{}")),
        lambda a: a.update(walk=a["walk"][:, :5]),
        lambda a: a.update(factors=a["factors"][1:]),
        lambda a: a.update(weights=a["weights"][:, :1]),
        lambda a: a.update({"last.drivers": a["last.drivers"][:5]}),
        lambda a: a.update({"quantiles.drivers": a["quantiles.drivers"][:, :5]}),
        lambda a: a.update(rows=np.array(["a"])),
    ],
    ids=range(12),
)
def test_arrays_of_another_shape_are_one_clear_error(
    bundle: MarketBundle, damage: Callable[[dict[str, Any]], object]
) -> None:
    speaker = engine()
    arrays = dict(speaker.paths(bundle, speaker.rows_behind(bundle)[-3:]).arrays())
    Paths.from_arrays(bundle, arrays)
    damage(arrays)
    with pytest.raises(ForecastError, match="answers of another code"):
        Paths.from_arrays(bundle, arrays)
