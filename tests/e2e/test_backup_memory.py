"""What archives take of memory: as much for a large data folder as for a small one, and never what a file is long."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forex_core.config import load_settings
from forex_core.databases import postgres
from forex_core.specification import Specification
from forex_core.tracking import MLflowTracker, model_name, registry_from_settings, tracker_from_settings
from forex_core.tracking.build import connect
from forex_core.tracking.packaging import MODEL_FILES
from forex_core.tracking.store import release
from forex_core.types import LEVELS, PATH_STEPS, Horizon, Pair, State

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RUNS = (50, 500)
FILES, FILE_BYTES = 8, 10_000
LARGE_BYTES, PIECE = 400_000_000, 4_000_000
LIMIT_MB, GROWTH_MB = 300.0, 20.0
THREADS, CARRIED_BYTES = 16, 20_000_000
REMOTE_LIMIT_MB, REMOTE_GROWTH_MB = 300.0, 30.0
"""MLflow, the driver of PostgreSQL and the client of buckets take 260 MB before there is anything to carry."""
CHAMPION = Specification(
    pair=Pair("USD", "CLP"),
    rate="close",
    horizon=Horizon(7),
    recipe="a",
    engine_settings={},
    chronos_settings={},
    state=State(date(2026, 11, 20), {"random_walk": 1.0}, np.ones((PATH_STEPS, len(LEVELS)))),
)

MEASURED = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"code": done.returncode, "out": done.stdout, "err": done.stderr, "peak": peak}))
"""
"""Between the two, since what a process has in memory counts as its children's, from before their exec."""


def peak_mb(*arguments: str | Path) -> float:
    """The largest resident set of a command."""
    command = [sys.executable, "-m", "forex_core.cli", "backup", *map(str, arguments), "--json"]
    said = subprocess.run([sys.executable, "-S", "-c", MEASURED, *command], capture_output=True, check=True)
    found = json.loads(said.stdout)
    assert found["code"] == 0, found["err"]
    document = json.loads(found["out"])
    assert document["missing"] == []
    assert not any(document.get("champions", {}).values())
    return float(found["peak"]) / 1000


def fill(data: Path, runs: int, draw: random.Random) -> None:
    """Runs with their files in a migrated store: one by the tracker, the others as copies of its rows."""
    uri, root = load_settings().mlflow_uri, data / "mlflow" / "mlruns"
    with MLflowTracker(uri, "forecaster_7d", artifact_location=root.as_uri()) as tracker:
        tracker.log_params({f"param{n}": str(n) for n in range(40)})
        tracker.log_metrics({f"metric{n}": n / 7 for n in range(60)})
    release(uri)
    first = str(tracker.run_id)
    names = [first, *(f"{draw.getrandbits(128):032x}" for _ in range(runs - 1))]
    with closing(sqlite3.connect(data / "mlflow" / "mlflow.db")) as connection, connection:
        for table, key in (("runs", "run_uuid"), ("params", "run_uuid"), ("metrics", "run_uuid")):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            taken = ", ".join("?" if name == key else name for name in columns)
            if table == "runs":
                taken = taken.replace("artifact_uri", f"replace(artifact_uri, '{first}', ?)")
            for name in names[1:]:
                given = (name,) * taken.count("?")
                connection.execute(
                    f"INSERT INTO {table} SELECT {taken} FROM {table} WHERE {key} = '{first}'", given
                )
    for name in names:
        folder = root / "forecaster_7d" / name / "artifacts" / "reports"
        folder.mkdir(parents=True)
        for n in range(FILES):
            (folder / f"{n}.bin").write_bytes(draw.randbytes(FILE_BYTES))


def crown(specification: Specification, files: Path) -> None:
    """Register a model in the store of the settings, as champion."""
    for name, content in {
        "MLmodel": "flavors: {}\n",
        **dict.fromkeys(MODEL_FILES, specification.to_json()),
    }.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text(content, encoding="utf-8")
    name = model_name(specification.pair, specification.horizon)
    with tracker_from_settings(load_settings(), "forecaster_7d") as tracker:
        address = str(tracker.log_model(files, "model"))
    registry = registry_from_settings(load_settings())
    registry.succeed(registry.standing(name), registry.register_model(name, address, run_id=tracker.run_id))


@pytest.fixture
def draw() -> random.Random:
    return random.Random(7)


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    """Of what is written here nothing large is left."""
    yield tmp_path
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.stat().st_size > LARGE_BYTES / 2:
            path.unlink()


