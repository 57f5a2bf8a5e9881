"""Tables of a tracking store's content, as a terminal of 80 columns shows them."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from forex_core.report import listing

WIDTH = 80


def run(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"{number:x}bcdef01" * 4,
        "started": "2026-11-20T16:14:58.123+00:00",
        "status": "FINISHED",
        "environment": "development",
        "pair": "USDCLP",
        "horizon": "7d",
        "origin": "2026-11-20",
        "scores": {"rmse": 0.0123, "mape": 11.25, "rmse_ratio_rw": 0.97},
        "published_version": 123,
        "version": None,
        "aliases": ["champion"],
        "marks": [],
        "tags": {},
        "error": None,
    } | changes


def shown(parts: list[Any]) -> list[str]:
    """Lines of the tables; running text may wrap where the terminal likes."""
    file = io.StringIO()
    console = Console(file=file, width=WIDTH)
    for part in parts:
        if not isinstance(part, Text):
            console.print(part)
    return file.getvalue().splitlines()


def words(lines: list[str]) -> set[str]:
    return set(re.split(r"\s+", " ".join(lines)))


ENVIRONMENTS = ("development", "production", "staging")


@pytest.mark.parametrize("pairs", [("USDCLP",), ("USDCLP", "EURUSD")])
@pytest.mark.parametrize("environments", [ENVIRONMENTS[:1], ENVIRONMENTS])
@pytest.mark.parametrize("status", ["FINISHED", "SCHEDULED"])
def test_runs_keep_their_words_whole(
    pairs: tuple[str, ...], environments: tuple[str, ...], status: str
) -> None:
    rows = [
        run(number, pair=pairs[number % len(pairs)], environment=environments[number % len(environments)])
        | {"status": status}
        for number in range(6)
    ]
    parts = listing.runs_table({"runs": rows, "pair": None, "horizon": "7d", "status": None})
    lines = shown(parts)
    assert max(map(cell_len, lines)) <= WIDTH
    expected = {row["id"][:8] for row in rows} | {"2026-11-20", "16:14", status, "0.01230", "0.970", "v123*"}
    assert expected <= words(lines)
    below = [str(part) for part in parts if isinstance(part, Text)]
    for name in environments:
        own = [row["id"][:8] for row in rows if row["environment"] == name]
        line = f"{name}: {' '.join(own)}"
        assert (line in below) == (len(environments) > 1)
        assert (name in words(lines)) == (len(environments) == 1), "in the title"


@pytest.mark.parametrize("count", [2, 5, 6, 12])
def test_compared_runs_keep_their_words_whole(count: int) -> None:
    rows = [run(number) for number in range(count)]
    models = ("ensemble", "driver_regression", "challenger_driver_regression")
    params = {
        "as_of": [f"2026-11-{10 + number}T11:00:00+00:00" for number in range(count)],
        "settings.engine.min_scored_origins": ["104", *[None] * (count - 1)],
        "settings.engine.members": ['["random_walk", "driver_regression"]'] * (count - 1) + ["[]"],
    }
    document = {
        "runs": rows,
        "models": {name: [{"rmse": 1234.5, "mape": 11.25, "weight": 0.25}] * count for name in models},
        "params": params,
        "remarks": [],
    }
    lines = shown(listing.comparison_tables(document))
    assert max(map(cell_len, lines)) <= WIDTH
    for name in ("0bcdef01", f"{count - 1:x}bcdef01"):
        assert sum(line.split().count(name) for line in lines) == 2 + len(params), "cut off nowhere"
    assert {*models, *params, *params["as_of"], '["random_walk",', '"driver_regression"]'} <= words(lines)


def test_experiments_and_versions_keep_their_words_whole() -> None:
    experiments = [
        {
            "name": name,
            "id": "12",
            "finished": 1000,
            "failed": 100,
            "other": 10,
            "last_run": "2026-11-20T16:14:58+00:00",
            "artifact_location": f"file:///srv/forex/data/mlflow/mlruns/{name}",
        }
        for name in ("forecaster_90d", "operations")
    ]
    lines = shown(listing.experiments_table({"experiments": experiments}))
    assert max(map(cell_len, lines)) <= WIDTH
    assert {row["artifact_location"] for row in experiments} <= words(lines)
    version = {
        "name": "usdclp-30d",
        "version": 1234,
        "aliases": ["challenger", "previous"],
        "run_id": "abcdef01" * 4,
        "recipe": "fedcba98" * 8,
        "trained_until": "2026-11-20",
        "created": "2026-11-21T08:00:00+00:00",
        "published": "true",
        "pin": None,
        "rolled_back": None,
        "status": "READY",
    }
    lines = shown(listing.models_table({"models": [version]}))
    assert max(map(cell_len, lines)) <= WIDTH
    expected = {"usdclp-30d", "1234", "challenger", "previous", "abcdef01", "fedcba98", "2026-11-21", "yes"}
    assert expected <= words(lines)
