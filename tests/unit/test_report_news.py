"""Events, headlines and the state of the data in the report: right, counted, and harmless whatever strangers write."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from forex_core.champion import Choice, Decision
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.data.catalogue import LICENCES
from forex_core.data.snapshot import read_snapshot, write_snapshot
from forex_core.engine import Engine, build_members
from forex_core.report.charts import Drawings, charts, draw_charts
from forex_core.report.document import data_notices, events_ahead, forecast_document
from forex_core.report.drawing import draw
from forex_core.report.page import render_report
from forex_core.report.text import forecast_tables, markdown_summary
from forex_core.strangers import plain, web_link
from forex_core.testing import bundle_of, synthetic_table
from forex_core.tracking.records import forecast_record
from forex_core.types import (
    Event,
    ForecastRun,
    Headline,
    Horizon,
    MarketBundle,
    Publication,
    Repair,
    Source,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MADE = pd.Timestamp("2017-09-01T12:30:00Z")
SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
OVERRIDE = "Peso\u202e falls"
HIDDEN = "Cop\u200bper\u2066 \ufeffrises\u2028 again\x1b[31m"
LONG = "word " * 2000
WHY = "yahoo: could not be reached within 20 s"
NONE_HELD = "the store holds none of it; models go without"


@pytest.fixture(scope="module")
def bare() -> MarketBundle:
    """A market of files alone, up to Thursday 31 August 2017, as of the next morning in Santiago (11:00 UTC)."""
    table = synthetic_table(696, seed=3)
    return bundle_of(table, as_of=date.fromisoformat(table["Date"].iloc[-1]))


@pytest.fixture(scope="module")
def runs(bare: MarketBundle) -> dict[int, ForecastRun]:
    config = EngineConfig(members=("random_walk", "drivers", "momentum"), grid_origins=60, warmup_origins=8)
    paths = Engine(config, build_members(config, ChronosConfig())).paths_behind(bare)
    return {days: paths.run(Horizon(days)) for days in (7, 30, 90)}


@pytest.fixture(scope="module")
def run(runs: dict[int, ForecastRun]) -> ForecastRun:
    return runs[30]


@pytest.fixture(scope="module")
def drawn(run: ForecastRun, bare: MarketBundle) -> Drawings:
    return draw_charts(run, bare)


@pytest.fixture(scope="module")
def page_of(run: ForecastRun, drawn: Drawings) -> Callable[[MarketBundle], str]:
    """The page of a bundle, its static pictures those without marks."""

    def page(bundle: MarketBundle) -> str:
        drawings = replace(drawn, charts=charts(run, bundle))
        return render_report(run, bundle, run_id="r", generated_at=MADE, drawings=drawings)

    return page


@pytest.fixture(scope="module")
def stored(bare: MarketBundle) -> MarketBundle:
    """The market as it comes from a store that ten series came into from four sources, offline and with gaps."""
    given_by = {
        "yahoo": ("usdclp_close", "Copper", "DXY", "sp500", "VIX"),
        "fred": ("fed_rate", "dgs10"),
        "mindicador": ("chile_tpm",),
        "imported files": ("chile_rate", "iron_ore"),
    }
    sources = tuple(
        Source(
            name=name,
            series=series,
            fetched_at=pd.Timestamp("2017-09-01T10:58:00Z"),
            first_date=date(2015, 1, 1),
            last_date=date(2017, 8, 31) if name != "imported files" else date(2017, 7, 31),
            rows=695 * len(series),
            licence=LICENCES.get(name, LICENCES["import"]),
            release="the same day at 17:00 in New York",
        )
        for name, series in given_by.items()
    )
    return replace(bare, sources=sources)


def event(when: str, title: str = "CPI m/m", currency: str = "USD", impact: str = "high") -> Event:
    return Event(pd.Timestamp(when, tz="UTC"), title, currency, impact)


def headline(title: str = "Peso slips", link: str = "https://example.org/a", hour: int = 9) -> Headline:
    return Headline(pd.Timestamp(f"2017-09-01T{hour:02}:00Z"), title, "El Diario", link)


def repair(series: str, kind: str, note: str) -> Repair:
    return Repair(series, kind, None, None, note)


def section(page: str, name: str) -> str:
    (found,) = re.findall(rf'<section aria-labelledby="{name}">(.*?)</section>', page, re.DOTALL)
    return found


def cells(markup: str) -> list[list[str]]:
    """The rows of the tables in a piece of a page, without their heads."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", markup, re.DOTALL)
    found = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    return [[html.unescape(re.sub(r"<[^>]+>", "", cell)) for cell in row] for row in found]


