"""What a forecast run adds to the tracking store for good: rows of the database, and files."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from forex_core.config import EngineConfig
from forex_core.models.chronos_weights import GRAPH
from forex_core.testing import synthetic_table
from forex_core.tracking import open_store
from forex_core.types import Horizon

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_server", "kept_pictures"),
    pytest.mark.timeout(280),
]

RUNS = 20
DATABASE_MB_PER_100_RUNS = 5.0
FILES_MB_PER_RUN = 3.0
GRAPH_MB_PER_RUN = 3.3
"""Of the neural member, which goes with every model; beside what the run itself adds."""
ENGINE = EngineConfig(members=("random_walk", "theta", "var", "drivers", "momentum", "chronos"))
# Drivers move the price of `synthetic_table`: a recipe of members that do not read them stays a challenger.
OTHER = ENGINE.model_copy(update={"members": ("random_walk", "theta", "momentum")})


def database_mb(path: Path) -> float:
    """As committed, whether or not it is in the file yet."""
    with closing(sqlite3.connect(path)) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (bytes_each,) = connection.execute("PRAGMA page_size").fetchone()
    return float(pages * bytes_each / 1e6)


def files_mb(folder: Path) -> float:
    """Without graphs, which have a bound of their own."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != GRAPH)
    return sum(file.stat().st_size for file in files) / 1e6


def test_a_store_grows_within_its_bounds_over_the_days(
    sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new state every day; in the second half that of a challenger, so that two forecasts are scored and logged."""
    from flows.forecast import FLOWS

    database = Path(sqlite_store.removeprefix("sqlite:///"))
    market, table = tmp_path / "market.csv", synthetic_table(2600, start="2016-01-04")
    table.to_csv(market, index=False)
    grown, files = [], [0.0]
    for number, day in enumerate(table["Date"].iloc[-RUNS:]):
        engine = ENGINE if number < RUNS // 2 else OTHER
        monkeypatch.setenv("FOREX_ENGINE", engine.model_dump_json())
        asked = {"pair": "USDCLP", "source": "csv", "paths": [market], "as_of": pd.Timestamp(day).date()}
        FLOWS[Horizon(7)](**asked)
        grown.append(database_mb(database))
        files.append(files_mb(database.parent / "mlruns"))

    client = open_store(sqlite_store)
    experiment = client.get_experiment_by_name("forecaster_7d")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * RUNS
    assert sum("challenger" in run.data.tags for run in runs) == RUNS // 2
    assert len(client.search_model_versions("name = 'usdclp-7d'")) == RUNS
    assert len(client.search_logged_models([experiment.experiment_id])) == RUNS

    # The first runs fill pages that the empty tables have already.
    later = grown[RUNS // 2 :]
    per_100 = 100 * (later[-1] - later[0]) / (len(later) - 1)
    each = [after - before for before, after in pairwise(files)]
    print(f"{per_100:.2f} MB of database per 100 runs, at most {max(each):.2f} MB of files a run")
    assert 0 < per_100 <= DATABASE_MB_PER_100_RUNS
    assert 0 < min(each) <= max(each) <= FILES_MB_PER_RUN
    graphs = [file.stat().st_size / 1e6 for file in (database.parent / "mlruns").rglob(GRAPH)]
    assert 0 < len(graphs) <= RUNS
    assert max(graphs) <= GRAPH_MB_PER_RUN
