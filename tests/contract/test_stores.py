"""What every database of the store keeps to, SQLite and PostgreSQL alike."""

from __future__ import annotations

import re
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forex_core.data.bundle import load_bundle
from forex_core.data.catalogue import entry
from forex_core.data.observations import Observations
from forex_core.data.prints import Counts
from forex_core.data.providers.stored import StoredProvider
from forex_core.data.store import ObservationStore
from forex_core.errors import SourceError
from forex_core.types import Event, Headline, MarketBundle, Pair
from tests.forks import Forks

NOW = pd.Timestamp("2026-03-02 12:00", tz="UTC")
DAY = pd.Timedelta(days=1)
ORDER = ["import", "best", "second"]


def rank(_series: str, source: str) -> int:
    return ORDER.index(source)


def seen(
    values: dict[str, float], *, series: str = "copper", source: str = "best", at: str | None = None
) -> Observations:
    """Values by day, known at 22:00 UTC of the day or `at`."""
    days = pd.DatetimeIndex(list(values)).as_unit("us")
    known = days + pd.Timedelta(hours=22) if at is None else pd.DatetimeIndex([at] * len(days)).as_unit("us")
    return Observations(series, source, days, np.array(list(values.values())), known.tz_localize("UTC"))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store' / 'forex.db'}"
    return str(request.getfixturevalue("new_postgres")())


@pytest.fixture
def store(url: str) -> ObservationStore:
    return ObservationStore(url)


