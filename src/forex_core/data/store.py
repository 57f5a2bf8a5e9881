"""The store of observations: what was seen of each series, by whom, and since when. SQLite or PostgreSQL.

Nothing is ever changed: a revised value is a new row, and what was known at an instant is the rows available by then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import sqlalchemy as sa

from forex_core.append_only import POSTGRES, SQLITE, AppendOnlyDatabase, Instant, utc
from forex_core.data import tables
from forex_core.data.catalogue import entry
from forex_core.data.observations import Observations
from forex_core.data.prints import (
    CONFIRMS,
    EARLIER,
    FIRST,
    LAST_CODE,
    Counts,
    Days,
    Mode,
    Rows,
    Span,
    borders,
    decide,
    periods,
    wanted,
)
from forex_core.strangers import title_key
from forex_core.types import Array, Event, Headline, Mask

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_FIRSTS = (EARLIER, FIRST)
_Scheduled = tuple[pd.Timestamp, str, str]
"""What tells an event from others of its calendar: instant, title and currency."""

Rank = Callable[[str, str], int]
"""Series and source to the source's place in the order, 0 the best."""


@dataclass(frozen=True)
class Recorded:
    """What one call of `ObservationStore.record` did, by series."""

    series: Mapping[str, Counts]

    @property
    def total(self) -> Counts:
        return sum(self.series.values(), Counts())

    def __str__(self) -> str:
        return str(self.total)


@dataclass(frozen=True)
class Prints:
    """What was known of one series at an instant, sorted by (day, instant): n rows, one or several for each day.

    Attributes:
        dates: [n] naive days.
        values: [n]
        known_at: [n] UTC.
        sources: [n] names.
        recorded_at: by source, when it was last taken in by that instant; where it was not yet, when it first was.
    """

    series: str
    dates: pd.DatetimeIndex
    values: Array
    known_at: pd.DatetimeIndex
    sources: npt.NDArray[np.object_]
    recorded_at: Mapping[str, pd.Timestamp]

    def __len__(self) -> int:
        return len(self.dates)

    @property
    def is_first(self) -> Mask:
        """[n] whether a row is the first print of its day."""
        return borders(self.dates.to_numpy())[:-1]

    @property
    def is_latest(self) -> Mask:
        """[n] whether a row is the last print of its day."""
        return borders(self.dates.to_numpy())[1:]


@dataclass(frozen=True)
class Print:
    """One row of the store; `recorded_at` and `origin`, such as a file, are of the batch that brought it."""

    day: date
    value: float
    available_at: pd.Timestamp
    source: str
    batch: int
    recorded_at: pd.Timestamp
    origin: str


@dataclass(frozen=True)
class Summary:
    """What the store holds of one series; `sources` counts the rows of each."""

    series: str
    first_date: date
    last_date: date
    days: int
    revisions: int
    sources: Mapping[str, int]
    recorded_at: pd.Timestamp | None


