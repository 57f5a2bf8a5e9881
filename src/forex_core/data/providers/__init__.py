"""Sources of market data, one file each, behind one small interface."""

from __future__ import annotations

from typing import Protocol

from forex_core.data.series import MarketData
from forex_core.types import Pair


class Provider(Protocol):
    """A source of raw series. It reads and labels; it repairs nothing."""

    name: str

    def load(self, pair: Pair) -> MarketData:
        """Spot and drivers of a pair, each with its definition and release rule.

        Raises:
            SourceError: when the source cannot be read or does not hold the pair.
            DataQualityError: when what it holds is not numbers by date.
        """
        ...
