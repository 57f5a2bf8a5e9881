"""What a tracker can do, and the one that does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from forex_core.types import UNTRACKED

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class Record:
    """Params, metrics and tags of a run, as one batch; `stepped` metrics hold a value for each of some steps."""

    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    stepped: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


class Tracker(Protocol):
    """One run at a time in one experiment.

    As a context manager it starts a run on entering and ends it on exit: FINISHED, also by sys.exit(0), or FAILED with
    the error's type and message as tags when an exception passes through (KILLED for an interrupt and for another
    sys.exit). The exception is never swallowed.
    What is logged while no run is active is left out with a warning; no call starts a run by the way.
    """

    @property
    def run_id(self) -> str | None:
        """Id of the current run, or of the last one."""
        ...

    @property
    def active(self) -> bool:
        """Whether a run has been started and not ended."""
        ...

    @property
    def degraded(self) -> str | None:
        """Why the records of this run are kept in the spool, None while the store takes them."""
        ...

    def get_run_id(self) -> str | None:
        """The same as `run_id`."""
        ...

    def start_run(
        self,
        run_name: str | None = None,
        description: str | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> str:
        """Start a run and return its id. A run that is active is adopted, with the tags and description given."""
        ...

    def log(self, record: Record) -> None:
        """Log params, metrics and tags in one batch."""
        ...

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log params, nested ones with dots in their names; a param keeps its first value."""
        ...

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log the numbers among `metrics`; the rest is left out with a warning."""
        ...

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; a later value replaces an earlier one."""
        ...

    def log_figure(self, figure: Any, artifact_file: str, artifact_path: str | None = None) -> None:
        """Attach a figure of Matplotlib, or of Plotly as .html or .json."""
        ...

    def log_artifact(self, path: Path | str, artifact_path: str | None = None) -> None:
        """Attach a file; one that is missing is warned of."""
        ...

    def log_artifacts_dir(self, folder: Path | str, artifact_path: str | None = None) -> None:
        """Attach every file below `folder`; those that cannot be read are warned of."""
        ...

    def log_model(self, folder: Path | str, name: str) -> str | None:
        """Log the MLflow model saved in `folder` (it holds MLmodel) as a model of the run; returns its URI."""
        ...

    def set_version_tag(self, model: str, version: int, tag: str, value: str) -> None:
        """Tag a version of a registered model, as part of what the run tells: where its records go, this goes too."""
        ...

    def end_run(self, status: RunStatus = "FINISHED") -> None:
        """End the active run; nothing happens without one."""
        ...

    def find_run(self, tags: Mapping[str, str]) -> str | None:
        """Id of the newest FINISHED run of the experiment that has all of `tags`, or None."""
        ...

    def read_text(self, run_id: str, artifact_path: str) -> str | None:
        """Content of a text artifact of a run, None when it is not there; also by the id that it had in the spool."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class NoopTracker:
    """The same interface, nothing written."""

    run_id: str | None = None
    active: bool = False
    degraded: str | None = None

    def get_run_id(self) -> str | None:
        return self.run_id

    def start_run(
        self,
        run_name: str | None = None,
        description: str | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> str:
        self.run_id, self.active = UNTRACKED, True
        return self.run_id

    def log(self, record: Record) -> None:
        pass

    def log_params(self, params: Mapping[str, Any]) -> None:
        pass

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        pass

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        pass

    def log_figure(self, figure: Any, artifact_file: str, artifact_path: str | None = None) -> None:
        pass

    def log_artifact(self, path: Path | str, artifact_path: str | None = None) -> None:
        pass

    def log_artifacts_dir(self, folder: Path | str, artifact_path: str | None = None) -> None:
        pass

    def log_model(self, folder: Path | str, name: str) -> str | None:
        return None

    def set_version_tag(self, model: str, version: int, tag: str, value: str) -> None:
        pass

    def end_run(self, status: RunStatus = "FINISHED") -> None:
        self.active = False

    def find_run(self, tags: Mapping[str, str]) -> str | None:
        return None

    def read_text(self, run_id: str, artifact_path: str) -> str | None:
        return None

    def __enter__(self) -> Self:
        self.start_run()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_run()
