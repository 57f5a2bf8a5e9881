"""Yahoo's fetcher, through yfinance as it is, against a server that answers as Yahoo does and as it should not."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from yfinance.data import YfData

from forex_core.data.http import Pace, Retries
from forex_core.data.observations import Quote
from forex_core.data.providers.labelling import FUTURE, NO_VALUE, NOT_POSITIVE
from forex_core.data.providers.yahoo import YahooFetcher
from forex_core.data.series import MARKET_CLOSE, SPOT_CLOSE
from forex_core.errors import SourceError, SourceUnavailable
from tests.contract.bad_days import (
    LONG_S,
    NOW,
    Behaviour,
    Handler,
    Server,
    drip,
    drop,
    good,
    half,
    half_chunked,
    hang,
    hang_in_the_body,
    html,
    junk,
    redirect,
    status,
    unused_address,
)

LONDON, NEW_YORK, CHICAGO = "Europe/London", "America/New_York", "America/Chicago"
LAST_WEEK = ["2024-06-24", "2024-06-25", "2024-06-26", "2024-06-27", "2024-06-28"]
CLOSES = [941.25, 942.5, 945.0, 948.75, 943.0]
Cell = float | str | None

# Every series: code, zone, currency, hour and minute of its stamps.
SERIES: dict[str, tuple[str, str, str, tuple[int, int]]] = {
    "usdclp_close": ("CLP=X", LONDON, "CLP", (0, 0)),
    "eurusd_close": ("EURUSD=X", LONDON, "USD", (0, 0)),
    "copper": ("HG=F", NEW_YORK, "USD", (0, 0)),
    "oil": ("CL=F", NEW_YORK, "USD", (0, 0)),
    "dxy": ("DX-Y.NYB", NEW_YORK, "USD", (0, 0)),
    "sp500": ("^GSPC", NEW_YORK, "USD", (9, 30)),
    "vix": ("^VIX", CHICAGO, "USD", (8, 30)),
}


RELEASED = {LONDON: SPOT_CLOSE, NEW_YORK: MARKET_CLOSE, CHICAGO: MARKET_CLOSE}


def stamp(day: str, zone: str, hour: int = 0, minute: int = 0) -> int:
    """Seconds since 1970 of that time of day there."""
    then = datetime.fromisoformat(day).replace(hour=hour, minute=minute, tzinfo=ZoneInfo(zone))
    return int(then.timestamp())


def chart(
    days: Sequence[str] = LAST_WEEK,
    closes: Sequence[Cell] = CLOSES,
    series: str = "usdclp_close",
    *,
    stamps: Sequence[int] = (),
    **changed: Any,
) -> dict[str, Any]:
    """A daily chart as Yahoo's v8 gives it; `changed` overwrites what its meta says."""
    code, zone, currency, time_of_day = SERIES[series]
    meta = {
        "currency": currency,
        "symbol": code,
        "exchangeName": "CCY",
        "instrumentType": "CURRENCY",
        "firstTradeDate": 1063753200,
        "regularMarketTime": stamp("2024-06-28", zone, 22),
        "gmtoffset": 3600,
        "timezone": "BST",
        "exchangeTimezoneName": zone,
        "regularMarketPrice": 943.0,
        "priceHint": 4,
        "dataGranularity": "1d",
        "range": "",
        "validRanges": ["1d", "5d", "1mo", "max"],
    } | changed
    quote = {name: list(closes) for name in ("open", "high", "low", "close")} | {"volume": [0] * len(closes)}
    adjusted = [c / 2 if isinstance(c, float) else c for c in closes]
    result = {
        "meta": meta,
        "timestamp": list(stamps) or [stamp(day, zone, *time_of_day) for day in days],
        "indicators": {"quote": [quote], "adjclose": [{"adjclose": adjusted}]},
    }
    return {"chart": {"result": [result], "error": None}}


def refused(code: int, title: str, reason: str) -> Behaviour:
    return status(
        code, json.dumps({"chart": {"result": None, "error": {"code": title, "description": reason}}})
    )


