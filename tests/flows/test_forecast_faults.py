"""What a whole forecast makes of a machine that fails: each fault is caused, told, and over when it is mended."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from forex_core.backup import Backups, Created
from forex_core.config import load_settings
from forex_core.data.importing import observations_of
from forex_core.data.loading import store_of
from forex_core.doctor import CHECKS, Finding, examine, machine
from forex_core.errors import BackupError, TrackingUnavailable
from forex_core.testing import synthetic_table
from forex_core.tracking import (
    ArchivedStore,
    Registry,
    Replayed,
    open_store,
    registry_from_settings,
    replay_spool,
)
from forex_core.tracking.process import PROCESS_TAG, this_process
from forex_core.tracking.store import release
from forex_core.types import Pair
from tests.deployments import tree
from tests.faults import damage, held
from tests.forecasting import LIGHT, Ended, Forecasters
from tests.planted import Secrets, told_in, written
from tests.ports import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
]

ROOT = Path(__file__).parents[2]
USDCLP = Pair("USD", "CLP")
MODEL = "usdclp-7d"
SPOT_ALONE = LIGHT.model_copy(update={"members": ("random_walk",)})
ROWS, DAYS = 900, 20

COMPUTED, BEGUN = "forecast computed", "run begun"
SETTLED, WRITTEN = f"{MODEL}: ", "report written"


def alerted() -> set[str]:
    """Names of the states that people are told of."""
    automations = yaml.safe_load((ROOT / "deployments" / "automations.yaml").read_text())
    (telling,) = (one for one in automations if one["actions"][0].get("deployment") == "alert/forex")
    return {event.rpartition(".")[2] for event in telling["trigger"]["expect"]}


def rolled_back_after() -> tuple[str, ...]:
    """How messages of failures begin that another model may help against."""
    automations = yaml.safe_load((ROOT / "deployments" / "automations.yaml").read_text())
    (rolling,) = (one for one in automations if one["actions"][0].get("deployment") == "rollback/forex")
    return tuple(text.rstrip("*") for text in rolling["trigger"]["match"]["prefect.state-message"])


@dataclass
class Deployment:
    """A data folder, prices, and forecasts of one day after the other, each in a process of its own."""

    data: Path
    market: Path
    days: Iterator[date]
    forecasters: Forecasters
    source: str = "csv"

    def forecast(
        self, day: date | None, stage: str | None = None, fault: Callable[[], object] = lambda: None
    ) -> Ended:
        """How a forecast ends to which something happens at a stage."""
        paths = {"paths": [self.market]} if self.source == "csv" else {}
        running = self.forecasters.start(stage, source=self.source, as_of=day, **paths)
        if stage:
            with running.held_at(stage):
                fault()
        return running.ended()

    def publish(self, day: date | None) -> dict[str, Any]:
        """A forecast to which nothing happens."""
        ended = self.forecast(day)
        assert ended.name == "Completed", ended
        document: dict[str, Any] = ended.document
        assert document["warnings"] == []
        assert [run for run in self.runs() if run.info.status == "RUNNING"] == []
        return document

    @property
    def registry(self) -> Registry:
        return registry_from_settings(load_settings())

    def runs(self) -> list[Any]:
        """The newest first."""
        client = open_store(load_settings().mlflow_uri)
        experiment = client.get_experiment_by_name("forecaster_7d")
        return list(client.search_runs([experiment.experiment_id])) if experiment else []

    def champion(self) -> int | None:
        return self.registry.standing(MODEL).champion_number

    def replay(self) -> list[Replayed]:
        settings = load_settings()
        return replay_spool(settings.spool_dir, settings.mlflow_uri, settings.mlflow_artifacts, settings.root)

    def reports(self) -> dict[str, dict[str, bytes]]:
        """Every published report by its folder, with the content of its files."""
        return {
            folder.name: {
                str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()
            }
            for folder in self.data.glob("reports/usdclp/7d/[!.]*")
        }

    def check_sound(self) -> None:
        """The databases are whole, and whatever goes by the name of a report is one."""
        for path in self.data.glob("*/*.db"):
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for name, files in self.reports().items():
            assert {"report.html", "forecast.json", "members.json", "snapshot.parquet"} <= set(files), name


def diagnosis(*names: str) -> dict[str, Finding]:
    """What `forex doctor` finds, of the checks of these names."""
    needed = {need for check in CHECKS if check.name in names for need in check.needs}
    chosen = [check for check in CHECKS if check.name in {*names, *needed}]
    return {one.name: one.finding for one in examine(chosen, load_settings(), limit_s=120)}


@pytest.fixture
def deployment(
    tmp_path: Path, migrated_sqlite: Path, forecasters: Forecasters, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    """In the data folder of the settings, with a migrated store."""
    yield deployed(tmp_path / "data", tmp_path, migrated_sqlite, forecasters, monkeypatch)
    release(load_settings().mlflow_uri)


def deployed(
    data: Path, folder: Path, migrated: Path, forecasters: Forecasters, monkeypatch: pytest.MonkeyPatch
) -> Deployment:
    monkeypatch.setenv("FOREX_DATA_DIR", str(data))
    monkeypatch.setenv("FOREX_ENGINE", LIGHT.model_dump_json())
    (data / "mlflow").mkdir(parents=True)
    shutil.copyfile(migrated, data / "mlflow" / "mlflow.db")
    table = synthetic_table(ROWS + DAYS, seed=5)
    table.to_csv(folder / "market.csv", index=False)
    days = (date.fromisoformat(day) for day in table["Date"][ROWS:])
    return Deployment(data, folder / "market.csv", days, forecasters)


@pytest.fixture
def stored(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """Its prices are in the store of observations."""
    monkeypatch.setenv("FOREX_ENGINE", SPOT_ALONE.model_dump_json())
    monkeypatch.setenv("FOREX_DATA__DRIVERS", "[]")
    prices = deployment.market.with_name("prices.csv")
    pd.read_csv(deployment.market)[["Date", str(USDCLP)]].to_csv(prices, index=False)
    record(prices)
    return replace(deployment, source="store")


def record(prices: Path) -> None:
    found = observations_of([prices], USDCLP, rate="close", columns={}, needs_pair=True, available_at=None)
    store_of(load_settings()).record(found, origin="the test")


# --- the disk


@pytest.fixture
def on_a_small_disk(
    small_disk: Callable[..., Path],
    tmp_path: Path,
    migrated_sqlite: Path,
    forecasters: Forecasters,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Deployment]:
    yield deployed(small_disk("96m") / "data", tmp_path, migrated_sqlite, forecasters, monkeypatch)
    release(load_settings().mlflow_uri)


def fill(folder: Path, room_left: int) -> None:
    """Fill a disk but for so many bytes."""
    filler = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with suppress(OSError):
        while True:
            os.write(filler, b"0" * (1 << 20))
    os.ftruncate(filler, os.fstat(filler).st_size - room_left)
    os.close(filler)


def test_a_disk_that_fills_up(on_a_small_disk: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any stage: the forecast says so, what was there stays as it was, and with room again it is made."""
    deployment, disk = on_a_small_disk, on_a_small_disk.data.parent
    # In proportion to this disk.
    monkeypatch.setattr(machine, "FREE_FAILED_BYTES", 8_000_000)
    monkeypatch.setattr(machine, "FREE_WARNING_BYTES", 16_000_000)
    deployment.publish(next(deployment.days))
    for stage, room_left in (
        (None, 0),  # nor is there room for what members answer
        (BEGUN, 300_000),
        (SETTLED, 0),
        (WRITTEN, 300_000),
    ):
        kept, champion, day = deployment.reports(), deployment.champion(), next(deployment.days)
        assert diagnosis("disk")["disk"].state == "ok", (stage, shutil.disk_usage(disk))
        if stage is None:
            fill(disk, room_left)
        ended = deployment.forecast(day, stage, lambda room=room_left: fill(disk, room))  # type: ignore[misc]

        assert ended.name in alerted(), (stage, ended)
        assert "No space left on device" in ended.message or "disk is full" in ended.message, (stage, ended)
        assert "make room" in ended.message
        assert re.search(r"(ForexError|TrackingUnavailable): ", ended.message), "no bare error of the system"
        assert not ended.message.startswith(rolled_back_after()), "no other model would do better"
        found = diagnosis("disk", "permissions")
        assert (found["disk"].state, found["permissions"].state) == ("failed", "ok"), found
        assert "make room" in found["disk"].todo

        (disk / "filler").unlink()
        deployment.check_sound()
        reports = deployment.reports()
        assert {name: reports[name] for name in kept} == kept, "nothing of before is damaged"
        assert all(one.outcome == "logged" and one.run_id for one in deployment.replay()), stage
        assert deployment.champion() in (champion, (champion or 0) + 1)
        assert not deployment.publish(day).get("already_published"), stage
        whole = diagnosis("spool", "run files", "tracking store", "orphaned runs")
        assert {finding.state for finding in whole.values()} == {"ok"}, whole


