"""The process that announces, and the agent's part: over deaths, restarts and refusals; BIRD is
tests.fake_bird."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent.bgp import Announcer
from ipshare.agent.reconcile import Reconciler
from ipshare.agent.server import Caller
from ipshare.bgp.control import Control
from ipshare.bgp.speaker import Speaker
from ipshare.errors import EngineError, IpshareError, NotRunning, Refused
from ipshare.model import Config
from tests.agent_world import World, site
from tests.fake_bird import journal, program

ON, OFF = '  route 203.0.113.0/24 via "ips-out";\n', "# nothing\n"
BGP = '[bgp]\nasn = 64500\nlocal = ["192.0.2.1"]\n[[bgp.neighbor]]\naddress = "192.0.2.9"\nasn = 64496\n'
ROOT = Caller(pid=1, uid=0, gid=0)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime_dir; whatever BIRD was started with it is ended."""
    monkeypatch.setenv("IPSHARE_BIRD", str(program(tmp_path)))
    folder = tmp_path / "run"
    folder.mkdir()
    yield folder
    Speaker().end(folder)
    Speaker()._kill(folder)


def pid_of(run: Path) -> int:
    return int((run / "bird.pid").read_text())


def test_a_change_is_told_and_no_change_is_not(run: Path) -> None:
    speaker = Speaker()
    assert speaker.publish(run, OFF, 0) and speaker.publish(run, ON, 0)
    assert not speaker.publish(run, ON, 0)
    assert journal(run) == ["start 0", "configure 1"]
    assert (run / "bird.conf").stat().st_mode & 0o777 == 0o600


def test_what_was_decided_before_a_hold_is_void(run: Path) -> None:
    speaker = Speaker()
    speaker.publish(run, ON, 0)
    decided_after = speaker.holds
    speaker.hold(run)
    assert not speaker.publish(run, ON, decided_after)
    assert journal(run) == ["start 1", "configure 0"] and not speaker.is_announcing(run)
    assert speaker.publish(run, ON, speaker.holds) and speaker.is_announcing(run)


def test_another_speaker_finds_it_and_can_end_it(run: Path) -> None:
    Speaker().publish(run, ON, 0)
    pid, next_one = pid_of(run), Speaker()
    assert next_one.is_announcing(run) and not next_one.publish(run, ON, 0)
    assert pid_of(run) == pid
    assert next_one.end(run)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert [path.name for path in run.iterdir()] == ["journal"]


def test_one_that_was_killed_is_replaced(run: Path) -> None:
    speaker = Speaker()
    speaker.publish(run, ON, 0)
    os.kill(pid_of(run), signal.SIGKILL)
    os.waitpid(pid_of(run), 0)
    assert not speaker.is_announcing(run)
    assert speaker.publish(run, ON, 0) and journal(run) == ["start 1", "start 1"]


