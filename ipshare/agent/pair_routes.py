"""pair_routes: points routes of the private network to this node when it has become active (S3.3).

kind "linux": `ip route replace`, in this network namespace or a named one of this machine. kind "command":
the user's program, for what only a cloud's interface can change. Each runs beside the agent's loop, for
COMMAND_S at most, and again until it succeeds or this node is active no more; nothing waits for it, least of
all the engine. A reign's routes are pointed once in a run of the agent; the next one does it again, which
changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from ipshare.model import Pair, PairRoute
from ipshare.pair.hooks import PASSED_ON

log = logging.getLogger(__name__)
COMMAND_S = 10.0
FIRST_AGAIN_S, LAST_AGAIN_S = 1.0, 30.0


def command_of(route: PairRoute) -> list[str]:
    """What is run. Pure."""
    if route.kind == "command":
        return list(route.command)
    words = ["ip"] if route.namespace is None else ["ip", "-n", route.namespace]
    words += ["-6" if route.prefix.version == 6 else "-4", "route", "replace", str(route.prefix)]
    words += ["via", str(route.via)]
    words += ["dev", route.interface] if route.interface is not None else []
    return words + (["table", str(route.table)] if route.table is not None else [])


def environment(route: PairRoute, *, node: int, epoch: int) -> dict[str, str]:
    """What it finds in its environment. Pure."""
    return {
        "IPSHARE_PREFIX": str(route.prefix),
        "IPSHARE_VIA": str(route.via),
        "IPSHARE_NODE": str(node),
        "IPSHARE_EPOCH": str(epoch),
    }


class PairRoutes:
    """``said`` is called in the event loop with what is wrong, or "". Call everything there."""

    def __init__(self, said: Callable[[str], None]) -> None:
        self._said = said
        self._reign: tuple[int, tuple[PairRoute, ...]] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._troubles: dict[PairRoute, str] = {}

    def look(self, pair: Pair, state: str, epoch: int) -> None:
        """The state as it is now: whatever follows is begun, or ended. Again: nothing."""
        reign = (epoch, pair.routes) if state == "active" else None
        if reign == self._reign:
            return
        self._stop()
        self._reign = reign
        if reign is not None:
            self._tasks = [
                asyncio.get_running_loop().create_task(self._point(route, pair.node_id, epoch))
                for route in pair.routes
            ]

    async def close(self) -> None:
        """What runs is ended."""
        tasks = self._tasks
        self._stop()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks, self._reign = [], None
        self._troubles.clear()
        self._said("")

    async def _point(self, route: PairRoute, node: int, epoch: int) -> None:
        again_s = FIRST_AGAIN_S
        while trouble := await run(command_of(route), environment(route, node=node, epoch=epoch)):
            self._tell(route, f"the route {route.prefix} could not be pointed to {route.via}: {trouble}")
            await asyncio.sleep(again_s)
            again_s = min(2 * again_s, LAST_AGAIN_S)
        self._tell(route, "")
        log.info("pair: the route %s was pointed to %s", route.prefix, route.via)

    def _tell(self, route: PairRoute, trouble: str) -> None:
        if trouble and self._troubles.get(route) != trouble:
            log.error("pair: %s", trouble)
        self._troubles[route] = trouble
        self._said("; ".join(text for text in self._troubles.values() if text))


async def run(command: list[str], told: dict[str, str], *, timeout_s: float = COMMAND_S) -> str:
    """What was wrong with it, or "". It is ended with all that it started, in time or at a cancel."""
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=passed_on | told,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        return f"{command[0]} could not be started: {error.strerror}"
    try:
        async with asyncio.timeout(timeout_s):
            _, words = await process.communicate()
    except TimeoutError:
        return f"{command[0]} took longer than {timeout_s:g} s and was killed"
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    last = words.decode(errors="replace").strip().splitlines()[-1:]
    return f"{command[0]} ended with {process.returncode}{': ' + last[0] if last else ''}" * bool(
        process.returncode
    )
