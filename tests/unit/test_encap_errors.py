"""ICMP errors about tunnel packets, cut anywhere, relayed to the inner sender (S1.7, RFC 2473 8)."""

from __future__ import annotations

import random
import struct
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
)

from ipshare.core import ffi, lib
from tests.oracle import encap as oracle
from tests.packet_doors import Packet, ends, ip, name, tcp, udp

TUNNELS = {4: ("203.0.113.1", "203.0.113.9"), 6: ("2001:db8:ffff::1", "2001:db8:ffff::9")}
ROUTER = {4: "198.18.0.1", 6: "2001:db8:aaaa::1"}
OURS = {4: "198.51.100.254", 6: "2001:db8:7::fe"}
CASES = [(outer, inner, gue) for outer in (4, 6) for inner in (4, 6) for gue in (0, 6080)]
TOO_BIG, TIME, UNREACHABLE = 1, 2, 3
# (type, code) that routers send, by family and kind; what the inner sender gets
SENT = {
    4: {TOO_BIG: [(3, 4)], TIME: [(11, 0)], UNREACHABLE: [(3, 0), (3, 1), (3, 3), (3, 13), (12, 0)]},
    6: {TOO_BIG: [(2, 0)], TIME: [(3, 0)], UNREACHABLE: [(1, 0), (1, 3), (1, 4), (4, 1)]},
}
RELAYED = {
    4: {TOO_BIG: (3, 4), TIME: (11, 0), UNREACHABLE: (3, 1)},
    6: {TOO_BIG: (2, 0), TIME: (3, 0), UNREACHABLE: (1, 3)},
}
KINDS = [
    (case, kind, tc) for case in CASES for kind in (TOO_BIG, TIME, UNREACHABLE) for tc in SENT[case[0]][kind]
]


def icmp_packet(version: int, src: str, dst: str, type_: int, code: int, rest: bytes, quote: bytes) -> bytes:
    message = bytes([type_, code, 0, 0]) + rest + quote
    if version == 4:
        message = message[:2] + struct.pack("!H", oracle.checksum(message)) + message[4:]
        return ip(1, message, src, dst)
    pseudo = ip_address(src).packed + ip_address(dst).packed + struct.pack("!II", len(message), 58)
    return ip(58, message[:2] + struct.pack("!H", oracle.checksum(pseudo + message)) + message[4:], src, dst)


def reported(quoted: bytes, type_: int, code: int, mtu: int = 0, length: int = 0, version: int = 0) -> bytes:
    """The error of a router inside the tunnel; ``length``: RFC 4884's field."""
    version = version or oracle.family(quoted)
    rest = struct.pack("!HH", 0, mtu) if version == 4 else struct.pack("!I", mtu)
    if length:
        rest = bytes([0, length]) + rest[2:] if version == 4 else bytes([length]) + rest[1:]
    return icmp_packet(version, ROUTER[version], TUNNELS[version][0], type_, code, rest, quoted)


def read(packet: bytes) -> tuple[str, Any, Packet]:
    p, out = Packet(packet), ffi.new("struct ips_tunnel_error *")
    return name(lib.ips_tunnel_error_packet(p.c, out)), out, p


def relay(packet: bytes, room: int = 1280, sources: bool = True) -> bytes:
    verdict, error, p = read(packet)
    assert verdict == "OK"
    out = ffi.new("uint8_t[]", max(room, 1))
    four, six = (ip_address(OURS[v]).packed.ljust(16, b"\0") if sources else bytes(16) for v in (4, 6))
    return bytes(ffi.buffer(out, lib.ips_relay_error(p.c, error, four, six, out, room)))


def wrapped(packet: bytes, outer: int, gue: int) -> bytes:
    return oracle.encap(packet, *TUNNELS[outer], gue_port=gue, entropy=5)


def overhead(outer: int, gue: int) -> int:
    return (20 if outer == 4 else 40) + (12 if gue else 0)


