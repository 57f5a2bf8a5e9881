"""What a backup costs: 1,000 runs with 2 GB of artifacts, the commands as a user runs them.

First archive, an archive when nothing has changed, and one after a day's four runs; verification; restore into a new
folder. Seconds from process start to exit, memory as the largest resident set. A run has what a forecast run has: page,
data snapshot, pictures, and a model with the code that all models share. Exit code 1 past a bound.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bounds import Figure, judge

BOUNDS_S = {
    "create, first": 60.0,
    "create, nothing changed": 5.0,
    "create, four runs later": 5.0,
    "restore": 60.0,
}
MEMORY_MB = 300.0
RUN_BYTES = 2_000_000
SHARED_FILES = 24


def build(data: Path, runs: int) -> None:
    """A data folder with runs, through the tracker, and with their files."""
    from forex_core.config import load_settings
    from forex_core.tracking import tracker_from_settings

    settings = load_settings(data_dir=data)
    draw = random.Random(7)
    words = [f"word{n:04d} {n / 7:.6f}" for n in range(2000)]
    code = [("\n".join(draw.choices(words, k=400))).encode() for _ in range(SHARED_FILES)]
    for number in range(runs):
        with tracker_from_settings(settings, "forecaster_7d", run_name=f"run{number}") as tracker:
            tracker.log_params({f"param{n}": str(n) for n in range(40)})
            tracker.log_metrics({f"metric{n}": n / 7 for n in range(60)})
            run_id = tracker.run_id
        files = data / "mlflow" / "mlruns" / "forecaster_7d" / str(run_id) / "artifacts"
        (files / "reports").mkdir(parents=True)
        (files / "model" / "code").mkdir(parents=True)
        page = " ".join(draw.choices(words, k=60_000)).encode()
        (files / "reports" / "report.html").write_bytes(page)
        for n in range(8):
            (files / "reports" / f"chart{n}.png").write_bytes(draw.randbytes(30_000))
        (files / "reports" / "snapshot.parquet").write_bytes(draw.randbytes(RUN_BYTES - len(page) - 500_000))
        for n, content in enumerate(code):
            (files / "model" / "code" / f"module{n}.py").write_bytes(content)


def build_apart(data: Path, runs: int) -> None:
    """In a process of its own: what this one has in memory would count as its children's, from before their exec."""
    code = (
        "import sys, pathlib, backup_speed; backup_speed.build(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, str(data), str(runs)], check=True, cwd=Path(__file__).parent)


@dataclass(frozen=True)
class Cost:
    """Of a command: seconds, those of the processor, megabytes."""

    seconds: float
    processor: float
    memory: float


def measured(*arguments: str, data: Path) -> tuple[Cost, dict[str, Any]]:
    """What a command costs, and its document."""
    with tempfile.TemporaryFile() as out:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "forex_core.cli", *arguments, "--json"],
            stdout=out,
            env=os.environ | {"FOREX_DATA_DIR": str(data)},
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        if status:
            raise SystemExit(f"forex {' '.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}")
        out.seek(0)
        return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000), json.load(out)


def measure(runs: int, home: Path) -> tuple[dict[str, Cost], dict[str, Any]]:
    """What each command costs, and the document of the first archive."""
    data, place = home / "data", str(home / "archives")
    build_apart(data, runs)
    time.sleep(3)  # what was changed a moment ago is read again the next time
    found: dict[str, Cost] = {}
    found["create, first"], made = measured("backup", "create", "--to", place, data=data)
    found["create, nothing changed"], _ = measured("backup", "create", "--to", place, data=data)
    build_apart(data, 4)
    found["create, four runs later"], last = measured("backup", "create", "--to", place, data=data)
    found["verify"], _ = measured("backup", "verify", last["archive"], data=data)
    found["restore"], back = measured(
        "backup", "restore", last["archive"], "--to", str(home / "restored"), data=data
    )
    if (back["counts"]["runs"], back["bytes"]) != (runs + 4, last["bytes"]):
        raise SystemExit(f"what was restored is not what was archived: {back}")
    return found, made


def figures(found: Mapping[str, Cost], made: Mapping[str, Any]) -> list[Figure]:
    told = [
        Figure("files", made["files"], ""),
        Figure("size", made["bytes"] / 1e6, "MB"),
        Figure("size of the objects", made["bytes_written"] / 1e6, "MB"),
    ]
    for what, cost in found.items():
        told.append(Figure(what, cost.seconds, "s", BOUNDS_S.get(what)))
        told.append(Figure(f"{what}, of the processor", cost.processor, "s"))
        told.append(Figure(f"{what}, memory", cost.memory, "MB", MEMORY_MB))
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="50 runs")
    parser.add_argument("--folder", type=Path, help="where to work; by default the temporary folder")
    chosen = parser.parse_args(arguments)
    home = Path(tempfile.mkdtemp(prefix="forex-backup-", dir=chosen.folder))
    try:
        found, made = measure(50 if chosen.quick else chosen.runs, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return judge("backup", figures(found, made))


if __name__ == "__main__":
    sys.exit(main())
