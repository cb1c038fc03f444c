"""The nouns: nodes at sites, workloads on nodes, and units: what moves together or not at all. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Node:
    """Where workloads can run. A site without nodes of its own is one node of the site's name."""

    name: str
    site: str
    capacity: float


@dataclass(frozen=True, slots=True)
class Site:
    """`capacity`: of all its nodes together. `weight`: share of what moves; 0: it takes nothing."""

    name: str
    capacity: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Workload:
    """`group`: runs on one node with the others of its group. `allowed`: sites; empty: all. `apart`: labels;
    two workloads with a label in common are never at one site."""

    name: str
    size: float
    node: str
    group: str = ""
    allowed: frozenset[str] = frozenset()
    apart: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Unit:
    """A group, or a workload without one: what is placed as a whole."""

    name: str
    members: tuple[str, ...]
    size: float
    node: str
    allowed: frozenset[str] | None
    """None: all sites."""
    apart: frozenset[str]


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything at one time. Names are unique; `workloads` name nodes of `nodes`, these sites of `sites`."""

    sites: tuple[Site, ...]
    nodes: tuple[Node, ...]
    workloads: tuple[Workload, ...] = field(default=())


def units(workloads: Iterable[Workload]) -> list[Unit]:
    """Groups, and workloads without one, largest first, then by name: the order in which they are placed and
    moved. All workloads of a group are on one node (ipshare.placement.settings sees to it)."""
    groups: dict[tuple[bool, str], list[Workload]] = {}
    for workload in workloads:
        key = (bool(workload.group), workload.group or workload.name)
        groups.setdefault(key, []).append(workload)
    found = [_unit(name, members) for (_, name), members in groups.items()]
    return sorted(found, key=lambda unit: (-unit.size, unit.name, unit.members))


def _unit(name: str, members: Sequence[Workload]) -> Unit:
    limits = [member.allowed for member in members if member.allowed]
    return Unit(
        name,
        tuple(member.name for member in members),
        sum(member.size for member in members),
        members[0].node,
        frozenset.intersection(*limits) if limits else None,
        frozenset().union(*(member.apart for member in members)),
    )
