"""migrations_desk: what a director answers about migrations on its control socket.

migrate          a workload to a node or site: begins; `plan`: what it would do, and what is against it
migrations       all, those that are not over (`open`), or one: steps with their times, what is in its way;
                 wait_s: until nothing is due
migrate_cancel   by id or workload, while it does not run at the target
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from ipshare.agent.server import Asker
from ipshare.director.daemon import Director
from ipshare.director.migrations import Migrations
from ipshare.errors import IpshareError
from ipshare.migration.machine import Migration

MOST_WAIT_S = 3600.0
Request = dict[str, Any]


class MigrationsDesk:
    """Verbs for ipshare.director.desk."""

    def __init__(self, migrations: Migrations) -> None:
        self.migrations = migrations
        self.verbs = {
            "migrate": self._migrate,
            "migrations": self._list,
            "migrate_cancel": self._cancel,
        }

    def troubles(self) -> list[str]:
        """For status: what is in the way of those that are not over."""
        return [
            f"migration {state.id}, {state.step.value}: {trouble}"
            for state, trouble in self.migrations.all()
            if trouble and not state.is_over
        ]

    async def _migrate(self, caller: Asker, request: Request) -> Request:
        who = request.get("who", "") or str(caller)
        words = [request.get(key) for key in ("workload", "to")]
        why = request.get("why", "")
        if not all(isinstance(word, str) and word for word in words) or not isinstance(why, str):
            raise IpshareError("workload and to are names, why is text")
        if request.get("plan"):
            return await self.migrations.plan(str(words[0]), str(words[1]))
        return report(await self.migrations.begin(str(words[0]), str(words[1]), str(who), why))

    async def _list(self, _caller: Asker, request: Request) -> Request:
        which, wait_s = request.get("which"), request.get("wait_s", 0.0)
        if not isinstance(wait_s, int | float) or not 0 <= wait_s <= MOST_WAIT_S:
            raise IpshareError(f"wait_s is a number of seconds up to {MOST_WAIT_S:g}")
        if which is None:
            found = self.migrations.all()
            if request.get("open"):
                found = [(state, trouble) for state, trouble in found if not state.is_over]
            return {"migrations": [report(state, trouble) for state, trouble in found]}
        state = await self.migrations.settled(str(which), wait_s)
        trouble = next(t for other, t in self.migrations.all() if other.id == state.id)
        return report(state, trouble)

    async def _cancel(self, _caller: Asker, request: Request) -> Request:
        return report(await self.migrations.cancel(str(request.get("which"))))


@asynccontextmanager
async def migrating(director: Director) -> AsyncIterator[MigrationsDesk]:
    """Migrations beside a director that has begun: those under way go on with its next start."""
    migrations = Migrations(director)
    await migrations.start()
    try:
        yield MigrationsDesk(migrations)
    finally:
        await migrations.close()


def report(m: Migration, trouble: str = "") -> Request:
    """For people and programs."""
    said = asdict(m) | {"step": m.step.value, "over": m.is_over, "trouble": "" if m.is_over else trouble}
    said["times"] = [{"at": moment.at, "what": moment.what} for moment in m.times]
    return said
