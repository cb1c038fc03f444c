"""The table `[pair]`: two nodes of which one is active (SYSTEMS.md S2), and its `node` and `vip` tables.

As in schema: one model per table, judged alone; what ties them together is in ipshare.config.check_pair.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ipshare.config.values import (
    Address,
    Device,
    Duration,
    Mac,
    Name,
    PathEnd,
    PortName,
    Prefix,
    RoutingTable,
    Table,
)


def _without_default(spec: dict[str, Any]) -> None:
    """A table that may be missing as a whole: there is no default to show."""
    del spec["default"]


class PairNode(Table):
    """One of the two nodes of a pair. The first in the file is the preferred one."""

    name: Name = Field(description="Its name, as in the `[node]` of its file.")
    paths: list[PathEnd] = Field(
        description="Its address and UDP port on each path to the other node. Path by path in the same order "
        "at both nodes; two or more, over links that do not fail together."
    )


class Vip(Table):
    """A private VIP: an address on the access subnet that the active node answers for."""

    address: Address = Field(description="The address. It is configured on no interface of either node.")
    interface: PortName = Field(
        description="Interface on the access subnet: of Linux, or the name of an `[[interface]]` of VPP."
    )


class PairWitness(Table):
    """A third voter: with it at most one node forwards, whatever is cut between the two."""

    kind: Literal["node", "etcd"] = Field(
        description="`node`: `ipshare witness node` on a third machine. `etcd`: `ipshare witness etcd` "
        "beside each node, which asks a cluster of etcd 3.4 or newer."
    )
    address: PathEnd = Field(
        description="UDP address and port of the witness; with `etcd` where it listens at both nodes, as "
        "`127.0.0.1:6082`."
    )
    key_file: str = Field(
        min_length=1,
        description="File with the key that both nodes and the witness share, as that of the pair, and "
        "another one. Relative to this file.",
    )
    ttl: Duration = Field(
        default=2.0,
        json_schema_extra={"default": "2s"},
        description="How long a grant lasts: 50ms to 10s, with `etcd` 2s or more whole seconds. A takeover "
        "waits for the rest of it.",
    )
    endpoints: list[str] = Field(default=[], description="URLs of the etcd cluster's members.")
    prefix: str = Field(
        default="/ipshare/pair",
        pattern=r"^[!-~]{1,200}$",
        description="Beginning of the names of this pair's keys in etcd.",
    )
    ca_file: str | None = Field(
        default=None, min_length=1, description="Certificates that vouch for etcd. Default: the system's."
    )
    cert_file: str | None = Field(
        default=None, min_length=1, description="This node's certificate, where etcd wants one."
    )
    cert_key_file: str | None = Field(default=None, min_length=1, description="Its key.")


class Public(Table):
    """Public addresses that are on-link upstream: the active node answers for all and announces them."""

    prefix: Prefix = Field(
        description="Every address of it, 65,536 at most. Not the router's, nor one that a node has itself."
    )
    interface: PortName = Field(
        description="Interface towards the router: of Linux, named alike at both nodes, or an "
        "`[[interface]]` of VPP."
    )


class PairInterface(Table):
    """An interface with a workload's MAC address: there at both nodes, up on the active one only."""

    name: PortName = Field(
        description="Its name; the agent makes it, as a macvlan. On VPP the name of an `[[interface]]`."
    )
    parent: Device | None = Field(default=None, description="The interface that it is on; not on VPP.")
    mac: Mac = Field(description="The workload's MAC address.")


class PairRoute(Table):
    """A route of the private network that a node points to itself when it has become active."""

    kind: Literal["linux", "command"] = Field(
        description="`linux`: `ip route replace` on this machine. `command`: a program of yours "
        "(docs/pair.md)."
    )
    prefix: Prefix = Field(description="`0.0.0.0/0` or `::/0` for the default route.")
    via: list[Address] = Field(description="The two nodes' addresses there, in the order of `[[pair.node]]`.")
    interface: Device | None = Field(default=None, description="`linux`: interface of the next hop.")
    namespace: str | None = Field(
        default=None, pattern=r"^[^/\s]{1,255}$", description="`linux`: named network namespace (ip-netns)."
    )
    table: RoutingTable | None = Field(default=None, description="`linux`: routing table. Default: main.")
    command: list[str] = Field(default=[], description="`command`: program (absolute path) and arguments.")


class Criterion(Table):
    """What an active node should reach. One that does not hands over to a peer that does."""

    kind: Literal["link", "neighbour", "echo"] = Field(
        description="`link`: the interface is up. `neighbour`: the address answers ARP or neighbour "
        "solicitations there. `echo`: it answers ICMP echo."
    )
    interface: PortName = Field(
        description="Linux interface, named alike at both nodes, or an `[[interface]]` of VPP."
    )
    address: Address | None = Field(default=None, description="The gateway; not for `link`.")
    interval: Duration = Field(
        default=0.5,
        json_schema_extra={"default": "500ms"},
        description="Time between two questions or looks, 10ms to 60s.",
    )
    misses: int = Field(
        default=3, ge=1, le=100, description="Questions without an answer in a row: it is not met."
    )


class Pair(Table):
    """A redundant pair: of two nodes one is active. Both read this table; `[node].name` picks the half."""

    key_file: str = Field(
        min_length=1,
        description="File with the key that both nodes share: 64 hexadecimal digits, mode 0600 "
        "(`ipshare pair key` makes one). Relative to this file.",
    )
    interval: Duration = Field(
        default=0.01,
        json_schema_extra={"default": "10ms"},
        description="Time between two heartbeats or queries, 100us to 2s.",
    )
    misses: int = Field(
        default=3, ge=2, le=100, description="Heartbeats or answers missed in a row: the peer is gone."
    )
    mode: Literal["heartbeat", "query"] = Field(
        default="heartbeat",
        description="Who speaks: the active by itself, or only when the standby asks.",
    )
    preempt: bool = Field(
        default=False, description="The preferred node becomes active again when it is back and up to date."
    )
    hook: str | None = Field(
        default=None,
        min_length=1,
        description="Program called at every change of state, with the old and the new one (docs/pair.md). "
        "Absolute path.",
    )
    node: list[PairNode] = Field(description="The two nodes.")
    vip: list[Vip] = Field(default=[], description="Private VIPs, at most 16.")
    public: list[Public] = Field(default=[], description="On-link public addresses, at most 32 prefixes.")
    interface: list[PairInterface] = Field(
        default=[], description="Sub-interfaces with the workloads' MAC addresses, at most 64."
    )
    route: list[PairRoute] = Field(default=[], description="Routes that lead to the active node.")
    criterion: list[Criterion] = Field(
        default=[], description="What an active node should reach, 16 at most."
    )
    criteria_needed: int | None = Field(
        default=None, ge=1, description="How many of the criteria have to be met. Default: all."
    )
    witness: PairWitness = Field(  # type: ignore[assignment]
        default=None, json_schema_extra=_without_default, description="A third voter."
    )
