"""Generated groups: a rate whose volatility moves as rates' do, and drivers some of which lead it.

Every draw comes from the generator that is handed over, so a batch is a function of its key. Axes: B tasks, K drivers,
T rows.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from forex_core.types import Array

BURN_IN = 100
"""Rows before the first that is kept, in which a volatility forgets where it began."""

LARGEST_LEAD_SHARE = 0.35
"""Of the variance of a rate's moves, the largest share that the drivers' earlier moves explain."""


def groups(draw: np.random.Generator, tasks: int, drivers: int, rows: int) -> tuple[Array, Array]:
    """Log price of a rate [B, T] and moves of its drivers [B, K, T].

    A driver's move of a row is known with the rate of that row. With a share of the tasks the rate answers what some
    drivers did one to three rows before; with all others they move together, or have nothing to do with each other.
    """
    length = rows + BURN_IN
    shocks = _shocks(draw, tasks, drivers + 1, length)
    common = _shocks(draw, tasks, 1, length)
    together = np.sqrt(draw.beta(1.0, 2.0, (tasks, drivers + 1, 1)))
    sign = draw.choice((-1.0, 1.0), (tasks, drivers + 1, 1))
    shocks = sign * together * common + np.sqrt(1 - together**2) * shocks
    own, others = shocks[:, 0], shocks[:, 1:]

    share = np.where(draw.random(tasks) < 0.6, LARGEST_LEAD_SHARE * draw.beta(1.0, 2.0, tasks), 0.0)
    led = _led(draw, others)
    moves = np.sqrt(1 - share)[:, None] * own + np.sqrt(share)[:, None] * led
    moves *= _volatility(draw, moves)
    moves = _with_memory(draw, moves)
    others = others * _volatility(draw, others.reshape(-1, length)).reshape(others.shape)
    level = _level(draw, moves)
    return level[:, BURN_IN:], others[:, :, BURN_IN:]


def struck_earlier(level: Array, part: Array) -> Array:
    """The log price [..., T] as of a time before the end of its row: by `part` [...] of the way back to the row before.

    What happened in the rest of the row is in the next one, and in what is struck at the row's end already.
    """
    earlier = np.concatenate([level[..., :1], level[..., :-1]], axis=-1)
    return np.asarray(level - part[..., None] * (level - earlier))


def _shocks(draw: np.random.Generator, tasks: int, series: int, length: int) -> Array:
    """[B, series, T] of variance one: Student's t of 3 to 30 degrees, and with a part of them jumps."""
    degrees = np.exp(draw.uniform(np.log(3.0), np.log(30.0), (tasks, series, 1)))
    shocks = draw.standard_t(np.broadcast_to(degrees, (tasks, series, length))) * np.sqrt(
        (degrees - 2) / degrees
    )
    jumpy = draw.random((tasks, series, 1)) < 0.15
    jumps = (draw.random(shocks.shape) < 0.006) * draw.normal(0.0, 4.0, shocks.shape) * jumpy
    return np.asarray((shocks + jumps) / np.sqrt(1 + 0.006 * 16.0 * jumpy))


def _led(draw: np.random.Generator, others: Array) -> Array:
    """[B, T] of variance one: what the drivers' moves of one to three rows before add to the rate's."""
    tasks, drivers, length = others.shape
    if drivers == 0:
        return np.zeros((tasks, length))
    leads = draw.normal(size=(tasks, drivers)) * (draw.random((tasks, drivers)) < 0.6)
    fading = draw.uniform(0.0, 0.6, (tasks, 1))
    total = np.zeros((tasks, length))
    for lag in (1, 2, 3):
        weight = leads * fading ** (lag - 1)
        total[:, lag:] += np.einsum("bk,bkt->bt", weight, others[:, :, :-lag])
    spread = total.std(axis=1, keepdims=True)
    return np.asarray(np.divide(total, spread, out=np.zeros_like(total), where=spread > 1e-9))


def _volatility(draw: np.random.Generator, shocks: Array) -> Array:
    """[B, T] about one: constant, GARCH(1, 1), log-autoregressive, or of two regimes, each for a part of the tasks."""
    tasks, length = shocks.shape
    kind = draw.integers(0, 4, tasks)
    out = np.ones((tasks, length))

    garch = kind == 1
    alpha, total = draw.uniform(0.03, 0.15, (tasks,))[garch], draw.uniform(0.95, 0.998, (tasks,))[garch]
    growth = (total - alpha)[:, None] + alpha[:, None] * shocks[garch] ** 2
    variance = np.ones(len(alpha))
    for row in range(length):
        out[garch, row] = np.sqrt(variance)
        variance = 1 - total + growth[:, row] * variance

    log = kind == 2
    persistence, spread = draw.uniform(0.95, 0.995, (tasks,))[log], draw.uniform(0.2, 0.7, (tasks,))[log]
    noise = draw.normal(size=(len(spread), length)) * np.sqrt(1 - persistence**2)[:, None]
    noise[:, 0] = draw.normal(size=len(spread))
    out[log] = np.exp(spread[:, None] * _recursive(noise, persistence))

    regimes = kind == 3
    stay, calm = draw.uniform(0.97, 0.998, (tasks,))[regimes], draw.uniform(0.3, 0.9, (tasks,))[regimes]
    switches = draw.random((len(stay), length)) > stay[:, None]
    wild = (switches.cumsum(axis=1) + draw.integers(0, 2, (len(stay), 1))) % 2 == 1
    out[regimes] = np.where(wild, 1.6, calm[:, None])
    return out


def _with_memory(draw: np.random.Generator, moves: Array) -> Array:
    """The moves [B, T] with a first autocorrelation of up to .2 and a drift, each for a part of the tasks."""
    tasks = len(moves)
    memory = np.where(draw.random(tasks) < 0.4, np.clip(draw.normal(0.0, 0.07, tasks), -0.2, 0.2), 0.0)
    drift = np.where(draw.random(tasks) < 0.3, draw.normal(0.0, 0.03, tasks), 0.0)
    return _recursive(moves, memory) + drift[:, None]


def _level(draw: np.random.Generator, moves: Array) -> Array:
    """[B, T] summed; a part of the tasks reverts to a mean, and none is then a random walk."""
    tasks = len(moves)
    pull = np.where(draw.random(tasks) < 0.2, np.exp(draw.uniform(np.log(0.003), np.log(0.08), tasks)), 0.0)
    return _recursive(moves, 1 - pull)


def _recursive(inputs: Array, factors: Array) -> Array:
    """[B, T] of x_t + factor x_{t-1} + factor² x_{t-2} …, by task."""
    return (
        np.stack([lfilter([1.0], [1.0, -factor], row) for row, factor in zip(inputs, factors, strict=True)])
        if len(inputs)
        else inputs
    )
