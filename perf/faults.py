"""Each process killed, each link cut, one at a time, under connections: what is served when, what lost.

    python -m perf.faults [--only WORDS] [--connections 500] [--list]

In the lab of tests/faults_lab.py, with the default timers; the rows, their bounds and what they may lose are
in tests/faults_table.py. Prints a Markdown table, which is in build/perf-faults.md too, and what was late.
Ends with 1 if a bound was not kept or a connection was lost that the design says survives. Needs root, bird2,
frr and etcd; all rows take a quarter of an hour or more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from ipshare.bench import machine
from tests.bgp_lab import MISSING
from tests.faults_lab import faults_lab
from tests.faults_table import FAULTS, Fault, Row, facts, run

HEAD = """| fault | bound | served again | lost of {count} | may be lost | where the bound is from |
|---|---|---|---|---|---|
"""


def line(row: Row) -> str:
    fault, lost = row.fault, sum(sum(why.values()) for why in row.lost.values())
    bound = f"{fault.bound_s:.1f} s" if fault.bound_s else "not interrupted"
    again = f"{row.again_s:.2f} s" if row.again_s else "not interrupted"
    if fault.dark:
        again += f" ({', '.join(fault.dark)}: when healed)"
    if row.leads_s is not None:
        bound += f"; another leads: {fault.leads:g} s"
        again += f"; {row.leads_s:.1f} s"
    marks = ("" if row.in_time else " **late**"), (" **wrongly**" if row.wrongly_lost else "")
    return f"| {fault.name} | {bound} | {again}{marks[0]} | {lost}{marks[1]} | {row.allowed} | {fault.why} |"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="perf.faults", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--only", default="", help="rows with one of these, separated by commas, in their names"
    )
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--list", action="store_true", help="the rows")
    parser.add_argument("--out", type=Path, default=Path("build/perf-faults"))
    a = parser.parse_args()
    words = a.only.split(",")
    faults = [fault for fault in FAULTS if any(word in fault.name for word in words)]
    if a.list:
        print("\n".join(fault.name for fault in faults))
        return 0
    if MISSING:
        print(f"needs {MISSING}", file=sys.stderr)
        return 2
    a.out.parent.mkdir(parents=True, exist_ok=True)
    return int(not all_good(faults, a.connections, a.out))


def all_good(faults: list[Fault], connections: int, out: Path) -> bool:
    found: list[Row] = []
    loads: list[float] = []
    with tempfile.TemporaryDirectory(prefix="ipshare-") as folder, faults_lab(Path(folder)) as world:
        for fault in faults:
            began = time.monotonic()
            row = run(world, fault, connections)
            found.append(row)
            loads.append(os.getloadavg()[0])
            more = "; ".join(f"{flow} {s:g} s" for flow, s in row.late.items() if not row.in_time)
            print(line(row), f"[{time.monotonic() - began:.0f} s; load {loads[-1]:.1f}]", more, flush=True)
            if row.wrongly_lost:
                print("   lost:", row.wrongly_lost, flush=True)
            out.with_suffix(".json").write_text(json.dumps([facts(one) for one in found], indent=1))
    where = f"{machine.this().describe()}; load {min(loads):.0f} to {max(loads):.0f}"
    table = HEAD.format(count=connections) + "\n".join(line(row) for row in found)
    out.with_suffix(".md").write_text(f"{where}\n\n{table}\n")
    print(f"\n{where}\n\n{table}")
    return all(row.in_time and not row.wrongly_lost for row in found)


if __name__ == "__main__":
    sys.exit(main())
