"""The nouns of ipshare: what a configuration says, as frozen values.

TOML text -> ipshare.config -> Config -> engine tables, routes, probes. Everything here is resolved
and checked (defaults filled in, names exist, families fit); readers need no second look at the file.
Pure: no I/O, no clock, and NumPy only as a type (a bulk BindingSet brings its own array).

Prefixes and addresses are the standard library's; `packed` gives the form of the C core's records:
16 bytes, big-endian, IPv4 in the first four and the rest zero (native/ips_api.h).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipshare.model_bgp import Bgp as Bgp
from ipshare.model_bgp import BgpNeighbor as BgpNeighbor
from ipshare.model_clusters import Cluster as Cluster
from ipshare.model_clusters import ClusterProbe as ClusterProbe
from ipshare.model_clusters import ClusterServer as ClusterServer
from ipshare.model_flows import AddressRange as AddressRange
from ipshare.model_flows import Commit as Commit
from ipshare.model_flows import Database as Database
from ipshare.model_flows import Filtering as Filtering
from ipshare.model_flows import Mirror as Mirror
from ipshare.model_flows import MirrorPeer as MirrorPeer
from ipshare.model_flows import Nat as Nat
from ipshare.model_flows import Sessions as Sessions
from ipshare.model_flows import SessionTimeouts as SessionTimeouts
from ipshare.model_flows import Tracking as Tracking
from ipshare.model_groups import Group as Group
from ipshare.model_groups import GroupMember as GroupMember
from ipshare.model_groups import Peer as Peer
from ipshare.model_metal import Card as Card
from ipshare.model_metal import Hugepages as Hugepages
from ipshare.model_metal import Metal as Metal
from ipshare.model_migration import Migrating as Migrating
from ipshare.model_migration import Redirect as Redirect
from ipshare.model_natlog import Lease as Lease
from ipshare.model_natlog import NatCollector as NatCollector
from ipshare.model_natlog import NatLog as NatLog
from ipshare.model_pair import Criterion as Criterion
from ipshare.model_pair import Pair as Pair
from ipshare.model_pair import PairMode as PairMode
from ipshare.model_pair import PairPath as PairPath
from ipshare.model_pair import PairPort as PairPort
from ipshare.model_pair import PairRoute as PairRoute
from ipshare.model_pair import PublicPrefix as PublicPrefix
from ipshare.model_pair import Vip as Vip
from ipshare.model_pair import Witness as Witness
from ipshare.model_place import Place as Place
from ipshare.model_remap import Channel as Channel
from ipshare.model_remap import Move as Move
from ipshare.model_remote import Remote as Remote
from ipshare.model_workload import Workload as Workload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network


def packed(address: Address) -> bytes:
    """The address as the core's 16 bytes: big-endian, IPv4 in the first four, rest zero."""
    return address.packed.ljust(16, b"\0")


def packed_offset(offset: int, family: int) -> bytes:
    """A host offset in the same form: for family 4 a 32-bit big-endian number in the first four bytes.

    Raises OverflowError if it does not fit into an address of the family.
    """
    return offset.to_bytes(4 if family == 4 else 16, "big").ljust(16, b"\0")


def unpacked(data: bytes, family: int) -> Address:
    """The address in a record's 16 bytes."""
    return IPv4Address(data[:4]) if family == 4 else IPv6Address(data[:16])


def host_prefix(address: Address) -> Prefix:
    """The /32 or /128 that holds this address alone."""
    return IPv4Network(address) if isinstance(address, IPv4Address) else IPv6Network(address)


def contains(outer: Prefix, inner: Prefix) -> bool:
    """Whether every address of `inner` is in `outer`; False across families."""
    if outer.version != inner.version or inner.prefixlen < outer.prefixlen:
        return False
    return int(inner.network_address) >> _host_bits(outer) == int(outer.network_address) >> _host_bits(outer)


def offset_in(outer: Prefix, inner: Prefix) -> int:
    """How many addresses `inner` starts after the first one of `outer`."""
    return int(inner.network_address) - int(outer.network_address)


def prefix_at(outer: Prefix, offset: int, prefix_len: int) -> Prefix | None:
    """The prefix of `prefix_len` bits that starts `offset` addresses into `outer`.

    None where it is not wholly inside, or where that start is not a boundary of the length.
    """
    size = 1 << (outer.max_prefixlen - prefix_len)
    start = int(outer.network_address) + offset
    if offset < 0 or offset + size > outer.num_addresses or start % size:
        return None
    if isinstance(outer, IPv4Network):
        return IPv4Network((start, prefix_len))
    return IPv6Network((start, prefix_len))


def _host_bits(prefix: Prefix) -> int:
    return prefix.max_prefixlen - prefix.prefixlen


class Unmatched(StrEnum):
    """What a packet to a Global Network gets where no binding covers it."""

    DROP = "drop"
    UNREACHABLE = "unreachable"
    PASS = "pass"


class PathKind(StrEnum):
    """How packets go from a distribution point to an end point (or back): rewritten or encapsulated."""

    REWRITE = "rewrite"
    IPIP = "ipip"
    GUE = "gue"


