"""Our ensemble beside what a user would pick instead, on the same closes, origins, truth and scores, in one run.

The peers are statsforecast's automatic models, the mean of the four (average of quantiles) and its random walk with
drift, in an environment of their own (`make bench-peers` makes it). Ours comes from one pass over the origins that
`forex evaluate` scores. Both are judged against the reference random walk. Tables on standard output, progress on
standard error.

Seconds are of CPU for one forecast at one origin. A peer's is a fit and a path of the longest horizon. Ours is the
share of one origin in a pass over all of them; a published forecast on its own, with the origins that it learns from,
is given below the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from forex_core.config import Settings, load_settings
from forex_core.data.bundle import load_bundle
from forex_core.data.providers import provider
from forex_core.engine import MAX_FAILED_SHARE, Engine, Paths, build_members, import_libraries
from forex_core.errors import ForexError
from forex_core.evaluation import Judged, score
from forex_core.types import (
    ENSEMBLE,
    HORIZONS,
    LEVELS,
    PATH_STEPS,
    RANDOM_WALK,
    Array,
    Evaluation,
    Horizon,
    MarketBundle,
    Mask,
    Pair,
)

ROOT = Path(__file__).parents[2]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
WORKER = Path(__file__).with_name("peers_worker.py")

MEAN = "mean of the four"
MEAN_OF = ("AutoARIMA", "AutoETS", "AutoTheta", "AutoCES")
WINDOW = 1000
"""Closes that a peer is fitted to. On USD/CLP their median errors are smaller than with 500, at twice the time."""

Rows = npt.NDArray[np.int64]
Advance = Callable[[str, int, int], None]
"""Called with what was just finished, how many of how many."""


@dataclass(frozen=True)
class Scored:
    """What the engine scored at one horizon; `origins` [n] are positions among the rows of `paths`."""

    evaluation: Evaluation
    paths: Paths
    origins: Rows

    @property
    def rows(self) -> Rows:
        """[n] rows of the bundle."""
        return self.paths.rows[self.origins]


class OnePass(Engine):
    """The engine, which here answers the same origins of the same bundle once, for all horizons.

    `cpu_seconds` are those of each stage of the last pass, by member and by what is behind the members.
    """

    def __init__(self, settings: Settings, advance: Advance) -> None:
        self.cpu_seconds: dict[str, float] = {}
        self._clock = 0.0
        self._passed: tuple[MarketBundle, Rows, Paths] | None = None

        def finished(stage: str, done: int, total: int) -> None:
            now = time.process_time()
            self.cpu_seconds[stage] = now - self._clock
            self._clock = now
            advance(f"ours: {stage}", done, total)

        super().__init__(settings.engine, build_members(settings.engine, settings.chronos), finished)

    def paths(self, bundle: MarketBundle, rows: Rows) -> Paths:
        if self._passed is None or self._passed[0] is not bundle or not np.array_equal(self._passed[1], rows):
            import_libraries(self.members)  # off the clock
            self._clock = time.process_time()
            self._passed = bundle, rows, super().paths(bundle, rows)
        return self._passed[2]

    def scored(
        self, bundle: MarketBundle, horizon: Horizon, start: date | None, end: date | None, every: int | None
    ) -> Scored:
        """The origins that `Engine.evaluate` chooses to score, and the pass that answered them."""
        evaluation = self.evaluate(bundle, horizon, start, end, every)
        assert self._passed is not None
        paths = self._passed[2]
        chosen = bundle.dates[paths.rows].isin(pd.DatetimeIndex(evaluation.origins))
        return Scored(evaluation, paths, np.flatnonzero(chosen))


@dataclass(frozen=True)
class Answers:
    """What the peers said: `quantiles` [N, H, Q] in price and `seconds` of one forecast, by peer.

    `reasons` say, by peer and position of the origin, why there is no answer; its quantiles are NaN there.
    """

    quantiles: Mapping[str, Array]
    seconds: Mapping[str, float]
    reasons: Mapping[str, Mapping[int, str]]
    version: str


@dataclass(frozen=True)
class Line:
    """One model in the table of one horizon. p-values are one-sided, of squared errors.

    `p_rw` that the model beats the random walk, `p_ours` that the ensemble beats the model; None where a model is
    compared with itself. `cpu_seconds` of one forecast.
    """

    rmse_ratio: float
    crps_ratio: float
    p_rw: float | None
    p_ours: float | None
    coverage_80: float
    coverage_95: float
    cpu_seconds: float


def windows_of(spot: Array, rows: Rows, length: int) -> Array:
    """[N, length] the closes known at each origin, its own the last, NaN before the first of all.

    >>> windows_of(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1, 2]), 3).tolist()
    [[nan, 1.0, 2.0], [1.0, 2.0, 3.0]]
    """
    padded = np.concatenate([np.full(length, np.nan), spot])
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, length)[rows + 1])


def ask(python: Path, windows: Array, advance: Advance) -> Answers:
    """The answers of the peers, from a process in their own environment that is given the windows and nothing else.

    Raises:
        SystemExit: when that process fails.
    """
    quiet = {"PYTHONWARNINGS": "ignore"}  # of fits that did not converge: hundreds, and their scores tell
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {n: v for n, v in os.environ.items() if not n.startswith("PYTHON")} | quiet | one_thread
    with tempfile.TemporaryDirectory() as folder:
        given, taken = Path(folder) / "windows.npz", Path(folder) / "answers.npz"
        np.savez(given, windows=windows, levels=np.array(LEVELS), steps=np.array(PATH_STEPS))
        command = [str(python), str(WORKER), str(given), str(taken)]
        total = len(windows) * (len(MEAN_OF) + 1)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as worker:
            for done, line in enumerate(worker.stdout or (), start=1):
                advance(f"peers: {line.strip()}", done, total)
        if worker.returncode != 0:
            raise SystemExit(
                f"error: the peers' process ended with {worker.returncode}; its message is above"
            )
        with np.load(taken) as answers:
            names = answers["names"].tolist()
            quantiles = dict(zip(names, answers["quantiles"], strict=True))
            seconds = {
                n: float(s[np.isfinite(s)].sum() / max(1, np.isfinite(s).sum()))
                for n, s in zip(names, answers["seconds"], strict=True)
            }
            reasons = {
                n: {i: str(text) for i, text in enumerate(texts) if text}
                for n, texts in zip(names, answers["reasons"], strict=True)
            }
            version = str(answers["version"])
    quantiles[MEAN] = np.mean([quantiles[n] for n in MEAN_OF], axis=0)  # NaN where one of them has no answer
    seconds[MEAN] = sum(seconds[n] for n in MEAN_OF)
    reasons[MEAN] = {
        i: f"no answer of {', '.join(n for n in MEAN_OF if i in reasons[n])}"
        for i in sorted(set().union(*(reasons[n] for n in MEAN_OF)))
    }
    return Answers(quantiles, seconds, reasons, version)


def compare(
    scored: Scored, peers: Mapping[str, Array], seconds: Mapping[str, float]
) -> tuple[dict[str, Line], Mask]:
    """Every model's line on the origins that all of them answered, and which [n] those are.

    Args:
        peers: quantiles [n, H, Q] at the origins of `scored`, NaN without an answer.
        seconds: of one forecast, by model.
    """
    paths, origins, every = scored.paths, scored.origins, scored.evaluation.every
    steps = scored.evaluation.steps
    spot, truth = paths.bundle.spot[scored.rows], paths.truth[origins][:, :steps]
    said = {name: paths.quantiles[name][origins] for name in (ENSEMBLE, *paths.members)}
    said[RANDOM_WALK] = paths.walk[origins]  # the reference, not calibrated
    said |= peers
    kept = np.all([np.isfinite(q).all(axis=(1, 2)) for q in said.values()], axis=0)
    judged = {n: Judged(q[kept][:, :steps], truth[kept], spot[kept], LEVELS) for n, q in said.items()}
    lines = {}
    for name, model in judged.items():
        scores = score(model, judged[RANDOM_WALK], every, is_walk=name == RANDOM_WALK)
        lines[name] = Line(
            rmse_ratio=scores.rmse_ratio_rw,
            crps_ratio=scores.crps_ratio_rw,
            p_rw=scores.dm_pvalue,
            p_ours=None if name == ENSEMBLE else score(judged[ENSEMBLE], model, every).dm_pvalue,
            coverage_80=scores.coverage_80,
            coverage_95=scores.coverage_95,
            cpu_seconds=seconds[name],
        )
    return lines, kept


def left_out(reasons: Mapping[str, Mapping[int, str]], origins: int) -> set[str]:
    """Peers without an answer at more origins than the engine would forgive a member."""
    return {name for name, missing in reasons.items() if len(missing) > MAX_FAILED_SHARE * origins}


def run(arguments: argparse.Namespace, advance: Advance) -> tuple[dict[str, Any], list[RenderableType]]:
    """Every figure, and the tables and remarks that show them.

    Raises:
        ForexError: for what `forex evaluate` would refuse.
        SystemExit: without the environment of the peers.
    """
    if not arguments.python.is_file():
        raise SystemExit(
            f"error: no Python of the peers at {arguments.python}; run make bench-peers, which installs them"
        )
    paths = arguments.path or ([] if arguments.source == "ecb" else None)
    settings = load_settings(pair=arguments.pair, source=arguments.source, paths=paths)
    source = provider(settings.source, settings.paths, settings.columns)
    bundle = load_bundle(source, Pair.parse(settings.pair))
    engine = OnePass(settings, advance)
    scored = {
        h: engine.scored(bundle, h, arguments.start, arguments.end, arguments.every)
        for h in arguments.horizon or HORIZONS
    }
    passed = next(iter(scored.values())).paths
    seconds = {name: engine.cpu_seconds[name] / len(passed.rows) for name in passed.members}
    seconds[ENSEMBLE] = sum(engine.cpu_seconds.values()) / len(passed.rows)
    alone = seconds_of_one_forecast(settings, bundle, advance)

    rows = np.unique(np.concatenate([s.rows for s in scored.values()]))
    answers = ask(arguments.python, windows_of(bundle.spot, rows, arguments.window), advance)
    out = left_out(answers.reasons, len(rows))
    peers = {name: q for name, q in answers.quantiles.items() if name not in out}
    failures = {
        name: {str(bundle.dates[rows[i]].date()): reason for i, reason in missing.items()}
        for name, missing in answers.reasons.items()
        if missing
    }

    document: dict[str, Any] = {
        "pair": str(bundle.pair),
        "fingerprint": bundle.fingerprint,
        "window": arguments.window,
        "statsforecast": answers.version,
        "cpu_seconds_of_one_published_forecast": alone,
        "failures": failures,
        "left_out": sorted(out),
        "horizons": {},
    }
    parts: list[RenderableType] = []
    for horizon, s in scored.items():
        at = np.searchsorted(rows, s.rows)
        lines, kept = compare(s, {n: q[at] for n, q in peers.items()}, seconds | dict(answers.seconds))
        days = [d for d, k in zip(s.evaluation.origins, kept, strict=True) if k]
        steps = s.evaluation.steps
        title = f"{bundle.pair} {horizon}: {len(days)} origins, {days[0]} to {days[-1]}, over {steps} steps"
        parts.append(table_of(title, lines, tuple(answers.quantiles)))
        document["horizons"][str(horizon)] = {
            "origins": [d.isoformat() for d in days],
            "steps": steps,
            "every": s.evaluation.every,
            "models": {name: asdict(line) for name, line in lines.items()},
        }
    return document, [*parts, *remarks(document, len(rows))]


def seconds_of_one_forecast(settings: Settings, bundle: MarketBundle, advance: Advance) -> float:
    """CPU seconds of the last origin's forecast as it is published, with the origins that it learns from."""
    engine = OnePass(settings, advance)
    started = time.process_time()
    engine.forecast(bundle, HORIZONS[0])
    return time.process_time() - started


