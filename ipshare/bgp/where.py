"""where: devices that announcements hang on, and the network namespace that BIRD runs in. Pure.

Both belong to the engine's process, so that they go with it: the embedded engine's TUN device, here; on VPP
the devices that VPP pairs (linux-cp) with its interfaces towards the neighbours, in their namespace.
"""

from __future__ import annotations

from ipshare.model import Config, Interface


def devices(config: Config) -> tuple[str, ...]:
    """At least one of them is up while the engine lives."""
    if config.vpp is None:
        return (config.engine.outer_device,)
    return tuple(dict.fromkeys(port.linux_cp for port in _ports(config) if port.linux_cp is not None))


def namespace(config: Config) -> str:
    """Its name below /run/netns; "": that of the agent."""
    if config.vpp is None:
        return ""
    return next((port.linux_cp_netns or "" for port in _ports(config)), "")


def _ports(config: Config) -> list[Interface]:
    """Paired interfaces by which neighbours are reached, in the order of these."""
    assert config.bgp is not None and config.vpp is not None, "asked of nodes that announce"
    paired = [port for port in config.vpp.interfaces if port.linux_cp is not None]
    return [
        port
        for neighbor in config.bgp.neighbors
        for port in paired
        if any(neighbor.address in address.network for address in port.addresses)
    ]
