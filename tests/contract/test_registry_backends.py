"""Registry, listings, replay and rollback, alike over every back end: SQLite, PostgreSQL, a tracking server that hands
out the files, and files in an S3 bucket."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from forex_core.champion import Choice, Decision
from forex_core.cli import app
from forex_core.config import ChronosConfig, EngineConfig, load_settings
from forex_core.data.snapshot import write_snapshot
from forex_core.databases import is_database
from forex_core.engine import Engine, build_members
from forex_core.errors import InputError, TrackingError
from forex_core.report.document import forecast_document, replay_record
from forex_core.specification import Specification, frame_of
from forex_core.testing import synthetic_bundle
from forex_core.tracking import (
    AUDIT,
    MLflowTracker,
    Record,
    Registry,
    Standing,
    Version,
    tracker_from_settings,
)
from forex_core.tracking import registry as room
from forex_core.tracking.build import connect
from forex_core.tracking.candidacy import Candidacy
from forex_core.tracking.packaging import MODEL, save_model
from forex_core.tracking.registry import FILES_TAG, Pin
from forex_core.tracking.replay import replay
from forex_core.tracking.rollback import Succession, latest_snapshot
from forex_core.types import ForecastRun, Horizon, MarketBundle, Pair

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME, EXPERIMENT = "usdclp-7d", "forecaster_7d"
USDCLP, WEEK = Pair("USD", "CLP"), Horizon(7)
RECIPES = {"a": 120.0, "b": 110.0, "c": 100.0}
"""Weight rates: with one member they change the recipe and no forecast."""


def config_of(recipe: str) -> EngineConfig:
    return EngineConfig(
        members=("random_walk",),
        min_members=1,
        grid_origins=60,
        warmup_origins=8,
        weight_rate=RECIPES[recipe],
    )


@dataclass(frozen=True)
class Shelf:
    """One forecast, and its model as a folder that is saved once and copied."""

    place: Path
    market: MarketBundle
    run: ForecastRun
    specification: Specification

    def model(self, folder: Path, recipe: str = "a") -> tuple[Path, Specification]:
        config = config_of(recipe)
        made = replace(
            self.specification,
            recipe=Engine(config, build_members(config, ChronosConfig())).recipe,
            engine_settings=config.model_dump(mode="json"),
        )
        shutil.copytree(self.place, folder, dirs_exist_ok=True)
        (folder / "artifacts" / "specification.json").write_text(made.to_json())
        return folder, made


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    market, config = synthetic_bundle(700), config_of("a")
    run = Engine(config, build_members(config, ChronosConfig())).forecast(market, WEEK)
    specification = Specification.of(run, market, config, ChronosConfig())
    place = save_model(specification, frame_of(market), tmp_path_factory.mktemp("shelf") / "model")
    return Shelf(place, market, run, specification)


class Backend:
    """A store, the place of its files, and how a test gets at both.

    Args:
        artifacts: root of the files as trackers are given it; None where the server chooses.
        files: a local folder that holds them, or
        bucket: the bucket that does.
    """

    def __init__(
        self,
        uri: str,
        folder: Path,
        artifacts: str | None,
        files: Path | None = None,
        bucket: Any = None,
    ) -> None:
        self.uri, self.folder, self.artifacts = uri, folder, artifacts
        self._files, self._bucket = files, bucket
        self.registry = self.fresh()
        self._scratch = folder / "scratch"
        self.plain = self._scratch / "plain"
        (self.plain / "artifacts").mkdir(parents=True)
        (self.plain / "MLmodel").write_text("flavors:\n  python_function: {}\n")
        (self.plain / "artifacts" / "specification.json").write_text("{}")

    @property
    def client(self) -> MlflowClient:
        return self.registry.client

    @property
    def aliases(self) -> dict[str, int]:
        return {name: int(number) for name, number in self.client.get_registered_model(NAME).aliases.items()}

    @property
    def standing(self) -> Standing:
        return self.registry.standing(NAME)

    def fresh(self) -> Registry:
        """A registry as another process has it."""
        return Registry(self.uri, self.artifacts, self.folder)

    def tracker(self, experiment: str = EXPERIMENT) -> MLflowTracker:
        return MLflowTracker(self.uri, experiment, artifact_location=self.artifacts, below=self.folder)

    def log(self, folder: Path | None = None, rmse: float | None = None, **tags: str) -> tuple[str, str]:
        """A finished run with a model; its id and the model's address."""
        with self.tracker() as tracker:
            tracker.set_tags({"pair": "USDCLP", "horizon": "7d", "environment": "development"} | tags)
            if rmse is not None:
                tracker.log_metrics({"7d_rmse": rmse})
            address = tracker.log_model(folder or self.plain, MODEL)
        assert tracker.degraded is None
        assert address is not None
        return str(tracker.run_id), address

    def version(self, recipe: str = "a") -> Version:
        return self.registry.register_model(NAME, self.log()[1], tags={"recipe": recipe})

    def real_version(self, shelf: Shelf, recipe: str = "a") -> Version:
        folder, specification = shelf.model(self._scratch / f"model-{recipe}", recipe)
        tags = {"recipe": specification.recipe, "trained_until": specification.state.trained_until}
        made = self.registry.register_model(NAME, self.log(folder)[1], tags=tags, files=folder)
        self.registry.mark_published(made)
        return self.registry.version(NAME, made.number)

    def crown(self, version: Version) -> Version:
        with self.registry.lock(NAME):
            self.registry.succeed(self.standing, version)
        return version

    # --- the files as they lie

    def place(self, address: str) -> str:
        """Where the files of a logged model are."""
        return str(self.client.get_logged_model(address.removeprefix("models:/")).artifact_location)

    def read(self, address: str) -> bytes:
        if self._bucket is not None:
            key = address.removeprefix(f"s3://{self._bucket.name}/")
            return bytes(self._bucket.client.get_object(Bucket=self._bucket.name, Key=key)["Body"].read())
        return self._local(address).read_bytes()

    def write(self, address: str, content: bytes) -> None:
        if self._bucket is not None:
            key = address.removeprefix(f"s3://{self._bucket.name}/")
            self._bucket.client.put_object(Bucket=self._bucket.name, Key=key, Body=content)
        else:
            self._local(address).write_bytes(content)

    def remove(self, address: str) -> None:
        """A file, or a folder with all that is in it."""
        if self._bucket is not None:
            name, prefix = self._bucket.name, address.removeprefix(f"s3://{self._bucket.name}/")
            for item in self._bucket.client.list_objects_v2(Bucket=name, Prefix=prefix)["Contents"]:
                self._bucket.client.delete_object(Bucket=name, Key=item["Key"])
        elif self._local(address).is_dir():
            shutil.rmtree(self._local(address))
        else:
            self._local(address).unlink()

    def _local(self, address: str) -> Path:
        if address.startswith("mlflow-artifacts:/"):
            assert self._files is not None
            return self._files / address.removeprefix("mlflow-artifacts:/")
        return Path(address.removeprefix("file://"))


