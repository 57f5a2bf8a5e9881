"""Tracking of runs behind one interface. The only place that imports MLflow.

What needs the engine is in modules that are imported by their names: `candidacy`, `rollback`, `replay` and `records`.
"""

from forex_core.databases import DatabaseCopy
from forex_core.tracking.archived import ArchivedStore
from forex_core.tracking.base import NoopTracker, Record, RunStatus, Tracker
from forex_core.tracking.build import build_tracker_from_config, runs_from_settings, tracker_from_settings
from forex_core.tracking.copies import copy_database, relocate
from forex_core.tracking.health import begun_ahead
from forex_core.tracking.mlflow_tracker import MLflowTracker
from forex_core.tracking.orphans import RunningRun, sweep
from forex_core.tracking.queries import (
    ALARM_TAG,
    AUDIT,
    ENTRY_TAG,
    LEDGER_TAG,
    OUTCOME_TAG,
    StoredRuns,
)
from forex_core.tracking.registry import (
    Registry,
    Standing,
    Version,
    model_name,
    registry_from_settings,
)
from forex_core.tracking.service import MLflowConfig
from forex_core.tracking.spool import Replayed, replay_spool
from forex_core.tracking.store import open_store, store_lock

__all__ = [
    "ALARM_TAG",
    "AUDIT",
    "ENTRY_TAG",
    "LEDGER_TAG",
    "OUTCOME_TAG",
    "ArchivedStore",
    "DatabaseCopy",
    "MLflowConfig",
    "MLflowTracker",
    "NoopTracker",
    "Record",
    "Registry",
    "Replayed",
    "RunStatus",
    "RunningRun",
    "Standing",
    "StoredRuns",
    "Tracker",
    "Version",
    "begun_ahead",
    "build_tracker_from_config",
    "copy_database",
    "model_name",
    "open_store",
    "registry_from_settings",
    "relocate",
    "replay_spool",
    "runs_from_settings",
    "store_lock",
    "sweep",
    "tracker_from_settings",
]
