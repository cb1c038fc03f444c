"""scenario: there and back under load, so many times; a dict of figures.

Each way: connections and flows are opened where the address is, they speak, the address moves while they do,
one distribution point flips late; then they are closed, the giver drains, and the next way begins. New
connections are opened all the time. What a load reports is of the whole run.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from typing import Any, Protocol

from ipshare.lab.lab import Lab
from ipshare.lab.traffic import Ping, serve, start

from .load import Load

STEADY_S = 1.0  # speaking before the remap, and after the last distribution point has flipped
PATIENCE_S = 60.0


class Moves(Protocol):
    """What moves an address between the lab's end points."""

    name: str

    def up(self) -> contextlib.AbstractContextManager[Lab]: ...
    def move(self, lab: Lab, origin: str, to: str) -> Any: ...


def run(moves: Moves, sizes: dict[str, int], times: int) -> dict[str, Any]:
    """``sizes``: of Load. Figures of one kind of remap."""
    with moves.up() as lab:
        rtt_ms = _rtt_ms(lab)
        with Load(lab, **sizes) as load:
            ways = []
            for number in range(2 * times):
                origin, to = ("A", "B") if number % 2 == 0 else ("B", "A")
                ways.append(_way(moves, lab, load, origin, to))
                print(f"{moves.name}: {number + 1} of {2 * times}: {_said(ways[-1])}", file=sys.stderr)
            load.rate(0)
            _until(lambda: load.report()["live"] == 0, load)
            return {"name": moves.name, "rtt_ms": rtt_ms, "ways": ways, "load": load.report(), **_whole(ways)}


def _rtt_ms(lab: Lab) -> float:
    """Of a client, at its best, before there is load."""
    with serve(lab, "a1"):
        return float(start(lab, "c1", Ping("203.0.113.10", count=20)).result().min_ms)


def _way(moves: Moves, lab: Lab, load: Load, origin: str, to: str) -> dict[str, Any]:
    before = load.report()
    load.begin()
    _until(lambda: _is_complete(load, before), load)
    time.sleep(STEADY_S)
    moving = moves.move(lab, origin, to)
    moving.flipped.wait()
    time.sleep(STEADY_S)
    load.hush()
    _until(lambda: load.report()["waiting"] == 0, load)
    load.close()
    found = moving.result()
    after = load.report()
    giver = "AB".index(origin)
    found["late_openings"] = [
        max(0.0, (latest[giver] - at_ns) / 1e6)
        for latest, at_ns in zip(after["latest_ns"], found.pop("frozen_ns", []), strict=False)
    ]
    counted = (
        "kept",
        "kept_reset",
        "kept_silent",
        "corrupted",
        "flows",
        "flows_moved",
        "broken",
        "established",
    )
    return (
        found | {name: after[name] - before[name] for name in counted} | {"slowest_ns": after["slowest_ns"]}
    )


def _is_complete(load: Load, before: dict[str, Any]) -> bool:
    now = load.report()
    return bool(
        sum(now[name] - before[name] for name in ("kept_open", "kept_reset", "kept_silent")) >= load.kept
        and now["flows_known"] - before["flows_known"] >= load.flows
    )


def _until(question: Any, load: Load) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not question():
        assert time.monotonic() < end_s, f"the load did not come to it: {load.report()}"
        time.sleep(0.05)


def _said(way: dict[str, Any]) -> str:
    words = [
        f"{way[name]} {name}" for name in ("kept", "kept_reset", "kept_silent", "corrupted", "flows_moved")
    ]
    words += [f"{way['broken']} of {way['established']} new ones broken"]
    words += [
        f"{name} {way[name]:.0f}" for name in ("fence_ms", "until_flipping_ms", "draining_ms") if name in way
    ]
    return ", ".join(words) + f", slowest answer {way['slowest_ns'] / 1e6:.0f} ms"


def _whole(ways: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all ways."""
    out: dict[str, Any] = {"slowest_ms": max(way["slowest_ns"] for way in ways) / 1e6}
    if "fence_ms" in ways[0]:
        out["opened_after"] = sum(way["opened_after"] for way in ways)
        out["late_openings"] = sum(late > 0 for way in ways for late in way["late_openings"])
        for name in ("fence_ms", "until_flipping_ms", "draining_ms"):
            values = [way[name] for way in ways]
            out[name] = [statistics.median(values), max(values)]
    return out


def is_broken(found: dict[str, Any]) -> bool:
    """Whether anything broke, was corrupted, or was opened at a giver after it had frozen."""
    load = found["load"]
    names = ("kept_reset", "kept_silent", "corrupted", "flows_moved", "broken", "refused", "unanswered")
    return any(load[name] for name in names) or bool(found["opened_after"] or found["late_openings"])
