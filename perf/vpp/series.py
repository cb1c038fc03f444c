"""series: bursts of several streams through one VPP, alternating, and the median of what they show.

The ratio of a series is the median of each burst's own ratio: added clocks by the base of the same burst, so
what else the machine does in the meantime weighs on both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from vpp.process import VppFailed
from vpp.runtime import Sample, Streams

BURST = 20_000
ROUNDS = 15


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Measured:
    """A stream to be measured. ``through``: the node that all its packets have to pass, or the figure would
    be another thing's. ``before``: makes the VPP ready for it, every time."""

    stream: str
    through: str
    before: Callable[[], None] = _nothing


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
        """Node -> clocks per packet of the burst, medians over the bursts in which it had packets."""
        each: dict[str, list[float]] = {}
        for s in self.samples:
            for name, node in s.nodes.items():
                each.setdefault(name, []).append(node.clocks * node.vectors / s.packets)
        return {name: median(values) for name, values in sorted(each.items())}


def alternate(streams: Streams, wanted: Sequence[Measured], rounds: int = ROUNDS) -> dict[str, Series]:
    """``rounds`` bursts of each stream, by its name. Raises VppFailed where packets went another way."""
    found: dict[str, list[Sample]] = {m.stream: [] for m in wanted}
    for _ in range(rounds):
        for m in wanted:
            m.before()
            found[m.stream].append(checked(streams, m.stream, m.through))
    return {name: Series(name, tuple(samples)) for name, samples in found.items()}


def checked(streams: Streams, stream: str, through: str) -> Sample:
    sample = streams.undisturbed(stream)
    passed = sample.nodes[through].vectors if through in sample.nodes else 0
    if passed < sample.packets or sample.sent < sample.packets:
        lost = f"{sample.packets} packets: {passed} by {through}, {sample.sent} sent"
        raise VppFailed(f"{stream}: {lost}\n{streams.vpp.cli('show errors')}")
    return sample
