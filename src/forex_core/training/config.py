"""What a training run is told: the model's architecture, the corpus, the optimiser. JSON, or options that beat it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from forex_core.errors import ConfigError
from forex_core.types import PATH_STEPS

LAST_SEEN = date(2017, 12, 31)
"""By weights of ours, unless they are told otherwise: the years after it are for evaluation."""


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Architecture(_Told):
    """Of a Chronos-2 model (Ansari et al. 2025); the default has 1.4 million parameters.

    Nothing drops out by default: no task is met twice, and drawing what drops out took two fifths of a step.
    """

    width: int = Field(128, ge=8, le=512)
    layers: int = Field(4, ge=1, le=12)
    heads: int = Field(4, ge=1, le=16)
    feed_forward: int = Field(512, ge=8, le=2048)
    dropout: float = Field(0.0, ge=0, lt=1)
    patch: int = Field(16, ge=1, le=64)
    context: int = Field(512, ge=64, le=2048)
    steps: int = Field(PATH_STEPS, ge=1, le=256)

    @model_validator(mode="after")
    def _agrees(self) -> Architecture:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be parted among {self.heads} heads")
        for name in ("context", "steps"):
            if getattr(self, name) % self.patch:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, expected a multiple of the patch, {self.patch}"
                )
        return self


class TrainingConfig(_Told):
    """Of pretraining. A batch has `batch_size` tasks; a task is a rate and the series beside it.

    `workers`: processes that make batches; one keeps two cores busy, since a batch is made in a tenth of the time
    that a step takes. `average`: the decay of the exponential average of the weights, which is what is validated
    and kept.
    """

    learning_rate: float = Field(1e-3, gt=0, le=1)
    batch_size: int = Field(32, ge=1, le=4096)
    epochs: int = Field(100, ge=1)
    steps_per_epoch: int = Field(200, ge=1)
    weight_decay: float = Field(1e-5, ge=0, lt=1)
    patience: int = Field(5, ge=1)
    warmup_steps: int = Field(200, ge=0)
    average: float = Field(0.998, ge=0, lt=1)
    workers: int = Field(1, ge=0, le=64)
    monitor: Literal["val/loss"] = "val/loss"
    validation_batches: int = Field(16, ge=1)
    generated_share: float = Field(0.5, ge=0, le=1)
    train_until: date = date(2014, 12, 31)
    validate_until: date = LAST_SEEN
    seed: int = Field(0, ge=0, lt=2**31)
    architecture: Architecture = Architecture()

    @model_validator(mode="after")
    def _ordered(self) -> TrainingConfig:
        if not self.train_until < self.validate_until:
            raise ValueError(
                f"train_until is {self.train_until}, expected a day before validate_until, {self.validate_until}"
            )
        return self


class FineTuningConfig(_Told):
    """Of the library's `fit` on one pair's bundle.

    `until`: the last day that it may see, by default the latest after which the promotion gate has its origins.
    """

    pretrained: str | None = None
    revision: str | None = None
    method: Literal["full", "lora"] = "lora"
    learning_rate: float = Field(1e-4, gt=0, le=1)
    batch_size: int = Field(32, ge=2, le=4096)
    steps: int = Field(200, ge=1)
    until: date | None = None
    seed: int = Field(0, ge=0, lt=2**31)


_Kind = TypeVar("_Kind", bound=_Told)


def read(kind: type[_Kind], path: Path | None, told: Mapping[str, Any]) -> _Kind:
    """A configuration from a JSON file, if there is one, and from what was told by name, which beats it.

    Raises:
        ConfigError: when the file cannot be read, or holds what is unknown or out of its range.
    """
    found: Any = {}
    if path is not None:
        try:
            found = json.loads(path.expanduser().read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot read the configuration {path}: {error}; expected a JSON object"
            ) from error
        if not isinstance(found, dict):
            raise ConfigError(f"{path} holds a {type(found).__name__}, expected a JSON object")
    try:
        return kind.model_validate(found | {name: value for name, value in told.items() if value is not None})
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'all of it'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path or 'the configuration'} cannot be used: {said}") from error
