"""program: one that was started, in a session of its own: its end is its own, its output is always read.

What it leaves in the background may hold its output for as long as it likes: nobody waits for that (as
asyncio's Process.wait would), and nobody lets it wait, as a pipe that is full would. ``kill`` takes all of
the session along. The last ``most`` bytes of the output are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence

REST_S = 0.1
"""For what it wrote last, where something in the background holds its output."""


class Program:
    """Made by ``begin``."""

    def __init__(self, transport: asyncio.SubprocessTransport, output: _Output) -> None:
        self._transport, self._output = transport, output
        self.pid = transport.get_pid()

    async def wait(self, timeout_s: float) -> int | None:
        """Its status (-N: by signal N) when it has ended; None: it runs still."""
        await asyncio.wait({self._output.exited}, timeout=timeout_s)
        return self._transport.get_returncode()

    async def kill(self) -> None:
        """With all that it started, if it has not ended."""
        if self._transport.get_returncode() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            await asyncio.wait({self._output.exited})

    async def said(self) -> str:
        """The end of what it wrote until now."""
        await asyncio.wait({self._output.closed}, timeout=REST_S)
        return self._output.kept.decode(errors="replace")


class _Output(asyncio.SubprocessProtocol):
    def __init__(self, most: int) -> None:
        self._most, self.kept = most, bytearray()
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.kept += data
        del self.kept[: -self._most]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def process_exited(self) -> None:
        self.exited.set_result(None)


async def begin(
    words: Sequence[str],
    most: int,
    *,
    only_errors: bool = False,
    env: Mapping[str, str] | None = None,
    in_child: Callable[[], None] | None = None,
) -> Program:
    """``only_errors``: standard output goes nowhere; ``in_child``: called before the program. Raises OSError
    where it cannot be started."""
    transport, output = await asyncio.get_running_loop().subprocess_exec(
        lambda: _Output(most),
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL if only_errors else asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE if only_errors else asyncio.subprocess.STDOUT,
        env=env,
        start_new_session=True,
        preexec_fn=in_child,
    )
    return Program(transport, output)
