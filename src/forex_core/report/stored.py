"""What the store of observations holds and what came into it, as terminal tables and as rows of a CSV file."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.text import Text

from forex_core.report.document import Document
from forex_core.report.terminal import add_columns, add_row, minute, new_table, one_line

_COUNTS = ("new", "revisions", "unchanged")
_STATUS = (
    "series",
    "unit",
    "first_date",
    "last_date",
    "days",
    "age_days",
    "is_fresh",
    "is_due",
    "gaps",
    "revisions",
    "sources",
    "repairs",
    "recorded_at",
)
_SHOWN = ("date", "value", "known_at", "source")


def imported_table(document: Document) -> list[RenderableType]:
    table = new_table(f"Imported into {document['store']}")
    add_columns(table, "Series", right=("New", "Revised", "Same", "First day", "Last day"))
    for row in document["series"]:
        counts = [f"{row[name]:,}" for name in _COUNTS]
        counts[2] = f"{row['unchanged'] + row['confirmed']:,}"
        add_row(table, row["series"], *counts, row["first_date"] or "–", row["last_date"] or "–")
    left = [
        f"{row['series']}: left out {count:,} ({reason})"
        for row in document["series"]
        for reason, count in {**row["dropped"], **_refused(row)}.items()
        if reason != "empty"
    ]
    late = [_filled(row["series"], row["filled"]) for row in document["series"] if row["filled"]]
    doubts = [_doubt(row["series"]) for row in document["series"] if row["contradicts"]]
    return [table, *(Text(one_line(line)) for line in (*left, *late, *doubts))]


def fetched_table(document: Document) -> list[RenderableType]:
    table = new_table("Fetched")
    add_columns(table, "Series", "From", right=("New", "Revised"))
    add_columns(table, "Note")
    for row in document["series"]:
        source = row["source"] or ("–" if row["is_due"] else "up to date" if row["feeds"] else "files alone")
        counts = [f"{row[name]:,}" if row["source"] else "" for name in _COUNTS[:2]]
        add_row(table, row["name"], source, *counts, _note(row))
    told: dict[str, str] = {}
    for row in document["series"]:
        for source, reason in row["failures"].items():
            told.setdefault(source, reason)
    lines = [f"{source}: {reason}" for source, reason in told.items()]
    for row in (row for row in document["series"] if row["source"]):
        lines += [
            f"{row['name']}: {count:,} not written ({reason})" for reason, count in _refused(row).items()
        ]
        lines += [_filled(row["name"], row["filled"])] if row["filled"] else []
        lines += [_doubt(row["name"])] if row["contradicts"] else []
    return [table, *(Text(one_line(line)) for line in lines)]


def _note(row: Document) -> str:
    if row["is_due"] and not row["source"]:
        return "nobody gave it"
    dropped = sum(row["dropped"].values())
    told = (
        ("nothing new", bool(row["source"]) and not row["is_later"] and not row["new"]),
        (f"{dropped:,} not taken", dropped > 0),
    )
    return ", ".join(words for words, is_so in told if is_so)


def _doubt(series: str) -> str:
    return (
        f"{series}: more than half of the days that the store had were given otherwise; is the unit the same?"
    )


def status_table(document: Document) -> list[RenderableType]:
    rows = document["series"]
    if not rows:
        return [
            Text(
                "The store is empty; fill it with 'forex data fetch' or 'forex data import FILE', each with --pair."
            )
        ]
    table = new_table(f"Store at {minute(document['as_of'])} UTC")
    add_columns(table, "Series", "Last day", right=("Age",))
    add_columns(table, "State", right=("Days", "Gaps", "Revised", "Repairs"))
    add_columns(table, "From")
    for row in rows:
        state = "fresh" if row["is_fresh"] else "stale"
        counts = [f"{row[name]:,}" for name in ("days", "gaps", "revisions")]
        add_row(
            table,
            row["series"],
            row["last_date"],
            f"{row['age_days']} d",
            f"{state}, due" if row["is_due"] else state,
            *counts,
            f"{sum(row['repairs'].values()):,}",
            " ".join(row["sources"]),
        )
    told = [
        Text(f"{row['series']}: {', '.join(f'{count} {kind}' for kind, count in row['repairs'].items())}")
        for row in rows
        if row["repairs"]
    ]
    news = Text(f"{document['news']} headlines, {document['events']} events.")
    return [table, *told, news]


def status_rows(document: Document) -> list[list[Any]]:
    return [list(_STATUS), *([_flat(row[name]) for name in _STATUS] for row in document["series"])]


def shown_table(document: Document) -> list[RenderableType]:
    facts = Text(
        f"{document['series']}: {document['meaning']}, {document['unit']}. Known {document['release']}."
    )
    if not document["values"]:
        return [facts, Text(f"Nothing was known of it on these days at {minute(document['as_of'])} UTC.")]
    table = new_table(f"As of {minute(document['as_of'])} UTC")
    add_columns(table, "Day", right=("Value",))
    add_columns(table, "Known since (UTC)", "From")
    for row in document["values"]:
        add_row(table, row["date"], f"{row['value']:.10g}", minute(row["known_at"]), row["source"])
    left = document["days"] - len(document["values"])
    return [facts, table, *([Text(f"{left:,} earlier days; --from DATE shows them.")] if left > 0 else [])]


def shown_rows(document: Document) -> list[list[Any]]:
    return [list(_SHOWN), *([row[name] for name in _SHOWN] for row in document["values"])]


def sources_table(document: Document) -> list[RenderableType]:
    table = new_table(f"Series for {document['pair']}")
    add_columns(table, "Series", "Unit", "From")
    told = []
    for row in document["series"]:
        add_row(table, row["series"], row["unit"], " then ".join(row["sources"]) or "files alone")
        told.append(Text(f"{row['series']}: {row['meaning']}. Known {row['release']}."))
    return [table, Text(), *told]


def sources_rows(document: Document) -> list[list[Any]]:
    names = ("series", "meaning", "unit", "release", "max_age_days", "driver")
    return [
        [*names, "sources"],
        *([*(row[name] for name in names), " ".join(row["sources"])] for row in document["series"]),
    ]


def _filled(series: str, days: int) -> str:
    return f"{series}: {days:,} of the new days lie between days that the store had, and count as known from now on"


def _refused(row: Document) -> dict[str, int]:
    reasons = {
        "outranked": "a better source has another value",
        "conflicts": "an earlier print is remembered otherwise",
    }
    return {reason: row[name] for name, reason in reasons.items() if row[name]}


def _flat(value: Any) -> Any:
    return " ".join(f"{name}:{count}" for name, count in value.items()) if isinstance(value, dict) else value
