"""Config -> the parts (ports) that VPP shall have, in the order in which they are made. Pure.

Besides what [[interface]], [[bridge]], [[route]] and [[neighbor]] say themselves:
- MAC addresses of interfaces that we make come from the names of node and interface, so that neighbours know
  them still when VPP was restarted;
- devices of a subnet in a Global Network take those that are elsewhere for neighbours: VPP answers ARP and
  neighbour solicitations for them, and looks their packets up in the service table (DESIGN.md section 5);
- interfaces by which replies come in that shall go back through a distribution point (S1.5, S1.7);
- interfaces that the inside of a NAT is behind (S3.5), before they are up: untranslated nothing leaves;
- interfaces of a pair with a workload's MAC address (S3.4), neither up nor down: that follows the role;
- addresses of channels (S4.2) lead nowhere while no remap has them (decision 0055).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface

from ipshare.engine.vpp import ports as p
from ipshare.engine.vpp.elsewhere import elsewhere, summarized
from ipshare.model import Config, Interface, Lookup, Prefix, Replies, Vpp, contains

HOST_MTU = 1500
"""Of an interface over a Linux device: VPP itself would take 9,000, which few such devices carry."""


def parts(config: Config) -> list[p.Part]:
    """All that VPP shall have. Each once."""
    vpp = config.vpp
    assert vpp is not None, "a node whose engine is VPP"
    bvis = {bridge.bvi: bridge.id for bridge in vpp.bridges}
    found: list[p.Part] = [p.Domain(bridge.id) for bridge in vpp.bridges]
    numbers = {bridge.name: bridge.id for bridge in vpp.bridges}
    macs = {one.name: one.mac for one in config.pair.ports} if config.pair is not None else {}
    for port in vpp.interfaces:
        found += _port(config.node.name, vpp, port, macs.get(port.name))
        if port.bridge is not None:
            found.append(p.Member(port.name, numbers[port.bridge], False))
        elif port.name in bvis:
            found.append(p.Member(port.name, bvis[port.name], True))
    for neighbor in vpp.neighbors:
        found.append(p.StaticNeighbor(neighbor.interface, str(neighbor.address), neighbor.mac))
    for route in vpp.routes:
        via = str(route.via) if route.via is not None else None
        found.append(p.StaticRoute(vpp.table(route.table), str(route.prefix), via, route.interface))
    found += _proxies(config, vpp)
    found += _replies(config, vpp)
    found += (p.StaticRoute(vpp.service_table, str(prefix), drops=True) for prefix in _unused(config))
    found += (p.NatSide(port, nat.realm) for nat in config.nats for port in nat.interfaces)
    return sorted(dict.fromkeys(found), key=lambda part: p.RANK[type(part)])


def _port(node: str, vpp: Vpp, port: Interface, workload_mac: str | None) -> Iterator[p.Part]:
    name, is_ours = port.name, False
    if port.host is not None:
        yield p.HostPort(name, port.host)
        is_ours = True
    elif is_loopback(name):
        yield p.Loopback(name)
        is_ours = True
    else:
        yield p.FoundPort(name)
    if workload_mac or port.mac is not None or is_ours:
        yield p.Mac(name, workload_mac or port.mac or made_up_mac(node, name))
    mtu = port.mtu if port.mtu is not None else HOST_MTU if port.host is not None else None
    if mtu is not None:
        yield p.Mtu(name, mtu)
    if port.rx_mode is not None:
        yield p.RxMode(name, port.rx_mode)
    for family in (4, 6):
        yield p.InTable(name, family, vpp.table(port.table))
    for address in port.addresses:
        yield p.PortAddress(name, str(address))
    if any(address.version == 6 for address in port.addresses):
        yield p.Quiet(name)
    if port.linux_cp is not None:
        yield p.LinuxPair(name, port.linux_cp, port.linux_cp_netns or "")
    if workload_mac is None:
        yield p.Admin(name, port.is_up)


def is_loopback(name: str) -> bool:
    """Whether VPP calls a loopback so."""
    return name.startswith("loop") and name[4:].isdecimal() and name[4:] == str(int(name[4:]))


def made_up_mac(node: str, port: str) -> str:
    """A locally administered unicast address, always the same one."""
    octets = b"\x02" + hashlib.sha256(f"{node} {port}".encode()).digest()[:5]
    return octets.hex(":")


def _unused(config: Config) -> Iterator[Prefix]:
    """Ends of channels; those in a local network are the plugin's anyway."""
    own = config.self_endpoint.local if config.self_endpoint is not None else ()
    for channel in config.channels:
        yield from (end for end in channel.local if not any(contains(prefix, end) for prefix in own))


