"""The remap's state machine: every outcome of every action at every step, its invariants, that it ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipshare.agent.codec import decode, encode
from ipshare.engine.remapping import RemapRole, RemapState
from ipshare.remap import machine
from ipshare.remap.machine import (
    Action,
    Cut,
    Did,
    No,
    Outcome,
    Part,
    Plan,
    Progress,
    Silent,
    Step,
    What,
    abort,
    advance,
    is_drained,
    todo,
)

PLAN = Plan(
    id=7, prefix=ip_network("203.0.113.7/32"), origin="A", to="B", giver="a1", taker="b1",
    points=("c1", "d1"), channel="A-B", deadline_s=100.0, patience_s=30.0, silence_s=5.0,
)  # fmt: skip
CHAIN = replace(PLAN, id=9, origin="B", to="E", giver="b1", taker="e1",
                earlier=(Part(8, PLAN.prefix, "A", "a1", "A-E"),))  # fmt: skip
"""On to a third end point while A's connections drain still."""
NS = 10**9


def half(role: RemapRole = RemapRole.LEAVING, **other: object) -> RemapState:
    said = {
        "id": 7, "prefix": PLAN.prefix, "peer": "B", "role": role, "now_ns": 100 * NS, "since_ns": 50 * NS,
        "tracked_ns": 10 * NS, "fence_ns": 50 * NS, "fence_applied": False, "is_ready": False, "flows": 3,
        "active": 1, "is_exact": True, "counted_ns": 90 * NS, "heard_ns": 99 * NS, "phase": "live",
        "refusal": "not", "lag_events": 0, "lag_ns": 0, "round_trip_ns": 0, "resyncs": 0,
        "counters": {"opened": 2, "opened_asked": 3},
    }  # fmt: skip
    return RemapState(**{**said, **other})  # type: ignore[arg-type]


READY = half(is_ready=True)
FENCED = half(is_ready=True, fence_applied=True)
DRAINED = half(is_ready=True, fence_applied=True, flows=0)
STATES = (None, half(), half(RemapRole.TAKING), half(heard_ns=0), READY, FENCED, DRAINED)
OUTCOMES: tuple[Outcome, ...] = (
    *(Did(state) for state in STATES), Did(cut=Cut(2, True, ("tcp 1 > 2 open",))), No("no"), Silent("gone"),
)  # fmt: skip
WAITS = (0.0, 29.9, 30.0, 200.0)


@dataclass(frozen=True)
class Known:
    """What has really happened on the way: the test's own memory."""

    at: Progress
    fenced: tuple[int, ...] = ()  # the giver said so
    took: int = 0  # the taker did, so many parts
    told: bool = False  # some distribution point was asked to flip


def follow(known: Known, action: Action, outcome: Outcome, wait_s: float) -> Known:
    at, state = known.at, outcome.state if isinstance(outcome, Did) else None
    after = advance(at, action, outcome, at.since_s + wait_s)
    is_fenced = at.step is Step.FENCING and state is not None and state.role.gives and state.fence_applied
    return Known(
        after,
        (*known.fenced, action.part) if is_fenced else known.fenced,
        known.took + (action.role is RemapRole.TAKING and isinstance(outcome, Did)),
        known.told or after.step is Step.FLIPPING,
    )


def every(plan: Plan) -> Iterator[Known]:
    """All that can be, however answers, waits and aborts follow each other."""
    new, seen = [Known(Progress(plan))], set()
    while new:
        known = new.pop()
        at = known.at
        key = same(known)
        if key in seen:
            continue
        seen.add(key)
        yield known
        new.append(replace(known, at=abort(at, at.since_s)))
        for action in todo(at):
            new += [follow(known, action, outcome, wait_s) for outcome in OUTCOMES for wait_s in WAITS]


def same(known: Known) -> Known:
    """What differs in nothing that a rule is about."""
    at = known.at
    cleared = at.cleared if at.step in (Step.UNDOING, Step.UNDONE) else tuple(sorted(at.cleared))
    at = replace(
        at, since_s=0.0, took_s=None if at.took_s is None else 0.0, did=tuple(sorted(at.did)),
        cleared=cleared, flipped=tuple(sorted(at.flipped)), reason="why" if at.reason else "",
        cut=None if at.cut is None else Cut(1, True), opened_there=min(at.opened_there, 1),
    )  # fmt: skip
    return replace(known, at=at)