def test_a_data_folder_that_is_read_only(on_a_small_disk: Deployment) -> None:
    """No forecast, no archive in it and nothing restored over it, each of which says why; one elsewhere can be made."""
    deployment, disk = on_a_small_disk, on_a_small_disk.data.parent
    deployment.publish(next(deployment.days))
    made = archived(deployment)
    day = next(deployment.days)
    release(load_settings().mlflow_uri)
    before, beside = tree(deployment.data), sorted(disk.iterdir())
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        ended = deployment.forecast(day)
        found = diagnosis("permissions", "tracking store")
        release(load_settings().mlflow_uri)
        with pytest.raises(
            BackupError, match=r"could not be made: .*Read-only file system.*; look at its disk"
        ):
            Backups(load_settings(), ArchivedStore()).create()
        with pytest.raises(
            BackupError, match=r"could not be restored: .*Read-only file system.*; look at its disk"
        ):
            restore(made)
        meanwhile = archived(deployment)
        assert (tree(deployment.data), sorted(disk.iterdir())) == (before, beside)
    finally:
        release(load_settings().mlflow_uri)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert (ended.name, ended.name in alerted()) == ("Failed", True)
    assert "TrackingUnavailable: " in ended.message
    assert re.search("Read-only file system|unable to open database file", ended.message), ended
    assert "check that it exists, is writable" in ended.message
    assert found["permissions"].found == f"{deployment.data} cannot be written"
    assert "see that it is not mounted read-only" in found["permissions"].todo
    assert meanwhile.counts == made.counts
    deployment.check_sound()
    deployment.publish(day)
    restore(meanwhile)
    assert len(deployment.runs()) == 1
    deployment.publish(day)


