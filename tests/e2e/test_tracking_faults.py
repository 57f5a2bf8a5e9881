"""docs/tracking.md cannot drift: each fault is caused, shows the words given there, and its cure there is run."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer.main
from click.testing import CliRunner
from typer.testing import CliRunner as TyperRunner

from forex_core.cli import app
from forex_core.config import ChronosConfig, EngineConfig, Settings, known_names, load_settings
from forex_core.engine import Engine, build_members
from forex_core.errors import ForecastError, ForexError, InputError, TrackingError, TrackingUnavailable
from forex_core.specification import Specification, frame_of
from forex_core.testing import bundle_of, synthetic_table
from forex_core.tracking import (
    MLflowConfig,
    MLflowTracker,
    Registry,
    open_store,
    replay_spool,
    tracker_from_settings,
)
from forex_core.tracking import store as room
from forex_core.tracking.candidacy import Candidacy
from forex_core.tracking.packaging import import_mlflow, save_model
from forex_core.tracking.replay import last_published
from forex_core.tracking.store import release
from forex_core.types import Horizon, Pair
from tests.deployments import older_store
from tests.faults import damage
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PAGE = (ROOT / "docs" / "tracking.md").read_text(encoding="utf-8")
LIGHT = EngineConfig(members=("random_walk", "drivers", "momentum"), grid_origins=60, warmup_origins=8)
WEEK, USDCLP = Horizon(7), Pair("USD", "CLP")
EXPERIMENT = "forecaster_7d"


# --- the document


def section(name: str) -> str:
    return PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


FAULTS = dict(re.findall(r"^### (.+)\n((?:.*\n?)*?)(?=^### |\Z)", section("Faults"), re.MULTILINE))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def shows(fault: str, text: object, symptom: int = 0) -> None:
    """`text` has the words that the document gives for the fault."""
    given = (
        blocks(FAULTS[fault], "text")[0].splitlines()[symptom].removeprefix("Error: ").removeprefix("error: ")
    )
    words = ".+".join(re.escape(part.strip()) for part in given.split("…"))
    assert re.search(words, " ".join(str(text).split())), (given, str(text))


def covers(*faults: str) -> Callable[[Any], Any]:
    return pytest.mark.parametrize("fault", faults)


def test_every_fault_has_its_test_here() -> None:
    covered = set(re.findall(r'^@covers\("(.+)"\)', Path(__file__).read_text(encoding="utf-8"), re.MULTILINE))
    assert covered == set(FAULTS)
    assert all(blocks(text, "text") for text in FAULTS.values())


class Shell:
    """Runs a cure of the document, with places and names of the test put in."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def filled(self, text: str, names: dict[str, str]) -> str:
        text = text.replace("/srv/forex/data", str(self.folder / "data")).replace("/srv/", f"{self.folder}/")
        for name, value in names.items():
            assert name in text
            text = text.replace(name, value)
        return text

    def cure(self, fault: str, block: int = 0, **names: str) -> str:
        """What the block's commands say, one after the other; each has to succeed."""
        text = self.filled(blocks(FAULTS[fault], "console")[block], names)
        return "".join(self.run(line) for line in text.splitlines())

    def run(self, line: str) -> str:
        program, *arguments = shlex.split(line)
        if program == "export":
            self._monkeypatch.setenv(*arguments[0].split("=", 1))
            return ""
        if program == "forex":
            return forex_says(*arguments)
        if program == "mlflow":
            return mlflow_says(*arguments)
        if program == "pip":
            line = shlex.join([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments])
        done = subprocess.run(
            line,
            shell=True,
            executable="/bin/bash",
            cwd=self.folder,
            env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def forex_says(*arguments: str) -> str:
    done = TyperRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    if isinstance(done.exception, ForexError):
        raise done.exception
    assert done.exit_code == 0, done.exception
    return done.stdout


def mlflow_says(*arguments: str) -> str:
    """MLflow's command in this process: starting it takes four seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.cli import cli

        done = CliRunner().invoke(cli, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(tmp_path, monkeypatch)


@pytest.fixture
def settings(sqlite_store: str) -> Settings:
    """Those of the test's data folder, which has a migrated store."""
    found = load_settings()
    assert found.mlflow_uri == sqlite_store
    return found


@pytest.fixture
def run_id(settings: Settings, tmp_path: Path) -> str:
    """A run with a file."""
    (tmp_path / "note.txt").write_text("here")
    with tracker_of(settings) as tracker:
        tracker.log_metrics({"m": 1.0})
        tracker.log_artifact(tmp_path / "note.txt")
    return str(tracker.run_id)


def tracker_of(settings: Settings) -> MLflowTracker:
    found = tracker_from_settings(settings, EXPERIMENT)
    assert isinstance(found, MLflowTracker)
    return found


def database(settings: Settings) -> Path:
    return settings.root / "mlflow" / "mlflow.db"


def mlflow_error() -> type[Exception]:
    from mlflow.exceptions import MlflowException

    return MlflowException


@contextmanager
def serving(line: str, folder: Path, port: int) -> Iterator[str]:
    """A server of the document, in a process group of its own; its address."""
    process = subprocess.Popen(
        line,
        shell=True,
        cwd=folder,
        env=os.environ
        | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 240
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
            except OSError:
                assert process.poll() is None, line
                assert time.monotonic() < until, line
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# --- runs and experiments


@covers("Run already active")
def test_run_already_active(fault: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.mlflow_uri)
    with tracker_of(settings) as tracker:
        try:
            mlflow.start_run()  # beside ours, which is active
            with pytest.raises(Exception, match="active") as caught:
                mlflow.start_run()
            shows(fault, caught.value)
            assert tracker.start_run() == tracker.run_id, "ours adopts"
            namespace: dict[str, Any] = {}
            exec(blocks(FAULTS[fault], "python")[0], namespace)
        finally:
            while mlflow.active_run():
                mlflow.end_run()
        assert namespace["run"].info.run_id != tracker.run_id
        assert open_store(settings.mlflow_uri).get_run(namespace["run"].info.run_id).data.metrics == {
            "sharpe": 0.8
        }
        assert open_store(settings.mlflow_uri).get_run(str(tracker.run_id)).info.status == "RUNNING"


@covers("Run not found")
def test_run_not_found(
    fault: str,
    run_id: str,
    shell: Shell,
    migrated_sqlite: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copyfile(migrated_sqlite, tmp_path / "mlflow.db")  # as MLflow makes it in the current folder
    with pytest.raises(mlflow_error()) as caught:
        mlflow_says("runs", "describe", "--run-id", run_id)
    shows(fault, caught.value)
    (tmp_path / "other" / "mlflow").mkdir(parents=True)
    shutil.copyfile(migrated_sqlite, tmp_path / "other" / "mlflow" / "mlflow.db")
    with monkeypatch.context() as other:
        other.setenv("FOREX_DATA_DIR", str(tmp_path / "other"))
        with pytest.raises(InputError) as refused:
            forex_says("runs", "show", run_id[:8])
    shows(fault, refused.value, 1)
    assert run_id in shell.cure(fault, RUN_ID=run_id)
    assert run_id in forex_says("runs", "show", run_id[:8], "--json")
    with pytest.raises(mlflow_error()) as caught:
        mlflow_says("runs", "describe", "--run-id", run_id[:8])
    shows(fault, caught.value)
    release(f"sqlite:///{tmp_path / 'other' / 'mlflow' / 'mlflow.db'}")


@covers("Run deleted")
def test_run_deleted(
    fault: str, run_id: str, settings: Settings, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    open_store(settings.mlflow_uri).delete_run(run_id)
    with pytest.raises(InputError) as refused:
        forex_says("runs", "show", run_id[:8])
    shows(fault, refused.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.mlflow_uri)
    with pytest.raises(mlflow_error()) as caught:
        mlflow.start_run(run_id=run_id)
    shows(fault, caught.value, 1)
    shell.cure(fault, RUN_ID=run_id)
    assert json.loads(forex_says("runs", "show", run_id[:8], "--json"))["id"] == run_id
    with tracker_of(settings) as tracker:
        open_store(settings.mlflow_uri).delete_run(str(tracker.run_id))
    shell.cure(fault, RUN_ID=str(tracker.run_id))
    assert "`forex tracking replay` after this" in FAULTS[fault]
    forex_says("tracking", "replay")
    assert open_store(settings.mlflow_uri).get_run(str(tracker.run_id)).info.status == "FINISHED"


@pytest.mark.slow
def test_a_deleted_run_that_is_swept_out(
    deployment: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By MLflow's own command. The champion that it made stays and publishes on; what it published is gone."""
    monkeypatch.setenv("FOREX_PATHS", str(tmp_path / "market.csv"))
    monkeypatch.setenv("FOREX_PAIR", "USDCLP")
    for day in ("2018-05-04", "2018-06-08"):
        forex_says("forecast", "7d", "--as-of", day)
    registry = Registry(deployment.mlflow_uri, deployment.mlflow_artifacts, deployment.root)
    champion = registry.standing("usdclp-7d").champion
    assert champion is not None
    gone = str(champion.run_id)
    registry.client.delete_run(gone)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    uri = deployment.mlflow_uri
    for options, swept in (
        (("--tracking-uri", uri), False),
        (("--backend-store-uri", uri), False),
        (("--tracking-uri", uri, "--backend-store-uri", uri), True),
    ):
        done = subprocess.run(
            [str(BIN / "mlflow"), "gc", *options],
            cwd=elsewhere,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (f"{gone} has been permanently deleted" in done.stdout) == swept, done.stdout + done.stderr
    assert "`--tracking-uri` and `--backend-store-uri`" in " ".join(FAULTS["Run deleted"].split())

    assert registry.standing("usdclp-7d").champion == champion
    assert registry.model(champion)[0].horizon == WEEK
    assert last_published(registry) == {"usdclp-7d": None}
    with pytest.raises(InputError, match=f"no run begins with {gone}"):
        forex_says("replay", gone)
    forex_says("forecast", "7d", "--as-of", "2018-06-15")
    newest = json.loads(forex_says("models", "list", "--json"))["models"]
    assert [(one["version"], one["aliases"]) for one in newest[:2]] == [(3, ["champion"]), (2, ["previous"])]
    made = json.loads(forex_says("backup", "create", "--json"))
    assert made["missing"] == []
    forex_says("backup", "verify", "latest")


@covers("Experiment deleted")
def test_experiment_deleted(fault: str, run_id: str, settings: Settings, shell: Shell) -> None:
    client = open_store(settings.mlflow_uri)
    experiment = client.get_run(run_id).info.experiment_id
    client.delete_experiment(experiment)
    with pytest.raises(TrackingError) as caught:
        tracker_of(settings).start_run()
    shows(fault, caught.value)
    shell.cure(fault, **{" ID": f" {experiment}"})
    with tracker_of(settings) as tracker:
        pass
    assert client.get_run(run_id).info.lifecycle_stage == "active"
    assert tracker.degraded is None


# --- places


def with_model(settings: Settings, folder: Path) -> str:
    """A registered version, with files that MLflow would take for a model's."""
    files = folder / "model"
    (files / "artifacts").mkdir(parents=True)
    (files / "MLmodel").write_text("flavors:\n  python_function: {}\n")
    with tracker_of(settings) as tracker:
        address = tracker.log_model(files, "model")
    assert address is not None
    registry = Registry(settings.mlflow_uri, settings.mlflow_artifacts, settings.root)
    registry.succeed(registry.standing("usdclp-7d"), registry.register_model("usdclp-7d", address))
    return str(tracker.run_id)


@covers("Files not visible")
def test_files_not_visible(
    fault: str, migrated_sqlite: Path, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREX_DATA_DIR", str(tmp_path / "old" / "data"))
    (tmp_path / "old" / "data" / "mlflow").mkdir(parents=True)
    shutil.copyfile(migrated_sqlite, tmp_path / "old" / "data" / "mlflow" / "mlflow.db")
    old = load_settings()
    run_id = with_model(old, tmp_path)
    (tmp_path / "note.txt").write_text("here")
    open_store(old.mlflow_uri).log_artifact(run_id, str(tmp_path / "note.txt"))
    release(old.mlflow_uri)
    (tmp_path / "old" / "data").rename(tmp_path / "data")

    monkeypatch.setenv("FOREX_DATA_DIR", str(tmp_path / "data"))
    new = load_settings()
    registry = Registry(new.mlflow_uri)
    champion = registry.standing("usdclp-7d").champion
    assert champion is not None
    assert json.loads(forex_says("runs", "show", run_id, "--json"))["artifacts"] == []
    with pytest.raises(TrackingError) as caught:
        registry.folder(champion)
    shows(fault, caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new.mlflow_uri)
    import_mlflow()
    from mlflow.pyfunc import load_model

    with pytest.raises(mlflow_error()) as failed:
        load_model("models:/usdclp-7d@champion")
    shows(fault, failed.value, 1)

    shell.cure(fault)
    (artifact,) = json.loads(forex_says("runs", "show", run_id, "--json"))["artifacts"]
    assert artifact["path"] == "note.txt"
    champion = registry.standing("usdclp-7d").champion
    assert champion is not None
    assert registry.folder(champion).is_relative_to(tmp_path / "data")
    assert len(list((tmp_path / "data" / "mlflow").glob("before-relocate-*.db"))) == 1
    release(new.mlflow_uri)


def test_files_at_relative_places(run_id: str, settings: Settings, shell: Shell, tmp_path: Path) -> None:
    """A store that an old MLflow left its relative places in, with its files in the folder that it was started in."""
    here = tmp_path / "notebooks"
    shutil.move(settings.root / "mlflow" / "mlruns", here / "mlruns")
    with closing(sqlite3.connect(database(settings))) as connection, connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = './mlruns/forecaster_7d' WHERE experiment_id != 0"
        )
        connection.execute(f"UPDATE runs SET artifact_uri = './mlruns/forecaster_7d/{run_id}/artifacts'")
    assert json.loads(forex_says("runs", "show", run_id, "--json"))["artifacts"] == []
    shutil.copytree(here / "mlruns", settings.root / "mlflow" / "mlruns")
    os.chdir(here)
    line = blocks(FAULTS["Files not visible"], "console")[0].strip()
    old, new = "/srv/old/data/mlflow", "/srv/forex/data/mlflow"
    assert "`--from mlruns`" in FAULTS["Files not visible"]
    shell.run(shell.filled(line.replace(f"--from {old}", "--from mlruns").replace(new, f"{new}/mlruns"), {}))
    os.chdir(tmp_path)
    (artifact,) = json.loads(forex_says("runs", "show", run_id, "--json"))["artifacts"]
    assert artifact["path"] == "note.txt"


@pytest.mark.slow
@covers("Store refused for its files")
def test_store_refused_for_its_files(
    fault: str, settings: Settings, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.mlflow_uri)
    (tmp_path / "notebooks").mkdir()
    code = "import mlflow; mlflow.set_experiment('mine'); mlflow.start_run(); mlflow.log_text('here', 'note.txt')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "notebooks", check=True, capture_output=True)
    with pytest.raises(TrackingError) as caught:
        tracker_of(settings).start_run()
    shows(fault, caught.value)
    said = re.search(r"'forex (tracking relocate --from \S+ --to \S+)'", str(caught.value))
    assert said is not None
    assert shell.filled(blocks(FAULTS[fault], "console")[0].splitlines()[1], {}) == f"forex {said[1]}", (
        "the same"
    )
    shell.cure(fault)
    shutil.rmtree(tmp_path / "notebooks")
    with tracker_of(settings):
        pass
    client = open_store(settings.mlflow_uri)
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["note.txt"]


# --- databases


def spooled(settings: Settings) -> int:
    return len([p for p in settings.spool_dir.glob("*") if p.is_dir()]) if settings.spool_dir.exists() else 0


@covers("Database locked")
def test_database_locked(
    fault: str, settings: Settings, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"waits {room.BUSY_S} s" in FAULTS[fault]
    monkeypatch.setattr(room, "BUSY_S", 1)
    with tracker_of(settings) as tracker:
        release(settings.mlflow_uri)  # of connections that wait as long as MLflow has told them to
        holder = sqlite3.connect(database(settings))
        holder.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        tracker.log_metrics({"a": 1.0})
        assert time.monotonic() - started > 0.9
        assert forex_says("runs", "list", "7d"), "reading goes on"
        monkeypatch.setattr(room, "BUSY_S", 200)
        release(settings.mlflow_uri)  # or it would wait for a second again
        started = time.monotonic()
        tracker.log_metrics({"b": 2.0})
        assert time.monotonic() - started < 60, "it waits once"
        holder.close()
    shows(fault, tracker.degraded)
    assert spooled(settings) == 1
    shell.cure(fault)
    assert spooled(settings) == 0
    run = open_store(settings.mlflow_uri).get_run(str(tracker.run_id))
    assert (run.data.metrics, run.info.status) == ({"a": 1.0, "b": 2.0}, "FINISHED")


@covers("Database damaged")
@pytest.mark.parametrize("symptom", [0, 1])
def test_database_damaged(fault: str, symptom: int, settings: Settings, shell: Shell, run_id: str) -> None:
    forex_says("backup", "create")
    release(settings.mlflow_uri)
    with tracker_of(settings) as tracker:
        if symptom == 0:
            damage(database(settings))
        else:
            database(settings).write_bytes(b"no database" * 9999)
        release(settings.mlflow_uri)
        tracker.log_metrics({"a": 1.0})
    shows(fault, tracker.degraded, symptom)
    assert "'forex backup restore latest'" in str(tracker.degraded)
    assert spooled(settings) == 1
    release(settings.mlflow_uri)
    shell.cure(fault)
    assert spooled(settings) == 0
    client = open_store(settings.mlflow_uri)
    assert client.get_run(run_id).data.metrics == {"m": 1.0}
    (run,) = [run for run in client.search_runs(["1"]) if run.info.run_id != run_id]
    assert (run.data.metrics, run.info.status) == ({"a": 1.0}, "FINISHED")


@covers("Database replaced under a program")
def test_database_replaced(
    fault: str, settings: Settings, shell: Shell, migrated_sqlite: Path, tmp_path: Path
) -> None:
    with tracker_of(settings) as tracker:
        database(settings).rename(tmp_path / "right.db")
        shutil.copyfile(migrated_sqlite, database(settings))
        tracker.log_metrics({"a": 1.0})
    shows(fault, tracker.degraded)
    (tmp_path / "right.db").replace(database(settings))
    shell.cure(fault)
    assert open_store(settings.mlflow_uri).get_run(str(tracker.run_id)).data.metrics == {"a": 1.0}
    with (
        tracker_of(settings) as lost,
        closing(sqlite3.connect(migrated_sqlite)) as empty,
        closing(sqlite3.connect(database(settings))) as live,
    ):
        empty.backup(live)
    shows(fault, lost.degraded, 1)
    shell.cure(fault)
    found = open_store(settings.mlflow_uri).get_experiment_by_name(EXPERIMENT)
    assert found is not None
    (run,) = open_store(settings.mlflow_uri).search_runs([found.experiment_id])
    assert "records_lost" in run.data.tags
    assert "`records_lost`" in FAULTS[fault]


def rows_of(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT version_num, (SELECT count(*) FROM runs) FROM alembic_version"
        ).fetchall()


@pytest.mark.slow
@covers("Store of another MLflow")
def test_store_of_an_older_mlflow(fault: str, shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "data" / "mlflow" / "mlflow.db"
    path.parent.mkdir(parents=True)
    older_store(path)
    before = rows_of(path)
    settings = load_settings()
    for attempt in (lambda: forex_says("runs", "show", "aaaa"), lambda: tracker_of(settings).start_run()):
        with pytest.raises(TrackingError) as caught:
            attempt()
        shows(fault, caught.value)
        assert not isinstance(caught.value, TrackingUnavailable), "spooling would not cure it"
        assert rows_of(path) == before, "nothing is migrated by the way"
    said = re.search(r"'(mlflow db upgrade \S+)'", str(caught.value))
    assert said is not None
    assert said[1] == shell.filled(blocks(FAULTS[fault], "console")[0].splitlines()[1], {}), "the same"
    shell.cure(fault)
    assert rows_of(tmp_path / "data" / "backups" / "before-upgrade.db") == before
    with tracker_of(settings):
        pass
    assert rows_of(path) == [(rows_of(path)[0][0], 2)]
    assert rows_of(path)[0][0] != before[0][0]
    assert json.loads(forex_says("runs", "show", "aaaa", "--json"))["name"] == "old"
    release(settings.mlflow_uri)


def test_store_of_a_newer_mlflow(settings: Settings, shell: Shell, tmp_path: Path, run_id: str) -> None:
    fault = "Store of another MLflow"
    shell.run(shell.filled(blocks(FAULTS[fault], "console")[0].splitlines()[0], {}))
    release(settings.mlflow_uri)
    room._tuned.pop(settings.mlflow_uri)  # as a new process
    with closing(sqlite3.connect(database(settings))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(TrackingError) as caught:
        tracker_of(settings).start_run()
    shows(fault, caught.value, 1)
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with pytest.raises(mlflow_error()) as refused:
        SqlAlchemyStore(settings.mlflow_uri, "mlruns")
    shows(fault, refused.value, 2)
    shell.cure(fault, 1)
    with tracker_of(settings) as tracker:
        pass
    assert tracker.degraded is None
    assert open_store(settings.mlflow_uri).get_run(run_id).data.metrics == {"m": 1.0}


@contextmanager
def full_disk(room_left: int) -> Iterator[None]:
    """No file may grow past `room_left` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def full_database(uri: str) -> Iterator[None]:
    """SQLite answers as on a disk without room, by its own limit."""
    from sqlalchemy import event

    engine = room.open_engine(uri)
    assert engine is not None

    def limit(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # means: no more than there are

    event.listen(engine, "connect", limit)
    engine.dispose()
    try:
        yield
    finally:
        event.remove(engine, "connect", limit)
        engine.dispose()


@covers("Disk full")
@pytest.mark.parametrize("symptom", [0, 1])
def test_disk_full(fault: str, symptom: int, settings: Settings, shell: Shell) -> None:
    many = {f"m{n}": float(n) for n in range(2000)}
    logged = many if symptom == 0 else {"m0": 0.0}  # what the spool takes within the limit
    with tracker_of(settings) as tracker:
        tracker.log_metrics({"before": 1.0})
        with full_database(settings.mlflow_uri) if symptom == 0 else full_disk(8000):
            tracker.log_metrics(logged)
    shows(fault, tracker.degraded, symptom)
    settings.cache_dir.mkdir()
    shell.cure(fault)
    assert not settings.cache_dir.exists()
    metrics = open_store(settings.mlflow_uri).get_run(str(tracker.run_id)).data.metrics
    assert metrics == {"before": 1.0} | logged


def test_disk_full_for_the_spool_as_well(settings: Settings) -> None:
    with pytest.raises(TrackingError) as caught, tracker_of(settings) as tracker, full_disk(0):
        tracker.log_metrics({"a": 1.0})
    shows("Disk full", caught.value, 2)


@covers("Spool that stays")
def test_spool_that_stays(fault: str, settings: Settings, shell: Shell, run_id: str) -> None:
    broken = settings.spool_dir / "spooled-broken"
    broken.mkdir(parents=True)
    (broken / "run.json").write_text("{")
    late = tracker_of(settings)
    away = database(settings).with_name("away")
    database(settings).rename(away)
    database(settings).write_text("no database" * 999)
    with late:
        late.log_metrics({"late": 1.0})
    away.replace(database(settings))
    client = open_store(settings.mlflow_uri)
    experiment = client.get_run(run_id).info.experiment_id
    client.delete_experiment(experiment)
    with pytest.raises(TrackingError) as caught:
        forex_says("tracking", "replay")
    shows(fault, f"error: {caught.value}")
    reasons = [str(one.reason) for one in replay_spool(settings.spool_dir, settings.mlflow_uri)]
    assert sorted("restore" in reason for reason in reasons) == [False, True]
    assert sum("cannot be read" in reason for reason in reasons) == 1
    client.restore_experiment(experiment)
    first, second = shell.filled(blocks(FAULTS[fault], "console")[0], {"ENTRY": broken.name}).splitlines()
    with pytest.raises(TrackingError, match="1 of 2"):
        shell.run(first)
    shell.run(second)
    assert json.loads(shell.run(first)) == {"entries": []}
    assert spooled(settings) == 0
    names = {name for run in client.search_runs([experiment]) for name in run.data.metrics}
    assert names == {"m", "late"}


@covers("Files that stay in the spool")
def test_files_that_stay_in_the_spool(fault: str, settings: Settings, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("here")
    with tracker_of(settings) as tracker:
        tracker.log_artifact(tmp_path / "note.txt", "notes")
        with full_database(settings.mlflow_uri):
            tracker.log_metrics({f"m{n}": float(n) for n in range(2000)})
        assert tracker.degraded
        tracker.log_artifact(tmp_path / "note.txt", "notes/note.txt")
    with pytest.raises(TrackingError):
        forex_says("tracking", "replay")
    ((kept,),) = json.loads(TyperRunner().invoke(app, ["tracking", "replay", "--json"]).stdout).values()
    shows(fault, kept["reason"])
    client = open_store(settings.mlflow_uri)
    run = client.get_run(str(tracker.run_id))
    assert (run.info.status, len(run.data.metrics)) == ("FINISHED", 2000)
    (number,) = [path.stem for path in (settings.spool_dir / kept["spool_id"]).glob("[0-9]*.json")]
    shell.cure(fault, RUN_ID=str(tracker.run_id), ENTRY=kept["spool_id"], **{"0001": number})
    assert [file.path for file in client.list_artifacts(run.info.run_id, "elsewhere")] == [
        "elsewhere/note.txt"
    ]
    assert json.loads(forex_says("tracking", "replay", "--json")) == {"entries": []}


@covers("Entries of another store")
@pytest.mark.parametrize("block", [0, 1])
def test_entries_of_another_store(
    fault: str, block: int, settings: Settings, shell: Shell, tmp_path: Path, migrated_sqlite: Path
) -> None:
    own = tmp_path / "own" / "mlflow.db"
    own.parent.mkdir()
    shutil.copyfile(migrated_sqlite, own)
    uri = f"sqlite:///{own}"
    mine = MLflowConfig(uri)
    with mine.start_run() as tracker:
        own.rename(tmp_path / "away.db")
        tracker.log_metrics({"a": 1.0})
    (tmp_path / "away.db").rename(own)
    with pytest.raises(TrackingError, match="1 of 1"):
        forex_says("tracking", "replay")
    ((kept,),) = json.loads(TyperRunner().invoke(app, ["tracking", "replay", "--json"]).stdout).values()
    shows(fault, kept["reason"])
    command = shell.filled(blocks(FAULTS[fault], "console")[block], {}).strip()
    assert f"'{command}'" in kept["reason"]
    shell.cure(fault, block)
    assert spooled(settings) == 0
    here = open_store(settings.mlflow_uri).get_experiment_by_name("forex")
    assert (here is None) == (block == 0)
    run = open_store(uri).get_run(str(tracker.run_id))
    assert run.data.metrics == ({"a": 1.0} if block == 0 else {})
    release(uri)


# --- servers and drivers


@covers("PostgreSQL driver missing")
def test_postgresql_driver_missing(
    fault: str, shell: Shell, postgres_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREX_TRACKING_URI", postgres_store)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "psycopg", None)
        with pytest.raises(TrackingError) as caught:
            forex_says("experiments", "list")
    shows(fault, caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres_store)
    with pytest.raises(ImportError) as failed:
        mlflow_says("experiments", "search")
    shows(fault, failed.value, 1)
    with tracker_of(load_settings()):
        pass
    export, command = blocks(FAULTS[fault], "console")[1].splitlines()
    shell.run(
        export.replace("postgresql+psycopg://user@host/database", postgres_store.replace(":", "+psycopg:", 1))
    )
    assert EXPERIMENT in shell.run(command)
    assert EXPERIMENT in forex_says("experiments", "list")


@pytest.mark.slow
def test_postgresql_driver_is_what_the_documented_extra_installs(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # it is here already
    said = shell.cure("PostgreSQL driver missing")
    found = re.search(r"satisfied: psycopg\[binary\].*forex-forecast\[postgres\]", said)
    assert found, "the installed package is older than pyproject.toml: make install"


@pytest.mark.slow
@covers("Tracking server down")
def test_tracking_server_down(fault: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_RETRIES", "TIMEOUT"):
        assert f"`MLFLOW_HTTP_REQUEST_{name}`" in FAULTS[fault]
    assert room._ENVIRONMENT["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"
    assert room._ENVIRONMENT["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "15"
    monkeypatch.setenv("FOREX_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    started = time.monotonic()
    candidacy = Candidacy.of(load_settings(), USDCLP, WEEK)
    assert candidacy is not None
    with pytest.raises(TrackingUnavailable) as caught, candidacy:
        pass
    assert time.monotonic() - started < 60
    shows(fault, caught.value)
    shows(fault, caught.value, 1)
    monkeypatch.setenv("FOREX_TRACKING__ENABLED", "false")
    assert Candidacy.of(load_settings(), USDCLP, WEEK) is None
    monkeypatch.delenv("FOREX_TRACKING__ENABLED")
    with tracker_of(load_settings()) as tracker:
        tracker.log_metrics({"a": 1.0})
    shows(fault, tracker.degraded)
    assert spooled(settings) == 1


@pytest.mark.slow
def test_tracking_server_is_started_and_takes_what_waits(
    settings: Settings, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("FOREX_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("FOREX_ARTIFACT_URI", "")
    with tracker_of(load_settings()) as tracker:
        tracker.log_metrics({"a": 1.0})
    assert tracker.degraded
    command, replay = shell.filled(
        blocks(FAULTS["Tracking server down"], "console")[0], {"5000": str(port)}
    ).splitlines()
    with serving(command, settings.root, port):
        shell.run(replay)
        assert EXPERIMENT in forex_says("experiments", "list")
        with tracker_of(load_settings()) as after:
            after.log_metrics({"b": 1.0})
        assert after.degraded is None
    assert spooled(settings) == 0
    found = open_store(settings.mlflow_uri).get_experiment_by_name(EXPERIMENT)
    assert found is not None
    assert len(open_store(settings.mlflow_uri).search_runs([found.experiment_id])) == 2


@pytest.mark.slow
@covers("Empty user interface")
def test_empty_user_interface(
    fault: str, run_id: str, settings: Settings, shell: Shell, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    port = free_port()
    remove, ui = shell.filled(blocks(FAULTS[fault], "console")[0], {"5000": str(port)}).splitlines()

    def shown(line: str) -> set[str]:
        with serving(line, elsewhere, port) as address:
            asked = urllib.request.Request(
                f"{address}/api/2.0/mlflow/experiments/search",
                json.dumps({"max_results": 10}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return {one["name"] for one in json.load(answer)["experiments"]}

    assert shown(ui.partition(" --backend-store-uri")[0]) == {blocks(FAULTS[fault], "text")[0].strip()}
    assert (elsewhere / "mlflow.db").is_file()
    subprocess.run(shlex.split(remove), cwd=elsewhere, check=True)
    assert EXPERIMENT in shown(ui)
    assert not (elsewhere / "mlflow.db").exists()


# --- models


@pytest.fixture
def deployment(
    settings: Settings, prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Light settings, and a file of USD/CLP beside the data folder."""
    synthetic_table(900, seed=5).to_csv(tmp_path / "market.csv", index=False)
    monkeypatch.setenv("FOREX_ENGINE", LIGHT.model_dump_json())
    return settings


@pytest.mark.slow
@covers("No champion yet")
def test_no_champion_yet(
    fault: str, deployment: Settings, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_mlflow()
    from mlflow.pyfunc import load_model

    monkeypatch.setenv("MLFLOW_TRACKING_URI", deployment.mlflow_uri)
    for symptom in range(2):
        with pytest.raises(mlflow_error()) as caught:
            load_model("models:/usdclp-7d@champion")
        shows(fault, caught.value, symptom)
        if symptom == 0:
            open_store(deployment.mlflow_uri).create_registered_model("usdclp-7d")
    assert "champion" in shell.cure(fault)
    (snapshot,) = deployment.reports_dir.rglob("snapshot.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model("models:/usdclp-7d@champion")
        assert len(model.predict(pd.read_parquet(snapshot))) > 3


RECIPE = """
import sys
sys.path.insert(0, sys.argv[1])
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import Engine, build_members
config = EngineConfig.model_validate_json(sys.argv[2])
print(Engine(config, build_members(config, ChronosConfig())).recipe)
"""


@pytest.mark.slow
@covers("Model refused beside other code")
def test_model_refused_beside_other_code(
    fault: str, settings: Settings, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_of(synthetic_table(760, seed=5))
    run = Engine(LIGHT, build_members(LIGHT, ChronosConfig())).forecast(bundle, WEEK)
    specification = Specification.of(run, bundle, LIGHT, ChronosConfig())
    folder = save_model(specification, frame_of(bundle), settings.root / "model")
    edited = folder / "code" / "forex_core" / "models" / "driver_regression.py"
    edited.write_text(edited.read_text(encoding="utf-8") + "# of another day\n", encoding="utf-8")
    asked = [sys.executable, "-P", "-c", RECIPE, str(folder / "code"), LIGHT.model_dump_json()]
    recipe = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    document = folder / "artifacts" / "specification.json"
    document.write_text(replace(specification, recipe=recipe).to_json(), encoding="utf-8")
    registry = Registry(settings.mlflow_uri, settings.mlflow_artifacts, settings.root)
    registry.succeed(registry.standing("usdclp-7d"), registry.register_model("usdclp-7d", folder.as_uri()))
    frame = frame_of(bundle)
    frame.to_parquet(tmp_path / "snapshot.parquet")

    from mlflow.pyfunc import load_model

    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.mlflow_uri)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model("models:/usdclp-7d@champion")
        with pytest.raises(ForecastError) as caught:
            model.predict(frame)
    shows(fault, caught.value)
    said = shell.cure(fault)
    assert "target_date" in said
    assert str(run.forecast.target_dates[0]) in said


# --- the rest of the page


def commands() -> list[list[str]]:
    """Every `forex …` of the page, in blocks and in the text."""
    lines = [line for block in blocks(PAGE, "console") for line in block.splitlines()]
    lines += re.findall(r"`(forex [^`]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("forex ")]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_documented_commands_and_options_exist(command: list[str]) -> None:
    found: Any = typer.main.get_command(app)
    rest = list(command)
    while hasattr(found, "commands"):
        found = found.commands[rest.pop(0)]
    known = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known


def test_documented_settings_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = [row for row in section("Back ends").splitlines() if row.startswith("| `tracking")]
    named = {name for row in rows for name in re.findall(r"`((?:FOREX|MLFLOW)_\w+)`", row)}
    values = {name: f"value-of-{name}" for name in named} | {
        "FOREX_TRACKING__ENABLED": "false",
        "FOREX_TRACKING__BACKEND": "noop",
    }
    assert set(values) == named
    before = load_settings()
    for name, value in values.items():
        with monkeypatch.context() as one:
            one.setenv(name, value)
            assert load_settings() != before, name
    for row in rows:
        for name in row.split("|")[1].replace("`", "").split(","):
            last = name.strip().rpartition(".")[2]
            assert {f"tracking.{last}", f"tracking.mlflow.{last}"} & known_names(), name
    assert (before.tracking.enabled, before.tracking.backend) == (True, "mlflow")
    assert before.tracking.mlflow.experiment_name == "forex"
    assert before.mlflow_uri == f"sqlite:///{tmp_path / 'data' / 'mlflow' / 'mlflow.db'}"


def test_documented_tracker_of_ones_own(settings: Settings, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    (tmp_path / "settings.toml").write_text('[tracking.mlflow]\nexperiment_name = "mine"\n')
    namespace: dict[str, Any] = {"figure": Figure()}
    exec(blocks(section("Back ends"), "python")[0], namespace)
    client = open_store(settings.mlflow_uri)
    run = client.get_run(namespace["tracker"].run_id)
    assert run.data.params == {"costs.spread": "0.4", "pairs": '["USDCLP"]'}
    assert run.data.metrics == {"sharpe": 0.8}
    assert [item.path for item in client.list_artifacts(run.info.run_id, "plots")] == ["plots/equity.png"]
    found = client.get_experiment_by_name("mine")
    assert found is not None
    assert run.info.experiment_id == found.experiment_id


def runs_on_the_pages(command: str, settings: Settings, folder: Path) -> set[str]:
    """What the pages that a command serves list of all experiments, asked as a browser does."""
    port = free_port()
    program, *arguments = shlex.split(command)
    process = subprocess.Popen(
        [str(BIN / program), *arguments, "--port", str(port)],
        cwd=folder,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"http://127.0.0.1:{port}/")
        ids = [one.experiment_id for one in open_store(settings.mlflow_uri).search_experiments()]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/runs/search",
            json.dumps({"experiment_ids": ids}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return {found["info"]["run_id"] for found in json.load(answer)["runs"]}
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.slow
def test_quick_start(deployment: Settings, shell: Shell, tmp_path: Path) -> None:
    text = section("Quick start")
    lines = [line.partition("#")[0].strip() for line in blocks(text, "console")[0].splitlines()]
    shell.run(lines[0])
    assert lines.pop(4) == "forex models history"
    assert "EURUSD" in shell.run(lines[1])
    (run,) = json.loads(shell.run(f"{lines[1]} --json"))["runs"]
    assert run["id"] in shell.run(lines[2].replace("RUN_ID", run["id"][:8]))
    assert "eurusd-7d" in shell.run(lines[3])
    assert run["id"] in runs_on_the_pages(lines[4], deployment, tmp_path)
    (snapshot,) = (tmp_path / "data" / "reports" / "eurusd" / "7d").glob("*/snapshot.parquet")
    code = blocks(text, "python")[0].replace("/srv/forex", str(tmp_path))
    code = code.replace("/RUN/", f"/{snapshot.parent.name}/").replace(
        "model.predict", "answer = model.predict"
    )
    (tmp_path / "code.py").write_text(f"{code}\nprint(answer.columns[0], len(answer))\n")
    said = shell.run(f"{sys.executable} code.py 2>&1")
    assert re.search(r"^target_date \d", said, re.MULTILINE)
    assert "extra inputs" not in said
    forex_says("replay", run["id"][:8])


@pytest.mark.slow
def test_rollback_commands(
    deployment: Settings, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREX_PATHS", str(tmp_path / "market.csv"))
    for day in ("2018-05-04", "2018-06-08"):
        forex_says("forecast", "7d", "--pair", "USDCLP", "--as-of", day)
    registry = Registry(deployment.mlflow_uri)

    def champion() -> tuple[int, bool]:
        standing = registry.standing("usdclp-7d")
        assert standing.champion is not None
        return standing.champion.number, standing.pin is not None

    assert champion() == (2, False)
    dry_run, rollback, undo, promote = blocks(section("Rollback"), "console")[0].splitlines()
    after = []
    for line in (dry_run, rollback, undo, rollback, promote):
        shell.run(line)
        after.append(champion())
    assert after == [(2, False), (1, True), (2, False), (1, True), (1, False)]
    assert list(deployment.backups_dir.glob("*.db"))


@pytest.mark.slow
def test_a_challenger_on_purpose(deployment: Settings, shell: Shell) -> None:
    lines = blocks(section("Who is published"), "console")[0].splitlines()
    change, forecast = lines[0].split(" ", 1)
    shell.run(forecast)
    assert "challenger" not in shell.run(lines[1])
    shell.run(lines[0])
    later, first = json.loads(shell.run(f"{lines[1]} --json"))["models"]
    assert (first["aliases"], later["aliases"]) == (["champion"], ["challenger"])
    assert first["recipe"] != later["recipe"], change
    newest = json.loads(shell.run(f"{lines[2]} --json"))["runs"][0]
    assert (newest["published_version"], newest["aliases"]) == (1, ["champion"])
    assert (newest["version"], newest["version_aliases"]) == (2, ["challenger"])
    (compare,) = re.findall(r"`(forex runs compare [^`]+)`", section("Who is published"))
    assert "challenger_ensemble" in shell.run(compare)
    assert "challenger_ensemble" not in shell.run(compare.removesuffix(" --challengers"))
