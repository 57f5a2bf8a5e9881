"""What lives in the database of the store: observations, and the ledger of published forecasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forex_core.append_only import Part

VERSIONS = "schema_versions"
"""The table of the parts of the database and their versions."""
COUNTED = (
    ("observations", "observations", "observations"),
    ("ledger", "forecasts", "publications"),
    ("ledger", "outcomes", "outcomes"),
)
"""Part, what is counted of it, and its table."""


def store_parts() -> tuple[Part, ...]:
    """The parts that this program knows."""
    from forex_core.data.tables import PART as OBSERVATIONS  # SQLAlchemy: for whoever asks alone
    from forex_core.ledger.tables import PART as LEDGER

    return OBSERVATIONS, LEDGER
