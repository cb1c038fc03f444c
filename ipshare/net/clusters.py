"""clusters: what this machine has against a cluster: no such device, or a subnet that is not on-link at it.

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
