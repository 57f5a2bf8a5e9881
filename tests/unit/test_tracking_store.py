"""The store as a place: opened by many at once, checked, locked, copied, moved, and reached over S3."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from forex_core import databases
from forex_core.config import load_settings
from forex_core.errors import TrackingError, TrackingUnavailable
from forex_core.tracking import (
    MLflowTracker,
    copy_database,
    open_store,
    relocate,
    store_lock,
    tracker_from_settings,
)
from forex_core.tracking import copies as copying
from forex_core.tracking import store as room
from forex_core.tracking.store import release

PROCESSES = 8
RUNS_EACH = 3


@pytest.fixture(params=("sqlite", "postgresql"))
def uri(request: pytest.FixtureRequest) -> str:
    """A migrated store."""
    return str(request.getfixturevalue("sqlite_store" if request.param == "sqlite" else "postgres_store"))


@pytest.fixture(params=("sqlite", "postgresql"))
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store that nothing was ever written to."""
    if request.param == "sqlite":
        uri = f"sqlite:///{tmp_path / 'data 100%20 ñ' / 'mlflow' / 'mlflow.db'}"
    else:
        uri = request.getfixturevalue("new_postgres")()
    yield uri
    release(uri)


def log_run(uri: str, artifacts: Path, files: Path | None = None) -> str:
    with MLflowTracker(uri, "some", artifact_location=artifacts.as_uri()) as tracker:
        tracker.log_metrics({"m": 1.0})
        if files:
            tracker.log_artifacts_dir(files)
    return str(tracker.run_id)


START_RUNS = """
import sys, time
from pathlib import Path
from forex_core.tracking import MLflowTracker
uri, root, ready, go = sys.argv[1:5]
Path(ready).touch()
while not Path(go).exists():
    time.sleep(0.005)
for number in range(int(sys.argv[5])):
    if not Path(go).exists():
        break
    tracker = MLflowTracker(uri, "crowd", artifact_location=root)
    with tracker:
        tracker.log_params({"who": ready, "number": number})
        tracker.log_metrics({f"m{n}": n for n in range(20)})
    assert tracker.degraded is None
"""


KILLED_START = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from forex_core.tracking import open_store
left = int(sys.argv[2])

@event.listens_for(Engine, "before_cursor_execute")
def count(connection, cursor, statement, *_):
    global left
    left -= statement.split()[0] in ("CREATE", "ALTER", "DROP")
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

