"""The chains of a ledger: what each digest covers, of what is written and of what is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import date
from typing import Any

import pandas as pd

from forex_core.append_only import text_of
from forex_core.ledger import tables
from forex_core.ledger.entry import Entry
from forex_core.ledger.tables import day_of
from forex_core.types import Pair

START = "0" * 64
"""Before the first link of a chain."""
INSTANTS = ("as_of", "published_at", "outcome_at")
"""Columns of a publication that its entry has, as instants."""


def digest_of(previous: str, *content: Any) -> str:
    """sha256 of a link: of the digest before it, and of what it says as JSON."""
    text = json.dumps([previous, *content], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def content_digest(entry: Entry) -> str:
    """sha256 of what a forecast says, wherever in the ledger it comes to stand."""
    return digest_of(START, *rows_of(entry))


def content_of(head: Any, path: Sequence[Any]) -> str:
    """`content_digest`, from the database."""
    return digest_of(START, *rows_read(head, path))


def rows_of(entry: Entry) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of a publication and those of its path, as their digest takes them; days and instants as text."""
    row = {
        "run_id": entry.run_id,
        "pair": str(entry.pair),
        "rate": entry.rate,
        "horizon": str(entry.horizon),
        "origin": entry.origin.isoformat(),
        **{name: text_of(getattr(entry, name)) for name in INSTANTS},
        "live": entry.is_live,
        "close": float(entry.close),
        "model": entry.model,
        "version": entry.version,
        "recipe": entry.recipe,
        "fingerprint": entry.fingerprint,
        "verdict": entry.verdict,
        "levels": json.dumps(entry.levels),
        "members": json.dumps(entry.members),
        "weights": json.dumps(entry.weights),
    }
    rows = [
        {
            "step": int(step),
            "target_date": day.isoformat(),
            "quantiles": json.dumps(entry.quantiles[h].tolist()),
            "walk": json.dumps(entry.walk[h].tolist()),
            "medians": json.dumps(entry.medians[h].tolist()),
        }
        for h, (step, day) in enumerate(zip(entry.steps, entry.target_dates, strict=True))
    ]
    return row, rows


def rows_read(head: Any, path: Sequence[Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """As `rows_of`, from the database."""
    of_the_chain = {"number", "recorded_at", "previous", "digest"}
    names = [c.name for c in tables.publications.columns if c.name not in of_the_chain]
    row = {name: getattr(head, name) for name in names} | {
        "origin": day_of(head.origin).isoformat(),
        **{name: text_of(getattr(head, name)) for name in INSTANTS},
        "live": bool(head.live),
    }
    names = [c.name for c in tables.predictions.columns if c.name != "publication"]
    rows = [
        {name: getattr(one, name) for name in names} | {"target_date": day_of(one.target_date).isoformat()}
        for one in path
    ]
    return row, rows


def outcome_row(
    pair: Pair,
    rate: str,
    day: date,
    value: float | None,
    known_at: pd.Timestamp,
    as_of: pd.Timestamp,
    recorded_at: pd.Timestamp,
) -> dict[str, Any]:
    """The row of an outcome as its digest takes it; days and instants as text."""
    return {
        "pair": str(pair),
        "rate": rate,
        "target_date": day.isoformat(),
        "value": value,
        "known_at": text_of(known_at),
        "as_of": text_of(as_of),
        "recorded_at": text_of(recorded_at),
    }


def outcome_read(row: Any) -> dict[str, Any]:
    """As `outcome_row`, from the database."""
    pair, day = Pair.parse(row.pair), day_of(row.target_date)
    return outcome_row(pair, row.rate, day, row.value, row.known_at, row.as_of, row.recorded_at)


def alarm_read(row: Any) -> dict[str, Any]:
    """The row of an alarm as its digest takes it, from the database."""
    names = [
        c.name for c in tables.alarms.columns if c.name not in {"number", "raised_at", "previous", "digest"}
    ]
    told = {name: getattr(row, name) for name in names}
    return told | {"origin": day_of(row.origin).isoformat(), "raised_at": text_of(row.raised_at)}
