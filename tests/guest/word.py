"""word: the commands of [[migration]] for a guest that is a word in a file (tests/migration_world.py).

FOLDER/NAME.where says `here`, `moving` or `there`; a migration ends when FOLDER/NAME.gate says how. It is run
as a program of its own and needs nothing of ipshare.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def put(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.rename(path)


def main(verb: str, folder: str, workload: str, _target: str) -> int:
    where, gate = Path(folder) / f"{workload}.where", Path(folder) / f"{workload}.gate"
    if verb == "storage":
        state = (Path(folder) / "storage").read_text()
        print(state or "half of it is missing")
        return 0 if state else 1
    if verb == "state":
        print(where.read_text())
    if verb == "cancel" and where.read_text() == "moving":
        put(gate, "here")
    if verb == "start":
        put(where, "moving")
        while not (outcome := gate.read_text()):
            time.sleep(0.01)
        put(where, outcome)
        print("downtime 12.5 ms")
        return 0 if outcome == "there" else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
