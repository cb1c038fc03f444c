"""The nouns of clusters (SYSTEMS.md S2.1, S2.4, S2.5): one address, several servers on one subnet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from ipshare.model_place import Place

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class ClusterServer:
    """A server. ``addresses``: its own, at most one of each family; it answers there to probes, and holds the
    cluster's address beside them."""

    name: str
    addresses: tuple[Address, ...]
    weight: int
    drain: bool
    place: Place = field(compare=False)

    def __str__(self) -> str:
        where = " ".join(map(str, self.addresses))
        return f"{self.name} {where} weight {self.weight}" + (" drained" if self.drain else "")


@dataclass(frozen=True, slots=True)
class ClusterProbe:
    """How servers are looked after. ``fall``, ``rise``: probes in a row that make one failed, or up again."""

    kind: str  # "tcp", "http" or "icmp"
    port: int
    path: str
    interval_s: float
    timeout_s: float
    fall: int
    rise: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """One public address (of each family) and the servers behind it. ``by``: what counts beside the weights:
    "active", "new", "response". ``least``: part of its weight that the worst live server keeps."""

    name: str
    addresses: tuple[Address, ...]
    subnets: tuple[Prefix, ...]
    interface: str
    by: tuple[str, ...]
    slow_start_s: float
    least: float
    routers: tuple[Address, ...]
    servers: tuple[ClusterServer, ...]
    probe: ClusterProbe
    place: Place = field(compare=False)

    def halves(self) -> Iterator[tuple[Address, tuple[tuple[ClusterServer, Address], ...]]]:
        """The address of each family, with the servers that have one too."""
        for address in self.addresses:
            servers = ((s, a) for s in self.servers for a in s.addresses if a.version == address.version)
            yield address, tuple(servers)
