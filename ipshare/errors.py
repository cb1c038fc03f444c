"""Exceptions of ipshare. Each says what is wrong in one sentence and carries a hint that says what to do.

Library code raises these and never exits; the CLI turns `exit_code` into the process's status.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class IpshareError(Exception):
    """Base of all. `hint` is the remedy, for people; may be empty."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def printable(text: str) -> str:
    """Control characters escaped: what a file holds must not steer the terminal that it is shown on."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake (or warning) in a configuration. line and column are 1-based; 0: the file as a whole.

    `key` is the path of keys as one would write it: ``endpoint[1].path_mtu``; empty for the whole file.
    """

    file: str
    line: int
    column: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        key = f" {self.key}:" if self.key else ""
        hint = f"\n    hint: {self.hint}" if self.hint else ""
        return printable(f"{where}:{key} {self.message}{hint}")


class ConfigError(IpshareError):
    """A configuration with mistakes: all of them in `.problems`, in the order of file and line."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem], warnings: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)
        count = len(self.problems)
        text = "\n".join(str(problem) for problem in self.problems)
        super().__init__(f"{count} mistake{'s' if count != 1 else ''} in the configuration\n{text}")


class EngineError(IpshareError):
    """A data path could not do what it was asked; it is as it was before."""


class Refused(IpshareError):
    """A request that is understood and not carried out; nothing was changed."""

    exit_code = 3


class NotRunning(IpshareError):
    """Whom the request was for (an engine, an agent) is not there."""

    exit_code = 4


class NoPrivilege(IpshareError):
    """The caller may not do that."""

    exit_code = 5
