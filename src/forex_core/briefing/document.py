"""The briefing as keys of a forecast's document: numbers, dates and kinds, no sentence in any language.

Every key holds an object, `null` where nobody asked for it, or, where it cannot be had, `{"absent": {"kind": …}}` with
the facts that the kind is about. Rates are in the document's `unit`; amounts in the pair's base currency, what they
gain and lose in its quote currency. [H] has one value for each of the document's `target_dates`.

treasury        null without a budget rate, an exposure and cash flows
    budget_rate     rate, or null
    level           0.05: the share that 'worst' and 'shortfall' speak of
    paths           count; apart, how many of them do not overlap; error, about two standard errors of a probability
                    of several dates together; first, last: dates at which the past paths start whose order is followed
    above           [H] probability that the close of that date is above the budget rate; null without one
    ever_above      [H] that some close from the first target date up to that one is; null without one
    ever_below      [H] that some close up to that one is below it; null without one
    exposure        null, or
        amount, side        base currency; 'long' where it is received (positive), 'short' where it is paid
        target_date         the last one
        worst_rate          the rate that is worse for that side with probability `level`
        reference           'budget_rate' or, without one, 'close' (the origin's); reference_rate its value
        loss_at_worst_rate  against the reference, quote currency; negative is a gain
        expected_shortfall  mean loss in the worst `level` of outcomes, quote currency; negative is a gain
    cash_flows      null, or
        flows               [{date, target_date, amount}] in the order of dates; the close of target_date settles it
        total, side         'mixed' where amounts have both signs
        average             null where mixed, else of the mean rate, weighted by amounts: median; above, the probability
                            that it is above the budget rate (null without one); worst_rate
        reference, reference_rate, expected_shortfall   as of an exposure, over all flows
forward         or absent: no_policy_rate {currencies: [{currency, series: [names that would do]}]}
    base, quote     {currency, series, percent}: policy rate in force, percent per year
    from_quote      whether it is struck at the quote and beside the forecast from there; else at the origin's close
    struck_at       that quote or close
    target_dates    [H] those of the document, or of the quote
    days            [H] calendar days from the day of the quote, or from the origin
    rates           [H] struck_at · (1 + quote · days/360) / (1 + base · days/360)
    difference      [H] median less the forward
    above           [H] probability that the close of that date is above the forward
    advice          kind: 'no_edge' (the verdict is not 'usable'), 'alike' (its `above` is within .45 to .55),
                    'median_above', 'median_below'; side: 'long', 'short', 'mixed' or null, as of the position;
                    above: probability that the last close is above the forward struck at the quote, or without one
                    at the first target date
quote           or absent: not_live {source}, past_day {day}, other_rate {rate}, unavailable {reason},
                implausible {value, close}, not_newer {at}, too_late {day, last}
    value, at, source   rate; UTC instant; 'given' by hand or the name of the source
    difference          value less the origin's close
    change_pct          the same in percent of the close
    stands_for          target date whose close it is taken as an early sight of
    target_dates        those after it
    quantiles           by level, one value for each of these: through the rest of the quote's day, and from that
                        day's close on as the forecast goes
contributions   or absent: no_drivers, other_model (the published model is not the one that was run)
    target_date, close, median   the last target date
    move            median less close: the sum of all that follows
    drivers         [{name, value}] what each driver's moves of the last `rows` weekdays add, the largest first
    own_past        what is left where no driver has moved: the rate's own past
    remainder       what drivers do together and not one by one
    unread          drivers that no member made anything of today
    rows            60
changes         or absent: first (there is no other forecast before), later {run_id, origin} (the last one is of a later
                day), untracked {run_id} (tracking is off, which keeps its document), unreadable {run_id} (its document
                is of another format, or not there), unknown (the ledger cannot be read)
    run_id, origin, as_of   of the forecast before
    close           {before, now}
    target_date     the last date that both speak of; null where there is none, and then median, width_80, parts as well
    median, width_80    {before, now} on that date; width of the 80 % band
    parts           what the median's move is made of, adding up to it; null where the recipes differ:
                    close (the rate moved), weights (members' weights changed), signal (the members say something else)
    data            new_rows; revised [{series, rows, first}] rows of before that are other now, null where the rows of
                    before are not at hand; left, joined: names of drivers
    model           version {before, now}; recipe_changed
    weights         [{model, before, now}] at most five, the largest change first
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from forex_core.briefing.absent import Absent
from forex_core.briefing.changes import Changes, Move, changes
from forex_core.briefing.contributions import ROWS, Contributions, contributions
from forex_core.briefing.forward import Forward, forward
from forex_core.briefing.position import CashFlow, Position
from forex_core.briefing.quote import QuotedForecast, quoted
from forex_core.briefing.sample_paths import sample_paths
from forex_core.briefing.treasury import LEVEL, CashFlowFigures, ExposureFigures, Treasury, treasury
from forex_core.data.observations import Quote
from forex_core.engine import Engine
from forex_core.types import Array, ForecastRun, MarketBundle, Publication

Document = dict[str, Any]


def briefing_document(
    run: ForecastRun,
    bundle: MarketBundle,
    engine: Engine,
    *,
    position: Position | None = None,
    quote: Quote | Absent | None = None,
    publication: Publication | None = None,
    previous: Mapping[str, Any] | Absent | None = None,
    before: MarketBundle | None = None,
) -> Document:
    """Everything that stands beside a published run, as the keys that a forecast's document gets.

    Args:
        engine: that made today's run, which is not always the published one.
        position: with its flows settled (`Position.settled`).
        quote: a market rate, or why there is none; None where nobody asked for one.
        publication: which registered model was published.
        previous: document of the forecast before of the same pair and horizon, None where there is no such forecast,
            or why there is no document of it.
        before: the rows that it was made of, where they are at hand.

    Raises:
        ForecastError: the history is too short for joint paths.
    """
    position = position or Position()
    paths = sample_paths(run.forecast, bundle)
    close = float(bundle.spot[-1])
    told = quoted(quote, paths, bundle) if isinstance(quote, Quote) else quote
    from_there = told if isinstance(told, QuotedForecast) else None
    moved = contributions(engine, run, bundle) if engine.recipe == run.recipe else Absent("other_model")
    return {
        "treasury": _treasury(treasury(position, paths, close), run) if position else None,
        "forward": _or_absent(forward(paths, bundle, run.verdict, position.side, from_there), _forward),
        "quote": None if told is None else _or_absent(told, _quote),
        "contributions": _or_absent(moved, _contributions),
        "changes": _or_absent(changes(previous, run, bundle, publication, before), _changes),
    }


def _or_absent(found: Any, document: Any) -> Document:
    if isinstance(found, Absent):
        return {"absent": {"kind": found.kind, **found.facts}}
    made: Document = document(found)
    return made


def _treasury(found: Treasury, run: ForecastRun) -> Document:
    paths = found.paths
    last = run.forecast.target_dates[-1].isoformat()
    return {
        "budget_rate": found.budget_rate,
        "level": LEVEL,
        "paths": {
            "count": len(paths),
            "apart": paths.apart,
            "error": paths.error,
            "first": paths.first.isoformat(),
            "last": paths.last.isoformat(),
        },
        "above": _listed(found.above),
        "ever_above": _listed(found.ever_above),
        "ever_below": _listed(found.ever_below),
        "exposure": _exposure(found.exposure, last) if found.exposure else None,
        "cash_flows": _cash_flows(found.cash_flows) if found.cash_flows else None,
    }


def _exposure(found: ExposureFigures, last: str) -> Document:
    return {"target_date": last, **asdict(found)}


def _cash_flows(found: CashFlowFigures) -> Document:
    return asdict(found) | {"flows": [_flow(flow) for flow in found.flows]}


def _flow(flow: CashFlow) -> Document:
    settles = flow.settles.isoformat() if flow.settles else None
    return {"date": flow.day.isoformat(), "target_date": settles, "amount": flow.amount}


def _forward(found: Forward) -> Document:
    return {
        "base": asdict(found.base),
        "quote": asdict(found.quote),
        "from_quote": found.from_quote,
        "struck_at": found.struck_at,
        "target_dates": [day.isoformat() for day in found.target_dates],
        "days": list(found.days),
        "rates": _listed(found.rates),
        "difference": _listed(found.difference),
        "above": _listed(found.above),
        "advice": asdict(found.advice),
    }


def _quote(found: QuotedForecast) -> Document:
    value = found.quote.value
    return {
        "value": value,
        "at": pd.Timestamp(found.quote.at).tz_convert("UTC").isoformat(),
        "source": found.quote.source,
        "difference": value - found.close,
        "change_pct": 100 * (value / found.close - 1),
        "stands_for": found.stands_for.isoformat(),
        "target_dates": [day.isoformat() for day in found.target_dates],
        "quantiles": {str(level): _listed(found.quantiles[:, q]) for q, level in enumerate(found.levels)},
    }


def _contributions(found: Contributions) -> Document:
    return {
        "target_date": found.target_date.isoformat(),
        "close": found.close,
        "median": found.median,
        "move": found.move,
        "drivers": [{"name": name, "value": value} for name, value in found.drivers.items()],
        "own_past": found.own_past,
        "remainder": found.remainder,
        "unread": list(found.unread),
        "rows": ROWS,
    }


def _changes(found: Changes) -> Document:
    def move(figure: Move | None) -> Document | None:
        return asdict(figure) if figure else None

    revised = found.data.revised
    return {
        "run_id": found.run_id,
        "origin": found.origin.isoformat(),
        "as_of": found.as_of,
        "close": move(found.close),
        "target_date": found.target_date.isoformat() if found.target_date else None,
        "median": move(found.median),
        "width_80": move(found.width_80),
        "parts": asdict(found.parts) if found.parts else None,
        "data": {
            "new_rows": found.data.new_rows,
            "revised": None
            if revised is None
            else [asdict(one) | {"first": one.first.isoformat()} for one in revised],
            "left": list(found.data.left),
            "joined": list(found.data.joined),
        },
        "model": {
            "version": {"before": found.version_before, "now": found.version_now},
            "recipe_changed": found.recipe_changed,
        },
        "weights": [asdict(one) for one in found.weights],
    }


def _listed(values: Array | None) -> list[float] | None:
    return None if values is None else [float(v) for v in values]
