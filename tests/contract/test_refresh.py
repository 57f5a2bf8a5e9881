"""From the network through the store to a bundle: fallback, revisions, and what happens without a network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forex_core.config import Settings, load_settings
from forex_core.data import refresh as room
from forex_core.data.catalogue import FRED, YAHOO, entry
from forex_core.data.loading import bundle_of, refresh, store_of
from forex_core.data.refresh import is_due
from forex_core.errors import DataQualityError, SourceUnavailable
from tests.contract.bad_days import Behaviour, Handler, Server, good, html, status
from tests.contract.test_fetchers import fred_table
from tests.contract.test_news_and_events import rss
from tests.contract.test_yahoo import chart, yahoo

TODAY = pd.Timestamp.now(tz="UTC").tz_localize(None).normalize()
DAYS = [str(day.date()) for day in pd.bdate_range(end=TODAY - pd.Timedelta(days=10), periods=600)]
"""They end long enough ago for a later close to be due on any day and at any hour."""
NOWHERE = "http://nowhere.invalid"
DRIVERS = ("copper", "vix", "chile_tpm")


def walk(seed: int, level: float) -> list[float]:
    moves = np.random.default_rng(seed).normal(0, 0.005, len(DAYS))
    return [round(float(value), 4) for value in level * np.exp(np.cumsum(moves))]


CLOSES = {"usdclp_close": walk(1, 900.0), "copper": walk(2, 4.0), "vix": walk(3, 15.0)}
CODES = {"CLP=X": "usdclp_close", "HG=F": "copper", "^VIX": "vix"}


@dataclass
class World:
    """Every source behind one server; those in `down` answer 404, which is not worth a second attempt."""

    server: Server
    down: set[str] = field(default_factory=set)
    closes: dict[str, list[float]] = field(default_factory=lambda: {k: list(v) for k, v in CLOSES.items()})
    titles: list[str] = field(default_factory=lambda: ["Copper falls", "Rates stay"])

    def __post_init__(self) -> None:
        self.server.play(self.behave)

    def behave(self, handler: Handler) -> None:
        path = handler.asked.path
        source = next((name for name in ("fred", "mindicador", "feed", "week") if f"/{name}" in path), YAHOO)
        if source in self.down:
            status(404, "gone")(handler)
        else:
            self.answer(source, path)(handler)

    def answer(self, source: str, path: str) -> Behaviour:
        if source == FRED:
            return good(fred_table(list(zip(DAYS, self.closes["vix"], strict=True))), Content_Type="text/csv")
        if source == "mindicador":
            return self.policy_rate(int(path.rpartition("/")[2]))
        if source == "feed":
            now = pd.Timestamp.now(tz="UTC") - pd.Timedelta(hours=2)
            items = [
                (t, f"https://desk.example/{k}", f"{now:%a, %d %b %Y %H:%M:%S} GMT")
                for k, t in enumerate(self.titles)
            ]
            return good(rss(items), Content_Type="application/rss+xml")
        if source == "week":
            soon = (pd.Timestamp.now(tz="UTC") + pd.Timedelta(days=2)).isoformat(timespec="seconds")
            events = [
                {"title": "CPI", "country": code, "date": soon, "impact": "High"} for code in ("USD", "EUR")
            ]
            return good(events)
        code = next((code for code in CODES if path.endswith(code) or code in path.replace("%5E", "^")), None)
        if code is None:
            return yahoo(html)
        name = CODES[code]
        now = int(pd.Timestamp.now(tz="UTC").timestamp())
        price = round(1.002 * self.closes[name][-1], 4)
        said = {"regularMarketPrice": price, "regularMarketTime": now}
        return yahoo(good(chart(DAYS, self.closes[name], name, **said)))

    def policy_rate(self, year: int) -> Behaviour:
        rows = [{"fecha": f"{day}T04:00:00.000Z", "valor": 5.0} for day in DAYS if day.startswith(str(year))]
        document = {"codigo": "tpm", "unidad_medida": "Porcentaje", "serie": rows[::-1]}
        return good(json.dumps(document))

    def asked(self, word: str) -> int:
        return sum(word in asked.path for asked in self.server.asked)


@pytest.fixture
def world(server: Server) -> World:
    return World(server)


def settings_of(world: World, source: str = "live", **changed: Any) -> Settings:
    at = world.server.url
    data = {
        "addresses": {
            YAHOO: at,
            FRED: f"{at}/fred",
            "mindicador": f"{at}/mindicador",
            "calendar": f"{at}/week.json",
        },
        "news_feeds": (f"{at}/feed",),
        "drivers": DRIVERS,
        "history_from": date.fromisoformat(DAYS[0]),
        "max_age_business_days": 15,
    }
    return load_settings(pair="USDCLP", source=source, data={**data, **changed})


def offline(world: World, source: str = "live", **changed: Any) -> Settings:
    names = (YAHOO, FRED, "mindicador", "calendar")
    gone = {"addresses": dict.fromkeys(names, NOWHERE), "news_feeds": (NOWHERE,)}
    return settings_of(world, source, **gone, **changed)


def test_a_live_bundle_holds_what_the_sources_gave(world: World) -> None:
    bundle = bundle_of(settings_of(world))
    assert str(bundle.origin) == DAYS[-1]
    np.testing.assert_allclose(bundle.spot[-3:], CLOSES["usdclp_close"][-3:])
    assert set(bundle.driver_names) == set(DRIVERS)
    given = {source.name: set(source.series) for source in bundle.sources}
    assert given == {"yahoo": {"usdclp_close", "copper", "vix"}, "mindicador": {"chile_tpm"}}
    assert [one.title for one in bundle.news] == world.titles
    assert [one.currency for one in bundle.events] == ["USD"], "of the pair's currencies alone"
    assert not [repair for repair in bundle.repairs if repair.kind in ("offline", "missing")]


def test_what_is_not_due_is_not_asked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(world)
    refresh(settings)
    done = refresh(settings, ("usdclp_close",))
    assert done[0].is_due, "a later close has been released and nobody has given it"
    assert done[0].recorded.total.rows == 0
    monkeypatch.setattr(room, "is_due", lambda *_: False)
    first = len(world.server.asked)
    assert not any(one.is_due for one in refresh(settings, ("usdclp_close", "copper")))
    assert len(world.server.asked) == first


def test_the_next_source_is_asked_where_the_first_fails_and_is_told(world: World) -> None:
    world.down.add(YAHOO)
    (vix,) = refresh(settings_of(world), ("vix",))
    assert (vix.source, set(vix.failures)) == (FRED, {YAHOO})
    store = store_of(settings_of(world))
    known = store.values("vix", pd.Timestamp.now(tz="UTC"))
    assert set(known.sources) == {FRED}
    world.down.clear()
    world.closes["vix"][-1] += 0.5
    (vix,) = refresh(settings_of(world), ("vix",), force=True)
    assert (vix.source, vix.recorded.total.revisions) == (YAHOO, 1)
    assert store.values("vix", pd.Timestamp.now(tz="UTC")).values[-1] == pytest.approx(
        world.closes["vix"][-1]
    )
    world.down.add(YAHOO)
    world.closes["vix"][-1] += 0.5
    (vix,) = refresh(settings_of(world), ("vix",), force=True)
    assert (vix.recorded.total.outranked, vix.recorded.total.rows) == (1, 0), (
        "a lower source writes over no higher one"
    )


def test_a_source_that_is_out_of_reach_is_asked_once(world: World) -> None:
    done = refresh(offline(world), ("usdclp_close", "copper"))
    assert all(one.failed for one in done)
    assert "check the network" in done[0].why
    assert "as for usdclp_close" in done[1].why


def test_a_revision_is_recorded_beside_what_it_revises(world: World) -> None:
    settings = settings_of(world)
    refresh(settings, ("usdclp_close",))
    before = pd.Timestamp.now(tz="UTC")
    world.closes["usdclp_close"][-3] *= 1.01
    (close,) = refresh(settings, ("usdclp_close",), force=True)
    assert close.recorded.total.revisions == 1
    store, day = store_of(settings), date.fromisoformat(DAYS[-3])
    assert len(store.history("usdclp_close", day)) == 2
    assert store.values("usdclp_close", before, day, day).values[0] == CLOSES["usdclp_close"][-3]


def test_without_a_network_a_fresh_store_serves_and_says_so(world: World) -> None:
    refresh(settings_of(world))
    world.server.play(status(500))
    bundle = bundle_of(offline(world))
    assert str(bundle.origin) == DAYS[-1]
    assert len(bundle.news) == 2, "those it knew"
    assert all("network" in r.note or "reach" in r.note for r in bundle.repairs if r.kind == "offline")


@pytest.mark.slow
def test_without_a_network_a_stale_store_fails_and_names_the_offline_commands(world: World) -> None:
    refresh(settings_of(world))
    with pytest.raises(SourceUnavailable) as failed:
        bundle_of(offline(world, max_age_business_days=0))
    for words in ("usdclp_close", "is stale", "forex data import FILE", "--source store", "--source csv"):
        assert words in str(failed.value)
    assert "--source ecb" not in str(failed.value), "it has no peso of Chile"
    with pytest.raises(SourceUnavailable, match="or the embedded rates with --source ecb"):
        bundle_of(offline(world).model_copy(update={"pair": "USDMXN"}))


def test_without_a_network_and_a_store_the_reason_is_the_network(world: World) -> None:
    with pytest.raises(
        SourceUnavailable, match=r"no fresh data of USDCLP.*check the network.*holds no usdclp_close"
    ):
        bundle_of(offline(world))


def test_a_day_that_the_store_has_needs_no_network(world: World) -> None:
    refresh(settings_of(world))
    before = len(world.server.asked)
    bundle = bundle_of(settings_of(world), date.fromisoformat(DAYS[-20]))
    assert str(bundle.origin) == DAYS[-20]
    assert len(world.server.asked) == before


@pytest.mark.slow
def test_auto_is_live_or_embedded_and_never_both(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    live = bundle_of(settings_of(world, "auto"))
    assert {source.name for source in live.sources} == {"yahoo", "mindicador"}
    monkeypatch.setenv("FOREX_PAIR", "USDMXN")
    gone = offline(world, "auto").model_copy(update={"pair": "USDMXN"})
    embedded = bundle_of(gone)
    assert set(embedded.driver_names) == {"dollar_index", "commodity_fx"}
    assert len(embedded.sources) == 1
    (told,) = [repair for repair in embedded.repairs if repair.kind == "offline"]
    assert "embedded" in told.note
    with pytest.raises(SourceUnavailable, match="no fresh data of USDCLP"):
        bundle_of(offline(world, "auto", max_age_business_days=0))
    needy = offline(world, "auto", required=("copper",)).model_copy(update={"pair": "USDMXN"})
    with pytest.raises(SourceUnavailable, match="no fresh data of USDMXN"):
        bundle_of(needy)


def test_auto_does_not_fall_back_where_good_live_data_lack_a_required_driver(world: World) -> None:
    """The pair is one that the embedded rates hold, and what is required one that they have and the live data lack."""
    pesos = chart(DAYS, CLOSES["usdclp_close"], "usdclp_close", symbol="MXN=X", currency="MXN")

    def behave(handler: Handler) -> None:
        (yahoo(good(pesos)) if "MXN=X" in handler.asked.path else world.behave)(handler)

    world.server.play(behave)
    asked = settings_of(world, "auto", drivers=("copper",), required=("dollar_index",))
    with pytest.raises(DataQualityError, match="required series 'dollar_index' is missing"):
        bundle_of(asked.model_copy(update={"pair": "USDMXN"}))


@pytest.mark.slow
def test_no_feed_is_asked_where_no_headline_is_shown(world: World) -> None:
    refresh(settings_of(world, news_days=0))
    assert world.asked("feed") == 0
    refresh(settings_of(world))
    assert world.asked("feed") == 1


def test_optional_series_that_are_missing_are_said_and_required_ones_refused(world: World) -> None:
    world.down.add("mindicador")
    bundle = bundle_of(settings_of(world))
    assert "chile_tpm" not in bundle.driver_names
    assert [r.series for r in bundle.repairs if r.kind == "missing"] == ["chile_tpm"]
    with pytest.raises(DataQualityError, match="required series 'chile_tpm' is missing"):
        bundle_of(settings_of(world, required=("chile_tpm",)))


@pytest.mark.parametrize(
    ("name", "last", "now", "due"),
    [
        ("usdclp_close", "2024-06-27", "2024-06-28 22:59", False),
        ("usdclp_close", "2024-06-27", "2024-06-28 23:01", True),
        ("copper", "2024-06-27", "2024-06-28 20:59", False),
        ("copper", "2024-06-27", "2024-06-28 21:01", True),
        ("usdclp_close", "2024-06-28", "2024-06-30 12:00", False),
        ("fed_rate", "2024-06-27", "2024-07-01 20:14", False),
        ("fed_rate", "2024-06-27", "2024-07-01 20:16", True),
        ("ipc", "2024-05-31", "2024-07-09 12:00", False),
        ("ipc", "2024-05-31", "2024-07-09 14:00", True),
        ("copper", None, "2024-07-09 14:00", True),
    ],
)
def test_a_series_is_due_when_a_later_value_is_released(
    name: str, last: str | None, now: str, due: bool
) -> None:
    held = date.fromisoformat(last) if last else None
    assert is_due(entry(name), held, pd.Timestamp(now, tz="UTC")) is due


def test_a_series_that_nobody_gives_is_missed_where_it_is_named_and_only_there(world: World) -> None:
    def missed(**data: Any) -> list[str]:
        bundle = bundle_of(settings_of(world, "store", **data))
        return [repair.series for repair in bundle.repairs if repair.kind == "missing"]

    refresh(settings_of(world))
    assert "chile_rate" not in missed(drivers=None)
    assert missed(drivers=("copper", "chile_rate")) == ["chile_rate"]


Forex = Callable[..., Any]


def test_the_command_tells_what_came_from_where(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from forex_core.cli import app

    world.down |= {YAHOO}
    monkeypatch.setenv(
        "FOREX_DATA__ADDRESSES", json.dumps({YAHOO: world.server.url, FRED: f"{world.server.url}/fred"})
    )
    done = CliRunner().invoke(app, ["data", "fetch", "vix", "--pair", "USDCLP"])
    assert done.exit_code == 0, done.output
    assert "fred" in done.stdout
    assert "yahoo: " in done.stdout
    done = CliRunner().invoke(app, ["data", "fetch", "copper", "--pair", "USDCLP"])
    assert isinstance(done.exception, SourceUnavailable)
    assert "copper could not be fetched" in str(done.exception)
    done = CliRunner().invoke(app, ["data", "fetch", "gold"])
    assert "no source gives 'gold'" in str(done.exception)
