"""What a command prints of its own records, and that it leaves the sinks of others in its process alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loguru import logger

from forex_core.cli.app import configure_logging


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    yield
    configure_logging(False)


def test_sinks_of_others_stay(capsys: pytest.CaptureFixture[str]) -> None:
    """A process that has connected Prefect's log before goes on to send it records."""
    told: list[str] = []
    sink = logger.add(told.append, level="DEBUG", format="{message}")
    try:
        for verbose in (False, True, False):
            configure_logging(verbose)
            logger.debug("verbose is {}", verbose)
    finally:
        logger.remove(sink)
    assert [message.strip() for message in told] == [
        "verbose is False",
        "verbose is True",
        "verbose is False",
    ]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.partition("verbose")[2] for line in printed.err.splitlines()] == [" is True"]


def test_a_sink_that_somebody_took_away_is_no_error() -> None:
    configure_logging(True)
    logger.remove()
    configure_logging(True)
