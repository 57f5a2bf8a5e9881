"""What the reader of a forecast has at stake: a budget rate, an exposure, cash flows.

Amounts are in the pair's base currency, positive where it is received (long: a falling rate hurts), negative where it
is paid (short: a rising rate hurts).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np

from forex_core.calendars import target_dates
from forex_core.config import TreasuryConfig
from forex_core.data.providers.csv_files import read_dates, read_numbers, read_table
from forex_core.errors import InputError
from forex_core.types import Horizon, MarketBundle, Pair

Side = Literal["long", "short", "mixed"]

COLUMNS = ("date", "amount")
MAX_AMOUNT = 1e18
"""More than there is of any currency; figures of amounts up to it are finite."""
MAX_BUDGET_RATIO = 4.0
"""A budget rate further from the close than by this factor is of another unit or another pair."""


@dataclass(frozen=True)
class CashFlow:
    """An amount on a day. `settles` is the date whose close it is exchanged at: the day, or the next business day."""

    day: date
    amount: float
    settles: date | None = None


@dataclass(frozen=True)
class Position:
    """All of it may be absent; `exposure` is due at the end of the horizon."""

    budget_rate: float | None = None
    exposure: float | None = None
    flows: tuple[CashFlow, ...] = ()

    @classmethod
    def of(cls, config: TreasuryConfig, cash_flows: Path | None = None) -> Position:
        """Of the settings, and of a file of cash flows.

        Raises:
            InputError: as `read_cash_flows`, or the amounts are more than there can be.
        """
        flows = read_cash_flows(cash_flows) if cash_flows else ()
        _refuse_beyond_measure("the exposure", config.exposure or 0.0)
        for flow in flows:
            _refuse_beyond_measure(f"the cash flow of {flow.day}", flow.amount)
        return cls(config.budget_rate, config.exposure or None, flows)

    def __bool__(self) -> bool:
        return self.budget_rate is not None or self.exposure is not None or bool(self.flows)

    @property
    def side(self) -> Side | None:
        """Of exposure and flows together, None without either."""
        return side_of([*([self.exposure] if self.exposure else []), *(flow.amount for flow in self.flows)])

    @property
    def digest(self) -> str:
        """Short hash of what it is; 'none' where there is nothing. Tells two requests apart."""
        if not self:
            return "none"
        told = [self.budget_rate, self.exposure, [(flow.day.isoformat(), flow.amount) for flow in self.flows]]
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    def settled(self, bundle: MarketBundle, horizon: Horizon) -> Position:
        """The position with the date that settles each flow, checked against what is forecast.

        Raises:
            InputError: the budget rate is of another unit, or a flow lies outside the horizon.
        """
        if self.budget_rate is not None:
            _refuse_other_unit(self.budget_rate, float(bundle.spot[-1]), bundle.pair)
        days = [day for _, day in target_dates(bundle.pair, bundle.origin, horizon)]
        flows = tuple(CashFlow(f.day, f.amount, _settling(f, days, bundle, horizon)) for f in self.flows)
        return Position(self.budget_rate, self.exposure, flows)


def side_of(amounts: Sequence[float]) -> Side | None:
    """
    >>> side_of([1.0, 2.0]), side_of([-1.0]), side_of([1.0, -1.0]), side_of([])
    ('long', 'short', 'mixed', None)
    """
    signs = {amount > 0 for amount in amounts}
    if len(signs) == 2:
        return "mixed"
    return ("long" if signs.pop() else "short") if signs else None


def read_cash_flows(path: Path) -> tuple[CashFlow, ...]:
    """Cash flows of a CSV file with the columns `date` and `amount`, in the order of their dates; others are not read.

    Raises:
        InputError: the file cannot be read, lacks a column, or holds something else than dates and amounts.
    """
    table = read_table(path)
    named = {str(name).lower(): k for k, name in enumerate(table.columns)}
    missing = [name for name in COLUMNS if name not in named]
    if missing:
        raise InputError(
            f"{path} has no column {missing[0]!r}; found {', '.join(map(repr, table.columns))}. Expected the columns "
            "date and amount, such as 2024-07-15,250000 (negative where it is paid)"
        )
    days = read_dates(path, table.iloc[:, named["date"]])
    column = table.columns[named["amount"]]
    amounts = read_numbers(path, column, table.iloc[:, named["amount"]], required=True)
    assert amounts is not None  # it is required
    empty = np.flatnonzero(np.isnan(amounts) | (amounts == 0))
    if len(empty):
        raise InputError(
            f"{path}, line {table.index[empty[0]]}: the flow of {days[empty[0]].date()} has no amount; expected a "
            "number other than 0, or take the line out"
        )
    flows = [CashFlow(day.date(), float(amount)) for day, amount in zip(days, amounts, strict=True)]
    return tuple(sorted(flows, key=lambda flow: flow.day))


def _settling(flow: CashFlow, days: Sequence[date], bundle: MarketBundle, horizon: Horizon) -> date:
    inside = [day for day in days if day >= flow.day]
    if not inside or flow.day <= bundle.origin:
        raise InputError(
            f"the cash flow of {flow.day} lies outside the horizon: a {horizon} forecast from {bundle.origin} covers "
            f"the closes from {days[0]} to {days[-1]} (a day without one takes the next). Take it out of the file, or "
            "choose another horizon"
        )
    return inside[0]


def _refuse_beyond_measure(what: str, amount: float) -> None:
    if not abs(amount) <= MAX_AMOUNT:
        raise InputError(
            f"{what} is {amount:g}, more than there is of any currency; expected an amount in base currency, "
            f"{MAX_AMOUNT:g} at most"
        )


def _refuse_other_unit(rate: float, close: float, pair: Pair) -> None:
    if close / MAX_BUDGET_RATIO <= rate <= close * MAX_BUDGET_RATIO:
        return
    inverted = close / MAX_BUDGET_RATIO <= 1 / rate <= close * MAX_BUDGET_RATIO
    hint = f"; it looks like {pair.base} per {pair.quote}" if inverted else ""
    raise InputError(
        f"the budget rate {rate:g} is {rate / close:.3g} times the last close of {pair}, {close:g}{hint}. Expected "
        f"{pair.unit}, from a quarter of that close to four times it"
    )
