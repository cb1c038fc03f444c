"""Which of the parts (ports) a VPP has now, read through its API. Changes nothing.

Everything is asked for the interfaces, tables and families that are concerned, never for all of a router's
routes: of routes those of source API, which is what we make. Somebody else's multi-path route shows as one
with next hop SEVERAL: it fills the slot and equals nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ipshare.engine.vpp import ports as p
from ipshare.engine.vpp.client import Client
from ipshare.engine.vpp.ports_apply import DROP
from ipshare.engine.vpp.ports_wanted import is_loopback

NONE = 0xFFFFFFFF
STATIC = 1
RX_MODES = {1: "polling", 2: "interrupt", 3: "adaptive"}


@dataclass(frozen=True, slots=True)
class State:
    """``indexes``: VPP's number of each interface. ``tags``: of interfaces that have one."""

    parts: frozenset[p.Part]
    indexes: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def read(
    client: Client, concerned: Iterable[p.Part], tables: Iterable[int], untold: Iterable[p.Part] = ()
) -> State:
    """What VPP has of the kinds and interfaces in ``concerned``, and the routes of ``tables``.

    ``untold``: parts that were made and that VPP cannot tell of: 26.06 answers ip6nd_proxy_dump with the
    number of another message. They are there as long as their interface is. Raises EngineError.
    """
    wanted = {part.port for part in concerned if isinstance(part, p.OnPort | p.HostPort | p.Loopback)}
    details = {one.interface_name: one for one in client.dump("sw_interface_dump")}
    names = {one.sw_if_index: name for name, one in details.items()}
    found: set[p.Part] = {*_ports(client, details, names), *_domains(client, names)}
    for name, one in details.items():
        if name in wanted:
            found.update(_properties(client, name, one))
    found.update(_interfaces(client, names))
    for table in dict.fromkeys(tables):
        found.update(_routes(client, table, names))
    found.update(part for part in untold if isinstance(part, p.OnPort) and part.port in details)
    tags = {name: one.tag for name, one in details.items() if one.tag}
    return State(frozenset(found), {name: one.sw_if_index for name, one in details.items()}, tags)


def _ports(client: Client, details: Mapping[str, Any], names: Mapping[int, str]) -> Iterator[p.Part]:
    hosts = {}
    if client.has("af_packet_dump"):
        hosts = {names[one.sw_if_index]: one.host_if_name for one in client.dump("af_packet_dump")}
    for name in details:
        if name in hosts:
            yield p.HostPort(name, hosts[name])
        else:
            yield p.Loopback(name) if is_loopback(name) else p.FoundPort(name)


def _domains(client: Client, names: Mapping[int, str]) -> Iterator[p.Part]:
    for domain in client.dump("bridge_domain_dump"):
        if domain.bd_id == 0:
            continue
        yield p.Domain(domain.bd_id)
        for member in domain.sw_if_details:
            is_bvi = member.sw_if_index == domain.bvi_sw_if_index
            if member.sw_if_index in names:
                yield p.Member(names[member.sw_if_index], domain.bd_id, is_bvi)


def _properties(client: Client, name: str, one: Any) -> Iterator[p.Part]:
    yield p.Mac(name, str(one.l2_address))
    yield p.Mtu(name, int(one.mtu[0]))
    yield p.Admin(name, bool(int(one.flags) & 1))
    for family in (4, 6):
        index, is_ipv6 = one.sw_if_index, family == 6
        table = client.call("sw_interface_get_table", sw_if_index=index, is_ipv6=is_ipv6).vrf_id
        yield p.InTable(name, family, table)
        for address in client.dump("ip_address_dump", sw_if_index=index, is_ipv6=is_ipv6):
            yield p.PortAddress(name, str(address.prefix))


def _interfaces(client: Client, names: Mapping[int, str]) -> Iterator[p.Part]:
    """What VPP lists for all interfaces at once; of one that was deleted it may go on listing things."""
    for one in client.dump("proxy_arp_dump"):
        yield p.ArpRange(one.proxy.table_id, str(one.proxy.low), str(one.proxy.hi))
    for index, part in _by_index(client):
        if index in names:
            yield part(names[index])


def _by_index(client: Client) -> Iterator[tuple[int, Callable[[str], p.Part]]]:
    """(number of the interface, its name -> a part)."""
    for queue in client.dump("sw_interface_rx_placement_dump", sw_if_index=NONE):
        if int(queue.mode) in RX_MODES:
            yield queue.sw_if_index, partial(p.RxMode, mode=RX_MODES[int(queue.mode)])
    for one in client.dump("sw_interface_ip6nd_ra_dump", sw_if_index=NONE):
        if not one.send_radv:
            yield one.sw_if_index, p.Quiet
    for family in (0, 1):
        for one in client.dump("ip_neighbor_dump", sw_if_index=NONE, af=family):
            far = one.neighbor
            if int(far.flags) & STATIC:
                address, mac = str(far.ip_address), str(far.mac_address)
                yield far.sw_if_index, partial(p.StaticNeighbor, address=address, mac=mac)
    for one in client.dump("proxy_arp_intfc_dump"):
        yield one.sw_if_index, p.ArpProxy
    if client.has("lcp_itf_pair_get"):
        for pair in client.dump("lcp_itf_pair_get", cursor=0):
            device, netns = pair.host_if_name, pair.netns
            yield pair.phy_sw_if_index, partial(p.LinuxPair, device=device, netns=netns)
    if client.has("ipshare_reply_interface_dump"):
        for one in client.dump("ipshare_reply_interface_dump"):
            yield one.sw_if_index, partial(p.ReplySide, side=one.side)
    if client.has("ipshare_nat_interface_dump"):
        for one in client.dump("ipshare_nat_interface_dump"):
            yield one.sw_if_index, partial(p.NatSide, realm=one.realm)


def _routes(client: Client, table: int, names: Mapping[int, str]) -> Iterator[p.Part]:
    sources = {one.src.name: one.src.id for one in client.dump("fib_source_dump")}
    for is_ip6 in (False, True):
        where = {"table_id": table, "is_ip6": is_ip6}
        for one in client.dump("ip_route_v2_dump", src=sources["API"], table=where):
            yield _route(one.route, names)


def _route(route: Any, names: Mapping[int, str]) -> p.StaticRoute:
    table, prefix = route.table_id, str(route.prefix)
    if route.n_paths == 1 and int(route.paths[0].type) == DROP:
        return p.StaticRoute(table, prefix, drops=True)
    if route.n_paths != 1 or int(route.paths[0].type) != 0:
        return p.StaticRoute(table, prefix, via=p.SEVERAL)
    path = route.paths[0]
    address = path.nh.address.ip6 if ":" in prefix else path.nh.address.ip4
    via = str(address) if int(address) else None
    port = names.get(path.sw_if_index)
    again = path.table_id if via is None and port is None else None
    return p.StaticRoute(table, prefix, via, port, again)
