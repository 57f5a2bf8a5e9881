"""Which model is published: the champion, or the state that today's run has learned.

A new state of the champion's recipe succeeds it when it is sound; a new recipe is a challenger, which has to be at
least as good on origins that neither has seen. Nothing here is stored: `forex_core.tracking` keeps who is champion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from loguru import logger

from forex_core.engine import Engine
from forex_core.errors import DataQualityError, ForecastError
from forex_core.evaluation import Comparison, Judged, compare_crps
from forex_core.models.random_walk import RandomWalk, reference_sigma
from forex_core.paths import Paths, outcomes_of
from forex_core.specification import Specification, may_have_seen, paths_of, replay_of
from forex_core.types import (
    ENSEMBLE,
    LEVELS,
    PATH_STEPS,
    RATE_NAMES,
    Forecast,
    ForecastRun,
    Horizon,
    MarketBundle,
)

MAX_SIGMAS = 4.0
"""A median further from the close than this many σ√h is not believed."""

WIDTH_RANGE = (0.5, 2.0)
"""How wide the 80 % band of a new state may be, in units of the old one's."""

WALK_WIDTH_RANGE = (0.25, 4.0)
"""How wide a band may be in units of the random walk's, where there is no old one to compare with."""

MIN_ORIGINS = 104
"""Grid origins below which a challenger is not judged."""

TOLERANCE = 0.01
CONFIDENCE = 1.28
"""A challenger is promoted when Δ ≤ 0 and Δ + 1.28 SE(Δ) < 1 % of the random walk's CRPS."""

ROLLBACK_ORIGINS, MIN_ROLLBACK_ORIGINS = 52, 26
"""Origins that candidates of a rollback are compared on, and the fewest that tell."""

Outcome = Literal[
    "initial",
    "refreshed",
    "promoted",
    "kept",
    "undecided",
    "unsound",
    "pinned",
    "past",
    "apart",
    "failed",
    "withheld",
]


@dataclass(frozen=True)
class Reigning:
    """The champion as it was found: its specification, the code that it carries, and whether it is held in place.

    `decided_on` is the day of the last decision about a challenger, None before the first.
    """

    version: int
    specification: Specification
    code: Path
    pinned: str | None = None
    decided_on: date | None = None


@dataclass(frozen=True)
class Decision:
    """What becomes of the state that a run has learned, and why.

    `outcome`: 'initial' (there was no champion), 'refreshed' (the next state of the champion's recipe), 'promoted' (a
    new recipe that won) make it champion; 'kept' (a new recipe that did not win), 'undecided' (too early to tell),
    'unsound', 'pinned' (the champion is held in place), 'apart' (it is of another rate of the pair) leave it a
    challenger; 'past' (it is older than the champion's), 'failed' (there is no new state) and 'withheld' (it could not
    be made champion) leave everything as it is.
    `comparison` is of new to old where the two were compared.
    """

    outcome: Outcome
    reason: str
    comparison: Comparison | None = None

    @property
    def succeeds(self) -> bool:
        """Whether the new state becomes champion."""
        return self.outcome in ("initial", "refreshed", "promoted")

    @property
    def publishes_new(self) -> bool:
        """Whether the new state's forecast is the one that is published."""
        return self.succeeds or self.outcome in ("past", "apart")


@dataclass(frozen=True)
class Choice:
    """What a run publishes.

    `new` is the run of the state learned today, None where its recipe could make none; `champion` that of the champion
    as it was found, None where there was none or it was not asked.
    """

    decision: Decision
    new: ForecastRun | None
    champion: ForecastRun | None = None

    @property
    def published(self) -> ForecastRun:
        """The new state's run where it is champion, of a past day or of another rate, else the champion's."""
        own = self.decision.publishes_new or self.champion is None
        run = self.new if own else self.champion
        assert run is not None
        return run

    @property
    def other(self) -> ForecastRun | None:
        """The run that was compared with the published one, or held back for it."""
        if self.decision.outcome in ("initial", "refreshed", "past", "apart"):
            return None
        return self.champion if self.published is self.new else self.new

    def withheld(self) -> Choice:
        """The champion's, since the new state could not be made champion; its own where there is none."""
        if self.champion is None:
            return self
        spoke_for_it = self.decision.reason[0].lower() + self.decision.reason[1:]
        reason = (
            "The new state could not be made champion, so the one of before is published. Else it would have been: "
            f"{spoke_for_it}"
        )
        return replace(self, decision=replace(self.decision, outcome="withheld", reason=reason))


