"""Direct regressions of the next days on spot and drivers: their last days, and their last months."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forex_core.errors import MemberError
from forex_core.models.base import Cadence, Refitted, Rows
from forex_core.models.features import (
    NORMAL_SIZE,
    driver_inputs,
    lagged,
    learning_rows,
    rowwise_products,
    spread_ahead,
    targets,
    usable,
)
from forex_core.types import Array, MarketBundle

LAGS = 3
REACH = 3
"""Steps that are regressed on the last days, one by one; beyond them that path is flat."""

RIDGE = 0.05
MOMENTUM_ROWS = (20, 60)
MOMENTUM_REACH = 10
"""Steps over which momentum pays out evenly; beyond them that path is flat."""

MOMENTUM_RIDGE = 1.0
"""Trends of months are few and overlap: their coefficients are halved before they are shrunk as a whole."""


@dataclass(frozen=True)
class DayRegression:
    """Ridge regressions of the return cumulated over 1, 2 and 3 steps on the last three days of moves.

    `used` columns of `carried` (`features.driver_inputs`); `coefficients` [REACH, LAGS * K] log return per unit of
    each lagged move; `growth` [REACH] deviation of the residual over σ_t.
    """

    used: tuple[int, ...]
    coefficients: Array
    growth: Array

    @classmethod
    def estimated(
        cls, inputs: Mapping[str, Array], anchor: int, used: tuple[int, ...], min_rows: int
    ) -> DayRegression:
        """From the rows up to `anchor`.

        Raises:
            MemberError: when they are too few.
        """
        rows = learning_rows(inputs, anchor, min_rows, LAGS)
        coefficients, growth = [], []
        for step in range(1, REACH + 1):
            known = rows[rows + step <= anchor]
            sigma = inputs["sigma"][known]
            target = targets(inputs, known, step)
            x = lagged(inputs["carried"][:, used], known, LAGS)
            beta = shrunk_regression(x, target, 1 / sigma, RIDGE, overlap=step)
            coefficients.append(beta)
            growth.append(NORMAL_SIZE * np.mean(np.abs(target - x @ beta) / sigma))
        return cls(used, np.array(coefficients), np.array(growth))

    def centre(self, inputs: Mapping[str, Array], rows: Rows) -> Array:
        """[N, REACH] median log return from each of `rows`."""
        return rowwise_products(lagged(inputs["carried"][:, self.used], rows, LAGS), self.coefficients)


class DriverRegression(Refitted[DayRegression]):
    """Ridge regression of the return cumulated over 1, 2 and 3 steps on three days of spot and drivers, per month.

    All past rows count, by the inverse of their volatility: rough years hold more signal, and more noise. The
    direct form (one regression per step) does not carry an error of the first step into the next (Marcellino,
    Stock and Watson 2006).
    """

    name = "drivers"
    columns: tuple[str, ...] = ("spot", "drivers")
    cadence: Cadence = "month"

    def prepare(self, bundle: MarketBundle) -> Mapping[str, Array]:
        return driver_inputs(bundle)

    def fit(self, inputs: Mapping[str, Array], anchor: int) -> DayRegression:
        used = usable(inputs, anchor, self.min_rows)
        if len(used) == 1:
            raise MemberError("no driver has enough history; it needs at least one besides the spot")
        return DayRegression.estimated(inputs, anchor, used, self.min_rows)

    def answer(
        self, fitted: DayRegression, inputs: Mapping[str, Array], anchor: int, rows: Rows, steps: int
    ) -> tuple[Array, Array]:
        h = np.arange(1, steps + 1)
        beyond = np.maximum(h - REACH, 0)
        growth = np.sqrt(fitted.growth[np.minimum(h, REACH) - 1] ** 2 + beyond)
        centre = fitted.centre(inputs, rows)[:, np.minimum(h, REACH) - 1]
        return centre, spread_ahead(inputs, rows, growth)


class DriverMomentum(Refitted[tuple[DayRegression, Array]]):
    """`DriverRegression`, and a ridge regression of the return over ten steps on one and three months' momentum.

    The second is paid out evenly over its ten steps.
    """

    name = "momentum"
    columns: tuple[str, ...] = ("spot", "drivers")
    cadence: Cadence = "month"
    days = DriverRegression()

    def prepare(self, bundle: MarketBundle) -> Mapping[str, Array]:
        inputs = driver_inputs(bundle)
        total = np.cumsum(inputs["moves"], axis=0)
        trends = [_change(total, rows) / np.sqrt(rows) for rows in MOMENTUM_ROWS]
        return inputs | {f"trend_{rows}": trend for rows, trend in zip(MOMENTUM_ROWS, trends, strict=True)}

    def fit(self, inputs: Mapping[str, Array], anchor: int) -> tuple[DayRegression, Array]:
        days = self.days.fit(inputs, anchor)
        rows = learning_rows(inputs, anchor, self.min_rows, max(MOMENTUM_ROWS))
        known = rows[rows + MOMENTUM_REACH <= anchor]
        target = targets(inputs, known, MOMENTUM_REACH)
        x = _trends(inputs, days.used, known)
        slope = shrunk_regression(
            x, target, 1 / inputs["sigma"][known], MOMENTUM_RIDGE, overlap=MOMENTUM_REACH
        )
        return days, slope

    def answer(
        self,
        fitted: tuple[DayRegression, Array],
        inputs: Mapping[str, Array],
        anchor: int,
        rows: Rows,
        steps: int,
    ) -> tuple[Array, Array]:
        days, slope = fitted
        centre, spread = self.days.answer(days, inputs, anchor, rows, steps)
        drift = rowwise_products(_trends(inputs, days.used, rows), slope[None, :])
        paid = np.minimum(np.arange(1, steps + 1), MOMENTUM_REACH) / MOMENTUM_REACH
        return centre + drift * paid, spread


def shrunk_regression(x: Array, y: Array, weights: Array, ridge: float, overlap: int) -> Array:
    """[F] weighted ridge regression, then shrunk as a whole by how far its fit exceeds that of noise.

    β minimises Σ w (y − xβ)² / Σ w + ridge · Σ s² β², s² the weighted mean square of each column; it is multiplied by
    `kept_share` of the weighted mean square of its fit and of what that would be if y were noise of the residual's
    size. A regression without signal thus says nothing.

    Args:
        x: [n, F]; a column of zeros gets coefficient 0.
        y: [n].
        weights: [n] positive.
        ridge: positive.
        overlap: length of the return in y; n / overlap rows are taken as independent. That is what noise fits for
            regressors that last, as trends do; for those of days it is firmer than it need be, on purpose.
    """
    share = weights / weights.sum()
    scale = np.sqrt(share @ x**2)
    unit = x / np.where(scale > 0, scale, 1.0)
    size, axes = np.linalg.eigh(unit.T @ (unit * share[:, None]))
    size = np.maximum(size, 0.0)
    beta = axes @ ((axes.T @ (unit.T @ (share * y))) / (size + ridge))
    fit = unit @ beta
    freedom = float(np.sum((size / (size + ridge)) ** 2))
    noise = float(share @ (y - fit) ** 2) * float(share @ share) * overlap * freedom
    beta *= kept_share(float(share @ fit**2), noise)
    return np.asarray(np.where(scale > 0, beta / np.where(scale > 0, scale, 1.0), 0.0))


def kept_share(explained: float, noise: float) -> float:
    """Share max(0, 1 − (E₀/E)²) of an estimate to keep: E the mean square of its fit, E₀ that of a fit to noise.

    Stein's rule max(0, 1 − E₀/E) (Efron and Morris 1973) with a firmer bend: it drops what noise would explain as
    well, and leaves alone what is clearly more.

    >>> kept_share(1.0, 1.0), kept_share(10.0, 1.0)
    (0.0, 0.99)
    """
    return max(0.0, 1.0 - (noise / explained) ** 2) if explained > 0 else 0.0


def _change(total: Array, rows: int) -> Array:
    """[T, K] total minus what it was `rows` before; from the first row on in the beginning."""
    before = np.vstack([np.zeros((rows, total.shape[1])), total])[: len(total)]
    return np.asarray(total - before)


def _trends(inputs: Mapping[str, Array], used: tuple[int, ...], rows: Rows) -> Array:
    return np.concatenate([inputs[f"trend_{n}"][rows][:, used] for n in MOMENTUM_ROWS], axis=1)
