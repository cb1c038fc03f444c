"""ways: how each group of a plan would go, by what nodes said of themselves and the file says of kinds.

    live       its node has a [[migration]] of all of it: ipshare.director.migrations moves it while it runs
    lease      nodes stop and start it, on leases that follow the topology: ipshare.director.warden
    bindings   it is `shared`: its addresses go, and it has to run there already
    by hand    it is `exclusive`, and nobody stops or starts it: its addresses go, and nothing else

A way may have a bar: why it cannot be gone. Of live ones most is known only after nodes and their adapters
were asked (`checked`): storage in sync, a target that takes it. What has a [[migration]] and cannot go alive
stays, or goes as if it had none, as `not_live` of [evacuation] says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from ipshare.director.daemon import Director
from ipshare.director.migrations import Migrations
from ipshare.placement.plan import Move

Way = Literal["live", "lease", "bindings", "by hand"]
Has = Callable[[str, str], bool | None]
"""Whether a node has a [[workload]] of that name; None: it has not said yet."""
AT_ONCE = 8
"""So many groups are asked about at the same time."""


@dataclass(frozen=True, slots=True)
class Going:
    """``bar``: why it cannot go that way, "": nothing is known against it; ``note``: for people."""

    way: Way
    bar: str = ""
    note: str = ""


class Ways:
    """Of ``director``. ``has``: None: nobody keeps workloads to leases; ``migrations``: None: nobody moves
    anything alive."""

    def __init__(
        self,
        director: Director,
        has: Has | None = None,
        migrations: Migrations | None = None,
        not_live: Literal["stay", "cold"] = "stay",
    ) -> None:
        self._director, self._has, self._migrations = director, has, migrations
        self.is_cold = not_live == "cold"

    def way(self, move: Move) -> Going:
        """As far as it is known without asking anybody."""
        alive = self._alive(move) if self._migrations is not None else None
        if alive is None:
            return self._cold(move)
        return self._instead(move, alive.bar) if alive.bar else alive

    async def checked(self, moves: Iterable[Move], order: str = "") -> list[Going]:
        """With what nodes and adapters say of each now. ``order``: of the evacuation."""
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(move: Move) -> Going:
            going = self.way(move)
            if going != Going("live") or self._migrations is None:
                return going
            async with turn:
                why, notes = await self._migrations.able(move.workloads, move.target, order)
            return self._instead(move, why) if why else Going("live", note="; ".join(notes))

        return await asyncio.gather(*map(one, moves))

    def _alive(self, move: Move) -> Going | None:
        """None: nobody thought of that."""
        node = self._director.nodes.get(move.source)
        listed = node.told.get("migrates", ()) if node is not None else ()
        others = [name for name in move.workloads if name not in listed]
        if node is None or len(others) == len(move.workloads):
            return None
        if not self._director.facts(node).alive:
            return Going("live", f"{move.source} is silent")
        return Going("live", f"{move.source} has no [[migration]] of {', '.join(others)}" if others else "")

    def _instead(self, move: Move, why: str) -> Going:
        """What cannot go alive."""
        if not self.is_cold:
            return Going("live", why)
        cold = self._cold(move)
        return Going(cold.way, cold.bar, f"not alive: {why}")

    def _cold(self, move: Move) -> Going:
        rows = self._director.topology.by_name["workload"]
        exclusive = [n for n in move.workloads if rows.get(n, {}).get("kind", "exclusive") == "exclusive"]
        if not exclusive:
            return Going("bindings")
        if self._has is None:
            return Going("by hand")
        here = {name: self._has(name, move.source) for name in exclusive}
        there = {name: self._has(name, move.target) for name in exclusive}
        if any((here[name], there[name]) == (False, False) for name in exclusive):
            return Going("by hand")
        absent = [name for name in exclusive if there[name] is False]
        return Going("lease", f"{move.target} has no [[workload]] of {', '.join(absent)}" if absent else "")
