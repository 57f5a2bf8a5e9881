"""Deployments on a real Prefect server and a real worker, started by the lines of the units with the sample's settings.

Each on loopback ports of its own. What takes long is marked slow.
"""

from __future__ import annotations

import base64
import configparser
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import psutil
import pytest
import requests
import yaml
from dotenv import dotenv_values

from forex_core.config import EngineConfig
from forex_core.ledger import Ledger
from forex_core.testing import synthetic_table
from forex_core.types import Horizon
from tests import ledgers
from tests.doctors import PATIENT_DOCTOR
from tests.planted import Secrets, told_in, written
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.conftest import Webhook

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deployments"
BIN = Path(sys.executable).parent
PASSWORD = "hunter2"
LIGHT = EngineConfig(members=("random_walk", "theta", "drivers"), grid_origins=60, warmup_origins=8)
OTHER = LIGHT.model_copy(update={"members": ("random_walk", "theta", "momentum")})

HORIZONS = ("7d", "15d", "30d", "90d")
FORECASTS = tuple(f"forecast-{horizon}" for horizon in HORIZONS)
BY_HAND: dict[str, dict[str, Any]] = {
    **{flow: {"force": True} for flow in FORECASTS},
    "monitor": {},
    "dashboard": {},
    "backup": {},
    "restore-drill": {},
    "alert": {"title": "a title", "text": "a text"},
}
"""Flows that the worker of the shared host runs, with parameters, each after what it needs."""
TRAINING = ("pretrain", "finetune")
"""Flows of the pool that a worker of its own serves."""
IN_SUCCESSION = ("promote", "rollback")
"""Flows that run where a model has one before it: after a forecast that failed."""
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
VPS_MEGABYTES = 1200
PAGES = ("mlflow", "dashboard")
"""Services whose unit names no port: that of their command."""


