"""The service calls that users of MLflow know, over the same tracker."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from numbers import Integral
from pathlib import Path
from typing import Any

from loguru import logger

from forex_core.config import load_settings
from forex_core.errors import TrackingError
from forex_core.secrecy import told
from forex_core.tracking.base import NoopTracker, Tracker
from forex_core.tracking.build import connect
from forex_core.tracking.mlflow_tracker import MLflowTracker
from forex_core.tracking.queries import RunRow, best_run
from forex_core.tracking.store import experiment_id, open_with_experiments, translated
from forex_core.types import UNTRACKED


class MLflowConfig:
    """One experiment at a time, and its active run. With tracking switched off in the settings it writes nothing.

    Args:
        tracking_uri: the store; by default the one of the settings.
        artifact_location: where new experiments keep their files; by default as the settings say, or beside an
            SQLite store that is named here.

    Raises:
        ConfigError: when the settings cannot be read.
        TrackingError: from every call, when the store refuses or cannot be reached.
    """

    def __init__(self, tracking_uri: str | None = None, artifact_location: str | None = None) -> None:
        settings = load_settings()
        connect(settings)
        self._is_on = settings.tracking.is_on
        own = tracking_uri is not None and tracking_uri != settings.mlflow_uri
        self._uri = tracking_uri or settings.mlflow_uri
        self._artifacts = artifact_location or (None if own else settings.mlflow_artifacts)
        self._below = None if own else settings.root
        self._spool = settings.spool_dir
        self._experiment = settings.tracking.mlflow.experiment_name
        self._run_name = settings.tracking.mlflow.run_name
        self._run_name_prefix = settings.tracking.mlflow.run_name_prefix
        self._tracker: Tracker | None = None

    def setup(self, experiment_name: str, *, tags: Mapping[str, str] | None = None) -> str:
        """Make the experiment the one of the next runs; returns its id. `tags` are set on an old one as well."""
        if not self._is_on:
            return UNTRACKED
        with translated(self._uri):
            client, experiments = open_with_experiments(self._uri, self._artifacts, self._below)
            found = experiment_id(
                client, experiments, self._uri, experiment_name, artifact_root=self._artifacts, tags=tags
            )
            for name, value in (tags or {}).items():
                client.set_experiment_tag(found, name, value)
        self._experiment = experiment_name
        return found

    def start_run(
        self,
        run_name: str | None = None,
        tags: Mapping[str, Any] | None = None,
        description: str | None = None,
    ) -> Tracker:
        """Start a run; the tracker that is returned has its `run_id` and ends it as a context manager.

        A run that is active already is adopted, as by every tracker.
        """
        if self._tracker is None or not self._tracker.active:
            self._tracker = self._new_tracker()
        self._tracker.start_run(run_name, description, tags)
        return self._tracker

    def _new_tracker(self) -> Tracker:
        if not self._is_on:
            return NoopTracker()
        return MLflowTracker(
            self._uri,
            self._experiment,
            run_name=self._run_name,
            artifact_location=self._artifacts,
            below=self._below,
            spool=self._spool,
            run_name_prefix=self._run_name_prefix,
        )

    def log_forecast_metrics(
        self,
        horizon: object,
        rmse: float,
        mae: float,
        mape: float,
        *,
        directional_accuracy: float | None = None,
        step: int | None = None,
    ) -> None:
        """Log a forecast's errors as `7d_rmse` and so on: RMSE and MAE in quote units, MAPE in percent.

        Args:
            horizon: a `Horizon`, its name such as 7d, or its whole number of days.
        """
        if self._tracker is None:
            logger.warning("metrics not logged: no run is active; start one before")
            return
        days = f"{horizon}d" if isinstance(horizon, Integral) else str(horizon)
        metrics = {f"{days}_rmse": rmse, f"{days}_mae": mae, f"{days}_mape": mape}
        if directional_accuracy is not None:
            metrics[f"{days}_directional_accuracy"] = directional_accuracy
        self._tracker.log_metrics(metrics, step)

    def log_model_artifact(
        self, model: Any, artifact_path: str, *, registered_model_name: str | None = None
    ) -> str | None:
        """Log a model of the active run, and register it if a name is given; never as a pickle.

        Args:
            model: a folder that holds MLmodel, a fitted scikit-learn estimator, an ONNX model, or a .py file that
                ends with `mlflow.models.set_model(...)`.
            artifact_path: its name.

        Returns:
            Its URI, models:/m-…; None when it could not be logged, and so not be registered, which is told.

        Raises:
            TrackingError: for another kind of model, or one that cannot be saved.
        """
        if self._tracker is None or not self._tracker.active:
            logger.warning("model {} not logged: no run is active; start one before", artifact_path)
            return None
        if not self._is_on:
            return None
        name = re.sub(r"[^\w\- ]", "_", artifact_path.strip("/"))
        with _saved(model) as folder:
            uri = self._tracker.log_model(folder, name)
        if registered_model_name is None:
            return uri
        if uri is not None:
            from forex_core.tracking.registry import Registry

            Registry(self._uri, self._artifacts, self._below).register_model(
                registered_model_name, uri, run_id=self._tracker.run_id
            )
        elif self._tracker.degraded:
            # A replay may be days later: by then it may not be the version that is wanted as the newest.
            logger.warning(
                "model {} is in the spool and not registered as {}; after 'forex tracking replay', which gives RUN_ID, "
                "call Registry(...).register_model({!r}, 'runs:/RUN_ID/{}')",
                name,
                registered_model_name,
                registered_model_name,
                name,
            )
        else:
            logger.warning(
                "model {} is not registered as {}, since it is not logged", name, registered_model_name
            )
        return uri

    def get_best_run(
        self, experiment_name: str, metric: str = "7d_rmse", ascending: bool = True
    ) -> RunRow | None:
        """The finished run with the lowest (or highest) finite value of the metric; None when there is none."""
        if not self._is_on:
            return None
        with translated(self._uri):
            client = open_with_experiments(self._uri, self._artifacts, self._below)[0]
            return best_run(client, experiment_name, metric, "min" if ascending else "max")


@contextmanager
def _saved(model: Any) -> Iterator[Path]:
    """A folder with the model in MLflow's format.

    Raises:
        TrackingError: when there is no safe format for it.
    """
    if isinstance(model, (str, Path)) and Path(model).is_dir():
        if not (Path(model) / "MLmodel").is_file():
            raise TrackingError(f"{model} holds no file MLmodel; save it with mlflow.<flavour>.save_model")
        yield Path(model)
        return
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of MLflow on its own type hints, and on a missing signature
                _save(model, folder)
        except (MlflowException, OSError, ImportError) as error:
            raise TrackingError(
                f"the model cannot be saved without a pickle ({told(error)}); save it with "
                "mlflow.<flavour>.save_model in a safe format and give that folder"
            ) from error
        yield folder


def _save(model: Any, folder: Path) -> None:
    module = type(model).__module__.partition(".")[0]
    if isinstance(model, (str, Path)):
        if not Path(model).is_file() or Path(model).suffix != ".py":
            raise TrackingError(
                f"found {model}, expected a folder that holds MLmodel or a .py file that ends with set_model"
            )
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(
            folder, python_model=str(model), pip_requirements=[f"mlflow=={version('mlflow')}"]
        )
    elif module == "onnx":
        import mlflow.onnx

        mlflow.onnx.save_model(
            model,
            str(folder),
            pip_requirements=[f"onnx=={version('onnx')}", "onnxruntime"],
            onnx_execution_providers=["CPUExecutionProvider"],
        )
    elif _is_estimator(model):
        import mlflow.sklearn

        needs = [f"{name}=={version(name)}" for name in ("scikit-learn", "skops", "numpy")]
        mlflow.sklearn.save_model(model, str(folder), serialization_format="skops", pip_requirements=needs)
    else:
        raise TrackingError(
            f"found {type(model).__module__}.{type(model).__qualname__}, expected a fitted scikit-learn estimator, an "
            "ONNX model, a folder that holds MLmodel or a .py file; save it with mlflow.<flavour>.save_model, or "
            "write the model as code"
        )


def _is_estimator(model: Any) -> bool:
    """Whether it is a fitted estimator of scikit-learn's interface.

    Raises:
        TrackingError: when it is one that was not fitted.
    """
    if not (hasattr(model, "get_params") and hasattr(model, "fit")):
        return False
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(model, BaseEstimator):
        return False
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise TrackingError(
            f"{type(model).__qualname__} is not fitted; fit it before it is logged"
        ) from error
    return True
