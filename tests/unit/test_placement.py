"""Plans against an oracle that tries everything, and what must hold of every plan."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.placement import search
from ipshare.placement.model import Layout, Node, Site, Workload, units
from ipshare.placement.plan import Plan, evacuate, fail, plan, rendezvous
from tests.examples import examples


def layout(capacities: dict[str, float], *workloads: Workload, **weights: float) -> Layout:
    """Each site is one node."""
    sites = tuple(Site(name, size, weights.get(name, 1.0)) for name, size in capacities.items())
    return Layout(sites, tuple(Node(s.name, s.name, s.capacity) for s in sites), workloads)


def moved(found: Plan) -> dict[str, str]:
    return {move.unit: move.target for move in found.moves}


def test_a_group_moves_as_one_and_largest_first() -> None:
    world = layout(
        {"a": 9, "b": 9},
        Workload("w", 1, "a"),
        Workload("x", 2, "a", "g"),
        Workload("y", 3, "a", "g"),
        Workload("z", 1, "b"),
    )
    found = evacuate(world, "a")
    assert [(m.unit, m.workloads, m.size, m.target) for m in found.moves] == [
        ("g", ("x", "y"), 5, "b"),
        ("w", ("w",), 1, "b"),
    ]
    assert found.is_possible and found.is_exact and not found.is_alarm
    assert found.moves[0].why == "a is evacuated; by weight 1"


def test_all_of_a_group_or_nothing() -> None:
    world = layout({"a": 9, "b": 4}, Workload("x", 2, "a", "g"), Workload("y", 3, "a", "g"))
    found = evacuate(world, "a")
    assert found.moves == () and found.is_alarm
    assert found.stays[0].why == "no room: it needs 5, the most that is left is 4 (b)"


@pytest.mark.parametrize(
    ("workload", "avoid", "why"),
    [
        (Workload("w", 1, "a", allowed=frozenset({"a"})), (), "it may run only at a"),
        (Workload("w", 1, "a", apart=frozenset({"dns"})), ("c",), "kept apart from"),
        (Workload("w", 1, "a"), ("b", "c"), "no other site takes anything"),
        (Workload("w", 50, "a"), (), "no room: it needs 50, the most that is left is 9 (c)"),
    ],
)
def test_why_not(workload: Workload, avoid: Any, why: str) -> None:
    world = layout({"a": 99, "b": 9, "c": 9}, workload, Workload("other", 1, "b", apart=frozenset({"dns"})))
    (stay,) = evacuate(world, "a", avoid).stays
    assert why in stay.why


def test_a_group_that_may_run_nowhere() -> None:
    world = layout(
        {"a": 9, "b": 9, "c": 9},
        Workload("x", 1, "a", "g", frozenset({"b"})),
        Workload("y", 1, "a", "g", frozenset({"c"})),
    )
    assert "nowhere" in evacuate(world, "a").stays[0].why


def test_a_node_that_failed_is_replaced_at_its_own_site_first() -> None:
    sites = (Site("s", 10), Site("t", 10, 50))
    nodes = (Node("s1", "s", 5), Node("s2", "s", 5), Node("t", "t", 10))
    world = Layout(sites, nodes, (Workload("w", 3, "s1"), Workload("v", 3, "s1")))
    assert sorted(move.target for move in fail(world, "s1").moves) == ["s2", "t"]
    assert {move.target for move in evacuate(world, "s").moves} == {"t"}


def test_the_capacity_of_a_site_counts_beside_its_nodes() -> None:
    nodes = (Node("a", "a", 9), Node("b1", "b", 5), Node("b2", "b", 5))
    world = Layout((Site("a", 9), Site("b", 6)), nodes, (Workload("w", 4, "a"), Workload("v", 3, "a")))
    assert len(evacuate(world, "a").moves) == 1
    wide = replace(world, sites=(Site("a", 9), Site("b", 10)))
    assert evacuate(wide, "a").is_possible


def test_the_search_turns_back() -> None:
    """The first preferences do not fit together; another way does."""
    for names in itertools.permutations(["u", "v", "w"]):
        sizes = dict(zip(names, [3.0, 3.0, 2.0], strict=True))
        world = layout({"a": 9, "b": 5, "c": 3}, *(Workload(n, s, "a") for n, s in sizes.items()))
        found = evacuate(world, "a")
        assert found.is_possible and found.is_exact, found


def test_as_much_as_possible_where_not_all_is() -> None:
    """Not the largest and then what still fits: 3 + 3 is more than 4."""
    world = layout({"a": 9, "b": 6}, Workload("u", 4, "a"), Workload("v", 3, "a"), Workload("w", 3, "a"))
    found = evacuate(world, "a")
    assert moved(found) == {"v": "b", "w": "b"} and [stay.unit for stay in found.stays] == ["u"]
    more = layout({"a": 9, "b": 4}, Workload("u", 4, "a"), Workload("v", 2, "a"), Workload("w", 2, "a"))
    assert moved(evacuate(more, "a")) == {"v": "b", "w": "b"}, "of equal sizes the greater number"


def test_weights_are_shares() -> None:
    many = [Workload(f"w{number}", 1, "a") for number in range(4000)]
    world = layout({"a": 4000, "b": 8000, "c": 4000, "d": 4000, "e": 4000}, *many, b=1, c=2, d=1, e=0)
    counts = Counter(moved(evacuate(world, "a")).values())
    assert set(counts) == {"b", "c", "d"}
    assert counts["c"] == pytest.approx(2000, rel=0.08) and counts["b"] == pytest.approx(1000, rel=0.1)


def test_a_site_more_takes_its_share_and_moves_nobody_else() -> None:
    many = [Workload(f"w{number}", 1, "a") for number in range(1000)]
    less = {"a": 9000.0, "b": 9000.0, "c": 9000.0}
    before, after = (moved(evacuate(layout(d, *many), "a")) for d in (less, less | {"d": 9000.0}))
    changed = {name for name in before if before[name] != after[name]}
    assert all(after[name] == "d" for name in changed) and len(changed) == pytest.approx(333, rel=0.2)


def test_rendezvous_is_the_same_everywhere() -> None:
    """Two directors, of any version, choose the same."""
    assert rendezvous("unit", "node", 1.0) == 1.3726799690800509


def test_an_answer_that_ran_out_of_steps_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipshare.placement.plan.STEPS", 50)
    tight = [Workload(f"w{number}", 3, "a") for number in range(12)]
    found = evacuate(layout({"a": 99, "b": 11, "c": 11, "d": 11}, *tight), "a")
    assert not found.is_exact and len(found.moves) == 9


@st.composite
def worlds(draw: Any) -> Layout:
    """Up to 3 sites with up to 2 nodes each, up to 5 workloads, with everything that restricts them."""
    names = ["a", "b", "c"][: draw(st.integers(1, 3))]
    sites, nodes = [], []
    for name in names:
        own = [Node(f"{name}{n}", name, draw(st.integers(1, 6))) for n in range(draw(st.integers(1, 2)))]
        nodes += own
        most = sum(node.capacity for node in own)
        sites.append(Site(name, draw(st.sampled_from([most, most * 0.75])), draw(st.sampled_from([0, 1, 3]))))
    homes: dict[str, str] = {}
    labels: set[tuple[str, str]] = set()
    workloads = []
    for number in range(draw(st.integers(0, 5))):
        group = draw(st.sampled_from(["", "", "g"]))
        node = draw(st.sampled_from([n.name for n in nodes]))
        node = homes.setdefault(group, node) if group else node
        apart = draw(st.frozensets(st.sampled_from(["x", "y"]), max_size=1))
        if group and any((group, label) in labels for label in apart):
            apart = frozenset()
        labels |= {(group, label) for label in apart if group}
        allowed = draw(st.frozensets(st.sampled_from(names), max_size=2))
        workloads.append(Workload(f"w{number}", draw(st.integers(1, 4)), node, group, allowed, apart))
    return Layout(tuple(sites), tuple(nodes), tuple(workloads))


def oracle(world: Layout, leave: set[str], avoid: set[str]) -> tuple[float, int]:
    """Size and number of the units that can be placed at most: every assignment is tried."""
    weights = {site.name: site.weight for site in world.sites}
    going = [unit for unit in units(world.workloads) if unit.node in leave]
    targets = [n.name for n in world.nodes if n.name not in leave and n.site not in avoid and weights[n.site]]
    best = (0.0, 0)
    for way in itertools.product([None, *targets], repeat=len(going)):
        there = {unit.name: node for unit, node in zip(going, way, strict=True) if node is not None}
        score = (sum(unit.size for unit in going if unit.name in there), len(there))
        if score > best and is_sound(world, leave, there):
            best = score
    return best


def is_sound(world: Layout, leave: set[str], moved: dict[str, str]) -> bool:
    """Whether every unit that moved may be where it is now, beside those that are on no node of `leave`."""
    site_of = {node.name: node.site for node in world.nodes}
    every = [unit for unit in units(world.workloads) if unit.node not in leave or unit.name in moved]
    now = {unit.name: moved.get(unit.name, unit.node) for unit in every}
    for unit in every:
        if unit.name not in moved:
            continue
        node, site = now[unit.name], site_of[now[unit.name]]
        near = [other for other in every if site_of[now[other.name]] == site]
        on_node = sum(other.size for other in near if now[other.name] == node)
        if on_node > next(n.capacity for n in world.nodes if n.name == node):
            return False
        if sum(other.size for other in near) > next(s.capacity for s in world.sites if s.name == site):
            return False
        if unit.allowed is not None and site not in unit.allowed:
            return False
        if any(other.apart & unit.apart for other in near if other.name != unit.name):
            return False
    return True


@given(worlds(), st.data())
@examples(150)
def test_a_plan_places_as_much_as_the_oracle_and_keeps_every_rule(world: Layout, data: Any) -> None:
    leave = set(data.draw(st.sets(st.sampled_from([node.name for node in world.nodes]), min_size=1)))
    avoid = set(data.draw(st.sets(st.sampled_from([site.name for site in world.sites]), max_size=1)))
    found = plan(world, leave, avoid)
    assert found == plan(world, leave, avoid), "deterministic"
    assert found.is_exact
    going = [unit for unit in units(world.workloads) if unit.node in leave]
    told = [m.unit for m in found.moves] + [s.unit for s in found.stays]
    assert sorted(told) == sorted(unit.name for unit in going), "who need not move does not"
    assert all(move.target not in leave and move.target_site not in avoid for move in found.moves)
    assert is_sound(world, leave, moved(found))
    score = (sum(move.size for move in found.moves), len(found.moves))
    assert score == oracle(world, leave, avoid)


@given(worlds(), st.data())
@examples(200)
def test_a_plan_that_was_carried_out_in_part_goes_on_the_same(world: Layout, data: Any) -> None:
    site = data.draw(st.sampled_from([site.name for site in world.sites]))
    found = evacuate(world, site)
    done = data.draw(st.integers(0, len(found.moves)))
    where = {name: move.target for move in found.moves[:done] for name in move.workloads}
    now = replace(world, workloads=tuple(replace(w, node=where.get(w.name, w.node)) for w in world.workloads))
    rest = evacuate(now, site)
    assert [m.unit for m in rest.moves] == [m.unit for m in found.moves[done:]]
    assert moved(rest) == {move.unit: move.target for move in found.moves[done:]}


def test_the_search_leaves_room_as_it_found_it() -> None:
    class Counted:
        puts = 0

        def fits(self, *_: Any) -> bool:
            return True

        def put(self, unit: Any, node: Any, sign: int = 1) -> None:
            self.puts += sign

    room = Counted()
    going = units([Workload(f"w{n}", 1, "a") for n in range(3)])
    search.Search(room, going, [[Node("b", "b", 9)]] * 3, 100).run()
    assert room.puts == 0
