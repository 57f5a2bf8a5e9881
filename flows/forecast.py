"""The forecast flows `forecast_7d`, `forecast_15d`, `forecast_30d` and `forecast_90d` over one task graph."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pandas as pd
from loguru import logger
from prefect import Flow, State, flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.logs import connect_logging
from flows.notice import readers_of
from forex_core.briefing.absent import Absent
from forex_core.briefing.document import briefing_document
from forex_core.briefing.position import Position
from forex_core.briefing.quote import QuotedForecast, given, quoted
from forex_core.briefing.sample_paths import sample_paths
from forex_core.calendars import latest_origin
from forex_core.champion import Choice, choose
from forex_core.config import Settings, SourceName, load_settings
from forex_core.data.loading import bundle_of, market_quote
from forex_core.data.observations import Quote
from forex_core.data.snapshot import read_snapshot
from forex_core.engine import Engine, Progress, build_engine
from forex_core.errors import (
    ConfigError,
    InputError,
    LedgerError,
    SourceError,
    SourceUnavailable,
    TrackingError,
)
from forex_core.ledger import Entry, Ledger, Pending, content_digest
from forex_core.memory import give_back_memory
from forex_core.notify import Message
from forex_core.report.charts import draw_charts
from forex_core.report.document import Document, quantiles_document
from forex_core.report.folder import DOCUMENT, SNAPSHOT, copy_report, write_report
from forex_core.report.language import language_of
from forex_core.report.mail import Mail, report_mail
from forex_core.report.pdf import require_pdf
from forex_core.report.text import markdown_summary
from forex_core.tracking import (
    ENTRY_TAG,
    LEDGER_TAG,
    Tracker,
    begun_ahead,
    model_name,
    sweep,
    tracker_from_settings,
)
from forex_core.tracking.candidacy import Candidacy
from forex_core.tracking.neural import with_registered_weights
from forex_core.tracking.records import forecast_record
from forex_core.types import (
    HORIZONS,
    ForecastRun,
    Horizon,
    LanguageCode,
    MarketBundle,
    Pair,
    Publication,
    short_id,
)

PROGRESS: ContextVar[Progress | None] = ContextVar("PROGRESS", default=None)
"""Where a run by hand is told of each finished stage."""

SERVICE = "forex-forecast"
TIME_LIMIT_S = 1800
"""Of a run, which takes seconds and may wait minutes for sources and for other runs."""
IN_LEDGER_TAG = "in_ledger"
"""Tag of a run whose forecast the ledger has, or that waits for it."""
WARNING_TAG, DEGRADED_TAG = "warning", "tracking-degraded"
"""Tags of a Prefect run that published and has something to say."""

ASKED_TAG = "position"
"""MLflow tag of what a run was asked for beside the forecast: a hash, 'none' for nothing."""

TOLD_UNTRACKED = "Tracking is off: there is no champion, and this is today's model."
TOLD_SPOOLED = (
    "The tracking store could not be reached: 'forex tracking replay' logs this run when it can be again."
)


@dataclass(frozen=True)
class Asked:
    """What a forecast is read for: a position, a quote given by hand, a past day; and how: its language, as PDF."""

    position: Position
    quote: Quote | None
    as_of: date | None
    lang: LanguageCode
    pdf: bool

    @property
    def digest(self) -> str:
        """With another one the same data are published again; they also are where a PDF is asked for."""
        quote = f" {self.quote.value!r}" if self.quote else ""
        return f"{self.position.digest}{quote}{'' if self.lang == 'en' else f' {self.lang}'}"


def _source_was_unavailable(_task: object, _run: object, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), SourceUnavailable)


@task(
    name="load bundle",
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_condition_fn=_source_was_unavailable,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def load(settings: Settings, as_of: date | None) -> MarketBundle:
    """The data bundle; tried again only when the source could not be reached."""
    bundle = bundle_of(settings, as_of)
    logger.info(
        "bundle loaded: {} rows of {} up to {}, {} repairs",
        len(bundle),
        bundle.pair,
        bundle.origin,
        len(bundle.repairs),
    )
    return bundle


@task(name="forecast", cache_policy=NO_CACHE, persist_result=False)
def compute(
    engine: Engine, bundle: MarketBundle, horizon: Horizon, candidacy: Candidacy | None, settings: Settings
) -> Choice:
    """What is to be published; arithmetic that failed once is not tried again."""
    reigning = candidacy.reigning(engine, bundle) if candidacy else None
    choice = choose(engine, bundle, horizon, reigning, settings.members_cache)
    for name, reason in choice.published.failures.items():
        logger.warning("member {} left out: {}", name, reason)
    logger.info("{}: {}", choice.decision.outcome, choice.decision.reason)
    logger.info("forecast computed: {}", choice.published.verdict.sentence)
    return choice


@task(name="publish", cache_policy=NO_CACHE, persist_result=False)
def publish(
    choice: Choice,
    engine: Engine,
    bundle: MarketBundle,
    tracker: Tracker,
    candidacy: Candidacy | None,
    ledger: Ledger,
    settings: Settings,
    asked: Asked,
) -> tuple[Document, Callable[[], Mail]]:
    """Log and register the model, settle who is champion, and only then say so in report, run and ledger.

    Returns:
        The document of the run, and what composes the mail that brings its report.
    """
    name, horizon, language = _run_name(), choice.published.horizon, language_of(asked.lang)
    with ThreadPoolExecutor(2) as pool:
        # Charts are drawn by processes of their own while this one writes to the tracking store.
        drawn = pool.submit(draw_charts, choice.published, bundle, settings.cache_dir, language)
        quoting = pool.submit(_quote, asked, bundle, settings)
        run_id = tracker.start_run(name)
        own = _own(run_id, name, settings)
        logger.info("run begun: {}", run_id)
        made, planned = None, choice.published
        if candidacy:
            if choice.new is not None:
                made = candidacy.register(tracker, choice.new, bundle, settings)
                logger.info("model registered: {}", made)
            choice = candidacy.settle(choice, made, bundle.origin)
        run = choice.published
        publication = (
            candidacy.publication(choice, made)
            if candidacy
            else Publication(model_name(bundle.pair, horizon), None, choice.decision.outcome, TOLD_UNTRACKED)
        )
        quote = quoting.result()
        previous = _last_document(tracker, ledger, run, bundle, quote, settings)
        beside = briefing_document(
            run,
            bundle,
            engine,
            position=asked.position,
            quote=quote,
            publication=publication,
            previous=previous,
            before=_rows_of(previous),
        )
        drawings = drawn.result()
    if run is not planned:  # the new state was withheld
        drawings = draw_charts(run, bundle, settings.cache_dir, language)
    folder = settings.reports_dir / bundle.pair.slug / str(horizon) / f"{name}_{short_id(own)}"
    document = write_report(
        folder,
        run,
        bundle,
        own,
        drawings,
        publication,
        beside,
        lang=asked.lang,
        pdf=settings.report.pdf,
    )
    logger.info("report written: {}", document["report"])
    engine_settings = settings.engine.model_dump(mode="json")
    tracker.log(forecast_record(choice, bundle, publication, engine.recipe, engine_settings))
    description = f"{horizon} forecast of {bundle.pair} from {bundle.origin}. {run.verdict.sentence}"
    tracker.set_tags({**_seat(candidacy), ASKED_TAG: asked.digest, "mlflow.note.content": description})
    tracker.log_artifacts_dir(folder, "reports")
    if candidacy:
        candidacy.mark_published(choice, made, tracker)
    entry = Entry.of(run, bundle, publication, own, pd.Timestamp.now("UTC"))
    unwritten = _write_down(entry, ledger, tracker, settings)
    warnings = [
        *(candidacy.warnings if candidacy else ()),
        *([TOLD_SPOOLED] if tracker.degraded else ()),
        *([unwritten] if unwritten else ()),
    ]
    if warnings:
        tracker.set_tags({"warnings": " ".join(warnings)})
    logger.info("run logged: {}", run_id)
    document |= {"warnings": warnings}
    return document, partial(report_mail, run, bundle, document, publication, language)


@task(name="send report", cache_policy=NO_CACHE, persist_result=False)
def send(compose: Callable[[], Mail], tracker: Tracker, settings: Settings) -> list[str]:
    """Send a report to whom the settings name, and note in the run whether that was done; returns who did not get it.

    Nothing here makes a forecast fail: it is published.
    """
    if settings.skip_email:
        return []
    try:
        readers = readers_of(settings)
    except ConfigError as error:
        return [f"The report was sent to nobody: {error}."]
    if not readers.targets:
        return []
    mail = compose()
    sent = readers.send(Message(mail.title, mail.text, mail.html, mail.pictures, mail.files))
    tracker.set_tags(
        {"skip_email": "false", "report_sent": f"{len(sent.delivered)} of {len(sent.deliveries)}"}
    )
    return [f"The report did not reach {one.target}: {one.reason}." for one in sent.refused]


def _unsent(sending: State[list[str]]) -> list[str]:
    """Who did not get a report; who did is not known where sending it did not end."""
    if not sending.is_completed():
        return [f"Sending the report did not end: {sending.message}."]
    return sending.result()


def _write_down(entry: Entry, ledger: Ledger, tracker: Tracker, settings: Settings) -> str | None:
    """The forecast into the ledger, after those that wait; a warning where it cannot be, for it is published."""
    pending, refusal = Pending(settings.pending_dir), None
    tracker.set_tags({ENTRY_TAG: content_digest(entry)})
    try:
        pending.keep(entry)
    except OSError as error:
        refusal = error
    try:
        _, faults = pending.deliver(ledger)
        written = ledger.append(entry)
    except LedgerError as error:
        if refusal is not None:
            return (
                f"The ledger could not be written ({error}), nor the forecast kept until it can be ({refusal}): it is "
                "in no track record. Mend that and publish it again."
            )
        tracker.set_tags({IN_LEDGER_TAG: "waits"})
        return (
            f"The ledger could not be written, and the forecast waits in {settings.pending_dir}: {error}. The next "
            "forecast writes it, and so does 'forex monitor'."
        )
    tracker.set_tags({IN_LEDGER_TAG: "yes", "ledger_number": str(written.number), LEDGER_TAG: written.digest})
    return " ".join(faults) or None


def _own(run_id: str, name: str, settings: Settings) -> str:
    """What tells a run from all others, also where none is tracked."""
    return run_id if settings.tracking.is_on else f"{run_id}-{name}-{uuid4().hex[:8]}"


def _seat(candidacy: Candidacy | None) -> dict[str, str]:
    """The pin that a run found, as a tag: with another one, or none, the same data are published again."""
    pin = candidacy.standing.pin if candidacy else None
    return {"pin": (pin.audit_run or pin.at) if pin else "none"}


def _quote(asked: Asked, bundle: MarketBundle, settings: Settings) -> Quote | Absent:
    """The quote that was given, else the last market price; that there is none keeps no forecast from being made."""
    if asked.quote is not None:
        return asked.quote
    if asked.as_of is not None:
        return Absent("past_day", {"day": asked.as_of.isoformat()})
    if not settings.is_fetched:
        return Absent("not_live", {"source": settings.source})
    if bundle.rate != "close":
        return Absent("other_rate", {"rate": bundle.rate})
    try:
        return market_quote(settings, bundle.pair)
    except (SourceError, SourceUnavailable) as error:
        logger.warning("no quote: {}", error)
        return Absent("unavailable", {"reason": str(error)})


def _last_document(
    tracker: Tracker,
    ledger: Ledger,
    run: ForecastRun,
    bundle: MarketBundle,
    quote: Quote | Absent,
    settings: Settings,
) -> Document | Absent:
    """The document of the forecast before of the same pair, rate and horizon, or why there is none.

    The forecast before is the first that says something else: of those of this origin, as `LedgerReader.up_to` has
    them, and then of the newest origin before it, whenever it was made. One of this origin says the same that was made
    of the same data with the same recipe, and has the same quantiles and the same quote.
    """
    try:
        earlier = (
            ledger.up_to(bundle.pair, bundle.rate, run.horizon, run.forecast.origin) if ledger.is_made else ()
        )
    except LedgerError as error:
        logger.warning("the forecast before is not known: {}", error)
        return Absent("unknown")
    for before in earlier:
        if not settings.tracking.is_on:
            return Absent("untracked", {"run_id": before.run_id})
        text = tracker.read_text(before.run_id, f"reports/{DOCUMENT}")
        try:
            document = json.loads(text) if text else None
        except ValueError:
            document = None
        if not isinstance(document, dict):
            return Absent("unreadable", {"run_id": before.run_id})
        same_data = (before.fingerprint, before.recipe) == (run.fingerprint, run.recipe)
        if before.origin < run.forecast.origin or not (
            same_data and _says_the_same(document, run, bundle, quote)
        ):
            return document
    return Absent("first")


def _says_the_same(document: Document, run: ForecastRun, bundle: MarketBundle, quote: Quote | Absent) -> bool:
    """Whether the quantiles and the quote of a document are those of a run of the same data; of an altered one, not.

    A quote that cannot be used is as none.
    """
    told = document.get("quote")
    if not isinstance(told, dict | None):
        return False
    used = quoted(quote, sample_paths(run.forecast, bundle), bundle) if isinstance(quote, Quote) else quote
    return document.get("quantiles") == quantiles_document(run.forecast) and (told or {}).get("value") == (
        used.quote.value if isinstance(used, QuotedForecast) else None
    )


def _rows_of(document: Document | Absent) -> MarketBundle | None:
    """The rows that a forecast was made of, where the folder of its report is still there."""
    if isinstance(document, Absent):
        return None
    try:
        return read_snapshot(Path(document["report"]).parent / SNAPSHOT)
    except (SourceError, KeyError, TypeError):
        return None


def _published_before(
    tracker: Tracker,
    engine: Engine,
    bundle: MarketBundle,
    horizon: Horizon,
    candidacy: Candidacy | None,
    asked: Asked,
) -> Document | None:
    """The document of a finished run of all the same, down to what was asked for, if its report is still there."""
    key = {
        "pair": str(bundle.pair),
        "rate": bundle.rate,
        "horizon": str(horizon),
        "fingerprint": bundle.fingerprint,
        "recipe": engine.recipe,
        "as_of_date": bundle.as_of.date().isoformat(),
        "status": "published",
        ASKED_TAG: asked.digest,
        **_seat(candidacy),
    }
    champion = candidacy.standing.champion if candidacy else None
    theirs = champion if champion and champion.rate in (None, bundle.rate) else None
    if theirs and theirs.trained_until and theirs.trained_until <= bundle.origin:
        key["published_version"] = str(theirs.number)
    # One that is neither in the ledger nor waiting for it is published again.
    run_id = next(
        (found for state in ("yes", "waits") if (found := tracker.find_run(key | {IN_LEDGER_TAG: state}))),
        None,
    )
    text = tracker.read_text(run_id, f"reports/{DOCUMENT}") if run_id else None
    if text is None:
        return None
    document: Document = json.loads(text)
    needed = [document["report"], *([document.get("pdf") or ""] if asked.pdf else [])]
    if not all(Path(path).is_file() for path in needed):
        return None
    logger.info("published as run {} already; force publishes again", run_id)
    return document | {"already_published": True, "warnings": list(candidacy.warnings) if candidacy else []}


def _forecast(
    horizon: Horizon,
    settings: Settings,
    as_of: date | None,
    output: Path | None,
    force: bool,
    cash_flows: Path | None,
    quote: float | None,
) -> Document | State[Document]:
    """The task graph that every horizon shares."""
    connect_logging()
    logger.info("flow started: {} {}", settings.pair, horizon)
    ledger = Ledger(
        settings.store_url, settings.root
    )  # an address that is none is said before anything is computed
    with ExitStack() as opened:
        tracker = opened.enter_context(_tracker(settings, horizon))
        if settings.report.pdf:
            require_pdf()
        bundle = load(settings, as_of)
        position = Position.of(settings.treasury, cash_flows).settled(bundle, horizon)
        by_hand = given(quote, bundle) if quote is not None else None
        asked = Asked(position, by_hand, as_of, settings.lang, settings.report.pdf)
        settings = with_registered_weights(settings)
        engine = build_engine(settings, PROGRESS.get())
        candidacy = Candidacy.of(settings, bundle.pair, horizon)
        if candidacy:
            opened.enter_context(candidacy)
            end_orphans(settings)
            candidacy.warnings += _clock_warnings(settings) if as_of is None else []
        document = None if force else _published_before(tracker, engine, bundle, horizon, candidacy, asked)
        if document is None:
            choice = compute(engine, bundle, horizon, candidacy, settings)
            document, compose = publish(choice, engine, bundle, tracker, candidacy, ledger, settings, asked)
            if unsent := _unsent(send(compose, tracker, settings, return_state=True)):
                document["warnings"] += unsent
                tracker.set_tags({"warnings": " ".join(document["warnings"])})
        if output:
            document = copy_report(document, output.absolute())
        create_markdown_artifact(
            markdown=markdown_summary(document),
            key=f"forecast-{bundle.pair.slug}-{horizon}",
            description=f"{horizon} forecast of {bundle.pair}",
        )
        tracker.end_run()  # under the champion's lock: who waits for that looks for a finished run of the same data
    if tracker.degraded and TOLD_SPOOLED not in document["warnings"]:  # lost at the very end
        document |= {"warnings": [*document["warnings"], TOLD_SPOOLED]}
    if not document["warnings"]:
        return document
    _tag_flow_run(DEGRADED_TAG if TOLD_SPOOLED in document["warnings"] else WARNING_TAG)
    message = " ".join(document["warnings"])
    return Completed(name="CompletedWithWarning", message=message, data=document)


def _tracker(settings: Settings, horizon: Horizon) -> Tracker:
    return tracker_from_settings(
        settings,
        f"forecaster_{horizon}",
        start_on_enter=False,  # what was published before makes no run
        experiment_tags={"model_family": "ensemble", "horizon": str(horizon), "service": SERVICE},
        run_name=_run_name(),
        tags={
            "pair": _canonical(settings.pair),
            "horizon": str(horizon),
            "environment": settings.environment,
            "skip_email": "true",  # until the report has been sent to somebody
            "prefect_flow_run_id": str(flow_run.id or "none"),
        },
    )


def end_orphans(settings: Settings) -> None:
    """End the runs of killed processes; that it cannot be done keeps nothing else from being done."""
    try:
        sweep(settings)
    except TrackingError as error:
        logger.warning("runs of killed processes were not looked for: {}", error)


def _clock_warnings(settings: Settings) -> list[str]:
    """That the clock is wrong, by which a run without an as-of forecasts; nothing where that cannot be told."""
    try:
        wrong = begun_ahead(settings)
    except TrackingError as error:
        logger.warning("whether the clock has gone back could not be told: {}", error)
        return []
    return [wrong] if wrong else []


def _canonical(pair: str) -> str:
    """A pair as runs are tagged with it; what is no pair as it was given, for the run that fails for it."""
    try:
        return str(Pair.parse(pair))
    except InputError:
        return pair


def _tag_flow_run(tag: str) -> None:
    """Add a tag to the Prefect run that this is part of."""
    if flow_run.id:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(flow_run.id), tags={*flow_run.tags, tag})


def _run_name() -> str:
    return f"forecast_{datetime.now(UTC):%Y%m%d_%H%M%S}"


def _late(settings: Settings) -> str | None:
    """Why a scheduled run comes too late: what it was to forecast from is not the newest any more."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or not run.auto_scheduled or run.expected_start_time is None:
        return None  # by hand, at the time that was meant
    try:
        pair = Pair.parse(settings.pair)
    except InputError:
        return None  # the run fails for it, and is recorded
    meant, newest = latest_origin(pair, run.expected_start_time), latest_origin(pair, datetime.now(UTC))
    if newest <= meant:
        return None
    return (
        f"Due {run.expected_start_time:%Y-%m-%d %H:%M} UTC to forecast {pair} from {meant}; by now {newest} is known. "
        "The next scheduled run forecasts from what is newest, and so does one by hand."
    )


