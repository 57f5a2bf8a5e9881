"""Daily closes from Yahoo Finance, through yfinance.

yfinance does what Yahoo asks of a browser (its handshake, cookie, crumb and consent form) and knows how Yahoo's daily
rows are dated. It is not left alone with the network, though: its requests go through a session of ours (`_Session`),
which holds them to a deadline and a size, looks at each answer before yfinance does, and refuses in words of ours what
is no chart of the instrument that was asked for. It keeps nothing on disk: where left to itself it writes its cookies
below the user's home.

Yahoo is asked as a browser would ask, not under our own User-Agent, which it turns away; for the same reason these
requests do not go through `forex_core.data.http`, whose retries and pace they share. Its charts carry no validators, so
there is nothing to ask conditionally and nothing to cache.
"""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any, TypeGuard, cast
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import yfinance
from curl_cffi.curl import CURL_WRITEFUNC_ERROR
from curl_cffi.requests import Response, Session
from curl_cffi.requests.exceptions import DNSError, RequestException, Timeout
from yfinance.data import YfData
from yfinance.exceptions import YFException
from yfinance.scrapers.history import PriceHistory

from forex_core.data.catalogue import YAHOO, entry, spot_pair
from forex_core.data.http import Again, Pace, Retries, retrying
from forex_core.data.observations import Observations, Quote
from forex_core.data.providers.labelling import NO_VALUE, NOT_POSITIVE, label
from forex_core.errors import SourceError, SourceUnavailable
from forex_core.strangers import printable

LONDON, NEW_YORK, CHICAGO = "Europe/London", "America/New_York", "America/Chicago"

_CHART = "/v8/finance/chart/"
_REFUSED = (401, 403)
_COLUMNS = ("open", "high", "low", "close", "volume")
_SECONDS = (-6_000_000_000, 4_102_444_800)
"""Stamps of the years 1780 to 2099."""

_QUOTE_DAYS = 7
"""Days of a chart that is asked for its last price: few, and with a trading day among them."""

_EMPTY_WEEKDAYS = 10
"""An answer without a day is believed where fewer weekdays than this were asked for."""

# Where nobody has set up logging, its warnings would be printed; what matters of them is in our errors.
logging.getLogger("yfinance").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Instrument:
    """What Yahoo must say of an instrument for its rows to be what we take them for.

    Attributes:
        zones: exchange time zones under which its rows are dated; the day of a row is the same in each of them.
        currency: of its price.
    """

    code: str
    zones: tuple[str, ...]
    currency: str


_INSTRUMENTS = {
    one.code: one
    for one in (
        Instrument("HG=F", (NEW_YORK,), "USD"),
        Instrument("CL=F", (NEW_YORK,), "USD"),
        Instrument("DX-Y.NYB", (NEW_YORK,), "USD"),
        Instrument("^GSPC", (NEW_YORK,), "USD"),
        Instrument("^VIX", (CHICAGO, NEW_YORK), "USD"),
    )
}


def instrument_of(series: str) -> Instrument:
    """What Yahoo gives for a series of the catalogue.

    >>> instrument_of("eurusd_close")
    Instrument(code='EURUSD=X', zones=('Europe/London',), currency='USD')

    Raises:
        SourceError: it gives nothing for it.
    """
    code = next((feed.code for feed in entry(series).feeds if feed.source == YAHOO), None)
    pair = spot_pair(series)
    if code in _INSTRUMENTS:
        return _INSTRUMENTS[code]
    if code is None or pair is None:
        raise SourceError(f"yahoo gives no series {series!r}; expected one that the catalogue says it gives")
    return Instrument(code, (LONDON,), pair.quote)


