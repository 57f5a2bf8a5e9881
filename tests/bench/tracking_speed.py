"""What tracking costs: a run's milliseconds, the no-op's share of a job, and a hundred jobs with and without.

A run has 60 metrics, 40 params and 10 tags, on a migrated SQLite store in WAL mode in a fresh folder; with artifacts
also five small files. A job waits for 0.1 s. PostgreSQL is told beside it where there is a server to start. Exit
code 1 past a bound.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

from bounds import Figure, judge
from servers import postgres_server

RUN_MS = 25.0
RUN_WITH_FILES_MS = 40.0
NOOP_PERCENT = 0.5
JOBS_RATIO = 1.4
DATABASE_MB_PER_100 = 5.0
JOB_SECONDS = 0.1
FILES = 5


def run_once(build: Callable[[], object], files: Path | None) -> None:
    """What a run logs: tags that are known before it starts are given to it then."""
    from forex_core.tracking import Record

    tracker = build()
    tracker.start_run("bench", tags={f"tag{n}": "value" for n in range(10)})  # type: ignore[attr-defined]
    tracker.log(  # type: ignore[attr-defined]
        Record({f"param{n}": str(n) for n in range(40)}, {f"metric{n}": n / 7 for n in range(60)})
    )
    if files:
        tracker.log_artifacts_dir(files, "reports")  # type: ignore[attr-defined]
    tracker.end_run()  # type: ignore[attr-defined]


def seconds_of(work: Callable[[], None], count: int) -> list[float]:
    spent = []
    for _ in range(count):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    return spent


def figures(measured: Mapping[str, float]) -> list[Figure]:
    """The figures beside their bounds, out of what `measure` found."""
    known = [
        Figure("run, 60 metrics 40 params 10 tags", measured["run"], "ms", RUN_MS),
        Figure(f"run with {FILES} small files", measured["run with files"], "ms", RUN_WITH_FILES_MS),
        Figure("no-op, share of a job of 0.1 s", measured["noop"], "%", NOOP_PERCENT),
        Figure("jobs with tracker and files over those without", measured["jobs"], "times", JOBS_RATIO),
        Figure("database for 100 runs", measured["database"], "MB", DATABASE_MB_PER_100),
    ]
    others = [Figure(name, value, "ms") for name, value in measured.items() if name.startswith("PostgreSQL")]
    return known + others


def measure(runs: int, jobs: int) -> dict[str, float]:
    from forex_core.tracking import MLflowTracker, NoopTracker, open_store

    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        files = home / "files"
        files.mkdir()
        for number in range(FILES):
            (files / f"{number}.txt").write_text("x" * 2000)
        database = home / "mlflow.db"
        root = (home / "mlruns").as_uri()

        def tracker() -> MLflowTracker:
            return MLflowTracker(f"sqlite:///{database}", "bench", artifact_location=root)

        def bare() -> None:
            run_once(tracker, None)

        def whole() -> None:
            run_once(tracker, files)

        open_store(f"sqlite:///{database}")
        seconds_of(whole, 5)  # what is done once in a process
        before = size_of(database)
        count = max(runs, 1)
        measured["run"] = 1000 * median(seconds_of(bare, count))
        measured["database"] = (size_of(database) - before) / 1e6 * 100 / count
        measured["run with files"] = 1000 * median(seconds_of(whole, count))
        noop = median(seconds_of(lambda: run_once(NoopTracker, files), 1000))
        measured["noop"] = 100 * noop / JOB_SECONDS
        alone = sum(seconds_of(lambda: time.sleep(JOB_SECONDS), jobs))

        def tracked() -> None:
            time.sleep(JOB_SECONDS)
            whole()

        measured["jobs"] = sum(seconds_of(tracked, jobs)) / alone
    return measured


def size_of(database: Path) -> int:
    """Bytes of the database, with what its write-ahead log held."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return database.stat().st_size


def measure_postgres(runs: int) -> dict[str, float]:
    """The same run on a PostgreSQL of its own; nothing where there is none."""
    from forex_core.tracking import MLflowTracker

    with postgres_server() as server, tempfile.TemporaryDirectory() as folder:
        if server is None:
            return {}
        server.execute("CREATE DATABASE bench")
        root = Path(folder).as_uri()

        def bare() -> None:
            run_once(lambda: MLflowTracker(server.uri("bench"), "bench", artifact_location=root), None)

        seconds_of(bare, 5)
        return {"PostgreSQL: run (no fsync)": 1000 * median(seconds_of(bare, runs))}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=100, help="runs of each kind; the median is judged")
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="20 runs and 20 jobs, without PostgreSQL")
    chosen = parser.parse_args(arguments)
    measured = measure(*((20, 20) if chosen.quick else (chosen.runs, chosen.jobs)))
    if not chosen.quick:
        measured |= measure_postgres(chosen.runs)
    return judge("tracking, SQLite in WAL mode", figures(measured))


if __name__ == "__main__":
    sys.exit(main())
