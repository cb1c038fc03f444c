"""Devices for the lab: veth pairs between namespaces, bridges, and offloads switched off.

Part of the door to netlink (net/kernel.py); acts on the namespace of the calling thread.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
import sys

from pyroute2 import IPRoute  # type: ignore[import-untyped]

_SIOCETHTOOL = 0x8946
_GSTRINGS, _GSSET_INFO, _SFEATURES, _SS_FEATURES = 0x1B, 0x37, 0x3B, 4  # ETHTOOL_*, ETH_SS_FEATURES
# ETHTOOL_SRXCSUM, STXCSUM, STSO, SGSO, SGRO: with these off every frame is as it would be on a cable.
_OFFLOADS = (0x15, 0x17, 0x1F, 0x24, 0x2C)


def veth(device: str, peer: str, peer_namespace: int, *, mtu: int) -> None:
    """A pair: `device` here, `peer` in the namespace of this descriptor, both with this MTU, both down."""
    with IPRoute() as ip:
        ip.link(
            "add",
            ifname=device,
            kind="veth",
            mtu=mtu,
            peer={"ifname": peer, "net_ns_fd": peer_namespace, "mtu": mtu},
        )


def bridge(device: str, ports: tuple[str, ...]) -> None:
    """A bridge over existing ports that forwards at once (no spanning tree, no snooping); all up."""
    with IPRoute() as ip:
        ip.link("add", ifname=device, kind="bridge", br_stp_state=0, br_mcast_snooping=0)
        master = ip.link_lookup(ifname=device)[0]
        for port in ports:
            ip.link("set", index=ip.link_lookup(ifname=port)[0], master=master, state="up")
        ip.link("set", index=master, state="up")


def offloads_off(device: str) -> None:
    """What the kernel sends here is whole: checksums filled in, no super-packets. OSError if refused."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in _OFFLOADS:
            _ethtool(control, device, struct.pack("=II", command, 0), 0)


def udp_segmentation_off(device: str) -> None:
    """The kernel cuts long UDP sends (UDP_SEGMENT) itself before they leave here; nothing where it has no
    such feature. VPP's af_packet takes such a super-packet for one of TCP. ethtool's features are found by
    name: their numbers differ between kernels."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        count = _ethtool(control, device, struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _SS_FEATURES, 0), 16)
        number = int.from_bytes(count, sys.byteorder)
        names = _ethtool(
            control, device, struct.pack("=III", _GSTRINGS, _SS_FEATURES, number) + bytes(32 * number), 12
        )
        known = [names[at : at + 32].rstrip(b"\0") for at in range(0, len(names), 32)]
        if b"tx-udp-segmentation" in known:
            index = known.index(b"tx-udp-segmentation")
            blocks = [(1 << index % 32, 0) if n == index // 32 else (0, 0) for n in range(-(-number // 32))]
            words = b"".join(struct.pack("=II", valid, wanted) for valid, wanted in blocks)
            _ethtool(control, device, struct.pack("=II", _SFEATURES, len(blocks)) + words, 0)


def _ethtool(control: socket.socket, device: str, command: bytes, answer_at: int) -> bytes:
    """What the kernel has written into the command from this offset on. OSError if refused."""
    value = array.array("B", command)
    request = struct.pack("16sP16x", device.encode(), value.buffer_info()[0])
    fcntl.ioctl(control, _SIOCETHTOOL, request)
    return value.tobytes()[answer_at:]