def yahoo(*charts: Behaviour, others: Behaviour | None = None) -> Behaviour:
    """All of Yahoo behind one address: charts in this order, the last one for ever; cookie and crumb beside."""
    left = list(charts)

    def behave(handler: Handler) -> None:
        handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)  # 40 ms a request
        path = handler.asked.path
        if "/v8/finance/chart/" in path:
            (left.pop(0) if len(left) > 1 else left[0])(handler)
        elif others is not None:
            others(handler)
        elif path.endswith("/v1/test/getcrumb"):
            good("cRuMb", Set_Cookie="B=1")(handler)
        elif path.startswith("/fc.yahoo.com"):
            status(404, "no such page", Set_Cookie="A3=d=AQABBA; Path=/")(handler)
        else:
            html(handler)

    return behave


CONSENT = """<html><form method="post" action="/v2/collectConsent?sessionId=3">
<input type="hidden" name="csrfToken" value="t"><button name="agree" value="agree">Accept all</button></form></html>"""


def charts_asked(server: Server) -> list[dict[str, str]]:
    return [dict(asked.params) for asked in server.asked if "/chart/" in asked.path]


def fetcher(
    server: Server,
    *,
    waited: list[float] | None = None,
    now: pd.Timestamp = NOW,
    timeout_s: float = LONG_S,
    deadline_s: float = LONG_S,
) -> YahooFetcher:
    """One that writes its waits down instead of waiting."""
    sleep: Callable[[float], None] = (waited if waited is not None else []).append
    return YahooFetcher(
        server=server.url,
        timeout_s=timeout_s,
        deadline_s=deadline_s,
        retries=Retries(attempts=3),
        pace=Pace(0.0),
        sleep=sleep,
        now=lambda: now,
    )


START, END = date(2024, 6, 24), date(2024, 6, 28)


def days_of(found: Any) -> list[str]:
    return list(found.dates.strftime("%Y-%m-%d"))


@pytest.mark.parametrize("series", SERIES)
def test_unadjusted_closes_by_the_day_of_the_exchange(server: Server, series: str) -> None:
    code, zone, _, _ = SERIES[series]
    server.play(yahoo(good(chart(series=series))))
    found = fetcher(server).fetch(series, START, END)
    assert (found.series, found.source) == (series, "yahoo")
    assert days_of(found) == LAST_WEEK
    assert list(found.values) == CLOSES
    assert found.dates.tz is None
    assert list(found.available_at) == list(RELEASED[zone].instants(pd.DatetimeIndex(LAST_WEEK)))
    assert not found.dropped
    [asked] = charts_asked(server)
    assert unquote(server.asked[-1].path).endswith(f"query2.finance.yahoo.com/v8/finance/chart/{code}")
    assert int(asked["period1"]) == stamp("2024-06-24", zone)
    assert int(asked["period2"]) == stamp("2024-06-29", zone)
    assert asked["interval"] == "1d"


@pytest.fixture(params=["UTC", "Pacific/Kiritimati", "America/Los_Angeles"])
def machine_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


AROUND_CHANGES = [
    *("2023-10-26", "2023-10-27", "2023-10-30", "2023-10-31"),  # summer time ends in London
    *("2023-11-02", "2023-11-03", "2023-11-06", "2023-11-07"),  # and in New York
    *("2023-12-28", "2023-12-29", "2024-01-01", "2024-01-02"),  # a year ends
    *("2024-02-27", "2024-02-28", "2024-02-29", "2024-03-01"),  # a leap day
    *("2024-03-07", "2024-03-08", "2024-03-11", "2024-03-12"),  # summer time begins in New York
    *("2024-03-28", "2024-03-29", "2024-04-01", "2024-04-02"),  # and in London
    *("2024-04-04", "2024-04-05", "2024-04-08", "2024-04-09"),  # clocks change in Santiago
]