# The fan chart.


@pytest.mark.parametrize(
    "events",
    [
        (),
        (event("2017-09-01 10:59"),),  # a minute before the as-of
        (
            event("2017-09-30 03:00"),
        ),  # the evening after the last target date, 29 September, at 00:00 at the desk
    ],
)
def test_without_events_ahead_the_fan_is_as_it_was(
    run: ForecastRun, bare: MarketBundle, events: tuple[Event, ...]
) -> None:
    assert run.as_of == pd.Timestamp("2017-09-01T11:00Z")
    assert run.forecast.target_dates[-1] == date(2017, 9, 29)
    picture = charts(run, replace(bare, events=events))["fan"]
    assert json.dumps(picture.spec()) == json.dumps(charts(run, bare)["fan"].spec())
    assert set(picture.data) == {"history", "fan", "ahead"} | {n for n in picture.data if "labels" in n}


def test_the_events_of_a_day_at_the_desk_share_one_mark(run: ForecastRun, bare: MarketBundle) -> None:
    events = (
        event("2017-09-29 20:00", "Rates"),
        event("2017-09-06 02:30", "GDP"),  # the evening of the 5th in Santiago
        event("2017-09-05 12:30", "Trade balance", "CLP", ""),
    )
    picture = charts(run, replace(bare, events=events))["fan"]
    assert [(row["date"], row["events"]) for row in picture.data["events"]] == [
        ("2017-09-05T00:00:00", "5 Sep 2017\n09:30 CLP Trade balance\n23:30 USD GDP (high)"),
        ("2017-09-29T00:00:00", "29 Sep 2017\n17:00 USD Rates (high)"),
    ]
    assert picture.data["events_by_week"][0]["events"].splitlines()[:2] == [
        "Week of 4 Sep 2017",
        "5 Sep, 09:30 CLP Trade balance",
    ]
    assert "a day with scheduled events, or" in picture.caption
    assert picture.chart.to_dict(validate=True) == picture.chart.to_dict(validate=False)
    marks = re.findall(
        r'<g class="mark-symbol[^>]*>(.*?)</g>', draw({"fan": picture.spec(still=True)}).svg["fan"]
    )
    assert [group.count("<path") for group in marks] == [2]


def test_with_many_days_low_impact_is_left_out_and_unknown_impact_stays(
    run: ForecastRun, bare: MarketBundle
) -> None:
    days = pd.bdate_range("2017-09-04", periods=9)
    events = [event(f"{day.date()} 14:00", impact="low") for day in days]
    few = charts(run, replace(bare, events=tuple(events[:8])))["fan"]
    assert len(few.data["events"]) == 8
    events[0] = replace(events[0], impact="medium")
    events[1] = replace(events[1], impact="")
    events.append(event("2017-09-04 15:00", "Minor", impact="holiday"))
    many = charts(run, replace(bare, events=tuple(events)))["fan"]
    assert [row["day"] for row in many.data["events"]] == ["4 Sep 2017", "5 Sep 2017"]
    assert "Minor" not in many.data["events"][0]["events"]
    assert "of high or medium impact" in many.caption
    only_low = tuple(replace(e, impact="low") for e in events)
    unmarked = charts(run, replace(bare, events=only_low))["fan"]
    assert unmarked.spec() == charts(run, bare)["fan"].spec()


def test_the_hover_names_the_events_of_most_weight(run: ForecastRun, bare: MarketBundle) -> None:
    events = [event(f"2017-09-05 {hour}:00", f"Low {hour}", impact="low") for hour in range(11, 19)]
    events.append(event("2017-09-05 20:00", "Payrolls"))
    (row,) = charts(run, replace(bare, events=tuple(events)))["fan"].data["events"]
    told = row["events"].splitlines()
    assert told[0] == "5 Sep 2017"
    assert told[1] == "08:00 USD Low 11 (low)"
    assert told[-2:] == ["17:00 USD Payrolls (high)", "and 3 more"]
    assert len(told) == 8


