"""The configuration files of the lab's data path nodes, as text. Pure.

One installation, four files: each names all end points and distribution points, and says which of them it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ipshare.lab import vpp_node, vpp_site
from ipshare.lab.internet import (
    LabSpec,
    channel_addresses,
    global_network,
    host_of,
    internet,
    kernel_address,
    site_prefix,
    tunnel_address,
    uplink_address,
)
from ipshare.lab.topology import Node

END_POINTS, DISTRIBUTION_POINTS = ("A", "B"), ("C", "D")
CHANNEL, KEY, PORT = "A-B", "channel.key", 6090
TIMEOUTS = {"tcp_opening": 4, "tcp_open": 8, "tcp_closing": 2, "udp": 4, "icmp": 2, "other": 4, "refresh": 1}


def site_toml(spec: LabSpec, node: str, directory: Path, *, target: str) -> str:
    """site.toml of a node, with every Global Network at end point `target`. directory: for its files."""
    described = internet(spec).nodes[node]
    return "\n".join(
        [
            *_node(spec, described, directory),
            *(vpp_site.sections(described.vpp) if described.vpp is not None else ()),
            *_networks(spec),
            *_places(spec, node),
            *_bindings(spec, target),
            *(_channel(spec, directory.parent) if spec.channel else ()),
        ]
    )


def _node(spec: LabSpec, node: Node, directory: Path) -> Iterator[str]:
    yield "[node]"
    yield f'name = "{node.name}"'
    yield f'runtime_dir = "{directory / "run"}"'
    yield f'state_dir = "{directory / "state"}"'
    sources = ", ".join(f'"{uplink_address(spec, node.name, family)}"' for family in spec.families)
    yield f"icmp_source = [{sources}]"
    yield "icmp_rate = 100000"
    if spec.replies != "direct":
        yield f"inside = [{', '.join(_inside(spec, node))}]"
    yield ""


def _inside(spec: LabSpec, node: Node) -> list[str]:
    """Devices that replies come in by: the LAN of an end point, the cable to it at a distribution point."""
    devices = ["lan"] if "endpoint" in node.roles else []
    partner = {"C": "A", "D": "B"}.get(node.name)
    if spec.replies == "rewrite" and partner and host_of(spec, partner) == partner:
        devices.append(partner)
    return [f'"{vpp_node.port_name(node, device)}"' for device in devices]


def _networks(spec: LabSpec) -> Iterator[str]:
    for family in spec.families:
        yield "[[network]]"
        yield f'name = "global{family}"'
        yield f'prefix = "{global_network(family)}"'
        yield ""


def _places(spec: LabSpec, node: str) -> Iterator[str]:
    for name in END_POINTS:
        yield "[[endpoint]]"
        yield f'name = "{name}"'
        local = ", ".join(f'"{site_prefix(name, family)}"' for family in spec.families)
        yield f"local = [{local}]"
        yield f"tunnel = [{_tunnels(spec, name)}]"
        yield f'path = "{spec.path}"'
        yield f'replies = "{spec.replies}"'
        if host_of(spec, name) == node:
            yield "self = true"
        yield ""
    for name in DISTRIBUTION_POINTS:
        yield "[[distribution]]"
        yield f'name = "{name}"'
        yield f"tunnel = [{_tunnels(spec, name)}]"
        if spec.path != "rewrite":
            yield f'path = "{spec.path}"'
        if name == node:
            yield "self = true"
        yield ""


def _tunnels(spec: LabSpec, name: str) -> str:
    return ", ".join(f'"{tunnel_address(name, family)}"' for family in spec.families)


def _bindings(spec: LabSpec, target: str) -> Iterator[str]:
    for family in spec.families:
        yield "[[binding]]"
        yield f'global = "{global_network(family)}"'
        yield f'to = "{target}"'
        if spec.channel:
            yield 'track = "always"'
        yield ""


def _channel(spec: LabSpec, directory: Path) -> Iterator[str]:
    """The same at every node; of use to A and B. Sessions end soon, so that one can wait for it."""
    yield "[sessions.timeouts]"
    yield from (f'{name} = "{seconds}s"' for name, seconds in TIMEOUTS.items())
    yield ""
    yield "[[channel]]"
    yield f'name = "{CHANNEL}"'
    yield f'kind = "{spec.channel}"'
    yield f'key_file = "{directory / KEY}"'
    for name in END_POINTS:
        addresses = ", ".join(f'"{address}"' for address in channel_addresses(spec, name))
        yield "[[channel.end]]"
        yield f'endpoint = "{name}"'
        yield f"addresses = [{addresses}]"
        yield f'paths = ["{kernel_address(spec, name, 4)}:{PORT}"]'
    yield ""
