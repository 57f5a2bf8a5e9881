"""The flows `pretrain` and `finetune` with a tiny model, on every back end, and a store that goes away meanwhile."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from forex_core.config import EngineConfig, load_settings
from forex_core.databases import sqlite_path
from forex_core.errors import ConfigError, InputError, MemberError, TrackingError
from forex_core.models.chronos import ChronosForecaster
from forex_core.models.chronos_weights import GRAPH, StatedWeights
from forex_core.report.text import training_lines
from forex_core.testing import synthetic_bundle
from forex_core.tracking import open_store, registry_from_settings
from forex_core.tracking.build import connect
from forex_core.tracking.neural import register_folder, with_registered_weights
from forex_core.tracking.registry import Registry
from forex_core.types import LEVELS, Horizon

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(280),
    pytest.mark.usefixtures("prefect_server"),
]

TINY: dict[str, Any] = {
    "epochs": 2,
    "steps_per_epoch": 3,
    "batch_size": 2,
    "validation_batches": 1,
    "workers": 0,
    "architecture": {
        "width": 16,
        "layers": 1,
        "heads": 2,
        "feed_forward": 32,
        "context": 128,
    },
}
# The synthetic market of the tests ends in 2018.
EARLY = TINY | {"train_until": "2008-12-31", "validate_until": "2010-12-31"}


@pytest.fixture(params=["sqlite", "postgresql and s3"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_store"))
    uri = str(request.getfixturevalue("postgres_store"))
    bucket = request.getfixturevalue("s3_bucket")
    places = {"FOREX_TRACKING_URI": uri, "FOREX_ARTIFACT_URI": f"s3://{bucket.name}/mlruns"}
    for name, value in (places | bucket.settings).items():
        monkeypatch.setenv(name, value)
    return uri


def pretrain(**told: Any) -> dict[str, Any]:
    from flows.train import pretrain as flow

    document = flow(**told)
    assert isinstance(document, dict)
    return document


def runs_of(experiment: str) -> list[Any]:
    settings = load_settings()
    connect(settings)
    client = open_store(settings.mlflow_uri, settings.mlflow_artifacts, settings.root)
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


WRITTEN = {
    "run.json",
    "curve.json",
    *(f"weights/{name}" for name in ("model.safetensors", GRAPH, "training.json")),
}


def files_of(run: Any) -> set[str]:
    client = registry_from_settings(load_settings()).client
    return {item.path for place in ("", "weights") for item in client.list_artifacts(run.info.run_id, place)}


def ended(*line: str) -> Any:
    """The document of a command that ends well."""
    from forex_core.cli import app

    done = CliRunner().invoke(app, [*line, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_what_a_run_tells_and_where_its_weights_go(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Params before, metrics by step, files after; a registered version that a forecast can name."""
    done = pretrain(config=EARLY, output_dir=tmp_path / "out", run_name="tiny")
    (run,) = runs_of("chronos_pretraining")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "tiny")
    assert run.data.params["learning_rate"] == "0.001"
    assert run.data.params["width"] == "16"
    assert int(run.data.params["parameters"]) > 1000
    assert run.data.metrics["best_val_loss"] == pytest.approx(done["best"]["val_loss"])
    settings = load_settings()
    client = registry_from_settings(settings).client
    history = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "val/loss")}
    assert [history[step] for step in sorted(history)] == pytest.approx(
        [e["val_loss"] for e in done["curve"]]
    )
    assert {"train/loss", "lr-AdamW", "seconds"} <= run.data.metrics.keys()
    assert run.data.metrics["test/loss"] == pytest.approx(done["test_loss"])
    assert files_of(run) >= WRITTEN

    assert (done["model"], done["version"]) == ("chronos", 1)
    named = load_settings(chronos={"model": "models:/chronos/1"})
    found = with_registered_weights(named).chronos.model
    assert found is not None
    stated = StatedWeights.read(Path(found))
    assert stated is not None
    assert stated.trained_until == date(2010, 12, 31)
    tags = registry_from_settings(settings).version("chronos", 1).tags
    assert (tags["trained_until"], tags["may_have_seen"]) == ("2010-12-31", "False")
    assert ChronosForecaster(found).identity == ChronosForecaster(done["weights"]).identity
    stamp = Path(found).stat().st_mtime_ns
    assert with_registered_weights(named).chronos.model == found
    assert Path(found).stat().st_mtime_ns == stamp, "it is fetched once"
    whole = Path(found, GRAPH).read_bytes()
    Path(found, GRAPH).write_bytes(whole[:-9])
    assert with_registered_weights(named).chronos.model == found
    assert Path(found, GRAPH).read_bytes() == whole, "and again when it is damaged"

    import mlflow.onnx
    import onnxruntime

    registry = registry_from_settings(settings)  # what it fetched goes with it
    model = mlflow.onnx.load_model(str(registry.folder(registry.version("chronos", 1))))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    series = np.zeros((5, 128), dtype=np.float32)
    assert session.run(None, {"context": series})[0].shape == (23, 64)

    monkeypatch.setenv("FOREX_TRACKING_URI", "postgresql://127.0.0.1:1/none")
    assert (
        with_registered_weights(load_settings(chronos={"model": "models:/chronos/1"})).chronos.model == found
    )
    absent = with_registered_weights(load_settings(chronos={"model": "models:/chronos/9"})).chronos.model
    market = synthetic_bundle(700)
    with pytest.raises(MemberError, match="could not be fetched from the registry"):
        ChronosForecaster(absent).forecast(market, market.instants[-1:], 5, LEVELS)


