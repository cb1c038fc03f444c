"""Migrations by a real director at agents' desks, over TLS; directors and agents die at every step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ipshare import config as configuration
from ipshare.agent import redirects
from ipshare.director.evacuation import record
from ipshare.director.evacuation.begin import evacuating
from ipshare.director.evacuation.mover import Seen
from ipshare.director.evacuation.runner import Ask
from ipshare.director.migrations import Migrations
from ipshare.errors import ConfigError, Refused
from ipshare.migration.machine import Step
from tests.migration_world import MigrationFleet
from tests.pki import Pki

LONG_S = 60.0
Scenario = Callable[[MigrationFleet], Awaitable[None]]


def play(directory: Path, scenario: Scenario, **groups: str) -> None:
    async def run() -> None:
        fleet = MigrationFleet(directory, Pki(directory / "pki"), **groups)
        try:
            await fleet.start()
            await scenario(fleet)
        finally:
            await fleet.stop()

    asyncio.run(asyncio.wait_for(run(), 4 * LONG_S))


async def moving(fleet: MigrationFleet) -> Migrations:
    """A migration of web that is under way, until its gate opens."""
    fleet.guests.gate("web", "")
    migrations = await begun(fleet)
    await until(migrations, "web", Step.MIGRATING)
    while fleet.guests.where("web") != "moving":
        await asyncio.sleep(0.01)
    return migrations


async def until(migrations: Migrations, which: str, *steps: Step) -> None:
    async with asyncio.timeout(LONG_S):
        while migrations._find(which).state.step not in steps:
            await migrations._news.wait()


async def done(fleet: MigrationFleet, which: str = "web") -> None:
    assert fleet.migrations is not None
    state = await fleet.migrations.settled(which, LONG_S)
    assert state.step is Step.DONE, state
    assert [fleet.agents[name].sends("203.0.113.7") for name in ("c1", "d1")] == ["10.2.0.7", "10.2.0.7"]
    assert fleet.agents["b1"].serves("10.2.0.7")
    for name in ("a1", "b1"):
        assert redirects.load(fleet.agents[name].node.store) == ()


async def begun(fleet: MigrationFleet, workload: str = "web", to: str = "b1") -> Migrations:
    migrations = await fleet.lead()
    assert fleet.director is not None
    assert await fleet.director.settled(1, LONG_S)
    await migrations.begin(workload, to, "tests", "because")
    return migrations


def test_a_workload_goes_and_packets_follow(tmp_path: Path) -> None:
    async def scenario(fleet: MigrationFleet) -> None:
        migrations = await begun(fleet)
        await done(fleet)
        state = migrations._find("web").state
        assert state.downtime_ms == 12.5 and state.redirected_ms is not None and state.notes == ()
        said = [moment.what.partition(":")[0] for moment in state.times]
        assert said == [
            "asked for", "expecting", "migrating", "web began to leave a1", "web runs at b1",
            "web is redirected at a1", "flipping", "settling", "clearing", "done",
        ]  # fmt: skip
        with pytest.raises(Refused, match="b1 is where it runs"):
            await migrations.begin("web", "b1", "tests", "")
        assert fleet.agents["c1"].sends("203.0.113.8") == "10.1.0.8"

    play(tmp_path, scenario)


def test_the_redirect_comes_without_a_director_and_before_any_flip(tmp_path: Path) -> None:
    async def scenario(fleet: MigrationFleet) -> None:
        await moving(fleet)
        assert fleet.agents["b1"].serves("10.2.0.7")  # the target is ready before
        await fleet.fall()
        fleet.guests.gate("web", "there")
        async with asyncio.timeout(LONG_S):
            while fleet.agents["a1"].redirects("10.1.0.7") != "10.2.0.7":
                await asyncio.sleep(0.01)
        assert fleet.agents["c1"].sends("203.0.113.7") == "10.1.0.7"
        await fleet.agents["a1"].stop()  # the agent too, and what it left is found again
        await fleet.agents["a1"].start()
        assert fleet.agents["a1"].redirects("10.1.0.7") == "10.2.0.7"
        await fleet.lead()
        await done(fleet)
        assert fleet.agents["a1"].redirects("10.1.0.7") == ""

    play(tmp_path, scenario)


@pytest.mark.parametrize("step", [Step.CHECKING, Step.EXPECTING, Step.MIGRATING, Step.FLIPPING, Step.SETTLING,
                                  Step.CLEARING])  # fmt: skip
def test_a_director_that_dies_at_a_step_goes_on(tmp_path: Path, step: Step) -> None:
    async def scenario(fleet: MigrationFleet) -> None:
        if step is Step.MIGRATING:
            fleet.guests.gate("web", "")
        migrations = await fleet.lead()
        assert fleet.director is not None
        assert await fleet.director.settled(1, LONG_S)
        if step is Step.SETTLING:
            fleet.agents["d1"].gate.clear()
        if step in (Step.CLEARING, Step.FLIPPING, Step.EXPECTING):
            _die_at(fleet, step)
        await migrations.begin("web", "b1", "tests", "because")
        await until(migrations, "web", step)
        await fleet.fall()
        fleet.guests.gate("web", "there")
        fleet.agents["d1"].gate.set()
        await fleet.lead()
        await done(fleet)

    play(tmp_path, scenario)


def _die_at(fleet: MigrationFleet, step: Step) -> None:
    """What is due at ``step`` is not done by this director."""
    assert fleet.migrations is not None
    put = fleet.migrations._put

    async def stops(one, state):  # type: ignore[no-untyped-def]
        made = await put(one, state)
        if state.step is step:
            await asyncio.Event().wait()
        return made

    fleet.migrations._put = stops  # type: ignore[method-assign]


def test_what_fails_on_the_way_changes_nothing(tmp_path: Path) -> None:
    async def scenario(fleet: MigrationFleet) -> None:
        fleet.guests.gate("web", "here")
        migrations = await begun(fleet)
        state = await migrations.settled("web", LONG_S)
        assert state.step is Step.FAILED and state.revision == 0
        assert fleet.director is not None and fleet.director.number == 1
        assert fleet.agents["c1"].sends("203.0.113.7") == "10.1.0.7"
        assert fleet.agents["a1"].redirects("10.1.0.7") == ""
        assert not fleet.agents["b1"].serves("10.2.0.7")
        fleet.guests.gate("web", "there")
        await migrations.begin("web", "b1", "tests", "again")
        await done(fleet)

    play(tmp_path, scenario)


def test_storage_out_of_sync_is_refused_before_anything(tmp_path: Path) -> None:
    async def scenario(fleet: MigrationFleet) -> None:
        fleet.guests.sync(False)
        migrations = await begun(fleet)
        state = await migrations.settled("web", LONG_S)
        assert state.step is Step.REFUSED
        assert "not in sync at b1: half of it is missing" in state.reason
        assert fleet.guests.where("web") == "here"
        assert redirects.load(fleet.agents["b1"].node.store) == ()

    play(tmp_path, scenario)


def test_what_runs_on_a_lease_is_refused(tmp_path: Path) -> None:
    async def scenario(fleet: MigrationFleet) -> None:
        words = '[[workload]]\nname = "web"\n'
        words += "".join(f'{verb} = ["/bin/true"]\n' for verb in ("start", "stop", "status"))
        here, agent = fleet.agents["a1"].world, fleet.agents["b1"]
        here.write(fleet.guests.tables() + words)
        with pytest.raises(ConfigError, match="one workload is migrated, or runs on leases"):
            configuration.load(here.directory / "site.toml")
        here.write(fleet.guests.tables())
        agent.world.write(words)
        await agent.stop()
        await agent.start()
        migrations = await begun(fleet)
        state = await migrations.settled("web", LONG_S)
        assert state.step in (Step.REFUSED, Step.FAILED)
        assert "web runs on a lease at b1" in state.reason
        assert fleet.guests.where("web") == "here"

    play(tmp_path, scenario)


def test_cancelled_on_the_way_it_stays(tmp_path: Path) -> None:
    async def scenario(fleet: MigrationFleet) -> None:
        migrations = await moving(fleet)
        with pytest.raises(Refused, match="is in migration"):
            await migrations.begin("web", "b1", "tests", "")
        await migrations.cancel("web")
        assert (await migrations.settled("web", LONG_S)).step is Step.CANCELLED
        assert fleet.guests.where("web") == "here"
        assert not fleet.agents["b1"].serves("10.2.0.7")

    play(tmp_path, scenario)


def test_an_agent_that_died_meanwhile_asks_what_became_of_it(tmp_path: Path) -> None:
    async def scenario(fleet: MigrationFleet) -> None:
        await moving(fleet)
        await fleet.agents["a1"].stop()
        fleet.guests.gate("web", "there")  # its command was killed with the agent, so nobody writes it
        (fleet.directory / "web.where").write_text("there")
        await fleet.agents["a1"].start()
        await done(fleet)

    play(tmp_path, scenario)


def test_a_group_goes_as_a_whole_and_what_split_is_sent_after(tmp_path: Path) -> None:
    async def scenario(fleet: MigrationFleet) -> None:
        fleet.guests.gate("db", "here")
        migrations = await begun(fleet)
        state = await migrations.settled("web", LONG_S)
        assert (state.step, state.there) == (Step.SPLIT, ("web",))
        assert fleet.agents["a1"].redirects("10.1.0.7") == "10.2.0.7"  # served where it runs
        assert fleet.agents["c1"].sends("203.0.113.8") == "10.1.0.8"
        with pytest.raises(Refused, match="no way back"):
            await migrations.cancel("web")
        fleet.guests.gate("db", "there")
        await migrations.begin("db", "b1", "tests", "the rest")
        await done(fleet)
        assert fleet.agents["c1"].sends("203.0.113.8") == "10.2.0.8"

    group = 'group = "shop"'
    play(tmp_path, scenario, web=group, db=group)


def test_a_director_of_an_earlier_term_migrates_nothing(tmp_path: Path) -> None:
    async def scenario(fleet: MigrationFleet) -> None:
        migrations = await begun(fleet)
        await done(fleet)
        desk = fleet.agents["a1"].desk

        class Old:
            is_owner, may_assign = False, True

        words = {"term": 0, "id": "x", "workload": "web", "node": "b1", "to": "B", "prefixes": []}
        for verb in desk.verbs:
            with pytest.raises(Refused, match="stale"):
                await desk.verbs[verb](Old(), {"verb": verb, **words})  # type: ignore[arg-type]
        assert migrations.holds("web") == ""

    play(tmp_path, scenario)


def test_what_an_evacuation_moves_is_not_migrated_and_the_other_way_round(tmp_path: Path) -> None:
    async def scenario(fleet: MigrationFleet) -> None:
        migrations = await fleet.lead()
        assert fleet.director is not None
        assert await fleet.director.settled(1, LONG_S)
        settings = fleet.wanted(fleet.text).settings.evacuation
        async with evacuating(fleet.director, settings, migrations=migrations) as verbs:
            evacuations = verbs.evacuations
            one = await evacuations.propose(Ask(node="a1"), "tests", "it shakes")
            step = record.Step("web", ("web",), 1.0, "a1", "here", "b1", "here", "tests")
            evacuations.known[one.id] = replace(one, state="stopped", steps=(step,))
            with pytest.raises(Refused, match=f"web: evacuation {one.id} moves it"):
                await migrations.begin("web", "b1", "tests", "")
            found = evacuations.known[one.id] = replace(one, state="over", steps=())
            fleet.guests.gate("web", "")
            await migrations.begin("web", "b1", "tests", "")
            moved = await evacuations._move(found, step, Seen(1))
            assert moved.outcome == "failed" and "moves it" in moved.why
            fleet.guests.gate("web", "there")
            await done(fleet)

    play(tmp_path, scenario)
