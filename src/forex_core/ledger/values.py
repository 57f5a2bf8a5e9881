"""What a ledger gives: forecasts with what came, track records, alarms. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from forex_core.ledger.entry import Published
from forex_core.types import Array, Horizon, Mask, Pair


@dataclass(frozen=True)
class Outcomes:
    """How many outcomes were new, and how many were other than before, or withdrawn."""

    new: int
    revised: int


@dataclass(frozen=True)
class Scored:
    """A forecast at one lead, with what came. Errors are outcome less forecast, in quote units.

    Attributes:
        revised: whether it had another score before, of an outcome that was revised.
        members: error of each member's median.
    """

    publication: int
    run_id: str
    pair: Pair
    rate: str
    horizon: Horizon
    origin: date
    live: bool
    close: float
    step: int
    target_date: date
    outcome: float
    known_at: pd.Timestamp
    revised: bool
    error: float
    crps: float
    inside_80: bool
    inside_95: bool
    walk_error: float
    walk_crps: float
    walk_inside_80: bool
    walk_inside_95: bool
    members: Mapping[str, float]


@dataclass(frozen=True)
class Track:
    """What stands of the forecasts of one pair and horizon, at one lead or at all: n rows by origin and step.

    Of an origin the last forecast stands that was published before its first outcome was released; where none was,
    there is none. Of an outcome the latest revision, and none where it was withdrawn.

    Attributes:
        origins, target_dates: [n] datetime64[D].
        errors, crps, walk_errors, walk_crps: [n] in quote units; errors are outcome less median.
        members: [n] error of each member's median, NaN where it was none; where it was asked for.
    """

    pair: Pair
    horizon: Horizon
    publications: Array
    origins: Array
    steps: Array
    target_dates: Array
    closes: Array
    outcomes: Array
    errors: Array
    crps: Array
    inside_80: Mask
    inside_95: Mask
    walk_errors: Array
    walk_crps: Array
    walk_inside_80: Mask
    walk_inside_95: Mask
    members: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.origins)

    def at(self, chosen: Mask) -> Track:
        """The rows that are chosen."""
        arrays: dict[str, Any] = {
            name: value[chosen] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        return replace(
            self, **arrays, members={name: errors[chosen] for name, errors in self.members.items()}
        )

    @property
    def last_lead(self) -> Track:
        """The lead that gives the horizon its name alone: a holiday on that day leaves a forecast out."""
        return self.at(self.steps == self.horizon.evaluation_steps)


@dataclass(frozen=True)
class Trajectory:
    """The path of a forecast: H target dates, Q levels, M members, with the outcomes that are known (NaN: not yet)."""

    of: Published
    levels: tuple[float, ...]
    steps: tuple[int, ...]
    target_dates: tuple[date, ...]
    quantiles: Array
    walk: Array
    medians: Mapping[str, Array]
    outcomes: Array


@dataclass(frozen=True)
class Alarm:
    """What was noticed; `step` is the lead of the forecasts or 0, `origin` the last that it rests on."""

    kind: str
    step: int
    origin: date
    statistic: float
    threshold: float
    found: str


@dataclass(frozen=True)
class Raised:
    """An alarm of a pair, and of a horizon where it is not of the data."""

    number: int
    pair: Pair
    rate: str
    horizon: Horizon | None
    raised_at: pd.Timestamp
    alarm: Alarm
