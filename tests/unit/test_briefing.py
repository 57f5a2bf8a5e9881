"""The briefing as keys of a document, and in plain words; the setting and the quote that it starts from."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forex_core.briefing.absent import Absent
from forex_core.briefing.document import briefing_document
from forex_core.briefing.position import CashFlow, Position
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.data.observations import Quote
from forex_core.engine import Engine, build_members
from forex_core.report.briefing import acting, briefing_lines, reasons
from forex_core.report.charts import Drawings, draw_charts
from forex_core.report.document import forecast_document
from forex_core.report.language import ENGLISH, language_of
from forex_core.report.page import render_report
from forex_core.testing import bundle_of, synthetic_table
from forex_core.types import ForecastRun, Horizon, MarketBundle, Publication, Verdict

MONTH = Horizon(30)
MEMBERS = ("random_walk", "theta", "drivers")


@cache
def made() -> tuple[Engine, ForecastRun, ForecastRun, MarketBundle, MarketBundle]:
    table = synthetic_table(800, seed=5, pass_through=1.0).assign(fed_rate=5.33, chile_tpm=5.75)
    now = bundle_of(table, as_of=date(2018, 1, 24))
    before = now.until(now.instants[-2])
    config = EngineConfig(members=MEMBERS, grid_origins=60, warmup_origins=8)
    engine = Engine(config, build_members(config, ChronosConfig()))
    return engine, engine.forecast(before, MONTH), engine.forecast(now, MONTH), before, now


def close() -> float:
    return float(made()[4].spot[-1])


def position() -> Position:
    days = made()[2].forecast.target_dates
    flows = (CashFlow(days[3], 2e5), CashFlow(date(2018, 2, 10), 3e5))  # the second on a Saturday
    return Position(1250.0, 1e6, flows).settled(made()[4], MONTH)


def document(verdict: Verdict | None = None, run: ForecastRun | None = None, **parts: Any) -> dict[str, Any]:
    """A forecast's document with everything beside it, by way of JSON."""
    engine, old, usual, before, now = made()
    run = run or usual
    run = replace(run, verdict=verdict or run.verdict)
    publication = Publication("usdclp-30d", 4, "refreshed", "It is the next state.")
    previous = forecast_document(old, before, "yesterday", Path("/r.html"), publication)
    parts = {
        "position": position(),
        "quote": Quote(1.005 * close(), pd.Timestamp("2018-01-25T13:05:00Z"), "yahoo"),
        "previous": json.loads(json.dumps(previous)),
        "before": before,
        **parts,
    }
    beside = briefing_document(run, now, engine, publication=publication, **parts)
    whole = forecast_document(run, now, "today", Path("/r.html"), publication) | beside
    return json.loads(json.dumps(whole, allow_nan=False))


def said(**parts: Any) -> str:
    return "\n".join(briefing_lines(document(**parts)))


class TestDocument:
    def test_holds_every_part(self) -> None:
        told = document()
        steps = len(told["target_dates"])
        treasury = told["treasury"]
        assert treasury["budget_rate"] == 1250.0
        assert treasury["level"] == 0.05
        assert treasury["paths"]["count"] == 800 - told["steps"][-1]
        for name in ("above", "ever_above", "ever_below"):
            assert len(treasury[name]) == steps
            assert all(0 <= share <= 1 for share in treasury[name])
        assert treasury["exposure"]["target_date"] == told["target_dates"][-1]
        assert treasury["exposure"]["side"] == "long"
        assert treasury["exposure"]["worst_rate"] == told["quantiles"]["0.05"][-1]
        assert treasury["cash_flows"]["flows"][1] == {
            "date": "2018-02-10",
            "target_date": "2018-02-12",
            "amount": 300_000.0,
        }
        assert treasury["cash_flows"]["total"] == 500_000.0
        assert len(told["forward"]["rates"]) == steps - 1, "from the quote"
        assert told["forward"]["target_dates"] == told["quote"]["target_dates"]
        assert told["forward"]["struck_at"] == told["quote"]["value"]
        from_close = document(quote=None)["forward"]
        assert from_close["target_dates"] == told["target_dates"]
        assert from_close["struck_at"] == told["origin_close"]
        assert told["forward"]["advice"]["side"] == "long"
        assert told["quote"]["target_dates"] == told["target_dates"][1:]
        assert set(told["quote"]["quantiles"]) == set(told["quantiles"])
        assert told["quote"]["difference"] == pytest.approx(0.005 * close())
        assert told["quote"]["change_pct"] == pytest.approx(0.5)
        assert {one["name"] for one in told["contributions"]["drivers"]} == {"Copper", "DXY", "VIX"}
        assert told["contributions"]["unread"] == ["fed_rate", "chile_tpm", "rate_differential"]
        assert told["changes"]["data"]["new_rows"] == 1
        assert told["changes"]["model"]["version"] == {"before": 4, "now": 4}

    def test_names_what_is_absent_and_why(self) -> None:
        reason = {"reason": "yahoo, CLP=X: no whole chart"}
        told = document(position=None, quote=Absent("unavailable", reason), previous=None, before=None)
        assert told["treasury"] is None
        assert told["quote"] == {"absent": {"kind": "unavailable", **reason}}
        assert told["changes"] == {"absent": {"kind": "first"}}
        assert document(quote=None)["quote"] is None

    def test_of_a_model_that_was_not_run_there_are_no_contributions(self) -> None:
        engine, _, run, _, now = made()
        other = replace(run, recipe="another")
        told = briefing_document(other, now, engine)
        assert told["contributions"] == {"absent": {"kind": "other_model"}}
        assert "rates" in told["forward"]

    def test_equal_arguments_give_equal_documents(self) -> None:
        assert document() == document()


