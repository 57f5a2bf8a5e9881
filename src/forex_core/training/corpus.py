"""What a model is trained on: crosses of the ECB's reference rates up to a day, and generated groups.

A *task* is one rate to be forecast and what is shown beside it. A batch is a function of its key, whoever makes it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pandas as pd

from forex_core.data.providers.ecb import reference_rates
from forex_core.errors import ConfigError
from forex_core.models.chronos_series import shown
from forex_core.training import generated
from forex_core.training.config import Architecture
from forex_core.types import Array

MIN_CONTEXT = 64
"""Rows of history that a training window has at the least."""
MIN_DAILY_MOVE = 5e-4
"""Deviation of the daily log moves below which a cross is as good as pegged, and tells nothing of one that floats."""
MAX_DRIVERS = 5
ALONE, LED = 0.35, 0.30
"""Shares of the tasks that have no drivers, and that have some; of the others the rate is struck before its drivers."""


@dataclass(frozen=True)
class Batch:
    """`context` [R, C], NaN where there is none; `target` [R, H], NaN but for the rates; `group` [R], a row's task."""

    context: npt.NDArray[np.float32]
    target: npt.NDArray[np.float32]
    group: npt.NDArray[np.int64]

    @property
    def tasks(self) -> int:
        return int(self.group[-1]) + 1


@dataclass(frozen=True)
class Crosses:
    """Log units per euro of the currencies [C, T]; NaN where one was not quoted. Days ascend."""

    days: pd.DatetimeIndex
    logs: Array
    currencies: tuple[str, ...]

    @classmethod
    def of_ecb(cls) -> Crosses:
        """All of the embedded reference rates.

        Raises:
            SourceError: when they cannot be read.
        """
        days, rates = reference_rates()
        names = tuple(sorted(rates))
        return cls(days, np.log(np.stack([rates[name] for name in names])), names)

    def until(self, day: date) -> Crosses:
        """The rows up to and with a day."""
        rows = int(self.days.searchsorted(pd.Timestamp(day), side="right"))
        return Crosses(self.days[:rows], self.logs[:, :rows], self.currencies)

    @property
    def digest(self) -> str:
        """sha256 of days, currencies and rates."""
        told = hashlib.sha256(",".join(self.currencies).encode())
        told.update(self.days.to_numpy().astype("datetime64[D]").tobytes() + self.logs.tobytes())
        return told.hexdigest()

    def row_after(self, day: date) -> int:
        """The first row after a day."""
        return int(self.days.searchsorted(pd.Timestamp(day), side="right"))

    def pairs(self) -> npt.NDArray[np.int64]:
        """Base and quote [P, 2] of each pair that floats: it has rows enough, and moves."""
        found = []
        for base in range(len(self.currencies)):
            for quote in range(base + 1, len(self.currencies)):
                moves = np.diff(self.logs[quote] - self.logs[base])
                moves = moves[np.isfinite(moves)]
                if len(moves) > 2 * MIN_CONTEXT and moves.std() > MIN_DAILY_MOVE:
                    found.append((base, quote))
        if not found:
            raise ConfigError(
                f"no two currencies up to {self.days[-1].date() if len(self.days) else 'that day'} have"
                f" {2 * MIN_CONTEXT} days together; give a later day"
            )
        return np.array(found)


