"""A disk that is full, a real one of 64 KiB in a mount namespace: what is kept stays, what cannot be kept is
refused, and an agent that is started then goes on with what it had."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from ipshare.agent.confirm import State
from ipshare.agent.store import Store, Unwritable
from ipshare.appliance import room
from ipshare.errors import EngineError
from ipshare.lab import userns
from tests.agent_world import World, site

TOP = Path(__file__).parents[2]
CHILD = (
    "import sys; from pathlib import Path; from tests.unit import test_disk_full as t; {}(Path(sys.argv[1]))"
)


def on_a_small_disk(tmp_path: Path, job: str) -> None:
    (tmp_path / "disk").mkdir()
    script = f'mount -t tmpfs -o size=64k tmpfs "$1" && exec "$2" -c "{CHILD.format("t." + job)}" "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path / "disk"), sys.executable],
        capture_output=True,
        text=True,
        cwd=TOP,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass


def start_when_full(disk: Path) -> None:
    world = World(disk)
    world.agent().start(site(disk))
    before = Store(disk / "state").state()
    fill(disk)
    again = World(disk)
    _, note = again.agent().start(site(disk))
    assert note == "", "the same again needs no room"
    other = World(disk)
    agent = other.agent()
    _, note = agent.start(site(disk, weight=2))
    assert note.startswith("cannot write ") and note.endswith(": starting with what was applied last")
    assert agent.config == site(disk) and other.running is not None
    assert Store(disk / "state").state() == before
    (disk / "filler").unlink()
    _, note = World(disk).agent().start(site(disk, weight=2))
    assert note == "" and Store(disk / "state").current() == site(disk, weight=2)


def start_when_nothing_was_ever_kept(disk: Path) -> None:
    """The first start: from the file, until there is room; a change that fails goes back to it."""
    (disk / "state").mkdir()
    fill(disk)
    world = World(disk)
    agent = world.agent()
    _, note = agent.start(site(disk))
    assert note.startswith("cannot ") and note.endswith(": starting with the file, of which nothing is kept")
    assert agent.config == site(disk) and world.running is not None and agent.drift() == []
    assert Store(disk / "state").state() == State(), "nothing is kept"
    (disk / "filler").unlink()
    for at in itertools.count():
        world.faults.steps.clear()
        world.faults.at = at
        try:
            agent.apply(site(disk, weight=2))
        except EngineError:
            assert agent.config == site(disk) and agent.drift() == [], "on the one before, kept nowhere"
            assert Store(disk / "state").state().current == 0
        else:
            break
    assert at > 3, "the steps of a pass, each made to fail"
    assert Store(disk / "state").current() == site(disk, weight=2)


def keep_when_full(disk: Path) -> None:
    store = Store(disk / "state")
    store.put(State(last=1))
    store.keep("released.json", {"shop": 7})
    fill(disk)
    for write in (
        lambda: store.put(State(last=2)),
        lambda: store.keep("released.json", {"shop": 8}),
        lambda: store.keep("new.json", 1),
    ):
        try:
            write()
        except Unwritable as error:
            assert error.hint == "is the disk full?"
        else:
            raise AssertionError("it was said to be kept")
    assert store.state() == State(last=1) and store.kept("released.json") == {"shop": 7}
    assert store.kept("new.json") is None
    assert not list((disk / "state").glob(".*")), "nothing half written is left"
    assert room.degraded(disk, disk / "no").startswith("/data is full: ")


def test_an_agent_starts_with_what_it_had(tmp_path: Path) -> None:
    on_a_small_disk(tmp_path, "start_when_full")


def test_an_agent_that_never_kept_anything_starts_with_its_file(tmp_path: Path) -> None:
    on_a_small_disk(tmp_path, "start_when_nothing_was_ever_kept")


def test_what_is_kept_stays_and_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    on_a_small_disk(tmp_path, "keep_when_full")


def test_room_is_no_trouble_and_memory_in_place_of_the_disk_is(tmp_path: Path) -> None:
    no = tmp_path / "no"
    assert room.free(tmp_path) > room.LEAST and room.degraded(tmp_path, no, no) == ""
    assert room.degraded(tmp_path, no, tmp_path).startswith("/data was full when this start began")
    (tmp_path / "why").write_text("the data partition is damaged: x\n")
    assert room.degraded(tmp_path, tmp_path / "why") == "the data partition is damaged: x"
    assert room.free(tmp_path / "not there") == 0
