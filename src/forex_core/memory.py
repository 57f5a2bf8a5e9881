"""The memory of a process: what it does not need any more goes back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_MMAP_THRESHOLD, _RETURNED_BYTES = -3, 128 << 10
"""M_MMAP_THRESHOLD of mallopt(3): what is as long goes back when a thread frees it. glibc else raises it to 32 MB."""
_THP_DISABLE = 41
"""PR_SET_THP_DISABLE of prctl(2): Arrow's pool asks for huge pages, and each thread fills one with its first bytes."""


def give_back_memory() -> None:
    """Set this process to hold no memory for good that it needed once.

    To its end; that there are no huge pages is inherited by what it starts. A system that does not know a setting is
    left as it is.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _RETURNED_BYTES)
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(_THP_DISABLE, *map(ctypes.c_ulong, (1, 0, 0, 0)))
