"""fencing: fence commands, here or at the node that is to take a workload over: one at a time for each
workload, again after a while where one failed. What succeeded is told to ``done``, which keeps it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ipshare.agent import hooks
from ipshare.director.link import Link
from ipshare.director.schema_health import Failover
from ipshare.errors import IpshareError, Refused
from ipshare.exclusive.grants import Grant

log = logging.getLogger(__name__)
AGAIN_S = 10.0
ANSWER_S = 5.0


class Fences:
    """``done`` (workload, epoch): nobody runs that any more."""

    def __init__(self, done: Callable[[str, int], Awaitable[Any]]) -> None:
        self._done = done
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._begun_s: dict[str, float] = {}

    def run_here(self, name: str, grant: Grant, settings: Failover, now_s: float) -> None:
        """The director's own command."""

        async def run() -> None:
            words = {"workload": name, "node": grant.node}
            ran = await hooks.run(settings.fence, settings.fence_time, **words)
            if not ran.is_good:
                raise Refused(f"the fence command ended with {ran.status}: {ran.said}")

        self._begin(name, grant, now_s, run)

    def run_there(
        self, name: str, grant: Grant, settings: Failover, now_s: float, link: Link, term: int
    ) -> None:
        """That of the node at the other end of ``link``, which is closed then."""

        async def run() -> None:
            words: dict[str, Any] = {
                "name": name,
                "node": grant.node,
                "within_s": settings.fence_time,
                "term": term,
            }
            try:
                await link.ask("fence", settings.fence_time + ANSWER_S, **words)
            finally:
                link.close()

        self._begin(name, grant, now_s, run)

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _begin(self, name: str, grant: Grant, now_s: float, run: Callable[[], Awaitable[None]]) -> None:
        if name in self._tasks or now_s - self._begun_s.get(name, -AGAIN_S) < AGAIN_S:
            return
        self._begun_s[name] = now_s
        self._tasks[name] = asyncio.create_task(self._fence(name, grant, run), name=f"fence {name}")
        self._tasks[name].add_done_callback(lambda _task: self._tasks.pop(name, None))

    async def _fence(self, name: str, grant: Grant, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
            log.warning("workload %s: %s is fenced", name, grant.node)
            await self._done(name, grant.epoch)
        except IpshareError as error:
            log.error("workload %s: %s is not fenced: %s", name, grant.node, error.message)
