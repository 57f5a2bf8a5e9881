"""Exponential smoothing of the log price: the damped trend (ETS) and the Theta method."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forex_core.errors import MemberError
from forex_core.models.base import Cadence, Refitted, Rows, ewma
from forex_core.models.features import WARM_ROWS
from forex_core.types import Array, MarketBundle

ERROR_DECAY = 0.975


@dataclass(frozen=True)
class _Damped:
    """`level` and `trend` before the first row of the window, the level as its distance from that row's log price."""

    level: float
    trend: float
    alpha: float
    beta: float
    phi: float


class DampedTrend(Refitted[_Damped]):
    """ETS(A, Ad, N) of the log price (statsmodels), re-estimated each year on the last 500 rows.

    Its variance at h is σ² (1 + Σ_{j<h} c_j²) with c_j = α + β (φ + … + φ^j) (Hyndman et al. 2008, table 6.1);
    σ is the exponentially weighted size of the one-step errors.
    """

    name = "ets"
    libraries: tuple[str, ...] = ("statsmodels.tsa.exponential_smoothing.ets",)
    cadence: Cadence = "year"
    window = 500

    def prepare(self, bundle: MarketBundle) -> Mapping[str, Array]:
        return {"log_price": np.log(bundle.spot)}

    def fit(self, inputs: Mapping[str, Array], anchor: int) -> _Damped:
        from statsmodels.tsa.exponential_smoothing.ets import ETSModel

        path = _window(inputs, anchor, self.window)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # convergence notes: the estimate is checked below
            try:
                # From the first row on: the search then takes the same steps whatever unit the price is in.
                model = ETSModel((path - path[0]) * 100, error="add", trend="add", damped_trend=True)
                p = dict(zip(model.param_names, model.fit(disp=False, maxiter=100).params, strict=True))
            except (np.linalg.LinAlgError, ValueError) as error:
                raise MemberError(f"no ETS estimate at row {anchor}: {error}") from error
        fitted = _Damped(
            float(p["initial_level"]) / 100,
            float(p["initial_trend"]) / 100,
            float(p["smoothing_level"]),
            float(p["smoothing_trend"]),
            float(p["damping_trend"]),
        )
        if not np.isfinite([fitted.level, fitted.trend, fitted.alpha, fitted.beta, fitted.phi]).all():
            raise MemberError(f"the ETS estimate at row {anchor} did not converge")
        return fitted

    def answer(
        self, fitted: _Damped, inputs: Mapping[str, Array], anchor: int, rows: Rows, steps: int
    ) -> tuple[Array, Array]:
        start = max(0, anchor + 1 - self.window)
        path = inputs["log_price"][start : int(rows.max()) + 1]
        base = float(path[0])
        level, trend = fitted.level, fitted.trend
        levels, trends, errors = np.empty(len(path)), np.empty(len(path)), np.empty(len(path))
        for t, value in enumerate((path - base).tolist()):
            expected = level + fitted.phi * trend
            error = value - expected
            level = expected + fitted.alpha * error
            trend = fitted.phi * trend + fitted.beta * error
            levels[t], trends[t], errors[t] = level, trend, error
        at = rows - start
        damping = np.cumsum(fitted.phi ** np.arange(1, steps + 1))
        centre = (levels[at] - (path[at] - base))[:, None] + trends[at][:, None] * damping
        response = fitted.alpha + fitted.beta * np.concatenate([[0.0], damping[: steps - 1]])
        growth = np.sqrt(1 + np.concatenate([[0.0], np.cumsum(response[1:] ** 2)]))
        return centre, _error_size(errors)[at][:, None] * growth


@dataclass(frozen=True)
class _Theta:
    alpha: float
    drift: float


class Theta(Refitted[_Theta]):
    """The Theta method on the log price (statsmodels), re-estimated each year on the last 750 rows.

    Simple exponential smoothing plus half the slope of the linear trend (Assimakopoulos and Nikolopoulos 2000;
    in the form of Hyndman and Billah 2003), with the variance of simple smoothing, σ² (1 + (h - 1) α²).
    """

    name = "theta"
    libraries: tuple[str, ...] = ("statsmodels.tsa.forecasting.theta",)
    cadence: Cadence = "year"
    window = 750

    def prepare(self, bundle: MarketBundle) -> Mapping[str, Array]:
        return {"log_price": np.log(bundle.spot)}

    def fit(self, inputs: Mapping[str, Array], anchor: int) -> _Theta:
        import pandas as pd
        from statsmodels.tsa.forecasting.theta import ThetaModel

        path = _window(inputs, anchor, self.window)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                result = ThetaModel(pd.Series(path - path[0]), period=1, deseasonalize=False).fit(disp=False)
                drift, alpha = float(result.params["b0"]), float(result.params["alpha"])
            except (np.linalg.LinAlgError, ValueError) as error:
                raise MemberError(f"no Theta estimate at row {anchor}: {error}") from error
        if not np.isfinite([drift, alpha]).all():
            raise MemberError(f"the Theta estimate at row {anchor} did not converge")
        return _Theta(min(max(alpha, 0.01), 1.0), drift)

    def answer(
        self, fitted: _Theta, inputs: Mapping[str, Array], anchor: int, rows: Rows, steps: int
    ) -> tuple[Array, Array]:
        start = max(0, anchor + 1 - self.window)
        path = inputs["log_price"][start : int(rows.max()) + 1]
        base = float(path[0])
        level = 0.0
        levels, errors = np.empty(len(path)), np.empty(len(path))
        for t, value in enumerate((path - base).tolist()):
            errors[t] = value - level
            level += fitted.alpha * errors[t]
            levels[t] = level
        at = rows - start
        h = np.arange(1, steps + 1)
        lead = h - 1 + 1 / fitted.alpha
        centre = (levels[at] - (path[at] - base))[:, None] + 0.5 * fitted.drift * lead
        growth = np.sqrt(1 + (h - 1) * fitted.alpha**2)
        return centre, _error_size(errors)[at][:, None] * growth


def _window(inputs: Mapping[str, Array], anchor: int, rows: int) -> Array:
    return inputs["log_price"][max(0, anchor + 1 - rows) : anchor + 1]


def _error_size(errors: Array) -> Array:
    """Exponentially weighted size of the one-step errors; the first is the start-up and is not counted."""
    return np.asarray(np.sqrt(ewma(errors**2, ERROR_DECAY, WARM_ROWS)))