class TestWords:
    def test_a_line_for_each_part(self) -> None:
        lines = briefing_lines(document())
        beginnings = [
            "Quote 1,262.75 (by yahoo, 25 Jan 2018, 13:05 UTC), +0.50 % from the close.",
            "Forward for 23 Feb 2018 that the policy rates (5.75 % CLP, 5.33 % USD) imply from the quote: 1,263.",
            "Budget rate 1,250.00: the probability that the close of 23 Feb 2018 is above it is ",
            "To receive 1,000,000 USD on 23 Feb 2018: worst 5 % rate ",
            "2 cash flows, 500,000 USD in all: mean rate ",
            "A day without a close is settled at the next one: 10 Feb 2018 at that of 12 Feb 2018.",
            "All of this is by the published forecast, from the close of 1,256.47.",
            "What is said of several dates together is counted on 778 past paths, of which 36 do not overlap: such a "
            "probability is known to about 6 points.",
            "The median of 23 Feb 2018 is ",
            "Since the forecast from 23 Jan 2018: close ",
        ]
        assert len(lines) == len(beginnings)
        for line, beginning in zip(lines, beginnings, strict=True):
            assert line.startswith(beginning)

    def test_nothing_is_said_of_what_nobody_asked_for(self) -> None:
        told = document(
            position=None, quote=Absent("not_live", {"source": "csv"}), previous=None, before=None
        )
        lines = briefing_lines(told)
        assert [line.partition(" ")[0] for line in lines] == ["Forward", "The"]

    def test_a_document_of_before_says_nothing(self) -> None:
        _, _, run, _, now = made()
        assert briefing_lines(forecast_document(run, now, "r", Path("/r.html"))) == []

    @pytest.mark.parametrize(
        ("absent", "words"),
        [
            (Absent("unavailable", {"reason": "yahoo: gone"}), "No quote: yahoo: gone."),
            (Absent("implausible", {"value": 9.5, "close": 1256.47}), "gives 9.5, which cannot follow on"),
            (
                Absent("too_late", {"day": "2018-03-01", "last": "2018-02-23"}),
                "the horizon ends on 23 Feb 2018",
            ),
            (
                Absent("not_newer", {"at": "2018-01-24T13:05:00+00:00"}),
                "the quote, which is of 24 Jan 2018, 13:05 UTC: it is no newer than the close.",
            ),
        ],
    )
    def test_why_there_is_no_quote(self, absent: Absent, words: str) -> None:
        assert words in briefing_lines(document(quote=absent))[0]

    def test_a_quote_of_the_day_of_the_close_is_told_to_be_no_newer(self) -> None:
        told = document(quote=Quote(close(), pd.Timestamp("2018-01-24T13:05:00Z"), "yahoo"))
        assert told["quote"]["absent"]["kind"] == "not_newer"
        assert "no newer than the close" in briefing_lines(told)[0]

    @pytest.mark.parametrize(
        ("absent", "words"),
        [
            (
                Absent("later", {"run_id": "r", "origin": "2018-02-01"}),
                "the last forecast is of a later day, 1 Feb 2018.",
            ),
            (
                Absent("untracked", {"run_id": "r"}),
                "with tracking off the forecast before cannot be looked up.",
            ),
            (Absent("unreadable", {"run_id": "r"}), "the document of the forecast before cannot be read."),
            (Absent("unknown"), "the ledger, which has the forecast before, cannot be read."),
        ],
    )
    def test_why_what_has_changed_is_not_told(self, absent: Absent, words: str) -> None:
        told = document(previous=absent, before=None)
        assert told["changes"]["absent"]["kind"] == absent.kind
        assert briefing_lines(told)[-1] == f"What has changed is not told: {words}"
        part = reasons(told, ENGLISH)[-1]
        assert (part.heading, len(part.lines), part.tables) == ("Since the forecast before", 1, [])

    def test_why_what_moved_the_median_is_not_told(self) -> None:
        told = document(run=replace(made()[2], recipe="another"))
        part = reasons(told, ENGLISH)[0]
        expected = "What moved the median is not told: the published model is not the one that today's settings make."
        assert (part.heading, part.lines, part.tables) == ("What moved the median", [expected], [])
        assert expected in briefing_lines(told)

    @pytest.mark.parametrize(("amount", "verb"), [(1e6, "Selling"), (-1e6, "Buying")])
    def test_without_skill_the_band_is_what_to_use(self, amount: float, verb: str) -> None:
        told = said(position=Position(None, amount))
        assert "Expect no directional edge against it; use the band." in told
        assert f"{verb} USD forward fixes the rate" in told
        edge = "0.1" if amount > 0 else "0.9"
        assert f"{document()['quote']['quantiles'][edge][-1]:,.2f}." in told, "of the forecast from the quote"
        told = said(position=Position(None, amount), quote=None)
        assert f"{document()['quantiles'][edge][-1]:,.2f}." in told

    @pytest.mark.parametrize(
        ("kind", "side", "words"),
        [
            ("alike", "long", "neither hedging nor waiting pays more often than the other. Selling USD"),
            ("median_above", "long", "waiting pays more often than hedging. Selling USD"),
            ("median_below", "long", "hedging pays more often than waiting. Selling USD"),
            ("median_above", "short", "hedging pays more often than waiting. Buying USD"),
            ("median_below", "short", "waiting pays more often than hedging. Buying USD"),
            (
                "median_above",
                None,
                "waiting pays more often for who receives USD, hedging for who has to pay it.",
            ),
            (
                "median_below",
                "mixed",
                "hedging pays more often for who receives USD, waiting for who has to pay it.",
            ),
        ],
    )
    @pytest.mark.parametrize("from_quote", [True, False])
    def test_with_usable_skill_what_pays_more_often(
        self, kind: str, side: str | None, words: str, from_quote: bool
    ) -> None:
        told = document() if from_quote else document(quote=None)
        told["forward"]["advice"] = {"kind": kind, "side": side, "above": 0.6}
        against = "it" if from_quote else "a forward struck at the next close"
        assert f"Against {against} {words}" in "\n".join(briefing_lines(told))

    @pytest.mark.parametrize("quote", [True, False])
    @pytest.mark.parametrize(("jump", "drift"), [(0.03, 0.0), (-0.03, 0.002), (0.0, 0.003), (0.0, -0.003)])
    def test_what_it_says_follows_from_what_it_is_struck_at(
        self, quote: bool, jump: float, drift: float
    ) -> None:
        """A median that jumps at once and then stays leaves nothing to a forward that is struck after the jump."""
        _, _, run, _, _ = made()
        forecast = run.forecast
        way = np.exp(jump + drift * np.array(forecast.steps))[:, None]
        moved = replace(run, forecast=replace(forecast, quantiles=forecast.quantiles * way))
        usable = Verdict("usable", "a sentence", 0.01, 0.01, date(2018, 1, 24), 200)
        told = document(usable, run=moved, **({} if quote else {"quote": None}))
        line = next(line for line in briefing_lines(told) if line.startswith("Forward for"))
        above = told["forward"]["advice"]["above"]
        says = (
            "neither hedging nor waiting pays"
            if abs(above - 0.5) <= 0.05
            else "waiting pays more often"
            if above > 0.5
            else "hedging pays more often"
        )
        assert says in line
        if quote:
            gap = told["forward"]["difference"][-1]
            assert (" above it. " in line) == (gap > 0.005)
            assert above == told["forward"]["above"][-1], "the line and the table speak of one forward"
        else:
            assert "Against a forward struck at the next close" in line, "the close of the line is gone"

    def test_a_currency_without_a_policy_rate_is_named(self) -> None:
        told = document()
        told["forward"] = {
            "absent": {"kind": "no_policy_rate", "currencies": [{"currency": "MXN", "series": []}]}
        }
        assert "No forward: no policy rate of MXN among the data." in briefing_lines(told)

    def test_a_gain_is_called_one(self) -> None:
        told = said(position=Position(700.0, 1e6))
        assert re.search(
            r"or below, a gain of [\d,]+ CLP; expected shortfall none \(a gain of [\d,]+ CLP\)", told
        )
        assert "above it is more than 99 %" in told

    def test_a_loss_is_called_one(self) -> None:
        told = said(position=Position(1500.0, 1e6))
        assert re.search(r"or below, a loss of [\d,]+ CLP; expected shortfall [\d,]+ CLP, against", told)

    def test_flows_of_both_signs_have_no_mean_rate(self) -> None:
        days = made()[2].forecast.target_dates
        flows = (CashFlow(days[0], 1e6, days[0]), CashFlow(days[1], -4e5, days[1]))
        told = said(position=Position(None, None, flows))
        assert (
            "2 cash flows, 600,000 USD in all: received and paid, so that there is no mean rate; expected"
            in told
        )
        assert f"against the close of {close():,.2f}" in told

    def test_a_change_of_recipe_and_revisions_are_told(self) -> None:
        told = document()
        assert "version" not in briefing_lines(told)[-1]
        told["changes"]["model"] = {"recipe_changed": True, "version": {"before": 4, "now": 9}}
        told["changes"]["parts"] = None
        told["changes"]["data"]["revised"] = [{"series": "Copper", "rows": 3, "first": "2018-01-02"}]
        line = briefing_lines(told)[-1]
        assert "3 of Copper revised" in line
        assert "another recipe; version 4 to 9" in line
        assert "by the close" not in line

    def test_the_moves_that_are_told_add_up(self) -> None:
        line = next(line for line in briefing_lines(document()) if line.startswith("The median of"))
        numbers = [
            float(word.strip(".,").replace("−", "-").replace(",", ""))
            for word in line.split()
            if word[0] in "+−"
        ]
        assert numbers[0] == pytest.approx(sum(numbers[1:]), abs=0.03)

    def test_names_from_outside_are_made_plain(self) -> None:
        told = document()
        told["contributions"]["drivers"][0]["name"] = "\x1b[31mcopper\x07\n"
        assert "\x1b" not in "".join(briefing_lines(told))
        assert np.isfinite(told["contributions"]["move"])


