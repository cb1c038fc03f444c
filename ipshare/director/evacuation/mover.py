"""mover: one group moved to a node, and seen through: all of it arrives, or all of it is where it was.

``Mover`` is what an evacuation asks of whoever can move workloads. ``TopologyMover`` is the default: the
topology says the new node, by Director.change, and the rollout does the rest; where somebody moves leases of
exclusive workloads after the topology (ipshare.director.warden), it waits until they run there. Where the new
end point refuses, or it takes longer than ``patience_s``, the group is taken back by another revision. Asked
again after a restart of the director, it goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ipshare.director.daemon import Director
from ipshare.director.evacuation.progress import progress
from ipshare.director.moves import moved
from ipshare.director.rollout import MAKE
from ipshare.errors import ConfigError, IpshareError, Refused


@dataclass(frozen=True, slots=True)
class Group:
    """Workloads that go together, from a node to a node."""

    workloads: tuple[str, ...]
    source: str
    target: str
    who: str
    why: str
    way: str = ""
    """As ipshare.director.evacuation.ways says; "": as the mover does by itself."""
    bar: str = ""
    """Why it cannot go that way."""
    order: str = ""
    """The evacuation."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of a group. again: somebody else changed something, nothing was done, plan anew.
    ``target``: another one than it was planned for."""

    outcome: Literal["done", "failed", "again"]
    why: str = ""
    revision: int = 0
    target: str = ""


@dataclass
class Seen:
    """The revision that a plan was made for. Who changes it in the plan's sense writes the new one."""

    revision: int
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Mover(Protocol):
    """Moves a group as a whole. Raises nothing but what ends the director's leadership (Refused).

    ``starts``: whether it stops and starts workloads at nodes, so that it can move `exclusive` ones."""

    starts: bool

    async def move(self, group: Group, seen: Seen) -> Moved:
        """Returns when it has arrived, or is back. May be called for what is under way already."""


Runs = Callable[[str, str], bool]
"""Whether a workload runs at a node now."""


class TopologyMover:
    """Changes the topology, and waits for the nodes. ``runs``: of whoever stops and starts exclusive ones as
    the topology has them; None: nobody does."""

    def __init__(
        self,
        director: Director,
        patience_s: float,
        runs: Runs | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._director, self._patience_s, self._runs, self._clock = director, patience_s, runs, clock
        self.starts = runs is not None

    async def move(self, group: Group, seen: Seen) -> Moved:
        where = {self._node(name) for name in group.workloads}
        if where == {group.target}:
            return await self._see_through(group, seen, 0, frozenset())
        if where != {group.source}:
            return Moved("again", "it is not where it was when this was planned")
        before = frozenset(name for name, node in self._director.nodes.items() if node.refused)
        async with seen.turn:
            number = self._director.number
            if number != seen.revision:
                return Moved("again", f"revision {number} came meanwhile")
            try:
                wanted = moved(self._director.topology, dict.fromkeys(group.workloads, group.target))
            except Refused as error:
                return Moved("failed", error.message)
            try:
                await self._director.change(wanted, group.who, group.why, number)
            except ConfigError as error:
                return Moved("failed", error.problems[0].message)
            except IpshareError as error:  # the store's, which may have taken it, or somebody was faster
                if self._director.bar():
                    raise
                came = f"revision {self._director.number} came meanwhile"
                return Moved("again", came if self._director.number != number else error.message)
            seen.revision = revision = self._director.number
        return await self._see_through(group, seen, revision, before)

    async def _see_through(self, group: Group, seen: Seen, revision: int, before: frozenset[str]) -> Moved:
        began = self._clock()
        while True:
            if {self._node(name) for name in group.workloads} != {group.target}:
                return Moved("failed", f"revision {self._director.number} took it elsewhere", revision)
            verdict, why = self._progress(group.target, before, self._clock() - began)
            absent = [
                n for n in group.workloads if self._runs is not None and not self._runs(n, group.target)
            ]
            if verdict == "done" and absent:
                verdict, why = "wait", f"{', '.join(absent)} not running at {group.target}"
            if verdict == "done":
                return Moved("done", why, revision)
            if verdict == "failed":
                return await self._back(group, seen, why, revision)
            rest = self._patience_s - (self._clock() - began)
            if rest <= 0:
                late = f"not done in {self._patience_s:g} s: {why}"
                return await self._back(group, seen, late, revision)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._director.judged()

    def arrived(self, target: str, waited_s: float) -> str | None:
        """What the newest revision waits for no more, as text; None: it waits for somebody."""
        verdict, why = self._progress(target, frozenset(), waited_s)
        return why if verdict == "done" else None

    def _progress(self, target: str, before: frozenset[str], waited_s: float) -> tuple[str, str]:
        director = self._director
        facts = {name: director.facts(node) for name, node in director.nodes.items()}
        met = waited_s >= director.settings.stale_after_s
        silent = {
            n
            for n, node in director.nodes.items()
            if not facts[n].alive and (met or node.heard_s is not None)
        }
        nodes = director.topology.nodes
        return progress(nodes, facts, director.number, nodes[target].endpoint or "", silent, before)

    async def _back(self, group: Group, seen: Seen, why: str, revision: int) -> Moved:
        """Where it was, whatever else was changed meanwhile."""
        director, until = self._director, self._clock() + self._patience_s
        while {self._node(name) for name in group.workloads} == {group.target}:
            number = director.number
            try:
                back = moved(director.topology, dict.fromkeys(group.workloads, group.source))
            except Refused as error:
                return Moved("failed", f"{why}; and not taken back: {error.message}", revision)
            try:
                await director.change(back, group.who, f"back to {group.source}: {why}", number)
                seen.revision = director.number if seen.revision == number else seen.revision
            except IpshareError as error:
                if director.bar():
                    raise
                if director.number == number and (isinstance(error, ConfigError) or self._clock() > until):
                    return Moved("failed", f"{why}; and not taken back: {error.message}", revision)
                await asyncio.sleep(director.settings.interval_s)
        await self._settled(group)
        return Moved("failed", why, revision)

    async def _settled(self, group: Group) -> None:
        """Until what was taken back is so everywhere, that the next group finds nodes as they are: one that
        refused may refuse once more what distribution points might send it, before it gets the rest."""
        director = self._director
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience_s):
                began = self._clock()
                while {self._node(name) for name in group.workloads} == {group.source}:
                    refusing = frozenset(name for name, node in director.nodes.items() if node.refused)
                    verdict, without = self._progress(group.source, refusing, self._clock() - began)
                    between = any(director.nodes[name].refused_at[0][1] == MAKE for name in refusing)
                    if verdict != "wait" and (without or not between):
                        return
                    await director.judged()

    def _node(self, workload: str) -> str:
        row = self._director.topology.by_name["workload"].get(workload)
        node: str = row["node"] if row is not None else ""
        return node
