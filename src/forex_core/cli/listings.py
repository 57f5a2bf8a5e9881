"""`forex experiments`, `forex runs` and `forex models`: what the tracking store holds. They write nothing to it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from forex_core.cli.app import (
    CsvOption,
    HorizonArgument,
    JsonOption,
    plain,
    print_listing,
    refuse_both,
    settings_from,
)
from forex_core.config import Settings
from forex_core.errors import InputError
from forex_core.secrecy import without_password
from forex_core.types import HORIZONS, Horizon, Pair

if TYPE_CHECKING:
    from forex_core.report.document import Document
    from forex_core.tracking.queries import ModelRow, RunRow

experiments = typer.Typer(help="Experiments of the tracking store.", no_args_is_help=True)
runs = typer.Typer(
    help="Runs of the tracking store: list, show, find the best, compare.", no_args_is_help=True
)
models = typer.Typer(help="Registered models and what is published of them.", no_args_is_help=True)

EveryPairOption = Annotated[
    str | None, typer.Option("--pair", metavar="PAIR", help="This currency pair alone. [default: all pairs]")
]
OnePairOption = Annotated[
    str | None,
    typer.Option("--pair", metavar="PAIR", help="Currency pair whose runs are ranked. [default: USDMXN]"),
]
_COMPARED = 5


@experiments.command(
    "list",
    epilog="""
**Examples**

    forex experiments list
    forex experiments list --json
""",
)
def list_experiments(as_json: JsonOption = False, as_csv: CsvOption = False) -> None:
    """List the experiments: how their runs ended, when the last one started, where files are kept.

    Deleted ones are among them, with how to bring them back.
    """
    from forex_core.report.listing import experiments_rows, experiments_table
    from forex_core.tracking.queries import existing_store, experiments

    refuse_both(as_json, as_csv)
    store = _store(settings_from(None, None, None))
    with existing_store(store) as client:
        found = experiments(client) if client else []
    document = {"store": without_password(store), "experiments": [plain(asdict(row)) for row in found]}
    print_listing(document, as_json, as_csv, experiments_table, experiments_rows)


@runs.command(
    "list",
    epilog="""
**Examples**

    forex runs list 7d
    forex runs list 30d --pair USDCLP --last 5
    forex runs list 7d --status failed --csv
""",
)
def list_runs(
    horizon: HorizonArgument,
    pair: EveryPairOption = None,
    last: Annotated[int, typer.Option("--last", metavar="N", min=1, help="How many.")] = 20,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Runs with this status alone: finished, failed, killed, running or scheduled. [default: all]",
        ),
    ] = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """List the newest runs of a horizon, with its own scores, and why runs failed.

    RMSE is in units of the quote currency; RMSE/RW below 1 beats the random walk. What was done to champions is
    listed by forex models history.
    """
    from forex_core.report.listing import runs_rows, runs_table
    from forex_core.tracking import queries

    refuse_both(as_json, as_csv)
    ahead, one_pair = Horizon.parse(horizon), Pair.parse(pair) if pair else None
    store = _store(settings_from(pair, None, None))
    with queries.existing_store(store) as client:
        found = queries.runs(client, one_pair, ahead, last, status) if client else []
    document = {
        "store": without_password(store),
        "pair": str(one_pair) if one_pair else None,
        "horizon": str(ahead),
        "status": status,
        "runs": [_summary(row) for row in found],
    }
    print_listing(document, as_json, as_csv, runs_table, runs_rows)


@runs.command(
    "show",
    epilog="""
**Examples**

    forex runs show 1a2b3c4d
    forex runs show 1a2b3c4d --json
""",
)
def show_run(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="Id of a run, or its first 8 characters.")],
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Show everything that one run holds: scores, metrics, params, tags, files, and its error if it failed.

    In JSON and CSV, aliases are those of published_version, version_aliases those of version, which the run learned.
    """
    from forex_core.report.listing import run_rows, run_tables
    from forex_core.tracking import queries

    refuse_both(as_json, as_csv)
    with queries.existing_store(_store(settings_from(None, None, None))) as client:
        if client is None:
            raise _nothing_yet(run_id)
        found = queries.run(client, run_id)
    print_listing(_whole(found), as_json, as_csv, run_tables, run_rows)


