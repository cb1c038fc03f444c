"""Packets that VPP 26.06 judges itself, before the plugin is asked: DATA, each with its reason.

Keys of DROPS are what VPP's packet trace prints behind a drop, "node: reason". ``instead_of``: the verdicts
of the core in whose place VPP may drop the packet; None stands for any, the good ones too: there the VPP
engine does less than the core would. A drop that is not listed here, or in place of another verdict, is a
failure.
"""

from __future__ import annotations

from dataclasses import dataclass

MALFORMED = frozenset(
    {"SHORT", "BAD_VERSION", "BAD_HEADER_LENGTH", "BAD_TOTAL_LENGTH", "BAD_HEADER_CHECKSUM", "SOURCE_ROUTE"}
    | {"BAD_OPTION", "BAD_EXTENSION", "SHORT_L4", "SHORT_FIRST_FRAGMENT", "BAD_FRAGMENT", "BAD_QUOTE"}
    | {"BAD_OFFLOAD"}
)
"""A packet with several faults is dropped for the one that is seen first, and VPP looks first."""


@dataclass(frozen=True)
class TakenOver:
    instead_of: frozenset[str] | None
    why: str


DROPS = {
    "ip4-input: ip4 version != 4": TakenOver(MALFORMED, "no IPv4 packet in an IPv4 frame"),
    "ip4-input: ip4 IHL < 5": TakenOver(MALFORMED, "RFC 791: the header has 20 bytes at least"),
    "ip4-input: bad ip4 checksum": TakenOver(MALFORMED, "checked before options and lengths are"),
    "ip4-input: ip4 length < 20 bytes": TakenOver(MALFORMED, "total length below the header's"),
    "ip4-input: ip4 length > l2 length": TakenOver(MALFORMED, "total length beyond the packet"),
    "ip4-input: ip4 fragment offset == 1": TakenOver(
        None,
        "RFC 1858 3.2.2 is about TCP; VPP drops fragments at byte 8 of any protocol, legal ones too",
    ),
    "ip6-input: ip6 version != 6": TakenOver(MALFORMED, "no IPv6 packet in an IPv6 frame"),
    "ip6-input: ip6 length < 40 bytes": TakenOver(MALFORMED, "cut in its header"),
}

ANSWERED_BY_VPP = {
    "ip4-icmp-error": "TTL 0, which no router sends: ip4-input reports it, from VPP's own address",
    "ip6-icmp-error": "hop limit 0, likewise by ip6-input",
}
"""Nodes that a packet visits when VPP itself answers it with an ICMP error."""

CASES = {
    "short4": "ip4-input: ip4 length > l2 length",
    "version5": "ip4-input: ip4 version != 4",
    "ihl4": "ip4-input: ip4 IHL < 5",
    "ihl4-long": "ip4-input: bad ip4 checksum",
    "length4-short": "ip4-input: ip4 length < 20 bytes",
    "length4-zero": "ip4-input: ip4 length < 20 bytes",
    "length4-long": "ip4-input: ip4 length > l2 length",
    "header-sum4": "ip4-input: bad ip4 checksum",
    "fragment4-udp-second": "ip4-input: ip4 fragment offset == 1",
    "fragment4-overlap": "ip4-input: ip4 fragment offset == 1",
    "fragment4-dccp-overlap": "ip4-input: ip4 fragment offset == 1",
    "short6": "ip6-input: ip6 length < 40 bytes",
}
"""Of the packet cases (tests/cases/packets.yaml) exactly these. The one with a good verdict:
fragment4-udp-second."""

NO_REPLIES = "ip4-input takes packets with options out of the way before features of interfaces see them"
"""Why IPv4 packets with options are no replies (S1.5) on VPP: they are dropped, as VPP drops all of them."""
