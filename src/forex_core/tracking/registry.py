"""Registered models: their versions, who is champion, and how that changes.

One model for each pair and horizon, such as `usdclp-7d`; its versions are states that runs have learned. Aliases say
which of them is `champion`, `challenger` and `previous`, the last champion of another recipe (of the same, where there
is no other). A version that is champion and carries the tag `pin` is held in place.

Whatever changes the champion has one deciding write, the alias `champion`: what is written before it means nothing
while the alias is elsewhere, and what is written after it can be read off it. So a process that is killed leaves the
state from before or the one from after.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forex_core.champion import Reigning
from forex_core.config import Settings
from forex_core.errors import InputError, TrackingError
from forex_core.tracking import queries
from forex_core.tracking.build import connect
from forex_core.tracking.packaging import read_model
from forex_core.tracking.store import local_path, open_store, store_lock, translated
from forex_core.types import Horizon, Pair

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
STAGES: Mapping[str, str | None] = {
    "Production": CHAMPION,
    "Staging": CHALLENGER,
    "Archived": None,
    "None": None,
}
"""Stage of MLflow's old vocabulary: the alias that stands for it."""

READY_LIMIT_S = 300
LOCK_LIMIT_S = 60.0

Stage = Literal["None", "Staging", "Production", "Archived"]


@dataclass(frozen=True)
class Pin:
    """Why a champion is held in place: `replaced` is the version that it was put in the place of, if any."""

    by: str
    at: str
    reason: str
    replaced: int | None = None
    audit_run: str | None = None

    def __str__(self) -> str:
        return f"{self.reason or 'no reason given'} ({self.by}, {self.at})"


@dataclass(frozen=True)
class Version:
    """A version of a registered model. `source` is where its files are."""

    model: str
    number: int
    run_id: str | None
    source: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def recipe(self) -> str:
        return self.tags.get("recipe", "")

    @property
    def trained_until(self) -> date | None:
        text = self.tags.get("trained_until")
        return date.fromisoformat(text) if text else None

    @property
    def published(self) -> bool:
        return self.tags.get("published") == "true"

    @property
    def rolled_back(self) -> bool:
        return "rolled_back" in self.tags

    @property
    def pin(self) -> Pin | None:
        """The pin that it carries; of effect only while it is champion."""
        return Pin(**json.loads(self.tags["pin"])) if "pin" in self.tags else None

    def __str__(self) -> str:
        return f"version {self.number}"


@dataclass(frozen=True)
class Standing:
    """Who is who among the versions of one model, None where nobody is; `decided_on` is of the last contest."""

    model: str
    champion: Version | None = None
    challenger: Version | None = None
    previous: Version | None = None
    decided_on: date | None = None

    @property
    def pin(self) -> Pin | None:
        return self.champion.pin if self.champion else None

    def document(self) -> dict[str, Any]:
        """As plain values, for a record of what was."""
        aliases = {
            name: getattr(self, name).number if getattr(self, name) else None
            for name in (CHAMPION, CHALLENGER, PREVIOUS)
        }
        return {"model": self.model, **aliases, "pin": vars(self.pin) if self.pin else None}


def model_name(pair: Pair, horizon: Horizon) -> str:
    """
    >>> model_name(Pair("USD", "CLP"), Horizon(7))
    'usdclp-7d'
    """
    return f"{pair.slug}-{horizon}"


def registry_from_settings(settings: Settings) -> Registry:
    """The registry of a deployment."""
    connect(settings)
    return Registry(settings.mlflow_uri, settings.mlflow_artifacts, settings.root)


