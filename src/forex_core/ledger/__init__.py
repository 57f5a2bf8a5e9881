"""What was published, what came of it, and what that was worth."""

from forex_core.ledger.book import Audit, Ledger, Outcomes, Scored, Track, Trajectory
from forex_core.ledger.entry import Entry, Published

__all__ = ["Audit", "Entry", "Ledger", "Outcomes", "Published", "Scored", "Track", "Trajectory"]
