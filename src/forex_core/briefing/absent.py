"""What a briefing goes without, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Absent:
    """A part that cannot be had. `kind` is one of those that `document.py` lists, `facts` are what it is about."""

    kind: str
    facts: Mapping[str, object] = field(default_factory=dict)
