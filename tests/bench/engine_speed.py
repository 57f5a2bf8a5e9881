"""Seconds that the engine takes: cold, on the next day, for all horizons, by origins, by history, by past runs; and
what stands beside a forecast: joint paths, figures, contributions.

The bundle is in memory and imports are not counted; they are told beside. Every measurement starts in an
interpreter of its own. Chronos is left out. Exit code 1 past a bound. `--charts` writes docs/figures/speed.svg.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bounds import Figure, judge

FIGURES = Path(__file__).parents[2] / "docs" / "figures"

COLD_SECONDS = 10.0
NEXT_DAY_SECONDS = 1.5
BRIEFING_SECONDS = 3.0
FOUR_TO_ONE = 1.3
LINEAR = 1.25
"""Seconds that an origin adds between the two largest numbers of origins over those between the two before."""

DAILY_DRIFT = 1.25
"""Seconds of the later half of the daily runs over those of the earlier half; single runs scatter by a quarter."""

ORIGINS = (65, 130, 260, 520)
HISTORY = (1000, 2000, 3000, 4000, 5000)
HISTORY_ORIGINS = 100
"""Grid origins at every length of history: as many as the shortest holds."""

DAILY_RUNS = (1, 10, 30)
PAIR = "USDMXN"

Seconds = tuple[float, float]
"""Wall clock, processor."""


def timed(job: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    job()
    return time.perf_counter() - wall, time.process_time() - cpu


def embedded(as_of: date | None = None) -> Any:
    """The bundle of the ECB's rates for one pair, as it was known on a day."""
    from forex_core.data.bundle import load_bundle
    from forex_core.data.providers import provider
    from forex_core.types import Pair

    return load_bundle(provider("ecb"), Pair.parse(PAIR), as_of)


def engine(cache: Path | None = None, origins: int = 260) -> Any:
    """An engine of all members without Chronos, that keeps its answers below `cache`; what it uses is imported."""
    from forex_core.cache import AnswerCache
    from forex_core.config import MEMBERS, ChronosConfig, EngineConfig
    from forex_core.engine import Engine, build_members, import_libraries, library_versions

    config = EngineConfig(members=tuple(m for m in MEMBERS if m != "chronos"), grid_origins=origins)
    members = build_members(config, ChronosConfig())
    import_libraries(members)
    kept = AnswerCache(cache, library_versions()) if cache else None
    return Engine(config, members, cache=kept)


def last_days(count: int) -> list[date]:
    """The origins' dates of the last `count` rows of the embedded rates, oldest first."""
    return [day.date() for day in embedded().dates[-count:]]


def measure_cold(folder: Path) -> dict[str, Seconds]:
    """One horizon on an empty cache, then the three others."""
    from forex_core.types import HORIZONS

    bundle, made = embedded(), engine(folder)
    one = timed(partial(made.forecast, bundle, HORIZONS[0]))
    others = timed(lambda: [made.forecast(bundle, h) for h in HORIZONS[1:]])
    return {"one": one, "others": others}


def measure_next_day(folder: Path) -> dict[str, Seconds]:
    """The day after a run, by an engine that finds that run's answers on disk; and what stands beside its forecast."""
    from forex_core.briefing.document import briefing_document
    from forex_core.briefing.position import Position
    from forex_core.types import HORIZONS

    before, today = last_days(2)
    engine(folder).forecast(embedded(before), HORIZONS[0])
    bundle = embedded(today)
    made = engine(folder)
    next_day = timed(partial(made.forecast, bundle, HORIZONS[0]))
    run, position = made.forecast(bundle, HORIZONS[-1]), Position(float(bundle.spot[-1]), 1e6)
    beside = timed(partial(briefing_document, run, bundle, made, position=position))
    return {"next day": next_day, "beside": beside}


def measure_imports(_: Path) -> dict[str, Seconds]:
    """What an interpreter imports before the first member answers, numerical libraries included."""

    def imports() -> None:
        from forex_core.config import ChronosConfig, EngineConfig
        from forex_core.engine import build_members, import_libraries

        import_libraries(build_members(EngineConfig(), ChronosConfig()))

    return {"imports": timed(imports)}


def measure_origins(_: Path) -> dict[str, Seconds]:
    """A cold pass by the number of grid origins behind today."""
    from forex_core.types import HORIZONS

    bundle = embedded()
    engines = {n: engine(origins=n) for n in ORIGINS}
    return {str(n): timed(partial(made.forecast, bundle, HORIZONS[0])) for n, made in engines.items()}


def measure_history(_: Path) -> dict[str, Seconds]:
    """A cold pass by the rows of history of a synthetic pair with three drivers."""
    from forex_core.testing import synthetic_bundle
    from forex_core.types import HORIZONS

    made = engine(origins=HISTORY_ORIGINS)
    bundles = {rows: synthetic_bundle(rows) for rows in HISTORY}
    return {str(rows): timed(partial(made.forecast, b, HORIZONS[0])) for rows, b in bundles.items()}


def measure_daily(folder: Path) -> dict[str, Seconds]:
    """Each of many runs on successive days with one cache; the first is cold."""
    from forex_core.types import HORIZONS

    bundles = [embedded(day) for day in last_days(DAILY_RUNS[-1])]
    made = engine(folder)
    return {str(n): timed(partial(made.forecast, b, HORIZONS[0])) for n, b in enumerate(bundles, start=1)}


MEASURED: dict[str, Callable[[Path], dict[str, Seconds]]] = {
    "cold": measure_cold,
    "next day": measure_next_day,
    "imports": measure_imports,
    "origins": measure_origins,
    "history": measure_history,
    "daily": measure_daily,
}


