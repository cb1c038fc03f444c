"""A network of namespaces as a value: nodes, cables, and what each node's kernel is told.

Pure. `build` in lab/build.py makes it real. What a node is told is a list of the same actions that the
routing recipes use (ipshare.net.actions); devices of a link are named after the node at its other end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ipshare.lab.impair import Impairment
from ipshare.net.actions import Action


@dataclass(frozen=True, slots=True)
class Link:
    """A cable between two nodes. `impair` puts the relay between its ends (its settings can change later)."""

    a: str
    b: str
    mtu: int = 1500
    impair: Impairment | None = None

    @property
    def name(self) -> str:
        """``a-b``, as limits and impairments are addressed."""
        return f"{self.a}-{self.b}"


@dataclass(frozen=True, slots=True)
class Bridge:
    """A switch inside a node; `ports` are devices of its links. It has no name on the outside."""

    device: str
    ports: tuple[str, ...]


Table = Literal["service", "delivery"]


@dataclass(frozen=True, slots=True)
class Port:
    """An interface of a node's VPP. host: the Linux device below it; None: a loopback."""

    name: str
    host: str | None
    mtu: int
    addresses: tuple[str, ...] = ()
    table: Table = "service"
    bridge: str | None = None
    mac: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A route of a node's VPP; without `via` the destinations are on the port's link."""

    prefix: str
    port: str
    via: str | None = None
    table: Table = "service"


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A neighbour that a node's VPP need not ask for."""

    port: str
    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class Vpp:
    """What the VPP of a node is told, in place of its kernel. bvis: bridge -> its loopback. delivery_table: 0
    where one table is enough."""

    ports: tuple[Port, ...]
    routes: tuple[Route, ...]
    bvis: Mapping[str, str] = field(default_factory=dict)
    neighbors: tuple[Neighbor, ...] = ()
    delivery_table: int = 0

    @property
    def hosts(self) -> tuple[str, ...]:
        """Linux devices that VPP opens."""
        return tuple(port.host for port in self.ports if port.host is not None)


@dataclass(frozen=True, slots=True)
class Pair:
    """A veth with both ends in one node."""

    device: str
    peer: str
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class Node:
    """A namespace. roles: "client", "router", "server", "distribution", "endpoint"; several are possible.
    With `vpp`, actions are for what is left to the kernel there."""

    name: str
    roles: tuple[str, ...]
    bridges: tuple[Bridge, ...] = ()
    actions: tuple[Action, ...] = ()
    pairs: tuple[Pair, ...] = ()
    vpp: Vpp | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """Nodes by name, and links."""

    nodes: Mapping[str, Node] = field(default_factory=dict)
    links: tuple[Link, ...] = ()

    def links_of(self, node: str) -> list[Link]:
        """Links with an end at the node."""
        return [link for link in self.links if node in (link.a, link.b)]

    def link(self, name: str) -> Link:
        """The link ``a-b`` (either order). Raises KeyError."""
        for link in self.links:
            if name in (link.name, f"{link.b}-{link.a}"):
                return link
        raise KeyError(name)