class Replies(StrEnum):
    """How replies leave an end point: untranslated, tunnelled to a distribution point, or rewritten."""

    DIRECT = "direct"
    TUNNEL = "tunnel"
    REWRITE = "rewrite"


class BindingKind(IntEnum):
    """Numbers are those of enum ips_kind (native/ips_api.h)."""

    NONE = 0
    ENDPOINT = 1
    POLICY = 2
    ADDRESS = 3
    HERE = 4
    DOWN = 5


@dataclass(frozen=True, slots=True)
class Node:
    """This node: where it keeps its files, what it is, how it speaks ICMP."""

    name: str
    runtime_dir: Path
    state_dir: Path
    icmp_source4: IPv4Address | None
    icmp_source6: IPv6Address | None
    icmp_rate: int  # ICMP errors per second and worker
    outside: tuple[str, ...]  # interfaces towards the Internet; empty: no check
    inside: tuple[str, ...]  # interfaces that may bring packets for inner translation; empty: no check
    endpoint: str | None  # the end point that this node is
    distribution: str | None  # the distribution point that this node is


@dataclass(frozen=True, slots=True)
class Engine:
    """The data path's process and what it occupies in the kernel (there: embedded engine only)."""

    kind: str
    workers: int  # VPP: worker threads beside the main thread
    outer_device: str
    inner_device: str
    counter_cells: int  # per-binding counters that can be told apart
    nice: int  # of all its threads, 0 to -20
    service_table: int  # routing table with our routes only, asked before the node's own
    reply_table: int  # routing table that takes replies into our devices
    nat_table: int  # routing table that takes what NAT translates into our devices
    group_table: int  # routing table that takes what groups' members say to each other into our devices
    rule_priority: int  # of the first `ip rule`; ten in a row are ours


class Lookup(StrEnum):
    """Which of VPP's two tables: where outside packets are looked up, or translated ones."""

    SERVICE = "service"
    DELIVERY = "delivery"


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of VPP and the state that it shall have."""

    name: str
    host: str | None  # Linux device that VPP opens
    table: Lookup
    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    mtu: int | None
    bridge: str | None
    is_up: bool
    mac: str | None
    linux_cp: str | None
    linux_cp_netns: str | None
    rx_mode: str | None
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge domain of VPP; bvi: the loopback through which VPP is in it."""

    name: str
    id: int
    bvi: str | None
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class Route:
    """A static route of VPP: at least one of via and interface."""

    prefix: Prefix
    via: Address | None
    interface: str | None
    table: Lookup
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A static neighbour of VPP."""

    interface: str
    address: Address
    mac: str
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class Vpp:
    """The VPP of a node: where it is, its two tables, and what it shall have besides them."""

    api_socket: Path
    stats_socket: Path
    managed: bool  # the agent starts it and ends it
    binary: Path | None
    plugin_path: Path | None
    service_table: int
    delivery_table: int
    heap_size: int  # bytes; this and the following: managed only
    statseg_size: int  # 0: what counter_cells need
    buffers: int
    poll_sleep_s: float
    metal: Metal
    interfaces: tuple[Interface, ...]
    bridges: tuple[Bridge, ...]
    routes: tuple[Route, ...]
    neighbors: tuple[Neighbor, ...]

    def table(self, lookup: Lookup) -> int:
        """Its number."""
        return self.delivery_table if lookup is Lookup.DELIVERY else self.service_table


@dataclass(frozen=True, slots=True)
class Network:
    """A Global Network."""

    name: str
    prefix: Prefix
    unmatched: Unmatched
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class PathMtu:
    """Bytes of the largest IP packet on a path, by the family of the packets that travel on it
    (encapsulated: of the outer packet)."""

    v4: int
    v6: int

    def of(self, family: int) -> int:
        return self.v4 if family == 4 else self.v6


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place where devices with Global IPs run."""

    name: str
    local: tuple[Prefix, ...]  # never overlapping; any number of either family
    path: PathKind
    tunnel4: IPv4Address | None
    tunnel6: IPv6Address | None
    gue_port: int
    path_mtu: PathMtu
    replies: Replies
    mss_clamp: bool
    next_hop4: IPv4Address | None  # towards it, with VPP
    next_hop6: IPv6Address | None
    is_self: bool
    place: Place = field(compare=False)

    @property
    def is_encapsulated(self) -> bool:
        return self.path is not PathKind.REWRITE


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution point: as this node, or as the peer of an end point (tunnel source, taker of
    replies).
    """

    name: str
    tunnel4: IPv4Address | None
    tunnel6: IPv6Address | None
    path: PathKind  # encapsulation of the replies sent to it: IPIP or GUE
    gue_port: int
    path_mtu: PathMtu
    weight: int  # share of the replies that it takes; 0: none
    is_self: bool
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class Member:
    """One end point's share in a policy."""

    endpoint: str
    weight: int


@dataclass(frozen=True, slots=True)
class Policy:
    """Several end points with weights behind one Global IP (S1.8)."""

    name: str
    members: tuple[Member, ...]
    client_bits4: int  # leading bits of the client's address that are hashed
    client_bits6: int
    place: Place = field(compare=False)
    drain_s: float = 0.0  # how long connections of clients that a change moved go on at their old end points
    previous: tuple[Member, ...] = ()  # as it was, while that lasts; no file says it (ipshare.engine.drained)