class Host:
    """One machine of a deployment: its services, and a client of its Prefect server."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.data = folder, folder / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        sample = (FILES / "env.sample").read_text(encoding="utf-8")
        own = dotenv_values(stream=io.StringIO(self._here(sample).replace("CHANGE-ME", PASSWORD)))
        self.ports = {service: free_port() for service in ("server", *PAGES)}
        self.api_url = f"http://127.0.0.1:{self.ports['server']}/api"
        own |= {
            "PREFECT_SERVER_API_PORT": str(self.ports["server"]),
            "PREFECT_API_URL": self.api_url,
        }
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("FOREX_", "PREFECT_", "MLFLOW_"))}
        self.environment = kept | {n: str(v) for n, v in own.items()} | settings
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def _here(self, text: str) -> str:
        """What is said of the place of an installation, of the one that is tested."""
        for place, here in (
            ("/srv/forex/.venv/bin", BIN),
            ("/srv/forex/data", self.data),
            ("/srv/forex", ROOT),
        ):
            text = text.replace(place, str(here))
        return text

    def command(self, service: str) -> list[str]:
        """The line with which a unit starts its service."""
        unit = configparser.RawConfigParser(strict=False)
        unit.read(FILES / "systemd" / f"forex-{service}.service", encoding="utf-8")
        line = shlex.split(self._here(unit["Service"]["ExecStart"]).replace("%l", "host"))
        return [*line, *(["--port", str(self.ports[service])] if service in PAGES else [])]

    def start(self, service: str, answering: str | None = None) -> None:
        """A service, until it answers: at its health check, or where it does instead."""
        with (self.folder / f"{service}.log").open("ab") as log:
            self._running[service] = subprocess.Popen(
                self.command(service),
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        health = {"server": "/api/health", "mlflow": "/health", "dashboard": "/api/health"}.get(service)
        if health:
            url = answering or f"http://127.0.0.1:{self.ports[service]}{health}"
            wait_for(lambda: self._answers(service, url), 120, f"{service} to answer")

    def _answers(self, service: str, url: str) -> bool:
        assert self._running[service].poll() is None, self.log(service)
        with suppress(requests.ConnectionError, requests.Timeout):
            return requests.get(url, timeout=30).ok
        return False

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text(errors="replace")

    def processes(self, service: str) -> list[psutil.Process]:
        main = psutil.Process(self._running[service].pid)
        return [main, *main.children(recursive=True)]

    def kill(self, *services: str) -> None:
        """Everything that they have started with them, at once and without a word."""
        for process in [each for service in services for each in self.processes(service)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for service in services:
            self._running.pop(service).wait()

    def stop(self, service: str) -> int:
        """As systemd stops it."""
        process = self._running.pop(service)
        process.terminate()
        return process.wait(60)

    def close(self) -> None:
        for service in list(self._running):
            with suppress(psutil.NoSuchProcess):
                self.kill(service)

    def deploy(self, **settings: str) -> subprocess.CompletedProcess[str]:
        """As it is typed in a shell, which has not read where the code is: the worker has."""
        known = {name: value for name, value in self.environment.items() if name != "FOREX_HOME"}
        return subprocess.run(
            [sys.executable, "-m", "flows.deploy"],
            cwd=ROOT,
            env=known | settings,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def deploy_file(self, folder: Path, text: str) -> subprocess.CompletedProcess[str]:
        """As `deploy`, with another file of deployments, which is written into a folder."""
        path = folder / "prefect.yaml"
        path.write_text(text, encoding="utf-8")
        code = (
            f"import flows.deploy as d, pathlib; d.DEPLOYMENTS = pathlib.Path({str(path)!r}); exit(d.main())"
        )
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def prefect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "prefect"), *arguments],
            cwd=ROOT,
            env=self.environment | {"PREFECT_CLI_COLORS": "false", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def api(self, method: str, path: str, body: Any = None) -> Any:
        for _ in range(5):
            answer = requests.request(
                method, f"{self.api_url}{path}", json=body, auth=("forex", PASSWORD), timeout=120
            )
            if answer.status_code != requests.codes.service_unavailable:  # its SQLite is busy; ask again
                break
            time.sleep(2)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def deployment(self, flow: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/deployments/name/{flow}/forex")
        return found

    def run(
        self,
        flow: str,
        parameters: dict[str, Any] | None = None,
        engine: EngineConfig | None = None,
        at: datetime | None = None,
        **settings: str,
    ) -> str:
        """Ask for a run, by hand; its id. Settings of its own are told to its process alone."""
        body: dict[str, Any] = {"parameters": parameters or {}}
        if engine:
            settings["FOREX_ENGINE"] = engine.model_dump_json()
        if settings:
            body["job_variables"] = {"env": settings}
        if at:
            details = {"scheduled_time": at.isoformat()}
            body["state"] = {"type": "SCHEDULED", "state_details": details}
        return str(
            self.api("POST", f"/deployments/{self.deployment(flow)['id']}/create_flow_run", body)["id"]
        )

    def state(self, run: str) -> dict[str, Any]:
        state: dict[str, Any] = self.api("GET", f"/flow_runs/{run}")["state"]
        return state

    def ended(self, run: str, limit_s: float = 200) -> dict[str, Any]:
        """The last state of a run."""
        wait_for(
            lambda: self.state(run)["type"] in ENDED,
            limit_s,
            f"the run to end, {self.api('GET', f'/flow_runs/{run}')['name']}",
            lambda: f"{self.state(run)}\n{self.log('worker')}",
        )
        return self.state(run)

    def process_of(self, run: str) -> psutil.Process:
        """The one that the worker has started for a run that is under way."""
        (found,) = [
            process
            for process in self.processes("worker")[1:]
            if process.environ().get("PREFECT__FLOW_RUN_ID", "").replace("-", "") == run.replace("-", "")
            and process.ppid() == self._running["worker"].pid
        ]
        return found

    def runs_of(self, flow: str, *types: str) -> list[dict[str, Any]]:
        asked: dict[str, Any] = {
            "deployments": {"id": {"any_": [self.deployment(flow)["id"]]}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        if types:
            asked["flow_runs"] = {"state": {"type": {"any_": list(types)}}}
        found: list[dict[str, Any]] = self.api("POST", "/flow_runs/filter", asked)
        return found

    def tracked(self, horizon: str) -> list[Any]:
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.data / 'mlflow' / 'mlflow.db'}")
        experiment = client.get_experiment_by_name(f"forecaster_{horizon}")
        return list(client.search_runs([experiment.experiment_id])) if experiment else []


def wait_for(
    holds: Callable[[], bool], limit_s: float, what: str, told: Callable[[], str] = lambda: ""
) -> None:
    until = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < until, f"waited {limit_s} s for {what}\n{told()}"
        time.sleep(0.3)


def market(folder: Path) -> Path:
    """Prices up to yesterday."""
    folder.mkdir(exist_ok=True)
    path, rows = folder / "market.csv", 900
    first = pd.bdate_range(end=pd.Timestamp.now("UTC").date() - timedelta(days=1), periods=rows)[0]
    synthetic_table(rows, start=str(first.date())).to_csv(path, index=False)
    return path


class Machines(Protocol):
    def __call__(
        self, folder: Path, services: Sequence[str], *, new: bool = False, **settings: str
    ) -> Host: ...


@pytest.fixture(scope="module")
def on_a_machine(migrated_sqlite: Path, migrated_prefect: Path) -> Machines:
    """A host with the market of `market` and the light engine, deployed to where it has a server.

    Its databases have the tables that the first start of each makes, unless it is `new`.
    """

    def started(folder: Path, services: Sequence[str], *, new: bool = False, **settings: str) -> Host:
        own = {
            "FOREX_PAIR": "USDCLP",
            "FOREX_SOURCE": "csv",
            "FOREX_PATHS": str(market(folder)),
            "FOREX_ENGINE": LIGHT.model_dump_json(),
        }
        host = Host(folder, **own | settings)
        for template, place in ((migrated_sqlite, "mlflow"), (migrated_prefect, "prefect-server")):
            if not new:
                (host.data / place).mkdir()
                shutil.copyfile(template, host.data / place / template.name)
        try:
            for service in services:
                host.start(service)
                if service == "server":
                    done = host.deploy()
                    assert done.returncode == 0, done.stderr
        except BaseException:
            host.close()
            raise
        return host

    return started


@pytest.fixture(scope="module")
def host(on_a_machine: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """What the tests share: a server and a worker, everything deployed, schedules and all."""
    made = on_a_machine(tmp_path_factory.mktemp("host"), ("server", "worker"))
    yield made
    made.close()


def test_none_is_deployed_that_no_worker_is_seen_to_run() -> None:
    assert {*BY_HAND, *TRAINING, *IN_SUCCESSION} == {entry["flow"] for entry in described()}


class TestWithoutAServer:
    @pytest.mark.slow
    @pytest.mark.parametrize("command", ["deploy", "forecast"])
    def test_what_needs_it_says_so(self, command: str, tmp_path: Path) -> None:
        """A name of nobody, in the environment or in `.env`, which Prefect reads as well."""
        nobody = f"http://127.0.0.1:{free_port()}/api"
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("FOREX_", "PREFECT_", "MLFLOW_"))}
        kept |= {"PREFECT_HOME": str(tmp_path / "prefect"), "FOREX_DATA_DIR": str(tmp_path / "data")}
        if command == "deploy":
            line, kept = [sys.executable, "-m", "flows.deploy"], kept | {"PREFECT_API_URL": nobody}
        else:
            line = [str(BIN / "forex"), "forecast", "7d"]
            (tmp_path / ".env").write_text(f"PREFECT_API_URL={nobody}\n")
        done = subprocess.run(
            line, cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 1
        (said,) = done.stderr.splitlines()
        assert said.startswith(f"error: no Prefect server answers at {nobody} (")
        assert "PREFECT_API_URL" in said
        assert not (tmp_path / "data" / "mlflow").exists()

    def test_there_is_no_deploying_to_nowhere(self, tmp_path: Path) -> None:
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("FOREX_", "PREFECT_", "MLFLOW_"))}
        done = subprocess.run(
            [sys.executable, "-m", "flows.deploy"],
            cwd=tmp_path,
            env=kept | {"PREFECT_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2
        assert "set PREFECT_API_URL" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestDeployed:
    def test_it_listens_on_loopback_alone_and_lets_nobody_in_without_the_password(self, host: Host) -> None:
        listening = {
            connection.laddr.ip
            for process in host.processes("server")
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        url = f"{host.api_url}/deployments/count"
        assert requests.post(url, json={}, timeout=30).status_code == 401
        assert requests.post(url, json={}, auth=("forex", "guess"), timeout=30).status_code == 401
        assert host.api("POST", "/deployments/count", {}) == len(described())
        assert requests.get(f"{host.api_url}/health", timeout=30).ok, "for a check from outside"
        kept = host.environment | {"PREFECT_API_AUTH_STRING": "forex:guess"}
        for line in ([sys.executable, "-m", "flows.deploy"], [str(BIN / "forex"), "forecast", "7d"]):
            done = subprocess.run(line, env=kept, capture_output=True, text=True, check=False, timeout=120)
            assert done.returncode == 2
            assert "PREFECT_API_AUTH_STRING" in done.stderr

    def test_a_schedule_makes_runs(self, host: Host) -> None:
        """Within 70 s; with another SQLAlchemy the server looks well and schedules nothing."""
        flows = [entry["flow"] for entry in described() if "schedules" in entry]
        by_clock = {*FORECASTS, "monitor", "dashboard", "backup", "restore-drill"}
        assert {*flows} == by_clock
        for entry in described():
            there = host.deployment(entry["flow"])["schedules"]
            assert bool(there) == (entry["flow"] in by_clock), "the others wait for somebody who asks"
        wait_for(
            lambda: all(host.runs_of(flow, "SCHEDULED") for flow in flows),
            70,
            "scheduled runs of all of them",
            lambda: host.log("server"),
        )
        for flow, time_of_day, weekdays in (
            ("forecast-15d", "08:00", (0, 3)),
            ("monitor", "08:30", range(5)),
            ("dashboard", "09:00", range(7)),
            ("backup", "21:30", range(7)),
            ("restore-drill", "10:00", (6,)),
        ):
            for run in host.runs_of(flow, "SCHEDULED"):
                due = pd.Timestamp(run["expected_start_time"]).tz_convert("America/Santiago")
                assert (due.strftime("%H:%M"), due.day_of_week in weekdays) == (time_of_day, True), flow

    def test_parameters_are_explained(self, host: Host) -> None:
        for flow in {entry["flow"] for entry in described()}:
            schema = host.deployment(flow)["parameter_openapi_schema"]
            assert all(said.get("description") for said in schema["properties"].values()), flow

    def test_every_deployment_completes(self, host: Host) -> None:
        """The first by hand. The drill makes again what was published, at both levels, and its artifact says so."""
        made = dict[str, str]()
        for flow, parameters in BY_HAND.items():
            if made:
                made[flow] = host.run(flow, parameters)
                assert host.ended(made[flow])["type"] == "COMPLETED", host.log("worker")
                continue
            given = [
                word
                for name, value in parameters.items()
                for word in ("--param", f"{name}={json.dumps(value)}")
            ]
            done = host.prefect("deployment", "run", f"{flow}/forex", *given, "--watch")
            assert done.returncode == 0, done.stdout + done.stderr + host.log("worker")
            (made[flow],) = re.findall(r"UUID: (\S+)", done.stdout)
        for horizon in HORIZONS:
            flow_run = made[f"forecast-{horizon}"]
            (run,) = [r for r in host.tracked(horizon) if r.data.tags["prefect_flow_run_id"] == flow_run]
            assert run.info.status == "FINISHED"
            assert run.data.tags["environment"] == "production"
            if horizon == "7d":
                week = run
        scored = host.api("GET", "/artifacts/monitor-usdclp/latest")
        assert scored["flow_run_id"] == made["monitor"]
        pages = host.api("GET", "/artifacts/dashboard/latest")
        assert pages["flow_run_id"] == made["dashboard"]
        assert week.info.run_id[:8] in pages["data"]
        assert "USD/CLP" in (host.data / "dashboard" / "index.html").read_text(encoding="utf-8")
        (archive,) = sorted((host.data / "backups").glob("*.jsonl.zst"))[-1:]
        assert str(archive) in host.api("GET", "/artifacts/backup/latest")["data"]
        told = host.api("GET", "/artifacts/restore-drill/latest")["data"]
        assert str(archive) in told
        assert f"| usdclp-7d | {week.info.run_id[:8]} | stored: exact, recomputed: exact |" in told
        assert list(host.data.glob(".drill-*")) == []

    def test_a_worker_of_its_own_trains_and_its_weights_are_fine_tuned(self, host: Host) -> None:
        """With a tiny model; the forecasts' worker takes neither."""
        small = {"width": 16, "layers": 1, "heads": 2, "feed_forward": 32, "context": 128}
        least = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "validation_batches": 1, "workers": 0}
        folder = host.data / "training" / "small"
        until = str(datetime.now(UTC).date() - timedelta(days=365))
        tuned = {"pretrained": str(folder / "weights"), "steps": 2, "batch_size": 5, "until": until}
        for flow, told in (
            ("pretrain", {"config": least | {"architecture": small}, "output_dir": str(folder)}),
            ("finetune", {"config": tuned, "run_name": "tuned"}),
        ):
            run = host.run(flow, told)
            done = host.prefect(
                "worker", "start", "--pool", "forex-training", "--type", "process", "--run-once"
            )
            assert done.returncode == 0, done.stdout + done.stderr
            state = host.ended(run)
            assert state["type"] == "COMPLETED", (state, done.stdout, done.stderr)
        assert (host.data / "training" / "tuned" / "weights" / "model.onnx").is_file()
        assert "version 1 of chronos-usdclp" in host.api("GET", "/artifacts/training/latest")["data"]

    def test_the_same_as_of_is_published_once_unless_forced(self, host: Host) -> None:
        assert host.ended(host.run("forecast-7d"))["name"] == "Completed"
        before = len(host.tracked("7d"))
        assert host.ended(host.run("forecast-7d"))["name"] == "Completed"
        assert len(host.tracked("7d")) == before
        assert host.ended(host.run("forecast-7d", {"force": True}))["name"] == "Completed"
        assert len(host.tracked("7d")) == before + 1

    def test_a_late_run_is_skipped_and_one_by_hand_is_not(self, host: Host) -> None:
        """As when the worker was away for days: runs that were due meanwhile are still handed out."""
        host.ended(host.run("forecast-90d"))
        before, now = len(host.tracked("90d")), datetime.now(UTC)
        window = {"start_time": (now - timedelta(days=20)).isoformat(), "max_runs": 1}
        window["end_time"] = (now - timedelta(days=8)).isoformat()
        host.api("POST", f"/deployments/{host.deployment('forecast-90d')['id']}/schedule", window)
        late = host.runs_of("forecast-90d")[0]
        assert late["auto_scheduled"]
        state = host.ended(late["id"])
        assert (state["type"], state["name"]) == ("COMPLETED", "Skipped")
        assert "USD/CLP" in state["message"] or "USDCLP" in state["message"]
        assert len(host.tracked("90d")) == before
        by_hand = host.run("forecast-90d", {"force": True}, at=now - timedelta(days=10))
        assert host.ended(by_hand)["name"] == "Completed"
        assert len(host.tracked("90d")) == before + 1

    def test_of_two_at_once_the_second_is_cancelled_or_waits(self, host: Host) -> None:
        """Two of one horizon, two of what is done in turn, put to it by force: the pool has room for one."""
        host.prefect("work-pool", "set-concurrency-limit", "forex", "4")
        try:
            soon = datetime.now(UTC) + timedelta(seconds=15)  # so that the worker finds all of them at once
            forecasts = [host.run("forecast-30d", {"force": True}, at=soon) for _ in range(2)]
            pages = [host.run("dashboard", at=soon) for _ in range(2)]
            ends = sorted(host.ended(run)["type"] for run in forecasts)
            assert [host.ended(run)["type"] for run in pages] == ["COMPLETED", "COMPLETED"]
        finally:
            host.prefect("work-pool", "set-concurrency-limit", "forex", "1")
        assert ends == ["CANCELLED", "COMPLETED"]
        states = [host.api("GET", f"/flow_run_states/?flow_run_id={run}") for run in pages]
        waited = [sum(state["name"] == "AwaitingConcurrencySlot" for state in of_one) for of_one in states]
        assert min(waited) == 0
        assert max(waited) >= 1
        times = [
            {
                state["type"]: pd.Timestamp(state["timestamp"])
                for state in of_one
                if state["type"] != "SCHEDULED"
            }
            for of_one in states
        ]
        first, second = sorted(times, key=lambda one: one["RUNNING"])
        assert first["COMPLETED"] <= second["RUNNING"]

    def test_what_is_deployed_names_no_folder_of_whoever_deployed(self, host: Host, tmp_path: Path) -> None:
        """The worker knows where the code is; without a step that asks it the folder of `prefect deploy` is kept."""
        for entry in described():
            there = host.deployment(entry["flow"])
            (step,) = there["pull_steps"]
            assert step == {
                "prefect.deployments.steps.set_working_directory": {"directory": "{{ $FOREX_HOME }}"}
            }
            assert str(ROOT) not in str(there)
        text = yaml.safe_load((FILES / "prefect.yaml").read_text(encoding="utf-8"))
        del text["pull"]
        text["deployments"] = [
            each for each in text["deployments"] if each["entrypoint"].endswith(":dashboard")
        ]
        text["deployments"][0] |= {"name": "elsewhere", "schedules": []}
        (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(text))
        done = host.prefect(
            "--no-prompt", "deploy", "--all", "--prefect-file", str(tmp_path / "prefect.yaml")
        )
        assert done.returncode == 0, done.stdout + done.stderr
        kept = host.api("GET", "/deployments/name/dashboard/elsewhere")
        host.api("DELETE", f"/deployments/{kept['id']}")
        assert str(ROOT) in str(kept["pull_steps"])

    def test_what_was_paused_stays_paused(self, host: Host) -> None:
        """The pool, a deployment, a schedule, automations: also one whose setting is off meanwhile."""

        def automations() -> dict[str, dict[str, Any]]:
            return {each["id"]: each for each in host.api("POST", "/automations/filter", {})}

        def paused() -> list[bool]:
            week, fortnight = host.deployment("forecast-7d"), host.deployment("forecast-15d")
            pool = host.api("GET", "/work_pools/forex")
            assert pool["concurrency_limit"] == 1
            return [
                pool["is_paused"],
                week["paused"],
                not fortnight["schedules"][0]["active"],
                *(not each["enabled"] for each in automations().values()),
            ]

        always = {*automations()}
        assert "created 'a forecast that its model failed" in host.deploy(FOREX_AUTO_ROLLBACK="true").stdout
        before = automations()
        (by_setting,) = {*before} - always
        week, fortnight = host.deployment("forecast-7d"), host.deployment("forecast-15d")
        schedule = f"/deployments/{fortnight['id']}/schedules/{fortnight['schedules'][0]['id']}"
        host.prefect("work-pool", "pause", "forex")
        host.api("POST", f"/deployments/{week['id']}/pause_deployment")
        host.api("PATCH", schedule, {"active": False})
        for automation in before:
            host.api("PATCH", f"/automations/{automation}", {"enabled": False})
        try:
            assert paused() == [True] * 6
            for setting in ("false", "true"):
                done = host.deploy(FOREX_AUTO_ROLLBACK=setting)
                assert done.returncode == 0, done.stderr
                assert "automations as they were" in done.stdout
                assert paused() == [True] * 6
            assert {*automations()} == {*before}
            assert host.api("POST", "/deployments/count", {}) == len(described())
        finally:
            host.prefect("work-pool", "resume", "forex")
            host.api("POST", f"/deployments/{week['id']}/resume_deployment")
            host.api(
                "PATCH",
                f"/deployments/{fortnight['id']}/schedules/{host.deployment('forecast-15d')['schedules'][0]['id']}",
                {"active": True},
            )
            host.api("DELETE", f"/automations/{by_setting}")
            for automation in always:
                host.api("PATCH", f"/automations/{automation}", {"enabled": True})

    def test_what_the_file_has_no_more_stays(self, host: Host, tmp_path: Path) -> None:
        """Until somebody deletes it; and so does what others have deployed."""
        ours = yaml.safe_load((FILES / "prefect.yaml").read_text(encoding="utf-8"))
        (pages,) = [each for each in ours["deployments"] if each["entrypoint"].endswith(":dashboard")]
        ours["deployments"].append(pages | {"name": "of-before", "schedules": []})
        done = host.deploy_file(tmp_path, yaml.safe_dump(ours))
        assert done.returncode == 0, done.stderr
        flow = host.api("POST", "/flows/", {"name": "theirs"})["id"]
        asked = {
            "name": "theirs",
            "flow_id": flow,
            "entrypoint": "theirs.py:theirs",
            "work_pool_name": "forex",
        }
        host.api("POST", "/deployments/", asked)
        others = ("dashboard/of-before", "theirs/theirs")
        before = [host.api("GET", f"/deployments/name/{name}") for name in others]
        try:
            done = host.deploy()
            assert done.returncode == 0, done.stderr
            assert [host.api("GET", f"/deployments/name/{name}")["id"] for name in others] == [
                each["id"] for each in before
            ]
            assert host.api("GET", "/deployments/name/theirs/theirs")["updated"] == before[1]["updated"]
        finally:
            for name in others:
                done = host.prefect("--no-prompt", "deployment", "delete", name)
                assert done.returncode == 0, done.stdout + done.stderr
        assert host.api("POST", "/deployments/count", {}) == len(described())

    def test_a_time_zone_that_is_none_deploys_nothing(self, host: Host, tmp_path: Path) -> None:
        text = (FILES / "prefect.yaml").read_text(encoding="utf-8")
        done = host.deploy_file(tmp_path, text.replace("America/Santiago", "America/Valdivia"))
        assert done.returncode == 1
        assert "America/Valdivia" in done.stderr


