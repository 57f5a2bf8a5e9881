"""How often the test against the random walk claims skill where there is none, and where there is a little.

    python tests/bench/test_size.py             prints the tables behind docs/methods.md, two minutes on one core
    pytest -m slow tests/bench/test_size.py     holds the cosine test to what is stated there, on fewer series

The null. A forecast that leans away from the walk by g, a share of the price that depends on the past alone, changes
the squared error at step h by 2 g_h R_h - g_h², with R the return since the origin. Where returns cannot be foreseen
the first term has mean zero and the second is a cost: such a forecast is worse than the walk, and how seldom it is
claimed says little of the test. So two forecasts are compared that lean as far to either side. They are equally
good whatever g and the volatility do: (R + g)² - (R - g)² = 4 g R. The same term is left of a comparison with the walk
itself when the lean is small, so this is the edge of what the test has to refuse. The rows 'at a cost' are against
the walk, with leans that cost a quarter of a per cent of its RMSE.

An origin every five days and differences averaged over the path, as in evaluations. How much of the overlap of paths
reaches the differences depends on how long a lean lasts: all of it from one that lasts for ever, nothing from one
that is new at each origin. Leans with or against the last weeks' move depend on the outcomes of the origins before.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from forex_core.evaluation import CLAIM_LEVEL, diebold_mariano, equal_weighted_cosine, holm
from forex_core.types import HORIZONS, Array

pytestmark = pytest.mark.slow

EVERY = 5
STEPS = tuple(h.evaluation_steps for h in HORIZONS)
ORIGINS = (208, 330)
"""Scored origins: of a published forecast, and of an evaluation over six years and a half."""

DAILY = 0.006
BEFORE = 60
"""Days before the first origin."""

LEANS = ("lasts for ever", "wanders", "new each week", "with the last month", "against the last month")
COST = 0.005
"""Share of the walk's mean squared error that a lean 'at a cost' adds to it: a quarter of a per cent of RMSE."""

GAINS = (0.99, 0.98, 0.96)
"""RMSE over the walk's, where something is known."""

BLOCK = 250
"""Series made at a time."""


@dataclass(frozen=True)
class Paths:
    """Means over a path of the returns R_h since each origin [S, N]: of R_h, of h R_h and of R_h²."""

    flat: Array
    rising: Array
    square: Array


def prices(rng: np.random.Generator, series: int, days: int, clustered: bool) -> Array:
    """[S, T] prices whose returns have mean zero whatever came before, of steady or of clustered volatility.

    Clustered: GARCH(1,1) with α = .08, β = .91 and Student t with 6 degrees of freedom.
    """
    if clustered:
        shocks = rng.standard_t(6, (days, series)) * np.sqrt(4 / 6)
        variance = np.ones(series)
        for t in range(days):
            shocks[t] *= np.sqrt(variance)
            variance = 0.01 + 0.08 * shocks[t] ** 2 + 0.91 * variance
    else:
        shocks = rng.standard_normal((days, series))
    return np.asarray(np.cumprod(1 + DAILY * shocks, axis=0).T)


def origins_of(count: int) -> npt.NDArray[np.int64]:
    return BEFORE + EVERY * np.arange(count)


def paths_from(price: Array, at: npt.NDArray[np.int64]) -> dict[int, Paths]:
    """The means over the path of each horizon, by its number of steps."""
    flat, rising, square = np.zeros((3, len(price), len(at)))
    found = {}
    for h in range(1, max(STEPS) + 1):
        returned = price[:, at + h] / price[:, at] - 1
        flat += returned
        rising += h * returned
        square += returned**2
        if h in STEPS:
            found[h] = Paths(flat / h, rising / h, square / h)
    return found


def lean(kind: str, rng: np.random.Generator, price: Array, at: npt.NDArray[np.int64]) -> Array:
    """[S, N] how far a forecast leans at each origin, up to a factor, from the prices up to there."""
    shape = (len(price), len(at))
    if kind == "lasts for ever":  # upwards on one half of the series, downwards on the other
        return np.broadcast_to(rng.choice([-1.0, 1.0], (len(price), 1)), shape)
    if kind == "wanders":  # half of it is forgotten in 23 weeks
        level = rng.standard_normal(shape)
        for n in range(1, len(at)):
            level[:, n] = 0.97 * level[:, n - 1] + np.sqrt(1 - 0.97**2) * level[:, n]
        return level
    if kind == "new each week":
        return rng.standard_normal(shape)
    month = price[:, at] / price[:, at - 20] - 1
    return np.asarray(month if kind == "with the last month" else -month)


def differences(kind: str, size: Array, paths: Paths, steps: int, cost: float) -> Array:
    """[S, N] loss differences, walk less forecast; a lean that lasts grows along the path, the others are flat."""
    grows = kind in ("lasts for ever", "wanders")
    gain = size * (paths.rising if grows else paths.flat)
    if not cost:
        return np.asarray(gain)
    h = np.arange(1, steps + 1)
    own = size**2 * ((h**2).mean() if grows else 1.0)
    scale = np.sqrt(cost * paths.square.mean() / own.mean())
    return np.asarray(2 * scale * gain - scale**2 * own)


