"""Headlines from RSS and Atom feeds, and from NewsAPI.org with a key.

A headline is text of strangers. It is made plain here (no markup, nothing invisible, nothing that turns the direction
of what follows), and is escaped wherever it is shown all the same. No article is fetched and no page is scraped.

There is no sentiment. VADER has not changed since 2020, TextBlob's lexicon is one of film and product reviews; both
know English alone, and Chile's news is in Spanish. A neural scorer is a model of hundreds of megabytes more. None has
been shown to add to these forecasts, so none is worth its upkeep.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import feedparser
import pandas as pd
from loguru import logger
from pydantic import SecretStr

from forex_core.data.http import Answer, HttpClient
from forex_core.data.wire import shown
from forex_core.errors import ForexError, SourceError, SourceUnavailable
from forex_core.strangers import clean_text, title_key, web_link
from forex_core.types import Headline

FEEDS = (
    "https://www.federalreserve.gov/feeds/press_monetary.xml",
    "https://www.df.cl/noticias/site/list/port/rss.xml",
    "https://www.mining.com/feed/",
    "https://www.forexlive.com/feed/news",
)
"""The Federal Reserve on its policy, Diario Financiero on Chile, Mining.com on copper, ForexLive on currencies."""

NEWS_API = "https://newsapi.org/v2/everything"
NEWS_QUERY = '"Chilean peso" OR copper OR "Federal Reserve"'

SOURCE_CHARACTERS = 80
FEED_BYTES = 2**20
HEADLINES = 200
"""At most so many are taken at one asking, the newest."""

_EARLIEST = pd.Timestamp("2000-01-01", tz="UTC")
_AHEAD = pd.Timedelta(minutes=10)
"""How far a server's clock may be ahead of ours."""


@dataclass(frozen=True)
class Gathered:
    """What one asking brought.

    Attributes:
        headlines: the newest first, none twice.
        dropped: what was not taken, with the reason and how often.
        failures: why a feed gave nothing, by its host and path; what else is in an address may be a key.
    """

    headlines: tuple[Headline, ...]
    dropped: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RssNews:
    """Headlines of RSS and Atom feeds. One that fails does not take the others with it.

    Attributes:
        feeds: their addresses.
        now: the time of day, in UTC.
    """

    http: HttpClient
    feeds: Sequence[str] = FEEDS
    now: Callable[[], pd.Timestamp] = lambda: pd.Timestamp.now(tz="UTC")
    name: str = "rss"

    def fetch_news(self) -> tuple[Headline, ...]:
        gathered = self.gather()
        _tell(self.name, gathered)
        return gathered.headlines

    def gather(self) -> Gathered:
        """Headlines of all feeds that answer, with what was dropped and which of them failed.

        Raises:
            SourceError, SourceUnavailable: none of them answers; the latter where trying again may help with one.
        """
        drafts: list[_Draft] = []
        failures: list[tuple[str, ForexError]] = []
        for url in self.feeds:
            try:
                drafts += _entries(self.http.get(url, expect="xml"), url)
            except (SourceError, SourceUnavailable) as error:
                failures.append((shown(url, query=False), error))
        if failures and len(failures) == len(self.feeds):
            kind = (
                SourceUnavailable
                if any(isinstance(error, SourceUnavailable) for _, error in failures)
                else SourceError
            )
            raise kind(f"none of {len(failures)} feeds answered: {'; '.join(str(e) for _, e in failures)}")
        return _gathered(drafts, self.now(), {where: str(error) for where, error in failures})


@dataclass(frozen=True)
class NewsApi:
    """Headlines that NewsAPI.org finds for a query. It needs a key, which is sent in a header and shown nowhere.

    Attributes:
        query: in its language: words, "phrases", AND, OR, NOT, at most 500 characters.
    """

    http: HttpClient
    key: SecretStr
    query: str = NEWS_QUERY
    url: str = NEWS_API
    now: Callable[[], pd.Timestamp] = lambda: pd.Timestamp.now(tz="UTC")
    name: str = "newsapi"

    def fetch_news(self) -> tuple[Headline, ...]:
        gathered = self.gather()
        _tell(self.name, gathered)
        return gathered.headlines

    def gather(self) -> Gathered:
        """Headlines, with what was dropped. Raises as `fetch_news`."""
        asked = {"q": self.query, "sortBy": "publishedAt", "pageSize": "100"}
        answer = self.http.get(self.url, asked, secret_headers={"X-Api-Key": self.key}, expect="json").json()
        match answer:
            case {"status": "ok", "articles": list(articles)}:
                pass
            case {"status": "error", "code": str(code), "message": str(message)}:
                raise SourceError(f"{self.name} refused the query ({code}: {clean_text(message)})")
            case _:
                raise SourceError(
                    f"{self.name} answered without 'status' and 'articles', which were expected; it may have changed"
                )
        drafts = []
        for article in articles:
            found = article if isinstance(article, dict) else {}
            source = found.get("source")
            drafts.append(
                _Draft(
                    title=found.get("title"),
                    link=found.get("url"),
                    published=found.get("publishedAt"),
                    source=source.get("name") if isinstance(source, dict) else None,
                )
            )
        if drafts and not any(isinstance(d.title, str) and isinstance(d.published, str) for d in drafts):
            raise SourceError(
                f"none of the {len(drafts)} articles of {self.name} has a 'title' and a 'publishedAt', which were "
                "expected; it may have changed"
            )
        return _gathered(drafts, self.now())


