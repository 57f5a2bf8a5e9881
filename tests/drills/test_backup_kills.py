"""Backup, restore and prune killed at random moments of each of their stages: afterwards all is as before or after."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forex_core.backup import Backups, Created, manifest
from forex_core.backup.places import Folder
from forex_core.config import load_settings
from forex_core.data.loading import store_of
from forex_core.data.observations import Observations
from forex_core.databases import postgres
from forex_core.tracking import ArchivedStore, open_store, tracker_from_settings
from forex_core.tracking.build import connect
from forex_core.tracking.store import release
from tests.drills.moments import SEED, SHARE, drawn, share_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

MOMENTS = {"create": 10, "restore": 17, "restore elsewhere": 10, "prune": 10}
"""How often each stage is killed, of all moments."""

END = "end"
STAGES = {
    "create": ("spool", "databases", "artifacts", "reports", "flush", "manifest"),
    "restore": ("files", "check", "switch"),
    "restore elsewhere": ("upload", "load"),
    "prune": ("verify", "remove", "collect"),
}

WORK = """
import ctypes, os, signal, sys, time
from pathlib import Path
from forex_core.backup import Backups, Created, manifest
from forex_core.backup.places import Folder
from forex_core.config import load_settings
from forex_core.tracking.archived import ArchivedStore

what, place, target, until, delay = sys.argv[1:]
said = set()
def say(stage):
    os.write(1, f"{stage} {time.monotonic()}\\n".encode())  # all of it or nothing

class Event(ctypes.Structure):  # sigevent of <signal.h>, which tells by a signal where `how` is 0
    _fields_ = [
        ("value", ctypes.c_void_p), ("number", ctypes.c_int), ("how", ctypes.c_int), ("rest", ctypes.c_char * 48)
    ]

libc, timer = ctypes.CDLL(None), ctypes.c_void_p()
event = Event(None, signal.SIGKILL, 0)
assert libc.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) == 0

def advance(stage, done, total):
    if stage not in said:
        said.add(stage)
        say(stage)
        if stage == until:  # not from outside, which takes longer than some stages
            once = (ctypes.c_long * 4)(0, 0, *divmod(int(float(delay) * 1e9), 10**9))
            assert libc.timer_settime(timer, 0, ctypes.byref(once), None) == 0

backups = Backups(load_settings(), ArchivedStore())
say("begin")
if what == "create":
    backups.create(place, advance=advance)
elif what.startswith("restore"):
    backups.restore(target, advance=advance)
else:
    backups.prune(place, advance=advance)