@pytest.mark.parametrize("series", ["usdclp_close", "oil", "sp500", "vix"])
def test_no_clock_moves_a_day(server: Server, machine_zone: str, series: str) -> None:
    closes = [900.0 + k for k in range(len(AROUND_CHANGES))]
    server.play(yahoo(good(chart(AROUND_CHANGES, closes, series))))
    found = fetcher(server).fetch(series, date(2023, 10, 26), date(2024, 4, 9))
    assert days_of(found) == AROUND_CHANGES
    assert list(found.values) == closes


def test_a_stamp_an_hour_before_midnight_is_of_the_day_that_begins(server: Server) -> None:
    """So Yahoo stamps days around a change of clocks at times."""
    stamps = [stamp("2024-04-01", LONDON), stamp("2024-04-01", LONDON, 23)]
    server.play(yahoo(good(chart(closes=CLOSES[:2], stamps=stamps))))
    found = fetcher(server).fetch("usdclp_close", date(2024, 4, 1), date(2024, 4, 2))
    assert days_of(found) == ["2024-04-01", "2024-04-02"]


@pytest.mark.parametrize(
    ("series", "now", "last"),
    [
        # 17:00 in New York is 21:00 UTC in summer.
        ("copper", "2024-06-28T20:59:59Z", "2024-06-27"),
        ("copper", "2024-06-28T21:00:00Z", "2024-06-28"),
        # A pair's day in London ends at 23:00 UTC in summer.
        ("usdclp_close", "2024-06-28T22:59:59Z", "2024-06-27"),
        ("usdclp_close", "2024-06-28T23:00:00Z", "2024-06-28"),
        # A run at 08:00 in Santiago sees the closes of the day before.
        ("usdclp_close", "2024-06-28T12:00:00Z", "2024-06-27"),
        ("sp500", "2024-06-28T12:00:00Z", "2024-06-27"),
    ],
)
def test_a_quote_is_no_close(server: Server, series: str, now: str, last: str) -> None:
    server.play(yahoo(good(chart(series=series))))
    found = fetcher(server, now=pd.Timestamp(now)).fetch(series, START, END)
    assert days_of(found)[-1] == last
    assert sum(found.dropped.values()) == 5 - len(found)


@pytest.mark.parametrize("now", ["2024-01-10T22:30:00Z", "2024-01-10T23:59:59Z", "2024-01-11T00:00:00Z"])
def test_a_close_is_known_no_earlier_than_it_is_given(server: Server, now: str) -> None:
    """Midnight in London comes after eight in Tokyo in winter: a price that may still move is of no origin before."""
    days = ["2024-01-09", "2024-01-10"]
    server.play(yahoo(good(chart(days, CLOSES[:2]))))
    at = pd.Timestamp(now)
    found = fetcher(server, now=at).fetch("usdclp_close", date(2024, 1, 8), date(2024, 1, 11))
    assert (days_of(found)[-1] == "2024-01-10") == (at == pd.Timestamp("2024-01-11T00:00:00Z"))
    assert (
        found.available_at
        == [pd.Timestamp(day) + pd.Timedelta("24h") for day in found.dates.tz_localize("UTC")]
    ).all()


def test_the_quote_beside_the_day_that_it_belongs_to(server: Server) -> None:
    """While a market is open Yahoo gives its day twice: as a row, and as a quote with the time of the last trade."""
    days = [*LAST_WEEK[:-1], "2024-06-28"]
    stamps = [*(stamp(day, LONDON) for day in days), stamp("2024-06-28", LONDON, 14, 33)]
    server.play(yahoo(good(chart(closes=[*CLOSES, 950.0], stamps=stamps))))
    now = pd.Timestamp("2024-06-28T13:40:00Z")
    found = fetcher(server, now=now).fetch("usdclp_close", START, END)
    assert days_of(found) == LAST_WEEK[:-1]
    assert list(found.values) == CLOSES[:-1]


