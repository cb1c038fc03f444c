"""The nouns of groups (SYSTEMS.md S5): members that talk to each other by address, wherever they are now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipshare.model import Place

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A member. ``addresses``: what its peers call it, at most one of each family. ``now``: what has become
    of some of them; a family that is missing there has not changed. ``at``: the end point next to it."""

    name: str
    addresses: tuple[Address, ...]
    now: tuple[Address, ...]
    at: str
    place: Place = field(compare=False)

    def names(self) -> Iterator[tuple[Address, Address]]:
        """(what its peers call it, where it is), for each family; the same twice where nothing changed."""
        for address in self.addresses:
            yield address, next((a for a in self.now if a.version == address.version), address)


@dataclass(frozen=True, slots=True)
class Group:
    """Members that keep talking to each other when an address of one of them changes."""

    name: str
    members: tuple[GroupMember, ...]
    place: Place = field(compare=False)

    def peers(self, endpoint: str | None) -> tuple[Peer, ...]:
        """What a node that is ``endpoint`` has to translate: nothing, unless a member is next to it and in
        that family something has moved."""
        if all(member.at != endpoint for member in self.members):
            return ()
        all_names = [
            Peer(address, now, member.at == endpoint)
            for member in self.members
            for address, now in member.names()
        ]
        moved = {peer.address.version for peer in all_names if peer.has_moved}
        return tuple(peer for peer in all_names if peer.address.version in moved)


@dataclass(frozen=True, slots=True)
class Peer:
    """An address of a member: what its peers call it, where it is now, and whether it is next to us."""

    address: Address
    now: Address
    is_here: bool

    @property
    def has_moved(self) -> bool:
        return self.now != self.address
