"""Coalescing: what is joined comes apart into the same bytes, in the same order (DESIGN.md section 6)."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.core import ffi, lib
from tests.examples import examples
from tests.oracle import encap as oracle
from tests.packet_doors import GSO_TCP, PARTIAL, Collector, Emitted, Packet, ends, ip, name, segment, tcp, udp

TIMESTAMPS = bytes.fromhex("0101080a1122334455667788")


class Gro:
    """One ``struct ips_gro``; ``out`` is everything that left, in order, as the host would send it."""

    def __init__(self, flows: int = 8, headroom: int = 32) -> None:
        self.out = Collector()
        self._gro = ffi.gc(lib.ips_gro_new(flows, headroom), lib.ips_gro_free)
        self._headroom = headroom

    def push(self, data: bytes, **fields: int) -> str:
        p = Packet(data, **fields)
        verdict = name(lib.ips_gro_push_packet(self._gro, p.c, self.out.fn, ffi.NULL))
        if verdict != "COALESCED":
            self.out.packets.append(Emitted(p.data))
        return verdict

    def flush(self) -> None:
        lib.ips_gro_flush(self._gro, self.out.fn, ffi.NULL)


def coalesce(packets: Iterable[bytes], flows: int = 8) -> list[Emitted]:
    gro = Gro(flows)
    for packet in packets:
        gro.push(packet)
    gro.flush()
    return gro.out.packets


def apart(p: Emitted) -> list[bytes]:
    """What the far side of a virtio-net header puts on the wire."""
    if p.gso_size == 0:
        return [p.data]
    at = oracle.ip_header_len(p.data)
    assert (p.gso_type, p.csum, p.csum_start, p.csum_offset) == (GSO_TCP, PARTIAL, at, 16)
    field = int.from_bytes(p.data[at + 16 : at + 18], "big")
    assert field == oracle.ones_sum(oracle.pseudo(p.data, 6, len(p.data) - at)), "not a pseudo-header sum"
    assert p.data == oracle.with_lengths(p.data), "lengths or IPv4 sum wrong"
    fields: dict[str, Any] = {
        k: getattr(p, k) for k in ("gso_type", "gso_size", "gso_flags", "csum", "csum_start", "csum_offset")
    }
    verdict, pieces = segment(Packet(p.data, **fields))
    assert verdict == "OK"
    assert [x.data for x in pieces] == oracle.segment(p.data, p.gso_size, fixed_id=bool(p.gso_flags))
    return [x.data for x in pieces]


def flow_of(packet: bytes) -> bytes:
    fragment = oracle.family(packet) == 4 and (packet[6] & 0x3F or packet[7])
    if oracle.proto(packet) != oracle.TCP or fragment:
        return oracle.addresses(packet) if fragment else b"other"
    return oracle.tcp_flow(packet)


def by_flow(packets: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    flows = defaultdict(list)
    for packet in packets:
        flows[flow_of(packet)].append(packet)
    return flows


def stream(
    version: int,
    sizes: Iterable[int],
    *,
    seq: int = 2**32 - 3000,
    ip_id: int = 65533,
    step: int = 1,
    **fields: Any,
) -> list[bytes]:
    """Contiguous segments of the given sizes, as one sender's card would cut them."""
    rng, out = random.Random(5), []
    for index, size in enumerate(sizes):
        out.append(tcp(version, rng.randbytes(size), seq=seq, ip_id=(ip_id + step * index) % 65536, **fields))
        seq += size
    return out


@pytest.mark.parametrize("version", (4, 6))
@pytest.mark.parametrize("options", (b"", TIMESTAMPS))
def test_bulk_becomes_one_packet(version: int, options: bytes) -> None:
    packets = stream(version, [1400] * 40 + [321], options=options, tos=2)
    out = coalesce(packets)
    assert [p.gso_size for p in out] == [1400]
    assert (out[0].headroom, len(out[0].data)) == (32, len(packets[0]) + 39 * 1400 + 321)
    assert apart(out[0]) == packets


@pytest.mark.parametrize("version", (4, 6))
def test_never_longer_than_65535(version: int) -> None:
    packets = stream(version, [1448] * 100)
    out = coalesce(packets)
    assert [len(apart(p)) for p in out] == [45, 45, 10]
    assert max(len(p.data) for p in out) <= 65535
    assert [x for p in out for x in apart(p)] == packets


def test_exactly_65535_bytes() -> None:
    packets = stream(4, [13099] * 5)
    assert [len(p.data) for p in coalesce(packets)] == [65535]


def test_one_segment_leaves_as_it_came() -> None:
    for version in (4, 6):
        packet = tcp(version, b"alone")
        assert coalesce([packet]) == [Emitted(packet, headroom=32)]


