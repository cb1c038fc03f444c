"""What a lab prepares for VPP, without one: devices that nobody answers for, and what is sent to them."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from functools import partial

import pytest

from ipshare.lab import Impairment, Lab, LabSpec
from ipshare.lab.internet import Engine, uplink_address
from ipshare.lab.vpp_node import KERNEL_LEG, VPP_LEG, mac

UDP_SEGMENT = 103  # linux/udp.h
PIECE = 1000


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(LabSpec(engine="vpp")) as lab:
        yield lab


def test_the_kernel_has_no_address_where_vpp_has_one(lab: Lab) -> None:
    for node in lab.data_path():
        devices = json.loads(lab.run(node.name, ["ip", "-j", "address"]))
        with_address = {device["ifname"] for device in devices if device["addr_info"]}
        assert with_address == {"lo", KERNEL_LEG}
        assert {device["ifname"] for device in devices} >= {VPP_LEG, *node.vpp.hosts}  # type: ignore[union-attr]


def test_the_kernel_does_not_answer_for_vpp(lab: Lab) -> None:
    """Neither ARP nor an echo for the address that VPP will have, or for that of the node's kernel."""
    with lab.capture("r1", "C") as capture:
        for address in (uplink_address(lab.spec, "C", 4), lab.topology.nodes["C"].actions[1].address):  # type: ignore[union-attr]
            target = str(address).split("/")[0]
            lab.run("r1", ["ip", "route", "replace", target, "dev", "C"])
            lab.run("r1", ["ping", "-n", "-c", "1", "-W", "1", target], check=False)
            lab.run("r1", ["ip", "route", "del", target, "dev", "C"])
    ours = lab.inside("r1", partial(_address_of, "C"))
    assert [frame for _, frame in capture.frames if frame[6:12] != ours] == []
    assert len(capture.frames) >= 2, "r1 asked"


def _address_of(device: str) -> bytes:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as packets:
        packets.bind((device, 0))
        return bytes(packets.getsockname()[4])


@pytest.mark.parametrize("engine", ["vpp", "embedded"])
def test_long_udp_sends_are_cut_before_vpp_sees_them(engine: Engine) -> None:
    """af_packet of VPP takes a UDP super-packet for one of TCP. With the embedded engine it arrives whole."""
    with Lab(LabSpec(engine=engine, families=(4,))) as lab:
        address = str(uplink_address(lab.spec, "C", 4))
        lab.run("r1", ["ip", "neigh", "replace", address, "lladdr", mac("C", "r1"), "dev", "C"])
        with lab.capture("C", "r1") as capture:
            lab.inside("r1", partial(_send_segmented, address))
        lengths = [len(packet) for packet in capture.packets(4) if packet[9] == socket.IPPROTO_UDP]
        assert lengths == ([PIECE + 28] * 5 if engine == "vpp" else [5 * PIECE + 28])


def _send_segmented(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, PIECE)
        udp.sendto(bytes(5 * PIECE), (address, 9))


def test_a_node_that_sends_to_a_bad_link_gets_no_super_packets() -> None:
    with Lab(LabSpec(engine="vpp", families=(4,), impair={"r2-A": Impairment()})) as lab:
        for node, device, is_on in (("a1", "A", False), ("r1", "C", True), ("A", KERNEL_LEG, False)):
            features = lab.run(node, ["ethtool", "-k", device])
            state = re.search(r"tx-tcp-segmentation: (\w+)", features)
            assert state is not None and state[1] == ("on" if is_on else "off"), (node, device)
