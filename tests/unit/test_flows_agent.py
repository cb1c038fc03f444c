"""The agent and tracked connections, over an engine whose table is filled by hand: set, changed, gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipshare.agent import flows as agent_flows
from ipshare.agent.daemon import Daemon
from ipshare.errors import EngineError, IpshareError, Refused
from ipshare.model import Config
from tests.agent_world import Faults, Killed, World, site, site_text
from tests.flowing_memory import NOBODY, FlowingMemory, record
from tests.pair_sites import pair_text
from tests.unit.test_agent_daemon import ask, audit, serve, until

NAT = """
[sessions]
capacity = {capacity}
[[nat]]
name = "office"
inside = ["10.200.0.0/16"]
addresses = ["{pool}"]
interfaces = ["eth1"]
"""
MIRROR = '[mirror]\ncommit_timeout = "{wait}"\n'


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "run").mkdir()
    return World(tmp_path)


def text(
    world: World, *, capacity: int = 1000, pool: str = "198.51.100.8", mirror: bool = False, wait: str = "2ms"
) -> str:
    nat = NAT.format(capacity=capacity, pool=pool)
    return nat + (pair_text(world.directory) + MIRROR.format(wait=wait) if mirror else "")


def wanted(world: World, **options: Any) -> Config:
    return site(world.directory, more=text(world, **options))


def engine(world: World) -> FlowingMemory:
    assert world.running is not None
    return world.running


# ---- a pass ----------------------------------------------------------------------------


def test_the_engine_gets_sessions_and_pools_once(world: World) -> None:
    agent = world.agent()
    done, _ = agent.start(wanted(world))
    assert done.flows and engine(world).flows is not None
    assert [str(p) for p in engine(world).flows.nats[0].pools] == ["198.51.100.8"]  # type: ignore[union-attr]
    assert agent.reconcile().is_empty and agent.drift() == []
    assert world.agent().start(wanted(world))[0].is_empty, "another agent finds it as it should be"
    assert engine(world).flows_sets == 1


def test_sessions_come_before_tables(world: World) -> None:
    world.agent().start(wanted(world, mirror=True))
    steps = world.faults.steps
    assert steps.index("pair") < steps.index("flows") < steps.index("before apply")


def test_a_reload_changes_pools_and_sessions_of_the_others_end(world: World) -> None:
    agent = world.agent()
    agent.start(wanted(world))
    kept = record("10.200.0.5 1000", "203.0.113.9 80", "198.51.100.8 1024")
    engine(world).tracked = np.concatenate([kept, record("10.200.0.6 1", "203.0.113.9 80", "198.51.100.9 1")])
    assert agent.apply(wanted(world, pool="198.51.100.8-198.51.100.9")).flows
    assert len(engine(world).tracked) == 2
    assert agent.apply(wanted(world)).flows
    assert len(engine(world).tracked) == 1
    agent.rollback()
    assert engine(world).flows.nats[0].addresses == 2  # type: ignore[union-attr]


def test_other_sizes_are_refused_and_everything_stays(world: World) -> None:
    agent = world.agent()
    agent.start(wanted(world))
    with pytest.raises(Refused, match="another size"):
        agent.apply(wanted(world, capacity=2000))
    assert engine(world).flows.sessions.capacity == 1000  # type: ignore[union-attr]
    assert agent.config == wanted(world) and agent.reconcile().is_empty


def test_a_table_that_nobody_wants_stays_empty_with_its_sizes(world: World) -> None:
    """An engine cannot give it back; another agent knows its sizes too."""
    agent = world.agent()
    agent.start(wanted(world))
    assert agent.apply(site(world.directory)).flows
    flows = engine(world).flows
    assert flows is not None and (flows.sessions.capacity, flows.nats) == (1000, ())
    assert world.agent().start(site(world.directory))[0].is_empty
    assert agent.apply(wanted(world)).flows
    assert engine(world).flows.nats  # type: ignore[union-attr]


def test_who_leaves_an_engine_of_others_leaves_an_empty_table(world: World) -> None:
    """A VPP that somebody else runs: mirror and pools are gone, the table has the sizes it began with."""
    world.agent().start(wanted(world, mirror=True))
    had, file = engine(world), world.directory / "run" / "flows.json"
    assert agent_flows.empty(had, file)
    assert had.mirrored is None and had.flows is not None
    assert (had.flows.sessions.capacity, had.flows.nats) == (1000, ())
    assert not agent_flows.empty(had, file)


def test_the_mirror_comes_and_goes_with_its_table(world: World) -> None:
    agent = world.agent()
    agent.start(wanted(world))
    assert agent.apply(wanted(world, mirror=True)).flows
    mirrored = engine(world).mirrored
    assert mirrored is not None and mirrored.key == bytes.fromhex("ab" * 32)
    assert "abab" not in repr(mirrored)
    assert "ab" * 16 not in (world.directory / "run" / "flows.json").read_text(), "the key is in no file"
    assert agent.apply(wanted(world, mirror=True, wait="5ms")).flows
    assert engine(world).mirror_sets == 2
    assert agent.reconcile().is_empty and engine(world).mirror_sets == 2
    agent.apply(wanted(world))
    assert engine(world).mirrored is None and agent.drift() == []


def test_an_engine_that_was_started_again_gets_it_again(world: World) -> None:
    agent = world.agent()
    agent.start(wanted(world, mirror=True))
    world.kill_engine()
    assert agent.reconcile().flows
    assert engine(world).flows is not None and engine(world).mirrored is not None
    world.kill_engine()
    assert world.agent().start(site(world.directory))[0].flows is False
    assert engine(world).flows is None, "a new engine has no table that nobody wants"


def test_what_somebody_took_away_is_drift(world: World) -> None:
    agent = world.agent()
    agent.start(wanted(world, mirror=True))
    engine(world).mirrored = None
    assert agent.drift() == ["the engine mirrors sessions no more"]
    engine(world).flows = None
    assert "the engine has no session table" in agent.drift()
    agent.reconcile()
    assert agent.drift() == []


@pytest.mark.parametrize("kill", [False, True], ids=["error", "killed"])
def test_interrupted_anywhere_the_next_run_arrives(tmp_path: Path, kill: bool) -> None:
    for cut in range(100):
        world = World(tmp_path / f"{cut}")
        world.directory.mkdir()
        world.agent().start(wanted(world))
        target = wanted(world, pool="198.51.100.16/30", mirror=True)
        world.faults = engine(world).faults = Faults(at=cut, kill=kill)  # type: ignore[attr-defined]
        try:
            world.agent().apply(target)
        except (Killed, EngineError):
            world.faults.at = -1
        else:
            break
        if not kill:
            assert engine(world).mirrored is None, "an error leaves the node as it was"
            assert engine(world).flows.nats[0].addresses == 1  # type: ignore[union-attr]
        world.agent().start(target)
        assert engine(world).mirrored is not None
        assert engine(world).flows.nats[0].addresses == 4  # type: ignore[union-attr]
    assert cut >= 6


def test_too_little_memory_is_said_before_it_is_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_flows, "_available_bytes", lambda: 1 << 20)
    problem = agent_flows.memory_short(wanted(world, capacity=1_000_000))
    assert problem is not None and "151 MiB" in problem.message and "has 1 MiB" in problem.message
    with pytest.raises(Refused, match="this machine has 1 MiB"):
        world.agent().start(wanted(world, capacity=1_000_000))
    assert agent_flows.memory_short(site(world.directory)) is None


def test_what_was_told_is_of_one_engine_and_may_be_damaged(world: World) -> None:
    agent = world.agent()
    agent.start(wanted(world))
    (world.directory / "run" / "flows.json").write_text("[1")
    assert agent.reconcile().flows, "told again: the engine sees that it is the same"
    assert engine(world).flows_sets == 1


# ---- the daemon ------------------------------------------------------------------------


def run(world: World, scenario: Callable[[Daemon], Awaitable[None]], **options: Any) -> None:
    more = text(world, **options)
    (world.directory / "site.toml").write_text(site_text(world.directory, more=more))
    serve(world, scenario, drift_s=0.02)


def test_status_says_what_sessions_and_mirror_do(world: World) -> None:
    async def scenario(agent: Daemon) -> None:
        status = await ask(world, "status")
        assert status["sessions"]["capacity"] == 1000 and status["mirror"]["role"] == "standby"
        await until(lambda: "has not all sessions of D" in agent.notes.get("mirror", ""))
        fed = replace(NOBODY, feeds_us=True, is_complete=True)
        engine(world).flows_say(peers=(fed, *[NOBODY] * 7), is_ready=True)
        await until(lambda: "mirror" not in agent.notes)
        engine(world).flows_say(is_active=True, peers=(replace(NOBODY, phase="snapshot"),))
        await until(lambda: "D is being brought up to date" in agent.notes.get("mirror", ""))

    run(world, scenario, mirror=True)


def test_a_full_table_is_a_note(world: World) -> None:
    async def scenario(agent: Daemon) -> None:
        engine(world).tracked = np.repeat(record("10.200.0.5 1", "203.0.113.9 80"), 2)
        await until(lambda: "all 2 sessions are in use" in agent.notes.get("sessions", ""))

    run(world, scenario, capacity=2)


def test_a_flood_is_a_note_as_long_as_it_lasts(world: World) -> None:
    """SYNs beyond the half-open table and datagrams at the mirror's ports, between two looks."""

    async def scenario(agent: Daemon) -> None:
        have = engine(world).flows_state()
        peer = replace(NOBODY, feeds_us=True, is_complete=True)
        n = 0

        def flooded() -> bool:
            nonlocal n
            n += 1000
            more = {"half_open_full": n, "half_open": 5, "half_open_capacity": 5}
            sessions = {**have.sessions, **more}
            engine(world).flows_say(sessions=sessions, is_ready=True, peers=(replace(peer, refused=n),) * 8)
            said, mirror = (agent.notes.get(name, "") for name in ("sessions", "mirror"))
            return "half_open is full" in said and "SYN flood" in said and "datagrams as if from D" in mirror

        await until(flooded)
        engine(world).flows_say(sessions=have.sessions)
        await until(lambda: "sessions" not in agent.notes and "mirror" not in agent.notes)

    run(world, scenario, mirror=True)


