"""The tables of the ledger."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import sqlalchemy as sa

from forex_core.append_only import DAY, NUMBER, Instant, Part
from forex_core.errors import LedgerError, LedgerUnavailable

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

metadata = sa.MetaData()
publications = sa.Table(
    "publications",
    metadata,
    sa.Column("number", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("run_id", sa.Text, nullable=False, unique=True),
    sa.Column("pair", sa.Text, nullable=False),
    sa.Column("rate", sa.Text, nullable=False),
    sa.Column("horizon", sa.Text, nullable=False),
    sa.Column("origin", DAY, nullable=False),
    sa.Column("as_of", Instant, nullable=False),
    sa.Column("published_at", Instant, nullable=False),
    sa.Column("recorded_at", Instant, nullable=False),
    # When its first outcome was released, and whether it was published before; what was not is no track record.
    sa.Column("outcome_at", Instant, nullable=False),
    sa.Column("live", sa.Boolean, nullable=False),
    sa.Column("close", sa.Double, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.Integer),
    sa.Column("recipe", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    # Lists as JSON, in the order of the columns of `predictions`.
    sa.Column("levels", sa.Text, nullable=False),
    sa.Column("members", sa.Text, nullable=False),
    sa.Column("weights", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Index("publications_by_origin", "pair", "rate", "horizon", "origin", "number"),
)
predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("publication", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("target_date", DAY, nullable=False),
    # Lists as JSON: by level, of the ensemble and of the random walk; by member.
    sa.Column("quantiles", sa.Text, nullable=False),
    sa.Column("walk", sa.Text, nullable=False),
    sa.Column("medians", sa.Text, nullable=False),
    sa.Index("predictions_by_date", "target_date", "publication"),
    sqlite_with_rowid=False,
)
outcomes = sa.Table(
    "outcomes",
    metadata,
    sa.Column("number", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("pair", sa.Text, nullable=False),
    sa.Column("rate", sa.Text, nullable=False),
    sa.Column("target_date", DAY, nullable=False),
    # None where it was withdrawn: what had been accepted of that day is not any more.
    sa.Column("value", sa.Double),
    sa.Column("known_at", Instant, nullable=False),
    # The instant whose knowledge it is: what was known earlier revises nothing.
    sa.Column("as_of", Instant, nullable=False),
    sa.Column("recorded_at", Instant, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Index("outcomes_by_date", "pair", "rate", "target_date", "number"),
)
scores = sa.Table(
    "scores",
    metadata,
    sa.Column("publication", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("outcome", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("error", sa.Double, nullable=False),
    sa.Column("crps", sa.Double, nullable=False),
    sa.Column("inside_80", sa.Boolean, nullable=False),
    sa.Column("inside_95", sa.Boolean, nullable=False),
    sa.Column("walk_error", sa.Double, nullable=False),
    sa.Column("walk_crps", sa.Double, nullable=False),
    sa.Column("walk_inside_80", sa.Boolean, nullable=False),
    sa.Column("walk_inside_95", sa.Boolean, nullable=False),
    sqlite_with_rowid=False,
)
alarms = sa.Table(
    "alarms",
    metadata,
    sa.Column("number", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("pair", sa.Text, nullable=False),
    sa.Column("rate", sa.Text, nullable=False),
    sa.Column("horizon", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("origin", DAY, nullable=False),
    sa.Column("raised_at", Instant, nullable=False),
    sa.Column("statistic", sa.Double, nullable=False),
    sa.Column("threshold", sa.Double, nullable=False),
    sa.Column("found", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.UniqueConstraint("pair", "rate", "horizon", "kind", "step", "origin"),
)
tellings = sa.Table(
    "tellings",
    metadata,
    # Of an alarm that somebody has heard of.
    sa.Column("alarm", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("told_at", Instant, nullable=False),
)
PART = Part(
    name="ledger",
    version=1,
    metadata=metadata,
    kept=(publications, predictions, outcomes, scores, alarms, tellings),
    noun="ledger",
    renewal="export it with the version that made it, then name a new one",
    unavailable=LedgerUnavailable,
    refused=LedgerError,
)


def bound(connection: Connection, day: date) -> object:
    """A day as a database takes it."""
    return day.isoformat() if connection.dialect.name == "sqlite" else day


def day_of(found: date | str) -> date:
    """A day as a database gives it."""
    return date.fromisoformat(found) if isinstance(found, str) else found
