"""Published forecasts are written into the ledger, scored as their outcomes come, and watched."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from forex_core.calibration import FACTOR_RANGE
from forex_core.config import load_settings
from forex_core.data.providers.csv_files import CsvProvider
from forex_core.ledger import Entry, Ledger, Pending
from forex_core.monitoring import Reading, band_factors
from forex_core.testing import synthetic_table
from forex_core.tracking import LEDGER_TAG, open_store, queries
from forex_core.types import HORIZONS, Horizon, Pair
from tests.ledgers import entry

if TYPE_CHECKING:
    from tests.conftest import Webhook

pytestmark = [pytest.mark.usefixtures("prefect_server", "kept_pictures", "light"), pytest.mark.timeout(280)]

USDCLP, H7 = Pair("USD", "CLP"), Horizon(7)
DAY = date(2018, 6, 8)
ONE_TO_ONE = (
    *("pair", "rate", "horizon", "origin", "as_of", "close"),
    *("model", "version", "recipe", "fingerprint", "verdict"),
)


def forecast(market: Path, day: date = DAY, **options: Any) -> dict[str, Any]:
    from flows.forecast import FLOWS

    return FLOWS[H7](pair="USDCLP", source="csv", paths=[market], as_of=day, **options)


def monitored(market: Path, **options: Any) -> Any:
    from flows.monitor import monitor

    return monitor(pair="USDCLP", source="csv", paths=[market], return_state=True, **options)


def ledger() -> Ledger:
    settings = load_settings()
    return Ledger(settings.store_url, settings.root)


def closes(market: Path) -> pd.Series:
    table = pd.read_csv(market, parse_dates=[0], index_col=0)
    return table[next(c for c in table.columns if c.upper() == "USDCLP")]


def publish(
    market: Path,
    *,
    width: float = 1.0,
    last: int = 60,
    but: int = 7,
    horizon: Horizon = H7,
    recipe: str = "recipe",
) -> list[Entry]:
    """Forecasts of the `last` rows of the market `but` the newest, each published in its time, with bands `width` times
    as wide."""
    rates = closes(market)
    sigma = float(np.log(rates).diff().std())
    made = []
    for day in rates.index[-last:-but]:
        one = entry(day.date(), horizon, close=float(rates[day]), sigma=sigma, width=width)
        if one.steps and day.day_of_week < 5:
            made.append(replace(one, recipe=recipe, run_id=f"{one.run_id}-{recipe}"))
    book = ledger()
    for one in made:
        book.append(one)
    return made


class TestPublished:
    def test_a_forecast_is_in_the_ledger_as_it_was_published(self, market: Path, sqlite_store: str) -> None:
        document = forecast(market)
        (published,) = ledger().publications()
        path = ledger().path(published.number)
        assert published.run_id == document["run_id"]
        assert published.close == document["origin_close"]
        assert not published.live, "it was made years after its time"
        for level, values in document["quantiles"].items():
            assert path.quantiles[:, path.levels.index(float(level))].tolist() == values
        assert path.walk[:, path.levels.index(0.5)].tolist() == [document["origin_close"]] * len(path.steps)
        assert set(path.medians) == {name for name in document["models"] if name != "ensemble"}
        tags = open_store(sqlite_store).get_run(document["run_id"]).data.tags
        assert (tags[LEDGER_TAG], tags["ledger_number"]) == (published.digest, "1")
        assert len(Pending(load_settings().pending_dir)) == 0

    @pytest.mark.slow
    def test_the_same_data_are_in_it_once_and_a_correction_beside(self, market: Path) -> None:
        forecast(market)
        assert forecast(market)["already_published"]
        assert len(ledger().publications()) == 1
        forecast(market, force=True)
        assert [p.origin for p in ledger().publications()] == [DAY, DAY]

    @pytest.mark.slow
    def test_a_ledger_that_cannot_be_written_costs_no_forecast_and_gets_it_later(self, market: Path) -> None:
        settings = load_settings()
        ledger().kinds()
        database = settings.root / "store" / "forex.db"
        content = database.read_bytes()
        for beside in database.parent.glob("forex.db-*"):
            beside.unlink()
        database.write_bytes(b"no database at all" * 100)
        state = flow_state(market)
        assert state.name == "CompletedWithWarning"
        assert "The ledger could not be written" in state.message
        assert len(Pending(settings.pending_dir)) == 1
        assert state.result()["changes"] == {"absent": {"kind": "unknown"}}
        database.write_bytes(content)
        assert monitored(market, as_of=DAY).is_completed()
        (published,) = ledger().publications()
        assert published.run_id == state.result()["run_id"]
        assert len(Pending(settings.pending_dir)) == 0

    @pytest.mark.slow
    def test_while_the_ledger_is_away_each_forecast_waits_by_itself(self, market: Path) -> None:
        settings = load_settings()
        ledger().kinds()
        database = settings.root / "store" / "forex.db"
        content = database.read_bytes()
        for beside in database.parent.glob("forex.db-*"):
            beside.unlink()
        database.write_bytes(b"no database at all" * 100)
        (settings.pending_dir).mkdir()
        (settings.pending_dir / "other.json").write_text('{"pair": "USDCLP"}')
        for day in (date(2018, 5, 4), DAY):
            assert "waits in" in flow_state(market, day).message
        assert flow_state(market, DAY).result()["already_published"]
        database.write_bytes(content)
        assert "other.json is no forecast" in monitored(market, as_of=DAY).message
        assert [p.origin for p in ledger().publications()] == [date(2018, 5, 4), DAY]

    @pytest.mark.slow
    def test_what_can_be_kept_nowhere_is_said_and_published_again(self, market: Path) -> None:
        settings = load_settings()
        ledger().kinds()
        database = settings.root / "store" / "forex.db"
        content = database.read_bytes()
        for beside in database.parent.glob("forex.db-*"):
            beside.unlink()
        database.write_bytes(b"no database at all" * 100)
        settings.pending_dir.write_text("a file where the folder should be")
        assert "it is in no track record" in flow_state(market).message
        database.write_bytes(content)
        settings.pending_dir.unlink()
        again = forecast(market)
        assert "already_published" not in again
        assert [p.run_id for p in ledger().publications()] == [again["run_id"]]

    def test_without_tracking_it_is_written_all_the_same(
        self, market: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FOREX_TRACKING__ENABLED", "false")
        forecast(market)
        forecast(market, force=True)
        first, second = ledger().publications()
        assert first.run_id != second.run_id

    def test_an_address_that_is_none_is_said_before_anything_is_computed(
        self, market: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from forex_core.errors import ConfigError

        monkeypatch.setenv("FOREX_DATA__STORE_URL", "oracle://x")
        with pytest.raises(ConfigError, match=r"the ledger.s address is"):
            forecast(market)


def flow_state(market: Path, day: date = DAY) -> Any:
    return forecast(market, day, return_state=True)


class TestMonitored:
    @pytest.mark.parametrize("store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
    def test_each_forecast_is_scored_at_its_leads_and_logged_once(
        self,
        store: str,
        market: Path,
        sqlite_store: str,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if store == "postgresql":
            monkeypatch.setenv("FOREX_DATA__STORE_URL", request.getfixturevalue("new_postgres")())
        made = publish(market, last=25)
        document = monitored(market).result()
        assert document["outcomes"]["new"] > 0
        rates = closes(market)
        track = ledger().track(USDCLP, "close", H7)
        for k in range(0, len(track), 7):
            came = rates[pd.Timestamp(track.target_dates[k])]
            given = next(one for one in made if one.origin == track.origins[k].item())
            assert track.errors[k] == pytest.approx(came - given.close)
        found = document["horizons"]["7d"]
        assert [one["step"] for one in found["leads"]] == [1, 2, 3, 4, 5]
        client = open_store(sqlite_store)
        run = client.get_run(found["run_id"])
        end = track.last_lead
        assert run.data.metrics["7d_live_rmse"] == pytest.approx(float(np.sqrt((end.errors**2).mean())))
        assert run.data.metrics["random_walk_live_rmse"] == pytest.approx(found["end"]["rmse_walk"])
        history = client.get_metric_history(found["run_id"], "theta_rmse_by_step")
        assert sorted(point.step for point in history) == [1, 2, 3, 4, 5]

        again = monitored(market).result()
        assert (again["outcomes"]["new"], again["scored"]) == (0, 0)
        assert again["horizons"]["7d"]["run_id"] == found["run_id"]
        experiment = client.get_experiment_by_name("monitor_7d")
        assert experiment is not None
        assert len(client.search_runs([experiment.experiment_id])) == 1

    @pytest.mark.slow
    def test_what_the_flow_published_is_scored_by_what_came(self, market: Path) -> None:
        """Written once more as it would have been in its time: these days are years ago."""
        days = [date(2018, 4, 20), date(2018, 5, 4), date(2018, 5, 16)]
        told = {day: forecast(market, day) for day in days}
        book = ledger()
        for one in book.publications():
            path = book.path(one.number)
            book.append(
                Entry(
                    run_id=f"{one.run_id}-in-time",
                    published_at=one.as_of + pd.Timedelta(minutes=5),
                    outcome_at=one.as_of + pd.Timedelta(hours=9),
                    levels=path.levels,
                    members=tuple(path.medians),
                    weights=tuple(one.weights.values()),
                    steps=path.steps,
                    target_dates=path.target_dates,
                    quantiles=path.quantiles,
                    walk=path.walk,
                    medians=np.stack(list(path.medians.values()), axis=1),
                    **{name: getattr(one, name) for name in ONE_TO_ONE},
                )
            )
        found = {lead["step"]: lead for lead in monitored(market).result()["horizons"]["7d"]["leads"]}
        rates = closes(market)
        assert set(found) == {step for document in told.values() for step in document["steps"]}
        for step, lead in found.items():
            at = {
                day: document["steps"].index(step)
                for day, document in told.items()
                if step in document["steps"]
            }
            came = {day: rates[pd.Timestamp(told[day]["target_dates"][h])] for day, h in at.items()}
            errors = np.array([came[day] - told[day]["quantiles"]["0.5"][h] for day, h in at.items()])
            walk = np.array([came[day] - told[day]["origin_close"] for day in at])
            inside = [
                told[day]["quantiles"]["0.1"][h] <= came[day] <= told[day]["quantiles"]["0.9"][h]
                for day, h in at.items()
            ]
            assert lead["origins"] == len(at)
            assert lead["rmse"] == pytest.approx(np.sqrt((errors**2).mean()))
            assert lead["rmse_walk"] == pytest.approx(np.sqrt((walk**2).mean()))
            assert lead["coverage_80"] == np.mean(inside)
            assert set(lead["rmse_by_model"]) == set(told[days[0]]["models"]) - {"ensemble"}

    def test_a_revised_outcome_is_scored_again(self, market: Path) -> None:
        publish(market, last=25)
        first = monitored(market).result()
        table = pd.read_csv(market)
        name = next(c for c in table.columns if c.upper() == "USDCLP")
        table.loc[len(table) - 9, name] *= 1.001
        table.to_csv(market, index=False)
        second = monitored(market).result()
        assert second["outcomes"] == {"new": 0, "revised": 1}
        assert second["scored"] >= 4
        assert second["horizons"]["7d"]["run_id"] != first["horizons"]["7d"]["run_id"]
        assert ledger().verify().faults == ()

    def test_bands_that_do_not_hold_are_an_alarm_once(self, market: Path) -> None:
        publish(market, width=0.3, last=200)
        state = monitored(market)
        assert state.name == "CompletedWithWarning"
        told = [text for text in state.result()["raised"] if "narrow bands" in text]
        assert told
        assert "80 % band" in told[0]
        kept = [one for one in ledger().alarms(USDCLP) if one.alarm.kind == "narrow bands"]
        assert kept
        again = monitored(market).result()
        assert not [text for text in again["raised"] if "narrow bands" in text]

    @pytest.mark.slow
    def test_an_alarm_is_told_until_somebody_has_heard_of_it(
        self, market: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """First nobody is named, as by hand in another shell; then the server of whoever is named is down."""
        monkeypatch.setenv("FOREX_TRACKING__ENABLED", "false")
        publish(market, width=0.3, last=60)
        unheard = monitored(market)
        raised = unheard.result()["raised"]
        assert (unheard.name, unheard.result()["told"]) == ("CompletedWithWarning", [])
        monkeypatch.setenv("FOREX_NOTIFY__URLS", f"json://127.0.0.1:{webhook.port}/")
        monkeypatch.setenv("FOREX_NOTIFY__ATTEMPTS", "1")
        webhook.answers.append(503)
        lost = monitored(market)
        assert lost.name == "CompletedWithWarning"
        assert "Alarms reached nobody, and the next run tells them again: target 1" in lost.message
        later = monitored(market).result()
        assert (later["raised"], later["told"]) == ([], ["target 1 (JSON, 127.0.0.1)"])
        _, (_, body, _) = webhook.received
        assert body["title"].startswith("forex monitor: alarm of USDCLP, ")
        assert all(text in body["message"] for text in raised)
        assert monitored(market).result()["told"] == []
        assert len(webhook.received) == 2

    @pytest.mark.slow
    def test_an_alarm_that_did_not_reach_everybody_is_told_by_the_server_too(
        self, market: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FOREX_TRACKING__ENABLED", "false")
        heard = f"json://127.0.0.1:{webhook.port}/"
        monkeypatch.setenv("FOREX_NOTIFY__URLS", json.dumps([heard, "json://127.0.0.1:1/"]))
        monkeypatch.setenv("FOREX_NOTIFY__ATTEMPTS", "1")
        publish(market, width=0.3, last=60)
        some = monitored(market)
        assert some.name == "CompletedWithWarning"
        assert "Alarms did not reach target 2" in some.message
        monkeypatch.setenv("FOREX_NOTIFY__URLS", heard)
        table = pd.read_csv(market)
        table.loc[len(table) - 4, "USDCLP"] *= 0.1
        table.to_csv(market, index=False)
        every = monitored(market)
        assert every.name == "Completed", "who has heard of it is not told by the server as well"
        assert "USDCLP, repaired USDCLP: refuted" in every.message
        _, (_, body, _) = webhook.received
        assert every.result()["raised"][0] in body["message"]
        assert not any(text in body["message"] for text in some.result()["raised"])

    @pytest.mark.slow
    def test_a_look_back_judges_what_was_known_then_and_does_nothing(
        self, market: Path, sqlite_store: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The bands break in the last fifty days; before that they were right, and nobody could know."""
        monkeypatch.setenv("FOREX_AUTO_ROLLBACK", "true")
        publish(market, last=110, but=50)
        publish(market, width=0.2, last=50)
        monitored(market)
        book = ledger()
        (told,) = [
            one for one in book.alarms(USDCLP) if (one.alarm.kind, one.alarm.step) == ("narrow bands", 1)
        ]
        rates = closes(market)
        before, after = rates.index[-51].date(), rates.index[-15].date()
        assert told.alarm.origin > after
        document = monitored(market, as_of=before).result()
        alarms = {
            (one["kind"], one["step"]): one for one in document["horizons"]["7d"]["alarms"] if one["step"]
        }
        assert not any(one["raised"] for one in alarms.values())
        assert max(one["until"] for one in alarms.values()) < before.isoformat()
        assert document["horizons"]["7d"]["leads"][0]["origins"] < len(book.publications(live=True))
        # As of a day on which the alarm could be raised it is told again, for nobody had raised it by then.
        state = monitored(market, as_of=after)
        again = state.result()
        assert state.name == "Completed", "of the past nobody need hear"
        assert any("narrow bands at step 1" in text for text in again["raised"])
        assert (again["warnings"], again["horizons"]["7d"]["run_id"]) == ([], None)
        assert ledger().alarms(USDCLP) == book.alarms(USDCLP)
        client = open_store(sqlite_store)
        (experiment,) = client.search_experiments(filter_string="name = 'monitor_7d'")
        assert len(client.search_runs([experiment.experiment_id])) == 1

    def test_where_nothing_was_published_there_is_nothing_to_say(self, market: Path) -> None:
        document = monitored(market).result()
        assert document["horizons"] == {}
        assert document["outcomes"] == {"new": 0, "revised": 0}

    @pytest.mark.slow
    def test_a_horizon_that_fell_silent_is_told(self, market: Path) -> None:
        publish(market, last=60, horizon=HORIZONS[2])
        rates = closes(market)
        old = replace(entry(rates.index[-60].date(), close=float(rates.iloc[-60])), run_id="old")
        ledger().append(old)
        raised = monitored(market).result()["raised"]
        assert any("7d, silence: nothing was published for" in text for text in raised)
        again = monitored(market).result()["raised"]
        assert not any("nothing was published" in text for text in again), "it is told once"
        assert "silence" in {one.alarm.kind for one in ledger().alarms(USDCLP, horizon=H7)}

    def test_a_print_that_is_not_believed_is_told(self, market: Path) -> None:
        table = pd.read_csv(market)
        name = next(c for c in table.columns if c.upper() == "USDCLP")
        table.loc[len(table) - 4, name] *= 0.1
        table.to_csv(market, index=False)
        raised = monitored(market).result()["raised"]
        assert [text for text in raised if text.startswith("USDCLP, repaired USDCLP: refuted")]
        assert not any("repaired" in text for text in monitored(market).result()["raised"])

    def test_of_another_rate_nothing_is_scored(self, market: Path) -> None:
        rates = closes(market)
        one = replace(entry(rates.index[-20].date(), close=float(rates.iloc[-20])), rate="observed")
        ledger().append(one)
        assert monitored(market).result()["scored"] == 0


