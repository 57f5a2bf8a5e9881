"""What a training leaves for the member: weights in half precision, their graph for ONNX, and a statement of both."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from forex_core.errors import ConfigError, ForexError
from forex_core.models.chronos_library import load_pipeline, locate
from forex_core.models.chronos_series import SERIES, SHOWN
from forex_core.models.chronos_weights import (
    CONFIG,
    EMBEDDED,
    EMBEDDED_FOLDER,
    GRAPH,
    STATEMENT,
    WEIGHTS,
    GraphNetwork,
    StatedWeights,
    sha256_of,
)
from forex_core.training.config import Architecture
from forex_core.training.module import untrained

if TYPE_CHECKING:
    from chronos.chronos2 import Chronos2Model

PARITY = 1e-4
"""Largest difference of the graph's answers from torch's, over the largest answer."""
_OPSET = 18
# By shapes alone weights of four heads would fit a model of eight.
_ARCHITECTURE = ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "chronos_config")


@dataclass(frozen=True)
class Statement:
    """What weights say of themselves. `context` and `steps` are as `Architecture` has them.

    `may_have_seen`: whether they were begun from weights that nobody states the cut-off of.
    """

    trained_until: date
    context: int
    steps: int
    made: Mapping[str, Any]
    may_have_seen: bool = False

    def written(self, folder: Path) -> None:
        """Write it into a folder, with the sha256 of each file of the model that is there."""
        files = {
            name: sha256_of(folder / name) for name in (CONFIG, WEIGHTS, GRAPH) if (folder / name).is_file()
        }
        document = {
            "trained_until": self.trained_until.isoformat(),
            "context": self.context,
            "shown": SHOWN,
            "steps": self.steps,
            "may_have_seen": self.may_have_seen,
            "sha256": files,
            **self.made,
        }
        _write(folder / STATEMENT, document)


def save_weights(
    model: Chronos2Model, folder: Path, statement: Statement, *, graph: bool = True
) -> float | None:
    """Write a model into a folder as the member reads it; how far the graph is from torch, if there is to be one.

    Raises:
        ForexError: when weights are no finite numbers in half precision, or the graph does not answer as they do.
    """
    from safetensors.torch import save_file

    # Both networks compute with the weights as they are stored.
    half = {name: tensor.detach().cpu().half().contiguous() for name, tensor in model.state_dict().items()}
    if lost := [name for name, tensor in half.items() if not tensor.isfinite().all()]:
        raise ForexError(
            f"{len(lost)} of {len(half)} weights are no finite numbers, so the training came apart; give a lower"
            " learning rate"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, GRAPH, STATEMENT):
        (folder / name).unlink(missing_ok=True)
    model = model.eval()
    model.load_state_dict({name: tensor.float() for name, tensor in half.items()})
    model.config.to_json_file(str(folder / CONFIG), use_diff=True)
    save_file(half, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)  # the library lets nobody else read it
    difference = export_graph(model, folder / GRAPH, statement.context, statement.steps) if graph else None
    statement.written(folder)
    return difference


def reexport(folder: Path) -> float:
    """Write the graph of weights that state what they are anew; its largest relative difference from them.

    Raises:
        ConfigError: when the folder has no statement.
        MemberError: when the weights are missing or damaged.
    """
    stated = StatedWeights.read(folder)
    if stated is None:
        raise ConfigError(
            f"{folder} holds no {STATEMENT}, expected a folder of weights as 'forex train' leaves it"
        )
    stated.checked(CONFIG, WEIGHTS)
    model = load_pipeline(folder, str(folder), "cpu").inner_model
    difference = export_graph(model, folder / GRAPH, stated.context, stated.steps)
    document = json.loads((folder / STATEMENT).read_text(encoding="utf-8"))
    document["sha256"][GRAPH] = sha256_of(folder / GRAPH)
    _write(folder / STATEMENT, document)
    return difference


def export_graph(model: Chronos2Model, file: Path, context: int, steps: int) -> float:
    """Write the graph of a model, weights in half precision; its largest relative difference from torch on test data.

    A graph that differs by more than `PARITY` is not left there.

    It reads `context` [5, C], the series that `chronos_series.shown` gives, and gives `quantiles` [Q, H] of the first.

    Raises:
        ForexError: when the graph's answers differ by more than `PARITY`.
    """
    import onnx

    example = torch.randn(SERIES, context)
    example[0, :64] = torch.nan
    with _quietly():
        # Decomposed, since the library multiplies masks of truth values, which is no operation of ONNX.
        exported = torch.export.export(_FirstOfGroup(model, steps).eval(), (example,)).run_decompositions()
        program = torch.onnx.export(
            exported,
            (),
            dynamo=True,
            input_names=["context"],
            output_names=["quantiles"],
            opset_version=_OPSET,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    unfinished = file.with_suffix(".new")
    onnx.save(_halved(_unrepeated(program.model_proto)), unfinished)
    difference = parity(model, unfinished, context, steps)
    if not difference <= PARITY:
        unfinished.unlink()
        raise ForexError(
            f"the graph for {file} answers {difference:.1e} apart from its weights, expected at most {PARITY:.0e};"
            " the versions of torch and onnxscript may not fit each other"
        )
    unfinished.replace(file)
    return difference


def parity(model: Chronos2Model, file: Path, context: int, steps: int) -> float:
    """Largest difference of a graph's answers from torch's over torch's largest, on histories of several lengths."""
    network, whole = GraphNetwork(file), _FirstOfGroup(model, steps)
    draw = torch.Generator().manual_seed(0)
    worst = 0.0
    for missing in (0, context // 8 + 1, context - 16):
        series = torch.randn(SERIES, context, generator=draw)
        series[:2] = series[:2].cumsum(1)
        series[:, :missing] = torch.nan
        series[3, missing] = torch.nan
        with torch.no_grad():
            expected = whole(series).numpy()
        found = network.quantiles(series.numpy())
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return worst


def weights_to_begin_from(name: str, architecture: Architecture) -> tuple[Chronos2Model, date | None]:
    """Weights of a folder, or the embedded ones, for more training, and the last day that they have seen, if known.

    Raises:
        ConfigError: when they are of another architecture.
        MemberError: when they cannot be loaded.
    """
    folder = EMBEDDED_FOLDER if name == EMBEDDED else locate(name, None)
    stated = StatedWeights.read(folder)
    if stated:
        stated.checked(CONFIG, WEIGHTS)  # what it says of them is handed on
    model: Chronos2Model = load_pipeline(folder, name, "cpu").inner_model
    wanted = untrained(architecture)
    have, asked = ({key: getattr(each.config, key) for key in _ARCHITECTURE} for each in (model, wanted))
    if have != asked:
        other = ", ".join(sorted(key for key in _ARCHITECTURE if have[key] != asked[key]))
        raise ConfigError(
            f"the weights of '{name}' are of another architecture than the configuration's ({other}); take over the"
            f" one that {folder / STATEMENT} tells"
        )
    wanted.load_state_dict(model.state_dict())
    return wanted, None if stated is None or stated.may_have_seen else stated.trained_until


def _write(file: Path, document: Mapping[str, Any]) -> None:
    unfinished = file.with_suffix(".new")
    unfinished.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(file)


class _FirstOfGroup(torch.nn.Module):
    """[Q, H] of the first of some series [R, C] that are one group."""

    def __init__(self, model: Chronos2Model, steps: int) -> None:
        super().__init__()
        self._model = model
        self._steps = steps
        self._patches = -(-steps // model.chronos_config.output_patch_size)

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        group = torch.zeros(context.shape[0], dtype=torch.long, device=context.device)
        answer = self._model(context=context, group_ids=group, num_output_patches=self._patches)
        first: torch.Tensor = answer.quantile_preds[0, :, : self._steps]
        return first


def _unrepeated(model: Any) -> Any:
    """The graph without the copies of a weight, one for each patch or series, that the exporter multiplies with.

    MatMul takes the one for all of them. onnxruntime would make the copies as it loads the graph: 40 MB for 3.
    """
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Expand" and node.input[0] in weights]:
        (copies,) = node.output
        users = [user for user in graph.node if copies in user.input]
        if all(user.op_type == "MatMul" and user.input[1] == copies for user in users):
            for user in users:
                user.input[1] = node.input[0]
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)  # shapes of the copies
    return model


def _halved(model: Any) -> Any:
    """The graph with its large weights stored in half precision, each with a cast to single before its use."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 256:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    for cast in reversed(casts):
        graph.node.insert(0, cast)
    for node in graph.node:  # where in torch it came from: a quarter of the file
        node.doc_string = ""
        del node.metadata_props[:]
    del graph.value_info[:]
    return model


@contextmanager
def _quietly() -> Iterator[None]:
    """Notes of the exporter on its own insides are not for our reader."""
    levels = {
        name: logging.getLogger(name).level
        for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")
    }
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
