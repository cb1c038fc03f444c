"""S1.2, S1.3 on VPP: the packet cases through its packet generator, both directions, every byte.

One VPP plays the distribution point first and the end point then (two generations). The verdict is what the
plugin's trace and counters say, the bytes are the oracle's with a hop used up, and back is the packet. Each
table runs through three pairs of interfaces: without offloads, with checksums left to the egress, and with
GSO.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.cases import Case, address, cases
from tests.cases.build import build
from tests.cases.judge import INNER, OUTER
from tests.oracle.checksum import checksum, pseudo
from tests.oracle.encap import ip_header_len, proto
from tests.oracle.parse import CHECKSUM_AT, TCP, parse
from tests.oracle.rewrite import DST, SRC, address_of, place
from tests.vpp.pg import hop
from tests.vpp.pg_node import BUFFER, SEGMENT, PgNode, Result, as_described, is_offloaded, pg_node
from tests.vpp.taken_over import CASES

DOORS = {"plain": ("pg0", "pg1"), "checksums": ("pg3", "pg4"), "gso": ("pg2", "pg4")}
"""Where packets enter and leave."""


@pytest.fixture(scope="module")
def node() -> Iterator[PgNode]:
    with pg_node() as made:
        yield made


class There(NamedTuple):
    """What became of a packet that entered there at the distribution point, and of that at the end point."""

    enter: str
    outer: Result
    inner: Result | None


def long_packets() -> Iterator[Case]:
    """Packets of more than one buffer, some ending right at its border."""
    for family in (4, 6):
        ip, error = f"ip{family}", {"icmp": {"type": 3}} if family == 4 else {"icmp6": {"type": 1}}
        headers = 20 if family == 4 else 40
        quote = {"quote": {"packet": [{ip: {"src": "global", "dst": "client"}}, "tcp", {"data": 4000}]}}
        shapes = {f"tcp-{n}": ["tcp", {"data": n - headers - 20}] for n in range(BUFFER - 1, BUFFER + 3)}
        shapes |= {"tcp-9000": ["tcp", {"data": 9000 - headers - 20}], "udp": ["udp", {"data": 4080}]}
        for name, layers in shapes.items():
            yield Case(f"long{family}-{name}", "chained buffers", build([ip, *layers]))
        source = {ip: {"src": "router"}}
        yield Case(f"long{family}-error", "a quote in chained buffers", build([source, error, quote]))
    options: list[Any] = [*[{"dstopts": {"size": 256}}] * 8, "tcp", {"data": 99}]
    yield Case("long6-options", "the checksum is in the second buffer", build(["ip6", *options]))
    quoted = [{"ip6": {"src": "global", "dst": "client"}}, *options]
    layers = [{"ip6": {"src": "router"}}, {"icmp6": {"type": 1}}, {"quote": {"packet": quoted}}]
    yield Case("long6-quoted-options", "so is the quoted one", build(layers))


TABLE = {case.name: case for case in (*cases(), *long_packets()) if case.packet and case.on_wire}


@pytest.fixture(scope="module", params=DOORS)
def table(request: pytest.FixtureRequest, node: PgNode) -> dict[str, There]:
    """All cases, there and back."""
    enter, leave = DOORS[request.param]
    node.leave_by(leave)
    node.load(OUTER)
    packets = [case.packet for case in TABLE.values()]
    outer = node.through(packets, "outer", enter=enter)
    node.load(INNER)
    between = [one.onward for one in outer if one.onward is not None]
    inner = iter(node.through(between, "inner", enter=enter))
    found = (There(enter, one, None if one.onward is None else next(inner)) for one in outer)
    return dict(zip(TABLE, found, strict=True))


@pytest.mark.parametrize("name", TABLE)
def test_s1_2_s1_3_case(name: str, table: dict[str, There]) -> None:
    """The verdict of the table, the bytes of the oracle; inner(outer(p)) = p."""
    case, found = TABLE[name], table[name]
    assert not found.outer.problem, found.outer.problem
    assert found.outer.verdict == case.verdict or is_offloaded(case.packet, found.enter)
    assert bool(found.outer.decided) != (name in CASES), "who decided"
    if found.outer.decided == "OK":
        assert found.inner is not None
        assert not found.inner.problem, found.inner.problem
        whole, _ = as_described(case.packet[: parse(case.packet).ip_len], found.enter)
        assert found.inner.onward == hop(hop(whole))


def with_sum(packet: bytes) -> bytes:
    """The packet with the L4 checksum that an egress writes."""
    at, family = ip_header_len(packet), packet[0] >> 4
    field = at + CHECKSUM_AT[family][proto(packet)]
    bare = packet[:field] + b"\0\0" + packet[field + 2 :]
    covered = pseudo(address_of(packet, SRC), address_of(packet, DST), proto(packet), len(packet) - at)
    return packet[:field] + (checksum(bare[at:], covered) or 0xFFFF).to_bytes(2) + packet[field + 2 :]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_egress_writes_the_checksum(node: PgNode, family: int, transport: str) -> None:
    """Whatever the field holds: what leaves by an interface without offloads has the sum of what it is
    then."""
    node.leave_by("pg1")
    node.load(OUTER)
    packets = [build([f"ip{family}", {transport: {"csum": field}}, {"data": 99}]) for field in (0, 7, 0xFFFF)]
    for packet, found in zip(packets, node.generator.pass_(packets, enter="pg3"), strict=True):
        to = address("local", family)
        where = place(family, DST)
        (sent,) = found.sent
        assert sent[where] == to
        assert sent[where.stop :] == with_sum(packet[: where.start] + to + packet[where.stop :])[where.stop :]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("size", [BUFFER + 1, 5000, 9000])
def test_super_packet_is_segmented_behind_the_plugin(node: PgNode, family: int, size: int) -> None:
    """The segments carry all bytes, each with the local address and a checksum that is right."""
    node.leave_by("pg1")
    node.load(OUTER)
    headers = (20 if family == 4 else 40) + 20
    packet = build([f"ip{family}", {"tcp": {"csum": 0}}, {"data": size - headers}])
    assert as_described(packet, "pg2")[1].gso_type == 1
    (found,) = node.generator.pass_([packet], enter="pg2")
    assert len(found.sent) == -(-(size - headers) // SEGMENT)
    assert b"".join(one[headers:] for one in found.sent) == packet[headers:]
    for one in found.sent:
        assert proto(one) == TCP
        assert address_of(one, DST) == address("local", family)
        assert one == with_sum(one)
        if family == 4:
            assert checksum(one[:20]) == 0
