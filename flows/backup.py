"""The flows `backup` and `restore-drill`: archives made and pruned, and the proof that the last one can be used."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loguru import logger
from prefect import State, flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from flows.logs import connect_logging
from forex_core.backup import LATEST, Backups, Created, Pruned, Restored
from forex_core.config import Settings, load_settings
from forex_core.databases import sqlite_path
from forex_core.errors import BackupError, ForexError
from forex_core.report.archives import backup_markdown, drill_markdown
from forex_core.tracking import ArchivedStore, Registry
from forex_core.tracking.store import release

Document = dict[str, Any]

RETRY_S = 60
LIMIT_S = 2 * 60 * 60
"""Of a run, which takes seconds for a small store and minutes for a bucket of gigabytes."""
_DRILL = ".drill-"


@task(
    name="create archive", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=RETRY_S, persist_result=False
)
def created(backups: Backups, to: str | None, full: bool) -> Created:
    """An archive of the deployment; tried again, since a lock or a bucket may be free later."""
    made = backups.create(to, full=full)
    logger.info("archive {}: {} files, {} bytes written", made.archive, made.files, made.bytes_written)
    return made


@task(name="prune archives", cache_policy=NO_CACHE, persist_result=False)
def pruned(backups: Backups, to: str | None) -> Pruned:
    """Archives that the rules do not keep removed, after those that stay have been verified."""
    done = backups.prune(to)
    logger.info("{} archives kept, {} removed", len(done.kept), len(done.removed))
    return done


@flow(
    name="backup",
    description="An archive of runs, models, observations and reports, made while all goes on; old ones pruned.",
    validate_parameters=True,
    timeout_seconds=LIMIT_S,
    persist_result=False,
    result_serializer="json",  # Prefect keeps the error of a flow that fails, by default as a pickle
)
def backup(to: str | None = None, full: bool = False, prune: bool = True) -> Document:
    """Make an archive and prune the others.

    Args:
        to: folder or s3:// address of the archives; by default the one of the settings.
        full: read every file and write every object, also what has not changed.
        prune: remove archives that are older than the settings keep.

    Raises:
        BackupError: the archive could not be made, lacks what the last one had, or others are damaged.
    """
    connect_logging()
    backups = Backups(load_settings(), ArchivedStore())
    made = created(backups, to, full)
    gone = pruned(backups, to) if prune else None
    document: Document = {
        "created": made.document,
        "pruned": gone.document | {"dry_run": False} if gone else None,
    }
    create_markdown_artifact(
        markdown=backup_markdown(document["created"], document["pruned"]),
        key="backup",
        description=f"Archive of {made.created:%Y-%m-%d %H:%M} UTC",
    )
    if made.newly_missing:
        raise BackupError(
            f"archive {made.archive} was made, but {len(made.newly_missing)} files are missing that were there at the "
            f"last one, such as {made.newly_missing[0]}; bring them back from an archive of before"
        )
    if gone and gone.damaged:
        raise BackupError(
            f"archive {made.archive} was made, but others are damaged: {', '.join(gone.damaged)}"
        )
    return document


@task(name="restore to a scratch folder", cache_policy=NO_CACHE, persist_result=False)
def restored(backups: Backups, archive: str, folder: Path) -> Restored:
    """The archive in a folder of its own."""
    return backups.restore(archive, folder)


@task(name="replay champions", cache_policy=NO_CACHE, persist_result=False)
def replayed(folder: Path) -> list[Document]:
    """The last forecast that each champion published, made again from the restored files alone."""
    from forex_core.tracking.replay import last_published  # the engine, which an archive does without

    registry = Registry(
        f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}", (folder / "mlflow" / "mlruns").as_uri(), folder
    )
    try:
        return [_replay(registry, model, run_id) for model, run_id in last_published(registry).items()]
    finally:
        release(registry.uri)


def _replay(registry: Registry, model: str, run_id: str | None) -> Document:
    from forex_core.tracking.replay import replay

    outcome, holds = "it has published nothing yet", True
    if run_id is not None:
        try:
            found = replay(registry, run_id)
            outcome = ", ".join(f"{one.level}: {one.outcome}" for one in found.reproductions)
            holds = found.holds
        except ForexError as error:
            outcome, holds = str(error), False
    logger.info("{}: {}", model, outcome)
    return {"model": model, "run_id": run_id, "outcome": outcome, "replayed": holds}


@flow(
    name="restore-drill",
    description="Restores the latest archive to a scratch folder and replays what each champion published last.",
    validate_parameters=True,
    timeout_seconds=LIMIT_S,
    persist_result=False,
    result_serializer="json",  # Prefect keeps the error of a flow that fails, by default as a pickle
)
def restore_drill(archive: str = LATEST) -> Document | State[Document]:
    """Prove that an archive can be used.

    Ends as 'CompletedWithWarning' where it could be restored and nothing of what should be in it could be replayed.

    Args:
        archive: its address; by default the newest of this data folder in the place of the settings.

    Raises:
        BackupError: it cannot be restored, or a forecast of a champion cannot be made again.
    """
    connect_logging()
    settings = load_settings()
    with _scratch(settings.root) as folder:
        done = restored(Backups(settings, ArchivedStore()), archive, folder)
        is_tracked = (folder / "mlflow" / "mlflow.db").is_file()
        rows = replayed(folder) if is_tracked else []
    note = _nothing_replayed(rows, is_tracked)
    document = done.document | {"replays": rows, "note": note}
    create_markdown_artifact(
        markdown=drill_markdown(document),
        key="restore-drill",
        description=f"Archive of {done.created:%Y-%m-%d %H:%M} UTC restored and replayed",
    )
    failed = [row["model"] for row in rows if not row["replayed"]]
    if failed:
        raise BackupError(
            f"archive {done.archive} was restored, but the last forecasts of {', '.join(failed)} cannot be made again"
        )
    if note:
        logger.warning("{}", note)
    if note and (rows or (not is_tracked and _is_tracked_now(settings))):
        message = f"Archive {done.archive} was restored. {note}"
        return Completed(name="CompletedWithWarning", message=message, data=document)
    return document


def _nothing_replayed(rows: list[Document], is_tracked: bool) -> str | None:
    """Why no forecast of an archive was replayed; None where one was."""
    if not is_tracked:
        return "It has no tracking database, so no forecast was replayed."
    if not rows:
        return "No model in it is a champion yet, so no forecast was replayed."
    if all(row["run_id"] is None for row in rows):
        models = ", ".join(row["model"] for row in rows)
        return f"None of its champions has published a forecast yet, so none was replayed: {models}."
    return None


def _is_tracked_now(settings: Settings) -> bool:
    """Whether there is a tracking database that an archive should have."""
    path = sqlite_path(settings.mlflow_uri)
    return settings.tracking.is_on and (path is None or path.is_file())


@contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    """A folder on the disk of the data, where there is room for it; those that nobody holds any more go first."""
    with ExitStack() as stack:
        with _held(root):  # or another drill could find this one's folder before it is held
            for left in root.glob(f"{_DRILL}*"):
                with suppress(OSError), _held(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    shutil.rmtree(left, ignore_errors=True)
            scratch = TemporaryDirectory(prefix=_DRILL, dir=root)
            stack.enter_context(_held(Path(scratch.name)))
            stack.callback(scratch.cleanup)
        yield Path(scratch.name) / "restored"


@contextmanager
def _held(folder: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """A lock on a folder, which ends with its process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
