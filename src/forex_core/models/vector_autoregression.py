"""Vector autoregression of the spot and its drivers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forex_core.errors import MemberError
from forex_core.models.base import Cadence, Refitted, Rows
from forex_core.models.features import driver_inputs, first_moved, usable_drivers
from forex_core.types import Array, MarketBundle

LAGS = 3


@dataclass(frozen=True)
class _Fitted:
    used: tuple[int, ...]
    response: Array  # [longest, LAGS * (1 + K)] cumulated return per unit of each lagged value, over σ_t
    growth: Array  # [longest] standard deviation of the cumulated return, over σ_t


class VectorAutoregression(Refitted[_Fitted]):
    """VAR(3) of the return and the drivers' changes (statsmodels), per month on the last 2,500 rows.

    Estimated on values over their own volatility, so that calm years count as much as rough ones. The variance
    of the cumulated return follows from the moving-average form (Lütkepohl 2005, section 2.2.2).
    """

    name = "var"
    columns: tuple[str, ...] = ("spot", "drivers")
    cadence: Cadence = "month"
    window = 2500
    longest = 64

    def prepare(self, bundle: MarketBundle) -> Mapping[str, Array]:
        return driver_inputs(bundle)

    def fit(self, inputs: Mapping[str, Array], anchor: int) -> _Fitted:
        from statsmodels.tsa.api import VAR

        used = usable_drivers(inputs, anchor, self.min_rows)
        first = max(first_moved(inputs), anchor + 1 - self.window)
        sample = np.column_stack(
            [inputs["spot"][first : anchor + 1], inputs["drivers"][first : anchor + 1][:, used]]
        )
        try:
            result = VAR(sample).fit(LAGS, trend="n")
        except (np.linalg.LinAlgError, ValueError) as error:
            raise MemberError(f"no VAR estimate at row {anchor}: {error}") from error
        width = sample.shape[1]
        companion = np.zeros((LAGS * width, LAGS * width))
        companion[:width] = np.hstack(list(result.coefs))
        companion[width:, :-width] = np.eye((LAGS - 1) * width)
        if np.abs(np.linalg.eigvals(companion)).max() >= 1:
            raise MemberError(f"the VAR estimate at row {anchor} is explosive")
        covariance = np.asarray(result.sigma_u)
        power, total = np.eye(LAGS * width), np.zeros((LAGS * width, LAGS * width))
        response, moving = np.zeros((self.longest, LAGS * width)), np.zeros((self.longest, width))
        for step in range(self.longest):
            moving[step] = (moving[step - 1] if step else 0) + power[0, :width]
            power = companion @ power
            total = total + power
            response[step] = total[0]
        shocks = np.einsum("hi,ij,hj->h", moving, covariance, moving)
        growth = np.sqrt(np.cumsum(shocks))
        return _Fitted(used, response, growth)

    def answer(
        self, fitted: _Fitted, inputs: Mapping[str, Array], anchor: int, rows: Rows, steps: int
    ) -> tuple[Array, Array]:
        if steps > self.longest:
            raise MemberError(f"answers at most {self.longest} steps, asked for {steps}")
        sigma = inputs["sigma"][rows]
        centre = np.empty((len(rows), steps))
        for n, row in enumerate(rows):
            recent = [
                np.concatenate([inputs["spot"][[row - lag]], inputs["drivers"][row - lag][list(fitted.used)]])
                for lag in range(LAGS)
            ]
            centre[n] = fitted.response[:steps] @ np.concatenate(recent)
        return centre * sigma[:, None], sigma[:, None] * fitted.growth[:steps]
