"""A model, its code and a snapshot as an earlier version of this package wrote them: they go on speaking.

`model_of_before.tar.xz` holds `specification.json`, the `code` that the model carries, the snapshot of the day after it
was learned, and what that code said of it. The data are synthetic.
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from forex_core.champion import Reigning, choose
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.data.snapshot import read_snapshot
from forex_core.engine import Engine, build_members
from forex_core.specification import Specification, paths_of, replay_of
from forex_core.types import Array, Horizon, MarketBundle

WEEK = Horizon(7)
ARCHIVE = Path(__file__).with_name("model_of_before.tar.xz")


@dataclass(frozen=True)
class Before:
    """What is in the archive; `said` [H, Q] of the last row of `bundle`."""

    specification: Specification
    code: Path
    bundle: MarketBundle
    days: tuple[date, ...]
    said: Array


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Before:
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    said = json.loads((folder / "expected.json").read_text())
    return Before(
        Specification.from_json((folder / "specification.json").read_text()),
        folder / "code",
        read_snapshot(folder / "following.parquet"),
        tuple(map(date.fromisoformat, said["target_dates"])),
        np.array(said["quantiles"]),
    )


def test_it_says_what_it_said(before: Before) -> None:
    assert before.specification.engine() is None, "its code is not that of now, so that its own is asked"
    paths = paths_of(before.specification, before.code, before.bundle, None)
    found = paths.run(WEEK, before.specification.state).forecast
    assert found.target_dates == before.days
    np.testing.assert_allclose(found.quantiles, before.said, rtol=1e-5)


def test_it_can_be_scored_at_past_origins(before: Before) -> None:
    rows = np.arange(len(before.bundle) - 20, len(before.bundle), 5)
    found = replay_of(before.specification, before.code, before.bundle, rows, None)
    assert found.shape == (len(rows), 64, before.said.shape[1])
    assert np.isfinite(found).all()


def test_it_goes_on_as_champion_of_whatever_rate_the_data_are(before: Before) -> None:
    """It does not say which rate it was learned from."""
    assert before.specification.rate is None
    config = EngineConfig(
        members=("random_walk", "drivers"), grid_origins=60, warmup_origins=8, min_members=1
    )
    engine = Engine(config, build_members(config, ChronosConfig()))
    bundle = replace(before.bundle, rate="observed")
    choice = choose(engine, bundle, WEEK, Reigning(1, before.specification, before.code))
    assert choice.decision.outcome == "undecided"
    np.testing.assert_allclose(choice.published.forecast.quantiles, before.said, rtol=1e-5)
