"""`forex forecast` with all that may be asked for beside a forecast, from a terminal."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from forex_core.config import EngineConfig
from forex_core.testing import synthetic_table
from tests.mailbox import Mailbox, mail

Forex = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")
def test_a_position_a_quote_a_language_and_who_is_sent_it(
    forex: Forex, served: dict[str, str], tmp_path: Path, mailbox: Mailbox
) -> None:
    table = synthetic_table(900).assign(fed_rate=5.25, chile_tpm=6.0)
    table.to_csv(tmp_path / "market.csv", index=False)
    last = pd.Timestamp(table.iloc[-1, 0])
    close = float(table["USDCLP"].iloc[-1])
    flows = tmp_path / "flows.csv"
    flows.write_text(f"date,amount\n{(last + pd.offsets.BDay(3)).date()},250000\n")
    members = ("random_walk", "theta", "drivers")
    own = {
        "FOREX_ENGINE": EngineConfig(members=members, grid_origins=60, warmup_origins=8).model_dump_json(),
        "FOREX_REPORT__URLS": mail(mailbox),
        "FOREX_NOTIFY__TIMEOUT_S": "5",
        **served,
    }
    budget, quote = round(1.004 * close, 2), round(1.002 * close, 2)
    ask = (
        *(
            "forecast",
            "7d",
            "--source",
            "csv",
            "--path",
            tmp_path / "market.csv",
            "--pair",
            "USDCLP",
            "--lang",
            "es",
        ),
        *("--as-of", last.date().isoformat()),
        *("--budget-rate", budget, "--exposure", "1000000", "--cash-flows", flows, "--quote", quote),
    )
    done = forex(*map(str, ask), "--skip-email", "--json", **own)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert mailbox.received == []
    assert document["lang"] == "es"
    assert document["treasury"]["budget_rate"] == budget
    assert document["treasury"]["exposure"]["amount"] == 1e6
    assert document["treasury"]["cash_flows"]["total"] == 250_000
    assert document["quote"]["value"] == quote
    assert document["forward"]["from_quote"]
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert '<html lang="es">' in page
    for words in ("Tipo de cambio presupuestado", "Por recibir 1.000.000 USD", "Vender USD a plazo fija"):
        assert words in page

    done = forex(*map(str, ask), "--force", **own)
    assert done.returncode == 0, done.stderr
    ((recipients, arrived),) = mailbox.received
    assert recipients == ["cfo@example.com"]
    plain = arrived.get_body(("plain",))
    assert plain is not None
    assert "Tipo de cambio presupuestado" in plain.get_content()
