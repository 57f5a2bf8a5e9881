"""What a tracking store holds, as terminal tables and as rows of a CSV file.

Every function takes the plain document that `--json` prints. Names and messages come from users and libraries: they
are shown as they are, never as markup or as a terminal's control characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from forex_core.report.document import Document
from forex_core.report.terminal import add_columns, add_row, minute, new_table, one_line, prose
from forex_core.report.text import error_size, number
from forex_core.types import short_id

Rows = list[list[Any]]
"""Of a CSV file, the header first."""

_RUN_COLUMNS = (
    "id",
    "name",
    "experiment",
    "pair",
    "horizon",
    "status",
    "started",
    "ended",
    "environment",
    "as_of",
    "origin",
)
_SCORES = ("rmse", "mae", "mape", "crps", "rmse_ratio_rw", "crps_ratio_rw", "coverage_80", "coverage_95")
_RUN_COLUMNS_LAST = ("published_version", "aliases", "version", "version_aliases", "marks", "error")
_MODEL_COLUMNS = (
    "name",
    "version",
    "aliases",
    "status",
    "run_id",
    "created",
    "recipe",
    "trained_until",
    "published",
    "pin",
    "rolled_back",
)
_EXPERIMENT_COLUMNS = (
    "name",
    "id",
    "finished",
    "failed",
    "other",
    "last_run",
    "artifact_location",
    "deleted",
)
_AUDIT_COLUMNS = (
    "at",
    "action",
    "model",
    "from_version",
    "to_version",
    "by",
    "reason",
    "how",
    "status",
    "error",
    "run_id",
    "backup",
)
_COMPARED = (("rmse", "RMSE"), ("mape", "MAPE %"), ("weight", "Weight"))
_SIDE_BY_SIDE = 5
"""Runs that fit beside each other in 80 columns."""
_CHALLENGER = "challenger_"
_NOTE = 160
"""Characters of an error below a list of runs."""
_LOCATIONS = {
    "experiments.artifact_location": "Experiments",
    "runs.artifact_uri": "Runs",
    "logged_models.artifact_location": "Models",
    "model_versions.source": "Registered versions",
    "model_versions.storage_location": "Stored files of registered versions",
    "trace_tags.value": "Traces",
}


def experiments_table(document: Document) -> list[RenderableType]:
    rows = document["experiments"]
    if not rows:
        return [prose(f"No experiments yet in {document['store']}; forex forecast 7d makes the first.")]
    table = new_table("Experiments")
    add_columns(table, "Experiment", "Id", right=("Finished", "Failed", "Other"))
    add_columns(table, "Last run (UTC)")
    # Addresses are long words: they have most of a line each, and break only where that does not hold them.
    files = new_table("Where files are kept")
    files.show_header = False
    add_columns(files, "")
    files.add_column(overflow="fold")
    for row in rows:
        counts = [str(row[name]) for name in ("finished", "failed", "other")]
        add_row(table, row["name"], row["id"], *counts, minute(row["last_run"]))
        add_row(files, row["name"], row["artifact_location"])
    notes = [
        f"{row['name']} was deleted; 'mlflow experiments restore -x {row['id']}' brings it back with its runs."
        for row in rows
        if row["deleted"]
    ]
    return [table, *(prose(note) for note in notes), Text(), files]


def experiments_rows(document: Document) -> Rows:
    return _rows(document["experiments"], _EXPERIMENT_COLUMNS)


def runs_table(document: Document) -> list[RenderableType]:
    """The newest runs with the horizon's own scores, and below them why runs failed."""
    rows = document["runs"]
    if rows:
        return _runs(f"Newest runs, {_market(rows)}", rows)
    market = f"{document['pair'] or 'any pair'} {document['horizon']}"
    status = f" with the status {document['status']}" if document["status"] else ""
    return [prose(f"No runs of {market}{status} yet in {document['store']}.")]


def runs_rows(document: Document) -> Rows:
    return _run_rows(document["runs"])


def best_table(document: Document) -> list[RenderableType]:
    row = document["run"]
    asked = f"{'lowest' if document['mode'] == 'min' else 'highest'} {document['metric']}"
    market = f"{document['pair']} {document['horizon']}"
    if row is None:
        said = (
            f"No finished run of {market} has {document['metric']} as a finite number in {document['store']}."
        )
        return [prose(said)]
    return [
        *_runs(f"{market}, {asked}", [row]),
        prose(f"{document['metric']} = {document['value']:.6g}, scored over {row['window']}."),
        prose("It ranks what was logged: scores of different weeks do not compare."),
        prose(f"Run: {row['id']}"),
    ]


