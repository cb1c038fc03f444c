"""Bytes of the packets that packets.yaml describes.

A packet is a list of layers, outermost first, each a name with its fields; what a layer does
not say is filled in correctly (lengths, next headers, checksums). What it does say is
written as it stands, right or wrong. Built from struct and the checksum oracle only.
"""

import struct
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from tests.oracle.checksum import ZERO_MEANS_NONE, checksum, mended, pseudo, words

ADDRESSES = {
    4: {
        "client": "192.0.2.33",
        "global": "203.0.113.10",
        "local": "10.20.0.10",
        "router": "198.51.100.1",
        "other": "198.51.100.77",
    },
    6: {
        "client": "2001:db8:c::33",
        "global": "2001:db8:60b:a1::10",
        "local": "2001:db8:10ca:1::10",
        "router": "2001:db8:7::1",
        "other": "2001:db8:7::77",
    },
}
PROTOCOL = {
    "ip4": 4, "ip6": 41, "tcp": 6, "udp": 17, "dccp": 33, "sctp": 132, "udplite": 136, "icmp": 1, "icmp6": 58,
    "mobility": 135, "esp": 50, "ah": 51, "gre": 47, "hopopts": 0, "routing": 43, "frag": 44, "dstopts": 60,
}  # fmt: skip
CSUM_AT = {"tcp": 16, "udp": 6, "udplite": 6, "dccp": 6, "icmp6": 2, "icmp": 2, "mobility": 4}

Fields = dict[str, Any]
Layer = tuple[str, Any]


def address(name: str, family: int) -> bytes:
    """One of the names above, or an address."""
    return ip_address(ADDRESSES[family].get(name, name)).packed


def pattern(size: int) -> bytes:
    return bytes((i * 7 + 1) & 0xFF for i in range(size))


def layers_of(description: list[Any]) -> list[Layer]:
    return [(item, {}) if isinstance(item, str) else next(iter(item.items())) for item in description]


def build(description: list[Any]) -> bytes:
    """The packet of a list of layers such as ``[{ip4: {ttl: 1}}, udp, {data: 20}]``."""
    return _from(layers_of(description), ())


def _from(layers: list[Layer], ends: tuple[bytes, ...]) -> bytes:
    """ends: source and final destination of the IP header around."""
    if not layers:
        return b""
    (name, fields), inside = layers[0], layers[1:]
    if name in ("ip4", "ip6"):
        return _ip(name, fields, inside)
    if name == "data":
        return pattern(fields) if isinstance(fields, int) else bytes.fromhex(fields)
    if name == "quote":
        whole = _from(layers_of(fields["packet"]), ())
        return whole[: fields.get("cut", len(whole))] + bytes.fromhex(fields.get("then", ""))
    if name == "routing" and fields.get("left", 0):
        ends = (ends[0], address(fields.get("final", "other"), 6))
    payload = _from(inside, ends)
    return LAYERS[name](name, fields, payload, inside[0][0] if inside else "", ends)


