"""Gradient-boosted trees on what a linear regression leaves of the next days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
BINS = 64


@dataclass(frozen=True)
class _Trees:
    """Trees that read which bin each feature is in."""

    edges: tuple[Array, ...]
    model: Any

    def predict(self, features: Array) -> Array:
        return np.asarray(self.model.predict(_binned(features, self.edges)))


@dataclass(frozen=True)
class _Fitted:
    days: DayRegression
    trees: tuple[_Trees, ...]
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
        trees: list[_Trees] = []
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
                max_bins=BINS,
                early_stopping=False,
                random_state=0,
            )
            features, weights = inputs["features"][rows], np.mean(sigma) / sigma
            edges = tuple(_edges(column, weights) for column in features.T)
            model.fit(_binned(features, edges), residual, sample_weight=weights)
            trees.append(_Trees(edges, model))
            growth = NORMAL_SIZE * float(np.mean(np.abs(residual) / sigma))
        return _Fitted(days, tuple(trees), growth)

    def answer(
        self, fitted: _Fitted, inputs: Mapping[str, Array], anchor: int, rows: Rows, steps: int
    ) -> tuple[Array, Array]:
        one, two, three = fitted.days.centre(inputs, rows).T
        first, last = (trees.predict(inputs["features"][rows]) for trees in fitted.trees)
        path = [one + first, two + (first + last) / 2] + [three + last] * max(steps - 2, 0)
        h = np.arange(1, steps + 1)
        growth = np.sqrt(np.where(h <= 3, h * fitted.growth**2 / 3, fitted.growth**2 + h - 3))
        return np.column_stack(path[:steps]), spread_ahead(inputs, rows, growth)


def _edges(values: Array, weights: Array) -> Array:
    """What parts `values` [N] into at most `BINS` bins of equal weight, none of them empty.

    The trees are those that scikit-learn would grow on the values, by its own bins. It sorts them anew for each edge,
    which takes longer than the trees do.
    """
    order = np.argsort(values, kind="stable")
    ordered, below = values[order], np.cumsum(weights[order])
    distinct = np.unique(ordered)
    if len(distinct) <= BINS:
        return np.asarray((distinct[:-1] + distinct[1:]) / 2)
    # The weighted quantiles of definition 2 of Hyndman and Fan (1996).
    wanted = np.linspace(0, 100, BINS + 1)[1:-1] / 100 * below[-1]
    at = np.minimum(np.searchsorted(below, wanted), len(values) - 1)
    between = below[at] - wanted <= np.finfo(float).eps
    following = ordered[np.minimum(at + 1, len(values) - 1)]
    edges = np.unique(np.where(between, (ordered[at] + following) / 2, ordered[at]))
    return edges[np.unique(np.searchsorted(edges, distinct))[:-1]]


def _binned(features: Array, edges: Sequence[Array]) -> Array:
    """Bin [N, K] of each feature: how many edges are below it."""
    return np.column_stack([np.searchsorted(e, x) for e, x in zip(edges, features.T, strict=True)]).astype(
        float
    )


def _shift(values: Array, rows: int) -> Array:
    return np.vstack([np.zeros((rows, values.shape[1])), values[: len(values) - rows]])
