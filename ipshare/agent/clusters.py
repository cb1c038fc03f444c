"""clusters: what is known of a cluster's servers, and the engine's set of them brought in line with it.

Probes say who lives and how fast (``heard``); the engine says what each has (``Dispatching.servers``);
ipshare.engine.cluster_weights makes weights of both. ``align`` is the one way by which the engine learns
of servers, at every pass of the reconciler and after every probe that changed something. A server that
left the file stays in the engine, drained, until its last connection is over. ``heard`` comes from the
event loop, everything else from the thread of all work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ipshare.engine.cluster_weights import STEPS, Chosen, Measured, effective
from ipshare.engine.dispatching import ClusterSetting, Dispatching, ServerReport, ServerSetting, ServerState
from ipshare.engine.protocol import Engine
from ipshare.errors import Refused
from ipshare.model import Address, Cluster, ClusterServer, Config

SMOOTH = 0.3
"""Weight of the latest measurement of a time or a rate."""
RATE_S = 1.0
"""Least time over which new connections are counted."""
Key = tuple[Address, Address]
"""(cluster, server)"""


@dataclass
class Health:
    """What probes found. ``since``: when it became live; None: it was so from the beginning."""

    is_live: bool = True
    since: float | None = None
    response_s: float | None = None
    failed: int = 0  # in a row
    answered: int = 0
    probes: int = 0

    def heard(self, response_s: float | None, fall: int, rise: int, now: float) -> bool:
        """After another probe; True: it lives no more, or again. The very first one decides alone."""
        self.probes += 1
        was = self.is_live
        if response_s is None:
            self.failed, self.answered = self.failed + 1, 0
            self.is_live = was and self.failed < fall and self.probes > 1
        else:
            self.failed, self.answered = 0, self.answered + 1
            before = self.response_s if self.response_s is not None and was else response_s
            self.response_s = before + SMOOTH * (response_s - before)
            self.is_live = was or self.answered >= rise
        if self.is_live and not was:
            self.since = now
        return self.is_live != was


@dataclass
class _Rate:
    """New connections in a second, of one server."""

    opened: int
    at: float
    value: float = 0.0

    def look(self, opened: int, now: float) -> None:
        passed = now - self.at
        if passed < RATE_S:
            return
        new = max(opened - self.opened, 0) / passed  # an engine that was started again counts from 0
        self.opened, self.at, self.value = opened, now, self.value + SMOOTH * (new - self.value)


@dataclass
class Clusters:
    """Of one node."""

    clock: Callable[[], float] = time.monotonic
    health: dict[Key, Health] = field(default_factory=dict)
    _rates: dict[Address, _Rate] = field(default_factory=dict)
    _known: set[Address] = field(default_factory=set)
    _chosen: dict[Key, Chosen] = field(default_factory=dict)
    _told: tuple[str, tuple[ClusterSetting, ...]] = ("", ())

    def heard(self, cluster: Cluster, key: Key, response_s: float | None) -> bool:
        """A probe's answer, None: none came; True: the server lives no more, or again."""
        probe = cluster.probe
        found = self.health.setdefault(key, Health())
        return found.heard(response_s, probe.fall, probe.rise, self.clock())

    def align(self, engine: Engine, config: Config) -> bool:
        """Tells the engine, where that is something new; True: it was. Raises Refused: it cannot."""
        if not isinstance(engine, Dispatching):
            if not config.clusters:
                return False
            kind = engine.info().kind
            raise Refused(f"engine {kind} dispatches to no servers", hint="leave [[cluster]] out")
        reports = engine.servers()
        if not config.clusters and not reports:
            return False
        settings = tuple(self._settings(config, reports))
        told = (engine.info().boot_id, settings)
        if told == self._told and reports:
            return False
        engine.set_clusters(settings)
        self._told = told
        return True

    # ---- what the engine shall have ------------------------------------------

    def _settings(self, config: Config, reports: tuple[ServerReport, ...]) -> Iterator[ClusterSetting]:
        now, by_key = self.clock(), {(r.cluster, r.address): r for r in reports}
        for report in reports:
            self._rates.setdefault(report.address, _Rate(report.opened, now)).look(report.opened, now)
        self._chosen = {}
        for cluster in config.clusters:
            for address, servers in cluster.halves():
                yield ClusterSetting(
                    address,
                    cluster.interface,
                    (*self._servers(cluster, address, servers, by_key), *_leaving(address, servers, reports)),
                )
        self._known = {address for cluster in config.clusters for address in cluster.addresses}
        wanted = {(a, s) for c in config.clusters for a, servers in c.halves() for _, s in servers}
        self.health = {key: found for key, found in self.health.items() if key in wanted}

    def _servers(
        self,
        cluster: Cluster,
        address: Address,
        servers: tuple[tuple[ClusterServer, Address], ...],
        reports: dict[Key, ServerReport],
    ) -> Iterator[ServerSetting]:
        keys = [(address, own) for _, own in servers]
        measured = [
            self._measured(server, key, reports.get(key))
            for (server, _), key in zip(servers, keys, strict=True)
        ]
        chosen = effective(measured, by=cluster.by, slow_start_s=cluster.slow_start_s, least=cluster.least)
        for (server, own), key, each in zip(servers, keys, chosen, strict=True):
            self._chosen[key] = each
            yield ServerSetting(own, each.weight, self._state(server, key))

    def _measured(self, server: ClusterServer, key: Key, report: ServerReport | None) -> Measured:
        health = self.health.setdefault(key, self._new(key, report))
        rate = self._rates.get(key[1])
        return Measured(
            weight=server.weight,
            is_live=health.is_live,
            is_draining=server.drain,
            response_s=health.response_s,
            active=report.open if report is not None else 0,
            new_s=rate.value if rate is not None else 0.0,
            up_s=self.clock() - health.since if health.since is not None else None,
        )

    def _new(self, key: Key, report: ServerReport | None) -> Health:
        """One that joins a cluster which is there already begins slowly; one that failed under an earlier
        agent has to answer first."""
        is_live = report is None or report.state is not ServerState.FAILED
        return Health(is_live, since=self.clock() if key[0] in self._known else None)

    def _state(self, server: ClusterServer, key: Key) -> ServerState:
        if not self.health[key].is_live:
            return ServerState.FAILED
        return ServerState.DRAINING if server.drain else ServerState.UP

    # ---- what is to be seen ---------------------------------------------------

    def report(self, engine: Engine, config: Config) -> list[dict[str, Any]]:
        """A row for each cluster's address, with its servers."""
        reports = engine.servers() if isinstance(engine, Dispatching) else ()
        return cluster_rows(config, reports, self.health, self._chosen, self._rates_of())

    def _rates_of(self) -> dict[Address, float]:
        return {address: rate.value for address, rate in self._rates.items()}

    def troubles(self, config: Config) -> list[str]:
        """A sentence for each server that does not answer, and for each cluster where none is left."""
        found = []
        for cluster in config.clusters:
            for address, servers in cluster.halves():
                dead = [s.name for s, own in servers if not self.health.get((address, own), Health()).is_live]
                if len(dead) == len(servers):
                    found.append(f"cluster {cluster.name}: no server answers at {address}'s subnet")
                elif dead:
                    found.append(f"cluster {cluster.name}: {', '.join(dead)} of {address} does not answer")
        return found


