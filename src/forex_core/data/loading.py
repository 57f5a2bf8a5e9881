"""The data of a run: from the source of the settings to the bundle, with what was fetched on the way.

ecb, csv    what the package or the files hold
store       what the store holds; no network
live        the store, brought up to date first; as it is where that fails, if it is fresh enough
auto        live, or where that cannot be had the embedded rates: one or the other as a whole, never a mixture
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date

import pandas as pd
from loguru import logger

from forex_core.config import Settings
from forex_core.data.bundle import Limits, load_bundle
from forex_core.data.catalogue import (
    BCCH,
    ECB,
    ECB_CURRENCIES,
    FRED,
    MINDICADOR,
    YAHOO,
    drivers_of,
    entry,
    spot_name,
)
from forex_core.data.observations import EventFetcher, Fetcher, NewsFetcher, Quote
from forex_core.data.providers import provider
from forex_core.data.providers.stored import StoredProvider
from forex_core.data.refresh import Progress, Refreshed, Refresher
from forex_core.data.store import ObservationStore
from forex_core.errors import DataQualityError, InputError, NoFreshData, SourceError, SourceUnavailable
from forex_core.types import HORIZONS, MarketBundle, Pair, Repair

NEWS, CALENDAR = "news", "calendar"

QUOTE_TIMEOUT_S, QUOTE_DEADLINE_S = 5.0, 8.0
"""For the quote at publication, which a forecast does not wait for as it does for its data."""


def bundle_of(settings: Settings, as_of: date | None = None) -> MarketBundle:
    """The bundle of a run.

    Raises:
        SourceUnavailable: nothing could be fetched, and what the store holds is too old.
        InputError: as `load_bundle`.
    """
    pair = Pair.parse(settings.pair)
    if settings.source == "store":
        return stored_bundle(settings, pair, as_of)
    if settings.source == "live":
        return _live(settings, pair, as_of)
    if settings.source == "auto":
        try:
            return _live(settings, pair, as_of)
        except NoFreshData as error:
            return _embedded(settings, pair, as_of, error)
    complete = Limits(settings.data.required, cure=_cure(settings, pair))
    return load_bundle(provider(settings.source, settings.paths, settings.columns), pair, as_of, complete)


def stored_bundle(
    settings: Settings, pair: Pair, as_of: date | None, tried: Sequence[Refreshed] = ()
) -> MarketBundle:
    """The bundle of what the store holds, with the headlines and events that it knew."""
    store = store_of(settings)
    source = StoredProvider(store, settings.data.rate, settings.data.drivers)
    limits = Limits(settings.data.required, settings.data.max_age_business_days, _cure(settings, pair))
    bundle = load_bundle(source, pair, as_of, limits)
    since = bundle.as_of - pd.Timedelta(days=settings.data.news_days)
    until = bundle.as_of + pd.Timedelta(days=max(horizon.days for horizon in HORIZONS) + 1)
    events = store.events(bundle.as_of, bundle.as_of, until)
    offline = (Repair(one.name, "offline", None, None, one.why) for one in tried if one.failed)
    return replace(
        bundle,
        news=store.news(bundle.as_of, since),
        events=tuple(event for event in events if event.currency in (pair.base, pair.quote)),
        repairs=(*bundle.repairs, *offline),
    )


def store_of(settings: Settings) -> ObservationStore:
    """The store of the settings."""
    return ObservationStore(settings.store_url, settings.root)


def wanted_series(settings: Settings, pair: Pair) -> tuple[str, ...]:
    """The pair's own rate and its drivers."""
    named = settings.data.drivers
    return (
        spot_name(pair, settings.data.rate),
        *(drivers_of(pair, settings.data.rate) if named is None else named),
    )


def refresh(
    settings: Settings,
    names: Sequence[str] | None = None,
    *,
    force: bool = False,
    since: date | None = None,
    progress: Progress | None = None,
) -> tuple[Refreshed, ...]:
    """Bring the store up to date: the series of the pair, or those named; without names, news and events too.

    What a source refuses or is too busy for is in the result, not raised.
    """
    pair = Pair.parse(settings.pair)
    wanted = names or wanted_series(settings, pair)
    with sources_of(settings) as sources:
        refresher = Refresher(store_of(settings), sources.fetchers, settings.data.history_from)
        done = refresher.refresh(wanted, force=force, since=since, progress=progress)
        if names is None:
            done += (refresher.refresh_news(sources.news), refresher.refresh_events(sources.events))
        return done


