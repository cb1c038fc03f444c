"""fit: where workloads of a topology could go, by capacity, allowed sites and labels; the rules of placement
(ipshare.placement) for somebody who names the target. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ipshare.director.topology import Row, Topology
from ipshare.errors import Refused

SLACK = 1e-9


def together(topology: Topology, name: str) -> tuple[str, ...]:
    """What moves with workload ``name``: its group, or it alone. Raises Refused: there is none."""
    workloads = topology.by_name["workload"]
    if name not in workloads:
        raise Refused(f"there is no workload {name!r}", hint=f"known: {', '.join(workloads) or 'none'}")
    group = workloads[name].get("group")
    if group is None:
        return (name,)
    return tuple(other for other, row in workloads.items() if row.get("group") == group)


def chosen(topology: Topology, members: Sequence[str], to: str) -> str:
    """The node that ``to`` means: itself, or of a site the one with the most room left. Raises Refused with
    all reasons where none is possible."""
    nodes = topology.by_name["node"]
    site = topology.by_name["site"].get(to)
    names = [to] if to in nodes else [n for n, row in nodes.items() if row.get("site") == to]
    if to not in nodes and site is None:
        known = ", ".join([*nodes, *topology.by_name["site"]])
        raise Refused(f"there is no node and no site {to!r}", hint=f"known: {known or 'none'}")
    against = {name: why_not(topology, members, name) for name in names}
    able = [name for name in names if not against[name]]
    if not able:
        reasons = "; ".join(against.values()) or f"site {to} has no node"
        raise Refused(f"{', '.join(members)} cannot go to {to}: {reasons}", hint="ipshare director status")
    return max(able, key=lambda name: (_room(topology, members, name), name))


def why_not(topology: Topology, members: Sequence[str], node: str) -> str:
    """Why they cannot run at ``node``; "": they can."""
    row, workloads = topology.by_name["node"][node], topology.by_name["workload"]
    moving = [workloads[name] for name in members]
    if row.get("endpoint") is None:
        return f"{node} is no end point"
    if any(one["node"] == node for one in moving):
        return f"{node} is where it runs"
    if topology.nodes[moving[0]["node"]].endpoint == row["endpoint"]:
        return f"{node} is the same end point as {moving[0]['node']}: no address would move"
    size = sum(one.get("size", 1.0) for one in moving)
    if size > _room(topology, members, node) + SLACK:
        return f"{node} has room for {_room(topology, members, node):g} of {size:g}"
    site = row.get("site")
    for one in moving:
        if one.get("allowed") and site not in one["allowed"]:
            return f"{one['name']} may not run at site {site}"
    labels = {label for one in moving for label in one.get("apart", ())}
    for other in workloads.values():
        beside = other["name"] not in members and site is not None and _site(topology, other) == site
        if beside and (common := labels & set(other.get("apart", ()))):
            return f"{other['name']} at site {site} is kept apart by {min(common)!r}"
    return ""


def _room(topology: Topology, members: Sequence[str], node: str) -> float:
    """What is left of its capacity; one that names none takes what is asked of it."""
    capacity = topology.by_name["node"][node].get("capacity")
    if capacity is None:
        return float("inf")
    others = [row for row in topology.rows("workload") if row["node"] == node and row["name"] not in members]
    return float(capacity) - float(sum(row.get("size", 1.0) for row in others))


def _site(topology: Topology, workload: Row) -> str | None:
    return topology.by_name["node"][workload["node"]].get("site")
