"""Slow, obvious models of encapsulation, segmentation, fragmentation and coalescing.

Everything is bytes in, bytes out, written from the RFCs one field at a time and
sharing nothing with the C core: no incremental sums, no views, no buffers.
Packets without extension headers only, except where stated.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address

TCP, UDP, ICMP, ICMP6, IPIP, IPV6 = 6, 17, 1, 58, 4, 41
FIN, PSH, CWR = 0x01, 0x08, 0x80
NOT_ECT, ECT1, ECT0, CE = range(4)


def ones_sum(data: bytes) -> int:
    """The folded 16-bit ones' complement sum of ``data`` (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes) -> int:
    return ones_sum(data) ^ 0xFFFF


def family(packet: bytes) -> int:
    return packet[0] >> 4


def ip_header_len(packet: bytes) -> int:
    return (packet[0] & 15) * 4 if family(packet) == 4 else 40


def addresses(packet: bytes) -> bytes:
    return packet[12:20] if family(packet) == 4 else packet[8:40]


def proto(packet: bytes) -> int:
    return packet[9] if family(packet) == 4 else packet[6]


def ttl(packet: bytes) -> int:
    return packet[8] if family(packet) == 4 else packet[7]


def tos(packet: bytes) -> int:
    if family(packet) == 4:
        return packet[1]
    return struct.unpack("!H", packet[:2])[0] >> 4 & 0xFF


def pseudo(packet: bytes, protocol: int, length: int) -> bytes:
    return addresses(packet) + struct.pack("!II", protocol, length)


def with_header_sum(header: bytes) -> bytes:
    zeroed = header[:10] + b"\0\0" + header[12:]
    return header[:10] + struct.pack("!H", checksum(zeroed)) + header[12:]


def with_lengths(packet: bytes) -> bytes:
    """The packet with its IP length, and IPv4 sum, made true."""
    n = ip_header_len(packet)
    if family(packet) == 4:
        return with_header_sum(packet[:2] + struct.pack("!H", len(packet)) + packet[4:n]) + packet[n:]
    return packet[:4] + struct.pack("!H", len(packet) - 40) + packet[6:]


def with_l4_sum(packet: bytes, at: int) -> bytes:
    """The packet with the checksum field ``at`` bytes into its TCP or UDP header filled in."""
    n = ip_header_len(packet)
    l4 = packet[n : n + at] + b"\0\0" + packet[n + at + 2 :]
    value = checksum(pseudo(packet, proto(packet), len(l4)) + l4)
    if value == 0 and proto(packet) == UDP:
        value = 0xFFFF
    return packet[:n] + l4[:at] + struct.pack("!H", value) + l4[at + 2 :]


def l4_sum_ok(packet: bytes) -> bool:
    l4 = packet[ip_header_len(packet) :]
    return ones_sum(pseudo(packet, proto(packet), len(l4)) + l4) == 0xFFFF


# ---- encapsulation ---------------------------------------------------------


def dont_fragment(packet: bytes) -> bool:
    return family(packet) == 6 or bool(packet[6] & 0x40)


def encap(
    inner: bytes, local: str, remote: str, *, gue_port: int = 0, entropy: int = 0, ip_id: int = 0
) -> bytes:
    """The tunnel packet around ``inner``; GUE if there is a port, else IP-in-IP."""
    source, target = ip_address(local), ip_address(remote)
    payload, protocol = inner, IPIP if family(inner) == 4 else IPV6
    if gue_port:
        gue = struct.pack("!BBH", 0, protocol, 0)
        udp = struct.pack("!HHHH", 49152 + entropy % 16384, gue_port, 8 + 4 + len(inner), 0)
        payload, protocol = udp + gue + inner, UDP
    if source.version == 4:
        flags = 0x4000 if dont_fragment(inner) else 0
        header = struct.pack(
            "!BBHHHBBH", 0x45, tos(inner), 20 + len(payload), ip_id, flags, ttl(inner), protocol, 0
        )
        return with_header_sum(header + source.packed + target.packed) + payload
    word = 6 << 28 | tos(inner) << 20 | entropy
    return (
        struct.pack("!IHBB", word, len(payload), protocol, ttl(inner))
        + source.packed
        + target.packed
        + payload
    )


