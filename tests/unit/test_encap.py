"""Encapsulation and its undoing: C core against the model, scapy as a third opinion (S1.6, S1.7)."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6

from ipshare.core import ffi, lib
from tests.examples import examples
from tests.oracle import encap as oracle
from tests.packet_doors import EGRESS, GSO_TCP, PARTIAL, Packet, endpoint, ip, name, partial, tcp, udp

TUNNELS = {4: ("203.0.113.1", "203.0.113.9"), 6: ("2001:db8:ffff::1", "2001:db8:ffff::9")}
CASES = [(outer, inner, gue) for outer in (4, 6) for inner in (4, 6) for gue in (0, 6080)]


def outward(
    packet: bytes, outer: int, gue: int, entropy: int = 0x1234, ip_id: int = 0xBEEF
) -> tuple[str, bytes]:
    p = Packet(packet)
    verdict = lib.ips_encap_packet(p.c, endpoint(*TUNNELS[outer], gue_port=gue), entropy, ip_id)
    return name(verdict), p.data


def inward(packet: bytes, **fields: int) -> tuple[str, Packet, Any]:
    p, info = Packet(packet, **fields), ffi.new("struct ips_tunnel_info *")
    return name(lib.ips_decap_packet(p.c, info)), p, info


def expected_inward(packet: bytes) -> tuple[str, bytes]:
    try:
        return "OK", oracle.decap(packet)
    except oracle.Refused as refused:
        return refused.verdict, packet


def wrapped(packet: bytes, outer: int, gue: int, **fields: int) -> bytes:
    return oracle.encap(packet, *TUNNELS[outer], gue_port=gue, **fields)


@pytest.mark.parametrize("outer,inner,gue", CASES)
@given(
    st.integers(0, 255),
    st.integers(2, 255),
    st.booleans(),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.integers(0, 99),
)
@examples(60)
def test_s1_6_encap_equals_model_and_comes_back(
    outer: int, inner: int, gue: int, tos: int, ttl: int, df: bool, entropy: int, ip_id: int, size: int
) -> None:
    packet = udp(inner, bytes(size), tos=tos, ttl=ttl, df=df)
    verdict, tunnel = outward(packet, outer, gue, entropy, ip_id)
    assert verdict == "OK"
    assert tunnel == oracle.encap(packet, *TUNNELS[outer], gue_port=gue, entropy=entropy, ip_id=ip_id)
    verdict, back, info = inward(tunnel)
    assert (verdict, back.data) == ("OK", packet)
    assert (info.encap, info.family) == (2 if gue else 1, outer)
    assert back.c.headroom == 64 + len(tunnel) - len(packet)


@pytest.mark.parametrize("outer,inner,gue", CASES)
def test_outer_header_as_scapy_reads_it(outer: int, inner: int, gue: int) -> None:
    packet = tcp(inner, b"x" * 100, tos=0xB9, ttl=17)
    tunnel = outward(packet, outer, gue, entropy=0x7FFF)[1]
    seen = (IP if outer == 4 else IPv6)(tunnel)
    assert (seen.src, seen.dst) == TUNNELS[outer]
    if outer == 4:
        assert (seen.tos, seen.ttl, seen.id, str(seen.flags), seen.len) == (
            0xB9,
            17,
            0xBEEF,
            "DF",
            len(tunnel),
        )
        assert IP(bytes(IP(tunnel).copy())).chksum == seen.chksum
    else:
        assert (seen.tc, seen.hlim, seen.fl, seen.plen) == (0xB9, 17, 0x7FFF, len(tunnel) - 40)
    if gue:
        datagram = seen[UDP]
        assert (datagram.sport, datagram.dport, datagram.chksum) == (49152 + 0x3FFF, 6080, 0)
        assert datagram.len == len(packet) + 12
        assert bytes(datagram)[8:12] == bytes([0, 4 if inner == 4 else 41, 0, 0])
        assert bytes(datagram)[12:] == packet
    else:
        assert (seen.proto if outer == 4 else seen.nh) == (4 if inner == 4 else 41)


def test_df_clear_inner_packet_has_df_clear_outer() -> None:
    assert IP(outward(udp(4, b"", df=False), 4, 0)[1]).flags == 0


@pytest.mark.parametrize("inner_ecn", range(4))
@pytest.mark.parametrize("outer_ecn", range(4))
@pytest.mark.parametrize("outer,inner,gue", CASES)
def test_rfc6040_decapsulation(outer: int, inner: int, gue: int, inner_ecn: int, outer_ecn: int) -> None:
    packet = udp(inner, b"payload", tos=0x28 | inner_ecn)
    tunnel = oracle.with_tos_and_ttl(wrapped(packet, outer, gue), 0x50 | outer_ecn, 64)
    verdict, back, _ = inward(tunnel)
    ecn = oracle.ECN_DECAP[inner_ecn][outer_ecn]
    if ecn is None:
        assert (verdict, back.data) == ("TUNNEL_INNER", tunnel)
    else:
        assert (verdict, back.data) == ("OK", oracle.with_tos_and_ttl(packet, 0x28 | ecn, 64))


@pytest.mark.parametrize("outer,inner,gue", CASES)
def test_ttl_counts_on_through_the_tunnel(outer: int, inner: int, gue: int) -> None:
    packet = tcp(inner, b"", ttl=30)
    for outer_ttl, left in ((1, 1), (29, 29), (30, 30), (255, 30)):
        tunnel = oracle.with_tos_and_ttl(wrapped(packet, outer, gue), 0, outer_ttl)
        assert inward(tunnel)[1].data == oracle.with_tos_and_ttl(packet, 0, left)


@pytest.mark.parametrize("outer", (4, 6))
@pytest.mark.parametrize("inner", (4, 6))
def test_gue_variant_1_and_verified_sums(outer: int, inner: int) -> None:
    packet = udp(inner, b"12345")
    tunnel = wrapped(packet, outer, 6080)
    n = oracle.ip_header_len(tunnel)
    length = len(packet) + 8
    direct = tunnel[: n + 4] + length.to_bytes(2, "big") + b"\0\0" + packet
    direct = oracle.with_l4_sum(oracle.with_lengths(direct), 6)
    verdict, back, info = inward(direct)
    assert (verdict, back.data, info.encap) == ("OK", packet, lib.IPS_ENCAP_GUE)
    for at in range(n, len(direct)):
        if at in (n + 6, n + 7):
            continue
        broken = direct[:at] + bytes([direct[at] ^ 0x10]) + direct[at + 1 :]
        assert inward(broken)[0] == "TUNNEL_HEADER", at


@pytest.mark.parametrize(
    "octets,verdict",
    [
        ("20040000", "TUNNEL_HEADER"),
        ("01040000", "TUNNEL_HEADER"),
        ("00040001", "TUNNEL_HEADER"),
        ("00048000", "TUNNEL_HEADER"),
        ("00060000", "TUNNEL_HEADER"),
        ("003b0000", "TUNNEL_HEADER"),
        ("80040000", "TUNNEL_HEADER"),
        ("c0040000", "TUNNEL_HEADER"),
        ("70040000", "TUNNEL_HEADER"),
        ("00290000", "TUNNEL_INNER"),
        ("00040000", "OK"),
    ],
)
def test_gue_header_octets(octets: str, verdict: str) -> None:
    tunnel = wrapped(udp(4, b"abc"), 4, 6080)
    assert inward(tunnel[:28] + bytes.fromhex(octets) + tunnel[32:])[0] == verdict


@pytest.mark.parametrize("outer,inner,gue", CASES)
def test_truncated_at_every_byte(outer: int, inner: int, gue: int) -> None:
    tunnel = wrapped(tcp(inner, b"z" * 9), outer, gue)
    for cut in range(len(tunnel)):
        assert inward(tunnel[:cut])[0] != "OK", cut
        if cut >= oracle.ip_header_len(tunnel):
            whole = oracle.with_lengths(tunnel[:cut])  # a tunnel packet that is complete, but too short
            verdict, back, _ = inward(whole)
            assert verdict in ("TUNNEL_HEADER", "TUNNEL_INNER", "SHORT_L4"), (cut, verdict)
            assert back.data == whole


def test_mutated_tunnel_packets_equal_model() -> None:
    rng = random.Random(6040)
    accepted = 0
    for round_ in range(6000):
        outer, inner, gue = CASES[round_ % len(CASES)]
        body = tcp(inner, rng.randbytes(8)) if round_ % 3 else udp(inner, rng.randbytes(5))
        tunnel = bytearray(wrapped(body, outer, gue, entropy=rng.getrandbits(16)))
        start = oracle.ip_header_len(bytes(tunnel))
        for _ in range(rng.randint(0, 3)):
            tunnel[rng.randrange(start, min(len(tunnel), start + 60))] ^= 1 << rng.randrange(8)
        packet = bytes(tunnel) + bytes(rng.choice((0, 0, 6)))
        verdict, back, _ = inward(packet)
        want, data = expected_inward(packet)
        assert verdict == want, packet.hex()
        if verdict == "OK":
            accepted += 1
            data = data if oracle.family(data) == 6 else data  # a broken inner IPv4 sum stays broken:
            assert differs_only_in_sum(back.data, data), packet.hex()
        else:
            assert back.data in (packet, bytes(tunnel)), "changed although refused"
    assert accepted > 1000


def differs_only_in_sum(got: bytes, want: bytes) -> bool:
    if oracle.family(got) == 6:
        return got == want
    return got[:10] + got[12:] == want[:10] + want[12:]


def test_fragment_of_a_tunnel_packet_is_refused() -> None:
    tunnel = wrapped(udp(4, bytes(64)), 4, 0)
    fragment = oracle.with_header_sum(tunnel[:6] + b"\x20\0" + tunnel[8:20]) + tunnel[20:100]
    assert inward(oracle.with_lengths(fragment))[0] == "TUNNEL_HEADER"


def test_not_a_tunnel() -> None:
    assert inward(tcp(4, b""))[0] == "TUNNEL_HEADER"


def test_no_room_no_tunnel_bad_offload() -> None:
    packet, e = udp(6, b""), endpoint(*TUNNELS[6], gue_port=6080)
    for headroom, verdict in ((51, "NO_ROOM"), (52, "OK")):
        p = Packet(packet, headroom=headroom)
        assert name(lib.ips_encap_packet(p.c, e, 0, 0)) == verdict
        assert verdict == "OK" or p.data == packet
    big = Packet(udp(4, bytes(65535 - 28 - 19)))
    assert name(lib.ips_encap_packet(big.c, endpoint(*TUNNELS[4]), 0, 0)) == "NO_ROOM"
    no_tunnel = ffi.new("struct ips_endpoint_rec *")
    assert name(lib.ips_encap_packet(Packet(packet).c, no_tunnel, 0, 0)) == "NO_TUNNEL"
    gso = Packet(tcp(4, bytes(3000)), gso_type=GSO_TCP, gso_size=1000)
    assert name(lib.ips_encap_packet(gso.c, e, 0, 0)) == "BAD_OFFLOAD"
    unfinished = Packet(partial(udp(4, b"")), csum=PARTIAL, csum_start=20, csum_offset=6)
    assert name(lib.ips_encap_packet(unfinished.c, e, 0, 0)) == "BAD_OFFLOAD"
    assert name(lib.ips_encap_packet(Packet(packet, csum=EGRESS).c, e, 0, 0)) == "BAD_OFFLOAD"


def test_partial_checksum_of_the_inner_packet_moves_with_it() -> None:
    packet = partial(tcp(4, b"data"))
    tunnel = wrapped(packet, 4, 0)
    verdict, back, _ = inward(tunnel, csum=PARTIAL, csum_start=40, csum_offset=16)
    assert (verdict, back.data) == ("OK", packet)
    assert (back.c.csum, back.c.csum_start, back.c.csum_offset) == (PARTIAL, 20, 16)


def test_partial_checksum_of_the_gue_header_goes_with_it() -> None:
    packet = udp(6, b"data")
    tunnel = partial(wrapped(packet, 4, 6080))
    verdict, back, _ = inward(tunnel, csum=PARTIAL, csum_start=20, csum_offset=6)
    assert (verdict, back.data, back.c.csum) == ("OK", packet, 0)


def test_trailing_bytes_inside_the_tunnel_are_cut() -> None:
    packet = udp(4, b"abc")
    longer = oracle.with_lengths(wrapped(packet, 6, 0) + b"padding")
    back = inward(longer)[1]
    assert (back.data, back.c.total_len) == (packet, len(packet))


def test_tunnel_inside_of_a_tunnel() -> None:
    packet = tcp(6, b"deep")
    verdict, back, _ = inward(wrapped(wrapped(packet, 4, 0), 6, 6080))
    assert verdict == "OK"
    assert inward(back.data)[1].data == packet


def test_unknown_protocol_inside_is_carried() -> None:
    packet = ip(132, bytes(12), "192.0.2.1", "192.0.2.2")
    assert inward(outward(packet, 6, 6080)[1])[1].data == packet
