"""The shape of a configuration file: one pydantic model per table, strict, unknown keys refused.

A model describes one table alone; what ties tables together is in ipshare.config.checks. The texts
here are the reference: they are exported as a JSON Schema for editors and checked against docs/.
The tables of the VPP engine are in schema_vpp, that of a pair in schema_pair, those of tracked connections in
schema_flows, NAT logs and leases in schema_natlog, channels in schema_channel, clusters in
schema_clusters, BGP in schema_bgp, whom the agent listens to in schema_remote,
workloads in schema_workload, types of values in values.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import Field

from ipshare.config.schema_bgp import Bgp as Bgp
from ipshare.config.schema_bgp import BgpNeighbor as BgpNeighbor
from ipshare.config.schema_channel import Channel as Channel
from ipshare.config.schema_clusters import Cluster as Cluster
from ipshare.config.schema_clusters import ClusterProbe as ClusterProbe
from ipshare.config.schema_clusters import ClusterServer as ClusterServer
from ipshare.config.schema_flows import Mirror as Mirror
from ipshare.config.schema_flows import Nat as Nat
from ipshare.config.schema_flows import Sessions as Sessions
from ipshare.config.schema_groups import Group as Group
from ipshare.config.schema_groups import GroupMember as GroupMember
from ipshare.config.schema_migration import Migration as Migration
from ipshare.config.schema_natlog import Lease as Lease
from ipshare.config.schema_natlog import NatLog as NatLog
from ipshare.config.schema_pair import Pair as Pair
from ipshare.config.schema_pair import PairInterface as PairInterface
from ipshare.config.schema_pair import PairWitness as PairWitness
from ipshare.config.schema_pair import _without_default
from ipshare.config.schema_remote import Remote as Remote
from ipshare.config.schema_vpp import Bridge as Bridge
from ipshare.config.schema_vpp import Dpdk as Dpdk
from ipshare.config.schema_vpp import Hugepages as Hugepages
from ipshare.config.schema_vpp import Interface as Interface
from ipshare.config.schema_vpp import Neighbor as Neighbor
from ipshare.config.schema_vpp import Route as Route
from ipshare.config.schema_vpp import Vpp as Vpp
from ipshare.config.schema_workload import SiteWorkload as SiteWorkload
from ipshare.config.values import (
    Address,
    Collector,
    Device,
    Duration,
    Mtu,
    Name,
    Port,
    PortName,
    Prefix,
    RoutingTable,
    Sample,
    Size,
    Weight,
)
from ipshare.config.values import Table as Table
from ipshare.config.values import Unreadable as Unreadable
from ipshare.model import PathMtu


class Node(Table):
    """This node."""

    name: Name = Field(description="Name of this node, unique among all nodes of the installation.")
    runtime_dir: str | None = Field(
        default=None,
        min_length=1,
        description="Directory for sockets and shared memory, lost at a reboot. Default: /run/ipshare/NAME.",
    )
    state_dir: str | None = Field(
        default=None,
        min_length=1,
        description="Directory for what outlives a reboot. Default: /var/lib/ipshare/NAME.",
    )
    endpoint: Name | None = Field(
        default=None, description="The end point that this node is; the same as `self = true` in its table."
    )
    distribution: Name | None = Field(
        default=None,
        description="The distribution point that this node is; the same as `self = true` in its table.",
    )
    icmp_source: list[Address] = Field(
        default=[],
        description="Sources of the ICMP errors that this node makes, at most one per family. Without one, "
        "none are sent in that family and clients see silence where a router would have spoken.",
    )
    icmp_rate: int = Field(
        default=1000, ge=0, le=1_000_000, description="ICMP errors per second and worker, at most. 0: none."
    )
    outside: list[PortName] = Field(
        default=[],
        description="Interfaces towards the Internet, where an own Global IP as a source is spoofed "
        "and dropped. Empty: not checked. Here and elsewhere: Linux devices with the embedded engine, "
        "VPP's names with VPP.",
    )
    inside: list[PortName] = Field(
        default=[],
        description="Interfaces that may bring packets for inner translation, besides tunnels. "
        "Empty: every interface may.",
    )


class Engine(Table):
    """The data path's process and what it occupies in the kernel."""

    kind: Literal["embedded", "vpp"] = Field(
        default="embedded",
        description="Which data path: embedded (ipshare-engine), or vpp (FD.io VPP with the ipshare plugin). "
        "Devices, tables and rules below are the embedded engine's; VPP's are in [vpp].",
    )
    workers: int | None = Field(
        default=None,
        ge=0,
        le=64,
        description="Packet threads, and queues of each device. Default: 2. Of a managed VPP: its worker "
        "threads; default 0, its main thread does all.",
    )
    outer_device: Device = Field(
        default="ips-out", description="TUN device that Global Networks are routed into."
    )
    inner_device: Device = Field(
        default="ips-in", description="TUN device that local networks are routed into."
    )
    counter_cells: int = Field(
        default=1 << 20,
        ge=1024,
        le=1 << 26,
        description="Bindings that can have counters of their own; 16 bytes each for every worker.",
    )
    nice: int = Field(
        default=-10,
        ge=-20,
        le=0,
        description="Scheduling priority of the embedded engine's threads, from its next start on: less is "
        "earlier. 0: as other processes. Without the privilege it stays 0.",
    )
    service_table: RoutingTable = Field(
        default=4900,
        description="Routing table (number) that holds our routes and nothing else; it is asked before the "
        "node's own. Must be free.",
    )
    reply_table: RoutingTable = Field(
        default=4901,
        description="Routing table (number) that brings replies of devices into our devices. Must be free.",
    )
    nat_table: RoutingTable = Field(
        default=4902,
        description="Routing table (number) that brings what [[nat]] translates into our devices. Must be "
        "free.",
    )
    group_table: RoutingTable = Field(
        default=4903,
        description="Routing table (number) that brings what members of a [[group]] say to each other into "
        "our devices. Must be free.",
    )
    rule_priority: int = Field(
        default=4900,
        ge=1,
        le=32756,
        description="Priority of our first `ip rule`; ten numbers from here on must be free, all of them "
        "below 32766, that of table main.",
    )


