"""guard_signs: what shows that a data path does not go on. Asks, and reads counters; judges nothing.

Embedded engines are asked over their control sockets: hung packet threads, and when the pair's real-time
thread had its last turn. Of VPP the stats segment is read, which needs nobody's answer: the main thread's
heartbeat (every 10 s), and of our plugin the turns of each thread and of the pair's. A counter is a sign
together with what it shows, so that one which stands still is the same sign at every look, and one that goes
on is a new sign each time. An engine that is not there shows nothing: its agent starts it.
"""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path
from typing import NamedTuple

from ipshare.config.build_vpp import STATS_SOCKET
from ipshare.engine.embedded.control import Control
from ipshare.engine.embedded.wire import ControlError
from ipshare.engine.failures import EngineGone, EngineSilent
from ipshare.engine.vpp.stats import Segment
from ipshare.errors import EngineError

HEARTBEAT, TURNS, PAIR = "/sys/heartbeat", "/ipshare/turns", "/ipshare/pair-turn"
SILENT = "does not answer"


class Sign(NamedTuple):
    """``of``: whose, in words. ``shows``: what its counter says; 0 where the sign is no counter."""

    of: str
    shows: int = 0


class Signs:
    """Of the engines whose sockets are below ``run``, as the agents of this machine make them, and of a VPP
    at ``shared``, which no agent made. ``timeout_s``: for each answer."""

    def __init__(self, run: Path, shared: Path = Path(STATS_SOCKET), timeout_s: float = 5.0) -> None:
        self._run, self._shared, self._timeout_s = run, shared, timeout_s
        self._mapped: dict[Path, _Vpp] = {}

    def found(self) -> dict[Sign, str]:
        """The signs of now, with how each shows."""
        signs: dict[Sign, str] = {}
        for socket in sorted(self._run.glob("*/engine.sock")):
            signs |= embedded(socket, self._timeout_s)
        for socket in (*sorted(self._run.glob("*/vpp/stats.sock")), self._shared):
            signs |= self._vpp(socket)
        return signs

    def _vpp(self, socket: Path) -> dict[Sign, str]:
        name = "VPP" if socket == self._shared else f"the VPP of {socket.parent.parent.name}"
        try:
            if socket in self._mapped and self._mapped[socket].has_ended():
                self._mapped.pop(socket).close()
            if socket not in self._mapped:
                self._mapped[socket] = _Vpp(socket, self._timeout_s)
            return self._mapped[socket].signs(name)
        except EngineSilent:
            return {Sign(name): SILENT}
        except (EngineGone, EngineError):
            return {}


def embedded(socket: Path, timeout_s: float) -> dict[Sign, str]:
    """Of one engine."""
    name = f"the engine of {socket.parent.name}"
    signs: dict[Sign, str] = {}
    try:
        with Control(socket, timeout_s=timeout_s) as engine:
            if threads := engine.info()["workers_hung"]:
                signs[Sign(name)] = f"has {threads} packet threads that hang"
            with contextlib.suppress(ControlError):  # no half of a pair
                turn = engine.pair_state().now_ns
                signs[Sign(f"the pair's thread in {name}", turn)] = "does not advance"
    except EngineSilent:
        return {Sign(name): SILENT}
    except (EngineGone, EngineError):
        return {}  # it is not there, or of another version: no sign of a hang
    return signs


class _Vpp:
    """The stats segment of one process, for as long as that lives. Raises as ``Segment``."""

    def __init__(self, socket: Path, timeout_s: float) -> None:
        self._segment = Segment(socket, timeout_s=timeout_s)
        try:
            self._process = os.pidfd_open(self._segment.pid)
        except OSError as error:
            raise EngineGone(f"the VPP of {socket} has ended") from error

    def has_ended(self) -> bool:
        return bool(select.select([self._process], [], [], 0)[0])

    def close(self) -> None:
        os.close(self._process)
        self._segment.close()

    def signs(self, name: str) -> dict[Sign, str]:
        signs = {Sign(f"the main thread of {name}", self._segment.scalar(HEARTBEAT)): "does not advance"}
        with contextlib.suppress(EngineError):  # our plugin is not there, or has not been told anything yet
            for thread, turns in enumerate(self._segment.simple(TURNS)[:, 0].tolist()):
                signs[Sign(f"thread {thread} of {name}", turns)] = "does not advance"
            if turn := self._segment.scalar(PAIR):
                signs[Sign(f"the pair's thread in {name}", turn)] = "does not advance"
        return signs
