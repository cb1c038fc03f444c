"""Checks of `[bgp]`: who may announce what, to whom; announcements against ROAs (SYSTEMS.md S1.1). Pure, but
for the file of ROAs, which ipshare.config.roa reads."""

from __future__ import annotations

from collections.abc import Iterator

from ipshare.config import roa, schema
from ipshare.config.checks import Check, Finding
from ipshare.config.keys import KeyPath
from ipshare.config.resolve import own_name, readable
from ipshare.config.site import Site
from ipshare.config.units import bad_scope
from ipshare.model import Address, host_prefix

LONGEST = {4: 24, 6: 48}
"""Prefixes that the Internet takes."""
LEAST_STALE_S = 30.0
RESERVED_ASNS = {
    23456: "AS_TRANS (RFC 6793)",
    65535: "reserved (RFC 7300)",
    0xFFFFFFFF: "reserved (RFC 7300)",
}
MOST_NEIGHBORS = 64


def router_id(bgp: schema.Bgp) -> Address | None:
    """As written, or the own IPv4 address."""
    return bgp.router_id or next((address for address in bgp.local if address.version == 4), None)


def families_of(neighbor: schema.BgpNeighbor) -> tuple[int, ...]:
    """What is announced to it."""
    named = sorted({int(family[1]) for family in neighbor.families})
    return tuple(named) or (neighbor.address.version,)


def _neighbors(bgp: schema.Bgp) -> Iterator[tuple[KeyPath, schema.BgpNeighbor]]:
    for index, neighbor in enumerate(bgp.neighbor):
        yield (*bgp._path, "neighbor", index), neighbor


def role(site: Site, bgp: schema.Bgp) -> Iterator[Finding]:
    """Who announces can translate: a distribution point of its own, on an engine whose end BIRD sees. A
    director may say later which one it is, and of which networks. (VPP: check_bgp_vpp.)"""
    waits = site.remote is not None
    if not waits and not {"distribution"} & site.incomplete and own_name(site, "distribution") is None:
        message = "this node is no distribution point: it has nothing to announce"
        yield Finding(bgp._path, message, "leave [bgp] out, or set `distribution` in [node]")
    if site.pair is not None:
        message = "half of a pair announces nothing: only one of the two forwards"
        yield Finding(bgp._path, message, "leave [bgp] out: routers in front of the pair announce")
    if not waits and not site.network and "network" not in site.incomplete:
        yield Finding(bgp._path, "there is no [[network]] to announce", "add one, or leave [bgp] out")


def numbers(site: Site, bgp: schema.Bgp) -> Iterator[Finding]:
    if bgp.asn in RESERVED_ASNS:
        message = f"AS {bgp.asn} is {RESERVED_ASNS[bgp.asn]}"
        yield Finding((*bgp._path, "asn"), message, "private ones are 64512 to 65534 and 4200000000 on")
    for path, neighbor in _neighbors(bgp):
        if neighbor.asn in RESERVED_ASNS:
            message = f"AS {neighbor.asn} is {RESERVED_ASNS[neighbor.asn]}"
            yield Finding((*path, "asn"), message, "ask its operator for its number")


def identifier(site: Site, bgp: schema.Bgp) -> Iterator[Finding]:
    wanted = router_id(bgp)
    if wanted is None:
        message = "no router_id, and no IPv4 address in local to take for it"
        yield Finding((*bgp._path, "router_id"), message, "write an IPv4 address of this node")
    elif wanted.version != 4 or not int(wanted):
        message = f"{wanted} is no router_id"
        yield Finding(
            (*bgp._path, "router_id"), message, "it is written as an IPv4 address, unique in the AS"
        )


def local(site: Site, bgp: schema.Bgp) -> Iterator[Finding]:
    seen: set[int] = set()
    for index, address in enumerate(bgp.local):
        path = (*bgp._path, "local", index)
        if address.version in seen:
            yield Finding(path, f"a second IPv{address.version} address", "at most one per family")
        seen.add(address.version)
        yield from _usable(site, path, address)


def times(site: Site, bgp: schema.Bgp) -> Iterator[Finding]:
    if not 3 <= bgp.hold_time <= 65535 or bgp.hold_time != int(bgp.hold_time):
        message = f"hold_time {bgp.hold_time:g} s is no whole number of seconds from 3 to 65,535"
        yield Finding((*bgp._path, "hold_time"), message, 'RFC 4271 allows no other: write for example "30s"')
    interval_ms = bgp.bfd_interval * 1000
    if not 10 <= interval_ms <= 10_000 or abs(interval_ms - round(interval_ms)) > 1e-6:
        message = f"bfd_interval {bgp.bfd_interval:g} s is no whole number of milliseconds from 10 to 10,000"
        yield Finding((*bgp._path, "bfd_interval"), message, 'write for example "100ms"')
    if bgp.max_stale < LEAST_STALE_S:
        message = f"max_stale {bgp.max_stale:g} s is below {LEAST_STALE_S:g} s"
        hint = "the agent looks every 10 s: less would withdraw a node that is well"
        yield Finding((*bgp._path, "max_stale"), message, hint)


