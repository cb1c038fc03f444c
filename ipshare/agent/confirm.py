"""confirm: which configuration a node is on, which it was on, and whether it may stay: pure transitions.

A serial names one stored configuration; 0 is none. A trial is a configuration that goes back to the previous
one unless it is confirmed before a deadline on CLOCK_BOOTTIME (it goes on through suspend, and nobody can
set it). A deadline of another boot says nothing any more: such a trial has expired, the safe answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ipshare.errors import Refused


class Clock(Protocol):
    """Time, as the confirm timer needs it."""

    def boottime_ns(self) -> int:
        """Nanoseconds since this boot, suspend included."""

    def boot_id(self) -> str:
        """Names this boot of the kernel."""


class SystemClock:
    def boottime_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class Trial:
    """Until when (CLOCK_BOOTTIME of that boot) the current configuration has to be confirmed."""

    deadline_ns: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class State:
    """``rejected``: rolled back, and not to be taken from its file again without being asked to."""

    current: int = 0
    previous: int = 0
    rejected: int = 0
    last: int = 0  # highest serial ever given
    trial: Trial | None = None

    @property
    def kept(self) -> set[int]:
        """Serials whose configuration must not be deleted."""
        return {self.current, self.previous, self.rejected} - {0}


def applied(state: State, serial: int, trial: Trial | None = None) -> State:
    """``serial`` becomes the current configuration. Raises Refused while a trial runs."""
    if state.trial is not None:
        raise Refused(
            "a configuration is waiting for its confirmation",
            hint="first `ipshare confirm` (keep it) or `ipshare rollback` (drop it)",
        )
    if trial is not None and not state.current:
        raise Refused("there is nothing to go back to", hint="apply without --confirm-within the first time")
    previous = state.current if state.current != serial else state.previous
    last = max(state.last, serial)
    return State(current=serial, previous=previous, rejected=0, last=last, trial=trial)


def confirmed(state: State) -> State:
    """The trial's configuration stays. Raises Refused if there is no trial."""
    if state.trial is None:
        raise Refused("nothing waits for a confirmation", hint="it was confirmed, or rolled back, before")
    return replace(state, trial=None)


def rolled_back(state: State) -> State:
    """Back to the previous configuration; twice returns to where one was. Raises Refused if there is none."""
    if not state.previous:
        raise Refused("there is no previous configuration", hint="a rollback follows an apply")
    return replace(state, current=state.previous, previous=state.current, rejected=state.current, trial=None)


def remaining_s(state: State, clock: Clock) -> float | None:
    """Seconds until the trial ends, 0 if it is over, None if there is no trial."""
    if state.trial is None:
        return None
    if state.trial.boot_id != clock.boot_id():
        return 0.0
    return max(0.0, (state.trial.deadline_ns - clock.boottime_ns()) / 1e9)


def trial_of(seconds: float, clock: Clock) -> Trial:
    """A trial of so many seconds from now."""
    if not 0 < seconds <= 30 * 86400:
        raise Refused(
            f"a time of {seconds:g} s to confirm is out of range", hint="use up to 30d, for example 5m"
        )
    return Trial(clock.boottime_ns() + int(seconds * 1e9), clock.boot_id())
