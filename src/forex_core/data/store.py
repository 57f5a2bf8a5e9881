"""The store of observations: what was seen of each series, by whom, and since when. SQLite or PostgreSQL.

Nothing is ever changed: a revised value is a new row, and what was known at an instant is the rows available by then.
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import sqlalchemy as sa
from filelock import FileLock, Timeout

from forex_core.data.catalogue import entry
from forex_core.data.observations import Observations
from forex_core.errors import ConfigError, ForexError, SourceError, SourceUnavailable
from forex_core.types import Array, Event, Headline, Mask

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

SCHEMA = 1
"""Version of the tables below."""
RELATIVE_TOLERANCE = 1e-9
"""Values closer than this, relative to the larger, are one value."""
ENOUGH_DAYS = 10
"""Days that two sources must share before it means something that they differ."""
BUSY_S = 60
"""How long a writer waits for others; an import of a million rows takes some ten seconds."""
CONNECT_TIMEOUT_S = 5
FIRST_START_LIMIT_S = 180
_SQLITE, _POSTGRES = "sqlite", "postgresql"
_PART = "observations"
_LOCK_KEY = int.from_bytes(hashlib.sha256(b"forex-forecast observations").digest()[:8], "big", signed=True)
_MICROSECOND = np.timedelta64(1, "us")
_NEVER = np.datetime64("NaT", "us")
_EVER = (date.min, date.max)

Days = npt.NDArray[np.datetime64]
Instants = npt.NDArray[np.datetime64]
Integers = npt.NDArray[np.int64]
Rank = Callable[[str, str], int]
"""Series and source to the source's place in the order, 0 the best."""


@dataclass(frozen=True)
class Counts:
    """What became of the observations of one series.

    Attributes:
        new: of days that the store did not know.
        revisions: of other values than it had; new rows.
        unchanged: it had the value already.
        confirmed: it had the value of a worse source, which counts as this source's from then on; rows of no value.
        outranked: other values of a source that comes after the one whose value it has; not written.
        conflicts: earlier prints of a day, given beside its last, that it remembers otherwise; not written.
    """

    new: int = 0
    revisions: int = 0
    unchanged: int = 0
    outranked: int = 0
    conflicts: int = 0
    confirmed: int = 0

    @property
    def rows(self) -> int:
        """Rows that were written."""
        return self.new + self.revisions + self.confirmed

    @property
    def contradicts(self) -> bool:
        """Whether more than half of at least `ENOUGH_DAYS` values that it had already were given otherwise."""
        others = self.revisions + self.outranked + self.conflicts
        overlap = others + self.unchanged + self.confirmed
        return overlap >= ENOUGH_DAYS and 2 * others > overlap

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __str__(self) -> str:
        told = [f"{getattr(self, f.name)} {f.name}" for f in fields(self) if getattr(self, f.name)]
        return ", ".join(told) or "nothing"


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
        return _borders(self.dates.to_numpy())[:-1]

    @property
    def is_latest(self) -> Mask:
        """[n] whether a row is the last print of its day."""
        return _borders(self.dates.to_numpy())[1:]


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


# --- Tables


class _Instant(sa.types.TypeDecorator[pd.Timestamp]):
    """An instant in UTC to the microsecond; on SQLite as text of one length, whose order is that of time."""

    impl = sa.TIMESTAMP(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.Text() if dialect.name == _SQLITE else sa.TIMESTAMP(timezone=True))

    def process_bind_param(self, value: pd.Timestamp | None, dialect: sa.Dialect) -> object:
        if value is None:
            return None
        return _text(value) if dialect.name == _SQLITE else value.to_pydatetime(warn=False)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> pd.Timestamp | None:
        return None if value is None else pd.Timestamp(value).tz_convert("UTC")


