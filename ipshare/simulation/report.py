"""Tally -> one record for people and programs: counts, distributions over bindings, and all assumptions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from ipshare.simulation.run import Tally
from ipshare.simulation.world import Assumptions, World

PERCENTILES = {"p50_s": 50.0, "p90_s": 90.0, "p99_s": 99.0}


def record(world: World, assumed: Assumptions, tally: Tally) -> dict[str, Any]:
    """Distributions are over bindings: one for each binding that had to wait, each time it had to."""
    bindings = int(world.bindings.sum())
    return {
        "sites": len(world.layout.sites),
        "workloads": len(world.layout.workloads),
        "bindings": bindings,
        "connections": int(world.connections.sum()),
        "site_failures": tally.site_failures,
        "link_failures": tally.link_failures,
        "plans": tally.plans,
        "moves": tally.moves,
        "stuck": tally.stuck,
        "inexact": tally.inexact,
        "bindings_moved": tally.bindings_moved,
        "connections_broken": tally.connections_broken,
        "availability": 1 - tally.down_binding_s / (bindings * assumed.duration_s),
        "times": {kind: distribution(samples) for kind, samples in sorted(tally.samples.items())},
        "assumptions": asdict(assumed),
    }


def distribution(samples: list[tuple[float, int]]) -> dict[str, float]:
    """Of times that stand for several bindings each."""
    counted = [(second, number) for second, number in samples if number]
    seconds = np.asarray([second for second, _ in counted])
    weights = np.asarray([number for _, number in counted])
    if not counted:
        return {"count": 0, **dict.fromkeys(PERCENTILES, 0.0), "max_s": 0.0}
    order = np.argsort(seconds)
    seconds, reached = seconds[order], np.cumsum(weights[order])
    found = {
        name: float(seconds[np.searchsorted(reached, share / 100 * reached[-1])])
        for name, share in PERCENTILES.items()
    }
    return {"count": int(reached[-1]), **found, "max_s": float(seconds[-1])}
