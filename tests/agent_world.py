"""A node without kernel and processes: a data path and routes in memory that can be made to fail anywhere.

The engine is ipshare.engine.memory, that is, the C core itself; so what arrives there is what packets would
see. ``World`` survives the "death" of an agent: a new Reconciler over it finds what the old one left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ipshare import config as configuration
from ipshare.agent.flows import align as align_flows
from ipshare.agent.pair import Told, align
from ipshare.agent.reconcile import Reconciler
from ipshare.agent.store import Store
from ipshare.engine.desired import desired
from ipshare.engine.memory import MemoryEngine
from ipshare.engine.plan import Plan
from ipshare.engine.protocol import Engine
from ipshare.engine.tables import Tables
from ipshare.errors import EngineError, Problem
from ipshare.model import Config
from tests.flowing_memory import FlowingMemory
from tests.paired_memory import PairedMemory
from tests.remapping_memory import RemappingMemory, RemapWire

SITE = """
[node]
name = "C"
distribution = "C"
icmp_source = ["192.0.2.1"]
runtime_dir = "{dir}/run"
state_dir = "{dir}/state"
[[network]]
name = "web"
prefix = "203.0.113.0/24"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
[[endpoint]]
name = "B"
local = ["10.2.0.0/24"]
[[distribution]]
name = "C"
[[policy]]
name = "both"
members = [{{endpoint = "A", weight = {weight}}}, {{endpoint = "B"}}]
[[binding]]
global = "203.0.113.0/24"
to = "{to}"
[[binding]]
global = "203.0.113.7/32"
policy = "both"
"""


def site_text(directory: Path, *, to: str = "A", weight: int = 1, more: str = "") -> str:
    return SITE.format(dir=directory, to=to, weight=weight) + more


def site(directory: Path, *, to: str = "A", weight: int = 1, more: str = "") -> Config:
    """A distribution point with a /24 at one end point and one address shared by two."""
    return configuration.load_text(
        site_text(directory, to=to, weight=weight, more=more), directory / "site.toml"
    )


class Killed(BaseException):
    """The agent's process ends here: nobody catches this."""


@dataclass
class Faults:
    """Fails at the n-th step from now. kill: as SIGKILL does, else with an error that the step may raise."""

    at: int = -1
    kill: bool = False
    steps: list[str] = field(default_factory=list)

    def step(self, name: str) -> None:
        self.steps.append(name)
        if self.at >= 0 and len(self.steps) > self.at:
            self.at = -1
            if self.kill:
                raise Killed(name)
            raise EngineError(f"{name} failed", hint="made to fail")


class FaultyEngine(FlowingMemory, PairedMemory, RemappingMemory, MemoryEngine):
    """Fails before and after it applies."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self.faults = faults

    def stop(self) -> None:
        self.pair_gone()
        super().stop()

    def apply(self, plan: Plan) -> int:
        self.faults.step("before apply")
        generation = super().apply(plan)
        self.faults.step("after apply")
        return generation


@dataclass
class World:
    """What outlives an agent: engine, routes, clock, and the files in ``directory``."""

    directory: Path
    faults: Faults = field(default_factory=Faults)
    running: FaultyEngine | None = None
    installed: tuple[str, ...] = ()
    against: list[Problem] = field(default_factory=list)
    launches: int = 0
    now_ns: int = 10**12
    boot: str = "first boot"
    paths: dict[int, int] = field(default_factory=dict)
    told: Told | None = None
    wire: RemapWire = field(default_factory=RemapWire)

    def agent(self) -> Reconciler:
        """A new agent, as after a restart."""
        return Reconciler(Store(self.directory / "state"), self, Routes(self), self)

    # Clock
    def boottime_ns(self) -> int:
        return self.now_ns

    def boot_id(self) -> str:
        return self.boot

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)

    # DataPath
    def attach(self, config: Config) -> Engine | None:
        return self.running

    def launch(self, config: Config) -> Engine:
        self.faults.step("before launch")
        self.running = FaultyEngine(self.faults)
        self.running.remap_join(self.wire)
        self.launches += 1
        self.faults.step("after launch")
        return self.running

    def ready(self, engine: Engine, config: Config) -> None:
        self.faults.step("ready")

    def tables(self, engine: Engine, config: Config) -> Tables:
        return desired(config)

    def stop(self, config: Config, engine: Engine | None) -> str:
        was, self.running = self.running, None
        if was is not None:
            was.stop()
        return "engine ended" if was is not None else ""

    def copies(self, engine: Engine, config: Config) -> int:
        self.faults.step("copies")
        return 0

    def pair(self, engine: Engine, config: Config) -> bool:
        self.faults.step("pair")
        self.told, changed = align(engine, config, self.told)
        return changed

    def flows(self, engine: Engine, config: Config) -> bool:
        self.faults.step("flows")
        (self.directory / "run").mkdir(exist_ok=True)
        return align_flows(engine, config, self.directory / "run" / "flows.json")

    def learn_path(self, engine: Engine, endpoint: int, mtu: int, seconds: int) -> None:
        self.paths[endpoint] = mtu

    def kill_engine(self) -> None:
        assert self.running is not None
        self.running.stop()
        self.running.is_remap_gone = True
        self.wire.engines.remove(self.running)
        self.running = None

    def target(self, packet: bytes) -> str:
        """The destination of the packet that the engine sends for ``packet``: what a client would notice."""
        assert self.running is not None
        sent = self.running.why(packet, "outer").packets[0]
        return ".".join(str(byte) for byte in sent[16:20])


@dataclass
class Routes:
    """Routes as a list of words: one for each Global Network of the configuration."""

    world: World

    def wanted(self, config: Config) -> tuple[str, ...]:
        return tuple(f"route {network.prefix}" for network in config.networks)

    def preflight(self, config: Config, *, engine_runs: bool) -> Sequence[Problem]:
        return self.world.against

    def apply(self, config: Config) -> Sequence[str]:
        self.world.faults.step("before routes")
        changes = [line for line in self.wanted(config) if line not in self.world.installed]
        self.world.installed = self.wanted(config)
        self.world.faults.step("after routes")
        return changes

    def missing(self, config: Config) -> Sequence[str]:
        return [line for line in self.wanted(config) if line not in self.world.installed]

    def left(self, config: Config) -> Sequence[str]:
        return self.world.installed

    def undo(self, config: Config) -> Sequence[str]:
        gone, self.world.installed = self.world.installed, ()
        return [f"undone: {line}" for line in gone]
