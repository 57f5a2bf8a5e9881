"""Tracking of runs behind one interface. The only place that imports MLflow."""

from forex_core.databases import DatabaseCopy
from forex_core.tracking.archived import ArchivedStore
from forex_core.tracking.base import NoopTracker, RunStatus, Tracker
from forex_core.tracking.build import build_tracker_from_config, runs_from_settings, tracker_from_settings
from forex_core.tracking.candidacy import Candidacy, has_champion, prepare_store
from forex_core.tracking.copies import copy_database, relocate
from forex_core.tracking.health import begun_ahead
from forex_core.tracking.mlflow_tracker import MLflowTracker
from forex_core.tracking.orphans import RunningRun, sweep
from forex_core.tracking.queries import AUDIT, StoredRuns
from forex_core.tracking.records import (
    ALARM_TAG,
    ENTRY_TAG,
    LEDGER_TAG,
    OUTCOME_TAG,
    Record,
    forecast_record,
    live_record,
)
from forex_core.tracking.registry import (
    Registry,
    Standing,
    Version,
    model_name,
    registry_from_settings,
)
from forex_core.tracking.rollback import (
    Plan,
    Succession,
    latest_snapshot,
    named,
    to_promote,
    to_roll_back,
)
from forex_core.tracking.service import MLflowConfig
from forex_core.tracking.spool import Replayed, replay_spool, short_id
from forex_core.tracking.store import open_store, store_lock

__all__ = [
    "ALARM_TAG",
    "AUDIT",
    "ENTRY_TAG",
    "LEDGER_TAG",
    "OUTCOME_TAG",
    "ArchivedStore",
    "Candidacy",
    "DatabaseCopy",
    "MLflowConfig",
    "MLflowTracker",
    "NoopTracker",
    "Plan",
    "Record",
    "Registry",
    "Replayed",
    "RunStatus",
    "RunningRun",
    "Standing",
    "StoredRuns",
    "Succession",
    "Tracker",
    "Version",
    "begun_ahead",
    "build_tracker_from_config",
    "copy_database",
    "forecast_record",
    "has_champion",
    "latest_snapshot",
    "live_record",
    "model_name",
    "named",
    "open_store",
    "prepare_store",
    "registry_from_settings",
    "relocate",
    "replay_spool",
    "runs_from_settings",
    "short_id",
    "store_lock",
    "sweep",
    "to_promote",
    "to_roll_back",
    "tracker_from_settings",
]
