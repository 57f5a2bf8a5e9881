"""How a rate and its drivers are shown to a neural model, and in what unit it answers.

One function for training and for inference, so that a model meets in use what it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forex_core.models.features import NORMAL_SIZE, WARM_ROWS, carried, changes
from forex_core.models.random_walk import DECAY
from forex_core.types import PERCENT_PER_YEAR, Array, MarketBundle

SHOWN = 2
"""Counts what `shown` has been: weights answer to what they were trained on, and to nothing else."""

SERIES = 5
"""What is shown of a rate, with drivers and without."""

RULER = 16
"""First rows of the last three series, +1 and -1 by turns: a model scales each series by its own deviation, and by
these can tell in what unit the rest of it is."""

SIZE_DECAYS = (0.96, 0.985, 0.995)
FAST_DECAY = 0.94
MOVED_SHARE = 0.5
SMALLEST = 1e-3
"""Of a day's deviation now, the least that another day's is taken to be."""

LIMIT = 4.0
"""Deviations at which a move is cut off: one false print is not to rule a regression."""
LAGS = 2
REACH = 3
"""Steps on which what drivers did tells something; what is expected stays flat beyond."""
RIDGE = 0.2
"""Of the variance of each regressor, added to it."""
CHANCE = 2.0
"""A regression that explains no more than this many times what chance would says nothing."""


@dataclass(frozen=True)
class Shown:
    """What a model is shown of a rate as of a row, and how its answer is read.

    It answers how far the rate moves past what is expected, over `unit` √h: about a standard normal at each step, if
    the rate is a random walk of that deviation.

    Attributes:
        series: [5, C], NaN where there is nothing, as before a history that is shorter than C.
        expected: [REACH] log moves over the next step, two and three.
        unit: deviation of a step's log move.
    """

    series: npt.NDArray[np.float32]
    expected: Array
    unit: float

    def asked(self, moves: Array) -> Array:
        """[H] the right answer, where the log price moves so far [H] from the row."""
        centre, spread = self._ahead(len(moves))
        return np.asarray((moves - centre) / spread)

    def told(self, answer: Array) -> Array:
        """[H, Q] log moves from the row that an answer [H, Q] says."""
        centre, spread = self._ahead(len(answer))
        return np.asarray(centre[:, None] + spread[:, None] * answer)

    def _ahead(self, steps: int) -> tuple[Array, Array]:
        step = np.arange(1, steps + 1)
        return self.expected[np.minimum(step, REACH) - 1], self.unit * np.sqrt(step)


def shown(level: Array, drivers: Array, context: int) -> Shown:
    """Five series of a log price [T] and its drivers' moves [K, T].

    0. The moves of the rate, each over the deviation that was known the row before; of mean 0 and deviation 1, so that
       the model, which scales a series by its own, leaves the unit of its answer as it is.
    1. The level, less the last.
    2. How rough it has been of late: log of a fast deviation over the unit.
    3. What is expected of the next move, over the unit; and
    4. of the next three.

    The unit is the geometric mean of four exponentially weighted deviations of the moves: three of their sizes, one of
    their squares, the random walk's. What is expected is by `_expected`.
    """
    level, drivers = level[-context - 1 :], drivers[:, -context:]
    moves = np.diff(level)
    rows = len(moves)
    deviation = _deviation(moves)
    unit = float(deviation[-1])
    if not unit > 1e-12:  # a constant series has no scale of its own
        unit, deviation = 1.0, np.ones(rows)
    before = np.maximum(np.concatenate([deviation[:1], deviation[:-1]]), SMALLEST * unit)
    fast = np.sqrt(_recent(moves**2, FAST_DECAY))
    expected = _expected(moves, drivers[:, -rows:])

    out = np.full((SERIES, context), np.nan, dtype=np.float32)
    own = moves / before
    out[0, -rows:] = (own - own.mean()) / (_spread(own) or 1.0)
    out[1, -len(level) :] = (level[-context:] - level[-1]) / unit
    out[2, -rows:] = np.log(np.maximum(fast / unit, SMALLEST))
    out[3:, -rows:] = expected[[0, -1]] / unit
    out[2:, :RULER] = np.where(np.arange(RULER) % 2, -1.0, 1.0)
    return Shown(out, expected[:, -1], unit)


def driver_moves(bundle: MarketBundle) -> Array:
    """[K, T] `features.changes` of the drivers that are prices: rates of interest move by decisions, not by days."""
    prices = [k for k, unit in enumerate(bundle.driver_units) if unit != PERCENT_PER_YEAR]
    return np.asarray(changes(bundle)[:, prices].T)


def shown_at(row: int, logs: Array, moves: Array, context: int) -> Shown:
    """`shown` as of a row, of log prices [T] and moves [K, T] that may go on after it.

    A driver that moved on fewer than half of the rows is left out.
    """
    window = slice(max(0, row - context), row + 1)
    beside = moves[:, window]
    moved = (np.nan_to_num(beside[:, -context:]) != 0).mean(axis=1) >= MOVED_SHARE
    return shown(logs[window], beside[moved], context)


def _deviation(moves: Array) -> Array:
    """[T] of a move, as known at each row; 0 as long as nothing has moved."""
    estimates = [NORMAL_SIZE * _recent(np.abs(moves), decay) for decay in SIZE_DECAYS]
    estimates.append(np.sqrt(_recent(moves**2, DECAY)))
    with np.errstate(divide="ignore"):
        return np.asarray(np.exp(np.mean(np.log(estimates), axis=0)))


def _recent(values: Array, decay: float) -> Array:
    """[T] exponentially weighted mean, begun with the mean of the first rows."""
    from scipy.signal import lfilter  # a second and 40 MB to load, which answers that are kept do not need

    begun = float(values[:WARM_ROWS].mean())
    return np.asarray(lfilter([1 - decay], [1, -decay], values, zi=[decay * begun])[0])


def _expected(moves: Array, drivers: Array) -> Array:
    """[REACH, T] log moves expected over the next one, two and three, as of each row by what the last row knows.

    Of the rows before the last it tells what the regression fits, better than it will foresee: for the model to see how
    the two go together.

    By ridge regressions on the last two moves [T] of the rate and of each driver [K, T], added up from where the rate
    stood still (`features.carried`): a rate that is struck before its drivers catches up. Shrunk by the positive part
    of 1 - (CHANCE/F)², F the test statistic of the regression of the next move: Stein's rule 1 - 1/F (Efron and Morris
    1973) with a firmer bend. Where nothing leads the rate nothing is expected, and of what is clear nearly all is left.
    """
    size = _spread(moves) or 1.0
    own = moves / size
    beside = [own, *(driver / spread for driver in drivers if (spread := _spread(driver)) > 0)]
    known = np.clip(np.nan_to_num(np.stack(beside), nan=0.0), -LIMIT, LIMIT)
    total = np.concatenate([[0.0], np.cumsum(known[0])])
    known = carried(known.T, own == 0).T
    width, rows = known.shape
    regressors = np.zeros((rows, LAGS * width))
    for lag in range(LAGS):
        regressors[lag:, lag * width : (lag + 1) * width] = known[:, : rows - lag].T
    out = np.empty((REACH, rows))
    kept = 0.0
    for reach in range(1, REACH + 1):
        past = regressors[: rows - reach]
        target = total[reach + 1 :] - total[1 : rows - reach + 1]
        square = past.T @ past + RIDGE * len(past) * np.eye(LAGS * width)
        out[reach - 1] = regressors @ np.linalg.solve(square, past.T @ target)
        if reach == 1:
            explained = float(out[0, : rows - 1] @ target)
            left = float(target @ target) - explained
            by_chance = LAGS * width * left / max(len(past) - LAGS * width, 1)
            kept = max(0.0, 1.0 - (CHANCE * by_chance / explained) ** 2) if explained > 1e-9 else 0.0
    return np.asarray(kept * size * out)


def _spread(moves: Array) -> float:
    """Their deviation, 0 where they do not move."""
    known = moves[np.isfinite(moves)]
    spread = float(known.std()) if len(known) else 0.0
    return spread if spread > 1e-12 else 0.0
