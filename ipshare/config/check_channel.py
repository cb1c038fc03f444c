"""Checks of `[[channel]]`: two end points, addresses as its kind needs them, ways for the mirror.

What takes the machine to see (key file, the path's real MTU) is found by the agent before a remap. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from ipshare.config import schema
from ipshare.config.checks import Check, Finding, unique_name, unknown_name
from ipshare.config.keys import KeyPath
from ipshare.config.resolve import own_name, readable
from ipshare.config.site import Site
from ipshare.config.units import bad_scope
from ipshare.model import Address, Prefix, contains, host_prefix
from ipshare.model_remap import OVERHEAD, SLOTS

MAX_PATHS = 4
LEAST_ROOM = 1280  # of IPv6 packets (RFC 8200 section 5)
NEEDED = {"ipip": 2, "gue": 1, "rewrite": 2}


def own_end(site: Site, channel: schema.Channel) -> int | None:
    """Which of its ends is this node's end point; None: neither."""
    mine = own_name(site, "endpoint")
    names = [end.endpoint for end in channel.end]
    return names.index(mine) if mine is not None and mine in names else None


def ends_here(site: Site) -> bool:
    """Whether some channel ends at this node."""
    return any(
        own_end(site, channel) is not None
        for channel in readable(site.channel, "end")
        if not any("endpoint" in end._broken for end in channel.end)
    )


def two_ends(site: Site, channel: schema.Channel) -> Iterator[Finding]:
    path = (*channel._path, "end")
    if len(channel.end) != 2:
        message = f"a channel has two ends, not {len(channel.end)}"
        yield Finding(path, message, "write [[channel.end]] once for each of the two")
        return
    for number, end in enumerate(channel.end):
        place: KeyPath = (*path, number, "endpoint")
        yield from unknown_name(site, "endpoint", place, end.endpoint, "end point")
    if channel.end[0].endpoint == channel.end[1].endpoint:
        message = f"both ends of the channel are at end point {channel.end[0].endpoint!r}"
        yield Finding((*path, 1, "endpoint"), message, "a channel leads to another end point")


def room(site: Site, channel: schema.Channel) -> Iterator[Finding]:
    families = {prefix.version for end in channel.end for prefix in end.addresses}
    if len(families) != 1:
        return  # said by addresses
    header = 0 if channel.kind == "rewrite" else 20 if families == {4} else 40
    left, path = channel.mtu - header - OVERHEAD[channel.kind], (*channel._path, "mtu")
    wants6 = any(network.prefix.version == 6 for network in readable(site.network, "prefix"))
    if left < LEAST_ROOM and (families == {6} or (wants6 and channel.kind != "rewrite")):
        message = f"mtu = {channel.mtu} leaves {left} bytes for a packet: IPv6 needs {LEAST_ROOM}"
        yield Finding(path, message, f"the least is {channel.mtu - left + LEAST_ROOM}")


def addresses(site: Site, channel: schema.Channel) -> Iterator[Finding]:
    """As many as the kind needs, of one family, of nobody else."""
    seen: list[Prefix] = []
    for number, end in enumerate(channel.end):
        path: KeyPath = (*channel._path, "end", number, "addresses")
        need = NEEDED[channel.kind]
        if len(end.addresses) != need:
            message = f"{len(end.addresses)} addresses: an end of kind {channel.kind} has {need}"
            yield Finding(path, message, _why(channel.kind))
        for index, prefix in enumerate(end.addresses):
            at = (*path, index)
            if scope := bad_scope(prefix):
                yield Finding(at, f"{prefix} is {scope}: nothing is routed there", "use an address of a site")
            elif channel.kind != "rewrite" and prefix.num_addresses > 1:
                yield Finding(at, f"{prefix} is more than one address", "write an address without length")
            elif any(prefix.version != other.version for other in seen):
                message = f"{prefix} is IPv{prefix.version}, and {seen[0]} is not"
                yield Finding(at, message, "a channel is of one family; what it carries may be of both")
            elif other := next((o for o in seen if contains(o, prefix) or contains(prefix, o)), None):
                message = f"{prefix} is, or overlaps, {other} of this channel"
                yield Finding(at, message, "every mark and every direction has addresses of its own")
            elif channel.kind == "rewrite" and seen and prefix.prefixlen != seen[0].prefixlen:
                message = f"{prefix} is not as long as {seen[0]}"
                yield Finding(at, message, "all prefixes of a channel are of one length")
            else:
                yield from _taken(site, at, prefix)
            seen.append(prefix)


