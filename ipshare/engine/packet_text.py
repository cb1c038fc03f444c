"""packet_text: the bytes of a packet as words, the other way of packet_words. Pure; never raises.

``read(packet)`` gives the fields for JSON, ``describe(packet)`` one line for people: the same words that
packet_words understands, and of an ICMP error what it quotes. Bytes that are no IP packet are said to be so.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

from ipshare.engine.packet_words import FLAGS, PROTOCOLS, WITH_PORTS

NAMES = {number: name for name, number in PROTOCOLS.items()}
NAMES |= {4: "ipip", 41: "ip6"}
EXTENSIONS = (0, 43, 60)  # hop-by-hop, routing, destination options: passed over (RFC 8200 4)
ERRORS4, ERRORS6 = {3, 4, 5, 11, 12}, {1, 2, 3, 4}
MAX_DEPTH = 3


def describe(packet: bytes, depth: int = 0) -> str:
    """One line, such as ``tcp 198.51.100.7:1234 > 203.0.113.5:80 syn ttl 63 len 40``."""
    fields = read(packet, depth)
    if "malformed" in fields:
        return f"malformed: {fields['malformed']} ({len(packet)} bytes)"
    words = [fields["proto"], _endpoint(fields, "source"), ">", _endpoint(fields, "destination")]
    words += fields.get("flags", [])
    words += [f"type {fields['type']} code {fields['code']}"] if "type" in fields else []
    words += [f"mtu {fields['mtu']}"] if "mtu" in fields else []
    words += [f"ttl {fields['ttl']} len {fields['len']}"]
    words += ["df"] if fields["df"] else []
    if fields["fragment_at"] is not None:
        words.append(f"frag {fields['fragment_at']}{'+' if fields['more_fragments'] else ''}")
    words += [f"tos 0x{fields['tos']:02x}"] if fields["tos"] else []
    words += [f"carrying ({fields['carries']})"] if "carries" in fields else []
    words += [f"quoting ({fields['quotes']})"] if "quotes" in fields else []
    return " ".join(words)


def read(packet: bytes, depth: int = 0) -> dict[str, Any]:
    """Fields of the packet as JSON values; ``{"malformed": reason}`` where there is no whole IP header."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return _read4(packet, depth)
    if version == 6 and len(packet) >= 40:
        return _read6(packet, depth)
    return {"malformed": "shorter than an IP header" if version in (4, 6) else "neither IPv4 nor IPv6"}


def _endpoint(fields: dict[str, Any], side: str) -> str:
    address, port = fields[side], fields.get(f"{side}_port")
    if port is None:
        return str(address)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _read4(packet: bytes, depth: int) -> dict[str, Any]:
    where = _u16(packet, 6)
    at, more = (where & 0x1FFF) * 8, bool(where & 0x2000)
    fields: dict[str, Any] = {
        "family": 4,
        "proto": NAMES.get(packet[9], str(packet[9])),
        "source": str(IPv4Address(packet[12:16])),
        "destination": str(IPv4Address(packet[16:20])),
        "ttl": packet[8],
        "tos": packet[1],
        "len": _u16(packet, 2),
        "df": bool(where & 0x4000),
        "fragment_at": at if at or more else None,
        "more_fragments": more,
    }
    if not at:
        fields |= _transport(packet[9], packet[(packet[0] & 15) * 4 :], ERRORS4, depth)
    return fields


def _read6(packet: bytes, depth: int) -> dict[str, Any]:
    proto, offset, fragment, more = packet[6], 40, None, False
    while proto in (*EXTENSIONS, 44) and offset + 8 <= len(packet):
        if proto == 44:
            where = _u16(packet, offset + 2)
            fragment, more = where & 0xFFF8, bool(where & 1)
            proto, offset = packet[offset], offset + 8
        else:
            proto, offset = packet[offset], offset + (packet[offset + 1] + 1) * 8
    fields: dict[str, Any] = {
        "family": 6,
        "proto": NAMES.get(proto, str(proto)),
        "source": str(IPv6Address(packet[8:24])),
        "destination": str(IPv6Address(packet[24:40])),
        "ttl": packet[7],
        "tos": _u16(packet, 0) >> 4 & 0xFF,
        "len": 40 + _u16(packet, 4),
        "df": False,
        "fragment_at": fragment,
        "more_fragments": more,
    }
    if not fragment:
        fields |= _transport(proto, packet[offset:], ERRORS6, depth)
    return fields


def _transport(proto: int, data: bytes, errors: set[int], depth: int) -> dict[str, Any]:
    if NAMES.get(proto) in WITH_PORTS and len(data) >= 4:
        fields: dict[str, Any] = {"source_port": _u16(data, 0), "destination_port": _u16(data, 2)}
        if proto == 6 and len(data) >= 14:
            fields["flags"] = [name for name, bit in FLAGS.items() if data[13] & bit]
        return fields
    if proto in (1, 58) and len(data) >= 8:
        fields = {"type": data[0], "code": data[1]}
        if (proto, data[0]) in ((1, 3), (58, 2)) and int.from_bytes(data[4:8], "big"):
            fields["mtu"] = int.from_bytes(data[4:8], "big")
        if data[0] in errors and depth < MAX_DEPTH:
            fields["quotes"] = describe(data[8:], depth + 1)
        return fields
    if proto in (4, 41) and depth < MAX_DEPTH:
        return {"carries": describe(data, depth + 1)}
    return {}
