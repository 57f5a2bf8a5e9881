"""Time and memory of `forex forecast 7d` on the embedded data, from process start to exit, in an empty data folder.

Prints both, the share of each stage, and exits with 1 past a bound. Memory is the resident set of all processes
of the run together, which counts what they share more than once.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

import psutil

MAX_SECONDS = 30.0
MAX_MEGABYTES = 1000.0
FOREX = Path(sys.executable).parent / "forex"

# Log line that ends a stage: what the stage is.
STAGES = {
    "input read": "start and reading the input",
    "flow started": "Prefect: import, own server, flow",
    "bundle loaded": "task: load bundle",
    "forecast computed": "task: engine",
    "report written": "task: report, tracking store opened",
    "run logged": "task: run and files logged",
}


def measure(horizon: str, folder: Path) -> tuple[float, float, list[tuple[str, float]]]:
    """(seconds, peak megabytes, seconds of each stage) of one run with its data below `folder`."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("FOREX_", "PREFECT_", "MLFLOW_"))}
    environment = kept | {"FOREX_DATA_DIR": str(folder)}
    started, clock = time.perf_counter(), datetime.now()
    process = subprocess.Popen(
        [str(FOREX), "forecast", horizon, "--verbose", "--force"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(psutil.Process(process.pid), peak), daemon=True)
    watcher.start()
    log = process.communicate()[1]
    seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise SystemExit(f"forex ended with {process.returncode}:\n{log}")
    return seconds, peak[0], _stages(log, clock, seconds)


def _watch(root: psutil.Process, peak: list[float]) -> None:
    while True:
        try:
            family = [root, *root.children(recursive=True)]
            used = sum(p.memory_info().rss for p in family if p.is_running()) / 1e6
        except psutil.NoSuchProcess:
            if not root.is_running():
                return
            continue
        peak[0] = max(peak[0], used)
        time.sleep(0.05)


def _stages(log: str, clock: datetime, seconds: float) -> list[tuple[str, float]]:
    marks = []
    for mark, stage in STAGES.items():
        found = re.search(rf"^(\d\d:\d\d:\d\d\.\d{{3}}) \w+ +{mark}", log, re.MULTILINE)
        if found:
            at = datetime.combine(clock.date(), datetime.strptime(found[1], "%H:%M:%S.%f").time())
            marks.append((stage, (at - clock).total_seconds() % 86_400))
    ends = [0.0, *(at for _, at in marks)]
    stages = [(stage, at - before) for (stage, at), before in zip(marks, ends, strict=False)]
    return [*stages, ("exit", seconds - ends[-1])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--horizon", default="7d")
    parser.add_argument("--runs", type=int, default=1, help="cold runs; the median is judged")
    arguments = parser.parse_args()
    runs = []
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure(arguments.horizon, Path(folder)))
    seconds, megabytes, stages = sorted(runs)[len(runs) // 2]
    print(f"forex forecast {arguments.horizon}, cold, {len(runs)} run(s), the median one:")
    for stage, spent in stages:
        print(f"  {stage:<38} {spent:6.2f} s  {spent / seconds:5.0%}")
    print(f"  {'from process start to exit':<38} {seconds:6.2f} s  (bound {MAX_SECONDS:.0f} s)")
    print(f"  {'peak memory of all processes':<38} {megabytes:6.0f} MB (bound {MAX_MEGABYTES:.0f} MB)")
    return int(seconds > MAX_SECONDS or megabytes > MAX_MEGABYTES)


if __name__ == "__main__":
    sys.exit(main())
