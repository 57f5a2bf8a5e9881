"""statsforecast's automatic models on windows of closes; run by peers.py in .venv-peers, where forex_core is not.

usage: peers_worker.py INPUT.npz OUTPUT.npz

N origins, W closes, H steps, Q levels, P peers. Input: `windows` [N, W] closes up to and with each origin, NaN
before the first; `levels` [Q]; `steps` H. Output: `names` [P]; `quantiles` [P, N, H, Q] and `seconds` [P, N] of
CPU, NaN where a peer did not answer; `reasons` [P, N] why, else empty; `version` of statsforecast. One line on
standard output for each answer.

Models are fitted anew at every origin, with their defaults and a season of one, to closes in price. The 0.5 level
is the point forecast and the other levels are the library's own intervals, as given: those that it simulates
(AutoTheta, AutoCES) need not surround the point forecast, and AutoCES adds no noise along its path, so that its
band does not widen with the step. The simulations are seeded by the library, so that answers repeat.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

PEERS = ("AutoARIMA", "AutoETS", "AutoTheta", "AutoCES", "RandomWalkWithDrift")


def central_bound(level: float) -> tuple[str, int]:
    """Side and coverage in percent of the central interval that a quantile level bounds.

    >>> central_bound(0.025), central_bound(0.6)
    (('lo', 95), ('hi', 20))
    """
    coverage = round(100 * abs(2 * level - 1))
    if not 0 < coverage < 100 or abs(coverage - 100 * abs(2 * level - 1)) > 1e-9:
        raise ValueError(f"level {level} bounds no central interval of a whole percentage")
    return ("lo" if level < 0.5 else "hi"), coverage


def quantiles_of(answer: Mapping[str, Any], levels: Sequence[float]) -> Array:
    """[H, Q] from statsforecast's `mean`, `lo-95`, `hi-95` …, each [H]; 0.5 is the mean.

    Raises:
        ValueError: for an answer that is not finite.
    """
    keys = ["mean" if a == 0.5 else "{}-{}".format(*central_bound(a)) for a in levels]
    quantiles = np.column_stack([np.asarray(answer[key], dtype=np.float64) for key in keys])
    if not np.isfinite(quantiles).all():
        raise ValueError("the answer holds values that are not finite")
    return quantiles


def forecast(name: str, closes: Array, steps: int, levels: Sequence[float]) -> tuple[Array, float]:
    """Quantiles [H, Q] of one peer after the last of `closes`, and the CPU seconds that they took."""
    from statsforecast import models

    model = getattr(models, name)
    intervals = sorted({central_bound(a)[1] for a in levels if a != 0.5})
    started = time.process_time()
    peer = model() if name == "RandomWalkWithDrift" else model(season_length=1)
    answer = peer.forecast(y=closes, h=steps, level=intervals)
    return quantiles_of(answer, levels), time.process_time() - started


def warm_up() -> None:
    """Import, and whatever a library does on first use, once in each process and off the clock."""
    closes = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.005, 200)))
    for name in PEERS:
        forecast(name, closes, 5, (0.1, 0.5, 0.9))


def main() -> None:
    source, target = sys.argv[1:]
    with np.load(source) as given:
        windows, levels, steps = given["windows"], tuple(given["levels"].tolist()), int(given["steps"])
    shape = (len(PEERS), len(windows))
    quantiles = np.full((*shape, steps, len(levels)), np.nan)
    seconds = np.full(shape, np.nan)
    reasons = np.full(shape, "", dtype=object)
    with ProcessPoolExecutor(initializer=warm_up) as pool:
        asked: dict[Future[tuple[Array, float]], tuple[int, int]] = {}
        for n, window in enumerate(windows):
            closes = np.ascontiguousarray(window[~np.isnan(window)])
            for p, name in enumerate(PEERS):
                asked[pool.submit(forecast, name, closes, steps, levels)] = (p, n)
        for answered in as_completed(asked):
            at = asked[answered]
            error = answered.exception()  # whatever the library raised, bare exceptions among it
            if error is None:
                quantiles[at], seconds[at] = answered.result()
            else:
                reasons[at] = f"{type(error).__name__}: {error}"
            print(PEERS[at[0]], flush=True)
    np.savez(
        target,
        names=np.array(PEERS),
        quantiles=quantiles,
        seconds=seconds,
        reasons=reasons.astype(str),
        version=np.array(version("statsforecast")),
    )


if __name__ == "__main__":
    main()
