"""Two first runs at once in one fresh data folder: both finish, and both are recorded."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest


@pytest.mark.slow
def test_two_first_runs_at_once(tmp_path: Path) -> None:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("FOREX_", "PREFECT_", "MLFLOW_"))}
    forex = str(Path(sys.executable).parent / "forex")
    started = [
        subprocess.Popen(
            [forex, "forecast", horizon],
            cwd=tmp_path,
            env=kept | {"FOREX_DATA_DIR": str(tmp_path / "data 100%20 ñ")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for horizon in ("7d", "30d")
    ]
    ended = [process.communicate(timeout=280) for process in started]
    assert [process.returncode for process in started] == [0, 0], [errors for _, errors in ended]
    database = tmp_path / "data 100%20 ñ" / "mlflow" / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        statuses = connection.execute("SELECT status FROM runs").fetchall()
    assert statuses == [("FINISHED",), ("FINISHED",)]
