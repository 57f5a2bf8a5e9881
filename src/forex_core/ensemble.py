"""Combination of members: one weight vector for the medians of the whole path, and a mean of their spreads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forex_core.calibration import Outcomes, widen
from forex_core.types import Array

LOSS_STEPS = (6, 11)
"""First and last step whose errors set the weights; the shorter ones reward what the close catches up with."""

REESTIMATE_EVERY = 4
"""Grid origins between two estimates of the weights."""

MIN_KNOWN_ORIGINS = 26
"""Below this many origins with known outcomes the weights stay equal; they stay as they are while a price is pegged."""


@dataclass(frozen=True)
class Combination:
    """`weights` [N, M] non-negative, rows summing to one; `medians` [N, H] and `deviations` [N, H, Q] in logs."""

    weights: Array
    medians: Array
    deviations: Array


def combine(
    medians: Array,
    deviations: Array,
    outcomes: Outcomes,
    sigma: Array,
    ordinals: npt.NDArray[np.int64],
    rate: float,
    window: int,
) -> Combination:
    """Weights from known outcomes alone, then location and spread combined apart (quantile averaging).

    Args:
        medians: [M, N, H] log medians relative to the origin's close.
        deviations: [M, N, H, Q] log deviations from each member's own median.
        sigma: [N] daily volatility of the reference at each origin.
        ordinals: [N] number of each grid origin in its calendar, which says when weights are re-estimated.
        rate: η of `exponential_weights`.
        window: how many grid origins back the weights look.
    """
    count = medians.shape[0]
    weights = np.empty((len(outcomes.rows), count))
    current = np.full(count, 1.0 / count)
    shortest, longest = LOSS_STEPS
    steps = slice(shortest - 1, longest)
    scale = sigma[:, None] * np.sqrt(np.arange(shortest, longest + 1))
    walk = (outcomes.values[:, steps] / scale) ** 2
    losses = ((outcomes.values[:, steps] - medians[:, :, steps]) / scale) ** 2
    number = np.cumsum(outcomes.learning)
    for i, row in enumerate(outcomes.rows):
        if outcomes.learning[i] and ordinals[i] % REESTIMATE_EVERY == 0:
            first = int(np.searchsorted(number, number[i] - window))
            known = outcomes.known_by(int(row), first)[:, steps]
            if known.any(axis=1).sum() >= MIN_KNOWN_ORIGINS and walk[first:][known].any():
                mean = losses[:, first:][:, known].mean(axis=1)
                current = exponential_weights(mean / walk[first:][known].mean(), rate)
        weights[i] = current
    return Combination(
        weights=weights,
        medians=np.einsum("nm,mnh->nh", weights, medians),
        deviations=deviations.mean(axis=0),
    )


def published(raw: Array, weights: Array, factors: Array, middle: int) -> Array:
    """[H, Q] quantiles in price from those of the members: their last combination, and the way to replay it.

    With x the logs of `raw` and x.5 those of its medians: exp(Σ_m w_m x.5 + sorted(factor · mean_m(x − x.5))).

    Args:
        raw: [M, H, Q] quantiles in price as members answered.
        weights: [M] non-negative, summing to one.
        factors: [H, Q] band factors.
        middle: position of the median among the levels.

    >>> one = np.array([[[90.0, 100.0, 110.0]]])
    >>> published(one, np.ones(1), np.ones((1, 3)), 1).round(6).tolist()
    [[90.0, 100.0, 110.0]]
    """
    logs = np.log(raw)
    medians = logs[:, :, middle]
    spread = (logs - medians[:, :, None]).mean(axis=0)
    return np.asarray(np.exp((weights @ medians)[:, None] + widen(spread, factors)))


def exponential_weights(losses: Array, rate: float) -> Array:
    """[M] weights proportional to exp(−η L), L the mean loss of each member in units of the random walk's.

    Members whose losses differ by much less than 1/η share the weight almost evenly, those far behind get none
    (Cesa-Bianchi and Lugosi 2006, section 2.1). Unlike weights that minimise the squared error of the mixture, it does
    not pay a member for erring differently in the sample at hand.

    >>> exponential_weights(np.array([0.9, 0.9, 1.0]), 120.0).round(6).tolist()
    [0.499998, 0.499998, 3e-06]
    """
    raw = np.exp(-rate * (losses - losses.min()))
    return np.asarray(raw / raw.sum())
