"""What changed since the forecast before: the parts of the median's move, the data, the model, the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forex_core.briefing.absent import Absent
from forex_core.briefing.changes import Changes, Revised, WeightChange, changes, data_changes
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import Engine, build_members
from forex_core.report.document import forecast_document
from forex_core.testing import bundle_of, synthetic_table
from forex_core.types import ForecastRun, Horizon, MarketBundle, Publication

MEMBERS = ("random_walk", "theta", "drivers", "momentum")
WEEK, MONTH = Horizon(7), Horizon(30)


@cache
def days() -> tuple[MarketBundle, MarketBundle]:
    """Yesterday's rows and today's."""
    now = bundle_of(synthetic_table(800, seed=5, pass_through=1.0))
    return now.until(now.instants[-2]), now


@cache
def runs(horizon: Horizon = MONTH) -> tuple[ForecastRun, ForecastRun]:
    config = EngineConfig(members=MEMBERS, grid_origins=60, warmup_origins=8)
    engine = Engine(config, build_members(config, ChronosConfig()))
    before, now = (engine.forecast(bundle, horizon) for bundle in days())
    return before, now


def document(horizon: Horizon = MONTH, **changed: Any) -> dict[str, Any]:
    """Of yesterday's forecast, as it is stored."""
    made = forecast_document(runs(horizon)[0], days()[0], "yesterday", Path("/r.html"), published(3))
    return json.loads(json.dumps(made | changed))


def published(version: int) -> Publication:
    return Publication("usdclp-30d", version, "refreshed", "It is the next state.")


def found(previous: dict[str, Any], run: ForecastRun | None = None, horizon: Horizon = MONTH) -> Changes:
    answer = changes(previous, run or runs(horizon)[1], days()[1], published(4), days()[0])
    assert isinstance(answer, Changes)
    return answer


def test_compares_the_medians_of_the_last_date_that_both_speak_of() -> None:
    told = found(document())
    before, now = (run.forecast for run in runs())
    shared = max(set(before.target_dates) & set(now.target_dates))
    assert told.target_date == shared
    assert told.median is not None
    assert told.median.before == before.median[before.target_dates.index(shared)]
    assert told.median.now == now.median[now.target_dates.index(shared)]
    assert told.width_80 is not None
    low, high = now.interval(0.8)
    at = now.target_dates.index(shared)
    assert told.width_80.now == pytest.approx(high[at] - low[at])
    assert (told.close.before, told.close.now) == (days()[0].spot[-1], days()[1].spot[-1])
    assert (told.run_id, told.origin) == ("yesterday", days()[0].origin)
    assert (told.version_before, told.version_now) == (3, 4)
    assert not told.recipe_changed


def test_parts_add_up_and_the_first_is_the_move_of_the_close() -> None:
    told = found(document())
    assert told.parts is not None
    assert told.median is not None
    move = told.median.now - told.median.before
    assert told.parts.close + told.parts.signal + told.parts.weights == pytest.approx(move, abs=1e-9)
    assert told.parts.close == pytest.approx(told.close.now - told.close.before, rel=0.01)


def test_other_weights_move_the_median_by_what_the_members_say() -> None:
    """Today's members under other weights: all that moved is the weights' doing, to the cent."""
    now = runs()[1]
    names = [member.name for member in now.members]
    other = dict(zip(names, (0.7, 0.1, 0.1, 0.1), strict=True))
    forecast = now.forecast
    same_day = forecast_document(now, days()[1], "today", Path("/r.html"), published(4))
    for name, weight in other.items():
        same_day["models"][name]["weight"] = weight
    medians = np.array([member.raw[:, 11] for member in now.members])
    under_other = np.exp(np.array(list(other.values())) @ np.log(medians))
    same_day["quantiles"]["0.5"] = under_other.tolist()
    told = changes(json.loads(json.dumps(same_day)), now, days()[1])
    assert isinstance(told, Changes)
    assert told.parts is not None
    assert told.parts.close == pytest.approx(0, abs=1e-9)
    assert told.parts.signal == pytest.approx(0, abs=1e-9)
    assert told.parts.weights == pytest.approx(forecast.median[-1] - under_other[-1], rel=1e-6)
    assert told.weights[0].model == "random_walk"
    assert told.weights[0].before == 0.7


def test_the_largest_changes_of_weights_come_first_and_few_are_told() -> None:
    previous = document()
    weights = {"random_walk": 0.9, "theta": None, "drivers": 0.1, "momentum": 0.0, "retired": 0.25}
    previous["models"] = {name: {"weight": weight} for name, weight in weights.items()}
    told = found(previous).weights
    sizes = [abs((one.now or 0) - (one.before or 0)) for one in told]
    assert sizes == sorted(sizes, reverse=True)
    assert WeightChange("retired", 0.25, None) in told
    theta = next((one for one in told if one.model == "theta"), None)
    assert theta is None or theta.before is None
    same = found(document(), replace(runs()[1], members=runs()[0].members))
    assert same.weights == ()


