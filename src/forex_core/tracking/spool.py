"""What a store could not take, kept in a folder until it can: one entry a run, replayed once.

    <spool>/<id>/run.json        which run, in which experiment, since when and why it is here
                 0001.json …     batches of params, metrics and tags; names of files and models; tags of versions of
                                 registered models; in order
                 0001/ …         their files
                 end.json        status and end time
    <spool>/<id>.lock            held by the process that writes or replays the entry

Every file gets its name when it is whole, and a JSON after the files that it names, so that a kill leaves nothing
that a replay would take for more than it is.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout
from loguru import logger

from forex_core.databases import told
from forex_core.errors import TrackingError
from forex_core.tracking.store import (
    ExperimentRow,
    experiment_id,
    open_with_experiments,
    store_lock,
    translated,
)
from forex_core.tracking.values import MAX_TAG, Batch, Point
from forex_core.tracking.writing import log_model, send

if TYPE_CHECKING:
    from mlflow import MlflowClient

VERSION = 1
SPOOLED_TAG = "spooled"
SPOOL_ID_TAG = "spool_id"
DESCRIPTION_TAG = "mlflow.note.content"
REPLAY_WAIT_S = 600.0
_HEADER, _END, _WRITTEN = "run.json", "end.json", "written"
_REMOVED = ".removed-"
_PREFIX = "spooled-"


@dataclass(frozen=True)
class SpooledRun:
    """What is known of a run when its spooling begins; times in milliseconds since 1970.

    `run_id` is None for a run that could not be created.
    """

    spool_id: str
    run_id: str | None
    experiment: str
    experiment_tags: Mapping[str, str]
    artifact_root: str | None
    run_name: str | None
    tags: Mapping[str, str]
    start_time: int
    reason: str


@dataclass(frozen=True)
class Replayed:
    """What became of one entry. `kept` ones are still in the spool, for the reason given."""

    spool_id: str
    run_id: str | None
    outcome: Literal["logged", "kept", "in use"]
    reason: str | None = None


class SpoolEntry:
    """The entry of one run while it is written.

    Raises:
        OSError: when the folder cannot be written.
    """

    def __init__(self, spool: Path, run: SpooledRun) -> None:
        spool.mkdir(parents=True, exist_ok=True)
        self.path = spool / run.spool_id
        self._count = 0
        self._lock = _lock_of(self.path)
        self._lock.acquire(timeout=0)
        self.path.mkdir()
        _write(self.path / _HEADER, {"version": VERSION, **asdict(run)})

    def add_batch(self, batch: Batch) -> None:
        self._add({"kind": "batch", **_document(batch)})

    def add_file(self, file: Path, artifact_path: str | None) -> None:
        shutil.copy2(file, self._files() / file.name)
        self._add({"kind": "files", "artifact_path": artifact_path})

    def add_folder(self, folder: Path, artifact_path: str | None) -> None:
        shutil.copytree(folder, self._files(), dirs_exist_ok=True)
        self._add({"kind": "files", "artifact_path": artifact_path})

    def add_model(self, folder: Path, name: str, mark: str) -> None:
        """`mark` names the model apart from all others, so that it is logged once."""
        shutil.copytree(folder, self._files(), dirs_exist_ok=True)
        self._add({"kind": "model", "name": name, "mark": mark})

    def add_version_tag(self, model: str, version: int, tag: str, value: str) -> None:
        self._add({"kind": "version_tag", "model": model, "version": version, "tag": tag, "value": value})

    def end(self, status: str, end_time: int) -> None:
        _write(self.path / _END, {"status": status, "end_time": end_time})
        self._lock.release()

    def _files(self) -> Path:
        folder = self.path / f"{self._count + 1:04d}"
        shutil.rmtree(folder, ignore_errors=True)  # of an addition that failed half way
        folder.mkdir()
        return folder

    def _add(self, document: Mapping[str, Any]) -> None:
        _write(self.path / f"{self._count + 1:04d}.json", document)
        self._count += 1


def new_spool_id() -> str:
    return f"{_PREFIX}{uuid.uuid4().hex}"


def short_id(run_id: str) -> str:
    """The beginning of a run's id, or of that of its entry, which tells it from others.

    >>> short_id("276f7b0c" + 24 * "0"), short_id("spooled-276f7b0c" + 24 * "0")
    ('276f7b0c', 'spooled-276f7b0c')
    """
    prefix = _PREFIX if run_id.startswith(_PREFIX) else ""
    return run_id[: len(prefix) + 8]


def replay_spool(
    spool: Path, uri: str, artifact_root: str | None = None, below: Path | None = None
) -> list[Replayed]:
    """Log every entry of the spool, once, with its own times, status, run name and tags, oldest first.

    Killed at any moment it can be run again and gives the same runs: what is logged already is found or replaced,
    and an entry goes only after all of it is in. A run that its own process left without an end (it was killed)
    becomes KILLED. The tag `spooled` gives the reason and `spool_id` the entry, by whose name the report of a run
    goes that could not be created then.

    Args:
        spool: the folder given to the trackers.
        uri: the store to log to; `artifact_root` and `below` as for `open_store`.

    Raises:
        TrackingError: when the store cannot be used at all, or another replay is running.
    """
    if not _entries(spool):
        _sweep(spool)
        return []
    with store_lock(uri, "replay", REPLAY_WAIT_S, folder=spool):
        _sweep(spool)
        client, experiments = open_with_experiments(uri, artifact_root, below)
        return [_replay(path, client, experiments, uri, artifact_root) for path in _entries(spool)]


def _replay(
    path: Path,
    client: MlflowClient,
    experiments: dict[str, ExperimentRow] | None,
    uri: str,
    artifact_root: str | None,
) -> Replayed:
    lock = _lock_of(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return Replayed(path.name, None, "in use", "the run that writes it has not ended")
    run_id = None
    try:
        header = _header(path)
        if header is None:
            _remove(path)
            return Replayed(path.name, None, "logged", "its process ended before anything was written")
        with translated(uri):
            run_id = _log(path, header, client, experiments, uri, artifact_root)
        _remove(path)
    except TrackingError as error:
        logger.warning("spooled run {} stays in {}: {}", path.name, path.parent, error)
        return Replayed(path.name, run_id, "kept", str(error))
    except (json.JSONDecodeError, TypeError, KeyError, UnicodeDecodeError) as error:
        reason = f"{path} cannot be read ({told(error)}); look into it and remove it"
        logger.warning("spooled run {} stays: {}", path.name, reason)
        return Replayed(path.name, run_id, "kept", reason)
    finally:
        lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)
    logger.info("spooled run {} is logged as {}", path.name, run_id)
    return Replayed(path.name, run_id, "logged")


def _header(path: Path) -> SpooledRun | None:
    """The header of an entry; None when its writer was killed before that."""
    if not (path / _HEADER).exists():
        return None
    document = _read(path / _HEADER)
    version = document.pop("version")
    if version != VERSION:
        raise TrackingError(f"{path} is of version {version}, this program reads version {VERSION}")
    return SpooledRun(**{name: value for name, value in document.items() if name != _WRITTEN})


def _log(
    path: Path,
    header: SpooledRun,
    client: MlflowClient,
    experiments: dict[str, ExperimentRow] | None,
    uri: str,
    artifact_root: str | None,
) -> str:
    """Bring one entry into the store; every step may have been done before."""
    root = artifact_root or header.artifact_root
    experiment = experiment_id(
        client, experiments, uri, header.experiment, artifact_root=root, tags=header.experiment_tags
    )
    run_id = _run_of(header, client, experiment)
    send(client, run_id, Batch(tags={SPOOLED_TAG: header.reason[:MAX_TAG], SPOOL_ID_TAG: header.spool_id}))
    last = header.start_time
    for document_path in sorted(path.glob("[0-9]*.json")):
        document = _read(document_path)
        last = max(last, document[_WRITTEN])
        files = document_path.with_suffix("")
        if document["kind"] == "batch":
            send(client, run_id, _batch(document))
        elif document["kind"] == "files":
            client.log_artifacts(run_id, str(files), document["artifact_path"])
        elif document["kind"] == "version_tag":
            _tag_version(client, document)
        else:
            log_model(client, experiment, run_id, files, document["name"], document["mark"], again=True)
    if (path / _END).exists():
        end = _read(path / _END)
        client.set_terminated(run_id, end["status"], end["end_time"])
    else:
        client.set_terminated(run_id, "KILLED", last)
    return run_id


def _tag_version(client: MlflowClient, document: Mapping[str, Any]) -> None:
    """Tag a version of a registered model; one that was deleted since needs no tag."""
    from mlflow.exceptions import MlflowException

    model, version = document["model"], str(document["version"])
    try:
        client.set_model_version_tag(model, version, document["tag"], document["value"])
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        logger.warning(
            "there is no version {} of {} any more to be tagged {}", version, model, document["tag"]
        )


def _run_of(header: SpooledRun, client: MlflowClient, experiment: str) -> str:
    """The run that the entry belongs to: the one begun in the store, the one of an earlier replay, or a new one."""
    from mlflow.exceptions import MlflowException

    if header.run_id:
        try:
            return str(client.get_run(header.run_id).info.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    found = client.search_runs([experiment], f"tags.{SPOOL_ID_TAG} = '{header.spool_id}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {**header.tags, SPOOL_ID_TAG: header.spool_id}
    created = client.create_run(experiment, header.start_time, tags, header.run_name)
    return str(created.info.run_id)


def _document(batch: Batch) -> dict[str, Any]:
    metrics = [[p.key, p.value, p.timestamp, p.step] for p in batch.metrics]
    return {"params": dict(batch.params), "metrics": metrics, "tags": dict(batch.tags)}


def _batch(document: Mapping[str, Any]) -> Batch:
    points = tuple(Point(*point) for point in document["metrics"])
    return Batch(document["params"], points, document["tags"])


def _entries(spool: Path) -> list[Path]:
    """Entries, oldest first."""
    if not spool.is_dir():
        return []
    found = [p for p in spool.iterdir() if p.is_dir() and not p.name.startswith(".")]
    return sorted(
        found, key=lambda path: (path / _HEADER if (path / _HEADER).exists() else path).stat().st_mtime
    )


def _sweep(spool: Path) -> None:
    """Finish removals that a kill interrupted."""
    if spool.is_dir():
        for path in spool.glob(f"{_REMOVED}*"):
            shutil.rmtree(path, ignore_errors=True)


def _remove(path: Path) -> None:
    """Under another name first: a kill leaves the entry whole or where no replay looks."""
    doomed = path.with_name(f"{_REMOVED}{path.name}")
    path.replace(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _lock_of(path: Path) -> FileLock:
    return FileLock(f"{path}.lock")


def _write(path: Path, document: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump({**document, _WRITTEN: int(time.time() * 1000)}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return document
