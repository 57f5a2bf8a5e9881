"""The ledger and its judgement as plain documents, terminal tables and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from forex_core.report.document import Document, price_decimals
from forex_core.report.terminal import add_columns, add_row, minute, new_table, one_line
from forex_core.types import short_id

if TYPE_CHECKING:
    from forex_core.ledger import Audit, Published, Trajectory
    from forex_core.ledger.live import LeadScores


def scores_document(scores: LeadScores | None) -> Document | None:
    return asdict(scores) if scores else None


def published_document(published: Published) -> Document:
    """A forecast of the ledger without its path."""
    return asdict(published) | {
        "pair": str(published.pair),
        "horizon": str(published.horizon),
        "origin": published.origin.isoformat(),
        "as_of": published.as_of.isoformat(),
        "published_at": published.published_at.isoformat(),
        "recorded_at": published.recorded_at.isoformat(),
        "weights": dict(published.weights),
    }


def trajectory_document(path: Trajectory) -> Document:
    """A forecast with its path; `outcomes` has None for what has not come."""
    return published_document(path.of) | {
        "target_dates": [day.isoformat() for day in path.target_dates],
        "steps": list(path.steps),
        "quantiles": {str(level): path.quantiles[:, q].tolist() for q, level in enumerate(path.levels)},
        "random_walk": {str(level): path.walk[:, q].tolist() for q, level in enumerate(path.levels)},
        "medians": {name: values.tolist() for name, values in path.medians.items()},
        "outcomes": [None if np.isnan(value) else float(value) for value in path.outcomes],
    }


def audit_document(audit: Audit, waiting: int) -> Document:
    return asdict(audit) | {"faults": list(audit.faults), "waiting": waiting}


def audit_lines(document: Document) -> list[RenderableType]:
    """What `forex ledger verify` found."""
    counts = (
        f"{document['publications']} forecasts with {document['predictions']} target dates, {document['outcomes']} "
        f"outcomes, {document['scores']} scores"
    )
    waiting = document["waiting"]
    lines: list[RenderableType] = [Text(f"{counts}. Head of the chain: {document['head'][:16]}…")]
    if waiting:
        lines.append(Text(f"{waiting} forecasts wait to be written: forex monitor writes them.", "yellow"))
    if document["unscored"]:
        lines.append(
            Text(f"{document['unscored']} scores are to be made yet: forex monitor makes them.", "yellow")
        )
    if document["faults"]:
        lines += [Text(f"✗ {one_line(fault)}", "red") for fault in document["faults"]]
    else:
        lines.append(Text("Nothing was changed since it was written.", "green"))
    return lines


def ledger_table(document: Document) -> list[RenderableType]:
    """The forecasts of `forex ledger list`."""
    rows = document["forecasts"]
    if not rows:
        asked = [document[name] for name in ("horizon", "pair") if document[name]]
        return [Text(f"No {' '.join([*asked, 'forecast'])} has been published yet.")]
    table = new_table("Published forecasts")
    names = ("Forecast", "Origin", "Published (UTC)", "Model", "Verdict", "Run")
    add_columns(table, *names, right=("No.", "Close"))
    for row in rows:
        version = f"v{row['version']}" if row["version"] is not None else ""
        close = f"{row['close']:.{price_decimals(row['close'])}f}"
        cells = (
            f"{row['pair']} {row['horizon']}",
            row["origin"],
            _published_at(row),
            version,
            row["verdict"],
            short_id(row["run_id"]),
        )
        add_row(table, *cells, str(row["number"]), close)
    return [table, *_hindsight_note(rows)]


def trajectory_table(document: Document) -> list[RenderableType]:
    """The path of one forecast, with what came."""
    quantiles, decimals = document["quantiles"], price_decimals(document["close"])

    def price(value: float | None) -> str:
        return "" if value is None else f"{value:.{decimals}f}"

    table = new_table(
        f"{document['pair']} {document['horizon']} from {document['origin']} "
        f"(close {price(document['close'])}), published {minute(document['published_at'])} UTC"
    )
    add_columns(table, "Date", right=("Median", "10 %", "90 %", "2.5 %", "97.5 %", "Came"))
    for h, day in enumerate(document["target_dates"]):
        cells = [price(quantiles[level][h]) for level in ("0.5", "0.1", "0.9", "0.025", "0.975")]
        add_row(table, day, *cells, price(document["outcomes"][h]))
    return [table]


def _published_at(row: Document) -> str:
    return minute(row["published_at"]) + ("" if row["live"] else "*")


def _hindsight_note(rows: Sequence[Document]) -> list[RenderableType]:
    """What the star of `_published_at` means, where there is one."""
    if all(row["live"] for row in rows):
        return []
    return [Text("* in hindsight: after its first outcome was known, in no live record")]


def date_table(document: Document) -> list[RenderableType]:
    """What was said of one date."""
    rows = document["forecasts"]
    if not rows:
        return [Text(f"No forecast of {document['pair']} is for {document['target_date']}.")]
    came = [
        f"{value:.{price_decimals(value)}f}" + ("" if rate == "close" else f" ({rate})")
        for rate, value in document["outcomes"].items()
    ]
    title = f"{document['pair']} on {document['target_date']}, as it was forecast"
    table = new_table(f"{title}; it came at {', '.join(came)}" if came else title)
    names = ("Origin", "Horizon", "Published (UTC)", "Run")
    add_columns(table, *names, right=("Step", "Median", "10 %", "90 %"))
    for row in rows:
        decimals = price_decimals(row["median"])
        prices = [f"{row[name]:.{decimals}f}" for name in ("median", "low_80", "high_80")]
        horizon = row["horizon"] if row["rate"] == "close" else f"{row['horizon']} {row['rate']}"
        told = (row["origin"], horizon, _published_at(row), short_id(row["run_id"]))
        add_row(table, *told, str(row["step"]), *prices)
    return [table, *_hindsight_note(rows)]


def monitor_tables(document: Document) -> list[RenderableType]:
    """What `forex monitor` found: scores of each horizon at its end, and the alarms."""
    came = document["outcomes"]
    lines: list[RenderableType] = [
        Text(
            f"{document['pair']} up to {document['origin']}: {came['new']} new outcomes, {came['revised']} revised, "
            f"{document['scored']} new scores of all pairs"
        )
    ]
    table = new_table("Live track record, at the end of each horizon")
    add_columns(
        table,
        "Horizon",
        right=("Forecasts", "Apart", "RMSE", "MAPE", "RMSE ratio", "CRPS ratio", "80 % band", "95 % band"),
    )
    for horizon, found in document["horizons"].items():
        add_row(table, horizon, *_score_cells(found["end"]))
    lines.append(
        table
        if document["horizons"]
        else Text("No forecast was published in its time yet, so there is no live record.")
    )
    for told in document["raised"]:
        lines.append(Text(f"ALARM {one_line(told)}", "red"))
    for told in document["warnings"]:
        lines.append(Text(one_line(told), "yellow"))
    if document["told"]:
        lines.append(Text(f"Told {one_line(', '.join(document['told']))}."))
    if not document["raised"] and not document["warnings"]:
        lines.append(Text("No alarm.", "green"))
    return lines


def monitor_markdown(document: Document) -> str:
    """The same for Prefect's page."""
    heads = (
        "Horizon",
        "Forecasts",
        "Apart",
        "RMSE",
        "MAPE",
        "RMSE ratio",
        "CRPS ratio",
        "80 % band",
        "95 % band",
    )
    rows = [[horizon, *_score_cells(found["end"])] for horizon, found in document["horizons"].items()]
    table = [_markdown_row(heads), _markdown_row(["---"] * len(heads)), *map(_markdown_row, rows)]
    told = [f"- **{one_line(text)}**" for text in document["raised"]]
    told += [f"- {one_line(text)}" for text in document["warnings"]]
    return "\n".join([f"{document['pair']} up to {document['origin']}", "", *table, "", *told])


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _score_cells(end: Document | None) -> list[str]:
    if end is None:
        return ["0", *[""] * 7]

    def ratio(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    def share(value: Any) -> str:
        return f"{100 * value:.0f} %"

    return [
        str(end["origins"]),
        str(end["origins_effective"]),
        f"{end['rmse']:.4g}",
        f"{end['mape_pct']:.2f} %",
        ratio(end["rmse_ratio_rw"]),
        ratio(end["crps_ratio_rw"]),
        share(end["coverage_80"]),
        share(end["coverage_95"]),
    ]
