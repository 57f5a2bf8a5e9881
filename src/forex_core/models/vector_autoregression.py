"""Vector autoregression of the spot and its drivers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forex_core.errors import MemberError
from forex_core.models.base import Cadence, Refitted, Rows
from forex_core.models.driver_regression import kept_share
from forex_core.models.features import (
    driver_inputs,
    first_moved,
    lagged,
    rowwise_products,
    spread_ahead,
    usable,
)
from forex_core.types import Array, MarketBundle

LAGS = 3
PERCENT = 100.0  # moves of a size that the solver likes


@dataclass(frozen=True)
class _Fitted:
    used: tuple[int, ...]
    response: Array  # [longest, LAGS * K] cumulated return per unit of each lagged move
    growth: Array  # [longest] standard deviation of the cumulated return, over σ_t


class VectorAutoregression(Refitted[_Fitted]):
    """VAR(3) of the carried moves of spot and drivers (statsmodels), per month on the last 2,500 rows.

    Its answer is shrunk towards no move by `driver_regression.kept_share`. The shape of the variance of the cumulated
    return over the steps follows from the moving-average form (Lütkepohl 2005, section 2.2.2); its level is that of
    today's volatility.
    """

    name = "var"
    columns: tuple[str, ...] = ("spot", "drivers")
    libraries: tuple[str, ...] = ("statsmodels.tsa.vector_ar.var_model",)
    cadence: Cadence = "month"
    window = 2500
    longest = 64

    def prepare(self, bundle: MarketBundle) -> Mapping[str, Array]:
        return driver_inputs(bundle)

    def fit(self, inputs: Mapping[str, Array], anchor: int) -> _Fitted:
        from statsmodels.tsa.vector_ar.var_model import VAR

        used = usable(inputs, anchor, self.min_rows)
        if len(used) == 1:
            raise MemberError("no driver has enough history; it needs at least one besides the spot")
        first = max(first_moved(inputs, anchor), anchor + 1 - self.window)
        if anchor + 1 - first < self.min_rows // 2:
            raise MemberError(f"only {max(anchor + 1 - first, 0)} rows since the price began to move")
        sample = inputs["carried"][first : anchor + 1][:, used] * PERCENT
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
        fit, residual = np.asarray(result.fittedvalues)[:, 0], np.asarray(result.resid)[:, 0]
        noise = float(np.mean(residual**2)) * LAGS * width / len(fit)
        response *= kept_share(float(np.mean(fit**2)), noise)
        shocks = np.einsum("hi,ij,hj->h", moving, covariance, moving)
        seen = PERCENT * inputs["sigma"][first : anchor + 1]
        growth = np.sqrt(np.cumsum(shocks) / np.mean(seen**2))
        return _Fitted(used, response, growth)

    def answer(
        self, fitted: _Fitted, inputs: Mapping[str, Array], anchor: int, rows: Rows, steps: int
    ) -> tuple[Array, Array]:
        if steps > self.longest:
            raise MemberError(f"answers at most {self.longest} steps, asked for {steps}")
        recent = lagged(inputs["carried"][:, fitted.used], rows, LAGS)
        centre = rowwise_products(recent, fitted.response[:steps])
        return centre, spread_ahead(inputs, rows, fitted.growth[:steps])