def choose(
    engine: Engine,
    bundle: MarketBundle,
    horizon: Horizon,
    reigning: Reigning | None,
    cache_folder: Path | None = None,
) -> Choice:
    """What is published of `bundle` at `horizon`.

    Raises:
        DataQualityError: too short a history, for the champion as well where it may stand in.
        ForecastError: too few members answered, the champion could not answer, or what would be published is unsound.
    """
    old = reigning.specification if reigning else None
    same = old is not None and old.recipe == engine.recipe
    try:
        engine.check(bundle, horizon)
        paths = engine.paths_behind(bundle)
        new = paths.run(horizon)
    except (DataQualityError, ForecastError) as error:
        apart = old is not None and not old.is_of(bundle)
        if reigning is None or old is None or same or apart or old.state.trained_until > bundle.origin:
            raise
        try:
            theirs = _champions(reigning, bundle, cache_folder)
        except ForecastError as second:
            raise error from second
        if too_few(theirs, horizon):
            raise
        champion = theirs.run(horizon, old.state)
        _refuse_unsound(champion.forecast, bundle)
        return Choice(Decision("failed", f"Today's recipe made no forecast: {error}."), None, champion)
    if reigning is None or old is None:
        _refuse_unsound(new.forecast, bundle)
        return Choice(Decision("initial", "There is no champion to compare it with."), new)
    if old.state.trained_until > bundle.origin:
        _refuse_unsound(new.forecast, bundle)
        reason = f"The champion has learned up to {old.state.trained_until}, after {bundle.origin}: it is not asked."
        return Choice(Decision("past", reason), new)
    if old.rate is not None and not old.is_of(bundle):
        _refuse_unsound(new.forecast, bundle)
        reason = (
            f"The champion is of the {RATE_NAMES[old.rate]} of {bundle.pair}, the data are of its "
            f"{RATE_NAMES[bundle.rate]}: it is not asked. 'forex promote {horizon} --pair {bundle.pair} --to VERSION' "
            "puts one of the latter in its place"
        )
        return Choice(Decision("apart", f"{reason}."), new)
    same_data = set(old.drivers) == set(bundle.driver_names)
    theirs = paths if same and same_data else _champions(reigning, bundle, cache_folder)
    champion = theirs.run(horizon, old.state)
    if reigning.pinned is not None:
        decision = Decision("pinned", f"Version {reigning.version} is pinned: {reigning.pinned}.")
    elif same:
        decision = _succession(new, champion, bundle)
    else:
        decision = _contest(paths, theirs, horizon, reigning, new)
    if not decision.succeeds:
        _refuse_unsound(champion.forecast, bundle)
    return Choice(decision, new, champion)


def _champions(reigning: Reigning, bundle: MarketBundle, cache_folder: Path | None) -> Paths:
    try:
        return paths_of(reigning.specification, reigning.code, bundle, cache_folder)
    except ForecastError as error:
        model = f"{bundle.pair.slug}-{reigning.specification.horizon}"
        raise ForecastError(f"the champion, version {reigning.version} of {model}, fails: {error}") from error


def too_few(paths: Paths, horizon: Horizon) -> str | None:
    """How many origins a pass can be scored on and how many its recipe takes, where that is less; else None."""
    scored = int(paths.scored(horizon, paths.scored_grid()).sum())
    needed = int(str(paths.rules.settings["min_scored_origins"]))
    if scored >= needed:
        return None
    return f"{scored} origins with a known {horizon} outcome in the data up to {paths.bundle.origin}, expected {needed}"


@dataclass(frozen=True)
class Candidate:
    """A state that could be champion again."""

    version: int
    specification: Specification
    code: Path


