"""`forex ui`: MLflow's pages of a store that is written meanwhile, and that they cannot write."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from forex_core.config import load_settings
from forex_core.tracking import tracker_from_settings
from forex_core.tracking.store import release
from forex_core.tracking.ui import _read_only
from tests.ports import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Forex = Callable[..., "subprocess.CompletedProcess[str]"]
REPORT = "<!doctype html><title>Report</title><h1>USD/CLP in 7 days</h1>"
MEMORY_MB = 405
"""What `mlflow server` takes with one worker and without jobs."""


def logged_run(folder: Path, name: str) -> str:
    """Id of a run with a report, in the store of the settings."""
    report = folder / "report.html"
    report.write_text(REPORT)
    with tracker_from_settings(load_settings(), "forecaster_7d", run_name=name) as tracker:
        tracker.log_metrics({"7d_rmse": 12.5})
        tracker.log_artifact(report, "reports")
        assert tracker.run_id
        return tracker.run_id


class Pages:
    def __init__(self, address: str, process: subprocess.Popen[str]) -> None:
        self.address = address
        self.process = process

    def ask(
        self, path: str, method: str = "GET", body: Any = None, auth: str | None = None
    ) -> tuple[int, bytes]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if auth is not None:
            headers["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def runs(self) -> set[str]:
        status, found = self.ask("/ajax-api/2.0/mlflow/runs/search", "POST", {"experiment_ids": ["1"]})
        assert status == http.client.OK, found
        return {run["info"]["run_name"] for run in json.loads(found).get("runs", [])}


@contextmanager
def pages(
    folder: Path,
    command: Sequence[str] = ("forex", "ui"),
    environment: Mapping[str, str] | None = None,
    warned: str = "",
) -> Iterator[Pages]:
    port = free_port()
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("PREFECT_", "_MLFLOW_"))}
    program, *arguments = command
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / program), *arguments, "--port", str(port)],
        cwd=folder,
        env=kept | {"PYTHONUNBUFFERED": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said, process.communicate(timeout=60)
        assert said.startswith("http://")
        assert f":{port}/#/experiments" in said
        yield Pages(f"http://127.0.0.1:{port}", process)
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert errors == warned


@pytest.fixture
def folder(tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder whose name has what an address would write otherwise."""
    data = tmp_path / "data of 100% USD"
    (data / "mlflow").mkdir(parents=True)
    (data / "mlflow" / "mlflow.db").write_bytes(migrated_sqlite.read_bytes())
    monkeypatch.setenv("FOREX_DATA_DIR", str(data))
    yield data
    release(load_settings().mlflow_uri)


