"""machine: the files below sysfs and procfs by which a machine is looked at and prepared, and the commands.

Roots are parameters: tests have a tree of their own, and a kernel that answers in it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ipshare.engine.vpp.slice import cpus


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at, or done. `is_good`: None where it does not matter."""

    name: str
    text: str
    is_good: bool | None


@dataclass(frozen=True, slots=True)
class Machine:
    """`root`: above sys, proc and run."""

    root: Path = Path("/")

    @property
    def sys(self) -> Path:
        return self.root / "sys"

    def read(self, path: Path) -> str:
        """Empty where there is nothing to read."""
        try:
            return path.read_text(errors="replace").strip()
        except OSError:
            return ""

    def write(self, path: Path, text: str) -> str:
        """Writes what the kernel listens to; returns why it refused, or an empty string."""
        try:
            path.write_text(text)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def run(self, words: Sequence[str]) -> str:
        """Runs a command; returns why it failed, or an empty string."""
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        said = " ".join(done.stderr.split())
        return (said or f"{words[0]} ended with {done.returncode}") if done.returncode else ""

    def online(self) -> frozenset[int]:
        """Processors that run."""
        return cpus(self.read(self.sys / "devices/system/cpu/online"))
