"""One address replaced, every checksum over it mended: the model of ips_rewrite.h (S1.2, S1.3).

The packet is taken apart, changed and put together; the checksum of an ICMP error is
mended by comparing the whole message before and after.
"""

import struct

from tests.oracle.checksum import ZERO_MEANS_NONE, mended, mended_partial
from tests.oracle.parse import (
    CHECKSUM_AT,
    EGRESS,
    FULL,
    ICMP,
    ICMP6,
    PARTIAL,
    PLAIN,
    Offload,
    Refused,
    View,
    parse,
    walk,
)

SRC, DST = 0, 1
ERRORS = {4: {3, 4, 5, 11, 12}, 6: {1, 2, 3, 4}}


def place(family: int, field: int) -> slice:
    """Where an IP header has its source or destination."""
    start, size = (12, 4) if family == 4 else (8, 16)
    return slice(start + field * size, start + field * size + size)


def address_of(data: bytes, field: int) -> bytes:
    return data[place(data[0] >> 4, field)]


def translate(
    data: bytes, field: int, address: bytes, offload: Offload = PLAIN, buffer: int | None = None
) -> bytes:
    """``data`` with ``address`` as its source or destination, padding cut off. Raises Refused."""
    view = parse(data, offload, buffer)
    data = data[: view.ip_len]
    before = data[place(view.family, field)]
    head, payload = data[: view.l4], data[view.l4 :]
    if is_icmp_error(view, payload):
        if buffer is not None and buffer < len(data):
            raise Refused("SHORT_L4")
        payload = _icmp_error(view, payload, field, before, address, offload)
    elif not view.fragment_at:
        payload = _transport(view, payload, field, before, address, offload)
    return _header(head, view.family, field, address) + payload


def is_icmp_error(view: View, payload: bytes) -> bool:
    proto = ICMP if view.family == 4 else ICMP6
    return view.proto == proto and not view.fragment_at and payload[0] in ERRORS[view.family]


def _header(head: bytes, family: int, field: int, address: bytes) -> bytes:
    where = place(family, field)
    changed = head[: where.start] + address + head[where.stop :]
    if family == 4:
        changed = _mend_at(changed, 10, head[where], address)
    return changed


def _mend_at(data: bytes, at: int, before: bytes, after: bytes, none: bool = False) -> bytes:
    (field,) = struct.unpack_from(">H", data, at)
    return data[:at] + struct.pack(">H", mended(field, before, after, none)) + data[at + 2 :]


def _uncovered(view: View, field: int) -> bool:
    """RFC 8200 8.1: with segments left, the pseudo header has the final destination, not this one."""
    return view.routing_active and field == DST


def _mode(view: View, offload: Offload) -> int:
    inside_a_tunnel = offload.csum == PARTIAL and offload.csum_start != view.l4
    return FULL if inside_a_tunnel else offload.csum


def _transport(
    view: View, payload: bytes, field: int, before: bytes, after: bytes, offload: Offload
) -> bytes:
    at = CHECKSUM_AT[view.family].get(view.proto)
    if at is None or _uncovered(view, field) or _mode(view, offload) == EGRESS:
        return payload
    if _mode(view, offload) == PARTIAL:
        (held,) = struct.unpack_from(">H", payload, at)
        return payload[:at] + struct.pack(">H", mended_partial(held, before, after)) + payload[at + 2 :]
    return _mend_at(payload, at, before, after, view.proto in ZERO_MEANS_NONE)


def _icmp_error(
    view: View, message: bytes, field: int, before: bytes, after: bytes, offload: Offload
) -> bytes:
    quote, extensions = message[8:], b""
    if view.family == 6 and message[0] in (1, 3) and 128 <= message[4] * 8 < len(quote):
        quote, extensions = quote[: message[4] * 8], quote[message[4] * 8 :]  # RFC 4884
    if quote and not _uncovered(view, field):
        quote = _quote(view.family, quote, field, before, after)
    changed = message[:8] + quote + extensions
    covered_before, covered_after = message[:2] + message[4:], changed[:2] + changed[4:]
    mode = _mode(view, offload)
    if mode == EGRESS:
        return changed
    if mode == PARTIAL:
        covered_before = covered_after = b""
    if view.family == 6 and not _uncovered(view, field):
        covered_before, covered_after = before + covered_before, after + covered_after
    if mode == PARTIAL:
        (held,) = struct.unpack_from(">H", message, 2)
        held = mended_partial(held, covered_before, covered_after)
        return changed[:2] + struct.pack(">H", held) + changed[4:]
    return _mend_at(changed, 2, covered_before, covered_after)


def _quote(family: int, quote: bytes, outer_field: int, before: bytes, after: bytes) -> bytes:
    """The quoted packet with its opposite address replaced, as far as it is there."""
    field = SRC if outer_field == DST else DST
    if quote[0] >> 4 != family or family == 4 and quote[0] & 15 < 5:
        raise Refused("BAD_QUOTE")
    where = place(family, field)
    if len(quote) < where.stop:
        return quote
    if quote[where] != before:
        if outer_field == DST or quote[where] == after:  # the latter could not come back
            raise Refused("BAD_QUOTE")
        return quote
    at, proto = _quoted_checksum(family, quote, field)
    changed = _header(quote, family, field, after)
    if at is not None and at + 2 <= len(quote):
        changed = _mend_at(changed, at, before, after, proto in ZERO_MEANS_NONE)
    return changed


def _quoted_checksum(family: int, quote: bytes, field: int) -> tuple[int | None, int]:
    """Offset of the quoted checksum that covers the quoted field, and the quoted protocol."""
    if family == 4:
        later = struct.unpack_from(">H", quote, 6)[0] & 0x1FFF
        inner = View(4, proto=quote[9], ttl=0, tos=0, l4=(quote[0] & 15) * 4, ip_len=0, fragment_at=later)
    else:
        inner = View(family=6, proto=quote[6], ttl=0, tos=0, l4=40, ip_len=0)
        if len(quote) < 40:
            return None, 0
        try:
            walk(quote, inner)
        except Refused:
            return None, 0
    at = CHECKSUM_AT[family].get(inner.proto)
    if at is None or inner.fragment_at or _uncovered(inner, field):
        return None, 0
    return inner.l4 + at, inner.proto
