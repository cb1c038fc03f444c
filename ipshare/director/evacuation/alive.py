"""alive: the mover that moves each group by the way that it was planned to go: what can goes alive, by
ipshare.director.migrations, all else as TopologyMover does it.

A live migration is waited for until it is over, or until all that it waits for are distribution points that
do not answer. Before anything runs at the target it is cancelled, if nodes are silent for too long. One that
fails is back where it was; then it has failed, or goes the other way, as ``is_cold`` says. While nobody knows
where it runs, nothing is done but to say so: the migration goes on by itself. Asked again after a restart of
the director, it goes on where the migration is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

from ipshare.director.daemon import Director
from ipshare.director.evacuation.mover import Group, Moved, Seen, TopologyMover
from ipshare.director.migrations import Migrations
from ipshare.errors import Refused
from ipshare.migration.machine import Migration, Step

BEFORE = (Step.CHECKING, Step.EXPECTING)
AFTER = (Step.SETTLING, Step.CLEARING)


class AliveMover:
    """``cold``: for what does not go alive."""

    def __init__(
        self,
        director: Director,
        migrations: Migrations,
        cold: TopologyMover,
        patience_s: float,
        is_cold: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._director, self._migrations, self._cold = director, migrations, cold
        self._patience_s, self._is_cold, self._clock = patience_s, is_cold, clock
        self.starts = cold.starts

    async def move(self, group: Group, seen: Seen) -> Moved:
        if group.way != "live":
            return Moved("failed", group.bar) if group.bar else await self._cold.move(group, seen)
        if group.bar:
            return Moved("failed", f"{group.bar}; {self._again(group)}")
        found = self._migrations.under_way(group.workloads[0])
        if found is None and self._at(group) != {group.source}:
            return await self._cold.move(group, seen)  # it came before, or somebody moved it
        if found is not None and set(found.workloads) != set(group.workloads):
            return Moved("failed", f"migration {found.id} moves a part of it")
        if found is None or found.step is Step.SPLIT:
            target = found.target if found is not None else group.target
            why = f"{group.why}, alive"
            try:
                found = await self._migrations.begin(group.workloads[0], target, group.who, why, group.order)
            except Refused as error:
                if self._director.bar():
                    raise
                return await self._otherwise(group, error.message)
        done = await self._seen_through(found.id, group)
        if isinstance(done, str):
            return await self._otherwise(group, done)
        return replace(done, target=found.target)

    async def _seen_through(self, id_: str, group: Group) -> Moved | str:
        """Text: why it runs where it was."""
        kept, since, gave_up = None, self._clock(), ""
        while True:
            m, trouble = self._migrations.now(id_)
            if m.step is Step.DONE:
                return Moved("done", f"alive, migration {id_}", m.revision)
            if m.step in (Step.REFUSED, Step.FAILED):
                return f"migration {id_} {m.step.value}: {m.reason}"
            if m.step is Step.CANCELLED:
                why = f": {gave_up}" if gave_up else ""
                return Moved("failed", f"migration {id_} was cancelled{why}; it runs at {m.source}")
            if m.step is Step.SPLIT:
                return Moved("failed", self._split(m, group))
            if bar := self._director.bar():
                raise Refused(bar, hint="the director that leads goes on with it")
            if kept != (m.step, m.there) or not trouble:
                kept, since = (m.step, m.there), self._clock()
            late_s = self._clock() - since
            if m.step in AFTER and (arrived := self._cold.arrived(m.target, late_s)) is not None:
                waits = f" {arrived}, which is redirected" if arrived else ""
                return Moved("done", f"alive, migration {id_}{waits}", m.revision)
            if trouble and late_s > self._patience_s:
                if (end := await self._late(m, trouble, group)) is not None:
                    return end
                gave_up = gave_up or trouble
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._director.settings.interval_s):
                    await self._migrations.news()

    async def _late(self, m: Migration, trouble: str, group: Group) -> Moved | None:
        """Nodes are silent for longer than anybody wants to wait."""
        if m.step in BEFORE and not m.cancelling and not m.there:
            with contextlib.suppress(Refused):  # it may have gone on meanwhile
                await self._migrations.cancel(m.id)
            return None
        if m.step in (*BEFORE, Step.UNDOING):
            return Moved("failed", f"migration {m.id} is being undone, it runs at {m.source}: {trouble}")
        if m.step is Step.MIGRATING:
            text = f"migration {m.id} goes on, nobody knows where {m.member} runs: {trouble}"
            return Moved("failed", f"{text}; {self._again(group)}")
        return None  # its revision is being made, or rolled out

    async def _otherwise(self, group: Group, why: str) -> Moved:
        """It was not moved alive, and runs where it was."""
        if not self._is_cold or self._at(group) != {group.source}:
            return Moved("failed", f"{why}; it runs at {group.source}: {self._again(group)}")
        cold = await self._cold.move(group, Seen(self._director.number))
        return replace(cold, why=f"not alive: {why}" + (f"; {cold.why}" if cold.why else ""))

    def _split(self, m: Migration, group: Group) -> str:
        rest = ", ".join(name for name in m.workloads if name not in m.there)
        text = f"migration {m.id} is split: {', '.join(m.there)} runs at {m.target}, {rest} at {m.source}"
        return f"{text}: {m.reason}; `ipshare director continue {group.order}` sends the rest after"

    def _again(self, group: Group) -> str:
        return f"`ipshare director continue {group.order}` tries again"

    def _at(self, group: Group) -> set[str]:
        rows = self._director.topology.by_name["workload"]
        return {rows[name]["node"] if name in rows else "" for name in group.workloads}