def best_previous(
    candidates: Sequence[Candidate],
    previous: int | None,
    bundle: MarketBundle,
    horizon: Horizon,
    cache_folder: Path | None = None,
) -> tuple[int, str]:
    """The version to go back to, and why: the best by CRPS, else the last known good.

    All are scored, in the state that they are in, on the same last `ROLLBACK_ORIGINS` grid origins whose outcomes are
    known and that are later than every candidate's cut-off. With fewer than `MIN_ROLLBACK_ORIGINS` of them, or a lead
    of less than one standard error over the last known good, that is taken. Who cannot be computed drops out, and so
    does, unless it is the last known good, a version whose weights may have seen the outcomes.

    Args:
        candidates: the newest first.
        previous: version of the last known good, where it is among them; else the newest stands in for it.

    Raises:
        ForecastError: none could be computed.
    """

    def last_known_good(among: Sequence[int]) -> tuple[int, str]:
        if previous is not None and previous in among:
            return previous, "the last known good"
        return among[0], "the newest"

    known_good, name = last_known_good([c.version for c in candidates])
    if len(candidates) == 1:
        return known_good, "it is the only candidate"
    cut_off = max(c.specification.state.trained_until for c in candidates)
    rows = np.arange(int(bundle.dates.searchsorted(pd.Timestamp(cut_off), side="right")), len(bundle))
    every = max(int(str(c.specification.engine_settings["grid_every"])) for c in candidates)
    learning = outcomes_of(bundle, rows, every)[0].learning
    rows = rows[learning & (rows + horizon.evaluation_steps < len(bundle))][-ROLLBACK_ORIGINS:]
    if len(rows) < MIN_ROLLBACK_ORIGINS:
        return known_good, (
            f"{name}: {len(rows)} outcomes are known since the candidates stopped learning on {cut_off}, a comparison "
            f"takes {MIN_ROLLBACK_ORIGINS}"
        )
    path = slice(horizon.evaluation_steps)
    spot = bundle.spot[rows]
    truth = spot[:, None] * np.exp(outcomes_of(bundle, rows, every)[0].values[:, path])
    walk = RandomWalk().forecast(bundle, bundle.instants[rows], PATH_STEPS, LEVELS).quantiles[:, path]
    judged: dict[int, Judged] = {}
    failures: list[str] = []
    for candidate in candidates:
        try:
            said = replay_of(candidate.specification, candidate.code, bundle, rows, cache_folder)[:, path]
        except ForecastError as error:
            failures.append(f"version {candidate.version}: {error}")
            logger.warning("not a candidate: {}", failures[-1])
        else:
            judged[candidate.version] = Judged(said, truth, spot, LEVELS)
    if not judged:
        raise ForecastError(f"no candidate could be computed: {'; '.join(failures)}; name a version (--to)")
    known_good, name = last_known_good(list(judged))
    reference = Judged(walk, truth, spot, LEVELS)
    seen = {c.version for c in candidates if may_have_seen(c.specification, c.code)}
    found = {
        version: compare_crps(model, judged[known_good], reference, every)
        for version, model in judged.items()
        if version == known_good or version not in seen
    }
    left_out = "".join(
        f"; version {version} is not compared, for its weights may have seen these outcomes"
        for version in judged
        if version not in found
    )
    best = min(found, key=lambda version: found[version].difference)
    lead = found[best]
    figures = (
        f"{-100 * lead.difference:.2f} % of the random walk's CRPS, standard error "
        f"{100 * lead.standard_error:.2f} %"
    )
    over = f"{len(rows)} origins since {bundle.dates[rows[0]].date()}{left_out}"
    if best == known_good:
        return best, f"{name}, and the best of {len(found)} over {over}"
    if -lead.difference <= lead.standard_error:
        return known_good, f"{name}: version {best} leads by {figures} only, over {over}"
    return best, f"it leads {name} by {figures}, over {over}"


def soundness(new: Forecast, bundle: MarketBundle, old: Forecast | None = None) -> list[str]:
    """What speaks against publishing `new` at all; empty when nothing does.

    Its median strays from the close by more than `MAX_SIGMAS` σ√h, or its 80 % band is out of proportion to that of
    `old`, where there is one to compare with.
    """
    close = float(bundle.spot[-1])
    limit = MAX_SIGMAS * float(reference_sigma(bundle)[-1]) * np.sqrt(np.array(new.steps))
    strayed = np.abs(np.log(new.median / close)) - limit
    faults = []
    if (strayed > 1e-12).any():
        at = int(strayed.argmax())
        faults.append(
            f"the median of {new.target_dates[at]} is {new.median[at]:.6g}, more than {MAX_SIGMAS:g} σ√h from the "
            f"close of {close:.6g}"
        )
    return faults if old is None else [*faults, *_out_of_proportion(new, old, WIDTH_RANGE, "the champion's")]


def _refuse_unsound(new: Forecast, bundle: MarketBundle) -> None:
    faults = soundness(new, bundle)
    if faults:
        raise ForecastError(
            f"the forecast is not sound: {'; '.join(faults)}; look at the last rows of the data"
        )


