"""Charts as SVG, drawn here: some kilobytes each, equal bytes for equal values, coloured by the page's style sheet.

Horizontal positions are days (datetime64[D] as numbers). Names of looks are classes of `dashboard.css`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape

from forex_core.dashboard.words import MONTHS
from forex_core.report.look import spread
from forex_core.types import Array

NARROW, WIDE = 400, 860
"""Widths that charts are drawn for: half a column or a telephone, and a whole column. A page scales them a little."""

_LETTER, _BOLD = 6.6, 7.4
"""Pixels that a letter of 12 px takes, on average."""
_LABEL = 14.0
"""Pixels that labels keep from each other."""
_TOP, _BOTTOM = 10, 24
_ROW = 24


@dataclass(frozen=True)
class Line:
    """[n] values by day; where one is not a number the line is broken, and one between two breaks is a dot."""

    days: Array
    values: Array
    look: str
    stepped: bool = False


@dataclass(frozen=True)
class Band:
    """[n] lower and upper edge by day."""

    days: Array
    low: Array
    high: Array
    look: str


@dataclass(frozen=True)
class Mark:
    """A day on which something happened."""

    day: float
    words: str


@dataclass(frozen=True)
class Label:
    """Words at the right end of what they name."""

    value: float
    words: str
    look: str


@dataclass(frozen=True)
class Tip:
    """What the pointer is told near a day: lines of words."""

    day: float
    words: str


@dataclass(frozen=True)
class Chart:
    """One chart over days.

    Attributes:
        description: stands for it where it is not seen.
        ticks: words of a value on the vertical axis, with the decimals that round values need there.
        levels: values that a dashed line goes through, with their looks.
        limits: that the vertical axis holds at least.
        span: first and last day; by default those of what is drawn.
        height: at the narrow width, by which the wide one is higher by a fifth.
    """

    title: str
    caption: str
    description: str
    ticks: Callable[[float, int], str]
    lines: Sequence[Line] = ()
    bands: Sequence[Band] = ()
    levels: Sequence[tuple[float, str]] = ()
    marks: Sequence[Mark] = ()
    labels: Sequence[Label] = ()
    tips: Sequence[Tip] = ()
    limits: tuple[float, float] | None = None
    span: tuple[float, float] | None = None
    height: int = 210

    @property
    def days(self) -> tuple[float, float]:
        if self.span is not None:
            return self.span
        drawn = [*(line.days for line in self.lines), *(band.days for band in self.bands)]
        every = np.concatenate(drawn)
        first, last = float(every.min()), float(every.max())
        return (first, last) if last > first else (first - 1, last + 1)

    @property
    def values(self) -> tuple[float, float]:
        """What the vertical axis spans."""
        drawn = [
            *(line.values for line in self.lines),
            *(edge for band in self.bands for edge in (band.low, band.high)),
            np.array([value for value, _ in self.levels]),
            np.array(self.limits or ()),
        ]
        every = np.concatenate(drawn)
        every = every[np.isfinite(every)]
        low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
        room = 0.05 * ((high - low) or abs(high) * 0.02 or 1.0)
        if self.limits is None:
            return low - room, high + room
        # Limits are where the axis may end.
        return (
            self.limits[0] if low >= self.limits[0] else low - room,
            self.limits[1] if high <= self.limits[1] else high + room,
        )

    def svg(self, width: int = NARROW) -> Markup:
        """The picture at a width."""
        height = self.height if width == NARROW else round(self.height * 1.2)
        low, high = self.values
        steps = _nice(low, high, max(3, height // 48))
        words = [self.ticks(value, _decimals(steps)) for value in steps]
        right = max((len(label.words) for label in self.labels), default=0) * _BOLD + 8
        area = _Area(
            width, height, max(map(len, words), default=0) * _LETTER + 8, right, self.days, (low, high)
        )
        parts = [area.opening(self.description)]
        for value, said in zip(steps, words, strict=True):
            y = area.y(value)
            parts.append(f'<path class="rule" d="M{area.left:.1f} {y:.1f}H{area.right:.1f}"/>')
            parts.append(
                f'<text class="tick" x="{area.left - 7:.1f}" y="{y + 4:.1f}" text-anchor="end">'
                f"{escape(said)}</text>"
            )
        parts += area.dates()
        parts += [
            f'<path class="{band.look}" d="{area.ribbon(band)}"/>' for band in self.bands if len(band.days)
        ]
        parts += [
            f'<path class="line {look}" d="M{area.left:.1f} {area.y(value):.1f}H{area.right:.1f}"/>'
            for value, look in self.levels
        ]
        for mark in self.marks:
            x = area.x(mark.day)
            parts.append(
                f'<g class="mark"><title>{escape(mark.words)}</title><path d="M{x:.1f} {_TOP - 4}V{area.bottom}"/>'
                f'<path class="head" d="M{x - 4:.1f} {_TOP - 8}h8l-4 7z"/></g>'
            )
        parts += [f'<path class="line {line.look}" d="{area.path(line)}"/>' for line in self.lines]
        ordered = sorted(self.labels, key=lambda label: -label.value)
        places = spread([area.y(label.value) for label in ordered], _LABEL, _TOP, area.bottom)
        parts += [
            f'<text class="label {label.look}" x="{area.right + 6:.1f}" y="{y + 4:.1f}">{escape(label.words)}</text>'
            for label, y in zip(ordered, places, strict=True)
        ]
        return Markup("".join([*parts, "</svg>"]))

    @property
    def hints(self) -> list[tuple[float, str]]:
        """Tips for the pages' script: how far along the plot, from 0 to 1, and the words."""
        first, last = self.days
        return [(round((tip.day - first) / (last - first), 4), tip.words) for tip in self.tips]


