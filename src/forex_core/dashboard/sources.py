"""What the dashboard reads, and how it is told apart: the ledger, the observations, and runs that others hand in.

The rooms of MLflow are not known here: `TrackedRuns` says what is asked of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from forex_core.ledger import Published
from forex_core.types import RATE_NAMES, Horizon, Pair


class ModelScores(Protocol):
    """What a run logged of one model: RMSE in quote units, MAPE in percent."""

    @property
    def rmse(self) -> float | None: ...
    @property
    def mape(self) -> float | None: ...
    @property
    def weight(self) -> float | None: ...


class Run(Protocol):
    """A tracked run; `scores` are of its own horizon, `models` of every model, `single_params` one value each."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def started(self) -> datetime: ...
    @property
    def pair(self) -> str | None: ...
    @property
    def horizon(self) -> str | None: ...
    @property
    def environment(self) -> str | None: ...
    @property
    def origin(self) -> str | None: ...
    @property
    def scores(self) -> Mapping[str, float | None]: ...
    @property
    def published_version(self) -> int | None: ...
    @property
    def version(self) -> int | None: ...
    @property
    def aliases(self) -> tuple[str, ...]: ...
    @property
    def error(self) -> str | None: ...
    @property
    def tags(self) -> Mapping[str, str]: ...
    @property
    def window(self) -> str | None: ...
    @property
    def models(self) -> Mapping[str, ModelScores]: ...
    @property
    def single_params(self) -> Mapping[str, str]: ...


class Change(Protocol):
    """What was done to a champion, by hand or by the monitor; one that failed changed nothing.

    `action` is rollback, undo, promote, adapt (other bands) or unpin, by which the champion stays.
    """

    @property
    def run_id(self) -> str: ...
    @property
    def at(self) -> datetime: ...
    @property
    def action(self) -> str | None: ...
    @property
    def model(self) -> str | None: ...
    @property
    def from_version(self) -> int | None: ...
    @property
    def to_version(self) -> int | None: ...
    @property
    def by(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def status(self) -> str: ...


class TrackedRuns(Protocol):
    """The tracking store. A `ForexError` of its is told in the place of what it does not say."""

    def newest(self, pair: Pair | None, horizon: Horizon, last: int) -> Sequence[Run]:
        """The newest runs of a horizon, newest first."""
        ...

    def changes(self, last: int) -> Sequence[Change]:
        """What was done to champions last, the newest first."""
        ...


def market_of(pair: Pair, rate: str) -> str:
    """In words: the pair, and which rate of it where it is not the market's close."""
    return pair.slashed + ("" if rate == "close" else f" ({_words_of(rate)})")


def _words_of(rate: str) -> str:
    known: Mapping[str, str] = {str(kind): words for kind, words in RATE_NAMES.items()}
    return known.get(rate, rate)


@dataclass(frozen=True, order=True)
class Series:
    """What has a page of its own: the forecasts of one rate of a pair at one horizon."""

    pair: Pair
    rate: str
    horizon: Horizon

    @classmethod
    def of(cls, published: Published) -> Series:
        return cls(published.pair, published.rate, published.horizon)

    @property
    def name(self) -> str:
        """As addresses have it: `usdclp-7d`, and `usdclp-observed-7d` where the rate is not the market's close."""
        parts = [self.pair.slug, *([] if self.rate == "close" else [self.rate]), str(self.horizon)]
        return "-".join(parts)

    @property
    def rate_words(self) -> str:
        return _words_of(self.rate)

    @property
    def market(self) -> str:
        """In words."""
        return market_of(self.pair, self.rate)

    @property
    def title(self) -> str:
        return f"{self.market}, {self.horizon.days} days"

    @property
    def model(self) -> str:
        """Name of the registered model."""
        return f"{self.pair.slug}-{self.horizon}"
