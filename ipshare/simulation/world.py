"""What is simulated: sites and workloads of a file or made up, bindings and their connections over them.

Bindings are arrays: binding -> workload, binding -> open connections. Only their sums by workload are
needed while events run, so that a million of them cost no more than the first count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ipshare.errors import Refused
from ipshare.placement.model import Layout, Node, Site, Workload

WORKLOADS_PER_SITE = 10
FILLED = 0.7
"""How full made-up sites are: below one, or nothing that fails could go anywhere."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Everything that is not computed. Times in seconds; latencies with a median are lognormal."""

    points: int = 10
    """Distribution points; each probes every site, and gets the same share of the clients."""
    duration_s: float = 30 * 86400.0
    site_mtbf_s: float = 365 * 86400.0
    site_mttr_s: float = 4 * 3600.0
    link_mtbf_s: float = 90 * 86400.0
    """Of one link between one distribution point and one site."""
    link_mttr_s: float = 600.0
    interval_s: float = 1.0
    fall: int = 3
    probe_timeout_s: float = 0.5
    report_median_s: float = 0.02
    """From an observer to the director, and from there to a node."""
    lease_s: float = 10.0
    """An exclusive workload's: its target starts only after it."""
    start_median_s: float = 20.0
    rollout_median_s: float = 0.02
    sigma: float = 0.5
    """Of all lognormal latencies."""
    binding_us: float = 2.0
    """What one binding adds to the change of a table."""
    silent: float = 0.001
    """Share of a roll-out's nodes that do not answer; they are waited for until they withdrew themselves."""
    withdraw_after_s: float = 10.0
    connections: float = 5.0
    """Open connections of a binding, on average (geometric)."""


@dataclass(frozen=True, slots=True)
class World:
    layout: Layout
    bindings: NDArray[np.int64]
    """How many each workload has."""
    connections: NDArray[np.int64]
    """How many are open to each workload."""


def made_up(sites: int, rng: np.random.Generator) -> Layout:
    """Sites of one kind, each FILLED with workloads of differing size; some pairs are kept apart."""
    count = sites * WORKLOADS_PER_SITE
    sizes = np.round(rng.lognormal(0.0, 0.5, count) + 0.05, 3)
    names = [f"s{number}" for number in range(sites)]
    held = sizes.reshape(sites, WORKLOADS_PER_SITE).sum(axis=1) / FILLED
    workloads = []
    for number, size in enumerate(sizes.tolist()):
        pair = (
            frozenset({f"pair{number // 20 % max(1, sites // 2)}"}) if number % 10 == 0 else frozenset[str]()
        )
        home = names[number // WORKLOADS_PER_SITE]
        workloads.append(Workload(f"w{number}", size, home, apart=pair))
    every = tuple(Site(name, float(capacity)) for name, capacity in zip(names, held, strict=True))
    return Layout(every, tuple(Node(site.name, site.name, site.capacity) for site in every), tuple(workloads))


def world(layout: Layout, bindings: int, assumed: Assumptions, rng: np.random.Generator) -> World:
    """`bindings` over the workloads, by size. Raises Refused where there is nothing to simulate."""
    if not layout.workloads or len(layout.sites) < 2:
        raise Refused("nothing to simulate", hint="it takes two sites and a workload: [[site]], [[workload]]")
    owners = _owners([workload.size for workload in layout.workloads], bindings, rng)
    open_ = rng.geometric(1 / (1 + assumed.connections), bindings) - 1
    count = len(layout.workloads)
    sums = np.bincount(owners, weights=open_, minlength=count)
    return World(layout, np.bincount(owners, minlength=count), sums.astype(np.int64))


def _owners(sizes: Sequence[float], bindings: int, rng: np.random.Generator) -> NDArray[np.int64]:
    edges = np.cumsum(np.asarray(sizes, dtype=float))
    places = np.searchsorted(edges, rng.random(bindings) * edges[-1], side="right")
    owners: NDArray[np.int64] = np.minimum(
        places, len(edges) - 1
    )  # a product may be rounded up to the last edge
    return owners
