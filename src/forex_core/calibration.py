"""Online calibration of bands: one log factor per block of steps for the 80 % and the 95 % band.

Ordinary split conformal assumes that tomorrow's errors are drawn like yesterday's; here regimes change and
overlapping paths leave few independent windows. The factors follow the miss rates as they become known
(adaptive conformal inference, Gibbs and Candès 2021), each origin judged with the band that it was issued.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from forex_core.types import Array, Mask, level_indices

BLOCKS: tuple[tuple[int, int], ...] = ((1, 5), (6, 11), (12, 21), (22, 64))
"""First and last step of each block."""

RATES: tuple[float, ...] = (0.05, 0.03, 0.015, 0.005)
"""γ of each block: the further ahead, the fewer independent outcomes, the slower."""

PULL = 0.05
"""Share of the distance to the block before that a block gives up at each update."""

FACTOR_RANGE = (0.8, 1.6)
WIDE_BAND_SPEED = 2.5


@dataclass(frozen=True)
class Outcomes:
    """What came of each origin.

    `values` [N, H] log price relative to the origin's close, NaN where nothing was observed; `known` [N, H] row
    at which it became known; `rows` [N] rows of the origins, ascending; `learning` [N] whether the origin is on
    the fixed grid (others are answered, and taught nothing).
    """

    values: Array
    known: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    learning: Mask

    def known_by(self, row: int) -> Mask:
        """[N, H] outcomes of grid origins that were known at `row`."""
        return np.asarray((self.known <= row) & ~np.isnan(self.values) & self.learning[:, None])


def online_factors(medians: Array, deviations: Array, outcomes: Outcomes, levels: tuple[float, ...]) -> Array:
    """Factors [N, H, Q] for the log deviations of each origin, from what was known there.

    Args:
        medians: [N, H] log median relative to the origin's close.
        deviations: [N, H, Q] log deviation of each level from the median.
    """
    steps = medians.shape[1]
    bands = [level_indices(levels, coverage) for coverage in (0.8, 0.95)]
    block = _block_of_step(steps)
    theta = np.zeros((2, len(BLOCKS)))
    issued = np.zeros((2, len(BLOCKS), len(outcomes.rows)))
    error = outcomes.values - medians
    low, high = np.log(FACTOR_RANGE[0]), np.log(FACTOR_RANGE[1])
    out = np.empty_like(deviations)
    before = -1
    for i, row in enumerate(outcomes.rows):
        if outcomes.learning[i]:
            fresh = outcomes.known_by(int(row)) & (outcomes.known > before)
            origins, at = np.nonzero(fresh)
            if len(origins):
                for band, (lower, upper) in enumerate(bands):
                    factor = np.exp(issued[band, block[at], origins])
                    miss = (error[origins, at] < deviations[origins, at, lower] * factor) | (
                        error[origins, at] > deviations[origins, at, upper] * factor
                    )
                    theta[band] = _updated(theta[band], block[at], miss, band)
                theta = np.clip(theta, low, high)
            before = int(row)
        issued[:, :, i] = theta
        out[i] = _spread_over_levels(theta, levels)[block]
    return out


def widen(deviations: Array, factors: Array) -> Array:
    """Deviations [..., Q] times factors, kept from crossing."""
    return np.sort(deviations * factors, axis=-1)


def _updated(theta: Array, block: npt.NDArray[np.intp], miss: Mask, band: int) -> Array:
    nominal, speed = ((0.20, 1.0), (0.05, WIDE_BAND_SPEED))[band]
    out = theta.copy()
    for b, rate in enumerate(RATES):
        mine = miss[block == b]
        if len(mine):
            out[b] += speed * rate * (float(mine.mean()) - nominal)
    for b in range(1, len(out)):
        out[b] += PULL * (out[b - 1] - out[b])
    return out


def _spread_over_levels(theta: Array, levels: tuple[float, ...]) -> Array:
    """[B, Q] factors: the 80 % band's up to its own levels, the 95 % band's from its own on, linear in |z|."""
    z = np.abs(ndtri(np.asarray(levels)))
    inner, outer = ndtri(0.9), ndtri(0.975)
    share = np.clip((z - inner) / (outer - inner), 0.0, 1.0)
    return np.asarray(np.exp(theta[0][:, None] * (1 - share) + theta[1][:, None] * share))


def _block_of_step(steps: int) -> npt.NDArray[np.intp]:
    last = np.array([end for _, end in BLOCKS])
    return np.minimum(np.searchsorted(last, np.arange(1, steps + 1)), len(BLOCKS) - 1)
