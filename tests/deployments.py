"""A deployment of tests, its archives, what is in both; and a tracking store of before."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from forex_core.backup import Backups, Created, manifest
from forex_core.backup.manifest import Entry
from forex_core.config import load_settings
from forex_core.tracking import ArchivedStore, MLflowTracker


class Deployment:
    """A data folder, its archives in a place beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.place = folder / "archives"
        (self.data / "reports").mkdir(parents=True, exist_ok=True)

    @property
    def backups(self) -> Backups:
        return Backups(load_settings(), ArchivedStore())

    def report(self, name: str, content: bytes = b"a report", *, ago_s: float = 0) -> Path:
        path = self.data / "reports" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if ago_s:
            os.utime(path, (time.time() - ago_s,) * 2)
        return path

    def run(self, name: str = "a run", files: dict[str, bytes] | None = None) -> str:
        uri = f"sqlite:///{self.data / 'mlflow' / 'mlflow.db'}"
        root = (self.data / "mlflow" / "mlruns").as_uri()
        with MLflowTracker(uri, "forecaster_7d", artifact_location=root) as tracker:
            tracker.log_params({"name": name})
            tracker.log_metrics({"7d_rmse": 1.5})
            for file, content in (files or {"report.html": b"page of " + name.encode()}).items():
                (self.folder / file).write_bytes(content)
                tracker.log_artifact(self.folder / file, "reports")
        return str(tracker.run_id)

    def create(self, **options: Any) -> Created:
        return self.backups.create(str(self.place), **options)

    def restored(self, made: Created, name: str = "restored") -> Path:
        return self.backups.restore(made.archive, self.folder / name).folder

    def objects(self) -> list[Path]:
        return sorted(path for path in (self.place / "objects").rglob("*") if path.is_file())

    def manifests(self) -> list[Path]:
        return sorted(self.place.glob("*.jsonl.zst"))


def tree(folder: Path) -> dict[str, tuple[bytes | None, int]]:
    """Content and mode of every file, and every empty folder, below a folder."""
    found: dict[str, tuple[bytes | None, int]] = {}
    for path in sorted(folder.rglob("*")):
        relative, mode = str(path.relative_to(folder)), stat.S_IMODE(path.stat().st_mode)
        if path.is_file():
            found[relative] = (path.read_bytes(), mode)
        elif not any(path.iterdir()):
            found[relative] = (None, mode)
    return found


def rows(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        tables = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
        ]
        return {name: sorted(connection.execute(f'SELECT * FROM "{name}"'), key=repr) for name in tables}


def entries_of(made: Created | str) -> list[Entry]:
    path = Path(made if isinstance(made, str) else made.archive)
    return list(manifest.entries(path.name, lambda: path.open("rb")))


def object_of(deployment: Deployment, made: Created | str, path: str) -> Path:
    """Where the content of one of an archive's files is."""
    (digest,) = (str(entry.sha256) for entry in entries_of(made) if entry.path == path)
    return deployment.place / "objects" / digest[:2] / digest


def older_store(path: Path) -> None:
    """A store as the MLflow before the last change of its tables made it, with a run."""
    import logging

    import sqlalchemy
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base

    config = utils._get_alembic_config(f"sqlite:///{path}")
    head = ScriptDirectory.from_config(config).get_current_head()
    before = ScriptDirectory.from_config(config).get_revision(str(head)).down_revision
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    command.upgrade(config, str(before))
    logging.disable(level)
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace) "
            "VALUES (0, 'Default', ?, 'active', 'default')",
            ((path.parent / "mlruns" / "0").as_uri(),),
        )
        connection.execute(
            "INSERT INTO runs "
            "(run_uuid, name, user_id, status, start_time, experiment_id, lifecycle_stage, artifact_uri) "
            "VALUES (?, 'old', 'me', 'FINISHED', 1, 0, 'active', ?)",
            ("a" * 32, (path.parent / "mlruns" / "0").as_uri()),
        )
