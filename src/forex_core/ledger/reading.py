"""What a ledger says: forecasts, paths, outcomes, track records and alarms. Nothing is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from forex_core.append_only import AppendOnlyDatabase
from forex_core.errors import LedgerError
from forex_core.ledger import tables
from forex_core.ledger.entry import Published
from forex_core.ledger.tables import bound, day_of
from forex_core.ledger.values import Alarm, Raised, Track, Trajectory
from forex_core.types import Array, Horizon, Mask, Pair, own_id

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_P, _R, _O, _S, _A = (
    table.c
    for table in (tables.publications, tables.predictions, tables.outcomes, tables.scores, tables.alarms)
)
_STANDS_FIRST = (_P.live.desc(), _P.published_at.desc(), _P.number.desc())
"""Of several forecasts of one origin."""


class LedgerReader:
    """What was published, what came and what was noticed, asked of the ledger of one database; `Ledger` also writes it.

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
                published_of(
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
                if last is not None and day_of(last) >= day:
                    continue
                query = (
                    sa.select(_R.target_date)
                    .join(tables.publications, _P.number == _R.publication)
                    .where(_P.pair == str(pair), _P.rate == rate, _P.live == sa.true())
                    .where(_R.target_date <= bound(connection, day))
                    .order_by(_R.target_date)
                    .limit(1)
                )
                first = connection.scalar(query if last is None else query.where(_R.target_date > last))
            if first is not None:
                found.append((pair, rate, day_of(first)))
        return tuple(found)

    def up_to(self, pair: Pair, rate: str, horizon: Horizon, origin: date) -> tuple[Published, ...]:
        """Forecasts of an origin, that of `paths` first, and last that of `paths` of the newest origin before it."""
        kind = (_P.pair == str(pair), _P.rate == rate, _P.horizon == str(horizon))
        query = sa.select(tables.publications).where(*kind).order_by(_P.origin.desc(), *_STANDS_FIRST)
        with self._database.reading() as connection:
            day = bound(connection, origin)
            own = connection.execute(query.where(_P.origin == day)).all()
            before = connection.execute(query.where(_P.origin < day).limit(1)).all()
        return tuple(map(published_of, (*own, *before)))

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
                query = query.where(_P.origin == bound(connection, origin))
            query = query.order_by(_P.number.desc())
            found = connection.execute(query.limit(last) if last is not None else query).all()
            return tuple(published_of(row) for row in reversed(found))

    def of_run(self, beginning: str) -> tuple[Published, ...]:
        """Forecasts of the runs whose id, or what is its own of it, begins so; in the order of publication.

        Capital and small letters are the same, on SQLite as on PostgreSQL.
        """
        asked, run_id = beginning.lower(), sa.func.lower(_P.run_id)
        query = sa.select(tables.publications).where(
            run_id.startswith(asked, autoescape=True) | run_id.contains(f"-{asked}", autoescape=True)
        )
        with self._database.reading() as connection:
            found = map(published_of, connection.execute(query.order_by(_P.number)).all())
            return tuple(
                one
                for one in found
                if any(known.lower().startswith(asked) for known in (one.run_id, own_id(one.run_id)))
            )

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
                within.append(_P.origin >= bound(connection, first))
            if last is not None:
                within.append(_P.origin <= bound(connection, last))
            numbers = _standing(pair, rate, horizon, *within)
            heads = connection.execute(
                sa.select(tables.publications).where(_P.number.in_(numbers)).order_by(_P.origin)
            ).all()
            rows: dict[int, list[Any]] = {head.number: [] for head in heads}
            for row in connection.execute(_path_rows().where(_R.publication.in_(numbers))):
                rows[row.publication].append(row)
        return tuple(_trajectory(head, rows[head.number]) for head in heads)

    def rates(
        self, pair: Pair, rate: str, since: date | None = None, until: date | None = None
    ) -> tuple[Array, Array, Mask]:
        """Days and values of a rate, the oldest first: days [n] datetime64[D], values [n] in quote units, came [n].

        Outcomes as they were last revised; of other days, which did not come, the close that a forecast started from.
        It may have been carried over a day without a print.
        """
        latest = latest_outcomes()
        came = sa.select(latest.c.target_date, latest.c.value).where(
            latest.c.pair == str(pair), latest.c.rate == rate, latest.c.value.is_not(None)
        )
        closes = (
            sa.select(_P.origin, _P.close).where(_P.pair == str(pair), _P.rate == rate).order_by(_P.number)
        )
        with self._database.reading() as connection:
            if since is not None:
                day = bound(connection, since)
                came, closes = came.where(latest.c.target_date >= day), closes.where(_P.origin >= day)
            if until is not None:
                day = bound(connection, until)
                came, closes = came.where(latest.c.target_date <= day), closes.where(_P.origin <= day)
            began, outcomes = (
                {day_of(day): value for day, value in connection.execute(query)} for query in (closes, came)
            )
        values = began | outcomes
        days = sorted(values)
        return (
            np.array(days, dtype="M8[D]"),
            np.array([values[day] for day in days], dtype=np.float64),
            np.array([day in outcomes for day in days], dtype=bool),
        )

    def withdrawn(self, pair: Pair, rate: str) -> frozenset[date]:
        """Days of which what was recorded is believed no more."""
        latest = latest_outcomes()
        query = sa.select(latest.c.target_date).where(
            latest.c.pair == str(pair), latest.c.rate == rate, latest.c.value.is_(None)
        )
        with self._database.reading() as connection:
            return frozenset(map(day_of, connection.scalars(query)))

    def outcomes_of(self, pair: Pair, day: date) -> dict[str, float]:
        """What came on one date, in quote units, by rate."""
        latest = latest_outcomes()
        query = sa.select(latest.c.rate, latest.c.value).where(
            latest.c.pair == str(pair), latest.c.value.is_not(None)
        )
        with self._database.reading() as connection:
            found = connection.execute(query.where(latest.c.target_date == bound(connection, day))).all()
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
            rows = connection.execute(query.where(_R.target_date == bound(connection, day))).all()
        return tuple(
            (
                published_of(row),
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
        latest = latest_outcomes(until)
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
            .join(latest, of_same_outcome(latest))
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
                within.append(_P.origin >= bound(connection, since))
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
                        row.kind, row.step, day_of(row.origin), row.statistic, row.threshold, row.found
                    ),
                )
                for row in connection.execute(query)
            )

    def heads(self) -> tuple[str | None, str | None]:
        """The digests of the last outcome and of the last alarm, for `verify` to look for; None where there is none."""
        with self._database.reading() as connection:
            last = (last_of(connection, table) for table in (tables.outcomes, tables.alarms))
            outcome, alarm = (row.digest if row else None for row in last)
        return outcome, alarm


