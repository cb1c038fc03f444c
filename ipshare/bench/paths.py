"""paths: sender and receiver, and between them one path for each way of forwarding, all at the same time.

Every variant has routers (namespaces) of its own, so that one variant's rules and connection tracking
cost the others nothing, and measurements can alternate by mere choice of the destination:

    s -- plain -- d        routed                           s -- plain2 -- plain2b -- d
    s -- nft -- d          nftables dnat, stateful          s -- nft2 -- nft2b -- d      dnat at the first
    s -- raw -- d          nftables, stateless rewrite
    s -- ips -- d          ipshare, both directions         s -- ips2 -- ips2b -- d      outer, inner
                                                            s -- gue2 -- gue2b -- d      encapsulated

Variant k has the subnets 10.81.k (to s), 10.82.k (to d), 10.83.k (between its routers) and 10.86.k, whose
packets d throws away. Its Global IPs are 203.0.113.k, served at d, and 203.0.113.(100 + k), thrown away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ipshare.agent.datapath import EmbeddedDataPath, NetRoutes
from ipshare.config import load_text
from ipshare.engine.desired import desired
from ipshare.engine.plan import diff
from ipshare.engine.tables import Tables
from ipshare.lab import build, netns, state
from ipshare.lab.topology import Link, Node, Topology
from ipshare.net import nft
from ipshare.net.actions import Action, AddressAdd, RouteAdd, SysctlSet

SENDER, RECEIVER = "s", "d"
MAIN = 254


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of forwarding. ``hops``: routers; ``translates``: the destination is a Global IP."""

    name: str
    number: int
    hops: int
    translates: bool

    @property
    def first(self) -> str:
        return self.name

    @property
    def last(self) -> str:
        return self.name if self.hops == 1 else f"{self.name}b"

    @property
    def stream_to(self) -> str:
        return f"203.0.113.{self.number}" if self.translates else f"10.82.{self.number}.2"

    @property
    def flood_to(self) -> str:
        return f"203.0.113.{100 + self.number}" if self.translates else f"10.86.{self.number}.3"


VARIANTS = {
    name: Variant(name, number, hops, translates)
    for number, (name, hops, translates) in enumerate(
        (
            ("plain", 1, False),
            ("nft", 1, True),
            ("raw", 1, True),
            ("ips", 1, True),
            ("plain2", 2, False),
            ("nft2", 2, True),
            ("ips2", 2, True),
            ("gue2", 2, True),
        ),
        start=1,
    )
}


def _route(prefix: str, via: str, device: str) -> Action:
    return RouteAdd(MAIN, prefix, via=via, device=device)


def _first(v: Variant) -> list[Action]:
    k, onward = v.number, "d" if v.hops == 1 else v.last
    there = f"10.82.{k}.2" if v.hops == 1 else f"10.83.{k}.2"
    own = f"10.82.{k}.1/24" if v.hops == 1 else f"10.83.{k}.1/24"
    actions = [AddressAdd("s", f"10.81.{k}.1/24"), AddressAdd(onward, own), _forwarding()]
    actions.append(_route(f"10.86.{k}.0/24", there, onward))
    if v.hops == 2:
        actions += [_route(f"{subnet}.{k}.0/24", there, onward) for subnet in ("10.82", "10.90")]
    return actions


def _second(v: Variant) -> list[Action]:
    k = v.number
    return [
        AddressAdd(v.first, f"10.83.{k}.2/24"),
        AddressAdd("d", f"10.82.{k}.1/24"),
        _forwarding(),
        _route(f"10.86.{k}.0/24", f"10.82.{k}.2", "d"),
        _route(f"203.0.113.{k}/32", f"10.82.{k}.2", "d"),
        _route("0.0.0.0/0", f"10.83.{k}.1", v.first),
    ]


def _forwarding() -> Action:
    return SysctlSet("net/ipv4/conf/all/forwarding", "1")


def topology() -> Topology:
    """All variants side by side. Pure."""
    sender: list[Action] = []
    receiver: list[Action] = []
    nodes: dict[str, Node] = {}
    links: list[Link] = []
    for v in VARIANTS.values():
        k = v.number
        links.append(Link(SENDER, v.first))
        links.append(Link(v.last, RECEIVER))
        sender.append(AddressAdd(v.first, f"10.81.{k}.2/24"))
        for prefix in (f"10.82.{k}.0/24", f"203.0.113.{k}/32"):
            sender.append(_route(prefix, f"10.81.{k}.1", v.first))
        receiver.append(AddressAdd(v.last, f"10.82.{k}.2/24"))
        receiver.append(_route(f"10.81.{k}.0/24", f"10.82.{k}.1", v.last))
        nodes[v.first] = Node(v.first, ("router",), actions=tuple(_first(v)))
        if v.hops == 2:
            links.append(Link(v.first, v.last))
            nodes[v.last] = Node(v.last, ("router",), actions=tuple(_second(v)))
    receiver += [AddressAdd("lo", f"203.0.113.{VARIANTS[name].number}/32") for name in ("ips2", "gue2")]
    nodes[SENDER] = Node(SENDER, ("client",), actions=tuple(sender))
    nodes[RECEIVER] = Node(RECEIVER, ("server",), actions=tuple(receiver))
    return Topology(nodes, tuple(links))


