"""Time and memory of `forex forecast` on the embedded rates, from process start to exit, imports and all.

Cold: an empty data folder. Warm: answers of the members kept, the run forced. Next day: the day after a run. The
latter two with Prefect's temporary server and against a running one, which is started here on a free port with a
PREFECT_HOME of its own. Memory is the largest resident set of our own process, and of all processes of the run
together (the temporary server's and the renderer's among them), which counts what they share more than once. Exit
code 1 past a bound.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from statistics import median

import psutil
from bounds import Figure, judge

BIN = Path(sys.executable).parent
START_LIMIT_S = 120

COLD_SECONDS = 30.0
WITH_TEMPORARY_SERVER_SECONDS = 16.0
WITH_RUNNING_SERVER_SECONDS = 9.0
OWN_MEGABYTES = 600.0
ALL_MEGABYTES = 1000.0

# Log line that ends a stage: what the stage is.
STAGES = {
    "input read": "start, reading the input",
    "flow started": "imports, waiting for the server, flow",
    "bundle loaded": "task: load bundle",
    "forecast computed": "task: engine",
    "report written": "task: tracking store, report",
    "run logged": "task: run and files logged",
}


@dataclass(frozen=True)
class Run:
    """One run of the command: wall clock and processor seconds, megabytes, and the seconds of each stage."""

    seconds: float
    processor: float
    own: float
    together: float
    stages: Mapping[str, float]


def measure(folder: Path, *options: str, **environment: str) -> Run:
    """Run the command with its data below `folder`.

    Raises:
        SystemExit: when it fails, with its log.
    """
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("FOREX_", "PREFECT_", "MLFLOW_"))}
    before, started, clock = _processor(), time.perf_counter(), datetime.now()
    process = subprocess.Popen(
        [str(BIN / "forex"), "forecast", *options, "--verbose", "--force"],
        env=kept | {"FOREX_DATA_DIR": str(folder), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    peaks = [0.0, 0.0]
    watcher = threading.Thread(target=_watch, args=(psutil.Process(process.pid), peaks), daemon=True)
    watcher.start()
    log = process.communicate()[1]
    seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise SystemExit(f"forex ended with {process.returncode}:\n{log}")
    return Run(seconds, _processor() - before, *peaks, stages(log, clock, seconds))


def _processor() -> float:
    """Seconds of the processor that children of this process took until they ended, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _watch(root: psutil.Process, peaks: list[float]) -> None:
    """Keep the peaks of `root` alone and of all its family, in megabytes, until it ends."""
    while True:
        try:
            own = root.memory_info().rss / 1e6
            family = own
            for child in root.children(recursive=True):
                try:
                    family += child.memory_info().rss / 1e6
                except psutil.NoSuchProcess:
                    continue
        except psutil.NoSuchProcess:
            return
        peaks[:] = max(peaks[0], own), max(peaks[1], family)
        time.sleep(0.05)


def stages(log: str, clock: datetime, seconds: float) -> dict[str, float]:
    """Seconds of each stage of a run that started at `clock`, by the marks in its log."""
    marks = []
    for mark, stage in STAGES.items():
        found = re.search(rf"^(\d\d:\d\d:\d\d\.\d{{3}}) \w+ +{mark}", log, re.MULTILINE)
        if found:
            at = datetime.combine(clock.date(), datetime.strptime(found[1], "%H:%M:%S.%f").time())
            marks.append((stage, (at - clock).total_seconds() % 86_400))
    ends = [0.0, *(at for _, at in marks)]
    spent = {stage: at - before for (stage, at), before in zip(marks, ends, strict=False)}
    return spent | {"flow's end, exit": seconds - ends[-1]}


@contextmanager
def running_server() -> Iterator[str]:
    """The address of a Prefect server as a deployment runs it, on a free loopback port."""
    with tempfile.TemporaryDirectory() as home, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        settings = {"PREFECT_HOME": home, "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
        process = subprocess.Popen(
            [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env={n: v for n, v in os.environ.items() if not n.startswith("PREFECT_")} | settings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            address = f"http://127.0.0.1:{port}/api"
            _wait_for(f"{address}/health", process)
            yield address
        finally:
            process.terminate()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"prefect server start ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"no Prefect server answered at {url} within {START_LIMIT_S} s")


def last_days(count: int) -> list[date]:
    """Dates of the last `count` rows of the embedded rates, oldest first."""
    from forex_core.data.bundle import load_bundle
    from forex_core.data.providers import provider
    from forex_core.types import Pair

    return [day.date() for day in load_bundle(provider("ecb"), Pair("USD", "MXN")).dates[-count:]]


def figures(what: str, runs: Sequence[Run], seconds: float, *, cold: bool = False) -> list[Figure]:
    """Medians of one kind of run, the stages of the median one among them."""
    typical = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
    return [
        Figure(f"{what}: process start to exit", typical.seconds, "s", seconds),
        *(Figure(f"  {stage}", spent, "s") for stage, spent in typical.stages.items()),
        Figure("  processor, all processes", median(run.processor for run in runs), "s"),
        Figure(
            "  memory, our own process", max(run.own for run in runs), "MB", None if cold else OWN_MEGABYTES
        ),
        Figure(
            "  memory, all processes",
            max(run.together for run in runs),
            "MB",
            ALL_MEGABYTES if cold else None,
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--horizon", default="7d")
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind; the median is judged")
    parser.add_argument("--quick", action="store_true", help="one run of each kind, next days left out")
    parser.add_argument("--cold", action="store_true", help="cold runs alone")
    arguments = parser.parse_args()
    horizon, count = arguments.horizon, 1 if arguments.quick else arguments.runs
    cold, out = [], []
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(measure(Path(folder), horizon))
    out += figures("cold", cold, COLD_SECONDS, cold=True)
    if not arguments.cold:
        # One day for the run that warms the cache, then one for each run of a next day on either server.
        days = iter(last_days(1 + (0 if arguments.quick else 2 * count)))
        with tempfile.TemporaryDirectory() as folder, running_server() as address:
            here = Path(folder)
            day = ("--as-of", str(next(days)))
            measure(here, horizon, *day)
            for kind, bound, environment in (
                ("temporary server", WITH_TEMPORARY_SERVER_SECONDS, {}),
                ("running server", WITH_RUNNING_SERVER_SECONDS, {"PREFECT_API_URL": address}),
            ):
                measure(here, horizon, *day, **environment)  # a server's first run registers the flow
                warm = [measure(here, horizon, *day, **environment) for _ in range(count)]
                out += figures(f"warm, {kind}", warm, bound)
                if not arguments.quick:
                    later = []
                    for _ in range(count):
                        day = ("--as-of", str(next(days)))
                        later.append(measure(here, horizon, *day, **environment))
                    out += figures(f"next day, {kind}", later, bound)
    return judge(f"forex forecast {horizon}, embedded rates, median of {count}", out)


if __name__ == "__main__":
    sys.exit(main())
