"""Forecasts that are published and not in the ledger yet: kept as files until it takes them."""

from __future__ import annotations

import os
from pathlib import Path

from loguru import logger

from forex_core.errors import InputError, LedgerError, LedgerUnavailable
from forex_core.ledger.book import Ledger
from forex_core.ledger.entry import Entry


class Pending:
    """A folder of entries, one file each, which outlive the process that made them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, entry: Entry) -> None:
        """Keep an entry until `deliver` has written it, whatever becomes of this process and of the ledger.

        Raises:
            OSError: the file cannot be written.
        """
        path = self._folder / f"{entry.run_id}.json"
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        try:
            with unfinished.open("w", encoding="utf-8") as file:
                file.write(entry.to_json())
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    def deliver(self, ledger: Ledger) -> tuple[int, tuple[str, ...]]:
        """Write what waits, the oldest first; how many were written, and what is wrong with the others.

        A file that is no entry keeps no other from being written.

        Raises:
            LedgerUnavailable: the ledger cannot be written just now; what waits goes on waiting.
        """
        entries, faults = [], []
        for path in sorted(self._folder.glob("*.json")):
            try:
                entries.append((Entry.from_json(path.read_text(encoding="utf-8")), path))
            except FileNotFoundError:  # another process was quicker
                continue
            except (ValueError, KeyError, TypeError, AttributeError, InputError, OSError) as error:
                faults.append(f"{path} is no forecast ({type(error).__name__}); look at it and remove it")
        written = 0
        for entry, path in sorted(entries, key=lambda one: one[0].published_at):
            try:
                ledger.append(entry)
            except LedgerUnavailable:
                raise
            except (LedgerError, ValueError, TypeError, IndexError) as error:
                faults.append(f"{path} cannot be written ({error}); look at it and remove it")
                continue
            path.unlink(missing_ok=True)
            logger.info("the forecast of run {} is in the ledger now", entry.run_id)
            written += 1
        return written, tuple(faults)

    def __len__(self) -> int:
        return sum(1 for _ in self._folder.glob("*.json"))
