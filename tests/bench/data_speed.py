"""What the store of observations costs: a load, an import, a summary; and how a load grows with the revisions.

A load is of ten series over fifteen years of weekdays; an import is of a million observations, 100 series of 10,000
days and one series of 700,000 days with 300,000 revisions, each into an empty store and once more. SQLite, and
PostgreSQL where there is a server to start. Prints the databases' plans of a load. Exit code 1 past a bound.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from bounds import Figure, judge
from servers import postgres_server

LOAD_S = 0.3
IMPORT_S = 20.0
SUMMARY_S = 0.5
STEP = 2.25
"""A day that was revised has two prints to be read in place of one, and they are put in order."""
GROWTH = 1.25
REVISIONS = 50
WINDOW_DAYS = 19
"""As for a driver that is carried for 15 days."""
AS_OF = {
    "today": pd.Timestamp("2030-01-01", tz="UTC"),
    "2020": pd.Timestamp("2020-01-01", tz="UTC"),
}


def series(name: str, days: Any, prints: int = 1) -> Any:
    """So many prints of each day, the first at 22:00 UTC, the others every 20 days."""
    from forex_core.data.observations import Observations

    number = np.tile(np.arange(prints), len(days))
    dates = np.repeat(days, prints)
    known = dates.astype("M8[us]") + np.timedelta64(22, "h") + number * np.timedelta64(20, "D")
    values = 1.0 + np.arange(len(dates)) % 997 + number
    return Observations(
        name, "import", pd.DatetimeIndex(dates), values, pd.DatetimeIndex(known).tz_localize("UTC")
    )


def weekdays() -> Any:
    days = np.arange("2011-01-03", "2026-01-03", dtype="M8[D]")
    return days[np.is_busday(days)]


def imports(scale: float) -> dict[str, list[Any]]:
    days = np.arange("1998-01-01", "2026-01-01", dtype="M8[D]")[: int(10_000 * scale)]
    long = np.arange("0100-01-01", "2026-01-01", dtype="M8[D]")[: int(500_000 * scale)]
    return {
        "100 series": [series(f"s{k}", days) for k in range(100)],
        "one series, two prints a day": [series("long", long, 2)],
    }


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(address: Callable[[], str], what: str, scale: float, repeats: int) -> list[Figure]:
    from forex_core.data.store import ObservationStore

    figures = []
    names = [f"s{k}" for k in range(10)]
    windows = dict.fromkeys(names, WINDOW_DAYS)
    stores = {}
    for revisions in (0, 1, REVISIONS):
        stores[revisions] = ObservationStore(address())
        stores[revisions].record([series(name, weekdays(), revisions + 1) for name in names], explicit=True)
    loads = {when: dict.fromkeys(stores, float("inf")) for when in AS_OF}
    # In turn, so that what else the machine does meets all of them.
    for _ in range(repeats):
        for when, as_of in AS_OF.items():
            for revisions, store in stores.items():
                spent = seconds(lambda: store.read(names, as_of, windows))  # noqa: B023
                loads[when][revisions] = min(loads[when][revisions], spent)
    print(
        f"What {what} does for a load:\n{stores[REVISIONS].explain(names[0], AS_OF['2020'], WINDOW_DAYS)}\n"
    )
    for when, by_revisions in loads.items():
        none, one, many = by_revisions.values()
        figures += [
            Figure(f"{what}: load as of {when}, no revisions", none, "s", LOAD_S),
            Figure(f"{what}: load as of {when}, 1 revision over none", one / none, "times", STEP),
            Figure(f"{what}: load as of {when}, {REVISIONS} over 1", many / one, "times", GROWTH),
        ]
    for label, observations in imports(scale).items():
        store = ObservationStore(address())
        for time_ in ("first", "again"):
            spent = seconds(lambda: store.record(observations, explicit=True))  # noqa: B023
            figures.append(
                Figure(f"{what}: import of a million, {label}, {time_}", spent, "s", IMPORT_S * scale)
            )
        spent = min(seconds(lambda: store.summary(AS_OF["today"])) for _ in range(3))  # noqa: B023
        figures.append(Figure(f"{what}: summary of a million, {label}", spent, "s", SUMMARY_S * scale))
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="loads of each kind; the fastest is judged")
    parser.add_argument("--quick", action="store_true", help="a tenth of the imports, without PostgreSQL")
    chosen = parser.parse_args(arguments)
    scale = 0.1 if chosen.quick else 1.0
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(
            lambda: f"sqlite:///{folder}/{uuid.uuid4().hex}.db", "SQLite", scale, chosen.repeats
        )
    if not chosen.quick:
        with postgres_server() as server:
            if server is not None:

                def address() -> str:
                    name = f"bench_{uuid.uuid4().hex}"
                    server.execute(f"CREATE DATABASE {name}")
                    return str(server.uri(name))

                figures += measure(address, "PostgreSQL (no fsync)", scale, chosen.repeats)
    return judge("store of observations", figures)


if __name__ == "__main__":
    sys.exit(main())
