"""Back to an earlier champion, back again, and on to another: each tried first, audited, and undone by a command.

Nothing changes before the version to come has been loaded and has made a sound forecast. What changes then hangs on
one write (`forex_core.tracking.registry`), so whoever is killed on the way leaves the champion of before or after.
"""

from __future__ import annotations

import getpass
import json
import re
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from loguru import logger

from forex_core.calibration import FACTOR_RANGE
from forex_core.champion import Candidate, believable, best_previous, too_few
from forex_core.data.snapshot import read_snapshot
from forex_core.databases import DatabaseCopy, is_database
from forex_core.errors import DataQualityError, ForecastError, InputError, SourceError, TrackingError
from forex_core.paths import Paths
from forex_core.specification import Specification, may_have_seen, paths_of
from forex_core.tracking import queries
from forex_core.tracking.copies import copy_database
from forex_core.tracking.mlflow_tracker import MLflowTracker
from forex_core.tracking.packaging import MODEL, copy_model
from forex_core.tracking.queries import AUDIT
from forex_core.tracking.registry import Pin, Registry, Standing, Version
from forex_core.tracking.store import translated
from forex_core.types import RATE_NAMES, Array, Forecast, Horizon, MarketBundle, Pair, short_id

SNAPSHOT = "reports/snapshot.parquet"

_OF_A_MODEL = ("pair", "rate", "horizon", "recipe", "fingerprint")
"""Tags of a version that one with other bands has as well."""

MAX_REASON = 1000
"""Characters of a reason: it is part of tags."""

Action = Literal["rollback", "undo", "promote", "unpin", "adapt"]


@dataclass(frozen=True)
class Plan:
    """A change of champion that was tried: what it would do and what the forecast would be.

    `how` says why this version; `forecast` is what it makes of the bundle, and `close` the last close there.
    `champion_forecast` is what the champion of now makes of it, None where it is the same version or makes none, for
    the reason `champion_fault`.
    """

    action: Action
    standing: Standing
    target: Version
    how: str
    forecast: Forecast
    close: float
    champion_forecast: Forecast | None = None
    champion_fault: str | None = None

    @property
    def document(self) -> dict[str, Any]:
        return {
            "action": self.action,
            "model": self.standing.model,
            "from_version": self.standing.champion.number if self.standing.champion else None,
            "to_version": self.target.number,
            "to_run": self.target.run_id,
            "to_recipe": self.target.recipe,
            "trained_until": self.target.tags.get("trained_until"),
            "how": self.how,
            "before": self.standing.document(),
            "forecast": {
                "origin": self.forecast.origin.isoformat(),
                "close": self.close,
                "unit": self.forecast.pair.unit,
                "target_date": self.forecast.target_dates[-1].isoformat(),
                **_last_step(self.forecast),
            },
            "champion_says": _last_step(self.champion_forecast) if self.champion_forecast else None,
            "champion_fault": self.champion_fault,
        }


