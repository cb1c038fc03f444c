"""scenario: one pair of gateways under load: killed, switched over, resynchronised; a dict of figures.

Load and probes never pause. A kill: the active node dies, the time until probes of both families are
answered again counts from that instant; the dead one is started as a standby and has everything; then
the next one. So no kill meets a pair that is not complete: one fault at a time is what a pair is for.
"""

from __future__ import annotations

import math
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
UNDER_WAY_NS = 200_000_000  # until the last of them must have come back
STEADY_S = 3.0
SILENT_S = 16.0  # what load.c waits for, and a second
LOSS = "udp dport 6082 numgen random mod 100 < 30 drop"


Gaps = list[list[dict[str, int]]]  # of each fault, of both families


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


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


def _faults(
    load: Load, gates: Any, times: int, fault: Callable[[], int], after: Callable[[], object]
) -> Gaps:
    found: Gaps = []
    for number in range(times):
        at_ns = fault()
        after()
        left = at_ns + WINDOW_NS + UNDER_WAY_NS - time.monotonic_ns()
        if left > 0:
            time.sleep(left / 1e9)
        found.append(load.gap(at_ns, at_ns + WINDOW_NS))
        said = [f"{g['restored_ns'] / 1e6:.1f} ms, later {g['later_ns'] / 1e6:.1f}" for g in found[-1]]
        print(f"{number + 1} of {times}: {'; '.join(said)} {gates.remark()}", file=sys.stderr)
    return found


def _of(gap: dict[str, int], what: str) -> int:
    """ns; the whole window where traffic did not come back in it."""
    return WINDOW_NS if gap["restored_ns"] < 0 else gap[what]


def milliseconds(found: Gaps, what: str) -> dict[str, Any]:
    """Of the slower family of each fault. again: faults with a second row of lost probes."""
    values = [max(_of(g, what) for g in both) / 1e6 for both in found]
    later = [max(g["later_ns"] for g in both) / 1e6 for both in found]
    return {
        "p50": statistics.median(values),
        "p99": percentile(values, 0.99),
        "max": max(values),
        "never": sum(any(g["restored_ns"] < 0 for g in both) for both in found),
        "again": sum(value > 0 for value in later),
        "again_ms": max(later),
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
    return {"resync_s": took, **gates.become_equal()}


def run(
    make: Callable[[Road], Any], directory: Path, kept: int, rate: int, kills: int, switchovers: int
) -> dict[str, Any]:
    """Figures of one kind of pair."""
    directory.mkdir()
    with Road(directory) as road:
        gates = make(road)
        try:
            gates.start()
            with Load(road.names, kept, rate) as load:
                return _measure(gates, road, load, (kept, kills, switchovers))
        finally:
            gates.end()


def _measure(gates: Any, road: Road, load: Load, sizes: tuple[int, int, int]) -> dict[str, Any]:
    kept, kills, switchovers = sizes
    until(lambda: load.report()["kept_open"] == kept or time.sleep(0.1))
    time.sleep(STEADY_S)
    out: dict[str, Any] = {"name": gates.name, "kills": kills, "cpu": steady(load, gates)}
    begun = time.monotonic()
    out["kill"] = milliseconds(_faults(load, gates, kills, gates.kill, gates.restore), "restored_ns")
    out["cycle_s"] = (time.monotonic() - begun) / kills
    out["notes"] = gates.notes()
    out["load"] = _settled(load)
    if switchovers:
        found = _faults(load, gates, switchovers, gates.switchover, gates.wait)
        out["switchover"] = milliseconds(found, "longest_ns") | {"load": _settled(load)}
        out["handovers_ms"] = [round(ms, 3) for ms in gates.handovers]
    if hasattr(gates, "become_equal"):
        out |= _resync(load, gates, road)
    out["kept_broken"] = broken(load.report())
    return out


def broken(report: dict[str, Any]) -> int:
    """Kept connections, since the beginning."""
    return int(report["kept_reset"] + report["kept_stalled"])


def _settled(load: Load) -> dict[str, Any]:
    """When every connection that is silent has been found out."""
    time.sleep(SILENT_S)
    return load.report()
