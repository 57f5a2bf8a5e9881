"""Combination of members: one weight vector for the medians of the whole path, and a mean of their spreads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from forex_core.calibration import Outcomes
from forex_core.errors import ForecastError
from forex_core.types import Array

LOSS_STEPS = (6, 11)
"""First and last step whose errors set the weights; the shorter ones reward what the close catches up with."""

REESTIMATE_EVERY = 4
"""Grid origins between two estimates of the weights."""

MIN_KNOWN_ORIGINS = 26
"""Below this many origins with known outcomes the weights stay equal."""


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
    shrinkage: float,
    window: int,
) -> Combination:
    """Weights from known outcomes alone, then location and spread combined apart (quantile averaging).

    Args:
        medians: [M, N, H] log medians relative to the origin's close.
        deviations: [M, N, H, Q] calibrated log deviations from each member's own median.
        sigma: [N] daily volatility of the reference at each origin.
        ordinals: [N] number of each grid origin in its calendar, which says when weights are re-estimated.
        shrinkage: λ of the pull towards equal weights.
        window: how many grid origins back the weights look.
    """
    count = medians.shape[0]
    weights = np.empty((len(outcomes.rows), count))
    current = np.full(count, 1.0 / count)
    first, last = LOSS_STEPS
    steps = slice(first - 1, last)
    scale = sigma[:, None] * np.sqrt(np.arange(first, last + 1))
    errors = (outcomes.values[:, steps] - medians[:, :, steps]) / scale
    number = np.cumsum(outcomes.learning)
    for i, row in enumerate(outcomes.rows):
        if outcomes.learning[i] and ordinals[i] % REESTIMATE_EVERY == 0:
            known = outcomes.known_by(int(row))[:, steps]
            known[number < number[i] - window] = False
            if known.any(axis=1).sum() >= MIN_KNOWN_ORIGINS:
                current = simplex_weights(errors[:, known], shrinkage)
        weights[i] = current
    return Combination(
        weights=weights,
        medians=np.einsum("nm,mnh->nh", weights, medians),
        deviations=deviations.mean(axis=0),
    )


def simplex_weights(errors: Array, shrinkage: float) -> Array:
    """[M] weights on the simplex minimising mean((Σ w_m e_m)²) + λ‖w − 1/M‖².

    Args:
        errors: [M, n] scaled errors of each member on the same outcomes.

    >>> simplex_weights(np.array([[1.0, -1.0], [-1.0, 1.0]]), 0.0).round(6).tolist()
    [0.5, 0.5]
    """
    count = len(errors)
    equal = np.full(count, 1.0 / count)
    gram = errors @ errors.T / errors.shape[1] + shrinkage * np.eye(count)

    def loss(w: Array) -> tuple[float, Array]:
        slope = gram @ w
        return float(w @ slope - 2 * shrinkage * (equal @ w)), 2 * (slope - shrinkage * equal)

    found = minimize(
        loss,
        equal,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * count,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones(count)},
        options={"ftol": 1e-12, "maxiter": 200},
    )
    if not found.success:
        raise ForecastError(f"the weights of the members could not be found: {found.message}")
    positive = np.maximum(found.x, 0.0)
    return np.asarray(positive / positive.sum())