@pytest.mark.parametrize("case,kind,type_code", KINDS)
def test_s1_7_error_on_the_tunnel_reaches_the_inner_sender(
    case: tuple[int, int, int], kind: int, type_code: tuple[int, int]
) -> None:
    outer, inner, gue = case
    packet = tcp(inner, bytes(1200))
    error = reported(wrapped(packet, outer, gue)[:500], *type_code, mtu=1400)
    verdict, out, _ = read(error)
    assert (verdict, out.kind, out.family, out.inner_family) == ("OK", kind, outer, inner)
    assert (out.type, out.code) == type_code
    assert out.encap == (lib.IPS_ENCAP_GUE if gue else lib.IPS_ENCAP_IPIP)
    size = 4 if outer == 4 else 16
    addresses = [bytes(ffi.buffer(a))[:size] for a in (out.reporter, out.local, out.remote)]
    assert addresses == [ip_address(a).packed for a in (ROUTER[outer], *TUNNELS[outer])]
    assert (out.src_port, out.dst_port) == ((49152 + 5, 6080) if gue else (0, 0))
    assert out.mtu == (1400 - overhead(outer, gue) if kind == TOO_BIG else 0)
    assert bytes(error[out.inner_at : out.inner_at + out.inner_len]) == packet[: 500 - overhead(outer, gue)]
    check_relayed(relay(error), packet, kind, outer, out.mtu)


def check_relayed(answer: bytes, packet: bytes, kind: int, outer: int, mtu: int) -> None:
    inner = oracle.family(packet)
    seen = (IP if inner == 4 else IPv6)(answer)
    assert seen.src == (ROUTER if kind == TIME and outer == inner else OURS)[inner]
    assert seen.dst == ends(inner)[0]
    head = 48 if inner == 6 else 28
    assert packet.startswith(answer[head:]) and len(answer) >= head + 8
    assert answer == oracle.with_lengths(answer)
    if inner == 4:
        icmp = seen[ICMP]
        assert (icmp.type, icmp.code) == RELAYED[4][kind] and oracle.ones_sum(answer[20:]) == 0xFFFF
        assert kind != TOO_BIG or icmp.nexthopmtu == mtu
        return
    assert (answer[40], answer[41]) == RELAYED[6][kind]
    assert seen.haslayer(
        {TOO_BIG: ICMPv6PacketTooBig, TIME: ICMPv6TimeExceeded, UNREACHABLE: ICMPv6DestUnreach}[kind]
    )
    assert oracle.ones_sum(oracle.pseudo(answer, 58, len(answer) - 40) + answer[40:]) == 0xFFFF
    assert kind != TOO_BIG or seen[ICMPv6PacketTooBig].mtu == max(mtu, 1280)


@pytest.mark.parametrize("outer,inner,gue", CASES)
def test_quote_cut_at_every_byte(outer: int, inner: int, gue: int) -> None:
    packet = tcp(inner, b"0123456789")
    tunnel = wrapped(packet, outer, gue)
    named = (20 if outer == 4 else 40) + (8 if gue else 0)  # from here on the tunnel can be recognised
    addressed = overhead(outer, gue) + (20 if inner == 4 else 40)
    for cut in range(len(tunnel) + 1):
        error = reported(tunnel[:cut], *SENT[outer][TOO_BIG][0], mtu=1400, version=outer)
        verdict, out, _ = read(error)
        assert verdict == ("OK" if cut >= addressed else "TUNNEL_ERROR_BAD"), cut
        assert out.kind == (TOO_BIG if cut >= named else 0), cut
        assert out.mtu == (1400 - overhead(outer, gue) if cut >= named else 0), cut
        assert out.inner_family == (inner if cut >= addressed else 0)
        if verdict == "OK":
            answer = relay(error)
            assert answer[48 if inner == 6 else 28 :] == packet[: cut - overhead(outer, gue)]


@pytest.mark.parametrize("outer,inner,gue", CASES)
def test_error_itself_cut_at_every_byte(outer: int, inner: int, gue: int) -> None:
    error = reported(wrapped(tcp(inner, b"not zero"), outer, gue), *SENT[outer][TIME][0])
    for cut in range(len(error)):
        assert read(error[:cut])[0] != "OK"
        if cut >= oracle.ip_header_len(error):
            assert read(oracle.with_lengths(error[:cut]))[0] != "OK", "the checksum no longer holds"