def execute(url: str, statement: str) -> list[Any]:
    """Behind the store's back."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.exec_driver_sql(statement)
        return list(result) if result.returns_rows else []


def known(store: ObservationStore, as_of: pd.Timestamp, series: str = "copper") -> dict[str, float]:
    found = store.values(series, as_of)
    return {f"{day:%Y-%m-%d}": float(value) for day, value in zip(found.dates, found.values, strict=True)}


# --- What is recorded


def test_a_new_day_is_known_from_its_declared_instant(store: ObservationStore) -> None:
    recorded = store.record(seen({"2026-01-05": 1.0, "2026-01-06": 2.0}), rank=rank, now=NOW)
    assert recorded.series["copper"] == Counts(new=2)
    assert known(store, pd.Timestamp("2026-01-06 21:59:59.999999", tz="UTC")) == {"2026-01-05": 1.0}
    assert known(store, pd.Timestamp("2026-01-06 22:00", tz="UTC")) == {"2026-01-05": 1.0, "2026-01-06": 2.0}


def test_an_equal_value_adds_no_row(store: ObservationStore) -> None:
    store.record(seen({"2026-01-05": 900.0}), rank=rank, now=NOW)
    recorded = store.record(seen({"2026-01-05": 900.0 * (1 + 5e-10)}), rank=rank, now=NOW + DAY)
    assert str(recorded) == "1 unchanged"
    assert len(store.history("copper", pd.Timestamp("2026-01-05").date())) == 1
    assert store.record(seen({"2026-01-05": 900.00001}), rank=rank, now=NOW + DAY).total.revisions == 1


def test_another_value_is_a_revision_from_now_on(store: ObservationStore) -> None:
    store.record(seen({"2026-01-05": 1.0}), rank=rank, now=NOW)
    assert (
        store.record(seen({"2026-01-05": 1.5}), rank=rank, now=NOW + DAY, origin="f.csv").total.revisions == 1
    )
    assert known(store, NOW + DAY / 2) == {"2026-01-05": 1.0}
    assert known(store, NOW + DAY) == {"2026-01-05": 1.5}
    first, second = store.history("copper", pd.Timestamp("2026-01-05").date())
    assert (first.value, second.value, second.available_at, second.origin) == (1.0, 1.5, NOW + DAY, "f.csv")
    assert (second.recorded_at, second.source, second.batch > first.batch) == (NOW + DAY, "best", True)


def test_another_value_is_known_from_now_on_whatever_was_stated_of_the_first(store: ObservationStore) -> None:
    store.record(
        seen({"2026-01-05": 1.0, "2026-01-06": 1.0}, at="2026-01-05 15:00"), now=NOW, rank=rank, explicit=True
    )
    store.record(seen({"2026-01-05": 1.5, "2026-01-06": 1.5}), now=NOW + DAY, rank=rank)  # declared: 22:00
    assert set(known(store, NOW + DAY - pd.Timedelta(1, "us")).values()) == {1.0}
    assert set(known(store, NOW + DAY).values()) == {1.5}
    store.record(
        seen({"2026-01-05": 2.0}, at="2026-04-01"), now=NOW + DAY, rank=rank, explicit=True
    )  # to come
    store.record(seen({"2026-01-05": 2.5}), now=NOW + 2 * DAY, rank=rank)
    (*_, last) = store.history("copper", pd.Timestamp("2026-01-05").date())
    assert (last.value, last.available_at) == (2.5, pd.Timestamp("2026-04-01 00:00:00.000001", tz="UTC"))


def test_a_day_between_others_that_comes_late_is_known_from_now_on(store: ObservationStore) -> None:
    store.record(seen({"2026-01-07": 1.0, "2026-01-09": 1.0}), rank=rank, now=NOW)
    week = seen({f"2026-01-{day:02}": 1.0 for day in range(6, 11)}, source="second")
    recorded = store.record(week, rank=rank, now=NOW + DAY)
    assert recorded.total == Counts(new=3, unchanged=2, filled=1)
    since = {day: p for day in range(6, 11) for p in store.history("copper", date(2026, 1, day))}
    declared = {day: pd.Timestamp(f"2026-01-{day:02} 22:00", tz="UTC") for day in since}
    assert {day: p.available_at for day, p in since.items()} == declared | {8: NOW + DAY}
    assert store.record(week, rank=rank, now=NOW + 2 * DAY).total == Counts(unchanged=5), "it is asked again"
    assert store.record(seen({"2026-01-08": 2.0}), rank=rank, now=NOW + 3 * DAY).total.revisions == 1


def test_a_day_between_others_whose_instant_is_stated_is_known_since_then(store: ObservationStore) -> None:
    store.record(seen({"2026-01-07": 1.0, "2026-01-09": 1.0}), rank=rank, now=NOW)
    assert store.record(seen({"2026-01-08": 1.0}), rank=rank, now=NOW, explicit=True).total == Counts(new=1)
    assert "2026-01-08" in known(store, pd.Timestamp("2026-01-08 22:00", tz="UTC"))


def test_what_one_call_brings_leaves_no_holes_among_itself(store: ObservationStore) -> None:
    ends, middle = seen({"2026-01-07": 1.0, "2026-01-09": 1.0}), seen({"2026-01-08": 1.0}, source="second")
    assert store.record([ends, middle], rank=rank, now=NOW).total == Counts(new=3)
    assert len(known(store, pd.Timestamp("2026-01-09 22:00", tz="UTC"))) == 3


def test_a_hole_that_is_filled_changes_no_bundle_of_the_past(store: ObservationStore) -> None:
    days = pd.bdate_range("2024-01-02", "2024-06-28")
    walk = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.005, len(days))))

    def fetched(chosen: Any, now: str) -> None:
        for name in ("usdclp_close", "vix"):
            at = entry(name).definition.release.instants(days)[chosen]
            one = Observations(name, "yahoo", days[chosen], 900 * walk[chosen], at)
            store.record(one, now=pd.Timestamp(now, tz="UTC"))

    def bundle(as_of: date) -> MarketBundle:
        return load_bundle(StoredProvider(store, drivers=("vix",)), Pair("USD", "CLP"), as_of)

    hole = np.isin(np.arange(len(days)), (60, 61, 100))
    fetched(~hole, "2024-06-29")
    origins = [day.date() for day in days[[59, 60, 61, 62, 99, 100, 101, -1]]]
    before = [bundle(day).fingerprint for day in origins]
    fetched(hole, "2024-08-01 12:00")
    assert [bundle(day).fingerprint for day in origins] == before
    later = bundle(date(2024, 8, 1))
    assert np.isnan(later.truth[hole.nonzero()[0]]).sum() == 0
    assert (later.spot[60:62] == later.spot[59]).all(), "rows of the past keep what they knew"


def test_a_source_that_returns_to_its_first_value_is_followed(store: ObservationStore) -> None:
    for k, value in enumerate((1.0, 1.5, 1.0, 1.0)):
        store.record(seen({"2026-01-05": value}), rank=rank, now=NOW + k * DAY)
    assert [p.value for p in store.history("copper", pd.Timestamp("2026-01-05").date())] == [1.0, 1.5, 1.0]


def test_revisions_of_one_instant_are_a_microsecond_apart(store: ObservationStore) -> None:
    for value in (1.0, 2.0, 3.0):
        store.record(seen({"2026-01-05": value}), rank=rank, now=NOW)
    prints = store.history("copper", pd.Timestamp("2026-01-05").date())
    assert [p.available_at - NOW for p in prints[1:]] == [pd.Timedelta(0), pd.Timedelta(1, "us")]


def test_a_worse_source_does_not_overwrite(store: ObservationStore) -> None:
    store.record(seen({"2026-01-05": 1.0}), rank=rank, now=NOW)
    recorded = store.record(seen({"2026-01-05": 2.0, "2026-01-06": 2.0}, source="second"), rank=rank, now=NOW)
    assert recorded.series["copper"] == Counts(new=1, outranked=1)
    assert store.record(seen({"2026-01-06": 3.0}), rank=rank, now=NOW).total == Counts(revisions=1)
    assert list(store.values("copper", NOW + DAY).sources) == ["best", "best"]


def test_a_stated_instant_is_kept(store: ObservationStore) -> None:
    store.record(seen({"2026-01-05": 1.0}), rank=rank, now=NOW)
    store.record(seen({"2026-01-05": 2.0}, at="2026-01-09"), rank=rank, now=NOW, explicit=True)
    store.record(seen({"2026-01-05": 0.5}, at="2026-01-05 20:00"), rank=rank, now=NOW, explicit=True)
    prints = store.history("copper", pd.Timestamp("2026-01-05").date())
    assert [p.value for p in prints] == [0.5, 1.0, 2.0]
    found = store.read(("copper",), NOW, {"copper": 15})["copper"]
    assert list(found.values) == [0.5, 1.0, 2.0]
    assert list(found.is_first) == [True, False, False]
    assert list(found.is_latest) == [False, False, True]


def test_a_stated_instant_that_is_taken_is_an_error_and_nothing_is_kept(store: ObservationStore) -> None:
    store.record(seen({"2026-01-06": 1.0}), rank=rank, now=NOW)
    with pytest.raises(SourceError, match=r"2026-01-06.*is in the store with two values, 1 and 2 of best"):
        store.record(
            [seen({"2026-01-05": 1.0}), seen({"2026-01-06": 2.0})], rank=rank, now=NOW, explicit=True
        )
    assert known(store, NOW) == {"2026-01-06": 1.0}


def test_two_values_of_one_day_and_instant_are_an_error(store: ObservationStore) -> None:
    twice = Observations(
        "copper",
        "best",
        pd.DatetimeIndex(["2026-01-05"] * 2),
        np.array([1.0, 2.0]),
        pd.DatetimeIndex(["2026-01-05 22:00"] * 2, tz="UTC"),
    )
    for explicit in (False, True):
        with pytest.raises(SourceError, match="gives two values, 1 and 2"):
            store.record(twice, rank=rank, now=NOW, explicit=explicit)
    assert store.names() == ()


def test_two_values_of_one_day_whose_instants_are_declared_are_an_error(store: ObservationStore) -> None:
    known_at = pd.DatetimeIndex(["2026-01-05 22:00", "2026-01-07 22:00"], tz="UTC")
    twice = Observations(
        "copper", "best", pd.DatetimeIndex(["2026-01-05"] * 2), np.array([1.0, 2.0]), known_at
    )
    with pytest.raises(SourceError, match=r"gives two values, 1 and 2.*state a later instant"):
        store.record(twice, rank=rank, now=NOW)
    assert store.record(twice, rank=rank, now=NOW, explicit=True).total == Counts(new=1, revisions=1)


def test_what_a_source_remembers_otherwise_of_the_past_is_counted_and_not_written(
    store: ObservationStore,
) -> None:
    store.record(seen({"2026-01-05": 1.0}), rank=rank, now=NOW)
    vintages = Observations(
        "copper",
        "best",
        pd.DatetimeIndex(["2026-01-05"] * 3),
        np.array([0.9, 1.0, 1.1]),
        pd.DatetimeIndex(["2026-01-05 22:00", "2026-01-07", "2026-01-09"], tz="UTC"),
    )
    recorded = store.record(vintages, rank=rank, now=NOW, explicit=True, restates=True)
    assert recorded.total == Counts(unchanged=1, conflicts=1, revisions=1)
    assert known(store, pd.Timestamp("2026-01-10", tz="UTC")) == {"2026-01-05": 1.1}


def test_an_equal_value_of_a_better_source_is_not_overwritten_by_the_worse(store: ObservationStore) -> None:
    store.record(seen({"2026-01-05": 950.0}), rank=rank, now=NOW)
    before = store.summary(NOW + DAY)["copper"]
    told_before = told(store.read(("copper",), NOW + DAY, {"copper": 15})["copper"])
    for _ in range(2):
        recorded = store.record(seen({"2026-01-05": 950.0}, source="import"), rank=rank, now=NOW)
    assert recorded.total == Counts(unchanged=1), "it is said once"
    assert store.record(seen({"2026-01-05": 960.0}), rank=rank, now=NOW + DAY).total == Counts(outranked=1)
    assert known(store, NOW + 2 * DAY) == {"2026-01-05": 950.0}
    after = store.summary(NOW + DAY)["copper"]
    assert (after.days, after.revisions, after.sources) == (before.days, before.revisions, before.sources)
    assert told(store.read(("copper",), NOW + DAY, {"copper": 15})["copper"]) == told_before
    assert len(store.history("copper", pd.Timestamp("2026-01-05").date())) == 1
    assert store.record(seen({"2026-01-05": 955.0}, source="import"), rank=rank, now=NOW).total.revisions == 1


def test_an_equal_value_of_a_better_source_stands_from_its_stated_instant(store: ObservationStore) -> None:
    store.record(seen({"2026-01-05": 950.0}, source="second"), rank=rank, now=NOW)
    one = seen({"2026-01-05": 950.0}, at="2026-01-09")
    assert store.record(one, rank=rank, now=NOW, explicit=True).total == Counts(confirmed=1)
    for at, became in (("2026-01-10", Counts(outranked=1)), ("2026-01-07", Counts(revisions=1))):
        one = seen({"2026-01-05": 960.0}, source="second", at=at)
        assert store.record(one, rank=rank, now=NOW, explicit=True).total == became


def test_a_stated_print_that_is_told_otherwise_today_is_a_revision_known_now(store: ObservationStore) -> None:
    def vintages(*values: float) -> Observations:
        at = pd.DatetimeIndex(["2026-01-05 22:00", "2026-01-07"][: len(values)], tz="UTC")
        days = pd.DatetimeIndex(["2026-01-05"] * len(values))
        return Observations("copper", "best", days, np.array(values), at)

    def fetched(*values: float, now: pd.Timestamp = NOW) -> Counts:
        return store.record(vintages(*values), rank=rank, now=now, explicit=True, restates=True).total

    assert fetched(1.0, 2.0) == Counts(new=1, revisions=1)
    assert fetched(1.0, 2.5, now=NOW + DAY) == Counts(unchanged=1, revisions=1)
    assert fetched(1.0, 2.5, now=NOW + 2 * DAY) == Counts(unchanged=2)
    assert fetched(1.5, 2.5, now=NOW + 2 * DAY) == Counts(unchanged=1, conflicts=1)
    assert fetched(1.5, now=NOW + 3 * DAY) == Counts(revisions=1)
    prints = store.history("copper", pd.Timestamp("2026-01-05").date())
    assert [p.value for p in prints] == [1.0, 2.0, 2.5, 1.5]
    assert [p.available_at for p in prints[2:]] == [NOW + DAY, NOW + 3 * DAY]


def test_most_of_what_is_shared_being_otherwise_is_seen() -> None:
    assert Counts(revisions=6, unchanged=4).contradicts
    assert Counts(outranked=3, conflicts=3, confirmed=4, new=90).contradicts
    assert not Counts(revisions=5, unchanged=5).contradicts
    assert not Counts(revisions=9).contradicts


def test_nothing_is_changed_or_removed(store: ObservationStore, url: str) -> None:
    store.record(seen({"2026-01-05": 1.0}), rank=rank, now=NOW)
    store.record_news([Headline(NOW, "title", "paper", "")], now=NOW)
    store.record_events([Event(NOW, "title", "USD")], now=NOW)
    for table in ("observations", "batches", "headlines", "events"):
        column = {"observations": "value", "batches": "rows"}.get(table, "batch")
        for statement in (f"UPDATE {table} SET {column} = 2", f"DELETE FROM {table}"):
            with pytest.raises(sa.exc.DBAPIError, match=f"rows of {table} are never changed or removed"):
                execute(url, statement)
    assert known(store, NOW) == {"2026-01-05": 1.0}


# --- What is read


def test_what_the_store_holds(store: ObservationStore) -> None:
    store.record(
        [seen({"2026-01-05": 1.0, "2026-01-07": 2.0}), seen({"2026-01-05": 1.0}, series="oil")], now=NOW
    )
    store.record(seen({"2026-01-05": 3.0}, source="import"), now=NOW + DAY)
    assert store.names() == ("copper", "oil")
    assert store.last_dates(["copper", "vix"]) == {"copper": pd.Timestamp("2026-01-07").date()}
    assert store.first_known("copper") == pd.Timestamp("2026-01-05 22:00", tz="UTC")
    assert store.first_known("vix") is None
    copper = store.summary(NOW + DAY)["copper"]
    assert (copper.first_date.day, copper.last_date.day, copper.days, copper.revisions) == (5, 7, 2, 1)
    assert (copper.sources, copper.recorded_at) == ({"best": 2, "import": 1}, NOW + DAY)
    assert store.summary(NOW)["copper"].sources == {"best": 2}
    empty = store.read(("vix",), NOW, {"vix": 15})["vix"]
    assert (len(empty), len(empty.is_first), empty.recorded_at) == (0, 0, {})
    by_source = store.read(("copper",), NOW + DAY, {"copper": 15})["copper"].recorded_at
    assert by_source == {"best": NOW, "import": NOW + DAY}
    assert store.values("copper", NOW).recorded_at == {"best": NOW, "import": NOW + DAY}, (
        "the first where none yet"
    )


def test_values_of_a_range(store: ObservationStore) -> None:
    store.record(seen({f"2026-01-{day:02}": float(day) for day in range(1, 21)}), now=NOW)
    store.record(seen({f"2026-01-{day:02}": -float(day) for day in range(1, 21, 2)}), now=NOW)
    found = store.values("copper", NOW, pd.Timestamp("2026-01-04").date(), pd.Timestamp("2026-01-07").date())
    assert list(found.values) == [4.0, -5.0, 6.0, -7.0]


def test_news_are_told_as_they_were_known(store: ObservationStore) -> None:
    old, new = (Headline(NOW - k * DAY, f"<b>{k}</b> Peso ñ", "paper", f"https://x/{k}") for k in (3, 1))
    assert store.record_news([old, new, new], source="rss", now=NOW) == 2
    assert store.record_news([new, Headline(NOW, "no link", "paper", "")], source="rss", now=NOW + DAY) == 1
    assert store.news(NOW, NOW - 5 * DAY) == (new, old)
    assert store.news(NOW, NOW - 2 * DAY) == (new,)
    assert store.news(NOW - DAY / 2, NOW - 5 * DAY) == ()
    assert len(store.news(NOW + DAY, NOW - 5 * DAY)) == 3


def test_events_are_told_as_they_were_known(store: ObservationStore) -> None:
    soon, later = (Event(NOW + k * DAY, "Rate decision", "USD", "High") for k in (1, 9))
    assert store.record_events([soon, later, soon], now=NOW) == 2
    assert store.record_events([soon], now=NOW + DAY) == 0
    assert store.events(NOW, NOW, NOW + 5 * DAY) == (soon,)
    assert store.events(NOW, NOW, NOW + 9 * DAY) == (soon, later)
    assert store.events(NOW - DAY, NOW, NOW + 9 * DAY) == ()


def test_reading_seeks_and_scans_no_table(store: ObservationStore) -> None:
    store.record(seen({f"2026-01-{day:02}": 1.0 for day in range(1, 21)}), now=NOW)
    plan = store.explain("copper", NOW, 15)
    if store.address.startswith("sqlite"):
        steps = [step for step in plan.splitlines() if "VIRTUAL TABLE" not in step]
        assert steps == [
            "SEARCH o USING PRIMARY KEY (series=? AND revision=? AND date>? AND date<?)",
            "SEARCH p USING PRIMARY KEY (series=? AND length=? AND since>? AND since<?)",
        ]
    else:
        assert re.findall(r"(\w+) Scan (?:using \w+ )?on (\w+)", plan) == [
            ("Function", "unnest"),
            ("Index", "observations"),
            ("Function", "unnest"),
            ("Index", "periods"),
        ]
        found = re.findall(r"Index Cond: \(\(series = 'copper'::text\) AND \((\w+) = ", plan)
        assert found == ["revision", "length"]


# --- The store beside a model that is a list


Row = tuple[pd.Timestamp, float, str, bool]
"""Instant, value, source, and whether it is a print: a row that confirms one is none."""


@dataclass
class Naive:
    """The rules of the store, one observation after the other."""

    rows: dict[str, list[Row]] = field(default_factory=dict)

    def record(self, one: Observations, mode: str, now: pd.Timestamp) -> None:
        given = sorted(zip(one.dates, one.available_at, one.values, strict=True))
        had = sorted(day for day, rows in self.rows.items() if rows)
        for k, (day, at, value) in enumerate(given):
            if mode == "declared" and had and had[0] < str(day.date()) < had[-1]:
                at = max(at, now)
            prints = self.rows.setdefault(str(day.date()), [])
            is_last = k + 1 == len(given) or given[k + 1][0] != day
            self._take(prints, at, float(value), one.source, mode, is_last, now)
            prints.sort(key=lambda row: row[0])

    def _take(
        self,
        prints: list[Row],
        at: pd.Timestamp,
        value: float,
        source: str,
        mode: str,
        is_last: bool,
        now: pd.Timestamp,
    ) -> None:
        if not prints:
            prints.append((at, value, source, True))
            return
        tick = pd.Timedelta(1, "us")
        latest = prints[-1]
        before = [p for p in prints if p[0] <= at]
        current = before[-1] if before else None
        is_today = mode == "declared" or (mode == "restates" and is_last and at <= latest[0])
        compared = latest if is_today else current
        replaced = latest if is_today else (current or prints[0])
        if compared and compared[1] == value:
            is_better = rank("", source) < rank("", replaced[2])
            if is_better and (at > compared[0] or compared is latest):
                prints.append((max(at, compared[0] + tick), value, source, False))
            return
        if rank("", source) > rank("", replaced[2]):
            return
        if is_today:
            prints.append((max(now, latest[0] + tick), value, source, True))
        elif current and current[0] == at:
            if mode == "explicit":
                raise SourceError("taken")
        else:
            prints.append((at, value, source, True))

    def read(self, as_of: pd.Timestamp, window: int) -> list[tuple[str, pd.Timestamp, float, str]]:
        found = []
        for day in sorted(self.rows):
            visible = [p[:3] for p in self.rows[day] if p[3] and p[0] <= as_of]
            end = pd.Timestamp(day, tz="UTC") + (window + 1) * DAY
            found += [(day, *p) for k, p in enumerate(visible) if k in (0, len(visible) - 1) or p[0] < end]
        return found


def told(found: Any) -> list[tuple[str, pd.Timestamp, float, str]]:
    days = [str(day.date()) for day in found.dates]
    return list(zip(days, found.known_at, found.values.tolist(), found.sources, strict=True))


PRINTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(1, 3)),
    max_size=6,
    unique_by=lambda p: (p[0], p[1]),
)
STEPS = st.lists(
    st.tuples(
        PRINTS,
        st.sampled_from(ORDER),
        st.sampled_from(["declared", "explicit", "restates"]),
        st.integers(0, 2),
    ),
    max_size=5,
)
START = pd.Timestamp("2026-01-05", tz="UTC")


@pytest.mark.slow
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, window=st.integers(0, 4))
def test_what_is_read_is_what_a_list_would_say(
    store: ObservationStore, url: str, steps: list[Any], window: int
) -> None:
    series = f"s{uuid.uuid4().hex}"  # one store for all examples, a series for each
    naive, now = Naive(), START + 5 * DAY
    for prints, source, mode, wait in steps:
        now += wait * DAY
        if mode == "declared":  # one value a day
            prints = list({p[0]: p for p in prints}.values())
        days = pd.DatetimeIndex([START.tz_localize(None) + p[0] * DAY for p in prints]).as_unit("us")
        known_at = pd.DatetimeIndex([START + p[1] * DAY / 2 + p[0] * DAY for p in prints], tz="UTC")
        one = Observations(
            series, source, days, np.array([float(p[2]) for p in prints]), known_at.as_unit("us")
        )
        copied = Naive({day: list(rows) for day, rows in naive.rows.items()})
        try:
            copied.record(one, mode, now)
        except SourceError:
            with pytest.raises(SourceError, match="two values"):
                store.record(one, explicit=True, now=now, rank=rank)
            continue
        naive = copied
        naive.rows = {day: rows for day, rows in naive.rows.items() if rows}
        store.record(one, explicit=mode != "declared", restates=mode == "restates", now=now, rank=rank)
    for half_days in range(0, 30, 7):
        as_of = START + half_days * DAY / 2
        assert told(store.read((series,), as_of, {series: window})[series]) == naive.read(as_of, window)
        latest = {day: (day, *rest) for day, *rest in naive.read(as_of, 0)}
        assert told(store.values(series, as_of)) == list(latest.values())
        summary = store.summary(as_of).get(series)
        visible = naive.read(as_of, 99)
        assert (summary is None) == (not visible)
        if summary:
            assert summary.sources == Counter(source for *_, source in visible)
            assert (summary.first_date, summary.last_date) == tuple(
                date.fromisoformat(one) for one in (min(latest), max(latest))
            )
            assert (summary.days, summary.revisions) == (len(latest), len(visible) - len(latest))
    whole(url)


# --- Many at once


def write() -> None:
    """What a writer does: batches into the store at a URL, of all writers' and of its own, for some seconds."""
    url, who, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    store, until, k = ObservationStore(url), time.monotonic() + seconds, 0
    days = pd.date_range("2020-01-01", periods=50).as_unit("us")
    known = (days + pd.Timedelta(hours=22)).tz_localize("UTC")
    store.names()  # makes the tables
    print("ready", flush=True)
    while k == 0 or time.monotonic() < until:
        shared = Observations("shared", "best", days + pd.Timedelta(days=50 * k), np.arange(50.0) + k, known)
        own = Observations(f"own{who}", "best", days, np.arange(50.0) + k, known)
        store.record([shared, own], rank=lambda series, source: 0, origin=f"{who}/{k}")
        k += 1
    print(k, flush=True)


