"""A scheduled run that comes too late is skipped; the same run by hand, or in time, is made."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from forex_core.calendars import latest_origin
from forex_core.types import Horizon, Pair

pytestmark = [pytest.mark.usefixtures("prefect_server", "kept_pictures"), pytest.mark.timeout(280)]

PAIR, FORTNIGHT = Pair("USD", "CLP"), Horizon(15)


class Deployment:
    """A deployment of a forecast with a schedule for every hour, whose runs this process carries out."""

    def __init__(self, name: str, parameters: dict[str, Any]) -> None:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.schedules import IntervalSchedule

        from flows.forecast import FLOWS

        self._flow = FLOWS[FORTNIGHT]
        hourly = IntervalSchedule(interval=timedelta(hours=1))
        self._client = get_client(sync_client=True)
        self._client.__enter__()
        flow_id = self._client.create_flow_from_name(self._flow.name)
        self.id = self._client.create_deployment(
            flow_id, name, schedules=[{"schedule": hourly, "active": True}], parameters=parameters
        )

    def close(self) -> None:
        self._client.delete_deployment(self.id)
        self._client.__exit__(None, None, None)

    def scheduled(self, at: datetime) -> Any:
        """The run that the schedule makes for the hour up to `at`."""
        window = {
            "start_time": (at - timedelta(hours=1)).isoformat(),
            "end_time": at.isoformat(),
            "max_runs": 1,
        }
        self._client.request("POST", "/deployments/{id}/schedule", path_params={"id": self.id}, json=window)
        from prefect.client.schemas.filters import DeploymentFilter

        (run,) = self._client.read_flow_runs(
            deployment_filter=DeploymentFilter.model_validate({"id": {"any_": [self.id]}})
        )
        assert run.auto_scheduled
        return run

    def by_hand(self, at: datetime) -> Any:
        from prefect.states import Scheduled

        run = self._client.create_flow_run_from_deployment(self.id, state=Scheduled(scheduled_time=at))
        assert not run.auto_scheduled
        return run

    def carried_out(self, run: Any, parameters: dict[str, Any]) -> Any:
        """The state in which it ends."""
        from prefect.flow_engine import run_flow

        return run_flow(self._flow, flow_run=run, parameters=parameters, return_type="state")


@pytest.fixture
def parameters(market: Path) -> dict[str, Any]:
    return {"pair": str(PAIR), "source": "csv", "paths": [str(market)]}


@pytest.fixture
def deployment(parameters: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[Deployment]:
    made = Deployment(request.node.name.replace("[", "-").replace("]", ""), parameters)
    yield made
    made.close()


def tracked(tmp_path: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'data' / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(f"forecaster_{FORTNIGHT}")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


@pytest.mark.usefixtures("light")
def test_what_is_overtaken_is_skipped_and_says_so(
    deployment: Deployment, parameters: dict[str, Any], tmp_path: Path
) -> None:
    began = datetime.now(UTC)
    due = began - timedelta(days=10)
    state = deployment.carried_out(deployment.scheduled(due), parameters)
    assert (state.type.value, state.name) == ("COMPLETED", "Skipped")
    assert f"to forecast USD/CLP from {latest_origin(PAIR, due)}" in state.message.replace(
        "USDCLP", "USD/CLP"
    )
    newest = {str(latest_origin(PAIR, at)) for at in (began, datetime.now(UTC))}
    assert any(origin in state.message for origin in newest)
    assert tracked(tmp_path) == []


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("kind", ["in time", "by hand", "of a day that is named"])
def test_all_others_are_made(
    kind: str, deployment: Deployment, parameters: dict[str, Any], tmp_path: Path
) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=10)
    if kind == "in time":
        run = deployment.scheduled(datetime.now(UTC))
    elif kind == "by hand":
        run = deployment.by_hand(long_ago)
    else:
        run, parameters = deployment.scheduled(long_ago), parameters | {"as_of": "2018-06-08"}
    assert deployment.carried_out(run, parameters).name == "Completed"
    assert len(tracked(tmp_path)) == 1


@pytest.mark.usefixtures("light")
def test_a_late_run_of_a_pair_that_is_none_fails_and_is_recorded(
    deployment: Deployment, parameters: dict[str, Any], tmp_path: Path
) -> None:
    late = deployment.scheduled(datetime.now(UTC) - timedelta(days=10))
    state = deployment.carried_out(late, parameters | {"pair": "DOLLARS"})
    assert state.is_failed()
    (run,) = tracked(tmp_path)
    assert run.info.status == "FAILED"


@pytest.mark.usefixtures("light")
@pytest.mark.timeout(280, method="thread")  # leaves the alarm to Prefect
def test_a_run_that_hangs_ends(
    parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where Python is waited for: a long call into a library would be waited out. MLflow's run ends with it."""
    import time

    import flows.forecast as module

    def hang(*_: object) -> None:
        signal.setitimer(
            signal.ITIMER_REAL, 0.5
        )  # what is left of its time, however long it took to come here
        while True:
            time.sleep(0.1)

    monkeypatch.setattr(module, "bundle_of", hang)
    state = module.FLOWS[FORTNIGHT].with_options(timeout_seconds=200)(**parameters, return_state=True)
    assert state.name == "TimedOut"
    (run,) = tracked(tmp_path)
    assert run.info.status == "KILLED"
    assert module.FLOWS[FORTNIGHT].timeout_seconds == module.TIME_LIMIT_S
