"""The flows `rollback` and `promote`: another champion, tried on the data of today, audited, and undone by `undo`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal

from loguru import logger
from prefect import State, flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.forecast import SERVICE, TIME_LIMIT_S, load
from flows.logs import connect_logging
from forex_core.config import Settings, SourceName, load_settings
from forex_core.errors import ConfigError, TrackingError
from forex_core.report.text import succession_markdown
from forex_core.tracking import (
    AUDIT,
    MLflowTracker,
    Registry,
    Standing,
    Version,
    model_name,
    registry_from_settings,
    tracker_from_settings,
)
from forex_core.tracking.rollback import Plan, Succession, latest_snapshot, named, to_promote, to_roll_back
from forex_core.types import Array, Horizon, MarketBundle, Pair

Document = dict[str, Any]

BUSY_LIMIT_S = 5.0
"""How long a run that settles who is champion is waited for."""


@task(name="load current data", cache_policy=NO_CACHE, persist_result=False)
def current_data(
    registry: Registry, settings: Settings, horizon: Horizon, rate: str | None, given: bool
) -> MarketBundle:
    """The data that a version is tried on: those given, else those of the pair's latest recorded run of that rate."""
    pair = Pair.parse(settings.pair)
    bundle = load(settings, None) if given else latest_snapshot(registry, pair, horizon, rate)
    logger.info("{} is tried on {} rows up to {}", pair, len(bundle), bundle.origin)
    return bundle


@task(name="plan", cache_policy=NO_CACHE, persist_result=False)
def planned(find: Callable[[], Plan]) -> Plan:
    """The version to come, found and tried; nothing changes."""
    plan = find()
    logger.info("{}: {} of {}, {}", plan.action, plan.target, plan.standing.model, plan.how)
    return plan


@task(name="carry out", cache_policy=NO_CACHE, persist_result=False)
def carried_out(succession: Succession, plan: Plan, reason: str, settings: Settings) -> Document:
    """The change itself: copy of the database, audit run, the champion's alias. Never tried a second time."""
    tags = {"environment": settings.environment, "prefect_flow_run_id": str(flow_run.id or "none")}
    tracker = _audit(settings, tags, {"service": SERVICE})
    done = succession.carry_out(plan, reason, settings.backups_dir, tracker)
    logger.info("{} is champion of {}", plan.target, plan.standing.model)
    return done


@task(name="show", cache_policy=NO_CACHE, persist_result=False)
def shown(document: Document) -> None:
    """What was done, or would be, on Prefect's page."""
    model = document["model"]
    create_markdown_artifact(
        markdown=succession_markdown(document),
        key=f"champion-{model}",
        description=f"Champion of {model}: {document['action']}{' (dry run)' if document['dry_run'] else ''}",
    )


def _change(
    horizon: str,
    pair: str | None,
    source: SourceName | None,
    paths: list[Path] | None,
    find: Callable[[Succession], Plan],
    about: Callable[[Registry, Standing], Version | None],
    reason: str,
    dry_run: bool,
    champion: int | None,
) -> Document:
    """What both flows do: under the model's lock from the first look to the last write."""
    connect_logging()
    settings, ahead = load_settings(pair=pair, source=source, paths=paths), Horizon.parse(horizon)
    if not settings.tracking.is_on:
        raise ConfigError(
            "tracking is off, so there is no champion to change; set FOREX_TRACKING__ENABLED=true"
        )
    currencies = Pair.parse(settings.pair)
    registry, model = registry_from_settings(settings), model_name(currencies, ahead)
    seen = champion or registry.standing(model).champion_number
    with registry.lock(model, BUSY_LIMIT_S):
        standing = registry.standing(model)
        if (found := standing.champion_number) != seen:
            raise TrackingError(
                f"the champion of {model} is version {found}, and was version {seen} when this was asked for: it was "
                "changed meanwhile, and nothing more was; look at 'forex models history' before you try again"
            )
        asked = about(registry, standing)
        rate = asked.rate if asked else None
        bundle = current_data(registry, settings, ahead, rate, source is not None or bool(paths))
        succession = Succession(registry, model, ahead, bundle, settings.members_cache)
        plan = planned(lambda: find(succession))
        document = plan.document if dry_run else carried_out(succession, plan, reason, settings)
    document |= {"dry_run": dry_run, "pair": str(currencies), "horizon": str(ahead)}
    told = shown(document, return_state=True)
    if told.is_failed():  # which makes nothing undone
        logger.warning("Prefect's page does not show the {} of {}: {}", plan.action, model, told.message)
    return document


