"""Port-translating NAT and what is no plain TCP or UDP: ICMP (RFC 5508), fragments, offloads, the rest."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import ICMP as ScapyICMP
from scapy.layers.inet import IP, IPerror, TCPerror, UDPerror
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPerror6, IPv6
from scapy.packet import raw

from ipshare.core import ffi, lib
from tests.napt_door import (
    AH,
    DNS,
    ECHO,
    ESP,
    ICMP,
    INDEPENDENT,
    INSIDE,
    REMOTE,
    SCTP,
    TCP,
    UDP,
    WEB,
    A,
    B,
    Flow,
    Nat,
    packed,
    packet,
    parsed,
    sums_are_right,
    through,
    ticks,
)
from tests.oracle import encap as oracle
from tests.packet_doors import GSO_TCP, PARTIAL, partial

FAMILIES = pytest.mark.parametrize("family", (4, 6))


# ---- ICMP -------------------------------------------------------------------------


@FAMILIES
def test_echo_is_translated_by_its_identifier(family: int) -> None:
    """RFC 5508 REQ-1, REQ-2: the same mapping for every destination; 60 s."""
    nat, (inside, _) = Nat(), INSIDE[family]
    remote = (REMOTE[family][0], 0)
    public = through(nat, ECHO[family], (inside, 77), remote)
    other = (remote[0][:-1] + "9", 0)
    assert through(nat, ECHO[family], (inside, 77), other) == public
    back = Flow(ECHO[family], (remote[0], public[1]), public)
    assert nat.back(back) == ("OK", Flow(ECHO[family], (remote[0], 77), (inside, 77)))
    assert nat.back(Flow(ECHO[family], (remote[0][:-1] + "8", public[1]), public))[0] == "FILTERED"
    nat.now += ticks(60)
    assert nat.expire() == 0


def test_nobody_answers_a_ping_that_was_not_sent_to_him() -> None:
    """Even where filtering is endpoint-independent: a reply opens nothing."""
    nat = Nat(filtering=INDEPENDENT)
    public = through(nat, ICMP, (A[0], 77), (WEB[0], 0))
    assert nat.back(Flow(ICMP, (DNS[0], public[1]), public))[0] == "NO_SESSION"


@FAMILIES
def test_other_icmp_is_not_translated(family: int) -> None:
    """RFC 5508 REQ-10: no query but echo; requests only outward, replies only inward."""
    nat, inside, remote = Nat(), INSIDE[family], REMOTE[family]
    public = through(nat, ECHO[family], (inside[0], 77), (remote[0], 0))
    outward = (0, 13, 15, 42) if family == 4 else (129, 133, 135, 137, 143)
    for kind in outward:
        assert nat.out(Flow(ECHO[family], inside, remote), kind=kind)[0] == "UNTRANSLATABLE"
    request = 8 if family == 4 else 128
    assert nat.back(Flow(ECHO[family], (remote[0], public[1]), public), kind=request)[0] == "UNTRANSLATABLE"


def quoted(data: bytes) -> tuple[Flow, bool]:
    """The ends of the packet that an error quotes; and whether the sums in it are right, if all is quoted."""
    inner = data[28:] if data[0] >> 4 == 4 else data[48:]
    return parsed(inner), oracle.ones_sum(inner[:20]) == 0xFFFF if inner[0] >> 4 == 4 else True


def unreachable(reporter: str, sent: bytes, to: str, bytes_quoted: int = 28, kind: int = 3) -> bytes:
    if ":" in to:
        return raw(IPv6(src=reporter, dst=to) / ICMPv6PacketTooBig(mtu=1280) / sent[:bytes_quoted])
    return raw(IP(src=reporter, dst=to) / ScapyICMP(type=kind, code=1) / sent[:bytes_quoted])


@FAMILIES
@pytest.mark.parametrize("proto", (TCP, UDP, ICMP))
@pytest.mark.parametrize("cut", (0, 1, 2, 3, 1000))
def test_errors_from_outside_follow_the_quoted_session(family: int, proto: int, cut: int) -> None:
    """RFC 5508 REQ-4: outer destination, quoted source and port, sums; cut anywhere behind the ports."""
    nat, inside, remote = Nat(), INSIDE[family], REMOTE[family]
    wire = ECHO[family] if proto == ICMP else proto
    remote = (remote[0], 0) if proto == ICMP else remote
    sent = packet(Flow(wire, inside, remote), kind=8 if family == 4 else 128, payload=b"odd")
    verdict, went = nat.raw(True, sent)
    assert verdict == "OK"
    reporter, header = ("192.0.2.99" if family == 4 else "2001:db8:99::1"), (20 if family == 4 else 40)
    events = list(nat.events)
    error = unreachable(reporter, went, parsed(went).src[0], header + 8 + cut)
    verdict, got = nat.raw(False, error)
    assert verdict == "OK" and sums_are_right(got)
    assert got[header + 8 :] == sent[: header + 8 + cut]  # the host sees what it sent, to the last bit
    end = 16 if family == 4 else 24
    assert (
        got[end : end + header // 5 * (1 if family == 4 else 2)]
        == packed(inside[0])[: 4 if family == 4 else 16]
    )
    assert nat.events == events  # no error changes a session


def test_errors_that_quote_no_session_of_ours_are_dropped() -> None:
    """RFC 5508 REQ-4: silently, by a counted verdict."""
    nat = Nat()
    _, went = nat.raw(True, packet(Flow(UDP, A, DNS)))
    public = parsed(went).src
    other = packet(Flow(UDP, (public[0], public[1] ^ 1), DNS))
    assert nat.raw(False, unreachable("192.0.2.9", other, public[0]))[0] == "NO_SESSION"
    elsewhere = packet(Flow(UDP, public, WEB))
    assert nat.raw(False, unreachable("192.0.2.9", elsewhere, public[0]))[0] == "NO_SESSION"
    not_ours = packet(Flow(UDP, ("192.0.2.1", 1), DNS))
    assert nat.raw(False, unreachable("192.0.2.9", not_ours, public[0]))[0] == "BAD_QUOTE"
    assert nat.raw(False, unreachable("192.0.2.9", went, public[0], 23))[0] == "BAD_QUOTE"
    later = went[:6] + b"\x00\x07" + went[8:]
    assert nat.raw(False, unreachable("192.0.2.9", later, public[0]))[0] == "BAD_QUOTE"
    assert nat.raw(True, unreachable("10.0.0.9", packet(Flow(UDP, WEB, A)), WEB[0]))[0] == "NO_SESSION"


@pytest.mark.parametrize("reporter", (A[0], "10.200.0.1", "192.168.3.3"))
def test_errors_from_inside_leave_with_the_session_s_public_address(reporter: str) -> None:
    """RFC 5508 REQ-5: from the host and from routers before it."""
    nat = Nat()
    public = through(nat, UDP, A, DNS)
    _, came = nat.raw(False, packet(Flow(UDP, DNS, public)))
    verdict, data = nat.raw(True, unreachable(reporter, came, DNS[0]))
    assert verdict == "OK" and sums_are_right(data)
    p = IP(data)
    assert (p.src, p.dst) == (public[0], DNS[0])
    assert (p[IPerror].src, p[IPerror].dst) == (DNS[0], public[0])
    assert (p[UDPerror].sport, p[UDPerror].dport) == (DNS[1], public[1])
    assert quoted(data)[1]


def test_errors_go_back_inside_too() -> None:
    """RFC 5508 REQ-7: hairpinned errors, both ends of the quote turned."""
    nat = Nat(filtering=INDEPENDENT)
    public_a, public_b = through(nat, TCP, A, WEB), through(nat, TCP, B, WEB)
    verdict, came = nat.raw(True, packet(Flow(TCP, A, public_b)))
    assert verdict == "HAIRPINNED" and parsed(came) == Flow(TCP, public_a, B)
    verdict, data = nat.raw(True, unreachable(B[0], came, public_a[0], 40))
    assert verdict == "HAIRPINNED" and sums_are_right(data)
    p = IP(data)
    assert (p.src, p.dst) == (public_b[0], A[0])
    assert (p[IPerror].src, p[TCPerror].sport) == A
    assert (p[IPerror].dst, p[TCPerror].dport) == public_b
    assert data[28:] == packet(Flow(TCP, A, public_b))[:40]


def test_an_ipv6_error_is_read_by_another_implementation() -> None:
    nat = Nat()
    _, went = nat.raw(True, packet(Flow(UDP, INSIDE[6], REMOTE[6])))
    verdict, data = nat.raw(False, unreachable("2001:db8::99", went, parsed(went).src[0], 60))
    p = IPv6(data)
    assert (verdict, p.dst, p[IPerror6].src, p[UDPerror].sport) == ("OK", *INSIDE[6][:1] * 2, INSIDE[6][1])


# ---- fragments, offloads, other protocols -------------------------------------------


@pytest.mark.parametrize("order", ((0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2)))
@pytest.mark.parametrize("proto", (UDP, ICMP))
def test_fragments_follow_their_first_one(order: tuple[int, ...], proto: int) -> None:
    """RFC 4787 REQ-14: fragments in any order, both ways."""
    nat, remote = Nat(), (DNS[0], 0 if proto == ICMP else 53)
    whole = packet(Flow(proto, A, remote), payload=bytes(range(200)), kind=8, df=False, ip_id=5)
    pieces = oracle.fragment4(whole, 80)
    assert len(pieces) == 4

    def carry(out: bool, pieces: list[bytes]) -> bytes:
        sent = []
        nat.emitted.clear()
        for i in order:
            verdict, data = nat.raw(out, pieces[i])
            assert verdict in ("OK", "HELD")
            sent += [data] if verdict == "OK" else []
        arrived = sorted(sent + nat.emitted, key=lambda p: (p[6] & 31, p[7]))
        first = arrived[0][:6] + b"\0\0" + arrived[0][8:20]
        return oracle.with_lengths(first + oracle.reassemble4(arrived))

    went = carry(True, pieces)
    assert sums_are_right(went)
    public = parsed(went).src
    reply = Flow(proto, (DNS[0], public[1] if proto == ICMP else 53), public)
    answer = packet(reply, payload=bytes(200), kind=0, df=False, ip_id=6)
    came = carry(False, oracle.fragment4(answer, 80))
    assert sums_are_right(came) and parsed(came).dst == A


@pytest.mark.parametrize("order", ((0, 1, 2), (2, 1, 0)))
def test_ipv6_fragments_follow_their_first_one(order: tuple[int, ...]) -> None:
    nat, f = Nat(), Flow(UDP, INSIDE[6], REMOTE[6])
    whole = packet(f, payload=bytes(range(150)))
    pieces = []
    for at in (0, 64, 128):
        head = struct.pack("!BBHI", UDP, 0, at | (at < 128), 99)
        body = whole[40 + at : 40 + at + 64]
        pieces.append(oracle.with_lengths(whole[:6] + b"\x2c" + whole[7:40] + head + body))
    sent = [data for verdict, data in (nat.raw(True, pieces[i]) for i in order) if verdict == "OK"]
    arrived = sorted(sent + nat.emitted, key=lambda p: p[42:44])
    first = arrived[0]
    went = oracle.with_lengths(first[:6] + b"\x11" + first[7:40] + b"".join(p[48:] for p in arrived))
    public = parsed(went).src
    assert sums_are_right(went) and public == nat.out(f)[1].src and len(arrived) == 3
    assert all(p[8:40] == first[8:40] for p in arrived)


def test_without_a_fragment_table_fragments_are_refused() -> None:
    nat, late = Nat(), packet(Flow(UDP, A, DNS), payload=bytes(200), df=False)
    assert nat.raw(True, oracle.fragment4(late, 80)[1])[0] == "HELD"
    n = ffi.gc(lib.ips_napt_new(nat.s, ffi.NULL, nat.config), lib.ips_napt_free)
    assert n != ffi.NULL  # another one of the same sessions replaces the first
    nat.n, kept = n, nat.n
    assert nat.raw(True, oracle.fragment4(late, 80)[0])[0] == "FRAGMENTS_FULL"
    nat.n = kept


@FAMILIES
def test_offloaded_sums_and_super_packets(family: int) -> None:
    """A partial sum is that of the pseudo header: the address is in it, the port is not."""
    nat, f = Nat(), Flow(TCP, INSIDE[family], REMOTE[family])
    whole = packet(f, payload=bytes(3000))
    through(nat, TCP, INSIDE[family], REMOTE[family])
    header = 20 if family == 4 else 40
    fields = {"csum": PARTIAL, "csum_start": header, "csum_offset": 16, "gso_type": GSO_TCP, "gso_size": 1000}
    verdict, data = nat.raw(True, partial(whole), **fields)
    _, plain = nat.raw(True, whole)
    assert verdict == "OK" and data == partial(plain) and sums_are_right(plain)


def test_a_udp_packet_without_a_sum_stays_without() -> None:
    nat = Nat()
    data = packet(Flow(UDP, A, DNS))
    verdict, got = nat.raw(True, data[:26] + b"\0\0" + data[28:])
    assert verdict == "OK" and got[26:28] == b"\0\0"


@pytest.mark.parametrize("proto", (SCTP, ESP))
def test_other_protocols_have_one_inside_host_at_a_public_address(proto: int) -> None:
    """DESIGN.md 3: the address alone; SCTP's CRC does not cover it, and ports stay as they are."""
    nat, remote = Nat(addresses=1), (WEB[0], 443 if proto == SCTP else 0)
    inside = (A[0], 1000 if proto == SCTP else 0)
    data = packet(Flow(proto, inside, remote))
    verdict, got = nat.raw(True, data)
    assert verdict == "OK" and got[20:] == data[20:]
    assert nat.raw(True, packet(Flow(proto, (B[0], inside[1]), remote)))[0] == "PORTS_EXHAUSTED"
    public = parsed(got).src
    verdict, back = nat.raw(False, packet(Flow(proto, remote, public)))
    assert verdict == "OK" and parsed(back) == Flow(proto, remote, inside)
    assert nat.ports() == 1


def test_what_no_port_can_be_translated_of() -> None:
    nat = Nat()
    assert nat.raw(True, packet(Flow(AH, A, WEB)))[0] == "UNTRANSLATABLE"
    segments = struct.pack("!BBBBI", UDP, 2, 0, 1, 0) + packed("2001:db8::5")
    routed = packet(Flow(UDP, INSIDE[6], REMOTE[6]))
    routed = oracle.with_lengths(routed[:6] + b"\x2b" + routed[7:40] + segments + routed[40:])
    assert nat.raw(True, routed)[0] == "UNTRANSLATABLE"
    assert nat.out(Flow(UDP, ("192.168.1.1", 9), WEB))[0] == "NO_BINDING"
    assert nat.raw(True, packet(Flow(UDP, A, WEB))[:19])[0] == "SHORT"
