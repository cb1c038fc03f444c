"""hub: what the routes share, and how the director's state is told: status, nodes, sites, operations.

Hazards and evacuations are asked of the director's desk, as `ipshare director` does; nothing is shown where
the file has none.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ipshare.director.daemon import Director
from ipshare.director.desk import Desk
from ipshare.director.store import Revision
from ipshare.director.topology import Topology
from ipshare.errors import IpshareError
from ipshare.web import models
from ipshare.web.audit import Trail
from ipshare.web.beside_states import INSIDE
from ipshare.web.gate import Gate
from ipshare.web.once import Keys
from ipshare.web.problems import Failure
from ipshare.web.watch import Watch
from ipshare.web.who import Doorkeeper


@dataclass
class Hub:
    """``gate`` is set once the application is complete."""

    director: Director
    desk: Desk
    watch: Watch
    door: Doorkeeper
    trail: Trail
    keys: Keys = field(default_factory=Keys)
    gate: Gate | None = None

    def status(self) -> dict[str, Any]:
        found = self.desk.status()
        nodes = found.pop("nodes")
        outcomes = dict(Counter(one["outcome"] for one in nodes))
        known = models.Status.model_fields
        return {key: found[key] for key in known if key in found} | {
            "nodes": len(nodes),
            "outcomes": outcomes,
        }

    def nodes(self) -> list[dict[str, Any]]:
        sites = {row["name"]: row.get("site") for row in self.director.topology.rows("node")}
        return [one | {"site": sites.get(one["name"])} for one in self.desk.status()["nodes"]]

    async def ask(self, verb: str, **words: Any) -> dict[str, Any]:
        """Of the director's desk, as its control socket has it."""
        return await self.desk.handle(INSIDE, {"verb": verb, **words})

    async def revision(self, number: int) -> Revision:
        """Raises Failure 404."""
        director = self.director
        if director.revision is not None and number == director.number:
            return director.revision
        found = await director.work(director.store.revision, number)
        if found is None:
            raise Failure(404, f"there is no revision {number}", "GET /api/v1/revisions lists them")
        return found

    async def operation(self, number: int) -> dict[str, Any]:
        """The roll-out of that revision. Raises Failure 404."""
        made, director = await self.revision(number), self.director
        self.watch.look()
        stored = await director.work(director.store.outcomes, number)
        here = [one for one in self.watch.events if one.data.get("revision") == number]
        if here and here[0].kind == "revision":
            events = [
                {
                    "time": one.time,
                    "kind": one.kind,
                    "node": one.data.get("node"),
                    "outcome": one.data.get("outcome"),
                    "why": one.data.get("why", ""),
                }
                for one in here
            ]
        else:
            events = [
                {
                    "time": one.time,
                    "kind": "node",
                    "node": one.node,
                    "outcome": one.outcome,
                    "why": one.detail,
                }
                for one in stored
            ]
        nodes: list[dict[str, Any]] = []
        if number == director.number:
            outcomes = director.outcomes()
            nodes = [{"name": n, "outcome": o, "why": self.watch.why(n, o)} for n, o in outcomes.items()]
            settled = bool(outcomes) and set(outcomes.values()) <= {"acked"}
            state = "settled" if settled else "running"
        else:
            acked = {one.node for one in stored if one.outcome == "acked"}
            state = "settled" if acked >= set(made.topology.nodes) else "superseded"
        return {
            "id": str(number), "state": state, "revision": number, "who": made.who, "why": made.why,
            "time": made.time, "nodes": nodes, "events": events,
        }  # fmt: skip

    def workloads(self) -> list[dict[str, Any]]:
        topology = self.director.topology
        sites = {row["name"]: row.get("site") for row in topology.rows("node")}
        return [
            {
                "name": row["name"], "kind": row.get("kind", "exclusive"), "node": row["node"],
                "site": sites.get(row["node"]), "group": row.get("group"), "size": row.get("size", 1.0),
                "addresses": list(row.get("addresses", ())),
            }
            for row in topology.rows("workload")
        ]  # fmt: skip

    def sites(self) -> list[dict[str, Any]]:
        topology = self.director.topology
        served = prefixes_by_endpoint(topology)
        found = []
        for row in topology.rows("site"):
            nodes = [one for one in topology.rows("node") if one.get("site") == row["name"]]
            ends = dict.fromkeys(one["endpoint"] for one in nodes if one.get("endpoint"))
            latitude, longitude = place(row.get("latitude"), row.get("longitude"), row.get("zip"))
            found.append(
                {
                    "name": row["name"], "latitude": latitude, "longitude": longitude, "zip": row.get("zip"),
                    "nodes": [one["name"] for one in nodes],
                    "prefixes": [prefix for end in ends for prefix in served.get(end, ())],
                }
            )  # fmt: skip
        return found

    async def hazards(self) -> dict[str, Any] | None:
        """What the director knows of dangers to sites; None: it looks for none."""
        found = await self._beside("hazards")
        return found if found and found.get("mode") is not None else None

    async def evacuations(self) -> list[dict[str, Any]]:
        """Those that are kept, the newest first."""
        found = (await self._beside("evacuations") or {}).get("evacuations", [])
        return sorted(found, key=lambda one: str(one["time"]), reverse=True)

    async def health(self) -> dict[str, Any] | None:
        """What is up and down, and who has which exclusive workload; None: nothing is looked after."""
        found = await self._beside("health")
        return found | {"failover": await self._beside("failover")} if found is not None else None

    async def migrations(self) -> list[dict[str, Any]]:
        """Live migrations that are kept, the newest first."""
        found: list[dict[str, Any]] = (await self._beside("migrations") or {}).get("migrations", [])
        return found

    async def held(self, workloads: Iterable[str]) -> str:
        """Which live migration has one of them under way; "": none."""
        names = set(workloads)
        under_way = [
            one for one in await self.migrations() if not one["over"] and names & set(one["workloads"])
        ]
        return next((str(one["id"]) for one in under_way), "")

    async def _beside(self, verb: str) -> dict[str, Any] | None:
        """Of what may stand beside the director."""
        try:
            return await self.ask(verb)
        except IpshareError:
            return None


def prefixes_by_endpoint(topology: Topology) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for prefix, row in topology.bindings.items():
        for endpoint in sorted(topology.endpoints_of(row)):
            found.setdefault(endpoint, []).append(str(prefix))
    return found


@functools.lru_cache(4096)
def place(
    latitude: float | None, longitude: float | None, zip_code: str | None
) -> tuple[float | None, float | None]:
    """Of a site: as written, or the centre of its ZIP code where the library that knows those is there."""
    if latitude is not None and longitude is not None:
        return latitude, longitude
    if zip_code is not None:
        from ipshare.hazards.zips import locate

        try:
            x, y = locate(zip_code)
            return y, x
        except IpshareError:
            pass
    return None, None
