"""Vector autoregression of the spot and its drivers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forex_core.errors import MemberError
from forex_core.models.base import Cadence, Refitted, Rows
from forex_core.models.features import changes, log_returns, standardised, volatility
from forex_core.types import PERCENT_PER_YEAR, Array, MarketBundle

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
        first = max(first_known(inputs, used), anchor + 1 - self.window)
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
        growth = np.sqrt(np.cumsum(shocks) / float(np.var(sample[:, 0])))
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


def driver_inputs(bundle: MarketBundle) -> dict[str, Array]:
    """What the driver members read: spot returns and driver changes over their volatility, and σ_t.

    Policy rates move in steps months apart; their changes are left to the slow members.
    """
    returns = log_returns(bundle)
    moves = changes(bundle)
    prices = [k for k, unit in enumerate(bundle.driver_units) if unit != PERCENT_PER_YEAR]
    known = ~np.isnan(moves[:, prices])
    return {
        "spot": standardised(returns),
        "drivers": np.column_stack([standardised(moves[:, k]) for k in prices])
        if prices
        else np.empty((len(returns), 0)),
        "known_rows": np.cumsum(known, axis=0).astype(np.float64),
        "known": known.astype(np.float64),
        "sigma": volatility(returns),
        "returns": returns,
    }


def usable_drivers(inputs: Mapping[str, Array], anchor: int, min_rows: int) -> tuple[int, ...]:
    """Columns known on at least `min_rows` rows up to `anchor`, and on most of the last 60.

    Raises:
        MemberError: when there is none.
    """
    enough = inputs["known_rows"][anchor] >= min_rows
    recent = inputs["known"][max(0, anchor - 59) : anchor + 1].mean(axis=0) > 0.5
    used = tuple(int(k) for k in np.flatnonzero(enough & recent))
    if not used:
        raise MemberError("no driver has enough history; it needs at least one besides the spot")
    return used


def first_known(inputs: Mapping[str, Array], used: tuple[int, ...]) -> int:
    """First row at which every driver of `used` moves and the volatilities have warmed up."""
    started = [int(np.argmax(inputs["drivers"][:, k] != 0)) for k in used]
    return max(int(np.argmax(inputs["spot"] != 0)), *started)
