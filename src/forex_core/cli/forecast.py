"""`forex forecast`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from loguru import logger

from forex_core.cli.app import (
    AsOfOption,
    HorizonArgument,
    JsonOption,
    PairOption,
    PathOption,
    SourceOption,
    VerboseOption,
    configure_logging,
    day_of,
    number_of,
    print_document,
    progress_bar,
    settings_from,
)
from forex_core.errors import DataQualityError, TrackingError
from forex_core.types import Horizon

EXAMPLES = """
**Examples**

USD/MXN from the embedded ECB rates, without a network or a key:

    forex forecast 7d

What it would have said of another pair on a past day:

    forex forecast 30d --pair EURUSD --as-of 2024-06-28

Your own files, the result as JSON:

    forex forecast 90d --source csv --path market.csv --path rates.csv --pair USDCLP --json

What it means for two million dollars that come in within a month and are planned at 950:

    forex forecast 30d --pair USDCLP --source live --budget-rate 950 --exposure 2000000
"""


def forecast(
    horizon: HorizonArgument,
    pair: PairOption = None,
    source: SourceOption = None,
    path: PathOption = None,
    as_of: AsOfOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="DIR", help="Folder of the report. [default: one below the data folder]"
        ),
    ] = None,
    budget_rate: Annotated[
        str | None,
        typer.Option(
            "--budget-rate",
            metavar="RATE",
            help="Rate that plans are made with: how probable it is that the rate is above it, and what falls short of "
            "it. [default: the setting treasury.budget_rate]",
        ),
    ] = None,
    exposure: Annotated[
        str | None,
        typer.Option(
            "--exposure",
            metavar="AMOUNT",
            help="Amount in base currency that is received (positive) or paid (negative) at the end of the horizon: "
            "its worst 5 % rate and expected shortfall; 0 for none, 1e18 at most. "
            "[default: the setting treasury.exposure]",
        ),
    ] = None,
    cash_flows: Annotated[
        Path | None,
        typer.Option(
            "--cash-flows",
            metavar="FILE",
            help="CSV file with the columns date and amount (base currency, negative where it is paid), all within the "
            "horizon: the mean rate over them, and their expected shortfall.",
        ),
    ] = None,
    quote: Annotated[
        str | None,
        typer.Option(
            "--quote",
            metavar="RATE",
            help="Market rate of now, for the forecast from there. [default: the last price, where the source is "
            "fetched]",
        ),
    ] = None,
    lang: Annotated[
        str | None,
        typer.Option(
            "--lang",
            metavar="LANG",
            help="Language of the report and of its mail: en or es. What is printed here is English. [default: the "
            "setting lang, en]",
        ),
    ] = None,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Write the report as PDF too (needs the extra pdf).")
    ] = False,
    skip_email: Annotated[
        bool,
        typer.Option(
            "--skip-email", help="Send the report to nobody, whoever the setting report.urls names."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Publish again although these data were published before.")
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Publish a forecast: compute it, log it to MLflow, write its report.

    Prints the target dates with median and bands, every model's out-of-sample scores beside the random walk, the
    verdict, the run id and the path of the report.
    """
    from flows import prepare_manual_run
    from flows.server import NamedServer
    from forex_core.report.folder import prepare_folder

    configure_logging(verbose)
    from forex_core.briefing.position import Position

    ahead = Horizon.parse(horizon)
    day = day_of("--as-of", as_of)
    rate, amount = number_of("--budget-rate", budget_rate), number_of("--exposure", exposure)
    price = number_of("--quote", quote)
    settings = settings_from(
        pair,
        source,
        path,
        treasury=_given(budget_rate=rate, exposure=amount),
        lang=lang,
        report=_given(pdf=pdf or None),
        skip_email=skip_email or None,
    )
    position = Position.of(settings.treasury, cash_flows)
    prepare_folder(settings.root)
    # Prefect's server needs seconds to get ready, in which everything else is imported and the input is read.
    server = prepare_manual_run(settings.root, verbose=verbose)

    from forex_core.briefing.quote import given
    from forex_core.data.loading import bundle_of
    from forex_core.engine import build_engine
    from forex_core.report.pdf import require_pdf
    from forex_core.report.text import forecast_tables
    from forex_core.tracking.candidacy import has_champion
    from forex_core.tracking.neural import with_registered_weights

    engine = build_engine(with_registered_weights(settings))
    bundle = None if settings.is_fetched else bundle_of(settings, day)
    if bundle is not None:
        position.settled(bundle, ahead)
        if price is not None:
            given(price, bundle)
        # What is wrong with the input is said before a run is started and recorded.
        try:
            engine.check(bundle, ahead)
        except DataQualityError:  # of this recipe; a champion of another may need less
            if not has_champion(settings, bundle.pair, ahead):
                raise
        logger.info("input read: {} rows of {} up to {}", len(bundle), bundle.pair, bundle.origin)
    if output:
        prepare_folder(output)
    if settings.report.pdf:
        require_pdf()

    def prepare() -> None:
        if bundle is not None:
            engine.prepare(bundle)

    with progress_bar(f"{settings.pair} {ahead}") as progress:
        from flows.forecast import FLOWS, PROGRESS
        from forex_core.tracking.candidacy import prepare_store

        PROGRESS.set(progress)
        with ThreadPoolExecutor(1) as pool:
            if isinstance(server, NamedServer):
                # The numerical libraries, while the flow waits for the answers of the user's server.
                pool.submit(prepare)
            else:
                prepare()
                with suppress(TrackingError):  # is met again in the flow, which is where it is reported
                    prepare_store(settings)
            server.wait()
            document = FLOWS[ahead](
                pair=settings.pair,
                source=settings.source,
                paths=list(settings.paths),
                as_of=day,
                output=output,
                force=force,
                budget_rate=rate,
                exposure=amount,
                cash_flows=cash_flows,
                quote=price,
                lang=settings.lang,
                pdf=settings.report.pdf,
                skip_email=settings.skip_email,
            )
    assert isinstance(document, dict)  # Prefect hands on what a state holds, and skips no run by hand
    print_document(document, as_json, forecast_tables)


def _given(**values: float | bool | None) -> dict[str, float | bool]:
    return {name: value for name, value in values.items() if value is not None}