say("end")
"""


@dataclass
class Scene:
    """A deployment of some runs with their files; its archives; and how it is worked on and killed."""

    folder: Path
    runs: int = 0

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def place(self) -> Path:
        return self.folder / "archives"

    @property
    def backups(self) -> Backups:
        return Backups(load_settings(), ArchivedStore())

    def fill(self, count: int, draw: random.Random) -> None:
        """So many runs with eight files each, their reports, and an observation."""
        settings, files = load_settings(), self.folder / "files"
        files.mkdir(exist_ok=True)
        for _ in range(count):
            for name in range(8):
                (files / f"{name}.bin").write_bytes(draw.randbytes(40_000))
            with tracker_from_settings(settings, "forecaster_7d") as tracker:
                tracker.log_metrics({"7d_rmse": 1.0})
                tracker.log_artifacts_dir(files, "reports")
            shutil.copytree(files, self.data / "reports" / str(tracker.run_id))
            self.runs += 1
        day = pd.DatetimeIndex([pd.Timestamp(2000, 1, 1) + pd.Timedelta(days=draw.randrange(9000))]).as_unit(
            "us"
        )
        known = (day + pd.Timedelta(hours=22)).tz_localize("UTC")
        one = Observations("copper", "best", day, np.array([draw.random()]), known)
        store_of(settings).record(one, rank=lambda *_: 0, now=pd.Timestamp.now(tz="UTC"))
        release(settings.mlflow_uri)

    def check(self, archive: str) -> None:
        """It verifies, and has all that was there when it was made, since when nothing was written."""
        counts = self.backups.verify(archive).header.counts
        assert (counts["runs"], counts["artifacts"]) == (self.runs, 8 * self.runs)

    def start(
        self, what: str, archive: str = "", until: str = "", delay: float = 0.0
    ) -> subprocess.Popen[str]:
        """One that the kernel kills (-9) `delay` seconds after the beginning of the stage `until`, if one is named."""
        return subprocess.Popen(
            [sys.executable, "-c", WORK, what, str(self.place), archive, until, str(delay)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def said(self, process: subprocess.Popen[str]) -> list[tuple[str, float]]:
        """Its stages and their instants, as it ends or is killed."""
        assert process.stdout is not None
        with process:
            lines = [line.split() for line in process.stdout]
        return [(name, float(at)) for name, at in lines]


@dataclass
class Killer:
    """Kills one kind of work in each of its stages: how long these last, and where it found it."""

    scene: Scene
    what: str
    archive: str = ""
    lengths: dict[str, float] = field(default_factory=dict)
    hit: Counter[str] = field(default_factory=Counter)

    def let_live(self) -> None:
        process = self.scene.start(self.what, self.archive)
        times = self.scene.said(process)
        assert process.returncode == 0
        self.lengths = {name: after - at for (name, at), (_, after) in pairwise(times)}

    def moments(self, draw: random.Random) -> Iterator[tuple[str, float]]:
        """Stages, and seconds after their beginning, until each was found at work often enough.

        One that is over before most of its moments is killed at its very beginning in the end.
        """
        wanted = share_of(MOMENTS[self.what])
        for stage in STAGES[self.what]:
            for tried in range(4 * wanted):
                if self.hit[stage] < wanted:
                    yield stage, draw.random() * self.lengths[stage] if tried < 3 * wanted else 0.0

    def kill(self, stage: str, delay: float) -> None:
        process = self.scene.start(self.what, self.archive, stage, max(delay, 1e-6))
        *_, (last, _) = self.scene.said(process)
        assert process.returncode == -signal.SIGKILL or (process.returncode, last) == (0, END)
        self.hit[last] += 1

    def tell(self) -> None:
        found = {stage: self.hit[stage] for stage in STAGES[self.what]}
        print(f"killed {sum(self.hit.values()) - self.hit[END]} of {sum(self.hit.values())} at work:", found)
        print({stage: f"{self.lengths[stage] * 1000:.1f} ms" for stage in found})
        for stage, number in found.items():
            assert number >= share_of(MOMENTS[self.what]), f"{stage} was over before its moments"


@pytest.fixture
def scene(sqlite_store: str, tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def statuses() -> list[str]:
    """Of the runs of the settings' store."""
    settings = load_settings()
    client = open_store(settings.mlflow_uri, settings.mlflow_artifacts, settings.root)
    found = [run.info.status for run in client.search_runs(["1"])]
    release(settings.mlflow_uri)
    return found


def test_create(scene: Scene) -> None:
    draw = drawn()
    scene.fill(12, draw)
    killer, archives = Killer(scene, "create"), 0
    killer.let_live()
    for number, (stage, delay) in enumerate(killer.moments(draw)):
        if number % 3 == 0:
            scene.fill(1, draw)
        if number % 7 == 0:  # everything is to be written again
            shutil.rmtree(scene.place, ignore_errors=True)
            archives = 0
        killer.kill(stage, delay)
        found = sorted(scene.place.glob("*.jsonl.zst"))
        assert len(found) in (archives, archives + 1), (stage, delay)
        for archive in found[archives:]:
            scene.check(str(archive))
        archives = len(found)
    made = scene.backups.create(str(scene.place))
    scene.backups.prune(str(scene.place))
    assert list(scene.place.glob(".scratch-*")) == []
    scene.check(made.archive)
    there = scene.backups.restore(made.archive, scene.folder / "restored").folder
    assert tree(there / "reports") == tree(scene.data / "reports")
    assert tree(there / "mlflow" / "mlruns") == tree(scene.data / "mlflow" / "mlruns")
    killer.tell()