@pytest.mark.slow
def test_a_confirmed_degradation_rolls_back_where_the_settings_say_so(
    market: Path, monkeypatch: pytest.MonkeyPatch, sqlite_store: str
) -> None:
    from forex_core.tracking import registry_from_settings

    for day in (date(2018, 4, 6), date(2018, 5, 4), DAY):
        forecast(market, day)
    registry = registry_from_settings(load_settings())
    standing = registry.standing("usdclp-7d")
    before = standing.champion_number
    assert standing.champion is not None
    publish(market, width=0.3, last=200)

    def raised_again() -> Any:
        """The monitor of a ledger in which nothing was raised yet."""
        with closing(sqlite3.connect(load_settings().root / "store" / "forex.db")) as connection, connection:
            connection.execute("DROP TRIGGER IF EXISTS alarms_no_delete")
            connection.execute("DELETE FROM alarms")
        return monitored(market).result()

    document = raised_again()
    assert any("narrow bands" in text for text in document["raised"])
    assert registry.standing("usdclp-7d").champion_number == before, "nobody has asked for it"

    monkeypatch.setenv("FOREX_AUTO_ROLLBACK", "true")
    document = raised_again()
    assert any("by recipe recipe." in text for text in document["warnings"]), (
        "another's bands say nothing of it"
    )
    assert registry.standing("usdclp-7d").champion_number == before

    publish(market, width=0.3, last=200, recipe=standing.champion.recipe)
    document = raised_again()
    after = registry.standing("usdclp-7d")
    assert after.champion_number != before
    assert after.pin is not None
    assert "by the monitor" in after.pin.reason
    assert any("was rolled back from version" in text for text in document["warnings"])


