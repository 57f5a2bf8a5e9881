"""The forward that covered parity implies from the policy rates in a bundle, beside the published median."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np

from forex_core.briefing.absent import Absent
from forex_core.briefing.position import Side
from forex_core.briefing.quote import QuotedForecast
from forex_core.briefing.sample_paths import SamplePaths
from forex_core.types import PERCENT_PER_YEAR, Array, MarketBundle, Verdict

POLICY_RATES: dict[str, tuple[str, ...]] = {"USD": ("fed_rate",), "CLP": ("chile_tpm", "chile_rate")}
"""Series that say the policy rate of a currency, the most current first."""

YEAR_DAYS = 360
ALIKE = 0.05
"""A forward whose probability of being exceeded is no further than this from one half is no better and no worse."""

AdviceKind = Literal["no_edge", "alike", "median_above", "median_below"]


@dataclass(frozen=True)
class PolicyRate:
    """In force at the origin, in percent per year."""

    currency: str
    series: str
    percent: float


@dataclass(frozen=True)
class Advice:
    """Whether the median departs from the forward in a way that somebody can act on.

    `above` is the probability that the last close is above the forward that is struck at the quote, or without one at
    the first target date: the origin's close is gone when the forecast is read, and what the next one catches up with
    nobody can deal at.
    """

    kind: AdviceKind
    side: Side | None
    above: float


@dataclass(frozen=True)
class Forward:
    """`days`, `rates`, `difference` (median less forward) and `above`, the probability that the close is, are [H].

    They are from `struck_at`: the quote, or without one the origin's close.
    """

    base: PolicyRate
    quote: PolicyRate
    from_quote: bool
    struck_at: float
    target_dates: tuple[date, ...]
    days: tuple[int, ...]
    rates: Array
    difference: Array
    above: Array
    advice: Advice


def forward(
    paths: SamplePaths,
    bundle: MarketBundle,
    verdict: Verdict,
    side: Side | None = None,
    quoted: QuotedForecast | None = None,
) -> Forward | Absent:
    """Forwards to each target date, simple interest on actual days over 360, beside the forecast from the same rate.

    F = S (1 + i_quote d/360) / (1 + i_base d/360), with S the quote and d the calendar days from its day, or without
    one the close and those from the origin: policy rates for interbank ones, no spot lag, no cross-currency basis, no
    bank's margin.

    A median that departs from the forward is called better or worse only where the verdict says that skill is usable.
    """
    rates = {currency: _in_force(bundle, currency) for currency in (bundle.pair.base, bundle.pair.quote)}
    base, quote = (rates[currency] for currency in (bundle.pair.base, bundle.pair.quote))
    if base is None or quote is None:
        lacking = [currency for currency, found in rates.items() if found is None]
        told = [{"currency": c, "series": list(POLICY_RATES.get(c, ()))} for c in lacking]
        return Absent("no_policy_rate", {"currencies": told})
    forecast = paths.forecast
    if quoted is None:
        spot, start, dates = float(bundle.spot[-1]), forecast.origin, forecast.target_dates
        median, prices = forecast.median, paths.prices
    else:
        spot, start, dates = quoted.quote.value, quoted.day, quoted.target_dates
        median, prices = quoted.quantiles[:, quoted.levels.index(0.5)], quoted.prices
    days = np.array([(day - start).days for day in dates])
    growth = (1 + quote.percent / 100 * days / YEAR_DAYS) / (1 + base.percent / 100 * days / YEAR_DAYS)
    above = (prices > spot * growth).mean(axis=0)
    judged = float(above[-1])
    if quoted is None:
        judged = float((prices[:, -1] / prices[:, 0] > growth[-1] / growth[0]).mean())
    return Forward(
        base=base,
        quote=quote,
        from_quote=quoted is not None,
        struck_at=spot,
        target_dates=dates,
        days=tuple(days.tolist()),
        rates=spot * growth,
        difference=median - spot * growth,
        above=above,
        advice=_advice(verdict, side, judged),
    )


def _advice(verdict: Verdict, side: Side | None, above: float) -> Advice:
    kind: AdviceKind = "median_above" if above > 0.5 else "median_below"
    if verdict.kind != "usable":
        kind = "no_edge"
    elif abs(above - 0.5) <= ALIKE:
        kind = "alike"
    return Advice(kind, side, above)


def _in_force(bundle: MarketBundle, currency: str) -> PolicyRate | None:
    names = [name.lower() for name in bundle.driver_names]
    for series in POLICY_RATES.get(currency, ()):
        if series in names:
            k = names.index(series)
            if bundle.driver_units[k] == PERCENT_PER_YEAR and np.isfinite(bundle.drivers[-1, k]):
                return PolicyRate(currency, series, float(bundle.drivers[-1, k]))
    return None
