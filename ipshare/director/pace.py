"""pace: when automatic failovers began lately, for the limit on them, over restarts. Pure but for the clock's
name.

Times are seconds of CLOCK_BOOTTIME, which nobody sets. What is kept names the boot that they are of: in
another boot, or on another machine, nobody knows how long ago they were (the wall clock may have been set):
they count as if they began now. What is over leaves the store: who starts long after finds nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable


def lately(began: Iterable[float], now_s: float, period_s: float) -> list[float]:
    """Those that count still."""
    return [at for at in began if now_s - at < period_s]


def to_text(began: Iterable[float], boot: str) -> str:
    """For the store; "": there are none."""
    times = list(began)
    return json.dumps({"boot": boot, "began": times}) if times else ""


def of_text(text: str, boot: str, now_s: float) -> list[float]:
    """What was kept, in any boot, also by an earlier version (a list of wall clock times) or damaged."""
    try:
        kept = json.loads(text)
        if isinstance(kept, dict) and kept["boot"] == boot:
            return [min(float(at), now_s) for at in kept["began"]]
        return [now_s] * len(kept["began"] if isinstance(kept, dict) else kept)
    except (ValueError, TypeError, KeyError):
        return [now_s]
