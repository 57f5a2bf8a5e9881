"""What every fetcher does with the rows that it was given: which are taken, since when they were known, which not.

Nothing is repaired. A row that cannot be right is left out and counted; an answer that is not what was asked for is an
error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd

from forex_core.data.catalogue import Entry, entry
from forex_core.data.observations import Observations
from forex_core.data.series import PRICE
from forex_core.errors import SourceError
from forex_core.strangers import printable
from forex_core.types import Array

NO_VALUE = "no value"
NOT_POSITIVE = "price of zero or below"
FUTURE = "date in the future"
NOT_RELEASED = "not yet released"
REPEATED = "row repeated"
CONTRADICTORY = "several values for one day"

MAY_BE_NEGATIVE = frozenset({"oil"})
"""Prices that have been below zero: crude oil on 20 April 2020."""


def code_of(source: str, series: str) -> tuple[Entry, str]:
    """The register's entry of a series, and what the source calls it.

    Raises:
        SourceError: the source does not give the series.
    """
    found = entry(series)
    for feed in found.feeds:
        if feed.source == source:
            return found, feed.code
    asked = ", ".join(feed.source for feed in found.feeds) or "imports alone"
    raise SourceError(f"{source} does not give {series}; it comes from {asked}")


def field_of(found: Any, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """One field of a document.

    Raises:
        SourceError: naming the field that is expected and those that are found.
    """
    if not isinstance(found, Mapping) or name not in found:
        held = printable(", ".join(map(str, found))) if isinstance(found, Mapping) else type(found).__name__
        raise SourceError(
            f"{where}: found {held or 'nothing'}, expected the field '{name}'. The service has changed its answer"
        )
    value = found[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        kinds = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise SourceError(
            f"{where}: field '{name}' holds '{printable(value, 60)}', expected {kinds}. The service has changed its "
            "answer"
        )
    return value


def day_of(text: Any, form: str, where: str) -> date:
    """A day written in a form of `strftime`, such as '%d-%m-%Y'.

    Raises:
        SourceError: it is written otherwise.
    """
    try:
        return datetime.strptime(text, form).date()
    except (ValueError, TypeError):
        raise SourceError(
            f"{where}: date '{printable(text, 40)}', expected the form {form}. The service has changed its answer"
        ) from None


def number_of(text: Any, where: str, missing: tuple[str, ...] = ()) -> float:
    """A number as JSON or as text with a decimal point; NaN for the marks of a missing one.

    Raises:
        SourceError: it is neither. A comma is not guessed at: it may part decimals or thousands.
    """
    if text is None or (isinstance(text, str) and text.strip() in missing):
        return float("nan")
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(str(text))  # infinite where an integer is too large, and left out as such
    if isinstance(text, str) and re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", text):
        return float(text)
    raise SourceError(
        f"{where}: value '{printable(text, 40)}', expected a number with a decimal point. The service has changed its "
        "answer"
    )


def label(
    source: str,
    series: str,
    days: list[date],
    values: list[float] | Array,
    start: date,
    end: date,
    *,
    now: pd.Timestamp,
    where: str,
    known_at: pd.DatetimeIndex | None = None,
) -> Observations:
    """Rows as a source gave them, in any order, as observations of the days from `start` to `end`.

    Args:
        days, values: [n] as given; NaN where there is none.
        now: UTC; nothing that is released later is taken.
        where: of whom errors speak.
        known_at: [n] UTC instants that the source records; without them the declared release of each day.

    Raises:
        SourceError: no row at all for a period longer than the series may be old.
    """
    found = entry(series)
    rows = pd.DataFrame(
        {
            "day": pd.DatetimeIndex(np.asarray(days, dtype="datetime64[s]")),
            "value": np.asarray(values, dtype=np.float64),
        }
    )
    if known_at is not None:
        rows["known"] = known_at
    dropped: dict[str, int] = {}

    def drop(bad: pd.Series[bool], reason: str) -> None:
        nonlocal rows
        if bad.any():
            dropped[reason] = int(bad.sum())
            rows = rows[~bad]

    today = now.tz_localize(None).normalize()
    drop(rows["day"] > today + pd.Timedelta(days=1), FUTURE)  # it may be tomorrow already east of Greenwich
    rows = rows[rows["day"].between(pd.Timestamp(start), pd.Timestamp(end))]
    if (
        rows.empty
        and (min(pd.Timestamp(end), today) - pd.Timestamp(start)).days > found.definition.max_age_days
    ):
        raise SourceError(
            f"{where}: no row of {series} from {start} to {end}, expected some. The service has lost the series or "
            "its code has changed"
        )
    if known_at is None:
        rows = rows.assign(known=found.definition.release.instants(pd.DatetimeIndex(rows["day"])))
    drop(~np.isfinite(rows["value"]), NO_VALUE)
    if found.definition.kind == PRICE:
        drop(rows["value"] == 0 if series in MAY_BE_NEGATIVE else rows["value"] <= 0, NOT_POSITIVE)
    drop(rows["known"] > now, NOT_RELEASED)
    drop(rows.duplicated(), REPEATED)
    drop(rows.duplicated(["day", "known"], keep=False), CONTRADICTORY)
    rows = rows.sort_values(["day", "known"])
    return Observations(
        series=series,
        source=source,
        dates=pd.DatetimeIndex(rows["day"], name=None),
        values=rows["value"].to_numpy(dtype=np.float64),
        available_at=pd.DatetimeIndex(rows["known"], name=None),
        dropped=dropped,
        stated=known_at is not None,
    )
