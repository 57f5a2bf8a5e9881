"""Chronos-2 and Chronos-Bolt: pretrained neural quantile forecasters as a member."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from forex_core.errors import MemberError
from forex_core.models.base import Answers, Levels, rows_of
from forex_core.types import PATH_STEPS, Array, MarketBundle

MIN_ROWS = 60
"""Rows of history below which an origin gets no answer."""

_SUPPORTED = {
    "Chronos2Pipeline": "Chronos2Model",
    "ChronosBoltPipeline": "ChronosBoltModelForForecasting",
}
_CONFIG, _WEIGHTS, _ADAPTER = "config.json", "model.safetensors", "adapter_config.json"


class ChronosForecaster:
    """Zero-shot quantiles of the log price (Ansari et al. 2024, 2025); spot only.

    Each origin's context is its last `context` values of log spot, less the last of them and over the
    deviation of their returns, so that float32 has its digits where the moves are and the unit of the price
    drops out. A history shorter than `context` is padded on the left as missing.

    Levels between two that the model was trained on are interpolated linearly in log price. A level beyond
    the outermost trained one, as .025 for Chronos-Bolt (trained on .1 to .9), is where a normal would have it
    that agrees with the model's median and outermost quantile on that side: their distance times
    z(level) / z(outermost). The library would repeat the outermost quantile there.

    A path longer than the model's own prediction length is unrolled by the library: trained quantiles are
    appended to the context as so many paths, and the next stretch is read off their mixture.

    Args:
        model: folder with `config.json` and `model.safetensors`, or a name on the Hugging Face hub.
        revision: for a hub name, the commit or tag to use.
        context: rows of history that the model sees, from `MIN_ROWS` to the model's own context length.
        device: where torch computes, such as 'cpu' or 'cuda'.
        trained_until: last date that the weights have seen.
    """

    name = "chronos"
    columns: tuple[str, ...] = ("spot",)

    def __init__(
        self,
        model: str | None,
        revision: str | None = None,
        context: int = 512,
        device: str = "cpu",
        trained_until: date | None = None,
    ) -> None:
        self.model = model
        self.revision = revision
        self.context = context
        self.device = device
        self.trained_until = trained_until
        self.lookback_rows: int | None = context
        self._loaded: Any = None

    @cached_property
    def identity(self) -> str:
        """Name, context and weights: a folder's by the sha256 of its files, the hub's by name and revision."""
        weights = f"{self.model}@{self.revision}"
        if self.model and (folder := Path(self.model).expanduser()).is_dir():
            digest = hashlib.sha256()
            for path in (folder / _CONFIG, folder / _WEIGHTS):
                digest.update(path.read_bytes() if path.is_file() else b"missing")
            weights = digest.hexdigest()
        return f"{self.name}:{self.context}:{weights}:{self.trained_until}"

    def forecast(
        self, bundle: MarketBundle, origins: pd.DatetimeIndex, steps: int, levels: Levels
    ) -> Answers:
        """Quantiles [N, H, Q] in price units.

        Raises:
            MemberError: when there are no weights, they cannot be used, or they cannot answer `steps`.
        """
        rows = rows_of(bundle, origins)
        pipeline = self._pipeline()
        quantiles = np.full((len(rows), steps, len(levels)), np.nan)
        reasons: dict[int, str] = {}
        # One origin is one forward pass of a fixed shape, on one thread. In a batch, a series' last bits vary
        # with the batch size and, on several threads, with its place in it (matrix products are cut into
        # tiles); on one row, they still vary with the number of threads.
        with _one_thread():
            for position, row in enumerate(rows):
                past = bundle.spot[max(0, row + 1 - self.context) : row + 1]
                if len(past) < MIN_ROWS:
                    reasons[position] = f"needs {MIN_ROWS} rows of history, found {len(past)}"
                    continue
                answer = self._answer(pipeline, past, steps, levels)
                if np.isfinite(answer).all():
                    quantiles[position] = answer
                else:
                    reasons[position] = "the model's answer is not finite"
        return Answers(quantiles, reasons)

    def _answer(self, pipeline: Any, past: Array, steps: int, levels: Levels) -> Array:
        """[H, Q] in price units from the prices [T] up to the origin, T at most `context`."""
        logs = np.log(past)
        sigma = float(np.std(np.diff(logs)))
        scale = sigma if sigma > 1e-12 else 1.0  # a constant series has no scale of its own
        window = np.full(self.context, np.nan, dtype=np.float32)
        window[-len(past) :] = (logs - logs[-1]) / scale
        # Always the whole path: what the model says of step 5 depends on how many steps it is asked for, and
        # a horizon is to be a slice of the path.
        path = _predict(pipeline, window, max(steps, PATH_STEPS))[:steps]
        trained = np.asarray(pipeline.quantiles, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            price = past[-1] * np.exp(scale * _at_levels(np.sort(path, axis=1), trained, np.asarray(levels)))
        # Sorted again, since rounding in an interpolation can put a level one bit past its neighbour.
        return np.asarray(np.sort(price, axis=1))

    def _pipeline(self) -> Any:
        """The chronos pipeline, loaded at the first use."""
        if self._loaded is None:
            if self.model is None:
                raise MemberError(
                    f"no weights are configured; set chronos.model to a folder that holds {_CONFIG} and {_WEIGHTS},"
                    " or to a hub name with chronos.revision"
                )
            self._loaded = _load(_locate(self.model, self.revision), self.model, self.device, self.context)
        return self._loaded


def _locate(model: str, revision: str | None) -> Path:
    """Folder that holds the model: `model` itself, or the cached copy of a hub name at a revision."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", model):
        raise MemberError(f"no folder '{model}'; expected one that holds {_CONFIG} and {_WEIGHTS}")
    if revision in (None, "", "main", "master", "HEAD"):
        raise MemberError(
            f"'{model}' is not a folder, and as a hub name it lacks a pinned revision (found {revision}):"
            " give a commit of 40 hex digits or a tag, so that every run uses the same weights"
        )
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    try:
        # What a pinned revision left in the cache is final: no need to ask the hub about it.
        cached = [try_to_load_from_cache(model, file, revision=revision) for file in (_CONFIG, _WEIGHTS)]
        if all(isinstance(path, str) for path in cached):
            return Path(str(cached[0])).parent
        fetched = [hf_hub_download(model, file, revision=revision) for file in (_CONFIG, _WEIGHTS)]
    except (OSError, ValueError, EntryNotFoundError) as error:
        raise MemberError(
            f"cannot get '{model}' at revision {revision} from the hub or its local cache"
            f" ({type(error).__name__}: {error}); download it once while online, or give a folder"
        ) from error
    return Path(fetched[0]).parent


