"""What happens to a run whose store goes away, in earnest, and to what it left behind when the store is back."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forex_core.errors import TrackingError, TrackingUnavailable
from forex_core.tracking import MLflowTracker, Record, open_store, replay_spool
from forex_core.tracking import spool as room
from forex_core.tracking.store import release
from tests.ports import free_port

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

NOBODY = 65534


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return tmp_path / "data" / "mlflow" / "mlruns"


@pytest.fixture
def build(spool: Path, artifacts: Path) -> Callable[..., MLflowTracker]:
    def build(uri: str, **options: Any) -> MLflowTracker:
        given = {
            "artifact_location": artifacts.as_uri(),
            "spool": spool,
            "tags": {"pair": "USDCLP"},
        } | options
        return MLflowTracker(uri, "spooled", run_name="given name", **given)

    return build


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder to attach, with a model in MLflow's form in it."""
    folder = tmp_path / "made"
    (folder / "model").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "model" / "MLmodel").write_text("flavors: {}\n")
    return folder


def database(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///"))


def all_runs(client: MlflowClient) -> list[Run]:
    found = client.get_experiment_by_name("spooled")
    return list(client.search_runs([found.experiment_id])) if found else []


def log_everything(tracker: MLflowTracker, files: Path) -> None:
    tracker.log_params({"deep": {"er": 1}, "long": "x" * 7000})
    tracker.log_metrics({"m": 1.0, "nan": float("nan")})
    tracker.log(Record(stepped={"s": {1: 1.0, 2: 2.0, 3: 3.0}}, tags={"t": "v"}))
    tracker.log_artifact(files / "a.txt", "single")
    tracker.log_artifacts_dir(files, "all")
    assert tracker.log_model(files / "model", "model") is None, "a spooled model has no address yet"


def check_everything(client: MlflowClient, run_id: str, artifacts: Path) -> None:
    run = client.get_run(run_id)
    assert run.data.params["deep.er"] == "1"
    assert len(run.data.params["long"]) == 6000
    assert run.data.metrics == {"m": 1.0, "s": 3.0}
    history = client.get_metric_history(run_id, "s")
    assert sorted((m.step, m.value) for m in history) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert (run.data.tags["t"], run.data.tags["pair"]) == ("v", "USDCLP")
    assert run.info.run_name == "given name"
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    stored = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert stored == {"cut/params/long.txt", "single/a.txt", "all/a.txt", "all/model/MLmodel"}
    models = client.search_logged_models([run.info.experiment_id])
    assert [(m.name, m.source_run_id, str(m.status)) for m in models] == [("model", run_id, "READY")]
    assert [output.model_id for output in run.outputs.model_outputs] == [models[0].model_id]
    assert Path(models[0].artifact_location.removeprefix("file://"), "MLmodel").is_file()


# --- what goes wrong


def remove_file(uri: str) -> Callable[[], object]:
    path = database(uri)
    path.rename(path.with_name("away"))
    return lambda: path.with_name("away").rename(path)


def replace_file(uri: str) -> Callable[[], object]:
    path = database(uri)
    path.rename(path.with_name("away"))
    path.write_bytes(b"not a database" * 1000)
    return lambda: path.with_name("away").replace(path)


def lose_file(uri: str, empty: Path) -> Callable[[], object]:
    """The database is gone with all that was in it; an empty one takes its place."""
    for path in database(uri).parent.glob("mlflow.db*"):
        path.unlink()

    def begin_anew() -> None:
        shutil.copyfile(empty, database(uri))
        release(uri)

    return begin_anew


def drop_tables(uri: str) -> Callable[[], object]:
    path = database(uri)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("ALTER TABLE runs RENAME TO elsewhere")

    def back() -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("ALTER TABLE elsewhere RENAME TO runs")

    return back


def fill_disk(uri: str) -> Callable[[], object]:
    """No file may grow past a few kilobytes, which a database needs and the spool's do not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FAULTS = [remove_file, replace_file, drop_tables, fill_disk]


class TestDegrading:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_in_the_middle_of_a_run_everything_from_then_on_is_kept_and_replayed(
        self,
        sqlite_store: str,
        build: Callable[..., MLflowTracker],
        spool: Path,
        files: Path,
        artifacts: Path,
        told: list[str],
        fault: Callable[[str], Callable[[], object]],
    ) -> None:
        tracker = build(sqlite_store)
        with tracker:
            run_id = tracker.run_id
            assert run_id is not None
            tracker.set_tags({"before": "yes"})
            mend = fault(sqlite_store)
            try:
                log_everything(tracker, files)
                assert tracker.degraded
                assert tracker.run_id == run_id, "the run that was begun goes on"
            finally:
                tracker.end_run()
                mend()
        assert any("forex tracking replay" in message for message in told)
        ended = time.time() * 1000
        release(sqlite_store)
        results = replay_spool(spool, sqlite_store)
        assert [(r.run_id, r.outcome) for r in results] == [(run_id, "logged")]
        client = open_store(sqlite_store)
        check_everything(client, run_id, artifacts)
        run = client.get_run(run_id)
        assert run.data.tags["before"] == "yes"
        assert run.data.tags["spooled"] == " ".join(str(tracker.degraded).split())
        assert (run.info.status, run.info.end_time <= ended) == ("FINISHED", True)
        assert len(all_runs(client)) == 1
        assert list(spool.iterdir()) == []
        assert replay_spool(spool, sqlite_store) == []

    def test_at_the_start_the_run_is_made_by_the_replay(
        self,
        sqlite_store: str,
        build: Callable[..., MLflowTracker],
        spool: Path,
        files: Path,
        artifacts: Path,
    ) -> None:
        mend = replace_file(sqlite_store)
        tracker = build(sqlite_store)
        before = int(time.time() * 1000)

        def work() -> None:
            with tracker:
                assert str(tracker.run_id).startswith("spooled-")
                assert tracker.find_run({"pair": "USDCLP"}) is None
                tracker.start_run(description="what it is")
                log_everything(tracker, files)
                raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            work()
        after = int(time.time() * 1000)
        mend()
        release(sqlite_store)
        time.sleep(0.01)
        (result,) = replay_spool(spool, sqlite_store, artifact_root=artifacts.as_uri())
        assert result.outcome == "logged"
        assert result.run_id
        client = open_store(sqlite_store)
        check_everything(client, result.run_id, artifacts)
        run = client.get_run(result.run_id)
        assert run.data.tags["spool_id"] == tracker.run_id
        assert run.data.tags["mlflow.note.content"] == "what it is"
        assert (run.info.status, run.data.tags["error_message"]) == ("FAILED", "broken")
        assert before <= run.info.start_time <= run.info.end_time <= after, "times are the run's own"

    def test_at_the_start_keeps_what_the_run_was_started_with(
        self, sqlite_store: str, build: Callable[..., MLflowTracker], spool: Path, tmp_path: Path
    ) -> None:
        mend = replace_file(sqlite_store)
        root = (tmp_path / "elsewhere").as_uri()
        tracker = build(sqlite_store, artifact_location=root, experiment_tags={"horizon": "7d"})
        tracker.start_run("my name", "what it is", {"mine": 1})
        tracker.end_run()
        mend()
        release(sqlite_store)
        replay_spool(spool, sqlite_store)
        client = open_store(sqlite_store)
        (run,) = all_runs(client)
        assert run.info.run_name == "my name"
        expected = {"pair": "USDCLP", "mine": "1", "mlflow.note.content": "what it is"}
        assert {name: run.data.tags.get(name) for name in expected} == expected
        assert run.info.artifact_uri.startswith(f"{root}/spooled/")
        assert client.get_experiment(run.info.experiment_id).tags["horizon"] == "7d"

    def test_at_the_start_is_read_by_the_id_that_it_had(
        self, sqlite_store: str, build: Callable[..., MLflowTracker], spool: Path, files: Path
    ) -> None:
        mend = replace_file(sqlite_store)
        with build(sqlite_store) as tracker:
            tracker.log_artifact(files / "a.txt", "single")
        mend()
        release(sqlite_store)
        assert build(sqlite_store).read_text(str(tracker.run_id), "single/a.txt") is None
        replay_spool(spool, sqlite_store)
        found = build(sqlite_store).read_text(str(tracker.run_id), "single/a.txt")
        assert found == (files / "a.txt").read_text()

    def test_at_the_end_alone_is_enough(
        self, sqlite_store: str, build: Callable[..., MLflowTracker], spool: Path
    ) -> None:
        tracker = build(sqlite_store)
        tracker.start_run()
        mend = remove_file(sqlite_store)
        tracker.end_run("KILLED")
        mend()
        assert tracker.degraded
        (result,) = replay_spool(spool, sqlite_store)
        assert open_store(sqlite_store).get_run(str(result.run_id)).info.status == "KILLED"

    def test_asks_the_store_no_more_in_this_run_and_again_in_the_next(
        self, sqlite_store: str, build: Callable[..., MLflowTracker], spool: Path
    ) -> None:
        tracker = build(sqlite_store)
        tracker.start_run()
        mend = remove_file(sqlite_store)
        tracker.log_metrics({"a": 1})
        mend()
        tracker.log_metrics({"b": 2})
        assert tracker.run_id is not None
        assert tracker.read_text(tracker.run_id, "x") is None
        tracker.end_run()
        first = str(tracker.run_id)
        client = open_store(sqlite_store)
        assert client.get_run(first).data.metrics == {}
        with tracker:
            tracker.log_metrics({"c": 3})
            assert tracker.degraded is None
        assert client.get_run(str(tracker.run_id)).data.metrics == {"c": 3.0}
        assert [r.outcome for r in replay_spool(spool, sqlite_store)] == ["logged"]
        assert client.get_run(first).data.metrics == {"a": 1.0, "b": 2.0}

    def test_while_looking_for_an_earlier_run_spools_the_run(
        self, sqlite_store: str, build: Callable[..., MLflowTracker], spool: Path
    ) -> None:
        mend = replace_file(sqlite_store)
        tracker = build(sqlite_store, start_on_enter=False)
        with tracker:
            assert tracker.find_run({"pair": "USDCLP"}) is None
            assert tracker.degraded
            assert not spool.exists(), "no run, nothing to keep"
            tracker.start_run()
        mend()
        assert len(replay_spool(spool, sqlite_store)) == 1

    def test_without_a_spool_is_an_error_with_the_reason_and_never_hides_the_exception_that_passes(
        self, sqlite_store: str, build: Callable[..., MLflowTracker]
    ) -> None:
        tracker = build(sqlite_store, spool=None)
        tracker.start_run()
        remove_file(sqlite_store)
        with pytest.raises(TrackingUnavailable, match="removed or replaced"):
            tracker.log_metrics({"a": 1})
        with pytest.raises(ValueError, match="mine"), tracker:
            raise ValueError("mine")

    def test_with_a_spool_that_cannot_be_written_either_says_both(
        self, sqlite_store: str, build: Callable[..., MLflowTracker], spool: Path
    ) -> None:
        spool.write_text("a file")
        tracker = build(sqlite_store)
        tracker.start_run()
        remove_file(sqlite_store)
        (spool.parent / "file").write_text("x")
        for lose in (
            lambda: tracker.log_metrics({"a": 1}),
            lambda: tracker.log_artifact(spool.parent / "file"),
        ):
            with pytest.raises(
                TrackingUnavailable, match=r"removed or replaced.*spool.*cannot be written either"
            ):
                lose()

    def test_with_a_spool_that_has_no_room_leaves_no_entry_without_a_header(
        self, sqlite_store: str, build: Callable[..., MLflowTracker], small_disk: Callable[..., Path]
    ) -> None:
        spool = small_disk("64k") / "spool"
        (spool.parent / "filler").write_bytes(b"0" * 65536)
        tracker = build(sqlite_store, spool=spool)
        tracker.start_run()
        remove_file(sqlite_store)
        with pytest.raises(TrackingUnavailable, match="No space left on device"):
            tracker.log_metrics({"a": 1})
        assert list(spool.iterdir()) == []

    def test_is_not_for_entries_that_the_store_would_refuse_at_any_time(
        self, sqlite_store: str, build: Callable[..., MLflowTracker], spool: Path
    ) -> None:
        with build(sqlite_store) as tracker:
            tracker.log_params({"a": 1})
            with pytest.raises(TrackingError, match="param a"):
                tracker.log_params({"a": 2})
            assert tracker.degraded is None
        assert not spool.exists()

    @pytest.mark.parametrize("wanted", ["a/a.txt", "x" * 300, "../outside"])
    def test_is_not_for_a_file_that_the_store_has_no_place_for(
        self,
        sqlite_store: str,
        build: Callable[..., MLflowTracker],
        spool: Path,
        files: Path,
        told: list[str],
        wanted: str,
    ) -> None:
        with build(sqlite_store) as tracker:
            tracker.log_artifact(files / "a.txt", "a")
            tracker.log_artifact(files / "a.txt", wanted)
            tracker.log_artifacts_dir(files, wanted)
            tracker.log_metrics({"after": 1.0})
            assert tracker.degraded is None
        assert len(told) == 2
        assert all(str(files) in message for message in told)
        assert not spool.exists()
        run = open_store(sqlite_store).get_run(str(tracker.run_id))
        assert (run.info.status, run.data.metrics) == ("FINISHED", {"after": 1.0})

    def test_keeps_what_can_be_read_of_a_folder(
        self, sqlite_store: str, build: Callable[..., MLflowTracker], spool: Path, files: Path
    ) -> None:
        (files / "broken").symlink_to(files / "gone")
        mend = replace_file(sqlite_store)
        with build(sqlite_store) as tracker:
            tracker.log_artifacts_dir(files, "all")
        mend()
        release(sqlite_store)
        (result,) = replay_spool(spool, sqlite_store)
        found = open_store(sqlite_store).list_artifacts(str(result.run_id), "all")
        assert [item.path for item in found] == ["all/a.txt", "all/model"]

    def test_is_not_for_what_others_have_lost(
        self, sqlite_store: str, build: Callable[..., MLflowTracker], spool: Path, told: list[str]
    ) -> None:
        with build(sqlite_store) as tracker:
            assert tracker.read_text("0" * 32, "report.json") is None
            assert told == []
            tracker.set_version_tag("nobody", 1, "published", "true")
            assert tracker.degraded is None
        (message,) = told
        assert "no version 1 of nobody" in message
        assert not spool.exists()

    @pytest.mark.parametrize("call", ["log", "end"])
    def test_for_a_run_that_was_deleted_keeps_what_comes_until_it_is_restored(
        self,
        sqlite_store: str,
        build: Callable[..., MLflowTracker],
        spool: Path,
        told: list[str],
        call: str,
    ) -> None:
        client = open_store(sqlite_store)
        with build(sqlite_store) as tracker:
            run_id = str(tracker.run_id)
            tracker.log_metrics({"loss": 2.0}, step=1)
            client.delete_run(run_id)
            if call == "log":
                tracker.log_metrics({"loss": 1.0}, step=2)
        (message,) = told
        assert f"mlflow runs restore --run-id {run_id}" in message
        (kept,) = replay_spool(spool, sqlite_store)
        assert kept.outcome == "kept"
        assert f"mlflow runs restore --run-id {run_id}" in str(kept.reason)
        client.restore_run(run_id)
        assert [r.outcome for r in replay_spool(spool, sqlite_store)] == ["logged"]
        (run,) = all_runs(client)
        assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 1.0 if call == "log" else 2.0})

    def test_for_a_run_of_a_store_that_was_set_back_in_place(
        self,
        sqlite_store: str,
        build: Callable[..., MLflowTracker],
        spool: Path,
        migrated_sqlite: Path,
    ) -> None:
        """The file stays the same, and so do its connections; without a value of a metric before."""
        tracker = build(sqlite_store)
        for _ in range(2):
            tracker.start_run()
            tracker.log_metrics({"a": 1.0})
            with (
                closing(sqlite3.connect(migrated_sqlite)) as empty,
                closing(sqlite3.connect(database(sqlite_store))) as live,
            ):
                empty.backup(live)
            tracker.log_metrics({"a": 2.0}, step=1)
            assert "another database" in str(tracker.degraded)
            tracker.end_run()
        tracker.start_run()  # in an experiment that is gone
        tracker.end_run()
        assert "another database" in str(tracker.degraded)
        assert [r.outcome for r in replay_spool(spool, sqlite_store)] == ["logged"] * 3

    @pytest.mark.parametrize("when", ["start", "middle"])
    def test_for_a_folder_that_may_not_be_written(
        self, sqlite_store: str, build: Callable[..., MLflowTracker], when: str
    ) -> None:
        """As another user, since root may write anywhere."""
        with tempfile.TemporaryDirectory() as outside:
            home = Path(outside)
            path, spool = home / "mlflow" / "mlflow.db", home / "spool"
            path.parent.mkdir()
            shutil.copyfile(database(sqlite_store), path)
            everything = (home, path.parent, path)
            uri = f"sqlite:///{path}"
            root = os.geteuid() == 0
            if root:
                for place in everything:
                    os.chown(place, NOBODY, NOBODY)
                os.seteuid(NOBODY)
            try:
                tracker = build(uri, spool=spool, artifact_location=(home / "runs").as_uri())
                if when == "middle":
                    tracker.start_run()
                release(uri)
                path.chmod(0o444)
                path.parent.chmod(0o555)
                tracker.start_run()
                tracker.log_metrics({"a": 1})
                tracker.end_run()
                assert tracker.degraded
                path.parent.chmod(0o755)
                path.chmod(0o644)
                assert [r.outcome for r in replay_spool(spool, uri)] == ["logged"]
            finally:
                if root:
                    os.seteuid(0)
            client = open_store(uri)
            assert [run.data.metrics for run in all_runs(client)] == [{"a": 1.0}]
            release(uri)

    @pytest.mark.slow
    def test_for_a_database_that_another_process_keeps_locked(
        self, sqlite_store: str, build: Callable[..., MLflowTracker], spool: Path
    ) -> None:
        with build(sqlite_store) as tracker:
            holder = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "import sqlite3, sys, time\n"
                    "c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); print('held', flush=True)\n"
                    "time.sleep(120)",
                    str(database(sqlite_store)),
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            started = time.monotonic()
            tracker.log_metrics({"a": 1})
            waited = time.monotonic() - started
            tracker.log_metrics({"b": 2})
            assert "locked" in str(tracker.degraded)
            assert time.monotonic() - started < 2 * waited, "it waits once"
            holder.kill()
            holder.communicate()
        (result,) = replay_spool(spool, sqlite_store)
        assert open_store(sqlite_store).get_run(str(result.run_id)).data.metrics == {"a": 1.0, "b": 2.0}

    def test_for_a_postgresql_that_is_stopped(
        self,
        postgres_server: Any,
        postgres_store: str,
        build: Callable[..., MLflowTracker],
        spool: Path,
        files: Path,
        artifacts: Path,
    ) -> None:
        tracker = build(postgres_store)
        late = build(postgres_store)
        started = time.monotonic()
        with tracker:
            postgres_server.stop()
            try:
                log_everything(tracker, files)
                with late:
                    late.log_metrics({"late": 1})
            finally:
                tracker.end_run()
                postgres_server.start()
        assert tracker.degraded
        assert late.degraded
        assert time.monotonic() - started < 60, "a dead server is noticed in seconds"
        first, second = replay_spool(spool, postgres_store)
        client = open_store(postgres_store)
        check_everything(client, str(tracker.run_id), artifacts)
        assert {first.run_id, second.run_id} == {run.info.run_id for run in all_runs(client)}
        assert len(all_runs(client)) == 2

    def test_for_a_server_that_does_not_answer(
        self, build: Callable[..., MLflowTracker], spool: Path, sqlite_store: str
    ) -> None:
        started = time.monotonic()
        uri = f"http://127.0.0.1:{free_port()}"
        with build(uri, artifact_location=None) as tracker:
            tracker.log_metrics({"a": 1})
        assert tracker.degraded
        assert time.monotonic() - started < 60
        (result,) = replay_spool(spool, sqlite_store, moved_from=uri)
        assert open_store(sqlite_store).get_run(str(result.run_id)).data.metrics == {"a": 1.0}

    @pytest.mark.slow
    def test_for_a_server_that_dies_in_the_middle(
        self, build: Callable[..., MLflowTracker], spool: Path, files: Path, tmp_path: Path
    ) -> None:
        uri = f"http://127.0.0.1:{free_port()}"
        server = serve(uri, tmp_path / "served")
        try:
            with build(uri, artifact_location=None) as tracker:
                tracker.log(Record({"p": "1"}, {"before": 1.0}, {}, {"t": "v"}))
                tracker.log_artifact(files / "a.txt", "before")
                assert tracker.read_text(str(tracker.run_id), "before/a.txt") == "a"
                assert tracker.degraded is None
                stop(server)
                started = time.monotonic()
                log_everything(tracker, files)
                assert tracker.degraded
                assert time.monotonic() - started < 60, "noticed in seconds"
            assert store_is_gone(spool, uri)
            server = serve(uri, tmp_path / "served")
            (result,) = replay_spool(spool, uri)
            assert (result.run_id, result.outcome) == (tracker.run_id, "logged")
            client = open_store(uri)
            run = client.get_run(str(tracker.run_id))
            assert run.info.status == "FINISHED"
            assert run.data.metrics == {"before": 1.0, "m": 1.0, "s": 3.0}
            assert [item.path for item in client.list_artifacts(run.info.run_id, "all")] == [
                "all/a.txt",
                "all/model",
            ]
            (model,) = client.search_logged_models([run.info.experiment_id])
            assert str(model.status) == "READY"
            assert len(all_runs(client)) == 1
        finally:
            stop(server)


def serve(uri: str, home: Path) -> subprocess.Popen[bytes]:
    """MLflow's server as a deployment runs it, in a process group of its own."""
    home.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [
            *(
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--host",
                "127.0.0.1",
                "--port",
                uri.rpartition(":")[2],
            ),
            *("--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}", "--workers", "1"),
            *("--artifacts-destination", str(home / "files")),
        ],
        env={
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 240
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=2):
                return process
        except OSError:
            assert process.poll() is None, "the server ended"
            time.sleep(0.2)
    stop(process)
    raise AssertionError("the server did not get ready")


def stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def store_is_gone(spool: Path, uri: str) -> bool:
    """Replaying to a dead server keeps the entry and says so."""
    (result,) = replay_spool(spool, uri)
    return result.outcome == "kept" and len(room._entries(spool)) == 1


# --- replaying


def in_child(work: Callable[[], object]) -> int:
    """Do something in a process of its own; how that ended, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def spooled(
    sqlite_store: str, build: Callable[..., MLflowTracker], files: Path
) -> Iterator[Callable[..., str]]:
    """A run in the spool, with everything, whose store is back."""

    def make(begun: bool) -> str:
        tracker = build(sqlite_store)
        if begun:
            tracker.start_run()
        mend = replace_file(sqlite_store)
        tracker.start_run()
        log_everything(tracker, files)
        tracker.end_run()
        mend()
        release(sqlite_store)
        return str(tracker.run_id)

    return make


class TestReplay:
    @pytest.mark.slow
    @pytest.mark.parametrize("begun", [True, False])
    def test_killed_at_any_moment_and_run_again_gives_the_same_run(
        self,
        sqlite_store: str,
        spool: Path,
        artifacts: Path,
        spooled: Callable[..., str],
        tmp_path: Path,
        begun: bool,
    ) -> None:
        """Killed after each call of the client and each step on the spool's own files, in turn."""
        spooled(begun)
        shutil.copytree(spool, tmp_path / "kept spool")
        shutil.copytree(artifacts.parent, tmp_path / "kept store")
        moment, kills = 0, 0
        while True:
            shutil.rmtree(spool)
            shutil.copytree(tmp_path / "kept spool", spool)
            shutil.rmtree(artifacts.parent)
            shutil.copytree(tmp_path / "kept store", artifacts.parent)

            def replay(moment: int = moment) -> None:
                die_after(moment)
                replay_spool(spool, sqlite_store, artifact_root=artifacts.as_uri())

            ended = in_child(replay)
            if ended == 0:
                break
            assert ended == -signal.SIGKILL
            kills += 1
            replay_spool(spool, sqlite_store, artifact_root=artifacts.as_uri())
            client = open_store(sqlite_store)
            (run,) = all_runs(client)
            check_everything(client, run.info.run_id, artifacts)
            assert run.info.status == "FINISHED"
            assert [path for path in spool.iterdir() if path.is_dir()] == []
            release(sqlite_store)
            moment += 1
        assert kills > 12

    def test_by_two_processes_at_once_doubles_nothing(
        self, sqlite_store: str, spool: Path, spooled: Callable[..., str]
    ) -> None:
        ids = [spooled(begun=False) for _ in range(3)]
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                code = 70
                try:
                    replay_spool(spool, sqlite_store)
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children] == [0, 0, 0]
        runs = all_runs(open_store(sqlite_store))
        assert sorted(run.data.tags["spool_id"] for run in runs) == sorted(ids)

    def test_leaves_a_run_alone_that_is_being_written(
        self, sqlite_store: str, build: Callable[..., MLflowTracker], spool: Path
    ) -> None:
        tracker = build(sqlite_store)
        mend = replace_file(sqlite_store)
        tracker.start_run()
        mend()
        release(sqlite_store)
        assert [r.outcome for r in replay_spool(spool, sqlite_store)] == ["in use"]
        tracker.log_metrics({"late": 1})
        tracker.end_run()
        assert [r.outcome for r in replay_spool(spool, sqlite_store)] == ["logged"]
        (run,) = all_runs(open_store(sqlite_store))
        assert run.data.metrics == {"late": 1.0}

    def test_takes_a_run_that_another_thread_ended(
        self, sqlite_store: str, build: Callable[..., MLflowTracker], spool: Path
    ) -> None:
        tracker = build(sqlite_store)
        mend = replace_file(sqlite_store)
        tracker.start_run()
        ending = threading.Thread(target=tracker.end_run)
        ending.start()
        ending.join()
        mend()
        release(sqlite_store)
        assert [r.outcome for r in replay_spool(spool, sqlite_store)] == ["logged"]

    @pytest.mark.parametrize("moment", range(4))
    def test_takes_whole_entries_only_of_a_run_whose_process_was_killed(
        self,
        sqlite_store: str,
        build: Callable[..., MLflowTracker],
        spool: Path,
        moment: int,
    ) -> None:
        """Killed while it wrote the header, a batch, another, the end: just before each file gets its name."""
        mend = replace_file(sqlite_store)

        def run() -> None:
            count, replace = 0, Path.replace

            def dying(path: Path, target: Path) -> Path:
                nonlocal count
                if count == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                return replace(path, target)

            Path.replace = dying  # type: ignore[method-assign]
            with build(sqlite_store) as tracker:
                tracker.log_metrics({"first": 1})
                tracker.log_metrics({"second": 2})

        assert in_child(run) == -signal.SIGKILL
        killed = time.time() * 1000
        time.sleep(0.02)
        mend()
        release(sqlite_store)
        results = replay_spool(spool, sqlite_store)
        assert [r.outcome for r in results] == ["logged"]
        runs = all_runs(open_store(sqlite_store))
        if moment == 0:
            assert runs == [], "of what has no header nothing is known"
        else:
            assert [run.info.status for run in runs] == ["KILLED"]
            assert runs[0].info.start_time <= runs[0].info.end_time <= killed
            assert sorted(runs[0].data.metrics) == [[], ["first"], ["first", "second"]][moment - 1]
        assert [path for path in spool.iterdir() if path.is_dir()] == []

    def test_goes_by_the_numbers_of_more_batches_than_four_digits_count(
        self, sqlite_store: str, spool: Path, build: Callable[..., MLflowTracker]
    ) -> None:
        mend = replace_file(sqlite_store)
        with build(sqlite_store) as tracker:
            for phase in ("first", "second", "third"):
                tracker.set_tags({"phase": phase})
        (entry,) = room._entries(spool)
        for number, later in ((3, 10001), (2, 10000), (1, 9999)):
            (entry / f"{number:04d}.json").rename(entry / f"{later}.json")
        mend()
        release(sqlite_store)
        (result,) = replay_spool(spool, sqlite_store)
        assert open_store(sqlite_store).get_run(str(result.run_id)).data.tags["phase"] == "third"

    def test_keeps_and_names_what_still_fails(
        self, sqlite_store: str, spool: Path, spooled: Callable[..., str], told: list[str]
    ) -> None:
        bad, good = spooled(begun=False), spooled(begun=False)
        broken = spool / bad / "0001.json"
        whole = broken.read_text()
        broken.write_text(whole[:20])
        results = {r.spool_id: r for r in replay_spool(spool, sqlite_store)}
        assert results[good].outcome == "logged"
        assert results[bad].outcome == "kept"
        assert bad in str(results[bad].reason)
        assert any(bad in message for message in told)
        assert len(room._entries(spool)) == 1
        broken.write_text(whole)
        (result,) = replay_spool(spool, sqlite_store)
        assert (result.spool_id, result.outcome) == (bad, "logged")
        assert len(all_runs(open_store(sqlite_store))) == 2

    @pytest.mark.parametrize(
        ("damage", "part"),
        [
            (lambda entry: (entry / "run.json").mkdir(), "IsADirectoryError"),
            (lambda entry: (entry / "run.json").write_text("[]"), "holds list, expected an object"),
            (lambda entry: (entry / "run.json").write_bytes(b"\xff"), "UnicodeDecodeError"),
            (lambda entry: entry.with_name(f"{entry.name}.lock").mkdir(), "IsADirectoryError"),
        ],
    )
    def test_goes_on_with_the_others_after_an_entry_that_cannot_be_read(
        self,
        sqlite_store: str,
        spool: Path,
        spooled: Callable[..., str],
        told: list[str],
        damage: Callable[[Path], object],
        part: str,
    ) -> None:
        broken = spool / "spooled-broken"
        broken.mkdir(parents=True)
        damage(broken)
        good = spooled(begun=False)
        told.clear()
        results = {r.spool_id: r for r in replay_spool(spool, sqlite_store)}
        assert (results[good].outcome, results[broken.name].outcome) == ("logged", "kept")
        assert part in str(results[broken.name].reason)
        assert str(broken) in str(results[broken.name].reason)
        assert len(told) == 1

    def test_of_a_spool_that_cannot_be_read_says_so(self, sqlite_store: str, spool: Path) -> None:
        spool.write_text("a file")
        with pytest.raises(TrackingError, match=r"spool .* cannot be read .*NotADirectoryError"):
            replay_spool(spool, sqlite_store)

    @pytest.mark.parametrize("backwards", [True, False])
    def test_takes_the_oldest_first(
        self, sqlite_store: str, spool: Path, spooled: Callable[..., str], backwards: bool
    ) -> None:
        ids = [spooled(begun=False) for _ in range(3)]
        for age, entry in enumerate(reversed(ids) if backwards else ids):
            os.utime(spool / entry / "run.json", (age, age))
        expected = ids[::-1] if backwards else ids
        assert [r.spool_id for r in replay_spool(spool, sqlite_store)] == expected

    def test_keeps_an_entry_of_another_version(
        self, sqlite_store: str, spool: Path, spooled: Callable[..., str]
    ) -> None:
        header = spool / spooled(begun=False) / "run.json"
        document = json.loads(header.read_text())
        for other in (room.VERSION - 1, room.VERSION + 1):
            header.write_text(json.dumps(document | {"version": other}))
            (result,) = replay_spool(spool, sqlite_store)
            assert result.outcome == "kept"
            assert f"version {other}, this program reads version {room.VERSION}" in str(result.reason)
        assert all_runs(open_store(sqlite_store)) == []
        header.write_text(json.dumps(document))
        assert [r.outcome for r in replay_spool(spool, sqlite_store)] == ["logged"]

    def test_of_a_model_that_could_not_be_attached_completes_it(
        self,
        sqlite_store: str,
        spool: Path,
        build: Callable[..., MLflowTracker],
        files: Path,
        artifacts: Path,
    ) -> None:
        tracker = build(sqlite_store)
        tracker.start_run()
        mend = replace_file(sqlite_store)
        tracker.log_model(files / "model", "model")
        tracker.end_run()
        mend()
        release(sqlite_store)
        in_the_way = artifacts / "spooled" / "models"
        in_the_way.parent.mkdir(parents=True, exist_ok=True)
        in_the_way.write_text("a file where the folder should be")
        assert [r.outcome for r in replay_spool(spool, sqlite_store)] == ["kept"]
        client = open_store(sqlite_store)
        (run,) = all_runs(client)
        (model,) = client.search_logged_models([run.info.experiment_id])
        assert str(model.status) == "FAILED"
        in_the_way.unlink()
        assert [r.outcome for r in replay_spool(spool, sqlite_store)] == ["logged"]
        (model,) = client.search_logged_models([run.info.experiment_id])
        assert str(model.status) == "READY"

    def test_on_a_store_that_is_still_unreachable_changes_nothing(
        self, sqlite_store: str, spool: Path, spooled: Callable[..., str]
    ) -> None:
        spooled(begun=True)
        mend = replace_file(sqlite_store)
        with pytest.raises(TrackingUnavailable):
            replay_spool(spool, sqlite_store)
        mend()
        assert len(room._entries(spool)) == 1

    def test_into_a_store_that_does_not_have_the_run_makes_one(
        self,
        sqlite_store: str,
        postgres_store: str,
        spool: Path,
        spooled: Callable[..., str],
        artifacts: Path,
    ) -> None:
        run_id = spooled(begun=True)
        root = artifacts.as_uri()
        (result,) = replay_spool(spool, postgres_store, artifact_root=root, moved_from=sqlite_store)
        assert result.outcome == "logged"
        assert result.run_id != run_id
        check_everything(open_store(postgres_store), str(result.run_id), artifacts)

    @pytest.mark.parametrize("ended", [True, False])
    def test_logs_a_run_but_for_the_files_that_cannot_be_attached(
        self,
        sqlite_store: str,
        spool: Path,
        build: Callable[..., MLflowTracker],
        files: Path,
        told: list[str],
        ended: bool,
    ) -> None:
        client = open_store(sqlite_store)
        tracker = build(sqlite_store)
        tracker.start_run()
        folder = Path(client.get_run(str(tracker.run_id)).info.artifact_uri.removeprefix("file://"))
        mend = replace_file(sqlite_store)

        def work() -> None:
            tracker.set_tags({"phase": "spooled"})
            tracker.log_artifact(files / "a.txt", "a")
            tracker.log_artifact(files / "a.txt", "a/a.txt")
            tracker.log_artifacts_dir(files, "x" * 300)
            tracker.log_artifacts_dir(files, "../outside")
            assert tracker.log_model(files / "model", "model") is None
            tracker.log_metrics({"after": 1.0})
            if ended:
                tracker.end_run()

        assert in_child(work) == 0
        mend()
        release(sqlite_store)
        told.clear()
        (result,) = replay_spool(spool, sqlite_store)
        assert (result.run_id, result.outcome) == (tracker.run_id, "kept")
        assert "NotADirectoryError" in str(result.reason)
        assert "File name too long" in str(result.reason)
        assert told == [f"spooled run {result.spool_id} stays in {spool}: {result.reason}"]
        run = client.get_run(str(tracker.run_id))
        assert run.data.metrics == {"after": 1.0}
        assert run.info.status == ("FINISHED" if ended else "KILLED")
        assert len(client.search_logged_models([run.info.experiment_id])) == 1
        (entry,) = room._entries(spool)
        assert {path.name for path in entry.iterdir()} == {
            *("run.json", "end.json"),
            *("0003", "0003.json", "0004", "0004.json"),
        }
        client.set_tag(run.info.run_id, "phase", "corrected by hand")
        (folder / "a" / "a.txt").unlink()
        (again,) = replay_spool(spool, sqlite_store)
        assert again.outcome == "kept"
        assert "NotADirectoryError" not in str(again.reason)
        assert (folder / "a" / "a.txt" / "a.txt").read_text() == "a"
        after = client.get_run(run.info.run_id)
        assert after.data.tags["phase"] == "corrected by hand"
        assert after.info.end_time == run.info.end_time
        assert {path.name for path in entry.iterdir()} == {"run.json", "end.json", "0004", "0004.json"}

    def test_makes_no_second_run_where_its_own_was_deleted(
        self, sqlite_store: str, spool: Path, spooled: Callable[..., str], tmp_path: Path
    ) -> None:
        spooled(begun=False)
        shutil.copytree(spool, tmp_path / "kept")
        (result,) = replay_spool(spool, sqlite_store)
        open_store(sqlite_store).delete_run(str(result.run_id))
        shutil.copytree(tmp_path / "kept", spool, dirs_exist_ok=True)
        (again,) = replay_spool(spool, sqlite_store)
        assert again.outcome == "kept"
        assert f"{result.run_id} was deleted" in str(again.reason)
        assert all_runs(open_store(sqlite_store)) == []

    def test_leaves_what_belongs_to_another_store_and_tells_how_it_gets_there(
        self,
        sqlite_store: str,
        migrated_sqlite: Path,
        spool: Path,
        spooled: Callable[..., str],
        tmp_path: Path,
        artifacts: Path,
        told: list[str],
    ) -> None:
        run_id = spooled(begun=True)
        other = f"sqlite:///{tmp_path / 'other.db'}"
        shutil.copyfile(migrated_sqlite, tmp_path / "other.db")
        told.clear()
        (result,) = replay_spool(spool, other)
        assert (result.outcome, result.run_id) == ("kept", None)
        there = f"FOREX_TRACKING_URI={sqlite_store} FOREX_ARTIFACT_URI={artifacts.as_uri()}"
        assert f"{there} forex tracking replay" in str(result.reason)
        assert f"forex tracking replay --from {sqlite_store}" in str(result.reason)
        assert len(told) == 1
        assert all_runs(open_store(other)) == []
        release(other)
        assert [r.run_id for r in replay_spool(spool, sqlite_store)] == [run_id]

    def test_goes_along_when_the_folder_of_spool_and_store_is_moved(
        self, sqlite_store: str, spool: Path, spooled: Callable[..., str], tmp_path: Path
    ) -> None:
        run_id = spooled(begun=True)
        new = tmp_path / "new"
        new.mkdir()
        for name in ("data", "spool"):
            (tmp_path / name).rename(new / name)
        uri = f"sqlite:///{new / 'data' / 'mlflow' / 'mlflow.db'}"
        assert [r.run_id for r in replay_spool(new / "spool", uri)] == [run_id]
        release(uri)

    def test_writes_no_password_down(
        self, build: Callable[..., MLflowTracker], spool: Path, postgres_store: str, postgres_server: Any
    ) -> None:
        uri = postgres_store.replace("forex@", "forex:very-hidden@")
        tracker = build(uri)
        postgres_server.stop()
        try:
            with tracker:
                pass
        finally:
            postgres_server.start()
        (entry,) = room._entries(spool)
        assert "very-hidden" not in (entry / "run.json").read_text()
        assert [r.outcome for r in replay_spool(spool, uri)] == ["logged"]
        release(uri)

    @pytest.mark.parametrize("adopted", [True, False])
    def test_into_a_store_that_lost_the_run_makes_it_with_its_name_and_tags_and_says_what_is_gone(
        self,
        sqlite_store: str,
        migrated_sqlite: Path,
        spool: Path,
        build: Callable[..., MLflowTracker],
        told: list[str],
        adopted: bool,
    ) -> None:
        tracker = build(sqlite_store)
        if adopted:
            tracker.start_run()
        tracker.start_run("my name", "what it is", {"mine": 1})
        tracker.log_params({"before": 1})
        tracker.set_tags({"later": "2"})
        begin_anew = lose_file(sqlite_store, migrated_sqlite)
        tracker.log_metrics({"after": 1.0})
        tracker.end_run()
        begin_anew()
        told.clear()
        (result,) = replay_spool(spool, sqlite_store)
        assert result.outcome == "logged"
        (run,) = all_runs(open_store(sqlite_store))
        assert run.info.run_name == "my name"
        expected = {"pair": "USDCLP", "mine": "1", "later": "2", "mlflow.note.content": "what it is"}
        assert {name: run.data.tags.get(name) for name in expected} == expected
        assert (run.data.params, run.data.metrics) == ({}, {"after": 1.0})
        assert str(tracker.run_id) in run.data.tags["records_lost"]
        assert result.reason == run.data.tags["records_lost"]
        assert len(told) == 1
        assert run.data.tags["records_lost"] in told[0]

    def test_keeps_the_name_that_the_store_gave(
        self, sqlite_store: str, migrated_sqlite: Path, spool: Path, artifacts: Path
    ) -> None:
        tracker = MLflowTracker(sqlite_store, "spooled", artifact_location=artifacts.as_uri(), spool=spool)
        tracker.start_run()
        name = open_store(sqlite_store).get_run(str(tracker.run_id)).info.run_name
        begin_anew = lose_file(sqlite_store, migrated_sqlite)
        tracker.end_run()
        begin_anew()
        replay_spool(spool, sqlite_store)
        (run,) = all_runs(open_store(sqlite_store))
        assert run.info.run_name == name

    def test_of_no_spool_is_nothing(self, sqlite_store: str, spool: Path) -> None:
        assert replay_spool(spool, sqlite_store) == []
        assert not spool.exists()


def die_after(moment: int) -> None:
    """Kill this process after so many steps of a replay."""
    from mlflow import MlflowClient

    count = 0

    def dying(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            result = method(*arguments, **named)
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return result

        return call

    for name in dir(MlflowClient):
        if not name.startswith("_") and callable(getattr(MlflowClient, name)):
            setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))
    Path.replace = dying(Path.replace)  # type: ignore[method-assign]
    room.shutil.rmtree = dying(shutil.rmtree)  # type: ignore[attr-defined]
