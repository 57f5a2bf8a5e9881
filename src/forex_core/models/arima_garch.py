"""ARIMA on log returns with GARCH volatility."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forex_core.errors import MemberError
from forex_core.models.base import Refitted, Rows
from forex_core.models.features import log_returns
from forex_core.types import Array, MarketBundle

PERCENT = 100.0  # both libraries converge best on returns in percent


@dataclass(frozen=True)
class _Fitted:
    ar: float
    ma: float
    omega: float
    alpha: float
    beta: float
    start_variance: float


class ArimaGarch(Refitted[_Fitted]):
    """ARMA(1, 1) of log returns (statsmodels, no drift) with GARCH(1, 1), Student t (arch), per quarter.

    The mean and variance of the path are exact: with ψ-weights of the return, the variance of the cumulated
    return over h steps is Σ_i (Σ_{k≤h-i} ψ_k)² E σ²_{t+i} (Hamilton 1994, section 4.2; Bollerslev 1986).
    """

    name = "arima_garch"
    libraries: tuple[str, ...] = ("arch", "statsmodels.tsa.arima.model")
    window = 1250

    def prepare(self, bundle: MarketBundle) -> Mapping[str, Array]:
        # Rounded far below any tick: the likelihoods are flat, and the last bits of a logarithm, which vary with
        # the unit of the price, would end up in the fourth digit of a parameter.
        return {"returns": np.round(log_returns(bundle), 8)}

    def fit(self, inputs: Mapping[str, Array], anchor: int) -> _Fitted:
        # Imported on first use: the two libraries take over a second to load.
        from arch import arch_model
        from statsmodels.tsa.arima.model import ARIMA

        returns = inputs["returns"][max(1, anchor + 1 - self.window) : anchor + 1] * PERCENT
        with warnings.catch_warnings():
            # Start values outside the stationary region are replaced by the library, with a warning each.
            warnings.simplefilter("ignore")
            try:
                # The numbers alone: states and errors of estimates, which nobody asks for, take 70 MB.
                arma = ARIMA(returns, order=(1, 0, 1), trend="n")
                ar, ma, _ = (float(p) for p in arma.fit(method="innovations_mle", return_params=True))
                errors = _filter(returns, ar, ma)
                garch = arch_model(errors, mean="Zero", vol="GARCH", p=1, q=1, dist="t", rescale=False)
                result = garch.fit(disp="off", show_warning=False, tol=1e-12)
            except (np.linalg.LinAlgError, ValueError) as error:
                raise MemberError(f"no ARMA-GARCH estimate at row {anchor}: {error}") from error
        omega, alpha, beta = (float(result.params[k]) for k in ("omega", "alpha[1]", "beta[1]"))
        if not np.isfinite([ar, ma, omega, alpha, beta]).all() or omega <= 0:
            raise MemberError(f"the ARMA-GARCH estimate at row {anchor} did not converge")
        # A unit root in the variance has no long-run level to return to.
        alpha, beta = (alpha, beta) if alpha + beta < 0.999 else (alpha * 0.999, beta * 0.999)
        return _Fitted(ar, ma, omega, alpha, beta, float(np.var(returns)))

    def answer(
        self, fitted: _Fitted, inputs: Mapping[str, Array], anchor: int, rows: Rows, steps: int
    ) -> tuple[Array, Array]:
        start = max(1, anchor + 1 - self.window)
        returns = inputs["returns"][start : int(rows.max()) + 1] * PERCENT
        errors = _filter(returns, fitted.ar, fitted.ma)
        variance = np.empty(len(errors) + 1)
        variance[0] = fitted.start_variance
        level = fitted.start_variance
        for t, square in enumerate((errors**2).tolist()):
            level = fitted.omega + fitted.alpha * square + fitted.beta * level
            variance[t + 1] = level
        at = rows - start
        h = np.arange(steps)
        first = fitted.ar * returns[at] + fitted.ma * errors[at]
        centre = first[:, None] * np.cumsum(fitted.ar**h)
        persistence = fitted.alpha + fitted.beta
        long_run = fitted.omega / (1 - persistence)
        ahead = long_run + (variance[at + 1] - long_run)[:, None] * persistence**h
        psi = np.concatenate([[1.0], (fitted.ar + fitted.ma) * fitted.ar ** np.arange(steps - 1)])
        response = np.cumsum(psi) ** 2
        total = np.empty_like(ahead)
        for step in range(steps):
            total[:, step] = (ahead[:, : step + 1] * response[step::-1]).sum(axis=1)
        return centre / PERCENT, np.sqrt(total) / PERCENT


def _filter(returns: Array, ar: float, ma: float) -> Array:
    """One-step errors e_t = r_t - φ r_{t-1} - θ e_{t-1}, started at zero."""
    errors = np.empty(len(returns))
    before, error = 0.0, 0.0
    for t, value in enumerate(returns.tolist()):
        error = value - ar * before - ma * error
        errors[t] = error
        before = value
    return errors
