"""One training run: what it tells the tracker, what it keeps, and how it goes on after it was ended."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
)
from lightning.pytorch.loggers.logger import Logger
from loguru import logger

from forex_core.errors import ConfigError
from forex_core.models.chronos_series import SHOWN
from forex_core.tracking import Tracker
from forex_core.training.config import TrainingConfig
from forex_core.training.corpus import Crosses
from forex_core.training.loaders import Loaders
from forex_core.training.module import QuantileTraining, untrained

if TYPE_CHECKING:
    from chronos.chronos2 import Chronos2Model

BEST = 3
GRADIENT_LIMIT = 1.0
LOG_EVERY = 50
_RUN, _CHECKPOINTS = "run.json", "checkpoints"
# Where a run goes on, these may differ: no batch hangs on them.
_FREE = {"workers"}


@dataclass(frozen=True)
class Epoch:
    """The losses are the library's: twice the pinball loss of the arcsinh of answers as `Shown.asked` has them, summed
    over the quantile levels, as a mean over steps and tasks."""

    epoch: int
    step: int
    train_loss: float
    val_loss: float
    learning_rate: float


@dataclass(frozen=True)
class Trained:
    """`model` has the averaged weights of epoch `best`; `curve` every epoch, those before a resumption too.

    `test_loss`: None where the crosses do not go on for long enough after the last day of validation.
    """

    model: Chronos2Model
    config: TrainingConfig
    curve: tuple[Epoch, ...]
    best: Epoch
    test_loss: float | None
    seconds: float


def pretrain(
    config: TrainingConfig,
    folder: Path,
    tracker: Tracker,
    *,
    crosses: Crosses | None = None,
    begun_from: Chronos2Model | None = None,
    freeze_backbone: bool = False,
    progress: bool = True,
) -> Trained:
    """Train a Chronos-2 model; a run that was ended in `folder` goes on, and ends as if it had not been.

    Args:
        folder: configuration, checkpoints and curve; they stay.
        tracker: with an active run. What it cannot log it keeps, and the training goes on.
        crosses: what to train on besides generated groups, the ECB's reference rates without it.
        begun_from: weights to begin from instead of random ones, of the configuration's architecture.

    Raises:
        ConfigError: when the folder holds another run, or a checkpoint that cannot be read, or the crosses are too few.
        SourceError: when the reference rates cannot be read.
    """
    crosses = crosses or Crosses.of_ecb()
    loaders = Loaders(config, crosses)
    loaders.prepare_parts()
    resumed = _begin(folder, _told(config, crosses, begun_from, freeze_backbone))
    torch.manual_seed(config.seed)
    module = QuantileTraining(begun_from or untrained(config.architecture), config, freeze_backbone)
    curve = Curve(folder / "curve.json")
    checkpoints = partial(ModelCheckpoint, folder / _CHECKPOINTS, auto_insert_metric_name=False)
    kept = checkpoints("{epoch:03d}", monitor=config.monitor, save_top_k=BEST)
    # `save_last` would be the last of the best. Of two, one is whole while the other is written.
    latest = checkpoints("{epoch:03d}-last", monitor="step", mode="max", save_top_k=2)
    parameters = sum(weights.numel() for weights in module.model.parameters())
    tracker.log_params({**_flat(config), "parameters": parameters, "freeze_backbone": freeze_backbone})
    if resumed:
        logger.info("going on from {}", resumed)
        tracker.set_tags({"resumed": "true"})
    with _without_advice():
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=1,
            precision=precision(),
            max_epochs=config.epochs,
            gradient_clip_val=GRADIENT_LIMIT,
            callbacks=[
                curve,
                kept,
                latest,
                _Stopping(config.monitor, patience=config.patience),
                LearningRateMonitor("step"),
                *([TQDMProgressBar(leave=True)] if progress else []),
            ],
            logger=TrackerLogger(tracker),
            log_every_n_steps=min(LOG_EVERY, config.steps_per_epoch),
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        # Our own checkpoint; torch is told to read no code from it all the same.
        trainer.fit(module, loaders, ckpt_path=resumed, weights_only=True)
        chosen, checkpoint = _best(kept, folder)
        module.load_state_dict(checkpoint["state_dict"])
        tested = trainer.test(module, loaders, verbose=False) if loaders.has_test else None
    epochs = tuple(curve.epochs)
    (best,) = (epoch for epoch in epochs if epoch.epoch == chosen)
    trained = Trained(
        model=module.averaged.cpu(),
        config=config,
        curve=epochs,
        best=best,
        test_loss=float(tested[0]["test/loss"]) if tested else None,
        seconds=curve.seconds,
    )
    tracker.log_metrics(
        {"best_val_loss": best.val_loss, "best_epoch": best.epoch, "seconds": trained.seconds}
    )
    tracker.log_artifact(folder / _RUN)
    tracker.log_artifact(folder / "curve.json")
    return trained


def precision() -> Literal["bf16-mixed", "32-true"]:
    """Mixed where the hardware is made for it."""
    return (
        "bf16-mixed"
        if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        else "32-true"
    )


def _told(
    config: TrainingConfig, crosses: Crosses, begun_from: Chronos2Model | None, freeze_backbone: bool
) -> dict[str, Any]:
    """All that the weights of a run hang on, but for versions of libraries."""
    digest = hashlib.sha256()
    for name, weights in begun_from.state_dict().items() if begun_from else ():
        digest.update(name.encode() + weights.detach().cpu().numpy().tobytes())
    return {
        "configuration": config.model_dump(mode="json", exclude=_FREE),
        "shown": SHOWN,
        "rates": crosses.until(config.validate_until).digest,
        "begun_from": digest.hexdigest() if begun_from else None,
        "freeze_backbone": freeze_backbone,
    }


def _begin(folder: Path, told: Mapping[str, Any]) -> Path | None:
    """Lay the folder out; the checkpoint to go on from, if such a run was ended there."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / _RUN
    found = sorted(
        (folder / _CHECKPOINTS).glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    if found:
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
            flat, was = ({**one["configuration"], **one} for one in (told, before))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{file} does not say what run the checkpoints beside it are of ({error}); give another folder"
            ) from error
        if before != told:
            other = {name for name in flat.keys() | was.keys() if flat.get(name) != was.get(name)}
            raise ConfigError(
                f"{folder} holds another run ({', '.join(sorted(other - {'configuration'}))}); ask for that one to go"
                " on with it, or give another folder to begin anew"
            )
    unfinished = file.with_suffix(".new")
    unfinished.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(file)
    for checkpoint in found:
        try:
            _read(checkpoint)
        except (OSError, RuntimeError, ValueError) as error:  # it was being written
            logger.warning("{} cannot be read, so an earlier one is gone on from: {}", checkpoint, error)
        else:
            return checkpoint
    if found:
        raise ConfigError(
            f"no checkpoint in {found[0].parent} can be read; remove them to begin anew, or give another folder"
        )
    return None


