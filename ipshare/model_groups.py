"""The nouns of groups (SYSTEMS.md S5): members that talk to each other by address, wherever they are now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from ipshare.model_place import Place

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A member. ``addresses``: what its peers call it, at most one of each family. ``now``: what has become
    of some of them; a family that is missing there has not changed. ``also``: understood, but not used.
    ``at``: the end point next to it."""

    name: str
    addresses: tuple[Address, ...]
    now: tuple[Address, ...]
    also: tuple[Address, ...]
    at: str
    place: Place = field(compare=False)

    def peers(self, is_here: bool) -> Iterator[Peer]:
        for address in self.addresses:
            family = address.version
            yield Peer(address, next((a for a in self.now if a.version == family), address), is_here)
            yield from (Peer(address, a, is_here, True) for a in self.also if a.version == family)


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
        peers = [peer for member in self.members for peer in member.peers(member.at == endpoint)]
        moved = {peer.address.version for peer in peers if peer.has_moved}
        return tuple(peer for peer in peers if peer.address.version in moved)


@dataclass(frozen=True, slots=True)
class Peer:
    """An address of a member: what its peers call it, where it is now, and whether it is next to us.
    ``also``: ``now`` is understood, but another one is used."""

    address: Address
    now: Address
    is_here: bool
    also: bool = False

    @property
    def has_moved(self) -> bool:
        return self.now != self.address