def pvalues(d: Array, steps: int) -> tuple[Array, Array]:
    """[S] one-sided p of the cosine test and of Diebold-Mariano's; 1 where the latter has no variance."""
    classical = [diebold_mariano(row, -(-steps // EVERY)) for row in d]
    return (
        np.array([equal_weighted_cosine(row, steps, EVERY).pvalue for row in d]),
        np.array([1.0 if test is None else test.pvalue for test in classical]),
    )


def size(kind: str, series: int, origins: int, clustered: bool, cost: float = 0.0) -> tuple[Array, Array]:
    """[S, 4] p-values of both tests at the four horizons, on series of one seed for all kinds."""
    rng = np.random.default_rng([2026, origins, clustered])
    at = origins_of(origins)
    blocks = []
    for _ in range(-(-series // BLOCK)):
        price = prices(rng, BLOCK, int(at[-1]) + max(STEPS) + 1, clustered)
        leaning = lean(kind, rng, price, at)
        ahead = paths_from(price, at)
        found = [pvalues(differences(kind, leaning, ahead[h], h, cost), h) for h in STEPS]
        blocks.append(np.stack([np.stack(both) for both in found], axis=-1))
    both = np.concatenate(blocks, axis=1)
    return both[0], both[1]


def power(gain: float, steps: int, series: int, origins: int, clustered: bool) -> tuple[Array, Array]:
    """[S] p-values where the next close's move is known in part and the forecast says so: RMSE `gain` of the walk's.

    On top of each origin's next return comes a normal one of variance v, which is known. Over the path the walk's
    mean squared error is then σ² (H + 1)/2 + v c, with c the mean over the path of how many of them have come, and
    the forecast's is smaller by v.
    """
    rng = np.random.default_rng([2027, origins, clustered])
    at = origins_of(origins)
    come = np.mean(-(-np.arange(1, steps + 1) // EVERY))
    share = 1 - gain**2
    known = np.sqrt(share * (steps + 1) / 2 / (1 - share * come)) * DAILY
    found = []
    for _ in range(-(-series // BLOCK)):
        price = prices(rng, BLOCK, int(at[-1]) + max(STEPS) + 1, clustered)
        said = rng.normal(0, known, (BLOCK, origins))
        steps_up = np.ones_like(price)
        steps_up[:, at + 1] += said
        price = price * np.cumprod(steps_up, axis=1)
        ahead = paths_from(price, at)[steps]
        found.append(np.stack(pvalues(2 * said * ahead.flat - said**2, steps)))
    both = np.concatenate(found, axis=1)
    return both[0], both[1]


def claimed(p: Array) -> Array:
    return np.asarray((p < CLAIM_LEVEL).mean(axis=0))


def claimed_of_four(p: Array) -> float:
    """Share of the series with a claim at one of the four horizons at least, after Holm's correction."""
    return float(np.mean([min(holm(row.tolist())) < CLAIM_LEVEL for row in p]))


def within(found: Array, series: int, low: float, high: float) -> bool:
    """Whether counts of claims like these are to be expected of rates between `low` and `high`."""
    few, many = binom.ppf(0.001, series, low), binom.ppf(0.999, series, high)
    return bool(((few <= found * series) & (found * series <= many)).all())


@pytest.mark.parametrize("clustered", [False, True], ids=["steady", "clustered"])
@pytest.mark.parametrize("kind", LEANS[:3])
def test_a_lean_that_does_not_follow_the_price_is_claimed_about_as_often_as_it_should_be(
    kind: str, clustered: bool
) -> None:
    cosine, _ = size(kind, 750, 208, clustered)
    assert within(claimed(cosine), 750, 0.04, 0.06)
    assert claimed_of_four(cosine) < CLAIM_LEVEL


def test_a_lean_against_the_last_month_is_claimed_too_often() -> None:
    """Not what one would wish for: the test is held to no more than what docs/methods.md owns up to."""
    cosine, classical = size("against the last month", 750, 208, clustered=False)
    assert within(claimed(cosine), 750, 0.07, 0.12)
    assert claimed(classical)[-1] > claimed(cosine)[-1]
    with_cost, _ = size("against the last month", 750, 208, clustered=False, cost=COST)
    assert (claimed(with_cost) < claimed(cosine)).all()


@pytest.mark.parametrize("steps", STEPS)
def test_what_is_known_is_mostly_found(steps: int) -> None:
    assert claimed(power(0.96, steps, 250, 208, clustered=False)[0]) > 0.6


def row(name: str, cells: list[tuple[float, float]]) -> str:
    return f"  {name:<36}" + "".join(f"{100 * ours:7.1f} ({100 * theirs:4.1f})" for ours, theirs in cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=4000)
    series = parser.parse_args().series
    error = 100 * np.sqrt(0.05 * 0.95 / series)
    print(
        f"Per cent of {series} series in which skill is claimed at 5 %, by steps and, after Holm's correction, at any "
        f"of the four.\nThe cosine test, in brackets that of Diebold and Mariano; standard error at 5 %: {error:.2f}."
    )
    for origins in ORIGINS:
        for clustered in (False, True):
            print(f"\n{origins} origins, {'clustered' if clustered else 'steady'} volatility")
            print(" " * 38 + "".join(f"{h:>10}    " for h in STEPS) + f"{'any':>10}")
            for kind in LEANS:
                for cost in (0.0, COST):
                    ours, theirs = size(kind, series, origins, clustered, cost)
                    cells = list(zip(claimed(ours), claimed(theirs), strict=True))
                    cells.append((claimed_of_four(ours), claimed_of_four(theirs)))
                    print(row(kind + (", at a cost" if cost else ""), cells), flush=True)
            for gain in GAINS:
                found = [power(gain, h, series // 4, origins, clustered) for h in STEPS]
                cells = [(float(claimed(ours)), float(claimed(theirs))) for ours, theirs in found]
                print(row(f"something known: RMSE {gain}", cells), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