@dataclass(frozen=True, slots=True)
class Binding:
    """One global prefix and what stands behind it.

    `local` is resolved for kinds ENDPOINT (inside one of the end point's local prefixes) and ADDRESS
    (anywhere else), of the same length and family as `prefix`. It is None where the packet keeps its
    destination: kinds POLICY, HERE, DOWN, and ENDPOINT behind an encapsulated path without `local`. `offset`
    is how far `prefix` starts into its Global Network: what POLICY adds to each member's local prefix.
    """

    prefix: Prefix
    kind: BindingKind
    target: str | None  # end point or policy
    local: Prefix | None
    offset: int
    copy: str | None
    place: Place = field(compare=False)
    tracking: Tracking = Tracking.OFF


# One row of a BindingSet, as NumPy wants it. `local`: the local address of kinds ENDPOINT and ADDRESS, the
# offset of kind POLICY; local_family 0: none (see Binding.local). target and copy: index into `targets` /
# `copies`, NO_NAME for none. tracking: place in TRACKINGS. line: 1-based line of a CSV file, or row of a JSON
# one. source: index into `files`.
BINDING_ROW: list[Any] = [
    ("global", "u1", (16,)),
    ("local", "u1", (16,)),
    ("family", "u1"),
    ("prefix_len", "u1"),
    ("kind", "u1"),
    ("local_family", "u1"),
    ("tracking", "u1"),
    ("target", "u4"),
    ("copy", "u4"),
    ("line", "u4"),
    ("source", "u4"),
]
NO_NAME = 0xFFFFFFFF
TRACKINGS = (Tracking.OFF, Tracking.INBOUND, Tracking.BOTH)


@dataclass(frozen=True, slots=True, eq=False)
class BindingSet:
    """Bindings in bulk: one array instead of an object each. Rows ascend by (family, global, prefix_len).

    rows: NumPy structured array of dtype BINDING_ROW. `targets` names end points (kinds ENDPOINT, ADDRESS)
    and policies (kind POLICY); `copies` names copies; `files` says where `source` points.
    """

    rows: NDArray[np.void]
    targets: tuple[str, ...]
    copies: tuple[str, ...]
    files: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Copy:
    """Where copies of untranslated packets go (S1.16). Exactly one of interface, collector, file is set."""

    name: str
    interface: str | None
    collector: tuple[Address, int] | None  # address, UDP port
    file: Path | None
    sample_every: int  # one packet of this many
    snaplen: int  # bytes kept of each packet
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class Probe:
    """Probing of the paths to the end points."""

    interval_s: float
    timeout_s: float
    attempts: int
    mtu: bool  # probe path_mtu with DF, both ways


@dataclass(frozen=True, slots=True)
class Config:
    """One node's whole configuration. `bulk` holds the rows of all bindings files; `bindings` those of the
    TOML. `files` are all files that were read, the main one first.
    """

    node: Node
    engine: Engine
    networks: tuple[Network, ...]
    endpoints: tuple[Endpoint, ...]
    distributions: tuple[Distribution, ...]
    policies: tuple[Policy, ...]
    bindings: tuple[Binding, ...]
    bulk: BindingSet | None = field(compare=False)
    copies: tuple[Copy, ...]
    probe: Probe
    files: tuple[Path, ...] = field(compare=False)
    vpp: Vpp | None = None  # set with engine.kind "vpp"
    pair: Pair | None = None  # set where this node is one of two
    sessions: Sessions | None = None  # set where connections are tracked or translated
    nats: tuple[Nat, ...] = ()
    nat_log: NatLog | None = None
    leases: tuple[Lease, ...] = ()
    groups: tuple[Group, ...] = ()
    mirror: Mirror | None = None  # set where sessions go to other nodes, or come from them
    channels: tuple[Channel, ...] = ()  # those that end at this node's end point
    bgp: Bgp | None = None  # set where this node announces its Global Networks
    clusters: tuple[Cluster, ...] = ()
    remote: Remote | None = None  # set where others may talk to the agent over the network
    workloads: tuple[Workload, ...] = ()  # what it runs on leases of a director
    migrations: tuple[Migrating, ...] = ()  # workloads that can be migrated from here
    redirects: tuple[Redirect, ...] = ()  # set by the agent alone, after a workload has left

    @property
    def is_observer(self) -> bool:
        """A node beside a pair that has its sessions: it translates nothing by NAT and asks for no lease."""
        return self.mirror is not None and self.mirror.is_observer

    @property
    def self_endpoint(self) -> Endpoint | None:
        return next((e for e in self.endpoints if e.is_self), None)

    @property
    def peers(self) -> tuple[tuple[str, Peer], ...]:
        """(group, peer) of what this node translates for groups."""
        return tuple((g.name, peer) for g in self.groups for peer in g.peers(self.node.endpoint))

    @property
    def self_distribution(self) -> Distribution | None:
        return next((d for d in self.distributions if d.is_self), None)
