"""The agent and a pair, over an engine whose half is moved by hand: set, changed, cleared, followed, told."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent import pair as agent_pair
from ipshare.agent.daemon import Daemon
from ipshare.agent.pair_watch import PairChange, Told, change_between
from ipshare.agent.server import Caller
from ipshare.errors import EngineError, IpshareError, NoPrivilege, Refused
from ipshare.model import Config
from tests.agent_world import Faults, Killed, World, site, site_text
from tests.pair_sites import pair_text
from tests.paired_memory import EMPTY
from tests.unit.test_agent_daemon import ask, audit, serve, until

STRANGER = Caller(pid=1, uid=4242, gid=4242)
HOOK = """#!/bin/sh
echo "$IPSHARE_OLD_STATE $IPSHARE_NEW_STATE $IPSHARE_REASON $IPSHARE_NODE $IPSHARE_EPOCH" >>{log}
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "run").mkdir()
    return World(tmp_path)


def paired(world: World, **wanted: Any) -> Config:
    return site(world.directory, more=pair_text(world.directory, **wanted))


# ---- a pass ----------------------------------------------------------------------------


def test_the_engine_gets_the_pair_once(world: World) -> None:
    agent = world.agent()
    done, _ = agent.start(paired(world))
    assert done.pair and world.running is not None
    settings = world.running.settings
    assert settings is not None
    assert (settings.pair.node, settings.pair.peer, settings.key) == ("C", "D", bytes.fromhex("ab" * 32))
    assert settings.epoch_file == world.directory / "state" / "pair.epoch"
    assert agent.reconcile().is_empty and agent.drift() == []
    world.told = None
    assert world.agent().start(paired(world))[0].is_empty, "another agent finds it as it should be"
    assert world.running.sets == 1


def test_a_reload_changes_it_and_takes_it_away(world: World) -> None:
    agent = world.agent()
    agent.start(paired(world))
    assert agent.apply(paired(world, interval="20ms")).pair
    assert world.running is not None and world.running.settings is not None
    assert world.running.settings.pair.interval_s == 0.02
    paired(world, interval="20ms", key="cd" * 32)
    assert agent.reconcile().pair, "another key in the file"
    assert agent.apply(site(world.directory)).pair
    assert world.running.settings is None
    assert agent.reconcile().is_empty and agent.drift() == []


def test_an_engine_that_was_started_again_is_half_of_the_pair_again(world: World) -> None:
    agent = world.agent()
    agent.start(paired(world))
    world.kill_engine()
    assert agent.reconcile().pair
    assert world.running is not None and world.running.settings is not None


def test_a_pair_that_somebody_cleared_is_drift(world: World) -> None:
    agent = world.agent()
    agent.start(paired(world))
    assert world.running is not None
    world.running.clear_pair()
    assert agent.drift() == ["the engine is half of a pair no more"]
    assert agent.reconcile().pair and agent.drift() == []


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "failed"])
def test_interrupted_anywhere_the_next_run_arrives(tmp_path: Path, kill: bool) -> None:
    """From no pair to a pair, cut off at each step."""
    for cut in range(100):
        world = World(tmp_path / f"{cut}")
        world.directory.mkdir()
        world.agent().start(site(world.directory))
        wanted = paired(world)
        assert world.running is not None
        world.faults = world.running.faults = Faults(at=cut, kill=kill)
        try:
            world.agent().apply(wanted)
        except (Killed, EngineError):
            world.faults.at = -1
        else:
            break
        if not kill:
            assert world.running.settings is None, "an error leaves the node as it was"
        world.agent().start(wanted)
        assert world.running.settings is not None
    assert cut >= 5


def test_a_node_that_is_taken_down_hands_over_first(world: World) -> None:
    agent = world.agent()
    agent.start(paired(world))
    engine = world.running
    assert engine is not None
    engine.move("active", "PEER_ABSENT")
    agent.down(paired(world))
    assert (engine.now.old_state, engine.now.state) == ("active", "inop")