def test_sessions_are_closed_by_the_agent_and_audited(world: World) -> None:
    async def scenario(_agent: Daemon) -> None:
        engine(world).tracked = np.concatenate(
            [record("10.200.0.5 1", "203.0.113.9 80", "198.51.100.8 1024"),
             record("10.200.0.6 1", "203.0.113.9 80", "198.51.100.8 1025")]
        )  # fmt: skip
        done = await ask(world, "close_sessions", wanted={"src": "10.200.0.5/32"})
        assert done == {"closed": 1} and len(engine(world).tracked) == 1
        with pytest.raises(IpshareError, match="no 'colour'"):
            await ask(world, "close_sessions", wanted={"colour": "red"})
        with pytest.raises(IpshareError, match="wanted is an object"):
            await ask(world, "close_sessions")

    run(world, scenario)
    assert ("close_sessions", "ok") in audit(world)


def test_a_node_that_tracks_nothing_says_so(world: World) -> None:
    (world.directory / "site.toml").write_text(site_text(world.directory))

    async def scenario(_agent: Daemon) -> None:
        status = await ask(world, "status")
        assert (status["sessions"], status["mirror"]) == (None, None)
        with pytest.raises(Refused):
            await ask(world, "close_sessions", wanted={})

    serve(world, scenario)