def contents(folder: Path) -> dict[str, str]:
    """Every file but the index of the write-ahead log, which readers share."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith("-shm")
    }


@pytest.mark.slow
def test_pages_show_a_run_and_its_report_and_write_nothing(folder: Path, tmp_path: Path) -> None:
    """Nor where they were started, which the units may not write."""
    run_id = logged_run(tmp_path, "first")
    beside = sorted(tmp_path.iterdir())
    with pages(tmp_path) as shown:
        assert shown.ask("/health") == (200, b"OK")
        assert b"<title>MLflow</title>" in shown.ask("/")[1]
        assert shown.runs() == {"first"}
        report = f"/get-artifact?path=reports/report.html&run_uuid={run_id}"
        assert shown.ask(report) == (200, REPORT.encode())

        before = contents(folder)
        api, path = "/api/2.0/mlflow", f"path=x.txt&run_uuid={run_id}"
        for asked in (
            ("POST", f"{api}/runs/create", {"experiment_id": "1"}),
            ("POST", f"{api}/runs/update", {"run_id": run_id, "status": "FAILED"}),
            ("POST", f"{api}/runs/delete", {"run_id": run_id}),
            ("POST", f"{api}/experiments/create", {"name": "mine"}),
            ("POST", f"/ajax-api/2.0/mlflow/upload-artifact?{path}", b"spoiled"),
            ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/x.txt", b"spoiled"),
            ("PATCH", f"{api}/registered-models/update", {"name": "usdclp-7d"}),
            ("DELETE", f"{api}/registered-models/delete", {"name": "usdclp-7d"}),
        ):
            status, said = shown.ask(asked[1], asked[0], asked[2])
            assert status == 403, asked
            assert b"these pages only read" in said
        assert contents(folder) == before

        logged_run(tmp_path, "second")
        assert shown.runs() == {"first", "second"}, "what is written meanwhile is shown"
        _is_small_and_local(shown, folder)
        assert sorted(tmp_path.iterdir()) == beside
    assert shown.process.returncode in (0, -signal.SIGTERM)


@pytest.mark.slow
def test_who_does_not_know_the_password_sees_nothing(folder: Path, tmp_path: Path) -> None:
    run_id = logged_run(tmp_path, "first")
    report = f"/get-artifact?path=reports/report.html&run_uuid={run_id}"
    search = ("/ajax-api/2.0/mlflow/runs/search", "POST", {"experiment_ids": ["1"]})
    with pages(tmp_path, environment={"FOREX_TRACKING__UI_AUTH": "desk:pass:wörd"}) as shown:
        for auth in (None, "desk:", "desk:pass", "other:pass:wörd", ""):
            for asked in (("/",), (report,), search):
                status, said = shown.ask(*asked, auth=auth)
                assert status == 401, (asked, auth)
                assert REPORT.encode() not in said
        assert shown.ask(report, auth="desk:pass:wörd") == (200, REPORT.encode())
        assert shown.ask(*search, auth="desk:pass:wörd")[0] == 200
        assert shown.ask("/health") == (200, b"OK")


def test_a_password_without_a_user_is_refused(entry: Forex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREX_TRACKING__UI_AUTH", "hidden-3c")
    done = entry("ui")
    assert done.returncode == 2
    assert "'tracking.ui_auth': found a value that is not shown" in done.stderr
    assert "expected user:password" in done.stderr
    assert "hidden-3c" not in done.stderr


@pytest.mark.slow
def test_the_container_of_the_pages_finds_the_reports_of_the_worker(
    compose_services: Callable[..., dict[str, Any]],
    tmp_path: Path,
    migrated_sqlite: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its command and environment, with `data/` where the worker's container and a command outside have it as well."""
    data = tmp_path / "a disk" / "forex data"
    services = compose_services(FOREX_DATA_DIR=f"'{data}'")
    worker, shown = services["worker"], services["mlflow"]
    for service in (worker, shown):
        assert service["environment"]["FOREX_DATA_DIR"] == str(data)
        assert service["volumes"] == [f"{data}:{data}:rw"]
    (data / "mlflow").mkdir(parents=True)
    (data / "mlflow" / "mlflow.db").write_bytes(migrated_sqlite.read_bytes())
    monkeypatch.setenv("FOREX_DATA_DIR", worker["environment"]["FOREX_DATA_DIR"])
    run_id = logged_run(tmp_path, "of the worker")
    release(load_settings().mlflow_uri)
    warned = (
        "Everybody who can reach 0.0.0.0 can read these pages; FOREX_TRACKING__UI_AUTH asks for a password.\n"
    )
    with pages(tmp_path, shown["command"], shown["environment"], warned) as found:
        report = f"/get-artifact?path=reports/report.html&run_uuid={run_id}"
        assert found.ask(report) == (200, REPORT.encode())
        process = psutil.Process(found.process.pid)
        listening = [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
        assert listening == ["0.0.0.0"], "of the container's own network; outside it is published on loopback"


def _is_small_and_local(shown: Pages, folder: Path) -> None:
    process = psutil.Process(shown.process.pid)
    assert process.children(recursive=True) == [], "neither workers nor jobs"
    assert process.memory_info().rss / 1e6 < MEMORY_MB
    listening = [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]
    held = [file for file in process.open_files() if file.path == str(folder / "mlflow" / "mlflow.db")]
    assert held
    assert {file.mode for file in held} == {"r"}, "the database itself could not be written either"


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_of_the_printed_address_lists_the_runs(
    folder: Path, tmp_path: Path, chromium: Browser
) -> None:
    logged_run(tmp_path, "shown_run")
    with pages(tmp_path) as shown:
        page = chromium.new_page()
        page.goto(f"{shown.address}/#/experiments/1/runs?workflowType=machine_learning")
        page.get_by_text("shown_run").first.wait_for(timeout=60_000)
        page.close()


def test_without_a_store_it_says_what_makes_one(entry: Forex) -> None:
    done = entry("ui")
    assert done.returncode == 1
    assert "the first forecast makes it" in done.stderr


def test_of_a_server_it_names_the_pages(entry: Forex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREX_TRACKING_URI", "http://me:hidden-2f@127.0.0.1:5999")
    done = entry("ui")
    assert done.returncode == 2
    assert "its pages are at http://me:***@127.0.0.1:5999" in done.stderr


def test_a_port_that_is_taken_is_said(entry: Forex, sqlite_store: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = entry("ui", "--port", str(port))
    assert done.returncode == 2
    assert f"127.0.0.1 port {port} cannot be listened on" in done.stderr
    assert "Everybody" not in done.stderr


def test_whom_everybody_can_reach_is_told_so(
    entry: Forex, sqlite_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        asked = ("ui", "--host", "0.0.0.0", "--port", str(taken.getsockname()[1]))
        assert "Everybody who can reach 0.0.0.0 can read these pages" in entry(*asked).stderr
        monkeypatch.setenv("FOREX_TRACKING__UI_AUTH", "desk:password")
        assert "Everybody" not in entry(*asked).stderr


@pytest.mark.slow
def test_postgresql_is_read_in_transactions_that_cannot_write(
    postgres_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlalchemy as sa

    monkeypatch.setenv("FOREX_TRACKING_URI", postgres_store)
    logged_run(tmp_path, "there")
    with pages(tmp_path) as shown:
        assert "there" in shown.runs()
    engine = sa.create_engine(_read_only(postgres_store))
    with engine.connect() as connection, pytest.raises(sa.exc.InternalError, match="read-only transaction"):
        connection.exec_driver_sql("DELETE FROM runs")
    engine.dispose()
