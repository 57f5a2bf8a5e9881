"""Causal features of a bundle: what row t holds depends on rows up to t alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from forex_core.errors import MemberError
from forex_core.models.base import Rows, ewma
from forex_core.types import PERCENT_PER_YEAR, Array, MarketBundle, Mask

WARM_ROWS = 60
LIMIT_SIGMAS = 3.5
FAST_DECAY, SLOW_DECAY = 0.95, 0.993
FAST_SHARE, REVERSION = 0.6, 0.95
CARRIED_ROWS = 10
NORMAL_SIZE = float(np.sqrt(np.pi / 2))
"""Standard deviation of a centred normal over its mean absolute value."""


def log_returns(bundle: MarketBundle) -> Array:
    """[T] r_t = ln(S_t / S_{t-1}), row 0 is 0."""
    return np.concatenate([[0.0], np.diff(np.log(bundle.spot))])


def changes(bundle: MarketBundle) -> Array:
    """[T, K] change of each driver from the row before; NaN where either is not known.

    For a rate the difference in percentage points; for a price the symmetric relative change
    2 (p_t - p_{t-1}) / (|p_t| + |p_{t-1}|), which is the log return to third order and stays bounded where a
    price is zero or negative.
    """
    values = bundle.drivers
    out = np.full(values.shape, np.nan)
    for k, unit in enumerate(bundle.driver_units):
        now, before = values[1:, k], values[:-1, k]
        if unit == PERCENT_PER_YEAR:
            out[1:, k] = now - before
        else:
            size = np.abs(now) + np.abs(before)
            out[1:, k] = np.where(size == 0, 0.0, 2 * (now - before) / np.where(size == 0, 1.0, size))
    return out


def volatility(returns: Array, decay: float = 0.97) -> Array:
    """[T] exponentially weighted standard deviation of `returns`, NaN before its warm-up."""
    return np.asarray(np.sqrt(ewma(returns**2, decay, WARM_ROWS)))


def mean_size(returns: Array, decay: float) -> Array:
    """[T] standard deviation of `returns` from their exponentially weighted mean size, NaN before its warm-up.

    √(π/2) E|r| is the deviation of a normal; sizes are hurt less than squares by a single wild day (Davidian and
    Carroll 1987).
    """
    return np.asarray(NORMAL_SIZE * ewma(np.abs(returns), decay, WARM_ROWS))


def volatility_ahead(fast: Array, slow: Array, steps: int) -> Array:
    """[N, H] standard deviation of the return cumulated over 1 … H steps, of uncorrelated returns.

    The variance of a step starts as a mixture of a fast and a slow estimate, FAST_SHARE of the first, and falls back
    on the slow one by the factor REVERSION a step, as in a component GARCH (Engle and Lee 1999).

    Args:
        fast: [N] fast estimate of the deviation of one step.
        slow: [N] slow one.
    """
    kept = FAST_SHARE * REVERSION ** np.arange(steps)
    variance = slow[:, None] ** 2 + (fast**2 - slow**2)[:, None] * kept
    return np.asarray(np.sqrt(np.cumsum(variance, axis=1)))


def spread_ahead(inputs: Mapping[str, Array], rows: Rows, growth: Array) -> Array:
    """[N, H] deviation of the cumulated return from each of `rows`.

    Args:
        inputs: `fast` and `slow` [T], as `driver_inputs` gives them.
        growth: [H] deviation over σ_t that a steady volatility would give; √h for uncorrelated returns.
    """
    ahead = volatility_ahead(inputs["fast"][rows], inputs["slow"][rows], len(growth))
    return np.asarray(ahead * growth / np.sqrt(np.arange(1, len(growth) + 1)))


def bounded(series: Array) -> Array:
    """[T] each value kept within 3.5 times the volatility known the row before; 0 where either is not known.

    One print (oil on 20 April 2020) must not rule a regression for years.
    """
    known = np.nan_to_num(series, nan=0.0)
    first = int(np.argmax(~np.isnan(series))) if not np.isnan(series).all() else len(series)
    limit = np.zeros(len(series))
    if first < len(series):
        scale = np.sqrt(ewma(known[first:] ** 2, 0.98, WARM_ROWS))
        limit[first + 1 :] = LIMIT_SIGMAS * np.nan_to_num(scale[:-1], nan=0.0)
    return np.clip(known, -limit, limit)


def carried(moves: Array, still: Mask) -> Array:
    """[T, K] moves, added up from the row before the spot stood still: what its next close will catch up with.

    The spot's own column, where there is one, keeps its last move alike. A close that is equal to the one before
    counts as still, be it stale or not.

    From the eleventh still row on a row holds its own moves alone: that is a price that is not quoted, not one that is
    late, and the moves of months say nothing of the next days.
    """
    out = moves.copy()
    waited = 0
    for t in range(1, len(moves)):
        waited = waited + 1 if still[t] else 0
        if 0 < waited <= CARRIED_ROWS:
            out[t] += out[t - 1]
    return out


def momentum(returns: Array, rows: int) -> Array:
    """[T] sum of the last `rows` returns over its expected size; 0 in the warm-up."""
    total = np.concatenate([[0.0], np.cumsum(returns)])
    start = np.maximum(np.arange(len(returns)) + 1 - rows, 0)
    size = volatility(returns) * np.sqrt(rows)
    out = np.zeros(len(returns))
    np.divide(total[1:] - total[start], size, out=out, where=size > 0)
    return out


def relative_strength(returns: Array, rows: int = 14) -> Array:
    """[T] Wilder's relative strength index in [0, 100]; 50 where nothing moved (Wilder 1978, section VI)."""
    gains, losses = np.maximum(returns, 0.0), np.maximum(-returns, 0.0)
    up, down = ewma(gains, 1 - 1 / rows, rows), ewma(losses, 1 - 1 / rows, rows)
    total = up + down
    out = np.full(len(returns), 50.0)
    np.divide(100 * up, total, out=out, where=total > 0)
    return out


