"""Which model is published: every outcome of the choice, what it is decided on, and how often that errs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri

from forex_core.cache import AnswerCache
from forex_core.calendars import target_dates
from forex_core.champion import (
    CONFIDENCE,
    MAX_SIGMAS,
    MIN_ORIGINS,
    TOLERANCE,
    Decision,
    Reigning,
    choose,
    soundness,
)
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import Engine, build_members, library_versions
from forex_core.errors import DataQualityError, ForecastError, MemberError
from forex_core.evaluation import Comparison, Judged, compare_crps, compare_losses, crps
from forex_core.models.base import Answers, Levels
from forex_core.models.random_walk import RandomWalk, reference_sigma
from forex_core.specification import Specification, frame_of, paths_of
from forex_core.testing import bundle_of, synthetic_table
from forex_core.types import (
    ENSEMBLE,
    LEVELS,
    PATH_STEPS,
    Array,
    Forecast,
    ForecastRun,
    Horizon,
    MarketBundle,
    State,
)

WEEK, FORTNIGHT = Horizon(7), Horizon(15)
CHRONOS = ChronosConfig()
NOWHERE = Path("/nowhere/at/all")
BASE = EngineConfig(
    members=("random_walk", "drivers", "momentum"), grid_origins=125, warmup_origins=8, min_members=1
)
SHORT = BASE.model_copy(update={"grid_origins": 60})
POOR = {"members": ("random_walk", "drivers")}
"""On the table below the member that this lacks is the best by far."""


ANSWERS: list[Path] = []
"""Folder of the members' answers, which are computed once for all tests here."""


@pytest.fixture(scope="module", autouse=True)
def answers(tmp_path_factory: pytest.TempPathFactory) -> None:
    ANSWERS[:] = [tmp_path_factory.mktemp("answers")]


def engine(cache: Path | None = None, **changes: Any) -> Engine:
    config = BASE.model_copy(update=changes)
    kept = AnswerCache(cache or ANSWERS[0], library_versions())
    return Engine(config, build_members(config, CHRONOS), cache=kept)


def specification(by: Engine, bundle: MarketBundle, horizon: Horizon = WEEK) -> Specification:
    return Specification.of(by.forecast(bundle, horizon), bundle, by.config, CHRONOS)


def rows_before(bundle: MarketBundle, days: int) -> MarketBundle:
    return bundle.until(bundle.instants[-1 - days])


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return synthetic_table(1150, seed=5)


@pytest.fixture(scope="module")
def bundle(table: pd.DataFrame) -> MarketBundle:
    return bundle_of(table)


@pytest.fixture(scope="module")
def short(table: pd.DataFrame) -> MarketBundle:
    return bundle_of(table[:640])


@pytest.fixture(scope="module")
def modest(short: MarketBundle) -> Specification:
    return specification(engine(grid_origins=60), rows_before(short, 8))


@pytest.fixture(scope="module")
def good(bundle: MarketBundle) -> Specification:
    return specification(engine(), rows_before(bundle, 8))


@pytest.fixture(scope="module")
def poor(bundle: MarketBundle) -> Specification:
    return specification(engine(**POOR), rows_before(bundle, 8))


class Member:
    """Answers as the random walk: `shift` in logs on one day, or not at all where it is `silent`."""

    columns: tuple[str, ...] = ("spot",)
    lookback_rows: int | None = None
    trained_until: date | None = None
    may_have_seen = False
    libraries: tuple[str, ...] = ()
    name = "momentum"
    identity = "odd"

    def __init__(self, on: date | None = None, shift: float = 0.0, silent: bool = False) -> None:
        self.on, self.shift, self.silent = pd.Timestamp(on) if on else None, shift, silent

    def forecast(
        self, bundle: MarketBundle, origins: pd.DatetimeIndex, steps: int, levels: Levels
    ) -> Answers:
        if self.silent:
            raise MemberError("out to lunch")
        quantiles = RandomWalk().forecast(bundle, origins, steps, levels).quantiles.copy()
        quantiles[bundle.dates[bundle.instants.get_indexer(origins)] == self.on] *= np.exp(self.shift)
        return Answers(quantiles, {})


def with_member(member: Member) -> Engine:
    config = SHORT.model_copy(update={"members": ("random_walk", "drivers")})
    return Engine(config, [*build_members(config, CHRONOS), member])


def reigning_of(state: State, by: Engine, bundle: MarketBundle, **known: Any) -> Reigning:
    run = by.forecast(bundle, WEEK)
    found = Specification.of(replace(run, state=state), bundle, by.config, CHRONOS)
    return Reigning(7, found, NOWHERE, **known)