# ---- devices that are elsewhere ---------------------------------------------


def _proxies(config: Config, vpp: Vpp) -> Iterator[p.Part]:
    """Nothing where one table serves for both: there is none to look such packets up in again."""
    if config.self_endpoint is None or vpp.service_table == vpp.delivery_table:
        return
    for port in vpp.interfaces:
        if port.table is Lookup.DELIVERY:
            for address in port.addresses:
                for network in config.networks:
                    if network.prefix.version == address.version:
                        yield from _proxy(config, vpp, port, address, network.prefix)


def _proxy(
    config: Config, vpp: Vpp, port: Interface, address: IPv4Interface | IPv6Interface, network: Prefix
) -> Iterator[p.Part]:
    within = _common(network, address.network)
    if within is None:
        return
    ranges = list(elsewhere(config, within, address.ip))
    for prefix in summarized(ranges, within.version):
        yield p.StaticRoute(vpp.delivery_table, str(prefix), again_in=vpp.service_table)
        if prefix.version == 6 and prefix.num_addresses == 1:
            yield p.NdProxy(port.name, str(prefix.network_address))
    if within.version == 4 and ranges:
        first, last = type(address.ip), type(address.ip)
        for one in ranges:
            yield p.ArpRange(vpp.delivery_table, str(first(one.first)), str(last(one.last)))
        yield p.ArpProxy(port.name)


def _common(one: Prefix, other: Prefix) -> Prefix | None:
    if contains(one, other):
        return other
    return one if contains(other, one) else None


# ---- replies that go back through a distribution point -------------------------


def _replies(config: Config, vpp: Vpp) -> Iterator[p.Part]:
    endpoint, distribution = config.self_endpoint, config.self_distribution
    if endpoint is not None and endpoint.replies is not Replies.DIRECT:
        for network in config.networks:
            yield from (p.ReplySide(port, 1) for port in towards(config, vpp, network.prefix))
    elif distribution is not None:
        for other in config.endpoints:
            if other.replies is Replies.REWRITE and not other.is_self:
                for prefix in other.local:
                    yield from (p.ReplySide(port, 0) for port in towards(config, vpp, prefix))


def towards(config: Config, vpp: Vpp, prefix: Prefix) -> list[str]:
    """Interfaces behind which addresses of ``prefix`` are: as [node] says (inside), else by subnets and
    static routes, those inside the prefix, or the longest that cover it; never by a default route."""
    if config.node.inside:
        return list(config.node.inside)
    ways = list(_ways(vpp))
    inside = {port for way, port in ways if contains(prefix, way)}
    if not inside:
        covering = [(way.prefixlen, port) for way, port in ways if contains(way, prefix)]
        longest = max((length for length, _ in covering), default=0)
        inside = {port for length, port in covering if length == longest and length > 0}
    return sorted(inside)


def _ways(vpp: Vpp) -> Iterator[tuple[Prefix, str]]:
    subnets = [(address.network, port.name) for port in vpp.interfaces for address in port.addresses]
    yield from subnets
    for route in vpp.routes:
        if route.interface is not None:
            yield route.prefix, route.interface
        else:
            yield from (
                (route.prefix, port)
                for subnet, port in subnets
                if route.via is not None and route.via in subnet
            )
