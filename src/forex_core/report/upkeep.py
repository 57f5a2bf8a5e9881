"""What upkeep commands found and did, as terminal tables.

Every function takes the plain document that `--json` prints.
"""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from forex_core.report.document import Document
from forex_core.report.terminal import add_columns, add_row, new_table, one_line


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
