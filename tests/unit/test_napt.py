"""Port-translating NAT: what RFC 4787 (UDP), RFC 5382 (TCP) and RFC 5508 (ICMP) ask for, by name.

Any sequence of packets, beside an oracle: test_napt_sequences.py. Threads: native/tests/sessions_threads.c.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest
from scapy.layers.inet import ICMP as ScapyICMP
from scapy.layers.inet import IP, IPerror, TCPerror, UDPerror
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPerror6, IPv6
from scapy.packet import raw

from ipshare.core import ffi, lib
from tests.napt_door import (
    ACK,
    AH,
    ESP,
    FIN,
    ICMP,
    ICMP6,
    REALM,
    RST,
    SCTP,
    SYN,
    TCP,
    UDP,
    End,
    Flow,
    Nat,
    Rec,
    packed,
    packet,
    parsed,
    sums_are_right,
    ticks,
)
from tests.oracle import encap as oracle
from tests.packet_doors import GSO_TCP, PARTIAL, name, partial

A, B, C = ("10.0.0.1", 1000), ("10.0.0.2", 1000), ("10.9.9.9", 7)
WEB, DNS = ("198.51.100.1", 443), ("198.51.100.2", 53)
INSIDE = {4: A, 6: ("fd00::1", 1000)}
REMOTE = {4: WEB, 6: ("2001:db8:1::1", 443)}
ECHO = {4: ICMP, 6: ICMP6}
FAMILIES = pytest.mark.parametrize("family", (4, 6))
INDEPENDENT, DEPENDENT = 0, 1


def through(nat: Nat, proto: int, inside: End, remote: End, flags: int = SYN) -> End:
    """The public end of a flow from inside."""
    verdict, went = nat.out(Flow(proto, inside, remote), flags)
    assert verdict == "OK" and went.dst[0] == remote[0]
    return went.src


# ---- mapping ------------------------------------------------------------------


@FAMILIES
@pytest.mark.parametrize("proto", (TCP, UDP))
def test_the_mapping_is_the_same_for_every_destination(family: int, proto: int) -> None:
    """RFC 4787 REQ-1, RFC 5382 REQ-1: endpoint-independent mapping."""
    nat, (address, _) = Nat(), REMOTE[family]
    ends = {through(nat, proto, INSIDE[family], (address[:-1] + str(i), 50 + i)) for i in range(1, 9)}
    assert len(ends) == 1
    assert (nat.stat("mappings"), nat.ports()) == (1, 1)


def test_two_protocols_and_two_ports_have_mappings_of_their_own() -> None:
    nat = Nat(ports=(5000, 5001), addresses=1)
    ends = {(proto, through(nat, proto, A, WEB)) for proto in (TCP, UDP)}
    ends |= {(proto, through(nat, proto, (A[0], 2000), WEB)) for proto in (TCP, UDP)}
    assert len(ends) == 4 and {end[1] for _, end in ends} == {5000, 5001}


def test_an_inside_address_keeps_its_public_address() -> None:
    """RFC 4787 REQ-2: paired pooling, also on another node."""
    publics = []
    for seed in (1, 2):
        nat = Nat(addresses=16, seed=seed)
        hosts = [
            {through(nat, p, (f"10.0.0.{h}", i + 1), WEB)[0] for i in range(20) for p in (TCP, UDP)}
            for h in range(9)
        ]
        assert {len(addresses) for addresses in hosts} == {1}
        publics.append(hosts)
    assert publics[0] == publics[1] and len({str(h) for h in publics[0]}) > 3


def test_ports_are_given_out_once_from_a_random_start_and_then_refused() -> None:
    """RFC 4787 REQ-3: no port overloading; refusals are counted."""
    nat = Nat(addresses=2, ports=(2000, 2099), half_open=1000)
    ends = [through(nat, UDP, (A[0], 3000 + i), WEB) for i in range(200)]
    assert len(set(ends)) == 200 and {p for _, p in ends} == set(range(2000, 2100))
    assert [p for _, p in ends[:10]] != sorted(p for _, p in ends[:10])
    assert nat.out(Flow(UDP, (A[0], 9), WEB))[0] == "PORTS_EXHAUSTED"
    assert (nat.stat("ports_exhausted"), nat.ports(), nat.stat("half_open")) == (1, 200, 200)
    nat.close(Flow(UDP, (A[0], 3007), WEB))
    assert through(nat, UDP, (A[0], 9), WEB) == ends[7]


def test_a_port_comes_back_exactly_when_its_last_session_ends() -> None:
    nat = Nat(ports=(2000, 2000), addresses=1)
    through(nat, UDP, A, WEB)
    through(nat, UDP, A, DNS)
    nat.close(Flow(UDP, A, WEB))
    assert nat.out(Flow(UDP, B, WEB))[0] == "PORTS_EXHAUSTED"
    nat.close(Flow(UDP, A, DNS))
    assert nat.ports() == nat.stat("mappings") == 0
    assert through(nat, UDP, B, WEB)[1] == 2000


def test_a_full_table_refuses_new_flows_and_takes_no_port_for_them() -> None:
    nat = Nat(sessions=2, half_open=9)
    for inside in (A, B):
        through(nat, UDP, inside, WEB)
        through(nat, UDP, inside, WEB)
    assert nat.out(Flow(UDP, C, WEB))[0] == "SESSIONS_FULL"
    assert (nat.ports(), nat.out(Flow(UDP, A, WEB))[0]) == (2, "OK")


# ---- filtering, refresh ---------------------------------------------------------


def test_whoever_was_not_addressed_is_filtered() -> None:
    """RFC 4787 REQ-8, RFC 5382 REQ-3: address and port dependent."""
    nat = Nat(filtering=DEPENDENT)
    public = through(nat, UDP, A, DNS)
    assert nat.back(Flow(UDP, DNS, public)) == ("OK", Flow(UDP, DNS, A))
    for other in ((DNS[0], 54), ("198.51.100.3", 53)):
        assert nat.back(Flow(UDP, other, public))[0] == "FILTERED"
    assert nat.back(Flow(UDP, DNS, (public[0], public[1] ^ 1)))[0] == "NO_SESSION"
    assert nat.back(Flow(UDP, DNS, ("203.0.113.77", 9)))[0] == "NO_BINDING"


@pytest.mark.parametrize("proto", (TCP, UDP))
def test_whoever_knows_a_mapping_may_use_it_where_that_is_configured(proto: int) -> None:
    """RFC 4787 REQ-8, RFC 5382 REQ-3: endpoint-independent; the session says that it began outside."""
    nat = Nat(filtering=INDEPENDENT)
    public = through(nat, proto, A, WEB)
    assert nat.back(Flow(proto, DNS, public), SYN) == ("OK", Flow(proto, DNS, A))
    assert nat.out(Flow(proto, A, DNS), SYN | ACK) == ("OK", Flow(proto, public, DNS))
    r = nat.get(Flow(proto, A, DNS))
    assert r is not None and (r.flags, r.state, r.packets) == (1, 2, (1, 1))
    if proto == TCP:
        assert nat.back(Flow(TCP, ("198.51.100.9", 1), public), ACK)[0] == "NO_SESSION"


def test_only_packets_from_inside_keep_a_udp_mapping() -> None:
    """RFC 4787 REQ-6, REQ-5: refreshed outbound; inbound only where configured."""
    for inbound, left in ((0, 0), (1, 1)):
        nat = Nat(udp_inbound_refreshes=inbound)
        public = through(nat, UDP, A, DNS)
        nat.back(Flow(UDP, DNS, public))
        for _ in range(4):
            nat.now += ticks(100)
            nat.back(Flow(UDP, DNS, public))
        nat.expire()
        assert nat.stat("sessions") == left


# ---- TCP ------------------------------------------------------------------------


def test_both_ends_may_open_at_once() -> None:
    """RFC 5382 REQ-2: every valid sequence, simultaneous open too."""
    nat = Nat()
    public = through(nat, TCP, A, WEB, SYN)
    assert nat.back(Flow(TCP, WEB, public), SYN)[0] == "OK"
    assert nat.back(Flow(TCP, WEB, public), SYN | ACK)[0] == "OK"
    r = nat.get(Flow(TCP, A, WEB))
    assert r is not None and r.state == 2


def test_a_segment_of_nothing_known_is_refused_both_ways() -> None:
    nat = Nat()
    for flags in (ACK, SYN | ACK, FIN | ACK, RST):
        assert nat.out(Flow(TCP, A, WEB), flags)[0] == "NO_SESSION"
    public = through(nat, TCP, A, WEB)
    assert nat.back(Flow(TCP, DNS, public), SYN)[0] == "FILTERED"


def test_a_reset_does_not_end_a_session_at_once() -> None:
    """RFC 7857 2.2: it goes on for four minutes after its last packet, since nobody can tell a forged one."""
    nat, f = Nat(), Flow(TCP, A, WEB)
    public = through(nat, TCP, A, WEB)
    nat.back(Flow(TCP, WEB, public), SYN | ACK)
    assert nat.back(Flow(TCP, WEB, public), RST)[0] == "OK"
    nat.now += ticks(200)
    assert (nat.expire(), nat.out(f, ACK)[0], nat.back(Flow(TCP, WEB, public), ACK)[0]) == (0, "OK", "OK")
    nat.now += ticks(240) + 1
    assert (nat.expire(), nat.ports()) == (1, 0)


# ---- hairpinning ------------------------------------------------------------------


@FAMILIES
@pytest.mark.parametrize("proto", (TCP, UDP))
@pytest.mark.parametrize("filtering", (INDEPENDENT, DEPENDENT))
def test_inside_ends_reach_each_other_by_their_public_ends(family: int, proto: int, filtering: int) -> None:
    """RFC 4787 REQ-9, RFC 5382 REQ-8: hairpinning, with the public source."""
    nat, a = Nat(filtering=filtering), INSIDE[family]
    b = ("10.7.7.7" if family == 4 else "fd00::7", 80)
    public_a = through(nat, proto, a, REMOTE[family])
    public_b = through(nat, proto, b, REMOTE[family])
    verdict, went = nat.out(Flow(proto, a, public_b))
    if filtering == DEPENDENT:
        assert verdict == "FILTERED"  # b has not sent to a's public end yet; it does so now
        assert nat.out(Flow(proto, b, public_a)) == ("HAIRPINNED", Flow(proto, public_b, a))
        verdict, went = nat.out(Flow(proto, a, public_b))
    assert (verdict, went) == ("HAIRPINNED", Flow(proto, public_a, b))
    assert nat.out(Flow(proto, b, public_a), SYN | ACK) == ("HAIRPINNED", Flow(proto, public_b, a))


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
    nat = Nat()
    n = ffi.gc(lib.ips_napt_new(nat.s, ffi.NULL, nat.config), lib.ips_napt_free)
    assert n == ffi.NULL  # its pool is the other's already
    assert (
        nat.raw(True, oracle.fragment4(packet(Flow(UDP, A, DNS), payload=bytes(200), df=False), 80)[1])[0]
        == "HELD"
    )


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


# ---- a peer -------------------------------------------------------------------------


def test_the_standby_goes_on_with_every_session() -> None:
    """S3.1, S3.8: records make the same NAT elsewhere; sessions go on, new flows find other ports."""
    a, b = Nat(filtering=INDEPENDENT, ports=(2000, 2007)), Nat(standby=1, seed=77, ports=(2000, 2007))
    flows = [Flow(p, (f"10.0.0.{h}", 1000), WEB) for h in range(1, 6) for p in (TCP, UDP)]
    went = [a.out(f)[1] for f in flows]
    for f in went:
        assert a.back(Flow(f.proto, f.dst, f.src))[0] == "OK"
    assert all(b.apply(op, r)[0] == 0 for op, r in a.events)
    lib.ips_sessions_promote(b.s, b.ns)
    for f, public in zip(flows, went, strict=True):
        assert b.out(f, ACK) == ("OK", public)
        assert b.back(Flow(f.proto, f.dst, public.src), ACK) == ("OK", Flow(f.proto, f.dst, f.src))
    fresh = through(b, TCP, ("10.0.0.99", 1), WEB)
    assert fresh not in {f.src for f in went if f.proto == TCP}
    for f in flows:
        b.close(f)
    b.close(Flow(TCP, ("10.0.0.99", 1), WEB))
    assert b.ports() == 0


def napt_record(inside: End, public: End, version: int = 5, remote: End = WEB) -> Rec:
    return Rec(Flow(TCP, inside, remote), public, 2, 2, 0, version, 1, 1, (1, 1), (1, 1))


def test_a_mapped_port_of_another_is_named_and_refused() -> None:
    """LESSONS.md 17: a bit is never taken twice, and never set without an owner."""
    nat = Nat()
    public = ("203.0.113.1", 4000)
    assert nat.apply(1, napt_record(A, public))[0] == 0
    result, owner = nat.apply(1, napt_record(B, public))
    assert (result, owner.flow.src, owner.mapped) == (2, A, public)
    result, owner = nat.apply(1, napt_record(A, ("203.0.113.1", 4001), remote=DNS))
    assert (result, owner.flow.src, owner.mapped) == (2, A, public)
    assert (nat.stat("conflicts"), nat.ports(), nat.stat("sessions")) == (2, 1, 1)
    assert nat.apply(2, napt_record(A, public, 6))[0] == 0
    assert nat.apply(1, napt_record(B, public))[0] == 0


def test_a_flow_that_was_opened_anew_with_another_port_replaces_the_old_one() -> None:
    """The deletion between the two comes late."""
    nat = Nat()
    nat.apply(1, napt_record(A, ("203.0.113.1", 4000), 5))
    assert nat.apply(1, napt_record(A, ("203.0.113.1", 4001), 8))[0] == 0
    assert nat.apply(2, napt_record(A, ("203.0.113.1", 4000), 6))[0] == 1
    assert (nat.ports(), [r.mapped[1] for r in nat.scan()]) == (1, [4001])


def test_a_record_that_only_follows_is_not_translated_by() -> None:
    """A peer may say that a flow of our realm is followed only: it has no public end."""
    nat, f = Nat(), Flow(TCP, A, WEB)
    assert nat.apply(1, napt_record(A, ("0.0.0.0", 0))._replace(kind=1))[0] == 0
    assert nat.out(f, ACK)[0] == nat.out(f, SYN)[0] == "NO_SESSION"
    public = through(nat, TCP, A, DNS)
    assert nat.back(Flow(TCP, WEB, public))[0] == "NO_SESSION"


@pytest.mark.parametrize(
    ("public", "realm"),
    [(("203.0.113.50", 4000), REALM), (("203.0.113.0", 0), REALM), (("203.0.113.0", 4000), REALM + 1)],
)
def test_a_peer_s_mapping_must_be_of_the_pool(public: End, realm: int) -> None:
    nat = Nat()
    assert nat.apply(1, napt_record(A, public), realm)[0] == 4
    assert (nat.ports(), nat.scan()) == (0, [])


# ---- configuration --------------------------------------------------------------------


def made(pools: list[dict[str, Any]], insides: list[dict[str, Any]], **fields: int) -> bool:
    nat = Nat.__mro__[1]()
    p, i = ffi.new("struct ips_napt_pool_rec[]", pools), ffi.new("struct ips_napt_inside_rec[]", insides)
    config = {"pools": p, "insides": i, "n_pools": len(pools), "n_insides": len(insides)} | fields
    n = lib.ips_napt_new(nat.s, ffi.NULL, ffi.new("struct ips_napt_config *", config))
    lib.ips_napt_free(n)
    return bool(n != ffi.NULL)


def pool(first: str = "203.0.113.0", **fields: int) -> dict[str, Any]:
    return {"first": list(packed(first)), "n": 4, "realm": 1, "family": 6 if ":" in first else 4} | fields


def inside(prefix: str = "10.0.0.0", length: int = 8, **fields: int) -> dict[str, Any]:
    plain = {"family": 6 if ":" in prefix else 4, "prefix_len": length, "realm": 1}
    return {"prefix": list(packed(prefix))} | plain | fields


def test_configurations_that_make_no_sense_are_refused() -> None:
    assert made([pool()], [inside()]) and made([pool(), pool("2001:db8::")], [inside(), inside("fd00::", 8)])
    assert made(
        [pool(), pool("203.0.113.64", realm=2), pool("203.0.113.32")], [inside(), inside("11.0.0.0", realm=2)]
    )
    for pools, insides in (
        ([pool(), pool("203.0.113.3")], [inside()]),
        ([pool(n=0)], [inside()]),
        ([pool(n=65537)], [inside()]),
        ([pool(family=5)], [inside()]),
        ([pool(first_port=9, last_port=8)], [inside()]),
        ([pool(last_port=8)], [inside()]),
        ([pool(n=1025)], [inside()]),  # more than the table can number
        ([pool()], [inside(length=33)]),
        ([pool()], [inside("10.0.0.1")]),
        ([pool()], [inside(realm=2)]),
        ([pool()], [inside("fd00::", 8)]),
        ([pool()] * 65, [inside()]),
    ):
        assert not made(pools, insides)
    assert not made([pool()], [inside()], filtering=2)


def test_the_longest_inside_prefix_decides_the_pool() -> None:
    nat = Nat.__mro__[1]()
    pools = ffi.new("struct ips_napt_pool_rec[]", [pool(n=1), pool("203.0.113.9", n=1, realm=2)])
    insides = ffi.new("struct ips_napt_inside_rec[]", [inside(), inside("10.5.0.0", 16, realm=2)])
    config = ffi.new(
        "struct ips_napt_config *", {"pools": pools, "insides": insides, "n_pools": 2, "n_insides": 2}
    )
    n = ffi.gc(lib.ips_napt_new(nat.s, ffi.NULL, config), lib.ips_napt_free)
    for source, public in (("10.4.0.1", "203.0.113.0"), ("10.5.0.1", "203.0.113.9")):
        data = bytearray(packet(Flow(UDP, (source, 5), DNS)))
        buffer = ffi.from_buffer(data)
        p = ffi.new("struct ips_pkt *", {"data": buffer, "len": len(data), "total_len": len(data)})
        assert name(lib.ips_napt_out(n, p, 0, nat.ns)) == "OK"
        assert parsed(bytes(data)).src[0] == public
