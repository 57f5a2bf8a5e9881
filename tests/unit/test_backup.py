"""Archives: made of a folder that is worked in, verified, restored, pruned, on disks and databases that fail."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from errno import EACCES
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from botocore.exceptions import ReadTimeoutError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forex_core import databases
from forex_core.backup import creating as making
from forex_core.backup import manifest
from forex_core.backup.places import Folder
from forex_core.backup.retention import kept_by
from forex_core.config import BackupConfig, load_settings
from forex_core.data.store import ObservationStore
from forex_core.errors import ArchiveRefused, BackupError, ConfigError, InputError
from forex_core.tracking import ArchivedStore, MLflowTracker, Registry, open_store
from forex_core.tracking.store import release
from tests.deployments import Deployment, entries_of, object_of, older_store, rows, tree
from tests.faults import damage, held

# --- what goes in comes out


def test_a_restored_backup_equals_its_source(tracked: Deployment) -> None:
    runs = [tracked.run(f"run {n}", {"report.html": b"x" * n, "forecast.csv": b"1,2"}) for n in range(3)]
    tracked.report("usdclp/7d/x/report.html", b"<html>").chmod(0o640)
    tracked.report("empty.txt", b"")
    for part in ("reports", "mlflow/mlruns"):
        (tracked.data / part / "no files yet").mkdir()
    ObservationStore(load_settings().store_url).names()
    made = tracked.create()
    assert made.counts == {
        "runs": 3, "experiments": 2, "models": 0, "versions": 0, "artifacts": 6,
        "observations": 0, "forecasts": 0, "outcomes": 0,
    }  # fmt: skip
    assert made.missing == ()
    done = tracked.backups.restore(made.archive, tracked.folder / "else" / "where")
    there = tracked.folder / "else" / "where"
    assert (done.folder, done.before, done.counts) == (there, (), made.counts)
    for part in ("reports", "mlflow/mlruns"):
        assert tree(there / part) == tree(tracked.data / part)
    report = tracked.data / "reports" / "usdclp" / "7d" / "x" / "report.html"
    assert (there / report.relative_to(tracked.data)).stat().st_mtime_ns == report.stat().st_mtime_ns
    assert rows(there / "store" / "forex.db") == rows(tracked.data / "store" / "forex.db")
    assert sorted(p.name for p in there.iterdir()) == ["mlflow", "reports", "settings.json", "store"]
    assert sorted(p.name for p in (there / "mlflow").iterdir()) == ["mlflow.db", "mlruns"], "no -wal, no -shm"

    shutil.rmtree(tracked.data)  # nothing may be read from there any more
    client = open_store(f"sqlite:///{there / 'mlflow' / 'mlflow.db'}", below=there)
    for n, run in enumerate(runs):
        found = client.get_run(run)
        assert found.data.params == {"name": f"run {n}"}
        assert found.info.artifact_uri.startswith((there / "mlflow" / "mlruns").as_uri())
        assert Path(client.download_artifacts(run, "reports/report.html")).read_bytes() == b"x" * n
    release(f"sqlite:///{there / 'mlflow' / 'mlflow.db'}")


names = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="/\0"), min_size=1, max_size=12
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)
trees = st.dictionaries(
    st.lists(names, min_size=1, max_size=3).map("/".join),
    st.tuples(st.binary(max_size=300), st.sampled_from([0o644, 0o600, 0o755, 0o444])),
    max_size=12,
)


@pytest.mark.slow
@settings(max_examples=40)
@given(trees, trees)
def test_any_tree_comes_back_and_so_does_the_one_after(
    tmp_path_factory: pytest.TempPathFactory,
    first: dict[str, tuple[bytes, int]],
    second: dict[str, tuple[bytes, int]],
) -> None:
    home = tmp_path_factory.mktemp("any")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOREX_DATA_DIR", str(home / "data"))
        deployment = Deployment(home)
        deployment.report("always", b"there")
        archives = []
        for made in (first, second):
            for path, (content, mode) in made.items():
                file = deployment.data / "reports" / path
                try:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    if not file.is_dir():
                        file.write_bytes(content)
                        file.chmod(mode)
                except (FileExistsError, NotADirectoryError):
                    continue  # a file of this name is in the way
            archives.append((deployment.create(), tree(deployment.data / "reports")))
        for n, (archive, expected) in enumerate(archives):
            assert tree(deployment.restored(archive, f"restored{n}") / "reports") == expected
    shutil.rmtree(home)


text = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=30
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(text, text, max_size=5),
    st.dictionaries(text, st.floats(allow_nan=False, allow_infinity=False), max_size=5),
)
def test_any_rows_come_back(
    migrated_sqlite: Path,
    tmp_path_factory: pytest.TempPathFactory,
    params: dict[str, str],
    metrics: dict[str, float],
) -> None:
    home = tmp_path_factory.mktemp("rows")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOREX_DATA_DIR", str(home / "data"))
        deployment = Deployment(home)
        database = deployment.data / "mlflow" / "mlflow.db"
        database.parent.mkdir()
        shutil.copyfile(migrated_sqlite, database)
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(
                "INSERT INTO runs (run_uuid, status, experiment_id, lifecycle_stage) "
                "VALUES ('r', 'FINISHED', 0, 'active')"
            )
            connection.executemany("INSERT INTO params VALUES (?, ?, 'r')", params.items())
            connection.executemany(
                "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, 1, 'r', 0, 0)",
                metrics.items(),
            )
        expected = rows(database)
        there = deployment.restored(deployment.create())
        found = rows(there / "mlflow" / "mlflow.db")
        moved = ("experiments",)  # where files are
        assert {n: t for n, t in found.items() if n not in moved} == {
            n: t for n, t in expected.items() if n not in moved
        }
    shutil.rmtree(home)


def test_a_content_is_kept_once(deployment: Deployment) -> None:
    for n in range(5):
        deployment.report(f"copy{n}", b"the same" * 1000)
    made = deployment.create()
    assert (made.bytes_new, made.bytes_reused) == (
        8000 + (deployment.restored(made) / "settings.json").stat().st_size,
        32000,
    )
    assert len(deployment.objects()) == 2


def test_what_has_not_changed_is_not_read_again(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forex_core.backup.sources.RACY_NS", 0)
    deployment.report("large", os.urandom(20_000_000))
    deployment.create()
    before = read_bytes()
    again = deployment.create()
    assert again.bytes_new == 0
    assert again.bytes_reused == again.bytes
    assert read_bytes() - before < 10_000_000
    full = deployment.create(full=True)
    assert (full.bytes_new, full.bytes_reused) == (full.bytes, 0)


def read_bytes() -> int:
    """What this process has read by now, from files of any kind."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_another_file_of_the_same_size_and_time_is_noticed(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forex_core.backup.sources.RACY_NS", 0)
    path = deployment.report("report", b"before", ago_s=1000)
    at = path.stat().st_mtime_ns
    deployment.create()
    path.write_bytes(b"after!")
    os.utime(path, ns=(at, at))
    assert (deployment.restored(deployment.create()) / "reports" / "report").read_bytes() == b"after!"


