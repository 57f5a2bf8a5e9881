"""The frozen values that everything else speaks in. Imports nothing of ours but the errors.

Array axes, written beside every array: N origins, H steps ahead, Q quantile levels, M models, T rows of the
bundle, K drivers.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from forex_core.errors import InputError

PERCENT_PER_YEAR = "percent per year"
"""Unit of a driver that is a rate: its changes are differences, those of a price are ratios."""

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RateKind = Literal["close", "observed", "reference"]
"""What a pair's rate is: the close of the spot market, the rate a central bank observes, a reference rate."""

LanguageCode = Literal["en", "es"]
"""Of a report; the code, documents, tags and logs are in English."""

RATE_NAMES: Mapping[RateKind, str] = {
    "close": "market close",
    "observed": "observed rate",
    "reference": "reference rate",
}

ENSEMBLE = "ensemble"
RANDOM_WALK = "random_walk"
"""Names of the combination and of the reference among the models of a run."""

UNTRACKED, SPOOLED = "untracked", "spooled"
"""What the id of a run begins with that is not tracked, or that was spooled before a tracking store knew it."""
SHORT_ID = 8
"""Characters of a run's id that are shown."""

LEVELS: tuple[float, ...] = (0.01, 0.025, *(round(0.05 * i, 2) for i in range(1, 20)), 0.975, 0.99)
"""The quantile levels of every forecast: .01, .025, .05 to .95 by .05, .975, .99."""


@dataclass(frozen=True, order=True)
class Pair:
    """A currency pair; a price is units of `quote` per one unit of `base`.

    >>> Pair.parse("usd/clp")
    Pair(base='USD', quote='CLP')
    """

    base: str
    quote: str

    @classmethod
    def parse(cls, text: str) -> Pair:
        """Read `USDCLP`, `USD/CLP` or `usd-clp`.

        Raises:
            InputError: when the text is not two different three-letter currency codes.
        """
        match = re.fullmatch(r"([A-Za-z]{3})[/\-_ ]?([A-Za-z]{3})", text.strip())
        if match is None or match[1].upper() == match[2].upper():
            raise InputError(
                f"'{text}' is not a currency pair; expected two different currency codes such as USDCLP"
            )
        return cls(match[1].upper(), match[2].upper())

    def __str__(self) -> str:
        return self.base + self.quote

    @property
    def slug(self) -> str:
        return str(self).lower()

    @property
    def slashed(self) -> str:
        return f"{self.base}/{self.quote}"

    @property
    def unit(self) -> str:
        """Unit of a price, such as 'CLP per USD'."""
        return f"{self.quote} per {self.base}"


@dataclass(frozen=True, order=True)
class Horizon:
    """A number of calendar days ahead, as a user says it.

    >>> Horizon.parse("30d").evaluation_steps
    21
    """

    days: int

    @classmethod
    def parse(cls, text: str) -> Horizon:
        """Read one of 7d, 15d, 30d, 90d.

        Raises:
            InputError: for any other text.
        """
        for horizon in HORIZONS:
            if text.strip().lower() == str(horizon):
                return horizon
        raise InputError(f"'{text}' is not a horizon; expected one of {', '.join(map(str, HORIZONS))}")

    def __str__(self) -> str:
        return f"{self.days}d"

    @property
    def evaluation_steps(self) -> int:
        """Length of the path that is scored: the typical number of weekdays in the horizon."""
        return _EVALUATION_STEPS[self.days]


_EVALUATION_STEPS = {7: 5, 15: 11, 30: 21, 90: 64}
HORIZONS: tuple[Horizon, ...] = tuple(Horizon(days) for days in _EVALUATION_STEPS)
PATH_STEPS: int = max(_EVALUATION_STEPS.values())
"""Length of the one path that every horizon is a slice of, in weekdays."""


@dataclass(frozen=True)
class Source:
    """Where a series came from and how far it reaches."""

    name: str
    series: tuple[str, ...]
    fetched_at: pd.Timestamp
    first_date: date
    last_date: date
    rows: int
    licence: str
    release: str


@dataclass(frozen=True)
class Repair:
    """One thing the quality gate did to, or noticed in, a series.

    `kind` is one of: refuted (a print that came back, taken out), held (a suspicious last print, waiting for
    the next), confirmed (a real jump, used one print late), hole (filled forward), repeated, duplicate,
    unordered, weekend, not_positive, stale, ignored (a column of text), future (rows dated after today),
    revised (used from when the revision was known), missing (a driver that the store does not hold), late
    (rows left out because nothing was known of them in time), offline (why no newer data could be fetched).
    `day` and `found` are of the first where there are several.
    """

    series: str
    kind: str
    day: date | None
    found: float | None
    note: str
    count: int = 1


