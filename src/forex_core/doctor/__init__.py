"""The examination behind `forex doctor`: one function a check, one line in `CHECKS`."""

from forex_core.doctor import machine, smoke, stores
from forex_core.doctor.base import (
    LEAST_S,
    LIMIT_S,
    Check,
    Checked,
    Finding,
    Patient,
    State,
    examine,
    is_waiting,
    summary,
)

__all__ = [
    "CHECKS",
    "LEAST_S",
    "LIMIT_S",
    "Check",
    "Checked",
    "Finding",
    "Patient",
    "State",
    "examine",
    "is_waiting",
    "summary",
]

STORE = "tracking store"
BASICS = "tracker basics"

CHECKS: tuple[Check, ...] = (
    Check("settings", machine.settings),
    Check("libraries", machine.libraries),
    Check("permissions", machine.permissions),
    Check("disk", machine.disk),
    Check("clock", machine.clock),
    Check(STORE, stores.tracking_store),
    Check("run files", stores.run_files, (STORE,)),
    Check("orphaned runs", stores.orphaned_runs, (STORE,)),
    Check("spool", stores.spool),
    Check("forecasts", stores.forecasts, (STORE,)),
    Check("observation store", stores.observation_store),
    Check("ledger", stores.ledger),
    Check("data sources", stores.data_sources),
    Check("backups", stores.backups),
    Check("notification", stores.notification),
    Check("services", machine.services),
    Check(BASICS, smoke.tracker_basics),
    Check("context manager", smoke.context_manager, (BASICS,)),
    Check("artifact upload", smoke.artifact_upload, (BASICS,)),
    Check("configuration builder", smoke.configuration_builder, (BASICS,)),
)
