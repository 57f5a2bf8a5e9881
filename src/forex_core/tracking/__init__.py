"""Tracking of runs behind one interface. The only place that imports MLflow."""

from forex_core.tracking.base import NoopTracker, Tracker
from forex_core.tracking.mlflow_tracker import MLflowTracker, open_store
from forex_core.tracking.records import Record, forecast_record

__all__ = ["MLflowTracker", "NoopTracker", "Record", "Tracker", "forecast_record", "open_store"]