def rolling_correlation(a: Array, b: Array, decay: float = 0.97) -> Array:
    """[T] exponentially weighted correlation of two zero-mean series, 0 in the warm-up."""
    cross, va, vb = (ewma(x, decay, WARM_ROWS) for x in (a * b, a * a, b * b))
    size = np.sqrt(va * vb)
    out = np.zeros(len(a))
    np.divide(cross, size, out=out, where=size > 0)
    return out


def copper_features(bundle: MarketBundle) -> dict[str, Array]:
    """Copper's return, volatility, trend, RSI and correlation with the spot [T] each; empty without copper."""
    names = [name.lower() for name in bundle.driver_names]
    if "copper" not in names:
        return {}
    raw = changes(bundle)[:, names.index("copper")]
    returns = np.nan_to_num(raw, nan=0.0)
    vol = volatility(returns)
    return {
        "copper_return": bounded(raw),
        "copper_volatility": np.nan_to_num(vol, nan=0.0),
        "copper_trend": momentum(returns, 20),
        "copper_rsi": relative_strength(returns),
        "copper_correlation": rolling_correlation(returns, log_returns(bundle)),
    }


def driver_inputs(bundle: MarketBundle) -> dict[str, Array]:
    """What members read that learn from drivers, on rows [T]; column 0 is the spot, the others price drivers.

    `moves` [T, 1 + K] bounded relative changes; `carried` the same, added up while the spot stood still; `counts`
    [T, 1 + K] how often each has moved so far; `sigma` [T] deviation of the next return, `fast`
    and `slow` [T] what it is made of (`volatility_ahead`); `returns` [T] as they are. Policy rates move in steps
    months apart; their changes are left out.
    """
    returns = log_returns(bundle)
    fast, slow = mean_size(returns, FAST_DECAY), mean_size(returns, SLOW_DECAY)
    raw = changes(bundle)
    prices = [k for k, unit in enumerate(bundle.driver_units) if unit != PERCENT_PER_YEAR]
    # Rounded, so that what is learned does not hang on the last bit of a logarithm.
    bound = [bounded(series) for series in (returns, *raw[:, prices].T)]
    moves = np.asarray(np.round(np.column_stack(bound), 9), dtype=np.float64)
    return {
        "moves": moves,
        "carried": carried(moves, returns == 0),
        "counts": np.cumsum(moves != 0, axis=0).astype(np.float64),
        "sigma": volatility_ahead(fast, slow, 1)[:, 0],
        "fast": fast,
        "slow": slow,
        "returns": returns,
    }


def usable(inputs: Mapping[str, Array], anchor: int, min_rows: int) -> tuple[int, ...]:
    """The spot's column and those of drivers that moved on half of `min_rows` rows or more and on most of the last 60.

    A driver that starts late counts as not moving before: its column is 0 there, its mean, so it costs the others
    none of their history.
    """
    counts = inputs["counts"]
    enough = counts[anchor] >= min_rows // 2
    recent = counts[anchor] - counts[max(0, anchor - 60)] > 30
    return (0, *(int(k) for k in np.flatnonzero(enough & recent) if k > 0))


def first_moved(inputs: Mapping[str, Array], anchor: int) -> int:
    """First row up to `anchor` on which the spot has a move within a known bound; the row after it without one."""
    moved = np.flatnonzero(inputs["moves"][: anchor + 1, 0])
    return int(moved[0]) if len(moved) else anchor + 1


def alive(sigma: Array) -> Mask:
    """[n] rows whose volatility is more than a tenth of an ordinary one: not those inside a long hole.

    Returns over the volatility of a stretch without quotes have no scale.
    """
    known = np.nan_to_num(sigma, nan=0.0)
    return np.asarray(known > 0.1 * float(np.quantile(known, 0.75)))


def learning_rows(inputs: Mapping[str, Array], anchor: int, min_rows: int, lags: int) -> Rows:
    """Rows before `anchor` that a regression on `lags` rows of moves may learn from.

    Raises:
        MemberError: when they are fewer than half of `min_rows`.
    """
    rows = np.arange(first_moved(inputs, anchor) + lags, anchor)
    rows = rows[alive(inputs["sigma"][rows])] if len(rows) else rows
    if len(rows) < min_rows // 2:
        raise MemberError(f"only {len(rows)} rows since the price began to move")
    return rows


def targets(inputs: Mapping[str, Array], rows: Rows, step: int) -> Array:
    """[n] log return over the `step` rows after each of `rows`, kept within 4 σ √step, rounded as moves are."""
    total = np.concatenate([[0.0], np.cumsum(inputs["returns"])])
    limit = 4 * np.sqrt(step) * inputs["sigma"][rows]
    return np.asarray(np.clip(np.round(total[rows + step + 1] - total[rows + 1], 9), -limit, limit))


def lagged(values: Array, rows: Rows, lags: int) -> Array:
    """[N, lags * K] the last `lags` rows of `values` [T, K] at each of `rows`, the latest first."""
    return np.concatenate([values[rows - lag] for lag in range(lags)], axis=1)


def rowwise_products(x: Array, coefficients: Array) -> Array:
    """[N, C] x [N, F] times coefficients [C, F], with the same bits for a row alone and among others.

    A matrix product sums in another order when it is given other rows.
    """
    return np.asarray((np.ascontiguousarray(x)[:, None, :] * coefficients).sum(axis=2))
