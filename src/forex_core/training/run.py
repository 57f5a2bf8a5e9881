"""One training run: what it tells the tracker, what it keeps, and how it goes on after it was ended."""

from __future__ import annotations

import json
import time
import warnings
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
_CONFIG, _CHECKPOINTS, _LAST = "config.json", "checkpoints", "last.ckpt"
# Where a run goes on, these may differ: no batch hangs on them.
_FREE = {"workers"}


@dataclass(frozen=True)
class Epoch:
    """The losses are sums over the quantile levels, of paths in the unit of the context's deviation, per task."""

    epoch: int
    step: int
    train_loss: float
    val_loss: float
    learning_rate: float


@dataclass(frozen=True)
class Trained:
    """`model` has the averaged weights of the best epoch; `curve` every epoch, those before a resumption too."""

    model: Chronos2Model
    config: TrainingConfig
    curve: tuple[Epoch, ...]
    best: Epoch
    test_loss: float
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
        ConfigError: when the folder holds a run of another configuration, or the crosses are too few.
        SourceError: when the reference rates cannot be read.
    """
    started = time.monotonic()
    resumed = _begin(folder, config)
    torch.manual_seed(config.seed)
    module = QuantileTraining(begun_from or untrained(config.architecture), config, freeze_backbone)
    curve = Curve(folder / "curve.json")
    kept = ModelCheckpoint(
        folder / _CHECKPOINTS,
        "{epoch:03d}",
        monitor=config.monitor,
        save_top_k=BEST,
        save_last=True,
        auto_insert_metric_name=False,
    )
    parameters = sum(weights.numel() for weights in module.model.parameters())
    tracker.log_params({**_flat(config), "parameters": parameters, "freeze_backbone": freeze_backbone})
    if resumed:
        logger.info("going on from {}", resumed)
        tracker.set_tags({"resumed": "true"})
    with _without_advice():
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=1,
            precision="bf16-mixed" if torch.cuda.is_available() else "32-true",
            max_epochs=config.epochs,
            gradient_clip_val=GRADIENT_LIMIT,
            callbacks=[
                curve,
                kept,
                EarlyStopping(config.monitor, patience=config.patience),
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
        loaders = Loaders(config, crosses or Crosses.of_ecb())
        # Our own checkpoint; torch is told to read no code from it all the same.
        trainer.fit(module, loaders, ckpt_path=resumed, weights_only=True)
        epochs = tuple(curve.epochs)  # the test takes the state of the best one back
        tested = trainer.test(
            module, loaders, ckpt_path=kept.best_model_path, weights_only=True, verbose=False
        )
    best = min(epochs, key=lambda epoch: epoch.val_loss)
    trained = Trained(
        model=module.averaged.cpu(),
        config=config,
        curve=epochs,
        best=best,
        test_loss=float(tested[0]["test/loss"]),
        seconds=time.monotonic() - started,
    )
    tracker.log_metrics(
        {"best_val_loss": best.val_loss, "best_epoch": best.epoch, "seconds": trained.seconds}
    )
    tracker.log_artifact(folder / _CONFIG)
    tracker.log_artifact(folder / "curve.json")
    return trained


def _begin(folder: Path, config: TrainingConfig) -> Path | None:
    """Lay the folder out; the checkpoint to go on from, if a run of this configuration was ended there."""
    folder.mkdir(parents=True, exist_ok=True)
    told = config.model_dump(mode="json", exclude=_FREE)
    file, last = folder / _CONFIG, folder / _CHECKPOINTS / _LAST
    if last.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        before = {name: value for name, value in before.items() if name not in _FREE}
        if before != told:
            other = sorted(name for name in told.keys() | before.keys() if told.get(name) != before.get(name))
            raise ConfigError(
                f"{folder} holds a run of another configuration ({', '.join(other)}); give that one to go on with it,"
                " or another folder to begin anew"
            )
    file.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return last if last.is_file() else None


class Curve(Callback):
    """Losses and learning rate of each epoch, in a file and in the checkpoints."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.epochs: list[Epoch] = []

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": [asdict(epoch) for epoch in self.epochs]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = [Epoch(**epoch) for epoch in state_dict["epochs"]]

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
            ".*module\\(s\\) in eval mode",
            ".*isinstance\\(treespec, LeafSpec\\)",
            ".*Converting a tensor with requires_grad",
        ):
            warnings.filterwarnings("ignore", text)
        yield
