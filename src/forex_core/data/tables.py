"""The tables of the store and what is asked of them, in the words of SQLite and of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import sqlalchemy as sa

from forex_core.data.prints import Rows

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

SQLITE, POSTGRES = "sqlite", "postgresql"


class Instant(sa.types.TypeDecorator[pd.Timestamp]):
    """An instant in UTC to the microsecond; on SQLite as text of one length, whose order is that of time."""

    impl = sa.TIMESTAMP(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.Text() if dialect.name == SQLITE else sa.TIMESTAMP(timezone=True))

    def process_bind_param(self, value: pd.Timestamp | None, dialect: sa.Dialect) -> object:
        if value is None:
            return None
        return text_of(value) if dialect.name == SQLITE else value.to_pydatetime(warn=False)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> pd.Timestamp | None:
        return None if value is None else pd.Timestamp(value).tz_convert("UTC")


metadata = sa.MetaData()
versions = sa.Table(
    "schema_versions",
    metadata,
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)
batches = sa.Table(
    "batches",
    metadata,
    sa.Column(
        "id", sa.BigInteger().with_variant(sa.Integer, SQLITE), sa.Identity(always=True), primary_key=True
    ),
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
    # 0 for the row with which the store learned of a day, -1 where one is said later to have been known before all of
    # that day, 1 for any other. 2 where a better source gives the value that stands: not a print, and read by writers
    # alone, so that no worse source replaces it. It stands before the day in the key so that what was known first lies
    # side by side, however often it was revised.
    sa.Column("revision", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("date", sa.Date().with_variant(sa.Text, SQLITE), primary_key=True),
    sa.Column("available_at", Instant, primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("batch", sa.BigInteger, nullable=False),
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
_KEPT = (batches, observations, headlines, events)
_REFUSAL = "rows of {} are never changed or removed: record what was revised as a new row"


def guards(dialect: str) -> Iterator[str]:
    """Triggers that keep the tables append-only."""
    if dialect == POSTGRES:
        yield (
            "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"RAISE EXCEPTION '{_REFUSAL.format('%')}', TG_TABLE_NAME; END $$"
        )
    for name in (table.name for table in _KEPT):
        if dialect == POSTGRES:
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

HELD = (
    """SELECT {{columns}} FROM observations AS o WHERE o.series = {series} AND o.revision IN (-1, 0, 1, 2)
  AND o.date BETWEEN {start} AND {end}""",
)
PRINTS = (*_FIRST, f"{_REVISED} {{{{early}}}} UNION ALL {{{{last}}}}")
LATEST = (*_FIRST, _REVISED + "{{last}}")
_SQLITE_COLUMNS = "o.date, substr(o.available_at, 1, 26), o.value, o.source"
_POSTGRES_COLUMNS = "o.date, o.available_at, o.value, array_position({names}::text[], o.source)::int4"
_DIALECT: Mapping[str, Mapping[str, str]] = {
    SQLITE: {
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
    POSTGRES: {
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
NAMES = """WITH RECURSIVE names(name) AS (
  SELECT min(series) FROM observations
  UNION ALL
  SELECT (SELECT min(o.series) FROM observations AS o WHERE o.series > names.name)
  FROM names WHERE names.name IS NOT NULL)
SELECT name FROM names WHERE name IS NOT NULL"""


# --- Rows in and out


def _statement(template: str, dialect: str) -> str:
    parameter = ":{}" if dialect == SQLITE else "%({})s"
    names = ("series", "start", "end", "before", "window", "names")
    parameters = {name: parameter.format(name) for name in names}
    phrases = {name: text.format(**parameters) for name, text in _DIALECT[dialect].items()}
    return template.replace("{{", "{").replace("}}", "}").format(**parameters, **phrases)


def _bound(asked: Mapping[str, Any], names: Sequence[str], dialect: str) -> dict[str, object]:
    """Parameters as the driver takes them."""
    bound: dict[str, object] = {"names": list(names)} if dialect == POSTGRES else {}
    for name, value in asked.items():
        if isinstance(value, pd.Timestamp):
            bound[name] = text_of(value) if dialect == SQLITE else value.to_pydatetime()
        elif isinstance(value, (date, np.datetime64)):
            bound[name] = str(value)
        elif name == "window" and dialect == SQLITE:
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


def fetch(
    connection: Connection,
    templates: Sequence[str],
    asked: Mapping[str, object],
    names: Sequence[str],
) -> Rows:
    """The rows of queries of day, instant, value and source, one after the other."""
    dialect = connection.dialect.name
    bound = _bound(asked, names, dialect)
    statements = [_statement(template, dialect) for template in templates]
    raw: Any = connection.connection.driver_connection
    if dialect == SQLITE:
        rows = [row for statement in statements for row in raw.execute(statement, bound).fetchall()]
        if not rows:
            return Rows.empty()
        days, instants, values, sources = zip(*rows, strict=True)
        codes = {name: k for k, name in enumerate(names)}
        return Rows(
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
    return Rows(
        _EPOCH + found["day"].astype(np.int64),
        _EPOCH.astype("M8[us]") + found["at"].astype(np.int64),
        found["value"].astype(np.float64),
        found["source"].astype(np.int64) - 1,
    )


def insert(connection: Connection, series: str, revision: int, source: str, batch: int, rows: Rows) -> None:
    n = len(rows.days)
    if n == 0:
        return
    raw: Any = connection.connection.driver_connection
    if connection.dialect.name == SQLITE:
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


def plan(
    connection: Connection, templates: Sequence[str], asked: Mapping[str, object], names: Sequence[str]
) -> str:
    dialect = connection.dialect.name
    bound = _bound(asked, names, dialect)
    lines: list[str] = []
    for template in templates:
        explained = ("EXPLAIN QUERY PLAN " if dialect == SQLITE else "EXPLAIN ") + _statement(
            template, dialect
        )
        lines += [str(row[-1]) for row in connection.exec_driver_sql(explained, bound)]
    return "\n".join(lines)


def utc(instant: pd.Timestamp) -> np.datetime64:
    return instant.tz_convert("UTC").tz_localize(None).as_unit("us").to_datetime64()


def text_of(instant: pd.Timestamp) -> str:
    """
    >>> text_of(pd.Timestamp("2026-01-02 17:00", tz="America/New_York"))
    '2026-01-02T22:00:00.000000Z'
    """
    return f"{np.datetime_as_string(utc(instant), unit='us')}Z"
