"""The tables `[[channel]]`: ways between two end points, for connections that stay where they are when an
address is remapped (SYSTEMS.md S4.2).

As in schema: one model per table, judged alone; what ties them together is in ipshare.config.check_channel.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ipshare.config.values import Name, PathEnd, Port, Prefix, Table


class ChannelEnd(Table):
    """One of the two ends of a channel."""

    endpoint: Name = Field(description="Name of the end point.")
    addresses: list[Prefix] = Field(
        description="Its addresses in the channel: `ipip` two, `gue` one, `rewrite` two prefixes. Routed to "
        "this end point, as its local networks are; configured on no interface and used for nothing else."
    )
    paths: list[PathEnd] = Field(
        description="Its own address and UDP port on each path to the other end, over which the connections' "
        "table is mirrored; further remaps at the same time have the next ports, up to the 63rd. Path by "
        "path in the same order at both ends."
    )


class Channel(Table):
    """A channel between two end points, for `ipshare remap` from one to the other. Both read this table, and
    so may any node: it is of use only to the two."""

    name: Name = Field(description="Name, for people.")
    kind: Literal["ipip", "gue", "rewrite"] = Field(
        default="ipip",
        description="How packets cross: unmodified in IP-in-IP or GUE (UDP), or re-addressed.",
    )
    mtu: Annotated[int, Field(ge=576, le=65535)] = Field(
        default=1500,
        description="Bytes of the largest packet between the two, outer header included. Larger ones are "
        "answered with fragmentation needed or packet too big.",
    )
    gue_port: Port = Field(default=6080, description="`gue`: UDP destination port.")
    key_file: str = Field(
        min_length=1,
        description="File with the key that both ends share, as that of a pair: 64 hexadecimal digits, mode "
        "0600 (`ipshare pair key` makes one). Relative to this file.",
    )
    end: list[ChannelEnd] = Field(description="The two ends.")
