"""clusters: what this machine has against a cluster: no such device, a subnet that is not on-link at it or,
where the device is VPP's, no way of the kernel's to the servers, which it probes.

Pure: what the machine has is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ipshare.errors import Problem
from ipshare.model import Cluster, Prefix, contains


def cluster_problems(
    clusters: Iterable[Cluster], devices: Iterable[str], routes: Iterable[tuple[Prefix, str]]
) -> list[Problem]:
    """``routes``: (prefix, device) of table main."""
    return list(_problems(clusters, set(devices), list(routes)))


def _problems(
    clusters: Iterable[Cluster], devices: set[str], routes: list[tuple[Prefix, str]]
) -> Iterator[Problem]:
    for cluster in clusters:
        if cluster.interface not in devices:
            text = f"cluster {cluster.name}: there is no device {cluster.interface}"
            yield Problem("this machine", 0, 0, "", text, f"known: {', '.join(sorted(devices))}")
            continue
        for subnet in cluster.subnets:
            on_link = (
                prefix for prefix, device in routes if device == cluster.interface and prefix.prefixlen
            )
            if not any(contains(prefix, subnet) for prefix in on_link):
                text = f"cluster {cluster.name}: {subnet} is not on-link at {cluster.interface}"
                hint = f"give {cluster.interface} an address in it; servers elsewhere need encapsulation"
                yield Problem("this machine", 0, 0, "", text, hint)


def unprobed(clusters: Iterable[Cluster], routes: Iterable[tuple[Prefix, str]]) -> list[Problem]:
    """On VPP: subnets with servers that no route of the kernel leads to."""
    known = [prefix for prefix, _ in routes]
    return [
        Problem(
            "this machine",
            0,
            0,
            "",
            f"cluster {cluster.name}: the kernel has no route to {subnet}: all probes would fail",
            "probes go by the kernel, not by VPP: give it a device on that subnet (docs/clusters.md)",
        )
        for cluster in clusters
        for subnet in cluster.subnets
        if not any(contains(prefix, subnet) for prefix in known)
    ]