def latest_outcomes(until: pd.Timestamp | None = None) -> sa.Subquery:
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


def of_same_outcome(latest: sa.Subquery) -> sa.ColumnElement[bool]:
    """Whether a row of `latest_outcomes` is what came of a row of a path: of its pair, its rate and its target date."""
    return sa.and_(latest.c.pair == _P.pair, latest.c.rate == _P.rate, latest.c.target_date == _R.target_date)


def path_of(number: int) -> sa.Select[Any]:
    """The rows of the path of a forecast, in their order."""
    return sa.select(tables.predictions).where(_R.publication == number).order_by(_R.step)


def awaited(connection: Connection, pair: Pair, rate: str) -> frozenset[date]:
    """The target dates of all forecasts of a pair's rate."""
    query = (
        sa.select(_R.target_date)
        .distinct()
        .join(tables.publications, _P.number == _R.publication)
        .where(_P.pair == str(pair), _P.rate == rate)
    )
    return frozenset(day_of(day) for day in connection.scalars(query))


def outcomes_by_day(connection: Connection, pair: Pair, rate: str) -> dict[date, Any]:
    """The last row of each outcome of a pair's rate, withdrawn ones too."""
    query = sa.select(tables.outcomes).where(_O.pair == str(pair), _O.rate == rate).order_by(_O.number)
    return {day_of(row.target_date): row for row in connection.execute(query)}


def last_of(connection: Connection, table: sa.Table) -> Any:
    """The newest row of a table that is numbered; None of an empty one."""
    return connection.execute(sa.select(table).order_by(table.c.number.desc()).limit(1)).one_or_none()


def published_of(row: Any) -> Published:
    """A row of `publications` as a value."""
    return Published(
        number=row.number,
        run_id=row.run_id,
        pair=Pair.parse(row.pair),
        rate=row.rate,
        horizon=Horizon.parse(row.horizon),
        origin=day_of(row.origin),
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


def _standing(
    pair: Pair, rate: str, horizon: Horizon, *within: sa.ColumnElement[bool]
) -> sa.Select[tuple[int]]:
    """The number of the forecast of each origin that stands: the last that was published, a live one before others."""
    place = sa.func.row_number().over(partition_by=_P.origin, order_by=_STANDS_FIRST).label("place")
    kind = (_P.pair == str(pair), _P.rate == rate, _P.horizon == str(horizon))
    placed = sa.select(_P.number, place).where(*kind, *within).subquery("placed")
    return sa.select(placed.c.number).where(placed.c.place == 1)


def _path_rows() -> sa.Select[Any]:
    """The rows of paths, each with its outcome as `value` where that is known."""
    latest = latest_outcomes()
    return (
        sa.select(tables.predictions, latest.c.value)
        .join(tables.publications, _P.number == _R.publication)
        .outerjoin(latest, of_same_outcome(latest))
        .order_by(_R.publication, _R.step)
    )


def _of(query: sa.Select[Any], pair: Pair | None, horizon: Horizon | None) -> sa.Select[Any]:
    if pair is not None:
        query = query.where(_P.pair == str(pair))
    return query if horizon is None else query.where(_P.horizon == str(horizon))


def _trajectory(head: Any, rows: Sequence[Any]) -> Trajectory:
    medians = np.array([json.loads(row.medians) for row in rows])
    return Trajectory(
        of=published_of(head),
        levels=tuple(json.loads(head.levels)),
        steps=tuple(row.step for row in rows),
        target_dates=tuple(day_of(row.target_date) for row in rows),
        quantiles=np.array([json.loads(row.quantiles) for row in rows]),
        walk=np.array([json.loads(row.walk) for row in rows]),
        medians={name: medians[:, k] for k, name in enumerate(json.loads(head.members))},
        outcomes=np.array([np.nan if row.value is None else row.value for row in rows]),
    )


def _member_errors(members: Sequence[str], medians: Sequence[str], outcomes: Array) -> dict[str, Array]:
    found: dict[str, Array] = {}
    names_of: dict[str, list[str]] = {text: json.loads(text) for text in set(members)}
    for k, (text, middle) in enumerate(zip(members, medians, strict=True)):
        for name, median in zip(names_of[text], json.loads(middle), strict=True):
            if name not in found:
                found[name] = np.full(len(outcomes), np.nan)
            found[name][k] = outcomes[k] - median
    return found