def test_on_a_long_axis_weeks_are_marked(runs: dict[int, ForecastRun], bare: MarketBundle) -> None:
    events = tuple(event(f"2017-09-{day} 14:00", f"Day {day}") for day in ("05", "07", "12"))
    picture = charts(runs[90], replace(bare, events=events))["fan"]
    assert [row["day"] for row in picture.data["events"]] == ["5 Sep 2017", "12 Sep 2017"]
    assert "Day 07" in picture.data["events"][0]["events"]
    short = charts(runs[7], replace(bare, events=events))["fan"]
    assert [row["day"] for row in short.data["events"]] == ["5 Sep 2017", "7 Sep 2017"]


# The page.


def test_the_page_lists_events_in_desk_time_and_utc(
    page_of: Callable[[MarketBundle], str], bare: MarketBundle
) -> None:
    events = (event("2017-09-06 02:30", "GDP"), event("2017-09-05 12:30", "Trade", "CLP", ""))
    shown = section(page_of(replace(bare, events=events)), "ahead")
    assert cells(shown)[1:] == [
        ["Tue 5 Sep", "09:30", "12:30", "Trade", "CLP", "–"],
        ["Tue 5 Sep", "23:30", "02:30 (Wed)", "GDP", "USD", "high"],
    ]
    assert "up to 29 Sep 2017: 2; the desk&#39;s time is that of America/Santiago" in shown
    assert "No headline was known" in shown


def test_headlines_are_counted_newest_first_and_lead_out_safely(
    page_of: Callable[[MarketBundle], str], bare: MarketBundle
) -> None:
    news = (
        headline("First & oldest", "https://example.org/?a=1&b=2", 5),
        headline("Second", "javascript:alert(1)", 6),
        headline("Third", "https://user:word@example.org/", 7),
    )
    shown = section(page_of(replace(bare, news=news)), "ahead")
    assert re.findall(r"<h3>(.*?)</h3>", shown) == ["3 headlines"]
    links = re.findall(r"<a ([^>]*)>(.*?)</a>", shown)
    assert links == [
        (
            'href="https://example.org/?a=1&amp;b=2" rel="noopener noreferrer nofollow" dir="auto"',
            "First &amp; oldest",
        )
    ]
    assert [shown.index(title) for title in ("Third", "Second", "First")] == sorted(
        shown.index(title) for title in ("Third", "Second", "First")
    )
    assert "El Diario</bdi>, 1 Sep 2017, 05:00 UTC" in shown
    assert "No scheduled event up to 29 Sep 2017 was known" in shown
    many = section(page_of(replace(bare, news=news * 20)), "ahead")
    assert "60 headlines, the newest 40 of them" in many
    assert many.count("<li>") == 40


def test_where_nothing_is_known_a_store_says_so_and_a_file_is_silent(
    page_of: Callable[[MarketBundle], str], bare: MarketBundle, stored: MarketBundle
) -> None:
    assert 'id="ahead"' not in page_of(bare)
    assert "No scheduled event up to 29 Sep 2017 and no headline was known" in section(
        page_of(stored), "ahead"
    )
    imported = replace(stored, sources=(stored.sources[-1],))
    assert 'id="ahead"' in page_of(imported)


def test_sources_stand_one_a_row_with_their_series(
    page_of: Callable[[MarketBundle], str], stored: MarketBundle
) -> None:
    rows = cells(section(page_of(stored), "data"))[1:5]
    assert [row[0] for row in rows] == ["yahoo", "fred", "mindicador", "imported files"]
    assert rows[0][1:5] == [
        "usdclp_close, Copper, DXY, sp500, VIX",
        "1 Jan 2015 to 31 Aug 2017",
        "3,475",
        "1 Sep 2017, 10:58 UTC",
    ]
    assert rows[3][6] == LICENCES["import"]


# What is said of the data.


