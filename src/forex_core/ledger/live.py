"""The live track record, each lead by itself. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forex_core.ledger.values import Track
from forex_core.types import Array


@dataclass(frozen=True)
class LeadScores:
    """Of the forecasts of one horizon at one lead, `step` weekdays ahead.

    `origins_effective` is what overlap leaves of the origins: those that lie at least a lead apart. RMSE, MAE, bias
    (mean of outcome less median) and CRPS in quote units, MAPE in percent, coverages as shares; ratios are to the
    random walk on the same origins, None where that has no loss.

    `rmse_by_model` has every member over the origins that it has a median for, `origins_by_model` how many these are:
    members that were left out on different days do not compare by it. `rmse_in_common` has the members of the newest
    forecast over the `origins_in_common` for which all of them have one.
    """

    step: int
    origins: int
    origins_effective: int
    rmse: float
    mae: float
    mape_pct: float
    bias: float
    crps: float
    rmse_walk: float
    crps_walk: float
    rmse_ratio_rw: float | None
    crps_ratio_rw: float | None
    coverage_80: float
    coverage_95: float
    rmse_by_model: Mapping[str, float]
    origins_by_model: Mapping[str, int]
    rmse_in_common: Mapping[str, float]
    origins_in_common: int

    def closest(self, least: int) -> str | None:
        """The member with the lowest RMSE in common; None where that is of fewer than `least` origins."""
        if self.origins_in_common < least:
            return None
        return min(self.rmse_in_common, key=lambda name: (self.rmse_in_common[name], name), default=None)


def by_lead(track: Track) -> tuple[LeadScores, ...]:
    """Scores at every lead that has an outcome, the shortest first."""
    return tuple(_scores(int(step), track.at(track.steps == step)) for step in np.unique(track.steps))


def at_the_end(track: Track) -> LeadScores | None:
    """Scores at the lead that gives the horizon its name, None where nothing has come of it yet."""
    last = track.last_lead
    return _scores(track.horizon.evaluation_steps, last) if len(last) else None


def _scores(step: int, of: Track) -> LeadScores:
    rmse, walk = _rms(of.errors), _rms(of.walk_errors)
    crps, crps_walk = float(of.crps.mean()), float(of.walk_crps.mean())
    known = {name: np.isfinite(errors) for name, errors in of.members.items() if np.isfinite(errors).any()}
    compared = [name for name, has in known.items() if has[-1]]
    common = (
        np.logical_and.reduce([known[name] for name in compared]) if compared else np.zeros(len(of), bool)
    )
    return LeadScores(
        step=step,
        origins=len(of),
        origins_effective=_apart(of.origins, step),
        rmse=rmse,
        mae=float(np.abs(of.errors).mean()),
        mape_pct=float(100 * np.abs(of.errors / of.outcomes).mean()),
        bias=float(of.errors.mean()),
        crps=crps,
        rmse_walk=walk,
        crps_walk=crps_walk,
        rmse_ratio_rw=rmse / walk if walk else None,
        crps_ratio_rw=crps / crps_walk if crps_walk else None,
        coverage_80=float(of.inside_80.mean()),
        coverage_95=float(of.inside_95.mean()),
        rmse_by_model={name: _rms(of.members[name][has]) for name, has in known.items()},
        origins_by_model={name: int(has.sum()) for name, has in known.items()},
        rmse_in_common={name: _rms(of.members[name][common]) for name in compared},
        origins_in_common=int(common.sum()),
    )


def _apart(origins: Array, step: int) -> int:
    """How many origins, ascending, can be chosen of which none is nearer to the next than the lead."""
    days = origins.astype("M8[D]")
    count, free = 0, np.datetime64("0001-01-01", "D")
    for day in days:
        if day >= free:
            count, free = count + 1, np.busday_offset(day, step, roll="forward")
    return count


def _rms(values: Array) -> float:
    return float(np.sqrt((values**2).mean()))