def best_rows(document: Document) -> Rows:
    header, *rows = _run_rows([document["run"]] if document["run"] else [])
    return [[*header, "metric", "value"], *([*row, document["metric"], document["value"]] for row in rows)]


def run_tables(document: Document) -> list[RenderableType]:
    """Everything that one run holds."""
    facts = new_table(f"Run {document['id']}")
    facts.show_header = False
    add_columns(facts, "")
    facts.add_column(overflow="fold")
    for name in (*_RUN_COLUMNS[1:], "window"):
        value = document[name]
        if value is not None:
            add_row(facts, name, minute(value) if name in ("started", "ended") else str(value))
    for name, version, aliases in (
        ("published", document["published_version"], document["aliases"]),
        ("learned", document["version"], document["version_aliases"]),
    ):
        if version is not None:
            now = f", now {' and '.join(aliases)}" if aliases else ""
            add_row(facts, name, f"version {version}{now}")
    for mark in document["marks"]:
        add_row(facts, "mark", _mark(mark, document["tags"].get(mark, "")))
    if document["error"]:
        add_row(facts, "error", document["error"])
    parts: list[RenderableType] = [facts]
    for title, values in (
        (
            "Metrics",
            {name: f"{value:.6g}" for name, value in document["metrics"].items() if value is not None},
        ),
        ("Params", document["params"]),
        ("Tags", {n: v for n, v in document["tags"].items() if not n.startswith("mlflow.")}),
        ("Files", {file["path"]: _size(file["bytes"]) for file in document["artifacts"]}),
    ):
        table = new_table(title)
        table.show_header = False
        table.add_column(overflow="fold")
        table.add_column(overflow="fold")
        for name, value in values.items():
            add_row(table, name, value)
        if values:
            parts += [Text(), table]
    missing = [name for name, value in document["metrics"].items() if value is None]
    if missing:
        parts.append(prose(f"Not a finite number: {', '.join(missing)}"))
    return parts


def run_rows(document: Document) -> Rows:
    """One line a value: its kind (run, metric, param, tag or artifact), name and value."""
    plain = (*_RUN_COLUMNS, "window", *_RUN_COLUMNS_LAST)
    rows: Rows = [["kind", "name", "value"], *(["run", name, _joined(document[name])] for name in plain)]
    for kind in ("metric", "param", "tag"):
        rows += [[kind, name, value] for name, value in document[f"{kind}s"].items()]
    return [*rows, *(["artifact", file["path"], file["bytes"]] for file in document["artifacts"])]


def comparison_tables(document: Document) -> list[RenderableType]:
    """Every model's scores and weight with one column a run, then the params in which the runs differ."""
    runs = document["runs"]
    parts: list[RenderableType] = _runs(f"Compared runs, {_market(runs)}", runs) if runs else []
    shown = {
        model: entries
        for model, entries in document["models"].items()
        if any(entries) and (document["challengers"] or not model.startswith(_CHALLENGER))
    }
    for start in range(0, len(runs) if shown else 0, _SIDE_BY_SIDE):
        some = slice(start, start + _SIDE_BY_SIDE)
        ids = [short_id(row["id"]) for row in runs[some]]
        scores = new_table("Models")
        add_columns(scores, "Model", "Score", right=ids)
        for name, title in _COMPARED:
            for model, entries in shown.items():
                values = [entry and entry[name] for entry in entries[some]]
                if any(value is not None for value in values):
                    add_row(scores, model, title, *(_score(name, value) for value in values))
            scores.add_section()
        parts += [Text(), scores]
    if document["models"]:
        if any(any(entries) for model, entries in document["models"].items() if model not in shown):
            parts.append(prose("What challengers scored is left out; --challengers shows it."))
        parts += [Text(), *(_params(document) if document["params"] else [prose("No param differs.")])]
    remarks = [prose(remark) for remark in document["remarks"]]
    if len(runs) < 2:
        remarks.append(prose(f"Read from {document['store']}."))
    return [*parts, *([Text()] if parts and remarks else []), *remarks]


def _params(document: Document) -> list[RenderableType]:
    """The runs that have a value on a line, the value below: so neither is taken for another when it wraps."""
    ids = [short_id(row["id"]) for row in document["runs"]]
    parts: list[RenderableType] = [prose("Params that differ", style="bold")]
    for name, values in document["params"].items():
        parts.append(Padding(prose(name), (0, 0)))
        told = [value or "–" for value in values]
        for value in dict.fromkeys(told):
            having = [one for one, own in zip(ids, told, strict=True) if own == value]
            parts.append(Padding(prose(" ".join(having)), (0, 0, 0, 2)))
            parts.append(Padding(prose(value, overflow="fold"), (0, 0, 0, 4)))
    return parts


