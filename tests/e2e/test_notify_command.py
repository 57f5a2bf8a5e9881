"""`forex notify test`: who is told, and what the exit code says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Webhook

Forex = Callable[..., "subprocess.CompletedProcess[str]"]
TOKEN = "token-77ac01be"


def test_everybody_is_told(entry: Forex, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREX_NOTIFY__URLS", f"json://127.0.0.1:{webhook.port}/{TOKEN}")
    done = entry("notify", "test")
    assert done.returncode == 0, done.stderr
    assert "target 1 (JSON, 127.0.0.1)" in done.stdout
    assert TOKEN not in done.stdout + done.stderr
    assert webhook.received[0][1]["title"] == "Test of forex-forecast"


def test_one_that_refuses_makes_the_command_fail(
    entry: Forex, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"json://127.0.0.1:{webhook.port}"
    monkeypatch.setenv("FOREX_NOTIFY__URLS", json.dumps([f"{address}/{TOKEN}", f"{address}/other"]))
    webhook.answers = [403]
    done = entry("notify", "test", "--json", "--verbose")
    assert done.returncode == 1
    found = json.loads(done.stdout)["deliveries"]
    assert sorted(one["delivered"] for one in found) == [False, True]
    assert "1 of 2 targets refused" in done.stderr
    assert "was not delivered to target" in done.stderr, "the log"
    assert TOKEN not in done.stdout + done.stderr


def test_readers_of_reports_are_others(
    entry: Forex, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREX_REPORT__URLS", f"json://127.0.0.1:{webhook.port}/{TOKEN}")
    assert entry("notify", "test").returncode == 2
    assert webhook.received == []
    assert entry("notify", "test", "--report").returncode == 0
    assert [path for path, _, _ in webhook.received] == [f"/{TOKEN}"]
    monkeypatch.delenv("FOREX_REPORT__URLS")
    done = entry("notify", "test", "--report")
    assert done.returncode == 2
    assert "FOREX_REPORT__URLS" in done.stderr


def test_without_targets_it_says_how_to_name_one(entry: Forex) -> None:
    done = entry("notify", "test")
    assert done.returncode == 2
    assert "FOREX_NOTIFY__URLS" in done.stderr
