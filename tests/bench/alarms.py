"""How often the monitor's alarms err where nothing is wrong, and how soon they come where something is, simulated.

Daily moves are normal, or those of a GARCH(1, 1) with Student's t and bands by the random walk's σ, of parameters at
either end of those behind the thresholds; widths of bands are such that they hold four times in five over all. Prints
the tables of docs/methods.md.

    python tests/bench/alarms.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from forex_core.config import MonitorConfig
from forex_core.models.base import ewma
from forex_core.monitoring import DRIFT_DAYS, YEAR, Record, changes, readings
from forex_core.types import HORIZONS, Array, Horizon

GAPS = dict(zip(HORIZONS, (1.0, 2.5, 5.0, 5.0), strict=True))
"""Weekdays between origins by the schedules of deployments/prefect.yaml."""
CONFIG = MonitorConfig()
Draw = Callable[[np.random.Generator, int], tuple[Array, Array]]
TAIL = 80
DRIVERS = 5
"""Of a bundle, which share the false alarms of one rate."""


def normal(draw: np.random.Generator, rows: int) -> tuple[Array, Array]:
    """Moves and the σ that bands are made with, [rows]."""
    return draw.standard_normal(rows), np.ones(rows)


def garch(
    draw: np.random.Generator, rows: int, alpha: float, beta: float, freedom: float
) -> tuple[Array, Array]:
    warm = 300
    shocks = draw.standard_t(freedom, rows + warm) * np.sqrt((freedom - 2) / freedom)
    variance, moves = 1.0, np.empty(rows + warm)
    for t, shock in enumerate(shocks):
        moves[t] = np.sqrt(variance) * shock
        variance = 1 - alpha - beta + alpha * moves[t] ** 2 + beta * variance
    return moves[warm:], expected(moves)[warm:]


def expected(moves: Array) -> Array:
    """σ of the random walk at the end of each day."""
    return np.nan_to_num(np.sqrt(ewma(moves**2, 0.985, 60)), nan=1.0)


mild: Draw = partial(garch, alpha=0.04, beta=0.94, freedom=8.0)
harsh: Draw = partial(garch, alpha=0.075, beta=0.905, freedom=5.0)
MOVES = {"normal": normal, "GARCH, mild": mild, "GARCH, harsh": harsh}


def scores(moves: Array, sigma: Array, at: npt.NDArray[np.intp], steps: int) -> Array:
    """What came of forecasts from rows `at`, in units of what was expected."""
    walked = np.concatenate([[0.0], moves.cumsum()])
    return np.asarray((walked[at + steps] - walked[at]) / (sigma[np.maximum(at - 1, 0)] * np.sqrt(steps)))


@lru_cache
def band(draw_moves: Draw, steps: int) -> float:
    """What four in five scores lie within, over ten thousand years of origins."""
    moves, sigma = draw_moves(np.random.default_rng([3, steps]), 400_000)
    return float(np.quantile(np.abs(scores(moves, sigma, np.arange(len(moves) - steps), steps)), 0.8))


def records(
    draw_moves: Draw, moves: Array, sigma: Array, horizon: Horizon, wrong: float = 0.0
) -> tuple[Record, Record]:
    """Forecasts at the first and at the last lead, whose median leans by some .7 σ of the lead, by chance.

    The leans have nothing to do with what comes; from the second year on they cost `wrong` times what leans of that
    size do that are all wrong.
    """
    at = np.floor(np.arange(0, len(moves) - TAIL, GAPS[horizon])).astype(int)
    origins = np.busday_offset(np.datetime64("2020-01-01"), at, roll="forward")
    leans = np.random.default_rng(len(at)).standard_normal(len(at)) * np.sqrt(0.5)
    cost = np.where(at >= YEAR, wrong, 0.0)
    made = []
    for steps in (1, horizon.evaluation_steps):
        z = scores(moves, sigma, at, steps)
        made.append(Record(steps, origins, np.abs(z) > band(draw_moves, steps), leans * (cost * leans - z)))
    return made[0], made[1]


def first_alarms(one: Record, end: Record, since: int) -> dict[str, int]:
    """Weekdays from row `since` to the first alarm of each kind, looked at with every outcome."""
    rows = np.busday_count(np.datetime64("2020-01-01"), end.origins)
    found: dict[str, int] = {}
    for k in np.flatnonzero(rows >= since):
        seen = (
            Record(r.steps, *(v[: k + 1] for v in (r.origins, r.misses, r.differences))) for r in (one, end)
        )
        for reading in readings(*seen, {}, CONFIG):
            if reading.raised:
                found.setdefault(reading.kind, int(rows[k]) - since)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--years", type=int, default=100, help="simulated for each figure")
    years = parser.parse_args().years
    console = Console(width=110)
    table = Table(title=f"Share of {years} third years with an alarm where nothing is wrong")
    for column in ("moves", "horizon", "narrow bands", "wide bands", "no skill", "any"):
        table.add_column(column, justify="right")
    for name, draw_moves in MOVES.items():
        for horizon in HORIZONS:
            kinds = {"narrow bands": 0, "wide bands": 0, "no skill": 0}
            some = 0
            for seed in range(years):
                moves, sigma = draw_moves(np.random.default_rng([7, seed]), 3 * YEAR + TAIL)
                found = first_alarms(*records(draw_moves, moves, sigma, horizon), 2 * YEAR)
                some += bool(found)
                for kind in found:
                    kinds[kind] += 1
            table.add_row(
                name,
                str(horizon),
                *(f"{count / years:.2f}" for count in kinds.values()),
                f"{some / years:.2f}",
            )
    console.print(table)
    delays = Table(
        title="Weekdays until half of the runs have the alarm (of those that have it in two years)"
    )
    for column in ("what changes", "horizon", "alarm", "median", "share"):
        delays.add_column(column, justify="right")
    changes = (("moves 1.25 times", 1.25, "narrow bands"), ("moves 1.5 times", 1.5, "narrow bands"))
    changes += (("moves 2 times", 2.0, "narrow bands"), ("moves half", 0.5, "wide bands"))
    for what, scale, kind in changes:
        for horizon in HORIZONS:
            came = []
            for seed in range(years // 2):
                moves, sigma = normal(np.random.default_rng([11, seed]), 3 * YEAR + TAIL)
                moves[YEAR:] *= scale
                came.append(first_alarms(*records(normal, moves, sigma, horizon), YEAR).get(kind))
            delays.add_row(what, str(horizon), kind, *_told(came))
    for wrong in (1.0, 0.5):
        for horizon in HORIZONS:
            came = []
            for seed in range(years // 2):
                moves, sigma = normal(np.random.default_rng([13, seed]), 3 * YEAR + TAIL)
                found = first_alarms(*records(normal, moves, sigma, horizon, wrong), YEAR)
                came.append(found.get("no skill"))
            delays.add_row(
                f"leans {'all' if wrong == 1 else 'half'} wrong", str(horizon), "no skill", *_told(came)
            )
    console.print(delays)
    console.print(of_the_data(years))


def of_the_data(years: int) -> Table:
    """The alarms of the data: how often each errs, and when a change of the last year is noticed."""
    table = Table(title=f"The data: share of {years} years with the alarm, and weekdays to it")
    for column in ("moves", "what changes", "alarm", "median", "share"):
        table.add_column(column, justify="right")
    cases = [("nothing", 1.0, 0.0, kind) for kind in ("volatility rate", "returns rate", "frozen rate")]
    cases += [(f"moves {scale:g} times", scale, 0.0, "volatility rate") for scale in (2.0, 3.0, 5.0, 10.0)]
    cases += [(f"drift of {lean:g} σ a day", 1.0, lean, "returns rate") for lean in (0.5, 1.0, 2.0)]
    cases += [("it stands still", 0.0, 0.0, "frozen rate")]
    cases += [(what, scale, lean, kind.replace("rate", "driver")) for what, scale, lean, kind in cases]
    for name, draw_moves in MOVES.items():
        for what, scale, lean, kind in cases:
            found = [
                first_of_the_data(draw_moves, np.random.default_rng([19, seed]), scale, lean, kind)
                for seed in range(years)
            ]
            table.add_row(name, what, kind, *_told(found))
    return table


def first_of_the_data(
    draw_moves: Draw, draw: np.random.Generator, scale: float, lean: float, kind: str
) -> int | None:
    """Weekdays from the beginning of the last year of six to the alarm; a row in a hundred has the value of before."""
    series = kind.split()[-1]
    share = CONFIG.false_alarms_a_year / (1 if series == "rate" else DRIVERS)
    moves, _ = draw_moves(draw, 6 * YEAR + DRIFT_DAYS + 100)
    moves[draw.random(len(moves)) < 0.01] = 0.0
    moves[-YEAR:] = moves[-YEAR:] * scale + lean
    u = (moves[1:] / expected(moves)[:-1])[100:]
    days = np.busday_offset(np.datetime64("2020-01-01"), np.arange(len(u)), roll="forward")
    for k in range(len(u) - YEAR, len(u)):
        seen = changes(series, days[: k + 1], u[: k + 1], {}, share)
        if any(r.kind == kind and r.raised for r in seen):
            return k - (len(u) - YEAR) + 1
    return None


def _told(came: list[int | None]) -> tuple[str, str]:
    known = sorted(day for day in came if day is not None)
    share = len(known) / len(came)
    return (str(known[len(came) // 2]) if share > 0.5 else "—"), f"{share:.2f}"


if __name__ == "__main__":
    main()
