"""S1.2, S1.3 on the embedded engine: the packet cases and generated packets, both directions, every byte.

Two engines, a distribution point's and an end point's; tests/tun_wire.py brings packets in and out of
them unchanged. The verdict is what the engine counted, the bytes are the oracle's, and back is the packet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given

from ipshare.core import lib
from tests.cases import Case, cases
from tests.cases.build import build
from tests.cases.generate import damaged, packets
from tests.engine_lab import tables
from tests.examples import examples
from tests.oracle.icmp_error import TTL, error
from tests.oracle.parse import EGRESS, PLAIN, Offload, Refused, parse
from tests.oracle.rewrite import DST, SRC, address_of, translate
from tests.tun_wire import NotOnWire, Seen, Wire, wire

PAIRS = ((4, "203.0.113.0", 24, "10.20.0.0"), (6, "2001:db8:60b:a1::", 64, "2001:db8:10ca:1::"))
SCOPES = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/127", "fe80::/10", "ff00::/8")
SOURCES = {4: ip_address("192.0.2.1").packed, 6: ip_address("2001:db8:77::1").packed}
OUTER = replace(tables(lib.IPS_ROLE_OUTER, self_flag=0, pairs=PAIRS), icmp_rate=10**6)
INNER = replace(tables(lib.IPS_ROLE_INNER, self_flag=lib.IPS_EP_SELF, pairs=PAIRS), icmp_rate=10**6)


@pytest.fixture(scope="module")
def outer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    sentinel = build(["ip4", {"udp": {"csum": 0}}, {"data": 8}])
    with wire(tmp_path_factory.mktemp("outer"), OUTER, "outer", sentinel) as made:
        yield made
        assert made.refused() == 0


@pytest.fixture(scope="module")
def inner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    sentinel = build([{"ip4": {"dst": "local"}}, {"udp": {"csum": 0}}, {"data": 8}])
    with wire(tmp_path_factory.mktemp("inner"), INNER, "inner", sentinel) as made:
        yield made
        assert made.refused() == 0


def is_scoped(address: bytes) -> bool:
    """Never forwarded (RFC 1122 3.2.1.3, RFC 4291 2.5, 2.7)."""
    value = ip_address(address)
    return any(value in ip_network(scope) for scope in SCOPES)


def other_side(address: bytes, side: str) -> bytes | None:
    """The address that the binding puts in its place; None: no binding."""
    for _, network, length, local in PAIRS:
        here, there = (network, local) if side == "outer" else (local, network)
        if ip_address(address) in ip_network(f"{here}/{length}"):
            return ip_address(there).packed[: length // 8] + address[length // 8 :]
    return None


def expected(data: bytes, side: str, offload: Offload = PLAIN) -> tuple[str, list[Seen]]:
    """What the engine of this side must count and send."""
    try:
        view = parse(data, offload)
        destination = address_of(data, DST)
        if is_scoped(destination):
            return "DESTINATION_SCOPE", []
        to = other_side(destination, side)
        if to is None:
            return "NO_BINDING", []
        if is_scoped(address_of(data, SRC)):
            return "SOURCE_SCOPE", []
        if view.ttl > 1:
            return "OK", [Seen(translate(data, DST, to, offload), offload)]
        if side == "inner":
            data = translate(data, DST, to, offload)  # the report quotes what the client sent
        report = error(data, view, TTL, 0, SOURCES[view.family], offload)
        return "TTL_EXPIRED", [Seen(report)] if report else []
    except Refused as refused:
        return refused.args[0], []


def through(wire: Wire, data: bytes, side: str, offload: Offload = PLAIN) -> tuple[str, bytes]:
    """The engine does what is expected; the verdict, and the packet behind an OK."""
    found = wire.pass_(data, offload)
    assert found == expected(data, side, offload), data.hex()
    return found[0], found[1][0].data if found[0] == "OK" else b""


def has_wire_form(case: Case, wire: Wire) -> bool:
    """The kernel has to hand it over; UDP super-packets it knows since Linux 6.2."""
    fields = case.offload
    good = case.verdict == "OK" and fields.csum != EGRESS and (fields.gso_type != 2 or "uso" in wire.features)
    return bool(case.packet) and (case.on_wire or good)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_s1_2_s1_3_case(case: Case, outer: Wire, inner: Wire) -> None:
    """The verdict of the table, the bytes of the oracle; inner(outer(p)) = p."""
    try:
        verdict, between = through(outer, case.packet, "outer", case.offload)
    except NotOnWire as why:
        if has_wire_form(case, outer):
            raise
        pytest.skip(f"no device hands it over: {why}")
    assert verdict == case.verdict or case.packet[8 if case.family == 4 else 7] <= 1
    if verdict == "OK":
        verdict, back = through(inner, between, "inner", case.offload)
        assert verdict == "OK"
        assert back == case.packet[: len(back)]
        assert len(back) == parse(case.packet, case.offload).ip_len


@examples(400)
@given(packets())
def test_s1_3_generated(outer: Wire, inner: Wire, data: bytes) -> None:
    verdict, between = through(outer, data, "outer")
    if verdict == "OK":
        verdict, back = through(inner, between, "inner")
        assert verdict == "OK"
        if b"\xff\xff" not in data:  # the sum that cannot come back: ips_csum.h
            assert back.hex() == data.hex()


@examples(300)
@given(packets("local"))
def test_between(inner: Wire, data: bytes) -> None:
    """What reaches the end point, its hop limit used up on the way or not."""
    through(inner, data, "inner")


@examples(300)
@given(damaged(), damaged("local"))
def test_damaged(outer: Wire, inner: Wire, to_global: bytes, to_local: bytes) -> None:
    """Any bytes changed, cut anywhere: the verdict is counted, nothing else comes out, the engine lives."""
    if to_global:
        through(outer, to_global, "outer")
    if to_local:
        through(inner, to_local, "inner")
