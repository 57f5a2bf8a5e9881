"""Texts of strangers made plain: what may reach a page, a terminal or a store of a headline."""

from __future__ import annotations

import re
import time
import unicodedata
from contextlib import suppress

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forex_core.data.providers.news import instant_of
from forex_core.strangers import LINK_CHARACTERS, TITLE_CHARACTERS, clean_text, plain, web_link

OVERRIDES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e"

# Pieces of which a page could be broken, or a reader deceived, among ordinary text.
PIECES = st.sampled_from(
    [
        *(
            "<",
            ">",
            "</",
            "<!--",
            "-->",
            "<script>",
            "</script>",
            "<b>",
            "<img src=x onerror=alert(1)>",
            "<![CDATA[",
        ),
        *("&lt;", "&gt;", "&amp;", "&amp;lt;", "&#60;", "&#x3c;", "&lt", "&nbsp;", "&#0;", "&#x202e;", "&"),
        *(
            "script",
            "alert(1)",
            "Peso",
            "dólar",
            "铜",
            "نحاس",
            "🇨🇱",
            " ",
            "\t",
            "\n",
            "\x00",
            "\x1b[31m",
            "\x7f",
            "\x85",
        ),
        *OVERRIDES,
        *ZERO_WIDTH,
        *("\u2028", "\u2029", "\u3164", "\u0301", "\ud800", "\U000e0041"),
    ]
)
NASTY = st.lists(PIECES | st.text(max_size=5), max_size=40).map("".join)


@given(NASTY)
@example("<scr\u200bipt>alert(1)</scr\u200bipt>")
@example("&amp;lt;script&amp;gt;alert(1)&amp;lt;/script&amp;gt;")
@example("<<b>script>alert(1)<</b>/script>")
@example("<!--<b>-->x<!-- y")
@example("\u202eevil\u202c")
def test_a_title_is_plain_whatever_it_was(text: str) -> None:
    title = clean_text(text)
    assert len(title) <= TITLE_CHARACTERS
    assert not re.search(r"</?[a-zA-Z!?][^<>]*>|<!--", title)
    assert not set(title) & {*OVERRIDES, *ZERO_WIDTH}
    assert all(unicodedata.category(c)[0] != "C" for c in title)
    assert title == " ".join(title.split())
    assert all(c == " " or not c.isspace() for c in title)
    assert title.isprintable()
    assert clean_text(title) == title


@given(NASTY)
@example("2\ufe0f⃣ rates")
def test_what_reaches_the_store_is_shown_as_it_is(text: str) -> None:
    title, link = clean_text(text), web_link(text)
    assert plain(title) == title
    assert link is None or web_link(link) == link


@given(st.text(alphabet=st.characters(categories=["L", "N"], max_codepoint=0x24F), min_size=1, max_size=80))
def test_ordinary_words_are_kept(text: str) -> None:
    assert (
        clean_text(f"  {text}\n{text} ")
        == f"{unicodedata.normalize('NFC', text)} {unicodedata.normalize('NFC', text)}"
    )


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        ("Copper at 4.5 < 5 and CLP > 900", "Copper at 4.5 < 5 and CLP > 900"),
        ("S&amp;P 500 up 1&nbsp;%", "S&P 500 up 1 %"),
        ("<b>Peso</b><i>falls</i>", "Peso falls"),
        ("Fed holds<br/>rates", "Fed holds rates"),
        ("A<script src='//x'>steal()</script>B", "A B"),
        ("A<style>*{}</style>B", "A B"),
        ("A<script>unclosed", "A"),
        ("peso \u202eelbuorT\u202c", "peso elbuorT"),
        ("co\u200bpper", "copper"),
        ("\x1b[31mred", "[31mred"),
        ("e\u0301xito", "éxito"),
        ("line\r\none\u2028two", "line one two"),
        ("\u200b\u202e\x00", ""),
        ("", ""),
    ],
)
def test_known_titles(found: str, shown: str) -> None:
    assert clean_text(found) == shown


def test_a_long_title_is_cut_and_says_so() -> None:
    title = clean_text("word " * 500)
    assert len(title) <= TITLE_CHARACTERS
    assert title.endswith("word…")
    assert clean_text("w" * TITLE_CHARACTERS) == "w" * TITLE_CHARACTERS
    assert clean_text("source of news", limit=7) == "source…"


