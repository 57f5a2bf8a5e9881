"""Weights of the neural member in the registry: logged as ONNX models, registered, promoted, and read from there."""

from __future__ import annotations

import glob
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loguru import logger

from forex_core.config import Settings
from forex_core.errors import InputError, MemberError, TrackingError, TrackingUnavailable
from forex_core.models.chronos_weights import CONFIG, GRAPH, REGISTERED, WEIGHTS, StatedWeights
from forex_core.tracking.base import Tracker
from forex_core.tracking.build import tracker_from_settings
from forex_core.tracking.registry import CHAMPION, Registry, Version, registry_from_settings
from forex_core.tracking.store import quiet

WEIGHTS_MODEL = "model"
"""Name of the model that a training run logs."""
_PLACE = "artifacts/weights"
_DIGITS = 12
BY_HAND = "chronos_weights"
"""Experiment of the runs that log weights which were made elsewhere."""
_ADDRESS = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<number>\d+)|@(?P<alias>\w+))")


def check_model_name(name: str | None) -> None:
    """Refuse a name that no registry takes, before anything is made that should have it.

    Raises:
        InputError: when it has a sign that stands for something in an address.
    """
    if name and (wrong := set(name) & set("/:@")):
        raise InputError(f"a registered model cannot be named '{name}'; leave out {' '.join(sorted(wrong))}")


def save_weights_model(weights: Path, folder: Path, metadata: Mapping[str, Any]) -> Path:
    """Write weights as an MLflow model of flavour ONNX into `folder`, a new one, with all that the member reads.

    Raises:
        TrackingError: MLflow could not write it, or the weights have no graph.
    """
    quiet()
    import mlflow.onnx
    import onnx
    from mlflow.exceptions import MlflowException

    if not (weights / GRAPH).is_file():
        raise TrackingError(f"{weights} holds no {GRAPH}; write it with 'forex train export {weights}'")
    try:
        mlflow.onnx.save_model(
            onnx.load(weights / GRAPH),
            folder,
            pip_requirements=[
                f"{name}=={version(name)}" for name in ("mlflow", "onnx", "onnxruntime", "numpy")
            ],
            metadata=dict(metadata),
        )
        shutil.copytree(weights, folder / _PLACE)
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"the weights in {weights} cannot be written as a model into {folder}: {error}"
        ) from error
    return folder


def register_weights(
    registry: Registry, tracker: Tracker, saved: Path, name: str, description: str, tags: Mapping[str, Any]
) -> Version | None:
    """Log a model that `save_weights_model` wrote and register it; None where the store does not take it just now.

    Raises:
        TrackingError: the registry refused.
    """
    address = tracker.log_model(saved, WEIGHTS_MODEL)
    if address is None:
        return None
    return registry.register_model(name, address, description, tags, tracker.run_id, files=saved)


def register_folder(settings: Settings, weights: Path, name: str, *, promote: bool) -> Version:
    """Log weights in a run of their own and register them; with `promote` they get the alias champion.

    Raises:
        InputError: tracking is off, or a registry takes no such name.
        MemberError: the folder holds no weights, or others than its statement tells.
        TrackingError: the store cannot be reached, or refused.
    """
    check_model_name(name)
    if not settings.tracking.is_on:
        raise InputError("there is no registry where tracking is off; set FOREX_TRACKING__ENABLED=true")
    stated = StatedWeights.read(weights)
    if stated is None:
        raise InputError(f"{weights} holds no weights that state what they are, as 'forex train' leaves them")
    stated.checked(CONFIG, WEIGHTS, GRAPH)
    registry = registry_from_settings(settings)
    tags = {"trained_until": str(stated.trained_until), "may_have_seen": stated.may_have_seen}
    with (
        tracker_from_settings(settings, BY_HAND, run_name=name) as tracker,
        TemporaryDirectory() as scratch,
    ):
        saved = save_weights_model(weights, Path(scratch) / "model", tags)
        version = register_weights(registry, tracker, saved, name, f"weights of {weights}", tags)
        if version is None:
            raise TrackingError(
                f"the store took no model; see why above, and register {weights} again when it does"
            )
        if promote:
            registry.succeed(registry.standing(name), version, tracker.run_id)
    return version


def with_registered_weights(settings: Settings) -> Settings:
    """The settings with `chronos.model` a local folder, where it names a registered model: models:/NAME/2 or @champion.

    Files are fetched once. Where the store is out of reach, a numbered version that was fetched before is used. Where
    there is none, or the files are not those that were registered, the name stays: the member is left out then.

    Raises:
        InputError: the registry has no such version of weights.
    """
    named = settings.chronos.model or ""
    if not named.startswith(REGISTERED):
        return settings
    found = _ADDRESS.fullmatch(named)
    if found is None:
        raise InputError(
            f"chronos.model is '{named}', expected models:/NAME/VERSION or models:/NAME@{CHAMPION}"
        )
    place = settings.cache_dir / "weights"
    try:
        kept = _fetched(settings, found["name"], found["number"], found["alias"], place)
    except (TrackingError, OSError) as error:
        logger.warning("{} cannot be fetched: {}", named, error)
        pattern = f"{glob.escape(found['name'])}-{found['number']}-{'?' * _DIGITS}"
        before = sorted(place.glob(pattern), key=lambda path: path.stat().st_mtime) if found["number"] else []
        if not before or not isinstance(error, TrackingUnavailable):
            return settings
        kept = before[-1]
    chronos = settings.chronos.model_copy(update={"model": str(kept)})
    return settings.model_copy(update={"chronos": chronos})


def _fetched(settings: Settings, name: str, number: str | None, alias: str | None, place: Path) -> Path:
    """The local folder of a version's weights, whose name tells what is in it."""
    registry = registry_from_settings(settings)
    chosen = registry.version(name, int(number)) if number else registry.at(name, alias or CHAMPION)
    digest = chosen.tags.get("sha256", "")
    kept = place / f"{name}-{chosen.number}-{digest[:_DIGITS]}"
    if kept.is_dir():
        try:
            if stated := StatedWeights.read(kept):
                stated.checked(*stated.sums)
                return kept
        except MemberError as error:
            logger.warning("{} is fetched again: {}", kept, error)
        shutil.rmtree(kept, ignore_errors=True)
    # The registry's own copy of remote files goes with it, and a run outlives it.
    folder = registry.verified(chosen) / _PLACE
    if not digest or not folder.is_dir():
        raise InputError(f"{chosen} of {name} is no model of weights, as 'forex train register' makes them")
    place.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=place, prefix=".") as scratch:
        copied = shutil.copytree(folder, Path(scratch) / "weights")
        try:
            copied.rename(kept)
        except OSError:
            if not kept.is_dir():  # else another process was faster
                raise
    return kept
