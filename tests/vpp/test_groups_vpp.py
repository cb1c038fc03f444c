"""S5 on VPP, packet by packet: members' entries take what is the group's, and let pass what is not.

The core says what is right. Both nodes of tests/group_sites.py are one VPP here, one after the other: packets
enter by pg0 and leave by pg1, in one table and in two.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet

from ipshare.engine.desired import desired
from ipshare.engine.tables import Tables
from tests.group_sites import APP, BOTH_MOVED, DB, DB_NOW, MOVED, STRANGER, Sites, configured, sites
from tests.vpp.pg import Passed, hop
from tests.vpp.pg_node import ADDRESSES, PgNode, pg_node

FAMILIES = pytest.mark.parametrize("family", [4, 6])
LAYERS = {4: IP, 6: IPv6}


@pytest.fixture(scope="module", params=[(0, 0), (0, 5)], ids=["one-table", "two-tables"])
def node(request: pytest.FixtureRequest) -> Iterator[PgNode]:
    with pg_node(tables=request.param) as made:
        yield made


@pytest.fixture(scope="module")
def core() -> Iterator[Sites]:
    with sites(MOVED) as made:
        yield made


def load(node: PgNode, name: str, groups: str = MOVED) -> None:
    node.load(desired(configured(name, groups)))


def datagram(family: int, source: tuple[str, str], to: tuple[str, str], size: int = 64, **more: int) -> bytes:
    at = family == 6
    made: Packet = LAYERS[family](src=source[at], dst=to[at], **more) / UDP(sport=1, dport=2) / bytes(size)
    return bytes(made)


def one(node: PgNode, packet: bytes) -> Passed:
    (found,) = node.generator.pass_([packet])
    return found


def sent(found: Passed) -> bytes:
    (packet,) = found.sent
    return packet


@FAMILIES
def test_what_members_say_to_each_other(node: PgNode, core: Sites, family: int) -> None:
    """To the one that moved, and its answer, which meets the entry of the one that did not: once through the
    core each."""
    for name, way in (
        ("P", (APP, DB)), ("B", (APP, DB_NOW)), ("B", (DB, APP)), ("P", (DB_NOW, APP)),
    ):  # fmt: skip
        load(node, name)
        packet = datagram(family, *way)
        found = one(node, packet)
        assert sent(found) == hop(core.one(name, packet)), (name, way)
        assert found.trace.count("inner: PEER") == 1 and "PASS" not in found.trace, found.trace


@FAMILIES
def test_what_others_say_passes(node: PgNode, family: int) -> None:
    load(node, "P")
    for source, to in ((STRANGER, APP), (STRANGER, DB), (APP, STRANGER), (APP, DB_NOW)):
        packet = datagram(family, source, to)
        assert sent(one(node, packet)) == hop(packet), (source, to)


@FAMILIES
def test_the_cores_own_errors_pass_the_entry_of_whom_they_are_for(node: PgNode, family: int) -> None:
    load(node, "P")
    hops = {"ttl": 1} if family == 4 else {"hlim": 1}
    packet = datagram(family, APP, DB, **hops)
    told = LAYERS[family](sent(one(node, packet)))
    assert told.dst == APP[family == 6] and bytes(told).endswith(packet[-64:])


@FAMILIES
def test_vpps_own_errors_are_translated(node: PgNode, family: int) -> None:
    """Too long for the way out once it is translated: what is told quotes the address that was used."""
    load(node, "P")
    index = next(
        one.sw_if_index for one in node.client.dump("sw_interface_dump") if one.interface_name == "pg1"
    )
    mtu = 1280
    node.client.call("sw_interface_set_mtu", sw_if_index=index, mtu=[mtu, 0, 0, 0])
    try:
        flags = {"flags": "DF"} if family == 4 else {}
        found = sent(one(node, datagram(family, APP, DB, 1400, **flags)))
    finally:
        node.client.call("sw_interface_set_mtu", sw_if_index=index, mtu=[9000, 0, 0, 0])
    told = LAYERS[family](found)
    at = family == 6
    assert told.src == ADDRESSES[at].split("/")[0] and told.dst == APP[at]
    error = told[ICMP] if family == 4 else told[ICMPv6PacketTooBig]
    assert (error.nexthopmtu if family == 4 else error.mtu) == mtu
    assert LAYERS[family](bytes(error.payload)).dst == DB[at]


def test_entries_come_and_go(node: PgNode) -> None:
    load(node, "P", BOTH_MOVED)
    shown = node.client.cli("show ipshare prefixes")
    assert shown.count(": peer") == 4, shown
    for table in node.tables:
        assert "ipshare-inner" in node.client.cli(f"show ip fib table {table} {DB[0]}/32")
    node.load(Tables())
    assert ": peer" not in node.client.cli("show ipshare prefixes")
    packet = datagram(4, APP, DB)
    assert sent(one(node, packet)) == hop(packet)
