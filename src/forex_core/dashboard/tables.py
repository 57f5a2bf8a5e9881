"""The newest runs of every horizon, as terminal tables and as the text of an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from rich.console import RenderableType

from forex_core.dashboard.pages import version
from forex_core.dashboard.sources import Run
from forex_core.dashboard.words import number
from forex_core.report.document import Document
from forex_core.report.terminal import add_columns, add_row, minute, new_table, prose
from forex_core.report.text import error_size, in_markdown
from forex_core.types import HORIZONS, Horizon, short_id

NO_RUNS = "no runs yet"


def runs_document(
    found: Mapping[Horizon, Sequence[Run]], untold: str | None, store: str, pair: str | None
) -> Document:
    """The plain document of `--json`: by horizon the newest runs, newest first, each with its own horizon's scores."""
    return {
        "store": store,
        "pair": pair,
        "untold": untold,
        "horizons": {str(horizon): [_run(run) for run in found.get(horizon, ())] for horizon in HORIZONS},
    }


def _run(run: Run) -> Document:
    names = ("rmse", "mape", "rmse_ratio_rw")
    return {
        "id": run.id,
        "name": run.name,
        "started": run.started.astimezone(UTC).isoformat(timespec="seconds"),
        "status": run.status,
        "pair": run.pair,
        "environment": run.environment,
        **{name: run.scores.get(name) for name in names},
        "version": run.published_version or run.version,
        "is_champion": "champion" in run.aliases,
        "model": version(run),
        "error": run.error,
    }


def runs_tables(document: Document) -> list[RenderableType]:
    """A table for each horizon."""
    if document["untold"]:
        return [prose(document["untold"])]
    parts: list[RenderableType] = []
    for horizon, rows in document["horizons"].items():
        if not rows:
            parts.append(prose(f"{horizon}: {NO_RUNS}"))
            continue
        table = new_table(horizon)
        add_columns(table, "Run", "Started (UTC)", "Pair", right=("RMSE", "MAPE %", "RMSE/RW"))
        add_columns(table, "Model", "Environment")
        for row in rows:
            add_row(table, *_cells(row))
        parts += [table, *(prose(f"{short_id(row['id'])} {_fate(row)}") for row in rows if _fate(row))]
    if any(row["is_champion"] for rows in document["horizons"].values() for row in rows):
        parts.append(prose("* champion"))
    return parts


def runs_markdown(document: Document, site: str | None = None) -> str:
    """The same for an orchestrator's page, with where the site lies."""
    parts = ["# Newest runs"]
    if document["untold"]:
        parts.append(in_markdown(document["untold"]))
    for horizon, rows in document["horizons"].items() if not document["untold"] else ():
        parts.append(f"## {horizon}")
        if not rows:
            parts.append(NO_RUNS)
            continue
        lines = [
            "| Run | Started (UTC) | Pair | RMSE | MAPE % | RMSE/RW | Model | Environment |",
            "|---|---|---|---:|---:|---:|---|---|",
            *(f"| {' | '.join(map(in_markdown, _cells(row)))} |" for row in rows),
        ]
        parts.append("\n".join(lines))
        parts += [in_markdown(f"{short_id(row['id'])} {_fate(row)}") for row in rows if _fate(row)]
    if site:
        parts.append(f"[All pages]({site})")
    return "\n\n".join(parts)


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        short_id(row["id"]),
        minute(row["started"]),
        row["pair"] or "–",
        "–" if row["rmse"] is None else error_size(row["rmse"]),
        number(row["mape"], 2),
        number(row["rmse_ratio_rw"], 3),
        row["model"],
        row["environment"] or "–",
    ]


def _fate(row: Mapping[str, Any]) -> str:
    """What became of a run that did not finish."""
    if row["status"] == "FINISHED":
        return ""
    error = f": {row['error'][:160]}" if row["error"] else ""
    return f"{row['status'].lower()}{error}"
