"""One pass over a bundle, and all that is read off it: scores, the verdict, a state, a forecast."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property

import numpy as np
import numpy.typing as npt

from forex_core import ensemble, evaluation
from forex_core.calendars import business_day_numbers, target_dates
from forex_core.calibration import Outcomes
from forex_core.errors import ForecastError
from forex_core.evaluation import Judged, score
from forex_core.types import (
    ENSEMBLE,
    HORIZONS,
    LEVELS,
    PATH_STEPS,
    RANDOM_WALK,
    Array,
    Evaluation,
    Forecast,
    ForecastRun,
    Horizon,
    MarketBundle,
    Mask,
    MemberForecast,
    Scores,
    State,
    Verdict,
)


@dataclass(frozen=True)
class Rules:
    """What made a pass: the recipe, its settings, and the versions of the libraries.

    Of the grid, every `every`-th business day, the first `warmup` origins are not scored.
    """

    recipe: str
    every: int
    warmup: int
    settings: Mapping[str, object]
    libraries: Mapping[str, str]


@dataclass(frozen=True)
class Paths:
    """What every member and the ensemble said at each origin, in price.

    `rows` [N] rows of the origins, the last one today where a forecast is made; `last` [H, Q] by member, as it answered
    the last of them; `quantiles` [N, H, Q] by model, the ensemble among them, members calibrated; `walk` [N, H, Q] the
    random walk as defined, not calibrated; `weights` [N, M] of `members`; `factors` [N, H, Q] of the bands;
    `may_have_seen` members that nobody knows the training data of.
    """

    bundle: MarketBundle
    rules: Rules
    rows: npt.NDArray[np.int64]
    last: Mapping[str, Array]
    quantiles: Mapping[str, Array]
    walk: Array
    weights: Array
    factors: Array
    members: tuple[str, ...]
    failures: Mapping[str, str]
    failed_origins: Mapping[str, int]
    timings: Mapping[str, float]
    may_have_seen: tuple[str, ...] = ()

    @cached_property
    def outcomes(self) -> Outcomes:
        return outcomes_of(self.bundle, self.rows, self.rules.every)[0]

    @cached_property
    def truth(self) -> Array:
        """[N, H] accepted closes, NaN where nothing was observed or is known yet."""
        return np.asarray(self.bundle.spot[self.rows][:, None] * np.exp(self.outcomes.values))

    def scored(self, horizon: Horizon, among: Mask, known_by: int | None = None) -> Mask:
        """[N] origins of `among` whose path of that horizon had ended at row `known_by` (default: the last)."""
        end = len(self.bundle) - 1 if known_by is None else known_by
        return np.asarray(among & (self.rows + horizon.evaluation_steps <= end))

    def scored_grid(self, end: int | None = None) -> Mask:
        """[N] grid origins after the warm-up, up to row `end` (default: all)."""
        learning = self.outcomes.learning & (end is None or self.rows <= end)
        warm = min(self.rules.warmup, int(learning.sum()) // 4)
        return np.asarray(learning & (np.cumsum(learning) > warm))

    def judged(self, model: Array, horizon: Horizon, keep: Mask) -> Judged:
        """Quantiles [N, H, Q] of a model over the path of that horizon, beside the truth, at origins `keep` [N]."""
        path = slice(horizon.evaluation_steps)
        spot = self.bundle.spot[self.rows][keep]
        return Judged(model[keep, path], self.truth[keep, path], spot, LEVELS)

    def evaluation(self, horizon: Horizon, among: Mask | None = None, every: int | None = None) -> Evaluation:
        """Scores of every model at origins of `among` (default: the grid after the warm-up), `every` rows apart."""
        every = every or self.rules.every
        keep = self.scored(horizon, self.scored_grid() if among is None else among)
        walk = self.judged(self.walk, horizon, keep)
        mean_weights = dict(zip(self.members, self.weights[keep].mean(axis=0), strict=True))
        scores: dict[str, Scores] = {
            name: score(
                walk if name == RANDOM_WALK else self.judged(self.quantiles[name], horizon, keep),
                walk,
                every,
                is_walk=name == RANDOM_WALK,
                weight_mean=float(mean_weights[name]) if name in mean_weights else None,
                failed_origins=self.failed_origins.get(name, 0),
            )
            for name in (ENSEMBLE, RANDOM_WALK, *(m for m in self.members if m != RANDOM_WALK))
        }
        origins = tuple(self.bundle.dates[row].date() for row in self.rows[keep])
        return Evaluation(
            self.bundle.pair, horizon, origins, every, scores, self.failures, may_have_seen=self.may_have_seen
        )

    @cached_property
    def skill(self) -> Skill:
        """Tests of the ensemble on what was known on the last row before the month of the last origin.

        A verdict thus changes monthly at most.
        """
        decided = max(last_row_before_month(self.bundle, len(self.bundle)), 0)
        return self.tested(self.scored_grid(decided), self.rules.every, decided)

    def tested(self, among: Mask, every: int, decided: int) -> Skill:
        """Tests of the ensemble at every horizon, on origins of `among` and outcomes known at row `decided`."""
        then = np.where(self.outcomes.known <= decided, self.truth, np.nan)
        pvalues: dict[Horizon, tuple[float, float]] = {}
        counts: dict[Horizon, int] = {}
        for h in HORIZONS:
            keep = self.scored(h, among, decided)
            counts[h] = int(keep.sum())
            if counts[h] < 10:
                pvalues[h] = (1.0, 1.0)
                continue
            truth = then[keep, : h.evaluation_steps]
            ours, walk = (
                replace(self.judged(q, h, keep), truth=truth) for q in (self.quantiles[ENSEMBLE], self.walk)
            )
            scores = score(ours, walk, every)
            pvalues[h] = (
                1.0 if scores.dm_pvalue is None else scores.dm_pvalue,
                1.0 if scores.p_next_close is None else scores.p_next_close,
            )
        return Skill(self.bundle.dates[decided].date(), pvalues, counts)

    @cached_property
    def state(self) -> State:
        """Weights and band factors as of the last origin."""
        weights = {name: float(self.weights[-1, m]) for m, name in enumerate(self.members)}
        return State(self.bundle.dates[self.rows[-1]].date(), weights, self.factors[-1])

    def run(self, horizon: Horizon, state: State | None = None) -> ForecastRun:
        """The forecast of the last origin, as a slice of its longest path.

        Args:
            state: weights and band factors to make it with, by default those learned in this pass.

        Raises:
            ForecastError: some member could not answer the last origin, or none of the members that the state gives
                weight to.
        """
        bundle = self.bundle
        if self.rows[-1] != len(bundle) - 1:
            raise ForecastError(f"no common answer of the members at the last row ({bundle.origin})")
        state = state or self.state
        raw = {name: answer for name, answer in self.last.items() if name in state.weights}
        forecast, weights = combined(bundle, horizon, state, raw)
        at = np.array(forecast.steps) - 1
        return ForecastRun(
            horizon=horizon,
            forecast=forecast,
            members=tuple(
                MemberForecast(name, weights[name], answer[at], self.quantiles[name][-1][at])
                for name, answer in raw.items()
            ),
            state=state,
            band_factors=state.factors[at],
            evaluation=self.evaluation(horizon),
            verdict=self.skill.verdict(horizon),
            failures=self.failures,
            fingerprint=bundle.fingerprint,
            recipe=self.rules.recipe,
            as_of=bundle.as_of,
            settings=self.rules.settings,
            timings=self.timings,
            libraries=self.rules.libraries,
        )

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """All but the bundle as named plain arrays: what codes of different days exchange.

        `meta` is a JSON text with the rest; `quantiles.NAME` and `last.NAME` hold one model each.
        """
        meta = {
            "rules": vars(self.rules) | {"libraries": dict(self.rules.libraries)},
            "members": self.members,
            "failures": dict(self.failures),
            "failed_origins": dict(self.failed_origins),
            "timings": dict(self.timings),
            "may_have_seen": self.may_have_seen,
        }
        return {
            "meta": np.array(json.dumps(meta)),
            "rows": self.rows,
            "walk": self.walk,
            "weights": self.weights,
            "factors": self.factors,
            **{f"quantiles.{name}": q for name, q in self.quantiles.items()},
            **{f"last.{name}": q for name, q in self.last.items()},
        }

    @classmethod
    def from_arrays(cls, bundle: MarketBundle, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Paths:
        """The pass over `bundle` that `arrays` are of.

        Raises:
            ForecastError: when something is missing or of another shape.
        """

        def group(prefix: str) -> dict[str, Array]:
            return {
                name.removeprefix(prefix): np.asarray(values, dtype=np.float64)
                for name, values in arrays.items()
                if name.startswith(prefix)
            }

        try:
            meta = json.loads(str(arrays["meta"]))
            found = cls(
                bundle=bundle,
                rules=Rules(**meta["rules"]),
                rows=np.asarray(arrays["rows"], dtype=np.int64),
                last=group("last."),
                quantiles=group("quantiles."),
                walk=np.asarray(arrays["walk"], dtype=np.float64),
                weights=np.asarray(arrays["weights"], dtype=np.float64),
                factors=np.asarray(arrays["factors"], dtype=np.float64),
                members=tuple(meta["members"]),
                failures=meta["failures"],
                failed_origins=meta["failed_origins"],
                timings=meta["timings"],
                may_have_seen=tuple(meta.get("may_have_seen", ())),  # codes of before had no such members
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ForecastError(
                f"the answers of another code cannot be read: {type(error).__name__}: {error}"
            ) from error
        path = (PATH_STEPS, len(LEVELS))
        expected = {
            **{name: (len(found.rows), *path) for name in arrays if name.startswith("quantiles.")},
            **{name: path for name in arrays if name.startswith("last.")},
            "walk": (len(found.rows), *path),
            "factors": (len(found.rows), *path),
            "weights": (len(found.rows), len(found.members)),
        }
        wrong = [name for name, shape in expected.items() if arrays[name].shape != shape]
        names = set(found.members)
        if wrong or set(found.quantiles) != {*names, ENSEMBLE} or set(found.last) != names:
            raise ForecastError(
                f"the answers of another code are of models {sorted(found.quantiles)}, expected {sorted(names)} and "
                f"{ENSEMBLE}; of another shape than expected: {', '.join(wrong) or 'none'}"
            )
        return found


@dataclass(frozen=True)
class Skill:
    """By horizon, p against the walk from the origin's close and from the next, and how many origins they rest on."""

    decided_on: date
    pvalues: Mapping[Horizon, tuple[float, float]]
    origins: Mapping[Horizon, int]

    def verdict(self, horizon: Horizon) -> Verdict:
        return evaluation.judge_skill(self.pvalues, horizon, self.decided_on, self.origins[horizon])