class Network(Table):
    """A Global Network: announced to the Internet, served anywhere."""

    name: Name = Field(description="Name, for people and counters.")
    prefix: Prefix = Field(description="The Global Network, IPv4 or IPv6.")
    unmatched: Literal["drop", "unreachable", "pass"] = Field(
        default="unreachable",
        description="What a packet gets where no binding covers its destination: dropped silently, "
        "answered with "
        "host unreachable, or passed on unchanged (refused at a distribution point, where it would loop).",
    )


class Endpoint(Table):
    """An end point: a place where devices with Global IPs run."""

    name: Name = Field(description="Name that bindings and policies refer to.")
    local: list[Prefix] = Field(
        default=[],
        description="Local networks, routable from the distribution points. Needed where packets "
        "are rewritten, "
        "and for tunnel addresses.",
    )
    path: Literal["rewrite", "ipip", "gue"] = Field(
        default="rewrite",
        description="How packets come here: destination rewritten to the local address, or "
        "encapsulated unchanged "
        "in IP-in-IP or GUE (UDP).",
    )
    tunnel: list[Address] = Field(
        default=[],
        description="Tunnel addresses, at most one per family: inside a local network, "
        "configured on no interface.",
    )
    gue_port: Port = Field(default=6080, description="UDP port of GUE at this end point.")
    path_mtu: Mtu = Field(
        default=PathMtu(1500, 1500),
        description="Bytes of the largest IP packet on the way to this end point (encapsulated: of the outer "
        "packet), for both families or as {v4 = ..., v6 = ...}.",
    )
    replies: Literal["direct", "tunnel", "rewrite"] = Field(
        default="direct",
        description="How replies leave: untranslated straight to the client, encapsulated to a "
        "distribution point, "
        "or with the source rewritten where the distribution point is the default gateway.",
    )
    mss_clamp: bool = Field(
        default=True,
        description="Lower the MSS option of TCP SYNs to what path_mtu carries through the encapsulation.",
    )
    next_hop: list[Address] = Field(
        default=[],
        description="With VPP: next hops towards it, at most one per family, in the delivery table. Plain "
        "TCP and UDP goes there without a lookup; the rest needs a route that agrees.",
    )
    is_self: bool = Field(default=False, alias="self", description="This node is that end point.")


class Distribution(Table):
    """A distribution point: announces Global Networks and sends their traffic on."""

    name: Name = Field(description="Name, for people and [node].distribution.")
    tunnel: list[Address] = Field(
        default=[],
        description="Tunnel addresses, at most one per family: source of what it encapsulates, "
        "and where tunnelled replies go. Configured on no interface.",
    )
    weight: Weight = Field(default=1, description="Share of the tunnelled replies that it takes; 0: none.")
    path: Literal["ipip", "gue"] = Field(
        default="ipip", description="How replies are encapsulated on their way to it."
    )
    gue_port: Port = Field(default=6080, description="UDP port of GUE at this distribution point.")
    path_mtu: Mtu = Field(
        default=PathMtu(1500, 1500),
        description="Bytes of the largest IP packet (the outer one) on the way from end points to "
        "it, for both "
        "families or as {v4 = ..., v6 = ...}.",
    )
    is_self: bool = Field(default=False, alias="self", description="This node is that distribution point.")


class Member(Table):
    """A member of a policy."""

    endpoint: Name = Field(description="Name of the end point.")
    weight: Weight = Field(
        default=1, description="Share of the clients that it takes, relative to the others; 0: none."
    )


class ClientBits(Table):
    """Leading bits of a client's address that are hashed: clients alike in them reach the same end point."""

    v4: int = Field(default=32, ge=1, le=32, description="Of IPv4 addresses.")
    v6: int = Field(default=64, ge=1, le=128, description="Of IPv6 addresses.")


Track: TypeAlias = Literal["off", "always"]
Observe: TypeAlias = Literal["inbound", "both"]


def _track(text: str) -> Any:
    return Field(default="off", description=text)


