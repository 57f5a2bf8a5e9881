"""What is heavy is imported when it is needed and not before: seconds and hundreds of megabytes of a command."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from forex_core.config import EngineConfig
from forex_core.testing import synthetic_table

NUMERICAL = {
    "torch",
    "transformers",
    "chronos",
    "sklearn",
    "statsmodels",
    "arch",
    "matplotlib",
    "onnxruntime",
}
HEAVY = NUMERICAL | {
    "altair",
    "vl_convert",
    "jsonschema",
    "mlflow",
    "sqlalchemy",
    "prefect",
    "fastapi",
}


def loaded_after(code: str, *arguments: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running `code`."""
    tail = "\nimport json, sys\nprint(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", code + tail, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


COMMAND = """
import contextlib
from forex_core.cli import main
with contextlib.suppress(SystemExit):
    main()
"""


def modules_imported(path: Path) -> set[str]:
    """Whatever a file imports, at its top or later, as absolute names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_no_property_test_draws_from_the_global_random() -> None:
    """Hypothesis would not reproduce it, and its own warning of that is silenced for the sake of others' threads."""
    with_hypothesis = {
        path.name: modules_imported(path)
        for path in Path(__file__).parents[1].rglob("*.py")
        if "hypothesis" in path.read_text(encoding="utf-8")
    }
    assert "hypothesis" in with_hypothesis["test_ensemble.py"]
    assert [name for name, imported in with_hypothesis.items() if "random" in imported] == []


def test_the_probe_sees_what_is_loaded() -> None:
    assert "sklearn" in loaded_after("import sklearn.ensemble")


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("forecast", "--help"), ("forecast", "8d")]
)
def test_what_needs_no_forecast_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert HEAVY & loaded_after(COMMAND, *arguments) == set()


def test_an_evaluation_loads_neither_charts_nor_tracking_nor_orchestration() -> None:
    code = """
import flows, forex_core.engine, forex_core.report.document, forex_core.report.folder, forex_core.report.text
"""
    assert HEAVY & loaded_after(code) == set()


def test_the_dashboard_loads_neither_chart_library_nor_server_nor_tracking() -> None:
    loaded = loaded_after("import forex_core.dashboard, forex_core.dashboard.pages")
    assert (HEAVY - {"sqlalchemy"}) & loaded == set()


def test_an_engine_that_finds_all_answers_kept_loads_no_library(tmp_path: Path) -> None:
    """Nor does the check before a run. Weights of the package are run without torch."""
    market = tmp_path / "market.csv"
    synthetic_table(700, start="2018-06-01").to_csv(market, index=False)
    members = ("random_walk", "theta", "var", "drivers", "momentum", "chronos")
    config = EngineConfig(members=members, grid_origins=40, warmup_origins=4)
    code = """
import sys
from pathlib import Path
from forex_core.config import load_settings
from forex_core.data.bundle import load_bundle
from forex_core.data.providers import provider
from forex_core.engine import build_engine
from forex_core.types import Horizon, Pair
settings = load_settings(pair="USDCLP", paths=[sys.argv[1]], data_dir=sys.argv[2], engine=sys.argv[3])
bundle = load_bundle(provider("csv", settings.paths), Pair("USD", "CLP"), None)
engine = build_engine(settings)
engine.prepare(bundle)
assert not engine.forecast(bundle, Horizon(7)).failures
"""
    code = code.replace("engine=sys.argv[3]", "engine=__import__('json').loads(sys.argv[3])")
    arguments = (str(market), str(tmp_path / "kept"), config.model_dump_json())
    computing = loaded_after(code, *arguments)
    assert {"statsmodels", "onnxruntime"} <= computing, "the first run computes"
    assert not {"torch", "transformers", "chronos"} & computing
    assert not {"arch", "sklearn"} & computing, "it loads what the members of the engine need"
    assert NUMERICAL & loaded_after(code, *arguments) == set(), "the second finds all it needs"


@pytest.mark.slow
def test_members_declare_every_library_whose_threads_have_to_be_limited() -> None:
    """Each is asked in a fork of its own, of a process that has loaded none of them."""
    code = """
import os, sys
from threadpoolctl import threadpool_info
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import build_members, import_libraries
from forex_core.testing import synthetic_bundle
from forex_core.types import LEVELS, PATH_STEPS
bundle = synthetic_bundle(700)
for member in build_members(EngineConfig(), ChronosConfig()):
    if os.fork() == 0:
        import_libraries([member])
        limited = {one["filepath"] for one in threadpool_info()}
        member.forecast(bundle, bundle.instants[-1:], PATH_STEPS, LEVELS)
        late = {one["filepath"] for one in threadpool_info()} - limited
        sys.exit(f"{member.name} loads {late}" if late else 0)
    if os.wait()[1]:
        sys.exit(1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
