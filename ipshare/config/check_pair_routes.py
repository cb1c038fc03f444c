"""Checks of `[[pair.route]]`: one next hop for each node, and what only one of the two kinds has. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ipshare.config import schema
from ipshare.config.checks import Finding
from ipshare.config.site import Site

LINUX_ONLY = ("interface", "namespace", "table")


def routes(site: Site, pair: schema.Pair) -> Iterator[Finding]:
    for index, route in enumerate(pair.route):
        path = (*pair._path, "route", index)
        if len(route.via) != 2:
            message = f"{len(route.via)} next hops: a route has one for each node"
            yield Finding(
                (*path, "via"), message, "write both nodes' addresses, in the order of [[pair.node]]"
            )
        elif any(address.version != route.prefix.version for address in route.via):
            message = f"{route.prefix} needs next hops of IPv{route.prefix.version}"
            yield Finding((*path, "via"), message, "write addresses of the prefix's family")
        elif route.via[0] == route.via[1]:
            yield Finding((*path, "via"), "both next hops are the same", "write each node's own address")
        if route.kind == "linux" and route.command:
            yield Finding((*path, "command"), 'command is for kind = "command"', "leave it out")
        if route.kind == "command":
            if not route.command or not route.command[0].startswith("/"):
                yield Finding(
                    path, "a command needs an absolute path", 'write command = ["/usr/local/bin/x"]'
                )
            for key in LINUX_ONLY:
                if getattr(route, key) is not None:
                    yield Finding((*path, key), f'{key} is for kind = "linux"', "leave it out")
