"""Checks of `[[mirror.observer]]`: nodes beside the pair that get its sessions (SYSTEMS.md S3.1).

Each address of a node of the pair and each of the observer's, of one family, are ends of a way between them.
Which node this file is for says `[node].name`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from ipshare.config import schema
from ipshare.config.checks import Finding
from ipshare.config.site import Site
from ipshare.config.units import bad_scope
from ipshare.model import host_prefix

MOST, MOST_PATHS = 4, 4


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
    ways = [address.version for address, _ in site.pair.node[0].paths]
    taken = {address: node.name for node in site.pair.node for address, _ in node.paths}
    for index, one in enumerate(mirror.observer):
        path = (*mirror._path, "observer", index, "paths")
        count = sum(ways.count(address.version) for address, _ in one.paths)
        if not one.paths or count > MOST_PATHS:
            message = (
                f"{one.name!r} has {count} ways to each node of the pair: 1 to {MOST_PATHS} are possible"
            )
            hint = "from each address of a node to each of the observer's is one, in each family"
            yield Finding(path, message, hint)
            continue
        for number, (address, _) in enumerate(one.paths):
            if address.version not in ways:
                message = f"no path of the pair is IPv{address.version}, as {address} is"
                yield Finding((*path, number), message, "use an address of a family that the pair has")
            elif scope := bad_scope(host_prefix(address)):
                message = f"{address} is {scope}: no way to another node"
                yield Finding((*path, number), message, "use an address that both nodes reach")
            elif address in taken:
                message = f"{address} is an address of {taken[address]!r} already"
                yield Finding((*path, number), message, "use an address of the observer's own")
        taken.update((address, one.name) for address, _ in one.paths)


CHECKS = [observers, names, ends]
