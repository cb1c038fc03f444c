"""attended: a node, as the warden's task for it has it: its connection, its clock, what it said last; and
what people have to be told of workloads at nodes.

What a node said is kept when it falls silent: whether it still counts says ``heard_s`` to who asks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ipshare.director.failover import Case
from ipshare.director.link import Link
from ipshare.director.listening import Ear
from ipshare.exclusive.grants import Grant

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
    withdraws: bool = False  # it said that it may, and was told nothing else

    @property
    def probes(self) -> bool:
        """Whether it was heard to look after something."""
        return self.said is not None and bool(self.said["probes"])

    def row(self, workload: str) -> Request | None:
        rows = self.said["workloads"] if self.said is not None else ()
        return next((row for row in rows if row["name"] == workload), None)


def troubles(
    nodes: Mapping[str, Attended], cases: Mapping[str, Case], grants: Mapping[str, Grant]
) -> Iterator[str]:
    """A line for each failover that waits or cannot be, and each workload that does not as it should."""
    for unit, case in cases.items():
        if case.phase != "moving" or case.note:
            yield f"failover of {unit}: {case.phase}: {case.why}: {case.note}"
    for name, grant in grants.items():
        row = nodes[grant.node].row(name) if grant.node in nodes else None
        if grant.stuck:
            yield f"workload {name} at {grant.node} could not be stopped: fence it"
        elif row is not None and row["why"] and row["state"] in ("stuck", "stopped"):
            yield f"workload {name} at {grant.node}: {row['why']}"