def comparison_rows(document: Document) -> Rows:
    """One line a score or param with one column a run; a remark stands in the place of a name."""
    rows: Rows = [["kind", "name", "score", *(row["id"] for row in document["runs"])]]
    rows.append(["run", "window", "", *(row["window"] for row in document["runs"])])
    for model, entries in document["models"].items():
        rows += [
            ["model", model, name, *(entry and entry[name] for entry in entries)] for name, _ in _COMPARED
        ]
    rows += [["param", name, "", *values] for name, values in document["params"].items()]
    empty = [""] * (len(document["runs"]) + 1)
    return [*rows, *(["remark", remark, *empty] for remark in document["remarks"])]


def models_table(document: Document) -> list[RenderableType]:
    """The versions, and below them who holds one in place or took it down, and why."""
    rows = document["models"]
    if not rows:
        pair = document["pair"]
        none = f"No registered models of {pair}" if pair else "No registered models yet"
        return [prose(f"{none} in {document['store']}; forex forecast makes the first.")]
    table = new_table("Registered models")
    add_columns(table, "Model", right=("Version",))
    table.add_column("Aliases")
    add_columns(table, "Run", "Recipe", "Trained to", "Created", "Published")
    notes = []
    for row in rows:
        short = [short_id(row["run_id"] or "–"), (row["recipe"] or "–")[:8]]
        dates = [(row[name] or "–")[:10] for name in ("trained_until", "created")]
        published = "yes" if row["published"] else "–"
        add_row(table, row["name"], str(row["version"]), " ".join(row["aliases"]), *short, *dates, published)
        pin = row["pin"] if "champion" in row["aliases"] else None  # of an earlier reign, kept for an undo
        said = {"pinned": pin, "rolled back": row["rolled_back"]}
        notes += [
            f"{row['name']} v{row['version']} {name}: {_reason(tag)}" for name, tag in said.items() if tag
        ]
        if row["status"] != "READY":
            notes.append(f"{row['name']} v{row['version']} is {row['status']}")
    return [table, *(prose(note) for note in notes)]


def models_rows(document: Document) -> Rows:
    return _rows(document["models"], _MODEL_COLUMNS)


def audits_table(document: Document) -> list[RenderableType]:
    """The changes, and below them who made each and why."""
    rows = document["changes"]
    if not rows:
        of = f" of {document['pair']}" if document["pair"] else ""
        return [prose(f"Nothing was done to a champion{of} in {document['store']}.")]
    table = new_table("What was done to champions, by hand or by the monitor")
    add_columns(table, "When (UTC)", "Action", "Model", right=("From", "To"))
    add_columns(table, "Status", "Audit run")
    notes = []
    for row in rows:
        versions = [f"v{row[name]}" if row[name] else "–" for name in ("from_version", "to_version")]
        short = short_id(row["run_id"])
        named = (row["action"] or "–", row["model"] or "–")
        add_row(table, minute(row["at"]), *named, *versions, row["status"], short)
        why = row["reason"] or "no reason given"
        notes.append(f"{short} by {row['by'] or 'nobody named'}: {in_short(why)}")
        if row["error"]:
            notes.append(f"{short} {in_short(row['error'])}")
    return [table, *(prose(note) for note in notes)]


def audits_rows(document: Document) -> Rows:
    return [
        list(_AUDIT_COLUMNS),
        *([row[name] for name in _AUDIT_COLUMNS] for row in document["changes"]),
    ]


def replay_table(document: Document) -> list[RenderableType]:
    """What became of each spooled run."""
    if not document["entries"]:
        return [prose("Nothing is spooled.")]
    table = new_table("Spooled runs")
    add_columns(table, "Outcome", "Run")
    table.add_column("Entry", overflow="fold")
    table.add_column("Reason", overflow="fold")
    for one in document["entries"]:
        add_row(table, one["outcome"], short_id(one["run_id"] or "–"), one["spool_id"], one["reason"] or "")
    return [table]


def relocation_table(document: Document) -> list[RenderableType]:
    """How many locations were changed, by what they are of, and where the database as it was is kept."""
    table = new_table("Locations rewritten")
    add_columns(table, "Of", right=("Number",))
    for name, count in document["changed"].items():
        if count:
            add_row(table, _LOCATIONS.get(name, name), str(count))
    return [
        table,
        prose(f"From {document['from']} to {document['to']}."),
        prose(f"The database as it was: {document['backup']}"),
    ]


