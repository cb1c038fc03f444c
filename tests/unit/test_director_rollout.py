"""Who has what of a revision, and when: the rollout alone, over every order in which nodes answer."""

from __future__ import annotations

import itertools
import random
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from ipshare.director import render
from ipshare.director.config import problems_at
from ipshare.director.rollout import FINAL, MAKE, Facts, Rollout, bases_of, outcome
from ipshare.director.topology import Topology, changes, gaining

NET = {"name": "web", "prefix": "203.0.113.0/24"}
ENDS = [{"name": name, "local": [f"10.{number}.0.0/24"]} for number, name in enumerate("AB", 1)]
POINTS = [{"name": name} for name in ("C", "D")]
NODES = [
    {"name": "a1", "address": "10.0.0.1:1", "endpoint": "A"},
    {"name": "b1", "address": "10.0.0.2:1", "endpoint": "B"},
    {"name": "c1", "address": "10.0.0.3:1", "distribution": "C"},
    {"name": "d1", "address": "10.0.0.4:1", "distribution": "D"},
]


def topology(*bindings: dict[str, Any], nodes: list[dict[str, Any]] = NODES, **tables: Any) -> Topology:
    rows = {"node": nodes, "network": [NET], "endpoint": ENDS, "distribution": POINTS, "binding": bindings}
    return Topology(rows | tables)


ALL_A = {"global": "203.0.113.0/24", "to": "A"}
SEVEN_B = {"global": "203.0.113.7/32", "to": "B"}
OLD, NEW = topology(ALL_A), topology(ALL_A, SEVEN_B)


def after(rollout: Rollout, at: int, **more: Facts) -> dict[str, Facts]:
    """Facts of nodes that have all of an earlier revision."""
    return {
        name: more.get(name, Facts((at, FINAL), frozenset([at]) if row.distribution else frozenset(), True))
        for name, row in rollout.new.nodes.items()
    }


def steps(rollout: Rollout, facts: dict[str, Facts]) -> dict[str, int]:
    return {name: step for name, (step, _) in rollout.wanted(facts).items()}


def test_make_flip_break() -> None:
    rollout = Rollout(2, NEW, [OLD])
    facts = after(rollout, 1)
    assert steps(rollout, facts) == {"a1": MAKE, "b1": FINAL, "c1": -1, "d1": -1}
    assert rollout.wanted(facts)["c1"][1] == "waits for b1"
    facts["b1"] = Facts((2, FINAL), alive=True)
    assert steps(rollout, facts) == {"a1": MAKE, "b1": FINAL, "c1": FINAL, "d1": FINAL}
    facts["a1"] = Facts((2, MAKE), alive=True)
    facts["c1"] = replace(facts["c1"], has=(2, FINAL))
    assert rollout.wanted(facts)["a1"] == (-1, "waits for d1")
    facts["d1"] = replace(facts["d1"], has=(2, FINAL))
    assert steps(rollout, facts) == dict.fromkeys(rollout.new.nodes, FINAL)


def test_a_silent_or_refusing_taker_keeps_everything_back_and_says_so() -> None:
    rollout = Rollout(2, NEW, [OLD])
    facts = after(rollout, 1, b1=Facts((1, FINAL)))
    assert rollout.wanted(facts)["c1"] == (-1, "waits for b1, silent")
    facts["b1"] = Facts((1, FINAL), alive=True, refused="no room")
    assert rollout.wanted(facts)["c1"] == (-1, "b1 refused")


def test_one_node_of_a_pair_is_enough_where_the_other_is_silent() -> None:
    pair = [*NODES, {"name": "b2", "address": "10.0.0.9:1", "endpoint": "B"}]
    rollout = Rollout(2, topology(ALL_A, SEVEN_B, nodes=pair), [topology(ALL_A, nodes=pair)])
    facts = after(rollout, 1, b1=Facts((1, FINAL)), b2=Facts((2, FINAL), alive=True))
    assert steps(rollout, facts)["c1"] == FINAL
    facts["b1"] = Facts((1, FINAL), alive=True)
    assert rollout.wanted(facts)["c1"] == (-1, "waits for b1"), "it lives: a moment"


def test_what_is_new_waits_for_who_answers_and_for_nobody_who_is_silent() -> None:
    """Nothing served it before: nothing breaks."""
    rollout = Rollout(1, NEW, [])
    facts = after(rollout, 0)
    assert {steps(rollout, facts)[name] for name in ("a1", "b1")} == {FINAL}
    rollout = Rollout(2, NEW, [topology(nodes=NODES)])
    facts = after(rollout, 1)
    assert steps(rollout, facts)["c1"] == -1
    facts |= {"a1": Facts(), "b1": Facts()}
    assert steps(rollout, facts)["c1"] == FINAL


