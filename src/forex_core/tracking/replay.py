"""A published forecast made again, and compared with what was published.

At the level `stored` from the members' answers, weights and band factors that the run kept, which is exact anywhere;
at the level `recomputed` from the run's data snapshot and the specification of the model that was published, with no
answer taken from a cache. That is exact on the same image, processor and settings of numerical libraries; elsewhere
the last digits differ, by less than `CLOSE`.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from forex_core import ensemble
from forex_core.cache import processor
from forex_core.calendars import target_dates
from forex_core.data.snapshot import inspect_snapshot
from forex_core.engine import library_versions
from forex_core.errors import ForexError, InputError, SourceError, TrackingError
from forex_core.models.chronos_weights import EMBEDDED
from forex_core.paths import Paths
from forex_core.specification import Specification, paths_of
from forex_core.tracking import queries
from forex_core.tracking.packaging import MODEL, fetched, read_model
from forex_core.tracking.registry import Registry, model_name
from forex_core.tracking.store import local_path, translated
from forex_core.types import LEVELS, Array, Forecast, ForecastRun, Horizon, MarketBundle, Pair, State

if TYPE_CHECKING:
    from mlflow.entities import Run

CLOSE = 1e-5
"""Relative difference that another processor or another version of a library may make."""

LEARNED_ALIKE = 1e-9
"""Difference of weights, and relative one of band factors, that no rounded price shows."""

LEARNED_CLOSE = 1e-3
"""The same where the surroundings are others: weights answer to a change of the members' errors some 200 times over."""

NOISE = 1e-12
"""Relative difference of two computations of one number; it may round to either side."""

Level = Literal["stored", "recomputed"]
Outcome = Literal["exact", "close", "different", "impossible"]
Advance = Callable[[str, int, int], None]
"""Called with what is done next, how much is done, of how much."""

T = TypeVar("T")
_SEARCHED = 500
"""Newest runs among which one of the champion is looked for."""
_FORECAST, _MEMBERS, _SNAPSHOT = (
    f"reports/{name}" for name in ("forecast.json", "members.json", "snapshot.parquet")
)
_OF_CHRONOS = frozenset({"torch", "chronos-forecasting", "transformers", "onnxruntime"})
_BROKEN_DATA = (ArithmeticError, ValueError, LookupError)
"""What computing from rows that no run ever had may raise, beside our own errors."""


@dataclass(frozen=True)
class Difference:
    """A stored number beside the one made again. `relative` to the stored one; of weights, which sum to one, the plain
    difference.

    `what` is 'quantile', 'mean', 'std', 'weight of NAME' or 'band factor of step N'; `target_date` and quantile
    `level` where it has one.
    """

    what: str
    target_date: date | None
    level: float | None
    stored: float
    again: float
    relative: float


@dataclass(frozen=True)
class Reproduction:
    """What came of one level.

    `outcome`: 'exact' (equal when rounded to 1e-6, see `Forecast.rounded`), 'close' (within `CLOSE`; recomputed alone),
    'different' (past that, or made from altered data), 'impossible' (for the reason among the causes). `numbers` is how
    many were compared with `compared_with`, `largest` their largest difference and `learned` that of weights and
    factors to the specification's, None where there is none. `causes` are what is not as it was then, with or without
    an effect.
    """

    level: Level
    outcome: Outcome
    compared_with: str | None = None
    numbers: int = 0
    largest: Difference | None = None
    learned: Difference | None = None
    causes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return self.outcome in ("exact", "close")


@dataclass(frozen=True)
class Replay:
    """A run replayed at the levels that were asked for. `model` says whose forecast was published."""

    run_id: str
    pair: Pair
    horizon: Horizon
    origin: date | None
    model: str
    reproductions: tuple[Reproduction, ...]

    @property
    def holds(self) -> bool:
        """Whether every level that was asked for replays the published numbers."""
        return all(one.holds for one in self.reproductions)