class Corpus:
    """Batches of tasks whose outcomes lie in the rows (`after`, `until`] of the crosses.

    Args:
        crosses: what is known; nothing of it after `until` is read.
        after: outcomes are of later days; the first of all rows without it. Histories may go back before it.
        generated_share: of the tasks, those that are generated.
    """

    def __init__(
        self,
        crosses: Crosses,
        architecture: Architecture,
        until: date,
        after: date | None = None,
        generated_share: float = 0.5,
    ) -> None:
        self._known = crosses.until(until)
        self._architecture = architecture
        self._first = 0 if after is None else self._known.row_after(after)
        self._generated_share = generated_share
        self.pairs = self._known.pairs()
        # The last row of a history, such that all outcomes are later than `after` and none later than `until`.
        self._earliest = max(self._first - 1, MIN_CONTEXT - 1)
        self._latest = len(self._known.days) - 1 - architecture.steps
        if self._latest < self._earliest:
            raise ConfigError(
                f"the {len(self._known.days) - self._first} days from {after or 'the first'} to {until} hold no"
                f" {architecture.steps} days to forecast; give days that are farther apart"
            )

    def batch(self, tasks: int, *key: int) -> Batch:
        """A batch of so many tasks; the same for the same key."""
        draw = np.random.default_rng(key)
        made = int(draw.binomial(tasks, self._generated_share))
        parts = [self._of_crosses(draw) for _ in range(tasks - made)]
        rows = self._architecture.context + 1 + self._architecture.steps
        drivers = int(draw.integers(1, MAX_DRIVERS + 1))
        levels, moves = generated.groups(draw, made, drivers, rows)
        for level, others in zip(levels, moves, strict=True):
            others = others[:0] if draw.random() < ALONE else others
            parts.append(self._task(draw, level, others))
        context, target = [part[0] for part in parts], [part[1] for part in parts]
        group = np.repeat(np.arange(tasks), [len(part) for part in context])
        return Batch(np.concatenate(context), np.concatenate(target), group)

    def _of_crosses(
        self, draw: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """One task from the crosses; drawn anew where a rate was not quoted."""
        while True:
            base, quote = draw.permutation(self.pairs[draw.integers(len(self.pairs))])
            last = int(draw.integers(self._earliest, self._latest + 1))
            stop = last + 1 + self._architecture.steps
            # A row more than the model sees, for the first of its moves.
            logs = self._known.logs[:, max(0, last - self._architecture.context) : stop]
            level = logs[quote] - logs[base]
            if np.isfinite(level[-self._architecture.steps - MIN_CONTEXT :]).all():
                break
        known = int(np.flatnonzero(np.isnan(level)).max(initial=-1)) + 1
        logs, level = logs[:, known:], level[known:]  # a history is whole
        kind = draw.random()
        if kind < ALONE:
            return self._task(draw, level, np.empty((0, len(level))))
        others = self._beside(draw, logs, int(base), int(quote))
        if kind >= ALONE + LED:
            level = generated.struck_earlier(level, np.asarray(draw.uniform(0.1, 0.9)))
        return self._task(draw, level, np.diff(others, axis=1, prepend=np.nan))

    def _beside(self, draw: np.random.Generator, logs: Array, base: int, quote: int) -> Array:
        """Log prices [K, T] of other crosses, half of which share a currency with the rate; NaN where not quoted."""
        chosen = []
        for _ in range(int(draw.integers(1, MAX_DRIVERS + 1))):
            one, other = draw.permutation(self.pairs[draw.integers(len(self.pairs))])
            if draw.random() < 0.5:
                other = draw.choice((base, quote))
            if one != other and {int(one), int(other)} != {base, quote}:
                chosen.append(logs[one] - logs[other])
        return np.stack(chosen) if chosen else np.empty((0, logs.shape[1]))

    def _task(
        self, draw: np.random.Generator, level: Array, others: Array
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Context [R, C] and target [R, H] from a log price [T] and moves [K, T], whose last H rows are the outcome."""
        steps = self._architecture.steps
        level = level * draw.choice((-1.0, 1.0))  # a price and its inverse are as likely
        past = len(level) - steps
        if draw.random() < 0.25:  # as a short history looks
            short = int(draw.integers(MIN_CONTEXT, past + 1))
            level, others, past = level[past - short :], others[:, past - short :], short
        found = shown(level[:past], others[:, :past], self._architecture.context)
        target = np.full((len(found.series), steps), np.nan, dtype=np.float32)
        target[0] = found.asked(level[past:] - level[past - 1])
        return found.series, target
