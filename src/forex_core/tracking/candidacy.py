"""The champion while one forecast run is made, and what becomes of the state that the run learns."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Self

from loguru import logger

from forex_core.champion import Choice, Reigning
from forex_core.config import Settings
from forex_core.engine import Engine
from forex_core.errors import ForecastError, TrackingError, TrackingUnavailable
from forex_core.specification import Specification, frame_of
from forex_core.tracking.base import Tracker
from forex_core.tracking.packaging import MODEL, import_mlflow, save_model
from forex_core.tracking.queries import existing_store
from forex_core.tracking.registry import (
    Registry,
    Standing,
    Version,
    model_name,
    registry_from_settings,
)
from forex_core.types import ForecastRun, Horizon, MarketBundle, Pair, Publication

WAIT_S = 300.0
"""How long a run waits for another run of the same model, or for a rollback."""


class Candidacy:
    """The champion of one pair and horizon while a run is made, and what becomes of the state that the run learns.

    As a context it holds the model's lock, so that nobody else changes the champion between the first look and the
    report. `standing` is what it found; `warnings` collects what went wrong on the way without stopping the run.

    Raises:
        TrackingUnavailable: on entering, when the store cannot say who is champion.
        TrackingError: on entering, when another run or a rollback holds the lock for longer than `WAIT_S`.
    """

    def __init__(self, registry: Registry, pair: Pair, horizon: Horizon) -> None:
        self.registry = registry
        self.pair = pair
        self.horizon = horizon
        self.model = model_name(pair, horizon)
        self.standing = Standing(self.model)
        self.warnings: list[str] = []
        self._held = ExitStack()

    @classmethod
    def of(cls, settings: Settings, pair: Pair, horizon: Horizon) -> Candidacy | None:
        """Of a deployment; None where tracking is off."""
        if not settings.tracking.is_on:
            return None
        return cls(registry_from_settings(settings), pair, horizon)

    def __enter__(self) -> Self:
        try:
            with ExitStack() as entering:
                entering.enter_context(self.registry.lock(self.model, WAIT_S))
                self.standing = self.registry.standing(self.model)
                self._held = entering.pop_all()
        except TrackingUnavailable as error:
            raise TrackingUnavailable(
                f"{error}. Without it nobody knows which model is champion; FOREX_TRACKING__ENABLED=false makes a "
                "forecast of today's model, untracked"
            ) from error
        return self

    def __exit__(self, *raised: object) -> None:
        try:
            self._held.close()
        except TrackingError as error:  # the store went away meanwhile, and the lock with it
            logger.warning("the lock of {} could not be given back: {}", self.model, error)

    def reigning(self, engine: Engine, bundle: MarketBundle) -> Reigning | None:
        """The champion, None where there is none or where its files are lost and the run's own state may follow it.

        Raises:
            TrackingError: its files are lost, and it is pinned or of another recipe or rate.
        """
        champion = self.standing.champion
        try:
            return reigning_of(self.registry, self.standing)
        except TrackingUnavailable:
            raise
        except TrackingError as error:
            assert champion is not None
            learned = champion.trained_until
            later = learned is not None and learned > bundle.origin
            apart = champion.rate not in (None, bundle.rate)
            if self.standing.pin or champion.recipe != engine.recipe or apart or later:
                raise TrackingError(f"{error}. {self.cure}") from error
            self.warnings.append(
                f"The champion, {champion}, cannot be used, and the next state of its recipe takes its place: {error}."
            )
            return None

    @property
    def cure(self) -> str:
        """What helps against a champion that does not work."""
        of = f"{self.horizon} --pair {self.pair}"
        back = f"'forex rollback {of}' goes back to another version"
        if self.standing.challenger in (None, self.standing.champion):
            return back
        return f"{back}, 'forex promote {of}' puts the challenger in its place"

    def register(
        self, tracker: Tracker, new: ForecastRun, bundle: MarketBundle, settings: Settings
    ) -> Version | None:
        """Log the model that the run has learned and register it; None where that cannot be done just now."""
        specification = Specification.of(new, bundle, settings.engine, settings.chronos)
        try:
            with tempfile.TemporaryDirectory() as scratch:
                folder = save_model(specification, frame_of(bundle), Path(scratch) / MODEL)
                address = tracker.log_model(folder, MODEL)
                if address is None:
                    self.warnings.append(
                        "The model of this run could not be logged, so the champion stays as it is."
                    )
                    return None
                return self._registered(address, folder, tracker.run_id, new, bundle)
        except (TrackingError, ForecastError, OSError) as error:  # no room in the temporary folder, say
            self.warnings.append(
                f"The model of this run could not be written, so the champion stays as it is: {error}."
            )
            return None

    def _registered(
        self, address: str, folder: Path, run_id: str | None, new: ForecastRun, bundle: MarketBundle
    ) -> Version | None:
        try:
            return self.registry.register_model(
                self.model,
                address,
                f"{new.horizon} forecasts of {bundle.pair}, learned up to {new.state.trained_until}",
                {
                    "pair": bundle.pair,
                    "rate": bundle.rate,
                    "horizon": new.horizon,
                    "recipe": new.recipe,
                    "trained_until": new.state.trained_until,
                    "fingerprint": new.fingerprint,
                },
                run_id,
                files=folder,
            )
        except TrackingError as error:
            self.warnings.append(f"The model of this run could not be registered: {error}.")
            return None

    def settle(self, choice: Choice, made: Version | None, origin: date) -> Choice:
        """Write down what was decided, and return what is so: what could not be written has not happened.

        Args:
            made: the version of the new state; None where there is none.
            origin: day of the data.
        """
        decision = choice.decision
        try:
            if made is not None and decision.outcome != "past":
                self.registry.confirm(self.standing)
            if made is not None and decision.succeeds:
                self.registry.succeed(self.standing, made)
            elif made is not None and decision.outcome != "past":
                rival = self._rival(made)
                if rival is None:
                    self.registry.challenge(made)
                else:
                    reason = (
                        f"{decision.reason} {str(made).capitalize()} is not on trial against it, so {rival} stays the "
                        "challenger."
                    )
                    choice = replace(choice, decision=replace(decision, reason=reason))
            # A contest that was won is over when its winner is champion; till then it may be held again.
            if decision.comparison is not None and (made is not None or not decision.succeeds):
                self.registry.note_contest(self.model, origin)
        except TrackingError as error:
            self.warnings.append(f"The registry could not be written: {error}.")
            if not (decision.succeeds and self._is_champion(made)):
                made = None
        if made is None and decision.succeeds:
            choice = choice.withheld()
        logger.info("{}: {}", self.model, choice.decision.reason)
        return choice

    def publication(self, choice: Choice, made: Version | None) -> Publication:
        """What a reader is told of the model behind the forecast."""
        decision = choice.decision
        own = made.number if made else None
        champion = self.standing.champion.number if self.standing.champion else None
        mine = decision.publishes_new
        return Publication(
            model=self.model,
            version=own if mine else champion,
            outcome=decision.outcome,
            reason=decision.reason,
            challenger=None if mine or (made is not None and self._rival(made)) else own,
            warnings=tuple(self.warnings),
        )

    def mark_published(self, choice: Choice, made: Version | None, tracker: Tracker) -> None:
        """Note which version has published as champion; what the store does not take goes where the run goes."""
        version = made if choice.decision.succeeds else self.standing.champion
        if version is not None and choice.decision.outcome not in ("past", "apart"):
            try:
                self.registry.mark_published(version, tracker)
            except TrackingError as error:
                self.warnings.append(f"{version} could not be marked as published: {error}.")

    def _rival(self, made: Version) -> Version | None:
        """The challenger on trial that a new state which is not to be tried against the champion does not displace.

        Tried is another recipe for the champion's rate: not a state of its own recipe, nor one of another rate.
        """
        champion, challenger = self.standing.champion, self.standing.challenger
        if champion is None or challenger is None:
            return None

        def tried(version: Version) -> bool:
            return version.recipe != champion.recipe and version.rate == champion.rate

        return challenger if tried(challenger) and not tried(made) else None

    def _is_champion(self, version: Version | None) -> bool:
        """Whether the deciding write got through before something went wrong."""
        try:
            champion = self.registry.standing(self.model).champion
        except TrackingError:
            return False
        return version is not None and champion is not None and champion.number == version.number


def reigning_of(registry: Registry, standing: Standing) -> Reigning | None:
    """The champion with its specification and code; None without a champion.

    Raises:
        TrackingError: as `Registry.model`.
    """
    champion = standing.champion
    if champion is None:
        return None
    specification, code = registry.model(champion)
    pinned = str(standing.pin) if standing.pin else None
    return Reigning(champion.number, specification, code, pinned, standing.decided_on)


def has_champion(settings: Settings, pair: Pair, horizon: Horizon) -> bool:
    """Whether a deployment has a champion, which may stand in for today's recipe; no store is made to find out.

    Raises:
        TrackingError: the store cannot be opened or read.
    """
    if not settings.tracking.is_on:
        return False
    registry = registry_from_settings(settings)
    with existing_store(registry.uri) as client:
        return client is not None and registry.standing(model_name(pair, horizon)).champion is not None


def prepare_store(settings: Settings) -> None:
    """Open the store and import what a run writes its model with, for a caller that has the time.

    Raises:
        TrackingError: the store cannot be opened.
    """
    if settings.tracking.is_on:
        import_mlflow()
        registry_from_settings(settings).client.search_experiments(max_results=1)
