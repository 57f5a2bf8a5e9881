"""Archives as terminal tables and as the text of artifacts, each of the document that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from forex_core.report.terminal import add_columns, add_row, minute, new_table, one_line
from forex_core.types import short_id

if TYPE_CHECKING:
    from forex_core.report.document import Document

_COUNTS = ("runs", "models", "artifacts", "observations")
_SHOWN = 100
"""Of a long list of missing files; the document has them all."""


def created_lines(document: Document) -> list[RenderableType]:
    """What went into an archive, and its address."""
    reused = f", {size(document['bytes_reused'])} of it unchanged" if document["bytes_reused"] else ""
    return [
        Text(f"Archive: {document['archive']}"),
        Text(
            f"{document['files']} files, {size(document['bytes'])}{reused}; {size(document['bytes_written'])} written "
            f"in {document['seconds']:.1f} s ({counts(document['counts'])})"
        ),
        *_missing("Missing", document["missing"]),
    ]


def archives_table(document: Document) -> list[RenderableType]:
    """The archives of a place, the newest first."""
    if not document["archives"]:
        return [Text(f"There are no archives in {document['place']}.")]
    table = new_table(f"Archives in {document['place']}")
    add_columns(table, "Made (UTC)", right=("Files", "Size", "Runs", "Missing"))
    table.add_column("Folder", overflow="fold")
    for one in document["archives"]:
        if one["fault"] is None:
            missing = str(len(one["missing"]) + one["missing_more"] or "")
            runs = str(one["counts"].get("runs", ""))
            add_row(
                table,
                minute(one["created"]),
                str(one["files"]),
                size(one["bytes"]),
                runs,
                missing,
                one["data_dir"],
            )
    faults = [Text(one_line(one["fault"])) for one in document["archives"] if one["fault"]]
    addresses = [Text(f"{minute(one['created'])}  {one['archive']}") for one in document["archives"]]
    return [table, Text(), *addresses, *faults]


def verified_lines(document: Document) -> list[RenderableType]:
    """That an archive is whole."""
    return [
        Text(f"Verified: {document['archive']}"),
        Text(
            f"{document['files']} files, {size(document['bytes'])}, {document['objects']} objects read "
            f"({counts(document['counts'])})"
        ),
        *_missing("Missing when it was made", document["missing"]),
    ]


def restored_lines(document: Document) -> list[RenderableType]:
    """What was restored, where, and where what was there is kept."""
    sound = [model for model, fault in document["champions"].items() if fault is None]
    faults = {model: fault for model, fault in document["champions"].items() if fault}
    return [
        Text(f"Restored: {document['folder']}"),
        Text(
            f"{document['files']} files, {size(document['bytes'])} of {minute(document['created'])} UTC in "
            f"{document['seconds']:.1f} s ({counts(document['counts'])})"
        ),
        Text(f"Models checked: {', '.join(sound) or 'none'}"),
        *(Text(f"NOT usable: {model}: {one_line(fault)}") for model, fault in faults.items()),
        *(
            Text(f"What was there is kept: {place}; remove it when all is well")
            for place in document["before"]
        ),
        *_missing("Missing when the archive was made", document["missing"]),
        *(
            [Text(f"Secrets are not in an archive; set them again: {', '.join(document['secrets'])}")]
            if document["secrets"]
            else []
        ),
    ]


def pruned_lines(document: Document) -> list[RenderableType]:
    """Which archives stay and which went."""
    would = "would be removed" if document["dry_run"] else "removed"
    return [
        Text(f"{len(document['kept'])} archives kept, {len(document['removed'])} {would}"),
        *(Text(f"{would}: {address}") for address in document["removed"]),
        *(Text(f"DAMAGED: {address}: {one_line(fault)}") for address, fault in document["damaged"].items()),
        Text(f"{document['objects']} objects that no archive names {would}, {size(document['bytes'])}"),
    ]


def backup_markdown(created: Document, pruned: Document | None) -> str:
    """The text of a backup's artifact."""
    lines = [str(line) for line in created_lines(created)]
    if pruned is not None:
        lines += [str(line) for line in pruned_lines(pruned)]
    return "\n\n".join(lines)


def drill_markdown(document: Document) -> str:
    """The text of a restore drill's artifact."""
    lines = [
        f"Archive: {document['archive']}",
        f"Restored {document['files']} files, {size(document['bytes'])}, in {document['seconds']:.1f} s "
        f"({counts(document['counts'])})",
        "",
        "| model | run | replayed |",
        "|---|---|---|",
    ]
    for row in document["replays"]:
        lines.append(f"| {row['model']} | {short_id(row['run_id'] or '–')} | {row['outcome']} |")
    if document["note"]:
        lines += ["", f"**{document['note']}**"]
    return "\n".join(lines)


def _missing(what: str, lost: Sequence[str]) -> list[Text]:
    more = [Text(f"{what}: {len(lost) - _SHOWN} more")] if len(lost) > _SHOWN else []
    return [*(Text(f"{what}: {one_line(one)}") for one in lost[:_SHOWN]), *more]


def counts(found: Mapping[str, int]) -> str:
    """
    >>> counts({"runs": 3, "models": 1, "artifacts": 70})
    '3 runs, 1 models, 70 artifacts'
    """
    return ", ".join(f"{found[name]} {name}" for name in _COUNTS if name in found)


def size(count: int) -> str:
    """
    >>> size(999), size(1_234_567), size(2_000_000_000)
    ('0.0 MB', '1.2 MB', '2,000.0 MB')
    """
    return f"{count / 1e6:,.1f} MB"