open_store(sys.argv[1])
"""


class TestFirstStart:
    @pytest.mark.slow
    def test_of_eight_processes_at_once_on_a_fresh_store_loses_nothing(
        self, fresh: str, tmp_path: Path
    ) -> None:
        go = tmp_path / "go"
        marks = [tmp_path / f"ready{n}" for n in range(PROCESSES)]
        root = (tmp_path / "mlruns").as_uri()
        started = [
            subprocess.Popen(
                [sys.executable, "-c", START_RUNS, fresh, root, str(mark), str(go), str(RUNS_EACH)],
                stderr=subprocess.PIPE,
                text=True,
            )
            for mark in marks
        ]
        while not all(mark.exists() for mark in marks):
            assert all(process.poll() is None for process in started)
            time.sleep(0.05)
        go.touch()
        ended = [process.communicate(timeout=240)[1] for process in started]
        assert [process.returncode for process in started] == [0] * PROCESSES, ended
        client = open_store(fresh)
        experiment = client.get_experiment_by_name("crowd")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        logged = sorted((run.data.params["who"], run.data.params["number"]) for run in runs)
        assert logged == sorted((str(mark), str(n)) for mark in marks for n in range(RUNS_EACH))
        assert all(run.info.status == "FINISHED" for run in runs)
        assert all(run.data.metrics == {f"m{n}": n for n in range(20)} for run in runs)

    @pytest.mark.slow
    @pytest.mark.parametrize("changes", [3, 100])
    def test_that_was_killed_is_made_again(self, fresh: str, tmp_path: Path, changes: int) -> None:
        """In the first tables, and in the middle of MLflow's migrations."""
        killed = subprocess.run([sys.executable, "-c", KILLED_START, fresh, str(changes)], check=False)
        assert killed.returncode == -signal.SIGKILL
        log_run(fresh, tmp_path / "mlruns")
        path = databases.sqlite_path(fresh)
        if path is not None:
            release(fresh)
            assert {one.name for one in path.parent.iterdir()} == {path.name, f"{path.name}.first-start.lock"}

    def test_puts_the_default_experiment_where_files_go(
        self, fresh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        root = (tmp_path / "files").as_uri()
        client = open_store(fresh, artifact_root=root)
        assert client.get_experiment("0").artifact_location == f"{root}/0"
        assert list((tmp_path / "elsewhere").iterdir()) == []

    def test_of_sqlite_alone_keeps_files_beside_the_database(self, tmp_path: Path) -> None:
        uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
        root = (tmp_path / "new" / "mlruns").as_uri()
        assert open_store(uri).get_experiment("0").artifact_location == f"{root}/0"
        with MLflowTracker(uri, "a b/c") as tracker:
            pass
        location = open_store(uri).get_run(str(tracker.run_id)).info.artifact_uri
        assert location.startswith(f"{root}/a_b_c-")
        with closing(sqlite3.connect(tmp_path / "new" / "mlflow.db")) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        release(uri)

    def test_is_not_needed_again(self, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("a migrated store was migrated")

        monkeypatch.setattr(room, "_first_start", refuse)
        open_store(uri)


class TestOpening:
    @pytest.mark.parametrize("below", ["data", "artifacts"])
    def test_takes_files_below_the_data_folder_or_the_artifact_root(
        self, uri: str, tmp_path: Path, below: str
    ) -> None:
        log_run(uri, tmp_path / "files" / "mlruns")
        if below == "data":
            open_store(uri, below=tmp_path / "files")
        else:
            open_store(uri, artifact_root=(tmp_path / "files").as_uri(), below=tmp_path / "data")

    def test_refuses_files_elsewhere_with_experiment_place_and_cure(self, uri: str, tmp_path: Path) -> None:
        log_run(uri, tmp_path / "old" / "mlruns")
        with pytest.raises(TrackingError) as caught:
            open_store(uri, artifact_root=(tmp_path / "data" / "mlruns").as_uri(), below=tmp_path / "data")
        message = str(caught.value)
        for part in (
            "experiment some",
            f"{tmp_path}/old/mlruns/some",
            "forex tracking relocate",
            "artifact_uri",
        ):
            assert part in message
        assert not isinstance(caught.value, TrackingUnavailable), "spooling would not cure it"

    def test_refuses_the_default_experiment_elsewhere_when_it_is_to_be_used(
        self, fresh: str, tmp_path: Path
    ) -> None:
        old, data = tmp_path / "old", tmp_path / "data"
        open_store(fresh, artifact_root=old.as_uri())
        (tmp_path / "a.txt").write_text("a")
        options = {"artifact_location": (data / "mlruns").as_uri(), "below": data, "spool": data / "spool"}
        with pytest.raises(
            TrackingError, match=rf"experiment Default of .* keeps its files at file://{old}/0"
        ):
            MLflowTracker(fresh, "Default", **options).start_run()  # type: ignore[arg-type]
        with MLflowTracker(fresh, "another", **options) as tracker:  # type: ignore[arg-type]
            tracker.log_artifact(tmp_path / "a.txt")
        assert tracker.degraded is None
        assert not old.exists()
        (data / "mlruns" / "0").mkdir()
        relocate(fresh, str(old), str(data / "mlruns"), copies=tmp_path / "copies")
        with MLflowTracker(fresh, "Default", **options) as tracker:  # type: ignore[arg-type]
            tracker.log_artifact(tmp_path / "a.txt")
        assert list((data / "mlruns" / "0").rglob("a.txt"))
        assert not old.exists()

    def test_spools_nothing_for_a_refused_store(self, uri: str, tmp_path: Path) -> None:
        log_run(uri, tmp_path / "old" / "mlruns")
        tracker = MLflowTracker(uri, "some", below=tmp_path / "data", spool=tmp_path / "spool")
        with pytest.raises(TrackingError, match="relocate"):
            tracker.start_run()
        assert not (tmp_path / "spool").exists()

    def test_leaves_the_default_experiment_remote_places_and_links_alone(
        self, uri: str, tmp_path: Path
    ) -> None:
        client = open_store(uri)
        client.create_experiment("remote", "s3://bucket/somewhere")
        (tmp_path / "really").mkdir()
        (tmp_path / "data" / "mlflow").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "mlflow" / "mlruns").symlink_to(tmp_path / "really")
        client.create_experiment("by its link", (tmp_path / "data" / "mlflow" / "mlruns").as_uri())
        client.create_experiment("by itself", str(tmp_path / "really"))
        gone = client.create_experiment("deleted", (tmp_path / "gone").as_uri())
        client.delete_experiment(gone)
        open_store(
            uri, below=tmp_path / "data", artifact_root=(tmp_path / "data" / "mlflow" / "mlruns").as_uri()
        )

    def test_a_deleted_experiment_is_named_with_its_cure(self, uri: str, tmp_path: Path) -> None:
        log_run(uri, tmp_path)
        client = open_store(uri)
        found = client.get_experiment_by_name("some")
        assert found is not None
        client.delete_experiment(found.experiment_id)
        with pytest.raises(TrackingError, match=f"mlflow experiments restore -x {found.experiment_id}"):
            log_run(uri, tmp_path)

    def test_another_schema_is_named_with_its_cure(self, uri: str) -> None:
        with copying._writing(uri) as (execute, mark):
            execute(f"UPDATE alembic_version SET version_num = {mark}", ("older",))
        import mlflow.tracking._tracking_service.utils as cached

        cached._tracking_store_registry._get_store_with_resolved_uri.cache_clear()
        with pytest.raises(TrackingError, match="mlflow db upgrade"):
            open_store(uri).get_experiment("0")

    @pytest.mark.parametrize(
        ("address", "shown"),
        [
            ("me:hidden%40word@127.0.0.1:1/none", "me:***@127.0.0.1:1/none"),
            ("me@work:hid[den/word@127.0.0.1:1/none", "me@work:***@127.0.0.1:1/none"),
            ("127.0.0.1:1/none?user=me&password=hidden+word", "127.0.0.1:1/none?user=me&password=***"),
            ("me@127.0.0.1:1/none?sslpassword=hidden&user=a", "me@127.0.0.1:1/none?sslpassword=***&user=a"),
        ],
    )
    def test_a_dead_postgresql_is_noticed_in_seconds_and_its_password_is_not_told(
        self, address: str, shown: str
    ) -> None:
        started = time.monotonic()
        with pytest.raises(TrackingUnavailable) as caught:
            open_store(f"postgresql://{address}")
        assert time.monotonic() - started < 60
        assert f"postgresql://{shown} " in str(caught.value)
        assert "hid" not in str(caught.value)

    @pytest.mark.parametrize(
        "uri", ["sqlite:////srv/a:b@c/mlflow.db", "http://127.0.0.1:5000", "postgresql://me@db:5432/runs"]
    )
    def test_an_address_without_a_password_is_told_as_it_is(self, uri: str) -> None:
        assert room.without_password(uri) == uri

    def test_files_whose_library_is_not_installed_are_spooled(
        self, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "boto3", None)
        (tmp_path / "a.txt").write_text("a")
        tracker = MLflowTracker(uri, "some", artifact_location="s3://bucket/x", spool=tmp_path / "spool")
        with tracker:
            tracker.log_artifact(tmp_path / "a.txt")
        assert tracker.degraded is not None
        assert "boto3" in tracker.degraded
        assert "that what it needs is installed" in tracker.degraded
        assert [path.read_text() for path in (tmp_path / "spool").rglob("a.txt")] == ["a"]

    def test_a_missing_driver_is_named_with_its_cure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(TrackingError, match=r"pip install \"forex-forecast\[postgres\]\""):
            open_store("postgresql://127.0.0.1/none")

    @pytest.mark.parametrize(
        "scheme", ["postgresql", "postgres", "postgresql+psycopg2", "postgresql+psycopg"]
    )
    def test_postgresql_needs_no_psycopg2(self, postgres_store: str, scheme: str, tmp_path: Path) -> None:
        uri = postgres_store.replace("postgresql", scheme, 1)
        assert open_store(uri).get_run(log_run(uri, tmp_path)).info.status == "FINISHED"
        release(uri)
        assert "psycopg2" not in sys.modules

    @pytest.mark.parametrize(
        "uri", ["nonsense://x", "mysql://host/db", "/x/mlflow.db", "file:///x", "s3://b", ""]
    )
    def test_an_address_of_no_store_is_refused_with_those_there_are(self, uri: str, tmp_path: Path) -> None:
        with pytest.raises(
            TrackingError, match=r"expected sqlite:////path/mlflow\.db, postgresql://"
        ) as caught:
            log_run(uri, tmp_path)
        assert not isinstance(caught.value, TrackingUnavailable)

    def test_an_address_with_options_makes_no_file_of_their_name(self, tmp_path: Path) -> None:
        uri = f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}?timeout=30"
        for use in (lambda: log_run(uri, tmp_path), lambda: room.open_existing(uri)):
            with pytest.raises(TrackingError, match="takes no options here"):
                use()
        assert list(tmp_path.iterdir()) == []