SPANISH = language_of("es")
ENGLISH_WORDS = re.compile(
    r"\b(the|of|and|is|are|was|with|from|to|in|on|by|not|for|which|close|last|median|worst|row|rate|weight)\b"
)


def every_document() -> dict[str, dict[str, Any]]:
    """Documents that between them say all that there is to say."""
    days = made()[2].forecast.target_dates
    mixed = (CashFlow(days[0], 1e6, days[0]), CashFlow(days[1], -4e5, days[1]))
    told = {
        "all": document(),
        "mixed flows": document(position=Position(None, None, mixed)),
        "short": document(position=Position(900.0, -1e6, ())),
        "gain": document(position=Position(700.0, 1e6)),
        "by hand": document(quote=Quote(1.005 * close(), pd.Timestamp("2018-01-25T13:05:00Z"), "given")),
        "no quote": document(quote=Absent("unavailable", {"reason": "yahoo, CLP=X; check the network"})),
        "other unit": document(quote=Absent("implausible", {"value": 9.5, "close": 1256.47})),
        "too late": document(quote=Absent("too_late", {"day": "2018-03-01", "last": "2018-02-23"})),
        "no newer": document(quote=Absent("not_newer", {"at": "2018-01-24T13:05:00+00:00"})),
        "other model": document(run=replace(made()[2], recipe="another")),
        "later": document(previous=Absent("later", {"run_id": "r", "origin": "2018-02-01"}), before=None),
        **{
            kind: document(previous=Absent(kind), before=None)
            for kind in ("untracked", "unreadable", "unknown")
        },
        "no forward": document()
        | {
            "forward": {
                "absent": {"kind": "no_policy_rate", "currencies": [{"currency": "MXN", "series": []}]}
            }
        },
    }
    for kind in ("alike", "median_above", "median_below"):
        for side in ("long", "short", None):
            told[f"{kind} {side}"] = document()
            told[f"{kind} {side}"]["forward"]["advice"] = {"kind": kind, "side": side, "above": 0.6}
    changed = told["changed"] = document()
    changed["changes"]["model"]["recipe_changed"] = True
    changed["changes"]["data"] |= {
        "revised": [{"series": "VIX", "rows": 3, "first": "2018-01-02"}],
        "joined": ["DXY"],
        "left": ["WTI"],
    }
    changed["changes"]["weights"] = [{"model": "random_walk", "before": None, "now": 0.25}]
    changed["contributions"]["drivers"] += [{"name": "VIX", "value": 0.5}]
    return told