def replay(
    registry: Registry,
    run_id: str,
    levels: tuple[Level, ...] = ("stored", "recomputed"),
    advance: Advance | None = None,
) -> Replay:
    """Make the forecast that a run published again.

    Args:
        run_id: the run, or the beginning of its id.

    Raises:
        InputError: no such run, or it did not publish a forecast.
        TrackingError: the store cannot be read.
    """
    advance = advance or (lambda stage, done, total: None)
    with translated(registry.uri):
        found = queries.run(registry.client, run_id)
        run = registry.client.get_run(found.id)
    if run.info.status != "FINISHED" or not {"pair", "horizon"} <= set(run.data.tags):
        reason = f": {found.error}" if found.error else ""
        raise InputError(
            f"run {found.id} published no forecast (it is {run.info.status}{reason}); give a finished run of "
            "forex runs list"
        )
    total = len(levels) + 1
    with tempfile.TemporaryDirectory() as scratch:
        advance("reading what was published", 0, total)
        again = _Replayer(registry, run, {file.path for file in found.artifacts or ()}, Path(scratch))
        if not again.is_forecast:
            raise InputError(
                f"run {found.id} has neither a forecast nor data to make one of; give a run of a forecast, as forex "
                "runs list shows them"
            )
        made = []
        for done, level in enumerate(levels, start=1):
            advance("from stored answers" if level == "stored" else "computing again", done, total)
            made.append(again.stored() if level == "stored" else again.recomputed())
        advance("done", total, total)
        return Replay(found.id, again.pair, again.horizon, again.origin, again.model, tuple(made))


def last_published(registry: Registry) -> dict[str, str | None]:
    """Of each champion, by registered model, the newest run that published its forecast; None where none has.

    Raises:
        TrackingError: the store cannot be read.
    """
    found: dict[str, str | None] = {}
    with translated(registry.uri):
        champions = [row for row in queries.models(registry.client) if "champion" in row.aliases]
        for row in champions:
            pair, _, horizon = row.name.rpartition("-")
            try:
                asked = Pair.parse(pair), Horizon.parse(horizon)
            except InputError:
                continue  # a model of somebody else's
            runs = queries.runs(registry.client, *asked, last=_SEARCHED, status="FINISHED")
            found[row.name] = next((run.id for run in runs if run.published_version == row.version), None)
    return found


@dataclass(frozen=True)
class _Answers:
    """What `members.json` holds: raw answers [M, H, Q] by member, weights, and factors [H, Q]."""

    levels: tuple[float, ...]
    raw: Mapping[str, Array]
    weights: Mapping[str, float]
    factors: Array

    @classmethod
    def of(cls, text: str) -> _Answers:
        """Raises ValueError where it is none."""
        document = json.loads(text)
        members: Mapping[str, Any] = document["members"]
        found = cls(
            levels=tuple(map(float, document["levels"])),
            raw={name: np.array(one["raw"], dtype=np.float64) for name, one in members.items()},
            weights={name: float(one["weight"]) for name, one in members.items()},
            factors=np.array(document["band_factors"], dtype=np.float64),
        )
        shapes = {found.factors.shape, *(raw.shape for raw in found.raw.values())}
        if len(shapes) != 1 or not members or found.factors.shape[1:] != (len(found.levels),):
            raise ValueError(f"arrays of shapes {sorted(shapes)}")
        return found

    def quantiles(self) -> Array:
        """[H, Q] published prices."""
        return ensemble.published(
            np.stack(list(self.raw.values())),
            np.array(list(self.weights.values())),
            self.factors,
            self.levels.index(0.5),
        )