class ObservationStore:
    """Observations, headlines and events of one database, which is opened when it is first needed.

    Every call is one transaction on a connection of its own, so that a store may be shared by threads and processes.

    Raises, from every method:
        SourceUnavailable: the database is locked, unreachable or out of space; trying again may help.
        SourceError: it is none of ours, is damaged or cannot be written, or was made by another version.
    """

    def __init__(self, url: str, below: Path | None = None) -> None:
        """
        Args:
            url: sqlite:////path/forex.db or postgresql://user@host/database.
            below: the data folder; an SQLite file elsewhere is refused, for no backup looks there.

        Raises:
            ConfigError: for another address, or where PostgreSQL's driver is not installed.
        """
        self._database = AppendOnlyDatabase(url, tables.PART, below)
        self.address = self._database.address

    @property
    def is_made(self) -> bool:
        """Whether anything was ever asked of it; nothing is made to find out."""
        return self._database.is_made

    # --- Writing

    def record(
        self,
        observations: Observations | Iterable[Observations],
        *,
        origin: str = "",
        now: pd.Timestamp | None = None,
        rank: Rank = lambda series, source: entry(series).rank(source),
        explicit: bool = False,
        restates: bool = False,
    ) -> Recorded:
        """Take in what sources said, all of it or nothing.

        An instant that is declared rather than stated (`explicit` false) counts for days before the first and after
        the last that the store had of the series when called. A day between these became known now, and so did
        another value for a day that it had, after what is there.

        Args:
            origin: where they are from, such as a file or an address.
            now: when they became known here; by default the time at which the store is free to be written.
            rank: place of a source in the order of a series; values of a worse one never replace those of a better.
            explicit: the instants are stated, and kept as they are.
            restates: with `explicit`, the last print given of a day is what the source says of it today: where the
                store has another value since that instant or later, this is a revision that became known now. An
                earlier print that the store remembers otherwise at its very instant is not written.

        Raises:
            SourceError: two values of one series, day and instant; one may be in the store, unless `restates`. Or two
                values of one day whose instants are declared.
        """
        given = [observations] if isinstance(observations, Observations) else list(observations)
        counts: dict[str, Counts] = {}
        spans: dict[str, Span | None] = {}
        with self._database.writing() as connection:
            at = _now(now)
            for one in given:
                incoming = Rows.of(one)
                if one.series not in spans:
                    spans[one.series] = _span(connection, one.series)
                names = _sources(connection, one.source)
                firsts, revisions, others = _held(connection, one.series, incoming.days, names)
                held = Rows.joined(firsts, revisions, others).sorted()
                ranks = np.array([rank(one.series, name) for name in names])
                mode = Mode(explicit, explicit and restates)
                made, codes, counted = decide(one, incoming, held, ranks, mode, spans[one.series], utc(at))
                batch = _batch(connection, one.source, one.series, at, counted.rows, origin)
                tables.insert(connection, one.series, codes, one.source, batch, made)
                ended, begun = periods(firsts, revisions, made, codes)
                tables.exchange(connection, one.series, ended, begun, names)
                counts[one.series] = counts.get(one.series, Counts()) + counted
        return Recorded(counts)

    def record_news(
        self,
        headlines: Iterable[Headline],
        *,
        source: str = "",
        origin: str = "",
        now: pd.Timestamp | None = None,
    ) -> int:
        """Keep what is said otherwise than before under a link, or without one for the first time; how many that is."""
        given = {_told_under(headline): headline for headline in headlines}
        h = tables.headlines.c
        with self._database.writing() as connection:
            at = _now(now)
            known = _standing_news(
                _known(
                    connection,
                    sa.select(h.published, h.title, h.source, h.link, h.recorded_at, h.batch),
                    h.link,
                    [*{headline.link for headline in given.values()}],
                )
            )
            new = [
                headline
                for under, headline in given.items()
                if under not in known or _said(known[under]) != _said(headline)
            ]
            batch = _batch(connection, source, tables.NEWS, at, len(new), origin)
            if new:
                connection.execute(
                    tables.headlines.insert(),
                    [
                        {
                            "key": _hash(*_said(headline), headline.link, str(headline.published), str(at)),
                            "published": headline.published,
                            "title": headline.title,
                            "source": headline.source,
                            "link": headline.link,
                            "recorded_at": at,
                            "batch": batch,
                        }
                        for headline in new
                    ],
                )
        return len(new)

    def record_events(
        self, events: Iterable[Event], *, source: str = "", origin: str = "", now: pd.Timestamp | None = None
    ) -> int:
        """Keep what a calendar says of its weeks, where that differs from what it said before; how many are new.

        A week of which it names an event is told as a whole: an event that it named earlier, and now no more, was moved
        or called off. A week runs from Sunday to Saturday in New York.
        """
        given: dict[date, dict[_Scheduled, Event]] = {}
        for event in events:
            when = event.when.tz_convert("UTC").as_unit("us")
            given.setdefault(_week(when), {})[when, event.title, event.currency] = replace(event, when=when)
        with self._database.writing() as connection:
            at = _now(now)
            whens = [when for week in given.values() for when, _, _ in week]
            known = _standing_events(connection, min(whens), max(whens)) if whens else {}
            before = {week: set(known.get((source, week), ())) for week in given}
            written = [
                event
                for week, told in given.items()
                if set(told.values()) != before[week]
                for event in told.values()
            ]
            batch = _batch(connection, source, tables.EVENTS, at, len(written), origin)
            if written:
                connection.execute(
                    tables.events.insert(),
                    [
                        {
                            "when": event.when,
                            "title": event.title,
                            "currency": event.currency,
                            "impact": event.impact,
                            "recorded_at": at,
                            "batch": batch,
                        }
                        for event in written
                    ],
                )
        return sum(event not in before[_week(event.when)] for event in written)

    # --- Reading

    def read(
        self, series: Sequence[str], as_of: pd.Timestamp, window_days: Mapping[str, int]
    ) -> dict[str, Prints]:
        """What was known of some series at an instant.

        Of each day: its first print, every print available by the end of the `window_days[series]`-th day after it,
        and its latest. The time taken does not grow with the number of other revisions.
        """
        found = {}
        with self._reading() as connection:
            names = _sources(connection)
            for name in series:
                asked = _asked(name, as_of, window_days[name])
                rows = tables.fetch(connection, tables.KNOWN, asked, names).sorted().distinct()
                rows = rows.taken(wanted(rows, window_days[name]))
                found[name] = _prints(name, rows, names, _recorded_by_source(connection, name, as_of))
        return found

    def explain(self, series: str, as_of: pd.Timestamp, window_days: int = 0) -> str:
        """The database's plan of what `read` asks for one series."""
        with self._reading() as connection:
            return tables.plan(
                connection, tables.KNOWN, _asked(series, as_of, window_days), _sources(connection)
            )

    def values(
        self, series: str, as_of: pd.Timestamp, start: date | None = None, end: date | None = None
    ) -> Prints:
        """The latest print at an instant of each day from `start` to `end`, both included."""
        with self._reading() as connection:
            names = _sources(connection)
            asked = tables.Asked(
                series,
                _FIRSTS,
                _before(as_of),
                np.datetime64(start or date.min, "D"),
                np.datetime64(end or date.max, "D"),
            )
            rows = tables.fetch(connection, tables.KNOWN, asked, names).sorted()
            rows = rows.taken(borders(rows.days)[1:])
            return _prints(series, rows, names, _recorded_by_source(connection, series, as_of))

    def history(self, series: str, day: date) -> tuple[Print, ...]:
        """All prints of one day, the first one first."""
        o, b = tables.observations.c, tables.batches.c
        with self._reading() as connection:
            on = day.isoformat() if connection.dialect.name == SQLITE else day
            rows = connection.execute(
                sa.select(o.value, o.available_at, o.source, o.batch, b.recorded_at, b.origin)
                .join_from(tables.observations, tables.batches, o.batch == b.id)
                .where(o.series == series, o.revision > CONFIRMS, o.date == on)
                .order_by(o.available_at)
            )
            return tuple(Print(day, *row) for row in rows)

    def summary(self, as_of: pd.Timestamp) -> dict[str, Summary]:
        """What was known of every series at an instant, by name."""
        o, b = tables.observations.c, tables.batches.c
        rows = sa.func.count()
        firsts = rows.filter(o.revision == FIRST)
        parts: dict[str, dict[str, tuple[date, date, int, int]]] = {}
        with self._reading() as connection:
            given = sa.select(b.what, b.source).distinct().where(b.what.not_in((tables.NEWS, tables.EVENTS)))
            # Each by itself: the rows of a series lie side by side, and all of them would have to be sorted by source.
            for series, source in connection.execute(given.order_by(b.what, b.source)).fetchall():
                part = connection.execute(
                    sa.select(sa.func.min(o.date), sa.func.max(o.date), firsts, rows).where(
                        o.series == series,
                        o.source == source,
                        o.available_at <= as_of,
                        o.revision > CONFIRMS,
                    )
                ).one()
                if part[-1]:
                    parts.setdefault(series, {})[source] = _day(part[0]), _day(part[1]), part[2], part[3]
            found = {}
            for series in sorted(parts):
                begins, ends, days, counts = zip(*parts[series].values(), strict=True)
                known = sum(days) + _days_known_by_earlier(connection, series, as_of)
                found[series] = Summary(
                    series,
                    min(begins),
                    max(ends),
                    known,
                    sum(counts) - known,
                    dict(zip(parts[series], counts, strict=True)),
                    _recorded_at(connection, series, as_of),
                )
            return found

    def names(self) -> tuple[str, ...]:
        """The series that the store holds, sorted."""
        with self._reading() as connection:
            return tuple(sorted(str(name) for (name,) in connection.exec_driver_sql(tables.NAMES)))

    def last_dates(self, series: Iterable[str]) -> dict[str, date]:
        """The last day that is known of each, where there is one."""
        o = tables.observations.c
        found = {}
        with self._reading() as connection:
            for name in series:
                last = connection.scalar(
                    sa.select(sa.func.max(o.date)).where(o.series == name, o.revision == FIRST)
                )
                if last is not None:
                    found[name] = _day(last)
        return found

    def origins(self, series: str, sources: Iterable[str]) -> tuple[str, ...]:
        """Where what was recorded of a series came from, as `record` was told by some sources; each once, sorted."""
        b = tables.batches.c
        with self._reading() as connection:
            found = connection.scalars(
                sa.select(b.origin).distinct().where(b.what == series, b.source.in_(list(sources)))
            )
            return tuple(sorted(found))

    def first_known(self, series: str) -> pd.Timestamp | None:
        """When the first value of a series became known; None where there is none."""
        o = tables.observations.c
        with self._reading() as connection:
            found: pd.Timestamp | None = connection.scalar(
                sa.select(sa.func.min(o.available_at, type_=Instant)).where(
                    o.series == series, o.revision.in_(_FIRSTS)
                )
            )
            return found

    def news(self, as_of: pd.Timestamp, since: pd.Timestamp) -> tuple[Headline, ...]:
        """What was published from `since` on, and published and recorded by `as_of`; the newest first.

        Of a link what was recorded of it last. A title that several tell on one day is told once, as by the first.
        """
        h = tables.headlines.c
        with self._reading() as connection:
            rows = connection.execute(
                sa.select(h.published, h.title, h.source, h.link, h.recorded_at, h.batch).where(
                    h.published >= since, h.published <= as_of, h.recorded_at <= as_of
                )
            )
            once: dict[tuple[str, date], Headline] = {}
            for headline in _standing_news(rows).values():
                day = headline.published.tz_convert("UTC").date()
                once.setdefault((title_key(headline.title), day), headline)
            return tuple(sorted(once.values(), key=lambda one: (-one.published.value, one.title, one.link)))

    def events(self, as_of: pd.Timestamp, start: pd.Timestamp, end: pd.Timestamp) -> tuple[Event, ...]:
        """The events from `start` to `end`, both included, as calendars had them at `as_of`; the earliest first."""
        with self._reading() as connection:
            known = _standing_events(connection, start, end, as_of)
            found = {(e.when, e.title, e.currency): e for week in known.values() for e in week}
            return tuple(found[key] for key in sorted(found) if start <= key[0] <= end)

    # --- Transactions

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._database.reading() as connection:
            if connection.dialect.name == POSTGRES:
                # Without statistics of a table just filled, its planner may think that a scan is cheap.
                for setting in ("seqscan", "bitmapscan", "hashjoin", "mergejoin"):
                    connection.exec_driver_sql(f"SET LOCAL enable_{setting} = off")
                connection.exec_driver_sql("SET LOCAL jit = off")
            yield connection


