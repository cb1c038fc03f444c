"""An evacuation moves each workload by its own way: alive, by bindings; directors die meanwhile, migrations
fail and are cancelled. And what is migrated is not failed over, nor the other way round."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ipshare.cli import main
from ipshare.director import migrations as migrations_module
from ipshare.director.daemon import Director
from ipshare.director.evacuation.alive import AliveMover
from ipshare.director.evacuation.begin import evacuating
from ipshare.director.evacuation.mover import Group, Seen, TopologyMover
from ipshare.director.evacuation.settings import Settings
from ipshare.director.migrations import Migrations
from ipshare.director.moves import moved
from ipshare.director.schema_health import Watch
from ipshare.director.warden import Warden
from ipshare.director.warden_desk import keeping
from ipshare.errors import Refused
from ipshare.migration.machine import Step
from tests.director_world import text
from tests.evacuation_world import Asked
from tests.migration_world import NAMES, MigrationFleet
from tests.pki import Pki
from tests.remote_world import host
from tests.unit.test_agent_daemon import until
from tests.unit.test_director_cli import begin
from tests.unit.test_health_director import World
from tests.unit.test_health_director import run as with_leases

ONE, COLD = "[evacuation]\nat_once = 1\n", '[evacuation]\nnot_live = "cold"\n'
SHARED = 'kind = "shared"\n'
HEALTH = """
[health]
interval = "100ms"
stale = "5s"
[[health.probe]]
endpoint = "A"
address = "{address}"
port = {port}
[failover]
mode = "propose"
after = "1100ms"
"""


class AliveFleet(MigrationFleet):
    """With evacuations and migrations that know of each other, as in a director's process."""

    @contextlib.asynccontextmanager
    async def leading(self, more: str = "") -> AsyncIterator[Asked]:
        whole = self.text + more
        director = await self.direct(whole, interval="20ms", patience="10s")
        try:
            if self.migrations is None:
                self.migrations = Migrations(director)
                await self.migrations.start()
            settings = self.wanted(whole, patience="10s").settings.evacuation
            async with evacuating(director, settings, migrations=self.migrations) as verbs:
                yield Asked(director, verbs)
        finally:
            await self.fall()
            self.migrations = None

    async def warded(self, director: Director, watch: Watch) -> Warden:
        self.migrations = Migrations(director)
        await self.migrations.start()
        warden = Warden(director, watch, self.migrations.holds)
        self.migrations.busy.append(warden.busy)
        return warden

    def sends(self) -> list[str]:
        return [self.agents[name].sends(f"203.0.113.{n}") for name in ("c1", "d1") for n in (7, 8)]


Scenario = Callable[[AliveFleet], Awaitable[None]]


def play(folder: Path, scenario: Scenario, migrating: tuple[str, ...] = ("web", "db"), **groups: str) -> None:
    async def run() -> None:
        fleet = AliveFleet(folder, Pki(folder / "pki"), **groups)
        fleet.agents["a1"].world.write(fleet.guests.tables(*migrating))
        try:
            async with asyncio.timeout(240):
                await fleet.start()
                await scenario(fleet)
        finally:
            await fleet.stop()

    asyncio.run(run())


async def leaves(here: Asked) -> str:
    """a1 is left: the evacuation."""
    begun: str = (await here.ask("evacuate", node="a1", run=True, why="storm"))["evacuation"]
    return begun