@pytest.mark.parametrize("outer,inner,gue", CASES)
def test_every_flipped_bit_breaks_the_checksum(outer: int, inner: int, gue: int) -> None:
    error = reported(wrapped(tcp(inner, b""), outer, gue), *SENT[outer][TIME][0])
    start = oracle.ip_header_len(error)
    for bit in range(start * 8, len(error) * 8):
        flipped = bytearray(error)
        flipped[bit // 8] ^= 1 << bit % 8
        verdict, out, _ = read(bytes(flipped))
        assert (verdict, out.kind) == ("TUNNEL_ERROR_BAD", 0), bit


@pytest.mark.parametrize("length,kind", [(32, TIME), (32, UNREACHABLE), (16, TIME), (16, UNREACHABLE)])
def test_rfc4884_extensions_are_not_part_of_the_quote(length: int, kind: int) -> None:
    outer = 4 if length == 32 else 6
    packet = tcp(4, b"abc")
    quote = wrapped(packet, outer, 0).ljust(128, b"\0")
    extension = bytes.fromhex("2000dead0008010112345140")
    error = reported(quote + extension, *SENT[outer][kind][-1 if kind == TIME else 1], length=length)
    assert relay(error)[28:] == packet
    long = tcp(4, bytes(range(200)))
    error = reported(wrapped(long, outer, 0)[:128] + extension, *SENT[outer][kind][0], length=length)
    assert relay(error)[28:] == long[: 128 - overhead(outer, 0)]


def test_router_without_mtu_means_the_next_plateau() -> None:
    for total, mtu in ((1500, 1492), (1492, 1006), (9000, 8166), (300, 296), (100, 68)):
        tunnel = wrapped(udp(4, bytes(total - 48)), 4, 0)
        assert len(tunnel) == total
        assert read(reported(tunnel[:80], 3, 4, mtu=0))[1].mtu == mtu - 20


def test_small_mtus_are_raised_to_what_the_family_must_carry() -> None:
    assert IP(relay(reported(wrapped(tcp(4, b""), 4, 0), 3, 4, mtu=21)))[ICMP].nexthopmtu == 68
    assert read(reported(wrapped(tcp(4, b""), 4, 0), 3, 4, mtu=20))[1].mtu == 0
    assert IPv6(relay(reported(wrapped(tcp(6, b""), 4, 0), 3, 4, mtu=1280)))[ICMPv6PacketTooBig].mtu == 1280
    assert IP(relay(reported(wrapped(tcp(4, b""), 6, 0), 2, 0, mtu=2**32 - 1)))[ICMP].nexthopmtu == 65535


@pytest.mark.parametrize("type_,code", [(0, 0), (8, 0), (5, 0), (4, 0), (11, 1), (13, 0)])
def test_other_icmp_is_not_about_tunnels(type_: int, code: int) -> None:
    verdict, out, _ = read(reported(wrapped(tcp(4, b""), 4, 0), type_, code))
    assert (verdict, out.kind) == ("TUNNEL_ERROR_BAD", 0)


def test_quotes_that_are_no_tunnel_of_ours() -> None:
    tunnel = wrapped(udp(4, b"abc"), 4, 6080)
    for octets in ("20040000", "01040000", "00040001", "45000000"):
        verdict, out, _ = read(reported(tunnel[:28] + bytes.fromhex(octets) + tunnel[32:], 11, 0))
        assert (verdict, out.kind) == ("TUNNEL_ERROR_BAD", 0), octets
    for quote in (
        tcp(4, b"x"),
        tunnel[:6] + b"\x00\x10" + tunnel[8:],
        b"\x65" + tunnel[1:],
        b"\x44" + tunnel[1:],
    ):
        verdict, out, _ = read(reported(quote, 11, 0, version=4))
        assert (verdict, out.kind) == ("TUNNEL_ERROR_BAD", 0)


def inner4(**changes: Any) -> bytes:
    fields = {"protocol": 17, "payload": bytes(8), "src": "192.0.2.1", "dst": "198.51.100.7", **changes}
    return ip(fields.pop("protocol"), fields.pop("payload"), fields.pop("src"), fields.pop("dst"), **fields)


def inner6(protocol: int, payload: bytes, src: str = "2001:db8::1", dst: str = "2001:db8::2") -> bytes:
    return ip(protocol, payload, src, dst)


@pytest.mark.parametrize(
    "packet,answered",
    [
        (inner4(protocol=1, payload=bytes([8, 0]) + bytes(6)), True),
        (inner4(protocol=1, payload=bytes([3, 0]) + bytes(6)), False),
        (inner4(protocol=1, payload=bytes([11, 0]) + bytes(6)), False),
        (inner4(protocol=1, payload=b""), False),
        (inner4(src="224.0.0.1"), False),
        (inner4(src="0.0.0.0"), False),
        (inner4(src="127.0.0.1"), False),
        (inner4(dst="239.1.1.1"), False),
        (inner4(src="255.255.255.255"), False),
        (inner4(), True),
        (inner6(17, bytes(8)), True),
        (inner6(17, bytes(8), src="::"), False),
        (inner6(17, bytes(8), src="::1"), False),
        (inner6(17, bytes(8), src="ff02::1"), False),
        (inner6(17, bytes(8), dst="ff0e::1"), False),
        (inner6(58, bytes([128]) + bytes(7)), True),
        (inner6(58, bytes([1]) + bytes(7)), False),
        (inner6(58, bytes([137]) + bytes(7)), False),
        (inner6(58, b""), False),
        (inner6(0, bytes([60, 0]) + bytes(6) + bytes([58, 0]) + bytes(6) + bytes([3]) + bytes(7)), False),
        (inner6(0, bytes([60, 0]) + bytes(6) + bytes([17, 0]) + bytes(6) + bytes(8)), True),
        (inner6(44, bytes([17, 0, 0, 1]) + bytes(4) + bytes(8)), True),
        (inner6(44, bytes([17, 0, 0, 9]) + bytes(4) + bytes(8)), False),
        (inner6(51, bytes([58, 1]) + bytes(10) + bytes([1]) + bytes(7)), False),
        (inner6(51, bytes([58, 1]) + bytes(10) + bytes([128]) + bytes(7)), True),
        (inner6(60, bytes([58, 7]) + bytes(6)), False),
    ],
)
def test_rfc1122_rfc4443_when_no_error_may_be_sent(packet: bytes, answered: bool) -> None:
    assert bool(relay(reported(wrapped(packet, 4, 0), 11, 0))) == answered


def test_inner_fragments_and_df() -> None:
    later = oracle.with_lengths(inner4()[:6] + b"\x00\x05" + inner4()[8:])
    assert relay(reported(wrapped(later, 4, 0), 11, 0)) == b""
    clear = inner4(df=False)
    assert relay(reported(wrapped(clear, 4, 0), 3, 4, mtu=1000)) == b""
    assert relay(reported(wrapped(clear, 4, 0), 11, 0)) != b""
    multicast = inner6(17, bytes(8), dst="ff0e::1")
    assert relay(reported(wrapped(multicast, 4, 0), 3, 4, mtu=1400)) != b"", (
        "RFC 4443 2.4(e.3): packet too big may"
    )


def test_answers_are_bounded() -> None:
    big4 = reported(wrapped(tcp(4, bytes(1400)), 4, 0), 11, 0)
    assert len(relay(big4)) == 576
    assert relay(big4, room=575) == b""
    assert len(relay(reported(wrapped(tcp(6, bytes(1400)), 6, 0), 3, 0))) == 1280


def test_no_source_no_answer() -> None:
    assert relay(reported(wrapped(tcp(4, b""), 4, 0), 3, 1), sources=False) == b""
    assert relay(reported(wrapped(tcp(6, b""), 4, 0), 11, 0), sources=False) == b""
    assert relay(reported(wrapped(tcp(4, b""), 4, 0), 11, 0), sources=False) != b"", (
        "the router's own address"
    )


def test_damaged_quotes_never_crash() -> None:
    rng = random.Random(792)
    read_well = 0
    for round_ in range(3000):
        outer, inner, gue = CASES[round_ % 8]
        quote = bytearray(wrapped(tcp(inner, rng.randbytes(20)), outer, gue)[: rng.randint(0, 140)])
        for _ in range(rng.randint(0, 4)):
            if quote:
                quote[rng.randrange(len(quote))] = rng.randrange(256)
        kind = rng.choice((TOO_BIG, TIME, UNREACHABLE))
        type_, code = rng.choice(SENT[outer][kind])
        rest = rng.choice((bytes(4), rng.randbytes(4)))
        error = icmp_packet(outer, ROUTER[outer], TUNNELS[outer][0], type_, code, rest, bytes(quote))
        verdict, out, _ = read(error)
        if verdict == "OK":
            read_well += 1
            assert out.inner_at + out.inner_len <= len(error)
            answer = relay(error)
            assert not answer or oracle.with_lengths(answer) == answer
    assert read_well > 300
