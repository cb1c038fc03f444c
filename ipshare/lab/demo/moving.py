"""How the demo moves the address: by a remap of each family, beside whatever goes on.

A move is complete when every distribution point sends to the new place. A remap goes on after that: what was
open stays where it is until it ends, and the number of it is looked at all the time.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ipshare.errors import IpshareError
from ipshare.lab.internet import global_ip
from ipshare.lab.lab import Lab
from ipshare.model import host_prefix
from ipshare.remap import remap
from ipshare.remap.executor import View
from ipshare.remap.machine import Progress, Step

DEADLINE_S = 120.0


@dataclass
class Moving:
    """One move of the address of a1 (and b1), of every family. Times are monotonic seconds."""

    lab: Lab
    origin: str
    to: str
    commits: dict[str, float] = field(default_factory=dict)
    left: list[tuple[float, int]] = field(default_factory=list)  # connections at the old place
    drained: float | None = None
    _counts: dict[str, int] = field(default_factory=dict)
    _pool: ThreadPoolExecutor | None = None
    _going: list[Future[Progress]] = field(default_factory=list)

    def flip(self) -> None:
        """Returns when every distribution point sends to the new place. Raises IpshareError."""
        families = self.lab.spec.families
        self._pool = ThreadPoolExecutor(len(families))
        flipped: list[Future[None]] = [Future() for _ in families]
        for number, family in enumerate(families):
            self._going.append(self._pool.submit(self._remap, family, flipped[number]))
        for each in flipped:
            each.result()

    def finish(self) -> list[Progress]:
        """Until nothing is left at the old place. Raises IpshareError."""
        done = [going.result() for going in self._going]
        if self._pool is not None:
            self._pool.shutdown()
            self.drained = time.monotonic()
        return done

    def _remap(self, family: int, flipped: Future[None]) -> Progress:
        prefix = host_prefix(global_ip("a1", family))

        def look(progress: Progress, view: View) -> None:
            now, state = time.monotonic(), view.states.get(progress.plan.giver)
            if state is not None and state.counted_ns:
                self._counts[str(prefix)] = state.flows
                self.left.append((now, sum(self._counts.values())))
            self.commits.setdefault(f"{progress.step.value} IPv{family}", now)
            if progress.step in (Step.DRAINING, Step.DONE) and not flipped.done():
                flipped.set_result(None)

        try:
            nodes: dict[str, Any] = {name: self.lab.directory / name / "run" for name in "ABCD"}
            done = remap(
                prefix,
                origin=self.origin,
                to=self.to,
                nodes=nodes,
                deadline_s=DEADLINE_S,
                silence_s=0.0,
                patience_s=60.0,
                journal=self.lab.directory / "remaps",
                on_change=look,
            )
            if done.step is not Step.DONE:
                raise IpshareError(f"the remap of {prefix} was undone: {done.reason}")
        except BaseException as error:
            if not flipped.done():
                flipped.set_exception(error)
            raise
        return done