def neighbors(site: Site, bgp: schema.Bgp) -> Iterator[Finding]:
    path = (*bgp._path, "neighbor")
    if not 1 <= len(bgp.neighbor) <= MOST_NEIGHBORS:
        message = f"{len(bgp.neighbor)} neighbours: a node has 1 to {MOST_NEIGHBORS}"
        yield Finding(path, message, "write [[bgp.neighbor]] for each")
    seen: dict[Address, KeyPath] = {}
    for place, neighbor in _neighbors(bgp):
        if neighbor.address in seen:
            where = site.document.place(seen[neighbor.address])
            message = f"{neighbor.address} is a neighbour already ({where})"
            yield Finding((*place, "address"), message, "one session with each")
        seen.setdefault(neighbor.address, place)
        if neighbor.address in bgp.local:
            yield Finding((*place, "address"), f"{neighbor.address} is this node itself", "name the router")
        yield from _usable(site, (*place, "address"), neighbor.address)


def attributes(site: Site, bgp: schema.Bgp) -> Iterator[Finding]:
    for path, neighbor in _neighbors(bgp):
        if neighbor.prepend and neighbor.asn == bgp.asn:
            message = "prepend at an iBGP neighbour: it would take the own AS in the path for a loop"
            yield Finding((*path, "prepend"), message, "leave prepend out here; use med")
        hops: set[int] = set()
        for index, address in enumerate(neighbor.next_hop):
            where = (*path, "next_hop", index)
            if address.version in hops:
                yield Finding(where, f"a second IPv{address.version} next hop", "at most one per family")
            hops.add(address.version)
            yield from _usable(site, where, address)
        for family in families_of(neighbor):
            if family != neighbor.address.version and family not in hops:
                message = f"no IPv{family} next hop for a session over IPv{neighbor.address.version}"
                hint = f"add an IPv{family} address of this node to next_hop"
                yield Finding((*path, "families"), message, hint)


def lengths(site: Site, bgp: schema.Bgp) -> Iterator[Finding]:
    """What most of the Internet would drop is announced on purpose alone."""
    if bgp.allow_long or all(neighbor.asn == bgp.asn for neighbor in bgp.neighbor):
        return
    for network in readable(site.network, "prefix"):
        most = LONGEST[network.prefix.version]
        if network.prefix.prefixlen > most:
            message = f"{network.prefix} is longer than /{most}: most of the Internet would drop it"
            hint = "announce the covering prefix, or write allow_long = true in [bgp]"
            yield Finding((*network._path, "prefix"), message, hint)


def unheard(site: Site, bgp: schema.Bgp) -> Iterator[Finding]:
    """A Global Network of a family that no neighbour hears."""
    heard = {family for neighbor in bgp.neighbor for family in families_of(neighbor)}
    for network in readable(site.network, "prefix"):
        if bgp.neighbor and network.prefix.version not in heard:
            message = f"no neighbour hears IPv{network.prefix.version}: {network.prefix} is not announced"
            hint = f'add a neighbour, or "v{network.prefix.version}" to families of one'
            yield Finding((*bgp._path, "neighbor"), message, hint, is_warning=True)


def origins(site: Site, bgp: schema.Bgp) -> Iterator[Finding]:
    """RFC 6811: what covers an announcement and does not allow it makes it invalid."""
    if bgp.roa is None:
        return
    path = (*bgp._path, "roa")
    file = site.document.place((*path, "file")).file.parent / bgp.roa.file
    prefixes = {network.prefix: network for network in readable(site.network, "prefix")}
    try:
        states = roa.judge(file, bgp.asn, prefixes)
    except roa.Unreadable as error:
        yield Finding((*path, "file"), error.message, error.hint)
        return
    for prefix, state in states.items():
        where = (*prefixes[prefix]._path, "prefix")
        if state.word == "invalid":
            hint = "ask the holder of the prefix for a ROA, or announce what it allows"
            message = f"{prefix} from AS {bgp.asn} is invalid by {file.name}: {state.why}"
            yield Finding(where, message, hint, is_warning=not bgp.roa.strict)
        elif state.word == "unknown":
            message = f"no ROA in {file.name} covers {prefix}"
            yield Finding(where, message, "ask its holder for one", is_warning=True)


def _usable(site: Site, path: KeyPath, address: Address) -> Iterator[Finding]:
    """An address of a router or of this node, reached without our translation."""
    if scope := bad_scope(host_prefix(address)):
        yield Finding(path, f"{address} is {scope}", "write a global or private address of the link")
    for network in readable(site.network, "prefix"):
        if network.prefix.version == address.version and address in network.prefix:
            message = f"{address} is in Global Network {network.prefix} ({site.where(network)})"
            yield Finding(path, message, "a session needs an address that this node does not translate")


CHECKS: dict[str, list[Check]] = {
    "bgp": [
        role, numbers, identifier, local, times, neighbors, attributes, lengths, unheard, origins,
    ],
}  # fmt: skip