class Succession:
    """Changes of champion that are asked for, of one registered model, whose lock the caller holds from plan to end.

    Args:
        bundle: the data that a version is tried on.
        cache_folder: where members' answers are kept.
    """

    def __init__(
        self,
        registry: Registry,
        model: str,
        horizon: Horizon,
        bundle: MarketBundle,
        cache_folder: Path | None = None,
    ) -> None:
        self.registry = registry
        self.model = model
        self.horizon = horizon
        self.bundle = bundle
        self._cache = cache_folder

    def rollback(
        self, to: str | None = None, metric: str | None = None, mode: Literal["min", "max"] = "min"
    ) -> Plan:
        """Back to a version: the one named by its number or run, the best by a logged metric, or the best previous.

        Raises:
            InputError: there is no champion, nothing to go back to, or the version is champion already.
            TrackingError: its files are missing or damaged.
            DataQualityError: drivers that it needs are not in the data.
            ForecastError: it cannot make a forecast, or one that is sound.
        """
        standing = self._standing()
        assert standing.champion is not None
        if to is not None:
            target, how = named(self.registry, self.model, to), "it was named"
        elif metric is not None:
            target, how = self._best_by(metric, mode, standing)
        else:
            target, how = self._best_previous(standing)
        if target.number == standing.champion.number:
            raise InputError(f"{target} of {self.model} is champion already; nothing to roll back")
        return self._tried("rollback", standing, target, how)

    def undo(self) -> Plan:
        """Back to the champion that the last rollback took the place of, with the pin that it had, if any.

        What runs have written since stays: a challenger that one of them learned, and which versions were published.

        Raises:
            InputError: the champion is not there by a rollback.
            TrackingError, DataQualityError, ForecastError: as `rollback`.
        """
        standing = self._standing()
        pin = standing.pin
        if pin is None or pin.replaced is None:
            raise InputError(
                f"{standing.champion} of {self.model} is not champion by a rollback; nothing to undo"
            )
        former = self.registry.version(self.model, pin.replaced)
        return self._tried("undo", standing, former, f"it was rolled back: {pin}")

    def promote(self, to: str | None = None) -> Plan:
        """Put a version, by default the challenger, in the champion's place, unpinned; without one `unpin`.

        Raises:
            InputError: there is nothing to promote, and no pin to take away.
            TrackingError, DataQualityError, ForecastError: as `rollback`.
        """
        standing = self._standing()
        assert standing.champion is not None
        target = named(self.registry, self.model, to) if to is not None else standing.challenger
        if target is None or target.number == standing.champion.number:
            if standing.pin is None:
                raise InputError(
                    f"{self.model} has no challenger and {standing.champion} is not pinned; nothing to promote "
                    f"(--to names a version)"
                )
            return self.unpin()
        how = "it was named" if to is not None else "it is the challenger"
        return self._tried("promote", standing, target, how)

    def adapt(self, factors: Array, until: date, why: str, tracker: MLflowTracker) -> Plan:
        """Put the champion with other bands in its own place, pinned where it is: a version with the same code.

        Args:
            factors: [PATH_STEPS, Q] that the log deviations of its bands from the median are multiplied by; with those
                that it has by now they stay within `calibration.FACTOR_RANGE`.
            until: day of the last outcome behind them.
            why: what the bands have shown, for the description of the version.
            tracker: of the run that the version is logged in, of the experiment `AUDIT`.

        Raises:
            InputError: there is no champion, or its bands are as wide, or as narrow, as they may be.
            TrackingError: its files are missing or damaged, or the version could not be logged.
            DataQualityError, ForecastError: as `rollback`.
        """
        standing = self._standing()
        champion = standing.champion
        assert champion is not None
        specification, _ = self.registry.model(champion)
        state = specification.state
        product = np.clip(state.factors * factors, *FACTOR_RANGE)
        if np.array_equal(product, state.factors):
            raise InputError(
                f"{champion} of {self.model} has band factors from {product.min():.2f} to {product.max():.2f}, and "
                f"would keep them: none leaves {FACTOR_RANGE[0]} to {FACTOR_RANGE[1]}; another model is called for "
                "('forex rollback', or a recipe of other members)"
            )
        changed = replace(specification, state=replace(state, trained_until=until, factors=product))
        description = f"Bands of {champion} of {self.model} after what came of its forecasts: {why}"
        with tempfile.TemporaryDirectory() as scratch, tracker:
            tracker.start_run(
                f"bands_{self.model}", description, {"model": self.model, "of": champion.number}
            )
            folder = copy_model(self.registry.folder(champion), changed, Path(scratch) / MODEL)
            address = tracker.log_model(folder, MODEL)
            if address is None:
                raise TrackingError(
                    f"the model with other bands could not be logged, so {champion} stays: {tracker.degraded}"
                )
            kept = {name: champion.tags[name] for name in _OF_A_MODEL if name in champion.tags}
            tags = kept | {"trained_until": until, "adapted_from": champion.number}
            made = self.registry.register_model(
                self.model, address, description, tags, tracker.run_id, files=folder
            )
        return self._tried("adapt", standing, made, why)

    def unpin(self) -> Plan:
        """Keep the champion and take its pin away: the next run may replace it.

        Raises:
            InputError: there is no champion, or it is not pinned.
            TrackingError, DataQualityError, ForecastError: as `rollback`.
        """
        standing = self._standing()
        assert standing.champion is not None
        if standing.pin is None:
            raise InputError(
                f"{standing.champion} of {self.model} is not pinned; there is no pin to take away"
            )
        return self._tried("unpin", standing, standing.champion, f"it was pinned: {standing.pin}")

    def carry_out(
        self, plan: Plan, reason: str, backups: Path | None, tracker: MLflowTracker, by: str | None = None
    ) -> dict[str, Any]:
        """Do what a plan says, with a verified copy of the database and an audit run.

        Args:
            backups: folder of the copy; None where the store is a server with backups of its own.
            tracker: of the experiment `AUDIT`.
            by: who does it, by default the user of this process.

        Returns:
            The plan's document with `audit_run`, `backup`, `by`, `at`, `reason`, and `after`, the standing then.

        Raises:
            InputError: the reason is too long.
            TrackingError: the copy or a write failed; the champion is that of before or after.
        """
        if len(reason) > MAX_REASON:
            raise InputError(f"the reason has {len(reason)} characters; expected {MAX_REASON} at most")
        who, at = by or current_user(), datetime.now(UTC).isoformat(timespec="seconds")
        self.registry.confirm(plan.standing)
        self._end_audits()
        copy = self._copy(plan, backups) if backups and is_database(self.registry.uri) else None
        document = plan.document
        # With its tags at once: a run that is left running has to say what it was to do.
        run_id = tracker.start_run(
            f"{plan.action}_{self.model}",
            f"{plan.action} of {self.model}: version {document['from_version']} to {plan.target.number}. "
            f"{reason.strip() or 'No reason given.'}",
            {
                "action": plan.action,
                "model": self.model,
                "pair": str(self.bundle.pair),
                "horizon": str(self.horizon),
                "from_version": document["from_version"],
                "to_version": plan.target.number,
                "by": who,
                "at": at,
                "reason": reason,
                "how": plan.how,
                "backup": str(copy.path) if copy else "none",
            },
        )
        with tracker:
            with tempfile.TemporaryDirectory() as scratch:
                before = Path(scratch) / "plan.json"
                before.write_text(json.dumps(document, indent=1), encoding="utf-8")
                tracker.log_artifact(before)
            if tracker.degraded:
                raise TrackingError(
                    f"the audit run could not be logged, so the champion stays as it is: {tracker.degraded}"
                )
            self._apply(plan, Pin(who, at, reason, document["from_version"], run_id))
        return document | {
            "audit_run": run_id,
            "backup": str(copy.path) if copy else None,
            "by": who,
            "at": at,
            "reason": reason,
            "after": self.registry.standing(self.model).document(),
        }

    def _copy(self, plan: Plan, backups: Path) -> DatabaseCopy:
        name = f"mlflow_{datetime.now(UTC):%Y%m%d_%H%M%S_%f}_before_{plan.action}_{self.model}.db"
        try:
            copy = copy_database(self.registry.uri, backups / name)
        except OSError as error:
            raise TrackingError(
                f"the database could not be copied to {backups} ({error}), so nothing was changed; make it a folder "
                "that can be written"
            ) from error
        logger.info("database copied to {}: {} tables", copy.path, len(copy.tables))
        return copy

    def _apply(self, plan: Plan, pin: Pin) -> None:
        self.registry.confirm(plan.standing)
        held = plan.action == "adapt" and plan.standing.pin is not None
        if plan.action == "rollback" or held:
            self.registry.enthrone(plan.target, pin)
        elif plan.action == "undo":
            self.registry.restore(plan.standing, plan.target, pin.audit_run)
        elif plan.action in ("promote", "adapt"):
            self.registry.succeed(plan.standing, plan.target, pin.audit_run)
        else:
            self.registry.unpin(plan.standing, pin.audit_run)

    def _standing(self) -> Standing:
        standing = self.registry.standing(self.model)
        if standing.champion is None:
            raise InputError(
                f"{self.model} has no champion yet; publish a forecast first ('forex forecast {self.horizon} --pair "
                f"{self.bundle.pair}')"
            )
        return standing

    def _end_audits(self) -> None:
        """End audit runs that were killed before they changed anything: one that did has ended with its change."""
        client = self.registry.client
        with translated(self.registry.uri):
            experiment = client.get_experiment_by_name(AUDIT)
            if experiment is not None:
                condition = f"attributes.status = 'RUNNING' and tags.model = '{self.model}'"
                for run in client.search_runs([experiment.experiment_id], condition):
                    client.set_terminated(run.info.run_id, "KILLED")

    def _eligible(self, standing: Standing) -> list[Version]:
        """Versions that were published once and not rolled back from, without the champion, the newest first.

        Who rolled back from the newest state of another recipe has left that recipe with all its states.
        """
        champion = standing.champion
        assert champion is not None
        published = [v for v in self.registry.versions(self.model) if v.published]
        newest = {v.recipe: v for v in reversed(published)}
        left = {recipe for recipe, v in newest.items() if v.rolled_back and recipe != champion.recipe}
        return [
            v for v in published if not v.rolled_back and v.recipe not in left and v.number != champion.number
        ]

    def _usable(
        self, versions: Iterable[Version], standing: Standing, refused: list[str]
    ) -> Iterator[tuple[Version, Candidate]]:
        """Those that load, have their drivers in the data and would change something; why not goes to `refused`."""
        champion = standing.champion
        assert champion is not None
        reigning: Specification | None = None
        with suppress(TrackingError):  # who cannot be read has no twin that could be told
            reigning, _ = self.registry.model(champion)
        for version in versions:
            try:
                specification, code = self._loaded(version)
            except (TrackingError, DataQualityError) as error:
                logger.warning("not a candidate: {}", error)
                refused.append(str(error))
                continue
            if reigning is not None and _alike(specification, reigning):
                refused.append(
                    f"{version} is the champion's state over again (recipe, weights and bands are those of "
                    f"{champion}), and would change nothing"
                )
                logger.info("not a candidate: {}", refused[-1])
                continue
            yield version, Candidate(version.number, specification, code)

    def _candidates(self, standing: Standing) -> list[tuple[Version, Candidate]]:
        """The newest usable version of each other recipe, else all of the champion's own; the newest first.

        Raises:
            InputError: there is none.
        """
        assert standing.champion is not None
        own = standing.champion.recipe
        eligible = self._eligible(standing)
        refused: list[str] = []
        found: dict[str, tuple[Version, Candidate]] = {}
        for version, candidate in self._usable(
            (v for v in eligible if v.recipe not in (own, *found)), standing, refused
        ):
            found[version.recipe] = version, candidate
        candidates = list(found.values()) or list(
            self._usable((v for v in eligible if v.recipe == own), standing, refused)
        )
        if not candidates:
            raise InputError(
                f"{self.model} has no previous version to go back to: "
                + ("; ".join(refused) or "none but the champion was published and not rolled back from")
            )
        return candidates

    def _best_previous(self, standing: Standing) -> tuple[Version, str]:
        versions, candidates = zip(*self._candidates(standing), strict=True)
        previous = standing.previous.number if standing.previous else None
        number, why = best_previous(candidates, previous, self.bundle, self.horizon, self._cache)
        return next(v for v in versions if v.number == number), why

    def _best_by(self, metric: str, mode: Literal["min", "max"], standing: Standing) -> tuple[Version, str]:
        """The best usable version by a metric that its run logged and had not seen, the newest of equal ones.

        Raises:
            InputError: no version has it.
        """
        eligible = self._eligible(standing)
        logged = {v.number: self.registry.metric_of(v, metric) for v in eligible}
        sign = 1 if mode == "min" else -1
        with_value = [v for v in eligible if logged[v.number] is not None]
        with_value.sort(key=lambda v: sign * float(logged[v.number] or 0))
        refused: list[str] = []
        for version, found in self._usable(with_value, standing, refused):
            if may_have_seen(found.specification, found.code):
                refused.append(f"the weights of {version} may have seen the outcomes that its {metric} is of")
                logger.info("not a candidate: {}", refused[-1])
                continue
            extreme = "lowest" if mode == "min" else "highest"
            return version, f"its run has the {extreme} {metric}, {logged[version.number]:.6g}"
        raise InputError(
            f"no previous version of {self.model} has a finished run with the metric {metric}"
            + (f" and can be used: {'; '.join(refused)}" if refused else "")
            + "; 'forex runs show RUN_ID' lists what a run logged"
        )

    def _loaded(self, version: Version) -> tuple[Specification, Path]:
        specification, code = self.registry.model(version)
        if specification.rate is not None and not specification.is_of(self.bundle):
            raise DataQualityError(
                f"{version} of {self.model} is of the {RATE_NAMES[specification.rate]} of {self.bundle.pair}, the data "
                f"up to {self.bundle.origin} are of its {RATE_NAMES[self.bundle.rate]}; give data of the former "
                "(--source, --path), or name another version (--to)"
            )
        missing = sorted(set(specification.drivers) - set(self.bundle.driver_names))
        if missing and _reads_drivers(specification):
            raise DataQualityError(
                f"{version} of {self.model} needs {', '.join(missing)}, which the data up to {self.bundle.origin} "
                "lack; give data that hold them (--source, --path), or name another version (--to)"
            )
        return specification, code

    def _tried(self, action: Action, standing: Standing, target: Version, how: str) -> Plan:
        specification, code = self._loaded(target)
        if specification.state.trained_until > self.bundle.origin:
            raise DataQualityError(
                f"{target} of {self.model} has learned up to {specification.state.trained_until}, the data end on "
                f"{self.bundle.origin}; give newer data (--source, --path)"
            )
        paths = paths_of(specification, code, self.bundle, self._cache)
        if few := too_few(paths, self.horizon):
            raise DataQualityError(
                f"{target} of {self.model} has {few}; give a longer history (--source, --path)"
            )
        run = paths.run(self.horizon, specification.state)
        lost = [name for name in specification.state.weights if name in run.failures]
        faults = [
            *believable(run.forecast, self.bundle),
            *(f"{name} failed: {run.failures[name]}" for name in lost),
        ]
        if faults:
            raise ForecastError(
                f"{target} of {self.model} was tried on the data up to {self.bundle.origin} and is not sound: "
                f"{'; '.join(faults)}; name another version (--to)"
            )
        close = float(self.bundle.spot[-1])
        beside, fault = self._champion_says(standing, target, specification, paths)
        return Plan(action, standing, target, how, run.forecast, close, beside, fault)

    def _champion_says(
        self, standing: Standing, target: Version, specification: Specification, paths: Paths
    ) -> tuple[Forecast | None, str | None]:
        """What the champion of now makes of the bundle, or why it makes nothing: a broken one can be left all the same.

        Args:
            specification: of the target.
            paths: of its recipe, and so of the champion's where that is the same.
        """
        champion = standing.champion
        if champion is None or champion.number == target.number:
            return None, None
        try:
            own, code = self._loaded(champion)
            if own.state.trained_until > self.bundle.origin:
                return None, f"it has learned up to {own.state.trained_until}, after these data"
            if (own.recipe, set(own.drivers)) != (specification.recipe, set(specification.drivers)):
                paths = paths_of(own, code, self.bundle, self._cache)
            return paths.run(self.horizon, own.state).forecast, None
        except (TrackingError, DataQualityError, ForecastError) as error:
            return None, str(error)


