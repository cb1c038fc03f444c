"""api_clusters: the part of ipshare.api.Node that is about clusters (SYSTEMS.md S2.1, S2.4, S2.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipshare.agent.client import AgentSilent
from ipshare.agent.clusters import cluster_rows
from ipshare.engine.dispatching import Dispatching
from ipshare.errors import NotRunning, Refused
from ipshare.model import Config
from ipshare.net.addresses import plan_addresses

if TYPE_CHECKING:
    from ipshare.engine.protocol import Engine, Side


class ClusterViews:
    """What ipshare.api.Node inherits."""

    config: Config

    def clusters(self) -> list[dict[str, Any]]:
        """A row for each address of each cluster, with its servers: state, effective weight and why,
        connections (at most), new ones in a second, time to answer. Without an agent nobody probes: times
        and reasons are missing. Raises Refused (there is no cluster), NotRunning."""
        if not self._applied().clusters:
            raise Refused("this node has no cluster", hint="see [[cluster]] in docs/configuration.md")
        try:
            rows: list[dict[str, Any]] = self.status()["clusters"]
            return rows
        except (NotRunning, AgentSilent):
            engine = self.engine
        reports = engine.servers() if isinstance(engine, Dispatching) else ()
        return cluster_rows(self._applied(), reports)

    def address_plan(self) -> list[dict[str, Any]]:
        """For each address of each cluster: the private addresses that it needs, routes, and how many
        public ones are saved (ipshare.net.addresses). Of the configuration alone. Raises Refused: there is
        no cluster."""
        if not self.config.clusters:
            raise Refused("this node has no cluster", hint="see [[cluster]] in docs/configuration.md")
        return plan_addresses(self.config)

    def _side_of_cluster(self, packet: bytes) -> Side | None:
        """Outer where the packet is to a cluster; None: it is to none."""
        to = packet[16:20] if packet[:1] and packet[0] >> 4 == 4 else packet[24:40]
        addresses = (address.packed for cluster in self._applied().clusters for address in cluster.addresses)
        return "outer" if to in addresses else None

    if TYPE_CHECKING:

        @property
        def engine(self) -> Engine: ...
        def status(self) -> dict[str, Any]: ...
        def _applied(self) -> Config: ...