def published_by_hand(
    run: ForecastRun, weights: Mapping[str, float], factors: Array, names: tuple[str, ...]
) -> Array:
    """exp(Σ w x.5 + sorted(factor · mean(x − x.5))), step by step."""
    raw = {m.name: np.log(m.raw) for m in run.members}
    steps, middle = run.forecast.steps, LEVELS.index(0.5)
    out = np.empty((len(steps), len(LEVELS)))
    for h, step in enumerate(steps):
        centre = sum(weights[name] * raw[name][h, middle] for name in names)
        deviation = [
            factors[step - 1, q] * sum(raw[name][h, q] - raw[name][h, middle] for name in names) / len(names)
            for q in range(len(LEVELS))
        ]
        out[h] = [math.exp(centre + value) for value in sorted(deviation)]
    return out


# ---- the same recipe ---------------------------------------------------------------------------------------


def test_the_first_state_is_champion_and_published(short: MarketBundle) -> None:
    speaker = engine(grid_origins=60)
    choice = choose(speaker, short, WEEK, None)
    new = choice.new
    assert choice.decision.outcome == "initial"
    assert choice.decision.succeeds
    assert choice.published is new
    assert choice.other is None
    np.testing.assert_array_equal(new.forecast.quantiles, speaker.forecast(short, WEEK).forecast.quantiles)


def test_the_next_state_of_a_recipe_succeeds_without_a_contest(short: MarketBundle) -> None:
    speaker = engine(grid_origins=60)
    before = specification(speaker, rows_before(short, 1))
    choice = choose(speaker, short, WEEK, Reigning(1, before, NOWHERE))
    new = choice.new
    assert choice.decision.outcome == "refreshed"
    assert choice.decision.succeeds
    assert choice.decision.comparison is None
    assert choice.published is new
    assert new.state.trained_until == short.origin
    assert choice.other is None


def test_a_state_learned_twice_on_one_day_succeeds_itself(short: MarketBundle) -> None:
    speaker = engine(grid_origins=60)
    found = choose(speaker, short, WEEK, Reigning(1, specification(speaker, short), NOWHERE))
    assert found.decision.outcome == "refreshed"


@pytest.mark.parametrize(
    ("width", "outcome"),
    [(2.1, "unsound"), (1.9, "refreshed"), (0.53, "refreshed"), (0.47, "unsound")],
)
def test_a_band_twice_or_half_as_wide_is_not_sound_and_the_old_state_is_published(
    short: MarketBundle, width: float, outcome: str
) -> None:
    speaker = engine(grid_origins=60)
    now = speaker.forecast(short, WEEK)
    old = State(short.origin, now.state.weights, now.state.factors / width)
    choice = choose(speaker, short, WEEK, reigning_of(old, speaker, short))
    new = choice.new
    assert choice.decision.outcome == outcome
    if outcome == "refreshed":
        assert choice.published is new
        return
    assert not choice.decision.succeeds
    assert choice.other is new
    assert f"{width:.2f} times the champion's; expected 0.5 to 2" in choice.decision.reason
    by_hand = published_by_hand(new, old.weights, old.factors, tuple(old.weights))
    np.testing.assert_allclose(choice.published.forecast.quantiles, by_hand, rtol=1e-12)
    assert np.abs(choice.published.forecast.quantiles / new.forecast.quantiles - 1).max() > 1e-3
    assert choice.published.state is old


@pytest.mark.parametrize("sigmas", [4.1, -4.1])
def test_a_median_far_from_the_close_is_not_sound_and_the_old_state_is_published(
    short: MarketBundle, sigmas: float
) -> None:
    """The member that strays today has half the weight in the new state, and none in the old one."""
    sigma = float(reference_sigma(short)[-1])
    speaker = with_member(Member(short.origin, 1000 * sigma * np.sign(sigmas)))
    old = State(
        short.origin, {"random_walk": 1.0, "drivers": 0.0, "momentum": 0.0}, np.ones((64, len(LEVELS)))
    )
    choice = choose(speaker, short, WEEK, reigning_of(old, speaker, short))
    new = choice.new
    assert choice.decision.outcome == "unsound"
    assert "more than 4 σ√h from the close" in choice.decision.reason
    assert choice.published.forecast.median == pytest.approx(np.full(len(new.forecast.steps), short.spot[-1]))
    with pytest.raises(ForecastError, match=r"not sound: the median of .* look at the last rows"):
        choose(speaker, short, WEEK, None)
    later = State(date(2030, 1, 1), old.weights, old.factors)
    with pytest.raises(ForecastError, match="not sound"):
        choose(speaker, short, WEEK, reigning_of(later, speaker, short))


@pytest.mark.parametrize("at", [0, 3])
def test_four_sigmas_are_the_limit_at_every_step(short: MarketBundle, at: int) -> None:
    """Over Good Friday, so that the fourth day of the path is the fifth step."""
    then = short.until(short.instants[short.dates.get_loc("2017-04-10")])
    steps, days = zip(*target_dates(then.pair, then.origin, WEEK), strict=True)
    assert steps == (1, 2, 3, 5)
    sigma = float(reference_sigma(then)[-1])
    for share, faults in ((0.99, 0), (-0.99, 0), (1.01, 1), (-1.01, 1)):
        quantiles = np.full((len(steps), len(LEVELS)), then.spot[-1])
        quantiles[at] *= np.exp(share * MAX_SIGMAS * sigma * np.sqrt(steps[at]))
        strayed = Forecast(then.pair, then.origin, days, steps, LEVELS, quantiles)
        found = soundness(strayed, then)
        assert len(found) == faults
        assert all(str(days[at]) in one for one in found)


