"""hooks: runs one command of a workload: a program and its arguments, no shell, bounded, in a session of its
own, so that what takes too long is killed with all that it started, and with whoever started it.

What it writes to standard error is read all the time, also of what it leaves in the background: a pipe that
nobody reads would halt them. The end of it is kept, for people.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

PASSED_ON = ("PATH", "HOME", "LANG")
MOST_SAID = 400
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Ran:
    """``status``: exit status, -N for signal N, None: it did not start, or was killed here. ``said``: the end
    of what it wrote."""

    status: int | None
    said: str = ""

    @property
    def is_good(self) -> bool:
        return self.status == 0


class Running:
    """A command that runs. ``wait`` for its end, at most so long; ``kill`` it with its session."""

    _readers: ClassVar[set[asyncio.Task[None]]] = set()

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process, self._end = process, b""
        self._reader = asyncio.create_task(self._read(), name=f"errors of {process.pid}")
        self._readers.add(self._reader)
        self._reader.add_done_callback(self._readers.discard)

    async def wait(self, timeout_s: float) -> Ran | None:
        """None: it runs still."""
        try:
            async with asyncio.timeout(timeout_s):
                status = await self._process.wait()
        except TimeoutError:
            return None
        return Ran(status, await self._said())

    async def kill(self) -> Ran:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        return Ran(None, "it took too long and was killed")

    async def _said(self) -> str:
        """What a child of it that lives on would write is not waited for."""
        await asyncio.wait({self._reader}, timeout=0.05)
        return self._end.decode(errors="replace").strip()

    async def _read(self) -> None:
        """To its end, which may be long after that of the command."""
        assert self._process.stderr is not None, "asked for"
        while some := await self._process.stderr.read(1 << 16):
            self._end = (self._end + some)[-MOST_SAID:]


async def begin(command: Sequence[str], **told: str) -> Running:
    """Raises OSError where it cannot be started. ``told``: more of its environment."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment | {f"IPSHARE_{name.upper()}": value for name, value in told.items()},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_with_parent(os.getpid()),
    )
    return Running(process)


async def run(command: Sequence[str], timeout_s: float, **told: str) -> Ran:
    """To its end, or to its time-out."""
    try:
        running = await begin(command, **told)
    except OSError as error:
        return Ran(None, f"{command[0]} cannot be started: {error.strerror}")
    try:
        return await running.wait(timeout_s) or await running.kill()
    except asyncio.CancelledError:
        await running.kill()
        raise


def _with_parent(parent: int) -> Callable[[], None]:
    """The child dies with us: a start that outlived who watches over the lease would come too late."""

    def mark() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return mark