def test_orders_need_a_pair(world: World) -> None:
    agent = world.agent()
    agent.start(site(world.directory))
    with pytest.raises(Refused, match="half of no pair"):
        agent.pair_command("force")


# ---- the key file ----------------------------------------------------------------------


def test_a_key_is_made_once(tmp_path: Path) -> None:
    file, mask = tmp_path / "k", os.umask(0)
    try:
        agent_pair.make_key(file)
    finally:
        os.umask(mask)
    assert file.stat().st_mode & 0o7777 == 0o600
    key = agent_pair.read_key(file)
    assert len(key) == 32
    with pytest.raises(Refused, match="never overwritten"):
        agent_pair.make_key(file)
    assert agent_pair.read_key(file) == key
    agent_pair.make_key(tmp_path / "other")
    assert agent_pair.read_key(tmp_path / "other") != key


@pytest.mark.parametrize(
    ("text", "mode", "message", "hint"),
    [
        ("ab" * 32, 0o640, "others than its owner may read", "chmod 0600"),
        ("ab" * 31, 0o600, "64 hexadecimal digits", "ipshare pair key"),
        ("xy" * 32, 0o600, "64 hexadecimal digits", "ipshare pair key"),
        ("\udc80", 0o600, "not text", "ipshare pair key"),
        (None, 0o600, "does not exist", "ipshare pair key"),
    ],
    ids=["mode", "short", "no digits", "no text", "missing"],
)
def test_a_bad_key_file_is_one_sentence(
    tmp_path: Path, text: str | None, mode: int, message: str, hint: str
) -> None:
    file = tmp_path / "k"
    if text is not None:
        file.write_bytes(text.encode(errors="surrogateescape"))
        file.chmod(mode)
    with pytest.raises(IpshareError, match=message) as caught:
        agent_pair.read_key(file)
    assert hint in caught.value.hint


def test_what_is_wrong_is_said_all_at_once(world: World) -> None:
    """No address of the test's pair is this machine's, nor is its interface."""
    config = paired(world, more='hook = "/nowhere/hook"')
    assert config.pair is not None
    config.pair.key_file.chmod(0o644)
    texts = [problem.message for problem in agent_pair.preflight(config.pair)]
    for part in (
        "may read",
        "no program",
        "10.9.0.1, this node's end",
        "10.9.1.1, this",
        "no interface eth1",
    ):
        assert any(part in text for text in texts), part
    assert all(problem.hint for problem in agent_pair.preflight(config.pair))


# ---- what is told ----------------------------------------------------------------------

NOW = replace(
    EMPTY, changes=3, old_state="standby", state="active", reason="PEER_SILENT", reason_text="why", epoch=7
)
SAID = PairChange("standby", "active", "PEER_SILENT", "why", 7)


@pytest.mark.parametrize(
    ("told", "now", "change"),
    [
        (Told(), EMPTY, None),
        (Told(), NOW, SAID),
        (Told("run", 3, "active"), NOW, None),
        (Told("run", 2, "standby"), NOW, SAID),
        (Told("run", 1, "active"), NOW, SAID),
        (Told("before", 3, "active"), NOW, SAID),
        (Told("before", 3, "initial"), EMPTY, None),
        (
            Told("before", 3, "active"),
            EMPTY,
            PairChange("active", "initial", "NONE", "the engine began anew", 0),
        ),
    ],
    ids=["first", "late", "known", "next", "back meanwhile", "other run", "same", "died active"],
)
def test_what_is_told_after_what(told: Told, now: Any, change: PairChange | None) -> None:
    assert change_between(told, "run", now) == change


# ---- the daemon ------------------------------------------------------------------------


