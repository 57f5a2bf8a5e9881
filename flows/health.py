"""The check of `forex doctor` that asks Prefect's server, where somebody has named one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows import names_a_server
from forex_core.doctor import Check, Finding, Patient

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

TIMEOUT_S = 5.0


def prefect(patient: Patient) -> Finding:
    """The server answers and is of this version, its pools have workers, and no run is late."""
    if not names_a_server():
        return Finding("skipped", "PREFECT_API_URL names no server; a run by hand starts its own")
    # Here and not above: a second that an examination without a server does not need.
    import httpx
    from prefect import __version__
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if not url:
        return Finding("skipped", "the settings of Prefect name no server; a run by hand starts its own")
    try:
        with get_client(httpx_settings={"timeout": TIMEOUT_S}, sync_client=True) as client:
            found = str(client.api_version())
            problems = _waiting(client)
    except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError) as error:
        told = f"{url} does not answer: {type(error).__name__}: {error}"
        return Finding(
            "failed", told, "start it (prefect server start), or correct PREFECT_API_URL and its key"
        )
    if found != __version__:
        told = f"{url} is Prefect {found}, here is {__version__}"
        return Finding("warning", told, "install the same version on both sides")
    told = f"{url} answers, Prefect {found}"
    if problems:
        todo = "start a worker: systemctl start forex-worker, or prefect worker start --pool NAME"
        return Finding("warning", f"{told}; {', '.join(problems)}", todo)
    return Finding("ok", told)


def _waiting(client: SyncPrefectClient) -> list[str]:
    """Pools without a worker that runs are scheduled in, and runs that should have begun."""
    from prefect.client.schemas.filters import FlowRunFilter

    # One without schedules is waited for by nobody, until a run in it is late.
    scheduled = {
        deployment.work_pool_name
        for deployment in client.read_deployments()
        if any(schedule.active for schedule in deployment.schedules)
    }
    pools = [
        pool
        for pool in client.read_work_pools()
        if pool.status and pool.status.value == "NOT_READY" and pool.name in scheduled
    ]
    late = FlowRunFilter.model_validate({"state": {"name": {"any_": ["Late"]}}})
    runs = client.read_flow_runs(flow_run_filter=late, limit=200)
    return [
        *(f"no worker at pool {pool.name}" for pool in pools),
        *([f"{len(runs)} runs are late"] if runs else []),
    ]


CHECKS = (Check("Prefect", prefect),)
