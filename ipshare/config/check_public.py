"""Checks of `[[pair.public]]`: prefixes that can be announced, no address that somebody keeps. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ipshare.config import schema
from ipshare.config.checks import Finding, is_vpp
from ipshare.config.keys import KeyPath
from ipshare.config.resolve import readable
from ipshare.config.schema_pair import PairInterface
from ipshare.config.site import Site
from ipshare.config.units import bad_scope
from ipshare.model import Address, contains, host_prefix

MOST, HOST_BITS = 32, 16


MOST_PORTS = 64


def ports(site: Site, pair: schema.Pair) -> Iterator[Finding]:
    if len(pair.interface) > MOST_PORTS:
        message = f"{len(pair.interface)} sub-interfaces: a pair has at most {MOST_PORTS}"
        yield Finding((*pair._path, "interface", MOST_PORTS), message, "leave some out")
    for key in ("name", "mac"):
        seen: set[str] = set()
        for index, port in enumerate(pair.interface):
            value = str(getattr(port, key)).lower()
            if value in seen:
                path = (*pair._path, "interface", index, key)
                yield Finding(path, f"{value} is that of a sub-interface above", "give each its own")
            seen.add(value)
    for index, port in enumerate(pair.interface):
        path = (*pair._path, "interface", index)
        if not is_vpp(site) and port.parent is None:
            yield Finding(path, "key 'parent' is missing", "name the interface that it is on")
        elif is_vpp(site) and port.parent is not None:
            message = f"{port.name} of VPP has no parent: it is an [[interface]] of its own"
            yield Finding((*path, "parent"), message, "leave it out")
        elif is_vpp(site):
            yield from _workload_port(site, port, path)


def _workload_port(site: Site, port: PairInterface, path: KeyPath) -> Iterator[Finding]:
    for other in readable(site.interface, "name", "mac"):
        if other.name == port.name and other.mac is not None and other.mac.lower() != port.mac.lower():
            message = f"{port.name} has the MAC address {other.mac} ({site.where(other)})"
            yield Finding((*path, "mac"), message, "write it once, here")


def _others(site: Site) -> dict[Address, str]:
    """What VPP's sections say of addresses: its own, and those that somebody else has for certain."""
    found: dict[Address, str] = {}
    for port in readable(site.interface, "name", "addresses"):
        found |= dict.fromkeys([own.ip for own in port.addresses], f"an address of {port.name}")
    for route in readable(site.route, "via"):
        found |= {} if route.via is None else {route.via: f"the next hop of a route ({site.where(route)})"}
    for neighbor in readable(site.neighbor, "address"):
        found[neighbor.address] = f"a neighbour's ({site.where(neighbor)})"
    return found


def publics(site: Site, pair: schema.Pair) -> Iterator[Finding]:
    if len(pair.public) > MOST:
        message = f"{len(pair.public)} public prefixes: a pair has at most {MOST}"
        yield Finding((*pair._path, "public", MOST), message, "route them to a public VIP instead")
    kept = {address: "the end of a path between the nodes" for node in pair.node for address, _ in node.paths}
    kept |= {vip.address: "a VIP already" for vip in pair.vip}
    sources = [] if "icmp_source" in site.node._broken else site.node.icmp_source
    kept |= dict.fromkeys(sources, "in icmp_source, a node's own address")
    kept |= _others(site)
    for index, public in enumerate(pair.public):
        path = (*pair._path, "public", index)
        if public.prefix.max_prefixlen - public.prefix.prefixlen > HOST_BITS:
            message = f"{public.prefix} has more than 65,536 addresses: they cannot all be announced"
            yield Finding((*path, "prefix"), message, "have it routed to a public VIP ([[pair.vip]]) instead")
            continue
        if scope := bad_scope(public.prefix):
            yield Finding(
                (*path, "prefix"), f"{public.prefix} is {scope}", "name addresses of the public subnet"
            )
            continue
        for address, what in kept.items():
            if contains(public.prefix, host_prefix(address)):
                message = f"{public.prefix} contains {address}, which is {what}"
                yield Finding((*path, "prefix"), message, "leave it out: name the pool in smaller prefixes")
        for other in pair.public[:index]:
            if public.prefix.version == other.prefix.version and public.prefix.overlaps(other.prefix):
                message = f"{public.prefix} overlaps {other.prefix}"
                yield Finding((*path, "prefix"), message, "name every address once")
        devices = {
            getattr(site.engine, key)
            for key in ("outer_device", "inner_device")
            if key not in site.engine._broken
        }
        if public.interface in devices and not is_vpp(site):
            message = f"{public.interface!r} is the engine's own device: no router is there"
            yield Finding((*path, "interface"), message, "name the interface towards the router")
