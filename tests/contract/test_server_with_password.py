"""An MLflow server behind a proxy that wants a password: 401 to whoever has none, and all as usual to whoever has."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from forex_core.config import load_settings
from forex_core.errors import TrackingError
from forex_core.tracking import registry_from_settings, tracker_from_settings
from forex_core.tracking.health import store_state
from forex_core.tracking.store import release
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.conftest import MlflowServer

PASSWORD = "hidden-7c1e"
PROXY = """
{user}error_log stderr; pid {folder}/pid; events {{}}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    server {{
        listen 127.0.0.1:{port};
        auth_basic "runs"; auth_basic_user_file {folder}/users;
        location / {{ proxy_pass {behind}; proxy_set_header Authorization ""; }}
    }}
}}
"""


@pytest.fixture
def address(server_store: MlflowServer, tmp_path: Path) -> Iterator[str]:
    """Host and port where the password is asked for."""
    nginx = shutil.which("nginx")
    if nginx is None:
        pytest.skip("there is no nginx here; install the package nginx-light")
    folder = tmp_path / "nginx"
    folder.mkdir()
    port = free_port()
    (folder / "users").write_text(f"forex:{{PLAIN}}{PASSWORD}\n")
    user = "user root; " if os.geteuid() == 0 else ""
    (folder / "conf").write_text(PROXY.format(folder=folder, port=port, behind=server_store.uri, user=user))
    serving = subprocess.Popen(
        [nginx, "-p", folder, "-c", folder / "conf", "-e", "stderr", "-g", "daemon off;"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        assert time.monotonic() < until
        time.sleep(0.05)
    yield f"127.0.0.1:{port}"
    os.killpg(serving.pid, signal.SIGKILL)
    serving.wait()


def test_without_the_password_there_is_nothing(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for path in ("/", "/health", "/api/2.0/mlflow/experiments/search"):
        assert requests.get(f"http://{address}{path}", timeout=30).status_code == 401
    for login in ("", "forex:wrong-password@"):
        monkeypatch.setenv("FOREX_TRACKING_URI", f"http://{login}{address}")
        with pytest.raises(TrackingError) as refused:
            store_state(load_settings())
        said = str(refused.value)
        assert "401" in said
        assert "wrong-password" not in said
        release(load_settings().mlflow_uri)


@pytest.mark.parametrize("way", ["in the address", "by MLflow's own names"])
def test_with_the_password_all_is_as_usual(
    address: str, way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: list[str]
) -> None:
    if way == "in the address":
        monkeypatch.setenv("FOREX_TRACKING_URI", f"http://forex:{PASSWORD}@{address}")
    else:
        monkeypatch.setenv("FOREX_TRACKING_URI", f"http://{address}")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "forex")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    report = tmp_path / "report.html"
    report.write_text("<html>")
    settings = load_settings()
    with tracker_from_settings(settings, "forecaster_7d") as tracker:
        tracker.log_metrics({"7d_rmse": 1.5})
        tracker.log_artifact(report, "reports")
    run = registry_from_settings(settings).client.get_run(str(tracker.run_id))
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"7d_rmse": 1.5})
    assert PASSWORD not in str(run.to_dictionary())
    assert told == []
    release(settings.mlflow_uri)
