"""Checks of `[bgp]` where the engine is VPP: BIRD speaks through linux-cp pairs, in one namespace. Pure.

Nobody gives the pairs' namespace a route, so neighbours are on the link of an interface with a pair. What
the machine must have for it, says preflight.
"""

from __future__ import annotations

from collections.abc import Iterator

from ipshare.config import schema
from ipshare.config.checks import Check, Finding, is_vpp
from ipshare.config.resolve import readable
from ipshare.config.site import Site
from ipshare.model import Address


def _ports(site: Site, address: Address) -> list[schema.Interface]:
    """Interfaces with a subnet that the address is in, those with a pair first."""
    found = [
        port
        for port in readable(site.interface, "addresses", "linux_cp", "linux_cp_netns")
        if any(address in one.network for one in port.addresses)
    ]
    return sorted(found, key=lambda port: port.linux_cp is None)


def behind_pairs(site: Site, bgp: schema.Bgp) -> Iterator[Finding]:
    """Every neighbour is reached by an interface with a pair, and all those pairs are in one namespace."""
    if not is_vpp(site) or "interface" in site.incomplete:
        return
    first: schema.Interface | None = None
    for index, neighbor in enumerate(bgp.neighbor):
        path = (*bgp._path, "neighbor", index, "address")
        port = next(iter(_ports(site, neighbor.address)), None)
        if port is None:
            message = f"{neighbor.address} is in no subnet of an [[interface]] of VPP"
            hint = "on VPP neighbours are on the link: correct the address, or `addresses` of the interface"
            yield Finding(path, message, hint)
        elif port.linux_cp is None:
            message = f"{port.name}, by which {neighbor.address} is reached, has no pair for BIRD to speak by"
            hint = 'write linux_cp = "up0" and linux_cp_netns = "bird" at that [[interface]]'
            yield Finding(path, message, hint)
        elif first is None:
            first = port
        elif port.linux_cp_netns != first.linux_cp_netns:
            message = (
                f"{port.linux_cp} and {first.linux_cp} are in different network namespaces, and one BIRD "
                "speaks to all neighbours"
            )
            where = (*port._path, "linux_cp_netns")
            yield Finding(where, message, "write the same linux_cp_netns at both")


def own_addresses(site: Site, bgp: schema.Bgp) -> Iterator[Finding]:
    """BIRD binds to addresses of pairs, which are those of VPP's interfaces."""
    if not is_vpp(site) or "interface" in site.incomplete:
        return
    for index, address in enumerate(bgp.local):
        ports = [p for p in _ports(site, address) if any(one.ip == address for one in p.addresses)]
        if not any(port.linux_cp is not None for port in ports):
            message = f"{address} is no address of an [[interface]] with linux_cp"
            hint = "BIRD has the addresses of VPP's paired interfaces alone: write one of these"
            yield Finding((*bgp._path, "local", index), message, hint)


def death_is_seen(site: Site, bgp: schema.Bgp) -> Iterator[Finding]:
    """VPP's end is the end of BIRD's link as well: a withdrawal does not get out."""
    if not is_vpp(site):
        return
    for index, neighbor in enumerate(bgp.neighbor):
        if not neighbor.bfd:
            message = (
                f"without BFD {neighbor.address} learns of VPP's death when hold_time is over "
                f"({bgp.hold_time:g} s): BIRD speaks through VPP"
            )
            path = (*bgp._path, "neighbor", index)
            yield Finding(path, message, "write bfd = true, here and at the router", is_warning=True)


CHECKS: dict[str, list[Check]] = {"bgp": [behind_pairs, own_addresses, death_is_seen]}
