"""`forex dashboard` as a user runs it: tables, pages, and the server with its token."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from forex_core.config import load_settings
from forex_core.ledger import Ledger
from forex_core.tracking import tracker_from_settings
from tests.dashboards import LAST
from tests.ledgers import entry as published
from tests.ports import free_port

Forex = Callable[..., "subprocess.CompletedProcess[str]"]


def logged(horizon: str = "7d", **scores: float) -> str:
    """Id of a run in the store of the settings."""
    tags = {"pair": "USDCLP", "horizon": horizon, "environment": "production"}
    with tracker_from_settings(
        load_settings(), f"forecaster_{horizon}", run_name="a_run", tags=tags
    ) as tracker:
        tracker.log_metrics({f"{horizon}_{name}": value for name, value in scores.items()})
        return str(tracker.run_id)


class TestTables:
    def test_without_a_store_there_are_no_runs_yet(self, entry: Forex, tmp_path: Path) -> None:
        done = entry("dashboard")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [f"{h}: no runs yet" for h in ("7d", "15d", "30d", "90d")]
        assert not (tmp_path / "data").exists(), "who looks makes nothing"

    def test_in_an_empty_store_there_are_none_either(self, entry: Forex, sqlite_store: str) -> None:
        done = entry("dashboard", "--json")
        document = json.loads(done.stdout)
        assert done.returncode == 0
        assert document["horizons"] == {"7d": [], "15d": [], "30d": [], "90d": []}
        assert document["untold"] is None

    def test_each_horizon_has_its_own_scores(self, entry: Forex, sqlite_store: str) -> None:
        week = logged("7d", rmse=12.448, mape=0.91, rmse_ratio_rw=0.9512)
        logged("7d", rmse=13.0, mape=1.0, rmse_ratio_rw=1.1)
        month = logged("30d", rmse=31.5, mape=2.75, rmse_ratio_rw=0.98)
        done = entry("dashboard", "--last", "5")
        (row,) = [line for line in done.stdout.splitlines() if line.startswith(week[:8])]
        assert re.fullmatch(
            rf"{week[:8]} \d{{4}}-\d\d-\d\d \d\d:\d\d USDCLP 12\.45   0\.91   0\.951 –     production",
            row.rstrip(),
        )
        assert max(map(len, done.stdout.splitlines())) <= 80
        (row,) = [line for line in done.stdout.splitlines() if line.startswith(month[:8])]
        assert " 31.50 " in row
        assert "15d: no runs yet" in done.stdout
        alone = json.loads(entry("dashboard", "--last", "1", "--json").stdout)
        assert [len(rows) for rows in alone["horizons"].values()] == [1, 0, 1, 0]
        assert json.loads(entry("dashboard", "--pair", "EURUSD", "--json").stdout)["horizons"]["7d"] == []

    def test_a_run_that_failed_says_why(self, entry: Forex, sqlite_store: str) -> None:
        with (
            pytest.raises(ValueError, match="no data"),
            tracker_from_settings(load_settings(), "forecaster_7d", tags={"horizon": "7d"}),
        ):
            raise ValueError("no data for \x1b[31mtoday")
        said = entry("dashboard").stdout
        assert "failed: ValueError: no data for" in said
        assert "\x1b" not in said

    def test_the_champion_is_marked(self, entry: Forex, sqlite_store: str) -> None:
        from mlflow import MlflowClient

        run_id = logged("7d", rmse=1.0)
        client = MlflowClient(sqlite_store)
        client.create_registered_model("usdclp-7d")
        client.create_model_version("usdclp-7d", "file:///nowhere", run_id)
        client.set_registered_model_alias("usdclp-7d", "champion", "1")
        said = entry("dashboard").stdout
        assert " v1* " in said
        assert "* champion" in said

    def test_with_tracking_off_it_says_so(self, entry: Forex, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FOREX_TRACKING__ENABLED", "false")
        done = entry("dashboard")
        assert done.returncode == 0
        assert "Tracking is off" in done.stdout


class TestPages:
    def test_are_written_where_they_are_wanted_and_again(self, entry: Forex, tmp_path: Path) -> None:
        settings = load_settings()
        Ledger(settings.store_url).append(published(LAST))
        done = entry("dashboard", "--html", "site", "--json")
        document = json.loads(done.stdout)
        assert Path(document["index"]).read_text().startswith("<!DOCTYPE html>")
        assert document["pages"] == 5
        (tmp_path / "site" / "mine.txt").write_text("mine")
        said = entry("dashboard", "--html", "site").stdout
        assert said.startswith("5 pages, 0.")
        assert (tmp_path / "site" / "mine.txt").read_text() == "mine"
        assert not list((tmp_path / "site").glob("*.unfinished"))

    def test_pages_that_there_are_no_more_go(self, entry: Forex, tmp_path: Path) -> None:
        Ledger(load_settings().store_url).append(published(LAST))
        entry("dashboard", "--html", "site")
        assert (tmp_path / "site" / "usdclp-7d.html").is_file()
        (tmp_path / "data" / "store" / "forex.db").rename(tmp_path / "elsewhere.db")
        entry("dashboard", "--html", "site")
        assert {file.name for file in (tmp_path / "site").glob("*.html")} == {
            "index.html",
            "health.html",
            "runs.html",
        }

    def test_a_folder_of_others_is_left_alone(self, entry: Forex, tmp_path: Path) -> None:
        (tmp_path / "letters").mkdir()
        (tmp_path / "letters" / "index.html").write_text("mine")
        done = entry("dashboard", "--html", "letters")
        assert done.returncode == 2
        assert "letters has files and no dashboard; name an empty folder" in done.stderr
        assert (tmp_path / "letters" / "index.html").read_text() == "mine"
        (tmp_path / "file").write_text("")
        assert "cannot be written" in entry("dashboard", "--html", "file").stderr


@contextmanager
def serving(
    folder: Path, *arguments: str, errors: str = "", **environment: str
) -> Iterator[tuple[list[str], psutil.Process]]:
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "forex"), "dashboard", "--serve", "--port", str(port), *arguments],
        cwd=folder,
        env=kept | {"PYTHONUNBUFFERED": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = [process.stdout.readline().strip()]
        assert said[0] == f"http://127.0.0.1:{port}", process.communicate(timeout=60)
        while not said[-1].startswith("Interrupt"):
            said.append(process.stdout.readline().strip())
        yield said, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        ended = process.communicate(timeout=60)
    assert ended == ("", errors), "no request leaves a line"


def status_of(address: str, **headers: str) -> int:
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


class TestServer:
    def test_serves_on_loopback_until_it_is_ended(self, tmp_path: Path) -> None:
        with serving(tmp_path) as ((address, _), process):
            assert status_of(address) == status_of(f"{address}/api/health") == 200
            listening = [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
            assert listening == ["127.0.0.1"]
            assert not (tmp_path / "data").exists()

    def test_beyond_this_machine_it_serves_where_it_is_told_to_and_says_who_can_read(
        self, entry: Forex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        warning = "Everybody who can reach 0.0.0.0 can read these pages; --token asks them for a token."
        with serving(tmp_path, "--host", "0.0.0.0", errors=f"{warning}\n") as ((address, _), process):
            listening = [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
            assert listening == ["0.0.0.0"]
            assert status_of(f"{address}/api/health") == 200
        with socket.create_server(("0.0.0.0", 0)) as taken:
            asked = ("dashboard", "--serve", "--host", "0.0.0.0", "--port", str(taken.getsockname()[1]))
            assert warning in entry(*asked).stderr
            assert "Everybody" not in entry(*asked, "--token").stderr
            monkeypatch.setenv("FOREX_DASHBOARD__TOKEN", "chosen-by-the-user-1f")
            assert "Everybody" not in entry(*asked).stderr

    def test_while_it_is_idle_nobody_restores_over_its_folder(self, entry: Forex, tmp_path: Path) -> None:
        report = tmp_path / "data" / "reports" / "report.html"
        report.parent.mkdir(parents=True)
        report.write_text("<html>")
        assert entry("backup", "create").returncode == 0
        with serving(tmp_path) as (_, process):
            done = entry("backup", "restore", "latest")
            said = " ".join(done.stderr.split())
            assert (done.returncode, done.stdout) == (2, "")
            assert f"is in use by a process: {process.pid} (" in said
            assert "dashboard --serve" in said
        assert entry("backup", "restore", "latest").returncode == 0

    def test_a_token_is_made_and_printed_once(self, tmp_path: Path) -> None:
        with serving(tmp_path, "--token") as ((address, told, _), process):
            token = told.removeprefix("Token: ")
            assert len(token) >= 32
            assert token not in " ".join(process.cmdline())
            assert status_of(f"{address}/api/health") == 401
            assert status_of(f"{address}/api/health", Authorization=f"Bearer {token}") == 200

    def test_a_token_of_the_settings_is_asked_for_and_never_told(self, tmp_path: Path) -> None:
        token = "chosen-by-the-user-1f"
        with serving(tmp_path, FOREX_DASHBOARD__TOKEN=token) as (said, _):
            assert token not in " ".join(said)
            assert status_of(f"{said[0]}/api/health") == 401
            assert status_of(f"{said[0]}/api/health", Authorization=f"Bearer {token}") == 200

    def test_a_token_that_can_be_guessed_is_refused(
        self, entry: Forex, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FOREX_DASHBOARD__TOKEN", "short-2f")
        done = entry("dashboard")
        assert done.returncode == 2
        told = " ".join(done.stderr.split())
        assert (
            "setting 'dashboard.token': found a value that is not shown; it has 8 characters, expected 16"
            in told
        )
        assert "'openssl rand -hex 24'" in told
        assert "short-2f" not in told

    def test_a_port_that_is_taken_is_said(self, entry: Forex) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            done = entry("dashboard", "--serve", "--port", str(taken.getsockname()[1]))
        assert done.returncode == 2
        assert "cannot be listened on" in done.stderr
        assert "name another with --port" in done.stderr
        assert "Everybody" not in done.stderr
        elsewhere = entry("dashboard", "--serve", "--host", "192.0.2.1")  # of documentation, nobody's
        assert elsewhere.returncode == 2
        assert "name an address of this machine with --host" in elsewhere.stderr

    def test_what_does_not_go_together_is_said(self, entry: Forex) -> None:
        done = entry("dashboard", "--serve", "--json")
        assert done.returncode == 2
        assert "--serve goes with neither --html nor --json" in done.stderr
