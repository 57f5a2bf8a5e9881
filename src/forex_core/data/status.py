"""How the store stands: what each series holds, how fresh it is, where it has gaps, what was revised or repaired."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from forex_core.data.bundle import business_days_without_close
from forex_core.data.catalogue import entry, spot_pair
from forex_core.data.quality import gate
from forex_core.data.refresh import is_due
from forex_core.data.series import PRICE, Series
from forex_core.data.store import ObservationStore
from forex_core.errors import DataQualityError


@dataclass(frozen=True)
class SeriesStatus:
    """One series of the store at an instant.

    Attributes:
        sources: rows by source.
        age_days: calendar days from the last value to the as-of.
        is_fresh: whether that is within the definition's limit; a pair's rate, whether a forecast may be made of it.
        is_due: whether a later value has been released, by the release rule.
        gaps: weekdays between the first and the last without a price, holidays among them; 0 for rates.
        repairs: by kind, what the quality gate does to it.
        recorded_at: when a source was last taken in.
    """

    series: str
    meaning: str
    unit: str
    sources: dict[str, int]
    first_date: date
    last_date: date
    days: int
    age_days: int
    is_fresh: bool
    is_due: bool
    gaps: int
    revisions: int
    repairs: dict[str, int]
    recorded_at: pd.Timestamp | None


def status_of(
    store: ObservationStore, as_of: pd.Timestamp, max_age_business_days: int
) -> tuple[SeriesStatus, ...]:
    """Every series that the store held at `as_of`, by name; a pair's rate may lack that many of its business days."""
    held = store.summary(as_of)
    prints = store.read(tuple(held), as_of, {name: entry(name).definition.max_age_days for name in held})
    today = as_of.date()
    found = []
    for name, summary in held.items():
        known, definition = prints[name], entry(name).definition
        series = Series(name, known.dates, known.values, definition, known.known_at)
        weekdays = int(np.busday_count(summary.first_date, summary.last_date)) + 1
        trading = int((known.dates[known.is_first].day_of_week < 5).sum())
        age, pair = (today - summary.last_date).days, spot_pair(name)
        is_fresh = age <= definition.max_age_days
        if pair:
            missed = business_days_without_close(pair, summary.last_date, as_of)
            is_fresh = missed <= max_age_business_days
        found.append(
            SeriesStatus(
                series=name,
                meaning=definition.meaning,
                unit=definition.unit,
                sources=dict(summary.sources),
                first_date=summary.first_date,
                last_date=summary.last_date,
                days=summary.days,
                age_days=age,
                is_fresh=is_fresh,
                is_due=is_due(entry(name), summary.last_date, as_of),
                gaps=max(weekdays - trading, 0) if definition.kind == PRICE else 0,
                revisions=summary.revisions,
                repairs=_repairs(series),
                recorded_at=summary.recorded_at,
            )
        )
    return tuple(found)


def _repairs(series: Series) -> dict[str, int]:
    counts: dict[str, int] = {}
    try:
        accepted = gate(series, is_spot=spot_pair(series.name) is not None)
    except DataQualityError:
        return {"unusable": len(series.dates)}
    for repair in accepted.repairs:
        if repair.kind not in ("revised", "repeated"):
            counts[repair.kind] = counts.get(repair.kind, 0) + repair.count
    return counts
