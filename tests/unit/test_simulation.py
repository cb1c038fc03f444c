"""The simulation: the same seed gives the same, sums are kept, and simple cases come out as on paper."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.cli import exits
from ipshare.cli.app import run as ipshare
from ipshare.errors import Refused
from ipshare.placement.model import Layout, Node, Site, Workload
from ipshare.simulation import report, run, world
from ipshare.simulation.run import Tally, _Run
from ipshare.simulation.world import Assumptions
from tests.examples import examples

DOCS = Path(__file__).parents[2] / "docs"
NEVER = 1e15
CALM = Assumptions(site_mtbf_s=NEVER, link_mtbf_s=NEVER, duration_s=10_000)
EXACT = replace(CALM, sigma=0.0, silent=0.0, binding_us=0.0)
"""Every lognormal latency is its median."""


def two(capacity: float = 9.0, *workloads: Workload) -> Layout:
    sites = (Site("a", capacity), Site("b", capacity))
    every = workloads or (Workload("w", 1, "a"), Workload("v", 1, "b"))
    return Layout(sites, tuple(Node(s.name, s.name, s.capacity) for s in sites), every)


def started(layout: Layout, assumed: Assumptions, bindings: int = 1000) -> _Run:
    rng = np.random.default_rng(7)
    return _Run(world.world(layout, bindings, assumed, rng), assumed, rng)


def with_failure(one: _Run, *failures: tuple[float, str]) -> Tally:
    """Runs it with these failures of sites, and no others."""
    for at, site in failures:
        one._later(at, one._site_fails, site)
    return one.run()


def test_an_outage_is_detection_lease_start_and_rollout() -> None:
    one = started(two(), EXACT)
    moved = int(one.world.bindings[0])
    tally = with_failure(one, (100.0, "a"))
    ((outage, bindings),) = tally.samples["outage"]
    ((seen, _),) = tally.samples["detection"]
    assert 2.5 <= seen <= 3.5 + 0.02, "two whole intervals, a time-out, and a phase below one interval"
    assert outage == pytest.approx(10.0 + 20.0 + 0.02), (
        "from the failure on, the lease is longer than detection"
    )
    assert bindings == moved == tally.bindings_moved and tally.moves == tally.plans == 1
    assert tally.connections_broken == int(one.world.connections[0])
    assert tally.down_binding_s == pytest.approx(outage * moved)
    quick = with_failure(started(two(), replace(EXACT, lease_s=0.0)), (100.0, "a"))
    assert quick.samples["outage"][0][0] == pytest.approx(quick.samples["detection"][0][0] + 20.02)


def test_what_finds_no_place_waits_for_the_repair() -> None:
    one = started(two(1.0), replace(EXACT, site_mttr_s=1e-9))
    one._chance = lambda mean: 500.0 if mean == 1e-9 else NEVER  # type: ignore[method-assign]
    tally = with_failure(one, (100.0, "a"))
    assert (tally.stuck, tally.moves) == (1, 0)
    assert tally.samples["outage"][0][0] == pytest.approx(520.0)


def test_what_waits_goes_where_another_site_was_repaired() -> None:
    """Both die; a is not repaired; its workload goes to b when b is back."""
    one = started(two(), replace(EXACT, site_mttr_s=1e-9))
    repairs = iter([NEVER, 500.0])
    one._chance = lambda mean: next(repairs) if mean == 1e-9 else NEVER  # type: ignore[method-assign]
    tally = with_failure(one, (100.0, "a"), (101.0, "b"))
    outages = sorted(seconds for seconds, _ in tally.samples["outage"])
    assert outages == pytest.approx([520.0, 501.0 + 0.02 + 20.0 + 0.02])
    assert one.at_site == {"a": set(), "b": {0, 1}}


def test_a_target_that_dies_prolongs_the_same_outage() -> None:
    sites = tuple(Site(name, 9) for name in "abc")
    layout = Layout(sites, tuple(Node(s.name, s.name, 9) for s in sites), (Workload("w", 1, "a"),))
    one = started(layout, EXACT)
    first = with_failure(started(layout, EXACT), (100.0, "a"))
    assert len(first.samples["outage"]) == 1
    target = "b" if with_target(layout) == "b" else "c"
    tally = with_failure(one, (100.0, "a"), (115.0, target))
    ((outage, _),) = tally.samples["outage"]
    assert outage == pytest.approx(15 + 10 + 20.02) and tally.moves == 2


def with_target(layout: Layout) -> str:
    one = started(layout, EXACT)
    with_failure(one, (100.0, "a"))
    return one.workloads[0].node


def test_a_site_that_returns_before_it_was_missed_moves_nothing() -> None:
    one = started(two(), EXACT)
    one._chance = lambda mean: 1.0 if mean == EXACT.site_mttr_s else NEVER  # type: ignore[method-assign]
    tally = with_failure(one, (100.0, "a"))
    assert (tally.plans, tally.moves) == (0, 0)
    assert tally.samples["outage"][0][0] == pytest.approx(21.0)


def test_a_link_is_one_points_clients_trouble() -> None:
    assumed = replace(EXACT, link_mtbf_s=2000.0, points=4)
    one = started(two(), assumed)
    tally = one.run()
    assert tally.link_failures > 0 and not tally.moves
    total = sum(seconds * bindings for seconds, bindings in tally.samples["link"])
    assert tally.down_binding_s == pytest.approx(total / 4)


def test_a_silent_node_is_waited_for() -> None:
    tally = with_failure(started(two(), replace(EXACT, silent=1.0)), (100.0, "a"))
    assert tally.samples["rollout"][0][0] == 10.0


@given(st.integers(0, 1000))
@examples(5)
def test_nothing_is_lost_and_the_same_seed_gives_the_same(seed: int) -> None:
    assumed = Assumptions(duration_s=1.5e5, site_mtbf_s=5e4, site_mttr_s=2e4, link_mtbf_s=1e6)

    def once() -> tuple[dict[str, Any], _Run]:
        rng = np.random.default_rng(seed)
        there = world.world(world.made_up(6, rng), 5000, assumed, rng)
        one = _Run(there, assumed, rng)
        return report.record(there, assumed, one.run()), one

    found, one = once()
    assert once()[0] == found
    assert found["bindings"] == 5000 and found["site_failures"] > 0 and 0 < found["availability"] < 1
    everywhere = [number for numbers in one.at_site.values() for number in numbers]
    assert sorted(everywhere) == list(range(60)), "every workload is at one site"
    for site, numbers in one.at_site.items():
        assert all(one.site_of[one.workloads[number].node] == site for number in numbers)
        capacity = next(s.capacity for s in one.layout.sites if s.name == site)
        assert sum(one.workloads[number].size for number in numbers) <= capacity + 1e-6
        labels = [label for number in numbers for label in one.workloads[number].apart]
        assert len(labels) == len(set(labels)), "kept apart"


def test_a_made_up_world_keeps_its_own_rules() -> None:
    layout = world.made_up(40, np.random.default_rng(3))
    at_site: dict[tuple[str, str], int] = {}
    for workload in layout.workloads:
        for label in workload.apart:
            at_site[workload.node, label] = at_site.get((workload.node, label), 0) + 1
    assert set(at_site.values()) == {1}
    held = sum(w.size for w in layout.workloads if w.node == "s0")
    assert held == pytest.approx(world.FILLED * layout.sites[0].capacity)


def test_a_distribution_over_bindings() -> None:
    found = report.distribution([(5.0, 1), (1.0, 98), (9.0, 1), (100.0, 0)])
    assert found == {"count": 100, "p50_s": 1.0, "p90_s": 1.0, "p99_s": 5.0, "max_s": 9.0}
    assert report.distribution([(5.0, 0)])["count"] == 0


def test_nothing_to_simulate() -> None:
    with pytest.raises(Refused):
        world.world(Layout((Site("a", 1),), (Node("a", "a", 1),), ()), 5, CALM, np.random.default_rng(1))


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run_(*words: str) -> tuple[int, str]:
        capfd.readouterr()
        code = ipshare(("simulate", *words))
        return code, capfd.readouterr().out

    return run_


def documented() -> set[str]:
    section = (DOCS / "cli.md").read_text().split("## JSON")[1].split("## Exit codes")[0]
    (row,) = re.findall(r"^\| `simulate` \| (.*) \|$", section, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row))


def test_the_verb(call: Callable[..., tuple[int, str]]) -> None:
    words = ("--sites", "20", "--bindings", "2000", "--site-mtbf", "10d", "--duration", "20d")
    code, out = call(*words, "--json")
    found = json.loads(out)
    assert code == exits.OK and (found["sites"], found["bindings"]) == (20, 2000)
    assert found["assumptions"]["site_mtbf_s"] == 864_000
    times = {key for kind in found["times"].values() for key in kind}
    assert set(found) | set(found["times"]) | times == documented()
    assert json.loads(call(*words, "--json")[1]) == found
    assert json.loads(call(*words, "--seed", "2", "--json")[1]) != found
    code, out = call(*words)
    assert code == exits.OK and re.search(r"all of it: a binding is out of service +[\d,]+ +\d", out)


def test_the_verb_on_a_file_and_without_one(call: Callable[..., tuple[int, str]]) -> None:
    file = str(DOCS / "examples/hazards/placement.toml")
    code, out = call("-c", file, "--bindings", "100", "--site-mtbf", "1d", "--json")
    assert code == exits.OK and json.loads(out)["workloads"] == 5
    for words in ((), ("-c", file, "--sites", "5"), ("--sites", "5", "--interval", "0s"), ("--sites", "1")):
        assert call(*words)[0] == exits.USAGE
    assert run.Tally().moves == 0
