"""Registered models: their versions, who is champion, and how that changes.

One model for each pair and horizon, such as `usdclp-7d`; its versions are states that runs have learned. Aliases say
which of them is `champion`, `challenger` and `previous`, the last champion of another recipe than its successor's (of
the same, where there is no other), where a rollback leaves it. A version that is champion and carries the tag `pin` is
held in place.

Whatever changes the champion has one deciding write, the alias `champion`. Before it the version to come is told in one
tag, `succession`, how it comes to be champion, which means nothing while the alias is elsewhere; what is written after
it follows from that tag, and is finished by whoever takes the model's lock next. So a process that is killed leaves the
state from before or the one from after.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forex_core.config import Settings
from forex_core.databases import is_database
from forex_core.errors import InputError, TrackingError
from forex_core.specification import Specification
from forex_core.tracking import queries
from forex_core.tracking.base import Tracker
from forex_core.tracking.build import connect
from forex_core.tracking.packaging import fetched, has_mlmodel, read_model
from forex_core.tracking.store import local_path, open_store, store_lock, translated
from forex_core.types import Horizon, Pair

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

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
MAX_COVERED = 4
"""How many pins of earlier reigns a pin carries, so that its tag has an end: undos walk back no further."""
FILES_TAG = "sha256"
"""Tag of a version: what its files were when it was registered."""
_FILES = ("MLmodel", "*.py", "artifacts/**/*", "code/**/*.py", "code/**/weights/*")
_CHANGE = "succession"
_TRIES = 20

Stage = Literal["None", "Staging", "Production", "Archived"]


@dataclass(frozen=True)
class Pin:
    """Why a champion is held in place: `replaced` is the version that it was put in the place of, if any.

    What the version carried before and an undo puts back: `covers` is the pin of an earlier reign, which has its own,
    `MAX_COVERED` deep; `mark` the note that it had been rolled back from.
    """

    by: str
    at: str
    reason: str
    replaced: int | None = None
    audit_run: str | None = None
    covers: Mapping[str, Any] | None = None
    mark: str | None = None

    def __str__(self) -> str:
        return f"{self.reason.strip() or 'no reason given'} ({self.by}, {self.at})"


@dataclass(frozen=True)
class Change:
    """How a version comes to be champion in the place of `replaced`, or stays it, unpinned ('release').

    `pin` is its own where it is enthroned, and the one that goes where it is restored. `audit_run` is the run that
    tells of a change by hand, and ends with it.
    """

    kind: Literal["succeed", "enthrone", "restore", "release"]
    replaced: int | None
    pin: Pin | None = None
    audit_run: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Change:
        document = json.loads(text)
        pin = document["pin"]
        return cls(**document | {"pin": Pin(**pin) if pin else None})


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
    def rate(self) -> str | None:
        """Which rate of the pair it forecasts, None where that was not noted."""
        return self.tags.get("rate")

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
    def change(self) -> Change | None:
        """What is left to be written of the change that made it champion; means nothing while it is not."""
        return Change.from_json(self.tags[_CHANGE]) if _CHANGE in self.tags else None

    @property
    def pin(self) -> Pin | None:
        """The pin that holds it, if it is champion."""
        change = self.change
        if change is not None and change.kind != "restore":
            return change.pin
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
    def champion_number(self) -> int | None:
        """None without a champion."""
        return self.champion.number if self.champion else None

    @property
    def pin(self) -> Pin | None:
        return self.champion.pin if self.champion else None

    def document(self) -> dict[str, Any]:
        """As plain values, for a record of what was."""
        aliases = {
            name: getattr(self, name).number if getattr(self, name) else None
            for name in (CHAMPION, CHALLENGER, PREVIOUS)
        }
        return {"model": self.model, **aliases, "pin": asdict(self.pin) if self.pin else None}


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
        self._scratch: Path | None = None
        self._fetched: dict[tuple[str, int, str], Path] = {}

    @property
    def client(self) -> MlflowClient:
        return self._open()

    def _open(self) -> MlflowClient:
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
        *,
        files: Path | None = None,
    ) -> Version:
        """Register the files of a model as the next version, and wait until it is ready, 300 s at most.

        Args:
            model_uri: models:/m-… as `Tracker.log_model` returned it, runs:/RUN_ID/PATH, or the address of a folder;
                a server takes no folder of this machine.
            files: the local folder that the model was logged from. The version is held to what is there; without it
                to what the store has, which is read once where it is remote.

        Raises:
            InputError: there is no such model.
            TrackingError: the store refused, or the version did not get ready in time.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

        found = self._source(model_uri)
        made_by = run_id or found.run_id
        known = {name: str(value) for name, value in (tags or {}).items()}
        known[FILES_TAG] = _digest(files) if files else self._digest_of(found.place)
        # A server asks for it. A database has no use for it but to look for a run, in MLflow's default store.
        model_id = found.model_id if made_by or not is_database(self.uri) else None
        with translated(self.uri):
            try:
                self.client.create_registered_model(model_name)
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise
            made = self.client.create_model_version(
                model_name,
                found.place,
                run_id=made_by,
                tags=known,
                description=description,
                await_creation_for=0,
                model_id=model_id,
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

        Production is `champion`, as in a promotion; who is champion already stays as it is, pinned or not. Staging is
        `challenger`. Archived and None take the version's aliases away, and Archived leaves the tag `stage` behind.
        The champion stays champion until another version is.

        Raises:
            InputError: no such stage or version, or another stage than Production for the champion.
        """
        if str(stage) not in STAGES:
            raise InputError(f"'{stage}' is no stage; expected one of {', '.join(STAGES)}")
        if not re.fullmatch(r"[0-9]{1,9}", str(version)):
            raise InputError(f"'{version}' is no version of {model_name}; expected a number such as 3")
        with self.lock(model_name):
            found = self.version(model_name, int(version))
            alias = STAGES[str(stage)]
            held = self.standing(model_name)
            reigns = held.champion is not None and held.champion.number == found.number
            if reigns and alias != CHAMPION:
                raise InputError(
                    f"{found} of {model_name} is champion, and as {stage} it would leave none, so that the next run "
                    "would take its place unjudged; promote another version first ('forex promote', or Production)"
                )
            if alias == CHAMPION and not reigns:
                self.succeed(held, found)
            elif alias == CHALLENGER:
                self.challenge(found)
            with translated(self.uri):
                for name in (CHALLENGER, *(() if alias else (PREVIOUS,))):
                    holder = getattr(held, name)
                    if holder and holder.number == found.number and name != alias:
                        self.client.delete_registered_model_alias(model_name, name)
                if stage == "Archived":
                    self.client.set_model_version_tag(model_name, str(found.number), "stage", stage)
                else:
                    self._set_tag(found, "stage", None)
            return self.version(model_name, found.number)

    def get_run_info(self, run_id: str) -> queries.RunRow:
        """A run with its params, metrics, tags and artifacts, by its id or the beginning of it.

        Raises:
            InputError: no run has that id, or several have it.
        """
        with translated(self.uri):
            return queries.run(self.client, run_id)

    def get_best_run(
        self,
        metric: str,
        mode: Literal["min", "max"] = "min",
        *,
        pair: Pair,
        experiment_name: str | None = None,
    ) -> queries.RunRow | None:
        """The finished run of a pair with the best finite value of a metric and a model that can be loaded, or None.

        The model is what the metric is of: a run that published another version than it learned does not count.

        Args:
            experiment_name: by default the forecasts of the horizon that the metric is named after, such as `7d_rmse`.

        Raises:
            InputError: the metric's name is none, or names no horizon and no experiment is given.
        """
        if experiment_name is None:
            experiment_name = f"forecaster_{Horizon.parse(metric.partition('_')[0])}"
        with translated(self.uri):
            return queries.best_run(self.client, experiment_name, metric, mode, pair, loadable=True)

    def metric_of(self, version: Version, metric: str) -> float | None:
        """What the finished run that learned a version logged of it as a metric; None without a finite value.

        Names without a prefix are of what the run published; where that was another version, this one's have
        `challenger_`.
        """
        from mlflow.exceptions import MlflowException

        if version.run_id is None:
            return None
        with translated(self.uri):
            try:
                run = self.client.get_run(version.run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None
        published = run.data.tags.get("published_version", str(version.number))
        value = run.data.metrics.get(metric if published == str(version.number) else f"challenger_{metric}")
        gone = run.info.status != "FINISHED" or run.info.lifecycle_stage != "active"
        # Infinity is stored as 1.8e308.
        if value is None or gone or not math.isfinite(value) or abs(value) >= 1e308:
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

    def at(self, model: str, alias: str) -> Version:
        """The version that an alias points at.

        Raises:
            InputError: there is no such model, or none of its versions has the alias.
        """
        found = self._registered(model)
        number = found.aliases.get(alias) if found else None
        if number is None:
            known = sorted(found.aliases) if found else []
            has = f"it has {', '.join(known) or 'no alias'}" if found else "there is no such model"
            raise InputError(f"no version of {model} is '{alias}'; {has}")
        return self.version(model, int(number))

    def versions(self, model: str) -> list[Version]:
        """All versions, the newest first."""
        found: list[Version] = []
        token: str | None = None
        quote = '"' if "'" in model else "'"
        with translated(self.uri):
            while True:
                page = self.client.search_model_versions(
                    f"name = {quote}{model}{quote}", max_results=1000, page_token=token
                )
                found += [_version(one) for one in page]
                token = page.token
                if not token:
                    return sorted(found, key=lambda v: -v.number)

    def standing(self, model: str) -> Standing:
        """Who is champion, challenger and previous, all as they were at one instant."""
        found, held = self._registered(model), {}
        for _ in range(_TRIES):
            if found is None:
                return Standing(model)
            held = {
                alias: self.version(model, int(number))
                for alias, number in found.aliases.items()
                if alias in (CHAMPION, CHALLENGER, PREVIOUS)
            }
            before, found = found, self._registered(model)
            if found is not None and found.aliases == before.aliases:
                break
        assert found is not None
        decided = found.tags.get("decided_on")
        return Standing(model, **held, decided_on=date.fromisoformat(decided) if decided else None)

    def folder(self, version: Version) -> Path:
        """Local folder of a version's files, fetched where they are remote and kept as long as this registry.

        Raises:
            TrackingError: they are not there.
        """
        place = local_path(version.source)
        if place is None:
            place = self._kept(version.model, version.number, version.source)
        if place is None or not place.is_dir():
            raise TrackingError(
                f"the files of {version} of {version.model} are not at {place or version.source}; restore them from a "
                "backup, or choose another version"
            )
        return place

    def verified(self, version: Version) -> Path:
        """`folder`, whose files are those that were registered.

        Raises:
            TrackingError: they are not, or are not there.
        """
        folder = self.folder(version)
        registered = version.tags.get(FILES_TAG)
        if registered is not None and registered != _digest(folder):
            raise TrackingError(
                f"the files of {version} of {version.model} in {folder} are not those that were registered; restore "
                "them from a backup, or choose another version"
            )
        return folder

    def _kept(self, model: str, number: int, source: str) -> Path | None:
        """Folder of files fetched from a remote place, None where none are there."""
        key = (model, number, source)
        if key not in self._fetched:
            if self._scratch is None:
                self._scratch = Path(tempfile.mkdtemp(prefix="forex-models-"))
                weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
            found = fetched(self.uri, source, Path(tempfile.mkdtemp(dir=self._scratch)))
            if found is None:
                return None
            self._fetched[key] = found
        return self._fetched[key]

    def model(self, version: Version) -> tuple[Specification, Path]:
        """Specification of a version, and the folder of the code that it carries: as they were registered.

        Raises:
            TrackingError: its files are missing, damaged or altered, or are those of another pair or horizon.
        """
        specification, code = read_model(self.folder(version))  # says what is missing
        self.verified(version)
        if model_name(specification.pair, specification.horizon) != version.model:
            raise TrackingError(
                f"{version} of {version.model} is a model of {specification.pair} {specification.horizon}; choose "
                "another version"
            )
        return specification, code

    # --- what changes the standing

    @contextmanager
    def lock(self, model: str, timeout_s: float = LOCK_LIMIT_S) -> Iterator[None]:
        """Whoever changes the standing of `model` holds this, one process at a time.

        A change that its process did not live to finish is finished here.

        Raises:
            TrackingError: another process holds it longer than `timeout_s`.
        """
        self._open()  # makes a new store, and so the folder that the lock is kept in
        with store_lock(self.uri, f"change-of-champion-{model}", timeout_s, folder=self._below):
            self._finish(model)
            yield

    def confirm(self, standing: Standing) -> None:
        """Refuse to write what was decided on a standing whose champion or pin are others by now.

        The lock says nothing of other machines where the store is a server, and PostgreSQL's ends with its connection.

        Raises:
            TrackingError: they are.
        """
        found = self.standing(standing.model)
        if (found.champion_number, found.pin) != (standing.champion_number, standing.pin):
            raise TrackingError(
                f"the champion of {standing.model} changed since this was decided: it is {_seat(found)}, and was "
                f"{_seat(standing)}; start again from there"
            )

    def succeed(self, standing: Standing, version: Version, audit_run: str | None = None) -> None:
        """Make a version champion, unpinned; `standing` is what it was decided on."""
        self._move(version, Change("succeed", standing.champion_number, audit_run=audit_run))

    def challenge(self, version: Version) -> None:
        """Make a version the challenger."""
        with translated(self.uri):
            self._point(version.model, CHALLENGER, version.number)

    def mark_published(self, version: Version, run: Tracker | None = None) -> None:
        """Note that a forecast of this version was published, for good: without the note it is nobody's candidate.

        Args:
            run: that published it; its spool keeps the note where the store does not take it.
        """
        if version.published:
            return
        if run is not None:
            run.set_version_tag(version.model, version.number, "published", "true")
        else:
            with translated(self.uri):
                self.client.set_model_version_tag(version.model, str(version.number), "published", "true")

    def note_contest(self, model: str, day: date) -> None:
        """Note that a challenger was judged on the data of `day`."""
        with translated(self.uri):
            self.client.set_registered_model_tag(model, "decided_on", day.isoformat())

    def enthrone(self, version: Version, pin: Pin) -> None:
        """Put a version in the champion's place and hold it there."""
        earlier = json.loads(version.tags.get("pin", "null"))
        carried = replace(pin, covers=_cut(earlier, MAX_COVERED), mark=version.tags.get("rolled_back"))
        self._move(version, Change("enthrone", pin.replaced, carried, pin.audit_run))

    def restore(self, standing: Standing, former: Version, audit_run: str | None = None) -> None:
        """Undo `enthrone`: `former` is champion again, as it was, and what was written for the rollback is gone."""
        pinned = standing.champion
        if pinned is None or pinned.pin is None:
            raise TrackingError(f"{standing.model} has no pinned champion, so there is nothing to undo")
        self._move(former, Change("restore", pinned.number, pinned.pin, audit_run))

    def unpin(self, standing: Standing, audit_run: str | None = None) -> None:
        """Take the champion's pin away: the next run may replace it."""
        if standing.champion:
            self._move(standing.champion, Change("release", standing.champion_number, audit_run=audit_run))

    def _move(self, version: Version, change: Change) -> None:
        """Make a version champion: say how, move the alias, which decides it, and write what follows.

        Of who is champion already the tag alone decides.
        """
        with translated(self.uri):
            self.client.set_model_version_tag(version.model, str(version.number), _CHANGE, change.to_json())
            self._point(version.model, CHAMPION, version.number)
        self._finish(version.model)

    def _finish(self, model: str) -> None:
        """Write what follows from the change that made the champion champion; as often as it takes."""
        standing = self.standing(model)
        champion = standing.champion
        change = champion.change if champion else None
        if champion is None or change is None:
            return
        other = None
        if change.replaced not in (None, champion.number):
            with suppress(InputError):  # deleted since
                other = self.version(model, int(change.replaced or 0))
        with translated(self.uri):
            if change.kind == "release":
                self._set_tag(champion, "pin", None)
            elif change.kind == "succeed":
                self._set_tag(champion, "pin", None)
                if other is not None:
                    self._set_tag(other, "pin", None)
                    self._follow(standing, champion, other)
                rival = standing.challenger
                if rival and (rival.recipe == champion.recipe or rival.number == champion.number):
                    self.client.delete_registered_model_alias(model, CHALLENGER)
            elif change.pin is not None and change.kind == "enthrone":
                pin = change.pin
                self._set_tag(champion, "pin", json.dumps(asdict(pin)))
                if other is not None:
                    why = {"by": pin.by, "at": pin.at, "reason": pin.reason, "to": champion.number}
                    self._set_tag(other, "rolled_back", json.dumps(why))
            elif change.pin is not None and other is not None:
                covered = change.pin.covers
                self._set_tag(other, "pin", json.dumps(covered) if covered else None)
                self._set_tag(other, "rolled_back", change.pin.mark)
            self._set_tag(champion, "rolled_back", None)
            if change.audit_run is not None:
                self._end_audit(change.audit_run)
            self._set_tag(champion, _CHANGE, None)

    def _end_audit(self, run_id: str) -> None:
        """The run of a change that was made is FINISHED, whatever became of the process that made it."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.set_terminated(run_id, "FINISHED")
        except MlflowException as error:
            # Deleted since.
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise

    def _follow(self, standing: Standing, champion: Version, other: Version) -> None:
        """`previous` is the last champion of another recipe than its successor's, else of the same."""
        known = standing.previous
        if other.recipe != champion.recipe or known is None or known.recipe == champion.recipe:
            self._point(standing.model, PREVIOUS, other.number)

    def _registered(self, model: str) -> RegisteredModel | None:
        from mlflow.exceptions import MlflowException

        with translated(self.uri):
            try:
                return self.client.get_registered_model(model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None

    def _point(self, model: str, alias: str, number: int) -> None:
        self.client.set_registered_model_alias(model, alias, str(number))

    def _set_tag(self, version: Version, tag: str, value: str | None) -> None:
        """Write what differs from the tags that the version was read with; None takes the tag away."""
        if value is None and tag in version.tags:
            self.client.delete_model_version_tag(version.model, str(version.number), tag)
        elif value is not None and value != version.tags.get(tag):
            self.client.set_model_version_tag(version.model, str(version.number), tag, value)

    def _source(self, model_uri: str) -> _Source:
        """What a model's address stands for; looked up here, not in MLflow's default store.

        Raises:
            InputError: nothing, or a place without MLmodel.
        """
        from mlflow.exceptions import MlflowException

        logged = re.fullmatch(r"models:/(m-[0-9a-f]+)/?", model_uri)
        of_run = re.fullmatch(r"runs:/([0-9a-f]{32})/(.+?)/?", model_uri)
        found = _Source(model_uri.rstrip("/"))
        with translated(self.uri):
            try:
                if logged:
                    model = self.client.get_logged_model(logged[1])
                    found = _Source(model.artifact_location, model.source_run_id, logged[1])
                elif of_run:
                    run = self.client.get_run(of_run[1])
                    outputs = run.outputs.model_outputs if run.outputs else []
                    models = [self.client.get_logged_model(output.model_id) for output in outputs]
                    named = [model for model in models if model.name == of_run[2]]
                    found = (
                        _Source(named[-1].artifact_location, of_run[1], named[-1].model_id)
                        if named
                        else _Source(f"{run.info.artifact_uri}/{of_run[2]}", of_run[1])
                    )
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                raise _no_model(model_uri) from error
            if found.place.startswith(("models:", "runs:")) or not has_mlmodel(self.uri, found.place):
                raise _no_model(model_uri)
        return found

    def _digest_of(self, place: str) -> str:
        local = local_path(place)
        if local is not None:
            return _digest(local)
        with tempfile.TemporaryDirectory() as scratch:
            found = fetched(self.uri, place, Path(scratch))
            if found is None:
                raise _no_model(place)
            return _digest(found)


@dataclass(frozen=True)
class _Source:
    """Where the files of a model are, the run that made it, and the id that it was logged under."""

    place: str
    run_id: str | None = None
    model_id: str | None = None


def _no_model(model_uri: str) -> InputError:
    return InputError(
        f"there is no model {model_uri}; expected models:/m-… or runs:/RUN_ID/NAME of a model that was logged to the "
        "tracking store, or the folder of one, with its file MLmodel"
    )


def _digest(folder: Path) -> str:
    """sha256 over the files that a model is, not over what loading it leaves beside them."""
    digest = hashlib.sha256()
    files = {path for pattern in _FILES for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(files, key=lambda path: path.relative_to(folder).as_posix()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _version(made: Any) -> Version:
    return Version(made.name, int(made.version), made.run_id or None, made.source, dict(made.tags))


def _cut(pin: Mapping[str, Any] | None, depth: int) -> Mapping[str, Any] | None:
    """A pin with at most `depth` in all, it and those that it covers."""
    return {**pin, "covers": _cut(pin["covers"], depth - 1)} if pin and depth else None


def _seat(standing: Standing) -> str:
    return f"version {standing.champion_number}, {'pinned' if standing.pin else 'not pinned'}"


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:10])) or "none"
