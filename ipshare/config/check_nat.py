"""Checks of `[[nat]]`: pools that nothing else claims, insides that have a pool, devices that exist once.

Every NAT is judged beside the ones before it, so that an overlap is said once. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import takewhile

from ipshare.config import schema
from ipshare.config.check_vpp import known_port
from ipshare.config.checks import Check, Finding, is_vpp, unique_name
from ipshare.config.keys import KeyPath
from ipshare.config.resolve import readable
from ipshare.config.site import Site
from ipshare.config.units import Invalid, bad_scope, device
from ipshare.model import AddressRange, Prefix, host_prefix

MAX_POOLS, MAX_INSIDES = 64, 256
MAX_ADDRESSES = 65_536
LEAVE_ONE = "an address is translated by one NAT alone: leave it out of one of them"


def _before(site: Site, nat: schema.Nat, *fields: str) -> Iterable[schema.Nat]:
    return readable(takewhile(lambda other: other is not nat, site.nat), *fields)


def some(site: Site, nat: schema.Nat) -> Iterator[Finding]:
    """Lists that must not be empty."""
    for key, hint in (
        ("inside", "write the prefixes whose sources are translated"),
        ("addresses", "write the public addresses that they get"),
        ("interfaces", "write the devices that they come in by"),
    ):
        if key not in nat._broken and not getattr(nat, key):
            yield Finding((*nat._path, key), f"{key} is empty: nothing would be translated", hint)


def insides(site: Site, nat: schema.Nat) -> Iterator[Finding]:
    seen = {prefix: other for other in _before(site, nat, "inside") for prefix in other.inside}
    for index, prefix in enumerate(nat.inside):
        path = (*nat._path, "inside", index)
        if scope := bad_scope(prefix):
            if prefix.prefixlen:
                yield Finding(path, f"{prefix} is {scope}: it is never translated", "leave it out")
            else:
                hint = "write the prefixes that are inside, and no more"
                yield Finding(path, f"{prefix} makes everything inside", hint)
            continue
        if prefix in seen:
            message = f"{prefix} is inside of the NAT at {site.where(seen[prefix])} already"
            yield Finding(path, message, LEAVE_ONE)
        for network in readable(site.network, "prefix"):
            if network.prefix.version == prefix.version and network.prefix.overlaps(prefix):
                message = f"{prefix} overlaps Global Network {network.prefix} ({site.where(network)})"
                hint = "Global IPs are reached without NAT: take other addresses inside"
                yield Finding(path, message, hint)
        seen[prefix] = nat


def has_pool(site: Site, nat: schema.Nat) -> Iterator[Finding]:
    """Every family inside has addresses outside."""
    have = {pool.first.version for pool in nat.addresses}
    if not have:
        return  # said by some
    for index, prefix in enumerate(nat.inside):
        if prefix.version not in have:
            message = f"{prefix} is IPv{prefix.version}, and this NAT has no IPv{prefix.version} address"
            yield Finding((*nat._path, "inside", index), message, "add one to addresses, or leave it out")
    for index, pool in enumerate(nat.addresses):
        if nat.inside and pool.first.version not in {prefix.version for prefix in nat.inside}:
            message = f"{pool} is IPv{pool.first.version}, and nothing inside of this NAT is"
            path = (*nat._path, "addresses", index)
            yield Finding(path, message, "add a prefix to inside, or leave it out", is_warning=True)


def pools(site: Site, nat: schema.Nat) -> Iterator[Finding]:
    seen = [(pool, other) for other in _before(site, nat, "addresses") for pool in other.addresses]
    for index, pool in enumerate(nat.addresses):
        path = (*nat._path, "addresses", index)
        if pool.count > MAX_ADDRESSES:
            message = f"{pool} has {pool.count:,} addresses: a range has at most {MAX_ADDRESSES:,}"
            yield Finding(path, message, "a few addresses are enough: each has 64,512 ports")
            continue
        scopes = [scope for prefix in pool.prefixes if (scope := bad_scope(prefix))]
        if scopes:
            yield Finding(path, f"{pool} is {scopes[0]}: no public address", "use addresses that are yours")
        for other, owner in seen:
            if any(other.overlaps(prefix) for prefix in pool.prefixes):
                message = f"{pool} overlaps {other} ({site.where(owner)})"
                yield Finding(path, message, LEAVE_ONE)
                break
        yield from _claimed(site, path, pool)
        seen.append((pool, nat))


def _claimed(site: Site, path: KeyPath, pool: AddressRange) -> Iterator[Finding]:
    """What else packets to a pool's address would meet."""
    for prefix, what, hint in _claims(site):
        if pool.overlaps(prefix):
            yield Finding(path, f"{pool} overlaps {what}", hint)


