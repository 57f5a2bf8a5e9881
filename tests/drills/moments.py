"""How many random moments a drill tries, and from which seed they are drawn.

FOREX_DRILLS is the share of them that is tried: a tenth by default, all of them in `make drills`. The seed is printed;
FOREX_DRILLS_SEED draws others.
"""

from __future__ import annotations

import os
import random

SHARE = float(os.environ.get("FOREX_DRILLS", "0.1"))
SEED = int(os.environ.get("FOREX_DRILLS_SEED", "20261128"))


def drawn() -> random.Random:
    print("seed", SEED, "share", SHARE)
    return random.Random(SEED)


def share_of(moments: int) -> int:
    return max(1, round(moments * SHARE))
