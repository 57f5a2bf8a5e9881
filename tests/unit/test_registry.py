"""Versions, aliases and the best run, on real stores."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from forex_core.errors import InputError, TrackingError
from forex_core.tracking import Registry, Standing, Version
from forex_core.tracking import registry as room
from forex_core.tracking.registry import FILES_TAG, Pin
from forex_core.tracking.spool import log_model
from forex_core.types import Pair

NAME = "usdclp-7d"
EXPERIMENT = "forecaster_7d"
USDCLP = Pair("USD", "CLP")


class Store:
    """A registry, and what a test needs to fill it; `files` is a folder that MLflow would take for a model."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.registry = Registry(uri, (folder / "mlruns").as_uri(), folder)
        self.client = self.registry.client
        self.files = folder / "files"
        (self.files / "artifacts").mkdir(parents=True)
        (self.files / "MLmodel").write_text("flavors:\n  python_function: {}\n")
        (self.files / "artifacts" / "specification.json").write_text("{}")
        self._folder = folder

    def version(self, recipe: str = "a", **tags: str) -> Version:
        return self.registry.register_model(NAME, self.files.as_uri(), tags={"recipe": recipe} | tags)

    def crown(self, version: Version) -> Version:
        """Make it champion as a run does."""
        with self.registry.lock(NAME):
            self.registry.succeed(self.standing, version)
        return version

    @property
    def standing(self) -> Standing:
        return self.registry.standing(NAME)

    @property
    def aliases(self) -> dict[str, int]:
        return {name: int(number) for name, number in self.client.get_registered_model(NAME).aliases.items()}

    def tags(self, version: Version) -> dict[str, str]:
        found = dict(self.registry.version(NAME, version.number).tags)
        return {name: value for name, value in found.items() if name not in (FILES_TAG, "recipe")}

    def experiment(self) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        place = (self._folder / "mlruns" / EXPERIMENT).as_uri()
        return str(self.client.create_experiment(EXPERIMENT, place))

    def run(
        self, rmse: float | None = None, *, status: str = "FINISHED", pair: str = "USDCLP", **tags: str
    ) -> str:
        """A run with a model, and with a 7d_rmse unless that is None."""
        made = self.client.create_run(self.experiment(), tags={"pair": pair, "horizon": "7d"} | tags)
        run_id = str(made.info.run_id)
        if rmse is not None:
            self.client.log_metric(run_id, "7d_rmse", rmse)
        log_model(self.client, self.experiment(), run_id, self.files, "model")
        self.client.set_terminated(run_id, status)
        return run_id

    def model_of(self, run_id: str) -> str:
        outputs = self.client.get_run(run_id).outputs
        assert outputs is not None
        return str(outputs.model_outputs[0].model_id)


