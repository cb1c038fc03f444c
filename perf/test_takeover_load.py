"""The takeover benchmark's load and probes, on a pair whose routers follow the VIPs: small, without times.

The load has to see both: that traffic flows again and nothing broke, and that nobody is left.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perf.pair.load import Load
from perf.pair.ours import Ours
from perf.pair.road import Road
from tests.pair_lab import until

KEPT, RATE = 20, 20
WINDOW_NS = 10_000_000_000


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Ours, Load]]:
    with contextlib.ExitStack() as stack:
        road = stack.enter_context(Road(tmp_path))
        gates = Ours(road, interval_ms=50, misses=4, commit_us=1_000_000)
        gates.start()
        load = stack.enter_context(Load(road.names, KEPT, RATE))
        until(lambda: load.report()["kept_open"] == KEPT)
        yield gates, load


def heard(load: Load, since_ns: int) -> bool:
    """Probes of both families sent since then were answered again."""
    return all(gap["rows"] and gap["restored_ns"] > 0 for gap in load.gap(since_ns, since_ns + WINDOW_NS))


def test_the_load_sees_a_takeover_and_loses_nothing(pair: tuple[Ours, Load]) -> None:
    gates, load = pair
    at_ns = gates.kill()
    until(lambda: heard(load, at_ns))
    gates.restore()
    before = load.report()["echoes"]
    until(lambda: load.report()["echoes"] > before + 2 * KEPT)
    report = load.report()
    assert report["kept_open"] == KEPT and not report["kept_reset"] + report["kept_stalled"]
    assert not report["reset"] + report["stalled"] + report["refused"]


def test_the_load_sees_that_nobody_is_left(pair: tuple[Ours, Load]) -> None:
    gates, load = pair
    gates.kill()
    at_ns = time.monotonic_ns()
    for node in gates.nodes:
        node.kill()
    until(lambda: all(gap["lost"] > 100 for gap in load.gap(at_ns, at_ns + WINDOW_NS)))
    assert [gap["restored_ns"] for gap in load.gap(at_ns, time.monotonic_ns())] == [-1, -1]
