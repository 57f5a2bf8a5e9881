"""Figures, days and kinds as the pages write them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime

from forex_core.report.document import price_decimals
from forex_core.report.language import ENGLISH

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DASH = "–"
"""Stands where a figure does not apply."""
NBSP = "\u00a0"

VERDICTS = {
    "usable": ("Usable skill", "The median beats the random walk even from the next close."),
    "close_only": (
        "Skill against the close only",
        "The median beats the origin's close, not the next one: that skill is in how the close is struck and cannot "
        "be traded. Expect no directional edge; use the band.",
    ),
    "none": (
        "No directional edge",
        "No skill of the median over the random walk is shown: expect no directional edge; use the band.",
    ),
}
"""By kind: in short, and what it means for who reads a forecast."""


def number(value: float | None, decimals: int) -> str:
    """With separators of thousands and a true minus; a dash where there is none.

    >>> [number(v, 2) for v in (1234.5, -0.004, None)]
    ['1,234.50', '0.00', '–']
    """
    if value is None or not math.isfinite(value):
        return DASH
    return f"{round(value, decimals) + 0.0:,.{decimals}f}".replace("-", "\u2212")


def price(value: float | None, like: float) -> str:
    """A price, or an error in its units, with the decimals of one of that size."""
    return number(value, price_decimals(like))


def share(value: float | None, decimals: int = 0) -> str:
    """
    >>> share(0.796)
    '80\\xa0%'
    """
    return DASH if value is None or not math.isfinite(value) else f"{number(100 * value, decimals)}{NBSP}%"


def counted(n: int, one: str, many: str | None = None) -> str:
    """
    >>> counted(1, "forecast"), counted(1234, "forecast")
    ('1 forecast', '1,234 forecasts')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def spoken(words: Sequence[str]) -> str:
    """
    >>> spoken(["7"]), spoken(["7", "15", "30"])
    ('7', '7, 15 and 30')
    """
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last


def day(value: date | None) -> str:
    return DASH if value is None else ENGLISH.day(value)


def minute(value: datetime | None) -> str:
    """An instant with a time zone, in UTC."""
    if value is None:
        return DASH
    offset = value.utcoffset()
    utc = value - offset if offset else value
    return f"{ENGLISH.day(utc.date())}, {utc:%H:%M}"
