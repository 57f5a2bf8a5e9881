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
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from forex_core.backup import Backups, Created, manifest
from forex_core.backup.places import Folder
from forex_core.config import load_settings
from forex_core.data.store import ObservationStore
from forex_core.tracking import ArchivedStore, MLflowTracker, open_store
from forex_core.tracking.store import release
from tests.drills.moments import SEED, SHARE, drawn, share_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

MOMENTS = {"create": 10, "restore": 17, "prune": 10}
"""How often each stage is killed, of all moments."""

END = "end"
STAGES = {
    "create": ("spool", "databases", "artifacts", "reports", "flush", "manifest"),
    "restore": ("files", "check", "switch"),
    "prune": ("verify", "remove", "collect"),
}

WORK = """
import os, signal, sys, time
from pathlib import Path
from forex_core.backup import Backups, Created, manifest
from forex_core.backup.places import Folder
from forex_core.config import load_settings
from forex_core.tracking.archived import ArchivedStore

what, place, target, until, delay = sys.argv[1:]
said = set()
def say(stage):
    os.write(1, f"{stage} {time.monotonic()}\\n".encode())  # all of it or nothing

def advance(stage, done, total):
    if stage not in said:
        said.add(stage)
        say(stage)
        if stage == until:  # not from outside, which takes longer than some stages
            signal.setitimer(signal.ITIMER_REAL, float(delay))

assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL, "the kernel ends it, and nothing of it is asked"
backups = Backups(load_settings(), ArchivedStore())
say("begin")
if what == "create":
    backups.create(place, advance=advance)
elif what == "restore":
    backups.restore(target, advance=advance)
else:
    backups.prune(place, advance=advance)
say("end")
"""


@dataclass
class Scene:
    """A deployment of some runs with their files; its archives; and how it is worked on and killed."""

    folder: Path

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
        uri = f"sqlite:///{self.data / 'mlflow' / 'mlflow.db'}"
        files = self.folder / "files"
        files.mkdir(exist_ok=True)
        for _ in range(count):
            for name in range(8):
                (files / f"{name}.bin").write_bytes(draw.randbytes(40_000))
            root = (self.data / "mlflow" / "mlruns").as_uri()
            with MLflowTracker(uri, "forecaster_7d", artifact_location=root) as tracker:
                tracker.log_metrics({"7d_rmse": 1.0})
                tracker.log_artifacts_dir(files, "reports")
            shutil.copytree(files, self.data / "reports" / str(tracker.run_id))
        ObservationStore(load_settings().store_url).names()
        release(uri)

    def start(
        self, what: str, archive: str = "", until: str = "", delay: float = 0.0
    ) -> subprocess.Popen[str]:
        """One that ends as if killed `delay` seconds after the beginning of the stage `until`, if one is named."""
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
        assert process.returncode == -signal.SIGALRM or (process.returncode, last) == (0, END)
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
            scene.backups.verify(str(archive))
        archives = len(found)
    made = scene.backups.create(str(scene.place))
    scene.backups.prune(str(scene.place))
    assert list(scene.place.glob(".scratch-*")) == []
    scene.backups.verify(made.archive)
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
        client = open_store(load_settings().mlflow_uri, below=scene.data)
        assert len(client.search_runs(["1"])) == (8 if found == before else 10)
        release(load_settings().mlflow_uri)
        if (
            found == before
        ):  # what was there has not gone: under its own name, or the one that it had on the way
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
    scene.backups.restore(made.archive)
    assert tree(scene.data / "mlflow" / "mlruns") == before
    assert list(scene.folder.glob(".data.restoring-*")) == []
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
    for _ in range(4):
        scene.fill(3, draw)
        scene.backups.create(str(scene.place))
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
            scene.backups.verify(one.address)
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
            scene.backups.verify(one.address)


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
        while len(made) < count:
            made.append(scene.backups.create(str(scene.place)))
    finally:
        for go in gos:
            go.unlink()
        for writer in writers:
            assert writer.wait(60) == 0
    release(uri)
    runs = [one.counts["runs"] for one in made]
    assert runs == sorted(runs)
    assert len(set(runs)) > 3, "they wrote meanwhile"
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
