"""Checks of VPP's subnets and static routes beside what the plugin enters into the service table.

Connected subnets, adjacencies and longer routes beat an entry, so what shall be translated must not lie
under them; the devices' own subnet, in a Global Network, belongs to the delivery table (DESIGN.md
section 5). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface

from ipshare.config import schema
from ipshare.config.check_places import overlap
from ipshare.config.check_vpp import table_of
from ipshare.config.checks import Check, Finding, is_vpp
from ipshare.config.resolve import named, own_name, readable
from ipshare.config.site import Site
from ipshare.config.units import bad_scope
from ipshare.model import Prefix, contains, host_prefix


def port_addresses(site: Site, port: schema.Interface) -> Iterator[Finding]:
    """Each address alone, and beside those of other interfaces."""
    if not is_vpp(site):
        return
    for index, address in enumerate(port.addresses):
        path = (*port._path, "addresses", index)
        if scope := bad_scope(host_prefix(address.ip)):
            hint = "VPP makes link-local addresses itself" if scope == "link-local" else "use another one"
            yield Finding(path, f"{address.ip} is {scope}: no address of an interface", hint)
        elif _is_subnet_itself(address):
            yield Finding(
                path, f"{address} is the subnet, or its broadcast address", "use an address inside of it"
            )
        for other, taken in _earlier_addresses(site, port, index):
            if taken.ip == address.ip:
                yield Finding(path, f"{address.ip} is an address of {other} already", "leave one of them out")
            elif other != port.name and overlap(taken.network, address.network):
                message = f"subnet {address.network} overlaps {taken.network} of {other} in the same table"
                yield Finding(path, message, "use disjoint subnets, or put one into the other table")
        if address.version == 6 and port.mtu is not None and port.mtu < 1280:
            message = f"mtu {port.mtu} is below 1280, the least that IPv6 allows (RFC 8200)"
            yield Finding((*port._path, "mtu"), message, "raise it, or leave IPv6 out")


def _is_subnet_itself(address: IPv4Interface | IPv6Interface) -> bool:
    net = address.network
    if address.version == 6 or net.prefixlen > 30:
        return False
    return address.ip in (net.network_address, net.broadcast_address)


def _earlier_addresses(
    site: Site, port: schema.Interface, index: int
) -> Iterator[tuple[str, IPv4Interface | IPv6Interface]]:
    for other in readable(site.interface, "addresses", "name", "table"):
        if other is port:
            yield from ((port.name, taken) for taken in port.addresses[:index])
            return
        if table_of(site, other) == table_of(site, port):
            yield from ((other.name, taken) for taken in other.addresses)


def port_is_nothing_else(site: Site, port: schema.Interface) -> Iterator[Finding]:
    """An address of VPP itself is neither a tunnel's nor a Global IP that is bound."""
    if not is_vpp(site):
        return
    places: list[schema.Endpoint | schema.Distribution] = [*site.endpoint, *site.distribution]
    for index, address in enumerate(port.addresses):
        path = (*port._path, "addresses", index)
        for table in readable(places, "tunnel"):
            if address.ip in table.tunnel:
                message = f"{address.ip} is the tunnel address at {site.where(table)}: configured nowhere"
                yield Finding(path, message, "use another address: a tunnel's is answered by the plugin")
        yield from _bound(site, path, address)


def _is_public(site: Site, port: schema.Interface, prefix: Prefix) -> bool:
    """On-link addresses that a pair answers for there: the plugin keeps VPP from learning neighbours of them,
    so that no host route of VPP's is before the plugin's entry."""
    if site.pair is None or "public" in site.pair._broken:
        return False
    return any(
        public.interface == port.name and contains(public.prefix, prefix)
        for public in readable(site.pair.public, "interface", "prefix")
    )


def port_beside_entries(site: Site, port: schema.Interface) -> Iterator[Finding]:
    """Subnets in the service table against Global Networks and local networks."""
    if not is_vpp(site) or table_of(site, port) != site.vpp.service_table:
        return
    roles = [own_name(site, kind) for kind in ("endpoint", "distribution")]
    if site.vpp.service_table == site.vpp.delivery_table and all(roles):
        return  # reported with the tables
    for index, address in enumerate(port.addresses):
        for what, prefix, where in _entries(site):
            if overlap(prefix, address.network) and not _is_public(site, port, prefix):
                message = (
                    f"subnet {address.network} overlaps {what} {prefix} ({where}) in the service table: "
                    "VPP would deliver there without translation"
                )
                hint = "use another subnet"
                if what == "Global Network":
                    hint = 'write table = "delivery", and a delivery_table of its own in [vpp]'
                yield Finding((*port._path, "addresses", index), message, hint)


def _bound(
    site: Site, path: tuple[str | int, ...], address: IPv4Interface | IPv6Interface
) -> Iterator[Finding]:
    """An address of VPP itself is answered by VPP: a binding of just this one leads nowhere."""
    for binding in readable(site.binding, "prefix"):
        if binding.prefix == host_prefix(address.ip):
            message = f"{address.ip} is an address of this node and a Global IP ({site.where(binding)})"
            yield Finding(path, message, "give the interface an address that no binding names")


def _entries(site: Site) -> Iterator[tuple[str, Prefix, str]]:
    """What this node's plugin enters into the service table: (what, prefix, where it is written)."""
    if own_name(site, "distribution") is not None:
        for network in readable(site.network, "prefix"):
            yield "Global Network", network.prefix, site.where(network)
    name = own_name(site, "endpoint")
    endpoint = named(site.endpoint, name) if name is not None else None
    if endpoint is not None and "local" not in endpoint._broken:
        for prefix in endpoint.local:
            yield "local network", prefix, site.where(endpoint)


def _pools(site: Site) -> Iterator[tuple[str, Prefix, str]]:
    """What it enters into both tables."""
    for nat in readable(site.nat, "addresses"):
        for pool in nat.addresses:
            for prefix in pool.prefixes:
                yield "pool", prefix, site.where(nat)


def route_beside_entries(site: Site, route: schema.Route) -> Iterator[Finding]:
    if not is_vpp(site):
        return
    in_service = table_of(site, route) == site.vpp.service_table
    for what, prefix, where in [*(_entries(site) if in_service else ()), *_pools(site)]:
        if contains(prefix, route.prefix):
            message = (
                f"a route to {route.prefix} inside {what} {prefix} ({where}) takes its packets from "
                "translation"
            )
            yield Finding((*route._path, "prefix"), message, 'leave it out, or write table = "delivery"')


CHECKS: dict[str, list[Check]] = {
    "interface": [port_addresses, port_is_nothing_else, port_beside_entries],
    "route": [route_beside_entries],
}
