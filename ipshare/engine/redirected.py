"""redirected: what an end point sends on after a workload has left it alive (DESIGN.md 9). Pure.

Packets that still come to the workload's local address here are translated once more, as a distribution point
does: that local address is a Global Network of its own, bound to the workload's local address at the other
end point. The tables have one record of each kind more, the routes a longer prefix into the outer device;
nothing of the packet path is new, and the end point's own translation is untouched. Paths that keep the
destination come to a tunnel address, which many share, and are not redirected (``unable`` says so).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ipshare.engine.rebound import local_at
from ipshare.model import Config, Prefix


@dataclass(frozen=True, slots=True)
class Leg:
    """``here``: where packets come that go on to ``there``, local addresses at end point ``to``."""

    here: Prefix
    there: Prefix
    to: str


def legs(config: Config) -> Iterator[Leg]:
    """Of the configuration's redirects, those that are possible."""
    mine = config.self_endpoint
    for redirect in config.redirects:
        if mine is None or unable(config, redirect.prefix, redirect.to):
            continue
        here, there = (
            local_at(config, redirect.prefix, mine.name),
            local_at(config, redirect.prefix, redirect.to),
        )
        if here is not None and there is not None:
            yield Leg(here, there, redirect.to)


def unable(config: Config, prefix: Prefix, to: str) -> str:
    """Why what comes here for ``prefix`` cannot be redirected to end point ``to``; "": it can."""
    mine = config.self_endpoint
    other = next((endpoint for endpoint in config.endpoints if endpoint.name == to), None)
    if mine is None:
        return f"node {config.node.name} is no end point"
    if config.self_distribution is not None:
        return f"node {config.node.name} is a distribution point as well"
    if other is None:
        return f"end point {to} is not known at {config.node.name}"
    if config.vpp is not None:
        return "VPP at the end point that is left does not redirect"
    for endpoint in (mine, other):
        if endpoint.is_encapsulated:
            return f"the path to {endpoint.name} is {endpoint.path.value}: only `rewrite` is redirected"
    for name in (mine.name, to):
        if local_at(config, prefix, name) is None:
            return f"{prefix} has no local address at {name}"
    return ""
