"""The flows that make archives and prove that they can be used, on a real Prefect server."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from forex_core.backup import Backups
from forex_core.config import load_settings
from forex_core.errors import ArchiveRefused, BackupError
from forex_core.tracking import ArchivedStore, model_name, registry_from_settings
from forex_core.types import Horizon, Pair
from tests import artifacts

pytestmark = [pytest.mark.usefixtures("prefect_server", "kept_pictures", "light"), pytest.mark.timeout(280)]

MODEL = model_name(Pair("USD", "CLP"), Horizon(7))


def forecast(market: Path) -> dict[str, Any]:
    from flows.forecast import FLOWS

    return FLOWS[Horizon(7)](pair="USDCLP", source="csv", paths=[market], as_of=date(2018, 6, 8))


def flows() -> Any:
    from flows import backup

    return backup


@pytest.fixture(autouse=True)
def _watched(monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts.watch(monkeypatch, "flows.backup")


def artifact(key: str) -> str:
    """The text of the newest artifact of this key."""
    return str(artifacts.newest(key).data)


@pytest.mark.slow
def test_a_backup_is_made_pruned_and_told(market: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forecast(market)
    first = flows().backup()
    assert first["created"]["missing"] == []
    assert first["created"]["counts"]["runs"] == 1
    monkeypatch.setenv("FOREX_BACKUP__KEEP_DAILY", "1")
    second = flows().backup()
    assert second["pruned"]["removed"] == (first["created"]["archive"],)
    assert second["created"]["bytes_new"] < first["created"]["bytes_new"]
    assert second["created"]["archive"] in artifact("backup")
    Backups(load_settings(), ArchivedStore()).verify("latest")


@pytest.mark.slow
def test_a_drill_replays_what_the_champion_published(market: Path) -> None:
    published = forecast(market)
    made = flows().backup()
    settings = load_settings()
    # Nothing may come from the live folder.
    shutil.move(settings.root / "mlflow", settings.root.parent / "gone")
    done = flows().restore_drill()
    assert done["archive"] == made["created"]["archive"]
    (row,) = done["replays"]
    assert done["note"] is None
    assert row == {
        "model": MODEL,
        "run_id": published["run_id"],
        "outcome": "stored: exact, recomputed: exact",
        "replayed": True,
    }
    assert f"| {MODEL} | {published['run_id'][:8]} | stored: exact, recomputed: exact |" in artifact(
        "restore-drill"
    )
    assert list(settings.root.glob(".drill-*")) == []


def drilled(archive: str = "latest") -> tuple[str, str, dict[str, Any]]:
    """Name and message of the state in which a drill ends, and its document, whose note is in its artifact."""
    state = flows().restore_drill(archive, return_state=True)
    document: dict[str, Any] = state.result()
    assert document["archive"] in artifact("restore-drill")
    assert document["note"] in artifact("restore-drill")
    return state.name, str(state.message), document


@pytest.mark.slow
def test_a_drill_that_replayed_nothing_says_so(market: Path, tmp_path: Path) -> None:
    """A warning where there is a champion to replay, or a tracking database that the archive should have."""
    settings = load_settings()
    database = settings.root / "mlflow" / "mlflow.db"
    shutil.move(database, tmp_path / "mlflow.db")
    settings.reports_dir.mkdir(parents=True)
    (settings.reports_dir / "report.html").write_text("a report")
    untracked = flows().backup()["created"]["archive"]
    none = "It has no tracking database, so no forecast was replayed."
    name, _, document = drilled()
    assert (name, document["note"], document["replays"]) == ("Completed", none, [])

    shutil.move(tmp_path / "mlflow.db", database)
    name, message, document = drilled(untracked)
    assert (name, document["note"]) == ("CompletedWithWarning", none)
    assert message == f"Archive {untracked} was restored. {none}"

    flows().backup()
    name, _, document = drilled()
    assert (name, document["note"]) == (
        "Completed",
        "No model in it is a champion yet, so no forecast was replayed.",
    )

    published = forecast(market)
    registry = registry_from_settings(settings)
    registry.client.set_tag(published["run_id"], "status", "superseded")
    registry.client.set_terminated(published["run_id"], "FAILED")
    flows().backup()
    name, message, document = drilled()
    assert (name, [row["run_id"] for row in document["replays"]]) == ("CompletedWithWarning", [None])
    assert message.endswith(
        f"None of its champions has published a forecast yet, so none was replayed: {MODEL}."
    )


@pytest.mark.slow
def test_a_drill_leaves_folders_of_others_alone(market: Path) -> None:
    forecast(market)
    flows().backup()
    mine, killed = (load_settings().root / name / "x" for name in ("drill-results", ".drill-killed"))
    for path in (mine, killed):
        path.parent.mkdir()
        path.write_text("x")
    flows().restore_drill()
    assert mine.read_text() == "x"
    assert not killed.exists()


def test_a_drill_leaves_the_folder_of_one_that_goes_on(tmp_path: Path) -> None:
    with flows()._scratch(tmp_path) as one:
        one.mkdir()
        with flows()._scratch(tmp_path) as other:
            other.mkdir()
            assert one.is_dir()
        assert [path / "restored" for path in tmp_path.glob(".drill-*")] == [one]
        (tmp_path / ".drill-killed").mkdir()
        with flows()._scratch(tmp_path) as third:
            assert {path / "restored" for path in tmp_path.glob(".drill-*")} == {one, third}
    assert list(tmp_path.glob(".drill-*")) == []


@pytest.mark.slow
def test_a_drill_fails_where_a_forecast_cannot_be_made_again(market: Path) -> None:
    published = forecast(market)
    registry = registry_from_settings(load_settings())
    files = registry.client.get_run(published["run_id"]).info.artifact_uri.removeprefix("file://")
    members = Path(files) / "reports" / "members.json"
    members.write_text(members.read_text().replace("1", "2", 50))
    flows().backup()
    with pytest.raises(BackupError, match=f"the last forecasts of {MODEL} cannot be made again"):
        flows().restore_drill()
    assert "stored: impossible, recomputed: exact" in artifact("restore-drill")


@pytest.mark.slow
def test_a_drill_fails_where_the_archive_is_damaged(market: Path) -> None:
    forecast(market)
    flows().backup()
    for path in (load_settings().backups_dir / "objects").rglob("*"):
        if path.is_file() and path.stat().st_size > 10_000:
            path.write_bytes(path.read_bytes()[:-10])
    left, mine = load_settings().root / ".drill-killed", load_settings().root / "drill-results"
    left.mkdir()
    mine.mkdir()
    with pytest.raises(ArchiveRefused, match="cannot be read"):
        flows().restore_drill()
    assert list(load_settings().root.glob(".drill-*")) == []
    assert mine.is_dir(), "somebody's own"


@pytest.mark.slow
def test_files_that_are_missing_fail_the_flow_once(market: Path) -> None:
    forecast(market)
    flows().backup()
    registry = registry_from_settings(load_settings())
    champion = registry.standing(MODEL).champion
    assert champion is not None
    shutil.rmtree(registry.folder(champion))
    with pytest.raises(BackupError, match="files are missing that were there at the last one"):
        flows().backup()
    again = flows().backup()["created"]
    (lost,) = again["missing"]
    assert lost.endswith("/MLmodel is not there, nor are 2 more of its files")
    assert again["newly_missing"] == []


def runs_of(state: Any, count: int) -> tuple[Any, list[Any]]:
    """What the server keeps of a flow run, and of its task runs, of which there are so many."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    run_id = UUID(str(state.state_details.flow_run_id))
    until = time.monotonic() + 120
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        while True:  # it is told of tasks by and by
            tasks = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])), limit=200
            )
            ended = [one for one in tasks if one.state and one.state.is_final()]
            if len(ended) == len(tasks) == count or time.monotonic() > until:
                return run, tasks
            time.sleep(0.2)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again without a minute between."""
    assert flows().created.retry_delay_seconds == flows().RETRY_S
    monkeypatch.setattr(flows().created, "retry_delay_seconds", 0)


def test_a_full_disk_of_archives_fails_the_flow_after_three_attempts(
    small_disk: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, at_once: None
) -> None:
    """And that a flow failed is what people are told of."""
    disk = small_disk("100k")
    monkeypatch.setenv("FOREX_BACKUP__TO", str(disk / "archives"))
    attempts, create = list[float](), Backups.create

    def counted(backups: Backups, *arguments: Any, **options: Any) -> Any:
        attempts.append(time.monotonic())
        return create(backups, *arguments, **options)

    monkeypatch.setattr(Backups, "create", counted)
    state = flows().backup(return_state=True)
    run, (task,) = runs_of(state, 1)
    assert run.state.name == "Failed"
    assert re.search(r"BackupError: .*(No space left on device|disk is full).*; make room", run.state.message)
    assert (len(attempts), task.name.rpartition("-")[0], task.run_count) == (3, "create archive", 3)
    assert list(disk.glob("archives/*.zst")) == []
    assert list(disk.glob("archives/objects/*/*")) == []

    subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
    assert flows().backup()["created"]["missing"] == []
    assert len(attempts) == 4


def test_a_place_that_is_there_again_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at_once: None
) -> None:
    place, create = tmp_path / "archives", Backups.create
    place.write_text("")

    def mended(backups: Backups, *arguments: Any, **options: Any) -> Any:
        try:
            return create(backups, *arguments, **options)
        except BackupError:
            place.unlink()
            raise

    monkeypatch.setattr(Backups, "create", mended)
    state = flows().backup(to=str(place), return_state=True)
    run, tasks = runs_of(state, 2)
    assert run.state.name == "Completed"
    assert {task.name.rpartition("-")[0]: task.run_count for task in tasks} == {
        "create archive": 2,
        "prune archives": 1,
    }
    Backups(load_settings(), ArchivedStore()).verify(state.result()["created"]["archive"])
