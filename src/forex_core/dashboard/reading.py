"""What the pages and the interface tell, read from the ledger, the observations and the tracked runs.

Nothing here writes; a part that cannot be read is told as such, and the others stand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from forex_core.config import Settings
from forex_core.dashboard.sources import Change, Run, Series, TrackedRuns, market_of
from forex_core.dashboard.words import counted, day, spoken
from forex_core.data.catalogue import entry
from forex_core.data.loading import store_of
from forex_core.data.quality import gate
from forex_core.data.series import Series as Prices
from forex_core.data.status import SeriesStatus, status_of
from forex_core.errors import ForexError
from forex_core.ledger import Ledger, Pending, Published, Raised, Track, Trajectory
from forex_core.ledger.live import LeadScores, at_the_end, by_lead
from forex_core.strangers import plain
from forex_core.types import HORIZONS, Array, Headline, Horizon, Mask, Pair

YEAR_DAYS = 366
"""What a record of the last year reaches back."""
RECENT_DAYS = 30
"""An alarm this old is still told on the first page."""
WINDOW, LEAST = 60, 20
"""Forecasts that a trailing share or ratio is of, and the fewest."""
HISTORY_DAYS = {7: 60, 15: 90, 30: 120, 90: 240}
"""Days of the rate that are drawn before a forecast, by its horizon."""
GATE_DAYS = 30
"""Days before and after a window that the quality gate is told as well: it judges a print by those beside it."""
CHANGES = 200
HEADLINES = 12

T = TypeVar("T")


@dataclass(frozen=True)
class Rates:
    """What is known of a rate: days [n] datetime64[D], the oldest first, and values [n] in quote units.

    Where `came` [n] is true the value is the print of that day; where it is false it is the close that a forecast
    started from, which may have been carried over. Where `recorded` [n] is true the ledger has it as an outcome: a
    print that the ledger has not recorded is none yet.
    """

    days: Array
    values: Array
    came: Mask
    recorded: Mask

    def at(self, chosen: Mask) -> Rates:
        """Those days that are chosen."""
        return Rates(self.days[chosen], self.values[chosen], self.came[chosen], self.recorded[chosen])

    def between(self, first: date, last: date) -> Rates:
        inside = (self.days >= np.datetime64(first, "D")) & (self.days <= np.datetime64(last, "D"))
        return self.at(np.asarray(inside))


@dataclass(frozen=True)
class Silence:
    """How long ago a horizon last spoke. A forecast made in hindsight says nothing of the future: only live ones count.

    Attributes:
        last: the live forecast that was published last, None where every one was made in hindsight.
        days: since then.
        is_silent: whether these are more than the settings allow, or none is live.
    """

    last: Published | None
    days: int | None
    is_silent: bool

    @property
    def words(self) -> str:
        if self.days is None:
            return "every forecast was made in hindsight, none was published in its time"
        return f"no forecast for {counted(self.days, 'day')}"


@dataclass(frozen=True)
class Outlook:
    """How the forecasts of a series stand.

    Attributes:
        path: of the newest origin.
        rates: before and, where it is known, after that origin.
        record: the live scores of the last year at the horizon's end.
        alarms: of the last `RECENT_DAYS`.
    """

    series: Series
    path: Trajectory
    rates: Rates
    record: LeadScores | None
    alarms: tuple[Raised, ...]
    silence: Silence


@dataclass(frozen=True)
class Trailing:
    """Shares and ratios over the last forecasts, by the day on which the newest outcome of each was for: [n]."""

    days: Array
    counts: Array
    coverage_80: Array
    coverage_95: Array
    rmse_ratio_rw: Array
    crps_ratio_rw: Array

    def at(self, chosen: npt.NDArray[np.intp]) -> Trailing:
        """Those at some positions."""
        return Trailing(**{name: values[chosen] for name, values in vars(self).items()})

    @classmethod
    def of(cls, track: Track, window: int = WINDOW, least: int = LEAST) -> Trailing:
        """Of one lead; ratios are NaN where the random walk has no loss."""
        n = len(track)
        last = np.arange(1, n + 1)
        first = np.maximum(last - window, 0)

        def total(values: Array | Mask) -> Array:
            sums = np.concatenate([[0.0], np.cumsum(values.astype(np.float64))])
            return np.asarray(sums[last] - sums[first], dtype=np.float64)

        def ratio(ours: Array, walk: Array) -> Array:
            over = total(walk)
            return np.asarray(np.divide(total(ours), over, out=np.full(n, np.nan), where=over > 0))

        counts = (last - first).astype(np.float64)
        chosen = counts >= least
        return cls(
            days=track.target_dates[chosen],
            counts=counts[chosen],
            coverage_80=(total(track.inside_80) / counts)[chosen],
            coverage_95=(total(track.inside_95) / counts)[chosen],
            rmse_ratio_rw=np.sqrt(ratio(track.errors**2, track.walk_errors**2))[chosen],
            crps_ratio_rw=ratio(track.crps, track.walk_crps)[chosen],
        )


@dataclass(frozen=True)
class History:
    """Everything that stands of a series.

    Attributes:
        publications: the live ones, by origin the one that stands, the oldest first.
        hindsight: of how many other origins there are forecasts that were made in hindsight alone.
        record: the live scores of the last year at the horizon's end; `leads` at every lead.
        least: origins in common below which members are not compared.
        changes: what was done to the champion, the newest first; `untold` why that cannot be read.
    """

    series: Series
    publications: tuple[Published, ...]
    hindsight: int
    trailing: Trailing
    record: LeadScores | None
    leads: tuple[LeadScores, ...]
    least: int
    alarms: tuple[Raised, ...]
    changes: tuple[Change, ...]
    untold: str | None


@dataclass(frozen=True)
class Concern:
    """Something that somebody should look at; `series` where it is of the forecasts of one."""

    what: str
    words: str
    series: Series | None = None


@dataclass(frozen=True)
class Health:
    """How data and forecasts stand.

    `waiting` is how many forecasts are published and not in the ledger yet, `unanswered` as the ledger has it; `untold`
    says of each part that cannot be read why.
    """

    at: pd.Timestamp
    series: tuple[SeriesStatus, ...]
    headlines: tuple[Headline, ...]
    outlooks: tuple[Outlook, ...]
    alarms: tuple[Raised, ...]
    waiting: int
    unanswered: tuple[tuple[Pair, str, date], ...]
    untold: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        """Whether everything could be read and nothing needs attention."""
        return not self.untold and not self.attention

    @property
    def attention(self) -> tuple[Concern, ...]:
        """Alarms of the last `RECENT_DAYS`, silence, forecasts that wait, are not scored or are none, old data."""
        found = []
        never = {one.series: one.silence.words for one in self.outlooks if one.silence.days is None}
        for one in self.outlooks:
            words = [noticed(raised) for raised in one.alarms]
            words += [one.silence.words] if one.silence.is_silent and one.series not in never else []
            found += [Concern(one.series.title, told, one.series) for told in words]
        for market in dict.fromkeys(series.market for series in never):
            of_market = sorted(
                (series for series in never if series.market == market), key=lambda series: series.horizon
            )
            days = spoken([str(series.horizon.days) for series in of_market])
            found.append(Concern(f"{market}, {days} days", never[of_market[0]], of_market[0]))
        of_data = [one for one in self.alarms if one.horizon is None and _is_recent(one, self.at)]
        found += [Concern(one.pair.slashed, noticed(one)) for one in of_data]
        if self.waiting:
            found.append(Concern("Ledger", self.waits))
        for pair, rate, since in self.unanswered:
            missing = f"nothing was recorded of what came from {day(since)} on"
            todo = f"run 'forex monitor --pair {pair}', and look at the deployment monitor"
            found.append(Concern(market_of(pair, rate), f"{missing}; {todo}"))
        if not self.outlooks and not self.untold:
            found.append(Concern("Forecasts", "there are none yet"))
        if stale := [one.series for one in self.series if not one.is_fresh]:
            found.append(Concern("Data", f"too old: {', '.join(stale)}"))
        return tuple(found)

    @property
    def waits(self) -> str:
        """What waits for the ledger, in words; empty where nothing does."""
        if not self.waiting:
            return ""
        return f"{counted(self.waiting, 'forecast')} not in the ledger yet; 'forex monitor' writes what waits"


class Reader:
    """Reads once and for one page or answer: what it has read it keeps."""

    def __init__(
        self,
        settings: Settings,
        tracked: TrackedRuns | None,
        now: Callable[[], pd.Timestamp] = lambda: pd.Timestamp.now("UTC"),
    ) -> None:
        """
        Args:
            tracked: the tracking store, None where nothing is tracked.
        """
        self._settings = settings
        self._tracked = tracked
        self.now = now()
        self.ledger = Ledger(settings.store_url, settings.root)
        self._publications: dict[Series, tuple[Published, ...]] = {}

    @cached_property
    def latest(self) -> tuple[Published, ...]:
        """The newest forecast of every series."""
        return self.ledger.latest() if self._is_made else ()

    def series(self) -> tuple[Series, ...]:
        return tuple(Series.of(one) for one in self.latest)

    def outlooks(self) -> tuple[Outlook, ...]:
        return tuple(self._outlook(one) for one in self.latest)

    def _outlook(self, newest: Published) -> Outlook:
        series = Series.of(newest)
        pair, rate, horizon = series.pair, series.rate, series.horizon
        return Outlook(
            series=series,
            path=self.ledger.path(newest.number),
            rates=self.rates(series, newest.origin - timedelta(days=HISTORY_DAYS[horizon.days])),
            record=at_the_end(self.ledger.track(pair, rate, horizon, since=_year_before(newest), ends=True)),
            alarms=tuple(
                one
                for one in self.alarms
                if (one.pair, one.rate, one.horizon) == (pair, rate, horizon) and _is_recent(one, self.now)
            ),
            silence=self.silence(series),
        )

    def silence(self, series: Series) -> Silence:
        found = self.ledger.publications(series.pair, series.horizon, rate=series.rate, live=True, last=1)
        if not found:
            return Silence(None, None, is_silent=True)
        days = (self.now - found[0].published_at).days
        allowed = self._settings.monitor.silent_after_days.get(str(series.horizon), YEAR_DAYS)
        return Silence(found[0], days, days > allowed)

    @cached_property
    def alarms(self) -> tuple[Raised, ...]:
        """Every alarm that was raised, the first one first."""
        return self.ledger.alarms() if self._is_made else ()

    @cached_property
    def _is_made(self) -> bool:
        return self.ledger.is_made

    def history(self, series: Series) -> History:
        """
        Raises:
            KeyError: there is no forecast of that series.
        """
        newest = {Series.of(one): one for one in self.latest}[series]
        pair, rate, horizon = series.pair, series.rate, series.horizon
        changes, untold = self.changes()
        year = self.ledger.track(pair, rate, horizon, since=_year_before(newest), members=True)
        standing = self.publications(series)
        live = tuple(one for one in standing if one.live)
        return History(
            series=series,
            publications=live,
            hindsight=len(standing) - len(live),
            trailing=Trailing.of(self.ledger.track(pair, rate, horizon, ends=True)),
            record=at_the_end(year),
            leads=by_lead(year),
            least=self._settings.monitor.min_forecasts,
            alarms=tuple(
                one for one in self.alarms if (one.pair, one.rate, one.horizon) == (pair, rate, horizon)
            ),
            changes=tuple(one for one in changes if one.model == series.model),
            untold=untold,
        )

    def publications(self, series: Series) -> tuple[Published, ...]:
        """By origin the one that stands, as `Ledger.paths` has it, the oldest first."""
        if series not in self._publications:
            found = self.ledger.publications(series.pair, series.horizon, rate=series.rate)
            self._publications[series] = _standing(found)
        return self._publications[series]

    def years(self, series: Series) -> tuple[int, ...]:
        """Years that an origin lies in, the newest first."""
        return tuple(sorted({one.origin.year for one in self.publications(series)}, reverse=True))

    def rates(self, series: Series, since: date, until: date | None = None) -> Rates:
        """What the ledger knows from `since` to `until`, and of all other days what the store of observations holds.

        Forecasts may lie weeks apart: what came between them the observations alone know.
        """
        last = until or self.now.date()
        days, values, recorded = self.ledger.rates(series.pair, series.rate, since, until)
        (seen, prints), _ = _tried(lambda: self._observed_rates(series, since, last), (days[:0], values[:0]))
        _, ours, theirs = np.intersect1d(days, seen, return_indices=True)
        came = recorded.copy()
        came[ours] |= values[ours] == prints[theirs]
        is_new = ~np.isin(seen, days)
        order = np.argsort(np.append(days, seen[is_new]))
        return Rates(
            np.append(days, seen[is_new])[order],
            np.append(values, prints[is_new])[order],
            np.append(came, np.ones(is_new.sum(), bool))[order],
            np.append(recorded, np.zeros(is_new.sum(), bool))[order],
        )

    def _observed_rates(self, series: Series, since: date, last: date) -> tuple[Array, Array]:
        """Days and values of the prints that the quality gate and the ledger let pass, the oldest first."""
        store, nothing = store_of(self._settings), (np.array([], dtype="M8[D]"), np.array([]))
        if not store.is_made:
            return nothing
        name, beside = f"{series.pair.slug}_{series.rate}", timedelta(days=GATE_DAYS)
        found = store.values(name, self.now, since - beside, min(last + beside, self.now.date()))
        if not len(found):
            return nothing
        raw = Prices(name, found.dates, found.values, entry(name).definition, found.known_at)
        accepted = gate(raw, is_spot=True)
        days = accepted.dates.to_numpy().astype("M8[D]")
        withdrawn = np.array(sorted(self.ledger.withdrawn(series.pair, series.rate)), dtype="M8[D]")
        within = (days >= np.datetime64(since)) & (days <= np.datetime64(last)) & ~np.isin(days, withdrawn)
        return days[within], accepted.values[within]

    def paths(self, series: Series, first: date, last: date) -> tuple[Trajectory, ...]:
        """Of the origins from `first` to `last`."""
        return self.ledger.paths(series.pair, series.rate, series.horizon, first=first, last=last)

    def changes(self) -> tuple[tuple[Change, ...], str | None]:
        """What was done to champions, the newest first, and why it cannot be read."""
        tracked = self._tracked
        return (
            ((), None)
            if tracked is None
            else _tried(lambda: tuple(tracked.changes(CHANGES)), tuple[Change, ...]())
        )

    def runs(self, last: int, pair: Pair | None = None) -> tuple[dict[Horizon, Sequence[Run]], str | None]:
        """The newest runs of every horizon, and why they cannot be read."""
        tracked = self._tracked
        if tracked is None:
            return {}, "Tracking is off (tracking.enabled, tracking.backend): there are no runs to show."
        return _tried(
            lambda: {horizon: tracked.newest(pair, horizon, last) for horizon in HORIZONS},
            dict[Horizon, Sequence[Run]](),
        )

    def health(self) -> Health:
        outlooks, no_outlooks = _tried(self.outlooks, tuple[Outlook, ...]())
        alarms, _ = _tried(lambda: self.alarms, tuple[Raised, ...]())
        nothing = (tuple[SeriesStatus, ...](), tuple[Headline, ...]())
        (observed, headlines), no_data = _tried(self._observed, nothing)
        unanswered, _ = _tried(self._unanswered, tuple[tuple[Pair, str, date], ...]())
        untold = dict.fromkeys(reason for reason in (no_outlooks, no_data) if reason)
        waiting = len(Pending(self._settings.pending_dir))
        return Health(self.now, observed, headlines, outlooks, alarms, waiting, unanswered, tuple(untold))

    def _unanswered(self) -> tuple[tuple[Pair, str, date], ...]:
        due = self.now.date() - timedelta(days=self._settings.monitor.unscored_after_days)
        return self.ledger.unanswered(due) if self._is_made else ()

    def _observed(self) -> tuple[tuple[SeriesStatus, ...], tuple[Headline, ...]]:
        data = self._settings.data
        store = store_of(self._settings)
        if not store.is_made:
            return (), ()
        since = self.now - pd.Timedelta(days=max(data.news_days, 1))
        newest = sorted(store.news(self.now, since), key=lambda one: one.published, reverse=True)
        return status_of(store, self.now, data.max_age_business_days), tuple(newest[:HEADLINES])


def noticed(raised: Raised) -> str:
    """An alarm in words, as it stood when it was raised: the ledger does not keep whether it still does."""
    return f"{raised.alarm.kind}: {plain(raised.alarm.found)} (as of {day(raised.raised_at.date())})"


def _is_recent(raised: Raised, now: pd.Timestamp) -> bool:
    return bool(raised.raised_at > now - pd.Timedelta(days=RECENT_DAYS))


def _year_before(newest: Published) -> date:
    return newest.origin - timedelta(days=YEAR_DAYS)


def _standing(publications: Sequence[Published]) -> tuple[Published, ...]:
    """By origin the last that was live, and where none was, the last; in the order of origins."""
    chosen: dict[date, Published] = {}
    for one in publications:
        before = chosen.get(one.origin)
        if before is None or one.live or not before.live:
            chosen[one.origin] = one
    return tuple(chosen[day] for day in sorted(chosen))


def _tried(read: Callable[[], T], otherwise: T) -> tuple[T, str | None]:
    """What is read, or in its place why it cannot be."""
    try:
        return read(), None
    except ForexError as error:
        return otherwise, str(error)
