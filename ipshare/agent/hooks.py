"""hooks: runs one command of a workload: a program and its arguments, no shell, bounded, in a session of its
own, so that what takes too long is killed with all that it started, and with whoever started it. The end of
what it writes to standard error is kept, for people."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ipshare import program
from ipshare.program import Program

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

    def __init__(self, program: Program) -> None:
        self._program = program

    async def wait(self, timeout_s: float) -> Ran | None:
        """None: it runs still."""
        status = await self._program.wait(timeout_s)
        return Ran(status, (await self._program.said()).strip()) if status is not None else None

    async def kill(self) -> Ran:
        await self._program.kill()
        return Ran(None, "it took too long and was killed")


async def begin(command: Sequence[str], **told: str) -> Running:
    """Raises OSError where it cannot be started. ``told``: more of its environment."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    told_all = environment | {f"IPSHARE_{name.upper()}": value for name, value in told.items()}
    in_child = _with_parent(os.getpid())
    return Running(await program.begin(command, MOST_SAID, only_errors=True, env=told_all, in_child=in_child))


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
