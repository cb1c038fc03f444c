"""Sub-interfaces with a workload's MAC address: up on the active node alone (S3.4), seen at the switch.

Tests for every engine are imported by tests/vpp/test_pair_ports_vpp.py;
test_what_the_agent_makes_and_takes_away is about devices of Linux.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.agent.pair_ports import ensure, remove
from ipshare.core import lib
from ipshare.errors import Refused
from ipshare.lab.netns import inside
from ipshare.model import PairPort
from tests.engine_lab import run
from tests.pair_lab import REFUSED, WORKLOAD, Half, PairLab, pair_lab, until

ACTIVE, STANDBY = lib.IPS_PAIR_ACTIVE, lib.IPS_PAIR_STANDBY
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


def ear(lab: PairLab, port: str) -> socket.socket:
    """At that port of the switch."""

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        made.bind((port, 0))
        made.settimeout(0.1)
        return made

    return inside(lab.names["lan"], listen)


def workload_frames(at: socket.socket, enough: int, longest_s: float) -> int:
    """How many come in from there with the workload's MAC address as source."""
    count, end = 0, time.monotonic() + longest_s
    while count < enough and time.monotonic() < end:
        try:
            frame, (_, _, kind, *_) = at.recvfrom(2048)
        except TimeoutError:
            continue
        count += kind != socket.PACKET_OUTGOING and frame[6:12].hex(":") == WORKLOAD
    return count


def test_up_on_the_active_and_not_a_frame_from_the_standby(lab: PairLab) -> None:
    hands_over_and_is_silent(lab, SILENCE_S)


def hands_over_and_is_silent(lab: PairLab, silence_s: float) -> None:
    port = {half: half.make_port(lab) for half in (lab.a, lab.b)}
    active, standby = lab.start(publics=("10.7.0.0/24",), port=lab.a.port)
    until(active.port_is_up)
    assert not standby.port_is_up() and int(standby.state()["ports_wrong"]) == 0
    with ear(lab, port[standby]) as at_standby, ear(lab, port[active]) as at_active:
        until(lambda: hands_over(active))
        until(lambda: active.is_in(STANDBY) and standby.is_in(ACTIVE))
        until(lambda: standby.port_is_up() and not active.port_is_up())
        assert workload_frames(at_standby, 256, 60) == 256, "the new one announces its addresses"
        at_active.setblocking(False)
        while True:  # what was under way
            try:
                at_active.recv(2048)
            except BlockingIOError:
                break
        at_active.settimeout(0.1)
        assert workload_frames(at_active, 1, silence_s) == 0
    standby.clear()
    assert not standby.port_is_up()


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
