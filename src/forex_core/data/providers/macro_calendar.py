"""Scheduled macro events of the week, from a calendar in JSON.

A list of `{"title", "country", "date", "impact", "forecast", "previous"}`, `country` being a currency and `date` an
instant with its offset from UTC, such as Forex Factory's weekly export. It says when something is due, not what came of
it; the figures are not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from loguru import logger

from forex_core.data.http import HttpClient
from forex_core.data.providers.news import instant_of
from forex_core.data.wire import shown
from forex_core.errors import SourceError, SourceUnavailable
from forex_core.strangers import clean_text
from forex_core.types import Event

CALENDAR = "https://nfs.faireconomy.media/ff_calendar_thisweek.json"
IMPACTS = ("high", "medium", "low", "holiday")

_FIELDS = ("title", "country", "date")
_NEAR = pd.Timedelta(days=60)
"""An event that is further from now is of no weekly calendar."""


@dataclass(frozen=True)
class MacroCalendar:
    """The events of a weekly calendar.

    Attributes:
        now: the time of day, in UTC.
    """

    http: HttpClient
    url: str = CALENDAR
    now: Callable[[], pd.Timestamp] = lambda: pd.Timestamp.now(tz="UTC")
    name: str = "macro_calendar"

    def fetch_events(self) -> tuple[Event, ...]:
        found = self.http.get(self.url, expect="json").json()
        where = shown(self.url, query=False)
        if not isinstance(found, list):
            raise SourceError(
                f"{where} gave a {type(found).__name__} where a list of events was expected; it may have changed: "
                "correct the address of the calendar"
            )
        if not found:
            raise SourceUnavailable(
                f"{where} gave an empty list, and no week is without an event; try again later"
            )
        events: set[Event] = set()
        dropped: Counter[str] = Counter()
        for item in found:
            try:
                events.add(_event(item, self.now()))
            except ValueError as error:
                dropped[str(error)] += 1
        if not events:
            raise SourceError(
                f"none of the {len(found)} events of {where} can be used ({_counted(dropped)}); expected objects "
                "with title, country and a date with an offset: it may have changed"
            )
        if dropped:
            logger.warning("{}: left out of {}: {}", self.name, where, _counted(dropped))
        return tuple(sorted(events, key=lambda event: (event.when, event.currency, event.title)))


def _event(item: Any, now: pd.Timestamp) -> Event:
    """One item of the list as an event; ValueError with the reason where it is none."""
    if not isinstance(item, dict):
        raise ValueError("no object")
    missing = [name for name in _FIELDS if not isinstance(item.get(name), str)]
    if missing:
        raise ValueError(f"no {missing[0]}")
    title = clean_text(item["title"])
    if not title:
        raise ValueError("no title")
    try:
        when = instant_of(item["date"])
    except ValueError:
        raise ValueError("no date with an offset") from None
    if abs(when - now) > _NEAR:
        raise ValueError(f"dated more than {_NEAR.days} days from now")
    currency = item["country"].strip().upper()
    impact = str(item.get("impact", "")).strip().lower()
    return Event(
        when,
        title,
        # What concerns all ("All") concerns no currency above others.
        currency
        if len(currency) == 3 and currency.isascii() and currency.isalpha() and currency != "ALL"
        else "",
        impact if impact in IMPACTS else "",
    )


def _counted(dropped: Counter[str]) -> str:
    return ", ".join(f"{count} with {reason}" for reason, count in dropped.items())
