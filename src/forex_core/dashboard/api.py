"""The answers of the read-only interface, as values whose fields its description (OpenAPI) lists.

Rates and errors in quote units, shares between 0 and 1, days as ISO dates, instants in UTC; null where there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime

from forex_core.dashboard.reading import Outlook, Reader
from forex_core.dashboard.sources import Series
from forex_core.ledger import Published, Raised, Trajectory
from forex_core.ledger.live import LeadScores
from forex_core.types import Pair


@dataclass(frozen=True)
class PublishedForecast:
    """A forecast of the ledger; `live` whether it was published before its first outcome was known."""

    number: int
    run_id: str
    pair: str
    rate: str
    horizon: str
    origin: date
    published_at: datetime
    live: bool
    close: float
    model: str
    version: int | None
    recipe: str
    verdict: str
    weights: dict[str, float]

    @classmethod
    def of(cls, one: Published) -> PublishedForecast:
        return cls(
            number=one.number,
            run_id=one.run_id,
            pair=str(one.pair),
            rate=one.rate,
            horizon=str(one.horizon),
            origin=one.origin,
            published_at=one.published_at.to_pydatetime(),
            live=one.live,
            close=one.close,
            model=one.model,
            version=one.version,
            recipe=one.recipe,
            verdict=one.verdict,
            weights=dict(one.weights),
        )


@dataclass(frozen=True)
class PathForecast:
    """A forecast with its path: `quantiles` by level, one value a target date; `outcomes` where they are known."""

    forecast: PublishedForecast
    unit: str
    target_dates: list[date]
    steps: list[int]
    quantiles: dict[str, list[float]]
    outcomes: list[float | None]

    @classmethod
    def of(cls, path: Trajectory) -> PathForecast:
        return cls(
            forecast=PublishedForecast.of(path.of),
            unit=path.of.pair.unit,
            target_dates=list(path.target_dates),
            steps=list(path.steps),
            quantiles={f"{level:g}": path.quantiles[:, q].tolist() for q, level in enumerate(path.levels)},
            outcomes=[_number(float(value)) for value in path.outcomes],
        )


@dataclass(frozen=True)
class Said:
    """What one forecast said of a date: `step` weekdays before it, its quantiles by level."""

    forecast: PublishedForecast
    step: int
    quantiles: dict[str, float]


@dataclass(frozen=True)
class DateHistory:
    """Everything that was said of one date, in the order of publication, and the rate that came by rate of the pair."""

    pair: str
    date: date
    outcomes: dict[str, float]
    said: list[Said]


@dataclass(frozen=True)
class Lead:
    """Live scores of the last year at one lead.

    `rmse_by_model` is over the forecasts that have the member, `forecasts_by_model` how many these are. Members compare
    by `rmse_in_common`: those of the newest forecast, over the `forecasts_in_common` that have all of them.
    """

    step: int
    forecasts: int
    forecasts_apart: int
    rmse: float
    mae: float
    mape_pct: float
    bias: float
    crps: float
    rmse_walk: float
    rmse_ratio_rw: float | None
    crps_ratio_rw: float | None
    coverage_80: float
    coverage_95: float
    rmse_by_model: dict[str, float]
    forecasts_by_model: dict[str, int]
    rmse_in_common: dict[str, float]
    forecasts_in_common: int

    @classmethod
    def of(cls, one: LeadScores) -> Lead:
        return cls(
            step=one.step,
            forecasts=one.origins,
            forecasts_apart=one.origins_effective,
            rmse=one.rmse,
            mae=one.mae,
            mape_pct=one.mape_pct,
            bias=one.bias,
            crps=one.crps,
            rmse_walk=one.rmse_walk,
            rmse_ratio_rw=one.rmse_ratio_rw,
            crps_ratio_rw=one.crps_ratio_rw,
            coverage_80=one.coverage_80,
            coverage_95=one.coverage_95,
            rmse_by_model=dict(one.rmse_by_model),
            forecasts_by_model=dict(one.origins_by_model),
            rmse_in_common=dict(one.rmse_in_common),
            forecasts_in_common=one.origins_in_common,
        )


@dataclass(frozen=True)
class SeriesScores:
    """Live scores of one horizon: at its end, and at every lead."""

    pair: str
    rate: str
    horizon: str
    at_the_end: Lead | None
    leads: list[Lead]


@dataclass(frozen=True)
class Reign:
    """Consecutive live forecasts of one recipe: from which origin to which, and with which versions."""

    recipe: str
    first_origin: date
    last_origin: date
    first_version: int | None
    last_version: int | None
    forecasts: int


@dataclass(frozen=True)
class ChampionChange:
    """What was done to the champion, by hand or by the monitor; one whose status is not FINISHED changed nothing.

    `action` is rollback, undo, promote, adapt (other bands) or unpin, by which the champion stays.
    """

    run_id: str
    at: datetime
    action: str | None
    from_version: int | None
    to_version: int | None
    by: str | None
    reason: str | None
    status: str


@dataclass(frozen=True)
class ChampionHistory:
    """Who was published: by recipe, and what was done to the champion; `untold` why that cannot be read.

    `hindsight` is of how many other origins there are forecasts that were made in hindsight: these are in no reign.
    """

    pair: str
    rate: str
    horizon: str
    reigns: list[Reign]
    hindsight: int
    changes: list[ChampionChange]
    untold: str | None


@dataclass(frozen=True)
class RaisedAlarm:
    """An alarm as it stood at `raised_at`; whether it still does is not kept.

    `horizon` is null for one of the data, `step` 0 where it is of no lead.
    """

    pair: str
    rate: str
    horizon: str | None
    kind: str
    step: int
    origin: date
    raised_at: datetime
    statistic: float
    threshold: float
    found: str

    @classmethod
    def of(cls, one: Raised) -> RaisedAlarm:
        return cls(
            pair=str(one.pair),
            rate=one.rate,
            horizon=str(one.horizon) if one.horizon else None,
            kind=one.alarm.kind,
            step=one.alarm.step,
            origin=one.alarm.origin,
            raised_at=one.raised_at.to_pydatetime(),
            statistic=one.alarm.statistic,
            threshold=one.alarm.threshold,
            found=one.alarm.found,
        )


@dataclass(frozen=True)
class LastSpoken:
    """When a horizon last spoke, and whether that is longer ago than the settings allow.

    Only live forecasts count; where all were made in hindsight, `newest_origin` and `days_since_published` are null and
    the horizon is silent.
    """

    pair: str
    rate: str
    horizon: str
    newest_origin: date | None
    days_since_published: int | None
    is_silent: bool


@dataclass(frozen=True)
class SeriesHealth:
    """A series of the store of observations."""

    series: str
    first_date: date
    last_date: date
    days: int
    age_days: int
    is_fresh: bool
    is_due: bool
    gaps: int
    revisions: int
    repairs: dict[str, int]
    sources: dict[str, int]


@dataclass(frozen=True)
class Attention:
    """Something that somebody should look at: of what it is, and what was found."""

    what: str
    words: str


@dataclass(frozen=True)
class HealthAnswer:
    """How data and forecasts stand.

    `attention` is what somebody should look at, as the first page lists it: alarms of the last 30 days, silent
    horizons, `waiting` forecasts that the ledger has not taken yet, outcomes that nobody records, series that are too
    old, or that there is no forecast at all. `is_well` when there is none of it and all could be read.
    """

    at: datetime
    is_well: bool
    attention: list[Attention]
    forecasts: list[LastSpoken]
    series: list[SeriesHealth]
    alarms: list[RaisedAlarm]
    waiting: int
    untold: list[str]


def latest(reader: Reader, pair: Pair | None = None, horizon: str | None = None) -> list[PathForecast]:
    """The newest forecast of every pair and horizon, or of those that are asked for."""
    return [
        PathForecast.of(reader.ledger.path(one.number))
        for one in reader.latest
        if pair in (None, one.pair) and horizon in (None, str(one.horizon))
    ]


def date_history(reader: Reader, pair: Pair, day: date) -> DateHistory:
    """What was said of a date, and what came."""
    is_there = any(one.pair == pair for one in reader.latest)
    said = reader.ledger.for_date(pair, day) if is_there else ()
    return DateHistory(
        pair=str(pair),
        date=day,
        outcomes=reader.ledger.outcomes_of(pair, day) if is_there else {},
        said=[
            Said(PublishedForecast.of(one), step, {f"{level:g}": value for level, value in quantiles.items()})
            for one, step, quantiles in said
        ],
    )


def scores(reader: Reader, series: Series) -> SeriesScores:
    """Live scores of the last year."""
    history = reader.history(series)
    return SeriesScores(
        pair=str(series.pair),
        rate=series.rate,
        horizon=str(series.horizon),
        at_the_end=Lead.of(history.record) if history.record else None,
        leads=[Lead.of(one) for one in history.leads],
    )


def champions(reader: Reader, series: Series) -> ChampionHistory:
    """Who was published when, the oldest first, and what was done to the champion, the newest first."""
    history = reader.history(series)
    reigns: list[list[Published]] = []
    for one in history.publications:
        if reigns and reigns[-1][-1].recipe == one.recipe:
            reigns[-1].append(one)
        else:
            reigns.append([one])
    return ChampionHistory(
        pair=str(series.pair),
        rate=series.rate,
        horizon=str(series.horizon),
        reigns=[
            Reign(
                recipe=some[0].recipe,
                first_origin=some[0].origin,
                last_origin=some[-1].origin,
                first_version=some[0].version,
                last_version=some[-1].version,
                forecasts=len(some),
            )
            for some in reigns
        ],
        hindsight=history.hindsight,
        changes=[
            ChampionChange(
                run_id=one.run_id,
                at=one.at.astimezone(UTC),
                action=one.action,
                from_version=one.from_version,
                to_version=one.to_version,
                by=one.by,
                reason=one.reason,
                status=one.status,
            )
            for one in history.changes
        ],
        untold=history.untold,
    )


def health(reader: Reader) -> HealthAnswer:
    """How data and forecasts stand."""
    found = reader.health()
    return HealthAnswer(
        at=found.at.to_pydatetime(),
        is_well=found.is_well,
        attention=[Attention(one.what, one.words) for one in found.attention],
        forecasts=[_last_spoken(one) for one in found.outlooks],
        series=[
            SeriesHealth(
                series=one.series,
                first_date=one.first_date,
                last_date=one.last_date,
                days=one.days,
                age_days=one.age_days,
                is_fresh=one.is_fresh,
                is_due=one.is_due,
                gaps=one.gaps,
                revisions=one.revisions,
                repairs=dict(one.repairs),
                sources=dict(one.sources),
            )
            for one in found.series
        ],
        alarms=[RaisedAlarm.of(one) for one in found.alarms],
        waiting=found.waiting,
        untold=list(found.untold),
    )


def _last_spoken(one: Outlook) -> LastSpoken:
    last = one.silence.last
    return LastSpoken(
        pair=str(one.series.pair),
        rate=one.series.rate,
        horizon=str(one.series.horizon),
        newest_origin=last.origin if last else None,
        days_since_published=one.silence.days,
        is_silent=one.silence.is_silent,
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
