"""Which tracker a configuration gives, and the service calls over it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forex_core.config import load_settings
from forex_core.errors import TrackingError
from forex_core.tracking import (
    MLflowConfig,
    MLflowTracker,
    NoopTracker,
    Registry,
    build_tracker_from_config,
    open_store,
    replay_spool,
    tracker_from_settings,
)
from forex_core.types import Horizon


class TestBuild:
    def test_takes_a_dictionary_a_file_and_the_settings(
        self, sqlite_store: str, tmp_path: Path, told: list[str]
    ) -> None:
        mlflow = {
            "tracking_uri": sqlite_store,
            "experiment_name": "mine",
            "auto_start_run": True,
            "run_name": "n",
        }
        table = {"enabled": True, "backend": "mlflow", "mlflow": mlflow}
        file = tmp_path / "configuration.toml"
        file.write_text(
            '[other]\nx = 1\n[tracking]\nenabled = true\nbackend = "mlflow"\n'
            f'[tracking.mlflow]\ntracking_uri = "{sqlite_store}"\nexperiment_name = "mine"\n'
            'auto_start_run = true\nrun_name = "n"\n'
        )
        client = open_store(sqlite_store)
        for config in (table, {"tracking": table}, file, str(file), load_settings(tracking=table)):
            tracker = build_tracker_from_config(config)
            assert isinstance(tracker, MLflowTracker)
            run = client.get_run(str(tracker.run_id))
            assert run.info.run_name == "n", "started at once"
            assert client.get_experiment(run.info.experiment_id).name == "mine"
            tracker.end_run()
        assert told == []

    def test_leaves_the_rest_to_the_settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the environment")
        tracker = build_tracker_from_config({})
        with tracker:
            pass
        assert (tmp_path / "data" / "mlflow" / "mlflow.db").is_file()
        client = open_store(f"sqlite:///{tmp_path / 'data' / 'mlflow' / 'mlflow.db'}")
        run = client.get_run(str(tracker.run_id))
        assert client.get_experiment(run.info.experiment_id).name == "of the environment"
        assert run.info.artifact_uri.startswith((tmp_path / "data" / "mlflow" / "mlruns").as_uri())

    def test_puts_the_prefix_before_every_name(
        self, sqlite_store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Given, in the settings, of nobody, of a run that is adopted, of one in the spool."""
        client = open_store(sqlite_store)

        def name_of(run_id: object) -> str:
            return str(client.get_run(str(run_id)).info.run_name)

        mlflow = {"run_name": "n", "run_name_prefix": "desk-"}
        with build_tracker_from_config({"mlflow": mlflow}) as tracker:
            assert name_of(tracker.run_id) == "desk-n"
            tracker.start_run("better")
            assert name_of(tracker.run_id) == "desk-better"
        file = tmp_path / "configuration.toml"
        file.write_text('[tracking.mlflow]\nrun_name_prefix = "desk-"\n')
        with build_tracker_from_config(file) as tracker:
            assert re.fullmatch(r"desk-\d{8}_\d{6}", name_of(tracker.run_id))

        monkeypatch.setenv("MLFLOW_RUN_NAME_PREFIX", "desk-")
        with MLflowConfig().start_run("first") as run:
            assert name_of(run.run_id) == "desk-first"
        with tracker_from_settings(load_settings(), run_name="flow") as tracker:
            assert name_of(tracker.run_id) == "desk-flow"
        away = Path(sqlite_store.removeprefix("sqlite:///"))
        kept = away.rename(away.with_suffix(".away"))
        away.mkdir()
        with tracker_from_settings(load_settings(), run_name="spooled") as tracker:
            assert tracker.degraded
        away.rmdir()
        kept.rename(away)
        (replayed,) = replay_spool(load_settings().spool_dir, sqlite_store)
        assert name_of(replayed.run_id) == "desk-spooled"

    @pytest.mark.parametrize("table", [{"enabled": False}, {"backend": "noop"}])
    def test_gives_the_one_that_does_nothing_when_asked_to(
        self, table: dict[str, Any], told: list[str], tmp_path: Path
    ) -> None:
        assert isinstance(build_tracker_from_config(table), NoopTracker)
        assert told == []
        assert not (tmp_path / "data").exists()

    @pytest.mark.parametrize(
        ("table", "part"),
        [
            ({"backend": "wandb"}, "'wandb'"),
            ({"enabled": "perhaps"}, "enabled"),
            ({"mlflow": {"tracking_uri": 5}}, "tracking_uri"),
            ({"mlflow": {"tracking_uri": "nonsense://x"}}, "'nonsense://x'"),
            ({"mlflow": {"tracking_uri": "/srv/mlflow.db"}}, "expected sqlite:////path/mlflow.db"),
            ({"mlflow": {"tracking_uri": "file:///srv/mlruns"}}, "file:///srv/mlruns"),
            ({"mlflow": {"tracking_uri": "s3://bucket"}}, "s3://bucket"),
            ({"mlflow": {"tracking_uri": "mysql://me:hidden@host/db"}}, "mysql://me:***@host/db"),
            ({"mlflow": {"tracking_uri": "sqlite:////srv/mlflow.db?timeout=30"}}, "no options"),
            ({"mlflow": {"tracking_uri": "sqlite:////a.db", "registry_uri": "sqlite:////b.db"}}, "one store"),
            ({"mlflow": "sqlite:///x"}, "mlflow"),
            ({"mlflow": {"experimentname": "x"}}, "experiment_name"),
            ({"mlflow": {"s3_secret_access_key": ["hidden"]}}, "s3_secret_access_key"),
            ({"colour": "red"}, "colour"),
            ({"tracking": 5}, "expected a table"),
            (None, "NoneType"),
            (5, "int"),
        ],
    )
    def test_gives_it_with_a_reason_for_a_configuration_that_cannot_be_used(
        self, table: Any, part: str, told: list[str]
    ) -> None:
        assert isinstance(build_tracker_from_config(table), NoopTracker)
        assert len(told) == 1
        assert part in told[0]
        assert "hidden" not in told[0]

    @pytest.mark.parametrize(
        ("content", "part"),
        [
            (None, "No such file"),
            (b"[tracking\n", "cannot be read as TOML"),
            (b"\xff", "cannot be read as TOML"),
            (b"[other]\nx = 1\n", "no table [tracking]"),
            (b"tracking = 3\n", "expected a table"),
        ],
    )
    def test_gives_it_with_a_reason_for_a_file_that_cannot_be_used(
        self, content: bytes | None, part: str, told: list[str], tmp_path: Path
    ) -> None:
        file = tmp_path / "configuration.toml"
        if content is not None:
            file.write_bytes(content)
        assert isinstance(build_tracker_from_config(file), NoopTracker)
        assert len(told) == 1
        assert part in told[0]
        assert str(file) in told[0]

    @pytest.mark.parametrize(
        "call",
        [
            "build_tracker_from_config({'backend': 'mlflow'})",
            "MLflowTracker('sqlite:///x.db', 'e').start_run()",
        ],
    )
    def test_without_mlflow_says_how_to_install_it(self, call: str, tmp_path: Path) -> None:
        code = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mlflow":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
