"""A forecast model as the folder that MLflow logs, and the way back from there. JSON and source code, no pickle."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from forex_core.errors import InputError, TrackingError
from forex_core.specification import Specification, carry_code
from forex_core.tracking.store import local_path, quiet, translated
from forex_core.types import LEVELS

MODEL = "model"
"""Name of the model that a forecast run logs."""

DOCUMENT = "specification.json"
MODEL_FILES = (f"artifacts/{DOCUMENT}", "code/forex_core/specification.py")
"""Without which, beside MLmodel, a model of ours cannot be used."""
_SCRIPT = Path(__file__).with_name("forecast_model.py")
_EXAMPLE_ROWS = 400
_REQUIRED = (
    "mlflow",
    "numpy",
    "pandas",
    "scipy",
    "pyarrow",
    "filelock",
    "holidays",
    "tzdata",
    "loguru",
    "pydantic",
    "pydantic-settings",
    "python-dotenv",
    "threadpoolctl",
    "statsmodels",
    "arch",
    "scikit-learn",
)
_FOR_CHRONOS = (
    "onnxruntime",
    "torch",
    "chronos-forecasting",
    "transformers",
    "huggingface-hub",
    "safetensors",
)


def import_mlflow() -> None:
    """Import now what `save_model` imports on first use, for a caller that has the time."""
    with _without_advice():
        importlib.import_module("mlflow.pyfunc")


def save_model(specification: Specification, frame: pd.DataFrame, folder: Path) -> Path:
    """Write the model into `folder`, which is new, and return it.

    Args:
        frame: rows as `Specification.forecast` takes them; the last of them become the input example.

    Raises:
        TrackingError: MLflow could not write it.
    """
    with _without_advice():
        import mlflow.pyfunc
        from mlflow.exceptions import MlflowException
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, DataType, Schema, TensorSpec

        inputs: list[ColSpec | TensorSpec] = [
            ColSpec(DataType.datetime, "date"),
            *(ColSpec(DataType.double, name) for name in specification.columns[1:]),
        ]
        outputs: list[ColSpec | TensorSpec] = [
            ColSpec(DataType.datetime, "target_date"),
            ColSpec(DataType.long, "step"),
            *(ColSpec(DataType.double, str(level)) for level in LEVELS),
        ]
        names = (*_REQUIRED, *(_FOR_CHRONOS if "chronos" in specification.state.weights else ()))
        with tempfile.TemporaryDirectory() as scratch:
            document = Path(scratch) / DOCUMENT
            document.write_text(specification.with_weights_inside().to_json(), encoding="utf-8")
            carry_code(Path(scratch) / "code", specification)
            try:
                with _requirements_as_given():
                    mlflow.pyfunc.save_model(
                        folder,
                        python_model=str(_SCRIPT),
                        artifacts={"specification": str(document)},
                        code_paths=[str(Path(scratch) / "code" / "forex_core")],
                        signature=ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs)),
                        input_example=frame[list(specification.columns)]
                        .tail(_EXAMPLE_ROWS)
                        .reset_index(drop=True),
                        pip_requirements=[f"{name}=={version(name)}" for name in names],
                        metadata={"recipe": specification.recipe, "pair": str(specification.pair)},
                    )
            except (MlflowException, OSError) as error:
                raise TrackingError(f"the model cannot be written into {folder}: {error}") from error
    return folder


def copy_model(source: Path, specification: Specification, folder: Path) -> Path:
    """The model in `source`, with the code that it carries, with another specification, in `folder`, which is new.

    Raises:
        TrackingError: it could not be written.
    """
    try:
        shutil.copytree(source, folder)
        (folder / "artifacts" / DOCUMENT).write_text(specification.to_json(), encoding="utf-8")
    except OSError as error:
        raise TrackingError(f"the model cannot be written into {folder}: {error}") from error
    return folder


def read_model(folder: Path) -> tuple[Specification, Path]:
    """The specification of a model in `folder`, and the folder of the code that it carries.

    Raises:
        TrackingError: files are missing or damaged.
    """
    document, code = folder / "artifacts" / DOCUMENT, folder / "code"
    try:
        specification = Specification.from_json(document.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, InputError) as error:
        raise TrackingError(
            f"the model in {folder} cannot be used: {error}; restore its files, or choose another version"
        ) from error
    if not all((folder / name).is_file() for name in ("MLmodel", *MODEL_FILES)):
        raise TrackingError(
            f"the model in {folder} lacks MLmodel or its code; restore its files, or choose another version"
        )
    return specification, code


def has_mlmodel(store: str, place: str) -> bool:
    """Whether the files of a model are at `place`, local or remote, as far as its MLmodel tells.

    Args:
        store: address of the tracking store, which may be what hands out the files.

    Raises:
        TrackingUnavailable: a remote place cannot be reached.
    """
    from mlflow.artifacts import list_artifacts

    folder = local_path(place)
    if folder is not None:
        return (folder / "MLmodel").is_file()
    with translated(store):
        found = list_artifacts(artifact_uri=place, tracking_uri=store)
    return any(item.path.rpartition("/")[2] == "MLmodel" for item in found)


def fetched(store: str, place: str, folder: Path) -> Path | None:
    """The files of a model at a remote `place`, copied into `folder`; None where there are none.

    Raises:
        TrackingUnavailable: the place cannot be reached.
    """
    from mlflow.artifacts import download_artifacts

    # A download of what is not there fails like one from a store that is out of reach.
    if not has_mlmodel(store, place):
        return None
    with translated(store):
        return Path(download_artifacts(artifact_uri=place, dst_path=str(folder), tracking_uri=store))


@contextmanager
def _requirements_as_given() -> Iterator[None]:
    """MLflow does not look whether the requirements are installed, which were read from what is installed.

    It would read the files of every package of the environment for that, more than a second of each forecast.
    """
    from mlflow.utils import environment

    name = "warn_dependency_requirement_mismatches"
    looking = getattr(environment, name, None)  # not part of what MLflow promises
    if looking is None:
        yield
        return
    setattr(environment, name, lambda _: None)
    try:
        yield
    finally:
        setattr(environment, name, looking)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Without MLflow's advice on type hints, of its own classes and of ours, and without what its pandas is told."""
    quiet()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*[Tt]ype hint", UserWarning)
        warnings.filterwarnings("ignore", "Operation with range is deprecated")
        yield
