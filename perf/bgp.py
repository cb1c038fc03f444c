"""How fast a withdrawal is: the engine of a distribution point is killed, the upstream router's kernel
watched.

    python -m perf.bgp [--kills 20]

In the lab of tests/bgp_lab.py: BIRD upstream of C, which has another way by D. From the kill to the moment
when the router's kernel has changed its route, for each family; and until C announces again. Needs root,
bird2 and frr.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time

from ipshare.bench import machine
from tests.bgp_lab import MISSING, NETWORKS, BgpLab, bgp_lab

TARGET_MS = 50.0


def kill(world: BgpLab) -> dict[int, float]:
    """By family: ms from the kill to the router's kernel."""
    pid, found = world.engine_pid("C"), dict[int, float]()
    world.r1.read()
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    while len(found) < len(NETWORKS):
        assert time.monotonic() - began < 30, "the route does not change"
        lines = world.r1.wait_line(5.0)
        now = (time.monotonic() - began) * 1e3
        for family, network in NETWORKS.items():
            if family not in found and any(network in line for line in lines):
                found[family] = now
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="perf.bgp", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    a = parser.parse_args()
    if MISSING:
        print(f"needs {MISSING}", file=sys.stderr)
        return 2
    print(machine.this().describe(), file=sys.stderr)
    gone: dict[int, list[float]] = {family: [] for family in NETWORKS}
    back: list[float] = []
    with bgp_lab() as world:
        for _ in range(a.kills):
            began = time.monotonic()
            for family, ms in kill(world).items():
                gone[family].append(ms)
            world.settled()
            back.append(time.monotonic() - began)
    for family, times in gone.items():
        late = sum(1 for ms in times if ms > TARGET_MS)
        print(
            f"IPv{family} withdrawn after a kill: median {statistics.median(times):.1f} ms, "
            f"longest {max(times):.1f} ms of {len(times)}; above {TARGET_MS:g} ms: {late}"
        )
    print(f"announced again: median {statistics.median(back):.1f} s, longest {max(back):.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
