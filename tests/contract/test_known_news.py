"""Headlines and events as they were known at an instant, however feeds and calendars changed their minds."""

from __future__ import annotations

import pandas as pd
import pytest

from forex_core.data.store import ObservationStore
from forex_core.types import Event, Headline
from tests.contract.test_stores import store, url

__all__ = ["store", "url"]

NOW = pd.Timestamp("2026-12-09 12:00", tz="UTC")
"""A Wednesday."""
HOUR, DAY = pd.Timedelta(hours=1), pd.Timedelta(days=1)
CPI = Event(NOW + DAY, "CPI m/m", "USD", "high")
JOBS = Event(NOW + 2 * DAY, "Payrolls", "USD", "high")
NEXT = Event(NOW + 8 * DAY, "Rate decision", "CLP", "high")
SLIPS = Headline(NOW - DAY, "Peso slips", "El Diario", "https://example.org/a?from=rss")


def ahead(store: ObservationStore, as_of: pd.Timestamp) -> tuple[Event, ...]:
    return store.events(as_of, NOW, NOW + 30 * DAY)


def titles(store: ObservationStore, as_of: pd.Timestamp) -> list[str]:
    return [headline.title for headline in store.news(as_of, NOW - 5 * DAY)]


def test_an_event_that_is_moved_is_shown_where_it_was_moved_to(store: ObservationStore) -> None:
    moved = Event(CPI.when + DAY, "CPI m/m", "USD", "high")
    assert store.record_events([CPI, JOBS], source="week", now=NOW) == 2
    assert store.record_events([moved, JOBS], source="week", now=NOW + HOUR) == 1
    assert ahead(store, NOW) == (CPI, JOBS)
    assert ahead(store, NOW + HOUR) == (moved, JOBS)


def test_an_event_that_is_called_off_is_gone_and_one_of_another_impact_has_that(
    store: ObservationStore,
) -> None:
    low = Event(CPI.when, "CPI m/m", "USD", "low")
    store.record_events([CPI, JOBS], source="week", now=NOW)
    assert store.record_events([low], source="week", now=NOW + HOUR) == 1
    assert ahead(store, NOW + HOUR / 2) == (CPI, JOBS)
    assert ahead(store, NOW + HOUR) == (low,)
    assert store.record_events([CPI, JOBS], source="week", now=NOW + 2 * HOUR) == 2, "as it was at first"
    assert ahead(store, NOW + 2 * HOUR) == (CPI, JOBS)


def test_a_calendar_speaks_of_its_own_weeks_alone(store: ObservationStore) -> None:
    store.record_events([CPI, NEXT], source="week", now=NOW)
    store.record_events([JOBS], source="week", now=NOW + HOUR)
    assert ahead(store, NOW + HOUR) == (JOBS, NEXT)
    store.record_events([CPI], source="other", now=NOW + 2 * HOUR)
    assert ahead(store, NOW + 2 * HOUR) == (CPI, JOBS, NEXT)


@pytest.mark.parametrize(
    ("last", "same"),
    [
        ("2026-12-12 23:30", True),
        ("2026-12-13 00:30", False),
    ],  # in New York, where it is 4:30 and 5:30 in UTC
)
def test_a_week_ends_with_saturday_in_new_york(store: ObservationStore, last: str, same: bool) -> None:
    late = Event(pd.Timestamp(last, tz="America/New_York").tz_convert("UTC"), "PMI", "CNY", "high")
    store.record_events([CPI], source="week", now=NOW)
    store.record_events([late], source="week", now=NOW + HOUR)
    assert ahead(store, NOW + HOUR) == ((late,) if same else (CPI, late))


def test_what_a_calendar_says_again_adds_nothing(store: ObservationStore) -> None:
    store.record_events([CPI, JOBS, NEXT], source="week", now=NOW)
    assert store.record_events([NEXT, CPI, JOBS, CPI], source="week", now=NOW + HOUR) == 0
    assert store.record_events([], source="week", now=NOW + HOUR) == 0
    assert ahead(store, NOW + HOUR) == (CPI, JOBS, NEXT)


def test_a_title_under_two_links_counts_once(store: ObservationStore) -> None:
    again = Headline(NOW - DAY + HOUR, "PESO slips!", "El Diario", "https://example.org/a?from=api")
    store.record_news([SLIPS], source="rss", now=NOW)
    store.record_news([again], source="newsapi", now=NOW + HOUR)
    assert store.news(NOW + HOUR, NOW - 5 * DAY) == (SLIPS,)


def test_a_column_of_the_same_title_every_day_is_another_one_every_day(store: ObservationStore) -> None:
    columns = [Headline(NOW - k * DAY, "Market wrap", "Desk", f"https://example.org/{k}") for k in (1, 2)]
    store.record_news(columns, source="rss", now=NOW)
    assert store.news(NOW, NOW - 5 * DAY) == tuple(columns)


def test_a_title_that_was_corrected_is_told_as_it_was_known(store: ObservationStore) -> None:
    rises = Headline(SLIPS.published, "Peso rises (corrected)", SLIPS.source, SLIPS.link)
    assert store.record_news([SLIPS], source="rss", now=NOW) == 1
    assert store.record_news([rises], source="rss", now=NOW + HOUR) == 1
    assert store.record_news([rises], source="rss", now=NOW + HOUR) == 0
    assert titles(store, NOW) == [SLIPS.title]
    assert titles(store, NOW + HOUR) == [rises.title]
    assert store.record_news([SLIPS], source="rss", now=NOW + 2 * HOUR) == 1
    assert titles(store, NOW + 2 * HOUR) == [SLIPS.title]


def test_a_feed_that_dates_a_headline_anew_adds_nothing(store: ObservationStore) -> None:
    store.record_news([SLIPS], source="rss", now=NOW)
    redated = Headline(NOW - HOUR, SLIPS.title, SLIPS.source, SLIPS.link)
    assert store.record_news([redated], source="rss", now=NOW) == 0
    assert store.news(NOW, NOW - 5 * DAY) == (SLIPS,)
