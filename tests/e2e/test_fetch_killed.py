"""A fetch that is killed: whatever it was doing, the store holds what it had before and whole batches besides."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forex_core.data.store import ObservationStore
from tests.contract.bad_days import serving
from tests.contract.test_refresh import DAYS, DRIVERS, World
from tests.drills.moments import drawn
from tests.forks import Fork, Forks

KILLS = 50
_HALF = """
SELECT b.id, b.what, b.rows, count(r.batch) FROM batches b LEFT JOIN (
  SELECT batch FROM observations UNION ALL SELECT batch FROM headlines UNION ALL SELECT batch FROM events
) r ON r.batch = b.id GROUP BY b.id HAVING b.rows <> count(r.batch)"""
_ORPHANS = """
SELECT count(*) FROM (
  SELECT batch FROM observations UNION SELECT batch FROM headlines UNION SELECT batch FROM events
) WHERE batch NOT IN (SELECT id FROM batches)"""


def fetching(forks: Forks, world: World) -> Fork:
    at = world.server.url
    addresses = {
        "yahoo": at,
        "fred": f"{at}/fred",
        "mindicador": f"{at}/mindicador",
        "calendar": f"{at}/week.json",
    }
    asked = {
        "ADDRESSES": json.dumps(addresses),
        "NEWS_FEEDS": json.dumps([f"{at}/feed"]),
        "DRIVERS": json.dumps(DRIVERS),
        "HISTORY_FROM": DAYS[0],
    }
    own = {f"FOREX_DATA__{name}": value for name, value in asked.items()}
    return forks.start("data", "fetch", "--pair", "USDCLP", "--from", DAYS[0], env=os.environ | own)


def changed(world: World, chance: random.Random) -> None:
    """Every source has something new to say, so that every fetch writes of each."""
    for name, closes in world.closes.items():
        world.closes[name] = [value * (1 + 1e-4 * chance.random()) for value in closes]
    world.titles = [f"Title {chance.random()}" for _ in range(3)]


def batches(path: Path) -> int:
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        there = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'batches'").fetchone()[0]
        return int(connection.execute("SELECT count(*) FROM batches").fetchone()[0]) if there else 0


def first_write(process: Fork, path: Path) -> bool:
    """Wait until the process has written; whether it still runs then."""
    before = batches(path)
    while process.runs():
        if batches(path) > before:
            return True
        time.sleep(0.005)
    return False


def assert_whole(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute(_HALF).fetchall() == []
        assert connection.execute(_ORPHANS).fetchone() == (0,)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_fetch_that_is_killed_fifty_times_leaves_no_half_batch(forks: Forks) -> None:
    """At random moments between its first write and its exit."""
    chance = drawn()
    path = Path(os.environ["FOREX_DATA_DIR"]) / "store" / "forex.db"
    with serving() as server:
        world = World(server)
        whole = fetching(forks, world)
        assert first_write(whole, path), "the fetch ended without a write"
        began = time.monotonic()
        assert whole.ended().returncode == 0
        takes_s = time.monotonic() - began
        killed = outlived = 0
        reached: set[int] = set()
        while killed < KILLS:
            changed(world, chance)
            before = batches(path)
            process = fetching(forks, world)
            if first_write(process, path):
                began = time.monotonic()
                time.sleep(chance.uniform(0, takes_s))
                process.kill()
            if process.ended().returncode == -signal.SIGKILL:
                killed += 1
            else:
                outlived += 1
                takes_s = min(takes_s, time.monotonic() - began)
            reached.add(batches(path) - before)
            assert_whole(path)
            assert outlived <= KILLS, f"{outlived} fetches were done before they were killed"
        print(
            f"{killed} killed, {outlived} done before, after {sorted(reached)} batches, within {takes_s:.1f} s"
        )
        assert len(reached) > 2, "they were killed at different places"
        changed(world, chance)
        assert fetching(forks, world).ended().returncode == 0
    assert_whole(path)
    store, now = ObservationStore(f"sqlite:///{path}"), pd.Timestamp.now(tz="UTC")
    for name, closes in world.closes.items():
        np.testing.assert_allclose(store.values(name, now).values, closes, rtol=1e-8)
    shown = [headline.title for headline in store.news(now, now - pd.Timedelta(days=1))]
    assert set(world.titles) <= set(shown)
    assert [event.currency for event in store.events(now, now, now + pd.Timedelta(days=9))] == ["EUR", "USD"]
