"""Looking at it: what stands of the forecasts, as pages of a folder, as a served site, and as tables of a terminal."""

from forex_core.dashboard.reading import Reader
from forex_core.dashboard.site import Written, write_site
from forex_core.dashboard.sources import TrackedRuns
from forex_core.dashboard.tables import runs_document, runs_markdown, runs_tables

__all__ = ["Reader", "TrackedRuns", "Written", "runs_document", "runs_markdown", "runs_tables", "write_site"]
