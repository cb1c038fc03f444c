"""ending: an engine that is ours ends: in order, or, where it does not within a bounded time, by SIGKILL.

One that answers nothing (stopped, hung) cannot say who it is. The kernel knows who listens on its socket
(SO_PEERCRED); it has to be that program, in our network namespace, before it is ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from ipshare.engine.failures import EngineSilent
from ipshare.errors import EngineError, NoPrivilege, Refused

STOP_TIMEOUT_S, SILENT_TIMEOUT_S = 10.0, 2.0
"""The latter for one that has not answered for so long already."""


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


def silent(path: Path, kind: socket.SocketKind, program: str) -> int | None:
    """The process that listens on the engine's socket ``path`` without answering; None: nobody does.

    Raises Refused where it is not ``program``, or in another network namespace than we are."""
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except BlockingIOError:
            raise EngineError(f"{path} takes no more connections", hint="end its process by hand") from None
        except OSError:
            return None
        pid = int(struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
    if not pid or not (process := Path(f"/proc/{pid}")).exists():
        return None
    name = Path(os.readlink(process / "exe")).name.removesuffix(" (deleted)")
    if name != program or not (process / "ns/net").samefile("/proc/thread-self/ns/net"):
        raise Refused(f"process {pid} at {path} answers nothing and is not ours", hint=f"look at it: ps {pid}")
    return pid


def _gone(pidfd: int, timeout_s: float) -> bool:
    return bool(select.select([pidfd], [], [], timeout_s)[0])
