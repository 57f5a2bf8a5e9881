"""The forecast flow and its champion: what is published, what is logged of it, and what happens without its files."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import pickletools
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forex_core.config import EngineConfig, load_settings
from forex_core.ledger import Ledger
from forex_core.specification import Specification, frame_of
from forex_core.testing import bundle_of, synthetic_table
from forex_core.tracking import Registry, Standing, replay_spool
from forex_core.tracking.registry import Pin
from forex_core.tracking.store import release
from forex_core.types import LEVELS, Horizon, Pair, short_id

pytestmark = [pytest.mark.usefixtures("kept_pictures"), pytest.mark.timeout(280)]

WEEK = Horizon(7)
MODEL = "usdclp-7d"
GOOD = EngineConfig(
    members=("random_walk", "drivers", "momentum"), grid_origins=125, warmup_origins=8, min_members=1
)
FAIR = GOOD.model_copy(update={"members": ("random_walk", "drivers")})
POOR = GOOD.model_copy(update={"members": ("random_walk",)})
LIGHT = GOOD.model_copy(update={"grid_origins": 60})
# Without weights Chronos is silent, so that two members answer and three are needed.
SILENT = GOOD.model_copy(update={"members": ("random_walk", "drivers", "chronos"), "min_members": 3})
DAYS = (date(2019, 4, 24), date(2019, 4, 25), date(2019, 4, 26), date(2019, 4, 29), date(2019, 5, 2))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return synthetic_table(1150, seed=5)


@dataclass
class Deployment:
    """A data folder, and the runs that were made in it."""

    root: Path
    market: Path
    runs: list[dict[str, Any]] = field(default_factory=list)
    uri: str = ""

    def __post_init__(self) -> None:
        self.uri = self.uri or f"sqlite:///{self.root / 'data' / 'mlflow' / 'mlflow.db'}"

    def environment(self, engine: EngineConfig) -> dict[str, str]:
        return {"FOREX_DATA_DIR": str(self.root / "data"), "FOREX_ENGINE": engine.model_dump_json()}

    def flow(self, engine: EngineConfig, day: date, **parameters: Any) -> Any:
        """Run the flow of a day; what it returns."""
        from flows.forecast import FLOWS

        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment(engine).items():
                patch.setenv(name, value)
            asked = {"pair": "USDCLP", "source": "csv", "paths": [self.market], "as_of": day, **parameters}
            return FLOWS[WEEK](**asked)

    def publish(self, engine: EngineConfig, day: date) -> dict[str, Any]:
        document: dict[str, Any] = self.flow(engine, day)
        self.runs.append(document)
        return document

    @property
    def registry(self) -> Registry:
        return Registry(self.uri, (self.root / "data" / "mlflow" / "mlruns").as_uri(), self.root / "data")

    @property
    def standing(self) -> Standing:
        return self.registry.standing(MODEL)

    def logged(self, number: int) -> Any:
        return self.registry.client.get_run(self.runs[number]["run_id"])

    def reports(self, number: int) -> Path:
        return Path(self.logged(number).info.artifact_uri.removeprefix("file://")) / "reports"

    def model(self, version: int) -> Path:
        return self.registry.folder(self.registry.version(MODEL, version))

    def specification(self, version: int) -> Specification:
        text = (self.model(version) / "artifacts" / "specification.json").read_text()
        return Specification.from_json(text)

    def all_runs(self) -> list[Any]:
        client = self.registry.client
        experiment = client.get_experiment_by_name("forecaster_7d")
        return list(client.search_runs([experiment.experiment_id]))


def deploy(root: Path, table: pd.DataFrame, migrated: Path) -> Deployment:
    (root / "data" / "mlflow").mkdir(parents=True)
    shutil.copyfile(migrated, root / "data" / "mlflow" / "mlflow.db")
    table.to_csv(root / "market.csv", index=False)
    return Deployment(root, root / "market.csv")


@pytest.fixture
def deployment(
    tmp_path: Path, table: pd.DataFrame, migrated_sqlite: Path, prefect_server: None
) -> Iterator[Deployment]:
    made = deploy(tmp_path, table, migrated_sqlite)
    yield made
    release(made.uri)


@pytest.fixture(scope="module")
def story(
    tmp_path_factory: pytest.TempPathFactory,
    table: pd.DataFrame,
    migrated_sqlite: Path,
    prefect_server: None,
) -> Iterator[Deployment]:
    """Five days: a first state, its successor, a poorer recipe, a better one in the same month, and again in the next.

    To be read, not written to.
    """
    made = deploy(tmp_path_factory.mktemp("story"), table, migrated_sqlite)
    for engine, day in zip((FAIR, FAIR, POOR, GOOD, GOOD), DAYS, strict=True):
        made.publish(engine, day)
    yield made
    release(made.uri)


def run_tags(story: Deployment, name: str) -> list[str | None]:
    return [story.logged(number).data.tags.get(name) for number in range(len(story.runs))]


# ---- who is published --------------------------------------------------------------------------------------


def test_a_succession_of_days(story: Deployment) -> None:
    """Versions 1 and 2 are one recipe; 3 does not win; 4 would, and has to wait for the month; 5 does."""
    outcomes = ["initial", "refreshed", "kept", "undecided", "promoted"]
    assert run_tags(story, "decision") == outcomes
    assert run_tags(story, "published_version") == ["1", "2", "2", "2", "5"]
    assert run_tags(story, "challenger") == [None, None, "3", "4", None]
    assert run_tags(story, "published_model") == [MODEL] * 5
    assert run_tags(story, "status") == ["published"] * 5
    reasons = [str(reason) for reason in run_tags(story, "decision_reason")]
    assert reasons[3].startswith("The last decision was on 2019-04-26")
    assert "of the random walk's CRPS" in reasons[2]
    assert "of the random walk's CRPS" in reasons[4]
    recipes = [story.specification(version).recipe for version in range(1, 6)]
    assert recipes[0] == recipes[1]
    assert recipes[3] == recipes[4]
    assert len(set(recipes)) == 3
    assert run_tags(story, "recipe") == recipes, "of the engine that made the run"
    assert run_tags(story, "published_recipe") == [*recipes[:2], recipes[0], recipes[0], recipes[4]]

    standing = story.standing
    assert standing.champion is not None
    assert standing.previous is not None
    assert (standing.champion.number, standing.previous.number, standing.challenger) == (5, 2, None)
    assert standing.decided_on == DAYS[4]
    published = {v.number for v in story.registry.versions(MODEL) if v.published}
    assert published == {1, 2, 5}
    assert [run.info.status for run in story.all_runs()] == ["FINISHED"] * 5
    for document, outcome, version in zip(story.runs, outcomes, (1, 2, 2, 2, 5), strict=True):
        assert document["published"]["outcome"] == outcome
        assert document["published"]["version"] == version
        assert document["warnings"] == []
    assert "Published is version 2 of usdclp-7d, not version 3." in story.runs[2]["notices"][0]
    assert story.runs[1]["notices"] == []


@pytest.mark.parametrize(("number", "champion", "challenger"), [(2, 2, 3), (3, 2, 4)])
def test_every_published_number_is_the_champions(
    story: Deployment, table: pd.DataFrame, number: int, champion: int, challenger: int
) -> None:
    """Computed once more here, by the engine under the champion's state of the day before."""
    bundle = bundle_of(table, as_of=DAYS[number])
    theirs, own = story.specification(champion), story.specification(challenger)
    assert theirs.state.trained_until == DAYS[1]
    assert own.state.trained_until == DAYS[number]
    assert theirs.state.weights != own.state.weights
    engine, rival = theirs.engine(), own.engine()
    assert engine is not None
    assert rival is not None
    expected = engine.apply(bundle, WEEK, theirs.state)
    other = rival.apply(bundle, WEEK, own.state)
    assert np.abs(expected.quantiles / other.quantiles - 1).max() > 1e-5

    document = json.loads((story.reports(number) / "forecast.json").read_text())
    assert document == {k: v for k, v in story.runs[number].items() if k != "warnings"}
    for q, level in enumerate(LEVELS):
        assert document["quantiles"][str(level)] == expected.quantiles[:, q].tolist()
    assert document["recipe"] == theirs.recipe
    assert document["published"]["trained_until"] == DAYS[1].isoformat()
    csv = pd.read_csv(story.reports(number) / "forecast.csv")
    stored = csv[[c for c in csv.columns if c in {str(level) for level in LEVELS} or c.startswith("q")]]
    assert stored.shape == expected.quantiles.shape
    np.testing.assert_allclose(stored.to_numpy(), expected.quantiles, rtol=1e-6)
    members = json.loads((story.reports(number) / "members.json").read_text())
    assert {name: m["weight"] for name, m in members["members"].items()} == theirs.state.weights

    logged = story.logged(number).data
    scores = engine.forecast(bundle, WEEK).evaluation.scores
    rivals = rival.forecast(bundle, WEEK).evaluation.scores
    assert logged.params["forecast_mean"] == f"{expected.mean[-1]:.10g}"
    assert logged.params["forecast_std"] == f"{expected.std[-1]:.10g}"
    assert logged.params["trained_until"] == DAYS[1].isoformat()
    assert logged.tags["published_digest"] == expected.digest
    for prefix, found in (("", scores), ("challenger_", rivals)):
        assert logged.metrics[f"{prefix}7d_rmse"] == pytest.approx(found["ensemble"].rmse, rel=1e-12)
        assert logged.metrics[f"{prefix}7d_crps"] == pytest.approx(found["ensemble"].crps, rel=1e-12)
    assert scores["ensemble"].crps != rivals["ensemble"].crps
    for prefix, weights in (("", theirs.state.weights), ("challenger_", own.state.weights)):
        logged_weights = {
            name: logged.metrics[f"{prefix}{name}_weight"]
            for name in GOOD.members
            if f"{prefix}{name}_weight" in logged.metrics
        }
        assert logged_weights == pytest.approx(weights, rel=1e-12)


