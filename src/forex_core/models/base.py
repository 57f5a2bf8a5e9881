"""The one model interface, and the cadence on which members re-estimate.

A member answers many origins at once with what it would have said knowing only the rows up to each. Rows of a
bundle never change once written (`forex_core.types.MarketBundle`), so a causal computation over all rows gives
each origin its own past; the contract suite holds every member to it, bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri

from forex_core.errors import MemberError
from forex_core.types import Array, MarketBundle

Levels = Sequence[float]
Rows = npt.NDArray[np.int64]
Cadence = Literal["month", "quarter", "year"]
P = TypeVar("P")


@dataclass(frozen=True)
class Answers:
    """Quantiles [N, H, Q] in price units; a block of NaN is 'no answer', with its reason by origin position."""

    quantiles: Array
    reasons: Mapping[int, str] = field(default_factory=dict)

    def __getitem__(self, position: int) -> Array:
        return np.asarray(self.quantiles[position])


class Forecaster(Protocol):
    """A member of the ensemble.

    Attributes:
        name: as it is logged.
        columns: what it reads of a bundle: 'spot', 'drivers'.
        lookback_rows: how many rows before an origin can influence its answer; None for all of them.
        trained_until: for weights learned elsewhere, the last date they have seen; no origin before it may be
            scored. None when nothing is learned outside the rows up to the origin.
        may_have_seen: whether it has learned elsewhere and nobody says up to when, so its scores may be no forecasts.
        libraries: modules that it imports on first use and whose threads the engine has to limit, for which it imports
            them first.
        identity: what, besides the code and the data, makes its answers what they are; part of the recipe.
    """

    name: str
    columns: tuple[str, ...]
    lookback_rows: int | None
    trained_until: date | None
    may_have_seen: bool
    libraries: tuple[str, ...]

    @property
    def identity(self) -> str: ...

    def forecast(
        self, bundle: MarketBundle, origins: pd.DatetimeIndex, steps: int, levels: Levels
    ) -> Answers:
        """Answer each origin instant with a path of `steps` weekdays.

        Asking for an origin alone or among others gives the same bits.

        Raises:
            MemberError: when the member cannot answer at all (no weights, no drivers).
        """
        ...


class Refitted(ABC, Generic[P]):
    """A member that re-estimates on the first row of each calendar period and answers from there.

    When it re-estimates depends on the dates and on the number of rows alone. A subclass estimates from the
    rows up to an anchor (`fit`) and answers the origins that fall before the next anchor (`answer`).
    """

    name: str
    columns: tuple[str, ...] = ("spot",)
    lookback_rows: int | None = None
    trained_until: date | None = None
    may_have_seen: bool = False
    libraries: tuple[str, ...] = ()
    cadence: Cadence = "quarter"
    min_rows: int = 250

    @property
    def identity(self) -> str:
        """Its settings: every public attribute that is a number or a text."""
        own = {n: getattr(self, n) for n in dir(self) if not n.startswith("_") and n != "identity"}
        return ",".join(f"{n}={v}" for n, v in own.items() if isinstance(v, (str, int, float)))

    def forecast(
        self, bundle: MarketBundle, origins: pd.DatetimeIndex, steps: int, levels: Levels
    ) -> Answers:
        rows = rows_of(bundle, origins)
        quantiles = np.full((len(rows), steps, len(levels)), np.nan)
        reasons: dict[int, str] = {}
        inputs = self.prepare(bundle)
        for anchor, positions in _by_anchor(bundle.dates, rows, self.cadence, self.min_rows):
            if anchor < 0:
                reason = f"needs {self.min_rows} rows of history"
                reasons |= {int(p): reason for p in positions}
                continue
            try:
                _refuse_still(bundle, anchor, self.min_rows)
                fitted = self.fit(inputs, anchor)
                centre, spread = self.answer(fitted, inputs, anchor, rows[positions], steps)
            except MemberError as error:
                reasons |= {int(p): str(error) for p in positions}
                continue
            answer = lognormal(bundle.spot[rows[positions]], centre, spread, levels)
            finite = np.isfinite(answer).all(axis=(1, 2))
            quantiles[positions[finite]] = answer[finite]
            reasons |= {int(p): "its answer is not finite" for p in positions[~finite]}
        return Answers(quantiles, reasons)

    @abstractmethod
    def prepare(self, bundle: MarketBundle) -> Mapping[str, Array]:
        """Causal arrays over the rows: what row t holds depends on rows up to t alone."""

    @abstractmethod
    def fit(self, inputs: Mapping[str, Array], anchor: int) -> P:
        """Parameters from the rows up to and including `anchor`."""

    @abstractmethod
    def answer(
        self, fitted: P, inputs: Mapping[str, Array], anchor: int, rows: Rows, steps: int
    ) -> tuple[Array, Array]:
        """Median log return from the origin [N, H] and its standard deviation [N, H] for each row asked."""


def rows_of(bundle: MarketBundle, origins: pd.DatetimeIndex) -> Rows:
    """Row of each origin instant."""
    rows = np.array([bundle.row_at(instant) for instant in origins], dtype=np.int64)
    if (rows < 0).any():
        raise MemberError(f"an origin lies before the first row of the bundle ({bundle.dates[0].date()})")
    return rows


def lognormal(spot: Array, centre: Array, spread: Array, levels: Levels) -> Array:
    """Quantiles [N, H, Q] of spot [N] times exp of a normal with mean `centre` and deviation `spread` [N, H]."""
    z = ndtri(np.asarray(levels))
    return np.asarray(spot[:, None, None] * np.exp(centre[:, :, None] + spread[:, :, None] * z))


def ewma(values: Array, decay: float, start: int) -> Array:
    """[T] v_t = decay v_{t-1} + (1 - decay) x_t; before `start` NaN, at `start` the mean of x_1 … x_start.

    `values[0]` is not used (a return has no row 0).
    """
    out = np.full(len(values), np.nan)
    if len(values) <= start:
        return out
    level = float(np.mean(values[1 : start + 1]))
    out[start] = level
    for t in range(start + 1, len(values)):
        level = decay * level + (1.0 - decay) * float(values[t])
        out[t] = level
    return out


def _refuse_still(bundle: MarketBundle, anchor: int, rows: int) -> None:
    if np.ptp(bundle.spot[max(0, anchor + 1 - rows) : anchor + 1]) == 0:
        day = bundle.dates[anchor].date()
        raise MemberError(f"the price has not moved in the {rows} rows up to {day}: nothing to estimate")


def _by_anchor(
    dates: pd.DatetimeIndex, rows: Rows, cadence: Cadence, min_rows: int
) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """(anchor row, positions of the origins it serves); anchor -1 where there is not enough history."""
    months = dates.year.to_numpy() * 12 + dates.month.to_numpy() - 1
    period = months // {"month": 1, "quarter": 3, "year": 12}[cadence]
    first_of_period = np.append(True, period[1:] != period[:-1])
    first_of_period[: min_rows - 1] = False
    if len(first_of_period) >= min_rows:
        first_of_period[min_rows - 1] = True
    latest = np.maximum.accumulate(np.where(first_of_period, np.arange(len(dates)), -1))
    anchors = latest[rows]
    for anchor in np.unique(anchors):
        yield int(anchor), np.flatnonzero(anchors == anchor)