def _leaving(
    address: Address, servers: Iterable[tuple[ClusterServer, Address]], reports: Iterable[ServerReport]
) -> Iterator[ServerSetting]:
    """Servers that are in the file no more, and have connections still."""
    wanted = {own for _, own in servers}
    for report in reports:
        if report.cluster == address and report.address not in wanted and report.left:
            yield ServerSetting(report.address, 0, ServerState.DRAINING)


def cluster_rows(
    config: Config,
    reports: Iterable[ServerReport],
    health: dict[Key, Health] | None = None,
    chosen: dict[Key, Chosen] | None = None,
    rates: dict[Address, float] | None = None,
) -> list[dict[str, Any]]:
    """What ``ipshare show clusters`` shows. ``health`` None: no agent probes."""
    by_address: dict[Address, list[ServerReport]] = {}
    for report in reports:
        by_address.setdefault(report.cluster, []).append(report)
    rows = []
    for cluster in config.clusters:
        for address, servers in cluster.halves():
            names = {own: server for server, own in servers}
            found = by_address.get(address, [])
            total = sum(r.weight for r in found if r.state is ServerState.UP) or 1
            row = [_row(r, names.get(r.address), total, health, chosen, rates) for r in found]
            rows.append(
                {"cluster": cluster.name, "address": str(address), "by": list(cluster.by), "servers": row}
            )
    return rows


def _row(
    report: ServerReport,
    server: ClusterServer | None,
    total: int,
    health: dict[Key, Health] | None,
    chosen: dict[Key, Chosen] | None,
    rates: dict[Address, float] | None,
) -> dict[str, Any]:
    key = (report.cluster, report.address)
    found = (health or {}).get(key)
    return {
        "name": server.name if server is not None else None,
        "address": str(report.address),
        "state": report.state.value if server is not None else "removed",
        "weight": server.weight if server is not None else 0,
        "effective": round(report.weight / STEPS, 3),
        "share": round(report.weight / total, 4) if report.state is ServerState.UP else 0.0,
        "factors": {k: round(v, 3) for k, v in chosen[key].factors.items()}
        if chosen and key in chosen
        else {},
        "connections_at_most": report.left,
        "open_at_most": report.open,
        "new_per_s": round((rates or {}).get(report.address, 0.0), 1),
        "opened": report.opened,
        "packets": report.packets,
        "bytes": report.bytes,
        "untracked": report.untracked,
        "unsent": report.unsent,
        "response_ms": round(found.response_s * 1e3, 3) if found and found.response_s is not None else None,
        "mac": report.mac,
    }
