"""The ledger: every forecast that was published, what came, and what each forecast was worth. Nothing is ever changed.

A correction is a new row. Publications form a chain, each digest covering the one before, and so do outcomes: a row
that was changed, removed or put in between is found by `verify`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from forex_core.append_only import AppendOnlyDatabase, text_of
from forex_core.errors import LedgerError
from forex_core.ledger import tables
from forex_core.ledger.entry import Entry, Published
from forex_core.ledger.scoring import score
from forex_core.types import Array, Horizon, MarketBundle, Mask, Pair

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_START = "0" * 64
"""Before the first link of a chain."""
_PORTION = 500
_DOUBTED = frozenset({"refuted", "held"})
"""Repairs of a rate whose print is there and is not believed."""
_P, _R, _O, _S, _A = (
    table.c
    for table in (tables.publications, tables.predictions, tables.outcomes, tables.scores, tables.alarms)
)
_INSTANTS = ("as_of", "published_at", "outcome_at")
_STANDS_FIRST = (_P.live.desc(), _P.published_at.desc(), _P.number.desc())
"""Of several forecasts of one origin."""
_ALARM_KEY = ("pair", "rate", "horizon", "kind", "step", "origin")


@dataclass(frozen=True)
class Outcomes:
    """How many outcomes were new, and how many were other than before, or withdrawn."""

    new: int
    revised: int


@dataclass(frozen=True)
class Scored:
    """A forecast at one lead, with what came. Errors are outcome less forecast, in quote units.

    Attributes:
        revised: whether it had another score before, of an outcome that was revised.
        members: error of each member's median.
    """

    publication: int
    run_id: str
    pair: Pair
    rate: str
    horizon: Horizon
    origin: date
    live: bool
    close: float
    step: int
    target_date: date
    outcome: float
    known_at: pd.Timestamp
    revised: bool
    error: float
    crps: float
    inside_80: bool
    inside_95: bool
    walk_error: float
    walk_crps: float
    walk_inside_80: bool
    walk_inside_95: bool
    members: Mapping[str, float]


@dataclass(frozen=True)
class Track:
    """What stands of the forecasts of one pair and horizon, at one lead or at all: n rows by origin and step.

    Of an origin the last forecast stands that was published before its first outcome was released; where none was,
    there is none. Of an outcome the latest revision, and none where it was withdrawn.

    Attributes:
        origins, target_dates: [n] datetime64[D].
        errors, crps, walk_errors, walk_crps: [n] in quote units; errors are outcome less median.
        members: [n] error of each member's median, NaN where it was none; where it was asked for.
    """

    pair: Pair
    horizon: Horizon
    publications: Array
    origins: Array
    steps: Array
    target_dates: Array
    closes: Array
    outcomes: Array
    errors: Array
    crps: Array
    inside_80: Mask
    inside_95: Mask
    walk_errors: Array
    walk_crps: Array
    walk_inside_80: Mask
    walk_inside_95: Mask
    members: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.origins)

    def at(self, chosen: Mask) -> Track:
        """The rows that are chosen."""
        arrays: dict[str, Any] = {
            name: value[chosen] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        return replace(
            self, **arrays, members={name: errors[chosen] for name, errors in self.members.items()}
        )

    @property
    def last_lead(self) -> Track:
        """The lead that gives the horizon its name alone: a holiday on that day leaves a forecast out."""
        return self.at(self.steps == self.horizon.evaluation_steps)


@dataclass(frozen=True)
class Trajectory:
    """The path of a forecast: H target dates, Q levels, M members, with the outcomes that are known (NaN: not yet)."""

    of: Published
    levels: tuple[float, ...]
    steps: tuple[int, ...]
    target_dates: tuple[date, ...]
    quantiles: Array
    walk: Array
    medians: Mapping[str, Array]
    outcomes: Array


@dataclass(frozen=True)
class Alarm:
    """What was noticed; `step` is the lead of the forecasts or 0, `origin` the last that it rests on."""

    kind: str
    step: int
    origin: date
    statistic: float
    threshold: float
    found: str


@dataclass(frozen=True)
class Raised:
    """An alarm of a pair, and of a horizon where it is not of the data."""

    number: int
    pair: Pair
    rate: str
    horizon: Horizon | None
    raised_at: pd.Timestamp
    alarm: Alarm


@dataclass(frozen=True)
class Audit:
    """What `verify` found: how much was read, what is to be scored yet, the head of the chain, and what is wrong."""

    publications: int
    predictions: int
    outcomes: int
    scores: int
    unscored: int
    head: str
    faults: tuple[str, ...]


class Ledger:
    """The ledger of one database.

    Raises, from every method:
        LedgerUnavailable: it is locked, unreachable or out of space; trying again may help.
        LedgerError: it is none of ours, is damaged or cannot be written, or was made by another version.
    """

    def __init__(self, url: str, below: Path | None = None) -> None:
        """
        Args:
            url: sqlite:////path/forex.db or postgresql://user@host/database; that of the observations does as well.
            below: the data folder; an SQLite file elsewhere is refused, for no backup looks there.

        Raises:
            ConfigError: for another address, or where PostgreSQL's driver is not installed.
        """
        self._database = AppendOnlyDatabase(url, tables.PART, below)
        self.address = self._database.address

    @property
    def is_made(self) -> bool:
        """Whether anything was ever written; nothing is made to find out."""
        return self._database.is_made

    # --- Writing

    def append(self, entry: Entry, now: pd.Timestamp | None = None) -> Published:
        """Write a forecast; of a run that is there already nothing is written.

        Raises:
            LedgerError: the run is there with another forecast.
        """
        row, rows = _rows(entry)
        with self._database.writing() as connection:
            there = connection.execute(
                sa.select(tables.publications).where(_P.run_id == entry.run_id)
            ).one_or_none()
            if there is not None:
                path = connection.execute(_path_of(there.number)).all()
                if content_digest(entry) != _content(there, path):
                    raise LedgerError(
                        f"run {entry.run_id} is in the ledger {self.address} with another forecast; a correction is a "
                        "forecast of a run of its own"
                    )
                return _published(there)
            last = _last(connection, tables.publications)
            number, previous = (last.number + 1, last.digest) if last else (1, _START)
            at = _instant(now)
            digest = _digest(previous, text_of(at), row, rows)
            instants = {name: getattr(entry, name) for name in _INSTANTS}
            connection.execute(
                tables.publications.insert().values(
                    row
                    | instants
                    | {"number": number, "previous": previous, "digest": digest, "recorded_at": at}
                    | {"origin": _bound(connection, entry.origin)}
                )
            )
            connection.execute(
                tables.predictions.insert(),
                [
                    one | {"publication": number, "target_date": _bound(connection, day)}
                    for one, day in zip(rows, entry.target_dates, strict=True)
                ],
            )
            return _published(
                connection.execute(sa.select(tables.publications).where(_P.number == number)).one()
            )

    def record(
        self,
        pair: Pair,
        rate: str,
        days: Sequence[date],
        values: Array,
        known_at: Sequence[pd.Timestamp],
        as_of: pd.Timestamp | None = None,
        now: pd.Timestamp | None = None,
    ) -> Outcomes:
        """Take in what came, of the days that forecasts are for.

        Args:
            days, values, known_at: [n] target dates, the rate that each had, and when that became known. NaN where
                nothing is accepted of the day: what was recorded of it before is withdrawn.
            as_of: the instant whose knowledge this is, by default now. What is known here as of later stays.
        """
        at = _instant(now)
        of = _instant(as_of) if as_of is not None else at
        new = revised = 0
        with self._database.writing() as connection:
            wanted = _awaited(connection, pair, rate)
            known = _outcomes(connection, pair, rate)
            last = _last(connection, tables.outcomes)
            number, previous = (last.number, last.digest) if last else (0, _START)
            for day, value, since in zip(days, values, known_at, strict=True):
                before, came = known.get(day), float(value) if np.isfinite(value) else None
                if day not in wanted or (came is None and before is None):
                    continue
                if before is not None and (before.value == came or of <= before.as_of):
                    continue
                new, revised = new + (before is None), revised + (before is not None)
                number += 1
                row = _outcome(pair, rate, day, came, since, of, at)
                digest = _digest(previous, row)
                connection.execute(
                    tables.outcomes.insert().values(
                        number=number,
                        pair=str(pair),
                        rate=rate,
                        target_date=_bound(connection, day),
                        value=came,
                        known_at=_instant(since),
                        as_of=of,
                        recorded_at=at,
                        previous=previous,
                        digest=digest,
                    )
                )
                previous = digest
        return Outcomes(new, revised)

    def observe(self, bundle: MarketBundle) -> Outcomes:
        """`record` what a bundle knows to have come, and on which days the print is one that is not believed.

        A day of which the source says nothing, as where a file lacks a row, changes nothing.
        """
        came = np.isfinite(bundle.truth)
        doubted = {
            one.day
            for one in bundle.repairs
            if one.kind in _DOUBTED and one.series not in bundle.driver_names
        }
        withdrawn = ~came & np.array([day.date() in doubted for day in bundle.dates])
        rows = np.flatnonzero(withdrawn | (came & (bundle.truth_known < len(bundle))))
        since = [bundle.instants[bundle.truth_known[k]] if came[k] else bundle.as_of for k in rows]
        days = [day.date() for day in bundle.dates[rows]]
        return self.record(bundle.pair, bundle.rate, days, bundle.truth[rows], since, bundle.as_of)

    def score(self) -> tuple[Scored, ...]:
        """Score every forecast that has an outcome and no score of it, in the order of publication and step."""
        made = []
        with self._database.writing() as connection:
            latest = _latest_outcomes()
            there = sa.exists().where(
                _S.publication == _R.publication, _S.step == _R.step, _S.outcome == latest.c.number
            )
            earlier = sa.exists().where(_S.publication == _R.publication, _S.step == _R.step)
            query = (
                sa.select(
                    tables.predictions,
                    latest.c.number.label("outcome"),
                    latest.c.value,
                    latest.c.known_at,
                    earlier.label("revised"),
                )
                .join(tables.publications, _P.number == _R.publication)
                .join(latest, _same_outcome(latest))
                .where(~there, latest.c.value.is_not(None))
                .order_by(_R.publication, _R.step)
            )
            found = connection.execute(query).all()
            heads = {
                row.number: row
                for row in _known(
                    connection, sa.select(tables.publications), _P.number, [*{r.publication for r in found}]
                )
            }
            rows = []
            for row in found:
                head = heads[row.publication]
                levels = tuple(json.loads(head.levels))
                one = score(
                    np.array(json.loads(row.quantiles)), np.array(json.loads(row.walk)), levels, row.value
                )
                rows.append(
                    {"publication": row.publication, "step": row.step, "outcome": row.outcome} | asdict(one)
                )
                published = _published(head)
                medians = dict(zip(json.loads(head.members), json.loads(row.medians), strict=True))
                made.append(
                    Scored(
                        publication=published.number,
                        run_id=published.run_id,
                        pair=published.pair,
                        rate=published.rate,
                        horizon=published.horizon,
                        origin=published.origin,
                        live=published.live,
                        close=published.close,
                        step=row.step,
                        target_date=_day(row.target_date),
                        outcome=row.value,
                        known_at=row.known_at,
                        revised=bool(row.revised),
                        members={name: row.value - median for name, median in medians.items()},
                        **asdict(one),
                    )
                )
            if rows:
                connection.execute(tables.scores.insert(), rows)
        return tuple(made)

    # --- Reading

    def kinds(self) -> tuple[tuple[Pair, str], ...]:
        """Every pair with the rate that was forecast of it."""
        with self._database.reading() as connection:
            found = connection.execute(sa.select(_P.pair, _P.rate).distinct().order_by(_P.pair, _P.rate))
            return tuple((Pair.parse(pair), rate) for pair, rate in found)

    def latest(self) -> tuple[Published, ...]:
        """Of every pair, rate and horizon the forecast of the newest origin, of several that of `paths`."""
        kinds = (_P.pair, _P.rate, _P.horizon)
        newest = sa.select(tables.publications).order_by(_P.origin.desc(), *_STANDS_FIRST).limit(1)
        with self._database.reading() as connection:
            found = [
                _published(
                    connection.execute(
                        newest.where(*(column == value for column, value in zip(kinds, kind, strict=True)))
                    ).one()
                )
                for kind in connection.execute(sa.select(*kinds).distinct()).all()
            ]
        return tuple(sorted(found, key=lambda one: (one.pair, one.rate, one.horizon)))

    def unanswered(self, day: date) -> tuple[tuple[Pair, str, date], ...]:
        """Rates of which no outcome was recorded after some target date of live forecasts, with the first such date.

        Only dates up to `day` count, which lies so far back that what came is out. One that lies before a recorded
        outcome had no print, as on a holiday that no calendar knew.
        """
        found = []
        for pair, rate in self.kinds():
            with self._database.reading() as connection:
                came = sa.select(sa.func.max(_O.target_date)).where(_O.pair == str(pair), _O.rate == rate)
                last = connection.scalar(came)
                if last is not None and _day(last) >= day:
                    continue
                query = (
                    sa.select(_R.target_date)
                    .join(tables.publications, _P.number == _R.publication)
                    .where(_P.pair == str(pair), _P.rate == rate, _P.live == sa.true())
                    .where(_R.target_date <= _bound(connection, day))
                    .order_by(_R.target_date)
                    .limit(1)
                )
                first = connection.scalar(query if last is None else query.where(_R.target_date > last))
            if first is not None:
                found.append((pair, rate, _day(first)))
        return tuple(found)

    def up_to(self, pair: Pair, rate: str, horizon: Horizon, origin: date) -> tuple[Published, ...]:
        """Forecasts of an origin, that of `paths` first, and last that of `paths` of the newest origin before it."""
        kind = (_P.pair == str(pair), _P.rate == rate, _P.horizon == str(horizon))
        query = sa.select(tables.publications).where(*kind).order_by(_P.origin.desc(), *_STANDS_FIRST)
        with self._database.reading() as connection:
            day = _bound(connection, origin)
            own = connection.execute(query.where(_P.origin == day)).all()
            before = connection.execute(query.where(_P.origin < day).limit(1)).all()
        return tuple(map(_published, (*own, *before)))

    def publications(
        self,
        pair: Pair | None = None,
        horizon: Horizon | None = None,
        *,
        rate: str | None = None,
        last: int | None = None,
        origin: date | None = None,
        live: bool = False,
        until: pd.Timestamp | None = None,
    ) -> tuple[Published, ...]:
        """Forecasts in the order of publication: all, or the last of them.

        Args:
            live: those made in their time.
            until: those that were published by then.
        """
        query = _of(sa.select(tables.publications), pair, horizon)
        if rate is not None:
            query = query.where(_P.rate == rate)
        if live:
            query = query.where(_P.live == sa.true())
        if until is not None:
            query = query.where(_P.published_at <= until)
        with self._database.reading() as connection:
            if origin is not None:
                query = query.where(_P.origin == _bound(connection, origin))
            query = query.order_by(_P.number.desc())
            found = connection.execute(query.limit(last) if last is not None else query).all()
            return tuple(_published(row) for row in reversed(found))

    def of_run(self, beginning: str) -> tuple[Published, ...]:
        """Forecasts of the runs whose id begins so, in the order of publication."""
        query = sa.select(tables.publications).where(_P.run_id.startswith(beginning, autoescape=True))
        with self._database.reading() as connection:
            return tuple(map(_published, connection.execute(query.order_by(_P.number)).all()))

    def path(self, number: int) -> Trajectory:
        """A forecast with its path and the outcomes known by now.

        Raises:
            LedgerError: there is no forecast of that number.
        """
        with self._database.reading() as connection:
            head = connection.execute(sa.select(tables.publications).where(_P.number == number)).one_or_none()
            if head is None:
                raise LedgerError(f"the ledger {self.address} has no forecast {number}")
            rows = connection.execute(_path_rows().where(_R.publication == number)).all()
        return _trajectory(head, rows)

    def paths(
        self,
        pair: Pair,
        rate: str,
        horizon: Horizon,
        *,
        first: date | None = None,
        last: date | None = None,
    ) -> tuple[Trajectory, ...]:
        """The path of every origin in [first, last], the oldest first.

        Of an origin that is the last live forecast, as in `track`; where there is none, the last that was made in
        hindsight.
        """
        with self._database.reading() as connection:
            within = []
            if first is not None:
                within.append(_P.origin >= _bound(connection, first))
            if last is not None:
                within.append(_P.origin <= _bound(connection, last))
            numbers = _standing(pair, rate, horizon, *within)
            heads = connection.execute(
                sa.select(tables.publications).where(_P.number.in_(numbers)).order_by(_P.origin)
            ).all()
            rows: dict[int, list[Any]] = {head.number: [] for head in heads}
            for row in connection.execute(_path_rows().where(_R.publication.in_(numbers))):
                rows[row.publication].append(row)
        return tuple(_trajectory(head, rows[head.number]) for head in heads)

    def rates(self, pair: Pair, rate: str, since: date | None = None) -> tuple[Array, Array, Mask]:
        """Days and values of a rate, the oldest first: days [n] datetime64[D], values [n] in quote units, came [n].

        Outcomes as they were last revised; of other days, which did not come, the close that a forecast started from.
        It may have been carried over a day without a print.
        """
        latest = _latest_outcomes()
        came = sa.select(latest.c.target_date, latest.c.value).where(
            latest.c.pair == str(pair), latest.c.rate == rate, latest.c.value.is_not(None)
        )
        closes = (
            sa.select(_P.origin, _P.close).where(_P.pair == str(pair), _P.rate == rate).order_by(_P.number)
        )
        with self._database.reading() as connection:
            if since is not None:
                day = _bound(connection, since)
                came, closes = came.where(latest.c.target_date >= day), closes.where(_P.origin >= day)
            began, outcomes = (
                {_day(day): value for day, value in connection.execute(query)} for query in (closes, came)
            )
        values = began | outcomes
        days = sorted(values)
        return (
            np.array(days, dtype="M8[D]"),
            np.array([values[day] for day in days], dtype=np.float64),
            np.array([day in outcomes for day in days], dtype=bool),
        )

    def outcomes_of(self, pair: Pair, day: date) -> dict[str, float]:
        """What came on one date, in quote units, by rate."""
        latest = _latest_outcomes()
        query = sa.select(latest.c.rate, latest.c.value).where(
            latest.c.pair == str(pair), latest.c.value.is_not(None)
        )
        with self._database.reading() as connection:
            found = connection.execute(query.where(latest.c.target_date == _bound(connection, day))).all()
        return {rate: float(value) for rate, value in sorted(found)}

    def for_date(self, pair: Pair, day: date) -> tuple[tuple[Published, int, Mapping[float, float]], ...]:
        """What was said of one date: each forecast with its step and its quantiles by level, as they were published."""
        query = (
            sa.select(tables.publications, _R.step, _R.quantiles)
            .join(tables.publications, _P.number == _R.publication)
            .where(_P.pair == str(pair))
            .order_by(_P.number)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query.where(_R.target_date == _bound(connection, day))).all()
        return tuple(
            (
                _published(row),
                row.step,
                dict(zip(json.loads(row.levels), json.loads(row.quantiles), strict=True)),
            )
            for row in rows
        )

    def track(
        self,
        pair: Pair,
        rate: str,
        horizon: Horizon,
        *,
        since: date | None = None,
        until: pd.Timestamp | None = None,
        members: bool = False,
        ends: bool = False,
    ) -> Track:
        """The track record of origins from `since` on, at every lead, or with `ends` at the horizon's own.

        Args:
            until: as it stood then, of what was published and of what had come.
        """
        latest = _latest_outcomes(until)
        within = [_P.live == sa.true()]
        if until is not None:
            within.append(_P.published_at <= until)
        query = (
            sa.select(
                _P.number, _P.origin, _R.step, _R.target_date, _P.close, latest.c.value,
                _S.error, _S.crps, _S.inside_80, _S.inside_95,
                _S.walk_error, _S.walk_crps, _S.walk_inside_80, _S.walk_inside_95,
            )
            .select_from(tables.publications)
            .join(tables.predictions, _R.publication == _P.number)
            .join(latest, _same_outcome(latest))
            .join(
                tables.scores,
                sa.and_(_S.publication == _R.publication, _S.step == _R.step, _S.outcome == latest.c.number),
            )
            .order_by(_P.origin, _R.step)
        )  # fmt: skip
        if members:
            query = query.add_columns(_P.members, _R.medians)
        if ends:
            query = query.where(_R.step == horizon.evaluation_steps)
        with self._database.reading() as connection:
            if since is not None:
                within.append(_P.origin >= _bound(connection, since))
            rows = connection.execute(
                query.where(_P.number.in_(_standing(pair, rate, horizon, *within)))
            ).all()
        kinds = ["i8", "M8[D]", "i8", "M8[D]", *["f8"] * 4, "?", "?", "f8", "f8", "?", "?"]
        columns = list(zip(*rows, strict=True)) if rows else [()] * (len(kinds) + 2)
        arrays: list[Any] = [
            np.array(column, dtype=kind) for column, kind in zip(columns, kinds, strict=False)
        ]
        track = Track(pair, horizon, *arrays)
        if not members:
            return track
        return replace(track, members=_member_errors(columns[-2], columns[-1], track.outcomes))

    def raise_alarm(
        self, pair: Pair, rate: str, horizon: Horizon | None, alarm: Alarm, now: pd.Timestamp | None = None
    ) -> None:
        """Keep an alarm; one that is there already stays as it is."""
        with self._database.writing() as connection:
            row = _alarm_row(connection, pair, rate, horizon, alarm)
            there = sa.select(_A.found).where(*(_A[name] == row[name] for name in _ALARM_KEY))
            if connection.execute(there).one_or_none() is not None:
                return
            last, at = _last(connection, tables.alarms), _instant(now)
            number, previous = (last.number + 1, last.digest) if last else (1, _START)
            told = row | {"origin": alarm.origin.isoformat(), "raised_at": text_of(at)}
            connection.execute(
                tables.alarms.insert().values(
                    row
                    | {"number": number, "raised_at": at}
                    | {"previous": previous, "digest": _digest(previous, told)}
                )
            )

    def alarms(
        self,
        pair: Pair | None = None,
        rate: str | None = None,
        horizon: Horizon | None = None,
        *,
        until: pd.Timestamp | None = None,
        untold_since: pd.Timestamp | None = None,
    ) -> tuple[Raised, ...]:
        """The alarms that were raised, the first one first.

        Args:
            until: those that were raised by then.
            untold_since: those that were raised since and that nobody has heard of yet.
        """
        query = sa.select(tables.alarms).order_by(_A.raised_at, _A.number)
        if until is not None:
            query = query.where(_A.raised_at <= until)
        if untold_since is not None:
            heard = sa.exists().where(tables.tellings.c.alarm == _A.number)
            query = query.where(_A.raised_at >= untold_since, ~heard)
        for column, wanted in ((_A.pair, pair), (_A.rate, rate), (_A.horizon, horizon)):
            if wanted is not None:
                query = query.where(column == str(wanted))
        with self._database.reading() as connection:
            return tuple(
                Raised(
                    number=row.number,
                    pair=Pair.parse(row.pair),
                    rate=row.rate,
                    horizon=Horizon.parse(row.horizon) if row.horizon else None,
                    raised_at=row.raised_at,
                    alarm=Alarm(
                        row.kind, row.step, _day(row.origin), row.statistic, row.threshold, row.found
                    ),
                )
                for row in connection.execute(query)
            )

    def told(self, alarms: Sequence[Raised], now: pd.Timestamp | None = None) -> None:
        """Note that somebody has heard of alarms."""
        number, at = tables.tellings.c.alarm, _instant(now)
        with self._database.writing() as connection:
            known = {*connection.scalars(sa.select(number))}
            new = sorted({one.number for one in alarms} - known)
            if new:
                connection.execute(tables.tellings.insert(), [{"alarm": one, "told_at": at} for one in new])

    def heads(self) -> tuple[str | None, str | None]:
        """The digests of the last outcome and of the last alarm, for `verify` to look for; None where there is none."""
        with self._database.reading() as connection:
            last = (_last(connection, table) for table in (tables.outcomes, tables.alarms))
            outcome, alarm = (row.digest if row else None for row in last)
        return outcome, alarm

    def verify(
        self, anchors: Collection[tuple[str, str]] = (), vouched: Collection[str] | None = None
    ) -> Audit:
        """Read everything and compare it with its digests.

        Args:
            anchors: runs with a digest that they recorded; they tell of an end that was cut off.
            vouched: the `content_digest` that each run recorded when it was published; None where runs record nothing.
                A forecast that was written after its first outcome was released needs one, or it may be made up.
        """
        faults: list[str] = []
        with self._database.reading() as connection:
            rows: dict[int, list[Any]] = {}
            for row in connection.execute(sa.select(tables.predictions).order_by(_R.publication, _R.step)):
                rows.setdefault(row.publication, []).append(row)
            heads = connection.execute(sa.select(tables.publications).order_by(_P.number)).all()
            came = connection.execute(sa.select(tables.outcomes).order_by(_O.number)).all()
            alarms = connection.execute(sa.select(tables.alarms).order_by(_A.number)).all()
            scored = connection.execute(sa.select(tables.scores)).all()
        faults += _broken(
            heads,
            "forecast",
            lambda row: _digest(
                row.previous, text_of(row.recorded_at), *_read(row, rows.get(row.number, []))
            ),
        )
        faults += _broken(came, "outcome", lambda row: _digest(row.previous, _outcome_of(row)))
        faults += _broken(alarms, "alarm", lambda row: _digest(row.previous, _alarm_of(row)))
        faults += unaccounted(anchors, {row.digest for row in (*heads, *came, *alarms)})
        if vouched is not None:
            faults += _made_up(heads, rows, vouched)
        faults += _misjudged(
            scored, {row.number: row for row in heads}, rows, {row.number: row for row in came}
        )
        removed, unscored = _unscored(scored, heads, rows, came)
        faults += removed
        headless = sorted(set(rows) - {head.number for head in heads})
        faults += [f"forecast {number} has a path and no head" for number in headless]
        return Audit(
            publications=len(heads),
            predictions=sum(map(len, rows.values())),
            outcomes=len(came),
            scores=len(scored),
            unscored=unscored,
            head=heads[-1].digest if heads else _START,
            faults=tuple(faults),
        )


def unaccounted(anchors: Collection[tuple[str, str]], known: Collection[str] = ()) -> list[str]:
    """Runs whose digest is none of those `known` to the ledger: by digest, for a run that was spooled has a new id."""
    return [
        f"run {run_id} recorded the digest {digest[:12]}…, and the ledger has none like it"
        for run_id, digest in anchors
        if digest not in known
    ]


# --- Rows and digests


def content_digest(entry: Entry) -> str:
    """sha256 of what a forecast says, wherever in the ledger it comes to stand."""
    return _digest(_START, *_rows(entry))


def _content(head: Any, path: Sequence[Any]) -> str:
    """`content_digest`, from the database."""
    return _digest(_START, *_read(head, path))


def _rows(entry: Entry) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of a publication and those of its path, as their digest takes them; days and instants as text."""
    row = {
        "run_id": entry.run_id,
        "pair": str(entry.pair),
        "rate": entry.rate,
        "horizon": str(entry.horizon),
        "origin": entry.origin.isoformat(),
        **{name: text_of(getattr(entry, name)) for name in _INSTANTS},
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


def _read(head: Any, path: Sequence[Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """As `_rows`, from the database."""
    of_the_chain = {"number", "recorded_at", "previous", "digest"}
    names = [c.name for c in tables.publications.columns if c.name not in of_the_chain]
    row = {name: getattr(head, name) for name in names} | {
        "origin": _day(head.origin).isoformat(),
        **{name: text_of(getattr(head, name)) for name in _INSTANTS},
        "live": bool(head.live),
    }
    names = [c.name for c in tables.predictions.columns if c.name != "publication"]
    rows = [
        {name: getattr(one, name) for name in names} | {"target_date": _day(one.target_date).isoformat()}
        for one in path
    ]
    return row, rows


def _outcome(
    pair: Pair,
    rate: str,
    day: date,
    value: float | None,
    known_at: pd.Timestamp,
    as_of: pd.Timestamp,
    recorded_at: pd.Timestamp,
) -> dict[str, Any]:
    return {
        "pair": str(pair),
        "rate": rate,
        "target_date": day.isoformat(),
        "value": value,
        "known_at": text_of(known_at),
        "as_of": text_of(as_of),
        "recorded_at": text_of(recorded_at),
    }


def _outcome_of(row: Any) -> dict[str, Any]:
    pair, day = Pair.parse(row.pair), _day(row.target_date)
    return _outcome(pair, row.rate, day, row.value, row.known_at, row.as_of, row.recorded_at)


def _alarm_of(row: Any) -> dict[str, Any]:
    names = [
        c.name for c in tables.alarms.columns if c.name not in {"number", "raised_at", "previous", "digest"}
    ]
    told = {name: getattr(row, name) for name in names}
    return told | {"origin": _day(row.origin).isoformat(), "raised_at": text_of(row.raised_at)}


def _digest(previous: str, *content: Any) -> str:
    text = json.dumps([previous, *content], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _broken(rows: Sequence[Any], what: str, digest: Any) -> Iterator[str]:
    """What is wrong with a chain."""
    previous, number = _START, 0
    for row in rows:
        if row.number != number + 1:
            missing = f"{number + 1}" if row.number == number + 2 else f"{number + 1} to {row.number - 1}"
            yield f"{what} {missing}: removed"
        elif row.previous != previous:
            yield f"{what} {row.number}: another one stood before it"
        if digest(row) != row.digest:
            yield f"{what} {row.number}: changed since it was written"
        previous, number = row.digest, row.number


def _made_up(
    heads: Iterable[Any], rows: Mapping[int, Sequence[Any]], vouched: Collection[str]
) -> Iterator[str]:
    """Forecasts of which only a file said that they were published before anything was known."""
    for head in heads:
        was_late = head.live and head.recorded_at >= head.outcome_at
        if was_late and _content(head, rows.get(head.number, [])) not in vouched:
            yield (
                f"forecast {head.number}: written at {text_of(head.recorded_at)}, when its first outcome was out, and "
                f"no run says that it was published at {text_of(head.published_at)}: its run is gone, or it was made up"
            )


def _misjudged(
    scored: Iterable[Any],
    heads: Mapping[int, Any],
    rows: Mapping[int, Sequence[Any]],
    came: Mapping[int, Any],
) -> Iterator[str]:
    """Scores that do not follow from forecast and outcome."""
    paths = {(number, one.step): one for number, path in rows.items() for one in path}
    for row in scored:
        path, head, outcome = (
            paths.get((row.publication, row.step)),
            heads.get(row.publication),
            came.get(row.outcome),
        )
        where = f"score of forecast {row.publication} at step {row.step}"
        if path is None or head is None or outcome is None:
            yield f"{where}: its forecast or its outcome is not there"
            continue
        try:
            levels = tuple(json.loads(head.levels))
            quantiles, walk = (np.array(json.loads(text)) for text in (path.quantiles, path.walk))
            follows = asdict(score(quantiles, walk, levels, outcome.value))
        except (ValueError, TypeError, IndexError):  # changed beyond reading
            follows = {}
        if {name: getattr(row, name) for name in follows} != follows or not follows:
            yield f"{where}: does not follow from its forecast and its outcome"


def _unscored(
    scored: Sequence[Any], heads: Iterable[Any], rows: Mapping[int, Sequence[Any]], came: Iterable[Any]
) -> tuple[list[str], int]:
    """Scores that were there and are not, and how many are to be made yet.

    `Ledger.score` leaves none out: it gives one to every forecast of the time, of the outcome that is the last of its
    date. So one is missing where a later forecast has a score of the same outcome; and of the last outcome of a date
    where, of whatever, a later forecast has one and a later outcome.
    """
    there = {(row.publication, row.step, row.outcome) for row in scored}
    newest_forecast = max((row.publication for row in scored), default=0)
    newest_outcome = max((row.outcome for row in scored), default=0)
    until: dict[int, int] = {}
    for row in scored:
        until[row.outcome] = max(row.publication, until.get(row.outcome, 0))
    revisions: dict[tuple[str, str, date], list[Any]] = {}
    for outcome in came:
        revisions.setdefault((outcome.pair, outcome.rate, _day(outcome.target_date)), []).append(outcome)
    removed, waiting = [], 0
    for head in heads:
        for one in rows.get(head.number, ()):
            of_date = revisions.get((head.pair, head.rate, _day(one.target_date)), [])
            for outcome in of_date:
                number, is_last = outcome.number, outcome is of_date[-1]
                if outcome.value is None or (head.number, one.step, number) in there:
                    continue
                scored_until = (
                    newest_forecast if is_last and number <= newest_outcome else until.get(number, 0)
                )
                if head.number <= scored_until:
                    removed.append(f"score of forecast {head.number} at step {one.step}: removed")
                elif is_last:
                    waiting += 1
    return removed, waiting


def _member_errors(members: Sequence[str], medians: Sequence[str], outcomes: Array) -> dict[str, Array]:
    found: dict[str, Array] = {}
    names_of: dict[str, list[str]] = {text: json.loads(text) for text in set(members)}
    for k, (text, middle) in enumerate(zip(members, medians, strict=True)):
        for name, median in zip(names_of[text], json.loads(middle), strict=True):
            if name not in found:
                found[name] = np.full(len(outcomes), np.nan)
            found[name][k] = outcomes[k] - median
    return found


def _alarm_row(
    connection: Connection, pair: Pair, rate: str, horizon: Horizon | None, alarm: Alarm
) -> dict[str, Any]:
    told = asdict(alarm) | {"origin": _bound(connection, alarm.origin)}
    return told | {"pair": str(pair), "rate": rate, "horizon": str(horizon) if horizon else ""}


# --- Queries


def _latest_outcomes(until: pd.Timestamp | None = None) -> sa.Subquery:
    """The last revision of each outcome, of what was known by `until` where that is given."""
    later = sa.alias(tables.outcomes)
    newer = sa.exists().where(
        later.c.pair == _O.pair,
        later.c.rate == _O.rate,
        later.c.target_date == _O.target_date,
        later.c.number > _O.number,
    )
    query = sa.select(tables.outcomes)
    if until is not None:
        newer, query = newer.where(later.c.known_at <= until), query.where(_O.known_at <= until)
    return query.where(~newer).subquery("latest")


def _same_outcome(latest: sa.Subquery) -> sa.ColumnElement[bool]:
    return sa.and_(latest.c.pair == _P.pair, latest.c.rate == _P.rate, latest.c.target_date == _R.target_date)


def _standing(
    pair: Pair, rate: str, horizon: Horizon, *within: sa.ColumnElement[bool]
) -> sa.Select[tuple[int]]:
    """The number of the forecast of each origin that stands: the last that was published, a live one before others."""
    place = sa.func.row_number().over(partition_by=_P.origin, order_by=_STANDS_FIRST).label("place")
    kind = (_P.pair == str(pair), _P.rate == rate, _P.horizon == str(horizon))
    placed = sa.select(_P.number, place).where(*kind, *within).subquery("placed")
    return sa.select(placed.c.number).where(placed.c.place == 1)


def _path_of(number: int) -> sa.Select[Any]:
    return sa.select(tables.predictions).where(_R.publication == number).order_by(_R.step)


def _path_rows() -> sa.Select[Any]:
    """The rows of paths, each with its outcome as `value` where that is known."""
    latest = _latest_outcomes()
    return (
        sa.select(tables.predictions, latest.c.value)
        .join(tables.publications, _P.number == _R.publication)
        .outerjoin(latest, _same_outcome(latest))
        .order_by(_R.publication, _R.step)
    )


def _awaited(connection: Connection, pair: Pair, rate: str) -> frozenset[date]:
    """The target dates of all forecasts of a pair's rate."""
    query = (
        sa.select(_R.target_date)
        .distinct()
        .join(tables.publications, _P.number == _R.publication)
        .where(_P.pair == str(pair), _P.rate == rate)
    )
    return frozenset(_day(day) for day in connection.scalars(query))


def _outcomes(connection: Connection, pair: Pair, rate: str) -> dict[date, Any]:
    query = sa.select(tables.outcomes).where(_O.pair == str(pair), _O.rate == rate).order_by(_O.number)
    return {_day(row.target_date): row for row in connection.execute(query)}


def _of(query: sa.Select[Any], pair: Pair | None, horizon: Horizon | None) -> sa.Select[Any]:
    if pair is not None:
        query = query.where(_P.pair == str(pair))
    return query if horizon is None else query.where(_P.horizon == str(horizon))


def _known(connection: Connection, query: sa.Select[Any], column: Any, keys: Sequence[int]) -> Iterator[Any]:
    for k in range(0, len(keys), _PORTION):
        yield from connection.execute(query.where(column.in_(keys[k : k + _PORTION])))


def _last(connection: Connection, table: sa.Table) -> Any:
    return connection.execute(sa.select(table).order_by(table.c.number.desc()).limit(1)).one_or_none()


def _trajectory(head: Any, rows: Sequence[Any]) -> Trajectory:
    medians = np.array([json.loads(row.medians) for row in rows])
    return Trajectory(
        of=_published(head),
        levels=tuple(json.loads(head.levels)),
        steps=tuple(row.step for row in rows),
        target_dates=tuple(_day(row.target_date) for row in rows),
        quantiles=np.array([json.loads(row.quantiles) for row in rows]),
        walk=np.array([json.loads(row.walk) for row in rows]),
        medians={name: medians[:, k] for k, name in enumerate(json.loads(head.members))},
        outcomes=np.array([np.nan if row.value is None else row.value for row in rows]),
    )


def _published(row: Any) -> Published:
    return Published(
        number=row.number,
        run_id=row.run_id,
        pair=Pair.parse(row.pair),
        rate=row.rate,
        horizon=Horizon.parse(row.horizon),
        origin=_day(row.origin),
        as_of=row.as_of,
        published_at=row.published_at,
        recorded_at=row.recorded_at,
        live=bool(row.live),
        close=row.close,
        model=row.model,
        version=row.version,
        recipe=row.recipe,
        fingerprint=row.fingerprint,
        verdict=row.verdict,
        weights=dict(zip(json.loads(row.members), json.loads(row.weights), strict=True)),
        digest=row.digest,
    )


def _instant(given: pd.Timestamp | None) -> pd.Timestamp:
    return (given if given is not None else pd.Timestamp.now(tz="UTC")).tz_convert("UTC").floor("us")


def _bound(connection: Connection, day: date) -> object:
    return day.isoformat() if connection.dialect.name == "sqlite" else day


def _day(found: date | str) -> date:
    return date.fromisoformat(found) if isinstance(found, str) else found
