"""The flow `monitor`: what came of what was published, what that was worth, and whether something is wrong."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger
from prefect import State, flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.forecast import SERVICE, TIME_LIMIT_S, load
from flows.logs import connect_logging
from flows.notice import notifier_of
from flows.rollback import adapt_bands, rollback
from forex_core.config import Settings, SourceName, load_settings
from forex_core.errors import ConfigError, ForexError, NotifyError, TrackingError
from forex_core.ledger import Alarm, Ledger, Pending, Published, Raised, Scored, Track
from forex_core.ledger.live import LeadScores, at_the_end, by_lead
from forex_core.monitoring import Reading, band_factors, drift, faults, judge, key, silence
from forex_core.notify import Message, Sent
from forex_core.report.document import data_notices
from forex_core.report.track import monitor_markdown, scores_document
from forex_core.tracking import (
    ALARM_TAG,
    OUTCOME_TAG,
    model_name,
    registry_from_settings,
    tracker_from_settings,
)
from forex_core.tracking.records import live_record
from forex_core.types import HORIZONS, LEVELS, Horizon, MarketBundle, Pair

Document = dict[str, Any]

LOOKED_BACK_DAYS = 2 * 365
TOLD_WITHIN_DAYS = 30
"""An alarm that nobody has heard of for so long is told no more: who is named only then finds it on the dashboard."""
DEGRADED = frozenset({"narrow bands", "no skill"})
"""Alarms that say that the champion is worse than it promised."""
BANDS = frozenset({"narrow bands", "wide bands"})


@task(name="deliver", cache_policy=NO_CACHE, persist_result=False)
def delivered(settings: Settings, ledger: Ledger) -> tuple[str, ...]:
    """Forecasts that wait for the ledger are written; what is wrong with the others."""
    count, faults = Pending(settings.pending_dir).deliver(ledger)
    if count:
        logger.info("{} forecasts that waited are in the ledger now", count)
    return faults


@task(name="score", cache_policy=NO_CACHE, persist_result=False)
def scored(ledger: Ledger, bundle: MarketBundle) -> tuple[Document, tuple[Scored, ...]]:
    """What came is recorded, and every forecast scored that it is the outcome of."""
    came = ledger.observe(bundle)
    found = ledger.score()
    logger.info("{} new outcomes, {} revised, {} scores", came.new, came.revised, len(found))
    return asdict(came), found


@task(name="judge", cache_policy=NO_CACHE, persist_result=False)
def judged(
    ledger: Ledger, bundle: MarketBundle, horizon: Horizon, settings: Settings
) -> tuple[Track, list[Reading]]:
    """The track record of a horizon, and the alarms of the recipe that publishes now: of another it says nothing.

    All as it stood at the bundle's as-of.
    """
    since = bundle.origin - timedelta(days=LOOKED_BACK_DAYS)
    track = ledger.track(bundle.pair, bundle.rate, horizon, since=since, until=bundle.as_of, members=True)
    raised = _raised_before(ledger, bundle, horizon)
    published = _live(ledger, bundle, horizon)
    own = [one.number for one in published if one.recipe == published[-1].recipe]
    return track, [*judge(track.at(np.isin(track.publications, own)), raised, settings.monitor)]


@task(name="log", cache_policy=NO_CACHE, persist_result=False)
def logged(
    track: Track, readings: list[Reading], ledger: Ledger, bundle: MarketBundle, settings: Settings
) -> str | None:
    """The live record of a horizon as a run of `monitor_7d` and the like, once for the same outcomes."""
    horizon = track.horizon
    content = hashlib.sha256()
    for values in (track.publications, track.steps, track.outcomes):
        content.update(values.tobytes())
    tags = {
        "pair": str(bundle.pair),
        "rate": bundle.rate,
        "horizon": str(horizon),
        "record": content.hexdigest(),
    }
    tracker = tracker_from_settings(
        settings,
        f"monitor_{horizon}",
        start_on_enter=False,
        experiment_tags={"model_family": "ensemble", "horizon": str(horizon), "service": SERVICE},
        run_name=f"monitor_{datetime.now(UTC):%Y%m%d_%H%M%S}",
        tags=tags | {"environment": settings.environment, "prefect_flow_run_id": str(flow_run.id or "none")},
    )
    if (there := tracker.find_run(tags)) is not None:
        return there
    with tracker:
        run_id = tracker.start_run()
        heads = zip((OUTCOME_TAG, ALARM_TAG), ledger.heads(), strict=True)
        tracker.set_tags({tag: digest for tag, digest in heads if digest is not None})
        alarms = {key(r.kind, r.step): r.statistic / r.threshold for r in readings}
        tracker.log(live_record(horizon, by_lead(track), at_the_end(track), alarms))
    return run_id


@task(name="tell", cache_policy=NO_CACHE, persist_result=False)
def tell(alarms: tuple[Raised, ...], warnings: list[str], settings: Settings) -> Sent:
    """Tell alarms, and what was done about them, to whom the settings name.

    Raises:
        ConfigError, NotifyError: there is somebody to be told, and it reached nobody.
    """
    title = f"forex monitor: alarm of {alarms[0].pair}, {settings.environment} on {socket.gethostname()}"
    told = [
        f"{_words(one.pair, one.horizon, one.alarm)} (raised {one.raised_at:%Y-%m-%d %H:%M} UTC)"
        for one in alarms
    ]
    todo = 'What to do: docs/operations.md, "The live track record".'
    sent = notifier_of(settings).send(Message(title, "\n".join([*told, *warnings, todo]), kind="warning"))
    if sent.refused and not sent.delivered:
        raise NotifyError("; ".join(f"{one.target}: {one.reason}" for one in sent.refused))
    return sent


def _adapted(
    ledger: Ledger,
    bundle: MarketBundle,
    horizon: Horizon,
    settings: Settings,
) -> list[str]:
    """Bands of a champion that stays as it is are brought to what came of them; those of one that is learned anew
    each day follow by themselves."""
    registry, model = registry_from_settings(settings), model_name(bundle.pair, horizon)
    champion = registry.standing(model).champion
    if champion is None:
        return []
    standing = ledger.paths(bundle.pair, bundle.rate, horizon)
    own = [
        path
        for path in standing
        if path.of.live
        and (path.of.model, path.of.version) == (model, champion.number)
        and path.levels == LEVELS
    ]
    known = sum(int(np.isfinite(path.outcomes).any()) for path in own)
    if known < settings.monitor.min_forecasts:
        return []
    factors = band_factors(own, bundle.origin, settings.engine.grid_every)
    why = f"by the monitor: bands of {champion} after {known} forecasts of its own"
    try:
        done = adapt_bands(horizon, factors, bundle.origin, why, settings, champion.number)
    except ForexError as error:
        return [f"The bands of {horizon} stay as they are: {error}."]
    told = f"{horizon} has other bands: version {done['to_version']} is version {done['from_version']} with "
    if done["champion_says"] is None:
        return [f"{told}bands of other widths."]
    now, before = (_width_80(done[which]) for which in ("forecast", "champion_says"))
    return [f"{told}an 80 % band {now / before:.2f} times as wide at its end."]


def _width_80(end: Document) -> float:
    return float(end["high_80"] - end["low_80"])


@flow(
    name="monitor",
    description="Scores published forecasts as their outcomes come, and raises alarms.",
    validate_parameters=True,
    timeout_seconds=TIME_LIMIT_S,
    persist_result=False,
    result_serializer="json",  # Prefect keeps the error of a flow that fails, by default as a pickle
)
def monitor(
    pair: str | None = None,
    source: SourceName | None = None,
    paths: list[Path] | None = None,
    as_of: date | None = None,
) -> Document | State[Document]:
    """Score what was published, and say what is wrong.

    Args:
        pair: currency pair such as USDCLP; by default the one of the settings.
        source: where the outcomes come from; by default the one of the settings.
        paths: files of source csv.
        as_of: look back at what was said and known at the origin of this date: its outcomes are recorded and scored,
            and nothing else is done, kept or logged; by default now.
    """
    connect_logging()
    settings = load_settings(pair=pair, source=source, paths=paths)
    ledger = Ledger(settings.store_url, settings.root)
    warnings = [*delivered(settings, ledger)]
    bundle = load(settings, as_of)
    came, scores = scored(ledger, bundle)
    published = {
        horizon: max(one.published_at for one in found)
        for horizon in HORIZONS
        if (found := _live(ledger, bundle, horizon))
    }
    horizons: dict[str, Document] = {}
    raised: list[str] = []
    noticed: list[tuple[Horizon | None, list[Reading]]] = []
    for horizon in published:
        track, readings = judged(ledger, bundle, horizon, settings)
        ends = at_the_end(track)
        run_id = None
        if len(track) and as_of is None:
            try:
                run_id = logged(track, readings, ledger, bundle, settings)
            except TrackingError as error:
                warnings.append(f"The live record of {horizon} could not be logged: {error}.")
        days = (bundle.as_of - published[horizon]).days
        limit = settings.monitor.silent_after_days[str(horizon)]
        before = _raised_before(ledger, bundle, horizon)
        readings.append(silence(published[horizon].date(), days, limit, before))
        noticed.append((horizon, readings))
        alarms = [reading for reading in readings if reading.raised]
        told = [_words(bundle.pair, horizon, r) for r in alarms]
        raised += told
        done = (
            _acted(ledger, bundle, horizon, alarms, told, settings, source, paths)
            if alarms and as_of is None
            else []
        )
        warnings += done
        horizons[str(horizon)] = _horizon_document(by_lead(track), ends, readings, run_id, done)
    before, ages = _raised_before(ledger, bundle, None), settings.source in ("live", "auto", "store")
    of_data = [*drift(bundle, before, settings.monitor), *faults(bundle, before, ages=ages)]
    noticed.append((None, of_data))
    raised += [_words(bundle.pair, None, r) for r in of_data if r.raised]
    document: Document = {
        "pair": str(bundle.pair),
        "rate": bundle.rate,
        "origin": bundle.origin.isoformat(),
        "as_of": bundle.as_of.isoformat(),
        "outcomes": came,
        "scored": len(scores),
        "horizons": horizons,
        "data": {"alarms": [_reading_document(r) for r in of_data], "notices": data_notices(bundle)},
        "raised": raised,
        "warnings": warnings,
        "told": [],
    }
    is_told = False
    if as_of is None:
        create_markdown_artifact(
            markdown=monitor_markdown(document),
            key=f"monitor-{bundle.pair.slug}",
            description=f"Live track record of {bundle.pair}",
        )
        # Last, so that a run that ends before raises them again.
        for of, readings in noticed:
            _keep(ledger, bundle, of, readings)
        since = bundle.as_of - timedelta(days=TOLD_WITHIN_DAYS)
        if untold := ledger.alarms(bundle.pair, bundle.rate, untold_since=since):
            try:
                sent = tell(untold, warnings, settings)
            except (ConfigError, NotifyError) as error:
                warnings.append(f"Alarms reached nobody, and the next run tells them again: {error}.")
            else:
                document["told"] = [one.target for one in sent.delivered]
                warnings += [f"Alarms did not reach {one.target}: {one.reason}." for one in sent.refused]
                is_told = bool(sent.delivered) and not sent.refused
                if sent.delivered:
                    ledger.told(untold)
    if not raised and not warnings:
        return document
    # A warning is what the server tells, and nobody need hear of the past.
    name = "Completed" if is_told or as_of is not None else "CompletedWithWarning"
    return Completed(name=name, message=" ".join([*raised, *warnings]), data=document)


def _words(pair: Pair, horizon: Horizon | None, alarm: Alarm | Reading) -> str:
    of = f"{pair} {horizon}" if horizon else f"{pair}"
    return f"{of}, {key(alarm.kind, alarm.step)}: {alarm.found}"


def _raised_before(ledger: Ledger, bundle: MarketBundle, horizon: Horizon | None) -> dict[str, date]:
    """The last origin that each alarm was raised for."""
    found: dict[str, date] = {}
    for one in ledger.alarms(bundle.pair, bundle.rate, until=bundle.as_of):
        if one.horizon == horizon:
            name = key(one.alarm.kind, one.alarm.step)
            found[name] = max(one.alarm.origin, found.get(name, one.alarm.origin))
    return found


def _live(ledger: Ledger, bundle: MarketBundle, horizon: Horizon) -> list[Published]:
    """The forecasts of the rate that were published in their time."""
    return [*ledger.publications(bundle.pair, horizon, rate=bundle.rate, live=True, until=bundle.as_of)]


def _keep(ledger: Ledger, bundle: MarketBundle, horizon: Horizon | None, readings: list[Reading]) -> None:
    """The alarms that are raised, so that each is raised once."""
    for r in readings:
        if r.raised:
            alarm = Alarm(r.kind, r.step, r.until or bundle.origin, r.statistic, r.threshold, r.found)
            ledger.raise_alarm(bundle.pair, bundle.rate, horizon, alarm)
            logger.warning("{}: {}", key(r.kind, r.step), r.found)


def _acted(
    ledger: Ledger,
    bundle: MarketBundle,
    horizon: Horizon,
    alarms: list[Reading],
    told: list[str],
    settings: Settings,
    source: SourceName | None,
    paths: list[Path] | None,
) -> list[str]:
    """What is done about alarms: a rollback where the settings say so, and either way bands as they should be."""
    kinds = {alarm.kind for alarm in alarms}
    if not settings.tracking.is_on:
        return []
    done = []
    if settings.auto_rollback and kinds & DEGRADED:
        done += _rolled_back(ledger, bundle, horizon, told, settings, source, paths)
    if kinds & (DEGRADED | BANDS):  # of who is champion now
        done += _adapted(ledger, bundle, horizon, settings)
    return done


def _rolled_back(
    ledger: Ledger,
    bundle: MarketBundle,
    horizon: Horizon,
    told: list[str],
    settings: Settings,
    source: SourceName | None,
    paths: list[Path] | None,
) -> list[str]:
    champion = registry_from_settings(settings).standing(model_name(bundle.pair, horizon)).champion
    if champion is not None and champion.recipe != (judged := _live(ledger, bundle, horizon)[-1].recipe):
        return [
            f"{horizon} was not rolled back: the champion is {champion} of recipe {champion.recipe[:12]}, and what is "
            f"judged was published by recipe {judged[:12]}."
        ]
    reason = f"by the monitor: {'; '.join(told)}"[:1000]
    try:
        done = rollback(
            horizon=str(horizon),
            pair=settings.pair,
            reason=reason,
            source=source,
            paths=paths,
            unless_pinned=True,
            return_state=True,
        )
        result = done.result()
    except ForexError as error:
        return [f"{horizon} was not rolled back: {error}."]
    if not isinstance(result, dict):
        return [f"{horizon} was not rolled back: {done.message}"]
    return [f"{horizon} was rolled back from version {result['from_version']} to {result['to_version']}."]


def _horizon_document(
    leads: tuple[LeadScores, ...],
    end: LeadScores | None,
    readings: list[Reading],
    run_id: str | None,
    done: list[str],
) -> Document:
    return {
        "end": scores_document(end),
        "leads": [scores_document(one) for one in leads],
        "alarms": [_reading_document(r) for r in readings],
        "run_id": run_id,
        "done": done,
    }


def _reading_document(reading: Reading) -> Document:
    days = {
        name: day.isoformat() if day else None
        for name, day in (("since", reading.since), ("until", reading.until))
    }
    return asdict(reading) | days | {"raised": reading.raised}
