"""What a store could not take, kept in a folder until it can: one entry a run, replayed once.

    <spool>/<id>/run.json        which run, of which store and experiment, since when and why it is here
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
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout
from loguru import logger

from forex_core.databases import SQLITE, sqlite_path
from forex_core.errors import TrackingError
from forex_core.secrecy import told, without_password
from forex_core.tracking.queries import SPOOL_ID_TAG
from forex_core.tracking.store import experiment_id, lexical, open_with_experiments, store_lock, translated
from forex_core.tracking.values import MAX_TAG, Batch, Point
from forex_core.tracking.writing import attaching, log_model, send, tag_version
from forex_core.types import SPOOLED

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

VERSION = 2
SPOOLED_TAG = "spooled"
LOST_TAG = "records_lost"
DESCRIPTION_TAG = "mlflow.note.content"
REPLAY_WAIT_S = 600.0
_HEADER, _END, _WRITTEN = "run.json", "end.json", "written"
_REMOVED = ".removed-"


@dataclass(frozen=True)
class SpooledRun:
    """What is known of a run when its spooling begins; times in milliseconds since 1970.

    `store` is as `store_name` names it. `run_id` is None for a run that could not be created. `tags` are those that
    the store has taken before.
    """

    spool_id: str
    store: str
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
    """What became of one entry.

    `logged` has a reason where earlier records of the run are gone. What is `kept` is still in the spool, for the
    reason given: with a `run_id` no more than some of the run's files.
    """

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
        try:
            self.path.mkdir()
            _write(self.path / _HEADER, {"version": VERSION, **asdict(run)})
        except OSError:  # without its header it would be of no run
            shutil.rmtree(self.path, ignore_errors=True)
            self._lock.release()
            Path(self._lock.lock_file).unlink(missing_ok=True)
            raise

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
    return f"{SPOOLED}-{uuid.uuid4().hex}"


def store_name(uri: str, spool: Path) -> str:
    """A store as entries name it, without its password.

    A database below the folder that the spool lies in is named from there: that folder may be moved as a whole.

    >>> store_name("sqlite:////srv/data/mlflow/mlflow.db", Path("/srv/data/spool"))
    'mlflow/mlflow.db'
    >>> store_name("sqlite:////srv/mine.db", Path("/srv/data/spool"))
    'sqlite:////srv/mine.db'
    """
    path, home = sqlite_path(uri), lexical(spool).parent
    if path is None:
        return without_password(uri)
    place = lexical(path)
    return str(place.relative_to(home)) if place.is_relative_to(home) else f"{SQLITE}{place}"


def replay_spool(
    spool: Path,
    uri: str,
    artifact_root: str | None = None,
    below: Path | None = None,
    *,
    moved_from: str | None = None,
) -> list[Replayed]:
    """Log every entry that belongs to the store, once, with its own times, status, run name and tags, oldest first.

    Killed at any moment it can be run again and gives the same runs: what is logged already is found or replaced,
    and an entry goes only after all of it is in. Files that cannot be attached stay, and hold back nothing else.

    A run that its own process left without an end (it was killed) becomes KILLED. The tag `spooled` gives the reason
    and `spool_id` the entry, by whose name the report of a run goes that could not be created then. A run that the
    store has lost is made again with its name and tags; its tag `records_lost` says that the records from before its
    spooling are gone.

    Args:
        spool: the folder given to the trackers.
        uri: the store to log to; `artifact_root` and `below` as for `open_store`.
        moved_from: an address that the store had before, whose entries belong to it as well.

    Raises:
        TrackingError: when the store cannot be used at all, the spool cannot be read, or another replay is running.
    """
    if not _entries(spool):
        _sweep(spool)
        return []
    with store_lock(uri, "replay", REPLAY_WAIT_S, folder=spool):
        _sweep(spool)
        names = {store_name(address, spool) for address in (uri, moved_from) if address}
        replay = _Replay(uri, artifact_root, below, names)
        return [replay.entry(path) for path in _entries(spool)]


class _Replay:
    """The store that entries are brought into; `names` are those by which they may name it."""

    def __init__(self, uri: str, artifact_root: str | None, below: Path | None, names: set[str]) -> None:
        self._uri = uri
        self._names = names
        self._root = artifact_root
        self._client, self._experiments = open_with_experiments(uri, artifact_root, below)

    def entry(self, path: Path) -> Replayed:
        """Log one entry and remove it; what keeps it from that is told, and is no matter of the others."""
        lock = _lock_of(path)
        try:
            with lock.acquire(timeout=0):
                done = self._logged(path)
        except Timeout:
            return Replayed(path.name, None, "in use", "the run that writes it has not ended")
        except TrackingError as error:
            done = Replayed(path.name, None, "kept", str(error))
        except (OSError, ValueError, TypeError, KeyError) as error:
            reason = f"{path} cannot be read or removed ({told(error)}); look into it and remove it"
            done = Replayed(path.name, None, "kept", reason)
        if done.outcome == "kept":
            logger.warning("spooled run {} stays in {}: {}", path.name, path.parent, done.reason)
        else:
            Path(lock.lock_file).unlink(missing_ok=True)
            logger.info("spooled run {} is logged as {}", path.name, done.run_id)
        return done

    def _logged(self, path: Path) -> Replayed:
        header = _header(path)
        if header is None:
            _remove(path)
            return Replayed(path.name, None, "logged", "its process ended before anything was written")
        if header.store not in self._names:
            return Replayed(path.name, None, "kept", self._elsewhere(path.parent, header))
        with translated(self._uri):
            run = self._run(header)
        run_id, lost = str(run.info.run_id), run.data.tags.get(LOST_TAG)
        if lost:
            logger.warning("run {} is not whole: {}", run_id, lost)
        left = self._log(path, header, run)
        if left:
            reason = (
                f"run {run_id} is logged, but for {'; '.join(left)}. Mend that and replay again, or log the files "
                f"elsewhere and remove {path}"
            )
            return Replayed(path.name, run_id, "kept", reason)
        _remove(path)
        return Replayed(path.name, run_id, "logged", lost)

    def _elsewhere(self, spool: Path, header: SpooledRun) -> str:
        """How an entry of another store gets there, or here where that store has become this one."""
        local = None if "://" in header.store else lexical(spool).parent / header.store
        address = f"{SQLITE}{local}" if local else header.store
        place, root = sqlite_path(address), header.artifact_root
        if root is None and place is not None:
            root = (place.parent / "mlruns").as_uri()
        there = f"FOREX_TRACKING_URI={quote(address)}" + (
            f" FOREX_ARTIFACT_URI={quote(root)}" if root else ""
        )
        return (
            f"it belongs to {address}, not to {without_password(self._uri)}; log it there with '{there} forex tracking "
            f"replay' or, where this is that store in its new place, here with 'forex tracking replay --from "
            f"{quote(address)}'"
        )

    def _run(self, header: SpooledRun) -> Run:
        """The run that the entry belongs to: the one begun in the store, the one of an earlier replay, or a new one.

        Raises:
            TrackingError: when it was deleted.
        """
        experiment = experiment_id(
            self._client,
            self._experiments,
            self._uri,
            header.experiment,
            artifact_root=self._root or header.artifact_root,
            tags=header.experiment_tags,
        )
        run = _begun(header, self._client, experiment)
        if run is None:
            tags = {**header.tags, SPOOL_ID_TAG: header.spool_id}
            if header.run_id:
                tags[LOST_TAG] = (
                    f"this store does not have run {header.run_id} any more; what it had taken of it before "
                    "its records were spooled is gone, but for its name and its tags"
                )
            return self._client.create_run(experiment, header.start_time, tags, header.run_name)
        if run.info.lifecycle_stage != "active":
            raise TrackingError(
                f"run {run.info.run_id} was deleted; bring it back with 'mlflow runs restore --run-id "
                f"{run.info.run_id}' and replay again, or remove the entry"
            )
        return run

    def _log(self, path: Path, header: SpooledRun, run: Run) -> list[str]:
        """Bring one entry into the store; every step may have been done before.

        Returns:
            Which files could not be attached and why; the entry holds no more than these then.
        """
        run_id, experiment = str(run.info.run_id), str(run.info.experiment_id)
        marks = {SPOOLED_TAG: header.reason[:MAX_TAG], SPOOL_ID_TAG: header.spool_id}
        with translated(self._uri):
            send(self._client, run_id, Batch(tags=marks))
        last, done, left = header.start_time, list[Path](), list[str]()
        for place in sorted(path.glob("[0-9]*.json"), key=lambda place: int(place.stem)):
            document = _read(place)
            last = max(last, document[_WRITTEN])
            files = place.with_suffix("")
            try:
                with translated(self._uri):
                    self._bring(experiment, run_id, document, files)
            except TrackingError as error:
                if not files.exists():
                    raise
                wanted = document.get("artifact_path") or document.get("name") or "."
                left.append(f"what {files} holds of {wanted}: {error}")
            else:
                done.append(place)
        end: Mapping[str, Any] = {"status": "KILLED", "end_time": last}
        if (path / _END).exists():
            end = _read(path / _END)
        with translated(self._uri):
            self._client.set_terminated(run_id, end["status"], end["end_time"])
        if left:
            _write(path / _END, end)  # which does not depend on what is taken away here
            for place in done:
                place.unlink()
                shutil.rmtree(place.with_suffix(""), ignore_errors=True)
        return left

    def _bring(self, experiment: str, run_id: str, document: Mapping[str, Any], files: Path) -> None:
        kind = document["kind"]
        if kind == "batch":
            send(self._client, run_id, _batch(document))
        elif kind == "version_tag":
            named = (document[name] for name in ("model", "version", "tag", "value"))
            tag_version(self._client, *named)
        elif kind == "files":
            with attaching():
                self._client.log_artifacts(run_id, str(files), document["artifact_path"])
        else:
            name, mark = document["name"], document["mark"]
            with attaching():
                log_model(self._client, experiment, run_id, files, name, mark, again=True)


def _header(path: Path) -> SpooledRun | None:
    """The header of an entry; None when its writer was killed before that."""
    if not (path / _HEADER).exists():
        return None
    document = _read(path / _HEADER)
    version = document.pop("version")
    if version != VERSION:
        raise TrackingError(
            f"{path} is of version {version}, this program reads version {VERSION}; replay it with the program that "
            "wrote it, or remove it"
        )
    return SpooledRun(**{name: value for name, value in document.items() if name != _WRITTEN})


def _begun(header: SpooledRun, client: MlflowClient, experiment: str) -> Run | None:
    """The run as the store has it, a deleted one too."""
    from mlflow.entities import ViewType
    from mlflow.exceptions import MlflowException

    if header.run_id:
        try:
            return client.get_run(header.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    made = f"tags.{SPOOL_ID_TAG} = '{header.spool_id}'"
    found = client.search_runs([experiment], made, ViewType.ALL, max_results=1)
    return found[0] if found else None


def _document(batch: Batch) -> dict[str, Any]:
    metrics = [[p.key, p.value, p.timestamp, p.step] for p in batch.metrics]
    return {"params": dict(batch.params), "metrics": metrics, "tags": dict(batch.tags)}


def _batch(document: Mapping[str, Any]) -> Batch:
    points = tuple(Point(*point) for point in document["metrics"])
    return Batch(document["params"], points, document["tags"])


def waiting(spool: Path) -> dict[str, SpooledRun | None]:
    """What waits to be replayed, oldest first, by the name of its entry; None for one that cannot be read."""
    found: dict[str, SpooledRun | None] = {}
    for path in _entries(spool):
        try:
            found[path.name] = _header(path)
        except (TrackingError, OSError, ValueError, TypeError, KeyError):
            found[path.name] = None
    return found


def _entries(spool: Path) -> list[Path]:
    """Entries, oldest first.

    Raises:
        TrackingError: when the folder cannot be read.
    """

    def begun(path: Path) -> float:
        try:
            return (path / _HEADER).stat().st_mtime
        except OSError:  # not written yet, or not to be read
            return path.lstat().st_mtime

    try:
        found = [p for p in spool.iterdir() if p.is_dir() and not p.name.startswith(".")]
        return sorted(found, key=begun)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TrackingError(
            f"the spool {spool} cannot be read ({told(error)}); expected a folder that this user may read"
        ) from error


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
    # Of the process: a run may be ended by another thread than the one that began it.
    return FileLock(f"{path}.lock", thread_local=False)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump({**document, _WRITTEN: int(time.time() * 1000)}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text("utf-8"))
    if not isinstance(document, dict):
        raise TypeError(f"{path.name} holds {type(document).__name__}, expected an object")
    return document
