"""Devices for the lab: veth pairs between namespaces, bridges, and offloads switched off.

Part of the door to netlink (net/kernel.py); acts on the namespace of the calling thread.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct

from pyroute2 import IPRoute  # type: ignore[import-untyped]

_SIOCETHTOOL = 0x8946
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
            value = array.array("B", struct.pack("=II", command, 0))
            request = struct.pack("16sP16x", device.encode(), value.buffer_info()[0])
            fcntl.ioctl(control, _SIOCETHTOOL, request)
