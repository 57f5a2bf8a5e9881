"""Weights on disk that state what they are, and the networks that answer with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from forex_core.errors import MemberError
from forex_core.models.chronos_series import SHOWN
from forex_core.types import Array

EMBEDDED = "embedded"
"""Name of the weights that the package carries."""

REGISTERED = "models:/"
"""How the name of registered weights begins."""

EMBEDDED_FOLDER = Path(__file__).with_name("weights")

CONFIG, WEIGHTS, GRAPH, STATEMENT = "config.json", "model.safetensors", "model.onnx", "training.json"

Runtime = Literal["auto", "onnx", "torch"]
Series = npt.NDArray[np.float32]


class Network(Protocol):
    """Quantiles of one rate from what is shown of it and of its drivers."""

    def quantiles(self, series: Series) -> Array:
        """[Q, H] of the first of the series [R, C] of one task, NaN where there is none."""
        ...


@dataclass(frozen=True)
class StatedWeights:
    """Weights in a folder with a statement: made by `forex_core.training`, or fine-tuned there.

    Attributes:
        trained_until: the last date that they have seen.
        levels: of the quantiles, ascending.
        context: rows that the network sees.
        steps: of the longest path that it answers.
        may_have_seen: whether they were begun from weights that nobody states the cut-off of, which `trained_until` is
            not about.
        sums: sha256 of each file.
    """

    folder: Path
    trained_until: date
    levels: tuple[float, ...]
    context: int
    steps: int
    may_have_seen: bool
    sums: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Of all that an answer hangs on."""
        told = [dict(self.sums), self.context, self.steps, self.may_have_seen]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @classmethod
    def read(cls, folder: Path) -> StatedWeights | None:
        """What a folder holds, None where no statement is beside the weights.

        Raises:
            MemberError: when the statement or the configuration cannot be used.
        """
        if not (folder / STATEMENT).is_file():
            return None
        document, config = _object(folder / STATEMENT), _object(folder / CONFIG)
        try:
            if (way := document["shown"]) != SHOWN:
                raise MemberError(
                    f"the weights in {folder} learned on way {way} of showing a rate, and this version shows it in way"
                    f" {SHOWN}: train them anew, or use the version of this package that made them"
                )
            told = config["chronos_config"]
            return cls(
                folder=folder,
                trained_until=date.fromisoformat(document["trained_until"]),
                levels=tuple(float(level) for level in told["quantiles"]),
                context=int(document["context"]),
                steps=int(document["steps"]),
                may_have_seen=bool(document["may_have_seen"]),
                sums={str(name): str(digest) for name, digest in document["sha256"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise MemberError(
                f"{folder / STATEMENT} or {CONFIG} beside it is not as 'forex train' writes it"
                f" ({type(error).__name__}: {error}); take the folder anew from where it was made"
            ) from error

    def checked(self, *names: str) -> None:
        """Raise unless these files are those that the statement is of.

        Raises:
            MemberError: when one is missing, or not what was made.
        """
        for name in names:
            if name not in self.sums:
                raise MemberError(f"{self.folder} was made without {name}; choose another chronos.runtime")
            try:
                found = sha256_of(self.folder / name)
            except OSError as error:
                raise MemberError(f"cannot read {name} of the weights in {self.folder}: {error}") from error
            if found != self.sums[name]:
                raise MemberError(
                    f"{self.folder / name} has the checksum {found[:12]}…, expected {self.sums[name][:12]}… as stated"
                    f" in {STATEMENT}: it is damaged or another file; install the package, or take the folder, anew"
                )

    def network_file(self, runtime: Runtime, device: str = "cpu") -> str:
        """The graph, or the weights where torch is asked for, a GPU is, or there is no graph."""
        if runtime == "auto":
            runtime = "torch" if device != "cpu" or not (self.folder / GRAPH).is_file() else "onnx"
        return WEIGHTS if runtime == "torch" else GRAPH

    def network(self, runtime: Runtime, device: str = "cpu") -> Network:
        """The network on torch, or on onnxruntime where it is the graph's.

        Raises:
            MemberError: when a file is missing or damaged, or a library is not installed.
        """
        file = self.network_file(runtime, device)
        self.checked(CONFIG, file)
        return (
            TorchNetwork(self.folder, device, self.steps)
            if file == WEIGHTS
            else GraphNetwork(self.folder / file)
        )


class GraphNetwork:
    """A graph on onnxruntime, on one thread, so that the bits hang on nothing but the input."""

    def __init__(self, file: Path) -> None:
        try:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.log_severity_level = 3
            # An arena keeps the largest size that it ever had; a run keeps the model for its whole life.
            options.enable_cpu_mem_arena = False
            self._session = onnxruntime.InferenceSession(
                file.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except ImportError as error:
            raise MemberError(f"onnxruntime cannot be loaded: {error}; install it") from error
        except _graph_errors() as error:
            raise MemberError(f"cannot load the graph {file}: {type(error).__name__}: {error}") from error

    def quantiles(self, series: Series) -> Array:
        try:
            (answer,) = self._session.run(["quantiles"], {"context": series})
        except _graph_errors() as error:
            raise MemberError(f"the graph gives no answer: {type(error).__name__}: {error}") from error
        return np.asarray(answer, dtype=np.float64)


def _graph_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises; they have no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NotImplemented",
        "RuntimeException",
    )
    return (OSError, *(getattr(state, name) for name in names))


class TorchNetwork:
    """A Chronos-2 model on torch."""

    def __init__(self, folder: Path, device: str, steps: int) -> None:
        from forex_core.models.chronos_library import load_pipeline

        self._model = load_pipeline(folder, str(folder), device).inner_model
        self._device, self._steps = device, steps
        self._patches = -(-steps // self._model.chronos_config.output_patch_size)

    def quantiles(self, series: Series) -> Array:
        import torch

        context = torch.from_numpy(series).to(self._device)
        group = torch.zeros(len(series), dtype=torch.long, device=self._device)
        with torch.no_grad():
            answer = self._model(context=context, group_ids=group, num_output_patches=self._patches)
        return np.asarray(answer.quantile_preds[0, :, : self._steps].cpu().numpy(), dtype=np.float64)


def sha256_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MemberError(f"cannot read {file.name} of the weights in {file.parent}: {error}") from error
    if not isinstance(found, dict):
        raise MemberError(f"{file} is not a JSON object")
    return found
