"""`[bgp]`: how a distribution point announces its Global Networks (SYSTEMS.md S1.1).

As in schema: one model per table, judged alone; what ties them together is in ipshare.config.check_bgp.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ipshare.config.schema_pair import _without_default
from ipshare.config.values import Address, Community, Duration, Table

Asn = Annotated[int, Field(ge=1, le=0xFFFFFFFF)]


class BgpRoa(Table):
    """Route origin authorizations, against which the announcements are checked (RFC 6811)."""

    file: str = Field(
        min_length=1,
        description="JSON as rpki-client and Routinator write it, or CSV (ASN, prefix, max length), relative "
        "to this file. Read by `check` and `apply`.",
    )
    strict: bool = Field(
        default=True,
        description="An announcement that no ROA allows while one covers it is a mistake. false: a warning.",
    )


class BgpNeighbor(Table):
    """The far end of a BGP session: a router that hears the announcements. Nothing is learnt from it."""

    address: Address = Field(description="Its address.")
    asn: Asn = Field(description="Its AS number; the own one: iBGP.")
    families: list[Literal["v4", "v6"]] = Field(
        default=[], description="What is announced to it. Default: the family of its address."
    )
    next_hop: list[Address] = Field(
        default=[],
        description="Next hops that it is told, at most one per family. Default: this end of the session; "
        "needed for the family that its address is not of.",
    )
    multihop: int | None = Field(
        default=None,
        ge=1,
        le=255,
        description="How many hops it is away at most. Default: it is on the link.",
    )
    bfd: bool = Field(
        default=False,
        description="Watch the path to it by BFD (RFC 5880): the session falls as soon as packets stop.",
    )
    password_file: str | None = Field(
        default=None,
        min_length=1,
        description="File with the password of the session in its first line (TCP MD5, RFC 2385), relative "
        "to this file; of mode 0600.",
    )
    med: int | None = Field(
        default=None, ge=0, le=0xFFFFFFFF, description="Multi-exit discriminator: the lower is preferred."
    )
    prepend: int = Field(
        default=0, ge=0, le=16, description="How often the own AS is put in front of the path once more."
    )
    communities: list[Community] = Field(
        default=[],
        description='Communities of the announcements: "65000:100", large ones "65000:1:2", "no-export", '
        '"no-advertise".',
    )


class Bgp(Table):
    """Announces the Global Networks of this distribution point by BGP, with a BIRD of its own, for as long as
    this node can translate."""

    asn: Asn = Field(description="Own AS number.")
    router_id: Address | None = Field(
        default=None,
        description="BGP identifier, written as an IPv4 address. Default: the IPv4 one of local.",
    )
    local: list[Address] = Field(
        default=[],
        description="Own addresses that sessions come from, at most one per family. Default: the kernel's "
        "choice.",
    )
    hold_time: Duration = Field(
        default=30.0,
        json_schema_extra={"default": "30s"},
        description="A neighbour that is silent for so long is gone. Whole seconds.",
    )
    bfd_interval: Duration = Field(
        default=0.1,
        json_schema_extra={"default": "100ms"},
        description="Time between two BFD packets. Whole milliseconds.",
    )
    bfd_multiplier: int = Field(
        default=3, ge=2, le=50, description="So many BFD packets in a row lost: the path is down."
    )
    max_stale: Duration = Field(
        default=600.0,
        json_schema_extra={"default": "10m"},
        description="When it was not known for so long that the engine has this node's tables, the "
        "announcements are withdrawn.",
    )
    withdraw_after: Duration | None = Field(
        default=None,
        description="A distribution point that did not hear its director for so long withdraws, unless it is "
        "the one that the director told to stay. Default: it goes on announcing.",
    )
    drain_time: Duration = Field(
        default=60.0,
        json_schema_extra={"default": "60s"},
        description="A drain asks the neighbours to prefer others (RFC 8326); after so long it withdraws.",
    )
    allow_long: bool = Field(
        default=False,
        description="Announce prefixes longer than /24 (IPv4) and /48 (IPv6) by eBGP: most of the Internet "
        "drops them.",
    )
    roa: BgpRoa = Field(  # type: ignore[assignment]
        default=None,
        json_schema_extra=_without_default,
        description="What the announcements are checked against: `[bgp.roa]`.",
    )
    neighbor: list[BgpNeighbor] = Field(description="Neighbours: `[[bgp.neighbor]]`.")
