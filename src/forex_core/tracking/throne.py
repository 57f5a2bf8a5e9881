"""The champion's place in one forecast run: found, contested, and settled at the end of the run."""

from __future__ import annotations

import tempfile
from datetime import date
from pathlib import Path

from loguru import logger

from forex_core.champion import Decision, Reigning
from forex_core.config import Settings
from forex_core.engine import Engine
from forex_core.errors import TrackingError, TrackingUnavailable
from forex_core.specification import Specification, frame_of
from forex_core.tracking.base import Tracker
from forex_core.tracking.packaging import MODEL, import_mlflow, save_model
from forex_core.tracking.registry import (
    Registry,
    Standing,
    Version,
    model_name,
    registry_from_settings,
)
from forex_core.types import ForecastRun, Horizon, MarketBundle, Pair, Publication


class Throne:
    """Who is champion of one pair and horizon when a run starts, and what the run makes of it.

    `warnings` collects what went wrong on the way without stopping the run.

    Raises:
        TrackingUnavailable: the store cannot say who is champion.
    """

    def __init__(self, registry: Registry, model: str) -> None:
        self.registry = registry
        self.warnings: list[str] = []
        try:
            self.standing: Standing = registry.standing(model)
        except TrackingUnavailable as error:
            raise TrackingUnavailable(
                f"{error}. Without it nobody knows which model is champion; FOREX_TRACKING__ENABLED=false makes a "
                "forecast of today's model, untracked"
            ) from error

    @classmethod
    def of(cls, settings: Settings, pair: Pair, horizon: Horizon) -> Throne | None:
        """Of a deployment; None where tracking is off."""
        if not settings.tracking.is_on:
            return None
        return cls(registry_from_settings(settings), model_name(pair, horizon))

    def reigning(self, engine: Engine, bundle: MarketBundle) -> Reigning | None:
        """The champion, None where there is none or where its files are lost and the run's own state may follow it.

        Raises:
            TrackingError: its files are lost, and it is pinned or of another recipe.
        """
        champion = self.standing.champion
        try:
            return self.registry.reigning(self.standing)
        except TrackingUnavailable:
            raise
        except TrackingError as error:
            assert champion is not None
            learned = champion.trained_until
            later = learned is not None and learned > bundle.origin
            if self.standing.pin or champion.recipe != engine.recipe or later:
                horizon = self.standing.model.rpartition("-")[2]
                raise TrackingError(
                    f"{error}. 'forex rollback {horizon}' goes back to another version, 'forex promote {horizon}' on "
                    "to the challenger"
                ) from error
            self.warnings.append(
                f"The champion, {champion}, cannot be used, and the next state of its recipe takes its place: {error}."
            )
            return None

    def register(
        self, tracker: Tracker, new: ForecastRun, bundle: MarketBundle, settings: Settings
    ) -> Version | None:
        """Log the model that the run has learned and register it; None where that cannot be done just now."""
        specification = Specification.of(new, bundle, settings.engine, settings.chronos)
        try:
            with tempfile.TemporaryDirectory() as scratch:
                folder = save_model(specification, frame_of(bundle), Path(scratch) / MODEL)
                address = tracker.log_model(folder, MODEL)
        except (TrackingError, OSError) as error:  # no room in the temporary folder, say
            self.warnings.append(
                f"The model of this run could not be written, so the champion stays as it is: {error}."
            )
            return None
        if address is None:
            self.warnings.append("The model of this run could not be logged, so the champion stays as it is.")
            return None
        try:
            return self.registry.register_model(
                self.standing.model,
                address,
                f"{new.horizon} forecasts of {bundle.pair}, learned up to {new.state.trained_until}",
                {
                    "pair": bundle.pair,
                    "horizon": new.horizon,
                    "recipe": new.recipe,
                    "trained_until": new.state.trained_until,
                    "fingerprint": new.fingerprint,
                },
                tracker.run_id,
            )
        except TrackingError as error:
            self.warnings.append(f"The model of this run could not be registered: {error}.")
            return None

    def publication(self, decision: Decision, made: Version | None) -> Publication:
        """What a reader is told of the model behind the forecast."""
        own = made.number if made else None
        champion = self.standing.champion.number if self.standing.champion else None
        mine = decision.succeeds or decision.outcome == "past"
        return Publication(
            model=self.standing.model,
            version=own if mine else champion,
            outcome=decision.outcome,
            reason=decision.reason,
            challenger=None if mine else own,
            warnings=tuple(self.warnings),
        )

    def settle(self, decision: Decision, made: Version, origin: date) -> None:
        """Write down what was decided, unless someone else has changed the champion meanwhile."""
        try:
            with self.registry.lock(self.standing.model):
                self._settle(decision, made, origin)
        except TrackingError as error:
            self.warnings.append(f"The champion stays as it is, the registry could not be written: {error}.")

    def _settle(self, decision: Decision, made: Version, origin: date) -> None:
        now = self.registry.standing(self.standing.model)
        if _seat(now) != _seat(self.standing):
            self.warnings.append(
                f"The champion changed to {now.champion} while this forecast was made; it is left in its place."
            )
            return
        if decision.outcome == "past":
            return
        if decision.succeeds:
            self.registry.mark_published(made)
            self.registry.succeed(now, made)
        else:
            assert now.champion is not None
            self.registry.mark_published(now.champion)
            self.registry.challenge(made)
        if decision.comparison is not None:
            self.registry.note_contest(self.standing.model, origin)
        logger.info("{}: {}", self.standing.model, decision.reason)


def prepare_store(settings: Settings) -> None:
    """Open the store and import what a run writes its model with, for a caller that has the time.

    Raises:
        TrackingError: the store cannot be opened.
    """
    if settings.tracking.is_on:
        import_mlflow()
        registry_from_settings(settings).client.search_experiments(max_results=1)


def _seat(standing: Standing) -> tuple[int | None, bool]:
    return (standing.champion.number if standing.champion else None, standing.pin is not None)
