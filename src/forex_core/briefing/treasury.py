"""What a forecast means for a position: probabilities around the budget rate, worst rates, expected shortfalls.

All of it is counted on joint sample paths, on daily closes: what the rate does within a day is not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from forex_core.briefing.position import CashFlow, Position, Side, side_of
from forex_core.briefing.sample_paths import SamplePaths
from forex_core.types import Array

LEVEL = 0.05
"""Share of outcomes that 'worst' and 'shortfall' speak of."""

Reference = Literal["budget_rate", "close"]


@dataclass(frozen=True)
class ExposureFigures:
    """Of an amount exchanged at the last target date; losses in quote currency, negative ones are gains."""

    amount: float
    side: Side
    worst_rate: float
    reference: Reference
    reference_rate: float
    loss_at_worst_rate: float
    expected_shortfall: float


@dataclass(frozen=True)
class AverageRate:
    """Of the mean rate over the dates of some flows, weighted by their amounts."""

    median: float
    above: float | None
    worst_rate: float


@dataclass(frozen=True)
class CashFlowFigures:
    """Of all flows together. `average` is None where they have both signs: weights of both signs make no mean."""

    flows: tuple[CashFlow, ...]
    total: float
    side: Side
    average: AverageRate | None
    reference: Reference
    reference_rate: float
    expected_shortfall: float


@dataclass(frozen=True)
class Treasury:
    """Probabilities [H] are None without a budget rate."""

    budget_rate: float | None
    paths: SamplePaths
    above: Array | None
    ever_above: Array | None
    ever_below: Array | None
    exposure: ExposureFigures | None
    cash_flows: CashFlowFigures | None


def treasury(position: Position, paths: SamplePaths, close: float) -> Treasury:
    """The figures of a position whose flows are settled (`Position.settled`).

    Args:
        close: of the origin, what losses are measured against without a budget rate.
    """
    prices, budget = paths.prices, position.budget_rate
    reference: tuple[Reference, float] = ("close", close) if budget is None else ("budget_rate", budget)
    above = ever_above = ever_below = None
    if budget is not None:
        above = (prices > budget).mean(axis=0)
        ever_above = (np.maximum.accumulate(prices, axis=1) > budget).mean(axis=0)
        ever_below = (np.minimum.accumulate(prices, axis=1) < budget).mean(axis=0)
    return Treasury(
        budget_rate=budget,
        paths=paths,
        above=above,
        ever_above=ever_above,
        ever_below=ever_below,
        exposure=_exposure(position.exposure, paths, *reference) if position.exposure else None,
        cash_flows=_cash_flows(position.flows, paths, budget, *reference) if position.flows else None,
    )


def tail_mean(values: Array, share: float) -> float:
    """Mean of the largest `share` of equally likely values: their expected shortfall (Acerbi and Tasche 2002).

    The value on the edge counts by the part of it that is inside.

    >>> tail_mean(np.array([1.0, 2.0, 3.0, 4.0]), 0.5), tail_mean(np.array([1.0, 2.0, 3.0, 4.0]), 0.375)
    (3.5, 3.6666666666666665)
    """
    count = share * len(values)
    weights = np.clip(count - np.arange(len(values)), 0.0, 1.0)
    return float(np.sort(values)[::-1] @ weights / count)


def _exposure(amount: float, paths: SamplePaths, reference: Reference, rate: float) -> ExposureFigures:
    side: Side = "long" if amount > 0 else "short"
    forecast = paths.forecast
    level = round(LEVEL if side == "long" else 1 - LEVEL, 6)
    worst = float(forecast.quantiles[-1, forecast.levels.index(level)])
    return ExposureFigures(
        amount=amount,
        side=side,
        worst_rate=worst,
        reference=reference,
        reference_rate=rate,
        loss_at_worst_rate=amount * (rate - worst),
        expected_shortfall=tail_mean(amount * (rate - paths.prices[:, -1]), LEVEL),
    )


def _cash_flows(
    flows: Sequence[CashFlow], paths: SamplePaths, budget: float | None, reference: Reference, rate: float
) -> CashFlowFigures:
    amounts = np.array([flow.amount for flow in flows])
    days = {day: h for h, day in enumerate(paths.forecast.target_dates)}
    prices = paths.prices[:, [days[flow.settles] for flow in flows if flow.settles]]
    side = side_of(amounts.tolist())
    assert side is not None  # there are flows
    average = None
    if side != "mixed":
        mean = prices @ (amounts / amounts.sum())
        worst = LEVEL if side == "long" else 1 - LEVEL
        median, bad = np.quantile(mean, [0.5, worst], method="hazen").tolist()
        average = AverageRate(median, None if budget is None else float((mean > budget).mean()), bad)
    return CashFlowFigures(
        flows=tuple(flows),
        total=float(amounts.sum()),
        side=side,
        average=average,
        reference=reference,
        reference_rate=rate,
        expected_shortfall=tail_mean((rate - prices) @ amounts, LEVEL),
    )
