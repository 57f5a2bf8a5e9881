"""Back to an earlier champion, back again, and on to another: each tried first, audited, and undone by a command.

Nothing changes before the version to come has been loaded and has made a sound forecast. What changes then hangs on
one write (`forex_core.tracking.registry`), so whoever is killed on the way leaves the champion of before or after.
"""

from __future__ import annotations

import getpass
import json
import socket
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from loguru import logger

from forex_core.champion import Candidate, believable, best_previous
from forex_core.data.snapshot import read_snapshot
from forex_core.errors import DataQualityError, ForecastError, InputError, TrackingError
from forex_core.specification import Specification, paths_of
from forex_core.tracking import queries
from forex_core.tracking.mlflow_tracker import MLflowTracker
from forex_core.tracking.packaging import read_model
from forex_core.tracking.registry import Pin, Registry, Standing, Version
from forex_core.tracking.store import copy_database, is_database
from forex_core.types import Forecast, Horizon, MarketBundle, Pair

AUDIT = "operations"
"""The experiment that every change of champion by hand is logged in."""

Action = Literal["rollback", "undo", "promote", "unpin"]


@dataclass(frozen=True)
class Plan:
    """A change of champion that was tried: what it would do and what the forecast would be.

    `how` says why this version; `forecast` is what it makes of the bundle, and `close` the last close there.
    """

    action: Action
    standing: Standing
    target: Version
    how: str
    forecast: Forecast
    close: float

    @property
    def document(self) -> dict[str, Any]:
        low, high = self.forecast.interval(0.8)
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
                "median": float(self.forecast.median[-1]),
                "low_80": float(low[-1]),
                "high_80": float(high[-1]),
            },
        }