class Registry:
    """The registered models of a tracking store.

    Args:
        tracking_uri: the store.
        artifact_root: as of the tracker.
        below: the data folder, where local files of the store have to lie, and where a lock is kept for a store that
            has none of its own.

    Raises:
        TrackingError: when the store cannot be opened, at the first use.
    """

    def __init__(
        self, tracking_uri: str, artifact_root: str | None = None, below: Path | None = None
    ) -> None:
        self.uri = tracking_uri
        self._root = artifact_root
        self._below = below
        self._opened: MlflowClient | None = None

    @property
    def client(self) -> MlflowClient:
        if self._opened is None:
            self._opened = open_store(self.uri, self._root, self._below)
        return self._opened

    # --- the calls that MLflow's users know

    def register_model(
        self,
        model_name: str,
        model_uri: str,
        description: str | None = None,
        tags: Mapping[str, Any] | None = None,
        run_id: str | None = None,
    ) -> Version:
        """Register the files of a model as the next version, and wait until it is ready, 300 s at most.

        Args:
            model_uri: models:/m-… as `Tracker.log_model` returned it, runs:/RUN_ID/PATH, or the address of a folder.

        Raises:
            InputError: there is no such model.
            TrackingError: the store refused, or the version did not get ready in time.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

        source, made_by = self._source(model_uri)
        with translated(self.uri):
            try:
                self.client.create_registered_model(model_name)
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise
            made = self.client.create_model_version(
                model_name,
                source,
                run_id=run_id or made_by,
                tags={name: str(value) for name, value in (tags or {}).items()},
                description=description,
                await_creation_for=0,
            )
            until = time.monotonic() + READY_LIMIT_S
            while made.status == "PENDING_REGISTRATION" and time.monotonic() < until:
                time.sleep(1)
                made = self.client.get_model_version(model_name, made.version)
        if made.status != "READY":
            raise TrackingError(
                f"version {made.version} of {model_name} is {made.status} after {READY_LIMIT_S} s, expected READY: "
                f"{made.status_message or 'the store gives no reason'}"
            )
        return _version(made)

    def transition_model_stage(self, model_name: str, version: int | str, stage: Stage | None) -> Version:
        """Give a version the alias of a stage of MLflow's old vocabulary.

        Production is `champion`, and the champion before becomes `previous`; Staging is `challenger`. Archived and
        None take the version's aliases away, Archived leaves the tag `stage` behind as well.

        Raises:
            InputError: no such stage or version.
        """
        if str(stage) not in STAGES:
            raise InputError(f"'{stage}' is no stage; expected one of {', '.join(STAGES)}")
        with self.lock(model_name):
            found = self.version(model_name, int(version))
            alias = STAGES[str(stage)]
            held = self.standing(model_name)
            others = held.champion is None or held.champion.number != found.number
            with translated(self.uri):
                if alias == CHAMPION and others:
                    if held.champion:
                        self._point(model_name, PREVIOUS, held.champion.number)
                    self._drop_tag(found, "pin")
                for name in (CHAMPION, CHALLENGER):
                    mine = getattr(held, name)
                    if mine and mine.number == found.number and name != alias:
                        self.client.delete_registered_model_alias(model_name, name)
                if alias:
                    self._point(model_name, alias, found.number)
                self.client.set_model_version_tag(model_name, str(found.number), "stage", str(stage))
            return self.version(model_name, found.number)

    def get_run_info(self, run_id: str) -> queries.RunRow:
        """A run with its params, metrics, tags and artifacts, by its id or the beginning of it.

        Raises:
            InputError: no run has that id, or several have it.
        """
        return queries.run(self.client, run_id)

    def get_best_run(
        self,
        metric: str,
        mode: Literal["min", "max"] = "min",
        *,
        pair: Pair | None = None,
        experiment_name: str | None = None,
    ) -> queries.RunRow | None:
        """The finished run of a pair with the best finite value of a metric and a model that can be loaded, or None.

        Args:
            experiment_name: by default the forecasts of the horizon that the metric is named after, such as `7d_rmse`.

        Raises:
            InputError: the metric's name is none, or names no horizon and no experiment is given.
        """
        if experiment_name is None:
            experiment_name = f"forecaster_{Horizon.parse(metric.partition('_')[0])}"
        return queries.best_run(self.client, experiment_name, metric, mode, pair, loadable=True)

    def metric_of(self, version: Version, metric: str) -> float | None:
        """What the finished run behind a version logged as a metric; None without a finite value."""
        if version.run_id is None:
            return None
        with translated(self.uri):
            run = self.client.get_run(version.run_id)
        value = run.data.metrics.get(metric)
        # Infinity is stored as 1.8e308.
        if value is None or run.info.status != "FINISHED" or abs(value) >= 1e308:
            return None
        return float(value)

    # --- versions and standing

    def version(self, model: str, number: int) -> Version:
        """One version.

        Raises:
            InputError: there is none.
        """
        from mlflow.exceptions import MlflowException

        with translated(self.uri):
            try:
                return _version(self.client.get_model_version(model, str(number)))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                known = [v.number for v in self.versions(model)]
                raise InputError(f"{model} has no version {number}; it has {_listed(known)}") from error

    def versions(self, model: str) -> list[Version]:
        """All versions, the newest first."""
        found: list[Version] = []
        token: str | None = None
        with translated(self.uri):
            while True:
                page = self.client.search_model_versions(
                    f"name = '{model}'", max_results=1000, page_token=token
                )
                found += [_version(one) for one in page]
                token = page.token
                if not token:
                    return sorted(found, key=lambda v: -v.number)

    def standing(self, model: str) -> Standing:
        """Who is champion, challenger and previous."""
        from mlflow.exceptions import MlflowException

        with translated(self.uri):
            try:
                found = self.client.get_registered_model(model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return Standing(model)
            held = {
                alias: _version(self.client.get_model_version(model, str(number)))
                for alias, number in found.aliases.items()
                if alias in (CHAMPION, CHALLENGER, PREVIOUS)
            }
        decided = found.tags.get("decided_on")
        return Standing(model, **held, decided_on=date.fromisoformat(decided) if decided else None)

    def folder(self, version: Version) -> Path:
        """Local folder of a version's files, fetched where they are remote.

        Raises:
            TrackingError: they are not there.
        """
        import mlflow.artifacts

        place = local_path(version.source)
        if place is None:
            with translated(self.uri):
                place = Path(mlflow.artifacts.download_artifacts(version.source, tracking_uri=self.uri))
        if not place.is_dir():
            raise TrackingError(
                f"the files of {version} of {version.model} are not at {place}; restore them from a backup, or choose "
                "another version"
            )
        return place

    def reigning(self, standing: Standing) -> Reigning | None:
        """The champion with its specification and code; None without a champion.

        Raises:
            TrackingError: its files are missing or damaged.
        """
        champion = standing.champion
        if champion is None:
            return None
        specification, code = read_model(self.folder(champion))
        pinned = str(standing.pin) if standing.pin else None
        return Reigning(champion.number, specification, code, pinned, standing.decided_on)

    # --- what changes the standing

    @contextmanager
    def lock(self, model: str, timeout_s: float = LOCK_LIMIT_S) -> Iterator[None]:
        """Whoever changes the standing of `model` holds this, one process at a time.

        Raises:
            TrackingError: another process holds it longer than `timeout_s`.
        """
        with store_lock(self.uri, f"standing-{model}", timeout_s, folder=self._below):
            yield

    def succeed(self, standing: Standing, version: Version) -> None:
        """Make a new version champion, unpinned; `standing` is what it was decided on."""
        before, model = standing.champion, standing.model
        with translated(self.uri):
            if before is not None and (
                before.recipe != version.recipe
                or standing.previous is None
                or standing.previous.recipe == version.recipe
            ):
                self._point(model, PREVIOUS, before.number)
            self._drop_tag(version, "pin")
            self._point(model, CHAMPION, version.number)
            self._drop_tag(version, "rolled_back")
            if before is not None and before.number != version.number:
                self._drop_tag(before, "pin")
            rival = standing.challenger
            if rival and (rival.recipe == version.recipe or rival.number == version.number):
                self.client.delete_registered_model_alias(model, CHALLENGER)

    def challenge(self, version: Version) -> None:
        """Make a version the challenger."""
        with translated(self.uri):
            self._point(version.model, CHALLENGER, version.number)

    def mark_published(self, version: Version) -> None:
        """Note that a forecast of this version was published."""
        if not version.published:
            with translated(self.uri):
                self.client.set_model_version_tag(version.model, str(version.number), "published", "true")

    def note_contest(self, model: str, day: date) -> None:
        """Note that a challenger was judged on the data of `day`."""
        with translated(self.uri):
            self.client.set_registered_model_tag(model, "decided_on", day.isoformat())

    def enthrone(self, version: Version, pin: Pin) -> None:
        """Put a version in the champion's place and hold it there: the one deciding write is the last but one."""
        number = str(version.number)
        with translated(self.uri):
            self.client.set_model_version_tag(version.model, number, "pin", json.dumps(vars(pin)))
            self._point(version.model, CHAMPION, version.number)
            if pin.replaced is not None:
                self._mark_rolled_back(version, pin)

    def complete(self, standing: Standing) -> None:
        """Write what a killed `enthrone` left out: the mark of the version that was replaced."""
        pin = standing.pin
        if pin is None or pin.replaced is None or standing.champion is None:
            return
        replaced = self.version(standing.model, pin.replaced)
        if not replaced.rolled_back:
            with translated(self.uri):
                self._mark_rolled_back(standing.champion, pin)

    def _mark_rolled_back(self, champion: Version, pin: Pin) -> None:
        why = json.dumps({"by": pin.by, "at": pin.at, "reason": pin.reason, "to": champion.number})
        self.client.set_model_version_tag(champion.model, str(pin.replaced), "rolled_back", why)

    def restore(self, standing: Standing, former: Version) -> None:
        """Undo `enthrone`: `former` is champion again, as it was, and what was written for the rollback is gone."""
        pinned = standing.champion
        if pinned is None:
            raise TrackingError(f"{standing.model} has no champion, so there is nothing to undo")
        with translated(self.uri):
            self._point(standing.model, CHAMPION, former.number)
            self._drop_tag(former, "rolled_back")
            self._drop_tag(pinned, "pin")

    def unpin(self, standing: Standing) -> None:
        """Let the champion go: the next run may replace it."""
        if standing.champion:
            with translated(self.uri):
                self._drop_tag(standing.champion, "pin")

    def _point(self, model: str, alias: str, number: int) -> None:
        self.client.set_registered_model_alias(model, alias, str(number))

    def _drop_tag(self, version: Version, tag: str) -> None:
        if tag in version.tags:
            self.client.delete_model_version_tag(version.model, str(version.number), tag)

    def _source(self, model_uri: str) -> tuple[str, str | None]:
        """Where the files of a model are, and the run that made it; looked up here, not in MLflow's default store."""
        from mlflow.exceptions import MlflowException

        logged = re.fullmatch(r"models:/(m-[0-9a-f]+)/?", model_uri)
        of_run = re.fullmatch(r"runs:/([0-9a-f]{32})/(.+?)/?", model_uri)
        with translated(self.uri):
            try:
                if logged:
                    model = self.client.get_logged_model(logged[1])
                    return model.artifact_location, model.source_run_id
                if of_run:
                    run = self.client.get_run(of_run[1])
                    outputs = run.outputs.model_outputs if run.outputs else []
                    for model in (self.client.get_logged_model(o.model_id) for o in outputs):
                        if model.name == of_run[2]:
                            return model.artifact_location, of_run[1]
                    return f"{run.info.artifact_uri}/{of_run[2]}", of_run[1]
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                raise InputError(
                    f"there is no model {model_uri} in the tracking store; expected models:/m-… or runs:/RUN_ID/NAME "
                    "of a model that was logged"
                ) from error
        return model_uri, None


def _version(made: Any) -> Version:
    return Version(made.name, int(made.version), made.run_id or None, made.source, dict(made.tags))


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:10])) or "none"