@pytest.mark.parametrize(
    "text",
    [
        "<" * 10**6,
        "&amp;" * 10**6,
        "<a" * 10**6,
        "<!--" * 10**6,
        "<script>" * 10**6,
        "&" + "amp;" * 10**6,
        "\u0301" * 10**6,
    ],
)
def test_no_title_takes_long(text: str) -> None:
    began = time.process_time()
    clean_text(text)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "link",
    [
        "https://www.example.org/a/b.html?x=1&y=2#z",
        "http://example.org",
        "HTTPS://EXAMPLE.ORG/ñandú",
        "https://example.org:8443/",
    ],
)
def test_links_of_the_web_stay_as_they_are(link: str) -> None:
    assert web_link(f"\n {link} ") == link


@pytest.mark.parametrize(
    "link",
    [
        *(
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "java\nscript:alert(1)",
            "data:text/html,<b>",
            "vbscript:x",
        ),
        *(
            "file:///etc/passwd",
            "ftp://example.org/",
            "//example.org/",
            "/local",
            "example.org",
            "",
            "https://",
            "https:///x",
        ),
        *("https://user:password@example.org/", "https://example.org@evil.example/"),
        *(
            "https://exa\u202emple.org/",
            "https://exa\u200bmple.org/",
            "https://example.org/a b",
            "https://example.org/\x00",
        ),
        *(
            'https://example.org/"onclick="x',
            "https://example.org/<script>",
            "https://example.org\\@evil.example/",
        ),
        *(
            "https://[::1",
            "https://example.org:99999/",
            "https://example.org:0/",
            "https://e.org/" + "x" * LINK_CHARACTERS,
        ),
    ],
)
def test_other_links_are_refused(link: str) -> None:
    assert web_link(link) is None


@given(NASTY | NASTY.map(lambda tail: f"https://example.org/{tail}") | st.text())
def test_whatever_passes_as_a_link_is_one(text: str) -> None:
    link = web_link(text)
    assert link is None or re.fullmatch(
        r"https?://[^\s<>\"'`\\@/]+([/?#][^\s<>\"'`\\]*)?", link, re.IGNORECASE
    )


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-06-28T08:30:00-04:00", "2024-06-28T12:30:00Z"),
        ("2024-06-28T08:30:00Z", "2024-06-28T08:30:00Z"),
        ("Fri, 28 Jun 2024 08:30:00 -0400", "2024-06-28T12:30:00Z"),
        ("Fri, 28 Jun 2024 12:30:00 GMT", "2024-06-28T12:30:00Z"),
        ("28 Jun 2024 08:30 EDT", "2024-06-28T12:30:00Z"),
        # The hour that Santiago has twice in April, and New York in November, told apart by the offset.
        ("2024-04-06T23:30:00-03:00", "2024-04-07T02:30:00Z"),
        ("2024-04-06T23:30:00-04:00", "2024-04-07T03:30:00Z"),
        ("2024-11-03T01:30:00-05:00", "2024-11-03T06:30:00Z"),
        ("2024-12-31T22:00:00-03:00", "2025-01-01T01:00:00Z"),
        ("2024-02-29T23:00:00-05:00", "2024-03-01T04:00:00Z"),
    ],
)
def test_instants(text: str, instant: str) -> None:
    assert instant_of(text) == pd.Timestamp(instant)
    assert str(instant_of(text).tz) == "UTC"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "soon",
            "2024-06-28",
            "2024-06-28T08:30:00",
            "Fri, 28 Jun 2024 08:30:00",
            "28 Jun 2024 08:30:00 -0000",
        ),
        *("2023-02-29T08:30:00Z", "2024-06-28T25:00:00Z", "Fri, 28 Jun 2024 08:30:00 CLT", "1719563400"),
    ],
)
def test_dates_without_an_instant(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  its text is for nobody
        instant_of(text)


@given(st.text() | st.from_regex(r"\d{1,6}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d") | st.datetimes().map(str))
def test_any_text_is_an_instant_or_none(text: str) -> None:
    with suppress(ValueError):
        assert str(instant_of(text).tz) == "UTC"