def to_roll_back(to: str | None, metric: str | None, mode: str, undo: bool) -> Callable[[Succession], Plan]:
    """What the options of a rollback ask for, to be found in a succession.

    Raises:
        InputError: they exclude each other, or `mode` is neither min nor max.
    """
    if mode not in ("min", "max"):
        raise InputError(f"--mode '{mode}' is unknown; expected min or max")
    if mode == "max" and metric is None:
        raise InputError("--mode goes with --metric; name the metric to rank by, such as --metric 7d_rmse")
    _refuse_together({"--to": to is not None, "--metric": metric is not None, "--undo": undo})
    if undo:
        return lambda succession: succession.undo()
    return lambda succession: succession.rollback(to, metric, "max" if mode == "max" else "min")


def to_promote(to: str | None, unpin: bool) -> Callable[[Succession], Plan]:
    """What the options of a promotion ask for.

    Raises:
        InputError: they exclude each other.
    """
    _refuse_together({"--to": to is not None, "--unpin": unpin})
    return lambda succession: succession.unpin() if unpin else succession.promote(to)


def _refuse_together(options: Mapping[str, bool]) -> None:
    given = [name for name, is_given in options.items() if is_given]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} exclude each other; give one of them")


def named(registry: Registry, model: str, text: str) -> Version:
    """The version of that number, or the one that a run made.

    Raises:
        InputError: there is none, or more than one.
    """
    number = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None
    if number is not None and len(text) < queries.MIN_PREFIX:
        return registry.version(model, number)
    versions = registry.versions(model)
    found = [v for v in versions if v.number == number]
    if not found and len(text) >= queries.MIN_PREFIX:
        found = [v for v in versions if (v.run_id or "").startswith(text.lower())]
    if len(found) != 1:
        known = ", ".join(f"{v.number} ({short_id(v.run_id or '')})" for v in versions[:10])
        raise InputError(
            f"'{text}' is {'no' if not found else 'more than one'} version or run of {model}; expected one of "
            f"{known or 'none'}"
        )
    return found[0]


