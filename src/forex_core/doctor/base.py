"""Checks: what each is, and how all of them are made at once within a limit of time."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from loguru import logger

from forex_core.config import Settings
from forex_core.errors import ForexError
from forex_core.secrecy import redacted

State = Literal["ok", "warning", "failed", "skipped"]
_CHECKING = "check: "
"""How the threads of checks are called."""
STATES: tuple[State, ...] = ("ok", "warning", "failed", "skipped")

LIMIT_S = 11.0
"""For all checks together and what they import: what has not answered by then has failed."""
LEAST_S = 8.0
"""What they have of it where a busy machine was long at the imports.

So the command ends within 15 s, whatever hangs, where these take less than 6 s: four times as long as they need.
"""


@dataclass(frozen=True)
class Patient:
    """What is looked at.

    Attributes:
        online: whether the network may be asked.
        scratch: a folder of this examination's own, which is removed after it.
    """

    settings: Settings
    online: bool
    scratch: Path


@dataclass(frozen=True)
class Finding:
    """What a check found, and what to do about it where something is to be done."""

    state: State
    found: str
    todo: str = ""


@dataclass(frozen=True)
class Check:
    """One thing that is looked at.

    Attributes:
        look: looks; a `ForexError` of its is a failure, whose message says what to do.
        needs: checks that have to come out well before this one means anything.
    """

    name: str
    look: Callable[[Patient], Finding]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checked:
    """What came of a check."""

    name: str
    finding: Finding
    seconds: float

    @property
    def is_sound(self) -> bool:
        return self.finding.state in ("ok", "warning")

    @property
    def document(self) -> dict[str, Any]:
        finding = self.finding
        return {
            "name": self.name,
            "state": finding.state,
            "found": finding.found,
            "todo": finding.todo,
            "seconds": round(self.seconds, 2),
        }


def examine(
    checks: Sequence[Check],
    settings: Settings,
    *,
    online: bool = False,
    limit_s: float = LIMIT_S,
) -> tuple[Checked, ...]:
    """Make every check, at once as far as they do not need each other, and return what they found, in their order.

    It raises nothing and waits for nobody: a check that has not answered within `limit_s` has failed, and one whose
    needs failed is skipped. No finding tells a secret of the settings.
    """
    secrets = settings.secrets
    with TemporaryDirectory(prefix="forex-doctor-", dir=_memory(), ignore_cleanup_errors=True) as scratch:
        patient = Patient(settings, online, Path(scratch))
        examination = _Examination(patient, checks, time.monotonic() + limit_s)
        found = examination.results(limit_s)
    return tuple(
        Checked(
            one.name,
            Finding(
                one.finding.state,
                redacted(" ".join(one.finding.found.split()), secrets),
                redacted(one.finding.todo, secrets),
            ),
            one.seconds,
        )
        for one in found
    )


def _memory() -> Path | None:
    """A folder in memory, where there is one: making a tracking store waits for a disk a hundred times."""
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK | os.X_OK) else None


def is_waiting() -> bool:
    """Whether a check that was given up is still under way in this process."""
    return any(thread.name.startswith(_CHECKING) for thread in threading.enumerate())


def summary(found: Sequence[Checked]) -> dict[str, int]:
    """How many came out how."""
    counts = Counter(one.finding.state for one in found)
    return {state: counts[state] for state in STATES}


def _late(check: Check, found: Mapping[str, Checked], limit_s: float) -> Finding:
    """Of a check that has not answered, or that waits for one that has not."""
    silent = [need for need in check.needs if need not in found]
    if silent:
        return Finding("skipped", f"'{silent[0]}' has not answered")
    todo = "see what it waits for: a server that does not answer, a locked database, a slow disk"
    return Finding("failed", f"no answer within {limit_s:.2g} s", todo)


@dataclass
class _Examination:
    """Checks under way, each in a thread of its own: one that waits for a dead server keeps no other from answering."""

    patient: Patient
    checks: Sequence[Check]
    until: float
    found: dict[str, Checked] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ended = {check.name: threading.Event() for check in self.checks}
        self._began = time.monotonic()
        for check in self.checks:
            threading.Thread(
                target=self._make, args=(check,), name=f"{_CHECKING}{check.name}", daemon=True
            ).start()

    def results(self, limit_s: float) -> list[Checked]:
        for event in self._ended.values():
            event.wait(max(self.until - time.monotonic(), 0))
        found, waited = dict(self.found), time.monotonic() - self._began
        return [
            found.get(check.name) or Checked(check.name, _late(check, found, limit_s), waited)
            for check in self.checks
        ]

    def _make(self, check: Check) -> None:
        for need in check.needs:
            self._ended[need].wait()
        began = time.monotonic()
        ill = [need for need in check.needs if not self.found[need].is_sound]
        finding = Finding("skipped", f"'{ill[0]}' did not come out well") if ill else self._looked(check)
        self.found[check.name] = Checked(check.name, finding, time.monotonic() - began)
        self._ended[check.name].set()

    def _looked(self, check: Check) -> Finding:
        try:
            return check.look(self.patient)
        except ForexError as error:
            return Finding("failed", str(error))
        except Exception as error:  # noqa: BLE001  whatever is broken, the other checks are to be told
            logger.opt(exception=True).error("check '{}' broke off", check.name)
            told = f"{type(error).__name__}: {error}"
            return Finding("failed", told, "if this is none of your machine's faults, report it")
