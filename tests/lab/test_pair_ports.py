"""Sub-interfaces with a workload's MAC address: up on the active node alone (S3.4), seen at the switch.

Tests for every engine are imported by tests/vpp/test_pair_ports_vpp.py;
test_what_the_agent_makes_and_takes_away is about devices of Linux.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipshare.agent.pair_ports import ensure, remove
from ipshare.core import lib
from ipshare.errors import Refused
from ipshare.lab.netns import inside
from ipshare.model import PairPort
from tests.engine_lab import run
from tests.pair_lab import PATIENCE_S, REFUSED, VIPS, WORKLOAD, Half, PairLab, pair_lab, until

ACTIVE, STANDBY = lib.IPS_PAIR_ACTIVE, lib.IPS_PAIR_STANDBY
PATIENT = {"interval_ns": 200_000_000, "misses": 20}
"""A pair that a busy machine does not move."""
SILENCE_S, ETH_P_ALL = 3.0, 3
"""Of what has to be silent; perf/test_silent_standby.py looks for a minute."""


@pytest.fixture
def kind() -> type[Half]:
    return Half


@pytest.fixture
def lab(tmp_path: Path, kind: type[Half]) -> Iterator[PairLab]:
    with pair_lab(tmp_path, kind) as made:
        yield made


def hands_over(half: Half) -> bool:
    """As soon as its peer is ready for it."""
    try:
        half.order(lib.IPS_CTL_PAIR_SWITCHOVER)
    except REFUSED as error:
        assert error.message
        return False
    return True


def lan_port(lab: PairLab, half: Half) -> str:
    """The port of the switch that it is behind."""
    return f"to-{'a' if half is lab.a else 'b'}"


def ear(lab: PairLab, port: str) -> socket.socket:
    """At that port of the switch."""

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        made.bind((port, 0))
        return made

    return inside(lab.names["lan"], listen)


def is_the_actives(frame: bytes) -> bool:
    """It has the workload's MAC address as source, or says that its sender has a VIP: that of an ARP packet,
    of an IP packet, of a neighbour's advertisement."""
    says = {0x0806: (frame[28:32],), 0x0800: (frame[26:30],), 0x86DD: (frame[22:38], frame[62:78])}
    is_solicitation = frame[12:14] == b"\x86\xdd" and frame[54:55] == b"\x87"
    told = says.get(int.from_bytes(frame[12:14]), ())[: 1 if is_solicitation else 2]
    return frame[6:12].hex(":") == WORKLOAD or any(ip_address(vip).packed in told for vip in VIPS)


def heard(ears: Sequence[socket.socket], enough: int, longest_s: float) -> tuple[int, list[str]]:
    """Frames that come in there, and those of them that only the active node may send; until ``enough``."""
    seen, found = 0, list[str]()
    end = time.monotonic() + longest_s
    while len(found) < enough and (left := end - time.monotonic()) > 0:
        for at in select.select(ears, [], [], left)[0]:
            frame, (_, _, kind, *_) = at.recvfrom(2048)
            if kind != socket.PACKET_OUTGOING:
                seen += 1
                found += [frame.hex()] if is_the_actives(frame) else []
    return seen, found


def test_up_on_the_active_and_not_a_frame_from_the_standby(lab: PairLab) -> None:
    hands_over_and_is_silent(lab, SILENCE_S)


def hands_over_and_is_silent(lab: PairLab, silence_s: float) -> int:
    """Frames that the standby sent in that time."""
    with contextlib.ExitStack() as end:
        ears = {
            half: [
                end.enter_context(ear(lab, port))
                for port in sorted({half.make_port(lab), lan_port(lab, half)})
            ]
            for half in (lab.a, lab.b)
        }
        active, standby = lab.start(publics=("10.7.0.0/24",), port=lab.a.port, **PATIENT)
        until(active.port_is_up)
        assert not standby.port_is_up() and int(standby.state()["ports_wrong"]) == 0
        until(lambda: hands_over(active))
        until(lambda: active.is_in(STANDBY) and standby.is_in(ACTIVE))
        until(lambda: standby.port_is_up() and not active.port_is_up())
        assert len(heard(ears[standby], 256, PATIENCE_S)[1]) >= 256, "the new one announces its addresses"
        for at in ears[active]:
            assert heard([at], 1, PATIENCE_S)[1], "as the other did while it was active"
            while select.select([at], [], [], 0)[0]:  # what was under way
                at.recv(2048)
        changes = int(active.state()["changes"])
        seen, wrong = heard(ears[active], 1, silence_s)
        assert not wrong
        assert int(active.state()["changes"]) == changes, "it was the standby all the while"
    standby.clear()
    assert not standby.port_is_up()
    return seen


def test_somebody_who_sets_it_up_does_not_prevail(lab: PairLab) -> None:
    for half in (lab.a, lab.b):
        half.make_port(lab)
    active, standby = lab.start(publics=("10.7.0.0/24",), port=lab.a.port)
    until(active.port_is_up)
    standby.meddle(True)
    active.meddle(False)
    until(lambda: active.port_is_up() and not standby.port_is_up())


def test_what_the_agent_makes_and_takes_away(tmp_path: Path) -> None:
    port = PairPort("web1", "lan0", WORKLOAD)
    with pair_lab(tmp_path) as lab:
        name = lab.names["a"]
        assert inside(name, lambda: ensure([port], tmp_path)) is True
        assert inside(name, lambda: ensure([port], tmp_path)) is False
        shown = run(name, "ip -d link show web1")
        assert WORKLOAD in shown and "NOARP" in shown and "addrgenmode none" in shown and ",UP" not in shown
        assert "inet6" not in run(name, "ip address show web1")
        run(name, "ip link add mine type veth peer name mine2")
        with pytest.raises(Refused, match="did not make it"):
            inside(name, lambda: ensure([port, PairPort("mine", "lan0", WORKLOAD)], tmp_path))
        inside(name, lambda: remove(tmp_path))
        assert "web1" not in run(name, "ip link show") and "mine" in run(name, "ip link show")
