"""run(world, assumptions, rng) -> Tally: what failures cost, event by event on a virtual clock.

A site fails -> each distribution point misses `fall` probes, at a time of its own -> when most have, and the
director heard of it, placement plans -> leases of the dead site end, workloads start at their targets ->
the bindings are rolled out to every point -> the last acknowledgement ends the outage. What finds no place
waits for a repair. A link between one point and one site fails: clients of that point do not reach the site
until it is mended; nothing is moved for it (decision 0067).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from ipshare.placement.plan import evacuate
from ipshare.simulation.world import Assumptions, World


@dataclass(slots=True)
class Tally:
    """Counts, and samples with the number of bindings that each stands for."""

    site_failures: int = 0
    link_failures: int = 0
    plans: int = 0
    moves: int = 0
    stuck: int = 0
    """Times that a unit found no place."""
    inexact: int = 0
    bindings_moved: int = 0
    connections_broken: int = 0
    """Open to a site that died: they ended with it."""
    samples: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    down_binding_s: float = 0.0

    def note(self, kind: str, seconds: float, bindings: int) -> None:
        self.samples.setdefault(kind, []).append((seconds, bindings))


def run(world: World, assumed: Assumptions, rng: np.random.Generator) -> Tally:
    return _Run(world, assumed, rng).run()


class _Run:
    def __init__(self, world: World, assumed: Assumptions, rng: np.random.Generator) -> None:
        self.world, self.assumed, self.rng = world, assumed, rng
        self.tally = Tally()
        self.now = 0.0
        self.layout = world.layout
        self.workloads = list(world.layout.workloads)
        self.numbers = {workload.name: number for number, workload in enumerate(self.workloads)}
        self.site_of = {node.name: node.site for node in self.layout.nodes}
        self.at_site: dict[str, set[int]] = {site.name: set() for site in self.layout.sites}
        for number, workload in enumerate(self.workloads):
            self.at_site[self.site_of[workload.node]].add(number)
        self.failed: dict[str, float] = {}
        """Sites that are down, since when."""
        self.planned: set[str] = set()
        """Those of them that were planned for."""
        self.down: dict[int, float] = {}
        """Workloads that do not serve, since when."""
        self.turn = dict.fromkeys(range(len(self.workloads)), 0)
        """How often a workload's fate changed: an event of an earlier one is void."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def run(self) -> Tally:
        assumed = self.assumed
        for site in self.at_site:
            self._later(self._chance(assumed.site_mtbf_s), self._site_fails, site)
        links = len(self.at_site) * assumed.points
        self._later(self._chance(assumed.link_mtbf_s / links), self._link_fails)
        while self._events and self._events[0][0] < assumed.duration_s:
            self.now, _, event = heapq.heappop(self._events)
            event()
        for number, since in self.down.items():
            self._was_down(number, assumed.duration_s - since)
        return self.tally

    def _site_fails(self, site: str) -> None:
        self.tally.site_failures += 1
        self.failed[site] = self.now
        for number in self.at_site[site]:
            self.turn[number] += 1
            if number not in self.down:
                self.down[number] = self.now
                self.tally.connections_broken += int(self.world.connections[number])
        seen = self._detection()
        self.tally.note("detection", seen, self._bindings(self.at_site[site]))
        self._later(seen, self._decide, site, self.now)
        self._later(self._chance(self.assumed.site_mttr_s), self._site_returns, site)

    def _decide(self, site: str, since: float) -> None:
        """Plans for the site, if it is still the failure that was seen."""
        if self.failed.get(site) != since:
            return
        layout = replace(self.layout, workloads=tuple(self.workloads))
        plan = evacuate(layout, site, [other for other in self.failed if other != site])
        self.planned.add(site)
        self.tally.plans += 1
        self.tally.moves += len(plan.moves)
        self.tally.stuck += len(plan.stays)
        self.tally.inexact += not plan.is_exact
        free_at = max(self.now, since + self.assumed.lease_s)
        for move in plan.moves:
            numbers = [self.numbers[name] for name in move.workloads]
            bindings = self._bindings(numbers)
            started = self._lognormal(self.assumed.start_median_s)
            rolled = self._rollout(bindings)
            self.tally.bindings_moved += bindings
            for kind, seconds in (("lease", free_at - self.now), ("start", started), ("rollout", rolled)):
                self.tally.note(kind, seconds, bindings)
            for number in numbers:
                self.at_site[site].discard(number)
                self.at_site[move.target_site].add(number)
                self.workloads[number] = replace(self.workloads[number], node=move.target)
                self.turn[number] += 1
                self._later(free_at + started + rolled - self.now, self._serves, number, self.turn[number])

    def _serves(self, number: int, turn: int) -> None:
        if self.turn[number] == turn and number in self.down:
            self._was_down(number, self.now - self.down.pop(number))

    def _site_returns(self, site: str) -> None:
        """What is still there serves again; what waited elsewhere for a place is planned again."""
        del self.failed[site]
        self.planned.discard(site)
        self._later(self._chance(self.assumed.site_mtbf_s), self._site_fails, site)
        for number in self.at_site[site]:
            self.turn[number] += 1
            started = self._lognormal(self.assumed.start_median_s)
            self._later(started, self._serves, number, self.turn[number])
        heard = self._lognormal(self.assumed.report_median_s)
        for other, since in self.failed.items():
            if self.at_site[other] and other in self.planned:
                self._later(heard, self._decide, other, since)

    def _link_fails(self) -> None:
        self.tally.link_failures += 1
        links = len(self.at_site) * self.assumed.points
        self._later(self._chance(self.assumed.link_mtbf_s / links), self._link_fails)
        site = self.layout.sites[int(self.rng.integers(len(self.layout.sites)))].name
        lasts = min(self._chance(self.assumed.link_mttr_s), self.assumed.duration_s - self.now)
        bindings = self._bindings(self.at_site[site])
        self.tally.note("link", lasts, bindings)
        self.tally.down_binding_s += lasts * bindings / self.assumed.points

    def _was_down(self, number: int, seconds: float) -> None:
        bindings = int(self.world.bindings[number])
        self.tally.note("outage", seconds, bindings)
        self.tally.down_binding_s += seconds * bindings

    def _detection(self) -> float:
        """Until most of the points have missed `fall` probes in a row, and said so."""
        assumed = self.assumed
        phase = self.rng.random(assumed.points) * assumed.interval_s
        seen = phase + (assumed.fall - 1) * assumed.interval_s + assumed.probe_timeout_s
        heard = seen + self._lognormals(assumed.report_median_s, assumed.points)
        return float(np.sort(heard)[assumed.points // 2])

    def _rollout(self, bindings: int) -> float:
        """Until every point has acknowledged, or has withdrawn itself."""
        assumed = self.assumed
        took = (
            self._lognormals(assumed.rollout_median_s, assumed.points) + bindings * assumed.binding_us / 1e6
        )
        took[self.rng.random(assumed.points) < assumed.silent] = assumed.withdraw_after_s
        return float(np.max(took))

    def _bindings(self, numbers: set[int] | list[int]) -> int:
        return int(self.world.bindings[list(numbers)].sum()) if numbers else 0

    def _later(self, seconds: float, what: Callable[..., None], *words: object) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), lambda: what(*words)))

    def _chance(self, mean_s: float) -> float:
        return float(self.rng.exponential(mean_s))

    def _lognormal(self, median_s: float) -> float:
        return float(self._lognormals(median_s, 1)[0])

    def _lognormals(self, median_s: float, number: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return median_s * np.exp(self.assumed.sigma * self.rng.standard_normal(number))