# --- databases


def test_databases_that_are_locked(stored: Deployment) -> None:
    """That of observations is waited for; half a minute without that of runs, and what is published is logged later."""
    deployment = stored
    with held(deployment.data / "store" / "forex.db", 15) as holder:  # longer than a forecast takes
        began = time.monotonic()
        deployment.publish(next(deployment.days))
        assert time.monotonic() - began > 14
        holder.wait()
    champion, day = deployment.champion(), next(deployment.days)
    database, holders = deployment.data / "mlflow" / "mlflow.db", list[subprocess.Popen[bytes]]()
    ended = deployment.forecast(day, COMPUTED, lambda: holders.append(held(database, 250, "writers")))
    assert (ended.name, ended.name in alerted()) == ("CompletedWithWarning", True)
    assert "'forex tracking replay' logs this run" in ended.message
    assert Path(ended.document["report"]).is_file()
    assert ended.document["published"]["version"] == champion
    found = diagnosis("spool", "tracking store")
    assert (found["spool"].state, found["tracking store"].state) == ("warning", "ok")
    assert "database is locked" in found["spool"].found
    assert "forex tracking replay" in found["spool"].todo
    with holders[0] as holder:
        holder.kill()
    (replayed,) = deployment.replay()
    assert deployment.replay() == []
    (run, _) = deployment.runs()
    assert (run.info.run_id, run.info.status) == (replayed.run_id, "FINISHED")
    assert deployment.publish(day)["already_published"]


