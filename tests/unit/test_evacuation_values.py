"""Evacuations as values: plans merged into what became of earlier ones; whether a group arrived; policies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.director.evacuation import record
from ipshare.director.evacuation.places import faults, layout
from ipshare.director.evacuation.progress import progress
from ipshare.director.evacuation.record import Evacuation, Step
from ipshare.director.rollout import FINAL, MAKE, Facts
from ipshare.director.topology import NodeRow, Topology
from ipshare.placement.plan import Move, Plan, Stay, evacuate
from tests.examples import examples

EMPTY = Evacuation("x@1", "x", "", (), "ann", "storm", "t")


def move(name: str, target: str = "b1") -> Move:
    return Move(name, (name,), 1.0, "a1", "x", target, "y", "why")


def plan(*names: str, stays: str = "") -> Plan:
    left = tuple(Stay(name, (name,), 1.0, "a1", "no room") for name in stays)
    return Plan(tuple(move(name) for name in names), left, True)


def states(evacuation: Evacuation) -> dict[str, str]:
    return {step.unit: step.state for step in evacuation.steps}


def test_a_new_plan_takes_the_place_of_what_waits_alone() -> None:
    one = record.planned(EMPTY, plan("a", "b", "c", "d", stays="e"))
    a, b = record.batch(one, 2)
    one = record.stepped(one, [replace(a, state="done"), replace(b, state="failed", outcome="no")])
    one = record.planned(one, plan("b", "d", "f", stays="ac"))
    assert states(one) == {"a": "done", "b": "failed", "d": "waiting", "f": "waiting"}
    assert [stay.unit for stay in one.stays] == ["c"]
    assert record.ended(one).state == "incomplete"
    again = record.again(one)
    assert states(again)["b"] == "waiting" and states(again)["a"] == "done" and again.state == "running"


def test_nothing_begins_while_something_is_on_its_way() -> None:
    one = record.planned(EMPTY, plan("a", "b"))
    one = record.stepped(one, [replace(one.steps[0], state="moving")])
    assert record.batch(one, 5) == ()


def test_what_failed_together_is_tried_alone_once() -> None:
    one = record.planned(EMPTY, plan("a", "b", "c"))
    failed = [replace(step, state="failed") for step in record.batch(one, 2)]
    one = record.stepped(one, record.failed_together(failed))
    assert [step.unit for step in record.batch(one, 2)] == ["c"], "the others first"
    one = record.planned(one, plan("a", "b"))
    (first,) = record.batch(one, 2)
    assert first.unit == "a" and first.alone
    (after,) = record.failed_together([replace(first, state="failed")])
    assert after.state == "failed"


texts = st.text(max_size=5)
steps = st.builds(
    Step, texts, st.lists(texts, max_size=2).map(tuple), st.floats(0, 9), texts, texts, texts, texts, texts,
    st.sampled_from(["waiting", "moving", "done", "failed"]), texts, st.integers(0, 9), st.booleans(),
)  # fmt: skip


@given(st.lists(steps, max_size=3), texts, st.sampled_from(["running", "stopped", "done"]))
@examples(50)
def test_it_is_the_same_after_the_store(found: list[Step], text: str, state: Any) -> None:
    one = replace(record.planned(EMPTY, plan(stays="z")), steps=tuple(found), why=text, state=state)
    one = one.noted("t", text)
    assert record.from_text(record.to_text(one)) == one


@given(st.lists(st.sets(st.sampled_from("abcdef")), max_size=8), st.integers(1, 3), st.data())
@examples(100)
def test_every_story_ends_and_moves_nothing_twice(plans: list[set[str]], at_once: int, data: Any) -> None:
    """Whatever plans say next, and becomes of groups: batches are small, what was done is done once."""
    one, done = EMPTY, []
    for names in [*plans, set()]:
        one = record.planned(one, plan(*sorted(names)))
        chosen = record.batch(one, at_once)
        assert len(chosen) <= at_once
        outcomes: list[Any] = [data.draw(st.sampled_from(["done", "failed", "waiting"])) for _ in chosen]
        new = [replace(step, state=state) for step, state in zip(chosen, outcomes, strict=True)]
        done += [step.unit for step in new if step.state == "done"]
        one = record.stepped(one, [*new, *record.failed_together(new)])
    assert len(done) == len(set(done)) and set(done) == {s.unit for s in one.of("done")}
    assert not one.of("waiting") and not one.of("moving")


NODES = {
    "a1": NodeRow("a1", "", "A", None),
    "b1": NodeRow("b1", "", "B", None),
    "b2": NodeRow("b2", "", "B", None),
    "c1": NodeRow("c1", "", None, "C"),
    "d1": NodeRow("d1", "", None, "D"),
}
NEW, READY, OLD = Facts((7, FINAL), alive=True), Facts((7, MAKE), alive=True), Facts((6, FINAL), alive=True)
NO = Facts((6, FINAL), alive=True, refused="no")
GONE = Facts((6, FINAL))
CASES: dict[str, tuple[dict[str, Facts], str, str]] = {
    "everybody has it": ({}, "done", ""),
    "the target is not ready": ({"b1": OLD, "b2": OLD}, "wait", "waits for b1, b2"),
    "one of the target's nodes is not": ({"b2": OLD}, "wait", "waits for b2"),
    "a distribution point has not": ({"d1": OLD, "a1": READY}, "wait", "waits for d1"),
    "the old end point has not": ({"a1": OLD}, "wait", "waits for a1"),
    "the target refused": ({"b1": NO, "b2": OLD, "c1": OLD, "d1": OLD}, "failed", "b1 refused: no"),
    "one of the target's nodes refused": ({"b2": NO}, "failed", "b2 refused: no"),
    "a distribution point refused": ({"d1": NO, "a1": READY}, "failed", "d1 refused: no"),
    "the old end point refused": ({"a1": NO}, "done", ""),
    "it refused before": ({"d1": NO, "a1": READY, "before": NO}, "done", "without d1"),
    "a distribution point is silent": ({"d1": GONE, "a1": READY, "b1": READY}, "done", "without d1"),
    "all of them are": ({"c1": GONE, "d1": GONE, "a1": READY}, "wait", "waits for c1, d1"),
    "it is withdrawn": ({"d1": Facts((6, FINAL), alive=True, announces=False)}, "done", ""),
    "the target is silent": ({"b1": GONE, "b2": GONE, "c1": OLD, "d1": OLD}, "wait", "waits for b1, b2"),
    "one of the target's nodes is silent": ({"b2": GONE}, "done", ""),
    "an older end point is silent": ({"a1": GONE}, "done", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_whether_a_group_has_arrived(case: str) -> None:
    facts, verdict, why = CASES[case]
    before = {"d1"} if "before" in facts else set()
    found = {name: facts.get(name, NEW) for name in NODES}
    silent = {name for name, one in found.items() if not one.alive}
    assert progress(NODES, found, 7, "B", silent, before) == (verdict, why)


def topology(**more: Any) -> Topology:
    rows = {
        "site": [{"name": "x"}, {"name": "y", "capacity": 3.0, "weight": 2}],
        "node": [
            {"name": "a1", "site": "x", "endpoint": "A", "capacity": 2},
            {"name": "b1", "site": "y", "endpoint": "B", "capacity": 9},
            {"name": "n1", "endpoint": "N"},
            {"name": "c1", "site": "x", "distribution": "C"},
        ],
        "workload": [{"name": "w", "node": "a1"}, {"name": "v", "node": "n1", "size": 2}],
    }
    return Topology(rows | more)


def test_a_topology_as_placement_sees_it() -> None:
    seen = layout(topology())
    assert [(node.name, node.site, node.capacity) for node in seen.nodes] == [
        ("a1", "x", 2), ("b1", "y", 9), ("n1", "", 0),
    ]  # fmt: skip
    assert {site.name: (site.capacity, site.weight) for site in seen.sites} == {
        "x": (2, 1), "y": (3, 2), "": (0, 0),
    }  # fmt: skip
    assert [move.target for move in evacuate(seen, "x").moves] == ["b1"]
    assert [move.target for move in evacuate(seen, "y").moves] == []
    assert evacuate(layout(topology(), {"b1"}), "x").is_alarm


def test_policies_that_are_not_kept_are_told() -> None:
    assert faults(topology()) == []
    workloads = [
        {"name": "big", "node": "a1", "size": 2.5, "apart": ["dns"]},
        {"name": "w", "node": "b1", "size": 3.5, "allowed": ["x"]},
        {"name": "v", "node": "a1", "size": 0.1, "apart": ["dns", "web"]},
        {"name": "u", "node": "n1", "size": 99, "apart": ["dns"]},
        {"name": "t", "node": "n1", "apart": ["dns"], "allowed": ["x", "y"]},
    ]
    assert faults(topology(workload=workloads)) == [
        "w is at y, and allowed at x alone",
        "t is at no site, and allowed at x, y alone",
        "node a1 holds 2.6, more than its capacity, 2",
        "site y holds 3.5, more than its capacity, 3",
        "big, v are kept apart by 'dns', and all at x",
    ]
