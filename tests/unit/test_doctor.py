"""`forex doctor`: each fault is caused, and the check that is to find it finds it, with what to do."""

from __future__ import annotations

import json
import os
import re
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
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from flows.health import prefect
from forex_core.backup import manifest
from forex_core.backup.manifest import ManifestWriter
from forex_core.backup.places import Folder, archive_name
from forex_core.config import Settings, load_settings
from forex_core.doctor import (
    CHECKS,
    LIMIT_S,
    Check,
    Checked,
    Finding,
    Patient,
    base,
    examine,
    machine,
    summary,
)
from forex_core.ledger import Ledger
from forex_core.testing import synthetic_table
from forex_core.tracking import MLflowTracker, open_store
from forex_core.tracking.process import PROCESS_TAG, this_process
from tests.deployments import Deployment, entries_of
from tests.faults import damage
from tests.ledgers import entry
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.conftest import S3Bucket

SECRET = "hidden-5d1f0a"
ADVICE = re.compile(r"[;.:] (check|choose|fill|install|look|move|replay|restore|run|set)\b", re.IGNORECASE)
"""What an error of ours ends with, where a finding is one."""
DEPLOYMENTS = Path(__file__).parents[2] / "deployments"


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
        found = examine(chosen, load_settings(), online=online, limit_s=200)
        for one in found:
            if one.finding.state in ("failed", "warning"):
                assert one.finding.todo or ADVICE.search(one.finding.found), f"{one}: what is to be done?"
        return found[-1].finding

    return looked


def contents(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if not path.name.endswith(("-shm", "-wal"))  # of readers
    }


# --- all of them


def test_on_a_new_machine_nothing_fails_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(
        base, "_memory", lambda: tmp_path / "memory"
    )  # other examinations are in the machine's
    found = examine(CHECKS, load_settings(), limit_s=120)
    assert [one.name for one in found] == [check.name for check in CHECKS]
    assert {one.name: one.finding.found for one in found if not one.is_sound} == {
        "observation store": "none, and source ecb needs none",
        "notification": "nobody is told of a failure",
    } | {one.name: one.finding.found for one in found if one.name == "services" and not one.is_sound}
    assert summary(found)["failed"] == 0
    assert not (tmp_path / "data").exists()
    assert list((tmp_path / "memory").iterdir()) == []


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


def made(*checks: Check, limit_s: float = 200) -> dict[str, Finding]:
    return {one.name: one.finding for one in examine(checks, load_settings(), limit_s=limit_s)}


def test_a_check_that_hangs_keeps_no_other_from_answering() -> None:
    forever = threading.Event()

    def hangs(_: Patient) -> Finding:
        forever.wait()
        return Finding("ok", "never")

    began = time.monotonic()
    found = made(named("hangs", hangs), named("fine", fine), named("after", fine, "hangs"), limit_s=3)
    assert time.monotonic() - began < 60
    assert {name: finding.state for name, finding in found.items()} == {
        "hangs": "failed",
        "fine": "ok",
        "after": "skipped",
    }
    assert found["hangs"].found == "no answer within 3 s"
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


