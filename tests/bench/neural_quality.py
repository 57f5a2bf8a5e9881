"""How good the embedded weights are, zero-shot and not calibrated, over the random walk; fails past its bounds.

On the 26 pairs of the ECB panel after the weights' cut-off. With --data also on a file of USD/CLP from 2018 to
mid-2024, with its drivers and without, and there the ensemble with the member and without. CRPS and RMSE are means over
the path.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from bounds import Figure, judge

from forex_core.calendars import business_day_numbers
from forex_core.config import MEMBERS, ChronosConfig, EngineConfig
from forex_core.data.bundle import load_bundle
from forex_core.data.providers import provider
from forex_core.data.providers.ecb import PANEL
from forex_core.engine import Engine, build_members
from forex_core.evaluation import compare_crps, crps, score
from forex_core.models.chronos import ChronosForecaster
from forex_core.models.random_walk import RandomWalk
from forex_core.types import ENSEMBLE, HORIZONS, LEVELS, PATH_STEPS, Array, MarketBundle, Pair

FIRST, LAST = date(2018, 1, 1), date(2024, 6, 30)
PANEL_MEDIAN, PANEL_WORST = 1.00, 1.03
ALONE, WITH_DRIVERS_7D = 0.98, 0.945
COVERAGE_POINTS = 5.0
NOISE = 1.645
"""Standard errors by which the ensemble may be worse with the member: one-sided, at 5 %."""
ENSEMBLE_RMSE = {7: 0.925, 15: 0.950, 30: 0.965, 90: 0.984}
Scores = dict[int, tuple[float, float, float, float]]
"""By horizon in days: CRPS and RMSE over the random walk's, coverages of 80 and 95 %."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="CSV of USDCLP and its drivers")
    parser.add_argument("--weights", default="embedded", help="other weights than the embedded ones")
    parser.add_argument("--no-panel", action="store_true", help="the file alone")
    arguments = parser.parse_args()
    missed = 0 if arguments.no_panel else on_panel(arguments.weights)
    if arguments.data:
        bundle = load_bundle(provider("csv", (arguments.data,), {}), Pair("USD", "CLP"), None)
        missed += on_file(bundle, arguments.weights) + in_ensemble(bundle, arguments.weights)
    return int(missed > 0)


def on_panel(weights: str) -> int:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(PANEL, pool.map(of_panel, PANEL, [weights] * len(PANEL)), strict=True))
    figures = []
    for horizon in HORIZONS:
        ratios = {pair: scores[horizon.days][0] for pair, scores in found.items()}
        worst = max(ratios, key=ratios.__getitem__)
        figures += [
            Figure(f"{horizon} CRPS, median pair", median(ratios.values()), "", PANEL_MEDIAN),
            Figure(f"{horizon} CRPS, worst pair ({worst})", ratios[worst], "", PANEL_WORST),
        ]
        covered = np.array([scores[horizon.days][2:] for scores in found.values()])
        figures += off(f"{horizon} all pairs", *covered.mean(axis=0).tolist())
        for place, nominal in ((0, 80), (1, 95)):
            apart = np.abs(100 * covered[:, place] - nominal)
            name = (
                f"{horizon} worst pair ({list(found)[int(apart.argmax())]}), coverage of {nominal} % off by"
            )
            figures.append(Figure(name, float(apart.max()), "points", COVERAGE_POINTS))
    return judge("ECB panel", figures)


def on_file(bundle: MarketBundle, weights: str) -> int:
    figures, rows = [], grid(bundle, first_of(ChronosForecaster(weights)), LAST, 5)
    for drivers in (False, True):
        scores = scored(ChronosForecaster(weights, drivers=drivers), bundle, rows)
        for horizon in HORIZONS:
            ratio, rmse, *covered = scores[horizon.days]
            name = f"{horizon} {'with drivers' if drivers else 'alone'}"
            bound = (WITH_DRIVERS_7D if horizon.days == 7 else None) if drivers else ALONE
            figures += [Figure(f"{name}, CRPS", ratio, "", bound), Figure(f"{name}, RMSE", rmse, "")]
            figures += off(name, *covered)
    return judge(f"USD/CLP, {len(rows)} origins", figures)


