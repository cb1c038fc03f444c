"""drains: distribution points that the topology says are drained, and nodes that are told so until they are.

`drained = true` in a [[node]] is part of a revision like everything else: who, when, why, in the history,
over restarts. The node's own drain (RFC 8326, then withdrawn) does the rest. It says in each answer who wants
it; where that differs from the topology the node is told. One that is silent is told when it answers. What
its operator drained at the machine stays as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace

from ipshare.director.daemon import Director
from ipshare.director.topology import Topology
from ipshare.errors import IpshareError, Refused

ASK_S = 10.0
DIRECTOR = "director"


def is_drained(topology: Topology, node: str) -> bool:
    """As the topology has it."""
    row = topology.by_name["node"].get(node)
    return row is not None and bool(row.get("drained", False))


def drained(topology: Topology, node: str, on: bool) -> Topology:
    """With ``node`` drained, or not any more. Raises Refused: it is no distribution point."""
    row = topology.nodes.get(node)
    points = ", ".join(name for name, one in topology.nodes.items() if one.distribution) or "none"
    if row is None:
        raise Refused(f"there is no node {node!r}", hint=f"distribution points: {points}")
    if row.distribution is None:
        raise Refused(
            f"node {node} announces nothing: it is no distribution point", hint=f"those are {points}"
        )
    if is_drained(topology, node) == on:
        return topology
    rows = [
        {
            **{key: value for key, value in one.items() if key != "drained"},
            **({"drained": True} if on else {}),
        }
        if one["name"] == node
        else one
        for one in topology.rows("node")
    ]
    return replace(topology, tables={**topology.tables, "node": rows})


def announcers(director: Director) -> set[str]:
    """Distribution points that say that they announce, and that nobody drains."""
    return {
        name
        for name, node in director.nodes.items()
        if node.row.distribution
        and director.facts(node).announces
        and not node.told.get("drained_by")
        and not is_drained(director.topology, name)
    }


def wanted(
    topology: Topology, node: str, on: bool, *, others: Collection[str], force: bool = False, why: str = ""
) -> Topology:
    """``drained``, unless that takes the last one that announces. ``others``: as of ``announcers``. Raises
    Refused."""
    after = drained(topology, node, on)
    if not on or after is topology or set(others) - {node}:
        return after
    if not force:
        raise Refused(
            f"no other distribution point announces: without {node} nothing comes in any more",
            hint="see to another one first; or force it, and say why",
        )
    if not why:
        raise Refused("what is forced has a reason", hint="say why")
    return after


class Drains:
    """Of ``director``: nodes are told."""

    def __init__(self, director: Director) -> None:
        self._director = director
        self._telling: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._trouble: dict[str, str] = {}

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="drains")

    async def close(self) -> None:
        tasks = [*self._telling.values(), *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def change(
        self, node: str, on: bool, who: str, why: str, *, force: bool = False, expect: int | None = None
    ) -> bool:
        """A new revision with ``node`` drained, or not any more; False: it was so before. Raises Refused."""
        director = self._director
        director.refuse_if_barred()

        def then(now: Topology) -> Topology:
            return wanted(now, node, on, others=announcers(director), force=force, why=why)

        said = f"{'drain' if on else 'undrain'} {node}" + (f": {why}" if why else "")
        return await director.change(then, who, said, expect)

    def troubles(self) -> list[str]:
        """For status: who was not told, and why."""
        return [text for name, text in self._trouble.items() if self._differs(name)]

    async def _run(self) -> None:
        while True:
            for name in self._director.nodes:
                task = self._telling.get(name)
                if self._differs(name) and (task is None or task.done()):
                    self._telling[name] = asyncio.create_task(self._tell(name), name=f"drain {name}")
            await self._director.judged()

    def _differs(self, name: str) -> bool:
        """Whether what it says is not what the topology says; of a silent one nothing is known."""
        director, node = self._director, self._director.nodes.get(name)
        if node is None or node.row.distribution is None or not director.facts(node).alive or director.bar():
            return False
        by = node.told.get("drained_by")
        return by is not None and (DIRECTOR in by) != is_drained(director.topology, name)

    async def _tell(self, name: str) -> None:
        director, node = self._director, self._director.nodes[name]
        link = director.link(name, node.row.address)
        on, heard_s = is_drained(director.topology, name), node.heard_s
        try:
            await link.ask("drain", ASK_S, director.bar, on=on, term=director.term)
            self._trouble.pop(name, None)
        except IpshareError as error:
            self._trouble[name] = (
                f"{name} was not told that it is {'' if on else 'not '}drained: {error.message}"
            )
            await asyncio.sleep(director.settings.interval_s)
        finally:
            link.close()
        node.kick.set()
        while node.heard_s == heard_s and self._differs(name):  # it has not been looked at since
            await director.judged()
