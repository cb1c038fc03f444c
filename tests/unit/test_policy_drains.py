"""What an agent keeps of a policy that changed: until when, over its own end, a reboot, a failure; and what
diff says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipshare.agent import drains
from ipshare.engine.desired import desired
from ipshare.engine.drained import Drain, begun, with_drains
from ipshare.engine.moved import shares
from ipshare.engine.plan import diff
from ipshare.engine.plan_text import summarize
from ipshare.errors import EngineError
from ipshare.model import Config, Member
from tests.agent_world import World
from tests.policy_world import changed, site

WAS, NOW = (Member("A", 1), Member("B", 1)), (Member("A", 1), Member("B", 3))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def node(world: World, weights: tuple[int, int], drain: str = "15m") -> Config:
    head = f'runtime_dir = "{world.directory}/run"\nstate_dir = "{world.directory}/state"\n'
    return site("C", weights, drain=drain, head=head)


def before(world: World) -> list[int]:
    """Of each policy record that the engine has: how many members it had before."""
    assert world.running is not None
    return [int(n) for n in world.running.read().policies["n_previous"]]


def test_a_change_is_kept_for_its_time_and_then_forgotten(world: World) -> None:
    agent = world.agent()
    agent.start(node(world, (1, 1)))
    assert before(world) == [0, 0]
    assert [int(n) for n in agent.plan(node(world, (1, 3))).desired.policies["n_previous"]] == [2, 2]
    agent.apply(node(world, (1, 3)))
    assert before(world) == [2, 2] and agent.drift() == []
    world.advance(899)
    assert agent.reconcile().is_empty and agent.drift() == []
    world.advance(2)
    assert agent.drift() == ["policy both: the time of what it had before is over"]
    agent.reconcile()
    assert before(world) == [0, 0] and agent.drift() == []


def test_another_agent_and_another_boot_know_it(world: World) -> None:
    agent = world.agent()
    agent.start(node(world, (1, 1)))
    agent.apply(node(world, (1, 3)))
    world.advance(600)
    agent = world.agent()
    assert agent.start(node(world, (1, 3)))[0].is_empty and before(world) == [2, 2]
    world.boot, world.now_ns = "second boot", 10**9
    world.kill_engine()
    agent = world.agent()
    agent.start(node(world, (1, 3)))
    world.advance(899)
    agent.reconcile()
    assert before(world) == [2, 2], "the whole time again: nobody knows how long the node was away"
    world.advance(2)
    agent.reconcile()
    assert before(world) == [0, 0]


def test_what_failed_leaves_nothing_and_takes_nothing_away(world: World) -> None:
    agent = world.agent()
    agent.start(node(world, (1, 1)))
    agent.apply(node(world, (1, 3)))
    kept = drains.load(agent.store)
    world.faults.at = len(world.faults.steps) + 3
    with pytest.raises(EngineError):
        agent.apply(node(world, (7, 1)))
    assert drains.load(agent.store) == kept and before(world) == [2, 2]


def test_a_rollback_is_a_change_too(world: World) -> None:
    agent = world.agent()
    agent.start(node(world, (1, 1)))
    agent.apply(node(world, (1, 3)))
    agent.rollback()
    (drain,) = drains.load(agent.store)
    assert drain.members == NOW and before(world) == [2, 2]


def test_without_a_time_nothing_is_kept(world: World) -> None:
    agent = world.agent()
    agent.start(node(world, (1, 1), "0s"))
    agent.apply(node(world, (1, 3), "0s"))
    assert before(world) == [0, 0] and not (world.directory / "state" / drains.FILE).exists()


def test_what_cannot_be_read_is_nothing(world: World) -> None:
    store = world.agent().store
    store.keep(drains.FILE, [{"policy": 7}])
    assert drains.load(store) == ()


def test_a_further_change_puts_the_latest_in_the_place_of_the_earlier_one() -> None:
    configs = [site("C", weights) for weights in ((1, 1), (1, 3), (5, 1))]
    first = begun((), configs[0], configs[1], 10, "boot")
    assert first == (Drain("both", WAS, 10 + 900 * 10**9, "boot"),)
    assert begun(first, configs[1], configs[1], 20, "boot") == first
    assert begun(first, configs[1], configs[2], 30, "boot")[0].members == NOW


def test_it_is_of_use_only_where_a_path_can_say_it_and_all_are_known() -> None:
    drain = Drain("both", WAS, 1, "boot")
    assert with_drains(site("C", (1, 3)), [drain]).policies[0].previous == WAS
    assert with_drains(site("C", (1, 1)), [drain]) == site("C", (1, 1))
    assert with_drains(site("C", (1, 3), path="rewrite"), [drain]).policies[0].previous == ()
    gone = Drain("both", (Member("A", 1), Member("Z", 1)), 1, "boot")
    assert with_drains(site("C", (1, 3)), [gone]).policies[0].previous == ()


def said(was: tuple[int, int] | None, *, path: str = "gue") -> str:
    plan = diff(desired(site("C", (1, 1), path=path)), changed("C", was, (1, 3), path=path))
    found = shares(plan)
    moved, kept = ({name: pair[i] for name, pair in found.items()} for i in (0, 1))
    assert 0.2 < moved["both"] < 0.32
    return summarize(plan, moved=moved, kept=kept, drain_s={"both": 900.0}).lines()[-1]


def test_what_diff_says_of_the_connections() -> None:
    goes_on = "their connections go on at the one that they had for 15 min from `apply` on"
    assert said((1, 1)).endswith(goes_on)
    assert said(None).endswith("their connections break")
    assert said((1, 1), path="rewrite").endswith("their connections break")
