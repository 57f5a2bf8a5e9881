"""What a forecast was worth once its outcome is known. Values only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forex_core.types import Array, level_indices


@dataclass(frozen=True)
class Score:
    """Of one forecast at one lead. Errors are outcome less median, in quote units like the CRPS."""

    error: float
    crps: float
    inside_80: bool
    inside_95: bool
    walk_error: float
    walk_crps: float
    walk_inside_80: bool
    walk_inside_95: bool


def score(quantiles: Array, walk: Array, levels: tuple[float, ...], outcome: float) -> Score:
    """
    Args:
        quantiles, walk: [Q] of the ensemble and of the random walk at `levels`.
        outcome: the rate that came, in the same units.
    """
    from forex_core.evaluation import crps  # SciPy: for whoever scores alone

    truth, middle = np.array(outcome), levels.index(0.5)
    (low_80, high_80), (low_95, high_95) = (level_indices(levels, c) for c in (0.8, 0.95))

    def inside(of: Array, low: int, high: int) -> bool:
        return bool(of[low] <= outcome <= of[high])

    return Score(
        error=float(outcome - quantiles[middle]),
        crps=float(crps(quantiles, truth, levels)),
        inside_80=inside(quantiles, low_80, high_80),
        inside_95=inside(quantiles, low_95, high_95),
        walk_error=float(outcome - walk[middle]),
        walk_crps=float(crps(walk, truth, levels)),
        walk_inside_80=inside(walk, low_80, high_80),
        walk_inside_95=inside(walk, low_95, high_95),
    )