@pytest.fixture(
    params=[
        "sqlite",
        "postgresql",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("server", "s3")),
    ]
)
def backend(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """One of the four, which the settings of the environment name as well."""
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    local = (folder / "mlflow" / "mlruns").as_uri()
    files = bucket = None
    uri = str(request.getfixturevalue("postgres_store")) if request.param == "postgresql" else ""
    if request.param == "server":
        server = request.getfixturevalue("server_store")
        uri, artifacts, files = server.uri, None, server.files
        monkeypatch.setenv("FOREX_ARTIFACT_URI", "mlflow-artifacts:/")
    elif request.param == "s3":
        bucket = request.getfixturevalue("s3_bucket")
        uri, artifacts = request.getfixturevalue("sqlite_store"), f"s3://{bucket.name}/forex"
        for name, value in (bucket.settings | {"FOREX_ARTIFACT_URI": artifacts}).items():
            monkeypatch.setenv(name, value)
    else:
        uri, artifacts = uri or request.getfixturevalue("sqlite_store"), local
    monkeypatch.setenv("FOREX_TRACKING_URI", uri)
    connect(load_settings())
    return Backend(uri, folder, artifacts, files, bucket)


# --- registering


def test_takes_a_logged_model_the_model_of_a_run_and_files_that_a_run_attached(backend: Backend) -> None:
    with backend.tracker() as tracker:
        address = str(tracker.log_model(backend.plain, MODEL))
        tracker.log_artifacts_dir(backend.plain, "attached")
    run_id = str(tracker.run_id)
    register = backend.registry.register_model
    first = register(NAME, address, "the first", {"recipe": "a", "rows": 900}, files=backend.plain)
    second = register(NAME, f"runs:/{run_id}/{MODEL}")
    third = register(NAME, f"runs:/{run_id}/attached")
    assert [v.number for v in (first, second, third)] == [1, 2, 3]
    assert {v.run_id for v in (first, second, third)} == {run_id}
    assert first.source == second.source == backend.place(address)
    assert third.source.endswith(f"{run_id}/artifacts/attached")
    found = backend.client.get_model_version(NAME, "1")
    assert (found.description, found.status) == ("the first", "READY")
    assert (found.tags["recipe"], found.tags["rows"]) == ("a", "900")
    digests = {v.tags[FILES_TAG] for v in (first, second, third)}
    assert len(digests) == 1, "of local files and of those in the store"
    assert backend.registry.versions(NAME) == [third, second, first]
    with pytest.raises(InputError, match="usdclp-7d has no version 9; it has 3, 2, 1"):
        backend.registry.version(NAME, 9)


def test_takes_a_model_that_no_run_made(backend: Backend, tmp_path: Path) -> None:
    with backend.tracker():
        pass  # makes the experiment
    experiment = backend.client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    logged = backend.client.create_logged_model(experiment.experiment_id, name="alone")
    backend.client.log_model_artifacts(logged.model_id, str(backend.plain))
    backend.client.finalize_logged_model(logged.model_id, "READY")
    made = backend.registry.register_model(NAME, f"models:/{logged.model_id}")
    assert (made.number, made.run_id) == (1, None)
    assert not (tmp_path / "mlflow.db").exists(), "MLflow's default store was not asked"


def test_refuses_what_is_no_model(backend: Backend) -> None:
    run_id, address = backend.log()
    asked = [f"models:/m-{'0' * 32}", f"runs:/{'0' * 32}/model", f"runs:/{run_id}/other"]
    backend.remove(backend.place(address))  # and one whose files are gone
    for unknown in (*asked, address):
        with pytest.raises(InputError, match="there is no model"):
            backend.registry.register_model(NAME, unknown)
    assert backend.client.search_registered_models() == []


def test_a_folder_is_registered_where_the_store_may_read_it(backend: Backend) -> None:
    if is_database(backend.uri):
        made = backend.registry.register_model(NAME, backend.plain.as_uri())
        assert backend.registry.folder(made) == backend.plain
    else:
        with pytest.raises(TrackingError, match=r"refused this: .*Invalid model version source"):
            backend.registry.register_model(NAME, backend.plain.as_uri())


@pytest.mark.slow
def test_a_server_takes_models_whose_files_this_machine_keeps(server_store: Any, tmp_path: Path) -> None:
    """As in a deployment that names a server and no place for files: they go to the data folder."""
    data = tmp_path / "data"
    backend = Backend(server_store.uri, data, (data / "mlflow" / "mlruns").as_uri())
    _, address = backend.log()
    made = backend.registry.register_model(NAME, address)
    assert backend.registry.folder(made).is_relative_to(data)


# --- who is who


def test_aliases_and_stages(backend: Backend) -> None:
    assert backend.standing == Standing(NAME)
    one, two, three = (backend.version(recipe) for recipe in "abc")
    move = backend.registry.transition_model_stage
    move(NAME, one.number, "Production")
    assert backend.aliases == {"champion": 1}
    move(NAME, two.number, "Production")
    assert backend.aliases == {"champion": 2, "previous": 1}
    move(NAME, str(three.number), "Staging")
    backend.registry.note_contest(NAME, date(2026, 11, 2))
    standing = backend.fresh().standing(NAME)
    assert (standing.champion, standing.challenger, standing.previous) == (two, three, one)
    assert standing.decided_on == date(2026, 11, 2)
    with pytest.raises(InputError, match="version 2 of usdclp-7d is champion, and as Archived"):
        move(NAME, two.number, "Archived")
    assert move(NAME, three.number, "Archived").tags["stage"] == "Archived"
    assert backend.aliases == {"champion": 2, "previous": 1}
    move(NAME, three.number, "Production")
    assert backend.aliases == {"champion": 3, "previous": 2}
    assert "stage" not in backend.registry.version(NAME, three.number).tags


def test_one_process_at_a_time_holds_the_lock(backend: Backend) -> None:
    with backend.registry.lock(NAME, 0):
        with (
            pytest.raises(TrackingError, match="another 'change-of-champion-usdclp-7d' is running"),
            backend.fresh().lock(NAME, 0),
        ):
            pytest.fail("two hold it")
        with backend.fresh().lock("usdclp-30d", 0):
            pass
    with backend.fresh().lock(NAME, 0):
        pass


class Killed(BaseException):
    """In the place of a signal: nothing catches it."""


WRITES = (
    "set_model_version_tag",
    "delete_model_version_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
)


def allow(registry: Registry, writes: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Let a registry write so often and no more; names of what it wrote."""
    done: list[str] = []

    def limited(name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if len(done) == writes:
                raise Killed
            done.append(name)
            return write(*arguments)

        return call

    for name in WRITES:
        patch.setattr(registry.client, name, limited(name, getattr(registry.client, name)))
    return done


def state(registry: Registry) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Who is who, and every version's tags."""
    return registry.standing(NAME).document(), [dict(v.tags) for v in registry.versions(NAME)]


def test_a_change_that_is_killed_is_undone_before_its_deciding_write_and_finished_after_it(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = backend.version("a"), backend.version("b")
    backend.crown(one)
    backend.crown(two)
    before = backend.standing.document()
    pin = Pin("ana", "2026-11-20", "why", replaced=two.number)
    for writes in (1, 2):
        victim = backend.fresh()
        with monkeypatch.context() as patch, victim.lock(NAME):
            allow(victim, writes, patch)
            with pytest.raises(Killed):
                victim.enthrone(one, pin)
        champion = backend.fresh().standing(NAME)
        assert champion.document() == (
            before if writes == 1 else before | {"champion": 1, "pin": asdict(pin)}
        )
    assert not backend.registry.version(NAME, two.number).rolled_back
    with backend.fresh().lock(NAME):
        pass  # whoever comes next finishes it
    former, now = backend.registry.versions(NAME)
    assert former.rolled_back
    assert (now.pin, now.change) == (pin, None)
    assert backend.standing.document() == before | {"champion": 1, "pin": asdict(pin)}


@pytest.mark.slow
@pytest.mark.parametrize("change", ["succeed", "enthrone", "restore"])
def test_a_change_that_is_killed_at_any_write_is_undone_or_finished(
    backend: Backend, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = (backend.version(recipe) for recipe in "abc")
    backend.crown(one)
    backend.crown(two)
    pin = Pin("ana", "2026-11-20", "why", replaced=two.number)

    def begin(registry: Registry) -> None:
        """What the change starts from."""
        with registry.lock(NAME):
            registry.succeed(registry.standing(NAME), registry.version(NAME, one.number))
            registry.succeed(registry.standing(NAME), registry.version(NAME, two.number))
            registry.challenge(three)
            if change == "restore":
                registry.enthrone(registry.version(NAME, one.number), pin)

    def carry_out(registry: Registry) -> None:
        standing = registry.standing(NAME)
        if change == "succeed":
            registry.succeed(standing, registry.version(NAME, three.number))
        elif change == "enthrone":
            registry.enthrone(registry.version(NAME, one.number), pin)
        else:
            registry.restore(standing, registry.version(NAME, two.number))

    begin(backend.fresh())
    before = state(backend.fresh())
    whole = backend.fresh()
    with whole.lock(NAME):
        carry_out(whole)
    after = state(backend.fresh())
    assert after[0] != before[0]
    ends, writes = [], 0
    while True:
        begin(backend.fresh())
        victim = backend.fresh()
        with monkeypatch.context() as patch, victim.lock(NAME):
            done = allow(victim, writes, patch)
            try:
                carry_out(victim)
            except Killed:
                pass
            else:
                break
        with backend.fresh().lock(NAME):
            pass  # whoever comes next finishes it
        found = state(backend.fresh())
        decided = "set_registered_model_alias" in done
        assert found[0] == (after if decided else before)[0]
        if decided:
            assert found == after
        ends.append(decided)
        writes += 1
    assert set(ends) == {False, True}
    assert state(backend.fresh()) == after


# --- files


def test_a_model_is_used_as_it_was_registered_or_not_at_all(backend: Backend, shelf: Shelf) -> None:
    made = backend.real_version(shelf)
    registry = backend.fresh()  # what it fetched goes with it
    specification, code = registry.model(made)
    assert specification.recipe == made.recipe
    assert (code / "forex_core" / "specification.py").is_file()

    for name in ("artifacts/specification.json", "code/forex_core/ensemble.py", "MLmodel"):
        address = f"{made.source}/{name}"
        kept = backend.read(address)
        backend.write(address, kept.replace(b"0", b"1", 1) + b"\n")
        with pytest.raises(
            TrackingError, match=r"are not those that were registered; restore|cannot be used"
        ):
            backend.fresh().model(made)
        backend.write(address, kept)
    assert backend.fresh().model(made)[0].to_json() == specification.to_json()

    lost = f"{made.source}/code/forex_core/ensemble.py"
    kept = backend.read(lost)
    backend.remove(lost)
    with pytest.raises(TrackingError, match="are not those that were registered"):
        backend.fresh().model(made)
    backend.write(lost, kept)
    backend.remove(made.source)
    with pytest.raises(
        TrackingError, match=r"the files of version 1 of usdclp-7d are not at .*restore them"
    ) as caught:
        backend.fresh().model(made)
    assert type(caught.value) is TrackingError, "the store is there, the files are not"


def test_a_model_that_was_damaged_on_the_way_is_not_used(backend: Backend, shelf: Shelf) -> None:
    folder, _ = shelf.model(backend.folder / "model")
    _, address = backend.log(folder)
    place = backend.place(address)
    code = f"{place}/code/forex_core/ensemble.py"
    backend.write(code, backend.read(code)[:-100])
    made = backend.registry.register_model(NAME, address, files=folder)
    registry = backend.fresh()
    with pytest.raises(TrackingError, match="are not those that were registered"):
        registry.model(made)
    kept = registry.folder(made)
    assert registry.folder(made) == kept, "fetched once"
    local = kept.is_relative_to(backend.folder)
    del registry
    assert kept.exists() == local, "what was fetched goes with the registry"


# --- the best run


def test_the_best_run_has_the_metric_and_a_model_that_can_be_loaded(backend: Backend) -> None:
    def best(mode: Any = "min") -> str | None:
        found = backend.fresh().get_best_run("7d_rmse", mode, pair=USDCLP)
        return found.id if found else None

    assert best() is None, "no experiment"
    backend.log()
    backend.log(rmse=float("nan"))
    backend.log(rmse=float("inf"))
    backend.log(rmse=1.0, pair="EURUSD")
    for rmse, lost in ((1.0, "MLmodel"), (99.0, "artifacts/specification.json"), (2.0, None)):
        _, address = backend.log(rmse=rmse)
        place = backend.place(address)
        if lost:
            backend.remove(f"{place}/{lost}")
        else:
            backend.write(f"{place}/artifacts/specification.json", b"{")
    assert (best("min"), best("max")) == (None, None)
    (low, _), (high, address) = backend.log(rmse=10.0), backend.log(rmse=20.0)
    assert (best("min"), best("max")) == (low, high)
    assert backend.registry.get_best_run("7d_mape", pair=USDCLP) is None
    assert backend.registry.get_run_info(low[:8]).metrics == {"7d_rmse": 10.0}
    made = backend.registry.register_model(NAME, address)
    assert backend.registry.metric_of(made, "7d_rmse") == 20.0


# --- listings


def said(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, (done.exception, done.stderr)
    assert done.stderr == ""
    return done.stdout


def document(*arguments: str) -> Any:
    return json.loads(said(*arguments, "--json"))


def test_listings(backend: Backend) -> None:
    assert document("experiments", "list")["experiments"] == []
    assert document("runs", "list", "7d")["runs"] == []
    assert document("models", "list")["models"] == []
    (first, address), (second, other) = (backend.log(rmse=rmse) for rmse in (2.0, 1.0))
    failing = backend.tracker()
    failing.start_run(tags={"pair": "USDCLP", "horizon": "7d"})
    error = RuntimeError("on purpose")
    with pytest.raises(RuntimeError, match="on purpose"), failing:
        raise error
    backend.crown(backend.registry.register_model(NAME, address, tags={"recipe": "a"}))
    backend.registry.register_model(NAME, other, tags={"recipe": "b"})
    backend.registry.register_model("it's", other)
    (one,) = document("experiments", "list")["experiments"]
    assert (one["name"], one["finished"], one["failed"], one["other"]) == (EXPERIMENT, 2, 1, 0)
    listed = document("runs", "list", "7d")["runs"]
    assert [row["id"] for row in listed] == [failing.run_id, second, first]
    assert listed[0]["error"] == "RuntimeError: on purpose"
    assert (listed[2]["version"], listed[2]["aliases"]) == (1, ["champion"])
    shown = document("runs", "show", first[:8])
    assert (shown["id"], shown["metrics"], shown["artifacts"]) == (first, {"7d_rmse": 2.0}, [])
    best = document("runs", "best", "7d", "--pair", "USDCLP", "--loadable")
    assert (best["run"]["id"], best["value"]) == (second, 1.0)
    compared = document("runs", "compare", "7d", "--pair", "USDCLP")
    assert [row["id"] for row in compared["runs"]] == [second, first]
    assert [score["rmse"] for score in compared["models"]["ensemble"]] == [1.0, 2.0]
    every = document("models", "list")["models"]
    assert [(row["name"], row["version"], row["aliases"]) for row in every] == [
        ("it's", 1, []),
        (NAME, 2, []),
        (NAME, 1, ["champion"]),
    ]
    own = document("models", "list", "--pair", "USDCLP")["models"]
    assert [(row["name"], row["version"]) for row in own] == [(NAME, 2), (NAME, 1)]
    assert document("models", "list", "--pair", "EURUSD")["models"] == []
    assert first[:8] in said("runs", "list", "7d")
    assert "champion" in said("models", "list")


# --- replay and rollback


def publish(backend: Backend, shelf: Shelf) -> str:
    """A run with what `forex forecast` logs of it."""
    run, market = shelf.run, shelf.market
    reports = backend.folder / "reports"
    reports.mkdir()
    folder, specification = shelf.model(backend.folder / "model")
    with backend.tracker() as tracker:
        run_id = str(tracker.run_id)
        texts = {
            "forecast.json": forecast_document(run, market, run_id, reports / "report.html"),
            "members.json": replay_record(run),
        }
        for name, content in texts.items():
            (reports / name).write_text(json.dumps(content))
        write_snapshot(market, reports / "snapshot.parquet")
        tracker.log_artifacts_dir(reports, "reports")
        made = backend.registry.register_model(
            NAME,
            str(tracker.log_model(folder, MODEL)),
            tags={"recipe": specification.recipe},
            files=folder,
        )
        tracker.log(
            Record(
                params={"fingerprint": run.fingerprint, "origin": run.forecast.origin.isoformat()},
                tags={
                    "pair": str(market.pair),
                    "horizon": str(WEEK),
                    "published_model": NAME,
                    "published_version": str(made.number),
                    "published_recipe": run.recipe,
                    "published_digest": run.forecast.digest,
                },
            )
        )
    return run_id


def test_a_run_is_replayed_and_what_is_lost_or_altered_is_named(backend: Backend, shelf: Shelf) -> None:
    run_id = publish(backend, shelf)
    found = replay(backend.fresh(), run_id[:8])
    assert [(one.level, one.outcome) for one in found.reproductions] == [
        ("stored", "exact"),
        ("recomputed", "exact"),
    ]
    assert found.model == "usdclp-7d version 1, made by the run"
    assert latest_snapshot(backend.fresh(), USDCLP, WEEK).fingerprint == shelf.market.fingerprint

    run = backend.client.get_run(run_id)
    members = f"{run.info.artifact_uri}/reports/members.json"
    altered = json.loads(backend.read(members))
    altered["members"]["random_walk"]["raw"][0][0] *= 1.01
    backend.write(members, json.dumps(altered).encode())
    stored = replay(backend.fresh(), run_id, ("stored",)).reproductions[0]
    assert stored.outcome == "different"
    assert any("members.json was altered after the run" in cause for cause in stored.causes)

    assert run.outputs is not None
    model = backend.client.get_logged_model(run.outputs.model_outputs[0].model_id)
    backend.remove(model.artifact_location)
    (gone,) = replay(backend.fresh(), run_id, ("recomputed",)).reproductions
    assert gone.outcome == "impossible"
    assert any("restore" in cause for cause in gone.causes)
    backend.remove(f"{run.info.artifact_uri}/reports/snapshot.parquet")
    with pytest.raises(InputError, match="no finished 7d run of USDCLP holds its data"):
        latest_snapshot(backend.fresh(), USDCLP, WEEK)


def test_a_rollback_and_its_undo(backend: Backend, shelf: Shelf) -> None:
    earlier, champion = backend.crown(backend.real_version(shelf, "a")), backend.real_version(shelf, "b")
    backend.crown(champion)
    before = state(backend.fresh())
    backups = backend.folder / "backups"

    def change(find: Callable[[Succession], Any]) -> dict[str, Any]:
        registry = backend.fresh()
        with registry.lock(NAME, 0):
            succession = Succession(registry, NAME, WEEK, shelf.market)
            plan = find(succession)
            return succession.carry_out(plan, "a test", backups, backend.tracker(AUDIT), by="ana@desk")

    told = change(lambda succession: succession.rollback())
    assert (told["from_version"], told["to_version"]) == (champion.number, earlier.number)
    assert told["forecast"]["median"] == pytest.approx(float(shelf.run.forecast.median[-1]))
    assert len(list(backups.glob("*.db"))) == (1 if is_database(backend.uri) else 0)
    standing = backend.fresh().standing(NAME)
    assert standing.champion is not None
    assert standing.champion.number == earlier.number
    assert standing.pin is not None
    assert (standing.pin.reason, standing.pin.replaced) == ("a test", champion.number)
    assert backend.fresh().version(NAME, champion.number).rolled_back
    audit = backend.client.get_run(told["audit_run"])
    assert (audit.info.status, audit.data.tags["by"]) == ("FINISHED", "ana@desk")
    assert [file.path for file in backend.client.list_artifacts(told["audit_run"])] == ["plan.json"]

    change(lambda succession: succession.undo())
    assert state(backend.fresh()) == before


@pytest.mark.slow
def test_a_rollback_leaves_damaged_files_alone(backend: Backend, shelf: Shelf) -> None:
    earlier, champion = backend.crown(backend.real_version(shelf, "a")), backend.real_version(shelf, "b")
    backend.crown(champion)
    before = state(backend.fresh())
    backend.write(f"{earlier.source}/code/forex_core/ensemble.py", b"")
    with pytest.raises(
        InputError, match=r"no previous version to go back to: .*not those that were registered"
    ):
        Succession(backend.fresh(), NAME, WEEK, shelf.market).rollback()
    assert state(backend.fresh()) == before


# --- as a run goes


def test_what_was_decided_on_another_champion_is_not_written(backend: Backend, shelf: Shelf) -> None:
    """As when another machine rolls back meanwhile, whose lock a server does not know."""
    earlier, champion = backend.crown(backend.version("a")), backend.crown(backend.version("b"))
    made = backend.version("b")
    with Candidacy(backend.registry, USDCLP, WEEK) as candidacy:
        other = backend.fresh()
        other.enthrone(other.version(NAME, earlier.number), Pin("ana", "now", "bands", champion.number))
        rolled_back = state(backend.fresh())
        for outcome, settled in (("refreshed", "withheld"), ("kept", "kept")):
            choice = Choice(Decision(outcome, "Why."), shelf.run, shelf.run)  # type: ignore[arg-type]
            assert candidacy.settle(choice, made, shelf.market.origin).decision.outcome == settled
        assert len(candidacy.warnings) == 2
        assert (
            "the champion of usdclp-7d changed since this was decided: it is version 1, pinned, and was version 2, not "
            "pinned"
        ) in candidacy.warnings[0]
    assert state(backend.fresh()) == rolled_back


@pytest.mark.slow
def test_two_days_of_a_deployment(backend: Backend, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of the first day is published on the second, after it was fetched from where it was put."""
    config = config_of("a")
    monkeypatch.setenv("FOREX_ENGINE", config.model_dump_json())
    settings = load_settings()
    engine = Engine(config, build_members(config, ChronosConfig()))
    for number, rows in ((1, 690), (2, 700)):
        bundle = shelf.market.until(shelf.market.instants[rows - 1])
        candidacy = Candidacy.of(settings, USDCLP, WEEK)
        assert candidacy is not None
        with candidacy, tracker_from_settings(settings, EXPERIMENT) as tracker:
            reigning = candidacy.reigning(engine, bundle)
            assert (reigning is None) == (number == 1)
            new = engine.forecast(bundle, WEEK)
            made = candidacy.register(tracker, new, bundle, settings)
            assert made is not None
            candidacy.registry.succeed(candidacy.standing, made)
        assert candidacy.warnings == []
        assert (made.number, tracker.degraded) == (number, None)
        assert made.tags[FILES_TAG] == room._digest(backend.fresh().folder(made))
    champion = backend.fresh().standing(NAME).champion
    assert champion is not None
    assert backend.fresh().model(champion)[0].state.trained_until == shelf.market.origin