def test_restore(scene: Scene) -> None:
    draw = drawn()
    scene.fill(8, draw)
    made = scene.backups.create(str(scene.place))
    before = tree(scene.data / "mlflow" / "mlruns")
    scene.fill(2, draw)
    after = tree(scene.data / "mlflow" / "mlruns")
    kept = scene.folder / "kept"
    shutil.copytree(scene.data, kept)
    killer = Killer(scene, "restore", made.archive)
    killer.let_live()
    for stage, delay in killer.moments(draw):
        for left in scene.folder.glob("data.before-restore-*"):
            shutil.rmtree(left)
        shutil.rmtree(scene.data)
        shutil.copytree(kept, scene.data)
        killer.kill(stage, delay)
        found = tree(scene.data / "mlflow" / "mlruns")
        assert found in (before, after), (stage, delay, len(found))
        assert statuses() == ["FINISHED"] * (8 if found == before else 10)
        # What was there has not gone: under its own name, or the one that it had on the way.
        if found == before:
            (aside,) = [
                folder
                for folder in (
                    *scene.folder.glob("data.before-restore-*"),
                    *scene.folder.glob(".data.restoring-*"),
                )
                if (folder / "mlflow" / "mlflow.db").is_file()
            ]
            assert tree(aside / "mlflow" / "mlruns") == after
            shutil.rmtree(aside)
        scene.fill(1, draw)
        assert statuses() == ["FINISHED"] * (9 if found == before else 11), "the next run works"
        release(load_settings().mlflow_uri)
    scene.backups.restore(made.archive)
    assert tree(scene.data / "mlflow" / "mlruns") == before
    assert list(scene.folder.glob(".data.restoring-*")) == []
    killer.tell()


@pytest.fixture
def remote(
    new_postgres: Callable[..., str],
    migrated_postgres: str,
    s3_bucket: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Scene:
    """One on PostgreSQL and a bucket."""
    uri = new_postgres(migrated_postgres)
    places = {
        "FOREX_TRACKING_URI": uri,
        "FOREX_DATA__STORE_URL": uri,
        "FOREX_ARTIFACT_URI": f"s3://{s3_bucket.name}/scene/mlruns",
    }
    for name, value in {**places, **s3_bucket.settings}.items():
        monkeypatch.setenv(name, value)
    connect(load_settings())
    return Scene(tmp_path)


def rows() -> tuple[list[Any], list[Any]]:
    """Runs and observations in PostgreSQL, each of which is loaded in a transaction of its own."""
    with postgres(load_settings().mlflow_uri) as database:
        runs = database.execute("SELECT run_uuid, status FROM runs ORDER BY 1").fetchall()
        return runs, database.execute("SELECT date, value FROM observations ORDER BY 1, 2").fetchall()


def test_restore_into_postgresql_and_a_bucket(remote: Scene, s3_bucket: Any) -> None:
    """Killed while objects are put and rows loaded: each is the one of before or of after, and none is lost."""
    draw, below, client = drawn(), "scene/mlruns/", s3_bucket.client

    def objects(prefix: str) -> dict[str, str]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=s3_bucket.name, Prefix=prefix)
        found = [one for page in pages for one in page.get("Contents", ())]
        return {one["Key"].removeprefix(prefix): one["ETag"] for one in found}

    def archived(count: int) -> tuple[str, tuple[list[Any], list[Any]], dict[str, str], dict[str, bytes]]:
        """A state of the deployment: its archive, its rows, its objects, of which some are in each, and its reports."""
        remote.fill(count, draw)
        for number in range(40):
            key = f"{below}forecaster_7d/shared/{number}"
            client.put_object(Bucket=s3_bucket.name, Key=key, Body=draw.randbytes(5000))
        made = remote.backups.create(str(remote.place))
        return made.archive, rows(), objects(below), tree(remote.data / "reports")

    (new, *wanted), (old, *present) = archived(4), archived(2)
    killer = Killer(remote, "restore elsewhere", new)
    killer.let_live()
    for stage, delay in killer.moments(draw):
        remote.backups.restore(old)
        assert [rows(), tree(remote.data / "reports")] == present[::2], "the next restore works"
        assert present[1].items() <= objects(below).items()
        for key in objects("scene/before_restore_"):
            client.delete_object(Bucket=s3_bucket.name, Key=f"scene/before_restore_{key}")
        for left in remote.folder.glob("data.before-restore-*"):
            shutil.rmtree(left)
        killer.kill(stage, delay)
        for found, before, after in zip(rows(), present[0], wanted[0], strict=True):
            assert found in (before, after), (stage, delay)
        there, kept = objects(below), objects("scene/before_restore_")
        aside = {key.partition("/mlruns/")[2]: etag for key, etag in kept.items()}
        for key, etag in present[1].items():
            assert there[key] in (etag, wanted[1].get(key)), (stage, delay, key)
            assert etag in (there[key], aside.get(key)), (stage, delay, key)
        assert tree(remote.data / "reports") in (present[2], wanted[2])
        remote.fill(1, draw)
        assert set(statuses()) == {"FINISHED"}, "the next run works"
    remote.backups.restore(new)
    assert rows() == wanted[0]
    assert wanted[1].items() <= objects(below).items()
    assert tree(remote.data / "reports") == wanted[2]
    killer.tell()


