"""The parts of this suite that need no VPP: what is read from its answers, and the packets it is given."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest

from vpp import flows, report
from vpp.runtime import Node, Sample, read, write_pcap
from vpp.series import Series

RUNTIME = """\
Thread 1 vpp_wk_0 (lcore 1)
Time 2.1, 10 sec internal node vector rate 0.00 loops/sec 10.0
  vector rates in 1.0000e0, out 1.0000e0, drop 0.0000e0, punt 0.0000e0
             Name                 State         Calls          Vectors        Suspends      Packet-Clocks
ip4-input                        active                  4             100               0          2.00e1           25.00
ip4-lookup                       active                  8             200               0          1.00e1           25.00
ip4-rewrite                      active                  4             100               0          1.50e1           25.00
ip4-sv-reassembly-feature        active                  4              50               0          8.00e0           12.50
ip4-sv-reassembly-expire-walk  any wait                  0               0               1          5.58e4            0.00
pg-input                        disabled                 4             100               0          3.00e1           25.00
pg0-output                       active                  4             100               0          4.00e0           25.00
pg0-tx                           active                  4              99               0          9.00e0           25.00
Thread 2 vpp_wk_1 (lcore 2)
ip4-rewrite                      active                  4             100               0          2.50e1           25.00
"""  # noqa: E501  columns are VPP's


def test_added_is_what_is_more_than_one_lookup_and_one_rewrite() -> None:
    sample = replace(read(RUNTIME, 4), packets=100)
    assert (sample.sent, sample.nodes["ip4-lookup"]) == (99, Node(200, 10.0))
    assert sample.nodes["ip4-rewrite"] == Node(200, 20.0), "two threads, weighed by their packets"
    assert sample.base == 30.0
    assert sample.added == pytest.approx(10.0 + 20.0 + 4.0), (
        "second lookup, second rewrite, half a reassembly"
    )


def test_processes_and_the_bench_itself_are_not_counted() -> None:
    sample = read(RUNTIME, 4)
    assert sample.packets == 100
    assert "ip4-sv-reassembly-expire-walk" not in sample.nodes
    without = {name: node for name, node in sample.nodes.items() if not name.startswith("pg")}
    assert replace(sample, nodes=without).added == sample.added


@pytest.mark.parametrize("family", [4, 6])
def test_a_datagram_is_a_first_fragment_and_a_last_one(family: int) -> None:
    targets = flows.addresses("192.0.2.0" if family == 4 else "2001:db8::", np.arange(8))
    found = flows.of("fragment", family, targets)
    rows = [bytes(row[:n]) for row, n in zip(found.data, found.lengths, strict=True)]
    assert len(rows) == 8
    for first, last in zip(rows[0::2], rows[1::2], strict=True):
        if family == 4:
            assert first[:2] == last[:2] == b"\x45\0"
            assert first[4:6] == last[4:6] and first[12:20] == last[12:20]
            assert struct.unpack(">H", first[6:8])[0] == 0x2000, "more fragments, offset 0"
            assert 0 < struct.unpack(">H", last[6:8])[0] < 0x2000, "none behind it"
            assert all(sum(struct.unpack(">10H", p[:20])) % 0xFFFF == 0 for p in (first, last)), "header sums"
            assert all(struct.unpack(">H", p[2:4])[0] == len(p) for p in (first, last))
        else:
            assert first[6] == last[6] == 44 and first[40] == last[40] == 17
            assert first[44:48] == last[44:48] and first[8:40] == last[8:40]
            assert struct.unpack(">H", first[42:44])[0] == 1
            assert struct.unpack(">H", last[42:44])[0] & 7 == 0
            assert all(40 + struct.unpack(">H", p[4:6])[0] == len(p) for p in (first, last))
        assert len({first[4:6] if family == 4 else first[44:48] for first in rows[0::2]}) == 4


def test_connections_are_opened_by_the_same_packets() -> None:
    targets = flows.addresses("192.0.2.0", np.arange(6))
    opening, later = flows.syns("mixed", 4, targets), flows.of("mixed", 4, targets)
    tcp = later.data[:, 9] == 6
    assert tcp.sum() == 3
    differs = opening.data != later.data
    assert differs[tcp].sum(axis=1).tolist() == [1, 1, 1], "the flags"
    assert not differs[~tcp].any()


def test_packets_of_a_stream_are_cut_to_their_length(tmp_path) -> None:
    frames = flows.of("mixed", 4, flows.addresses("192.0.2.0", np.arange(2)))
    write_pcap(tmp_path / "x", frames)
    assert (tmp_path / "x").stat().st_size == 24 + 2 * 16 + int(frames.lengths.sum())


def test_growth_is_against_the_same_round() -> None:
    def series(name: str, *added: float) -> Series:
        nodes = [{"ip4-lookup": Node(1, 1.0), "ip4-rewrite": Node(1, 1.0), "x": Node(1, a)} for a in added]
        return Series(name, tuple(Sample(4, 1, 1, n) for n in nodes))

    grown = {
        "v4.x.1k.few": series("v4.x.1k.few", 10, 20, 10),
        "v4.x.1m.all": series("v4.x.1m.all", 10, 60, 40),
    }
    found = {r.name: r.ratio for r in report.growth(grown)}
    assert found == {"growth.v4.x.1k.few": None, "growth.v4.x.1m.all": 3.0}, (
        "and not the median by the median, 4"
    )
