"""kill -9 of each process at each step of a remap, real ones: it comes to its end, and connections live on.

A remap there or back for each case, on one lab. What is killed is started again as its service would be: an
agent by us, an engine by its agent; whoever works on the remap is followed by another, who goes on from the
journal. Connections speak all the while. Where the data path lived, none breaks; an engine that dies takes
what only it knew with it. By default a few cases; all of them with IPSHARE_KILLS=all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from ipshare.lab.agents import lab_with_agents
from ipshare.lab.internet import LabSpec
from ipshare.lab.lab import Lab
from ipshare.lab.traffic import serve
from ipshare.remap import listed
from ipshare.remap.executor import View
from ipshare.remap.machine import Progress, Step
from ipshare.remap.nodes import AgentNode
from tests.pair_lab import until
from tests.remap_agents import (
    PREFIXES,
    Talkers,
    halves,
    kill_agent,
    kill_engine,
    move,
    server_of,
    sockets,
    talkers,
)

pytestmark = pytest.mark.lab
STEPS = (
    Step.BINDING, Step.READYING, Step.PREPARING, Step.SYNCING, Step.LEAVING, Step.FENCING, Step.TAKING,
    Step.FLIPPING, Step.DRAINING, Step.CLEARING,
)  # fmt: skip
VICTIMS = (
    "giver's agent",
    "taker's agent",
    "a point's agent",
    "giver's engine",
    "taker's engine",
    "executor",
)
FEW = (
    (Step.SYNCING, "taker's engine"),
    (Step.FENCING, "giver's agent"),
    (Step.TAKING, "executor"),
)
CASES = [(step, victim) for step in STEPS for victim in VICTIMS] if os.environ.get("IPSHARE_KILLS") else FEW
CLIENTS = ("c1", "c3")  # by distribution point C and by D
BEFORE_FLIP = STEPS[: STEPS.index(Step.FLIPPING)]
ADDRESS = PREFIXES[0].split("/")[0]
DIES = """
import os, signal, sys
from pathlib import Path
from ipshare.remap import remap

def look(progress, view):
    if progress.step.value == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)

prefix, origin, to, journal, *nodes = sys.argv[2:]
remap(prefix, origin=origin, to=to, nodes=dict(node.split("=") for node in nodes), silence_s=0.0,
      journal=Path(journal), on_change=look)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_with_agents(LabSpec(channel="ipip")) as lab, serve(lab, "a1", "b1"):
        yield lab


def bound(lab: Lab, node: str) -> str:
    return str(AgentNode(sockets(lab)[node]).ask("remap_look", prefix=PREFIXES[0])["bound_to"])


def dies_at(lab: Lab, step: Step, origin: str, to: str, made: Talkers) -> None:
    """Another process does the remap, and kills itself there."""
    nodes = [f"{name}={path}" for name, path in sockets(lab).items()]
    words = [step.value, PREFIXES[0], origin, to, str(lab.directory / "remaps"), *nodes]
    process = subprocess.Popen([sys.executable, "-c", DIES, *words])

    def is_over() -> bool:
        begun = listed(lab.directory / "remaps")
        if begun and begun[-1].progress.step is Step.DRAINING and step is Step.CLEARING:
            made.hush()
        return process.poll() is not None

    until(is_over)
    assert process.returncode == -9, f"it did not come to {step.value}"


@pytest.mark.parametrize(("step", "victim"), CASES, ids=[f"{victim}-{step.value}" for step, victim in CASES])
def test_killed_at_a_step(lab: Lab, step: Step, victim: str) -> None:
    origin, to = ("A", "B") if bound(lab, "C") == "A" else ("B", "A")
    waits: list[threading.Thread] = []
    killed: list[Step] = []

    def kill() -> None:
        node = {"giver": origin, "taker": to}.get(victim.split("'")[0], "D")
        if victim.endswith("agent"):
            waits.append(kill_agent(lab, node))
        elif victim.endswith("engine"):
            kill_engine(lab, node)

    def look(progress: Progress, view: View) -> None:
        if progress.step is step and not killed:
            killed.append(step)
            kill()
        if progress.step is Step.DRAINING:
            made.hush()

    with talkers(lab, CLIENTS, (4,), tcp=4) as made:
        if victim == "executor":
            dies_at(lab, step, origin, to, made)
        done = move(lab, PREFIXES[0], origin, to, on_change=look)
    for wait in waits:
        wait.join()
    assert done.step in (Step.DONE, Step.UNDONE) and (killed or victim == "executor"), done
    at = to if done.step is Step.DONE else origin
    until(lambda: halves(lab) == [])
    assert [bound(lab, node) for node in "ABCD"] == [at] * 4
    assert {server_of(lab, client, ADDRESS) for client in CLIENTS} == {f"{at.lower()}1"}
    if not victim.endswith("engine") or (victim == "taker's engine" and step in BEFORE_FLIP):
        assert made.faults == [] and made.servers == {f"{origin.lower()}1"}
