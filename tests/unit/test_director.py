"""A director with agents that take what it sends: over TLS, with their stores on disk, engines in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ipshare.certs.identity import identity
from ipshare.director.daemon import Director
from ipshare.director.desk import Desk
from ipshare.director.topology import Topology
from ipshare.errors import ConfigError, Refused
from tests.director_world import ALL_A, SEVEN_B, Fleet
from tests.pki import Pki
from tests.unit.test_agent_daemon import until

NAMES = ["a1", "b1", "c1", "d1"]


class Root:
    """Who may ask anything."""

    is_owner = True

    def __str__(self) -> str:
        return "root"


def run(tmp_path: Path, scenario: Callable[[Fleet], Awaitable[None]], names: list[str] = NAMES) -> None:
    async def all_of_it() -> None:
        fleet = Fleet(tmp_path, Pki(tmp_path), names)
        try:
            async with asyncio.timeout(120):
                await scenario(fleet)
        finally:
            await fleet.stop()

    asyncio.run(all_of_it())


async def settle(director: Director | None) -> None:
    assert director is not None
    assert await director.settled(director.number, 60), director.outcomes()


def node(director: Director, name: str) -> dict[str, Any]:
    nodes = Desk(director, Path("x")).status()["nodes"]
    found: dict[str, Any] = next(one for one in nodes if one["name"] == name)
    return found


def test_a_revision_reaches_every_node_make_before_break(tmp_path: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        director, agents = await fleet.direct(ALL_A), fleet.agents
        await settle(director)
        assert agents["c1"].sends("203.0.113.7") == agents["d1"].sends("203.0.113.7") == "10.1.0.7"
        assert agents["a1"].serves("10.1.0.7")
        agents["b1"].gate.clear()
        assert await director.change(fleet.wanted(ALL_A + SEVEN_B).topology, "me", "move 7")
        await until(lambda: node(director, "c1")["why"] == "waits for b1")
        assert agents["c1"].sends("203.0.113.7") == "10.1.0.7", "B is not ready"
        agents["d1"].gate.clear()
        agents["b1"].gate.set()
        await until(lambda: node(director, "c1")["outcome"] == "acked")
        await until(lambda: node(director, "a1")["why"] == "waits for d1")
        assert agents["c1"].sends("203.0.113.7") == "10.2.0.7"
        assert agents["b1"].serves("10.2.0.7")
        assert agents["a1"].serves("10.1.0.7"), "D sends it there still"
        agents["d1"].gate.set()
        await settle(director)
        assert agents["d1"].sends("203.0.113.7") == "10.2.0.7"
        assert [number[1:] for number in agents["a1"].taken] == [(1, 1), (2, 0), (2, 1)]
        assert [number[1:] for number in agents["c1"].taken] == [(1, 1), (2, 1)]

    run(tmp_path, scenario)


def test_a_change_asks_each_node_once_for_each_step(tmp_path: Path) -> None:
    """While nodes answer one after the other all are judged again and again: who was asked is not asked for
    the same twice, nor looked at when it has answered."""
    names = ["a1", "b1", *(f"c{number}" for number in range(1, 9))]

    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        director, agents = await fleet.direct(ALL_A, interval="10m", stale="30m"), fleet.agents
        await settle(director)
        asked = {name: agent.remote.counters["requests"] for name, agent in agents.items()}
        judgements = []
        judge = director._judge_now

        def counted() -> None:
            judge()
            judgements.append(director.number)

        director._judge_now = counted  # type: ignore[method-assign]
        for name in names[2:]:
            agents[name].gate.clear()
        await director.change(fleet.wanted(ALL_A + SEVEN_B, interval="10m", stale="30m").topology, "me", "")
        for name in names[2:]:
            seen = len(judgements)
            agents[name].gate.set()
            await until(lambda name=name: node(director, name)["outcome"] == "acked")  # type: ignore[misc]
            await until(lambda seen=seen: len(judgements) > seen)  # type: ignore[misc]
        await settle(director)
        now = {name: agent.remote.counters["requests"] - asked[name] for name, agent in agents.items()}
        assert now == {name: 2 if name == "a1" else 1 for name in names}, "make and final; final alone"

    run(tmp_path, scenario, names)


def test_a_silent_node_is_caught_up_and_holds_back_what_it_must(tmp_path: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        director, agents = await fleet.direct(ALL_A, stale="2s"), fleet.agents
        await settle(director)
        await agents["d1"].stop()
        await until(lambda: node(director, "d1")["state"] == "unknown")
        await director.change(fleet.wanted(ALL_A + SEVEN_B).topology, "me", "")
        await until(lambda: node(director, "c1")["outcome"] == "acked")
        await until(lambda: node(director, "a1")["why"] == "waits for d1")
        assert node(director, "d1")["outcome"] == "silent"
        assert agents["d1"].sends("203.0.113.7") == "10.1.0.7"
        assert agents["a1"].serves("10.1.0.7")
        await director.change(fleet.wanted(ALL_A.replace("A", "B")).topology, "me", "all to B")
        await until(lambda: node(director, "c1")["revision"] == 3)
        assert agents["a1"].serves("10.1.0.9"), "two revisions later D may still send it all"
        await agents["d1"].start()
        await settle(director)
        assert agents["d1"].sends("203.0.113.7") == "10.2.0.7"
        assert not agents["a1"].serves("10.1.0.9")

    run(tmp_path, scenario)


def test_agents_go_on_without_a_director_and_the_next_one_goes_on_where_it_was(tmp_path: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        director, agents = await fleet.direct(ALL_A), fleet.agents
        await settle(director)
        agents["d1"].gate.clear()
        await director.change(fleet.wanted(ALL_A + SEVEN_B).topology, "me", "")
        await until(lambda: node(director, "a1")["why"] == "waits for d1")
        await fleet.end()
        assert agents["c1"].sends("203.0.113.7") == "10.2.0.7"
        assert agents["a1"].serves("10.1.0.7")
        taken = {name: len(agent.taken) for name, agent in agents.items()}
        director = await fleet.direct(ALL_A)
        assert (director.term, director.number) == (2, 2), "the store's revision, whatever the file says"
        await until(lambda: node(director, "a1")["why"] == "waits for d1")
        agents["d1"].gate.set()
        await settle(director)
        assert not agents["a1"].serves("10.1.0.7")
        again = {name for name, agent in agents.items() if len(agent.taken) > taken[name]}
        assert again == {"a1", "d1"}, "who has it is not sent it again"

    run(tmp_path, scenario)


def test_a_node_that_refuses_says_why_and_is_tried_again(tmp_path: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        director, agents = await fleet.direct(ALL_A, patience="1s"), fleet.agents
        await settle(director)
        agents["b1"].world.write('[[network]]\nname = "web"\nprefix = "198.51.100.0/24"\n')
        await director.change(fleet.wanted(ALL_A + SEVEN_B).topology, "me", "")
        await until(lambda: node(director, "b1")["outcome"] == "refused")
        assert "web" in node(director, "b1")["why"]
        await until(lambda: node(director, "c1")["why"] in ("b1 refused", "waits for b1"))
        assert agents["c1"].sends("203.0.113.7") == "10.1.0.7"
        agents["b1"].world.write()
        await settle(director)
        await director.close()
        assert fleet.store is not None
        said = {(one.node, one.outcome) for one in fleet.store.outcomes(2)}
        assert ("b1", "refused") in said
        assert {(name, "acked") for name in NAMES} <= said

    run(tmp_path, scenario)


def test_a_director_that_was_paused_is_refused_everywhere(tmp_path: Path) -> None:
    """Its successor has another machine and a copy of the store; then it wakes up and goes on."""

    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        stale, agents = await fleet.direct(ALL_A, state=tmp_path / "first"), fleet.agents
        await settle(stale)
        old_store = fleet.store
        tasks = [one.task for one in stale.nodes.values() if one.task is not None]
        for task in tasks:
            task.cancel()  # paused: it does nothing, and believes what it believed
        successor = await fleet.direct(ALL_A + SEVEN_B, state=tmp_path / "second", least_term=7)
        await settle(successor)
        assert agents["c1"].sends("203.0.113.7") == "10.2.0.7"
        await stale.change(fleet.wanted(ALL_A.replace("A", "B")).topology, "me", "late")
        for one in stale.nodes.values():
            if one.row.endpoint:  # they have something to get; who answered a look would say so first
                one.task = asyncio.create_task(stale._tend(one))
        await until(lambda: bool(stale.superseded))
        await until(lambda: sum(agent.assignment.refused_stale for agent in agents.values()) > 0)
        assert "term 7" in stale.superseded
        assert agents["c1"].sends("203.0.113.7") == "10.2.0.7"
        assert agents["c1"].sends("203.0.113.9") == "10.1.0.9"
        with pytest.raises(Refused, match="has heard a director of term 7"):
            await stale.change(fleet.wanted(ALL_A).topology, "me", "")
        await stale.close()
        assert old_store is not None
        old_store.close()
        for agent in agents.values():
            assert agent.assignment.seen.number[0] == 7

    run(tmp_path, scenario)


def test_a_store_that_was_lost_needs_the_operators_word(tmp_path: Path) -> None:
    """Its revision 1 is not what nodes have as revision 1."""

    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        await fleet.direct(ALL_A, least_term=4)
        await settle(fleet.director)
        await fleet.end()
        lost = await fleet.direct(ALL_A + SEVEN_B, state=tmp_path / "new")
        await until(lambda: "term 4" in lost.superseded)
        assert fleet.agents["c1"].sends("203.0.113.7") == "10.1.0.7"
        await fleet.end()
        await settle(await fleet.direct(ALL_A, state=tmp_path / "new", least_term=5))
        assert fleet.agents["c1"].sends("203.0.113.7") == "10.2.0.7"

    run(tmp_path, scenario)


def test_who_is_not_the_node_or_not_trusted_gets_nothing(tmp_path: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.start("b1")
        imposter = fleet.agents["b1"]
        imposter.world.name = "c1"  # answers at b1's address with the certificate of c1
        imposter.world.write()
        await imposter.start()
        director = await fleet.direct(ALL_A, stale="2s")
        await until(lambda: "not node b1" in node(director, "b1")["why"])
        await until(lambda: node(director, "c1")["outcome"] == "acked")
        assert imposter.taken == []
        fleet.pki.authority.revoke(who=identity("node", "d1"))
        await until(lambda: node(director, "d1")["state"] == "unknown")
        await until(lambda: "revoked" in node(director, "d1")["why"])

    run(tmp_path, scenario)


def test_changes_are_checked_expected_and_kept(tmp_path: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        director = await fleet.direct(ALL_A)
        desk, file = Desk(director, tmp_path / "director.toml"), tmp_path / "director.toml"
        file.write_text(fleet_text(fleet, ALL_A + SEVEN_B))

        async def ask(verb: str, **words: Any) -> dict[str, Any]:
            return await desk.handle(Root(), {"verb": verb, **words})

        found = await ask("diff")
        assert found["changes"] == ["+ binding 203.0.113.7/32: to B"]
        assert found["order"][-1] == "a1: the new revision alone"
        with pytest.raises(Refused, match="the revision is 1, not 4"):
            await ask("apply", expect=4)
        assert (await ask("apply", expect=1, why="because", who="eve")) == {"changed": True, "revision": 2}
        assert (await ask("apply")) == {"changed": False, "revision": 2}
        assert (await ask("wait", timeout_s=60))["settled"]
        assert (await ask("apply", again=1, why="back"))["revision"] == 3
        assert (await ask("wait", timeout_s=60))["settled"]
        history = (await ask("history"))["revisions"]
        assert [(one["revision"], one["who"], one["why"]) for one in history] == [
            (3, "root", "back"), (2, "eve", "because"), (1, "test", "first"),
        ]  # fmt: skip
        assert (await ask("show", revision=3))["changes"] == ["- binding 203.0.113.7/32: to B"]
        assert 'to = "A"' in (await ask("show", node="c1"))["final"]
        file.write_text(fleet_text(fleet, '[[binding]]\nglobal = "203.0.113.7"\nto = "Z"\n'))
        with pytest.raises(ConfigError, match=r"director.toml:\d+: binding\[0\].to: .*'Z'"):
            await ask("apply")
        for verb, words in (("show", {"node": "z"}), ("show", {"revision": 9}), ("apply", {"again": 9})):
            with pytest.raises(Refused):
                await ask(verb, **words)
        assert director.number == 3

    run(tmp_path, scenario)


def test_two_changes_at_once_are_both_made(tmp_path: Path) -> None:
    def bound(address: str) -> Callable[[Topology], Topology]:
        row = {"global": address, "to": "B"}
        return lambda now: Topology({**now.tables, "binding": [*now.rows("binding"), row]})

    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        director = await fleet.direct(ALL_A)
        eight, nine = bound("203.0.113.8/32"), bound("203.0.113.9/32")
        done = await asyncio.gather(*(director.change(how, "ann", "more") for how in (eight, nine)))
        assert done == [True, True] and director.number == 3
        assert [row["global"] for row in director.topology.rows("binding")] == [
            "203.0.113.0/24", "203.0.113.8/32", "203.0.113.9/32",
        ]  # fmt: skip
        assert not await director.change(lambda now: now, "ann", "nothing")

    run(tmp_path, scenario)


def fleet_text(fleet: Fleet, bindings: str) -> str:
    from tests.director_world import text

    return text(fleet.directory, fleet.pki, fleet.names, bindings)


def test_a_change_that_cannot_be_seamless_says_so_and_is_done(tmp_path: Path) -> None:
    """The address that 5 has at A goes to 6: A cannot have both."""

    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        five = '[[binding]]\nglobal = "203.0.113.5"\nto = "A"\nlocal = "10.1.0.5"\n'
        director = await fleet.direct(five)
        await settle(director)
        six = five.replace("113.5", "113.6") + five.replace('"A"\nlocal = "10.1.0.5"', '"B"')
        await director.change(fleet.wanted(six).topology, "me", "")
        notes = Desk(director, Path("x")).status()["notes"]
        assert notes == ["node a1: what it has now and what it gets exclude each other there"]
        await settle(director)
        assert fleet.agents["c1"].sends("203.0.113.6") == "10.1.0.5"

    run(tmp_path, scenario)


def test_nodes_come_and_go_with_the_topology(tmp_path: Path) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.start()
        director = await fleet.direct(ALL_A)
        await settle(director)
        names, fleet.names = fleet.names, fleet.names[:3]
        await director.change(fleet.wanted(ALL_A + SEVEN_B).topology, "me", "without d1")
        await settle(director)
        assert set(director.nodes) == {"a1", "b1", "c1"}
        assert fleet.agents["d1"].sends("203.0.113.7") == "10.1.0.7"
        fleet.names = names
        await director.change(fleet.wanted(ALL_A + SEVEN_B).topology, "me", "with it again")
        await settle(director)
        assert fleet.agents["d1"].sends("203.0.113.7") == "10.2.0.7"

    run(tmp_path, scenario)