from forex_core.errors import TrackingError
from forex_core.tracking import MLflowTracker, NoopTracker, build_tracker_from_config
assert isinstance(build_tracker_from_config({{"backend": "noop"}}), NoopTracker)
try:
    {call}
except TrackingError as error:
    print(error)
"""
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            timeout=200,
        )
        assert "MLflow is not installed" in done.stdout
        assert "pip install" in done.stdout

    def test_imports_no_mlflow_until_a_run_starts(self, tmp_path: Path) -> None:
        code = (
            "import sys; from forex_core.tracking import build_tracker_from_config; "
            "build_tracker_from_config({}); print('mlflow' in sys.modules, 'matplotlib' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            timeout=200,
        )
        assert done.stdout.split() == ["False", "False"]


class TestService:
    @pytest.fixture
    def service(self, sqlite_store: str) -> MLflowConfig:
        """On the store of the settings, which is where the fixture's database lies."""
        return MLflowConfig()

    def test_sets_up_an_experiment_once(self, service: MLflowConfig, sqlite_store: str) -> None:
        first = service.setup("forecaster_7d", tags={"horizon": "7d"})
        assert service.setup("forecaster_7d", tags={"service": "x"}) == first
        found = open_store(sqlite_store).get_experiment(first)
        assert (found.name, found.tags["horizon"], found.tags["service"]) == ("forecaster_7d", "7d", "x")

    def test_logs_a_run_with_its_errors(self, service: MLflowConfig, sqlite_store: str) -> None:
        experiment = service.setup("forecaster_7d")
        with service.start_run("first", {"pair": "USDCLP"}, "what it is") as run:
            service.log_forecast_metrics("7d", 16.4, 12.0, 1.3, directional_accuracy=0.55)
            service.log_forecast_metrics(np.int64(15), 24.5, 18.0, 2.0, step=2)
            service.log_forecast_metrics(30, 31.0, 25.0, 2.5)
            service.log_forecast_metrics(Horizon(90), 60.0, 45.0, 5.0)
            assert service.start_run().run_id == run.run_id, "a second start adopts the run"
        stored = open_store(sqlite_store).get_run(str(run.run_id))
        assert (stored.info.status, stored.info.run_name) == ("FINISHED", "first")
        assert stored.info.experiment_id == experiment
        assert stored.data.metrics == {
            "7d_rmse": 16.4,
            "7d_mae": 12.0,
            "7d_mape": 1.3,
            "7d_directional_accuracy": 0.55,
            "15d_rmse": 24.5,
            "15d_mae": 18.0,
            "15d_mape": 2.0,
            "30d_rmse": 31.0,
            "30d_mae": 25.0,
            "30d_mape": 2.5,
            "90d_rmse": 60.0,
            "90d_mae": 45.0,
            "90d_mape": 5.0,
        }
        assert stored.data.tags["pair"] == "USDCLP"
        assert stored.data.tags["mlflow.note.content"] == "what it is"
        with service.start_run() as second:
            assert second.run_id != stored.info.run_id

    def test_names_the_best_finished_run_or_none(self, service: MLflowConfig) -> None:
        assert service.get_best_run("forecaster_7d") is None
        service.setup("forecaster_7d")
        assert service.get_best_run("forecaster_7d") is None
        ids = {}
        for name, rmse, status in (
            ("good", 2.0, "FINISHED"),
            ("better but failed", 1.0, "FAILED"),
            ("worse", 3.0, "FINISHED"),
            ("no number", float("nan"), "FINISHED"),
            ("infinite", float("inf"), "FINISHED"),
        ):
            run = service.start_run(name)
            service.log_forecast_metrics("7d", rmse, 1.0, 1.0)
            run.end_run(status)  # type: ignore[arg-type]
            ids[name] = run.run_id
        best, worst = (
            service.get_best_run("forecaster_7d"),
            service.get_best_run("forecaster_7d", "7d_rmse", False),
        )
        assert best is not None
        assert worst is not None
        assert (best.id, worst.id) == (ids["good"], ids["worse"])
        assert service.get_best_run("forecaster_7d", "no_such_metric") is None

    def test_without_a_run_tells_and_logs_nothing(
        self, service: MLflowConfig, told: list[str], tmp_path: Path
    ) -> None:
        service.log_forecast_metrics("7d", 1.0, 1.0, 1.0)
        assert service.log_model_artifact(tmp_path, "model") is None
        with service.start_run():
            pass
        service.log_forecast_metrics("7d", 1.0, 1.0, 1.0)
        assert len(told) == 3

    @pytest.mark.parametrize(("name", "value"), [("ENABLED", "false"), ("BACKEND", "noop")])
    def test_writes_nothing_where_tracking_is_switched_off(
        self, monkeypatch: pytest.MonkeyPatch, told: list[str], tmp_path: Path, name: str, value: str
    ) -> None:
        monkeypatch.setenv(f"FOREX_TRACKING__{name}", value)
        service = MLflowConfig(f"sqlite:///{tmp_path / 'own' / 'mlflow.db'}")
        assert service.setup("mine", tags={"a": "b"}) == "untracked"
        with service.start_run("first") as run:
            assert service.start_run() is run
            service.log_forecast_metrics("7d", 1.0, 1.0, 1.0)
            assert service.log_model_artifact(object(), "model", registered_model_name="mine") is None
        assert service.get_best_run("mine") is None
        assert told == []
        assert list(tmp_path.iterdir()) == []

    def test_takes_a_store_of_its_own(self, tmp_path: Path) -> None:
        uri = f"sqlite:///{tmp_path / 'own' / 'mlflow.db'}"
        service = MLflowConfig(uri, (tmp_path / "files").as_uri())
        service.setup("mine")
        with service.start_run() as run:
            pass
        stored = open_store(uri).get_run(str(run.run_id))
        assert stored.info.artifact_uri.startswith((tmp_path / "files" / "mine").as_uri())