@pytest.fixture(params=["sqlite_store", "postgres_store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(request.getfixturevalue(request.param), tmp_path / "data" / "mlflow")


@pytest.fixture
def lite(sqlite_store: str, tmp_path: Path) -> Store:
    return Store(sqlite_store, tmp_path / "data" / "mlflow")


class TestRegistering:
    def test_takes_a_logged_model_the_model_of_a_run_and_a_folder(self, store: Store) -> None:
        run_id = store.run()
        model_id = store.model_of(run_id)
        first = store.registry.register_model(
            NAME, f"models:/{model_id}", "the first", {"recipe": "a", "rows": 900}
        )
        second = store.registry.register_model(NAME, f"runs:/{run_id}/model")
        third = store.registry.register_model(NAME, store.files.as_uri(), run_id=run_id)
        fourth = store.registry.register_model(NAME, f"{store.files}/")
        assert [v.number for v in (first, second, third, fourth)] == [1, 2, 3, 4]
        assert [v.run_id for v in (first, second, third, fourth)] == [run_id, run_id, run_id, None]
        assert first.source == second.source == store.client.get_logged_model(model_id).artifact_location
        found = store.client.get_model_version(NAME, "1")
        assert (found.description, found.status) == ("the first", "READY")
        assert (found.tags["recipe"], found.tags["rows"]) == ("a", "900")
        assert store.registry.versions(NAME) == [fourth, third, second, first]

    def test_takes_files_that_a_run_attached_as_artifacts(self, lite: Store) -> None:
        run_id = lite.run()
        lite.client.log_artifacts(run_id, str(lite.files), "attached")
        made = lite.registry.register_model(NAME, f"runs:/{run_id}/attached")
        assert made.source.endswith(f"{run_id}/artifacts/attached")

    def test_takes_the_newest_of_a_runs_models_of_one_name(self, lite: Store) -> None:
        run_id = lite.run()
        log_model(lite.client, lite.experiment(), run_id, lite.files, "model")
        newest = lite.client.get_run(run_id).outputs.model_outputs[-1].model_id
        made = lite.registry.register_model(NAME, f"runs:/{run_id}/model")
        assert made.source == lite.client.get_logged_model(newest).artifact_location

    @pytest.mark.parametrize(
        "address",
        [
            f"models:/m-{'0' * 32}",
            f"runs:/{'0' * 32}/model",
            "models:/usdclp-7d@champion",
            "models:/usdclp-7d/1",
            "runs:/model",
            "file:///nowhere",
            "nowhere",
            "",
        ],
    )
    def test_refuses_what_is_no_model(self, lite: Store, address: str) -> None:
        with pytest.raises(InputError, match=r"there is no model .*expected models:/m-"):
            lite.registry.register_model(NAME, address)
        assert lite.client.search_registered_models() == []

    def test_refuses_a_name_that_a_run_has_no_model_of(self, lite: Store) -> None:
        run_id = lite.run()
        with pytest.raises(InputError, match="there is no model"):
            lite.registry.register_model(NAME, f"runs:/{run_id}/other")

    def test_waits_until_the_version_is_ready(self, lite: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        polls = _pending(lite, monkeypatch, ready_after=3)
        monkeypatch.setattr(room.time, "sleep", lambda _: None)
        assert lite.version().number == 1
        assert len(polls) == 3

    def test_gives_up_at_the_time_limit(self, lite: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        polls = _pending(lite, monkeypatch, ready_after=10_000)
        clock = iter(range(0, 100_000, 100))
        monkeypatch.setattr(room.time, "sleep", lambda _: None)
        monkeypatch.setattr(room.time, "monotonic", lambda: float(next(clock)))
        with pytest.raises(TrackingError, match="version 1 of usdclp-7d is PENDING_REGISTRATION after 300 s"):
            lite.version()
        assert len(polls) == 2

    def test_names_the_versions_there_are(self, lite: Store) -> None:
        with pytest.raises(InputError, match="usdclp-7d has no version 3; it has none"):
            lite.registry.version(NAME, 3)
        lite.version()
        lite.version()
        with pytest.raises(InputError, match="usdclp-7d has no version 3; it has 2, 1"):
            lite.registry.version(NAME, 3)

    def test_a_name_with_a_quote_is_a_name(self, lite: Store) -> None:
        made = lite.registry.register_model("it's", lite.files.as_uri())
        assert lite.registry.versions("it's") == [made]


def _pending(store: Store, monkeypatch: pytest.MonkeyPatch, ready_after: int) -> list[str]:
    """Versions that take their time: no store of ours does, a server's registry may."""
    polls: list[str] = []
    create, get = store.client.create_model_version, store.client.get_model_version

    def pending(version: Any) -> Any:
        version._status = "PENDING_REGISTRATION"
        return version

    def poll(name: str, version: str) -> Any:
        polls.append(version)
        found = get(name, version)
        return found if len(polls) >= ready_after else pending(found)

    monkeypatch.setattr(store.client, "create_model_version", lambda *a, **k: pending(create(*a, **k)))
    monkeypatch.setattr(store.client, "get_model_version", poll)
    return polls


class TestStages:
    def test_production_is_champion_and_the_one_before_previous(self, store: Store) -> None:
        one, two, three = store.version("a"), store.version("b"), store.version("c")
        store.registry.transition_model_stage(NAME, one.number, "Production")
        assert store.aliases == {"champion": 1}
        store.registry.transition_model_stage(NAME, str(two.number), "Production")
        assert store.aliases == {"champion": 2, "previous": 1}
        store.registry.transition_model_stage(NAME, three.number, "Staging")
        assert store.aliases == {"champion": 2, "previous": 1, "challenger": 3}
        store.registry.transition_model_stage(NAME, three.number, "Production")
        assert store.aliases == {"champion": 3, "previous": 2}
        store.registry.transition_model_stage(NAME, three.number, "Production")
        assert store.aliases == {"champion": 3, "previous": 2}, "a champion stays what it is"
        assert all(store.tags(v) == {} for v in (one, two, three))

    def test_staging_takes_the_alias_from_its_holder(self, lite: Store) -> None:
        one, two = lite.version("a"), lite.version("b")
        lite.registry.transition_model_stage(NAME, one.number, "Staging")
        lite.registry.transition_model_stage(NAME, two.number, "Staging")
        assert lite.aliases == {"challenger": 2}

    @pytest.mark.parametrize("stage", ["Staging", "Archived", "None", None])
    def test_a_champion_stays_until_another_is(self, lite: Store, stage: Any) -> None:
        one, two = lite.crown(lite.version("a")), lite.version("b")
        with pytest.raises(
            InputError, match=f"version 1 of usdclp-7d is champion, and as {stage} .* promote another"
        ):
            lite.registry.transition_model_stage(NAME, one.number, stage)
        assert lite.aliases == {"champion": 1}
        assert lite.tags(one) == {}
        lite.registry.transition_model_stage(NAME, two.number, "Production")
        lite.registry.transition_model_stage(NAME, one.number, stage)
        assert lite.standing.champion == two

    @pytest.mark.parametrize("stage", ["Archived", "None", None])
    def test_archived_and_none_take_the_aliases_away(self, lite: Store, stage: Any) -> None:
        one, two, three = lite.version("a"), lite.version("b"), lite.version("c")
        lite.crown(one)
        lite.crown(two)
        lite.registry.challenge(three)
        for version in (one, three):
            lite.registry.transition_model_stage(NAME, version.number, stage)
            assert lite.tags(version) == ({"stage": "Archived"} if stage == "Archived" else {})
        assert lite.aliases == {"champion": 2}
        lite.registry.transition_model_stage(NAME, one.number, "Production")
        assert lite.aliases == {"champion": 1, "previous": 2}
        assert lite.tags(one) == {}

    def test_production_ends_the_reign_of_a_pinned_champion(self, lite: Store) -> None:
        one, two, three = lite.version("a"), lite.version("b"), lite.version("c")
        lite.crown(one)
        with lite.registry.lock(NAME):
            lite.registry.enthrone(two, Pin("ana", "2026-11-20", "why", replaced=one.number))
        assert lite.standing.pin is not None
        lite.registry.transition_model_stage(NAME, three.number, "Production")
        assert lite.standing.pin is None
        assert lite.aliases == {"champion": 3, "previous": 2}
        lite.registry.transition_model_stage(NAME, two.number, "Production")
        assert lite.standing.pin is None, "the pin of an earlier reign is over"

    def test_of_a_pinned_champion_leaves_it_pinned(self, lite: Store) -> None:
        one, two = lite.version("a"), lite.version("b")
        lite.crown(one)
        pin = Pin("ana", "2026-11-20", "why", replaced=one.number)
        with lite.registry.lock(NAME):
            lite.registry.enthrone(two, pin)
        lite.registry.transition_model_stage(NAME, two.number, "Production")
        assert lite.standing.pin == pin

    def test_production_is_no_longer_rolled_back(self, lite: Store) -> None:
        one, two = lite.version("a"), lite.version("b")
        lite.crown(one)
        with lite.registry.lock(NAME):
            lite.registry.enthrone(two, Pin("ana", "2026-11-20", "why", replaced=one.number))
        assert lite.registry.version(NAME, one.number).rolled_back
        assert lite.registry.transition_model_stage(NAME, one.number, "Production").rolled_back is False

    @pytest.mark.parametrize("stage", ["production", "Champion", "", 3])
    def test_refuses_an_unknown_stage(self, lite: Store, stage: Any) -> None:
        lite.version()
        with pytest.raises(
            InputError, match="is no stage; expected one of Production, Staging, Archived, None"
        ):
            lite.registry.transition_model_stage(NAME, 1, stage)

    @pytest.mark.parametrize("version", [2, "2", "one", "-1", "", "²", "1.0"])
    def test_refuses_an_unknown_version(self, lite: Store, version: Any) -> None:
        lite.crown(lite.version())
        with pytest.raises(
            InputError, match=r"usdclp-7d has no version 2; it has 1|is no version of usdclp-7d"
        ):
            lite.registry.transition_model_stage(NAME, version, "Production")
        assert lite.aliases == {"champion": 1}


class TestStanding:
    def test_of_an_unknown_model_nobody_is_anything(self, store: Store) -> None:
        assert store.standing == Standing(NAME)
        assert store.standing.document() == {
            "model": NAME,
            "champion": None,
            "challenger": None,
            "previous": None,
            "pin": None,
        }

    def test_tells_who_is_who_and_when_a_contest_was(self, store: Store) -> None:
        one, two, three = store.version("a"), store.version("b"), store.version("b")
        store.crown(one)
        store.crown(two)
        store.registry.challenge(three)
        store.registry.note_contest(NAME, date(2026, 11, 2))
        standing = store.standing
        assert (standing.champion, standing.challenger, standing.previous) == (two, three, one)
        assert standing.decided_on == date(2026, 11, 2)

    def test_previous_is_the_last_champion_of_another_recipe(self, lite: Store) -> None:
        lite.crown(lite.version("a"))
        lite.crown(lite.version("a"))
        assert lite.aliases == {"champion": 2, "previous": 1}, "of the same, where there is no other"
        lite.crown(lite.version("a"))
        assert lite.aliases == {"champion": 3, "previous": 2}
        lite.crown(lite.version("b"))
        assert lite.aliases == {"champion": 4, "previous": 3}
        lite.crown(lite.version("b"))
        assert lite.aliases == {"champion": 5, "previous": 3}, "not one of its own recipe"
        lite.crown(lite.version("c"))
        assert lite.aliases == {"champion": 6, "previous": 5}

    def test_a_successor_ends_the_trial_of_its_own_recipe_and_of_no_other(self, lite: Store) -> None:
        lite.crown(lite.version("a"))
        rival = lite.version("b")
        lite.registry.challenge(rival)
        lite.crown(lite.version("a"))
        assert lite.standing.challenger == rival
        lite.crown(lite.version("b"))
        assert lite.standing.challenger is None

    def test_unpinning_lets_the_champion_go(self, lite: Store) -> None:
        one = lite.version()
        with lite.registry.lock(NAME):
            lite.registry.enthrone(one, Pin("ana", "2026-11-20", "why"))
        assert str(lite.standing.pin) == "why (ana, 2026-11-20)"
        lite.registry.unpin(lite.standing)
        assert lite.standing.pin is None
        assert lite.tags(one) == {}
        lite.registry.unpin(lite.standing)

    def test_a_restored_champion_needs_a_pinned_one(self, lite: Store) -> None:
        one = lite.crown(lite.version())
        with pytest.raises(TrackingError, match="nothing to undo"):
            lite.registry.restore(lite.standing, one)

    def test_published_is_noted_once(self, lite: Store) -> None:
        one = lite.version()
        lite.registry.mark_published(one)
        again = lite.registry.version(NAME, one.number)
        assert again.published
        lite.registry.mark_published(again)
        assert lite.tags(one) == {"published": "true"}

    def test_is_of_one_instant(self, lite: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """An undo between reading who is champion and reading its pin must not show a champion that is let go."""
        one, two = lite.version("a"), lite.version("b")
        lite.crown(one)
        with lite.registry.lock(NAME):
            lite.registry.enthrone(two, Pin("ana", "2026-11-20", "why", replaced=one.number))
        other = Registry(lite.registry.uri)
        get, read = lite.client.get_registered_model, []

        def undone_after(name: str) -> Any:
            found = get(name)
            if not read:
                read.append(name)
                other.restore(other.standing(NAME), one)
            return found

        monkeypatch.setattr(lite.client, "get_registered_model", undone_after)
        standing = lite.standing
        assert standing.champion is not None
        assert (standing.champion.number, standing.pin) == (1, None)

    def test_outlives_the_deletion_of_a_version(self, lite: Store) -> None:
        one, two = lite.version("a"), lite.version("b")
        lite.crown(one)
        with lite.registry.lock(NAME):
            lite.registry.enthrone(two, Pin("ana", "2026-11-20", "why", replaced=one.number))
        lite.client.delete_model_version(NAME, "1")
        lite.crown(lite.version("c"))
        assert lite.aliases == {"champion": 3, "previous": 2}
        lite.client.delete_model_version(NAME, "3")
        assert lite.standing.champion is None


class TestLock:
    def test_is_one_process_at_a_time_and_one_model_at_a_time(self, store: Store) -> None:
        other = Registry(store.registry.uri)
        with store.registry.lock(NAME):
            with (
                pytest.raises(TrackingError, match="another 'change-of-champion-usdclp-7d' is running"),
                other.lock(NAME, 0),
            ):
                raise AssertionError("two hold it")
            with other.lock("usdclp-15d", 0):
                pass
        with other.lock(NAME, 0):
            pass

    @pytest.mark.slow
    def test_opens_a_store_that_is_not_there_yet(self, tmp_path: Path, sqlite_store: str) -> None:
        fresh = Registry(f"sqlite:///{tmp_path / 'other' / 'deep' / 'mlflow.db'}")
        with fresh.lock(NAME, 0):
            assert fresh.standing(NAME).champion is None


class TestBestRun:
    def test_is_a_finished_run_with_a_finite_value_and_a_model(self, store: Store) -> None:
        registry = store.registry

        def best(mode: Any = "min") -> str | None:
            found = registry.get_best_run("7d_rmse", mode, pair=USDCLP)
            return found.id if found else None

        assert best() is None, "no experiment"
        store.run(None)
        store.run(float("nan"))
        store.run(float("inf"))
        store.run(float("-inf"))
        for wanting in (1.0, 99.0):
            store.run(wanting, status="FAILED")
            store.run(wanting, status="RUNNING")
            store.run(wanting, pair="EURUSD")
            for lost in ("MLmodel", "artifacts/specification.json"):
                files = registry.client.get_logged_model(store.model_of(store.run(wanting))).artifact_location
                (Path(files.removeprefix("file://")) / lost).unlink()
        assert (best("min"), best("max")) == (None, None)
        low, high = store.run(10.0), store.run(20.0)
        assert (best("min"), best("max")) == (low, high)
        assert registry.get_best_run("7d_mape", pair=USDCLP) is None

    def test_refuses_a_metric_without_a_horizon_and_a_mode_that_is_none(self, lite: Store) -> None:
        with pytest.raises(InputError):
            lite.registry.get_best_run("rmse", pair=USDCLP)
        lite.run(3.0)
        with pytest.raises(InputError, match="mode"):
            lite.registry.get_best_run("7d_rmse", "least", pair=USDCLP)  # type: ignore[arg-type]
        assert lite.registry.get_best_run("rmse", pair=USDCLP, experiment_name=EXPERIMENT) is None

    def test_is_of_one_pair(self, lite: Store) -> None:
        lite.run(3.0, pair="EURUSD")
        with pytest.raises(TypeError, match="'pair'"):
            lite.registry.get_best_run("7d_rmse")  # type: ignore[call-arg]

    def test_run_info_is_found_by_the_beginning_of_the_id(self, lite: Store) -> None:
        run_id = lite.run(3.0, verdict="none")
        info = lite.registry.get_run_info(run_id[:8])
        assert (info.id, info.pair, info.metrics, info.tags["verdict"]) == (
            run_id,
            "USDCLP",
            {"7d_rmse": 3.0},
            "none",
        )
        with pytest.raises(InputError):
            lite.registry.get_run_info("0" * 32)


class TestMetricOfAVersion:
    def test_is_of_the_version_and_not_of_what_its_run_published(self, lite: Store) -> None:
        run_id = lite.run(10.0, published_version="1")
        lite.client.log_metric(run_id, "challenger_7d_rmse", 12.0)
        lite.version(run="none")
        learned = lite.registry.register_model(NAME, f"runs:/{run_id}/model")
        assert learned.number == 2
        assert lite.registry.metric_of(learned, "7d_rmse") == 12.0

    def test_is_of_the_run_where_that_published_it(self, lite: Store) -> None:
        run_id = lite.run(10.0, published_version="1")
        learned = lite.registry.register_model(NAME, f"runs:/{run_id}/model")
        assert lite.registry.metric_of(learned, "7d_rmse") == 10.0
        assert lite.registry.metric_of(learned, "7d_mape") is None

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None])
    def test_is_none_without_a_finite_value(self, lite: Store, value: float | None) -> None:
        learned = lite.registry.register_model(NAME, f"runs:/{lite.run(value)}/model")
        assert lite.registry.metric_of(learned, "7d_rmse") is None

    def test_is_none_of_a_run_that_failed_or_is_gone(self, lite: Store) -> None:
        failed, deleted = lite.run(1.0, status="FAILED"), lite.run(1.0)
        versions = [
            lite.registry.register_model(NAME, f"runs:/{run_id}/model") for run_id in (failed, deleted)
        ]
        lite.client.delete_run(deleted)
        versions.append(lite.registry.register_model(NAME, lite.files.as_uri(), run_id="0" * 32))
        versions.append(lite.version())
        assert [lite.registry.metric_of(v, "7d_rmse") for v in versions] == [None] * 4


class TestFiles:
    def test_are_refused_where_they_are_not_those_that_were_registered(self, lite: Store) -> None:
        made = lite.version()
        assert lite.registry.folder(made) == lite.files
        (lite.files / "registered_model_meta").write_text("what loading a model leaves")
        cached = lite.files / "code" / "__pycache__"
        cached.mkdir(parents=True)
        (cached / "x.pyc").write_bytes(b"and what importing does")
        with pytest.raises(TrackingError, match=r"lacks|cannot be used"):
            lite.registry.model(made)  # an empty specification, but no alteration
        lite.files.rename(lite.files.with_name("elsewhere"))
        with pytest.raises(
            TrackingError, match=r"the files of version 1 of usdclp-7d are not at .*restore them"
        ):
            lite.registry.folder(made)


PROCESSES = """
import os, sys, time
from forex_core.tracking import Registry
import mlflow.store.model_registry.sqlalchemy_store
uri, files = sys.argv[1:]
start = time.monotonic() + 0.3
children = []
for number in map(str, range(8)):
    child = os.fork()
    if child:
        children.append(child)
        continue
    registry = Registry(uri)
    registry.client
    time.sleep(max(0, start - time.monotonic()))
    for turn in range(2):
        with registry.lock("usdclp-7d"):
            tags = {"recipe": f"{number}-{turn}", "by": number}
            made = registry.register_model("usdclp-7d", files, tags=tags)
            registry.succeed(registry.standing("usdclp-7d"), made)
        os.write(1, f"{made.number}\\n".encode())
    os._exit(0)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""
"""Forked before anything is opened, so that MLflow is imported once."""


@pytest.mark.slow
def test_eight_processes_that_register_and_succeed_lose_nothing(store: Store) -> None:
    command = [sys.executable, "-c", PROCESSES, store.registry.uri, store.files.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    numbers = sorted(int(line) for line in done.stdout.split())
    assert numbers == list(range(1, 17))
    versions = store.registry.versions(NAME)
    assert [v.number for v in versions] == numbers[::-1]
    by = [v.tags["by"] for v in versions]
    assert {name: by.count(name) for name in by} == dict.fromkeys(map(str, range(8)), 2)
    assert store.aliases == {"champion": 16, "previous": 15}
    assert all(set(v.tags) == {"recipe", "by", FILES_TAG} for v in versions), "nothing is left unfinished"