class HookLog:
    """A hook that writes down what it is told."""

    def __init__(self, world: World) -> None:
        self.log, self.program = world.directory / "hook.log", world.directory / "hook"
        self.program.write_text(HOOK.format(log=self.log))
        self.program.chmod(0o755)

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def hook(world: World) -> HookLog:
    hook = HookLog(world)
    write(world, more=f'hook = "{hook.program}"')
    return hook


def write(world: World, **wanted: Any) -> None:
    text = site_text(world.directory, more=pair_text(world.directory, **wanted))
    (world.directory / "site.toml").write_text(text)


def move(world: World, state: str, reason: str, **other: Any) -> None:
    assert world.running is not None
    world.running.move(state, reason, **other)


def run(world: World, scenario: Callable[[Daemon], Awaitable[None]]) -> None:
    serve(world, scenario, drift_s=0.05)


def test_each_change_is_logged_audited_and_told_to_the_hook(
    world: World, hook: HookLog, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(_agent: Daemon) -> None:
        move(world, "standby", "PEER_HEARD")
        await until(lambda: len(hook.lines()) == 1)
        move(world, "active", "PEER_SILENT", epoch=4)
        await until(lambda: len(hook.lines()) == 2)

    run(world, scenario)
    assert hook.lines() == ["initial standby PEER_HEARD 1 0", "standby active PEER_SILENT 1 4"]
    assert ("pair", "PEER_SILENT") in audit(world)
    assert "pair: standby -> active: the peer was not heard for the dead time (epoch 4)" in caplog.text


def test_an_agent_that_was_started_again_tells_what_happened_meanwhile_and_nothing_twice(
    world: World, hook: HookLog
) -> None:
    async def first(_agent: Daemon) -> None:
        move(world, "standby", "PEER_HEARD")
        await until(lambda: len(hook.lines()) == 1)

    async def second(agent: Daemon) -> None:
        await until(lambda: agent.pair.state is not None)

    async def third(_agent: Daemon) -> None:
        await until(lambda: len(hook.lines()) == 2)

    run(world, first)
    run(world, second)
    assert len(hook.lines()) == 1
    move(world, "active", "PEER_SILENT")
    run(world, third)
    assert hook.lines()[1].startswith("standby active PEER_SILENT")


def test_the_engines_death_is_a_change_and_the_next_one_is_followed(world: World, hook: HookLog) -> None:
    async def scenario(agent: Daemon) -> None:
        move(world, "active", "PEER_ABSENT")
        await until(lambda: len(hook.lines()) == 1)
        world.kill_engine()
        await until(lambda: len(hook.lines()) == 2)  # the drift job starts another
        move(world, "standby", "PEER_HEARD")
        await until(lambda: len(hook.lines()) == 3)

    run(world, scenario)
    assert [line.split()[:2] for line in hook.lines()] == [
        ["initial", "active"],
        ["active", "initial"],
        ["initial", "standby"],
    ]


def test_a_hook_that_hangs_or_fails_delays_nobody_and_is_named(world: World, hook: HookLog) -> None:
    """LESSONS.md 25 asks for a stop hook before the address leaves: a script that hangs must not keep it, so
    the hook comes after (DESIGN.md 9, docs/pair.md)."""
    hold = world.directory / "hold"
    os.mkfifo(hold)
    hook.program.write_text(f"#!/bin/sh\ncat {hold}\nexit 3\n")

    async def scenario(agent: Daemon) -> None:
        move(world, "standby", "PEER_HEARD")
        move(world, "active", "PEER_SILENT")
        status = await ask(world, "status")
        assert status["pair"]["state"] == "active", "while the script still runs"
        await asyncio.to_thread(hold.write_text, "")
        await until(lambda: "ended with 3" in agent.notes.get("hook", ""))
        hook.program.write_text("#!/bin/sh\nexit 0\n")
        move(world, "inop", "LINK_DOWN")
        await until(lambda: "hook" not in agent.notes)

    run(world, scenario)


def test_a_hook_that_was_configured_later_is_told_from_then_on(world: World, hook: HookLog) -> None:
    write(world)

    async def scenario(agent: Daemon) -> None:
        move(world, "standby", "PEER_HEARD")
        await until(lambda: agent.pair.state is not None and agent.pair.state.state == "standby")
        write(world, more=f'hook = "{hook.program}"')
        await ask(world, "apply")
        move(world, "active", "PEER_SILENT")
        await until(lambda: len(hook.lines()) > 0)

    run(world, scenario)
    assert hook.lines()[-1].split()[1:3] == ["active", "PEER_SILENT"]


def test_what_is_wrong_with_the_pair_is_a_note_as_long_as_it_is(world: World, hook: HookLog) -> None:
    async def scenario(agent: Daemon) -> None:
        assert world.running is not None
        await until(lambda: "D is not heard on any path" in agent.notes.get("pair", ""))
        world.running.say(paths_up=(0,), notes=("wrong_key", "mismatch", "no_epoch_file"))
        await until(lambda: "another key" in agent.notes.get("pair", ""))
        for part in ("another [pair]", "pair.epoch", "10.9.1.1:6081 - 10.9.1.2:6081"):
            assert part in agent.notes["pair"]
        world.running.say(paths_up=(), notes=("other_version",))
        await until(lambda: "no version of the pair's protocol" in agent.notes.get("pair", ""))
        assert "not heard" not in agent.notes["pair"], "one thing, with its reason"
        world.running.say(paths_up=(0, 1), notes=("realtime",))
        await until(lambda: "pair" not in agent.notes)

    run(world, scenario)


def test_status_and_orders(world: World, hook: HookLog) -> None:
    async def scenario(agent: Daemon) -> None:
        move(world, "active", "PEER_ABSENT")
        pair = (await ask(world, "status"))["pair"]
        assert (pair["state"], pair["peer"], pair["reason"]) == ("active", "D", "PEER_ABSENT")
        with pytest.raises(Refused, match="not ready"):
            await ask(world, "pair", order="switchover")
        await ask(world, "pair", order="maintenance")
        assert (await ask(world, "status"))["pair"]["state"] == "inop"
        with pytest.raises(IpshareError, match="no order"):
            await ask(world, "pair", order="fly")
        with pytest.raises(NoPrivilege):
            await agent.handle(STRANGER, {"verb": "pair", "order": "force"})
        await agent.handle(STRANGER, {"verb": "pair", "order": "service"})
        await until(lambda: ("pair", "MAINTENANCE") in audit(world))  # who watches comes later

    run(world, scenario)
    assert ("pair", "ok") in audit(world)


def test_down_ends_it_and_the_hook_is_told_first(world: World, hook: HookLog) -> None:
    async def scenario(_agent: Daemon) -> None:
        move(world, "active", "PEER_ABSENT")
        await until(lambda: len(hook.lines()) == 1)
        await ask(world, "down")

    run(world, scenario)
    assert hook.lines()[-1].startswith("active inop MAINTENANCE")
    assert not (world.directory / "run" / "pair.json").exists()


def test_a_node_without_a_pair_says_so(world: World) -> None:
    (world.directory / "site.toml").write_text(site_text(world.directory))

    async def scenario(agent: Daemon) -> None:
        assert (await ask(world, "status"))["pair"] is None
        with pytest.raises(Refused, match="half of no pair"):
            await ask(world, "pair", order="switchover")
        assert "pair" not in agent.notes or "ordered" not in agent.notes["pair"]

    run(world, scenario)


def test_memory_that_was_damaged_is_none(world: World, hook: HookLog) -> None:
    (world.directory / "run" / "pair.json").write_text("[1")

    async def scenario(_agent: Daemon) -> None:
        move(world, "standby", "PEER_HEARD")
        await until(lambda: len(hook.lines()) == 1)

    run(world, scenario)
    told = json.loads((world.directory / "run" / "pair.json").read_text())
    assert (told["changes"], told["state"]) == (2, "standby")