def test_the_digests_of_runs_are_what_a_ledger_is_held_against(market: Path, sqlite_store: str) -> None:
    forecast(market)
    with queries.existing_store(sqlite_store) as client:
        assert client is not None
        anchors = queries.ledger_digests(client, LEDGER_TAG)
    assert ledger().verify(anchors.items()).faults == ()
    with closing(sqlite3.connect(load_settings().root / "store" / "forex.db")) as connection, connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM publications")
        connection.execute("DELETE FROM predictions")
    assert any("the ledger has none like it" in fault for fault in ledger().verify(anchors.items()).faults)


def test_the_document_is_json(market: Path) -> None:
    publish(market, last=25)
    assert json.loads(json.dumps(monitored(market).result(), allow_nan=False))["pair"] == "USDCLP"


@pytest.mark.slow
def test_bands_of_a_champion_that_is_held_are_brought_to_what_came(market: Path) -> None:
    """Its own forecasts had bands far too narrow; the version in its place has wider ones, and is held as it was."""
    from flows.rollback import rollback
    from forex_core.tracking import registry_from_settings

    for day in (date(2018, 4, 6), DAY):
        forecast(market, day)
    rollback(horizon="7d", pair="USDCLP", source="csv", paths=[market], reason="by the test")
    registry = registry_from_settings(load_settings())
    held = registry.standing("usdclp-7d").champion
    assert held is not None
    rates = closes(market)
    sigma = float(np.log(rates).diff().std())
    for day in rates.index[-200:-7]:
        given = {"close": float(rates[day]), "sigma": sigma, "version": held.number}
        first = entry(day.date(), **given, width=4.0, run_id=f"first-{day}", after=pd.Timedelta(minutes=1))
        for one in (first, entry(day.date(), **given, width=0.3)):
            ledger().append(one)
    document = monitored(market).result()
    stood = [path for path in ledger().paths(USDCLP, "close", H7) if path.of.version == held.number]
    factors = band_factors(stood, date.fromisoformat(document["origin"]), 5)
    standing = registry.standing("usdclp-7d")
    assert standing.champion is not None
    assert standing.champion.tags["adapted_from"] == str(held.number)
    assert standing.pin is not None
    assert any("7d has other bands" in text for text in document["warnings"])
    before, after = (registry.model(version)[0].state for version in (held, standing.champion))
    assert (after.factors[:5] > before.factors[:5]).all()
    np.testing.assert_allclose(after.factors, np.clip(before.factors * factors, *FACTOR_RANGE))
    assert after.weights == before.weights
    published = forecast(market, date(2018, 6, 13))
    assert published["published"]["version"] == standing.champion.number

    undone = rollback(horizon="7d", pair="USDCLP", source="csv", paths=[market], undo=True)
    assert undone["to_version"] == held.number
    assert registry.standing("usdclp-7d").pin is not None


