"""A network of namespaces as a value: nodes, cables, and what each node's kernel is told.

Pure. `build` in lab/build.py makes it real. What a node is told is a list of the same actions that the
routing recipes use (ipshare.net.actions); devices of a link are named after the node at its other end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True)
class Node:
    """A namespace. roles: "client", "router", "server", "distribution", "endpoint"; several are possible."""

    name: str
    roles: tuple[str, ...]
    bridges: tuple[Bridge, ...] = ()
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class Topology:
    """Nodes by name, and links."""

    nodes: Mapping[str, Node] = field(default_factory=dict)
    links: tuple[Link, ...] = ()

    def link(self, name: str) -> Link:
        """The link ``a-b`` (either order). Raises KeyError."""
        for link in self.links:
            if name in (link.name, f"{link.b}-{link.a}"):
                return link
        raise KeyError(name)