def test_a_member_that_newly_fails_leaves_the_champion_with_the_weights_of_the_others(
    short: MarketBundle,
) -> None:
    weights = {"random_walk": 0.5, "drivers": 0.2, "momentum": 0.3}
    before = with_member(Member()).forecast(rows_before(short, 1), WEEK)
    before = replace(before, state=replace(before.state, weights=weights))
    silent = with_member(Member(silent=True))
    old = Specification.of(before, short, silent.config, CHRONOS)
    assert old.recipe == silent.recipe
    choice = choose(silent, short, WEEK, Reigning(3, old, NOWHERE))
    new = choice.new
    assert choice.decision.outcome == "unsound"
    assert "momentum newly failed: out to lunch" in choice.decision.reason
    found = choice.published
    assert found.failures == {"momentum": "out to lunch"}
    shared = {"random_walk": 5 / 7, "drivers": 2 / 7}
    assert found.weights == pytest.approx(shared, rel=1e-14)
    assert sum(found.weights.values()) == pytest.approx(1, abs=1e-15)
    by_hand = published_by_hand(found, shared, before.state.factors, ("random_walk", "drivers"))
    np.testing.assert_allclose(found.forecast.quantiles, by_hand, rtol=1e-12)
    assert new.weights != found.weights

    # A failure of a member that the champion never had is none of its own.
    never = State(old.state.trained_until, shared, before.state.factors)
    choice = choose(silent, short, WEEK, reigning_of(never, silent, short))
    assert choice.decision.outcome == "refreshed"

    # Nobody is left to take the weight.
    alone = State(old.state.trained_until, {"random_walk": 0.0, "momentum": 1.0}, before.state.factors)
    with pytest.raises(ForecastError, match="no member with weight could answer"):
        choose(silent, short, WEEK, reigning_of(alone, silent, short))


@pytest.mark.parametrize("own", [True, False], ids=["its recipe", "another"])
def test_a_pinned_champion_stays_and_is_published(
    short: MarketBundle, modest: Specification, own: bool
) -> None:
    speaker = engine(grid_origins=60) if own else engine(grid_origins=60, weight_rate=0.0)
    choice = choose(speaker, short, WEEK, Reigning(4, modest, NOWHERE, "it was too bold (me, today)"))
    new = choice.new
    assert choice.decision.outcome == "pinned"
    assert choice.decision.reason == "Version 4 is pinned: it was too bold (me, today)."
    assert choice.decision.comparison is None
    assert choice.other is new
    found = choice.published
    assert found.state is modest.state
    assert found.recipe == modest.recipe
    np.testing.assert_array_equal(
        found.forecast.quantiles, engine(grid_origins=60).apply(short, WEEK, modest.state).quantiles
    )
    assert (found.forecast.quantiles != new.forecast.quantiles).any()


@pytest.mark.parametrize("own", [True, False], ids=["its recipe", "another"])
@pytest.mark.parametrize("pinned", [None, "held"])
def test_of_the_past_the_champion_is_not_asked(
    short: MarketBundle, modest: Specification, own: bool, pinned: str | None
) -> None:
    """It has seen what came after. Its code is nowhere, so that asking it would fail."""
    speaker = engine(grid_origins=60) if own else engine(grid_origins=60, weight_rate=0.0)
    then = rows_before(short, 9)
    stranger = replace(modest, recipe="of other code") if not own else modest
    choice = choose(speaker, then, WEEK, Reigning(1, stranger, NOWHERE, pinned))
    new = choice.new
    assert choice.decision.outcome == "past"
    assert not choice.decision.succeeds
    assert choice.published is new
    assert choice.other is None
    np.testing.assert_array_equal(new.forecast.quantiles, speaker.forecast(then, WEEK).forecast.quantiles)


# ---- a new recipe ------------------------------------------------------------------------------------------


def test_a_new_recipe_that_is_no_worse_is_promoted(bundle: MarketBundle, poor: Specification) -> None:
    choice = choose(engine(), bundle, WEEK, Reigning(1, poor, NOWHERE))
    new = choice.new
    found = choice.decision.comparison
    assert choice.decision.outcome == "promoted"
    assert choice.published is new
    assert choice.other is not None
    assert choice.other.state is poor.state
    assert found is not None
    assert found.difference <= 0
    assert found.difference + CONFIDENCE * found.standard_error < TOLERANCE
    assert found.origins >= MIN_ORIGINS
    for figure in (f"{100 * found.difference:+.2f} %", f"{found.origins} origins"):
        assert figure in choice.decision.reason