STEP = """
import os, signal, sys
from pathlib import Path
from forex_core.backup import Backups, restoring
from forex_core.config import load_settings
from forex_core.tracking.archived import ArchivedStore

step, archive = sys.argv[1:]
exchange, rename = restoring._exchange, Path.rename

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def exchanged(one, other):
    if step == "before the switch":
        die()
    exchange(one, other)
    if step == "after the switch":
        die()

def renamed(self, other):
    found = rename(self, other)
    if step == "after what was there got its name" and ".before-restore-" in str(other):
        die()
    return found

restoring._exchange, Path.rename = exchanged, renamed
Backups(load_settings(), ArchivedStore()).restore(archive)
"""


@pytest.mark.parametrize(
    "step", ["before the switch", "after the switch", "after what was there got its name"]
)
def test_restore_at_each_step_of_the_switch(scene: Scene, step: str) -> None:
    """Which lasts for less than a moment that is drawn."""
    draw = random.Random(SEED)
    scene.fill(2, draw)
    made = scene.backups.create(str(scene.place))
    before = tree(scene.data / "mlflow" / "mlruns")
    scene.fill(1, draw)
    after = tree(scene.data / "mlflow" / "mlruns")
    state = scene.data / "prefect-server" / "prefect.db"
    state.parent.mkdir()
    state.write_text("schedules and pauses")
    done = subprocess.run([sys.executable, "-c", STEP, step, made.archive], check=False)
    assert done.returncode == -signal.SIGKILL
    expected = after if step == "before the switch" else before
    assert tree(scene.data / "mlflow" / "mlruns") == expected
    assert state.read_text() == "schedules and pauses", "a server that starts now goes on with it"
    state.write_text("and what it wrote since")
    if expected == before:
        (aside,) = [*scene.folder.glob("data.before-restore-*"), *scene.folder.glob(".data.restoring-*")]
        assert tree(aside / "mlflow" / "mlruns") == after
    scene.backups.restore(made.archive)
    assert tree(scene.data / "mlflow" / "mlruns") == before
    assert state.read_text() == "and what it wrote since"
    assert list(scene.folder.glob(".data.restoring-*")) == [], (
        "the next restore takes it away, or gives it its name"
    )
    kept = sorted(scene.folder.glob("data.before-restore-*"))
    if expected == before:
        assert tree(kept[0] / "mlflow" / "mlruns") == after, "the next restore leaves it alone"
    assert len(kept) == (2 if expected == before else 1)
    assert not any((folder / "prefect-server").exists() for folder in kept)
    assert not (scene.data / ".unfinished").exists()