HOLD_LOCK = """
import sys, time
from forex_core.tracking import store_lock
with store_lock(sys.argv[1], "work"):
    print("held", flush=True)
    time.sleep(120)
"""


class TestLock:
    @pytest.fixture(params=("sqlite", "postgresql", "http"))
    def place(self, request: pytest.FixtureRequest) -> str:
        if request.param == "http":
            return f"http://127.0.0.1:1/{os.getpid()}"
        return str(request.getfixturevalue("sqlite_store" if request.param == "sqlite" else "postgres_store"))

    def test_is_one_process_at_a_time_and_ends_with_its_holder(self, place: str) -> None:
        holder = subprocess.Popen([sys.executable, "-c", HOLD_LOCK, place], stdout=subprocess.PIPE, text=True)
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(TrackingError, match="another 'work' is running"), store_lock(place, "work"):
                pass
            with store_lock(place, "other work"):
                pass
            started = time.monotonic()
            with pytest.raises(TrackingError, match="waited"), store_lock(place, "work", 0.3):
                pass
            assert time.monotonic() - started >= 0.3
            holder.send_signal(signal.SIGKILL)
            with store_lock(place, "work", 120):
                pass
        finally:
            holder.kill()
            holder.communicate()

    def test_leaves_errors_of_the_work_as_they_are(self, place: str) -> None:
        with pytest.raises(FileNotFoundError), store_lock(place, "work"):
            Path("/no/such/file").read_text()
        with store_lock(place, "work"):
            pass


