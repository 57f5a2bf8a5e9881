"""The Lightning module around the library's Chronos-2 model."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import lightning
import torch

from forex_core.training.config import Architecture, TrainingConfig
from forex_core.training.corpus import Batch
from forex_core.types import LEVELS

if TYPE_CHECKING:
    from chronos.chronos2 import Chronos2Model

FINAL_SHARE = 0.02
"""Of the learning rate that is left in the last step."""


def untrained(architecture: Architecture) -> Chronos2Model:
    """A Chronos-2 model whose weights are drawn from torch's generator."""
    from chronos.chronos2 import Chronos2Model
    from chronos.chronos2.config import Chronos2CoreConfig

    told = Chronos2CoreConfig(
        d_model=architecture.width,
        d_kv=architecture.width // architecture.heads,
        d_ff=architecture.feed_forward,
        num_layers=architecture.layers,
        num_heads=architecture.heads,
        dropout_rate=architecture.dropout,
        architectures=["Chronos2Model"],
        chronos_pipeline_class="Chronos2Pipeline",
        chronos_config={
            "context_length": architecture.context,
            "input_patch_size": architecture.patch,
            "input_patch_stride": architecture.patch,
            "output_patch_size": architecture.patch,
            "max_output_patches": architecture.steps // architecture.patch,
            "quantiles": list(LEVELS),
            "use_reg_token": True,
            "use_arcsinh": True,
        },
    )
    return Chronos2Model(told)


class QuantileTraining(lightning.LightningModule):
    """Quantile loss as the library computes it, per task, on the rates alone; an average of the weights is validated.

    Args:
        model: what is trained, in place.
        config: optimiser and schedule; the rate falls along a cosine from the warm-up to the last step.
        freeze_backbone: leave all but the output layer as it is.
    """

    def __init__(self, model: Chronos2Model, config: TrainingConfig, freeze_backbone: bool = False) -> None:
        super().__init__()
        self.model = model
        self.averaged = copy.deepcopy(model).eval().requires_grad_(False)
        self.config = config
        if freeze_backbone:
            model.requires_grad_(False)
            model.output_patch_embedding.requires_grad_(True)

    def loss(self, model: Chronos2Model, batch: Batch) -> torch.Tensor:
        """Of the tasks of a batch, on the mean; its arrays are tensors by then."""
        patches = batch.target.shape[1] // model.chronos_config.output_patch_size
        told = {"context": batch.context, "group_ids": batch.group, "future_target": batch.target}
        # The library's mean is over all series, and those beside a rate have no outcome.
        loss: torch.Tensor = model(num_output_patches=patches, **told).loss
        return loss * (len(batch.context) / batch.tasks)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Which units drop out hangs on the step alone, so a run that was resumed goes on as if it had not ended.
        torch.manual_seed(self.config.seed + 1_000_003 * (self.global_step + 1))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        loss = self.loss(self.model, batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=batch.tasks)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        # At the beginning the average is a plain one, else it would remember weights that were drawn at random.
        decay = min(self.config.average, self.global_step / (self.global_step + 10))
        with torch.no_grad():
            for kept, now in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
                kept.lerp_(now, 1 - decay)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val/loss", self.loss(self.averaged, batch), prog_bar=True, batch_size=batch.tasks)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("test/loss", self.loss(self.averaged, batch), batch_size=batch.tasks)

    def configure_optimizers(self) -> Any:
        config = self.config
        optimizer = torch.optim.AdamW(
            [weights for weights in self.model.parameters() if weights.requires_grad],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        total = config.epochs * config.steps_per_epoch

        def factor(step: int) -> float:
            if step < config.warmup_steps:
                return (step + 1) / config.warmup_steps
            done = min((step - config.warmup_steps) / max(total - config.warmup_steps, 1), 1.0)
            return FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
