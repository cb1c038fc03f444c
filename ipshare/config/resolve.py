"""What a binding means among networks and end points: its Global Network, its offset, its local prefix.

One set of rules for the checks, for building the Config and for bulk rows:
- the offset of a binding is counted from the first address of its Global Network;
- without `local`, a rewriting end point serves it at the same offset in its first local network of the
  family;
- behind an encapsulated path the packet keeps its destination: there is no local prefix.
Pure. Functions raise schema.Unreadable where a key that they need was refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from ipshare.config import schema
from ipshare.config.site import Site
from ipshare.model import Prefix, contains, offset_in, prefix_at

T = TypeVar("T", bound=schema.Table)


def readable(tables: Iterable[T], *fields: str) -> Iterator[T]:
    """The tables in which none of `fields` was refused."""
    return (table for table in tables if not table._broken.intersection(fields))


def network_of(networks: Sequence[schema.Network], prefix: Prefix) -> schema.Network | None:
    """The Global Network that covers `prefix`."""
    return next((n for n in readable(networks, "prefix") if contains(n.prefix, prefix)), None)


def first_local(endpoint: schema.Endpoint, family: int) -> Prefix | None:
    """The local network that defaults and policies are counted in."""
    return next((prefix for prefix in endpoint.local if prefix.version == family), None)


def is_encapsulated(endpoint: schema.Endpoint) -> bool:
    return endpoint.path != "rewrite"


def local_prefix(
    prefix: Prefix, given: Prefix | None, network: Prefix, endpoint: schema.Endpoint
) -> Prefix | None:
    """Where a rewriting end point serves `prefix`; None where it does not fit, or has no place there."""
    if given is not None:
        return given
    base = first_local(endpoint, prefix.version)
    return prefix_at(base, offset_in(network, prefix), prefix.prefixlen) if base is not None else None


def named(tables: Iterable[T], name: str) -> T | None:
    """The table of that name (every kind that is referred to has one)."""
    return next((table for table in readable(tables, "name") if getattr(table, "name", None) == name), None)


def own_name(site: Site, kind: str) -> str | None:
    """Name of the end point or distribution point that this node is."""
    chosen: str | None = getattr(site.node, kind)
    tables: list[schema.Endpoint | schema.Distribution] = site.tables(kind)
    return chosen or next((t.name for t in readable(tables, "is_self", "name") if t.is_self), None)
