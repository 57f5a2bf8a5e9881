"""What the dashboard costs on a deployment of years: 5,000 runs, and 200,000 rows of paths in the ledger.

Seconds to the first byte of pages, made anew and kept, of the server as a user starts it; its memory; kilobytes of
every page; seconds of the table in a terminal. Exit code 1 past a bound.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import psutil
import sqlalchemy as sa
from bounds import Figure, judge

from forex_core.append_only import text_of
from forex_core.calendars import origin_instant
from forex_core.config import load_settings
from forex_core.data.catalogue import entry as catalogued
from forex_core.data.observations import Observations
from forex_core.data.store import ObservationStore
from forex_core.ledger import Ledger, tables
from forex_core.ledger.scoring import score
from forex_core.types import HORIZONS, Pair

PAIRS = (Pair("USD", "CLP"), Pair("EUR", "USD"))
PUBLICATIONS = {7: 475, 15: 300, 30: 325, 90: 1400}
"""Of each pair, by days of the horizon: one each weekday, back from the last."""
LAST = date(2026, 11, 27)
MEMBERS = ("random_walk", "arima_garch", "ets", "theta", "var", "drivers", "momentum", "gradient_boosting")
LEVELS = (0.01, 0.025, *(round(0.05 * i, 2) for i in range(1, 20)), 0.975, 0.99)
INSERTED = 5000

PAGES = ("", "usdclp-7d.html", "usdclp-90d.html", "usdclp-90d-2025.html", "health.html", "runs.html")
WARM_S, MADE_S, PAGE_KB, MEMORY_MB, TABLE_S = 1.0, 8.0, 1500.0, 500.0, 15.0
"""A page that is kept, and the overview also made anew; another page made anew; the largest page; the server;
`forex dashboard` from start to exit."""


def build_ledger(url: str, fewer: int = 1) -> tuple[int, int]:
    """How many publications and rows of paths, with outcomes and scores, written at once without their chains.

    Their rates are in the store of observations too.
    """
    Ledger(url).kinds()
    engine = sa.create_engine(url)
    draw = np.random.default_rng(7)
    heads: list[dict[str, Any]] = []
    paths: list[dict[str, Any]] = []
    came: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    weekdays = pd.bdate_range(end=pd.Timestamp(LAST) + pd.Timedelta(days=100), periods=1600)
    for pair in PAIRS:
        start, sigma = (950.0, 0.006) if pair.quote == "CLP" else (1.1, 0.004)
        rate = start * np.exp(np.cumsum(sigma * draw.standard_normal(len(weekdays))))
        known = {day.date(): k for k, day in enumerate(weekdays)}
        first = len(came)
        for day, k in known.items():
            if day <= LAST:
                at = text_of(origin_instant(pair, day))
                row = {
                    "number": len(came) + 1,
                    "pair": str(pair),
                    "rate": "close",
                    "previous": "",
                    "digest": "",
                }
                came.append(
                    row
                    | {"target_date": day.isoformat(), "value": rate[k]}
                    | dict.fromkeys(("known_at", "as_of", "recorded_at"), at)
                )
        for horizon in HORIZONS:
            steps = horizon.evaluation_steps
            for origin in [day for day in known if day <= LAST][-PUBLICATIONS[horizon.days] // fewer :]:
                k, number = known[origin], len(heads) + 1
                close = rate[k]
                at = origin_instant(pair, origin)
                weights = draw.dirichlet(np.full(len(MEMBERS), 5.0))
                heads.append(
                    {
                        "number": number,
                        "run_id": f"{number:032x}",
                        "pair": str(pair),
                        "rate": "close",
                        "horizon": str(horizon),
                        "origin": origin.isoformat(),
                        "as_of": text_of(at),
                        "published_at": text_of(at + pd.Timedelta(minutes=1)),
                        "recorded_at": text_of(at + pd.Timedelta(minutes=1)),
                        "outcome_at": text_of(at + pd.Timedelta(hours=9)),
                        "live": True,
                        "close": close,
                        "model": f"{pair.slug}-{horizon}",
                        "version": 1 + k,
                        "recipe": f"{k // 300:064x}",
                        "fingerprint": "f" * 64,
                        "verdict": "none",
                        "levels": json.dumps(LEVELS),
                        "members": json.dumps(MEMBERS),
                        "weights": json.dumps(weights.tolist()),
                        "previous": "",
                        "digest": f"{number:064x}",
                    }
                )
                root = np.sqrt(np.arange(1, steps + 1))[:, None]
                walk = close * np.exp(sigma * root * _Z)
                quantiles = close * np.exp(sigma * root * _Z + 0.0005 * draw.standard_normal())
                for h in range(steps):
                    day = weekdays[k + h + 1].date()
                    paths.append(
                        {
                            "publication": number,
                            "step": h + 1,
                            "target_date": day.isoformat(),
                            "quantiles": json.dumps(quantiles[h].tolist()),
                            "walk": json.dumps(walk[h].tolist()),
                            "medians": json.dumps([close] * len(MEMBERS)),
                        }
                    )
                    if day <= LAST:
                        one = score(quantiles[h], walk[h], LEVELS, float(rate[k + h + 1]))
                        scores.append(
                            {"publication": number, "step": h + 1, "outcome": first + known[day] + 1}
                            | vars(one)
                        )
    store = ObservationStore(url)
    for pair in PAIRS:
        name = f"{pair.slug}_close"
        seen = [one for one in came if one["pair"] == str(pair)]
        days = pd.DatetimeIndex([one["target_date"] for one in seen])
        known = catalogued(name).definition.release.instants(days)
        store.record(
            Observations(name, "yahoo", days, np.array([one["value"] for one in seen]), known),
            now=origin_instant(pair, LAST),
        )
    with engine.begin() as connection:
        for table, rows in (
            (tables.publications, heads),
            (tables.outcomes, came),
            (tables.predictions, paths),
            (tables.scores, scores),
        ):
            for k in range(0, len(rows), INSERTED):
                _insert(connection, table, rows[k : k + INSERTED])
    engine.dispose()
    return len(heads), len(paths)


def build_runs(count: int) -> None:
    """A tracking store with runs and the versions that they registered: one through the tracker, copied by its rows."""
    from mlflow import MlflowClient

    from forex_core.tracking import tracker_from_settings
    from forex_core.tracking.store import release

    settings = load_settings()
    for horizon in HORIZONS:
        tags = {"pair": "USDCLP", "horizon": str(horizon), "environment": "production", "status": "published"}
        tags |= {"published_model": f"usdclp-{horizon}", "published_version": "1"}
        with tracker_from_settings(
            settings, f"forecaster_{horizon}", run_name="template", tags=tags
        ) as tracker:
            tracker.log_params({f"param{n}": str(n) for n in range(40)} | {"origin": "2026-01-01"})
            scores = (
                "rmse",
                "mae",
                "mape",
                "crps",
                "rmse_ratio_rw",
                "crps_ratio_rw",
                "coverage_80",
                "origins",
            )
            tracker.log_metrics({f"{horizon}_{name}": 1.0 + n / 7 for n, name in enumerate(scores)})
            kinds = ("rmse", "mape", "weight")
            tracker.log_metrics({f"{name}_{kind}": 0.5 for name in MEMBERS for kind in kinds})
            run_id = str(tracker.run_id)
        client = MlflowClient(settings.mlflow_uri)
        client.create_registered_model(f"usdclp-{horizon}")
        client.create_model_version(
            f"usdclp-{horizon}",
            (settings.root / "mlflow" / "none").as_uri(),
            run_id,
            tags={f"tag{n}": str(n) for n in range(8)},
        )
        client.set_registered_model_alias(f"usdclp-{horizon}", "champion", "1")
        _copy_runs(
            settings.root / "mlflow" / "mlflow.db", f"usdclp-{horizon}", run_id, count // len(HORIZONS)
        )
    release(settings.mlflow_uri)


def _copy_runs(database: Path, model: str, run_id: str, count: int) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.row_factory = sqlite3.Row

        def copy(
            table: str, where: str, of: str, changed: Callable[[int, dict[str, Any]], dict[str, Any]]
        ) -> None:
            for row in connection.execute(f"SELECT * FROM {table} WHERE {where} = ?", (of,)).fetchall():
                names = row.keys()
                said = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
                connection.executemany(
                    said, ([*(dict(row) | changed(n, dict(row))).values()] for n in range(1, count))
                )

        def of_run(n: int, _row: dict[str, Any]) -> dict[str, Any]:
            return {"run_uuid": _run_id(run_id, n)}

        copy(
            "runs",
            "run_uuid",
            run_id,
            lambda n, row: {
                "run_uuid": _run_id(run_id, n),
                "name": f"run{n}",
                "start_time": row["start_time"] + n,
            },
        )
        for table in ("latest_metrics", "metrics", "params", "tags"):
            copy(table, "run_uuid", run_id, of_run)
        copy("model_versions", "name", model, lambda n, _: {"version": n + 1, "run_id": _run_id(run_id, n)})
        copy("model_version_tags", "name", model, lambda n, _: {"version": n + 1})


def _run_id(template: str, n: int) -> str:
    return f"{template[:24]}{n:08x}"


def _insert(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    names = list(rows[0])
    said = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    connection.exec_driver_sql(said, [tuple(row[name] for name in names) for row in rows])


_Z = np.array([NormalDist().inv_cdf(level) for level in LEVELS])


# --- Measuring


@contextmanager
def serving(data: Path) -> Iterator[tuple[int, psutil.Process]]:
    """The server on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "forex_core.cli", "dashboard", "--serve", "--port", str(port)],
        env=os.environ | {"FOREX_DATA_DIR": str(data), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def asked(port: int, path: str) -> tuple[float, int]:
    """Seconds to the first byte of a page, and its bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    started = time.perf_counter()
    connection.request("GET", f"/{path}")
    answer = connection.getresponse()
    seconds = time.perf_counter() - started
    content = answer.read()
    connection.close()
    if answer.status != http.client.OK:
        raise SystemExit(f"/{path} was answered with {answer.status}: {content[:200]!r}")
    return seconds, len(content)


def measure(data: Path) -> list[Figure]:
    """What the pages and the table cost."""
    told = []
    with serving(data) as (port, process):
        asked(port, "api/health")  # what a first answer imports is not the page's
        for path in PAGES:
            made, size = asked(port, path)
            kept = min(asked(port, path)[0] for _ in range(5))
            name = path or "overview"
            told += [
                Figure(f"{name}, made anew", made, "s", MADE_S if path else WARM_S),
                Figure(f"{name}, kept", kept, "s", WARM_S),
                Figure(f"{name}, size", size / 1000, "KB", PAGE_KB),
            ]
        told.append(Figure("server, memory", process.memory_info().rss / 1e6, "MB", MEMORY_MB))
    environment = os.environ | {"FOREX_DATA_DIR": str(data)}
    for what, arguments, bound in (
        ("forex dashboard", (), TABLE_S),
        ("forex dashboard --html", ("--html", str(data.parent / "site")), None),
    ):
        started = time.perf_counter()
        line = [sys.executable, "-m", "forex_core.cli", "dashboard", *arguments]
        subprocess.run(line, env=environment, check=True, stdout=subprocess.DEVNULL)
        told.append(Figure(what, time.perf_counter() - started, "s", bound))
    files = [file.stat().st_size for file in (data.parent / "site").glob("*.html")]
    return [
        *told,
        Figure("pages of the site", len(files), ""),
        Figure("largest of them", max(files) / 1000, "KB", PAGE_KB),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200 runs, a fifth of the ledger")
    parser.add_argument("--folder", type=Path, help="where to work; by default the temporary folder")
    chosen = parser.parse_args(arguments)
    home = Path(tempfile.mkdtemp(prefix="forex-dashboard-", dir=chosen.folder))
    try:
        os.environ["FOREX_DATA_DIR"] = str(home / "data")
        forecasts, rows = build_ledger(load_settings().store_url, 5 if chosen.quick else 1)
        runs = 200 if chosen.quick else 5000
        build_runs(runs)
        built = [
            Figure("runs", runs, ""),
            Figure("forecasts", forecasts, ""),
            Figure("rows of paths", rows, ""),
        ]
        found = measure(home / "data")
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return judge("dashboard", [*built, *found])


if __name__ == "__main__":
    sys.exit(main())
