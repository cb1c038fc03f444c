"""places: a director's topology as placement sees it, and what in it goes against its own policies. Pure.

A place is a node that is an end point. One without a capacity takes nothing, one without a site is at none,
which takes nothing either. Capacities, `apart` and `allowed` bind what ipshare places; a file may say
otherwise (a workload was started there by hand, a capacity became less): then ``faults`` tells.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection

from ipshare.director.topology import Topology
from ipshare.placement.model import Layout, Node, Site, Workload
from ipshare.placement.search import SLACK

NOWHERE = ""
"""The site of nodes that have none."""


def layout(topology: Topology, unfit: Collection[str] = ()) -> Layout:
    """``unfit``: nodes that take nothing now."""
    rows = {row["name"]: row for row in topology.rows("node") if row.get("endpoint")}
    held: Counter[str] = Counter()
    nodes = []
    for name, row in rows.items():
        site, capacity = row.get("site", NOWHERE), float(row.get("capacity", 0.0))
        held[site] += capacity  # type: ignore[assignment]
        nodes.append(Node(name, site, 0.0 if name in unfit else capacity))
    sites = [
        Site(row["name"], float(row.get("capacity", held[row["name"]])), float(row.get("weight", 1.0)))
        for row in topology.rows("site")
    ]
    if NOWHERE in held:
        sites.append(Site(NOWHERE, held[NOWHERE], 0.0))
    placed = [
        Workload(
            row["name"],
            float(row.get("size", 1.0)),
            row["node"],
            row.get("group", ""),
            frozenset(row.get("allowed", ())),
            frozenset(row.get("apart", ())),
        )
        for row in topology.rows("workload")
    ]
    return Layout(tuple(sites), tuple(nodes), tuple(placed))


def faults(topology: Topology) -> list[str]:
    """A line for each policy that the topology does not keep."""
    seen = layout(topology)
    at = {node.name: node.site for node in seen.nodes}
    used: dict[str, float] = defaultdict(float)
    used_at: dict[str, float] = defaultdict(float)
    labels: dict[tuple[str, str], list[str]] = defaultdict(list)
    found = []
    for workload in seen.workloads:
        site = at[workload.node]
        used[workload.node] += workload.size
        used_at[site] += workload.size
        for label in sorted(workload.apart):
            labels[site, label].append(workload.name)
        if workload.allowed and site not in workload.allowed:
            where = ", ".join(sorted(workload.allowed))
            found.append(f"{workload.name} is at {site or 'no site'}, and allowed at {where} alone")
    for kind, sums in (("node", used), ("site", used_at)):
        for row in topology.rows(kind):
            name, capacity = row["name"], row.get("capacity")
            if capacity is not None and sums[name] > capacity + SLACK:
                found.append(f"{kind} {name} holds {sums[name]:g}, more than its capacity, {capacity:g}")
    for (site, label), names in labels.items():
        if site and len(names) > 1:
            found.append(f"{', '.join(names)} are kept apart by {label!r}, and all at {site}")
    return found
