"""`forex doctor`: each fault is caused, and the check that is to find it finds it, with what to do."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.health import prefect
from forex_core.config import Settings, load_settings
from forex_core.doctor import CHECKS, Check, Checked, Finding, Patient, examine, machine, summary
from forex_core.testing import synthetic_table
from forex_core.tracking import MLflowTracker, open_store
from forex_core.tracking.process import PROCESS_TAG, this_process
from tests.faults import damage

SECRET = "hidden-5d1f0a"


def patient(scratch: Path, **settings: Any) -> Patient:
    return Patient(load_settings(**settings), online=False, scratch=scratch)


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., Finding]:
    """`look(name)` is what the check of that name finds with the settings of now, its needs looked at before."""

    def looked(name: str, *, online: bool = False) -> Finding:
        wanted = [name]
        for check in reversed(CHECKS):
            if check.name in wanted:
                wanted += check.needs
        chosen = [check for check in CHECKS if check.name in wanted]
        found = examine(chosen, load_settings(), online=online, limit_s=60)
        return found[-1].finding

    return looked


def contents(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if not path.name.endswith(("-shm", "-wal"))  # of readers
    }


# --- all of them


def test_on_a_new_machine_nothing_fails_and_nothing_is_left(tmp_path: Path) -> None:
    before = set(Path("/dev/shm").glob("forex-doctor-*"))
    found = examine(CHECKS, load_settings(), limit_s=120)
    assert [one.name for one in found] == [check.name for check in CHECKS]
    assert {one.name: one.finding.found for one in found if not one.is_sound} == {
        "observation store": "none, and source ecb needs none",
        "notification": "nobody is told of a failure",
    } | {one.name: one.finding.found for one in found if one.name == "services" and not one.is_sound}
    assert summary(found)["failed"] == 0
    assert not (tmp_path / "data").exists()
    assert set(Path("/dev/shm").glob("forex-doctor-*")) - before == set()


def test_it_changes_nothing_of_a_system_that_is_there(sqlite_store: str, tmp_path: Path) -> None:
    for name in ("store", "reports", "spool", "cache"):
        (tmp_path / "data" / name).mkdir()
    before = contents(tmp_path / "data")
    examine(CHECKS, load_settings(), limit_s=120)
    assert contents(tmp_path / "data") == before


def named(name: str, look: Callable[[Patient], Finding], *needs: str) -> Check:
    return Check(name, look, needs)


def fine(_: Patient) -> Finding:
    return Finding("ok", "fine")


def made(*checks: Check, limit_s: float = 20) -> dict[str, Finding]:
    return {one.name: one.finding for one in examine(checks, load_settings(), limit_s=limit_s)}


def test_a_check_that_hangs_keeps_no_other_from_answering() -> None:
    forever = threading.Event()

    def hangs(_: Patient) -> Finding:
        forever.wait()
        return Finding("ok", "never")

    began = time.monotonic()
    found = made(named("hangs", hangs), named("fine", fine), named("after", fine, "hangs"), limit_s=0.5)
    assert time.monotonic() - began < 3
    assert {name: finding.state for name, finding in found.items()} == {
        "hangs": "failed",
        "fine": "ok",
        "after": "skipped",
    }
    assert found["hangs"].found == "no answer within 0.5 s"
    assert found["after"].found == "'hangs' has not answered"
    forever.set()


def test_what_needs_a_failed_check_is_skipped_and_a_warning_is_no_failure() -> None:
    found = made(
        named("poor", lambda _: Finding("warning", "poor")),
        named("ill", lambda _: Finding("failed", "ill")),
        named("of poor", fine, "poor"),
        named("of ill", fine, "ill"),
        named("of that", fine, "of ill"),
    )
    assert [finding.state for finding in found.values()] == ["warning", "failed", "ok", "skipped", "skipped"]
    assert found["of ill"].found == "'ill' did not come out well"


def test_an_error_of_any_kind_is_a_finding(told: list[str]) -> None:
    def breaks(_: Patient) -> Finding:
        raise ZeroDivisionError("by the test")

    found = made(named("breaks", breaks), named("fine", fine))
    assert found["breaks"].state == "failed"
    assert found["breaks"].found == "ZeroDivisionError: by the test"
    assert found["fine"].state == "ok"
    assert told == ["check 'breaks' broke off"]


def test_no_finding_tells_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREX_DATA__FRED_API_KEY", SECRET)
    monkeypatch.setenv("FOREX_DATA__STORE_URL", f"postgresql://me:{SECRET}-2@127.0.0.1:1/db")
    found = made(named("tells", lambda _: Finding("failed", f"key {SECRET}", f"try {SECRET}-2")))
    assert (found["tells"].found, found["tells"].todo) == ("key ***", "try ***")


# --- the machine


def test_files_of_the_settings_are_there(
    look: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look("settings").state == "ok"
    monkeypatch.setenv("FOREX_PATHS", "market.csv")
    finding = look("settings")
    assert (finding.state, finding.todo) == ("failed", "put it there, or change FOREX_PATHS")
    assert "market.csv" in finding.found


def test_libraries_are_those_that_were_tried(
    look: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look("libraries").state == "ok"
    # Installing others is not for a test.
    wanted = ["numpy<1", "sqlalchemy>=2.0,<2.1", "no-such-library>=1", 'ray>=1; extra == "ray"']
    monkeypatch.setattr(machine, "requires", lambda _: wanted)
    finding = look("libraries")
    assert finding.state == "failed"
    assert "numpy is" in finding.found
    assert "no-such-library>=1 is not installed" in finding.found
    assert "sqlalchemy" not in finding.found
    assert "ray" not in finding.found
    monkeypatch.setattr(machine, "DISTRIBUTION", "no-such-distribution")
    monkeypatch.undo()


def test_a_data_folder_that_cannot_be_made(
    look: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREX_DATA_DIR", "/proc/forex/data")  # where not even root may write
    finding = look("permissions")
    assert finding.state == "failed"
    assert finding.found == "/proc/forex/data is not there and /proc cannot be written"
    assert f"chown -R {os.geteuid()} /proc" in finding.todo


def test_a_folder_within_that_cannot_be_written(look: Callable[..., Finding], tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    assert look("permissions").state == "ok"
    (root / "spool").symlink_to("/proc/self")
    finding = look("permissions")
    assert (finding.state, finding.found) == ("failed", f"{root / 'spool'} cannot be written")
    assert [path.name for path in root.iterdir()] == ["spool"], "nothing is left of the trial"


def test_a_data_folder_that_everybody_may_write(look: Callable[..., Finding], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    assert look("permissions").todo == f"chmod o-w {tmp_path / 'data'}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".env", f"FOREX_DATA__FRED_API_KEY={SECRET}\n"),
        (".env", f"FOREX_TRACKING_URI=postgresql://me:{SECRET}@db/runs\n"),
        (".env", f"FOREX_NOTIFY__URLS=mailto://me:{SECRET}@example.com\n"),
        ("forex.toml", f'[data]\nnews_api_key = "{SECRET}"\n'),
    ],
)
def test_a_file_with_secrets_is_for_its_owner_alone(
    look: Callable[..., Finding], name: str, text: str
) -> None:
    path = Path(name).absolute()
    path.write_text(text)
    for mode in (0o644, 0o640, 0o604):
        path.chmod(mode)
        finding = look("permissions")
        assert finding.found == f"{path} holds secrets and has mode {mode:o}, expected 600"
        assert (finding.state, finding.todo) == ("failed", f"chmod 600 {path}")
    path.chmod(0o600)
    assert look("permissions").state == "ok"


def test_a_file_without_secrets_may_be_read(look: Callable[..., Finding]) -> None:
    Path("forex.toml").write_text('pair = "USDCLP"\n')
    Path("forex.toml").chmod(0o644)
    assert look("permissions").state == "ok"


@pytest.mark.parametrize(
    ("bound", "state"), [("FREE_FAILED_BYTES", "failed"), ("FREE_WARNING_BYTES", "warning")]
)
def test_a_disk_with_little_room(
    look: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch, bound: str, state: str
) -> None:
    free = shutil.disk_usage("/").free
    monkeypatch.setattr(machine, "FREE_FAILED_BYTES", 0)
    monkeypatch.setattr(machine, "FREE_WARNING_SHARE", 0)
    monkeypatch.setattr(machine, "FREE_WARNING_BYTES", 0)
    assert look("disk").state == "ok"
    monkeypatch.setattr(machine, bound, 1000 * free)  # as if this disk were as full as that
    finding = look("disk")
    assert finding.state == state
    assert "GB free at" in finding.found
    assert "cache may go" in finding.todo


def test_a_clock_that_went_back(look: Callable[..., Finding], sqlite_store: str) -> None:
    assert look("clock").state == "ok"
    database = Path(sqlite_store.removeprefix("sqlite:///"))
    later = time.time() + 3600
    os.utime(database, (later, later))
    finding = look("clock")
    assert finding.state == "failed"
    assert "the clock has gone back" in finding.found
    assert "timedatectl" in finding.todo


def test_the_memory_of_services_that_run(
    look: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys; sys.stdin.read()"
    running = [sys.executable, "-c", code, "prefect", "worker", "start", "--pool", "forex"]
    with subprocess.Popen(running, stdin=subprocess.PIPE) as process:
        finding = look("services")
        assert "Prefect worker" in finding.found
        monkeypatch.setattr(machine, "SERVICES_WARNING_BYTES", 1)
        assert look("services").state == "warning"
        process.communicate()


# --- what is kept


def test_a_store_that_is_sound(look: Callable[..., Finding], sqlite_store: str) -> None:
    finding = look("tracking store")
    assert finding.state == "ok"
    assert "journal mode wal" in finding.found


def test_no_store_yet(look: Callable[..., Finding]) -> None:
    for name in ("tracking store", "run files", "orphaned runs", "forecasts", "spool"):
        assert look(name).state == "ok"


def test_tracking_that_is_off(look: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREX_TRACKING__ENABLED", "false")
    assert look("tracking store").state == "skipped"


def test_a_store_that_is_damaged(look: Callable[..., Finding], sqlite_store: str) -> None:
    damage(Path(sqlite_store.removeprefix("sqlite:///")))
    finding = look("tracking store")
    assert finding.state == "failed"
    assert "mlflow.db" in finding.found
    assert look("orphaned runs").state == "skipped"


def test_a_store_whose_files_lie_elsewhere(
    look: Callable[..., Finding], sqlite_store: str, tmp_path: Path
) -> None:
    open_store(sqlite_store).create_experiment("mine", str(tmp_path / "notebooks" / "mlruns"))
    finding = look("tracking store")
    assert finding.state == "failed"
    assert "forex tracking relocate" in finding.found


def test_a_server_that_is_down(look: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("FOREX_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{port}")
    finding = look("tracking store")
    assert finding.state == "failed"
    assert SECRET not in finding.found


def published(store: str, folder: Path, name: str, *, days_ago: float = 0) -> Path:
    """Folder of the files of a published run with an empty report."""
    tracker = MLflowTracker(
        store, "forecaster_7d", artifact_location=(folder / "data" / "mlflow" / "mlruns").as_uri()
    )
    report = folder / "made"
    report.mkdir(exist_ok=True)
    for file in ("report.html", "forecast.json", "members.json", "snapshot.parquet"):
        (report / file).write_text("")
    with tracker:
        tracker.set_tags({"status": "published", "pair": "USDMXN", "mlflow.runName": name})
        tracker.log_artifacts_dir(report, "reports")
    run_id = str(tracker.run_id)
    began = int((datetime.now(UTC) - timedelta(days=days_ago)).timestamp() * 1000)
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE runs SET start_time = ? WHERE run_uuid = ?", (began, run_id))
    uri = open_store(store).get_run(run_id).info.artifact_uri
    return Path(uri.removeprefix("file://")) / "reports"


def test_runs_that_lack_files(look: Callable[..., Finding], sqlite_store: str, tmp_path: Path) -> None:
    first, second = (published(sqlite_store, tmp_path, name) for name in ("first", "second"))
    assert look("run files").found == "2 published runs and 0 champions have theirs"
    (first / "report.html").unlink()
    shutil.rmtree(second)
    finding = look("run files")
    assert finding.state == "failed"
    assert finding.found.startswith("2 lack files")
    assert "has no reports/report.html in" in finding.found
    assert "restore" in finding.todo


def test_runs_whose_process_is_gone(look: Callable[..., Finding], sqlite_store: str) -> None:
    client = open_store(sqlite_store)
    alive = {PROCESS_TAG: json.dumps(asdict(this_process()))}
    gone = {PROCESS_TAG: json.dumps(asdict(replace(this_process(), started=1)))}
    client.create_run("0", tags=alive)
    assert look("orphaned runs") == Finding("ok", "none; 1 running")
    run_id = client.create_run("0", tags=gone).info.run_id
    finding = look("orphaned runs")
    assert (finding.state, finding.todo) == ("warning", "forex tracking sweep ends them")
    assert run_id[:8] in finding.found
    assert client.get_run(run_id).info.status == "RUNNING", "a doctor looks"


def test_runs_that_wait_in_the_spool(look: Callable[..., Finding], tmp_path: Path) -> None:
    settings = load_settings()
    assert look("spool") == Finding("ok", "nothing waits")
    tracker = MLflowTracker(f"sqlite:////proc/{SECRET}/mlflow.db", "forecaster_7d", spool=settings.spool_dir)
    with tracker:
        tracker.log_metrics({"7d_rmse": 1.0})
    finding = look("spool")
    assert finding.state == "warning"
    assert finding.found.startswith(f"1 runs wait in {settings.spool_dir}, since ")
    assert "forex tracking replay" in finding.todo
    (settings.spool_dir / "broken").mkdir()
    (settings.spool_dir / "broken" / "run.json").write_text("{")
    assert look("spool").found.startswith("2 runs wait")


def test_a_horizon_that_was_not_published_for_long(
    look: Callable[..., Finding], sqlite_store: str, tmp_path: Path
) -> None:
    assert look("forecasts").found == "none of USDMXN yet"
    published(sqlite_store, tmp_path, "old", days_ago=8)
    finding = look("forecasts")
    assert finding.state == "warning"
    assert "late: 7d" in finding.found
    published(sqlite_store, tmp_path, "new", days_ago=2)
    assert look("forecasts").state == "ok"


def test_a_run_of_after_now(look: Callable[..., Finding], sqlite_store: str, tmp_path: Path) -> None:
    """The clock has gone back, though everything was written since."""
    published(sqlite_store, tmp_path, "ahead", days_ago=-2)
    assert look("clock").state == "ok"
    finding = look("forecasts")
    assert finding.state == "failed"
    assert "The clock has gone back, or was ahead: run " in finding.found
    assert "timedatectl set-ntp true" in finding.found


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Settings with a store of observations that ends today, of the pair alone."""
    monkeypatch.setenv("FOREX_SOURCE", "store")
    monkeypatch.setenv("FOREX_PAIR", "USDCLP")
    monkeypatch.setenv("FOREX_DATA__DRIVERS", "[]")
    return load_settings()


