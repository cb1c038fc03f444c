"""flows_watch: what the agent says of sessions and mirror, the database that carries them, if one does,
and the probes of clusters' servers.

Looked at with every search for drift and after every change; what is wrong is a note for as long as it is
so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ipshare.agent.clusters_watch import ClustersWatch
from ipshare.agent.mirror_database import DatabaseMirror
from ipshare.agent.reconcile import Reconciler
from ipshare.engine.flows import FlowsState
from ipshare.engine.flows_text import (
    mirror_attacks,
    mirror_report,
    mirror_troubles,
    sessions_report,
    sessions_troubles,
)
from ipshare.model import Config


class FlowsWatch:
    """``work`` runs a job in the thread that all work of the node is done in; ``note`` (topic, text) notes
    what is wrong, "": nothing."""

    def __init__(
        self, node: Reconciler, work: Callable[..., Awaitable[Any]], note: Callable[[str, str], None]
    ) -> None:
        self._node, self._work, self._note = node, work, note
        self._database = DatabaseMirror()
        self._clusters = ClustersWatch(node, work, note)
        self._before: FlowsState | None = None

    async def look(self) -> None:
        """Notes what is wrong; a database is followed as the configuration says, or no more."""
        state = await self._work(self._node.flows_state)
        config = self._node.config
        if state is not None and config is not None and config.sessions is not None:
            before = self._before if self._before and self._before.now_ns <= state.now_ns else None
            self._note("sessions", "; ".join(sessions_troubles(state, before)))
            mirror = [*mirror_troubles(state, config), *mirror_attacks(state, before, config)]
            self._note("mirror", "; ".join(mirror))
        else:
            self._note("sessions", "")
            self._note("mirror", "")
        self._before = state
        self._clusters.follow(config)
        info = await self._work(self._node.engine_info)
        boot_id = info.boot_id if info is not None else ""
        await asyncio.to_thread(self._database.follow, self._node.engine, config, boot_id)
        is_active = state is not None and state.is_active
        self._note("database", self._database.troubles(is_active=is_active))

    async def status(self, config: Config) -> dict[str, Any]:
        """For ``status``: sessions and mirror, None each where there is none; clusters."""
        clusters = await self._work(self._clusters.report)
        state = await self._work(self._node.flows_state)
        if state is None or not state.has_flows or config.sessions is None:
            return {"sessions": None, "mirror": None, "clusters": clusters}
        has_mirror = state.has_mirror and config.mirror is not None
        return {
            "clusters": clusters,
            "sessions": sessions_report(state),
            "mirror": mirror_report(state, config, self._database.report()) if has_mirror else None,
        }

    async def close(self) -> None:
        await self._clusters.close()
        await asyncio.to_thread(self._database.close)
