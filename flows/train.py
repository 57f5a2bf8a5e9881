"""The flows `pretrain` and `finetune`: weights for the neural member, tracked, exported and registered."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.forecast import SERVICE, end_orphans, load
from flows.logs import connect_logging
from forex_core.config import Settings, SourceName, load_settings
from forex_core.errors import ConfigError, ForexError
from forex_core.report.text import training_markdown
from forex_core.tracking import Tracker, registry_from_settings, tracker_from_settings
from forex_core.tracking.neural import check_model_name
from forex_core.training.config import FineTuningConfig, TrainingConfig

Document = dict[str, Any]

if TYPE_CHECKING:
    from chronos.chronos2 import Chronos2Model

    from forex_core.training.weights import Statement

PRETRAINING, FINE_TUNING = "chronos_pretraining", "chronos_finetuning"
"""Experiments of the runs."""
LIMIT_S = 48 * 60 * 60


@task(name="train", cache_policy=NO_CACHE, persist_result=False)
def trained(
    config: TrainingConfig,
    folder: Path,
    tracker: Tracker,
    begun_from: str | None,
    frozen: bool,
    progress: bool,
) -> Document:
    """The model trained, or trained on, and written as the member reads it."""
    from forex_core.training.run import pretrain as train
    from forex_core.training.weights import Statement, weights_to_begin_from

    begun, seen = (
        weights_to_begin_from(begun_from, config.architecture)
        if begun_from
        else (None, config.validate_until)
    )
    done = train(config, folder, tracker, begun_from=begun, freeze_backbone=frozen, progress=progress)
    shape = config.architecture
    made = {
        "configuration": config.model_dump(mode="json"),
        "pretrained": begun_from,
        "curve": [asdict(epoch) for epoch in done.curve],
        "best": asdict(done.best),
        "test_loss": done.test_loss,
        "libraries": {name: version(name) for name in ("torch", "chronos-forecasting", "CurrencyConverter")},
    }
    until = max(seen or config.validate_until, config.validate_until)
    statement = Statement(until, shape.context, shape.steps, made, may_have_seen=seen is None)
    return _written(done.model, folder, statement) | {"seconds": done.seconds}


@task(name="fine-tune", cache_policy=NO_CACHE, persist_result=False)
def fine_tuned(config: FineTuningConfig, folder: Path, tracker: Tracker, settings: Settings) -> Document:
    """The weights fine-tuned on the bundle of the settings, and written as the member reads them."""
    from forex_core.training.finetune import finetune as fit
    from forex_core.training.finetune import judged_from
    from forex_core.training.weights import Statement

    bundle = load(settings, None)
    done = fit(config, bundle, tracker, settings.engine)
    made = {
        "configuration": config.model_dump(mode="json"),
        "pair": str(bundle.pair),
        "fingerprint": bundle.fingerprint,
        "windows": done.windows,
    }
    shape = done.architecture
    statement = Statement(done.trained_until, shape.context, shape.steps, made, done.may_have_seen)
    day = judged_from(bundle.pair, done.trained_until, settings.engine)
    more = {"seconds": done.seconds, "judged_from": day.isoformat() if day > bundle.origin else None}
    return _written(done.model, folder, statement) | more


@task(name="register", cache_policy=NO_CACHE, persist_result=False)
def registered(
    folder: Path, tracker: Tracker, settings: Settings, name: str, tags: Mapping[str, Any]
) -> tuple[int | None, str | None]:
    """The weights logged with the run and registered as the next version: its number, or why there is none."""
    from forex_core.tracking.neural import register_weights, save_weights_model

    try:
        with tempfile.TemporaryDirectory() as scratch:
            saved = save_weights_model(folder / "weights", Path(scratch) / "model", tags)
            made = register_weights(
                registry_from_settings(settings), tracker, saved, name, f"weights of {folder.name}", tags
            )
    except (ForexError, OSError) as error:  # hours of training do not fail by it
        logger.warning("the weights were not registered: {}", error)
        return None, str(error)
    logger.info("weights registered: {}", made)
    return (made.number, None) if made else (None, "the store took no model just now")


@flow(
    name="pretrain",
    description="A Chronos-2 model trained on crosses of the ECB's reference rates and on generated series.",
    validate_parameters=True,
    timeout_seconds=LIMIT_S,
    persist_result=False,
    result_serializer="json",  # Prefect keeps the error of a flow that fails, by default as a pickle
)
def pretrain(
    config: dict[str, Any] | None = None,
    output_dir: Path | None = None,
    run_name: str | None = None,
    pretrained: str | None = None,
    freeze_backbone: bool = False,
    register_as: str | None = "chronos",
    progress: bool = False,
) -> Document:
    """Train weights; a run that was ended in `output_dir` goes on.

    Args:
        config: what differs from the defaults of `TrainingConfig`.
        output_dir: folder of checkpoints and weights; by default one of its own below the data folder.
        run_name: of the MLflow run, and of that folder.
        pretrained: folder of weights of the same architecture to begin from, or 'embedded'.
        freeze_backbone: train the output layer alone, of weights to begin from.
        register_as: registered model of which the weights become a version; none without a name.
        progress: show a progress bar.

    Raises:
        ConfigError: the configuration cannot be used, or the folder holds a run of another.
        InputError: the registry takes no such name.
    """
    connect_logging()
    settings = load_settings()
    told = TrainingConfig.model_validate(config or {})
    check_model_name(register_as)
    if freeze_backbone and not pretrained:
        raise ConfigError(
            "a backbone of random weights would be frozen; say what to begin from (--pretrained)"
        )
    name = run_name or _run_name("pretrain")
    folder = (output_dir or settings.training_dir / name).absolute()
    with _tracked(settings, PRETRAINING, name) as tracker:
        made = trained(told, folder, tracker, pretrained, freeze_backbone, progress)
        tags = _stated(made) | {"best_val_loss": made["best"]["val_loss"]}
        return _ended(made, folder, tracker, settings, register_as, tags)


@flow(
    name="finetune",
    description="Weights of a Chronos-2 model fine-tuned on the current data of one pair.",
    validate_parameters=True,
    timeout_seconds=LIMIT_S,
    persist_result=False,
    result_serializer="json",
)
def finetune(
    pair: str | None = None,
    source: SourceName | None = None,
    paths: list[Path] | None = None,
    config: dict[str, Any] | None = None,
    output_dir: Path | None = None,
    run_name: str | None = None,
    register_as: str | None = None,
) -> Document:
    """Fine-tune weights on a pair; nothing uses them until a setting names them.

    Args:
        pair: currency pair such as USDCLP; by default the one of the settings.
        source: where the data come from; by default the one of the settings.
        paths: files of source csv.
        config: what differs from the defaults of `FineTuningConfig`.
        output_dir: folder of the weights; by default one of its own below the data folder.
        run_name: of the MLflow run, and of that folder.
        register_as: registered model of which the weights become a version, '' for none; 'chronos-' and the pair by
            default.

    Raises:
        ConfigError: the configuration cannot be used.
        InputError: the pair has too few rows up to the cut-off, or after it; or the registry takes no such name.
    """
    connect_logging()
    settings = load_settings(pair=pair, source=source, paths=paths)
    told = FineTuningConfig.model_validate(config or {})
    check_model_name(register_as)
    name = run_name or _run_name("finetune")
    folder = (output_dir or settings.training_dir / name).absolute()
    with _tracked(settings, FINE_TUNING, name) as tracker:
        made = fine_tuned(told, folder, tracker, settings)
        tags = _stated(made) | {"pair": made["pair"]}
        model = f"chronos-{made['pair'].lower()}" if register_as is None else register_as
        return _ended(made, folder, tracker, settings, model, tags)


@contextmanager
def _tracked(settings: Settings, experiment: str, name: str) -> Iterator[Tracker]:
    """With a run, after those of processes that were killed have been ended."""
    if settings.tracking.is_on:
        end_orphans(settings)
    tags = {"service": SERVICE, "model_family": "chronos-2"}
    with tracker_from_settings(settings, experiment, run_name=name, experiment_tags=tags) as tracker:
        yield tracker


def _written(model: Chronos2Model, folder: Path, statement: Statement) -> Document:
    """The weights in the folder, and what is said of them."""
    from forex_core.training.weights import save_weights

    parity = save_weights(model, folder / "weights", statement)
    logger.info("weights written: {}, the graph {} apart from them", folder / "weights", parity)
    seen = {"trained_until": statement.trained_until.isoformat(), "may_have_seen": statement.may_have_seen}
    return {**statement.made, **seen, "parity": parity}


def _stated(made: Document) -> dict[str, Any]:
    """What the weights have seen, as their statement has it."""
    return {name: made[name] for name in ("trained_until", "may_have_seen")}


def _run_name(kind: str) -> str:
    return f"{kind}_{datetime.now(UTC):%Y%m%d_%H%M%S}"


def _ended(
    made: Document,
    folder: Path,
    tracker: Tracker,
    settings: Settings,
    name: str | None,
    tags: Mapping[str, Any],
) -> Document:
    """The document of a run whose weights are written, logged and, with a name, registered if that can be done."""
    tracker.log_artifacts_dir(folder / "weights", "weights")
    model = name or None if settings.tracking.is_on else None
    number, reason = registered(folder, tracker, settings, model, tags) if model else (None, None)
    document = made | {
        "weights": str(folder / "weights"),
        "run_id": tracker.run_id,
        "model": model,
        "version": number,
        "not_registered": reason,
        "degraded": tracker.degraded,
    }
    create_markdown_artifact(
        markdown=training_markdown(document), key="training", description=f"Weights in {folder}"
    )
    return document
