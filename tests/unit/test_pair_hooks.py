"""The script at a change of state, with real scripts (S2.2; LESSONS 25: side by side, out of order,
unbounded)."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.pair.hooks import Change, Hooks, Run, merge

STATES = ("initial", "active", "standby", "inop")


def change(old: str, new: str, epoch: int = 1) -> Change:
    return Change(old, new, "ORDERED", epoch)


class Scripted:
    """A script that writes its environment into ``log``, and waits for a line in ``gate`` where it has
    one."""

    def __init__(self, directory: Path, body: str, timeout_s: float = 60.0) -> None:
        self.log, self.script = directory / "log", directory / "hook"
        self.script.write_text(f"#!/bin/sh\n{body}\n")
        self.script.chmod(0o755)
        self.runs: queue.Queue[Run] = queue.Queue()
        self.hooks = Hooks([str(self.script), str(self.log)], node=7, timeout_s=timeout_s, done=self.runs.put)

    def lines(self) -> list[str]:
        return self.log.read_text().split("\n")[:-1]


NOTE = 'echo "$IPSHARE_OLD_STATE $IPSHARE_NEW_STATE $IPSHARE_COALESCED $IPSHARE_SEQUENCE" >>"$1"'


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "gate"
    os.mkfifo(path)
    yield path


def test_the_script_is_told_old_and_new_state_and_the_rest(tmp_path: Path) -> None:
    scripted = Scripted(tmp_path, 'env | grep ^IPSHARE_ | sort >"$1"')
    scripted.hooks.changed(Change("initial", "standby", "PEER_HEARD", 12))
    run = scripted.runs.get(timeout=60)
    scripted.hooks.close()
    assert run.status == 0 and not run.timed_out
    assert scripted.lines() == [
        "IPSHARE_COALESCED=0",
        "IPSHARE_EPOCH=12",
        "IPSHARE_NEW_STATE=standby",
        "IPSHARE_NODE=7",
        "IPSHARE_OLD_STATE=initial",
        "IPSHARE_REASON=PEER_HEARD",
        "IPSHARE_SEQUENCE=1",
    ]


def test_one_at_a_time_in_order_and_coalesced(tmp_path: Path, gate: Path) -> None:
    """While the first run lasts, four changes come: one run tells them all."""
    scripted = Scripted(tmp_path, f'read line <"{gate}"; {NOTE}')
    scripted.hooks.changed(change("initial", "standby"))
    writer = gate.open("w")  # opens only when the script reads: it runs now
    for old, new in (("standby", "active"), ("active", "standby"), ("standby", "inop"), ("inop", "standby")):
        scripted.hooks.changed(change(old, new))
    scripted.hooks.changed(change("standby", "active", 9))
    assert scripted.runs.empty(), "`changed` waits for nobody"
    with writer:
        writer.write("go\n")
    assert scripted.runs.get(timeout=60).coalesced == 0
    with gate.open("w") as writer:
        writer.write("go\n")
    last = scripted.runs.get(timeout=60)
    scripted.hooks.close()
    assert (last.coalesced, last.change.epoch) == (4, 9)
    assert scripted.lines() == ["initial standby 0 1", "standby active 4 2"]
    assert scripted.runs.empty()


def test_a_change_and_back_again_during_a_run_needs_no_further_run(tmp_path: Path, gate: Path) -> None:
    scripted = Scripted(tmp_path, f'read line <"{gate}"; {NOTE}')
    scripted.hooks.changed(change("initial", "standby"))
    with gate.open("w") as writer:
        scripted.hooks.changed(change("standby", "active"))
        scripted.hooks.changed(change("active", "standby"))
        writer.write("go\n")
    scripted.runs.get(timeout=60)
    scripted.hooks.close()
    assert scripted.lines() == ["initial standby 0 1"]


def test_a_script_that_hangs_is_killed_with_its_children(tmp_path: Path, gate: Path) -> None:
    """The child holds the gate's reading end: its end of file shows that it is gone."""
    scripted = Scripted(tmp_path, f'trap "" TERM; cat "{gate}" & wait; wait', timeout_s=0.5)
    scripted.hooks.changed(change("initial", "standby"))
    writer = os.open(gate, os.O_WRONLY)
    run = scripted.runs.get(timeout=60)
    assert run.timed_out and run.status == -9
    with pytest.raises(BrokenPipeError):
        while True:  # until the kernel has ended the child
            os.write(writer, b"x")
    os.close(writer)
    scripted.hooks.changed(change("standby", "active"))
    assert scripted.runs.get(timeout=60).change.new == "active", "the next one runs all the same"
    scripted.hooks.close()


def test_a_script_that_fails_or_is_missing_is_reported_and_stops_nothing(tmp_path: Path) -> None:
    scripted = Scripted(tmp_path, "exit 3")
    scripted.hooks.changed(change("initial", "standby"))
    assert scripted.runs.get(timeout=60).status == 3
    scripted.script.unlink()
    scripted.hooks.changed(change("standby", "active"))
    run = scripted.runs.get(timeout=60)
    assert run.status is None and "hook" in run.error
    scripted.hooks.close()


def test_close_tells_the_latest_change(tmp_path: Path) -> None:
    scripted = Scripted(tmp_path, NOTE)
    scripted.hooks.changed(change("initial", "standby"))
    scripted.hooks.close()
    assert scripted.lines() == ["initial standby 0 1"]


@given(st.lists(st.sampled_from(STATES), max_size=12), st.lists(st.booleans(), max_size=12))
def test_whatever_is_coalesced_the_script_ends_with_the_present_state(
    news: list[str], cuts: list[bool]
) -> None:
    told, state, waiting, chain = "initial", "initial", list[Change](), list[Change]()
    for number, new in enumerate(news):
        if new != state:
            waiting.append(change(state, new))
            state = new
        if number < len(cuts) and cuts[number] or number == len(news) - 1:
            one, left_out = merge(told, waiting)
            assert left_out + (one is not None) == len(waiting)
            waiting.clear()
            if one:
                assert one.old == told != one.new
                told = one.new
                chain.append(one)
    assert told == state
    assert all(a.new == b.old for a, b in zip(chain, chain[1:], strict=False))
