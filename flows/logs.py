"""Records of loguru in the log of the Prefect run that they belong to."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from loguru import logger
from prefect import get_run_logger
from prefect.exceptions import MissingContextError

if TYPE_CHECKING:
    from loguru import Message


@cache
def connect_logging() -> None:
    """Send loguru's records to the log of the Prefect run in which they are made, once per process."""

    def to_prefect(message: Message) -> None:
        try:
            get_run_logger().log(message.record["level"].no, message.record["message"])
        except MissingContextError:  # a record made outside a run has no run to go to
            return

    # loguru's own handler, when it is still there: Prefect's shows the same records.
    with suppress(ValueError):
        logger.remove(0)
    logger.add(to_prefect, level="DEBUG")