@pytest.mark.parametrize(
    ("series", "cell", "reason"),
    [
        ("usdclp_close", None, NO_VALUE),
        ("usdclp_close", 0.0, NOT_POSITIVE),
        ("usdclp_close", -3.0, NOT_POSITIVE),
        ("oil", None, NO_VALUE),
        ("oil", 0.0, NOT_POSITIVE),
    ],
)
def test_what_is_no_price_is_left_out_and_counted(
    server: Server, series: str, cell: Cell, reason: str
) -> None:
    server.play(yahoo(good(chart(closes=[*CLOSES[:2], cell, *CLOSES[3:]], series=series))))
    found = fetcher(server).fetch(series, START, END)
    assert days_of(found) == [*LAST_WEEK[:2], *LAST_WEEK[3:]]
    assert found.dropped == {reason: 1}


def test_oil_was_below_zero_once(server: Server) -> None:
    days = ["2020-04-17", "2020-04-20", "2020-04-21"]
    server.play(yahoo(good(chart(days, [18.27, -37.63, 10.01], "oil"))))
    assert list(fetcher(server).fetch("oil", date(2020, 4, 17), date(2020, 4, 21)).values) == [
        18.27,
        -37.63,
        10.01,
    ]


def test_rows_of_other_days(server: Server) -> None:
    days = ["2024-06-21", "2024-06-28", "2024-06-30", "2024-07-05"]
    server.play(yahoo(good(chart(days, CLOSES[:4]))))
    found = fetcher(server).fetch("usdclp_close", START, date(2024, 7, 8))
    assert days_of(found) == ["2024-06-28"]
    assert found.dropped == {"weekend": 1, FUTURE: 1}


def without(path: Sequence[str | int], renamed: str | None = None) -> dict[str, Any]:
    """A chart in which one field has gone, or has another name."""
    found = chart()
    at: Any = found["chart"]["result"][0]
    for step in path[:-1]:
        at = at[step]
    value = at.pop(path[-1])
    if renamed:
        at[renamed] = value
    return found


def with_cell(value: object) -> dict[str, Any]:
    found = chart()
    found["chart"]["result"][0]["indicators"]["quote"][0]["close"][2] = value
    return found


SPLIT = chart()
SPLIT["chart"]["result"][0]["events"] = {
    "splits": {"1": {"date": stamp("2024-06-26", LONDON), "numerator": 10}}
}
EMPTY_RESULT: dict[str, Any] = {"chart": {"result": [], "error": None}}

# What no second asking mends: behaviour, and what is said of it.
WRONG: dict[str, tuple[Behaviour, str]] = {
    "another symbol": (good(chart(symbol="COP=X")), "found symbol 'COP=X' where 'CLP=X'"),
    "another currency": (good(chart(currency="USD")), "found currency 'USD' where 'CLP'"),
    "another time zone": (good(chart(exchangeTimezoneName=NEW_YORK)), f"'{NEW_YORK}' where '{LONDON}'"),
    "no time zone": (good(chart(exchangeTimezoneName=None)), f"None where '{LONDON}'"),
    "weekly rows": (good(chart(dataGranularity="1wk")), "found dataGranularity '1wk' where '1d'"),
    "a split": (good(SPLIT), "tells of a split"),
    "delisted": (
        refused(404, "Not Found", "No data found, symbol may be delisted"),
        r"status 404\): No data found, symbol may be delisted",
    ),
    "delisted, status 200": (refused(200, "Not Found", "No data found"), "gives no CLP=X: No data found"),
    "a bad request": (refused(400, "Bad Request", "Invalid input - interval"), "Invalid input - interval"),
    "a page": (html, "<!DOCTYPE html>.* instead of JSON"),
    "being mended": (good("Will be right back"), "Will be right back instead of JSON"),
    "an empty list": (good([]), r"found \[\] where a chart"),
    "an empty object": (good({}), r"found \{\} where a chart"),
    "no result": (good(EMPTY_RESULT), "where a chart"),
    "a number": (good("12"), "found 12 where a chart"),
    "no indicators": (good(without(["indicators"])), "where a chart"),
    "another name for close": (
        good(without(["indicators", "quote", 0, "close"], "last")),
        "found None under 'close'",
    ),
    "no volume": (good(without(["indicators", "quote", 0, "volume"])), "found None under 'volume'"),
    "too few closes": (good(chart(closes=CLOSES[:4])), "found 4 values under 'open' where 5 prices"),
    "text among closes": (good(with_cell("945.0")), "no number under 'close'"),
    "truth among closes": (good(with_cell(True)), "no number under 'close'"),
    "stamps in milliseconds": (
        good(chart(stamps=[1000 * stamp(day, LONDON) for day in LAST_WEEK])),
        "timestamps are not seconds",
    ),
    "30 MB of junk": (junk(30), "more than 16 MB"),
    "30 MB of junk, announced": (junk(30, announced=True), "more than 16 MB"),
}


