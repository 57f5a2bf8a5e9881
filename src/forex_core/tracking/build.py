"""A tracker out of a configuration: a dictionary, a TOML file or the settings."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loguru import logger

from forex_core.config import Settings, load_settings
from forex_core.errors import ConfigError, TrackingError
from forex_core.tracking.base import NoopTracker, Tracker
from forex_core.tracking.mlflow_tracker import MLflowTracker
from forex_core.tracking.queries import StoredRuns
from forex_core.tracking.store import S3_NAMES, mlflow_missing, refuse_unknown_address, use_s3


def build_tracker_from_config(config: Mapping[str, Any] | str | Path | Settings) -> Tracker:
    """The tracker that a configuration describes.

    Keys are `enabled`, `backend` ("mlflow" or "noop") and `mlflow.{tracking_uri, artifact_uri, experiment_name,
    auto_start_run, run_name, run_name_prefix, s3_…}`; a TOML file has them under [tracking], a dictionary at its top or
    there as well. What it leaves out comes from the settings. A configuration that cannot be used, an address that no
    store has among it, gives the tracker that does nothing, with a warning that says why.

    Raises:
        TrackingError: when backend mlflow is asked for and MLflow is not installed.
        TrackingUnavailable: with `auto_start_run`, when the run can neither be started nor spooled.
    """
    try:
        settings = config if isinstance(config, Settings) else load_settings(tracking=_table(config))
        refuse_unknown_address(settings.mlflow_uri)
    except (ConfigError, TrackingError) as error:
        logger.warning("nothing will be tracked, the configuration cannot be used: {}", error)
        return NoopTracker()
    return tracker_from_settings(settings)


def tracker_from_settings(
    settings: Settings,
    experiment_name: str | None = None,
    *,
    run_name: str | None = None,
    experiment_tags: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    start_on_enter: bool = True,
) -> Tracker:
    """The tracker of the settings, on their store and spool; arguments as of `MLflowTracker`.

    Raises:
        TrackingError: when MLflow is not installed.
    """
    chosen = settings.tracking
    if not chosen.enabled or chosen.backend == "noop":
        return NoopTracker()
    _require_mlflow()
    connect(settings)
    return MLflowTracker(
        settings.mlflow_uri,
        experiment_name or chosen.mlflow.experiment_name,
        chosen.mlflow.auto_start_run,
        run_name or chosen.mlflow.run_name,
        artifact_location=settings.mlflow_artifacts,
        experiment_tags=experiment_tags,
        tags=tags,
        below=settings.root,
        spool=settings.spool_dir,
        start_on_enter=start_on_enter,
        run_name_prefix=chosen.mlflow.run_name_prefix,
    )


def runs_from_settings(settings: Settings) -> StoredRuns | None:
    """The runs of the settings' store, for whoever shows them; None where nothing is tracked.

    Raises:
        TrackingError: when MLflow is not installed.
    """
    if not settings.tracking.is_on:
        return None
    _require_mlflow()
    connect(settings)
    return StoredRuns(settings.mlflow_uri)


def connect(settings: Settings) -> None:
    """Hand the settings' S3 endpoint and keys to whatever opens the store in this process."""
    mlflow = settings.tracking.mlflow
    secret = mlflow.s3_secret_access_key
    use_s3(
        {
            **{name: getattr(mlflow, name) for name in S3_NAMES},
            "s3_secret_access_key": secret.get_secret_value() if secret else None,
        }
    )


def _table(config: object) -> Mapping[str, Any]:
    """The table of tracking keys.

    Raises:
        ConfigError: when there is none.
    """
    where = ""
    if isinstance(config, Mapping):
        inner = config.get("tracking", config)
    elif isinstance(config, (str, Path)):
        path = Path(config)
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
        if "tracking" not in content:
            raise ConfigError(f"{path} has no table [tracking]")
        inner, where = content["tracking"], f" in {path}"
    else:
        raise ConfigError(
            f"found {type(config).__name__}, expected a dictionary, a TOML file or the settings"
        )
    if not isinstance(inner, Mapping):
        raise ConfigError(f"'tracking'{where} is {type(inner).__name__}, expected a table")
    return inner


def _require_mlflow() -> None:
    try:
        missing = importlib.util.find_spec("mlflow") is None
    except ImportError:
        missing = True
    if missing:
        raise mlflow_missing()
