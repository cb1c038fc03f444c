"""guard_leases: may a workload run here beyond its lease? By the keeper's own record (ipshare.agent.keeper).

A keeper stops what runs before its lease ends, and writes down at once that it has. Where the record says
after the end that it has not, the keeper hangs, is gone and nobody starts it, or its stop did not work; the
director begins it elsewhere one stop_time after the end. Half of that time is given, then the machine has to
be reset. Leases of another run of the machine are over: nothing of that time runs.
"""

from __future__ import annotations

import json
from pathlib import Path

from ipshare.agent.confirm import Clock, SystemClock
from ipshare.agent.keeper import LEASES


def overdue(run: Path, clock: Clock | None = None) -> str:
    """What may run beyond its lease, of the nodes whose directories are below ``run``; "": nothing."""
    clock = clock or SystemClock()
    for file in sorted(run.glob(f"*/{LEASES}")):
        try:
            record = json.loads(file.read_text())
            rows = record["leases"].items() if record["boot"] == clock.boot_id() else ()
            for name, row in rows:
                end, stop = int(row["over_ns"]), int(row["stop_ns"])
                late = clock.boottime_ns() - end
                if end and row["word"] != "stopped" and late > stop // 2:
                    return (
                        f"workload {name} of {file.parent.name} is {row['word']} "
                        f"{late / 1e9:.1f} s after the end of its lease"
                    )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # no record, or one of another version
    return ""