@pytest.mark.parametrize(("bad", "told"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_chart_of_the_instrument_is_refused_at_once(
    server: Server, bad: Behaviour, told: str
) -> None:
    server.play(yahoo(bad))
    with pytest.raises(SourceError, match=told):
        fetcher(server).fetch("usdclp_close", START, END)
    assert len(charts_asked(server)) == 1


def test_junk_is_not_read_to_its_end(server: Server) -> None:
    server.play(yahoo(junk(30)))
    with pytest.raises(SourceError):
        fetcher(server).fetch("usdclp_close", START, END)
    assert server.sent < 25 * 2**20


PASSING: dict[str, tuple[Behaviour, str]] = {
    "429": (status(429, "Too Many Requests"), "status 429"),
    "500": (status(500), "status 500"),
    "hang": (hang, "no whole chart within 0.25 s"),
    "hang in the body": (hang_in_the_body, "no whole chart within 0.25 s"),
    "drip": (drip, "no whole chart within 0.25 s"),
    "half": (half(json.dumps(chart())), "no whole chart"),
    "half in chunks": (half_chunked(json.dumps(chart())), "no whole chart"),
    "half without a length": (good(json.dumps(chart())[:300]), "breaks off"),
}


@pytest.mark.parametrize(("bad", "told"), PASSING.values(), ids=PASSING.keys())
def test_what_may_pass_is_tried_again_and_not_for_ever(server: Server, bad: Behaviour, told: str) -> None:
    waited: list[float] = []
    short_s = 0.25 if bad in (hang, hang_in_the_body, drip) else LONG_S
    one = fetcher(server, timeout_s=short_s)

    def recover(seconds: float) -> None:
        waited.append(seconds)
        server.wait_for(1, "/chart/")
        object.__setattr__(one, "timeout_s", LONG_S)  # of what is frozen

    object.__setattr__(one, "sleep", recover)
    server.play(yahoo(bad, good(chart())))
    assert list(one.fetch("usdclp_close", START, END).values) == CLOSES
    assert 1.0 <= waited[0] <= 2.0
    server.play(yahoo(bad))
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match=rf"CLP=X: .*{told}.*tried 3 times"):
        fetcher(server, timeout_s=short_s).fetch("usdclp_close", START, END)
    assert time.monotonic() - began < 60
    server.wait_for(2 + 3, "/chart/")
    assert len(charts_asked(server)) == 2 + 3


def test_a_connection_that_is_dropped(server: Server) -> None:
    server.play(yahoo(drop))
    with pytest.raises(SourceUnavailable, match="no whole chart"):
        fetcher(server).fetch("usdclp_close", START, END)


def test_retry_after(server: Server) -> None:
    waited: list[float] = []
    server.play(yahoo(status(429, Retry_After="7"), good(chart())))
    assert len(fetcher(server, waited=waited).fetch("usdclp_close", START, END)) == 5
    assert waited == [7.0]
    server.play(yahoo(status(429, Retry_After="3600")))
    with pytest.raises(SourceUnavailable, match="left alone for 3600 s"):
        fetcher(server, waited=waited).fetch("usdclp_close", START, END)
    assert waited == [7.0]


def test_an_invalid_crumb_is_cured_by_a_new_one(server: Server) -> None:
    invalid = status(
        401, json.dumps({"finance": {"error": {"code": "Unauthorized", "description": "Invalid Crumb"}}})
    )
    server.play(yahoo(invalid, good(chart())))
    assert len(fetcher(server).fetch("usdclp_close", START, END)) == 5
    assert charts_asked(server)[0]["crumb"] == "cRuMb"
    server.play(yahoo(invalid))
    with pytest.raises(SourceUnavailable, match="status 401: Invalid Crumb"):
        fetcher(server).fetch("usdclp_close", START, END)


def test_a_consent_form_is_sent_back_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def do_post(handler: Handler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        handler.do_GET()

    monkeypatch.setattr(Handler, "do_POST", do_post, raising=False)
    form = redirect(f"{server.url}/consent.yahoo.com/v2/collectConsent?sessionId=3")
    back = redirect(f"{server.url}/query2.finance.yahoo.com/v8/finance/chart/CLP=X")

    def consent(handler: Handler) -> None:
        page = good(CONSENT) if handler.asked.path.startswith("/consent.yahoo.com/") else status(404)
        (back if handler.command == "POST" else page)(handler)

    server.play(yahoo(form, good(chart()), others=consent))
    assert len(fetcher(server).fetch("usdclp_close", START, END)) == 5
    server.play(yahoo(form, others=consent))
    with pytest.raises(SourceError, match="wants consent before it gives CLP=X"):
        fetcher(server).fetch("usdclp_close", START, END)


@pytest.mark.parametrize("others", [status(429), status(500), html, drop, junk(30), hang])
def test_a_chart_needs_no_cookie(server: Server, others: Behaviour) -> None:
    server.play(yahoo(good(chart()), others=others))
    assert len(fetcher(server, timeout_s=1.0).fetch("usdclp_close", START, END)) == 5


def test_when_all_hangs_the_deadline_holds(server: Server) -> None:
    server.play(hang)
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match="tried 3 times"):
        fetcher(server, timeout_s=LONG_S, deadline_s=1.5).fetch("usdclp_close", START, END)
    assert time.monotonic() - began < 60


def test_no_network() -> None:
    offline = Server(url=unused_address())
    with pytest.raises(SourceUnavailable, match="no whole chart"):
        fetcher(offline).fetch("usdclp_close", START, END)


def test_days_of_which_there_is_nothing(server: Server) -> None:
    empty = chart([], [])
    empty["chart"]["result"][0].pop("timestamp")
    empty["chart"]["result"][0]["indicators"] = {"quote": [{}]}
    gone = refused(400, "Bad Request", "Data doesn't exist for startDate = 1, endDate = 2")
    for none in (good(empty), gone):
        server.play(yahoo(none))
        found = fetcher(server).fetch("usdclp_close", date(2024, 6, 29), date(2024, 6, 30))
        assert (len(found), found.dropped) == (0, {})
    server.play(yahoo(good(empty)))
    with pytest.raises(SourceError, match="without a day; 120 weekdays were asked for"):
        fetcher(server).fetch("usdclp_close", date(2024, 1, 15), END)


def test_days_without_one_close(server: Server) -> None:
    days = [f"2024-06-{day:02}" for day in (3, 4, 5, 6, 7, 10, 11, 12, 13, 14)]
    server.play(yahoo(good(chart(days, [None] * 10))))
    with pytest.raises(SourceError, match=r"10 days of CLP=X .* not one usable close"):
        fetcher(server).fetch("usdclp_close", date(2024, 6, 3), END)


def test_a_series_that_yahoo_does_not_give(server: Server) -> None:
    for series in ("fed_rate", "usdclp_observed", "usdmxn_reference", "whatever"):
        with pytest.raises(SourceError, match=f"gives no series '{series}'"):
            fetcher(server).fetch(series, START, END)
    assert not server.asked


class TestQuote:
    """The last price, as the chart's meta has it."""

    NOON = stamp("2024-06-28", LONDON, 12, 30)

    def test_is_the_last_price_with_its_time(self, server: Server) -> None:
        server.play(yahoo(good(chart(regularMarketPrice=951.3, regularMarketTime=self.NOON))))
        found = fetcher(server).quote("usdclp_close")
        assert found == Quote(951.3, pd.Timestamp("2024-06-28T11:30Z"), "yahoo")
        [asked] = charts_asked(server)
        assert int(asked["period2"]) - int(asked["period1"]) <= 8 * 86_400 + 3_600, "a week, and no years"

    def test_is_there_where_no_day_has_closed(self, server: Server) -> None:
        server.play(yahoo(good(chart([], [], regularMarketPrice=951.3, regularMarketTime=self.NOON))))
        assert fetcher(server).quote("usdclp_close").value == 951.3

    @pytest.mark.parametrize(
        "said",
        [
            {"regularMarketPrice": None},
            {"regularMarketPrice": "951.3"},
            {"regularMarketPrice": 0.0},
            {"regularMarketPrice": -1.0},
            {"regularMarketPrice": True},
            {"regularMarketTime": None},
        ],
    )
    def test_what_is_none_is_refused(self, server: Server, said: dict[str, Any]) -> None:
        server.play(yahoo(good(chart(**said))))
        with pytest.raises(
            SourceError, match=r"yahoo gives no last price of CLP=X: found .* expected a positive"
        ):
            fetcher(server).quote("usdclp_close")

    def test_a_time_in_milliseconds_is_refused(self, server: Server) -> None:
        server.play(yahoo(good(chart(regularMarketTime=1719574200000))))
        with pytest.raises(SourceError, match="found regularMarketTime 1719574200000 where seconds"):
            fetcher(server).quote("usdclp_close")

    @pytest.mark.parametrize("behaviour", [hang, drop, status(503)], ids=["hang", "drop", "503"])
    def test_is_asked_for_once_where_that_is_all_there_is_time_for(
        self, server: Server, behaviour: Behaviour
    ) -> None:
        server.play(yahoo(behaviour))
        short_s = 0.5 if behaviour is hang else LONG_S
        hasty = replace(fetcher(server, timeout_s=short_s), retries=Retries(attempts=1))
        started = time.monotonic()
        with pytest.raises(SourceUnavailable, match=r"tried once\. Check the network"):
            hasty.quote("usdclp_close")
        assert time.monotonic() - started < 60
        assert len(charts_asked(server)) <= 2, "curl asks again on a connection that was closed on it"

    def test_of_another_instrument_is_refused(self, server: Server) -> None:
        server.play(yahoo(good(chart(currency="USD"))))
        with pytest.raises(SourceError, match="found currency 'USD'"):
            fetcher(server).quote("usdclp_close")


def test_a_revision_is_seen(server: Server) -> None:
    """yfinance by itself answers for days gone by from memory."""
    one = fetcher(server)
    server.play(yahoo(good(chart()), good(chart(closes=[*CLOSES[:4], 999.0]))))
    assert one.fetch("usdclp_close", START, END).values[-1] == 943.0
    assert one.fetch("usdclp_close", START, END).values[-1] == 999.0
    gc.collect()
    kept = [thing for thing in gc.get_objects() if issubclass(type(thing), YfData)]
    assert not kept, "neither what was told nor the cookies outlive a fetch"


def test_it_leaves_no_trace(server: Server, tmp_path: Path) -> None:
    """No file, no thread, no word; and no request when it is imported."""
    server.play(yahoo(good(chart())))
    code = f"""
import os, threading
from datetime import date
import forex_core.data.providers.yahoo as yahoo
import urllib.request
assert urllib.request.urlopen({server.url!r} + "/count").read()
found = yahoo.YahooFetcher(server={server.url!r}).fetch("usdclp_close", date(2024, 6, 24), date(2024, 6, 28))
print(len(found), threading.active_count())
"""
    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "YF_"))} | {
        "HOME": str(home)
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert (done.stdout, done.stderr) == ("5 1\n", "")
    assert list(home.rglob("*")) == []
    assert server.asked[0].path == "/count"
