"""offloads: what a Linux device computes by itself, as VPP's af_packet asks it.

VPP 26.06 opens a device with room for an offload header in each frame where it is told so, and leaves that
header out where the device neither computes checksums nor cuts super-packets (a card of a small virtual
machine; ethtool -K DEVICE tx off): the kernel then drops every frame, and nobody counts it. Such a device is
opened without.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from contextlib import closing

_SIOCETHTOOL, _GTXCSUM, _GGSO = 0x8946, 0x16, 0x23


def has_offloads(device: str) -> bool:
    """Whether it computes checksums or cuts super-packets. True of a device that is not to be seen from here:
    VPP may be in another network namespace."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as control:
        try:
            return any(_asked(control, device, command) for command in (_GTXCSUM, _GGSO))
        except OSError:
            return True


def _asked(control: socket.socket, device: str, command: int) -> bool:
    value = array.array("I", (command, 0))  # the kernel answers in the second word
    request = struct.pack("16sP16x", device.encode(), value.buffer_info()[0])
    fcntl.ioctl(control, _SIOCETHTOOL, request)
    return bool(value[1])