def archived(deployment: Deployment) -> Created:
    return Backups(load_settings(), ArchivedStore()).create(str(deployment.market.with_name("archives")))


def restore(made: Created) -> None:
    release(load_settings().mlflow_uri)
    Backups(load_settings(), ArchivedStore()).restore(made.archive)


def test_a_damaged_tracking_database_is_restored_and_takes_what_was_forecast_meanwhile(
    deployment: Deployment,
) -> None:
    first = deployment.publish(next(deployment.days))
    made = archived(deployment)
    lost = deployment.publish(next(deployment.days))
    database = deployment.data / "mlflow" / "mlflow.db"
    release(load_settings().mlflow_uri)
    ended = deployment.forecast(next(deployment.days), COMPUTED, lambda: damage(database))
    assert ended.name == "CompletedWithWarning"
    assert Path(ended.document["report"]).is_file()

    failed = deployment.forecast(next(deployment.days))
    assert (failed.name, failed.name in alerted()) == ("Failed", True)
    assert "it is damaged: restore it from a backup ('forex backup restore latest')" in failed.message
    assert not failed.message.startswith(rolled_back_after())
    found = diagnosis("tracking store", "run files", "spool")
    assert {name: one.state for name, one in found.items()} == {
        "tracking store": "failed",
        "run files": "skipped",
        "spool": "warning",
    }
    assert "restore it from a backup" in found["tracking store"].found

    restore(made)
    assert {one.outcome for one in deployment.replay()} == {"logged"}
    runs = {run.info.status: run for run in deployment.runs() if run.info.run_id != first["run_id"]}
    assert set(runs) == {"FINISHED", "FAILED"}, "the published one, and the one that could not be made"
    place = Path(runs["FINISHED"].info.artifact_uri.removeprefix("file://")) / "reports"
    assert json.loads((place / "forecast.json").read_text())["quantiles"] == ended.document["quantiles"]
    assert first["run_id"] in {run.info.run_id for run in deployment.runs()}
    (aside,) = deployment.data.parent.glob("data.before-restore-*")
    assert Path(lost["report"]).parent.name in {path.name for path in aside.glob("reports/usdclp/7d/*")}
    deployment.publish(next(deployment.days))
    deployment.check_sound()
    assert diagnosis("tracking store")["tracking store"].state == "ok"


def test_a_tracking_database_that_is_damaged_at_the_end_loses_no_report(deployment: Deployment) -> None:
    """By then some of it is written: wherever the damage is met, the report is there and the doctor tells of it."""
    deployment.publish(next(deployment.days))
    made, database = archived(deployment), deployment.data / "mlflow" / "mlflow.db"
    release(load_settings().mlflow_uri)
    ended = deployment.forecast(next(deployment.days), WRITTEN, lambda: damage(database))
    assert ended.name in ("CompletedWithWarning", "Completed")
    assert Path(ended.document["report"]).is_file()
    assert diagnosis("tracking store")["tracking store"].state == "failed"
    restore(made)
    assert all(one.outcome == "logged" for one in deployment.replay())
    deployment.publish(next(deployment.days))
    deployment.check_sound()


def test_a_damaged_observation_store_is_restored(stored: Deployment) -> None:
    stored.publish(next(stored.days))
    made, day = archived(stored), next(stored.days)
    damage(stored.data / "store" / "forex.db")
    ended = stored.forecast(day)
    assert (ended.name, ended.name in alerted()) == ("Failed", True)
    assert "SourceError: " in ended.message
    assert "is no sound SQLite database" in ended.message
    assert "restore it from a backup" in ended.message
    assert [run.info.status for run in stored.runs()] == ["FAILED", "FINISHED"]
    found = diagnosis("observation store")["observation store"]
    assert found.state == "failed"
    assert "restore it from a backup" in found.todo
    restore(made)
    stored.publish(day)
    assert diagnosis("observation store")["observation store"].state == "ok"


