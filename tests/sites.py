"""A distribution point and two end points in memory: from TOML to workers of the core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ipshare.config import load_text
from ipshare.core import Outcome, Worker
from ipshare.engine.desired import desired
from ipshare.engine.tables import pack

CLIENT4, GLOBAL4, LOCAL_A4, LOCAL_B4 = "198.51.100.7", "203.0.113.5", "10.1.0.5", "10.2.0.5"
CLIENT6, GLOBAL6, LOCAL_A6, LOCAL_B6 = "2001:db8:c::7", "2001:db8:100::5", "2001:db8:a::5", "2001:db8:b::5"
ICMP_SOURCE4, ICMP_SOURCE6 = "192.0.2.1", "2001:db8:f::1"

SITE = """
[node]
name = "{node}"
{me}
icmp_source = ["192.0.2.1", "2001:db8:f::1"]
[[network]]
name = "v4"
prefix = "203.0.113.0/24"
unmatched = "{unmatched}"
[[network]]
name = "v6"
prefix = "2001:db8:100::/64"
unmatched = "{unmatched}"
[[distribution]]
name = "C"
tunnel = ["192.0.2.10", "2001:db8:f::10"]
path = "{reply_path}"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24", "2001:db8:a::/64"]
tunnel = ["10.1.0.254", "2001:db8:a::fe"]
path = "{path}"
path_mtu = {mtu}
replies = "{replies}"
mss_clamp = {clamp}
[[endpoint]]
name = "B"
local = ["10.2.0.0/24", "2001:db8:b::/64"]
tunnel = ["10.2.0.254", "2001:db8:b::fe"]
path = "{path}"
path_mtu = {mtu}
replies = "{replies}"
mss_clamp = {clamp}
"""
BOTH_TO_A = """
[[binding]]
global = "203.0.113.0/24"
to = "A"
[[binding]]
global = "2001:db8:100::/64"
to = "A"
"""
SHARED = """
[[policy]]
name = "spread"
members = [{ endpoint = "A", weight = 1 }, { endpoint = "B", weight = 1 }]
[[binding]]
global = "203.0.113.0/24"
policy = "spread"
[[binding]]
global = "2001:db8:100::/64"
policy = "spread"
"""


@dataclass
class Site:
    """Workers of the core: ``C`` distributes, ``A`` and ``B`` are end points."""

    C: Worker
    A: Worker
    B: Worker

    def through(self, packet: bytes, end: str = "A", **offload: int) -> list[bytes]:
        """What the device gets for a packet of the client: outer at C, inner at the end point."""
        first = self.C.process("outer", packet, **offload)
        delivered = []
        for piece in first.packets:
            delivered += getattr(self, end).process("inner", piece).packets
        return delivered

    def outer(self, packet: bytes, **offload: int) -> Outcome:
        return self.C.process("outer", packet, **offload)


def toml(
    node: str,
    bindings: str = BOTH_TO_A,
    *,
    path: str = "rewrite",
    replies: str = "direct",
    mtu: int | str = 1500,
    clamp: bool = False,
    unmatched: str = "drop",
    reply_path: str = "gue",
    change: Callable[[str], str] = str,
) -> str:
    """The configuration of one node: "C", "A" or "B"; ``change`` is applied to its text."""
    me = f'{"distribution" if node == "C" else "endpoint"} = "{node}"'
    head = SITE.format(
        node=node, me=me, path=path, replies=replies, mtu=mtu, clamp=str(clamp).lower(), unmatched=unmatched,
        reply_path=reply_path,
    )  # fmt: skip
    return change(head + bindings)


@contextmanager
def site(
    bindings: str = BOTH_TO_A, *, trains: bool = False, coalesces: bool = True, **options: object
) -> Iterator[Site]:
    """All three nodes, loaded. ``trains``: C's host takes UDP super-packets; ``coalesces``: of all three."""
    settings = {"cells": 4096, "coalesces": coalesces}
    with Worker(trains=trains, **settings) as c, Worker(**settings) as a, Worker(**settings) as b:
        for worker, node in ((c, "C"), (a, "A"), (b, "B")):
            config = load_text(toml(node, bindings, **options), Path(f"{node}.toml"))  # type: ignore[arg-type]
            worker.load(pack(desired(config)))
        yield Site(c, a, b)
