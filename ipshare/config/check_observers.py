"""Checks of `[[mirror.observer]]`: nodes beside the pair that get its sessions (SYSTEMS.md S3.1).

An observer's paths go by the order of the pair's: each end is an address of its own, of the family of that
path. Which node this file is for says `[node].name`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from ipshare.config import schema
from ipshare.config.checks import Finding
from ipshare.config.site import Site
from ipshare.config.units import bad_scope
from ipshare.model import host_prefix

MOST = 4


def is_observer(site: Site) -> bool:
    """Whether this node is one, by its name."""
    if site.mirror is None or "observer" in site.mirror._broken or "name" in site.node._broken:
        return False
    return site.node.name in {one.name for one in site.mirror.observer if "name" not in one._broken}


def observers(site: Site, mirror: schema.Mirror) -> Iterator[Finding]:
    path = (*mirror._path, "observer")
    if len(mirror.observer) > MOST:
        message = f"{len(mirror.observer)} observers: a pair has at most {MOST}"
        yield Finding((*path, MOST), message, "leave some out")
    if mirror.observer and mirror.transport == "redis":
        message = (
            "observers are for transport udp: whoever reads the database needs no mirror of the engine's"
        )
        yield Finding((*path, 0), message, 'leave them out, or write transport = "udp"')


def names(site: Site, mirror: schema.Mirror) -> Iterator[Finding]:
    seen = {node.name: "half of the pair" for node in site.pair.node} if site.pair is not None else {}
    for index, one in enumerate(mirror.observer):
        if one.name in seen:
            message = f"{one.name!r} is {seen[one.name]} already"
            path = (*mirror._path, "observer", index, "name")
            yield Finding(path, message, "an observer is a node of its own")
        seen[one.name] = "an observer"


def ends(site: Site, mirror: schema.Mirror) -> Iterator[Finding]:
    if site.pair is None or not site.pair.node:
        return
    ways = site.pair.node[0].paths
    taken = {address: node.name for node in site.pair.node for address, _ in node.paths}
    for index, one in enumerate(mirror.observer):
        path = (*mirror._path, "observer", index, "paths")
        if not 1 <= len(one.paths) <= len(ways):
            message = f"{one.name!r} has {len(one.paths)} paths, and the pair has {len(ways)}"
            yield Finding(path, message, "write its end for each of the pair's paths, in the same order")
            continue
        for number, (address, _) in enumerate(one.paths):
            if address.version != ways[number][0].version:
                message = f"{address} is IPv{address.version}, the pair's path IPv{ways[number][0].version}"
                yield Finding((*path, number), message, "paths go by their order")
            elif scope := bad_scope(host_prefix(address)):
                message = f"{address} is {scope}: no way to another node"
                yield Finding((*path, number), message, "use an address that both nodes reach")
            elif address in taken:
                message = f"{address} is an address of {taken[address]!r} already"
                yield Finding((*path, number), message, "use an address of the observer's own")
        taken.update((address, one.name) for address, _ in one.paths)


CHECKS = [observers, names, ends]
