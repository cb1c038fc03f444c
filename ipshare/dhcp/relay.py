"""The socket of a relay agent: UDP port 67 of one device, where every answer of a DHCP server comes.

Bound to the device and to our own address there, which goes into `giaddr`. Requests go to the configured
server, or to everyone on the link. Used by the agent's event loop: it never blocks.
"""

from __future__ import annotations

import fcntl
import logging
import socket
import struct
from ipaddress import IPv4Address

from ipshare.dhcp.desk import Outgoing
from ipshare.dhcp.message import Malformed, Message, decode, encode
from ipshare.errors import IpshareError

log = logging.getLogger(__name__)
SERVER_PORT = 67
_SIOCGIFADDR = 0x8915
_BIGGEST = 65536
EVERYONE = IPv4Address(0xFFFFFFFF)


def own_address(device: str) -> IPv4Address:
    """Our first IPv4 address on ``device``. Raises IpshareError: there is none."""
    request = struct.pack("16s16x", device.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            return IPv4Address(fcntl.ioctl(s, _SIOCGIFADDR, request)[20:24])
        except OSError as error:
            raise IpshareError(
                f"leases by DHCP need an IPv4 address of this node on {device}: {error.strerror}",
                hint="give the device one in the network of the public addresses; servers answer to it",
            ) from None


class Relay:
    """Of one device."""

    def __init__(self, device: str, server: IPv4Address | None = None) -> None:
        self.device, self.address, self._server = device, own_address(device), server
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            self.socket.bind((str(self.address), SERVER_PORT))
        except OSError as error:
            self.socket.close()
            raise IpshareError(
                f"cannot be a DHCP relay on {device}: {error.strerror}",
                hint="port 67 of that address must be free, and CAP_NET_RAW and CAP_NET_BIND_SERVICE given",
            ) from None

    def close(self) -> None:
        self.socket.close()

    def send(self, out: Outgoing) -> None:
        """A refusal of the system is as good as a loss: the client tries again."""
        to = self._server or out.send.to or EVERYONE
        try:
            self.socket.sendto(encode(out.send.message), (str(to), SERVER_PORT))
        except OSError as error:
            log.warning("DHCP by %s to %s: %s", self.device, to, error.strerror)

    def received(self) -> list[Message]:
        """What is there now."""
        found: list[Message] = []
        while True:
            try:
                data, (sender, _) = self.socket.recvfrom(_BIGGEST)
            except BlockingIOError:
                return found
            except OSError as error:  # an ICMP error about something that we sent
                log.debug("DHCP by %s: %s", self.device, error.strerror)
                continue
            try:
                found.append(decode(data))
            except Malformed as why:
                log.debug("from %s by %s: %s", sender, self.device, why)