def test_a_contest_is_logged_with_its_figures(story: Deployment) -> None:
    names = {
        "decision_statistic",
        "decision_standard_error",
        "decision_origins",
        "decision_origins_effective",
    }
    for number in (0, 1, 3):
        assert not names & set(story.logged(number).data.metrics)
    for number, sign in ((2, 1), (4, -1)):
        logged = story.logged(number).data
        statistic = logged.metrics["decision_statistic"]
        assert sign * statistic > 0
        assert logged.metrics["decision_standard_error"] > 0
        assert logged.metrics["decision_origins"] >= 104
        assert logged.metrics["decision_origins_effective"] == logged.metrics["decision_origins"]
        assert f"Δ = {100 * statistic:+.2f} %" in logged.tags["decision_reason"]
        assert f"{logged.metrics['decision_origins']:.0f} origins" in logged.tags["decision_reason"]
    # Of the promoted one the other is the champion that it took the place of.
    own = story.specification(5).state.weights
    assert story.logged(4).data.metrics["momentum_weight"] == pytest.approx(own["momentum"])
    assert "challenger_momentum_weight" not in story.logged(4).data.metrics
    assert "challenger_drivers_weight" in story.logged(4).data.metrics


def test_the_model_of_every_run_is_logged_with_signature_and_example(story: Deployment) -> None:
    client = story.registry.client
    for number in range(5):
        run = story.logged(number)
        version = story.registry.version(MODEL, number + 1)
        assert version.run_id == run.info.run_id
        (output,) = run.outputs.model_outputs
        logged = client.get_logged_model(output.model_id)
        assert str(logged.status) == "READY"
        assert Path(logged.artifact_location.removeprefix("file://")) == story.model(number + 1)
        described = (story.model(number + 1) / "MLmodel").read_text()
        assert "signature:" in described
        assert "saved_input_example_info:" in described
        assert story.specification(number + 1).state.trained_until == DAYS[number]
        assert version.tags["trained_until"] == DAYS[number].isoformat()


