"""The engine from a raw table to a forecast: point in time, replayable, and honest about what it cannot do."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from forex_core.calendars import target_dates
from forex_core.config import MEMBERS, ChronosConfig, EngineConfig
from forex_core.engine import ENSEMBLE, Engine, Paths, build_members
from forex_core.errors import ConfigError, DataQualityError, ForecastError, MemberError
from forex_core.models.base import Answers, Forecaster, Levels
from forex_core.models.chronos_weights import EMBEDDED_FOLDER, GRAPH, STATEMENT
from forex_core.models.driver_regression import DriverRegression
from forex_core.models.random_walk import RandomWalk
from forex_core.models.smoothing import Theta
from forex_core.testing import USDCLP, bundle_of, synthetic_table
from forex_core.types import HORIZONS, LEVELS, ForecastRun, Horizon, MarketBundle

LIGHT = EngineConfig(
    members=("random_walk", "theta", "drivers"), grid_origins=60, warmup_origins=10, min_history_rows=300
)
WEEK, FORTNIGHT, MONTH, QUARTER = HORIZONS


def engine(config: EngineConfig = LIGHT, extra: Sequence[Forecaster] = ()) -> Engine:
    return Engine(config, [*build_members(config, ChronosConfig()), *extra])


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return synthetic_table(760, seed=5)


@pytest.fixture(scope="module")
def bundle(table: pd.DataFrame) -> MarketBundle:
    return bundle_of(table)


@pytest.fixture(scope="module")
def run(bundle: MarketBundle) -> ForecastRun:
    return engine().forecast(bundle, MONTH)


def same_run(one: ForecastRun, other: ForecastRun) -> None:
    """Every published number is the same to the last bit."""
    np.testing.assert_array_equal(one.forecast.quantiles, other.forecast.quantiles)
    np.testing.assert_array_equal(one.band_factors, other.band_factors)
    assert one.forecast.target_dates == other.forecast.target_dates
    assert one.weights == other.weights
    assert one.evaluation == other.evaluation
    assert one.verdict == other.verdict
    assert one.failures == other.failures
    assert (one.fingerprint, one.recipe) == (other.fingerprint, other.recipe)
    for mine, theirs in zip(one.members, other.members, strict=True):
        assert mine.name == theirs.name
        np.testing.assert_array_equal(mine.raw, theirs.raw)
        np.testing.assert_array_equal(mine.calibrated, theirs.calibrated)


class Recorder(Engine):
    """An engine that keeps its last pass."""

    last: Paths

    def paths(self, bundle: MarketBundle, rows: npt.NDArray[np.int64]) -> Paths:
        self.last = super().paths(bundle, rows)
        return self.last


class Broken:
    """A member that answers as the random walk, or fails where it is told to."""

    columns: tuple[str, ...] = ("spot",)
    lookback_rows: int | None = None
    trained_until: date | None = None
    may_have_seen = False
    libraries: tuple[str, ...] = ()

    def __init__(
        self,
        name: str = "broken",
        error: Exception | None = None,
        silent_every: int | None = None,
        silent_on: tuple[date, ...] = (),
        trained_until: date | None = None,
    ) -> None:
        self.name = name
        self.identity = f"{name}:{trained_until}"
        self.error = error
        self.silent_every = silent_every
        self.silent_on = pd.DatetimeIndex(silent_on)
        self.trained_until = trained_until

    def forecast(
        self, bundle: MarketBundle, origins: pd.DatetimeIndex, steps: int, levels: Levels
    ) -> Answers:
        if self.error is not None:
            raise self.error
        quantiles = RandomWalk().forecast(bundle, origins, steps, levels).quantiles.copy()
        rows = bundle.instants.get_indexer(origins)
        silent = bundle.dates[rows].isin(self.silent_on)
        if self.silent_every is not None:
            silent |= np.arange(len(rows)) % self.silent_every == 0
        quantiles[silent] = np.nan
        return Answers(quantiles, {int(p): "out to lunch" for p in np.flatnonzero(silent)})


# ---- what is published -------------------------------------------------------------------------------------


def test_a_run_says_what_it_is(bundle: MarketBundle, run: ForecastRun) -> None:
    steps, days = zip(*target_dates(USDCLP, bundle.origin, MONTH), strict=True)
    assert run.forecast.steps == steps
    assert run.forecast.target_dates == days
    assert run.forecast.origin == bundle.origin
    assert run.forecast.quantiles.shape == (len(steps), len(LEVELS))
    assert [m.name for m in run.members] == list(LIGHT.members)
    assert sum(run.weights.values()) == pytest.approx(1)
    assert min(run.weights.values()) >= 0
    assert run.fingerprint == bundle.fingerprint
    assert run.settings["grid_origins"] == 60
    assert set(run.evaluation.scores) == {ENSEMBLE, *LIGHT.members}
    assert run.evaluation.origins[-1] < bundle.origin
    assert LIGHT.min_scored_origins <= len(run.evaluation.origins) <= 60
    walk = run.evaluation.scores["random_walk"]
    assert (walk.rmse_ratio_rw, walk.crps_ratio_rw, walk.dm_pvalue) == (1.0, 1.0, None)


def test_a_run_is_rebuilt_from_its_members_weights_and_factors(
    bundle: MarketBundle, run: ForecastRun
) -> None:
    spot, middle = bundle.spot[-1], LEVELS.index(0.5)
    logs = np.log(np.stack([m.raw for m in run.members]) / spot)
    medians = logs[:, :, middle]
    centre = np.array([m.weight for m in run.members]) @ medians
    spread = (logs - medians[:, :, None]).mean(axis=0)
    rebuilt = spot * np.exp(centre[:, None] + np.sort(spread * run.band_factors, axis=1))
    np.testing.assert_allclose(rebuilt, run.forecast.quantiles, rtol=1e-12)


def test_members_are_shown_with_bands_of_their_own(run: ForecastRun) -> None:
    """Calibrated, as they are scored; their medians stay, and the combination is made of what they said."""
    middle = LEVELS.index(0.5)
    for member in run.members:
        np.testing.assert_allclose(member.calibrated[:, middle], member.raw[:, middle], rtol=1e-12)
        factors = np.log(member.calibrated / member.raw[:, [middle]])[:, [0, -1]]
        factors /= np.log(member.raw / member.raw[:, [middle]])[:, [0, -1]]
        assert ((factors > 0.8 - 1e-9) & (factors < 1.6 + 1e-9)).all()
        assert (np.abs(factors - 1) > 0.01).any()


def test_quantiles_do_not_cross_anywhere(bundle: MarketBundle) -> None:
    keeper = Recorder(LIGHT, build_members(LIGHT, ChronosConfig()))
    keeper.forecast(bundle, WEEK)
    for name, quantiles in keeper.last.quantiles.items():
        assert (np.diff(quantiles, axis=2) >= 0).all(), name
        assert (quantiles > 0).all(), name


def test_horizons_are_slices_of_one_path(bundle: MarketBundle) -> None:
    runs = [engine().forecast(bundle, h) for h in HORIZONS]
    longest = runs[-1].forecast
    for run in runs[:-1]:
        rows = len(run.forecast.steps)
        assert run.forecast.target_dates == longest.target_dates[:rows]
        np.testing.assert_array_equal(run.forecast.quantiles, longest.quantiles[:rows])
        assert run.weights == runs[-1].weights
    assert [len(r.forecast.steps) for r in runs] == sorted({len(r.forecast.steps) for r in runs})


def test_two_runs_are_one(table: pd.DataFrame, run: ForecastRun) -> None:
    same_run(engine().forecast(bundle_of(table), MONTH), run)


def test_the_unit_of_the_price_does_not_matter(table: pd.DataFrame, run: ForecastRun) -> None:
    dear = table.copy()
    dear["USDCLP"] *= 100
    other = engine().forecast(bundle_of(dear), MONTH)
    np.testing.assert_allclose(other.forecast.quantiles, 100 * run.forecast.quantiles, rtol=1e-6)
    ours, theirs = run.evaluation.scores[ENSEMBLE], other.evaluation.scores[ENSEMBLE]
    assert theirs.rmse == pytest.approx(100 * ours.rmse, rel=1e-6)
    assert theirs.crps == pytest.approx(100 * ours.crps, rel=1e-6)
    assert theirs.mape_pct == pytest.approx(ours.mape_pct, rel=1e-6)
    assert theirs.coverage_80 == ours.coverage_80
    assert other.verdict.kind == run.verdict.kind


def test_progress_is_told_from_the_first_member_to_the_end(bundle: MarketBundle) -> None:
    told: list[tuple[str, int, int]] = []
    members = build_members(LIGHT, ChronosConfig())
    Engine(LIGHT, members, lambda *step: told.append(step)).forecast(bundle, WEEK)
    assert [done for _, done, _ in told] == [1, 2, 3, 4, 5]
    assert {total for *_, total in told} == {5}
    assert [stage for stage, *_ in told[:3]] == list(LIGHT.members)


# ---- point in time -----------------------------------------------------------------------------------------


def altered(table: pd.DataFrame, after: date) -> dict[str, pd.DataFrame]:
    later = (pd.to_datetime(table["Date"]) > pd.Timestamp(after)).to_numpy()
    assert later.any()
    loud = table.copy()
    loud.loc[later, table.columns[1:]] *= 10
    return {"times 10": loud, "deleted": table[~later]}


def test_a_forecast_of_the_past_does_not_know_the_future(table: pd.DataFrame) -> None:
    day = pd.Timestamp(table["Date"].iloc[-40]).date()
    then = engine().forecast(bundle_of(table, as_of=day), MONTH)
    for change, other in altered(table, day).items():
        again = engine().forecast(bundle_of(other, as_of=day), MONTH)
        assert again.forecast.origin == day, change
        same_run(again, then)


@pytest.mark.parametrize("members", [tuple(name for name in MEMBERS if name != "chronos")])
def test_the_whole_pass_of_every_member_is_point_in_time(
    table: pd.DataFrame, members: tuple[str, ...]
) -> None:
    """From the raw table to the band: at every origin up to a day, what came after that day changes no bit."""
    config = LIGHT.model_copy(update={"members": members})
    short = table[:520]
    whole = bundle_of(short)
    position = 460
    rows = np.array([*range(300, 440, 5), *range(position - 4, position + 1)])
    day = whole.dates[position].date()
    later = np.arange(position + 3, 520, 9)
    passes = {
        "whole": engine(config).paths(whole, np.union1d(rows, later)),
        "as it stood": engine(config).paths(whole.until(whole.instants[position]), rows),
        **{
            change: engine(config).paths(bundle_of(other), rows)
            for change, other in altered(short, day).items()
        },
    }
    reference = passes.pop("whole")
    upto = slice(0, len(rows))
    np.testing.assert_array_equal(reference.rows[upto], rows)
    assert set(reference.quantiles) == {*members, ENSEMBLE}
    assert (reference.factors[upto] != 1).any()
    for change, found in passes.items():
        for name in reference.quantiles:
            np.testing.assert_array_equal(
                found.quantiles[name], reference.quantiles[name][upto], err_msg=f"{change}: {name}"
            )
        np.testing.assert_array_equal(found.weights, reference.weights[upto], err_msg=change)
        np.testing.assert_array_equal(found.factors, reference.factors[upto], err_msg=change)


def test_weights_have_been_learned_and_are_still_point_in_time(bundle: MarketBundle) -> None:
    grid = engine()._recent_grid(bundle, len(bundle))
    whole = engine().paths(bundle, grid)
    assert (whole.weights[-1] != whole.weights[0]).any()
    cut = len(grid) - 7
    before = engine().paths(bundle.until(bundle.instants[grid[cut - 1]]), grid[:cut])
    np.testing.assert_array_equal(before.weights, whole.weights[:cut])
    np.testing.assert_array_equal(before.quantiles[ENSEMBLE], whole.quantiles[ENSEMBLE][:cut])


def test_scores_of_a_window_do_not_change_with_what_came_later(table: pd.DataFrame) -> None:
    whole = bundle_of(table)
    start, last = whole.dates[480].date(), 640
    asked: dict[str, Any] = {"start": start, "end": whole.dates[last].date()}
    scored = engine().evaluate(whole, MONTH, **asked)
    assert scored.origins[0] >= start
    assert scored.origins[-1] <= asked["end"]
    outcome = whole.dates[last + MONTH.evaluation_steps].date()
    for other in altered(table, outcome).values():
        assert engine().evaluate(bundle_of(other), MONTH, **asked) == scored
    sooner = altered(table, whole.dates[last - 5].date())["times 10"]
    assert engine().evaluate(bundle_of(sooner), MONTH, **asked) != scored


def test_what_is_published_is_what_is_scored(bundle: MarketBundle) -> None:
    """At a grid origin, the forecast published that day and the one in the leaderboard agree, weights to the bit."""
    origin = int(engine()._recent_grid(bundle, len(bundle))[-30])
    published = engine().forecast(bundle.until(bundle.instants[origin]), QUARTER)
    keeper = Recorder(LIGHT, build_members(LIGHT, ChronosConfig()))
    start = bundle.dates[origin].date().replace(day=1)
    scored = keeper.evaluate(bundle, WEEK, start=start, every=1)
    assert bundle.dates[origin].date() in scored.origins
    position = int(np.flatnonzero(keeper.last.rows == origin)[0])
    at = np.array(published.forecast.steps) - 1
    scored_there = keeper.last.quantiles[ENSEMBLE][position][at]
    np.testing.assert_allclose(scored_there, published.forecast.quantiles, rtol=1e-13)
    np.testing.assert_array_equal(keeper.last.factors[position][at], published.band_factors)
    assert keeper.last.weights[position].tolist() == list(published.weights.values())


def test_origins_between_those_of_the_grid_teach_nothing(bundle: MarketBundle) -> None:
    start = bundle.dates[560].date()
    weekly = Recorder(LIGHT, build_members(LIGHT, ChronosConfig()))
    daily = Recorder(LIGHT, build_members(LIGHT, ChronosConfig()))
    few = weekly.evaluate(bundle, WEEK, start=start)
    many = daily.evaluate(bundle, WEEK, start=start, every=1)
    assert len(many.origins) > 4 * len(few.origins)
    assert set(few.origins) < set(many.origins)
    shared = np.isin(daily.last.rows, weekly.last.rows)
    np.testing.assert_array_equal(daily.last.rows[shared], weekly.last.rows)
    np.testing.assert_array_equal(daily.last.quantiles[ENSEMBLE][shared], weekly.last.quantiles[ENSEMBLE])
    np.testing.assert_array_equal(daily.last.weights[shared], weekly.last.weights)


def test_outcomes_that_were_never_observed_are_not_scored(table: pd.DataFrame, bundle: MarketBundle) -> None:
    holed = table.copy()
    holed.loc[600, "USDCLP"] = np.nan
    keeper = Recorder(LIGHT, build_members(LIGHT, ChronosConfig()))
    keeper.forecast(bundle_of(holed), WEEK)
    targets = keeper.last.rows[:, None] + np.arange(1, 65)
    np.testing.assert_array_equal(np.isnan(keeper.last.truth), (targets == 600) | (targets >= len(bundle)))
    seen = ~np.isnan(keeper.last.truth)
    np.testing.assert_allclose(keeper.last.truth[seen], bundle.truth[targets[seen]], rtol=1e-12)


# ---- members that fail -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Broken(error=MemberError("no weights")), "no weights"),
        (Broken(error=np.linalg.LinAlgError("Singular matrix")), "LinAlgError: Singular matrix"),
        (Broken(error=ZeroDivisionError("float division")), "ZeroDivisionError: float division"),
        (Broken(silent_every=20), "out to lunch"),
        (Broken(trained_until=date(2017, 6, 1)), "seen data up to 2017-06-01"),
    ],
    ids=["refuses", "singular", "division", "silent", "has_seen_the_origins"],
)
def test_a_member_that_fails_is_left_out_with_its_reason(
    bundle: MarketBundle, run: ForecastRun, broken: Broken, reason: str
) -> None:
    without = engine(extra=[broken]).forecast(bundle, MONTH)
    assert set(without.failures) == {"broken"}
    assert reason in without.failures["broken"]
    assert without.evaluation.failures == without.failures
    assert "broken" not in without.evaluation.scores
    assert without.weights == run.weights
    np.testing.assert_array_equal(without.forecast.quantiles, run.forecast.quantiles)


def test_no_answer_today_leaves_a_member_out(bundle: MarketBundle) -> None:
    silent = Broken(silent_on=(bundle.origin,))
    without = engine(extra=[silent]).forecast(bundle, WEEK)
    assert "no answer at 1 of" in without.failures["broken"]
    assert bundle.origin.isoformat() in without.failures["broken"]


def test_a_rare_silence_takes_the_origin_from_all(table: pd.DataFrame) -> None:
    longer = bundle_of(synthetic_table(1000, seed=5))
    config = LIGHT.model_copy(update={"grid_origins": 125})
    row = int(engine(config)._recent_grid(longer, len(longer))[-40])
    day = longer.dates[row].date()
    quiet, answering = Broken("quiet", silent_on=(day,)), Broken("quiet")
    found = engine(config, [quiet]).forecast(longer, WEEK)
    whole = engine(config, [answering]).forecast(longer, WEEK)
    assert found.failures == {}
    assert set(whole.evaluation.origins) - set(found.evaluation.origins) == {day}
    assert found.evaluation.scores["quiet"].failed_origins == 1
    assert found.evaluation.scores["theta"].failed_origins == 0


@pytest.mark.usefixtures("kept_pictures")
def test_a_member_that_may_know_the_outcomes_is_marked_wherever_its_scores_are(bundle: MarketBundle) -> None:
    """In the leaderboard, in the document of a run and in its report; one that did not answer has no scores."""
    from forex_core.report.document import evaluation_document, forecast_document
    from forex_core.report.page import render_report
    from forex_core.report.text import MAY_HAVE_SEEN, leaderboard

    unknown, refusing = Broken("unknown"), Broken("refusing", error=MemberError("no"))
    unknown.may_have_seen = refusing.may_have_seen = True
    made = engine(LIGHT, [unknown, refusing])
    run = made.forecast(bundle, WEEK)
    assert run.evaluation.may_have_seen == ("unknown",)
    found = made.evaluate(bundle, WEEK)
    document = evaluation_document(found, bundle, 1.0)
    assert document["may_have_seen"] == ["unknown"]
    assert f"unknown: {MAY_HAVE_SEEN}." in [str(part) for part in leaderboard(document)]
    page = render_report(run, bundle, run_id="r", generated_at=pd.Timestamp("2024-07-01T12:30:00Z"))
    assert re.search(r">Unknown<[^>]*>\s*<[^>]*>may have seen these outcomes, and the ensemble by it", page)
    assert forecast_document(run, bundle, "r", Path("r.html"))["may_have_seen"] == ["unknown"]
    paths = made.paths_behind(bundle)
    assert Paths.from_arrays(bundle, paths.arrays()).may_have_seen == ("unknown",)


class Tuned(Broken):
    """Answers what came of every origin that its weights have seen, if it is a `prophet`; of the others as the walk."""

    def __init__(self, trained_until: date, prophet: bool = True) -> None:
        super().__init__("tuned", trained_until=trained_until)
        self.prophet = prophet

    def forecast(
        self, bundle: MarketBundle, origins: pd.DatetimeIndex, steps: int, levels: Levels
    ) -> Answers:
        answers = super().forecast(bundle, origins, steps, levels)
        rows = bundle.instants.get_indexer(origins)
        came = bundle.spot[np.minimum(rows[:, None] + np.arange(1, steps + 1), len(bundle) - 1)]
        seen = (bundle.dates[rows] <= pd.Timestamp(self.trained_until)) & self.prophet
        answers.quantiles[seen] *= (came / bundle.spot[rows][:, None])[seen][:, :, None]
        return answers


def test_what_weights_have_seen_is_neither_scored_nor_learned_from() -> None:
    longer = bundle_of(synthetic_table(1000, seed=5))
    config = LIGHT.model_copy(update={"grid_origins": 125})
    cut_off = longer.dates[-350].date()
    found, honest = (
        engine(config, [Tuned(cut_off, prophet)]).forecast(longer, WEEK) for prophet in (True, False)
    )
    assert found.failures == {}
    assert found.evaluation.origins[0] > cut_off
    assert set(found.evaluation.scores) == {ENSEMBLE, *LIGHT.members, "tuned"}
    assert found.evaluation.scores["tuned"].failed_origins == 0
    assert (found.evaluation, found.weights, found.verdict) == (
        honest.evaluation,
        honest.weights,
        honest.verdict,
    )
    np.testing.assert_array_equal(found.forecast.quantiles, honest.forecast.quantiles)
    np.testing.assert_array_equal(found.band_factors, honest.band_factors)


def test_a_window_of_origins_begins_after_what_weights_have_seen() -> None:
    longer = bundle_of(synthetic_table(1000, seed=5))
    cut_off, start = longer.dates[-350].date(), longer.dates[400].date()
    speaker = engine(extra=[Tuned(cut_off)])
    whole = speaker.evaluate(longer, WEEK, start)
    assert whole.origins[0] > cut_off
    assert "tuned" in whole.scores
    before = speaker.evaluate(longer, WEEK, start, cut_off)
    assert (before.origins[0], "tuned" in before.scores) == (start, False), "it would leave none"
    assert "seen data up to" in before.failures["tuned"]


def test_a_mistake_in_a_member_is_not_hidden(bundle: MarketBundle) -> None:
    with pytest.raises(TypeError, match="a bug"):
        engine(extra=[Broken(error=TypeError("a bug"))]).forecast(bundle, WEEK)


def test_too_few_members_is_an_error_that_says_why(bundle: MarketBundle) -> None:
    config = LIGHT.model_copy(update={"min_members": 4})
    with pytest.raises(ForecastError, match=r"3 members answered, at least 4 are needed; broken: .*lunch"):
        engine(config, [Broken(silent_every=10)]).forecast(bundle, WEEK)


def test_the_random_walk_is_always_a_member(bundle: MarketBundle) -> None:
    with pytest.raises(ConfigError, match="random_walk"):
        build_members(LIGHT.model_copy(update={"members": ("theta",)}), ChronosConfig())
    with pytest.raises(ConfigError, match="random_walk"):
        Engine(LIGHT, [Theta()])
    with pytest.raises(ConfigError, match="distinct"):
        Engine(LIGHT, [RandomWalk(), Theta(), Theta()])
    with pytest.raises(ConfigError, match="unknown member 'oracle'"):
        build_members(LIGHT.model_copy(update={"members": ("oracle",)}), ChronosConfig())
    silent = Broken("random_walk", error=MemberError("asleep"))
    with pytest.raises(ForecastError, match="the random walk could not answer: asleep"):
        Engine(LIGHT, [silent, Theta(), DriverRegression()]).forecast(bundle, WEEK)


def test_chronos_without_weights_is_left_out(bundle: MarketBundle) -> None:
    config = LIGHT.model_copy(update={"members": (*LIGHT.members, "chronos")})
    found = Engine(config, build_members(config, ChronosConfig(model=None))).forecast(bundle, WEEK)
    assert "no weights" in found.failures["chronos"]


def test_the_weights_of_the_package_answer_by_themselves_and_only_what_they_have_not_seen() -> None:
    config = LIGHT.model_copy(update={"members": (*LIGHT.members, "chronos")})
    after, before = (
        bundle_of(synthetic_table(760, seed=5, start=day)) for day in ("2018-06-01", "2014-01-01")
    )
    found = engine(config).forecast(after, WEEK)
    assert not found.failures
    assert found.state.weights["chronos"] > 0
    assert "data up to 2017-12-31" in engine(config).forecast(before, WEEK).failures["chronos"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: (f / GRAPH).write_bytes((f / GRAPH).read_bytes()[:-9]), "model.onnx has the checksum"),
        (lambda f: (f / STATEMENT).write_text("{"), "cannot read training.json"),
        (lambda f: (f / "config.json").write_text("{}"), "is not as 'forex train' writes it"),
        (shutil.rmtree, "no folder"),
    ],
)
def test_weights_that_are_damaged_leave_the_member_out_and_the_run_goes_on(
    spoil: Any, reason: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(EMBEDDED_FOLDER, tmp_path / "weights"))
    spoil(folder)
    config = LIGHT.model_copy(update={"members": (*LIGHT.members, "chronos")})
    made = Engine(config, build_members(config, ChronosConfig(model=str(folder))))
    found = made.forecast(bundle_of(synthetic_table(760, seed=5, start="2018-06-01")), WEEK)
    assert reason in found.failures["chronos"]
    assert sum(found.state.weights.values()) == pytest.approx(1)
    assert "chronos" not in found.evaluation.scores


# ---- history -----------------------------------------------------------------------------------------------


def test_thirty_rows_are_refused(table: pd.DataFrame) -> None:
    short = bundle_of(table[:30])
    with pytest.raises(DataQualityError, match=r"USDCLP has 30 rows .* needs \d+"):
        engine().forecast(short, WEEK)
    with pytest.raises(DataQualityError, match="30 rows"):
        engine().evaluate(short, WEEK)


@pytest.mark.parametrize("horizon", HORIZONS, ids=str)
def test_the_shortest_history_that_is_accepted_is_scored_on_enough_origins(
    bundle: MarketBundle, horizon: Horizon
) -> None:
    speaker = engine(EngineConfig(members=LIGHT.members))
    low, high = 300, len(bundle)
    while high - low > 1:
        rows = (low + high) // 2
        try:
            speaker.check(bundle.until(bundle.instants[rows - 1]), horizon)
            high = rows
        except DataQualityError as error:
            needed = int(str(error).split("needs ")[1].split()[0])
            low = rows
    assert high <= needed < high + 50
    shortest = bundle.until(bundle.instants[high - 1])
    wanted = speaker.config.min_scored_origins
    assert len(speaker.forecast(shortest, horizon).evaluation.origins) == wanted
    assert len(speaker.evaluate(shortest, horizon).origins) == wanted


def test_a_window_without_enough_outcomes_is_refused(bundle: MarketBundle) -> None:
    with pytest.raises(DataQualityError, match=r"only \d+ origins .* at least 26"):
        engine().evaluate(bundle, WEEK, start=bundle.dates[-60].date())
    for day in (bundle.dates[0], bundle.dates[200], bundle.dates[0] - pd.Timedelta(days=9)):
        with pytest.raises(DataQualityError, match="only 0 origins"):
            engine().evaluate(bundle, WEEK, end=day.date())


def test_origins_are_counted_from_the_start(bundle: MarketBundle) -> None:
    start = bundle.dates[501].date()
    scored = engine().evaluate(bundle, WEEK, start=start, every=7)
    rows = bundle.dates.get_indexer(pd.DatetimeIndex(scored.origins))
    np.testing.assert_array_equal(rows, np.arange(501, len(bundle) - WEEK.evaluation_steps, 7))
    assert scored.every == 7


# ---- the verdict -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_table() -> pd.DataFrame:
    return synthetic_table(1000, seed=1, pass_through=3.0)


def days_of(table: pd.DataFrame, month: str) -> list[date]:
    days = pd.to_datetime(table["Date"])
    return [d.date() for d in days[days.dt.strftime("%Y-%m") == month]]


@pytest.mark.parametrize("config", [LIGHT, EngineConfig(members=LIGHT.members)], ids=["long", "short"])
def test_a_verdict_stands_for_its_month(long_table: pd.DataFrame, config: EngineConfig) -> None:
    """Whether the history is longer than the grid, whose window could slide, or shorter, when the warm-up grows."""
    days = days_of(long_table, "2018-08")
    speaker = engine(config)
    verdicts = {d: speaker.forecast(bundle_of(long_table, as_of=d), WEEK).verdict for d in days[::4]}
    assert len(set(verdicts.values())) == 1
    assert verdicts[days[0]].decided_on == date(2018, 7, 31)
    following = days_of(long_table, "2018-09")[0]
    changed = speaker.forecast(bundle_of(long_table, as_of=following), WEEK).verdict
    assert changed.decided_on == date(2018, 8, 31)
    assert 0 < verdicts[days[0]].p_close != changed.p_close < 0.5


def test_a_print_held_at_the_end_of_a_month_does_not_change_its_verdict(long_table: pd.DataFrame) -> None:
    """On 31 May 2018 the week of a grid origin ends; its close is known only once the print after it agrees."""
    last, days = date(2018, 5, 31), days_of(long_table, "2018-06")
    jumped = long_table.copy()
    jumped.loc[pd.to_datetime(jumped["Date"]) >= pd.Timestamp(last), "USDCLP"] *= 1.3
    before, after = bundle_of(jumped, as_of=last), bundle_of(jumped, as_of=days[2])
    row = before.dates.get_loc(pd.Timestamp(last))
    assert np.isnan(before.truth[row])
    assert np.isfinite(after.truth[row])
    assert row - WEEK.evaluation_steps in engine()._recent_grid(after, len(after))
    verdict = engine().forecast(after, WEEK).verdict
    assert verdict.decided_on == last
    never = jumped.copy()
    never.loc[pd.to_datetime(never["Date"]) == pd.Timestamp(last), "USDCLP"] = np.nan
    assert engine().forecast(bundle_of(never, as_of=days[2]), WEEK).verdict == verdict


def test_a_strong_effect_of_the_drivers_is_found_and_named_for_what_it_is() -> None:
    """The drivers say where the next close will be and nothing beyond it: skill, but only against this close."""
    strong = bundle_of(synthetic_table(1300, seed=1, pass_through=3.0))
    config = LIGHT.model_copy(update={"grid_origins": 160})
    found = engine(config).forecast(strong, WEEK)
    scores = found.evaluation.scores[ENSEMBLE]
    assert scores.rmse_ratio_rw < 0.95
    assert scores.crps_ratio_rw < 0.95
    assert scores.rmse_ratio_next_close is not None
    assert 0.95 < scores.rmse_ratio_next_close < 1.05
    assert scores.directional_accuracy is not None
    assert scores.directional_accuracy > 0.55
    assert found.verdict.kind == "close_only"
    assert found.verdict.p_close < 0.05 < found.verdict.p_next_close


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_there_is_nothing_to_know_nothing_is_claimed(seed: int) -> None:
    blind = bundle_of(synthetic_table(1100, seed=seed, pass_through=0.0))
    config = LIGHT.model_copy(update={"grid_origins": 100})
    found = engine(config).forecast(blind, WEEK)
    scores = found.evaluation.scores[ENSEMBLE]
    assert scores.rmse_ratio_rw == pytest.approx(1, abs=0.04)
    assert scores.crps_ratio_rw == pytest.approx(1, abs=0.04)
    assert found.verdict.kind == "none"


# ---- the recipe --------------------------------------------------------------------------------------------


def test_a_recipe_is_what_makes_the_model_this_model() -> None:
    recipe = engine().recipe
    assert engine().recipe == recipe
    assert len(recipe) == 64
    others = [
        engine(LIGHT.model_copy(update={"weight_rate": 60.0})).recipe,
        engine(LIGHT.model_copy(update={"grid_origins": 61})).recipe,
        engine(LIGHT.model_copy(update={"members": ("random_walk", "theta")})).recipe,
        engine(extra=[Broken()]).recipe,
        engine(extra=[Broken(trained_until=date(2010, 1, 1))]).recipe,
    ]
    assert len({recipe, *others}) == 6


def test_members_are_built_in_the_order_of_the_configuration() -> None:
    assert [m.name for m in build_members(EngineConfig(), ChronosConfig())] == list(MEMBERS)
    backwards = EngineConfig(members=MEMBERS[::-1])
    assert [m.name for m in build_members(backwards, ChronosConfig())] == list(MEMBERS[::-1])


def test_the_bundle_is_left_as_it_was(bundle: MarketBundle) -> None:
    copy = replace(bundle, spot=bundle.spot.copy(), drivers=bundle.drivers.copy(), truth=bundle.truth.copy())
    engine().forecast(copy, WEEK)
    assert copy.fingerprint == bundle.fingerprint