def test_weights_of_the_registry_make_a_challengers_forecast(
    light: EngineConfig, market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fine-tuned up to a year ago, named by its version: another recipe, which is not champion before it has won."""
    from flows.forecast import FLOWS

    first = pretrain(config=EARLY, output_dir=tmp_path / "out")
    asked: dict[str, Any] = {"pair": "USDCLP", "source": "csv", "paths": [market]}
    spoilt = Path(shutil.copytree(first["weights"], tmp_path / "spoilt"))
    (spoilt / GRAPH).write_bytes((spoilt / GRAPH).read_bytes()[:-9])
    monkeypatch.setenv("FOREX_CHRONOS__MODEL", str(spoilt))
    without = FLOWS[Horizon(7)](**asked)
    assert "has the checksum" in without["failures"]["chronos"]
    assert without["published"]["version"] == 1
    told = tmp_path / "told.json"
    told.write_text(json.dumps({"pretrained": first["weights"], "steps": 2, "until": "2015-01-02"}))
    line = ("train", "finetune", "--pair", "USDCLP", "--path", str(market), "--config", str(told))
    tuned = ended(*line, "--batch-size", "5", "--until", "2016-06-30", "--run-name", "tuned")
    (run,) = runs_of("chronos_finetuning")
    assert (run.info.run_name, run.data.params["batch_size"], run.data.params["steps"]) == ("tuned", "5", "2")
    assert (tuned["model"], tuned["version"]) == ("chronos-usdclp", 1)
    assert tuned["trained_until"] == "2016-06-30"
    monkeypatch.setenv("FOREX_CHRONOS__MODEL", "models:/chronos-usdclp/1")
    again = FLOWS[Horizon(7)](**asked)
    assert again["published"]["challenger"] is not None
    assert again["published"]["version"] == without["published"]["version"]
    standing = registry_from_settings(load_settings()).standing("usdclp-7d")
    assert standing.challenger is not None
    made, _ = registry_from_settings(load_settings()).model(standing.challenger)
    assert made.state.weights["chronos"] > 0
    assert standing.challenger.recipe != standing.champion.recipe  # type: ignore[union-attr]


def test_fine_tuned_on_real_data_they_are_measured_on_what_they_have_not_seen(
    shared_data: Path, sqlite_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the package's weights, up to the day after which there is enough to decide by: spoiled weights lose."""
    from flows.forecast import FLOWS
    from flows.train import finetune

    config = EngineConfig(members=("random_walk", "chronos"), min_members=2)
    monkeypatch.setenv("FOREX_ENGINE", config.model_dump_json())
    market = shared_data / "usdclp_market_daily.csv"
    asked: dict[str, Any] = {"pair": "USDCLP", "source": "csv", "paths": [market]}
    before = FLOWS[Horizon(7)](**asked, as_of=date(2024, 6, 28))
    assert before["published"]["version"] == 1
    tuned = finetune(**asked, config={"method": "full", "steps": 30, "learning_rate": 0.15})
    assert isinstance(tuned, dict)
    assert "2020-07-01" < tuned["trained_until"] < "2021-04-30"
    assert tuned["judged_from"] is None, "there is enough by now"
    monkeypatch.setenv("FOREX_CHRONOS__MODEL", "models:/chronos-usdclp/1")
    after = FLOWS[Horizon(7)](**asked, as_of=date(2024, 6, 28))
    decision = after["published"]
    assert decision["outcome"] == "kept", decision
    origins = int(re.search(r"(\d+) origins", decision["reason"]).group(1))  # type: ignore[union-attr]
    assert 104 <= origins <= 130


def test_training_exporting_registering_and_promoting_by_command_and_what_is_refused(
    sqlite_store: str, tmp_path: Path
) -> None:
    told = tmp_path / "told.json"
    told.write_text(json.dumps(EARLY))
    line = ("train", "pretrain", "--config", str(told), "--epochs", "1", "--register-as", "")
    done = ended(*line, "--output-dir", str(tmp_path / "out"))
    assert (len(done["curve"]), done["model"], done["version"]) == (1, None, None)
    settings, weights = load_settings(), Path(done["weights"])
    graph = (weights / GRAPH).read_bytes()
    (weights / GRAPH).unlink()
    assert ended("train", "export", str(weights))["parity"] == done["parity"]
    assert (weights / GRAPH).read_bytes() == graph
    register = ("train", "register", str(weights), "--name", "mine")
    assert ended(*register)["address"] == "models:/mine/1"
    with pytest.raises(InputError, match="no version of mine is 'champion'; it has no alias"):
        with_registered_weights(load_settings(chronos={"model": "models:/mine@champion"}))
    assert ended(*register, "--promote") == {
        "model": "mine",
        "version": 2,
        "promoted": True,
        "address": "models:/mine@champion",
    }
    found = with_registered_weights(load_settings(chronos={"model": "models:/mine@champion"})).chronos.model
    assert found is not None
    assert "mine-2-" in found
    for named, reason in (
        ("models:/mine/3", "has no version 3"),
        ("models:/yours/1", "yours has no version 1"),
        ("models:/mine", "expected models:/NAME/VERSION"),
    ):
        with pytest.raises(InputError, match=reason):
            with_registered_weights(load_settings(chronos={"model": named}))
    registry = registry_from_settings(settings)
    kept = registry.folder(registry.version("mine", 1)) / "artifacts" / "weights" / GRAPH
    kept.write_bytes(kept.read_bytes()[:-1])
    spoilt = with_registered_weights(load_settings(chronos={"model": "models:/mine/1"})).chronos.model
    assert spoilt == "models:/mine/1"
    with pytest.raises(TrackingError, match="not those that were registered"):
        registry_from_settings(settings).verified(registry.version("mine", 1))
    with pytest.raises(InputError, match="holds no weights that state what they are"):
        register_folder(settings, tmp_path, "mine", promote=False)


def test_what_is_trained_on_states_what_it_was_begun_from(sqlite_store: str, tmp_path: Path) -> None:
    later = EARLY | {"validate_until": "2012-12-31"}
    first = pretrain(config=later, output_dir=tmp_path / "first", register_as=None)
    again = pretrain(
        config=EARLY, pretrained=first["weights"], output_dir=tmp_path / "again", register_as="again"
    )
    assert again["trained_until"] == "2012-12-31"
    stated = StatedWeights.read(Path(again["weights"]))
    assert stated is not None
    assert (stated.trained_until, stated.may_have_seen) == (date(2012, 12, 31), False)
    Path(first["weights"], "training.json").unlink()
    of_nobody = pretrain(
        config=EARLY, pretrained=first["weights"], output_dir=tmp_path / "of nobody", register_as="of_nobody"
    )
    assert ChronosForecaster(of_nobody["weights"]).may_have_seen
    assert registry_from_settings(load_settings()).version("of_nobody", 1).tags["may_have_seen"] == "True"


def leaving(
    uri: str, folder: Path, request: pytest.FixtureRequest
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """What takes a store's database away, and what brings it back."""
    database = sqlite_path(uri)
    if database is None:
        name, execute = uri.rpartition("/")[2], request.getfixturevalue("postgres_server").execute

        def close() -> None:
            execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

        return close, lambda: execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    files, aside = [Path(f"{database}{end}") for end in ("", "-wal", "-shm")], folder / "aside"

    def take() -> None:
        aside.mkdir()
        for file in files:
            if file.exists():
                file.rename(aside / file.name)

    def bring() -> None:
        for file in files:
            file.unlink(missing_ok=True)
        for file in aside.iterdir():
            file.rename(database.parent / file.name)

    return take, bring


@pytest.mark.parametrize(
    ("backend", "when"),
    [
        ("sqlite", "after the first epoch"),
        ("sqlite", "before it registers"),
        ("postgresql and s3", "after the first epoch"),
    ],
    indirect=["backend"],
)
def test_a_store_that_goes_away_stops_no_training_and_gets_all_of_it_later(
    backend: str, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The database is gone; what follows is spooled, and logged when it is back. It says how to register then."""
    from forex_core.training import run as room

    goes_away, comes_back = leaving(backend, tmp_path, request)

    class Gone(room.Curve):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            super().on_validation_end(trainer, pl_module)
            if len(self.epochs) == 1:
                goes_away()

    def register(*told: Any, **more: Any) -> Any:
        goes_away()
        return registering(*told, **more)

    registering = Registry.register_model
    with monkeypatch.context() as patched:
        if when == "before it registers":
            patched.setattr(Registry, "register_model", register)
        else:
            patched.setattr(room, "Curve", Gone)
        done = pretrain(config=EARLY, output_dir=tmp_path / "out")
    assert bool(done["degraded"]) == (when == "after the first epoch"), "else the end alone is kept"
    assert (done["model"], done["version"]) == ("chronos", None)
    assert done["not_registered"]
    (advice,) = [line for line in training_lines(done) if line.startswith("To do it later: ")]
    assert Path(done["weights"], GRAPH).is_file()
    comes_back()
    (replayed,) = ended("tracking", "replay")["entries"]
    assert replayed["outcome"] == "logged"
    (run,) = runs_of("chronos_pretraining")
    assert run.info.status == "FINISHED"
    history = registry_from_settings(load_settings()).client.get_metric_history(run.info.run_id, "val/loss")
    assert [m.value for m in history] == pytest.approx([e["val_loss"] for e in done["curve"]])
    assert run.data.metrics["best_val_loss"] == pytest.approx(done["best"]["val_loss"])
    assert files_of(run) >= WRITTEN
    assert ended(*advice.partition("forex ")[2].split())["version"] == 1


def test_a_configuration_that_cannot_be_used_is_a_failed_run(sqlite_store: str, tmp_path: Path) -> None:
    pretrain(config=EARLY, output_dir=tmp_path / "out", register_as=None)
    with pytest.raises(ConfigError, match="holds another run"):
        pretrain(config=EARLY | {"seed": 5}, output_dir=tmp_path / "out")
    with pytest.raises(InputError, match="cannot be named 'a/b'; leave out /"):
        pretrain(config=EARLY, output_dir=tmp_path / "new", register_as="a/b")
    with pytest.raises(ConfigError, match="say what to begin from"):
        pretrain(config=EARLY, output_dir=tmp_path / "new", freeze_backbone=True)
    assert not (tmp_path / "new").exists()
    failed, finished = runs_of("chronos_pretraining")
    assert (failed.info.status, finished.info.status) == ("FAILED", "FINISHED")
    assert failed.data.tags["error_type"] == "ConfigError"


@pytest.mark.parametrize("told_to_end", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_the_command_trains_shows_progress_and_ends_its_run_as_killed(
    told_to_end: signal.Signals, tmp_path: Path, sqlite_store: str
) -> None:
    """Its options beat the file. What it was told is logged before it trains."""
    from forex_core.training.config import Architecture
    from forex_core.training.module import untrained
    from forex_core.training.weights import Statement, save_weights

    begun_from = tmp_path / "begun from"
    shape = Architecture(**TINY["architecture"])
    save_weights(untrained(shape), begun_from, Statement(date(2009, 1, 1), 128, 64, {}), graph=False)
    told = tmp_path / "told.json"
    told.write_text(json.dumps(EARLY | {"epochs": 9, "batch_size": 7, "learning_rate": 0.5}))
    command = [str(Path(sys.executable).parent / "forex"), "train", "pretrain", "--config", str(told)]
    command += ["--output-dir", str(tmp_path / "out"), "--run-name", "mine", "--freeze-backbone"]
    command += ["--learning-rate", "2e-3", "--batch-size", "3", "--epochs", "400"]
    command += ["--pretrained", str(begun_from)]
    environment = os.environ | {"FOREX_DATA_DIR": str(tmp_path / "data")}
    curve = tmp_path / "out" / "curve.json"
    with (tmp_path / "said").open("wb") as said:
        running = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
        until = time.monotonic() + 200
        while not curve.is_file() and time.monotonic() < until:
            assert running.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.1)
        os.killpg(running.pid, told_to_end)
        assert running.wait(60) != 0
    assert "Epoch 0" in (tmp_path / "said").read_text()
    (run,) = runs_of("chronos_pretraining")
    assert (run.info.status, run.info.run_name) == ("KILLED", "mine")
    asked = {"learning_rate": "0.002", "batch_size": "3", "epochs": "400", "freeze_backbone": "True"}
    assert {name: run.data.params[name] for name in asked} == asked
    assert json.loads((tmp_path / "out" / "run.json").read_text())["begun_from"]
    assert 0 < len(json.loads(curve.read_text())) < 400


def test_a_training_whose_process_was_killed_is_ended_by_the_next(sqlite_store: str, tmp_path: Path) -> None:
    code = f"""
import os, signal
from forex_core.training import run as room
from flows.train import pretrain

class Killed(room.Curve):
    def on_validation_end(self, trainer, pl_module):
        os.kill(os.getpid(), signal.SIGKILL)

room.Curve = Killed
pretrain(config={EARLY!r}, output_dir={str(tmp_path / "out")!r})
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=False, timeout=200)
    assert done.returncode == -signal.SIGKILL
    (killed,) = runs_of("chronos_pretraining")
    assert killed.info.status == "RUNNING"
    pretrain(config=EARLY, output_dir=tmp_path / "out", register_as=None)
    finished, killed = runs_of("chronos_pretraining")
    assert (finished.info.status, killed.info.status) == ("FINISHED", "KILLED")
