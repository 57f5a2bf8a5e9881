"""What stands beside a forecast, from its document: lines in plain words and tables for each part that there is.

`forex_core.briefing.document` has the keys and kinds. A part that nobody asked for, or that is missing for a reason
which the reader knows, leaves no trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import pandas as pd

from forex_core.report.document import Document, price_decimals
from forex_core.report.language import ENGLISH, Language, label_of
from forex_core.report.tables import Column, Table, number_cell, spaced, unbroken
from forex_core.strangers import plain
from forex_core.types import Pair

PARTS = ("quote", "forward", "treasury", "contributions", "changes")
"""Keys of a document in the order in which they are told: first what a reader acts on, then why it is what it is."""

TOLD_DRIVERS = 3


def briefing_lines(document: Document, language: Language = ENGLISH) -> list[str]:
    """All that is told, a line for each thing."""
    return [line for part in PARTS for line in lines_of(document, part, language)]


def lines_of(document: Document, part: str, language: Language = ENGLISH) -> list[str]:
    """What is told of one of `PARTS`; documents of before have none of them."""
    words = _Words(document, language)
    tell = {
        "quote": words.quote,
        "forward": words.forward,
        "treasury": words.treasury,
        "contributions": words.contributions,
        "changes": words.changes,
    }[part]
    found = document.get(part)
    return tell(found) if found else []


def share_words(value: float, language: Language) -> str:
    """A probability in whole percent, which says no more than it knows.

    >>> [share_words(p, ENGLISH) for p in (0.523, 0.999, 0.0)]
    ['52 %', 'more than 99 %', 'less than 1 %']
    """
    percent = round(100 * value)
    if 1 <= percent <= 99:
        return f"{percent} %"
    return language.say("less than 1 %") if percent < 1 else language.say("more than 99 %")


def share_cell(value: float, language: Language) -> str:
    """The same without the sign, for a cell.

    >>> [share_cell(p, ENGLISH) for p in (0.523, 0.999, 0.0)]
    ['52', '>99', '<1']
    """
    percent = round(100 * value)
    return f"{percent}" if 1 <= percent <= 99 else "<1" if percent < 1 else ">99"


@dataclass(frozen=True)
class Part:
    """A part as a page shows it."""

    heading: str
    lines: Sequence[str]
    tables: Sequence[Table] = ()


def acting(document: Document, language: Language) -> list[Part]:
    """What a reader acts on: the quote, the forward, the position."""
    tables, say = _Tables(document, language), language.say
    return _parts(
        document,
        language,
        {
            "quote": (say("From the market's price of now"), tables.quote),
            "forward": (say("The forward beside it"), tables.forward),
            "treasury": (say("The position"), tables.treasury),
        },
    )


def reasons(document: Document, language: Language) -> list[Part]:
    """Why the forecast is what it is: what moved the median, and what has changed since the forecast before."""
    tables, say = _Tables(document, language), language.say
    return _parts(
        document,
        language,
        {
            "contributions": (say("What moved the median"), tables.contributions),
            "changes": (say("Since the forecast before"), tables.changes),
        },
    )


def _parts(
    document: Document, language: Language, told: Mapping[str, tuple[str, Callable[[Document], list[Table]]]]
) -> list[Part]:
    return [
        Part(heading, lines, [] if "absent" in document[name] else tables(document[name]))
        for name, (heading, tables) in told.items()
        if (lines := lines_of(document, name, language))
    ]


@dataclass(frozen=True)
class _Tables:
    """The figures of each part, of no more target dates than `spaced` leaves."""

    document: Document
    language: Language

    def quote(self, part: Document) -> list[Table]:
        say, quantiles = self.language.say, part["quantiles"]
        columns = (
            Column(say("Target date"), words=True),
            Column(say("Median")),
            *(
                Column(unbroken(label))
                for label in (say("80 % low"), say("80 % high"), say("95 % low"), say("95 % high"))
            ),
        )
        rows = [
            [
                self._day(part["target_dates"][h]),
                *(self._price(quantiles[level][h]) for level in ("0.5", "0.1", "0.9", "0.025", "0.975")),
            ]
            for h in spaced(len(part["target_dates"]))
        ]
        return [Table(say("Forecast from the quote, {unit}", unit=self._unit), columns, rows)]

    def forward(self, part: Document) -> list[Table]:
        say = self.language.say
        columns = (
            Column(say("Target date"), words=True),
            Column(say("Forward")),
            Column(say("Median less forward")),
            Column(
                unbroken(say("Above it %")),
                hint=say("probability that the close of that date is above the forward"),
            ),
        )
        rows = [
            [
                self._day(part["target_dates"][h]),
                self._price(part["rates"][h]),
                self._move(part["difference"][h]),
                share_cell(part["above"][h], self.language),
            ]
            for h in spaced(len(part["rates"]))
        ]
        struck = {"unit": self._unit, "rate": self._price(part["struck_at"])}
        caption = (
            say("Forward that the policy rates imply from the quote of {rate}, {unit}", **struck)
            if part["from_quote"]
            else say("Forward that the policy rates imply from the close of {rate}, {unit}", **struck)
        )
        return [Table(caption, columns, rows)]

    def treasury(self, part: Document) -> list[Table]:
        budget = [self._budget(part)] if part["budget_rate"] is not None else []
        return [*budget, *([self._flows(part["cash_flows"]["flows"])] if part["cash_flows"] else [])]

    def _budget(self, part: Document) -> Table:
        say = self.language.say
        columns = (
            Column(say("Target date"), words=True),
            Column(
                unbroken(say("Above it %")),
                hint=say("probability that the close of that date is above the budget rate"),
            ),
            Column(
                unbroken(say("Some close above %")),
                hint=say("probability that some close up to that date is above it"),
            ),
            Column(
                unbroken(say("Some close below %")),
                hint=say("probability that some close up to that date is below it"),
            ),
        )
        shares = [part[name] for name in ("above", "ever_above", "ever_below")]
        rows = [
            [
                self._day(self.document["target_dates"][h]),
                *(share_cell(share[h], self.language) for share in shares),
            ]
            for h in spaced(len(part["above"]))
        ]
        rate = self._price(part["budget_rate"])
        return Table(say("Against the budget rate of {rate}, in percent", rate=rate), columns, rows)

    def _flows(self, flows: Sequence[Document]) -> Table:
        say = self.language.say
        columns = (
            Column(say("Date"), words=True),
            Column(say("Settled at the close of"), words=True),
            Column(say("Amount, {currency}", currency=Pair.parse(self.document["pair"]).base)),
        )
        rows = [
            [self._day(f["date"]), self._day(f["target_date"]), number_cell(f["amount"], 0, self.language)]
            for f in flows
        ]
        return Table(say("Cash flows"), columns, rows)

    def contributions(self, part: Document) -> list[Table]:
        say = self.language.say
        columns = (Column(say("Driver"), words=True), Column(say("Adds")))
        added = [
            *((label_of(plain(d["name"], 40), self.language), d["value"]) for d in part["drivers"]),
            (say("the rate's own past"), part["own_past"]),
            (say("drivers together"), part["remainder"]),
            (say("all of it"), part["move"]),
        ]
        caption = say(
            "What the last {rows} weekdays of each driver add to the median of {day}, {unit}",
            rows=part["rows"],
            day=self._day(part["target_date"]),
            unit=self._unit,
        )
        rows = [[name, self._move(value)] for name, value in added]
        return [Table(caption, columns, rows, strong=frozenset({len(rows) - 1}))]

    def changes(self, part: Document) -> list[Table]:
        say = self.language.say
        columns = (
            Column(say("Figure"), words=True),
            Column(say("Before")),
            Column(say("Now")),
            Column(say("Change")),
        )
        names = {
            "close": say("Close"),
            "median": say("Median"),
            "width_80": unbroken(say("Width of the 80 % band")),
        }
        rows = [
            [
                heading,
                self._price(part[name]["before"]),
                self._price(part[name]["now"]),
                self._move(part[name]["now"] - part[name]["before"]),
            ]
            for name, heading in names.items()
            if part[name]
        ]
        rows += [
            [
                say("Weight of {model}", model=label_of(plain(one["model"], 40), self.language)),
                self.language.number(one["before"] or 0, 3),
                self.language.number(one["now"] or 0, 3),
                self.language.number((one["now"] or 0) - (one["before"] or 0), 3, "+"),
            ]
            for one in part["weights"]
        ]
        if part["target_date"] is None:
            caption = say("Before and now, {unit}", unit=self._unit)
        else:
            caption = say(
                "Before and now; median and band for {day}, {unit}",
                day=self._day(part["target_date"]),
                unit=self._unit,
            )
        return [Table(caption, columns, rows)]

    @property
    def _unit(self) -> str:
        return self.language.told(self.document["unit"])

    def _day(self, text: str) -> str:
        return self.language.day(date.fromisoformat(text))

    def _price(self, value: float) -> str:
        return number_cell(value, price_decimals(self.document["origin_close"]), self.language)

    def _move(self, value: float) -> str:
        return self.language.number(value, price_decimals(self.document["origin_close"]), "+")


@dataclass(frozen=True)
class _Words:
    document: Document
    language: Language

    @cached_property
    def pair(self) -> Pair:
        return Pair.parse(self.document["pair"])

    @cached_property
    def decimals(self) -> int:
        return price_decimals(self.document["origin_close"])

    @property
    def last(self) -> str:
        return self._day(self.document["target_dates"][-1])

    def quote(self, part: Document) -> list[str]:
        if absent := part.get("absent"):
            return self._no_quote(absent)
        say = self.language.say
        low, median, high = (self._price(part["quantiles"][level][-1]) for level in ("0.1", "0.5", "0.9"))
        by = say("given by hand") if part["source"] == "given" else say("by {source}", source=part["source"])
        return [
            say(
                "Quote {value} ({by}, {at}), {change} % from the close. From there: median {median} on {day}, "
                "80 % band {low} to {high}.",
                value=self._price(part["value"]),
                by=by,
                at=self.language.instant(pd.Timestamp(part["at"])),
                change=self.language.number(part["change_pct"], 2, "+"),
                median=median,
                day=self._day(part["target_dates"][-1]),
                low=low,
                high=high,
            )
        ]

    def _no_quote(self, absent: Document) -> list[str]:
        say = self.language.say
        match absent["kind"]:
            case "unavailable":
                reason = self.language.told(plain(absent["reason"], 300))
                return [say("No quote: {reason}.", reason=reason)]
            case "implausible":
                return [
                    say(
                        "No quote: the source gives {value}, which cannot follow on the close of {close}.",
                        value=self.language.figures(absent["value"], 6),
                        close=self._price(absent["close"]),
                    )
                ]
            case "too_late":
                return [
                    say(
                        "Nothing is said from the quote, which is of {day}: the horizon ends on {last}.",
                        day=self._day(absent["day"]),
                        last=self._day(absent["last"]),
                    )
                ]
            case "not_newer":
                return [
                    say(
                        "Nothing is said from the quote, which is of {at}: it is no newer than the close.",
                        at=self.language.instant(pd.Timestamp(absent["at"])),
                    )
                ]
        return []

    def forward(self, part: Document) -> list[str]:
        say = self.language.say
        if absent := part.get("absent"):
            lacking = ", ".join(one["currency"] for one in absent["currencies"])
            return [say("No forward: no policy rate of {currencies} among the data.", currencies=lacking)]
        gap = part["difference"][-1]
        told = {
            "rates": ", ".join(
                f"{self.language.number(part[side]['percent'], 2)} % {part[side]['currency']}"
                for side in ("quote", "base")
            ),
            "day": self.last,
            "forward": self._price(part["rates"][-1]),
            "gap": self._price(abs(gap)),
        }
        where = (
            say("Forward for {day} that the policy rates ({rates}) imply from the quote: {forward}", **told)
            if part["from_quote"]
            else say(
                "Forward for {day} that the policy rates ({rates}) imply from the close: {forward}", **told
            )
        )
        if not round(gap, self.decimals):
            beside = say("the median is at it.")
        else:
            beside = (
                say("the median is {gap} above it.", **told)
                if gap > 0
                else say("the median is {gap} below it.", **told)
            )
        advice = self._advice(part["advice"], part["from_quote"])
        return [f"{where}; {beside} {advice}{self._unhedged(part)}"]

    def _advice(self, advice: Document, from_quote: bool) -> str:
        """Whether to hedge, of a forward that can be dealt at: the quote's, or without one that of the next close."""
        say, side, base = self.language.say, advice["side"], self.pair.base
        if advice["kind"] == "no_edge":
            return say("Expect no directional edge against it; use the band.")
        if advice["kind"] == "alike":
            says = say("neither hedging nor waiting pays more often than the other")
        elif side in ("long", "short"):
            waiting = (advice["kind"] == "median_above") == (side == "long")
            says = (
                say("waiting pays more often than hedging")
                if waiting
                else say("hedging pays more often than waiting")
            )
        elif advice["kind"] == "median_above":
            says = say(
                "waiting pays more often for who receives {base}, hedging for who has to pay it", base=base
            )
        else:
            says = say(
                "hedging pays more often for who receives {base}, waiting for who has to pay it", base=base
            )
        if from_quote:
            return say("Against it {says}.", says=says)
        return say("Against a forward struck at the next close {says}.", says=says)

    def _unhedged(self, part: Document) -> str:
        """What a forward spares whoever has a position, of the forecast that it stands beside."""
        say, side = self.language.say, part["advice"]["side"]
        of = self.document["quote"] if part["from_quote"] else self.document
        low, high = (self._price(of["quantiles"][level][-1]) for level in ("0.1", "0.9"))
        if side == "long":
            told = say(
                "Selling {base} forward fixes the rate, less the bank's margin; unhedged, one time in ten it ends "
                "below {low}.",
                base=self.pair.base,
                low=low,
            )
        elif side == "short":
            told = say(
                "Buying {base} forward fixes the rate, plus the bank's margin; unhedged, one time in ten it ends "
                "above {high}.",
                base=self.pair.base,
                high=high,
            )
        else:
            return ""
        return f" {told}"

    def treasury(self, part: Document) -> list[str]:
        say, lines = self.language.say, []
        if part["budget_rate"] is not None:
            shares = {
                name: share_words(part[name][-1], self.language)
                for name in ("above", "ever_above", "ever_below")
            }
            lines.append(
                say(
                    "Budget rate {rate}: the probability that the close of {day} is above it is {above}; that some "
                    "close up to then is above it {ever_above}, that some is below it {ever_below}.",
                    rate=self._price(part["budget_rate"]),
                    day=self.last,
                    **shares,
                )
            )
        if held := part["exposure"]:
            told = {
                "amount": self._base(abs(held["amount"])),
                "day": self.last,
                "rate": self._price(held["worst_rate"]),
                "loss": self._loss(held["loss_at_worst_rate"]),
                "shortfall": self._shortfall(held["expected_shortfall"]),
                "reference": self._reference(held),
            }
            lines.append(
                say(
                    "To receive {amount} on {day}: worst 5 % rate {rate} or below, {loss}; expected shortfall "
                    "{shortfall}, against the {reference}.",
                    **told,
                )
                if held["side"] == "long"
                else say(
                    "To pay {amount} on {day}: worst 5 % rate {rate} or above, {loss}; expected shortfall {shortfall}, "
                    "against the {reference}.",
                    **told,
                )
            )
        if part["cash_flows"]:
            lines += self._cash_flows(part["cash_flows"])
        if (self.document.get("quote") or {}).get("value") is not None:
            close = self._price(self.document["origin_close"])
            lines.append(
                say("All of this is by the published forecast, from the close of {close}.", close=close)
            )
        if part["cash_flows"] or part["budget_rate"] is not None:
            paths = part["paths"]
            lines.append(
                say(
                    "What is said of several dates together is counted on {count} past paths, of which {apart} do not "
                    "overlap: such a probability is known to about {points} points.",
                    count=self.language.number(paths["count"], 0),
                    apart=paths["apart"],
                    points=math.ceil(100 * paths["error"]),
                )
            )
        return lines

    def _cash_flows(self, part: Document) -> list[str]:
        say, flows, mean = self.language.say, part["flows"], part["average"]
        count = self.language.say_n("{n} cash flow", "{n} cash flows", len(flows))
        if mean is None:
            about = say("received and paid, so that there is no mean rate")
        else:
            about = say("mean rate {rate} in the median", rate=self._price(mean["median"]))
            if mean["above"] is not None:
                about += say(
                    ", above the budget rate with a probability of {share}",
                    share=share_words(mean["above"], self.language),
                )
            worst = self._price(mean["worst_rate"])
            about += (
                say("; worst 5 % {rate} or below", rate=worst)
                if part["side"] == "long"
                else say("; worst 5 % {rate} or above", rate=worst)
            )
        lines = [
            say(
                "{flows}, {total} in all: {about}; expected shortfall {shortfall}, against the {reference}.",
                flows=count,
                total=self._base(part["total"]),
                about=about,
                shortfall=self._shortfall(part["expected_shortfall"]),
                reference=self._reference(part),
            )
        ]
        moved = [
            say("{day} at that of {settled}", day=self._day(f["date"]), settled=self._day(f["target_date"]))
            for f in flows
            if f["date"] != f["target_date"]
        ]
        if moved:
            told = ", ".join(moved)
            lines.append(say("A day without a close is settled at the next one: {moved}.", moved=told))
        return lines

    def contributions(self, part: Document) -> list[str]:
        say = self.language.say
        if absent := part.get("absent"):
            if absent["kind"] != "other_model":
                return []
            return [
                say(
                    "What moved the median is not told: the published model is not the one that today's settings make."
                )
            ]
        added = [(label_of(plain(d["name"], 40), self.language), d["value"]) for d in part["drivers"]]
        others = sum(value for _, value in added[TOLD_DRIVERS:])
        named = added[:TOLD_DRIVERS] + [(say("other drivers"), others)] * (len(added) > TOLD_DRIVERS)
        named += [(say("the rate's own past"), part["own_past"])]
        if round(part["remainder"], self.decimals):
            named.append((say("drivers together"), part["remainder"]))
        return [
            say(
                "The median of {day} is {move} from the close: {parts}.",
                day=self._day(part["target_date"]),
                move=self._move(part["move"]),
                parts=", ".join(f"{name} {self._move(value)}" for name, value in named),
            )
        ]

    def changes(self, part: Document) -> list[str]:
        if absent := part.get("absent"):
            return self._no_changes(absent)
        say = self.language.say
        told = [say("close {move}", move=self._change(part["close"]))]
        if part["median"]:
            names = {
                "close": say("by the close"),
                "signal": say("by the members"),
                "weights": say("by their weights"),
            }
            parts = ", ".join(f"{self._move(value)} {names[n]}" for n, value in (part["parts"] or {}).items())
            moved = say(
                "median of {day} {move}",
                day=self._day(part["target_date"]),
                move=self._change(part["median"]),
            )
            told.append(f"{moved} ({parts})" if parts else moved)
            told.append(say("its 80 % band {move}", move=self._change(part["width_80"])))
        data, model = part["data"], part["model"]
        told.append(self.language.say_n("{n} new row", "{n} new rows", data["new_rows"]))
        told += [
            say("{rows} of {series} revised", rows=one["rows"], series=plain(one["series"], 40))
            for one in data["revised"] or ()
        ]
        told += [say("{series} joined", series=plain(name, 40)) for name in data["joined"]]
        told += [say("{series} left", series=plain(name, 40)) for name in data["left"]]
        if model["recipe_changed"]:
            told.append(say("another recipe"))
        versions = model["version"]
        if None not in versions.values() and versions["before"] != versions["now"]:
            told.append(say("version {before} to {now}", **versions))
        told += [
            say(
                "weight of {model} {before} to {now}",
                model=label_of(plain(one["model"], 40), self.language),
                before=self.language.number(one["before"] or 0, 3),
                now=self.language.number(one["now"] or 0, 3),
            )
            for one in part["weights"][:1]
        ]
        return [
            say(
                "Since the forecast from {origin}: {changes}.",
                origin=self._day(part["origin"]),
                changes="; ".join(told),
            )
        ]

    def _no_changes(self, absent: Document) -> list[str]:
        say = self.language.say
        match absent["kind"]:
            case "later":
                day = self._day(absent["origin"])
                return [
                    say("What has changed is not told: the last forecast is of a later day, {day}.", day=day)
                ]
            case "untracked":
                return [
                    say(
                        "What has changed is not told: with tracking off the forecast before cannot be looked up."
                    )
                ]
            case "unreadable":
                return [
                    say("What has changed is not told: the document of the forecast before cannot be read.")
                ]
            case "unknown":
                return [
                    say(
                        "What has changed is not told: the ledger, which has the forecast before, cannot be read."
                    )
                ]
        return []

    def _day(self, text: str) -> str:
        return self.language.day(date.fromisoformat(text))

    def _price(self, value: float) -> str:
        return self.language.number(value, self.decimals)

    def _move(self, value: float) -> str:
        return self.language.number(value, self.decimals, "+")

    def _change(self, figure: Document) -> str:
        return self._move(figure["now"] - figure["before"])

    def _base(self, amount: float) -> str:
        return f"{self.language.number(amount, 0)} {self.pair.base}"

    def _loss(self, amount: float) -> str:
        told, say = self._quoted(amount), self.language.say
        return (
            say("a gain of {amount}", amount=told) if amount < 0 else say("a loss of {amount}", amount=told)
        )

    def _shortfall(self, amount: float) -> str:
        told = self._quoted(amount)
        return self.language.say("none (a gain of {amount})", amount=told) if amount < 0 else told

    def _quoted(self, amount: float) -> str:
        return f"{self.language.number(abs(amount), 0)} {self.pair.quote}"

    def _reference(self, part: Document) -> str:
        if part["reference"] == "budget_rate":
            return self.language.say("budget rate")
        return self.language.say("close of {rate}", rate=self._price(part["reference_rate"]))