# --- files of runs


def test_artifacts_that_are_half_deleted(deployment: Deployment) -> None:
    """Of the champion, and of the last run: the doctor and the next archive name what is lost, forecasts go on."""
    day, following = next(deployment.days), next(deployment.days)
    published = deployment.publish(day)
    made = archived(deployment)
    model = deployment.registry.folder(deployment.registry.version(MODEL, 1))
    run = Path(deployment.runs()[0].info.artifact_uri.removeprefix("file://"))
    for place in (
        model,
        model / "artifacts" / "specification.json",
        run,
        run / "reports" / "snapshot.parquet",
    ):
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink()
        found = diagnosis("run files")["run files"]
        assert (found.state, "restore them from a backup" in found.todo) == ("failed", True), place
        then = archived(deployment)
        assert then.missing == then.newly_missing
        what = "version 1 of usdclp-7d: " if place.is_relative_to(model) else f"run {published['run_id']}: "
        assert [text.startswith(what) for text in then.missing] == [True], then.missing

        if place == run:
            assert not deployment.publish(day).get("already_published")
        ended = deployment.forecast(following)
        if place.is_relative_to(model):
            assert (ended.name, ended.name in alerted()) == ("CompletedWithWarning", True), place
            assert (
                "version 1, cannot be used, and the next state of its recipe takes its place" in ended.message
            )
        else:
            assert ended.name == "Completed", place
        assert ended.document["published"]["version"] == deployment.champion()
        restore(made)
        whole = diagnosis("run files", "tracking store")
        assert {one.state for one in whole.values()} == {"ok"}, whole
        archived(deployment)


# --- other back ends