@runs.command(
    "best",
    epilog="""
**Examples**

The lowest RMSE of the horizon, the lowest ratio to the random walk, the best hit rate of the direction:

    forex runs best 7d --pair USDCLP
    forex runs best 30d --metric 30d_rmse_ratio_rw
    forex runs best 30d --metric 30d_directional_accuracy --mode max
""",
)
def best_run(
    horizon: HorizonArgument,
    pair: OnePairOption = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="Metric to rank by. [default: 7d_rmse at 7d, …]"),
    ] = None,
    mode: Annotated[
        str, typer.Option("--mode", metavar="min|max", help="min: the lowest is best; max: the highest.")
    ] = "min",
    loadable: Annotated[
        bool,
        typer.Option(
            "--loadable", help="Only runs that published the model that they learned, where it can be loaded."
        ),
    ] = False,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Find the finished run of a pair and horizon with the best value of a metric.

    It ranks what was logged. Scores of different weeks do not compare: look at forex runs compare before acting on it.
    """
    from forex_core.report.listing import best_rows, best_table
    from forex_core.tracking import queries

    refuse_both(as_json, as_csv)
    ahead, settings = Horizon.parse(horizon), settings_from(pair, None, None)
    one_pair, name = Pair.parse(settings.pair), f"{ahead}_rmse" if metric is None else metric
    store = _store(settings)
    with queries.existing_store(store) as client:
        experiment, found = f"forecaster_{ahead}", None
        if client is not None:
            found = queries.best_run(client, experiment, name, mode, one_pair, loadable)
            if found is None:
                queries.refuse_unknown_metric(client, experiment, name)
    document = {
        "store": without_password(store),
        "pair": str(one_pair),
        "horizon": str(ahead),
        "metric": name,
        "mode": mode,
        "value": found.metrics[name] if found else None,
        "run": _summary(found) if found else None,
    }
    print_listing(document, as_json, as_csv, best_table, best_rows)


@runs.command(
    "compare",
    epilog="""
**Examples**

    forex runs compare 1a2b3c4d 5e6f7a8b
    forex runs compare 7d --pair USDCLP --last 3
""",
)
def compare_runs(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_ID RUN_ID…|HORIZON", help="Ids of runs, or their first 8 characters; or a horizon."
        ),
    ],
    pair: Annotated[
        str | None,
        typer.Option("--pair", metavar="PAIR", help="With a horizon: runs of this pair. [default: USDMXN]"),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(
            "--last", metavar="N", min=2, help="With a horizon: its newest finished runs. [default: 5]"
        ),
    ] = None,
    challengers: Annotated[
        bool,
        typer.Option(
            "--challengers", help="Show what challengers scored as well; JSON and CSV always have it."
        ),
    ] = False,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Put every model's RMSE, MAPE and weight side by side over runs, and the params in which they differ.

    Says when the runs were scored over different windows, as such scores do not compare.
    """
    from forex_core.report.listing import comparison_rows, comparison_tables
    from forex_core.tracking import queries

    refuse_both(as_json, as_csv)
    by_horizon = len(targets) == 1 and targets[0] in map(str, HORIZONS)
    if not by_horizon and (pair is not None or last is not None):
        raise InputError("--pair and --last go with a horizon, such as forex runs compare 7d --last 3")
    settings = settings_from(pair, None, None)
    store = _store(settings)
    with queries.existing_store(store) as client:
        if by_horizon:
            one_pair, ahead = Pair.parse(settings.pair), Horizon.parse(targets[0])
            rows = queries.runs(client, one_pair, ahead, last or _COMPARED, "FINISHED") if client else []
            few = f"finished runs of {one_pair} {ahead}: {len(rows)}; two are needed to compare"
            compared = (
                queries.compare(client, [row.id for row in rows])
                if client and len(rows) > 1
                else queries.RunComparison(tuple(rows), {}, {}, (few,))
            )
        elif client is None:
            raise _nothing_yet(targets[0])
        else:
            compared = queries.compare(client, targets)
    document = {
        "store": without_password(store),
        "challengers": challengers,
        "runs": [_summary(row) for row in compared.runs],
        "models": {
            name: [asdict(one) if one else None for one in scores] for name, scores in compared.models.items()
        },
        "params": {name: list(values) for name, values in compared.params.items()},
        "remarks": list(compared.remarks),
    }
    print_listing(document, as_json, as_csv, comparison_tables, comparison_rows)