# RFC 6040 figure 4: [inner][outer], None = drop
ECN_DECAP: dict[int, dict[int, int | None]] = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT0: NOT_ECT, ECT1: NOT_ECT, CE: None},
    ECT0: {NOT_ECT: ECT0, ECT0: ECT0, ECT1: ECT1, CE: CE},
    ECT1: {NOT_ECT: ECT1, ECT0: ECT1, ECT1: ECT1, CE: CE},
    CE: {NOT_ECT: CE, ECT0: CE, ECT1: CE, CE: CE},
}


@dataclass(frozen=True)
class Refused(Exception):
    verdict: str


def _gue(packet: bytes) -> tuple[int, bytes]:
    n = ip_header_len(packet)
    udp = packet[n:]
    if len(udp) < 12:
        raise Refused("TUNNEL_HEADER")
    length, field = struct.unpack("!HH", udp[4:8])
    if length < 12 or length > len(udp):
        raise Refused("TUNNEL_HEADER")
    udp = udp[:length]
    if field and ones_sum(pseudo(packet, UDP, length) + udp) != 0xFFFF:
        raise Refused("TUNNEL_HEADER")
    variant = udp[8] >> 6
    if variant == 0 and udp[8] == 0 and udp[9] in (IPIP, IPV6) and udp[10:12] == b"\0\0":
        return (4 if udp[9] == IPIP else 6), udp[12:]
    if variant == 1 and udp[8] >> 4 in (4, 6):
        return udp[8] >> 4, udp[8:]
    raise Refused("TUNNEL_HEADER")


def decap(packet: bytes) -> bytes:
    """The packet inside; raises ``Refused``. The outer header is taken as valid and whole."""
    n = ip_header_len(packet)
    total = (
        struct.unpack("!H", packet[2:4])[0]
        if family(packet) == 4
        else 40 + struct.unpack("!H", packet[4:6])[0]
    )
    packet = packet[:total]
    if family(packet) == 4 and struct.unpack("!H", packet[6:8])[0] & 0x3FFF:
        raise Refused("TUNNEL_HEADER")
    if proto(packet) == UDP:
        version, inner = _gue(packet)
    elif proto(packet) in (IPIP, IPV6):
        version, inner = (4 if proto(packet) == IPIP else 6), packet[n:]
    else:
        raise Refused("TUNNEL_HEADER")
    smallest = 20 if version == 4 else 40
    if len(inner) < smallest or family(inner) != version:
        raise Refused("TUNNEL_INNER")
    length = struct.unpack("!H", inner[2:4])[0] if version == 4 else 40 + struct.unpack("!H", inner[4:6])[0]
    if ip_header_len(inner) < 20 or length < ip_header_len(inner) or length > len(inner):
        raise Refused("TUNNEL_INNER")
    ecn = ECN_DECAP[tos(inner) & 3][tos(packet) & 3]
    if ecn is None:
        raise Refused("TUNNEL_INNER")
    return with_tos_and_ttl(inner[:length], tos(inner) & ~3 | ecn, min(ttl(inner), ttl(packet)))


def with_tos_and_ttl(packet: bytes, new_tos: int, new_ttl: int) -> bytes:
    if family(packet) == 6:
        word = struct.unpack("!I", packet[:4])[0] & ~(0xFF << 20) | new_tos << 20
        return struct.pack("!I", word) + packet[4:7] + bytes([new_ttl]) + packet[8:]
    n = ip_header_len(packet)
    header = packet[:1] + bytes([new_tos]) + packet[2:8] + bytes([new_ttl]) + packet[9:n]
    return with_header_sum(header) + packet[n:]


# ---- segmentation ----------------------------------------------------------


