"""The fragment table: ports of later fragments, early ones held, bounded, for two seconds (DESIGN.md 6).

Two threads at one table: native/tests/frag_threads.c.
"""

from __future__ import annotations

import itertools
import random
import struct

import pytest

from ipshare.core import ffi, lib
from tests.oracle import encap as oracle
from tests.packet_doors import Collector, Packet, ends, ip, name, udp

S = 10**9
LIFE = 2 * S
FLOW = (5000, 53)


class Table:
    def __init__(self, datagrams: int = 64, held: int = 32, held_bytes: int = 1500, seed: int = 1) -> None:
        self.t = ffi.gc(lib.ips_frag_new(datagrams, held, held_bytes, seed), lib.ips_frag_free)
        self.out = Collector()

    def ports(self, data: bytes, now: int = S) -> tuple[str, tuple[int, int], int]:
        flow = ffi.new("struct ips_frag_flow *")
        verdict = name(lib.ips_frag_ports_packet(self.t, Packet(data).c, now, flow))
        return verdict, (flow.src_port, flow.dst_port), flow.value

    def learn(self, data: bytes, value: int = 0, now: int = S) -> tuple[str, int]:
        """As a worker does it: ask, decide, tell."""
        flow, p = ffi.new("struct ips_frag_flow *"), Packet(data)
        assert name(lib.ips_frag_ports_packet(self.t, p.c, now, flow)) == "OK"
        flow.value = value
        return name(lib.ips_frag_learn_packet(self.t, p.c, now, flow, self.out.fn, ffi.NULL)), flow.value

    def stat(self, field: str) -> int:
        stats = ffi.new("struct ips_frag_stats *")
        lib.ips_frag_stats(self.t, stats)
        return int(getattr(stats, field))


def v6_fragments(whole: bytes, ident: int, size: int) -> list[bytes]:
    """RFC 8200 4.5: pieces of at most ``size`` bytes of payload, a multiple of eight."""
    payload, out = whole[40:], []
    for at in range(0, len(payload), size):
        piece = payload[at : at + size]
        more = at + len(piece) < len(payload)
        header = struct.pack("!BBHI", whole[6], 0, at | more, ident)
        out.append(oracle.with_lengths(whole[:6] + b"\x2c" + whole[7:40] + header + piece))
    return out


def datagram(
    version: int, ident: int = 9, size: int = 400, sport: int = 5000, dport: int = 53
) -> list[bytes]:
    payload = random.Random(ident).randbytes(size)
    if version == 4:
        return oracle.fragment4(udp(4, payload, df=False, ip_id=ident, sport=sport, dport=dport), 124)
    return v6_fragments(udp(6, payload, sport=sport, dport=dport), ident, 104)


VERSIONS = pytest.mark.parametrize("version", (4, 6))


@VERSIONS
def test_in_order(version: int) -> None:
    table, (first, *rest) = Table(), datagram(version)
    assert table.learn(first, value=42) == ("OK", 42)
    assert len(rest) == 3
    for piece in rest:
        assert table.ports(piece) == ("OK", FLOW, 42)
    assert table.out.packets == []


@VERSIONS
def test_every_order_of_four_fragments(version: int) -> None:
    pieces = datagram(version)
    for order in itertools.permutations(range(4)):
        table, sent = Table(), []
        for index in order:
            verdict, ports, _ = table.ports(pieces[index])
            assert (verdict, ports) in (("OK", FLOW), ("HELD", (0, 0)))
            if index == 0:
                table.learn(pieces[0])
            if verdict == "OK":
                sent.append(pieces[index])
        assert sorted(sent + table.out.data) == sorted(pieces), order
        assert table.out.data == [pieces[i] for i in order[: order.index(0)]], "not in the order of arrival"
        assert table.stat("held") == 0


@VERSIONS
def test_held_copies_have_headroom(version: int) -> None:
    table, pieces = Table(), datagram(version)
    table.ports(pieces[1])
    table.learn(pieces[0])
    assert [p.headroom for p in table.out.packets] == [128]


@VERSIONS
def test_four_early_fragments_at_most(version: int) -> None:
    table, (first, *rest) = Table(), datagram(version, size=800)
    assert [table.ports(p)[0] for p in rest[:6]] == ["HELD"] * 4 + ["FRAGMENTS_FULL"] * 2
    table.learn(first)
    assert table.out.data == rest[:4]
    assert (table.stat("full"), table.stat("held_total"), table.stat("released")) == (2, 4, 4)


@VERSIONS
def test_two_seconds(version: int) -> None:
    table, pieces = Table(), datagram(version)
    table.learn(pieces[0], now=S)
    assert table.ports(pieces[1], now=S + LIFE - 1)[0] == "OK"
    assert table.ports(pieces[1], now=S + LIFE)[0] == "HELD"


@VERSIONS
def test_first_fragment_too_late(version: int) -> None:
    table, pieces = Table(), datagram(version)
    table.ports(pieces[1], now=S)
    table.ports(pieces[2], now=S)
    assert table.learn(pieces[0], now=S + LIFE)[0] == "OK"
    assert table.out.packets == []
    assert (table.stat("late"), table.stat("held"), table.stat("datagrams")) == (2, 0, 1)


