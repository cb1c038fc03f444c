"""limits: durations of a director's file that cannot be: nothing at all, or more than a node takes.

A pause of nothing never ends a round, and a probe that a node refuses takes the leases of the same message
along: both are mistakes of the file, told before anything begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ipshare.config.some import Finding
from ipshare.config.values import Table

HOUR_S, DAY_S, MONTH_S = 3600.0, 86400.0, 30 * 86400.0
Bounds = Mapping[str, tuple[float, float]]
DIRECTOR: Bounds = {"interval": (0.01, HOUR_S), "stale_after": (0.01, DAY_S), "patience": (0.01, DAY_S)}
HEALTH: Bounds = {
    "interval": (0.05, HOUR_S), "timeout": (0.01, 60.0), "stale": (0.01, DAY_S), "half_life": (1.0, MONTH_S),
}  # fmt: skip
FAILOVER: Bounds = {
    "after": (0.01, DAY_S), "lease": (0.1, DAY_S), "stop_time": (0.01, DAY_S), "period": (1.0, MONTH_S),
    "fence_time": (0.1, 600.0),
}  # fmt: skip
MOST_PROBES = 1000
"""That a node makes: ipshare.agent.watcher."""


def outside(kind: str, table: Table, bounds: Bounds) -> Iterator[Finding]:
    """What of [kind] is out of its bounds."""
    for key, (least, most) in bounds.items():
        if key not in table._broken and not least <= (value := getattr(table, key)) <= most:
            yield (kind, key), f"{value:g} s is out of range", f"from {said(least)} to {said(most)}"


def director(table: Any) -> Iterator[Finding]:
    """What is wrong with the times of [director]."""
    found = list(outside("director", table, DIRECTOR))
    yield from found
    if not found and not table._broken:
        interval, stale = table.interval, table.stale_after
        if stale <= interval:
            text = f"a node that answers every {interval:g} s would be silent after {stale:g} s"
            yield ("director", "stale_after"), text, "make it several times `interval`"


def said(seconds: float) -> str:
    """As a file would have it."""
    for unit, size in (("d", DAY_S), ("h", HOUR_S), ("m", 60.0), ("s", 1.0)):
        if seconds >= size:
            return f"{seconds / size:g}{unit}"
    return f"{seconds * 1000:g}ms"
