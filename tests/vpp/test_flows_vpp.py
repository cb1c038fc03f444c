"""What is VPP's alone about NAT and tracked connections, packet by packet: who is inside, two tables, what is
followed, its API. Packets come from VPP's packet generator: inside is behind pg0, all else behind pg1."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Raw

from ipshare.core import lib
from ipshare.engine.flows import SESSION
from ipshare.engine.tables import Tables
from ipshare.engine.vpp.client import ApiRefused
from ipshare.engine.vpp.retval import Retval
from tests.cases.judge import OUTER
from tests.engine_lab import _packed
from tests.flows_lab import FILTER, INSIDE4, POOL4, flows
from tests.vpp.nat_vpp import REALM
from tests.vpp.pg import Passed
from tests.vpp.pg_node import PgNode, pg_node

PUBLIC = "198.51.100.77"
EMPTY = Tables(roles=lib.IPS_ROLE_OUTER, icmp_source4=_packed("198.51.100.17").tobytes())


@pytest.fixture(scope="module", params=[(0, 0), (0, 5)], ids=["one-table", "two-tables"])
def node(request: pytest.FixtureRequest) -> Iterator[PgNode]:
    with pg_node(tables=request.param) as made:
        index = {one.interface_name: one.sw_if_index for one in made.client.dump("sw_interface_dump")}
        made.client.call("ipshare_nat_interface", sw_if_index=index["pg0"], realm=REALM, enable=True)
        for table in made.tables:
            made.run(f"ip route add 10.0.1.0/24 table {table} via 198.51.100.253 pg1")
        made.load(EMPTY)
        yield made


def tell(node: PgNode, **values: Any) -> None:
    order(node, lib.IPS_CTL_FLOWS_SET, flows(**values).tobytes())


def order(node: PgNode, op: int, payload: bytes = b"", path: str = "") -> Any:
    return node.client.call(
        "ipshare_flows", op=op, path=path, bytes=len(payload), payload=payload, timeout_s=60
    )


def one(node: PgNode, packet: Any, enter: str = "pg0") -> Passed:
    (found,) = node.generator.pass_([bytes(packet)], enter=enter)
    return found


def sent(found: Passed) -> IP:
    (packet,) = found.sent
    return IP(packet)


def test_untranslated_nothing_leaves_before_the_engine_knows_who_is_inside(node: PgNode) -> None:
    """First of all here: the table of this VPP has not been made yet."""
    packet = bytes(IP(src=INSIDE4, dst=PUBLIC) / UDP(sport=5, dport=7))
    assert node.generator.burst([packet]) == []
    assert len(node.generator.burst([packet], enter="pg1")) == 1, "no inside is behind it"
    assert node.verdicts()["inner", "NO_BINDING"] == 1
    with pytest.raises(ApiRefused) as refused:
        order(node, lib.IPS_CTL_NAT_ADDRESSES, path=str(node.directory / "addresses"))
    assert "no connections are tracked" in refused.value.reply.sentence
    assert not list(node.directory.glob("addresses"))


def test_who_is_inside_and_who_is_not(node: PgNode) -> None:
    tell(node)
    out = sent(one(node, IP(src=INSIDE4, dst=PUBLIC) / UDP(sport=5, dport=7) / b"x"))
    assert ip_address(out.src) in {ip_address(POOL4) + i for i in range(4)} and out.dst == PUBLIC
    back = sent(one(node, IP(src=PUBLIC, dst=out.src) / UDP(sport=7, dport=out.sport) / b"y", "pg1"))
    assert (back.dst, back.dport, back.src) == (INSIDE4, 5, PUBLIC)
    for source, destination in (("10.7.7.7", PUBLIC), (INSIDE4, "10.0.1.33")):
        assert (sent(one(node, IP(src=source, dst=destination) / UDP())).src) == source, "stays as it is"
    same = sent(one(node, IP(src=INSIDE4, dst=PUBLIC) / UDP(), "pg1"))
    assert same.src == INSIDE4, "an interface that no inside is behind"
    assert not one(node, IP(src=PUBLIC, dst=POOL4) / UDP(sport=1, dport=1), "pg1").sent, "of no session"
    ours = one(node, IP(src=INSIDE4, dst="198.51.100.17") / ICMP(), "pg0")
    assert "ip4-receive" in ours.nodes, "VPP's own address"


def test_long_packets_and_fragments(node: PgNode) -> None:
    """Chains of buffers, and a datagram whose later fragment comes first."""
    tell(node)
    body = bytes(range(256)) * 20
    out = sent(one(node, IP(src=INSIDE4, dst=PUBLIC) / UDP(sport=9, dport=7) / body))
    assert bytes(out[UDP].payload) == body and out.src != INSIDE4
    whole = IP(bytes(IP(src=INSIDE4, dst=PUBLIC, id=77) / UDP(sport=11, dport=7) / body[:3000]))
    data = bytes(whole[UDP])
    pieces = [IP(src=INSIDE4, dst=PUBLIC, id=77, flags=1, proto=17) / Raw(data[:1480]),
              IP(src=INSIDE4, dst=PUBLIC, id=77, frag=185, proto=17) / Raw(data[1480:])]  # fmt: skip
    late, first = node.generator.pass_([bytes(p) for p in reversed(pieces)])
    assert not late.sent and len(first.sent) == 2
    assert len({IP(p).src for p in first.sent} - {INSIDE4}) == 1, "both have the address of the first"


def test_what_cannot_be_delivered_is_told_with_the_inside_address(node: PgNode) -> None:
    """A router's error, and VPP's own about a packet that is too long for the way out."""
    tell(node)
    out = sent(one(node, IP(src=INSIDE4, dst=PUBLIC) / UDP(sport=21, dport=7) / b"x"))
    quoted = bytes(out)[:28]
    told = sent(one(node, IP(src="198.51.100.9", dst=out.src) / ICMP(type=3, code=1) / quoted, "pg1"))
    assert told.dst == INSIDE4 and IP(bytes(told[ICMP].payload)).src == INSIDE4


def test_two_ends_inside_meet_by_their_public_addresses(node: PgNode) -> None:
    tell(node)
    out = sent(one(node, IP(src=INSIDE4, dst=PUBLIC) / UDP(sport=31, dport=7)))
    met = sent(one(node, IP(src="10.0.1.10", dst=out.src) / UDP(sport=41, dport=out.sport)))
    assert (met.dst, met.dport) == (INSIDE4, 31) and met.src != "10.0.1.10"


def test_what_is_followed_passes_as_it_would(node: PgNode) -> None:
    """S4.3: the same bytes as without track; the flow is the client's, and only of tracked bindings."""
    tell(node)
    syn = IP(src=PUBLIC, dst="203.0.113.9") / TCP(sport=1234, dport=80, flags="S")
    bindings = OUTER.bindings.copy()
    node.load(OUTER)
    plain, before = one(node, syn).sent, len(listed(node, kind=lib.IPS_SESSION_TRACK))
    assert plain and before == 0
    bindings["flags"] = lib.IPS_BINDING_TRACK
    node.load(dataclasses.replace(OUTER, bindings=bindings))
    ack = IP(src=PUBLIC, dst="203.0.113.9") / TCP(sport=1234, dport=80, flags="A", seq=1)
    assert one(node, syn).sent == plain and one(node, ack).sent
    (record,) = listed(node, kind=lib.IPS_SESSION_TRACK)
    assert bytes(record["flow"]["dst"])[:4] == ip_address("203.0.113.9").packed
    assert (record["flow"]["src_port"], record["flags"]) == (1234, lib.IPS_SESSION_ONE_SIDED)
    node.load(EMPTY)