def segment(packet: bytes, size: int, *, fixed_id: bool = False, no_sum: bool = False) -> list[bytes]:
    """The packets that a TCP or UDP super-packet of ``size`` bytes of payload each stands for."""
    n = ip_header_len(packet)
    is_tcp = proto(packet) == TCP
    l4 = (packet[n + 12] >> 4) * 4 if is_tcp else 8
    head, payload = packet[: n + l4], packet[n + l4 :]
    pieces = [payload[i : i + size] for i in range(0, len(payload), size)] or [b""]
    out = []
    for index, piece in enumerate(pieces):
        header = bytearray(head)
        if family(packet) == 4 and not fixed_id:
            header[4:6] = struct.pack("!H", (struct.unpack("!H", head[4:6])[0] + index) % 65536)
        if is_tcp:
            seq = (struct.unpack("!I", head[n + 4 : n + 8])[0] + index * size) % 2**32
            header[n + 4 : n + 8] = struct.pack("!I", seq)
            if index < len(pieces) - 1:
                header[n + 13] &= ~(FIN | PSH)
            if index > 0:
                header[n + 13] &= ~CWR
        else:
            header[n + 4 : n + 6] = struct.pack("!H", 8 + len(piece))
        whole = with_lengths(bytes(header) + piece)
        out.append(whole if no_sum else with_l4_sum(whole, 16 if is_tcp else 6))
    return out


# ---- IPv4 fragmentation ----------------------------------------------------


def copied_options(options: bytes) -> bytes:
    """Those that RFC 791 wants in every fragment, padded to a multiple of four."""
    kept, at = b"", 0
    while at < len(options) and options[at] != 0:
        length = 1 if options[at] == 1 else options[at + 1]
        if options[at] & 0x80:
            kept += options[at : at + length]
        at += length
    return kept + b"\0" * (-len(kept) % 4)


def fragment4(packet: bytes, mtu: int) -> list[bytes]:
    if len(packet) <= mtu:
        return [packet]
    n = ip_header_len(packet)
    field = struct.unpack("!H", packet[6:8])[0]
    later = packet[:20] + copied_options(packet[20:n])
    later = bytes([0x40 | len(later) // 4]) + later[1:]
    out, at, payload = [], 0, packet[n:]
    while at < len(payload):
        head = packet[:n] if at == 0 else later
        room = mtu - len(head)
        piece = payload[at:] if len(payload) - at <= room else payload[at : at + room // 8 * 8]
        more = at + len(piece) < len(payload) or bool(field & 0x2000)
        flags = field & 0xC000 | (0x2000 if more else 0) | ((field & 0x1FFF) + at // 8)
        out.append(with_lengths(head[:6] + struct.pack("!H", flags) + head[8:] + piece))
        at += len(piece)
    return out


def reassemble4(pieces: list[bytes]) -> bytes:
    """The payload that a receiver gets, whatever the order of the pieces."""
    data = bytearray()
    for piece in pieces:
        at = (struct.unpack("!H", piece[6:8])[0] & 0x1FFF) * 8
        body = piece[ip_header_len(piece) :]
        data[len(data) :] = bytes(max(0, at + len(body) - len(data)))
        data[at : at + len(body)] = body
    return bytes(data)


# ---- coalescing ------------------------------------------------------------


def tcp_flow(packet: bytes) -> bytes:
    """What makes two TCP packets one flow."""
    n = ip_header_len(packet)
    return addresses(packet) + packet[n : n + 4]


def joins(held: list[bytes], packet: bytes) -> bool:
    """Whether the segments ``held`` and then ``packet`` are what one super-packet stands for."""
    n = ip_header_len(held[0])
    header = n + (held[0][n + 12] >> 4) * 4
    size = len(held[0]) - header
    together = held[0][:header] + b"".join(p[header:] for p in [*held, packet])
    if len(together) > 65535 or size <= 0 or len(packet) <= header:
        return False
    flags = held[0][n + 13] | packet[n + 13] & (FIN | PSH)
    together = together[: n + 13] + bytes([flags]) + together[n + 14 :]
    for fixed in (False, True) if dont_fragment(packet) else (False,):
        if segment(with_lengths(together), size, fixed_id=fixed) == [*held, packet]:
            return True
    return False