def test_of_another_recipe_the_move_is_told_without_parts() -> None:
    told = found(document(recipe="another"))
    assert told.recipe_changed
    assert told.median is not None
    assert told.parts is None


def test_forecasts_that_share_no_date_are_compared_by_their_closes() -> None:
    previous = document(WEEK, target_dates=["2001-01-01"], quantiles={})
    told = found(previous, horizon=WEEK)
    assert (told.target_date, told.median, told.width_80, told.parts) == (None, None, None, None)
    assert told.close.now == days()[1].spot[-1]


def test_the_first_has_nothing_before_it() -> None:
    assert changes(None, runs()[1], days()[1]) == Absent("first")


def test_one_of_a_later_day_is_not_before() -> None:
    later = document(origin="2030-01-01")
    answer = changes(later, runs()[1], days()[1])
    assert answer == Absent("later", {"run_id": "yesterday", "origin": "2030-01-01"})


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no quantiles": lambda d: d.pop("quantiles"),
    "no origin": lambda d: d.pop("origin"),
    "models as a list": lambda d: d.update(models=["ensemble"]),
    "a date that is none": lambda d: d.update(target_dates=["soon"]),
    "a close of text": lambda d: d.update(origin_close="high"),
    "a close of nothing": lambda d: d.update(origin_close=0.0),
    "a negative median": lambda d: d["quantiles"].update({"0.5": [-1.0] * 40}),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_document_of_another_format_is_named_and_fails_nothing(kind: str) -> None:
    previous = document()
    BROKEN[kind](previous)
    assert changes(previous, runs()[1], days()[1]) == Absent("unreadable", {"run_id": "yesterday"})


class TestData:
    def test_a_new_day_is_one_new_row_and_no_revision(self) -> None:
        told = found(document()).data
        assert (told.new_rows, told.revised, told.left, told.joined) == (1, (), (), ())

    def test_without_the_rows_of_before_revisions_are_not_known(self) -> None:
        told = changes(document(), runs()[1], days()[1])
        assert isinstance(told, Changes)
        assert (told.data.new_rows, told.data.revised) == (1, None)

    def test_revised_rows_are_counted_by_series(self) -> None:
        before, now = days()
        spot, drivers = before.spot.copy(), before.drivers.copy()
        spot[400] += 1.0
        drivers[[10, 20, 30], 1] *= 1.01
        drivers[40, 2] = np.nan
        told = data_changes(replace(before, spot=spot, drivers=drivers), now)
        at = [before.dates[row].date() for row in (400, 10, 40)]
        assert told.revised == (
            Revised("USDCLP", 1, at[0]),
            Revised("DXY", 3, at[1]),
            Revised("VIX", 1, at[2]),
        )

    def test_a_close_that_came_late_is_no_revision_and_one_that_changed_is(self) -> None:
        before, now = days()
        truth = before.truth.copy()
        truth[-3:] = np.nan
        assert data_changes(replace(before, truth=truth), now).revised == ()
        truth[500] += 0.5
        (one,) = data_changes(replace(before, truth=truth), now).revised or ()
        assert (one.series, one.rows, one.first) == ("USDCLP", 1, before.dates[500].date())

    def test_a_row_that_spoke_early_is_not_compared(self) -> None:
        """A run before the desk opened: the last row was not complete, and is now."""
        before, now = days()
        drivers = before.drivers.copy()
        drivers[-1] = drivers[-2]
        instants = before.instants.to_series().to_numpy().copy()
        instants[-1] -= np.timedelta64(3, "h")
        early = replace(before, drivers=drivers, instants=before.instants[:-1].append(before.instants[-2:-1]))
        assert data_changes(early, now).revised == ()

    def test_drivers_that_joined_or_left_are_named(self) -> None:
        before, now = days()
        without = replace(
            before,
            drivers=before.drivers[:, :2],
            driver_names=before.driver_names[:2],
            driver_units=before.driver_units[:2],
        )
        assert data_changes(without, now).joined == ("VIX",)
        assert data_changes(now, without).left == ("VIX",)

    def test_a_week_of_new_rows(self) -> None:
        now = days()[1]
        then = now.until(now.instants[-6])
        assert data_changes(then, now).new_rows == 5
        assert date.fromisoformat(document()["origin"]) == days()[0].origin
