"""The table `[pair]`: two nodes of which one is active (SYSTEMS.md S2), and its `node` and `vip` tables.

As in schema: one model per table, judged alone; what ties them together is in ipshare.config.check_pair.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ipshare.config.values import Address, Duration, Name, PathEnd, PortName, Table


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
