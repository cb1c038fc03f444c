"""`[[cluster]]`: one public address, several servers that are reached by their hardware addresses
(SYSTEMS.md S2.4, S2.5).

As in schema: one model per table, judged alone; what ties them together is in
ipshare.config.check_clusters.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ipshare.config.values import Address, Duration, Name, Port, PortName, Prefix, Table, Weight


class ClusterServer(Table):
    """A server. It has the cluster's address too, on a device that answers no ARP and no solicitation for it
    (docs/clusters.md), and answers clients directly."""

    name: Name = Field(description="Name, for people.")
    address: list[Address] = Field(
        description="Its own addresses in `subnet`, at most one of each family. Probes go there."
    )
    weight: Weight = Field(default=1, description="Its share of new connections, beside the others' weights.")
    drain: bool = Field(
        default=False,
        description="It takes no new connection any more; those that it has go on, and are counted.",
    )


class ClusterProbe(Table):
    """How the agent finds out whether servers live, and how fast they answer."""

    kind: Literal["icmp", "tcp", "http"] = Field(
        default="icmp",
        description="icmp: an echo. tcp: a connection to `port`. http: GET of `path`, answered with a status "
        "below 400.",
    )
    port: Port | None = Field(default=None, description="Of tcp and http; http: 80 unless said.")
    path: str = Field(default="/", min_length=1, description="What http asks for; begins with /.")
    interval: Duration = Field(
        default=2.0, json_schema_extra={"default": "2s"}, description="Time between two probes of a server."
    )
    timeout: Duration = Field(
        default=1.5,
        json_schema_extra={"default": "1500ms"},
        description="A probe without an answer for so long has failed. Below interval.",
    )
    fall: Annotated[int, Field(ge=1, le=100)] = Field(
        default=1, description="Failed probes in a row after which a server gets no new connection."
    )
    rise: Annotated[int, Field(ge=1, le=100)] = Field(
        default=2, description="Answered probes in a row after which it gets some again."
    )


class Cluster(Table):
    """One public address of several servers: packets to it go to one of them unchanged but for their
    hardware address. Routers have a static route for it to this node, or to the pair's VIP. At both nodes
    of a pair the same table."""

    name: Name = Field(description="Name, for people.")
    address: list[Address] = Field(
        description="What clients know, at most one address of each family. Configured at the servers alone."
    )
    subnet: list[Prefix] = Field(
        description="The private access subnet, at most one of each family: routers, this node and the "
        "servers are in it."
    )
    interface: PortName = Field(description="This node's device in that subnet.")
    by: list[Literal["active", "new", "response"]] = Field(
        default=[],
        description="What counts beside weights: connections that a server has (at most), new ones in a "
        "second, time that it takes to answer a probe.",
    )
    slow_start: Duration = Field(
        default=0.0,
        json_schema_extra={"default": "0s"},
        description="A server that comes back, or is new, gets its share over this time.",
    )
    least: Annotated[int, Field(ge=1, le=100)] = Field(
        default=10, description="Percent of its weight that the worst live server keeps, whatever `by` says."
    )
    routers: list[Address] = Field(
        default=[],
        description="The routers' addresses in `subnet`, shared ones too; for `ipshare plan addresses`.",
    )
    server: list[ClusterServer] = Field(description="Its servers: `[[cluster.server]]`.")
    probe: ClusterProbe = Field(
        default=ClusterProbe(),
        json_schema_extra={"default": {}},
        description="How servers are looked after: `[cluster.probe]`.",
    )
