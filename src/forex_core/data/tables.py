"""The tables of the store and what is asked of them, in the words of SQLite and of PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from forex_core.append_only import DAY, NUMBER, POSTGRES, SQLITE, Instant, Part
from forex_core.data.prints import FOREVER, Integers, Periods, Rows
from forex_core.errors import SourceError, SourceUnavailable

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_LONG_AGO = np.datetime64("0001-01-01", "us")
_LENGTHS = 60
"""Lengths in bits that periods from there to `FOREVER` may have, 0 for no end among them."""


metadata = sa.MetaData()
batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", NUMBER, sa.Identity(always=True), primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("what", sa.Text, nullable=False),  # a series, or one of the two below
    sa.Column("recorded_at", Instant, nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Index("batches_by_what", "what", "recorded_at"),
)
NEWS, EVENTS = "(news)", "(events)"
observations = sa.Table(
    "observations",
    metadata,
    sa.Column("series", sa.Text, primary_key=True),
    # The code of `prints`. It stands before the day in the key, so that what was known first lies side by side however
    # often it was revised, and so does what was known so many days later.
    sa.Column("revision", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("date", DAY, primary_key=True),
    sa.Column("available_at", Instant, primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("batch", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
# For how long each revision was the latest print of its day: follows from `observations`, kept so that what was known
# at an instant is found without a search of each day. What was the latest then began no longer ago than it lasted, so
# that of each length, in bits of microseconds, only what began within the last so many has to be looked at; and that
# lies side by side. What has not ended has the length 0.
periods = sa.Table(
    "periods",
    metadata,
    sa.Column("series", sa.Text, primary_key=True),
    sa.Column("length", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("since", Instant, primary_key=True),
    sa.Column("date", DAY, primary_key=True),
    sa.Column("until", Instant, nullable=False),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
headlines = sa.Table(
    "headlines",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),  # a hash of all but the batch
    sa.Column("published", Instant, nullable=False, index=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("link", sa.Text, nullable=False, index=True),
    sa.Column("recorded_at", Instant, nullable=False),
    sa.Column("batch", sa.BigInteger, nullable=False),
)
events = sa.Table(
    "events",
    metadata,
    sa.Column("when", Instant, primary_key=True),
    sa.Column("title", sa.Text, primary_key=True),
    sa.Column("currency", sa.Text, primary_key=True),
    sa.Column("batch", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("impact", sa.Text, nullable=False),
    sa.Column("recorded_at", Instant, nullable=False),
)
PART = Part(
    name="observations",
    version=2,
    metadata=metadata,
    kept=(batches, observations, headlines, events),
    noun="store",
    renewal="move it away or name another store, then fetch and import again",
    unavailable=SourceUnavailable,
    refused=SourceError,
)


# --- Statements in both dialects: {name} stands for a parameter, {{name}} for what the dialect puts there

BY_CODE = "SELECT {{columns}} FROM {{coded}}"
"""Observations of some codes, a stretch of the key for each."""
LASTING = "SELECT {{columns}} FROM {{lasting}}"
"""Revisions that were the latest of their day at an instant."""
KNOWN = (BY_CODE, LASTING)
_DIALECT: Mapping[str, Mapping[str, str]] = {
    SQLITE: {
        "columns": "o.date, substr(o.at, 1, 26), o.value, o.source",
        "coded": """(SELECT o.date, o.available_at AS at, o.value, o.source
  FROM json_each({codes}) AS c CROSS JOIN observations AS o
  WHERE o.series = {series} AND o.revision = c.value
  AND o.date BETWEEN {start} AND {end} AND o.available_at < {before}) AS o""",
        "lasting": """(SELECT p.date, p.since AS at, p.value, p.source
  FROM json_each({begins}) AS b CROSS JOIN periods AS p
  WHERE p.series = {series} AND p.length = b.key AND p.since >= b.value AND p.since < {before}
  AND p.until >= {before} AND p.date BETWEEN {start} AND {end}) AS o""",
    },
    # Subqueries that the planner cannot dissolve, for before it knows a table it may join by reading all of it.
    POSTGRES: {
        "columns": """string_agg(date_send(o.date) || timestamptz_send(o.at) || float8send(o.value)
  || int4send(array_position({names}::text[], o.source)), ''::bytea)""",
        "coded": """unnest({codes}::int2[]) AS c(code) CROSS JOIN LATERAL (
  SELECT date, available_at AS at, value, source FROM observations
  WHERE series = {series} AND revision = c.code
  AND date BETWEEN {start} AND {end} AND available_at < {before} OFFSET 0) AS o""",
        "lasting": """unnest({begins}::timestamptz[]) WITH ORDINALITY AS b(begin, place) CROSS JOIN LATERAL (
  SELECT date, since AS at, value, source FROM periods
  WHERE series = {series} AND length = b.place - 1 AND since >= b.begin AND since < {before}
  AND until >= {before} AND date BETWEEN {start} AND {end} OFFSET 0) AS o""",
    },
}
_ENDED: Mapping[str, str] = {
    SQLITE: "DELETE FROM periods WHERE series = ? AND length = ? AND since = ? AND date = ?",
    POSTGRES: """DELETE FROM periods AS p
  USING unnest(%s::int2[], %s::timestamptz[], %s::date[]) AS e(length, since, day)
  WHERE p.series = %s AND p.length = e.length AND p.since = e.since AND p.date = e.day""",
}
NAMES = """WITH RECURSIVE names(name) AS (
  SELECT min(series) FROM observations
  UNION ALL
  SELECT (SELECT min(o.series) FROM observations AS o WHERE o.series > names.name)
  FROM names WHERE names.name IS NOT NULL)
