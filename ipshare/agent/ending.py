"""ending: an engine that is ours ends: in order, or, where it does not within a bounded time, by SIGKILL.

One that answers nothing (stopped, hung) cannot say who it is, and may take no more connections: the kernel
knows who has the socket that it listens on. Linux only, like all of ipshare.net.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

from ipshare.engine.failures import EngineSilent
from ipshare.errors import EngineError, NoPrivilege

STOP_TIMEOUT_S, SILENT_TIMEOUT_S = 10.0, 2.0
"""The latter for one that has not answered for so long already."""
LISTENS = "00010000"
"""Flags of a listening socket in /proc/net/unix (__SO_ACCEPTCON)."""


def end(pid: int, what: str, order: Callable[[int], None], timeout_s: float = STOP_TIMEOUT_S) -> str:
    """``order`` is to end the process behind the pidfd that it gets; returns what was done, when it is gone.

    Raises NoPrivilege, or EngineError where not even SIGKILL ends it."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:  # it has just died
        return "engine ended"
    try:
        with contextlib.suppress(ProcessLookupError, EngineSilent):
            order(pidfd)
        done = "engine ended"
        if not _gone(pidfd, timeout_s):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            done = f"{what} {pid} did not end in {timeout_s:.0f} s: killed"
            if not _gone(pidfd, STOP_TIMEOUT_S):
                raise EngineError(f"{what} {pid} does not end, not even by SIGKILL", hint=f"see /proc/{pid}")
    except PermissionError:
        raise NoPrivilege(f"may not end {what} {pid}", hint="run as root") from None
    finally:
        os.close(pidfd)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    return done


def terminate(pidfd: int) -> None:
    """SIGTERM: an ``order`` for those that take it."""
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)


def silent(path: Path, program: str) -> int | None:
    """The process of that program that listens on the socket ``path`` in our network namespace, whether or
    not it answers; None: there is none, or we may not look."""
    rows = (line.split(None, 7) for line in Path("/proc/thread-self/net/unix").read_text().splitlines())
    sockets = {f"socket:[{row[6]}]" for row in rows if row[3] == LISTENS and row[7:] == [str(path)]}
    for process in Path("/proc").iterdir() if sockets else ():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has just ended, or is not ours to look at
            if (process / "exe").readlink().name.removesuffix(" (deleted)") != program:
                continue
            if any(str(fd.readlink()) in sockets for fd in (process / "fd").iterdir()):
                return int(process.name)
    return None


def _gone(pidfd: int, timeout_s: float) -> bool:
    return bool(select.select([pidfd], [], [], timeout_s)[0])
