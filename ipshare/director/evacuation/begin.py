"""begin: evacuations and the watch of hazards beside a director that has begun, until it ends.

The watch is there only where the director's file has [hazards]. Closing ends nothing that is under way: the
next start goes on with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from ipshare.director.daemon import Director
from ipshare.director.evacuation.mover import Mover, Runs, TopologyMover
from ipshare.director.evacuation.runner import Evacuations
from ipshare.director.evacuation.settings import Settings
from ipshare.director.evacuation.verbs import Verbs
from ipshare.director.evacuation.watch import HazardWatch, feeds_of


@asynccontextmanager
async def evacuating(
    director: Director, settings: Settings, runs: Runs | None = None, mover: Mover | None = None
) -> AsyncIterator[Verbs]:
    """What operators may ask of them. ``runs``: as of TopologyMover. Raises Refused where feeds are to be
    asked and nothing can ask them."""
    async with AsyncExitStack() as stack:
        mover = mover or TopologyMover(director, settings.patience_s, runs)
        evacuations, watch = Evacuations(director, settings, mover), None
        if settings.hazards is not None:
            poller = await stack.enter_async_context(feeds_of(settings.hazards))
            watch = HazardWatch(evacuations, settings.hazards, poller)
        await evacuations.start()
        stack.push_async_callback(evacuations.close)
        if watch is not None:
            await watch.start()
            stack.push_async_callback(watch.close)
        yield Verbs(evacuations, watch)
