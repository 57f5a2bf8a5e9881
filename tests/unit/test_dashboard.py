"""What the dashboard computes of the ledger, and the pictures that it draws of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forex_core.calendars import is_business_day, origin_instant
from forex_core.config import Settings, load_settings
from forex_core.dashboard import Reader, api, charts, runs_document, runs_markdown
from forex_core.dashboard.drawing import Band, Chart, Label, Line, Rows, date_ticks
from forex_core.dashboard.pages import page
from forex_core.dashboard.reading import Trailing
from forex_core.dashboard.sources import Series
from forex_core.dashboard.words import day as day_words
from forex_core.dashboard.words import number
from forex_core.data.catalogue import entry as catalogued
from forex_core.data.observations import Observations
from forex_core.data.store import ObservationStore
from forex_core.ledger import Alarm, Ledger, Pending, Track
from forex_core.types import HORIZONS, Horizon
from tests import dashboards
from tests.ledgers import USDCLP, entry

H7 = Horizon(7)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path / "data")


def reader(settings: Settings, now: pd.Timestamp = dashboards.NOW) -> Reader:
    return Reader(settings, dashboards.Told(), lambda: now)


def track(n: int, seed: int = 5) -> Track:
    draw = np.random.default_rng(seed)
    days = np.datetime64("2026-01-05") + np.arange(n)
    errors, walk = draw.standard_normal(n), draw.standard_normal(n)
    return Track(
        USDCLP, H7, np.arange(n, dtype=float), days, np.full(n, 5.0), days + 7, np.full(n, 950.0),
        np.full(n, 950.0), errors, np.abs(errors) / 2, draw.random(n) < 0.8, draw.random(n) < 0.95,
        walk, np.abs(walk) / 2, draw.random(n) < 0.8, draw.random(n) < 0.95,
    )  # fmt: skip


class TestTrailing:
    @pytest.mark.parametrize(("n", "window", "least"), [(90, 60, 20), (25, 60, 20), (30, 7, 7)])
    def test_is_what_a_slow_loop_finds(self, n: int, window: int, least: int) -> None:
        of = track(n)
        found = Trailing.of(of, window, least)
        expected = []
        for last in range(1, n + 1):
            some = slice(max(0, last - window), last)
            if len(of.errors[some]) >= least:
                rmse = np.sqrt((of.errors[some] ** 2).mean() / (of.walk_errors[some] ** 2).mean())
                crps = of.crps[some].mean() / of.walk_crps[some].mean()
                shares = of.inside_80[some].mean(), of.inside_95[some].mean()
                expected.append([len(of.errors[some]), *shares, rmse, crps])
        shown = [found.counts, found.coverage_80, found.coverage_95, found.rmse_ratio_rw, found.crps_ratio_rw]
        np.testing.assert_allclose(np.transpose(shown), expected, rtol=1e-9)
        assert found.days.tolist() == of.target_dates[least - 1 :].tolist()

    def test_of_too_few_there_is_nothing(self) -> None:
        assert len(Trailing.of(track(19)).days) == 0
        assert len(Trailing.of(track(0)).days) == 0


class TestReader:
    def test_a_horizon_that_has_not_spoken_for_too_long_is_silent(self, settings: Settings) -> None:
        ledger = Ledger(settings.store_url)
        ledger.append(entry(dashboards.LAST))
        ledger.append(entry(dashboards.LAST, Horizon(30)))
        later = dashboards.NOW + pd.Timedelta(days=6)
        silent = {
            str(one.series.horizon): one.silence.is_silent for one in reader(settings, later).outlooks()
        }
        assert silent == {"7d": True, "30d": False}
        assert "no forecast for 6 days" in str(page("index.html", reader(settings, later)))
        assert "The last forecast is 6 days old" in str(page("usdclp-7d.html", reader(settings, later)))

    def test_a_pair_stands_over_its_newest_close(self, settings: Settings) -> None:
        """Of whichever horizon, for the longest speak the least often."""
        ledger = Ledger(settings.store_url, settings.root)
        ledger.append(entry(date(2026, 3, 2), Horizon(90), close=948.5))
        ledger.append(entry(date(2026, 3, 4), H7, close=951.25))
        shown = str(page("index.html", reader(settings, pd.Timestamp("2026-03-05 15:00", tz="UTC"))))
        assert "951.25 CLP per USD on 4 Mar 2026" in shown
        assert "948.50 CLP per USD on 2 Mar 2026" not in shown

    def test_neither_hindsight_nor_another_rate_breaks_a_silence(self, settings: Settings) -> None:
        ledger = Ledger(settings.store_url)
        ledger.append(entry(dashboards.LAST))
        later = dashboards.NOW + pd.Timedelta(days=10)
        # Both are published a day or two ago: one too late for its origin, the other of the observed rate.
        ledger.append(entry(dashboards.LAST + timedelta(days=3), after=pd.Timedelta(days=8)))
        on_time = entry(dashboards.LAST + timedelta(days=10), run_id="other")
        ledger.append(replace(on_time, rate="observed"))
        found = reader(settings, later)
        silent = {one.series.rate: (one.silence.days, one.silence.is_silent) for one in found.outlooks()}
        assert silent["close"] == (10, True)
        spoken = {one.rate: one for one in api.health(found).forecasts}
        assert (spoken["close"].days_since_published, spoken["close"].is_silent) == (10, True)
        assert spoken["close"].newest_origin == dashboards.LAST
        assert not spoken["observed"].is_silent
        assert "no forecast for 10 days" in str(page("index.html", found))
        shown = str(page("usdclp-7d.html", found))
        assert "it is no part of the live record" in shown
        assert "The last live forecast is 10 days old" in shown
        assert re.search(r"<td>10</td>\s*<td[^>]*><strong[^>]*>silent", str(page("health.html", found)))

    def test_a_horizon_that_spoke_in_hindsight_alone_has_never_spoken(self, settings: Settings) -> None:
        Ledger(settings.store_url).append(entry(dashboards.LAST, after=pd.Timedelta(days=30)))
        found = reader(settings)
        (spoken,) = api.health(found).forecasts
        assert (spoken.newest_origin, spoken.days_since_published, spoken.is_silent) == (None, None, True)
        assert "none was published in its time" in str(page("index.html", found))
        assert "All forecasts of this horizon were made in hindsight" in str(page("usdclp-7d.html", found))
        assert "only in hindsight" in str(page("health.html", found))

    def test_beside_the_forecasts_stands_how_many_do_not_overlap(self, settings: Settings) -> None:
        dashboards.fill(settings, days=60)
        found = reader(settings)
        for horizon, every in ((7, 5), (15, 11)):
            (one,) = (one for one in found.outlooks() if one.series.horizon.days == horizon)
            assert one.record is not None
            n, apart = one.record.origins, one.record.origins_effective
            span = 60 // every + 2  # of sixty weekdays, and a holiday or two
            assert 1 <= apart <= span < n
            card = str(page("index.html", found)).split(f'id="card-usdclp-{horizon}d"')[1]
            told = card.split("<dt>Live record</dt><dd>")[1].partition("</dd>")[0]
            assert told.endswith(f", over {n} forecasts of which {apart} do not overlap")

    def test_horizons_that_never_spoke_in_their_time_are_one_thing_to_look_at(
        self, settings: Settings
    ) -> None:
        ledger = Ledger(settings.store_url)
        for horizon in (*HORIZONS[1:], HORIZONS[0]):
            ledger.append(entry(dashboards.LAST, horizon, after=pd.Timedelta(days=200)))
        (told,) = self.attention(settings, dashboards.NOW + pd.Timedelta(days=200))
        assert told.startswith("USD/CLP, 7, 15, 30 and 90 days: every forecast was made in hindsight")
        shown = str(page("index.html", reader(settings)))
        assert shown.count("<figcaption>Made in hindsight: published after its first outcome was known.") == 4

    def attention(self, settings: Settings, now: pd.Timestamp = dashboards.NOW) -> list[str]:
        """What somebody should look at, as the interface and the first page have it alike."""
        told, shown = api.health(reader(settings, now)), str(page("index.html", reader(settings, now)))
        listed = shown.split('aria-labelledby="attention"')[1].split("</section>")[0]
        entries = [f"{one.what}: {one.words}" for one in told.attention]
        found = re.findall(r"<li><a [^>]*>([^<]*)</a> <span>([^<]*)</span>", listed)
        assert [": ".join(one) for one in found] == [entry.replace("'", "&#39;") for entry in entries]
        assert told.is_well == ("Nothing needs attention" in listed) == (not entries)
        return entries

    def test_where_there_is_no_forecast_nothing_is_well(self, settings: Settings) -> None:
        assert self.attention(settings) == ["Forecasts: there are none yet"]
        Ledger(settings.store_url).append(entry(dashboards.LAST))
        assert self.attention(settings) == []

    @pytest.mark.parametrize("horizon", [H7, None], ids=["of a horizon", "of the data"])
    def test_while_an_alarm_is_fresh_nothing_is_well(
        self, horizon: Horizon | None, settings: Settings
    ) -> None:
        ledger = Ledger(settings.store_url)
        ledger.append(entry(dashboards.LAST))
        alarm = Alarm("volatility", 0, dashboards.LAST, 3.0, 2.0, "the rate moved 1.7 times as much as usual")
        ledger.raise_alarm(USDCLP, "close", horizon, alarm, now=dashboards.NOW)
        (told,) = self.attention(settings, dashboards.NOW + pd.Timedelta(days=4))
        assert told.startswith("USD/CLP, 7 days: volatility" if horizon else "USD/CLP: volatility")
        assert told.endswith("the rate moved 1.7 times as much as usual (as of 30 Nov 2026)")
        for name in ("usdclp-7d.html", "health.html") if horizon else ("health.html",):
            assert "Whether it still stands is not kept" in str(page(name, reader(settings)))
        later = dashboards.NOW + pd.Timedelta(days=31)
        ledger.append(entry(later.date() - timedelta(days=1)))
        came = ledger.path(1).target_dates[-1:]
        ledger.record(USDCLP, "close", came, np.array([951.0]), [later])
        assert self.attention(settings, later) == []

    def test_silence_waiting_and_old_data_need_attention(self, settings: Settings) -> None:
        dashboards.fill(settings, days=30)
        later = dashboards.NOW + pd.Timedelta(days=8)
        waiting = entry(later.date() - timedelta(days=1))
        settings.pending_dir.mkdir(parents=True)
        (settings.pending_dir / f"{waiting.run_id}.json").write_text(waiting.to_json())
        whats = [told.partition(": ")[0] for told in self.attention(settings, later)]
        assert whats == [
            "USD/CLP, 7 days",
            "USD/CLP, 7 days",
            "USD/CLP, 15 days",
            "Ledger",
            "USD/CLP",
            "Data",
        ]

    def test_a_monitor_that_does_not_run_is_told(self, settings: Settings) -> None:
        """Forecasts are made every day, with bands that hold nothing, and nobody looks what comes of them."""
        ledger = Ledger(settings.store_url)
        days = [day.date() for day in pd.bdate_range(end=dashboards.LAST, periods=20)]
        for origin in days:
            ledger.append(entry(origin, width=0.1))
        (told,) = self.attention(settings)
        assert told.startswith(f"USD/CLP: nothing was recorded of what came from {days[1]:%-d %b %Y} on; run")
        known = [origin_instant(USDCLP, day) for day in days]
        ledger.record(USDCLP, "close", days, np.full(len(days), 950.0), known)
        assert self.attention(settings) == []

    def test_what_cannot_be_read_is_not_well(self, settings: Settings) -> None:
        Ledger(settings.store_url).append(entry(dashboards.LAST))
        path = settings.root / "store" / "forex.db"
        path.write_bytes(b"no database at all" * 100)
        assert not api.health(reader(settings)).is_well
        assert "Nothing needs attention" not in str(page("index.html", reader(settings)))

    def test_what_waits_for_the_ledger_is_told(self, settings: Settings) -> None:
        waiting = entry(dashboards.LAST)
        settings.pending_dir.mkdir(parents=True)
        (settings.pending_dir / f"{waiting.run_id}.json").write_text(waiting.to_json())
        for name in ("index.html", "health.html"):
            assert "1 forecast not in the ledger yet" in str(page(name, reader(settings)))
        Pending(settings.pending_dir).deliver(Ledger(settings.store_url))
        assert "not in the ledger yet" not in str(page("index.html", reader(settings)))

    def test_a_forecast_in_hindsight_is_shown_as_one(self, settings: Settings) -> None:
        Ledger(settings.store_url).append(entry(dashboards.LAST, after=pd.Timedelta(days=30)))
        assert "in hindsight" in str(page("index.html", reader(settings)))
        shown = str(page("usdclp-7d.html", reader(settings)))
        (told,) = re.findall(r'role="note">([^<]*)<', shown)
        assert told.endswith("published after their first outcome was known: there is no live record.")
        assert "No live forecast of this horizon has come to its end yet" in shown

    def test_what_was_made_in_hindsight_is_in_no_record(self, settings: Settings) -> None:
        ledger = Ledger(settings.store_url)
        days = [day.date() for day in pd.bdate_range(end=pd.Timestamp(dashboards.LAST), periods=50)]
        origins, late = [day for day in days[:44] if is_business_day(USDCLP, day)], pd.Timedelta(days=90)
        for k, day in enumerate(origins):
            # Every other one knew what would come; its recipe is another and so are its members.
            made = entry(day, version=k + 1, after=late if k % 2 else pd.Timedelta(minutes=5))
            own = ("b" * 64, ("random_walk", "ets")) if k % 2 else ("a" * 64, made.members)
            ledger.append(replace(made, recipe=own[0], members=own[1]))
        known = [origin_instant(USDCLP, day) for day in days]
        ledger.record(USDCLP, "close", days, np.full(len(days), 951.0), known)
        ledger.score()
        found, series = reader(settings), Series(USDCLP, "close", H7)
        live, hindsight = len(origins[::2]), len(origins[1::2])
        ended = sum(5 in entry(day).steps for day in origins[::2])
        history = found.history(series)
        assert {one.live for one in history.publications} == {True}
        assert (len(history.publications), history.hindsight) == (live, hindsight)
        assert history.record is not None
        assert history.record.origins == history.trailing.counts[-1] == ended
        scores = api.scores(found, series)
        assert scores.at_the_end is not None
        assert scores.at_the_end.forecasts == ended
        assert set(scores.at_the_end.rmse_by_model) == {"random_walk", "theta"}
        told = api.champions(found, series)
        assert [(one.recipe[0], one.forecasts) for one in told.reigns] == [("a", live)]
        assert told.hindsight == hindsight
        shown = str(page("usdclp-7d.html", found))
        assert f"Inside the band: {live} of {live}" in shown
        assert f"charts over time: {hindsight} forecasts of this horizon made in hindsight." in shown
        weights = re.findall(r'aria-label="(Weights on [^"]*)"', shown)
        assert len(weights) == 1
        assert "Theta" in weights[0]
        assert "ETS" not in weights[0]
        # Each that is shown by itself says what it is.
        past = found.paths(series, days[0], days[-1])
        pictures = [charts.fan(path, found.rates(series, days[0]), "CLP per USD") for path in past]
        assert [("Made in hindsight" in one.caption) for one in pictures] == [not p.of.live for p in past]
        assert all(one.description.startswith(one.caption) for one in pictures)
        assert not past[-1].of.live
        assert "in hindsight" in shown.split('id="now">')[1].split("</h2>")[0]
        (forecast,) = api.latest(found)
        assert not forecast.forecast.live
        said = api.date_history(found, USDCLP, days[20]).said
        assert {one.forecast.live for one in said} == {True, False}

    def test_a_horizon_of_hindsight_alone_has_no_record_and_says_so(self, settings: Settings) -> None:
        ledger = Ledger(settings.store_url)
        for back in (0, 1, 2):
            ledger.append(entry(dashboards.LAST - timedelta(days=back), after=pd.Timedelta(days=60)))
        found = reader(settings)
        assert "<dt>Live record</dt><dd>none yet</dd>" in str(page("index.html", found))
        shown = str(page("usdclp-7d.html", found))
        assert "All forecasts of this horizon were made in hindsight" in shown
        for name in ("weights", "champions", "coverage", "skill", "said"):
            assert f'<figure class="drawn" id="{name}">' not in shown
        assert "Made in hindsight: published after its first outcome was known." in shown
        assert api.champions(found, Series(USDCLP, "close", H7)).reigns == []

    def test_the_closest_member_is_named_from_enough_forecasts_in_common(self, settings: Settings) -> None:
        """The theta method is nearer where both are there; ETS alone was left out when the rate jumped."""
        ledger = Ledger(settings.store_url)
        days = [day.date() for day in pd.bdate_range(end=pd.Timestamp(dashboards.LAST), periods=60)]
        days = [day for day in days if is_business_day(USDCLP, day)]
        rates = np.full(len(days), 951.0)
        rates[4] = 1000.0
        medians, said = {"random_walk": 950.0, "ets": 952.5, "theta": 951.5}, dict[int, str]()
        for k, day in enumerate(days[:-1]):
            one = entry(day, members=[name for name in medians if name != "ets" or k != 3])
            row = np.array([medians[name] for name in one.members])
            ledger.append(replace(one, medians=np.tile(row, (len(one.steps), 1))))
            if k in (28, 40):
                ledger.record(USDCLP, "close", days, rates, [origin_instant(USDCLP, d) for d in days])
                ledger.score()
                shown = str(page("usdclp-7d.html", reader(settings)))
                said[k] = re.findall(r'<td class="words">([^<]*)</td>\s*</tr>', shown)[0]
        n = int((ledger.track(USDCLP, "close", H7).steps == 1).sum()) - 1
        assert said == {28: "–", 40: f"Theta 0.50, n = {n}"}

    def test_before_the_first_forecast_the_rate_is_what_was_observed(self, settings: Settings) -> None:
        """But for prints that the quality gate does not believe, on the first day that is asked for as on others."""
        Ledger(settings.store_url).append(entry(dashboards.LAST, close=950.0))
        days = pd.bdate_range(end=pd.Timestamp(dashboards.LAST), periods=100)
        values = 950 + np.arange(100) / 10
        bad = [50, 60]
        values[bad] *= 100
        known = catalogued("usdclp_close").definition.release.instants(days)
        observed = Observations("usdclp_close", "yahoo", days, values, known)
        ObservationStore(settings.store_url).record(observed, now=dashboards.NOW)
        found = reader(settings).rates(Series(USDCLP, "close", H7), days[50].date())
        assert found.days.tolist() == [day.date() for k, day in enumerate(days) if k >= 50 and k not in bad]
        assert found.values[0] == values[51]
        assert found.values[-1] == 950.0, "the ledger has the last word"
        (one,) = reader(settings).outlooks()
        assert len(one.rates.days) > 35

    def test_between_forecasts_weeks_apart_the_rate_is_what_was_observed(self, settings: Settings) -> None:
        """A gap is told where neither has a close; of a day that both have the ledger has the last word."""
        ledger, store = Ledger(settings.store_url), ObservationStore(settings.store_url)
        days = pd.bdate_range(end=pd.Timestamp(dashboards.LAST), periods=90)
        days = days[[is_business_day(USDCLP, day.date()) for day in days]]
        first, second, last = (days[k].date() for k in (20, 50, -1))
        for origin in (first, second, last):
            ledger.append(entry(origin, close=950.0))
        _, *came = ledger.path(1).target_dates
        known = [origin_instant(USDCLP, day) for day in came]
        ledger.record(USDCLP, "close", came, np.full(len(came), 955.0), known)
        values = 950 + np.arange(len(days)) / 10
        shown = np.r_[0:32, 42 : len(days) - 1]
        instants = catalogued("usdclp_close").definition.release.instants(days[shown])
        store.record(
            Observations("usdclp_close", "yahoo", days[shown], values[shown], instants), now=dashboards.NOW
        )
        found = reader(settings).rates(Series(USDCLP, "close", H7), days[0].date())
        expected = dict(zip([day.date() for day in days[shown]], values[shown], strict=True))
        expected |= dict.fromkeys((first, second, last), 950.0) | dict.fromkeys(came, 955.0)
        assert dict(zip(found.days.tolist(), found.values.tolist(), strict=True)) == expected
        assert found.days.tolist() == sorted(expected)
        assert found.days[~found.came].tolist() == [first, second, last]
        assert found.days[found.recorded].tolist() == came, (
            "a print of the day that is not recorded is no outcome"
        )
        for path in reader(settings).paths(Series(USDCLP, "close", H7), second, last):
            said = [tip.words for tip in charts.fan(path, found, "CLP per USD").tips]
            gap = f"No close on record between\n{day_words(days[31])} and {day_words(days[42])}"
            assert [words for words in said if words.startswith("No close")] == [gap]

    def test_a_print_that_was_withdrawn_is_shown_no_more(self, settings: Settings) -> None:
        """As long as the observations still have it; where a forecast began from a print of its day, that came."""
        ledger, store = Ledger(settings.store_url), ObservationStore(settings.store_url)
        days = [day.date() for day in pd.bdate_range("2026-11-16", periods=5)]
        values = np.array([950.0, 951.0, 952.0, 953.0, 954.0])
        known = [origin_instant(USDCLP, day) for day in days]
        for day, close in ((days[0], 950.0), (days[1], 950.0)):
            ledger.append(entry(day, close=close))
        ledger.record(USDCLP, "close", days[2:4], values[2:4], known[2:4], now=known[-1])
        ledger.record(USDCLP, "close", days[2:3], np.array([np.nan]), known[2:3])
        instants = pd.DatetimeIndex(known)
        index = pd.DatetimeIndex(days)
        store.record(Observations("usdclp_close", "yahoo", index, values, instants), now=dashboards.NOW)
        found = reader(settings).rates(Series(USDCLP, "close", H7), days[0])
        assert found.days.tolist() == [days[k] for k in (0, 1, 3, 4)]
        assert found.values.tolist() == [950.0, 950.0, 953.0, 954.0]
        assert found.came.tolist() == [True, False, True, True], (
            "the second forecast began from the close before"
        )
        assert found.recorded.tolist() == [False, False, True, False]

    def test_up_to_a_day_the_rate_is_what_it_is_in_all(self, settings: Settings) -> None:
        """A real jump on that day is confirmed by what came after it."""
        ledger, store = Ledger(settings.store_url), ObservationStore(settings.store_url)
        days = pd.bdate_range(end=pd.Timestamp(dashboards.LAST), periods=60)
        values = np.where(np.arange(60) < 40, 950.0, 1900.0)
        known = catalogued("usdclp_close").definition.release.instants(days)
        store.record(Observations("usdclp_close", "yahoo", days, values, known), now=dashboards.NOW)
        for k in (10, 30, -1):
            ledger.append(entry(days[k].date(), close=950.0))
        series, since, until = Series(USDCLP, "close", H7), days[5].date(), days[40].date()
        found, whole = (reader(settings).rates(series, since, last) for last in (until, None))
        assert found.days.tolist() == [day.date() for day in days[5:41]]
        for name, expected in vars(whole.between(since, until)).items():
            np.testing.assert_array_equal(getattr(found, name), expected, err_msg=name)

    def test_where_a_forecast_began_nothing_has_come_of_another(self, settings: Settings) -> None:
        """The print of the second day was held back: the forecast of that day began from the close of the first."""
        ledger = Ledger(settings.store_url)
        days = [day.date() for day in pd.bdate_range("2026-11-17", periods=4)]
        for day in days[:3]:
            ledger.append(entry(day, close=950.0))
        came = [days[2], days[3]]
        ledger.record(
            USDCLP, "close", came, np.array([951.0, 952.0]), [origin_instant(USDCLP, d) for d in came]
        )
        ledger.score()
        found, series = reader(settings), Series(USDCLP, "close", H7)
        outcomes = {day: api.date_history(found, USDCLP, day).outcomes for day in days}
        assert outcomes == {days[0]: {}, days[1]: {}, days[2]: {"close": 951.0}, days[3]: {"close": 952.0}}
        assert found.rates(series, days[0]).came.tolist() == [False, False, True, True]
        shown = str(page("usdclp-7d.html", found))
        told = json.loads(shown.split('id="paths">')[1].partition("</script>")[0])
        assert len(told["rates"]) == 4
        assert told["unrecorded"] == [day.toordinal() - date(1970, 1, 1).toordinal() for day in days[:2]]

    def test_what_the_monitor_did_is_not_by_hand_and_a_pin_taken_away_is_no_other_champion(
        self, settings: Settings
    ) -> None:
        ledger = Ledger(settings.store_url)
        for k in range(10, 0, -1):
            ledger.append(entry(dashboards.LAST - timedelta(days=7 * k), version=10 - k))
        at = dashboards.NOW.to_pydatetime() - timedelta(days=3)
        why = "by the monitor: USDCLP 7d, no skill at step 5"
        made = [
            dashboards.change(action="unpin", at=at, from_version=9, to_version=9),
            dashboards.change(action="adapt", at=at, from_version=8, to_version=9, reason=why),
            dashboards.change(action="rollback", at=at, from_version=9, to_version=8, reason=why),
        ]
        found = Reader(settings, dashboards.Told(made=made), lambda: dashboards.NOW)
        chart = charts.champions(found.history(Series(USDCLP, "close", H7)))
        assert chart is not None
        assert [mark.words.partition(",")[0] for mark in chart.marks] == [
            "adapt to version 9",
            "rollback to version 8",
        ]
        assert "the champion 2 times by hand or by the monitor since" in chart.description
        shown = str(page("usdclp-7d.html", found))
        listed = shown.split('aria-labelledby="changes"')[1].partition("</section>")[0]
        assert "by hand or by the monitor" in listed
        assert listed.count(why) == 2

    def test_rates_of_a_pair_have_pages_of_their_own(self, settings: Settings) -> None:
        ledger = Ledger(settings.store_url)
        ledger.append(entry(dashboards.LAST))
        ledger.append(replace(entry(dashboards.LAST, run_id="other"), rate="observed", close=951.0))
        found = reader(settings)
        assert [one.name for one in found.series()] == ["usdclp-7d", "usdclp-observed-7d"]
        assert "observed rate" in str(page("usdclp-observed-7d.html", found))
        assert len(found.publications(Series(USDCLP, "observed", H7))) == 1

    def test_names_of_no_page_are_none(self, settings: Settings) -> None:
        Ledger(settings.store_url).append(entry(dashboards.LAST))
        for name in ("", "usdclp-7d", "usdclp-7d-.html", "usdclp-7d-2025.html", "-2026.html", "login.html"):
            assert page(name, reader(settings)) is None, name
        assert page("usdclp-7d-2026.html", reader(settings)) is not None

    def test_pages_are_equal_while_nothing_changes(self, settings: Settings) -> None:
        dashboards.fill(settings, days=30)
        assert page("usdclp-7d.html", reader(settings)) == page("usdclp-7d.html", reader(settings))


class TestDrawing:
    @given(
        st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40),
        st.floats(1e-3, 5000),
        st.sampled_from([400, 860]),
    )
    def test_all_that_is_drawn_lies_within_the_picture(
        self, values: list[float], across: float, width: int
    ) -> None:
        days = np.linspace(20_000, 20_000 + across, len(values))
        drawn = np.array(values)
        picture = Chart(
            title="",
            caption="",
            description="values",
            ticks=number,
            lines=[Line(days, drawn, "ink"), Line(days, drawn, "ink", stepped=True)],
            bands=[Band(days, drawn - 1, drawn + 1, "band80")],
            labels=[Label(value, "words", "ink") for value in values[-6:]],
        ).svg(width)
        height = int(re.findall(r'viewBox="0 0 \d+ (\d+)"', picture)[0])
        for path in re.findall(r'<path class="(?:line|band)[^"]*" d="([^"]*)"', picture):
            for x, y in re.findall(r"([\d.-]+) ([\d.-]+)", path):
                assert 0 <= float(x) <= width
                assert 0 <= float(y) <= height
        assert "nan" not in picture

    def test_a_line_is_broken_where_there_is_no_value(self) -> None:
        chart = Chart(
            title="",
            caption="",
            description="",
            ticks=number,
            lines=[Line(np.arange(5.0), np.array([1.0, 2.0, np.nan, 2.0, 1.0]), "ink")],
        )
        (path,) = re.findall(r'class="line ink" d="([^"]*)"', chart.svg())
        assert path.count("M") == 2

    def test_a_value_between_two_breaks_is_a_dot(self) -> None:
        values = np.array([1.0, 1.0, np.nan, 2.0, np.nan, 1.0])
        chart = Chart("", "", "", number, lines=[Line(np.arange(6.0), values, "ink")])
        (path,) = re.findall(r'class="line ink" d="([^"]*)"', chart.svg())
        assert [piece.endswith("h0") for piece in path.split("M")[1:]] == [False, True, True]

    def test_of_shares_the_largest_stands_first(self) -> None:
        rows = Rows(
            "", "", "", np.arange(3.0), {"a": np.array([0.9, 0.5, 0.2]), "b": np.array([0.1, 0.5, 0.8])}, "a"
        )
        assert re.findall(r"(\d+\.\d) %", rows.svg()) == ["80.0", "20.0"]
        assert rows.hints == []

    @given(st.integers(0, 20_000), st.integers(1, 6000), st.integers(3, 12))
    def test_days_on_an_axis_are_few_and_in_order(self, first: int, span: int, at_most: int) -> None:
        ticks = date_ticks(float(first), float(first + span), at_most)
        days = [day for day, _ in ticks]
        assert len(days) <= at_most
        assert days == sorted(set(days))
        assert all(first <= day <= first + span for day in days)

    def test_words_in_a_picture_are_escaped(self) -> None:
        chart = Chart(
            title="",
            caption="",
            description='"><script>',
            ticks=number,
            lines=[Line(np.arange(2.0), np.arange(2.0), "ink")],
            labels=[Label(1.0, "<b>", "ink")],
        )
        assert "<script>" not in chart.svg()
        assert "&lt;b&gt;" in chart.svg()


class TestMarkdown:
    def test_every_horizon_has_a_table_or_says_that_there_is_none(self) -> None:
        found = {H7: [dashboards.run(0), dashboards.run(1, environment="a|b <script>")]}
        text = runs_markdown(runs_document(found, None, "store", None), "file:///site/index.html")
        assert "| 00000000 | 2026-11-27 12:00 | USDCLP | 9.500 | 0.80 | 0.970 | v40\\* | production |" in text
        assert "a\\|b &lt;script&gt;" in text
        assert text.count("no runs yet") == len(HORIZONS) - 1
        assert text.endswith("[All pages](file:///site/index.html)")

    def test_what_cannot_be_read_is_told(self) -> None:
        assert "gone" in runs_markdown(runs_document({}, "the store is gone", "store", None))


def test_origins_of_a_year_begin_with_its_first_day(settings: Settings) -> None:
    ledger = Ledger(settings.store_url)
    days = [dashboards.LAST - timedelta(days=365 * k) for k in range(3)]
    for day in days:
        ledger.append(entry(day))
    assert reader(settings).years(Series(USDCLP, "close", H7)) == (2026, 2025, 2024)


@pytest.mark.slow
def test_the_pages_are_the_same_of_postgresql(
    settings: Settings, new_postgres: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboards.fill(settings, days=30)
    monkeypatch.setenv("FOREX_DATA__STORE_URL", new_postgres())
    other = load_settings(data_dir=tmp_path / "other")
    dashboards.fill(other, days=30)
    series = Series(USDCLP, "close", H7)
    told = [
        (
            *(str(page(name, reader(one))) for name in ("index.html", "usdclp-7d.html", "runs.html")),
            *(tell(reader(one), series) for tell in (api.scores, api.champions)),
            api.health(reader(one)).forecasts,
        )
        for one in (settings, other)
    ]
    assert told[0] == told[1]
    health = str(page("health.html", reader(other)))
    assert "usdclp_close" in health


def test_health_tells_gaps_revisions_repairs_and_sources_of_a_series(settings: Settings) -> None:
    """Ninety business days of two sources, three of them without a close, one revised, one print ten times too low."""
    store = ObservationStore(settings.store_url, settings.root)
    days = pd.DatetimeIndex(
        [
            day
            for day in pd.bdate_range(end=dashboards.LAST, periods=90)
            if is_business_day(USDCLP, day.date())
        ]
    )
    release = catalogued("usdclp_close").definition.release.instants
    values = 950.0 + np.sin(np.arange(len(days)))
    values[40] /= 10

    def seen(source: str, rows: object, changed: float = 0.0) -> Observations:
        dates = days[rows]  # type: ignore[index]
        return Observations("usdclp_close", source, dates, values[rows] + changed, release(dates))  # type: ignore[index]

    store.record(seen("yahoo", slice(0, 60)), now=dashboards.NOW - pd.Timedelta(days=20))
    store.record(seen("import", slice(63, None)), now=dashboards.NOW)
    store.record(seen("yahoo", slice(50, 51), 0.5), now=dashboards.NOW)
    (one,) = (found for found in api.health(reader(settings)).series if found.series == "usdclp_close")
    assert (one.first_date, one.last_date) == (days[0].date(), days[-1].date())
    assert one.days == len(days) - 3
    weekdays = np.busday_count(days[0].date(), dashboards.LAST) + 1
    assert one.gaps == weekdays - len(days) + 3 > 3, "holidays among them"
    assert one.revisions == 1
    assert one.sources == {"yahoo": 61, "import": len(days) - 63}, "one of them twice"
    assert one.repairs == {"refuted": 1}
    assert one.is_fresh
    row = str(page("health.html", reader(settings))).partition(">usdclp_close<")[2].partition("</tr>")[0]
    cells = [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in row.split("</td>")]
    assert cells[0].endswith(f"{days[-1]:%d %b %Y}")
    told = [str(count) for count in (one.days, one.gaps, one.revisions, 1)]
    assert cells[1:8] == [str(one.age_days), "fresh", *told, f"import {len(days) - 63}, yahoo 61"]
