"""What stands beside a forecast in plain words, from its document: a line or two for each part that there is.

`forex_core.briefing.document` has the keys and kinds. A part that nobody asked for, or that is missing for a reason
which the reader knows, leaves no line.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from forex_core.report.document import Document, price_decimals, readable
from forex_core.strangers import plain
from forex_core.types import Pair

TOLD_DRIVERS = 3


def briefing_lines(document: Document) -> list[str]:
    """Quote, forward and position first, which a reader acts on; then why the forecast is what it is."""
    words = _Words(document)
    parts = {
        "quote": words.quote,
        "forward": words.forward,
        "treasury": words.treasury,
        "contributions": words.contributions,
        "changes": words.changes,
    }
    # Documents of before have none of these keys.
    return [line for name, told in parts.items() if (part := document.get(name)) for line in told(part)]


@dataclass(frozen=True)
class _Words:
    document: Document

    @cached_property
    def pair(self) -> Pair:
        return Pair.parse(self.document["pair"])

    @cached_property
    def decimals(self) -> int:
        return price_decimals(self.document["origin_close"])

    @property
    def last(self) -> str:
        return str(self.document["target_dates"][-1])

    def quote(self, part: Document) -> list[str]:
        if absent := part.get("absent"):
            return self._no_quote(absent)
        low, median, high = (self._price(part["quantiles"][level][-1]) for level in ("0.1", "0.5", "0.9"))
        source = "given" if part["source"] == "given" else f"by {part['source']}"
        change = f"{part['change_pct']:+.2f}".replace("-", "−")
        return [
            f"Quote {self._price(part['value'])} ({source}, {readable(part['at'])}), {change} % from the close. From "
            f"there: median {median} on {part['target_dates'][-1]}, 80 % band {low} to {high}."
        ]

    def _no_quote(self, absent: Document) -> list[str]:
        match absent["kind"]:
            case "unavailable":
                return [f"No quote: {plain(absent['reason'], 300)}."]
            case "implausible":
                value, close = absent["value"], self._price(absent["close"])
                return [f"No quote: the source gives {value:g}, which cannot follow on the close of {close}."]
            case "too_late":
                day, last = absent["day"], absent["last"]
                return [f"Nothing is said from the quote, which is of {day}: the horizon ends on {last}."]
        return []

    def forward(self, part: Document) -> list[str]:
        if absent := part.get("absent"):
            lacking = ", ".join(one["currency"] for one in absent["currencies"])
            return [f"No forward: no policy rate of {lacking} among the data."]
        rates = ", ".join(f"{part[s]['percent']:.2f} % {part[s]['currency']}" for s in ("quote", "base"))
        gap = part["difference"][-1]
        return [
            f"Forward implied by the policy rates ({rates}) for {self.last}: {self._price(part['rates'][-1])}; the "
            f"median is {self._price(abs(gap))} {'above' if gap > 0 else 'below'} it. {self._advice(part['advice'])}"
        ]

    def _advice(self, advice: Document) -> str:
        kind, side, base = advice["kind"], advice["side"], self.pair.base
        low, high = (self._price(self.document["quantiles"][level][-1]) for level in ("0.1", "0.9"))
        unhedged = {
            "long": f" Selling {base} forward makes sure of it; unhedged, one time in ten the rate ends below {low}.",
            "short": f" Buying {base} forward makes sure of it; unhedged, one time in ten the rate ends above {high}.",
        }.get(side, "")
        match kind, side:
            case "no_edge", _:
                return f"Expect no directional edge against it; use the band.{unhedged}"
            case "alike", _:
                return f"By the median neither hedging nor waiting pays.{unhedged}"
            case ("median_above", "long") | ("median_below", "short"):
                return f"On average waiting pays.{unhedged}"
            case ("median_above", "short") | ("median_below", "long"):
                return f"On average hedging pays.{unhedged}"
        receives, pays = ("waiting", "hedging") if kind == "median_above" else ("hedging", "waiting")
        return f"On average {receives} pays for who receives {base}, {pays} for who has to pay it."

    def treasury(self, part: Document) -> list[str]:
        lines = []
        if part["budget_rate"] is not None:
            above, over, under = (_share(part[name][-1]) for name in ("above", "ever_above", "ever_below"))
            lines.append(
                f"Budget rate {self._price(part['budget_rate'])}: the close of {self.last} is above it with {above}; "
                f"some close up to then is above it with {over}, some below it with {under}."
            )
        if held := part["exposure"]:
            verb, beyond = ("receive", "below") if held["side"] == "long" else ("pay", "above")
            lines.append(
                f"To {verb} {self._base(abs(held['amount']))} on {self.last}: worst 5 % rate "
                f"{self._price(held['worst_rate'])} or {beyond}, {self._loss(held['loss_at_worst_rate'])}; expected "
                f"shortfall {self._loss(held['expected_shortfall'])}, against the {self._reference(held)}."
            )
        return lines + (self._cash_flows(part["cash_flows"]) if part["cash_flows"] else [])

    def _cash_flows(self, part: Document) -> list[str]:
        flows, mean = part["flows"], part["average"]
        if mean is None:
            about = "received and paid, so that there is no mean rate"
        else:
            above = "" if mean["above"] is None else f", above the budget rate with {_share(mean['above'])}"
            beyond = "below" if part["side"] == "long" else "above"
            about = (
                f"mean rate {self._price(mean['median'])} in the median{above}; worst 5 % "
                f"{self._price(mean['worst_rate'])} or {beyond}"
            )
        moved = ", ".join(
            f"{f['date']} at that of {f['target_date']}" for f in flows if f["date"] != f["target_date"]
        )
        return [
            f"{len(flows)} cash flow{'' if len(flows) == 1 else 's'}, {self._base(part['total'])} in all: {about}; "
            f"expected shortfall {self._loss(part['expected_shortfall'])}, against the {self._reference(part)}.",
            *([f"A day without a close is settled at the next one: {moved}."] if moved else []),
        ]

    def contributions(self, part: Document) -> list[str]:
        if "absent" in part:
            return []
        added = [(driver["name"], driver["value"]) for driver in part["drivers"]]
        others = sum(value for _, value in added[TOLD_DRIVERS:])
        named = added[:TOLD_DRIVERS] + [("other drivers", others)] * (len(added) > TOLD_DRIVERS)
        named += [("the rate's own past", part["own_past"])]
        if round(part["remainder"], self.decimals):
            named.append(("drivers together", part["remainder"]))
        sums = ", ".join(f"{plain(name, 40)} {self._move(value)}" for name, value in named)
        return [f"The median of {part['target_date']} is {self._move(part['move'])} from the close: {sums}."]

    def changes(self, part: Document) -> list[str]:
        if "absent" in part:
            return []
        told = [f"close {self._change(part['close'])}"]
        if part["median"]:
            names = {"close": "by the close", "signal": "by the members", "weights": "by their weights"}
            parts = ", ".join(f"{self._move(value)} {names[n]}" for n, value in (part["parts"] or {}).items())
            told.append(
                f"median of {part['target_date']} {self._change(part['median'])}{f' ({parts})' if parts else ''}"
            )
            told.append(f"its 80 % band {self._change(part['width_80'])}")
        data, model = part["data"], part["model"]
        told.append(f"{data['new_rows']} new row{'' if data['new_rows'] == 1 else 's'}")
        told += [f"{one['rows']} of {plain(one['series'], 40)} revised" for one in data["revised"] or ()]
        told += [f"{plain(name, 40)} joined" for name in data["joined"]]
        told += [f"{plain(name, 40)} left" for name in data["left"]]
        if model["recipe_changed"]:
            told.append("another recipe")
        told += [
            f"weight of {plain(one['model'], 40)} {one['before'] or 0:.3f} to {one['now'] or 0:.3f}"
            for one in part["weights"][:1]
        ]
        return [f"Since the forecast from {part['origin']}: {'; '.join(told)}."]

    def _price(self, value: float) -> str:
        return f"{value:,.{self.decimals}f}"

    def _move(self, value: float) -> str:
        return f"{'−' if round(value, self.decimals) < 0 else '+'}{self._price(abs(value))}"

    def _change(self, figure: Document) -> str:
        return self._move(figure["now"] - figure["before"])

    def _base(self, amount: float) -> str:
        return f"{amount:,.0f} {self.pair.base}"

    def _loss(self, amount: float) -> str:
        return f"{amount:,.0f} {self.pair.quote}" + (" (a gain)" if amount < 0 else "")

    def _reference(self, part: Document) -> str:
        if part["reference"] == "budget_rate":
            return "budget rate"
        return f"close of {self._price(part['reference_rate'])}"


def _share(value: float) -> str:
    """
    >>> _share(0.523), _share(0.999), _share(0.0)
    ('52 %', 'more than 99 %', 'less than 1 %')
    """
    percent = round(100 * value)
    return "less than 1 %" if percent < 1 else "more than 99 %" if percent > 99 else f"{percent} %"
