"""Chronos-2 and Chronos-Bolt: pretrained neural quantile forecasters as a member."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from forex_core.errors import MemberError
from forex_core.models.base import Answers, Levels, rows_of
from forex_core.models.chronos_library import load_pipeline, locate, predict
from forex_core.models.chronos_series import driver_moves, shown_at
from forex_core.models.chronos_weights import (
    CONFIG,
    EMBEDDED,
    EMBEDDED_FOLDER,
    REGISTERED,
    WEIGHTS,
    Network,
    Runtime,
    StatedWeights,
    TorchNetwork,
)
from forex_core.types import PATH_STEPS, Array, MarketBundle

MIN_ROWS = 60
"""Rows of history below which an origin gets no answer."""

MAX_THREADS = 4
Answer = Callable[[int], tuple[Array, Array]]
"""Of a row: log moves [H, trained levels] and those levels."""
Mapper = Callable[[Answer, list[int]], Iterator[tuple[Array, Array]]]


class ChronosForecaster:
    """Zero-shot quantiles of the log price (Ansari et al. 2024, 2025).

    Weights with a statement beside them, as those that the package carries, are shown what they were trained on
    (`chronos_series.shown`), and answer a whole path at once. They run on onnxruntime unless told otherwise.

    Others are shown the spot alone. Each origin's context is its last `context` values of log spot, less the last of
    them and over the deviation of their returns, so that float32 has its digits where the moves are and the unit of
    the price drops out. A history shorter than `context` is padded on the left as missing. A path longer than the
    model's own prediction length is unrolled by the library: trained quantiles are appended to the context as so many
    paths, and the next stretch is read off their mixture.

    Levels between two that the model was trained on are interpolated linearly in log price. A level beyond the
    outermost trained one, as .025 for Chronos-Bolt (trained on .1 to .9), is where a normal would have it that agrees
    with the model's median and outermost quantile on that side: their distance times z(level) / z(outermost). The
    library would repeat the outermost quantile there.

    Args:
        model: 'embedded', a folder with `config.json` and `model.safetensors`, or a name on the Hugging Face hub.
        revision: for a hub name, the commit or tag to use.
        context: rows of history that weights without a statement see, from `MIN_ROWS` to their own context length.
        device: where torch computes, such as 'cpu' or 'cuda'.
        trained_until: last date that weights without a statement have seen.
        runtime: of weights with a statement; 'auto' is onnxruntime on a CPU where there is a graph, else torch.
        drivers: show drivers to weights with a statement.
    """

    name = "chronos"
    libraries: tuple[str, ...] = ()  # its runtimes limit their threads themselves

    def __init__(
        self,
        model: str | None = EMBEDDED,
        revision: str | None = None,
        context: int = 512,
        device: str = "cpu",
        trained_until: date | None = None,
        runtime: Runtime = "auto",
        drivers: bool = True,
    ) -> None:
        self.model = model
        self.revision = revision
        self.device = device
        self.runtime = runtime
        self._drivers = drivers
        self.stated, self._fault = _stated(model)
        self.trained_until = self.stated.trained_until if self.stated else trained_until
        self.may_have_seen = model is not None and (
            self.stated.may_have_seen if self.stated else self.trained_until is None
        )
        self.columns: tuple[str, ...] = ("spot", "drivers") if drivers and self.stated else ("spot",)
        self.context = self.stated.context if self.stated else context
        # A move takes the row before it; weights without a statement see no moves.
        self.lookback_rows: int | None = self.context + 1 if self.stated else context

    @cached_property
    def identity(self) -> str:
        """Name, what is shown, and weights: stated ones by their checksums, other folders' by their bytes."""
        if self.stated:
            # Not the runtime: what it changes of an answer is beyond what a recipe tells apart.
            return f"{self.name}:{self.stated.digest}:{'+'.join(self.columns)}:{self.trained_until}"
        weights = f"{self.model}@{self.revision}"
        if self._fault:
            return f"{self.name}:{self.context}:{weights}:{self.trained_until}"
        if self.model and (folder := Path(self.model).expanduser()).is_dir():
            digest = hashlib.sha256()
            for path in (folder / CONFIG, folder / WEIGHTS):
                digest.update(path.read_bytes() if path.is_file() else b"missing")
            weights = digest.hexdigest()
        return f"{self.name}:{self.context}:{weights}:{self.trained_until}"

    @property
    def computed_by(self) -> str:
        """Device and file: they make no other model, but other bits."""
        file = self.stated.network_file(self.runtime, self.device) if self.stated else ""
        return f"{self.device}:{file}"

    def forecast(
        self, bundle: MarketBundle, origins: pd.DatetimeIndex, steps: int, levels: Levels
    ) -> Answers:
        """Quantiles [N, H, Q] in price units.

        Raises:
            MemberError: when there are no weights, they cannot be used, or they cannot answer `steps`.
        """
        rows = rows_of(bundle, origins)
        answer, together = self._ready(bundle, steps)
        quantiles = np.full((len(rows), steps, len(levels)), np.nan)
        reasons: dict[int, str] = {}
        # One origin is one forward pass of a fixed shape, on one thread. In a batch, a series' last bits vary
        # with the batch size and, on several threads, with its place in it (matrix products are cut into
        # tiles); on one row, they still vary with the number of threads.
        asked = []
        for position, row in enumerate(rows):
            known = min(self.context, int(row) + 1)
            if known < MIN_ROWS:
                reasons[position] = f"needs {MIN_ROWS} rows of history, found {known}"
            elif self.trained_until is not None and bundle.dates[row] <= pd.Timestamp(self.trained_until):
                reasons[position] = f"its weights have seen data up to {self.trained_until}"
            else:
                asked.append((position, int(row)))
        with together as mapped:
            answers = mapped(answer, [row for _, row in asked])
            for (position, row), (path, trained) in zip(asked, answers, strict=True):
                with np.errstate(over="ignore", invalid="ignore"):
                    path = _at_levels(np.sort(path, axis=1)[:steps], trained, np.asarray(levels))
                    # Sorted again, since rounding in an interpolation can put a level one bit past its neighbour.
                    price = np.sort(bundle.spot[row] * np.exp(path), axis=1)
                if np.isfinite(price).all():
                    quantiles[position] = price
                else:
                    reasons[position] = "the model's answer is not finite"
        return Answers(quantiles, reasons)

    def _ready(self, bundle: MarketBundle, steps: int) -> tuple[Answer, AbstractContextManager[Mapper]]:
        """What answers a row, and what maps it over rows."""
        if self._fault:
            raise self._fault
        # Always the whole path: what the model says of step 5 depends on how many steps it is asked for, and
        # a horizon is to be a slice of the path.
        asked = max(steps, PATH_STEPS)
        if self.stated is None:
            pipeline = self._pipeline
            return lambda row: self._of_pipeline(pipeline, bundle, row, asked), _one_thread()
        stated = self.stated
        if steps > stated.steps:
            raise MemberError(f"the weights in {stated.folder} answer {stated.steps} steps, not {steps}")
        network, logs = self._network, np.log(bundle.spot)
        moves = driver_moves(bundle) if self._drivers else np.empty((0, len(logs)))
        return (
            lambda row: self._of_network(network, stated, logs, moves, row),
            _one_thread() if isinstance(network, TorchNetwork) else _rows_at_once(),
        )

    def _of_network(
        self, network: Network, stated: StatedWeights, logs: Array, moves: Array, row: int
    ) -> tuple[Array, Array]:
        found = shown_at(row, logs, moves, stated.context)
        return found.told(network.quantiles(found.series).T), np.asarray(stated.levels)

    def _of_pipeline(self, pipeline: Any, bundle: MarketBundle, row: int, steps: int) -> tuple[Array, Array]:
        logs = np.log(bundle.spot[max(0, row + 1 - self.context) : row + 1])
        sigma = float(np.std(np.diff(logs)))
        scale = sigma if sigma > 1e-12 else 1.0  # a constant series has no scale of its own
        window = np.full(self.context, np.nan, dtype=np.float32)
        window[-len(logs) :] = (logs - logs[-1]) / scale
        return predict(pipeline, window, steps) * scale, np.asarray(pipeline.quantiles, dtype=np.float64)

    @cached_property
    def _network(self) -> Network:
        """Loaded at the first use."""
        assert self.stated is not None
        return self.stated.network(self.runtime, self.device)

    @cached_property
    def _pipeline(self) -> Any:
        """The chronos pipeline, loaded at the first use."""
        if self.model is None:
            raise MemberError(
                "no weights are configured; set chronos.model to 'embedded', to a folder that holds"
                f" {CONFIG} and {WEIGHTS}, or to a hub name with chronos.revision"
            )
        pipeline = load_pipeline(locate(self.model, self.revision), self.model, self.device)
        longest = pipeline.model_context_length
        if not MIN_ROWS <= self.context <= longest:
            raise MemberError(
                f"'{self.model}' cannot use a context of {self.context}: set one from {MIN_ROWS} to {longest}"
            )
        return pipeline