def table_of(title: str, lines: Mapping[str, Line], peers: tuple[str, ...]) -> Table:
    """The ensemble and the reference, then the peers, then our members; dashes for who was left out."""
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    table.add_column("Model", no_wrap=True)
    for heading in ("RMSE/RW", "CRPS/RW", "p RW", "p ours", "in 80 %", "in 95 %", "CPU s"):
        table.add_column(heading, justify="right", no_wrap=True)
    first = (ENSEMBLE, RANDOM_WALK)
    for group in (first, peers, tuple(n for n in lines if n not in peers and n not in first)):
        for name in group:
            figures = astuple(lines[name]) if name in lines else (None,) * 7
            cells = ["–" if v is None else f"{v:.3f}" for v in figures]
            table.add_row(
                name, *cells, style="bold" if name == ENSEMBLE else "", end_section=name == group[-1]
            )
    return table


def remarks(document: Mapping[str, Any], origins: int) -> list[Text]:
    """How to read the tables, what the peers were given, and where they had no answer."""
    lines = [
        "RW: the reference random walk; ratios below 1 beat it. p RW: that the model beats it; p ours: that the "
        "ensemble beats the model (one-sided, squared errors).",
        f"Peers: statsforecast {document['statsforecast']} with its defaults and a season of one, fitted at every "
        f"origin to the last {document['window']} closes in price, weekdays after the quality gate; its point "
        "forecast is scored as the median, its own intervals as the bands (that of AutoCES does not widen with "
        "the step).",
        "CPU s: of one forecast at one origin, for ours the share of one origin in the pass over all. A published "
        "forecast on its own, with the origins that it learns from and is scored on: "
        f"{document['cpu_seconds_of_one_published_forecast']:.1f} s.",
    ]
    for name, missing in document["failures"].items():
        what = "left out" if name in document["left_out"] else "those origins are left out for every model"
        day, reason = next(iter(missing.items()))
        lines.append(f"{name}: no answer at {len(missing)} of {origins} origins, {what}; on {day}: {reason}")
    weekdays = {
        date.fromisoformat(d).strftime("%A") for h in document["horizons"].values() for d in h["origins"]
    }
    if len(weekdays) == 1:
        lines.append(
            f"All origins fall on a {weekdays.pop()}; other days of the week may score otherwise (--every)."
        )
    return [Text(line) for line in lines]


