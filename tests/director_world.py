"""A director and its nodes in one process and one event loop: the real protocol over TLS, engines in memory.

``SimAgent`` is the part of an agent that a director sees (RemoteServer, Assignment, Reconciler, store)
without the daemon around it, so that many live in one loop; it can be killed, paused and started again.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ipshare import config as configuration
from ipshare.agent.assignment import Assignment
from ipshare.agent.confirm import SystemClock
from ipshare.agent.reconcile import Done
from ipshare.agent.remote import RemoteServer
from ipshare.agent.server import Asker
from ipshare.agent.workloads import Workloads
from ipshare.director import config
from ipshare.director.daemon import Director
from ipshare.director.schema_health import Watch
from ipshare.director.store import SqliteStore
from ipshare.director.warden import Warden
from ipshare.engine.packet_words import packet
from tests.pki import Pki
from tests.remote_world import PORT, RemoteWorld, host

HEAD = """
[director]
name = "d1"
ca = "{pki}/ca/ca.pem"
certificate = "{pki}/director-{name}.pem"
revoked = "{pki}/ca/revoked.pem"
state_dir = "{state}"
runtime_dir = "{dir}/run"
interval = "{interval}"
stale_after = "{stale}"
patience = "{patience}"
[[site]]
name = "here"
[[network]]
name = "web"
prefix = "203.0.113.0/24"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
[[endpoint]]
name = "B"
local = ["10.2.0.0/24"]
"""
ROLES = {"a": ("endpoint", "A"), "b": ("endpoint", "B")}
ALL_A = '[[binding]]\nglobal = "203.0.113.0/24"\nto = "A"\n'
SEVEN_B = '[[binding]]\nglobal = "203.0.113.7/32"\nto = "B"\n'


def text(
    directory: Path, pki: Pki, nodes: list[str], bindings: str, *, interval: str = "50ms", stale: str = "30s",
    patience: str = "30s", name: str = "d1", state: Path | None = None,
) -> str:  # fmt: skip
    """A director's file. Nodes a* are end point A, b* end point B, others distribution points."""
    pki.file("director", name)
    said = HEAD.format(
        pki=pki.folder, dir=directory, interval=interval, stale=stale, patience=patience, name=name,
        state=state or directory / "state",
    )  # fmt: skip
    for number, node in enumerate(nodes, 1):
        role, of = ROLES.get(node[0], ("distribution", node.upper()))
        said += (
            f'[[node]]\nname = "{node}"\naddress = "{host(number)}:{PORT}"\nsite = "here"\n{role} = "{of}"\n'
        )
        said += f'[[distribution]]\nname = "{of}"\n' if role == "distribution" else "capacity = 10\n"
    return said + bindings


def wanted(directory: Path, pki: Pki, nodes: list[str], bindings: str, **more: Any) -> config.Wanted:
    return config.load_text(text(directory, pki, nodes, bindings, **more), directory / "director.toml")


class SimAgent:
    """Node ``name``, the ``number``-th of its world."""

    def __init__(self, directory: Path, pki: Pki, name: str, number: int) -> None:
        (directory / name).mkdir(exist_ok=True)
        self.world = RemoteWorld(directory / name, pki, host(number), name)
        self.notes: dict[str, str] = {}
        self.announces: bool | None = None
        self.gate = asyncio.Event()  # closed: what is assigned waits
        self.gate.set()
        self.taken: list[tuple[int, int, int]] = []

    async def start(self) -> None:
        self.worker = ThreadPoolExecutor(1)
        self.node = self.world.agent()
        self.node.clock = SystemClock()  # keepers are processes, and have that one
        site = self.world.directory / "site.toml"
        await self.work(lambda: self.node.start(configuration.load(site)))
        self.assignment = Assignment(self.node, site, self.work, self._change, lambda: self.announces)
        self.workloads = Workloads(self.node, self.assignment, self._change, self.notes.__setitem__, list)
        self.looks = asyncio.create_task(self.workloads.run())
        self.remote = RemoteServer(self.handle, self.notes.__setitem__)
        assert self.node.config is not None
        await self.remote.follow(self.node.config.remote)

    async def stop(self) -> None:
        """As when its process is killed: the engine goes on, and so does who keeps workloads to leases."""
        await self.remote.close()
        async with self.workloads._asking:  # a keeper that is being started is there, or will not be
            self.looks.cancel()
            await asyncio.gather(self.looks, return_exceptions=True)
        await self.workloads.close()
        self.worker.shutdown()

    async def handle(self, caller: Asker, request: dict[str, Any]) -> dict[str, Any]:
        if request["verb"] == "assign":
            await self.gate.wait()
        verbs = self.assignment.verbs | self.workloads.verbs
        answer = await verbs[request["verb"]](caller, request)
        if request["verb"] == "assign":
            self.taken.append(tuple(request["number"]))
        return answer

    async def work(self, job: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.worker, job, *arguments)

    async def _change(self, _verb: str, _what: str, _who: str, change: Callable[[], Done]) -> Done:
        done: Done = await self.work(change)
        return done

    def sends(self, address: str) -> str:
        """Where a packet to ``address`` goes from here."""
        return self.world.target(packet(f"tcp 198.51.100.7:1234 > {address}:80 syn"))

    def serves(self, local: str) -> bool:
        """Whether a packet to that local address gets a Global IP back here."""
        assert self.world.running is not None
        answer = self.world.running.why(packet(f"tcp 198.51.100.7:1234 > {local}:80 syn"), "inner")
        return bool(answer.packets) and answer.packets[0][16:19] == bytes([203, 0, 113])


class Fleet:
    """Agents by name, and directors that come and go."""

    def __init__(self, directory: Path, pki: Pki, names: list[str]) -> None:
        self.directory, self.pki, self.names = directory, pki, names
        self.agents = {name: SimAgent(directory, pki, name, n) for n, name in enumerate(names, 1)}
        self.director: Director | None = None
        self.store: SqliteStore | None = None
        self.warden: Warden | None = None

    async def start(self, *but: str) -> None:
        for name, agent in self.agents.items():
            if name not in but:
                await agent.start()

    def wanted(self, bindings: str, **more: Any) -> config.Wanted:
        return wanted(self.directory, self.pki, self.names, bindings, **more)

    async def direct(self, bindings: str, *, least_term: int = 0, **more: Any) -> Director:
        """A director's process begins, as ipshare.director.run does it."""
        found = self.wanted(bindings, **more)
        self.store = SqliteStore(found.settings.state_dir)
        self.director = Director(found.settings, self.store, least_term)
        await self.director.start()
        if self.director.revision is None:
            await self.director.change(found.topology, "test", "first")
        if found.settings.watch is not None:
            self.warden = await self.warded(self.director, found.settings.watch)
            await self.warden.start()
        return self.director

    async def warded(self, director: Director, watch: Watch) -> Warden:
        """What looks after health and leases beside it."""
        return Warden(director, watch)

    async def end(self) -> None:
        if self.warden is not None:
            await self.warden.close()
        self.warden = None
        if self.director is not None and self.store is not None:
            await self.director.close()
            self.store.close()
        self.director = None

    async def stop(self) -> None:
        await self.end()
        for agent in self.agents.values():
            if hasattr(agent, "remote"):
                await agent.stop()
        for name in self.names:
            if (self.directory / name / "run" / "keeper.sock").exists():
                os.kill(self.keeper(name), signal.SIGTERM)

    def keeper(self, name: str) -> int:
        """The process that keeps a node's workloads to their leases."""
        return int((self.directory / name / "run" / "keeper.lock").read_text())
