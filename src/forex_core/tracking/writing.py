"""How entries get into a store: a batch in as few writes as there can be, a model with its files."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from forex_core.errors import TrackingError
from forex_core.secrecy import told
from forex_core.tracking.store import open_engine, store_errors
from forex_core.tracking.values import Batch, Point, requests

if TYPE_CHECKING:
    from mlflow import MlflowClient

KNOWN_TABLES = ("3.17.2",)
"""Versions of MLflow whose tables `write` may fill by itself; with others it goes through the client."""
ENTRY_TAG = "spool_entry"
_RUN_NAME_TAG = "mlflow.runName"
_OF_THE_PLACE = frozenset(
    {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.ELOOP, errno.ENOENT}
)
"""Errors of a file or of the place that it is to go to. They last, unlike those of a disk that is full or away."""


@dataclass
class Written:
    """Keys that a run has in the store, as far as this process wrote them; it has no others."""

    params: set[str] = field(default_factory=set)
    metrics: set[str] = field(default_factory=set)
    tags: set[str] = field(default_factory=set)

    def add(self, batch: Batch) -> None:
        self.params.update(batch.params)
        self.metrics.update(point.key for point in batch.metrics)
        self.tags.update(batch.tags)


def write(client: MlflowClient, uri: str, run_id: str, batch: Batch, written: Written) -> None:
    """Log a batch of a run that this process began.

    MLflow's own way takes three transactions and, for a hundred entries, some 15 ms of its object mapper. What is
    known to be new is therefore inserted in one transaction, through the tables that MLflow declares; where that
    is not so, or on a server, or with another MLflow, the client does it.
    """
    if not _inserted(uri, run_id, batch, written):
        send(client, run_id, batch)
    written.add(batch)


def _inserted(uri: str, run_id: str, batch: Batch, written: Written) -> bool:
    engine = open_engine(uri)
    again = any(point.key in written.metrics for point in batch.metrics)
    if engine is None or again or _RUN_NAME_TAG in batch.tags:
        return False
    from mlflow.store.tracking.dbmodels import models
    from mlflow.version import VERSION
    from sqlalchemy.exc import IntegrityError

    if VERSION not in KNOWN_TABLES:
        return False

    params, metrics, latest, tags = (
        model.__table__
        for model in (models.SqlParam, models.SqlMetric, models.SqlLatestMetric, models.SqlTag)
    )
    newest: dict[str, Point] = {}
    for point in batch.metrics:
        held = newest.get(point.key)
        if held is None or _rank(point) > _rank(held):
            newest[point.key] = point

    def texts(entries: Mapping[str, str], but: set[str]) -> list[dict[str, Any]]:
        return [{"run_uuid": run_id, "key": k, "value": v} for k, v in entries.items() if k not in but]

    def points(entries: Any) -> list[dict[str, Any]]:
        return [
            {
                "run_uuid": run_id,
                "key": point.key,
                "value": point.value,
                "timestamp": point.timestamp,
                "step": point.step,
                "is_nan": False,
            }
            for point in entries
        ]

    rows = (
        (params, texts(batch.params, written.params)),
        (metrics, points(dict.fromkeys(batch.metrics))),
        (latest, points(newest.values())),
        (tags, texts(batch.tags, written.tags)),
    )
    try:
        with engine.begin() as connection:
            for table, values in rows:
                if values:
                    connection.execute(table.insert(), values)
            for key in batch.tags.keys() & written.tags:
                place = (tags.c.run_uuid == run_id) & (tags.c.key == key)
                connection.execute(tags.update().where(place).values(value=batch.tags[key]))
    except IntegrityError:  # someone else wrote to this run: MLflow knows how to merge
        return False
    return True


def _rank(point: Point) -> tuple[int, int, float]:
    """By which MLflow tells the latest value of a metric."""
    return point.step, point.timestamp, point.value


def send(client: MlflowClient, run_id: str, batch: Batch) -> None:
    """Log a batch through the client, in as few requests as it allows. The same batch may be sent again."""
    from mlflow.entities import Metric, Param, RunTag

    for request in requests(batch):
        client.log_batch(
            run_id,
            metrics=[Metric(p.key, p.value, p.timestamp, p.step) for p in request.metrics],
            params=[Param(key, value) for key, value in request.params.items()],
            tags=[RunTag(key, value) for key, value in request.tags.items()],
        )


def tag_version(client: MlflowClient, model: str, version: int, tag: str, value: str) -> None:
    """Tag a version of a registered model; one that is not there needs no tag, which is told."""
    from mlflow.exceptions import MlflowException

    try:
        client.set_model_version_tag(model, str(version), tag, value)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        logger.warning("there is no version {} of {} to be tagged {}", version, model, tag)


def check_place(artifact_path: str | None) -> None:
    """Refuse what MLflow refuses as an artifact path, which it does with the code of an internal error.

    Raises:
        TrackingError: it is no normal relative path.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact import artifact_repo

    of_mlflow: Any = artifact_repo  # without annotations of its own
    try:
        of_mlflow.verify_artifact_path(artifact_path)
    except MlflowException as error:
        raise TrackingError(
            f"found artifact path {artifact_path!r}, expected one such as reports/daily"
        ) from error


@contextmanager
def attaching() -> Iterator[None]:
    """Tell a file that has no place, for a name too long or a file where a folder should be, from an outage.

    Raises:
        TrackingError: trying again would not mend it.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_THE_PLACE and not isinstance(error, shutil.Error):
            raise
        raise TrackingError(
            f"nothing can be put there ({told(error)}); choose another name or artifact path"
        ) from error


def log_model(
    client: MlflowClient,
    experiment: str,
    run_id: str,
    folder: Path,
    name: str,
    entry: str | None = None,
    *,
    again: bool = False,
) -> str:
    """Log a saved MLflow model as one of the run's.

    Args:
        entry: a name of this model of one's own, kept as a tag.
        again: the same `entry` may have been logged before, in part or whole; it is completed, not doubled.

    Returns:
        Its URI, models:/m-….
    """
    from mlflow.entities import LoggedModelOutput

    model = None
    if again:
        found = client.search_logged_models([experiment], f"tags.{ENTRY_TAG} = '{entry}'", max_results=1)
        model = found[0] if found else None
    if model is None:
        tags = {ENTRY_TAG: entry} if entry else None
        model = client.create_logged_model(experiment, name=name, source_run_id=run_id, tags=tags)
    model_id = str(model.model_id)
    try:
        client.log_model_artifacts(model_id, str(folder))
    except store_errors():
        with suppress(*store_errors()):
            client.finalize_logged_model(model_id, "FAILED")
        raise
    client.finalize_logged_model(model_id, "READY")
    outputs = client.get_run(run_id).outputs if again else None
    if not outputs or all(output.model_id != model_id for output in outputs.model_outputs):
        client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])
    return f"models:/{model_id}"