def _prints(series: str, rows: Rows, names: Sequence[str], recorded_at: Mapping[str, pd.Timestamp]) -> Prints:
    return Prints(
        series,
        pd.DatetimeIndex(rows.days.astype("M8[us]")),
        rows.values,
        pd.DatetimeIndex(rows.instants).tz_localize("UTC"),
        np.array([*names, ""], dtype=object)[rows.sources],
        recorded_at,
    )


def _now(given: pd.Timestamp | None) -> pd.Timestamp:
    return (pd.Timestamp.now(tz="UTC") if given is None else given.tz_convert("UTC")).as_unit("us")


def _day(found: date | str) -> date:
    return date.fromisoformat(found) if isinstance(found, str) else found


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# --- Questions


def _asked(series: str, as_of: pd.Timestamp, window_days: int) -> tables.Asked:
    """What `read` asks: the first prints, those of so many days, and whatever lasts."""
    codes = range(EARLIER, 1 + min(1 + window_days, LAST_CODE))
    return tables.Asked(series, codes, _before(as_of))


def _before(as_of: pd.Timestamp) -> np.datetime64:
    """The first instant of which nothing is known yet."""
    return utc(as_of.tz_convert("UTC").floor("us")) + np.timedelta64(1, "us")


def _held(connection: Connection, series: str, days: Days, names: Sequence[str]) -> tuple[Rows, Rows, Rows]:
    """What is held of the days from the first to the last of those given: first prints, revisions, confirmations."""
    if len(days) == 0:
        return Rows.empty(), Rows.empty(), Rows.empty()
    first, revised, confirmed = (
        tables.fetch(
            connection,
            (tables.BY_CODE,),
            tables.Asked(series, codes, start=days[0], end=days[-1]),
            names,
        )
        for codes in (_FIRSTS, range(FIRST + 1, LAST_CODE + 1), (CONFIRMS,))
    )
    return first, revised, confirmed


