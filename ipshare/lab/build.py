"""Makes a Topology real: namespaces, cables, and each node's actions through the door to the kernel.

Nothing lives in the caller's namespace: a veth is made inside of one node with its peer in another one,
so that all of it goes with the namespaces. The order is namespaces, cables, nodes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from ipshare.lab import netns
from ipshare.lab.topology import Link, Node, Topology
from ipshare.net import wiring
from ipshare.net.actions import LinkSet
from ipshare.net.kernel import Kernel

RELAY = "relay"  # the node that holds the inner ends of all impaired links
# ICMP unlimited: a lab asks for more errors per second than a kernel gives. No DAD: addresses work at once.
_SYSCTLS = {
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv4/icmp_ratelimit": "0",
    "ipv4/tcp_no_metrics_save": "1",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/dad_transmits": "0",
    "ipv6/icmp/ratelimit": "0",
}


# Where the devices belong to somebody else, the relay or VPP: no address, and no answer to anything.
_MUTE = {"ipv6/conf/default/disable_ipv6": "1", "ipv4/conf/all/arp_ignore": "1"}


def relay_devices(links: Iterable[Link]) -> dict[str, tuple[str, str]]:
    """Link name -> the relay's devices towards its ends a and b, for links that are impaired."""
    impaired = [link for link in links if link.impair is not None]
    return {link.name: (f"x{n}a", f"x{n}b") for n, link in enumerate(impaired)}


def build(prefix: str, topology: Topology) -> None:
    """Namespaces are called ``prefix-node``. LabError or NetError; what was made stays for teardown."""
    relayed = relay_devices(topology.links)
    names = [*topology.nodes, *([RELAY] if relayed else [])]
    for name in names:
        netns.create(f"{prefix}-{name}")
        is_mute = name == RELAY or topology.nodes[name].vpp is not None
        netns.inside(f"{prefix}-{name}", partial(_prepare, is_mute=is_mute))
    for link in topology.links:
        _cable(prefix, link, relayed.get(link.name))
    for node in topology.nodes.values():
        for pair in node.pairs:
            _pair(prefix, (node.name, pair.device), (node.name, pair.peer), pair.mtu)
        netns.inside(f"{prefix}-{node.name}", partial(_configure, node, topology, _plain_links(topology)))
    if relayed:
        ends = [device for pair in relayed.values() for device in pair]
        netns.inside(f"{prefix}-{RELAY}", partial(_up, ends))


def _plain_links(topology: Topology) -> set[str]:
    """Links without offloads: impaired ones, and all of a node whose VPP sends to such a link (it cuts no
    super-packets)."""
    impaired = {link.name for link in topology.links if link.impair is not None}
    nodes = {end for link in topology.links if link.name in impaired for end in (link.a, link.b)}
    ours = {name for name in nodes if topology.nodes[name].vpp is not None}
    return impaired | {link.name for link in topology.links if ours & {link.a, link.b}}


def _prepare(*, is_mute: bool) -> None:
    values = _SYSCTLS | (_MUTE if is_mute else {})
    for path, value in values.items():
        target = Path("/proc/sys/net") / path
        if target.exists():  # some belong to the first namespace only, depending on the kernel
            target.write_text(value)


def _cable(prefix: str, link: Link, through: tuple[str, str] | None) -> None:
    if through is None:
        _pair(prefix, (link.a, link.b), (link.b, link.a), link.mtu)
    else:
        _pair(prefix, (link.a, link.b), (RELAY, through[0]), link.mtu)
        _pair(prefix, (link.b, link.a), (RELAY, through[1]), link.mtu)


def _pair(prefix: str, one: tuple[str, str], other: tuple[str, str], mtu: int) -> None:
    """one, other: (node, device)."""
    fd = os.open(netns.NETNS_DIR / f"{prefix}-{other[0]}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        netns.inside(f"{prefix}-{one[0]}", lambda: wiring.veth(one[1], other[1], fd, mtu=mtu))
    finally:
        os.close(fd)


def _up(devices: Iterable[str]) -> None:
    with Kernel() as kernel:
        for device in devices:
            kernel.up(device)


def set_mtu(devices: Iterable[str], mtu: int) -> None:
    """Of devices of the calling thread's namespace."""
    with Kernel() as kernel:
        for device in devices:
            kernel.do(LinkSet(device, mtu))


def _configure(node: Node, topology: Topology, plain: set[str]) -> None:
    links = {link.b if node.name == link.a else link.a: link for link in topology.links_of(node.name)}
    _up(["lo", *links, *(end for pair in node.pairs for end in (pair.device, pair.peer))])
    for bridge in node.bridges:
        wiring.bridge(bridge.device, bridge.ports)
    for device, link in links.items():
        if link.name in plain:
            wiring.offloads_off(device)
        elif topology.nodes[device].vpp is not None:
            wiring.udp_segmentation_off(device)
    is_plain = bool(plain & {link.name for link in links.values()})
    for pair in node.pairs:
        (wiring.offloads_off if is_plain else wiring.udp_segmentation_off)(pair.device)
    with Kernel() as kernel:
        for action in node.actions:
            kernel.do(action)
