"""A limit of time ends what Python waits for, and a call of a library as soon as it comes back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FLOWS = """
import ctypes, json, time
from prefect import flow

class Moment(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]

def in_python():
    time.sleep(1000)

def in_c():  # for a lock that is held: no signal ends that, as it would end a sleep
    library, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    assert library.pthread_mutex_lock(lock) == 0
    library.pthread_mutex_timedlock(lock, ctypes.byref(Moment(int(time.time()) + 4, 0)))

for work in (in_python, in_c):
    began = time.monotonic()
    state = flow(work, timeout_seconds=1)(return_state=True)
    print(json.dumps([state.type.value, state.name, time.monotonic() - began]))
"""


@pytest.mark.slow
def test_a_run_that_is_over_its_time_ends(prefect_server: None) -> None:
    """In a process of its own, as a worker starts it: pytest has a use for the alarm that is set."""
    done = subprocess.run(
        [sys.executable, "-c", FLOWS], capture_output=True, text=True, check=True, timeout=280
    )
    (*python, waited), (*c, held) = map(json.loads, done.stdout.splitlines())
    assert python == c == ["FAILED", "TimedOut"]
    assert 1 <= waited < 120
    assert 3 <= held < 120
