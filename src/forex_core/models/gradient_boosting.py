"""Gradient-boosted trees on what a linear regression leaves of the next days."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from forex_core.models.base import Cadence, Refitted, Rows
from forex_core.models.driver_regression import LAGS, DayRegression
from forex_core.models.features import (
    NORMAL_SIZE,
    copper_features,
    driver_inputs,
    learning_rows,
    log_returns,
    momentum,
    relative_strength,
    spread_ahead,
    targets,
    usable,
    volatility,
)
from forex_core.types import Array, MarketBundle

TARGET_STEPS = (1, 3)


@dataclass(frozen=True)
class _Fitted:
    days: DayRegression
    trees: tuple[Any, ...]
    growth: float  # deviation of the residual over the last of TARGET_STEPS, over σ_t


class GradientBoosting(Refitted[_Fitted]):
    """A `DayRegression`, and histogram gradient boosting (scikit-learn) of its residual over 1 and 3 steps, per year.

    Trees read the recent moves, trends and volatility of spot and drivers; rows count by the inverse of their
    volatility, as in the regression. Shallow trees, few of them and large leaves: daily returns hold little that
    can be learned, and what a larger model finds there is noise. Beyond three steps the path is flat.
    """

    name = "gradient_boosting"
    columns: tuple[str, ...] = ("spot", "drivers")
    libraries: tuple[str, ...] = ("sklearn.ensemble",)
    cadence: Cadence = "year"

    def prepare(self, bundle: MarketBundle) -> Mapping[str, Array]:
        inputs = driver_inputs(bundle)
        returns = log_returns(bundle)
        fast, slow = volatility(returns, 0.94), volatility(returns, 0.99)
        columns = [
            *(momentum(returns, rows) for rows in (5, 20, 60)),
            relative_strength(returns),
            fast / np.maximum(slow, 1e-12),
            *copper_features(bundle).values(),
        ]
        for lag in range(LAGS):
            columns.extend(_shift(inputs["carried"], lag).T)
        # Rounded, so that a tree's split does not hang on the last bit of a logarithm.
        features = np.round(np.nan_to_num(np.column_stack(columns), nan=0.0), 9)
        return inputs | {"features": features}

    def fit(self, inputs: Mapping[str, Array], anchor: int) -> _Fitted:
        from sklearn.ensemble import HistGradientBoostingRegressor

        days = DayRegression.estimated(inputs, anchor, usable(inputs, anchor, self.min_rows), self.min_rows)
        known = learning_rows(inputs, anchor, self.min_rows, LAGS)
        trees: list[Any] = []
        for step in TARGET_STEPS:
            rows = known[known + step <= anchor]
            sigma = inputs["sigma"][rows]
            residual = targets(inputs, rows, step) - days.centre(inputs, rows)[:, step - 1]
            model = HistGradientBoostingRegressor(
                max_iter=60,
                learning_rate=0.025,
                max_leaf_nodes=6,
                min_samples_leaf=max(20, len(rows) // 40),
                l2_regularization=20.0,
                max_bins=64,
                early_stopping=False,
                random_state=0,
            )
            trees.append(model.fit(inputs["features"][rows], residual, sample_weight=np.mean(sigma) / sigma))
            growth = NORMAL_SIZE * float(np.mean(np.abs(residual) / sigma))
        return _Fitted(days, tuple(trees), growth)

    def answer(
        self, fitted: _Fitted, inputs: Mapping[str, Array], anchor: int, rows: Rows, steps: int
    ) -> tuple[Array, Array]:
        one, two, three = fitted.days.centre(inputs, rows).T
        first, last = (model.predict(inputs["features"][rows]) for model in fitted.trees)
        path = [one + first, two + (first + last) / 2] + [three + last] * max(steps - 2, 0)
        h = np.arange(1, steps + 1)
        growth = np.sqrt(np.where(h <= 3, h * fitted.growth**2 / 3, fitted.growth**2 + h - 3))
        return np.column_stack(path[:steps]), spread_ahead(inputs, rows, growth)


def _shift(values: Array, rows: int) -> Array:
    return np.vstack([np.zeros((rows, values.shape[1])), values[: len(values) - rows]])