_metadata = sa.MetaData()
_versions = sa.Table(
    "schema_versions",
    _metadata,
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)
_batches = sa.Table(
    "batches",
    _metadata,
    sa.Column(
        "id", sa.BigInteger().with_variant(sa.Integer, _SQLITE), sa.Identity(always=True), primary_key=True
    ),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("what", sa.Text, nullable=False),  # a series, or one of the two below
    sa.Column("recorded_at", _Instant, nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Index("batches_by_what", "what", "recorded_at"),
)
_NEWS, _EVENTS = "(news)", "(events)"
_observations = sa.Table(
    "observations",
    _metadata,
    sa.Column("series", sa.Text, primary_key=True),
    # 0 for the row with which the store learned of a day, -1 where one is said later to have been known before all of
    # that day, 1 for any other. 2 where a better source gives the value that stands: not a print, and read by writers
    # alone, so that no worse source replaces it. It stands before the day in the key so that what was known first lies
    # side by side, however often it was revised.
    sa.Column("revision", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("date", sa.Date().with_variant(sa.Text, _SQLITE), primary_key=True),
    sa.Column("available_at", _Instant, primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("batch", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
_headlines = sa.Table(
    "headlines",
    _metadata,
    sa.Column("key", sa.Text, primary_key=True),  # the link, or a hash of the rest where there is none
    sa.Column("published", _Instant, nullable=False, index=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("link", sa.Text, nullable=False),
    sa.Column("recorded_at", _Instant, nullable=False),
    sa.Column("batch", sa.BigInteger, nullable=False),
)
_events = sa.Table(
    "events",
    _metadata,
    sa.Column("when", _Instant, primary_key=True),
    sa.Column("title", sa.Text, primary_key=True),
    sa.Column("currency", sa.Text, primary_key=True),
    sa.Column("impact", sa.Text, nullable=False),
    sa.Column("recorded_at", _Instant, nullable=False),
    sa.Column("batch", sa.BigInteger, nullable=False),
)
_KEPT = (_batches, _observations, _headlines, _events)
_REFUSAL = "rows of {} are never changed or removed: record what was revised as a new row"


def _guards(dialect: str) -> Iterator[str]:
    """Triggers that keep the tables append-only."""
    if dialect == _POSTGRES:
        yield (
            "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"RAISE EXCEPTION '{_REFUSAL.format('%')}', TG_TABLE_NAME; END $$"
        )
    for name in (table.name for table in _KEPT):
        if dialect == _POSTGRES:
            yield (
                f"CREATE TRIGGER {name}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {name} "
                "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
            )
        else:
            for change in ("UPDATE", "DELETE"):
                yield (
                    f"CREATE TRIGGER {name}_no_{change.lower()} BEFORE {change} ON {name} "
                    f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL.format(name)}'); END"
                )


# --- Statements in both dialects: {name} stands for a parameter, {{expression}} for what the dialect puts there

# One query for each revision: PostgreSQL would rather read all of a series than seek for two of them.
_FIRST = tuple(
    f"""SELECT {{{{columns}}}} FROM observations AS o WHERE o.series = {{series}} AND o.revision = {revision}
  AND o.date BETWEEN {{start}} AND {{end}} AND o.available_at < {{before}}"""
    for revision in (-1, 0)
)

_REVISED = """WITH RECURSIVE days(day) AS (
  SELECT * FROM (SELECT date FROM observations WHERE series = {series} AND revision = 1
    AND date >= {start} ORDER BY date LIMIT 1) AS earliest
  UNION ALL
  SELECT (SELECT n.date FROM observations AS n WHERE n.series = {series} AND n.revision = 1
    AND n.date > days.day AND n.date <= {end} ORDER BY n.date LIMIT 1)
  FROM days WHERE days.day IS NOT NULL)
"""
"""Days with a later print, by a loose scan of the key: one seek for each, however many prints it has."""

_HELD = (
    """SELECT {{columns}} FROM observations AS o WHERE o.series = {series} AND o.revision IN (-1, 0, 1, 2)
  AND o.date BETWEEN {start} AND {end}""",
)
_PRINTS = (*_FIRST, f"{_REVISED} {{{{early}}}} UNION ALL {{{{last}}}}")
_LATEST = (*_FIRST, _REVISED + "{{last}}")
_SQLITE_COLUMNS = "o.date, substr(o.available_at, 1, 26), o.value, o.source"
_POSTGRES_COLUMNS = "o.date, o.available_at, o.value, array_position({names}::text[], o.source)::int4"
_DIALECT: Mapping[str, Mapping[str, str]] = {
    _SQLITE: {
        "columns": _SQLITE_COLUMNS,
        "early": f"""SELECT {_SQLITE_COLUMNS} FROM days CROSS JOIN observations AS o
  WHERE o.series = {{series}} AND o.revision = 1 AND o.date = days.day
  AND o.available_at < min({{before}}, date(days.day, {{window}}))""",
        "last": f"""SELECT {_SQLITE_COLUMNS} FROM days CROSS JOIN observations AS o
  WHERE o.series = {{series}} AND o.revision = 1 AND o.date = days.day AND o.available_at = (
    SELECT l.available_at FROM observations AS l WHERE l.series = {{series}} AND l.revision = 1
    AND l.date = days.day AND l.available_at < {{before}} ORDER BY l.available_at DESC LIMIT 1)""",
    },
    # Here subqueries that the planner cannot dissolve, for before it knows a table it may join by reading all of it.
    _POSTGRES: {
        "columns": _POSTGRES_COLUMNS,
        "early": f"""SELECT {_POSTGRES_COLUMNS} FROM days CROSS JOIN LATERAL (
    SELECT date, available_at, value, source FROM observations
    WHERE series = {{series}} AND revision = 1 AND date = days.day
    AND available_at < least({{before}}, (days.day + {{window}})::timestamp AT TIME ZONE 'UTC') OFFSET 0) AS o""",
        "last": f"""SELECT {_POSTGRES_COLUMNS} FROM days CROSS JOIN LATERAL (
    SELECT date, available_at, value, source FROM observations
    WHERE series = {{series}} AND revision = 1 AND date = days.day AND available_at < {{before}}
    ORDER BY available_at DESC LIMIT 1) AS o""",
    },
}
_NAMES = """WITH RECURSIVE names(name) AS (
  SELECT min(series) FROM observations
  UNION ALL
  SELECT (SELECT min(o.series) FROM observations AS o WHERE o.series > names.name)
  FROM names WHERE names.name IS NOT NULL)
SELECT name FROM names WHERE name IS NOT NULL"""


class ObservationStore:
    """Observations, headlines and events of one database, which is opened when it is first needed.

    Every call is one transaction on a connection of its own, so that a store may be shared by threads and processes.

    Raises, from every method:
        SourceUnavailable: the database is locked, unreachable or out of space; trying again may help.
        SourceError: it is none of ours, is damaged or cannot be written, or was made by a newer version.
    """

    def __init__(self, url: str, below: Path | None = None) -> None:
        """
        Args:
            url: sqlite:////path/forex.db or postgresql://user@host/database.
            below: the data folder; an SQLite file elsewhere is refused, for no backup looks there.

        Raises:
            ConfigError: for another address, or where PostgreSQL's driver is not installed.
        """
        self._url = _address(url)
        # Without its password.
        self.address = self._url.render_as_string(hide_password=True).replace("+psycopg", "", 1)
        self._path: Path | None = None
        if self._url.get_backend_name() == _SQLITE:
            self._path = Path(str(self._url.database)).absolute()
            if below is not None and not self._path.resolve().is_relative_to(below.resolve()):
                raise ConfigError(
                    f"the store {self.address} lies outside {below}, where no backup looks; move it below"
                )
        self._engine_made: Engine | None = None

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

        An instant that is declared rather than stated (`explicit` false) counts for days that the store does not know
        and for values later than all it has. The last print given of a day is what the source says of it today: where
        that is another value, it is a revision that became known now. No such row comes before one that is there.

        Args:
            origin: where they are from, such as a file or an address.
            now: when they became known here; by default the time at which the store is free to be written.
            rank: place of a source in the order of a series; values of a worse one never replace those of a better.
            explicit: the instants are stated, and kept as they are.
            restates: with `explicit`, the last print given of a day is what the source says of it today, as above:
                where the store has another value since that instant or later, this is a revision that became known
                now. An earlier print that the store remembers otherwise at its very instant is not written.

        Raises:
            SourceError: two values of one series, day and instant; one may be in the store, unless `restates`.
        """
        given = [observations] if isinstance(observations, Observations) else list(observations)
        counts: dict[str, Counts] = {}
        with self._writing() as connection:
            at = _now(now)
            for one in given:
                incoming = _Rows.of(one)
                names = _sources(connection, one.source)
                held = _Rows.empty()
                if len(incoming.days):
                    bounds = {"start": incoming.days[0], "end": incoming.days[-1]}
                    held = _fetch(connection, _HELD, {"series": one.series, **bounds}, names).sorted()
                ranks = np.array([rank(one.series, name) for name in names])
                mode = _Mode(explicit, explicit and restates)
                *decided, counted = _decide(one, incoming, held, ranks, mode, _utc(at))
                batch = _batch(connection, one.source, one.series, at, counted.rows, origin)
                for revision, rows in zip((-1, 0, 1, 2), decided, strict=True):
                    _insert(connection, one.series, revision, one.source, batch, rows)
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
        """Keep the headlines that are not there yet, told apart by their links; how many those are."""
        rows = {
            headline.link or _hash(headline.source, headline.title, str(headline.published)): headline
            for headline in headlines
        }
        with self._writing() as connection:
            at = _now(now)
            known = _known(connection, sa.select(_headlines.c.key), _headlines.c.key, list(rows))
            new = {key: headline for key, headline in rows.items() if (key,) not in known}
            batch = _batch(connection, source, _NEWS, at, len(new), origin)
            if new:
                connection.execute(
                    _headlines.insert(),
                    [
                        {
                            "key": key,
                            "published": headline.published,
                            "title": headline.title,
                            "source": headline.source,
                            "link": headline.link,
                            "recorded_at": at,
                            "batch": batch,
                        }
                        for key, headline in new.items()
                    ],
                )
        return len(new)

    def record_events(
        self, events: Iterable[Event], *, source: str = "", origin: str = "", now: pd.Timestamp | None = None
    ) -> int:
        """Keep the events that are not there yet, told apart by instant, title and currency; how many those are."""
        rows = {
            (event.when.tz_convert("UTC").as_unit("us"), event.title, event.currency): event
            for event in events
        }
        key = (_events.c.when, _events.c.title, _events.c.currency)
        with self._writing() as connection:
            at = _now(now)
            whens = sorted({when for when, _, _ in rows})
            known = _known(connection, sa.select(*key), _events.c.when, whens)
            new = [one for one in rows if one not in known]
            batch = _batch(connection, source, _EVENTS, at, len(new), origin)
            if new:
                connection.execute(
                    _events.insert(),
                    [
                        {
                            "when": when,
                            "title": title,
                            "currency": currency,
                            "impact": rows[when, title, currency].impact,
                            "recorded_at": at,
                            "batch": batch,
                        }
                        for when, title, currency in new
                    ],
                )
        return len(new)

    # --- Reading

    def read(
        self, series: Sequence[str], as_of: pd.Timestamp, window_days: Mapping[str, int]
    ) -> dict[str, Prints]:
        """What was known of some series at an instant.

        Of each day: its first print, every print available by the end of the `window_days[series]`-th day after it,
        and its latest. The time taken does not grow with the number of later revisions.
        """
        found = {}
        with self._reading() as connection:
            names = _sources(connection)
            for name in series:
                asked = _asked(name, as_of, window_days[name])
                rows = _fetch(connection, _PRINTS, asked, names).sorted().distinct()
                rows = rows.taken(_wanted(rows, window_days[name]))
                found[name] = _prints(name, rows, names, _recorded_by_source(connection, name, as_of))
        return found

    def explain(self, series: str, as_of: pd.Timestamp, window_days: int = 0) -> str:
        """The database's plan of what `read` asks for one series."""
        with self._reading() as connection:
            return _plan(connection, _PRINTS, _asked(series, as_of, window_days), _sources(connection))

    def values(
        self, series: str, as_of: pd.Timestamp, start: date | None = None, end: date | None = None
    ) -> Prints:
        """The latest print at an instant of each day from `start` to `end`, both included."""
        first, last = _EVER
        with self._reading() as connection:
            names = _sources(connection)
            asked = _asked(series, as_of, 0) | {"start": start or first, "end": end or last}
            rows = _fetch(connection, _LATEST, asked, names).sorted()
            rows = rows.taken(_borders(rows.days)[1:])
            return _prints(series, rows, names, _recorded_by_source(connection, series, as_of))

    def history(self, series: str, day: date) -> tuple[Print, ...]:
        """All prints of one day, the first one first."""
        o, b = _observations.c, _batches.c
        with self._reading() as connection:
            on = day.isoformat() if connection.dialect.name == _SQLITE else day
            rows = connection.execute(
                sa.select(o.value, o.available_at, o.source, o.batch, b.recorded_at, b.origin)
                .join_from(_observations, _batches, o.batch == b.id)
                .where(o.series == series, o.revision.in_((-1, 0, 1)), o.date == on)
                .order_by(o.available_at)
            )
            return tuple(Print(day, *row) for row in rows)

    def summary(self, as_of: pd.Timestamp) -> dict[str, Summary]:
        """What was known of every series at an instant, by name."""
        o = _observations.c
        seen = sa.and_(o.available_at <= as_of, o.revision < 2)
        sources: dict[str, dict[str, int]] = {}
        with self._reading() as connection:
            for series, source, count in connection.execute(
                sa.select(o.series, o.source, sa.func.count()).where(seen).group_by(o.series, o.source)
            ):
                sources.setdefault(series, {})[source] = int(count)
            totals = connection.execute(
                sa.select(
                    o.series,
                    sa.func.min(o.date),
                    sa.func.max(o.date),
                    sa.func.count(o.date.distinct()),
                    sa.func.count(),
                )
                .where(seen)
                .group_by(o.series)
                .order_by(o.series)
            ).fetchall()
            return {
                series: Summary(
                    series,
                    _day(first),
                    _day(last),
                    int(days),
                    int(rows) - int(days),
                    sources[series],
                    _recorded_at(connection, series, as_of),
                )
                for series, first, last, days, rows in totals
            }

    def names(self) -> tuple[str, ...]:
        """The series that the store holds, sorted."""
        with self._reading() as connection:
            return tuple(sorted(str(name) for (name,) in connection.exec_driver_sql(_NAMES)))

    def last_dates(self, series: Iterable[str]) -> dict[str, date]:
        """The last day that is known of each, where there is one."""
        o = _observations.c
        found = {}
        with self._reading() as connection:
            for name in series:
                last = connection.scalar(
                    sa.select(sa.func.max(o.date)).where(o.series == name, o.revision == 0)
                )
                if last is not None:
                    found[name] = _day(last)
        return found

    def origins(self, series: str, sources: Iterable[str]) -> tuple[str, ...]:
        """Where what was recorded of a series came from, as `record` was told by some sources; each once, sorted."""
        b = _batches.c
        with self._reading() as connection:
            found = connection.scalars(
                sa.select(b.origin).distinct().where(b.what == series, b.source.in_(list(sources)))
            )
            return tuple(sorted(found))

    def first_known(self, series: str) -> pd.Timestamp | None:
        """When the first value of a series became known; None where there is none."""
        o = _observations.c
        with self._reading() as connection:
            found: pd.Timestamp | None = connection.scalar(
                sa.select(sa.func.min(o.available_at, type_=_Instant)).where(o.series == series)
            )
            return found

    def news(self, as_of: pd.Timestamp, since: pd.Timestamp) -> tuple[Headline, ...]:
        """What was published from `since` on, and published and recorded by `as_of`; the newest first."""
        h = _headlines.c
        with self._reading() as connection:
            rows = connection.execute(
                sa.select(h.published, h.title, h.source, h.link)
                .where(h.published >= since, h.published <= as_of, h.recorded_at <= as_of)
                .order_by(h.published.desc(), h.key)
            )
            return tuple(Headline(*row) for row in rows)

    def events(self, as_of: pd.Timestamp, start: pd.Timestamp, end: pd.Timestamp) -> tuple[Event, ...]:
        """The events from `start` to `end`, both included, that were recorded by `as_of`; the earliest first."""
        e = _events.c
        with self._reading() as connection:
            rows = connection.execute(
                sa.select(e.when, e.title, e.currency, e.impact)
                .where(e.when >= start, e.when <= end, e.recorded_at <= as_of)
                .order_by(e.when, e.title, e.currency)
            )
            return tuple(Event(*row) for row in rows)

    # --- Transactions

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """One state of the whole store, whatever is written meanwhile."""
        with self._translated():
            engine = self._engine()
            if self._path is None:
                engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with engine.begin() as connection:
                if self._path is None:
                    # Without statistics of a table just filled, its planner may think that a scan is cheap.
                    for setting in (
                        "enable_seqscan",
                        "enable_bitmapscan",
                        "enable_hashjoin",
                        "enable_mergejoin",
                        "jit",
                    ):
                        connection.exec_driver_sql(f"SET LOCAL {setting} = off")
                yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """The one writer's transaction."""
        with self._translated():
            engine = self._engine().execution_options(writes=True)
            with engine.begin() as connection:
                if self._path is None:
                    _lock(connection)
                yield connection

    def _engine(self) -> Engine:
        if self._engine_made is None:
            engine = self._connecting()
            with engine.begin() as connection:
                found = _version(connection)
            if found is None:
                found = self._first_start(engine)
            if found > SCHEMA:
                raise SourceError(
                    f"the store {self.address} was made by a newer version of this program (its tables are of version "
                    f"{found}, this one knows {SCHEMA}); install the newer one, or name another store"
                )
            self._engine_made = engine
        return self._engine_made

    def _connecting(self) -> Engine:
        """Connections that are opened for each transaction: none is inherited by a fork or outlives a restored file."""
        if self._path is None:
            arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S}
            return sa.create_engine(
                self._url,
                poolclass=sa.NullPool,
                connect_args={} if "connect_timeout" in self._url.query else arguments,
            )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(self._url, poolclass=sa.NullPool, connect_args={"timeout": BUSY_S})

        @sa.event.listens_for(engine, "connect")
        def _on_connect(connection: Any, _record: object) -> None:
            connection.isolation_level = None  # transactions begin where we say
            connection.execute("PRAGMA mmap_size = 1073741824")

        @sa.event.listens_for(engine, "begin")
        def _on_begin(connection: Connection) -> None:
            # A reader that turns writer in its midst may not be let in at all; a writer is one from the start.
            writes = connection.get_execution_options().get("writes")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        return engine

    def _first_start(self, engine: Engine) -> int:
        """Make the tables in one transaction, unless another process did so while this one waited."""
        writing = engine.execution_options(writes=True)
        if self._path is None:
            with writing.begin() as connection:
                _lock(connection)
                return _version(connection) or _make(connection)
        with FileLock(f"{self._path}.first-start.lock", timeout=FIRST_START_LIMIT_S):
            with engine.connect() as connection:
                # Outside any transaction; it lasts in the file.
                raw: Any = connection.connection.driver_connection
                raw.execute("PRAGMA journal_mode = WAL")
            with writing.begin() as connection:
                return _version(connection) or _make(connection)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ForexError:
            raise
        except _database_errors() as error:
            raise self._told_of(error) from error
        except ImportError as error:
            raise ConfigError(
                f"{self.address} needs a driver that is not installed; install it with "
                "'pip install \"forex-forecast[postgres]\"'"
            ) from error

    def _told_of(self, error: BaseException) -> ForexError:
        cause = getattr(error, "orig", None) or error
        reason = " ".join(str(cause).split())[:300]
        if self._url.password:
            reason = reason.replace(str(self._url.password), "***")
        store = f"the store {self.address}"
        kind = str(getattr(cause, "sqlite_errorname", ""))
        state = str(getattr(cause, "sqlstate", None) or "")
        if (
            kind.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
            or isinstance(cause, Timeout)
            or state == "55P03"
        ):
            return SourceUnavailable(
                f"{store} is being written by another process ({reason}); try again later"
            )
        if kind.startswith(("SQLITE_FULL", "SQLITE_IOERR")) or state.startswith("53"):
            return SourceUnavailable(
                f"{store} could not be written ({reason}); nothing of this was kept: make room and try again"
            )
        if kind.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return SourceError(
                f"{store} is no sound SQLite database ({reason}); restore it from a backup, or name another store"
            )
        if kind.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")) or isinstance(
            cause, OSError
        ):
            return SourceError(
                f"{store} cannot be opened for writing ({reason}); its folder and its file must belong to this user"
            )
        if self._path is None and type(cause).__name__ in {
            "OperationalError",
            "AdminShutdown",
            "InterfaceError",
        }:
            return SourceUnavailable(f"{store} could not be reached ({reason}); check that its server runs")
        return SourceError(f"{store} refused this: {type(cause).__name__}: {reason}")


def _address(url: str) -> sa.URL:
    expected = (
        "the store's address is sqlite:////path/forex.db or postgresql://user@host/database, found "
        + (
            f"{url.partition(':')[0]}://…"
            if "://" in url
            else "none: a path alone"  # what follows may hold a password
        )
    )
    try:
        made = sa.make_url(url.replace("postgres:", "postgresql:", 1) if url.startswith("postgres:") else url)
    except sa.exc.ArgumentError as error:
        raise ConfigError(expected) from error
    if made.get_backend_name() == _POSTGRES:
        return made.set(drivername="postgresql+psycopg")
    if (
        made.drivername != _SQLITE
        or not made.database
        or made.database.startswith((":", "file:"))
        or made.query
    ):
        raise ConfigError(expected)
    return made


def _database_errors() -> tuple[type[Exception], ...]:
    found: list[type[Exception]] = [sa.exc.SQLAlchemyError, sqlite3.Error, OSError, Timeout]
    if sys.modules.get("psycopg"):
        found.append(sys.modules["psycopg"].Error)
    return tuple(found)


def _lock(connection: Connection) -> None:
    """Become the one writer of PostgreSQL until the end of the transaction."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_S}s'")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")


def _version(connection: Connection) -> int | None:
    """Version of the tables; None before they are made."""
    if not sa.inspect(connection).has_table(_versions.name):
        return None
    return connection.scalar(sa.select(_versions.c.version).where(_versions.c.part == _PART))


def _make(connection: Connection) -> int:
    _metadata.create_all(connection)
    for guard in _guards(connection.dialect.name):
        connection.exec_driver_sql(
            guard.replace("%", "%%") if connection.dialect.name == _POSTGRES else guard
        )
    connection.execute(_versions.insert().values(part=_PART, version=SCHEMA))
    return SCHEMA


# --- Rows


@dataclass(frozen=True)
class _Rows:
    """Columns of observations of one series: days [n] to the day, instants [n] to the microsecond in UTC, codes [n]."""

    days: Days
    instants: Instants
    values: Array
    sources: Integers

    @classmethod
    def empty(cls) -> _Rows:
        none = np.zeros(0, dtype=np.int64)
        return cls(none.astype("M8[D]"), none.astype("M8[us]"), none.astype(np.float64), none)

    @classmethod
    def of(cls, seen: Observations) -> _Rows:
        """Sorted by (day, instant); all of the source with code 0."""
        days = seen.dates.to_numpy().astype("M8[D]")
        instants = seen.available_at.tz_localize(None).to_numpy().astype("M8[us]")
        values = np.asarray(seen.values, dtype=np.float64)
        return cls(days, instants, values, np.zeros(len(days), dtype=np.int64)).sorted()

    def sorted(self) -> _Rows:
        same, later = self.days[1:] == self.days[:-1], self.days[1:] > self.days[:-1]
        if (later | (same & (self.instants[1:] >= self.instants[:-1]))).all():
            return self
        return self.taken(np.lexsort((self.instants, self.days)))

    def distinct(self) -> _Rows:
        """Rows that are there once, of sorted ones."""
        if len(self.days) < 2:
            return self
        repeated = (self.days[1:] == self.days[:-1]) & (self.instants[1:] == self.instants[:-1])
        return self.taken(np.append(True, ~repeated)) if repeated.any() else self

    def taken(self, at: Integers | Mask) -> _Rows:
        return _Rows(self.days[at], self.instants[at], self.values[at], self.sources[at])


@dataclass(frozen=True)
class _Mode:
    """`explicit` and `restates` of `ObservationStore.record`."""

    explicit: bool
    restates: bool


def _decide(
    seen: Observations,
    rows: _Rows,
    held: _Rows,
    ranks: Integers,
    mode: _Mode,
    now: np.datetime64,
) -> tuple[_Rows, _Rows, _Rows, _Rows, Counts]:
    """Rows to write: those before all of a known day, those of new days, the others, and those that confirm what
    stands; and what became of the rest.

    Days with several prints are gone through print by print, all days at once: each sees what the one before left.

    Args:
        rows: what is given, and `held`: what the store has of those days, both sorted by (day, instant).
        ranks: [codes] of sources; that of `rows` has code 0.
    """
    n = len(rows.days)
    if n == 0:
        return rows, rows, rows, rows, Counts()
    repeated = (rows.days[1:] == rows.days[:-1]) & (rows.instants[1:] == rows.instants[:-1])
    twice = np.flatnonzero(repeated & ~_close(rows.values[1:], rows.values[:-1]))
    if len(twice):
        raise _contradiction(seen, rows, twice + 1, rows.values[twice], "gives")
    own_rank = int(ranks[0])
    is_kept = np.append(True, ~repeated)
    kept = np.flatnonzero(is_kept)
    days, start, of, prints = np.unique(
        rows.days[kept], return_index=True, return_inverse=True, return_counts=True
    )
    turn = np.arange(len(kept)) - start[of]
    low, high = np.searchsorted(held.days, days, "left"), np.searchsorted(held.days, days, "right")
    is_known = high > low
    latest = _Latest.of(held, np.where(is_known, high - 1, -1), ranks)
    given = _Latest.of(held, np.full(len(days), -1), ranks)
    # Of each print given, the row of `held` that was current at its instant; -1 for none, or where nobody asks.
    needs_past = mode.explicit or prints.max() > 1
    past = _current(rows, kept, held, low[of]) if needs_past else np.full(len(kept), -1)

    when = rows.instants.copy()
    is_new, is_revision, is_before, is_confirmed = (np.zeros(n, dtype=bool) for _ in range(4))
    outranked = conflicts = 0
    by_turn = np.argsort(turn, kind="stable")
    for turns in np.split(by_turn, np.cumsum(np.bincount(turn))[:-1]):
        day, row, then = of[turns], kept[turns], past[turns]
        value, instant = rows.values[row], rows.instants[row]
        known = is_known[day]
        is_last = turn[turns] == prints[day] - 1
        latest_at = latest.instant[day]
        # What was current at the print's instant: one written a turn before, or one in the store.
        then_at = _taken(held.instants, then, _NEVER)
        is_given = ~np.isnat(given.instant[day]) & ((then < 0) | (given.instant[day] >= then_at))
        current = np.where(is_given, given.value[day], _taken(held.values, then, np.nan))
        # Whether the last print given of a day, dated no later than what the store has last, is compared with that.
        is_today = is_last & known & (not mode.explicit or mode.restates) & ~(instant > latest_at)
        if mode.explicit:
            is_earliest = known & ~is_given & (then < 0)
            in_store = np.where(is_earliest, low[day], then)
            rank = np.where(is_given, own_rank, _taken(ranks[held.sources], in_store, 0))
            stands_at = np.where(is_given, given.instant[day], then_at)
        else:
            is_earliest = np.zeros(len(day), dtype=bool)
            rank, stands_at = latest.rank[day], latest_at
            current = np.where(is_last, latest.value[day], current)
        current = np.where(is_today, latest.value[day], current)
        rank = np.where(is_today, latest.rank[day], rank)
        stands_at = np.where(is_today, latest_at, stands_at)
        equal = known & _close(value, current)
        worse = known & ~equal & (own_rank > rank)
        other = known & ~equal & ~worse
        if mode.explicit:
            contrary = other & ~is_today & ~is_given & (then_at == instant)
            if contrary.any() and not mode.restates:
                at = np.flatnonzero(contrary)
                raise _contradiction(seen, rows, row[at], current[at], "is in the store with")
        else:
            contrary = other & ~is_today & ~(instant > latest_at)
        conflicts += int(contrary.sum())
        restated = other & is_today
        write = ~known | (other & ~contrary)
        is_before[row[other & ~contrary & ~restated & is_earliest]] = True
        # A value that a worse source gave before counts as this one's from here on.
        confirmed = equal & (own_rank < rank) & ((instant > stands_at) | (stands_at == latest_at))
        confirmed &= is_last | mode.explicit
        is_confirmed[row[confirmed]] = True
        when[row[restated]] = np.maximum(now, latest_at[restated] + _MICROSECOND)
        when[row[confirmed]] = np.maximum(instant[confirmed], stands_at[confirmed] + _MICROSECOND)
        outranked += int(worse.sum())
        is_new[row[write & ~known]] = True
        is_revision[row[write & known]] = True
        is_known[day[write]] = True
        put = write | confirmed
        given.put(day[put], when[row[put]], value[put], own_rank)
        put &= np.isnat(latest_at) | (when[row] >= latest_at)  # a stated instant may lie before others
        latest.put(day[put], when[row[put]], value[put], own_rank)
    new, revisions, confirms = int(is_new.sum()), int(is_revision.sum()), int(is_confirmed.sum())
    unchanged = n - new - revisions - confirms - outranked - conflicts
    counted = Counts(new, revisions, unchanged, outranked, conflicts, confirms)
    earlier, first, revised, confirming = (
        _Rows(rows.days, when, rows.values, rows.sources).taken(chosen).sorted()
        for chosen in (is_before, is_new, is_revision & ~is_before, is_confirmed)
    )
    return earlier, first, revised, confirming, counted


@dataclass(frozen=True)
class _Latest:
    """A print of each day, or none: its instant (NaT), value and its source's rank."""

    instant: Instants
    value: Array
    rank: Integers

    @classmethod
    def of(cls, held: _Rows, at: Integers, ranks: Integers) -> _Latest:
        return cls(
            _taken(held.instants, at, _NEVER),
            _taken(held.values, at, np.nan),
            _taken(ranks[held.sources], at, 0),
        )

    def put(self, day: Integers, instant: Instants, value: Array, rank: int) -> None:
        self.instant[day], self.value[day], self.rank[day] = instant, value, rank


def _taken(values: npt.NDArray[Any], at: Integers, otherwise: object) -> npt.NDArray[Any]:
    """`values[at]`, and `otherwise` where `at` is negative or there is nothing to take."""
    if len(values) == 0:
        return np.full(len(at), otherwise, dtype=values.dtype)
    return np.where(
        at >= 0, values[np.minimum(at, len(values) - 1)], np.asarray(otherwise, dtype=values.dtype)
    )


def _current(rows: _Rows, kept: Integers, held: _Rows, low: Integers) -> Integers:
    """Index in `held` of the print of the same day that was current at each kept row's instant; -1 for none."""
    instants, order = np.unique(np.concatenate([held.instants, rows.instants[kept]]), return_inverse=True)
    days = np.concatenate([held.days, rows.days[kept]]).astype(np.int64)
    key = days * len(instants) + order
    found = np.searchsorted(key[: len(held.days)], key[len(held.days) :], "right") - 1
    return np.where(found >= low, found, -1)


def _contradiction(seen: Observations, rows: _Rows, at: Integers, others: Array, verb: str) -> SourceError:
    row, more = at[0], f" (and {len(at) - 1} more)" if len(at) > 1 else ""
    return SourceError(
        f"{seen.series} of {rows.days[row]}, available at {rows.instants[row]} UTC, {verb} two values, "
        f"{others[0]:.10g} and {rows.values[row]:.10g} of {seen.source}{more}; nothing was recorded: "
        "state a later instant for the revised value"
    )


def _close(a: Array, b: Array) -> Mask:
    return np.asarray(np.abs(a - b) <= RELATIVE_TOLERANCE * np.maximum(np.abs(a), np.abs(b)))


def _borders(days: npt.NDArray[Any]) -> Mask:
    """[n + 1] whether a day ends before each row; true at both ends."""
    if len(days) == 0:
        return np.zeros(1, dtype=bool)
    return np.concatenate([[True], days[1:] != days[:-1], [True]])


def _wanted(rows: _Rows, window_days: int) -> Mask:
    """Which rows are the first or the latest of their day or within the window after it."""
    border = _borders(rows.days)
    is_early = rows.instants < (rows.days + np.timedelta64(window_days + 1, "D")).astype("M8[us]")
    return np.asarray(border[:-1] | border[1:] | is_early)


def _prints(
    series: str, rows: _Rows, names: Sequence[str], recorded_at: Mapping[str, pd.Timestamp]
) -> Prints:
    return Prints(
        series,
        pd.DatetimeIndex(rows.days.astype("M8[us]")),
        rows.values,
        pd.DatetimeIndex(rows.instants).tz_localize("UTC"),
        np.array([*names, ""], dtype=object)[rows.sources],
        recorded_at,
    )


# --- Instants


def _now(given: pd.Timestamp | None) -> pd.Timestamp:
    return (pd.Timestamp.now(tz="UTC") if given is None else given.tz_convert("UTC")).as_unit("us")


def _utc(instant: pd.Timestamp) -> np.datetime64:
    return instant.tz_convert("UTC").tz_localize(None).as_unit("us").to_datetime64()


def _text(instant: pd.Timestamp) -> str:
    """
    >>> _text(pd.Timestamp("2026-01-02 17:00", tz="America/New_York"))
    '2026-01-02T22:00:00.000000Z'
    """
    return f"{np.datetime_as_string(_utc(instant), unit='us')}Z"


def _day(found: date | str) -> date:
    return date.fromisoformat(found) if isinstance(found, str) else found


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# --- The two databases


def _asked(series: str, as_of: pd.Timestamp, window_days: int) -> dict[str, object]:
    first, last = _EVER
    before = as_of.tz_convert("UTC").floor("us") + pd.Timedelta(1, "us")
    return {"series": series, "before": before, "window": window_days + 1, "start": first, "end": last}


def _known(
    connection: Connection, query: sa.Select[Any], column: sa.Column[Any], keys: Sequence[object]
) -> set[tuple[Any, ...]]:
    """Rows of a query whose `column` is among `keys`, asked in portions that any database takes."""
    found: set[tuple[Any, ...]] = set()
    for k in range(0, len(keys), 500):
        found |= {tuple(row) for row in connection.execute(query.where(column.in_(keys[k : k + 500])))}
    return found


def _batch(
    connection: Connection, source: str, what: str, recorded_at: pd.Timestamp, rows: int, origin: str
) -> int:
    made = connection.execute(
        _batches.insert().values(source=source, what=what, recorded_at=recorded_at, rows=rows, origin=origin)
    )
    return int(made.inserted_primary_key[0])  # type: ignore[index]


def _recorded_at(connection: Connection, what: str, as_of: pd.Timestamp) -> pd.Timestamp | None:
    b = _batches.c
    of_it = sa.select(b.recorded_at).where(b.what == what)
    last = of_it.where(b.recorded_at <= as_of).order_by(b.recorded_at.desc()).limit(1)
    return connection.scalar(last) or connection.scalar(of_it.order_by(b.recorded_at).limit(1))


def _recorded_by_source(connection: Connection, what: str, as_of: pd.Timestamp) -> dict[str, pd.Timestamp]:
    b = _batches.c
    latest, first = (
        sa.select(b.source, function(b.recorded_at, type_=_Instant)).where(b.what == what).group_by(b.source)
        for function in (sa.func.max, sa.func.min)
    )
    known = latest.where(b.recorded_at <= as_of)
    return {source: at for query in (first, known) for source, at in connection.execute(query)}


def _sources(connection: Connection, first: str | None = None) -> list[str]:
    """Names of the sources, each at the place of its code; `first` has code 0."""
    found = sorted(connection.scalars(sa.select(_batches.c.source).distinct()))
    return found if first is None else [first, *(name for name in found if name != first)]


def _statement(template: str, dialect: str) -> str:
    parameter = ":{}" if dialect == _SQLITE else "%({})s"
    names = ("series", "start", "end", "before", "window", "names")
    parameters = {name: parameter.format(name) for name in names}
    phrases = {name: text.format(**parameters) for name, text in _DIALECT[dialect].items()}
    return template.replace("{{", "{").replace("}}", "}").format(**parameters, **phrases)


def _bound(asked: Mapping[str, Any], names: Sequence[str], dialect: str) -> dict[str, object]:
    """Parameters as the driver takes them."""
    bound: dict[str, object] = {"names": list(names)} if dialect == _POSTGRES else {}
    for name, value in asked.items():
        if isinstance(value, pd.Timestamp):
            bound[name] = _text(value) if dialect == _SQLITE else value.to_pydatetime()
        elif isinstance(value, (date, np.datetime64)):
            bound[name] = str(value)
        elif name == "window" and dialect == _SQLITE:
            bound[name] = f"+{value} days"
        else:
            bound[name] = value
    return bound


_COPIED = np.dtype(
    [
        ("fields", ">i2"),
        *(
            (f"{kind}{name}", code)
            for name, of in (("day", "i4"), ("at", "i8"), ("value", "f8"), ("source", "i4"))
            for kind, code in (("length_", ">i4"), ("", f">{of}"))
        ),
    ]
)
"""A row of PostgreSQL's binary COPY (https://www.postgresql.org/docs/current/sql-copy.html), big-endian."""
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
_EPOCH = np.datetime64("2000-01-01", "D")
"""PostgreSQL counts days and microseconds from here."""


def _fetch(
    connection: Connection,
    templates: Sequence[str],
    asked: Mapping[str, object],
    names: Sequence[str],
) -> _Rows:
    """The rows of queries of day, instant, value and source, one after the other."""
    dialect = connection.dialect.name
    bound = _bound(asked, names, dialect)
    statements = [_statement(template, dialect) for template in templates]
    raw: Any = connection.connection.driver_connection
    if dialect == _SQLITE:
        rows = [row for statement in statements for row in raw.execute(statement, bound).fetchall()]
        if not rows:
            return _Rows.empty()
        days, instants, values, sources = zip(*rows, strict=True)
        codes = {name: k for k, name in enumerate(names)}
        return _Rows(
            np.array(days, dtype="M8[D]"),
            np.array(instants, dtype="M8[us]"),
            np.array(values, dtype=np.float64),
            np.fromiter((codes[source] for source in sources), dtype=np.int64, count=len(sources)),
        )
    from psycopg import ClientCursor

    found: npt.NDArray[np.void] = np.zeros(0, dtype=_COPIED)
    with ClientCursor(raw) as cursor:
        for statement in statements:
            with cursor.copy(
                f"COPY ({cursor.mogrify(statement, bound)}) TO STDOUT (FORMAT BINARY)"
            ) as copied:
                data = b"".join(copied)
            more = np.frombuffer(data[len(_COPY_HEADER) : -len(_COPY_TRAILER)], dtype=_COPIED)
            found = np.concatenate([found, more])
    return _Rows(
        _EPOCH + found["day"].astype(np.int64),
        _EPOCH.astype("M8[us]") + found["at"].astype(np.int64),
        found["value"].astype(np.float64),
        found["source"].astype(np.int64) - 1,
    )


def _insert(connection: Connection, series: str, revision: int, source: str, batch: int, rows: _Rows) -> None:
    n = len(rows.days)
    if n == 0:
        return
    raw: Any = connection.connection.driver_connection
    if connection.dialect.name == _SQLITE:
        days = np.datetime_as_string(rows.days).tolist()
        instants = np.datetime_as_string(rows.instants, unit="us", timezone="UTC").tolist()
        columns = (
            [series] * n,
            [revision] * n,
            days,
            instants,
            rows.values.tolist(),
            [source] * n,
            [batch] * n,
        )
        raw.executemany("INSERT INTO observations VALUES (?, ?, ?, ?, ?, ?, ?)", zip(*columns, strict=True))
        return
    columns_of: dict[str, tuple[str, Any]] = {
        "series": (f"S{len(series.encode())}", series.encode()),
        "revision": (">i2", revision),
        "day": (">i4", (rows.days - _EPOCH).astype(np.int64)),
        "at": (">i8", (rows.instants - _EPOCH.astype("M8[us]")).astype(np.int64)),
        "value": (">f8", rows.values),
        "source": (f"S{len(source.encode())}", source.encode()),
        "batch": (">i8", batch),
    }
    layout: list[tuple[str, str]] = [("fields", ">i2")]
    for name, (code, _) in columns_of.items():
        layout += [(f"length_{name}", ">i4"), (name, code)]
    made = np.zeros(n, dtype=np.dtype(layout))
    made["fields"] = len(columns_of)
    for name, (_, values) in columns_of.items():
        made[f"length_{name}"] = made.dtype[name].itemsize
        made[name] = values
    with raw.cursor() as cursor, cursor.copy("COPY observations FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(_COPY_HEADER + made.tobytes() + _COPY_TRAILER)


def _plan(
    connection: Connection, templates: Sequence[str], asked: Mapping[str, object], names: Sequence[str]
) -> str:
    dialect = connection.dialect.name
    bound = _bound(asked, names, dialect)
    lines: list[str] = []
    for template in templates:
        explained = ("EXPLAIN QUERY PLAN " if dialect == _SQLITE else "EXPLAIN ") + _statement(
            template, dialect
        )
        lines += [str(row[-1]) for row in connection.exec_driver_sql(explained, bound)]
    return "\n".join(lines)
