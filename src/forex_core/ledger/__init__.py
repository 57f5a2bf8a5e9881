"""What was published, what came of it, and what that was worth."""

from forex_core.ledger.book import Ledger
from forex_core.ledger.chain import content_digest
from forex_core.ledger.entry import Entry, Published
from forex_core.ledger.pending import Pending
from forex_core.ledger.values import Alarm, Outcomes, Raised, Scored, Track, Trajectory
from forex_core.ledger.verification import Audit, unaccounted

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
