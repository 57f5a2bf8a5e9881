"""Runs whose process is gone end as KILLED, and no run of a living process does: processes are started and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from forex_core.config import load_settings
from forex_core.tracking import MLflowTracker, RunningRun, open_store, replay_spool, sweep
from forex_core.tracking.orphans import ORPHANED_TAG
from forex_core.tracking.process import PROCESS_TAG, Process, process_tag, this_process, told_process

HOUR_MS = 3_600_000
OTHER = replace(this_process(), host="vps2", machine="0" * 16, boot="another", namespace="another")


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of the store of the settings."""
    uri: str = request.getfixturevalue(f"{request.param}_store")
    monkeypatch.setenv("FOREX_TRACKING_URI", uri)
    return uri


def swept() -> dict[str, RunningRun]:
    return {one.run_id: one for one in sweep(load_settings())}


def run_of(store: str, process: Process | None, *, age_h: float = 0) -> str:
    """Id of a run that has not ended, of a process."""
    client = open_store(store)
    tags = {PROCESS_TAG: json.dumps(asdict(process))} if process else {}
    began = int(time.time() * 1000 - age_h * HOUR_MS)
    return str(client.create_run("0", began, tags, "run").info.run_id)


def state_of(store: str, run_id: str) -> tuple[str, dict[str, str]]:
    run = open_store(store).get_run(run_id)
    return run.info.status, run.data.tags


RUN = """
import sys, time
from forex_core.tracking import MLflowTracker
tracker = MLflowTracker(sys.argv[1], "forecaster_7d", artifact_location=sys.argv[2])
print(tracker.start_run("killed one"), flush=True)
time.sleep(600)
"""


