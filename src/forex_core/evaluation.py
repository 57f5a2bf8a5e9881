"""Scores on rolling origins, and the tests against the random walk.

Everything here compares forecasts with outcomes that they did not see. N origins, H steps, Q levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from scipy.special import stdtr

from forex_core.types import HORIZONS, Array, Horizon, Scores, Verdict, level_indices

CLAIM_LEVEL = 0.05


@dataclass(frozen=True)
class Test:
    """A one-sided test that a mean loss difference is above zero: its statistic and p-value."""

    __test__ = False  # not a test case, whatever its name suggests to a collector

    stat: float
    pvalue: float


def crps_weights(levels: Sequence[float]) -> Array:
    """[Q] w_q = (α_{q+1} − α_{q−1}) / 2 with α_0 = 0 and α_{Q+1} = 1.

    >>> crps_weights([0.25, 0.5, 0.75]).tolist()
    [0.25, 0.25, 0.25]
    """
    edges = np.concatenate([[0.0], np.asarray(levels), [1.0]])
    return np.asarray((edges[2:] - edges[:-2]) / 2)


def crps(quantiles: Array, truth: Array, levels: Sequence[float]) -> Array:
    """[...] continuous ranked probability score from quantiles [..., Q]: 2 Σ_q w_q ρ_{α_q}(y − Q_q).

    In the units of the truth. ρ_α(u) = u (α − 1{u < 0}), the pinball loss (Gneiting and Ranjan 2011).
    """
    alpha = np.asarray(levels)
    error = truth[..., None] - quantiles
    return np.asarray(2 * ((alpha - (error < 0)) * error) @ crps_weights(levels))


def equal_weighted_cosine(d: Array, steps: int, every: int = 5) -> Test:
    """Test of mean(d) > 0 for a series with autocorrelation from overlapping paths.

    t = d̄ / √(Ω/n) with Ω = ν⁻¹ Σ_{j≤ν} Λ_j², Λ_j = √(2/n) Σ_t d_t cos(πj(t − ½)/n) and
    ν = max(4, ⌊min(.4 n^⅔, n·every/2H)⌋), against Student's t with ν degrees of freedom (Lazarus, Lewis,
    Stock and Watson 2018, "HAR inference: recommendations for practice").

    Args:
        d: [n] loss differences in time order.
        steps: H, the length of the path behind each difference.
        every: weekdays between two origins.
    """
    n = len(d)
    if n < 10 or np.ptp(d) == 0:
        return Test(0.0, 1.0 if n < 10 or d[0] <= 0 else 0.0)
    stat, dof = cosine_statistic(d, steps, every)
    return Test(float(stat), float(stdtr(dof, -stat)))


def cosine_statistic(d: Array, steps: int, every: float) -> tuple[Array, int]:
    """t and ν of `equal_weighted_cosine`, of many series [..., n] at once; 0 for one that does not vary."""
    variance, dof = _cosine_variance(d, steps, every)
    error = np.sqrt(variance / d.shape[-1])
    return np.divide(d.mean(axis=-1), error, out=np.zeros_like(error), where=error > 0), dof


def _cosine_variance(d: Array, steps: int, every: float) -> tuple[Array, int]:
    """Ω, the long-run variance of `d` [..., n], and ν, as `equal_weighted_cosine` has them."""
    n = d.shape[-1]
    dof = int(max(4, np.floor(min(0.4 * n ** (2 / 3), n * every / (2 * steps)))))
    j = np.arange(1, dof + 1)[:, None]
    cosines = np.cos(np.pi * j * (np.arange(1, n + 1) - 0.5) / n)
    projections = np.sqrt(2 / n) * (cosines * d[..., None, :]).sum(axis=-1)
    return np.asarray((projections**2).mean(axis=-1)), dof


def diebold_mariano(d: Array, lags: int) -> Test | None:
    """The classical test with the small-sample correction of Harvey, Leybourne and Newbold (1997), one-sided.

    Args:
        d: [n] loss differences.
        lags: k, the number of autocovariances plus one (k = 1 uses the variance alone).

    Returns:
        None when the estimated long-run variance is not positive, as its rectangular kernel allows.
    """
    n = len(d)
    if n <= lags + 1:
        return None
    centred = d - d.mean()
    gamma = [float(centred[k:] @ centred[: n - k]) / n for k in range(lags)]
    variance = gamma[0] + 2 * sum(gamma[1:])
    if variance <= 0:
        return None
    correction = (n + 1 - 2 * lags + lags * (lags - 1) / n) / n
    stat = float(d.mean() / np.sqrt(variance / n) * np.sqrt(correction))
    return Test(stat, float(stdtr(n - 1, -stat)))


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of p-values (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(pvalues)
    adjusted = np.empty(len(pvalues))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(pvalues) - rank) * pvalues[index]))
        adjusted[index] = running
    return [float(p) for p in adjusted]


@dataclass(frozen=True)
class Judged:
    """Quantiles of one model beside what came of them, on the origins that every model answered.

    `quantiles` [N, H, Q] and `truth` [N, H] in price (NaN where nothing was observed), `spot` [N].
    """

    quantiles: Array
    truth: Array
    spot: Array
    levels: tuple[float, ...]

    @property
    def median(self) -> Array:
        return np.asarray(self.quantiles[:, :, self.levels.index(0.5)])


def score(
    model: Judged,
    walk: Judged,
    every: int,
    *,
    is_walk: bool = False,
    weight_mean: float | None = None,
    failed_origins: int = 0,
) -> Scores:
    """All scores of one model over the path it is cut to, beside the random walk on the same origins."""
    truth, steps = model.truth, model.truth.shape[1]
    seen = ~np.isnan(truth)
    error = truth - model.median
    error_walk = truth - walk.median
    crps_model, crps_walk = (crps(m.quantiles, truth, m.levels) for m in (model, walk))
    inside = {c: _inside(model, c) for c in (0.8, 0.95)}
    rmse, rmse_walk = _rms(error[seen]), _rms(error_walk[seen])
    squared = _path_difference(error_walk**2, error**2, model.spot**2)
    test = None if is_walk else equal_weighted_cosine(squared, steps, every)
    classical = None if is_walk else diebold_mariano(squared, max(1, -(-steps // every)))
    ratio_next, next_test = (None, None) if is_walk else _against_next_close(model, every)
    return Scores(
        rmse=rmse,
        mae=float(np.abs(error[seen]).mean()),
        mape_pct=float(100 * np.abs(error[seen] / truth[seen]).mean()),
        crps=float(crps_model[seen].mean()),
        coverage_80=float(inside[0.8][seen].mean()),
        coverage_95=float(inside[0.95][seen].mean()),
        coverage_80_last=float(inside[0.8][:, -1][seen[:, -1]].mean()),
        coverage_95_last=float(inside[0.95][:, -1][seen[:, -1]].mean()),
        directional_accuracy=None if is_walk else _directional_accuracy(model),
        rmse_ratio_rw=rmse / rmse_walk,
        crps_ratio_rw=float(crps_model[seen].mean() / crps_walk[seen].mean()),
        dm_stat=test.stat if test else None,
        dm_pvalue=test.pvalue if test else None,
        hln_stat=classical.stat if classical else None,
        hln_pvalue=classical.pvalue if classical else None,
        rmse_ratio_next_close=ratio_next,
        p_next_close=next_test.pvalue if next_test else None,
        weight_mean=weight_mean,
        failed_origins=failed_origins,
        rmse_by_step=_by_step(error**2, seen, root=True),
        coverage_80_by_step=_by_step(inside[0.8].astype(float), seen),
        coverage_95_by_step=_by_step(inside[0.95].astype(float), seen),
    )


@dataclass(frozen=True)
class Comparison:
    """How much worse one model's CRPS is than another's, in units of the random walk's: negative is better.

    `origins_effective` is what overlap leaves of the origins, n · every / max(every, H).
    """

    difference: float
    standard_error: float
    origins: int
    origins_effective: float


def compare_crps(new: Judged, old: Judged, walk: Judged, every: int) -> Comparison:
    """`compare_losses` of the CRPS at each origin and step, in units of the spot.

    Raises:
        ValueError: without an origin whose outcome is known, or for a walk without loss.
    """
    losses = [crps(m.quantiles, m.truth, m.levels) / m.spot[:, None] for m in (new, old, walk)]
    return compare_losses(losses[0], losses[1], losses[2], every)


def compare_losses(new: Array, old: Array, walk: Array, every: int) -> Comparison:
    """Δ = mean_o(d_o) / mean_o(w_o) over the same origins, and its standard error.

    d_o is the path mean of (new − old), w_o that of the walk. The standard error is that of the linearised ratio: of
    the mean of (d_o − Δ w_o) / w̄, with the long-run variance of `equal_weighted_cosine`.

    Args:
        new, old, walk: [N, H] losses in one unit; NaN where nothing was observed.
        every: days from one origin to the next.

    Raises:
        ValueError: without an origin whose outcome is known, or for a walk without loss.
    """
    seen = ~np.isnan(new)
    some = seen.any(axis=1)
    means = [
        np.where(seen, loss, 0.0)[some].sum(axis=1) / seen[some].sum(axis=1) for loss in (new, old, walk)
    ]
    d, w = means[0] - means[1], means[2]
    n = len(d)
    if not n or not w.mean() > 0:
        raise ValueError(f"{n} origins with a known outcome, mean loss of the walk {w.mean() if n else 0}")
    difference = float(d.mean() / w.mean())
    around = (d - difference * w) / w.mean()
    steps = new.shape[1]
    variance = float(_cosine_variance(around, steps, every)[0]) if n > 1 else 0.0
    return Comparison(difference, float(np.sqrt(variance / n)), n, n * every / max(every, steps))


def judge_skill(
    pvalues: Mapping[Horizon, tuple[float, float]], horizon: Horizon, decided_on: date, origins: int
) -> Verdict:
    """What the tests of all four horizons together allow to be said of one.

    Args:
        pvalues: by horizon, p against the random walk from the origin's close and from the next close.
    """
    order = [h for h in HORIZONS if h in pvalues]
    close = dict(zip(order, holm([pvalues[h][0] for h in order]), strict=True))[horizon]
    following = dict(zip(order, holm([pvalues[h][1] for h in order]), strict=True))[horizon]
    if following < CLAIM_LEVEL:
        kind = "usable"
        sentence = (
            f"Usable skill at {horizon}: the median beats the random walk even from the next close "
            f"(p = {following:.3f}, {origins} origins to {decided_on})."
        )
    elif close < CLAIM_LEVEL:
        kind = "close_only"
        sentence = (
            f"At {horizon} the median beats the origin's close (p = {close:.3f}, {origins} origins to {decided_on}), "
            f"but not the next close (p = {following:.2f}): the skill is in how the close is struck and is not "
            "tradable. "
            "Use it where you are fixed to that close; otherwise expect no directional edge; use the band."
        )
    else:
        kind = "none"
        sentence = (
            f"No skill of the median over the random walk is shown at {horizon} (p = {close:.2f}, {origins} "
            f"origins to {decided_on}): expect no directional edge; use the band."
        )
    return Verdict(kind, sentence, close, following, decided_on, origins)


def _inside(model: Judged, coverage: float) -> Array:
    low, high = level_indices(model.levels, coverage)
    return np.asarray(
        (model.truth >= model.quantiles[:, :, low]) & (model.truth <= model.quantiles[:, :, high])
    )


def _path_difference(reference: Array, model: Array, scale: Array) -> Array:
    """[n] mean over the observed steps of the loss difference, over the squared origin price; unseen paths out."""
    difference = (reference - model) / scale[:, None]
    seen = ~np.isnan(difference)
    some = seen.any(axis=1)
    return np.asarray(np.nansum(difference[some], axis=1) / seen[some].sum(axis=1))


def _against_next_close(model: Judged, every: int) -> tuple[float | None, Test | None]:
    """Ratio of errors of y_{t+h} − y_{t+1} for h ≥ 2, the model's move against no move, and its test."""
    if model.truth.shape[1] < 2:
        return None, None
    move = model.truth[:, 1:] - model.truth[:, :1]
    predicted = model.median[:, 1:] - model.median[:, :1]
    seen = ~np.isnan(move)
    still = _rms(move[seen]) if seen.any() else 0.0
    if still == 0:
        return None, None
    squared = _path_difference(move**2, (move - predicted) ** 2, model.spot**2)
    return _rms((move - predicted)[seen]) / still, equal_weighted_cosine(squared, model.truth.shape[1], every)


def _directional_accuracy(model: Judged) -> float | None:
    """Share of origins whose last median lies on the side of the close that the truth took; no move is left out."""
    said = np.sign(model.median[:, -1] - model.spot)
    came = np.sign(model.truth[:, -1] - model.spot)
    counted = ~np.isnan(came) & (came != 0) & (said != 0)
    return float((said == came)[counted].mean()) if counted.any() else None


def _rms(values: Array) -> float:
    return float(np.sqrt((values**2).mean()))


def _by_step(values: Array, seen: Array, *, root: bool = False) -> tuple[float, ...]:
    means = np.where(seen, values, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    return tuple(float(v) for v in (np.sqrt(means) if root else means))
