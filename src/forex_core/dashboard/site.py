"""The pages as files of a folder, which can be opened or handed out by any web server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from forex_core.dashboard import pages
from forex_core.dashboard.reading import Reader
from forex_core.errors import InputError

MARK = ".forex-dashboard"
"""Names the pages of a folder that are the dashboard's, one a line: no other file is ever removed or replaced."""


@dataclass(frozen=True)
class Written:
    """A site: its first page, how many pages it has, and their size."""

    index: Path
    pages: int
    bytes: int


def write_site(folder: Path, reader: Reader) -> Written:
    """Write every page, each in one step; pages of before that there are no more are removed.

    Raises:
        InputError: the folder holds files of others, or cannot be written.
        LedgerError: the ledger cannot be read.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / MARK
        before = set(mark.read_text(encoding="utf-8").split()) if mark.is_file() else set[str]()
        if not before and any(folder.iterdir()):
            raise InputError(
                f"{folder} has files and no dashboard; name an empty folder, or one that a dashboard was written to"
            )
        names = pages.names(reader)
        # Before the first page: whoever is ended on the way can write again.
        mark.write_text("\n".join(sorted(before | set(names))), encoding="utf-8")
        size = 0
        for name in names:
            text = pages.page(name, reader)
            if text is not None:
                size += _write(folder / name, text)
        for name in before - set(names):
            (folder / name).unlink(missing_ok=True)
        mark.write_text("\n".join(sorted(names)), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}); name another folder") from error
    return Written(folder / pages.OVERVIEW, len(names), size)


def _write(path: Path, text: str) -> int:
    unfinished = path.with_name(f"{path.name}.unfinished")
    content = text.encode()
    unfinished.write_bytes(content)
    unfinished.replace(path)
    return len(content)