def test_postgresql_that_is_restarted_in_the_middle(
    deployment: Deployment, postgres_server: Any, postgres_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, as an upgrade of its package does; and as one that does not come up until the forecast has ended.

    Its password, which is in the address, is told neither to who is alerted nor to the spool.
    """
    secret = Secrets()
    store = postgres_store.replace("forex@", f"forex:{secret.url('database')}@")
    assert store != postgres_store
    monkeypatch.setenv("FOREX_TRACKING_URI", store)

    def restart() -> None:
        postgres_server.stop()
        postgres_server.start()

    deployment.publish(next(deployment.days))
    for stage, happens in ((COMPUTED, restart), (WRITTEN, restart), (COMPUTED, postgres_server.stop)):
        champion, before = deployment.champion(), len(deployment.runs())
        release(store)
        stays_away = happens is not restart
        try:
            ended = deployment.forecast(next(deployment.days), stage, happens)
            if stays_away:
                assert ended.name in alerted()
                assert list(load_settings().spool_dir.glob("*/run.json"))
                assert told_in(secret, written(load_settings().root)) == {}
                assert secret.found_in(ended.message.encode()) == set()
                with pytest.raises(TrackingUnavailable):  # it is still away, and the spool is kept
                    deployment.replay()
        finally:
            if stays_away:
                postgres_server.start()
        release(store)
        assert ended.name in ("CompletedWithWarning", "Completed"), (stage, ended)
        assert Path(ended.document["report"]).is_file()
        waits = diagnosis("spool")["spool"].state == "warning"
        assert waits or not stays_away
        assert waits == ("'forex tracking replay' logs this run" in ended.message)
        assert [one.outcome for one in deployment.replay()] == ["logged"] * waits
        runs = deployment.runs()
        assert len(runs) == before + 1
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert deployment.champion() == ended.document["published"]["version"]
        assert deployment.champion() in (champion, (champion or 0) + 1)
    deployment.publish(next(deployment.days))


@pytest.fixture
def bucket() -> Iterator[tuple[Any, Any]]:
    """A server of the S3 interface that can be stopped, and started with what it had; and a bucket of it."""
    from moto.server import ThreadedMotoServer

    from tests.conftest import S3Bucket

    port = free_port()

    def server() -> Any:
        return ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)

    servers = [server()]
    servers[0].start()
    made = S3Bucket(f"http://127.0.0.1:{port}", f"bucket-{uuid.uuid4().hex}")

    @contextmanager
    def away() -> Iterator[None]:
        servers.pop().stop()
        yield
        servers.append(server())
        servers[0].start()

    yield made, away
    made.client.close()
    servers[0].stop()


def test_s3_that_cannot_be_reached_in_the_middle(
    deployment: Deployment, bucket: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, away = bucket
    monkeypatch.setenv("FOREX_ARTIFACT_URI", f"s3://{made.name}/runs")
    for name, value in made.settings.items():
        monkeypatch.setenv(name, value)
    deployment.publish(next(deployment.days))
    champion, day = deployment.champion(), next(deployment.days)
    with ExitStack() as mended:
        ended = deployment.forecast(day, COMPUTED, lambda: mended.enter_context(away()))
        assert (ended.name, ended.name in alerted()) == ("CompletedWithWarning", True)
        assert "'forex tracking replay' logs this run" in ended.message
        assert Path(ended.document["report"]).is_file()
        assert diagnosis("spool")["spool"].state == "warning"
        secret = Secrets()
        secret.add("s3", made.settings["MLFLOW_S3_SECRET_ACCESS_KEY"])
        assert told_in(secret, written(load_settings().root)) == {}
        assert [one.outcome for one in deployment.replay()] == ["kept"], "it is still away"
    assert [one.outcome for one in deployment.replay()] == ["logged"]
    run = deployment.runs()[0]
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "published")
    client = open_store(load_settings().mlflow_uri)
    text = client.download_artifacts(run.info.run_id, "reports/forecast.json", str(deployment.market.parent))
    assert json.loads(Path(text).read_text())["quantiles"] == ended.document["quantiles"]
    assert deployment.champion() == ended.document["published"]["version"] == champion
    deployment.publish(next(deployment.days))


# --- the clock

BACK = """
import json, os, threading, time
# libfaketime 0.9.10 makes nothing of the absolute sleeps of Python (clock_nanosleep).
time.sleep = lambda seconds: threading.Event().wait(seconds)
from dataclasses import asdict
from pathlib import Path
from flows.forecast import forecast_7d
from forex_core.config import load_settings
from forex_core.data.importing import observations_of
from forex_core.data.loading import store_of
from forex_core.doctor import CHECKS, examine
from forex_core.types import Pair

settings = load_settings()
if Path("revised.csv").is_file():
    found = observations_of(
        [Path("revised.csv")], Pair("USD", "CLP"), rate="close", columns={}, needs_pair=True, available_at=None
    )
    store_of(settings).record(found, origin="with the clock back")
state = forecast_7d(pair="USDCLP", source="store", return_state=True)

def found():
    chosen = [check for check in CHECKS if check.name in ("clock", "tracking store", "forecasts")]
    return {one.name: asdict(one.finding) for one in examine(chosen, settings, limit_s=120)}

at_once = found()
for path in settings.root.glob("*/*.db*"):  # the clock of the disk is not the one that is turned back here
    os.utime(path, (time.time(), time.time()))
told = {"name": state.name, "message": state.message, "document": state.result()}
print(json.dumps({"state": told, "at once": at_once, "later": found(), "now": time.time()}, default=str))
"""


def turned_back(by: timedelta) -> dict[str, Any]:
    """What a forecast without an as-of, and the doctor, make of a clock that has gone back."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("there is no libfaketime; install the package faketime")
    turned = {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"-{by.total_seconds():.0f}",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", BACK], env=os.environ | turned, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def of_today(stored: Deployment, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """Its prices end with the last weekday."""
    shutil.rmtree(stored.data / "store")
    last = pd.Timestamp.now("UTC").tz_localize(None).normalize() - pd.tseries.offsets.BDay(1)
    days = pd.bdate_range(end=last, periods=ROWS)
    table = pd.read_csv(stored.market)[: len(days)].assign(Date=days.strftime("%Y-%m-%d"))
    table[["Date", str(USDCLP)]].to_csv("prices.csv", index=False)
    record(Path("prices.csv"))
    return stored


def test_a_clock_that_went_back(of_today: Deployment) -> None:
    """By minutes: what is published is published still. By days: a forecast of then, said to be so, and nothing else.

    The champion, the order of runs and what was known when stay as they are.
    """
    first = of_today.forecast(None).document
    found = turned_back(timedelta(minutes=5))
    state = found["state"]
    assert (state["name"], state["name"] in alerted()) == ("CompletedWithWarning", True)
    assert "The clock has gone back, or was ahead: run " in state["message"]
    assert (state["document"]["run_id"], state["document"]["already_published"]) == (first["run_id"], True)
    assert found["at once"]["clock"]["state"] == "failed"
    assert found["later"]["forecasts"]["state"] == "failed"
    assert len(of_today.runs()) == 1

    version = of_today.registry.version(MODEL, 1)
    killed = replace(this_process(), started=1)
    elsewhere = replace(this_process(), host="vps2", machine="0" * 16, boot="another", namespace="another")
    client = open_store(load_settings().mlflow_uri)
    experiment = of_today.runs()[0].info.experiment_id
    orphans = [
        client.create_run(experiment, tags={PROCESS_TAG: json.dumps(asdict(one))}).info.run_id
        for one in (killed, elsewhere)
    ]
    prices = pd.read_csv("prices.csv")
    revised = prices.tail(5).assign(USDCLP=lambda table: table[str(USDCLP)] * 1.01)
    Path("revised.csv").write_text(revised.to_csv(index=False))
    release(load_settings().mlflow_uri)

    found = turned_back(timedelta(days=4))  # more than a weekend
    state = found["state"]
    assert (state["name"], state["name"] in alerted()) == ("CompletedWithWarning", True)
    assert "Set the clock (timedatectl set-ntp true) and make again what was forecast" in state["message"]
    document = state["document"]
    assert any("The clock has gone back" in notice for notice in document["notices"]), "the report says so"
    assert document["origin"] < first["origin"]
    assert document["as_of"] < first["as_of"]
    assert document["published"]["outcome"] == "past"
    assert found["at once"]["clock"]["state"] == "failed"
    assert "the clock has gone back" in found["at once"]["clock"]["found"]
    assert found["later"]["forecasts"]["state"] == "failed"
    assert "The clock has gone back" in found["later"]["forecasts"]["found"]
    assert of_today.champion() == 1
    assert of_today.registry.version(MODEL, 1) == version
    states = {run.info.run_id: run.info.status for run in of_today.runs()}
    assert [states[run] for run in orphans] == ["KILLED", "RUNNING"], "only the one whose process is gone"

    # What was recorded by the wrong clock was not known before what the store had.
    store, name = store_of(load_settings()), "usdclp_close"
    last = pd.Timestamp(prices["Date"].iloc[-3]).date()
    told = store.history(name, last)
    assert [round(one.value, 6) for one in told] == [
        round(float(value), 6) for value in (prices["USDCLP"].iloc[-3], revised["USDCLP"].iloc[-3])
    ]
    assert told[0].available_at < told[1].available_at

    # And with the clock right again all goes on.
    client.set_terminated(orphans[1])
    shutil.rmtree(of_today.data / "store")
    record(Path("prices.csv"))
    release(load_settings().mlflow_uri)
    once_more = of_today.publish(None)
    assert (once_more["run_id"], once_more["already_published"]) == (first["run_id"], True)
    assert diagnosis("clock")["clock"].state == "ok"
    newest = max(of_today.runs(), key=lambda run: int(run.info.start_time))
    assert newest.info.run_id in (first["run_id"], *orphans)
