"""result: one figure of a benchmark, and how figures are printed.

A figure stands beside its peer where there is one: `ratio` = value / peer's value, taken in the
same run, alternating. Ratios are what carries over from one machine to another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """``name``: dotted, stable between versions. ``unit``: of ``value`` ("ns/packet", "s", "pps", ...).
    ``peer``: what was measured beside it, "" if nothing; ``ratio``: value / peer, None without a peer."""

    name: str
    value: float
    unit: str
    peer: str = ""
    ratio: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def beside(name: str, value: float, unit: str, peer: str, peer_value: float) -> Result:
    """A figure with its peer's; no ratio where the peer measured nothing."""
    return Result(name, value, unit, peer, value / peer_value if peer_value else None)


def table(results: Sequence[Result]) -> str:
    """For people: a line each."""
    width = max((len(r.name) for r in results), default=0)
    lines = []
    for r in results:
        line = f"{r.name:<{width}}  {r.value:>12,.4g} {r.unit}"
        if r.peer and r.ratio is not None:
            line += f"  = {r.ratio:.2f} x {r.peer}"
        lines.append(line)
    return "\n".join(lines)