@pytest.mark.parametrize(
    ("repairs", "expected"),
    [
        ((), []),
        (
            (
                repair("usdclp_close", "offline", f"{WHY}."),
                repair("copper", "offline", "of another kind"),
                repair("news", "offline", "rss: no feed answered"),
            ),
            [
                f"Offline: could not fetch usdclp_close, copper, news ({WHY}). The last close is of 31 Aug 2017, "
                "1 day before the as-of date."
            ],
        ),
        (
            (repair("news", "offline", "rss: no feed answered"),),
            ["Offline: could not fetch news (rss: no feed answered)."],
        ),
        (
            (repair("USDCLP", "offline", "no live data, so these are the embedded reference rates: x"),),
            [
                "Offline: no live data, so these are the embedded reference rates: x. The last close is of "
                "31 Aug 2017, 1 day before the as-of date."
            ],
        ),
        (
            (repair("copper", "missing", NONE_HELD), repair("vix", "missing", NONE_HELD)),
            [f"Without copper, vix: {NONE_HELD}."],
        ),
    ],
)
def test_notices_tell_what_could_not_be_fetched_and_what_is_missing(
    page_of: Callable[[MarketBundle], str],
    bare: MarketBundle,
    repairs: tuple[Repair, ...],
    expected: Sequence[str],
) -> None:
    bundle = replace(bare, repairs=repairs)
    assert data_notices(bundle) == expected
    shown = re.findall(r'<p class="warning" role="note">(.*?)</p>', page_of(bundle))
    assert [html.unescape(note) for note in shown] == expected


def test_the_age_is_that_of_the_last_close_and_not_of_a_hole(bare: MarketBundle) -> None:
    truth = bare.truth.copy()
    truth[-2:] = np.nan
    bundle = replace(bare, truth=truth, repairs=(repair("usdclp_close", "offline", WHY),))
    assert "The last close is of 29 Aug 2017, 3 days before" in data_notices(bundle)[0]


def test_the_document_tells_events_news_and_the_state_of_the_data(
    run: ForecastRun, stored: MarketBundle
) -> None:
    bundle = replace(
        stored,
        events=(event("2017-09-06 02:30", "GDP"), event("2018-01-01 12:00")),
        news=(headline(), headline(link="javascript:alert(1)")),
        repairs=(
            repair("copper", "missing", NONE_HELD),
            repair("Copper", "stale", "old"),
            repair("Copper", "stale", "older"),
        ),
    )
    document = json.loads(json.dumps(forecast_document(run, bundle, "r", Path("/r.html"))))
    assert document["events"] == {
        "count": 1,
        "items": [
            {
                "when": "2017-09-06T02:30:00+00:00",
                "at_desk": "2017-09-05T23:30:00-03:00",
                "currency": "USD",
                "title": "GDP",
                "impact": "high",
            }
        ],
    }
    assert document["news"]["count"] == 2
    assert [item["link"] for item in document["news"]["items"]] == ["https://example.org/a", None]
    assert document["news"]["items"][0]["published"] == "2017-09-01T09:00:00+00:00"
    assert (document["missing_series"], document["stale_series"]) == (["copper"], ["Copper"])
    assert [s["name"] for s in document["data_sources"]] == ["yahoo", "fred", "mindicador", "imported files"]
    assert document["data_sources"][0]["fetched_at"] == "2017-09-01T10:58:00+00:00"
    assert document["notices"] == [f"Without copper: {NONE_HELD}."]


def test_params_name_missing_and_stale_series_and_sources(run: ForecastRun, stored: MarketBundle) -> None:
    def params(bundle: MarketBundle) -> dict[str, str]:
        choice = Choice(Decision("initial", "the first"), run)
        record = forecast_record(
            choice, bundle, Publication("usdclp-30d", 1, "initial", "the first"), "recipe"
        )
        names = ("missing_series", "stale_series", "data_source", "num_news", "num_events")
        return {name: record.params[name] for name in names}

    assert params(stored) == {
        "missing_series": "",
        "stale_series": "",
        "data_source": "yahoo,fred,mindicador,imported files",
        "num_news": "0",
        "num_events": "0",
    }
    lacking = replace(
        stored,
        news=(headline(),),
        repairs=(
            repair("copper", "missing", NONE_HELD),
            repair("vix", "missing", NONE_HELD),
            repair("DXY", "stale", "old"),
        ),
    )
    assert params(lacking) | {"data_source": ""} == {
        "missing_series": "copper,vix",
        "stale_series": "DXY",
        "data_source": "",
        "num_news": "1",
        "num_events": "0",
    }


