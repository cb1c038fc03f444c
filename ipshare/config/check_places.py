"""Checks of Global Networks, end points and distribution points: do the addresses and the ways fit? Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ipshare.config import schema
from ipshare.config.checks import Check, Finding
from ipshare.config.keys import KeyPath
from ipshare.config.resolve import is_encapsulated, own_name, readable
from ipshare.config.site import Site
from ipshare.config.units import bad_scope
from ipshare.model import Address, Prefix, contains, host_prefix

# The longest prefixes that other networks' routers commonly accept by eBGP.
_LONGEST_ANNOUNCED = {4: 24, 6: 48}


def overlap(one: Prefix, other: Prefix) -> bool:
    return contains(one, other) or contains(other, one)


def network_prefix(site: Site, network: schema.Network) -> Iterator[Finding]:
    prefix, path = network.prefix, (*network._path, "prefix")
    if scope := bad_scope(prefix):
        yield Finding(path, f"{prefix} is {scope}: never translated", "use a prefix that can be announced")
    if prefix.prefixlen > _LONGEST_ANNOUNCED[prefix.version]:
        limit = _LONGEST_ANNOUNCED[prefix.version]
        message = f"{prefix} is longer than /{limit}: most networks do not accept its announcement"
        yield Finding(
            path, message, f"announce a /{limit} or shorter, bind only what you need", is_warning=True
        )
    for other in readable(site.network, "prefix"):
        if other is network:
            return
        if overlap(prefix, other.prefix):
            message = f"{prefix} overlaps Global Network {other.prefix} ({site.where(other)})"
            yield Finding(
                path, message, "make one of them smaller, or merge them: bindings may nest, networks not"
            )


def network_loop(site: Site, network: schema.Network) -> Iterator[Finding]:
    if network.unmatched == "pass" and own_name(site, "distribution") is not None:
        message = 'unmatched = "pass" at a distribution point: the packet would go back upstream and loop'
        yield Finding((*network._path, "unmatched"), message, 'write "drop" or "unreachable"')


def local_networks(site: Site, endpoint: schema.Endpoint) -> Iterator[Finding]:
    for index, prefix in enumerate(endpoint.local):
        path = (*endpoint._path, "local", index)
        if scope := bad_scope(prefix):
            yield Finding(
                path, f"{prefix} is {scope}: never translated", "use a prefix that is routed to the end point"
            )
        for network in readable(site.network, "prefix"):
            if overlap(prefix, network.prefix):
                message = (
                    f"local network {prefix} overlaps Global Network {network.prefix} ({site.where(network)})"
                )
                yield Finding(
                    path, message, "a translated packet would be translated again: use another local network"
                )
        for other, taken in _earlier_locals(site, endpoint, index):
            if overlap(prefix, taken):
                message = f"local network {prefix} overlaps {taken} of end point {other!r}"
                yield Finding(
                    path, message, "each local network belongs to one end point: make them disjoint"
                )
                break


def _earlier_locals(site: Site, endpoint: schema.Endpoint, index: int) -> Iterator[tuple[str, Prefix]]:
    for other in readable(site.endpoint, "local", "name"):
        if other is endpoint:
            yield from ((other.name, prefix) for prefix in other.local[:index])
            return
        yield from ((other.name, prefix) for prefix in other.local)


def local_needed(site: Site, endpoint: schema.Endpoint) -> Iterator[Finding]:
    if not endpoint.local and not is_encapsulated(endpoint):
        message = f"end point {endpoint.name!r} has no local network, which rewriting needs"
        yield Finding(endpoint._path, message, 'add local = ["10.1.0.0/24"], or encapsulate: path = "ipip"')


def tunnel_needed(site: Site, endpoint: schema.Endpoint) -> Iterator[Finding]:
    if endpoint.tunnel:
        return
    hint = "add tunnel = [...]: an address inside a local network, configured on no interface"
    if is_encapsulated(endpoint):
        message = f"path = {endpoint.path!r}, but end point {endpoint.name!r} has no tunnel address"
        yield Finding((*endpoint._path, "path"), message, hint)
    if endpoint.replies == "tunnel":
        message = f"replies = 'tunnel', but end point {endpoint.name!r} has no tunnel address"
        yield Finding((*endpoint._path, "replies"), message, hint)


def reply_path(site: Site, endpoint: schema.Endpoint) -> Iterator[Finding]:
    if endpoint.replies == "rewrite" and is_encapsulated(endpoint):
        message = f"replies = 'rewrite' needs path = 'rewrite', not {endpoint.path!r}"
        yield Finding((*endpoint._path, "replies"), message, 'write replies = "tunnel" or "direct"')


def tunnel_peers(site: Site, endpoint: schema.Endpoint) -> Iterator[Finding]:
    """Both ends of a tunnel need an address of one family, and replies a taker."""
    families = {address.version for address in endpoint.tunnel}
    if not families or "distribution" in site.incomplete:
        return
    named = " or ".join(f"IPv{family}" for family in sorted(families))
    if is_encapsulated(endpoint):
        for point in site.distribution:
            if "tunnel" not in point._broken and not families & {a.version for a in point.tunnel}:
                message = (
                    f"distribution point {point.name!r} has no {named} tunnel address, but end point "
                    f"{endpoint.name!r} is reached by {endpoint.path}"
                )
                hint = "add tunnel = [...] there: an address that is configured on no interface"
                yield Finding(point._path, message, hint)
        if not site.distribution:
            message = (
                f"no [[distribution]]: end point {endpoint.name!r} would take tunnel packets from nobody"
            )
            hint = "add the distribution points with their tunnel addresses"
            yield Finding((*endpoint._path, "path"), message, hint)
    if endpoint.replies == "tunnel":
        points = list(readable(site.distribution, "tunnel", "weight"))
        takers = [p for p in points if p.weight and families & {a.version for a in p.tunnel}]
        if not takers and len(points) == len(site.distribution):
            message = (
                f"replies = 'tunnel', but no distribution point has a weight and an {named} tunnel address"
            )
            hint = "add a [[distribution]] with tunnel = [...]"
            yield Finding((*endpoint._path, "replies"), message, hint)


def tunnel_addresses(site: Site, table: schema.Endpoint | schema.Distribution) -> Iterator[Finding]:
    families: set[int] = set()
    for index, address in enumerate(table.tunnel):
        path, prefix = (*table._path, "tunnel", index), host_prefix(address)
        if address.version in families:
            yield Finding(
                path, f"a second IPv{address.version} tunnel address", "at most one per family: leave one out"
            )
        families.add(address.version)
        if scope := bad_scope(prefix):
            yield Finding(path, f"tunnel address {address} is {scope}", "use an address that is routed here")
        for network in readable(site.network, "prefix"):
            if contains(network.prefix, prefix):
                message = (
                    f"tunnel address {address} is inside Global Network {network.prefix} "
                    f"({site.where(network)})"
                )
                yield Finding(
                    path, message, "it must stay where it is: use an address inside a local network"
                )
        if previous := _earlier_tunnel(site, path, address):
            message = f"tunnel address {address} is configured twice: also at {site.document.place(previous)}"
            yield Finding(path, message, "give every end point and distribution point its own")
        if isinstance(table, schema.Endpoint) and not any(contains(local, prefix) for local in table.local):
            message = f"tunnel address {address} is not inside a local network of end point {table.name!r}"
            hint = "take one inside its `local`, so that it is routed there"
            yield Finding(path, message, hint)


def _earlier_tunnel(site: Site, path: KeyPath, address: Address) -> KeyPath | None:
    tables: list[schema.Endpoint | schema.Distribution] = [*site.endpoint, *site.distribution]
    for table in readable(tables, "tunnel"):
        for index, other in enumerate(table.tunnel):
            if (*table._path, "tunnel", index) == path:
                return None
            if other == address:
                return (*table._path, "tunnel", index)
    return None


def tunnel_room(site: Site, endpoint: schema.Endpoint) -> Iterator[Finding]:
    """IPv6 through a tunnel needs 1280 bytes inside (RFC 8200 5); below, nothing can be done but drop."""
    if not is_encapsulated(endpoint) or all(n.prefix.version == 4 for n in readable(site.network, "prefix")):
        return
    for address in endpoint.tunnel:
        version = address.version
        overhead = (20 if version == 4 else 40) + (12 if endpoint.path == "gue" else 0)
        mtu = endpoint.path_mtu.of(version)
        if mtu - overhead < 1280:
            message = (
                f"path_mtu {mtu} less {overhead} bytes of encapsulation leaves {mtu - overhead}: "
                "below the 1280 that IPv6 needs"
            )
            yield Finding(
                (*endpoint._path, "path_mtu"),
                message,
                f"make the path carry {1280 + overhead} bytes",
                is_warning=True,
            )


CHECKS: dict[str, list[Check]] = {
    "network": [network_prefix, network_loop],
    "endpoint": [
        local_networks,
        local_needed,
        tunnel_needed,
        reply_path,
        tunnel_peers,
        tunnel_addresses,
        tunnel_room,
    ],
    "distribution": [tunnel_addresses],
}