# ---- the files ---------------------------------------------------------------------------------------------

SUFFIXES = {".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".sav", ".pt", ".pth", ".ckpt", ".model"}
UNPACK: list[Callable[[bytes], bytes]] = [
    gzip.decompress,
    zlib.decompress,
    bz2.decompress,
    lzma.decompress,
    lambda content: base64.b64decode(b"".join(content.split()), validate=True),
]


def is_pickle(content: bytes) -> bool:
    """Whether the bytes are a pickle, of any protocol, packed or in an archive."""
    if content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05" and len(content) > 2:
        return True
    try:
        if sum(1 for _ in pickletools.genops(io.BytesIO(content))) > 1:
            return True
    except Exception:  # noqa: BLE001  whatever a stream that is none makes of it
        pass
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(
                Path(name).suffix in SUFFIXES or is_pickle(archive.read(name)) for name in archive.namelist()
            )
    for unpack in UNPACK:
        try:
            return bool(content) and is_pickle(unpack(content))
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
            continue
    return False


def pickles(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and (path.suffix in SUFFIXES or is_pickle(path.read_bytes()))
    }


def _zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data", content)
    return buffer.getvalue()


def _with(module: str, value: object) -> bytes:
    buffer = io.BytesIO()
    __import__(module).dump(value, buffer)
    return buffer.getvalue()


VALUE = {"weights": [0.5, 0.5], "name": "model"}
PLANTED: dict[str, Callable[[], bytes]] = {
    **{f"protocol {n}": lambda n=n: pickle.dumps(VALUE, protocol=n) for n in range(6)},
    "cloudpickle": lambda: _with("cloudpickle", lambda: VALUE),
    "joblib": lambda: _with("joblib", VALUE),
    "an array": lambda: pickle.dumps(np.arange(10.0)),
    "gzip": lambda: gzip.compress(pickle.dumps(VALUE)),
    "zlib, as joblib packs": lambda: zlib.compress(pickle.dumps(VALUE)),
    "bz2": lambda: bz2.compress(pickle.dumps(VALUE)),
    "xz": lambda: lzma.compress(pickle.dumps(VALUE)),
    "base64, as Prefect packs": lambda: base64.encodebytes(pickle.dumps(VALUE)),
    "zip, as torch packs": lambda: _zipped(pickle.dumps(VALUE)),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_pickle_is_found_under_any_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "specification.json").write_bytes(PLANTED[kind]())
    assert pickles(tmp_path) == {"deep/specification.json"}


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_a_planted_name_of_a_pickle_is_found(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"model{suffix}").write_text("{}")
    assert pickles(tmp_path) == {f"model{suffix}"}


def test_no_file_of_a_run_or_a_model_is_a_pickle_and_a_run_takes_three_megabytes(story: Deployment) -> None:
    store = story.root / "data" / "mlflow" / "mlruns"
    assert sum(1 for path in store.rglob("*") if path.is_file()) > 5 * 30
    assert pickles(story.root / "data") == set()
    for number in range(5):
        model = story.model(number + 1)
        artifacts = story.reports(number).parent
        sizes = [sum(p.stat().st_size for p in f.rglob("*") if p.is_file()) for f in (model, artifacts)]
        assert 10_000 < sizes[0] <= 1_000_000
        assert sizes[1] > 10_000
        assert sum(sizes) <= 3_000_000


FRESH = """
import json, sys
import mlflow, pandas
snapshot, more, answer = sys.argv[1:]
assert not any(name.startswith("forex_core") for name in sys.modules)
model = mlflow.pyfunc.load_model("models:/usdclp-7d@champion")
frame = pandas.concat([pandas.read_parquet(snapshot), pandas.read_parquet(more)], ignore_index=True)
model.predict(frame).to_parquet(answer)
code = sys.modules["forex_core"].__file__
print(json.dumps({"code": code, "rows": len(frame)}))
"""


@pytest.mark.slow
def test_the_champion_is_loaded_by_name_and_computes_where_nothing_else_is_imported(
    story: Deployment, table: pd.DataFrame, tmp_path: Path
) -> None:
    """The data of its run and one more day, with every file of the run's report gone."""
    named = table.rename(columns={name: name.lower() for name in ("Copper", "DXY", "VIX")})
    following = bundle_of(named, as_of=date(2019, 5, 3))
    more = frame_of(following).tail(1)
    more.to_parquet(tmp_path / "more.parquet")
    reports = story.reports(4)
    shutil.copyfile(reports / "snapshot.parquet", tmp_path / "snapshot.parquet")
    stored = story.runs[4]["quantiles"]
    hidden = [reports, story.root / "data" / "reports", story.market]
    for place in hidden:
        place.rename(place.with_name(f"{place.name}.gone"))
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-B", "-c", FRESH),
                *(tmp_path / name for name in ("snapshot.parquet", "more.parquet", "answer.parquet")),
            ],
            env={
                **os.environ,
                "MLFLOW_TRACKING_URI": story.uri,
                "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        for place in hidden:
            place.with_name(f"{place.name}.gone").rename(place)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["code"] == str(story.model(5) / "code" / "forex_core" / "__init__.py")
    assert told["rows"] == len(following)

    specification = story.specification(5)
    engine = specification.engine()
    assert engine is not None
    expected = engine.apply(following, WEEK, specification.state)
    found = pd.read_parquet(tmp_path / "answer.parquet")
    assert found["target_date"].dt.date.tolist() == list(expected.target_dates)
    quantiles = found[list(map(str, LEVELS))].to_numpy()
    np.testing.assert_allclose(quantiles, expected.quantiles, rtol=1e-9)
    before = dict(zip(story.runs[4]["target_dates"], np.transpose([*stored.values()]), strict=True))
    for day, row in zip(expected.target_dates, quantiles, strict=True):
        assert day.isoformat() not in before or np.abs(row / before[day.isoformat()] - 1).max() > 1e-4
    assert sum(day.isoformat() in before for day in expected.target_dates) >= 2


# ---- the champion's files are lost -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_champion_whose_files_are_lost(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another recipe has nobody to be compared with and a pin nothing to hold; the same recipe goes on."""
    from forex_core.errors import TrackingError

    deployment.publish(LIGHT, DAYS[0])
    first = deployment.registry.version(MODEL, 1)
    shutil.rmtree(deployment.model(1))
    said = r"the files of version 1 .* restore them .*'forex rollback 7d --pair USDCLP' goes back"
    with pytest.raises(TrackingError, match=said):
        deployment.flow(FAIR, DAYS[1])
    deployment.registry.enthrone(first, Pin("me", "today", "it is the best"))
    with pytest.raises(TrackingError, match=said):
        deployment.flow(LIGHT, DAYS[1])
    failed = [run for run in deployment.all_runs() if run.info.status == "FAILED"]
    assert len(failed) == 2
    for run in failed:
        assert run.data.tags["error_type"] == "TrackingError"
        assert "restore them from a backup" in run.data.tags["error_message"]
    standing = deployment.standing
    assert standing.champion is not None
    assert standing.champion.number == 1
    assert len(deployment.registry.versions(MODEL)) == 1

    deployment.registry.unpin(standing)
    state = deployment.flow(LIGHT, DAYS[1], return_state=True)
    assert state.is_completed()
    assert state.name == "CompletedWithWarning"
    assert "version 1, cannot be used, and the next state of its recipe takes its place" in state.message
    document = state.result()
    assert document["warnings"] == [state.message]
    assert document["warnings"][0] in document["notices"]
    assert document["published"]["version"] == 2
    standing = deployment.standing
    assert standing.champion is not None
    assert standing.champion.number == 2
    assert "tracking-degraded" not in flow_run_tags(state)
    run = deployment.registry.client.get_run(document["run_id"])
    assert run.info.status == "FINISHED"


def flow_run_tags(state: Any) -> set[str]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return set(client.read_flow_run(state.state_details.flow_run_id).tags)


# ---- tracking off, and lost --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_without_tracking_a_forecast_is_made_and_nothing_is_kept_of_it(
    tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREX_TRACKING__ENABLED", "false")
    table.to_csv(tmp_path / "market.csv", index=False)
    untracked = Deployment(tmp_path, tmp_path / "market.csv")
    document = untracked.publish(LIGHT, DAYS[0])
    assert document["published"]["version"] is None
    assert document["published"]["outcome"] == "initial"
    assert "there is no champion" in document["published"]["reason"]
    assert document["warnings"] == []
    assert Path(document["report"]).is_file()
    (kept,) = Ledger(load_settings().store_url).publications()
    assert document["run_id"] == kept.run_id
    assert Path(document["report"]).parent.name.endswith(f"_{short_id(kept.run_id)}")
    assert not (tmp_path / "data" / "mlflow").exists()
    assert not (tmp_path / "data" / "spool").exists()
    bundle = bundle_of(table, as_of=DAYS[0])
    from forex_core.config import ChronosConfig
    from forex_core.engine import Engine, build_members

    expected = Engine(LIGHT, build_members(LIGHT, ChronosConfig())).forecast(bundle, WEEK).forecast
    assert document["quantiles"]["0.5"] == expected.median.tolist()
    assert document["changes"]["absent"]["kind"] == "first"
    after = untracked.publish(LIGHT, DAYS[1])
    assert after["changes"]["absent"]["kind"] == "untracked"
    assert "What has changed is not told: with tracking off" in Path(after["report"]).read_text(
        encoding="utf-8"
    )


@dataclass
class Loss:
    """A way to lose the store while a forecast is computed, and to get it back."""

    lose: Callable[[], object]
    mend: Callable[[], object]


def flow_with(
    deployment: Deployment, loss: Loss, monkeypatch: pytest.MonkeyPatch, after: str = "choose"
) -> Any:
    """The state of a flow run whose store is lost when it has called `after`."""
    import flows.forecast as module

    original = getattr(module, after)

    def and_lose(*arguments: Any, **named: Any) -> Any:
        found = original(*arguments, **named)
        loss.lose()
        return found

    monkeypatch.setattr(module, after, and_lose)
    try:
        return deployment.flow(LIGHT, DAYS[1], return_state=True)
    finally:
        loss.mend()
        monkeypatch.setattr(module, after, original)
        release(deployment.uri)


def check_lost_in_the_middle(deployment: Deployment, loss: Loss, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment.publish(LIGHT, DAYS[0])
    before = deployment.standing
    assert before.champion is not None
    state = flow_with(deployment, loss, monkeypatch)

    assert state.is_completed()
    assert state.name == "CompletedWithWarning"
    document = state.result()
    assert document["warnings"]
    assert state.message == " ".join(document["warnings"])
    assert "'forex tracking replay' logs this run" in state.message
    assert "tracking-degraded" in flow_run_tags(state)
    folder = Path(document["report"]).parent
    assert json.loads((folder / "forecast.json").read_text())["quantiles"] == document["quantiles"]
    assert (folder / "report.html").is_file()
    assert any("could not be logged, so the champion stays" in one for one in document["notices"])

    assert deployment.standing == before
    spool = deployment.root / "data" / "spool"
    assert len([entry for entry in spool.iterdir() if entry.is_dir()]) == 1
    assert len(deployment.all_runs()) == 1
    artifacts = (deployment.root / "data" / "mlflow" / "mlruns").as_uri()
    (replayed,) = replay_spool(spool, deployment.uri, artifacts, deployment.root / "data")
    assert replayed.outcome == "logged"
    assert replay_spool(spool, deployment.uri, artifacts, deployment.root / "data") == []
    runs = deployment.all_runs()
    assert len(runs) == 2
    run = next(run for run in runs if run.info.run_id == replayed.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["forecast_mean"] == f"{document['mean'][-1]:.10g}"
    assert run.data.metrics["7d_rmse"] == pytest.approx(document["models"]["ensemble"]["rmse"])
    assert re.search("was removed or replaced|could not be used", run.data.tags["spooled"])
    place = Path(run.info.artifact_uri.removeprefix("file://")) / "reports"
    assert json.loads((place / "forecast.json").read_text())["quantiles"] == document["quantiles"]
    assert deployment.standing == before, "what was logged late changes no champion"


def _database(deployment: Deployment) -> Path:
    return deployment.root / "data" / "mlflow" / "mlflow.db"


@pytest.mark.slow
def test_a_database_that_is_removed_in_the_middle(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _database(deployment)
    away = path.with_name("away")
    loss = Loss(lambda: path.rename(away), lambda: away.rename(path))
    check_lost_in_the_middle(deployment, loss, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "after",
    [
        "write_report",
        "create_markdown_artifact",
    ],
)
def test_a_database_that_is_removed_later_on(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """When the model is registered already, or all is done but the end of the run."""
    path = _database(deployment)
    away = path.with_name("away")
    deployment.publish(LIGHT, DAYS[0])
    loss = Loss(lambda: path.rename(away), lambda: away.rename(path))
    state = flow_with(deployment, loss, monkeypatch, after)
    document = state.result()
    assert len(list((deployment.root / "data" / "spool").glob("*/end.json"))) == 1
    champion = deployment.standing.champion
    assert champion is not None
    # Settled before anything was told of it.
    assert champion.number == document["published"]["version"] == 2
    assert (state.name, "tracking-degraded" in flow_run_tags(state)) == ("CompletedWithWarning", True)
    assert "'forex tracking replay' logs this run" in state.message
    artifacts = (deployment.root / "data" / "mlflow" / "mlruns").as_uri()
    (replayed,) = replay_spool(
        deployment.root / "data" / "spool", deployment.uri, artifacts, deployment.root / "data"
    )
    run = deployment.registry.client.get_run(str(replayed.run_id))
    assert run.info.run_id == document["run_id"]
    assert run.info.status == "FINISHED"
    assert len(deployment.all_runs()) == 2


@pytest.mark.slow
def test_a_database_that_is_replaced_in_the_middle(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _database(deployment)
    away = path.with_name("away")

    def lose() -> None:
        path.rename(away)
        path.write_bytes(b"not a database" * 1000)

    check_lost_in_the_middle(deployment, Loss(lose, lambda: away.replace(path)), monkeypatch)


@pytest.mark.slow
def test_a_server_that_stops_in_the_middle(
    tmp_path: Path,
    table: pd.DataFrame,
    prefect_server: None,
    postgres_server: Any,
    postgres_store: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FOREX_TRACKING__MLFLOW__TRACKING_URI", postgres_store)
    table.to_csv(tmp_path / "market.csv", index=False)
    deployment = Deployment(tmp_path, tmp_path / "market.csv", uri=postgres_store)
    check_lost_in_the_middle(deployment, Loss(postgres_server.stop, postgres_server.start), monkeypatch)


@pytest.mark.slow
def test_a_model_that_cannot_be_written_costs_no_forecast(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    import forex_core.tracking.candidacy as module

    def full(*_: Any) -> Path:
        raise OSError(28, "No space left on device")  # a full disk cannot be had here

    monkeypatch.setattr(module, "save_model", full)
    state = deployment.flow(LIGHT, DAYS[0], return_state=True)
    assert state.name == "CompletedWithWarning"
    assert "could not be written, so the champion stays as it is: [Errno 28] No space" in state.message
    document = state.result()
    assert document["published"]["version"] is None
    assert "tracking-degraded" not in flow_run_tags(state)
    assert deployment.standing.champion is None
    (run,) = deployment.all_runs()
    assert run.info.status == "FINISHED"
    assert run.data.metrics["7d_rmse"] == pytest.approx(document["models"]["ensemble"]["rmse"])


@pytest.mark.slow
def test_nobody_changes_the_champion_while_a_forecast_is_made(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forex_core.errors import TrackingError

    deployment.publish(LIGHT, DAYS[0])
    refused: list[str] = []

    def attempt() -> None:
        try:
            with deployment.registry.lock(MODEL, 0):
                deployment.registry.enthrone(deployment.registry.version(MODEL, 1), Pin("me", "now", "hold"))
        except TrackingError as error:
            refused.append(str(error))

    state = flow_with(deployment, Loss(attempt, lambda: None), monkeypatch)
    assert len(refused) == 1
    assert "is running" in refused[0]
    assert state.name == "Completed"
    champion = deployment.standing.champion
    assert champion is not None
    assert champion.number == state.result()["published"]["version"] == 2
    with deployment.registry.lock(MODEL, 0):
        pass  # given back
    assert deployment.registry.version(MODEL, 2).published


def test_who_waits_for_a_run_finds_it_finished(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two equal runs at once both publish."""
    from forex_core.errors import TrackingError
    from forex_core.tracking import MLflowTracker

    end_run = MLflowTracker.end_run
    ended: list[str] = []

    def looking(tracker: MLflowTracker, *arguments: Any) -> None:
        if tracker.active:
            with pytest.raises(TrackingError, match="is running"), deployment.registry.lock(MODEL, 0):
                raise AssertionError("the lock is free before the run has ended")
            ended.append(str(tracker.run_id))
        end_run(tracker, *arguments)

    monkeypatch.setattr(MLflowTracker, "end_run", looking)
    published = deployment.publish(LIGHT, DAYS[0])
    assert ended == [published["run_id"]]
    assert deployment.flow(LIGHT, DAYS[0])["already_published"]


@pytest.mark.slow
def test_the_same_data_are_published_again_once_the_champion_is_pinned(deployment: Deployment) -> None:
    first = deployment.publish(LIGHT, DAYS[0])
    again = deployment.flow(LIGHT, DAYS[0])
    assert again["already_published"]
    registry = deployment.registry
    with registry.lock(MODEL):
        registry.enthrone(registry.version(MODEL, 1), Pin("me", "now", "hold", audit_run="a" * 32))
    pinned = deployment.flow(LIGHT, DAYS[0])
    assert not pinned.get("already_published")
    assert pinned["published"]["outcome"] == "pinned"
    assert any("pinned: hold" in notice for notice in pinned["notices"])
    assert deployment.flow(LIGHT, DAYS[0])["already_published"]
    registry.unpin(registry.standing(MODEL))
    assert deployment.flow(LIGHT, DAYS[0])["run_id"] == first["run_id"]


@pytest.mark.slow
def test_a_new_recipe_that_makes_no_forecast_leaves_the_champions(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREX_CHRONOS", '{"model": null}')
    deployment.publish(LIGHT, DAYS[0])
    state = deployment.flow(SILENT, DAYS[1], return_state=True)
    document = state.result()
    assert document["published"]["outcome"] == "failed"
    assert document["published"]["version"] == 1
    assert document["published"]["challenger"] is None
    assert "Today's recipe made no forecast" in document["notices"][0]
    assert len(deployment.registry.versions(MODEL)) == 1


@pytest.mark.slow
def test_a_state_that_cannot_be_registered_is_withheld(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is published is what the registry says: the champion's, and not a winner that nobody will find."""
    from forex_core.errors import TrackingError

    deployment.publish(LIGHT, DAYS[0])

    def refuse(*_: Any, **__: Any) -> None:
        raise TrackingError(
            "the registry takes nothing just now"
        )  # a store that fails here alone cannot be had

    monkeypatch.setattr(type(deployment.registry), "register_model", refuse)
    state = deployment.flow(LIGHT, DAYS[1], return_state=True)
    document = state.result()
    assert state.name == "CompletedWithWarning"
    assert document["published"]["outcome"] == "withheld"
    assert document["published"]["version"] == 1
    assert document["published"]["trained_until"] == DAYS[0].isoformat()
    assert "The new state could not be made champion" in document["notices"][0]
    assert deployment.standing.champion is not None
    assert deployment.standing.champion.number == 1


@pytest.mark.slow
def test_another_rate_of_the_pair_is_another_model(
    deployment: Deployment, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A champion of the market close, then days of the observed rate, and over to it by hand."""
    from flows.rollback import promote, rollback
    from forex_core.data.importing import observations_of
    from forex_core.data.store import ObservationStore
    from forex_core.errors import DataQualityError, InputError

    for name, value in deployment.environment(LIGHT).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FOREX_DATA__RATE", "observed")
    store = ObservationStore(f"sqlite:///{deployment.root / 'data' / 'store' / 'forex.db'}", deployment.root)
    for seen in observations_of([deployment.market], Pair("USD", "CLP"), rate="observed"):
        store.record(seen)

    def observed(day: date, engine: EngineConfig = LIGHT) -> dict[str, Any]:
        found: dict[str, Any] = deployment.flow(engine, day, source="store", paths=None)
        return found

    deployment.publish(LIGHT, DAYS[0])
    deployment.publish(POOR, DAYS[0])  # a challenger on trial
    first = observed(DAYS[1])
    assert first["rate"] == "observed"
    assert (first["published"]["outcome"], first["published"]["version"]) == ("apart", 3)
    assert any("forex promote 7d --pair USDCLP" in notice for notice in first["notices"])
    assert deployment.standing.document() | {"pin": None} == {
        "model": MODEL,
        "champion": 1,
        "challenger": 2,
        "previous": None,
        "pin": None,
    }
    assert observed(DAYS[1])["already_published"]
    assert not deployment.registry.version(MODEL, 3).published, (
        "it was never champion, so nobody goes back to it"
    )
    with pytest.raises(InputError, match="no previous version to go back to"):
        rollback("7d", pair="USDCLP", dry_run=True)
    with pytest.raises(DataQualityError, match=r"version 3 .* observed rate .* market close"):
        rollback("7d", to="3", pair="USDCLP", dry_run=True)
    beside = rollback("7d", to="2", pair="USDCLP", dry_run=True)
    assert beside["forecast"]["origin"] == DAYS[0].isoformat(), (
        "tried on the newest data of the champion's rate"
    )

    promote("7d", to="3", pair="USDCLP", reason="the bank pays the observed rate")
    second = observed(DAYS[2])
    assert (second["published"]["outcome"], second["published"]["version"]) == ("refreshed", 4)
    back = deployment.publish(LIGHT, DAYS[3])
    assert back["rate"] == "close"
    assert (back["published"]["outcome"], back["published"]["version"]) == ("apart", 5)
    standing = deployment.standing
    assert standing.champion is not None
    assert standing.champion.rate == "observed"
    logged = deployment.registry.client.get_run(back["run_id"]).data
    assert logged.tags["rate"] == "close"