def imported(settings: Settings, last: datetime) -> None:
    from forex_core.data.importing import observations_of
    from forex_core.data.loading import store_of
    from forex_core.types import Pair

    rows = 700
    first = pd.Timestamp(last).tz_localize(None).normalize() - pd.tseries.offsets.BDay(rows - 1)
    table = synthetic_table(rows, start=first.date().isoformat())[["Date", "USDCLP"]]
    Path("market.csv").write_text(table.to_csv(index=False))
    found = observations_of(
        [Path("market.csv")], Pair("USD", "CLP"), rate="close", columns={}, needs_pair=True, available_at=None
    )
    store_of(settings).record(found, origin="the test")


def test_observations_that_are_fresh(look: Callable[..., Finding], kept: Settings) -> None:
    assert look("observation store").state == "warning"
    assert look("data sources").state == "failed"
    imported(kept, datetime.now(UTC) - timedelta(days=1))
    assert look("observation store").state == "ok"
    finding = look("data sources")
    assert finding.state == "ok", finding
    assert finding.found.startswith("USDCLP from store: ")


def test_observations_that_are_old(look: Callable[..., Finding], kept: Settings) -> None:
    imported(kept, datetime.now(UTC) - timedelta(days=40))
    finding = look("data sources")
    assert finding.state == "failed"
    assert "forex data fetch --pair" in finding.found


