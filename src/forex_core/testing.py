"""What our tests and those of users' code share: synthetic market data, as a table and as a bundle.

Nothing outside tests imports this; no synthetic value ever stands in for a missing real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from forex_core.data.bundle import load_bundle
from forex_core.data.providers.csv_files import CsvProvider
from forex_core.data.series import Definition, MarketData, Series, definition_of
from forex_core.types import MarketBundle, Pair, RateKind, Source

USDCLP = Pair("USD", "CLP")


def synthetic_table(
    rows: int = 900,
    *,
    seed: int = 0,
    start: str = "2015-01-01",
    drivers: Sequence[str] = ("Copper", "DXY", "VIX"),
    pass_through: float = 0.3,
    spot: str = "USDCLP",
) -> pd.DataFrame:
    """Weekday closes of a pair and its drivers, dates in the first column.

    Log returns with persistent volatility. The spot moves by `pass_through` times the drivers' mean move of the
    day before, so a model that reads the drivers can beat the random walk; 0 gives a random walk.
    """
    rng = np.random.default_rng(seed)
    days = pd.bdate_range(start, periods=rows)
    sigma = 0.006 * np.exp(
        0.4 * np.cumsum(rng.normal(0, 0.08, rows)) / np.sqrt(np.arange(1, rows + 1) * 0.05 + 1)
    )
    moves = rng.normal(0, 1, (rows, len(drivers))) * 0.01
    common = moves.mean(axis=1) if len(drivers) else np.zeros(rows)
    returns = rng.normal(0, 1, rows) * sigma + pass_through * np.concatenate([[0.0], common[:-1]])
    table = {"Date": days.strftime("%Y-%m-%d"), spot: 700 * np.exp(np.cumsum(returns))}
    for k, name in enumerate(drivers):
        table[name] = 50 * np.exp(np.cumsum(moves[:, k]))
    return pd.DataFrame(table)


@dataclass(frozen=True)
class TableProvider:
    """A provider over a table in memory: the first column dates, the pair's column the spot, the others drivers."""

    table: pd.DataFrame
    name: str = "table"
    rate: RateKind = "close"

    def spot_definition(self, pair: Pair) -> Definition:
        return definition_of(str(pair))

    def load(self, pair: Pair, instant: pd.Timestamp | None = None) -> MarketData:
        days = pd.DatetimeIndex(pd.to_datetime(self.table.iloc[:, 0]))
        series = [
            Series(str(c), days, self.table[c].to_numpy(dtype=np.float64), definition_of(str(c)))
            for c in self.table.columns[1:]
        ]
        spot = next(s for s in series if s.name == str(pair))
        source = Source(
            name="synthetic table",
            series=tuple(s.name for s in series),
            fetched_at=pd.Timestamp("2020-01-01", tz="UTC"),
            first_date=days[0].date(),
            last_date=days[-1].date(),
            rows=len(days),
            licence="made for a test",
            release=spot.definition.release.rule,
        )
        return MarketData(spot, tuple(s for s in series if s is not spot), (source,))


def bundle_of(table: pd.DataFrame, pair: Pair = USDCLP, as_of: date | None = None) -> MarketBundle:
    """The bundle of a table, by the same gate and alignment as a file."""
    return load_bundle(TableProvider(table), pair, as_of)


def synthetic_bundle(rows: int = 900, *, seed: int = 0, pass_through: float = 0.3) -> MarketBundle:
    """A bundle of `synthetic_table`."""
    return bundle_of(synthetic_table(rows, seed=seed, pass_through=pass_through))


def write_csv(table: pd.DataFrame, path: Path) -> CsvProvider:
    """Write a table as a CSV file and return the provider that reads it."""
    table.to_csv(path, index=False)
    return CsvProvider((path,))