def _ip(name: str, fields: Fields, inside: list[Layer]) -> bytes:
    family = 4 if name == "ip4" else 6
    source = address(fields.get("src", "client"), family)
    destination = address(fields.get("dst", "global"), family)
    payload = _from(inside, (source, destination))
    proto = fields.get("proto", PROTOCOL.get(inside[0][0], 59) if inside else 59)
    ttl, tos = fields.get("ttl", 64), fields.get("tos", 0)
    if family == 6:
        first = 6 << 28 | tos << 20 | fields.get("flow", 0x12345)
        length = fields.get("len", len(payload))
        return struct.pack(">IHBB", first, length, proto, ttl) + source + destination + payload
    start, end = fields.get("fragment", (0, len(payload)))
    more = 0x2000 if fields.get("more", end < len(payload)) else 0
    payload = payload[start:end]
    options = bytes.fromhex(fields.get("options", ""))
    header = struct.pack(
        ">BBHHHBBH",
        fields.get("first", 0x45 + len(options) // 4),
        tos,
        fields.get("len", 20 + len(options) + len(payload)),
        fields.get("id", 0x1234),
        fields.get("offset", start) // 8 | more | (0x4000 if fields.get("df") else 0),
        ttl,
        proto,
        0,
    )
    header += source + destination + options
    return header[:10] + struct.pack(">H", fields.get("csum", checksum(header))) + header[12:] + payload


def _extension(name: str, fields: Fields, payload: bytes, inner: str, ends: tuple[bytes, ...]) -> bytes:
    proto = fields.get("next", PROTOCOL.get(inner, 59))
    if name == "frag":
        start, end = fields.get("fragment", (0, len(payload)))
        more = fields.get("more", end < len(payload))
        offset = fields.get("offset", start) | int(more)
        return struct.pack(">BBHI", proto, 0, offset, fields.get("id", 0x9ABCDEF0)) + payload[start:end]
    size = fields.get("size", 24 if name == "routing" else 8)
    body = bytes([proto, fields.get("length", size // 8 - 1)])
    if name == "routing":
        body += bytes([fields.get("type", 4), fields.get("left", 0)]) + bytes(4)
        body += address(fields.get("final", "other"), 6)
    else:
        body += bytes([1, size - 4])  # PadN
    return body.ljust(size, b"\0") + payload


def _ah(name: str, fields: Fields, payload: bytes, inner: str, ends: tuple[bytes, ...]) -> bytes:
    return struct.pack(">BBHII", PROTOCOL[inner], 4, 0, 0x100, 1) + pattern(12) + payload


def _plain(name: str, fields: Fields, payload: bytes, inner: str, ends: tuple[bytes, ...]) -> bytes:
    """Headers without an Internet checksum."""
    if name == "sctp":
        return struct.pack(">HHII", 40000, 80, 0xCAFE, 0x0BADC0DE) + payload
    if name == "gre":
        return struct.pack(">HH", 0, 0x0800) + payload
    return struct.pack(">II", 0x1001, 7) + payload  # ESP


def _transport(name: str, fields: Fields, payload: bytes, inner: str, ends: tuple[bytes, ...]) -> bytes:
    """Headers with one; csum: a number, or "wrong"; tune: what the right checksum shall be."""
    header = _header(name, fields, len(payload))
    body = header + payload
    proto, at = PROTOCOL[name], CSUM_AT[name]
    cover = 0 if name == "icmp" else pseudo(ends[0], ends[1], proto, len(body))
    if "tune" in fields:
        body = _tuned(body, len(header), at, cover, _wanted(fields["tune"], proto, ends))
    right = checksum(body, cover)
    if proto in ZERO_MEANS_NONE and right == 0:
        right = 0xFFFF
    field = fields.get("csum", right)
    if field == "wrong":
        field = right ^ 0x0101
    return body[:at] + struct.pack(">H", field) + body[at + 2 :]


def _header(name: str, fields: Fields, size: int) -> bytes:
    ports = struct.pack(">HH", fields.get("sport", 40000), fields.get("dport", 80))
    if name == "tcp":
        options = bytes.fromhex(fields.get("options", ""))
        size_and_flags = fields.get("words", 5 + len(options) // 4) << 4, fields.get("flags", 0x18)
        return ports + struct.pack(">IIBBHHH", 0x01020304, 0x05060708, *size_and_flags, 512, 0, 0) + options
    if name == "udp":
        return ports + struct.pack(">HH", fields.get("len", 8 + size), 0)
    if name == "udplite":
        return ports + struct.pack(">HH", 0, 0)  # coverage: everything
    if name == "dccp":
        return ports + bytes([4, 0, 0, 0, 0x10, 0, 0, 9])  # CsCov 0, short sequence number
    if name == "mobility":
        return bytes([59, 0, 5, 0, 0, 0, 0, 0])
    kind, code = fields.get("type", 8 if name == "icmp" else 128), fields.get("code", 0)
    return bytes([kind, code, 0, 0]) + bytes.fromhex(fields.get("rest", "0a0b0001"))


def _wanted(tune: int | str, proto: int, ends: tuple[bytes, ...]) -> int:
    """For "zero after": the value that is 0, or 0xffff where 0 means none, once global became local."""
    if tune != "zero after":
        assert isinstance(tune, int)
        return tune
    family = 4 if len(ends[0]) == 4 else 6
    end = 0xFFFF if proto in ZERO_MEANS_NONE else 0
    return mended(end, address("local", family), address("global", family), proto in ZERO_MEANS_NONE)


def _tuned(body: bytes, header: int, at: int, cover: int, field: int) -> bytes:
    """The first word of the payload is chosen so that the checksum is ``field``."""
    rest = body[:at] + b"\0\0" + body[at + 2 : header] + b"\0\0" + body[header + 2 :]
    word = (0xFFFF - field - words(rest) - cover) % 65535
    return body[:header] + struct.pack(">H", word) + body[header + 2 :]


LAYERS: dict[str, Callable[[str, Fields, bytes, str, tuple[bytes, ...]], bytes]] = {
    **dict.fromkeys(("hopopts", "dstopts", "routing", "frag"), _extension),
    **dict.fromkeys(("sctp", "gre", "esp"), _plain),
    **dict.fromkeys(("tcp", "udp", "udplite", "dccp", "icmp", "icmp6", "mobility"), _transport),
    "ah": _ah,
}
