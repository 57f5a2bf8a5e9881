"""Fine-tuning of a Chronos-2 model on one pair's bundle, by the library's own `fit`."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import warnings
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from forex_core.calendars import business_day_numbers
from forex_core.champion import MIN_ORIGINS
from forex_core.config import EngineConfig
from forex_core.errors import ConfigError, InputError
from forex_core.models.chronos import MIN_ROWS
from forex_core.models.chronos_library import load_pipeline, locate
from forex_core.models.chronos_series import driver_moves, shown_at
from forex_core.models.chronos_weights import CONFIG, EMBEDDED, EMBEDDED_FOLDER, WEIGHTS, StatedWeights
from forex_core.tracking import Tracker
from forex_core.training.config import Architecture, FineTuningConfig
from forex_core.types import PATH_STEPS, MarketBundle, Pair

if TYPE_CHECKING:
    from chronos.chronos2 import Chronos2Model

SPARE_ORIGINS = 4
"""For origins without an outcome, as in holes of the data."""

MIN_WINDOWS = 250
"""Windows below which there is nothing to fine-tune on: a year of them."""


@dataclass(frozen=True)
class FineTuned:
    """A whole model, adapters merged.

    It has seen rows up to and with `trained_until`; `may_have_seen` later ones, where nobody states what
    it was begun from.
    """

    model: Chronos2Model
    trained_until: date
    architecture: Architecture
    may_have_seen: bool
    windows: int
    seconds: float


def finetune(
    config: FineTuningConfig, bundle: MarketBundle, tracker: Tracker, engine: EngineConfig | None = None
) -> FineTuned:
    """Fine-tune weights on the bundle's rows up to `until`, by default `latest_cut_off`.

    Every weight learns from the windows that the member shows; a hub model so learns what the member shows.

    Args:
        bundle: nothing of it after `until` is read.
        tracker: with an active run.
        engine: of the contest that will judge them, the default one without it.

    Raises:
        InputError: when there are too few rows up to `until`, or after it where it is not told.
        ConfigError: when the weights are no Chronos-2 model, or `until` lies before what they have seen.
        MemberError: when the weights cannot be loaded.
    """
    started = time.monotonic()
    until = config.until or latest_cut_off(bundle, engine or EngineConfig())
    name = config.pretrained or EMBEDDED
    folder = EMBEDDED_FOLDER if name == EMBEDDED else locate(name, config.revision)
    stated = StatedWeights.read(folder)
    if stated:
        stated.checked(CONFIG, WEIGHTS)  # what it says of them is handed on
    if stated and stated.trained_until > until:
        raise ConfigError(
            f"the weights of '{name}' have seen data up to {stated.trained_until}, later than {until};"
            " give a later --until"
        )
    pipeline = load_pipeline(folder, name, "cuda" if torch.cuda.is_available() else "cpu")
    if type(pipeline).__name__ != "Chronos2Pipeline":
        raise ConfigError(f"'{name}' is a {type(pipeline).__name__}, expected a Chronos-2 model")
    patch = pipeline.model_output_patch_size
    if stated:
        architecture = Architecture(context=stated.context, steps=stated.steps, patch=patch)
    else:
        architecture = Architecture(context=min(512, pipeline.model_context_length), patch=patch)
    tasks = windows(_rows_until(bundle, until), architecture)
    tracker.log_params(
        {
            **config.model_dump(mode="json"),
            "pretrained": name,
            "until": until,
            "windows": len(tasks),
            "pair": bundle.pair,
        }
    )
    torch.manual_seed(config.seed)
    np.random.seed(config.seed)  # noqa: NPY002  what the library draws its windows from
    with (
        tempfile.TemporaryDirectory() as scratch,
        Path(os.devnull).open("w") as nowhere,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of the library's own trainer
        with contextlib.redirect_stdout(nowhere):
            fitted = pipeline.fit(
                tasks,
                prediction_length=architecture.steps,
                context_length=architecture.context,
                min_past=architecture.context,  # a task is one window
                finetune_mode=config.method,
                learning_rate=config.learning_rate,
                num_steps=config.steps,
                batch_size=config.batch_size,
                output_dir=Path(scratch),
                callbacks=[_told_to(tracker)],
                remove_printer_callback=True,
                disable_tqdm=True,
                logging_steps=min(20, config.steps),
                seed=config.seed,
            )
            model = fitted.model
            if config.method == "lora":
                model = model.merge_and_unload()
    unknown = stated is None or stated.may_have_seen
    return FineTuned(model.cpu(), until, architecture, unknown, len(tasks), time.monotonic() - started)


def judged_from(pair: Pair, until: date, engine: EngineConfig) -> date:
    """The day up to which data have to reach for weights that have seen `until` to be judged at every horizon.

    By then `warmup_origins` of the grid have taught and `MIN_ORIGINS` are scored, the last over its whole path.
    """
    needed = (engine.warmup_origins + MIN_ORIGINS + SPARE_ORIGINS) * engine.grid_every
    days = pd.bdate_range(until + timedelta(days=1), periods=2 * needed + PATH_STEPS)
    last = int(np.flatnonzero(business_day_numbers(pair, days) >= 0)[needed - 1])
    return days[last + PATH_STEPS].date()


def latest_cut_off(bundle: MarketBundle, engine: EngineConfig) -> date:
    """The last day to learn from for who wants to be judged on what came after it in the bundle.

    Raises:
        InputError: when there is none.
    """
    row = bisect_right(
        bundle.dates, bundle.origin, key=lambda day: judged_from(bundle.pair, day.date(), engine)
    )
    if row == 0:
        raise InputError(
            f"{bundle.pair} has data from {bundle.dates[0].date()} to {bundle.origin}, too few to learn from some and"
            " be judged on the others; give a longer history, or a day (--until) and wait for what comes after it"
        )
    return bundle.dates[row - 1].date()


def windows(bundle: MarketBundle, architecture: Architecture) -> list[Mapping[str, Any]]:
    """One task of the library for each row that has history and outcomes in the bundle.

    Raises:
        InputError: when they are too few.
    """
    steps, context = architecture.steps, architecture.context
    logs, moves = np.log(bundle.spot), driver_moves(bundle)
    tasks: list[Mapping[str, Any]] = []
    for row in range(MIN_ROWS, len(bundle) - steps):
        found = shown_at(row, logs, moves, context)
        ahead = np.full((len(found.series), steps), np.nan, dtype=np.float32)
        ahead[0] = found.asked(logs[row + 1 : row + 1 + steps] - logs[row])
        whole = np.concatenate([found.series, ahead], axis=1)
        past = {f"series_{number}": values for number, values in enumerate(whole[1:], start=1)}
        tasks.append({"target": whole[0], "past_covariates": past})
    if len(tasks) < MIN_WINDOWS:
        raise InputError(
            f"{bundle.pair} has {len(bundle)} rows up to {bundle.origin}, {len(tasks)} windows with"
            f" {steps} outcomes; expected at least {MIN_WINDOWS}: give a later --until or a longer history"
        )
    return tasks


def _rows_until(bundle: MarketBundle, until: date) -> MarketBundle:
    rows = int(bundle.dates.searchsorted(pd.Timestamp(until), side="right"))
    if rows == 0:
        raise InputError(f"the data of {bundle.pair} begin on {bundle.dates[0].date()}, after {until}")
    return bundle.until(bundle.instants[rows - 1])


def _told_to(tracker: Tracker) -> Any:
    from transformers import TrainerCallback

    class Told(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            named = {"loss": "train/loss", "learning_rate": "learning_rate"}
            metrics = {named[key]: value for key, value in logs.items() if key in named}
            tracker.log_metrics(metrics, step=state.global_step)

    return Told()
