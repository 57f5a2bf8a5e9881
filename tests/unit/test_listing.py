"""Tables of a tracking store's content, as a terminal of 80 columns shows them."""

from __future__ import annotations

import io
import json
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
        "version_aliases": [],
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


@pytest.mark.parametrize("challengers", [True, False])
@pytest.mark.parametrize("count", [2, 5, 6, 12])
def test_compared_runs_keep_their_words_whole(count: int, challengers: bool) -> None:
    rows = [run(number) for number in range(count)]
    models = ("ensemble", "driver_regression", "challenger_driver_regression")
    every = models if challengers else models[:2]
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
        "challengers": challengers,
    }
    parts = listing.comparison_tables(document)
    lines = shown(parts)
    assert max(map(cell_len, lines)) <= WIDTH
    for name in ("0bcdef01", f"{count - 1:x}bcdef01"):
        assert sum(line.split().count(name) for line in lines) == 2 + len(params), "cut off nowhere"
    assert ("challenger_driver_regression" in words(lines)) == challengers
    hint = [str(part) for part in parts if isinstance(part, Text) and "--challengers" in str(part)]
    assert len(hint) == (not challengers)
    assert {*every, *params, *params["as_of"], '["random_walk",', '"driver_regression"]'} <= words(lines)


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
            "deleted": False,
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
        "published": True,
        "pin": None,
        "rolled_back": None,
        "status": "READY",
    }
    lines = shown(listing.models_table({"models": [version]}))
    assert max(map(cell_len, lines)) <= WIDTH
    expected = {"usdclp-30d", "1234", "challenger", "previous", "abcdef01", "fedcba98", "2026-11-21", "yes"}
    assert expected <= words(lines)
    held = version | {"pin": {"by": "ana", "at": "2026-11-20T16:14:00+00:00", "reason": "hold"}}
    for aliases, notes in ((["champion"], 1), ([], 0)):
        lines = whole(listing.models_table({"models": [held | {"aliases": aliases}]}))
        said = "usdclp-30d v1234 pinned: hold (ana, 2026-11-20 16:14)"
        assert lines.count(said) == notes, "one of an earlier reign holds nothing"


def whole(parts: list[Any]) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=WIDTH)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def compared(**changes: Any) -> list[str]:
    rows = [run(number) for number in range(3)]
    document = {
        "store": "sqlite:////srv/mlflow.db",
        "runs": rows,
        "models": {},
        "params": {},
        "remarks": [],
        "challengers": False,
    }
    return whole(listing.comparison_tables(document | changes))


def test_a_long_value_and_an_empty_one_are_each_one_value() -> None:
    ids = [row["id"][:8] for row in (run(number) for number in range(3))]
    members = json.dumps([f"member_{number}" for number in range(12)])
    models = {"ensemble": [{"rmse": 1.0, "mape": None, "weight": None}] * 3}
    lines = compared(models=models, params={"members": [members, members, ""], "stale": ["a", None, None]})
    start = lines.index("members")
    assert lines[start + 1] == f"  {ids[0]} {ids[1]}"
    end = lines.index(f"  {ids[2]}", start)
    value = lines[start + 2 : end]
    assert len(value) > 1, "too long for a line"
    assert all(line.startswith("    ") and not line.startswith("     ") for line in value)
    assert json.loads(" ".join(line.strip() for line in value)) == json.loads(members)
    assert lines[end + 1] == "    –"
    assert lines[lines.index("stale") + 3 :][:2] == [f"  {ids[1]} {ids[2]}", "    –"]


def test_what_no_compared_run_has_takes_no_line() -> None:
    score = {"rmse": 1.0, "mape": 2.0, "weight": 0.5}
    lines = compared(models={"ensemble": [score] * 3, "ets": [None] * 3})
    assert "ensemble" in words(lines)
    assert "ets" not in words(lines)
    assert not any("--challengers" in line for line in lines)


def test_too_few_runs_are_told_without_an_empty_line_and_with_the_store() -> None:
    lines = compared(runs=[], remarks=["finished runs of USDCLP 7d: 0; two are needed to compare"])
    assert lines == [
        "finished runs of USDCLP 7d: 0; two are needed to compare",
        "Read from sqlite:////srv/mlflow.db.",
    ]


SQL = (
    "OperationalError: (sqlite3.OperationalError) database is locked [SQL: INSERT INTO runs (run_uuid) VALUES (?)] "
    "(Background on this error at: https://sqlalche.me/e/20/e3q8)"
)


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (SQL, "OperationalError: (sqlite3.OperationalError) database is locked"),
        ("SourceError: no file.\nGive one with --path.", "SourceError: no file."),
        ("SourceError: " + "word " * 100, None),
        ("SourceError: market.csv: no column USDCLP", "SourceError: market.csv: no column USDCLP"),
    ],
)
def test_an_error_below_a_list_is_one_short_line(error: str, short: str | None) -> None:
    document = {"runs": [run(1, error=error, status="FAILED")], "pair": None, "horizon": "7d", "status": None}
    notes = [str(part) for part in listing.runs_table(document) if isinstance(part, Text)]
    (line,) = [note for note in notes if note.startswith("1bcdef01")]
    assert "\n" not in line
    assert len(line) < 180
    if short is not None:
        assert line == f"1bcdef01 {short}"
    assert ("The whole of an error: forex runs show RUN_ID" in notes) == (short != error)


