"""Sources of market data, one file each, behind one small interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pandas as pd

from forex_core.data.series import Definition, MarketData
from forex_core.errors import ConfigError
from forex_core.types import Pair, RateKind


class Provider(Protocol):
    """A source of raw series. It reads and labels; it repairs nothing."""

    @property
    def name(self) -> str:
        """As the command line says it."""
        ...

    @property
    def rate(self) -> RateKind:
        """Which rate of a pair its spot is."""
        ...

    def spot_definition(self, pair: Pair) -> Definition:
        """What this source calls the rate of the pair, and when it is known."""
        ...

    def load(self, pair: Pair, instant: pd.Timestamp | None = None) -> MarketData:
        """Spot and drivers of a pair, each with its definition and release rule.

        Args:
            instant: what became known later may be left out; None for all there is.

        Raises:
            SourceError: when the source does not hold the pair, or is not what it should be.
            SourceUnavailable: when it could not be reached just now.
            DataQualityError: when what it holds is not numbers by date.
        """
        ...


def provider(source: str, paths: Sequence[Path] = (), columns: Mapping[str, str] | None = None) -> Provider:
    """The provider of a source by name: 'ecb', or 'csv' with its files.

    Raises:
        ConfigError: for another name, or files for a source that reads none.
    """
    from forex_core.data.providers.csv_files import CsvProvider
    from forex_core.data.providers.ecb import EcbProvider

    if source == "csv":
        return CsvProvider(tuple(paths), dict(columns or {}))
    if paths:
        raise ConfigError(
            f"source {source} reads no files, found {paths[0]} among the paths; use --source csv for it"
        )
    if source == "ecb":
        return EcbProvider()
    raise ConfigError(f"unknown source '{source}'; expected ecb or csv")
