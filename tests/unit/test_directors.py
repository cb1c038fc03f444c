"""Two directors as processes on a real etcd, with agents in this one: the leader is killed in the middle of a
roll-out, is paused through its lease and goes on, resigns. With real engines and traffic: tests/lab."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ipshare.agent.client import AgentClient
from ipshare.cli import main
from ipshare.errors import IpshareError
from tests.director_world import ALL_A, SEVEN_B, Fleet, text
from tests.etcd_world import EtcdServer
from tests.pki import Pki
from tests.remote_world import host

NAMES = ["a1", "b1", "c1", "d1"]
STORE = '[store]\nkind = "etcd"\nendpoints = ["{url}"]\nlease = "5s"\ntimeout = "1s"\nmargin = "1s"\n'


class Directors:
    """Processes of directors x and y, each with a file of its own."""

    def __init__(self, fleet: Fleet, url: str) -> None:
        self.fleet, self.url = fleet, url
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    def write(self, name: str, bindings: str) -> Path:
        folder = self.fleet.directory / name
        folder.mkdir(exist_ok=True)
        said = text(folder, self.fleet.pki, NAMES, bindings, name=name, stale="5s")
        said = said.replace('name = "d1"', f'name = "{name}"', 1)
        store = STORE.format(url=self.url)
        (folder / "director.toml").write_text(said.replace("[[site]]", f"{store}[[site]]", 1))
        return folder / "director.toml"

    async def begin(self, name: str) -> None:
        file = self.write(name, ALL_A)
        words = [sys.executable, "-m", "ipshare", "director", "run", "-c", str(file)]
        with (file.parent / "log").open("ab") as log:
            where = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
            self.processes[name] = await asyncio.create_subprocess_exec(
                *words, env=where, stdout=log, stderr=log
            )

        async def claim() -> bool:
            return bool((await self.status(name)).get("leader"))

        await self.until(claim)

    def ask(self, name: str, verb: str, **words: Any) -> Awaitable[dict[str, Any]]:
        def blocking() -> dict[str, Any]:
            path = self.fleet.directory / name / "run" / "director.sock"
            with AgentClient(path.parent, path=path) as director:
                return director.call(verb, **words)

        return asyncio.to_thread(blocking)

    async def status(self, name: str) -> dict[str, Any]:
        """{}: it is between two reigns, or not there yet."""
        try:
            return await self.ask(name, "status")
        except IpshareError:
            return {}

    async def until(self, claim: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(100):
            while not (found := await claim()):
                await asyncio.sleep(0.02)
            return found

    async def leads(self, name: str) -> None:
        async def claim() -> bool:
            return bool((await self.status(name)).get("leads"))

        await self.until(claim)

    async def settled(self, name: str, revision: int) -> None:
        async def claim() -> bool:
            found = await self.status(name)
            return bool(found.get("settled")) and found["revision"] == revision

        await self.until(claim)

    async def stop(self) -> None:
        for process in self.processes.values():
            if process.returncode is None:
                process.kill()
            await process.wait()


def scenario(tmp_path: Path, of: Callable[[Directors, Fleet], Awaitable[None]]) -> None:
    server = EtcdServer(host(203))

    async def all_of_it() -> None:
        fleet = Fleet(tmp_path, Pki(tmp_path), NAMES)
        directors = Directors(fleet, server.url)
        try:
            async with asyncio.timeout(200):
                await fleet.start()
                await of(directors, fleet)
        finally:
            await directors.stop()
            await fleet.stop()

    try:
        server.start()
        asyncio.run(all_of_it())
    finally:
        server.end()


def test_the_standby_finishes_what_a_killed_leader_began(tmp_path: Path, capsys: Any) -> None:
    async def of(directors: Directors, fleet: Fleet) -> None:
        agents = fleet.agents
        await directors.begin("x")
        await directors.leads("x")
        await directors.settled("x", 1)
        await directors.begin("y")
        there = directors.write("y", ALL_A + SEVEN_B)
        assert await asyncio.to_thread(main, ["director", "apply", "-c", str(there)]) == 3
        assert "x at " in capsys.readouterr().err
        for words in (["history"], ["show", "1"], ["show", "c1"], ["diff"], ["status"]):
            assert await asyncio.to_thread(main, ["director", *words, "-c", str(there)]) == 0, words
        assert "director y stands by, x at " in capsys.readouterr().out
        agents["d1"].gate.clear()
        file = directors.write("x", ALL_A + SEVEN_B)
        assert await asyncio.to_thread(main, ["director", "apply", "--wait", "0.1s", "-c", str(file)]) == 6

        async def in_the_middle() -> bool:
            return agents["c1"].sends("203.0.113.7") == "10.2.0.7"

        await directors.until(in_the_middle)
        directors.processes["x"].kill()
        await directors.processes["x"].wait()
        agents["d1"].gate.set()
        await directors.leads("y")
        await directors.settled("y", 2)
        assert agents["d1"].sends("203.0.113.7") == "10.2.0.7"
        assert not agents["a1"].serves("10.1.0.7")
        capsys.readouterr()
        assert await asyncio.to_thread(main, ["director", "status", "--json", "-c", str(there)]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["term"], said["leads"], said["store"]) == (2, True, {"kind": "etcd", "trouble": ""})
        assert said["leader"].startswith("y at ")

    scenario(tmp_path, of)


def test_a_leader_that_was_paused_stands_by_and_one_that_ends_makes_room_at_once(tmp_path: Path) -> None:
    async def of(directors: Directors, fleet: Fleet) -> None:
        agents = fleet.agents
        for name in ("x", "y"):
            await directors.begin(name)
            await directors.leads("x")
        await directors.settled("x", 1)
        agents["d1"].gate.clear()
        await directors.ask("x", "apply", path=str(directors.write("x", ALL_A + SEVEN_B)))
        process = directors.processes["x"]
        process.send_signal(signal.SIGSTOP)  # it has something to send
        await directors.leads("y")
        await directors.ask("y", "apply", path=str(directors.write("y", ALL_A.replace("A", "B"))))
        agents["d1"].gate.set()
        await directors.settled("y", 3)
        taken = {name: list(agent.taken) for name, agent in agents.items()}
        process.send_signal(signal.SIGCONT)

        async def stands_by() -> bool:
            return str((await directors.status("x")).get("leader")).startswith("y at ")

        await directors.until(stands_by)
        assert not (await directors.status("x")).get("leads")
        assert {name: agent.taken for name, agent in agents.items()} == taken
        directors.processes["y"].terminate()
        await directors.leads("x")
        assert await directors.processes["y"].wait() == 0
        await directors.settled("x", 3)
        assert (await directors.status("x"))["term"] == 3
        assert agents["d1"].sends("203.0.113.9") == "10.2.0.9"

    scenario(tmp_path, of)
