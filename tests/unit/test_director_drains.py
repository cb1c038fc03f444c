"""Drains by a director: part of the topology, told to nodes until they say so, over restarts of either."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent import bgp_drain
from ipshare.agent.server import Server
from ipshare.cli import main
from ipshare.director import config, drains
from ipshare.director.run import SOCKET
from ipshare.director.topology import Topology
from ipshare.errors import ConfigError, Refused
from tests.director_world import ALL_A
from tests.director_world import text as director_text
from tests.operations_world import OperationsWorld
from tests.unit.test_evacuation_cli import documented, keys_in

ROWS = [
    {"name": "a1", "address": "127.0.0.1:1", "endpoint": "A"},
    {"name": "c1", "address": "127.0.0.1:2", "distribution": "C"},
    {"name": "d1", "address": "127.0.0.1:3", "distribution": "D"},
]
TOPOLOGY = Topology({"node": ROWS})


def run(tmp_path: Path, scenario: Callable[[OperationsWorld], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        world = OperationsWorld(tmp_path)
        try:
            async with asyncio.timeout(120):
                await world.start()
                await world.settle()
                await scenario(world)
        finally:
            await world.stop()

    asyncio.run(all_of_it())


async def until(world: OperationsWorld, claim: Callable[[], bool]) -> None:
    while not claim():
        await world.director.judged()


def by(world: OperationsWorld, name: str) -> list[str]:
    return list(world.director.nodes[name].told.get("drained_by", []))


def test_a_row_is_drained_and_nothing_else_changes() -> None:
    after = drains.drained(TOPOLOGY, "c1", True)
    assert [row.get("drained") for row in after.rows("node")] == [None, True, None]
    assert drains.is_drained(after, "c1") and not drains.is_drained(after, "d1")
    assert drains.drained(after, "c1", True) is after
    assert drains.drained(after, "c1", False) == TOPOLOGY
    with pytest.raises(Refused, match="no distribution point"):
        drains.drained(TOPOLOGY, "a1", True)
    with pytest.raises(Refused, match="no node 'x'"):
        drains.drained(TOPOLOGY, "x", True)


def test_the_last_one_that_announces_needs_force_and_a_reason() -> None:
    for others in ((), ("c1",)):
        with pytest.raises(Refused, match="no other distribution point announces"):
            drains.wanted(TOPOLOGY, "c1", True, others=others)
        with pytest.raises(Refused, match="what is forced has a reason"):
            drains.wanted(TOPOLOGY, "c1", True, others=others, force=True)
        assert drains.is_drained(drains.wanted(TOPOLOGY, "c1", True, others=(), force=True, why="x"), "c1")
    assert drains.is_drained(drains.wanted(TOPOLOGY, "c1", True, others=["d1"]), "c1")
    assert drains.wanted(TOPOLOGY, "c1", False, others=()) is TOPOLOGY


def test_only_a_distribution_point_is_drained_in_a_file(tmp_path: Path) -> None:
    tables = {"node": [ROWS[0] | {"drained": True}], "endpoint": [{"name": "A", "local": ["10.1.0.0/24"]}]}
    with pytest.raises(ConfigError, match="cannot be drained"):
        config.topology(tables, "x")


def test_nodes_are_told_until_they_say_so(tmp_path: Path) -> None:
    async def scenario(world: OperationsWorld) -> None:
        agents = world.fleet.agents
        await agents["c1"].stop()
        await until(world, lambda: "c1" in "".join(world.director.nodes[n].trouble and n for n in ("c1",)))
        assert await world.drains.change("c1", True, "me", "new disks")
        assert world.director.revision is not None and world.director.revision.why == "drain c1: new disks"
        await agents["c1"].start()
        await until(world, lambda: by(world, "c1") == ["director"])
        store, clock = agents["c1"].node.store, agents["c1"].node.clock
        bgp_drain.keep(store, clock, False, bgp_drain.OPERATOR)  # at the machine
        await until(world, lambda: by(world, "c1") == [])
        await until(world, lambda: by(world, "c1") == ["director"])
        bgp_drain.keep(agents["d1"].node.store, clock, True, bgp_drain.OPERATOR)
        await until(world, lambda: by(world, "d1") == ["operator"])
        assert not await world.drains.change("d1", False, "me", "")
        await world.drains.change("c1", False, "me", "")
        await until(world, lambda: by(world, "c1") == [])
        with pytest.raises(Refused, match="no other distribution point"):
            await world.drains.change("c1", True, "me", "")  # d1 is drained by its operator
        assert by(world, "d1") == ["operator"], "that is not the director's"

    run(tmp_path, scenario)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario(world: OperationsWorld) -> None:
        file, folder = tmp_path / "d.toml", world.director.settings.runtime_dir
        file.write_text(director_text(tmp_path, world.pki, world.fleet.names, ALL_A))
        folder.mkdir(exist_ok=True)
        server = Server(folder / SOCKET, world.server.hub.desk.handle)
        await server.start()

        async def ask(*words: str, code: int = 0) -> str:
            done = await asyncio.to_thread(main, ["director", *words, "-c", str(file)])
            out = capsys.readouterr()
            assert done == code, out
            return out.out + out.err

        try:
            said: dict[str, Any] = json.loads(await ask("drain", "c1", "--why", "works", "--json"))
            assert said == {"node": "c1", "drained": True, "changed": True, "revision": 2}
            assert keys_in(said) == documented("director drain")
            assert await ask("drain", "c1") == "c1 was drained before\n"
            await until(world, lambda: by(world, "c1") == ["director"])
            assert "no other distribution point announces" in await ask("drain", "d1", code=3)
            assert "has a reason" in await ask("drain", "d1", "--force", code=3)
            assert await ask("drain", "d1", "--force", "--why", "all") == "revision 3: d1 is drained\n"
            assert await ask("undrain", "c1") == "revision 4: c1 is not drained\n"
            assert "no distribution point" in await ask("drain", "a1", code=3)
            plan = json.loads(await asyncio.to_thread(_migrate, capsys, file))
            assert keys_in(plan) == documented("migrate --plan")
            assert (plan["target"], plan["against"]) == ("b1", "")
        finally:
            await server.stop()

    run(tmp_path, scenario)


def _migrate(capsys: pytest.CaptureFixture[str], file: Path) -> str:
    assert main(["migrate", "web", "--to", "dallas", "--plan", "--json", "-c", str(file)]) == 0
    return capsys.readouterr().out
