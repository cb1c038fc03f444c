"""A director leaves a site: in batches, each group wholly or not at all, over refusals, others' changes and
its own death. Agents take what it sends over TLS; engines are in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ipshare.director.desk import Desk
from ipshare.director.evacuation.mover import Group, Moved, Seen, TopologyMover
from ipshare.director.evacuation.verbs import VERBS
from ipshare.director.moves import moved
from ipshare.errors import IpshareError, Refused
from tests.evacuation_world import WORKLOADS, EvacuationFleet, Root, play
from tests.unit.test_agent_daemon import until

TWO = "[evacuation]\nat_once = 2\n"


def outcomes(one: dict[str, Any]) -> dict[str, str]:
    return {step["unit"]: step["state"] for step in one["steps"]}


def refusing(fleet: EvacuationFleet, node: str, word: str) -> Callable[[], None]:
    """The node refuses what has this word in it, until that is called."""
    agent, refuses = fleet.agents[node], [True]
    take = agent.handle

    async def handle(caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        if request["verb"] == "assign" and word in request["text"] and refuses:
            raise Refused("no room in the rack")
        return await take(caller, request)

    agent.remote._handle = handle
    return refuses.clear


def test_a_site_is_left_in_batches(tmp_path: Path) -> None:
    async def scenario(fleet: EvacuationFleet) -> None:
        async with fleet.evacuating() as here:
            await here.settled()
            shown = await here.ask("evacuate", site="houston")
            assert shown["possible"] and not shown["evacuation"] and here.director.number == 1
            assert shown["moves"][0]["workloads"] == ["shop-web", "shop-db"]
            assert sum(line.startswith("~ workload") for line in shown["changes"]) == 6
            assert (await here.ask("evacuate", site="dallas"))["moves"] == []
            avoided = await here.ask("evacuate", site="houston", avoid=["dallas"])
            assert {move["target"] for move in avoided["moves"]} == {"e1"}
            begun = await here.ask("evacuate", site="houston", run=True, why="flood", who="ann")
            one = await here.seen(begun["evacuation"])
            assert one["state"] == "done" and set(outcomes(one).values()) == {"done"}
            planned = {name: m["target"] for m in shown["moves"] for name in m["workloads"]}
            assert here.where() == planned and set(planned.values()) == {"d1", "e1"}
            for name, node in planned.items():
                assert fleet.serves(name) == {node}
            history = (await here.ask("history"))["revisions"]
            assert len(history) == 6, "one revision for each group"
            assert {(r["who"], r["why"][:19]) for r in history[:-1]} == {("ann", "evacuation houston@")}
            numbers = [step["revision"] for step in one["steps"]]
            assert numbers == sorted(numbers) == [2, 3, 4, 5, 6]
            await here.settled()
            with pytest.raises(Refused, match="nothing runs at houston"):
                await here.ask("evacuate", site="houston", run=True)

    play(tmp_path, scenario, head=TWO)


def test_a_batch_waits_for_the_one_before_and_stops_when_it_is_told(tmp_path: Path) -> None:
    async def scenario(fleet: EvacuationFleet) -> None:
        async with fleet.evacuating() as here:
            await here.settled()
            fleet.agents["c2"].gate.clear()
            id_ = (await here.ask("evacuate", site="houston", run=True))["evacuation"]
            await until(lambda: here.director.number == 3)
            await until(lambda: here.director.nodes["c1"].kept.has == (3, 1))
            short = (await here.ask("evacuations"))["evacuations"][0]
            assert (short["moving"], short["waiting"], short["moved"]) == (2, 3, 0)
            for words in ({"site": "houston"}, {"site": "houston", "avoid": ["dallas"]}):
                with pytest.raises(Refused, match="is being left already"):
                    await here.ask("evacuate", **words, run=True)
            await here.ask("stop", id=id_)
            fleet.agents["c2"].gate.set()
            one = await here.seen(id_)
            assert one["state"] == "stopped"
            assert sorted(outcomes(one).values()) == ["done"] * 2 + ["waiting"] * 3
            with pytest.raises(Refused, match="cannot be stopped: it is stopped"):
                await here.ask("stop", id=id_)
            await here.ask("continue", id=id_)
            await until(lambda: here.evacuations.known[id_].of("moving") != ())
            await here.ask("abort", id=id_)
            one = await here.seen(id_)
            assert one["state"] == "aborted" and 2 < sum(s == "done" for s in outcomes(one).values()) <= 4
            with pytest.raises(Refused, match="cannot be continued: it is aborted"):
                await here.ask("continue", id=id_)
            assert here.where()["w6"] == "h1"

    play(tmp_path, scenario, head=TWO)


def test_a_group_that_a_node_refuses_is_back_and_the_others_go_on(tmp_path: Path) -> None:
    async def scenario(fleet: EvacuationFleet) -> None:
        async with fleet.evacuating() as here:
            await here.settled()
            plan = (await here.ask("evacuate", site="houston"))["moves"]
            there = {name: move["target"] for move in plan for name in move["workloads"]}
            repaired = refusing(fleet, there["w4"], f'203.0.113.4/32"\nto = "{there["w4"][0].upper()}"')
            id_ = (await here.ask("evacuate", site="houston", run=True))["evacuation"]
            one = await here.seen(id_)
            assert one["state"] == "incomplete"
            assert [unit for unit, state in outcomes(one).items() if state != "done"] == ["w4"]
            (step,) = [step for step in one["steps"] if step["state"] == "failed"]
            assert step["outcome"] == f"{there['w4']} refused: no room in the rack"
            assert here.where() == there | {"w4": "h1"}
            assert fleet.serves("w4") == {"h1"} and fleet.serves("shop-db") == {there["shop-db"]}
            assert any(r["why"].startswith("back to h1") for r in (await here.ask("history"))["revisions"])
            repaired()
            await here.ask("continue", id=id_)
            assert (await here.seen(id_))["state"] == "done"
            assert fleet.serves("w4") == {there["w4"]}

    play(tmp_path, scenario, head=TWO)


def test_what_does_not_arrive_in_time_is_taken_back(tmp_path: Path) -> None:
    head = '[evacuation]\nat_once = 9\npatience = "3s"\n'

    async def scenario(fleet: EvacuationFleet) -> None:
        async with fleet.evacuating(patience="1s") as here:
            await here.settled()
            for name in ("d1", "e1"):
                fleet.agents[name].gate.clear()
            id_ = (await here.ask("evacuate", site="houston", avoid=["denver"], run=True))["evacuation"]
            await until(lambda: here.director.number > 6)
            await here.ask("stop", id=id_)
            one = await here.seen(id_)
            assert {step["state"] for step in one["steps"]} == {"waiting"}, "to be tried alone"
            assert all(step["alone"] for step in one["steps"])
            assert all("not done in 3 s: waits for d1" in step["outcome"] for step in one["steps"])
            assert set(here.where().values()) == {"h1"}
            assert fleet.serves("w3") == {"h1"}

    play(tmp_path, scenario, head=head)


def test_a_change_by_somebody_else_is_seen_and_planned_around(tmp_path: Path) -> None:
    class Meddled(TopologyMover):
        """Somebody moves w6 to Denver when the second group is about to go."""

        calls = 0

        async def move(self, group: Group, seen: Seen) -> Moved:
            self.calls += 1
            if self.calls == 2:
                director = self._director
                await director.change(moved(director.topology, {"w6": "e1"}), "bob", "mine")
            return await super().move(group, seen)

    async def scenario(fleet: EvacuationFleet) -> None:
        director_of: list[Any] = []

        class Late:
            starts = False

            async def move(self, group: Group, seen: Seen) -> Moved:
                moved: Moved = await director_of[0].move(group, seen)
                return moved

        async with fleet.evacuating(Late()) as here:
            director_of.append(Meddled(here.director, 60))
            await here.settled()
            id_ = (await here.ask("evacuate", site="houston", avoid=["denver"], run=True))["evacuation"]
            one = await here.seen(id_)
            assert one["state"] == "done"
            assert here.where() == dict.fromkeys(WORKLOADS, "d1") | {"w6": "e1"}, "bob's word stays"
            assert "w6" not in outcomes(one)
            assert any(": again, revision" in event["text"] for event in one["events"])

    play(tmp_path, scenario, head="[evacuation]\nat_once = 1\n")


def test_the_next_director_goes_on(tmp_path: Path) -> None:
    class Dies:
        """The director ends while this is asked."""

        starts = False

        def __init__(self) -> None:
            self.asked = asyncio.Event()

        async def move(self, group: Group, seen: Seen) -> Moved:
            self.asked.set()
            await asyncio.Event().wait()
            raise AssertionError

    async def scenario(fleet: EvacuationFleet) -> None:
        mover = Dies()
        async with fleet.evacuating(mover) as here:
            await here.settled()
            id_ = (await here.ask("evacuate", site="houston", run=True, who="ann"))["evacuation"]
            await asyncio.wait_for(mover.asked.wait(), 30)
        fleet.agents["c2"].gate.clear()
        async with fleet.evacuating() as here:  # it had said that it would, and had done nothing
            await until(lambda: here.director.number == 3)
            assert here.director.term == 2
        fleet.agents["c2"].gate.set()
        async with fleet.evacuating() as here:  # it had changed the topology, and not seen it through
            one = await here.seen(id_)
            assert one["state"] == "done" and set(outcomes(one).values()) == {"done"}
            assert here.director.number == 6, "one revision for each group, and no more"
            assert "h1" not in here.where().values()
        async with fleet.evacuating() as here:
            await here.settled()
            assert (await here.ask("evacuations", id=id_)) == one
            assert here.director.number == 6

    play(tmp_path, scenario, head=TWO)


def test_a_silent_node_takes_nothing_and_a_silent_point_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario(fleet: EvacuationFleet) -> None:
        await fleet.agents["d1"].stop()
        await fleet.agents["c2"].stop()
        async with fleet.evacuating(stale="2s") as here:
            shown = await here.ask("evacuate", site="houston")
            assert shown["unfit"] == {"d1": "silent"}
            assert {move["target"] for move in shown["moves"]} == {"e1"}
            id_ = (await here.ask("evacuate", node="h1", run=True))["evacuation"]
            one = await here.seen(id_)
            assert one["state"] == "done"
            assert {step["outcome"] for step in one["steps"]} == {"without c2"}
            assert fleet.agents["h1"].serves("10.1.0.3"), "c2 may send there still"
        for name in ("d1", "c2"):
            await fleet.agents[name].start()

    play(tmp_path, scenario, head=TWO)


def test_proposals_are_answered_once(tmp_path: Path) -> None:
    async def scenario(fleet: EvacuationFleet) -> None:
        async with fleet.evacuating() as here:
            await here.settled()
            one = await here.ask("evacuate", site="houston", propose=True, who="ann", why="works")
            id_ = one["evacuation"]
            status = await here.ask("status")
            assert status["troubles"] == [f"evacuation {id_} waits for an answer: site houston, works"]
            done = await here.ask("refuse", id=id_, who="bob", why="not today")
            assert (done["state"], done["answered_by"], done["answer"]) == ("refused", "bob", "not today")
            for verb in ("approve", "refuse"):
                with pytest.raises(Refused, match="cannot be answered: it is refused"):
                    await here.ask(verb, id=id_)
            assert here.director.number == 1
            id_ = (await here.ask("evacuate", site="houston", propose=True))["evacuation"]
            assert (await here.ask("approve", id=id_, who="bob"))["state"] == "running"
            assert (await here.seen(id_))["state"] == "done"

    play(tmp_path, scenario)


def test_what_has_to_be_started_has_arrived_when_it_runs(tmp_path: Path) -> None:
    async def scenario(fleet: EvacuationFleet) -> None:
        running = {"w3"}
        async with fleet.evacuating(runs=lambda workload, _node: workload in running) as here:
            await here.settled()
            shown = await here.ask("evacuate", site="houston")
            assert shown["exclusive"] == [], "somebody starts them"
            id_ = (await here.ask("evacuate", site="houston", run=True))["evacuation"]
            await until(lambda: "h1" not in here.where().values())
            await here.settled()
            assert len(here.evacuations.known[id_].of("moving")) == 5
            running.update(WORKLOADS)
            assert (await here.seen(id_))["state"] == "done"

    play(tmp_path, scenario, head="[evacuation]\nat_once = 9\n", kind="exclusive")


def test_what_cannot_be_kept_is_not_begun(tmp_path: Path) -> None:
    async def scenario(fleet: EvacuationFleet) -> None:
        async with fleet.evacuating() as here:
            await here.settled()
            assert fleet.store is not None
            put, full = fleet.store.put_note, [True]

            def put_note(term: int, key: str, text: str) -> None:
                if full:
                    raise IpshareError("cannot write: the disk is full")
                put(term, key, text)

            fleet.store.put_note = put_note  # type: ignore[method-assign]
            with pytest.raises(IpshareError, match="disk is full"):
                await here.ask("evacuate", site="houston", propose=True)
            assert here.evacuations.known == {}
            full.clear()
            id_ = (await here.ask("evacuate", site="houston", propose=True))["evacuation"]
            full.append(True)
            with pytest.raises(IpshareError, match="disk is full"):
                await here.ask("approve", id=id_)
            assert here.evacuations.known[id_].state == "proposed" and here.director.number == 1
            full.clear()
            await here.ask("approve", id=id_)
            await until(lambda: here.director.number > 1)
            full.append(True)
            await until(lambda: "disk is full" in here.evacuations.trouble)
            full.clear()
            assert (await here.seen(id_))["state"] == "done"
            assert here.director.number == 6 and here.evacuations.trouble == ""

    play(tmp_path, scenario, head=TWO)


def test_a_store_that_takes_no_revision_is_tried_again(tmp_path: Path) -> None:
    async def scenario(fleet: EvacuationFleet) -> None:
        async with fleet.evacuating() as here:
            await here.settled()
            assert fleet.store is not None
            add, refused = fleet.store.add, []

            def flaky(revision: Any, facts: Any) -> None:
                if len(refused) < 3:
                    refused.append(revision.number)
                    raise IpshareError("the store does not answer")
                add(revision, facts)

            fleet.store.add = flaky  # type: ignore[method-assign]
            id_ = (await here.ask("evacuate", site="houston", run=True))["evacuation"]
            one = await here.seen(id_)
            assert one["state"] == "done" and here.director.number == 6 and len(refused) == 3
            assert any("again, the store does not answer" in event["text"] for event in one["events"])

    play(tmp_path, scenario, head=TWO)


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    async def scenario(fleet: EvacuationFleet) -> None:
        async with fleet.evacuating() as here:
            await here.settled()
            for words, message in (
                ({}, "what is left?"),
                ({"site": "houston", "node": "h1"}, "what is left?"),
                ({"site": "rome"}, "there is no site 'rome'"),
                ({"site": "houston", "avoid": ["rome"]}, "there is no site 'rome'"),
                ({"node": "c1"}, "no node 'c1' that is an end point"),
            ):
                with pytest.raises(Refused, match=message):
                    await here.ask("evacuate", **words)
            for words, message in (({"site": 7}, "site is a text"), ({"avoid": "x"}, "avoid is a list")):
                with pytest.raises(IpshareError, match=message):
                    await here.ask("evacuate", **words)
            with pytest.raises(Refused, match="no evacuation 'x@1'"):
                await here.ask("approve", id="x@1")
            assert (await here.ask("hazards"))["mode"] is None
            assert set(here.verbs.verbs) == VERBS
            desk = Desk(here.director, Path("x"))
            desk.coming = VERBS
            with pytest.raises(Refused, match="has only begun"):
                await desk.handle(Root(), {"verb": "evacuations"})
            assert here.director.number == 1

    play(tmp_path, scenario)
