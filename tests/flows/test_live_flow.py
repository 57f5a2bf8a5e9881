"""A forecast of live data: fetched by the flow, and without a network from what the store knows."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pandas as pd
import pytest

from forex_core.errors import SourceUnavailable
from tests.contract.conftest import server
from tests.contract.test_refresh import DAYS, World

__all__ = ["server"]

pytestmark = [pytest.mark.usefixtures("prefect_server", "light"), pytest.mark.timeout(280)]


@pytest.fixture
def world(server: Any) -> World:
    return World(server)


def configure(monkeypatch: pytest.MonkeyPatch, at: str, **changed: str) -> None:
    addresses = {
        "yahoo": at,
        "fred": f"{at}/fred",
        "mindicador": f"{at}/mindicador",
        "calendar": f"{at}/week.json",
    }
    values = {
        "ADDRESSES": json.dumps(addresses),
        "NEWS_FEEDS": json.dumps([f"{at}/feed"]),
        "DRIVERS": json.dumps(["copper", "vix"]),
        "HISTORY_FROM": DAYS[0],
        "MAX_AGE_BUSINESS_DAYS": "15",
    } | changed
    for name, value in values.items():
        monkeypatch.setenv(f"FOREX_DATA__{name}", value)


@pytest.mark.slow
def test_a_flow_fetches_publishes_and_goes_on_without_a_network(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.forecast import FLOWS, load
    from forex_core.types import Horizon

    month = Horizon(30)  # which reaches past today, though the closes end days ago
    configure(monkeypatch, world.server.url)
    began = pd.Timestamp.now("UTC").floor("s")
    first = FLOWS[month](pair="USDCLP", source="live")
    assert first["origin"] == DAYS[-1]
    assert first["news"]["count"] == len(world.titles)
    assert [event["title"] for event in first["events"]["items"]] == ["CPI"]
    assert {source["name"] for source in first["data_sources"]} == {"yahoo"}
    assert first["quote"]["source"] == "yahoo"
    assert first["quote"]["value"] == pytest.approx(1.002 * first["origin_close"], rel=1e-6)
    struck = pd.Timestamp(first["quote"]["at"])
    assert began <= struck <= pd.Timestamp.now("UTC")
    assert first["quote"]["target_dates"][0] > str(struck.date()), (
        "it stands for the close of today or of the next business day"
    )

    configure(monkeypatch, "http://nowhere.invalid")
    again = FLOWS[month](pair="USDCLP", source="live", force=True)
    assert again["fingerprint"] == first["fingerprint"]
    assert any("network" in notice for notice in again["notices"])
    assert again["quote"]["absent"]["kind"] == "unavailable", "which keeps no forecast from being published"
    assert "network" in again["quote"]["absent"]["reason"]
    assert again["changes"]["run_id"] == first["run_id"]

    by_hand = FLOWS[month](pair="USDCLP", source="live", quote=first["quote"]["value"])
    assert by_hand["quote"]["source"] == "given"
    past = FLOWS[month](pair="USDCLP", source="live", as_of=date.fromisoformat(DAYS[-30]))
    assert past["quote"] == {"absent": {"kind": "past_day", "day": DAYS[-30]}}

    configure(monkeypatch, "http://nowhere.invalid", MAX_AGE_BUSINESS_DAYS="0")
    monkeypatch.setattr(load, "retries", 0)
    with pytest.raises(
        SourceUnavailable, match="Without a network: 'forex data import FILE --pair"
    ) as caught:
        FLOWS[month](pair="USDCLP", source="live")
    assert caught.type.__name__ == "NoFreshData", "which is what the failed run and its listing say"