def listed(node: PgNode, **wanted: int) -> Any:
    path = node.directory / "sessions"
    record = np.zeros(1, FILTER)
    for name, value in wanted.items():
        record[0][name] = value
    order(node, lib.IPS_CTL_SESSIONS_DUMP, record.tobytes(), str(path))
    try:
        return np.frombuffer(path.read_bytes(), SESSION)
    finally:
        path.unlink()


def test_orders_that_are_none(node: PgNode) -> None:
    tell(node)
    for op, payload, retval in (
        (lib.IPS_CTL_PREPARE, b"", Retval.UNIMPLEMENTED),
        (lib.IPS_CTL_FLOWS_SET, b"short", Retval.INVALID_VALUE_2),
    ):
        with pytest.raises(ApiRefused) as refused:
            order(node, op, payload)
        assert refused.value.retval == retval
    there = node.directory / "there"
    there.write_bytes(b"mine")
    with pytest.raises(ApiRefused) as refused:
        order(node, lib.IPS_CTL_NAT_ADDRESSES, path=str(there))
    assert "cannot make the file" in refused.value.reply.sentence and there.read_bytes() == b"mine"


def test_it_is_shown(node: PgNode) -> None:
    tell(node)
    assert "sessions: " in node.client.cli("show ipshare")
    assert "203.0.113.0/30: pool" in node.client.cli("show ipshare prefixes")
    for table in node.tables:  # errors about translated packets are looked up where the inside is
        assert "ipshare-outer" in node.client.cli(f"show ip fib table {table} {POOL4}/30")
    rows = [(row.sw_if_index, row.realm) for row in node.client.dump("ipshare_nat_interface_dump")]
    assert [realm for _, realm in rows] == [REALM]
    tell(node, n_pools=0, n_insides=0)
    assert ": pool" not in node.client.cli("show ipshare prefixes")
    assert sent(one(node, IP(src=INSIDE4, dst=PUBLIC) / UDP())).src == INSIDE4, "nobody is inside any more"