def site(v: Variant, node: str, directory: Path) -> str:
    """The configuration of one ipshare router of a variant, as text. Pure."""
    k, is_first = v.number, node == v.first
    path, replies = ("gue" if v.name == "gue2" else "rewrite"), ("rewrite" if v.hops == 1 else "direct")
    own_local = f"10.82.{k}.0/24" if v.hops == 1 else f"10.90.{k}.0/24"
    me = "distribution" if is_first else "endpoint"
    bound = {f"203.0.113.{k}": ("A", f"{own_local[:-4]}2"), f"203.0.113.{100 + k}": ("away", f"10.86.{k}.3")}
    lines = [
        f'[node]\nname = "{node}"\n{me} = "{"C" if is_first else "A"}"',
        f'runtime_dir = "{directory}"\nstate_dir = "{directory}"',
        f'icmp_source = ["10.83.{k}.{1 if is_first else 2}"]',
        '[[network]]\nname = "global"\nprefix = "203.0.113.0/24"',
        f'[[distribution]]\nname = "C"\ntunnel = ["10.85.{k}.1"]\npath = "gue"',
        f'[[endpoint]]\nname = "A"\nlocal = ["{own_local}"]\ntunnel = ["{own_local[:-4]}200"]\n'
        f'path = "{path}"\nreplies = "{replies}"\npath_mtu = 1500',
        f'[[endpoint]]\nname = "away"\nlocal = ["10.86.{k}.0/24"]\npath_mtu = 1500',
    ]
    for address, (endpoint, local) in bound.items():
        lines.append(f'[[binding]]\nglobal = "{address}/32"\nto = "{endpoint}"\nlocal = "{local}/32"')
    return "\n".join(lines)


def _start_ipshare(v: Variant, node: str, directory: Path, workers: int | None) -> None:
    """In the node's namespace: engine, tables, routes."""
    directory.mkdir(parents=True, exist_ok=True)
    engine_table = f"\n[engine]\nworkers = {workers}" if workers else ""
    config = load_text(site(v, node, directory) + engine_table, directory / "site.toml")
    with contextlib.closing(EmbeddedDataPath().launch(config)) as engine:
        engine.apply(diff(Tables(), desired(config)))
    NetRoutes().apply(config)


def _dnat(v: Variant) -> str:
    pairs = {v.stream_to: f"10.82.{v.number}.2", v.flood_to: f"10.86.{v.number}.3"}
    rules = [f"    ip daddr {address} dnat ip to {local}" for address, local in pairs.items()]
    return "\n".join(["  chain c {", "    type nat hook prerouting priority -100;", *rules, "  }"])


def _stateless(v: Variant) -> str:
    pairs = {v.stream_to: f"10.82.{v.number}.2", v.flood_to: f"10.86.{v.number}.3"}
    rules = [f"    ip daddr {a} notrack ip daddr set {local}" for a, local in pairs.items()]
    rules += [f"    ip saddr {local} notrack ip saddr set {a}" for a, local in pairs.items()]
    return "\n".join(["  chain c {", "    type filter hook prerouting priority -300;", *rules, "  }"])


def _discard() -> str:
    """At d, before anything else looks at them: what is thrown away costs next to nothing."""
    devices = ", ".join(f'"{v.last}"' for v in VARIANTS.values())
    hook = f"    type filter hook ingress devices = {{ {devices} }} priority -500;"
    return "\n".join(["  chain c {", hook, "    ip daddr 10.86.0.0/16 drop", "  }"])


@contextlib.contextmanager
def paths(*, workers: int | None = None) -> Iterator[str]:
    """All paths, up. Yields the prefix of the namespaces; everything is gone afterwards. ``workers``: of each
    engine, None: the configuration's default. Raises LabError, NetError, EngineError."""
    prefix = state.new_prefix()
    network = topology()
    state.write(prefix, [f"{prefix}-{name}" for name in network.nodes])
    try:
        build.build(prefix, network)
        starts = {
            RECEIVER: _discard(),
            "nft": _dnat(VARIANTS["nft"]),
            "nft2": _dnat(VARIANTS["nft2"]),
            "raw": _stateless(VARIANTS["raw"]),
        }
        for name, body in starts.items():
            netns.inside(f"{prefix}-{name}", partial(nft.replace, "bench", body))
        for name in ("ips", "ips2", "gue2"):
            v = VARIANTS[name]
            for node in dict.fromkeys((v.first, v.last)):
                where = state.directory(prefix) / node
                netns.inside(f"{prefix}-{node}", partial(_start_ipshare, v, node, where, workers))
        yield prefix
    finally:
        state.remove(prefix)
