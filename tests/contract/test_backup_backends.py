"""Archives of every back end, restored into every other: SQLite and files, PostgreSQL and an S3-compatible bucket."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forex_core import databases
from forex_core.backup import Backups, places
from forex_core.backup.sources import BucketSource, Item
from forex_core.config import load_settings
from forex_core.data.loading import store_of
from forex_core.data.observations import Observations
from forex_core.databases import postgres
from forex_core.errors import ArchiveRefused, BackupError, DatabaseError
from forex_core.ledger import Alarm, Ledger
from forex_core.tracking import ArchivedStore, open_store, registry_from_settings, tracker_from_settings
from forex_core.tracking.build import connect
from forex_core.tracking.store import release
from forex_core.types import Event, Headline, Horizon
from tests.ledgers import USDCLP, entry

NOW = pd.Timestamp("2026-03-02 12:00:00.5", tz="UTC")
LATER = pd.Timestamp("2027-01-01", tz="UTC")


@dataclass
class Side:
    """A deployment on one pair of back ends; `enter` makes the settings those of it."""

    data: Path
    environment: dict[str, str] = field(default_factory=dict)
    remote: bool = False

    def enter(self, patch: pytest.MonkeyPatch) -> Backups:
        for name in list(os.environ):
            if name.startswith(("FOREX_", "MLFLOW_")):
                patch.delenv(name)
        for name, value in {"FOREX_DATA_DIR": str(self.data), **self.environment}.items():
            patch.setenv(name, value)
        connect(load_settings())
        return Backups(load_settings(), ArchivedStore())


@pytest.fixture
def side(request: pytest.FixtureRequest, tmp_path: Path, migrated_sqlite: Path) -> Callable[[str, str], Side]:
    """`side(kind, name)` is a deployment of kind 'local' or 'remote', with a migrated store."""

    def made(kind: str, name: str) -> Side:
        data = tmp_path / name
        if kind == "local":
            (data / "mlflow").mkdir(parents=True)
            shutil.copyfile(migrated_sqlite, data / "mlflow" / "mlflow.db")
            return Side(data)
        new_postgres = request.getfixturevalue("new_postgres")
        uri = new_postgres(request.getfixturevalue("migrated_postgres"))
        bucket = request.getfixturevalue("s3_bucket")
        # Runs and observations share a database here, as they may.
        places = {
            "FOREX_TRACKING_URI": uri,
            "FOREX_DATA__STORE_URL": uri,
            "FOREX_ARTIFACT_URI": f"s3://{bucket.name}/{name}/mlruns",
        }
        return Side(data, places | bucket.settings, remote=True)

    return made


def fill(files: Path) -> dict[str, Any]:
    """Runs, files, a registered model and observations in the deployment of the settings; what was written."""
    settings = load_settings()
    files.mkdir(exist_ok=True)
    (files / "MLmodel").write_text("flavors: {}\n")
    (files / "ñ report.html").write_bytes(b"<html>" * 500)
    runs = []
    for number in range(3):
        with tracker_from_settings(settings, "forecaster_7d", tags={"n": str(number)}) as tracker:
            tracker.log_params({"deep": {"param": number}})
            tracker.log_metrics({"7d_rmse": 1.5 + number, "nan": float("nan"), "inf": float("inf")})
            tracker.log_artifact(files / "ñ report.html", "reports")
            address = tracker.log_model(files, "model")
        runs.append(str(tracker.run_id))
    registry_from_settings(settings).register_model("usdclp-7d", str(address), run_id=runs[-1])
    observe("2026-01-05", 900.25)
    observe("2026-01-05", 901.5, days=1)
    store = store_of(settings)
    store.record_news([Headline(NOW, "A title", "press", "https://x/1")], source="press", now=NOW)
    store.record_events(
        [Event(NOW + pd.Timedelta(days=3), "Rates", "USD", "high")], source="calendar", now=NOW
    )
    ledger = Ledger(settings.store_url, settings.root)
    ledger.append(entry(date(2026, 3, 2), lean=0.001))
    ledger.record(USDCLP, "close", [date(2026, 3, 3)], np.array([951.25]), [NOW], now=NOW)
    ledger.score()
    ledger.raise_alarm(
        USDCLP, "close", Horizon(7), Alarm("no skill", 5, date(2026, 3, 2), 3.0, 2.0, "a test"), NOW
    )
    return {"runs": runs} | known(runs)


def observe(day: str, value: float, days: int = 0) -> None:
    dates = pd.DatetimeIndex([day]).as_unit("us")
    at = (dates + pd.Timedelta(hours=22)).tz_localize("UTC")
    one = Observations("copper", "best", dates, pd.Series([value]).to_numpy(), at)
    store_of(load_settings()).record(one, rank=lambda *_: 0, now=NOW + pd.Timedelta(days=days))


def known(runs: list[str]) -> dict[str, Any]:
    """What the deployment of the settings says of all of it."""
    settings = load_settings()
    client = open_store(settings.mlflow_uri, settings.mlflow_artifacts, settings.root)
    found = [client.get_run(run) for run in runs]
    version = client.get_model_version("usdclp-7d", "1")
    scratch = settings.root.parent / "fetched"
    scratch.mkdir(exist_ok=True)
    store = store_of(settings)
    prints = store.read(("copper",), LATER, {"copper": 15})["copper"]
    ledger = Ledger(settings.store_url, settings.root)
    return {
        "data": [
            (run.data.params, str(run.data.metrics), run.data.tags, run.info.start_time) for run in found
        ],
        "files": [
            Path(client.download_artifacts(run, "reports/ñ report.html", str(scratch))).read_bytes()
            for run in runs
        ],
        "version": (version.run_id, version.status, version.creation_timestamp),
        "prints": (list(prints.dates), list(prints.values), list(prints.known_at), list(prints.sources)),
        "news": store.news(LATER, NOW - timedelta(days=9)),
        "events": store.events(LATER, NOW, LATER),
        "ledger": (
            ledger.verify(),
            ledger.publications(),
            ledger.alarms(),
            ledger.path(1).outcomes.tolist()[:1],
        ),
    }


KINDS = ("local", "remote")


@pytest.mark.slow
@pytest.mark.parametrize("after", KINDS)
@pytest.mark.parametrize("before", KINDS)
def test_an_archive_of_any_back_end_is_restored_into_any(
    before: str, after: str, side: Callable[[str, str], Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = side(before, "source"), side(after, "target")
    backups = source.enter(monkeypatch)
    expected = fill(tmp_path / "files")
    made = backups.create(str(tmp_path / "archives"))
    kind = "postgresql" if source.remote else "sqlite"
    header = backups.verify(made.archive).header
    assert header.databases == {"databases/mlflow.db": kind, "databases/store.db": kind}
    assert made.missing == ()
    expected_counts = {
        "runs": 3,
        "models": 1,
        "versions": 1,
        "observations": 2,
        "forecasts": 1,
        "artifacts": 9,
    }
    assert {name: made.counts[name] for name in expected_counts} == expected_counts
    again = backups.create(str(tmp_path / "archives"))
    assert again.bytes_new < 2_000_000, "databases alone"
    assert backups.create(str(tmp_path / "archives"), full=True).bytes_new > again.bytes_new
    release(load_settings().mlflow_uri)

    backups = target.enter(monkeypatch)
    target.data.mkdir(exist_ok=True)
    with tracker_from_settings(load_settings(), "forecaster_7d") as tracker:
        tracker.log_params({"here": "before"})
    observe("2026-01-06", 1.0)
    release(load_settings().mlflow_uri)
    done = backups.restore(made.archive)
    assert len(done.before) == (3 if target.remote else 1)
    assert known(expected["runs"]) == {name: value for name, value in expected.items() if name != "runs"}
    client = open_store(load_settings().mlflow_uri, below=load_settings().root)
    assert str(tracker.run_id) not in {run.info.run_id for run in client.search_runs(["1"])}
    # And it goes on from there.
    observe("2026-01-07", 2.0, days=9)
    assert len(store_of(load_settings()).values("copper", LATER)) == 2
    with tracker_from_settings(load_settings(), "forecaster_7d") as tracker:
        tracker.log_metrics({"7d_rmse": 2.0})
    client.create_experiment("another")
    release(load_settings().mlflow_uri)
    if target.remote:
        (folder, runs, observations) = done.before
        assert runs.startswith("schema before_restore_")
        with postgres(target.environment["FOREX_TRACKING_URI"]) as database:
            schema = runs.split()[1]
            kept = database.execute(f'SELECT count(*) FROM "{schema}".runs').fetchone()  # type: ignore[arg-type]
            assert kept == (1,)
            schema = observations.split()[1]
            kept = database.execute(f'SELECT count(*) FROM "{schema}".observations').fetchone()  # type: ignore[arg-type]
            assert kept == (1,)
        assert Path(folder).is_dir()


@pytest.mark.parametrize("before", KINDS)
def test_into_a_folder_it_is_sqlite_and_files(
    before: str, side: Callable[[str, str], Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = side(before, "source")
    backups = source.enter(monkeypatch)
    expected = fill(tmp_path / "files")
    made = backups.create(str(tmp_path / "archives"))
    release(load_settings().mlflow_uri)
    backups.restore(made.archive, tmp_path / "restored")
    Side(tmp_path / "restored").enter(monkeypatch)
    assert known(expected.pop("runs")) == expected
    release(load_settings().mlflow_uri)


def test_archives_in_a_bucket(
    side: Callable[[str, str], Side], s3_bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = side("local", "source")
    source.environment |= {
        "FOREX_BACKUP__TO": f"s3://{s3_bucket.name}/backups",
        "FOREX_BACKUP__S3_ENDPOINT_URL": s3_bucket.settings["MLFLOW_S3_ENDPOINT_URL"],
        "FOREX_BACKUP__S3_ACCESS_KEY_ID": "me",
        "FOREX_BACKUP__S3_SECRET_ACCESS_KEY": "very-hidden",
        "FOREX_BACKUP__KEEP_DAILY": "1",
        "FOREX_BACKUP__KEEP_WEEKLY": "0",
        "FOREX_BACKUP__KEEP_MONTHLY": "0",
    }
    backups = source.enter(monkeypatch)
    expected = fill(tmp_path / "files")
    made = backups.create()
    assert made.archive.startswith(f"s3://{s3_bucket.name}/backups/forex-")
    assert backups.verify(made.archive).header.counts == made.counts
    report = source.data / "reports" / "report.html"
    report.parent.mkdir()
    report.write_bytes(b"new")
    second = backups.create()
    assert second.bytes_new < made.bytes
    assert [one.address for one in backups.archives()] == [made.archive, second.archive]

    monkeypatch.setattr(places, "GRACE", timedelta(days=-1))
    done = backups.prune()
    assert (done.kept, done.removed, done.damaged) == ((second.archive,), (made.archive,), {})
    backups.verify("latest")
    backups.restore("latest", tmp_path / "restored")
    assert (tmp_path / "restored" / "reports" / "report.html").read_bytes() == b"new"
    Side(tmp_path / "restored").enter(monkeypatch)
    assert known(expected.pop("runs")) == expected
    release(load_settings().mlflow_uri)

    backups = source.enter(monkeypatch)
    listed = s3_bucket.client.list_objects_v2(Bucket=s3_bucket.name, Prefix="backups/objects/")["Contents"]
    s3_bucket.client.delete_object(Bucket=s3_bucket.name, Key=listed[0]["Key"])
    with pytest.raises(ArchiveRefused, match="is not there"):
        backups.verify("latest")
    victim = listed[1]["Key"]
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=victim, Body=b"junk")
    with pytest.raises(ArchiveRefused):
        backups.restore("latest", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_files_of_a_bucket_go_through_the_place_of_the_archives(
    side: Callable[[str, str], Side],
    s3_bucket: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    small_disk: Callable[..., Path],
) -> None:
    """And not through /tmp, which may be a few megabytes of memory."""
    source = side("local", "source")
    source.environment |= {"FOREX_ARTIFACT_URI": f"s3://{s3_bucket.name}/runs"} | s3_bucket.settings
    backups = source.enter(monkeypatch)
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key="runs/0/large", Body=os.urandom(6_000_000))
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk("4m")))
    made = backups.create(str(tmp_path / "archives"))
    backups.verify(made.archive)
    assert made.counts["artifacts"] == 1


def test_an_object_that_no_manifest_names_yet_stays_in_a_bucket(
    side: Callable[[str, str], Side], s3_bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may be of an archive that another machine is making."""
    source = side("local", "source")
    source.environment |= {"FOREX_BACKUP__TO": f"s3://{s3_bucket.name}/b"} | s3_bucket.settings
    backups = source.enter(monkeypatch)
    made = backups.create()
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=f"b/objects/ab/{'ab' * 32}", Body=b"x")
    assert backups.prune().objects == 0
    monkeypatch.setattr(places, "GRACE", timedelta(days=-1))
    assert backups.prune().objects == 1
    backups.verify(made.archive)


