"""What the embedded weights cost, by their graph and on torch: loading, memory, speed, and a forecast of the next day.

Each in a process of its own. The forecast is `forex forecast` on the embedded rates the day after another, members'
answers of that one kept, with the member by its graph, on torch, and without it; memory is its own process's largest
resident set. Exit code 1 past a bound.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from bounds import Figure, judge
from command_speed import Run, last_days, measure

MANY_SECONDS, PARITY = 3.0, 1e-4
PART_SECONDS = 1.0
WHOLE_MB = {"onnx": 500.0, "torch": 900.0}
SETTINGS = {
    "onnx": {"model": "embedded", "runtime": "onnx"},
    "torch": {"model": "embedded", "runtime": "torch"},
    "without": {"model": None},
}
PROGRAM = """
import json, resource, sys, time
import numpy as np
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import build_members, import_libraries
from forex_core.models.chronos import ChronosForecaster
from forex_core.testing import bundle_of, synthetic_table
from forex_core.types import LEVELS
import_libraries(build_members(EngineConfig(), ChronosConfig()))  # what other members import anyway
bundle = bundle_of(synthetic_table(1100, start="2018-06-01"))
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
member = ChronosForecaster("embedded", runtime=sys.argv[1])
member.forecast(bundle, bundle.instants[[700]], 64, LEVELS)
first, began = time.perf_counter() - began, time.perf_counter()
found = member.forecast(bundle, bundle.instants[-260:], 64, LEVELS)
many = time.perf_counter() - began
assert not found.reasons
added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
np.save(sys.argv[2], np.log(found.quantiles / bundle.spot[-260:, None, None]))
print(json.dumps([first, many, added]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind; the median is judged")
    count = parser.parse_args().runs
    return judge("The member", of_the_member(count)) | judge(
        "A forecast of the next day", of_a_forecast(count)
    )


def of_the_member(count: int) -> list[Figure]:
    import numpy as np

    figures, answers = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for runtime in ("onnx", "torch"):
            file = Path(folder) / f"{runtime}.npy"
            command = [sys.executable, "-W", "ignore", "-c", PROGRAM, runtime, str(file)]
            told = [json.loads(subprocess.check_output(command, text=True)) for _ in range(count)]
            first, many, added = (median(values) for values in zip(*told, strict=True))
            answers[runtime] = np.load(file)
            figures += [
                Figure(f"{runtime}: loading and a first answer", first, "s"),
                Figure(
                    f"{runtime}: 260 origins of 64 steps",
                    many,
                    "s",
                    MANY_SECONDS if runtime == "onnx" else None,
                ),
                Figure(f"{runtime}: memory that both add", added, "MB"),
            ]
    apart = np.abs(answers["onnx"] - answers["torch"]).max() / np.abs(answers["torch"]).max()
    return [*figures, Figure("largest difference over the largest answer", float(apart), "", PARITY)]


def of_a_forecast(count: int) -> list[Figure]:
    yesterday, today = last_days(2)
    runs: dict[str, list[Run]] = {}
    for name, told in SETTINGS.items():
        for _ in range(count):
            with tempfile.TemporaryDirectory() as folder:
                settings = {"FOREX_CHRONOS": json.dumps(told)}
                measure(Path(folder), "7d", "--as-of", str(yesterday), **settings)
                runs.setdefault(name, []).append(
                    measure(Path(folder), "7d", "--as-of", str(today), **settings)
                )
    engine = {name: median(run.stages["task: engine"] for run in each) for name, each in runs.items()}
    figures = [Figure("without it: the engine's task", engine["without"], "s")]
    for name, bound in WHOLE_MB.items():
        figures += [
            Figure(f"{name}: its part of that task", engine[name] - engine["without"], "s", PART_SECONDS),
            Figure(f"{name}: memory of our own process", max(run.own for run in runs[name]), "MB", bound),
        ]
    own = max(run.own for run in runs["without"])
    return [*figures, Figure("without it: memory of our own process", own, "MB")]


if __name__ == "__main__":
    sys.exit(main())