def test_one_whose_socket_was_removed_does_not_live_on_beside_the_next(run: Path) -> None:
    speaker = Speaker()
    speaker.publish(run, ON, 0)
    pid = pid_of(run)
    for name in ("bird.ctl", "bird.pid"):
        (run / name).unlink()
    assert speaker.publish(run, ON, 0)
    assert pid_of(run) != pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_one_that_hangs_cannot_keep_what_is_held_announced(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(Control.__init__, "__defaults__", (0.2,))
    speaker = Speaker()
    speaker.publish(run, ON, 0)
    pid = pid_of(run)
    os.kill(pid, signal.SIGSTOP)
    speaker.hold(run)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_refused_configuration_leaves_the_one_before(run: Path) -> None:
    speaker = Speaker()
    speaker.publish(run, ON, 0)
    with pytest.raises(EngineError, match="refused 'configure': 1:1 syntax error"):
        speaker.publish(run, "BAD\n", 0)
    assert (run / "bird.conf").read_text() == ON


def test_why_it_did_not_start_is_said(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="did not start: bird: .*syntax error"):
        Speaker().publish(run, "BAD\n", 0)
    monkeypatch.setenv("IPSHARE_BIRD", str(program(tmp_path, "1.6.8")))
    with pytest.raises(NotRunning, match=r"is BIRD 1\.6\.8: announcing needs BIRD 2"):
        Speaker().publish(run, ON, 0)
    monkeypatch.delenv("IPSHARE_BIRD")
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(NotRunning) as caught:
        Speaker().publish(run, ON, 0)
    assert "bird2" in caught.value.hint


def test_bird_runs_in_the_namespace_of_its_devices(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is elsewhere, since the namespace was made anew, is started again; a missing one is said."""
    words = run.parent / "entered"
    bin_ = run.parent / "bin"
    bin_.mkdir()
    (bin_ / "nsenter").write_text(f'#!/bin/sh\necho "$1" >>{words}\nshift\nexec "$@"\n')
    (bin_ / "nsenter").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    monkeypatch.setattr("ipshare.bgp.speaker.NAMESPACES", run.parent)
    speaker, space = Speaker(), run.parent / "bird"
    space.symlink_to(f"/proc/{os.getpid()}/ns/net")  # BIRD is there, since this nsenter goes nowhere
    assert speaker.publish(run, ON, 0, "bird") and not speaker.publish(run, ON, 0, "bird")
    assert words.read_text() == f"--net={space}\n" and journal(run) == ["start 1"]
    space.unlink()
    space.touch()
    first = pid_of(run)
    assert speaker.publish(run, ON, 0, "bird") and pid_of(run) != first
    assert not Path(f"/proc/{first}").exists()
    space.unlink()
    with pytest.raises(NotRunning, match="no network namespace bird"):
        speaker.publish(run, ON, 0, "bird")


# ---- the agent's part ------------------------------------------------------------------


@dataclass
class Agent:
    """An agent's reconciler and announcer over a world that outlives it, and a clock set by hand."""

    world: World
    now: float = 1000.0
    notes: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.node: Reconciler = self.world.agent()
        self.node.start(self.config())
        self.announcer = Announcer(self.node, self._work, self._note, self._changed, lambda: self.now)

    def config(self, more: str = BGP) -> Config:
        return site(self.world.directory, more=more)

    async def _work(self, job: Callable[..., Any], *arguments: Any) -> Any:
        return job(*arguments)

    def _note(self, topic: str, text: str) -> None:
        self.notes[topic] = text

    def _changed(self, verb: str, what: str, _who: str, _result: Any) -> None:
        self.said.append(f"{verb} {what}")

    def looks(self, *at: float) -> list[str]:
        """What is decided at these times, in seconds from now."""
        found = []
        for seconds in at:
            self.world.advance(seconds)
            self.now += seconds
            asyncio.run(self.announcer.look())
            assert self.announcer.state is not None
            found.append(self.announcer.state.word)
        return found

    def drain(self, on: bool) -> str:
        return str(asyncio.run(self.announcer.verbs["drain"](ROOT, {"on": on}))["state"])


@pytest.fixture
def world(run: Path) -> World:
    return World(run.parent)


def test_it_announces_after_three_seconds_and_goes_on_without_its_agent(world: World, run: Path) -> None:
    assert Agent(world).looks(0, 2, 1) == ["rising", "rising", "announced"]
    assert journal(run) == ["start 0", "configure 1"]
    assert Agent(world).looks(0) == ["announced"]  # another agent
    assert journal(run) == ["start 0", "configure 1"]


def test_a_new_engine_is_not_announced_before_it_has_its_tables(world: World, run: Path) -> None:
    agent = Agent(world)
    agent.looks(0, 3)
    seen: list[str] = []
    launch = world.launch

    def watched(config: Config) -> Any:
        seen.extend(journal(run))
        return launch(config)

    world.launch = watched  # type: ignore[method-assign]
    world.kill_engine()
    agent.node.reconcile()
    assert seen[-1] == "configure 0", "withdrawn before the engine was started"
    assert agent.looks(0, 2.9, 0.1) == ["rising", "rising", "announced"]


def test_an_engine_that_others_started_is_held_before_it_gets_tables(world: World, run: Path) -> None:
    """As a VPP of systemd's: this agent sees neither its death nor its start, between two looks."""
    agent = Agent(world)
    agent.looks(0, 3)
    world.kill_engine()
    world.launch(agent.config())
    agent.node.reconcile()
    assert journal(run)[-1] == "configure 0"
    assert agent.looks(0, 2.9, 0.1) == ["rising", "rising", "announced"]
    another = Agent(world)  # one that has never seen an engine goes by its tables
    assert another.looks(0) == ["announced"]
    world.kill_engine()
    world.launch(agent.config())
    assert Agent(world).looks(0, 3) == ["rising", "announced"]


def test_a_node_that_was_taken_down_is_not_mended(world: World) -> None:
    """An agent looks for drift until it has ended."""
    agent = Agent(world)
    agent.node.down(agent.config())
    assert agent.node.drift() == []
    assert world.agent().drift() == ["nothing is applied yet"]


def test_a_new_generation_a_refused_and_a_failed_one_tell_bird_nothing(world: World, run: Path) -> None:
    agent = Agent(world)
    agent.looks(0, 3)
    before = journal(run)
    agent.node.apply(site(world.directory, to="B", more=BGP))
    assert agent.looks(1) == ["announced"]
    world.faults.at, world.faults.steps = 4, []
    with pytest.raises(EngineError):
        agent.node.apply(site(world.directory, to="A", more=BGP))
    assert agent.looks(1, 1) == ["announced", "announced"]
    assert journal(run) == before


def test_tables_of_somebody_else_are_borne_for_a_time(world: World) -> None:
    agent = Agent(world)
    agent.looks(0, 3)
    agent.node._left = (agent.node._left[0], 999)
    assert agent.looks(599, 2) == ["announced", "held"]
    assert "max_stale" in agent.notes["bgp"]


def test_an_engine_that_is_gone_is_held_and_said(world: World, run: Path) -> None:
    agent = Agent(world)
    agent.looks(0, 3)
    world.kill_engine()
    assert agent.looks(1) == ["held"]
    assert "nothing is announced: the engine is gone" in agent.notes["bgp"]
    assert journal(run)[-1] == "configure 0"


def test_a_drain_outlives_agents_and_boots(world: World, run: Path) -> None:
    agent = Agent(world)
    agent.looks(0, 3)
    assert agent.drain(True) == "draining"
    assert agent.said == ["drain on"] and "bgp_community.add((65535, 0));" in (run / "bird.conf").read_text()
    agent = Agent(world)
    assert agent.looks(59, 1) == ["draining", "drained"]
    assert "drain off" in agent.notes["bgp"] and journal(run)[-1] == "configure 0"
    Speaker().end(run)
    world.boot, world.now_ns = "second boot", 10**9
    assert Agent(world).looks(0, 10) == ["drained", "drained"]
    agent = Agent(world)
    agent.looks(0)
    assert agent.drain(False) == "rising"
    assert agent.looks(3) == ["announced"]


class FromDirector:
    """A caller with a director's certificate."""

    is_owner, may_assign = False, True

    def __str__(self) -> str:
        return "director d1"


def test_a_director_and_an_operator_drain_side_by_side(world: World, run: Path) -> None:
    agent = Agent(world)
    agent.looks(0, 3)

    def told(on: bool, **words: Any) -> list[str]:
        ask = agent.announcer.verbs["drain"](FromDirector(), {"on": on, **words})
        return list(asyncio.run(ask)["drained_by"])

    with pytest.raises(IpshareError, match="term is the number"):
        told(True)
    assert told(True, term=3) == ["director"]
    assert "director undrain" in agent.notes["bgp"]
    assert agent.looks(60) == ["drained"]
    agent.drain(True)
    assert told(True, term=3) == ["director", "operator"]
    assert told(False, term=3) == ["operator"], "what the operator drained stays"
    assert Agent(world).looks(0, 10) == ["drained", "drained"]
    told(True, term=3)
    assert agent.drain(False) == "rising", "who is at the machine ends all of it"
    heard = f"# assigned: term 4 revision 1 step 1 sha256 {'0' * 64}\n"
    world.agent().store.keep_text("director.heard", heard)
    with pytest.raises(Refused, match="a director of term 4 was heard, this one has 3"):
        told(True, term=3)
    assert told(True, term=4) == ["director"]
    agent.node.store.keep("drain.json", {"began_ns": 0})  # as an earlier release left it
    assert told(False, term=4) == ["operator"]


def test_without_bgp_nothing_is_left_of_it(world: World, run: Path) -> None:
    agent = Agent(world)
    agent.looks(0, 3)
    agent.node.apply(agent.config(more=""))
    asyncio.run(agent.announcer.look())
    assert not (run / "bird.ctl").exists() and asyncio.run(agent.announcer.status()) is None
    with pytest.raises(Refused, match="announces nothing"):
        agent.drain(True)


def test_a_node_that_is_taken_down_ends_its_bird(world: World, run: Path) -> None:
    agent = Agent(world)
    agent.looks(0, 3)
    agent.node.down(agent.config())
    assert not (run / "bird.ctl").exists()


def test_the_status_has_every_key_of_the_reference(world: World) -> None:
    agent = Agent(world)
    agent.looks(0, 3)
    status = asyncio.run(agent.announcer.status())
    assert status is not None
    text = (Path(__file__).parents[2] / "docs/cli.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| `bgp status` | `state`")]
    keys = {*status, *status["networks"][0], *status["neighbors"][0]}
    assert keys == {
        word for word in row.split("|")[2].replace("`", " ").split() if word.replace("_", "").isalpha()
    } - {"each"}
