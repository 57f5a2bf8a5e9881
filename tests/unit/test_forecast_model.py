"""The model as a folder: plain text alone, with the code that it computes with, and usable where nothing of ours is."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import Engine, build_members
from forex_core.errors import ForecastError, TrackingError
from forex_core.models.chronos_weights import EMBEDDED_FOLDER, STATEMENT
from forex_core.paths import Paths
from forex_core.specification import Specification, carry_code, frame_of, paths_of, replay_of
from forex_core.testing import bundle_of, synthetic_table
from forex_core.tracking.packaging import read_model, save_model
from forex_core.types import ENSEMBLE, LEVELS, ForecastRun, Horizon, MarketBundle, State

WEEK = Horizon(7)
CONFIG = EngineConfig(members=("random_walk", "drivers", "momentum"), grid_origins=60, warmup_origins=8)
CHRONOS = ChronosConfig()
ROWS = 760
SITE_PACKAGES = next(path for path in sys.path if path.endswith("site-packages"))


@pytest.fixture(scope="module")
def run(bundle: MarketBundle) -> ForecastRun:
    return Engine(CONFIG, build_members(CONFIG, CHRONOS)).forecast(bundle, WEEK)


@pytest.fixture(scope="module")
def specification(run: ForecastRun, bundle: MarketBundle) -> Specification:
    return Specification.of(run, bundle, CONFIG, CHRONOS)


@pytest.fixture(scope="module")
def model(
    specification: Specification, bundle: MarketBundle, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return save_model(specification, frame_of(bundle), tmp_path_factory.mktemp("saved") / "model")


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def child(program: str, *arguments: object, isolated: bool = False) -> str:
    """What a program prints in a fresh process, where MLflow refuses to unpickle anything.

    `isolated`: it sees no .pth file, so nothing of the checkout.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    flags = ["-I", "-S", "-B"] if isolated else ["-P", "-B"]
    done = subprocess.run(
        [sys.executable, *flags, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- the folder --------------------------------------------------------------------------------------------


def test_a_model_is_a_megabyte_of_plain_text(model: Path) -> None:
    found = files(model)
    assert sum(map(len, found.values())) <= 1_000_000
    ours = {name for name in found if name.startswith("code/forex_core/")}
    assert {name.rpartition(".")[2] for name in ours} == {"py", "typed"}
    assert set(found) - ours == {
        "MLmodel",
        "artifacts/specification.json",
        "conda.yaml",
        "forecast_model.py",
        "input_example.json",
        "python_env.yaml",
        "requirements.txt",
        "serving_input_example.json",
    }
    for name, content in found.items():
        assert content.decode("utf-8").isprintable() or "\x00" not in content.decode("utf-8"), name
    described = yaml.safe_load(found["MLmodel"])
    assert described["flavors"]["python_function"]["loader_module"] == "mlflow.pyfunc.loaders.code_model"
    assert "python_model" not in described["flavors"]["python_function"], "the place of a pickle"
    assert described["metadata"]["pair"] == "USDCLP"


def test_its_document_is_the_specification(model: Path, specification: Specification) -> None:
    read, code = read_model(model)
    assert read.to_json() == specification.to_json()
    assert code == model / "code"


def test_its_requirements_are_pinned_and_name_whatever_its_code_imports(
    specification: Specification, bundle: MarketBundle, model: Path, tmp_path: Path
) -> None:
    weighed = State(
        specification.state.trained_until,
        {**dict.fromkeys(specification.state.weights, 0.0), "chronos": 1.0},
        specification.state.factors,
    )
    neural = save_model(replace(specification, state=weighed), frame_of(bundle), tmp_path / "neural")
    pins = {}
    for folder in (model, neural):
        lines = (folder / "requirements.txt").read_text().split()
        pins[folder] = dict(line.split("==") for line in lines)
        assert all(version(name) == pinned for name, pinned in pins[folder].items())
    distributions = packages_distributions()
    needed = {
        distributions[top][0].replace("_", "-")
        for path in (neural / "code").rglob("*.py")
        for top in imported(path)
        if top not in sys.stdlib_module_names and top != "forex_core"
    }
    assert needed <= set(pins[neural])
    only_neural = {
        "onnxruntime",
        "torch",
        "chronos-forecasting",
        "transformers",
        "huggingface-hub",
        "safetensors",
    }
    assert set(pins[neural]) - set(pins[model]) == only_neural


def imported(path: Path) -> Iterator[str]:
    """First part of whatever a file imports, at its top or later."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_saving_reads_the_files_of_no_other_package(
    specification: Specification, bundle: MarketBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow has a look at all of them, more than a second, when it checks whether requirements are installed."""
    import importlib_metadata
    from mlflow.utils import environment, requirements_utils

    read: list[dict[str, list[str]]] = [{}]
    monkeypatch.setattr(importlib_metadata, "packages_distributions", read.pop)
    monkeypatch.setattr(requirements_utils, "_MODULES_TO_PACKAGES", None)
    looking = environment.warn_dependency_requirement_mismatches
    save_model(specification, frame_of(bundle), tmp_path / "model")
    assert len(read) == 1
    assert environment.warn_dependency_requirement_mismatches is looking


def test_files_that_are_missing_or_damaged_are_told(
    specification: Specification, bundle: MarketBundle, tmp_path: Path
) -> None:
    model = save_model(specification, frame_of(bundle), tmp_path / "model")
    carried = model / "code" / "forex_core" / "specification.py"
    content = carried.read_text()
    carried.unlink()
    with pytest.raises(TrackingError, match=r"lacks MLmodel or its code; restore its files"):
        read_model(model)
    carried.write_text(content)
    read_model(model)
    document = model / "artifacts" / "specification.json"
    text = document.read_text()
    for damaged in (text[: len(text) // 2], "", "\x00" * 100):
        document.write_text(damaged)
        with pytest.raises(TrackingError, match=r"cannot be used: .* restore its files, or choose another"):
            read_model(model)
    document.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrackingError, match="cannot be used"):
        read_model(model)
    document.unlink()
    with pytest.raises(TrackingError, match="cannot be used"):
        read_model(model)


def test_a_folder_that_cannot_be_written_is_told(
    specification: Specification, bundle: MarketBundle, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrackingError, match="the model cannot be written into"):
        save_model(specification, frame_of(bundle), tmp_path / "file" / "model")


# ---- loaded by MLflow in a fresh process -------------------------------------------------------------------

PREDICT = """
import inspect, json, sys
import mlflow.pyfunc
import pandas as pd
folder, frame, answers = sys.argv[1:]
model = mlflow.pyfunc.load_model(folder)
import forex_core
told = {"forex_core": forex_core.__file__}
told["script"] = inspect.getfile(type(model.unwrap_python_model()))
told["signature"] = model.metadata.signature.to_dict()
example = model.metadata.load_input_example(folder)
told["example_rows"] = len(example)
model.predict(example).to_parquet(answers + "/example.parquet")
rows = pd.read_parquet(frame)
model.predict(rows).to_parquet(answers + "/one_more.parquet")
for change in ("spot", "date"):
    try:
        model.predict(rows.drop(columns=change))
    except Exception as error:
        told["without " + change] = f"{type(error).__name__}: {error}"
try:
    model.predict(rows.drop(index=100))
except Exception as error:
    told["gap"] = f"{type(error).__name__}: {error}"
print(json.dumps(told))
"""


@pytest.mark.slow
def test_a_fresh_process_computes_with_the_code_that_the_model_carries(
    model: Path,
    specification: Specification,
    run: ForecastRun,
    bundle: MarketBundle,
    following: MarketBundle,
    tmp_path: Path,
) -> None:
    frame_of(following).to_parquet(tmp_path / "frame.parquet")
    before = files(model)
    told = json.loads(child(PREDICT, model, tmp_path / "frame.parquet", tmp_path))
    assert files(model) == before
    assert told["forex_core"] == str(model / "code" / "forex_core" / "__init__.py")
    assert told["script"] == str(model / "forecast_model.py")

    found = pd.read_parquet(tmp_path / "one_more.parquet")
    engine = specification.engine()
    assert engine is not None
    expected = engine.apply(following, WEEK, run.state)
    assert found.columns.tolist() == ["target_date", "step", *map(str, LEVELS)]
    assert found["target_date"].dt.date.tolist() == list(expected.target_dates)
    assert found["step"].tolist() == list(expected.steps)
    quantiles = found[list(map(str, LEVELS))].to_numpy()
    np.testing.assert_allclose(quantiles, expected.quantiles, rtol=1e-9)
    assert np.abs(quantiles[0] / run.forecast.quantiles[0] - 1).max() > 1e-6

    # The example is of the last rows, on which members that remember further back say something else.
    example = pd.read_parquet(tmp_path / "example.parquet")
    assert told["example_rows"] == 400
    short = specification.forecast(frame_of(bundle).tail(400))
    np.testing.assert_allclose(example[list(map(str, LEVELS))].to_numpy(), short.quantiles, rtol=1e-9)

    names = [field["name"] for field in json.loads(told["signature"]["inputs"])]
    assert names == list(specification.columns)
    outputs = json.loads(told["signature"]["outputs"])
    assert [field["name"] for field in outputs] == found.columns.tolist()
    assert [field["type"] for field in outputs] == ["datetime", "long", *["double"] * len(LEVELS)]
    assert "spot" in told["without spot"]
    assert "date" in told["without date"]
    assert told["gap"].startswith("InputError: the 760 rows of the frame are not every weekday")


# ---- the code that it carries ------------------------------------------------------------------------------

ALONE = """
import sys
code, site_packages, document, frame, answer = sys.argv[1:]
sys.path.insert(0, code)
sys.path.append(site_packages)
from forex_core.specification import Specification
import numpy as np, pandas as pd
found = Specification.from_json(open(document).read()).forecast(pd.read_parquet(frame))
np.save(answer, found.quantiles)
print(*sorted({m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] == "forex_core"}), sep="\\n")
"""


def test_the_carried_code_is_all_that_a_forecast_needs(tmp_path: Path) -> None:
    """In a process that has the folder and third parties' packages, and nothing of the checkout.

    Every module of members is imported there, and the neural member answers by weights that are carried along.
    """
    bundle = bundle_of(synthetic_table(ROWS, start="2018-06-01"))
    config = CONFIG.model_copy(update={"members": (*CONFIG.members, "chronos")})
    state = State(bundle.origin, dict.fromkeys(config.members, 1 / 4), np.full((64, len(LEVELS)), 1.1))
    engine = Engine(config, build_members(config, CHRONOS))
    drivers = dict(zip(bundle.driver_names, bundle.driver_units, strict=True))
    specification = Specification(
        bundle.pair, bundle.rate, WEEK, engine.recipe, config.model_dump(mode="json"), {}, state, drivers
    )
    carry_code(tmp_path / "code", specification)
    (tmp_path / "specification.json").write_text(specification.to_json())
    frame_of(bundle).to_parquet(tmp_path / "frame.parquet")
    places = ("code", "specification.json", "frame.parquet", "answer.npy")
    code, document, frame, answer = (tmp_path / name for name in places)
    used = child(ALONE, code, SITE_PACKAGES, document, frame, answer, isolated=True).split()
    assert {str(p) for p in (code / "forex_core" / "models").glob("*.py")} <= set(used)
    assert all(path.startswith(f"{code}/forex_core/") for path in used)
    np.testing.assert_array_equal(np.load(answer), engine.apply(bundle, WEEK, state).quantiles)


@pytest.mark.slow
def test_weights_of_a_folder_go_with_the_model_and_may_be_gone_then(tmp_path: Path) -> None:
    """As registered ones, which are fetched into a folder that may be emptied at any time."""
    bundle = bundle_of(synthetic_table(ROWS, start="2018-06-01"))
    folder = Path(shutil.copytree(EMBEDDED_FOLDER, tmp_path / "fetched"))
    told = json.loads((folder / STATEMENT).read_text())
    (folder / STATEMENT).write_text(
        json.dumps(told | {"trained_until": "2018-01-31"})
    )  # others than the package's
    config = CONFIG.model_copy(update={"members": (*CONFIG.members, "chronos")})
    chronos = ChronosConfig(model=str(folder))
    engine = Engine(config, build_members(config, chronos))
    found = engine.forecast(bundle, WEEK)
    assert not found.failures
    saved = save_model(Specification.of(found, bundle, config, chronos), frame_of(bundle), tmp_path / "model")
    shutil.rmtree(folder)
    specification, code = read_model(saved)
    assert specification.recipe == engine.recipe
    assert str(folder) not in specification.to_json()
    assert specification.engine() is None, "this package has other weights"
    paths = paths_of(specification, code, bundle, None)
    assert not paths.failures
    again = paths.run(WEEK, found.state)
    np.testing.assert_array_equal(again.forecast.quantiles, found.forecast.quantiles)


def test_whatever_the_carried_code_imports_of_ours_is_carried(tmp_path: Path) -> None:
    carry_code(tmp_path)
    package = tmp_path / "forex_core"
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("forex_core"):
                place = tmp_path / str(node.module).replace(".", "/")
                assert place.with_suffix(".py").is_file() or (place / "__init__.py").is_file(), node.module
                for alias in node.names if (place / "__init__.py").is_file() else ():
                    assert (place / f"{alias.name}.py").is_file() or alias.name in (
                        place / "__init__.py"
                    ).read_text()


RECIPE = """
import sys
sys.path.insert(0, sys.argv[1])
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import Engine, build_members
config = EngineConfig.model_validate_json(sys.argv[2])
print(Engine(config, build_members(config, ChronosConfig())).recipe)
"""


@pytest.fixture(scope="module")
def other_code(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Code with another constant in one member, and the recipe that it makes."""
    code = tmp_path_factory.mktemp("other") / "code"
    carry_code(code)
    edited = code / "forex_core" / "models" / "driver_regression.py"
    assert edited.read_text().count("\nMOMENTUM_RIDGE = 1.0\n") == 1
    edited.write_text(edited.read_text().replace("\nMOMENTUM_RIDGE = 1.0\n", "\nMOMENTUM_RIDGE = 9.0\n"))
    return code, child(RECIPE, code, CONFIG.model_dump_json()).strip()


def with_the_constant(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine as the edited code makes it, by hand in this process."""
    import forex_core.models.driver_regression as module

    monkeypatch.setattr(module, "MOMENTUM_RIDGE", 9.0)
    return Engine(CONFIG, build_members(CONFIG, CHRONOS))


@pytest.mark.slow
def test_a_model_of_other_code_is_answered_by_that_code(
    specification: Specification,
    bundle: MarketBundle,
    other_code: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, recipe = other_code
    assert recipe != specification.recipe
    stranger = replace(specification, recipe=recipe)
    assert stranger.engine() is None
    before = files(code)
    rows = np.array([520, 600, ROWS - 1])
    answered = paths_of(stranger, code, bundle, tmp_path / "kept")
    assert list((tmp_path / "kept").rglob("*.answers")), (
        "its answers are kept as those of the running code are"
    )
    replayed = replay_of(stranger, code, bundle, rows, None)
    assert files(code) == before, "the files of a model stay as they were logged"

    here = paths_of(specification, code, bundle, None)
    assert np.abs(answered.quantiles["momentum"] / here.quantiles["momentum"] - 1).max() > 1e-5
    assert (answered.weights != here.weights).any()
    assert (replayed != replay_of(specification, code, bundle, rows, None)).any()
    np.testing.assert_array_equal(answered.quantiles["drivers"], here.quantiles["drivers"])

    speaker = with_the_constant(monkeypatch)
    by_hand = speaker.paths(bundle, speaker.rows_behind(bundle))
    same_pass(answered, by_hand)
    np.testing.assert_array_equal(replayed, speaker.replay(bundle, rows, specification.state))
    published = answered.run(WEEK, specification.state)
    assert published.recipe == recipe
    np.testing.assert_array_equal(
        published.forecast.quantiles, speaker.apply(bundle, WEEK, specification.state).quantiles
    )


def same_pass(one: Paths, other: Paths) -> None:
    arrays, others = one.arrays(), other.arrays()
    assert set(arrays) == set(others)
    for name in set(arrays) - {"meta"}:
        np.testing.assert_array_equal(arrays[name], others[name], err_msg=name)
    assert set(one.quantiles) == {*CONFIG.members, ENSEMBLE}


@pytest.mark.slow
def test_this_process_and_another_answer_the_same_bits(
    specification: Specification, bundle: MarketBundle, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.array([400, ROWS - 1])
    here = paths_of(specification, model / "code", bundle, None)
    replayed = replay_of(specification, model / "code", bundle, rows, None)

    def nowhere_in_process(*_: Any, **__: Any) -> None:
        return None

    monkeypatch.setattr(Specification, "engine", nowhere_in_process)
    same_pass(paths_of(specification, model / "code", bundle, None), here)
    np.testing.assert_array_equal(replay_of(specification, model / "code", bundle, rows, None), replayed)


@pytest.mark.slow
def test_code_that_does_not_make_its_recipe_is_refused(
    specification: Specification, bundle: MarketBundle, other_code: tuple[Path, str], tmp_path: Path
) -> None:
    code = other_code[0]
    stranger = replace(specification, recipe="ab" * 32)
    said = r"the code that recipe abababababab carries could not answer: .*altered.*makes another recipe"
    with pytest.raises(ForecastError, match=said):
        paths_of(stranger, code, bundle, None)
    carry_code(tmp_path / "broken")
    (tmp_path / "broken" / "forex_core" / "engine.py").write_text("def")
    with pytest.raises(ForecastError, match=r"could not answer: SyntaxError"):
        paths_of(stranger, tmp_path / "broken", bundle, None)
