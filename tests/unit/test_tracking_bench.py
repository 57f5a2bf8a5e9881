"""The bounds on what tracking costs can be missed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[1] / "bench"
MET = {
    "run": 20.0,
    "run with files": 30.0,
    "noop": 0.1,
    "jobs": 1.2,
    "database": 4.0,
    "PostgreSQL: run": 99.0,
}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    spec = importlib.util.spec_from_file_location("tracking_speed", BENCH / "tracking_speed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delitem(sys.modules, "bounds", raising=False)
    return module


def test_a_bound_is_met_up_to_it_and_missed_past_it(bench: ModuleType) -> None:
    assert all(figure.met for figure in bench.figures(MET))
    for name, bound in (("run", 25), ("run with files", 40), ("noop", 0.5), ("jobs", 1.4), ("database", 5)):
        assert all(figure.met for figure in bench.figures(MET | {name: bound}))
        for value in (bound * 1.01, float("nan")):
            assert [figure.met for figure in bench.figures(MET | {name: value})].count(False) == 1


def test_a_database_that_tells_nothing_of_its_size_yet_is_asked_for_it(
    bench: ModuleType, sqlite_store: str, tmp_path: Path
) -> None:
    """What lies in the write-ahead log counts."""
    from forex_core.tracking import MLflowTracker

    database = Path(sqlite_store.removeprefix("sqlite:///"))
    before = bench.size_of(database)
    for _ in range(5):
        bench.run_once(lambda: MLflowTracker(sqlite_store, "bench"), None)
    assert 5_000 < (bench.size_of(database) - before) / 5 < 100_000