@contextmanager
def running(store: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process in the middle of a run, and the id of the run."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, store, folder.as_uri()], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_killed_run_ends_and_a_living_one_goes_on(store: str, tmp_path: Path) -> None:
    with running(store, tmp_path) as (process, run_id):
        assert swept()[run_id].state == "alive"
        assert state_of(store, run_id)[0] == "RUNNING"
        assert ORPHANED_TAG not in state_of(store, run_id)[1]

        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table of processes
        found = swept()[run_id]
        assert (found.state, found.name, found.experiment) == ("orphaned", "killed one", "forecaster_7d")
    status, tags = state_of(store, run_id)
    assert status == "KILLED"
    assert tags[ORPHANED_TAG] == f"process {process.pid} on {this_process().host} is gone"
    assert tags["status"] == "failed"
    assert swept() == {}, "once"


def test_a_number_that_another_process_has_now_is_not_the_process(store: str) -> None:
    here = this_process()
    alive, reused = run_of(store, here), run_of(store, replace(here, started=here.started - 1))
    gone = run_of(store, replace(here, pid=2**22 + 1))
    assert {run: one.state for run, one in swept().items()} == {
        alive: "alive",
        reused: "orphaned",
        gone: "orphaned",
    }
    assert [state_of(store, run)[0] for run in (alive, reused, gone)] == ["RUNNING", "KILLED", "KILLED"]


SWEEP = """
import json, os, sys
from forex_core.config import load_settings
from forex_core.tracking import sweep
hidden = not os.path.exists(f"/proc/{sys.argv[1]}")
print(json.dumps([hidden, {one.run_id: one.state for one in sweep(load_settings())}]))
"""
SANDBOX = """
mount -t proc -o hidepid=2 proc /proc
exec setpriv --regid 4242 --clear-groups unshare --user --map-current-user "$@"
"""
"""ProtectProc=invisible and PrivateUsers=yes of a unit; the group of root is shown every process."""


@pytest.mark.skipif(os.geteuid() != 0, reason="none but root can mount a /proc")
@pytest.mark.slow
def test_a_process_that_a_sandbox_hides_is_not_gone(sqlite_store: str, tmp_path: Path) -> None:
    with running(sqlite_store, tmp_path) as (process, run_id):
        gone = run_of(sqlite_store, replace(this_process(), pid=2**22 + 1))
        sandbox = ["unshare", "--mount", "sh", "-e", "-c", SANDBOX, "sh"]
        done = subprocess.run(
            [*sandbox, sys.executable, "-c", SWEEP, str(process.pid)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [True, {run_id: "elsewhere", gone: "orphaned"}]
        assert [state_of(sqlite_store, run)[0] for run in (run_id, gone)] == ["RUNNING", "KILLED"]


@pytest.mark.parametrize(
    ("change", "alive"),
    [
        ({"boot": "before"}, False),
        ({"boot": "before", "namespace": "before"}, False),
        ({"boot": "before", "machine": ""}, None),
        ({"boot": "before", "host": "clone"}, None),
        ({"namespace": "another container"}, None),
        ({"namespace": "another container", "machine": "", "host": "3f1c"}, None),
        ({"host": "renamed"}, True),
        ({"boot": "", "machine": ""}, None),
    ],
)
def test_what_can_be_told_of_a_process(
    change: dict[str, str], alive: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(this_process(), machine="a" * 16)
    monkeypatch.setattr("forex_core.tracking.process.this_process", lambda: here)
    assert replace(here, **change).is_alive is alive  # type: ignore[arg-type]


def test_a_run_of_another_machine_is_given_up_after_the_limit(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    young, old = run_of(store, OTHER, age_h=1), run_of(store, OTHER, age_h=30)
    found = swept()
    assert (found[young].state, found[old].state) == ("elsewhere", "orphaned")
    assert "has not ended for 30 hours" in state_of(store, old)[1][ORPHANED_TAG]
    assert state_of(store, young)[0] == "RUNNING"
    monkeypatch.setenv("FOREX_TRACKING__ORPHANED_AFTER_H", "0.5")
    assert swept()[young].state == "orphaned"
    assert state_of(store, young)[0] == "KILLED"


NO_NUMBERS = [json.dumps(asdict(this_process()) | {"pid": pid}) for pid in ("1", -1, 0, None, 1.5)]


@pytest.mark.parametrize("tag", [None, "", "somebody's own", "[]", '{"pid": 4}', *NO_NUMBERS])
def test_a_run_that_tells_no_process_is_left_alone_however_old(store: str, tag: str | None) -> None:
    client = open_store(store)
    began = int(time.time() * 1000 - 1000 * HOUR_MS)
    run_id = client.create_run("0", began, {PROCESS_TAG: tag} if tag else {}, "notebook").info.run_id
    assert swept()[run_id].state == "untold"
    assert state_of(store, run_id)[0] == "RUNNING"


def test_runs_that_ended_are_not_looked_at(store: str) -> None:
    client = open_store(store)
    for status in ("FINISHED", "FAILED", "KILLED"):
        run_id = run_of(store, replace(this_process(), started=1))
        client.set_terminated(run_id, status)
    assert swept() == {}


def test_a_run_whose_end_waits_in_the_spool_keeps_it(
    sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    settings = load_settings()
    database = Path(sqlite_store.removeprefix("sqlite:///"))
    tracker = MLflowTracker(
        sqlite_store, "forecaster_7d", artifact_location=tmp_path.as_uri(), spool=settings.spool_dir
    )
    run_id = tracker.start_run()
    aside = database.rename(database.with_name("aside.db"))
    tracker.log_metrics({"7d_rmse": 12.0})
    aside.rename(database)
    tracker.end_run()
    gone = replace(this_process(), started=1)
    open_store(sqlite_store).set_tag(run_id, PROCESS_TAG, json.dumps(asdict(gone)))
    assert swept()[run_id].state == "spooled"
    assert state_of(sqlite_store, run_id)[0] == "RUNNING"
    replay_spool(settings.spool_dir, sqlite_store)
    assert state_of(sqlite_store, run_id)[0] == "FINISHED"
    assert swept() == {}


@pytest.mark.slow
def test_two_sweeps_at_once_agree(sqlite_store: str) -> None:
    orphans = [run_of(sqlite_store, replace(this_process(), started=1)) for _ in range(6)]
    code = "from forex_core.config import load_settings; from forex_core.tracking import sweep; sweep(load_settings())"
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert {state_of(sqlite_store, run)[0] for run in orphans} == {"KILLED"}


def test_every_run_of_a_tracker_tells_its_process(sqlite_store: str, tmp_path: Path) -> None:
    with MLflowTracker(sqlite_store, "mine", artifact_location=tmp_path.as_uri()) as tracker:
        run_id = tracker.run_id
    assert run_id
    tags = state_of(sqlite_store, run_id)[1]
    assert told_process(tags[PROCESS_TAG]) == this_process()
    assert this_process().is_alive


FORK = """
import os
from forex_core.tracking.process import process_tag
process_tag()
if os.fork() == 0:
    print(os.getpid(), process_tag()["process"], flush=True)
    os._exit(0)
os.wait()
"""


def test_a_fork_tells_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, check=True, timeout=200
    )
    number, _, tag = done.stdout.partition(" ")
    process = told_process(tag)
    assert process is not None
    assert process.pid == int(number)
    assert process.is_alive is False


def test_the_id_of_the_machine_is_not_told() -> None:
    path = Path("/etc/machine-id")
    machine = path.read_text().strip() if path.is_file() else ""
    assert not machine or machine not in json.dumps(process_tag())


def test_without_a_store_there_is_nothing_and_none_is_made(tmp_path: Path) -> None:
    assert sweep(load_settings()) == []
    assert not (tmp_path / "data").exists()


def test_the_command_lists_what_it_ended_and_what_it_left(
    sqlite_store: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from forex_core.cli import app

    gone, alive = (
        run_of(sqlite_store, replace(this_process(), started=1)),
        run_of(sqlite_store, this_process()),
    )
    invoke: Callable[..., Any] = CliRunner().invoke
    found = {
        row["run_id"]: row["state"]
        for row in json.loads(invoke(app, ["tracking", "sweep", "--json"]).stdout)["runs"]
    }
    assert found == {gone: "orphaned", alive: "alive"}
    said = invoke(app, ["tracking", "sweep"]).stdout
    assert alive[:8] in said
    assert gone[:8] not in said
    assert "lives" in said
