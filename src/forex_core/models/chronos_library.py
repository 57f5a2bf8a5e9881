"""Models of chronos-forecasting from a folder or the hub, whatever they were trained on: Chronos-2 and Chronos-Bolt."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from forex_core.errors import MemberError
from forex_core.models.chronos_weights import CONFIG, WEIGHTS
from forex_core.types import Array

_SUPPORTED = {
    "Chronos2Pipeline": "Chronos2Model",
    "ChronosBoltPipeline": "ChronosBoltModelForForecasting",
}
_ADAPTER = "adapter_config.json"


def locate(model: str, revision: str | None) -> Path:
    """Folder that holds the model: `model` itself, or the cached copy of a hub name at a revision."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", model):
        raise MemberError(f"no folder '{model}'; expected one that holds {CONFIG} and {WEIGHTS}")
    if revision in (None, "", "main", "master", "HEAD"):
        raise MemberError(
            f"'{model}' is not a folder, and as a hub name it lacks a pinned revision (found {revision}):"
            " give a commit of 40 hex digits or a tag, so that every run uses the same weights"
        )
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    try:
        # What a pinned revision left in the cache is final: no need to ask the hub about it.
        cached = [try_to_load_from_cache(model, file, revision=revision) for file in (CONFIG, WEIGHTS)]
        if all(isinstance(path, str) for path in cached):
            return Path(str(cached[0])).parent
        fetched = [hf_hub_download(model, file, revision=revision) for file in (CONFIG, WEIGHTS)]
    except (OSError, ValueError, EntryNotFoundError) as error:
        raise MemberError(
            f"cannot get '{model}' at revision {revision} from the hub or its local cache"
            f" ({type(error).__name__}: {error}); download it once while online, or give a folder"
        ) from error
    return Path(fetched[0]).parent


def load_pipeline(folder: Path, model: str, device: str) -> Any:
    """A pipeline whose every weight came from the file, in float32, on `device`."""
    from safetensors import SafetensorError, safe_open

    _check_architecture(folder, model)
    try:
        import torch
        from chronos import BaseChronosPipeline
        from transformers.utils import logging

        with safe_open(folder / WEIGHTS, framework="pt") as file:
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
    return pipeline


def _check_architecture(folder: Path, model: str) -> None:
    """Raise unless the folder's configuration is that of a whole Chronos-2 or Chronos-Bolt model."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MemberError(f"cannot read {CONFIG} of '{model}': {error}") from error
    if not isinstance(config, dict):
        raise MemberError(f"{CONFIG} of '{model}' is not a JSON object")
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


def predict(pipeline: Any, window: np.ndarray[Any, np.dtype[np.float32]], steps: int) -> Array:
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
