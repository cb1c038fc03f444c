"""way: how long a packet may be that VPP sends to an address, by the routes of a table. Changes nothing."""

from __future__ import annotations

from typing import Any

from ipshare.engine.vpp.client import ApiRefused, Client
from ipshare.model import Address

NONE = 0xFFFFFFFF
DEEPEST = 8
"""Routes by way of routes."""


def way_mtu(client: Client, address: Address, table: int) -> int | None:
    """Bytes of the longest IP packet that every way there takes; None: no route."""
    mtus = {one.sw_if_index: _mtu(one, address.version) for one in client.dump("sw_interface_dump")}
    return _of(client, address, table, mtus, DEEPEST)


def _of(client: Client, address: Address, table: int, mtus: dict[int, int], deeper: int) -> int | None:
    prefix = f"{address}/{address.max_prefixlen}"
    try:
        route = client.call("ip_route_lookup", table_id=table, exact=0, prefix=prefix).route
    except ApiRefused:
        return None
    found: list[int | None] = []
    for path in route.paths[: route.n_paths]:
        port, via = path.sw_if_index, path.nh.address.ip4 if address.version == 4 else path.nh.address.ip6
        if port in mtus:
            found.append(mtus[port])
        elif port == NONE and int(path.type) == 0 and int(via) and deeper:
            found.append(_of(client, via, path.table_id, mtus, deeper - 1))
    carried = [mtu for mtu in found if mtu is not None]
    return min(carried) if carried else None


def _mtu(port: Any, family: int) -> int:
    """VPP has one of the interface, and one for each protocol that goes before it."""
    own = port.mtu[1 if family == 4 else 2]
    return int(own or port.mtu[0] or port.link_mtu)
