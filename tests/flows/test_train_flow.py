"""The flows `pretrain` and `finetune` with a tiny model, on every back end, and a store that goes away meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forex_core.config import EngineConfig, load_settings
from forex_core.databases import sqlite_path
from forex_core.errors import ConfigError, InputError, MemberError, TrackingError
from forex_core.models.chronos import ChronosForecaster
from forex_core.models.chronos_weights import GRAPH, StatedWeights
from forex_core.testing import synthetic_bundle
from forex_core.tracking import open_store, registry_from_settings, replay_spool
from forex_core.tracking.build import connect
from forex_core.tracking.neural import register_folder, with_registered_weights
from forex_core.types import LEVELS, Horizon

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
    files = {item.path for item in client.list_artifacts(run.info.run_id, "weights")}
    assert {f"weights/{name}" for name in ("model.safetensors", GRAPH, "training.json")} <= files

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
    from flows.train import finetune

    first = pretrain(config=EARLY, output_dir=tmp_path / "out")
    asked: dict[str, Any] = {"pair": "USDCLP", "source": "csv", "paths": [market]}
    without = FLOWS[Horizon(7)](**asked)
    assert "chronos" in without["failures"]
    tuned = finetune(
        **asked, config={"pretrained": first["weights"], "steps": 2, "batch_size": 5, "until": "2016-06-30"}
    )
    assert isinstance(tuned, dict)
    assert (tuned["model"], tuned["version"]) == ("chronos-usdclp", 1)
    assert tuned["trained_until"] == "2016-06-30"
    monkeypatch.setenv("FOREX_CHRONOS__MODEL", "models:/chronos-usdclp/1")
    again = FLOWS[Horizon(7)](**asked)
    assert again["published"]["challenger"] is not None
    assert again["published"]["version"] == without["published"]["version"]
    standing = registry_from_settings(load_settings()).standing("usdclp-7d")
    assert standing.challenger is not None
    assert standing.challenger.recipe != standing.champion.recipe  # type: ignore[union-attr]


def test_fine_tuned_on_real_data_they_are_measured_on_what_they_have_not_seen(
    shared_data: Path, sqlite_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the package's weights, up to the end of 2019: the years after it decide, and spoiled weights lose."""
    from flows.forecast import FLOWS
    from flows.train import finetune

    config = EngineConfig(members=("random_walk", "chronos"), min_members=2)
    monkeypatch.setenv("FOREX_ENGINE", config.model_dump_json())
    market = shared_data / "usdclp_market_daily.csv"
    asked: dict[str, Any] = {"pair": "USDCLP", "source": "csv", "paths": [market]}
    before = FLOWS[Horizon(7)](**asked, as_of=date(2024, 6, 28))
    assert before["published"]["version"] == 1
    told = {"method": "full", "steps": 30, "until": "2019-12-31", "learning_rate": 0.3}
    assert finetune(**asked, config=told)["trained_until"] == "2019-12-31"
    monkeypatch.setenv("FOREX_CHRONOS__MODEL", "models:/chronos-usdclp/1")
    after = FLOWS[Horizon(7)](**asked, as_of=date(2024, 6, 28))
    decision = after["published"]
    assert decision["outcome"] == "kept", decision
    origins = int(re.search(r"(\d+) origins", decision["reason"]).group(1))  # type: ignore[union-attr]
    # A week apart, of four and a half years less those that teach.
    assert 104 <= origins <= 236 - 52


def test_registering_and_promoting_by_hand_and_what_is_refused(sqlite_store: str, tmp_path: Path) -> None:
    done = pretrain(config=EARLY, output_dir=tmp_path / "out", register_as=None)
    assert done["version"] is None
    settings, weights = load_settings(), Path(done["weights"])
    assert register_folder(settings, weights, "mine", promote=False).number == 1
    with pytest.raises(InputError, match="no version of mine is 'champion'; it has no alias"):
        with_registered_weights(load_settings(chronos={"model": "models:/mine@champion"}))
    assert register_folder(settings, weights, "mine", promote=True).number == 2
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


def test_a_store_that_goes_away_stops_no_training_and_gets_all_of_it_later(
    sqlite_store: str, tmp_path: Path
) -> None:
    """After the first epoch the database is gone; what follows is spooled, and logged when it is back."""
    from forex_core.training import run as room

    database = sqlite_path(sqlite_store)
    assert database is not None
    aside = database.with_suffix(".aside")

    class Gone(room.Curve):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            super().on_validation_end(trainer, pl_module)
            if len(self.epochs) == 1:
                database.rename(aside)

    patch = pytest.MonkeyPatch()
    patch.setattr(room, "Curve", Gone)
    try:
        done = pretrain(config=EARLY, output_dir=tmp_path / "out")
    finally:
        patch.undo()
    assert done["degraded"]
    assert done["version"] is None
    assert Path(done["weights"], GRAPH).is_file()
    database.unlink(missing_ok=True)
    aside.rename(database)
    settings = load_settings()
    (replayed,) = replay_spool(
        settings.spool_dir, settings.mlflow_uri, settings.mlflow_artifacts, settings.root
    )
    assert replayed.outcome == "logged"
    (run,) = runs_of("chronos_pretraining")
    assert run.info.status == "FINISHED"
    history = registry_from_settings(settings).client.get_metric_history(run.info.run_id, "val/loss")
    assert [m.value for m in history] == pytest.approx([e["val_loss"] for e in done["curve"]])
    assert run.data.metrics["best_val_loss"] == pytest.approx(done["best"]["val_loss"])


def test_a_configuration_that_cannot_be_used_is_a_failed_run(sqlite_store: str, tmp_path: Path) -> None:
    pretrain(config=EARLY, output_dir=tmp_path / "out", register_as=None)
    with pytest.raises(ConfigError, match="holds another run"):
        pretrain(config=EARLY | {"seed": 5}, output_dir=tmp_path / "out")
    failed, finished = runs_of("chronos_pretraining")
    assert (failed.info.status, finished.info.status) == ("FAILED", "FINISHED")
    assert failed.data.tags["error_type"] == "ConfigError"


def test_the_command_trains_shows_progress_and_an_interrupt_ends_its_run_as_killed(
    migrated_sqlite: Path, tmp_path: Path, sqlite_store: str
) -> None:
    told = tmp_path / "told.json"
    told.write_text(json.dumps(EARLY | {"epochs": 400}))
    command = [str(Path(sys.executable).parent / "forex"), "train", "pretrain", "--config", str(told)]
    command += ["--output-dir", str(tmp_path / "out"), "--run-name", "mine"]
    environment = os.environ | {"FOREX_DATA_DIR": str(tmp_path / "data")}
    curve = tmp_path / "out" / "curve.json"
    with (tmp_path / "said").open("wb") as said:
        running = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
        until = time.monotonic() + 200
        while not curve.is_file() and time.monotonic() < until:
            assert running.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.1)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(60) != 0
    assert "Epoch 0" in (tmp_path / "said").read_text()
    (run,) = runs_of("chronos_pretraining")
    assert run.info.status == "KILLED"
    before = len(json.loads(curve.read_text()))
    assert 0 < before < 400
    help_text = subprocess.run(
        [*command[:3], "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=environment | {"COLUMNS": "200"},
    ).stdout
    for option in (
        "--learning-rate",
        "--batch-size",
        "--epochs",
        "--pretrained",
        "--freeze-backbone",
        "--config",
    ):
        assert option in help_text
