"""Is a slot on trial fit to stay: not by an agent that comes and goes, not without /data, not without the
agent that was ready when the update came."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.appliance import health, slots
from ipshare.errors import NotRunning


class Machine:
    """A box in a directory, with a clock of its own. ``active``: whether a unit is so at a time."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.place, self.said = 1000.0, place, list[str]()
        self.env, self.memory, self.site = place / "env", place / "degraded", place / "site.toml"
        self.site.write_text("")
        monkeypatch.setattr(health, "time", self)
        monkeypatch.setattr(health, "READY", place / "appliance/agent.ready")
        monkeypatch.setattr(health, "SITE", self.site)
        monkeypatch.setattr(health.room, "IN_MEMORY", self.memory)
        monkeypatch.setattr(health.room, "degraded", lambda: "")
        for name, answer in (
            ("is_live", False),
            ("is_instead", False),
            ("running", "b"),
            ("release", {"version": "2.0"}),
        ):
            monkeypatch.setattr(slots, name, lambda answer=answer: answer)
        monkeypatch.setattr(slots, "environment", self._environment)
        monkeypatch.setattr(health, "_is_active", self.active)
        monkeypatch.setattr(health, "engines", lambda: {"c1": 4711})
        self.env.write_bytes(slots.Boot("a", "b", 1).block())

    @contextlib.contextmanager
    def _environment(self) -> Iterator[Path]:
        yield self.env

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def active(self, unit: str) -> bool:
        return True

    def judge(self) -> bool:
        return health.judge(self.said.append)

    @property
    def boot(self) -> slots.Boot:
        return slots.look(self.env)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_slot_whose_agent_stays_ready_is_kept(machine: Machine) -> None:
    health.note(machine.said.append)
    assert machine.judge() and machine.boot == slots.Boot("b")
    assert machine.said == ["slot b (2.0): healthy, kept from now on"]


def test_an_agent_that_is_started_again_and_again_is_not_healthy(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    health.note(machine.said.append)
    monkeypatch.setattr(health, "_is_active", lambda unit: unit != health.AGENT or machine.now % 4 < 2)
    assert not machine.judge() and machine.boot == slots.Boot("a", "b", 1)
    assert machine.said == [f"slot b (2.0): not healthy: {health.AGENT}"]


@pytest.mark.parametrize("every_s", [1, 7])
@pytest.mark.parametrize("has_gone", [False, True])
def test_an_agent_whose_engine_ends_again_and_again_is_not_healthy(
    every_s: int, has_gone: bool, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent is ready all the time, and starts it again, or does not answer: nothing is translated."""
    health.note(machine.said.append)

    def engines() -> dict[str, int]:
        number = int(machine.now / every_s)
        return {"c1": 4711} if has_gone and number % 2 else {} if has_gone else {"c1": number}

    monkeypatch.setattr(health, "engines", engines)
    assert not machine.judge() and machine.boot == slots.Boot("a", "b", 1)
    assert machine.said == ["slot b (2.0): not healthy: the engine of c1"]


def test_engines_are_those_that_agents_tell_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "c1": {"engine_pid": 7},
        "c2": {"engine_pid": None},
    }

    class Stored(contextlib.AbstractContextManager["Stored"]):
        def __init__(self, place: Path) -> None:
            self.name = place.name

        def __exit__(self, *_: object) -> None:
            return None

        def status(self) -> dict[str, int | None]:
            if self.name not in told:
                raise NotRunning("no agent", hint="a node of before")
            return told[self.name]

    class Nodes:
        stored = Stored

    for name in (*told, "gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").touch()
    monkeypatch.setattr(health, "Node", Nodes)
    assert health.engines(tmp_path) == {"c1": 7, "c2": 0}


def test_an_agent_that_began_after_the_last_start_was_judged_is_wanted_in_a_trial(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wizard, a site file by SSH: nothing was noted before the update came."""
    assert health.AGENT not in health.wanted()
    health.note(machine.said.append)
    monkeypatch.setattr(health, "_is_active", lambda unit: unit != health.AGENT)
    assert not machine.judge() and machine.boot == slots.Boot("a", "b", 1)


def test_a_site_file_that_is_gone_in_a_trial_is_no_excuse(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes of /etc that were not laid over it, say. Who removed it before the update has no agent."""
    health.note(machine.said.append)
    machine.site.unlink()
    monkeypatch.setattr(health, "_is_active", lambda unit: unit != health.AGENT)
    assert not machine.judge() and machine.boot == slots.Boot("a", "b", 1)
    health.note(machine.said.append)
    assert health.wanted() == ["ssh.service"]


def test_an_agent_that_is_not_ready_is_not_wanted(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_is_active", lambda unit: unit != health.AGENT)
    health.note(machine.said.append)
    assert machine.judge() and machine.boot == slots.Boot("b")


def test_an_update_that_cannot_mount_data_is_not_kept(machine: Machine) -> None:
    """It has no keys, no site file, and so no agent that it lacks."""
    machine.memory.write_text("the data partition cannot be mounted")
    machine.site.unlink()
    assert not machine.judge() and machine.boot == slots.Boot("a", "b", 1)
    assert machine.said == ["slot b (2.0): not healthy: /data"]


def test_a_box_without_data_that_tries_nothing_stays(machine: Machine) -> None:
    machine.memory.write_text("the data partition cannot be mounted")
    slots.store(machine.env, slots.Boot("b"))
    assert machine.judge() and machine.boot == slots.Boot("b")


def test_data_that_is_full_takes_an_update(machine: Machine) -> None:
    (machine.place / "appliance").write_text("in the way, as a disk that is full")
    health.note(machine.said.append)
    assert machine.judge() and machine.boot == slots.Boot("b")
    assert "an update does without" in machine.said[0]
    assert machine.judge(), "a good start, too"


def test_a_slot_that_runs_in_the_place_of_the_good_one_becomes_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots.store(machine.env, slots.Boot("a"))
    monkeypatch.setattr(slots, "is_instead", lambda: True)
    assert machine.judge() and machine.boot == slots.Boot("b")
    assert machine.said[-1] == "slot a cannot be read: b is the good one now; an update mends the other"