def instant_of(text: str) -> pd.Timestamp:
    """The instant that a date with its offset from UTC names, as feeds and calendars write it.

    >>> instant_of("Fri, 28 Jun 2024 08:30:00 -0400")
    Timestamp('2024-06-28 12:30:00+0000', tz='UTC')

    Raises:
        ValueError: it is no date, or one without an offset.
    """
    try:
        try:
            found = datetime.fromisoformat(text.strip())
        except ValueError:
            found = parsedate_to_datetime(text)
        if found.utcoffset() is None:
            raise ValueError(f"{text!r} has no offset from UTC")
        return pd.Timestamp(found).tz_convert("UTC")
    except (TypeError, IndexError, OverflowError) as error:
        raise ValueError(f"{text!r} is no date") from error


@dataclass(frozen=True)
class _Draft:
    """A headline as it was found, of whatever types."""

    title: Any
    link: Any
    published: Any
    source: Any


def _entries(answer: Answer, url: str) -> list[_Draft]:
    content, where = answer.content, shown(url, query=False)
    if len(content) > FEED_BYTES:
        raise SourceError(
            f"{where} gave {len(content) / 2**20:.1f} MB; expected a feed of at most {FEED_BYTES / 2**20:g} MB, for a "
            "larger one takes too long to read: leave this feed out"
        )
    if b"<!ENTITY" in content.replace(b"\0", b""):  # with two bytes a character too
        raise SourceError(f"{where} declares entities, which can be made to multiply; leave this feed out")
    try:
        # As a stream: bytes that look like a file's name would be opened as one.
        feed = feedparser.parse(io.BytesIO(content))
    except (ValueError, OverflowError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # It means never to raise, and does over an encoding or a character that cannot be.
        raise SourceError(
            f"{where} cannot be read as a feed ({type(error).__name__}: {error}); leave this feed out if it lasts"
        ) from error
    if not feed.version and not feed.entries:
        begins = "" if answer.moved else f", it begins with {clean_text(repr(content[:60]))}"
        raise SourceError(
            f"{where} is no RSS or Atom feed{begins}; expected one: correct the address, or leave this feed out"
        )
    source = feed.feed.get("title") or urlsplit(url).hostname
    return [
        _Draft(
            title=entry.get("title"),
            link=entry.get("link"),
            published=entry.get("published") or entry.get("updated"),
            source=source,
        )
        for entry in feed.entries
    ]


def _gathered(
    drafts: Iterable[_Draft], now: pd.Timestamp, failures: dict[str, str] | None = None
) -> Gathered:
    """The headlines that are fit to be shown, and how many are not."""
    taken: list[Headline] = []
    dropped: Counter[str] = Counter()
    for draft in drafts:
        try:
            taken.append(_headline(draft, now))
        except ValueError as error:
            dropped[str(error)] += 1
    taken.sort(key=lambda headline: headline.published, reverse=True)
    links: set[str] = set()
    titles: set[str] = set()
    once: list[Headline] = []
    for headline in taken:
        title = title_key(headline.title)
        if headline.link in links or title in titles:
            dropped["told twice"] += 1
        else:
            once.append(headline)
        links.add(headline.link)
        titles.add(title)
    if len(once) > HEADLINES:
        dropped[f"older than the newest {HEADLINES}"] += len(once) - HEADLINES
    return Gathered(tuple(once[:HEADLINES]), dict(dropped), failures or {})


def _headline(draft: _Draft, now: pd.Timestamp) -> Headline:
    """A draft as a headline; ValueError with the reason where it is none."""
    title = clean_text(draft.title) if isinstance(draft.title, str) else ""
    if not title or title == "[Removed]":  # NewsAPI's word for what was withdrawn
        raise ValueError("no title")
    link = web_link(draft.link) if isinstance(draft.link, str) else None
    if link is None:
        raise ValueError("no link to a page of the web")
    if not isinstance(draft.published, str) or not draft.published.strip():
        raise ValueError("no date")
    try:
        published = instant_of(draft.published)
    except ValueError:
        raise ValueError("no date with an offset") from None
    if published < _EARLIEST:
        raise ValueError(f"dated before {_EARLIEST:%Y}")
    if published > now + _AHEAD:
        raise ValueError("dated in the future")
    source = clean_text(draft.source, SOURCE_CHARACTERS) if isinstance(draft.source, str) else ""
    return Headline(published, title, source or str(urlsplit(link).hostname), link)


def _tell(name: str, gathered: Gathered) -> None:
    for url, reason in gathered.failures.items():
        logger.warning("{}: no headlines from {}: {}", name, url, reason)
    if gathered.dropped:
        logger.info("{}: left out {}", name, gathered.dropped)
