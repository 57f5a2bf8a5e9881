"""How often the monitor's alarms err where nothing is wrong, and how soon they come where something is, simulated.

Daily moves are normal, or those of a GARCH(1, 1) with Student's t and bands by the random walk's σ: of the parameters
behind the thresholds together, or of those at either end of them; widths of bands are such that they hold four times in
five over all. An alarm comes on the day of the outcome that raises it. Prints the tables of docs/methods.md.

    python tests/bench/alarms.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from forex_core.config import MonitorConfig
from forex_core.evaluation import cosine_statistic
from forex_core.models.base import ewma
from forex_core.monitoring import DRIFT_DAYS, LOOKED_BACK, YEAR, Record, changes, readings
from forex_core.types import HORIZONS, Array, Horizon

GAPS = dict(zip(HORIZONS, (1.0, 2.5, 5.0, 5.0), strict=True))
"""Weekdays between origins by the schedules of deployments/prefect.yaml."""
CONFIG = MonitorConfig()
START = np.datetime64("2020-01-01")
TAIL = 80
DRIVERS = 5
"""Of a bundle, which share the false alarms of one rate."""
SHIFTS = {"narrow bands": (1, 0.1), "wide bands": (-1, 0.05)}
"""Direction and allowance of the sums of misses, as docs/methods.md has them."""
Walks = tuple[Array, Array]
"""Moves [N, rows], and the σ [N, rows] before each that bands are made with."""
Draw = Callable[[np.random.Generator, int, int], Walks]


def normal(draw: np.random.Generator, count: int, rows: int) -> Walks:
    return draw.standard_normal((count, rows)), np.ones((count, rows))


def garch(
    draw: np.random.Generator, count: int, rows: int, alpha: tuple[float, float], freedom: float
) -> Walks:
    """α between two bounds, α + β = .98."""
    alphas = draw.uniform(*alpha, count)
    variance, expected = np.ones(count), np.ones(count)
    moves, sigma = np.empty((count, rows)), np.empty((count, rows))
    for t in range(-400, rows):
        move = np.sqrt(variance * (freedom - 2) / freedom) * draw.standard_t(freedom, count)
        if t >= 0:
            moves[:, t], sigma[:, t] = move, np.sqrt(expected)
        variance = 0.02 + alphas * move**2 + (0.98 - alphas) * variance
        expected = 0.985 * expected + 0.015 * move**2
    return moves, sigma


MOVES: Mapping[str, Draw] = {
    "normal": normal,
    "all": partial(garch, alpha=(0.03, 0.08), freedom=5.0),
    "mild": partial(garch, alpha=(0.04, 0.04), freedom=8.0),
    "harsh": partial(garch, alpha=(0.075, 0.075), freedom=5.0),
}


@dataclass(frozen=True)
class Lead:
    """N records of forecasts at one lead: from rows `at` [n], what came of them [N, n]."""

    horizon: Horizon
    steps: int
    at: npt.NDArray[np.intp]
    misses: npt.NDArray[np.bool_]
    differences: Array

    def record(self, which: int, count: int) -> Record:
        """The first so many of one, as the monitor has them."""
        origins = np.busday_offset(START, self.at[:count], roll="forward")
        return Record(self.steps, origins, self.misses[which, :count], self.differences[which, :count])


def leads(
    walks: Walks, horizon: Horizon, *, scale: float = 1.0, wrong: float = 0.0, since: int = 0
) -> tuple[Lead, Lead]:
    """Forecasts at the first and at the last lead, whose median leans by some .7 σ of the lead, by chance.

    From row `since` on moves are `scale` times what they were, and the leans, which have nothing to do with what
    comes, cost `wrong` times what leans of that size do that are all wrong.
    """
    moves, sigma = walks
    at = np.floor(np.arange(0, moves.shape[1] - TAIL, GAPS[horizon])).astype(np.intp)
    scaled = np.where(np.arange(moves.shape[1]) >= since, scale, 1.0) * moves
    leans = np.random.default_rng([5, len(at)]).standard_normal((len(moves), len(at))) * np.sqrt(0.5)
    cost = np.where(at >= since, wrong, 0.0)

    def at_lead(steps: int) -> Lead:
        was, came = (_ahead(m, at, steps) / (sigma[:, at] * np.sqrt(steps)) for m in (moves, scaled))
        misses = np.abs(came) > np.quantile(np.abs(was), 0.8)
        return Lead(horizon, steps, at, misses, leans * (cost * leans - came))

    return at_lead(1), at_lead(horizon.evaluation_steps)


def _ahead(moves: Array, at: npt.NDArray[np.intp], steps: int) -> Array:
    walked = np.concatenate([np.zeros((len(moves), 1)), moves.cumsum(axis=1)], axis=1)
    return np.asarray(walked[:, at + steps] - walked[:, at])


def alarms(first: Lead, last: Lead, since: int, until: int) -> dict[str, Array]:
    """[N] days from row `since` to the outcome that raises each alarm first, before row `until`; inf for none."""
    found = {}
    for kind in SHIFTS:
        came = [_first(lead, _sums(lead, kind, since, until), since) for lead in (first, last)]
        found[kind] = np.minimum(*came)
    found["no skill"] = _first(last, _skill(last, since, until), since)
    return found


def _first(lead: Lead, looks: Iterator[tuple[int, npt.NDArray[np.bool_]]], since: int) -> Array:
    days = np.full(len(lead.misses), np.inf)
    for k, raised in looks:
        day = float(lead.at[k] + lead.steps - since)
        days[raised & ~np.isfinite(days)] = day
    return days


def _looked_at(lead: Lead, since: int, until: int) -> npt.NDArray[np.intp]:
    return np.flatnonzero((lead.at + lead.steps >= since) & (lead.at + lead.steps < until))


def _threshold(lead: Lead, count: int, kind: str) -> float:
    """That of the monitor itself: it hangs on the days of the forecasts alone."""
    seen = lead.record(0, count)
    return next(r.threshold for r in readings(seen, seen, {}, CONFIG) if r.kind == kind)


def _sums(lead: Lead, kind: str, since: int, until: int) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    sign, allowance = SHIFTS[kind]
    steps = sign * (lead.misses - 0.2) - allowance
    plain = np.concatenate([np.zeros((len(steps), 1)), steps.cumsum(axis=1)], axis=1)
    threshold = _threshold(lead, len(lead.at), kind)
    for k in _looked_at(lead, since, until):
        start = np.searchsorted(lead.at, lead.at[k] - (LOOKED_BACK - lead.steps), side="right")
        yield int(k), np.round(plain[:, k + 1] - plain[:, start : k + 2].min(axis=1), 9) > threshold


def _skill(lead: Lead, since: int, until: int) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    for k in _looked_at(lead, since, until):
        start = int(np.searchsorted(lead.at, lead.at[k] - YEAR, side="right"))
        if k + 1 - start < CONFIG.min_forecasts:
            continue
        threshold = _threshold(lead, int(k) + 1 if start == 0 else len(lead.at), "no skill")
        statistic, _ = cosine_statistic(lead.differences[:, start : k + 1], lead.steps, GAPS[lead.horizon])
        yield int(k), statistic > threshold


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--years", type=int, default=1000, help="simulated for each figure of the forecasts")
    years = parser.parse_args().years
    console = Console(width=110)
    console.print(of_nothing(years))
    console.print(of_changes(years // 4))
    console.print(of_the_data(min(years, 60)))


def of_nothing(years: int) -> Table:
    """The share of years with each alarm where nothing is wrong, by horizon and of all together."""
    table = Table(title=f"Share of {years} third years with an alarm where nothing is wrong")
    for column in ("moves", "horizon", "narrow bands", "wide bands", "no skill", "any", "narrow or no skill"):
        table.add_column(column, justify="right")
    for name, draw in MOVES.items():
        walks = draw(np.random.default_rng(7), years, 3 * YEAR + TAIL)
        every = np.zeros((len(HORIZONS), 3, years), dtype=bool)
        for n, horizon in enumerate(HORIZONS):
            came = alarms(*leads(walks, horizon), 2 * YEAR, 3 * YEAR)
            every[n] = np.isfinite([*came.values()])
            table.add_row(name, str(horizon), *_shares(every[n]))
        table.add_row(name, "any of them", *_shares(every.any(axis=0)), end_section=True)
    return table


def _shares(raised: npt.NDArray[np.bool_]) -> list[str]:
    """Of each alarm, of any, and of those that a rollback follows where the settings say so: [3, N]."""
    narrow, _, no_skill = raised
    return [f"{one.mean():.3f}" for one in (*raised, raised.any(axis=0), narrow | no_skill)]


CHANGES: Mapping[str, tuple[float, float, str]] = {
    "moves 1.25 times": (1.25, 0.0, "narrow bands"),
    "1.5 times": (1.5, 0.0, "narrow bands"),
    "2 times": (2.0, 0.0, "narrow bands"),
    "half": (0.5, 0.0, "wide bands"),
    "leans all wrong": (1.0, 1.0, "no skill"),
    "half wrong": (1.0, 0.5, "no skill"),
}
"""Of moves, of leans, and the alarm that is to notice it."""


def delays(what: str, horizon: Horizon, count: int, seed: int) -> Array:
    """[N] weekdays from a change after a year to its alarm, within two years; inf for none."""
    scale, wrong, kind = CHANGES[what]
    walks = normal(np.random.default_rng(seed), count, 3 * YEAR + TAIL)
    return alarms(*leads(walks, horizon, scale=scale, wrong=wrong, since=YEAR), YEAR, 3 * YEAR)[kind]


def of_changes(count: int) -> Table:
    table = Table(
        title=f"Weekdays from a change to its alarm, and share of {count} that have it in two years"
    )
    for column in ("what changes", "horizon", "alarm", "median", "share"):
        table.add_column(column, justify="right")
    for what, (_, _, kind) in CHANGES.items():
        for horizon in HORIZONS:
            table.add_row(what, str(horizon), kind, *_told(delays(what, horizon, count, 11)))
    return table


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
    for name in ("normal", "mild", "harsh"):
        moves, _ = MOVES[name](np.random.default_rng(19), years, 6 * YEAR + DRIFT_DAYS + 100)
        for what, scale, lean, kind in cases:
            found = np.array(
                [first_of_the_data(own.copy(), scale, lean, kind, n) for n, own in enumerate(moves)]
            )
            table.add_row(name, what, kind, *_told(found))
    return table


def first_of_the_data(moves: Array, scale: float, lean: float, kind: str, seed: int) -> float:
    """Weekdays from the beginning of the last year of six to the alarm; a row in a hundred has the value of before."""
    series = kind.split()[-1]
    share = CONFIG.false_alarms_a_year / (1 if series == "rate" else DRIVERS)
    moves[np.random.default_rng(seed).random(len(moves)) < 0.01] = 0.0
    moves[-YEAR:] = moves[-YEAR:] * scale + lean
    sigma = np.nan_to_num(np.sqrt(ewma(moves**2, 0.985, 60)), nan=1.0)
    u = (moves[1:] / sigma[:-1])[100:]
    days = np.busday_offset(START, np.arange(len(u)), roll="forward")
    for k in range(len(u) - YEAR, len(u)):
        seen = changes(series, days[: k + 1], u[: k + 1], {}, share)
        if any(r.kind == kind and r.raised for r in seen):
            return k - (len(u) - YEAR) + 1
    return np.inf


def _told(days: Array) -> tuple[str, str]:
    middle = float(np.median(days))
    return (f"{middle:.0f}" if np.isfinite(middle) else "—"), f"{np.isfinite(days).mean():.2f}"


if __name__ == "__main__":
    main()
