"""Servers make themselves known to their gateway, as a host that boots does: a datagram from each Global IP.

VPP drops the packet for whose destination it has to ask (ARP, ND); a kernel keeps it until the answer comes.
What the lab counts as lost should be lost on the way, so VPP learns the servers before anything is counted.
The datagram goes to a closed port: the gateway's ICMP error says that it was understood.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from ipshare.lab.netns import LabError
from ipshare.lab.topology import Node
from ipshare.net.actions import AddressAdd, RouteAdd

if TYPE_CHECKING:
    from ipshare.lab.lab import Lab

_CLOSED_PORT = 9
_ATTEMPTS, _WAIT_S = 5, 0.5


def greet(lab: Lab) -> None:
    """All servers of the lab, all their Global IPs. Raises LabError where a gateway does not answer."""
    for node in lab.topology.nodes.values():
        for source, gateway in _greetings(node) if "server" in node.roles else ():
            if not lab.inside(node.name, partial(_is_heard, source, gateway)):
                raise LabError(
                    f"the gateway {gateway} does not answer server {node.name} ({source})",
                    hint="does the node that it is on forward? Its log is agent.log in the lab's directory",
                )


def _greetings(node: Node) -> Iterator[tuple[str, str]]:
    """(Global IP, gateway) of a server."""
    addresses = [ip_interface(a.address) for a in node.actions if isinstance(a, AddressAdd)]
    for route in (a for a in node.actions if isinstance(a, RouteAdd) and a.via is not None):
        for own in addresses:
            if own.version == route.family and own.network.num_addresses == 1:
                yield str(own.ip), str(route.via)


def _is_heard(source: str, gateway: str) -> bool:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.bind((source, 0))
        udp.connect((gateway, _CLOSED_PORT))
        udp.settimeout(_WAIT_S)
        for _ in range(_ATTEMPTS):
            try:
                udp.send(b"")
                udp.recv(1)
            except ConnectionRefusedError:
                return True
            except OSError:
                continue  # nothing came, or the gateway was not there yet
    return False
