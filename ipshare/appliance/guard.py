"""guard: at the box: a machine whose engine hangs is reset, so that it announces and answers nothing any more
and another one can take over.

An engine hangs if a packet thread has had a packet in hand for longer than a second, or if it does not
answer. An engine that is not there does not: its agent starts it. What hangs for PATIENCE_S is reset at once,
nothing is ended before. Hangs of agent, systemd and kernel are their watchdogs' matter (systemd units;
/dev/watchdog, which systemd feeds), and so is a hang of this guard.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ipshare.agent.notify import notify
from ipshare.engine.embedded.control import Control
from ipshare.engine.failures import EngineGone, EngineSilent
from ipshare.errors import EngineError

PATIENCE_S = 30.0
EVERY_S = 2.0
RUN = Path("/run/ipshare")
TRIGGER = Path("/proc/sysrq-trigger")


def hanging(run: Path = RUN, timeout_s: float = 5.0) -> dict[Path, str]:
    """The engines that hang, with how."""
    found = {}
    for socket in sorted(run.glob("*/engine.sock")):
        try:
            with Control(socket, timeout_s=timeout_s) as engine:
                threads = engine.info()["workers_hung"]
        except EngineSilent:
            found[socket] = "does not answer"
        except (EngineGone, EngineError):
            continue  # it is not there, or of another version: no sign of a hang
        else:
            if threads:
                found[socket] = f"has {threads} packet threads that hang"
    return found


class Guard:
    """Which engines hang since when."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self.patience_s = patience_s
        self.since: dict[Path, float] = {}

    def judged(self, found: dict[Path, str], now: float) -> str:
        """Why the machine has to be reset now, or nothing."""
        self.since = {socket: self.since.get(socket, now) for socket in found}
        for socket, began in self.since.items():
            if now - began >= self.patience_s:
                return f"the engine of {socket.parent.name} {found[socket]} since {now - began:.0f} s"
        return ""


def run(say: Callable[[str], None], trigger: Path = TRIGGER, patience_s: float = PATIENCE_S) -> None:
    """Looks until something hangs for too long, then resets the machine."""
    guard = Guard(patience_s)
    notify("READY=1")
    while not (why := guard.judged(hanging(), time.monotonic())):
        notify("WATCHDOG=1")
        time.sleep(EVERY_S)
    say(f"{why}: this machine is reset")
    trigger.write_text("b")
