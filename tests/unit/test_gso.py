"""Partial checksums, segmentation and IPv4 fragmentation: C core against the model (DESIGN.md section 6)."""

from __future__ import annotations

import itertools
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, fragment
from scapy.layers.inet6 import IPv6

from ipshare.core import ffi, lib
from tests.examples import examples
from tests.oracle import encap as oracle
from tests.packet_doors import (
    GSO_TCP,
    GSO_UDP,
    PARTIAL,
    Collector,
    Packet,
    ends,
    ip,
    name,
    partial,
    segment,
    tcp,
    udp,
)

TIMESTAMPS = bytes.fromhex("0101080a1122334455667788")


def super_tcp(version: int, payload: bytes, size: int, **fields: object) -> Packet:
    data = partial(tcp(version, payload, **fields))  # type: ignore[arg-type]
    at = oracle.ip_header_len(data)
    return Packet(data, gso_type=GSO_TCP, gso_size=size, csum=PARTIAL, csum_start=at, csum_offset=16)


def super_udp(version: int, payload: bytes, size: int, **fields: object) -> Packet:
    data = partial(udp(version, payload, **fields))  # type: ignore[arg-type]
    at = oracle.ip_header_len(data)
    return Packet(data, gso_type=GSO_UDP, gso_size=size, csum=PARTIAL, csum_start=at, csum_offset=6)


@pytest.mark.parametrize("version", (4, 6))
@given(
    payload=st.binary(max_size=700),
    size=st.integers(1, 300),
    seq=st.integers(0, 2**32 - 1),
    flags=st.integers(0, 255),
    ip_id=st.integers(0, 65535),
    timestamps=st.booleans(),
    tos=st.integers(0, 255),
    fixed=st.booleans(),
)
@examples(150)
def test_tcp_segments_equal_model(
    version: int,
    payload: bytes,
    size: int,
    seq: int,
    flags: int,
    ip_id: int,
    timestamps: bool,
    tos: int,
    fixed: bool,
) -> None:
    flags &= ~0x06  # SYN, RST
    options = TIMESTAMPS if timestamps else b""
    packet = super_tcp(version, payload, size, seq=seq, flags=flags, ip_id=ip_id, options=options, tos=tos)
    packet.c.gso_flags = int(fixed)
    verdict, out = segment(packet)
    assert verdict == "OK"
    assert [p.data for p in out] == oracle.segment(packet.data, size, fixed_id=fixed)
    assert all(oracle.l4_sum_ok(p.data) and p.csum == 0 and p.gso_size == 0 and p.headroom == 64 for p in out)


@pytest.mark.parametrize("version", (4, 6))
def test_tcp_segments_as_scapy_reads_them(version: int) -> None:
    payload = random.Random(1).randbytes(4000)
    packet = super_tcp(version, payload, 1448, seq=2**32 - 1000, flags=0x99, ip_id=65535, options=TIMESTAMPS)
    seen = [(IP if version == 4 else IPv6)(p.data) for p in segment(packet)[1]]
    assert [s[TCP].seq for s in seen] == [2**32 - 1000, 448, 1896]
    assert [str(s[TCP].flags) for s in seen] == ["AC", "A", "FPA"]
    assert b"".join(bytes(s[TCP].payload) for s in seen) == payload
    if version == 4:
        assert [s.id for s in seen] == [65535, 0, 1]
    for s in seen:
        again = s.copy()
        del again[TCP].chksum
        assert type(s)(bytes(again))[TCP].chksum == s[TCP].chksum


@pytest.mark.parametrize("version", (4, 6))
@given(payload=st.binary(max_size=500), size=st.integers(1, 200), no_sum=st.booleans())
@examples(80)
def test_udp_segments_equal_model(version: int, payload: bytes, size: int, no_sum: bool) -> None:
    packet = super_udp(version, payload, size)
    if no_sum:
        at = oracle.ip_header_len(packet.data)
        ffi.memmove(packet.c.data + at + 6, b"\0\0", 2)
        packet.c.csum = 0
    verdict, out = segment(packet)
    assert verdict == "OK"
    assert [p.data for p in out] == oracle.segment(packet.data, size, no_sum=no_sum)


def test_udp_segment_never_says_no_checksum() -> None:
    first = udp(4, bytes(2))
    word = int.from_bytes(first[26:28], "big")  # with this as payload the sum comes out as 0
    packet = super_udp(4, word.to_bytes(2, "big") * 3, 2)
    assert [p.data[26:28] for p in segment(packet)[1]] == [b"\xff\xff"] * 3