def test_a_dead_end_point_can_be_left() -> None:
    rollout = Rollout(2, topology({**ALL_A, "to": "B"}), [OLD])
    facts = after(rollout, 1, a1=Facts((1, FINAL)), b1=Facts((2, FINAL), alive=True))
    assert steps(rollout, facts)["c1"] == FINAL
    assert outcome(facts["a1"], rollout.wanted(facts)["a1"], 2) == "silent"


def test_a_distribution_point_that_says_it_is_withdrawn_keeps_nothing_back() -> None:
    rollout = Rollout(2, NEW, [OLD])
    facts = after(rollout, 1, b1=Facts((2, FINAL), alive=True), c1=Facts((2, FINAL), frozenset([2]), True))
    facts["a1"] = Facts((2, MAKE), alive=True)
    facts["d1"] = replace(facts["d1"], announces=False)
    assert steps(rollout, facts)["a1"] == FINAL
    facts["d1"] = replace(facts["d1"], alive=False)
    assert rollout.wanted(facts)["a1"] == (-1, "waits for d1"), "what it said then is stale"


def inner(tables: render.Tables) -> dict[str, str]:
    return {str(row["global"]): row.get("to", row.get("policy", "")) for row in tables["binding"]}


def test_make_has_what_comes_and_what_still_comes() -> None:
    rows = NEW.nodes
    assert inner(render.make([OLD], NEW, rows["b1"])) == {"203.0.113.0/24": "A", "203.0.113.7/32": "B"}
    assert inner(render.make([OLD], NEW, rows["a1"])) == {"203.0.113.0/24": "A"}, "7 is served here still"
    assert inner(render.make([NEW], OLD, rows["b1"])) == {"203.0.113.0/24": "A", "203.0.113.7/32": "B"}
    swapped = topology({"global": "203.0.113.1", "to": "A"}, {"global": "203.0.113.2", "to": "B"})
    before = topology({"global": "203.0.113.1", "to": "B"}, {"global": "203.0.113.2", "to": "A"})
    for name in ("a1", "b1"):
        own = NODES[0 if name == "a1" else 1]["endpoint"]
        assert inner(render.make([before], swapped, rows[name])) == {"203.0.113.1": own, "203.0.113.2": own}


def test_a_policy_is_as_it_was_where_a_member_left_it() -> None:
    def with_members(*names: str) -> Topology:
        members = [{"endpoint": name, "weight": 1} for name in names]
        return topology(
            {"global": "203.0.113.7/32", "policy": "p"}, policy=[{"name": "p", "members": members}]
        )

    both, one = with_members("A", "B"), with_members("B")
    made = render.make([both], one, one.nodes["a1"])
    assert [len(row["members"]) for row in made["policy"]] == [2]
    assert [len(row["members"]) for row in render.make([both], one, one.nodes["b1"])["policy"]] == [1]
    assert inner(render.final(one, one.nodes["a1"])) == {}
    assert gaining([one], both) == {"A": True}


def test_a_node_gets_the_networks_that_it_serves_and_knows_which_it_is() -> None:
    other = {"name": "mail", "prefix": "198.51.100.0/24"}
    wide = topology(ALL_A, {"global": "198.51.100.0/24", "to": "B"}, network=[NET, other])
    assert inner(render.final(wide, wide.nodes["a1"])) == {"203.0.113.0/24": "A"}
    assert len(inner(render.final(wide, wide.nodes["c1"]))) == 2
    text = tomllib.loads(render.text(render.final(wide, wide.nodes["a1"])))
    assert [row.get("self", False) for row in text["endpoint"]] == [True, False]
    assert [row["name"] for row in text["network"]] == ["web"]


def test_text_is_toml_of_the_same_values() -> None:
    row = {
        "name": 'q"\\\n\x7f', "local": ["10.0.0.0/8"], "weight": 3, "mss_clamp": True, "share": 0.5,
        "path_mtu": {"v4": 1400, "v6": 1500},
    }  # fmt: skip
    assert tomllib.loads(render.text({"endpoint": [row]})) == {"endpoint": [row]}