def believable(new: Forecast, bundle: MarketBundle) -> list[str]:
    """`soundness` of a forecast that has no predecessor to be compared with, its band against the random walk's."""
    walk = RandomWalk().forecast(bundle, bundle.instants[-1:], PATH_STEPS, LEVELS).quantiles[0]
    at = np.array(new.steps) - 1
    reference = Forecast(new.pair, new.origin, new.target_dates, new.steps, LEVELS, walk[at])
    return [
        *soundness(new, bundle),
        *_out_of_proportion(new, reference, WALK_WIDTH_RANGE, "the random walk's"),
    ]


def _out_of_proportion(
    new: Forecast, reference: Forecast, allowed: tuple[float, float], name: str
) -> list[str]:
    width, against = (np.log(high / low) for low, high in (new.interval(0.8), reference.interval(0.8)))
    wrong = (width < allowed[0] * against - 1e-12) | (width > allowed[1] * against + 1e-12)
    if not wrong.any():
        return []
    at = int(wrong.argmax())
    return [
        f"the 80 % band of {new.target_dates[at]} is {width[at] / max(against[at], 1e-12):.2f} times {name}; expected "
        f"{allowed[0]:g} to {allowed[1]:g}"
    ]


def _succession(new: ForecastRun, champion: ForecastRun, bundle: MarketBundle) -> Decision:
    """Whether the next state of the champion's recipe is sound."""
    faults = soundness(new.forecast, bundle, champion.forecast)
    faults += [
        f"{name} newly failed: {new.failures[name]}"
        for name in champion.state.weights
        if name in new.failures
    ]
    if faults:
        return Decision("unsound", f"The new state is not sound: {'; '.join(faults)}.")
    return Decision("refreshed", "It is the next state of the same recipe, and sound.")


def _contest(new: Paths, old: Paths, horizon: Horizon, reigning: Reigning, run: ForecastRun) -> Decision:
    """Whether a new recipe is promoted: on the grid origins that both have scored, each learned from its own past."""
    bundle = new.bundle
    today = bundle.origin
    if reigning.decided_on is not None and reigning.decided_on.replace(day=1) >= today.replace(day=1):
        following = (reigning.decided_on.replace(day=1) + timedelta(days=31)).replace(day=1)
        return Decision(
            "undecided",
            f"The last decision was on {reigning.decided_on}, as data go, and there is one a calendar month at most: "
            f"the next is possible on data that reach {following}.",
        )
    lost = [name for name in reigning.specification.state.weights if name in old.failures]
    if lost:
        return Decision(
            "undecided",
            f"The champion is not itself today, {', '.join(lost)} did not answer: {old.failures[lost[0]]}.",
        )
    silent = [name for name in reigning.specification.state.weights if name in new.failures]
    if silent:
        return Decision(
            "undecided",
            f"The challenger is not itself today, {', '.join(silent)} did not answer: {new.failures[silent[0]]}; to"
            " have it judged without, leave that out of FOREX_ENGINE__MEMBERS.",
        )
    if new.may_have_seen:
        return Decision(
            "undecided",
            f"{', '.join(new.may_have_seen)} may have seen the outcomes that would decide, for its weights do not say"
            " until when they learned.",
        )
    rows = [paths.rows[paths.scored(horizon, paths.scored_grid())] for paths in (new, old)]
    shared = np.intersect1d(rows[0], rows[1])
    if len(shared) < MIN_ORIGINS:
        return Decision(
            "undecided",
            f"{len(shared)} origins are scored for both recipes; a decision takes {MIN_ORIGINS}.",
        )
    faults = believable(run.forecast, bundle)
    mine, theirs = (np.isin(paths.rows, shared) for paths in (new, old))
    found = compare_crps(
        new.judged(new.quantiles[ENSEMBLE], horizon, mine),
        old.judged(old.quantiles[ENSEMBLE], horizon, theirs),
        new.judged(new.walk, horizon, mine),
        math.lcm(new.rules.every, old.rules.every),  # origins of both grids are that far apart
    )
    bound = found.difference + CONFIDENCE * found.standard_error
    figures = (
        f"Δ = {100 * found.difference:+.2f} % of the random walk's CRPS, standard error "
        f"{100 * found.standard_error:.2f} %, {found.origins} origins ({found.origins_effective:.0f} effective)"
    )
    if faults:
        return Decision("kept", f"The challenger is not sound: {'; '.join(faults)}. {figures}.", found)
    if old.may_have_seen and found.difference > 0:
        return Decision("undecided", f"The champion may have seen the outcomes: {figures}.", found)
    if found.difference <= 0 and bound < TOLERANCE:
        return Decision("promoted", f"The challenger is no worse: {figures}.", found)
    return Decision("kept", f"The challenger has not shown to be no worse: {figures}.", found)
