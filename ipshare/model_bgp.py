"""The nouns of announcing Global Networks by BGP (SYSTEMS.md S1.1). Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from ipshare.model_place import Place

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class BgpNeighbor:
    """The far end of a BGP session. ``families``: of what is announced to it, 4 and 6."""

    address: Address
    asn: int
    families: tuple[int, ...]
    next_hop4: IPv4Address | None  # None: the session's own address
    next_hop6: IPv6Address | None
    multihop: int | None  # hops that it may be away; None: on the link
    bfd: bool
    password_file: Path | None  # of TCP MD5 (RFC 2385)
    med: int | None
    prepend: int  # how often the own AS is put in front once more
    communities: tuple[tuple[int, ...], ...]  # two numbers: RFC 1997; three: RFC 8092
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class Bgp:
    """How this distribution point announces its Global Networks, and to whom."""

    asn: int
    router_id: IPv4Address
    local4: IPv4Address | None  # source of sessions
    local6: IPv6Address | None
    hold_s: int
    bfd_interval_ms: int
    bfd_multiplier: int
    max_stale_s: float  # longest time without knowing that the engine's tables are those of the node
    drain_s: float  # from the beginning of a drain to the withdrawal
    neighbors: tuple[BgpNeighbor, ...]
    withdraw_after_s: float | None = None  # without its director for so long; None: never