class TestSpanish:
    def test_every_line_and_table_has_its_translation(self) -> None:
        for name, told in every_document().items():
            parts = [*acting(told, SPANISH), *reasons(told, SPANISH)]
            tables = [table for part in parts for table in part.tables]
            words = [
                *briefing_lines(told, SPANISH),
                *(part.heading for part in parts),
                *(
                    text
                    for t in tables
                    for text in (t.caption, *(c.label for c in t.columns), *(c.hint for c in t.columns))
                ),
                *(cell for t in tables for row in t.rows for cell in row),
            ]
            english = [text for text in words if ENGLISH_WORDS.search(text)]
            assert english == [], name

    def test_figures_are_those_of_the_english_in_the_language_s_form(self) -> None:
        def figures(text: str, group: str, decimal: str) -> set[float]:
            found = re.findall(rf"(?<![\w.,])[+−]?\d[\d{group}]*(?:{decimal}\d+)?", text)
            plain = (n.replace(group.strip("\\"), "").replace(decimal.strip("\\"), ".") for n in found)
            return {float(n.replace("−", "-")) for n in plain}

        told = document()
        for english, spanish in zip(briefing_lines(told), briefing_lines(told, SPANISH), strict=True):
            assert figures(english, ",", r"\.") == figures(spanish, r"\.", ",")


