"""scenario: one pair of gateways under load: killed, switched over, resynchronised; a dict of figures.

Load and probes never pause. A kill: the active node dies, the time until probes of both families are answered
again counts from that instant; the dead one is started as a standby and has everything; then the next one. So no
kill meets a pair that is not complete, as one fault at a time is what a pair is for.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.engine_lab import run as inside_run
from tests.pair_lab import until

from .load import Load
from .road import Road

WINDOW_NS = 1_500_000_000  # of probes that are looked at after a fault
STEADY_S = 3.0
LOSS = "udp dport 6082 numgen random mod 100 < 30 drop"


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _busy_s() -> float:
    """Of all processors, since the machine's start."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    ticks = [int(w) for w in words]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _cpu_s(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(words[11]) + int(words[12])
    return total / os.sysconf("SC_CLK_TCK")


def steady(load: Load, gates: Any) -> dict[str, float]:
    """Shares of one processor, while nothing happens."""
    at, used, busy, own = time.monotonic(), load.report()["cpu_s"], _busy_s(), _cpu_s(gates.pids())
    time.sleep(STEADY_S)
    passed = time.monotonic() - at
    return {
        "load": (load.report()["cpu_s"] - used) / passed,
        "gateways": (_cpu_s(gates.pids()) - own) / passed,
        "machine": (_busy_s() - busy) / passed,
    }


def _faults(load: Load, times: int, fault: Callable[[], int], after: Callable[[], None]) -> list[list[dict[str, int]]]:
    found = []
    for number in range(times):
        at_ns = fault()
        after()
        left = at_ns + WINDOW_NS - time.monotonic_ns()
        if left > 0:
            time.sleep(left / 1e9)
        found.append(load.gap(at_ns, at_ns + WINDOW_NS))
        worst = [f"{g['restored_ns'] / 1e6:.1f} ms ({g['lost']} lost)" for g in found[-1]]
        print(f"{number + 1} of {times}: {', '.join(worst)}", file=sys.stderr)
    return found


def _milliseconds(found: list[list[dict[str, int]]], what: str) -> dict[str, Any]:
    """Of the slower family of each fault; never: those that were not restored in the window."""
    worst = [max(both, key=lambda g: g[what]) for both in found]
    values = [0.0 if not g["lost"] else g[what] / 1e6 for g in worst]
    return {
        "p50": statistics.median(values),
        "p99": percentile(values, 0.99),
        "max": max(values),
        "never": sum(g["lost"] > 0 and g["restored_ns"] < 0 for both in found for g in both),
        "probes_lost": sum(g["lost"] for both in found for g in both),
        "probe_late_ms": max(g["late_ns"] for both in found for g in both) / 1e6,
        "all": [round(v, 2) for v in values],
    }


def _resync(load: Load, gates: Any, road: Road) -> dict[str, Any]:
    """A standby that begins with nothing, under load, while a third of the mirror's datagrams is lost."""
    for node in (road.a, road.b):
        inside_run(node.name, "nft add table inet lossy")
        inside_run(node.name, "nft add chain inet lossy in { type filter hook input priority 0 ; }")
        inside_run(node.name, f"nft add rule inet lossy in {LOSS}")
    at = time.monotonic()
    gates.kill()
    gates.restore()
    took = time.monotonic() - at
    time.sleep(STEADY_S)
    load.rate(0)
    return {"resync_s": took} | gates.become_equal()


def run(make: Callable[[Road], Any], directory: Path, kept: int, rate: int, kills: int, switchovers: int) -> dict[str, Any]:
    """Figures of one kind of pair."""
    directory.mkdir()
    with Road(directory) as road:
        gates = make(road)
        try:
            return _measure(gates, road, kept, rate, kills, switchovers)
        finally:
            gates.end()


def _measure(gates: Any, road: Road, kept: int, rate: int, kills: int, switchovers: int) -> dict[str, Any]:
    gates.start()
    with Load(road.names, kept, rate) as load:
        until(lambda: load.report()["kept_open"] == kept or time.sleep(0.1))
        out: dict[str, Any] = {"name": gates.name, "kills": kills, "cpu": steady(load, gates)}
        begun = time.monotonic()
        out["kill"] = _milliseconds(_faults(load, kills, gates.kill, gates.restore), "restored_ns")
        out["cycle_s"] = (time.monotonic() - begun) / kills
        if switchovers:
            found = _faults(load, switchovers, gates.switchover, lambda: gates.wait() and None)
            out["switchover"] = _milliseconds(found, "outage_ns")
        time.sleep(2)
        out["notes"] = gates.notes()
        out["load"] = load.report()
        out["kept_broken"] = out["load"]["kept_reset"] + out["load"]["kept_stalled"]
        if hasattr(gates, "become_equal"):
            out |= _resync(load, gates, road)
            out["load"] = load.report()
        return out