def test_each_alias_of_a_run_stands_with_its_version() -> None:
    row = run(
        1,
        published_version=4,
        version=5,
        version_aliases=["challenger"],
        marks=["challenger"],
        tags={"challenger": "5"},
        name="forecast",
        experiment="forecaster_7d",
        ended=None,
        as_of=None,
        window=None,
        metrics={},
        params={},
        artifacts=[],
    )
    lines = [" ".join(line.split()) for line in whole(listing.run_tables(row))]
    assert "published version 4, now champion" in lines
    assert "learned version 5, now challenger" in lines
    assert "mark challenger v5" in lines
    assert not any(line.startswith("window") for line in lines)
    values = {name: value for kind, name, value in listing.run_rows(row) if kind == "run"}
    assert (values["published_version"], values["aliases"]) == (4, "champion")
    assert (values["version"], values["version_aliases"]) == (5, "challenger")


def test_a_relocation_tells_in_words_what_was_changed_and_where_the_copy_is() -> None:
    from forex_core.tracking.copies import LOCATIONS

    names = [f"{table}.{column}" for table, column, _ in LOCATIONS]
    changed = dict.fromkeys(names, 0) | {"runs.artifact_uri": 7}
    document = {"from": "/old", "to": "/new", "changed": changed, "backup": "/old/before.db"}
    lines = whole(listing.relocation_table(document))
    assert ["Runs", "7"] in [line.split() for line in lines]
    assert "The database as it was: /old/before.db" in lines
    assert not any(name in line for name in names for line in lines)
    every = whole(listing.relocation_table(document | {"changed": dict.fromkeys(names, 1)}))
    assert not any(name in line for name in names for line in every), "each has words"


CLEARS = "\x1b[2J"
"""What a terminal would clear its screen for."""


def run_of_strangers(number: int) -> dict[str, Any]:
    """Whatever a run says of itself, who may log to the store may choose."""
    texts = ("status", "environment", "pair", "horizon", "origin", "error", "name", "experiment", "as_of")
    told = dict.fromkeys(texts, CLEARS) | {"window": f"1 origins from {CLEARS} to {CLEARS}"}
    names = {
        "tags": {CLEARS: CLEARS, "pinned": CLEARS},
        "params": {CLEARS: CLEARS},
        "metrics": {CLEARS: None, f"{CLEARS}b": 1.0},
        "artifacts": [{"path": CLEARS, "bytes": 1}],
    }
    more = {
        "marks": ["pinned"],
        "aliases": [CLEARS],
        "version": 2,
        "version_aliases": [CLEARS],
        "ended": None,
    }
    return run(number, **told, **names, **more)


def parts_of_strangers() -> dict[str, list[Any]]:
    rows = [run_of_strangers(1), run_of_strangers(2)]
    asked = {"store": CLEARS, "pair": CLEARS, "horizon": "7d", "status": CLEARS, "mode": "min"}
    scores = {CLEARS: [{"rmse": 1.0, "mape": 2.0, "weight": 0.5}] * 2}
    compared = {
        "runs": rows,
        "models": scores,
        "params": {CLEARS: [CLEARS, None]},
        "remarks": [CLEARS],
        "challengers": True,
    }
    experiment = {
        **dict.fromkeys(("name", "id", "artifact_location"), CLEARS),
        **dict.fromkeys(("finished", "failed", "other"), 1),
        "last_run": None,
        "deleted": True,
    }
    version = {
        **dict.fromkeys(("name", "status", "run_id", "recipe", "trained_until", "published", "pin"), CLEARS),
        "version": 1,
        "aliases": [CLEARS],
        "created": "2026-11-21T08:00:00+00:00",
        "rolled_back": {"by": CLEARS, "at": CLEARS, "reason": CLEARS},
    }
    texts = ("at", "action", "model", "by", "reason", "how", "backup", "status", "error", "run_id")
    change = {**dict.fromkeys(texts, CLEARS), "from_version": 1, "to_version": 2}
    return {
        "experiments": listing.experiments_table({"experiments": [experiment]}),
        "runs": listing.runs_table({**asked, "runs": rows}),
        "one environment": listing.runs_table({**asked, "runs": rows[:1]}),
        "none": listing.runs_table({**asked, "runs": []}),
        "best": listing.best_table({**asked, "run": rows[0], "metric": CLEARS, "value": 1.0}),
        "no best": listing.best_table({**asked, "run": None, "metric": CLEARS, "value": None}),
        "run": listing.run_tables(rows[0]),
        "compared": listing.comparison_tables({**asked, **compared}),
        "versions": listing.models_table({"models": [version]}),
        "changes": listing.audits_table({"changes": [change]}),
        "relocation": listing.relocation_table(
            {"from": CLEARS, "to": CLEARS, "changed": {CLEARS: 1}, "backup": CLEARS}
        ),
    }


def test_no_text_of_a_stranger_is_obeyed_by_the_terminal() -> None:
    for name, parts in parts_of_strangers().items():
        said = "\n".join(whole(parts))
        assert "[2J" in said, f"{name}: it is shown"
        assert "\x1b" not in said, name
