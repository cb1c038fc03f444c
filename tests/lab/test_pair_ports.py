"""Sub-interfaces with a workload's MAC address: up on the active node alone (S3.4), seen at the switch."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.agent.pair_ports import ensure, remove
from ipshare.core import lib
from ipshare.engine.embedded import ControlError
from ipshare.errors import Refused
from ipshare.lab.netns import inside
from ipshare.model import PairPort
from tests.engine_lab import run
from tests.pair_lab import Half, PairLab, pair_lab, until

ACTIVE, STANDBY = lib.IPS_PAIR_ACTIVE, lib.IPS_PAIR_STANDBY
MAC = "02:00:00:aa:00:01"
PORT = PairPort("web1", "lan0", MAC)
SILENCE_S, ETH_P_ALL = 3.0, 3


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[PairLab]:
    with pair_lab(tmp_path) as made:
        for node in ("a", "b"):
            inside(made.names[node], lambda: ensure([PORT], tmp_path))
        yield made


def is_up(half: Half) -> bool:
    flags = run(half.name, "ip link show web1").split("<")[1].split(">")[0].split(",")
    assert ("UP" in flags) != ("NOARP" in flags) or "UP" not in flags
    return "UP" in flags


def hands_over(half: Half) -> bool:
    """As soon as its peer is ready for it."""
    try:
        half.order(lib.IPS_CTL_PAIR_SWITCHOVER)
    except ControlError as error:
        assert error.message
        return False
    return True


def ear(lab: PairLab, half: Half) -> socket.socket:
    """At the switch's port of that node."""
    port = f"to-{'a' if half is lab.a else 'b'}"

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
        count += kind != socket.PACKET_OUTGOING and frame[6:12].hex(":") == MAC
    return count


def test_up_on_the_active_and_not_a_frame_from_the_standby(lab: PairLab) -> None:
    active, standby = lab.start(publics=("10.7.0.0/24",), port="web1")
    until(lambda: is_up(active))
    assert not is_up(standby) and int(standby.state()["ports_wrong"]) == 0
    with ear(lab, standby) as at_standby, ear(lab, active) as at_active:
        until(lambda: hands_over(active))
        until(lambda: active.is_in(STANDBY) and standby.is_in(ACTIVE))
        until(lambda: is_up(standby) and not is_up(active))
        assert workload_frames(at_standby, 256, 60) == 256, "the new one announces its addresses"
        at_active.setblocking(False)
        while True:  # what was under way
            try:
                at_active.recv(2048)
            except BlockingIOError:
                break
        at_active.settimeout(0.1)
        assert workload_frames(at_active, 1, SILENCE_S) == 0
    standby.control._call(lib.IPS_CTL_PAIR_CLEAR)
    assert not is_up(standby)


def test_what_the_agent_makes_and_takes_away(tmp_path: Path) -> None:
    with pair_lab(tmp_path) as lab:
        name = lab.names["a"]
        assert inside(name, lambda: ensure([PORT], tmp_path)) is True
        assert inside(name, lambda: ensure([PORT], tmp_path)) is False
        shown = run(name, "ip -d link show web1")
        assert MAC in shown and "NOARP" in shown and "addrgenmode none" in shown and ",UP" not in shown
        assert "inet6" not in run(name, "ip address show web1")
        run(name, "ip link add mine type veth peer name mine2")
        with pytest.raises(Refused, match="did not make it"):
            inside(name, lambda: ensure([PORT, PairPort("mine", "lan0", MAC)], tmp_path))
        inside(name, lambda: remove(tmp_path))
        assert "web1" not in run(name, "ip link show") and "mine" in run(name, "ip link show")
