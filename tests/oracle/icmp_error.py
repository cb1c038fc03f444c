"""ICMP errors about a packet, and answers to echo: the model of ips_error.c.

RFC 1122 3.2.2, RFC 1812 4.3.2, RFC 4443 2.4. The quote is what was on the wire: of a
super-packet its first segment, with the checksum that an offload would have written.
"""

import struct

from tests.oracle.checksum import ZERO_MEANS_NONE, checksum, folded, mended, pseudo, words
from tests.oracle.parse import CHECKSUM_AT, FULL, ICMP, ICMP6, PARTIAL, PLAIN, SHORTEST, TCP, Offload, View
from tests.oracle.rewrite import DST, SRC, is_icmp_error, place

TTL, TOO_BIG, HOST_UNREACHABLE, ADMIN = 0, 1, 2, 3
MESSAGE = {
    4: {TTL: (11, 0), TOO_BIG: (3, 4), HOST_UNREACHABLE: (3, 1), ADMIN: (3, 13)},
    6: {TTL: (3, 0), TOO_BIG: (2, 0), HOST_UNREACHABLE: (1, 3), ADMIN: (1, 1)},
}
LIMIT = {4: 576, 6: 1280}


def error(data: bytes, view: View, kind: int, mtu: int, source: bytes, offload: Offload = PLAIN) -> bytes:
    """The whole IP packet that reports ``kind`` about ``data``; b"" where none may be sent."""
    if not any(source) or not _may_report(data, view, kind):
        return b""
    number, code = MESSAGE[view.family][kind]
    rest = 0 if kind != TOO_BIG else min(mtu, 65535) if view.family == 4 else mtu
    header = 20 if view.family == 4 else 40
    quote = _on_the_wire(data, view, offload)[: LIMIT[view.family] - header - 8]
    message = struct.pack(">BBHI", number, code, 0, rest) + quote
    client = data[place(view.family, SRC)]
    proto = ICMP if view.family == 4 else ICMP6
    covered = 0 if view.family == 4 else pseudo(source, client, proto, len(message))
    message = message[:2] + struct.pack(">H", checksum(message, covered)) + message[4:]
    if view.family == 6:
        return struct.pack(">IHBB", 6 << 28, len(message), proto, 64) + source + client + message
    ip = struct.pack(">BBHHHBBH", 0x45, 0xC0, 20 + len(message), 0, 0x4000, 64, proto, 0) + source + client
    return ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:] + message


def _may_report(data: bytes, view: View, kind: int) -> bool:
    source, destination = data[place(view.family, SRC)], data[place(view.family, DST)]
    payload = data[view.l4 :]
    if view.family == 4:
        if source[0] in (0, 127) or source[0] >= 224 or destination[0] >= 224:
            return False
        if view.fragment_at or is_icmp_error(view, payload):
            return False
        return kind != TOO_BIG or view.dont_fragment
    if source[0] == 0xFF or int.from_bytes(source) <= 1:
        return False
    if destination[0] == 0xFF and kind != TOO_BIG:
        return False
    if view.proto == ICMP6:
        return not view.fragment_at and payload[0] >= 128 and payload[0] != 137
    return True


def _on_the_wire(data: bytes, view: View, offload: Offload) -> bytes:
    """The packet, or first segment of it, with every checksum filled in."""
    data = data[: view.ip_len]
    if offload.csum == PARTIAL and not offload.gso_type:
        at = offload.csum_start + offload.csum_offset
        value = checksum(data[offload.csum_start :])
        if value == 0 and (offload.csum_offset == 6 or view.proto in ZERO_MEANS_NONE):
            value = 0xFFFF
        return data if offload.csum_offset == 0 else _put(data, at, value)
    if offload.gso_type:
        data = _first_segment(data, view, offload)
    field = CHECKSUM_AT[view.family].get(view.proto)
    if offload.csum == FULL or field is None or view.routing_active or view.is_fragment:
        return data
    if len(data) < view.l4 + SHORTEST[view.family][view.proto]:
        return data
    data = _put(data, view.l4 + field, 0)
    addresses = data[place(view.family, SRC)], data[place(view.family, DST)]
    value = checksum(data[view.l4 :], pseudo(*addresses, view.proto, len(data) - view.l4))
    return _put(data, view.l4 + field, value or (0xFFFF if view.proto in ZERO_MEANS_NONE else 0))


def _first_segment(data: bytes, view: View, offload: Offload) -> bytes:
    header = (data[view.l4 + 12] >> 4) * 4 if view.proto == TCP else 8
    segment = data[: view.l4 + header + offload.gso_size]
    at, length = (2, len(segment)) if view.family == 4 else (4, len(segment) - 40)
    if view.family == 4:
        (held,) = struct.unpack_from(">H", data, 10)
        segment = _put(segment, 10, mended(held, data[2:4], struct.pack(">H", length)))
    segment = _put(segment, at, length)
    if len(segment) < view.l4 + SHORTEST[view.family][view.proto]:
        return segment
    if view.proto != TCP:
        return _put(segment, view.l4 + 4, len(segment) - view.l4)
    if len(segment) < len(data):
        flags = view.l4 + 13
        segment = segment[:flags] + bytes([segment[flags] & ~0x09]) + segment[flags + 1 :]
    return segment


def _put(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + struct.pack(">H", value) + data[at + 2 :]


def echo_reply(data: bytes, view: View, offload: Offload = PLAIN) -> bytes:
    """``data``, an echo request, as its reply; a damaged request gives a damaged reply."""
    data = data[: view.ip_len]
    source, destination = place(view.family, SRC), place(view.family, DST)
    hops = 8 if view.family == 4 else 7
    head = bytearray(data[: view.l4])
    head[source], head[destination] = data[destination], data[source]
    head[hops] = 64
    if view.family == 4:
        (held,) = struct.unpack_from(">H", data, 10)
        head[10:12] = struct.pack(">H", mended(held, data[8:10], bytes(head[8:10])))
    icmp = data[view.l4 :]
    reply = bytes([0 if view.family == 4 else 129]) + icmp[1:]
    if offload.csum != FULL and not (offload.csum == PARTIAL and offload.csum_start != view.l4):
        return bytes(head) + reply
    held = mended(struct.unpack_from(">H", icmp, 2)[0], icmp[:2], reply[:2])
    reply = _put(reply, 2, 0)
    if view.family == 4 and held == 0 and folded(words(reply)) == 0:
        held = 0xFFFF  # the only sum over nothing but zeros
    return bytes(head) + _put(reply, 2, held)
