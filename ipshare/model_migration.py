"""The nouns of live migration at a node: how a workload leaves, where packets follow it to. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from ipshare.model_place import Place

Prefix = IPv4Network | IPv6Network

Words = tuple[str, ...]
"""A command: a program and its arguments, with placeholders; empty: there is none."""


@dataclass(frozen=True, slots=True)
class Migrating:
    """How ``workload`` leaves this node. ``targets``: node -> what the adapter is told of it; empty: any
    node, by its name. ``domain`` and ``uri`` are of adapter "libvirt", the commands but
    check and storage of "command". ``drbd``: a resource that has to be in sync."""

    workload: str
    adapter: str
    targets: tuple[tuple[str, str], ...]
    check: Words
    start: Words
    state: Words
    cancel: Words
    storage: Words
    drbd: str
    domain: str
    uri: str
    timeout_s: float
    answer_s: float
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class Redirect:
    """Packets for ``prefix`` (Global IPs) that still come to this end point go on to end point ``to``."""

    prefix: Prefix
    to: str