def _best(kept: ModelCheckpoint, folder: Path) -> tuple[int, dict[str, Any]]:
    """The best checkpoint that can be read of those that were kept, and its epoch.

    By name, since the folder may have been moved.
    """
    ranked = sorted(kept.best_k_models, key=lambda path: float(kept.best_k_models[path]))
    # Of a folder that was moved Lightning takes over the best alone.
    for path in dict.fromkeys([kept.best_model_path, *ranked]):
        checkpoint = folder / _CHECKPOINTS / Path(path).name
        try:
            return int(checkpoint.stem), _read(checkpoint)
        except (OSError, RuntimeError, ValueError) as error:
            logger.warning("{} cannot be read, so the next best is taken: {}", checkpoint, error)
    raise ConfigError(
        f"none of the best checkpoints in {folder / _CHECKPOINTS} can be read; remove the folder to begin anew"
    )


def _read(checkpoint: Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(checkpoint):
        raise ValueError("it is no whole archive")
    found: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return found


class _Stopping(EarlyStopping):
    """Stops a run too that had stopped before it was ended, and is begun again."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.should_stop = self.wait_count >= self.patience


class Curve(Callback):
    """Losses and learning rate of each epoch, in a file and in the checkpoints, and how long they have taken."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._began = time.monotonic()
        self.epochs: list[Epoch] = []

    @property
    def seconds(self) -> float:
        """Since it was made, and until the checkpoint that was gone on from."""
        return time.monotonic() - self._began

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": [asdict(epoch) for epoch in self.epochs], "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = [Epoch(**epoch) for epoch in state_dict["epochs"]]
        self._began -= state_dict["seconds"]

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._total, self._seen = 0.0, 0

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._total, self._seen = self._total + float(outputs["loss"].detach()), self._seen + 1

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.epochs.append(
            Epoch(
                epoch=trainer.current_epoch,
                step=trainer.global_step,
                train_loss=self._total / self._seen,
                val_loss=float(trainer.callback_metrics["val/loss"]),
                learning_rate=float(trainer.optimizers[0].param_groups[0]["lr"]),
            )
        )
        self._file.write_text(json.dumps(self.state_dict()["epochs"], indent=1) + "\n", encoding="utf-8")


class TrackerLogger(Logger):
    """Lightning's metrics to a tracker's run, which somebody else begins and ends."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self._tracker = tracker

    @property
    def name(self) -> str:
        return "tracker"

    @property
    def version(self) -> str:
        return self._tracker.run_id or ""

    @property
    def experiment(self) -> Tracker:
        return self._tracker

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._tracker.log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration is logged before."""


def _flat(config: TrainingConfig) -> dict[str, Any]:
    told = config.model_dump(mode="json")
    return {**told.pop("architecture"), **told}


@contextmanager
def _without_advice() -> Iterator[None]:
    """Without Lightning's advice on what was chosen on purpose, and without notes of torch on its own insides."""
    with warnings.catch_warnings():
        for text in (
            ".*does not have many workers",
            ".*`persistent_workers",
            ".*exists and is not empty",
            ".*dirpath has changed",
            ".*module\\(s\\) in eval mode",
            ".*isinstance\\(treespec, LeafSpec\\)",
            ".*Converting a tensor with requires_grad",
        ):
            warnings.filterwarnings("ignore", text)
        yield
