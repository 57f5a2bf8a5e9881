"""`forex monitor` from a terminal: what it prints, and the exit code that a script goes by."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from forex_core.ledger import Ledger
from forex_core.testing import synthetic_table
from tests.ledgers import entry

if TYPE_CHECKING:
    from tests.conftest import Webhook

Forex = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_alarms_are_told_in_red_by_the_exit_code_and_to_whom_the_settings_name(
    forex: Forex, served: dict[str, str], tmp_path: Path, webhook: Webhook
) -> None:
    """First with nothing published, then with bands that are three times too narrow."""
    market = tmp_path / "market.csv"
    synthetic_table(900).to_csv(market, index=False)
    rates = pd.read_csv(market, parse_dates=[0], index_col=0)["USDCLP"]
    ask = ("monitor", "--source", "csv", "--path", market, "--pair", "USDCLP")
    to_be_told = served | {"FOREX_NOTIFY__URLS": f"json://127.0.0.1:{webhook.port}/"}

    quiet = forex(*ask)  # with a server of its own
    assert quiet.returncode == 0, quiet.stderr
    assert "No forecast was published in its time yet" in " ".join(quiet.stdout.split())
    assert "No alarm." in quiet.stdout

    ledger = Ledger(f"sqlite:///{tmp_path / 'data' / 'store' / 'forex.db'}")
    sigma = float(np.log(rates).diff().std())
    for day in rates.index[-150:-7]:
        if day.day_of_week < 5:
            ledger.append(entry(day.date(), close=float(rates[day]), sigma=sigma, width=0.3))
    raised = forex(*ask, "--json", **to_be_told)
    document = json.loads(raised.stdout)
    assert raised.returncode == 1
    assert any("narrow bands at step 1" in text for text in document["raised"])
    assert document["horizons"]["7d"]["end"]["coverage_80"] < 0.5
    assert document["horizons"]["7d"]["end"]["step"] == 5
    ((_, message, _),) = webhook.received
    assert all(text in message["message"] for text in document["raised"])

    told = forex(*ask, COLUMNS="140", **to_be_told)
    assert told.returncode == 0, "what was raised is not raised again"
    assert "Live track record" in told.stdout
    assert "No alarm." in told.stdout

    back = forex(*ask, "--as-of", rates.index[-1].date().isoformat(), COLUMNS="140", **to_be_told)
    assert back.returncode == 1, "by then nobody had raised it"
    assert "ALARM USDCLP 7d, narrow bands at step 1" in back.stdout
    assert len(webhook.received) == 1
