"""spawn: starts ``ipshare agent FILE`` and waits until it is ready, for labs, tests and supervisors of
one's own.

Readiness is the agent's own READY=1 (sd_notify) on a socket made for it; its end is its pidfd. Nobody polls.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ipshare.errors import EngineError

READY_S = 60.0


def spawn(
    file: Path,
    *,
    prefix: Sequence[str] = (),
    log: Path,
    options: Sequence[str] = (),
    timeout_s: float = READY_S,
    verb: Sequence[str] = ("agent",),
) -> subprocess.Popen[bytes]:
    """The agent, when it is ready. ``prefix``: a command that runs another (``nsenter --net=...``);
    ``log``: file that its messages are
    appended to. ``verb``: another one that says READY=1. Raises EngineError with its last words if it ends or
    does not get ready."""
    command = [*prefix, sys.executable, "-m", "ipshare", *verb, str(file), *options]
    with (
        tempfile.TemporaryDirectory(prefix="ipshare-") as scratch,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
        log.open("ab") as out,
    ):
        ready.bind(f"{scratch}/ready")
        environment = os.environ | {"NOTIFY_SOCKET": f"{scratch}/ready", "PYTHONPATH": search_path()}
        start = out.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
        )
        pidfd = os.pidfd_open(process.pid)
        try:
            if _wait_ready(ready, pidfd, timeout_s):
                return process
        except BaseException:  # ^C: nobody would know of it
            process.kill()
            process.wait()
            raise
        finally:
            os.close(pidfd)
    if process.poll() is None:
        process.kill()
    process.wait()
    words = log.read_bytes()[start:].decode(errors="replace").strip()
    raise EngineError(
        f"{verb[0]} {file} did not start: {words}", hint=f"run it yourself: {' '.join(command)}"
    )


def _wait_ready(ready: socket.socket, pidfd: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        readable, _, _ = select.select([ready.fileno(), pidfd], [], [], left)
        if ready.fileno() in readable and b"READY=1" in ready.recv(4096):
            return True
        if pidfd in readable:
            return False
    return False


def search_path() -> str:
    """The package as this process sees it, for the child."""
    here = str(Path(__file__).parents[2])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
