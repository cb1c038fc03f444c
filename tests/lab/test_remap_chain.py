"""A -> B -> C on three real engines, by the executor: C has a channel to each earlier owner, nobody relays.

The nodes are engines without agents: ``EngineNode`` answers what an agent would be asked. Both drain at once.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from ipshare.engine.remap_text import state_json
from ipshare.engine.remapping import ChannelKind, RemapRole
from ipshare.remap.executor import Executor, View
from ipshare.remap.journal import Journal
from ipshare.remap.machine import Part, Plan, Progress, Step
from tests.engine_lab import GLOBAL4
from tests.pair_lab import until
from tests.remap_lab import Remaps, Talk, half, remap_lab

PREFIX = ip_network(f"{GLOBAL4}/32")
TO_B = Plan(20, PREFIX, "A", "B", "a", "b", ("dist",), "a-b")
TO_C = Plan(22, PREFIX, "B", "C", "b", "c", ("dist",), "b-c", earlier=(Part(21, PREFIX, "A", "a", "a-c"),))


class Three(Remaps):
    places = "abc"


class EngineNode:
    """One node: its engine has every address bound to itself, the distribution point to one of them."""

    def __init__(self, lab: Remaps, name: str) -> None:
        self.lab, self.name = lab, name

    def ask(self, verb: str, **words: Any) -> dict[str, Any]:
        if verb == "remap_bind":
            if self.name == "dist":
                self.lab.flip(words["to"].lower())
            return {}
        engine = self.lab.engines[self.name]
        if verb == "remap_clear":
            state = engine.clear_remap(words["id"])
            return {"state": state_json(state) if state is not None else None}
        if verb == "remap_set":
            giver, taker = words["channel"].split("-")
            both = half(words["id"], GLOBAL4, ChannelKind.IPIP, 4, giver=giver, taker=taker)
            engine.set_remap(replace(both[self.name], role=RemapRole(words["role"])))
        state = engine.remap_state(words["id"])
        return {"state": state_json(state) if state is not None else None}


class Over(Exception):
    """The test is: nobody closes what is drained any more."""


class Going:
    """A remap in a thread of its own, until ``over``. ``drains``: every distribution point has flipped.
    ``spoken``: who speaks once it is tracked (a flow of UDP that does not is unknown to all)."""

    def __init__(
        self, lab: Remaps, pool: ThreadPoolExecutor, plan: Plan, journal: Path, over: threading.Event,
        spoken: list[Talk],
    ) -> None:  # fmt: skip
        self.spoken = spoken
        self.lab, self.plan, self.journal, self.over = lab, plan, journal, over
        self.drains, self.steps = threading.Event(), list[Step]()
        self.done = pool.submit(self._run)

    def _pause(self, seconds: float) -> None:
        if self.over.wait(seconds):
            raise Over

    def _run(self) -> Progress:
        nodes = {name: EngineNode(self.lab, name) for name in (*self.lab.places, "dist")}
        with Journal(self.journal).writing(self.plan.id) as writer:
            executor = Executor(nodes, writer, on_change=self._look, pause=self._pause)
            return executor.run(executor.begun(self.plan))

    def _look(self, progress: Progress, view: View) -> None:
        if progress.step not in self.steps:
            self.steps.append(progress.step)
            for talk in self.spoken if progress.step is Step.SYNCING else ():
                self.lab.speak(talk)
        if progress.step is Step.DRAINING or progress.step.is_over:
            self.drains.set()

    def wait(self) -> None:
        assert self.drains.wait(60) and self.steps[-1] is Step.DRAINING, self.steps


def opened(lab: Remaps, where: str) -> list[Talk]:
    made = [lab.open(GLOBAL4, tcp=tcp) for tcp in (True, True, False)]
    assert {lab.speak(talk) for talk in made} == {where}
    return made


@contextlib.contextmanager
def ending(over: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        over.set()


@pytest.mark.lab
def test_on_to_a_third_end_point_while_the_first_one_drains(tmp_path: Path) -> None:
    over = threading.Event()
    with remap_lab(tmp_path, Three) as lab, ThreadPoolExecutor(2) as pool, ending(over):
        owners = {"a": opened(lab, "a")}
        first = Going(lab, pool, TO_B, tmp_path / "journal", over, owners["a"])
        first.wait()
        owners["b"] = opened(lab, "b")
        second = Going(lab, pool, TO_C, tmp_path / "journal", over, [])
        second.wait()
        owners["c"] = opened(lab, "c")
        relayed = lab.state("b", 20).counters["followed"]
        for _ in range(3):
            assert {at: {lab.speak(talk) for talk in each} for at, each in owners.items()} == {
                at: {at} for at in "abc"
            }
        until(lambda: all(lab.state("c", one).counters["followed"] for one in (21, 22)))
        assert lab.state("b", 20).counters["followed"] == relayed, "nobody relays"
        for late in "ab":  # a distribution point that comes late to it
            lab.flip(late)
            for at, each in owners.items():
                assert {lab.speak(talk) for talk in each} == {at}, late
            owners["c"] += opened(lab, "c")
        lab.flip("c")
        for at in "ba":  # in that order: both have to be waited for
            lab.close(owners[at])
            lab.end_udp(at)
        assert [each.done.result(60).step for each in (first, second)] == [Step.DONE, Step.DONE]
        assert [lab.engines[node].remaps() for node in "abc"] == [(), (), ()]
        assert {lab.speak(talk) for talk in owners["c"]} == {"c"}
        lab.close(owners["c"])
