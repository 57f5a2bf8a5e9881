"""Headlines and events against a server that answers as feeds, news API and calendar do, and as they should not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import SecretStr

from forex_core.data.http import HttpClient
from forex_core.data.observations import EventFetcher, NewsFetcher
from forex_core.data.providers.macro_calendar import MacroCalendar
from forex_core.data.providers.news import FEED_BYTES, FEEDS, HEADLINES, NewsApi, RssNews
from forex_core.errors import SourceError, SourceUnavailable
from tests.contract.bad_days import (
    NOW,
    Behaviour,
    Server,
    drop,
    good,
    half,
    half_chunked,
    hang,
    html,
    junk,
    patience,
    quick_client,
    status,
    unchanged_after_first,
    unused_address,
)

KEY = "k3y-of-a-reader"
DAY = "2024-07-01T12:00:00Z"
Item = tuple[str | None, str | None, str | None]
ITEMS: list[Item] = [
    ("Copper slides on Chinese data", "https://example.org/copper", "Fri, 28 Jun 2024 08:30:00 -0400"),
    ("Banco Central mantiene la TPM en 5,75 %", "https://example.org/tpm", "Mon, 01 Jul 2024 18:00:00 -0400"),
]


def rss(items: Sequence[Item], title: str = "The Desk") -> str:
    """An RSS 2.0 feed; None leaves an element out."""
    names = ("title", "link", "pubDate")
    body = "".join(
        "<item>"
        + "".join(f"<{n}>{escape(v)}</{n}>" for n, v in zip(names, item, strict=True) if v is not None)
        + "<description>never read</description></item>"
        for item in items
    )
    channel = f"<channel><title>{escape(title)}</title>{body}</channel>"
    return f'<?xml version="1.0" encoding="utf-8"?><rss version="2.0">{channel}</rss>'


ATOM = """<?xml version="1.0" encoding="utf-8"?>
<feed xmlns="http://www.w3.org/2005/Atom"><title>Press &amp; Policy</title>
<entry><title type="html">Peso &lt;b&gt;falls&lt;/b&gt;</title><link rel="alternate" href="https://example.org/peso"/>
<updated>2024-06-30T10:00:00+02:00</updated></entry></feed>"""


def api(*articles: Item, **changed: Any) -> dict[str, Any]:
    """An answer of the news API."""
    found = [
        {
            "source": {"id": None, "name": "Wire"},
            "author": "somebody",
            "title": title,
            "description": "never read",
            "url": url,
            "publishedAt": published,
        }
        for title, url, published in articles
    ]
    return {"status": "ok", "totalResults": len(found), "articles": found} | changed


EVENTS = [
    {
        "title": "Non-Farm Employment Change",
        "country": "USD",
        "date": "2024-07-05T08:30:00-04:00",
        "impact": "High",
        "forecast": "190K",
        "previous": "272K",
    },
    {
        "title": "Bank Holiday",
        "country": "CAD",
        "date": "2024-07-01T00:00:00-04:00",
        "impact": "Holiday",
        "forecast": "",
        "previous": "",
    },
    {"title": "OPEC Meetings", "country": "All", "date": "2024-07-02T06:00:00-04:00", "impact": "Medium"},
]


def rss_of(server: Server, folder: Path, **client: Any) -> RssNews:
    return RssNews(quick_client(folder, **client), (f"{server.url}/feed",), now=lambda: NOW)


def api_of(server: Server, folder: Path, **client: Any) -> NewsApi:
    http, url = quick_client(folder, **client), f"{server.url}/v2/everything"
    return NewsApi(http, SecretStr(KEY), url=url, now=lambda: NOW)


def calendar_of(server: Server, folder: Path, **client: Any) -> MacroCalendar:
    return MacroCalendar(quick_client(folder, **client), f"{server.url}/week.json", now=lambda: NOW)


def asked_news(fetcher: NewsFetcher) -> int:
    return len(fetcher.fetch_news())


def asked_events(fetcher: EventFetcher) -> int:
    return len(fetcher.fetch_events())


# Every fetcher: how it is made and asked, and a good answer.
Ask = Callable[..., int]
FETCHERS: dict[str, tuple[Ask, str]] = {
    "rss": (lambda *where, **client: asked_news(rss_of(*where, **client)), rss(ITEMS)),
    "newsapi": (
        lambda *where, **client: asked_news(api_of(*where, **client)),
        json.dumps(api(*[(t, u, DAY) for t, u, _ in ITEMS])),
    ),
    "macro_calendar": (
        lambda *where, **client: asked_events(calendar_of(*where, **client)),
        json.dumps(EVENTS),
    ),
}


@pytest.mark.parametrize(("ask", "answer"), FETCHERS.values(), ids=FETCHERS.keys())
class TestEveryFetcher:
    def test_gives_what_there_is(self, server: Server, tmp_path: Path, ask: Ask, answer: str) -> None:
        server.play(good(answer))
        assert ask(server, tmp_path) >= 1
        assert server.asked[0].headers["User-Agent"].startswith("forex-core/")

    @pytest.mark.parametrize("name", ["429", "500", "hang", "half", "half in chunks", "dropped", "nothing"])
    def test_what_may_pass_is_tried_again_and_not_for_ever(
        self, server: Server, tmp_path: Path, ask: Ask, answer: str, name: str
    ) -> None:
        bad: Behaviour = {
            "429": status(429, Retry_After="2"),
            "500": status(500),
            "hang": hang,
            "half": half(answer),
            "half in chunks": half_chunked(answer),
            "dropped": drop,
            "nothing": good(b""),
        }[name]
        server.play(bad, good(answer))
        assert ask(server, tmp_path, timeouts=patience(bad), recovers=server) >= 1
        server.play(bad)
        with pytest.raises(SourceUnavailable, match="tried 3 times"):
            ask(server, tmp_path / "other", timeouts=patience(bad))

    @pytest.mark.parametrize(
        "bad", [html, junk(30), status(404, "gone"), status(401), good("Maintenance"), good("12")]
    )
    def test_what_is_something_else_is_refused(
        self, server: Server, tmp_path: Path, ask: Ask, answer: str, bad: Behaviour
    ) -> None:
        server.play(bad)
        with pytest.raises(SourceError):
            ask(server, tmp_path)
        assert len(server.asked) == 1

    def test_no_network(self, tmp_path: Path, ask: Ask, answer: str) -> None:
        with pytest.raises(SourceUnavailable):
            ask(Server(url=unused_address()), tmp_path)

    def test_an_unchanged_answer_comes_from_disk(
        self, server: Server, tmp_path: Path, ask: Ask, answer: str
    ) -> None:
        server.play(unchanged_after_first(answer))
        first = ask(server, tmp_path)
        sent = server.sent
        assert ask(server, tmp_path) == first
        assert (server.sent, len(server.asked)) == (sent, 2)


class TestFeeds:
    def test_headlines_in_utc_the_newest_first(self, server: Server, tmp_path: Path) -> None:
        server.play(good(rss(ITEMS, "The <i>Desk</i>\u202e")))
        newest, oldest = rss_of(server, tmp_path).fetch_news()
        assert newest.published == pd.Timestamp("2024-07-01T22:00:00Z")
        assert newest.title == "Banco Central mantiene la TPM en 5,75 %"
        assert newest.source == "The Desk"
        assert oldest.published == pd.Timestamp("2024-06-28T12:30:00Z")
        assert oldest.link == "https://example.org/copper"
        assert str(oldest.published.tz) == "UTC"

    def test_atom(self, server: Server, tmp_path: Path) -> None:
        server.play(good(ATOM))
        [found] = rss_of(server, tmp_path).fetch_news()
        assert (found.title, found.source) == ("Peso falls", "Press & Policy")
        assert found.published == pd.Timestamp("2024-06-30T08:00:00Z")

    def test_a_feed_in_latin_1(self, server: Server, tmp_path: Path) -> None:
        content = rss([("El dólar subió en Ñuñoa", "https://example.org/a", ITEMS[0][2])])
        server.play(good(content.replace("utf-8", "iso-8859-1").encode("iso-8859-1")))
        assert rss_of(server, tmp_path).fetch_news()[0].title == "El dólar subió en Ñuñoa"

    @pytest.mark.parametrize(
        ("item", "reason"),
        [
            (("", "https://example.org/x", ITEMS[0][2]), "no title"),
            ((None, "https://example.org/x", ITEMS[0][2]), "no title"),
            (("\u200b<b></b>", "https://example.org/x", ITEMS[0][2]), "no title"),
            (("Title", "javascript:alert(1)", ITEMS[0][2]), "no link to a page of the web"),
            (("Title", None, ITEMS[0][2]), "no link to a page of the web"),
            (("Title", "https://example.org/x", None), "no date"),
            (("Title", "https://example.org/x", "2024-06-28 08:30:00"), "no date with an offset"),
            (("Title", "https://example.org/x", "yesterday"), "no date with an offset"),
            (("Title", "https://example.org/x", "Thu, 01 Jan 1970 00:00:00 GMT"), "dated before 2000"),
            (("Title", "https://example.org/x", "Tue, 02 Jul 2024 09:00:00 GMT"), "dated in the future"),
            (("Another title", "https://example.org/copper", ITEMS[0][2]), "told twice"),
            (("COPPER  slides, on Chinese data!", "https://example.org/x", ITEMS[0][2]), "told twice"),
        ],
    )
    def test_what_is_no_headline_is_left_out_and_counted(
        self, server: Server, tmp_path: Path, item: Item, reason: str
    ) -> None:
        server.play(good(rss([*ITEMS, item])))
        gathered = rss_of(server, tmp_path).gather()
        assert [headline.title for headline in gathered.headlines] == [ITEMS[1][0], ITEMS[0][0]]
        assert gathered.dropped == {reason: 1}

    def test_texts_are_made_plain(self, server: Server, tmp_path: Path) -> None:
        title = "\u202e<script>alert('x')</script>Peso &amp;lt;img src=x onerror=alert(1)&amp;gt; \x1b[31mfalls\u2066"
        server.play(good(rss([(title.replace("\x1b", ""), "https://example.org/x", ITEMS[0][2])])))
        assert rss_of(server, tmp_path).fetch_news()[0].title == "Peso [31mfalls"

    def test_no_more_than_can_be_read(self, server: Server, tmp_path: Path) -> None:
        many = [(f"Title {k}", f"https://example.org/{k}", ITEMS[0][2]) for k in range(HEADLINES + 7)]
        server.play(good(rss(many)))
        gathered = rss_of(server, tmp_path).gather()
        assert len(gathered.headlines) == HEADLINES
        assert gathered.dropped == {f"older than the newest {HEADLINES}": 7}
        server.play(good(rss(many) + " " * FEED_BYTES))
        with pytest.raises(SourceError, match=r"gave 1\.0 MB; expected a feed of at most 1 MB"):
            rss_of(server, tmp_path).fetch_news()

    def test_an_empty_feed_has_no_headlines(self, server: Server, tmp_path: Path) -> None:
        server.play(good(rss([])))
        assert rss_of(server, tmp_path).fetch_news() == ()

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            ("<note><to>you</to></note>", "no RSS or Atom feed, it begins with"),
            ("<?xml version='1.0' encoding='\udcdb'?><rss/>", "cannot be read as a feed"),
            (rss(ITEMS).replace("The Desk", "&#99999999999;<![foo["), "cannot be read as a feed"),
        ],
    )
    def test_what_is_no_feed(self, server: Server, tmp_path: Path, content: str, told: str) -> None:
        server.play(good(content.encode("utf-8", "surrogateescape")))
        with pytest.raises(SourceError, match=told):
            rss_of(server, tmp_path).fetch_news()

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
    def test_entities_that_multiply_are_not_followed(
        self, server: Server, tmp_path: Path, encoding: str
    ) -> None:
        levels = "".join(f'<!ENTITY e{k} "{f"&e{k - 1};" * 10}">' for k in range(1, 10))
        feed = rss([("BOMB", "https://example.org/x", ITEMS[0][2])]).replace("BOMB", "&e9;")
        bomb = feed.replace("?>", f'?><!DOCTYPE rss [<!ENTITY e0 "ha">{levels}]>')
        server.play(good(bomb.replace("utf-8", encoding).encode(encoding)))
        with pytest.raises(SourceError, match="declares entities"):
            rss_of(server, tmp_path).fetch_news()

    def test_a_file_is_never_opened(self, server: Server, tmp_path: Path) -> None:
        """feedparser opens what could be the name of one."""
        Path("<feed.xml").write_text(rss(ITEMS))
        server.play(good("<feed.xml"))
        with pytest.raises(SourceError, match="no RSS or Atom feed"):
            rss_of(server, tmp_path).fetch_news()

    def test_one_that_fails_does_not_take_the_others_with_it(
        self, server: Server, tmp_path: Path, told: list[str]
    ) -> None:
        urls = [f"{server.url}/{name}" for name in ("first", "down", "page", "last")]
        page: Behaviour = html
        server.play(good(rss(ITEMS[:1])), *[status(500)] * 3, page, good(rss(ITEMS)))
        news = RssNews(quick_client(tmp_path), urls, now=lambda: NOW)
        gathered = news.gather()
        assert [headline.title for headline in gathered.headlines] == [ITEMS[1][0], ITEMS[0][0]]
        assert gathered.dropped == {"told twice": 1}
        assert list(gathered.failures) == urls[1:3]
        assert "HTTP 500" in gathered.failures[urls[1]]
        assert "HTML page" in gathered.failures[urls[2]]
        server.play(good(rss(ITEMS[:1])), *[status(500)] * 3, page, good(rss(ITEMS)))
        assert len(news.fetch_news()) == 2
        assert [url for url in urls if any(f"no headlines from {url}: " in line for line in told)] == urls[
            1:3
        ]

    def test_when_all_fail_it_says_so(self, server: Server, tmp_path: Path) -> None:
        news = RssNews(quick_client(tmp_path), (f"{server.url}/a", f"{server.url}/b"), now=lambda: NOW)
        server.play(html)
        with pytest.raises(SourceError, match=r"none of 2 feeds answered: .*/a: .*/b: "):
            news.fetch_news()
        server.play(html, status(500))
        with pytest.raises(SourceUnavailable, match="none of 2 feeds answered"):
            news.fetch_news()

    def test_the_default_feeds_are_named(self, tmp_path: Path) -> None:
        assert RssNews(quick_client(tmp_path)).feeds == FEEDS
        assert all(url.startswith("https://") for url in FEEDS)


class TestNewsApi:
    def test_the_key_goes_in_a_header_and_nowhere_else(
        self, server: Server, tmp_path: Path, told: list[str]
    ) -> None:
        server.play(good(api(("Copper slides", "https://example.org/copper", DAY))))
        news = api_of(server, tmp_path)
        [found] = news.fetch_news()
        assert (found.title, found.source) == ("Copper slides", "Wire")
        assert found.published == pd.Timestamp(DAY)
        [asked] = server.asked
        assert asked.headers["X-Api-Key"] == KEY
        assert asked.params["sortBy"] == "publishedAt"
        assert "copper" in asked.params["q"]
        assert KEY not in repr(news)
        assert KEY not in str(asked.params)
        for bad in (
            status(401, json.dumps({"status": "error", "message": f"apiKey {KEY} is invalid"})),
            status(500),
        ):
            server.play(bad)
            with pytest.raises((SourceError, SourceUnavailable)) as failed:
                news.fetch_news()
            assert KEY not in str(failed.value)
        kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert KEY.encode() not in kept
        assert KEY not in "".join(told)

    def test_what_is_withdrawn_or_wrong_is_left_out(self, server: Server, tmp_path: Path) -> None:
        server.play(
            good(
                api(
                    ("Copper slides", "https://example.org/copper", DAY),
                    ("[Removed]", "https://removed.com", DAY),
                    ("From tomorrow", "https://example.org/b", "2024-07-02T12:00:00Z"),
                    (None, "https://example.org/c", DAY),
                )
            )
        )
        gathered = api_of(server, tmp_path).gather()
        assert [headline.title for headline in gathered.headlines] == ["Copper slides"]
        assert gathered.dropped == {"no title": 2, "dated in the future": 1}

    def test_no_article_is_no_fault(self, server: Server, tmp_path: Path) -> None:
        server.play(good(api()))
        assert api_of(server, tmp_path).fetch_news() == ()

    @pytest.mark.parametrize(
        ("answer", "told"),
        [
            ([], "without 'status' and 'articles'"),
            ({"status": "ok", "items": []}, "without 'status' and 'articles'"),
            (
                {"status": "error", "code": "rateLimited", "message": "Too <b>many</b>"},
                r"rateLimited: Too many\)",
            ),
            (
                api(articles=[{"headline": "x", "url": "https://example.org", "publishedAt": DAY}]),
                "has a 'title'",
            ),
            (api(articles=["text"]), "has a 'title'"),
        ],
    )
    def test_another_answer_is_refused(self, server: Server, tmp_path: Path, answer: Any, told: str) -> None:
        server.play(good(answer))
        with pytest.raises(SourceError, match=told):
            api_of(server, tmp_path).fetch_news()


class TestCalendar:
    def test_events_in_utc_the_earliest_first(self, server: Server, tmp_path: Path) -> None:
        server.play(good(EVENTS))
        holiday, opec, jobs = calendar_of(server, tmp_path).fetch_events()
        assert jobs.when == pd.Timestamp("2024-07-05T12:30:00Z")
        assert str(jobs.when.tz) == "UTC"
        assert (jobs.title, jobs.currency, jobs.impact) == ("Non-Farm Employment Change", "USD", "high")
        assert (holiday.currency, holiday.impact) == ("CAD", "holiday")
        assert (opec.currency, opec.impact) == ("", "medium")

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"date": "2024-07-03T08:30:00"}, "no date with an offset"),
            ({"date": "tentative"}, "no date with an offset"),
            ({"date": None}, "no date"),
            ({"date": "1970-01-01T00:00:00Z"}, "dated more than 60 days from now"),
            ({"date": "2034-07-03T08:30:00Z"}, "dated more than 60 days from now"),
            ({"title": 7}, "no title"),
            ({"title": "<b>\u200b</b>"}, "no title"),
            ({"country": ["USD"]}, "no country"),
        ],
    )
    def test_what_is_no_event_is_left_out_and_said(
        self, server: Server, tmp_path: Path, told: list[str], changed: dict[str, Any], reason: str
    ) -> None:
        server.play(good([*EVENTS, EVENTS[0] | changed]))
        assert len(calendar_of(server, tmp_path).fetch_events()) == 3
        assert any(f"1 with {reason}" in line for line in told)

    def test_texts_are_made_plain_and_nothing_comes_twice(self, server: Server, tmp_path: Path) -> None:
        event = EVENTS[0] | {
            "title": "CPI <script>x()</script>\u202ey/y",
            "country": "<b>",
            "impact": "<b>High</b>",
        }
        server.play(good([event, event]))
        [found] = calendar_of(server, tmp_path).fetch_events()
        assert (found.title, found.currency, found.impact) == ("CPI y/y", "", "")

    @pytest.mark.parametrize(
        ("answer", "told"),
        [
            ({"events": EVENTS}, "gave a dict where a list"),
            (["text", 7], "2 with no object"),
            ([{"name": "CPI", "country": "USD", "date": DAY}] * 3, "3 with no title"),
            ([{"title": "CPI", "currency": "USD", "date": DAY}], "1 with no country"),
            ([{"title": "CPI", "country": "USD", "time": DAY}], "1 with no date"),
        ],
    )
    def test_another_answer_is_refused(self, server: Server, tmp_path: Path, answer: Any, told: str) -> None:
        server.play(good(answer))
        with pytest.raises(SourceError, match=told):
            calendar_of(server, tmp_path).fetch_events()

    def test_a_week_without_an_event_is_no_week(self, server: Server, tmp_path: Path) -> None:
        server.play(good([]))
        with pytest.raises(SourceUnavailable, match="an empty list"):
            calendar_of(server, tmp_path).fetch_events()


def test_they_share_one_client(server: Server, tmp_path: Path) -> None:
    http: HttpClient = quick_client(tmp_path)
    server.play(good(rss(ITEMS)), good(EVENTS))
    assert len(RssNews(http, (server.url,), now=lambda: NOW).fetch_news()) == 2
    assert len(MacroCalendar(http, server.url + "/week", now=lambda: NOW).fetch_events()) == 3
