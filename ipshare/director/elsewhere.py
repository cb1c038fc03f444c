"""elsewhere: where the workloads of a node that failed can go, by ipshare.placement. Pure.

Only nodes that are alive, and have what the workload needs, are asked about; what runs on a node that is not
among them needs no room there. A node without a capacity has room for anything; one without a site is a site
of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ipshare.director.topology import Row, Topology
from ipshare.placement.model import Layout, Node, Site, Workload
from ipshare.placement.plan import Plan, fail

ANY = 1e9
"""Room of a node that says nothing of it."""


def units(topology: Topology) -> dict[str, tuple[str, ...]]:
    """What moves together: name of the group, or of a workload without one -> workloads. A group that has the
    name of a workload is told apart from it."""
    found: dict[tuple[bool, str], list[str]] = {}
    for row in topology.rows("workload"):
        group = row.get("group")
        found.setdefault((group is not None, group or row["name"]), []).append(row["name"])
    alone = {name for is_group, name in found if not is_group}
    return {
        f"group {name}" if is_group and name in alone else name: tuple(members)
        for (is_group, name), members in found.items()
    }


def targets(
    topology: Topology,
    leave: str,
    moving: Collection[str],
    able: Collection[str],
    avoid: Collection[str] = (),
) -> Plan:
    """Where the workloads in ``moving``, which are on node ``leave``, can go. ``able``: nodes that can take
    something; ``avoid``: sites that must not."""
    rows = topology.by_name["node"]
    nodes = tuple(
        Node(name, _site(rows[name]), rows[name].get("capacity") or ANY)
        for name in rows
        if rows[name].get("endpoint") is not None and (name in able or name == leave)
    )
    here = {node.name for node in nodes}
    placed = tuple(
        _placed(row)
        for row in topology.rows("workload")
        if (row["name"] in moving if row["node"] == leave else row["node"] in here)
    )
    held: dict[str, float] = {}
    for node in nodes:
        held[node.site] = held.get(node.site, 0.0) + node.capacity
    known = topology.by_name["site"]
    sites = tuple(_named(name, known.get(name, {}), room) for name, room in held.items())
    return fail(Layout(sites, nodes, placed), leave, avoid)


def _site(row: Row) -> str:
    return str(row.get("site") or row["name"])


def _named(name: str, row: Row, room: float) -> Site:
    return Site(name, row.get("capacity") or room, row.get("weight", 1.0))


def _placed(row: Mapping[str, object]) -> Workload:
    allowed, apart = row.get("allowed", ()), row.get("apart", ())
    assert isinstance(allowed, list | tuple), "checked by ipshare.director.config"
    assert isinstance(apart, list | tuple), "checked as well"
    size, group = row.get("size", 1.0), row.get("group") or ""
    assert isinstance(size, int | float), "checked as well"
    name, node = str(row["name"]), str(row["node"])
    return Workload(name, float(size), node, str(group), frozenset(allowed), frozenset(apart))