def test_a_new_recipe_that_is_worse_stays_challenger_and_is_not_published(
    bundle: MarketBundle, good: Specification
) -> None:
    choice = choose(engine(**POOR), bundle, WEEK, Reigning(1, good, NOWHERE))
    new = choice.new
    found = choice.decision.comparison
    assert choice.decision.outcome == "kept"
    assert found is not None
    assert found.difference > 0
    assert choice.other is new
    assert choice.published.state is good.state
    np.testing.assert_array_equal(
        choice.published.forecast.quantiles, engine().apply(bundle, WEEK, good.state).quantiles
    )


def test_a_little_worse_is_worse_however_sure_it_is(bundle: MarketBundle, good: Specification) -> None:
    choice = choose(engine(weight_rate=60.0), bundle, WEEK, Reigning(1, good, NOWHERE))
    found = choice.decision.comparison
    assert found is not None
    assert 0 < found.difference < found.difference + CONFIDENCE * found.standard_error < TOLERANCE
    assert choice.decision.outcome == "kept"


@pytest.mark.parametrize(("name", "value"), [("TOLERANCE", -0.05), ("CONFIDENCE", 5.0)])
def test_better_is_not_enough_where_it_is_not_sure(
    bundle: MarketBundle, poor: Specification, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    import forex_core.champion as module

    monkeypatch.setattr(module, name, value)  # no two members here differ by so much noise
    choice = choose(engine(), bundle, WEEK, Reigning(1, poor, NOWHERE))
    assert choice.decision.comparison is not None
    assert choice.decision.comparison.difference < 0
    assert choice.decision.outcome == "kept"


def test_two_recipes_that_trade_places_are_judged_alike(
    bundle: MarketBundle, good: Specification, poor: Specification
) -> None:
    one = choose(engine(**POOR), bundle, WEEK, Reigning(1, good, NOWHERE)).decision.comparison
    other = choose(engine(), bundle, WEEK, Reigning(1, poor, NOWHERE)).decision.comparison
    assert one is not None
    assert other is not None
    assert one.difference == pytest.approx(-other.difference, rel=1e-12)
    assert one.standard_error == pytest.approx(other.standard_error, rel=1e-12)
    assert (one.origins, one.origins_effective) == (other.origins, other.origins_effective)


def test_an_unsound_challenger_is_kept_out_however_well_it_scored(
    bundle: MarketBundle, poor: Specification, monkeypatch: pytest.MonkeyPatch
) -> None:
    import forex_core.champion as module

    def strayed(forecast: Forecast) -> float:
        scale = reference_sigma(bundle)[-1] * np.sqrt(forecast.steps)
        return float(np.max(np.abs(np.log(forecast.median / bundle.spot[-1])) / scale))

    new = engine().forecast(bundle, WEEK).forecast
    old = paths_of(poor, NOWHERE, bundle, None).run(WEEK, poor.state).forecast
    assert strayed(old) < strayed(new)
    # Four σ√h are never reached by a model that scores well; a limit between the two tells them apart.
    monkeypatch.setattr(module, "MAX_SIGMAS", (strayed(old) + strayed(new)) / 2)
    choice = choose(engine(), bundle, WEEK, Reigning(1, poor, NOWHERE))
    assert choice.decision.outcome == "kept"
    assert choice.decision.reason.startswith("The challenger is not sound: the median")
    assert choice.decision.comparison is not None
    # Where the champion is not sound either there is nothing to publish.
    monkeypatch.setattr(module, "MAX_SIGMAS", strayed(old) / 2)
    for pinned in (None, "held"):
        with pytest.raises(ForecastError, match="the forecast is not sound: the median"):
            choose(engine(), bundle, WEEK, Reigning(1, poor, NOWHERE, pinned))


def test_too_few_origins_leave_it_undecided(short: MarketBundle) -> None:
    old = specification(engine(grid_origins=60), short)
    choice = choose(engine(grid_origins=60, **POOR), short, WEEK, Reigning(1, old, NOWHERE))
    new = choice.new
    assert choice.decision.outcome == "undecided"
    assert "a decision takes 104" in choice.decision.reason
    assert choice.decision.comparison is None
    assert choice.other is new
    assert choice.published.state is old.state


def test_a_recipe_that_needs_more_history_leaves_the_champions(
    short: MarketBundle, modest: Specification
) -> None:
    greedy, reigning = engine(min_history_rows=9000), Reigning(4, modest, NOWHERE)
    choice = choose(greedy, short, WEEK, reigning)
    assert (choice.decision.outcome, choice.new) == ("failed", None)
    assert f"{len(short)} rows of history up to {short.origin}; a 7d forecast needs" in choice.decision.reason
    expected = engine(grid_origins=60).apply(short, WEEK, modest.state)
    np.testing.assert_array_equal(choice.published.forecast.quantiles, expected.quantiles)
    stranger = replace(reigning, specification=replace(modest, recipe="of other code"))
    early = replace(modest.state, trained_until=short.dates[0].date())
    for found, bundle in (
        (None, short),  # nobody stands in
        (stranger, short),  # it cannot be computed
        (replace(reigning, specification=replace(modest, state=early)), short.until(short.instants[200])),
    ):
        with pytest.raises(DataQualityError, match="a 7d forecast needs"):
            choose(greedy, bundle, WEEK, found)


def test_a_contest_takes_its_origins_from_what_no_weights_have_seen(bundle: MarketBundle) -> None:
    def decision(trained_until: date | None) -> Decision:
        member = Member()
        member.trained_until = trained_until
        config = BASE.model_copy(update=POOR)
        rival = Engine(config, [*build_members(config, CHRONOS), member])
        return choose(rival, bundle, WEEK, Reigning(1, old, NOWHERE)).decision

    old = specification(engine(members=("random_walk",)), rows_before(bundle, 8))
    assert decision(None).comparison is not None
    found = decision(bundle.dates[-400].date())
    assert found.outcome == "undecided"
    assert re.fullmatch(r"\d\d origins are scored for both recipes; a decision takes 104\.", found.reason)


def test_there_is_one_decision_a_month(bundle: MarketBundle, good: Specification, tmp_path: Path) -> None:
    """Day by day over three months, as the flow does it: what was decided is noted where there was a comparison."""
    speaker = engine(tmp_path, **POOR)
    early = replace(good, state=replace(good.state, trained_until=bundle.dates[-70].date()))
    decided_on: date | None = None
    decisions: list[date] = []
    days = []
    for back in range(49, -1, -7):
        today = rows_before(bundle, back)
        days.append(today.origin)
        reigning = Reigning(1, early, NOWHERE, decided_on=decided_on)
        decision = choose(speaker, today, WEEK, reigning, tmp_path).decision
        if decision.comparison is not None:
            assert decision.outcome == "kept"
            decided_on = today.origin
            decisions.append(today.origin)
        else:
            assert decision.outcome == "undecided"
            assert f"The last decision was on {decided_on}" in decision.reason
    months: dict[tuple[int, int], date] = {}
    for day in days:
        months.setdefault((day.year, day.month), day)
    assert len(months) >= 3
    assert decisions == list(months.values()), "on the first run of each month, and on no other"


def test_what_came_later_changes_no_decision(table: pd.DataFrame, bundle: MarketBundle) -> None:
    day = bundle.dates[-20].date()
    later = (pd.to_datetime(table["Date"]) > pd.Timestamp(day)).to_numpy()
    loud = table.copy()
    loud.loc[later, table.columns[1:]] *= np.linspace(2, 5, later.sum())[:, None]
    reigning: Reigning | None = None
    found = []
    for source in (table, loud):
        then = bundle_of(source, as_of=day)
        assert then.origin == day
        reigning = reigning or Reigning(1, specification(engine(**POOR), rows_before(then, 3)), NOWHERE)
        found.append(choose(engine(), then, WEEK, reigning).decision)
    assert found[0].comparison is not None
    assert found[0] == found[1]
    sooner = table.copy()
    first = int(later.argmax())
    sooner.loc[first - 30 : first - 20, "USDCLP"] *= 1.01
    assert choose(engine(), bundle_of(sooner, as_of=day), WEEK, reigning).decision != found[0]


# ---- the figures of a decision -----------------------------------------------------------------------------


def slow_crps(quantiles: Array, truth: float) -> float:
    """Twice the pinball loss, weighted by the levels that each quantile stands for."""
    edges = [0.0, *LEVELS, 1.0]
    total = 0.0
    for q, level in enumerate(LEVELS):
        error = truth - quantiles[q]
        loss = level * error if error >= 0 else (level - 1) * error
        total += 2 * (edges[q + 2] - edges[q]) / 2 * loss
    return total


def slow_comparison(new: Array, old: Array, walk: Array, truth: Array, spot: Array, every: int) -> Comparison:
    d, w = [], []
    for o in range(len(spot)):
        seen = [h for h in range(truth.shape[1]) if not np.isnan(truth[o, h])]
        if not seen:
            continue
        losses = [
            sum(slow_crps(model[o, h], truth[o, h]) / spot[o] for h in seen) / len(seen)
            for model in (new, old, walk)
        ]
        d.append(losses[0] - losses[1])
        w.append(losses[2])
    n, steps = len(d), truth.shape[1]
    scale = sum(w) / n
    difference = sum(d) / n / scale
    around = [(d[t] - difference * w[t]) / scale for t in range(n)]
    dof = max(4, math.floor(min(0.4 * n ** (2 / 3), n * every / (2 * steps))))
    omega = 0.0
    for j in range(1, dof + 1):
        projection = sum(around[t] * math.cos(math.pi * j * (t + 0.5) / n) for t in range(n))
        omega += 2 / n * projection**2 / dof
    return Comparison(difference, math.sqrt(omega / n), n, n * every / max(every, steps))


def same_figures(found: Comparison, expected: Comparison) -> None:
    for name, value in vars(expected).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize("horizon", [WEEK, FORTNIGHT], ids=str)
def test_the_figures_are_those_of_a_slow_computation(bundle: MarketBundle, horizon: Horizon) -> None:
    """From the passes of both recipes: origins, outcomes, losses and long-run variance, all in loops."""
    speaker, rival = engine(), engine(**POOR)
    old = specification(rival, rows_before(bundle, 8), horizon)
    found = choose(speaker, bundle, horizon, Reigning(1, old, NOWHERE)).decision.comparison
    passes = [one.paths(bundle, one.rows_behind(bundle)) for one in (speaker, rival)]
    np.testing.assert_array_equal(passes[0].rows, passes[1].rows)
    on_grid = passes[0].outcomes.learning
    rows = passes[0].rows[on_grid][BASE.warmup_origins :]
    rows = [int(row) for row in rows if row + horizon.evaluation_steps <= len(bundle) - 1]
    truth = np.array([[bundle.truth[row + h + 1] for h in range(horizon.evaluation_steps)] for row in rows])
    at = [int(np.flatnonzero(passes[0].rows == row)[0]) for row in rows]
    steps = slice(horizon.evaluation_steps)
    expected = slow_comparison(
        passes[0].quantiles[ENSEMBLE][at][:, steps],
        passes[1].quantiles[ENSEMBLE][at][:, steps],
        RandomWalk().forecast(bundle, bundle.instants[rows], PATH_STEPS, LEVELS).quantiles[:, steps],
        truth,
        bundle.spot[rows],
        5,
    )
    assert found is not None
    assert found.origins == len(rows)
    same_figures(found, expected)


def test_two_grids_meet_where_both_have_an_origin(bundle: MarketBundle) -> None:
    """Every second and every third day meet every sixth: as far apart are the origins that are compared."""
    simple: dict[str, Any] = {"members": ("random_walk",), "warmup_origins": 5}
    old = specification(engine(grid_every=3, grid_origins=230, **simple), rows_before(bundle, 8))
    speaker = engine(grid_every=2, grid_origins=340, weight_rate=1.0, **simple)
    found = choose(speaker, bundle, WEEK, Reigning(1, old, NOWHERE)).decision.comparison
    assert found is not None
    assert found.origins_effective == found.origins


def judged(seed: int, n: int = 40, steps: int = 11, holes: bool = False) -> tuple[Judged, Judged, Judged]:
    """Two models and the walk on the same random origins."""
    rng = np.random.default_rng(seed)
    spot = 900 * np.exp(rng.normal(0, 0.1, n))
    truth = spot[:, None] * np.exp(np.cumsum(rng.normal(0, 0.01, (n, steps)), axis=1))
    if holes:
        truth[rng.random(truth.shape) < 0.2] = np.nan
        truth[3] = np.nan
    scale = 0.01 * np.sqrt(np.arange(1, steps + 1))[None, :, None]
    models = []
    for size in (0.4, 0.2, 0.0):
        shift = size * scale * rng.normal(0, 1, (n, 1, 1))
        quantiles = spot[:, None, None] * np.exp(scale * ndtri(LEVELS) + shift)
        models.append(Judged(quantiles, truth, spot, LEVELS))
    return models[0], models[1], models[2]


@pytest.mark.parametrize(("n", "steps", "every"), [(40, 5, 5), (60, 11, 5), (30, 21, 1), (26, 64, 5)])
@pytest.mark.parametrize("holes", [False, True])
def test_a_comparison_equals_a_slow_loop(n: int, steps: int, every: int, holes: bool) -> None:
    new, old, walk = judged(1, n, steps, holes)
    expected = slow_comparison(new.quantiles, old.quantiles, walk.quantiles, new.truth, new.spot, every)
    same_figures(compare_crps(new, old, walk, every), expected)
    assert expected.origins == n - holes


@pytest.mark.parametrize("seed", range(5))
def test_a_comparison_turned_round_changes_its_sign_alone(seed: int) -> None:
    new, old, walk = judged(seed, holes=bool(seed % 2))
    there, back = compare_crps(new, old, walk, 5), compare_crps(old, new, walk, 5)
    same_figures(back, replace(there, difference=-there.difference))
    assert compare_crps(new, new, walk, 5) == replace(there, difference=0.0, standard_error=0.0)


def test_a_comparison_does_not_hang_on_the_unit_of_the_price() -> None:
    models = judged(3)
    dear = [Judged(m.quantiles * 1e4, m.truth * 1e4, m.spot * 1e4, LEVELS) for m in models]
    same_figures(compare_crps(dear[0], dear[1], dear[2], 5), compare_crps(*models, 5))


def test_the_walk_against_nothing_is_one() -> None:
    """A model that knows the outcome is better by all of the walk's loss."""
    _, _, walk = judged(2)
    oracle = Judged(np.repeat(walk.truth[:, :, None], len(LEVELS), axis=2), walk.truth, walk.spot, LEVELS)
    found = compare_crps(oracle, walk, walk, 5)
    assert found.difference == pytest.approx(-1)
    assert found.standard_error == pytest.approx(0, abs=1e-12)


def test_a_comparison_without_outcomes_is_refused() -> None:
    new, old, walk = (replace(m, truth=np.full_like(m.truth, np.nan)) for m in judged(2))
    with pytest.raises(ValueError, match="0 origins with a known outcome"):
        compare_crps(new, old, walk, 5)
    still = Judged(np.repeat(walk.spot[:, None, None], 13, axis=2), walk.spot[:, None], walk.spot, LEVELS)
    still = replace(still, quantiles=np.repeat(still.truth[:, :, None], len(LEVELS), axis=2))
    with pytest.raises(ValueError, match="mean loss of the walk 0"):
        compare_crps(still, still, still, 5)


# ---- how often a decision errs -----------------------------------------------------------------------------


def promoted(found: Comparison) -> bool:
    return found.difference <= 0 and found.difference + CONFIDENCE * found.standard_error < TOLERANCE


def contests(
    rng: np.random.Generator, horizon: Horizon, worse: float, origins: int, months: int = 1
) -> tuple[list[bool], float]:
    """Whether a challenger is promoted in each of `months` looks, a month apart, and its true Δ.

    Both medians are off by a noise of their own, constant over a path, anew at each weekly origin; the challenger's is
    larger, so that its CRPS is greater by about `worse` in units of the walk's. `origins` at the last look.
    """
    steps = horizon.evaluation_steps
    rows = 5 * np.arange(origins)
    path = np.concatenate([[0.0], np.cumsum(rng.normal(0, 0.01, 5 * origins + steps))])
    spot = 900 * np.exp(path[rows])
    truth = 900 * np.exp(path[rows[:, None] + np.arange(1, steps + 1)])
    scale = 0.01 * np.sqrt(np.arange(1, steps + 1))[None, :, None]
    noise = 0.15
    # To second order the CRPS of a normal law grows by half the squared shift, in units of its own.
    larger = math.sqrt(noise**2 + 2 * worse)

    def model(size: float) -> Array:
        shift = size * scale * rng.normal(0, 1, (origins, 1, 1))
        return np.asarray(spot[:, None, None] * np.exp(scale * ndtri(LEVELS) + shift))

    losses = [crps(model(size), truth, LEVELS) / spot[:, None] for size in (larger, noise, 0.0)]
    looks = []
    for month in range(months):
        upto = origins - round(52 / 12 * (months - 1 - month))
        found = compare_losses(losses[0][:upto], losses[1][:upto], losses[2][:upto], 5)
        looks.append(promoted(found))
    return looks, found.difference


@pytest.mark.parametrize(("worse", "low", "high"), [(0.0, 0.20, 0.45), (0.03, 0.0, 0.05)])
def test_a_challenger_that_is_worse_is_seldom_promoted(worse: float, low: float, high: float) -> None:
    rng = np.random.default_rng(11)
    share = np.mean([contests(rng, WEEK, worse, 208)[0][0] for _ in range(150)])
    assert low <= share <= high


@pytest.mark.slow
@pytest.mark.parametrize(
    ("days", "once", "within_a_year"),
    [
        (7, (0.307, 0.110, 0.033, 0.013), (0.433, 0.207, 0.093, 0.037)),
        (30, (0.327, 0.157, 0.057, 0.010), (0.423, 0.223, 0.103, 0.043)),
    ],
)
def test_how_often_a_challenger_is_promoted(
    days: int, once: tuple[float, ...], within_a_year: tuple[float, ...]
) -> None:
    """Models that differ by noise alone, over four years of weekly origins.

    Of 300 challengers as good as the champion 31 to 33 % are promoted at one look, and 42 to 43 % by one of the twelve
    looks of a year, which costs nothing: they are as good. One that is worse by 1 % of the walk's CRPS is promoted at
    11 to 16 % of single looks and within 21 to 22 % of years, by 2 % at 3 to 6 % and within 9 to 10 %, by 3 % at 1 %
    and within 4 %. The standard deviation of Δ is 1.3 % of the walk's CRPS for the equal ones here; the less two models
    differ, the nearer the share of equal ones comes to a half.
    """
    for n, worse in enumerate((0.0, 0.01, 0.02, 0.03)):
        rng = np.random.default_rng(1)
        looks, true = zip(*(contests(rng, Horizon(days), worse, 208, 12) for _ in range(300)), strict=True)
        assert np.mean(true) == pytest.approx(worse, abs=0.002)
        assert np.mean([one[-1] for one in looks]) == pytest.approx(once[n], abs=0.01)
        assert np.mean([any(one) for one in looks]) == pytest.approx(within_a_year[n], abs=0.01)


def test_a_champion_reads_the_drivers_that_it_learned_with(table: pd.DataFrame) -> None:
    """A driver that the data have gained since is the new state's; the champion says what its model alone would say."""
    with_driver, without = bundle_of(table), bundle_of(table.drop(columns="VIX"))
    members = engine(members=("random_walk", "theta", "drivers"))
    old = specification(members, rows_before(without, 8))
    assert "vix" in {n.lower() for n in with_driver.driver_names} - {n.lower() for n in old.drivers}
    choice = choose(members, with_driver, WEEK, Reigning(1, old, NOWHERE, "held"))
    new = choice.new
    alone = old.forecast(frame_of(with_driver))
    np.testing.assert_array_equal(choice.published.forecast.quantiles, alone.quantiles)
    assert choice.published.fingerprint == with_driver.fingerprint
    assert set(Specification.of(new, with_driver, members.config, CHRONOS).drivers) > set(old.drivers)
    theirs = members.paths(with_driver, members.rows_behind(with_driver)).run(WEEK, old.state)
    assert not np.array_equal(theirs.forecast.quantiles, alone.quantiles)


def test_nothing_is_decided_on_a_day_when_the_champion_is_not_itself(bundle: MarketBundle) -> None:
    """Its history would be recomputed without the member that is silent today, and lose to less."""
    old = specification(engine(**POOR), rows_before(bundle, 8))
    crippled = replace(bundle, drivers=np.full_like(bundle.drivers, np.nan))
    choice = choose(engine(members=("random_walk", "theta")), crippled, WEEK, Reigning(1, old, NOWHERE))
    assert choice.decision.outcome == "undecided"
    assert choice.decision.reason.startswith("The champion is not itself today, drivers did not answer:")
    assert choice.decision.comparison is None


def test_nothing_is_decided_where_the_challenger_lacks_what_the_champion_has(bundle: MarketBundle) -> None:
    """It could be no worse by chance, and would then stay as it is."""
    old = specification(engine(), rows_before(bundle, 8))
    config = BASE.model_copy(update={"members": ("random_walk", "drivers")})
    rival = Engine(config, [*build_members(config, CHRONOS), Member(silent=True)])
    found = choose(rival, bundle, WEEK, Reigning(1, old, NOWHERE)).decision
    assert found.outcome == "undecided"
    assert found.reason.startswith(
        "The challenger is not itself today, momentum did not answer: out to lunch"
    )
    assert "FOREX_ENGINE__MEMBERS" in found.reason


# ---- another rate of the pair ------------------------------------------------------------------------------


def test_weights_that_may_have_seen_the_outcomes_decide_nothing(bundle: MarketBundle) -> None:
    member = Member()
    member.may_have_seen = True
    config = BASE.model_copy(update=POOR)
    rival = Engine(config, [*build_members(config, CHRONOS), member])
    old = specification(engine(members=("random_walk",)), rows_before(bundle, 8))
    found = choose(rival, bundle, WEEK, Reigning(1, old, NOWHERE)).decision
    assert found.outcome == "undecided"
    assert found.reason.startswith("momentum may have seen the outcomes that would decide")
    assert found.comparison is None


def test_a_champion_that_may_have_seen_the_outcomes_keeps_nobody_out_by_them(
    bundle: MarketBundle, good: Specification, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen(*told: Any) -> Any:
        return replace(paths_of(*told), may_have_seen=("chronos",))

    monkeypatch.setattr("forex_core.champion.paths_of", seen)
    found = choose(engine(**POOR), bundle, WEEK, Reigning(1, good, NOWHERE)).decision
    assert found.outcome == "undecided"
    assert found.reason.startswith("The champion may have seen the outcomes: Δ = +")


@pytest.mark.parametrize("own", [True, False], ids=["its recipe", "another"])
@pytest.mark.parametrize("pinned", [None, "held"])
def test_a_champion_of_another_rate_is_not_asked(
    short: MarketBundle, modest: Specification, own: bool, pinned: str | None
) -> None:
    """What it has learned is of another series. Its code is nowhere, so that asking it would fail."""
    speaker = engine(grid_origins=60) if own else engine(grid_origins=60, weight_rate=0.0)
    champion = modest if own else replace(modest, recipe="of other code")
    observed = replace(short, rate="observed")
    choice = choose(speaker, observed, WEEK, Reigning(1, champion, NOWHERE, pinned))
    assert choice.decision.outcome == "apart"
    assert not choice.decision.succeeds
    assert choice.published is choice.new
    assert choice.other is None
    for word in ("market close", "observed rate", "forex promote 7d --pair USDCLP"):
        assert word in choice.decision.reason


def test_a_recipe_that_makes_no_forecast_has_no_champion_of_another_rate_to_speak_for_it(
    short: MarketBundle, modest: Specification
) -> None:
    config = BASE.model_copy(
        update={"grid_origins": 60, "members": ("random_walk", "chronos"), "min_members": 2}
    )
    mute = Engine(config, build_members(config, ChronosConfig(model=None)))
    observed = replace(short, rate="observed")
    with pytest.raises(ForecastError, match="chronos"):
        choose(mute, observed, WEEK, Reigning(1, modest, NOWHERE))