def market_quote(settings: Settings, pair: Pair) -> Quote:
    """The last price of the pair's spot market, asked for once.

    Raises:
        SourceUnavailable: the source could not be reached, or took too long.
        SourceError: it gives none.
    """
    from forex_core.data.http import Retries
    from forex_core.data.providers.yahoo import YahooFetcher

    fetcher = YahooFetcher(
        settings.data.addresses.get(YAHOO),
        timeout_s=min(QUOTE_TIMEOUT_S, settings.data.timeout_s),
        deadline_s=QUOTE_DEADLINE_S,
        retries=Retries(attempts=1),
    )
    return fetcher.quote(spot_name(pair, "close"))


@dataclass(frozen=True)
class Sources:
    """Everyone that can be asked with the keys of the settings."""

    fetchers: Mapping[str, Fetcher]
    news: tuple[NewsFetcher, ...]
    events: tuple[EventFetcher, ...]


@contextmanager
def sources_of(settings: Settings) -> Iterator[Sources]:
    """The sources of the settings over one HTTP client. A source without the key that it needs is left out."""
    from forex_core.data.http import HttpClient, Timeouts, user_agent
    from forex_core.data.providers import bcch, ecb_live, fred, macro_calendar, mindicador, news, yahoo

    data = settings.data
    at = data.addresses
    timeouts = Timeouts(read=data.timeout_s, whole=3 * data.timeout_s)
    agent = user_agent(data.contact or "")
    with HttpClient(settings.cache_dir / "http", user_agent=agent, timeouts=timeouts) as client:
        fetchers: dict[str, Fetcher] = {
            YAHOO: yahoo.YahooFetcher(at.get(YAHOO), timeout_s=data.timeout_s),
            FRED: fred.FredFetcher(
                client, data.fred_api_key, at.get(FRED, fred.URL), at.get(FRED, fred.TABLE_URL)
            ),
            MINDICADOR: mindicador.MindicadorFetcher(client, at.get(MINDICADOR, mindicador.URL)),
            ECB: ecb_live.EcbFetcher(client, at.get(ECB, ecb_live.URL)),
        }
        if data.bcch_user and data.bcch_password:
            fetchers[BCCH] = bcch.BcchFetcher(
                client, data.bcch_user, data.bcch_password, at.get(BCCH, bcch.URL)
            )
        feeds = news.FEEDS if data.news_feeds is None else data.news_feeds
        told: list[NewsFetcher] = [news.RssNews(client, feeds)] if feeds else []
        if data.news_api_key:
            told.append(news.NewsApi(client, data.news_api_key, url=at.get(NEWS, news.NEWS_API)))
        calendar = macro_calendar.MacroCalendar(client, at.get(CALENDAR, macro_calendar.CALENDAR))
        yield Sources(fetchers, tuple(told) if data.news_days else (), (calendar,))


def _live(settings: Settings, pair: Pair, as_of: date | None) -> MarketBundle:
    given = [name for name in wanted_series(settings, pair) if entry(name).feeds]
    last = store_of(settings).last_dates(given)
    is_there = as_of is not None and all(name in last and last[name] >= as_of for name in given)
    tried = () if is_there else refresh(settings)
    try:
        return stored_bundle(settings, pair, as_of, tried)
    except InputError as error:
        spot = spot_name(pair, settings.data.rate)
        unreached = [one for one in tried if one.failed and one.name == spot]
        if not unreached:
            raise
        told, advice = f"no fresh data of {pair}: {unreached[0].why}. And the store: {error}", _offline(pair)
        raise NoFreshData(told if advice in told else f"{told}. {advice}") from error


def _embedded(settings: Settings, pair: Pair, as_of: date | None, error: SourceUnavailable) -> MarketBundle:
    """The embedded rates alone, saying why; the first error where they lack the pair or a required driver."""
    try:
        bundle = load_bundle(provider("ecb"), pair, as_of, Limits(settings.data.required))
    except (SourceError, DataQualityError):
        raise error from None
    logger.warning("no live data, the embedded reference rates are used: {}", error)
    note = f"no live data, so these are the embedded reference rates: {error}"
    return replace(bundle, repairs=(*bundle.repairs, Repair(str(pair), "offline", None, None, note)))


def _cure(settings: Settings, pair: Pair) -> str:
    if settings.source in ("ecb", "csv"):
        return "Take it out of that setting, or choose a source that has it (--source)"
    if settings.source == "store":
        return (
            f"Run 'forex data fetch --pair {pair}', import newer data, or give the --as-of of an earlier day"
        )
    return _offline(pair)


def _offline(pair: Pair) -> str:
    """What to do without a network; the embedded rates are no way out for a currency that they lack."""
    files = f"'forex data import FILE --pair {pair}' and --source store, or your files with --source csv --path FILE"
    if {pair.base, pair.quote} <= ECB_CURRENCIES:
        return f"Without a network: {files}, or the embedded rates with --source ecb"
    return f"Without a network: {files}"
