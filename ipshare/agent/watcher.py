"""watcher: what this node sees of end points and workloads for its director: probes that the director names.

One task for each probe, for as long as somebody asks: without a director for FORGET_S nothing is probed any
more. A probe is one of ipshare.agent.cluster_probes: a TCP connection, an HTTP request, an ICMP echo. One is
begun every interval, whether those before were answered or not; what the newest says that has ended counts.
A failure that is noticed late says nothing: this process stood still, and may have slept through the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
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
LATE_S = 0.1
"""A time-out that is noticed later than that was not waited for properly."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A probe of something that has this name."""

    name: str
    address: Address
    probe: ClusterProbe


@dataclass(frozen=True, slots=True)
class State:
    """``at_s``: when the newest probe began; ``since_s``: when the first of those that said the same did."""

    at_s: float
    since_s: float
    up: bool


class Watcher:
    """``clock``: monotonic seconds. ``version`` is another one after each change of what ``report`` says is
    up; `changed` waits for that."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks: dict[Watched, asyncio.Task[None]] = {}
        self._seen: dict[Watched, State] = {}
        self._asked_s = clock()
        self.version = time.monotonic_ns()  # no other agent's on this machine
        self._news = asyncio.Event()

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
            {
                "name": one.name,
                "address": str(one.address),
                "up": state.up,
                "age_s": round(now - state.at_s, 3),
                "for_s": round(now - state.since_s, 3),
            }
            for one, state in self._seen.items()
        ]

    async def changed(self, since: int, within_s: float) -> None:
        """Until ``version`` is not ``since``, or that time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.version == since:
                    await self._news.wait()

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks, self._seen = {}, {}

    async def _watch(self, one: Watched) -> None:
        under_way: set[asyncio.Task[None]] = set()
        try:
            while self._clock() - self._asked_s < FORGET_S:
                began = self._clock()
                task = asyncio.create_task(self._ask(one, began), name=f"probe {one.name}")
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                await asyncio.sleep(max(SOONEST_S, began + one.probe.interval_s - self._clock()))
        finally:
            for task in under_way:
                task.cancel()
        self._seen.pop(one, None)

    async def _ask(self, one: Watched, began: float) -> None:
        up = await probe(one.probe, one.address) is not None
        if up or self._clock() - began <= one.probe.timeout_s + LATE_S:
            self._learn(one, began, up)

    def _learn(self, one: Watched, began: float, up: bool) -> None:
        before = self._seen.get(one)
        if one not in self._tasks or (before is not None and before.at_s >= began):
            return
        is_new = before is None or before.up != up
        self._seen[one] = State(began, began if before is None or is_new else before.since_s, up)
        if is_new:
            self.version += 1
            self._news.set()
            self._news = asyncio.Event()


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