@models.command(
    "list",
    epilog="""
**Examples**

    forex models list
    forex models list --pair USDCLP --csv
""",
)
def list_models(pair: EveryPairOption = None, as_json: JsonOption = False, as_csv: CsvOption = False) -> None:
    """List the registered models: every version with its aliases, run, recipe and cut-off, newest first."""
    from forex_core.report.listing import models_rows, models_table
    from forex_core.tracking.queries import existing_store, models

    refuse_both(as_json, as_csv)
    store = _store(settings_from(pair, None, None))
    one_pair = Pair.parse(pair) if pair else None
    with existing_store(store) as client:
        found = models(client, one_pair) if client else []
    document = {
        "store": without_password(store),
        "pair": str(one_pair) if one_pair else None,
        "models": [_version(row) for row in found],
    }
    print_listing(document, as_json, as_csv, models_table, models_rows)


@models.command(
    epilog="""
**Examples**

    forex models history
    forex models history --pair USDCLP --last 5 --csv
"""
)
def history(
    pair: EveryPairOption = None,
    last: Annotated[int, typer.Option("--last", metavar="N", min=1, help="How many.")] = 20,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """List what was done to champions, by hand or by the monitor, newest first: what, by whom, when and why.

    Each is an audit run of the experiment operations, which forex runs show tells in full. What runs decided by
    themselves is in forex runs list.
    """
    from forex_core.report.listing import audits_rows, audits_table
    from forex_core.tracking import AUDIT, queries

    refuse_both(as_json, as_csv)
    store = _store(settings_from(pair, None, None))
    one_pair = Pair.parse(pair) if pair else None
    with queries.existing_store(store) as client:
        found = queries.audits(client, AUDIT, one_pair, last) if client else []
    document = {
        "store": without_password(store),
        "pair": str(one_pair) if one_pair else None,
        "changes": [plain(asdict(row)) for row in found],
    }
    print_listing(document, as_json, as_csv, audits_table, audits_rows)


def _store(settings: Settings) -> str:
    """Address of the settings' store, which this process can reach from now on."""
    from forex_core.tracking.build import connect

    connect(settings)
    return settings.mlflow_uri


def _nothing_yet(run_id: str) -> InputError:
    return InputError(f"no run {run_id}: there are no runs yet; forex forecast 7d makes the first")


def _summary(row: RunRow) -> Document:
    """A run as a listing shows it, without its metrics, params and files."""
    document: Document = plain(
        {name: value for name, value in asdict(row).items() if name not in ("metrics", "params", "artifacts")}
    )
    tags = {name: value for name, value in row.tags.items() if not name.startswith("mlflow.")}
    return document | {"window": row.window, "marks": list(row.marks), "tags": tags}


def _whole(row: RunRow) -> Document:
    document: Document = plain(asdict(row))
    return document | {"window": row.window, "marks": list(row.marks)}


def _version(row: ModelRow) -> Document:
    """A version with its tags of JSON taken apart; tags that have a field are not told twice."""
    document: Document = plain(asdict(row))
    kept = {name: value for name, value in row.tags.items() if name not in document}
    told = {name: _content(document[name]) for name in ("pin", "rolled_back")}
    return document | told | {"published": row.published == "true", "tags": kept}


def _content(tag: str | None) -> object:
    """What a tag of JSON holds, or its text where it is none."""
    try:
        return None if tag is None else json.loads(tag)
    except ValueError:
        return tag