@dataclass(frozen=True)
class Rows:
    """Shares over days, a row for each name, the largest last value first: areas on one scale, in one picture."""

    title: str
    caption: str
    description: str
    days: Array
    shares: Mapping[str, Array]
    emphasised: str
    labels: Mapping[str, str] = field(default_factory=dict)
    tips: Sequence[Tip] = ()

    def svg(self, width: int = NARROW) -> Markup:
        ordered = sorted(self.shares, key=lambda name: (-_last(self.shares[name]), name))
        left = max((len(self.labels.get(name, name)) for name in ordered), default=0) * _LETTER + 10
        height = _ROW * len(ordered) + _TOP + _BOTTOM
        area = _Area(width, height, left, 48, self._span, (0.0, 1.0))
        top = max((float(np.nanmax(share)) for share in self.shares.values()), default=1.0) or 1.0
        parts = [area.opening(self.description), *area.dates()]
        days = self.days if len(self.days) > 1 else np.array(self._span)  # one day alone is a level
        for k, name in enumerate(ordered):
            share = np.broadcast_to(self.shares[name], len(days))
            base = _TOP + _ROW * (k + 1)
            look = "walk" if name == self.emphasised else "forecast"
            heights = [base - (_ROW - 5) * (0.0 if np.isnan(s) else float(s)) / top for s in share]
            points = [f"{area.x(float(day)):.1f} {y:.1f}" for day, y in zip(days, heights, strict=True)]
            parts.append(f'<path class="rule" d="M{area.left:.1f} {base}H{area.right:.1f}"/>')
            first, last = area.x(float(days[0])), area.x(float(days[-1]))
            along = "L".join(points)
            parts.append(f'<path class="area {look}" d="M{first:.1f} {base}L{along}L{last:.1f} {base}Z"/>')
            parts.append(f'<path class="line thin {look}" d="M{along}"/>')
            said = escape(self.labels.get(name, name))
            parts.append(
                f'<text class="tick" x="{area.left - 7:.1f}" y="{base - 6}" text-anchor="end">{said}</text>'
            )
            now = "–" if np.isnan(_last(share)) else f"{100 * _last(share):.1f} %"
            parts.append(f'<text class="label {look}" x="{area.right + 6:.1f}" y="{base - 6}">{now}</text>')
        return Markup("".join([*parts, "</svg>"]))

    @property
    def _span(self) -> tuple[float, float]:
        first, last = float(self.days[0]), float(self.days[-1])
        return (first, last) if last > first else (first - 1, last + 1)

    @property
    def hints(self) -> list[tuple[float, str]]:
        first, last = self._span
        return [(round((tip.day - first) / (last - first), 4), tip.words) for tip in self.tips]