def _known(
    connection: Connection, query: sa.Select[Any], column: sa.Column[Any], keys: Sequence[object]
) -> Iterator[sa.Row[Any]]:
    """Rows of a query whose `column` is among `keys`, asked in portions that any database takes."""
    for k in range(0, len(keys), 500):
        yield from connection.execute(query.where(column.in_(keys[k : k + 500])))


def _told_under(headline: Headline) -> str:
    """What tells a headline from others: its link, else all of it."""
    return headline.link or _hash(*_said(headline), str(headline.published.tz_convert("UTC")))


def _said(headline: Headline) -> tuple[str, str]:
    return headline.title, headline.source


def _standing_news(rows: Iterable[sa.Row[Any]]) -> dict[str, Headline]:
    """Of rows of the table what stands under each link, in the order in which the links became known."""
    standing: dict[str, Headline] = {}
    for row in sorted(rows, key=lambda row: (row.recorded_at, row.batch, row.published, row.title)):
        headline = Headline(row.published, row.title, row.source, row.link)
        standing[_told_under(headline)] = headline
    return standing


def _standing_events(
    connection: Connection, start: pd.Timestamp, end: pd.Timestamp, as_of: pd.Timestamp | None = None
) -> dict[tuple[str, date], tuple[Event, ...]]:
    """What each calendar said last, by `as_of` if it is given, of each of its weeks from `start` to `end`."""
    e, b, week = tables.events.c, tables.batches.c, pd.Timedelta(days=7)
    asked = (
        sa.select(e.when, e.title, e.currency, e.impact, e.recorded_at, e.batch, b.source)
        .join_from(tables.events, tables.batches, e.batch == b.id)
        .where(e.when >= start - week, e.when <= end + week)
    )
    if as_of is not None:
        asked = asked.where(e.recorded_at <= as_of)
    standing: dict[tuple[str, date], tuple[object, list[Event]]] = {}
    for row in connection.execute(asked.order_by(e.recorded_at, e.batch)):
        key = row.source, _week(row.when)
        if key not in standing or standing[key][0] != row.batch:
            standing[key] = row.batch, []
        standing[key][1].append(Event(row.when, row.title, row.currency, row.impact))
    return {key: tuple(events) for key, (_, events) in standing.items()}


