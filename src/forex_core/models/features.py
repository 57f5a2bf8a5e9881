"""Causal features of a bundle: what row t holds depends on rows up to t alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from forex_core.errors import MemberError
from forex_core.models.base import Rows, ewma
from forex_core.types import PERCENT_PER_YEAR, Array, MarketBundle, Mask

WARM_ROWS = 60
CLIP_SIGMAS = 6.0


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


def standardised(series: Array) -> Array:
    """[T] each value over the volatility known the row before, clipped at 6; 0 where either is not known."""
    known = np.nan_to_num(series, nan=0.0)
    first = int(np.argmax(~np.isnan(series))) if not np.isnan(series).all() else len(series)
    scale = np.full(len(series), np.nan)
    if first < len(series):
        scale[first:] = np.sqrt(ewma(known[first:] ** 2, 0.98, WARM_ROWS))
    before = np.concatenate([[np.nan], scale[:-1]])
    usable = before > 0
    out = np.zeros(len(series))
    np.divide(known, before, out=out, where=usable)
    return np.clip(out, -CLIP_SIGMAS, CLIP_SIGMAS)


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
        "copper_return": standardised(raw),
        "copper_volatility": np.nan_to_num(vol, nan=0.0),
        "copper_trend": momentum(returns, 20),
        "copper_rsi": relative_strength(returns),
        "copper_correlation": rolling_correlation(returns, log_returns(bundle)),
    }


def driver_inputs(bundle: MarketBundle) -> dict[str, Array]:
    """What members read that learn from drivers, on rows [T].

    `spot` and `drivers` [T, K] are moves over their own volatility, 0 where not known; `moves` [T, K] counts the
    rows on which each driver has moved so far; `sigma` is the volatility of the returns, `returns` as they are.
    Policy rates move in steps months apart; their changes are left out.
    """
    returns = log_returns(bundle)
    raw = changes(bundle)
    prices = [k for k, unit in enumerate(bundle.driver_units) if unit != PERCENT_PER_YEAR]
    drivers = np.zeros((len(returns), len(prices)))
    for column, k in enumerate(prices):
        drivers[:, column] = standardised(raw[:, k])
    return {
        "spot": standardised(returns),
        "drivers": drivers,
        "moves": np.cumsum(drivers != 0, axis=0).astype(np.float64),
        "sigma": volatility(returns),
        "returns": returns,
    }


def usable_drivers(inputs: Mapping[str, Array], anchor: int, min_rows: int) -> tuple[int, ...]:
    """Columns of drivers that moved on half of `min_rows` rows or more up to `anchor`, and on most of the last 60.

    A driver that starts late counts as not moving before: its column is 0 there, its mean, so it costs the others
    none of their history.

    Raises:
        MemberError: when there is none.
    """
    moves = inputs["moves"]
    enough = moves[anchor] >= min_rows // 2
    recent = moves[anchor] - moves[max(0, anchor - 60)] > 30
    used = tuple(int(k) for k in np.flatnonzero(enough & recent))
    if not used:
        raise MemberError("no driver has enough history; it needs at least one besides the spot")
    return used


def first_moved(inputs: Mapping[str, Array]) -> int:
    """First row on which the spot has a move over a known volatility."""
    return int(np.argmax(inputs["spot"] != 0))


def alive(sigma: Array) -> Mask:
    """[n] rows whose volatility is more than a tenth of an ordinary one: not those inside a long hole.

    Returns over the volatility of a stretch without quotes have no scale.
    """
    known = np.nan_to_num(sigma, nan=0.0)
    return np.asarray(known > 0.1 * float(np.quantile(known, 0.75)))


def targets(inputs: Mapping[str, Array], rows: Rows, step: int) -> Array:
    """[n] return over the `step` rows after each of `rows`, over its volatility, clipped at 4 √step.

    Rounded, so that what is learned does not hang on the last bit of a logarithm.
    """
    total = np.concatenate([[0.0], np.cumsum(inputs["returns"])])
    scaled = (total[rows + step + 1] - total[rows + 1]) / inputs["sigma"][rows]
    limit = 4 * np.sqrt(step)
    return np.asarray(np.clip(np.round(scaled, 9), -limit, limit))
