"""addresses: which addresses a cluster needs on its private access subnet, and how many public ones that
saves (SYSTEMS.md S2.1).

Where routers, their shared address, and balancers stand on a public subnet, each of them takes a public
address beside the cluster's: two routers with a shared one and two balancers make six. On a private subnet
only the cluster's is public. What the configuration does not name is suggested: the highest free addresses
of the subnet. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ipshare.model import Address, Cluster, Config, Prefix, host_prefix

ROUTERS = ("router 1", "router 2", "routers' shared address")
"""Where the configuration names none: two, with an address that moves between them."""


def plan_addresses(config: Config) -> list[dict[str, Any]]:
    """One for each address of each cluster."""
    return [
        _plan(config, cluster, address, subnet)
        for cluster in config.clusters
        for address in cluster.addresses
        for subnet in cluster.subnets
        if subnet.version == address.version
    ]


def _plan(config: Config, cluster: Cluster, address: Address, subnet: Prefix) -> dict[str, Any]:
    rows = list(_needed(config, cluster, subnet))
    free = _free(subnet, {row["address"] for row in rows})
    for row in rows:
        if row["address"] is None:
            row.update(address=next(free, None), suggested=True)
    vips = [row["address"] for row in rows if row["role"] == "vip"]
    public = 1 + sum(row["role"] in ("router", "balancer") for row in rows)
    return {
        "cluster": cluster.name,
        "address": str(address),
        "subnet": str(subnet),
        "needed": [row | {"address": str(row["address"]) if row["address"] else None} for row in rows],
        "route": f"{host_prefix(address)} via {vips[0]}",
        "public_before": public,
        "public_now": 1,
        "saved": public - 1,
    }


def _row(role: str, name: str, address: Address | None) -> dict[str, Any]:
    return {"role": role, "name": name, "address": address, "suggested": False}


def _needed(config: Config, cluster: Cluster, subnet: Prefix) -> Iterator[dict[str, Any]]:
    routers = [a for a in cluster.routers if a.version == subnet.version]
    for number, router in enumerate(routers, 1):
        yield _row("router", f"router {number}", router)
    if not routers:
        yield from (_row("router", name, None) for name in ROUTERS)
    yield from _balancers(config, cluster, subnet)
    for server in cluster.servers:
        yield from (_row("server", server.name, a) for a in server.addresses if a.version == subnet.version)


def _balancers(config: Config, cluster: Cluster, subnet: Prefix) -> Iterator[dict[str, Any]]:
    pair = config.pair
    if pair is None:
        yield _row("balancer", config.node.name, None)
        yield _row("vip", "next hop of the routers: the balancer", None)
        return
    ends = [(path.local, path.remote) for path in pair.paths]
    mine, theirs = next(((a, b) for a, b in ends if a in subnet and b in subnet), (None, None))
    named = {pair.node: mine, pair.peer: theirs}
    for name in sorted(named):
        yield _row("balancer", name, named[name])
    vip = next(
        (v.address for v in pair.vips if v.address in subnet and v.interface == cluster.interface), None
    )
    yield _row("vip", "next hop of the routers, of whichever is active", vip)


def _free(subnet: Prefix, taken: set[Address | None]) -> Iterator[Address]:
    """Hosts that nobody has, from the highest on; of IPv6 from the lowest, which people can read."""
    size = subnet.num_addresses
    offsets = range(size - 2, 0, -1) if subnet.version == 4 else range(1, size)
    for offset in offsets:
        address = subnet[offset]
        if address not in taken:
            taken.add(address)
            yield address
