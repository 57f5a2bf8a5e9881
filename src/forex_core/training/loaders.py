"""Train, validation and test loaders over the corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from forex_core.training.config import TrainingConfig
from forex_core.training.corpus import Batch, Corpus, Crosses

TRAIN, VALIDATION, TEST = 0, 1, 2
"""What the keys of a loader's batches begin with, after the seed."""


class Batches(Dataset[Batch]):
    """Whole batches by their number."""

    def __init__(self, corpus: Corpus, tasks: int, *key: int) -> None:
        self._corpus, self._tasks, self._key = corpus, tasks, key

    def __getitem__(self, number: int) -> Batch:
        batch = self._corpus.batch(self._tasks, *self._key, number)
        return Batch(
            torch.from_numpy(batch.context),  # type: ignore[arg-type]
            torch.from_numpy(batch.target),  # type: ignore[arg-type]
            torch.from_numpy(batch.group),  # type: ignore[arg-type]
        )


class Numbers(Sampler[int]):
    """The batches of an epoch by the steps that were taken before it.

    Not by the trainer's count of epochs: that of a resumed run is one behind, where it was ended after an epoch.
    """

    def __init__(self, each: int, taken: Callable[[], int]) -> None:
        self._each, self._taken = each, taken

    def __iter__(self) -> Iterator[int]:
        first = self._taken()
        return iter(range(first, first + self._each))

    def __len__(self) -> int:
        return self._each


class Loaders(lightning.LightningDataModule):
    """Training on outcomes up to `train_until`, validation from there to `validate_until`, test on what is later.

    The rates of validation are real ones all; the generated tell nothing of how the model does on those.
    """

    def __init__(self, config: TrainingConfig, crosses: Crosses) -> None:
        super().__init__()
        self._config, self._crosses = config, crosses
        self._numbers = Numbers(
            config.steps_per_epoch, lambda: self.trainer.global_step if self.trainer else 0
        )
        self._kept: dict[int, list[Batch]] = {}

    @property
    def has_test(self) -> bool:
        """Whether the crosses go on for long enough after validation."""
        later = len(self._crosses.days) - self._crosses.row_after(self._config.validate_until)
        return later >= self._config.architecture.steps

    def prepare_parts(self) -> None:
        """Make what is asked for later, so that days that do not do are refused before a training and not after it.

        Raises:
            ConfigError: when a part has too few days.
        """
        self.train_dataloader()
        self.val_dataloader()
        if self.has_test:
            self.test_dataloader()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        parts: tuple[Any, ...] = (batch.context, batch.target, batch.group)
        return Batch(*(part.to(device, non_blocking=True) for part in parts))

    def train_dataloader(self) -> DataLoader[Batch]:
        config = self._config
        corpus = Corpus(
            self._crosses, config.architecture, config.train_until, generated_share=config.generated_share
        )
        return DataLoader(
            Batches(corpus, config.batch_size, config.seed, TRAIN),
            batch_size=None,
            sampler=self._numbers,
            num_workers=config.workers,
            # A process that was forked while threads of a tracker ran may never begin.
            multiprocessing_context="spawn" if config.workers else None,
            persistent_workers=config.workers > 0,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        config = self._config
        return self._real(
            VALIDATION,
            Corpus(
                self._crosses,
                config.architecture,
                config.validate_until,
                config.train_until,
                generated_share=0.0,
            ),
        )

    def test_dataloader(self) -> DataLoader[Batch]:
        config, last = self._config, self._crosses.days[-1].date()
        return self._real(
            TEST, Corpus(self._crosses, config.architecture, last, config.validate_until, generated_share=0.0)
        )

    def _real(self, part: int, corpus: Corpus) -> DataLoader[Batch]:
        config = self._config
        if part not in self._kept:
            batches = Batches(corpus, config.batch_size, config.seed, part)
            self._kept[part] = [batches[number] for number in range(config.validation_batches)]
        return DataLoader(self._kept[part], batch_size=None)  # type: ignore[arg-type]