class TestProxy:
    def test_the_sample_is_read_by_nginx(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [nginx(), "-t", "-p", tmp_path, "-c", proxy(tmp_path), "-e", "stderr"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "warn" not in done.stderr
        # From nginx 1.25.1 on it is a directive of its own, which those before do not know.
        assert "http2" not in (FILES / "nginx" / "forex.conf").read_text(encoding="utf-8")

    @pytest.mark.slow
    @pytest.mark.timeout(600)
    def test_it_asks_for_the_password_of_both(self, on_a_machine: Machines, tmp_path: Path) -> None:
        """Pages, calls and websockets of Prefect; pages and questions of MLflow, which refuses hosts and origins."""
        names = {"server": "prefect.example.org", "mlflow": "mlflow.example.org"}
        secret = Secrets()
        host = on_a_machine(
            tmp_path / "host",
            ("server",),
            MLFLOW_SERVER_ALLOWED_HOSTS=names["mlflow"],
            MLFLOW_SERVER_CORS_ALLOWED_ORIGINS=f"https://{names['mlflow']}",
            FOREX_TRACKING__UI_AUTH=f"forex:{PASSWORD}",
            **settings_with(secret, PASSWORD),
        )
        ports = {"443": str(free_port()), "80": str(free_port())}
        ports |= {"4200": str(host.ports["server"]), "5000": str(host.ports["mlflow"])}
        serving = None
        try:
            done = subprocess.run(
                [str(BIN / "forex"), "forecast", "7d"],
                env=host.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            host.start("mlflow")
            serving = subprocess.Popen(
                [nginx(), "-p", tmp_path, "-c", proxy(tmp_path, ports), "-e", "stderr", "-g", "daemon off;"],
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            front, trusted = f"https://127.0.0.1:{ports['443']}", str(tmp_path / "nginx" / "forex.crt")
            wait_for(lambda: port_is_open(int(ports["443"])), 120, "nginx")

            def call(service: str, method: str, path: str, **more: Any) -> requests.Response:
                headers = {"Host": names[service]} | more.pop("headers", {})
                return requests.request(
                    method, f"{front}{path}", headers=headers, verify=trusted, timeout=60, **more
                )

            ours = ("forex", PASSWORD)
            for service, path in (
                ("server", "/"),
                ("server", "/api/health"),
                ("mlflow", "/"),
                ("mlflow", "/health"),
            ):
                assert call(service, "GET", path).status_code == 401
                assert call(service, "GET", path, auth=("forex", "guess")).status_code == 401
                assert call(service, "GET", path, auth=ours).status_code == 200
            counted = call("server", "POST", "/api/deployments/count", json={}, auth=ours)
            assert counted.json() == len(described())

            asked = {"json": {"experiment_ids": ["1"]}, "auth": ours}
            search = "/api/2.0/mlflow/runs/search"
            own, foreign = ({"Origin": f"https://{name}"} for name in (names["mlflow"], "evil.example.org"))
            (run,) = call("mlflow", "POST", search, headers=own, **asked).json()["runs"]
            assert call("mlflow", "POST", search, headers=foreign, **asked).status_code == 403
            report = f"/get-artifact?path=reports/report.html&run_uuid={run['info']['run_id']}"
            assert run["info"]["run_id"] in call("mlflow", "GET", report, auth=ours).text
            direct = f"http://127.0.0.1:{host.ports['mlflow']}/"
            assert requests.get(direct, timeout=60).status_code == 401, "MLflow's pages ask for it themselves"
            stranger = requests.get(direct, headers={"Host": "evil.example.org"}, auth=ours, timeout=60)
            assert stranger.status_code == 403

            assert websocket(ports["443"], names["server"], trusted, None) == 401
            assert websocket(ports["443"], names["server"], trusted, f"forex:{PASSWORD}") == 101
        finally:
            if serving:
                os.killpg(serving.pid, signal.SIGKILL)
                serving.wait()
            host.close()
        assert "GET /get-artifact" in (tmp_path / "logs" / "access.log").read_text()
        assert host.log("mlflow")
        for place in (tmp_path / "logs", host.folder):
            assert told_in(secret, written(place)) == {}

    def test_the_dashboard_stands_behind_it(self, tmp_path: Path) -> None:
        """Under its name and with the password alone; its token is a second one."""
        name, token = "dashboard.example.org", "a-token-of-a-test-5c"
        host = Host(tmp_path / "host", FOREX_DASHBOARD__HOSTS=name, FOREX_DASHBOARD__TOKEN=token)
        ports = {"443": str(free_port()), "80": str(free_port()), "8050": str(host.ports["dashboard"])}
        serving = None
        try:
            health = f"http://127.0.0.1:{host.ports['dashboard']}/login"
            host.start("dashboard", health)
            serving = subprocess.Popen(
                [nginx(), "-p", tmp_path, "-c", proxy(tmp_path, ports), "-e", "stderr", "-g", "daemon off;"],
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            wait_for(lambda: port_is_open(int(ports["443"])), 120, "nginx")
            front, trusted = f"https://127.0.0.1:{ports['443']}", str(tmp_path / "nginx" / "forex.crt")

            def call(method: str, path: str, **more: Any) -> requests.Response:
                headers = {"Host": name} | more.pop("headers", {})
                more |= {"verify": trusted, "timeout": 60, "allow_redirects": False}
                return requests.request(method, f"{front}{path}", headers=headers, **more)

            ours = ("forex", PASSWORD)
            assert call("GET", "/").status_code == 401
            asked = call("GET", "/", auth=ours)
            assert (asked.status_code, asked.headers["Location"]) == (303, "login")
            entered = call("POST", "/login", data={"token": token}, auth=ours)
            assert entered.status_code == 303
            assert "Secure" in entered.headers["Set-Cookie"]
            cookie = {"Cookie": entered.headers["Set-Cookie"].partition(";")[0]}
            assert "No forecasts yet" in call("GET", "/", headers=cookie, auth=ours).text
            stranger = requests.get(health, headers={"Host": "evil.example.org"}, timeout=60)
            assert stranger.status_code == 400
            logs = [path.read_text() for path in (tmp_path / "logs").iterdir()]
            assert "POST /login" in "".join(logs)
            for said in (host.log("dashboard"), *logs):
                assert token not in said
                assert PASSWORD not in said
        finally:
            if serving:
                os.killpg(serving.pid, signal.SIGKILL)
                serving.wait()
            host.close()


def nginx() -> str:
    found = shutil.which("nginx")
    if found is None:
        pytest.skip("there is no nginx here; install the package nginx-light")
    return found


def proxy(folder: Path, ports: dict[str, str] | None = None) -> Path:
    """The sample in a folder of its own, with a certificate that signs itself, on other ports."""
    place = folder / "nginx"
    shutil.copytree(FILES / "nginx", place)
    for path in place.iterdir():
        text = path.read_text().replace("/etc/nginx", str(place))
        for port, here in (ports or {}).items():
            text = re.sub(rf"(listen |127\.0\.0\.1:){port}\b", rf"\g<1>{here}", text)
        path.write_text(text.replace("listen ", "listen 127.0.0.1:"))
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=example.org",
            ),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(place / "forex.key"), "-out", str(place / "forex.crt")),
        ],
        check=True,
        capture_output=True,
    )
    sample = (FILES / "env.sample").read_text(encoding="utf-8")
    (folder / ".env").write_text(sample.replace("CHANGE-ME", PASSWORD), encoding="utf-8")
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (line,) = re.findall(
        r"^\(umask 027; (.*)\); chgrp www-data /etc/nginx/forex.htpasswd$", page, re.MULTILINE
    )
    subprocess.run(["sh", "-c", line.replace("/etc/nginx", str(place))], cwd=folder, check=True)
    main = folder / "nginx.conf"
    logs = folder / "logs"
    logs.mkdir()
    kept = " ".join(f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy"))
    main.write_text(
        f"{'user root; ' if os.geteuid() == 0 else ''}error_log stderr; error_log {logs}/error.log info;\n"
        f"pid {folder}/pid; events {{}}\n"
        f"http {{ access_log {logs}/access.log; {kept} include {place}/forex.conf; }}\n"
    )
    return main


def port_is_open(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def websocket(port: str, name: str, trusted: str, login: str | None) -> int:
    """Status of the answer to the wish for a websocket."""
    context = ssl.create_default_context(cafile=trusted)
    lines = [
        *("GET /api/events/in HTTP/1.1", f"Host: {name}", "Connection: Upgrade", "Upgrade: websocket"),
        *(
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol: prefect",
        ),
        *([f"Authorization: Basic {base64.b64encode(login.encode()).decode()}"] if login else []),
    ]
    with (
        socket.create_connection(("127.0.0.1", int(port)), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(connection.recv(64).split()[1])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_failed_forecast_is_told_and_followed_by_a_rollback(
    on_a_machine: Machines, tmp_path: Path, webhook: Webhook
) -> None:
    """By setting, and only where another model may help; what a rollback finds and does is tested elsewhere."""
    host = on_a_machine(
        tmp_path,
        ("server", "worker"),
        FOREX_NOTIFY__URLS=f"json://127.0.0.1:{webhook.port}/",
        FOREX_AUTO_ROLLBACK="true",
    )
    try:
        assert host.ended(host.run("forecast-7d", engine=OTHER))["type"] == "COMPLETED"
        assert host.ended(host.run("forecast-7d"))["type"] == "COMPLETED"
        assert host.ended(host.run("promote", {"horizon": "7d", "reason": "test"}))["type"] == "COMPLETED"
        assert host.ended(host.run("forecast-7d", {"force": True}))["type"] == "COMPLETED"
        assert webhook.received == []

        # No model can help where there are no data.
        host.ended(host.run("forecast-15d", {"as_of": "2001-01-01"}))
        wait_for(lambda: bool(webhook.received), 120, "an alert", lambda: host.log("worker"))
        assert host.runs_of("rollback") == []

        # Another can where the champion reads drivers that have gone.
        bare = tmp_path / "bare.csv"
        pd.read_csv(tmp_path / "market.csv")[["Date", "USDCLP"]].to_csv(bare, index=False)
        failed = host.run("forecast-7d", {"source": "csv", "paths": [str(bare)]})
        assert host.ended(failed)["type"] == "FAILED"
        wait_for(
            lambda: "ForecastError" in str(webhook.received), 120, "an alert", lambda: host.log("worker")
        )
        wait_for(lambda: bool(host.runs_of("rollback")), 200, "a rollback", lambda: host.log("server"))
        rollback = host.runs_of("rollback")[0]
        assert rollback["parameters"]["horizon"] == "7d"
        assert rollback["parameters"]["pair"] is None
        assert "ForecastError" in rollback["parameters"]["reason"]
        state = host.ended(rollback["id"])
        assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), host.log("worker")
        # The server tells at least once, so it may ask for another: the champion of the first is held in place.
        again = host.ended(host.run("rollback", rollback["parameters"]))
        assert (again["type"], again["name"]) == ("COMPLETED", "Skipped")
        assert all(host.runs_of(flow, "COMPLETED") for flow in IN_SUCCESSION)

        told = {body["title"]: body for _, body, _ in webhook.received}
        assert set(told) == {"forecast-15d: Failed", "forecast-7d: Failed"}
        assert all(body["type"] == "failure" for body in told.values())
        assert "InputError" in told["forecast-15d: Failed"]["message"]
        assert failed in told["forecast-7d: Failed"]["message"]

        for setting, word in (("false", "off"), ("true", "on")):
            done = host.deploy(FOREX_AUTO_ROLLBACK=setting)
            assert f"switched {word} 'a forecast that its model failed" in done.stdout, (
                done.stdout + done.stderr
            )
            enabled = [each["enabled"] for each in host.api("POST", "/automations/filter", {})]
            assert sorted(enabled) == [word == "on", True, True]
    finally:
        host.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_goes_wrong_is_told(on_a_machine: Machines, tmp_path: Path, webhook: Webhook) -> None:
    """A place that nobody can write, an archive that is damaged; runs that are killed, that hang and that warn."""
    secret = Secrets()
    target = f"json://me:{secret.url('hook')}@127.0.0.1:{webhook.port}/{secret.url('path')}"
    host = on_a_machine(
        tmp_path, ("server", "worker"), FOREX_NOTIFY__URLS=target, **settings_with(secret, PASSWORD)
    )
    try:
        # One waits for a minute before it tries again, and then another: the others need not wait for it.
        host.prefect("work-pool", "set-concurrency-limit", "forex", "3")
        assert host.ended(host.run("forecast-7d"))["type"] == "COMPLETED"
        unwritable = host.run("backup", {"to": "/proc/archives"})
        assert host.ended(host.run("backup"))["type"] == "COMPLETED"
        assert host.ended(host.run("restore-drill"))["type"] == "COMPLETED", host.log("worker")
        for path in (host.data / "backups" / "objects").rglob("*"):
            if path.is_file() and path.stat().st_size > 10_000:
                path.write_bytes(path.read_bytes()[:-10])
        assert {body["title"] for _, body, _ in webhook.received} <= {"backup: Failed"}

        damaged = host.run("restore-drill")
        killed = host.run("forecast-15d", {"force": True}, engine=EngineConfig())
        wait_for(lambda: host.state(killed)["type"] == "RUNNING", 120, "the run", lambda: host.log("worker"))
        host.process_of(killed).kill()
        nobody = f"json://127.0.0.1:{free_port()}/"
        warns = host.run("forecast-30d", FOREX_REPORT__URLS=nobody, FOREX_NOTIFY__ATTEMPTS="1")
        publish_narrow_bands(host)
        alarmed = host.run("monitor")
        hangs = timed_out(host, tmp_path / "hangs.csv")
        ends = {
            "restore-drill: Failed": (damaged, "FAILED", "cannot be read"),
            "backup: Failed": (
                unwritable,
                "FAILED",
                "could not be made: [Errno 2] No such file or directory: '/proc/archives'",
            ),
            "forecast-15d: Crashed": (killed, "CRASHED", "SIGKILL"),
            "forecast-30d: CompletedWithWarning": (warns, "COMPLETED", "did not reach target 1"),
            "forecast-90d: TimedOut": (hangs, "FAILED", "200.0 second"),
        }
        for title, (run, kind, reason) in ends.items():
            state = host.ended(run, 300)
            assert (state["type"], state["name"]) == (kind, title.partition(": ")[2])
            assert reason in state["message"], state
        # The monitor tells its alarms by itself, so there is nothing left for the server to tell.
        state = host.ended(alarmed, 300)
        assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), host.log("worker")
        assert "narrow bands at step 1" in state["message"]
        alarm = f"forex monitor: alarm of USDCLP, production on {socket.gethostname()}"
        wait_for(
            lambda: {body["title"] for _, body, _ in webhook.received} >= {*ends, alarm},
            200,
            "an alert of each",
            lambda: f"{[body['title'] for _, body, _ in webhook.received]}\n{host.log('worker')}",
        )
        told = {body["title"]: body for _, body, _ in webhook.received}
        assert set(told) == {*ends, alarm}
        assert told[alarm]["type"] == "warning"
        assert "narrow bands at step 1" in told[alarm]["message"]
        for title, (run, kind, reason) in ends.items():
            assert told[title]["type"] == ("warning" if kind == "COMPLETED" else "failure")
            assert run in told[title]["message"]
            assert reason in told[title]["message"]
    finally:
        host.close()
    assert [body for _, body, _ in webhook.received if secret.found_in(json.dumps(body).encode())] == []
    looked_at = {path.name for path in host.folder.rglob("*")}
    assert looked_at >= {"server.log", "worker.log", "prefect.db", "mlflow.db", "forex.db"}
    assert told_in(secret, written(host.folder)) == {}


def settings_with(secret: Secrets, password: str) -> dict[str, str]:
    """Settings with secrets that no run here has a use for, beside the password that all have."""
    secret.add("password", password)
    return {
        "MLFLOW_S3_ACCESS_KEY_ID": "me",
        "MLFLOW_S3_SECRET_ACCESS_KEY": secret("s3"),
        "FOREX_DATA__FRED_API_KEY": secret("fred"),
        "FOREX_DASHBOARD__TOKEN": secret("dashboard"),
    }


def publish_narrow_bands(host: Host) -> None:
    """A year of forecasts of 15 days in the ledger of a host, whose bands are three times too narrow."""
    rates = pd.read_csv(host.folder / "market.csv", parse_dates=[0], index_col=0)["USDCLP"]
    sigma = float(np.log(rates).diff().std())
    ledger = Ledger(f"sqlite:///{host.data / 'store' / 'forex.db'}")
    for day in rates.index[-160:-15]:
        ledger.append(
            ledgers.entry(
                day.date(), Horizon(15), close=float(rates[day]), sigma=sigma, width=0.3, version=None
            )
        )


def timed_out(host: Host, path: Path) -> str:
    """A forecast whose file never answers, with the tag of what is deployed; its id.

    Its time is up once it waits for the file: a limit that falls into an import fails as the half of a module that it
    leaves does.
    """
    os.mkfifo(path)
    code = f"""
import signal, threading
from prefect import tags
from flows.forecast import forecast_90d

def end():
    with open({str(path)!r}, "w"):  # as soon as somebody reads
        signal.setitimer(signal.ITIMER_REAL, 1)
        threading.Event().wait()

threading.Thread(target=end, daemon=True).start()
with tags("forex"):
    hanging = forecast_90d.with_options(timeout_seconds=200)
    state = hanging(source="csv", paths=[{str(path)!r}], return_state=True)
print(state.state_details.flow_run_id)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=host.environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def examined(host: Host, check: str, *options: str) -> dict[str, Any]:
    """What `forex doctor` finds on a host."""
    done = subprocess.run(
        [*PATIENT_DOCTOR, "--json", *options],
        cwd=ROOT,
        env=host.environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    (found,) = [one for one in json.loads(done.stdout)["checks"] if one["name"] == check]
    return dict(found)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_disk_that_is_full_is_told_by_the_doctor_alone(
    on_a_machine: Machines, small_disk: Callable[..., Path], webhook: Webhook, tmp_path: Path
) -> None:
    """Prefect's database lies on it: no run begins, not that of an alert either, until there is room."""
    folder = tmp_path / "host"
    (folder / "data").mkdir(parents=True)
    disk = small_disk("200m", at=folder / "data")
    host = on_a_machine(folder, ("server", "worker"), FOREX_NOTIFY__URLS=f"json://127.0.0.1:{webhook.port}/")
    try:
        wait_for(lambda: len(workers(host, "forex")) == 1, 200, "the worker")
        room = disk / "filler"
        with room.open("wb", buffering=0) as filler:
            os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(disk).free - 4_000_000)
            filler.seek(0, os.SEEK_END)
            asked = host.run("dashboard", at=datetime.now(UTC) + timedelta(seconds=12))
            with suppress(OSError):
                while True:
                    filler.write(bytes(512))
        full = re.compile("database or disk is full|No space left on device")
        wait_for(
            lambda: bool(full.search(host.log("server"))),
            200,
            "the server to notice",
            lambda: host.log("server"),
        )
        time.sleep(10)
        assert host.state(asked)["type"] == "SCHEDULED"
        assert webhook.received == []

        assert examined(host, "disk", "--tell")["state"] == "failed"
        ((_, body, _),) = webhook.received
        assert body["title"].startswith("forex doctor: not all is well with production on ")
        assert body["type"] == "failure"
        assert "failed disk: 0.0 GB of 0.2 GB free at " in body["message"]
        assert "→ make room; " in body["message"]

        room.unlink()
        assert host.ended(asked)["name"] == "Completed", "it waited"
    finally:
        host.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_a_kill_the_next_run_starts_by_itself(on_a_machine: Machines, tmp_path: Path) -> None:
    """Worker and run killed in the middle, the server as well and started again: within six minutes.

    Before there is a worker, `forex doctor` misses it and what it should have run.
    """
    host = on_a_machine(tmp_path, ("server",))
    try:
        late = host.run("dashboard", at=datetime.now(UTC) - timedelta(minutes=5))
        wait_for(lambda: host.state(late)["name"] == "Late", 200, "the run to be late")
        nobody = examined(host, "Prefect")
        assert nobody["state"] == "warning"
        assert "; no worker at pool forex, 1 runs are late" in nobody["found"]
        assert "forex-worker" in nobody["todo"]
        host.start("worker")
        assert host.ended(late)["name"] == "Completed"
        assert examined(host, "Prefect")["state"] == "ok"
        every_minute = [{"schedule": {"interval": 60}, "active": True}]
        host.api("POST", f"/deployments/{host.deployment('forecast-7d')['id']}/schedules", every_minute)
        killed = host.run("forecast-7d", {"force": True}, engine=EngineConfig())
        wait_for(lambda: host.state(killed)["type"] == "RUNNING", 120, "the run", lambda: host.log("worker"))
        host.kill("worker")
        host.kill("server")
        at = datetime.now(UTC)
        host.start("server")
        host.start("worker")
        assert host.state(killed)["type"] == "RUNNING", "nobody has told the server"

        def later() -> list[dict[str, Any]]:
            done = host.runs_of("forecast-7d", "COMPLETED")
            return [run for run in done if pd.Timestamp(run["start_time"]) > at]

        wait_for(lambda: bool(later()), 360, "a run after the kill", lambda: host.log("worker"))
        print(f"next run ended {(datetime.now(UTC) - at).total_seconds():.0f} s after the kill")
        crashed = host.state(killed)
        assert (crashed["type"], crashed["message"]) == (
            "CRASHED",
            "Not heard of for 90 s, so the process of this run is gone.",
        )
        assert [run["id"] for run in host.runs_of("forecast-7d", "CRASHED")] == [killed]
    finally:
        host.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_worker_ends_when_it_is_told_unless_it_was_born_deaf(host: Host, tmp_path: Path) -> None:
    """A shell that is no terminal's starts what it leaves behind with interrupts ignored, and the worker keeps that."""
    pool = ("--pool", "spare", "--type", "process")
    line = [str(BIN / "prefect"), "worker", "start", *pool]
    direct = subprocess.Popen(
        line, cwd=ROOT, env=host.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    behind = subprocess.Popen(
        ["sh", "-c", f"{shlex.join(line)} & echo $!; wait"],
        cwd=ROOT,
        env=host.environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert behind.stdout is not None
    deaf = psutil.Process(int(behind.stdout.readline()))
    try:
        wait_for(lambda: len(workers(host, "spare")) == 2, 120, "both workers")
        for _ in range(12):  # one that comes while it begins may be lost, as Python's interrupts are
            direct.terminate()
            deaf.terminate()
            with suppress(subprocess.TimeoutExpired):
                direct.wait(10)
                break
        assert direct.returncode is not None
        time.sleep(5)
        assert deaf.is_running()
        assert deaf.status() != psutil.STATUS_ZOMBIE
    finally:
        for process in (direct, behind):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def workers(host: Host, pool: str) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = host.api("POST", f"/work_pools/{pool}/workers/filter", {})
    except AssertionError:  # the pool is made by the first worker
        return []
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_set_stays_in_its_memory(on_a_machine: Machines, tmp_path: Path) -> None:
    """Server, worker and one run: a forecast with all members, an archive, a drill; shared pages are counted once.

    Then the pages that are read meanwhile; and nothing is restored under who has the data open.
    """
    host = on_a_machine(tmp_path, ("server", "worker"), new=True, FOREX_ENGINE="{}")
    try:
        wait_for(lambda: len(workers(host, "forex")) == 1, 200, "the worker")
        print("idle", megabytes(host))
        for flow in ("forecast-7d", "backup", "restore-drill"):
            run, peak = host.run(flow), dict[str, float]()
            while host.state(run)["type"] not in ENDED:
                now = megabytes(host)
                if sum(now.values()) > sum(peak.values()):
                    peak = now
                time.sleep(0.1)
            assert host.state(run)["type"] == "COMPLETED", host.log("worker")
            print(flow, peak, "together", sum(peak.values()))
            assert "the run" in peak
            assert sum(peak.values()) < VPS_MEGABYTES
        for service, path in (("mlflow", "/"), ("dashboard", "/")):
            host.start(service)
            assert requests.get(f"http://127.0.0.1:{host.ports[service]}{path}", timeout=60).ok
        search = f"http://127.0.0.1:{host.ports['mlflow']}/ajax-api/2.0/mlflow/runs/search"
        assert requests.post(search, json={"experiment_ids": ["1"]}, timeout=60).json()["runs"]
        services = ("server", "worker", *PAGES)
        print("with pages", megabytes(host, services), "RSS", megabytes(host, services, "rss"))
        before = sorted(host.folder.iterdir())
        refused = subprocess.run(
            [str(BIN / "forex"), "backup", "restore", "latest"],
            env=host.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        said = " ".join(refused.stderr.split())
        assert refused.returncode == 2, said
        assert "Nothing was changed; stop them" in said
        for service in services:
            assert any(f" {process.pid} (" in said for process in host.processes(service)), said
        assert sorted(host.folder.iterdir()) == before
    finally:
        host.close()


def megabytes(
    host: Host, services: Sequence[str] = ("server", "worker"), measure: str = "pss"
) -> dict[str, float]:
    """Proportional set size of each service, and of the run with all that it has started."""
    found = dict[str, float]()
    for service in services:
        for number, process in enumerate(host.processes(service)):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                name = "the run" if service == "worker" and number else service
                found[name] = found.get(name, 0) + getattr(process.memory_full_info(), measure) / 1e6
    return found


def described() -> list[dict[str, Any]]:
    """The deployments of the file, each with the name of its flow."""
    entries = yaml.safe_load((FILES / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    for entry in entries:
        function = entry["entrypoint"].rpartition(":")[2]
        entry["flow"] = function.replace("_", "-")
    return list(entries)
