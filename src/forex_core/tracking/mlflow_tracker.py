"""Runs in MLflow, through its client alone: no global active run, one batched write."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, get_args

from loguru import logger

from forex_core.databases import sqlite_path
from forex_core.errors import TrackingError, TrackingUnavailable
from forex_core.secrecy import told, without_password
from forex_core.tracking.base import Record, RunStatus
from forex_core.tracking.process import process_tag
from forex_core.tracking.queries import SPOOL_ID_TAG
from forex_core.tracking.spool import (
    DESCRIPTION_TAG,
    SpooledRun,
    SpoolEntry,
    new_spool_id,
    store_name,
)
from forex_core.tracking.store import (
    ExperimentRow,
    experiment_id,
    file_identity,
    find_experiment,
    is_unreachable,
    open_with_experiments,
    store_errors,
    translated,
)
from forex_core.tracking.values import Batch, Preparation, short
from forex_core.tracking.writing import Written, attaching, check_place, log_model, tag_version, write
from forex_core.types import SPOOLED

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

LARGE_ARTIFACT_BYTES = 100_000_000
RUN_NAME_TAG = "mlflow.runName"
# What drawing libraries raise for a format, a file or a backend that they cannot serve.
_DRAWING_ERRORS = (ValueError, TypeError, KeyError, AttributeError, OSError, ImportError, RuntimeError)


class MLflowTracker:
    """A tracker on an MLflow store.

    Args:
        tracking_uri: the store's address, such as sqlite:////path/mlflow.db; its folder is made if need be.
        experiment_name: the experiment, made on first use.
        auto_start_run: start a run at once, not only on entering the context.
        run_name: name of a run that is started without one.
        artifact_location: where a new experiment keeps its files, as a URI; below it one folder an experiment.
        experiment_tags: tags of a new experiment.
        tags: tags of every run, known before it starts; a failed run has them too.
        below: the data folder; a store whose files lie neither there nor at `artifact_location` is refused.
        spool: where records go when the store becomes unreachable; without it that is an error.
        start_on_enter: start a run on entering the context. A caller that finds out later whether there is
            anything to log passes False and starts it then; an exception still starts one, to hold the reason.
        run_name_prefix: before every name of a run; one without a name is called by the time then.

    Raises:
        TrackingUnavailable: when the store cannot be reached or written, and there is no spool or none that can be
            written either.
        TrackingError: when the store refuses what it is given, such as another value for a param.
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
        below: Path | str | None = None,
        spool: Path | None = None,
        start_on_enter: bool = True,
        run_name_prefix: str = "",
    ) -> None:
        self._uri = tracking_uri
        self._experiment_name = experiment_name
        self._run_name = run_name
        self._run_name_prefix = run_name_prefix
        self._artifacts = artifact_location
        self._experiment_tags = dict(experiment_tags or {})
        self._tags = dict(tags or {})
        self._below = below
        self._spool = spool
        self._start_on_enter = start_on_enter
        self._opened: MlflowClient | None = None
        self._experiments: dict[str, ExperimentRow] | None = None
        self._file: tuple[int, int] | None = None
        self._experiment = ""
        self._run_id: str | None = None
        self._active = False
        self._started_in_context = False
        self._fresh()
        if auto_start_run:
            self.start_run()

    def _fresh(self) -> None:
        """Forget what belongs to one run."""
        self._degraded: str | None = None
        self._entry: SpoolEntry | None = None
        self._preparation = Preparation()
        self._params: dict[str, str] = {}
        self._name: str | None = None
        self._known_tags: dict[str, str] = {}
        self._written = Written()
        self._location = ""
        self._begun = 0
        self._over = False

    @property
    def run_id(self) -> str | None:
        return self._run_id

    @property
    def active(self) -> bool:
        return self._active

    @property
    def degraded(self) -> str | None:
        return self._degraded

    def get_run_id(self) -> str | None:
        return self._run_id

    def start_run(
        self,
        run_name: str | None = None,
        description: str | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> str:
        described = {DESCRIPTION_TAG: description} if description else {}
        if self._active and self._run_id:
            adopted = {RUN_NAME_TAG: f"{self._run_name_prefix}{run_name}"} if run_name else {}
            if more := {**(tags or {}), **described, **adopted}:
                self.set_tags(more)
            return self._run_id
        if self._over:
            self._fresh()
        self._begun = _now_ms()
        first = self._prepared(
            lambda: self._preparation.batch(tags={**process_tag(), **self._tags, **(tags or {}), **described})
        )
        self._name = run_name or self._run_name
        if self._run_name_prefix:
            self._name = f"{self._run_name_prefix}{self._name or format(datetime.now(UTC), '%Y%m%d_%H%M%S')}"
        self._known_tags = dict(first.tags)

        def create() -> str:
            client = self._client()
            self._experiment = experiment_id(
                client,
                self._experiments,
                self._uri,
                self._experiment_name,
                artifact_root=self._artifacts,
                tags=self._experiment_tags,
            )
            created = client.create_run(self._experiment, self._begun, dict(first.tags), self._name)
            self._name = str(created.info.run_name)
            self._location = str(created.info.artifact_uri)
            return str(created.info.run_id)

        self._run_id = None
        if self._degraded is None:
            try:
                self._run_id = self._reached(create)
            except TrackingUnavailable as error:
                self._degrade(error)
        if self._degraded is not None:
            self._open_spool()
        self._written.add(first)
        self._active = self._started_in_context = True
        self._attach(first)
        assert self._run_id is not None
        return self._run_id

    def log(self, record: Record) -> None:
        if self._is_active("a record"):
            self._log(
                lambda: self._preparation.batch(
                    record.params, record.metrics, record.tags, stepped=record.stepped
                )
            )

    def log_params(self, params: Mapping[str, Any]) -> None:
        if self._is_active("params"):
            self._log(lambda: self._preparation.batch(params))

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if self._is_active("metrics"):
            self._log(lambda: self._preparation.batch(metrics=metrics, step=step))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        if self._is_active("tags"):
            self._log(lambda: self._preparation.batch(tags=tags))

    def log_figure(self, figure: Any, artifact_file: str, artifact_path: str | None = None) -> None:
        if not self._is_active(f"figure {artifact_file}"):
            return
        name = Path(artifact_file)
        if name.is_absolute() or ".." in name.parts or not name.name:
            logger.warning(
                "figure not logged: found {!r} as its file, expected a relative path", artifact_file
            )
            return
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                drawn = _draw(figure, file)
            except _DRAWING_ERRORS as error:
                logger.warning("figure {} not logged, it could not be drawn: {}", artifact_file, told(error))
                return
            if not drawn:
                logger.warning(
                    "figure {} not logged: found {}.{}, expected a figure of Matplotlib or Plotly",
                    artifact_file,
                    type(figure).__module__,
                    type(figure).__qualname__,
                )
                return
            self.log_artifacts_dir(folder, artifact_path)

    def log_artifact(self, path: Path | str, artifact_path: str | None = None) -> None:
        file = Path(path)
        if not self._is_active(f"artifact {file}"):
            return
        if file.is_dir():
            self.log_artifacts_dir(file, "/".join(part for part in (artifact_path, file.name) if part))
        elif _readable([file]):
            self._upload(
                f"artifact {file}",
                lambda _: self._repository().log_artifact(str(file), artifact_path),
                lambda entry: entry.add_file(file, artifact_path),
                artifact_path,
            )

    def log_artifacts_dir(self, folder: Path | str, artifact_path: str | None = None) -> None:
        folder = Path(folder)
        if not self._is_active(f"artifacts of {folder}"):
            return
        if not folder.is_dir():
            logger.warning("artifacts not logged: there is no folder {}", folder)
            return
        with _only_readable(folder) as whole:
            self._upload(
                f"artifacts of {folder}",
                lambda _: self._repository().log_artifacts(str(whole), artifact_path),
                lambda entry: entry.add_folder(whole, artifact_path),
                artifact_path,
            )

    def log_model(self, folder: Path | str, name: str) -> str | None:
        folder = Path(folder)
        if not self._is_active(f"model {name}"):
            return None
        if not (folder / "MLmodel").is_file():
            logger.warning(
                "model {} not logged: {} holds no file MLmodel; save it with mlflow.<flavour>.save_model",
                name,
                folder,
            )
            return None
        files = _files_below(folder)
        if _readable(files) != files:
            logger.warning("model {} not logged: it takes all the files in {}", name, folder)
            return None
        mark = uuid.uuid4().hex  # a replay completes what was begun here, and begins no second one
        return self._upload(
            f"model {name}",
            lambda run_id: log_model(self._client(), self._experiment, run_id, folder, name, mark),
            lambda entry: entry.add_model(folder, name, mark),
        )

    def set_version_tag(self, model: str, version: int, tag: str, value: str) -> None:
        if not self._is_active(f"tag {tag} of version {version} of {model}"):
            return
        self._put(
            lambda _: tag_version(self._client(), model, version, tag, value),
            lambda entry: entry.add_version_tag(model, version, tag, value),
        )

    def end_run(self, status: RunStatus = "FINISHED") -> None:
        if status not in get_args(RunStatus):
            raise TrackingError(
                f"a run cannot end as {status!r}; expected one of {', '.join(get_args(RunStatus))}"
            )
        if not (self._active and self._run_id):
            return
        now = _now_ms()
        self._put(
            lambda run_id: self._client().set_terminated(run_id, status, now),
            lambda entry: entry.end(status, now),
        )
        self._active, self._over = False, True

    def find_run(self, tags: Mapping[str, str]) -> str | None:
        wanted = " and ".join(f"tags.`{name}` = {_filter_literal(value)}" for name, value in tags.items())

        def search() -> str | None:
            client = self._client()
            experiment = find_experiment(client, self._experiments, self._experiment_name)
            if experiment is None:
                return None
            found = client.search_runs(
                [experiment.id],
                f"attributes.status = 'FINISHED' and {wanted}"
                if wanted
                else "attributes.status = 'FINISHED'",
                order_by=["attributes.start_time DESC"],
                max_results=1,
            )
            return str(found[0].info.run_id) if found else None

        return self._asked(search)

    def read_text(self, run_id: str, artifact_path: str) -> str | None:
        known = self.find_run({SPOOL_ID_TAG: run_id}) if run_id.startswith(SPOOLED) else run_id
        if known is None:
            return None

        def read() -> str | None:
            client = self._client()
            from mlflow.exceptions import MlflowException

            parent = artifact_path.rpartition("/")[0] or None
            try:
                found = client.list_artifacts(known, parent)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None
            if all(item.path != artifact_path for item in found):
                return None
            with tempfile.TemporaryDirectory() as folder:
                return Path(client.download_artifacts(known, artifact_path, folder)).read_text("utf-8")

        return self._asked(read)

    def __enter__(self) -> Self:
        self._started_in_context = self._active
        if self._start_on_enter:
            self.start_run()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self.end_run()
            return
        try:
            if not self._active and not self._started_in_context:
                self.start_run()
            if self._active:
                message = " ".join(str(error).split())
                self.set_tags(
                    {"error_type": type(error).__name__, "error_message": message, "status": "failed"}
                )
                self.end_run("FAILED" if isinstance(error, Exception) else "KILLED")
        except TrackingError as second:  # the exception that passes through is the one to see
            logger.error("the failure could not be logged: {}", second)

    # --- the store

    def _client(self) -> MlflowClient:
        if self._opened is None:
            self._opened, self._experiments = open_with_experiments(self._uri, self._artifacts, self._below)
            self._file = file_identity(self._uri)
        elif self._file != file_identity(self._uri):
            # Its open connections would go on writing to a file that has no name any more.
            raise TrackingUnavailable(
                f"the database {sqlite_path(self._uri)} was removed or replaced while it was in use; "
                "put the right one back"
            )
        return self._opened

    def _repository(self) -> Any:
        """Where the run's files go; the client would read the whole run to find that out."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(self._location, tracking_uri=self._client().tracking_uri)

    def _reached(self, call: Callable[[], T]) -> T:
        """Do something for the run in the store.

        Raises:
            TrackingUnavailable: when the store cannot be reached, or does not have the run any more.
            TrackingError: when it refuses this at any time.
        """
        with translated(self._uri):
            try:
                return call()
            except store_errors() as error:
                lost = None if is_unreachable(error) else self._lost(error)
                if lost is None:
                    raise
                raise TrackingUnavailable(lost) from error

    def _lost(self, error: Exception) -> str | None:
        """Why the store has no place for the run, though it can be reached; None when it has."""
        store = without_password(self._uri)
        if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
            return f"{store} does not have the run any more, it is another database by now ({told(error)})"
        if self._run_id and self._client().get_run(self._run_id).info.lifecycle_stage != "active":
            return (
                f"run {self._run_id} was deleted in {store}; bring it back with "
                f"'mlflow runs restore --run-id {self._run_id}'"
            )
        return None

    def _put(self, store: Callable[[str], T], keep: Callable[[SpoolEntry], None]) -> T | None:
        """Bring something of the active run into the store or, from the first failure on, into the spool.

        Raises:
            TrackingUnavailable: when the store cannot be reached, and there is no spool that can be written.
            TrackingError: when the store refuses.
        """
        run_id = self._run_id
        assert run_id is not None
        if self._entry is None:
            try:
                return self._reached(lambda: store(run_id))
            except TrackingUnavailable as error:
                self._degrade(error)
                self._open_spool()
        entry = self._entry
        assert entry is not None
        self._spooled(lambda: keep(entry))
        return None

    def _asked(self, question: Callable[[], T | None]) -> T | None:
        """An answer of the store, None when it is unreachable and there is a spool to go on with."""
        if self._degraded is not None:
            return None
        try:
            with translated(self._uri):
                return question()
        except TrackingUnavailable as error:
            self._degrade(error)
            if self._active:
                self._open_spool()
            return None

    def _log(self, prepare: Callable[[], Batch]) -> None:
        batch = self._prepared(prepare)
        if batch:
            self._put(
                lambda run_id: write(self._client(), self._uri, run_id, batch, self._written),
                lambda entry: entry.add_batch(batch),
            )
        self._params.update(batch.params)
        self._known_tags |= batch.tags
        self._name = self._known_tags.pop(RUN_NAME_TAG, self._name)
        self._attach(batch)

    def _prepared(self, prepare: Callable[[], Batch]) -> Batch:
        """A batch made acceptable, with what was changed told.

        Raises:
            TrackingError: when a param was logged with another value.
        """
        try:
            batch = prepare()
        except ValueError as error:
            raise TrackingError(f"nothing of this was logged: {error}") from error
        for key, value in batch.params.items():
            if self._params.get(key, value) != value:
                raise TrackingError(
                    f"nothing of this was logged: param {key} has the value {short(self._params[key])!r} in run "
                    f"{self._run_id} and cannot become {short(value)!r}; give it another name, or log it as a tag"
                )
        for note in self._preparation.take_notes():
            logger.warning("{}", note)
        return batch

    def _attach(self, batch: Batch) -> None:
        """Whole texts of what was cut, as files."""
        if not batch.texts:
            return
        with tempfile.TemporaryDirectory() as folder:
            for place, text in batch.texts.items():
                file = Path(folder) / place
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            self.log_artifacts_dir(folder)

    def _upload(
        self,
        what: str,
        store: Callable[[str], T],
        keep: Callable[[SpoolEntry], None],
        artifact_path: str | None = None,
    ) -> T | None:
        """Attach files; what goes wrong is told and ends there.

        Raises:
            TrackingUnavailable: when neither the store nor the spool takes them.
        """

        def attach(run_id: str) -> T:
            with attaching():
                return store(run_id)

        try:
            check_place(artifact_path)
            return self._put(attach, keep)
        except TrackingError as error:
            if isinstance(error, TrackingUnavailable) and self._spool is not None:
                raise
            logger.warning("{} not logged: {}", what, error)
        return None

    def _is_active(self, what: str) -> bool:
        if not (self._active and self._run_id):
            logger.warning("{} not logged: no run is active; start one before", what)
            return False
        return True

    # --- the spool

    def _degrade(self, error: TrackingUnavailable) -> None:
        """From here on nothing of this run goes to the store.

        Raises:
            TrackingUnavailable: `error`, when there is no spool.
        """
        if self._spool is None:
            raise error
        self._degraded = str(error)
        logger.warning(
            "the records of this run go to {} from now on; log them later with 'forex tracking replay': {}",
            self._spool,
            error,
        )

    def _open_spool(self) -> None:
        assert self._spool is not None
        spool, spool_id = self._spool, new_spool_id()
        run = SpooledRun(
            spool_id=spool_id,
            store=store_name(self._uri, spool),
            run_id=self._run_id,
            experiment=self._experiment_name,
            experiment_tags=self._experiment_tags,
            artifact_root=self._artifacts,
            run_name=self._name,
            tags=self._known_tags,
            start_time=self._begun,
            reason=self._degraded or "",
        )
        self._entry = self._spooled(lambda: SpoolEntry(spool, run))
        if self._run_id is None:
            self._run_id = spool_id

    def _spooled(self, write: Callable[[], T]) -> T:
        try:
            return write()
        except OSError as error:
            raise TrackingUnavailable(
                f"the store is unreachable ({self._degraded}) and the spool {self._spool} cannot be written either "
                f"({told(error)}); make room there or let it be written"
            ) from error


def _files_below(folder: Path) -> list[Path]:
    """What is in a folder and is none itself; links to folders are not followed, as by MLflow."""

    def unreadable(error: OSError) -> None:
        logger.warning("artifacts not logged: {}", told(error))

    walked = os.walk(folder, onerror=unreadable)
    return sorted(Path(place, name) for place, _, names in walked for name in names)


def _readable(files: list[Path]) -> list[Path]:
    """Those that can be attached; each of the others is told."""
    found = []
    for file in files:
        try:
            if file.exists() and not file.is_file():  # to open a pipe is to wait for its writer
                logger.warning("artifact not logged: {} is no regular file", file)
                continue
            with file.open("rb"):
                size = file.stat().st_size
        except OSError as error:
            logger.warning("artifact not logged: {}", told(error))
            continue
        if size > LARGE_ARTIFACT_BYTES:
            logger.warning("artifact {} is large, {:.0f} MB; it is logged all the same", file, size / 1e6)
        found.append(file)
    return found


@contextmanager
def _only_readable(folder: Path) -> Iterator[Path]:
    """The folder or, where some of its files cannot be attached, one with links to the others."""
    files = _files_below(folder)
    readable = _readable(files)
    if readable == files:
        yield folder
        return
    with tempfile.TemporaryDirectory() as links:
        for file in readable:
            link = Path(links, file.relative_to(folder))
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.absolute())
        yield Path(links)


def _draw(figure: Any, file: Path) -> bool:
    """Save a figure by its own means; False when it has none."""
    if hasattr(figure, "savefig"):
        figure.savefig(file)
    elif hasattr(figure, "write_html") and hasattr(figure, "write_json"):
        if file.suffix == ".json":
            figure.write_json(file)
        elif file.suffix in (".html", ".htm"):
            figure.write_html(file)  # with its script, so that it opens without a network
        else:
            figure.write_image(file)
    else:
        return False
    return True


def _filter_literal(value: str) -> str:
    """A text as MLflow's filters take it.

    >>> _filter_literal("it's")
    '"it\\'s"'
    """
    return f'"{value}"' if "'" in value else f"'{value}'"


def _now_ms() -> int:
    return int(time.time() * 1000)