@pytest.fixture(scope="module")
def writers() -> Iterator[Forks]:
    forks = Forks("tests.contract.test_stores:write")
    yield forks
    forks.close()


def whole(url: str) -> None:
    """No batch is half there, nothing is there twice, and the periods are those of the observations."""
    counted = execute(
        url,
        "SELECT b.id, b.rows, count(o.series) FROM batches b LEFT JOIN observations o ON o.batch = b.id "
        "GROUP BY b.id, b.rows HAVING b.rows <> count(o.series)",
    )
    assert counted == []
    again = "SELECT series, date, available_at FROM observations GROUP BY 1, 2, 3 HAVING count(*) > 1"
    assert execute(url, again) == []
    last = "lead(available_at) OVER (PARTITION BY series, date ORDER BY available_at)"
    revisions = (
        "SELECT series, date, available_at, until, value, source FROM (SELECT revision, series, date, available_at, "
        f"coalesce({last}, '9999-12-31T00:00:00.000000Z') AS until, value, source FROM observations "
        "WHERE revision > -2) AS prints WHERE revision > 0"
    )
    lasting = "SELECT series, date, since, until, value, source FROM periods"
    assert execute(url, f"{revisions} EXCEPT {lasting}") == []
    assert execute(url, f"{lasting} EXCEPT {revisions}") == []
    if url.startswith("sqlite"):
        assert execute(url, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.slow
def test_readers_and_writers_do_not_disturb_each_other_for_a_minute(writers: Forks, url: str) -> None:
    seconds = 60
    writing = [writers.start(url, who, seconds) for who in range(2)]
    failures: list[BaseException] = []
    reads = [0] * 20
    until = time.monotonic() + seconds

    def reader(who: int) -> None:
        store = ObservationStore(url)
        try:
            while time.monotonic() < until or reads[who] == 0:
                at = pd.Timestamp.now(tz="UTC")
                found = store.read(("shared", f"own{who % 2}"), at, {"shared": 15, f"own{who % 2}": 15})
                assert len(found["shared"]) % 50 == 0
                reads[who] += 1
        except BaseException as error:  # noqa: BLE001  told by the test's thread
            failures.append(error)

    readers = [threading.Thread(target=reader, args=(who,)) for who in range(20)]
    for one in readers:
        one.start()
    for one in readers:
        one.join()
    counts = []
    for one in [fork.ended() for fork in writing]:
        assert one.returncode == 0, one.stderr
        counts.append(int(one.stdout.split()[-1]))
    assert failures == []
    assert min(counts) > 0
    assert min(reads) > 0
    store = ObservationStore(url)
    assert len(store.values("shared", pd.Timestamp("2100-01-01", tz="UTC"))) == 50 * max(counts)
    for who, count in enumerate(counts):
        assert len(store.history(f"own{who}", pd.Timestamp("2020-01-01").date())) == count
    whole(url)


def test_a_first_start_of_many_at_once_makes_one_store(writers: Forks, url: str) -> None:
    for one in [fork.ended() for fork in [writers.start(url, who, 0.5) for who in range(4)]]:
        assert one.returncode == 0, one.stderr
    assert execute(url, "SELECT part, version FROM schema_versions") == [("observations", 2)]
    whole(url)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_writer_that_is_killed_fifty_times_leaves_no_half_batch(writers: Forks, url: str) -> None:
    chance = np.random.default_rng(5)
    for _ in range(50):
        fork = writers.start(url, 0, 60)
        assert fork.stdout.readline() == "ready\n", fork.ended().stderr
        time.sleep(chance.uniform(0, 0.5))
        fork.kill()
        assert fork.ended().returncode == -signal.SIGKILL
        whole(url)
    store = ObservationStore(url)
    assert store.record(seen({"2019-01-01": 1.0}, series="after"), now=NOW).total.new == 1
