"""A host that wants no TCP super-packets: segments that come out of a tunnel go on one by one (S1.7)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from ipshare.core import VERDICTS
from tests.sites import CLIENT4, CLIENT6, GLOBAL4, GLOBAL6, Site, site

SIZE = 1000
PAYLOAD = bytes(range(256)) * 30  # 7,680 bytes: eight segments, the last one shorter
SEGMENTS = -(-len(PAYLOAD) // SIZE)
NUMBER = {verdict.name: number for number, verdict in enumerate(VERDICTS)}


def super_packet(family: int) -> bytes:
    tcp = TCP(sport=4000, dport=80, seq=1000, flags="A") / Raw(PAYLOAD)
    if family == 4:
        return bytes(IP(src=CLIENT4, dst=GLOBAL4, id=77, flags="DF") / tcp)
    return bytes(IPv6(src=CLIENT6, dst=GLOBAL6) / tcp)


def payloads(packets: list[bytes], family: int) -> list[bytes]:
    """Of each, after its kernel-verified sums: a wrong checksum would not come out of scapy the same."""
    parsed = [(IP if family == 4 else IPv6)(packet) for packet in packets]
    for packet, raw in zip(parsed, packets, strict=True):
        again = packet.copy()
        del again[TCP].chksum
        assert bytes(again) == raw
    return [packet[TCP].payload.load for packet in parsed]


def pieces(nodes: Site, family: int) -> list[bytes]:
    made = nodes.outer(super_packet(family), gso_type=1, gso_size=SIZE)
    assert made.verdict.name == "SPLIT"
    return list(made.packets)


@pytest.mark.parametrize("path", ["ipip", "gue"])
@pytest.mark.parametrize("family", [4, 6])
def test_each_segment_comes_out_alone_and_at_once(family: int, path: str) -> None:
    with site(path=path, coalesces=False) as nodes:
        tunnelled = pieces(nodes, family)
        assert len(tunnelled) == SEGMENTS
        nodes.A.begin()
        made = [nodes.A.process("inner", piece, frame=False) for piece in tunnelled]
        assert nodes.A.end() == ()  # nothing was held back
        assert [outcome.verdict.name for outcome in made] == ["DECAPSULATED"] * SEGMENTS
        assert [len(outcome.packets) for outcome in made] == [1] * SEGMENTS
        assert all(outcome.offload["gso_size"] == outcome.offload["csum"] == 0 for outcome in made)
        out = payloads([outcome.packets[0] for outcome in made], family)
        assert b"".join(out) == PAYLOAD and {len(load) for load in out[:-1]} == {SIZE}
        counts = nodes.A.verdict_counts()[1]
        assert (counts[NUMBER["DECAPSULATED"]], counts[NUMBER["COALESCED"]]) == (SEGMENTS, 0)


@pytest.mark.parametrize("family", [4, 6])
def test_a_train_comes_apart_into_segments(family: int) -> None:
    """What a peer sent as one UDP super-packet is opened within one call, and not joined again."""
    with site(path="gue", trains=True, coalesces=False) as nodes:
        (train,) = pieces(nodes, family)
        header = 20 if family == 4 else 40
        partial = {"csum": 1, "csum_start": header, "csum_offset": 6}
        opened = nodes.A.process("inner", train, gso_type=2, gso_size=4 + header + 20 + SIZE, **partial)
        assert opened.verdict.name == "SPLIT"
        out = payloads(list(opened.packets), family)
        assert len(out) == SEGMENTS and b"".join(out) == PAYLOAD


def test_without_the_wish_they_are_joined() -> None:
    """The same packets, so that the test above shows what the switch does."""
    with site(path="ipip") as nodes:
        nodes.A.begin()
        made = [nodes.A.process("inner", piece, frame=False) for piece in pieces(nodes, 4)]
        (joined,) = [packet for outcome in made for packet in outcome.packets] + list(nodes.A.end())
        assert {outcome.verdict.name for outcome in made} == {"COALESCED"}
        assert IP(joined)[TCP].payload.load == PAYLOAD
