"""The flows that change who is champion, on a real Prefect server, and what the forecast flow publishes after them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from forex_core.config import EngineConfig, load_settings
from forex_core.errors import ConfigError, InputError, TrackingError
from forex_core.tracking import Registry, Standing, registry_from_settings
from forex_core.types import Horizon
from tests import artifacts

pytestmark = [pytest.mark.usefixtures("prefect_server", "kept_pictures", "light"), pytest.mark.timeout(280)]

LIGHT = EngineConfig(
    members=("random_walk", "theta", "drivers"),
    grid_origins=60,
    warmup_origins=8,
)
WEEK = Horizon(7)
NAME = "usdclp-7d"
EARLIER, TODAY = date(2018, 5, 4), date(2018, 6, 8)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch, sqlite_store: str) -> None:
    """A light engine, by the environment, as a deployment would set it, and a store that is migrated."""
    monkeypatch.setenv("FOREX_ENGINE", LIGHT.model_dump_json())


def forecast(market: Path, as_of: date = TODAY) -> dict[str, Any]:
    from flows.forecast import FLOWS

    return FLOWS[WEEK](pair="USDCLP", source="csv", paths=[market], as_of=as_of)


def rollback(**parameters: Any) -> dict[str, Any]:
    from flows.rollback import rollback as flow

    return flow("7d", "USDCLP", **parameters)


def promote(**parameters: Any) -> dict[str, Any]:
    from flows.rollback import promote as flow

    return flow("7d", "USDCLP", **parameters)


def registry() -> Registry:
    return registry_from_settings(load_settings())


def standing() -> Standing:
    return registry().standing(NAME)


def run(document: dict[str, Any]) -> Any:
    return registry().client.get_run(document["run_id"])


@pytest.fixture(autouse=True)
def _watched(monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts.watch(monkeypatch, "flows.rollback")


def artifact() -> Any:
    """What Prefect's page says of the champion, the newest version of it; None without any."""
    return artifacts.newest(f"champion-{NAME}")


@pytest.mark.slow
def test_a_pinned_champion_is_published_until_it_is_undone_or_another_promoted(
    market: Path, told: list[str]
) -> None:
    forecast(market, EARLIER)
    second = forecast(market)
    assert second["published"]["version"] == 2
    assert second["notices"] == []

    tried = rollback(dry_run=True)
    assert (tried["from_version"], tried["to_version"]) == (2, 1)
    assert standing().pin is None
    assert "Dry run: nothing was changed." in str(artifact().data)
    with pytest.raises(TrackingError, match="is version 2, and was version 1 when this was asked for"):
        rollback(champion=1)
    done = rollback(reason="too narrow", champion=2)
    held = standing()
    assert held.champion is not None
    assert (held.champion.number, str(held.pin)) == (1, f"too narrow ({done['by']}, {done['at']})")
    from flows.rollback import rollback as flow

    again = flow("7d", "USDCLP", unless_pinned=True, return_state=True)
    assert (again.name, str(held.pin) in again.message) == ("Skipped", True)
    assert standing() == held
    page, minute = str(artifact().data), f"{done['at'][:16].replace('T', ' ')} UTC"
    assert "Roll back usdclp-7d: from version 2 to version 1" in page
    assert f"Champion is version 1, pinned (too narrow). By {done['by']} at {minute}." in page
    assert f"Audit run {done['audit_run']}; copy of the database: {done['backup']}." in page
    assert Path(done["backup"]).parent == load_settings().backups_dir
    assert done["forecast"]["origin"] == TODAY.isoformat(), "tried on the data of the latest run"
    audit = registry().client.get_run(done["audit_run"])
    assert audit.info.status == "FINISHED"
    assert audit.data.tags["prefect_flow_run_id"] != "none"

    third = forecast(market)
    assert "already_published" not in third, "the same data on the same day, but another champion"
    assert third["published"]["version"] == 1
    assert third["published"]["outcome"] == "pinned"
    assert third["published"]["challenger"] == 3
    assert third["quantiles"] != second["quantiles"]
    (notice,) = third["notices"]
    assert notice.startswith(
        "Published is version 1 of usdclp-7d, not version 3. Version 1 is pinned: too narrow ("
    )
    assert notice in Path(third["report"]).read_text(encoding="utf-8")
    stored = Path(run(third).info.artifact_uri.removeprefix("file://")) / "reports" / "forecast.json"
    assert json.loads(stored.read_text())["notices"] == [notice]
    tags, metrics = run(third).data.tags, run(third).data.metrics
    assert (tags["published_version"], tags["challenger"], tags["decision"]) == ("1", "3", "pinned")
    assert tags["pinned"].startswith("Version 1 is pinned: too narrow (")
    weights = {
        number: registry().model(registry().version(NAME, number))[0].state.weights for number in (1, 3)
    }
    assert weights[1] != weights[3]
    for member in LIGHT.members:
        assert metrics[f"{member}_weight"] == pytest.approx(weights[1][member])
        assert metrics[f"challenger_{member}_weight"] == pytest.approx(weights[3][member])
    assert metrics["7d_rmse"] == pytest.approx(third["models"]["ensemble"]["rmse"])
    tried_median = done["forecast"]["median"]
    assert third["quantiles"]["0.5"][-1] == pytest.approx(tried_median), "what was tried is published"

    again = forecast(market)
    assert (again["already_published"], again["run_id"]) == (True, third["run_id"])

    def unreachable(**_: Any) -> None:
        raise OSError("Prefect is out of reach")  # just for this, while the flow goes on

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.rollback.create_markdown_artifact", unreachable)
        undone = rollback(undo=True)
    assert any("Prefect's page does not show the undo of usdclp-7d" in message for message in told)
    assert (undone["from_version"], undone["to_version"], undone["after"]["pin"]) == (1, 2, None)
    again = forecast(market)
    assert (again["already_published"], again["run_id"]) == (True, second["run_id"])
    assert undone["after"]["challenger"] == 3, "what the run between learned stays on trial"

    rollback()
    promoted = promote(reason="data were repaired")
    assert (promoted["from_version"], promoted["to_version"]) == (1, 3)
    assert "Promote usdclp-7d: from version 1 to version 3" in str(artifact().data)
    fourth = forecast(market)
    assert "already_published" not in fourth
    assert (fourth["published"]["version"], fourth["published"]["outcome"]) == (4, "refreshed")
    assert fourth["quantiles"] == second["quantiles"]
    assert fourth["notices"] == []


