"""The recipe of groups: what a member next to this node says to one elsewhere, and back, goes into the
engine (SYSTEMS.md S5).

    service table: what members elsewhere were called, and what those here are called now
    p+4   from ADDRESS lookup group_table              what members here were called, those elsewhere are now
    p+4   to ADDRESS ipproto icmp lookup group_table   errors by routers, to members that did not move

In that table are the members that did not move: what else a moved member says is none of ours. Whatever goes
into the engine and is no traffic of a group comes out as it was. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ipshare.model import Address, Peer, host_prefix
from ipshare.net.actions import RuleAdd

ICMP = {4: 1, 6: 58}


@dataclass(frozen=True, slots=True)
class PeerRoutes:
    """Addresses of groups' members. ``diverted``: packets to them go into the engine; ``still``: of members
    that did not move; ``sources``: packets from them to those go into the engine."""

    diverted: tuple[Address, ...] = ()
    still: tuple[Address, ...] = ()
    sources: tuple[Address, ...] = ()

    @property
    def addresses(self) -> tuple[Address, ...]:
        return (*self.diverted, *self.still, *self.sources)


def peer_routes(peers: Iterable[Peer]) -> PeerRoutes:
    """What a node needs for these peers."""
    told = tuple(peers)
    moved = [peer for peer in told if peer.has_moved]
    used = [peer for peer in moved if not peer.also]
    return PeerRoutes(
        diverted=(
            *(peer.address for peer in used if not peer.is_here),
            *(peer.now for peer in moved if peer.is_here),
        ),
        still=tuple(peer.address for peer in told if not peer.has_moved),
        sources=(
            *(peer.address for peer in used if peer.is_here),
            *(peer.now for peer in moved if not peer.is_here),
        ),
    )


def peer_rules(family: int, priority: int, table: int, routes: PeerRoutes) -> Iterator[RuleAdd]:
    if not any(address.version == family for address in routes.still):
        return
    for address in routes.sources:
        if address.version == family:
            yield RuleAdd(family, priority, source=str(host_prefix(address)), table=table)
    for address in routes.still:
        if address.version == family:
            to = str(host_prefix(address))
            yield RuleAdd(family, priority, destination=to, protocol=ICMP[family], table=table)