def archived_and_restored(data: Path, beside: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    monkeypatch.setenv("FOREX_DATA_DIR", str(data))
    place, target = beside / f"archives of {data.name}", beside / f"restored {data.name}"
    found = {"create": peak_mb("create", "--to", place)}
    (archive,) = place.glob("*.zst")
    found["restore"] = peak_mb("restore", archive, "--to", target)
    assert sum(1 for path in target.rglob("*.bin")) == sum(1 for path in data.rglob("*.bin"))
    return found


def test_memory_does_not_grow_with_what_is_archived(
    migrated_sqlite: Path, folders: Path, draw: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither with the number of runs and files, nor with the length of one, whose bytes cannot be compressed."""
    found = dict[str, dict[str, float]]()
    for runs in RUNS:
        data = folders / f"{runs} runs"
        (data / "mlflow").mkdir(parents=True)
        shutil.copyfile(migrated_sqlite, data / "mlflow" / "mlflow.db")
        monkeypatch.setenv("FOREX_DATA_DIR", str(data))
        fill(data, runs, draw)
        found[data.name] = archived_and_restored(data, folders, monkeypatch)
    few = folders / f"{RUNS[0]} runs"
    with (few / "mlflow" / "mlruns" / "large.bin").open("wb") as out:
        for _ in range(LARGE_BYTES // PIECE):
            out.write(draw.randbytes(PIECE))
    large = few.rename(folders / "a large file")
    with closing(sqlite3.connect(large / "mlflow" / "mlflow.db")) as connection, connection:
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
            connection.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (few.as_uri(), large.as_uri())
            )
    found["a large file"] = archived_and_restored(large, folders, monkeypatch)
    print({name: {what: f"{mb:.0f} MB" for what, mb in one.items()} for name, one in found.items()})
    least = found[f"{RUNS[0]} runs"]
    for name, peaks in found.items():
        for what, mb in peaks.items():
            assert mb < LIMIT_MB, (name, what)
            assert mb < least[what] + GROWTH_MB, (name, what)


def test_memory_with_postgresql_and_buckets(
    new_postgres: Callable[..., str],
    migrated_postgres: str,
    s3_bucket: Any,
    tmp_path: Path,
    draw: random.Random,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sixteen threads do not hold what they carry; the bucket is one of this process, which is not measured."""
    monkeypatch.setenv("MOTO_S3_DEFAULT_KEY_BUFFER_SIZE", "100000")  # what is longer lies on its disk
    uri = new_postgres(migrated_postgres)
    for name, value in {
        "FOREX_TRACKING_URI": uri,
        "FOREX_DATA__STORE_URL": uri,
        "FOREX_ARTIFACT_URI": f"s3://{s3_bucket.name}/runs",
        "FOREX_BACKUP__TO": f"s3://{s3_bucket.name}/archives",
        **s3_bucket.settings,
    }.items():
        monkeypatch.setenv(name, value)
    connect(load_settings())
    with tracker_from_settings(load_settings(), "forecaster_7d") as tracker:
        tracker.log_metrics({f"metric{n}": n / 7 for n in range(60)})
    crown(CHAMPION, tmp_path / "model")
    release(uri)
    names, found = [f"runs/0/{n}.bin" for n in range(THREADS)], list[dict[str, float]]()
    for steps, size in ((1, 1000), (2000, CARRIED_BYTES)):
        with postgres(uri) as database:
            database.execute(
                "INSERT INTO metrics SELECT key, value, timestamp, run_uuid, step + n, is_nan "
                f"FROM metrics, generate_series(1, {steps}) n WHERE step = 0"
                " ON CONFLICT DO NOTHING"
            )
        for name in names:
            s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=name, Body=draw.randbytes(size))
        created = peak_mb("create")
        s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=names[0], Body=draw.randbytes(size))
        s3_bucket.client.delete_object(Bucket=s3_bucket.name, Key=names[1])
        found.append({"create": created, "restore": peak_mb("restore", "latest")})
        there = s3_bucket.client.list_objects_v2(Bucket=s3_bucket.name, Prefix="runs/0/")["Contents"]
        assert {one["Key"]: one["Size"] for one in there} == dict.fromkeys(names, size)
        with postgres(uri) as database:
            assert database.execute("SELECT count(*) FROM metrics").fetchone() == (60 * (1 + steps),)
    print([{what: f"{mb:.0f} MB" for what, mb in one.items()} for one in found])
    for what, mb in found[1].items():
        assert mb < REMOTE_LIMIT_MB, what
        assert mb < found[0][what] + REMOTE_GROWTH_MB < found[0][what] + THREADS * CARRIED_BYTES / 1e6, what
