"""A pair from Python: states one after the other, over a restart of the engine, blocking and asyncio."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from ipshare import aio
from ipshare.engine.pair_following import PairFollowing
from ipshare.errors import NotRunning, Refused
from tests.agent_world import World
from tests.pair_world import half, node_of


@pytest.fixture
def world(tmp_path: Path) -> World:
    return half(tmp_path)


def test_states_come_one_after_the_other(world: World) -> None:
    assert world.running is not None
    states = node_of(world).watch_pair()
    assert next(states).state == "initial"
    world.running.move("standby", "PEER_HEARD")
    assert next(states).state == "standby"
    mover = threading.Timer(0.01, lambda: world.running.move("active", "PEER_SILENT"))  # type: ignore[union-attr]
    mover.start()
    assert next(states).state == "active"


def test_an_engine_that_an_agent_starts_again_is_waited_for(world: World) -> None:
    node, kept = node_of(world), [True]
    following = PairFollowing(node._pairing, lambda: kept[0])
    assert following.next().state == "initial"
    world.kill_engine()
    starter = threading.Timer(0.05, lambda: node_of(world).apply(start_engine=True))
    starter.start()
    assert following.next().reason == "NONE"
    starter.join()
    world.kill_engine()
    kept[0] = False
    with pytest.raises(NotRunning):
        following.next()


def test_following_ends_with_the_pair_and_by_another_thread(world: World) -> None:
    following = node_of(world).following_pair()
    following.next()
    ender = threading.Timer(0.01, following.interrupt)
    ender.start()
    with pytest.raises(NotRunning):
        following.next()
    assert world.running is not None
    other = node_of(world).following_pair()
    other.next()
    world.running.clear_pair()
    with pytest.raises(Refused, match="half of no pair"):
        other.next()


def test_asyncio_leaves_no_thread_behind(world: World) -> None:
    async def scenario() -> None:
        assert world.running is not None
        node = aio.Node(node_of(world))
        assert (await node.pair()).state == "initial"
        seen = []
        async for state in node.watch_pair():
            seen.append(state.state)
            if len(seen) == 2:
                break
            world.running.move("active", "ORDERED", peer_state="standby")
        assert seen == ["initial", "active"]
        assert (await node.pair_switchover()).state == "standby"
        assert (await node.pair_force()).state == "active"
        assert (await node.pair_maintenance(True)).state == "inop"

    asyncio.run(asyncio.wait_for(scenario(), 30))
