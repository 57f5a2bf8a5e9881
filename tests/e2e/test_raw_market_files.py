"""The raw USD/CLP files with their bad prints, from the command line and through the whole engine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forex_core.config import ChronosConfig, EngineConfig
from forex_core.data.bundle import load_bundle
from forex_core.data.providers.csv_files import CsvProvider
from forex_core.engine import Engine, build_members
from forex_core.types import HORIZONS, ForecastRun, Horizon, Pair

pytestmark = [pytest.mark.shared_data, pytest.mark.slow]

Forex = Callable[..., "subprocess.CompletedProcess[str]"]

USDCLP = Pair("USD", "CLP")
BAD_PRINTS = (date(2014, 4, 10), date(2016, 12, 22))


def read(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def files(shared_data: Path) -> list[str]:
    names = ("usdclp_market_daily.csv", "policy_rates_daily.csv")
    return [
        "--source",
        "csv",
        "--pair",
        "USDCLP",
        *(a for n in names for a in ("--path", str(shared_data / n))),
    ]


@pytest.mark.timeout(900)
def test_every_horizon_on_the_raw_files(files: list[str], forex: Forex, served: dict[str, str]) -> None:
    for horizon in HORIZONS:
        document = read(forex("forecast", str(horizon), *files, "--json", **served))
        report = Path(document["report"]).read_text(encoding="utf-8")
        assert "10 Apr 2014" in report
        assert "22 Dec 2016" in report
        assert {r["day"] for r in document["repairs"] if r["kind"] == "refuted"} >= {
            d.isoformat() for d in BAD_PRINTS
        }
        close = document["origin_close"]
        assert all(abs(v / close - 1) < 0.05 for v in document["quantiles"]["0.5"])
        assert 0.7 < document["models"]["ensemble"]["coverage_80"] < 0.9


@pytest.mark.usefixtures("sqlite_store")  # which need not be made first
@pytest.mark.parametrize("day", BAD_PRINTS, ids=str)
def test_a_forecast_on_the_day_of_a_bad_print_is_sane(
    day: date, files: list[str], forex: Forex, served: dict[str, str]
) -> None:
    document = read(forex("forecast", "7d", *files, "--as-of", day.isoformat(), "--json", **served))
    assert document["origin"] == day.isoformat()
    assert 500 < document["origin_close"] < 700
    for level, values in document["quantiles"].items():
        assert all(abs(v / document["origin_close"] - 1) < 0.12 for v in values), level
    assert any(r["kind"] == "held" and r["day"] == day.isoformat() for r in document["repairs"])


@pytest.mark.parametrize("change", ["multiplied by 10", "deleted"])
def test_no_later_row_of_the_raw_file_moves_a_forecast_by_a_bit(
    change: str, shared_data: Path, tmp_path: Path
) -> None:
    """From the raw file through provider, gate, features, members, ensemble and calibration."""
    day = date(2019, 11, 12)
    paths = [shared_data / "usdclp_market_daily.csv", shared_data / "policy_rates_daily.csv"]
    altered = []
    for path in paths:
        table = pd.read_csv(path)
        later = pd.to_datetime(table.iloc[:, 0]) > pd.Timestamp(day)
        if change == "deleted":
            table = table[~later]
        else:
            table.loc[later, table.columns[1:]] *= 10
        altered.append(tmp_path / path.name)
        table.to_csv(altered[-1], index=False)
    published, again = (_forecast(provider, day) for provider in (CsvProvider(paths), CsvProvider(altered)))
    assert published.fingerprint == again.fingerprint
    np.testing.assert_array_equal(published.forecast.quantiles, again.forecast.quantiles)
    assert published.weights == again.weights
    assert published.evaluation == again.evaluation
    assert published.verdict == again.verdict


def test_prices_times_100_give_quantiles_times_100(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "usdclp_market_daily.csv"
    table = pd.read_csv(path)
    table["USDCLP"] *= 100
    table.to_csv(tmp_path / "cents.csv", index=False)
    day = date(2019, 11, 12)
    run, cents = (_forecast(CsvProvider([p]), day) for p in (path, tmp_path / "cents.csv"))
    np.testing.assert_allclose(cents.forecast.quantiles, 100 * run.forecast.quantiles, rtol=1e-6)
    for one, other in zip(run.members, cents.members, strict=True):
        np.testing.assert_allclose(other.raw, 100 * one.raw, rtol=1e-6, err_msg=one.name)


def _forecast(provider: CsvProvider, day: date) -> ForecastRun:
    config = EngineConfig(grid_origins=120)
    engine = Engine(config, build_members(config, ChronosConfig()))
    return engine.forecast(load_bundle(provider, USDCLP, day), Horizon(30))
