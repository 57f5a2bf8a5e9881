"""What was seen of a series, and since when: what a fetcher returns and the store keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

import numpy as np
import pandas as pd

from forex_core.types import Array, Event, Headline


@dataclass(frozen=True)
class Observations:
    """Values of one series as one source gave them, with the instant at which each became known.

    Attributes:
        series: its name in the catalogue, such as `usdclp_close`.
        source: who gave them, such as `yahoo`.
        dates: [n] naive days, increasing unless stated instants tell several prints of one day apart.
        values: [n] in the unit of the series' definition; finite.
        available_at: [n] UTC.
        dropped: what the source gave besides and was not taken, with the reason and how often.
        stated: whether the source itself says when it published; otherwise a release rule does.
    """

    series: str
    source: str
    dates: pd.DatetimeIndex
    values: Array
    available_at: pd.DatetimeIndex
    dropped: dict[str, int] = field(default_factory=dict)
    stated: bool = False

    def __post_init__(self) -> None:
        if not len(self.dates) == len(self.values) == len(self.available_at):
            raise ValueError(f"arrays of {self.series} differ in length")
        if not np.isfinite(self.values).all():
            raise ValueError(f"{self.series}: every value of an observation is a finite number")
        if str(self.available_at.tz) != "UTC":
            raise ValueError(f"{self.series}: instants are in UTC, found {self.available_at.tz}")

    def __len__(self) -> int:
        return len(self.dates)


@dataclass(frozen=True)
class Quote:
    """A market rate of some instant (UTC), in the pair's unit, and who said it."""

    value: float
    at: pd.Timestamp
    source: str


class Fetcher(Protocol):
    """A source of observations over the network. It reads and labels; it repairs nothing."""

    @property
    def name(self) -> str:
        """As the catalogue says it."""
        ...

    def fetch(self, series: str, start: date, end: date) -> Observations:
        """What the source knows of the days from `start` to `end`, both included; none where it has none.

        Days whose value is not yet released are left out: what a source says of today is a quote.

        Raises:
            SourceUnavailable: it could not be reached, is busy, or broke off; trying again may help.
            SourceError: it answered something else than expected, or does not give this series.
        """
        ...


class NewsFetcher(Protocol):
    """A source of headlines."""

    @property
    def name(self) -> str: ...

    def fetch_news(self) -> tuple[Headline, ...]:
        """The headlines that it has now, the newest first. Raises as `Fetcher.fetch`."""
        ...


class EventFetcher(Protocol):
    """A source of scheduled macro events."""

    @property
    def name(self) -> str: ...

    def fetch_events(self) -> tuple[Event, ...]:
        """The events that it has now, the earliest first. Raises as `Fetcher.fetch`."""
        ...
