"""commands: programs of the operator, run without a shell, with a time limit, little output kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from ipshare.errors import Refused, printable
from ipshare.migration.adapter import MigrationError, NotInTime, Target
from ipshare.model import Migrating

MOST_OUTPUT = 64 << 10
"""Bytes that are kept; what comes beyond is read and forgotten."""
MOST_SAID = 400
"""Characters of an output that go into a message."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it printed (standard output and error together)."""

    status: int
    output: str

    @property
    def said(self) -> str:
        """The last line, for people."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return printable(lines[-1])[:MOST_SAID] if lines else ""


def filled(words: Sequence[str], wanted: Migrating, target: Target) -> list[str]:
    """With what the placeholders stand for."""
    return [word.format(workload=wanted.workload, node=target.node, target=target.said) for word in words]


async def run(words: Sequence[str], timeout_s: float) -> Ended:
    """Raises MigrationError: it does not start, or NotInTime: it did not end, and was killed."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise MigrationError(f"{words[0]} does not start: {error.strerror}") from None
    try:
        async with asyncio.timeout(timeout_s):
            output = await _read(process)
            status = await process.wait()
    except TimeoutError:
        raise NotInTime(f"{words[0]} did not end within {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return Ended(status, output)


async def must_agree(words: Sequence[str], timeout_s: float, what: str) -> None:
    """Raises Refused with what the command said, where it does not end with 0."""
    ended = await run(words, timeout_s)
    if ended.status:
        said = f": {ended.said}" if ended.said else ""
        raise Refused(f"{what}{said}", hint=f"{words[0]} ended with {ended.status}")


async def _read(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None, "a pipe"
    kept = b""
    while data := await process.stdout.read(1 << 16):
        kept = (kept + data)[-MOST_OUTPUT:]
    return kept.decode(errors="replace")
