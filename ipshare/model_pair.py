"""The nouns of a redundant pair, as frozen values seen from one of its two nodes (SYSTEMS.md S2).

A site file describes both nodes; ``[node].name`` says which half this is: "local" is that node's, "remote"
the other's. Pure: no I/O; the key is read by the agent, from ``key_file``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

FLOOR_S, JITTER_S, CLOCK_ERROR = 0.020, 0.004, 0.001
"""What the engine allows for: the least dead time on this kind of machine, lateness of either node, both
clocks' error. Source: native/rt/rt_times.c."""


def lease_of(dead_s: float) -> float:
    """The lease that a dead time leaves room for."""
    return dead_s - 2 * JITTER_S - dead_s * CLOCK_ERROR


class PairMode(StrEnum):
    """Who speaks (S3.2): the active by itself, or only when the standby asks."""

    HEARTBEAT = "heartbeat"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class PairPath:
    """One way between the two nodes, over UDP."""

    local: IPv4Address | IPv6Address
    local_port: int
    remote: IPv4Address | IPv6Address
    remote_port: int

    def __str__(self) -> str:
        return f"{_joined(self.local, self.local_port)} - {_joined(self.remote, self.remote_port)}"


@dataclass(frozen=True, slots=True)
class Vip:
    """A private VIP: the active node answers for it on an interface; it is configured nowhere (S2.3)."""

    address: IPv4Address | IPv6Address
    interface: str


@dataclass(frozen=True, slots=True)
class Witness:
    """A third voter, asked over UDP: a third machine, or a process beside the engine that asks etcd."""

    kind: str  # "node" or "etcd"
    address: IPv4Address | IPv6Address
    port: int
    key_file: Path
    ttl_s: float  # how long a grant lasts
    endpoints: tuple[str, ...] = ()  # of etcd
    prefix: str = ""  # of the keys in etcd
    ca_file: Path | None = None
    cert_file: Path | None = None
    cert_key_file: Path | None = None

    def __str__(self) -> str:
        return _joined(self.address, self.port)


@dataclass(frozen=True, slots=True)
class Criterion:
    """What an active node should reach (S2.6). ``kind``: link, neighbour or echo; a link has no address."""

    kind: str
    interface: str
    address: IPv4Address | IPv6Address | None
    interval_s: float
    misses: int

    def __str__(self) -> str:
        return f"{self.kind} {self.interface}" + (f" {self.address}" if self.address else "")


@dataclass(frozen=True, slots=True)
class PublicPrefix:
    """On-link public addresses that the active node answers for and announces (S3.9)."""

    prefix: IPv4Network | IPv6Network
    interface: str


@dataclass(frozen=True, slots=True)
class PairRoute:
    """A route of the private network that leads to the active node (S3.3); seen from this one."""

    kind: str  # "linux" or "command"
    prefix: IPv4Network | IPv6Network
    via: IPv4Address | IPv6Address  # this node
    interface: str | None = None
    namespace: str | None = None
    table: int | None = None
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PairPort:
    """A sub-interface with a workload's MAC address: up on the active node, down on the other (S3.4).
    ``parent`` None: an interface of VPP, made as such."""

    name: str
    parent: str | None
    mac: str


PARTS = ("node", "paths", "interval", "misses", "mode", "preempt", "vip", "public", "witness")
"""Keys of [pair] that have to be equal at both nodes; in this order the engines know them by number."""


@dataclass(frozen=True, slots=True)
class Pair:
    """This node's half of a pair. Ids are 1 and 2, in the order of the file; node 1 is the preferred one."""

    node: str
    peer: str
    node_id: int
    key_file: Path
    interval_s: float  # between two heartbeats or queries
    misses: int  # missed in a row: the peer is gone
    mode: PairMode
    preempt: bool  # the preferred node becomes active again when it can
    hook: Path | None  # called at every change of state
    paths: tuple[PairPath, ...]
    vips: tuple[Vip, ...]
    witness: Witness | None = None
    criteria: tuple[Criterion, ...] = ()
    criteria_needed: int = 0
    publics: tuple[PublicPrefix, ...] = ()
    routes: tuple[PairRoute, ...] = ()
    ports: tuple[PairPort, ...] = ()

    @property
    def peer_id(self) -> int:
        return 3 - self.node_id

    @property
    def is_preferred(self) -> bool:
        return self.node_id == 1

    @property
    def dead_s(self) -> float:
        """Silence after which the peer is taken for dead: as configured, but no less than FLOOR_S."""
        return max(self.misses * self.interval_s, FLOOR_S)

    @property
    def lease_s(self) -> float:
        """How long this node may forward after it last spoke."""
        return lease_of(self.dead_s)

    @property
    def parts(self) -> dict[str, int]:
        """What has to be equal at both nodes, each by a name of PARTS, and 64 bits of it. Not the key, which
        proves itself, nor hook and interfaces, which may differ."""
        ends = [(_joined(p.local, p.local_port), _joined(p.remote, p.remote_port)) for p in self.paths]
        in_order = ends if self.is_preferred else [(theirs, ours) for ours, theirs in ends]
        names = (self.node, self.peer) if self.is_preferred else (self.peer, self.node)
        witness = self.witness and (self.witness.kind, self.witness.ttl_s, self.witness.prefix)
        said: tuple[object, ...] = (
            names, in_order, self.interval_s, self.misses, self.mode.value, self.preempt,
            sorted(str(vip.address) for vip in self.vips), sorted(str(one.prefix) for one in self.publics),
            witness,
        )  # fmt: skip
        return {name: _digest(what) for name, what in zip(PARTS, said, strict=True)}

    @property
    def digest(self) -> int:
        """64 bits of all ``parts``."""
        return _digest(self.parts)


def _digest(what: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=8).digest(), "big")


def _joined(address: IPv4Address | IPv6Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
