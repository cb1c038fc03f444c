"""Three sites, a director with evacuations beside it, and nodes that take what it sends: all in one process.

Houston (h1) has six workloads, two of them a group; Dallas (d1) and Denver (e1) have room. Feeds are served
on 127.0.0.1, or are a table in memory with clocks that the test moves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from ipshare.director import config
from ipshare.director.daemon import Director
from ipshare.director.desk import Desk
from ipshare.director.evacuation.begin import evacuating
from ipshare.director.evacuation.mover import Mover, Runs
from ipshare.director.evacuation.verbs import Verbs
from tests import director_world, hazard_feeds
from tests.director_world import Fleet
from tests.pki import Pki
from tests.remote_world import PORT, host

SITES = {"houston": (29.76, -95.37), "dallas": (32.78, -96.8), "denver": (39.74, -104.99)}
POINTS = {"h1": ("H", "houston", 1), "d1": ("D", "dallas", 2), "e1": ("E", "denver", 3)}
NAMES = [*POINTS, "c1", "c2"]
GROUPS = {"shop-web": "shop", "shop-db": "shop"}
WORKLOADS = ["shop-web", "shop-db", "w3", "w4", "w5", "w6"]


def address(workload: str) -> str:
    return f"203.0.113.{WORKLOADS.index(workload) + 1}"


class EvacuationFleet(Fleet):
    """``capacity`` of each node; ``kind`` of workloads; ``head``: more of the file, as [hazards]."""

    def __init__(
        self, directory: Path, pki: Pki, head: str = "", capacity: float = 10, kind: str = "shared"
    ) -> None:
        super().__init__(directory, pki, NAMES)
        self.head, self.capacity, self.kind = head, capacity, kind

    def text(self, **more: Any) -> str:
        said = director_world.text(self.directory, self.pki, [], "", **more)
        said = said[: said.index("[[site]]")] + self.head
        for name, (y, x) in SITES.items():
            said += f'[[site]]\nname = "{name}"\nlatitude = {y}\nlongitude = {x}\n'
        said += '[[network]]\nname = "web"\nprefix = "203.0.113.0/24"\n'
        for number, name in enumerate(NAMES, 1):
            said += f'[[node]]\nname = "{name}"\naddress = "{host(number)}:{PORT}"\n'
            if name in POINTS:
                endpoint, site, net = POINTS[name]
                said += f'site = "{site}"\nendpoint = "{endpoint}"\ncapacity = {self.capacity}\n'
                said += f'[[endpoint]]\nname = "{endpoint}"\nlocal = ["10.{net}.0.0/24"]\n'
            else:
                said += f'distribution = "{name.upper()}"\n[[distribution]]\nname = "{name.upper()}"\n'
        for name in WORKLOADS:
            said += f'[[binding]]\nglobal = "{address(name)}/32"\nto = "H"\n[[workload]]\nname = "{name}"\n'
            said += f'node = "h1"\nkind = "{self.kind}"\naddresses = ["{address(name)}/32"]\n'
            said += f'group = "{GROUPS[name]}"\n' if name in GROUPS else ""
        return said

    def wanted(self, bindings: str = "", **more: Any) -> config.Wanted:
        return config.load_text(self.text(**more) + bindings, self.directory / "director.toml")

    def serves(self, workload: str) -> set[str]:
        """Nodes that distribution points send it to."""
        targets = {self.agents[name].sends(address(workload)) for name in ("c1", "c2")}
        by_net = {f"10.{net}.0.{WORKLOADS.index(workload) + 1}": name for name, (_, _, net) in POINTS.items()}
        return {by_net[target] for target in targets}

    @contextlib.asynccontextmanager
    async def evacuating(
        self, mover: Mover | None = None, runs: Runs | None = None, **more: Any
    ) -> AsyncIterator[Asked]:
        """A director's process, from start to end."""
        more = {"patience": "10s", "stale": "10s"} | more
        director = await self.direct("", **more)
        settings = self.wanted(**more).settings.evacuation
        try:
            async with evacuating(director, settings, runs, mover=mover) as verbs:
                yield Asked(director, verbs)
        finally:
            await self.end()


class Root:
    """Who may ask anything."""

    is_owner = True

    def __str__(self) -> str:
        return "root"


class Asked:
    """A director that runs, and its desk."""

    def __init__(self, director: Director, verbs: Verbs) -> None:
        self.director, self.verbs = director, verbs
        self.desk = Desk(director, Path("x"))
        self.desk.add(verbs.verbs, verbs.troubles)
        self.evacuations = verbs.evacuations

    async def ask(self, verb: str, **words: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(
            json.dumps(await self.desk.handle(Root(), {"verb": verb, **words}))
        )
        return answer

    async def seen(self, id_: str) -> dict[str, Any]:
        """When nothing of it is under way any more."""
        return await self.ask("evacuations", id=id_, timeout_s=60)

    async def settled(self) -> None:
        assert await self.director.settled(self.director.number, 60), self.director.outcomes()

    def where(self) -> dict[str, str]:
        return {row["name"]: row["node"] for row in self.director.topology.rows("workload")}


def hazards(url: str, more: str = "", timeout: str = "2m") -> str:
    """[hazards] for feeds of a hazard_feeds.Server."""
    return (
        f'[hazards]\ntimeout = "{timeout}"\n{more}\n'
        f'[[hazards.feed]]\nname = "quakes"\nkind = "usgs"\nurl = "{url}/usgs"\ninterval = "1s"\n'
        f'[[hazards.feed]]\nname = "weather"\nkind = "nws"\nurl = "{url}/nws"\ninterval = "1s"\n'
        '[[hazards.earthquake]]\nmagnitude = 5.5\nwithin_km = 100\nseverity = "Extreme"\n'
    )


def quakes(*sites: str, magnitude: float = 6.5) -> bytes:
    """The earthquakes' feed, with one at each of these sites."""
    now = time.time()
    features = [
        hazard_feeds.quake_feature(f"us{site}", now, [SITES[site][1], SITES[site][0], 10.0], mag=magnitude)
        for site in sites
    ]
    return hazard_feeds.usgs(*features, now=now)


def play(tmp_path: Path, scenario: Callable[[EvacuationFleet], Awaitable[None]], **more: Any) -> None:
    """With all nodes there; ``more``: as of the fleet."""

    async def whole() -> None:
        fleet = EvacuationFleet(tmp_path, Pki(tmp_path), **more)
        async with asyncio.timeout(240):
            await fleet.start()
            try:
                await scenario(fleet)
            finally:
                await fleet.stop()

    asyncio.run(whole())
