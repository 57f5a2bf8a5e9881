"""Direct regression of the next days on the last days of spot and drivers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forex_core.errors import MemberError
from forex_core.models.base import Cadence, Refitted, Rows
from forex_core.models.features import alive, driver_inputs, first_moved, targets, usable_drivers
from forex_core.types import Array, MarketBundle

LAGS = 3
REACH = 3
"""Steps that are regressed one by one; beyond them the path is flat."""


@dataclass(frozen=True)
class _Fitted:
    used: tuple[int, ...]
    coefficients: Array  # [REACH, LAGS * (1 + K)]
    growth: Array  # [REACH] deviation of the residual of the cumulated return, over σ_t


class DriverRegression(Refitted[_Fitted]):
    """Ridge regression of the return cumulated over 1, 2 and 3 steps on three days of lagged moves, per month.

    All past rows count, each over the volatility of its day. The direct form (one regression per step) does
    not carry an error of the first step into the next (Marcellino, Stock and Watson 2006).
    """

    name = "drivers"
    columns: tuple[str, ...] = ("spot", "drivers")
    cadence: Cadence = "month"
    ridge = 0.05

    def prepare(self, bundle: MarketBundle) -> Mapping[str, Array]:
        return driver_inputs(bundle)

    def fit(self, inputs: Mapping[str, Array], anchor: int) -> _Fitted:
        used = usable_drivers(inputs, anchor, self.min_rows)
        rows = np.arange(first_moved(inputs) + LAGS, anchor)
        rows = rows[alive(inputs["sigma"][rows])]
        if len(rows) < self.min_rows // 2:
            raise MemberError(f"only {len(rows)} rows since the price began to move")
        coefficients, growth = [], []
        for step in range(1, REACH + 1):
            known = rows[rows + step <= anchor]
            target = targets(inputs, known, step)
            x = _lagged(inputs, used, known)
            gram = x.T @ x + self.ridge * len(x) * np.eye(x.shape[1])
            beta = np.linalg.solve(gram, x.T @ target)
            coefficients.append(beta)
            growth.append(np.std(target - x @ beta))
        return _Fitted(used, np.array(coefficients), np.array(growth))

    def answer(
        self, fitted: _Fitted, inputs: Mapping[str, Array], anchor: int, rows: Rows, steps: int
    ) -> tuple[Array, Array]:
        sigma = inputs["sigma"][rows]
        centre = np.empty((len(rows), steps))
        for n, row in enumerate(rows):
            path = fitted.coefficients @ _lagged(inputs, fitted.used, np.array([row]))[0]
            centre[n] = np.concatenate([path, np.repeat(path[-1], max(steps - REACH, 0))])[:steps]
        beyond = np.sqrt(fitted.growth[-1] ** 2 + np.arange(1, max(steps - REACH, 0) + 1))
        growth = np.concatenate([fitted.growth, beyond])[:steps]
        return centre * sigma[:, None], sigma[:, None] * growth


def _lagged(inputs: Mapping[str, Array], used: tuple[int, ...], rows: Rows) -> Array:
    """[N, LAGS * (1 + K)] the last LAGS rows of the spot and the drivers of `used`."""
    blocks = []
    for lag in range(LAGS):
        blocks.append(inputs["spot"][rows - lag][:, None])
        blocks.append(inputs["drivers"][rows - lag][:, list(used)])
    return np.concatenate(blocks, axis=1)
