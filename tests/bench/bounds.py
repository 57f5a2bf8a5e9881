"""Figures that a benchmark measured, beside their bounds: a table to read, and an exit code to build on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """A measured value and the most that it may be; without a bound it is told and not judged."""

    what: str
    value: float
    unit: str
    bound: float | None = None

    @property
    def met(self) -> bool:
        # Written so that a value that is no number fails.
        return self.bound is None or self.value <= self.bound

    @property
    def verdict(self) -> str:
        return "" if self.bound is None else "met" if self.met else "MISSED"


def judge(title: str, figures: Sequence[Figure]) -> int:
    """Print the figures; 1 when a bound is missed, else 0."""
    table = Table("figure", title=title, title_justify="left")
    for heading in ("measured", "bound"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for f in figures:
        bound = "" if f.bound is None else f"{f.bound:g} {f.unit}"
        value = f"{f.value:.4f}" if not f.unit and abs(f.value) < 10 else _rounded(f.value)  # a ratio
        table.add_row(f.what, f"{value} {f.unit}", bound, f.verdict)
    Console().print(table)
    return int(not all(f.met for f in figures))


def _rounded(value: float) -> str:
    """
    >>> [_rounded(v) for v in (512.4, 9.876, 0.1234)]
    ['512', '9.88', '0.12']
    """
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"