class Succession:
    """Changes of champion by hand, for one registered model.

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
            target, how = self._named(to), "it was named"
        elif metric is not None:
            target, how = self._best_by(metric, mode, standing)
        else:
            target, how = self._best_previous(standing)
        if target.number == standing.champion.number:
            raise InputError(f"{target} of {self.model} is champion already; nothing to roll back")
        return self._tried("rollback", standing, target, how)

    def undo(self) -> Plan:
        """Back to the champion that the last rollback took the place of.

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
        """On to a version, by default the challenger, unpinned; without one the champion is only let go.

        Raises:
            InputError: there is nothing to promote, and no pin to take away.
            TrackingError, DataQualityError, ForecastError: as `rollback`.
        """
        standing = self._standing()
        assert standing.champion is not None
        target = self._named(to) if to is not None else standing.challenger
        if target is None or target.number == standing.champion.number:
            if standing.pin is None:
                raise InputError(
                    f"{self.model} has no challenger and {standing.champion} is not pinned; nothing to promote "
                    f"(--to names a version)"
                )
            return self._tried("unpin", standing, standing.champion, f"it was pinned: {standing.pin}")
        how = "it was named" if to is not None else "it is the challenger"
        return self._tried("promote", standing, target, how)

    def carry_out(
        self, plan: Plan, reason: str, backups: Path | None, tracker: MLflowTracker, by: str | None = None
    ) -> dict[str, Any]:
        """Do what a plan says, under the lock of the model, with a verified copy of the database and an audit run.

        Args:
            backups: folder of the copy; None where the store is a server with backups of its own.
            tracker: of the experiment `AUDIT`.
            by: who does it, by default the user of this process.

        Returns:
            The plan's document with `audit_run`, `backup`, `by`, `at` and `reason`.

        Raises:
            TrackingError: the copy or a write failed; the champion is that of before or after.
        """
        who, at = by or current_user(), datetime.now(UTC).isoformat(timespec="seconds")
        if _seats(self.registry.standing(self.model)) != _seats(plan.standing):
            raise TrackingError(f"the standing of {self.model} changed since this was planned; plan it again")
        copy = None
        if backups is not None and is_database(self.registry.uri):
            name = f"mlflow_{datetime.now(UTC):%Y%m%d_%H%M%S_%f}_before_{plan.action}_{self.model}.db"
            copy = copy_database(self.registry.uri, backups / name)
            logger.info("database copied to {}: {} tables", copy.path, len(copy.tables))
        document = plan.document
        with tracker:
            run_id = tracker.start_run(
                f"{plan.action}_{self.model}",
                f"{plan.action} of {self.model}: version {document['from_version']} to {plan.target.number}. {reason}",
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
            with tempfile.TemporaryDirectory() as scratch:
                before = Path(scratch) / "plan.json"
                before.write_text(json.dumps(document, indent=1), encoding="utf-8")
                tracker.log_artifact(before)
            self._apply(plan, Pin(who, at, reason, document["from_version"], run_id))
        return document | {
            "audit_run": run_id,
            "backup": str(copy.path) if copy else None,
            "by": who,
            "at": at,
            "reason": reason,
            "after": self.registry.standing(self.model).document(),
        }

    def _apply(self, plan: Plan, pin: Pin) -> None:
        if plan.action == "rollback":
            self.registry.enthrone(plan.target, pin)
        elif plan.action == "undo":
            self.registry.restore(plan.standing, plan.target)
        elif plan.action == "promote":
            self.registry.succeed(plan.standing, plan.target)
            self.registry.mark_published(plan.target)
        else:
            self.registry.unpin(plan.standing)

    def _standing(self) -> Standing:
        standing = self.registry.standing(self.model)
        self.registry.complete(standing)
        if standing.champion is None:
            raise InputError(
                f"{self.model} has no champion yet; publish a forecast first ('forex forecast {self.horizon} --pair "
                f"{self.bundle.pair}')"
            )
        return standing

    def _named(self, text: str) -> Version:
        """The version of that number, or the one that a run made."""
        if text.isdigit() and len(text) < queries.MIN_PREFIX:
            return self.registry.version(self.model, int(text))
        versions = self.registry.versions(self.model)
        found = [v for v in versions if v.number == int(text)] if text.isdigit() else []
        found = found or [v for v in versions if (v.run_id or "").startswith(text.lower())]
        if len(found) != 1:
            known = ", ".join(f"{v.number} ({(v.run_id or '')[:8]})" for v in versions[:10])
            raise InputError(
                f"'{text}' is {'no' if not found else 'more than one'} version or run of {self.model}; expected one of "
                f"{known or 'none'}"
            )
        return found[0]

    def _candidates(self, standing: Standing) -> list[Version]:
        """Published versions not rolled back from: the newest of each other recipe, else all of the champion's."""
        champion = standing.champion
        assert champion is not None
        replaced = standing.pin.replaced if standing.pin else None
        eligible = [
            v
            for v in self.registry.versions(self.model)
            if v.published and not v.rolled_back and v.number not in (champion.number, replaced)
        ]
        newest = {v.recipe: v for v in reversed(eligible) if v.recipe != champion.recipe}
        return sorted(newest.values(), key=lambda v: -v.number) or eligible

    def _best_previous(self, standing: Standing) -> tuple[Version, str]:
        usable: list[Candidate] = []
        refused: list[str] = []
        by_number = {v.number: v for v in self._candidates(standing)}
        for version in by_number.values():
            try:
                specification, code = self._loaded(version)
            except (TrackingError, DataQualityError) as error:
                refused.append(str(error))
                continue
            usable.append(Candidate(version.number, specification, code))
        if not usable:
            raise InputError(
                f"{self.model} has no previous version to go back to"
                + (f": {'; '.join(refused)}" if refused else "; only the champion was ever published")
            )
        for reason in refused:
            logger.warning("not a candidate: {}", reason)
        previous = standing.previous.number if standing.previous else None
        number, why = best_previous(usable, previous, self.bundle, self.horizon, self._cache)
        return by_number[number], why

    def _best_by(self, metric: str, mode: Literal["min", "max"], standing: Standing) -> tuple[Version, str]:
        """The best published version by a metric that its run logged."""
        champion = standing.champion
        assert champion is not None
        ranked = []
        for version in self.registry.versions(self.model):
            if version.number == champion.number or not version.published or version.rolled_back:
                continue
            value = self.registry.metric_of(version, metric)
            if value is not None:
                ranked.append((value if mode == "min" else -value, -version.number, version, value))
        if not ranked:
            raise InputError(
                f"no earlier version of {self.model} has a finished run with the metric {metric}; 'forex runs show "
                "RUN_ID' lists what a run logged"
            )
        _, _, version, value = min(ranked, key=lambda entry: entry[:2])
        return version, f"its run has the {'lowest' if mode == 'min' else 'highest'} {metric}, {value:.6g}"

    def _loaded(self, version: Version) -> tuple[Specification, Path]:
        specification, code = read_model(self.registry.folder(version))
        missing = sorted(set(specification.drivers) - set(self.bundle.driver_names))
        if missing:
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
        run = paths_of(specification, code, self.bundle, self._cache).run(self.horizon, specification.state)
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
        return Plan(action, standing, target, how, run.forecast, float(self.bundle.spot[-1]))


def latest_snapshot(registry: Registry, pair: Pair, horizon: Horizon) -> MarketBundle:
    """The data behind the newest published forecast of a pair and horizon that still has them.

    Raises:
        InputError: there is none.
    """
    import mlflow.artifacts

    recent = queries.runs(registry.client, pair, horizon, last=20, status="FINISHED")
    # The newest data, not the newest run: that may be of a past day.
    for row in sorted(recent, key=lambda row: (row.origin or "", row.started), reverse=True):
        with tempfile.TemporaryDirectory() as scratch, suppress(OSError):
            place = mlflow.artifacts.download_artifacts(
                run_id=row.id,
                artifact_path="reports/snapshot.parquet",
                dst_path=scratch,
                tracking_uri=registry.uri,
            )
            return read_snapshot(Path(place))
    raise InputError(
        f"no finished {horizon} run of {pair} holds its data; give them with --source and --path"
    )


def _seats(standing: Standing) -> Sequence[Any]:
    document = standing.document()
    return [document[name] for name in ("champion", "pin")]


def current_user() -> str:
    """User and machine of this process."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except OSError:  # a user id without a name, as in a container
        return f"unknown@{socket.gethostname()}"
