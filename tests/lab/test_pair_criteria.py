"""Gateways that an active node should reach (S2.6): asked by the engine, by ARP, ND and echo, v4 and v6.

The gateway is the LAN's own address (tests.pair_lab). A node is cut off from it by its neighbour or nftables
entry there, while the nodes go on to hear each other on both paths. Tests for every engine are imported by
tests/vpp/test_pair_criteria_vpp.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.core import lib
from tests.engine_lab import run
from tests.pair_lab import LAN, Half, PairLab, pair_lab, until

ACTIVE, STANDBY, INOP = lib.IPS_PAIR_ACTIVE, lib.IPS_PAIR_STANDBY, lib.IPS_PAIR_INOP
LAN6, GROUP6 = "fd00::7", "ff02::1:ff00:7"
GATEWAYS = (f"ECHO {LAN}", f"ECHO {LAN6}", f"NEIGHBOUR {LAN}", f"NEIGHBOUR {LAN6}", "LINK")


@pytest.fixture
def kind() -> type[Half]:
    return Half


@pytest.fixture
def lab(tmp_path: Path, kind: type[Half]) -> Iterator[PairLab]:
    with pair_lab(tmp_path, kind) as made:
        run(made.names["lan"], f"ip address add {LAN6}/64 dev br0 nodad")
        yield made


def refuse(lab: PairLab, half: Half, on: bool = True) -> None:
    """The gateway hears nothing of that node any more; the bridge goes on to switch its frames."""
    name, port = lab.names["lan"], f"to-{'a' if half is lab.a else 'b'}"
    if on:
        run(name, f"nft add table netdev cut{half.number}")
        run(
            name,
            f"nft add chain netdev cut{half.number} in "
            f"{{ type filter hook ingress device {port} priority 0 ; }}",
        )
        # Solicitations by their group: of what AF_PACKET rings send, nftables finds no ICMPv6 here.
        for match in (f"ip daddr {LAN}", f"ip6 daddr {{ {LAN6}, {GROUP6} }}", f"arp daddr ip {LAN}"):
            run(name, f"nft add rule netdev cut{half.number} in {match} drop")
    else:
        run(name, f"nft delete table netdev cut{half.number}")


def failed(half: Half) -> int:
    return int(half.state()["criteria_failed"])


def test_who_reaches_less_hands_over_and_of_two_that_do_one_stays(lab: PairLab) -> None:
    active, standby = lab.start(gateways=GATEWAYS)
    until(lambda: failed(active) == failed(standby) == 0)
    refuse(lab, active)
    until(lambda: standby.is_in(ACTIVE) and active.is_in(INOP))
    until(lambda: failed(active) == 0b01111)  # every gateway, and not the link
    assert int(active.state()["reason"]) == 6, "CRITERIA"
    refuse(lab, standby)
    until(lambda: failed(standby) == 0b01111)
    until(lambda: active.is_in(STANDBY))
    assert standby.is_in(ACTIVE), "the peer is no better"
    standby.kill()
    until(lambda: active.is_in(ACTIVE))
    assert failed(active) == 0b01111, "better than none"


def test_a_link_that_goes_down_is_no_link_that_is_met(lab: PairLab) -> None:
    """The VIPs are on it too: that alone makes the node inop. What the criterion says is told beside it."""
    active, standby = lab.start(gateways=("LINK",))
    until(lambda: failed(active) == failed(standby) == 0)
    node = "a" if active is lab.a else "b"
    run(lab.names["lan"], f"ip link set to-{node} down")
    until(lambda: failed(active) == 1 and standby.is_in(ACTIVE))
    run(lab.names["lan"], f"ip link set to-{node} up")
    until(lambda: failed(active) == 0)


def test_it_comes_back_when_its_gateways_do(lab: PairLab) -> None:
    active, standby = lab.start(gateways=GATEWAYS)
    until(lambda: failed(active) == failed(standby) == 0)
    refuse(lab, standby)
    until(lambda: standby.is_in(INOP))
    assert active.is_in(ACTIVE)
    refuse(lab, standby, False)
    until(lambda: standby.is_in(STANDBY) and failed(standby) == 0)
    assert active.is_in(ACTIVE)
