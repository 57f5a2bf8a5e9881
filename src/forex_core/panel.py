"""The same evaluation over many pairs: one pass for each, in processes of their own.

A pair that fails is told with its reason and costs no other its scores. Nothing hangs on how many processes work or
in which order they end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import date
from statistics import median

import numpy as np
import pandas as pd
from loguru import logger

from forex_core.cache import AnswerCache
from forex_core.config import Settings
from forex_core.data.bundle import load_bundle
from forex_core.data.providers import provider
from forex_core.engine import Engine, Progress, build_members, library_versions
from forex_core.errors import ForexError
from forex_core.types import ENSEMBLE, Evaluation, Horizon, MarketBundle, Pair

MAX_JOBS = 4
"""Processes that work by default at most: each takes about a gigabyte."""

MAX_CACHE_BYTES = 3 * 2**30
"""All pairs since 2015 leave 2.2 GB; a smaller cache would drop each answer before it is asked for again."""


@dataclass(frozen=True)
class Scored:
    """One pair at one horizon. `outcomes`: accepted closes that its paths were scored against."""

    evaluation: Evaluation
    outcomes: int


@dataclass(frozen=True)
class Ratio:
    """A ratio to the random walk over pairs: its median, its largest value and the pair that has it."""

    median: float
    worst: float
    worst_pair: Pair


@dataclass(frozen=True)
class Summary:
    """The ensemble at one horizon over all pairs; coverages weighted by outcomes."""

    origins: int
    outcomes: int
    rmse: Ratio
    crps: Ratio
    coverage_80: float
    coverage_95: float


@dataclass(frozen=True)
class PanelScores:
    """Every pair's evaluations in the order of the horizons, and why the others have none."""

    scored: Mapping[Pair, tuple[Scored, ...]]
    failed: Mapping[Pair, str]

    def summary(self, horizon: Horizon) -> Summary | None:
        """None when no pair was scored."""
        found = {
            pair: one
            for pair, several in self.scored.items()
            for one in several
            if one.evaluation.horizon == horizon
        }
        if not found:
            return None
        scores = {pair: one.evaluation.scores[ENSEMBLE] for pair, one in found.items()}
        outcomes = [one.outcomes for one in found.values()]
        return Summary(
            origins=sum(len(one.evaluation.origins) for one in found.values()),
            outcomes=sum(outcomes),
            rmse=_ratio({pair: s.rmse_ratio_rw for pair, s in scores.items()}),
            crps=_ratio({pair: s.crps_ratio_rw for pair, s in scores.items()}),
            coverage_80=float(np.average([s.coverage_80 for s in scores.values()], weights=outcomes)),
            coverage_95=float(np.average([s.coverage_95 for s in scores.values()], weights=outcomes)),
        )


@dataclass(frozen=True)
class Panel:
    """What every pair is scored on: origins of its fixed grid from `start` to `end`, one pass for all horizons."""

    settings: Settings
    horizons: tuple[Horizon, ...]
    start: date
    end: date | None = None
    every: int = 10
    as_of: date | None = None

    def score(self, pair: Pair) -> tuple[Scored, ...]:
        """Evaluations of one pair, in this process.

        Raises:
            ForexError: as reading the pair and `Engine.evaluations` do.
        """
        settings = self.settings
        source = provider(settings.source, settings.paths, settings.columns)
        bundle = load_bundle(source, pair, self.as_of)
        # A folder of its own: in that of the daily runs a panel would leave no room for their answers.
        folder = settings.cache_dir / "panel"
        kept = AnswerCache(folder, library_versions(), MAX_CACHE_BYTES) if settings.cache else None
        engine = Engine(settings.engine, build_members(settings.engine, settings.chronos), cache=kept)
        found = engine.evaluations(bundle, self.horizons, self.start, self.end, self.every)
        return tuple(Scored(evaluation, _outcomes(bundle, evaluation)) for evaluation in found)

    def score_all(
        self,
        pairs: Sequence[Pair],
        jobs: int | None = None,
        progress: Progress = lambda stage, done, total: None,
        set_up: Callable[[], None] | None = None,
    ) -> PanelScores:
        """Evaluations of all pairs, in `jobs` processes (default: as many as cores, up to `MAX_JOBS`).

        Args:
            progress: called at the start and after each pair.
            set_up: called in each process before its first pair; a function of a module.
        """
        jobs = min(jobs or default_jobs(), len(pairs))
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of ours hold
        pool = ProcessPoolExecutor(jobs, context, initializer=_start, initargs=(set_up,))
        try:
            asked = {pool.submit(self.score, pair): pair for pair in pairs}
            progress("scoring", 0, len(pairs))
            for done, future in enumerate(as_completed(asked), start=1):
                progress(f"{asked[future]} done", done, len(pairs))
        finally:
            pool.shutdown(cancel_futures=True)
        failed = {pair: reason for future, pair in asked.items() if (reason := _fault(pair, future))}
        scored = {pair: future.result() for future, pair in asked.items() if pair not in failed}
        return PanelScores(scored, failed)


def default_jobs() -> int:
    """As many processes as cores that this one may use, up to `MAX_JOBS`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_JOBS)


def _fault(pair: Pair, future: Future[tuple[Scored, ...]]) -> str | None:
    error = future.exception()
    match error:
        case None:
            return None
        case ForexError():
            return str(error)
        case BrokenProcessPool():
            return "a process was killed, as when memory runs out; try again with fewer --jobs"
    logger.opt(exception=error).error("{} failed", pair)  # ours to mend: where it was raised is in the log
    return f"{type(error).__name__}: {error}"


def _ratio(values: Mapping[Pair, float]) -> Ratio:
    worst = max(values, key=lambda pair: values[pair])
    return Ratio(median(values.values()), values[worst], worst)


def _outcomes(bundle: MarketBundle, evaluation: Evaluation) -> int:
    rows = bundle.dates.get_indexer(pd.DatetimeIndex(evaluation.origins))
    targets = rows[:, None] + np.arange(1, evaluation.steps + 1)
    return int((~np.isnan(bundle.truth[targets])).sum())


def _start(set_up: Callable[[], None] | None) -> None:
    """A process that ends with the one that started it, without a word, however that one ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if set_up is not None:
        set_up()


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
