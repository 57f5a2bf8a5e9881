"""The register of series: what each is, and who gives it, in the order in which they are asked.

A series has one definition. The peso's spot close, the rate that its central bank observes and a cross of two euro
reference rates are three series, whatever their values have in common; sources of different definitions never
follow one another in one series.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from forex_core.calendars import is_currency
from forex_core.data.series import (
    COPPER_CASH,
    DEFINITIONS,
    ECB_FIXING,
    INFLATION,
    MARKET_CLOSE,
    OBSERVED_RATE,
    PRICE,
    RATE,
    SPOT_CLOSE,
    WEEKLY_H10,
    Definition,
)
from forex_core.types import Pair, RateKind

YAHOO, FRED, BCCH, MINDICADOR, ECB = "yahoo", "fred", "bcch", "mindicador", "ecb"
IMPORT = "import"
"""A source, before all others: what a person has put in by hand."""


ECB_CURRENCIES = frozenset(
    [
        "AUD",
        "BRL",
        "CAD",
        "CHF",
        "CNY",
        "CZK",
        "DKK",
        "EUR",
        "GBP",
        "HKD",
        "HUF",
        "IDR",
        "ILS",
        "INR",
        "ISK",
        "JPY",
        "KRW",
        "MXN",
        "MYR",
        "NOK",
        "NZD",
        "PHP",
        "PLN",
        "RON",
        "SEK",
        "SGD",
        "THB",
        "TRY",
        "USD",
        "ZAR",
    ]
)
"""Those that the bank gives a reference rate for today."""

NEEDS: Mapping[str, str] = {
    BCCH: "FOREX_DATA__BCCH_USER and FOREX_DATA__BCCH_PASSWORD",
}
"""Sources that answer to a key alone: the settings that hold it."""

LICENCES: Mapping[str, str] = {
    YAHOO: "for personal use, no redistribution: Yahoo's terms of service",
    FRED: "by series, mostly public domain; indices belong to their publishers: FRED terms of use",
    BCCH: "free to use with the source named: Banco Central de Chile",
    MINDICADOR: "free to use; the data are those of the Banco Central de Chile",
    ECB: "free to use with the source named: European Central Bank",
    IMPORT: "as stated by whoever supplied the file",
}


@dataclass(frozen=True)
class Feed:
    """One source of a series, and what it calls the series."""

    source: str
    code: str


@dataclass(frozen=True)
class Entry:
    """A series of the register.

    Attributes:
        feeds: sources in the order in which they are asked.
        currency: of which it tells, where it is a driver for pairs of that currency alone.
        driver: whether models read it.
    """

    name: str
    definition: Definition
    feeds: tuple[Feed, ...] = ()
    currency: str | None = None
    driver: bool = True

    @property
    def is_imported(self) -> bool:
        """Whether the register does not know it: a column of somebody's file, but for that of another pair.

        >>> [entry(name).is_imported for name in ("lithium", "nickel", "usdmxn")]
        [True, True, False]
        """
        known = self.name in ENTRIES or self.feeds or _PAIRED.fullmatch(self.name)
        return not (known or is_pair_name(self.name))

    def rank(self, source: str) -> int:
        """Place of a source in the order, 0 the best; an import comes before all, an unknown one after all."""
        order = [IMPORT, *(feed.source for feed in self.feeds)]
        return order.index(source) if source in order else len(order)


def _entry(
    name: str,
    *feeds: Feed,
    definition: Definition | None = None,
    currency: str | None = None,
    driver: bool = True,
) -> tuple[str, Entry]:
    return name, Entry(name, definition or DEFINITIONS[name], feeds, currency, driver)


ENTRIES: Mapping[str, Entry] = dict(
    (
        _entry("copper", Feed(YAHOO, "HG=F")),
        _entry("oil", Feed(YAHOO, "CL=F")),
        _entry("dxy", Feed(YAHOO, "DX-Y.NYB")),
        _entry("sp500", Feed(YAHOO, "^GSPC"), Feed(FRED, "SP500")),
        _entry("vix", Feed(YAHOO, "^VIX"), Feed(FRED, "VIXCLS")),
        _entry("fed_rate", Feed(FRED, "DFF")),
        _entry("chile_rate", currency="CLP"),
        _entry(
            "chile_tpm",
            Feed(BCCH, "F022.TPM.TIN.D001.NO.Z.D"),
            Feed(MINDICADOR, "tpm"),
            currency="CLP",
        ),
        _entry(
            "dollar_broad",
            Feed(FRED, "DTWEXBGS"),
            definition=Definition(
                "index points", PRICE, WEEKLY_H10, 21, "broad dollar index of the Federal Reserve"
            ),
            driver=False,
        ),
        _entry(
            "copper_cash",
            Feed(MINDICADOR, "libra_cobre"),
            definition=Definition("USD per lb", PRICE, COPPER_CASH, 15, "copper, cash price in London"),
            driver=False,
        ),
        _entry(
            "uf",
            Feed(BCCH, "F073.UFF.PRE.Z.D"),
            Feed(MINDICADOR, "uf"),
            definition=Definition("CLP", RATE, OBSERVED_RATE, 15, "unidad de fomento of that day"),
            currency="CLP",
            driver=False,
        ),
        _entry(
            "ipc",
            Feed(BCCH, "F074.IPC.VAR.Z.Z.C.M"),
            Feed(MINDICADOR, "ipc"),
            definition=Definition("percent", RATE, INFLATION, 75, "Chilean consumer prices, monthly change"),
            currency="CLP",
            driver=False,
        ),
    )
)
"""Series that do not belong to one pair, by name."""

_PAIRED = re.compile(r"([a-z]{3})([a-z]{3})_(close|observed|reference|dollar_index|commodity_fx)")

_OBSERVED: Mapping[str, tuple[Feed, ...]] = {
    "usdclp": (Feed(BCCH, "F073.TCO.PRE.Z.D"), Feed(MINDICADOR, "dolar")),
}
"""Pairs of which a central bank publishes an observed rate."""


def is_pair_name(name: str) -> bool:
    """
    >>> is_pair_name("USDMXN"), is_pair_name("copper")
    (True, False)
    """
    return len(name) == 6 and all(is_currency(code.upper()) for code in (name[:3], name[3:]))


def spot_name(pair: Pair, kind: RateKind) -> str:
    """
    >>> spot_name(Pair("USD", "CLP"), "close")
    'usdclp_close'
    """
    return f"{pair.slug}_{kind}"


def entry(name: str) -> Entry:
    """The entry of a series. A name that is not in the register is a market price, given by imports alone.

    >>> entry("usdclp_close").feeds
    (Feed(source='yahoo', code='CLP=X'),)
    """
    if name in ENTRIES:
        return ENTRIES[name]
    spot = _PAIRED.fullmatch(name)
    if spot is None or spot[1] == spot[2]:
        return Entry(name, Definition("not stated", PRICE, MARKET_CLOSE, 15, "as the file names it"))
    pair = Pair(spot[1].upper(), spot[2].upper())
    if spot[3] == "close":
        ticker = f"{'' if pair.base == 'USD' else pair.base}{pair.quote}=X"
        meaning = "spot market, the last price of the day in London"
        return Entry(name, Definition(pair.unit, PRICE, SPOT_CLOSE, 15, meaning), (Feed(YAHOO, ticker),))
    if spot[3] == "observed":
        meaning = "average of the day before's trades, as the central bank publishes it for that day"
        definition = Definition(pair.unit, PRICE, OBSERVED_RATE, 15, meaning)
        return Entry(name, definition, _OBSERVED.get(pair.slug, ()))
    unit, meaning = {
        "reference": (pair.unit, "cross of two euro reference rates"),
        "dollar_index": ("index points", "dollar against the currencies of the ICE index but the pair's own"),
        "commodity_fx": ("USD per unit", "dollar price of commodity currencies but the pair's own"),
    }[spot[3]]
    feeds = (Feed(ECB, spot[3]),) if {pair.base, pair.quote} <= ECB_CURRENCIES else ()
    return Entry(name, Definition(unit, PRICE, ECB_FIXING, 15, meaning), feeds)


def spot_pair(name: str) -> Pair | None:
    """The pair whose rate a series is, None for others."""
    found = _PAIRED.fullmatch(name)
    spot = found and found[3] in get_args(RateKind) and found[1] != found[2]
    return Pair(found[1].upper(), found[2].upper()) if found and spot else None


def drivers_of(pair: Pair, kind: RateKind) -> tuple[str, ...]:
    """Names of the registered drivers of a pair whose rate is of that kind, in the order of the register.

    Beside reference rates stand factors of the same fixing; beside the others what markets close at.
    """
    if kind == "reference":
        return f"{pair.slug}_dollar_index", f"{pair.slug}_commodity_fx"
    return tuple(
        one.name for one in ENTRIES.values() if one.driver and one.currency in (None, pair.base, pair.quote)
    )


def registered(pair: Pair) -> tuple[Entry, ...]:
    """The rates of a pair that somebody gives, and every other series of the register that tells of it."""
    rates = (entry(spot_name(pair, kind)) for kind in get_args(RateKind))
    factors = (one for one in map(entry, drivers_of(pair, "reference")) if one.feeds)
    others = (one for one in ENTRIES.values() if one.currency in (None, pair.base, pair.quote))
    return (*(rate for rate in rates if rate.feeds), *factors, *others)