@pytest.mark.parametrize(
    ("library", "number"), [("fastapi", "0.155.0"), ("sqlalchemy", "2.1.0"), ("prefect", "3.9.0")]
)
def test_libraries_with_which_prefect_starts_and_schedules_nothing(
    library: str, number: str, look: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the installation tells of itself: installing others is not for a test."""
    installed = machine.version
    monkeypatch.setattr(machine, "version", lambda name: number if name == library else installed(name))
    finding = look("libraries")
    assert finding.state == "failed"
    assert finding.found.startswith(f"{library} is {number}, expected ")
    assert finding.todo == "install again with the constraints: pip install -c constraints.txt ."


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
        (".env", "PREFECT_API_AUTH_STRING=forex:0123456789abcdef\n"),
        (".env", "DO_NOT_TRACK=1\nexport AWS_SECRET_ACCESS_KEY='planted'\n"),
        (".env", "MLFLOW_TRACKING_PASSWORD = planted\n"),
        (".env", "PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://me:planted@db/prefect\n"),
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
    Path(".env").write_text(
        "# PREFECT_API_AUTH_STRING=me:word\nFOREX_DATA__FRED_API_KEY=\nPREFECT_HOME=/srv\n"
    )
    for name in ("forex.toml", ".env"):
        Path(name).chmod(0o644)
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


@pytest.mark.parametrize("through", ["FOREX_BACKUP__TO", "a link"])
def test_a_disk_of_archives_with_little_room(
    look: Callable[..., Finding],
    small_disk: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    through: str,
) -> None:
    """That of the data has enough."""
    place = small_disk("8m") / "forex"  # which the first archive makes
    monkeypatch.setattr(machine, "FREE_FAILED_BYTES", 4_000_000)
    monkeypatch.setattr(machine, "FREE_WARNING_BYTES", 6_000_000)
    monkeypatch.setattr(machine, "FREE_WARNING_SHARE", 0)
    assert place.parent.name not in look("disk").found
    if through == "a link":
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "backups").symlink_to(place.parent)
    else:
        monkeypatch.setenv(through, str(place))
    filler = place.parent / "filler"
    for size, state in ((0, "ok"), (3_000_000, "warning"), (5_000_000, "failed"), (0, "ok")):
        filler.write_bytes(bytes(size))
        finding = look("disk")
        assert finding.state == state, finding
        assert re.search(r"0\.0 GB of 0\.0 GB free at .*, where the archives are", finding.found)
        assert ("forex backup prune" in finding.todo) == (state != "ok")
        assert finding.found.startswith("0.0 GB") == (state != "ok"), "the worse comes first"


def test_a_full_disk_of_data_is_told_before_that_of_its_archives(
    look: Callable[..., Finding], small_disk: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREX_BACKUP__TO", str(small_disk("8m")))
    monkeypatch.setattr(machine, "FREE_FAILED_BYTES", 1000 * shutil.disk_usage("/").free)
    finding = look("disk")
    assert finding.state == "failed"
    assert "cache may go" in finding.todo


def test_archives_in_a_bucket_take_no_room_here(
    look: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREX_BACKUP__TO", "s3://bucket/archives")
    assert look("disk").found.count("GB free at") == 1


@pytest.mark.parametrize("name", ["data", "data[1]"])
def test_what_a_killed_restore_left_is_named(
    look: Callable[..., Finding], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("FOREX_DATA_DIR", str(tmp_path / name))
    assert "of a restore" not in look("disk").found
    left = tmp_path / f".{name}.restoring-4242-1"
    left.mkdir()
    assert f"; {left} is of a restore" in look("disk").found


def test_a_clock_that_went_back(look: Callable[..., Finding], sqlite_store: str) -> None:
    assert look("clock").state == "ok"
    database = Path(sqlite_store.removeprefix("sqlite:///"))
    later = time.time() + 3600
    os.utime(database, (later, later))
    finding = look("clock")
    assert finding.state == "failed"
    assert "the clock has gone back" in finding.found
    assert "timedatectl" in finding.todo


@pytest.mark.parametrize(
    ("unit", "service"),
    [
        ("server", "Prefect server"),
        ("worker", "Prefect worker"),
        ("mlflow", "MLflow"),
        ("dashboard", "dashboard"),
    ],
)
def test_the_memory_of_services_that_run(
    unit: str, service: str, look: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process with the line of the unit."""
    text = (DEPLOYMENTS / "systemd" / f"forex-{unit}.service").read_text(encoding="utf-8")
    (line,) = [one.removeprefix("ExecStart=") for one in text.splitlines() if one.startswith("ExecStart=")]
    running = [sys.executable, "-c", "import sys; sys.stdin.read()", *line.split()]
    with subprocess.Popen(running, stdin=subprocess.PIPE) as process:
        finding = look("services")
        assert f"{service} " in finding.found
        monkeypatch.setattr(machine, "SERVICES_WARNING_BYTES", 1)
        finding = look("services")
        assert (finding.state, finding.todo.split()[0]) == ("warning", "end")
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
    monkeypatch.setenv("FOREX_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{free_port()}")
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


def test_forecasts_that_wait_for_the_ledger(look: Callable[..., Finding]) -> None:
    settings = load_settings()
    assert look("ledger") == Finding("ok", "none yet")
    assert not (settings.root / "store").exists()
    one = entry(datetime.now(UTC).date())
    Ledger(settings.store_url, settings.root).append(one)
    assert look("ledger").found == "the last of 1 forecasts was of USDCLP 7d"
    settings.pending_dir.mkdir()
    (settings.pending_dir / "x.json").write_text(one.to_json())
    finding = look("ledger")
    assert (finding.state, finding.todo) == ("warning", "write them: forex monitor")


def test_outcomes_that_nobody_records(look: Callable[..., Finding]) -> None:
    settings = load_settings()
    book = Ledger(settings.store_url, settings.root)
    one = entry(date(2026, 3, 2))
    book.append(one)
    finding = look("ledger")
    assert finding.state == "warning"
    assert "nothing was recorded of what came of USDCLP (close) from 2026-03-03 on" in finding.found
    assert finding.todo.startswith("forex monitor --pair USDCLP; ")
    known = [one.outcome_at] * len(one.target_dates)
    book.record(one.pair, one.rate, one.target_dates, np.full(len(known), 951.0), known)
    assert look("ledger") == Finding("ok", "the last of 1 forecasts was of USDCLP 7d")


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
    gone = f"http://127.0.0.1:{free_port()}"
    addresses = dict.fromkeys(("yahoo", "fred", "mindicador", "ecb", "calendar"), gone)
    monkeypatch.setenv("FOREX_DATA__ADDRESSES", json.dumps(addresses))
    assert look("data sources").state == "ok"
    finding = look("data sources", online=True)
    assert finding.state == "warning"
    assert "yahoo: " in finding.found


# --- archives


def archived(deployment: Deployment, days_ago: float, **header: Any) -> Path:
    """The manifest of an archive that says that it was made so long ago."""
    made = deployment.backups.create()
    path, created = Path(made.archive), datetime.now(UTC) - timedelta(days=days_ago)
    told = manifest.header_of(path.name, partial(path.open, "rb"))
    with ManifestWriter(path.with_name("made")) as written:
        for entry in entries_of(made):
            written.add(entry)
        written.finish(told.model_copy(update={"created": created, **header}))
    path.unlink()
    return path.with_name("made").rename(path.with_name(f"{archive_name(created)}.jsonl.zst"))


def test_archives_are_made_every_day(look: Callable[..., Finding], tracked: Deployment) -> None:
    place = tracked.data / "backups"
    finding = look("backups")
    assert (finding.state, finding.found) == (
        "warning",
        f"no archive of {tracked.data} in {place}, which is not there",
    )
    assert "forex backup create" in finding.todo
    assert not place.exists(), "a doctor looks"
    old = archived(tracked, 5.5)
    finding = look("backups")
    assert finding.state == "warning"
    assert finding.found.startswith("none for 5 days: the newest of ")
    assert "prefect flow-run ls" in finding.todo
    archived(tracked, 1.9)
    finding = look("backups")
    assert finding.state == "ok"
    assert finding.found.endswith(f"in {place}; on the disk of the data, with which it would be lost")
    assert old.is_file()


def test_archives_on_another_disk(
    look: Callable[..., Finding], tracked: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TemporaryDirectory(dir="/dev/shm") as other:
        monkeypatch.setenv("FOREX_BACKUP__TO", other)
        assert look("backups").found == f"no archive of {tracked.data} in {other}"
        archived(tracked, 0)
        assert look("backups").found.endswith(f"files, in {other}")


def test_a_disk_of_archives_that_is_not_mounted(
    look: Callable[..., Finding], tracked: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is there all the same, on the disk of the data."""
    monkeypatch.setenv("FOREX_BACKUP__TO", str(tracked.folder / "disk" / "forex"))
    archived(tracked, 0)
    finding = look("backups")
    assert finding.state == "warning"
    assert finding.found.endswith("on the disk of the data, with which it would be lost")
    assert "mount its disk" in finding.todo


def test_an_archive_that_lacks_files(look: Callable[..., Finding], tracked: Deployment) -> None:
    archived(tracked, 0, missing=("one", "two"))
    assert "; 2 are missing in it" in look("backups").found


def test_an_archive_of_another_folder_is_none_of_ours(
    look: Callable[..., Finding], tracked: Deployment
) -> None:
    archived(tracked, 0, data_dir="/elsewhere")
    assert look("backups").found.startswith("no archive of ")


def test_archives_whose_manifests_are_damaged(look: Callable[..., Finding], tracked: Deployment) -> None:
    """At the beginning, or cut off."""
    good, cut, beginning = (archived(tracked, days) for days in (1, 0.5, 0.25))
    cut.write_bytes(cut.read_bytes()[:-20])
    beginning.write_bytes(b"nothing")
    finding = look("backups")
    assert finding.state == "warning"
    assert finding.found.startswith(f"{beginning} cannot be used (")
    assert f"{cut} cannot be used (" in finding.found
    assert "the newest of " in finding.found
    good.unlink()
    finding = look("backups")
    assert finding.state == "failed"
    assert "is left that can be used" in finding.found


def test_an_archive_of_an_instant_to_come(look: Callable[..., Finding], tracked: Deployment) -> None:
    """It says nothing of when the last one was made."""
    ahead = archived(tracked, -3000)
    finding = look("backups")
    assert finding.state == "failed"
    assert f"{ahead} cannot be used (it is of 20" in finding.found
    archived(tracked, 5)
    finding = look("backups")
    assert finding.state == "warning"
    assert "which is to come" in finding.found


def test_nothing_to_keep_and_nobody_who_could(
    look: Callable[..., Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look("backups") == Finding("ok", "there is nothing to keep yet")
    monkeypatch.setenv("FOREX_TRACKING_URI", "http://127.0.0.1:1")
    assert look("backups").state == "skipped"


def test_a_place_of_archives_that_is_none(
    look: Callable[..., Finding], tracked: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tracked.folder / "a file").write_text("")
    monkeypatch.setenv("FOREX_BACKUP__TO", str(tracked.folder / "a file"))
    finding = look("backups")
    assert finding.state == "failed"
    assert "Not a directory" in finding.found


def test_archives_in_a_bucket(
    look: Callable[..., Finding], tracked: Deployment, s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_bucket.settings.items():
        monkeypatch.setenv(name, value)
    place = f"s3://{s3_bucket.name}/archives"
    monkeypatch.setenv("FOREX_BACKUP__TO", place)
    assert look("backups").found == f"no archive of {tracked.data} in {place}"
    tracked.backups.create()
    finding = look("backups")
    assert finding.state == "ok"
    assert finding.found.endswith(f"files, in {place}")
    monkeypatch.setenv("FOREX_BACKUP__TO", "s3://no-such-bucket/archives")
    finding = look("backups")
    assert finding.state == "failed"
    assert "NoSuchBucket" in finding.found


def test_a_bucket_that_does_not_answer(
    look: Callable[..., Finding], tracked: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens; somebody listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        address = f"http://me:{SECRET}@127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("FOREX_BACKUP__TO", "s3://bucket/archives")
        for name, value in (
            ("ENDPOINT_URL", address),
            ("ACCESS_KEY_ID", "me"),
            ("SECRET_ACCESS_KEY", SECRET),
        ):
            monkeypatch.setenv(f"FOREX_BACKUP__S3_{name}", value)
        began = time.monotonic()
        finding = look("backups")
        assert time.monotonic() - began < LIMIT_S, "before the whole examination is cut off"
    for found in (finding, look("backups")):
        assert found.state == "failed"
        assert "check the bucket, its endpoint and its keys" in found.found
        assert SECRET not in found.found


def test_an_archive_that_is_made_meanwhile_is_not_waited_for(
    look: Callable[..., Finding], tracked: Deployment
) -> None:
    archived(tracked, 0)
    with Folder(tracked.data / "backups").locked(shared=False):
        assert look("backups").state == "ok"
        assert len(tracked.backups.archives()) == 1


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
    monkeypatch.setenv("FOREX_REPORT__URLS", f"jason://127.0.0.1/{SECRET}")
    finding = look("notification")
    assert (finding.state, finding.todo.split()[1]) == ("failed", "FOREX_REPORT__URLS")
    assert SECRET not in finding.found


# --- the smoke test


SMOKE = ("tracker basics", "context manager", "artifact upload", "configuration builder")


def smoked() -> Sequence[Checked]:
    return examine([check for check in CHECKS if check.name in SMOKE], load_settings(), limit_s=60)


@pytest.mark.slow
def test_the_smoke_test_finds_a_tracker_that_forgets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Of another store than the smoke test's own.
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "sqlite:////srv/mlflow.db")
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
    url = f"http://127.0.0.1:{free_port()}/api"
    with prefect_at(url):
        finding = prefect(patient(tmp_path))
    assert finding.state == "failed"
    assert finding.found.startswith(f"{url} does not answer")
    assert "PREFECT_API_URL" in finding.todo


def test_no_prefect_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert prefect(patient(tmp_path)).state == "skipped"
