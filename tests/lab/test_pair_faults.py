"""The fault matrix of a redundant pair: one row of tests.pair_faults, one test (DESIGN.md 9; S2, S3).

Two agents with their engines, a router with static routes, a receiver that knows whose frame it got. For each row:
the states of both nodes, who forwards, that the router was not touched and has the survivor's MAC address for both
VIPs, and that nothing which was sent after the survivor's reign had begun came out of the other node. All rows
share one lab. tests/vpp/test_pair_faults_vpp.py runs the same table on VPP. `pytest -s` prints what was measured.
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
    struck, other = world.settled()
    world.serves(struck, now_ns())
    until(lambda: world.turned_to(struck))
    router, epoch = world.router(), int(world.state(other)["epoch"])
    row = _moves if fault.moves else _stays
    said = row(world, fault, struck, other)
    assert world.router() == router, "nobody but neighbour discovery may touch the router"
    until(lambda: world.turned_to(other if fault.moves else struck))
    now = int(world.state(other)["epoch"])
    assert now > epoch if fault.moves else now == epoch
    print(f"\n{fault.name:15} {said}")


def _stays(world: World, fault: Fault, struck: Node, other: Node) -> str:
    """Nothing changes, and every probe of the whole time went through."""
    changes = [int(world.state(node)["changes"]) for node in (struck, other)]
    began = now_ns()
    with fault.strike(world, struck):
        world.probes.more(3 * DEAD_NS // 10**6)
        for node, states in ((struck, fault.struck), (other, {fault.other})):
            assert world.is_in(node, *states)
        assert world.turned_to(struck)
    assert world.settled() == (struck, other)
    assert [int(world.state(node)["changes"]) for node in (struck, other)] == changes
    assert world.serves(struck, now_ns())
    assert world.probes.by(world.half(other).number, began) == 0
    return "nothing changes"


def _moves(world: World, fault: Fault, struck: Node, other: Node) -> str:
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
        assert bool(both) == fault.both_forward
        healed = now_ns()
    assert world.settled() == (other, struck), "who was struck comes back as the standby"
    world.probes.more(DEAD_NS // 10**6)
    heard = int(world.state(struck)["since_ns"]) if fault.both_forward else 0
    late = world.probes.by(numbers[0], heard + INTERVAL_NS if fault.both_forward else reign)
    assert late == 0, "forwarded without the highest epoch"
    said = f"active after {(reign - began) / 1e6:.0f} ms, traffic {(served - began) / 1e6:.0f} ms, late {late}"
    if fault.both_forward:
        last = world.probes.latest(numbers[0])
        said += f", both for {(healed - reign) / 1e6:.0f} ms, the lower one {(last - healed) / 1e6:+.0f} ms after the heal"
    return said
