"""A PostgreSQL server of a benchmark's own: the one that the tests start."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

_FIXTURES = Path(__file__).parents[1] / "conftest.py"


@contextmanager
def postgres_server() -> Iterator[Any | None]:
    """A server without fsync that ends with the context; None where PostgreSQL is not installed."""
    spec = importlib.util.spec_from_file_location("fixtures", _FIXTURES)
    assert spec is not None
    assert spec.loader is not None
    fixtures = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = fixtures  # where its dataclasses look themselves up
    sys.path.append(str(_FIXTURES.parents[1]))  # of what it imports
    spec.loader.exec_module(fixtures)
    binaries = fixtures.postgres_binaries()
    if binaries is None:
        yield None
        return
    with closing(fixtures.PostgresServer(binaries)) as server:
        yield server
