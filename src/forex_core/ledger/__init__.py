"""What was published, what came of it, and what that was worth."""

from forex_core.ledger.book import (
    Alarm,
    Audit,
    Ledger,
    Outcomes,
    Raised,
    Scored,
    Track,
    Trajectory,
    content_digest,
    unaccounted,
)
from forex_core.ledger.entry import Entry, Published
from forex_core.ledger.pending import Pending

__all__ = [
    "Alarm",
    "Audit",
    "Entry",
    "Ledger",
    "Outcomes",
    "Pending",
    "Published",
    "Raised",
    "Scored",
    "Track",
    "Trajectory",
    "content_digest",
    "unaccounted",
]
