"""guard: at the box: a machine whose data path hangs, or that may run a workload beyond its lease, is reset,
so that it announces and answers nothing any more and another one can take over.

    every 2 s   signs of a hang, of each engine and each VPP (guard_signs): one that is the same at every look
                for PATIENCE_S is a reason
    beside it   the keeper's leases (guard_leases): an end that passed is a reason at once
    a reason -> kernel's log and with it the console -> disks, for SYNC_S at most -> reset

Nothing is ended before. Hangs of agent, systemd and kernel are their watchdogs' matter (systemd units;
/dev/watchdog, which systemd feeds), and so is a hang of this guard, which says that it lives only while both
go on.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ipshare.agent.notify import notify
from ipshare.appliance.guard_leases import overdue
from ipshare.appliance.guard_signs import Sign, Signs

PATIENCE_S = 30.0
EVERY_S = 2.0
LEASES_S = 0.5
SYNC_S = 3.0
"""What is not on the disk by then is lost: a disk may be what hangs."""
RUN = Path("/run/ipshare")
KMSG = Path("/dev/kmsg")
TRIGGER = Path("/proc/sysrq-trigger")
CRITICAL = 2
"""Of syslog(3): the console has it however quiet the kernel is, and journald writes it at once."""


class Guard:
    """Which signs are there since when."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self.patience_s = patience_s
        self.since: dict[Sign, float] = {}

    def judged(self, found: dict[Sign, str], now: float) -> str:
        """Why the machine has to be reset now, or nothing. ``found``: sign -> how it shows."""
        self.since = {sign: self.since.get(sign, now) for sign in found}
        for sign, began in self.since.items():
            if now - began >= self.patience_s:
                return f"{sign.of} {found[sign]} since {now - began:.0f} s"
        return ""


class _Leases(threading.Thread):
    """Looks at leases beside an engine that does not answer."""

    def __init__(self, run: Path) -> None:
        super().__init__(daemon=True)
        self._run = run
        self.why, self.said = "", threading.Event()

    def run(self) -> None:
        while not (why := overdue(self._run)):
            time.sleep(LEASES_S)
        self.why = why
        self.said.set()


def run(
    say: Callable[[str], None],
    trigger: Path = TRIGGER,
    patience_s: float = PATIENCE_S,
    kmsg: Path = KMSG,
    place: Path = RUN,
) -> None:
    """Looks until something hangs for too long, then resets the machine."""
    guard, signs, leases = Guard(patience_s), Signs(place), _Leases(place)
    leases.start()
    notify("READY=1")
    while not (why := leases.why or guard.judged(signs.found(), time.monotonic())):
        if leases.is_alive():
            notify("WATCHDOG=1")
        leases.said.wait(EVERY_S)
    reset(f"{why}: this machine is reset", say, trigger, kmsg)


def reset(sentence: str, say: Callable[[str], None], trigger: Path, kmsg: Path) -> None:
    """Says why, and resets the machine whatever hangs meanwhile."""
    with contextlib.suppress(OSError):
        kmsg.write_text(f"<{CRITICAL}>ipshare: {sentence}\n")
    with contextlib.suppress(OSError):
        trigger.write_text("s")  # the kernel begins it, nobody waits

    def last() -> None:
        say(sentence)
        os.sync()

    saying = threading.Thread(target=last, daemon=True)
    saying.start()
    saying.join(SYNC_S)
    trigger.write_text("b")
