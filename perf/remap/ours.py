"""ours: the standard lab with agents and engines; an address is remapped in both families at once.

On VPP each of the four nodes has one, without worker threads and with its interfaces in interrupt mode
(ipshare/lab/vpp_site.py): they share this machine's processors, and one that polled would have one alone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ipshare.errors import NotRunning
from ipshare.lab import sites
from ipshare.lab.agents import require_vpp, start_agent
from ipshare.lab.internet import Engine, LabSpec, global_ip, kernel_address, uplink_address
from ipshare.lab.lab import Lab
from ipshare.remap import remap
from ipshare.remap.executor import View
from ipshare.remap.machine import Progress, Step
from ipshare.remap.nodes import AgentNode
from perf.load.program import prefer

from . import relay

PREFIXES = {family: f"{global_ip('a1', family)}/{32 if family == 4 else 128}" for family in (4, 6)}
NICE = -15  # before the load: on a full machine, what is dropped would be the machine's doing
HERE = str(uplink_address(LabSpec(), "B", 4) - 1)  # r1's, next to B: the relay is there


class RelayedLab(Lab):
    """Whose end points send what they tell each other by way of the relay."""

    def write_site(self, node: str, *, target: str) -> Path:
        path = super().write_site(node, target=target)
        other, port = {"A": ("B", relay.FIRST), "B": ("A", relay.SECOND)}.get(node, ("", 0))
        if other:
            wanted = f'"{kernel_address(self.spec, other, 4)}:{sites.PORT}"'
            text = path.read_text()
            assert wanted in text, f"{node}'s file has no path to {other}"
            path.write_text(text.replace(wanted, f'"{HERE}:{port}"'))
        return path


class LateNode(AgentNode):
    """A distribution point that flips so many seconds after it was asked first."""

    def __init__(self, socket: Path, late_s: float) -> None:
        super().__init__(socket)
        self.late_s, self._asked_s = late_s, 0.0

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        if verb == "remap_bind":
            self._asked_s = self._asked_s or time.monotonic()
            if time.monotonic() - self._asked_s < self.late_s:
                raise NotRunning("not yet")
        return super().ask(verb, **arguments)


class Move:
    """A remap of both families under way. ``flipped``: all distribution points have."""

    def __init__(self, lab: Lab, origin: str, to: str, late_s: float) -> None:
        self.lab, self.origin, self.to, self.late_s = lab, origin, to, late_s
        self.flipped = threading.Event()
        self.times: dict[int, dict[Step, int]] = {4: {}, 6: {}}
        self._opened: dict[int, list[int]] = {4: [], 6: []}
        self._pool = ThreadPoolExecutor(2)
        self._going: list[Future[Progress]] = [self._pool.submit(self._go, family) for family in PREFIXES]

    def _go(self, family: int) -> Progress:
        nodes = {name: AgentNode(self.lab.directory / name / "run") for name in "ABC"}
        nodes["D"] = LateNode(self.lab.directory / "D" / "run", self.late_s)

        def look(progress: Progress, view: View) -> None:
            self.times[family].setdefault(progress.step, time.monotonic_ns())
            state = view.states.get(self.origin)
            if state is not None and state.fence_ns:
                self._opened[family].append(state.counters["opened"])
            if all(Step.DRAINING in times for times in self.times.values()):
                self.flipped.set()

        try:
            return remap(
                PREFIXES[family], origin=self.origin, to=self.to, nodes=nodes, silence_s=0.0,
                patience_s=60.0, journal=self.lab.directory / "remaps", on_change=look,
            )  # fmt: skip
        finally:
            self.flipped.set()  # whatever came of it

    def result(self) -> dict[str, Any]:
        """When nothing is left: ms of its steps, ``frozen_ns`` by family, what the giver opened then."""
        done = [each.result() for each in self._going]
        self._pool.shutdown()
        for progress in done:
            assert progress.step is Step.DONE and progress.cut is None, progress
        times = self.times.values()
        return {
            "fence_ms": max(_ms(t, Step.LEAVING, Step.TAKING) for t in times),
            "until_flipping_ms": max(_ms(t, Step.BINDING, Step.FLIPPING) for t in times),
            "draining_ms": max(_ms(t, Step.DRAINING, Step.DONE) for t in times),
            "frozen_ns": [self.times[family][Step.FENCING] for family in (4, 6)],
            "opened_after": sum(seen[-1] - seen[0] for seen in self._opened.values()),
        }


def _ms(times: dict[Step, int], begin: Step, end: Step) -> float:
    return (times[end] - times[begin]) / 1e6


def _pids(word: str) -> Iterator[int]:
    """Processes, but this one, whose command lines have it: agents and engines name their directory."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                yield int(path.parent.name)


class Ours:
    """``delay_ms``: of what the end points tell each other, each way; ``late_s``: of distribution point D."""

    def __init__(self, engine: Engine, delay_ms: int, late_s: float) -> None:
        self.name = f"ipshare{' on VPP' if engine == 'vpp' else ''}, mirror {delay_ms} ms late"
        self.spec = LabSpec(channel="ipip", engine=engine)
        self.delay_ms, self.late_s = delay_ms, late_s

    @contextlib.contextmanager
    def up(self) -> Iterator[Lab]:
        if self.spec.engine == "vpp":
            require_vpp()
        with RelayedLab(self.spec, start=start_agent) as lab:
            ends = [(str(kernel_address(self.spec, node, 4)), sites.PORT) for node in "AB"]
            for pid in _pids(str(lab.directory)):
                prefer(pid, NICE)
            process = relay.begin(lab, "r1", HERE, ends[0], ends[1], self.delay_ms)
            try:
                yield lab
            finally:
                print(f"{self.name}: the relay: {relay.end(process)}", file=sys.stderr)

    def move(self, lab: Lab, origin: str, to: str) -> Move:
        return Move(lab, origin, to, self.late_s)