def test_a_file_that_changed_a_moment_ago_is_read_again(deployment: Deployment) -> None:
    """It may change once more within the clock's grain, and look as it did."""
    deployment.report("report", b"before")
    made = deployment.create()
    (entry,) = [e for e in entries_of(made) if e.path == "reports/report"]
    assert entry.state is None
    assert deployment.create().bytes_new == 0, "its content is known all the same"


def test_parts_are_taken_in_the_order_in_which_nothing_is_lost(tracked: Deployment) -> None:
    tracked.run()
    tracked.report("a report")
    (tracked.data / "spool" / "spooled-1").mkdir(parents=True)
    (tracked.data / "spool" / "spooled-1" / "run.json").write_text("{}")
    (tracked.data / "spool" / "spooled-1.lock").write_text("")
    paths = [entry.path for entry in entries_of(tracked.create())]
    assert [path.partition("/")[0] for path in paths] == [
        "spool",
        "settings.json",
        "databases",
        "artifacts",
        "reports",
    ]
    assert paths[0] == "spool/spooled-1/run.json", "and no lock"


def test_an_archive_names_what_it_was_made_with(deployment: Deployment) -> None:
    """The versions of whatever a model or a file of it may need to be read."""
    deployment.report("a report")
    header = deployment.backups.verify(deployment.create().archive).header
    assert (header.program, header.python) == (version("forex-forecast"), platform.python_version())
    assert header.libraries == {name: version(name) for name in header.libraries}
    assert {"mlflow", "prefect", "pyarrow", "pandas", "numpy", "statsmodels"} <= set(header.libraries)


