"""What the flows run on: a light engine, a store that is migrated, a file of prices."""

from __future__ import annotations

from pathlib import Path

import pytest

from forex_core.config import EngineConfig
from forex_core.testing import synthetic_table


@pytest.fixture
def market(tmp_path: Path) -> Path:
    path = tmp_path / "market.csv"
    synthetic_table(900).to_csv(path, index=False)
    return path


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch, sqlite_store: str) -> EngineConfig:
    """A light engine, by the environment, as a deployment would set it; Chronos is left out of every run."""
    members = ("random_walk", "theta", "var", "drivers", "chronos")
    config = EngineConfig(members=members, grid_origins=60, warmup_origins=8)
    monkeypatch.setenv("FOREX_ENGINE", config.model_dump_json())
    monkeypatch.setenv("FOREX_CHRONOS", '{"model": null}')
    return config
