"""The look that pages and charts share: type, colours, where labels stand and where a line breaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
"""One stack for pages and their charts; a static renderer falls back to its own sans-serif."""

PALETTE: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#14181d"),
    "ink": ("#1d2733", "#e6eaf0"),
    "muted": ("#5b6774", "#a3aebb"),
    "grid": ("#e2e6eb", "#2c343d"),
    "forecast": ("#1b5e9e", "#6fb0ee"),
    "walk": ("#b4540a", "#f0a05a"),
}
"""Role: (light, dark). Blue for ours and orange for the yardstick stay apart for every kind of colour vision."""

GAP_WEEKDAYS = 5
"""The line of a rate is broken where its next close is more weekdays away than these."""


def gaps(days: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Positions in increasing days [n] after which a gap begins.

    >>> gaps(["2026-03-06", "2026-03-13", "2026-03-23", "2026-03-24"]).tolist()
    [1]
    """
    at = np.asarray(days, dtype="M8[D]")
    return np.flatnonzero(np.busday_count(at[:-1], at[1:]) > GAP_WEEKDAYS)


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Ascending positions at least `gap` apart and as close to `values` (ascending) as pooling brings them.

    >>> spread([1.0, 1.0, 5.0], 1.0, 0.0, 10.0)
    [0.5, 1.5, 5.0]
    """
    groups: list[list[float]] = []
    for value in values:
        groups.append([value])
        while (
            len(groups) > 1
            and _end(groups[-2], gap, low, high)[1] + gap > _end(groups[-1], gap, low, high)[0]
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_end(g, gap, low, high)[0] + gap * i for g in groups for i in range(len(g))]


def _end(group: Sequence[float], gap: float, low: float, high: float) -> tuple[float, float]:
    """First and last position of a group of labels stacked around the mean of their values."""
    reach = gap * (len(group) - 1)
    first = min(max(sum(group) / len(group) - reach / 2, low), max(high - reach, low))
    return first, first + reach
