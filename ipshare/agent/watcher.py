"""watcher: what this node sees of end points and workloads for its director: probes that the director names.

One task for each probe, for as long as somebody asks: without a director for FORGET_S nothing is probed any
more. A probe is one of ipshare.agent.cluster_probes: a TCP connection, an HTTP request, an ICMP echo.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from ipshare.agent.cluster_probes import probe
from ipshare.errors import IpshareError
from ipshare.model import Address, ClusterProbe

FORGET_S = 60.0
MOST = 1000
SOONEST_S = 0.05


@dataclass(frozen=True, slots=True)
class Watched:
    """A probe of something that has this name."""

    name: str
    address: Address
    probe: ClusterProbe


class Watcher:
    """``clock``: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks: dict[Watched, asyncio.Task[None]] = {}
        self._seen: dict[Watched, tuple[float, bool]] = {}
        self._asked_s = clock()

    def follow(self, wanted: list[Watched]) -> None:
        """Probes these from now on, and no others."""
        self._asked_s = self._clock()
        for old in set(self._tasks) - set(wanted):
            self._tasks.pop(old).cancel()
            self._seen.pop(old, None)
        for one in wanted:
            if one not in self._tasks or self._tasks[one].done():
                self._tasks[one] = asyncio.create_task(self._watch(one), name=f"watch {one.name}")

    def report(self) -> list[dict[str, Any]]:
        now = self._clock()
        return [
            {"name": one.name, "address": str(one.address), "up": up, "age_s": round(now - at, 3)}
            for one, (at, up) in self._seen.items()
        ]

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks, self._seen = {}, {}

    async def _watch(self, one: Watched) -> None:
        while self._clock() - self._asked_s < FORGET_S:
            began = self._clock()
            up = await probe(one.probe, one.address) is not None
            self._seen[one] = (began, up)
            await asyncio.sleep(max(SOONEST_S, began + one.probe.interval_s - self._clock()))
        self._seen.pop(one, None)


def parsed(rows: Any) -> list[Watched]:
    """What a request names. Raises IpshareError."""
    try:
        if len(rows) > MOST:
            raise ValueError
        return list(dict.fromkeys(_parsed(row) for row in rows))
    except (TypeError, ValueError, KeyError, AttributeError):
        raise IpshareError(
            f"probes are at most {MOST} objects with name, address, kind, port, path, interval_s, timeout_s"
        ) from None


def _parsed(row: dict[str, Any]) -> Watched:
    kind, port, path = row["kind"], row.get("port", 0), row.get("path", "/")
    interval_s, timeout_s = float(row["interval_s"]), float(row["timeout_s"])
    good = kind in ("tcp", "http", "icmp") and type(port) is int and 0 <= port <= 65535
    good = good and isinstance(path, str) and path.startswith("/") and path.isascii() and path.isprintable()
    if not good or " " in path or not 0 < timeout_s <= 60 or not 0 < interval_s <= 3600:
        raise ValueError
    wanted = ClusterProbe(kind, port, path, interval_s, timeout_s, 1, 1)
    return Watched(str(row["name"])[:100], ip_address(row["address"]), wanted)
