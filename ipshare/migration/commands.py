"""commands: programs of the operator, run without a shell, with a time limit, little output kept. One that
takes too long is killed with all that it started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ipshare import program
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
        begun = await program.begin(words, MOST_OUTPUT)
    except OSError as error:
        raise MigrationError(f"{words[0]} does not start: {error.strerror}") from None
    try:
        status = await begun.wait(timeout_s)
    finally:
        await begun.kill()
    if status is None:
        raise NotInTime(f"{words[0]} did not end within {timeout_s:g} s")
    return Ended(status, await begun.said())


async def must_agree(words: Sequence[str], timeout_s: float, what: str) -> None:
    """Raises Refused with what the command said, where it does not end with 0."""
    ended = await run(words, timeout_s)
    if ended.status:
        said = f": {ended.said}" if ended.said else ""
        raise Refused(f"{what}{said}", hint=f"{words[0]} ended with {ended.status}")
