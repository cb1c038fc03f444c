"""begin: evacuations and the watch of hazards beside a director that has begun, until it ends.

The watch is there only where the director's file has [hazards]. Closing ends nothing that is under way: the
next start goes on with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from ipshare.director.daemon import Director
from ipshare.director.evacuation.alive import AliveMover
from ipshare.director.evacuation.mover import Mover, Runs, TopologyMover
from ipshare.director.evacuation.runner import Evacuations
from ipshare.director.evacuation.settings import Settings
from ipshare.director.evacuation.verbs import Verbs
from ipshare.director.evacuation.watch import HazardWatch, feeds_of
from ipshare.director.evacuation.ways import Has, Ways
from ipshare.director.migrations import Migrations


@asynccontextmanager
async def evacuating(
    director: Director,
    settings: Settings,
    runs: Runs | None = None,
    has: Has | None = None,
    mover: Mover | None = None,
    migrations: Migrations | None = None,
) -> AsyncIterator[Verbs]:
    """What operators may ask of them. ``runs``: as of TopologyMover, ``has``, ``migrations``: as of Ways.
    Raises Refused where feeds are to be asked and nothing can ask them."""
    async with AsyncExitStack() as stack:
        mover = mover or _mover(director, settings, runs, has, migrations)
        everywhere = (lambda _workload, _node: True) if mover.starts else None
        ways = Ways(director, has or everywhere, migrations, settings.not_live)
        evacuations, watch = Evacuations(director, settings, mover, ways=ways), None
        if settings.hazards is not None:
            poller = await stack.enter_async_context(feeds_of(settings.hazards))
            watch = HazardWatch(evacuations, settings.hazards, poller)
        if migrations is not None:  # neither moves what the other one does, but on its order
            evacuations.held = migrations.holds
            migrations.busy.append(evacuations.moves)
        await evacuations.start()
        stack.push_async_callback(evacuations.close)
        if watch is not None:
            await watch.start()
            stack.push_async_callback(watch.close)
        yield Verbs(evacuations, watch)


def _mover(
    director: Director, settings: Settings, runs: Runs | None, has: Has | None, migrations: Migrations | None
) -> Mover:
    def left_alone(workload: str, node: str) -> bool:
        """Also what nobody starts there: it is not waited for."""
        assert runs is not None and has is not None, "only then"
        return has(workload, node) is False or runs(workload, node)

    cold = TopologyMover(director, settings.patience_s, left_alone if runs and has else runs)
    if migrations is None:
        return cold
    return AliveMover(director, migrations, cold, settings.patience_s, settings.not_live == "cold")
