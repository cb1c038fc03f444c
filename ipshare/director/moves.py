"""moves: a topology in which workloads are at other nodes. Pure: what is done about it is Director.change's.

A workload's bindings go where it goes: their `to` becomes the end point of its node. A group moves as a
whole, or not at all. Whether it fits there is placement's question, whether it runs there that of who asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_network

from ipshare.director.topology import Row, Topology
from ipshare.errors import Refused
from ipshare.model import Prefix


def moved(topology: Topology, moves: Mapping[str, str]) -> Topology:
    """``moves``: workload -> node. Raises Refused: no such workload or node, a node that is no end point, a
    part of a group, a binding whose local address is written down."""
    workloads = topology.by_name["workload"]
    targets = {name: _target(topology, name, node) for name, node in moves.items()}
    for name in moves:
        _whole(workloads, moves, name)
    to: dict[Prefix, str] = {}
    for name, endpoint in targets.items():
        for address in workloads[name].get("addresses", ()):
            to[ip_network(address)] = endpoint
    tables = dict(topology.tables)
    tables["workload"] = [
        {**row, "node": moves[row["name"]]} if row["name"] in moves else row
        for row in topology.rows("workload")
    ]
    tables["binding"] = [_bound(row, to) for row in topology.rows("binding")]
    return replace(topology, tables=tables)


def _target(topology: Topology, name: str, node: str) -> str:
    """The end point of the node."""
    if name not in topology.by_name["workload"]:
        known = ", ".join(topology.by_name["workload"]) or "none"
        raise Refused(f"there is no workload {name!r}", hint=f"known: {known}")
    row = topology.nodes.get(node)
    if row is None:
        raise Refused(f"there is no node {node!r}", hint=f"known: {', '.join(topology.nodes)}")
    if row.endpoint is None:
        ends = ", ".join(other for other, one in topology.nodes.items() if one.endpoint)
        raise Refused(f"node {node} is no end point: nothing runs there", hint=f"end points: {ends}")
    return row.endpoint


def _whole(workloads: Mapping[str, Row], moves: Mapping[str, str], name: str) -> None:
    group = workloads[name].get("group")
    if group is None:
        return
    for other, row in workloads.items():
        if row.get("group") == group and moves.get(other) != moves[name]:
            hint = "a group moves as a whole, to one node"
            raise Refused(f"{name} is of group {group}, and {other} would not come with it", hint=hint)


def _bound(row: Row, to: Mapping[Prefix, str]) -> Row:
    endpoint = to.get(ip_network(row["global"]))
    if endpoint is None or row.get("to") == endpoint:
        return row
    if "local" in row:
        text = f"binding {row['global']} has a local address written down: at {endpoint} it is another one"
        raise Refused(
            text, hint="take `local` away from the binding, then addresses correspond by themselves"
        )
    return {**row, "to": endpoint}
