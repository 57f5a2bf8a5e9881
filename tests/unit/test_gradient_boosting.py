"""The bins of the trees: those by which scikit-learn grows the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor

from forex_core.models.gradient_boosting import BINS, _binned, _edges


def features(seed: int, rows: int, decimals: int) -> npt.NDArray[np.float64]:
    """With ties, the more the fewer decimals, a feature that stands still and one of two values."""
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [
            np.round(rng.standard_t(3, (rows, 3)), decimals),
            np.full(rows, 0.25),
            rng.integers(0, 2, rows),
        ]
    )


@pytest.mark.slow
@settings(max_examples=10)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(80, 900),
    decimals=st.integers(0, 9),
    even=st.booleans(),
)
def test_trees_on_bins_are_those_of_scikit_learn_on_values(
    seed: int, rows: int, decimals: int, even: bool
) -> None:
    rng = np.random.default_rng(seed)
    known, asked = features(seed, rows, decimals), features(seed + 1, 200, decimals)
    weights = np.ones(rows) if even else rng.uniform(0.2, 3.0, rows)
    outcome = known[:, 0] * known[:, 1] + rng.normal(size=rows)
    edges = [_edges(column, weights) for column in known.T]

    def grown(values: npt.NDArray[np.float64]) -> HistGradientBoostingRegressor:
        model = HistGradientBoostingRegressor(
            max_iter=5, max_leaf_nodes=6, max_bins=BINS, early_stopping=False, random_state=0
        )
        return model.fit(values, outcome, sample_weight=weights)

    np.testing.assert_array_equal(
        grown(_binned(known, edges)).predict(_binned(asked, edges)), grown(known).predict(asked)
    )


@pytest.mark.parametrize("decimals", [0, 1, 2])
def test_no_bin_is_empty_however_many_values_are_alike(decimals: int) -> None:
    rng = np.random.default_rng(3)
    values = np.minimum(np.round(rng.normal(size=900), decimals), 1.0)
    edges = _edges(values, rng.uniform(0.5, 2.0, 900))
    assert np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1).min() > 0


def test_bins_have_the_same_weight() -> None:
    rng = np.random.default_rng(3)
    values, weights = rng.normal(size=5_000), rng.uniform(0.5, 2.0, 5_000)
    edges = _edges(values, weights)
    assert len(edges) == BINS - 1
    inside = np.bincount(np.searchsorted(edges, values), weights, minlength=BINS)
    assert inside == pytest.approx(weights.sum() / BINS, rel=0.03)