def fresh(name: str) -> dict[str, Seconds]:
    """One measurement in an interpreter of its own, on an empty cache folder."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, "--one", name, "--folder", folder],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return {key: (wall, cpu) for key, (wall, cpu) in json.loads(done.stdout).items()}


def middle(runs: Sequence[dict[str, Seconds]], key: str) -> Seconds:
    """Medians over runs, of wall clock and processor apart."""
    return median(r[key][0] for r in runs), median(r[key][1] for r in runs)


def figures(runs: dict[str, list[dict[str, Seconds]]]) -> list[Figure]:
    """Everything that was measured, with its bound."""
    out = []

    def add(what: str, seconds: Seconds, bound: float | None = None) -> None:
        out.append(Figure(what, seconds[0], "s", bound))
        out.append(Figure("  of which processor", seconds[1], "s"))

    add("260 origins, cold", middle(runs["cold"], "one"), COLD_SECONDS)
    add("the next day, answers kept", middle(runs["next day"], "next day"), NEXT_DAY_SECONDS)
    add("what stands beside a forecast", middle(runs["next day"], "beside"), BRIEFING_SECONDS)
    add("imports, in none of the above", middle(runs["imports"], "imports"))
    one, others = middle(runs["cold"], "one"), middle(runs["cold"], "others")
    out.append(
        Figure("four horizons in one process over one", (one[1] + others[1]) / one[1], "×", FOUR_TO_ONE)
    )
    if "origins" in runs:
        by_origins = {n: middle(runs["origins"], str(n))[1] for n in ORIGINS}
        out += [Figure(f"{n} origins, cold, processor", s, "s") for n, s in by_origins.items()]
        before, middling, many = ORIGINS[-3:]
        added = (by_origins[many] - by_origins[middling]) / (many - middling)
        added_before = (by_origins[middling] - by_origins[before]) / (middling - before)
        out.append(
            Figure("what one more origin costs, of many over of few", added / added_before, "×", LINEAR)
        )
    if "history" in runs:
        out += [
            Figure(
                f"{rows} rows, {HISTORY_ORIGINS} origins, cold, processor",
                middle(runs["history"], str(rows))[1],
                "s",
            )
            for rows in HISTORY
        ]
    if "daily" in runs:
        out += [
            Figure(f"daily run {n}, processor", middle(runs["daily"], str(n))[1], "s") for n in DAILY_RUNS
        ]
        out.append(
            Figure("later half of the daily runs over the earlier", drift(runs["daily"]), "×", DAILY_DRIFT)
        )
    return out


def drift(runs: Sequence[dict[str, Seconds]]) -> float:
    """Processor seconds of the later half of the daily runs over the earlier half, without the cold one, by medians."""
    last = DAILY_RUNS[-1]
    early, late = (
        median(middle(runs, str(n))[1] for n in numbers)
        for numbers in (range(2, last // 2 + 1), range(last // 2 + 1, last + 1))
    )
    return late / early


def chart(runs: dict[str, list[dict[str, Seconds]]]) -> str:
    """Seconds against origins, history and past daily runs, as SVG."""
    import altair as alt

    from forex_core.report.charts import CONFIG, FORECAST
    from forex_core.report.drawing import draw

    def panel(name: str, xs: Sequence[int], title: str, axis: str) -> alt.Chart:
        rows = [{"x": x, "seconds": round(middle(runs[name], str(x))[1], 3)} for x in xs]
        return (
            alt.Chart(alt.Data(values=rows), width=220, height=200, title=title)
            .mark_line(point=alt.OverlayMarkDef(color=FORECAST), color=FORECAST)
            .encode(
                x=alt.X("x:Q", title=axis, axis=alt.Axis(tickCount=5, format="d")),
                y=alt.Y("seconds:Q", title="processor seconds", scale=alt.Scale(zero=True, nice=True)),
            )
        )

    daily = range(2, DAILY_RUNS[-1] + 1)
    panels = alt.hconcat(
        panel("origins", ORIGINS, "Cold, by origins", "grid origins"),
        panel("history", HISTORY, f"Cold, {HISTORY_ORIGINS} origins, by history", "rows of history"),
        panel("daily", daily, "Next day, by past daily runs", "daily run"),
        spacing=30,
    )
    return draw({"speed": panels.to_dict() | {"config": CONFIG, "background": "#ffffff"}}).svg["speed"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one run of the bounds in seconds, no curves")
    parser.add_argument("--runs", type=int, default=3, help="runs of which the median is judged")
    parser.add_argument("--charts", action="store_true", help=f"write {FIGURES.name}/speed.svg")
    parser.add_argument("--one", choices=MEASURED, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        json.dump(MEASURED[arguments.one](arguments.folder), sys.stdout)
        return 0
    if arguments.quick and arguments.charts:
        parser.error("--charts needs the curves that --quick leaves out")
    counts = dict.fromkeys(("cold", "next day", "imports"), 1 if arguments.quick else arguments.runs)
    if not arguments.quick:
        counts |= dict.fromkeys(("origins", "history", "daily"), 1)
    runs = {name: [fresh(name) for _ in range(count)] for name, count in counts.items()}
    if arguments.charts:
        FIGURES.mkdir(exist_ok=True)
        (FIGURES / "speed.svg").write_text(chart(runs), encoding="utf-8")
    return judge(f"Engine, {PAIR} from the embedded rates, {date.today():%Y-%m-%d}", figures(runs))


if __name__ == "__main__":
    sys.exit(main())
