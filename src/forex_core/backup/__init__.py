"""Archives of a deployment: made while it runs, verified, restored, and kept for as long as the rules say."""

from forex_core.backup.archives import LATEST, Backups
from forex_core.backup.creating import Created, TrackedStore
from forex_core.backup.restoring import Restored
from forex_core.backup.retention import Archive, Pruned, Verified

__all__ = ["LATEST", "Archive", "Backups", "Created", "Pruned", "Restored", "TrackedStore", "Verified"]