EVERY = [*every(PLAN), *every(CHAIN)]


def test_there_is_something_to_look_at() -> None:
    assert {known.at.step for known in EVERY} == set(Step)
    assert len(EVERY) > 150


def parts(known: Known) -> int:
    return len(known.at.plan.parts)


def test_nobody_takes_before_the_fence_and_nobody_flips_before_the_taker_takes() -> None:
    for known in EVERY:
        for action in todo(known.at):
            if action.role is RemapRole.TAKING:
                assert len(known.fenced) == parts(known), known
            if action.what is What.BIND and action.node in PLAN.points:
                assert len(known.fenced) == known.took == parts(known), known


def test_what_was_told_to_flip_is_never_undone_and_what_is_undone_was_not_told() -> None:
    for known in EVERY:
        if known.at.step in (Step.UNDOING, Step.UNDONE):
            assert not known.told and not known.at.flipped and known.at.reason, known
        if known.told:
            assert abort(known.at, 0.0) == known.at


def test_nothing_is_cleared_before_all_have_flipped() -> None:
    for known in EVERY:
        clears = [action for action in todo(known.at) if action.what in (What.CLEAR, What.RELEASE)]
        if clears and known.at.step is not Step.UNDOING:
            assert set(known.at.flipped) == set(PLAN.points), known


def test_what_is_undone_was_cleared_at_the_giver_first() -> None:
    undone = [known.at for known in EVERY if known.at.step is Step.UNDONE]
    wanted = {7: ("a1", "b1"), 9: ("b1", "a1 8", "e1 8", "e1")}
    assert undone and all(at.cleared == wanted[at.plan.id] for at in undone)


def test_an_earlier_giver_leaves_when_the_later_ones_fence_is_applied() -> None:
    """Else what it asks would be dropped, or opened at who leaves."""
    for known in EVERY:
        for action in todo(known.at):
            if action.role is RemapRole.LEAVING and action.part == 8:
                assert known.fenced == (9,), known


def test_it_drains_until_nothing_is_left_at_any_giver() -> None:
    at = Progress(CHAIN, Step.DRAINING, took_s=0.0, flipped=CHAIN.points, fenced=(9, 8))
    earlier, later = todo(at)
    at = advance(at, later, Did(DRAINED), 1.0)
    assert (at.step, at.did) == (Step.DRAINING, (9,))
    at = advance(at, later, Did(FENCED), 1.0)  # one spoke that had been silent
    assert (at.step, at.did) == (Step.DRAINING, ())
    at = advance(advance(at, earlier, Did(DRAINED), 1.0), later, Did(DRAINED), 1.0)
    assert at.step is Step.CLEARING
    ends = {("e1", 8), ("e1", 9), ("a1", 8), ("b1", 9)}
    assert {(action.node, action.part) for action in todo(at)} == ends


def test_the_deadline_names_what_it_cuts_at_all_givers() -> None:
    at = Progress(CHAIN, Step.NAMING, flipped=CHAIN.points)
    for action in todo(at):
        at = advance(at, action, Did(cut=Cut(action.part, action.part == 8, (action.node,))), 1.0)
    assert (at.step, at.cut) == (Step.CLEARING, Cut(17, False, ("a1", "b1")))


def good(action: Action) -> Did:
    """What a node says where nothing is in the way."""
    return Did(DRAINED, Cut(0, True)) if action.what in (What.LOOK, What.NAME) else Did(half())


@pytest.mark.parametrize("step", Step)
def test_from_everywhere_it_ends_where_nodes_do_what_they_are_asked(step: Step) -> None:
    for known in EVERY:
        at = known.at
        if at.step is not step:
            continue
        for _ in range(20):
            for action in todo(at):
                at = advance(at, action, good(action), at.since_s)
        end = Step.UNDONE if step in (Step.UNDOING, Step.UNDONE) else Step.DONE
        assert at.step is end, known


