"""The recipe of NAT: what comes from inside, by a device towards the inside, goes into the engine (S3.1,
S3.5).

    p+3   from INSIDE iif DEVICE lookup nat_table

In that table: what is for the inside itself, for a local network, or for no router at all (multicast,
link-local) is thrown back to the rules that follow; the rest, pool addresses too (hairpinning), goes into
the inner device. While the engine is away it goes nowhere: untranslated it must not leave. Pool addresses
are routed into the outer device by the service table. The node's own packets, a pair's too, come in by no
device and meet none of this. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import collapse_addresses, ip_network

from ipshare.model import Prefix
from ipshare.net.actions import Action, RouteAdd, RuleAdd

STAYS: tuple[Prefix, ...] = (
    ip_network("169.254.0.0/16"),
    ip_network("224.0.0.0/4"),
    ip_network("fe80::/10"),
    ip_network("ff00::/8"),
)
"""Destinations that are never translated, whoever sends there."""


@dataclass(frozen=True, slots=True)
class Inside:
    """Packets from `source` that come in by `device` are translated."""

    source: Prefix
    device: str


def nat_routes(
    table: int, insides: Iterable[Inside], local: Iterable[Prefix], device: str, metrics: tuple[int, int]
) -> Iterator[Action]:
    """The routes of the NAT's table, into `device`. local: more destinations that stay as they are. metrics:
    of routes into our devices, and of what answers while the engine is away."""
    own = {inside.source for inside in insides}
    for family in sorted({prefix.version for prefix in own}):
        stays = [p for p in {*own, *local, *STAYS} if p.version == family]
        for prefix in collapse_addresses(stays):  # type: ignore[type-var]
            yield RouteAdd(table, str(prefix), "throw", metric=metrics[0])
        everything = "0.0.0.0/0" if family == 4 else "::/0"
        yield RouteAdd(table, everything, "blackhole", metric=metrics[1])
        yield RouteAdd(table, everything, device=device, metric=metrics[0])


def nat_rules(family: int, priority: int, table: int, insides: Iterable[Inside]) -> Iterator[Action]:
    for inside in insides:
        if inside.source.version == family:
            yield RuleAdd(family, priority, iif=inside.device, source=str(inside.source), table=table)
