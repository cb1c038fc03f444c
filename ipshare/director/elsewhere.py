"""elsewhere: where the workloads of a node that failed can go: placement, as evacuations ask it. Pure.

Only nodes that are alive, and have what the workload needs, take something. What stays on the node that is
left needs no room elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from ipshare.director.evacuation.places import layout
from ipshare.director.failover import Case
from ipshare.director.topology import Topology
from ipshare.placement.plan import Plan, fail


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


def exclusive(topology: Topology, cases: Iterable[Case]) -> dict[str, str]:
    """Exclusive workloads -> the node that is to have them: where a failover takes them, else as written."""
    rows = topology.rows("workload")
    wanted = {row["name"]: row["node"] for row in rows if row.get("kind", "exclusive") == "exclusive"}
    moving = {name: one.target for one in cases if one.phase == "moving" for name in one.workloads}
    return wanted | {name: target for name, target in moving.items() if name in wanted}


def targets(
    topology: Topology,
    leave: str,
    moving: Collection[str],
    able: Collection[str],
    avoid: Collection[str] = (),
) -> Plan:
    """Where the workloads in ``moving``, which are on node ``leave``, can go. ``able``: nodes that can take
    something; ``avoid``: sites that must not."""
    here = layout(
        topology, [name for name, node in topology.nodes.items() if node.endpoint and name not in able]
    )
    placed = tuple(one for one in here.workloads if one.node != leave or one.name in moving)
    return fail(replace(here, workloads=placed), leave, avoid)


def place(topology: Topology, leave: str, unit: Collection[str], able: Collection[str]) -> tuple[str, str]:
    """Where a unit that is on node ``leave`` can go, and why nowhere: one of them is "". ``able``: not
    ``leave`` itself."""
    others = "no other node is alive, up, and has what it needs"
    plan = targets(topology, leave, unit, able)
    for move in plan.moves:
        if set(move.workloads) == set(unit):
            return move.target, ""
    return "", next((stay.why for stay in plan.stays), others) if able else others
