"""A director with all that stands beside it, its HTTP server, and nodes that migrate, take workloads over and
drain: one process, real protocols; guests are words in files, engines are in memory, BGP is a word, too."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from ipshare.agent import bgp_drain
from ipshare.agent.assignment import SEEN
from ipshare.agent.server import Asker
from ipshare.director.desk import Desk
from ipshare.director.drains_desk import draining
from ipshare.director.evacuation.begin import evacuating
from ipshare.director.migrations_desk import migrating
from ipshare.director.warden_desk import keeping
from ipshare.director.warden_desk import verbs as of_warden
from tests.migration_world import BINDINGS, NAMES, WORKLOADS, Guests, SimHost
from tests.web_world import PlacedFleet, WebWorld


class SimPoint(SimHost):
    """A SimHost that announces unless it is drained, as ipshare.agent.bgp decides it at once."""

    async def start(self) -> None:
        await super().start()
        self._decide()

    async def handle(self, caller: Asker, request: dict[str, Any]) -> dict[str, Any]:
        if request["verb"] != "drain":
            return await super().handle(caller, request)
        heard = (self.node.store.kept(SEEN) or {"number": [0]})["number"][0]
        by = bgp_drain.asking(caller, request, heard)
        await self.work(bgp_drain.keep, self.node.store, self.node.clock, request["on"], by)
        self._decide()
        return {"drained_by": bgp_drain.holders(self.node.store)}

    def _decide(self) -> None:
        point = self.node.config is not None and self.world.directory.name[0] in "cd"
        self.announces = not bgp_drain.holders(self.node.store) if point else None


class OperationsWorld(WebWorld):
    """End points a1 (Frankfurt) and b1 (Dallas), distribution points c1 and d1; web and db run at a1."""

    def __init__(self, folder: Path, names: list[str] = NAMES, *, plain: bool = False) -> None:
        super().__init__(folder, names, plain=plain)
        self.guests = Guests(folder)
        self.fleet: PlacedFleet = PlacedFleet(folder, self.fleet.pki, names)
        self.fleet.agents = {name: SimPoint(folder, self.pki, name, n) for n, name in enumerate(names, 1)}
        self.fleet.agents["a1"].world.write(self.guests.tables())
        self._stack = AsyncExitStack()

    async def start(
        self, bindings: str = BINDINGS + WORKLOADS.format(web="", db=""), *, nodes: bool = True, **more: Any
    ) -> None:
        await super().start(bindings, nodes=nodes, **more)

    async def beside(self, desk: Desk) -> None:
        director, warden, enter = self.director, self.fleet.warden, self._stack.enter_async_context
        if warden is not None:
            desk.add(of_warden(warden), warden.troubles)
        settings = director.settings.evacuation
        alive = await enter(migrating(director))
        verbs = await enter(evacuating(director, settings, *keeping(warden), migrations=alive.migrations))
        desk.add(verbs.verbs, verbs.troubles)
        desk.add(alive.verbs, alive.troubles)
        self.drains = await enter(draining(director, desk))

    async def stop(self) -> None:
        await self._stack.aclose()
        await super().stop()
