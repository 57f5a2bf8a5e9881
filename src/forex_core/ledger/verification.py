"""Whether a ledger is as it was written: its chains, what its scores follow from, and what runs say of it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from forex_core.append_only import text_of
from forex_core.ledger import tables
from forex_core.ledger.chain import START, alarm_read, content_of, digest_of, outcome_read, rows_read
from forex_core.ledger.scoring import score
from forex_core.ledger.tables import day_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_P, _R, _O, _A = (
    table.c for table in (tables.publications, tables.predictions, tables.outcomes, tables.alarms)
)


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


@dataclass(frozen=True)
class Rows:
    """All that a ledger holds but what was told: `paths` are of a publication's number, the others in their order."""

    heads: Sequence[Any]
    paths: Mapping[int, Sequence[Any]]
    came: Sequence[Any]
    alarms: Sequence[Any]
    scored: Sequence[Any]


def all_rows(connection: Connection) -> Rows:
    """Everything that was written, in the order in which its digests follow each other."""
    paths: dict[int, list[Any]] = {}
    for row in connection.execute(sa.select(tables.predictions).order_by(_R.publication, _R.step)):
        paths.setdefault(row.publication, []).append(row)
    return Rows(
        heads=connection.execute(sa.select(tables.publications).order_by(_P.number)).all(),
        paths=paths,
        came=connection.execute(sa.select(tables.outcomes).order_by(_O.number)).all(),
        alarms=connection.execute(sa.select(tables.alarms).order_by(_A.number)).all(),
        scored=connection.execute(sa.select(tables.scores)).all(),
    )


def audited(
    written: Rows, anchors: Collection[tuple[str, str]] = (), vouched: Collection[str] | None = None
) -> Audit:
    """What `Ledger.verify` finds in these rows."""
    heads, rows, came, scored = written.heads, written.paths, written.came, written.scored
    faults: list[str] = []
    faults += _broken(
        heads,
        "forecast",
        lambda row: digest_of(
            row.previous, text_of(row.recorded_at), *rows_read(row, rows.get(row.number, []))
        ),
    )
    faults += _broken(came, "outcome", lambda row: digest_of(row.previous, outcome_read(row)))
    faults += _broken(written.alarms, "alarm", lambda row: digest_of(row.previous, alarm_read(row)))
    faults += unaccounted(anchors, {row.digest for row in (*heads, *came, *written.alarms)})
    if vouched is not None:
        faults += _made_up(heads, rows, vouched)
    faults += _misjudged(scored, {row.number: row for row in heads}, rows, {row.number: row for row in came})
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
        head=heads[-1].digest if heads else START,
        faults=tuple(faults),
    )


def unaccounted(anchors: Collection[tuple[str, str]], known: Collection[str] = ()) -> list[str]:
    """Runs whose digest is none of those `known` to the ledger: by digest, for a run that was spooled has a new id."""
    return [
        f"run {run_id} recorded the digest {digest[:12]}…, and the ledger has none like it"
        for run_id, digest in anchors
        if digest not in known
    ]


def _broken(rows: Sequence[Any], what: str, digest: Any) -> Iterator[str]:
    """What is wrong with a chain."""
    previous, number = START, 0
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
        if was_late and content_of(head, rows.get(head.number, [])) not in vouched:
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
        revisions.setdefault((outcome.pair, outcome.rate, day_of(outcome.target_date)), []).append(outcome)
    removed, waiting = [], 0
    for head in heads:
        for one in rows.get(head.number, ()):
            of_date = revisions.get((head.pair, head.rate, day_of(one.target_date)), [])
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
