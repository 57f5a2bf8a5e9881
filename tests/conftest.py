"""What every test shares: an environment of its own, the raw market files where they are, strictness in CI."""

from __future__ import annotations

import fcntl
import gc
import itertools
import json
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests.ports import free_port

# The same examples on every run: a test that fails must fail for whoever looks into it.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.forecasting import Forecasters
    from tests.mailbox import Mailbox

ROOT = Path(__file__).parents[1]
MAY_BE_SKIPPED_IN_CI = ("shared_data", "gpu")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that are allowed the longest come first in each worker's share, others in their order.

    At the end the other workers would wait for them.
    """

    def allowed(module: list[pytest.Item]) -> float:
        marks = (item.get_closest_marker("timeout") for item in module)
        return max(float(mark.args[0]) if mark else 0.0 for mark in marks)

    modules = [list(found) for _, found in itertools.groupby(items, key=lambda item: item.path)]
    shares = [list[pytest.Item]() for _ in range(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))]
    for module in sorted(modules, key=allowed, reverse=True):
        min(shares, key=len).extend(module)
    items[:] = itertools.chain.from_iterable(shares)


def pytest_collection_finish() -> None:
    """Modules and tests live to the end; to look through them for garbage would take a tenth of the processor time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _migrations_read_once() -> None:
    """MLflow reads its sixty migrations for every store that it opens, to learn which is the last."""
    from mlflow.store.db import utils

    utils._get_latest_schema_revision = cache(utils._get_latest_schema_revision)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer's, and whatever is written goes below the test's own folder."""
    for name in list(os.environ):
        if name.startswith(("FOREX_", "MLFLOW_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FOREX_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    # MLflow puts the code of a model that it loads before everything else, where new processes find it.
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the raw market files; the test is skipped without it."""
    folder = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data")).absolute()
    if not (folder / "usdclp_market_daily.csv").is_file():
        pytest.skip(f"the raw market files are not at {folder}; name their folder in SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every worker of pytest-xdist sees, for what one of them makes for all."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "of_all_workers"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class SharedPrefect:
    """A Prefect server for all workers: the first that asks starts it, and it ends with the last that has it.

    Its standard input is a named pipe that each user holds open; the kernel closes it for one that is killed.
    """

    def __init__(self, folder: Path, template: Path) -> None:
        self._lock = folder / "prefect.lock"
        with locked(self._lock):
            # Whoever has the server shares this lock; who can have it alone is the first, or the first again.
            self._users = (folder / "prefect.users").open("a")
            with suppress(BlockingIOError):
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._start(folder, template)
            fcntl.flock(self._users, fcntl.LOCK_SH)
            self.home, self.api_url = (folder / "prefect.address").read_text().split("\n")
            if not hasattr(self, "_open"):
                self._open = os.open(Path(self.home) / "users", os.O_WRONLY)

    def _start(self, folder: Path, template: Path) -> None:
        home = Path(tempfile.mkdtemp(prefix="prefect-", dir=folder))
        shutil.copyfile(template, home / "prefect.db")
        os.mkfifo(home / "users")
        reading = os.open(
            home / "users", os.O_RDONLY | os.O_NONBLOCK
        )  # else it waits for the first that writes
        self._open = os.open(home / "users", os.O_WRONLY)
        os.set_blocking(reading, True)
        log = os.open(home / "log", os.O_WRONLY | os.O_CREAT)
        settings = {
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
            "PREFECT_SERVER_LOG_RETRYABLE_ERRORS": "true",  # why it is busy, in its log
        }
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.set_inheritable(True)
            # Not by subprocess, which would complain of a child that outlives this worker.
            os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", str(ROOT / "flows" / "server.py"), str(listening.fileno())],
                {n: v for n, v in os.environ.items() if not n.startswith("PREFECT_")} | settings,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, to) for fd, to in ((reading, 0), (log, 1), (log, 2))],
                setsid=True,
            )
            api_url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        os.close(reading)
        os.close(log)
        try:
            urllib.request.urlopen(f"{api_url}/health", timeout=240).close()
        except OSError as error:
            raise AssertionError((home / "log").read_text()) from error
        (folder / "prefect.address").write_text(f"{home}\n{api_url}")

    def close(self) -> None:
        with locked(self._lock):  # a new user finds all of the old ones, or none
            os.close(self._open)
            self._users.close()