@dataclass(frozen=True)
class Headline:
    """One news item; its text comes from outside and is escaped wherever it is shown."""

    published: pd.Timestamp
    title: str
    source: str
    link: str


@dataclass(frozen=True)
class Event:
    """One scheduled macro event; its texts come from outside and are escaped wherever they are shown.

    `impact` is the weight that the source gives it ('high', 'medium', 'low', 'holiday'), empty where it says none.
    """

    when: pd.Timestamp
    title: str
    currency: str
    impact: str = ""


@dataclass(frozen=True)
class MarketBundle:
    """What was known, row by row, about a pair and what drives it.

    Row t is a weekday; each cell holds what was known at that row's origin instant (08:00 at the pair's
    desk on the next weekday) and never changes afterwards: rows up to t are the information set of origin t.

    Attributes:
        rate: which rate of the pair `spot` is; what is learned of one says nothing of another.
        dates: [T] weekdays, increasing, none left out.
        instants: [T] origin instants in UTC.
        spot: [T] last known close at each row, in quote units, positive; a hole carries the close before it.
        truth: [T] the accepted close dated that row, NaN where there is none. For scoring only.
        truth_known: [T] row at which `truth` became known (T or more: not yet).
        drivers: [T, K] last known value of each driver, NaN before its first.
        driver_units: unit of each driver; `PERCENT_PER_YEAR` marks a rate.
        outcome_at: when the rate of the first business day after the last row is released; None where the source
            does not say.
    """

    pair: Pair
    dates: pd.DatetimeIndex
    instants: pd.DatetimeIndex
    spot: Array
    truth: Array
    truth_known: npt.NDArray[np.int64]
    drivers: Array
    driver_names: tuple[str, ...]
    driver_units: tuple[str, ...]
    as_of: pd.Timestamp
    rate: RateKind = "close"
    sources: tuple[Source, ...] = ()
    repairs: tuple[Repair, ...] = ()
    news: tuple[Headline, ...] = ()
    events: tuple[Event, ...] = ()
    outcome_at: pd.Timestamp | None = None

    def __post_init__(self) -> None:
        rows = len(self.dates)
        shapes = {
            "instants": len(self.instants),
            "spot": len(self.spot),
            "truth": len(self.truth),
            "truth_known": len(self.truth_known),
            "drivers": len(self.drivers),
        }
        wrong = [name for name, length in shapes.items() if length != rows]
        if wrong or self.drivers.shape != (rows, len(self.driver_names)):
            raise ValueError(f"arrays of a bundle disagree on {rows} rows: {', '.join(wrong) or 'drivers'}")

    def __len__(self) -> int:
        return len(self.dates)

    @property
    def origin(self) -> date:
        """Date of the last row."""
        return self.dates[-1].date()

    def row_at(self, instant: pd.Timestamp) -> int:
        """Index of the last row whose origin instant is at or before `instant`; -1 when there is none."""
        return int(self.instants.searchsorted(instant, side="right")) - 1

    def until(self, instant: pd.Timestamp) -> MarketBundle:
        """The bundle as it stood at `instant`: the only way to look at the past.

        Repairs are left out, for a note on a print may tell what came after it.

        Raises:
            InputError: when nothing was known yet.
        """
        rows = self.row_at(instant) + 1
        if rows == 0:
            first = self.dates[0].date().isoformat()
            raise InputError(f"nothing was known at {instant.isoformat()}; the data begin on {first}")
        known = self.truth_known[:rows] < rows
        return replace(
            self,
            dates=self.dates[:rows],
            instants=self.instants[:rows],
            spot=self.spot[:rows],
            truth=np.where(known, self.truth[:rows], np.nan),
            truth_known=np.minimum(self.truth_known[:rows], rows),
            drivers=self.drivers[:rows],
            as_of=instant,
            repairs=(),
            news=tuple(n for n in self.news if n.published <= instant),
            outcome_at=None,
        )

    @property
    def fingerprint(self) -> str:
        """sha256 of the canonical content: pair, rows, values, names and units (not when it was fetched)."""
        digest = hashlib.sha256()
        header = "|".join([str(self.pair), *self.driver_names, *self.driver_units])
        digest.update(header.encode())
        digest.update(self.dates.to_numpy().astype("datetime64[D]").astype("<i8").tobytes())
        for values in (self.spot, self.truth, self.drivers):
            canonical = (np.where(np.isnan(values), np.nan, values) + 0.0).astype("<f8")  # -0.0 is 0.0
            digest.update(np.ascontiguousarray(canonical).tobytes())
        return digest.hexdigest()

    @property
    def known_when(self) -> str:
        """sha256 of what the fingerprint leaves out: the as-of, when each row spoke and when its truth was known."""
        digest = hashlib.sha256(self.as_of.isoformat().encode())
        digest.update(np.ascontiguousarray(self.instants.asi8, dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(self.truth_known, dtype="<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Forecast:
    """Quantiles of the price on each target date.

    `quantiles` [H, Q] in price units, rows non-decreasing; `levels` ascending in (0, 1) with 0.5 among them.
    """

    pair: Pair
    origin: date
    target_dates: tuple[date, ...]
    steps: tuple[int, ...]
    levels: tuple[float, ...]
    quantiles: Array

    def __post_init__(self) -> None:
        levels = np.asarray(self.levels)
        if 0.5 not in self.levels or (np.diff(levels) <= 0).any() or levels[0] <= 0 or levels[-1] >= 1:
            raise ValueError(f"levels must ascend in (0, 1) and hold 0.5, found {self.levels}")
        if self.quantiles.shape != (len(self.target_dates), len(self.levels)):
            raise ValueError(f"quantiles have shape {self.quantiles.shape}, not [H, Q]")
        if not np.isfinite(self.quantiles).all() or (np.diff(self.quantiles, axis=1) < 0).any():
            raise ValueError("quantiles must be finite and must not cross")

    @property
    def median(self) -> Array:
        """[H] the 0.5 quantile."""
        return self.quantiles[:, self.levels.index(0.5)]

    def interval(self, coverage: float) -> tuple[Array, Array]:
        """Lower and upper bound [H] of the central band with that coverage, such as 0.8."""
        low, high = round((1 - coverage) / 2, 6), round((1 + coverage) / 2, 6)
        if low not in self.levels or high not in self.levels:
            raise ValueError(f"no central band of {coverage} among the levels {self.levels}")
        return self.quantiles[:, self.levels.index(low)], self.quantiles[:, self.levels.index(high)]

    @property
    def mean(self) -> Array:
        """[H] mean of the distribution that is linear between the quantiles and flat beyond the outermost."""
        median = self.median[:, None]
        low, high = self._edges(self.quantiles - median)
        return np.asarray(self.median + ((low + high) / 2) @ self._widths())

    @property
    def std(self) -> Array:
        """[H] standard deviation of the same distribution as `mean`; without the outer 1 % tails."""
        low, high = self._edges(self.quantiles - self.mean[:, None])
        return np.asarray(np.sqrt(((low**2 + low * high + high**2) / 3) @ self._widths()))

    @property
    def rounded(self) -> Array:
        """[H, Q] quantiles rounded to 1e-6 of a price unit; of a price below one, to 1e-6 of its power of ten."""
        decimals = 6 - min(0, math.floor(math.log10(self.median[0])))
        return np.asarray(np.round(self.quantiles, decimals) + 0.0)  # -0.0 is 0.0

    @property
    def digest(self) -> str:
        """sha256 of pair, origin, target dates, levels and the rounded quantiles: equal where all of these are."""
        header = [str(self.pair), self.origin.isoformat(), *(day.isoformat() for day in self.target_dates)]
        digest = hashlib.sha256("|".join([*header, *map(str, self.levels)]).encode())
        digest.update(np.ascontiguousarray(self.rounded, dtype="<f8").tobytes())
        return digest.hexdigest()

    def _edges(self, values: Array) -> tuple[Array, Array]:
        """Values [H, Q + 1] at the lower and upper end of each stretch between two levels."""
        edges = np.concatenate([values[:, :1], values, values[:, -1:]], axis=1)
        return edges[:, :-1], edges[:, 1:]

    def _widths(self) -> Array:
        return np.diff([0.0, *self.levels, 1.0])


@dataclass(frozen=True)
class Scores:
    """Out-of-sample scores of one model over the same origins as every other.

    RMSE, MAE and CRPS in quote units over the whole path of steps, pooled over origins; MAPE in percent;
    coverages as shares. Tests are one-sided against the random walk (`forex_core.evaluation`); None where a
    figure does not apply, as for the random walk against itself.
    """

    rmse: float
    mae: float
    mape_pct: float
    crps: float
    coverage_80: float
    coverage_95: float
    coverage_80_last: float
    coverage_95_last: float
    directional_accuracy: float | None
    rmse_ratio_rw: float
    crps_ratio_rw: float
    dm_stat: float | None
    dm_pvalue: float | None
    hln_stat: float | None
    hln_pvalue: float | None
    rmse_ratio_next_close: float | None
    p_next_close: float | None
    weight_mean: float | None
    failed_origins: int
    rmse_by_step: tuple[float, ...]
    coverage_80_by_step: tuple[float, ...]
    coverage_95_by_step: tuple[float, ...]


@dataclass(frozen=True)
class Verdict:
    """What the evidence allows a reader to conclude, in one sentence, with the figures behind it.

    `kind` is 'usable' (skill against the random walk from the next close), 'close_only' (skill against the
    origin's close alone) or 'none'. p-values are after Holm's correction over the four horizons.
    """

    kind: str
    sentence: str
    p_close: float
    p_next_close: float
    decided_on: date
    origins: int


@dataclass(frozen=True)
class Evaluation:
    """Scores of every member and the ensemble on rolling origins.

    `n_effective` is n · every / max(every, H): the origins that overlap leaves independent. `verdict` is what these
    origins allow to be said; None for those behind a published forecast, which has a verdict of its own.
    `may_have_seen` are members whose weights may have seen the outcomes, so that their scores may be no forecasts'.
    """

    pair: Pair
    horizon: Horizon
    origins: tuple[date, ...]
    every: int
    scores: Mapping[str, Scores]
    failures: Mapping[str, str] = field(default_factory=dict)
    verdict: Verdict | None = None
    may_have_seen: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        return self.horizon.evaluation_steps

    @property
    def n_effective(self) -> float:
        return len(self.origins) * self.every / max(self.every, self.steps)


@dataclass(frozen=True)
class State:
    """What a recipe has learned up to a cut-off.

    `trained_until` is the date of the last row learned from; `weights` are of the members and sum to one; `factors`
    [H, Q], over the longest path, multiply the log deviation of each level from the median.
    """

    trained_until: date
    weights: Mapping[str, float]
    factors: Array


@dataclass(frozen=True)
class MemberForecast:
    """One member of a published forecast, as it answered and after calibration; quantiles [H, Q] in price."""

    name: str
    weight: float
    raw: Array
    calibrated: Array


@dataclass(frozen=True)
class Publication:
    """Which registered model a published forecast is of, and what became of the state that the run learned.

    `version` is the published one, `challenger` the one that this run learned where that is another; None where there
    is no registry or it could not be reached. `outcome` and `reason` are of the decision; `warnings` tell what a reader
    of the forecast should know of its making.
    """

    model: str
    version: int | None
    outcome: str
    reason: str
    challenger: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForecastRun:
    """A forecast with everything needed to judge and to replay it.

    `state` is what it was made with, learned by this run or by an earlier one; `band_factors` [H, Q] are its factors at
    the steps of the forecast, the last step of the combination; `failures` names the members left out, with the reason.
    """

    horizon: Horizon
    forecast: Forecast
    members: tuple[MemberForecast, ...]
    state: State
    band_factors: Array
    evaluation: Evaluation
    verdict: Verdict
    failures: Mapping[str, str]
    fingerprint: str
    recipe: str
    as_of: pd.Timestamp
    settings: Mapping[str, object]
    timings: Mapping[str, float]
    libraries: Mapping[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, float]:
        return {m.name: m.weight for m in self.members}


def level_indices(levels: Sequence[float], coverage: float) -> tuple[int, int]:
    """Positions of the lower and upper level of a central band among `levels`."""
    low, high = (1 - coverage) / 2, (1 + coverage) / 2
    nearest = np.asarray(levels)
    i, j = int(np.abs(nearest - low).argmin()), int(np.abs(nearest - high).argmin())
    if not (np.isclose(nearest[i], low) and np.isclose(nearest[j], high)):
        raise ValueError(f"no central band of {coverage} among the levels {tuple(levels)}")
    return i, j


def short_id(run_id: str) -> str:
    """What is shown of a run's id: its first characters that other runs do not share.

    >>> short_id("276f7b0c" + 24 * "0"), short_id("spooled-276f7b0c" + 24 * "0")
    ('276f7b0c', '276f7b0c')
    >>> short_id("untracked-forecast_20260302_110500-276f7b0c")
    '276f7b0c'
    """
    return own_id(run_id)[:SHORT_ID]


def own_id(run_id: str) -> str:
    """A run's id without what it shares with those of other runs that no tracking store had."""
    return re.sub(rf"^({SPOOLED}-|{UNTRACKED}-.*-)", "", run_id)
