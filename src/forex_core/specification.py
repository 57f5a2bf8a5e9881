"""A model as a plain JSON document: its recipe, and the state that it had learned by some day.

Whoever has the document and the code can compute the model's forecast of rows it has never seen. The code goes with
it (`carry_code`), so that a model keeps saying what it said after the code here has changed. The document is read
without the engine, which what computes imports when it does.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from forex_core.code import code_files
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.data.snapshot import inspect_snapshot, write_snapshot
from forex_core.errors import ConfigError, ForecastError, InputError
from forex_core.types import (
    LEVELS,
    PATH_STEPS,
    Array,
    Forecast,
    ForecastRun,
    Horizon,
    MarketBundle,
    Pair,
    RateKind,
    State,
)

if TYPE_CHECKING:
    from forex_core.cache import AnswerCache
    from forex_core.engine import Engine
    from forex_core.paths import Paths

FORMAT = 1
ANSWER_LIMIT_S = 1800.0
"""How long the code that a model carries may take; a cold pass takes minutes. Who waits holds the champion's lock."""
_DRIVER = "driver."
_RATE: TypeAdapter[RateKind | None] = TypeAdapter(RateKind | None)
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from forex_core.specification import answer_rows; answer_rows(*sys.argv[1:])"
)


def _library_versions() -> Mapping[str, str]:
    from forex_core.engine import library_versions

    return library_versions()


def _processor() -> str:
    from forex_core.cache import processor

    return processor()


