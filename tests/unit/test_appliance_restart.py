"""Before a box starts again it leaves its pair: the active one hands over, or stays."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ipshare import api
from ipshare.appliance import restart
from ipshare.errors import EngineError, IpshareError, Refused
from tests.agent_world import World
from tests.pair_world import half, node_of


@pytest.fixture
def world(tmp_path: Path) -> World:
    return half(tmp_path)


def left(world: World, **now: Any) -> tuple[list[str], list[str]]:
    """What was said, and the states that the node went through."""
    engine, said, states = world.running, list[str](), list[str]()
    assert engine is not None
    engine.say(**now)
    order = engine.pair_command

    def ordered(what: Any) -> None:
        order(what)
        states.append(engine.now.state)
        if what == "switchover":
            engine.say(peer_state="active", notes=("ready",))

    engine.pair_command = ordered  # type: ignore[method-assign]
    restart.leave(node_of(world), said.append, 0.01)
    return said, states


def test_the_active_one_hands_over_and_stays_out(world: World) -> None:
    said, states = left(world, state="active", peer_state="standby")
    assert said == ["C handed over"] and states == ["standby", "inop"]


@pytest.mark.parametrize("state", ["standby", "initial"])
def test_any_other_one_goes_out(world: World, state: str) -> None:
    assert left(world, state=state, peer_state="active") == ([], ["inop"])


def test_who_is_out_already_is_not_asked(world: World) -> None:
    assert left(world, state="inop", peer_state="active") == ([], [])


def test_an_active_one_whose_peer_is_not_ready_stays(world: World) -> None:
    with pytest.raises(Refused, match="C is active, and cannot hand over: the peer is not ready") as caught:
        left(world, state="active", peer_state="initial")
    assert "pair ready --wait" in (caught.value.hint or "")
    assert world.running is not None and world.running.now.state == "active"


def test_a_peer_that_does_not_take_over_is_said(world: World) -> None:
    engine = world.running
    assert engine is not None
    engine.say(state="active", peer_state="standby")  # and it stays so
    with pytest.raises(EngineError, match="C handed over, and its peer is standby"):
        restart.leave(node_of(world), lambda text: None, 0.01)


def test_without_an_engine_there_is_nothing_to_leave(world: World) -> None:
    world.kill_engine()
    restart.leave(node_of(world), lambda text: None, 0.01)


def test_every_node_of_the_machine_leaves_before_it_starts_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []
    monkeypatch.setattr(restart, "leave", lambda node, say: done.append(node.config.node.name))
    monkeypatch.setattr(restart, "now", lambda: done.append("now"))
    monkeypatch.setattr(api, "Engines", lambda: world)
    restart.again(lambda text: None, node_of(world).config.node.state_dir.parent)
    assert done == ["C", "now"]


@pytest.mark.parametrize(("code", "is_said"), [(0, False), (-15, False), (1, True)])
def test_a_machine_that_does_not_start_again_is_said(
    code: int, is_said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[list[str]]()

    def systemctl(words: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        asked.append(words)
        return subprocess.CompletedProcess(words, code)

    monkeypatch.setattr(restart.subprocess, "run", systemctl)
    with pytest.raises(IpshareError, match="by itself") if is_said else contextlib.nullcontext():
        restart.now("--force")
    assert asked == [["systemctl", "reboot", "--force"]]
