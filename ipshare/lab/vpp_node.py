"""A data path node of the lab whose packets are VPP's: what its kernel would be told is told to VPP. Pure.

on_vpp() takes the node as it would be with the embedded engine. Its devices become VPP's (af_packet) and
have no address in the kernel, which must not answer for them; a bridge becomes a bridge domain with a
loopback that has the addresses. The kernel keeps one leg: a veth pair inside the node, `host` in the kernel
and `vpp` at VPP, with the kernel's default route over it. The agent's probes use it, and whatever else runs
on the node: what a linux-cp pair does where the machine has /dev/vhost-net.

Both roles on one node need two tables (DESIGN.md section 5): the devices' LAN is in the delivery table, since
the Global Network is on-link there, and an entry of the plugin in the other one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_interface

from ipshare.lab.topology import Bridge, Link, Neighbor, Node, Pair, Port, Route, Table, Vpp
from ipshare.net.actions import Action, AddressAdd, RouteAdd, SysctlSet

KERNEL_LEG, VPP_LEG = "host", "vpp"
_LEG = Pair(KERNEL_LEG, VPP_LEG)
_DELIVERY = 1
_MAIN = 254
Cables = Mapping[str, Link]  # by the node's device


def on_vpp(node: Node, links: Iterable[Link], legs: Iterable[str]) -> Node:
    """legs: the addresses of the kernel's leg, with prefix length; VPP has the first one of each subnet."""
    cables = {
        link.b if node.name == link.a else link.a: link for link in links if node.name in (link.a, link.b)
    }
    legs = tuple(legs)
    is_split = {"distribution", "endpoint"} <= set(node.roles)
    lan: Table = "delivery" if is_split else "service"
    loopbacks = {bridge.device: f"loop{n}" for n, bridge in enumerate(node.bridges)}
    names = {device: f"host-{device}" for device in cables} | loopbacks
    vpp = Vpp(
        ports=(
            *_cable_ports(node, cables),
            *(_loopback(bridge, loopbacks[bridge.device], node, cables, lan) for bridge in node.bridges),
            Port(
                f"host-{VPP_LEG}", VPP_LEG, _LEG.mtu, tuple(map(_gateway, legs)), mac=mac(node.name, VPP_LEG)
            ),
        ),
        routes=(*_routes(node, names, lan), *(_out_of_delivery(node, names, legs) if is_split else ())),
        bvis=loopbacks,
        delivery_table=_DELIVERY if is_split else 0,
    )
    return replace(node, bridges=(), actions=tuple(_kernel(legs)), pairs=(_LEG,), vpp=vpp)


def port_name(node: Node, device: str) -> str:
    """The name, at this node, of what the lab calls `device`: a cable or a bridge."""
    return device if node.vpp is None else node.vpp.bvis.get(device, f"host-{device}")


def mac(node: str, device: str) -> str:
    """Of the port of a node's VPP on this device; locally administered."""
    return ":".join(f"{octet:02x}" for octet in (2, 0, *f"{node}{device}".encode()[:4].ljust(4, b"\0")))


def _cable_ports(node: Node, cables: Cables) -> Iterator[Port]:
    bridged = {port: bridge.device for bridge in node.bridges for port in bridge.ports}
    for device, link in cables.items():
        name, addresses = f"host-{device}", _addresses(node, device)
        yield Port(name, device, link.mtu, addresses, bridge=bridged.get(device), mac=mac(node.name, device))


def _loopback(bridge: Bridge, name: str, node: Node, cables: Cables, table: Table) -> Port:
    mtu = min(cables[port].mtu for port in bridge.ports)
    return Port(name, None, mtu, _addresses(node, bridge.device), table)


def _addresses(node: Node, device: str) -> tuple[str, ...]:
    return tuple(a.address for a in node.actions if isinstance(a, AddressAdd) and a.device == device)


def _routes(node: Node, names: Mapping[str, str], lan: Table) -> Iterator[Route]:
    bridges = {bridge.device for bridge in node.bridges}
    for action in node.actions:
        if isinstance(action, RouteAdd) and action.device is not None:
            table: Table = lan if action.device in bridges else "service"
            yield Route(action.prefix, names[action.device], action.via, table)


def _out_of_delivery(node: Node, names: Mapping[str, str], legs: Iterable[str]) -> Iterator[Route]:
    """What the devices' packets need in a table of their own: the way out, and to the node itself."""
    for action in node.actions:
        if isinstance(action, RouteAdd) and action.device is not None and action.via is not None:
            yield Route(action.prefix, names[action.device], action.via, "delivery")
    for leg in map(ip_interface, legs):
        yield Route(str(leg.network), f"host-{VPP_LEG}", str(leg.ip), "delivery")


def _kernel(legs: Iterable[str]) -> Iterator[Action]:
    yield SysctlSet(f"net/ipv6/conf/{KERNEL_LEG}/disable_ipv6", "0")
    for leg in legs:
        yield AddressAdd(KERNEL_LEG, leg)
    for leg in legs:
        everything = "0.0.0.0/0" if ip_interface(leg).version == 4 else "::/0"
        gateway = str(ip_interface(_gateway(leg)).ip)
        yield RouteAdd(_MAIN, everything, device=KERNEL_LEG, via=gateway)


def _gateway(leg: str) -> str:
    subnet = ip_interface(leg).network
    return f"{subnet[1]}/{subnet.prefixlen}"


def neighbors(node: Node, others: Mapping[str, Node]) -> tuple[Neighbor, ...]:
    """VPPs at the other end of a cable: VPP drops the packet for which it has to ask, and the first one to
    ask may find the other not yet there."""
    found = []
    for port in node.vpp.ports if node.vpp else ():
        far = others.get(port.host or "")
        if far is not None and far.vpp is not None:
            end = next(p for p in far.vpp.ports if p.host == node.name)
            found += [
                Neighbor(port.name, str(ip_interface(address).ip), mac(far.name, node.name))
                for address in end.addresses
            ]
    return tuple(found)
