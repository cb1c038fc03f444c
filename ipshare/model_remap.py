"""The nouns of remaps: channels to other end points, and bindings that a remap has moved (SYSTEMS.md S4).

A site file describes both ends of a channel; the node's own end point says which of them is "local". A
``Move`` is what a remap leaves behind until the file says the same (docs/remap.md). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from ipshare.model_pair import PairPath

Prefix = IPv4Network | IPv6Network
SLOTS = 64
"""Remaps that a node can have at once: so many UDP ports in a row has each end of a path."""
OVERHEAD = {"ipip": 0, "gue": 12, "rewrite": 0}
"""Bytes of a channel's packet besides the outer header: UDP and GUE with its option."""


@dataclass(frozen=True, slots=True)
class Channel:
    """This node's end of a channel: ``local`` is here, ``remote`` at end point ``peer``.

    ``local``, ``remote``: kind ipip two addresses each, of FINAL and of ASK; gue one; rewrite two prefixes,
    which remaps share out among themselves. ``paths``: of the mirror. ``mtu``: bytes of the largest packet
    between the nodes, outer header included.
    """

    name: str
    peer: str
    kind: str  # ipip, gue, rewrite
    local: tuple[Prefix, ...]
    remote: tuple[Prefix, ...]
    gue_port: int
    mtu: int
    paths: tuple[PairPath, ...]
    key_file: Path

    @property
    def family(self) -> int:
        """Of the channel's own packets."""
        return self.local[0].version

    @property
    def room(self) -> int:
        """Bytes of the largest packet that fits into it."""
        if self.kind == "rewrite":
            return self.mtu
        return self.mtu - (20 if self.family == 4 else 40) - OVERHEAD[self.kind]

    def carries(self, prefix: Prefix) -> bool:
        """Whether a remap of ``prefix`` can have this channel: re-addressing needs a prefix as long."""
        if self.kind != "rewrite":
            return True
        return prefix.version == self.family and self.local[0].prefixlen <= prefix.prefixlen

    def slots(self, prefix: Prefix) -> int:
        """How many remaps of prefixes as long can share it; each has a part of it for itself."""
        if self.kind != "rewrite":
            return SLOTS
        return min(SLOTS, 1 << max(0, prefix.prefixlen - self.local[0].prefixlen))

    def paths_of(self, slot: int) -> tuple[PairPath, ...]:
        """The mirror's, of the remap that has that part: ports of its own."""
        return tuple(
            PairPath(path.local, path.local_port + slot, path.remote, path.remote_port + slot)
            for path in self.paths
        )


@dataclass(frozen=True, slots=True)
class Move:
    """``prefix`` went from end point ``was`` to ``to``, by a remap, whatever the file says."""

    prefix: Prefix
    was: str
    to: str
