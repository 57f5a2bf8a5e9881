"""What the store's bundle is made of: which prints of a day reach a row, whose value stands, how old news may be."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forex_core.config import load_settings
from forex_core.data.bundle import load_bundle
from forex_core.data.catalogue import ENTRIES, IMPORT, YAHOO, entry
from forex_core.data.loading import bundle_of, store_of
from forex_core.data.observations import Observations
from forex_core.data.providers.stored import StoredProvider
from forex_core.data.store import ObservationStore
from forex_core.types import Headline, MarketBundle, Pair

USDCLP = Pair("USD", "CLP")
DAYS = pd.bdate_range("2023-01-02", "2024-09-30")
LAST = pd.Timestamp("2024-06-13")
"""A Thursday: fifteen days later it is a Friday, whose row speaks on Monday."""
LATE = pd.Timestamp("2024-08-20 12:00", tz="UTC")


def walk(level: float, seed: int = 0) -> np.ndarray:
    return level * np.exp(np.random.default_rng(seed).normal(0, 0.004, len(DAYS)).cumsum())


@pytest.fixture
def store(tmp_path: Path) -> ObservationStore:
    return ObservationStore(f"sqlite:///{tmp_path}/forex.db")


def record(
    store: ObservationStore, name: str, days: pd.DatetimeIndex, values: np.ndarray, source: str = YAHOO
) -> None:
    known = entry(name).definition.release.instants(days)
    store.record(Observations(name, source, days, np.asarray(values, dtype=np.float64), known))


def revise(store: ObservationStore, name: str, value: float, at: pd.Timestamp) -> None:
    """The value of `LAST` is another one since an instant."""
    known = pd.DatetimeIndex([at.tz_convert("UTC")]).as_unit("us")
    seen = Observations(name, YAHOO, pd.DatetimeIndex([LAST]), np.array([value]), known, stated=True)
    store.record(seen, explicit=True)


def bundle(store: ObservationStore, *drivers: str) -> MarketBundle:
    return load_bundle(StoredProvider(store, "close", drivers), USDCLP, DAYS[-1].date())


def row(found: MarketBundle, day: pd.Timestamp) -> int:
    return int(found.dates.get_loc(day))


def test_a_close_that_was_revised_twice_is_known_to_each_row_as_it_was_then(store: ObservationStore) -> None:
    """The last close before some silent days is what their rows know, as revised by then and not as revised later."""
    silent = DAYS.isin(pd.bdate_range(LAST, periods=5)[1:])
    closes = walk(900.0)
    record(store, "usdclp_close", DAYS[~silent], closes[~silent])
    first = float(closes[DAYS.get_loc(LAST)])
    revise(store, "usdclp_close", first * 1.01, pd.Timestamp("2024-06-17 10:00", tz="America/Santiago"))
    revise(store, "usdclp_close", first * 1.02, LATE)
    found = bundle(store)
    known = [found.spot[row(found, LAST + k * pd.offsets.BDay())] for k in (0, 1, 2, 3)]
    np.testing.assert_allclose(known, [first, first, first * 1.01, first * 1.01])
    assert found.truth[row(found, LAST)] == pytest.approx(first * 1.02), "what it is scored against"


def test_a_driver_is_revised_in_the_last_row_that_may_use_it_though_that_speaks_after_a_weekend(
    store: ObservationStore,
) -> None:
    record(store, "usdclp_close", DAYS, walk(900.0))
    silent = DAYS.isin(pd.bdate_range(LAST, periods=45)[1:])
    record(store, "copper", DAYS[~silent], walk(4.0, 1)[~silent])
    first = float(walk(4.0, 1)[DAYS.get_loc(LAST)])
    revise(store, "copper", first * 1.1, pd.Timestamp("2024-07-01 06:00", tz="America/Santiago"))
    revise(store, "copper", first * 1.2, LATE)
    found = bundle(store, "copper")
    friday = row(found, LAST + pd.Timedelta(days=15))
    assert found.dates[friday].day_name() == "Friday"
    np.testing.assert_allclose(found.drivers[friday - 1 : friday + 2, 0], [first, first * 1.1, np.nan])


@pytest.mark.parametrize("name", [*ENTRIES, "usdclp_close", "usdclp_observed", "eurusd_reference", "lithium"])
def test_what_a_person_imports_comes_before_every_source(name: str) -> None:
    order = [IMPORT, *(feed.source for feed in entry(name).feeds), "nobody"]
    assert [entry(name).rank(source) for source in order] == list(range(len(order)))


def test_what_a_person_imports_stands_against_the_sources(store: ObservationStore) -> None:
    day = DAYS[:1]
    for value, source in ((900.0, YAHOO), (950.0, IMPORT), (901.0, YAHOO)):
        record(store, "usdclp_close", day, np.array([value]), source)
    found = store.values("usdclp_close", pd.Timestamp.now(tz="UTC"))
    assert (found.values.tolist(), found.sources.tolist()) == ([950.0], [IMPORT])


@pytest.mark.parametrize(("news_days", "shown"), [(0, []), (3, [2]), (9, [2, 8])])
def test_headlines_are_as_old_as_the_setting_allows(news_days: int, shown: list[int]) -> None:
    settings = load_settings(pair="USDCLP", source="store", data={"news_days": news_days, "drivers": ()})
    store, as_of = store_of(settings), pd.Timestamp("2024-09-30 12:00", tz="UTC")
    record(store, "usdclp_close", DAYS, walk(900.0))
    ages = (2, 8, 20)
    told = [
        Headline(as_of - pd.Timedelta(days=k), f"{k} days old", "Desk", f"https://example.org/{k}")
        for k in ages
    ]
    store.record_news(told, now=as_of - pd.Timedelta(days=1))
    assert [one.title for one in bundle_of(settings, date(2024, 9, 30)).news] == [
        f"{k} days old" for k in shown
    ]