def _runs(title: str, rows: Sequence[Document]) -> list[RenderableType]:
    # What the title names has no column, and of several environments each has a line below: so 80 columns hold it.
    many = len({row["pair"] for row in rows}) > 1
    environments: dict[str, list[str]] = {}
    for row in rows:
        environments.setdefault(row["environment"] or "no environment", []).append(short_id(row["id"]))
    table = new_table(", ".join([title, *(environments if len(environments) == 1 else ())]))
    add_columns(table, "Run", "Started (UTC)", "Status")
    add_columns(table, "Pair" if many else "Origin", right=("RMSE", "MAPE %", "RMSE/RW"))
    add_columns(table, "Model")
    for row in rows:
        scores, version = row["scores"], row["published_version"] or row["version"]
        champion = "*" if "champion" in row["aliases"] else ""
        add_row(
            table,
            short_id(row["id"]),
            minute(row["started"]),
            row["status"],
            row["pair" if many else "origin"] or "–",
            _score("rmse", scores["rmse"]),
            _score("mape", scores["mape"]),
            number(scores["rmse_ratio_rw"], 3),
            f"v{version}{champion}" if version else "–",
        )
    notes = [f"{short_id(row['id'])} {note}" for row in rows for note in _notes(row)]
    if any(row["error"] and in_short(row["error"]) != one_line(row["error"]) for row in rows):
        notes.append("The whole of an error: forex runs show RUN_ID")
    if any("champion" in row["aliases"] for row in rows):
        notes.insert(0, "* champion")
    if len(environments) > 1:
        notes += [f"{name}: {' '.join(ids)}" for name, ids in environments.items()]
    return [table, *(prose(note) for note in notes)]


def _market(rows: Sequence[Document]) -> str:
    """Pairs and horizons of runs; of many pairs the first few."""
    pairs = sorted({row["pair"] or "no pair" for row in rows})
    some = ", ".join(pairs[:5]) + (f" and {len(pairs) - 5} more" if len(pairs) > 5 else "")
    return f"{some} {', '.join(sorted({row['horizon'] or 'no horizon' for row in rows}))}"


def _notes(row: Document) -> list[str]:
    """Why a run failed, and what is out of the ordinary about it."""
    notes = [in_short(row["error"])] if row["error"] else []
    return [*notes, *(_mark(mark, row["tags"].get(mark, "")) for mark in row["marks"])]


def _mark(mark: str, told: str) -> str:
    """A tag that stands out, with what it says: `challenger` the version that the run put on trial."""
    return f"{mark} v{told}" if told.isdigit() else mark if told == "true" else f"{mark}: {told}"


def in_short(text: str) -> str:
    """The first sentence on one line, without the statement that a database adds.

    >>> in_short("OperationalError: disk full. Make room.")
    'OperationalError: disk full.'
    >>> in_short("locked [SQL: SELECT 1 FROM runs]")
    'locked'
    """
    line = re.split(r"\s*\[SQL: |\s*\(Background on this error", " ".join(one_line(text).split()))[0]
    first = re.split(r"(?<=[.!?])\s+(?=[A-Z])", line)[0]
    return first if len(first) <= _NOTE else first[:_NOTE].rsplit(" ", 1)[0] + " …"


def _reason(told: Any) -> str:
    """Who, when and why of a pin or a rollback, as far as it says so.

    >>> _reason({"by": "ana", "at": "2026-11-20T16:14:00+00:00", "reason": "bad data"})
    'bad data (ana, 2026-11-20 16:14)'
    """
    if not isinstance(told, dict) or not {"by", "at", "reason"} <= set(told):
        return str(told)
    return f"{told['reason'] or 'no reason given'} ({told['by']}, {minute(told['at'])})"


def _run_rows(rows: Sequence[Document]) -> Rows:
    header = [*_RUN_COLUMNS, *_SCORES, *_RUN_COLUMNS_LAST]
    return [header, *([_joined((row | row["scores"])[name]) for name in header] for row in rows)]


def _rows(rows: Sequence[Document], columns: Sequence[str]) -> Rows:
    """The columns of every row, and behind them its tags as `tag.name`, as far as any row has them."""
    tags = sorted({name for row in rows for name in row["tags"]} - set(columns))
    header = [*columns, *(f"tag.{name}" for name in tags)]
    return [
        header,
        *(
            [*(_joined(row[name]) for name in columns), *(row["tags"].get(name) for name in tags)]
            for row in rows
        ),
    ]


def _joined(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return (
        " ".join(value)
        if isinstance(value, list)
        else json.dumps(value)
        if isinstance(value, dict)
        else value
    )


def _score(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return error_size(value) if name == "rmse" else number(value, 2 if name == "mape" else 3)


def _size(count: int | None) -> str:
    return "" if count is None else f"{count:,} bytes"
