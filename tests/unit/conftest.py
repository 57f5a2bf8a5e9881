"""A small market and the same one day on, for the modules that need no other."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from forex_core.testing import bundle_of, synthetic_table
from forex_core.types import MarketBundle
from tests.deployments import Deployment

ROWS = 760


@pytest.fixture(scope="session")
def table() -> pd.DataFrame:
    """Of one row more than `bundle` has; to be read."""
    return synthetic_table(ROWS + 1, seed=5)


@pytest.fixture(scope="session")
def bundle(table: pd.DataFrame) -> MarketBundle:
    return bundle_of(table[:ROWS])


@pytest.fixture(scope="session")
def following(table: pd.DataFrame) -> MarketBundle:
    """The same market one day on."""
    return bundle_of(table)


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    """Without a tracking store."""
    return Deployment(tmp_path)


@pytest.fixture
def tracked(sqlite_store: str, tmp_path: Path) -> Deployment:
    """With a migrated tracking store."""
    return Deployment(tmp_path)
