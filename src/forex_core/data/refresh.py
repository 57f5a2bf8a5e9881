"""Bringing the store up to date: which series are due, who is asked in turn, what came of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
from loguru import logger

from forex_core.data.catalogue import NEEDS, Entry, Feed, entry
from forex_core.data.observations import EventFetcher, Fetcher, NewsFetcher, Observations
from forex_core.data.prints import Counts
from forex_core.data.series import PRICE
from forex_core.data.store import ObservationStore, Recorded
from forex_core.errors import SourceError, SourceUnavailable

OVERLAP_DAYS = 10
"""Days before the last fetched one that are asked for again, to notice what was revised.

What was revised of days before is noticed only where they are asked for by their date (`forex data fetch --from`).
"""

_SPAN = re.compile(r"(\d{4}-\d\d-\d\d)/(\d{4}-\d\d-\d\d)")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Refreshed:
    """What became of one series, or of the news or the events.

    Attributes:
        source: who gave it, None where nobody did; where several did, the one with the later day, else the first.
        failures: the reason of each source that was asked in vain.
        is_due: whether it was asked for: there should be more than the store had.
        is_later: whether a day came that is later than all the store had.
    """

    name: str
    source: str | None = None
    recorded: Recorded | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    is_due: bool = True
    is_later: bool = True

    @property
    def failed(self) -> bool:
        return self.is_due and self.source is None

    @property
    def why(self) -> str:
        """The failures in one line."""
        return "; ".join(f"{source}: {reason}" for source, reason in self.failures.items())


class Refresher:
    """Asks the sources of each series in their declared order, and records what they give until one has a later day.

    A series without all of its history is asked from `history_from`, once: what was asked for is remembered, not what
    came of it. For each source that is what it and those before it were asked for: a history that one behind it gave
    may be shorter than its own.

    A source that cannot be reached is not asked again by the same refresher, so that a lost network costs one wait
    for each source and not one for each series.
    """

    def __init__(self, store: ObservationStore, fetchers: Mapping[str, Fetcher], history_from: date) -> None:
        self._store = store
        self._fetchers = fetchers
        self._from = history_from
        self._down: dict[str, str] = {}

    def refresh(
        self,
        names: Sequence[str],
        *,
        force: bool = False,
        since: date | None = None,
        progress: Progress | None = None,
    ) -> tuple[Refreshed, ...]:
        """Bring series up to date; no failure of a source is raised.

        Args:
            force: ask also for those that have all that is released.
            since: ask for all of them, from this day on.
            progress: told of each series: its name, how many are done, of how many.
        """
        done = []
        last = self._store.last_dates(names)
        for k, name in enumerate(names):
            if progress:
                progress(name, k, len(names))
            done.append(self._one(entry(name), last.get(name), force, since))
        return tuple(done)

    def _one(self, series: Entry, last: date | None, force: bool, since: date | None) -> Refreshed:
        now = pd.Timestamp.now(tz="UTC")
        if not series.feeds:
            return Refreshed(series.name, is_due=False)
        able = [feed for feed in series.feeds if feed.source in self._fetchers]
        expects_later = is_due(series, last, now)
        if not (force or since or expects_later or self._covered(series, able[:1]) is None):
            return Refreshed(series.name, is_due=False)
        failures: dict[str, str] = {}
        given, total = None, Counts()
        for k, feed in enumerate(series.feeds, start=1):
            covered = self._covered(series, series.feeds[:k])
            start = since or (self._from if covered is None else covered - timedelta(days=OVERLAP_DAYS))
            try:
                seen, recorded = self._asked(series, feed.source, start, now.date(), last)
            except _InVain as error:
                failures[feed.source] = str(error)
                logger.warning("{} not from {}: {}", series.name, feed.source, error)
                continue
            logger.info("{} from {}: {}", series.name, feed.source, recorded)
            is_later = len(seen) > 0 and (last is None or seen.dates.max().date() > last)
            total += recorded.total
            if given is None or is_later:
                given = Refreshed(series.name, feed.source, None, seen.dropped, is_later=is_later)
            if is_later or not expects_later:
                break
        if given is None:
            return Refreshed(series.name, failures=failures)
        return replace(given, recorded=Recorded({series.name: total}), failures=failures)

    def _asked(
        self, series: Entry, source: str, start: date, end: date, last: date | None
    ) -> tuple[Observations, Recorded]:
        """What one source gave, and what became of it in the store; `_InVain` with the reason where it is nothing."""
        fetcher = self._fetchers.get(source)
        if fetcher is None:
            raise _InVain(f"needs {NEEDS.get(source, 'a setting')}")
        if source in self._down:
            raise _InVain(self._down[source])
        try:
            seen = fetcher.fetch(series.name, start, end)
        except SourceUnavailable as error:
            self._down[source] = f"out of reach, as for {series.name}"
            raise _InVain(str(error)) from error
        except SourceError as error:
            raise _InVain(str(error)) from error
        if len(seen) == 0 and last is None:
            raise _InVain(f"gave no value from {start} to {end}")
        origin = f"{start}/{seen.dates.max().date()}" if len(seen) else ""
        try:
            return seen, self._store.record(seen, origin=origin, explicit=seen.stated, restates=True)
        except SourceError as error:  # of this series: the others are recorded all the same
            raise _InVain(str(error)) from error

    def _covered(self, series: Entry, feeds: Sequence[Feed]) -> date | None:
        """The last day up to which sources were asked without a gap since `history_from`; None where they were not.

        The batches of what was fetched tell the days asked for and the last one given, as `2010-01-01/2024-06-28`.
        """
        origins = self._store.origins(series.name, [feed.source for feed in feeds])
        spans = (
            tuple(map(date.fromisoformat, found.groups())) for found in map(_SPAN.fullmatch, origins) if found
        )
        begin = reach = self._from + timedelta(days=OVERLAP_DAYS)
        for start, end in sorted(spans):
            if start <= reach:
                reach = max(reach, end)
        return reach if reach > begin else None

    def refresh_news(self, fetchers: Sequence[NewsFetcher]) -> Refreshed:
        """Record the headlines of every source that answers."""
        return _gathered("news", [(one.name, one.fetch_news) for one in fetchers], self._store.record_news)

    def refresh_events(self, fetchers: Sequence[EventFetcher]) -> Refreshed:
        """Record the events of every source that answers."""
        return _gathered(
            "events", [(one.name, one.fetch_events) for one in fetchers], self._store.record_events
        )


class _InVain(Exception):  # noqa: N818  a reason; never leaves this module
    """A source was asked in vain."""


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
    """Whether a source could give a value later than `last` by `now`, as the release rule has it."""
    if not series.feeds:
        return False
    if last is None:
        return True
    today = now.tz_localize(None).normalize()
    days = pd.date_range(today - pd.Timedelta(days=100), today + pd.Timedelta(days=1))
    is_monthly = series.definition.release.period == "month"
    if is_monthly:
        days = days[days.day == 1]
    elif series.definition.kind == PRICE:
        days = days[days.day_of_week < 5]
    released = days[np.asarray(series.definition.release.instants(days) <= now)]
    return bool(len(released)) and released[-1].date() > (last.replace(day=1) if is_monthly else last)
