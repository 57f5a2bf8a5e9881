"""A deployment with a past, for the tests of what shows it: ledger, observations, tracked runs."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from forex_core.calendars import is_business_day, next_weekday, origin_instant
from forex_core.config import Settings
from forex_core.dashboard.sources import Change, Run, TrackedRuns
from forex_core.data.catalogue import entry as catalogued
from forex_core.data.observations import Observations
from forex_core.data.store import ObservationStore
from forex_core.ledger import Alarm, Ledger
from forex_core.types import HORIZONS, Headline, Horizon, Pair
from tests.ledgers import USDCLP, entry

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LAST = date(2026, 11, 27)
"""Origin of the newest forecasts; the morning after is when the pages are read."""
NOW = origin_instant(USDCLP, LAST) + pd.Timedelta(hours=2)
MEMBERS = ("random_walk", "arima_garch", "ets", "theta", "gradient_boosting")
EVERY = {7: 1, 15: 3, 30: 5, 90: 5}
"""Business days between forecasts, by horizon."""


def fill(settings: Settings, days: int = 260, pairs: Sequence[Pair] = (USDCLP,)) -> Ledger:
    """Forecasts of so many business days in the ledger, what came scored, an alarm, and observations."""
    ledger = Ledger(settings.store_url, settings.root)
    for number, pair in enumerate(pairs):
        draw = np.random.default_rng(number + 3)
        known = _business_days(pair, days + 90)
        start, sigma = (950.0, 0.006) if pair == USDCLP else (1.08, 0.004)
        rate = start * np.exp(np.cumsum(sigma * draw.standard_normal(len(known))))
        for horizon in HORIZONS:
            origins = range(len(known) - 1, len(known) - 1 - days, -EVERY[horizon.days])
            weights = np.full(len(MEMBERS), 0.2)
            for k in reversed(origins):
                weights = np.abs(weights + 0.02 * draw.standard_normal(len(MEMBERS)))
                weights /= weights.sum()
                one = entry(
                    known[k],
                    horizon,
                    pair=pair,
                    close=float(rate[k]),
                    lean=float(0.001 * draw.standard_normal()),
                    sigma=sigma,
                    width=0.95,
                    version=_version(k),
                    members=MEMBERS,
                )
                recipe = f"{'a' if k < len(known) - 60 else 'b'}{'0' * 63}"
                verdict = "close_only" if horizon.days == 7 else "none"
                ledger.append(
                    replace(
                        one,
                        run_id=f"{number}{horizon.days:03d}{k:028x}",
                        weights=tuple(map(float, weights)),
                        recipe=recipe,
                        verdict=verdict,
                    )
                )
        spoke = [origin_instant(pair, day) for day in known]
        ledger.record(pair, "close", known, rate, spoke, now=spoke[-1])
        if pair == USDCLP:
            _observe(settings, known, rate)
    ledger.score()
    alarm = Alarm(
        "narrow bands",
        1,
        LAST - timedelta(days=3),
        3.4,
        2.9,
        "61 % of the last 31 outcomes lay in the 80 % band",
    )
    ledger.raise_alarm(pairs[0], "close", Horizon(7), alarm, now=NOW - pd.Timedelta(days=2))
    return ledger


def _version(k: int) -> int:
    """A version a day, but for two weeks after a rollback."""
    return 100 if 200 <= k < 210 else k + 1


def _business_days(pair: Pair, count: int) -> list[date]:
    day, found = LAST - timedelta(days=3 * count), []
    while day <= LAST:
        if is_business_day(pair, day):
            found.append(day)
        day = next_weekday(day)
    return found[-count:]


def _observe(settings: Settings, days: Sequence[date], rate: Any) -> None:
    store = ObservationStore(settings.store_url, settings.root)
    for name, values in (("usdclp_close", rate), ("copper", 4.2 + 0.01 * np.arange(len(days)))):
        shown = slice(None) if name == "usdclp_close" else slice(None, -30)  # the other one is stale
        dates = pd.DatetimeIndex(days)[shown]
        known = catalogued(name).definition.release.instants(dates)
        store.record(Observations(name, "yahoo", dates, np.asarray(values)[shown], known), now=NOW)
    store.record_news([headline("Copper slides as the peso firms")], source="news", now=NOW)


def headline(title: str, link: str = "https://example.org/a", source: str = "Wire") -> Headline:
    return Headline(NOW - pd.Timedelta(hours=5), title, source, link)


@dataclass(frozen=True)
class Told:
    """Runs and changes of champion as a tracking store tells them."""

    runs: Sequence[Run] = ()
    made: Sequence[Change] = ()
    asked: list[str] = field(default_factory=list)

    def newest(self, pair: Pair | None, horizon: Horizon, last: int) -> Sequence[Run]:
        self.asked.append(str(horizon))
        found = [run for run in self.runs if run.horizon == str(horizon)]
        return [run for run in found if pair is None or run.pair == str(pair)][:last]

    def changes(self, last: int) -> Sequence[Change]:
        return self.made[:last]


def run(number: int, horizon: Horizon = HORIZONS[0], **own: Any) -> Run:
    scores = {
        "rmse": 9.5 + number / 10,
        "mae": 7.0,
        "mape": 0.8 + number / 100,
        "rmse_ratio_rw": 0.97 + number / 1000,
    }
    models = {
        name: SimpleNamespace(
            rmse=9.0 + k + number / 10, mape=0.8, weight=None if name == "ensemble" else 0.2
        )
        for k, name in enumerate(("ensemble", *MEMBERS))
    }
    values = {
        "id": f"{number:08x}{horizon.days:024x}",
        "name": f"forecast_{number}",
        "status": "FINISHED",
        "started": datetime(2026, 11, 27, 12, 0, tzinfo=UTC) - timedelta(days=number),
        "pair": "USDCLP",
        "horizon": str(horizon),
        "environment": "production",
        "origin": (LAST - timedelta(days=number)).isoformat(),
        "scores": scores,
        "published_version": 40 - number,
        "version": 40 - number,
        "aliases": ("champion",) if number == 0 else (),
        "error": None,
        "tags": {},
        "window": f"260 origins known at {LAST - timedelta(days=number)}",
        "models": models,
        "single_params": {
            "settings.engine.weight_rate": "120.0" if number else "60.0",
            "num_news": str(number),
        },
    }
    return SimpleNamespace(**(values | own))


def change(**own: Any) -> Change:
    values = {
        "run_id": "c" * 32,
        "at": datetime(2026, 8, 20, 15, 30, tzinfo=UTC),
        "action": "rollback",
        "model": "usdclp-7d",
        "from_version": 200,
        "to_version": 100,
        "by": "ana@treasury",
        "reason": "bands too narrow after the election",
        "status": "FINISHED",
    }
    return SimpleNamespace(**(values | own))


def told() -> TrackedRuns:
    return Told([run(n, horizon) for horizon in HORIZONS for n in range(4)], [change()])


def findings(
    browser: Browser, address: str, width: int = 1280, scheme: Any = "light"
) -> list[tuple[str, str]]:
    """What axe finds in a page: the rule, and the first element that breaks it."""
    from axe_playwright_python.sync_playwright import Axe

    # axe is a script of its own, which the page's policy would refuse.
    page = browser.new_context(
        bypass_csp=True, viewport={"width": width, "height": 900}, color_scheme=scheme
    ).new_page()
    page.goto(address)
    page.wait_for_function("document.readyState === 'complete'")
    found = Axe().run(page).response["violations"]
    page.context.close()
    return [(one["id"], one["nodes"][0]["html"]) for one in found]


@dataclass(frozen=True)
class Outside:
    """Somebody else's server, and what somebody has put into a page to reach it and to do as he likes."""

    server: socket.socket

    @property
    def image(self) -> str:
        return f"http://127.0.0.1:{self.server.getsockname()[1]}/image.png"

    @property
    def markup(self) -> str:
        return (
            "<script>window.done = 'script'</script>"
            """<img src="nowhere.png" onerror="window.done = 'onerror'">"""
            """<button id="injected" onclick="window.done = 'onclick'">Here</button>"""
            '<p id="painted" style="color: rgb(1, 2, 3)">There</p>'
            "<style>h1 { color: rgb(1, 2, 3) }</style>"
            f'<img src="{self.image}">'
        )

    def assert_refused(self, page: Page, address: str) -> None:
        """The browser refuses every bit of it, and the page's own script works."""
        page.add_init_script(
            "window.refused = []; document.addEventListener('securitypolicyviolation',"
            " (one) => window.refused.push([one.effectiveDirective, one.blockedURI]))"
        )
        page.goto(address)
        page.click("#injected")
        page.wait_for_function("window.refused.length >= 7")
        refused = {(directive, address) for directive, address in page.evaluate("window.refused")}
        inline = {"script-src-elem", "script-src-attr", "style-src-elem", "style-src-attr"}
        assert {("img-src", self.image), *((one, "inline") for one in inline)} <= refused
        assert len(page.evaluate("window.refused")) == 7, "a script, two handlers, two styles, two images"
        assert page.evaluate("window.done") is None
        for painted in ("#painted", "h1"):
            colour = page.locator(painted).evaluate("(one) => getComputedStyle(one).color")
            assert colour != "rgb(1, 2, 3)"
        with pytest.raises(BlockingIOError):
            self.server.accept()
        assert page.locator("#theme").is_visible()


@contextmanager
def outside() -> Iterator[Outside]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield Outside(server)