AT_ONCE = """
import sys, time
from pathlib import Path
from flows.rollback import rollback
from forex_core.errors import TrackingError
own, start = map(Path, sys.argv[1:])
own.touch()
while not start.exists():
    time.sleep(0.01)
try:
    print(rollback("7d", "USDCLP", champion=3)["to_version"])
except TrackingError as error:
    print(error)
"""


@pytest.mark.slow
def test_of_two_rollbacks_at_once_one_is_refused(market: Path, tmp_path: Path) -> None:
    for day in (EARLIER, date(2018, 5, 11), TODAY):
        forecast(market, day)
    start, ready = tmp_path / "start", [tmp_path / "one", tmp_path / "other"]
    both = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", AT_ONCE, str(own), str(start)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for own in ready
    ]
    while not all(own.exists() for own in ready):
        assert all(process.poll() is None for process in both)
        time.sleep(0.05)
    start.touch()
    done, refused = sorted(process.communicate(timeout=200)[0].splitlines()[-1] for process in both)
    assert done == "2"
    # As it comes: the first was done while the second waited, or the second had waited long enough.
    assert refused.startswith(
        (
            "the champion of usdclp-7d is version 2, and was version 3 when this was asked for",
            "another 'change-of-champion-usdclp-7d' is running",
        )
    )
    held = standing()
    assert held.champion is not None
    assert (held.champion.number, held.pin is not None) == (2, True)
    assert not registry().version(NAME, 2).rolled_back


@pytest.mark.parametrize(
    ("flow", "parameters", "reason"),
    [
        (rollback, {"to": "1", "undo": True}, "--to and --undo exclude each other"),
        (rollback, {"to": "1", "metric": "7d_rmse"}, "--to and --metric exclude each other"),
        (rollback, {"mode": "max"}, "--mode goes with --metric"),
        (promote, {"to": "1", "unpin": True}, "--to and --unpin exclude each other"),
    ],
)
def test_what_excludes_each_other_is_refused(flow: Any, parameters: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        flow(**parameters)


@pytest.mark.slow
def test_a_refusal_fails_the_flow_and_changes_nothing(market: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no finished 7d run of USDCLP holds its data"):
        rollback()
    with pytest.raises(InputError, match="usdclp-7d has no champion yet"):
        rollback(source="csv", paths=[market])
    forecast(market)
    before, shown = standing(), artifact()
    with pytest.raises(InputError, match="no previous version"):
        rollback()
    with pytest.raises(InputError, match="nothing to undo"):
        rollback(undo=True)
    with pytest.raises(InputError, match="nothing to promote"):
        promote()
    monkeypatch.setattr("flows.rollback.BUSY_LIMIT_S", 0.0)
    with (
        registry().lock(NAME),
        pytest.raises(TrackingError, match="another 'change-of-champion-usdclp-7d' is running"),
    ):
        rollback()
    monkeypatch.setenv("FOREX_TRACKING__ENABLED", "false")
    for flow in (rollback, promote):
        with pytest.raises(ConfigError, match="tracking is off, so there is no champion to change"):
            flow()
    monkeypatch.delenv("FOREX_TRACKING__ENABLED")
    assert standing() == before
    assert (artifact().id if artifact() else None) == (shown.id if shown else None)
    assert not load_settings().backups_dir.exists()