def test_a_bucket_out_of_reach(
    side: Callable[[str, str], Side], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = side("local", "source")
    source.environment |= {
        "FOREX_BACKUP__TO": "s3://bucket/b",
        "FOREX_BACKUP__S3_ENDPOINT_URL": "http://127.0.0.1:1",
        "FOREX_BACKUP__S3_ACCESS_KEY_ID": "me",
        "FOREX_BACKUP__S3_SECRET_ACCESS_KEY": "very-hidden",
    }
    backups = source.enter(monkeypatch)
    with pytest.raises(BackupError, match="check the bucket, its endpoint and its keys"):
        backups.create()
    with pytest.raises(BackupError, match="check the bucket"):
        backups.archives()


def test_a_database_out_of_reach(
    side: Callable[[str, str], Side], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = side("local", "source")
    source.environment["FOREX_DATA__STORE_URL"] = "postgresql://me:very-hidden@127.0.0.1:1/x"
    with pytest.raises(BackupError, match="could not be copied") as caught:
        source.enter(monkeypatch).create(str(tmp_path / "archives"))
    assert "very-hidden" not in str(caught.value)


def runs_in(uri: str) -> int:
    with postgres(uri) as database:
        (found,) = database.execute("SELECT count(*) FROM runs").fetchone() or (0,)
    return int(found)


@pytest.fixture
def remote(side: Callable[[str, str], Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Side:
    """A deployment on PostgreSQL and a bucket with an archive, and three more runs since; the settings are its own."""
    there = side("remote", "there")
    backups = there.enter(monkeypatch)
    fill(tmp_path / "files")
    (there.data / "reports").mkdir(parents=True)
    (there.data / "reports" / "report").write_text("then")
    backups.create(str(tmp_path / "archives"))
    (there.data / "reports" / "report").write_text("now")
    monkeypatch.setenv("FOREX_BACKUP__TO", str(tmp_path / "archives"))
    for _ in range(3):
        with tracker_from_settings(load_settings(), "forecaster_7d"):
            pass
    release(load_settings().mlflow_uri)
    return there


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["upload", "load"])
def test_who_opens_the_folder_meanwhile_is_told_what_was_replaced(remote: Side, moment: str) -> None:
    """Between the first look at it and the switch, which has not come then; rows are replaced before it."""
    backups, uri = Backups(load_settings(), ArchivedStore()), load_settings().mlflow_uri
    users: list[subprocess.Popen[bytes]] = []

    def opened(stage: str, _done: int, _total: int) -> None:
        if stage == moment and not users:
            code = "import sys; f = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
            path = str(remote.data / "reports" / "report")
            users.append(
                subprocess.Popen(
                    [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
            assert users[0].stdout is not None
            users[0].stdout.readline()

    try:
        with pytest.raises(BackupError, match=f"{remote.data} is in use by a process") as caught:
            backups.restore("latest", advance=opened)
    finally:
        for user in users:
            user.communicate()
    assert runs_in(uri) == 3
    said = str(caught.value)
    assert "Nothing was changed" not in said
    schemas = re.findall(r"schema (before_restore_\w+)", said)
    assert len(schemas) == 2
    with postgres(uri) as database:
        kept = database.execute(f'SELECT count(*) FROM "{schemas[0]}".runs').fetchone()  # type: ignore[arg-type]
    assert kept == (6,)
    assert f"files were put into {load_settings().mlflow_artifacts}" in said
    assert (remote.data / "reports" / "report").read_text() == "now"
    backups.restore("latest")
    assert (remote.data / "reports" / "report").read_text() == "then"


@pytest.mark.slow
def test_objects_that_a_restore_changes_are_kept_beside(
    remote: Side, s3_bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the stamp that the folder and the schemas have; those that it does not change are in one place alone."""
    client, below = s3_bucket.client, "there/mlruns/forecaster_7d/large"

    def objects(prefix: str) -> dict[str, bytes]:
        listed = client.list_objects_v2(Bucket=s3_bucket.name, Prefix=prefix).get("Contents", ())
        keys = [one["Key"] for one in listed]
        return {key: client.get_object(Bucket=s3_bucket.name, Key=key)["Body"].read() for key in keys}

    (tmp_path / "large").write_bytes(random.Random(1).randbytes(9_000_000))
    client.upload_file(str(tmp_path / "large"), s3_bucket.name, below)
    backups = Backups(load_settings(), ArchivedStore())
    backups.create()
    then = objects("there/mlruns/")
    changed = next(key for key in then if key.endswith("report.html"))
    client.put_object(Bucket=s3_bucket.name, Key=changed, Body=b"now")
    client.put_object(Bucket=s3_bucket.name, Key="there/mlruns/since", Body=b"since")
    done = backups.restore("latest")
    folder, kept, *schemas = done.before
    stamp = folder.rpartition("-")[2].lower()
    assert kept == f"objects below s3://{s3_bucket.name}/there/before_restore_{stamp}/mlruns/"
    assert all(f"before_restore_{stamp}_" in schema for schema in schemas)
    aside = f"there/before_restore_{stamp}/mlruns/"
    assert objects("there/before_restore_") == {aside + changed.removeprefix("there/mlruns/"): b"now"}
    assert objects("there/mlruns/") == then | {"there/mlruns/since": b"since"}
    assert len(backups.restore("latest").before) == 3, "nothing is changed, so no object is kept"


def test_what_is_kept_in_a_whole_bucket_is_in_no_archive(s3_bucket: Any, tmp_path: Path) -> None:
    source = BucketSource(f"s3://{s3_bucket.name}", s3_bucket.client, lambda *_: None)
    for content, is_another in ((b"", False), (b"one", True), (b"one", False), (b"other", True)):
        (tmp_path / "file").write_bytes(content)
        assert source.put("0/file", tmp_path / "file", "before_restore_1") is is_another
    kept = s3_bucket.client.get_object(Bucket=s3_bucket.name, Key="before_restore_1/0/file")
    assert kept["Body"].read() == b"one"
    assert [item.path for item in source.items()] == ["0/file"]


def test_an_object_is_read_by_one_request_and_its_answer_tells_what_it_was(s3_bucket: Any) -> None:
    source, asked = BucketSource(f"s3://{s3_bucket.name}", s3_bucket.client, lambda *_: None), []
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key="0/file", Body=b"one")
    (item,) = source.items()
    s3_bucket.client.meta.events.register("before-send", lambda request, **_: asked.append(request.method))
    with source.local(item) as local:
        assert local.path.read_bytes() == b"one"
        assert local.read() == item
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key="0/file", Body=b"other")
    with source.local(item) as local:
        assert local.path.read_bytes() == b"other"
        now = local.read()
    assert now is not None
    assert now.state != item.state
    assert asked == ["GET", "PUT", "GET"]
    s3_bucket.client.delete_object(Bucket=s3_bucket.name, Key="0/file")
    with pytest.raises(FileNotFoundError), source.local(item):
        pass


def test_a_body_that_breaks_off_is_fetched_again() -> None:
    import boto3
    from botocore.exceptions import IncompleteReadError

    breaks = [3, 1]

    class Bucket(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.send_header("ETag", '"e"')
            self.send_header("Last-Modified", "Sat, 28 Nov 2026 10:00:00 GMT")
            self.end_headers()
            self.wfile.write(b"whole"[: breaks.pop(0) if breaks else 5])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server.server_port}", **keys)
        source, item = BucketSource("s3://bucket", client, lambda *_: None), Item("file", 5, 0o644, 0)
        with source.local(item) as local:
            assert local.path.read_bytes() == b"whole"
        breaks += [2] * 9
        with pytest.raises(IncompleteReadError), source.local(item):
            pass
        assert len(breaks) == 4
        client.close()
        server.shutdown()


@pytest.mark.slow
def test_what_hinders_the_switch_is_found_before_a_row_is_replaced(
    remote: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups, uri = Backups(load_settings(), ArchivedStore()), load_settings().mlflow_uri
    (remote.data / "backups").mkdir()
    (remote.data / "backups" / "mine").write_text("mine")

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", refused)  # no disk can be made to fail here
    with pytest.raises(BackupError, match="Input/output error") as caught:
        backups.restore("latest")
    assert "Replaced" not in str(caught.value)
    assert runs_in(uri) == 6


@pytest.mark.slow
def test_a_transaction_that_holds_the_tables_is_named_and_holds_nobody_else(
    remote: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "LOAD_BUSY_S", 1.0)
    backups, uri = Backups(load_settings(), ArchivedStore()), load_settings().mlflow_uri
    with postgres(uri, autocommit=False) as idle:
        assert idle.execute("SELECT count(*) FROM runs").fetchone() == (6,)
        started = time.monotonic()
        with pytest.raises(
            BackupError, match=rf"held for more than 1 s by .*{idle.info.backend_pid} \(.*idle in tr"
        ) as caught:
            backups.restore("latest")
        assert time.monotonic() - started < 60
        assert "very-hidden" not in str(caught.value)
        assert runs_in(uri) == 6
    backups.restore("latest")
    assert runs_in(uri) == 3


def test_a_user_who_may_make_no_schema_is_told_the_grant_before_anything(
    remote: Side, s3_bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.engine import make_url

    uri = load_settings().mlflow_uri
    with postgres(uri) as database:
        (name,) = database.execute("SELECT current_database()").fetchone() or ("",)
        database.execute("CREATE ROLE lowly LOGIN")
        database.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO lowly")
        try:
            lowly = make_url(uri).set(username="lowly").render_as_string(hide_password=False)
            monkeypatch.setenv("FOREX_TRACKING_URI", lowly)
            staged = []
            with pytest.raises(DatabaseError, match=f'GRANT CREATE ON DATABASE "{name}" TO "lowly"'):
                Backups(load_settings(), ArchivedStore()).restore(
                    "latest", advance=lambda stage, *_: staged.append(stage)
                )
            assert staged == [], "nothing was written"
        finally:
            database.execute("DROP OWNED BY lowly")
            database.execute("DROP ROLE lowly")


@pytest.mark.slow
def test_an_object_that_is_stored_again_while_others_prune_stays(
    side: Callable[[str, str], Side], s3_bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody named it and it was old when the bucket was listed; the archive of another machine names it since."""
    place = f"s3://{s3_bucket.name}/shared"
    mine, other = side("local", "mine"), side("local", "other")
    for one in (mine, other):
        one.environment |= {"FOREX_BACKUP__TO": place} | s3_bucket.settings
        (one.data / "reports").mkdir()
        (one.data / "reports" / "report").write_bytes(b"the same" * 100)
    (mine.data / "reports" / "goes").write_bytes(b"nobody's")
    theirs = other.enter(monkeypatch)
    backups = mine.enter(monkeypatch)
    name = backups.create().archive.rpartition("/")[2]
    s3_bucket.client.delete_object(Bucket=s3_bucket.name, Key=f"shared/{name}")
    (mine.data / "reports" / "goes").unlink()
    (mine.data / "reports" / "report").write_bytes(b"another")
    kept = backups.create()
    monkeypatch.setattr(places, "GRACE", timedelta(seconds=3))
    time.sleep(4.5)  # instants of a bucket are whole seconds
    then = datetime.now(UTC)

    class Standing(datetime):
        """A clock that stands: what is stored from here on is young, however long the pruning takes."""

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return then

    monkeypatch.setattr(places, "datetime", Standing)
    discard, made = places.Bucket.discard, list[Any]()

    def between(bucket: places.Bucket, digests: list[str]) -> list[str]:
        assert digests
        made.append(theirs.create())
        return discard(bucket, digests)

    monkeypatch.setattr(places.Bucket, "discard", between)
    done = backups.prune()
    backups.verify(made[0].archive)
    backups.verify(kept.archive)
    assert done.objects == 1, "the one that nobody stored again"


def test_an_object_below_another_is_told_and_the_rest_restored(
    side: Callable[[str, str], Side], s3_bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket holds both; no folder can."""
    there = side("remote", "there")
    backups = there.enter(monkeypatch)
    fill(tmp_path / "files")
    for name in ("a", "a-b", "a-b/c", "a/b", "a/b/c", "ab/c"):
        s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=f"there/mlruns/{name}", Body=name.encode())
    made = backups.create(str(tmp_path / "archives"))
    assert set(made.missing) == {
        f"{name}: a part of its path is an object too" for name in ("a-b/c", "a/b", "a/b/c")
    }
    root = backups.restore(made.archive, tmp_path / "restored").folder / "mlflow" / "mlruns"
    assert [(root / name).read_text() for name in ("a", "a-b", "ab/c")] == ["a", "a-b", "ab/c"]
