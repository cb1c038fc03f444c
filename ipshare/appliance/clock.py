"""clock: at the box: its clock does not begin before the last time that was known, so that certificates and
leases have a time by which they can be judged when the machine's own clock is empty, until chrony knows more.

Early at each start the clock is put forward to the latest of the image's time and the time of data/appliance/
clock; never back. While the box runs, and when it ends, the time of now is kept there. Time at which the box
was off is not known: the clock is late then, not wrong by years.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from ipshare.appliance.overlay import RELEASE

KEPT = Path("/data/appliance/clock")
WORTH_S = 2.0
"""Less is no news: the clock was right to a start's time."""


def known(kept: Path = KEPT, release: Path = Path(RELEASE)) -> float:
    """The latest Unix time that is known to be over; 0: none."""
    found = 0.0
    for path in (kept, release):
        try:
            found = max(found, path.stat().st_mtime)
        except OSError:
            continue
    return found


def _set(to: float) -> None:
    time.clock_settime(time.CLOCK_REALTIME, to)


def put_forward(
    say: Callable[[str], None],
    kept: Path = KEPT,
    release: Path = Path(RELEASE),
    now: Callable[[], float] = time.time,
    set_to: Callable[[float], None] = _set,
) -> float:
    """By so many seconds; 0: it was not before the last known time. Raises OSError: it may not be set."""
    late = known(kept, release) - now()
    if late < WORTH_S:
        return 0.0
    set_to(known(kept, release))
    said = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(known(kept, release)))
    say(f"the clock was {late:,.0f} s before the last known time: it is {said} UTC now")
    return late


def keep(kept: Path = KEPT, now: Callable[[], float] = time.time) -> float:
    """The time of now is known from now on. Returns it. A clock that was put back by chrony is kept as it is:
    it is right. Raises OSError."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.touch()
    seconds = now()
    os.utime(kept, (seconds, seconds))
    descriptor = os.open(kept, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return seconds
