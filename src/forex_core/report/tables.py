"""Tables of a page: cells that are ready to show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from forex_core.report.language import Language

DASH = "–"
"""Stands where a figure does not apply."""

NBSP = "\u00a0"

FEW = 8
"""Rows of a table that tells of a path without its every day."""


@dataclass(frozen=True)
class Column:
    """A column's heading; `words` where its cells are text and not figures, `hint` spells a short heading out."""

    label: str
    words: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """Cells that are ready to show. `strong` rows stand out; `best` cells (row, column) are set in bold."""

    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()
    best: frozenset[tuple[int, int]] = frozenset()


def number_cell(value: float | None, decimals: int, language: Language) -> str:
    """A dash for None and NaN."""
    return DASH if value is None or not math.isfinite(value) else language.number(value, decimals)


def percent_cell(share: float | None, language: Language, decimals: int = 1) -> str:
    """A share in percent, without the sign."""
    return DASH if share is None else number_cell(100 * share, decimals, language)


def spaced(count: int) -> list[int]:
    """At most `FEW` of so many positions, evenly spaced, the first and the last among them.

    >>> spaced(3), spaced(64)
    ([0, 1, 2], [0, 9, 18, 27, 36, 45, 54, 63])
    """
    chosen = min(count, FEW)
    return [round(k * (count - 1) / max(chosen - 1, 1)) for k in range(chosen)]


def unbroken(text: str) -> str:
    """A short heading whose percent sign does not leave its number."""
    return text.replace(" %", f"{NBSP}%")
