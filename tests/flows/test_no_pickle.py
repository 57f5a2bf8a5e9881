"""No pickle is read by a run, its models, its caches and its archives, nor kept in them or as a result of Prefect's.

The files of a story of runs are looked at in test_champion_flow.py.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from forex_core.config import EngineConfig
from forex_core.errors import ForexError
from tests.flows.test_champion_flow import is_pickle, pickles

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(280)]

MEMBERS = ("random_walk", "arima_garch", "drivers", "gradient_boosting", "chronos")

READING = """
import json, pickle, sys
found = []
# CPython says which class or function an unpickler is about to load, in C and in Python.
sys.addaudithook(lambda event, arguments: found.append(str(arguments)) if event == "pickle.find_class" else None)
pickle.loads(pickle.dumps(print))
assert len(found) == 1, "the hook hears"
found.clear()

from pathlib import Path
from flows.backup import backup, restore_drill
from flows.forecast import forecast_7d
from forex_core.backup import Backups
from forex_core.config import load_settings
from forex_core.tracking import ArchivedStore

asked = {"pair": "USDCLP", "source": "csv", "paths": [Path(sys.argv[1])]}
first = forecast_7d(**asked)
again = forecast_7d(**asked, force=True)  # with what the first has kept
import mlflow
settings = load_settings()
mlflow.set_tracking_uri(settings.mlflow_uri)
mlflow.pyfunc.load_model("models:/usdclp-7d@champion")
made = backup()["created"]
assert restore_drill()["replays"][0]["replayed"]
Backups(settings, ArchivedStore()).restore(made["archive"], Path(sys.argv[2]))
print(json.dumps({"found": found, "left_out": first["failures"], "runs": [first["run_id"], again["run_id"]]}))
"""


@pytest.mark.slow
def test_nothing_is_unpickled(
    market: Path, sqlite_store: str, tiny_chronos: Callable[..., Path], tmp_path: Path
) -> None:
    """Of the models, the caches, the charts, the tracking store, archives and Prefect, Chronos' weights among them."""
    config = EngineConfig(members=MEMBERS, grid_origins=60, warmup_origins=8)
    chronos = {"model": str(tiny_chronos("2")), "context": 128}
    own = {"FOREX_ENGINE": config.model_dump_json(), "FOREX_CHRONOS": json.dumps(chronos)}
    done = subprocess.run(
        [sys.executable, "-c", READING, str(market), str(tmp_path / "restored")],
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=260,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert len(set(said["runs"])) == 2
    assert said["left_out"] == {}
    # Babel brings what it knows of languages as pickles of its own package: dates and numbers of reports.
    assert [name for name in said["found"] if not name.startswith("('babel.")] == []
    assert (tmp_path / "restored" / "mlflow" / "mlflow.db").is_file()
    assert pickles(tmp_path / "restored") == set()
    kept = [path for path in (tmp_path / "data" / "backups").rglob("*") if path.is_file()]
    contents = [pa.input_stream(str(path), compression="zstd").read() for path in kept if path.stat().st_size]
    assert len(contents) > 20
    assert not any(is_pickle(content) for content in contents)


@pytest.mark.slow
@pytest.mark.usefixtures("light", "kept_pictures")
def test_prefect_keeps_no_result_and_errors_without_a_pickle(market: Path, tmp_path: Path) -> None:
    """Even where it is told to keep results. The error of a flow that fails it keeps whatever it is told."""
    from prefect import flow
    from prefect.settings import (
        PREFECT_LOCAL_STORAGE_PATH,
        PREFECT_RESULTS_PERSIST_BY_DEFAULT,
        temporary_settings,
    )

    from flows import backup as of_backup
    from flows.forecast import forecast_7d
    from flows.notice import alert
    from flows.rollback import promote, rollback

    def kept() -> list[Path]:
        return [path for path in storage.rglob("*") if path.is_file()]

    def fails() -> None:
        raise ValueError("by the test")

    storage = tmp_path / "results"
    settings = {PREFECT_RESULTS_PERSIST_BY_DEFAULT: True, PREFECT_LOCAL_STORAGE_PATH: str(storage)}
    with temporary_settings(settings):
        forecast_7d(pair="USDCLP", source="csv", paths=[market])
        alert(title="a test", text="text")
        of_backup.backup()
        of_backup.restore_drill()
        assert kept() == []
        for failing in (promote, rollback, forecast_7d):
            horizon = {} if failing is forecast_7d else {"horizon": "7d"}
            with pytest.raises(ForexError):
                failing(pair="USDCLP", source="csv", paths=[tmp_path / "nowhere.csv"], **horizon)
        with pytest.raises(ForexError):
            of_backup.restore_drill(archive="no archive")
        assert len(kept()) == 4
        assert pickles(tmp_path) == set()
        flow(lambda: {"kept": 1}, name="kept")()
        with pytest.raises(ValueError, match="by the test"):
            flow(fails, name="fails")()
    assert len(pickles(storage)) == 2, "the results of flows that do not say how"


@pytest.mark.slow
def test_every_flow_and_task_says_that_it_keeps_no_pickle() -> None:
    from prefect import Flow, Task

    import flows

    modules = [
        importlib.import_module(f"flows.{found.name}") for found in pkgutil.iter_modules(flows.__path__)
    ]
    made = {value for module in modules for value in vars(module).values() if isinstance(value, (Flow, Task))}
    assert len(made) >= 10
    assert {value.name for value in made if value.persist_result is not False} == set()
    assert {
        value.name for value in made if isinstance(value, Flow) and value.result_serializer != "json"
    } == set()