def test_changes_in_words() -> None:
    assert list(changes(OLD, NEW)) == ["+ binding 203.0.113.7/32: to B"]
    assert list(changes(NEW, topology(ALL_A, {**SEVEN_B, "to": "A"}))) == [
        "~ binding 203.0.113.7/32: to B -> A"
    ]
    assert list(changes(NEW, NEW)) == []


BOTH = [
    {"name": "x1", "address": "10.0.0.1:1", "endpoint": "A", "distribution": "C"},
    {"name": "y1", "address": "10.0.0.2:1", "endpoint": "B", "distribution": "D"},
]


class World:
    """Nodes that take what is wanted of them, one at a time, in any order; packets are looked for."""

    def __init__(self, old: Topology, new: Topology) -> None:
        self.rollout = Rollout(2, new, [old])
        self.facts = after(self.rollout, 1)
        self.tables = {name: render.final(old, row) for name, row in new.nodes.items()}

    def moves(self) -> Iterator[str]:
        for name, (step, _) in self.rollout.wanted(self.facts).items():
            if step >= 0 and self.facts[name].has < (2, step):
                yield name

    def take(self, name: str) -> None:
        step, _ = self.rollout.wanted(self.facts)[name]
        tables = render.make(self.rollout.bases, self.rollout.new, self.rollout.new.nodes[name])
        self.tables[name] = (
            tables if step == MAKE else render.final(self.rollout.new, self.rollout.new.nodes[name])
        )
        assert self.rollout.text(name, step) == render.text(self.tables[name])
        self.facts[name] = replace(self.facts[name], has=(2, step))

    def lost(self) -> list[str]:
        """Addresses that a distribution point sends to an end point whose nodes do not serve it."""
        found = []
        nodes = self.rollout.new.nodes
        have = {name: Topology(tables) for name, tables in self.tables.items()}
        for point, row in nodes.items():
            for address in (1, 2, 7, 9) if row.distribution else ():
                prefix = ip_network(f"203.0.113.{address}")
                binding = have[point].cover(prefix)
                for endpoint in have[point].endpoints_of(binding) if binding is not None else ():
                    ready = any(
                        have[n].serves(prefix, endpoint) for n, r in nodes.items() if r.endpoint == endpoint
                    )
                    found += [] if ready else [f"{point} sends {prefix} to {endpoint}"]
        return found


def bound(random_: random.Random) -> list[dict[str, Any]]:
    prefixes = ["203.0.113.0/24", "203.0.113.0/29", "203.0.113.7/32", "203.0.113.2/32", "203.0.113.9/32"]
    return [{"global": prefix, "to": random_.choice("AB")} for prefix in prefixes if random_.random() < 0.7]


@pytest.mark.parametrize("seed", range(20))
def test_no_packet_is_lost_in_whatever_order_nodes_answer(seed: int) -> None:
    random_ = random.Random(seed)
    for _ in range(5):
        world = World(topology(*bound(random_)), topology(*bound(random_)))
        while left := sorted(world.moves()):
            assert world.lost() == [], seed
            world.take(random_.choice(left))
        assert world.lost() == [], seed
        assert {one.has for one in world.facts.values()} == {(2, FINAL)}, "nothing waits for ever"


def test_nodes_that_are_both_arrive_in_every_order() -> None:
    pairs = [{"global": "203.0.113.1", "to": "A"}, {"global": "203.0.113.2", "to": "B"}]
    turned = [{**row, "to": "B" if row["to"] == "A" else "A"} for row in pairs]
    for order in itertools.product((0, 1), repeat=6):
        world = World(topology(*pairs, nodes=BOTH), topology(*turned, nodes=BOTH))
        for choice in order:
            if left := sorted(world.moves()):
                world.take(left[choice % len(left)])
        while left := sorted(world.moves()):
            world.take(left[0])
        assert {one.has for one in world.facts.values()} == {(2, FINAL)}
        assert world.lost() == []


def test_what_make_keeps_is_taken_by_a_node(tmp_path: Path) -> None:
    random_ = random.Random(1)
    for _ in range(20):
        old, new = topology(*bound(random_)), topology(*bound(random_))
        for name in ("a1", "b1"):
            assert problems_at(new, name, render.make([old], new, new.nodes[name])) == ()


def test_bases_are_what_distribution_points_may_have() -> None:
    facts = {
        "c1": Facts(may=frozenset([3, 5])),
        "d1": Facts(may=frozenset([4])),
        "a1": Facts(may=frozenset([1])),
    }
    assert bases_of(facts, NEW.nodes, 5) == (4, 3)
    assert bases_of({}, NEW.nodes, 5) == ()