def test_prune(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in (("DAILY", "1"), ("WEEKLY", "0"), ("MONTHLY", "0")):
        monkeypatch.setenv(f"FOREX_BACKUP__KEEP_{name}", number)
    draw = drawn()
    whole = dict[str, tuple[int, int]]()
    for number in (3, 6, 9, 12):
        scene.fill(3, draw)
        made = scene.backups.create(str(scene.place))
        whole[Path(made.archive).name.removesuffix(".jsonl.zst")] = number, 8 * number
        for path in (scene.data / "reports").iterdir():
            shutil.rmtree(path)
    kept = scene.folder / "kept"
    shutil.copytree(scene.place, kept)
    killer = Killer(scene, "prune")
    killer.let_live()
    for stage, delay in killer.moments(draw):
        shutil.rmtree(scene.place)
        shutil.copytree(kept, scene.place)
        killer.kill(stage, delay)
        found = scene.backups.archives(str(scene.place))
        assert found[-1].name == sorted(path.name for path in kept.glob("*.zst"))[-1].removesuffix(
            ".jsonl.zst"
        )
        for one in found:
            counts = scene.backups.verify(one.address).header.counts
            assert (counts["runs"], counts["artifacts"]) == whole[one.name]
    done = scene.backups.prune(str(scene.place))
    assert len(done.kept) == 1
    (path,) = scene.place.glob("*.zst")
    named = {entry.sha256 for entry in manifest.entries(path.name, lambda: path.open("rb"))} - {None}
    there = {path.name for path in (scene.place / "objects").rglob("*") if path.is_file()}
    assert there == named, "what a killed one removed no more goes with the next"
    killer.tell()


def test_prune_beside_create(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """No object goes that an archive is about to name."""
    for name, number in (("DAILY", "1"), ("WEEKLY", "0"), ("MONTHLY", "0")):
        monkeypatch.setenv(f"FOREX_BACKUP__KEEP_{name}", number)
    draw = drawn()
    scene.fill(4, draw)
    for _ in range(max(3, share_of(20))):
        scene.fill(1, draw)
        with scene.start("create") as creating, scene.start("prune") as pruning:
            creating.communicate()
            pruning.communicate()
        assert (creating.returncode, pruning.returncode) == (0, 0)
        for one in scene.backups.archives(str(scene.place)):
            counts = scene.backups.verify(one.address).header.counts
            assert counts["artifacts"] == 8 * counts["runs"]
        assert counts["runs"] == scene.runs


WRITER = """
import sys, time
from pathlib import Path
from forex_core.tracking import MLflowTracker, Registry
uri, root, data, go = sys.argv[1:]
files = Path(go).with_suffix(".files")
files.mkdir()
(files / "MLmodel").write_text("flavors: {}\\n")
(files / "report.html").write_text("x" * 20000)
while Path(go).exists():
    with MLflowTracker(uri, "forecaster_7d", artifact_location=root) as tracker:
        tracker.log_artifact(files / "report.html", "reports")
        address = tracker.log_model(files, "model")
        tracker.log_params({"model": address})
        tracker.log_metrics({"7d_rmse": 1.0})
    Registry(uri, root, Path(data)).register_model("usdclp-7d", address, run_id=tracker.run_id)
"""


def test_hot_archives_beside_two_writers_are_consistent(scene: Scene) -> None:
    """Whatever the database says is finished has its files: 40 of 40."""
    uri = f"sqlite:///{scene.data / 'mlflow' / 'mlflow.db'}"
    root = (scene.data / "mlflow" / "mlruns").as_uri()
    open_store(uri, root)
    gos = [scene.folder / f"go{n}" for n in range(2)]
    for go in gos:
        go.touch()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, uri, root, str(scene.data), str(go)]) for go in gos
    ]
    count = max(8, round(40 * min(1.0, 4 * SHARE)))
    made: list[Created] = []
    try:
        while len(open_store(uri, root).search_runs(["1"])) < 4:
            time.sleep(0.5)
        # They are to write meanwhile.
        while len(made) < count or len({one.counts["runs"] for one in made}) <= 3:
            made.append(scene.backups.create(str(scene.place)))
            assert [writer.poll() for writer in writers] == [None, None]
    finally:
        for go in gos:
            go.unlink()
        for writer in writers:
            assert writer.wait(280) == 0
    release(uri)
    runs = [one.counts["runs"] for one in made]
    assert runs == sorted(runs)
    place = Folder(scene.place)
    for one in made:
        assert one.missing == (), one
        scene.backups.verify(one.archive)
        path = Path(one.archive)
        entries = {entry.path: entry for entry in manifest.entries(path.name, lambda p=path: p.open("rb"))}
        copy = scene.folder / "copy.db"
        database = entries[manifest.MLFLOW]
        copy.write_bytes(b"".join(place.content(str(database.sha256), database.size)))
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            finished = connection.execute("SELECT run_uuid FROM runs WHERE status = 'FINISHED'").fetchall()
            versions = connection.execute("SELECT source, storage_location FROM model_versions").fetchall()
        assert finished
        for (run,) in finished:
            assert f"artifacts/00/forecaster_7d/{run}/artifacts/reports/report.html" in entries
        for source, location in versions:
            below = str(location or source).removeprefix(f"{root}/")
            assert f"artifacts/00/{below}/MLmodel" in entries
    there = scene.backups.restore(made[-1].archive, scene.folder / "restored").folder
    client = open_store(f"sqlite:///{there / 'mlflow' / 'mlflow.db'}", below=there)
    assert len(client.search_runs(["1"], max_results=5000)) == runs[-1]
    release(f"sqlite:///{there / 'mlflow' / 'mlflow.db'}")
    print(f"{len(made)} of {len(made)} consistent, {runs[0]} to {runs[-1]} runs")
