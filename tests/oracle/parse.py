"""What a packet is, or why it is none: the model of ips_parse.h.

Checks stand in the order in which the C core names the first of several faults.
"""

import struct
from dataclasses import dataclass
from typing import Final

from tests.oracle.checksum import checksum

TCP, UDP, DCCP, SCTP, UDPLITE, ICMP, ICMP6, MOBILITY, AH = 6, 17, 33, 132, 136, 1, 58, 135, 51
HOPOPTS, ROUTING, FRAGMENT, DSTOPTS = 0, 43, 44, 60
EXTENSIONS: Final = {HOPOPTS, ROUTING, FRAGMENT, DSTOPTS}
MAX_EXTENSIONS: Final = 8
FULL, PARTIAL, EGRESS = 0, 1, 2

# Upper-layer protocol -> bytes its header has at least, and where a checksum over the addresses lies.
SHORTEST: Final = {
    4: {TCP: 20, UDP: 8, DCCP: 12, SCTP: 12, UDPLITE: 8, ICMP: 8},
    6: {TCP: 20, UDP: 8, DCCP: 12, SCTP: 12, UDPLITE: 8, ICMP6: 8, MOBILITY: 8},
}
CHECKSUM_AT: Final = {
    4: {TCP: 16, UDP: 6, DCCP: 6, UDPLITE: 6},
    6: {TCP: 16, UDP: 6, DCCP: 6, UDPLITE: 6, ICMP6: 2, MOBILITY: 4},
}


@dataclass(frozen=True)
class Offload:
    """The fields of struct ips_pkt that a host fills in."""

    csum: int = FULL
    csum_start: int = 0
    csum_offset: int = 0
    gso_type: int = 0
    gso_size: int = 0


PLAIN: Final = Offload()


@dataclass
class View:
    """struct ips_view."""

    family: int
    proto: int
    ttl: int
    tos: int
    l4: int
    ip_len: int
    fragment_at: int = 0
    is_fragment: bool = False
    more_fragments: bool = False
    dont_fragment: bool = True
    routing_active: bool = False
    has_ah: bool = False
    frag_header: int = 0
    frag_id: int = 0


class Refused(Exception):
    """The packet gets the verdict in ``args[0]``."""


def parse(data: bytes, offload: Offload = PLAIN, buffer: int | None = None) -> View:
    """Where things are in ``data``, of which a host shows the first ``buffer`` bytes (default: all).

    Raises Refused with the name of the verdict.
    """
    shown = data if buffer is None else data[:buffer]
    if not shown:
        raise Refused("SHORT")
    if shown[0] >> 4 == 4:
        view = _ipv4(shown, len(data))
    elif shown[0] >> 4 == 6:
        view = _ipv6(shown, len(data), offload)
    else:
        raise Refused("BAD_VERSION")
    if view.is_fragment:
        _check_fragment(view)
    end = min(view.ip_len, len(shown))
    if not view.fragment_at and view.l4 + SHORTEST[view.family].get(view.proto, 0) > end:
        raise Refused("SHORT_FIRST_FRAGMENT" if view.is_fragment else "SHORT_L4")
    _check_offload(view, offload, end)
    return view


def _ipv4(data: bytes, total: int) -> View:
    if len(data) < 20:
        raise Refused("SHORT")
    header = (data[0] & 15) * 4
    if header < 20 or header > len(data):
        raise Refused("BAD_HEADER_LENGTH")
    tos, ip_len, ident, fragment, ttl, proto = struct.unpack_from(">xBHHHBB", data)
    if ip_len < header or ip_len > total:
        raise Refused("BAD_TOTAL_LENGTH")
    if checksum(data[:header]) != 0:
        raise Refused("BAD_HEADER_CHECKSUM")
    _options(data[20:header])
    return View(
        family=4,
        proto=proto,
        ttl=ttl,
        tos=tos,
        l4=header,
        ip_len=ip_len,
        fragment_at=(fragment & 0x1FFF) * 8,
        is_fragment=bool(fragment & 0x3FFF),
        more_fragments=bool(fragment & 0x2000),
        dont_fragment=bool(fragment & 0x4000),
        has_ah=proto == AH,
        frag_id=ident if fragment & 0x3FFF else 0,
    )