def test_an_answer_to_what_was_not_asked_changes_nothing() -> None:
    actions = {action for known in EVERY for action in todo(known.at)}
    for known in EVERY[::3]:
        for action in actions - set(todo(known.at)):
            for outcome in OUTCOMES:
                assert advance(known.at, action, outcome, known.at.since_s + 1e6) == known.at


def test_a_node_that_is_silent_before_the_flip_is_waited_for_and_then_it_is_undone() -> None:
    at = Progress(PLAN)
    (action,) = todo(at)
    assert advance(at, action, Silent("gone"), 29.0).step is Step.BINDING
    undone = advance(at, action, Silent("gone"), 30.0)
    assert (undone.step, undone.reason) == (Step.UNDOING, "binding: gone")


def test_reasons_say_what_was_missing() -> None:
    syncing = Progress(PLAN, Step.SYNCING)
    (look,) = todo(syncing)
    assert "did not hear B" in advance(syncing, look, Did(half(heard_ns=0)), 30.0).reason
    assert "the mirror is live" in advance(syncing, look, Did(half()), 30.0).reason
    fencing = Progress(PLAN, Step.FENCING)
    assert "every connection of A" in advance(fencing, look, Did(READY), 30.0).reason


def test_late_distribution_points_hold_the_drain_back_and_nothing_else() -> None:
    at = Progress(PLAN, Step.FLIPPING, took_s=0.0)
    c1, d1 = todo(at)
    at = advance(at, c1, Silent("gone"), 1.0)
    at = advance(at, d1, Did(), 1.0)
    assert (at.step, at.waits_for) == (Step.FLIPPING, ("c1",))
    at = advance(at, c1, No("broken"), 1e6)
    assert at.step is Step.FLIPPING, "the deadline does not cut what still goes to the giver"
    assert advance(at, c1, Did(), 1e6).step is Step.DRAINING


def test_the_deadline_names_what_it_cuts_from_whoever_knows() -> None:
    at = Progress(PLAN, Step.DRAINING, since_s=10.0, took_s=10.0, flipped=PLAN.points)
    (look,) = todo(at)
    assert advance(at, look, Did(FENCED), 109.9) == at
    at = advance(at, look, Silent("gone"), 110.0)
    assert at.step is Step.NAMING
    giver, taker = todo(at)
    assert advance(at, giver, Silent("gone"), 111.0) == at
    named = advance(at, taker, Did(cut=Cut(2, False)), 111.0)
    assert (named.step, named.cut) == (Step.CLEARING, Cut(2, False))
    assert advance(at, taker, Silent("gone"), 140.0).cut is None, "it goes on where nobody knows"


@pytest.mark.parametrize(
    ("state", "drained"),
    [
        (DRAINED, True),
        (FENCED, False),
        (replace(DRAINED, counted_ns=50 * NS), False),  # counted before the fence
        (replace(DRAINED, tracked_ns=96 * NS), False),  # silence_s is 5
        (replace(DRAINED, fence_ns=0), False),
    ],
)
def test_zero_counts_after_the_fence_and_after_a_while(state: RemapState, drained: bool) -> None:
    assert is_drained(PLAN, state) is drained


def test_what_the_taker_had_opened_is_told_where_it_is_undone() -> None:
    at = abort(Progress(PLAN, Step.FENCING), 1.0)
    for _ in range(3):
        (action,) = todo(at)
        at = advance(at, action, Did(half(RemapRole.READY)), 1.0)
    assert (at.step, at.opened_there, at.reason) == (Step.UNDONE, 5, "aborted")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, len(OUTCOMES) - 1), st.sampled_from(WAITS))))
def test_any_progress_survives_the_journal(moves: list[tuple[int, int, float]]) -> None:
    known = Known(Progress(PLAN))
    for number, outcome, wait_s in moves:
        actions = todo(known.at)
        if not actions:
            break
        known = follow(known, actions[number % len(actions)], OUTCOMES[outcome], wait_s)
        assert decode(Progress, encode(known.at)) == known.at


def test_only_the_steps_before_the_flip_can_be_undone() -> None:
    assert [step for step in Step if step.can_be_undone] == list(machine._BEFORE)
