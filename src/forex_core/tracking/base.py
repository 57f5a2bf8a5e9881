"""What a tracker can do, and the one that does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from forex_core.tracking.records import Record

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker(Protocol):
    """One run at a time in one experiment.

    As a context manager it ends the run on exit: FINISHED, or FAILED with the error's type and message as tags
    when an exception passes through (KILLED for an interrupt). The exception is never swallowed. A run that an
    exception finds not yet started is started to hold the reason.
    """

    @property
    def run_id(self) -> str | None:
        """Id of the current run, or of the last one."""
        ...

    def start_run(self, run_name: str | None = None, description: str | None = None) -> str:
        """Start a run, or adopt the one that is active; returns its id."""
        ...

    def log(self, record: Record) -> None:
        """Log params, metrics and tags of the active run in one batch."""
        ...

    def log_artifacts_dir(self, folder: Path, artifact_path: str | None = None) -> None:
        """Attach every file below `folder` to the active run."""
        ...

    def end_run(self, status: RunStatus = "FINISHED") -> None:
        """End the active run; nothing happens without one."""
        ...

    def find_run(self, tags: Mapping[str, str]) -> str | None:
        """Id of the newest FINISHED run of the experiment that has all of `tags`, or None."""
        ...

    def read_text(self, run_id: str, artifact_path: str) -> str | None:
        """Content of a text artifact of a run, None when it is not there."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class NoopTracker:
    """The same interface, nothing written."""

    run_id: str | None = None

    def start_run(self, run_name: str | None = None, description: str | None = None) -> str:
        self.run_id = "untracked"
        return self.run_id

    def log(self, record: Record) -> None:
        pass

    def log_artifacts_dir(self, folder: Path, artifact_path: str | None = None) -> None:
        pass

    def end_run(self, status: RunStatus = "FINISHED") -> None:
        pass

    def find_run(self, tags: Mapping[str, str]) -> str | None:
        return None

    def read_text(self, run_id: str, artifact_path: str) -> str | None:
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
