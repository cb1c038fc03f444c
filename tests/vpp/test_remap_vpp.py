"""What is VPP's alone about remaps, packet by packet: entries of channels, replies through them, its API.

The VPP is a, of tests/remap_lab.py; b is nowhere. Packets enter by pg0 and leave by pg1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from ipshare.core import VERDICTS, lib
from ipshare.engine.remapping import ChannelKind, RemapRole, RemapSettings, encode_remap
from ipshare.engine.session_filter import SessionFilter
from ipshare.engine.vpp.client import ApiRefused
from ipshare.engine.vpp.retval import Retval
from ipshare.errors import Refused
from tests.engine_lab import GLOBAL4, GLOBAL6
from tests.pair_lab import until
from tests.remap_lab import channel_address, flows_of_site, half, site_tables
from tests.vpp.pg import Passed, hop
from tests.vpp.pg_node import PgNode, pg_node

CLIENT4, CLIENT6 = "198.51.100.77", "2001:db8:7::77"
LOCAL4, OTHER6 = "198.18.1.9", "2001:db8:9::10"
IPIP, IPIP6 = 4, 41


@pytest.fixture(scope="module", params=[(0, 0), (0, 5)], ids=["one-table", "two-tables"])
def node(request: pytest.FixtureRequest) -> Iterator[PgNode]:
    with pg_node(tables=request.param) as made:
        assert made.running.engine.remaps() == ()
        made.running.engine.tracked.order(lib.IPS_CTL_FLOWS_SET, flows_of_site())
        made.load(site_tables("a", lib.IPS_ROLE_INNER, lib.IPS_EP_SELF))
        yield made


@contextmanager
def remapped(node: PgNode, *halves: RemapSettings) -> Iterator[None]:
    try:
        for one_half in halves:
            node.running.engine.set_remap(one_half)
        yield
    finally:
        for one_half in halves:
            node.running.engine.clear_remap(one_half.id)
        node.running.engine.close_sessions(SessionFilter())


def leaving(number: int, address: str, kind: ChannelKind, family: int, **more: Any) -> RemapSettings:
    return replace(half(number, address, kind, family, **more)["a"], role=RemapRole.LEAVING)


def one(node: PgNode, packet: Any) -> Passed:
    (found,) = node.generator.pass_([bytes(packet)])
    return found


def sent(found: Passed) -> bytes:
    (packet,) = found.sent
    return packet


def inner(address: str) -> Any:
    v6 = ":" in address
    return (IPv6 if v6 else IP)(src=CLIENT6 if v6 else CLIENT4, dst=address) / TCP(
        sport=9, dport=80, flags="A"
    )


def final(family: int, carried: Any) -> Any:
    """From b, by IP-in-IP: to be delivered."""
    ends = {"src": channel_address("b", family, 0), "dst": channel_address("a", family, 0)}
    if family == 4:
        return IP(proto=IPIP6 if carried.version == 6 else IPIP, **ends) / bytes(carried)
    return IPv6(nh=IPIP6 if carried.version == 6 else IPIP, **ends) / bytes(carried)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("address", [GLOBAL4, GLOBAL6])
def test_a_channels_packets_come_in_while_there_is_a_remap(node: PgNode, family: int, address: str) -> None:
    packet = inner(address)
    carried = final(family, packet)
    with remapped(node, leaving(1, address, ChannelKind.IPIP, family)):
        found = one(node, carried)
        assert sent(found) == hop(bytes(packet)) and "inner: FINAL_HERE" in found.trace
        assert node.client.cli("show ipshare prefixes").count(": channel") == 2
    assert ": channel" not in node.client.cli("show ipshare prefixes")
    assert sent(one(node, carried)) == hop(bytes(carried)), "VPP's own routes"


def test_two_remaps_share_a_channel_and_one_is_readdressed(node: PgNode) -> None:
    """The entries stay as long as one remap has them."""
    with remapped(node, leaving(3, GLOBAL6, ChannelKind.IPIP, 4)):
        with remapped(
            node,
            leaving(2, GLOBAL4, ChannelKind.IPIP, 4),
            leaving(4, OTHER6, ChannelKind.REWRITE, 6),
        ):
            found = one(node, IPv6(src=CLIENT6, dst=channel_address("a", 6, 0)) / UDP(sport=1, dport=2))
            assert IPv6(sent(found)).dst == OTHER6 and "FINAL_HERE" in found.trace
        assert "FINAL_HERE" in one(node, final(4, inner(GLOBAL6))).trace


def asked(node: PgNode, remap: int) -> int:
    """As it was told last: some milliseconds ago."""
    state = node.running.engine.remap_state(remap)
    assert state is not None
    return state.counters["asked"]


def test_who_leaves_asks_and_why_says_so(node: PgNode) -> None:
    packet = bytes(IP(src=CLIENT4, dst=LOCAL4) / TCP(sport=9, dport=80, flags="S"))
    with remapped(node, leaving(5, GLOBAL4, ChannelKind.IPIP, 4)):
        found = one(node, packet)
        outer = IP(sent(found))
        assert (outer.src, outer.dst) == (channel_address("a", 4, 1), channel_address("b", 4, 1))
        assert IP(bytes(outer.payload)).dst == GLOBAL4 and "inner: ASKED" in found.trace
        explained = node.running.engine.why(packet, "inner")
        assert VERDICTS[explained.verdict].name == "ASKED" and len(explained.packets) == 1
        assert until(lambda: asked(node, 5)) == 1, "a question counts nothing"
    explained = node.running.engine.why(packet, "inner")
    assert VERDICTS[explained.verdict].name == "OK"


def test_replies_go_back_through_the_channel(node: PgNode) -> None:
    """S4.4, where interfaces are looked at for replies."""
    index = next(
        one.sw_if_index for one in node.client.dump("sw_interface_dump") if one.interface_name == "pg0"
    )
    node.client.call("ipshare_reply_interface", sw_if_index=index, side=1, enable=True)
    try:
        with remapped(node, leaving(6, GLOBAL4, ChannelKind.GUE, 4, replies_by_channel=True)):
            found = one(node, IP(src=GLOBAL4, dst=CLIENT4) / TCP(sport=80, dport=9, flags="A"))
            outer = IP(sent(found))
            assert (outer.dst, outer.proto) == (channel_address("b", 4, 0), 17)
            assert outer[UDP].dport == 6080 and "inner: REPLY_BACK" in found.trace
    finally:
        node.client.call("ipshare_reply_interface", sw_if_index=index, side=1, enable=False)


def test_orders_and_answers(node: PgNode) -> None:
    engine = node.running.engine
    many = [leaving(number, GLOBAL4, ChannelKind.GUE, 4) for number in range(10, 18)]
    with remapped(node, *many):
        assert [state.id for state in engine.remaps()] == list(range(10, 18))
        assert engine.remap_flows(10).matched == 0
        with pytest.raises(Refused, match="only the role"):
            engine.set_remap(replace(many[0], role=RemapRole.TAKING))
        with pytest.raises(ApiRefused) as refused:
            payload = encode_remap(leaving(18, GLOBAL4, ChannelKind.GUE, 4))
            node.client.call(
                "ipshare_flows", op=lib.IPS_CTL_REMAP_SET, path="", bytes=len(payload), payload=payload
            )
        assert refused.value.retval == Retval.INVALID_VALUE
        assert refused.value.reply.sentence.endswith("or more than 8 remaps of one address")
    assert engine.remaps() == () and engine.remap_state(10) is None
    with pytest.raises(Refused, match="no remap 10"):
        engine.remap_flows(10)
    assert isinstance(node.client.call("ipshare_hello").pid, int | np.integer), "it lives"