def test_secrets_stay_out(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = "pLaNtEd"
    monkeypatch.setenv("FOREX_DATA__FRED_API_KEY", f"{planted}1")
    monkeypatch.setenv("FOREX_TRACKING__MLFLOW__S3_SECRET_ACCESS_KEY", f"{planted}2")
    monkeypatch.setenv("FOREX_BACKUP__S3_SECRET_ACCESS_KEY", f"{planted}3")
    monkeypatch.setenv("FOREX_DATA__ADDRESSES", json.dumps({"ecb": f"https://me:{planted}4@mirror/x"}))
    monkeypatch.setenv("FOREX_PAIR", "EURUSD")
    deployment.report("a report")
    made = deployment.create()
    written = b"".join(pa.input_stream(str(path), compression="zstd").read() for path in files_of(deployment))
    assert planted.encode() not in written
    there = deployment.restored(made)
    document = json.loads((there / "settings.json").read_text())
    assert document["pair"] == "EURUSD"
    assert document["data"]["addresses"] == {"ecb": "https://me:***@mirror/x"}
    done = deployment.backups.restore(made.archive, deployment.folder / "again")
    assert done.secrets == (
        "data.fred_api_key",
        "tracking.mlflow.s3_secret_access_key",
        "backup.s3_secret_access_key",
    )


def test_a_password_in_the_address_of_files_stays_out(
    tracked: Deployment, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    """In those that the database has of before; the settings take none."""
    client = open_store(load_settings().mlflow_uri)
    run = client.create_run(client.create_experiment("old", "sftp://me:pLaNtEd1@old/runs"))
    client.set_terminated(run.info.run_id)
    client.create_registered_model("usdclp_7d")
    client.create_model_version("usdclp_7d", "sftp://me:pLaNtEd2@older/runs/model", run.info.run_id)
    monkeypatch.setenv("FOREX_TRACKING_URI", load_settings().mlflow_uri)
    monkeypatch.setenv("FOREX_ARTIFACT_URI", "sftp://me:pLaNtEd3@new/runs")
    with pytest.raises(ConfigError, match="it may hold no password") as refused:
        load_settings()
    assert "pLaNtEd" not in str(refused.value)
    monkeypatch.setenv("FOREX_ARTIFACT_URI", "sftp://me@new/runs")
    made = tracked.create()
    places = [re.search(r"sftp://(me:\*\*\*|me)@(\w+)", lost) for lost in made.missing]
    assert {place[2] for place in places if place} == {"old", "older", "new"}
    with pytest.raises(InputError, match="files cannot be restored to sftp://") as caught:
        tracked.backups.restore(made.archive)
    written = b"".join(pa.input_stream(str(path), compression="zstd").read() for path in tracked.manifests())
    assert "pLaNtEd" not in f"{written!r} {made} {told} {caught.value}"


def files_of(deployment: Deployment) -> list[Path]:
    return [*deployment.objects(), *deployment.manifests()]


def test_mlflow_has_the_tables_that_are_copied(migrated_sqlite: Path) -> None:
    assert set(rows(migrated_sqlite)) == set(ArchivedStore().tables())


def test_experiments_of_other_places(tracked: Deployment) -> None:
    """Within the data folder their files are kept as well; elsewhere that is said."""
    client = open_store(load_settings().mlflow_uri)
    inside, outside = tracked.data / "mlflow" / "other", tracked.folder / "outside"
    for name, place in (("inside", inside), ("outside", outside), ("above", tracked.data)):
        place.mkdir(exist_ok=True)
        run = client.create_run(client.create_experiment(name, place.as_uri()))
        client.log_text(run.info.run_id, name, "text.txt")
        client.set_terminated(run.info.run_id)
        if name == "inside":
            kept = run.info.run_id
    made = tracked.create()
    assert sorted(made.missing) == [
        f"{place.as_uri()}: files of an experiment outside the data folder and the place of artifacts"
        for place in (tracked.data, outside)
    ]
    release(load_settings().mlflow_uri)
    there = tracked.restored(made)
    restored = open_store(f"sqlite:///{there / 'mlflow' / 'mlflow.db'}")
    uri = restored.get_run(kept).info.artifact_uri
    assert uri.startswith((there / "mlflow" / "mlruns-1").as_uri())
    assert Path(restored.download_artifacts(kept, "text.txt")).read_text() == "inside"
    release(f"sqlite:///{there / 'mlflow' / 'mlflow.db'}")


def test_what_cannot_be_archived_is_said(deployment: Deployment) -> None:
    deployment.report("a report")
    (deployment.data / "reports" / "link").symlink_to("/etc/hostname")
    os.mkfifo(deployment.data / "reports" / "pipe")
    (deployment.data / "reports" / os.fsdecode(b"\xff")).write_bytes(b"x")
    made = deployment.create()
    assert sorted(made.missing) == [
        "'\\udcff': its name is not UTF-8",
        "link: it is a link or no file",
        "pipe: it is a link or no file",
    ]
    assert [e.path for e in entries_of(made)] == ["settings.json", "reports/a report"]


@pytest.mark.slow
def test_archives_take_no_memory_for_what_forecasts_need() -> None:
    """Neither of the command nor of the flows."""
    code = (
        "import sys, forex_core.cli, forex_core.backup, forex_core.tracking.archived, forex_core.report.archives\n"
        "import forex_core.backup.stored\n"
        "forex_core.backup.stored.store_parts()\n"
        "print(*{'forex_core.engine', 'scipy.special', 'holidays'} & {*sys.modules})\n"
        "import flows.backup\n"
        "print(*{'forex_core.engine', 'scipy.special', 'holidays'} & {*sys.modules})"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split("\n") == ["", "", ""]


@pytest.mark.slow
def test_whoever_makes_or_reads_archives_gives_memory_back() -> None:
    """Whatever was imported before it, and in whatever order: pages are not huge, and long blocks are the system's."""
    code = """
import ctypes, sys
import flows.backup, pyarrow
from forex_core.backup import Backups
from forex_core.config import load_settings
from forex_core.errors import ForexError
from forex_core.tracking import ArchivedStore

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
class Counts(ctypes.Structure):  # mallinfo2(3)
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks h1 h2 h3 h4 h5 h6".split()]
libc.mallinfo2.restype = Counts
def is_the_systems():
    libc.malloc_trim(0)
    before, block = libc.mallinfo2().hblks, libc.malloc(20 << 20)  # no hole is as long
    after = libc.mallinfo2().hblks
    if after > before:  # one in the heap stays, or it would leave such a hole
        libc.free(block)
    return after > before
def has_huge_pages():
    with open("/proc/self/status") as status:
        return "THP_enabled:\\t1" in status.read()

backups = Backups(load_settings(), ArchivedStore())
for call in (backups.create, backups.prune, lambda: backups.verify("latest"), lambda: backups.restore("latest")):
    libc.prctl(41, *map(ctypes.c_ulong, (0, 0, 0, 0)))  # also what a test of before has set for its children
    libc.mallopt(-3, 32 << 20)
    assert has_huge_pages() and not is_the_systems()
    try:
        call()
    except ForexError as error:
        print(error)
    assert not has_huge_pages() and is_the_systems()
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "nothing to keep" in said.stdout
    assert said.stdout.count("there is no archive of") == 2


def test_an_empty_data_folder_is_no_deployment(deployment: Deployment) -> None:
    with pytest.raises(BackupError, match="nothing to keep"):
        deployment.create()
    assert deployment.objects() == []


def test_a_server_is_archived_where_its_database_is(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREX_TRACKING_URI", "http://127.0.0.1:5000")
    with pytest.raises(BackupError, match="is a server"):
        deployment.create()


# --- models whose files are gone


def model_of(deployment: Deployment, name: str = "usdclp-7d") -> Path:
    """A registered version without code, such as code of a user may have made; its folder."""
    uri = f"sqlite:///{deployment.data / 'mlflow' / 'mlflow.db'}"
    files = deployment.folder / "model"
    files.mkdir(exist_ok=True)
    (files / "MLmodel").write_text("flavors: {}\n")
    root = (deployment.data / "mlflow" / "mlruns").as_uri()
    with MLflowTracker(uri, "some", artifact_location=root) as tracker:
        address = tracker.log_model(files, "model")
    source = Registry(uri, root, deployment.data).register_model(name, str(address)).source
    return Path(source.removeprefix("file://"))


def test_a_model_whose_files_are_gone_is_said_once_and_the_rest_is_kept(tracked: Deployment) -> None:
    folder = model_of(tracked)
    whole = tracked.create()
    assert whole.missing == ()
    assert whole.counts["models"] == 1
    shutil.rmtree(folder)
    made = tracked.create()
    (lost,) = made.missing
    assert lost == f"version 1 of usdclp-7d: {folder.as_uri()}/MLmodel is not there"
    assert made.newly_missing == made.missing
    assert tracked.create().newly_missing == (), "it was missing at the last one"
    done = tracked.backups.restore(made.archive, tracked.folder / "restored")
    assert done.missing == made.missing
    back = tracked.restored(whole, "whole")
    assert (back / folder.relative_to(tracked.data) / "MLmodel").is_file()


def test_a_champion_that_cannot_be_loaded_is_no_restore(tracked: Deployment) -> None:
    folder = model_of(tracked)
    open_store(load_settings().mlflow_uri).set_registered_model_alias("usdclp-7d", "champion", "1")
    made = tracked.create()
    with pytest.raises(ArchiveRefused, match="champion of usdclp-7d"):
        tracked.restored(made)
    assert list(tracked.folder.glob("*restor*")) == []
    (folder / "MLmodel").unlink()
    done = tracked.backups.restore(tracked.create().archive, tracked.folder / "restored")
    assert "cannot be used" in str(done.champions["usdclp-7d"]), "it was not there to be archived"


# --- over what is there


def test_over_the_data_folder_what_was_there_is_kept(tracked: Deployment) -> None:
    first = tracked.run("first")
    tracked.report("report", b"then")
    made = tracked.backups.create()  # in data/backups
    second = tracked.run("second")
    tracked.report("report", b"now")
    (tracked.data / "cache").mkdir()
    (tracked.data / "cache" / "kept").touch()
    tracked.data.chmod(0o750)
    if os.geteuid() == 0:
        os.chown(tracked.data, 1234, 1234)
    release(load_settings().mlflow_uri)
    done = tracked.backups.restore("latest")
    assert stat.S_IMODE(tracked.data.stat().st_mode) == 0o750
    if os.geteuid() == 0:
        owners = {
            path.stat().st_uid for path in tracked.data.rglob("*") if path.name not in ("cache", "kept")
        }
        assert owners == {1234}
    (aside,) = (Path(place) for place in done.before)
    assert aside.parent == tracked.folder
    assert aside.name.startswith("data.before-restore-")
    assert (tracked.data / "reports" / "report").read_bytes() == b"then"
    assert (aside / "reports" / "report").read_bytes() == b"now"
    client = open_store(load_settings().mlflow_uri, below=tracked.data)
    assert client.get_run(first).info.status == "FINISHED"
    assert second not in {run.info.run_id for run in client.search_runs(["1"])}
    release(load_settings().mlflow_uri)
    kept = open_store(f"sqlite:///{aside / 'mlflow' / 'mlflow.db'}")
    assert kept.get_run(second).info.status == "FINISHED"
    release(f"sqlite:///{aside / 'mlflow' / 'mlflow.db'}")
    assert tracked.backups.verify(made.archive).archive == made.archive, "archives in the folder stay in it"
    assert not (tracked.data / ".unfinished").exists()
    assert tracked.backups.prune().kept == (made.archive,)
    assert not (aside / "cache").exists()
    assert (tracked.data / "cache" / "kept").is_file(), "what no archive has goes on"
    tracked.backups.create()


def spooled(deployment: Deployment, name: str, *files: str) -> None:
    """An entry with these files in the spool."""
    entry = deployment.data / "spool" / name
    entry.mkdir(parents=True, exist_ok=True)
    (entry / "run.json").write_text(name)
    for file in files:
        (entry / file).write_text(f"{file} of {name}")


def test_over_the_data_folder_what_waits_in_the_spool_goes_on_waiting(tracked: Deployment) -> None:
    """Whether it was spooled since, was half spooled at the time, or is half replayed by now."""
    tracked.run()
    spooled(tracked, "half-spooled", "0001.json")
    spooled(tracked, "half-replayed", "0001.json", "0002.json", "end.json")
    made = tracked.create()
    release(load_settings().mlflow_uri)
    spooled(tracked, "half-spooled", "0001.json", "0002.json", "end.json")
    (tracked.data / "spool" / "half-replayed" / "0001.json").unlink()
    spooled(tracked, "since", "0001.json")
    (tracked.data / "spool" / "since.lock").write_text("")
    (tracked.data / "spool" / ".removed-gone").mkdir()
    before = tree(tracked.data / "spool")
    done = tracked.backups.restore(made.archive)
    whole = {"0001.json", "0002.json", "end.json", "run.json"}
    found = {
        entry.name: {file.name for file in entry.iterdir()} for entry in (tracked.data / "spool").iterdir()
    }
    assert found == {"half-spooled": whole, "half-replayed": whole, "since": {"0001.json", "run.json"}}
    assert tree(Path(done.before[0]) / "spool") == before, "and what was there is there"


def test_processes_that_use_the_folder_are_named_and_nothing_changes(tracked: Deployment) -> None:
    tracked.run()
    made = tracked.create()
    release(load_settings().mlflow_uri)
    before = tree(tracked.data)
    code = "import sys; f = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    user = subprocess.Popen(
        [sys.executable, "-c", code, str(tracked.data / "mlflow" / "mlflow.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert user.stdout is not None
        user.stdout.readline()
        with pytest.raises(InputError, match=rf"in use by a process: {user.pid} \(.*python"):
            tracked.backups.restore(made.archive)
        assert tree(tracked.data) == before
    finally:
        user.communicate()
    tracked.backups.restore(made.archive)


@contextmanager
def idle(line: str, working: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the command line of a service that has no file open."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "import sys; print(flush=True); sys.stdin.read()", *line.split()],
        cwd=working,
        env={name: value for name, value in os.environ.items() if name != "FOREX_DATA_DIR"} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.communicate()


WORKER = "prefect worker start --pool forex"


def test_services_that_have_no_file_open_are_named(deployment: Deployment) -> None:
    """Whatever tells them that the folder is theirs."""
    deployment.report("report", b"then")
    made = deployment.create()
    deployment.report("report", b"now")
    home, other = deployment.folder, deployment.folder / "other"
    (other / "of-env").mkdir(parents=True)
    (other / "of-toml").mkdir()
    (other / "of-env" / ".env").write_text(f"FOREX_DATA_DIR={deployment.data}\n")
    (other / "of-toml" / "forex.toml").write_text('data_dir = "../../data"\n')
    for line, working, environment in (
        (WORKER, home, {}),
        ("python -m prefect.flow_engine", other, {"FOREX_DATA_DIR": str(deployment.data)}),
        ("forex dashboard --serve", other / "of-env", {}),
        ("forex ui", other / "of-toml", {}),
        (f"mlflow server --backend-store-uri sqlite:///{deployment.data}/mlflow/mlflow.db", other, {}),
    ):
        with (
            idle(line, working, **environment) as user,
            pytest.raises(InputError, match=rf"in use by a process: {user.pid} \(.*{line[:30]}.*Nothing was"),
        ):
            deployment.backups.restore(made.archive)
        assert (deployment.data / "reports" / "report").read_bytes() == b"now"
    address = "mlflow server --backend-store-uri=postgresql://me:hunter2@db/runs"
    with (
        idle(address, other, FOREX_DATA_DIR=str(deployment.data)),
        pytest.raises(InputError, match=r"postgresql://me:\*\*\*@db/runs"),
    ):
        deployment.backups.restore(made.archive)
    with (
        idle(WORKER, other),
        idle(WORKER, home, FOREX_DATA_DIR=f"{deployment.data}2"),
        idle(f"mlflow ui --backend-store-uri sqlite:///{deployment.data}2/mlflow.db", other),
        idle("prefect server start", home),
        idle("vim notes", home),
    ):
        deployment.backups.restore(made.archive)
    assert (deployment.data / "reports" / "report").read_bytes() == b"then"


def test_one_that_comes_at_the_last_moment_is_noticed(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last look and the switch; its files would be in the folder that is put aside."""
    from forex_core.backup import restoring

    deployment.report("report", b"then")
    made = deployment.create()
    deployment.report("report", b"now")
    exchange, opened = restoring._exchange, list[subprocess.Popen[bytes]]()

    def exchanged(one: Path, other: Path) -> None:
        if not opened:
            code = "import sys; f = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
            path = str(deployment.data / "reports" / "report")
            user = subprocess.Popen(
                [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            opened.append(user)
            assert user.stdout is not None
            user.stdout.readline()
        exchange(one, other)

    monkeypatch.setattr(restoring, "_exchange", exchanged)
    try:
        with pytest.raises(InputError, match="is in use by"):
            deployment.backups.restore(made.archive)
    finally:
        for user in opened:
            user.communicate()
    assert (deployment.data / "reports" / "report").read_bytes() == b"now"
    assert sorted(path.name for path in deployment.folder.iterdir()) == ["archives", "data"]


def test_through_a_link_the_folder_itself_is_restored(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.report("report", b"then")
    made = deployment.create()
    deployment.data.rename(deployment.folder / "disk")
    deployment.data.symlink_to("disk")
    deployment.report("report", b"now")
    done = deployment.backups.restore(made.archive)
    assert deployment.data.is_symlink()
    assert done.folder == deployment.folder / "disk"
    assert (deployment.data / "reports" / "report").read_bytes() == b"then"


def test_a_file_system_that_cannot_exchange_takes_two_steps(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ctypes

    deployment.report("report", b"then")
    made = deployment.create()
    deployment.report("report", b"now")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    done = deployment.backups.restore(made.archive)
    assert (deployment.data / "reports" / "report").read_bytes() == b"then"
    assert (Path(done.before[0]) / "reports" / "report").read_bytes() == b"now"


@pytest.mark.parametrize("target", ["full", "a file"])
def test_into_what_is_not_empty_nothing_is_restored(deployment: Deployment, target: str) -> None:
    deployment.report("report")
    made = deployment.create()
    (deployment.folder / "full").mkdir()
    (deployment.folder / "full" / "x").write_text("mine")
    (deployment.folder / "a file").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        deployment.backups.restore(made.archive, deployment.folder / target)


def test_into_an_empty_folder(deployment: Deployment) -> None:
    deployment.report("report")
    made = deployment.create()
    (deployment.folder / "empty").mkdir()
    assert (deployment.restored(made, "empty") / "reports" / "report").is_file()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("FOREX_TRACKING_URI", "http://127.0.0.1:1", "is a server"),
        ("FOREX_TRACKING_URI", "sqlite:////srv/elsewhere/mlflow.db", "outside the data folder"),
        ("FOREX_ARTIFACT_URI", "gs://bucket/x", "cannot be restored to"),
    ],
)
def test_back_ends_that_cannot_be_replaced_in_one_step(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    deployment.report("report")
    made = deployment.create()
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=said):
        deployment.backups.restore(made.archive)


@pytest.mark.parametrize("how", ["a link to another disk", "a disk without hard links"])
def test_archives_in_the_folder_that_cannot_be_linked_stay_there(
    how: str, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.report("report", b"then")
    (deployment.data / "cache" / "deep").mkdir(parents=True)
    (deployment.data / "cache" / "deep" / "kept").write_text("kept")
    with TemporaryDirectory(dir="/dev/shm") as other:
        if how == "a link to another disk":
            (deployment.data / "backups").symlink_to(other)
        else:

            def refused(*_: object, **__: object) -> None:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))

            monkeypatch.setattr(os, "link", refused)  # no such file system can be made here
        made = deployment.backups.create()
        deployment.report("report", b"now")
        spooled = deployment.data / "spool" / "spooled-1" / "run.json"
        spooled.parent.mkdir(parents=True)
        spooled.write_text("{}")
        done = deployment.backups.restore("latest")
        assert (deployment.data / "reports" / "report").read_bytes() == b"then"
        assert deployment.backups.verify("latest").archive == made.archive
        assert (deployment.data / "backups").is_symlink() == (how == "a link to another disk")
        assert (deployment.data / "cache" / "deep" / "kept").read_text() == "kept"
        assert spooled.read_text() == "{}"
        assert not (Path(done.before[0]) / "cache").exists()


@pytest.mark.parametrize("links", [True, False])
def test_a_restore_that_ended_right_after_its_switch_is_finished_by_the_next(
    deployment: Deployment, links: bool
) -> None:
    from forex_core.backup import restoring

    state = deployment.data / "prefect-server" / "prefect.db"
    state.parent.mkdir()
    state.write_text("schedules")
    deployment.report("report", b"then")
    made = deployment.create()
    deployment.report("report", b"now")

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restoring, "_put_aside", ended)
        if not links:
            patch.setattr(os, "link", refused)
        with pytest.raises(KeyboardInterrupt):
            deployment.backups.restore(made.archive)
    assert (deployment.data / "reports" / "report").read_bytes() == b"then"
    assert state.exists() == links
    if not links:  # a server was started meanwhile
        state.parent.mkdir()
        (state.parent / "new.db").write_text("begun empty")
    deployment.backups.restore(made.archive)
    first, second = sorted(deployment.folder.glob("data.before-restore-*"))
    assert (first / "reports" / "report").read_bytes() == b"now"
    assert (second / "reports" / "report").read_bytes() == b"then"
    where = deployment.data if links else first
    assert (where / "prefect-server" / "prefect.db").read_text() == "schedules", (
        "never lost, nor mixed with another"
    )
    assert (deployment.data / "prefect-server" / "new.db").exists() != links
    assert list(deployment.folder.glob(".data*")) == []


@pytest.mark.parametrize("where", ["cache", "mlflow/mlruns", "a ñ b"])
def test_a_disk_that_is_mounted_in_the_folder_is_named_and_nothing_changes(
    where: str, deployment: Deployment, small_disk: Callable[..., Path]
) -> None:
    """It would go where the folder of before goes, or could not be moved out of it."""
    deployment.report("report", b"then")
    made = deployment.create()
    deployment.report("report", b"now")
    (deployment.data / where).parent.mkdir(exist_ok=True)
    mounted = small_disk("1m", at=deployment.data / where)
    with pytest.raises(InputError, match=f"{mounted} is a mount point in {deployment.data}"):
        deployment.backups.restore(made.archive)
    assert (deployment.data / "reports" / "report").read_bytes() == b"now"
    assert sorted(path.name for path in deployment.folder.iterdir()) == ["archives", "data"]


def test_an_empty_disk_is_no_folder_to_restore_to(
    deployment: Deployment, small_disk: Callable[..., Path]
) -> None:
    deployment.report("report")
    made = deployment.create()
    disk = small_disk("20m")
    with pytest.raises(InputError, match="is a mount point"):
        deployment.backups.restore(made.archive, disk)
    assert deployment.backups.restore(made.archive, disk / "below").folder == disk / "below"


def test_what_only_begins_like_a_part_of_an_archive_goes_on(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREX_BACKUP__TO", str(deployment.data / "artifacts-backup"))
    deployment.report("report")
    mine = {"store-archives", "reports_2025", "mlflow-export", "settings.json.mine", "artifacts"}
    for name in mine:
        (deployment.data / name).mkdir()
        (deployment.data / name / "mine").write_text(name)
    made = deployment.backups.create()
    done = deployment.backups.restore("latest")
    for name in mine:
        assert (deployment.data / name / "mine").read_text() == name
    assert [one.address for one in deployment.backups.archives()] == [made.archive]
    assert sorted(path.name for path in Path(done.before[0]).iterdir()) == ["reports"]


def test_what_belongs_to_databases_of_before_stays_with_them(
    tracked: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the data folder itself, where a log would be taken for that of the new database."""
    monkeypatch.setenv("FOREX_DATA__STORE_URL", f"sqlite:///{tracked.data / 'forex.db'}")
    ObservationStore(load_settings().store_url).names()
    made = tracked.create()
    (tracked.data / "forex.db-wal").write_bytes(b"of before")
    done = tracked.backups.restore(made.archive)
    assert not (tracked.data / "forex.db-wal").exists()
    assert (Path(done.before[0]) / "forex.db-wal").read_bytes() == b"of before"


def test_a_restored_folder_is_as_closed_as_what_was_archived(tracked: Deployment) -> None:
    """Whatever the umask of those who make archives and restore them."""
    tracked.run()
    release(load_settings().mlflow_uri)
    (tracked.data / "mlflow" / "mlflow.db").chmod(0o600)
    before = os.umask(0o022)
    try:
        made = tracked.create()
        new = tracked.restored(made)
        (tracked.folder / "open").mkdir(mode=0o750)
        empty = tracked.restored(made, "open")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (new, new / "mlflow" / "mlflow.db", empty)]
    assert modes == [0o700, 0o600, 0o750]


# --- retention


def dated(deployment: Deployment, created: datetime, content: bytes | None = None) -> str:
    """An archive as if it had been made at another time."""
    if content is not None:
        deployment.report("report", content)
    path = Path(deployment.create().archive)
    with pytest.MonkeyPatch.context() as patch:
        header = manifest.header_of(path.name, lambda: path.open("rb"))
        patch.setattr(making, "datetime", _At(created))
        made = deployment.create()
    assert header.created != created
    path.unlink()
    return made.archive


class _At:
    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self, _zone: object) -> datetime:
        return self._at


instants = st.datetimes(datetime(2024, 1, 1), datetime(2026, 12, 31)).map(lambda at: at.replace(tzinfo=UTC))


@given(
    st.lists(instants, max_size=40),
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)),
)
def test_the_rules_keep_the_newest_of_the_last_periods(
    found: list[datetime], numbers: tuple[int, int, int]
) -> None:
    rules = BackupConfig(keep_daily=numbers[0], keep_weekly=numbers[1], keep_monthly=numbers[2])
    kept = kept_by(rules, found)
    assert (max(found) in kept) if found else not kept
    expected = {max(found)} if found else set()
    for number, form in zip(numbers, ("%Y-%m-%d", "%G-%V", "%Y-%m"), strict=True):
        periods = sorted({at.strftime(form) for at in found}, reverse=True)[:number]
        expected |= {max(at for at in found if at.strftime(form) == period) for period in periods}
    assert kept == expected


def test_old_archives_go_and_their_objects_with_them(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREX_BACKUP__KEEP_DAILY", "2")
    monkeypatch.setenv("FOREX_BACKUP__KEEP_WEEKLY", "0")
    monkeypatch.setenv("FOREX_BACKUP__KEEP_MONTHLY", "0")
    start = datetime(2026, 11, 2, 8, tzinfo=UTC)
    made = [dated(deployment, start + timedelta(days=n), f"day {n}".encode()) for n in range(4)]
    dry = deployment.backups.prune(str(deployment.place), dry_run=True)
    assert (dry.removed, dry.objects) == (tuple(made[:2]), 2)
    assert (len(deployment.manifests()), len(deployment.objects())) == (4, 5)
    done = deployment.backups.prune(str(deployment.place))
    assert (done.kept, done.removed, done.damaged) == (tuple(made[2:]), tuple(made[:2]), {})
    assert (done.objects, done.bytes) == (2, dry.bytes)
    assert [str(path) for path in deployment.manifests()] == made[2:]
    for archive in made[2:]:
        deployment.backups.verify(archive)
    again = deployment.backups.prune(str(deployment.place))
    assert (again.removed, again.objects) == ((), 0)


def test_a_damaged_archive_takes_nobodys_place(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DAILY", "WEEKLY", "MONTHLY"):
        monkeypatch.setenv(f"FOREX_BACKUP__KEEP_{name}", "1" if name == "DAILY" else "0")
    start = datetime(2026, 11, 2, 8, tzinfo=UTC)
    made = [dated(deployment, start + timedelta(days=n), f"day {n}".encode()) for n in range(3)]
    victim = object_of(deployment, made[2], "reports/report")
    victim.write_bytes(victim.read_bytes()[:-1])
    done = deployment.backups.prune(str(deployment.place))
    assert list(done.damaged) == [made[2]]
    assert (done.kept, done.removed) == ((made[1],), (made[0],))
    deployment.backups.verify(made[1])
    victim.unlink()
    done = deployment.backups.prune(str(deployment.place))
    assert (done.kept, list(done.damaged)) == ((made[1],), [made[2]]), "it stays for someone to look into"


def test_the_last_good_archive_never_goes(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DAILY", "WEEKLY", "MONTHLY"):
        monkeypatch.setenv(f"FOREX_BACKUP__KEEP_{name}", "0")
    start = datetime(2026, 11, 2, 8, tzinfo=UTC)
    made = [dated(deployment, start + timedelta(days=n), f"day {n}".encode()) for n in range(3)]
    for archive in made[1:]:
        object_of(deployment, archive, "reports/report").unlink()
    done = deployment.backups.prune(str(deployment.place))
    assert (done.kept, done.removed) == ((made[0],), ())
    assert sorted(done.damaged) == made[1:]
    deployment.backups.verify(made[0])


def test_archives_of_another_folder_do_not_count(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DAILY", "WEEKLY", "MONTHLY"):
        monkeypatch.setenv(f"FOREX_BACKUP__KEEP_{name}", "1")
    deployment.report("report")
    mine = deployment.create()
    shutil.copytree(deployment.data, deployment.folder / "other")
    monkeypatch.setenv("FOREX_DATA_DIR", str(deployment.folder / "other"))
    other = deployment.create()
    assert other.bytes_new < 5000, "the content is there already"
    done = deployment.backups.prune(str(deployment.place))
    assert done.kept == (mine.archive, other.archive)
    assert [
        one.header.data_dir for one in deployment.backups.archives(str(deployment.place)) if one.header
    ] == [
        str(deployment.data),
        str(deployment.folder / "other"),
    ]


def test_an_archive_of_an_instant_to_come_takes_nobodys_place(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was years ahead once: it is not the latest until then, and pushes none out."""
    for name in ("DAILY", "WEEKLY", "MONTHLY"):
        monkeypatch.setenv(f"FOREX_BACKUP__KEEP_{name}", "1" if name == "DAILY" else "0")
    monkeypatch.setenv("FOREX_BACKUP__TO", str(deployment.place))
    ahead = dated(deployment, datetime.now(UTC) + timedelta(days=3000), b"ahead")
    with pytest.raises(BackupError, match="of an instant to come"):
        deployment.backups.verify("latest")
    (deployment.data / "reports" / "link").symlink_to("/etc/hostname")
    made = [dated(deployment, datetime(2026, 11, n, tzinfo=UTC), str(n).encode()) for n in (2, 3)]
    assert deployment.backups.verify("latest").archive == made[1]
    again = deployment.create()
    assert again.newly_missing == (), "compared with the one before it, not with the one to come"
    done = deployment.backups.prune()
    assert (done.kept, done.removed) == ((again.archive, ahead), tuple(made))


def test_no_object_goes_while_a_manifest_cannot_be_read(deployment: Deployment) -> None:
    deployment.report("report", b"one")
    made = deployment.create()
    deployment.report("report", b"two")
    Path(deployment.create().archive).unlink()  # its objects are named by nobody now
    path = Path(made.archive)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    count = len(deployment.objects())
    done = deployment.backups.prune(str(deployment.place))
    assert (done.objects, list(done.damaged)) == (0, [made.archive])
    assert len(deployment.objects()) == count
    path.write_bytes(content)
    assert deployment.backups.prune(str(deployment.place)).objects == 1


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (ReadTimeoutError(endpoint_url="https://s3"), "check the bucket"),
        (TimeoutError("timed out"), "look at its disk"),
        (PermissionError(EACCES, "Permission denied"), "belong to this user"),
    ],
    ids=["bucket", "disk", "rights"],
)
def test_a_place_that_does_not_answer_is_no_damage(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, fault: Exception, advice: str
) -> None:
    for name in ("DAILY", "WEEKLY", "MONTHLY"):
        monkeypatch.setenv(f"FOREX_BACKUP__KEEP_{name}", "1" if name == "DAILY" else "0")
    start = datetime(2026, 11, 2, 8, tzinfo=UTC)
    made = [dated(deployment, start + timedelta(days=n), f"day {n}".encode()) for n in range(3)]

    class Silent(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise fault

    with monkeypatch.context() as patch:  # a real one keeps silent for minutes before it is given up
        patch.setattr(Folder, "_open", lambda *_: Silent())
        with pytest.raises(BackupError, match=advice) as caught:
            deployment.backups.verify(made[-1])
        assert not isinstance(caught.value, ArchiveRefused)
        with pytest.raises(BackupError, match=advice):
            deployment.backups.prune(str(deployment.place))
    assert [str(path) for path in deployment.manifests()] == made
    done = deployment.backups.prune(str(deployment.place))
    assert (done.kept, done.damaged) == ((made[-1],), {})


def test_full_mends_objects_that_were_damaged(deployment: Deployment) -> None:
    deployment.report("report", b"content")
    made = deployment.create()
    for path in deployment.objects():
        path.write_bytes(b"damaged")
    with pytest.raises(ArchiveRefused):
        deployment.backups.verify(made.archive)
    deployment.create(full=True)
    deployment.backups.verify(made.archive)


def test_a_manifest_of_an_instant_without_a_zone_is_refused(deployment: Deployment) -> None:
    deployment.report("report")
    path = Path(deployment.create().archive)
    lines = pa.input_stream(str(path), compression="zstd").read().split(b"\n")
    header = json.loads(lines[0])
    header["created"] = header["created"].removesuffix("Z")
    lines[0] = json.dumps(header).encode()
    digest = hashlib.sha256(b"".join(line + b"\n" for line in lines[:-2])).hexdigest()
    lines[-2] = json.dumps({"sha256": digest}).encode()
    with pa.CompressedOutputStream(str(path), "zstd") as out:
        out.write(b"\n".join(lines))
    with pytest.raises(ArchiveRefused, match="created: Input should have timezone info"):
        deployment.backups.verify(str(path))
    good = deployment.create()
    done = deployment.backups.prune(str(deployment.place))
    assert (done.kept, list(done.damaged)) == ((good.archive,), [str(path)])


# --- locks, disks, databases


def test_one_writes_at_a_time(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment.report("report")
    made = deployment.create()
    with (deployment.place / ".lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        deployment.backups.verify(made.archive)
        with (
            pytest.raises(BackupError, match="another backup, restore or prune"),
            Folder(deployment.place).locked(shared=False, timeout_s=0.2),
        ):
            pass
    deployment.create()


def test_a_lock_on_nfs(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clients lock with fcntl, which locks a file exclusively that is open for writing alone: flock(2)."""
    monkeypatch.setattr("forex_core.backup.places.fcntl.flock", fcntl.lockf)  # no such disk is to be had here
    deployment.report("report")
    made = deployment.create()
    deployment.backups.verify(made.archive)
    assert deployment.backups.prune(str(deployment.place)).damaged == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="none but root can be another user")
def test_archives_of_somebody_else_can_be_read(deployment: Deployment) -> None:
    deployment.report("report")
    deployment.create()
    with TemporaryDirectory() as folder:  # which others may enter, unlike pytest's
        place = Path(folder) / "archives"
        shutil.copytree(deployment.place, place)
        Path(folder).chmod(0o755)
        (place / ".lock").chmod(0o644)
        try:
            os.seteuid(4242)
            with (
                Folder(place).locked(shared=True),
                pytest.raises(BackupError, match="another backup"),
                Folder(place).locked(shared=False, timeout_s=0.1),
            ):
                pass
        finally:
            os.seteuid(0)


@pytest.mark.parametrize("name", ["restored", "restored[1]"])
def test_what_a_killed_one_left_goes_with_the_next(deployment: Deployment, name: str) -> None:
    deployment.report("report")
    (deployment.place / ".scratch-killed").mkdir(parents=True)
    (deployment.place / ".scratch-killed" / "x").write_bytes(b"x")
    left = deployment.folder / f".{name}.restoring-1-1"
    left.mkdir()
    (left / ".unfinished").write_text("")
    before = deployment.folder / f".{name}.restoring-2-2"  # was exchanged, and killed before it got its name
    before.mkdir()
    (before / "mine").write_text("")
    deployment.restored(deployment.create(), name)
    assert not (deployment.place / ".scratch-killed").exists()
    assert not left.exists()
    assert before.exists()


def test_a_full_disk_under_the_archives(deployment: Deployment, small_disk: Callable[..., Path]) -> None:
    place = small_disk("4m")
    deployment.report("report")
    made = deployment.backups.create(str(place))
    deployment.report("large", os.urandom(8_000_000))
    for n in range(20):
        deployment.report(f"small{n}", os.urandom(50_000))
    before = tree(place)
    with pytest.raises(BackupError, match=r"could not be made: .*No space left .*; make room"):
        deployment.backups.create(str(place))
    assert tree(place) == before, "nothing fills the disk for nothing"
    deployment.backups.verify(made.archive)
    (deployment.data / "reports" / "large").unlink()
    deployment.backups.create(str(place))


def test_a_full_disk_under_the_copy_of_a_database(
    tracked: Deployment, small_disk: Callable[..., Path]
) -> None:
    tracked.run()
    place = small_disk("300k")  # which the copy is larger than
    with pytest.raises(BackupError, match=r"mlflow.db could not be copied .*disk is full.*; make room where"):
        tracked.backups.create(str(place))
    assert [path for path in place.rglob("*") if path.is_file()] == [place / ".lock"]
    subprocess.run(["mount", "-o", "remount,size=20m", str(place)], check=True)
    tracked.backups.verify(tracked.backups.create(str(place)).archive)


def test_a_full_disk_under_the_target(deployment: Deployment, small_disk: Callable[..., Path]) -> None:
    deployment.report("large", os.urandom(3_000_000))
    for n in range(40):
        deployment.report(f"small{n}", b"x")
    made = deployment.create()
    disk = small_disk("2m")
    with pytest.raises(InputError, match="MB free; make room"):
        deployment.backups.restore(made.archive, disk / "target")
    few_inodes = small_disk("20m", 30)
    with pytest.raises(BackupError, match=r"could not be restored: .*No space left .*; make room"):
        deployment.backups.restore(made.archive, few_inodes / "target")
    assert list(few_inodes.iterdir()) == []
    deployment.backups.verify(made.archive)


@pytest.mark.parametrize("lacking", ["room", "inodes"])
def test_a_full_disk_under_what_is_replaced(
    lacking: str,
    small_disk: Callable[..., Path],
    migrated_sqlite: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The live data stay as they were, and nothing is left on the disk that would keep it full."""
    disk = small_disk("8m", *([120] if lacking == "inodes" else []))
    monkeypatch.setenv("FOREX_DATA_DIR", str(disk / "data"))
    deployment = Deployment(disk)
    deployment.place = tmp_path / "archives"
    (deployment.data / "mlflow").mkdir()
    shutil.copyfile(migrated_sqlite, deployment.data / "mlflow" / "mlflow.db")
    deployment.run()
    for n in range(60):
        deployment.report(f"small{n}", b"then")  # each takes a block
    made = deployment.create()
    deployment.report("small0", b"now")
    deployment.run("since")
    release(load_settings().mlflow_uri)
    if lacking == "room":
        # What the archive's bytes need, and not what the blocks of so many files do.
        usage = shutil.disk_usage(disk)
        (disk / "filler").write_bytes(bytes(usage.free - int(made.bytes * 1.05) - 8192))
    before, beside = tree(disk), sorted(path.name for path in disk.iterdir())
    with pytest.raises(BackupError, match=r"could not be restored: .*No space left .*; make room"):
        deployment.backups.restore(made.archive)
    assert tree(disk) == before
    assert sorted(path.name for path in disk.iterdir()) == beside
    client = open_store(load_settings().mlflow_uri, below=deployment.data)
    assert len(client.search_runs(["1"])) == 2
    release(load_settings().mlflow_uri)
    deployment.backups.verify(made.archive)

    (disk / "filler").unlink(missing_ok=True)
    if lacking == "inodes":
        subprocess.run(["mount", "-o", "remount,nr_inodes=10000", str(disk)], check=True)
    done = deployment.backups.restore(made.archive)
    assert done.counts["runs"] == 1
    assert (deployment.data / "reports" / "small0").read_bytes() == b"then"


def test_a_locked_database_is_waited_for_and_then_said(
    tracked: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked.run()
    release(load_settings().mlflow_uri)
    made = tracked.create()
    database = tracked.data / "mlflow" / "mlflow.db"
    with held(database, 2) as holder:
        started = time.monotonic()
        assert tracked.create().counts["runs"] == 1
        assert time.monotonic() - started > 1.5
        holder.wait()
    monkeypatch.setattr(databases, "COPY_BUSY_S", 0.3)
    with held(database, 60) as holder:
        with pytest.raises(BackupError, match=r"mlflow.db could not be copied .*database is locked"):
            tracked.create()
        holder.kill()
    assert str(tracked.manifests()[0]) == made.archive
    tracked.backups.verify(made.archive)


def test_a_damaged_database_is_said_and_the_archives_stay(tracked: Deployment) -> None:
    for n in range(20):
        tracked.run(f"run {n}")
    release(load_settings().mlflow_uri)
    made = tracked.create()
    path = tracked.data / "mlflow" / "mlflow.db"
    damage(path)
    objects = tracked.objects()
    with pytest.raises(BackupError, match=r"mlflow.db could not be copied.*(restore an archive|verify)"):
        tracked.create()
    assert tracked.objects() == objects
    done = tracked.backups.restore(made.archive)
    assert done.counts["runs"] == 20
    assert open_store(load_settings().mlflow_uri).search_runs(["1"])


def test_a_file_that_changes_while_it_is_read(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is kept of it, the archive verifies, and the next one has the file as it is."""
    path = deployment.report("log", b"0" * 100_000)
    write = Folder.write

    def growing(place: Folder, file: Path) -> Any:
        if file == path:
            with path.open("ab") as more:
                more.write(b"1" * 1000)
        return write(place, file)

    monkeypatch.setattr(Folder, "write", growing)
    made = deployment.create()
    monkeypatch.undo()
    monkeypatch.setenv("FOREX_DATA_DIR", str(deployment.data))
    deployment.backups.verify(made.archive)
    (entry,) = [e for e in entries_of(made) if e.path == "reports/log"]
    assert entry.state is None
    assert (deployment.restored(deployment.create()) / "reports" / "log").read_bytes() == path.read_bytes()


def test_a_file_that_goes_while_it_is_read_is_not_in_it(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.report("stays")
    path = deployment.report("goes")
    items = making.FolderSource.items

    def going(source: Any) -> Iterator[Any]:
        for item in items(source):
            path.unlink(missing_ok=True)
            yield item

    monkeypatch.setattr(making.FolderSource, "items", going)
    made = deployment.create()
    assert [e.path for e in entries_of(made)] == ["settings.json", "reports/stays"]
    assert made.missing == ()


def test_a_folder_that_goes_while_it_is_listed(deployment: Deployment) -> None:
    deployment.report("stays")
    going = deployment.data / "reports" / "going"
    going.mkdir()
    scandir = os.scandir

    def listed(folder: Any) -> Any:
        found = scandir(folder)
        if folder == going:
            going.rmdir()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forex_core.backup.sources.os.scandir", listed)
        made = deployment.create()
    assert not going.exists()
    assert [e.path for e in entries_of(made)] == ["settings.json", "reports/stays"]


@pytest.mark.parametrize("where", ["reports/archives", "spool", "mlflow/mlruns/archives", "a link"])
def test_archives_do_not_lie_in_what_they_hold(tracked: Deployment, where: str) -> None:
    tracked.run()
    (tracked.data / "a link").symlink_to("reports")
    with pytest.raises(InputError, match="which is archived itself"):
        tracked.backups.create(str(tracked.data / where))
    assert list(tracked.data.rglob("*.zst")) == []


def test_of_many_missing_files_those_that_are_new_are_told(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*numbers: int) -> None:
        for number in numbers:
            (deployment.data / "reports" / f"{number:04d}").symlink_to("/nowhere")

    def back(number: int) -> None:
        (deployment.data / "reports" / f"{number:04d}").unlink()

    def told(*numbers: int) -> tuple[str, ...]:
        return tuple(f"{number:04d}: it is a link or no file" for number in numbers)

    deployment.report("report")
    gone(*range(300))
    assert deployment.create().newly_missing == told(*range(300))
    back(0)
    assert deployment.create().newly_missing == ()
    gone(500)
    assert deployment.create().newly_missing == told(500)
    back(200)
    gone(600)
    made = deployment.create()
    assert made.newly_missing == told(600)
    assert made.missing == told(*range(1, 200), *range(201, 300), 500, 600)

    monkeypatch.setattr(making, "_TOLD_BYTES", 40 * (len(json.dumps(told(1)[0])) + 1))
    made = deployment.create()
    assert made.missing == told(*range(1, 41))
    assert made.newly_missing == ()
    assert deployment.create().newly_missing == ()
    back(3)
    assert deployment.create().newly_missing == ()
    gone(3, 700)
    assert deployment.create().newly_missing == (*told(3), "1 more")
    header = deployment.backups.verify(deployment.create().archive).header
    assert len(header.missing) + header.missing_more == 301


@pytest.mark.slow
def test_a_database_that_is_locked_for_half_a_minute_is_archived(tracked: Deployment) -> None:
    tracked.run()
    release(load_settings().mlflow_uri)
    with held(tracked.data / "mlflow" / "mlflow.db", 30) as holder:
        started = time.monotonic()
        made = tracked.create()
        assert time.monotonic() - started > 29
        holder.wait()
    assert tracked.backups.verify(made.archive).header.counts["runs"] == 1


@pytest.mark.slow
def test_an_archive_of_an_older_mlflow_is_brought_to_the_schema_of_now(deployment: Deployment) -> None:
    path = deployment.data / "mlflow" / "mlflow.db"
    path.parent.mkdir()
    older_store(path)
    made = deployment.create()
    there = deployment.restored(made)
    run = open_store(f"sqlite:///{there / 'mlflow' / 'mlflow.db'}", below=there).get_run("a" * 32)
    assert run.info.artifact_uri.startswith((there / "mlflow" / "mlruns").as_uri())
    release(f"sqlite:///{there / 'mlflow' / 'mlflow.db'}")