def terminal(document: dict[str, Any]) -> str:
    console = Console(width=200, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(*forecast_tables(document | {"warnings": []}), sep="\n")
    return captured.get()


def test_terminal_and_markdown_have_a_line_on_events_and_on_data(
    run: ForecastRun, stored: MarketBundle
) -> None:
    bundle = replace(
        stored,
        events=(event("2017-09-05 12:30", "CPI [red]m/m[/red]"), event("2017-09-06 12:30")),
        news=(headline("Peso slips"),),
        repairs=(repair("usdclp_close", "offline", WHY), repair("copper", "missing", NONE_HELD)),
    )
    document = forecast_document(run, bundle, "r", Path("/r.html"))
    shown = terminal(document)
    ahead = "Ahead: 2 scheduled events up to 2017-09-29; next at 2017-09-05 12:30 UTC: USD CPI [red]m/m[/red] (high)."
    assert ahead in shown
    assert "Offline: could not fetch usdclp_close" in shown
    assert f"Without copper: {NONE_HELD}." in shown
    assert "Peso slips" not in shown
    page = markdown_summary(document)
    assert r"USD CPI \[red\]m/m\[/red\] (high)." in page
    assert r"**Offline: could not fetch usdclp\_close" in page
    quiet = terminal(forecast_document(run, stored, "r", Path("/r.html")))
    assert not re.search("Ahead|Offline|Without", quiet)


def test_older_documents_and_snapshots_have_nothing_to_say_of_it(
    run: ForecastRun, bare: MarketBundle, page_of: Callable[[MarketBundle], str], tmp_path: Path
) -> None:
    document = forecast_document(run, bare, "r", Path("/r.html"))
    older = {
        name: value
        for name, value in document.items()
        if name not in ("events", "news", "missing_series", "stale_series", "data_sources")
    }
    assert terminal(older) == terminal(document)
    assert markdown_summary(older) == markdown_summary(document)
    write_snapshot(bare, tmp_path / "snapshot.parquet")
    back = read_snapshot(tmp_path / "snapshot.parquet")
    assert events_ahead(run, back) == ()
    assert 'id="ahead"' not in page_of(back)


# What strangers write.


@given(st.text(max_size=400), st.integers(1, 60))
def test_plain_text_is_one_visible_line_of_bounded_length(text: str, limit: int) -> None:
    line = plain(text, limit)
    assert len(line) <= limit
    assert all(unicodedata.category(c)[0] != "C" and (c == " " or not c.isspace()) for c in line)
    assert plain(line, limit) == line


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "//example.org/a",
        "/etc/passwd",
        "https://",
        "https://bank.example@example.org/",
        "https://exa\u202emple.org/",
        'https://example.org/"onmouseover="alert(1)',
        "https://[broken",
        "https://example.org/" + "a" * 2000,
        "",
    ],
)
def test_only_web_pages_are_linked(link: str) -> None:
    assert web_link(link) is None


@pytest.fixture
def hostile(stored: MarketBundle) -> MarketBundle:
    titles = (SCRIPT, OVERRIDE, HIDDEN, LONG, "\u202e\u200b", "خفض البيزو 2 %")
    return replace(
        stored,
        events=tuple(
            event(f"2017-09-{5 + k:02} 12:30", title, SCRIPT, SCRIPT) for k, title in enumerate(titles)
        ),
        news=(
            *(
                headline(title, ("https://example.org/\u202e", "javascript:alert(3)")[k % 2])
                for k, title in enumerate(titles)
            ),
            replace(headline(OVERRIDE), source=SCRIPT + OVERRIDE),
            headline(SCRIPT),
        ),
        repairs=(repair("usdclp_close", "offline", SCRIPT + OVERRIDE), repair(SCRIPT, "missing", LONG)),
    )


UNSEEN = re.compile("[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\x1b]")