def test_observations_that_a_fetch_would_renew(
    look: Callable[..., Finding], kept: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(kept, datetime.now(UTC) - timedelta(days=40))
    monkeypatch.setenv("FOREX_SOURCE", "live")
    finding = look("data sources")
    assert finding.state == "warning"
    assert "a forecast asks the network first" in finding.found


def test_an_observation_store_that_is_damaged(look: Callable[..., Finding], kept: Settings) -> None:
    imported(kept, datetime.now(UTC) - timedelta(days=1))
    damage(kept.root / "store" / "forex.db")
    finding = look("observation store")
    assert finding.state == "failed"
    assert "forex.db" in finding.found


def test_a_series_that_wants_a_key(
    look: Callable[..., Finding], kept: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forex_core.data import catalogue

    imported(kept, datetime.now(UTC) - timedelta(days=1))
    monkeypatch.setenv("FOREX_DATA__DRIVERS", '["only_bcch"]')
    # No series of the register has this source alone.
    feed = catalogue.Feed(catalogue.BCCH, "X")
    only = replace(catalogue.entry("uf"), name="only_bcch", feeds=(feed,))
    monkeypatch.setattr(catalogue, "ENTRIES", {**catalogue.ENTRIES, "only_bcch": only})
    finding = look("data sources")
    assert finding.state == "warning"
    assert "only_bcch needs FOREX_DATA__BCCH_USER" in finding.found


def test_sources_are_asked_only_when_that_is_wanted(
    look: Callable[..., Finding], kept: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(kept, datetime.now(UTC) - timedelta(days=1))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gone = f"http://127.0.0.1:{taken.getsockname()[1]}"
    addresses = dict.fromkeys(("yahoo", "fred", "mindicador", "ecb", "calendar"), gone)
    monkeypatch.setenv("FOREX_DATA__ADDRESSES", json.dumps(addresses))
    assert look("data sources").state == "ok"
    finding = look("data sources", online=True)
    assert finding.state == "warning"
    assert "yahoo: " in finding.found


# --- whom it tells


def test_targets_that_are_not_understood(
    look: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look("notification").state == "skipped"
    monkeypatch.setenv("FOREX_NOTIFY__URLS", f'["json://127.0.0.1/{SECRET}", "jason://127.0.0.1/{SECRET}"]')
    finding = look("notification")
    assert (finding.state, finding.found) == ("failed", "target 2 (not understood)")
    monkeypatch.setenv("FOREX_NOTIFY__URLS", f"json://127.0.0.1/{SECRET}")
    finding = look("notification")
    assert finding.state == "ok"
    assert SECRET not in finding.found


# --- the smoke test


SMOKE = ("tracker basics", "context manager", "artifact upload", "configuration builder")


def smoked() -> Sequence[Checked]:
    return examine([check for check in CHECKS if check.name in SMOKE], load_settings(), limit_s=60)


def test_the_smoke_test_finds_a_tracker_that_forgets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [one.finding.state for one in smoked()] == ["ok"] * 4
    monkeypatch.setattr(MLflowTracker, "log_artifact", lambda *_: None)
    assert [one.finding.state for one in smoked()] == ["ok", "ok", "failed", "ok"]
    monkeypatch.setattr(MLflowTracker, "log_metrics", lambda *_, **__: None)
    found = smoked()
    assert [one.finding.state for one in found] == ["failed", "skipped", "skipped", "skipped"]
    assert "expected ('FINISHED'" in found[0].finding.found
    assert not (tmp_path / "data").exists()


# --- Prefect


@contextmanager
def prefect_at(url: str) -> Iterator[None]:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: url}):
        yield


def test_a_prefect_server_that_answers(
    prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = prefect(patient(tmp_path))
    assert finding.state in ("ok", "warning"), "other tests may have left a pool without a worker"
    assert " answers, Prefect 3." in finding.found
    monkeypatch.setattr("prefect.__version__", "3.0.0")
    finding = prefect(patient(tmp_path))
    assert (finding.state, finding.todo) == ("warning", "install the same version on both sides")


def test_a_prefect_server_that_is_down(
    prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/api"
    with prefect_at(url):
        finding = prefect(patient(tmp_path))
    assert finding.state == "failed"
    assert finding.found.startswith(f"{url} does not answer")
    assert "PREFECT_API_URL" in finding.todo


def test_no_prefect_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert prefect(patient(tmp_path)).state == "skipped"
