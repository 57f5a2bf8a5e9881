"""Bringing the store up to date: which series are due, who is asked in turn, what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
import pandas as pd
from loguru import logger

from forex_core.data.catalogue import NEEDS, Entry, entry
from forex_core.data.observations import EventFetcher, Fetcher, NewsFetcher
from forex_core.data.series import PRICE
from forex_core.data.store import Counts, ObservationStore, Recorded
from forex_core.errors import SourceError, SourceUnavailable

OVERLAP_DAYS = 10
"""Days before the last known one that are asked for again, to notice what was revised."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Refreshed:
    """What became of one series, or of the news or the events.

    `source` gave it, None where nobody did; `failures` has the reason of each source that was asked in vain.
    """

    name: str
    source: str | None = None
    recorded: Recorded | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    is_due: bool = True

    @property
    def failed(self) -> bool:
        return self.is_due and self.source is None

    @property
    def why(self) -> str:
        """The failures in one line."""
        return "; ".join(f"{source}: {reason}" for source, reason in self.failures.items())


class Refresher:
    """Asks the sources of each series in their declared order, and records what the first one gives.

    A source that cannot be reached is not asked again by the same refresher, so that a lost network costs one wait
    for each source and not one for each series.
    """

    def __init__(self, store: ObservationStore, fetchers: Mapping[str, Fetcher], history_from: date) -> None:
        self._store = store
        self._fetchers = fetchers
        self._from = history_from
        self._down: dict[str, str] = {}

    def refresh(
        self, names: Sequence[str], *, force: bool = False, progress: Progress | None = None
    ) -> tuple[Refreshed, ...]:
        """Bring series up to date; no failure of a source is raised.

        Args:
            force: ask also for those that have all that is released.
            progress: told of each series: its name, how many are done, of how many.
        """
        done = []
        last = self._store.last_dates(names)
        for k, name in enumerate(names):
            if progress:
                progress(name, k, len(names))
            done.append(self._one(entry(name), last.get(name), force))
        return tuple(done)

    def _one(self, series: Entry, last: date | None, force: bool) -> Refreshed:
        now = pd.Timestamp.now(tz="UTC")
        if not series.feeds:
            return Refreshed(series.name, is_due=False)
        if not force and not is_due(series, last, now):
            return Refreshed(series.name, is_due=False)
        start = last - timedelta(days=OVERLAP_DAYS) if last else self._from
        failures: dict[str, str] = {}
        for feed in series.feeds:
            fetcher = self._fetchers.get(feed.source)
            if fetcher is None:
                failures[feed.source] = f"needs {NEEDS.get(feed.source, 'a setting')}"
            elif feed.source in self._down:
                failures[feed.source] = self._down[feed.source]
            else:
                try:
                    seen = fetcher.fetch(series.name, start, now.date())
                except SourceUnavailable as error:
                    failures[feed.source] = str(error)
                    self._down[feed.source] = f"out of reach, as for {series.name}"
                except SourceError as error:
                    failures[feed.source] = str(error)
                else:
                    if len(seen) == 0 and last is None:
                        failures[feed.source] = f"gave no value from {start} to {now.date()}"
                        continue
                    recorded = self._store.record(seen, explicit=seen.stated)
                    logger.info("{} from {}: {}", series.name, feed.source, recorded)
                    return Refreshed(series.name, feed.source, recorded, seen.dropped, failures)
            logger.warning("{} not from {}: {}", series.name, feed.source, failures[feed.source])
        return Refreshed(series.name, failures=failures)

    def refresh_news(self, fetchers: Sequence[NewsFetcher]) -> Refreshed:
        """Record the headlines of every source that answers."""
        return _gathered("news", [(one.name, one.fetch_news) for one in fetchers], self._store.record_news)

    def refresh_events(self, fetchers: Sequence[EventFetcher]) -> Refreshed:
        """Record the events of every source that answers."""
        return _gathered(
            "events", [(one.name, one.fetch_events) for one in fetchers], self._store.record_events
        )


def _gathered(
    name: str, asked: Sequence[tuple[str, Callable[[], object]]], record: Callable[..., int]
) -> Refreshed:
    new, given, failures = 0, [], {}
    for source, fetch in asked:
        try:
            new += record(fetch(), source=source)
            given.append(source)
        except (SourceUnavailable, SourceError) as error:
            failures[source] = str(error)
            logger.warning("{} not from {}: {}", name, source, error)
    recorded = Recorded({name: Counts(new=new)})
    return Refreshed(name, ", ".join(given) or None, recorded, failures=failures, is_due=bool(asked))


def is_due(series: Entry, last: date | None, now: pd.Timestamp) -> bool:
    """Whether a value later than `last` has been released by `now`, as the release rule has it."""
    if last is None:
        return True
    today = now.tz_localize(None).normalize()
    days = pd.date_range(today - pd.Timedelta(days=100), today + pd.Timedelta(days=1))
    if series.definition.kind == PRICE:
        days = days[days.day_of_week < 5]
    released = days[np.asarray(series.definition.release.instants(days) <= now)]
    return bool(len(released)) and released[-1].date() > last
