"""Checks of `[[group]]`: every address belongs to one member, and nothing else translates it.

An address that is wrong twice is said at the later one. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from ipshare.config import schema
from ipshare.config.checks import Check, Finding, unique_name, unknown_name
from ipshare.config.keys import KeyPath
from ipshare.config.resolve import own_name, readable
from ipshare.config.site import Site
from ipshare.config.units import bad_scope
from ipshare.model import Address, Prefix, host_prefix

MAX_NAMES = 65_535


@dataclass(frozen=True, slots=True)
class _Name:
    """An address of a member, and where that is written."""

    address: Address
    path: KeyPath
    member: KeyPath
    is_later: bool


def _members(group: schema.Group) -> Iterator[tuple[KeyPath, schema.GroupMember]]:
    for index, member in enumerate(group.member):
        yield (*group._path, "member", index), member


def _names_of(path: KeyPath, member: schema.GroupMember) -> Iterator[_Name]:
    for key in ("address", "now", "also"):
        for index, address in enumerate(getattr(member, key)):
            yield _Name(address, (*path, key, index), path, key != "address")


def _names(group: schema.Group) -> Iterator[_Name]:
    for path, member in _members(group):
        yield from _names_of(path, member)


def members(site: Site, group: schema.Group) -> Iterator[Finding]:
    """Each has a name of its own, an address, and an end point next to it."""
    if not group.member:
        path = (*group._path, "member")
        yield Finding(path, f"group {group.name!r} has no member", "write [[group.member]]")
    seen: dict[str, KeyPath] = {}
    for path, member in _members(group):
        if member.name in seen:
            where = site.document.place(seen[member.name])
            message = f"the name {member.name!r} is taken by the member at {where}"
            yield Finding((*path, "name"), message, "give every member a name of its own")
        seen.setdefault(member.name, path)
        yield from unknown_name(site, "endpoint", (*path, "at"), member.at, "end point")
        if not member.address:
            yield Finding((*path, "address"), "no address", "write what its peers call it")


def families(site: Site, group: schema.Group) -> Iterator[Finding]:
    """One address of each family, and no move from one family to another."""
    for path, member in _members(group):
        for key in ("address", "now"):
            addresses = getattr(member, key)
            for index, address in enumerate(addresses):
                if address.version in {other.version for other in addresses[:index]}:
                    hint = "at most one of each family: a member with two is two members"
                    message = f"a second IPv{address.version} address"
                    yield Finding((*path, key, index), message, hint)
        have = {address.version for address in member.address}
        for name in _names_of(path, member):
            if member.address and name.address.version not in have:
                message = (
                    f"{name.address} is IPv{name.address.version}, and its peers know no such address of it"
                )
                hint = "an address moves within its family: nothing translates between IPv4 and IPv6"
                yield Finding(name.path, message, hint)


def scopes(site: Site, group: schema.Group) -> Iterator[Finding]:
    for name in _names(group):
        if scope := bad_scope(host_prefix(name.address)):
            yield Finding(name.path, f"{name.address} is {scope}: no member can have it", "leave it out")


def once(site: Site, group: schema.Group) -> Iterator[Finding]:
    """No address twice: not within a group, not in two, not as what one was called and another one is."""
    before = takewhile(lambda other: other is not group, site.group)
    seen = {name.address: name for other in readable(before, "member") for name in _names(other)}
    for name in _names(group):
        first = seen.setdefault(name.address, name)
        if first is name:
            continue
        if name.is_later and first.member == name.member:
            message, hint = f"{name.address} is an address of its already", "leave it out"
        else:
            message = f"{name.address} is a member's already ({site.document.place(first.path)})"
            hint = "an address belongs to one member of one group, now and before"
        yield Finding(name.path, message, hint)


def apart(site: Site, group: schema.Group) -> Iterator[Finding]:
    """What something else translates is no address of a member."""
    claims = list(_claims(site))
    for name in _names(group):
        for prefix, what, hint in claims:
            if prefix.version == name.address.version and name.address in prefix:
                yield Finding(name.path, f"{name.address} is in {what}", hint)


def _claims(site: Site) -> Iterator[tuple[Prefix, str, str]]:
    for network in readable(site.network, "prefix"):
        hint = "a Global IP keeps its address wherever it is served: it needs no group"
        yield network.prefix, f"Global Network {network.prefix} ({site.where(network)})", hint
    for nat in readable(site.nat, "addresses"):
        for pool in nat.addresses:
            for prefix in pool.prefixes:
                hint = "an address of a NAT belongs to no single member"
                yield prefix, f"{pool} of the NAT at {site.where(nat)}", hint
    own = own_name(site, "endpoint")
    for endpoint in readable(site.endpoint, "name", "local"):
        if endpoint.name == own:
            for prefix in endpoint.local:
                hint = "what is sent to a local network becomes a Global IP: give members other addresses"
                yield prefix, f"local network {prefix} of {endpoint.name!r} ({site.where(endpoint)})", hint


def total(site: Site, group: schema.Group) -> Iterator[Finding]:
    """Said at the group with which it becomes too much."""
    before = 0
    for other in readable(site.group, "member"):
        count = before + sum(len(member.address) + len(member.also) for member in other.member)
        if other is group and before <= MAX_NAMES < count:
            message = f"{count:,} addresses of members: an engine takes {MAX_NAMES:,}"
            yield Finding((*group._path, "member"), message, "leave groups out whose members are elsewhere")
        before = count


CHECKS: dict[str, list[Check]] = {
    "group": [unique_name, members, families, scopes, once, apart, total],
}
