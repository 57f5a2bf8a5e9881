"""What upkeep commands found and did, as terminal tables.

Every function takes the plain document that `--json` prints.
"""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from forex_core.report.document import Document
from forex_core.report.terminal import add_columns, add_row, minute, new_table, one_line
from forex_core.types import short_id

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


def doctor_lines(document: Document) -> list[RenderableType]:
    """A line for each check, below it what to do, and a line for all of them."""
    width = max(len(check["name"]) for check in document["checks"])
    lines = []
    for check in document["checks"]:
        told = f"{check['state']:<8} {check['name']:<{width}}  {one_line(check['found'])}"
        lines.append(Text(told, _COLOURS[check["state"]]))
        if check["todo"]:
            lines.append(Text(f"{'':<{width + 9}}  → {one_line(check['todo'])}"))
    counts = document["summary"]
    said = f"{counts['ok']} ok, {counts['warning']} with a warning, {counts['failed']} failed, "
    said += f"{counts['skipped']} skipped"
    return [*lines, Text(f"{said}, in {document['seconds']:.1f} s", "bold")]


def sent_table(document: Document) -> list[RenderableType]:
    """Who got a message, and why the others did not."""
    rows = document["deliveries"]
    table = new_table(f"'{document['title']}'")
    add_columns(table, "Target", "Delivered", right=("Attempts", "Seconds"))
    for row in rows:
        said = "yes" if row["delivered"] else "no"
        add_row(table, row["target"], said, str(row["attempts"]), f"{row['seconds']:.1f}")
    reasons = [f"{row['target']}: {row['reason']}" for row in rows if row["reason"]]
    return [table, *(Text(one_line(reason)) for reason in reasons)]


def swept_table(document: Document) -> list[RenderableType]:
    """The runs that had not ended: which were ended now, and why the others were not."""
    rows = document["runs"]
    if not rows:
        return [Text("Every run has ended.")]
    table = new_table("Runs that had not ended")
    add_columns(table, "Run", "Experiment", "Started (UTC)", "Now")
    for row in rows:
        now = "KILLED" if row["state"] == "orphaned" else "RUNNING"
        add_row(table, short_id(row["run_id"]), row["experiment"], minute(row["started"]), now)
    return [table, *(Text(one_line(f"{short_id(row['run_id'])}: {row['why']}")) for row in rows)]
