"""guard: knows at once when the engine process ends (pidfd), and how long to wait before the next try."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable

RUSH = 3
"""Restarts in RUSH_S that happen at once; each further one waits twice as long as the one before."""
RUSH_S = 60.0
MAX_BACKOFF_S = 10.0

SOCKET_GONE = (
    "the engine's socket was removed or replaced: it forwards, and only this agent reaches it; "
    "kill {pid} mends that, with a moment without traffic"
)


class EngineGuard:
    """Calls ``on_end`` in the event loop when the watched process has ended. ``restarts``: ends seen so
    far."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self.on_end = on_end
        self.restarts = 0
        self._pid = 0
        self._fd = -1
        self._ends: deque[float] = deque(maxlen=32)

    def watch(self, pid: int) -> None:
        """Watches ``pid`` instead of what was watched before; the agent's own pid means an engine within
        it."""
        if pid == self._pid and self._fd >= 0:
            return
        self.close()
        if pid == os.getpid():
            return
        self._pid = pid
        try:
            self._fd = os.pidfd_open(pid)
        except OSError:
            asyncio.get_running_loop().call_soon(self._ended)
            return
        asyncio.get_running_loop().add_reader(self._fd, self._ended)

    def backoff_s(self) -> float:
        """How long to wait now, for an engine that keeps ending."""
        recent = sum(1 for end in self._ends if time.monotonic() - end < RUSH_S)
        return min(MAX_BACKOFF_S, 0.1 * 2 ** (recent - RUSH)) if recent > RUSH else 0.0

    def close(self) -> None:
        """Watches nothing any more."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
        self._fd, self._pid = -1, 0

    def _ended(self) -> None:
        pid = self._pid
        self.close()
        with contextlib.suppress(ChildProcessError):  # it is somebody else's child, or was reaped
            os.waitpid(pid, os.WNOHANG)
        self.restarts += 1
        self._ends.append(time.monotonic())
        self.on_end()