def test_extension_headers_are_repeated() -> None:
    src, dst = ends(6)
    header = struct.pack("!HHIIBBHHH", 1, 2, 100, 0, 5 << 4, 0x10, 9, 0, 0)
    packet = ip(60, bytes([6, 0, 1, 4, 0, 0, 0, 0]) + header + bytes(range(50)), src, dst)
    out = segment(Packet(packet, gso_type=GSO_TCP, gso_size=20))[1]
    assert [len(p.data) for p in out] == [88, 88, 78]
    for index, p in enumerate(out):
        assert p.data[40:48] == packet[40:48]
        assert p.data[68:] == bytes(range(50))[index * 20 : index * 20 + 20]
        l4 = p.data[48:]
        assert oracle.ones_sum(oracle.pseudo(p.data, 6, len(l4)) + l4) == 0xFFFF


def test_routing_header_keeps_the_final_destination_in_the_sum() -> None:
    src, dst = ends(6)
    final = bytes.fromhex("20010db8000000000000000000000099")
    routing = bytes([6, 2, 4, 1, 0, 0, 0, 0]) + final
    header = struct.pack("!HHIIBBHHH", 1, 2, 100, 0, 5 << 4, 0x10, 9, 0, 0)
    packet = ip(43, routing + header + bytes(range(50)), src, dst)
    final_pseudo = packet[8:24] + final + struct.pack("!II", len(packet) - 64, 6)
    field = struct.pack("!H", oracle.ones_sum(final_pseudo))
    packet = packet[:80] + field + packet[82:]
    p = Packet(packet, gso_type=GSO_TCP, gso_size=20, csum=PARTIAL, csum_start=64, csum_offset=16)
    verdict, out = segment(p)
    assert (verdict, len(out)) == ("OK", 3)
    for piece in out:
        l4 = piece.data[64:]
        assert oracle.ones_sum(piece.data[8:24] + final + struct.pack("!II", len(l4), 6) + l4) == 0xFFFF
    p.c.csum = 0
    assert segment(p)[0] == "BAD_OFFLOAD"


def test_refused_super_packets() -> None:
    for flag in (0x02, 0x04):
        assert segment(super_tcp(4, bytes(100), 10, flags=0x10 | flag)) == ("BAD_OFFLOAD", [])
    assert segment(super_tcp(4, bytes(100), 0)) == ("BAD_OFFLOAD", [])
    wrong = super_tcp(4, bytes(100), 10)
    wrong.c.gso_type = GSO_UDP
    assert segment(wrong) == ("BAD_OFFLOAD", [])
    plain = Packet(tcp(4, bytes(100)))
    assert segment(plain) == ("BAD_OFFLOAD", [])
    offset = super_tcp(4, bytes(100), 10)
    for words in (0, 4, 15):
        offset.c.data[32] = words << 4
        offset.c.total_len = offset.c.len = 70
        ffi.memmove(offset.c.data, oracle.with_lengths(offset.data), 70)
        assert segment(offset) == ("BAD_OFFLOAD", [])
    small = super_tcp(4, bytes(3000), 1000)
    assert segment(small, headroom=64, scratch_bytes=64 + 40 + 999) == ("NO_ROOM", [])
    assert segment(small, headroom=64, scratch_bytes=64 + 40 + 1000)[0] == "OK"


# ---- partial checksums -----------------------------------------------------


@pytest.mark.parametrize("version", (4, 6))
@given(st.binary(max_size=80), st.booleans())
@settings(deadline=None)
def test_complete_csum(version: int, payload: bytes, is_tcp: bool) -> None:
    whole = (tcp if is_tcp else udp)(version, payload)
    at, offset = oracle.ip_header_len(whole), 16 if is_tcp else 6
    p = Packet(partial(whole), csum=PARTIAL, csum_start=at, csum_offset=offset)
    assert lib.ips_complete_csum(p.c) == 0
    assert (p.data, p.c.csum) == (whole, 0)
    assert lib.ips_complete_csum(p.c) == 0
    assert p.data == whole


def test_complete_csum_corner_values() -> None:
    """A payload word that runs through all values: TCP may write 0x0000, UDP writes 0xffff for it."""
    seen = set()
    base = udp(4, b"\0\0")
    p = Packet(base, csum=PARTIAL, csum_start=20, csum_offset=6)
    part = partial(base)
    for word in range(65536):
        ffi.memmove(p.c.data, part[:28] + struct.pack("!H", word), 30)
        p.c.csum = PARTIAL
        lib.ips_complete_csum(p.c)
        field = p.c.data[26] << 8 | p.c.data[27]
        seen.add(field)
    assert seen == set(range(1, 65536))


