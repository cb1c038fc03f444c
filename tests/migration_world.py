"""Migrations in one process: the real director, agents' desks and protocol over TLS, engines in memory; a
guest is a word in a file (tests/guest/word.py)."""

from __future__ import annotations

import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ipshare.agent.migrations import Migrations as AgentSide
from ipshare.agent.server import Asker
from ipshare.director.daemon import Director
from ipshare.director.migrations import Migrations
from ipshare.engine.packet_words import packet
from tests.director_world import Fleet, SimAgent
from tests.guest.word import put
from tests.pki import Pki

WORD = Path(__file__).parent / "guest" / "word.py"
NAMES = ["a1", "b1", "c1", "d1"]
BINDINGS = """
[[binding]]
global = "203.0.113.0/24"
to = "A"
[[binding]]
global = "203.0.113.7/32"
to = "A"
[[binding]]
global = "203.0.113.8/32"
to = "A"
"""
WORKLOADS = """
[[workload]]
name = "web"
node = "a1"
addresses = ["203.0.113.7/32"]
{web}
[[workload]]
name = "db"
node = "a1"
addresses = ["203.0.113.8/32"]
{db}
"""
MIGRATION = """
[[migration]]
workload = "{workload}"
start = {start}
state = {state}
cancel = {cancel}
storage = {storage}
answer = "30s"
"""


class Guests:
    """What stands for the guests: for each a file that says `here`, `moving` or `there`, and one that says
    what is to come of a migration. A migration waits for its gate, so that a test decides when it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("web", "db"):
            (folder / f"{name}.where").write_text("here")
            (folder / f"{name}.gate").write_text("there")  # what becomes of it; "": nothing yet
        self.sync(True)

    def sync(self, is_so: bool) -> None:
        (self.folder / "storage").write_text("in sync" if is_so else "")

    def where(self, name: str) -> str:
        return (self.folder / f"{name}.where").read_text()

    def gate(self, name: str, outcome: str) -> None:
        put(self.folder / f"{name}.gate", outcome)

    def tables(self, *names: str) -> str:
        """[[migration]] of these, by default of both."""

        def command(verb: str) -> str:
            words = [sys.executable, str(WORD), verb, str(self.folder), "{workload}", "{target}"]
            return "[" + ", ".join(f'"{word}"' for word in words) + "]"

        verbs = {verb: command(verb) for verb in ("start", "state", "cancel", "storage")}
        return "".join(MIGRATION.format(workload=name, **verbs) for name in names or ("web", "db"))


class SimHost(SimAgent):
    """A SimAgent with the desk for migrations."""

    async def start(self) -> None:
        await super().start()
        self.desk = AgentSide(
            self.node, self.work, self._change, lambda: self.assignment.seen.number[0], self.notes.__setitem__
        )
        await self.desk.resume()

    async def stop(self) -> None:
        await self.desk.close()
        await super().stop()

    def redirects(self, local: str) -> str:
        """Where a packet to a local address goes that its route leads into the outer device; "": nowhere."""
        assert self.world.running is not None
        answer = self.world.running.why(packet(f"tcp 198.51.100.7:1234 > {local}:80 syn"), "outer")
        return str(ip_address(answer.packets[0][16:20])) if answer.packets else ""

    async def handle(self, caller: Asker, request: dict[str, Any]) -> dict[str, Any]:
        if request["verb"] in self.desk.verbs:
            return await self.desk.verbs[request["verb"]](caller, request)
        return await super().handle(caller, request)


class MigrationFleet(Fleet):
    """Two end points and two distribution points, and directors that come and go."""

    def __init__(self, directory: Path, pki: Pki, *, web: str = "", db: str = "") -> None:
        super().__init__(directory, pki, NAMES)
        self.text = BINDINGS + WORKLOADS.format(web=web, db=db)
        self.agents = {name: SimHost(directory, pki, name, n) for n, name in enumerate(NAMES, 1)}
        self.guests = Guests(directory)
        self.agents["a1"].world.write(self.guests.tables())
        self.migrations: Migrations | None = None

    async def lead(self) -> Migrations:
        """A director's process begins."""
        director: Director = await self.direct(self.text, interval="20ms", patience="30s")
        self.migrations = Migrations(director)
        await self.migrations.start()
        return self.migrations

    async def fall(self) -> None:
        """It is killed: nothing is ended in order."""
        if self.migrations is not None:
            await self.migrations.close()
        await self.end()

    async def stop(self) -> None:
        await self.fall()
        await super().stop()
