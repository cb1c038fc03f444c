"""workloads: what [[workload]] of a director's file has to be, beside what placement asks of it.

Each runs on a node that is an end point; each of its addresses has a binding of its own to that end point,
and no two workloads have one address. So ipshare.director.moves knows which bindings change with a move.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from typing import Any

from ipshare.config.schema_placement import Workload
from ipshare.config.some import Finding
from ipshare.model import Prefix
from ipshare.placement.model import Workload as Placed
from ipshare.placement.settings import group_findings, workload_findings


def findings(
    tables: Sequence[Workload], nodes: dict[str, Any], sites: set[str], bindings: Sequence[Any]
) -> Iterator[Finding]:
    """``nodes``: name -> [[node]], without those that have mistakes; ``bindings``: as the file has them."""
    ends = {name: node.site or "" for name, node in nodes.items() if node.endpoint is not None}
    bound = dict(_targets(bindings))
    owner: dict[Prefix, str] = {}
    placed: list[Placed] = []
    for table in tables:
        if table._broken:
            continue
        path = table._path
        if table.node is None or table.site is not None:
            yield path, f"on which node does {table.name} run?", "write node, without site"
            continue
        if table.node not in ends:
            known = f"known: {', '.join(sorted(ends)) or 'none'}"
            yield (*path, "node"), f"there is no node {table.node!r} that is an end point", known
            continue
        yield from workload_findings(table, sites, ends, placed)
        for index, address in enumerate(table.addresses):
            place = (*path, "addresses", index)
            endpoint = nodes[table.node].endpoint
            if address in owner:
                yield place, f"{address} is {owner[address]}'s already", "an address moves with one workload"
            elif address not in bound:
                yield (
                    place,
                    f"there is no binding of {address} alone",
                    f'write [[binding]] global = "{address}"',
                )
            elif bound[address] != endpoint:
                text = f"the binding of {address} goes to {bound[address] or 'no end point'}, not {endpoint}"
                yield place, text, f"{table.name} runs on {table.node}, which is {endpoint}"
            owner.setdefault(address, table.name)
    yield from group_findings(tables, placed)


def _targets(bindings: Sequence[Any]) -> Iterator[tuple[Prefix, str | None]]:
    """Of those that can be read; the others have mistakes of their own."""
    for row in bindings:
        if isinstance(row, dict) and isinstance(row.get("global"), str):
            try:
                yield ip_network(row["global"]), row.get("to")
            except ValueError:
                continue
