"""Site without mistakes -> clusters (SYSTEMS.md S2.4). Pure."""

from __future__ import annotations

from ipshare import model
from ipshare.config import schema
from ipshare.config.site import Site

HTTP_PORT = 80


def clusters(site: Site) -> tuple[model.Cluster, ...]:
    return tuple(_cluster(site, cluster) for cluster in site.cluster)


def _cluster(site: Site, cluster: schema.Cluster) -> model.Cluster:
    return model.Cluster(
        name=cluster.name,
        addresses=tuple(cluster.address),
        subnets=tuple(cluster.subnet),
        interface=cluster.interface,
        by=tuple(sorted(set(cluster.by))),
        slow_start_s=cluster.slow_start,
        least=cluster.least / 100,
        routers=tuple(cluster.routers),
        servers=tuple(
            model.ClusterServer(
                name=server.name,
                addresses=tuple(server.address),
                weight=server.weight,
                drain=server.drain,
                place=site.document.place((*cluster._path, "server", index)),
            )
            for index, server in enumerate(cluster.server)
        ),
        probe=_probe(cluster.probe),
        place=site.document.place(cluster._path),
    )


def _probe(probe: schema.ClusterProbe) -> model.ClusterProbe:
    return model.ClusterProbe(
        kind=probe.kind,
        port=probe.port if probe.port is not None else HTTP_PORT if probe.kind == "http" else 0,
        path=probe.path,
        interval_s=probe.interval,
        timeout_s=probe.timeout,
        fall=probe.fall,
        rise=probe.rise,
    )
