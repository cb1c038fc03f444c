"""clusters_watch: the agent's probes of servers: a task for each, and what comes of them told to the
engine.

A server that fell, or rose, is told at once; what only shifts weights once for every round. The event loop
never waits: the engine is spoken to in the thread of all work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ipshare.agent.cluster_probes import probe
from ipshare.agent.reconcile import Reconciler
from ipshare.errors import IpshareError
from ipshare.model import Address, Cluster, Config


class ClustersWatch:
    """``work`` runs a job in the thread that all work of the node is done in; ``note`` (topic, text) notes
    what is wrong, "": nothing."""

    def __init__(
        self, node: Reconciler, work: Callable[..., Awaitable[Any]], note: Callable[[str, str], None]
    ) -> None:
        self._node, self._work, self._note = node, work, note
        self._clusters: tuple[Cluster, ...] = ()
        self._tasks: list[asyncio.Task[None]] = []

    def follow(self, config: Config | None) -> None:
        """Probes what ``config`` has, from now on; in the event loop."""
        clusters = config.clusters if config is not None else ()
        if clusters == self._clusters:
            return
        self.stop()
        self._clusters = clusters
        for cluster in clusters:
            for address, servers in cluster.halves():
                self._tasks += [
                    asyncio.get_running_loop().create_task(self._watch(cluster, (address, own)))
                    for _, own in servers
                ]
        if not clusters:
            self._note("clusters", "")

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks, self._clusters = [], ()

    async def _watch(self, cluster: Cluster, key: tuple[Address, Address]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            response_s = await probe(cluster.probe, key[1])
            changed = self._node.clusters.heard(cluster, key, response_s)
            if changed or key[1] == self._first_of(cluster, key[0]):
                await self._tell()
            due = max(due + cluster.probe.interval_s, loop.time())
            await asyncio.sleep(due - loop.time())

    @staticmethod
    def _first_of(cluster: Cluster, address: Address) -> Address | None:
        """Whose probe closes a round."""
        return next((s[0][1] for a, s in cluster.halves() if a == address and s), None)

    async def _tell(self) -> None:
        config = self._node.config
        if config is None:
            return
        try:
            await self._work(self._align)
        except IpshareError as error:
            self._note("clusters", f"servers cannot be told to the engine: {error.message}")
            return
        self._note("clusters", "; ".join(self._node.clusters.troubles(config)))

    def _align(self) -> None:
        node = self._node
        if node.config is not None and node.engine is not None:
            node.clusters.align(node.engine, node.config)

    def report(self) -> list[dict[str, Any]]:
        """Of the engine in hand, in the thread of all work; nothing without clusters."""
        node = self._node
        if node.config is None or node.engine is None or not node.config.clusters:
            return []
        return node.clusters.report(node.engine, node.config)

    async def close(self) -> None:
        tasks = self._tasks
        self.stop()
        await asyncio.gather(*tasks, return_exceptions=True)
