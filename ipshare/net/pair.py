"""What this machine has against its half of a pair: addresses of paths that it lacks, VIPs that it has.

A VIP is configured on no interface (DESIGN.md 9): the kernel of a node whose engine died would go on to
answer for it. Only reads; each finding is one sentence with its remedy.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface

from ipshare.errors import Problem
from ipshare.model import Pair
from ipshare.net.kernel import Kernel


def pair_problems(pair: Pair, kernel: Kernel | None = None, *, has_ports: bool = True) -> list[Problem]:
    """All obstacles at once; an empty list: go ahead. Raises NetError where netlink is closed to us.

    ``has_ports`` False: the interfaces that VIPs are on are not this machine's but VPP's."""
    with kernel or Kernel() as door:
        links = door.links()
        have = {ip_interface(text).ip: index for index, text in door.addresses()}
    names = {link["index"]: name for name, link in links.items()}

    def found() -> Iterator[Problem]:
        for path in pair.paths:
            if path.local not in have:
                yield _problem(
                    f"{path.local}, this node's end of a path to {pair.peer}, is no address of this machine",
                    "correct `paths` of this node in [[pair.node]], or give the machine that address",
                )
        for vip in pair.vips:
            if has_ports and vip.interface not in links:
                yield _problem(
                    f"there is no interface {vip.interface} for VIP {vip.address}",
                    "correct `interface` in [[pair.vip]], or make it before the agent starts",
                )
            if vip.address in have:
                device = names[have[vip.address]]
                yield _problem(
                    f"VIP {vip.address} is an address of {device}: the kernel answers for it, active or not",
                    f"ip addr del {vip.address} dev {device}, and take it out of the network configuration",
                )

    return list(found())


def _problem(message: str, hint: str) -> Problem:
    return Problem("this machine", 0, 0, "", message, hint)
