"""cluster_weights: how much of its weight each server of a cluster gets of new connections, and why
(SYSTEMS.md S2.5).

One pure function. An effective weight is the configured one times a factor for each thing that counts:
time to answer, connections that it has, new ones, and how long it has been back. The best live server has
factor 1; no live one has less than ``least``, so that a slow server is still measured by real connections,
and can become better. Drained and failed servers have none. Factors are rounded to twentieths: what hardly
changes is not told to the engine again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

STEPS = 20
"""An effective weight is the configured one times a whole number up to this."""
NOISE_S = 0.002
"""Answers that differ by less than this are equally fast: a scheduler alone does that."""
SLOWEST = 0.01
"""What a server begins with that has just come back; where all have, they have it alike."""
FEW = 2
"""Connections on top of everybody's, so that the first ones do not count as load."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One server. ``response_s``: time that its probes take, None: unknown; ``active``: connections that
    it has, at most; ``new_s``: new ones in a second; ``up_s``: how long it has been back, None: it never
    was away."""

    weight: int
    is_live: bool = True
    is_draining: bool = False
    response_s: float | None = None
    active: int = 0
    new_s: float = 0.0
    up_s: float | None = None

    @property
    def takes(self) -> bool:
        return self.is_live and not self.is_draining and self.weight > 0


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a server gets. ``weight``: for the engine, 0: nothing new; ``share``: of all new connections;
    ``factors``: by name, those below 1."""

    weight: int
    share: float
    factors: Mapping[str, float] = field(default_factory=dict)


def effective(
    servers: Sequence[Measured], *, by: Collection[str] = (), slow_start_s: float = 0.0, least: float = 0.1
) -> list[Chosen]:
    """One for each server, in their order. ``by``: "active", "new", "response". ``least``: above 0, at
    most 1."""
    live = [server for server in servers if server.takes]
    factors = [_factors(server, live, by, slow_start_s) if server.takes else {} for server in servers]
    products = [_product(each) for each in factors]
    best = max((p for p, server in zip(products, servers, strict=True) if server.takes), default=1.0)
    weights = [
        server.weight * max(round(max(product / best, least) * STEPS), 1) if server.takes else 0
        for server, product in zip(servers, products, strict=True)
    ]
    total = sum(weights) or 1
    return [
        Chosen(weight, weight / total, {name: f for name, f in each.items() if f < 1.0})
        for weight, each in zip(weights, factors, strict=True)
    ]


def _product(factors: Mapping[str, float]) -> float:
    product = 1.0
    for factor in factors.values():
        product *= factor
    return product


def _factors(
    server: Measured, live: Sequence[Measured], by: Collection[str], slow_start_s: float
) -> dict[str, float]:
    found = {}
    if "response" in by:
        found["response"] = _response(server, live)
    if "active" in by:
        found["active"] = _load(server.active, server.weight, [(s.active, s.weight) for s in live])
    if "new" in by:
        found["new"] = _load(server.new_s, server.weight, [(s.new_s, s.weight) for s in live])
    if slow_start_s > 0 and server.up_s is not None:
        found["slow_start"] = min(max(server.up_s / slow_start_s, SLOWEST), 1.0)
    return found


def _response(server: Measured, live: Sequence[Measured]) -> float:
    """The fastest one's time over its own: twice as slow, half as much."""
    known = [s.response_s for s in live if s.response_s is not None]
    if server.response_s is None or not known:
        return 1.0
    return min((min(known) + NOISE_S) / max(server.response_s, NOISE_S), 1.0)


def _load(mine: float, weight: int, all_of_them: Sequence[tuple[float, int]]) -> float:
    """Everybody's load for a unit of weight over its own. The root: half of the way each time, so that
    what is measured because of the last answer does not swing."""
    due = (sum(load for load, _ in all_of_them) + FEW * len(all_of_them)) / sum(w for _, w in all_of_them)
    return float(min((due / ((mine + FEW) / weight)) ** 0.5, 1.0))
