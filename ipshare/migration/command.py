"""command: a workload that commands of the operator migrate ([[migration]] with adapter = "command").

start ends with 0 when the workload runs at the target: that end is the event on which packets follow, so
nobody asks in between. What it printed as `downtime 38.5 ms` on a line is the time that it stood still. Only
where start failed, or nobody saw its end, state is asked.
"""

from __future__ import annotations

import re

from ipshare.migration.adapter import MigrationError, Moved, Target, Where
from ipshare.migration.commands import filled, must_agree, run
from ipshare.migration.drbd import must_be_in_sync
from ipshare.model import Migrating

_DOWNTIME = re.compile(r"^downtime (\d{1,9}(?:\.\d{1,6})?) ms$", re.MULTILINE)


class CommandAdapter:
    """See ipshare.migration.adapter."""

    def __init__(self, wanted: Migrating) -> None:
        self._wanted = wanted

    async def check(self, target: Target) -> None:
        await storage_in_sync(self._wanted, target)
        if self._wanted.check:
            words = filled(self._wanted.check, self._wanted, target)
            await must_agree(words, self._wanted.answer_s, f"{target.node} cannot run it")

    async def migrate(self, target: Target) -> Moved:
        words = filled(self._wanted.start, self._wanted, target)
        ended = await run(words, self._wanted.timeout_s)
        if ended.status:
            raise MigrationError(f"{words[0]} ended with {ended.status}" + (ended.said and f": {ended.said}"))
        found = _DOWNTIME.findall(ended.output)
        return Moved(float(found[-1]) if found else None)

    async def where(self, target: Target) -> Where:
        words = filled(self._wanted.state, self._wanted, target)
        ended = await run(words, self._wanted.answer_s)
        if ended.status or ended.said not in set(Where):
            text = f"{words[0]} does not say where it runs: {ended.said or 'nothing'}"
            raise MigrationError(text, hint="it prints here, moving or there")
        return Where(ended.said)

    async def cancel(self, target: Target) -> None:
        if not self._wanted.cancel:
            raise MigrationError("it cannot be cancelled", hint="write cancel in its [[migration]]")
        words = filled(self._wanted.cancel, self._wanted, target)
        ended = await run(words, self._wanted.answer_s)
        if ended.status:
            raise MigrationError(f"{words[0]} ended with {ended.status}" + (ended.said and f": {ended.said}"))


async def storage_in_sync(wanted: Migrating, target: Target) -> None:
    """Raises Refused where it is not; both adapters ask."""
    if wanted.drbd:
        await must_be_in_sync(wanted.drbd, target.node, wanted.answer_s)
    if wanted.storage:
        words = filled(wanted.storage, wanted, target)
        await must_agree(words, wanted.answer_s, f"its storage is not in sync at {target.node}")
