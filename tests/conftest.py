"""What every test shares: an environment of its own, the raw market files where they are, strictness in CI."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples on every run: a test that fails must fail for whoever looks into it.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

ROOT = Path(__file__).parents[1]
MAY_BE_SKIPPED_IN_CI = ("shared_data", "gpu")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer's, and whatever is written goes below the test's own folder."""
    for name in list(os.environ):
        if name.startswith(("FOREX_", "MLFLOW_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FOREX_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the raw market files; the test is skipped without it."""
    folder = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data")).absolute()
    if not (folder / "usdclp_market_daily.csv").is_file():
        pytest.skip(f"the raw market files are not at {folder}; name their folder in SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Prefect server of the session's own, started once."""
    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's schema and nothing in it, to be copied: making one takes seconds."""
    from forex_core.tracking import open_store
    from forex_core.tracking.store import release

    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    open_store(f"sqlite:///{path}")
    release(f"sqlite:///{path}")
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
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._call("initdb", "-U", "forex", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        self.start()

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self._folder} -c fsync=off -c max_connections=200"
        self._call("pg_ctl", "start", "-w", "-t", "60", "-l", str(self._folder / "log"), "-o", options)

    def stop(self) -> None:
        self._call("pg_ctl", "stop", "-m", "immediate", "-w")

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
            timeout=120,
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
    excused = any(item.get_closest_marker(name) for name in MAY_BE_SKIPPED_IN_CI)
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail") and not excused:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report