def _load(folder: Path, model: str, device: str, context: int) -> Any:
    """A pipeline whose every weight came from the file, in float32, on `device`."""
    from safetensors import SafetensorError, safe_open

    _check_architecture(folder, model)
    try:
        import torch
        from chronos import BaseChronosPipeline
        from transformers.utils import logging

        with safe_open(folder / _WEIGHTS, framework="pt") as file:
            stored = set(file.keys())
        logging.disable_progress_bar()  # of no use in the log of a scheduled run
        pipeline: Any = BaseChronosPipeline.from_pretrained(
            str(folder), dtype="float32", local_files_only=True
        )
        pipeline.inner_model.to(torch.device(device))
    except (
        OSError,  # no file, or one that cannot be read
        SafetensorError,  # truncated, or not such a file
        RuntimeError,  # shapes that differ from the configuration's, a device torch does not know
        ValueError,
        TypeError,  # unknown or missing fields of chronos_config
        KeyError,
        AttributeError,
        AssertionError,  # chronos' own checks; torch built without the device
        ImportError,
    ) as error:
        raise MemberError(f"cannot load '{model}' on {device}: {type(error).__name__}: {error}") from error

    # A weight that the file lacks is drawn at random by the library, with a line in the log.
    state = pipeline.inner_model.state_dict()
    filled = {tensor.data_ptr() for name, tensor in state.items() if name in stored}
    missing = [name for name, tensor in state.items() if tensor.data_ptr() not in filled]
    if missing:
        raise MemberError(f"'{model}' lacks {len(missing)} weights of its architecture, such as {missing[0]}")
    trained = list(pipeline.quantiles)
    if sorted(set(trained)) != trained or not 0 < trained[0] < 0.5 < trained[-1] < 1:
        raise MemberError(f"'{model}' has levels {trained}; expected them ascending in (0, 1) around .5")
    longest = pipeline.model_context_length
    if not MIN_ROWS <= context <= longest:
        raise MemberError(
            f"'{model}' cannot use a context of {context}: set one from {MIN_ROWS} to {longest}"
        )
    return pipeline


def _check_architecture(folder: Path, model: str) -> None:
    """Raise unless the folder's configuration is that of a whole Chronos-2 or Chronos-Bolt model."""
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MemberError(f"cannot read {_CONFIG} of '{model}': {error}") from error
    if not isinstance(config, dict):
        raise MemberError(f"{_CONFIG} of '{model}' is not a JSON object")
    if (folder / _ADAPTER).exists():
        # The library would fetch the base model that the adapter names, at no pinned revision.
        raise MemberError(f"'{model}' is an adapter to other weights; merge it and save the whole model")
    pipeline = config.get("chronos_pipeline_class", "ChronosPipeline" if "chronos_config" in config else None)
    architecture = config.get("architectures")
    if pipeline == "ChronosPipeline":
        raise MemberError(
            f"'{model}' is an original Chronos model, which answers with random samples;"
            " expected Chronos-2 or Chronos-Bolt (by 'chronos_pipeline_class' of its configuration)"
        )
    if pipeline not in _SUPPORTED or architecture != [_SUPPORTED[pipeline]]:
        raise MemberError(
            f"'{model}' has architecture {architecture} and pipeline {pipeline};"
            " expected Chronos-2 or Chronos-Bolt"
        )


def _predict(pipeline: Any, window: np.ndarray[Any, np.dtype[np.float32]], steps: int) -> Array:
    """[H, trained levels] from a window [context] with NaN where there is no history."""
    import torch

    with warnings.catch_warnings():
        # Said of a path longer than the model's own, on every call; see the docstring of the class.
        warnings.filterwarnings("ignore", "We recommend keeping prediction length", UserWarning)
        try:
            # Chronos-2 answers with [1, Q, H] for each series of the list, Chronos-Bolt with [Q, H].
            first = pipeline.predict([torch.from_numpy(window)], prediction_length=steps)[0]
        except (ValueError, RuntimeError) as error:
            raise MemberError(f"the model cannot answer {steps} steps: {error}") from error
    return np.asarray(first.reshape(-1, steps).T.numpy(), dtype=np.float64)


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
def _one_thread() -> Iterator[None]:
    """Torch on one thread inside, as before outside."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
