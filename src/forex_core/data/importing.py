"""Files that a person puts into the store: which series their columns are, and since when their values are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from forex_core.calendars import desk_zone
from forex_core.data.catalogue import IMPORT, entry, is_pair_name, spot_name
from forex_core.data.observations import Observations
from forex_core.data.providers.csv_files import no_column, read_files
from forex_core.data.series import PRICE, Release, Series
from forex_core.errors import InputError
from forex_core.types import Mask, Pair, RateKind


def observations_of(
    paths: Sequence[Path],
    pair: Pair,
    *,
    rate: RateKind = "close",
    columns: Mapping[str, str] | None = None,
    needs_pair: bool = False,
    available_at: pd.Timestamp | None = None,
    now: pd.Timestamp | None = None,
) -> tuple[Observations, ...]:
    """What CSV files hold of each series: the column of the pair is its rate, the others go by their names.

    Args:
        rate: which rate of the pair its column is.
        columns: column to series or pair, in any case.
        needs_pair: refuse files without a column of the pair, unless all that they hold is in the register.
        available_at: since when all of it is known: a price no earlier than by its release rule, a rate no earlier
            than its day begins at the pair's desk, or the month of a monthly one is over. None for the release rule of
            each series, day by day.

    Raises:
        InputError: a file cannot be read or is not what it should be.
    """
    read, _, ignored = read_files(paths, pair, columns or {})
    if str(pair) not in read:
        _refuse_strangers(paths, pair, read, needs_pair)
    at = now if now is not None else pd.Timestamp.now(tz="UTC")
    column_of: dict[str, str] = {}
    for column in read:
        name = _name(column, pair, rate)
        if name in column_of:
            raise InputError(
                f"columns '{column_of[name]}' and '{column}' of {', '.join(map(str, paths))} are both the series "
                f"{name}; expected each series once: remove or rename one of them"
            )
        column_of[name] = column
    zone = desk_zone(pair)
    found = tuple(_observed(name, read[column], available_at, at, zone) for name, column in column_of.items())
    if not any(len(one) for one in found):
        text = f"; columns of text: {', '.join(ignored)}" if ignored else ""
        raise InputError(
            f"nothing in {', '.join(map(str, paths))} is known yet or a number{text}; expected past days with values"
        )
    return found


def _refuse_strangers(
    paths: Sequence[Path], pair: Pair, columns: Mapping[str, Series], needs_pair: bool
) -> None:
    """Of files without the pair's column: columns that are another pair's rate, or that nobody knows beside a pair."""
    pairs = [column for column in columns if is_pair_name(column)]
    if not needs_pair and pairs:
        raise InputError(
            f"{', '.join(map(str, paths))} holds the rate {pairs[0]}, and no {pair}; say whose rate it is with "
            f"--pair {pairs[0].upper()}, since as a column beside {pair} it would be a series of no meaning"
        )
    if needs_pair and (pairs or any(entry(_name(column, pair, "close")).is_imported for column in columns)):
        raise no_column(pair, paths, columns)


def end_of_day(pair: Pair, day: date, now: pd.Timestamp | None = None) -> pd.Timestamp:
    """The last instant of a day at the pair's desk, or now if that is earlier: what is known "on" a day."""
    at = now if now is not None else pd.Timestamp.now(tz="UTC")
    if day > at.tz_convert(desk_zone(pair)).date():
        raise InputError(f"--available-at {day} lies in the future; expected today or an earlier day")
    following = pd.Timestamp(day) + pd.Timedelta(days=1)
    end = following.tz_localize(desk_zone(pair), ambiguous=True, nonexistent="shift_forward")
    return min(end.tz_convert("UTC") - pd.Timedelta(seconds=1), at)


def _name(column: str, pair: Pair, rate: RateKind) -> str:
    """The series that a column is: the rate of the pair, else the one of its name, in lower case."""
    if column == str(pair):
        return spot_name(pair, rate)
    return "_".join(column.lower().split())


def _observed(
    name: str, series: Series, available_at: pd.Timestamp | None, now: pd.Timestamp, zone: ZoneInfo
) -> Observations:
    definition = entry(name).definition
    order = np.argsort(series.dates.to_numpy(), kind="stable")
    dates, values = series.dates[order], series.values[order]
    dropped: dict[str, int] = {}

    def keep(good: Mask, reason: str) -> None:
        nonlocal dates, values
        if not good.all():
            dropped[reason] = int((~good).sum())
            dates, values = dates[good], values[good]

    keep(~np.isnan(values), "empty")
    keep(np.append(dates[1:] != dates[:-1], True)[: len(dates)], "several rows of one day, the last is taken")
    keep(np.asarray(definition.release.instants(dates) <= now), "not released yet")
    released = definition.release.instants(dates)
    if available_at is None:
        return Observations(name, IMPORT, dates, values, released, dropped)
    earliest = released if definition.kind == PRICE else _beginnings(definition.release, dates, zone)
    known = pd.DatetimeIndex([available_at.as_unit("us")] * len(dates))
    known = known.where(known > earliest, earliest.as_unit("us"))
    return Observations(name, IMPORT, dates, values, known, dropped, stated=True)


def _beginnings(release: Release, dates: pd.DatetimeIndex, zone: ZoneInfo) -> pd.DatetimeIndex:
    """Before which nobody knows a rate: it may be decided for a day to come, but an average needs all of its month."""
    days = (
        dates if release.period == "day" else dates.to_period("M").to_timestamp() + pd.offsets.MonthBegin(1)
    )
    return days.tz_localize(zone, ambiguous=True, nonexistent="shift_forward").tz_convert("UTC")
