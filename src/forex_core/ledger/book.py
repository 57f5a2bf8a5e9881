"""The ledger: every forecast that was published, what came, and what each forecast was worth. Nothing is ever changed.

A correction is a new row. Publications form a chain, each digest covering the one before, and so do outcomes: a row
that was changed, removed or put in between is found by `verify`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from forex_core.append_only import text_of
from forex_core.errors import LedgerError
from forex_core.ledger import tables
from forex_core.ledger.chain import (
    INSTANTS,
    START,
    content_digest,
    content_of,
    digest_of,
    outcome_row,
    rows_of,
)
from forex_core.ledger.entry import Entry, Published
from forex_core.ledger.reading import (
    LedgerReader,
    awaited,
    last_of,
    latest_outcomes,
    of_same_outcome,
    outcomes_by_day,
    path_of,
    published_of,
)
from forex_core.ledger.scoring import score
from forex_core.ledger.tables import bound, day_of
from forex_core.ledger.values import Alarm, Outcomes, Raised, Scored
from forex_core.ledger.verification import Audit, all_rows, audited
from forex_core.types import Array, Horizon, MarketBundle, Pair

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_PORTION = 500
_DOUBTED = frozenset({"refuted", "held"})
"""Repairs of a rate whose print is there and is not believed."""
_P, _R, _S, _A = (
    table.c for table in (tables.publications, tables.predictions, tables.scores, tables.alarms)
)
_ALARM_KEY = ("pair", "rate", "horizon", "kind", "step", "origin")


class Ledger(LedgerReader):
    """The ledger of one database, to be written, read and verified; errors as of `LedgerReader`."""

    def append(self, entry: Entry, now: pd.Timestamp | None = None) -> Published:
        """Write a forecast; of a run that is there already nothing is written.

        Raises:
            LedgerError: the run is there with another forecast.
        """
        row, rows = rows_of(entry)
        with self._database.writing() as connection:
            there = connection.execute(
                sa.select(tables.publications).where(_P.run_id == entry.run_id)
            ).one_or_none()
            if there is not None:
                path = connection.execute(path_of(there.number)).all()
                if content_digest(entry) != content_of(there, path):
                    raise LedgerError(
                        f"the ledger {self.address} has another forecast of run {entry.run_id}, and changes none; "
                        "publish a correction in a run of its own"
                    )
                return published_of(there)
            last = last_of(connection, tables.publications)
            number, previous = (last.number + 1, last.digest) if last else (1, START)
            at = _instant(now)
            digest = digest_of(previous, text_of(at), row, rows)
            instants = {name: getattr(entry, name) for name in INSTANTS}
            connection.execute(
                tables.publications.insert().values(
                    row
                    | instants
                    | {"number": number, "previous": previous, "digest": digest, "recorded_at": at}
                    | {"origin": bound(connection, entry.origin)}
                )
            )
            connection.execute(
                tables.predictions.insert(),
                [
                    one | {"publication": number, "target_date": bound(connection, day)}
                    for one, day in zip(rows, entry.target_dates, strict=True)
                ],
            )
            return published_of(
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
            wanted = awaited(connection, pair, rate)
            known = outcomes_by_day(connection, pair, rate)
            last = last_of(connection, tables.outcomes)
            number, previous = (last.number, last.digest) if last else (0, START)
            for day, value, since in zip(days, values, known_at, strict=True):
                before, came = known.get(day), float(value) if np.isfinite(value) else None
                if day not in wanted or (came is None and before is None):
                    continue
                if before is not None and (before.value == came or of <= before.as_of):
                    continue
                new, revised = new + (before is None), revised + (before is not None)
                number += 1
                row = outcome_row(pair, rate, day, came, since, of, at)
                digest = digest_of(previous, row)
                connection.execute(
                    tables.outcomes.insert().values(
                        number=number,
                        pair=str(pair),
                        rate=rate,
                        target_date=bound(connection, day),
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
            latest = latest_outcomes()
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
                .join(latest, of_same_outcome(latest))
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
                published = published_of(head)
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
                        target_date=day_of(row.target_date),
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

    def raise_alarm(
        self, pair: Pair, rate: str, horizon: Horizon | None, alarm: Alarm, now: pd.Timestamp | None = None
    ) -> None:
        """Keep an alarm; one that is there already stays as it is."""
        with self._database.writing() as connection:
            row = _alarm_row(connection, pair, rate, horizon, alarm)
            there = sa.select(_A.found).where(*(_A[name] == row[name] for name in _ALARM_KEY))
            if connection.execute(there).one_or_none() is not None:
                return
            last, at = last_of(connection, tables.alarms), _instant(now)
            number, previous = (last.number + 1, last.digest) if last else (1, START)
            told = row | {"origin": alarm.origin.isoformat(), "raised_at": text_of(at)}
            connection.execute(
                tables.alarms.insert().values(
                    row
                    | {"number": number, "raised_at": at}
                    | {"previous": previous, "digest": digest_of(previous, told)}
                )
            )

    def told(self, alarms: Sequence[Raised], now: pd.Timestamp | None = None) -> None:
        """Note that somebody has heard of alarms."""
        number, at = tables.tellings.c.alarm, _instant(now)
        with self._database.writing() as connection:
            known = {*connection.scalars(sa.select(number))}
            new = sorted({one.number for one in alarms} - known)
            if new:
                connection.execute(tables.tellings.insert(), [{"alarm": one, "told_at": at} for one in new])

    def verify(
        self, anchors: Collection[tuple[str, str]] = (), vouched: Collection[str] | None = None
    ) -> Audit:
        """Read everything and compare it with its digests.

        Args:
            anchors: runs with a digest that they recorded; they tell of an end that was cut off.
            vouched: the `content_digest` that each run recorded when it was published; None where runs record nothing.
                A forecast that was written after its first outcome was released needs one, or it may be made up.
        """
        with self._database.reading() as connection:
            written = all_rows(connection)
        return audited(written, anchors, vouched)


def _known(connection: Connection, query: sa.Select[Any], column: Any, keys: Sequence[int]) -> Iterator[Any]:
    for k in range(0, len(keys), _PORTION):
        yield from connection.execute(query.where(column.in_(keys[k : k + _PORTION])))


def _alarm_row(
    connection: Connection, pair: Pair, rate: str, horizon: Horizon | None, alarm: Alarm
) -> dict[str, Any]:
    told = asdict(alarm) | {"origin": bound(connection, alarm.origin)}
    return told | {"pair": str(pair), "rate": rate, "horizon": str(horizon) if horizon else ""}


def _instant(given: pd.Timestamp | None) -> pd.Timestamp:
    return (given if given is not None else pd.Timestamp.now(tz="UTC")).tz_convert("UTC").floor("us")
