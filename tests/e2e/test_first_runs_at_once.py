"""First runs at once in one fresh data folder, each with a Prefect server of its own: all finish, all are recorded."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import product
from pathlib import Path

import pytest

from forex_core.config import EngineConfig

pytestmark = pytest.mark.slow

LIGHT = EngineConfig(members=("random_walk", "theta", "drivers"), grid_origins=60, warmup_origins=8)


def forecast_at_once(folder: Path, wanted: Sequence[tuple[str, str]], settings: Mapping[str, str]) -> Path:
    """The tracking database of a folder in which a forecast of each pair and horizon was started at once."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("FOREX_", "PREFECT_", "MLFLOW_"))}
    forex, data = str(Path(sys.executable).parent / "forex"), folder / "data 100%20 ñ"
    started = [
        subprocess.Popen(
            [forex, "forecast", horizon, "--pair", pair],
            cwd=folder,
            env=kept | {"FOREX_DATA_DIR": str(data), **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for pair, horizon in wanted
    ]
    ended = [process.communicate(timeout=560) for process in started]
    codes = [process.returncode for process in started]
    assert codes == [0] * len(wanted), [errors for _, errors in ended if errors]
    return data / "mlflow" / "mlflow.db"


def rows(database: Path, question: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.execute(question))


def test_two(tmp_path: Path) -> None:
    database = forecast_at_once(tmp_path, [("USDMXN", "7d"), ("USDMXN", "30d")], {})
    assert rows(database, "SELECT status FROM runs") == [("FINISHED",)] * 2


@pytest.mark.timeout(600)
def test_eight(tmp_path: Path) -> None:
    """With a light engine: what they have in common is the folder, not the processor."""
    wanted = list(product(("USDMXN", "EURUSD"), ("7d", "15d", "30d", "90d")))
    database = forecast_at_once(tmp_path, wanted, {"FOREX_ENGINE": LIGHT.model_dump_json()})
    assert rows(database, "SELECT status FROM runs") == [("FINISHED",)] * 8
    champions = rows(
        database, "SELECT name FROM registered_model_aliases WHERE alias = 'champion' ORDER BY name"
    )
    assert champions == sorted((f"{pair.lower()}-{horizon}",) for pair, horizon in wanted)
    assert rows(database, "PRAGMA integrity_check") == [("ok",)]
