"""`forex ledger`: what was published and what came, from a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from forex_core.calendars import origin_instant
from forex_core.cli import app
from forex_core.config import load_settings
from forex_core.errors import ForexError
from forex_core.ledger import Ledger, Pending, content_digest
from forex_core.tracking import ENTRY_TAG, LEDGER_TAG, tracker_from_settings
from forex_core.types import LEVELS, Horizon, Pair
from tests.ledgers import USDCLP, entry

MONDAY = date(2026, 3, 2)
TUESDAY = MONDAY + timedelta(days=1)
Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The exit code and the output of a command; with `--json` the document that it is."""
    from forex_core.cli.app import stdout

    monkeypatch.setenv("FOREX_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(stdout, "_width", 80)

    def run(*arguments: str) -> tuple[int, Any]:
        done = CliRunner().invoke(app, ["ledger", *arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, json.loads(done.stdout) if "--json" in arguments else done.stdout

    return run


@pytest.fixture
def ledger(ask: Ask) -> Ledger:
    """Two forecasts from Monday, the second in hindsight, one of thirty days, and what came on Tuesday."""
    settings = load_settings()
    made = Ledger(settings.store_url, settings.root)
    made.append(entry(MONDAY))
    made.append(entry(MONDAY, version=2, after=pd.Timedelta(days=30)))
    made.append(entry(MONDAY, Horizon(30), lean=0.002))
    spoke = origin_instant(USDCLP, TUESDAY)
    made.record(USDCLP, "close", [TUESDAY], np.array([955.25]), [spoke], now=spoke)
    made.score()
    return made


def test_before_anything_was_published_it_says_how_to(ask: Ask, tmp_path: Path) -> None:
    assert ask("list") == (0, "No forecast has been published yet.\n")
    asked = ("list", "--pair", "EURUSD", "--horizon", "30d")
    assert ask(*asked) == (0, "No 30d EURUSD forecast has been published yet.\n")
    assert ask("verify")[0] == 0
    assert ask("date", "2026-03-03", "--pair", "USDCLP", "--json")[1]["forecasts"] == []
    assert not (tmp_path / "data" / "store").exists(), "a question makes nothing"


def test_hindsight_is_marked_wherever_a_forecast_is_listed(ask: Ask, ledger: Ledger) -> None:
    for command in (("list",), ("date", TUESDAY.isoformat(), "--pair", "USDCLP")):
        code, told = ask(*command)
        assert code == 0
        (marked,) = [line for line in told.splitlines() if "*" in line[1:]]
        assert "2026-04-02 11:00*" in marked
        assert told.splitlines()[-1].startswith("* in hindsight")
    _, document = ask("date", TUESDAY.isoformat(), "--pair", "USDCLP", "--json")
    assert [(one["horizon"], one["live"], one["rate"]) for one in document["forecasts"]] == [
        ("7d", True, "close"),
        ("7d", False, "close"),
        ("30d", True, "close"),
    ]
    assert document["outcomes"] == {"close": 955.25}
    assert "as it was forecast; it came at 955.25" in " ".join(told.split())
    _, document = ask("list", "--horizon", "30d", "--last", "1", "--json")
    assert [one["number"] for one in document["forecasts"]] == [3]


def test_nothing_is_cut_off_on_a_terminal_of_80_columns(ask: Ask, ledger: Ledger) -> None:
    """With what is long: a price of thousands, a version of years, the longest verdict, another rate."""
    long = replace(
        entry(
            TUESDAY,
            Horizon(90),
            pair=Pair("USD", "IDR"),
            close=16250.0,
            version=12345,
            after=pd.Timedelta(days=30),
        ),
        rate="reference",
        verdict="close_only",
        run_id="0123456789abcdef",
    )
    ledger.append(long)
    _, told = ask("list")
    assert "…" not in told
    assert max(map(len, told.splitlines())) <= 80
    (row,) = [line for line in told.splitlines() if line.startswith("USDIDR")]
    for shown in ("USDIDR 90d", "2026-03-03", "v12345", "close_only", "01234567 ", "16250.0"):
        assert shown in row, shown
    _, told = ask("date", "2026-03-05", "--pair", "USDIDR")
    assert "…" not in told
    assert max(map(len, told.splitlines())) <= 80
    assert "90d reference" in told
    assert "…" not in ask("show", "4")[1]


def test_a_forecast_is_shown_by_what_the_listings_print(ask: Ask, ledger: Ledger) -> None:
    def refusal(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["ledger", *arguments])
        assert isinstance(done.exception, ForexError), done.stdout
        return str(done.exception)

    ids = ["0123456789abcdef", "01234567fedcba98", "1234567890abcdef"]
    ids += ["spooled-aaaaaaaa89abcdef", "spooled-bbbbbbbb89abcdef"]
    ids += [f"untracked-forecast_20260303_110500-{end}" for end in ("cccccccc", "dddddddd")]
    for run_id in ids:
        ledger.append(entry(TUESDAY, Horizon(15), run_id=run_id))
    for asked, number in (
        (("4",), 4),
        (("0123456789AB",), 4),
        (("01234567f",), 5),
        (("12345678",), 6),
        (("latest", "--horizon", "7d", "--pair", "USDCLP"), 1),
        (("aaaaaaaa",), 7),
        (("spooled-bbbbbbbb",), 8),
        (("CCCCCCCC",), 9),
        ((ids[-1],), 10),
        (("latest", "--horizon", "15d", "--pair", "usd/clp"), 10),
    ):
        code, document = ask("show", *asked, "--json")
        assert (code, document["number"]) == (0, number), asked
    _, listed = ask("list")
    assert [row.split()[-3] for row in listed.splitlines() if " 15d " in row] == [
        *("01234567", "01234567", "12345678", "aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd")
    ]
    several = refusal("show", "01234567")
    assert (
        "begins with 01234567: 4 (run 0123456789abcdef), 5 (run 01234567fedcba98); give the number" in several
    )
    assert "found no forecast whose run begins with 99999999" in refusal("show", "99999999")
    assert "found no forecast whose run begins with ________" in refusal("show", "________")
    assert "has no forecast 123" in refusal("show", "0123")
    assert "'0123abc', expected the number of a forecast, the 8" in refusal("show", "0123abc")
    assert "found no 90d forecast of USDCLP" in refusal(
        "show", "latest", "--horizon", "90d", "--pair", "USDCLP"
    )
    assert "add --horizon 7d" in refusal("show", "latest")
    assert "found 4: leave them out" in refusal("show", "4", "--horizon", "7d")
    ledger.append(replace(entry(TUESDAY, run_id="observed"), rate="observed"))
    told = refusal("show", "latest", "--horizon", "7d", "--pair", "USDCLP")
    assert told.endswith("you mean: 1 of the close rate, 11 of the observed rate")


def test_a_path_has_what_came_beside_it(ask: Ask, ledger: Ledger) -> None:
    code, document = ask("show", "1", "--json")
    assert code == 0
    assert document["outcomes"][:2] == [955.25, None]
    assert document["quantiles"]["0.5"] == ledger.path(1).quantiles[:, LEVELS.index(0.5)].tolist()
    assert "955.25" in ask("show", "1")[1]
    with pytest.raises(AssertionError, match="no forecast 99"):
        ask("show", "99")


def published(one: Any, ledger: Ledger, digest: str | None = None) -> None:
    """As the flow does, in a run of its own."""
    settings = load_settings()
    with tracker_from_settings(settings, "forecaster_7d") as tracker:
        written = ledger.append(one)
        tracker.set_tags({ENTRY_TAG: content_digest(one), LEDGER_TAG: digest or written.digest})


def test_a_forecast_that_nobody_published_is_found(ask: Ask, ledger: Ledger) -> None:
    """A file is laid among those that wait, which says of itself that it was in time."""
    settings = load_settings()
    code, told = ask("verify")
    assert code == 1, "these were written years later, and no run speaks for them"
    assert "forecast 1: written at" in told
    for horizon in (Horizon(7), Horizon(30)):
        for version, lean in ((1, 0.0), (2, 0.0), (1, 0.002)):
            one = entry(MONDAY, horizon, version=version, lean=lean)
            with tracker_from_settings(settings, "forecaster_7d") as tracker:
                tracker.set_tags({ENTRY_TAG: content_digest(one)})
    assert ask("verify")[0] == 0
    Pending(settings.pending_dir).keep(entry(TUESDAY, lean=0.005, run_id="made-up"))
    code, document = ask("verify", "--json")
    assert (code, document["waiting"]) == (0, 1)
    Pending(settings.pending_dir).deliver(ledger)
    code, document = ask("verify", "--json")
    assert code == 1
    (fault,) = document["faults"]
    assert fault.startswith("forecast 4: written at")
    assert fault.endswith("its run is gone, or it was made up")


def test_a_ledger_that_was_made_anew_does_not_pass(ask: Ask, ledger: Ledger) -> None:
    published(entry(TUESDAY), ledger, digest="f" * 64)
    code, document = ask("verify", "--json")
    assert code == 1
    assert any(
        fault.endswith("recorded the digest ffffffffffff…, and the ledger has none like it")
        for fault in document["faults"]
    )
