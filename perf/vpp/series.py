"""series: bursts of several streams through one VPP, alternating, and the median of what they show.

The ratio of a series is the median of each burst's own ratio: added clocks by the base of the same burst, so what
else the machine does in the meantime weighs on both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ipshare.bench.packets import Kind
from vpp.cases import Case, interfaces, packets_of
from vpp.flows import Pattern, addresses, numbers, syns
from vpp.process import Vpp, VppFailed
from vpp.runtime import Sample, Streams

BURST = 100_000
ROUNDS = 9


@dataclass(frozen=True, slots=True)
class Series:
    """All bursts of one stream."""

    name: str
    samples: tuple[Sample, ...]

    @property
    def ratio(self) -> float:
        return median(s.ratio for s in self.samples)

    @property
    def added(self) -> float:
        return median(s.added for s in self.samples)

    @property
    def base(self) -> float:
        return median(s.base for s in self.samples)

    def clocks(self) -> dict[str, float]:
        """Node -> clocks per packet of the burst, medians."""
        names = {name for s in self.samples for name in s.nodes}
        each = {n: [s.nodes[n].clocks * s.nodes[n].vectors / s.packets for s in self.samples if n in s.nodes] for n in names}
        return {name: median(values) for name, values in sorted(each.items())}


def alternate(streams: Streams, through: Mapping[str, str], rounds: int = ROUNDS) -> dict[str, Series]:
    """`rounds` bursts of each stream named by `through`, whose value is the node that all its packets must pass.

    Raises VppFailed where a burst did not: its figure would be another thing's.
    """
    found: dict[str, list[Sample]] = {name: [] for name in through}
    for _ in range(rounds):
        for name, node in through.items():
            sample = streams.burst(name)
            passed = sample.nodes[node].vectors if node in sample.nodes else 0
            if passed < sample.packets or sample.sent != sample.packets:
                lost = f"{sample.packets} packets: {passed} by {node}, {sample.sent} sent"
                raise VppFailed(f"{name}: {lost}\n{streams.vpp.cli('show errors')}")
            found[name].append(sample)
    return {name: Series(name, tuple(samples)) for name, samples in found.items()}


def lay(vpp: Vpp, cases: Sequence[Case], n: int) -> dict[str, str]:
    """Interfaces, routes and the cases' own set-up; returns the interface of each case, by name and family."""
    at = {f"{case.name}.{case.family}": f"pg{i}" for i, case in enumerate(cases, start=1)}
    vpp.run(interfaces(len(cases)))
    for case in cases:
        commands = case.setup(at[f"{case.name}.{case.family}"], n)
        if commands:
            vpp.run(commands)
    return at


def open_flows(streams: Streams, case: Case, kind: Kind, interface: str, n: int, pattern: Pattern) -> None:
    """Once through with SYN, so that connections exist; none of it is counted."""
    name = f"opening.{case.name}.{kind}.{n}.{pattern}"
    frames = syns(kind, case.family, addresses(case.base, numbers(pattern, n)))
    streams.define(name, case.family, interface, frames, len(frames))
    streams.burst(name)


def beside(cases: Sequence[Case], n: int, *, rounds: int = ROUNDS, burst: int = BURST, plugins: Sequence[str]) -> dict[str, Series]:
    """The cases in one VPP, with `n` bindings each, of every kind of packet they take; few destinations.

    Keys: v4.nat44-ed.mixed and so on.
    """
    with Vpp(plugins) as vpp:
        at = lay(vpp, cases, n)
        streams, through = Streams(vpp), {}
        for case in cases:
            interface = at[f"{case.name}.{case.family}"]
            for kind in (case.kind, *case.kinds):
                if case.opened:
                    open_flows(streams, case, kind, interface, n, "few")
                name = f"v{case.family}.{case.name}.{kind}".replace(" ", "-")
                streams.define(name, case.family, interface, packets_of(case, n, "few", kind), burst)
                through[name] = case.through
        return alternate(streams, through, rounds)
