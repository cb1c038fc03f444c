"""notify: the service manager's readiness protocol, sd_notify(3), in twenty lines.

Datagrams to the socket that NOTIFY_SOCKET names; silence where there is none. Never raises: a service
manager that went away is no reason to stop forwarding.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable


def notify(*lines: str) -> None:
    """Sends ``READY=1``, ``STATUS=...`` and the like."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto("\n".join(lines).encode(), address)


def reloading() -> None:
    """RELOADING=1 wants the time at which it began (systemd 253, Type=notify-reload)."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_interval_s() -> float | None:
    """Half of the time within which the service manager wants a sign of life; None: it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdigit() and int(microseconds) else None


async def watchdog(is_well: Callable[[], bool]) -> None:
    """Signs of life for as long as that is so."""
    interval = watchdog_interval_s()
    while interval is not None:
        if is_well():
            notify("WATCHDOG=1")
        await asyncio.sleep(interval)