@pytest.fixture(scope="session")
def migrated_prefect(of_all_workers: Path) -> Path:
    """The database of a Prefect server with nothing in it, to be copied: making one takes ten seconds."""
    from flows.server import TemporaryServer

    path = of_all_workers / "prefect.db"
    with locked(of_all_workers / "migrated.lock"), pytest.MonkeyPatch.context() as environment:
        if not path.is_file():
            for name in [name for name in os.environ if name.startswith("PREFECT_")]:
                environment.delenv(name)
            home = Path(tempfile.mkdtemp(prefix="making-", dir=of_all_workers))
            environment.setenv("PREFECT_HOME", str(home))
            environment.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
            environment.setenv("PREFECT_API_BLOCKS_REGISTER_ON_START", "false")
            server = TemporaryServer()
            try:
                server.wait()
            finally:
                server.stop()
            assert not list(home.glob("*-wal")), "all of it is in one file"
            (home / "prefect.db").rename(path)
    return path


@pytest.fixture(scope="session")
def prefect_server(of_all_workers: Path, migrated_prefect: Path) -> Iterator[None]:
    """The session's own Prefect server, in the settings and in the environment."""
    server = SharedPrefect(of_all_workers, migrated_prefect)
    os.environ |= {
        "PREFECT_HOME": server.home,
        "PREFECT_API_URL": server.api_url,
        "PREFECT_CLIENT_MAX_RETRIES": "8",
    }
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    # Prefect may have been imported before. A transaction of its SQLite that has read what another one then writes is
    # refused at once, and with several tests writing that happens more often in a row than five times.
    with temporary_settings({PREFECT_API_URL: server.api_url, PREFECT_CLIENT_MAX_RETRIES: 8}):
        yield
        # What their threads still hold would be sent to nobody, and each would complain at the end of the process.
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker

        APILogWorker.drain_all(timeout=30)
        EventsWorker.drain_all(timeout=30)
    server.close()


@pytest.fixture(scope="session")
def migrated_sqlite(of_all_workers: Path) -> Path:
    """A database with MLflow's schema and nothing in it, to be copied: making one takes seconds."""
    from forex_core.tracking import open_store
    from forex_core.tracking.store import release

    path = of_all_workers / "mlflow.db"
    with locked(of_all_workers / "mlflow.lock"):
        if not path.is_file():
            making = f"sqlite:///{of_all_workers / 'making.db'}"
            open_store(making)
            release(making)
            (of_all_workers / "making.db").rename(path)
    return path


@pytest.fixture
def sqlite_store(migrated_sqlite: Path, tmp_path: Path) -> Iterator[str]:
    """Address of a migrated store of the test's own, in its data folder."""
    from forex_core.tracking.store import release

    path = tmp_path / "data" / "mlflow" / "mlflow.db"
    path.parent.mkdir(parents=True)
    shutil.copyfile(migrated_sqlite, path)
    yield f"sqlite:///{path}"
    release(f"sqlite:///{path}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`small_disk(size, inodes, at)` is an empty folder on a disk of its own, which may hide one that is there."""
    mounted: list[Path] = []

    def disk(size: str, inodes: int = 10_000, at: Path | None = None) -> Path:
        folder = at or tmp_path / f"disk{len(mounted)}"
        folder.mkdir(exist_ok=True)
        options = f"size={size},nr_inodes={inodes}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr}")
        mounted.append(folder)
        return folder

    yield disk
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class PostgresServer:
    """A server on a free loopback port, with everything below a folder of its own."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._folder = Path(tempfile.mkdtemp(prefix="forex-postgres-"))
        # The server refuses to run as root.
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self.port = free_port()
        self._call("initdb", "-U", "forex", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        self.start()

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self._folder} -c fsync=off -c max_connections=200"
        self._call("pg_ctl", "start", "-w", "-t", "240", "-l", str(self._folder / "log"), "-o", options)

    def stop(self) -> None:
        self._call("pg_ctl", "stop", "-m", "immediate", "-w", "-t", "240")

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def uri(self, database: str) -> str:
        return f"postgresql://forex@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="forex", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement.encode())

    def _call(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._binaries / program), "-D", str(self._folder / "data"), *arguments],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=240,
            check=False,
            **self._as,
        )
        assert done.returncode == 0, done.stderr


def postgres_binaries() -> Path | None:
    """Folder of the newest PostgreSQL's programs, Debian's place or the path's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    program = found[-1] if found else shutil.which("initdb")
    return None if program is None else Path(program).parent


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL; the test is skipped where there is none."""
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("there is no PostgreSQL here; install the package postgresql")
    server = PostgresServer(binaries)
    yield server
    server.close()


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: PostgresServer) -> str:
    """Name of a database with MLflow's schema, to be copied by the server."""
    from forex_core.tracking import open_store
    from forex_core.tracking.store import release

    postgres_server.execute("CREATE DATABASE migrated")
    uri = postgres_server.uri("migrated")
    open_store(uri, artifact_root="file:///nowhere")
    release(uri)
    return "migrated"


