"""The fault matrix of a redundant pair: one row of tests.pair_faults, one test (DESIGN.md 9; S2, S3).

Two agents with their engines, a router with static routes, a receiver that knows whose frame it got. For
each row: the states of both nodes, who forwards, that the router was not touched and has the survivor's MAC
address for both VIPs, and that nothing which was sent after the survivor's reign had begun came out of the
other node. All rows share one lab. tests/vpp/test_pair_faults_vpp.py runs the same table on VPP. `pytest
-s` prints what was measured.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipshare.lab import userns
from tests.pair_faults import FAULTS, PATIENT, SILENT, Fault, World
from tests.pair_lab import Half, pair_lab, until
from tests.pair_nodes import Node, Nodes
from tests.pair_probes import now_ns, probes

INTERVAL_NS, MISSES = 50_000_000, 4
DEAD_NS = MISSES * INTERVAL_NS
TRIES = 3
"""Of a row: a reign that ended for want of processor time says nothing about a fault."""


@pytest.fixture(scope="module")
def kind() -> type[Half]:
    return Half


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, kind: type[Half]) -> Iterator[World]:
    if not userns.is_root():
        pytest.skip("no network namespaces without root")
    with pair_lab(tmp_path_factory.mktemp("faults"), kind) as lab:
        nodes = Nodes(lab, times=f'interval = "{INTERVAL_NS // 10**6}ms"\nmisses = {MISSES}', delivers=True)
        try:
            for node in (nodes.a, nodes.b):
                node.start()
            with probes(lab) as seen:
                yield World(nodes, seen)
        finally:
            nodes.a.stop()
            nodes.b.stop()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(world: World, fault: Fault) -> None:
    row = _moves if fault.moves else _stays
    for _ in range(TRIES):
        struck, other = world.settled()
        world.serves(struck, now_ns())
        until(lambda struck=struck: world.turned_to(struck))  # type: ignore[misc]
        router, epoch = world.router(), int(world.state(other)["epoch"])
        said = row(world, fault, struck, other)
        assert world.router() == router, "nobody but neighbour discovery may touch the router"
        if not said:
            print(f"\n{fault.name:15} again: {[world.why(node) for node in (struck, other)]}")
            continue
        until(lambda node=other if fault.moves else struck: world.turned_to(node))  # type: ignore[misc]
        now = int(world.state(other)["epoch"])
        assert now > epoch if fault.moves else now == epoch
        print(f"\n{fault.name:15} {said}")
        return
    pytest.fail("the machine is too busy for a pair: no reign lasted")


def _stays(world: World, fault: Fault, struck: Node, other: Node) -> str:
    """Nothing changes; "": a reign ended of which the fault knows nothing."""
    since = int(world.state(struck)["since_ns"])
    began = now_ns()
    with fault.strike(world, struck):
        world.probes.more(3 * DEAD_NS // 10**6)
        paths = int(world.state(struck)["paths_up"])
        states = [int(world.state(node)["state"]) for node in (struck, other)]
        turned, late = world.turned_to(struck), world.probes.by(world.half(other).number, began)
    world.settled()
    if int(world.state(struck)["since_ns"]) != since:
        return ""
    assert states == [*fault.struck, fault.other] and turned and late == 0
    assert world.serves(struck, now_ns())
    return f"nothing changes, paths up while it lasts: {paths:02b}"


def _moves(world: World, fault: Fault, struck: Node, other: Node) -> str:
    """The other node takes over, and keeps it; "": there was yet another reign."""
    numbers = world.half(struck).number, world.half(other).number
    began = now_ns()
    with fault.strike(world, struck):
        until(lambda: world.is_in(other, fault.other))
        reign = int(world.state(other)["since_ns"])
        assert reign - began < PATIENT * DEAD_NS
        until(lambda: world.turned_to(other))
        served = world.serves(other, reign)
        if fault.struck != SILENT and world.answers(struck):
            until(lambda: world.is_in(struck, *fault.struck))
        world.probes.more(DEAD_NS // 10**6)
        both = world.probes.by(numbers[0], reign)
        healed = now_ns()
    world.settled()
    world.probes.more(DEAD_NS // 10**6)
    if int(world.state(other)["since_ns"]) != reign:
        return ""
    assert bool(both) == fault.both_forward
    heard = int(world.state(struck)["since_ns"]) if fault.both_forward else 0
    late = world.probes.by(numbers[0], heard + INTERVAL_NS if fault.both_forward else reign)
    assert late == 0, "forwarded without the highest epoch"
    said = (
        f"active after {(reign - began) / 1e6:.0f} ms, traffic {(served - began) / 1e6:.0f} ms, late {late}"
    )
    if fault.both_forward:
        late_ms = (world.probes.latest(numbers[0]) - healed) / 1e6
        said += f", both for {(healed - reign) / 1e6:.0f} ms, the last {late_ms:+.0f} ms after the heal"
    return said
