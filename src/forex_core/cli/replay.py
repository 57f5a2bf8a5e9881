"""`forex replay`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from forex_core.cli.app import (
    JsonOption,
    VerboseOption,
    configure_logging,
    print_document,
    progress_bar,
    settings_from,
)
from forex_core.errors import InputError
from forex_core.types import short_id

if TYPE_CHECKING:
    from rich.console import RenderableType

    from forex_core.report.document import Document
    from forex_core.tracking.replay import Level, Replay

EXAMPLES = """
**Examples**

A run as forex runs list shows it, by the first 8 characters of its id:

    forex replay 1a2b3c4d

From its data alone, for instance after its other files were deleted:

    forex replay 1a2b3c4d --level recomputed --json
"""
_RESULTS = {
    "exact": "replayed, exact",
    "close": "replayed within 1e-5",
    "different": "NOT replayed",
    "impossible": "NOT replayed, impossible",
}


def replay(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="Id of a run, or its first 8 characters.")],
    level: Annotated[
        str,
        typer.Option(
            "--level",
            metavar="stored|recomputed|both",
            help="stored: from the members' answers that the run kept; recomputed: from its data, with every model "
            "asked again.",
        ),
    ] = "both",
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make the forecast that a run published again, and compare.

    Exact means equal when rounded to 1e-6 of the price unit. On another processor or with other libraries what is
    recomputed may differ by 1e-5 of the price; the largest difference is shown with what may have caused it.

    Exit code 0: replayed; 1: not replayed, at one level at least; 2: there is no such run.
    """
    configure_logging(verbose)
    levels = _levels(level)
    settings = settings_from(None, None, None)

    from forex_core.tracking import replay as replaying
    from forex_core.tracking.queries import existing_store
    from forex_core.tracking.registry import registry_from_settings

    registry = registry_from_settings(settings)
    with existing_store(settings.mlflow_uri) as client:
        if client is None:
            raise InputError(f"no run {run_id}: there are no runs yet; forex forecast 7d makes the first")
    with progress_bar(f"replay of {short_id(run_id)}") as advance:
        found = replaying.replay(registry, run_id, levels, advance)
    print_document(_document(found), as_json, _tables)
    if not found.holds:
        raise typer.Exit(1)


def _levels(text: str) -> tuple[Level, ...]:
    known: dict[str, tuple[Level, ...]] = {
        "stored": ("stored",),
        "recomputed": ("recomputed",),
        "both": ("stored", "recomputed"),
    }
    if text not in known:
        raise InputError(f"--level '{text}' is unknown; expected one of {', '.join(known)}")
    return known[text]


def _document(found: Replay) -> Document:
    from dataclasses import asdict

    def of_difference(difference: object) -> Document | None:
        if difference is None:
            return None
        values = asdict(difference)  # type: ignore[call-overload]
        return dict(values) | {"target_date": str(values["target_date"]) if values["target_date"] else None}

    return {
        "run_id": found.run_id,
        "pair": str(found.pair),
        "horizon": str(found.horizon),
        "origin": found.origin.isoformat() if found.origin else None,
        "model": found.model,
        "replayed": found.holds,
        "levels": {
            one.level: {
                "outcome": one.outcome,
                "replayed": one.holds,
                "compared_with": one.compared_with,
                "numbers": one.numbers,
                "largest_difference": of_difference(one.largest),
                "learned_difference": of_difference(one.learned),
                "causes": list(one.causes),
            }
            for one in found.reproductions
        },
    }


def _tables(document: Document) -> list[RenderableType]:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(f"Replay of run {document['run_id']}"),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in ("Level", "Result"):
        table.add_column(name, no_wrap=True)
    table.add_column("Numbers", justify="right", no_wrap=True)
    table.add_column("Largest difference", no_wrap=True)
    told: list[RenderableType] = []
    for level, found in document["levels"].items():
        largest = found["largest_difference"]
        apart = "–" if not found["numbers"] else f"{largest['relative']:.2g}" if largest else "none"
        table.add_row(
            Text(level), Text(_RESULTS[found["outcome"]]), Text(str(found["numbers"] or "–")), Text(apart)
        )
        told += [Text(f"{level}: {line}") for line in _lines(found)]
    about = f"{document['pair']} {document['horizon']} from {document['origin'] or 'an unknown day'}"
    return [table, Text(f"{about}, published: {document['model']}."), *told]


def _lines(found: Document) -> list[str]:
    lines = [f"compared with {found['compared_with']}"] if found["compared_with"] else []
    for name, title in (
        ("largest_difference", "largest difference"),
        ("learned_difference", "learned again"),
    ):
        largest = found[name]
        if largest:
            day = f" of {largest['target_date']}" if largest["target_date"] else ""
            level = f" at {largest['level']:g}" if largest["level"] is not None else ""
            lines.append(
                f"{title}: {largest['what']}{day}{level}, stored {largest['stored']:.10g}, again "
                f"{largest['again']:.10g}, {largest['relative']:.2g} apart"
            )
    exact = found["outcome"] == "exact"
    title = "not as it was then, without an effect" if exact else "cause"
    return [*lines, *(f"{title}: {cause}" for cause in found["causes"])]