def latest_snapshot(
    registry: Registry, pair: Pair, horizon: Horizon, rate: str | None = None
) -> MarketBundle:
    """The data behind the newest published forecast of a pair and horizon that still has them.

    Args:
        rate: which rate of the pair they have to be of; None for any.

    Raises:
        InputError: there is none.
        TrackingUnavailable: the store or its files cannot be reached.
    """
    # The newest data, not the newest run: that may be of a past day.
    with translated(registry.uri):
        for run_id in queries.runs_by_data(registry.client, pair, horizon, rate):
            try:
                return _snapshot_of(registry, run_id)
            except SourceError as error:
                logger.warning("the data of run {} cannot be used: {}", run_id, error)
    raise InputError(
        f"no finished {horizon} run of {pair} holds its data{f' of the {rate} rate' if rate else ''}; give them with "
        "--source and --path"
    )


def _snapshot_of(registry: Registry, run_id: str) -> MarketBundle:
    # The list tells a file that is not there from a place out of reach; a download fails alike.
    if all(
        file.path != SNAPSHOT for file in registry.client.list_artifacts(run_id, SNAPSHOT.partition("/")[0])
    ):
        raise SourceError(f"it has no {SNAPSHOT}")
    with tempfile.TemporaryDirectory() as scratch:
        return read_snapshot(Path(registry.client.download_artifacts(run_id, SNAPSHOT, scratch)))


def _last_step(forecast: Forecast) -> dict[str, float]:
    """Median and 80 % band of the last target date, in quote units."""
    low, high = forecast.interval(0.8)
    return {"median": float(forecast.median[-1]), "low_80": float(low[-1]), "high_80": float(high[-1])}


def _alike(one: Specification, other: Specification) -> bool:
    """Whether two states say the same of any data. The day that each was learned changes nothing of that."""
    return (
        one.recipe == other.recipe
        and set(one.drivers) == set(other.drivers)
        and dict(one.state.weights) == dict(other.state.weights)
        and np.array_equal(one.state.factors, other.state.factors)
    )


def _reads_drivers(specification: Specification) -> bool:
    """Whether a member does, were its weight 0: the band is the mean of them all.

    Taken to be so where only the code that the model carries knows.
    """
    engine = specification.engine()
    if engine is None:
        return True
    weighed = specification.state.weights
    return any("drivers" in member.columns for member in engine.members if member.name in weighed)


def current_user() -> str:
    """User and machine of this process."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a user id without a name, as in a container
        return f"unknown@{socket.gethostname()}"