@dataclass(frozen=True)
class YahooFetcher:
    """Daily closes as they were quoted: not adjusted for anything.

    A row is of the day that it has in its exchange's time zone: Yahoo stamps a currency pair at midnight in London, a
    future and an index in New York or Chicago. Until a day's close is released its row is a quote, and left out.

    Attributes:
        server: address of a server that stands in for Yahoo's; it finds the host that was meant as the first part of
            the path. None for Yahoo itself.
        timeout_s: for one request, from its start to its last byte.
        deadline_s: for all requests of one attempt; cookie and crumb take three more besides the chart.
        max_bytes: of one answer, unpacked. Fifteen years of a daily chart are 0.5 MB.
        pace: shared by all that ask Yahoo.
        sleep, now: of the process; a test gives its own.
    """

    server: str | None = None
    timeout_s: float = 20.0
    deadline_s: float = 60.0
    max_bytes: int = 16 * 2**20
    retries: Retries = field(default_factory=lambda: Retries(attempts=3))
    pace: Pace = field(default_factory=lambda: Pace(0.5))
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], pd.Timestamp] = lambda: pd.Timestamp.now(tz="UTC")
    name: str = YAHOO

    def fetch(self, series: str, start: date, end: date) -> Observations:
        instrument = instrument_of(series)
        rows, _ = self._patiently_asked(instrument, start, end)
        return self._observed(series, instrument, start, end, rows)

    def quote(self, series: str) -> Quote:
        """The last market price of a series, and when it was struck.

        Raises:
            SourceUnavailable, SourceError: as `fetch`.
        """
        instrument = instrument_of(series)
        today = self.now().date()
        _, meta = self._patiently_asked(instrument, today - timedelta(days=_QUOTE_DAYS), today)
        price, seconds = meta.get("regularMarketPrice"), meta.get("regularMarketTime")
        if not (_is_number(price) and 0 < price < math.inf and _is_stamp(seconds)):
            raise SourceError(
                f"yahoo gives no last price of {instrument.code}: found {_shown(price)} at {_shown(seconds)}, expected "
                "a positive price and seconds since 1970"
            )
        return Quote(float(price), pd.Timestamp(seconds, unit="s", tz="UTC"), self.name)

    def _patiently_asked(
        self, instrument: Instrument, start: date, end: date
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        try:
            return retrying(self.retries, self.sleep)(self._asked, instrument, start, end)
        except Again as again:
            times = "once" if self.retries.attempts == 1 else f"{self.retries.attempts} times"
            raise SourceUnavailable(
                f"yahoo, {instrument.code}: {again}; tried {times}. Check the network, and try again later"
            ) from again.__cause__

    def _asked(self, instrument: Instrument, start: date, end: date) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Yahoo's rows, if any, by the instant at which their day begins at the exchange; and what its meta says."""
        weekdays = int(np.busday_count(start, end + timedelta(days=1)))
        with _Session(self, instrument, weekdays) as session, _quiet():
            # Past its metaclass, which would give one client to the whole process.
            client = type.__call__(_Client, session)
            history = PriceHistory(client, instrument.code, instrument.zones[0], session)
            try:
                rows: pd.DataFrame = history.history(
                    start=start,
                    end=end + timedelta(days=1),
                    interval="1d",
                    auto_adjust=False,
                    actions=True,
                    keepna=True,
                    timeout=self.timeout_s,
                )
            except _NoRows:
                rows = pd.DataFrame({"Close": [], "Stock Splits": []}, index=pd.DatetimeIndex([], tz="UTC"))
            except (YFException, RequestException) as error:
                raise Again(str(error)) from error
            except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
                raise SourceError(
                    f"yahoo's answer for {instrument.code} cannot be read by yfinance {yfinance.__version__} "
                    f"({type(error).__name__}: {error}); update yfinance if this lasts"
                ) from error
        return rows, session.meta

    def _observed(
        self, series: str, instrument: Instrument, start: date, end: date, rows: pd.DataFrame
    ) -> Observations:
        days = pd.DatetimeIndex(rows.index).tz_localize(None)
        trading = np.asarray(days.day_of_week < 5)
        found = label(
            self.name,
            series,
            [day.date() for day in days[trading]],
            rows["Close"].to_numpy(dtype=np.float64)[trading],
            start,
            end,
            now=self.now(),
            where=f"yahoo, {instrument.code}",
        )
        empty = sum(found.dropped.get(reason, 0) for reason in (NO_VALUE, NOT_POSITIVE))
        if empty >= _EMPTY_WEEKDAYS and not len(found):
            raise SourceError(
                f"yahoo gave {empty} days of {instrument.code} from {start} to {end} and not one usable close"
            )
        if trading.all():
            return found
        return replace(found, dropped={"weekend": int((~trading).sum())} | found.dropped)


class _NoRows(Exception):  # noqa: N818  an answer, not an error
    """Yahoo answered that it has no day in that range."""


class _Client(YfData):  # type: ignore[misc]
    """yfinance's client for one session: alone (the original is one for the whole process) and without a memory."""

    def cache_get(self, url: str, params: Any = None, timeout: float = 30) -> Response:
        """The original keeps what it was told of days gone by, which Yahoo revises, as long as the process lives."""
        return cast(Response, self.get(url, params, timeout))

    def _load_cookie_curlCffi(self) -> bool:  # noqa: N802  its name there
        return False

    def _save_cookie_curlCffi(self) -> bool:  # noqa: N802
        return False


class _Limit:
    """Takes a body in, unpacked, and breaks the transfer off where it grows too large, whatever its headers say."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._body = bytearray()
        self.is_exceeded = False

    @property
    def content(self) -> bytes:
        return bytes(self._body)

    def take(self, chunk: bytes) -> int:
        """How curl is told to go on: by the number of bytes taken."""
        self.is_exceeded = len(self._body) + len(chunk) > self._max_bytes
        if self.is_exceeded:
            return CURL_WRITEFUNC_ERROR
        self._body += chunk
        return len(chunk)


class _Session(Session[Response]):
    """A session that holds each request to a deadline and a size, and passes on only charts that are as they should be.

    Cookies and crumbs are yfinance's affair: it goes on without where they cannot be had.
    """

    def __init__(self, fetcher: YahooFetcher, instrument: Instrument, weekdays: int) -> None:
        super().__init__(impersonate="chrome")
        self._fetcher = fetcher
        self._instrument = instrument
        self._weekdays = weekdays
        self._until = time.monotonic() + fetcher.deadline_s
        self._refusals = 0
        self._was_asked_for_consent = False
        self.meta: dict[str, Any] = {}
        """What the chart that was let through says of its instrument."""

    def request(self, method: Any, url: str, **options: Any) -> Response:  # type: ignore[override]
        fetcher = self._fetcher
        asked = urlsplit(url)
        is_chart = _CHART in asked.path
        fetcher.pace.wait(str(asked.hostname))
        left = self._until - time.monotonic()
        if left <= 0:
            raise Again(f"no chart within {fetcher.deadline_s:g} s")
        # Its cookie is worth a short wait, for charts are mostly given without.
        options["timeout"] = min(left, fetcher.timeout_s if is_chart else fetcher.timeout_s / 4)
        stand_in = "https://" if fetcher.server is None else f"{fetcher.server}/"
        url = url.replace("https://", stand_in, 1)
        size_limit = _Limit(fetcher.max_bytes)
        try:
            response = super().request(method, url, content_callback=size_limit.take, **options)
        except RequestException as error:
            if not is_chart:
                raise
            if size_limit.is_exceeded:
                raise SourceError(
                    f"yahoo answered for {self._instrument.code} with more than {fetcher.max_bytes / 2**20:g} MB, "
                    "which is no chart of daily closes; nothing of it was used"
                ) from error
            late = f"no whole chart within {options['timeout']:.3g} s"
            told = str(error).partition(". See http")[0]  # curl names a page of its own
            if isinstance(error, DNSError):  # no network as a rule: a second attempt finds no other name
                raise SourceUnavailable(f"{told}; check the network") from error
            raise Again(late if isinstance(error, Timeout) else f"no whole chart ({told})") from error
        response.content = size_limit.content
        response.url = response.url.replace(stand_in, "https://", 1)
        if is_chart or (self._was_asked_for_consent and method == "POST"):
            self._judge(response)
        return response

    def _judge(self, response: Response) -> None:
        """Let through a chart of the instrument that was asked for, and a first refusal, which a new crumb may cure."""
        code, status = self._instrument.code, response.status_code
        if (urlsplit(response.url).hostname or "").endswith("consent.yahoo.com"):
            if not self._was_asked_for_consent:
                self._was_asked_for_consent = True
                return  # yfinance sends the form back, and is sent on to the chart
            raise SourceError(
                f"yahoo wants consent before it gives {code}; open finance.yahoo.com from this network"
            )
        if status in _REFUSED:
            self._refusals += 1
            if self._refusals == 1:
                return
            raise SourceUnavailable(
                f"yahoo refused {code} (status {status}: {_reason(response)}), also with a new cookie; try again later"
            )
        if status == 429 or status >= 500:
            stated = response.headers.get("Retry-After") or ""
            patience = float(stated) if stated.isdecimal() else 0.0
            if patience > self._fetcher.retries.longest_retry_after_s:
                raise SourceUnavailable(
                    f"yahoo answered with status {status} for {code} and asks to be left alone for {patience:g} s"
                )
            raise Again(f"status {status}", patience)
        if status == 400 and _reason(response).startswith("Data doesn't exist for"):
            raise _NoRows
        if status != 200:
            raise SourceError(f"yahoo gives no {code} (status {status}): {_reason(response)}")
        self._check(_document(response, code))

    def _check(self, document: Any) -> None:
        """That an answer is a daily chart of the instrument, with all that yfinance reads of it.

        Raises:
            _NoRows: it is one, without a day.
            SourceError: it is something else.
        """
        instrument = self._instrument
        match document:
            case {"chart": {"error": {"description": str(reason)}}} | {
                "finance": {"error": {"description": str(reason)}}
            }:
                raise SourceError(f"yahoo gives no {instrument.code}: {reason}")
            case {
                "chart": {"result": [{"meta": dict(meta), "indicators": {"quote": [dict(quote)]}} as chart]}
            }:
                self._check_meta(meta)
            case _:
                raise self._unlike(f"found {_shown(document)} where a chart with meta and indicators")
        if splits := chart.get("events", {}).get("splits"):
            raise SourceError(
                f"yahoo tells of a split of {instrument.code} ({_shown(splits)}), which it cannot have: its closes may "
                "be scaled; nothing of it was used"
            )
        stamps = chart.get("timestamp") or []
        if not stamps:
            if self._weekdays >= _EMPTY_WEEKDAYS:
                raise SourceError(
                    f"yahoo gave a chart of {instrument.code} without a day; {self._weekdays} weekdays were asked for"
                )
            raise _NoRows
        if not all(map(_is_stamp, stamps)):
            raise self._unlike("its timestamps are not seconds since 1970 where all")
        for name in _COLUMNS:
            column = quote.get(name)
            if not isinstance(column, list) or len(column) != len(stamps):
                found = f"{len(column)} values" if isinstance(column, list) else _shown(column)
                raise self._unlike(
                    f"found {found} under {name!r} where {len(stamps)} prices, one for each day,"
                )
            if not all(cell is None or _is_number(cell) for cell in column):
                raise self._unlike(f"found what is no number under {name!r} where only numbers")

    def _check_meta(self, meta: dict[str, Any]) -> None:
        instrument = self._instrument
        expected = {
            "symbol": (instrument.code,),
            "currency": (instrument.currency,),
            "exchangeTimezoneName": instrument.zones,
            "dataGranularity": ("1d",),
        }
        for name, allowed in expected.items():
            if meta.get(name) not in allowed:
                raise self._unlike(f"found {name} {meta.get(name)!r} where {' or '.join(map(repr, allowed))}")
        stated = meta.get("regularMarketTime")
        if _is_number(stated) and not _is_stamp(stated):  # yfinance would make a date of it
            raise self._unlike(f"found regularMarketTime {_shown(stated)} where seconds since 1970")
        self.meta = meta

    def _unlike(self, difference: str) -> SourceError:
        return SourceError(
            f"yahoo's answer for {self._instrument.code} is not as it was: {difference} was expected; nothing of it "
            "was used"
        )


def _document(response: Response, code: str) -> Any:
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError) as error:
        if response.content.lstrip()[:1] == b"{":
            raise Again("a chart that breaks off or is not well formed") from error
        raise SourceError(
            f"yahoo answered for {code} with {_shown(response.content)} instead of JSON, as it does where it wants "
            "consent or is being mended; open finance.yahoo.com from this network if it lasts"
        ) from error


def _reason(response: Response) -> str:
    """Why Yahoo says that it gives nothing: the description in its answer, else the beginning of that."""
    try:
        document = json.loads(response.content)
    except ValueError:
        return _shown(response.content)
    match document:
        case {"chart": {"error": {"description": str(reason)}}} | {
            "finance": {"error": {"description": str(reason)}}
        }:
            return reason
    return _shown(document)


def _shown(found: object) -> str:
    """What was found, short enough for a message."""
    return printable(found.decode("utf-8", "replace") if isinstance(found, bytes) else repr(found), 60)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_stamp(value: object) -> TypeGuard[float]:
    return _is_number(value) and _SECONDS[0] < value < _SECONDS[1]


@contextmanager
def _quiet() -> Iterator[None]:
    """yfinance as it should be when it works for us: it raises what went wrong, and warns of nothing."""
    yfinance.config.debug.hide_exceptions = False
    with warnings.catch_warnings():
        # It calls pandas in ways that pandas means to drop; that is for its next version.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield
