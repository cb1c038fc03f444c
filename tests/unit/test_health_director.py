"""A director, agents and their keepers, over TLS, with commands that are run: who has an exclusive workload
when something is down, cut off, or replaced. Engines are in memory, workloads are files."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent.server import Server
from ipshare.cli import main
from ipshare.director.attended import boottime_s
from ipshare.director.desk import Desk
from ipshare.director.run import SOCKET
from ipshare.director.warden_desk import failover_of, health_of, verbs
from ipshare.errors import Refused
from tests.director_world import Fleet
from tests.director_world import text as director_text
from tests.pki import Pki
from tests.remote_world import host
from tests.unit.test_director import Root

NAMES = ["a1", "b1", "c1", "d1"]
HOOK = """#!/bin/sh
# VERB NODE FOLDER; events has a line for each begin and end, with the time of one clock
cd "$3" || exit 1
runs() { test -e "runs-$1"; }
event() { read -r now _ < /proc/uptime; echo "$1 $2 $now" >> events; }
case "$1" in
status) runs "$2" ;;
start) runs "$2" || { event start "$2"; : > "runs-$2"; } ;;
stop)
    if test -e stuck; then echo "it does not want to" >&2; exit 1; fi
    runs "$2" && { rm "runs-$2"; event stop "$2"; }
    exit 0 ;;
fence) echo "$IPSHARE_NODE by $2" >> fenced; test -e may-fence ;;
esac
"""
WORKLOAD = """
[[workload]]
name = "shop"
start = ["{hook}", "start", "{node}", "{folder}"]
stop = ["{hook}", "stop", "{node}", "{folder}"]
status = ["{hook}", "status", "{node}", "{folder}"]
fence = [{fence}]
stop_time = "2s"
"""
TOPOLOGY = """
[[binding]]
global = "203.0.113.0/24"
to = "A"
[[binding]]
global = "203.0.113.7/32"
to = "A"
[[workload]]
name = "shop"
node = "a1"
kind = "{kind}"
addresses = ["203.0.113.7/32"]
[health]
interval = "100ms"
timeout = "1s"
stale = "5s"
[[health.probe]]
endpoint = "A"
address = "{a}"
port = {port}
[[health.probe]]
endpoint = "B"
address = "{b}"
port = {port}
[failover]
mode = "{mode}"
after = "1100ms"
lease = "8s"
stop_time = "2s"
"""


OTHER = """
limit = 1
[[binding]]
global = "203.0.113.8/32"
to = "A"
[[workload]]
name = "other"
node = "a1"
kind = "shared"
addresses = ["203.0.113.8/32"]
"""


class World:
    """A fleet, with a port at each end point that answers probes until it is closed."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet, self.folder, self.fence = fleet, folder, False
        self.doors: dict[str, asyncio.Server] = {}
        self.port = 0
        hook = folder / "hook"
        hook.write_text(HOOK)
        hook.chmod(0o755)

    async def start(self) -> None:
        for node in ("a1", "b1"):
            words = f'"{self.folder}/hook", "fence", "{node}", "{self.folder}"' if self.fence else ""
            text = WORKLOAD.format(hook=self.folder / "hook", node=node, folder=self.folder, fence=words)
            self.fleet.agents[node].world.write(text)
            await self.open(node)
        await self.fleet.start()

    async def open(self, node: str) -> None:
        where = host(NAMES.index(node) + 1)
        self.doors[node] = await asyncio.start_server(lambda _r, w: w.close(), where, self.port)
        self.port = self.doors[node].sockets[0].getsockname()[1]

    async def direct(self, mode: str, kind: str = "exclusive", more: str = "") -> None:
        text = TOPOLOGY.format(a=host(1), b=host(2), port=self.port, mode=mode, kind=kind) + more
        await self.fleet.direct(text, stale="3s")

    def events(self) -> list[tuple[str, str, float]]:
        path = self.folder / "events"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(verb, node, float(at)) for verb, node, at in lines]

    def order(self) -> list[str]:
        """Who had it, one after the other; fails where one began before the other one had ended. One that
        lost its lease to a slow machine and got it again is there once."""
        found = self.events()
        for index, (verb, node, at) in enumerate(found):
            assert verb == ("start" if index % 2 == 0 else "stop"), found
            assert verb == "start" or found[index - 1][1] == node, found
            assert index == 0 or at >= found[index - 1][2], found
        began = [node for verb, node, _ in found if verb == "start"]
        return [node for index, node in enumerate(began) if [node] != began[index - 1 : index]]

    def runs(self, node: str) -> bool:
        return (self.folder / f"runs-{node}").exists()

    def told(self) -> dict[str, Any]:
        assert self.fleet.warden is not None
        return failover_of(self.fleet.warden)

    def workload(self) -> dict[str, Any]:
        found = [row for row in self.told()["workloads"] if row["name"] == "shop"]
        return found[0] if found else {}

    def is_at(self, node: str) -> bool:
        """It runs there, and the topology says so."""
        assert self.fleet.director is not None
        row = self.fleet.director.topology.by_name["workload"]["shop"]
        now = self.workload()
        return (row["node"], now.get("node"), now.get("state")) == (node, node, "running")

    def has(self, node: str) -> bool:
        """The director knows that it could run there."""
        return self.fleet.warden is not None and self.fleet.warden.has("shop", node) is True

    def end(self) -> None:
        for door in self.doors.values():
            door.close()


def run(tmp_path: Path, scenario: Callable[[World], Awaitable[None]], *, fence: bool = False) -> None:
    async def all_of_it() -> None:
        fleet = Fleet(tmp_path, Pki(tmp_path), NAMES)
        world = World(fleet, tmp_path)
        world.fence = fence
        try:
            async with asyncio.timeout(300):
                await world.start()
                await scenario(world)
        finally:
            await fleet.stop()
            world.end()

    asyncio.run(all_of_it())


async def until(claim: Callable[[], bool], within_s: float = 120) -> None:
    async with asyncio.timeout(within_s):
        while not claim():
            await asyncio.sleep(0.02)


def test_what_is_down_is_proposed_approved_stopped_and_started_elsewhere(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.direct("propose")
        await until(lambda: world.is_at("a1"))
        agents = world.fleet.agents
        await until(lambda: agents["a1"].serves("10.1.0.7"))
        world.doors["a1"].close()
        await until(lambda: [case["phase"] for case in world.told()["cases"]] == ["proposed"])
        (case,) = world.told()["cases"]
        assert (case["unit"], case["source"], case["target"]) == ("shop", "a1", "b1")
        assert case["why"] == "end point A is down (c1: does not answer; d1: does not answer)"
        director, warden = world.fleet.director, world.fleet.warden
        assert director is not None
        assert warden is not None
        await until(lambda: "waits for approval" in "; ".join(warden.troubles()))
        assert world.order() == ["a1"], "nothing is done before it is approved"
        approve = verbs(warden)["failover_approve"]
        with pytest.raises(Refused, match="nothing is proposed for 'x'"):
            await approve(Root(), {"verb": "failover_approve", "unit": "x"})
        await approve(Root(), {"verb": "failover_approve", "unit": "shop"})
        await until(lambda: world.is_at("b1"))
        assert world.order() == ["a1", "b1"]
        assert world.workload()["freed"] == "stopped"
        assert director.revision is not None
        assert director.revision.who == "failover"
        assert director.revision.why == f"shop from a1 to b1: {case['why']}; shop stopped"
        assert await director.settled(director.number, 60), director.outcomes()
        assert agents["c1"].sends("203.0.113.7") == agents["d1"].sends("203.0.113.7") == "10.2.0.7"
        assert agents["c1"].sends("203.0.113.9") == "10.1.0.9", "what is no workload's stays"
        states = {row["name"]: row["state"] for row in health_of(warden)["targets"]}
        assert states == {"end point A": "down", "end point B": "up"}

    run(tmp_path, scenario)


def test_a_shared_workload_is_moved_and_nothing_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what operators see of it, by the command line."""

    async def scenario(world: World) -> None:
        await world.direct("automatic", "shared", OTHER)
        director, warden = world.fleet.director, _warden(world)
        assert director is not None
        file = tmp_path / "director.toml"
        file.write_text(director_text(tmp_path, world.fleet.pki, NAMES, ""))
        folder = director.settings.runtime_dir
        folder.mkdir(exist_ok=True)
        desk = Desk(director, file)
        desk.add(verbs(warden), warden.troubles)
        server = Server(folder / SOCKET, desk.handle)
        await server.start()

        async def ask(*words: str) -> str:
            code = await asyncio.to_thread(main, ["director", *words, "-c", str(file)])
            out = capsys.readouterr()
            return f"{code} {out.out}{out.err}"

        await until(lambda: [row["state"] for row in health_of(warden)["targets"]] == ["up", "up"])
        world.doors["a1"].close()
        await until(lambda: director.topology.by_name["workload"]["shop"]["node"] == "b1")
        assert await director.settled(director.number, 60), director.outcomes()
        assert world.fleet.agents["c1"].sends("203.0.113.7") == "10.2.0.7"
        assert world.fleet.agents["c1"].sends("203.0.113.8") == "10.2.0.8"
        assert director.number == 2, "what leaves a node is one revision, and counts once for the limit"
        assert director.revision is not None and director.revision.why.startswith("shop, other from a1 to b1")
        assert world.events() == []
        assert "end point A  down" in await ask("health")
        assert json.loads((await ask("health", "--json"))[2:])["targets"][0]["state"] == "down"
        assert "mode automatic" in await ask("failover", "show")
        assert json.loads((await ask("failover", "show", "--json"))[2:])["workloads"] == []
        assert "nothing is proposed for 'shop'" in await ask("failover", "approve", "shop")
        assert "if it is certain: --yes" in await ask("failover", "fenced", "shop")
        assert "nobody has to give up 'shop'" in await ask("failover", "fenced", "shop", "--yes")
        world.doors["b1"].close()
        await until(lambda: "c1 sees nothing up anywhere" in "; ".join(warden.troubles()))
        await world.fleet.agents["a1"].stop()  # up, and cannot be asked
        await until(lambda: not warden.is_heard("a1", boottime_s()))
        await world.open("a1")
        await until(lambda: "alarm" in "; ".join(warden.troubles()))
        assert "alarm: shop b1 -> nowhere" in await ask("failover", "show")
        assert "no other node is alive" in await ask("status")
        await server.stop()

    run(tmp_path, scenario)


def test_a_node_that_is_cut_off_stops_in_time_and_delivers_no_more(tmp_path: Path) -> None:
    """Its agent goes on, and hears nobody; then the same with an agent that is dead."""

    async def scenario(world: World) -> None:
        await world.direct("automatic")
        await until(lambda: world.is_at("a1"))
        agents = world.fleet.agents
        await agents["a1"].remote.close()
        world.doors["a1"].close()
        await until(lambda: world.is_at("b1"))
        assert world.order() == ["a1", "b1"]
        assert world.workload()["freed"] == "expired"
        assert not agents["a1"].serves("10.1.0.7")
        assert agents["a1"].serves("10.1.0.9")
        await agents["a1"].stop()
        await agents["a1"].start()
        await world.open("a1")
        await until(lambda: [r["state"] for r in health_of(_warden(world))["targets"]] == ["up", "up"])
        world.doors["b1"].close()
        await agents["b1"].stop()
        await until(lambda: world.is_at("a1"))
        assert world.order() == ["a1", "b1", "a1"]

    run(tmp_path, scenario)


def test_directors_agents_and_keepers_come_and_go_and_nothing_is_started_twice(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.direct("automatic")
        await until(lambda: world.is_at("a1"))
        epoch = world.workload()["epoch"]
        await world.fleet.end()
        await world.direct("automatic")
        await until(lambda: world.is_at("a1"))
        assert world.workload()["epoch"] == epoch, "the lease goes on"
        agent = world.fleet.agents["a1"]
        await agent.stop()
        await agent.start()
        os.kill(world.fleet.keeper("a1"), signal.SIGKILL)
        await until(lambda: world.is_at("a1"))
        assert world.order() == ["a1"]
        # a failover that another director finishes: the first one is gone as soon as it is under way
        world.doors["a1"].close()
        await until(lambda: [case["phase"] for case in world.told()["cases"]] == ["moving"])
        await world.fleet.end()
        assert not world.runs("b1")
        await world.direct("automatic")
        await until(lambda: world.is_at("b1"))
        assert world.order() == ["a1", "b1"]
        # nobody directs any more: leases end, and what ran is stopped
        await world.fleet.end()
        await until(lambda: not world.runs("b1"))
        await world.fleet.agents["b1"].stop()
        await world.fleet.agents["b1"].start()
        await world.fleet.agents["b1"].workloads.look()
        assert not world.runs("b1"), "nothing is started without a lease"

    run(tmp_path, scenario)


def test_a_node_that_could_not_stop_is_fenced_not_waited_for(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.direct("automatic")
        await until(lambda: world.is_at("a1"))
        (tmp_path / "stuck").touch()
        world.doors["a1"].close()
        await until(lambda: world.workload()["state"] == "stuck")
        await until(lambda: "it does not want to" in world.workload()["why"])
        await until(lambda: _warden(world).grants["shop"].stuck)
        await world.fleet.agents["a1"].stop()  # not heard any more: now it is fenced, by b1
        fenced = tmp_path / "fenced"
        await until(fenced.exists)
        assert "a1 by b1" in fenced.read_text()
        assert not world.runs("b1"), "the command failed, and no time is enough"
        (tmp_path / "stuck").unlink()
        await until(lambda: not world.runs("a1"))
        (tmp_path / "may-fence").touch()
        await until(lambda: world.is_at("b1"))
        assert world.workload()["freed"] == "fenced"
        assert world.order() == ["a1", "b1"]

    run(tmp_path, scenario, fence=True)


def _warden(world: World) -> Any:
    assert world.fleet.warden is not None
    return world.fleet.warden