def _why(kind: str) -> str:
    if kind == "gue":
        return "what is asked and what is final is said by an octet in the packet"
    return "the first is of packets that are delivered, the second of packets that are asked about"


def _taken(site: Site, at: KeyPath, prefix: Prefix) -> Iterator[Finding]:
    for network in readable(site.network, "prefix"):
        if contains(network.prefix, prefix) or contains(prefix, network.prefix):
            message = f"{prefix} is in Global Network {network.prefix} ({site.where(network)})"
            yield Finding(at, message, "use addresses of the end point's local network")
    for kind in ("endpoint", "distribution"):
        for place in readable(site.tables(kind), "tunnel"):
            for tunnel in place.tunnel:
                if contains(prefix, host_prefix(tunnel)):
                    message = f"{tunnel} is a tunnel address already ({site.where(place)})"
                    yield Finding(at, message, "use another address")


def disjoint(site: Site, channel: schema.Channel) -> Iterator[Finding]:
    """Addresses of two channels at one end point."""
    mine = [(end, prefix) for end in channel.end for prefix in end.addresses]
    for other in readable(takewhile(lambda o: o is not channel, site.channel), "end"):
        for end in (e for e in other.end if not {"addresses", "endpoint"} & e._broken):
            for taken in end.addresses:
                for ours, prefix in mine:
                    if ours.endpoint == end.endpoint and (contains(taken, prefix) or contains(prefix, taken)):
                        message = f"{prefix} is, or overlaps, {taken} of channel {site.where(other)}"
                        yield Finding((*channel._path, "end"), message, "use another address")
                        return


def paths(site: Site, channel: schema.Channel) -> Iterator[Finding]:
    """As many at both ends, of one family each; every end is of one end alone."""
    if len(channel.end) != 2:
        return  # said by two_ends
    counts = [len(end.paths) for end in channel.end]
    for number, count in enumerate(counts):
        if not 1 <= count <= MAX_PATHS:
            path: KeyPath = (*channel._path, "end", number, "paths")
            yield Finding(path, f"{count} paths: an end has 1 to {MAX_PATHS}", "one is enough")
            return
    path = (*channel._path, "end", 1, "paths")
    if counts[0] != counts[1]:
        message = f"one end has {counts[0]} paths and the other {counts[1]}"
        yield Finding(path, message, "write both ends of each path, in the same order at both")
        return
    seen: set[tuple[Address, int]] = set(_earlier_paths(site, channel))
    for index, pair in enumerate(zip(channel.end[0].paths, channel.end[1].paths, strict=True)):
        if pair[0][0].version != pair[1][0].version:
            message = f"the ends of this path are IPv{pair[0][0].version} and IPv{pair[1][0].version}"
            yield Finding((*path, index), message, "paths go by their order")
        for number, (address, port) in enumerate(pair):
            at = (*channel._path, "end", number, "paths", index)
            if scope := bad_scope(host_prefix(address)):
                yield Finding(at, f"{address} is {scope}: no path leads there", "use an address of the node")
            elif port + SLOTS - 1 > 65535:
                yield Finding(at, f"port {port} has no {SLOTS - 1} ports after it", "use a lower one")
            elif near := next((p for a, p in seen if a == address and abs(p - port) < SLOTS), None):
                message = f"{address} port {port} is within {SLOTS} of port {near} of another path"
                yield Finding(at, message, f"every path has {SLOTS} ports in a row at both ends")
            seen.add((address, port))


def _earlier_paths(site: Site, channel: schema.Channel) -> Iterator[tuple[Address, int]]:
    for other in takewhile(lambda o: o is not channel, readable(site.channel, "end")):
        for end in (e for e in other.end if "paths" not in e._broken):
            yield from end.paths


CHECKS: dict[str, list[Check]] = {
    "channel": [unique_name, two_ends, room, addresses, disjoint, paths],
}
