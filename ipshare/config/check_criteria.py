"""Checks of `[[pair.criterion]]`: an address where one is asked, and no more needed than there are. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ipshare.config import schema
from ipshare.config.checks import Finding
from ipshare.config.site import Site
from ipshare.config.units import bad_scope
from ipshare.model import host_prefix

MOST, SHORTEST_S, LONGEST_S = 16, 0.01, 60.0


def criteria(site: Site, pair: schema.Pair) -> Iterator[Finding]:
    if len(pair.criterion) > MOST:
        message = f"{len(pair.criterion)} criteria: a pair has at most {MOST}"
        yield Finding((*pair._path, "criterion", MOST), message, "leave some out")
    if pair.criteria_needed is not None and pair.criteria_needed > len(pair.criterion):
        message = f"{pair.criteria_needed} criteria are needed, and there are {len(pair.criterion)}"
        yield Finding(
            (*pair._path, "criteria_needed"), message, "need fewer, or write more [[pair.criterion]]"
        )
    own = {address for node in pair.node for address, _ in node.paths} | {vip.address for vip in pair.vip}
    for index, one in enumerate(pair.criterion):
        path = (*pair._path, "criterion", index)
        if (one.kind == "link") != (one.address is None):
            message = "a link has no address" if one.kind == "link" else f"whom does this {one.kind} ask?"
            yield Finding(path, message, "leave address out" if one.address else "write address")
        elif one.address is not None:
            scope = bad_scope(host_prefix(one.address))
            if scope not in (None, "link-local"):
                yield Finding((*path, "address"), f"{one.address} is {scope}", "use the address of a gateway")
            elif one.address in own:
                message = f"{one.address} is an address of the pair itself"
                yield Finding((*path, "address"), message, "use the address of a gateway")
        if not SHORTEST_S <= one.interval <= LONGEST_S:
            message = f"interval {one.interval:g} s is not between 10ms and 60s"
            yield Finding((*path, "interval"), message, 'write for example "500ms"')
