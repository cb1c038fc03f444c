"""machine: what a figure was measured on: processor, cores, cache sizes, kernel."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True, slots=True)
class Machine:
    """``caches``: bytes by level as cpu0 sees them ("L1d", "L2", "L3"); ``cores``: usable by this process."""

    model: str
    cores: int
    caches: dict[str, int]
    kernel: str

    @property
    def key(self) -> str:
        """The machine class that baselines are kept for: processor model and number of cores."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.model} {self.cores} cores".lower()).strip("-")

    def describe(self) -> str:
        sizes = ", ".join(f"{name} {size >> 10:,} KiB" for name, size in self.caches.items())
        return f"{self.model}, {self.cores} cores, {sizes or 'caches unknown'}, Linux {self.kernel}"


def this() -> Machine:
    """The machine this runs on. What /proc and /sys do not tell is left out."""
    return Machine(_model(), len(os.sched_getaffinity(0)), _caches(), platform.release())


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "CPU part", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _caches() -> dict[str, int]:
    sizes: dict[str, int] = {}
    for index in sorted(CACHES.glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction" and size.endswith("K"):
            sizes[f"L{level}d" if kind == "Data" else f"L{level}"] = int(size[:-1]) << 10
    return sizes
