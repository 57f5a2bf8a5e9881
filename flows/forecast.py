"""The forecast flows `forecast_7d`, `forecast_15d`, `forecast_30d` and `forecast_90d` over one task graph."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loguru import logger
from prefect import Flow, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import MissingContextError
from prefect.runtime import flow_run
from prefect.states import State

from forex_core.config import Settings, load_settings
from forex_core.data.bundle import load_bundle
from forex_core.data.providers import provider
from forex_core.engine import Engine, Progress, build_engine
from forex_core.errors import SourceUnavailable
from forex_core.report.charts import draw_charts
from forex_core.report.document import Document
from forex_core.report.folder import DOCUMENT, copy_report, write_report
from forex_core.report.text import markdown_summary
from forex_core.tracking import MLflowTracker, Tracker, forecast_record
from forex_core.types import HORIZONS, ForecastRun, Horizon, MarketBundle, Pair

if TYPE_CHECKING:
    from loguru import Message

PROGRESS: ContextVar[Progress | None] = ContextVar("PROGRESS", default=None)
"""Where a run by hand is told of each finished stage."""

SERVICE = "forex-forecast"


def _source_was_unavailable(_task: object, _run: object, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), SourceUnavailable)


@task(
    name="load bundle",
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_condition_fn=_source_was_unavailable,
    cache_policy=NO_CACHE,
)
def load(settings: Settings, as_of: date | None) -> MarketBundle:
    """The data bundle; tried again only when the source could not be reached."""
    source = provider(settings.source, settings.paths, settings.columns)
    bundle = load_bundle(source, Pair.parse(settings.pair), as_of)
    logger.info(
        "bundle loaded: {} rows of {} up to {}, {} repairs",
        len(bundle),
        bundle.pair,
        bundle.origin,
        len(bundle.repairs),
    )
    return bundle


@task(name="forecast", cache_policy=NO_CACHE)
def compute(engine: Engine, bundle: MarketBundle, horizon: Horizon) -> ForecastRun:
    """The engine's run; arithmetic that failed once is not tried again."""
    run = engine.forecast(bundle, horizon)
    for name, reason in run.failures.items():
        logger.warning("member {} left out: {}", name, reason)
    logger.info("forecast computed: {}", run.verdict.sentence)
    return run


@task(name="publish", cache_policy=NO_CACHE)
def publish(run: ForecastRun, bundle: MarketBundle, tracker: Tracker, settings: Settings) -> Document:
    """Write the report's files into a folder of the run's own and log the run with them."""
    name = _run_name()
    description = f"{run.horizon} forecast of {bundle.pair} from {bundle.origin}. {run.verdict.sentence}"
    with ThreadPoolExecutor(1) as pool:
        # Charts are drawn by processes of their own while this one opens the tracking store.
        drawn = pool.submit(draw_charts, run, bundle, settings.cache_dir)
        run_id = tracker.start_run(name, description)
        drawings = drawn.result()
    folder = settings.reports_dir / bundle.pair.slug / str(run.horizon) / f"{name}_{run_id[:8]}"
    document = write_report(folder, run, bundle, run_id, drawings)
    logger.info("report written: {}", document["report"])
    tracker.log(forecast_record(run, bundle))
    tracker.log_artifacts_dir(folder, "reports")
    logger.info("run logged: {}", run_id)
    return document


def _published_before(
    tracker: Tracker, engine: Engine, bundle: MarketBundle, horizon: Horizon
) -> Document | None:
    """The document of a finished run of the same recipe, data and as-of day, when its report is still there."""
    key = {
        "pair": str(bundle.pair),
        "horizon": str(horizon),
        "fingerprint": bundle.fingerprint,
        "recipe": engine.recipe,
        "as_of_date": bundle.as_of.date().isoformat(),
        "status": "published",
    }
    run_id = tracker.find_run(key)
    text = tracker.read_text(run_id, f"reports/{DOCUMENT}") if run_id else None
    if text is None:
        return None
    document: Document = json.loads(text)
    if not Path(document["report"]).is_file():
        return None
    logger.info("published as run {} already; force publishes again", run_id)
    return document | {"already_published": True}


def _forecast(
    horizon: Horizon, settings: Settings, as_of: date | None, output: Path | None, force: bool
) -> Document:
    """The task graph that every horizon shares."""
    _connect_logging()
    logger.info("flow started: {} {}", settings.pair, horizon)
    tracker = MLflowTracker(
        settings.mlflow_uri,
        f"forecaster_{horizon}",
        artifact_location=settings.mlflow_artifacts,
        experiment_tags={"model_family": "ensemble", "horizon": str(horizon), "service": SERVICE},
        run_name=_run_name(),
        tags={
            "pair": settings.pair,
            "horizon": str(horizon),
            "environment": settings.environment,
            "skip_email": str(settings.skip_email).lower(),
            "prefect_flow_run_id": str(flow_run.id or "none"),
        },
    )
    with tracker:
        bundle = load(settings, as_of)
        engine = build_engine(settings, PROGRESS.get())
        document = None if force else _published_before(tracker, engine, bundle, horizon)
        if document is None:
            document = publish(compute(engine, bundle, horizon), bundle, tracker, settings)
        if output:
            document = copy_report(document, output.absolute())
        create_markdown_artifact(
            markdown=markdown_summary(document),
            key=f"forecast-{bundle.pair.slug}-{horizon}",
            description=f"{horizon} forecast of {bundle.pair}",
        )
    return document


def _run_name() -> str:
    return f"forecast_{datetime.now(UTC):%Y%m%d_%H%M%S}"


def _flow(horizon: Horizon) -> Flow[..., Document]:
    @flow(
        name=f"forecast-{horizon}",
        description=f"Forecast of one currency pair {horizon.days} calendar days ahead, tracked and reported.",
        validate_parameters=True,
    )
    def forecast(
        pair: str | None = None,
        source: Literal["ecb", "csv"] | None = None,
        paths: list[Path] | None = None,
        as_of: date | None = None,
        output: Path | None = None,
        force: bool = False,
    ) -> Document:
        """Publish a forecast.

        Args:
            pair: currency pair such as USDCLP; by default the one of the settings.
            source: where the data come from; by default the one of the settings.
            paths: files of source csv.
            as_of: forecast with what was known at the origin of this date; by default now.
            output: folder of the report; by default one of its own below the data folder.
            force: publish again although this recipe has published these data.
        """
        return _forecast(horizon, load_settings(pair=pair, source=source, paths=paths), as_of, output, force)

    return forecast


forecast_7d, forecast_15d, forecast_30d, forecast_90d = (_flow(horizon) for horizon in HORIZONS)
FLOWS: dict[Horizon, Flow[..., Document]] = dict(
    zip(HORIZONS, (forecast_7d, forecast_15d, forecast_30d, forecast_90d), strict=True)
)


@cache
def _connect_logging() -> None:
    """Send loguru's records to the log of the Prefect run in which they are made, once per process."""

    def to_prefect(message: Message) -> None:
        try:
            get_run_logger().log(message.record["level"].no, message.record["message"])
        except MissingContextError:  # a record made outside a run has no run to go to
            return

    with suppress(
        ValueError
    ):  # loguru's own handler, when it is still there: Prefect's shows the same records
        logger.remove(0)
    logger.add(to_prefect, level="DEBUG")
