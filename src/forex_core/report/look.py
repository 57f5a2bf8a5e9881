"""The look that pages and charts share: type, colours, and the names that people read."""

from __future__ import annotations

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


def label_of(name: str) -> str:
    """A model or series name for people.

    >>> [label_of(n) for n in ("random_walk", "arima_garch", "ets")]
    ['Random walk', 'ARIMA GARCH', 'ETS']
    """
    acronyms = {"arima", "garch", "ets", "var", "dxy", "vix", "sp500"}
    words = [w.upper() if w.lower() in acronyms else w for w in name.split("_") if w]
    text = " ".join(words)
    return text[:1].upper() + text[1:]