class TestCopy:
    def test_is_verified_and_whole(self, uri: str, tmp_path: Path) -> None:
        ids = {log_run(uri, tmp_path / "files") for _ in range(3)}
        copy = copy_database(uri, tmp_path / "copies" / "copy.db")
        assert copy.tables["runs"] == 3
        assert copy.tables["metrics"] == 3
        assert copy.tables["alembic_version"] == 1
        assert [path.name for path in (tmp_path / "copies").iterdir()] == ["copy.db"]
        with closing(sqlite3.connect(copy.path)) as connection:
            assert {row[0] for row in connection.execute("SELECT run_uuid FROM runs")} == ids
            assert connection.execute("SELECT value FROM metrics LIMIT 1").fetchone() == (1.0,)

    def test_of_sqlite_is_a_store(self, sqlite_store: str, tmp_path: Path) -> None:
        run_id = log_run(sqlite_store, tmp_path / "files")
        copy = copy_database(sqlite_store, tmp_path / "copy.db")
        assert open_store(f"sqlite:///{copy.path}").get_run(run_id).data.metrics == {"m": 1.0}
        release(f"sqlite:///{copy.path}")

    @pytest.mark.slow
    def test_is_taken_while_others_write(self, uri: str, tmp_path: Path) -> None:
        go, ready = tmp_path / "go", tmp_path / "ready"
        go.touch()
        arguments = [uri, (tmp_path / "files").as_uri(), str(ready), str(go), "100000"]
        writer = subprocess.Popen([sys.executable, "-c", START_RUNS, *arguments])
        try:
            counts = list[int]()
            while len(set(counts) - {0}) < 3:
                assert writer.poll() is None
                if ready.exists():
                    copy = copy_database(uri, tmp_path / f"copy{len(counts)}.db")
                    counts.append(copy.tables["runs"])
                time.sleep(0.05)
            go.unlink()
            assert writer.wait(120) == 0
        finally:
            writer.kill()
            writer.wait()
        assert counts == sorted(counts)

    def test_that_does_not_verify_is_an_error_and_leaves_no_file(
        self, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log_run(uri, tmp_path / "files")
        counts = databases.table_counts

        def lossy(connection: sqlite3.Connection) -> dict[str, int]:
            """As if the copy had lost a row; a backup that loses one cannot be caused."""
            writable = connection.execute("PRAGMA query_only").fetchone() and "copies" in str(
                connection.execute("PRAGMA database_list").fetchone()
            )
            return {table: n - (table == "runs" and writable) for table, n in counts(connection).items()}

        monkeypatch.setattr(databases, "table_counts", lossy)
        with pytest.raises(TrackingError, match="runs: 1 rows in the store, 0 in the copy"):
            copy_database(uri, tmp_path / "copies" / "copy.db")
        assert list((tmp_path / "copies").iterdir()) == []

    def test_of_a_damaged_database_is_an_error(self, sqlite_store: str, tmp_path: Path) -> None:
        path = Path(sqlite_store.removeprefix("sqlite:///"))
        content = bytearray(path.read_bytes())
        content[4096 * 20 : 4096 * 60] = os.urandom(4096 * 40)
        path.write_bytes(content)
        with pytest.raises(TrackingError):
            copy_database(sqlite_store, tmp_path / "copies" / "copy.db")
        assert list((tmp_path / "copies").iterdir()) == []

    def test_overwrites_nothing_and_needs_a_database(self, sqlite_store: str, tmp_path: Path) -> None:
        (tmp_path / "there.db").write_text("mine")
        with pytest.raises(TrackingError, match="exists already"):
            copy_database(sqlite_store, tmp_path / "there.db")
        with pytest.raises(TrackingError, match="is a server"):
            copy_database("http://127.0.0.1:1", tmp_path / "copy.db")
        with pytest.raises(TrackingError, match="no database at"):
            copy_database(f"sqlite:///{tmp_path}/none.db", tmp_path / "copy.db")


class TestRelocation:
    @pytest.fixture
    def moved(self, uri: str, tmp_path: Path) -> tuple[str, str]:
        """A store with a run, a model and a registered version, whose files have been moved; run and model URI."""
        made = tmp_path / "made"
        made.mkdir()
        (made / "a.txt").write_text("a")
        (made / "MLmodel").write_text("flavors: {}\n")
        old = tmp_path / "old ñ" / "mlruns"
        with MLflowTracker(uri, "some", artifact_location=old.as_uri()) as tracker:
            tracker.log_artifacts_dir(made, "files")
            model = tracker.log_model(made, "model")
        assert model is not None
        client = open_store(uri)
        client.create_registered_model("registered")
        source = client.get_logged_model(model.removeprefix("models:/")).artifact_location
        client.create_model_version("registered", source, run_id=tracker.run_id)
        client.create_experiment("elsewhere", "s3://bucket/old")
        (tmp_path / "new").mkdir()
        shutil.move(tmp_path / "old ñ", tmp_path / "new" / "place")
        return str(tracker.run_id), model

    def test_moves_every_location_and_everything_is_found_again(
        self, uri: str, tmp_path: Path, moved: tuple[str, str]
    ) -> None:
        run_id, model = moved
        counts = relocate(
            uri, str(tmp_path / "old ñ"), str(tmp_path / "new" / "place"), copies=tmp_path / "copies"
        )
        assert counts["experiments.artifact_location"] == 1
        assert counts["runs.artifact_uri"] == 1
        assert counts["logged_models.artifact_location"] == 1
        assert counts["model_versions.storage_location"] == 1
        assert set(counts) == {f"{table}.{column}" for table, column, _ in copying.LOCATIONS}
        client = open_store(uri, below=tmp_path / "new")
        assert [item.path for item in client.list_artifacts(run_id, "files")] == [
            "files/MLmodel",
            "files/a.txt",
        ]
        assert MLflowTracker(uri, "some").read_text(run_id, "files/a.txt") == "a"
        location = client.get_logged_model(model.removeprefix("models:/")).artifact_location
        assert Path(location.removeprefix("file://")).is_dir()
        (copy,) = (tmp_path / "copies").iterdir()
        with closing(sqlite3.connect(copy)) as connection:
            stored = connection.execute("SELECT artifact_uri FROM runs").fetchall()
        assert "new" not in str(stored), "the copy holds what was before"
        elsewhere = client.get_experiment_by_name("elsewhere")
        assert elsewhere is not None
        assert elsewhere.artifact_location == "s3://bucket/old"

    def test_covers_every_column_where_mlflow_keeps_the_place(
        self, uri: str, tmp_path: Path, moved: tuple[str, str]
    ) -> None:
        """No column of the database names the old folder afterwards."""
        relocate(uri, str(tmp_path / "old ñ"), str(tmp_path / "new" / "place"), copies=tmp_path / "copies")
        copy = copy_database(uri, tmp_path / "after.db")
        with closing(sqlite3.connect(copy.path)) as connection:
            for table in copy.tables:
                rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()
                assert "old%20" not in str(rows), table

    def test_takes_along_a_run_that_begins_while_the_database_is_copied(
        self, uri: str, tmp_path: Path, moved: tuple[str, str]
    ) -> None:
        client = open_store(uri)
        begun = []

        def begin(_: Path) -> None:
            begun.append(client.create_run(client.get_run(moved[0]).info.experiment_id).info)

        new = tmp_path / "new" / "place"
        counts = relocate(uri, str(tmp_path / "old ñ"), str(new), copies=tmp_path / "copies", on_copy=begin)
        assert counts["runs.artifact_uri"] == 2
        assert "old%20" in begun[0].artifact_uri
        place = client.get_run(begun[0].run_id).info.artifact_uri
        assert place.startswith(new.as_uri())

    def test_back_again_restores_every_row(self, uri: str, tmp_path: Path, moved: tuple[str, str]) -> None:
        before = copy_database(uri, tmp_path / "before.db")
        relocate(uri, str(tmp_path / "old ñ"), str(tmp_path / "new" / "place"), copies=tmp_path / "copies")
        shutil.move(tmp_path / "new" / "place", tmp_path / "old ñ")
        relocate(uri, str(tmp_path / "new" / "place"), str(tmp_path / "old ñ"), copies=tmp_path / "copies")
        after = copy_database(uri, tmp_path / "after.db")
        with closing(sqlite3.connect(before.path)) as a, closing(sqlite3.connect(after.path)) as b:
            for table in before.tables:
                query = (
                    f'SELECT * FROM "{table}" ORDER BY 1, 2'
                    if table != "alembic_version"
                    else ("SELECT * FROM alembic_version")
                )
                assert sorted(map(str, a.execute(query))) == sorted(map(str, b.execute(query)))

    @pytest.mark.parametrize("lacking", ["folder", "model", "everything", "one file of a copy"])
    def test_is_refused_while_the_files_are_not_there_and_changes_nothing(
        self, uri: str, tmp_path: Path, moved: tuple[str, str], lacking: str
    ) -> None:
        new = tmp_path / "new" / "place"
        if lacking == "folder":
            shutil.rmtree(new)
        elif lacking == "model":
            next(new.rglob("models/*/artifacts/MLmodel")).unlink()
        elif lacking == "everything":
            shutil.rmtree(new)
            new.mkdir()
        else:
            shutil.copytree(new, tmp_path / "old ñ")
            next(new.rglob("a.txt")).unlink()
        before = copy_database(uri, tmp_path / "before.db")
        with pytest.raises(TrackingError) as caught:
            relocate(uri, str(tmp_path / "old ñ"), str(new))
        assert str(new) in str(caught.value)
        after = copy_database(uri, tmp_path / "after.db")
        with closing(sqlite3.connect(before.path)) as a, closing(sqlite3.connect(after.path)) as b:
            query = "SELECT artifact_uri FROM runs"
            assert a.execute(query).fetchall() == b.execute(query).fetchall()

    def test_of_a_place_that_nothing_lies_at_is_refused_with_those_that_are(
        self, uri: str, tmp_path: Path, moved: tuple[str, str]
    ) -> None:
        with pytest.raises(TrackingError, match="s3://bucket/old"):
            relocate(uri, "/no/such/place", str(tmp_path / "new"))
        with pytest.raises(TrackingError, match="two folders of this machine, or two remote addresses"):
            relocate(uri, "/no/such/place", "s3://bucket/new")

    def test_of_remote_places_takes_them_at_their_word(
        self, uri: str, tmp_path: Path, moved: tuple[str, str]
    ) -> None:
        counts = relocate(uri, "s3://bucket/old", "s3://other/new", copies=tmp_path / "copies")
        assert counts["experiments.artifact_location"] == 1
        found = open_store(uri).get_experiment_by_name("elsewhere")
        assert found is not None
        assert found.artifact_location == "s3://other/new"


class TestS3:
    @pytest.fixture
    def endpoint(self) -> Iterator[str]:
        """A real server of the S3 interface on loopback."""
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()

    def test_endpoint_and_keys_of_the_settings_reach_the_client(
        self, endpoint: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
    ) -> None:
        import boto3

        secret = "very-hidden"
        keys = {"aws_access_key_id": "me", "aws_secret_access_key": secret, "region_name": "us-east-1"}
        direct: Any = boto3.client("s3", endpoint_url=endpoint, **keys)
        direct.create_bucket(Bucket="runs")
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("MLFLOW_S3_ACCESS_KEY_ID", "me")
        monkeypatch.setenv("MLFLOW_S3_SECRET_ACCESS_KEY", secret)
        places = {"tracking_uri": uri, "artifact_uri": "s3://runs/forex"}
        settings = load_settings(tracking={"mlflow": places}, data_dir=tmp_path / "data")
        (tmp_path / "a.txt").write_text("content")
        with tracker_from_settings(settings, "remote") as tracker:
            tracker.log_artifact(tmp_path / "a.txt", "reports")
            assert tracker.read_text(str(tracker.run_id), "reports/a.txt") == "content"
        assert tracker.degraded is None
        assert told == []
        key = f"forex/remote/{tracker.run_id}/artifacts/reports/a.txt"
        assert direct.get_object(Bucket="runs", Key=key)["Body"].read() == b"content"
        assert os.environ["AWS_ACCESS_KEY_ID"] == "me"
        run = open_store(uri).get_run(str(tracker.run_id))
        assert secret not in str(run.to_dictionary())
        direct.close()

    def test_a_dead_endpoint_spools_the_files(self, uri: str, tmp_path: Path, told: list[str]) -> None:
        places = {
            "tracking_uri": uri,
            "artifact_uri": "s3://runs/forex",
            "s3_endpoint_url": "http://127.0.0.1:1",
            "s3_access_key_id": "me",
            "s3_secret_access_key": "very-hidden",
        }
        settings = load_settings(tracking={"mlflow": places}, data_dir=tmp_path / "data")
        (tmp_path / "a.txt").write_text("content")
        started = time.monotonic()
        with tracker_from_settings(settings, "remote") as tracker:
            tracker.log_artifact(tmp_path / "a.txt", "reports")
        assert time.monotonic() - started < 60
        assert tracker.degraded
        assert "very-hidden" not in f"{told} {tracker.degraded}"
        (kept,) = settings.spool_dir.rglob("a.txt")
        assert kept.read_text() == "content"