@contextmanager
def progress() -> Iterator[Advance]:
    """A bar on standard error; where that is no terminal, a line at the start of each stage."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def advance(stage: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=stage)
            if not console.is_terminal and (done == total or done % max(1, total // 10) == 0):
                print(f"{stage} {done}/{total}", file=sys.stderr, flush=True)

        yield advance


def positive(text: str) -> int:
    """A whole number above zero, for an option."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number above zero")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pair", help="such as USDCLP [default: USDMXN]")
    parser.add_argument(
        "--source", choices=("ecb", "csv"), help="[default: ecb, or csv when a --path is given]"
    )
    parser.add_argument("--path", type=Path, action="append", help="CSV file; can be given more than once")
    parser.add_argument("--from", dest="start", type=date.fromisoformat, help="as in forex evaluate")
    parser.add_argument("--to", dest="end", type=date.fromisoformat, help="as in forex evaluate")
    parser.add_argument("--every", type=positive, help="as in forex evaluate")
    parser.add_argument(
        "--horizon", type=Horizon.parse, action="append", help="one or more [default: all four]"
    )
    parser.add_argument(
        "--window", type=positive, default=WINDOW, help=f"closes that a peer is fitted to [default: {WINDOW}]"
    )
    parser.add_argument("--python", type=Path, default=PEERS_PYTHON, help="a Python that has statsforecast")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    stdout = Console()
    try:
        arguments = parser.parse_args()
        with progress() as advance:
            document, parts = run(arguments, advance)
    except ForexError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for part in parts:
        stdout.print(part, soft_wrap=isinstance(part, Text), highlight=False)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