def adapt_bands(
    horizon: Horizon, factors: Array, until: date, why: str, settings: Settings, champion: int
) -> Document:
    """The champion with other bands in its own place, tried and audited like every change of champion."""
    tags = {"pair": settings.pair, "environment": settings.environment}

    def find(succession: Succession) -> Plan:
        return succession.adapt(factors, until, why, _audit(settings, tags))

    def about(_: Registry, standing: Standing) -> Version | None:
        return standing.champion

    paths = list(settings.paths)
    return _change(str(horizon), settings.pair, settings.source, paths, find, about, why, False, champion)


def _audit(
    settings: Settings, tags: Mapping[str, str], experiment_tags: Mapping[str, str] | None = None
) -> MLflowTracker:
    """The tracker of the run that a change is recorded in. `_change` has seen that tracking is on."""
    tracker = tracker_from_settings(
        settings, AUDIT, experiment_tags=experiment_tags, tags=tags, start_on_enter=False
    )
    assert isinstance(tracker, MLflowTracker)
    return tracker


def _held(horizon: str, pair: str | None) -> str | None:
    """By whom the champion is held in place, if it is."""
    settings = load_settings(pair=pair)
    if not settings.tracking.is_on:
        return None  # told as an error
    model = model_name(Pair.parse(settings.pair), Horizon.parse(horizon))
    standing = registry_from_settings(settings).standing(model)
    if standing.pin is None:
        return None
    return f"{standing.champion} is champion of {model} and is held in place: {standing.pin}. It stays there."


@flow(
    name="rollback",
    description="Put an earlier model back in the champion's place and hold it there.",
    validate_parameters=True,
    timeout_seconds=TIME_LIMIT_S,
    persist_result=False,
    result_serializer="json",  # Prefect keeps the error of a flow that fails, by default as a pickle
)
def rollback(
    horizon: str,
    pair: str | None = None,
    to: str | None = None,
    metric: str | None = None,
    mode: Literal["min", "max"] = "min",
    dry_run: bool = False,
    undo: bool = False,
    reason: str = "",
    source: SourceName | None = None,
    paths: list[Path] | None = None,
    champion: int | None = None,
    unless_pinned: bool = False,
) -> Document | State[Document]:
    """Roll back, or undo the last rollback.

    Args:
        horizon: 7d, 15d, 30d or 90d.
        pair: currency pair such as USDCLP; by default the one of the settings.
        to: version or run to go back to; by default the best previous one.
        metric: rank versions by this metric of their runs, such as 7d_rmse.
        mode: whether the least or the greatest metric is the best.
        dry_run: find the version, try it, and change nothing.
        undo: put the champion back that the last rollback replaced.
        reason: why; it is recorded.
        source: where the data come from that the version is tried on; by default the latest recorded run.
        paths: files of source csv.
        champion: version that is champion as far as you know, and refused otherwise; by default the one of when this
            begins, so that of two at once the second is refused.
        unless_pinned: leave a champion that is held in place where it is; for an automation, which may ask twice.
    """
    if unless_pinned and (reason_not_to := _held(horizon, pair)):
        return Completed(name="Skipped", message=reason_not_to)
    find = to_roll_back(to, metric, mode, undo)

    def about(_: Registry, standing: Standing) -> Version | None:
        return standing.champion  # another rate's model is no way back

    return _change(horizon, pair, source, paths, find, about, reason, dry_run, champion)


@flow(
    name="promote",
    description="Put the challenger or a named version in the champion's place, or take its pin away.",
    validate_parameters=True,
    timeout_seconds=TIME_LIMIT_S,
    persist_result=False,
    result_serializer="json",  # Prefect keeps the error of a flow that fails, by default as a pickle
)
def promote(
    horizon: str,
    pair: str | None = None,
    to: str | None = None,
    unpin: bool = False,
    dry_run: bool = False,
    reason: str = "",
    source: SourceName | None = None,
    paths: list[Path] | None = None,
    champion: int | None = None,
) -> Document:
    """Promote a version, by default the challenger; the champion is not pinned afterwards.

    Args:
        horizon: 7d, 15d, 30d or 90d.
        pair: currency pair such as USDCLP; by default the one of the settings.
        to: version or run to promote; by default the challenger, or nobody where there is none.
        unpin: promote nobody; keep the champion and take its pin away.
        dry_run: try the version, and change nothing.
        reason: why; it is recorded.
        source: where the data come from that the version is tried on; by default the latest recorded run.
        paths: files of source csv.
        champion: version that is champion as far as you know, and refused otherwise; by default the one of when this
            begins, so that of two at once the second is refused.
    """

    find = to_promote(to, unpin)

    def about(registry: Registry, standing: Standing) -> Version | None:
        if to is not None:
            return named(registry, standing.model, to)
        return (None if unpin else standing.challenger) or standing.champion

    return _change(horizon, pair, source, paths, find, about, reason, dry_run, champion)