def test_hostile_words_stay_words_everywhere(
    page_of: Callable[[MarketBundle], str], run: ForecastRun, hostile: MarketBundle
) -> None:
    page = page_of(hostile)
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert len(re.findall(r"<script", page)) == len(re.findall(r"</script", page)) == 3
    assert "<img" not in markup
    assert "javascript:" not in markup
    assert not UNSEEN.search(markup)
    assert len(page) - len(page_of(replace(hostile, news=(), events=()))) < 30_000
    (specs,) = re.findall(r'id="chart-specs">(.*?)</script>', page, re.DOTALL)
    assert not set("<>&") & set(specs)
    assert "</script><script>alert(1)" in json.loads(specs)["fan"]["datasets"]["events"][0]["events"]

    document = forecast_document(run, hostile, "r", Path("/r.html"))
    assert not UNSEEN.search(json.dumps([document["events"], document["news"]], ensure_ascii=False))
    assert max(len(item["title"]) for item in document["news"]["items"]) == 300
    lines = markdown_summary(document).splitlines()
    (ahead,) = [line for line in lines if line.startswith("Ahead")]
    notices = [line for line in lines if line.startswith("**")]
    assert len(notices) == 2
    assert not re.search("[<>]|" + UNSEEN.pattern, " ".join([ahead, *notices]))
    assert not UNSEEN.search(terminal(document))


def hovered(page: Page) -> str:
    """What the page says when the pointer stands on the first mark."""
    mark = page.locator("[data-chart=fan] .live .mark-symbol path").first
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#vg-tooltip-element.visible")
    return page.locator("#vg-tooltip-element").inner_text()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme", "marks"), [(1280, "light", 6), (390, "dark", 1)])
def test_hostile_words_do_no_harm_in_a_browser(
    chromium: Browser,
    page_of: Callable[[MarketBundle], str],
    hostile: MarketBundle,
    tmp_path: Path,
    width: int,
    scheme: Any,
    marks: int,
) -> None:
    file = tmp_path / "report.html"
    file.write_text(page_of(hostile), encoding="utf-8")
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    page.on("dialog", lambda dialog: (said.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url))
    page.goto(file.as_uri())
    page.locator(".chart.is-live .live svg").nth(4).wait_for()
    assert page.locator("[data-chart=fan] .live .mark-symbol path").count() == marks
    assert "</script><script>alert(1)" in hovered(page)
    tip = page.locator("#vg-tooltip-element").bounding_box()
    assert tip is not None
    assert tip["x"] >= 0
    assert tip["x"] + tip["width"] <= width
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert (
        page.evaluate("[...document.querySelectorAll('a')].map(a => a.href)") == ["https://example.org/a"] * 2
    )
    # Letters follow one another from left to right, in the words themselves and in those beside them.
    backwards = page.evaluate("""
        () => {
          const wrong = [];
          const walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
          for (let node = walk.nextNode(); node; node = walk.nextNode()) {
            const text = node.textContent;
            if (!node.parentElement.checkVisibility() || /[\\u0600-\\u06ff]/.test(text)) continue;
            const at = (k) => {
              const range = document.createRange();
              range.setStart(node, k); range.setEnd(node, k + 1);
              return range.getBoundingClientRect();
            };
            for (let k = 1; k < Math.min(text.length, 120); k += 1) {
              const [a, b] = [at(k - 1), at(k)];
              if (a.width && b.width && a.top === b.top && b.left < a.left) { wrong.push(text); break; }
            }
          }
          return wrong;
        }
    """)
    assert backwards == []
    assert said == [file.as_uri()]
    page.close()


@pytest.mark.browser
def test_the_hover_over_a_mark_names_the_events_of_its_day(
    chromium: Browser, page_of: Callable[[MarketBundle], str], bare: MarketBundle, tmp_path: Path
) -> None:
    events = (event("2017-09-05 12:30", "CPI m/m", "CLP"), event("2017-09-05 14:00", "ISM", impact="medium"))
    file = tmp_path / "report.html"
    file.write_text(page_of(replace(bare, events=events)), encoding="utf-8")
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto(file.as_uri())
    page.locator(".chart.is-live .live svg").nth(4).wait_for()
    assert hovered(page).splitlines() == ["5 Sep 2017", "09:30 CLP CPI m/m (high)", "11:00 USD ISM (medium)"]
    page.close()


def test_a_close_that_is_held_back_is_told_with_the_one_that_is_used() -> None:
    table = synthetic_table(400)
    table.loc[399, "Copper"] *= 100
    assert data_notices(bundle_of(table)) == []
    table.loc[399, "USDCLP"] *= 100
    bundle = bundle_of(table)
    (told,) = data_notices(bundle)
    assert bundle.spot[-1] == table["USDCLP"][398]
    assert told.startswith("The forecast starts from the close of ")
    assert f"{table['USDCLP'][398]:.2f}: of " in told
    assert f"{table['USDCLP'][399]:,.1f}, " in told
