"""Four nodes in memory for remaps: end points a1 (A), b1 (B), e1 (E), distribution points c1 (C) and d1 (D).

Each is a World of tests.agent_world with a real Reconciler and RemapDesk; a ``MemoryNode`` asks the desk what
an agent would, and can be silent, or die. Engines are joined by one RemapWire. ``RemapNodes.kill`` ends an
agent or an engine; what comes back finds what is on disk.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from ipshare import config as configuration
from ipshare.agent.remap_desk import RemapDesk
from ipshare.engine.remapping import RemapRole
from ipshare.engine.tables import Records
from ipshare.errors import NotRunning
from ipshare.model import Config
from tests.agent_world import FaultyEngine, World
from tests.packets_of import udp4
from tests.remapping_memory import RemapWire

ADDRESS = "203.0.113.7/32"
CHANNEL = """
[[channel]]
name = "{one}-{other}"
kind = "{kind}"
mtu = {mtu}
key_file = "channel.key"
[[channel.end]]
endpoint = "{one}"
addresses = {ours}
paths = ["192.0.2.{n}:{port}"]
[[channel.end]]
endpoint = "{other}"
addresses = {theirs}
paths = ["192.0.2.{m}:{port}"]
"""
NODES = {"a1": "A", "b1": "B", "e1": "E", "c1": "C", "d1": "D"}
NUMBERS = {"A": 1, "B": 2, "E": 3}


def remap_site(directory: Path, name: str, *, to: str = "A", channels: str | None = None) -> str:
    """The file of node ``name``; the Global Network is at end point ``to``."""
    place = NODES[name]
    role = "endpoint" if place in NUMBERS else "distribution"
    return f"""
[node]
name = "{name}"
{role} = "{place}"
icmp_source = ["192.0.2.1"]
runtime_dir = "{directory}/run"
state_dir = "{directory}/state"
[[network]]
name = "web"
prefix = "203.0.113.0/24"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
[[endpoint]]
name = "B"
local = ["10.2.0.0/24"]
[[endpoint]]
name = "E"
local = ["10.3.0.0/24"]
[[distribution]]
name = "C"
[[distribution]]
name = "D"
[[binding]]
global = "203.0.113.0/24"
to = "{to}"
{all_channels() if channels is None else channels}"""


def all_channels(kind: str = "ipip", mtu: int = 1500) -> str:
    return "".join(channel(*pair, kind=kind, mtu=mtu) for pair in (("A", "B"), ("B", "E"), ("A", "E")))


def channel(one: str, other: str, kind: str = "ipip", mtu: int = 1500) -> str:
    n, m = NUMBERS[one], NUMBERS[other]
    hosts = {"ipip": ("5{}", "6{}"), "gue": ("7{}",), "rewrite": ("12{}/31", "14{}/31")}[kind]
    ends = [
        "[" + ", ".join(f'"10.{x}.0.{host.format(y * 2)}"' for host in hosts) + "]"
        for x, y in ((n, m), (m, n))
    ]
    words = {
        "one": one,
        "other": other,
        "kind": kind,
        "mtu": mtu,
        "n": n,
        "m": m,
        "port": 6000 + 100 * (n + m),
    }
    return CHANNEL.format(ours=ends[0], theirs=ends[1], **words)


@dataclass
class MemoryNode:
    """What an agent's socket is to a remap. ``mute``: why it does not answer."""

    world: World
    name: str
    desk: RemapDesk
    mute: str = ""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        if self.mute:
            raise NotRunning(self.mute)
        self.asked.append((verb, arguments))
        answer: dict[str, Any] = self.desk.verbs[verb][1](arguments)
        return answer


class RemapNodes(dict[str, MemoryNode]):
    """All nodes, running. A mapping: name -> node."""

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__()
        self.directory, self.wire = directory, RemapWire()
        self.trouble = ""  # what every machine has against every channel
        for name in NODES:
            home = directory / name
            (home / "run").mkdir(parents=True)
            key = home / "channel.key"
            key.write_text("cd" * 32 + "\n")
            key.chmod(0o600)
            (home / "site.toml").write_text(remap_site(home, name, **options))
            self.start_agent(name, World(home, wire=self.wire))

    def start_agent(self, name: str, world: World) -> None:
        """A new agent, as after a restart: with what the file says, and what is on disk."""
        agent = world.agent()
        agent.start(configuration.load(world.directory / "site.toml"))
        self[name] = MemoryNode(world, name, RemapDesk(agent, lambda channel: self.trouble))

    def kill_agent(self, name: str) -> None:
        """... and starts another."""
        self.start_agent(name, self[name].world)

    def kill_engine(self, name: str) -> None:
        """... and the agent starts another."""
        node = self[name]
        node.world.kill_engine()
        node.desk.node.reconcile()

    def engine(self, name: str) -> FaultyEngine:
        engine = self[name].world.running
        assert engine is not None
        return engine

    def config(self, name: str) -> Config:
        config = self[name].desk.node.config
        assert config is not None
        return config

    def bound(self, name: str, prefix: str = ADDRESS) -> str | None:
        """What the node's agent says that the address is bound to."""
        to: str | None = self[name].ask("remap_look", prefix=prefix)["bound_to"]
        return to

    def serves(self, name: str, address: str = "203.0.113.7") -> str:
        """The end point whose local network a packet from outside goes to, by the engine's tables."""
        sent = self.engine(name).why(udp4("198.51.100.1", address, b"?"), "outer").packets[0]
        return {1: "A", 2: "B", 3: "E"}[sent[17]]

    def open_flows(self, name: str, remap: int, rows: Records) -> None:
        self.engine(name).remap_rows[remap] = rows

    def roles(self) -> dict[str, dict[int, RemapRole]]:
        """By node, of its engine."""
        return {
            name: {half.id: half.role for half in self.engine(name).remap_halves.values()} for name in self
        }

    def is_at_rest(self) -> bool:
        """No node is half of anything, in its engine or on its disk."""
        desks = (self[name].desk for name in self)
        return not any(self.roles()[name] for name in self) and not any(d.remaps.halves for d in desks)

    @contextlib.contextmanager
    def mute(self, name: str, why: str = "nobody is there"):  # type: ignore[no-untyped-def]
        self[name].mute = why
        try:
            yield
        finally:
            self[name].mute = ""


PREFIX = ip_network(ADDRESS)