def _stated(model: str | None) -> tuple[StatedWeights | None, MemberError | None]:
    """What the weights state of themselves, or why they cannot be used, which is told when they are to answer."""
    if model is None:
        return None, None
    if model.startswith(REGISTERED):
        return None, MemberError(
            f"the weights {model} could not be fetched from the registry; the log says why"
        )
    try:
        folder = EMBEDDED_FOLDER if model == EMBEDDED else Path(model).expanduser()
        found = StatedWeights.read(folder)
    except MemberError as error:
        return None, error
    except (OSError, RuntimeError) as error:  # a home folder of nobody, a folder that may not be entered
        return None, MemberError(f"cannot read the weights {model}: {error}")
    if found is None and model == EMBEDDED:
        return None, MemberError(
            f"the package carries no weights: {folder} is missing or empty; install it anew"
        )
    return found, None


def _at_levels(path: Array, trained: Array, levels: Array) -> Array:
    """[H, Q] at `levels` from [H, K] ascending at the `trained` levels; normal beyond the outermost."""
    asked = np.append(levels, 0.5)
    inside = np.array([np.interp(asked, trained, row) for row in path]).reshape(len(path), len(asked))
    out, median = inside[:, :-1], inside[:, -1]
    for outermost, beyond in ((0, levels < trained[0]), (-1, levels > trained[-1])):
        sigma = (path[:, outermost] - median) / ndtri(trained[outermost])
        out[:, beyond] = median[:, None] + sigma[:, None] * ndtri(levels[beyond])
    return out


@contextmanager
def _rows_at_once() -> Iterator[Mapper]:
    """Rows on threads beside each other, each of them computed by one, as alone."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_THREADS)) as pool:
        yield pool.map


@contextmanager
def _one_thread() -> Iterator[Mapper]:
    """Torch on one thread inside, as before outside; one row after the other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield map
    finally:
        torch.set_num_threads(before)
