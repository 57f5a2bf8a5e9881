"""From a provider's raw series to the bundle: gate, align on what was known when, refuse what is not usable."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from forex_core.calendars import is_business_day, origin_instants, target_dates
from forex_core.data.providers import Provider
from forex_core.data.quality import Accepted, gate
from forex_core.data.series import DERIVED, MarketData, Release, Series
from forex_core.errors import DataQualityError, InputError
from forex_core.types import HORIZONS, PERCENT_PER_YEAR, Array, MarketBundle, Pair, Repair

STALE_AFTER_WEEKDAYS = 3
"""A spot whose last close is older than this, counted from the as-of date, is flagged."""

Nanoseconds = npt.NDArray[np.int64]


def load_bundle(
    provider: Provider, pair: Pair, as_of: date | pd.Timestamp | None = None, limits: Limits | None = None
) -> MarketBundle:
    """What was known about `pair` at `as_of`.

    Rows are the weekdays from the first close to the last one known. What a later row of the source says, about
    its own day or about a print before it, does not reach an earlier row.

    Args:
        as_of: an instant; or a date, which stands for the origin of that day (08:00 at the pair's desk on the
            next weekday, when that day's close is known); or None for now.
        limits: what the bundle must hold; by default a spot of any age, and no driver.

    Raises:
        SourceError: the source cannot be read or lacks the pair.
        DataQualityError: the spot is constant or has no usable value, or a required series is missing or stale.
        InputError: `as_of` lies before the data or in the future.
    """
    release = provider.spot_definition(pair).release
    instant = as_of_instant(pair, release, as_of)
    data = provider.load(pair, instant)
    today = as_of if as_of is not None and not isinstance(as_of, datetime) else instant.date()
    spot = _known(data.spot, instant)
    if len(spot.dates) == 0:
        raise _too_early(data.spot, pair, as_of or instant)
    accepted = gate(spot, is_spot=True)
    days = pd.bdate_range(accepted.dates[0], _last_row(spot)).as_unit("s")
    instants = np.minimum(_origin_ns(release, pair, days), instant.as_unit("ns").value)
    values, _ = _align(accepted, days, instants)
    late = _rows_before_any(pair, accepted, values)
    days, instants, values = days[late:], instants[late:], values[late:]
    truth, truth_known = _truth(accepted, days, instants)
    _refuse_constant(pair, values)
    names, units, drivers, repairs = _drivers(data, instant, today, days, instants)
    bundle = MarketBundle(
        pair=pair,
        dates=days,
        instants=pd.DatetimeIndex(instants, tz="UTC"),
        spot=values,
        truth=truth,
        truth_known=truth_known,
        drivers=drivers,
        driver_names=names,
        driver_units=units,
        as_of=instant,
        rate=provider.rate,
        sources=data.sources,
        repairs=(
            *accepted.repairs,
            *_late(pair, days, late),
            *_holes(pair, truth),
            *_stale(pair, accepted, today),
            *repairs,
            *(Repair(name, "missing", None, None, why) for name, why in data.missing.items()),
            *(Repair(name, "ignored", None, None, "a column of text, not used") for name in data.ignored),
            *(_future(data.spot, today) if as_of is None else ()),
        ),
        outcome_at=_outcome_at(pair, release, days[-1].date()),
    )
    if limits is not None:
        _refuse_incomplete(bundle, data.spot.name, accepted.dates[-1].date(), limits)
    return bundle


@dataclass(frozen=True)
class Limits:
    """What a bundle must hold to forecast from.

    Attributes:
        required: drivers that must have a usable value on the last row.
        max_age_business_days: how many of the pair's business days may be without a close at the as-of; None for any
            number, where data are as old as somebody's file.
        cure: what to do when it is not so, for the error.
    """

    required: tuple[str, ...] = ()
    max_age_business_days: int | None = None
    cure: str = ""


def as_of_instant(pair: Pair, release: Release, as_of: date | pd.Timestamp | None) -> pd.Timestamp:
    """The instant that an as-of stands for: see `load_bundle`.

    Raises:
        InputError: it lies in the future.
    """
    now = pd.Timestamp.now(tz="UTC")
    if as_of is None:
        return now
    asked = pd.Timestamp(max(as_of, date.min.replace(year=1900)) if _is_day(as_of) else as_of)
    instant = asked.tz_convert("UTC") if asked.tz else asked.tz_localize("UTC")
    if instant > now:
        raise InputError(f"as-of {as_of} lies in the future; expected today ({now.date()}) or earlier")
    if not _is_day(as_of):
        return instant
    origin = _origin_ns(release, pair, pd.DatetimeIndex([asked]))
    return min(pd.Timestamp(int(origin[0]), tz="UTC"), now)


def _is_day(as_of: date | pd.Timestamp) -> bool:
    return not isinstance(as_of, datetime)  # which a pandas timestamp is


def _too_early(spot: Series, pair: Pair, as_of: date | pd.Timestamp) -> InputError:
    first = spot.dates.min().date()
    return InputError(
        f"as-of {as_of} lies before the data: the first row of {pair} is of {first}; give a later --as-of"
    )


def _origin_ns(release: Release, pair: Pair, days: pd.DatetimeIndex) -> Nanoseconds:
    """Origin instants of rows: when the desk opens, or when the close is known if that is later."""
    return np.maximum(_ns(origin_instants(pair, days)), _ns(release.instants(days)))


def _outcome_at(pair: Pair, release: Release, origin: date) -> pd.Timestamp:
    """When the first rate that a forecast from an origin is for is released."""
    _, day = target_dates(pair, origin, HORIZONS[-1])[0]
    return release.instants(pd.DatetimeIndex([day]))[0]


def _known(series: Series, instant: pd.Timestamp) -> Series:
    """The part of a raw series that had been released at `instant`."""
    known = _ns(series.released) <= instant.as_unit("ns").value
    at = None if series.known_at is None else series.known_at[known]
    return replace(series, dates=series.dates[known], values=series.values[known], known_at=at)


def _last_row(spot: Series) -> pd.Timestamp:
    """Date of the last row of the source, but no more than a few weekdays after its last print.

    An empty day is a hole and has a row like any other; a feed that has gone silent has no origins to offer.
    """
    last_print = spot.dates[~np.isnan(spot.values)].max()
    silent = np.busday_offset(np.datetime64(last_print, "D"), STALE_AFTER_WEEKDAYS, roll="backward")
    return min(spot.dates.max(), pd.Timestamp(silent))


def _align(accepted: Accepted, days: pd.DatetimeIndex, instants: Nanoseconds) -> tuple[Array, Array]:
    """For each row the value of the latest date known at its instant, and its age in days; NaN before the first."""
    known = _ns(accepted.known_at)
    order = np.argsort(known, kind="stable")
    latest = np.maximum.accumulate(order)
    position = np.searchsorted(known[order], instants, side="right") - 1
    chosen = latest[np.maximum(position, 0)]
    values = np.where(position >= 0, accepted.values[chosen], np.nan)
    age = (_ns(days) - _ns(accepted.dates)[chosen]) / 86_400e9
    return values, np.where(position >= 0, age, np.nan)


def _truth(accepted: Accepted, days: pd.DatetimeIndex, instants: Nanoseconds) -> tuple[Array, Nanoseconds]:
    """The accepted close dated each row, and the row at which it was known; NaN and T where there is none."""
    truth = np.full(len(days), np.nan)
    known = np.full(len(days), len(days), dtype=np.int64)
    at = days.get_indexer(accepted.dates.as_unit(days.unit))
    on_row = at >= 0
    truth[at[on_row]] = accepted.values[on_row]
    known[at[on_row]] = np.searchsorted(instants, _ns(accepted.known_at)[on_row], side="left")
    return truth, known


def _drivers(
    data: MarketData, instant: pd.Timestamp, today: date, days: pd.DatetimeIndex, instants: Nanoseconds
) -> tuple[tuple[str, ...], tuple[str, ...], Array, list[Repair]]:
    columns: dict[str, Array] = {}
    units: dict[str, str] = {}
    repairs: list[Repair] = []
    for series in data.drivers:
        columns[series.name] = np.full(len(days), np.nan)
        units[series.name] = series.definition.unit
        known = _known(series, instant)
        if np.isnan(known.values).all():
            continue
        accepted = gate(known, is_spot=False)
        values, age = _align(accepted, days, instants)
        fresh = age <= series.definition.max_age_days
        columns[series.name] = np.where(fresh, values, np.nan)
        repairs += accepted.repairs
        last = accepted.dates[-1].date()
        if not fresh[-1]:
            note = f"the last value is of {last}: too old to be used on the last row"
            repairs.append(Repair(series.name, "stale", last, None, note))
        elif (today - last).days > series.definition.max_age_days:
            note = f"the last value is of {last}, {(today - last).days} days before the as-of date"
            repairs.append(Repair(series.name, "stale", last, None, note))
    by_lower = {name.lower(): name for name in columns}
    for name, ways in DERIVED.items():
        way = next((way for way in ways if by_lower.keys() >= set(way)), None)
        if way is not None:
            columns[name] = columns[by_lower[way[0]]] - columns[by_lower[way[1]]]
            units[name] = PERCENT_PER_YEAR
    table = np.column_stack(list(columns.values())) if columns else np.empty((len(days), 0))
    return tuple(columns), tuple(units[name] for name in columns), table, repairs


def _rows_before_any(pair: Pair, accepted: Accepted, values: Array) -> int:
    """How many rows come before the first at whose instant a close was known."""
    known = np.flatnonzero(~np.isnan(values))
    if len(known) == 0:
        raise DataQualityError(
            f"no row of {pair} up to {accepted.dates[-1].date()} had a close at its own origin: the first was recorded "
            f"as known on {accepted.known_at.min().date()}. Expected closes that are known on their day: import the "
            "history without --available-at"
        )
    return int(known[0])


def _late(pair: Pair, days: pd.DatetimeIndex, rows: int) -> list[Repair]:
    note = f"rows before {days[0].date()} left out: none of their closes was recorded as known by then"
    return [Repair(str(pair), "late", days[0].date(), None, note, rows)] if rows else []


def business_days_without_close(pair: Pair, last: date, as_of: pd.Timestamp) -> int:
    """The pair's business days after its last close whose origin has spoken by an instant."""
    days = pd.bdate_range(last, as_of.tz_convert("UTC").tz_localize(None).normalize())
    spoken = days[np.asarray(origin_instants(pair, days) <= as_of)]
    return sum(is_business_day(pair, day.date()) for day in spoken if day.date() > last)


def _refuse_incomplete(bundle: MarketBundle, spot: str, last: date, limits: Limits) -> None:
    age = business_days_without_close(bundle.pair, last, bundle.as_of)
    if limits.max_age_business_days is not None and age > limits.max_age_business_days:
        raise DataQualityError(
            f"series '{spot}' is stale: its last close is of {last}, and {age} business days since then have "
            f"none; expected at most {limits.max_age_business_days} (setting data.max_age_business_days). {limits.cure}"
        )
    fresh = [
        name for name, value in zip(bundle.driver_names, bundle.drivers[-1], strict=True) if value == value
    ]
    for name in limits.required:
        if name not in fresh:
            state = "stale" if name in bundle.driver_names else "missing"
            raise DataQualityError(
                f"required series '{name}' is {state}; found fresh: {', '.join(fresh) or 'none'}. Expected a value for "
                f"the last row, {bundle.origin} (setting data.required). {limits.cure}"
            )


def _holes(pair: Pair, truth: Array) -> list[Repair]:
    count = int(np.isnan(truth).sum())
    note = "weekdays without a usable close: filled forward, never scored against"
    return [Repair(str(pair), "hole", None, None, note, count)] if count else []


def _stale(pair: Pair, accepted: Accepted, today: date) -> list[Repair]:
    last = accepted.dates[-1].date()
    if int(np.busday_count(last, today)) <= STALE_AFTER_WEEKDAYS:
        return []
    note = f"the last close is of {last}, {(today - last).days} days before the as-of date"
    return [Repair(str(pair), "stale", last, float(accepted.values[-1]), note)]


def _future(spot: Series, today: date) -> list[Repair]:
    later = spot.dates[spot.dates > pd.Timestamp(today)]
    if len(later) == 0:
        return []
    note = f"rows dated after today, up to {later.max().date()}, not used"
    return [Repair(spot.name, "future", later.min().date(), None, note, len(later))]


def _refuse_constant(pair: Pair, spot: Array) -> None:
    recent = spot[-250:]
    if len(recent) > 1 and np.ptp(recent) == 0:
        raise DataQualityError(
            f"{pair} has not moved in its last {len(recent)} rows (always {recent[-1]:g}); "
            "expected a price that moves: check the column"
        )


def _ns(index: pd.DatetimeIndex) -> Nanoseconds:
    return np.asarray(index.as_unit("ns").asi8)
