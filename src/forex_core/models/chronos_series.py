"""How a rate and its drivers are shown to a neural model: levels, moves, and the level that the drivers' moves imply.

One function for training and for inference, so that a model meets in use what it was trained on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forex_core.types import Array

SERIES = 5
"""What is shown of a rate, with drivers and without."""

LIMIT = 4.0
"""Deviations at which a move is cut off: one false print is not to rule a regression."""
LAGS = 3
REACHES = (1, 3)
RIDGE = 0.1
"""Of the variance of each regressor, added to it."""


def shown(
    level: Array, drivers: Array, context: int, level_rows: int
) -> tuple[npt.NDArray[np.float32], float]:
    """Five series [5, C] of a log price [T] and its drivers' moves [K, T], and the unit of the first.

    0. The level of the last `level_rows`, caught up: the last is where the rate is expected three rows later. This is
       forecast, less the last level and over the deviation of the moves. A model scales each series by its own
       deviation, so the near steps are resolved better beside a short stretch.
    1. The level of all rows.
    2. The moves of the rate.
    3. Of the last `level_rows`, the level and what is expected of the next move; and
    4. the level and what is expected of the next three.

    What is expected is by ridge regressions over the context on the last three moves of the rate and of each driver,
    as far as they tell more than chance would (`_expected`): a rate that is struck before its drivers catches up.

    NaN where there is nothing, as before a history that is shorter than `context`. The unit drops out of a price, and
    float32 has its digits where the moves are.
    """
    level, drivers = level[-context - 1 :], drivers[:, -context:]
    moves = np.diff(level)
    scale = _spread(moves) or 1.0  # a constant series has no scale of its own
    rows = len(moves)
    out = np.full((SERIES, context), np.nan, dtype=np.float32)
    whole = (level[-context:] - level[-1]) / scale
    recent = min(level_rows, rows)
    implied = whole[-recent:] + _expected(moves / scale, drivers[:, -rows:])[:, -recent:]
    out[0, -recent:] = whole[-recent:]
    out[0, -1] = implied[-1, -1]
    out[1, -len(whole) :] = whole
    out[2, -rows:] = moves / scale
    out[3:, -recent:] = implied
    return out, scale


def shown_at(
    row: int, logs: Array, moves: Array, context: int, level_rows: int
) -> tuple[npt.NDArray[np.float32], float]:
    """`shown` as of a row, of log prices [T] and moves [K, T] that may go on after it."""
    window = slice(max(0, row - context), row + 1)
    beside = moves[:, window]
    return shown(logs[window], beside[np.isfinite(beside).any(axis=1)], context, level_rows)


def _expected(moves: Array, drivers: Array) -> Array:
    """[2, T] expected sums of the next one and three of the moves [T], from moves up to each row and drivers' [K, T].

    Shrunk by the positive-part factor 1 - 1/F of James and Stein (1961), F the test statistic of the regression of the
    next move: where nothing leads the rate, next to nothing is expected.
    """
    beside = [moves, *(driver / spread for driver in drivers if (spread := _spread(driver)) > 0)]
    known = np.clip(np.nan_to_num(np.stack(beside), nan=0.0), -LIMIT, LIMIT)
    width, rows = known.shape
    regressors = np.zeros((rows, LAGS * width))
    for lag in range(LAGS):
        regressors[lag:, lag * width : (lag + 1) * width] = known[:, : rows - lag].T
    total = np.concatenate([[0.0], np.cumsum(known[0])])
    out = np.empty((len(REACHES), rows))
    kept = 0.0
    for number, reach in enumerate(REACHES):
        past = regressors[: rows - reach]
        target = total[reach + 1 :] - total[1 : rows - reach + 1]
        square = past.T @ past + RIDGE * len(past) * np.eye(LAGS * width)
        out[number] = regressors @ np.linalg.solve(square, past.T @ target)
        if reach == 1:
            explained = float(out[number, : rows - 1] @ target)
            left = float(target @ target) - explained
            by_chance = LAGS * width * left / max(len(past) - LAGS * width, 1)
            kept = max(0.0, 1.0 - by_chance / explained) if explained > 1e-9 else 0.0
    return kept * out


def _spread(moves: Array) -> float:
    """Their deviation, 0 where they do not move."""
    known = moves[np.isfinite(moves)]
    spread = float(known.std()) if len(known) else 0.0
    return spread if spread > 1e-12 else 0.0
