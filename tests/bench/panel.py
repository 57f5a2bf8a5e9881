"""`forex evaluate --pairs all`: the ensemble beside the random walk on the 26 pairs of the ECB panel.

These closes are struck at one moment, so there is no stale one to profit from: what counts is that the ensemble is
hardly ever worse. Prints the median and the worst pair of each horizon with its bound, and exits with 1 past one.
Answers are kept below the data folder, so a second run takes a fraction of the first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

FOREX = Path(sys.executable).parent / "forex"

RMSE_MEDIAN, RMSE_WORST = 1.003, 1.01
CRPS_MEDIAN, CRPS_WORST = 1.000, 1.02
COVERAGE_POINTS = 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file to write the whole document to")
    arguments = parser.parse_args()
    done = subprocess.run(
        [str(FOREX), "evaluate", "--pairs", "all", "--source", "ecb", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return done.returncode
    if arguments.json:
        arguments.json.write_text(done.stdout, encoding="utf-8")
    document = json.loads(done.stdout)
    print(f"{document['seconds']:.0f} s for {len(document['evaluations'])} leaderboards")
    missed = 0
    for horizon, found in document["summary"].items():
        print(f"{horizon}, {found['origins']} origins, {found['outcomes']} outcomes")
        for name, bounds in (
            ("rmse_ratio_rw", (RMSE_MEDIAN, RMSE_WORST)),
            ("crps_ratio_rw", (CRPS_MEDIAN, CRPS_WORST)),
        ):
            for kind, bound in zip(("median", "worst"), bounds, strict=True):
                value = found[name][kind]
                pair = f" ({found[name]['worst_pair']})" if kind == "worst" else ""
                missed += line(f"{name}, {kind}{pair}", value, f"at most {bound:.3f}", value <= bound)
        for name, nominal in (("coverage_80", 80), ("coverage_95", 95)):
            off = 100 * found[name] - nominal
            bound = f"within {COVERAGE_POINTS:.0f} points"
            missed += line(f"{name}, pooled", found[name], bound, abs(off) <= COVERAGE_POINTS)
    return int(missed > 0)


def line(name: str, value: float, bound: str, met: bool) -> int:
    print(f"  {name:<32} {value:7.4f}  {bound:<16} {'' if met else 'MISSED'}".rstrip())
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