def _observe() -> Any:
    return Field(
        default="inbound",
        description="What this node sees of them: both, where it is the devices' gateway, else what goes to "
        "the devices alone.",
    )


class Policy(Table):
    """Several end points behind one Global IP, chosen by the client's address (consistent hashing)."""

    name: Name = Field(description="Name that bindings refer to.")
    members: list[Member] = Field(description="End points and their weights.")
    client_bits: ClientBits = Field(
        default=ClientBits(), description="How much of a client's address is hashed, per family."
    )
    track: Track = _track("Follow the connections of every binding to it.")
    observe: Observe = _observe()
    drain: Duration = Field(
        default=900.0,
        json_schema_extra={"default": "15m"},
        description="How long, after members or weights changed, connections of clients that moved go on "
        "at the end points that they had, where paths are GUE and a [[channel]] connects the two. 0s: they "
        "break.",
    )


class Binding(Table):
    """A global prefix or address, and what stands behind it: exactly one of to, policy, here, down."""

    prefix: Prefix = Field(
        alias="global", description="Global prefix or address. Bindings may nest: the longest wins."
    )
    to: Name | None = Field(default=None, description="End point that serves it.")
    local: Prefix | None = Field(
        default=None,
        description="Local prefix of the same length at that end point. Default: as far into the "
        "end point's first "
        "local network of the family as `global` is into its Global Network; encapsulated: none.",
    )
    policy: Name | None = Field(default=None, description="Policy that chooses among several end points.")
    here: bool = Field(default=False, description="Served on this node itself, untranslated.")
    down: bool = Field(default=False, description="Known to be down: clients get host unreachable.")
    copy_to: Name | None = Field(
        default=None, alias="copy", description="Copy that gets its traffic from before translation."
    )
    track: Track = _track("Follow its connections: `ipshare sessions` shows them.")
    observe: Observe = _observe()


class BindingsFile(Table):
    """Bindings in bulk, from a CSV or JSON file."""

    path: str = Field(min_length=1, description="File name, relative to this file. Ends in .csv or .json.")
    name: Name = Field(description="Name of the set, for people.")


class Copy(Table):
    """A copy of traffic from before translation: exactly one of interface, collector, file."""

    name: Name = Field(description="Name that bindings refer to.")
    interface: PortName | None = Field(
        default=None, description="Interface that gets the packets as they are."
    )
    collector: Collector | None = Field(
        default=None, description="Address and UDP port that get them encapsulated."
    )
    file: str | None = Field(default=None, min_length=1, description="pcapng file that they are written to.")
    sample: Sample = Field(
        default=1,
        json_schema_extra={"default": "1/1"},
        description="Which share is copied: one packet of N, as 1/N. Default: 1/1, all.",
    )
    snaplen: Size = Field(default=65535, description="Bytes that are kept of each packet.")


class Probe(Table):
    """Probing of the paths to the end points."""

    interval: Duration = Field(
        default=60.0, json_schema_extra={"default": "60s"}, description="Time between two probes of a path."
    )
    timeout: Duration = Field(
        default=1.0,
        json_schema_extra={"default": "1s"},
        description="Time after which a probe counts as lost.",
    )
    attempts: int = Field(
        default=3, ge=1, le=100, description="Lost probes in a row after which a path counts as down."
    )
    mtu: bool = Field(
        default=True, description="Probe path_mtu with DF in both directions, and alarm when it is not met."
    )


class File(Table):
    """A configuration of ipshare (site.toml)."""

    include: list[str] = Field(
        default=[],
        description="More files, relative to this one; globs (*, ?, [...], **) are sorted by name.",
    )
    node: Node
    engine: Engine = Engine()
    network: list[Network] = []
    endpoint: list[Endpoint] = []
    distribution: list[Distribution] = []
    policy: list[Policy] = []
    binding: list[Binding] = []
    bindings_file: list[BindingsFile] = []
    copy_: list[Copy] = Field(default=[], alias="copy")
    probe: Probe = Probe()
    vpp: Vpp = Vpp()
    interface: list[Interface] = []
    bridge: list[Bridge] = []
    route: list[Route] = []
    neighbor: list[Neighbor] = []
    pair: Pair = Field(default=None, json_schema_extra=_without_default)  # type: ignore[assignment]
    sessions: Sessions = Field(default=None, json_schema_extra=_without_default)  # type: ignore[assignment]
    nat: list[Nat] = []
    nat_log: NatLog = Field(default=None, json_schema_extra=_without_default)  # type: ignore[assignment]
    lease: list[Lease] = []
    group: list[Group] = []
    cluster: list[Cluster] = []
    mirror: Mirror = Field(default=None, json_schema_extra=_without_default)  # type: ignore[assignment]
    channel: list[Channel] = []
    bgp: Bgp = Field(default=None, json_schema_extra=_without_default)  # type: ignore[assignment]
    remote: Remote = Field(default=None, json_schema_extra=_without_default)  # type: ignore[assignment]
    workload: list[SiteWorkload] = []
    migration: list[Migration] = []


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a configuration file, for editors (taplo, Even Better TOML)."""
    schema = File.model_json_schema(by_alias=True)
    schema["title"] = "ipshare configuration"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
