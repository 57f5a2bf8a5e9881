"""Runs in MLflow, through its client alone: no global active run, one batched write."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlparse

from filelock import FileLock, Timeout

from forex_core.errors import TrackingError
from forex_core.tracking.base import RunStatus
from forex_core.tracking.records import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
FIRST_START_LIMIT_S = 120
MAX_TAG = 5000
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""What MLflow reads when it is imported: it reports nothing home and draws nothing on the terminal."""


class MLflowTracker:
    """A tracker on an MLflow store.

    Args:
        tracking_uri: the store's address, such as sqlite:////path/mlflow.db; its folder is made if need be.
        experiment_name: the experiment, made on first use.
        artifact_location: where a new experiment keeps its files, as a URI; below it one folder an experiment.
        experiment_tags: tags of a new experiment.
        tags: tags of every run, known before it starts; a failed run has them too.
        auto_start_run: start a run on entering the context.
        run_name: name of a run that is started without one.

    Raises:
        TrackingError: when the store cannot be opened or written.
    """

    def __init__(
        self,
        tracking_uri: str,
        experiment_name: str,
        auto_start_run: bool = False,
        run_name: str | None = None,
        *,
        artifact_location: str | None = None,
        experiment_tags: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self._uri = tracking_uri
        self._name = experiment_name
        self._auto_start = auto_start_run
        self._run_name = run_name
        self._artifacts = artifact_location
        self._experiment_tags = dict(experiment_tags or {})
        self._tags = dict(tags or {})
        self._opened: MlflowClient | None = None
        self._run_id: str | None = None
        self._active = False

    @property
    def run_id(self) -> str | None:
        return self._run_id

    def start_run(self, run_name: str | None = None, description: str | None = None) -> str:
        if self._active and self._run_id:
            return self._run_id
        tags = dict(self._tags)
        if description:
            tags["mlflow.note.content"] = description
        with _translated(self._uri):
            created = self._client.create_run(
                self._experiment(), run_name=run_name or self._run_name, tags=tags
            )
        self._run_id, self._active = str(created.info.run_id), True
        return self._run_id

    def log(self, record: Record) -> None:
        from mlflow.entities import Metric, Param, RunTag

        run_id = self._require_run()
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, 0) for name, value in record.metrics.items()]
        for name, values in record.stepped.items():
            metrics += [Metric(name, value, now, step) for step, value in enumerate(values, start=1)]
        with _translated(self._uri):
            self._client.log_batch(
                run_id,
                metrics=metrics,
                params=[Param(name, value) for name, value in record.params.items()],
                tags=[RunTag(name, value[:MAX_TAG]) for name, value in record.tags.items()],
            )

    def log_artifacts_dir(self, folder: Path, artifact_path: str | None = None) -> None:
        with _translated(self._uri):
            self._client.log_artifacts(self._require_run(), str(folder), artifact_path)

    def end_run(self, status: RunStatus = "FINISHED") -> None:
        if self._active and self._run_id:
            with _translated(self._uri):
                self._client.set_terminated(self._run_id, status)
            self._active = False

    def find_run(self, tags: Mapping[str, str]) -> str | None:
        wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        with _translated(self._uri):
            found = self._client.search_runs(
                [self._experiment()],
                f"attributes.status = 'FINISHED' and {wanted}",
                order_by=["attributes.start_time DESC"],
                max_results=1,
            )
        return str(found[0].info.run_id) if found else None

    def read_text(self, run_id: str, artifact_path: str) -> str | None:
        import mlflow.artifacts

        with _translated(self._uri):
            uri = f"{self._client.get_run(run_id).info.artifact_uri}/{artifact_path}"
            try:
                return str(mlflow.artifacts.load_text(uri))
            except OSError:
                return None

    def __enter__(self) -> Self:
        if self._auto_start:
            self.start_run()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.end_run()
            return
        if not self._active:
            self.start_run()
        message = " ".join(str(error).split())
        self.log(
            Record(tags={"error_type": type(error).__name__, "error_message": message, "status": "failed"})
        )
        self.end_run("FAILED" if isinstance(error, Exception) else "KILLED")

    @property
    def _client(self) -> MlflowClient:
        if self._opened is None:
            self._opened = open_store(self._uri)
        return self._opened

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self._name)
        if found is None:
            location = f"{self._artifacts.rstrip('/')}/{self._name}" if self._artifacts else None
            try:
                return str(self._client.create_experiment(self._name, location, self._experiment_tags))
            except MlflowException as error:
                # Another process was first.
                found = self._client.get_experiment_by_name(self._name)
                if found is None:
                    raise TrackingError(f"experiment {self._name} cannot be made: {error}") from error
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"experiment {self._name} was deleted in {self._uri}; restore it with "
                f"'mlflow experiments restore -x {found.experiment_id}'"
            )
        return str(found.experiment_id)

    def _require_run(self) -> str:
        if not (self._active and self._run_id):
            raise TrackingError("no run is active; start one before logging")
        return self._run_id


def open_store(uri: str) -> MlflowClient:
    """A client of the store at `uri`, which is made and brought to MLflow's schema by one process at a time.

    Raises:
        TrackingError: when the folder cannot be written or the database cannot be opened.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with _translated(uri):
        from mlflow import MlflowClient

        if not uri.startswith(SQLITE):
            return MlflowClient(uri)
        path = Path(uri.removeprefix(SQLITE))
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_migrated(path):
            return MlflowClient(uri)
        # Two first starts at once would run the migrations against each other.
        with FileLock(f"{path}.lock", timeout=FIRST_START_LIMIT_S):
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
        return client


def _is_migrated(path: Path) -> bool:
    """Whether a first start has finished: WAL, which lasts in the file, is its last step."""
    if not path.exists():
        return False
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Third-party errors of the store as `TrackingError`, with its address."""
    try:
        yield
    except _store_errors() as error:
        reason = " ".join(str(error).split())[:500]
        raise TrackingError(
            f"the tracking store {_without_password(uri)} could not be used ({type(error).__name__}: {reason}); "
            "check that it exists, is writable and is not locked"
        ) from error


def _store_errors() -> tuple[type[BaseException], ...]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, Timeout)


def _without_password(uri: str) -> str:
    password = urlparse(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri
