"""What the listings say of a store without what was asked for: which store it is, and what to do."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import pytest

from forex_core.tracking import open_store

if TYPE_CHECKING:
    from mlflow import MlflowClient

Entry = Callable[..., "CompletedProcess[str]"]


class Store:
    def __init__(self, path: Path) -> None:
        self.uri = f"sqlite:///{path}"
        self.client: MlflowClient = open_store(self.uri)
        self.folder = path.parent

    def run(self, experiment: str, status: str = "FINISHED", rmse: float | None = None, **tags: str) -> str:
        found = self.client.get_experiment_by_name(experiment)
        place = (self.folder / "mlruns" / experiment).as_uri()
        number = found.experiment_id if found else self.client.create_experiment(experiment, place)
        made = self.client.create_run(number, tags={"pair": "USDCLP", "horizon": "7d"} | tags)
        if rmse is not None:
            self.client.log_metric(made.info.run_id, "7d_rmse", rmse)
        self.client.set_terminated(made.info.run_id, status)
        return str(made.info.run_id)

    def version(self, run_id: str, alias: str, **tags: str) -> None:
        if not self.client.search_registered_models():
            self.client.create_registered_model("usdclp-7d")
        made = self.client.create_model_version("usdclp-7d", self.folder.as_uri(), run_id, tags)
        self.client.set_registered_model_alias("usdclp-7d", alias, made.version)


@pytest.fixture
def store(tmp_path: Path, migrated_sqlite: Path) -> Store:
    path = tmp_path / "data" / "mlflow" / "mlflow.db"
    path.parent.mkdir(parents=True)
    shutil.copyfile(migrated_sqlite, path)
    return Store(path)


def document(entry: Entry, *arguments: str) -> Any:
    done = entry(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def table(entry: Entry, *arguments: str) -> list[dict[str, str]]:
    done = entry(*arguments, "--csv")
    assert (done.returncode, done.stderr) == (0, "")
    return list(csv.DictReader(io.StringIO(done.stdout), strict=True))


def test_a_deleted_experiment_is_an_error_with_its_cure(store: Store, entry: Entry) -> None:
    run_id = store.run("forecaster_7d", rmse=1.0)
    store.client.delete_experiment("1")
    cure = "'mlflow experiments restore -x 1'"
    for arguments in (("list", "7d"), ("best", "7d"), ("compare", "7d"), ("show", run_id[:8])):
        done = entry("runs", *arguments)
        assert (done.returncode, done.stdout) == (1, ""), arguments
        said = " ".join(done.stderr.split())
        assert said.startswith(f"error: experiment forecaster_7d was deleted in {store.uri}; restore it")
        assert cure in said
    said = entry("experiments", "list").stdout
    assert f"forecaster_7d was deleted; {cure}" in said
    (row,) = document(entry, "experiments", "list")["experiments"]
    assert (row["deleted"], row["finished"]) == (True, 1)
    (line,) = table(entry, "experiments", "list")
    assert line["deleted"] == "true"
    store.client.restore_experiment("1")
    assert run_id[:8] in entry("runs", "list", "7d").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("experiments", "list"),
        ("runs", "list", "7d"),
        ("runs", "list", "7d", "--status", "failed"),
        ("runs", "best", "7d"),
        ("runs", "compare", "7d"),
        ("models", "list"),
        ("models", "list", "--pair", "XXXYYY"),
        ("models", "history"),
    ],
)
@pytest.mark.parametrize("made", [True, False])
def test_a_listing_that_finds_nothing_names_its_store(
    arguments: tuple[str, ...], made: bool, entry: Entry, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if made:
        request.getfixturevalue("store")
    uri = f"sqlite:///{tmp_path / 'data' / 'mlflow' / 'mlflow.db'}"
    done = entry(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert uri in done.stdout
    assert done.stdout.splitlines()[0].strip()
    assert document(entry, *arguments)["store"] == uri


def test_a_store_is_named_without_its_password(
    new_postgres: Callable[..., str], entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = new_postgres()
    assert uri.count("@") == 1
    monkeypatch.setenv("FOREX_TRACKING_URI", uri.replace("@", ":hidden@"))
    done = entry("models", "list")
    assert done.returncode == 0, done.stderr
    assert uri.replace("@", ":***@") in done.stdout
    assert "hidden" not in done.stdout


def test_models_of_a_pair_without_any_are_not_told_from_an_empty_store(store: Store, entry: Entry) -> None:
    store.version(store.run("forecaster_7d"), "champion")
    assert entry("models", "list", "--pair", "XXXYYY").stdout.startswith("No registered models of XXXYYY in")
    assert "usdclp-7d" in entry("models", "list").stdout


def test_tags_of_versions_are_told_once_and_as_what_they_are(store: Store, entry: Entry) -> None:
    mark = {"by": "ana@desk", "at": "2026-11-20T16:14:00+00:00", "reason": "too narrow"}
    store.version(store.run("forecaster_7d"), "champion", published="true", recipe="abc", note="kept")
    store.version(store.run("forecaster_7d"), "challenger", rolled_back=json.dumps(mark), pin="of old")
    later, first = document(entry, "models", "list")["models"]
    assert (later["published"], first["published"]) == (False, True)
    assert (later["rolled_back"], later["pin"]) == (mark, "of old")
    assert (first["rolled_back"], first["pin"]) == (None, None)
    assert (later["tags"], first["tags"]) == ({}, {"note": "kept"})
    row = table(entry, "models", "list")[0]
    assert (json.loads(row["rolled_back"]), row["published"]) == (mark, "false")
    assert "too narrow (ana@desk, 2026-11-20 16:14)" in entry("models", "list").stdout


def test_a_mistyped_metric_is_an_input_error(store: Store, entry: Entry) -> None:
    store.run("forecaster_7d", rmse=1.0)
    done = entry("runs", "best", "7d", "--metric", "7d_rsme")
    assert (done.returncode, done.stdout) == (2, "")
    assert "near it are 7d_rmse" in " ".join(done.stderr.split())
    done = entry("runs", "best", "7d", "--pair", "EURUSD")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_status_lists_them_as_the_help_does(store: Store, entry: Entry) -> None:
    done = entry("runs", "list", "7d", "--status", "bad")
    assert done.returncode == 2
    names = "finished, failed, killed, running, scheduled"
    assert names in " ".join(done.stderr.split())


def test_changes_by_hand_have_a_list_of_their_own(store: Store, entry: Entry) -> None:
    told = {"action": "rollback", "model": "usdclp-7d", "from_version": "3", "to_version": "2"}
    run_id = store.run("operations", by="ana@desk", reason="too narrow", **told)
    said = entry("models", "history").stdout
    for part in ("rollback", "usdclp-7d", "v3", "v2", "FINISHED", f"{run_id[:8]} by ana@desk: too narrow"):
        assert part in said
    (row,) = document(entry, "models", "history", "--pair", "USDCLP")["changes"]
    assert (row["run_id"], row["from_version"], row["to_version"]) == (run_id, 3, 2)
    (line,) = table(entry, "models", "history")
    assert (line["by"], line["reason"], line["action"]) == ("ana@desk", "too narrow", "rollback")
    assert document(entry, "models", "history", "--pair", "EURUSD")["changes"] == []
    assert "window" not in entry("runs", "show", run_id[:8]).stdout


def test_a_move_tells_where_the_database_of_before_is(store: Store, entry: Entry, tmp_path: Path) -> None:
    run_id = store.run("forecaster_7d")
    old, new = tmp_path / "data" / "mlflow" / "mlruns", tmp_path / "data" / "elsewhere"
    (old / "note.txt").parent.mkdir(exist_ok=True)
    (old / "note.txt").write_text("here")
    store.client.log_artifact(run_id, str(old / "note.txt"))
    shutil.copytree(old, new)
    done = entry("tracking", "relocate", "--from", str(old), "--to", str(new))
    assert done.returncode == 0, done.stderr
    (kept,) = store.folder.glob("before-relocate-*.db")
    assert f"The database as it was: {kept}" in done.stdout
    assert "artifact_uri" not in done.stdout
    back = document(entry, "tracking", "relocate", "--from", str(new), "--to", str(old))
    assert Path(back["backup"]).is_file()
    assert back["backup"] != str(kept)


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({}, "'forex promote 7d --pair USDCLP --to 3'"),
        ({"before": {"pin": {"by": "ana"}}}, "'forex rollback 7d --pair USDCLP --to 3'"),
        ({"dry_run": True}, None),
        ({"action": "unpin"}, None),
    ],
)
def test_a_promotion_prints_the_way_back(changes: dict[str, Any], command: str | None) -> None:
    from forex_core.cli.succession import way_back

    told = {"action": "promote", "dry_run": False, "horizon": "7d", "pair": "USDCLP", "from_version": 3}
    lines = [str(line) for line in way_back(told | {"before": {"pin": None}} | changes)]
    assert [line.split(" puts ")[0] for line in lines] == ([command] if command else [])
