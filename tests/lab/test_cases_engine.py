"""S1.2, S1.3 on the embedded engine: the packet cases and generated packets, both directions, every byte.

Two engines, a distribution point's and an end point's; tests/tun_wire.py brings packets in and out of
them unchanged. The verdict is what the engine counted, the bytes are the oracle's, and back is the packet.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given

from tests.cases import Case, cases
from tests.cases.build import build
from tests.cases.generate import damaged, packets
from tests.cases.judge import INNER, OUTER, expected
from tests.examples import examples
from tests.oracle.parse import EGRESS, PLAIN, Offload, parse
from tests.tun_wire import NotOnWire, Wire, can_be_sent, wire


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


SENT = [case for case in cases() if can_be_sent(case.packet, case.offload)]


def test_only_what_no_link_carries_is_left_out() -> None:
    """The core's own tests run all cases."""
    assert not [case.name for case in set(cases()) - set(SENT) if case.packet and case.on_wire]
    assert len(SENT) > len(cases()) * 0.95


@pytest.mark.parametrize("case", SENT, ids=lambda case: case.name)
def test_s1_2_s1_3_case(case: Case, outer: Wire, inner: Wire) -> None:
    """The verdict of the table, the bytes of the oracle; inner(outer(p)) = p."""
    try:
        verdict, between = through(outer, case.packet, "outer", case.offload)
    except NotOnWire as why:
        if has_wire_form(case, outer):
            raise
        pytest.skip(f"NOT RUN on the engine, no device hands it over: {why}")
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