def test_expire_counts_what_was_lost() -> None:
    table = Table()
    for ident in range(5):
        table.ports(datagram(4, ident)[1])
    assert lib.ips_frag_expire(table.t, S + LIFE - 1, 1000) == 0
    assert lib.ips_frag_expire(table.t, S + LIFE, 1000) == 5
    assert (table.stat("held"), table.stat("datagrams"), table.stat("late")) == (0, 0, 5)


@VERSIONS
def test_the_first_first_fragment_wins(version: int) -> None:
    table, pieces = Table(), datagram(version)
    assert table.learn(pieces[0], value=1) == ("OK", 1)
    assert table.learn(pieces[0], value=2) == ("OK", 1)
    assert table.learn(datagram(version, sport=6666)[0], value=3)[0] == "BAD_FRAGMENT"
    assert table.learn(datagram(version, dport=54)[0], value=3)[0] == "BAD_FRAGMENT"
    assert table.ports(pieces[1]) == ("OK", FLOW, 1)
    assert table.stat("conflicts") == 2


def test_key_has_every_part() -> None:
    base = datagram(4)
    table = Table()
    table.learn(base[0])
    later = base[1]
    assert table.ports(later)[0] == "OK"
    for at in (4, 5, 9, 12, 15, 16, 19):
        changed = later[:at] + bytes([later[at] ^ 0x80]) + later[at + 1 :]
        assert table.ports(oracle.with_lengths(changed))[0] == "HELD", at
    six = Table()
    pieces = datagram(6)
    six.learn(pieces[0])
    for at in (8, 23, 24, 39, 44, 47):
        changed = pieces[1][:at] + bytes([pieces[1][at] ^ 0x40]) + pieces[1][at + 1 :]
        assert six.ports(changed)[0] == "HELD", at
    next_header = pieces[1][:40] + b"\x3c" + pieces[1][41:]
    assert six.ports(next_header)[0] == "OK", "RFC 8200 4.5: only the first fragment's next header counts"


def test_icmp_identifier_and_portless_protocols() -> None:
    echo = ip(1, bytes([8, 0, 0, 0]) + struct.pack("!HH", 777, 1) + bytes(200), *ends(4), df=False)
    table, pieces = Table(), oracle.fragment4(echo, 124)
    table.learn(pieces[0])
    assert table.ports(pieces[1]) == ("OK", (777, 777), 0)
    esp = oracle.fragment4(ip(50, bytes(range(200)), *ends(4), df=False, ip_id=2), 124)
    table.learn(esp[0], value=8)
    assert table.ports(esp[1]) == ("OK", (0, 0), 8)


def test_whole_packets_need_no_table() -> None:
    table = Table()
    assert table.ports(udp(4, b"x"))[:2] == ("OK", FLOW)
    assert table.learn(udp(4, b"x")) == ("OK", 0)
    assert table.ports(ip(47, b"", *ends(4)))[:2] == ("OK", (0, 0))
    assert table.stat("datagrams") == 0


def test_memory_is_bounded_and_comes_back() -> None:
    table = Table(datagrams=1024, held=8)
    verdicts = [table.ports(datagram(4, ident)[1])[0] for ident in range(20)]
    assert verdicts == ["HELD"] * 8 + ["FRAGMENTS_FULL"] * 12
    assert table.ports(datagram(4, 100)[1], now=S + LIFE)[0] == "HELD", "a full pool clears what has expired"


def test_a_full_bucket_refuses() -> None:
    table = Table(datagrams=16)
    assert [table.learn(datagram(4, ident)[0])[0] for ident in range(17)] == ["OK"] * 16 + ["FRAGMENTS_FULL"]
    assert table.ports(datagram(4, 16)[1])[0] == "FRAGMENTS_FULL"
    assert table.learn(datagram(4, 16)[0], now=S + LIFE)[0] == "OK"
    assert table.stat("held") == 0


def test_a_fragment_too_long_to_hold() -> None:
    table = Table(held_bytes=123)
    pieces = datagram(4)
    assert len(pieces[1]) == 124
    assert table.ports(pieces[1])[0] == "FRAGMENTS_FULL"
    assert Table(held_bytes=124).ports(pieces[1])[0] == "HELD"


def test_sizes_that_are_refused() -> None:
    for arguments in ((1 << 31, 1, 1500), (8, 0, 1500), (8, 1, 67), (8, 1, 65536)):
        assert lib.ips_frag_new(*arguments, 0) == ffi.NULL


def test_thousands_of_datagrams_mixed() -> None:
    rng = random.Random(4)
    table = Table(datagrams=16384, held=4096)
    pending = [(ident, index) for ident in range(600) for index in range(4)]
    rng.shuffle(pending)
    cache = {ident: datagram(rng.choice((4, 6)), ident, sport=1000 + ident) for ident in range(600)}
    sent = []
    for ident, index in pending:
        verdict, ports, value = table.ports(cache[ident][index])
        if index == 0:
            assert table.learn(cache[ident][0], value=ident)[0] == "OK"
        elif verdict == "OK":
            assert (ports, value) == ((1000 + ident, 53), ident)
        if verdict == "OK":
            sent.append(cache[ident][index])
    assert sorted(sent + table.out.data) == sorted(itertools.chain.from_iterable(cache.values()))
    assert (table.stat("full"), table.stat("held")) == (0, 0)
