"""That a version was published is known though the store was out of reach when its forecast came out."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from forex_core.config import EngineConfig, load_settings
from forex_core.tracking import queries, registry_from_settings, replay_spool
from forex_core.types import Horizon, short_id

pytestmark = [pytest.mark.usefixtures("prefect_server", "kept_pictures"), pytest.mark.timeout(280)]

NAME = "usdclp-7d"
LIGHT = EngineConfig(members=("random_walk",), min_members=1, grid_origins=60, warmup_origins=8)
EARLIER, TODAY = date(2018, 5, 4), date(2018, 6, 8)


@pytest.mark.slow
def test_a_forecast_whose_mark_was_not_taken_can_be_gone_back_to(
    market: Path, sqlite_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flows.forecast as module
    from flows.rollback import rollback

    monkeypatch.setenv("FOREX_ENGINE", LIGHT.model_dump_json())

    def forecast(as_of: date) -> dict[str, Any]:
        asked = {"pair": "USDCLP", "source": "csv", "paths": [market], "as_of": as_of, "return_state": True}
        document: dict[str, Any] = module.FLOWS[Horizon(7)](**asked).result()
        return document

    database = Path(sqlite_store.removeprefix("sqlite:///"))
    write = module.write_report

    def and_lose(*arguments: Any, **named: Any) -> Any:
        document = write(*arguments, **named)
        database.rename(database.with_name("away"))
        return document

    monkeypatch.setattr(module, "write_report", and_lose)
    first = forecast(EARLIER)
    assert first["warnings"] == [module.TOLD_SPOOLED]
    monkeypatch.setattr(module, "write_report", write)
    database.with_name("away").rename(database)

    settings = load_settings()
    registry = registry_from_settings(settings)
    assert not registry.version(NAME, 1).published
    (replayed,) = replay_spool(settings.data_dir / "spool", sqlite_store)
    run = registry.client.get_run(str(replayed.run_id))
    assert (run.info.run_id, run.data.tags["published_version"]) == (first["run_id"], "1")
    assert registry.version(NAME, 1).published
    forecast(TODAY)
    assert rollback("7d", "USDCLP", dry_run=True)["to_version"] == 1


def test_a_run_that_was_spooled_from_its_start_has_a_folder_of_its_own(
    market: Path, sqlite_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flows.forecast as module

    monkeypatch.setenv("FOREX_ENGINE", LIGHT.model_dump_json())
    database, choose = Path(sqlite_store.removeprefix("sqlite:///")), module.choose

    def and_lose(*arguments: Any, **named: Any) -> Any:
        choice = choose(*arguments, **named)
        database.rename(database.with_name("away"))
        return choice

    monkeypatch.setattr(module, "choose", and_lose)
    asked = {"pair": "USDCLP", "source": "csv", "paths": [market], "as_of": TODAY, "return_state": True}
    document = module.FLOWS[Horizon(7)](**asked).result()
    database.with_name("away").rename(database)
    spool_id = document["run_id"]
    assert Path(document["report"]).parent.name.endswith(f"_{short_id(spool_id)}")
    (replayed,) = replay_spool(load_settings().data_dir / "spool", sqlite_store)
    client = registry_from_settings(load_settings()).client
    assert client.get_run(str(replayed.run_id)).data.tags["spool_id"] == spool_id
    assert queries.run(client, short_id(spool_id)).id == replayed.run_id
