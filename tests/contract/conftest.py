"""The loopback server of the fetchers' tests, and no proxy between it and the client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.bad_days import Server, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of the test's own; see `bad_days`."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with serving() as one:
        yield one