class TestServiceModels:
    @pytest.fixture
    def service(self, sqlite_store: str) -> MLflowConfig:
        service = MLflowConfig(sqlite_store)
        service.setup("models")
        service.start_run()
        return service

    def load(self, sqlite_store: str, address: str | None) -> Any:
        import mlflow

        assert address is not None
        location = (
            open_store(sqlite_store).get_logged_model(address.removeprefix("models:/")).artifact_location
        )
        folder = Path(location.removeprefix("file://"))
        names = [path.name for path in folder.rglob("*")]
        assert not [name for name in names if name.endswith((".pkl", ".pickle", ".cloudpickle", ".joblib"))]
        return mlflow.pyfunc.load_model(str(folder))

    def test_of_scikit_learn_come_back_without_a_pickle(
        self, service: MLflowConfig, sqlite_store: str
    ) -> None:
        from sklearn.linear_model import LinearRegression

        model = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
        address = service.log_model_artifact(model, "models/linear", registered_model_name="linear")
        loaded = self.load(sqlite_store, address)
        assert loaded.predict([[2.0]]) == pytest.approx([5.0])
        (version,) = open_store(sqlite_store).search_model_versions("name = 'linear'")
        assert version.run_id == open_store(sqlite_store).get_logged_model(str(address)[8:]).source_run_id

    def test_in_the_spool_are_not_registered_and_it_is_told_how_to(
        self, service: MLflowConfig, sqlite_store: str, tmp_path: Path, told: list[str]
    ) -> None:
        folder = tmp_path / "saved"
        folder.mkdir()
        (folder / "MLmodel").write_text("flavors: {}\n")
        path = Path(sqlite_store.removeprefix("sqlite:///"))
        path.rename(path.with_name("away"))
        assert service.log_model_artifact(folder, "linear", registered_model_name="mine") is None
        service.start_run().end_run()
        path.with_name("away").rename(path)
        settings = load_settings()
        (done,) = replay_spool(settings.spool_dir, sqlite_store)
        client = open_store(sqlite_store)
        assert client.search_registered_models() == []
        call = re.search(r"register_model\('(.+)', '(.+)'\)", told[-1])
        assert call, told
        Registry(sqlite_store).register_model(call[1], call[2].replace("RUN_ID", str(done.run_id)))
        (version,) = client.search_model_versions("name = 'mine'")
        assert version.run_id == done.run_id

    def test_that_are_not_logged_are_not_registered_which_is_told(
        self, service: MLflowConfig, tmp_path: Path, told: list[str]
    ) -> None:
        (tmp_path / "MLmodel").write_text("flavors: {}\n")
        (tmp_path / "broken").symlink_to(tmp_path / "gone")
        assert service.log_model_artifact(tmp_path, "linear", registered_model_name="mine") is None
        assert "not registered as mine" in told[-1]

    def test_as_code_come_back(self, service: MLflowConfig, sqlite_store: str, tmp_path: Path) -> None:
        file = tmp_path / "double.py"
        file.write_text(
            "import mlflow\n"
            "class Double(mlflow.pyfunc.PythonModel):\n"
            "    def predict(self, context, model_input: list[float]) -> list[float]:\n"
            "        return [2 * x for x in model_input]\n"
            "mlflow.models.set_model(Double())\n"
        )
        loaded = self.load(sqlite_store, service.log_model_artifact(file, "double"))
        file.unlink()
        assert loaded.predict([1.5]) == [3.0]

    def test_that_cannot_be_kept_safely_are_refused_with_the_cure(
        self, service: MLflowConfig, tmp_path: Path
    ) -> None:
        from sklearn.base import BaseEstimator
        from sklearn.linear_model import LinearRegression

        class Own(BaseEstimator):  # type: ignore[misc]
            def fit(self) -> Own:
                self.state_ = lambda: 1
                return self

        (tmp_path / "notes.txt").touch()
        for model, part in (
            (object(), "builtins.object"),
            (LinearRegression(), "not fitted"),
            (Own().fit(), "without a pickle"),
            (tmp_path, "no file MLmodel"),
            (tmp_path / "notes.txt", "notes.txt"),
            (str(tmp_path / "none.py"), "none.py"),
        ):
            with pytest.raises(TrackingError, match=part):
                service.log_model_artifact(model, "model")