@pytest.fixture
def new_postgres(postgres_server: PostgresServer) -> Iterator[Callable[..., str]]:
    """Addresses of new databases, empty or out of a template."""
    from forex_core.tracking.store import release

    names = []

    def create(template: str = "template1") -> str:
        names.append(f"test_{uuid.uuid4().hex}")
        postgres_server.execute(f"CREATE DATABASE {names[-1]} TEMPLATE {template}")
        return postgres_server.uri(names[-1])

    yield create
    for name in names:
        release(postgres_server.uri(name))
        postgres_server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def postgres_store(new_postgres: Callable[..., str], migrated_postgres: str) -> str:
    """Address of a migrated store of the test's own."""
    return new_postgres(migrated_postgres)


class MlflowServer:
    """`mlflow server` on a free loopback port, on a database of its own, which hands out the files as well."""

    def __init__(self, template: Path, folder: Path) -> None:
        self._template = template
        self._database = folder / "server.db"
        self.files = folder / "files"
        shutil.copyfile(template, self._database)
        self.files.mkdir()
        port = free_port()
        self.uri = f"http://127.0.0.1:{port}"
        options = {
            "--host": "127.0.0.1",
            "--port": str(port),
            "--workers": "1",
            "--backend-store-uri": f"sqlite:///{self._database}",
            "--artifacts-destination": str(self.files),
        }
        said = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--serve-artifacts",
                *itertools.chain(*options.items()),
            ],
            cwd=folder,
            env=os.environ
            | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        said.close()
        until = time.monotonic() + 240
        while not self._is_up():
            assert self._process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.1)

    def _is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return True
        except OSError:
            return False

    def empty(self) -> None:
        """As it was at the start: into the live database, which the server has open."""
        with (
            closing(sqlite3.connect(self._template)) as source,
            closing(sqlite3.connect(self._database)) as live,
        ):
            source.backup(live)
        shutil.rmtree(self.files)
        self.files.mkdir()

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture(scope="session")
def mlflow_server(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(migrated_sqlite, tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture
def server_store(mlflow_server: MlflowServer) -> MlflowServer:
    """A tracking server with nothing in it."""
    mlflow_server.empty()
    return mlflow_server


class S3Bucket:
    """A bucket on a server of the S3 interface on loopback."""

    def __init__(self, endpoint: str, name: str) -> None:
        import boto3

        self.name = name
        self.settings = {
            "MLFLOW_S3_ENDPOINT_URL": endpoint,
            "MLFLOW_S3_ACCESS_KEY_ID": "me",
            "MLFLOW_S3_SECRET_ACCESS_KEY": "very-hidden",
        }
        keys = {"aws_access_key_id": "me", "aws_secret_access_key": "very-hidden", "region_name": "us-east-1"}
        self.client: Any = boto3.client("s3", endpoint_url=endpoint, **keys)
        self.client.create_bucket(Bucket=name)


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real server of the S3 interface, a process of its own."""
    port, log = free_port(), tmp_path_factory.mktemp("s3") / "log"
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as said:
        serving = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    until = time.monotonic() + 120
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            break
        assert serving.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    serving.kill()
    serving.wait()


@pytest.fixture
def s3_bucket(s3_endpoint: str) -> Iterator[S3Bucket]:
    bucket = S3Bucket(s3_endpoint, f"bucket-{uuid.uuid4().hex}")
    yield bucket
    bucket.client.close()


@dataclass
class Webhook:
    """A web server that keeps what it is sent, and answers with the next of `answers`, 200 in the end."""

    port: int = 0
    answers: list[int] = field(default_factory=list)
    received: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    kept = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kept.received.append((self.path, body, dict(self.headers)))
            self.send_response(kept.answers.pop(0) if kept.answers else 200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.port = serving.server_port
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield kept
    serving.shutdown()
    serving.server_close()


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    from tests.mailbox import receiving

    with receiving() as box:
        yield box


@pytest.fixture(scope="session")
def compose_services(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """`compose_services(**settings)` are the services of the compose file, as Compose reads them in a checkout.

    Its settings are those of the sample, but for those that are given. Without Compose the test is skipped.
    """
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("there is no docker-compose here; install the package docker-compose")

    def read(**settings: str) -> dict[str, Any]:
        import yaml

        checkout = tmp_path_factory.mktemp("checkout")
        shutil.copytree(ROOT / "deployments", checkout / "deployments")
        sample = (ROOT / "deployments" / "env.sample").read_text(encoding="utf-8")
        own = "".join(f"{name}={value}\n" for name, value in settings.items())  # of two the latter counts
        (checkout / ".env").write_text(sample + own, encoding="utf-8")
        line = [program, "-f", "deployments/compose.yaml", "--env-file", ".env"]
        done = subprocess.run(
            [*line, "--profile", "mlflow", "--profile", "dashboard", "--profile", "deploy", "config"],
            cwd=checkout,
            env={n: v for n, v in os.environ.items() if not n.startswith(("FOREX_", "PREFECT_", "MLFLOW_"))},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
        return found

    return read


@pytest.fixture(scope="session")
def pdf() -> None:
    """What makes PDFs and reads them: WeasyPrint's system packages and Poppler's programs."""
    from forex_core.errors import ConfigError
    from forex_core.report.pdf import require_pdf

    try:
        require_pdf()
    except ConfigError as error:
        pytest.skip(str(error))
    if shutil.which("pdftotext") is None:
        pytest.skip("there is no pdftotext here; install the package poppler-utils")


@pytest.fixture(scope="session")
def tiny_chronos(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny_chronos(kind, steps)` is the folder of an untrained model of kind "2" or "bolt", to be read.

    It reads 128 rows and predicts `steps` at once, with the biases of its last layer as a normal's quantiles.
    """
    import torch
    from scipy.stats import norm

    def made(kind: str, levels: list[float], steps: int) -> Any:
        if kind == "2":
            from chronos.chronos2 import Chronos2Model
            from chronos.chronos2.config import Chronos2CoreConfig

            own = {"output_patch_size": 8, "max_output_patches": steps // 8, "use_arcsinh": True}
            return Chronos2Model(Chronos2CoreConfig(**_tiny("Chronos2Pipeline", levels, own)))
        from chronos.chronos_bolt import ChronosBoltModelForForecasting
        from transformers import T5Config

        settings = _tiny("ChronosBoltPipeline", levels, {"prediction_length": steps})
        tokens = {"vocab_size": 2, "pad_token_id": 0, "decoder_start_token_id": 0}
        return ChronosBoltModelForForecasting(T5Config(num_decoder_layers=2, **tokens, **settings))

    root, kept = tmp_path_factory.mktemp("chronos"), dict[tuple[str, int], Path]()

    def folder(kind: str, steps: int = 64) -> Path:
        if (kind, steps) not in kept:
            levels = [i / 20 for i in range(1, 20)] if kind == "2" else [i / 10 for i in range(1, 10)]
            levels = [0.01, *levels, 0.99] if kind == "2" else levels
            with torch.random.fork_rng():
                torch.manual_seed(7)
                model = made(kind, levels, steps)
                bias = model.output_patch_embedding.output_layer.bias
                with torch.no_grad():
                    z = torch.tensor(norm.ppf(levels), dtype=torch.float32)
                    bias.copy_(0.5 * z.repeat_interleave(len(bias) // len(levels)))
                model.save_pretrained(root / f"{kind}-{steps}")
            kept[kind, steps] = root / f"{kind}-{steps}"
        return kept[kind, steps]

    return folder


def _tiny(pipeline: str, levels: list[float], own: dict[str, Any]) -> dict[str, Any]:
    """Settings of a model with few weights."""
    patches = {"context_length": 128, "input_patch_size": 8, "input_patch_stride": 8, "use_reg_token": True}
    return {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 2,
        "num_heads": 2,
        "initializer_factor": 0.1,
        "chronos_pipeline_class": pipeline,
        "chronos_config": {**patches, "quantiles": levels, **own},
    }


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser; no longer than a module, since its driver keeps an event loop running."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with playwright.sync_playwright() as driver:
        if program is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip("no Chromium on this machine")
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def forecasters(prefect_server: None) -> Iterator[Forecasters]:
    """Starts forecasts in processes of their own."""
    from tests.forecasting import Forecasters

    starting = Forecasters(draws=False)
    yield starting
    starting.close()


@pytest.fixture(scope="session")
def drawn() -> dict[tuple[str, ...], dict[str, Any]]:
    """Pictures of `kept_pictures`."""
    return {}


@pytest.fixture
def kept_pictures(drawn: dict[tuple[str, ...], dict[str, Any]]) -> Iterator[None]:
    """Charts are drawn once for every set of names, for a test that does not look at them."""
    from tests.forecasting import keep_pictures

    end = keep_pictures(drawn)
    yield
    end()


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What is said through the log at level WARNING and above."""
    from loguru import logger

    messages: list[str] = []
    handler = logger.add(lambda message: messages.append(message.record["message"]), level="WARNING")
    yield messages
    logger.remove(handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failure, but for data and hardware that CI cannot have."""
    report = yield
    if call.excinfo is not None and type(call.excinfo.value).__name__ == "PrefectHTTPStatusError":
        for log in sorted(Path(os.environ["PREFECT_HOME"]).glob("log")):
            report.sections.append(("the Prefect server", log.read_text(errors="replace")[-20_000:]))
    excused = any(item.get_closest_marker(name) for name in MAY_BE_SKIPPED_IN_CI)
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail") and not excused:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report
