"""The agent's loop in this process, over a node in memory: socket, signals, timers, audit."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ipshare import config as configuration
from ipshare.agent import daemon as daemon_module
from ipshare.agent.client import AgentClient
from ipshare.agent.daemon import Daemon
from ipshare.agent.guard import EngineGuard
from ipshare.agent.server import MAX_LINE, Caller
from ipshare.errors import ConfigError, IpshareError, NoPrivilege, NotRunning, Refused
from tests.agent_world import World, site_text

STRANGER = Caller(pid=1, uid=4242, gid=4242)


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "run").mkdir()
    write(tmp_path)
    return World(tmp_path)


def write(directory: Path, **wanted: Any) -> Path:
    file = directory / "site.toml"
    file.write_text(site_text(directory, **wanted))
    return file


def serve(world: World, scenario: Callable[[Daemon], Awaitable[None]], **options: Any) -> None:
    """Runs an agent, the scenario beside it, and ends the agent as SIGTERM does."""

    async def both() -> None:
        file = world.directory / "site.toml"
        agent = Daemon(file, configuration.load(file), world.agent(), **options)
        running = asyncio.create_task(agent.run())
        up = asyncio.create_task(agent.ready.wait())
        await asyncio.wait({running, up}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        try:
            if not running.done():
                await scenario(agent)
        finally:
            if not running.done():
                os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(running, 30)

    asyncio.run(both())


async def ask(world: World, verb: str, **arguments: Any) -> dict[str, Any]:
    def call() -> dict[str, Any]:
        with AgentClient(world.directory / "run") as agent:
            return agent.call(verb, **arguments)

    return await asyncio.to_thread(call)


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not claim():
            await asyncio.sleep(0.005)


def audit(world: World) -> list[tuple[str, str]]:
    lines = (world.directory / "state" / "audit.log").read_text().splitlines()
    return [(entry["verb"], entry["outcome"]) for entry in map(json.loads, lines)]


def test_verbs_change_the_node_and_each_change_is_written_down(world: World) -> None:
    async def scenario(agent: Daemon) -> None:
        assert (await ask(world, "status"))["generation"] == 1
        write(world.directory, to="B")
        applied = await ask(world, "apply")
        assert (applied["generation"], applied["changed"]) == (2, True)
        assert not (await ask(world, "apply"))["changed"]
        assert (await ask(world, "rollback"))["generation"] == 3
        with pytest.raises(Refused):
            await ask(world, "confirm")

    serve(world, scenario)
    assert [verb for verb, _ in audit(world)] == ["start", "apply", "apply", "rollback", "confirm"]
    assert audit(world)[-1][1].startswith("nothing waits")
    entry = json.loads((world.directory / "state" / "audit.log").read_text().splitlines()[1])
    assert entry["who"] == f"uid={os.geteuid()} gid={os.getegid()} pid={os.getpid()}"
    assert (world.directory / "state" / "audit.log").stat().st_mode & 0o777 == 0o600


def test_a_bad_file_is_refused_with_all_its_mistakes(world: World) -> None:
    async def scenario(agent: Daemon) -> None:
        (world.directory / "site.toml").write_text("[node]\nname = 1\nfoo = 2\n")
        with pytest.raises(ConfigError) as caught:
            await ask(world, "apply")
        assert len(caught.value.problems) >= 2
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: "reload" in agent.notes)
        assert (await ask(world, "status"))["generation"] == 1
        write(world.directory, to="B")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: agent.generation == 2)
        assert agent.notes == {}

    serve(world, scenario)


def test_only_the_owner_names_files_and_takes_the_node_down(world: World) -> None:
    async def scenario(agent: Daemon) -> None:
        other = world.directory / "other.toml"
        other.write_text("secret = 1\n")
        for request in ({"verb": "apply", "path": str(other)}, {"verb": "down"}):
            with pytest.raises(NoPrivilege):
                await agent.handle(STRANGER, request)
        assert not (await agent.handle(STRANGER, {"verb": "apply"}))["changed"]
        assert world.running is not None

    serve(world, scenario)


def test_the_confirm_timer_rolls_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_module, "TRIAL_POLL_S", 0.01)

    async def scenario(agent: Daemon) -> None:
        write(world.directory, to="B")
        await ask(world, "apply", confirm_within_s=300)
        assert (await ask(world, "status"))["confirm_within_s"] == 300
        world.advance(301)
        await until(lambda: agent.generation == 3)
        assert (await ask(world, "status"))["confirm_within_s"] is None

    serve(world, scenario)
    assert audit(world)[-1] == ("rollback", "ok")


def test_drift_is_mended(world: World) -> None:
    async def scenario(agent: Daemon) -> None:
        world.installed = ()
        await until(lambda: world.installed != ())
        engine = world.running
        world.kill_engine()
        await until(lambda: world.running is not None and world.running is not engine)
        await until(lambda: len(audit(world)) >= 3)  # written after the engine runs

    serve(world, scenario, drift_s=0.01)
    assert [verb for verb, _ in audit(world)] == ["start", "mend", "mend"]


def test_down_through_the_socket_ends_everything(world: World) -> None:
    async def scenario(agent: Daemon) -> None:
        result = await ask(world, "down")
        routes = ["undone: route 203.0.113.0/24"]
        assert result == {"engine_stopped": True, "engine": "engine ended", "routes": routes}

    serve(world, scenario)
    assert (world.running, world.installed) == (None, ())
    assert not (world.directory / "run" / "agent.sock").exists()


def test_the_agents_end_leaves_engine_and_routes(world: World) -> None:
    async def scenario(agent: Daemon) -> None:
        assert stat.S_IMODE(agent.server.path.stat().st_mode) == 0o600

    serve(world, scenario)
    assert world.running is not None and world.installed


def test_a_group_gets_the_socket(world: World) -> None:
    import grp

    own = grp.getgrgid(os.getegid()).gr_name

    async def scenario(agent: Daemon) -> None:
        assert stat.S_IMODE(agent.server.path.stat().st_mode) == 0o660

    serve(world, scenario, group=own)
    with pytest.raises(IpshareError, match="no group"):
        serve(world, scenario, group="no-such-group-here")


JUNK = [b"\n", b"[]\n", b"{}\n", b'{"verb": 3}\n', b"\xff\xfe\n", b'{"verb": "fly"}\n', b"[" * 5000 + b"\n"]


def test_junk_gets_an_answer_and_the_next_request_too(world: World) -> None:
    def talk() -> None:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(world.directory / "run" / "agent.sock"))
            answers = line.makefile("rb")
            for junk in JUNK:
                line.sendall(junk)
                assert json.loads(answers.readline())["ok"] is False, junk
            line.sendall(b'{"verb": "status"}\n')
            assert json.loads(answers.readline())["ok"] is True
            line.sendall(b"x" * (MAX_LINE * 16) + b"\n")  # more than the kernel holds back
            assert json.loads(answers.readline())["ok"] is False
            assert answers.readline() == b"", "and that ends the conversation"

    async def scenario(_agent: Daemon) -> None:
        await asyncio.to_thread(talk)
        assert (await ask(world, "status"))["node"] == "C"

    serve(world, scenario)


def test_status_of_a_node_whose_engine_is_gone(world: World) -> None:
    async def scenario(_agent: Daemon) -> None:
        world.kill_engine()
        status = await ask(world, "status")
        assert (status["engine_pid"], status["generation"]) == (None, 0)

    serve(world, scenario)


def test_without_agent_a_caller_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        AgentClient(tmp_path)


def test_an_agent_that_ends_before_it_answers_is_told_as_that_however_it_ends(tmp_path: Path) -> None:
    """Closed while we ask (EPIPE, ECONNRESET), or after that (an end without an answer): one sentence."""
    for reads_first in (False, True):
        with socket.socket(socket.AF_UNIX) as door:
            path = tmp_path / f"{reads_first}.sock"
            door.bind(str(path))
            door.listen()
            with AgentClient(tmp_path, path=path) as agent:
                served, _ = door.accept()
                if not reads_first:
                    served.close()
                else:
                    threading.Thread(target=lambda s=served: (s.recv(4096), s.close())).start()
                with pytest.raises(NotRunning, match="the agent went away before it answered"):
                    agent.call("status")


def test_the_service_manager_hears(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(world.directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        heard: list[str] = []

        async def hear(word: str) -> None:
            while not any(word in text for text in heard):
                heard.append((await asyncio.to_thread(manager.recv, 4096)).decode())

        async def scenario(_agent: Daemon) -> None:
            await hear("READY=1")
            await hear("WATCHDOG=1")
            heard.clear()
            os.kill(os.getpid(), signal.SIGHUP)
            await hear("RELOADING=1\nMONOTONIC_USEC=")
            await hear("READY=1\nSTATUS=generation 1; all well")

        serve(world, scenario)
        while "STOPPING=1" not in heard:
            heard.append(manager.recv(4096).decode())


def test_the_guard_sees_an_end_at_once_and_slows_a_rush() -> None:
    async def scenario() -> None:
        ended = asyncio.Event()
        guard = EngineGuard(ended.set)
        pauses = []
        for _ in range(6):
            ended.clear()
            process = subprocess.Popen(["sleep", "60"])
            guard.watch(process.pid)
            process.kill()
            await asyncio.wait_for(ended.wait(), 30)
            pauses.append(guard.backoff_s())
            process.returncode = -9  # reaped by the guard
        assert guard.restarts == 6
        assert pauses[:3] == [0, 0, 0] and 0 < pauses[3] < pauses[4] < pauses[5]
        guard.close()

    asyncio.run(scenario())


def test_an_engine_that_does_not_start_at_the_first_attempt_is_tried_again(world: World) -> None:
    async def scenario(agent: Daemon) -> None:
        world.kill_engine()
        world.faults.steps.clear()
        world.faults.at = 0
        agent.guard.on_end()
        await until(lambda: world.launches == 2 and "engine" not in agent.notes)

    serve(world, scenario, drift_s=3600.0)


def test_a_runtime_directory_that_somebody_removed_is_made_again(world: World) -> None:
    kept: list[int] = []

    async def scenario(agent: Daemon) -> None:
        shutil.rmtree(world.directory / "run")
        await until(agent.server.is_there)
        assert (await ask(world, "status"))["generation"] == 1
        assert agent.server.path.stat().st_mode & 0o777 == 0o600

    serve(world, scenario, drift_s=0.02, keep_lock=lambda: kept.append(1))
    assert kept, "the lock is taken again before the socket is made"


def test_an_engine_that_nobody_else_reaches_is_noted(world: World) -> None:
    async def scenario(agent: Daemon) -> None:
        engine, world.running = world.running, None  # the process lives, its socket is gone
        await until(lambda: "socket" in agent.notes)
        assert f"kill {os.getpid()}" in agent.notes["socket"]
        world.running = engine
        await until(lambda: "socket" not in agent.notes)

    serve(world, scenario, drift_s=0.02)


def test_what_nobody_foresaw_ends_one_round_and_not_the_job(world: World, monkeypatch: Any) -> None:
    """Of each job that goes on for ever: the next round is there, as is the rollback of a trial."""
    monkeypatch.setattr(daemon_module, "TRIAL_POLL_S", 0.01)
    rounds = dict.fromkeys(("keep_lock", "drift", "expire"), 0)

    def failing(name: str, then: Callable[[], Any]) -> Callable[[], Any]:
        def job() -> Any:
            rounds[name] += 1
            if rounds[name] == 1:
                raise OSError(5, "foreseen by nobody")
            return then()

        return job

    async def scenario(agent: Daemon) -> None:
        agent.node.drift = failing("drift", agent.node.drift)  # type: ignore[method-assign]
        agent.node.expire = failing("expire", agent.node.expire)  # type: ignore[method-assign]
        agent.keep_lock = failing("keep_lock", lambda: None)
        write(world.directory, to="B")
        await ask(world, "apply", confirm_within_s=10)
        world.advance(11)
        await until(lambda: rounds["drift"] > 1 and rounds["keep_lock"] > 1)
        await until(lambda: agent.node.store.state().trial is None)

    serve(world, scenario, drift_s=0.02)
    assert rounds["expire"] == 2
