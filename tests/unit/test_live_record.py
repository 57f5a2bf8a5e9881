"""The live track record: every lead by itself, beside the random walk, with what overlap leaves of the origins."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forex_core.calendars import is_business_day, origin_instant
from forex_core.ledger import Ledger
from forex_core.ledger.live import at_the_end, by_lead
from forex_core.tracking.records import live_record
from forex_core.types import Horizon
from tests.ledgers import USDCLP, entry

H7 = Horizon(7)
MONDAY = date(2026, 3, 2)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Four weeks of daily forecasts of a rate that rises by one a weekday from 950."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'forex.db'}")
    days = [day.date() for day in pd.bdate_range(MONDAY, periods=27)]
    rates = {day: 950.0 + k for k, day in enumerate(days)}
    for day in days[:20]:
        if is_business_day(USDCLP, day):
            ledger.append(entry(day, close=rates[day], lean=0.001, members=("random_walk", "theta")))
    known = [origin_instant(USDCLP, day) for day in days]
    ledger.record(USDCLP, "close", days, np.array(list(rates.values())), known)
    ledger.score()
    return ledger


def test_each_lead_is_scored_by_itself(ledger: Ledger) -> None:
    track = ledger.track(USDCLP, "close", H7, members=True)
    leads = {one.step: one for one in by_lead(track)}
    assert sorted(leads) == [1, 2, 3, 4, 5]
    for step, one in leads.items():
        # A rise of one a day: the walk errs by the lead.
        assert one.rmse_walk == pytest.approx(step)
        assert one.rmse_by_model["random_walk"] == pytest.approx(step)
        assert one.rmse_by_model["theta"] == pytest.approx(one.rmse)
        closes = track.closes[track.steps == step]
        assert one.bias == pytest.approx(float((closes + step - closes * np.exp(0.001)).mean()))
        assert one.rmse_ratio_rw == pytest.approx(one.rmse / step)
        assert one.coverage_80 == 1.0


def test_members_compare_over_the_origins_that_all_of_them_have(tmp_path: Path) -> None:
    """One that was left out when the rate jumped has the lower error, and is no closer."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'forex.db'}")
    days = [day.date() for day in pd.bdate_range(MONDAY, periods=21) if is_business_day(USDCLP, day.date())]
    jumps = {days[3], days[4]}
    for day in days[:-6]:
        # Medians, from 950: theta 950.95, ets 949, a retired one 950. All comes at 951 but the jumps.
        names = [
            "random_walk",
            "theta",
            *([] if day in jumps else ["ets"]),
            *(["var"] if day < days[3] else []),
        ]
        one = entry(day, members=names)
        medians = {"random_walk": 950.0, "theta": 950.95, "ets": 949.0, "var": 950.0}
        row = np.array([medians[name] for name in names])
        ledger.append(replace(one, medians=np.tile(row, (len(one.steps), 1))))
    rates = np.array([980.0 if k and days[k - 1] in jumps else 951.0 for k in range(len(days))])
    ledger.record(USDCLP, "close", days, rates, [origin_instant(USDCLP, day) for day in days])
    ledger.score()
    first = by_lead(ledger.track(USDCLP, "close", H7, members=True))[0]
    n = len(days[:-6])
    assert first.origins_by_model == {"random_walk": n, "theta": n, "ets": n - 2, "var": 3}
    assert first.rmse_by_model["ets"] == pytest.approx(2.0)
    assert first.rmse_by_model["theta"] > 5, "it was there when the rate jumped"
    assert first.origins_in_common == n - 2
    assert first.rmse_in_common == pytest.approx({"random_walk": 1.0, "theta": 0.05, "ets": 2.0})
    assert first.closest(n - 2) == "theta"
    assert first.closest(n - 1) is None
    logged = live_record(H7, [first], first, {})
    assert (logged.metrics["ets_live_origins"], logged.metrics["theta_live_origins"]) == (n - 2, n)
    assert logged.stepped["ets_origins_by_step"] == {1: n - 2}
    assert logged.stepped["origins_by_step"] == {1: n}


def test_overlap_leaves_fewer_origins(ledger: Ledger) -> None:
    track = ledger.track(USDCLP, "close", H7)
    leads = {one.step: one for one in by_lead(track)}
    assert leads[1].origins_effective == leads[1].origins
    assert leads[5].origins_effective == 4
    end = at_the_end(track)
    assert end is not None
    assert end == leads[5]
    assert end.origins == (track.steps == 5).sum() < len(set(track.origins.tolist())), (
        "one had a holiday there"
    )


def test_without_outcomes_there_is_nothing(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'other.db'}")
    ledger.append(entry(MONDAY + timedelta(days=1)))
    track = ledger.track(USDCLP, "close", H7, members=True)
    assert (by_lead(track), at_the_end(track), len(track)) == ((), None, 0)
