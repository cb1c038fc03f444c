"""plan(layout, leave, avoid) -> Plan: where each unit on the nodes in `leave` goes. Pure.

Nothing else moves, ever: a plan needs exactly one move for each unit that has to go, and none is made to make
room. Every unit has an order of preference of its own over the nodes: those of its own site first, then by
weighted rendezvous hashing of its name and the node's, so that loads follow the weights, and a node or a unit
more or less changes nobody else's order. Units are placed largest first. The search goes depth first through
these orders and turns back where a unit no longer fits; it takes the first complete placement. If there is
none, it goes on for the one that places most (by size, then number; of equal ones the first).

Bound: STEPS tries. Up to there the answer is exact; beyond, the best that was found is given and `is_exact`
is false. Without a conflict it takes one try for each unit. A plan that was carried out in part and is made
again gives the rest of the same plan.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from ipshare.placement.model import Layout, Node, Unit, Workload, units
from ipshare.placement.search import SLACK, Search

STEPS = 200_000


@dataclass(frozen=True, slots=True)
class Move:
    """One step; all workloads of a unit go together."""

    unit: str
    workloads: tuple[str, ...]
    size: float
    source: str
    source_site: str
    target: str
    target_site: str
    why: str


@dataclass(frozen=True, slots=True)
class Stay:
    """A unit that cannot go anywhere, and why."""

    unit: str
    workloads: tuple[str, ...]
    size: float
    node: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """`is_possible`: everything that had to move does. `is_alarm`: something had to move and nothing can."""

    moves: tuple[Move, ...]
    stays: tuple[Stay, ...]
    is_exact: bool

    @property
    def is_possible(self) -> bool:
        return not self.stays

    @property
    def is_alarm(self) -> bool:
        return bool(self.stays) and not self.moves


def evacuate(layout: Layout, site: str, avoid: Collection[str] = ()) -> Plan:
    """Everything at `site` goes elsewhere, not to the sites in `avoid` (hazardous or drained ones)."""
    leave = {node.name for node in layout.nodes if node.site == site}
    return plan(layout, leave, {site, *avoid}, f"{site} is evacuated")


def fail(layout: Layout, node: str, avoid: Collection[str] = ()) -> Plan:
    """Everything on `node`, which died, goes to other nodes, those of its own site first."""
    return plan(layout, {node}, avoid, f"{node} failed")


def plan(
    layout: Layout, leave: Collection[str], avoid: Collection[str] = (), reason: str = "its node is left"
) -> Plan:
    """The general form: nodes in `leave` are left, sites in `avoid` take nothing."""
    room = _Room(layout, leave, avoid)
    for workload in layout.workloads:
        if workload.node not in leave:
            room.put(workload, room.nodes[workload.node])
    going = units(workload for workload in layout.workloads if workload.node in leave)
    search = Search(room, going, [room.choices(unit) for unit in going], STEPS)
    placed = search.run()
    moves, stays = [], []
    for unit, target in zip(going, placed, strict=True):
        home = room.nodes[unit.node]
        if target is not None:
            why = f"{reason}; {'same site' if target.site == home.site else _choice(room, target)}"
            moves.append(
                Move(unit.name, unit.members, unit.size, home.name, home.site, target.name, target.site, why)
            )
            room.put(unit, target)
    for unit, target in zip(going, placed, strict=True):
        if target is None:
            stays.append(Stay(unit.name, unit.members, unit.size, unit.node, room.why_not(unit)))
    return Plan(tuple(moves), tuple(stays), search.is_exact)


def _choice(room: _Room, target: Node) -> str:
    return f"by weight {room.weights[target.site]:g}"


class _Room:
    """What is free where, and which labels are at which site."""

    def __init__(self, layout: Layout, leave: Collection[str], avoid: Collection[str]) -> None:
        self.nodes = {node.name: node for node in layout.nodes}
        self.weights = {site.name: site.weight for site in layout.sites}
        held = {site.name: 0.0 for site in layout.sites}
        for node in layout.nodes:
            held[node.site] += node.capacity
        self.shares = {
            n.name: self.weights[n.site] * n.capacity / held[n.site] if held[n.site] > 0 else 0.0
            for n in layout.nodes
        }
        self.free = {node.name: node.capacity for node in layout.nodes}
        self.site_free = {site.name: site.capacity for site in layout.sites}
        self.labels: dict[tuple[str, str], int] = {}
        open_sites = {site.name for site in layout.sites if site.weight > 0 and site.name not in avoid}
        self.targets = [n for n in layout.nodes if n.name not in leave and n.site in open_sites]

    def put(self, unit: Unit | Workload, node: Node, sign: int = 1) -> None:
        self.free[node.name] -= sign * unit.size
        self.site_free[node.site] -= sign * unit.size
        for label in unit.apart:
            key = (node.site, label)
            self.labels[key] = self.labels.get(key, 0) + sign

    def fits(self, unit: Unit, node: Node) -> bool:
        return (
            unit.size <= self.free[node.name] + SLACK
            and unit.size <= self.site_free[node.site] + SLACK
            and not self.is_taken(unit, node.site)
        )

    def is_taken(self, unit: Unit, site: str) -> bool:
        """A workload that this one keeps apart from is there."""
        return any(self.labels.get((site, label)) for label in unit.apart)

    def allows(self, unit: Unit, node: Node) -> bool:
        return unit.allowed is None or node.site in unit.allowed

    def choices(self, unit: Unit) -> list[Node]:
        """The nodes that may take it, the preferred one first."""
        home = self.nodes[unit.node].site
        found = [node for node in self.targets if self.allows(unit, node)]
        return sorted(
            found,
            key=lambda node: (
                node.site != home,
                rendezvous(unit.name, node.name, self.shares[node.name]),
                node.name,
            ),
        )

    def why_not(self, unit: Unit) -> str:
        if not self.targets:
            return "no other site takes anything"
        allowed = [node for node in self.targets if self.allows(unit, node)]
        if not allowed:
            where = (
                ", ".join(sorted(unit.allowed or ())) or "nowhere: its group's workloads exclude each other"
            )
            return f"it may run only at {where}" if unit.allowed else f"it may run {where}"
        alone = [node for node in allowed if not self.is_taken(unit, node.site)]
        if not alone:
            return "at every site that it may go to is a workload that it is kept apart from"
        most = max(alone, key=lambda node: min(self.free[node.name], self.site_free[node.site]))
        free = max(0.0, min(self.free[most.name], self.site_free[most.site]))
        return f"no room: it needs {unit.size:g}, the most that is left is {free:g} ({most.name})"


def rendezvous(unit: str, node: str, weight: float) -> float:
    """The lower, the earlier a unit prefers a node: -ln(u) / weight with u in (0, 1) from a hash of both."""
    return -math.log(_fraction(unit, node)) / weight if weight > 0 else math.inf


@lru_cache(1 << 17)
def _seed(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def _fraction(unit: str, node: str) -> float:
    """Uniform in (0, 1): both names' hashes mixed (SplitMix64's finalizer)."""
    mixed = (_seed(unit) + 0x9E3779B97F4A7C15 * (_seed(node) | 1)) & 0xFFFFFFFFFFFFFFFF
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return ((mixed ^ mixed >> 31) >> 11 | 1) / (1 << 53)