def _flow(horizon: Horizon) -> Flow[..., Document | State[Document]]:
    @flow(
        name=f"forecast-{horizon}",
        description=f"Forecast of one currency pair {horizon.days} calendar days ahead, tracked and reported.",
        validate_parameters=True,
        timeout_seconds=TIME_LIMIT_S,
        persist_result=False,
        result_serializer="json",  # Prefect keeps the error of a flow that fails, by default as a pickle
    )
    def forecast(
        pair: str | None = None,
        source: SourceName | None = None,
        paths: list[Path] | None = None,
        as_of: date | None = None,
        output: Path | None = None,
        force: bool = False,
        budget_rate: float | None = None,
        exposure: float | None = None,
        cash_flows: Path | None = None,
        quote: float | None = None,
        lang: LanguageCode | None = None,
        pdf: bool | None = None,
        skip_email: bool | None = None,
    ) -> Document | State[Document]:
        """Publish a forecast.

        Args:
            pair: currency pair such as USDCLP; by default the one of the settings.
            source: where the data come from; by default the one of the settings.
            paths: files of source csv.
            as_of: forecast with what was known at the origin of this date; by default now.
            output: folder of the report; by default one of its own below the data folder.
            force: publish again although this recipe has published these data.
            budget_rate: rate that plans are made with; by default the one of the settings.
            exposure: amount in base currency at the end of the horizon, negative where it is paid, 0 for none; by
                default the one of the settings.
            cash_flows: CSV file with the columns date and amount, all within the horizon.
            quote: market rate of now; by default the last price, where the source is fetched.
            lang: language of the report, en or es; by default the one of the settings.
            pdf: write the report as PDF too; by default as the settings say.
            skip_email: send the report to nobody; by default as the settings say.
        """
        give_back_memory()
        at_stake = {"budget_rate": budget_rate, "exposure": exposure}
        treasury = {name: value for name, value in at_stake.items() if value is not None}
        settings = load_settings(
            pair=pair,
            source=source,
            paths=paths,
            treasury=treasury or None,
            lang=lang,
            report=None if pdf is None else {"pdf": pdf},
            skip_email=skip_email,
        )
        if as_of is None and (reason := _late(settings)):
            return Completed(name="Skipped", message=reason)
        return _forecast(horizon, settings, as_of, output, force, cash_flows, quote)

    return forecast


forecast_7d, forecast_15d, forecast_30d, forecast_90d = (_flow(horizon) for horizon in HORIZONS)
FLOWS: dict[Horizon, Flow[..., Document | State[Document]]] = dict(
    zip(HORIZONS, (forecast_7d, forecast_15d, forecast_30d, forecast_90d), strict=True)
)
