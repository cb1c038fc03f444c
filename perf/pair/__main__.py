"""Kills, switchovers, a resync with loss; beside it keepalived with conntrackd, killed the same number of
times or less.

    python -m perf.pair [--kills 100] [--peer-kills 10] [--only ipshare|conntrackd] [--json FILE]

Needs root, nft and a C compiler; the peer keepalived and conntrackd, else it is left out. Exit code 1: a
kept connection broke at ipshare, or the tables differed after the loss.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from ipshare.bench import machine

from . import conntrackd, scenario
from .ours import Ours
from .report import table


def main() -> int:
    parser = argparse.ArgumentParser(prog="perf.pair", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--peer-kills", type=int, default=10)
    parser.add_argument("--switchovers", type=int, default=10)
    parser.add_argument("--kept", type=int, default=2000, help="connections that stay")
    parser.add_argument("--rate", type=int, default=1000, help="further ones opened each second")
    parser.add_argument("--commit-us", type=int, default=2000, help="a first packet waits no longer")
    parser.add_argument("--only", choices=("ipshare", "conntrackd"))
    parser.add_argument("--json", type=Path, default=Path("build/perf-pair.json"))
    a = parser.parse_args()
    print(machine.this().describe(), file=sys.stderr)
    found = {}
    a.json.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ipshare-pair-") as directory:
        if a.only != "conntrackd":
            where = Path(directory) / "ours"
            found["ipshare"] = scenario.run(
                lambda road: Ours(road, commit_us=a.commit_us), where, a.kept, a.rate, a.kills, a.switchovers
            )
            a.json.write_text(json.dumps(found, indent=1))
        missing = conntrackd.missing()
        if a.only != "ipshare" and missing:
            print(f"left out: {missing}", file=sys.stderr)
        elif a.only != "ipshare":
            for direct in (False, True):
                name = "conntrackd, direct" if direct else "conntrackd"
                where = Path(directory) / name.replace(", ", "-")
                found[name] = scenario.run(
                    lambda road, direct=direct: conntrackd.Conntrackd(road, direct=direct),
                    where, a.kept, a.rate, a.peer_kills, 0,
                )  # fmt: skip
                a.json.write_text(json.dumps(found, indent=1))
    print(table(found))
    ours = found.get("ipshare")
    return int(ours is not None and (ours["kept_broken"] > 0 or not ours["equal"]))


if __name__ == "__main__":
    sys.exit(main())
