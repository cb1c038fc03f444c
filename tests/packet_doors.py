"""Packets for the tests of tunnels, offloads and fragments, and the way into the C core for them.

``Packet`` owns the memory of one ``struct ips_pkt``; its buffer ends where the packet ends, so
that a sanitizer sees the first byte read too far. ``Collector`` is an emit callback that keeps
what it was given as (bytes, offload fields).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from weakref import WeakKeyDictionary

from ipshare.core import VERDICTS, ffi, lib
from tests.oracle import encap as oracle

GSO_TCP, GSO_UDP = 1, 2
FULL, PARTIAL, EGRESS = 0, 1, 2
NONE = 0xFFFFFFFF
MEMORY: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def name(verdict: int) -> str:
    return VERDICTS[verdict].name


@dataclass(frozen=True)
class Emitted:
    data: bytes
    headroom: int = 0
    gso_type: int = 0
    gso_size: int = 0
    gso_flags: int = 0
    csum: int = FULL
    csum_start: int = 0
    csum_offset: int = 0


class Packet:
    """One packet in memory of its own. ``fields`` are members of ``struct ips_pkt``."""

    def __init__(self, data: bytes, headroom: int = 64, **fields: int) -> None:
        memory = ffi.new("uint8_t[]", headroom + len(data))
        ffi.memmove(memory + headroom, data, len(data))
        self.c = ffi.new("struct ips_pkt *")
        MEMORY[self.c] = memory  # lives as long as the struct, which may outlive this object
        self.c.data = memory + headroom
        self.c.len = self.c.total_len = len(data)
        self.c.headroom = headroom
        self.c.counter = self.c.endpoint = NONE
        for field, value in fields.items():
            setattr(self.c, field, value)

    @property
    def data(self) -> bytes:
        return taken(self.c).data


def taken(pkt: Any) -> Emitted:
    fields = ("headroom", "gso_type", "gso_size", "gso_flags", "csum", "csum_start", "csum_offset")
    return Emitted(bytes(ffi.buffer(pkt.data, pkt.len)), *(int(getattr(pkt, f)) for f in fields))


class Collector:
    """An ``ips_packet_fn``; ``packets`` is what was emitted."""

    def __init__(self) -> None:
        self.packets: list[Emitted] = []
        self.fn = ffi.callback(
            "void(void *, struct ips_pkt *)", lambda _arg, p: self.packets.append(taken(p))
        )

    @property
    def data(self) -> list[bytes]:
        return [p.data for p in self.packets]


def segment(packet: Packet, headroom: int = 64, scratch_bytes: int = 70000) -> tuple[str, list[Emitted]]:
    scratch, out = ffi.new("uint8_t[]", scratch_bytes), Collector()
    verdict = lib.ips_segment_packet(packet.c, scratch, scratch_bytes, headroom, out.fn, ffi.NULL)
    return name(verdict), out.packets


# ---- building packets ------------------------------------------------------


def ip(
    protocol: int,
    payload: bytes,
    src: str,
    dst: str,
    *,
    tos: int = 0,
    ttl: int = 64,
    ip_id: int = 1,
    df: bool = True,
    options: bytes = b"",
    flow_label: int = 0,
) -> bytes:
    """An IP packet of the addresses' family."""
    source, target = ip_address(src), ip_address(dst)
    if source.version == 6:
        word = 6 << 28 | tos << 20 | flow_label
        return (
            struct.pack("!IHBB", word, len(payload), protocol, ttl) + source.packed + target.packed + payload
        )
    n = 20 + len(options)
    flags = 0x4000 if df else 0
    header = struct.pack("!BBHHHBBH", 0x40 | n // 4, tos, n + len(payload), ip_id, flags, ttl, protocol, 0)
    return oracle.with_header_sum(header + source.packed + target.packed + options) + payload


def ends(version: int) -> tuple[str, str]:
    return ("192.0.2.1", "198.51.100.7") if version == 4 else ("2001:db8::1", "2001:db8:7::2")


def tcp(
    version: int,
    payload: bytes,
    *,
    seq: int = 1000,
    ack: int = 77,
    flags: int = 0x10,
    window: int = 512,
    options: bytes = b"",
    sport: int = 40000,
    dport: int = 443,
    reserved: int = 0,
    **fields: Any,
) -> bytes:
    src, dst = ends(version)
    offset = (20 + len(options)) // 4 << 4 | reserved
    header = struct.pack("!HHIIBBHHH", sport, dport, seq % 2**32, ack, offset, flags, window, 0, 0)
    return oracle.with_l4_sum(ip(6, header + options + payload, src, dst, **fields), 16)


def udp(version: int, payload: bytes, *, sport: int = 5000, dport: int = 53, **fields: Any) -> bytes:
    src, dst = ends(version)
    header = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0)
    return oracle.with_l4_sum(ip(17, header + payload, src, dst, **fields), 6)


def partial(packet: bytes) -> bytes:
    """The packet with the uncomplemented pseudo-header sum in its checksum field, as a TUN hands it over."""
    at = oracle.ip_header_len(packet)
    field = at + (16 if oracle.proto(packet) == oracle.TCP else 6)
    value = oracle.ones_sum(oracle.pseudo(packet, oracle.proto(packet), len(packet) - at))
    return packet[:field] + struct.pack("!H", value) + packet[field + 2 :]


def endpoint(local: str, remote: str, *, gue_port: int = 0) -> Any:
    """A ``struct ips_endpoint_rec`` whose tunnel is IP-in-IP, or GUE if there is a port."""
    e = ffi.new("struct ips_endpoint_rec *")
    e.encap = lib.IPS_ENCAP_GUE if gue_port else lib.IPS_ENCAP_IPIP
    e.tunnel_family = ip_address(local).version
    e.gue_port = gue_port
    ffi.memmove(e.tunnel_local, ip_address(local).packed, len(ip_address(local).packed))
    ffi.memmove(e.tunnel_remote, ip_address(remote).packed, len(ip_address(remote).packed))
    return e