SELECT name FROM names WHERE name IS NOT NULL"""


# --- Rows in and out


@dataclass(frozen=True)
class Asked:
    """Which observations: of some codes of a series, of the days from `start` to `end`, known before an instant."""

    series: str
    codes: Iterable[int]
    before: np.datetime64 = FOREVER
    start: np.datetime64 = _LONG_AGO
    end: np.datetime64 = FOREVER

    def bound(self, names: Sequence[str], dialect: str) -> dict[str, object]:
        """The parameters of a statement as the driver takes them."""
        begins = np.maximum(self.before - (np.int64(1) << np.arange(_LENGTHS)), _LONG_AGO)
        begins[0] = _LONG_AGO
        lists: dict[str, Any] = {"codes": list(self.codes), "begins": _instants(begins)}
        if dialect == SQLITE:
            lists = {name: json.dumps(values) for name, values in lists.items()}
        else:
            lists["names"] = list(names)
        (before,) = _instants(np.array([self.before]))
        return lists | {
            "series": self.series,
            "before": before,
            "start": str(self.start.astype("M8[D]")),
            "end": str(self.end.astype("M8[D]")),
        }


def _statement(template: str, dialect: str) -> str:
    parameter = ":{}" if dialect == SQLITE else "%({})s"
    names = ("series", "start", "end", "before", "codes", "begins", "names")
    parameters = {name: parameter.format(name) for name in names}
    phrases = {name: text.format(**parameters) for name, text in _DIALECT[dialect].items()}
    return template.replace("{{", "{").replace("}}", "}").format(**phrases)


_PACKED = np.dtype([("day", ">i4"), ("at", ">i8"), ("value", ">f8"), ("source", ">i4")])
"""A row as PostgreSQL packs it: its driver would take four microseconds for each that it handed over by itself."""
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
"""Around rows of its binary COPY (https://www.postgresql.org/docs/current/sql-copy.html), big-endian."""
_FETCHED = 500
"""Rows at a time: fewer than Python looks for garbage after, which would go through all of its memory."""
_EPOCH = np.datetime64("2000-01-01", "D")
"""PostgreSQL counts days and microseconds from here."""


def fetch(connection: Connection, templates: Sequence[str], asked: Asked, names: Sequence[str]) -> Rows:
    """Rows that queries find, one query after the other; each source is its place in `names`."""
    dialect = connection.dialect.name
    bound = asked.bound(names, dialect)
    statements = [_statement(template, dialect) for template in templates]
    raw = _driver(connection)
    if dialect == SQLITE:
        columns: tuple[list[Any], ...] = ([], [], [], [])
        for statement in statements:
            cursor = raw.execute(statement, bound)
            while rows := cursor.fetchmany(_FETCHED):
                for column, cells in zip(columns, zip(*rows, strict=True), strict=True):
                    column.extend(cells)
        days, instants, values, sources = columns
        codes = {name: k for k, name in enumerate(names)}
        return Rows(
            np.array(days, dtype="M8[D]"),
            np.array(instants, dtype="M8[us]"),
            np.array(values, dtype=np.float64),
            np.array([codes[source] for source in sources], dtype=np.int64),
        )
    packed = b"".join(
        raw.execute(statement, bound, prepare=False, binary=True).fetchone()[0] or b""
        for statement in statements
    )
    found = np.frombuffer(packed, dtype=_PACKED)
    return Rows(
        _EPOCH + found["day"].astype(np.int64),
        _EPOCH.astype("M8[us]") + found["at"].astype(np.int64),
        found["value"].astype(np.float64),
        found["source"].astype(np.int64) - 1,
    )


def insert(connection: Connection, series: str, codes: Integers, source: str, batch: int, rows: Rows) -> None:
    """Write observations of one source."""
    order = np.lexsort((rows.instants, rows.days, codes))
    rows = rows.taken(order)
    columns = (series, codes[order].astype(np.int16), rows.days, rows.instants, rows.values, source)
    _insert(connection, observations.name, (*columns, np.full(len(order), batch)))


def exchange(
    connection: Connection, series: str, ended: Periods, begun: Periods, names: Sequence[str]
) -> None:
    """Take out periods that are no more, and put in those that are new."""
    gone = [ended.lengths.tolist(), _instants(ended.rows.instants), _days(ended.rows.days)]
    if len(ended.until) and connection.dialect.name == SQLITE:
        keys = zip([series] * len(ended.until), *gone, strict=True)
        _driver(connection).executemany(_ENDED[SQLITE], keys)
    elif len(ended.until):
        _driver(connection).execute(_ENDED[POSTGRES], (*gone, series))
    order = np.lexsort((begun.rows.days, begun.rows.instants, begun.lengths))
    for source in np.unique(begun.rows.sources):
        at = order[begun.rows.sources[order] == source]
        rows = begun.rows.taken(at)
        key = (series, begun.lengths[at].astype(np.int16), rows.instants, rows.days)
        _insert(connection, periods.name, (*key, begun.until[at], rows.values, names[source]))


def _insert(connection: Connection, table: str, columns: Sequence[str | npt.NDArray[Any]]) -> None:
    """Rows of a table; a text stands in all of them."""
    n = max(len(column) for column in columns if not isinstance(column, str))
    if n == 0:
        return
    raw = _driver(connection)
    if connection.dialect.name == SQLITE:
        places = ", ".join("?" * len(columns))
        cells = ([one] * n if isinstance(one, str) else _cells(one) for one in columns)
        raw.executemany(f"INSERT INTO {table} VALUES ({places})", zip(*cells, strict=True))
        return
    fields = [_field(one) for one in columns]
    layout: list[tuple[str, str]] = [("fields", ">i2")]
    for k, field in enumerate(fields):
        layout += [(f"length_{k}", ">i4"), (f"field_{k}", field.dtype.newbyteorder(">").str)]
    made = np.zeros(n, dtype=np.dtype(layout))
    made["fields"] = len(fields)
    for k, field in enumerate(fields):
        made[f"length_{k}"] = field.dtype.itemsize
        made[f"field_{k}"] = field
    with raw.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(_COPY_HEADER + made.tobytes() + _COPY_TRAILER)


def _field(column: str | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As PostgreSQL's binary COPY has it."""
    if isinstance(column, str):
        return np.array(column.encode())
    if column.dtype == "M8[D]":
        return (column - _EPOCH).astype(np.int32)
    return (column - _EPOCH).astype(np.int64) if column.dtype == "M8[us]" else column


def _cells(column: npt.NDArray[Any]) -> list[Any]:
    """As SQLite has it."""
    kind = column.dtype
    return _days(column) if kind == "M8[D]" else _instants(column) if kind == "M8[us]" else column.tolist()


def _days(days: npt.NDArray[np.datetime64]) -> list[str]:
    return list(np.datetime_as_string(days).tolist())


def _instants(instants: npt.NDArray[np.datetime64]) -> list[str]:
    return list(np.datetime_as_string(instants, unit="us", timezone="UTC").tolist())


def _driver(connection: Connection) -> Any:
    """The driver's own connection, in the same transaction."""
    return connection.connection.driver_connection


def plan(connection: Connection, templates: Sequence[str], asked: Asked, names: Sequence[str]) -> str:
    """How the database would find the rows of some queries."""
    dialect = connection.dialect.name
    explain = "EXPLAIN QUERY PLAN " if dialect == SQLITE else "EXPLAIN "
    return "\n".join(
        str(row[-1])
        for template in templates
        for row in connection.exec_driver_sql(
            explain + _statement(template, dialect), asked.bound(names, dialect)
        )
    )
