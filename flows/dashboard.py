"""The flow `dashboard`: the pages written anew, and the newest runs on Prefect's page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from loguru import logger
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.logs import connect_logging
from forex_core.config import load_settings
from forex_core.dashboard import Reader, Written, runs_document, runs_markdown, write_site
from forex_core.secrecy import without_password
from forex_core.tracking import runs_from_settings

Document = dict[str, Any]

LIMIT_S = 30 * 60
"""Of a run, which takes seconds, and a minute for the ledger of many years."""


@task(name="write pages", cache_policy=NO_CACHE, persist_result=False)
def written(folder: Path, reader: Reader) -> Written:
    """Every page, each in one step."""
    done = write_site(folder, reader)
    logger.info("{} pages, {} bytes: {}", done.pages, done.bytes, done.index)
    return done


@flow(
    name="dashboard",
    description="The dashboard's pages written anew, and the newest runs of every horizon as a table.",
    validate_parameters=True,
    timeout_seconds=LIMIT_S,
    persist_result=False,
    result_serializer="json",  # Prefect keeps the error of a flow that fails, by default as a pickle
)
def dashboard(folder: Path | None = None, last: int = 5) -> Document:
    """Write the pages.

    Args:
        folder: of the pages, which they make theirs; by default one of their own below the data folder.
        last: runs of each horizon in the table.

    Raises:
        InputError: the folder holds files of others, or cannot be written.
        LedgerError: the ledger cannot be read.
    """
    connect_logging()
    settings = load_settings()
    reader = Reader(settings, runs_from_settings(settings))
    made = written((folder or settings.dashboard_dir).absolute(), reader)
    found, untold = reader.runs(last)
    runs = runs_document(found, untold, without_password(settings.mlflow_uri), None)
    create_markdown_artifact(
        markdown=runs_markdown(runs, made.index.as_uri()),
        key="dashboard",
        description=f"{made.pages} pages, and the newest runs",
    )
    return runs | {"site": asdict(made) | {"index": str(made.index)}}
