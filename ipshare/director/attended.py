"""attended: a node as the warden has it: what it said last, and when that came."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from ipshare.director.link import Link
from ipshare.director.listening import Ear

Request = dict[str, Any]


def boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Attended:
    """A node, as its task has it. ``stamp``: its boot, its clock's reading; ``heard_s``: when that came."""

    name: str
    address: str
    link: Link
    ear: Ear
    task: asyncio.Task[None] | None = None
    heard_s: float = 0.0
    stamp: tuple[str, int] | None = None
    said: Request | None = None
    trouble: str = "not heard yet"
    stays: bool = False  # as in ipshare.director.staying.Point
    withdraws: bool = False  # it answered that it may, and was told nothing else

    @property
    def probes(self) -> bool:
        """Whether it was heard to look after something."""
        return self.said is not None and bool(self.said["probes"])

    def row(self, workload: str) -> Request | None:
        rows = self.said["workloads"] if self.said is not None else ()
        return next((row for row in rows if row["name"] == workload), None)
