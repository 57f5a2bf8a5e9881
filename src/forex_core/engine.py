"""The deep module: a bundle in, a forecast run or an evaluation out.

Members answer a fixed calendar grid of origins and today; weights and band factors are learned from outcomes
as they become known; what is scored and what is published come from the same pass.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from forex_core import calibration, ensemble
from forex_core.cache import AnswerCache
from forex_core.calendars import business_day_numbers
from forex_core.code import code_files
from forex_core.config import ChronosConfig, EngineConfig, Settings
from forex_core.errors import ConfigError, DataQualityError, ForecastError, MemberError
from forex_core.models.arima_garch import ArimaGarch
from forex_core.models.base import Answers, Forecaster
from forex_core.models.driver_regression import DriverMomentum, DriverRegression
from forex_core.models.gradient_boosting import GradientBoosting
from forex_core.models.random_walk import RandomWalk, reference_sigma
from forex_core.models.smoothing import DampedTrend, Theta
from forex_core.models.vector_autoregression import VectorAutoregression
from forex_core.paths import Paths, Rules, combined, last_row_before_month, outcomes_of
from forex_core.types import (
    ENSEMBLE,
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
    State,
)

LIBRARIES = (
    "numpy",
    "pandas",
    "scipy",
    "statsmodels",
    "arch",
    "scikit-learn",
    "torch",
    "chronos-forecasting",
    "transformers",
    "onnxruntime",
    "holidays",
)
MAX_FAILED_SHARE = 0.01
"""A member that leaves more than this share of the origins unanswered is left out."""

Progress = Callable[[str, int, int], None]
"""Called with what was just finished, how many of how many."""

_MEMBER_FAULTS = (MemberError, ArithmeticError, ValueError, RuntimeError)
"""What a member or the numerical library behind it raises when it cannot answer."""


def build_members(config: EngineConfig, chronos: ChronosConfig) -> list[Forecaster]:
    """The members that the configuration names, in its order.

    Raises:
        ConfigError: for a name that is no member, or without the random walk.
    """
    makers: dict[str, Callable[[], Forecaster]] = {
        RANDOM_WALK: RandomWalk,
        "arima_garch": ArimaGarch,
        "ets": DampedTrend,
        "theta": Theta,
        "var": VectorAutoregression,
        "drivers": DriverRegression,
        "momentum": DriverMomentum,
        "gradient_boosting": GradientBoosting,
        "chronos": lambda: _chronos(chronos),
    }
    unknown = [name for name in config.members if name not in makers]
    if unknown:
        raise ConfigError(f"unknown member '{unknown[0]}'; expected some of {', '.join(makers)}")
    if RANDOM_WALK not in config.members:
        raise ConfigError("engine.members lacks random_walk, which is always a member: add it")
    return [makers[name]() for name in config.members]


def build_engine(settings: Settings, progress: Progress | None = None) -> Engine:
    """The engine of a deployment, which keeps its members' answers below the data folder unless told not to.

    Raises:
        ConfigError: as `build_members`.
    """
    kept = AnswerCache(settings.members_cache, library_versions()) if settings.members_cache else None
    return Engine(settings.engine, build_members(settings.engine, settings.chronos), progress, kept)


@cache
def library_versions() -> Mapping[str, str]:
    """Versions of the libraries that a forecast rests on."""
    return {name: version(name) for name in LIBRARIES}


def import_libraries(members: Iterable[Forecaster]) -> None:
    """Import what members import on first use: a limit of threads reaches what is loaded when it is set."""
    for module in (module for member in members for module in member.libraries):
        importlib.import_module(module)


def _chronos(config: ChronosConfig) -> Forecaster:
    from forex_core.models.chronos import ChronosForecaster

    return ChronosForecaster(
        config.model,
        config.revision,
        config.context,
        config.device,
        config.trained_until,
        config.runtime,
        config.drivers,
    )


class Engine:
    """Members, weights, bands and scores over one configuration.

    Args:
        progress: called after each stage, for a progress bar.
        cache: where answers of members are kept from one run to the next; changes how long a run takes and
            no bit of it.
    """

    def __init__(
        self,
        config: EngineConfig,
        members: Sequence[Forecaster],
        progress: Progress | None = None,
        cache: AnswerCache | None = None,
    ) -> None:
        names = [m.name for m in members]
        if RANDOM_WALK not in names or len(set(names)) != len(names):
            raise ConfigError(f"members must have distinct names and hold {RANDOM_WALK}, found {names}")
        self.config = config
        self.members = list(members)
        self._progress = progress or (lambda stage, done, total: None)
        self._cache = cache

    @cached_property
    def recipe(self) -> str:
        """sha256 of what makes this model this model: members, settings, rules and code."""
        told = [self.config.model_dump_json(), *(member.identity for member in self.members), RULES]
        return hashlib.sha256("|".join(told).encode()).hexdigest()

    def check(self, bundle: MarketBundle, horizon: Horizon) -> None:
        """Refuse a bundle that is too short to be scored.

        Raises:
            DataQualityError: with how many rows there are and how many are needed.
        """
        config = self.config
        grid = self._grid(bundle, len(bundle))
        if self._scorable(bundle, grid, horizon.evaluation_steps) < config.min_scored_origins:
            # A quarter of the grid warms up, and holidays take a few days in a hundred out of it.
            scored_rows = config.min_scored_origins * config.grid_every + horizon.evaluation_steps
            needed = config.min_history_rows + int(1.45 * scored_rows)
            raise DataQualityError(
                f"{bundle.pair} has {len(bundle)} rows of history up to {bundle.origin}; a {horizon} forecast "
                f"needs {needed} to be scored out of sample: give a longer file or a later --as-of"
            )

    def forecast(self, bundle: MarketBundle, horizon: Horizon) -> ForecastRun:
        """Today's forecast for one horizon, with its scores on the rolling origins behind it.

        Raises:
            DataQualityError: too short a history.
            ForecastError: too few members answered.
        """
        self.check(bundle, horizon)
        return self.paths_behind(bundle).run(horizon)

    def prepare(self, bundle: MarketBundle) -> None:
        """Import now what a forecast of `bundle` needs, for a caller that has the time; nothing if all is kept."""
        rows, kept = self.rows_behind(bundle), self._cache
        import_libraries(
            member
            for member in self.members
            if member.libraries and (kept is None or not kept.holds(member, bundle, rows, PATH_STEPS, LEVELS))
        )

    def evaluate(
        self,
        bundle: MarketBundle,
        horizon: Horizon,
        start: date | None = None,
        end: date | None = None,
        every: int | None = None,
    ) -> Evaluation:
        """The rolling-origin leaderboard of every member and the ensemble.

        Weights and bands learn on the fixed grid, whatever the origins that are scored: weights from the last
        `grid_origins` at each, as in a published forecast; band factors from as many before the first one on.

        Args:
            start: first origin; the others follow every `every` weekdays. By default the origins behind a
                forecast of today: every `every`-th business day of the fixed grid, after the warm-up.
            end: last origin.
            every: distance of two scored origins, by default that of the grid.

        Raises:
            DataQualityError: when fewer than `min_scored_origins` are left.
        """
        self.check(bundle, horizon)
        config = self.config
        every = every or config.grid_every
        first, last = _rows_between(bundle, start, end)
        if start is None:
            grid = self._recent_grid(bundle, last)
            wanted = _calendar_rows(bundle, every)
            first = int(grid[min(config.warmup_origins, len(grid) // 4)]) if len(grid) else last
            wanted = wanted[(wanted >= first) & (wanted < last)]
        else:
            wanted = np.arange(first, last, every)
            wanted = wanted[wanted >= config.min_history_rows]
            grid = self._grid_around(bundle, first, last)
        self._refuse_few(bundle, horizon, wanted, start, end)
        return self._rolling(bundle, (horizon,), grid, wanted, every)[0]

    def evaluations(
        self,
        bundle: MarketBundle,
        horizons: Sequence[Horizon],
        start: date,
        end: date | None = None,
        every: int | None = None,
    ) -> tuple[Evaluation, ...]:
        """A leaderboard for each horizon, all from one pass.

        Differs from `evaluate` in the origins: every `every`-th business day of the fixed grid from `start` on,
        so that those of another `start` or `end` are the same where both windows hold them.

        Args:
            start: the first origin falls on this day or after it.
            end: no origin falls after this day.
            every: business days between two origins, by default those of the grid.

        Raises:
            DataQualityError: when fewer than `min_scored_origins` are left at one of the horizons.
        """
        for horizon in horizons:
            self.check(bundle, horizon)
        every = every or self.config.grid_every
        first, last = _rows_between(bundle, start, end)
        wanted = _calendar_rows(bundle, every)
        wanted = wanted[(wanted >= max(first, self.config.min_history_rows)) & (wanted < last)]
        for horizon in horizons:
            self._refuse_few(bundle, horizon, wanted, start, end)
        return self._rolling(bundle, horizons, self._grid_around(bundle, first, last), wanted, every)

    def paths(self, bundle: MarketBundle, rows: npt.NDArray[np.int64]) -> Paths:
        """Every member's answers at `rows`, their combination, and the bands of all of them calibrated, point in time.

        Runs on one thread: sums in another order are other numbers, and the arrays are too small to gain by two.

        Raises:
            ForecastError: without the random walk, or with fewer than `min_members`.
        """
        with threadpool_limits(1):
            return self._paths(bundle, rows)

    def _paths(self, bundle: MarketBundle, rows: npt.NDArray[np.int64]) -> Paths:
        config = self.config
        timings: dict[str, float] = {}
        total = len(self.members) + 2
        raw: dict[str, Array] = {}
        failures: dict[str, str] = {}
        for done, member in enumerate(self.members, start=1):
            started = time.perf_counter()
            try:
                raw[member.name] = self._answers(member, bundle, rows)
            except _MEMBER_FAULTS as error:
                failures[member.name] = (
                    str(error) if isinstance(error, MemberError) else f"{type(error).__name__}: {error}"
                )
            timings[member.name] = time.perf_counter() - started
            self._progress(member.name, done, total)
        if RANDOM_WALK not in raw:
            raise ForecastError(f"the random walk could not answer: {failures[RANDOM_WALK]}")
        if len(raw) < config.min_members:
            reasons = "".join(f"; {name}: {reason}" for name, reason in failures.items())
            raise ForecastError(
                f"{len(raw)} members answered, at least {config.min_members} are needed{reasons}"
            )

        failed = {name: int(_unanswered(q).sum()) for name, q in raw.items()}
        answered = ~np.any([_unanswered(q) for q in raw.values()], axis=0)
        if not answered.all():
            rows = rows[answered]
            raw = {name: q[answered] for name, q in raw.items()}
        names = tuple(raw)

        started = time.perf_counter()
        outcomes, ordinals = outcomes_of(bundle, rows, config.grid_every)
        spot = bundle.spot[rows]
        middle = LEVELS.index(0.5)
        last, walk = {name: answers[-1].copy() for name, answers in raw.items()}, raw[RANDOM_WALK]
        # Member by member and in place, here and below: together these arrays are the most memory that a run takes.
        medians = np.empty((len(names), len(rows), PATH_STEPS))
        deviations = np.empty((*medians.shape, len(LEVELS)))
        for m, name in enumerate(names):
            logs = np.log(raw.pop(name) / spot[:, None, None], out=deviations[m])
            medians[m] = logs[:, :, middle]
            logs -= medians[m, :, :, None]
        factors = calibration.factors_by_block(medians, deviations, outcomes, LEVELS)
        self._progress("calibration of members", total - 1, total)
        sigma = reference_sigma(bundle)[rows]
        combination = ensemble.combine(
            medians, deviations, outcomes, sigma, ordinals, config.weight_rate, config.grid_origins
        )
        ensemble_factors = calibration.online_factors(
            combination.medians, combination.deviations, outcomes, LEVELS
        )

        def price(median: Array, deviation: Array, factor: Array) -> Array:
            logs = calibration.widen(deviation, factor)
            logs += median[:, :, None]
            np.exp(logs, out=deviation)
            deviation *= spot[:, None, None]
            return deviation

        quantiles = {
            name: price(medians[m], deviations[m], calibration.by_step(factors[m], PATH_STEPS))
            for m, name in enumerate(names)
        }
        quantiles[ENSEMBLE] = price(combination.medians, combination.deviations, ensemble_factors)
        timings["combination"] = time.perf_counter() - started
        self._progress("combination", total, total)
        return Paths(
            bundle=bundle,
            rules=Rules(
                self.recipe,
                config.grid_every,
                config.warmup_origins,
                json.loads(config.model_dump_json()),
                library_versions(),
            ),
            rows=rows,
            last=last,
            quantiles=quantiles,
            walk=walk,
            weights=combination.weights,
            factors=ensemble_factors,
            members=names,
            failures=failures,
            failed_origins=failed,
            timings=timings,
            may_have_seen=tuple(m.name for m in self.members if m.may_have_seen and m.name in names),
        )

    def apply(self, bundle: MarketBundle, horizon: Horizon, state: State) -> Forecast:
        """The forecast of the last row under a state that was learned before: nothing is learned here.

        Raises:
            ForecastError: a member that the state knows could not answer.
        """
        raw = self._answers_under(state, bundle, np.array([len(bundle) - 1]))
        return combined(bundle, horizon, state, {name: answers[0] for name, answers in raw.items()})[0]

    def replay(self, bundle: MarketBundle, rows: npt.NDArray[np.int64], state: State) -> Array:
        """[N, H, Q] what a state would have published at `rows` [N], over the longest path, in price.

        Raises:
            ForecastError: as `apply`.
        """
        raw = self._answers_under(state, bundle, rows)
        weights = np.array([state.weights[name] for name in raw])
        middle = LEVELS.index(0.5)
        each = (np.stack([answers[n] for answers in raw.values()]) for n in range(len(rows)))
        return np.stack([ensemble.published(answers, weights, state.factors, middle) for answers in each])

    def _answers_under(
        self, state: State, bundle: MarketBundle, rows: npt.NDArray[np.int64]
    ) -> dict[str, Array]:
        """Answers [N, H, Q] of the members that a state weighs."""
        raw: dict[str, Array] = {}
        for member in self.members:
            if member.name in state.weights:
                try:
                    with threadpool_limits(1):
                        raw[member.name] = self._answers(member, bundle, rows)
                except _MEMBER_FAULTS as error:
                    raise ForecastError(
                        f"{member.name} could not answer at {bundle.origin}: {error}"
                    ) from error
        missing = set(state.weights) - set(raw)
        if missing:
            raise ForecastError(
                f"the state weighs members that this engine lacks: {', '.join(sorted(missing))}"
            )
        return raw

    def _answers(self, member: Forecaster, bundle: MarketBundle, rows: npt.NDArray[np.int64]) -> Array:
        def ask(asked: npt.NDArray[np.int64]) -> Answers:
            import_libraries([member])
            with threadpool_limits(1):
                return member.forecast(bundle, bundle.instants[asked], PATH_STEPS, LEVELS)

        kept = self._cache
        answers = kept.answers(member, bundle, rows, PATH_STEPS, LEVELS, ask) if kept else ask(rows)
        missing = _unanswered(answers.quantiles)
        if member.trained_until is not None:
            missing |= np.asarray(bundle.dates[rows] <= pd.Timestamp(member.trained_until))
        if missing.mean() > MAX_FAILED_SHARE or missing[-1]:
            position = int(np.flatnonzero(missing)[-1])
            seen = f"its weights have seen data up to {member.trained_until}"
            reason = answers.reasons.get(position, seen if member.trained_until else "no reason given")
            raise MemberError(
                f"no answer at {int(missing.sum())} of {len(rows)} origins, the last of them "
                f"{bundle.dates[rows[position]].date()}: {reason}"
            )
        return answers.quantiles

    def paths_behind(self, bundle: MarketBundle) -> Paths:
        """The pass that a forecast of today comes from.

        Raises:
            ForecastError: as `paths`.
        """
        return self.paths(bundle, self.rows_behind(bundle))

    def rows_behind(self, bundle: MarketBundle) -> npt.NDArray[np.int64]:
        """Rows that a forecast of today asks its members for: the grid behind it and today."""
        grid = self._recent_grid(bundle, len(bundle))
        return np.union1d(self._unseen(bundle, grid, grid), [len(bundle) - 1])

    def _scorable(self, bundle: MarketBundle, grid: npt.NDArray[np.int64], steps: int) -> int:
        """How many origins of a grid come after its warm-up and have a path of `steps` that has ended."""
        after_warmup = grid[min(self.config.warmup_origins, len(grid) // 4) :]
        return int((after_warmup + steps < len(bundle)).sum())

    def _unseen(
        self, bundle: MarketBundle, rows: npt.NDArray[np.int64], scored: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Those of `rows` that no member's weights have seen: nobody is compared on the others, or learns from them.

        Where a member's would leave too few of `scored` for the longest path, its are not heeded: it has no answer at
        what it has seen, and is left out.
        """
        for cut_off in sorted(m.trained_until for m in self.members if m.trained_until):
            rest = scored[bundle.dates[scored] > pd.Timestamp(cut_off)]
            if self._scorable(bundle, rest, PATH_STEPS) >= self.config.min_scored_origins:
                rows = rows[bundle.dates[rows] > pd.Timestamp(cut_off)]
        return rows

    def _grid(self, bundle: MarketBundle, end: int) -> npt.NDArray[np.int64]:
        """Grid rows before row `end`."""
        rows = _calendar_rows(bundle, self.config.grid_every)
        return rows[(rows >= self.config.min_history_rows) & (rows < end)]

    def _recent_grid(self, bundle: MarketBundle, end: int) -> npt.NDArray[np.int64]:
        """Grid rows before row `end`, from `grid_origins` before its month on.

        Where learning starts thus moves with the month, and a verdict decided at its beginning stands.
        """
        grid = self._grid(bundle, end)
        before = int((grid <= last_row_before_month(bundle, end)).sum())
        return grid[max(0, before - self.config.grid_origins) :]

    def _grid_around(self, bundle: MarketBundle, first: int, last: int) -> npt.NDArray[np.int64]:
        """Grid rows before row `last`, from `grid_origins` before row `first` on."""
        grid = self._grid(bundle, last)
        return grid[max(0, int((grid < first).sum()) - self.config.grid_origins) :]

    def _refuse_few(
        self,
        bundle: MarketBundle,
        horizon: Horizon,
        wanted: npt.NDArray[np.int64],
        start: date | None,
        end: date | None,
    ) -> None:
        usable = int((wanted + horizon.evaluation_steps < len(bundle)).sum())
        if usable < self.config.min_scored_origins:
            raise DataQualityError(
                f"only {usable} origins with a known {horizon} outcome between {start or bundle.dates[0].date()} "
                f"and {end or bundle.origin}; expected at least {self.config.min_scored_origins}: "
                "widen --from and --to"
            )

    def _rolling(
        self,
        bundle: MarketBundle,
        horizons: Sequence[Horizon],
        grid: npt.NDArray[np.int64],
        wanted: npt.NDArray[np.int64],
        every: int,
    ) -> tuple[Evaluation, ...]:
        """Scores and verdict at the rows `wanted`, after learning on the rows `grid`."""
        paths = self.paths(bundle, self._unseen(bundle, np.union1d(grid, wanted), wanted))
        among = np.isin(paths.rows, wanted)
        evaluations = []
        for horizon in horizons:
            # What became known after the last path of this horizon would move the verdict by the longer ones.
            decided = min(int(wanted[-1]) + horizon.evaluation_steps, len(bundle) - 1)
            verdict = paths.tested(among, every, decided).verdict(horizon)
            evaluations.append(replace(paths.evaluation(horizon, among, every), verdict=verdict))
        return tuple(evaluations)


def rules_digest(package: Path) -> str:
    """sha256 of the code that makes a recipe: members, combination, calibration, scores, calendars."""
    digest = hashlib.sha256()
    for path in code_files(package, "recipe"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


RULES = rules_digest(Path(__file__).parent)
"""Of the code that is running: taken when it is imported, for files may be replaced while a process lives."""


def _unanswered(quantiles: Array) -> Mask:
    return np.asarray(~np.isfinite(quantiles).all(axis=(1, 2)))


def _rows_between(bundle: MarketBundle, start: date | None, end: date | None) -> tuple[int, int]:
    """First row of a window and the row behind its last; both days included, None for no bound."""
    first = 0 if start is None else int(bundle.dates.searchsorted(pd.Timestamp(start)))
    last = len(bundle) if end is None else int(bundle.dates.searchsorted(pd.Timestamp(end), side="right"))
    return first, last


def _calendar_rows(bundle: MarketBundle, every: int) -> npt.NDArray[np.int64]:
    """Rows of every `every`-th business day of the pair's calendar."""
    numbers = business_day_numbers(bundle.pair, bundle.dates)
    return np.flatnonzero((numbers >= 0) & (numbers % every == 0)).astype(np.int64)