def _week(when: pd.Timestamp) -> date:
    """The Sunday with which the week of an instant begins in New York."""
    local = when.tz_convert("America/New_York")
    return (local.tz_localize(None).normalize() - pd.Timedelta(days=(local.day_of_week + 1) % 7)).date()


def _batch(
    connection: Connection, source: str, what: str, recorded_at: pd.Timestamp, rows: int, origin: str
) -> int:
    made = connection.execute(
        tables.batches.insert().values(
            source=source, what=what, recorded_at=recorded_at, rows=rows, origin=origin
        )
    )
    return int(made.inserted_primary_key[0])  # type: ignore[index]


def _recorded_at(connection: Connection, what: str, as_of: pd.Timestamp) -> pd.Timestamp | None:
    b = tables.batches.c
    of_it = sa.select(b.recorded_at).where(b.what == what)
    last = of_it.where(b.recorded_at <= as_of).order_by(b.recorded_at.desc()).limit(1)
    return connection.scalar(last) or connection.scalar(of_it.order_by(b.recorded_at).limit(1))


def _recorded_by_source(connection: Connection, what: str, as_of: pd.Timestamp) -> dict[str, pd.Timestamp]:
    b = tables.batches.c
    latest, first = (
        sa.select(b.source, function(b.recorded_at, type_=Instant)).where(b.what == what).group_by(b.source)
        for function in (sa.func.max, sa.func.min)
    )
    known = latest.where(b.recorded_at <= as_of)
    return {source: at for query in (first, known) for source, at in connection.execute(query)}


def _days_known_by_earlier(connection: Connection, series: str, as_of: pd.Timestamp) -> int:
    """Days of which only such a print was known as is said to have been there before the one that came first."""
    o, first = tables.observations.c, sa.alias(tables.observations)
    came = sa.exists().where(
        first.c.series == series,
        first.c.revision == FIRST,
        first.c.date == o.date,
        first.c.available_at <= as_of,
    )
    days = sa.select(sa.func.count(o.date.distinct())).where(
        o.series == series, o.revision == EARLIER, o.available_at <= as_of, ~came
    )
    return int(connection.scalar(days) or 0)


def _span(connection: Connection, series: str) -> Span | None:
    """The first and the last day that are held of a series."""
    o = tables.observations.c
    of_it = sa.and_(o.series == series, o.revision == FIRST)
    # One by one, for each is a seek.
    first, last = (
        connection.scalar(sa.select(function(o.date)).where(of_it)) for function in (sa.func.min, sa.func.max)
    )
    return None if first is None else (np.datetime64(first, "D"), np.datetime64(last, "D"))


def _sources(connection: Connection, first: str | None = None) -> list[str]:
    """Names of the sources, each at the place of its code; `first` has code 0."""
    found = sorted(connection.scalars(sa.select(tables.batches.c.source).distinct()))
    return found if first is None else [first, *(name for name in found if name != first)]