def _options(options: bytes) -> None:
    kinds = set()
    while options and options[0] != 0:
        if options[0] == 1:
            options = options[1:]
            continue
        if len(options) < 2 or options[1] < 2 or options[1] > len(options):
            raise Refused("BAD_OPTION")
        kinds.add(options[0])
        options = options[options[1] :]
    if kinds & {131, 137}:
        raise Refused("SOURCE_ROUTE")


def _ipv6(data: bytes, total: int, offload: Offload) -> View:
    if len(data) < 40:
        raise Refused("SHORT")
    first, payload, proto, ttl = struct.unpack_from(">IHBB", data)
    if 40 + payload > total:
        raise Refused("BAD_TOTAL_LENGTH")
    if payload == 0 and (proto == HOPOPTS or offload.gso_type):
        raise Refused("BAD_TOTAL_LENGTH")
    view = View(family=6, proto=proto, ttl=ttl, tos=first >> 20 & 0xFF, l4=40, ip_len=40 + payload)
    walk(data[: view.ip_len], view)
    view.has_ah = view.proto == AH
    return view


def walk(data: bytes, view: View) -> None:
    """Passes over the extension headers of an IPv6 packet (RFC 8200 4)."""
    seen: list[int] = []
    while view.proto in EXTENSIONS:
        if len(seen) == MAX_EXTENSIONS:
            raise Refused("BAD_EXTENSION")
        if view.proto == HOPOPTS and seen or view.proto == FRAGMENT and FRAGMENT in seen:
            raise Refused("BAD_EXTENSION")
        rest = data[view.l4 :]
        size = 8 if view.proto == FRAGMENT or len(rest) < 2 else (rest[1] + 1) * 8
        if len(rest) < size:
            raise Refused("SHORT_FIRST_FRAGMENT" if view.is_fragment else "BAD_EXTENSION")
        if view.proto == ROUTING and rest[3] > 0:
            view.routing_active = True
        if view.proto == FRAGMENT:
            offset, view.frag_id = struct.unpack_from(">HI", rest, 2)
            view.frag_header = view.l4
            view.fragment_at = offset & 0xFFF8
            view.more_fragments = bool(offset & 1)
            view.is_fragment = view.more_fragments or view.fragment_at > 0
        seen.append(view.proto)
        view.proto = rest[0]
        view.l4 += size
        if view.fragment_at:
            return


def _check_fragment(view: View) -> None:
    begins = view.l4 if view.family == 4 else view.frag_header + 8
    size = view.ip_len - begins
    if view.more_fragments and (size == 0 or size % 8):
        raise Refused("BAD_FRAGMENT")
    reassembled = view.fragment_at + size + (begins if view.family == 4 else view.frag_header - 40)
    if reassembled > 65535:
        raise Refused("BAD_FRAGMENT")
    if 0 < view.fragment_at < SHORTEST[view.family].get(view.proto, 0):
        raise Refused("BAD_FRAGMENT")


def _check_offload(view: View, offload: Offload, end: int) -> None:
    wrong = offload.gso_type not in (0, 1, 2) or offload.csum not in (FULL, PARTIAL, EGRESS)
    if offload.gso_type:
        wrong |= view.proto != {1: TCP, 2: UDP}.get(offload.gso_type)
        wrong |= view.is_fragment or offload.gso_size == 0
    if offload.csum == PARTIAL:
        field = CHECKSUM_AT[view.family].get(view.proto)
        wrong |= view.is_fragment or offload.csum_start < view.l4
        wrong |= offload.csum_start + offload.csum_offset + 2 > end
        wrong |= field is not None and offload.csum_start == view.l4 and offload.csum_offset != field
    if wrong:
        raise Refused("BAD_OFFLOAD")
