"""`forex doctor` as a command that gives its checks all the time that a busy machine makes them wait."""

from __future__ import annotations

import sys

_CODE = """
import sys
from forex_core import doctor
doctor.LIMIT_S = 200.0
from forex_core.cli import main
sys.argv = ["forex", "doctor", *sys.argv[1:]]
main()
"""
PATIENT_DOCTOR = (sys.executable, "-c", _CODE)