def combined(
    bundle: MarketBundle, horizon: Horizon, state: State, raw: Mapping[str, Array]
) -> tuple[Forecast, dict[str, float]]:
    """The forecast of the last row from answers [H, Q] of the longest path, and the weight of each member in it.

    Members of the state that are not among `raw` leave their weight to the others.

    Raises:
        ForecastError: when nothing with weight is left.
    """
    held = np.array([state.weights[name] for name in raw])
    if not held.sum() > 0:
        raise ForecastError(
            f"no member with weight could answer at {bundle.origin}; the state has {dict(state.weights)}, "
            f"answered: {', '.join(raw) or 'none'}"
        )
    weights = held if len(raw) == len(state.weights) else held / held.sum()
    steps, days = zip(*target_dates(bundle.pair, bundle.origin, horizon), strict=True)
    at = np.array(steps) - 1
    answers = np.stack([answer[at] for answer in raw.values()])
    quantiles = ensemble.published(answers, weights, state.factors[at], LEVELS.index(0.5))
    forecast = Forecast(bundle.pair, bundle.origin, days, steps, LEVELS, quantiles)
    return forecast, dict(zip(raw, weights.tolist(), strict=True))


def outcomes_of(
    bundle: MarketBundle, rows: npt.NDArray[np.int64], every: int
) -> tuple[Outcomes, npt.NDArray[np.int64]]:
    """What came of the origins at `rows` [N], and the number [N] of each on the grid of every `every` business days."""
    targets = rows[:, None] + np.arange(1, PATH_STEPS + 1)
    inside = targets < len(bundle)
    at = np.where(inside, targets, 0)
    truth = np.where(inside, bundle.truth[at], np.nan)
    known = np.where(inside, bundle.truth_known[at], len(bundle))
    numbers = business_day_numbers(bundle.pair, bundle.dates)[rows]
    values = np.log(truth / bundle.spot[rows][:, None])
    learning = np.asarray((numbers >= 0) & (numbers % every == 0))
    return Outcomes(values, known, rows, learning), numbers // every


def last_row_before_month(bundle: MarketBundle, end: int) -> int:
    """Last row before the month of row `end - 1`; -1 when there is none."""
    return int(bundle.dates.searchsorted(bundle.dates[end - 1].replace(day=1))) - 1
