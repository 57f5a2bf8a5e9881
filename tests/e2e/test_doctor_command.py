"""`forex doctor`, installed and run: its lines, its exit code, its time, and a champion that loses its files."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.health import CHECKS as OF_PREFECT
from forex_core.config import EngineConfig
from forex_core.doctor import CHECKS, LEAST_S, LIMIT_S

if TYPE_CHECKING:
    from tests.conftest import Webhook

Forex = Callable[..., "subprocess.CompletedProcess[str]"]
NAMES = [check.name for check in (*CHECKS, *OF_PREFECT)]
ROOT = Path(__file__).parents[2]


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_new_machine_passes_in_time(forex: Forex, tmp_path: Path) -> None:
    before = processor_s()
    done = forex("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    # Of the processor, since how long a test machine makes it wait is no matter of ours.
    assert processor_s() - before < LIMIT_S
    *lines, last = [line for line in done.stdout.splitlines() if not line.lstrip().startswith("→")]
    assert [re.split(r"\s{2,}", line[9:])[0] for line in lines] == NAMES
    assert re.fullmatch(r"\d+ ok, \d+ with a warning, 0 failed, \d+ skipped, in \d+\.\d s", last)
    assert not (tmp_path / "data").exists()


def test_settings_that_cannot_be_read_are_said_and_nothing_else_is_tried(
    entry: Forex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREX_DATA_DIRECTORY", "/srv")
    done = entry("doctor", "--json")
    assert done.returncode == 1
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert list(found) == NAMES
    assert found["settings"]["state"] == "failed"
    assert "did you mean FOREX_DATA_DIR?" in found["settings"]["found"]
    assert {check["state"] for name, check in found.items() if name != "settings"} == {"skipped"}


def test_what_is_wrong_is_told_without_prefect(
    entry: Forex, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To nobody where all is well; and that it reached nobody is an error. Of the first check alone, on any machine."""
    monkeypatch.setenv("FOREX_NOTIFY__URLS", f"json://127.0.0.1:{webhook.port}/")
    monkeypatch.setenv("FOREX_NOTIFY__ATTEMPTS", "1")
    monkeypatch.setattr("forex_core.doctor.CHECKS", CHECKS[:1])
    monkeypatch.setattr("flows.health.CHECKS", ())
    assert entry("doctor", "--tell").returncode == 0
    assert webhook.received == []
    monkeypatch.setenv("FOREX_PATHS", "nowhere.csv")
    assert entry("doctor").returncode == 1
    assert webhook.received == []
    assert entry("doctor", "--tell").returncode == 1
    ((_, body, _),) = webhook.received
    assert body["type"] == "failure"
    assert "failed settings: there is no file nowhere.csv (paths) → put it there" in body["message"]
    webhook.answers = [500]
    done = entry("doctor", "--tell")
    assert done.returncode == 1
    assert "what is wrong reached nobody: target 1" in " ".join(done.stderr.split())
    monkeypatch.delenv("FOREX_NOTIFY__URLS")
    done = entry("doctor", "--tell")
    assert done.returncode == 2
    assert "FOREX_NOTIFY__URLS" in done.stderr


@pytest.mark.slow
def test_servers_that_never_answer_do_not_keep_it_on_a_busy_machine(forex: Forex, sqlite_store: str) -> None:
    """Tracking store and Prefect; then the bucket of the archives."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 2)]
    try:
        with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
            address = f"http://127.0.0.1:{silent.getsockname()[1]}"
            done = forex("doctor", "--json", FOREX_TRACKING_URI=address, PREFECT_API_URL=f"{address}/api")
            bucket = {
                "FOREX_BACKUP__TO": "s3://bucket/archives",
                "FOREX_BACKUP__S3_ENDPOINT_URL": address,
                "FOREX_BACKUP__S3_ACCESS_KEY_ID": "me",
                "FOREX_BACKUP__S3_SECRET_ACCESS_KEY": "hidden",
            }
            without = forex("doctor", "--json", **bucket)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    for one, expected in ((done, {"tracking store", "Prefect"}), (without, {"backups"})):
        assert one.returncode == 1
        document = json.loads(one.stdout)
        states = {check["name"]: check["state"] for check in document["checks"]}
        assert {name for name, state in states.items() if state == "failed"} == expected
        assert (states["run files"] == "skipped") == ("tracking store" in expected)
        assert all(check["seconds"] <= LIMIT_S + 1 for check in document["checks"])
        # Less than 15 but for a machine that is busier still, where the imports alone take longer than what they leave.
        assert document["seconds"] < LIMIT_S + LEAST_S


@pytest.mark.timeout(280)
def test_a_forecast_is_well_until_its_champion_loses_its_files(
    forex: Forex, prefect_server: None, tmp_path: Path
) -> None:
    members = ("random_walk", "theta", "drivers")
    light = EngineConfig(members=members, grid_origins=60, warmup_origins=8)
    own = {"FOREX_ENGINE": light.model_dump_json(), "PREFECT_API_URL": os.environ["PREFECT_API_URL"]}
    assert forex("forecast", "7d", **own).returncode == 0
    done = forex("doctor", "--json", **own)
    assert done.returncode == 0, done.stdout
    document = json.loads(done.stdout)
    found = {check["name"]: check for check in document["checks"]}
    assert document["summary"]["failed"] == 0
    assert found["run files"]["found"] == "1 published runs and 1 champions have theirs"
    assert found["forecasts"]["found"].startswith("USDMXN: 7d ")
    assert "answers, Prefect" in found["Prefect"]["found"]

    (model,) = (tmp_path / "data" / "mlflow" / "mlruns").glob("forecaster_7d/models/*")
    shutil.rmtree(model)
    done = forex("doctor", "--json", **own)
    assert done.returncode == 1
    lost = next(check for check in json.loads(done.stdout)["checks"] if check["name"] == "run files")
    assert lost["state"] == "failed"
    assert "usdmxn-7d" in lost["found"]
    assert "docs/operations.md" in lost["todo"]


def test_every_check_is_documented() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `([a-zA-Z ]+)` \|", page, re.MULTILINE)
    assert [name for name in told if name in NAMES] == NAMES