def in_ensemble(bundle: MarketBundle, weights: str) -> int:
    """On the calendar grid, and on Mondays, where the planned figures come from (ADR 1).

    With the member and without, all learn on the same grid, after the weights' cut-off, and are scored after its
    warm-up.
    """
    first = first_of(ChronosForecaster(weights))
    numbers, days = business_day_numbers(bundle.pair, bundle.dates), grid(bundle, first, LAST, 1)
    calendar = days[(numbers[days] >= 0) & (numbers[days] % EngineConfig().grid_every == 0)]
    mondays = days[bundle.dates[days].day_of_week == 0]
    passes = []
    for members in (MEMBERS, tuple(m for m in MEMBERS if m != "chronos")):
        config = EngineConfig(members=members)
        engine = Engine(config, build_members(config, ChronosConfig(model=weights)))
        passes.append(engine.paths(bundle, np.union1d(calendar, mondays)))
    rows, after = passes[0].rows, int(passes[0].rows[passes[0].scored_grid()][0])
    missed = 0
    for origins, chosen in (("the calendar grid", calendar), ("Mondays", mondays)):
        figures = []
        for horizon in HORIZONS:
            keep = passes[0].scored(horizon, np.isin(rows, chosen) & (rows >= after))
            both = [found.judged(found.quantiles[ENSEMBLE], horizon, keep) for found in passes]
            walk = passes[0].judged(passes[0].walk, horizon, keep)
            for word, judged in zip(("with", "without"), both, strict=True):
                found, bound = score(judged, walk, 5), ENSEMBLE_RMSE[horizon.days] if word == "with" else None
                assert found.rmse_ratio_rw is not None
                assert found.crps_ratio_rw is not None
                figures += [
                    Figure(f"{horizon} {word} it, RMSE", found.rmse_ratio_rw, "", bound),
                    Figure(f"{horizon} {word} it, CRPS", found.crps_ratio_rw, ""),
                    Figure(f"{horizon} {word} it, coverage of 80 %", found.coverage_80, ""),
                    Figure(f"{horizon} {word} it, coverage of 95 %", found.coverage_95, ""),
                ]
            worse = compare_crps(*both, walk, 5)
            noise = NOISE * worse.standard_error
            figures.append(
                Figure(f"{horizon} CRPS worse with it, of the walk's", worse.difference, "", noise)
            )
        days_told = f"{int(keep.sum())} to {bundle.dates[rows[keep][-1]].date()}"
        title = f"USD/CLP, the ensemble on {origins} from {bundle.dates[after].date()}, at 90d {days_told}"
        missed += judge(title, figures)
    return missed


def off(name: str, covered_80: float, covered_95: float) -> list[Figure]:
    """How far coverages are from what they say."""
    return [
        Figure(
            f"{name}, coverage of {nominal} % off by", abs(100 * covered - nominal), "points", COVERAGE_POINTS
        )
        for nominal, covered in ((80, covered_80), (95, covered_95))
    ]


def of_panel(pair: Pair, weights: str) -> Scores:
    member = ChronosForecaster(weights)
    bundle = load_bundle(provider("ecb", (), {}), pair, None)
    return scored(member, bundle, grid(bundle, first_of(member), bundle.origin, 10))


def first_of(member: ChronosForecaster) -> date:
    """The first day to be scored: none that the weights have seen."""
    assert member.trained_until is not None
    return max(FIRST, member.trained_until + timedelta(days=1))


def grid(bundle: MarketBundle, first: date, last: date, every: int) -> Array:
    inside = (bundle.dates >= pd.Timestamp(first)) & (bundle.dates <= pd.Timestamp(last))
    return np.flatnonzero(inside)[::every]


def scored(member: ChronosForecaster, bundle: MarketBundle, rows: Array) -> Scores:
    instants = bundle.instants[rows]
    said = member.forecast(bundle, instants, PATH_STEPS, LEVELS)
    assert not said.reasons, said.reasons
    walk = RandomWalk().forecast(bundle, instants, PATH_STEPS, LEVELS).quantiles
    padded = np.concatenate([bundle.truth, np.full(PATH_STEPS, np.nan)])
    truth = np.stack([padded[row + 1 : row + 1 + PATH_STEPS] for row in rows])
    out = {}
    for horizon in HORIZONS:
        h = horizon.evaluation_steps
        y, mine, theirs = truth[:, :h], said.quantiles[:, :h], walk[:, :h]
        seen, middle = np.isfinite(y), LEVELS.index(0.5)

        def rmse(quantiles: Array, y: Array = y, seen: Array = seen, middle: int = middle) -> float:
            return float(np.sqrt(np.mean((quantiles[:, :, middle] - y)[seen] ** 2)))

        def covered(low: float, high: float, y: Array = y, seen: Array = seen, mine: Array = mine) -> float:
            inside = (y >= mine[:, :, LEVELS.index(low)]) & (y <= mine[:, :, LEVELS.index(high)])
            return float(inside[seen].mean())

        ratio = float(np.nanmean(crps(mine, y, LEVELS)) / np.nanmean(crps(theirs, y, LEVELS)))
        out[horizon.days] = (ratio, rmse(mine) / rmse(theirs), covered(0.1, 0.9), covered(0.025, 0.975))
    return out


if __name__ == "__main__":
    sys.exit(main())
