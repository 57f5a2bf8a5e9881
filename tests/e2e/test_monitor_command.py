"""`forex monitor` from a terminal: what it prints, and the exit code that a script goes by."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forex_core.ledger import Ledger
from forex_core.testing import synthetic_table
from tests.ledgers import entry

Forex = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_alarms_are_told_in_red_and_by_the_exit_code(forex: Forex, tmp_path: Path) -> None:
    """First with nothing published, then with bands that are three times too narrow."""
    market = tmp_path / "market.csv"
    synthetic_table(900).to_csv(market, index=False)
    rates = pd.read_csv(market, parse_dates=[0], index_col=0)["USDCLP"]
    last = rates.index[-1].date().isoformat()
    ask = ("monitor", "--source", "csv", "--path", market, "--pair", "USDCLP", "--as-of", last)

    quiet = forex(*ask)
    assert quiet.returncode == 0, quiet.stderr
    assert "No forecast was published in its time yet" in " ".join(quiet.stdout.split())
    assert "No alarm." in quiet.stdout

    ledger = Ledger(f"sqlite:///{tmp_path / 'data' / 'store' / 'forex.db'}")
    sigma = float(np.log(rates).diff().std())
    for day in rates.index[-150:-7]:
        if day.day_of_week < 5:
            ledger.append(entry(day.date(), close=float(rates[day]), sigma=sigma, width=0.3))
    raised = forex(*ask, "--json")
    document = json.loads(raised.stdout)
    assert raised.returncode == 1
    assert any("narrow bands at step 1" in text for text in document["raised"])
    assert document["horizons"]["7d"]["end"]["coverage_80"] < 0.5
    assert document["horizons"]["7d"]["end"]["step"] == 5

    told = forex(*ask, COLUMNS="140")
    assert told.returncode == 0, "what was raised is not raised again"
    assert "Live track record" in told.stdout
    assert "No alarm." in told.stdout
