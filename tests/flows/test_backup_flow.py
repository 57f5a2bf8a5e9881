"""The flows that make archives and prove that they can be used, on a real Prefect server."""

from __future__ import annotations

import shutil
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

pytestmark = [pytest.mark.usefixtures("prefect_server", "kept_pictures", "light"), pytest.mark.timeout(280)]

MODEL = model_name(Pair("USD", "CLP"), Horizon(7))


def forecast(market: Path) -> dict[str, Any]:
    from flows.forecast import FLOWS

    return FLOWS[Horizon(7)](pair="USDCLP", source="csv", paths=[market], as_of=date(2018, 6, 8))


def flows() -> Any:
    from flows import backup

    return backup


def artifact(key: str) -> str:
    """The text of the newest artifact of this key."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    return str(max(found, key=lambda one: one.created).data)


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


def test_a_drill_replays_what_the_champion_published(market: Path) -> None:
    published = forecast(market)
    made = flows().backup()
    settings = load_settings()
    # Nothing may come from the live folder.
    shutil.move(settings.root / "mlflow", settings.root.parent / "gone")
    done = flows().restore_drill()
    assert done["archive"] == made["created"]["archive"]
    (row,) = done["replays"]
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


def test_a_flow_run_that_fails_is_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client

    (tmp_path / "a file").write_text("")
    monkeypatch.setattr(flows().created, "retries", 0)
    state = flows().backup(to=str(tmp_path / "a file"), return_state=True)
    assert state.is_failed()
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(str(state.state_details.flow_run_id)))
        assert run.state is not None
        assert run.state.is_failed()
        assert "the archive could not be made" in str(run.state.message)