@pytest.fixture(scope="module")
def drawn() -> Drawings:
    return draw_charts(made()[2], made()[4])


class TestPage:
    def page(self, drawn: Drawings, told: dict[str, Any] | None) -> str:
        page = render_report(
            made()[2],
            made()[4],
            run_id="r",
            generated_at=pd.Timestamp("2018-01-25T14:00Z"),
            drawings=drawn,
            document=told,
        )
        return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)

    def test_each_part_has_its_words_and_tables(self, drawn: Drawings) -> None:
        told = document()
        page = self.page(drawn, told)
        for line in briefing_lines(told):
            assert html.escape(line, quote=False) in page.replace("&#39;", "'")
        for caption in (
            "Forecast from the quote, CLP per USD",
            "Forward that the policy rates imply from the quote of 1,262.75, CLP per USD",
            "Against the budget rate of 1,250.00, in percent",
            "Cash flows",
            "What the last 60 weekdays of each driver add to the median of 23 Feb 2018, CLP per USD",
            "Before and now; median and band for 22 Feb 2018, CLP per USD",
        ):
            assert f"<caption><span>{caption}</span></caption>" in page

    def test_tables_hold_the_figures_of_the_document(self) -> None:
        told = document()
        by_caption = {
            table.caption.split(",")[0]: table
            for part in (*acting(told, ENGLISH), *reasons(told, ENGLISH))
            for table in part.tables
        }
        forward = by_caption["Forward that the policy rates imply from the quote of 1"]
        last = ["23 Feb 2018", told["forward"]["rates"][-1], told["forward"]["difference"][-1]]
        assert [forward.rows[-1][0], *(float(c.replace(",", "").replace("−", "-")) for c in forward.rows[-1][1:3])] == [
            last[0], *(pytest.approx(value, abs=0.006) for value in last[1:])
        ]  # fmt: skip
        assert float(forward.rows[-1][3]) == pytest.approx(100 * told["forward"]["above"][-1], abs=0.51)
        added = by_caption["What the last 60 weekdays of each driver add to the median of 23 Feb 2018"].rows
        values = [float(row[1].replace("−", "-").replace(",", "")) for row in added]
        assert values[-1] == pytest.approx(sum(values[:-1]), abs=0.03)
        assert values[-1] == pytest.approx(told["contributions"]["move"], abs=0.006)

    def test_what_is_not_there_leaves_no_trace(self, drawn: Drawings) -> None:
        nothing = Absent("not_live", {"source": "csv"})
        told = document(position=None, quote=nothing, previous=None, before=None)
        page = self.page(drawn, told)
        assert "The position" not in page
        assert "From the market" not in page
        assert "Since the forecast before" not in page
        bare = self.page(drawn, None)
        assert "Acting on it" not in bare
        assert "Why it says so" not in bare
        _, _, run, _, now = made()
        assert self.page(drawn, forecast_document(run, now, "r", Path("/r.html"))) == bare

    def test_names_from_outside_are_escaped(self, drawn: Drawings) -> None:
        told = document()
        told["contributions"]["drivers"][0]["name"] = "<img src=x onerror=alert(1)>"
        assert "<img" not in self.page(drawn, told)
