"""Online calibration of bands: one log factor per block of steps for the 80 % and the 95 % band.

Ordinary split conformal assumes that tomorrow's errors are drawn like yesterday's; here regimes change and
overlapping paths leave few independent windows. The factors follow the miss rates as they become known
(adaptive conformal inference, Gibbs and Candès 2021), each origin judged with the band that it was issued.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from forex_core.types import Array, Mask, level_indices

BLOCKS: tuple[tuple[int, int], ...] = ((1, 5), (6, 11), (12, 21), (22, 64))
"""First and last step of each block."""

RATES: tuple[float, ...] = (0.1, 0.06, 0.03, 0.01)
"""γ of each block: the further ahead, the fewer independent outcomes, the slower."""

PULL = 0.05
"""Share of the distance to the block before that a block gives up at each update."""

LEAK = 0.1
"""Share of a log factor given up at each update, in units of γ: bands go back to the raw ones unless misses hold on."""

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

    def known_by(self, row: int, first: int = 0) -> Mask:
        """[N - first, H] outcomes of grid origins from position `first` on that were known at `row`."""
        seen = (self.known[first:] <= row) & ~np.isnan(self.values[first:])
        return np.asarray(seen & self.learning[first:, None])

    @cached_property
    def arrivals(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.int64]]:
        """(origins, steps, bounds) of outcomes of grid origins in the order in which they became known.

        Those that became known after the grid origin before position i, up to row i, lie in bounds[i]:bounds[i + 1];
        the slice of a position off the grid is empty.
        """
        origins, steps = np.nonzero(~np.isnan(self.values) & self.learning[:, None])
        known = self.known[origins, steps]
        order = np.argsort(known, kind="stable")
        ends = np.searchsorted(known[order], self.rows, side="right")
        ends = np.maximum.accumulate(np.where(self.learning, ends, 0))
        return origins[order], steps[order], np.concatenate([[0], ends])


def online_factors(medians: Array, deviations: Array, outcomes: Outcomes, levels: tuple[float, ...]) -> Array:
    """Factors [..., N, H, Q] for the log deviations of each origin, from what was known there.

    Args are those of `factors_by_block`.
    """
    return by_step(factors_by_block(medians, deviations, outcomes, levels), medians.shape[-1])


def by_step(factors: Array, steps: int) -> Array:
    """[..., H, Q] factors of each step from those of each block [..., B, Q]."""
    return np.take(factors, _block_of_step(steps), axis=-2)


def factors_by_block(
    medians: Array, deviations: Array, outcomes: Outcomes, levels: tuple[float, ...]
) -> Array:
    """Factors [..., N, B, Q] for the log deviations in each block of steps of each origin, from what was known there.

    Args:
        medians: [..., N, H] log median relative to the origin's close; models before the axis of origins.
        deviations: [..., N, H, Q] log deviation of each level from the median.
    """
    models = medians.shape[:-2]
    count, steps = medians.shape[-2:]
    medians = medians.reshape(-1, count, steps)
    deviations = deviations.reshape(-1, count, steps, len(levels))
    bands = [level_indices(levels, coverage) for coverage in (0.8, 0.95)]
    block = _block_of_step(steps)
    theta = np.zeros((len(medians), 2, len(BLOCKS)))
    issued = np.zeros((count, *theta.shape))
    origins, at, bounds = outcomes.arrivals
    error = (outcomes.values - medians)[:, origins, at]
    edges = [[deviations[:, origins, at, level] for level in band] for band in bands]
    low, high = np.log(FACTOR_RANGE[0]), np.log(FACTOR_RANGE[1])
    for i in range(count):
        fresh = slice(bounds[i], bounds[i + 1])
        if bounds[i] < bounds[i + 1]:
            mine = block[at[fresh]]
            for band, (lower, upper) in enumerate(edges):
                factor = np.exp(issued[origins[fresh], :, band, mine]).T
                miss = (error[:, fresh] < lower[:, fresh] * factor) | (
                    error[:, fresh] > upper[:, fresh] * factor
                )
                theta[:, band] = _updated(theta[:, band], mine, miss, band)
            theta = np.clip(theta, low, high)
        issued[i] = theta
    out = np.moveaxis(_spread_over_levels(issued, levels), 1, 0)
    return out.reshape(*models, count, len(BLOCKS), len(levels))


def widen(deviations: Array, factors: Array) -> Array:
    """Deviations [..., Q] times factors, kept from crossing."""
    return np.sort(deviations * factors, axis=-1)


def _updated(theta: Array, block: npt.NDArray[np.intp], miss: Mask, band: int) -> Array:
    """[M, B] log factors after outcomes in those blocks [k] that each model missed or not [M, k]."""
    nominal, speed = ((0.20, 1.0), (0.05, WIDE_BAND_SPEED))[band]
    out = theta.copy()
    for b, rate in enumerate(RATES):
        mine = miss[:, block == b]
        if mine.shape[1]:
            out[:, b] += rate * (speed * (mine.mean(axis=1) - nominal) - LEAK * theta[:, b])
    for b in range(1, len(RATES)):
        out[:, b] += PULL * (out[:, b - 1] - out[:, b])
    return out


def _spread_over_levels(theta: Array, levels: tuple[float, ...]) -> Array:
    """[N, M, B, Q] factors from [N, M, 2, B]: the 80 % band's up to its own levels, the 95 % band's from its own on.

    Linear in |z| between the two.
    """
    z = np.abs(ndtri(np.asarray(levels)))
    inner, outer = ndtri(0.9), ndtri(0.975)
    share = np.clip((z - inner) / (outer - inner), 0.0, 1.0)
    return np.asarray(np.exp(theta[:, :, 0, :, None] * (1 - share) + theta[:, :, 1, :, None] * share))


def _block_of_step(steps: int) -> npt.NDArray[np.intp]:
    last = np.array([end for _, end in BLOCKS])
    return np.minimum(np.searchsorted(last, np.arange(1, steps + 1)), len(BLOCKS) - 1)