def _claims(site: Site) -> Iterator[tuple[Prefix, str, str]]:
    for nat in readable(site.nat, "inside"):
        for prefix in (prefix for prefix in nat.inside if prefix.prefixlen):
            hint = "what is inside is translated, what is in a pool is what it becomes"
            yield prefix, f"inside {prefix} ({site.where(nat)})", hint
    for network in readable(site.network, "prefix"):
        hint = "packets to a Global IP go to its binding: give the pool addresses of its own"
        yield network.prefix, f"Global Network {network.prefix} ({site.where(network)})", hint
    for endpoint in readable(site.endpoint, "local"):
        for prefix in endpoint.local:
            hint = "packets to a local address are those of a binding: give the pool addresses of its own"
            yield prefix, f"local network {prefix} ({site.where(endpoint)})", hint
    own = "an address that this node has all the time is its own: leave it out of the pool"
    for source in [] if "icmp_source" in site.node._broken else site.node.icmp_source:
        yield host_prefix(source), f"{source}, an icmp_source of this node", own
    for port in readable(site.interface, "addresses") if is_vpp(site) else ():
        for had in port.addresses:
            yield host_prefix(had.ip), f"{had.ip}, an address of {port.name}", own
    if site.pair is not None and "node" not in site.pair._broken:
        for node in readable(site.pair.node, "paths"):
            for address, _ in node.paths:
                yield host_prefix(address), f"{address}, the end of a path of the pair", own


def port_range(site: Site, nat: schema.Nat) -> Iterator[Finding]:
    if len(nat.ports) != 2:
        message = f"ports has {len(nat.ports)} numbers: first and last are wanted"
        yield Finding((*nat._path, "ports"), message, "write ports = [1024, 65535]")
    elif nat.ports[0] > nat.ports[1]:
        message = f"ports ends ({nat.ports[1]}) before it begins ({nat.ports[0]})"
        yield Finding((*nat._path, "ports"), message, f"write ports = [{nat.ports[1]}, {nat.ports[0]}]")


def one_filtering(site: Site, nat: schema.Nat) -> Iterator[Finding]:
    for other in _before(site, nat, "filtering"):
        if other.filtering != nat.filtering:
            message = f"filtering is {nat.filtering!r}, and {other.filtering!r} at {site.where(other)}"
            hint = "an engine has one for all its pools: write the same in every [[nat]]"
            yield Finding((*nat._path, "filtering"), message, hint)
            return


def interfaces(site: Site, nat: schema.Nat) -> Iterator[Finding]:
    ours = {
        getattr(site.engine, key): f"the engine's own {key}"
        for key in ("outer_device", "inner_device")
        if key not in site.engine._broken
    }
    outside = [] if "outside" in site.node._broken else site.node.outside
    taken = {**dict.fromkeys(outside, "in [node].outside: nothing inside comes in by it"), **ours}
    seen: set[str] = set()
    for index, name in enumerate(nat.interfaces):
        path = (*nat._path, "interfaces", index)
        if name in taken:
            yield Finding(path, f"{name!r} is {taken[name]}", "name the device towards the inside")
        elif name in seen:
            yield Finding(path, f"{name!r} is named twice", "list every device once")
        elif is_vpp(site):
            yield from known_port(site, path, name)
        else:
            yield from _is_device(path, name)
        seen.add(name)


def _is_device(path: KeyPath, name: str) -> Iterator[Finding]:
    try:
        device(name)
    except Invalid as wrong:
        yield Finding(path, wrong.message, wrong.hint)


def totals(site: Site, nat: schema.Nat) -> Iterator[Finding]:
    """Said at the NAT with which it becomes too much."""
    for key, words, most in (("addresses", "ranges", MAX_POOLS), ("inside", "inside prefixes", MAX_INSIDES)):
        before = sum(len(getattr(other, key)) for other in _before(site, nat, key))
        count = before + (0 if key in nat._broken else len(getattr(nat, key)))
        if before <= most < count:
            message = f"{count} {words} in all [[nat]]: an engine has at most {most}"
            yield Finding((*nat._path, key), message, "join neighbouring ones")
    sessions = site.sessions if site.sessions is not None else schema.Sessions()
    before = sum(pool.count for other in _before(site, nat, "addresses") for pool in other.addresses)
    count = before + sum(pool.count for pool in nat.addresses)
    if before <= sessions.addresses < count and all(p.count <= MAX_ADDRESSES for p in nat.addresses):
        message = f"{count:,} public addresses: [sessions] has room for {sessions.addresses:,}"
        yield Finding((*nat._path, "addresses"), message, f"write addresses = {count} or more in [sessions]")


CHECKS: dict[str, list[Check]] = {
    "nat": [
        unique_name,
        some,
        insides,
        has_pool,
        pools,
        port_range,
        one_filtering,
        interfaces,
        totals,
    ],
}