@dataclass(frozen=True)
class _Area:
    """Where values go in a picture of a size, with room on the left and on the right in pixels."""

    width: int
    height: int
    left: float
    room: float
    days: tuple[float, float]
    values: tuple[float, float]

    @property
    def right(self) -> float:
        return self.width - self.room

    @property
    def bottom(self) -> int:
        return self.height - _BOTTOM

    def x(self, day: float) -> float:
        return self.left + (day - self.days[0]) / (self.days[1] - self.days[0]) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.values
        return self.bottom - (value - low) / (high - low) * (self.bottom - _TOP)

    def opening(self, description: str) -> str:
        plot = f"{self.left:.1f} {self.right - self.left:.1f} {_TOP} {self.bottom - _TOP}"
        return (
            f'<svg class="plot" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(description)}" '
            f'data-plot="{plot}">'
        )

    def path(self, line: Line) -> str:
        parts, down = [], False
        before = math.nan
        there = np.isfinite(line.values)
        goes_on = np.append(there[1:], False)
        for day, value, followed in zip(line.days, line.values, goes_on, strict=True):
            if np.isnan(value):
                down = False
                continue
            x, y = self.x(float(day)), self.y(float(value))
            if not down:
                parts.append(f"M{x:.1f} {y:.1f}{'' if followed else 'h0'}")
            elif line.stepped and y != before:
                parts.append(f"H{x:.1f}V{y:.1f}")
            else:
                parts.append(f"L{x:.1f} {y:.1f}")
            down, before = True, y
        return "".join(parts)

    def ribbon(self, band: Band) -> str:
        there = np.isfinite(band.low) & np.isfinite(band.high)
        days = band.days[there]
        above = [
            f"{self.x(float(d)):.1f} {self.y(float(v)):.1f}"
            for d, v in zip(days, band.high[there], strict=True)
        ]
        below = [
            f"{self.x(float(d)):.1f} {self.y(float(v)):.1f}"
            for d, v in zip(days, band.low[there], strict=True)
        ]
        return f"M{'L'.join([*above, *reversed(below)])}Z" if above else ""

    def dates(self) -> list[str]:
        """The days of the horizontal axis: ticks and words."""
        across = self.right - self.left
        parts = []
        for day, said in date_ticks(*self.days, at_most=max(3, int(across // 62))):
            x = self.x(day)
            parts.append(f'<path class="rule" d="M{x:.1f} {self.bottom}v4"/>')
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{self.height - 7}" text-anchor="middle">{said}</text>'
            )
        return parts


def date_ticks(first: float, last: float, at_most: int) -> list[tuple[float, str]]:
    """Days to be named on an axis, at whole weeks, months or years.

    >>> day = lambda text: float(np.datetime64(text, "D").astype(int))
    >>> [said for _, said in date_ticks(day("2026-01-20"), day("2026-06-20"), 6)]
    ['Feb 2026', 'Mar', 'Apr', 'May', 'Jun']
    >>> [said for _, said in date_ticks(day("2026-03-02"), day("2026-03-09"), 4)]
    ['2 Mar', '4 Mar', '6 Mar', '8 Mar']
    """
    begin, end = (date(1970, 1, 1) + timedelta(days=math.floor(day)) for day in (first, last))
    early = begin + timedelta(
        days=round(0.04 * (last - first))
    )  # words of days before would stand out on the left
    for step in (1, 2, 5, 7, 14):
        if (last - first) / step < at_most:
            days = [early + timedelta(days=k) for k in range(0, (end - early).days + 1, step)]
            return [(_number(day), f"{day.day} {MONTHS[day.month - 1]}") for day in days]
    for months in (1, 2, 3, 6, 12, 24, 60):
        firsts = (date(year, month, 1) for year in range(begin.year, end.year + 1) for month in range(1, 13))
        found = [
            one for one in firsts if early <= one <= end and (12 * one.year + one.month - 1) % months == 0
        ]
        if len(found) <= at_most:
            break
    if months >= 12:
        return [(_number(day), str(day.year)) for day in found]
    return [
        (
            _number(day),
            MONTHS[day.month - 1] + (f" {day.year}" if k == 0 or found[k - 1].year != day.year else ""),
        )
        for k, day in enumerate(found)
    ]


def number_of(days: Array) -> Array:
    """Positions of days [n] datetime64[D]."""
    return days.astype("M8[D]").astype(np.float64)


def _number(day: date) -> float:
    return float((day - date(1970, 1, 1)).days)


def _nice(low: float, high: float, at_most: int) -> list[float]:
    """Round values within [low, high], at most so many.

    >>> _nice(941.2, 968.9, 4), _nice(0.7, 1.0, 4)
    ([950.0, 960.0], [0.7, 0.8, 0.9, 1.0])
    """
    power = 10.0 ** math.floor(math.log10((high - low) / at_most))
    step = next(k * power for k in (1, 2, 5, 10, 20) if (high - low) / (k * power) <= at_most)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _decimals(values: Sequence[float]) -> int:
    """Decimals that evenly spaced round values need.

    >>> _decimals([0.98, 1.0, 1.02]), _decimals([950.0, 960.0]), _decimals([1.0])
    (2, 0, 0)
    """
    step = min((b - a for a, b in pairwise(values)), default=1.0)
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _last(values: Array) -> float:
    return float(values[-1]) if len(values) else math.nan
