"""What a ratio may be. `target` is where the project wants to be (docs/performance.md says where it is
not); `limit` is where the suite fails: the target with the noise of a shared machine, or, where the target
is missed, the present state with that noise.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ipshare.bench import Result


@dataclass(frozen=True, slots=True)
class Limit:
    """`of` / `by` (names of figures; by "": the figure's own ratio) is at most or at least `limit`."""

    of: str
    by: str
    at_most: bool
    target: float
    limit: float

    def measured(self, figures: Mapping[str, Result]) -> float:
        one = figures[self.of]
        if self.by:
            return one.value / figures[self.by].value
        assert one.ratio is not None, f"{self.of} has no peer"
        return one.ratio

    def holds(self, value: float) -> bool:
        within: Callable[[float, float], bool] = operator.le if self.at_most else operator.ge
        return within(value, self.limit)

    @property
    def part(self) -> str:
        return self.of.split(".")[0]

    def __str__(self) -> str:
        return f"{self.of}{' / ' + self.by if self.by else ''} {'<=' if self.at_most else '>='} {self.limit}"


def limits(size: str) -> list[Limit]:
    """`size` of the large table: "1m", or "100k" in a quick run."""
    found = []
    for family in (4, 6):
        at, small = f"core.v{family}.outer", f"core.v{family}.outer.1k.few"
        uniform = f"{at}.{size}.uniform"
        found += [
            Limit(f"{at}.{size}.few", "", at_most=True, target=1.1, limit=1.4),
            Limit(f"{uniform}.prefetched", small, at_most=True, target=2.5, limit=4 if family == 4 else 9),
            Limit(f"{at}.icmp-error", "", at_most=True, target=3, limit=6),
            Limit(f"tables.v{family}.{size}.commit", f"tables.v{family}.{size}.prepare", True, 0.001, 0.05),
        ]
        if size == "1m":  # smaller tables may fit into the caches
            found.append(Limit(f"{uniform}.prefetched", uniform, at_most=True, target=0.5, limit=0.85))
    at = f"tables.v4.{size}"
    return [
        *found,
        Limit(f"{at}.delta.1", f"{at}.prepare", at_most=True, target=0.05, limit=0.5),
        Limit(f"{at}.evacuation", f"{at}.prepare", at_most=True, target=0.1, limit=1.5),
        Limit("forwarding.udp64.ips.rate", "", at_most=False, target=0.8, limit=0.25),
        Limit("forwarding.paced.ips.cpu", "", at_most=True, target=2, limit=4),
        Limit("forwarding.tcp.ips.rate", "", at_most=False, target=0.6, limit=0.4),
        Limit("forwarding.tcp.ips2.rate", "", at_most=False, target=0.6, limit=0.35),
        Limit("forwarding.tcp.gue2.rate", "", at_most=False, target=0.3, limit=0.2),
    ]
