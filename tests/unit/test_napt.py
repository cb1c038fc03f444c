"""Port-translating NAT: what RFC 4787 (UDP) and RFC 5382 (TCP) ask for, by name; a peer; configurations.

ICMP, fragments, offloads: test_napt_packets.py. Any sequence, beside an oracle: test_napt_sequences.py.
Threads: native/tests/sessions_threads.c.
"""

from __future__ import annotations

from typing import Any

import pytest

from ipshare.core import ffi, lib
from tests.napt_door import (
    ACK,
    DEPENDENT,
    DNS,
    FIN,
    INDEPENDENT,
    INSIDE,
    REALM,
    REMOTE,
    RST,
    SYN,
    TCP,
    UDP,
    WEB,
    A,
    B,
    C,
    End,
    Flow,
    Nat,
    Rec,
    packed,
    packet,
    parsed,
    through,
    ticks,
)
from tests.packet_doors import name

FAMILIES = pytest.mark.parametrize("family", (4, 6))


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


def made(pools: list[dict[str, Any]], insides: list[dict[str, Any]], nat: Any = None, **fields: int) -> bool:
    nat = nat or Nat.__mro__[1]()
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


def test_a_refused_configuration_leaves_the_numbers_of_addresses_as_they_were() -> None:
    """What is wrong stands behind pools that are right; then all numbers are still to be had."""
    nat = Nat.__mro__[1](addresses=4)
    for pools, insides in (
        ([pool(), pool("203.0.113.3", n=1)], [inside()]),
        ([pool("198.51.100.0")], [inside("10.0.0.1")]),
        ([pool("192.0.2.0", n=3)], [inside(length=33)]),
        ([pool("2001:db8::", n=4)], [inside()]),
        ([pool(n=5)], [inside()]),
    ):
        assert not made(pools, insides, nat=nat)
    assert made([pool("203.0.113.77")], [inside()], nat=nat)
    assert not made([pool("198.51.100.0", n=1)], [inside()], nat=nat), "there is no fifth number"
    assert made([pool("203.0.113.77")], [inside()], nat=nat), "those that are known are no new ones"


def test_a_pool_does_not_go_round_the_end_of_all_addresses() -> None:
    assert made([pool("255.255.255.252")], [inside()])
    assert not made([pool("255.255.255.253")], [inside()])
    assert not made([pool("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffd")], [inside("fd00::", 8)])


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
