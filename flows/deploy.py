"""`make deploy`: work pools, limits, deployments and automations on a Prefect server, as `deployments/` has them.

It may be run again at any time. What an operator has paused, be it a pool, a deployment, a schedule or an
automation, stays paused.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.workers.process import ProcessWorker

from flows.server import NamedServer
from forex_core.config import Settings, load_settings
from forex_core.errors import ConfigError, ForexError

HOME = Path(__file__).parents[1]
DEPLOYMENTS = HOME / "deployments" / "prefect.yaml"
AUTOMATIONS = HOME / "deployments" / "automations.yaml"

OFF = "off by its setting"
"""Tag of an automation that is paused by a setting and not by the operator."""

RUNS_AT_ONCE = 1
"""Of each pool: a small machine has memory for one forecast, and others wait."""


def deploy(settings: Settings) -> None:
    """Bring the server of `PREFECT_API_URL` to what the files say.

    Raises:
        ConfigError: when no server is named, it does not let us in, or a file of ours is wrong.
        ForexError: when it does not answer, or does not take a deployment.
    """
    url = PREFECT_API_URL.value()
    if url is None:
        raise ConfigError(
            "no Prefect server is named to deploy to; set PREFECT_API_URL, such as http://127.0.0.1:4200/api"
        )
    NamedServer().wait()
    with get_client(sync_client=True) as client:
        pools = _pools(client)
        _deployments(client)
        changed = _automations(client, settings)
    told = ", ".join(f"'{pool}'" for pool in pools)
    print(f"Deployed to {url}: pools {told}, limit {RUNS_AT_ONCE} each; {changed}")  # noqa: T201


def _pools(client: SyncPrefectClient) -> list[str]:
    """The pools that the deployments name, made where they are missing."""
    names = sorted({str(each["work_pool"]["name"]) for each in _read(DEPLOYMENTS)["deployments"]})
    for name in names:
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        # Not by `work-pool create --overwrite`, which sets a paused pool going again.
        client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=RUNS_AT_ONCE))
    return names


def _deployments(client: SyncPrefectClient) -> None:
    described = _read(DEPLOYMENTS)
    # Prefect takes a deployment that says nothing of it for one that is not paused. (Of a schedule it does not.)
    paused = {(there.entrypoint, there.name) for there in client.read_deployments() if there.paused}
    for each in described["deployments"]:
        if (each["entrypoint"], each["name"]) in paused:
            each["paused"] = True
    with NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as told:
        yaml.safe_dump(described, told)
        told.flush()
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", told.name],
            cwd=HOME,  # entry points are given from here
            check=False,
            capture_output=True,
            text=True,
        )
    if done.returncode != 0:
        raise ForexError(f"prefect deploy ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _automations(client: SyncPrefectClient, settings: Settings) -> str:
    """Create or update each automation of the file; what was done, in words."""
    done = []
    for described in _read(AUTOMATIONS):
        setting, there = described.pop("setting", None), client.find_automation(described["name"])
        is_on = setting is None or getattr(settings, setting)
        if there is None and not is_on:
            continue
        for action in described["actions"]:
            if "deployment" in action:
                action["deployment_id"] = _id_of(client, action.pop("deployment"))
        wanted = AutomationCore.model_validate(described)
        if there is None:
            client.create_automation(wanted)
            done.append(f"created '{wanted.name}'")
            continue
        wanted = wanted.model_copy(update=_switched(there, is_on))
        if _content(there) != _content(wanted):
            client.update_automation(there.id, wanted)
            switched = "switched on" if wanted.enabled else "switched off"
            done.append(f"{'updated' if there.enabled == wanted.enabled else switched} '{wanted.name}'")
    return ", ".join(done) or "automations as they were"


def _switched(there: Automation, is_on: bool) -> Mapping[str, Any]:
    """Whether an automation is paused: as the operator left it, and while its setting is off.

    One that the setting has paused is kept, with a tag that says so: without it the operator has paused it.
    """
    tags = {*there.tags}
    if is_on:
        return {"enabled": there.enabled or OFF in tags, "tags": sorted(tags - {OFF})}
    return {"enabled": False, "tags": sorted(tags | {OFF} if there.enabled else tags)}


def _content(automation: AutomationCore | Automation) -> Mapping[str, Any]:
    included = {"name", "description", "enabled", "trigger", "actions"}
    return automation.model_dump(include=included) | {"tags": {*automation.tags}}


def _id_of(client: SyncPrefectClient, deployment: str) -> UUID:
    try:
        return client.read_deployment_by_name(deployment).id
    except ObjectNotFound as error:
        raise ConfigError(
            f"{AUTOMATIONS.name} names the deployment '{deployment}', which {DEPLOYMENTS.name} has not"
        ) from error


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def main() -> int:
    """The entry point of `make deploy`; an error of ours is told in a line."""
    try:
        deploy(load_settings())
    except ForexError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    os.chdir(HOME)  # .env and forex.toml are those of the installation
    sys.exit(main())