@pytest.mark.slow
def test_without_skill_the_champion_is_rolled_back_and_bands_follow_what_came_of_the_next(
    market: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version that comes back had bands too narrow in its time, which no alarm says any more."""
    from prefect import flow

    from flows.monitor import _acted
    from forex_core.data.loading import bundle_of
    from forex_core.tracking import registry_from_settings

    for day in (date(2018, 4, 6), DAY):
        forecast(market, day)
    registry = registry_from_settings(load_settings())
    champion = registry.standing("usdclp-7d").champion
    assert champion is not None
    rates = closes(market)
    sigma = float(np.log(rates).diff().std())
    for k, day in enumerate(rates.index[-120:-7]):
        number = champion.number if k >= 80 else champion.number - 1
        one = entry(day.date(), close=float(rates[day]), sigma=sigma, width=0.3, version=number)
        ledger().append(replace(one, recipe=champion.recipe))
    monkeypatch.setenv("FOREX_AUTO_ROLLBACK", "true")
    settings = load_settings(pair="USDCLP", source="csv", paths=[market])
    bundle, book = bundle_of(settings), ledger()
    book.observe(bundle)
    book.score()
    no_skill = Reading("no skill", 5, 3.0, 2.0, 40, None, bundle.origin, "worse than the random walk")

    @flow
    def acted() -> list[str]:
        return _acted(book, bundle, H7, [no_skill], ["no skill"], settings, "csv", [market])

    done = acted()
    rolled_back, adapted = done
    former, standing = champion.number - 1, registry.standing("usdclp-7d")
    assert rolled_back == f"7d was rolled back from version {champion.number} to {former}."
    assert adapted.startswith(
        f"7d has other bands: version {standing.champion_number} is version {former} with"
    )
    assert standing.champion is not None
    assert standing.champion.tags["adapted_from"] == str(former)
    assert standing.pin is not None
    # Its successor has no forecasts of its own yet, and the next alarm changes nothing more.
    again = acted()
    assert registry.standing("usdclp-7d").champion_number == standing.champion_number
    assert len(again) == 1
    assert again[0].startswith("7d was not rolled back: ")


@pytest.mark.slow
def test_a_forecast_of_today_is_a_track_record(tmp_path: Path) -> None:
    from flows.forecast import FLOWS

    today = pd.Timestamp.now("UTC").tz_localize(None).normalize()
    start = (today - pd.offsets.BDay(900)).date().isoformat()
    table = synthetic_table(900, start=start)
    table[table.columns[0]] = pd.bdate_range(end=today - pd.offsets.BDay(1), periods=900)
    table.to_csv(tmp_path / "today.csv", index=False)
    FLOWS[H7](pair="USDCLP", source="csv", paths=[tmp_path / "today.csv"])
    (published,) = ledger().publications()
    (day, *_) = ledger().path(published.number).target_dates
    release = CsvProvider((tmp_path / "today.csv",)).spot_definition(USDCLP).release
    # So on any day but late on one whose close is out already.
    assert published.live == (published.published_at < release.instants(pd.DatetimeIndex([day]))[0])
    assert published.published_at > published.as_of - pd.Timedelta(minutes=5)
