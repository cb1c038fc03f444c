"""Remaps there and back under load, what the giver tells delayed; beside it plain rules of nftables.

    python -m perf.remap [--engine embedded|vpp] [--times 10] [--delays 0,1,50,500]
                           [--only ipshare|nftables] [--json FILE]

Needs root, nft and a C compiler; for VPP an installed one with the plugin. Exit code 1: with ipshare a
connection broke, a byte differed, a flow moved, or the giver opened a connection after it had frozen.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ipshare.bench import machine

from . import scenario
from .ours import Ours
from .plain import Plain
from .report import table


def main() -> int:
    parser = argparse.ArgumentParser(prog="perf.remap", description=__doc__)
    parser.add_argument("--engine", choices=("embedded", "vpp"), default="embedded")
    parser.add_argument("--times", type=int, default=10, help="there and back")
    parser.add_argument("--plain-times", type=int, default=2, help="the same with nftables")
    parser.add_argument("--delays", default="0,1,50,500", help="ms of the mirror, each way")
    parser.add_argument("--late", type=float, default=5.0, help="seconds; of one distribution point")
    parser.add_argument("--kept", type=int, default=1000, help="connections that stay")
    parser.add_argument("--flows", type=int, default=200, help="UDP flows")
    parser.add_argument("--rate", type=int, default=500, help="connections opened each second")
    parser.add_argument("--period-ms", type=int, default=250, help="each kept one speaks as often")
    parser.add_argument("--only", choices=("ipshare", "nftables"))
    parser.add_argument("--json", type=Path, default=Path("build/perf-remap.json"))
    a = parser.parse_args()
    print(machine.this().describe(), file=sys.stderr)
    sizes = {"kept": a.kept, "flows": a.flows, "rate": a.rate, "period_ms": a.period_ms}
    kinds: list[tuple[scenario.Moves, int]] = []
    if a.only != "nftables":
        kinds += [(Ours(a.engine, int(delay), a.late), a.times) for delay in a.delays.split(",")]
    ours = len(kinds)
    if a.only != "ipshare":
        kinds.append((Plain(a.late), a.plain_times))
    found = {}
    a.json.parent.mkdir(parents=True, exist_ok=True)
    for moves, times in kinds:
        found[moves.name] = scenario.run(moves, sizes, times)
        a.json.write_text(json.dumps(found, indent=1))
    print(table(found))
    return int(any(scenario.is_broken(each) for each in list(found.values())[:ours]))


if __name__ == "__main__":
    sys.exit(main())