@pytest.mark.parametrize("fields", [(19, 6), (20, 9), (30, 0), (65535, 65535), (0, 0), (29, 0)])
def test_complete_csum_refuses_lies(fields: tuple[int, int]) -> None:
    p = Packet(partial(udp(4, b"\0\0")), csum=PARTIAL, csum_start=fields[0], csum_offset=fields[1])
    before = p.data
    assert name(lib.ips_complete_csum(p.c)) == "BAD_OFFLOAD"
    assert p.data == before


# ---- fragmentation ---------------------------------------------------------


def cut(packet: bytes, mtu: int, scratch_bytes: int = 70000, **fields: int) -> tuple[str, list[bytes]]:
    p, scratch, out = Packet(packet, **fields), ffi.new("uint8_t[]", scratch_bytes), Collector()
    verdict = lib.ips_fragment4_packet(p.c, mtu, scratch, scratch_bytes, 64, out.fn, ffi.NULL)
    assert p.data == packet
    return name(verdict), out.data


OPTIONS = {
    "none": b"",
    "copied": bytes([0x88, 4, 1, 2]),
    "not copied": bytes([0x07, 7, 4, 0, 0, 0, 0, 0]),
    "mixed": bytes([1, 0x44, 4, 5, 0, 0x94, 4, 0, 0, 0, 0, 0]),
    "odd": bytes([1, 0x82, 3, 9, 0x07, 3, 4, 0]),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@given(
    size=st.integers(0, 900),
    mtu=st.integers(68, 600),
    offset=st.sampled_from([0, 0x2000, 0x2003, 0x0010, 0x8000]),
)
@examples(80)
def test_fragments_equal_model(options: bytes, size: int, mtu: int, offset: int) -> None:
    size = size // 8 * 8 + 8 if offset & 0x3FFF else size
    payload = random.Random(size).randbytes(size)
    whole = ip(
        17, bytes(4) + struct.pack("!HH", 8 + size, 0) + payload, *ends(4), df=False, options=options, ip_id=7
    )
    n = oracle.ip_header_len(whole)
    whole = oracle.with_lengths(whole[:6] + struct.pack("!H", offset) + whole[8:])
    verdict, pieces = cut(whole, mtu)
    assert verdict == "OK"
    assert pieces == oracle.fragment4(whole, mtu)
    assert all(len(piece) <= mtu for piece in pieces)
    start = (offset & 0x1FFF) * 8
    assert oracle.reassemble4(pieces)[start:] == whole[n:]


def test_fragments_as_scapy_makes_them() -> None:
    whole = ip(17, udp(4, bytes(range(256)) * 8)[20:], *ends(4), df=False)
    mine = cut(whole, 596)[1]
    assert mine == [bytes(f) for f in fragment(IP(whole), fragsize=576)]


def test_fragments_cut_again_reassemble_to_the_same() -> None:
    whole = ip(17, udp(4, bytes(range(250)) * 9)[20:], *ends(4), df=False, options=OPTIONS["mixed"])
    twice = list(itertools.chain.from_iterable(cut(piece, 100)[1] for piece in cut(whole, 700)[1]))
    random.Random(3).shuffle(twice)
    assert oracle.reassemble4(twice) == whole[32:]


def test_what_must_not_be_fragmented() -> None:
    whole = ip(17, bytes(500), *ends(4), df=True)
    assert cut(whole, 300) == ("TOO_BIG", [])
    assert cut(whole, 520) == ("OK", [whole])
    assert cut(udp(6, bytes(500)), 300) == ("TOO_BIG", [])
    df_clear = ip(17, bytes(500), *ends(4), df=False)
    assert cut(df_clear, 27) == ("TOO_BIG", [])
    assert len(cut(df_clear, 28)[1]) == 63
    assert cut(df_clear, 300, scratch_bytes=363) == ("NO_ROOM", [])
    assert cut(df_clear, 300, scratch_bytes=364)[0] == "OK"
    assert cut(partial(udp(4, bytes(500), df=False)), 300, csum=PARTIAL, csum_start=20, csum_offset=6) == (
        "BAD_OFFLOAD",
        [],
    )
