"""Small IP packets for tests that only need one: no scapy, correct checksums."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from tests.oracle.checksum import checksum


def udp4(
    source: str, destination: str, payload: bytes, *, ttl: int = 64, dont_fragment: bool = False
) -> bytes:
    """UDP from port 1 to port 2, without UDP checksum."""
    addresses = IPv4Address(source).packed + IPv4Address(destination).packed
    flags = 0x4000 if dont_fragment else 0
    head = struct.pack(">BBHHHBBH", 0x45, 0, 28 + len(payload), 7, flags, ttl, 17, 0) + addresses
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    return head + struct.pack(">HHHH", 1, 2, 8 + len(payload), 0) + payload