def test_ids_that_stay_fixed_need_df() -> None:
    fixed = stream(4, [100] * 5, step=0, ip_id=0)
    out = coalesce(fixed)
    assert ([p.gso_flags for p in out], apart(out[0])) == ([lib.IPS_GSO_FIXED_ID], fixed)
    assert len(coalesce(stream(4, [100] * 5, step=0, df=False))) == 5
    assert len(coalesce(stream(4, [100] * 5, step=1, df=False))) == 1
    assert len(coalesce(stream(4, [100] * 5, step=2))) == 5
    mixed = stream(4, [100] * 2, step=0, ip_id=9) + stream(4, [100] * 4, ip_id=8, seq=2**32 - 3000)[2:]
    assert len(coalesce(mixed)) == 2


BASE: dict[str, Any] = {"seq": 1100, "ip_id": 2}
DIFFERENT: dict[str, dict[str, Any]] = {
    "gap": {"seq": 1101},
    "repetition": {"seq": 1000},
    "ack": {"ack": 78},
    "window": {"window": 513},
    "ttl": {"ttl": 63},
    "tos": {"tos": 1},
    "df": {"df": False},
    "ece": {"flags": 0x50},
    "cwr": {"flags": 0x90},
    "reserved": {"reserved": 1},
    "options": {"options": TIMESTAMPS},
    "port": {"sport": 40001},
    "id": {"ip_id": 3},
    "longer": {"payload": bytes(101)},
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_whatever_differs_keeps_them_apart(what: str) -> None:
    fields = {"payload": bytes(100), **BASE, **DIFFERENT[what]}
    packets = [tcp(4, bytes(100), ip_id=1), tcp(4, **fields)]
    out = coalesce(packets)
    assert sorted(p.data for p in out) == sorted(packets)
    assert len(coalesce([packets[0], tcp(4, bytes(100), **BASE)])) == 1


def test_v6_flow_label_keeps_them_apart() -> None:
    packets = [tcp(6, bytes(100)), tcp(6, bytes(100), seq=1100, flow_label=1)]
    assert [p.data for p in coalesce(packets)] == packets


def test_timestamps_keep_them_apart() -> None:
    later = TIMESTAMPS[:-1] + b"\x89"
    packets = [tcp(4, bytes(99), options=TIMESTAMPS), tcp(4, bytes(99), seq=1099, ip_id=2, options=later)]
    assert [p.data for p in coalesce(packets)] == packets


@pytest.mark.parametrize("flags", (0x11, 0x18, 0x19))
def test_fin_and_push_end_a_run(flags: int) -> None:
    head = stream(4, [100] * 3, seq=0, ip_id=0)
    packets = [*head, tcp(4, bytes(100), seq=300, ip_id=3, flags=flags), tcp(4, bytes(100), seq=400, ip_id=4)]
    out = coalesce(packets)
    assert [len(apart(p)) for p in out] == [4, 1]
    assert [x for p in out for x in apart(p)] == packets


def test_cwr_may_only_be_first() -> None:
    packets = stream(6, [100] * 3, seq=0)
    packets[0] = tcp(6, packets[0][60:], seq=0, flags=0x90)
    assert [len(apart(p)) for p in coalesce(packets)] == [3]
    packets[1] = tcp(6, packets[1][60:], seq=100, flags=0x90)
    assert [len(apart(p)) for p in coalesce(packets)] == [1, 2]


@pytest.mark.parametrize(
    "packet",
    [
        tcp(4, b"", seq=1100, ip_id=2),
        tcp(4, b"s", seq=1100, flags=2),
        tcp(4, b"r", seq=1100, flags=0x14),
        tcp(4, b"u", seq=1100, flags=0x30),
        tcp(4, b"x", seq=1100, flags=0),
        tcp(4, b"f", seq=1150, flags=0x11),
    ],
)
def test_what_never_waits_goes_after_what_was_held(packet: bytes) -> None:
    gro, first = Gro(), tcp(4, bytes(100), ip_id=1)
    assert gro.push(first) == "COALESCED"
    assert gro.push(packet) == "OK"
    assert gro.out.data == [first, packet]


def test_fragment_goes_after_what_was_held_between_its_addresses() -> None:
    gro, first = Gro(), tcp(4, bytes(100), ip_id=1)
    gro.push(first)
    elsewhere = ip(6, bytes(64), "192.0.2.1", "192.0.2.200", df=False)
    assert gro.push(oracle.with_lengths(elsewhere[:6] + b"\x20\0" + elsewhere[8:])) == "OK"
    assert len(gro.out.packets) == 1
    fragment = ip(6, bytes(64), *ends(4), df=False)
    gro.push(oracle.with_lengths(fragment[:6] + b"\x20\x04" + fragment[8:]))
    assert gro.out.data[1] == first


@pytest.mark.parametrize("version", (4, 6))
def test_wrong_and_unusual_checksums_pass_untouched(version: int) -> None:
    packets = stream(version, [100] * 4)
    at = oracle.ip_header_len(packets[0]) + 16
    bad = packets[2][:at] + bytes([packets[2][at] ^ 1]) + packets[2][at + 1 :]
    out = coalesce([*packets[:2], bad, packets[3]])
    assert [x for p in out for x in apart(p)] == [*packets[:2], bad, packets[3]]
    assert [p.gso_size for p in out] == [100, 0, 0]
    flipped = packets[1][:-1] + bytes([packets[1][-1] ^ 4])
    assert [p.data for p in coalesce([packets[0], flipped])] == [packets[0], flipped]


def test_checksum_ffff_is_not_normalised_away() -> None:
    """0xffff verifies like 0x0000, but segmentation would write 0x0000."""
    first = tcp(4, bytes(100))
    for word in range(65536):
        payload = word.to_bytes(2, "big") + bytes(98)
        zero = tcp(4, payload, seq=1100, ip_id=2)
        if zero[36:38] == b"\0\0":
            break
    odd = zero[:36] + b"\xff\xff" + zero[38:]
    assert oracle.l4_sum_ok(odd)
    assert [p.data for p in coalesce([first, odd])] == [first, odd]
    assert len(coalesce([first, zero])) == 1


def test_partial_and_super_packets_are_not_taken() -> None:
    packet = tcp(4, bytes(100))
    assert Gro().push(packet, csum=PARTIAL, csum_start=20, csum_offset=16) == "OK"
    assert Gro().push(packet, gso_type=GSO_TCP, gso_size=10) == "OK"
    assert Gro().push(udp(4, bytes(100))) == "OK"


def test_more_flows_than_room() -> None:
    streams = [stream(4, [50] * 6, sport=port, seq=port) for port in range(1000, 1020)]
    packets = [s[i] for i in range(6) for s in streams]
    for flows in (1, 3, 16):
        out = [x for p in coalesce(packets, flows) for x in apart(p)]
        assert by_flow(out) == by_flow(packets)
    pairs = [s[i] for s in streams for i in range(6)]
    assert len(coalesce(pairs, 1)) == 20


def test_flush_keeps_the_order_in_which_flows_began() -> None:
    packets = [tcp(4, bytes(10), sport=port) for port in (9, 3, 7, 5)]
    assert [p.data for p in coalesce(packets)] == packets


@pytest.mark.parametrize("arguments", [(0, 0), (17, 0), (1, 1025)])
def test_refused_sizes(arguments: tuple[int, int]) -> None:
    assert lib.ips_gro_new(*arguments) == ffi.NULL


def greedy(packets: list[bytes]) -> list[list[bytes]]:
    """One flow, joined as far as the model allows: FIN, PSH and short segments end a run."""
    groups: list[list[bytes]] = []
    is_open = False
    for packet in packets:
        at = oracle.ip_header_len(packet)
        ends_run = bool(packet[at + 13] & 9)
        usual = packet[at + 13] & 0x36 == 0x10 and oracle.l4_sum_ok(packet)
        has_data = len(packet) > at + (packet[at + 12] >> 4) * 4
        if is_open and usual and oracle.joins(groups[-1], packet):
            groups[-1].append(packet)
            is_open = not ends_run and len(packet) == len(groups[-1][0])
        else:
            groups.append([packet])
            is_open = usual and has_data and not ends_run
    return groups


@pytest.mark.parametrize("version", (4, 6))
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 40, 41]),
            st.sampled_from([0x10] * 6 + [0x18, 0x11, 0x90, 0x50, 0x12, 0x30]),
            st.sampled_from([0] * 8 + [1, -40]),
            st.sampled_from([1, 1, 1, 0, 2]),
            st.sampled_from([True] * 9 + [False]),
        ),
        max_size=14,
    )
)
@examples(250)
def test_one_flow_equals_model(version: int, steps: list[tuple[int, int, int, int, bool]]) -> None:
    packets, seq, ip_id = [], 1, 65534
    for size, flags, jump, id_step, is_good in steps:
        packet = tcp(version, bytes(range(size)), seq=seq + jump, ip_id=ip_id % 65536, flags=flags)
        packets.append(packet if is_good else packet[:-1] + bytes([packet[-1] ^ 1]))
        seq, ip_id = seq + jump + size, ip_id + id_step
    assert [apart(p) for p in coalesce(packets)] == greedy(packets)


def test_many_flows_shuffled_batches() -> None:
    rng = random.Random(77)
    for _ in range(40):
        queues = []
        for port in range(rng.randint(1, 12)):
            version = rng.choice((4, 6))
            sizes = [rng.choice((500, 500, 500, 37, 0)) for _ in range(rng.randint(1, 12))]
            queues.append(stream(version, sizes, sport=2000 + port, seq=rng.getrandbits(32)))
        packets = []
        while queues:
            queue = rng.choice(queues)
            packets.append(queue.pop(0))
            queues = [q for q in queues if q]
        out = [x for p in coalesce(packets, rng.randint(1, 8)) for x in apart(p)]
        assert by_flow(out) == by_flow(packets)