def steps(one: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {step["unit"]: (step["way"], step["state"]) for step in one["steps"]}


def test_each_goes_its_way_and_a_batch_waits_over_the_death_of_a_director(tmp_path: Path) -> None:
    async def scenario(fleet: AliveFleet) -> None:
        fleet.guests.gate("web", "")
        async with fleet.leading(ONE) as here:
            await here.settled()
            plan = await here.ask("evacuate", node="a1")
            assert [(m["unit"], m["way"], m["bar"]) for m in plan["moves"]] == [
                ("web", "live", ""),
                ("db", "bindings", ""),
            ]
            assert plan["exclusive"] == []
            fleet.guests.sync(False)
            (web, _) = (await here.ask("evacuate", node="a1"))["moves"]
            assert web["way"] == "live" and "half of it is missing" in web["bar"]
            fleet.guests.sync(True)
            id_ = await leaves(here)
            await until(lambda: fleet.guests.where("web") == "moving")
            assert fleet.migrations is not None
            with pytest.raises(Refused, match=f"evacuation {id_} moves it"):
                await fleet.migrations.begin("db", "b1", "tests", "")
        async with fleet.leading(ONE) as here:  # it died, and the guest is on its way still
            await here.settled()
            one = await here.ask("evacuations", id=id_)
            assert steps(one) == {"web": ("live", "moving"), "db": ("bindings", "waiting")}
            assert here.director.number == 1, "the next batch waits"
            fleet.guests.gate("web", "there")
            one = await here.seen(id_)
            assert one["state"] == "done", one
            assert steps(one) == {"web": ("live", "done"), "db": ("bindings", "done")}
            assert [step["revision"] for step in one["steps"]] == [2, 3]
            assert one["steps"][0]["outcome"].startswith("alive, migration web-")
            await here.settled()
            assert fleet.sends() == ["10.2.0.7", "10.2.0.8"] * 2
            assert fleet.migrations is not None
            ((migration, _),) = fleet.migrations.all()
            assert migration.step is Step.DONE and migration.order == id_

    play(tmp_path, scenario, ("web",), web="size = 2", db=SHARED)


def test_what_fails_on_the_way_stays_and_is_tried_again_on_a_word(tmp_path: Path) -> None:
    async def scenario(fleet: AliveFleet) -> None:
        fleet.guests.gate("web", "here")
        async with fleet.leading() as here:
            await here.settled()
            id_ = await leaves(here)
            one = await here.seen(id_)
            assert one["state"] == "incomplete"
            assert steps(one) == {"web": ("live", "failed"), "db": ("bindings", "done")}
            (why,) = [step["outcome"] for step in one["steps"] if step["unit"] == "web"]
            assert " failed: " in why and "it runs at a1" in why
            assert f"`ipshare director continue {id_}` tries again" in why
            assert fleet.sends() == ["10.1.0.7", "10.2.0.8"] * 2
            assert not fleet.agents["b1"].serves("10.2.0.7")
            fleet.guests.gate("web", "")
            await here.ask("continue", id=id_)
            await until(lambda: fleet.guests.where("web") == "moving")
            assert fleet.migrations is not None
            await fleet.migrations.cancel("web")
            one = await here.seen(id_)
            assert "was cancelled" in one["steps"][-1]["outcome"], one
            fleet.guests.gate("web", "there")
            await here.ask("continue", id=id_)
            assert (await here.seen(id_))["state"] == "done"
            assert fleet.sends() == ["10.2.0.7", "10.2.0.8"] * 2

    play(tmp_path, scenario, ("web",), db=SHARED)


def test_what_cannot_go_alive_goes_otherwise_where_the_file_says_so(tmp_path: Path) -> None:
    async def scenario(fleet: AliveFleet) -> None:
        fleet.guests.sync(False)
        async with fleet.leading(COLD) as here:
            await here.settled()
            plan = await here.ask("evacuate", node="a1")
            (web,) = [move for move in plan["moves"] if move["unit"] == "web"]
            assert web["way"] == "bindings" and web["note"].startswith("not alive: ")
            assert plan["not_live"] == "cold"
            id_ = await leaves(here)
            one = await here.seen(id_)
            assert one["state"] == "done"
            assert all(step["outcome"].startswith("not alive: ") for step in one["steps"]), one
            assert fleet.sends() == ["10.2.0.7", "10.2.0.8"] * 2
            assert fleet.guests.where("web") == "here"

    play(tmp_path, scenario, web=SHARED, db=SHARED)


def test_a_group_that_is_split_is_sent_after(tmp_path: Path) -> None:
    async def scenario(fleet: AliveFleet) -> None:
        fleet.guests.gate("db", "here")
        async with fleet.leading() as here:
            await here.settled()
            id_ = await leaves(here)
            one = await here.seen(id_)
            assert one["state"] == "incomplete" and steps(one) == {"shop": ("live", "failed")}
            assert "web runs at b1, db at a1" in one["steps"][0]["outcome"]
            assert fleet.agents["a1"].redirects("10.1.0.7") == "10.2.0.7", "served where it runs"
            fleet.guests.gate("db", "there")
            await here.ask("continue", id=id_)
            one = await here.seen(id_)
            assert one["state"] == "done", one
            assert fleet.sends() == ["10.2.0.7", "10.2.0.8"] * 2

    group = 'group = "shop"'
    play(tmp_path, scenario, web=group, db=group)


def test_a_group_of_which_one_cannot_go_alive_stays(tmp_path: Path) -> None:
    async def scenario(fleet: AliveFleet) -> None:
        async with fleet.leading() as here:
            await here.settled()
            (shop,) = (await here.ask("evacuate", node="a1"))["moves"]
            assert (shop["way"], shop["bar"]) == ("live", "a1 has no [[migration]] of db")
            one = await here.seen(await leaves(here))
            assert steps(one) == {"shop": ("live", "failed")} and here.director.number == 1
            assert "a1 has no [[migration]] of db" in one["steps"][0]["outcome"]
            await fleet.agents["a1"].stop()
            here.director.nodes["a1"].heard_s = -1e9  # long ago
            (shop,) = (await here.ask("evacuate", node="a1"))["moves"]
            assert (shop["way"], shop["bar"]) == ("live", "a1 is silent")
        await fleet.agents["a1"].start()

    group = 'group = "shop"'
    play(tmp_path, scenario, ("web",), web=group, db=group)


def test_a_silent_target_is_waited_for_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(fleet: AliveFleet) -> None:
        agent = fleet.agents["b1"]
        take = agent.handle

        async def handle(caller: Any, request: dict[str, Any]) -> dict[str, Any]:
            if request["verb"] == "migrate_state":  # the last that the check asks
                monkeypatch.setattr(migrations_module, "ASK_S", 2.0)
            if request["verb"] == "migrate_expect":
                await asyncio.Event().wait()
            return await take(caller, request)

        agent.remote._handle = handle
        async with fleet.leading() as here:
            await here.settled()
            assert fleet.migrations is not None
            cold = TopologyMover(here.director, 60)
            mover = AliveMover(here.director, fleet.migrations, cold, 0.0)
            group = Group(("web",), "a1", "b1", "ann", "storm", "live", "", "x@1")
            found = await mover.move(group, Seen(1))
            assert found.outcome == "failed" and "node b1: " in found.why, found
            assert "cancelled" in found.why or "being undone" in found.why
            assert fleet.guests.where("web") == "here" and here.director.number == 1
            assert (await mover.move(Group(**{**asdict(group), "bar": "no"}), Seen(1))).why[:4] == "no; "

    play(tmp_path, scenario)


def test_a_silent_distribution_point_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario(fleet: AliveFleet) -> None:
        async with fleet.leading('[evacuation]\npatience = "11s"\n') as here:
            await here.settled()
            fleet.guests.gate("web", "")
            id_ = await leaves(here)
            await until(lambda: fleet.guests.where("web") == "moving")
            await fleet.agents["d1"].stop()
            here.director.nodes["d1"].heard_s = -1e9  # long ago
            fleet.guests.gate("web", "there")
            one = await here.seen(id_)
            assert one["state"] == "done", one
            assert "without d1, which is redirected" in one["steps"][1]["outcome"]
            assert fleet.agents["a1"].redirects("10.1.0.7") == "10.2.0.7"
        await fleet.agents["d1"].start()

    play(tmp_path, scenario, ("web",), db=SHARED)


async def down(fleet: AliveFleet, server: asyncio.Server) -> None:
    server.close()
    warden = fleet.warden
    assert warden is not None
    await until(lambda: warden.tracks["end point A"].verdict.word == "down")


def test_what_is_migrated_is_not_failed_over_nor_the_other_way_round(tmp_path: Path) -> None:
    async def scenario(fleet: AliveFleet) -> None:
        def door(port: int = 0) -> Awaitable[asyncio.Server]:
            return asyncio.start_server(lambda _r, w: w.close(), host(1), port)

        server = await door()
        port = server.sockets[0].getsockname()[1]
        async with fleet.leading(HEALTH.format(address=host(1), port=port)) as here:
            await here.settled()
            migrations, warden = fleet.migrations, fleet.warden
            assert migrations is not None and warden is not None
            await until(lambda: warden.is_heard("b1", warden.nodes["b1"].heard_s + 0.01))
            await down(fleet, server)  # a case first
            await until(lambda: {case.phase for case in warden.cases.values()} == {"proposed"})
            with pytest.raises(Refused, match="web: its failover from a1 is open"):
                await migrations.begin("web", "b1", "tests", "")
            server = await door(port)
            await until(lambda: not warden.cases)
            fleet.guests.gate("web", "")
            await migrations.begin("web", "b1", "tests", "")
            await until(lambda: fleet.guests.where("web") == "moving")
            await down(fleet, server)  # a migration first
            await until(lambda: "db" in warden.cases)
            await until(lambda: any("web is down" in text for text in warden.troubles()))
            (said,) = [text for text in warden.troubles() if text.startswith("web is down")]
            assert "no failover: migration web-" in said and "web" not in warden.cases
            fleet.guests.gate("web", "there")
            assert (await migrations.settled("web", 60)).step is Step.DONE
            assert here.where() == {"web": "b1", "db": "a1"}
            with pytest.raises(Refused, match="its failover from a1 is open"):
                await migrations.begin("db", "b1", "tests", "")

    play(tmp_path, scenario, web=SHARED, db=SHARED)


def test_no_lease_goes_elsewhere_while_somebody_moves_the_workload(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.direct("propose")
        await until(lambda: world.is_at("a1"))
        warden, director = world.fleet.warden, world.fleet.director
        assert warden is not None and director is not None
        held, judge, rounds = ["migration x moves it"], warden._judge, []

        async def judged() -> None:
            await judge()
            rounds.append(director.number)

        warden._judge, warden._held = judged, lambda _workload: held[0]  # type: ignore[method-assign]
        await director.change(moved(director.topology, {"shop": "b1"}), "tests", "it runs there")
        await until(lambda: rounds.count(2) >= 5)
        assert (world.workload()["node"], world.workload()["leaving"]) == ("a1", False)
        assert world.order() == ["a1"] and world.runs("a1")
        held[0] = ""
        await until(lambda: world.is_at("b1"))
        assert world.order() == ["a1", "b1"]

    with_leases(tmp_path, scenario)


def test_by_the_command_line_over_a_kill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A director's process, which knows all of them."""

    async def scenario(fleet: AliveFleet) -> None:
        file, ready = tmp_path / "director.toml", asyncio.Event()

        async def ask(*words: str, code: int = 0) -> str:
            done = await asyncio.to_thread(main, [*words, "-c", str(file)])
            out = capsys.readouterr()
            assert done == code, out
            return out.out + out.err

        head = ONE + '[failover]\nmode = "off"\n'
        file.write_text(text(tmp_path, fleet.pki, NAMES, fleet.text + head, patience="10s"))
        fleet.guests.gate("web", "")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(tmp_path / "ready"))
            loop = asyncio.get_running_loop()
            loop.add_reader(notified, lambda: b"READY=1" in notified.recv(4096) and ready.set())
            process = await begin(file, ready)
            try:
                assert "revision 1: nothing" in await ask("director", "apply", "--wait", "60s")
                shown = await ask("director", "evacuate", "--node", "a1", "--yes", "--why", "storm")
                assert [word for word in shown.split() if word in ("live", "bindings")] == [
                    "live",
                    "bindings",
                ]
                await until(lambda: fleet.guests.where("web") == "moving")
                assert "evacuation a1@" in await ask("migrate", "db", "--to", "b1", code=3)
                process.kill()
                await process.wait()
                fleet.guests.gate("web", "there")
                process = await begin(file, ready)
                (one,) = json.loads(await ask("director", "evacuations", "--json"))
                shown = await ask("director", "evacuations", one["id"], "--wait", "60s")
                assert f"evacuation {one['id']} of node a1: done" in shown, shown
                assert "alive, migration web-" in shown
                (found,) = json.loads(await ask("migrate", "--list", "--json"))
                assert (found["step"], found["order"]) == ("done", one["id"])
                assert fleet.sends() == ["10.2.0.7", "10.2.0.8"] * 2
            finally:
                loop.remove_reader(notified)
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    play(tmp_path, scenario, ("web",), web="size = 2", db=SHARED)


FREE = """
[[binding]]
global = "203.0.113.9/32"
to = "A"
[[workload]]
name = "free"
node = "a1"
addresses = ["203.0.113.9/32"]
"""


def test_a_lease_is_handed_over_and_a_director_may_die_meanwhile(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        fleet = world.fleet

        @contextlib.asynccontextmanager
        async def leading() -> AsyncIterator[Asked]:
            await world.direct("propose", more=FREE)
            director, warden = fleet.director, fleet.warden
            assert director is not None and warden is not None
            try:
                async with evacuating(director, Settings(), *keeping(warden)) as verbs:
                    yield Asked(director, verbs)
            finally:
                await fleet.end()

        async with leading() as here:
            await until(lambda: world.is_at("a1"))
            await until(lambda: world.has("b1"))
            plan = await here.ask("evacuate", node="a1")
            assert {m["unit"]: (m["way"], m["bar"]) for m in plan["moves"]} == {
                "shop": ("lease", ""),
                "free": ("by hand", ""),
            }
            assert plan["exclusive"] == ["free"]
            (tmp_path / "stuck").touch()  # it is not stopped yet
            id_ = await leaves(here)
            await until(lambda: here.where() == {"shop": "b1", "free": "b1"})
            await until(lambda: world.workload().get("state") == "stuck")
            one = await here.ask("evacuations", id=id_)
            assert ("lease", "moving") in steps(one).values()
        async with leading() as here:
            assert world.order() == ["a1"]
            (tmp_path / "stuck").unlink()
            one = await here.seen(id_)
            assert one["state"] == "done", one
            assert world.is_at("b1") and world.order() == ["a1", "b1"]

    with_leases(tmp_path, scenario)
