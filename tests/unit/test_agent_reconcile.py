"""The agent's state machine over an engine that is the C core: apply, interruption at every step, trial,
rollback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ipshare.agent.reconcile import NotReady
from ipshare.engine.desired import desired
from ipshare.engine.packet_words import packet
from ipshare.engine.plan import diff
from ipshare.errors import EngineError, IpshareError, NotRunning, Problem, Refused
from tests.agent_world import Faults, Killed, World, site

PACKET = packet("udp 198.51.100.1:1 > 203.0.113.5:2")
TO_A, TO_B = "10.1.0.5", "10.2.0.5"
EXTRA_NETWORK = '[[network]]\nname = "more"\nprefix = "192.0.2.0/28"\n'


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_start_brings_everything_up(world: World) -> None:
    done, note = world.agent().start(site(world.directory))
    assert (done.generation, done.engine_started, note) == (1, True, "")
    assert world.target(PACKET) == TO_A
    assert world.installed == ("route 203.0.113.0/24",)


def test_a_second_pass_does_nothing(world: World) -> None:
    agent = world.agent()
    agent.start(site(world.directory))
    assert agent.reconcile().is_empty
    assert agent.apply(site(world.directory)).is_empty
    assert agent.drift() == []


def test_a_new_agent_takes_over_the_running_engine(world: World) -> None:
    world.agent().start(site(world.directory))
    engine = world.running
    done, _ = world.agent().start(site(world.directory))
    assert done.is_empty
    assert world.running is engine
    assert world.launches == 1


def test_an_engine_that_was_killed_comes_back_with_everything(world: World) -> None:
    agent = world.agent()
    agent.start(site(world.directory, to="B"))
    world.kill_engine()
    assert agent.drift() == ["the engine is gone"]
    done = agent.reconcile()
    assert done.engine_started
    assert world.target(PACKET) == TO_B
    assert agent.drift() == []


def test_an_engine_comes_back_whatever_somebody_did_to_the_machine_meanwhile(world: World) -> None:
    agent = world.agent()
    agent.start(site(world.directory))
    world.against = [Problem("m", 0, 0, "", "a firewall drops", "open it")]
    world.kill_engine()
    assert agent.reconcile().engine_started
    assert world.agent().start(site(world.directory))[0].is_empty, "nor is an agent kept from taking over"
    with pytest.raises(NotReady):
        agent.apply(site(world.directory, to="B"))
    assert world.target(PACKET) == TO_A


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "failed"])
def test_interrupted_anywhere_the_next_run_arrives(tmp_path: Path, kill: bool) -> None:
    """Every step of an apply that moves the address and adds a network, cut off; then a new agent does it
    again."""
    for cut in range(100):
        directory = tmp_path / f"{kill}{cut}"
        directory.mkdir()
        world = World(directory)
        world.agent().start(site(directory))
        wanted = site(directory, to="B", more=EXTRA_NETWORK)
        world.faults = world.running.faults = Faults(at=cut, kill=kill)  # type: ignore[union-attr]
        try:
            world.agent().apply(wanted)
        except (Killed, EngineError):
            world.faults.at = -1
        else:
            break
        if not kill:  # an error is reported, and the node is where it was
            assert world.target(PACKET) == TO_A
            assert world.installed == ("route 203.0.113.0/24",)
        agent = world.agent()
        agent.start(wanted)
        assert world.target(PACKET) == TO_B
        assert set(world.installed) == {"route 203.0.113.0/24", "route 192.0.2.0/28"}
        assert not diff(world.running.read(), desired(wanted))  # type: ignore[union-attr]
        assert agent.drift() == []
    assert cut >= 5, "the apply has at least five steps that can be cut off"


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "failed"])
def test_a_first_start_interrupted_anywhere(tmp_path: Path, kill: bool) -> None:
    for cut in range(100):
        directory = tmp_path / f"{kill}{cut}"
        directory.mkdir()
        world = World(directory, faults=Faults(at=cut, kill=kill))
        try:
            world.agent().start(site(directory))
        except (Killed, EngineError):
            world.faults.at = -1
        else:
            break
        if not kill and cut > 1:
            assert world.running is None, "what was started for nothing was ended"
        world.agent().start(site(directory))
        assert world.target(PACKET) == TO_A
    assert cut >= 6


def test_a_quick_apply_asks_the_kernel_only_about_what_is_new_to_it(world: World) -> None:
    agent = world.agent()
    agent.start(site(world.directory))
    world.against, world.installed = [Problem("m", 0, 0, "", "a firewall drops", "open it")], ()
    assert agent.apply(site(world.directory, to="B"), quick=True).generation == 2
    assert (world.target(PACKET), world.installed) == (TO_B, ())
    assert agent.drift() == ["route 203.0.113.0/24"]
    for more, quick in ((EXTRA_NETWORK, True), ("", False)):
        with pytest.raises(NotReady):
            agent.apply(site(world.directory, more=more), quick=quick)
    world.kill_engine()  # one that has no routes yet
    world.against = []
    assert agent.apply(site(world.directory, to="A"), quick=True).engine_started
    assert world.installed == ("route 203.0.113.0/24",)
    world.kill_engine()  # somebody else has started another one
    world.agent().start(site(world.directory, to="A"))
    world.installed = ()
    agent.apply(site(world.directory, to="B"), quick=True)
    assert world.installed == ("route 203.0.113.0/24",)


def test_what_this_machine_has_against_it_is_said_at_once_and_nothing_changes(world: World) -> None:
    world.against = [Problem("m", 0, 0, "", "rp_filter", "sysctl"), Problem("m", 0, 0, "", "tun", "modprobe")]
    with pytest.raises(NotReady) as caught:
        world.agent().start(site(world.directory))
    assert [p.message for p in caught.value.problems] == ["rp_filter", "tun"]
    assert (world.running, world.installed, world.launches) == (None, (), 0)


def test_the_core_refuses_and_the_old_tables_stay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = world.agent()
    agent.start(site(world.directory))
    monkeypatch.setattr("ipshare.engine.memory.Worker.load", _refuse)
    with pytest.raises(EngineError):
        agent.apply(site(world.directory, to="B"))
    assert world.target(PACKET) == TO_A
    assert agent.store.state().current == 1


def _refuse(*_: object) -> int:
    raise EngineError("no memory")


def test_rollback_and_back(world: World) -> None:
    agent = world.agent()
    agent.start(site(world.directory))
    with pytest.raises(Refused, match="no previous"):
        agent.rollback()
    agent.apply(site(world.directory, to="B"))
    agent.rollback()
    assert world.target(PACKET) == TO_A
    agent.rollback()
    assert world.target(PACKET) == TO_B


def test_a_rollback_takes_routes_along(world: World) -> None:
    agent = world.agent()
    agent.start(site(world.directory))
    agent.apply(site(world.directory, more=EXTRA_NETWORK))
    assert len(world.installed) == 2
    agent.rollback()
    assert world.installed == ("route 203.0.113.0/24",)


def test_a_rollback_that_fails_changes_nothing(world: World) -> None:
    agent = world.agent()
    agent.start(site(world.directory))
    agent.apply(site(world.directory, to="B"))
    for cut in range(100):
        assert world.running is not None
        world.faults = world.running.faults = Faults(at=cut)
        try:
            agent.rollback()
        except EngineError:
            assert world.target(PACKET) == TO_B
            assert agent.store.state().current == 2
        else:
            break
    assert cut >= 5
    assert world.target(PACKET) == TO_A


def test_what_was_rolled_back_is_not_taken_from_the_file_again(world: World) -> None:
    agent = world.agent()
    agent.start(site(world.directory))
    agent.apply(site(world.directory, to="B"))
    agent.rollback()
    _, note = world.agent().start(site(world.directory, to="B"))
    assert world.target(PACKET) == TO_A
    assert "rolled back" in note
    world.agent().apply(site(world.directory, to="B"))
    assert world.target(PACKET) == TO_B


class TestTrial:
    def begin(self, world: World, seconds: float = 300) -> None:
        agent = world.agent()
        agent.start(site(world.directory))
        agent.apply(site(world.directory, to="B"), seconds)

    def test_unconfirmed_goes_back(self, world: World) -> None:
        self.begin(world)
        agent = world.agent()
        agent.start(site(world.directory, to="B"))
        world.advance(299)
        assert agent.expire() is None
        assert world.target(PACKET) == TO_B
        world.advance(1)
        assert agent.expire() is not None
        assert world.target(PACKET) == TO_A
        assert agent.expire() is None

    def test_confirmed_stays(self, world: World) -> None:
        self.begin(world)
        agent = world.agent()
        agent.confirm()
        world.advance(10**6)
        assert agent.expire() is None
        assert world.target(PACKET) == TO_B
        with pytest.raises(Refused, match="nothing waits"):
            agent.confirm()

    def test_it_runs_on_while_no_agent_does(self, world: World) -> None:
        self.begin(world)
        world.advance(301)
        world.agent().start(site(world.directory, to="B"))
        assert world.target(PACKET) == TO_A

    def test_a_restart_within_it_changes_nothing(self, world: World) -> None:
        self.begin(world)
        world.advance(100)
        _, note = world.agent().start(site(world.directory))
        assert world.target(PACKET) == TO_B
        assert "confirmation" in note

    def test_another_boot_ends_it(self, world: World) -> None:
        """CLOCK_BOOTTIME begins anew: the deadline of the last boot would never come."""
        self.begin(world)
        world.boot, world.now_ns = "second boot", 0
        world.kill_engine()
        world.agent().start(site(world.directory, to="B"))
        assert world.target(PACKET) == TO_A

    def test_only_one_at_a_time(self, world: World) -> None:
        self.begin(world)
        with pytest.raises(Refused, match="waiting for its confirmation"):
            world.agent().apply(site(world.directory, weight=5))
        with pytest.raises(Refused, match="waiting for its confirmation"):
            world.agent().apply(site(world.directory, to="B"))
        assert world.target(PACKET) == TO_B

    def test_what_the_node_is_on_cannot_be_tried(self, world: World) -> None:
        agent = world.agent()
        agent.start(site(world.directory))
        with pytest.raises(Refused, match="nothing to try"):
            agent.apply(site(world.directory), 60)

    def test_rolled_back_by_hand(self, world: World) -> None:
        self.begin(world)
        agent = world.agent()
        agent.rollback()
        assert world.target(PACKET) == TO_A
        assert agent.store.state().trial is None

    def test_the_first_configuration_cannot_be_one(self, world: World) -> None:
        with pytest.raises(Refused, match="nothing to go back to"):
            world.agent().apply(site(world.directory), 300)
        assert world.running is None

    def test_killed_while_it_begins(self, tmp_path: Path) -> None:
        """Wherever the agent dies, the deadline holds: after it the node is on the old configuration."""
        for cut in range(100):
            directory = tmp_path / str(cut)
            directory.mkdir()
            world = World(directory)
            world.agent().start(site(directory))
            world.faults = world.running.faults = Faults(at=cut, kill=True)  # type: ignore[union-attr]
            try:
                world.agent().apply(site(directory, to="B"), 60)
            except Killed:
                world.faults.at = -1
            else:
                break
            world.advance(61)
            world.agent().start(site(directory, to="B"))
            assert world.target(PACKET) == TO_A
        assert cut >= 4


def test_an_engine_of_another_shape_needs_a_new_process(world: World) -> None:
    agent = world.agent()
    agent.start(site(world.directory))
    with pytest.raises(Refused, match="new engine"):
        agent.apply(site(world.directory, more="[engine]\nworkers = 7\n"))
    with pytest.raises(Refused, match="new engine"):
        world.agent().start(site(world.directory, more="[engine]\nworkers = 7\n"))
    assert agent.drift() == []


def test_down_leaves_nothing_and_the_next_start_is_a_new_one(world: World) -> None:
    agent = world.agent()
    config = site(world.directory)
    agent.start(config)
    down = agent.down(config)
    assert down.engine_stopped and down.routes == ("undone: route 203.0.113.0/24",)
    assert (world.running, world.installed) == (None, ())
    again = agent.down(config)
    assert not again.engine_stopped and again.routes == ()
    with pytest.raises(NotRunning):
        agent.reconcile()
    world.agent().start(config)
    assert world.target(PACKET) == TO_A


def test_down_where_the_engine_cannot_be_ended_undoes_nothing(world: World, monkeypatch: Any) -> None:
    config = site(world.directory)
    world.agent().start(config)

    def elsewhere(_config: Any) -> Any:
        raise Refused("the engine runs in another network namespace")

    monkeypatch.setattr(world, "attach", elsewhere)
    with pytest.raises(Refused, match="another network namespace"):
        world.agent().down(config)
    assert world.installed == ("route 203.0.113.0/24",)


def test_down_ends_a_trial(world: World) -> None:
    TestTrial().begin(world)
    agent = world.agent()
    agent.down(site(world.directory))
    world.agent().start(site(world.directory))
    assert world.target(PACKET) == TO_A
    assert world.agent().store.state().trial is None


def test_routes_that_somebody_removed_are_drift(world: World) -> None:
    agent = world.agent()
    agent.start(site(world.directory))
    world.installed = ()
    assert agent.drift() == ["route 203.0.113.0/24"]
    agent.reconcile()
    assert agent.drift() == []


def test_tables_that_somebody_changed_are_drift(world: World) -> None:
    agent = world.agent()
    agent.start(site(world.directory))
    assert world.running is not None
    world.running.apply(diff(world.running.read(), desired(site(world.directory, to="B"))))
    assert "not ours" in agent.drift()[0]
    agent.reconcile()
    assert world.target(PACKET) == TO_A
    assert agent.drift() == []


def test_measured_paths_are_told_and_taken_back(world: World) -> None:
    agent = world.agent()
    agent.start(site(world.directory))
    assert agent.learn({("B", 4): 1400}, 60) == 1
    assert world.paths == {1: 1400}
    agent.learn({}, 60)
    assert world.paths == {1: 0}, "as configured again"


def test_without_an_engine_there_is_no_plan(world: World) -> None:
    with pytest.raises(NotRunning) as caught:
        world.agent().plan(site(world.directory))
    assert isinstance(caught.value, IpshareError) and caught.value.hint
