"""What the benchmarks of time and memory make of what they measure."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType

import pytest

from forex_core.ledger import Ledger
from forex_core.types import Horizon

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The benchmarks as modules; as scripts they find each other beside them."""
    monkeypatch.syspath_prepend(BENCH)
    loaded = {}
    for name in ("bounds", "servers", "engine_speed", "command_speed", "dashboard_speed"):
        spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        loaded[name] = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, loaded[name])
        spec.loader.exec_module(loaded[name])
    return loaded


@pytest.mark.parametrize(
    ("value", "bound", "code"),
    [(9.9, 10.0, 0), (10.0, 10.0, 0), (10.1, 10.0, 1), (1e9, None, 0), (float("nan"), 10.0, 1)],
)
def test_a_bound_is_missed_past_it_and_by_no_number(
    value: float,
    bound: float | None,
    code: int,
    bench: dict[str, ModuleType],
    capsys: pytest.CaptureFixture[str],
) -> None:
    bounds = bench["bounds"]
    met = bounds.Figure("met", 1.0, "s", 2.0)
    assert bounds.judge("title", [met, bounds.Figure("figure", value, "s", bound)]) == code
    assert ("MISSED" in capsys.readouterr().out) == bool(code)


def test_stages_are_told_by_the_log_across_midnight(bench: dict[str, ModuleType]) -> None:
    log = (
        "23:59:58.500 INFO    input read: 900 rows\n"
        "23:59:59.000 | INFO    | prefect - something\n"
        "00:00:01.000 INFO    flow started: USDMXN 7d\n"
        "00:00:01.250 INFO    run logged: abc\n"
    )
    spent = bench["command_speed"].stages(log, datetime(2026, 1, 1, 23, 59, 58), 4.0)
    assert list(spent.values()) == pytest.approx([0.5, 2.5, 0.25, 0.75])
    assert sum(spent.values()) == pytest.approx(4.0)


def runs(bench: dict[str, ModuleType], **changes: dict[str, tuple[float, float]]) -> dict[str, list[object]]:
    module = bench["engine_speed"]
    measured = {
        "cold": {"one": (6.0, 6.0), "others": (1.0, 1.0)},
        "next day": {"next day": (1.0, 1.0), "beside": (1.0, 1.0)},
        "imports": {"imports": (2.0, 2.0)},
        "origins": {str(n): (n / 50, n / 50) for n in module.ORIGINS},
        "history": {str(n): (1.0, 1.0) for n in module.HISTORY},
        "daily": {str(n): (1.0, 1.0) for n in range(1, 31)},
    }
    return {name: [values] for name, values in (measured | changes).items()}


def missed(bench: dict[str, ModuleType], **changes: dict[str, tuple[float, float]]) -> list[str]:
    return [f.what for f in bench["engine_speed"].figures(runs(bench, **changes)) if not f.met]


def test_the_engines_bounds_can_be_missed(bench: dict[str, ModuleType]) -> None:
    origins = bench["engine_speed"].ORIGINS
    assert missed(bench) == []
    slow = {"next day": {"next day": (1.0, 1.0), "beside": (3.1, 1.0)}}
    assert missed(bench, **slow) == ["what stands beside a forecast"]
    assert missed(bench, cold={"one": (10.5, 9.0), "others": (1.0, 1.0)}) == ["260 origins, cold"]
    assert missed(bench, cold={"one": (6.0, 6.0), "others": (6.0, 6.0)}) == [
        "four horizons in one process over one"
    ]
    assert len(missed(bench, origins={str(n): (n**1.5, n**1.5) for n in origins})) == 1
    assert len(missed(bench, daily={str(n): (1 + n / 20, 1 + n / 20) for n in range(1, 31)})) == 1


def test_the_server_of_a_benchmark_starts(bench: dict[str, ModuleType]) -> None:
    """The benches that measure PostgreSQL are run by hand; here, that what they begin with still works."""
    with bench["servers"].postgres_server() as server:
        if server is None:
            pytest.skip("there is no PostgreSQL here; install the package postgresql")
        server.execute("CREATE DATABASE bench")
        assert server.uri("bench").startswith("postgresql://")


def test_the_ledger_of_the_dashboards_bench_is_one(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'forex.db'}"
    publications, rows = bench["dashboard_speed"].build_ledger(url, fewer=60)
    ledger = Ledger(url)
    assert len(ledger.latest()) == 8
    assert len(ledger.publications()) == publications
    for pair, rate in ledger.kinds():
        track = ledger.track(pair, rate, Horizon(7))
        assert len(track)
        assert set(track.steps.tolist()) == {1, 2, 3, 4, 5}
        assert 0 < abs(track.walk_errors / track.closes).max() < 0.1
    assert rows > 10 * publications


@pytest.mark.slow
def test_the_dashboard_of_a_fifth_of_the_years_keeps_its_bounds(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FOREX_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, BENCH / "dashboard_speed.py", "--quick", "--folder", tmp_path],
        env=kept | {"COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    judged = dict(line.split("│")[1:5:3] for line in done.stdout.splitlines() if "│" in line)
    shown = {what.strip(): verdict.strip() for what, verdict in judged.items()}
    assert shown["overview, made anew"] == "met"
    assert "usdclp-90d-2025.html, made anew" in shown
    assert list(tmp_path.iterdir()) == []