@dataclass(frozen=True)
class Specification:
    """Recipe and state of one model.

    `rate` says which rate of the pair it forecasts, None where a document of before does not. `drivers` maps the name
    of each driver in the data that the state was learned from to its unit; `libraries` and `processor` are those it was
    learned with, on which the last digits of a recomputation hang.
    """

    pair: Pair
    rate: RateKind | None
    horizon: Horizon
    recipe: str
    engine_settings: Mapping[str, object]
    chronos_settings: Mapping[str, object]
    state: State
    drivers: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=_library_versions)
    processor: str = field(default_factory=_processor)

    def to_json(self) -> str:
        document = {
            "format": FORMAT,
            "pair": str(self.pair),
            "rate": self.rate,
            "horizon": str(self.horizon),
            "recipe": self.recipe,
            "engine": dict(self.engine_settings),
            "chronos": dict(self.chronos_settings),
            "state": {
                "trained_until": self.state.trained_until.isoformat(),
                "weights": dict(self.state.weights),
                "levels": list(LEVELS),
                "factors": self.state.factors.tolist(),
            },
            "drivers": dict(self.drivers),
            "libraries": dict(self.libraries),
            "processor": self.processor,
        }
        return json.dumps(document, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Specification:
        """What `to_json` wrote.

        Raises:
            InputError: the text is none, or of another format.
        """
        try:
            document: dict[str, Any] = json.loads(text)
            if document["format"] != FORMAT or tuple(document["state"]["levels"]) != LEVELS:
                raise InputError(
                    f"a specification of format {document['format']} cannot be read; expected format {FORMAT} with "
                    f"the levels {LEVELS}"
                )
            state = document["state"]
            factors = np.array(state["factors"], dtype=np.float64)
            if factors.shape != (PATH_STEPS, len(LEVELS)) or not (np.isfinite(factors) & (factors > 0)).all():
                raise ValueError(f"band factors of shape {factors.shape} that are not all positive numbers")
            weights = {str(name): float(weight) for name, weight in state["weights"].items()}
            if not (abs(sum(weights.values()) - 1) < 1e-9 and min(weights.values()) >= 0):
                raise ValueError(f"weights {weights}, expected shares that sum to one")
            return cls(
                pair=Pair.parse(document["pair"]),
                rate=_RATE.validate_python(document.get("rate")),
                horizon=Horizon.parse(document["horizon"]),
                recipe=str(document["recipe"]),
                engine_settings=dict(document["engine"]),
                chronos_settings=dict(document["chronos"]),
                state=State(date.fromisoformat(state["trained_until"]), weights, factors),
                drivers=dict(document["drivers"]),
                libraries=dict(document["libraries"]),
                processor=str(document["processor"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"this is no specification of a model ({type(error).__name__}: {reason}); expected the "
                "specification.json that a run logged"
            ) from error

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the frame that `forecast` takes."""
        return ("date", "spot", *(f"{_DRIVER}{name}" for name in self.drivers))

    @classmethod
    def of(
        cls, run: ForecastRun, bundle: MarketBundle, config: EngineConfig, chronos: ChronosConfig
    ) -> Specification:
        """Of a run over `bundle` by the engine of these settings, with the state that the run was made with."""
        return cls(
            pair=bundle.pair,
            rate=bundle.rate,
            horizon=run.horizon,
            recipe=run.recipe,
            engine_settings=config.model_dump(mode="json"),
            chronos_settings=chronos.model_dump(mode="json"),
            state=run.state,
            drivers=dict(zip(bundle.driver_names, bundle.driver_units, strict=True)),
        )

    def engine(self, cache: AnswerCache | None = None) -> Engine | None:
        """The engine of this recipe, None where the code that is running makes another one of these settings."""
        from forex_core.engine import Engine, build_members

        try:
            config = EngineConfig.model_validate(dict(self.engine_settings))
            chronos = ChronosConfig.model_validate(dict(self.chronos_settings))
            engine = Engine(config, build_members(config, chronos), cache=cache)
        except (ValidationError, ConfigError):  # settings or members of another day
            return None
        return engine if engine.recipe == self.recipe else None

    def forecast(self, frame: pd.DataFrame) -> Forecast:
        """The model's forecast of the last row of `frame`, computed from its rows.

        Args:
            frame: a row for each weekday, none left out, with `columns`: date, what was known of the spot rate on the
                morning after it, and of each driver (NaN before its first). As in a run's snapshot.parquet.

        Raises:
            InputError: rows or columns are not as expected.
            ForecastError: the running code is not that of the model, or a member cannot answer.
        """
        return self._own_engine.apply(self.bundle(frame), self.horizon, self.state)

    @cached_property
    def _own_engine(self) -> Engine:
        engine = self.engine()
        if engine is None:
            raise ForecastError(
                f"the code or the Chronos weights that are loaded do not make the model's recipe {self.recipe[:12]}; "
                "load the model in a fresh process, where the code that it carries comes first"
            )
        return engine

    def is_of(self, bundle: MarketBundle) -> bool:
        """Whether the bundle is of the rate that the model forecasts."""
        return self.rate in (None, bundle.rate)

    def with_weights_inside(self) -> Specification:
        """As `carry_code` leaves it: the weights of the neural member are where the package has its own.

        An identity hangs on weights and not on where they are, so the recipe is the same.
        """
        from forex_core.models.chronos_weights import EMBEDDED

        if not _stated_weights(self):
            return self
        return replace(self, chronos_settings={**self.chronos_settings, "model": EMBEDDED})

    def seen(self, bundle: MarketBundle) -> MarketBundle:
        """The bundle with the drivers that the state was learned with and no others, as `forecast` sees them."""
        kept = [k for k, name in enumerate(bundle.driver_names) if name in self.drivers]
        if len(kept) == len(bundle.driver_names):
            return bundle
        return replace(
            bundle,
            drivers=bundle.drivers[:, kept],
            driver_names=tuple(bundle.driver_names[k] for k in kept),
            driver_units=tuple(bundle.driver_units[k] for k in kept),
        )

    def bundle(self, frame: pd.DataFrame) -> MarketBundle:
        """The rows of a frame as a bundle.

        Raises:
            InputError: as `forecast`.
        """
        from forex_core.calendars import origin_instants

        missing = [name for name in self.columns if name not in frame.columns]
        if missing:
            raise InputError(
                f"the frame lacks {', '.join(missing)}; expected the columns {', '.join(self.columns)}"
            )
        try:
            days = pd.DatetimeIndex(pd.to_datetime(frame["date"])).as_unit("ns")
            spot = frame["spot"].to_numpy(dtype=np.float64)
            drivers = frame[list(self.columns[2:])].to_numpy(dtype=np.float64)
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"the frame holds what is no date or no number ({reason}); expected dates without a time zone, and "
                "numbers in the other columns"
            ) from error
        if not len(days) or days.tz is not None or days.hasnans or not days.equals(_weekdays(days)):
            raise InputError(
                f"the {len(days)} rows of the frame are not every weekday from the first to the last, in order; "
                "expected a row for each Monday to Friday, holidays with what was known before, dates without a time "
                "of day or a zone"
            )
        if not (np.isfinite(spot) & (spot > 0)).all():
            raise InputError(
                "the frame holds a spot rate that is no positive number; carry the close before it"
            )
        instants = origin_instants(self.pair, days)
        return MarketBundle(
            pair=self.pair,
            dates=days,
            instants=instants,
            spot=spot,
            truth=spot,
            truth_known=np.arange(len(days)),
            drivers=drivers,
            driver_names=tuple(self.drivers),
            driver_units=tuple(self.drivers.values()),
            as_of=instants[-1],
            rate=self.rate or "close",
        )


def frame_of(bundle: MarketBundle) -> pd.DataFrame:
    """The rows of a bundle as `Specification.forecast` takes them."""
    drivers = {f"{_DRIVER}{name}": bundle.drivers[:, k] for k, name in enumerate(bundle.driver_names)}
    return pd.DataFrame({"date": bundle.dates.to_numpy(), "spot": bundle.spot, **drivers})


def carry_code(folder: Path, specification: Specification | None = None) -> None:
    """Copy the code that a model computes with into `folder`, as a package that can be imported from there.

    Args:
        specification: the model's; weights that state what they are and that its recipe names are copied too, to where
            that package has its own.

    Raises:
        ForecastError: the files are not those that this process runs.
    """
    from forex_core.engine import RULES, rules_digest

    package = Path(__file__).parent
    copies = {path: path.relative_to(package) for path in code_files(package, "model")}
    weights = _stated_weights(specification) if specification else {}
    for path, place in (copies | weights).items():
        target = folder / package.name / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    replaced = rules_digest(folder / package.name) != RULES
    if replaced or (weights and specification is not None and specification.engine() is None):
        raise ForecastError(
            f"the code in {package} was replaced while this process ran the one of before; start it again"
        )


def _stated_weights(specification: Specification) -> dict[Path, Path]:
    """The files that the recipe's neural member reads, and where in the package they go; none of unstated weights."""
    from forex_core.models.chronos import ChronosForecaster
    from forex_core.models.chronos_weights import CONFIG, EMBEDDED_FOLDER, STATEMENT

    config = EngineConfig.model_validate(dict(specification.engine_settings))
    chronos = ChronosConfig.model_validate(dict(specification.chronos_settings))
    stated = ChronosForecaster(chronos.model).stated if "chronos" in config.members else None
    if stated is None:
        return {}
    inside = EMBEDDED_FOLDER.relative_to(Path(__file__).parent)
    names = (CONFIG, STATEMENT, stated.network_file(chronos.runtime, chronos.device))
    return {stated.folder / name: inside / name for name in names if (stated.folder / name).is_file()}


def may_have_seen(specification: Specification, code: Path) -> bool:
    """Whether the neural member's weights may have seen the outcomes that a model would be compared on.

    Args:
        code: folder that holds the package that the model carries, and with it weights that state what they are.
    """
    from forex_core.models.chronos import ChronosForecaster
    from forex_core.models.chronos_weights import EMBEDDED, EMBEDDED_FOLDER, STATEMENT

    chronos = specification.chronos_settings
    if "chronos" not in specification.state.weights or chronos.get("model") is None:
        return False
    if chronos["model"] != EMBEDDED:
        told = chronos.get("trained_until")
        until = None if told is None else date.fromisoformat(str(told))
        return ChronosForecaster(str(chronos["model"]), trained_until=until).may_have_seen
    package = Path(__file__).parent
    statement = code / package.name / EMBEDDED_FOLDER.relative_to(package) / STATEMENT
    try:
        document: dict[str, Any] = json.loads(statement.read_text(encoding="utf-8"))
    except FileNotFoundError:  # it computes with the weights of the package
        return False
    except ValueError:
        return True
    return bool(document.get("may_have_seen", True))


def paths_of(
    specification: Specification, code: Path, bundle: MarketBundle, cache_folder: Path | None
) -> Paths:
    """One pass over `bundle` by the recipe of a model: here where the code here makes it, else by the code it carries.

    Args:
        code: folder that holds the package that the model carries.
        cache_folder: where members' answers are kept.

    Raises:
        ForecastError: the model's code could not answer.
    """
    from forex_core.paths import Paths

    return Paths.from_arrays(bundle, _ask(specification, code, bundle, None, cache_folder))


def replay_of(
    specification: Specification,
    code: Path,
    bundle: MarketBundle,
    rows: npt.NDArray[np.int64],
    cache_folder: Path | None,
) -> Array:
    """[N, H, Q] what the model would have published at `rows` of `bundle` over the longest path, in its state of now.

    Raises:
        ForecastError: as `paths_of`.
    """
    return np.asarray(_ask(specification, code, bundle, rows, cache_folder)["replay"], dtype=np.float64)


def answer_rows(document: str, snapshot: str, rows: str, answer: str, cache_folder: str = "") -> None:
    """What another code is asked to do: its answers to the bundle in a file, as plain arrays in a file.

    With the name of a file of rows `replay`, else `Paths.arrays`: names and shapes that codes of different days agree
    on.
    """
    specification = Specification.from_json(Path(document).read_text(encoding="utf-8"))
    engine = specification.engine(_cache(Path(cache_folder) if cache_folder else None))
    if engine is None:
        raise ForecastError(
            "the code was altered since, or the Chronos weights are not those of then: it makes another recipe"
        )
    asked = np.load(rows) if rows else None
    np.savez(answer, **_answered(specification, engine, inspect_snapshot(Path(snapshot))[0], asked))


def _ask(
    specification: Specification,
    code: Path,
    bundle: MarketBundle,
    rows: npt.NDArray[np.int64] | None,
    cache_folder: Path | None,
) -> dict[str, Any]:
    bundle = specification.seen(bundle)
    engine = specification.engine(_cache(cache_folder))
    if engine is not None:
        return _answered(specification, engine, bundle, rows)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        document, snapshot, answer = (folder / n for n in ("spec.json", "bundle.parquet", "answer.npz"))
        document.write_text(specification.to_json(), encoding="utf-8")
        write_snapshot(bundle, snapshot)
        asked: Path | str = ""
        if rows is not None:
            asked = folder / "rows.npy"
            np.save(asked, rows)
        arguments = [code, document, snapshot, asked, answer, cache_folder or ""]
        # -B: a model's files stay as they were logged.
        command = [sys.executable, "-P", "-B", "-c", _PROGRAM, *map(str, arguments)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=ANSWER_LIMIT_S
            )
        except subprocess.TimeoutExpired as error:
            raise ForecastError(
                f"the code that recipe {specification.recipe[:12]} carries has not answered in {ANSWER_LIMIT_S:g} s "
                "and was ended; see what it waits for, or go back to another version ('forex rollback')"
            ) from error
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            raise ForecastError(
                f"the code that recipe {specification.recipe[:12]} carries could not answer: {said[-1]}"
            )
        with np.load(answer) as arrays:
            return dict(arrays)


def _answered(
    specification: Specification, engine: Engine, bundle: MarketBundle, rows: npt.NDArray[np.int64] | None
) -> dict[str, Any]:
    if rows is None:
        return dict(engine.paths_behind(bundle).arrays())
    return {"replay": engine.replay(bundle, rows, specification.state)}


def _weekdays(days: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(pd.bdate_range(days[0], days[-1])).as_unit("ns")


def _cache(folder: Path | None) -> AnswerCache | None:
    from forex_core.cache import AnswerCache

    return AnswerCache(folder, _library_versions()) if folder else None