class _Replayer:
    """One run with what is left of it.

    `faults` says of each file that it has and cannot use, why.
    """

    def __init__(self, registry: Registry, run: Run, files: set[str], scratch: Path) -> None:
        self._registry = registry
        self._run = run
        self._files = files
        self._scratch = scratch
        self._tags: Mapping[str, str] = run.data.tags
        self._params: Mapping[str, str] = run.data.params
        self.pair = Pair.parse(self._tags["pair"])
        self.horizon = Horizon.parse(self._tags["horizon"])
        self.faults: dict[str, str] = {}
        self._answers = self._read(_MEMBERS, _Answers.of)
        self._forecast = self._read(_FORECAST, self._forecast_of)
        self._digest = self._tags.get("published_digest")

    @property
    def is_forecast(self) -> bool:
        return bool(self._files & {_FORECAST, _MEMBERS, _SNAPSHOT}) or "forecast_mean" in self._params

    @property
    def origin(self) -> date | None:
        if self._forecast is not None:
            return self._forecast.origin
        text = self._params.get("origin")
        return date.fromisoformat(text) if text else None

    @property
    def _name(self) -> str:
        """Registered name of the model that was published."""
        return self._tags.get("published_model") or model_name(self.pair, self.horizon)

    @cached_property
    def _other_version(self) -> int | None:
        """Number of the version that was published, None where the run made it."""
        published = self._tags.get("published_version", "")
        if not published.isdecimal():
            return None
        try:
            version = self._registry.version(self._name, int(published))
        except InputError:
            return int(published)  # deleted since; who made it is not known
        return None if version.run_id == self._run.info.run_id else version.number

    @property
    def model(self) -> str:
        """What was published, in words."""
        published = self._tags.get("published_version", "")
        if not published.isdecimal():
            return "the model that the run made"
        made = ", made by the run" if self._other_version is None else ""
        return f"{self._name} version {published}{made}"

    # --- the two levels

    def stored(self) -> Reproduction:
        """From the members' answers that were stored."""
        if self._answers is None:
            return Reproduction("stored", "impossible", causes=(self._lacks(_MEMBERS),))
        answers = self._answers
        try:
            with np.errstate(all="ignore"):
                quantiles = answers.quantiles()
            made = self._made(quantiles, answers.levels)
        except ValueError as error:
            return Reproduction(
                "stored", "impossible", causes=(f"{_MEMBERS} makes no forecast: {error}; it was altered",)
            )
        if made is None:
            reason = f"{self._lacks(_FORECAST)}; without it the target dates are not known"
            return Reproduction("stored", "impossible", causes=(reason,))
        found = self._compared("stored", made)
        if found.outcome == "close":  # nothing of another machine enters here
            found = replace(found, outcome="different")
        if found.outcome == "different" and self._forecast and self._forecast.digest == self._digest:
            found = replace(
                found, causes=(*found.causes, f"{_MEMBERS} was altered after the run: {_FORECAST} was not")
            )
        return found

    def recomputed(self) -> Reproduction:
        """From the data and the specification of what was published."""
        try:
            specification, code, then = self._specifications()
            bundle, fault = self._snapshot()
        except (TrackingError, SourceError) as error:
            return Reproduction("recomputed", "impossible", causes=(str(error),))
        own = self._other_version is None
        causes = [*([fault] if fault else []), *self._other_recipe(specification)]
        try:
            run, learned = self._computed(specification, code, bundle, None if own else specification.state)
        except ForexError as error:
            causes += [str(error), *_weights_gone(specification)]
            return Reproduction("recomputed", "impossible", causes=tuple(causes))
        except _BROKEN_DATA as error:
            if not fault:
                raise
            reason = f"nothing can be computed from it: {type(error).__name__}: {error}"
            return Reproduction("recomputed", "impossible", causes=(*causes, reason))
        found = self._compared("recomputed", run.forecast)
        state = _state_difference(specification.state, learned) if own else None
        outcome = found.outcome
        surroundings = list(_surroundings(then))
        allowed = LEARNED_CLOSE if surroundings or outcome == "close" else CLOSE
        if state is not None and outcome in ("exact", "close"):
            outcome = "close" if state.relative <= allowed else "different"
        if causes and outcome != "impossible":
            # Equal numbers do not make it the run's data or the run's model.
            outcome = "different"
        if state is not None and state.relative > allowed and not fault:
            causes.append(
                f"the specification does not hold what was learned: {state.what} is {state.stored:.6g} there, learned "
                f"again {state.again:.6g}"
            )
        causes += surroundings
        if outcome != "exact":
            causes += [*found.causes, *self._members_apart(run)]
        if outcome in ("close", "different") and not causes:
            causes.append(
                "none found: libraries, processor, code, weights of Chronos and snapshot are those of then; the "
                "specification or the record of the forecast may have been altered"
            )
        return replace(found, outcome=outcome, learned=state, causes=tuple(causes))

    def _computed(
        self, specification: Specification, code: Path, bundle: MarketBundle, state: State | None
    ) -> tuple[ForecastRun, State]:
        """The run made again, and the state that its pass learned."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # Altered rows may be no prices at all; what comes of them is in the result.
            warnings.simplefilter("ignore", RuntimeWarning)
            paths: Paths = paths_of(specification, code, bundle, cache_folder=None)
            return paths.run(self.horizon, state), paths.state

    # --- what the run has left

    def _local(self, name: str) -> Path:
        """A file of the run, fetched where it is remote."""
        folder = local_path(self._run.info.artifact_uri)
        if folder is not None:
            return folder / name
        with translated(self._registry.uri):
            return Path(
                self._registry.client.download_artifacts(self._run.info.run_id, name, str(self._scratch))
            )

    def _read(self, name: str, parse: Callable[[str], T]) -> T | None:
        if name not in self._files:
            return None
        try:
            return parse(self._local(name).read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            reason = " ".join(str(error).split())[:200]
            self.faults[name] = f"{name} cannot be read ({type(error).__name__}: {reason}); it was altered"
            return None

    def _lacks(self, name: str) -> str:
        return self.faults.get(name, f"the run has no {name}")

    def _forecast_of(self, text: str) -> Forecast:
        document = json.loads(text)
        levels = tuple(sorted(map(float, document["quantiles"])))
        by_level = {float(level): values for level, values in document["quantiles"].items()}
        return Forecast(
            Pair.parse(document["pair"]),
            date.fromisoformat(document["origin"]),
            tuple(map(date.fromisoformat, document["target_dates"])),
            tuple(map(int, document["steps"])),
            levels,
            np.array([by_level[level] for level in levels], dtype=np.float64).T,
        )

    def _made(self, quantiles: Array, levels: tuple[float, ...]) -> Forecast | None:
        """Quantiles as a forecast; None where the dates that they are of are not known."""
        if self._forecast is not None:
            return replace(self._forecast, levels=levels, quantiles=quantiles)
        if self.origin is None:
            return None
        steps, days = zip(*target_dates(self.pair, self.origin, self.horizon), strict=True)
        return Forecast(self.pair, self.origin, days, steps, levels, quantiles)

    def _snapshot(self) -> tuple[MarketBundle, str | None]:
        """The data, and in what they are not those of the run.

        Raises:
            SourceError: there are none, or they cannot be read.
        """
        if _SNAPSHOT not in self._files:
            raise SourceError(f"the run has no {_SNAPSHOT}; restore it from a backup")
        bundle, fault = inspect_snapshot(self._local(_SNAPSHOT))
        recorded = self._params.get("fingerprint") or self._tags.get("fingerprint")
        if recorded and bundle.fingerprint != recorded:
            return bundle, (
                f"{_SNAPSHOT} was altered: its content has the fingerprint {bundle.fingerprint[:12]}, the run was made "
                f"from {recorded[:12]}"
            )
        for name, found, stated in (
            (
                "record of when each row was known",
                bundle.known_when[:12],
                self._params.get("known_when", "")[:12],
            ),
            ("rate", bundle.rate, self._tags.get("rate", "")),
        ):
            if stated and found != stated:
                return (
                    bundle,
                    f"{_SNAPSHOT} was altered: its {name} is {found}, the run was made from {stated}",
                )
        return bundle, f"{_SNAPSHOT} was altered: its content {fault}" if fault else None

    def _specifications(self) -> tuple[Specification, Path, Specification]:
        """What was published with the folder of its code, and what tells of the surroundings of the run.

        Raises:
            TrackingError: its files are missing or damaged.
        """
        number = self._other_version
        if number is None:
            specification, code = read_model(self._own_model())
            return specification, code, specification
        try:
            version = self._registry.version(self._name, number)
        except InputError as error:
            raise TrackingError(f"the model that was published is gone: {error}") from error
        specification, code = read_model(self._registry.folder(version))
        try:
            then = read_model(self._own_model())[0]
        except TrackingError:
            then = specification
        return specification, code, then

    def _own_model(self) -> Path:
        """Folder of the model that the run made.

        Raises:
            TrackingError: it has none.
        """
        uri = self._registry.uri
        outputs = self._run.outputs.model_outputs if self._run.outputs else []
        with translated(uri):
            models = [self._registry.client.get_logged_model(output.model_id) for output in outputs]
        place = next((model.artifact_location for model in models if model.name == MODEL), None)
        if place is None:
            raise TrackingError(
                f"run {self._run.info.run_id} logged no model, so there is no specification to compute from"
            )
        local = local_path(place)
        if local is None:
            folder = self._scratch / "model"
            folder.mkdir(exist_ok=True)
            local = fetched(uri, place, folder)
        if local is None:
            raise TrackingError(
                f"the model of run {self._run.info.run_id} is not at {place}; restore its files"
            )
        return local

    # --- comparisons

    def _compared(self, level: Level, made: Forecast) -> Reproduction:
        """A forecast made again beside the published one, or what is left of that."""
        if self._forecast is not None:
            return self._beside_document(level, made, self._forecast)
        digest = f"the tag published_digest, as {self._lacks(_FORECAST)}"
        if self._digest is not None and made.digest == self._digest:
            return Reproduction(level, "exact", digest, made.quantiles.size)
        stored = {what: self._params.get(f"forecast_{what}") for what in ("mean", "std")}
        again = {"mean": float(made.mean[-1]), "std": float(made.std[-1])}
        day = made.target_dates[-1]
        differences = [
            Difference(what, day, None, float(text), again[what], _apart(float(text), again[what]))
            for what, text in stored.items()
            if text is not None
        ]
        if not differences:
            if self._digest is not None:
                return Reproduction(level, "different", digest, made.quantiles.size)
            reason = f"{self._lacks(_FORECAST)}, and no other published number is left to compare with"
            return Reproduction(level, "impossible", causes=(reason,))
        largest = max(differences, key=lambda d: d.relative)
        alike = all(f"{again[d.what]:.10g}" == stored[d.what] for d in differences)
        params = "the params forecast_mean and forecast_std (10 digits of the last step)"
        if self._digest is None:
            compared_with = f"{params}, as {self._lacks(_FORECAST)}"
        else:
            compared_with = (
                f"{digest}; it is another one, and with {params}{', which agree' if alike else ''}"
            )
        outcome: Outcome = "close" if largest.relative <= CLOSE else "different"
        if alike and self._digest is None:
            outcome = "exact"
        return Reproduction(level, outcome, compared_with, len(differences), None if alike else largest)

    def _beside_document(self, level: Level, made: Forecast, published: Forecast) -> Reproduction:
        causes = []
        if self._digest is not None and published.digest != self._digest:
            whose = "; the forecast made again has it" if made.digest == self._digest else ""
            causes.append(
                f"{_FORECAST} was altered after the run: it does not have the digest {self._digest[:12]} that was "
                f"published{whose}"
            )
        if (made.target_dates, made.levels) != (published.target_dates, published.levels):
            causes.append(
                f"the target dates or levels are others: stored {_listed(published.target_dates)}, again "
                f"{_listed(made.target_dates)}"
            )
            return Reproduction(level, "different", _FORECAST, causes=tuple(causes))
        apart = np.abs(made.quantiles - published.quantiles) / np.maximum(np.abs(published.quantiles), 1e-300)
        h, q = np.unravel_index(int(apart.argmax()), apart.shape)
        largest = Difference(
            "quantile",
            made.target_dates[h],
            made.levels[q],
            float(published.quantiles[h, q]),
            float(made.quantiles[h, q]),
            float(apart[h, q]),
        )
        same = (made.rounded == published.rounded) | (apart <= NOISE)
        outcome: Outcome = "exact" if same.all() else "close" if largest.relative <= CLOSE else "different"
        return Reproduction(
            level,
            "different" if causes else outcome,
            _FORECAST,
            apart.size,
            largest if largest.relative > 0 else None,
            causes=tuple(causes),
        )

    def _other_recipe(self, specification: Specification) -> Iterator[str]:
        recorded = self._tags.get("published_recipe")
        if recorded and recorded != specification.recipe:
            yield (
                f"the files of {self.model} are of recipe {specification.recipe[:12]}, the run published "
                f"{recorded[:12]}"
            )
        if (specification.pair, specification.horizon) != (self.pair, self.horizon):
            yield (
                f"the files of {self.model} are of {specification.pair} {specification.horizon}, the run is of "
                f"{self.pair} {self.horizon}"
            )

    def _members_apart(self, run: ForecastRun) -> Iterator[str]:
        """In which answers, weights and factors a run differs from what was stored, where that is still there."""
        then = self._answers
        if then is None or then.factors.shape != run.band_factors.shape:
            return
        now = {member.name: member for member in run.members}
        missing, added = (sorted(a - b) for a, b in ((set(then.raw), set(now)), (set(now), set(then.raw))))
        if missing or added:
            reasons = [
                f"{name} does not answer now ({run.failures.get(name, 'left out')})" for name in missing
            ]
            yield "; ".join([*reasons, *(f"{name} did not answer then" for name in added)])
        shared = [name for name in then.raw if name in now]
        answers = {
            name: float(np.abs(now[name].raw / np.maximum(then.raw[name], 1e-300) - 1).max())
            for name in shared
        }
        differing = {name: apart for name, apart in answers.items() if not apart <= NOISE}
        if differing:
            listed = ", ".join(
                f"{name} by {apart:.2g}" for name, apart in sorted(differing.items(), key=lambda d: -d[1])
            )
            yield f"answers of members are not those of {_MEMBERS}: {listed} of the price"
        weights = {name: now[name].weight - then.weights[name] for name in shared}
        name = max(weights, key=lambda n: abs(weights[n]), default="")
        if name and abs(weights[name]) > LEARNED_ALIKE:
            yield (
                f"weights are not those of {_MEMBERS}: {name} had {then.weights[name]:.6g}, has {now[name].weight:.6g}"
            )
        factors = float(np.abs(run.band_factors / then.factors - 1).max())
        if not factors <= LEARNED_ALIKE:
            yield f"band factors are not those of {_MEMBERS}, by up to {factors:.2g}"


def _state_difference(stored: State, learned: State) -> Difference | None:
    """The largest difference of what was learned again to what was stored; None where it cannot be seen in a price."""
    names = [*stored.weights, *(name for name in learned.weights if name not in stored.weights)]
    differences = []
    for name in names:
        then, now = stored.weights.get(name, 0.0), learned.weights.get(name, 0.0)
        differences.append(Difference(f"weight of {name}", None, None, then, now, abs(now - then)))
    apart = np.abs(learned.factors - stored.factors) / np.maximum(np.abs(stored.factors), NOISE)
    h, q = np.unravel_index(int(apart.argmax()), apart.shape)
    then, now = float(stored.factors[h, q]), float(learned.factors[h, q])
    differences.append(
        Difference(f"band factor of step {h + 1}", None, LEVELS[q], then, now, float(apart[h, q]))
    )
    largest = max(differences, key=lambda d: d.relative)
    return largest if largest.relative > LEARNED_ALIKE else None


def _surroundings(then: Specification) -> Iterator[str]:
    """What computes otherwise than it did when `then` was learned."""
    versions = library_versions()
    for name in sorted(set(versions) | set(then.libraries)):
        if name in _OF_CHRONOS and "chronos" not in then.state.weights:
            continue
        was, is_now = then.libraries.get(name, "absent"), versions.get(name, "absent")
        if was != is_now:
            yield f"library {name} was {was}, is {is_now}"
    here = processor()
    if then.processor != here:
        yield f"another processor, or other kernels of it: {_processors_apart(then.processor, here)}"


def _processors_apart(then: str, now: str) -> str:
    """
    >>> _processors_apart("vendor_id : A\\nflags : avx avx2 fma", "vendor_id : A\\nflags : avx")
    'avx2 fma then and not now'
    """

    def fields(text: str) -> dict[str, str]:
        lines = (line.partition(":") for line in text.splitlines())
        return {name.strip(): value.strip() for name, _, value in lines}

    was, is_now = fields(then), fields(now)
    told = []
    for name in dict.fromkeys([*was, *is_now]):
        one, other = was.get(name, ""), is_now.get(name, "")
        if one == other:
            continue
        if name.lower() in ("flags", "features"):
            for a, b, when in ((one, other, "then and not now"), (other, one, "now and not then")):
                only = [flag for flag in a.split() if flag not in b.split()]
                if only:
                    told.append(f"{' '.join(only[:6])}{' …' if len(only) > 6 else ''} {when}")
        else:
            told.append(f"{name} {one or 'none'} then, {other or 'none'} now")
    return "; ".join(told) or "described otherwise"


def _weights_gone(specification: Specification) -> Iterator[str]:
    """That a recipe which cannot be made again rests on weights of Chronos, and where they were."""
    model = specification.chronos_settings.get("model")
    members = specification.engine_settings.get("members")
    named = isinstance(members, (list, tuple)) and "chronos" in members and model not in (None, EMBEDDED)
    if named and specification.engine() is None:
        yield f"recipe {specification.recipe[:12]} needs the weights of Chronos that were at {model}"


def _apart(stored: float, again: float) -> float:
    return abs(again - stored) / abs(stored) if stored else abs(again)


def _listed(days: tuple[date, ...]) -> str:
    return ", ".join(map(str, days[:10])) + (f" … {days[-1]}" if len(days) > 10 else "")
