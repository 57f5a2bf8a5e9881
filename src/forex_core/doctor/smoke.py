"""The smoke test: the trackers do what they promise, in a store of the examination's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from forex_core.config import STORE_NAMES
from forex_core.doctor.base import Finding, Patient

if TYPE_CHECKING:
    from forex_core.tracking import MLflowTracker

EXPERIMENT = "doctor"


def _uri(patient: Patient) -> str:
    return f"sqlite:///{patient.scratch / 'mlflow.db'}"


def _tracker(patient: Patient) -> MLflowTracker:
    from forex_core.tracking import MLflowTracker

    return MLflowTracker(_uri(patient), EXPERIMENT, artifact_location=(patient.scratch / "files").as_uri())


def tracker_basics(patient: Patient) -> Finding:
    """A run is begun, logged and ended, and says afterwards what it was told."""
    from forex_core.tracking import open_store

    tracker = _tracker(patient)
    run_id = tracker.start_run("smoke test")
    tracker.log_params({"costs": {"spread": 0.4}})
    tracker.log_metrics({"rmse": 12.5}, step=1)
    tracker.set_tags({"kind": "smoke"})
    tracker.end_run()
    run = open_store(_uri(patient)).get_run(run_id)
    data = run.data
    found = (run.info.status, data.params, data.metrics, data.tags.get("kind"))
    expected = ("FINISHED", {"costs.spread": "0.4"}, {"rmse": 12.5}, "smoke")
    return _compared(found, expected, "a run was logged and read")


def context_manager(patient: Patient) -> Finding:
    """An error within a run passes through, and the run says which."""
    from forex_core.tracking import open_store

    tracker = _tracker(patient)
    passed = False
    try:
        with tracker:
            raise ArithmeticError("of the smoke test")
    except ArithmeticError:
        passed = True
    run = open_store(_uri(patient)).get_run(str(tracker.run_id))
    found = (passed, run.info.status, run.data.tags.get("error_type"))
    return _compared(found, (True, "FAILED", "ArithmeticError"), "an error ended its run and was raised")


def artifact_upload(patient: Patient) -> Finding:
    """A file that is attached to a run comes back as it was."""
    import os

    sent = patient.scratch / "sent.bin"
    sent.write_bytes(os.urandom(100_000))
    with _tracker(patient) as tracker:
        tracker.log_artifact(sent, "reports")
    from forex_core.tracking import open_store

    folder = patient.scratch / "back"
    folder.mkdir()
    back = open_store(_uri(patient)).download_artifacts(str(tracker.run_id), "reports/sent.bin", str(folder))
    return _compared(Path(back).read_bytes() == sent.read_bytes(), True, "a file came back as it was sent")


def configuration_builder(patient: Patient) -> Finding:
    """A tracker is built as its configuration says; one that cannot be used gives the tracker that does nothing."""
    from forex_core.tracking import build_tracker_from_config

    store = dict.fromkeys(STORE_NAMES, _uri(patient))
    store["artifact_uri"] = (patient.scratch / "files").as_uri()
    built = [
        type(build_tracker_from_config({"backend": "mlflow", "mlflow": store})).__name__,
        type(build_tracker_from_config({"backend": "noop"})).__name__,
        type(build_tracker_from_config({"enabled": False})).__name__,
        type(build_tracker_from_config({"backend": "no such"})).__name__,
    ]
    expected = ["MLflowTracker", "NoopTracker", "NoopTracker", "NoopTracker"]
    return _compared(built, expected, "four configurations gave the trackers that they ask for")


def _compared(found: object, expected: object, told: str) -> Finding:
    if found == expected:
        return Finding("ok", told)
    return Finding(
        "failed", f"found {found}, expected {expected}", "install again with the constraints, and try again"
    )
