"""The comparison with statsforecast, as far as it goes without that library: who is given what, and scored on what."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import norm

from forex_core.config import EngineConfig, load_settings
from forex_core.testing import bundle_of, synthetic_table
from forex_core.types import ENSEMBLE, HORIZONS, LEVELS, RANDOM_WALK, Horizon

BENCH = Path(__file__).parents[1] / "bench"
LIGHT = EngineConfig(members=("random_walk", "theta", "drivers"), warmup_origins=10)


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


peers, worker = module("peers"), module("peers_worker")


@pytest.fixture(scope="module")
def scored() -> dict[Horizon, peers.Scored]:
    bundle = bundle_of(synthetic_table(760, seed=5))
    engine = peers.OnePass(load_settings(engine=LIGHT), lambda stage, done, total: None)
    return {h: engine.scored(bundle, h, None, None, None) for h in HORIZONS}


def test_our_lines_are_those_of_evaluate(scored: dict[Horizon, peers.Scored]) -> None:
    for s in scored.values():
        lines, kept = peers.compare(s, {}, dict.fromkeys([ENSEMBLE, *s.paths.members], 0.0))
        assert kept.all()
        assert len(kept) == len(s.evaluation.origins)
        for name, expected in s.evaluation.scores.items():
            line = lines[name]
            assert (line.rmse_ratio, line.crps_ratio, line.p_rw, line.coverage_80, line.coverage_95) == (
                expected.rmse_ratio_rw,
                expected.crps_ratio_rw,
                expected.dm_pvalue,
                expected.coverage_80,
                expected.coverage_95,
            )


def test_all_horizons_come_from_one_pass(scored: dict[Horizon, peers.Scored]) -> None:
    assert len({id(s.paths) for s in scored.values()}) == 1


def test_a_peer_is_scored_on_the_origin_that_it_answered(scored: dict[Horizon, peers.Scored]) -> None:
    s = scored[HORIZONS[0]]
    walk = s.paths.walk[s.origins]
    said = {"walk": walk, "shifted": np.roll(walk, 1, axis=0)}
    seconds = dict.fromkeys([ENSEMBLE, *s.paths.members, *said], 0.0)
    lines, _ = peers.compare(s, said, seconds)
    assert (lines["walk"].rmse_ratio, lines["walk"].crps_ratio) == (1.0, 1.0)
    assert lines["walk"].p_ours == lines[ENSEMBLE].p_rw
    assert lines["shifted"].rmse_ratio > 1.05


def test_an_origin_without_an_answer_is_left_out_for_every_model(scored: dict[Horizon, peers.Scored]) -> None:
    s = scored[HORIZONS[1]]
    answers = s.paths.walk[s.origins].copy()
    answers[3] = np.nan
    seconds = dict.fromkeys([ENSEMBLE, *s.paths.members, "peer"], 0.0)
    lines, kept = peers.compare(s, {"peer": answers}, seconds)
    assert np.flatnonzero(~kept).tolist() == [3]
    assert lines["peer"].rmse_ratio == lines[RANDOM_WALK].rmse_ratio == 1.0
    assert peers.left_out({"a": {}, "b": {0: ""}, "c": {0: "", 1: ""}}, 100) == {"c"}


def test_a_window_holds_what_was_known_at_its_origin_and_nothing_later() -> None:
    closes = np.arange(1.0, 31.0)
    rows = np.array([4, 11, 20])
    windows = peers.windows_of(closes, rows, 8)
    changed = closes.copy()
    changed[12:] = -1
    assert windows[:, -1].tolist() == closes[rows].tolist()
    assert np.isnan(windows[0]).sum() == 3
    np.testing.assert_array_equal(peers.windows_of(changed, rows, 8)[:2], windows[:2])


def test_central_intervals_become_the_levels_that_bound_them() -> None:
    center, spread = np.array([10.0, 20.0]), np.array([1.0, 3.0])
    answer = {"mean": center}
    for coverage in (98, 95, *range(10, 100, 10)):
        half = spread * norm.ppf(0.5 + coverage / 200)
        answer |= {f"lo-{coverage}": center - half, f"hi-{coverage}": center + half}
    expected = center[:, None] + spread[:, None] * norm.ppf(LEVELS)
    np.testing.assert_allclose(worker.quantiles_of(answer, LEVELS), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="not finite"):
        worker.quantiles_of(answer | {"lo-95": np.array([np.nan, 1.0])}, LEVELS)
    with pytest.raises(ValueError, match="whole percentage"):
        worker.quantiles_of(answer, (0.333, 0.5))
