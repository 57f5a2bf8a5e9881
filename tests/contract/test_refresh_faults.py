"""What one source or series does badly, and that it costs no other: contradictions, lost history, nothing new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from forex_core.cli import app
from forex_core.data import loading
from forex_core.data.catalogue import FRED, IMPORT, YAHOO, entry
from forex_core.data.observations import Fetcher, Observations
from forex_core.data.prints import Counts
from forex_core.data.providers.stored import StoredProvider
from forex_core.data.refresh import Refresher, is_due
from forex_core.data.store import ObservationStore
from forex_core.types import Pair

NOW = pd.Timestamp.now(tz="UTC")
DAYS = pd.bdate_range(end=NOW.tz_localize(None).normalize() - pd.Timedelta(days=10), periods=200)
"""They end long enough ago for a later close to be due on any day and at any hour."""
START = DAYS[0].date()


def observed(
    series: str, source: str, days: pd.DatetimeIndex, values: Sequence[float], *, stated: bool = False
) -> Observations:
    known = entry(series).definition.release.instants(days)
    return Observations(series, source, days, np.asarray(values, dtype=np.float64), known, stated=stated)


@dataclass
class Source:
    """A source with values of every series by day; it remembers since when it was asked."""

    name: str
    days: pd.DatetimeIndex = field(default_factory=lambda: DAYS)
    values: list[float] = field(default_factory=lambda: [100.0 + k for k in range(len(DAYS))])
    stated: bool = False
    asked: list[tuple[str, date]] = field(default_factory=list)

    def fetch(self, series: str, start: date, end: date) -> Observations:
        self.asked.append((series, start))
        taken = (self.days >= pd.Timestamp(start)) & (self.days <= pd.Timestamp(end))
        values = [value for value, is_taken in zip(self.values, taken, strict=True) if is_taken]
        return observed(series, self.name, self.days[taken], values, stated=self.stated)


@pytest.fixture
def store(tmp_path: Path) -> ObservationStore:
    return ObservationStore(f"sqlite:///{tmp_path}/forex.db")


def refresher(store: ObservationStore, *sources: Source, start: date = START) -> Refresher:
    fetchers: dict[str, Fetcher] = {one.name: one for one in sources}
    return Refresher(store, fetchers, start)


def test_a_stated_print_that_has_changed_is_a_revision_known_now(store: ObservationStore) -> None:
    fred = Source(FRED, stated=True)
    refresher(store, fred).refresh(["fed_rate"])
    before = pd.Timestamp.now(tz="UTC")
    fred.values[-3] += 0.5
    (done,) = refresher(store, fred).refresh(["fed_rate"], force=True)
    assert done.recorded
    assert done.recorded.total.revisions == 1
    first, second = store.history("fed_rate", DAYS[-3].date())
    assert (first.value, second.value) == (fred.values[-3] - 0.5, fred.values[-3])
    assert second.available_at >= before


def test_a_series_whose_source_contradicts_itself_leaves_the_others_alone(store: ObservationStore) -> None:
    @dataclass
    class Twice(Source):
        def fetch(self, series: str, start: date, end: date) -> Observations:
            seen = super().fetch(series, start, end)
            if series != "copper":
                return seen
            return observed(series, self.name, seen.dates[[0, 0]], [1.0, 2.0])

    copper, oil = refresher(store, Twice(YAHOO)).refresh(["copper", "oil"])
    assert copper.failed
    assert "gives two values, 1 and 2" in copper.why
    assert oil.source == YAHOO


def test_history_is_fetched_though_a_recent_day_was_imported(store: ObservationStore) -> None:
    store.record(observed("copper", IMPORT, DAYS[-2:-1], [1.0]))
    yahoo = Source(YAHOO)
    refresher(store, yahoo).refresh(["copper"])
    assert yahoo.asked == [("copper", START)]
    assert len(store.values("copper", NOW)) == len(DAYS)
    refresher(store, yahoo).refresh(["copper"])
    assert yahoo.asked[1:] == [("copper", DAYS[-1].date() - timedelta(days=10))]


def test_history_that_is_all_imported_already_is_asked_for_once(store: ObservationStore) -> None:
    yahoo = Source(YAHOO)
    store.record(observed("copper", IMPORT, DAYS, yahoo.values))
    for _ in range(2):
        refresher(store, yahoo).refresh(["copper"])
    assert [start for _, start in yahoo.asked] == [START, DAYS[-1].date() - timedelta(days=10)]


def test_a_series_that_begins_later_is_not_asked_for_whole_again(store: ObservationStore) -> None:
    yahoo = Source(YAHOO, DAYS[100:], [1.0] * 100)
    for _ in range(2):
        refresher(store, yahoo).refresh(["copper"])
    assert yahoo.asked[1][1] == DAYS[-1].date() - timedelta(days=10)
    earlier = START - timedelta(days=100)
    refresher(store, yahoo, start=earlier).refresh(["copper"])
    assert yahoo.asked[2][1] == earlier, "the history that is wanted has grown"


def test_a_day_to_ask_from_is_asked_from_and_hides_no_gap(store: ObservationStore) -> None:
    yahoo = Source(YAHOO)
    since = DAYS[50].date()
    refresher(store, yahoo).refresh(["copper"], since=since)
    refresher(store, yahoo).refresh(["copper"])
    refresher(store, yahoo).refresh(["copper"], since=since)
    assert [start for _, start in yahoo.asked] == [since, START, since]


def test_a_source_without_a_later_day_is_not_the_last_to_be_asked(store: ObservationStore) -> None:
    yahoo, fred = Source(YAHOO, DAYS[:-5], [1.0] * 195), Source(FRED, values=[1.0] * 200)
    refresher(store, yahoo).refresh(["vix"])
    (done,) = refresher(store, yahoo, fred).refresh(["vix"])
    assert (done.source, done.is_later, done.failures) == (FRED, True, {})
    assert store.last_dates(["vix"])["vix"] == DAYS[-1].date()
    (done,) = refresher(store, yahoo, fred).refresh(["vix"])
    assert (done.source, done.is_later, done.failed) == (YAHOO, False, False), "a holiday is no failure"
    assert done.recorded
    assert done.recorded.total == Counts(unchanged=done.recorded.total.unchanged)


def test_a_history_that_a_lower_source_gave_is_fetched_from_the_first_one_when_it_is_back(
    store: ObservationStore,
) -> None:
    yahoo, fred = Source(YAHOO), Source(FRED, DAYS[100:], [1.0] * 100)
    (done,) = refresher(store, fred).refresh(["sp500"])
    assert (done.source, done.failed) == (FRED, False)
    assert len(store.values("sp500", NOW)) == 100
    refresher(store, yahoo, fred).refresh(["sp500"])
    assert yahoo.asked == [("sp500", START)]
    assert len(store.values("sp500", NOW)) == len(DAYS)
    refresher(store, yahoo, fred).refresh(["sp500"])
    assert yahoo.asked[1:] == [("sp500", DAYS[-1].date() - timedelta(days=10))]


def test_a_lower_source_is_asked_from_where_those_before_it_end(store: ObservationStore) -> None:
    yahoo, fred = Source(YAHOO, DAYS[:-5], [1.0] * 195), Source(FRED, values=[1.0] * 200)
    refresher(store, yahoo).refresh(["vix"])
    refresher(store, yahoo, fred).refresh(["vix"])
    assert fred.asked == [("vix", DAYS[-6].date() - timedelta(days=10))]


def test_when_a_source_was_taken_in_is_its_own(store: ObservationStore) -> None:
    at = [NOW - pd.Timedelta(days=days) for days in (3, 1)]
    store.record(observed("usdclp_close", YAHOO, DAYS[:-1], [900.0] * 199), now=at[0])
    store.record(observed("usdclp_close", IMPORT, DAYS[-1:], [900.0]), now=at[1])
    sources = StoredProvider(store, "close", ()).load(Pair("USD", "CLP")).sources
    assert {one.name: one.fetched_at for one in sources} == {
        YAHOO: at[0].as_unit("us"),
        "imported files": at[1].as_unit("us"),
    }


def test_what_is_not_written_and_what_looks_like_another_unit_is_told(
    store: ObservationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.record(observed("copper", IMPORT, DAYS, [100.0] * 200))
    yahoo = Source(YAHOO, values=[1.0] * 200)
    monkeypatch.setattr(
        loading, "refresh", lambda *_, **__: refresher(store, yahoo).refresh(["copper", "oil"])
    )
    done = CliRunner().invoke(app, ["data", "fetch", "copper", "oil"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert "copper: 200 not written (a better source has another value)" in lines
    assert any(line.startswith("copper: more than half") for line in lines)
    assert not any(line.startswith("oil: ") for line in lines)
    assert any("copper" in line and "nothing new" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "last", "now", "due"),
    [
        ("ipc", "2024-06-01", "2024-07-20 12:00", False),
        ("ipc", "2024-06-30", "2024-08-09 12:59", False),
        ("ipc", "2024-06-01", "2024-08-09 13:01", True),
        ("chile_rate", "2020-06-01", "2024-07-20 12:00", False),
        ("chile_rate", None, "2024-07-20 12:00", False),
        ("lithium_price", "2020-06-01", "2024-07-20 12:00", False),
    ],
)
def test_a_monthly_series_is_due_with_its_next_month_and_one_of_files_never(
    name: str, last: str | None, now: str, due: bool
) -> None:
    held = date.fromisoformat(last) if last else None
    assert is_due(entry(name), held, pd.Timestamp(now, tz="UTC")) is due
