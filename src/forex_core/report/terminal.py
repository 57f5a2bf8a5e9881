"""How tables look on a terminal: plain heads, no borders, text of others shown as it is and never obeyed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text


def new_table(title: str) -> Table:
    return Table(
        title=prose(title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )


def add_columns(table: Table, *names: str, right: Sequence[str] = ()) -> None:
    for name in names:
        table.add_column(prose(name), no_wrap=True)
    for name in right:
        table.add_column(prose(name), no_wrap=True, justify="right")


def add_row(table: Table, *cells: str) -> None:
    table.add_row(*map(prose, cells))


def prose(text: str, **looks: Any) -> Text:
    """A text of others, or with one in it, as rich's `Text` with these looks."""
    return Text(one_line(text), **looks)


def one_line(text: str) -> str:
    """One line without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)


def minute(instant: str | None) -> str:
    """
    >>> minute("2026-11-20T16:14:58.123000+00:00")
    '2026-11-20 16:14'
    """
    return instant[:16].replace("T", " ") if instant else "–"
