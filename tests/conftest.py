"""What every test shares: an environment of its own, the raw market files where they are, strictness in CI."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

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
        if name.startswith(("FOREX_", "MLFLOW_")):
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
