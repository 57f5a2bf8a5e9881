"""Forecasts that the real flow has published, made again by the command."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from forex_core.config import load_settings
from forex_core.tracking.registry import Pin, Registry, registry_from_settings
from forex_core.types import Horizon

pytestmark = [
    pytest.mark.usefixtures("prefect_server", "kept_pictures", "light"),
    pytest.mark.timeout(280),
]

MONTH = Horizon(30)


def published(market: Path, day: date | None = None) -> str:
    from flows.forecast import FLOWS

    document = FLOWS[MONTH](pair="USDCLP", source="csv", paths=[market], as_of=day)
    return str(document["run_id"])


def replayed(run_id: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    from forex_core.cli import app

    done = CliRunner().invoke(app, ["replay", run_id[:8], "--json", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout)


def reports(run_id: str) -> Path:
    from forex_core.tracking.store import local_path

    folder = local_path(registry().client.get_run(run_id).info.artifact_uri)
    assert folder is not None
    return folder / "reports"


def registry() -> Registry:
    return registry_from_settings(load_settings())


def outcomes(document: dict[str, Any]) -> list[str]:
    return [level["outcome"] for level in document["levels"].values()]


@pytest.mark.slow
def test_a_published_forecast_is_replayed_and_an_altered_value_found(market: Path) -> None:
    run_id = published(market)
    code, document = replayed(run_id)
    assert (code, outcomes(document)) == (0, ["exact", "exact"])
    assert document["model"] == "usdclp-30d version 1, made by the run"
    assert [level["causes"] for level in document["levels"].values()] == [[], []]

    folder = reports(run_id)
    for path in [p for p in folder.rglob("*") if p.is_file() and p.name != "snapshot.parquet"]:
        path.unlink()
    code, document = replayed(run_id, "--level", "recomputed")
    assert (code, outcomes(document)) == (0, ["exact"])
    assert document["levels"]["recomputed"]["compared_with"].startswith("the tag published_digest")

    path = folder / "snapshot.parquet"
    table = pq.read_table(path)
    columns = {name: table[name].to_numpy().copy() for name in table.column_names}
    columns["driver.copper"][700] *= 1.01
    pq.write_table(pa.table(columns).replace_schema_metadata(table.schema.metadata), path)
    code, document = replayed(run_id, "--level", "recomputed")
    assert (code, outcomes(document)) == (1, ["different"])
    assert "snapshot.parquet was altered" in document["levels"]["recomputed"]["causes"][0]


@pytest.mark.slow
def test_the_forecast_of_a_pinned_champion_is_replayed_with_its_own_state(market: Path) -> None:
    first = published(market, date(2018, 5, 4))
    champion = registry().standing("usdclp-30d").champion
    assert champion is not None
    registry().enthrone(champion, Pin("test", "2018-05-05T00:00:00+00:00", "to be replayed"))
    second = published(market, date(2018, 6, 8))
    assert second != first
    for run_id, model in (
        (first, "usdclp-30d version 1, made by the run"),
        (second, "usdclp-30d version 1"),
    ):
        code, document = replayed(run_id)
        assert (code, outcomes(document)) == (0, ["exact", "exact"])
        assert document["model"] == model
